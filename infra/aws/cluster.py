"""EKS: the control plane, who may administer it, its add-ons, and the nodes of the platform."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
from pulumi_aws.cloudwatch.log_group import LogGroup
from pulumi_aws.ec2.launch_template import LaunchTemplate
from pulumi_aws.ec2.tag import Tag
from pulumi_aws.eks.access_entry import AccessEntry
from pulumi_aws.eks.access_policy_association import AccessPolicyAssociation
from pulumi_aws.eks.addon import Addon
from pulumi_aws.eks.cluster import Cluster as EksCluster
from pulumi_aws.eks.get_addon_version import get_addon_version_output
from pulumi_aws.eks.node_group import NodeGroup
from pulumi_aws.iam.role import Role
from pulumi_aws.iam.role_policy_attachment import RolePolicyAttachment

from infra.aws.component import AwsComponent, Context
from infra.aws.config import SERVICES, Account
from infra.aws.network import DISCOVERY
from infra.aws.policy import POD_IDENTITY, trust

LOGS = ["api", "audit", "authenticator", "controllerManager", "scheduler"]
ADMIN = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"
MANAGED = "arn:aws:iam::aws:policy/"
# By the first a machine learns its own name from EC2 before it joins. AWS's "minimal" one, which
# does without, is for machines that EKS itself runs.
NODE_POLICIES = ["AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly"]
# Without the first, nodes do not become ready; the others need a node to run on.
BEFORE_NODES = ["eks-pod-identity-agent", "vpc-cni", "kube-proxy"]
AFTER_NODES = ["coredns", "aws-ebs-csi-driver", "metrics-server"]
# Add-ons that call AWS: service account, and the policy that AWS wrote for it.
ADDON_ROLES = {
    "vpc-cni": ("aws-node", "AmazonEKS_CNI_Policy"),
    "aws-ebs-csi-driver": ("ebs-csi-controller-sa", "AmazonEBSCSIDriverPolicyV2"),
}
ROLE_LABEL = "slipway/nodes"
# Of each of the platform's nodes.
DISK_GIB = 50


@dataclass(frozen=True)
class ClusterArgs:
    context: Context
    version: str
    """Kubernetes, e.g. 1.34."""
    account: Account
    karpenter: bool
    """Whether it makes the nodes that come beside the platform's own."""
    subnets: Sequence[pulumi.Input[str]]
    """Private ones, one a zone: the nodes'."""
    control_plane: Sequence[pulumi.Input[str]]
    """Subnets that no pod has an address of: by its own the API server is told from pods."""
    ways: Sequence[pulumi.Resource]
    """What nodes reach the rest of the world by."""


