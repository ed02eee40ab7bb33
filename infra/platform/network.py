"""Who may talk to whom. Everything else is denied, in both directions."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pulumi_kubernetes as k8s
from pulumi_kubernetes.core.v1.outputs import ServiceSpec
from pulumi_kubernetes.meta.v1 import LabelSelectorArgs, ObjectMetaArgs
from pulumi_kubernetes.networking.v1 import (
    IPBlockArgs,
    NetworkPolicyEgressRuleArgs,
    NetworkPolicyIngressRuleArgs,
    NetworkPolicyPeerArgs,
    NetworkPolicyPortArgs,
    NetworkPolicySpecArgs,
)

from infra.platform.component import Component
from slipway.errors import SlipwayError

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

    @property
    def key(self) -> tuple[str, str]:
        return self.namespace, self.name


DNS = NetworkPolicyEgressRuleArgs(
    to=[Peer("kube-system", "kube-dns", {"k8s-app": "kube-dns"}).peer],
    ports=[NetworkPolicyPortArgs(port=53, protocol=protocol) for protocol in ("UDP", "TCP")],
)


@dataclass(frozen=True)
class Flow:
    """`source` may open connections to `target` on these TCP ports of its pods."""

    source: Peer
    target: Peer
    ports: tuple[int, ...]


@dataclass(frozen=True)
class Elsewhere:
    """Addresses that are no pod's (a CIDR), and TCP ports there."""

    cidr: str
    ports: tuple[int, ...]


@dataclass(frozen=True)
class Api:
    """The Kubernetes API: where its servers are, and the Service by whose address pods call them.

    Both are named, as no selector names either. Most networks judge a connection once its address
    is a server's; EKS' own judges it before, by the Service's.
    """

    servers: pulumi.Input[Sequence[Elsewhere]]
    service: pulumi.Input[Sequence[Elsewhere]]


def api_server(opts: pulumi.ResourceOptions) -> Api:
    """The API of a cluster that is there, as it tells of itself."""
    name, there = "api-server", "default/kubernetes"
    told = k8s.discovery.v1.EndpointSlice.get(name, there, pulumi.ResourceOptions.merge(opts, None))
    service = k8s.core.v1.Service.get(name, there, pulumi.ResourceOptions.merge(opts, None))

    def places(told: Sequence[Any]) -> Sequence[Elsewhere]:
        endpoints, listed = told
        ports = tuple(int(port["port"]) for port in listed or ())
        found = [
            Elsewhere(_only(address), ports)
            for endpoint in endpoints or ()
            for address in endpoint["addresses"]
        ]
        if not found or not ports:
            # A rule that names nobody would let everybody be reached.
            raise SlipwayError(
                "EndpointSlice default/kubernetes tells no address of the API server",
                fix="kubectl get endpointslice kubernetes -o yaml",
            )
        return found

    def address(spec: ServiceSpec) -> Sequence[Elsewhere]:
        # Every cluster's has one, and a port.
        return [
            Elsewhere(_only(spec.cluster_ip or ""), tuple(int(p.port) for p in spec.ports or ()))
        ]

    return Api(
        servers=pulumi.Output.all(told.endpoints, told.ports).apply(places),
        service=service.spec.apply(address),
    )


def _only(address: str) -> str:
    """The network that has this address and no other."""
    return f"{address}/{ipaddress.ip_address(address).max_prefixlen}"


@dataclass(frozen=True)
class NetworkArgs:
    namespaces: Mapping[str, pulumi.Input[str]]
    """Every namespace of the platform: name to its output."""
    flows: Sequence[Flow]
    api_clients: Sequence[Peer]
    """Pods that call the Kubernetes API."""
    api: Api
    from_outside: Sequence[tuple[Peer, int]]
    """Ports that node ports lead to: their clients have no pod either."""
    from_api: Sequence[tuple[Peer, int]] = ()
    """Ports that people reach through the API server."""
    from_others: Sequence[tuple[str, Peer, int]] = ()
    """Ports that all pods of a namespace reach which is not the platform's."""
    elsewhere: Sequence[tuple[Peer, Elsewhere]] = ()
    """What pods reach outside the cluster."""


