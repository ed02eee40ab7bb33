"""metrics-server: what pods and nodes use, for `kubectl top` and for scheduling."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s
from pulumi_kubernetes.apiregistration.v1 import APIServiceSpecArgs, ServiceReferenceArgs
from pulumi_kubernetes.core.v1 import HTTPGetActionArgs, ProbeArgs
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs
from pulumi_kubernetes.rbac.v1 import RoleRefArgs, SubjectArgs

from infra.platform import pods
from infra.platform.component import Component, Resources
from infra.platform.rights import GROUP, READ, Rule, cluster_rights, policy_rules

NAME = "metrics-server"
PORT = 10250
RULES: list[Rule] = [("", ["nodes/metrics"], ["get"]), ("", ["pods", "nodes"], READ)]


@dataclass(frozen=True)
class MetricsServerArgs:
    image: pulumi.Input[str]
    resources: Resources


class MetricsServer(Component):
    """In kube-system, as every cluster's users expect it."""

    def __init__(
        self, name: str, args: MetricsServerArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("MetricsServer", name, opts)
        rights = cluster_rights(NAME, "kube-system", RULES, self.child())
        self._rbac()
        probe = ProbeArgs(
            http_get=HTTPGetActionArgs(path="/readyz", port=PORT, scheme="HTTPS"), period_seconds=10
        )
        alive = ProbeArgs(
            http_get=HTTPGetActionArgs(path="/livez", port=PORT, scheme="HTTPS"), period_seconds=10
        )
        server = pods.deployment(
            NAME,
            "kube-system",
            pods.template(
                NAME,
                [
                    pods.container(
                        NAME,
                        args.image,
                        args.resources,
                        command=["metrics-server"],
                        args=[
                            "--cert-dir=/tmp",
                            f"--secure-port={PORT}",
                            "--kubelet-preferred-address-types=InternalIP",
                            "--kubelet-use-node-status-port",
                            "--metric-resolution=30s",
                            # kubeadm's kubelet signs its own serving certificate.
                            "--kubelet-insecure-tls",
                        ],
                        port=PORT,
                        readiness=probe,
                        liveness=alive,
                    )
                ],
                service_account=NAME,
            ),
            self.child(*rights),
        )
        service = pods.service(NAME, "kube-system", PORT, self.child())
        k8s.apiregistration.v1.APIService(
            NAME,
            metadata=ObjectMetaArgs(name="v1beta1.metrics.k8s.io"),
            spec=APIServiceSpecArgs(
                group="metrics.k8s.io",
                version="v1beta1",
                group_priority_minimum=100,
                version_priority=100,
                insecure_skip_tls_verify=True,
                service=ServiceReferenceArgs(name=NAME, namespace="kube-system", port=PORT),
            ),
            opts=self.child(server, service),
        )
        self.register_outputs({})

    def _rbac(self) -> None:
        subject = SubjectArgs(kind="ServiceAccount", name=NAME, namespace="kube-system")
        k8s.rbac.v1.ClusterRole(
            f"{NAME}-reader",
            metadata=ObjectMetaArgs(
                name="system:aggregated-metrics-reader",
                labels={
                    f"{GROUP}/aggregate-to-{role}": "true" for role in ("view", "edit", "admin")
                },
            ),
            rules=policy_rules([("metrics.k8s.io", ["pods", "nodes"], READ)]),
            opts=self.child(),
        )
        k8s.rbac.v1.ClusterRoleBinding(
            f"{NAME}-auth-delegator",
            metadata=ObjectMetaArgs(name=f"{NAME}-auth-delegator"),
            role_ref=RoleRefArgs(api_group=GROUP, kind="ClusterRole", name="system:auth-delegator"),
            subjects=[subject],
            opts=self.child(),
        )
        k8s.rbac.v1.RoleBinding(
            f"{NAME}-auth-reader",
            metadata=pods.metadata(f"{NAME}-auth-reader", "kube-system"),
            role_ref=RoleRefArgs(
                api_group=GROUP, kind="Role", name="extension-apiserver-authentication-reader"
            ),
            subjects=[subject],
            opts=self.child(),
        )
