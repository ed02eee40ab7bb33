"""The machines that Karpenter may simulate: those of infra/aws/families.yaml that pools ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from infra.aws import families
from infra.aws.config import Pool
from infra.aws.node_pools import GPU

ZONES = ("eu-central-1a", "eu-central-1b", "eu-central-1c")
# What of the price on demand a spot machine costs here.
SPOT = 0.4
# Addresses that AWS has for pods on one machine.
PODS = 250


def instance_types(pools: Sequence[Pool]) -> list[dict[str, Any]]:
    """What Karpenter's kwok provider reads as its table of instance types."""
    zones = sorted({*ZONES, *(zone for pool in pools for zone in pool.zones)})
    wanted = {name: size for pool in pools for name, size in pool.types.items()}
    return [_instance_type(name, size, zones) for name, size in sorted(wanted.items())]


def _instance_type(name: str, size: families.Size, zones: Sequence[str]) -> dict[str, Any]:
    discovered = labels(name, size)
    return {
        "name": name,
        "architecture": "amd64",
        "operatingSystems": ["linux"],
        "resources": {
            "cpu": str(size.vcpus),
            "memory": f"{size.memoryGiB}Gi",
            "ephemeral-storage": "200Gi",
            "pods": str(PODS),
            GPU: str(size.gpus),
        },
        "offerings": [
            {
                "Price": round(size.price * share, 4),
                "Available": True,
                # The provider makes labels of a node from these.
                "Requirements": [
                    {"key": key, "operator": "In", "values": [value]}
                    for key, value in {
                        "karpenter.sh/capacity-type": purchase,
                        "topology.kubernetes.io/zone": zone,
                        **discovered,
                    }.items()
                ],
            }
            for zone in zones
            for purchase, share in (("on-demand", 1.0), ("spot", SPOT))
        ],
    }


def labels(name: str, size: families.Size) -> dict[str, str]:
    """What node feature discovery and NVIDIA's GPU feature discovery say of such a machine."""
    gpu = families.catalogue().families[name.partition(".")[0]].gpu
    return {
        "feature.node.kubernetes.io/pci-10de.present": "true",
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.product": gpu.product,
        "nvidia.com/gpu.count": str(size.gpus),
        "nvidia.com/gpu.memory": str(gpu.memoryGiB * 1024),
        "nvidia.com/gpu.replicas": "1",
        "nvidia.com/mig.capable": str(bool(gpu.mig)).lower(),
    }
