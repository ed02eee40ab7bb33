"""Argo CD, from its own manifests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pulumi
import pulumi_kubernetes as k8s
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

from infra.platform import pods, upstream
from infra.platform.component import NO_WAIT, Component, Resources, fingerprint, secret_data
from infra.platform.forge import SIGNED_AS
from infra.platform.managed import inclusions, managed, seen
from infra.platform.random_password import RandomPassword
from infra.platform.rights import rights_in

PATCHES = Path(__file__).parent / "patches" / "argo-cd.yaml"
# Pods by the name of their workload, and the container in it.
WORKLOADS = {
    "argocd-application-controller": "StatefulSet",
    "argocd-applicationset-controller": "Deployment",
    "argocd-redis": "Deployment",
    "argocd-repo-server": "Deployment",
    "argocd-server": "Deployment",
}
# What the serving chart and the workflows are made of, and what their controllers make of it.
MANAGED_BY = {"application-controller": ["*"], "server": ["delete", "patch"]}
# Both see what is managed, in all namespaces, and beside it this.
SEES: dict[str, list[upstream.Manifest]] = {
    "application-controller": [{"nonResourceURLs": ["*"], "verbs": ["get"]}],
    "server": [
        {"apiGroups": [""], "resources": ["events"], "verbs": ["list"]},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    ],
}


@dataclass(frozen=True)
class ArgoCdArgs:
    namespace: pulumi.Input[str]
    manifests: Path
    """The module's folder `manifests`."""
    image: str
    redis_image: str
    resources: Mapping[str, Resources]
    """By name of the workload."""
    poll_seconds: int
    webhook_secret: pulumi.Input[str]
    webhooks_of: str
    """The forge's kind, which says how it signs."""
    managed_namespaces: Mapping[str, pulumi.Input[str]]
    """Where Argo CD may change things."""
    url: str
    node_port: int | None = None
    authorities: Mapping[str, str] = field(default_factory=dict[str, str])
    """Host to the only certificates (PEM) that those of a repository there may be by."""


class ArgoCd(Component):
    """Outputs nothing but its readiness: applications name it by its namespace."""

    def __init__(
        self, name: str, args: ArgoCdArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ArgoCd", name, opts)
        objects = self._objects(args)
        first = [*self._secrets(args), *self._manage(args)]
        upstream.register_all(name, objects, self.child, first)
        self.register_outputs({})

    def _objects(self, args: ArgoCdArgs) -> list[upstream.Manifest]:
        loaded = upstream.load(args.manifests / "install.yaml")
        patched = upstream.patch(loaded, [*upstream.load_list(PATCHES), *self._patches(args)])
        images = {
            "quay.io/argoproj/argocd": args.image,
            "public.ecr.aws/docker/library/redis": args.redis_image,
        }
        settings = {
            key: value
            for manifest in patched
            if manifest["kind"] == "ConfigMap"
            for key, value in manifest.get("data", {}).items()
        }
        for manifest in patched:
            if manifest["kind"] in upstream.WORKLOADS:
                annotations = {"slipway/settings": fingerprint(settings)}
                manifest["spec"]["template"]["metadata"]["annotations"] = annotations
        return upstream.in_namespace(upstream.with_images(patched, images), args.namespace)

    def _patches(self, args: ArgoCdArgs) -> list[upstream.Manifest]:
        settings = {
            "timeout.reconciliation": f"{args.poll_seconds}s",
            "url": args.url,
            "resource.inclusions": inclusions(),
        }
        patches: list[upstream.Manifest] = [
            {"kind": "Service", "metadata": {"name": "*", "annotations": NO_WAIT}},
            {"kind": "ConfigMap", "metadata": {"name": "argocd-cm"}, "data": settings},
            *self._trusted(args),
            *(_sees(component, more) for component, more in SEES.items()),
        ]
        for workload, kind in WORKLOADS.items():
            resources = args.resources[workload]
            container = {
                "name": "redis" if workload == "argocd-redis" else workload,
                "resources": {
                    "requests": {"cpu": resources.cpu, "memory": resources.memory},
                    "limits": {"memory": resources.limit},
                },
            }
            pod = {"spec": {"containers": [container]}}
            patches.append(
                {"kind": kind, "metadata": {"name": workload}, "spec": {"template": pod}}
            )
        if args.node_port:
            # The same port again, which would get a node port at random.
            again = {"name": "https", "$patch": "delete"}
            port = {"name": "http", "nodePort": args.node_port}
            spec = {"type": "NodePort", "ports": [port, again]}
            patches.append({"kind": "Service", "metadata": {"name": "argocd-server"}, "spec": spec})
        return patches

    @staticmethod
    def _trusted(args: ArgoCdArgs) -> list[upstream.Manifest]:
        if not args.authorities:
            return []
        name = {"name": "argocd-tls-certs-cm"}
        return [{"kind": "ConfigMap", "metadata": name, "data": dict(args.authorities)}]

    def _secrets(self, args: ArgoCdArgs) -> list[pulumi.Resource]:
        redis = RandomPassword("argocd-redis", opts=self.child())
        # Argo CD's server would make one, but its other parts may start before it has.
        sessions = RandomPassword("argocd-sessions", 44, opts=self.child())
        contents: dict[str, dict[str, pulumi.Input[str]]] = {
            "argocd-redis": {"auth": redis.result},
            "argocd-secret": {
                f"webhook.{SIGNED_AS[args.webhooks_of]}.secret": args.webhook_secret,
                "server.secretkey": sessions.result,
            },
        }
        return [
            k8s.core.v1.Secret(
                name,
                metadata=ObjectMetaArgs(
                    name=name,
                    namespace=args.namespace,
                    labels={"app.kubernetes.io/part-of": "argocd", pods.NAME: name},
                    # Argo CD adds keys of its own to argocd-secret; these stay ours.
                    annotations={"pulumi.com/patchForce": "true"},
                ),
                data=secret_data(data),
                opts=self.child(),
            )
            for name, data in contents.items()
        ]

    def _manage(self, args: ArgoCdArgs) -> list[pulumi.Resource]:
        made: list[pulumi.Resource] = []
        for label, namespace in args.managed_namespaces.items():
            for component, verbs in MANAGED_BY.items():
                account = f"argocd-{component}"
                made += rights_in(
                    account,
                    namespace,
                    managed(verbs),
                    args.namespace,
                    self.child(),
                    resource=f"{account}-in-{label}",
                )
        return made


def _sees(component: str, more: list[upstream.Manifest]) -> upstream.Manifest:
    name = f"argocd-{component}"
    return {"kind": "ClusterRole", "metadata": {"name": name}, "rules": [*seen(), *more]}
