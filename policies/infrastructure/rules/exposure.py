"""What the world can reach, and what a stranger may do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from policies.infrastructure import managed
from policies.infrastructure.limits import Limits
from policies.infrastructure.resources import UNKNOWN, Resource, Stack, at, each
from policies.infrastructure.rule import Rule, StackRule
from policies.infrastructure.rules.encryption import BUCKETS

WORLD = ("0.0.0.0/0", "::/0")
BLOCKS = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
# What the world may knock at: TLS, and what redirects to it.
FRONT_DOORS = {80, 443}
INTERNAL = "service.beta.kubernetes.io/aws-load-balancer-scheme"
# Statements that say who may do what: type and property.
DOCUMENTS = {
    "iam/Policy": "policy",
    "iam/RolePolicy": "policy",
    "iam/UserPolicy": "policy",
    "iam/GroupPolicy": "policy",
    "iam/Role": "assumeRolePolicy",
    "s3/BucketPolicy": "policy",
    "kms/Key": "policy",
    "sqs/QueuePolicy": "policy",
    "sqs/Queue": "policy",
    "sns/TopicPolicy": "policy",
    "ecr/RepositoryPolicy": "policy",
    "secretsmanager/SecretPolicy": "policy",
    "ec2/VpcEndpoint": "policy",
}


def buckets_private(stack: Stack, limits: Limits) -> Iterator[tuple[Resource, str]]:
    """No bucket can become public."""
    for bucket in stack.on_aws(*BUCKETS):
        found = list(stack.naming(bucket, "bucket", "s3/BucketPublicAccessBlock"))
        if not found:
            yield bucket, "no BucketPublicAccessBlock names it"
        for block in found:
            for name in BLOCKS:
                if block.get(name) not in (True, UNKNOWN):
                    yield block, f"{name}: true is missing"
    for acl in stack.on_aws("s3/BucketAcl", "s3/BucketAclV2", *BUCKETS):
        if str(acl.get("acl") or "").startswith(("public-", "authenticated-")):
            yield acl, f"acl {acl.get('acl')}: no object is the world's; leave it out"


def databases_private(resource: Resource, limits: Limits) -> Iterator[str]:
    """No database has a public address."""
    what = ("rds/Instance", "rds/ClusterInstance")
    if resource.aws in what and resource.get("publiclyAccessible") is True:
        yield "publiclyAccessible: true; leave it out"


def cluster_private(resource: Resource, limits: Limits) -> Iterator[str]:
    """The API server is reachable from inside, or from named networks."""
    if resource.aws != "eks/Cluster":
        return
    network = resource.get("vpcConfig")
    if at(network, "endpointPrivateAccess") not in (True, UNKNOWN):
        yield "vpcConfig.endpointPrivateAccess: true is missing"
    if at(network, "endpointPublicAccess") in (False, UNKNOWN):
        return
    networks = each(at(network, "publicAccessCidrs"))
    if not networks or any(n in WORLD for n in networks):
        yield (
            "vpcConfig: the world reaches the API server; set endpointPublicAccess: false, or name "
            "networks in publicAccessCidrs"
        )


def ports_closed(resource: Resource, limits: Limits) -> Iterator[str]:
    """The internet reaches at most ports 80 and 443."""
    for rule in _ingress(resource):
        networks = [*each(at(rule, "cidrBlocks")), *each(at(rule, "ipv6CidrBlocks"))]
        networks += [at(rule, "cidrIpv4"), at(rule, "cidrIpv6")]
        first, last = at(rule, "fromPort"), at(rule, "toPort")
        named = first is not None and first == last and first in FRONT_DOORS
        if any(n in WORLD for n in networks) and not named:
            yield f"the world reaches ports {_port(first)}-{_port(last)}; name the networks"


def _ingress(resource: Resource) -> list[Any]:
    if resource.aws in ("ec2/SecurityGroup", "ec2/DefaultSecurityGroup"):
        return each(resource.get("ingress"))
    alone = resource.aws == "vpc/SecurityGroupIngressRule" or (
        resource.aws == "ec2/SecurityGroupRule" and resource.get("type") == "ingress"
    )
    return [resource.properties] if alone else []


def _port(value: Any) -> str:
    return str(int(value)) if isinstance(value, int | float) else "any"


def machines_private(resource: Resource, limits: Limits) -> Iterator[str]:
    """No machine gets a public address."""
    if resource.aws == "ec2/Subnet" and resource.get("mapPublicIpOnLaunch") is True:
        yield "mapPublicIpOnLaunch: true; leave it out"
    if resource.aws == "ec2/Instance" and resource.get("associatePublicIpAddress") is True:
        yield "associatePublicIpAddress: true; leave it out"
    if resource.aws == "ec2/LaunchTemplate":
        for index, card in enumerate(each(resource.get("networkInterfaces"))):
            if at(card, "associatePublicIpAddress") in (True, "true"):
                yield f"networkInterfaces[{index}].associatePublicIpAddress: true; leave it out"
    public = resource.get("spec", "associatePublicIPAddress")
    if resource.kind == "EC2NodeClass" and public is True:
        yield "spec.associatePublicIPAddress: true; leave it out"


def metadata_guarded(resource: Resource, limits: Limits) -> Iterator[str]:
    """Pods cannot use their node's permissions: metadata takes session tokens, one hop at most."""
    hops = "httpPutResponseHopLimit"
    if resource.aws in ("ec2/LaunchTemplate", "ec2/Instance"):
        options, where = resource.get("metadataOptions"), "metadataOptions"
    elif resource.kind == "EC2NodeClass":
        options, where = resource.get("spec", "metadataOptions"), "spec.metadataOptions"
    else:
        return
    if options is UNKNOWN:
        return
    if at(options, "httpTokens") not in ("required", UNKNOWN):
        yield f"{where}.httpTokens: required is missing"
    if at(options, hops) not in (1, UNKNOWN):
        yield f"{where}.{hops}: 1 is missing"