class Network(Component):
    """Default deny in every namespace but for DNS, and a policy for each peer of a flow."""

    def __init__(
        self, name: str, args: NetworkArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("Network", name, opts)
        self._namespaces = args.namespaces
        for namespace in args.namespaces:
            self._policy(Peer(namespace, "default"), [], [DNS])
        peers = {p.key: p for f in args.flows for p in (f.source, f.target)}
        peers |= {p.key: p for p in args.api_clients}
        peers |= {p.key: p for p, _ in args.elsewhere}
        for peer in peers.values():
            ingress = [
                NetworkPolicyIngressRuleArgs(from_=[f.source.peer], ports=_ports(*f.ports))
                for f in args.flows
                if f.target.key == peer.key
            ]
            egress = [
                NetworkPolicyEgressRuleArgs(to=[f.target.peer], ports=_ports(*f.ports))
                for f in args.flows
                if f.source.key == peer.key
            ]
            if peer.key in {p.key for p in args.api_clients}:
                egress += [_to(args.api.servers), _to(args.api.service)]
            egress += [
                NetworkPolicyEgressRuleArgs(
                    to=[NetworkPolicyPeerArgs(ip_block=IPBlockArgs(cidr=there.cidr))],
                    ports=_ports(*there.ports),
                )
                for p, there in args.elsewhere
                if p.key == peer.key
            ]
            ingress += [
                NetworkPolicyIngressRuleArgs(ports=_ports(port))
                for p, port in args.from_outside
                if p.key == peer.key
            ]
            ingress += [
                NetworkPolicyIngressRuleArgs(from_=_at(args.api.servers), ports=_ports(port))
                for p, port in args.from_api
                if p.key == peer.key
            ]
            ingress += [
                NetworkPolicyIngressRuleArgs(from_=[_all_of(other)], ports=_ports(port))
                for other, p, port in args.from_others
                if p.key == peer.key
            ]
            self._policy(peer, ingress, egress)
        self.register_outputs({})

    def _policy(
        self,
        peer: Peer,
        ingress: list[NetworkPolicyIngressRuleArgs],
        egress: list[NetworkPolicyEgressRuleArgs],
    ) -> None:
        """Both directions are named even where nothing is allowed: that is what denies."""
        k8s.networking.v1.NetworkPolicy(
            f"{peer.namespace}-{peer.name}",
            metadata=ObjectMetaArgs(name=peer.name, namespace=self._namespaces[peer.namespace]),
            spec=NetworkPolicySpecArgs(
                pod_selector=peer.selector,
                policy_types=["Ingress", "Egress"],
                ingress=ingress or None,
                egress=egress or None,
            ),
            opts=self.child(),
        )


def _to(places: pulumi.Input[Sequence[Elsewhere]]) -> NetworkPolicyEgressRuleArgs:
    """Connections to these addresses, each on every port of any."""

    def ports(found: Sequence[Elsewhere]) -> list[NetworkPolicyPortArgs]:
        return _ports(*dict.fromkeys(port for there in found for port in there.ports))

    known = pulumi.Output.from_input(places)
    return NetworkPolicyEgressRuleArgs(to=_at(places), ports=known.apply(ports))


def _all_of(namespace: str) -> NetworkPolicyPeerArgs:
    return NetworkPolicyPeerArgs(
        namespace_selector=LabelSelectorArgs(match_labels={NAMESPACE: namespace})
    )


def _at(places: pulumi.Input[Sequence[Elsewhere]]) -> pulumi.Output[list[NetworkPolicyPeerArgs]]:
    """Addresses, each once."""

    def blocks(found: Sequence[Elsewhere]) -> list[NetworkPolicyPeerArgs]:
        return [
            NetworkPolicyPeerArgs(ip_block=IPBlockArgs(cidr=cidr))
            for cidr in dict.fromkeys(there.cidr for there in found)
        ]

    return pulumi.Output.from_input(places).apply(blocks)


def _ports(*numbers: int) -> list[NetworkPolicyPortArgs]:
    return [NetworkPolicyPortArgs(port=number, protocol="TCP") for number in numbers]
