"""What a stack left behind: what its tags are on, or the cluster made, and no state knows.

On AWS tags tell, by the Resource Groups Tagging API of the stack's region. It knows no roles, nor
the log group that EKS makes anew, without tags, when it writes its last lines: those are looked up
by their names, which the next update needs. Budgets and DNS records, which cost nothing, are not
looked for. On the embedded cluster the machine tells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from slipway import aws, cluster, cost, paths, pulumi
from slipway.aws import Client
from slipway.errors import BadInput

if TYPE_CHECKING:
    from infra.config import StackConfig
    from slipway.cost import Prices

STACK_TAG = "slipway:stack"
# What the cluster's own controllers, and EKS, put on what they make.
OF_CLUSTER = ("kubernetes.io/cluster/", "eks:cluster-name", "elbv2.k8s.aws/cluster")
# As many values as one filter of a call has room for.
VALUES = 100
Details = Mapping[str, Any]


@dataclass(frozen=True)
class Leftover:
    """One thing that is still there. `monthly` is what it costs, None where no price is known."""

    kind: str
    id: str
    why: str
    fix: str
    monthly: float | None = None


@dataclass(frozen=True)
class Kind:
    """A kind of thing on AWS, and the commands that remove one."""

    name: str
    fix: str


# By service and type as in ARNs, in the order in which they can be removed.
KINDS = {
    ("ec2", "instance"): Kind("machine", "aws ec2 terminate-instances --instance-ids {id}"),
    ("eks", "nodegroup"): Kind(
        "node group",
        "aws eks delete-nodegroup --cluster-name {parts[0]} --nodegroup-name {parts[1]}",
    ),
    ("eks", "cluster"): Kind("cluster", "aws eks delete-cluster --name {id}"),
    ("elasticloadbalancing", "loadbalancer"): Kind(
        "load balancer", "aws elbv2 delete-load-balancer --load-balancer-arn {arn}"
    ),
    ("elasticloadbalancing", "classic"): Kind(
        "load balancer", "aws elb delete-load-balancer --load-balancer-name {id}"
    ),
    ("elasticloadbalancing", "targetgroup"): Kind(
        "target group", "aws elbv2 delete-target-group --target-group-arn {arn}"
    ),
    ("ec2", "natgateway"): Kind("NAT gateway", "aws ec2 delete-nat-gateway --nat-gateway-id {id}"),
    ("ec2", "vpc-endpoint"): Kind(
        "VPC endpoint", "aws ec2 delete-vpc-endpoints --vpc-endpoint-ids {id}"
    ),
    ("rds", "db"): Kind(
        "database",
        "aws rds delete-db-instance --db-instance-identifier {id} "
        "--final-db-snapshot-identifier {id}-last",
    ),
    ("ec2", "network-interface"): Kind(
        "network interface", "aws ec2 delete-network-interface --network-interface-id {id}"
    ),
    ("ec2", "elastic-ip"): Kind("address", "aws ec2 release-address --allocation-id {id}"),
    ("ec2", "volume"): Kind("volume", "aws ec2 delete-volume --volume-id {id}"),
    ("ec2", "snapshot"): Kind("snapshot", "aws ec2 delete-snapshot --snapshot-id {id}"),
    ("rds", "snapshot"): Kind(
        "database snapshot", "aws rds delete-db-snapshot --db-snapshot-identifier {id}"
    ),
    ("rds", "subgrp"): Kind(
        "database's subnets", "aws rds delete-db-subnet-group --db-subnet-group-name {id}"
    ),
    ("rds", "pg"): Kind(
        "database's parameters",
        "aws rds delete-db-parameter-group --db-parameter-group-name {id}",
    ),
    ("s3", ""): Kind(
        "bucket",
        "aws s3api delete-bucket --bucket {id}  # once it is empty: of every version, too",
    ),
    ("ecr", "repository"): Kind(
        "image repository", "aws ecr delete-repository --repository-name {id} --force"
    ),
    ("sqs", ""): Kind(
        "queue",
        "aws sqs delete-queue --queue-url https://sqs.{region}.amazonaws.com/{account}/{id}",
    ),
    ("events", "rule"): Kind(
        "event rule", "aws events delete-rule --name {id}  # once it has no targets"
    ),
    ("logs", "log-group"): Kind("log group", "aws logs delete-log-group --log-group-name {id}"),
    ("iam", "role"): Kind(
        "role", "aws iam delete-role --role-name {id}  # once no policy is in it or attached to it"
    ),
    ("acm", "certificate"): Kind(
        "certificate", "aws acm delete-certificate --certificate-arn {arn}"
    ),
    ("ec2", "launch-template"): Kind(
        "launch template", "aws ec2 delete-launch-template --launch-template-id {id}"
    ),
    ("ec2", "vpc-flow-log"): Kind("flow log", "aws ec2 delete-flow-logs --flow-log-ids {id}"),
    ("ec2", "security-group"): Kind(
        "security group", "aws ec2 delete-security-group --group-id {id}"
    ),
    ("ec2", "subnet"): Kind("subnet", "aws ec2 delete-subnet --subnet-id {id}"),
    ("ec2", "route-table"): Kind("route table", "aws ec2 delete-route-table --route-table-id {id}"),
    ("ec2", "internet-gateway"): Kind(
        "internet gateway",
        "aws ec2 delete-internet-gateway --internet-gateway-id {id}  # once it is detached",
    ),
    ("ec2", "vpc"): Kind("VPC", "aws ec2 delete-vpc --vpc-id {id}"),
    ("secretsmanager", "secret"): Kind(
        "secret",
        "aws secretsmanager delete-secret --secret-id {arn} --force-delete-without-recovery",
    ),
    ("kms", "key"): Kind(
        "key", "aws kms schedule-key-deletion --key-id {id} --pending-window-in-days 7"
    ),
}
# These go with what they belong to.
WITHIN = {
    *(("elasticloadbalancing", "listener"), ("elasticloadbalancing", "listener-rule")),
    *(("eks", "addon"), ("eks", "access-entry"), ("eks", "podidentityassociation")),
    *(("ec2", "security-group-rule"), ("ec2", "network-acl")),
}
# The calls that tell what one is, by their paginator: filter, where the answer is, its id.
CALLS = {
    "machine": ("describe_instances", "instance-id", "Reservations[].Instances[]", "InstanceId"),
    "volume": ("describe_volumes", "volume-id", "Volumes[]", "VolumeId"),
    "network interface": (
        *("describe_network_interfaces", "network-interface-id", "NetworkInterfaces[]"),
        "NetworkInterfaceId",
    ),
    "NAT gateway": ("describe_nat_gateways", "nat-gateway-id", "NatGateways[]", "NatGatewayId"),
    "VPC endpoint": (
        *("describe_vpc_endpoints", "vpc-endpoint-id", "VpcEndpoints[]", "VpcEndpointId"),
    ),
}
# Named by tags for an hour or so after they have gone.
UNKNOWN = {"DBInstanceNotFound", "NotFoundException", "ResourceNotFoundException"}
GONE = {"terminated", "deleted", "deleting", "PendingDeletion"}


@dataclass
class Thing:
    """Something on AWS that is tagged as the stack's, or that its cluster made."""

    arn: str
    tags: Mapping[str, str]
    why: str
    details: dict[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        _, _, self.service, self.region, self.account, rest = self.arn.split(":", 5)
        head, separator, tail = rest.partition("/") if "/" in rest else rest.partition(":")
        if self.service in ("logs", "secretsmanager"):  # whose names have slashes themselves
            head, separator, tail = rest.partition(":")
        self.type, self.id = (head, tail.removesuffix(":*")) if separator else ("", head)
        if (self.service, self.type) == ("elasticloadbalancing", "loadbalancer"):
            self.type = self.type if "/" in self.id else "classic"

    @property
    def kind(self) -> Kind:
        """What it is; of what is not known here, the ARN's own words."""
        unknown = Kind(f"{self.service} {self.type}".strip(), "see AWS's console: {arn}")
        return KINDS.get((self.service, self.type), unknown)

    @property
    def place(self) -> int:
        """When it can be removed, beside others."""
        known = list(KINDS)
        here = (self.service, self.type)
        return known.index(here) if here in KINDS else len(known)

    @property
    def gone(self) -> bool:
        """Whether it is gone or going, or goes with the machine that it is attached to."""
        state = self.details.get("State") or self.details.get("KeyState")
        name = state.get("Name") if isinstance(state, dict) else state
        attached = [*self.details.get("Attachments", []), self.details.get("Attachment") or {}]
        return name in GONE or any(a.get("DeleteOnTermination") for a in attached)

    def leftover(self, table: Prices) -> Leftover:
        command = self.kind.fix.format(
            id=self.id,
            arn=self.arn,
            region=self.region,
            account=self.account,
            parts=self.id.split("/"),
        )
        command, comment, note = command.partition("  # ")
        if command.startswith("aws ") and self.region:
            command += f" --region {self.region}"
        return Leftover(
            self.kind.name, self.id, self.why, f"{command}{comment}{note}", self._monthly(table)
        )

    def _monthly(self, table: Prices) -> float | None:
        hours, hourly, known = table.hours_a_month, table.hourly, self.details
        match self.kind.name:
            case "machine":
                price = table.machines.get(known.get("InstanceType", ""))
                return price * hours if price else None
            case "volume":
                return known["Size"] * table.monthly.disk_gib if "Size" in known else None
            case "NAT gateway":
                return hourly.nat_gateway * hours
            case "address":
                return hourly.public_address * hours
            case "load balancer":
                return hourly.load_balancer * hours
            case "cluster":
                return hourly.cluster * hours
            case "VPC endpoint":
                if known.get("VpcEndpointType") == "Gateway":
                    return 0.0
                return max(1, len(known.get("SubnetIds", []))) * hourly.interface_endpoint * hours
            case "database":
                price = table.databases.get(known.get("DBInstanceClass", ""))
                copies = 2 if known.get("MultiAZ") else 1
                disk = known.get("AllocatedStorage", 0) * table.monthly.database_gib
                return copies * (price * hours + disk) if price else None
            case _:
                return None


def of_stack(stack: str) -> list[Leftover]:
    """What a stack left behind, in the order in which it can be removed.

    Raises:
        BadInput: no such stack, its file is wrong, or its cluster is none that Slipway makes.
        SlipwayError: AWS does not answer.
    """
    config = _config(stack)
    if config.cluster == "eks":
        return on_aws(config, stack, aws.clients(config), cost.prices())
    if config.cluster != "simulated" and not pulumi.is_embedded(stack):
        raise BadInput(
            f"the cluster of stack {stack} is none that Slipway makes",
            file=paths.stack_file(stack),
            field="slipway:cluster",
            fix="kubectl tells what is on it",
        )
    return here()


def _config(stack: str) -> StackConfig:
    pulumi.is_embedded(stack)  # says which stacks there are
    file = paths.stack_file(stack)
    return cost.stack_config(file.read_bytes(), stack)


def here() -> list[Leftover]:
    """What a stopped embedded cluster, or a removed volume, left on this machine."""
    return [
        Leftover(kind, id, "the embedded cluster's, which does not run", "slipway down")
        for kind, ids in (cluster.remains() if not cluster.running() else {}).items()
        for id in ids
    ] + [
        Leftover("volume", str(folder), "no cluster has a volume there", f"rm -r '{folder}'")
        for folder in cluster.lost_volumes()
    ]


# --- on AWS -----------------------------------------------------------------------------------


def on_aws(config: StackConfig, stack: str, client: Client, table: Prices) -> list[Leftover]:
    """What of a stack is there on AWS, and in no state on this machine.

    Args:
        client: boto3's, by the service's name, in the stack's account and region.

    Raises:
        SlipwayError: AWS does not answer.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    assert config.aws  # noqa: S101  # on AWS it has one
    kept = pulumi.known(stack)
    name = f"slipway-{stack}"
    try:
        things = {t.arn: t for t in _tagged(client, {STACK_TAG: stack}, f"{STACK_TAG}={stack}")}
        made = f"made by the cluster {name}"
        for tag, value in ((f"kubernetes.io/cluster/{name}", "owned"), (OF_CLUSTER[2], name)):
            for thing in _tagged(client, {tag: value}, made):
                things.setdefault(thing.arn, thing)
        for id in aws.teardown().leftovers(name, client):
            arn = _arn(id, config.aws.region, config.aws.account)
            things.setdefault(arn, Thing(arn, {OF_CLUSTER[0]: name}, made))
        for thing in _named(client, name, stack, config.aws.region, config.aws.account):
            things.setdefault(thing.arn, thing)
        if "aws:eks/cluster:Cluster" in kept.types:  # it is there, and so is what it needs
            things = {a: t for a, t in things.items() if not _of_cluster(t)}
        found = [t for t in things.values() if not ({t.arn, t.id} & kept.ids)]
        found = [t for t in found if (t.service, t.type) not in WITHIN]
        _look(found, client)
    except (BotoCoreError, ClientError) as error:
        raise aws.unanswered(error) from None
    left = sorted((t for t in found if not t.gone), key=lambda t: (t.place, t.id))
    return [thing.leftover(table) for thing in left]


def _of_cluster(thing: Thing) -> bool:
    return any(tag.startswith(OF_CLUSTER) for tag in thing.tags)


def _arn(id: str, region: str, account: str) -> str:
    """Of what EC2 names by an id; of anything else the id is one already."""
    if id.startswith("arn:"):
        return id
    types = {"i": "instance", "vol": "volume", "eni": "network-interface"}
    return f"arn:aws:ec2:{region}:{account}:{types[id.partition('-')[0]]}/{id}"


def _tagged(client: Client, tags: Mapping[str, str], why: str) -> Iterator[Thing]:
    filters = [{"Key": key, "Values": [value]} for key, value in tags.items()]
    pages = client("resourcegroupstaggingapi").get_paginator("get_resources")
    for page in pages.paginate(TagFilters=filters):
        for found in page["ResourceTagMappingList"]:
            given = {tag["Key"]: tag["Value"] for tag in found.get("Tags", [])}
            yield Thing(found["ResourceARN"], given, why)


def _named(client: Client, name: str, stack: str, region: str, account: str) -> Iterator[Thing]:
    """What no tag tells, and the next update would make under the same name."""
    group = f"/aws/eks/{name}/cluster"
    pages = client("logs").get_paginator("describe_log_groups")
    for page in pages.paginate(logGroupNamePrefix=group):
        if group in (found["logGroupName"] for found in page["logGroups"]):
            arn = f"arn:aws:logs:{region}:{account}:log-group:{group}"
            yield Thing(arn, {}, f"made by the cluster {name}")
    iam = client("iam")
    for page in iam.get_paginator("list_roles").paginate():
        for role in page["Roles"]:
            # Another stack's name may begin with this one's.
            if role["RoleName"].startswith(f"{name}-") and _is_of(iam, role["RoleName"], stack):
                yield Thing(role["Arn"], {STACK_TAG: stack}, f"{STACK_TAG}={stack}")


def _is_of(iam: Any, role: str, stack: str) -> bool:
    tags = iam.list_role_tags(RoleName=role)["Tags"]
    return {"Key": STACK_TAG, "Value": stack} in tags


def _look(found: Sequence[Thing], client: Client) -> None:
    """Asks AWS what they are: tags stay for a while where nothing is any more."""
    from botocore.exceptions import ClientError

    for kind, (call, wanted, path, name) in CALLS.items():
        things = {thing.id: thing for thing in found if thing.kind.name == kind}
        ids = list(things)
        for start in range(0, len(ids), VALUES):
            filters = [{"Name": wanted, "Values": ids[start : start + VALUES]}]
            word = "Filter" if kind == "NAT gateway" else "Filters"
            pages = client("ec2").get_paginator(call).paginate(**{word: filters})
            for answer in pages.search(path):
                things[answer[name]].details.update(answer)
        for thing in things.values():
            if not thing.details:
                thing.details["State"] = "deleted"
    for thing in found:
        try:
            _look_at(thing, client)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") not in UNKNOWN:
                raise
            thing.details["State"] = "deleted"


def _look_at(thing: Thing, client: Client) -> None:
    """The same of what only a call of its own tells."""
    match thing.kind.name:
        case "key":
            thing.details.update(client("kms").describe_key(KeyId=thing.id)["KeyMetadata"])
        case "secret":
            # It can be brought back for a while, and costs nothing until then.
            if client("secretsmanager").describe_secret(SecretId=thing.arn).get("DeletedDate"):
                thing.details["State"] = "deleted"
        case "database":
            answer = client("rds").describe_db_instances(DBInstanceIdentifier=thing.arn)
            thing.details.update(answer["DBInstances"][0])
        case _:
            pass
