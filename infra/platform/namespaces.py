"""The platform's namespaces, each with the strictest Pod Security level that its pods allow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

from infra.config import Level
from infra.platform.component import Component


@dataclass(frozen=True)
class NamespacesArgs:
    levels: Mapping[str, Level]
    """Namespace to Pod Security level."""


class Namespaces(Component):
    """`names`: each namespace's name, known once it exists; `add` makes one that has to wait."""

    names: dict[str, pulumi.Output[str]]

    def __init__(
        self, name: str, args: NamespacesArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("Namespaces", name, opts)
        self.names = {}
        for namespace, level in args.levels.items():
            self.add(namespace, level)
        self.register_outputs({"names": self.names})

    def add(self, namespace: str, level: Level, *after: pulumi.Resource) -> None:
        """Makes a namespace once `after` is there; it goes before that."""
        modes = ("enforce", "warn") if level == "restricted" else ("enforce",)
        made = k8s.core.v1.Namespace(
            namespace,
            metadata=ObjectMetaArgs(
                name=namespace,
                labels={
                    "app.kubernetes.io/part-of": "slipway",
                    **{f"pod-security.kubernetes.io/{mode}": level for mode in modes},
                },
            ),
            opts=self.child(*after),
        )
        self.names[namespace] = made.metadata["name"]
