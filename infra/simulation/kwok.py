"""kwok: plays the kubelets of simulated nodes. No pod there runs anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pulumi
import pulumi_kubernetes as k8s

from infra.platform import pods
from infra.platform.component import Component, Resources, fingerprint
from infra.platform.rights import READ, Rule, cluster_rights

NAME = "kwok"
PORT = 10247
RESOURCES = Resources(cpu="20m", memory="48Mi", limit="256Mi")
OWN_STAGES = Path(__file__).parent / "stages"
STAGES = (
    "node/fast/node-initialize.yaml",
    "node/heartbeat/node-heartbeat.yaml",
    "pod/fast/pod-ready.yaml",
    "pod/fast/pod-complete.yaml",
    "pod/fast/pod-delete.yaml",
)
# Addresses that are set aside for benchmarks of networks, so that they are nobody's.
POD_ADDRESSES = "198.18.0.1/15"
CHANGE = ["patch", "update"]
# Which nodes are simulated, no such rule can say: the selector below does.
RULES: list[Rule] = [
    ("", ["nodes"], [*READ, *CHANGE]),
    ("", ["nodes/status", "pods/status"], CHANGE),
    ("", ["pods"], [*READ, *CHANGE, "delete"]),
    ("", ["events"], ["create", "patch"]),
]


@dataclass(frozen=True)
class KwokArgs:
    namespace: pulumi.Input[str]
    manifests: Path
    """The module's folder `kustomize/stage`."""
    image: str


class Kwok(Component):
    """Nodes are ready at once, pods as soon as they are bound; they end when they say so."""

    def __init__(
        self, name: str, args: KwokArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("Kwok", name, opts)
        files = [*(args.manifests / stage for stage in STAGES), *sorted(OWN_STAGES.glob("*.yaml"))]
        stages = {file.name: file.read_text() for file in files}
        config = k8s.core.v1.ConfigMap(
            "kwok-stages",
            metadata=pods.metadata("kwok-stages", args.namespace),
            data=stages,
            opts=self.child(),
        )
        rights = cluster_rights(NAME, args.namespace, RULES, self.child())
        pod = pods.template(
            NAME,
            [
                pods.container(
                    NAME,
                    args.image,
                    RESOURCES,
                    args=[
                        *(f"--config=/etc/kwok/{stage}" for stage in stages),
                        "--manage-all-nodes=false",
                        # As Karpenter's provider marks its own.
                        "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
                        f"--cidr={POD_ADDRESSES}",
                        # Whoever asks such a kubelet for something is refused at once.
                        "--node-ip=127.0.0.1",
                        # The nodes' status is heartbeat enough, and leaves no leases behind.
                        "--node-lease-duration-seconds=0",
                        f"--server-address=0.0.0.0:{PORT}",
                    ],
                    env={"HOME": "/tmp", "GOMEMLIMIT": "200MiB"},  # noqa: S108
                    port=PORT,
                    mounts={"/etc/kwok": "stages"},
                    readiness=pods.http_probe("/healthz", PORT, period=3),
                    liveness=pods.http_probe("/healthz", PORT, period=30, timeout=30),
                )
            ],
            volumes=[pods.volume("stages", config_map="kwok-stages")],
            service_account=NAME,
            annotations={"slipway/settings": fingerprint(stages)},
        )
        pods.deployment(NAME, args.namespace, pod, self.child(config, *rights))
        self.register_outputs({})
