"""What may fail and what cannot be lost. How much of it is asked is each environment's."""

from __future__ import annotations

from collections.abc import Iterator

from policies.infrastructure.limits import Limits
from policies.infrastructure.resources import UNKNOWN, Resource, Stack, at, each
from policies.infrastructure.rule import Rule, StackRule
from policies.infrastructure.rules.encryption import BUCKETS, YES


def databases_multi_az(resource: Resource, limits: Limits) -> Iterator[str]:
    """A database survives the loss of a zone."""
    asked = limits.durability.zones > 1 and not resource.get("replicateSourceDb")
    if resource.aws == "rds/Instance" and asked and resource.get("multiAz") not in YES:
        yield "multiAz: true is missing"


def databases_backed_up(resource: Resource, limits: Limits) -> Iterator[str]:
    """A database can be restored."""
    if resource.aws not in ("rds/Instance", "rds/Cluster"):
        return
    kept, least = resource.get("backupRetentionPeriod"), limits.durability.backup_days
    if kept is not UNKNOWN and (kept or 0) < least:
        yield f"backupRetentionPeriod: {int(kept or 0)} days, at least {least}"


def deletion_protected(resource: Resource, limits: Limits) -> Iterator[str]:
    """What holds data or traffic is not deleted by one command."""
    asked = {
        "rds/Instance": "deletionProtection",
        "rds/Cluster": "deletionProtection",
        "eks/Cluster": "deletionProtection",
        "lb/LoadBalancer": "enableDeletionProtection",
        "alb/LoadBalancer": "enableDeletionProtection",
    }.get(resource.aws)
    if asked and resource.get(asked) not in YES:
        yield f"{asked}: true is missing"
    if resource.aws.startswith("rds/") and resource.get("skipFinalSnapshot") is True:
        yield "skipFinalSnapshot: true; leave it out and name finalSnapshotIdentifier"
    emptied = {"ecr/Repository": "forceDelete"}.get(resource.aws)
    emptied = "forceDestroy" if resource.aws in BUCKETS else emptied
    if emptied and resource.get(emptied) is True:
        yield f"{emptied}: true deletes what is in it; leave it out"
    if resource.aws == "secretsmanager/Secret" and resource.get("recoveryWindowInDays") == 0:
        yield "recoveryWindowInDays: 0 deletes at once; leave it out"


def buckets_versioned(stack: Stack, limits: Limits) -> Iterator[tuple[Resource, str]]:
    """Overwritten objects are kept."""
    what = ("s3/BucketVersioning", "s3/BucketVersioningV2")
    for bucket in stack.on_aws(*BUCKETS):
        found = [
            at(v.get("versioningConfiguration"), "status")
            for v in stack.naming(bucket, "bucket", *what)
        ]
        inline = bucket.get("versioning", "enabled") is True
        if not inline and not any(status in ("Enabled", UNKNOWN) for status in found):
            yield bucket, "no BucketVersioning with status: Enabled names it"


def images_immutable(resource: Resource, limits: Limits) -> Iterator[str]:
    """A tag in a registry always means the same image, which is scanned when pushed."""
    if resource.aws != "ecr/Repository":
        return
    if resource.get("imageTagMutability") not in ("IMMUTABLE", UNKNOWN):
        yield "imageTagMutability: IMMUTABLE is missing"
    if resource.get("imageScanningConfiguration", "scanOnPush") not in YES:
        yield "imageScanningConfiguration.scanOnPush: true is missing"


def zones_enough(stack: Stack, limits: Limits) -> Iterator[tuple[Resource, str]]:
    """A network spans several zones, each with its own NAT gateway where that is required."""
    asked = limits.durability.zones
    networks = list(stack.on_aws("ec2/Vpc"))
    for network in networks:
        subnets = [s for s in stack.on_aws("ec2/Subnet") if s.names("vpcId", network)]
        zones = [s.get("availabilityZone") or s.get("availabilityZoneId") for s in subnets]
        if UNKNOWN not in zones and len(set(zones)) < asked:
            yield network, f"subnets in {len(set(zones))} zones, at least {asked}"
    gateways, ways = list(stack.on_aws("ec2/NatGateway")), limits.durability.ways_out
    if gateways and len(gateways) < ways * len(networks):
        said = f"{len(gateways)} NAT gateways, at least {ways}: a zone's failure is not another's"
        yield gateways[0], said


def logs_kept(resource: Resource, limits: Limits) -> Iterator[str]:
    """The control plane logs who did what, and logs expire."""
    if resource.aws == "eks/Cluster":
        types = resource.get("enabledClusterLogTypes")
        for name in ("api", "audit", "authenticator"):
            if types is not UNKNOWN and name not in each(types):
                yield f"enabledClusterLogTypes: {name} is missing"
    if resource.aws == "cloudwatch/LogGroup" and not resource.get("retentionInDays"):
        yield "retentionInDays is missing: without it logs are kept, and billed, for ever"


RULES = (
    Rule(databases_multi_az),
    Rule(databases_backed_up),
    Rule(deletion_protected),
    StackRule(buckets_versioned),
    Rule(images_immutable),
    StackRule(zones_enough),
    Rule(logs_kept),
)
