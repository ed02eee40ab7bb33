"""The workflows: generated from their sources, consistent with the steps, and each pod with no more
than its step needs."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from slipway import github
from slipway.steps.__main__ import FLAGS, TRANSIENT, TRUSTED
from workflows.__main__ import render
from workflows.steps import SETTLED

RENDERED = render()
NAMES = ("train", "promote", "reproduce", "experiments")
# Those whose steps follow one another.
CHAINS = NAMES[:3]


@pytest.mark.parametrize("file", RENDERED, ids=lambda f: f.stem)
def test_the_committed_yaml_is_what_the_source_generates(file: Path) -> None:
    assert file.read_text() == RENDERED[file], "run: python -m workflows"


@functools.cache
def spec(name: str) -> dict[str, Any]:
    (content,) = (text for file, text in RENDERED.items() if file.stem == name)
    return yaml.safe_load(content)["spec"]


def steps(name: str) -> dict[str, dict[str, Any]]:
    return {t["name"]: t for t in spec(name)["templates"] if "container" in t}


# Where a forge is asked, and where it has the archive of a revision.
ARCHIVES = {
    "http://gitea.forge.svc:3000": "http://gitea.forge.svc:3000/o/r/archive/{}.tar.gz",
    "https://api.example.com/git": "https://api.example.com/git/o/r/archive/{}.tar.gz",
    **{
        api: api + "/repos/o/r/tarball/{}"
        for api in map(
            github.api_of,
            ("https://github.com", "https://acme.ghe.com", "https://git.acme.com"),
        )
    },
}


def evaluated(expression: str, parameters: dict[str, str]) -> str:
    """What the workflow controller makes of `{{=NAME matches PATTERN ? SUM : SUM}}`."""
    found = re.fullmatch(r"\{\{=(.+) matches '(.+)' \? (.+) : (.+)\}\}", expression)
    assert found

    def value(term: str) -> str:
        if term.startswith("'"):
            return term.strip("'")
        return parameters[term.removeprefix("workflow.parameters").strip(".[]'")]

    name, pattern, yes, no = found.groups()
    chosen = yes if re.search(pattern, value(name)) else no
    return "".join(map(value, chosen.split(" + ")))


EVERY = [(name, step) for name in NAMES for step in steps(name)]


def flags(template: dict[str, Any]) -> dict[str, str]:
    return dict(arg.removeprefix("--").split("=", 1) for arg in template["container"]["args"])


def program(name: str, template: str) -> str:
    """The step that a template runs."""
    return steps(name)[template]["container"]["command"][-1]


def test_every_step_is_in_some_workflow() -> None:
    assert {program(name, step) for name, step in EVERY} == set(FLAGS)


@pytest.mark.parametrize(("name", "step"), EVERY)
def test_each_template_gives_its_step_the_flags_that_it_takes(name: str, step: str) -> None:
    wanted = FLAGS[program(name, step)]
    assert set(flags(steps(name)[step])) == {"model", "output-dir", *wanted}


@pytest.mark.parametrize("name", CHAINS)
def test_each_step_follows_the_one_before(name: str) -> None:
    (tasks,) = (t["dag"]["tasks"] for t in spec(name)["templates"] if "dag" in t)
    if name == "reproduce":
        # The source of the data, which may be gone, keeps nothing from being made again.
        rebuild, ingest = tasks
        assert ingest["continueOn"] == {"error": True, "failed": True}
        assert not {"depends", "continueOn"} & rebuild.keys()
        return
    for before, task in zip([None, *tasks], tasks, strict=False):
        assert task.get("depends") == (before["name"] if before else None)
    given = {p["name"]: p["value"] for p in tasks[-1].get("arguments", {})["parameters"]}
    assert given["evidence"] == "{{tasks.attest.outputs.parameters.evidence}}"


@pytest.mark.parametrize(("name", "step"), EVERY)
def test_what_judges_is_mains(name: str, step: str) -> None:
    """Nobody's commit decides how it is judged."""
    (source,) = steps(name)[step]["inputs"]["artifacts"]
    revision = "refs/heads/main" if step in TRUSTED else "d4d4"
    for forge, archive in ARCHIVES.items():
        given = {"forge-url": forge, "forge-repository": "o/r", "commit": "d4d4"}
        assert evaluated(source["http"]["url"], given) == archive.format(revision)


@pytest.mark.parametrize(("name", "step"), EVERY)
def test_only_attest_can_sign(name: str, step: str) -> None:
    template = steps(name)[step]
    signs = step == "attest"
    assert (template.get("serviceAccountName") == "evidence") is signs
    assert ("evidence-key" in yaml.safe_dump(template).replace("evidence-keys", "")) is signs
    if signs:
        (mount,) = (m for m in template["container"]["volumeMounts"] if m["name"] == "evidence-key")
        assert mount["readOnly"] is True
        assert template["container"]["command"] == ["python", "-m", "slipway.steps", "attest"]
    # The forge's password is for those that read or write there.
    given = [e.get("secretRef", {}).get("name") for e in template["container"]["envFrom"]]
    assert ("forge" in given) == (step in ("rescore", "propose"))


