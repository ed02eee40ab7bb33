"""GPUs that nobody pays: the stack `simulated` beside the platform, where all want them at once.

Argo Workflows, Kueue, Karpenter and kube-scheduler are the real ones; kwok plays nodes and pods.
One course of events is watched once, about three minutes; the tests look at what was seen.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from slipway import cluster, experiments, training
from slipway.bench import gpus
from slipway.bench.gpus import GPU_NODES, NODES, PODS, QUEUE, Quota
from slipway.endpoints import Cluster

from .conftest import MODEL, document, run, until

STACK = ("--stack", "simulated", "--yes", "--skip-preview", "--non-interactive")
COUNT, REAL = 200, 2
FOR = "45s"
GROUP, TOTAL = "kueue.x-k8s.io/pod-group-name", "kueue.x-k8s.io/pod-group-total-count"
# As environments/Pulumi.simulated.yaml has them.
OWN = {"vision": 128, "language": 96, "forecasting": 32}
WHOLE, TOO_MANY = 96, 33


@pytest.fixture(scope="module")
def simulated() -> Iterator[Cluster]:
    """The stack is up. The first time its programs are compiled, which takes minutes."""
    began = time.monotonic()
    run("pulumi", "up", *STACK)
    print(f"stack simulated: up after {time.monotonic() - began:.0f} s, builds included")
    yield Cluster.connect()
    run("pulumi", "destroy", *STACK)


@dataclass
class Look:
    """What there is at one moment."""

    quotas: list[Quota]
    nodes: dict[str, int]
    # By team and, for pods that are in no workflow, by group: each pod's state as kubectl shows it.
    pods: dict[str, list[str]]

    def used(self, team: str, pool: str) -> int:
        return next(q.used for q in self.quotas if (q.team, q.pool) == (team, pool))

    def run(self, whose: str) -> int:
        return self.pods[whose].count("Running")


@dataclass
class Course:
    """All looks, and how each search ended."""

    looks: list[Look] = field(default_factory=list[Look])
    all_run_s: float | None = None
    ended: dict[str, Any] = field(default_factory=dict[str, Any])


def look(platform: Cluster) -> Look:
    machines = platform.items(NODES, labelSelector=GPU_NODES)
    pools = [node["metadata"]["labels"]["slipway/pool"] for node in machines]
    selectors = {
        **{team: f"workflows.argoproj.io/workflow,{QUEUE}={team}" for team in OWN},
        **{group: f"{GROUP}={group}" for group in ("whole", "too-large")},
    }
    states = {
        name: [str(row[2]) for row in gpus.rows(platform, PODS, labelSelector=selector)]
        for name, selector in selectors.items()
    }
    return Look(gpus.quotas(platform), {pool: pools.count(pool) for pool in set(pools)}, states)


def gang(platform: Cluster, name: str, team: str, size: int) -> None:
    """Pods that begin together or not at all, and end after a while."""
    image = platform.config("pipelines", "platform")["TRAINING_IMAGE"]
    for _ in range(size):
        body = gpus.pod("l4", team, image)
        body["metadata"]["labels"] |= {GROUP: name}
        body["metadata"]["annotations"] = {TOTAL: str(size), "slipway.dev/simulated-for": FOR}
        platform.create(PODS, body)


def search(platform: Cluster, team: str, pool: str, count: int, **more: Any) -> str:
    with platform.forge() as forge:
        commit = training.commit_of(forge, None)
    return experiments.start(
        platform, MODEL, commit, team, pool, count=count, simulated_for=FOR, **more
    ).name


@pytest.fixture(scope="module")
def course(simulated: Cluster) -> Iterator[Course]:
    """Vision wants 200, mostly borrowed; language its own back, for a gang; forecasting is full,
    and production wants something there; and one gang is larger than it can ever be."""
    platform, seen = simulated, Course()
    gpus.clear(platform, print)
    gpus.await_no_nodes(platform, print)
    began = time.monotonic()
    searches = {
        "vision": search(platform, "vision", "l4", COUNT, real=REAL),
        "forecasting": search(platform, "forecasting", "h100", OWN["forecasting"], real=0),
    }
    gang(platform, "too-large", "forecasting", TOO_MANY)
    asked_back = False
    try:
        while True:
            now = look(platform)
            seen.looks.append(now)
            seconds = time.monotonic() - began
            if seen.all_run_s is None and now.run("vision") >= COUNT - REAL:
                seen.all_run_s = seconds
                print(f"{COUNT - REAL} experiments on GPUs run after {seconds:.0f} s")
            if not asked_back and now.run("vision") > 0.9 * (COUNT - REAL):
                gang(platform, "whole", "language", WHOLE)
                asked_back = True
            if "production" not in searches and now.run("forecasting") >= OWN["forecasting"]:
                searches["production"] = search(
                    platform, "forecasting", "h100", 1, real=0, workers=8, priority="production"
                )
            phases = {row[0]: row[1] or "" for row in gpus.rows(platform, gpus.WORKFLOWS)}
            left = [name for name, w in searches.items() if phases[w] in training.RUNNING]
            if not left and "production" in searches:
                break
            assert seconds < 400, f"{left} after {seconds:.0f} s: {now}"
            time.sleep(1)
        for name, workflow in searches.items():
            seen.ended[name] = document("experiments", MODEL, "--search", workflow)
        print(f"all has ended after {time.monotonic() - began:.0f} s")
        yield seen
    finally:
        gpus.clear(platform, print)
        for workflow in searches.values():
            platform.delete(f"{training.API}/workflows/{workflow}")


def test_no_experiment_is_lost(course: Course) -> None:
    found = course.ended["vision"]
    assert found["phase"] == "Succeeded"
    assert (found["cpu"]["succeeded"], found["cpu"]["failed"]) == (REAL, 0)
    assert (found["gpu"]["succeeded"], found["gpu"]["failed"]) == (COUNT - REAL, 0)


def test_the_experiments_on_cpu_are_a_table_and_runs_under_one(
    course: Course, platform: Cluster
) -> None:
    found = course.ended["vision"]
    assert sorted(result["number"] for result in found["results"]) == list(range(REAL))
    scores = [result["metrics"]["brier"] for result in found["results"]]
    assert scores == sorted(scores)
    assert all(0.1 < score < 0.2 for score in scores)
    with platform.mlflow() as url:
        import httpx

        for result in found["results"]:
            asked = httpx.get(
                f"{url}/api/2.0/mlflow/runs/get", params={"run_id": result["run"]}, trust_env=False
            )
            tags = {tag["key"]: tag["value"] for tag in asked.json()["run"]["data"]["tags"]}
            assert tags["mlflow.parentRunId"] == found["run"]


def test_quotas_hold_at_every_look(course: Course) -> None:
    assert len(course.looks) > 20
    for now in course.looks:
        assert gpus.broken(now.quotas) == []
        # Who may not borrow never runs more than is its own, whatever Kueue says.
        assert now.run("forecasting") <= OWN["forecasting"]


def test_what_others_leave_is_borrowed_and_given_back(course: Course) -> None:
    used = [(now.used("vision", "l4"), now.used("language", "l4")) for now in course.looks]
    assert max(vision for vision, _ in used) == COUNT - REAL
    returned = [vision for vision, language in used if language == WHOLE]
    assert returned
    assert min(returned) <= sum(OWN.values()) - WHOLE
    # Nobody preempts what a team has of its own.
    assert course.ended["vision"]["gpu"]["resumed"] <= COUNT - REAL - OWN["vision"]


def test_who_was_preempted_is_begun_again(course: Course) -> None:
    assert course.ended["vision"]["gpu"]["resumed"] > 0
    assert course.ended["forecasting"]["gpu"]["resumed"] > 0


def test_a_gang_begins_whole_or_not_at_all(course: Course) -> None:
    assert max(now.run("whole") for now in course.looks) == WHOLE
    assert {now.used("language", "l4") for now in course.looks} <= {0, WHOLE}
    for now in course.looks:
        assert set(now.pods["too-large"]) <= {"SchedulingGated"}
    assert len(course.looks[-1].pods["too-large"]) == TOO_MANY


def test_what_is_more_important_goes_first(course: Course) -> None:
    found = {name: course.ended[name] for name in ("forecasting", "production")}
    for name, pods in (("forecasting", OWN["forecasting"]), ("production", 8)):
        assert found[name]["phase"] == "Succeeded"
        assert (found[name]["gpu"]["succeeded"], found[name]["gpu"]["failed"]) == (pods, 0)
    assert found["production"]["gpu"]["resumed"] == 0
    # Its room was made within what is forecasting's own: it may not borrow.
    assert max(now.used("forecasting", "h100") for now in course.looks) <= OWN["forecasting"]


def test_nodes_come_from_nothing_and_go_when_idle(course: Course, simulated: Cluster) -> None:
    first, most = course.looks[0].nodes, max(sum(now.nodes.values()) for now in course.looks)
    assert first == {}
    assert most >= (COUNT - REAL) / 8
    assert max(now.nodes.get("l4", 0) for now in course.looks) <= 32
    gpus.clear(simulated, print)
    until(lambda: gpus.nodes(simulated) == 0, 180, "idle GPU nodes do not go", every_s=1)


def test_destroy_leaves_nothing(course: Course, simulated: Cluster) -> None:
    run("pulumi", "destroy", *STACK)
    assert simulated.find("/api/v1/namespaces/gpus") is None
    assert len(simulated.items(NODES)) == 1
    kinds = cluster.kubectl(
        "get", "crd,clusterrole,clusterrolebinding,role,rolebinding", "-A", "-o", "name"
    )
    hooks = cluster.kubectl(
        "get", "mutatingwebhookconfiguration,validatingwebhookconfiguration", "-o", "name"
    )
    left = [n for n in (kinds + hooks).split() if "kueue" in n or "karpenter" in n or "kwok" in n]
    assert left == []
    # The platform beside it answers as before, and its pods are in nobody's queue.
    run("status")
