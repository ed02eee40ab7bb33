"""The bench of simulated GPUs: quotas looked at, a search watched, figures and what spoils them."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from slipway import bench
from slipway.bench import gpus
from slipway.bench.gpus import Course, Placed, Quota
from slipway.endpoints import Cluster
from slipway.errors import SlipwayError
from slipway.experiments import KUEUE


class Api:
    """Objects by path, and tables of names by path and whether they were asked for so."""

    def __init__(self, objects: dict[str, Any]) -> None:
        self.objects, self.tables, self.created = objects, {}, []
        client = httpx.Client(base_url="https://api", transport=httpx.MockTransport(self._answer))
        self.cluster = Cluster(client, embedded=True)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if "as=Table" in request.headers.get("accept", ""):
            states = self.tables.get(path, [])
            if states and isinstance(states[0], list):
                states = states.pop(0) if len(states) > 1 else states[0]
            workflow = path == gpus.WORKFLOWS
            cells = [
                {"cells": ["x", state] if workflow else ["x", "2/2", state]} for state in states
            ]
            return httpx.Response(200, json={"rows": cells})
        found = self.objects.get(path)
        return httpx.Response(200 if found else 404, json=found or {"message": "gone"})


def cluster_queue(team: str, used: int, own: int, limit: str | None = None) -> dict[str, Any]:
    resource = {"name": "nvidia.com/gpu", "nominalQuota": str(own)}
    if limit is not None:
        resource["borrowingLimit"] = limit
    cpu = {"name": "cpu", "nominalQuota": "9"}
    reserved = {"name": "nvidia.com/gpu", "total": str(used), "borrowed": "0"}
    return {
        "metadata": {"name": team},
        "spec": {"resourceGroups": [{"flavors": [{"name": "l4", "resources": [cpu, resource]}]}]},
        "status": {"flavorsReservation": [{"name": "l4", "resources": [reserved]}]},
    }


def test_a_team_may_have_what_others_leave_as_far_as_it_borrows() -> None:
    items = [
        cluster_queue("a", 20, 16),
        cluster_queue("b", 4, 8, "0"),
        cluster_queue("c", 0, 8, "2"),
    ]
    api = Api({f"{KUEUE}/clusterqueues": {"items": items}})
    found = gpus.quotas(api.cluster)
    assert found == [
        Quota("a", "l4", 16, 32, 20),
        Quota("b", "l4", 8, 8, 4),
        Quota("c", "l4", 8, 10, 0),
    ]
    assert gpus.broken(found) == []


def test_a_quota_that_does_not_hold_is_seen() -> None:
    found = [Quota("a", "l4", 16, 24, 25), Quota("b", "l4", 8, 8, 0), Quota("b", "h100", 4, 4, 4)]
    assert gpus.broken(found) == ["a has 25 of 24 in l4", "all teams have 25 of 24 in l4"]


@pytest.mark.parametrize("kinds", [[], ["EC2NodeClass"], ["KWOKNodeClass", "EC2NodeClass"]])
def test_nodes_that_cost_money_are_left_alone(kinds: list[str]) -> None:
    items = [{"spec": {"template": {"spec": {"nodeClassRef": {"kind": k}}}}} for k in kinds]
    api = Api({"/apis/karpenter.sh/v1/nodepools": {"items": items}})
    with pytest.raises(SlipwayError, match="slipway pulumi up --stack simulated"):
        gpus.gpus(api.cluster, print)


def test_a_search_is_watched_until_its_last_pod_has_ended() -> None:
    pods = "", "gated gated gated", "run run wait", "run run run", "run end", "end"
    words = {"gated": "SchedulingGated", "run": "Running", "wait": "Pending", "end": "Completed"}
    api = Api({})
    api.tables = {
        gpus.WORKFLOWS: ["Running"],
        gpus.PODS: [[words[word] for word in look.split()] for look in pods],
        gpus.NODES: [["Ready"] * there for there in (0, 0, 1, 2, 2, 1)],
    }
    course, began = Course(), time.monotonic()
    while not gpus.watch(api.cluster, "w", 3, course, began, lambda _: None):
        pass
    assert [look[1:] for look in course.looks] == [
        (0, 0, 0, 0),
        (3, 0, 0, 0),
        (3, 2, 0, 1),
        (3, 3, 0, 2),
        (2, 1, 1, 2),
        (1, 0, 1, 1),
    ]
    assert course.first_pod is not None
    assert course.all_run is not None
    assert course.first_pod < course.all_run
    assert course.most_nodes == 2


def test_a_search_that_fails_is_not_waited_for() -> None:
    api = Api({})
    api.tables = {gpus.WORKFLOWS: ["Failed"]}
    with pytest.raises(SlipwayError, match="w: Failed; 0 of 3 pods run"):
        gpus.watch(api.cluster, "w", 3, Course(), time.monotonic(), lambda _: None)


def test_a_pod_in_no_queue_is_the_same_but_for_its_label() -> None:
    queued, alone = gpus.pod("l4", "vision", "image"), gpus.pod("l4", None, "image")
    assert queued["metadata"]["labels"].pop(gpus.QUEUE) == "vision"
    assert queued == alone


def course(**changes: Any) -> Course:
    made = Course(all_run=42.0, first_pod=15.0, most_nodes=25, looks=[(42.0, 200, 200, 0, 25)])
    return Course(**vars(made) | changes)


def figures(seen: Course, lost: int = 0) -> dict[str, Any]:
    placed = [Placed(1.0, 2.0, 200), Placed(1.0, 4.0, 200)]
    found = gpus.figures(seen, *placed, 30.0, lost, 200, "l4 for vision")
    assert {f.name for f in found} == set(bench.MEASUREMENTS[gpus.gpus])
    return {figure.name: figure for figure in found}


def test_the_figures_are_those_of_the_targets() -> None:
    found = figures(course())
    assert found["gpus"].value == 42.0
    assert found["gpus"].target.met(42.0) is True
    assert (found["gpus-scheduler"].value, found["gpus-rate"].value) == (100.0, 50.0)
    assert found["gpus-idle"].value == 30.0


@pytest.mark.parametrize(
    ("changes", "lost", "said"),
    [
        ({}, 2, "2 of 200 experiments were lost"),
        ({"broken": ["a has 9 of 8 in l4"]}, 0, "a has 9 of 8 in l4"),
        ({"all_run": None}, 0, "at most 200 of 200 ran at once"),
    ],
)
def test_what_is_wrong_is_no_figure(changes: Any, lost: int, said: str) -> None:
    found = figures(course(**changes), lost)["gpus"]
    assert found.value is None
    assert said in found.problem
