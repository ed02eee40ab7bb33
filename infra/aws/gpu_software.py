"""What makes a GPU node's GPUs known to Kubernetes, and measured: a few DaemonSets, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import yaml

from infra.aws.component import AwsComponent, Context
from infra.aws.config import Pool
from infra.aws.gpu_pools import efa_types
from infra.aws.node_pools import POOL_LABEL, labels
from infra.platform import pods, upstream

METRICS = 9400
PLUGINS = "/var/lib/kubelet/device-plugins"


def plugin_config(pool: Pool) -> dict[str, Any]:
    """How the device plugin offers a pool's GPUs: whole, by turns, or each MIG instance as one."""
    sharing = pool.sharing
    flags = {"migStrategy": "single" if sharing.by == "mig" else "none"}
    turns = {
        "renameByDefault": False,
        # Asking for two turns gives no more of the GPU than one: so nobody may.
        "failRequestsGreaterThanOne": True,
        "resources": [{"name": "nvidia.com/gpu", "replicas": sharing.replicas}],
    }
    shared = {"sharing": {"timeSlicing": turns}} if sharing.replicas else {}
    return {"version": "v1", "flags": flags, **shared}


def efa_pools(pools: Sequence[Pool], *, karpenter: bool) -> list[Pool]:
    """Whose machines get EFA's interfaces: Karpenter attaches them, a managed group has none."""
    return [pool for pool in pools if karpenter and efa_types(pool)]


@dataclass(frozen=True)
class GpuSoftwareArgs:
    context: Context
    pools: Sequence[Pool]
    namespace: pulumi.Input[str]
    images: Mapping[str, str]
    karpenter: bool


class GpuSoftware(AwsComponent):
    """NVIDIA's device plugin for each pool, DCGM's exporter, and EFA's plugin where it is."""

    def __init__(
        self, name: str, args: GpuSoftwareArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("GpuSoftware", name, args.context, opts)
        self._args = args
        for pool in args.pools:
            plugin = f"nvidia-device-plugin-{pool.name}"
            config = upstream.register(
                name,
                {
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": self._metadata(plugin),
                    "data": {"config.yaml": yaml.safe_dump(plugin_config(pool))},
                },
                self.child(),
            )
            container = {
                "name": "plugin",
                "image": args.images["nvidia-device-plugin"],
                "env": [
                    {"name": "CONFIG_FILE", "value": "/config/config.yaml"},
                    {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"},
                    {"name": "NVIDIA_DRIVER_CAPABILITIES", "value": "compute,utility"},
                ],
                "volumeMounts": [
                    {"name": "plugins", "mountPath": PLUGINS},
                    {"name": "config", "mountPath": "/config", "readOnly": True},
                ],
                # Instances of a divided GPU are seen by a privileged process only.
                "securityContext": {"privileged": True}
                if pool.sharing.by == "mig"
                else {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }
            volumes = [
                {"name": "plugins", "hostPath": {"path": PLUGINS}},
                {"name": "config", "configMap": {"name": plugin}},
            ]
            self._daemon_set(name, plugin, container, volumes, labels(pool), config)
        if args.pools:
            self._exporter(name)
        if with_efa := efa_pools(args.pools, karpenter=args.karpenter):
            self._efa(name, with_efa)
        self.register_outputs({})

    def _exporter(self, prefix: str) -> None:
        container = {
            "name": "exporter",
            "image": self._args.images["dcgm-exporter"],
            "env": [
                {"name": "DCGM_EXPORTER_LISTEN", "value": f":{METRICS}"},
                {"name": "DCGM_EXPORTER_KUBERNETES", "value": "true"},
            ],
            "ports": [{"name": "metrics", "containerPort": METRICS}],
            "volumeMounts": [
                {
                    "name": "pod-resources",
                    "mountPath": "/var/lib/kubelet/pod-resources",
                    "readOnly": True,
                }
            ],
            # Profiling counters ask for it.
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]},
            },
        }
        volumes = [
            {"name": "pod-resources", "hostPath": {"path": "/var/lib/kubelet/pod-resources"}}
        ]
        self._daemon_set(prefix, "dcgm-exporter", container, volumes, {"slipway/nodes": "gpu"})

    def _efa(self, prefix: str, pools: Sequence[Pool]) -> None:
        container = {
            "name": "plugin",
            "image": self._args.images["efa-device-plugin"],
            "volumeMounts": [
                {"name": "plugins", "mountPath": PLUGINS},
                {"name": "devices", "mountPath": "/dev/infiniband"},
            ],
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            },
        }
        volumes = [
            {"name": "plugins", "hostPath": {"path": PLUGINS}},
            {"name": "devices", "hostPath": {"path": "/dev/infiniband"}},
        ]
        types = sorted({name for pool in pools for name in efa_types(pool)})
        match = [
            {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": types},
            {"key": POOL_LABEL, "operator": "In", "values": [pool.name for pool in pools]},
        ]
        self._daemon_set(prefix, "efa-device-plugin", container, volumes, match=match)

    def _metadata(self, name: str) -> dict[str, Any]:
        return {"name": name, "namespace": self._args.namespace, "labels": pods.labels(name)}

    def _daemon_set(
        self,
        prefix: str,
        name: str,
        container: Mapping[str, Any],
        volumes: Sequence[Mapping[str, Any]],
        selector: Mapping[str, str] | None = None,
        *after: pulumi.Resource,
        match: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        terms = {"nodeSelectorTerms": [{"matchExpressions": list(match)}]}
        affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
        requests = {"cpu": "20m", "memory": "64Mi"}
        pod = {
            **({"nodeSelector": dict(selector)} if selector else {}),
            **({"affinity": affinity} if match else {}),
            # Whatever a pool is tainted with: these make it what it is.
            "tolerations": [{"operator": "Exists"}],
            "priorityClassName": "system-node-critical",
            "automountServiceAccountToken": False,
            "containers": [
                {
                    **container,
                    "imagePullPolicy": "IfNotPresent",
                    "resources": {"requests": requests, "limits": {"memory": "512Mi"}},
                }
            ],
            "volumes": list(volumes),
        }
        upstream.register(
            prefix,
            {
                "apiVersion": "apps/v1",
                "kind": "DaemonSet",
                "metadata": self._metadata(name),
                "spec": {
                    "selector": {"matchLabels": {pods.NAME: name}},
                    "template": {"metadata": {"labels": pods.labels(name)}, "spec": pod},
                },
            },
            self.child(*after),
        )
