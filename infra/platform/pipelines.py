"""What workflow pods find in their namespace: credentials, settings, and an account."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs
from pulumi_kubernetes.rbac.v1 import PolicyRuleArgs, RoleRefArgs, SubjectArgs

from infra.platform import pods
from infra.platform.argo_workflows import ACCOUNT
from infra.platform.component import Component, secret_data


@dataclass(frozen=True)
class PipelinesArgs:
    namespace: pulumi.Input[str]
    object_store: Mapping[str, pulumi.Input[str]]
    """Environment of the S3 client."""
    forge: Mapping[str, pulumi.Input[str]]
    """Environment of the forge's client."""
    settings: Mapping[str, pulumi.Input[str]]
    """Addresses and images, for steps and as workflow parameters."""


class Pipelines(Component):
    """Secrets `object-store` and `forge`, ConfigMap `platform`, ServiceAccount `workflow`."""

    def __init__(
        self, name: str, args: PipelinesArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("Pipelines", name, opts)
        for secret, data in {"object-store": args.object_store, "forge": args.forge}.items():
            k8s.core.v1.Secret(
                f"pipelines-{secret}",
                metadata=pods.metadata(secret, args.namespace),
                data=secret_data(data),
                opts=self.child(),
            )
        k8s.core.v1.ConfigMap(
            "pipelines-platform",
            metadata=ObjectMetaArgs(
                name="platform",
                namespace=args.namespace,
                # Workflow parameters may be read from config maps that say so.
                labels={"workflows.argoproj.io/configmap-type": "Parameter"},
            ),
            data=args.settings,
            opts=self.child(),
        )
        where = pods.metadata(ACCOUNT, args.namespace)
        k8s.core.v1.ServiceAccount(ACCOUNT, metadata=where, opts=self.child())
        k8s.rbac.v1.Role(
            ACCOUNT,
            metadata=where,
            rules=[
                PolicyRuleArgs(
                    api_groups=["argoproj.io"],
                    resources=["workflowtaskresults"],
                    verbs=["create", "patch"],
                )
            ],
            opts=self.child(),
        )
        k8s.rbac.v1.RoleBinding(
            ACCOUNT,
            metadata=where,
            role_ref=RoleRefArgs(api_group="rbac.authorization.k8s.io", kind="Role", name=ACCOUNT),
            subjects=[SubjectArgs(kind="ServiceAccount", name=ACCOUNT, namespace=args.namespace)],
            opts=self.child(),
        )
        self.register_outputs({})
