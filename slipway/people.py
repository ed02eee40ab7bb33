"""What people may do on a platform that they share: one table.

The stack's Roles are made of it (infra/platform/people.py), and a refusal says by it who has what
was refused. Nobody in it administers anything: what runs changes by pull request alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from slipway.release import ENVIRONMENTS

Role = Literal["viewer", "promoter", "labeller"]
ROLES: tuple[Role, ...] = get_args(Role)
# Stands for the namespace of each environment.
ENVIRONMENT = "ENV"
READ = ("get", "list", "watch")
# Newer API servers ask for both.
FORWARD = ("create", "get")
ARGO = "argoproj.io"
# Workflow templates that a person starts; all others are the platform's own to start.
STARTED = ("experiments", "promote", "reproduce", "train")


@dataclass(frozen=True)
class Grant:
    """Verbs on kinds of an API group in one namespace; of some objects only, where it has names."""

    namespace: str
    kinds: tuple[str, ...]
    verbs: tuple[str, ...]
    group: str = ""
    names: tuple[str, ...] = ()

    def places(self, environments: Sequence[str] = ENVIRONMENTS) -> Sequence[str]:
        """The namespaces that are meant."""
        return environments if self.namespace == ENVIRONMENT else (self.namespace,)

    def covers(self, access: Access) -> bool:
        """Whether it lets somebody do this."""
        return (
            access.namespace in self.places()
            and (access.group, access.kind) in {(self.group, kind) for kind in self.kinds}
            and access.verb in self.verbs
            and (not self.names or access.name in self.names)
        )


@dataclass(frozen=True)
class Access:
    """One request, as the API server judges it; `name` is "" for a list, or a thing to be made."""

    verb: str
    kind: str
    group: str = ""
    namespace: str = ""
    name: str = ""


# Nobody reads a Secret but these two: a key that reads the object store, and one that adds labels.
READER, LABELS = "reader", "labels"
GRANTS: dict[Role, tuple[Grant, ...]] = {
    "viewer": (
        Grant("argocd", ("applications",), READ, ARGO),
        Grant("pipelines", ("cronworkflows", "workflows", "workflowtemplates"), READ, ARGO),
        Grant("pipelines", ("events", "pods"), READ),
        Grant("pipelines", ("pods/log",), ("get",)),
        Grant("pipelines", ("configmaps",), ("get",), names=("evidence-keys", "platform")),
        Grant("pipelines", ("secrets",), ("get",), names=(READER,)),
        Grant(ENVIRONMENT, ("deployments", "replicasets"), READ, "apps"),
        Grant(ENVIRONMENT, ("events", "pods", "services"), READ),
        Grant(ENVIRONMENT, ("pods/log", "services/proxy"), ("get",)),
        # By GET alone, so that who looks at runs and models changes none.
        Grant("mlflow", ("services/proxy",), ("get",), names=("mlflow:main",)),
        # Both ask who it is. PostgreSQL, beside the store, is not reached.
        Grant("storage", ("services",), ("get",), names=("minio",)),
        Grant("storage", ("pods",), ("list",)),
        Grant("storage", ("pods/portforward",), FORWARD, names=("minio-0",)),
        Grant("forge", ("services",), ("get",), names=("gitea",)),
        Grant("forge", ("pods",), ("list",)),
        Grant("forge", ("pods/portforward",), FORWARD),
    ),
    "promoter": (
        # Admission says which templates it may run, and that it says nothing beside arguments.
        Grant("pipelines", ("workflows",), ("create",), ARGO),
        # A prediction is a POST.
        Grant(ENVIRONMENT, ("services/proxy",), ("create",)),
    ),
    # How predictions turned out counts for promotion: not for those to say who promote.
    "labeller": (Grant("pipelines", ("secrets",), ("get",), names=(LABELS,)),),
}
_REFUSAL = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\w+) resource "(?P<kind>[^"]*)" '
    r'in API group "(?P<group>[^"]*)"(?: in the namespace "(?P<namespace>[^"]*)")?'
)


def asked(message: str, name: str = "") -> Access | None:
    """What an API server's message says was refused for want of a right; None where it was not.

    Args:
        name: of the object, which the message has among other words.
    """
    found = _REFUSAL.search(message)
    if found is None:
        return None
    verb, kind, group, namespace = found.group("verb", "kind", "group", "namespace")
    return Access(verb, kind, group, namespace or "", name)


def having(access: Access) -> list[Role]:
    """The roles that let somebody do this; all others may what a viewer may."""
    return [role for role in ROLES if any(grant.covers(access) for grant in GRANTS[role])]


def advice(access: Access) -> str:
    """Whom to ask for what was refused."""
    for role in having(access):
        return (
            f"{role}s have this right: ask who keeps the stack file to put you, or a group of "
            f"yours, under slipway:people.{role}s"
        )
    return "no role of slipway:people has this right: ask who administers the cluster"