class Cluster(AwsComponent):
    """The cluster, its nodes and add-ons, which follow its Kubernetes to another version.

    Attributes:
        cluster_name: known once the control plane is there.
        kubeconfig: JSON; logs in by `aws eks get-token` as the role that deploys.
        node_role: of every node (its ARN).
        nodes: names of the platform's Auto Scaling groups.
        security_group: of control plane and nodes.
        serving: what there has to be before pods run, and to stay until the last has gone.
    """

    cluster_name: pulumi.Output[str]
    endpoint: pulumi.Output[str]
    kubeconfig: pulumi.Output[str]
    node_role: pulumi.Output[str]
    node_role_name: pulumi.Output[str]
    group_name: pulumi.Output[str]
    security_group: pulumi.Output[str]
    serving: list[pulumi.Resource]

    def __init__(
        self, name: str, args: ClusterArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("Cluster", name, args.context, opts)
        self._version = args.version
        cluster = self._control_plane(args)
        self.cluster_name, self.endpoint = cluster.name, cluster.endpoint
        self.security_group = cluster.vpc_config.cluster_security_group_id
        Tag(
            "cluster-discovery",
            resource_id=self.security_group,
            key=DISCOVERY,
            value=args.context.name,
            opts=self.child(),
        )
        self.kubeconfig = self._kubeconfig(cluster, args)
        admins = [self._admin(arn) for arn in [args.account.deployRole, *args.account.admins]]
        for principal, groups in args.account.members.items():
            self._entry(principal, groups)
        early = [self._addon(cluster, addon) for addon in BEFORE_NODES]
        role, attached = self._node_role()
        self.node_role, self.node_role_name = role.arn, role.name
        template = node_template(self, "platform", disk=DISK_GIB)
        nodes = args.account.nodes
        group = NodeGroup(
            "platform",
            cluster_name=cluster.name,
            node_group_name="platform",
            node_role_arn=role.arn,
            version=args.version,
            subnet_ids=list(args.subnets),
            ami_type="AL2023_x86_64_STANDARD",
            capacity_type="ON_DEMAND",
            instance_types=nodes.types,
            labels={ROLE_LABEL: "platform"},
            launch_template={"id": template.id, "version": template.latest_version.apply(str)},
            scaling_config={
                "min_size": nodes.min,
                "max_size": nodes.min if args.karpenter else nodes.max,
                "desired_size": nodes.min,
            },
            update_config={"max_unavailable": 1},
            node_repair_config={"enabled": True},
            tags=args.context.tagged("platform"),
            opts=pulumi.ResourceOptions.merge(
                self.child(*args.ways, *early, *attached),
                # Without Karpenter, how many there are is whoever scales them's to say.
                pulumi.ResourceOptions(
                    ignore_changes=None if args.karpenter else ["scalingConfig.desiredSize"]
                ),
            ),
        )
        self.group_name = group.resources[0].autoscaling_groups[0].name
        late = [self._addon(cluster, addon, group) for addon in AFTER_NODES]
        self.serving = [cluster, *admins, *early, group, *late]
        self.register_outputs({"cluster_name": self.cluster_name, "endpoint": self.endpoint})

    def _control_plane(self, args: ClusterArgs) -> EksCluster:
        context = args.context
        key = self.key("cluster", f"Secrets of the cluster {context.name}", self.child())
        # EKS would make it by itself, keep it for ever, and leave it behind.
        logs = LogGroup(
            "cluster",
            name=f"/aws/eks/{context.name}/cluster",
            retention_in_days=365 if context.protected else 30,
            tags=context.tagged("cluster"),
            opts=self.child(),
        )
        role = Role(
            "cluster",
            name=f"{context.name}-cluster",
            assume_role_policy=trust("eks.amazonaws.com"),
            tags=context.tagged("cluster"),
            opts=self.child(),
        )
        attached = self._attach("cluster", role, "AmazonEKSClusterPolicy")
        cidrs = args.account.endpointCidrs
        return EksCluster(
            "cluster",
            name=context.name,
            version=args.version,
            role_arn=role.arn,
            vpc_config={
                "subnet_ids": list(args.control_plane),
                "endpoint_private_access": True,
                "endpoint_public_access": bool(cidrs),
                "public_access_cidrs": cidrs,
            },
            access_config={
                "authentication_mode": "API",
                # Whoever made it is no administrator for ever: access entries alone say who is.
                "bootstrap_cluster_creator_admin_permissions": False,
            },
            bootstrap_self_managed_addons=False,
            encryption_config={"provider": {"key_arn": key.arn}, "resources": ["secrets"]},
            enabled_cluster_log_types=LOGS,
            kubernetes_network_config={
                "ip_family": "ipv4",
                "service_ipv4_cidr": str(SERVICES),
            },
            # A version that leaves standard support stays, at a price, until somebody upgrades it:
            # else AWS does so by itself, to one that nothing here was tried on.
            upgrade_policy={"support_type": "EXTENDED"},
            deletion_protection=context.kept,
            tags=context.tagged("cluster"),
            opts=self.child(attached, logs),
        )

    def _kubeconfig(self, cluster: EksCluster, args: ClusterArgs) -> pulumi.Output[str]:
        login = ["eks", "get-token", "--cluster-name", args.context.name]
        login += ["--region", args.context.region, "--role-arn", args.account.deployRole]
        execute = {"apiVersion": "client.authentication.k8s.io/v1", "command": "aws", "args": login}
        return pulumi.Output.all(
            server=cluster.endpoint, authority=cluster.certificate_authority.data
        ).apply(lambda known: _kubeconfig(args.context.name, known, execute))

    def _admin(self, principal: str) -> AccessPolicyAssociation:
        entry = self._entry(principal)
        return AccessPolicyAssociation(
            principal.rpartition("/")[2],
            cluster_name=self.cluster_name,
            principal_arn=principal,
            policy_arn=ADMIN,
            access_scope={"type": "cluster"},
            opts=self.child(entry),
        )

    def _entry(self, principal: str, groups: Sequence[str] = ()) -> AccessEntry:
        """Lets a principal log in, as one of these groups."""
        name = principal.rpartition("/")[2]
        return AccessEntry(
            name,
            cluster_name=self.cluster_name,
            principal_arn=principal,
            kubernetes_groups=list(groups) or None,
            type="STANDARD",
            tags=self.context.tagged(name),
            opts=self.child(),
        )

    def _attach(self, name: str, role: Role, policy: str) -> RolePolicyAttachment:
        return RolePolicyAttachment(
            f"{name}-{policy}",
            role=role.name,
            policy_arn=f"{MANAGED}{policy}",
            opts=self.child(),
        )

    def _addon(self, cluster: EksCluster, addon: str, *after: pulumi.Resource) -> Addon:
        context = self.context
        waits = list(after)
        role: Role | None = None
        account, policy = ADDON_ROLES.get(addon, ("", ""))
        if policy:
            role = Role(
                addon,
                name=f"{context.name}-{addon}",
                assume_role_policy=trust(POD_IDENTITY, sessions=True),
                tags=context.tagged(addon),
                opts=self.child(),
            )
            waits.append(self._attach(addon, role, policy))
        settings = {
            "vpc-cni": {"enableNetworkPolicy": "true", "env": {"ENABLE_PREFIX_DELEGATION": "true"}},
            "aws-ebs-csi-driver": {
                # So that a volume that nobody wants any more is found by its tags.
                "controller": {"extraVolumeTags": dict(context.tags)},
            },
        }.get(addon)
        return Addon(
            addon,
            cluster_name=cluster.name,
            addon_name=addon,
            # EKS' own default for this Kubernetes: no other source knows what fits.
            addon_version=get_addon_version_output(
                addon_name=addon,
                kubernetes_version=self._version,
                opts=pulumi.InvokeOutputOptions(parent=self),
            ).version,
            configuration_values=json.dumps(settings) if settings else None,
            pod_identity_associations=[{"role_arn": role.arn, "service_account": account}]
            if role
            else None,
            resolve_conflicts_on_create="OVERWRITE",
            resolve_conflicts_on_update="OVERWRITE",
            tags=context.tagged(addon),
            opts=self.child(*waits),
        )

    def _node_role(self) -> tuple[Role, list[RolePolicyAttachment]]:
        role = Role(
            "nodes",
            name=f"{self.context.name}-nodes",
            assume_role_policy=trust("ec2.amazonaws.com"),
            tags=self.context.tagged("nodes"),
            opts=self.child(),
        )
        return role, [self._attach("nodes", role, policy) for policy in NODE_POLICIES]


def node_template(
    component: AwsComponent, name: str, *, disk: int, user_data: str | None = None
) -> LaunchTemplate:
    """How a managed node group starts its machines: disks encrypted, metadata not for pods.

    Args:
        disk: GiB of the root volume.
        user_data: plain text; EKS adds its own.
    """
    context = component.context
    return LaunchTemplate(
        name,
        name=f"{context.name}-{name}",
        update_default_version=True,
        metadata_options={
            "http_endpoint": "enabled",
            "http_tokens": "required",
            # A pod is one hop further away: it has an identity of its own, or none.
            "http_put_response_hop_limit": 1,
        },
        block_device_mappings=[
            {
                "device_name": "/dev/xvda",
                "ebs": {
                    "volume_size": disk,
                    "volume_type": "gp3",
                    "encrypted": "true",
                    "delete_on_termination": "true",
                },
            }
        ],
        tag_specifications=[
            {"resource_type": kind, "tags": context.tagged(name)}
            for kind in ("instance", "volume", "network-interface")
        ],
        user_data=user_data,
        tags=context.tagged(name),
        opts=component.child(),
    )


def _kubeconfig(name: str, known: dict[str, str], execute: Mapping[str, object]) -> str:
    cluster = {"server": known["server"], "certificate-authority-data": known["authority"]}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name,
            "clusters": [{"name": name, "cluster": cluster}],
            "users": [{"name": name, "user": {"exec": execute}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        }
    )
