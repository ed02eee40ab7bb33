"""Karpenter: what lets it make nodes, what tells it of interruptions, and the controller itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pulumi
import pulumi_kubernetes as k8s
from pulumi_aws.cloudwatch.event_rule import EventRule
from pulumi_aws.cloudwatch.event_target import EventTarget
from pulumi_aws.iam.instance_profile import InstanceProfile
from pulumi_aws.sqs.queue import Queue
from pulumi_aws.sqs.queue_policy import QueuePolicy

from infra.aws.cluster import ROLE_LABEL
from infra.aws.component import AwsComponent, Context
from infra.aws.policy import VERSION, Statement
from infra.platform import pods, upstream
from infra.platform.component import Resources
from infra.platform.rights import READ, Rule, cluster_rights, rights_in

NAME = "karpenter"
NAMESPACE = "kube-system"
USER = 65532
METRICS, HEALTH = 8080, 8081
# Event source and kind; what each tells is in Karpenter's reference.
EVENTS = {
    "spot-interruption": ("aws.ec2", "EC2 Spot Instance Interruption Warning"),
    "rebalance": ("aws.ec2", "EC2 Instance Rebalance Recommendation"),
    "state-change": ("aws.ec2", "EC2 Instance State-change Notification"),
    "health": ("aws.health", "AWS Health Event"),
    "capacity-block-end": ("aws.ec2", "EC2 Capacity Block Reservation Expiration Warning"),
}
RESOURCES = Resources(cpu="100m", memory="256Mi", limit="1Gi")
# API group to (kinds, verbs): what Karpenter's own chart gives it.
RULES: list[Rule] = [
    (
        "karpenter.sh",
        [
            *("nodepools", "nodepools/status", "nodeclaims", "nodeclaims/status"),
            *("nodeoverlays", "nodeoverlays/status"),
        ],
        READ,
    ),
    ("karpenter.sh", ["nodeclaims", "nodeclaims/status"], ["create", "delete", "update", "patch"]),
    ("karpenter.sh", ["nodepools", "nodepools/status", "nodeoverlays/status"], ["update", "patch"]),
    ("karpenter.k8s.aws", ["ec2nodeclasses"], READ),
    ("karpenter.k8s.aws", ["ec2nodeclasses", "ec2nodeclasses/status"], ["patch", "update"]),
    (
        "",
        [
            *("pods", "nodes", "persistentvolumes", "persistentvolumeclaims"),
            *("replicationcontrollers", "namespaces", "events"),
        ],
        READ,
    ),
    ("", ["events"], ["create", "patch"]),
    ("", ["nodes"], ["patch", "delete", "update"]),
    ("", ["pods/eviction"], ["create"]),
    ("", ["pods"], ["delete"]),
    ("storage.k8s.io", ["storageclasses", "csinodes", "volumeattachments"], READ),
    ("apps", ["daemonsets", "deployments", "replicasets", "statefulsets"], ["list", "watch"]),
    ("policy", ["poddisruptionbudgets"], READ),
]
LEASES = "coordination.k8s.io"
OWN_RULES: list[Rule] = [
    (LEASES, ["leases"], ["create"]),
    (LEASES, ["leases"], ["get", "watch", "patch", "update"], ["karpenter-leader-election"]),
    ("", ["services"], ["get"], ["kube-dns"]),
]
OWNED = "kubernetes.io/cluster/{}"


@dataclass(frozen=True)
class KarpenterArgs:
    context: Context
    cluster_name: pulumi.Input[str]
    endpoint: pulumi.Input[str]
    node_role: pulumi.Input[str]
    """ARN of the role that nodes have."""
    node_role_name: pulumi.Input[str]
    image: str
    manifests: Path
    """The folder with Karpenter's CRDs."""


