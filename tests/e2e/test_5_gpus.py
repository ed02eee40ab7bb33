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

# The first test of all waits for the programs to be compiled, and for the whole course.
pytestmark = pytest.mark.timeout(3000)

STACK = ("--stack", "simulated", "--yes", "--skip-preview", "--non-interactive")
COUNT, REAL = 200, 2
# Long enough, on a slow machine too, that the first still run when the last have begun, and when
# production wants forecasting's room.
FOR = "90s"
FORECASTING_FOR = "180s"
PRIORITY = "kueue.x-k8s.io/priority-class"
GROUP, TOTAL = "kueue.x-k8s.io/pod-group-name", "kueue.x-k8s.io/pod-group-total-count"
# As environments/Pulumi.simulated.yaml has them.
OWN = {"vision": 128, "language": 96, "forecasting": 32}
WHOLE, TOO_MANY, URGENT = 96, 33, 8
GROUPS = ("whole", "too-large", "urgent")


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
    # Why Kueue took away what a search had.
    preempted: list[str] = field(default_factory=list[str])


def look(platform: Cluster) -> Look:
    machines = platform.items(NODES, labelSelector=GPU_NODES)
    pools = [node["metadata"]["labels"]["slipway/pool"] for node in machines]
    selectors = {
        **{team: f"workflows.argoproj.io/workflow,{QUEUE}={team}" for team in OWN},
        **{group: f"{GROUP}={group}" for group in GROUPS},
    }
    states = {
        name: [str(row[2]) for row in gpus.rows(platform, PODS, labelSelector=selector)]
        for name, selector in selectors.items()
    }
    return Look(gpus.quotas(platform), {pool: pools.count(pool) for pool in set(pools)}, states)


def gang(
    platform: Cluster,
    name: str,
    team: str,
    size: int,
    pool: str = "l4",
    priority: str = "",
    made: int | None = None,
) -> None:
    """Pods that begin together or not at all, and end after a while.

    They wait until all `size` are there: `made` says how many of them to make now, if not all.
    """
    image = platform.config("pipelines", "platform")["TRAINING_IMAGE"]
    for _ in range(size if made is None else made):
        body = gpus.pod(pool, team, image)
        body["metadata"]["labels"] |= {GROUP: name, PRIORITY: priority or "experiment"}
        body["metadata"]["annotations"] = {TOTAL: str(size), "slipway.dev/simulated-for": FOR}
        platform.create(PODS, body)


def search(
    platform: Cluster, team: str, pool: str, count: int, real: int, simulated_for: str = FOR
) -> str:
    with platform.forge() as forge:
        commit = training.commit_of(forge, None)
    return experiments.start(
        platform, MODEL, commit, team, pool, count=count, real=real, simulated_for=simulated_for
    ).name


def cancel(platform: Cluster) -> None:
    """Removes the gangs: pods of a gang are held until all are replaced, or its Workload goes."""
    for group in GROUPS:
        platform.delete(f"{experiments.KUEUE}/namespaces/pipelines/workloads/{group}")
    gpus.clear(platform, print)


@pytest.fixture(scope="module")
def course(simulated: Cluster) -> Iterator[Course]:
    """Vision wants 200 and borrows; language wants its own back, for a gang; forecasting has all
    that it may have, and then production needs some of it; one gang is larger than it may be."""
    platform, seen = simulated, Course()
    cancel(platform)
    gpus.await_no_nodes(platform, print)
    seen.looks.append(look(platform))
    # Its last pod comes when vision has borrowed: where making all takes longer than an experiment,
    # so much would be left by then that nobody had to give anything back.
    gang(platform, "whole", "language", WHOLE, made=WHOLE - 1)
    began = time.monotonic()
    searches = {
        "vision": search(platform, "vision", "l4", COUNT, REAL),
        "forecasting": search(
            platform, "forecasting", "h100", OWN["forecasting"], 0, FORECASTING_FOR
        ),
    }
    gang(platform, "too-large", "forecasting", TOO_MANY)
    made: set[str] = set()
    try:
        while True:
            now = look(platform)
            seen.looks.append(now)
            seconds = time.monotonic() - began
            if seen.all_run_s is None and now.run("vision") >= COUNT - REAL:
                seen.all_run_s = seconds
                print(f"{COUNT - REAL} experiments on GPUs run after {seconds:.0f} s")
            if "whole" not in made and now.used("vision", "l4") > sum(OWN.values()) - WHOLE + 10:
                gang(platform, "whole", "language", WHOLE, made=1)
                made.add("whole")
            if "urgent" not in made and now.run("forecasting") >= OWN["forecasting"]:
                gang(platform, "urgent", "forecasting", URGENT, "h100", "production")
                made.add("urgent")
            phases = {row[0]: row[1] or "" for row in gpus.rows(platform, gpus.WORKFLOWS)}
            left = [name for name, w in searches.items() if phases[w] in training.RUNNING]
            if not left and not now.run("urgent"):
                break
            assert seconds < 700, f"{left} after {seconds:.0f} s: {now}"
            time.sleep(1)
        for name, workflow in searches.items():
            seen.ended[name] = document("experiments", MODEL, "--search", workflow)
        events = platform.items(
            "/api/v1/namespaces/pipelines/events", fieldSelector="reason=Preempted"
        )
        seen.preempted = [
            event["message"]
            for event in events
            if event["involvedObject"]["name"].startswith(
                tuple(f"pod-{w}" for w in searches.values())
            )
        ]
        print(f"all has ended after {time.monotonic() - began:.0f} s")
        yield seen
    finally:
        cancel(platform)
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
                f"{url}/api/2.0/mlflow/runs/get",
                params={"run_id": result["run"]},
                timeout=30,
                trust_env=False,
            )
            tags = {tag["key"]: tag["value"] for tag in asked.json()["run"]["data"]["tags"]}
            assert tags["mlflow.parentRunId"] == found["run"]


