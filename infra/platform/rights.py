"""What a service account may do, in the whole cluster or in one namespace."""

from __future__ import annotations

from collections.abc import Sequence

import pulumi
import pulumi_kubernetes as k8s
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs
from pulumi_kubernetes.rbac.v1 import PolicyRuleArgs, RoleRefArgs, SubjectArgs

from infra.platform import pods

GROUP = "rbac.authorization.k8s.io"
# API group, kinds, verbs; and the objects' names, where not all of the kinds are meant.
Rule = tuple[str, list[str], list[str]] | tuple[str, list[str], list[str], list[str]]
READ = ["get", "list", "watch"]


def policy_rules(rules: Sequence[Rule]) -> list[PolicyRuleArgs]:
    return [
        PolicyRuleArgs(
            api_groups=[group],
            resources=kinds,
            verbs=verbs,
            resource_names=names[0] if names else None,
        )
        for group, kinds, verbs, *names in rules
    ]


def cluster_rights(
    name: str,
    namespace: pulumi.Input[str],
    rules: Sequence[Rule],
    opts: pulumi.ResourceOptions,
) -> list[pulumi.Resource]:
    """ServiceAccount `name` in `namespace`, bound to a ClusterRole of its name."""
    everywhere = ObjectMetaArgs(name=name, labels=pods.labels(name))
    return [
        k8s.core.v1.ServiceAccount(name, metadata=pods.metadata(name, namespace), opts=opts),
        k8s.rbac.v1.ClusterRole(name, metadata=everywhere, rules=policy_rules(rules), opts=opts),
        k8s.rbac.v1.ClusterRoleBinding(
            name,
            metadata=everywhere,
            role_ref=RoleRefArgs(api_group=GROUP, kind="ClusterRole", name=name),
            subjects=[SubjectArgs(kind="ServiceAccount", name=name, namespace=namespace)],
            opts=opts,
        ),
    ]


def rights_in(
    name: str,
    namespace: pulumi.Input[str],
    rules: Sequence[Rule],
    account: pulumi.Input[str],
    opts: pulumi.ResourceOptions,
    *,
    resource: str | None = None,
) -> list[pulumi.Resource]:
    """Role `name` in `namespace` for the account of that name in the namespace `account`.

    Args:
        resource: what Pulumi calls them, where `name` has rights in several namespaces.
    """
    resource = resource or name
    where = pods.metadata(name, namespace)
    return [
        k8s.rbac.v1.Role(resource, metadata=where, rules=policy_rules(rules), opts=opts),
        k8s.rbac.v1.RoleBinding(
            resource,
            metadata=where,
            role_ref=RoleRefArgs(api_group=GROUP, kind="Role", name=name),
            subjects=[SubjectArgs(kind="ServiceAccount", name=name, namespace=account)],
            opts=opts,
        ),
    ]
