"""Karpenter itself, with a provider that makes simulated nodes in place of machines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pulumi
import pulumi_kubernetes as k8s

from infra.aws.config import Pool
from infra.aws.node_pools import node_pools
from infra.platform import pods, upstream
from infra.platform.component import Component, Resources, fingerprint
from infra.platform.rights import READ, Rule, cluster_rights, rights_in
from infra.simulation.machines import ZONES, instance_types

NAME = "karpenter"
METRICS, HEALTH = 8080, 8081
RESOURCES = Resources(cpu="50m", memory="96Mi", limit="512Mi")
TABLE = "instance-types"
MACHINES = {"group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": "simulated"}
# Of the module, what defines each kind once.
DEFINITIONS = ("kwok/charts/crds/*.yaml", "kwok/apis/crds/*.yaml")
CHANGE = ["patch", "update"]
# What the provider's own chart gives it.
RULES: list[Rule] = [
    (
        "karpenter.sh",
        [
            *("nodepools", "nodepools/status", "nodeclaims", "nodeclaims/status"),
            *("nodeoverlays", "nodeoverlays/status"),
        ],
        READ,
    ),
    (
        "karpenter.sh",
        ["nodeclaims", "nodeclaims/status", "nodeclaims/finalizers"],
        ["create", "delete", *CHANGE],
    ),
    (
        "karpenter.sh",
        ["nodepools", "nodepools/status", "nodepools/finalizers", "nodeoverlays/status"],
        CHANGE,
    ),
    ("karpenter.kwok.sh", ["kwoknodeclasses"], READ),
    ("karpenter.kwok.sh", ["kwoknodeclasses", "kwoknodeclasses/status"], CHANGE),
    (
        "",
        [
            *("pods", "nodes", "persistentvolumes", "persistentvolumeclaims"),
            *("replicationcontrollers", "namespaces"),
        ],
        READ,
    ),
    ("", ["nodes"], ["create", "delete", *CHANGE]),
    ("", ["pods"], ["delete"]),
    ("", ["pods/eviction"], ["create"]),
    ("", ["events"], ["create", "patch"]),
    ("storage.k8s.io", ["storageclasses", "csinodes", "volumeattachments"], READ),
    ("apps", ["daemonsets", "deployments", "replicasets", "statefulsets"], READ),
    ("apiextensions.k8s.io", ["customresourcedefinitions"], ["list", "watch"]),
    ("policy", ["poddisruptionbudgets"], READ),
]
# Leases of nodes that have gone.
LEASES: list[Rule] = [("coordination.k8s.io", ["leases"], [*READ, "delete"])]


@dataclass(frozen=True)
class KarpenterArgs:
    namespace: pulumi.Input[str]
    manifests: Path
    """The files of the module sigs.k8s.io/karpenter."""
    image: str
    pools: Sequence[Pool]


class Karpenter(Component):
    """The controller, and the pools' NodePools: those of AWS but for the class of machines."""

    def __init__(
        self, name: str, args: KarpenterArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("Karpenter", name, opts)
        files = [f for pattern in DEFINITIONS for f in sorted(args.manifests.glob(pattern))]
        definitions = [
            upstream.register(name, manifest, self.child()) for manifest in upstream.load(*files)
        ]
        controller = self._controller(args, definitions)
        machines = upstream.register(
            name,
            {
                "apiVersion": f"{MACHINES['group']}/v1alpha1",
                "kind": MACHINES["kind"],
                "metadata": {"name": MACHINES["name"], "labels": pods.labels(NAME)},
            },
            self.child(controller),
        )
        for pool in args.pools:
            for manifest in node_pools(pool, ZONES, MACHINES):
                # On destroy it waits until the last of its nodes is gone.
                upstream.register(name, manifest, self.child(machines))
        self.register_outputs({})

    def _controller(
        self, args: KarpenterArgs, definitions: Sequence[pulumi.Resource]
    ) -> k8s.apps.v1.Deployment:
        table = {"instance-types.json": json.dumps(instance_types(args.pools), indent=1)}
        config = k8s.core.v1.ConfigMap(
            TABLE, metadata=pods.metadata(TABLE, args.namespace), data=table, opts=self.child()
        )
        rights = [
            *cluster_rights(NAME, args.namespace, RULES, self.child()),
            *rights_in(NAME, "kube-node-lease", LEASES, args.namespace, self.child()),
        ]
        pod = pods.template(
            NAME,
            [
                pods.container(
                    NAME,
                    args.image,
                    RESOURCES,
                    env={
                        "KARPENTER_SERVICE": NAME,
                        "SYSTEM_NAMESPACE": pods.OWN_NAMESPACE,
                        "INSTANCE_TYPES_FILE_PATH": "/etc/karpenter/instance-types.json",
                        "METRICS_PORT": str(METRICS),
                        "HEALTH_PROBE_PORT": str(HEALTH),
                        # There is one.
                        "DISABLE_LEADER_ELECTION": "true",
                        "FEATURE_GATES": "StaticCapacity=true",
                        # Pods come one by one out of their queue: it need not wait for the last.
                        "BATCH_MAX_DURATION": "3s",
                        "MEMORY_LIMIT": str(400 * 2**20),
                    },
                    port=METRICS,
                    mounts={"/etc/karpenter": "table"},
                    readiness=pods.http_probe("/readyz", HEALTH, period=3, timeout=30),
                    liveness=pods.http_probe("/healthz", HEALTH, period=30, timeout=30),
                )
            ],
            volumes=[pods.volume("table", config_map=TABLE)],
            service_account=NAME,
            annotations={"slipway/settings": fingerprint(table)},
        )
        return pods.deployment(
            NAME,
            args.namespace,
            pod,
            self.child(config, *definitions, *rights),
            # Two would both make nodes.
            recreate=True,
        )