def test_quotas_hold_at_every_look(course: Course) -> None:
    assert len(course.looks) > 20
    # Kueue tells of its queues one by one: meanwhile a GPU that changes hands counts twice.
    broken = [gpus.broken(now.quotas) for now in course.looks]
    for three in zip(broken, broken[1:], broken[2:], strict=False):
        assert not all(three), three
    for now in course.looks:
        # Who may not borrow never runs more than is its own, whatever Kueue says.
        assert now.run("forecasting") <= OWN["forecasting"]


def test_what_others_leave_is_borrowed_and_given_back(course: Course) -> None:
    used = [(now.used("vision", "l4"), now.used("language", "l4")) for now in course.looks]
    rest = sum(OWN.values()) - WHOLE
    assert max(vision for vision, _ in used) > rest
    # Two looks later than Kueue tells of it: it tells of its queues one by one.
    returned = [vision for vision, language in used if language == WHOLE][2:]
    assert returned
    assert max(returned) <= rest
    assert any("reclamation within the cohort" in why for why in course.preempted)
    # Nobody preempts what a team has of its own.
    assert course.ended["vision"]["gpu"]["resumed"] <= COUNT - REAL - OWN["vision"]


def test_a_gang_begins_whole_or_not_at_all(course: Course) -> None:
    for name, size in (("whole", WHOLE), ("urgent", URGENT)):
        begun = [now.run(name) + now.pods[name].count("Completed") for now in course.looks]
        assert max(begun) == size, begun
    # It has all at once; while it ends, it gives back what it no longer needs.
    used = [now.used("language", "l4") for now in course.looks]
    since = used[next(i for i, had in enumerate(used) if had) :]
    assert since[0] == WHOLE
    assert since == sorted(since, reverse=True)
    for now in course.looks:
        assert set(now.pods["too-large"]) <= {"SchedulingGated"}
    assert len(course.looks[-1].pods["too-large"]) == TOO_MANY


def test_what_is_more_important_goes_first(course: Course) -> None:
    """Its room is made within what is forecasting's own: it may not borrow."""
    found = course.ended["forecasting"]
    assert any("prioritization in the ClusterQueue" in why for why in course.preempted)
    used = [now.used("forecasting", "h100") for now in course.looks]
    assert max(used) == OWN["forecasting"], used
    # Who made way was begun again, and has ended well.
    assert found["gpu"]["resumed"] > 0, found
    assert (found["phase"], found["gpu"]["succeeded"]) == ("Succeeded", OWN["forecasting"]), found
    # Not at the last look: pods that have ended go with their node once that is idle.
    ended = [now.pods["urgent"].count("Completed") for now in course.looks]
    assert max(ended) == URGENT, ended


def test_nodes_come_from_nothing_and_go_when_idle(course: Course, simulated: Cluster) -> None:
    first, most = course.looks[0].nodes, max(sum(now.nodes.values()) for now in course.looks)
    assert first == {}
    # On a slow machine the first experiments end before the last ones have begun.
    assert most >= OWN["vision"] / 8
    assert max(now.nodes.get("l4", 0) for now in course.looks) <= 32
    cancel(simulated)
    until(lambda: gpus.nodes(simulated) == 0, 300, "idle GPU nodes do not go", every_s=1)


def test_what_the_readme_shows_is_there(course: Course, simulated: Cluster) -> None:
    shown = cluster.kubectl("get", "clusterqueues,nodepools,nodeclaims,nodes")
    assert "clusterqueue.kueue.x-k8s.io/" in shown
    assert "nodepool.karpenter.sh/" in shown
    cluster.kubectl("-n", "pipelines", "get", "workloads")


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
