"""Many experiments at once: their team's queue and pool found, a search started and counted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from slipway import training
from slipway.endpoints import Cluster, part, parts, patiently
from slipway.errors import BadInput, SlipwayError, did_you_mean
from slipway.training import API, NAMESPACE, Workflow
from slipway.usage import GPU

TEMPLATE = "experiments"
# Templates of the workflow whose pods are experiments.
KINDS = {"cpu": "cpu", "gpu": "gpu", "gang": "gpu"}
MOST = 1000
KUEUE = "/apis/kueue.x-k8s.io/v1beta1"
POOL = "slipway/pool"


@dataclass(frozen=True)
class Queue:
    """Where a team's pods stand; `pools` are its own GPUs in each, borrowed ones not counted."""

    team: str
    pools: Mapping[str, int]

    def pool(self, name: str | None) -> str:
        """The named pool; without a name, that where the team has most."""
        if name is None:
            return max(self.pools, key=lambda pool: self.pools[pool])
        if name not in self.pools:
            raise BadInput(
                f"team {self.team} has no quota in a pool {name!r}",
                field="--pool",
                fix=did_you_mean(name, self.pools),
            )
        return name


@dataclass
class Tally:
    """Experiments' pods as they stand. `resumed` counts those begun again after one was lost."""

    waiting: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    resumed: int = 0

    @property
    def total(self) -> int:
        return self.waiting + self.running + self.succeeded + self.failed


@dataclass(frozen=True)
class Progress:
    """A search as it stands. The workflow makes its pods only once the data are there."""

    workflow: Workflow
    cpu: Tally = field(default_factory=Tally)
    gpu: Tally = field(default_factory=Tally)

    @property
    def results(self) -> list[dict[str, Any]]:
        """What the experiments that ran have found, the best first; empty before the end."""
        return json.loads(self.workflow.outputs.get("results") or "[]")


def queue(cluster: Cluster, team: str) -> Queue:
    """The queue of a team.

    Raises:
        BadInput: the cluster has none of that name.
        SlipwayError: it has no queues at all, or this one has no GPUs.
    """
    queues = cluster.items(f"{KUEUE}/namespaces/{NAMESPACE}/localqueues")
    named = {item["metadata"]["name"]: part(item, "spec", "clusterQueue") for item in queues}
    if not named:
        raise SlipwayError(
            "this cluster has no queues",
            fix="slipway pulumi up --stack simulated, or name teams in the stack file",
        )
    if team not in named:
        raise BadInput(f"no team {team!r}", field="--team", fix=did_you_mean(team, named))
    flavors = {
        item["metadata"]["name"]: str(part(item, "spec", "nodeLabels", POOL) or "")
        for item in cluster.items(f"{KUEUE}/resourceflavors")
    }
    found = cluster.find(f"{KUEUE}/clusterqueues/{named[team]}")
    pools = {
        flavors[flavor["name"]]: int(resource["nominalQuota"])
        for group in parts(found, "spec", "resourceGroups")
        for flavor in parts(group, "flavors")
        for resource in parts(flavor, "resources")
        if resource["name"] == GPU and flavors.get(flavor["name"])
    }
    if not pools:
        raise SlipwayError(
            f"team {team} has no quota of GPUs", fix="give it some in the stack file"
        )
    return Queue(team, pools)


def check_priority(cluster: Cluster, name: str) -> None:
    """`BadInput` unless the cluster has a WorkloadPriorityClass of that name."""
    found = cluster.items(f"{KUEUE}/workloadpriorityclasses")
    known = [item["metadata"]["name"] for item in found]
    if name not in known:
        raise BadInput(f"no priority {name!r}", field="--priority", fix=did_you_mean(name, known))


def start(
    cluster: Cluster,
    model: str,
    commit: str,
    team: str,
    pool: str,
    *,
    count: int,
    real: int,
    workers: int = 1,
    priority: str = "experiment",
    simulated_for: str = "60s",
) -> Workflow:
    """Submits a search of `count` experiments, `real` of them on CPU."""
    labels = {"model": model, "commit": commit, "team": team}
    values = {
        **labels,
        "pool": pool,
        "count": str(count),
        "real": str(real),
        "workers": str(workers),
        "priority": priority,
        "simulated-for": simulated_for,
    }
    return training.submit(cluster, TEMPLATE, values, labels)


def follow(
    cluster: Cluster,
    name: str,
    say: Callable[[str], None] = lambda _: None,
    *,
    every_s: float = 2.0,
) -> Iterator[Progress]:
    """The search as it stands, again and again; the last time it has ended. `say`: see
    `training.follow`."""
    while True:
        found = patiently(lambda: look(cluster, name), say)
        yield found
        if found.workflow.ended:
            return
        time.sleep(every_s)


def look(cluster: Cluster, name: str) -> Progress:
    """A search as it stands.

    Raises:
        SlipwayError: there is no workflow of that name.
    """
    document = cluster.find(f"{API}/workflows/{name}")
    if document is None:
        raise SlipwayError(f"no workflow {name}", fix=f"kubectl -n {NAMESPACE} get workflows")
    return progress(document)


def progress(document: Mapping[str, Any]) -> Progress:
    """The same of a Workflow as the cluster has it."""
    nodes: Mapping[str, Any] = part(document, "status", "nodes") or {}
    found = Progress(training.read(document))
    for node in nodes.values():
        kind = KINDS.get(node.get("templateName", ""))
        if kind is None or node["type"] != "Retry":
            continue
        tally: Tally = getattr(found, kind)
        tries = [nodes[child] for child in parts(node, "children") if child in nodes]
        tally.resumed += max(len(tries) - 1, 0)
        phase = node.get("phase") or ""
        if phase not in training.RUNNING:
            name = "succeeded" if phase == training.SUCCEEDED else "failed"
        else:
            name = "running" if tries and tries[-1].get("phase") == "Running" else "waiting"
        setattr(tally, name, getattr(tally, name) + 1)
    return found