class Karpenter(AwsComponent):
    """`instance_profile`: of nodes to come. `ready`: what every pool needs until it has gone."""

    instance_profile: pulumi.Output[str]
    ready: list[pulumi.Resource]

    def __init__(
        self, name: str, args: KarpenterArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("Karpenter", name, args.context, opts)
        queue = self._interruptions()
        profile = InstanceProfile(
            "nodes",
            name=f"{args.context.name}-nodes",
            role=args.node_role_name,
            tags=args.context.tagged("nodes"),
            opts=self.child(),
        )
        self.instance_profile = profile.name
        _, identity = self.identity(
            NAME,
            args.cluster_name,
            NAMESPACE,
            NAME,
            statements(args.context, args.node_role, queue.arn, profile.arn),
        )
        definitions = [
            upstream.register(NAME, manifest, self.child())
            for manifest in upstream.load(*sorted(args.manifests.glob("*.yaml")))
        ]
        rights = [
            *cluster_rights(NAME, NAMESPACE, RULES, self.child()),
            *rights_in(NAME, NAMESPACE, OWN_RULES, NAMESPACE, self.child()),
        ]
        controller = self._controller(args, queue, [identity, *definitions, *rights])
        self.ready = [profile, identity, *definitions, *rights, controller]
        self.register_outputs({"instance_profile": self.instance_profile})

    def _interruptions(self) -> Queue:
        """Events that say that a node is about to go."""
        context = self.context
        queue = Queue(
            "interruptions",
            name=f"{context.name}-interruptions",
            message_retention_seconds=300,
            sqs_managed_sse_enabled=True,
            tags=context.tagged("interruptions"),
            opts=self.child(),
        )
        QueuePolicy(
            "interruptions",
            queue_url=queue.url,
            policy=queue.arn.apply(lambda arn: _from_events(arn, context.account)),
            opts=self.child(),
        )
        for name, (source, kind) in EVENTS.items():
            rule = EventRule(
                name,
                name=f"{context.name}-{name}",
                event_pattern=json.dumps({"source": [source], "detail-type": [kind]}),
                tags=context.tagged(name),
                opts=self.child(),
            )
            EventTarget(name, rule=rule.name, arn=queue.arn, opts=self.child())
        return queue

    def _controller(
        self, args: KarpenterArgs, queue: Queue, after: list[pulumi.Resource]
    ) -> k8s.apps.v1.Deployment:
        pod = pods.template(
            NAME,
            [
                pods.container(
                    NAME,
                    args.image,
                    RESOURCES,
                    env={
                        "KARPENTER_SERVICE": NAME,
                        "SYSTEM_NAMESPACE": pods.OWN_NAMESPACE,
                        "CLUSTER_NAME": args.cluster_name,
                        "CLUSTER_ENDPOINT": args.endpoint,
                        "INTERRUPTION_QUEUE": queue.name,
                        "AWS_REGION": self.context.region,
                        "METRICS_PORT": str(METRICS),
                        "HEALTH_PROBE_PORT": str(HEALTH),
                        # Reserved capacity: blocks. Static capacity: a pool's `min`.
                        "FEATURE_GATES": "ReservedCapacity=true,StaticCapacity=true",
                    },
                    port=METRICS,
                    readiness=pods.http_probe("/readyz", HEALTH),
                    liveness=pods.http_probe("/healthz", HEALTH, period=30, timeout=30),
                )
            ],
            service_account=NAME,
            user=USER,
            # Never on a node that it makes itself: it could not replace it.
            node_selector={ROLE_LABEL: "platform"},
            priority_class="system-cluster-critical",
        )
        return pods.deployment(NAME, NAMESPACE, pod, self.child(*after))


def _from_events(queue: str, account: str) -> str:
    services = {"Service": ["events.amazonaws.com", "sqs.amazonaws.com"]}
    return json.dumps(
        {
            "Version": VERSION,
            "Statement": [
                {
                    "Sid": "Events",
                    "Effect": "Allow",
                    "Principal": services,
                    "Action": "sqs:SendMessage",
                    "Resource": queue,
                    "Condition": {"StringEquals": {"aws:SourceAccount": account}},
                },
                {
                    "Sid": "TlsOnly",
                    "Effect": "Deny",
                    "Principal": "*",
                    "Action": "sqs:*",
                    "Resource": queue,
                    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
                },
            ],
        }
    )


def statements(
    context: Context,
    node_role: pulumi.Input[str],
    queue: pulumi.Input[str],
    profile: pulumi.Input[str],
) -> list[Statement]:
    """What the controller may do: machines that carry the cluster's tags, and no others."""
    region = context.region
    owned = OWNED.format(context.name)

    def ec2(*kinds: str, account: str = "*") -> list[str]:
        return [f"arn:aws:ec2:{region}:{account}:{kind}/*" for kind in kinds]

    made = ("fleet", "instance", "volume", "network-interface", "launch-template")
    by_request = {
        "StringEquals": {
            f"aws:RequestTag/{owned}": "owned",
            "aws:RequestTag/eks:eks-cluster-name": context.name,
        },
        "StringLike": {"aws:RequestTag/karpenter.sh/nodepool": "*"},
    }
    by_tag = {
        "StringEquals": {f"aws:ResourceTag/{owned}": "owned"},
        "StringLike": {"aws:ResourceTag/karpenter.sh/nodepool": "*"},
    }
    return [
        Statement(
            "LaunchFrom",
            ["ec2:RunInstances", "ec2:CreateFleet"],
            [
                *(f"arn:aws:ec2:{region}::{kind}/*" for kind in ("image", "snapshot")),
                *ec2("security-group", "subnet", "capacity-reservation", account=context.account),
            ],
            reason="which image and subnet a node starts from is chosen when it is needed",
        ),
        Statement(
            "LaunchFromOwnTemplates",
            ["ec2:RunInstances", "ec2:CreateFleet"],
            ec2("launch-template", account=context.account),
            by_tag,
            reason="templates are made on the way, and known by the cluster's tag",
        ),
        Statement(
            "MakeTagged",
            ["ec2:RunInstances", "ec2:CreateFleet", "ec2:CreateLaunchTemplate"],
            ec2(*made, "spot-instances-request", account=context.account),
            by_request,
            reason="what does not exist yet has no name; it must carry the cluster's tag",
        ),
        Statement(
            "TagAtCreation",
            ["ec2:CreateTags"],
            ec2(*made, "spot-instances-request", account=context.account),
            {
                **by_request,
                "StringEquals": {
                    **by_request["StringEquals"],
                    "ec2:CreateAction": ["RunInstances", "CreateFleet", "CreateLaunchTemplate"],
                },
            },
            reason="tags come with the creation of what has no name yet",
        ),
        Statement(
            "TagOwn",
            ["ec2:CreateTags"],
            ec2("instance", account=context.account),
            {
                **by_tag,
                "ForAllValues:StringEquals": {
                    "aws:TagKeys": ["eks:eks-cluster-name", "karpenter.sh/nodeclaim", "Name"]
                },
            },
            reason="instances are known by the cluster's tag, not by name",
        ),
        Statement(
            "EndOwn",
            ["ec2:TerminateInstances", "ec2:DeleteLaunchTemplate"],
            ec2("instance", "launch-template", account=context.account),
            by_tag,
            reason="instances are known by the cluster's tag, not by name",
        ),
        Statement(
            "Look",
            [
                f"ec2:Describe{what}"
                for what in (
                    *("CapacityReservations", "Images", "Instances", "InstanceTypeOfferings"),
                    *("InstanceTypes", "LaunchTemplates", "SecurityGroups", "SpotPriceHistory"),
                    "Subnets",
                )
            ],
            ["*"],
            {"StringEquals": {"aws:RequestedRegion": region}},
            reason="EC2 lists nothing by resource",
        ),
        Statement(
            "FindImages", ["ssm:GetParameter"], [f"arn:aws:ssm:{region}::parameter/aws/service/*"]
        ),
        Statement(
            "Prices", ["pricing:GetProducts"], ["*"], reason="AWS's price list is not a resource"
        ),
        Statement(
            "Interruptions",
            ["sqs:DeleteMessage", "sqs:GetQueueUrl", "sqs:ReceiveMessage"],
            [queue],
        ),
        Statement(
            "GiveNodesTheirRole",
            ["iam:PassRole"],
            [node_role],
            {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}},
        ),
        Statement("ReadProfile", ["iam:GetInstanceProfile"], [profile]),
        # A node class that goes is let go only once Karpenter has looked for profiles of its own.
        Statement(
            "LookForProfiles",
            ["iam:GetInstanceProfile"],
            [f"arn:aws:iam::{context.account}:instance-profile/{context.name}_*"],
            reason="Karpenter ends the name of a profile that it would have made with a number",
        ),
        Statement(
            "ListProfiles",
            ["iam:ListInstanceProfiles"],
            ["*"],
            reason="IAM lists profiles of the whole account only",
        ),
        Statement(
            "FindCluster", ["eks:DescribeCluster"], [context.arn("eks", f"cluster/{context.name}")]
        ),
    ]
