"""A password made once, kept in Pulumi's state as a secret."""

from __future__ import annotations

from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider, UpdateResult


class RandomPasswordProvider(ResourceProvider):
    """Letters and digits only, so that a password fits a URL, an ini file and a shell alike."""

    def create(self, props: dict[str, Any]) -> CreateResult:
        import secrets
        import string

        alphabet = string.ascii_letters + string.digits
        result = "".join(secrets.choice(alphabet) for _ in range(int(props["length"])))
        return CreateResult(secrets.token_hex(8), {"length": props["length"], "result": result})

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        # An edit of this very file changes the serialized provider; it must not change a password.
        changed = int(_olds["length"]) != int(_news["length"])
        return DiffResult(changes=changed, replaces=["length"] if changed else [])

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        return UpdateResult({"length": _olds["length"], "result": _olds["result"]})


# Pickled by value, not by name: the process that runs the provider cannot import this package.
RandomPasswordProvider.__module__ = "__main__"


class RandomPassword(Resource, name="RandomPassword"):
    """`result`: the password. It changes only when `length` does."""

    result: pulumi.Output[str]

    def __init__(
        self, name: str, length: int = 32, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        secret = pulumi.ResourceOptions(additional_secret_outputs=["result"])
        super().__init__(
            RandomPasswordProvider(),
            name,
            {"length": length, "result": None},
            pulumi.ResourceOptions.merge(opts, secret),
        )
