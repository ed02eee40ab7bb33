"""No credential stands where everybody reads it."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

from policies.infrastructure.limits import Limits
from policies.infrastructure.resources import Resource, Stack, at, texts
from policies.infrastructure.rule import Rule, StackRule
from policies.infrastructure.rules.workloads import containers, pod_of

# What credentials look like, wherever they stand.
_SHAPES = {
    "an AWS access key": re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a GitHub token": re.compile(r"\b(gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{22,})\b"),
    "a password in an address": re.compile(r"\b[a-z][a-z0-9+]*://[^\s/:@${}]+:[^\s/@${}]+@"),
}
# What names of credentials end in. What points to one (…_FILE, …_NAME) is none.
_NAME = re.compile(
    r"(^|[_.-]|(?<=[a-z]))(password|passwd|secret|token|api_?key|private_?key|secret_?access_?key)$",
    re.IGNORECASE,
)
# Where secrets belong, or what the engine itself keeps secret.
_KEEPERS = {"secretsmanager/SecretVersion", "ssm/Parameter"}
_PASSWORDS = {
    "rds/Instance": ("password", "manageMasterUserPassword: true"),
    "rds/Cluster": ("masterPassword", "manageMasterUserPassword: true"),
    "secretsmanager/SecretVersion": ("secretString", "what a resource makes, such as a password"),
}
# Where a stack's slipway:forgeToken or slipway:forgeAppKey goes: it is somebody's, encrypted in the
# stack file, so that no resource makes it.
_GIVEN = {"argocd-repository", "forge-app", "pipelines-forge"}


def secrets_not_in_the_open(resource: Resource, limits: Limits) -> Iterator[str]:
    """Nothing that everyone can read looks like a credential."""
    if resource.kind == "Secret" or resource.aws in _KEEPERS or _is_provider(resource):
        return
    # A definition describes what fields hold, with examples.
    if resource.kind == "CustomResourceDefinition":
        return
    for where, text in texts(resource.properties):
        for decoded in _readings(where, text):
            for what, shape in _SHAPES.items():
                if shape.search(decoded):
                    yield f"{where} holds {what}; keep it in a Secret, and refer to it"


def secrets_referred_to(resource: Resource, limits: Limits) -> Iterator[str]:
    """A container gets credentials from Secrets."""
    for container in containers(pod_of(resource)):
        for variable in cast("list[Any]", container.get("env") or []):
            name, value = at(variable, "name"), at(variable, "value")
            if isinstance(value, str) and value and _NAME.search(str(name)):
                where = f"containers[{container.get('name')}].env[{name}]"
                yield f"{where}: has a value; use valueFrom.secretKeyRef"
    if resource.kind == "ConfigMap":
        for name, value in _entries(resource.get("data")):
            if isinstance(value, str) and value and _NAME.search(name):
                yield f"data.{name}: is for everybody who reads the namespace; use a Secret"


def passwords_made(stack: Stack, limits: Limits) -> Iterator[tuple[Resource, str]]:
    """A password is managed by AWS, generated, or given encrypted in the stack file."""
    for what, (field, instead) in _PASSWORDS.items():
        for holder in stack.on_aws(what):
            given = what == "secretsmanager/SecretVersion" and holder.name in _GIVEN
            if isinstance(holder.get(field), str) and not holder.refers.get(field) and not given:
                yield holder, f"{field} is written down; use {instead}"


def _is_provider(resource: Resource) -> bool:
    return resource.type.startswith(("pulumi:", "pulumi-python:"))


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from cast("Mapping[str, Any]", value).items()


def _readings(where: str, text: str) -> Iterator[str]:
    yield text
    # What a machine does at its first start is written in base64.
    if where.rpartition(".")[2] in ("userData", "userDataBase64"):
        try:
            yield base64.b64decode(text, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return


RULES = (Rule(secrets_not_in_the_open), Rule(secrets_referred_to), StackRule(passwords_made))
