"""IAM policy documents as data. What is wider than a name says why, or is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi

from slipway.errors import SlipwayError

Condition = Mapping[str, Mapping[str, "str | Sequence[str]"]]
VERSION = "2012-10-17"
POD_IDENTITY = "pods.eks.amazonaws.com"
ACTION = re.compile(r"[a-z0-9-]+:([A-Za-z0-9]+\*?|\*)")
# What is in one bucket or log group, and what AWS publishes for everybody.
WITHIN = re.compile(
    r"arn:aws:(s3:::[^*/]+/[^*]*|logs:[^*:]+:[^*:]+:log-group:[^*:]+:|"
    r"ssm:[^*:]+::parameter/aws/service/)\*"
)


@dataclass(frozen=True)
class Statement:
    """Allows `actions` on `resources` (ARNs). Everything else is denied already.

    `reason`: why an action or a resource is a wildcard; needed exactly where one is.
    """

    sid: str
    actions: Sequence[str]
    resources: Sequence[pulumi.Input[str]]
    conditions: Condition = field(default_factory=dict[str, "Mapping[str, str | Sequence[str]]"])
    reason: str = ""


def is_wide(resource: str) -> bool:
    """Whether a resource is more than one named thing and what is in it.

    `arn:aws:s3:::bucket/*` and `…:parameter/aws/service/*` are not; `*` and `…:role/slipway-*` are.
    """
    return "*" in resource and not WITHIN.fullmatch(resource)


def document(statements: Sequence[Statement]) -> pulumi.Output[str]:
    """The JSON text of a policy.

    Raises:
        SlipwayError: a statement has no name of its own, an action no service, or a wildcard no
            reason (and the other way round).
    """
    names = [s.sid for s in statements]
    if len(set(names)) < len(names):
        raise SlipwayError(f"statements share a name: {', '.join(names)}")
    resolved = pulumi.Output.all(*(pulumi.Output.all(*s.resources) for s in statements))
    return resolved.apply(
        lambda known: rendered(
            [
                _checked(statement, [str(arn) for arn in resources])
                for statement, resources in zip(statements, known, strict=True)
            ]
        )
    )


def _checked(statement: Statement, resources: list[str]) -> dict[str, Any]:
    for action in statement.actions:
        if not ACTION.fullmatch(action):
            raise SlipwayError(f"{statement.sid}: {action!r} is no action, e.g. s3:GetObject")
    wide = [a for a in statement.actions if "*" in a] + [r for r in resources if is_wide(r)]
    if bool(wide) != bool(statement.reason):
        problem = f"{', '.join(wide)} needs a reason" if wide else "a reason without a wildcard"
        raise SlipwayError(f"{statement.sid}: {problem}")
    return {
        "Sid": statement.sid,
        "Effect": "Allow",
        "Action": sorted(statement.actions),
        "Resource": resources,
        **({"Condition": statement.conditions} if statement.conditions else {}),
    }


def roots(accounts: Sequence[str]) -> list[str]:
    """Accounts as principals: in each its own policies say who."""
    return [f"arn:aws:iam::{account}:root" for account in accounts]


def rendered(statements: Sequence[Mapping[str, Any]]) -> str:
    """The JSON text of a policy, of statements as AWS writes them."""
    return json.dumps({"Version": VERSION, "Statement": list(statements)})


def trust(service: str, *, sessions: bool = False) -> str:
    """Who may assume a role: an AWS service.

    Args:
        sessions: it also tags its sessions, as EKS Pod Identity does.
    """
    actions = ["sts:AssumeRole", *(["sts:TagSession"] if sessions else [])]
    principal = {"Service": service}
    return rendered([{"Effect": "Allow", "Principal": principal, "Action": actions}])
