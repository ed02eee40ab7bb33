"""What the API server refuses in staging and prod: policies/admission, for this stack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi

from infra.platform import upstream
from infra.platform.component import Component
from slipway.paths import REPOSITORY

POLICIES = REPOSITORY / "policies" / "admission"
_ORDER = (
    "CustomResourceDefinition",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
)


@dataclass(frozen=True)
class AdmissionArgs:
    registries: Sequence[pulumi.Input[str]]
    """Where images may come from: beginnings of references, each ending with a slash."""


class Admission(Component):
    """Every policy in the folder, its binding, and the kind of what it is told."""

    def __init__(
        self, name: str, args: AdmissionArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("Admission", name, opts)
        expression = pulumi.Output.json_dumps(list(args.registries))
        registries = {"name": "registries", "expression": expression}
        ours: upstream.Manifest = {
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": "slipway-images"},
            "spec": {"variables": [registries]},
        }
        objects = upstream.patch(upstream.load(*sorted(POLICIES.glob("*.yaml"))), [ours])
        # Each needs the one before.
        options = self.child()
        for kind in _ORDER:
            these = [m for m in objects if m["kind"] == kind]
            options = self.child(*[upstream.register(name, m, options) for m in these])
        self.register_outputs({})
