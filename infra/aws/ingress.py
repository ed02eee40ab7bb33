"""The consoles from outside: one load balancer with TLS, which lets nobody through without a login,
and nobody write to a console that asks for none itself.

Pulumi makes it, not a controller in the cluster: so it is in the state, and goes with the stack.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
from pulumi_aws.acm.certificate import Certificate
from pulumi_aws.acm.certificate_validation import CertificateValidation
from pulumi_aws.autoscaling.attachment import Attachment
from pulumi_aws.ec2.security_group import SecurityGroup
from pulumi_aws.lb._inputs import (
    ListenerRuleActionArgsDict,
    ListenerRuleConditionArgsDict,
)
from pulumi_aws.lb.listener import Listener
from pulumi_aws.lb.listener_rule import ListenerRule
from pulumi_aws.lb.load_balancer import LoadBalancer
from pulumi_aws.lb.target_group import TargetGroup
from pulumi_aws.route53.record import Record
from pulumi_aws.secretsmanager.get_secret_version import get_secret_version_output
from pulumi_aws.vpc.security_group_egress_rule import SecurityGroupEgressRule
from pulumi_aws.vpc.security_group_ingress_rule import SecurityGroupIngressRule

from infra.aws.component import AwsComponent, Context
from infra.aws.config import Domain, Oidc

# A rule has five values at most; host and method are two.
PATHS = 3
TLS = "ELBSecurityPolicy-TLS13-1-2-2021-06"


@dataclass(frozen=True)
class Console:
    """A service of the cluster by its node port, and where it says that it is well."""

    node_port: int
    health: str
    reads: Sequence[str] | None = None
    """Of a console without users of its own: the paths to which a POST only reads. Beside those,
    only GET passes. None: the console has a login, and everything passes."""


@dataclass(frozen=True)
class IngressArgs:
    context: Context
    domain: Domain
    oidc: Oidc
    vpc_id: pulumi.Input[str]
    subnets: Sequence[pulumi.Input[str]]
    """Public ones, one a zone."""
    ways: Sequence[pulumi.Resource]
    """What leads to the internet from there, without which AWS makes no load balancer."""
    nodes: pulumi.Input[str]
    """Security group of the nodes."""
    group: pulumi.Input[str]
    """The platform's Auto Scaling group."""
    consoles: Mapping[str, Console]
    """First part of the name to the console."""


