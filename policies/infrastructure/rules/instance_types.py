"""Which machines an environment may have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from policies.infrastructure.limits import Limits
from policies.infrastructure.resources import Resource, at, each
from policies.infrastructure.rule import Rule

TYPE, FAMILY = "node.kubernetes.io/instance-type", "karpenter.k8s.aws/instance-family"
CATEGORY = "karpenter.k8s.aws/instance-category"


def instance_types_allowed(resource: Resource, limits: Limits) -> Iterator[str]:
    """Machines are of types that the environment allows."""
    for where, asked in _asked(resource):
        if not limits.allows_type(asked):
            yield f"{where}: {asked} is not one of {', '.join(limits.instance_types)}"


def instance_types_named(resource: Resource, limits: Limits) -> Iterator[str]:
    """A node pool names the types or families of its machines."""
    if resource.kind == "NodePool" and not [
        r for r in requirements(resource) if at(r, "operator") == "In" and at(r, "key") in _NAMING
    ]:
        yield f"spec.template.spec.requirements: {FAMILY} or {TYPE} In … is missing"


_NAMING = (TYPE, FAMILY)


def requirements(pool: Resource) -> list[Any]:
    """What a Karpenter NodePool asks of its nodes."""
    return each(pool.get("spec", "template", "spec", "requirements"))


def _asked(resource: Resource) -> Iterator[tuple[str, str]]:
    """Where a resource names machines, and which; FAMILY.* for all of a family."""
    if resource.aws in ("ec2/Instance", "ec2/LaunchTemplate", "ec2/CapacityReservation"):
        yield from _texts("instanceType", [resource.get("instanceType")])
    if resource.aws == "eks/NodeGroup":
        yield from _texts("instanceTypes", each(resource.get("instanceTypes")))
    if resource.aws in ("rds/Instance", "rds/ClusterInstance"):
        yield from _texts("instanceClass", [resource.get("instanceClass")])
    if resource.kind == "NodePool":
        for requirement in requirements(resource):
            key, values = at(requirement, "key"), each(at(requirement, "values"))
            if at(requirement, "operator") == "In" and key in _NAMING:
                suffix = ".*" if key == FAMILY else ""
                yield from _texts(f"requirement {key}", values, suffix)


def _texts(where: str, values: list[Any], suffix: str = "") -> Iterator[tuple[str, str]]:
    return ((where, value + suffix) for value in values if isinstance(value, str))


RULES = (Rule(instance_types_allowed), Rule(instance_types_named))
