"""Nodes without GPUs beyond those that are always there: as many as pods ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pulumi

from infra.aws.cluster import DISK_GIB, ROLE_LABEL
from infra.aws.component import AwsComponent, Context
from infra.aws.config import GENERAL, Nodes
from infra.aws.node_class import node_class
from infra.aws.node_pools import manifest
from infra.platform import upstream


@dataclass(frozen=True)
class GeneralNodesArgs:
    context: Context
    nodes: Nodes
    zones: Sequence[str]
    ami: str
    instance_profile: pulumi.Input[str]
    """Of Karpenter's nodes."""


class GeneralNodes(AwsComponent):
    """One pool without a taint. On destroy it goes before whatever ends its nodes: make it wait for
    that."""

    def __init__(
        self, name: str, args: GeneralNodesArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("GeneralNodes", name, args.context, opts)
        made = node_class(
            GENERAL,
            args.context,
            ami=args.ami,
            profile=args.instance_profile,
            disk=DISK_GIB,
            tags=args.context.tagged(GENERAL),
        )
        machines = upstream.register(name, made, self.child())
        upstream.register(name, node_pool(args.nodes, args.zones), self.child(machines))
        self.register_outputs({})


def node_pool(nodes: Nodes, zones: Sequence[str]) -> dict[str, Any]:
    """The NodePool of what may come beside `min` nodes, up to `max`."""

    more = nodes.max - nodes.min
    return manifest(
        {"name": GENERAL},
        {
            # A model with one copy, or a step that trains, is not moved to save a node.
            "disruption": {
                "consolidationPolicy": "WhenEmpty",
                "consolidateAfter": "10m",
                "budgets": [
                    {"nodes": "100%", "reasons": ["Empty"]},
                    {"nodes": "1", "reasons": ["Drifted"]},
                ],
            },
            # By cores: Karpenter looks at `nodes` once there are too many.
            "limits": {"nodes": str(more), "cpu": str(more * nodes.cores)},
        },
        labels={ROLE_LABEL: GENERAL},
        machines={"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": GENERAL},
        requirements={
            "karpenter.sh/capacity-type": ["on-demand"],
            "node.kubernetes.io/instance-type": sorted(nodes.types),
            "topology.kubernetes.io/zone": zones,
        },
        nodes={"expireAfter": "336h"},
    )