class Ingress(AwsComponent):
    """`addresses`: of each console."""

    addresses: dict[str, str]

    def __init__(
        self, name: str, args: IngressArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("Ingress", name, args.context, opts)
        self.addresses = {c: f"https://{c}.{args.domain.name}" for c in args.consoles}
        balancer = self._balancer(args)
        listener = Listener(
            "https",
            load_balancer_arn=balancer.arn,
            port=443,
            protocol="HTTPS",
            ssl_policy=TLS,
            certificate_arn=self._certificate(args),
            default_actions=[
                {
                    "type": "fixed-response",
                    "fixed_response": {"content_type": "text/plain", "status_code": "404"},
                }
            ],
            tags=args.context.tagged("https"),
            opts=self.child(),
        )
        secret = get_secret_version_output(
            secret_id=args.oidc.clientSecret, opts=pulumi.InvokeOutputOptions(parent=self)
        )
        login = _login(args.oidc, secret.secret_string)
        priority = 1
        for console, what in args.consoles.items():
            target = self._target(args, balancer, console, what)
            for name, rule in _rules(console, what).items():
                ListenerRule(
                    name,
                    listener_arn=listener.arn,
                    priority=priority,
                    conditions=[
                        {"host_header": {"values": [f"{console}.{args.domain.name}"]}},
                        *rule.conditions,
                    ],
                    actions=[login, {**(rule.instead or _to(target)), "order": 2}],
                    tags=args.context.tagged(name),
                    opts=self.child(),
                )
                priority += 1
        self.register_outputs({"addresses": self.addresses})

    def _balancer(self, args: IngressArgs) -> LoadBalancer:
        tags = args.context.tagged("consoles")
        group = SecurityGroup(
            "consoles",
            vpc_id=args.vpc_id,
            description="Load balancer of the consoles",
            tags=tags,
            opts=self.child(),
        )
        for i, cidr in enumerate(args.domain.openTo):
            SecurityGroupIngressRule(
                f"consoles-{i}",
                security_group_id=group.id,
                description="HTTPS, to the login",
                cidr_ipv4=cidr,
                ip_protocol="tcp",
                from_port=443,
                to_port=443,
                tags=tags,
                opts=self.child(),
            )
        SecurityGroupEgressRule(
            "consoles-login",
            security_group_id=group.id,
            description="The identity provider",
            cidr_ipv4="0.0.0.0/0",
            ip_protocol="tcp",
            from_port=443,
            to_port=443,
            tags=tags,
            opts=self.child(),
        )
        for console, what in args.consoles.items():
            SecurityGroupEgressRule(
                f"consoles-{console}",
                security_group_id=group.id,
                description=f"To {console}",
                referenced_security_group_id=args.nodes,
                ip_protocol="tcp",
                from_port=what.node_port,
                to_port=what.node_port,
                tags=tags,
                opts=self.child(),
            )
            SecurityGroupIngressRule(
                f"nodes-{console}",
                security_group_id=args.nodes,
                description=f"{console}, from the load balancer",
                referenced_security_group_id=group.id,
                ip_protocol="tcp",
                from_port=what.node_port,
                to_port=what.node_port,
                tags=tags,
                opts=self.child(),
            )
        return LoadBalancer(
            "consoles",
            name=args.context.name,
            load_balancer_type="application",
            internal=False,
            subnets=list(args.subnets),
            security_groups=[group.id],
            drop_invalid_header_fields=True,
            enable_deletion_protection=args.context.kept,
            tags=tags,
            opts=self.child(*args.ways),
        )

    def _certificate(self, args: IngressArgs) -> pulumi.Output[str]:
        certificate = Certificate(
            "consoles",
            domain_name=f"*.{args.domain.name}",
            validation_method="DNS",
            tags=args.context.tagged("consoles"),
            opts=self.child(),
        )
        option = certificate.domain_validation_options[0]
        proof = Record(
            "consoles-proof",
            zone_id=args.domain.zone,
            name=option.resource_record_name,
            type=option.resource_record_type,
            records=[option.resource_record_value],
            ttl=300,
            opts=self.child(),
        )
        return CertificateValidation(
            "consoles",
            certificate_arn=certificate.arn,
            validation_record_fqdns=[proof.fqdn],
            opts=self.child(),
        ).certificate_arn

    def _target(
        self, args: IngressArgs, balancer: LoadBalancer, console: str, what: Console
    ) -> TargetGroup:
        """Where a console is, and the name by which the world finds it."""
        tags = args.context.tagged(console)
        target = TargetGroup(
            console,
            name=f"{args.context.name}-{console}"[:32],
            port=what.node_port,
            protocol="HTTP",
            target_type="instance",
            vpc_id=args.vpc_id,
            deregistration_delay=30,
            health_check={"path": what.health, "matcher": "200-399", "protocol": "HTTP"},
            tags=tags,
            opts=self.child(),
        )
        Attachment(
            console,
            autoscaling_group_name=args.group,
            lb_target_group_arn=target.arn,
            opts=self.child(),
        )
        Record(
            console,
            zone_id=args.domain.zone,
            name=f"{console}.{args.domain.name}",
            type="A",
            aliases=[
                {
                    "name": balancer.dns_name,
                    "zone_id": balancer.zone_id,
                    "evaluate_target_health": False,
                }
            ],
            opts=self.child(),
        )
        return target


@dataclass(frozen=True)
class _Rule:
    conditions: Sequence[ListenerRuleConditionArgsDict] = ()
    """Beside the host."""
    instead: ListenerRuleActionArgsDict | None = None
    """What is answered in the console's place."""


def _rules(console: str, what: Console) -> dict[str, _Rule]:
    """The rules of a console in the order in which they are asked, by name."""
    if what.reads is None:
        return {console: _Rule()}
    look = {console: _Rule([_by("GET", "HEAD")])}
    for at in range(0, len(what.reads), PATHS):
        paths: ListenerRuleConditionArgsDict = {
            "path_pattern": {"values": [*what.reads[at : at + PATHS]]}
        }
        look[f"{console}-search-{at // PATHS}"] = _Rule([_by("POST"), paths])
    said = f"{console} is only read here: what is written comes from inside the cluster\n"
    return look | {
        f"{console}-writes": _Rule(
            instead={
                "type": "fixed-response",
                "fixed_response": {
                    "content_type": "text/plain",
                    "message_body": said,
                    "status_code": "403",
                },
            }
        )
    }


def _by(*methods: str) -> ListenerRuleConditionArgsDict:
    return {"http_request_method": {"values": [*methods]}}


def _to(target: TargetGroup) -> ListenerRuleActionArgsDict:
    return {"type": "forward", "target_group_arn": target.arn}


def _login(oidc: Oidc, secret: pulumi.Output[str]) -> ListenerRuleActionArgsDict:
    return {
        "type": "authenticate-oidc",
        "order": 1,
        "authenticate_oidc": {
            "issuer": oidc.issuer,
            "authorization_endpoint": oidc.authorizationEndpoint,
            "token_endpoint": oidc.tokenEndpoint,
            "user_info_endpoint": oidc.userInfoEndpoint,
            "client_id": oidc.clientId,
            "client_secret": pulumi.Output.secret(secret),
            "on_unauthenticated_request": "authenticate",
            "scope": "openid",
        },
    }
