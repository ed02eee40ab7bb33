"""The VPC: three zones, nodes without public addresses, AWS's services by private ways."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_aws.cloudwatch.log_group import LogGroup
from pulumi_aws.ec2.default_security_group import DefaultSecurityGroup
from pulumi_aws.ec2.eip import Eip
from pulumi_aws.ec2.flow_log import FlowLog
from pulumi_aws.ec2.internet_gateway import InternetGateway
from pulumi_aws.ec2.nat_gateway import NatGateway
from pulumi_aws.ec2.route import Route
from pulumi_aws.ec2.route_table import RouteTable
from pulumi_aws.ec2.route_table_association import RouteTableAssociation
from pulumi_aws.ec2.security_group import SecurityGroup
from pulumi_aws.ec2.subnet import Subnet
from pulumi_aws.ec2.vpc import Vpc
from pulumi_aws.ec2.vpc_endpoint import VpcEndpoint
from pulumi_aws.iam.role import Role
from pulumi_aws.iam.role_policy import RolePolicy
from pulumi_aws.vpc.security_group_ingress_rule import SecurityGroupIngressRule

from infra.aws.component import AwsComponent, Context
from infra.aws.config import Network as Settings
from infra.aws.policy import Statement, document, trust

# What nodes and pods call all the time: images, and who they are. By NAT it would cost by the byte.
ENDPOINTS = ["ecr.api", "ecr.dkr", "sts", "eks-auth", "sqs", "logs"]
DISCOVERY = "karpenter.sh/discovery"
ANYWHERE = "0.0.0.0/0"


@dataclass(frozen=True)
class NetworkArgs:
    context: Context
    settings: Settings


class Network(AwsComponent):
    """`vpc_id`, and the ids of the `private`, `public` and `isolated` subnets, a zone each.

    `ways`: routes and endpoints, without which nodes do not join, nor say that they are leaving,
    and AWS makes no load balancer that the internet reaches.
    """

    vpc_id: pulumi.Output[str]
    private: list[pulumi.Output[str]]
    public: list[pulumi.Output[str]]
    isolated: list[pulumi.Output[str]]
    ways: list[pulumi.Resource]

    def __init__(
        self, name: str, args: NetworkArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("Network", name, args.context, opts)
        self._settings = args.settings
        self._vpc = Vpc(
            "vpc",
            cidr_block=args.settings.cidr,
            enable_dns_hostnames=True,
            enable_dns_support=True,
            tags=args.context.tagged("vpc"),
            opts=self.child(),
        )
        self.vpc_id = self._vpc.id
        DefaultSecurityGroup(
            "default",
            vpc_id=self.vpc_id,
            # Without rules: what names no group of its own reaches nothing.
            tags=args.context.tagged("default-unused"),
            opts=self.child(),
        )
        public = self._subnets("public", args.settings.public, {"kubernetes.io/role/elb": "1"})
        private = self._subnets(
            "private",
            args.settings.private,
            {"kubernetes.io/role/internal-elb": "1", DISCOVERY: args.context.name},
        )
        isolated = self._subnets("isolated", args.settings.isolated, {})
        self.public, self.private, self.isolated = (
            [subnet.id for subnet in group] for group in (public, private, isolated)
        )
        self.ways = []
        tables = self._ways_out(public, private)
        self._endpoints(private, tables)
        self._flow_log()
        self.register_outputs({"vpc_id": self.vpc_id, "private": self.private})

    def _subnets(self, kind: str, blocks: list[str], tags: dict[str, str]) -> list[Subnet]:
        return [
            Subnet(
                f"{kind}-{zone[-1]}",
                vpc_id=self.vpc_id,
                availability_zone=zone,
                cidr_block=block,
                map_public_ip_on_launch=False,
                tags=self.context.tagged(f"{kind}-{zone[-1]}", **tags),
                opts=self.child(),
            )
            for zone, block in zip(self._settings.zones, blocks, strict=True)
        ]

    def _table(self, name: str) -> RouteTable:
        tags = self.context.tagged(name)
        return RouteTable(name, vpc_id=self.vpc_id, tags=tags, opts=self.child())

    def _join(self, name: str, table: RouteTable, subnet: Subnet) -> RouteTableAssociation:
        joined = RouteTableAssociation(
            name, route_table_id=table.id, subnet_id=subnet.id, opts=self.child()
        )
        self.ways.append(joined)
        return joined

    def _ways_out(self, public: list[Subnet], private: list[Subnet]) -> list[RouteTable]:
        """The private route tables: to the internet through NAT, one a zone or one for all."""
        gateway = InternetGateway(
            "internet",
            vpc_id=self.vpc_id,
            tags=self.context.tagged("internet"),
            opts=self.child(),
        )
        table = self._table("public")
        out = Route(
            "public-out",
            route_table_id=table.id,
            destination_cidr_block=ANYWHERE,
            gateway_id=gateway.id,
            opts=self.child(),
        )
        self.ways.append(out)
        joined = [self._join(f"public-{i}", table, subnet) for i, subnet in enumerate(public)]
        ways = public if self._settings.nat == "zone" else public[:1]
        gateways = [
            NatGateway(
                f"nat-{i}",
                allocation_id=Eip(
                    f"nat-{i}",
                    domain="vpc",
                    tags=self.context.tagged(f"nat-{i}"),
                    opts=self.child(gateway),
                ).id,
                subnet_id=subnet.id,
                tags=self.context.tagged(f"nat-{i}"),
                opts=self.child(out, *joined),
            )
            for i, subnet in enumerate(ways)
        ]
        tables: list[RouteTable] = []
        for i, subnet in enumerate(private):
            own = self._table(f"private-{i}")
            out = Route(
                f"private-{i}-out",
                route_table_id=own.id,
                destination_cidr_block=ANYWHERE,
                nat_gateway_id=gateways[i % len(gateways)].id,
                opts=self.child(),
            )
            self.ways.append(out)
            self._join(f"private-{i}", own, subnet)
            tables.append(own)
        return tables

    def _endpoints(self, private: list[Subnet], tables: list[RouteTable]) -> None:
        def service(name: str) -> str:
            return f"com.amazonaws.{self.context.region}.{name}"

        gateway = VpcEndpoint(
            "s3",
            vpc_id=self.vpc_id,
            service_name=service("s3"),
            vpc_endpoint_type="Gateway",
            route_table_ids=[table.id for table in tables],
            tags=self.context.tagged("s3"),
            opts=self.child(),
        )
        group = SecurityGroup(
            "endpoints",
            vpc_id=self.vpc_id,
            description="AWS services by private addresses",
            tags=self.context.tagged("endpoints"),
            opts=self.child(),
        )
        access = SecurityGroupIngressRule(
            "endpoints",
            security_group_id=group.id,
            description="Nodes and pods",
            cidr_ipv4=self._settings.cidr,
            ip_protocol="tcp",
            from_port=443,
            to_port=443,
            tags=self.context.tagged("endpoints"),
            opts=self.child(),
        )
        interfaces = [
            VpcEndpoint(
                name,
                vpc_id=self.vpc_id,
                service_name=service(name),
                vpc_endpoint_type="Interface",
                private_dns_enabled=True,
                subnet_ids=[subnet.id for subnet in private],
                security_group_ids=[group.id],
                tags=self.context.tagged(name),
                opts=self.child(),
            )
            for name in ENDPOINTS
        ]
        self.ways += [gateway, access, *interfaces]

    def _flow_log(self) -> None:
        """Connections that were refused: what an incident is understood by."""
        group = LogGroup(
            "flows",
            name=f"/slipway/{self.context.name}/flows",
            retention_in_days=30,
            tags=self.context.tagged("flows"),
            opts=self.child(),
        )
        role = Role(
            "flows",
            name=f"{self.context.name}-flows",
            assume_role_policy=trust("vpc-flow-logs.amazonaws.com"),
            tags=self.context.tagged("flows"),
            opts=self.child(),
        )
        write = Statement(
            "WriteFlows",
            ["logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"],
            [pulumi.Output.concat(group.arn, ":*")],
        )
        look = Statement(
            "FindGroup",
            ["logs:DescribeLogGroups"],
            ["*"],
            reason="CloudWatch lists groups of the whole account only",
        )
        policy = RolePolicy(
            "flows", role=role.id, policy=document([write, look]), opts=self.child()
        )
        FlowLog(
            "flows",
            vpc_id=self.vpc_id,
            traffic_type="REJECT",
            log_destination=group.arn,
            iam_role_arn=role.arn,
            tags=self.context.tagged("flows"),
            opts=self.child(policy),
        )
