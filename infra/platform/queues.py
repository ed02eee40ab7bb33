"""Queues: a flavor for each GPU pool, a quota of each for every team, and what goes first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi

from infra.aws.config import Pool
from infra.aws.node_pools import GPU, POOL_LABEL
from infra.config import StackConfig, Team
from infra.platform import pods, upstream
from infra.platform.component import Component, after
from infra.platform.drained import Drained
from infra.platform.kueue import Kueue, KueueArgs, Webhooks, WebhooksArgs
from infra.platform.network import NAMESPACE
from slipway import toolchain

VERSION = "kueue.x-k8s.io/v1beta1"
COHORT = "slipway"
PRIORITIES = {
    "experiment": (100, "One of many; makes way, and is tried again"),
    "training": (1000, "What somebody waits for"),
    "production": (10000, "What production waits for"),
}


@dataclass(frozen=True)
class QueuesArgs:
    namespace: pulumi.Input[str]
    """Where pods name a queue."""
    pools: Sequence[Pool]
    teams: Sequence[Team]
    kubeconfig: pulumi.Input[str]
    """Of the cluster, as a path or as text: on destroy, what still is in a queue is ended there."""


class Queues(Component):
    """ResourceFlavors, a ClusterQueue and a LocalQueue for each team, WorkloadPriorityClasses."""

    def __init__(
        self, name: str, args: QueuesArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("Queues", name, opts)
        for manifest in priorities():
            upstream.register(name, manifest, self.child())
        flavors = [upstream.register(name, flavor(pool), self.child()) for pool in args.pools]
        queues: list[pulumi.Resource] = []
        for team in args.teams:
            shares = upstream.register(
                name, cluster_queue(team, args.pools, args.namespace), self.child(*flavors)
            )
            made = upstream.register(name, local_queue(team, args.namespace), self.child(shares))
            queues += [shares, made]
        Drained(name, args.kubeconfig, self.child(*flavors, *queues))
        self.register_outputs({})


def queueing(
    config: StackConfig,
    opts: pulumi.ResourceOptions,
    *,
    namespace: pulumi.Input[str],
    queued: pulumi.Input[str],
    image: str,
    kubeconfig: pulumi.Input[str],
) -> None:
    """Who of the teams may have how many GPUs: Kueue in `namespace`, and queues in `queued`."""
    manifests = toolchain.files("kueue") / "config" / "components"
    kueue = Kueue("kueue", KueueArgs(namespace, queued, manifests, image), opts)
    queues = Queues(
        "queues", QueuesArgs(queued, config.gpuPools, config.teams, kubeconfig), after(opts, kueue)
    )
    Webhooks(
        "webhooks",
        WebhooksArgs(namespace, queued, manifests, kueue.certificate),
        after(opts, queues),
    )


def flavor(pool: Pool) -> upstream.Manifest:
    """The GPUs of a pool's nodes; who is given some goes there, and nowhere else."""
    tolerations = [
        {
            "key": taint.key,
            "effect": taint.effect,
            **({"operator": "Equal", "value": taint.value} if taint.value else _EXISTS),
        }
        for taint in pool.taints
    ]
    spec = {"nodeLabels": {POOL_LABEL: pool.name}, "tolerations": tolerations}
    return _object("ResourceFlavor", pool.name, spec=spec)


_EXISTS = {"operator": "Exists"}


def cluster_queue(
    team: Team, pools: Sequence[Pool], namespace: pulumi.Input[str]
) -> upstream.Manifest:
    """A team's own GPUs of each pool. CPU and memory go with them, as much as the nodes have."""
    flavors: list[Mapping[str, Any]] = []
    for pool in pools:
        gpus = team.gpus.get(pool.name, 0)
        if not gpus and not team.borrow:
            continue
        quotas = {
            GPU: str(gpus),
            "cpu": str(pool.max * pool.most.vcpus),
            "memory": f"{pool.max * pool.most.memoryGiB}Gi",
        }
        limit = {} if team.borrow else {"borrowingLimit": "0"}
        resources = [{"name": n, "nominalQuota": q, **limit} for n, q in quotas.items()]
        flavors.append({"name": pool.name, "resources": resources})
    return _object(
        "ClusterQueue",
        team.name,
        spec={
            "cohort": COHORT,
            "namespaceSelector": {"matchLabels": {NAMESPACE: namespace}},
            "resourceGroups": [{"coveredResources": [GPU, "cpu", "memory"], "flavors": flavors}],
            # Own work makes way for what is more important; a loan is given back when asked for.
            "preemption": {"withinClusterQueue": "LowerPriority", "reclaimWithinCohort": "Any"},
        },
    )


def local_queue(team: Team, namespace: pulumi.Input[str]) -> upstream.Manifest:
    """What pods name: the team."""
    where = {"namespace": namespace}
    return _object("LocalQueue", team.name, where, spec={"clusterQueue": team.name})


def priorities() -> list[upstream.Manifest]:
    """What pods name as kueue.x-k8s.io/priority-class."""
    return [
        _object("WorkloadPriorityClass", name, value=value, description=description)
        for name, (value, description) in PRIORITIES.items()
    ]


def _object(
    kind: str, name: str, where: Mapping[str, Any] | None = None, **content: Any
) -> upstream.Manifest:
    metadata = {"name": name, "labels": pods.labels("queues"), **(where or {})}
    return {"apiVersion": VERSION, "kind": kind, "metadata": metadata, **content}
