"""Who may look, who may promote: Roles of the table in slipway/people.py, and whose they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s
from pulumi_kubernetes.admissionregistration.v1 import NamedRuleWithOperationsArgs
from pulumi_kubernetes.rbac.v1 import RoleRefArgs, SubjectArgs

from infra.config import Members
from infra.platform import pods
from infra.platform.component import Component
from infra.platform.rights import GROUP, Rule, policy_rules
from infra.platform.validation import validating
from slipway.people import ARGO, GRANTS, ROLES, STARTED, Grant, Role

PIPELINES = "pipelines"


@dataclass(frozen=True)
class PeopleArgs:
    namespaces: Mapping[str, pulumi.Input[str]]
    """Those that the stack has: name to its output."""
    environments: Sequence[str]
    members: Mapping[Role, Members]
    """Whoever has another role has the viewer's too."""


class People(Component):
    """For each role, a Role and its binding in every namespace where it may do something.

    Promoters make workflows, so admission says of which templates.
    """

    def __init__(
        self, name: str, args: PeopleArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("People", name, opts)
        promoters = args.members.get("promoter")
        # The rule first: nobody makes workflows without it.
        first = self._started_by(promoters, args.namespaces[PIPELINES]) if promoters else []
        for role in ROLES:
            subjects = _subjects(args.members, role)
            if not subjects:
                continue
            for namespace, grants in _by_namespace(role, args.environments).items():
                if namespace in args.namespaces:
                    self._role(role, namespace, args.namespaces[namespace], grants, subjects, first)
        self.register_outputs({})

    def _role(
        self,
        role: Role,
        place: str,
        namespace: pulumi.Input[str],
        grants: Sequence[Grant],
        subjects: Sequence[SubjectArgs],
        first: Sequence[pulumi.Resource],
    ) -> None:
        name = f"slipway-{role}"
        metadata = pods.metadata(name, namespace)
        rules = policy_rules([_rule(grant) for grant in grants])
        made = k8s.rbac.v1.Role(
            f"{place}-{role}", metadata=metadata, rules=rules, opts=self.child(*first)
        )
        k8s.rbac.v1.RoleBinding(
            f"{place}-{role}",
            metadata=metadata,
            role_ref=RoleRefArgs(api_group=GROUP, kind="Role", name=name),
            subjects=list(subjects),
            opts=self.child(made),
        )

    def _started_by(self, people: Members, namespace: pulumi.Input[str]) -> list[pulumi.Resource]:
        users, groups, templates = (
            json.dumps(list(names)) for names in (people.users, people.groups, STARTED)
        )
        return validating(
            self,
            "workflows-of-people",
            namespace,
            NamedRuleWithOperationsArgs(
                api_groups=[ARGO],
                api_versions=["*"],
                resources=["workflows"],
                operations=["CREATE", "UPDATE"],
            ),
            [
                (
                    f"object.spec.?workflowTemplateRef.?name.orValue('') in {templates}",
                    f"people start {', '.join(STARTED)}; the rest is the platform's own to start",
                )
            ],
            conditions={
                "is-a-promoter": f"request.userInfo.username in {users} || "
                f"request.userInfo.?groups.orValue([]).exists(g, g in {groups})"
            },
        )


def _rule(grant: Grant) -> Rule:
    rule = grant.group, list(grant.kinds), list(grant.verbs)
    return (*rule, list(grant.names)) if grant.names else rule


def _by_namespace(role: Role, environments: Sequence[str]) -> dict[str, list[Grant]]:
    found: dict[str, list[Grant]] = {}
    for grant in GRANTS[role]:
        for place in grant.places(environments):
            found.setdefault(place, []).append(grant)
    return found


def _subjects(members: Mapping[Role, Members], role: Role) -> list[SubjectArgs]:
    """Whose a role is, each once."""
    having = ROLES if role == "viewer" else (role,)
    named = {
        (kind, name): None
        for one in having
        if one in members
        for kind, names in (("User", members[one].users), ("Group", members[one].groups))
        for name in names
    }
    return [SubjectArgs(api_group=GROUP, kind=kind, name=name) for kind, name in named]
