"""Parts that must fit each other: addresses, the tags by which they are found, who trusts whom."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator, Mapping
from typing import Any

from policies.infrastructure.limits import Limits
from policies.infrastructure.resources import UNKNOWN, Resource, Stack, at, each
from policies.infrastructure.rule import StackRule

INSIDE, OUTSIDE = "kubernetes.io/role/internal-elb", "kubernetes.io/role/elb"
PODS = "pods.eks.amazonaws.com"
# What holds a role: resource, property, and the service that must be trusted with it.
HOLDERS = (
    ("eks/Cluster", "roleArn", "eks.amazonaws.com"),
    ("eks/NodeGroup", "nodeRoleArn", "ec2.amazonaws.com"),
    ("iam/InstanceProfile", "role", "ec2.amazonaws.com"),
    ("eks/PodIdentityAssociation", "roleArn", PODS),
    ("eks/Addon", "podIdentityAssociations", PODS),
    ("ec2/FlowLog", "iamRoleArn", "vpc-flow-logs.amazonaws.com"),
    ("rds/Instance", "monitoringRoleArn", "monitoring.rds.amazonaws.com"),
)


def subnets_apart(stack: Stack, limits: Limits) -> Iterator[tuple[Resource, str]]:
    """Subnets lie within their network and do not overlap."""
    for network in stack.on_aws("ec2/Vpc"):
        whole = _network(network.get("cidrBlock"))
        taken: list[tuple[Resource, Any]] = []
        for subnet in stack.naming(network, "vpcId", "ec2/Subnet"):
            block = _network(subnet.get("cidrBlock"))
            if block is None:
                continue
            if whole is not None and not block.subnet_of(whole):
                yield subnet, f"cidrBlock {block} is not in {whole}, its network"
            for other, theirs in taken:
                if block.overlaps(theirs):
                    yield subnet, f"cidrBlock {block} overlaps {theirs} of {other.name}"
            taken.append((subnet, block))


def _network(text: Any) -> ipaddress.IPv4Network | None:
    try:
        return ipaddress.IPv4Network(text) if isinstance(text, str) else None
    except ValueError:
        return None


def subnets_tagged(stack: Stack, limits: Limits) -> Iterator[tuple[Resource, str]]:
    """Load balancers find subnets by tags in every zone."""
    if not any(stack.on_aws("eks/Cluster")):
        return
    for network in stack.on_aws("ec2/Vpc"):
        subnets = list(stack.naming(network, "vpcId", "ec2/Subnet"))
        zones = {str(s.get("availabilityZone")) for s in subnets}
        outward = any(stack.naming(network, "vpcId", "ec2/InternetGateway"))
        for tag in (INSIDE, OUTSIDE) if outward else (INSIDE,):
            found = {str(s.get("availabilityZone")) for s in subnets if _tagged(s, tag)}
            if missing := sorted(zones - found):
                yield network, f"no subnet in {', '.join(missing)} has the tag {tag}: 1"


def _tagged(subnet: Resource, tag: str) -> bool:
    tags = subnet.get("tags")
    return tags is UNKNOWN or at(tags, tag) in ("1", UNKNOWN)


def selectors_match(stack: Stack, limits: Limits) -> Iterator[tuple[Resource, str]]:
    """What nodes select by tags exists."""
    sought = {
        "subnetSelectorTerms": [s.get("tags") for s in stack.on_aws("ec2/Subnet")],
        "securityGroupSelectorTerms": [
            *(g.get("tags") for g in stack.on_aws("ec2/SecurityGroup")),
            # A tag that is put on what another made, as EKS makes its cluster's group.
            *({t.get("key"): t.get("value")} for t in stack.on_aws("ec2/Tag")),
        ],
    }
    for nodes in stack.of_kind("EC2NodeClass"):
        for name, there in sought.items():
            terms = nodes.get("spec", name)
            if terms is None:
                yield nodes, f"spec.{name} is missing"
            for term in each(terms):
                tags = at(term, "tags")
                if isinstance(tags, Mapping) and not any(_has(found, tags) for found in there):
                    yield nodes, f"spec.{name}: nothing in the stack has the tags {dict(tags)}"


def _has(found: Any, tags: Mapping[str, Any]) -> bool:
    if found is UNKNOWN or UNKNOWN in tags.values():
        return True
    return all(at(found, k) == v or (v == "*" and at(found, k)) for k, v in tags.items())


def roles_trusted(stack: Stack, limits: Limits) -> Iterator[tuple[Resource, str]]:
    """Every role can be assumed by whoever is meant to have it."""
    roles = list(stack.on_aws("iam/Role"))
    for what, property, service in HOLDERS:
        for holder in stack.on_aws(what):
            for role in (r for r in roles if holder.names(property, r)):
                missing = _actions(service) - _trusted(role, service)
                if missing and role.get("assumeRolePolicy") is not UNKNOWN:
                    said = f"{holder.name} needs it: {service} may not {', '.join(sorted(missing))}"
                    yield role, f"assumeRolePolicy: {said}"


def _actions(service: str) -> set[str]:
    return {"sts:AssumeRole", "sts:TagSession"} if service == PODS else {"sts:AssumeRole"}


def _trusted(role: Resource, service: str) -> set[str]:
    """The actions that a role lets a service take."""
    document = role.get("assumeRolePolicy")
    try:
        document = json.loads(document) if isinstance(document, str) else document
    except ValueError:
        return set()
    found: set[str] = set()
    for statement in each(at(document, "Statement")):
        services, actions = at(statement, "Principal", "Service"), at(statement, "Action")
        if at(statement, "Effect") == "Allow" and service in _list(services):
            found |= {str(action) for action in _list(actions)}
    return found


def _list(value: Any) -> list[Any]:
    return [value] if isinstance(value, str) else each(value)


RULES = (
    StackRule(subnets_apart),
    StackRule(subnets_tagged),
    StackRule(selectors_match),
    StackRule(roles_trusted),
)
