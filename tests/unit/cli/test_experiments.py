"""`slipway experiments`: the queue and the pool found, a search started, counted and shown."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import Any

import pytest
from typer.testing import CliRunner

from slipway import experiments
from slipway.cli import app
from slipway.endpoints import Cluster
from slipway.errors import BadInput, SlipwayError
from slipway.experiments import Tally

COMMIT = "d4" * 20
QUEUES = f"{experiments.KUEUE}/namespaces/pipelines/localqueues"
TEMPLATE = f"{experiments.API}/workflowtemplates/experiments"
WORKFLOW = f"{experiments.API}/workflows/experiments-toy-abcde"


def item(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": spec}


def flavor(name: str, gpus: int) -> dict[str, Any]:
    resources = [{"name": "cpu", "nominalQuota": "900"}, {"name": "nvidia.com/gpu"}]
    resources[1]["nominalQuota"] = str(gpus)
    return {"name": name, "resources": resources}


@pytest.fixture
def queues(platform: Any) -> Any:
    """The platform with two teams."""
    flavors = [flavor("l4-flavor", 16), flavor("h100-flavor", 32)]
    platform.objects |= {
        QUEUES: {"items": [item("vision", clusterQueue="vision-gpus"), item("empty")]},
        f"{experiments.KUEUE}/resourceflavors": {
            "items": [
                item("l4-flavor", nodeLabels={"slipway/pool": "l4"}),
                item("h100-flavor", nodeLabels={"slipway/pool": "h100"}),
            ]
        },
        f"{experiments.KUEUE}/clusterqueues/vision-gpus": item(
            "vision-gpus", resourceGroups=[{"flavors": flavors}]
        ),
        f"{experiments.KUEUE}/workloadpriorityclasses": {
            "items": [item("experiment"), item("production")]
        },
        TEMPLATE: {},
    }
    return platform


def test_a_teams_pools_are_those_of_its_quota(queues: Any) -> None:
    queue = experiments.queue(queues.cluster, "vision")
    assert queue.pools == {"l4": 16, "h100": 32}
    assert queue.pool(None) == "h100"
    assert queue.pool("l4") == "l4"


@pytest.mark.parametrize(
    ("team", "pool", "said"),
    [
        ("visoin", None, "--team: no team 'visoin'\n  fix: did you mean 'vision'?"),
        ("vision", "h10", "no quota in a pool 'h10'\n  fix: did you mean 'h100'?"),
    ],
)
def test_who_and_where_are_known_names(queues: Any, team: str, pool: str | None, said: str) -> None:
    with pytest.raises(BadInput) as raised:
        experiments.queue(queues.cluster, team).pool(pool)
    assert said in str(raised.value)


def test_a_priority_is_a_known_one(queues: Any) -> None:
    experiments.check_priority(queues.cluster, "production")
    with pytest.raises(BadInput, match="did you mean 'production'"):
        experiments.check_priority(queues.cluster, "prodction")


def test_a_cluster_without_queues_says_how_to_get_some(platform: Any) -> None:
    with pytest.raises(SlipwayError, match="slipway pulumi up --stack simulated"):
        experiments.queue(platform.cluster, "vision")


def test_a_team_without_gpus_says_so(queues: Any) -> None:
    with pytest.raises(SlipwayError, match="team empty has no quota of GPUs"):
        experiments.queue(queues.cluster, "empty")


def node(template: str, kind: str, phase: str, *children: str) -> dict[str, Any]:
    made = {"type": kind, "displayName": "x", "templateName": template, "phase": phase}
    return {**made, "children": list(children)}


def searched(phase: str, **outputs: str) -> dict[str, Any]:
    """A search as the cluster has it, on its way or at its end."""
    parameters = [{"name": name, "value": value} for name, value in outputs.items()]
    nodes = {
        "dag": node("search", "DAG", "Running"),
        "group": node("gpu", "TaskGroup", "Running"),
        "a": node("cpu", "Retry", "Succeeded", "a0"),
        "a0": node("cpu", "Pod", "Succeeded"),
        "b": node("gpu", "Retry", "Running", "b0"),
        "b0": node("gpu", "Pod", "Running"),
        "c": node("gpu", "Retry", "Running", "c0", "c1"),
        "c0": node("gpu", "Pod", "Error"),
        "c1": node("gpu", "Pod", "Pending"),
        "d": node("gang", "Retry", "Failed", "d0"),
        "d0": node("gang", "Pod", "Failed"),
        "e": node("gpu", "Retry", "Running"),
        "end": {**node("collect", "Pod", "Succeeded"), "outputs": {"parameters": parameters}},
    }
    return {
        "metadata": {"name": "experiments-toy-abcde"},
        "status": {"phase": phase, "nodes": nodes},
    }


def test_pods_are_counted_as_their_last_try_stands() -> None:
    found = experiments.progress(searched("Running"))
    assert found.cpu == Tally(succeeded=1)
    assert found.gpu == Tally(waiting=2, running=1, failed=1, resumed=1)
    assert found.gpu.total == 4
    assert found.results == []


RESULTS = [
    {"number": 2, "parameters": {"depth": "4"}, "metrics": {"brier": 0.17}, "run": "r2"},
    {"number": 0, "parameters": {"depth": "3"}, "metrics": {"brier": 0.18}, "run": "r0"},
]


@pytest.fixture
def slipway(queues: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    queues.forge.put(COMMIT, {"bentos/toy/model.yaml": b"name: toy"})
    monkeypatch.setattr(Cluster, "connect", classmethod(lambda _: queues.cluster))
    monkeypatch.setattr(Cluster, "forge", lambda _: nullcontext(queues.forge))
    return lambda *words: CliRunner().invoke(app, ["experiments", "toy", *words])


def test_a_search_is_submitted_as_it_was_asked_for(slipway: Any, queues: Any) -> None:
    done = slipway("--team", "vision", "--count", "50", "--real", "2", "--workers", "4")
    assert done.exit_code == 0, done.output
    (created,) = queues.created
    assert created["spec"]["workflowTemplateRef"] == {"name": "experiments"}
    values = {p["name"]: p["value"] for p in created["spec"]["arguments"]["parameters"]}
    assert values == {
        **{"model": "toy", "commit": COMMIT, "team": "vision", "pool": "h100", "count": "50"},
        **{"real": "2", "workers": "4", "priority": "experiment", "simulated-for": "60s"},
    }
    assert created["metadata"]["labels"]["slipway.dev/team"] == "vision"
    assert "slipway experiments toy --search experiments-toy-abcde --wait" in done.stderr


@pytest.mark.parametrize(("words", "team"), [((), "none"), (("--team", "vision"), "vision")])
def test_experiments_on_cpu_alone_need_no_queues(
    slipway: Any, platform: Any, words: Any, team: str
) -> None:
    platform.objects = {TEMPLATE: {}}
    done = slipway("--count", "4", "--real", "4", *words)
    assert done.exit_code == 0, done.output
    (created,) = platform.created
    values = {p["name"]: p["value"] for p in created["spec"]["arguments"]["parameters"]}
    assert (values["team"], values["pool"]) == (team, "none")
    assert (values["count"], values["real"]) == ("4", "4")
    assert "experiments-toy-abcde: 4 on CPU\n" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--team: missing"),
        ((), "or run all on CPU: --real 200"),
        (("--team", "vision", "--count", "2", "--real", "3"), "--real: 3 of 2"),
    ],
)
def test_what_cannot_be_is_refused(slipway: Any, queues: Any, words: Any, said: str) -> None:
    done = slipway(*words)
    assert done.exit_code == 2
    assert said in done.stderr
    assert not queues.created


def test_the_end_of_a_search_is_its_table(slipway: Any, queues: Any) -> None:
    queues.objects[WORKFLOW] = searched("Succeeded", results=json.dumps(RESULTS), parent="r")
    done = slipway("--search", "experiments-toy-abcde", "--wait")
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == ["EXPERIMENT", "brier", "depth"]
    assert lines[1] == ["2", "0.1700", "4"]
    assert "on CPU: 1 succeeded; on GPUs: 2 waiting" in done.stderr
    shown = json.loads(slipway("--search", "experiments-toy-abcde", "-o", "json").stdout)
    assert shown["results"] == RESULTS
    assert (shown["run"], shown["gpu"]["resumed"]) == ("r", 1)


def test_one_that_failed_says_where(slipway: Any, queues: Any) -> None:
    queues.objects[WORKFLOW] = searched("Failed")
    done = slipway("--search", "experiments-toy-abcde")
    assert done.exit_code == 1
    assert "step x failed" in done.stderr
