"""RDS: the PostgreSQL server, in two zones where production is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
from pulumi_aws.cloudwatch.log_group import LogGroup
from pulumi_aws.ec2.security_group import SecurityGroup
from pulumi_aws.rds.instance import Instance
from pulumi_aws.rds.parameter_group import ParameterGroup
from pulumi_aws.rds.subnet_group import SubnetGroup
from pulumi_aws.vpc.security_group_ingress_rule import SecurityGroupIngressRule

from infra.aws.component import AwsComponent, Context
from infra.aws.config import Database as Settings
from infra.platform.random_password import RandomPassword

# The major version that the platform's own image has; RDS picks and upgrades the minor one.
VERSION = "15"
PORT = 5432
LOGS = ["postgresql", "upgrade"]
# RDS lets the disk become as many times larger, by itself.
GROWTH = 4


@dataclass(frozen=True)
class DatabaseArgs:
    context: Context
    settings: Settings
    vpc_id: pulumi.Input[str]
    subnets: Sequence[pulumi.Input[str]]
    """Isolated ones, one a zone."""
    clients: pulumi.Input[str]
    """Security group of nodes and pods."""


class Database(AwsComponent):
    """`host`, and the `password` of the user `postgres`, who may make databases and roles."""

    host: pulumi.Output[str]
    password: pulumi.Output[str]

    def __init__(
        self, name: str, args: DatabaseArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("Database", name, args.context, opts)
        context = args.context
        self.password = RandomPassword("database", opts=self.child()).result
        key = self.key("database", f"Database of {context.name}", self.lasting())
        subnets = SubnetGroup(
            "database",
            name=context.name,
            subnet_ids=list(args.subnets),
            tags=context.tagged("database"),
            opts=self.child(),
        )
        # RDS would make them by itself, keep them for ever, and leave them behind.
        logs = [
            LogGroup(
                f"database-{log}",
                name=f"/aws/rds/instance/{context.name}/{log}",
                retention_in_days=365 if context.protected else 30,
                tags=context.tagged("database"),
                opts=self.child(),
            )
            for log in LOGS
        ]
        server = Instance(
            "database",
            identifier=context.name,
            engine="postgres",
            engine_version=VERSION,
            instance_class=args.settings.type,
            allocated_storage=args.settings.storageGiB,
            max_allocated_storage=args.settings.storageGiB * GROWTH,
            storage_type="gp3",
            storage_encrypted=True,
            kms_key_id=key.arn,
            username="postgres",
            password=self.password,
            port=PORT,
            db_subnet_group_name=subnets.name,
            vpc_security_group_ids=[self._access(args)],
            parameter_group_name=self._parameters(),
            publicly_accessible=False,
            multi_az=context.protected,
            backup_retention_period=args.settings.backupDays,
            backup_window="02:00-03:00",
            maintenance_window="sun:03:30-sun:04:30",
            copy_tags_to_snapshot=True,
            deletion_protection=context.kept,
            delete_automated_backups=not context.protected,
            skip_final_snapshot=not context.protected,
            final_snapshot_identifier=f"{context.name}-final" if context.protected else None,
            auto_minor_version_upgrade=True,
            performance_insights_enabled=True,
            performance_insights_kms_key_id=key.arn,
            enabled_cloudwatch_logs_exports=LOGS,
            tags=context.tagged("database"),
            opts=self.lasting(*logs),
        )
        self.host = server.address
        self.register_outputs({"host": self.host})

    def _access(self, args: DatabaseArgs) -> pulumi.Output[str]:
        tags = self.context.tagged("database")
        group = SecurityGroup(
            "database",
            vpc_id=args.vpc_id,
            description="PostgreSQL, from nodes and pods",
            tags=tags,
            opts=self.child(),
        )
        SecurityGroupIngressRule(
            "database",
            security_group_id=group.id,
            description="Nodes and pods",
            referenced_security_group_id=args.clients,
            ip_protocol="tcp",
            from_port=PORT,
            to_port=PORT,
            tags=tags,
            opts=self.child(),
        )
        return group.id

    def _parameters(self) -> pulumi.Output[str]:
        return ParameterGroup(
            "database",
            name=self.context.name,
            family=f"postgres{VERSION}",
            parameters=[{"name": "rds.force_ssl", "value": "1"}],
            tags=self.context.tagged("database"),
            opts=self.child(),
        ).name