@pytest.mark.parametrize("name", ["train", "promote"])
def test_what_evidence_is_about_no_trained_code_says(name: str) -> None:
    """The commit that evaluated, and the image: by the workflow's parameters, or by main's code."""
    given = flags(steps(name)["attest"])
    (tasks,) = (t["dag"]["tasks"] for t in spec(name)["templates"] if "dag" in t)
    passed = {t["name"]: t.get("arguments", {}).get("parameters", []) for t in tasks}
    values = {p["name"]: p["value"] for p in passed["attest"]}
    parameters = {"commit": "commit", "runtime-image": "serving-image"}
    assert set(parameters) == set(SETTLED)
    for flag, parameter in parameters.items():
        if name == "train":
            assert given[flag] == f"{{{{workflow.parameters.{parameter}}}}}"
            assert flag not in values
        else:
            assert given[flag] == f"{{{{inputs.parameters.{flag}}}}}"
            assert values[flag] == f"{{{{tasks.select.outputs.parameters.{flag}}}}}"
    assert set(flags(steps(name)["propose"])).isdisjoint({*SETTLED, "version"})
    assert "select" in TRUSTED


def test_only_what_asks_the_api_server_has_a_token() -> None:
    """Which is main's code: who may report for one step may report for all."""
    found = {
        (file.stem, template["name"]): template
        for file, content in RENDERED.items()
        for document in yaml.safe_load_all(content)
        for template in document["spec"].get("templates", ())
    }
    asking = {at for at, template in found.items() if "automountServiceAccountToken" in template}
    assert asking == {("events", "sweep")}
    (source,) = found["events", "sweep"]["inputs"]["artifacts"]
    assert "refs/heads/main" in source["http"]["url"]
    assert not any("executor" in template for template in found.values())


def test_promotions_of_one_model_to_one_environment_take_turns() -> None:
    for name in ("train", "promote"):
        (mutex,) = steps(name)["propose"]["synchronization"]["mutexes"]
        assert mutex["name"] == (
            "propose-{{workflow.parameters.model}}-{{workflow.parameters.environment}}"
        )


def test_a_training_proposes_unless_asked_not_to_and_runs_on_the_platforms_image() -> None:
    given, attested = flags(steps("train")["propose"]), flags(steps("train")["attest"])
    assert (given["dry-run"], given["break-glass"]) == ("{{workflow.parameters.dry-run}}", "")
    defaults = {p["name"]: p.get("value") for p in spec("train")["arguments"]["parameters"]}
    assert defaults["dry-run"] == "false"
    assert attested["runtime-image"] == "{{workflow.parameters.serving-image}}"
    promoted = flags(steps("promote")["propose"])
    assert promoted["dry-run"] == "{{workflow.parameters.dry-run}}"
    assert (given["requested-by"], promoted["requested-by"]) == (
        "",
        "{{workflow.parameters.requested-by}}",
    )


@pytest.mark.parametrize("name", NAMES)
def test_only_what_trains_waits_for_its_turn(name: str) -> None:
    assert ("synchronization" in spec(name)) is (name in ("train", "reproduce"))


@pytest.mark.parametrize(("name", "step"), EVERY)
def test_every_pod_meets_restricted_pod_security(name: str, step: str) -> None:
    pod = spec(name)["securityContext"]
    assert pod["runAsNonRoot"] is True
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    security = steps(name)[step]["container"]["securityContext"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["runAsUser"] == 10001


@pytest.mark.parametrize(("name", "step"), EVERY)
def test_only_what_may_pass_is_tried_again(name: str, step: str) -> None:
    expression = steps(name)[step]["retryStrategy"]["expression"]
    assert f"'{TRANSIENT}'" in expression
    assert "'1'" not in expression
    assert "'2'" not in expression


# --- experiments ------------------------------------------------------------------------------


def test_on_cpu_an_experiment_waits_for_its_turn_and_is_in_no_queue() -> None:
    cpu = steps("experiments")["cpu"]
    (turn,) = cpu["synchronization"]["semaphores"]
    assert turn["configMapKeyRef"] == {"name": "limits", "key": "training"}
    assert "metadata" not in cpu
    assert "nodeSelector" not in cpu


@pytest.mark.parametrize("name", ["gpu", "gang"])
def test_on_gpus_an_experiment_is_in_a_queue_and_in_a_pool(name: str) -> None:
    template = steps("experiments")[name]
    labels = template["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/queue-name"] == "{{workflow.parameters.team}}"
    assert labels["kueue.x-k8s.io/priority-class"] == "{{workflow.parameters.priority}}"
    assert template["nodeSelector"] == {"slipway/pool": "{{workflow.parameters.pool}}"}
    assert template["container"]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    (toleration,) = template["tolerations"]
    assert toleration["key"] == "nvidia.com/gpu"
    # What is played leaves no outputs; a step that had some would wait for them for ever.
    assert "outputs" not in template
    # A preempted one is an error to Argo, and begun again whenever that is.
    retry = template["retryStrategy"]
    assert "maxDuration" not in retry["backoff"]
    assert retry["limit"] == 1000
    # So is one that went with its node, without an exit code.
    assert "'-1'" in retry["expression"]


def test_only_a_gang_is_a_group_of_pods() -> None:
    gpu, gang = (steps("experiments")[name]["metadata"] for name in ("gpu", "gang"))
    group, total = "kueue.x-k8s.io/pod-group-name", "kueue.x-k8s.io/pod-group-total-count"
    assert group not in gpu["labels"]
    assert total not in gpu["annotations"]
    assert gang["annotations"][total] == "{{workflow.parameters.workers}}"
    # The workers of one experiment are one group: their number is in its name.
    number = flags(steps("experiments")["gang"])["number"]
    assert gang["labels"][group] == f"{{{{workflow.name}}}}-{number}"
