"""Mistakes that are made in infrastructure, each seeded into what the program registers."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from policies.infrastructure.resources import Resource

GONE = object()
Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Mutation:
    """One mistake: of the first resource that fits, a property that is other, or the whole of it.

    Args:
        what: on AWS e.g. rds/Instance, else the kind of a Kubernetes object.
        path: to the property; empty for the resource itself.
        value: what is written there, GONE for nothing, or a function of what was there.
        where: what the resource's name begins with.
    """

    mistake: str
    what: str
    path: Path
    value: Any
    where: str = ""

    def fits(self, resource: Resource) -> bool:
        named = resource.name.startswith(self.where)
        if not named or self.what not in (resource.aws, resource.kind):
            return False
        return self.what != "NodePool" or resource.get("spec", "replicas") is None

    def seed(self, resources: list[Resource]) -> list[Resource]:
        """The resources with the mistake. `LookupError` where nothing can be mistaken so."""
        at = next((i for i, resource in enumerate(resources) if self.fits(resource)), None)
        if at is None:
            raise LookupError(f"{self.mistake}: no {self.what} {self.where}")
        if not self.path:
            return [*resources[:at], *resources[at + 1 :]]
        properties = copy.deepcopy(dict(resources[at].properties))
        _write(properties, self.path, self.value)
        # What is written down comes from no other resource.
        refers = {k: v for k, v in resources[at].refers.items() if k != self.path[0]}
        changed = replace(resources[at], properties=properties, refers=refers)
        return [*resources[:at], changed, *resources[at + 1 :]]


def _write(container: Any, path: Path, value: Any) -> None:
    for part in path[:-1]:
        container = container[part]
    last = path[-1]
    if value is GONE:
        del container[last]
    elif callable(value):
        container[last] = value(container[last])
    else:
        container[last] = value


def _statement(**changed: Any) -> Callable[[str], str]:
    """Changes the first statement of a policy document."""

    def edit(text: str) -> str:
        document = json.loads(text)
        document["Statement"][0] |= changed
        return json.dumps(document)

    return edit


def _each_allowed(**changed: Any) -> Callable[[str], str]:
    """Changes every statement of a policy document that allows something."""

    def edit(text: str) -> str:
        document = json.loads(text)
        for statement in document["Statement"]:
            if statement["Effect"] == "Allow":
                statement |= changed
        return json.dumps(document)

    return edit


def _appended(*more: Any) -> Callable[[list[Any]], list[Any]]:
    return lambda items: [*items, *more]


def _without(index: int) -> Callable[[list[Any]], list[Any]]:
    return lambda items: [*items[:index], *items[index + 1 :]]


def _types(*names: str) -> Callable[[list[Any]], list[Any]]:
    """Asks for other machines than a pool's."""

    def edit(requirements: list[Any]) -> list[Any]:
        kept = [r for r in requirements if r["key"] != "node.kubernetes.io/instance-type"]
        other = {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": names}
        return [*kept, {**other, "values": list(names)}]

    return edit


def _requirement(index: int, **changed: Any) -> Callable[[list[Any]], list[Any]]:
    return lambda items: [
        {**item, **changed} if i == index else item for i, item in enumerate(items)
    ]


PLAIN = ("spec", "template", "spec")
EBS = ("spec", "blockDeviceMappings", 0, "ebs")
WORLD = "0.0.0.0/0"
AWS_OWN = "arn:aws:iam::aws:policy/"
STORE = ("spec", "provider", "aws")

# What a policy has to refuse.
EXPOSED = [
    Mutation("a bucket that can become public", "s3/BucketPublicAccessBlock", (), GONE),
    Mutation(
        "a public policy is allowed",
        *("s3/BucketPublicAccessBlock", ("blockPublicPolicy",), False),
    ),
    Mutation(
        "a bucket for everybody",
        *("s3/BucketPolicy", ("policy",), _statement(Effect="Allow", Condition={})),
    ),
    Mutation("a public database", "rds/Instance", ("publiclyAccessible",), True),
    Mutation(
        "an API server for the world",
        *("eks/Cluster", ("vpcConfig", "endpointPublicAccess"), True),
    ),
    Mutation(
        "nodes go to the API server by the internet",
        *("eks/Cluster", ("vpcConfig", "endpointPrivateAccess"), False),
    ),
    Mutation(
        "PostgreSQL for the world",
        *("vpc/SecurityGroupIngressRule", ("cidrIpv4",), WORLD, "database"),
    ),
    Mutation("nodes with public addresses", "ec2/Subnet", ("mapPublicIpOnLaunch",), True),
    Mutation(
        "GPU nodes with public addresses",
        *("EC2NodeClass", ("spec", "associatePublicIPAddress"), True),
    ),
    Mutation(
        "pods take their node's role",
        *("EC2NodeClass", ("spec", "metadataOptions", "httpTokens"), "optional"),
    ),
    Mutation(
        "pods reach metadata",
        *("ec2/LaunchTemplate", ("metadataOptions", "httpPutResponseHopLimit"), 2),
    ),
    Mutation("a role may do everything", "iam/RolePolicy", ("policy",), _statement(Action="*")),
    Mutation("a role may do all of S3", "iam/RolePolicy", ("policy",), _statement(Action=["s3:*"])),
    Mutation(
        "a role may do it to everything",
        *("iam/RolePolicy", ("policy",), _statement(Resource="*", Action=["s3:PutObject"])),
    ),
    Mutation(
        "a role has all of S3 by AWS's own policy",
        *("iam/RolePolicyAttachment", ("policyArn",), f"{AWS_OWN}AmazonS3FullAccess"),
    ),
    Mutation(
        "a role reads every secret",
        *("iam/RolePolicy", ("policy",), _statement(Resource="*"), "external-secrets-"),
    ),
    Mutation(
        "anybody takes a role",
        *("iam/Role", ("assumeRolePolicy",), _statement(Principal="*")),
    ),
]
UNENCRYPTED = [
    Mutation("an unencrypted bucket", "s3/BucketServerSideEncryptionConfiguration", (), GONE),
    Mutation(
        "a bucket under AWS's own key",
        *(
            "s3/BucketServerSideEncryptionConfiguration",
            ("rules", 0, "applyServerSideEncryptionByDefault"),
            {"sseAlgorithm": "AES256"},
        ),
    ),
    Mutation("unencrypted volumes", "StorageClass", ("parameters", "encrypted"), GONE),
    Mutation(
        "a class of volumes that the driver makes",
        *(
            *("eks/Addon", ("configurationValues",)),
            *('{"defaultStorageClass": {"enabled": true}}', "aws-ebs-csi-driver"),
        ),
    ),
    Mutation("an unencrypted database", "rds/Instance", ("storageEncrypted",), False),
    Mutation("unencrypted Secrets", "eks/Cluster", ("encryptionConfig",), GONE),
    Mutation("a key that is never replaced", "kms/Key", ("enableKeyRotation",), GONE),
    Mutation("an unencrypted disk of GPU nodes", "EC2NodeClass", (*EBS, "encrypted"), False),
    Mutation(
        "an unencrypted disk of the platform's nodes",
        *("ec2/LaunchTemplate", ("blockDeviceMappings", 0, "ebs", "encrypted"), "false"),
    ),
    Mutation("a password that is written down", "rds/Instance", ("password",), "hunter2"),
    Mutation(
        "a secret that is written down",
        "secretsmanager/SecretVersion",
        ("secretString",),
        '{"password":"hunter2"}',
    ),
    Mutation("a secret under AWS's own key", "secretsmanager/Secret", ("kmsKeyId",), GONE),
]
LOST = [
    Mutation("a database in one zone", "rds/Instance", ("multiAz",), False),
    Mutation("no backups", "rds/Instance", ("backupRetentionPeriod",), 0),
    Mutation("a database that one command deletes", "rds/Instance", ("deletionProtection",), False),
    Mutation("secrets gone at once", "secretsmanager/Secret", ("recoveryWindowInDays",), 0),
    Mutation("no last snapshot", "rds/Instance", ("skipFinalSnapshot",), True),
    Mutation("a cluster that one command deletes", "eks/Cluster", ("deletionProtection",), GONE),
    Mutation("buckets that are emptied", "s3/Bucket", ("forceDestroy",), True),
    Mutation(
        "versions that are not kept",
        *("s3/BucketVersioning", ("versioningConfiguration", "status"), "Suspended"),
    ),
    Mutation("tags that move", "ecr/Repository", ("imageTagMutability",), "MUTABLE"),
    Mutation(
        "images that nobody scans",
        *("ecr/Repository", ("imageScanningConfiguration", "scanOnPush"), False),
    ),
    Mutation("nobody writes down who did what", "eks/Cluster", ("enabledClusterLogTypes",), GONE),
    Mutation("logs for ever", "cloudwatch/LogGroup", ("retentionInDays",), GONE),
    Mutation("one way out for all zones", "ec2/NatGateway", (), GONE),
]
POOLS = [
    Mutation("a GPU pool without a taint", "NodePool", (*PLAIN, "taints"), GONE),
    Mutation("a GPU pool without a limit", "NodePool", ("spec", "limits"), GONE),
    Mutation("GPU nodes for ever", "NodePool", (*PLAIN, "expireAfter"), "Never"),
    Mutation(
        "idle GPU nodes stay",
        *("NodePool", ("spec", "disruption", "consolidateAfter"), "Never"),
    ),
    Mutation("a pool without a budget", "budgets/Budget", (), GONE),
    Mutation(
        "a budget of another pool",
        *("budgets/Budget", ("costFilters", 0, "values"), ["user:slipway/pool$other"]),
    ),
    Mutation(
        "machines that prod may not have",
        *("NodePool", (*PLAIN, "requirements"), _types("g4dn.metal")),
    ),
    Mutation("any machine will do", "NodePool", (*PLAIN, "requirements"), _without(2)),
    Mutation("nodes without an owner", "EC2NodeClass", ("spec", "tags", "owner"), GONE),
    Mutation("a cluster without a cost centre", "eks/Cluster", ("tags", "cost-centre"), GONE),
    Mutation("tagged as another environment", "rds/Instance", ("tags", "environment"), "dev"),
]
UNFITTING = [
    Mutation(
        "subnets over each other",
        *("ec2/Subnet", ("cidrBlock",), lambda block: block.replace("/18", "/17"), "private-a"),
    ),
    Mutation("a subnet of another network", "ec2/Subnet", ("cidrBlock",), "10.200.0.0/24"),
    Mutation(
        "load balancers find no subnet",
        *("ec2/Subnet", ("tags", "kubernetes.io/role/elb"), GONE, "public"),
    ),
    Mutation(
        "internal load balancers find none",
        *("ec2/Subnet", ("tags", "kubernetes.io/role/internal-elb"), GONE, "private"),
    ),
    Mutation(
        "nodes find no subnet",
        *(
            "EC2NodeClass",
            ("spec", "subnetSelectorTerms", 0, "tags"),
            {"karpenter.sh/discovery": "x"},
        ),
    ),
    Mutation("nodes find no security group", "ec2/Tag", (), GONE, "cluster-discovery"),
    Mutation(
        "EKS may not take its role",
        *(
            *("iam/Role", ("assumeRolePolicy",)),
            *(_statement(Principal={"Service": "ec2.amazonaws.com"}), "cluster"),
        ),
    ),
    Mutation(
        "nodes may not take theirs",
        *(
            *("iam/Role", ("assumeRolePolicy",)),
            *(_statement(Principal={"Service": "eks.amazonaws.com"}), "nodes"),
        ),
    ),
    Mutation(
        "what brings secrets may not take its role",
        *(
            *("iam/Role", ("assumeRolePolicy",)),
            *(_statement(Principal={"Service": "ec2.amazonaws.com"}), "external-secrets"),
        ),
    ),
    Mutation(
        "nodes cannot ask EC2 who they are",
        *(
            *("iam/RolePolicyAttachment", ("policyArn",)),
            *(f"{AWS_OWN}AmazonEKSWorkerNodeMinimalPolicy", "nodes-AmazonEKS"),
        ),
    ),
    Mutation(
        "a driver's policy where there is none of its name",
        *(
            *("iam/RolePolicyAttachment", ("policyArn",)),
            *(f"{AWS_OWN}service-role/AmazonEBSCSIDriverPolicyV2", "aws-ebs-csi-driver"),
        ),
    ),
    Mutation(
        "pods may not take theirs",
        *("iam/Role", ("assumeRolePolicy",), _statement(Action="sts:AssumeRole"), "vpc-cni"),
    ),
]
# What AWS' and Kubernetes' own models have to refuse.
MISSPELT = [
    Mutation("no such AMI type", "eks/NodeGroup", ("amiType",), "AL2023_X86_64_STANDARD"),
    Mutation("no such purchase", "eks/NodeGroup", ("capacityType",), "ONDEMAND"),
    Mutation("no such log", "eks/Cluster", ("enabledClusterLogTypes",), _appended("kubelet")),
    Mutation(
        "no such login", "eks/Cluster", ("accessConfig", "authenticationMode"), "ACCESS_ENTRIES"
    ),
    Mutation("a cluster's name with a space", "eks/Cluster", ("name",), "slipway prod"),
    Mutation("no such mutability", "ecr/Repository", ("imageTagMutability",), "FIXED"),
    Mutation("a repository in capitals", "ecr/Repository", ("name",), "Slipway/Serving"),
    Mutation("no such status", "s3/BucketVersioning", ("versioningConfiguration", "status"), "On"),
    Mutation(
        "no such cipher",
        *(
            "s3/BucketServerSideEncryptionConfiguration",
            ("rules", 0, "applyServerSideEncryptionByDefault", "sseAlgorithm"),
            "aes-256",
        ),
    ),
    Mutation("a bucket's name in capitals", "s3/Bucket", ("bucket",), "Slipway-Bentos"),
    Mutation("no such endpoint", "ec2/VpcEndpoint", ("vpcEndpointType",), "Private", "sts"),
    Mutation("no such period", "budgets/Budget", ("timeUnit",), "MONTH"),
    Mutation("no such action", "iam/RolePolicy", ("policy",), _statement(Action=["s3:GetObjekt"])),
    Mutation("a policy that is no policy", "iam/RolePolicy", ("policy",), _statement(Effect="Yes")),
    Mutation("no such store", "ClusterSecretStore", (*STORE, "service"), "SecretManager"),
    Mutation("a store elsewhere", "ClusterSecretStore", ("spec", "provider"), {"vault": {}}),
    Mutation("no such owner", "ExternalSecret", ("spec", "target", "creationPolicy"), "Own"),
    Mutation("no such disk", "EC2NodeClass", (*EBS, "volumeType"), "gp4"),
    Mutation(
        "no such consolidation", "NodePool", ("spec", "disruption", "consolidationPolicy"), "Always"
    ),
    Mutation(
        "no such operator", "NodePool", (*PLAIN, "requirements"), _requirement(0, operator="Is")
    ),
    Mutation("no such effect", "NodePool", (*PLAIN, "taints", 0, "effect"), "NoScheduling"),
    Mutation("no such machine", "NodePool", (*PLAIN, "requirements"), _types("g6.3xlarge")),
    Mutation(
        "a security group with an apostrophe",
        *("ec2/SecurityGroup", ("description",), "The consoles' load balancer", "consoles"),
    ),
    Mutation(
        "a rule with a letter that EC2 does not take",
        *("vpc/SecurityGroupIngressRule", ("description",), "from the load balancer’s nodes"),
    ),
    Mutation("no such PostgreSQL", "rds/Instance", ("engineVersion",), "51"),
    Mutation("a backup of two months", "rds/Instance", ("backupRetentionPeriod",), 60),
    Mutation(
        "a template's disk of no kind",
        "ec2/LaunchTemplate",
        ("blockDeviceMappings", 0, "ebs", "volumeType"),
        "gp4",
    ),
]
# Of a stack that others read from.
SHARED = [
    Mutation(
        "everybody reads evidence",
        *("s3/BucketPolicy", ("policy",), _each_allowed(Principal="*"), "evidence"),
    ),
    Mutation(
        "another account may do all with evidence",
        *("s3/BucketPolicy", ("policy",), _each_allowed(Action=["s3:*"]), "evidence"),
    ),
    Mutation(
        "another account adds to any bucket",
        *(
            *("s3/BucketPolicy", ("policy",)),
            *(_each_allowed(Action=["s3:PutObject"], Resource="*"), "evidence"),
        ),
    ),
    Mutation(
        "another account reads by a right that is none",
        *("s3/BucketPolicy", ("policy",), _each_allowed(Action=["s3:GetObjekt"]), "evidence"),
    ),
    Mutation(
        "everybody decrypts",
        *("kms/Key", ("policy",), _each_allowed(Principal="*", Condition={}), "objects"),
    ),
]
MUTATIONS = [*EXPOSED, *UNENCRYPTED, *LOST, *POOLS, *UNFITTING, *MISSPELT]
