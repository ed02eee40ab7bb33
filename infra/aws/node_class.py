"""What Karpenter starts machines as: image, disks and network, the same for every pool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi

from infra.aws.component import Context
from infra.aws.network import DISCOVERY


def node_class(
    name: str,
    context: Context,
    *,
    ami: str,
    profile: pulumi.Input[str],
    disk: int,
    tags: Mapping[str, str],
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The EC2NodeClass of machines with Amazon Linux.

    Its alias stands for the NVIDIA variant on machines with GPUs, and Karpenter attaches EFA
    interfaces where a pod asks for `vpc.amazonaws.com/efa`.

    Args:
        ami: version of Amazon Linux 2023 for EKS, v and the date.
        profile: name of the nodes' instance profile.
        disk: GiB of the root volume.
        tags: of the machines.
        more: of the specification, what only some have.
    """
    discovery = [{"tags": {DISCOVERY: context.name}}]
    return {
        "apiVersion": "karpenter.k8s.aws/v1",
        "kind": "EC2NodeClass",
        "metadata": {"name": name},
        "spec": {
            "amiSelectorTerms": [{"alias": f"al2023@{ami}"}],
            "instanceProfile": profile,
            "subnetSelectorTerms": discovery,
            "securityGroupSelectorTerms": discovery,
            "associatePublicIPAddress": False,
            "metadataOptions": {
                "httpEndpoint": "enabled",
                "httpTokens": "required",
                "httpPutResponseHopLimit": 1,
            },
            "blockDeviceMappings": [
                {
                    "deviceName": "/dev/xvda",
                    "ebs": {
                        "volumeSize": f"{disk}Gi",
                        "volumeType": "gp3",
                        "encrypted": True,
                        "deleteOnTermination": True,
                    },
                }
            ],
            # Models are read from the local disks where a machine has some.
            "instanceStorePolicy": "RAID0",
            "tags": dict(tags),
            **(more or {}),
        },
    }