def services_internal(resource: Resource, limits: Limits) -> Iterator[str]:
    """A load balancer that a Service asks for is internal, or names its allowed sources."""
    if resource.kind != "Service" or resource.get("spec", "type") != "LoadBalancer":
        return
    annotations = resource.get("metadata", "annotations")
    sources = each(resource.get("spec", "loadBalancerSourceRanges"))
    named = bool(sources) and not any(s in WORLD for s in sources)
    if at(annotations, INTERNAL) not in ("internal", UNKNOWN) and not named:
        yield f"annotation {INTERNAL}: internal, or spec.loadBalancerSourceRanges, is missing"


def rights_named(resource: Resource, limits: Limits) -> Iterator[str]:
    """No policy allows everything, or anybody."""
    where = DOCUMENTS.get(resource.aws, "")
    documents = [(where, resource.get(where))] if where else []
    if resource.aws == "iam/Role":
        inline = each(resource.get("inlinePolicies"))
        documents += [(f"inlinePolicies[{i}]", at(p, "policy")) for i, p in enumerate(inline)]
    for where, document in documents:
        for index, statement in enumerate(_statements(document)):
            for said in _too_wide(statement, resource):
                yield f"{where}: Statement[{index}]: {said}"


def _statements(document: Any) -> list[Mapping[str, Any]]:
    if isinstance(document, str):
        try:
            document = json.loads(document)
        except ValueError:
            return []
    found = at(document, "Statement")
    return [found] if isinstance(found, Mapping) else each(found)


def _list(value: Any) -> list[Any]:
    return [value] if isinstance(value, str) else each(value)


def _too_wide(statement: Mapping[str, Any], resource: Resource) -> Iterator[str]:
    if statement.get("Effect") != "Allow":
        return
    for inverse in ("NotAction", "NotResource", "NotPrincipal"):
        if inverse in statement:
            yield f"{inverse} allows what nobody has thought of; name what is allowed"
    conditional = bool(statement.get("Condition"))
    principal = statement.get("Principal")
    everybody = principal == "*" or "*" in _list(at(principal, "AWS"))
    # A gateway's policy narrows what callers may do who have rights of their own.
    if everybody and not conditional and resource.aws != "ec2/VpcEndpoint":
        yield 'Principal "*" is anybody; name who, or a Condition'
    # A key's own policy says "the account's policies decide", and can name no other resource.
    if resource.aws in ("kms/Key", "ec2/VpcEndpoint"):
        return
    actions = [str(a) for a in _list(statement.get("Action"))]
    for action in actions:
        if action == "*" or action.endswith(":*"):
            yield f"Action {action!r} is more than any workload does; name the actions"
    changes = [a for a in actions if not _reads(a)]
    if "*" in _list(statement.get("Resource")) and changes and not conditional:
        yield f'Resource "*" for {changes[0]}; name the resources, or a Condition'


# What AWS lets nobody restrict to a resource, beside what only looks.
_UNRESTRICTED = {"ecr:GetAuthorizationToken", "sts:GetCallerIdentity"}


def _reads(action: str) -> bool:
    verb = action.partition(":")[2]
    looks = verb.startswith(("Describe", "List"))
    return looks or action in _UNRESTRICTED or action.startswith("pricing:Get")


# What attaches policies: type and the property that names one, or several.
ATTACHING = {
    "iam/RolePolicyAttachment": "policyArn",
    "iam/UserPolicyAttachment": "policyArn",
    "iam/GroupPolicyAttachment": "policyArn",
    "iam/PolicyAttachment": "policyArn",
    "iam/Role": "managedPolicyArns",
}


def attached_known(stack: Stack, limits: Limits) -> Iterator[tuple[Resource, str]]:
    """A policy that is attached is the stack's own, or one of AWS's that somebody has read."""
    own = {arn for policy in stack.on_aws("iam/Policy") for arn in policy.ids}
    known = managed.policies()
    for holder in stack.on_aws(*ATTACHING):
        property = ATTACHING[holder.aws]
        for arn in _list(holder.get(property)):
            if isinstance(arn, str) and arn not in own and arn not in known:
                fix = f"write its statements, or add it to {managed.FILE.name}"
                yield holder, f"{property}: {arn} is none that is known; {fix}"


RULES = (
    StackRule(buckets_private),
    Rule(databases_private),
    Rule(cluster_private),
    Rule(ports_closed),
    Rule(machines_private),
    Rule(metadata_guarded),
    Rule(services_internal),
    Rule(rights_named),
    StackRule(attached_known),
)
