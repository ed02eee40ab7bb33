"""Who may talk to whom. Everything else is denied, in both directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pulumi
import pulumi_kubernetes as k8s
from pulumi_kubernetes.meta.v1 import LabelSelectorArgs, ObjectMetaArgs
from pulumi_kubernetes.networking.v1 import (
    NetworkPolicyEgressRuleArgs,
    NetworkPolicyIngressRuleArgs,
    NetworkPolicyPeerArgs,
    NetworkPolicyPortArgs,
    NetworkPolicySpecArgs,
)

from infra.platform.component import Component

NAMESPACE = "kubernetes.io/metadata.name"


@dataclass(frozen=True)
class Peer:
    """Pods of a namespace that carry these labels (none: all of its pods)."""

    namespace: str
    name: str
    labels: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def selector(self) -> LabelSelectorArgs:
        return LabelSelectorArgs(match_labels=dict(self.labels))

    @property
    def peer(self) -> NetworkPolicyPeerArgs:
        return NetworkPolicyPeerArgs(
            namespace_selector=LabelSelectorArgs(match_labels={NAMESPACE: self.namespace}),
            pod_selector=self.selector,
        )


@dataclass(frozen=True)
class Flow:
    """`source` may open connections to `target` on these TCP ports of its pods."""

    source: Peer
    target: Peer
    ports: tuple[int, ...]


@dataclass(frozen=True)
class NetworkArgs:
    namespaces: Mapping[str, pulumi.Input[str]]
    """Every namespace of the platform: name to its output."""
    flows: Sequence[Flow]
    api_clients: Sequence[Peer]
    """Pods that call the Kubernetes API, which has no pod that a selector could name."""
    from_outside: Sequence[tuple[Peer, int]]
    """Ports that node ports lead to: their clients have no pod either."""


class Network(Component):
    """Default deny in every namespace, DNS for all, and a pair of policies for each flow."""

    def __init__(
        self, name: str, args: NetworkArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("Network", name, opts)
        self._namespaces = args.namespaces
        for namespace in args.namespaces:
            everything = Peer(namespace, "all")
            self._policy(everything, "default-deny", ingress=[], egress=[])
            dns = NetworkPolicyPeerArgs(
                namespace_selector=LabelSelectorArgs(match_labels={NAMESPACE: "kube-system"}),
                pod_selector=LabelSelectorArgs(match_labels={"k8s-app": "kube-dns"}),
            )
            ports = [NetworkPolicyPortArgs(port=53, protocol=p) for p in ("UDP", "TCP")]
            rule = NetworkPolicyEgressRuleArgs(to=[dns], ports=ports)
            self._policy(everything, "allow-dns", egress=[rule])
        for flow in args.flows:
            label = f"{flow.source.name}-to-{flow.target.name}"
            ports = _ports(*flow.ports)
            out = NetworkPolicyEgressRuleArgs(to=[flow.target.peer], ports=ports)
            into = NetworkPolicyIngressRuleArgs(from_=[flow.source.peer], ports=ports)
            self._policy(flow.source, f"{label}-egress", egress=[out])
            self._policy(flow.target, f"{label}-ingress", ingress=[into])
        for peer in args.api_clients:
            rule = NetworkPolicyEgressRuleArgs(ports=_ports(443, 6443))
            self._policy(peer, f"{peer.name}-to-api-server", egress=[rule])
        for peer, port in args.from_outside:
            rule = NetworkPolicyIngressRuleArgs(ports=_ports(port))
            self._policy(peer, f"outside-to-{peer.name}", ingress=[rule])
        self.register_outputs({})

    def _policy(
        self,
        target: Peer,
        name: str,
        *,
        ingress: list[NetworkPolicyIngressRuleArgs] | None = None,
        egress: list[NetworkPolicyEgressRuleArgs] | None = None,
    ) -> None:
        types = {"Ingress": ingress, "Egress": egress}
        k8s.networking.v1.NetworkPolicy(
            f"{target.namespace}-{name}",
            metadata=ObjectMetaArgs(name=name, namespace=self._namespaces[target.namespace]),
            spec=NetworkPolicySpecArgs(
                pod_selector=target.selector,
                policy_types=[name for name, rules in types.items() if rules is not None],
                ingress=ingress or None,
                egress=egress or None,
            ),
            opts=self.child(),
        )


def _ports(*numbers: int) -> list[NetworkPolicyPortArgs]:
    return [NetworkPolicyPortArgs(port=number, protocol="TCP") for number in numbers]
