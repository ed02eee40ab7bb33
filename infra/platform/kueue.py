"""Kueue: which pods of a queue may start, and which make way. Others are none of its business."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi
import pulumi_kubernetes as k8s
import yaml

from infra.config import QUEUES
from infra.platform import pods, upstream
from infra.platform.certificate import ServingCertificate
from infra.platform.component import Component, Resources, fingerprint, secret_data
from infra.platform.network import NAMESPACE as NAMESPACE_LABEL
from infra.platform.rights import READ, Rule, cluster_rights, rights_in

NAME, NAMESPACE = "kueue", QUEUES
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
WEBHOOKS, HEALTH = 9443, 8081
CERTIFICATE = "kueue-webhooks"
RESOURCES = Resources(cpu="50m", memory="96Mi", limit="512Mi")
API = "kueue.x-k8s.io"
CHANGE = [*READ, "update", "patch"]
# Of what the module's config/components/webhook has: those of its own kinds, and of pods.
KINDS = ("clusterqueue", "cohort", "pod", "resourceflavor", "workload")
# API group to (kinds, verbs), in the whole cluster.
RULES: list[Rule] = [
    (API, ["admissionchecks", "clusterqueues", "cohorts", "localqueues"], CHANGE),
    (API, ["resourceflavors"], CHANGE),
    (API, ["workloads"], [*CHANGE, "create", "delete"]),
    (API, ["topologies", "workloadpriorityclasses"], READ),
    (
        API,
        [
            f"{kind}/{part}"
            for kind in ("admissionchecks", "clusterqueues", "localqueues", "workloads")
            for part in ("finalizers", "status")
        ],
        ["get", "patch", "update"],
    ),
    (API, ["resourceflavors/finalizers"], ["update"]),
    ("", ["limitranges", "namespaces", "pods"], READ),
    ("", ["events"], ["create", "patch", "update"]),
    ("apps", ["replicasets"], READ),
    ("node.k8s.io", ["runtimeclasses"], READ),
    ("scheduling.k8s.io", ["priorityclasses"], READ),
]
# And where the queues are.
QUEUED_RULES: list[Rule] = [
    ("", ["pods"], ["delete", "patch", "update"]),
    ("", ["pods/finalizers", "pods/status"], ["get", "patch", "update"]),
]


@dataclass(frozen=True)
class KueueArgs:
    namespace: pulumi.Input[str]
    queued: pulumi.Input[str]
    """The namespace whose pods may name a queue."""
    manifests: Path
    """The module's folder `config/components`."""
    image: str


