"""What models find in an environment's namespace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s

from infra.platform import pods, secrets
from infra.platform.component import Component


@dataclass(frozen=True)
class EnvironmentArgs:
    namespace: pulumi.Input[str]
    object_store: Mapping[str, pulumi.Input[str]]
    """Environment of the S3 client, which may read bentos and evidence, and add predictions."""


class Environment(Component):
    """Secret `object-store` and ServiceAccount `model`, which has no rights and no token."""

    def __init__(
        self, name: str, args: EnvironmentArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("Environment", name, opts)
        secrets.keep(
            f"{name}-object-store",
            pods.metadata("object-store", args.namespace),
            args.object_store,
            self.child(),
        )
        k8s.core.v1.ServiceAccount(
            f"{name}-model",
            metadata=pods.metadata("model", args.namespace),
            automount_service_account_token=False,
            opts=self.child(),
        )
        self.register_outputs({})
