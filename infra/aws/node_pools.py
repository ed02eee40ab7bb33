"""Karpenter's NodePools of GPU pools: the same on AWS and where machines are simulated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from infra.aws import families
from infra.aws.config import Pool, floor_name

POOL_LABEL = "slipway/pool"
GPU = "nvidia.com/gpu"
PURCHASE = {"on-demand": "on-demand", "spot": "spot", "capacity-block": "reserved"}


def labels(pool: Pool) -> dict[str, str]:
    """Of a pool's nodes: by them its software and its queues find them."""
    sharing = {"slipway/gpu-sharing": pool.sharing.by}
    return {POOL_LABEL: pool.name, "slipway/nodes": "gpu", **sharing}


def discovered(pool: Pool) -> dict[str, str]:
    """What GPU feature discovery would say of all nodes of a pool, if it ran there.

    Said beforehand instead: Karpenter makes a node for a pod only by labels that it knows before
    there is one, and nothing needs a right to change nodes. What differs between a pool's machines,
    or is another where GPUs are shared, is not said; each has its type, and on AWS Karpenter's
    `karpenter.k8s.aws/instance-gpu-*`.
    """
    present = {"nvidia.com/gpu.present": "true"}
    if pool.sharing.by != "none":
        return present
    made: dict[str, set[str]] = {}
    for name, size in pool.types.items():
        gpu = families.catalogue().families[name.partition(".")[0]].gpu
        for label, value in {
            "product": gpu.product,
            "memory": str(gpu.memoryGiB * 1024),
            "count": str(size.gpus),
        }.items():
            made.setdefault(f"nvidia.com/gpu.{label}", set()).add(value)
    return present | {label: values.pop() for label, values in made.items() if len(values) == 1}


def taints(pool: Pool) -> list[dict[str, str]]:
    return [{"key": t.key, "value": t.value, "effect": t.effect} for t in pool.taints]


def node_pools(
    pool: Pool, zones: Sequence[str], machines: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """The NodePools: one that follows the pods and, for `min`, one that is always there.

    What bounds the first is GPUs or cores: Karpenter looks at `nodes` once there are too many.

    Args:
        zones: of the network; a pool may name fewer.
        machines: group, kind and name of the node class; by default the pool's EC2NodeClass.
    """
    machines = machines or {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": pool.name}
    more = pool.max - pool.min
    # Karpenter counts what nodes say of themselves, and one whose GPUs are shared says more of them
    # than it has: by GPUs such a pool would be full before its time. Cores are not shared.
    bound = (
        {GPU: str(more * pool.most.gpus)}
        if pool.sharing.by == "none"
        else {"cpu": str(more * max(size.vcpus for size in pool.types.values()))}
    )
    follows = {
        "disruption": {
            "consolidationPolicy": {
                "empty": "WhenEmpty",
                "underutilized": "WhenEmptyOrUnderutilized",
            }[pool.consolidation.when],
            "consolidateAfter": pool.consolidation.after,
            # What is empty goes at once; pods that have to move do so node by node.
            "budgets": [
                {"nodes": "100%", "reasons": ["Empty"]},
                {"nodes": "1", "reasons": ["Drifted", "Underutilized"]},
            ],
        },
        "limits": {"nodes": str(more), **bound},
    }
    stays = {"replicas": pool.min, "limits": {"nodes": str(pool.min)}}
    made = [_node_pool(pool, zones, machines, pool.name, follows)] if pool.max > pool.min else []
    floor = [_node_pool(pool, zones, machines, floor_name(pool.name), stays)] if pool.min else []
    return made + floor


def _node_pool(
    pool: Pool,
    zones: Sequence[str],
    machines: Mapping[str, str],
    name: str,
    spec: Mapping[str, Any],
) -> dict[str, Any]:
    return manifest(
        {"name": name, "annotations": {"slipway/budget-usd-month": f"{pool.budget:g}"}},
        spec,
        labels=labels(pool) | discovered(pool),
        machines=machines,
        requirements={
            "karpenter.sh/capacity-type": [PURCHASE[pool.purchase]],
            "node.kubernetes.io/instance-type": sorted(pool.types),
            "topology.kubernetes.io/zone": pool.zones or zones,
        },
        nodes={"taints": taints(pool), "expireAfter": pool.ttl},
    )


def manifest(
    metadata: Mapping[str, Any],
    spec: Mapping[str, Any],
    *,
    labels: Mapping[str, str],
    machines: Mapping[str, str],
    requirements: Mapping[str, Sequence[str]],
    nodes: Mapping[str, Any],
) -> dict[str, Any]:
    """A NodePool.

    Args:
        machines: the node class, as `nodeClassRef` names it.
        requirements: label to the values that a node may have of it.
        nodes: what else each node is made with.
    """
    wanted = {"kubernetes.io/arch": ["amd64"], **requirements}
    return {
        "apiVersion": "karpenter.sh/v1",
        "kind": "NodePool",
        "metadata": dict(metadata),
        "spec": {
            **spec,
            "template": {
                "metadata": {"labels": dict(labels)},
                "spec": {
                    "nodeClassRef": dict(machines),
                    "requirements": [
                        {"key": key, "operator": "In", "values": list(values)}
                        for key, values in wanted.items()
                    ],
                    **nodes,
                    # A pod that does not end must not keep a node that is to go.
                    "terminationGracePeriod": "1h",
                },
            },
        },
    }
