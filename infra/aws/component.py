"""What every component on AWS has in common: names, tags, and the order in which it goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
from pulumi_aws.eks.pod_identity_association import PodIdentityAssociation
from pulumi_aws.iam.role import Role
from pulumi_aws.iam.role_policy import RolePolicy
from pulumi_aws.kms.alias import Alias
from pulumi_aws.kms.key import Key

from infra.aws.policy import POD_IDENTITY, Statement, document, trust
from infra.platform.component import Component


@dataclass(frozen=True)
class Context:
    """The stack that a component belongs to."""

    name: str
    """Of the cluster, and the beginning of every other name, e.g. slipway-prod."""
    account: str
    region: str
    tags: Mapping[str, str]
    protected: bool
    """Production: more copies, and logs and old versions for longer."""
    kept: bool
    """Nothing that holds data or traffic is deleted by mistake."""

    def tagged(self, name: str, **more: str) -> dict[str, str]:
        """The stack's tags, and the name that AWS's console shows."""
        return {**self.tags, "Name": f"{self.name}-{name}", **more}

    def arn(self, service: str, resource: str) -> str:
        """ARN of something in this account and region."""
        return f"arn:aws:{service}:{self.region}:{self.account}:{resource}"


class AwsComponent(Component):
    """A component resource of the package `slipway:aws`."""

    package = "aws"

    def __init__(
        self, kind: str, name: str, context: Context, opts: pulumi.ResourceOptions | None
    ) -> None:
        super().__init__(kind, name, opts)
        self.context = context

    def lasting(self, *after: pulumi.Resource) -> pulumi.ResourceOptions:
        """Options for a child that holds data: where that is kept, Pulumi refuses to delete it."""
        kept = pulumi.ResourceOptions(protect=self.context.kept or None)
        return pulumi.ResourceOptions.merge(self.child(*after), kept)

    def key(
        self,
        name: str,
        description: str,
        opts: pulumi.ResourceOptions,
        policy: str | None = None,
    ) -> Key:
        """A key for data, and the name under which AWS's console shows it."""
        key = Key(
            name,
            description=description,
            enable_key_rotation=True,
            deletion_window_in_days=30,
            policy=policy,
            tags=self.context.tagged(name),
            opts=opts,
        )
        Alias(
            name, name=f"alias/{self.context.name}-{name}", target_key_id=key.id, opts=self.child()
        )
        return key

    def identity(
        self,
        name: str,
        cluster: pulumi.Input[str],
        namespace: str,
        account: str,
        statements: Sequence[Statement],
    ) -> tuple[Role, PodIdentityAssociation]:
        """A role for the pods of a service account. They have it once the association is there."""
        role = Role(
            name,
            name=f"{self.context.name}-{name}",
            assume_role_policy=trust(POD_IDENTITY, sessions=True),
            tags=self.context.tagged(name),
            opts=self.child(),
        )
        policy = RolePolicy(name, role=role.id, policy=document(statements), opts=self.child())
        association = PodIdentityAssociation(
            name,
            cluster_name=cluster,
            namespace=namespace,
            service_account=account,
            role_arn=role.arn,
            tags=self.context.tagged(name),
            opts=self.child(policy),
        )
        return role, association
