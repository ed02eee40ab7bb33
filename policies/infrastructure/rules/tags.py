"""Who pays for it, and who to ask: on everything that is billed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, cast

from policies.infrastructure.limits import Limits
from policies.infrastructure.resources import UNKNOWN, Resource, at, each
from policies.infrastructure.rule import Rule

# What is billed, or makes what is.
BILLED = {
    *("acm/Certificate", "alb/LoadBalancer", "cloudwatch/LogGroup", "ebs/Volume"),
    *("ec2/CapacityReservation", "ec2/Eip", "ec2/Instance", "ec2/LaunchTemplate"),
    *("ec2/NatGateway", "ec2/Subnet", "ec2/Vpc", "ec2/VpcEndpoint", "ecr/Repository"),
    *("efs/FileSystem", "eks/Addon", "eks/Cluster", "eks/NodeGroup", "kms/Key"),
    *("lb/LoadBalancer", "rds/Cluster", "rds/Instance", "route53/Zone", "s3/Bucket"),
    *("s3/BucketV2", "secretsmanager/Secret", "sns/Topic", "sqs/Queue"),
}


def tagged(resource: Resource, limits: Limits) -> Iterator[str]:
    """Billed resources name their owner, environment and cost centre."""
    if resource.aws in BILLED:
        provided = _mapping(resource.provider.get("defaultTags"))
        yield from _missing({**_tags(at(provided, "tags")), **_tags(resource.get("tags"))}, limits)


def nodes_tagged(resource: Resource, limits: Limits) -> Iterator[str]:
    """So do the machines that a cluster creates by itself."""
    if resource.kind == "EC2NodeClass":
        yield from _missing(_tags(resource.get("spec", "tags")), limits, "spec.tags")
    if resource.aws == "ec2/LaunchTemplate":
        made = {
            str(at(specification, "resourceType")): _tags(at(specification, "tags"))
            for specification in each(resource.get("tagSpecifications"))
        }
        for kind in ("instance", "volume"):
            yield from _missing(made.get(kind, {}), limits, f"tagSpecifications of {kind}")


def _missing(tags: Mapping[str, Any], limits: Limits, where: str = "tags") -> Iterator[str]:
    for name in limits.tags:
        value = tags.get(name)
        if value is UNKNOWN:
            continue
        if not value:
            yield f"{where}: {name} is missing"
        elif name == "environment" and value not in limits.environments:
            known = ", ".join(limits.environments)
            yield f"{where}: environment {value} is not what the stack hosts ({known})"


def _mapping(value: Any) -> Any:
    """A provider's inputs are JSON in texts."""
    return json.loads(value) if isinstance(value, str) else value


def _tags(value: Any) -> dict[str, Any]:
    return dict(cast("Mapping[str, Any]", value)) if isinstance(value, Mapping) else {}


RULES = (Rule(tagged), Rule(nodes_tagged))
