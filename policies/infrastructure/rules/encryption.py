"""What is stored is encrypted, and what leaves is."""

from __future__ import annotations

import json
from collections.abc import Iterator

from policies.infrastructure.limits import Limits
from policies.infrastructure.resources import UNKNOWN, Resource, Stack, at, each
from policies.infrastructure.rule import Rule, StackRule

BUCKETS = ("s3/Bucket", "s3/BucketV2")
ENCRYPTIONS = (
    "s3/BucketServerSideEncryptionConfiguration",
    "s3/BucketServerSideEncryptionConfigurationV2",
)
YES = (True, "true", UNKNOWN)
# What makes volumes of claims on AWS.
DRIVERS = ("ebs.csi.aws.com", "ebs.csi.eks.amazonaws.com", "kubernetes.io/aws-ebs")


def volumes_encrypted(resource: Resource, limits: Limits) -> Iterator[str]:
    """Disks and file systems are encrypted."""
    if resource.aws in ("ebs/Volume", "efs/FileSystem") and resource.get("encrypted") not in YES:
        yield "encrypted: true is missing"
    if resource.aws == "ec2/LaunchTemplate":
        yield from _disks(resource.get("blockDeviceMappings"), "blockDeviceMappings")
    if resource.kind == "EC2NodeClass":
        mappings = resource.get("spec", "blockDeviceMappings")
        yield from _disks(mappings, "spec.blockDeviceMappings")
        if mappings is None:
            yield "spec.blockDeviceMappings is missing: nodes get disks as the account has them"
    by_aws = resource.kind == "StorageClass" and resource.get("provisioner") in DRIVERS
    if by_aws and resource.get("parameters", "encrypted") not in YES:
        yield 'parameters.encrypted: "true" is missing'
    if resource.aws == "eks/Addon" and _makes_a_class(resource.get("configurationValues")):
        yield (
            "configurationValues.defaultStorageClass: its volumes are as the account has them; "
            "leave it out, and make a class with encrypted"
        )


def _makes_a_class(settings: object) -> bool:
    try:
        known = json.loads(settings) if isinstance(settings, str) else None
    except ValueError:
        return False
    return at(known, "defaultStorageClass", "enabled") is True


def _disks(mappings: object, where: str) -> Iterator[str]:
    for index, mapping in enumerate(each(mappings)):
        if at(mapping, "ebs") is not None and at(mapping, "ebs", "encrypted") not in YES:
            yield f"{where}[{index}].ebs.encrypted: true is missing"


def databases_encrypted(resource: Resource, limits: Limits) -> Iterator[str]:
    """Databases are encrypted."""
    if resource.aws in ("rds/Instance", "rds/Cluster"):
        # A replica and what comes from a snapshot have what their source has.
        inherited = resource.get("replicateSourceDb") or resource.get("snapshotIdentifier")
        if not inherited and resource.get("storageEncrypted") not in YES:
            yield "storageEncrypted: true is missing"


def buckets_encrypted(stack: Stack, limits: Limits) -> Iterator[tuple[Resource, str]]:
    """Buckets are encrypted with a key that the stack names."""
    for bucket in stack.on_aws(*BUCKETS):
        inline = at(bucket.get("serverSideEncryptionConfiguration"), "rule")
        found = [c.get("rules") for c in stack.naming(bucket, "bucket", *ENCRYPTIONS)]
        rules = [*found, *([] if inline is None else [[inline]])]
        if not rules:
            yield bucket, "no BucketServerSideEncryptionConfiguration names it"
        elif not any(_by_a_key(each_of) for each_of in rules):
            yield bucket, "kmsMasterKeyId is missing: AWS's own key is the whole account's"


def _by_a_key(rules: object) -> bool:
    named = [at(r, "applyServerSideEncryptionByDefault", "kmsMasterKeyId") for r in each(rules)]
    return rules is UNKNOWN or any(named)


def cluster_secrets_encrypted(resource: Resource, limits: Limits) -> Iterator[str]:
    """Secrets, in Kubernetes and in Secrets Manager, are encrypted with the stack's own key."""
    if resource.aws == "secretsmanager/Secret" and not resource.get("kmsKeyId"):
        yield "kmsKeyId is missing: AWS's own key is the whole account's"
    if resource.aws != "eks/Cluster":
        return
    found = resource.get("encryptionConfig")
    if found is UNKNOWN:
        return
    if "secrets" not in each(at(found, "resources")):
        yield "encryptionConfig.resources: [secrets] is missing"
    if not at(found, "provider", "keyArn"):
        yield "encryptionConfig.provider.keyArn is missing"


def keys_rotate(resource: Resource, limits: Limits) -> Iterator[str]:
    """Encryption keys are rotated every year."""
    # AWS rotates symmetric keys alone.
    symmetric = resource.get("customerMasterKeySpec") in (None, "SYMMETRIC_DEFAULT")
    if resource.aws == "kms/Key" and symmetric and resource.get("enableKeyRotation") not in YES:
        yield "enableKeyRotation: true is missing"


def queues_encrypted(resource: Resource, limits: Limits) -> Iterator[str]:
    """Queues and topics are encrypted."""
    if resource.aws == "sqs/Queue":
        managed = resource.get("sqsManagedSseEnabled") in YES
        if not managed and not resource.get("kmsMasterKeyId"):
            yield "sqsManagedSseEnabled: true, or kmsMasterKeyId, is missing"
    if resource.aws == "sns/Topic" and not resource.get("kmsMasterKeyId"):
        yield "kmsMasterKeyId is missing"


def listeners_encrypted(resource: Resource, limits: Limits) -> Iterator[str]:
    """Connections from outside use TLS; plain HTTP only redirects."""
    if resource.aws not in ("lb/Listener", "alb/Listener"):
        return
    if resource.get("protocol") in ("HTTPS", "TLS", UNKNOWN):
        return
    for action in each(resource.get("defaultActions")):
        if at(action, "redirect", "protocol") != "HTTPS":
            yield f"protocol {resource.get('protocol')}: use HTTPS or TLS, or redirect to it"


RULES = (
    Rule(volumes_encrypted),
    Rule(databases_encrypted),
    StackRule(buckets_encrypted),
    Rule(cluster_secrets_encrypted),
    Rule(keys_rotate),
    Rule(queues_encrypted),
    Rule(listeners_encrypted),
)