class Kueue(Component):
    """The controller and its definitions. `certificate`: of the service that it answers at."""

    certificate: pulumi.Output[str]

    def __init__(
        self, name: str, args: KueueArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("Kueue", name, opts)
        definitions = [
            upstream.register(name, manifest, self.child())
            for manifest in upstream.load(*sorted((args.manifests / "crd" / "bases").glob("*")))
        ]
        rights = [
            *cluster_rights(NAME, args.namespace, RULES, self.child()),
            *rights_in(NAME, args.queued, QUEUED_RULES, args.namespace, self.child()),
        ]
        self._controller(args, [*definitions, *rights])
        self.register_outputs({"certificate": self.certificate})

    def _controller(self, args: KueueArgs, after: list[pulumi.Resource]) -> k8s.apps.v1.Deployment:
        service = pods.service(NAME, args.namespace, WEBHOOKS, self.child())
        made = ServingCertificate(
            CERTIFICATE, pulumi.Output.concat(NAME, ".", args.namespace, ".svc"), self.child()
        )
        self.certificate = made.certificate
        login = {"tls.crt": made.certificate, "tls.key": made.key}
        files = {"config.yaml": pulumi.Output.from_input(args.queued).apply(configuration)}
        secret = k8s.core.v1.Secret(
            CERTIFICATE,
            metadata=pods.metadata(CERTIFICATE, args.namespace),
            data=secret_data(login),
            opts=self.child(),
        )
        config = k8s.core.v1.ConfigMap(
            NAME, metadata=pods.metadata(NAME, args.namespace), data=files, opts=self.child()
        )
        pod = pods.template(
            NAME,
            [
                pods.container(
                    NAME,
                    args.image,
                    RESOURCES,
                    # By its entry point: the official image calls the program otherwise.
                    args=["--config=/etc/kueue/config.yaml", "--zap-log-level=2"],
                    env={"GOMEMLIMIT": "400MiB"},
                    port=WEBHOOKS,
                    mounts={
                        "/etc/kueue": "config",
                        "/tmp/k8s-webhook-server/serving-certs": "certificate",  # noqa: S108
                    },
                    readiness=pods.http_probe("/readyz", HEALTH, period=3),
                    liveness=pods.http_probe("/healthz", HEALTH, period=30, timeout=30),
                )
            ],
            volumes=[
                pods.volume("config", config_map=NAME),
                pods.volume("certificate", secret=CERTIFICATE),
            ],
            service_account=NAME,
            annotations={"slipway/settings": fingerprint({**login, **files})},
        )
        return pods.deployment(
            NAME,
            args.namespace,
            pod,
            self.child(service, secret, config, *after),
            # Two would both admit.
            recreate=True,
            # It says that it is ready before every webhook has its place.
            settle_seconds=3,
        )


@dataclass(frozen=True)
class WebhooksArgs:
    namespace: pulumi.Input[str]
    """Kueue's."""
    queued: pulumi.Input[str]
    manifests: Path
    certificate: pulumi.Input[str]


class Webhooks(Component):
    """What the API server asks Kueue: about its own kinds, and about those pods that name a queue.

    Without Kueue such pods wait, and no others. Register it last: on destroy, once nobody asks any
    more, no further pod comes to be in Kueue's hands.
    """

    def __init__(
        self, name: str, args: WebhooksArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("Webhooks", name, opts)
        for manifest in webhooks(args):
            upstream.register(name, manifest, self.child())
        self.register_outputs({})


def webhooks(args: WebhooksArgs) -> list[upstream.Manifest]:
    """Those of the module's that are wanted, at Kueue's service."""
    wanted = {f"{verb}{kind}.kb.io" for verb in "mv" for kind in KINDS}
    trusted = pulumi.Output.from_input(args.certificate).apply(
        lambda pem: base64.b64encode(pem.encode()).decode()
    )
    selectors: dict[str, Any] = {
        "namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: args.queued}},
        "objectSelector": {
            "matchExpressions": [{"key": QUEUE_LABEL, "operator": "Exists"}],
        },
    }
    result: list[upstream.Manifest] = []
    for manifest in upstream.load(args.manifests / "webhook" / "manifests.yaml"):
        kept: list[Mapping[str, Any]] = []
        for webhook in manifest["webhooks"]:
            if webhook["name"] not in wanted:
                continue
            path = webhook["clientConfig"]["service"]["path"]
            service = {
                "name": NAME,
                "namespace": args.namespace,
                "path": path,
                "port": WEBHOOKS,
            }
            client = {"service": service, "caBundle": trusted}
            only = selectors if webhook["name"][1:] == "pod.kb.io" else {}
            kept.append({**webhook, **only, "clientConfig": client})
        made = {"name": NAME, "labels": pods.labels(NAME)}
        result.append({**manifest, "metadata": made, "webhooks": kept})
    return result


def configuration(queued: str) -> str:
    """The controller's configuration, which has pods of the namespace `queued` in its queues."""
    return yaml.safe_dump(
        {
            "apiVersion": "config.kueue.x-k8s.io/v1beta1",
            "kind": "Configuration",
            "health": {"healthProbeBindAddress": f":{HEALTH}"},
            "metrics": {"bindAddress": ":8080"},
            "webhook": {"port": WEBHOOKS},
            "leaderElection": {"leaderElect": False},
            # The certificate is given, so that it needs no right to change webhooks and Secrets.
            "internalCertManagement": {"enable": False},
            "clientConnection": {"qps": 200, "burst": 400},
            "managedJobsNamespaceSelector": {"matchLabels": {NAMESPACE_LABEL: queued}},
            "integrations": {"frameworks": ["pod"]},
            # No quota is of them: who asks for an EFA interface beside its GPUs would never start.
            "resources": {"excludeResourcePrefixes": ["vpc.amazonaws.com/"]},
            "featureGates": {
                "MultiKueue": False,
                "ProvisioningACC": False,
                "VisibilityOnDemand": False,
            },
        }
    )
