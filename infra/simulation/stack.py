"""The wiring of simulated GPUs: the pools and queues of a stack on AWS, on the embedded cluster."""

from __future__ import annotations

from collections.abc import Mapping

import pulumi

from infra.config import StackConfig
from infra.platform.component import after, provider
from infra.platform.kueue import NAMESPACE, WEBHOOKS
from infra.platform.namespaces import Namespaces, NamespacesArgs
from infra.platform.network import Network, NetworkArgs, Peer, api_server
from infra.platform.pods import NAME
from infra.platform.queues import queueing
from infra.simulation.karpenter import Karpenter, KarpenterArgs
from infra.simulation.kwok import Kwok, KwokArgs
from slipway import paths, toolchain

# Of the stack that has the platform.
PIPELINES = "pipelines"
IMAGES = {"karpenter-kwok", "kueue", "kwok"}
CONTROLLERS = ("karpenter", "kueue", "kwok")


def build(config: StackConfig, images: Mapping[str, str]) -> None:
    """Registers everything that the stack has, beside the platform that is there."""
    kubeconfig = str(paths.kubeconfig())
    opts = pulumi.ResourceOptions(providers=[provider(kubeconfig)])
    names = Namespaces("namespaces", NamespacesArgs(config.namespaces), opts).names
    namespace = names[NAMESPACE]
    peers = {name: Peer(NAMESPACE, name, {NAME: name}) for name in CONTROLLERS}
    Network(
        "network",
        NetworkArgs(
            namespaces=names,
            flows=[],
            api_clients=list(peers.values()),
            api=api_server(opts),
            # The API server, which is no pod.
            from_outside=[(peers["kueue"], WEBHOOKS)],
        ),
        opts,
    )
    kwok = Kwok(
        "kwok",
        KwokArgs(
            namespace=namespace,
            manifests=toolchain.files("kwok") / "kustomize" / "stage",
            image=images["kwok"],
        ),
        opts,
    )
    # On destroy its pools go first, whose pods kwok ends.
    Karpenter(
        "karpenter",
        KarpenterArgs(
            namespace=namespace,
            manifests=toolchain.files("karpenter-kwok"),
            image=images["karpenter-kwok"],
            pools=config.gpuPools,
        ),
        after(opts, kwok),
    )
    queueing(
        config,
        opts,
        namespace=namespace,
        queued=PIPELINES,
        image=images["kueue"],
        kubeconfig=kubeconfig,
    )
    pulumi.export("pools", {pool.name: pool.gpus for pool in config.gpuPools})
    pulumi.export("teams", {team.name: team.gpus for team in config.teams})
