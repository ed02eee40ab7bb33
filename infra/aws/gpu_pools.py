"""GPU nodes: each pool of the stack file as Karpenter's objects, or as a managed node group."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi
from pulumi_aws.budgets.budget import Budget
from pulumi_aws.eks.node_group import NodeGroup

from infra.aws.cluster import node_template
from infra.aws.component import AwsComponent, Context
from infra.aws.config import Pool
from infra.aws.families import with_efa
from infra.aws.node_class import node_class
from infra.aws.node_pools import POOL_LABEL, discovered, labels, node_pools
from infra.platform import upstream

ALARMS = (80, 100)
# The most types that one managed node group takes.
GROUP_TYPES = 20
SCRIPT = Path(__file__).with_name("divide_gpus.sh")
# Where it is on a node, and what systemd adds to the kubelet's unit.
DIVIDE, KUBELET = "/usr/local/sbin/divide-gpus", "/etc/systemd/system/kubelet.service.d"


def user_data(pool: Pool) -> str | None:
    """What has the kubelet wait until the GPUs are divided; None where they stay whole.

    Every GPU gets as many instances of the profile as fit. Cloud-init runs it before a machine's
    first kubelet starts.
    """
    if not pool.sharing.profile:
        return None
    command = f"{DIVIDE} {pool.sharing.profile} {pool.shares} /var/lib/divide-gpus"
    # Eight GPUs take a while.
    unit = f"[Service]\nExecStartPre={command}\nTimeoutStartSec=10min\n"
    return "\n".join(
        [
            "MIME-Version: 1.0",
            'Content-Type: multipart/mixed; boundary="//"',
            "",
            "--//",
            'Content-Type: text/x-shellscript; charset="us-ascii"',
            "",
            "#!/bin/sh",
            "set -eu",
            *_written(DIVIDE, SCRIPT.read_text()),
            f"chmod 0755 {DIVIDE}",
            f"mkdir -p {KUBELET}",
            *_written(f"{KUBELET}/divide-gpus.conf", unit),
            "systemctl daemon-reload",
            "",
            "--//--",
            "",
        ]
    )


def _written(path: str, text: str) -> list[str]:
    """Lines of a shell script that write a file."""
    return [f"cat > {path} <<'END'", *text.splitlines(), "END"]


def machines(
    pool: Pool, context: Context, *, ami: str, profile: pulumi.Input[str]
) -> dict[str, Any]:
    """The EC2NodeClass of a pool; `ami` and `profile` as `node_class` has them."""
    more: dict[str, Any] = {}
    if script := user_data(pool):
        more["userData"] = script
    if pool.reservations:
        more["capacityReservationSelectorTerms"] = [{"id": r} for r in pool.reservations]
    return node_class(
        pool.name,
        context,
        ami=ami,
        profile=profile,
        disk=pool.diskGiB,
        tags=context.tagged(f"gpu-{pool.name}", **{POOL_LABEL: pool.name}),
        more=more,
    )


@dataclass(frozen=True)
class GpuPoolsArgs:
    context: Context
    pools: Sequence[Pool]
    cluster_name: pulumi.Input[str]
    version: str
    """The cluster's Kubernetes, e.g. 1.34."""
    zones: Sequence[str]
    subnets: Mapping[str, pulumi.Input[str]]
    """Zone to its private subnet."""
    node_role: pulumi.Input[str]
    ami: str
    instance_profile: pulumi.Input[str] | None
    """Of Karpenter's nodes; None: pools are managed node groups."""
    mail: str | None = None
    """Who is told of a budget; None: the account's own alarms only."""


class GpuPools(AwsComponent):
    """The pools. On destroy they go before whatever ends their nodes: make it wait for that."""

    def __init__(
        self, name: str, args: GpuPoolsArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("GpuPools", name, args.context, opts)
        for pool in args.pools:
            if args.instance_profile is None:
                self._group(pool, args)
            else:
                made = machines(pool, args.context, ami=args.ami, profile=args.instance_profile)
                # Its finalizer holds it until the last node of the pool is gone.
                first = upstream.register(name, made, self.child())
                for manifest in node_pools(pool, args.zones):
                    upstream.register(name, manifest, self.child(first))
            self._budget(pool, args)
        self.register_outputs({})

    def _group(self, pool: Pool, args: GpuPoolsArgs) -> None:
        template = node_template(
            self, f"gpu-{pool.name}", disk=pool.diskGiB, user_data=_base64(user_data(pool))
        )
        effects = {
            "NoSchedule": "NO_SCHEDULE",
            "PreferNoSchedule": "PREFER_NO_SCHEDULE",
            "NoExecute": "NO_EXECUTE",
        }
        NodeGroup(
            f"gpu-{pool.name}",
            cluster_name=args.cluster_name,
            node_group_name=f"gpu-{pool.name}",
            node_role_arn=args.node_role,
            version=args.version,
            subnet_ids=[args.subnets[zone] for zone in pool.zones or args.zones],
            ami_type="AL2023_x86_64_NVIDIA",
            capacity_type="SPOT" if pool.purchase == "spot" else "ON_DEMAND",
            instance_types=sorted(pool.types, key=lambda t: pool.types[t].price)[:GROUP_TYPES],
            labels=labels(pool) | discovered(pool),
            taints=[
                {"key": t.key, "value": t.value, "effect": effects[t.effect]} for t in pool.taints
            ],
            launch_template={"id": template.id, "version": template.latest_version.apply(str)},
            scaling_config={
                "min_size": pool.min,
                "max_size": pool.max,
                "desired_size": pool.min,
            },
            update_config={"max_unavailable": 1},
            node_repair_config={"enabled": True},
            tags=self.context.tagged(f"gpu-{pool.name}", **{POOL_LABEL: pool.name}),
            # How many there are is whoever scales them's to say.
            opts=pulumi.ResourceOptions.merge(
                self.child(), pulumi.ResourceOptions(ignore_changes=["scalingConfig.desiredSize"])
            ),
        )

    def _budget(self, pool: Pool, args: GpuPoolsArgs) -> None:
        Budget(
            pool.name,
            name=f"{self.context.name}-{pool.name}",
            budget_type="COST",
            time_unit="MONTHLY",
            limit_amount=f"{pool.budget:g}",
            limit_unit="USD",
            cost_filters=[{"name": "TagKeyValue", "values": [f"user:{POOL_LABEL}${pool.name}"]}],
            notifications=[
                {
                    "comparison_operator": "GREATER_THAN",
                    "notification_type": "ACTUAL",
                    "threshold": percent,
                    "threshold_type": "PERCENTAGE",
                    "subscriber_email_addresses": [args.mail],
                }
                for percent in ALARMS
            ]
            if args.mail
            else None,
            tags=self.context.tagged(pool.name),
            opts=self.child(),
        )


def efa_types(pool: Pool) -> list[str]:
    """The instance types of a pool that have an Elastic Fabric Adapter."""
    return with_efa(pool.families, pool.sizes)


def _base64(text: str | None) -> str | None:
    return base64.b64encode(text.encode()).decode() if text else None
