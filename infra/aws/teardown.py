"""What a cluster makes by itself on AWS, and that a destroy waits until all of it has gone.

Volumes, machines, network interfaces and load balancers that controllers in the cluster made are
in no state of Pulumi's. One that is left behind costs money, and holds the VPC. So this resource
stands between the cluster and everything on it: it is removed after what is on it, before what
ends machines and volumes, and only once AWS lists none of them any more.
"""

from __future__ import annotations

from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider, UpdateResult


class GoneProvider(ResourceProvider):
    """Makes nothing; deleting it waits."""

    wait_seconds, poll_seconds = 1200, 10

    def create(self, props: dict[str, Any]) -> CreateResult:
        return CreateResult(str(props["cluster"]), dict(props))

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        # An edit of this very file changes the serialized provider; it must not replace it.
        changed = any(_olds[key] != _news[key] for key in ("cluster", "region", "role"))
        return DiffResult(changes=changed)

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        return UpdateResult(dict(_news))

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        session = self.session(str(_props["region"]), str(_props["role"]))
        self.wait(str(_props["cluster"]), session.client)

    def session(self, region: str, role: str) -> Any:
        """boto3's session of a role that the caller may assume."""
        import boto3

        sts = boto3.Session().client("sts", region)
        login = sts.assume_role(RoleArn=role, RoleSessionName="slipway-teardown")["Credentials"]
        return boto3.Session(
            login["AccessKeyId"], login["SecretAccessKey"], login["SessionToken"], region
        )

    def wait(self, cluster: str, client: Any) -> None:
        """Returns once nothing is there.

        Raises:
            RuntimeError: something still is after `wait_seconds`; it is named.
        """
        import time

        end = time.monotonic() + self.wait_seconds
        while found := self.leftovers(cluster, client):
            if time.monotonic() >= end:
                raise RuntimeError(
                    f"made by the cluster and still there: {', '.join(found)}\n  fix: see why "
                    "their controller does not remove them, or delete them; then destroy again"
                )
            time.sleep(self.poll_seconds)

    def leftovers(self, cluster: str, client: Any) -> list[str]:
        """What the cluster made by itself: ids of machines, volumes and network interfaces, ARNs of
        load balancers and their target groups.

        Args:
            client: boto3's, by the service's name, in the cluster's account and region.
        """
        ec2, tagging = client("ec2"), client("resourcegroupstaggingapi")

        def pages(call: str, **filters: list[str]) -> Any:
            wanted = [{"Name": name, "Values": values} for name, values in filters.items()]
            return ec2.get_paginator(call).paginate(Filters=wanted)

        owned = {f"tag:kubernetes.io/cluster/{cluster}": ["owned"]}
        alive = ["pending", "running", "shutting-down", "stopping", "stopped"]
        machines = pages(
            "describe_instances",
            **owned,
            **{"tag-key": ["karpenter.sh/nodepool"], "instance-state-name": alive},
        )
        volumes = pages(
            "describe_volumes", **owned, **{"tag-key": ["kubernetes.io/created-for/pvc/name"]}
        )
        # Those in use are of the platform's own nodes, which go later, and take them along.
        interfaces = pages(
            "describe_network_interfaces",
            **{"tag:cluster.k8s.amazonaws.com/name": [cluster], "status": ["available"]},
        )
        # Of services of type LoadBalancer: EKS' own controller tags them one way, AWS's the other.
        balancers = [
            found["ResourceARN"]
            for tag, value in (
                (f"kubernetes.io/cluster/{cluster}", "owned"),
                ("elbv2.k8s.aws/cluster", cluster),
            )
            for page in tagging.get_paginator("get_resources").paginate(
                TagFilters=[{"Key": tag, "Values": [value]}],
                ResourceTypeFilters=[
                    "elasticloadbalancing:loadbalancer",
                    "elasticloadbalancing:targetgroup",
                ],
            )
            for found in page["ResourceTagMappingList"]
        ]
        return [
            *(i["InstanceId"] for p in machines for r in p["Reservations"] for i in r["Instances"]),
            *(v["VolumeId"] for p in volumes for v in p["Volumes"]),
            *(n["NetworkInterfaceId"] for p in interfaces for n in p["NetworkInterfaces"]),
            *balancers,
        ]


# Pickled by value, not by name: the process that runs the provider cannot import this package.
GoneProvider.__module__ = "__main__"


class Gone(Resource, name="Gone"):
    """Nothing, until it is deleted: then it waits for what the cluster made to have gone."""

    def __init__(
        self,
        name: str,
        *,
        cluster: pulumi.Input[str],
        region: str,
        role: str,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(
            GoneProvider(), name, {"cluster": cluster, "region": region, "role": role}, opts
        )
