"""`slipway pulumi`"""

from __future__ import annotations

import time
from typing import Annotated

import typer

from slipway import pulumi, up


def command(
    context: typer.Context,
    stack: Annotated[str, typer.Option("--stack", "-s", help="Stack to work on.")] = up.STACK,
) -> None:
    """The Pulumi engine on this project: backend, plugins and passphrase are set."""
    began = time.monotonic()
    whole = context.args[:1] == ["destroy"] and stack == up.STACK and pulumi.is_embedded(stack)
    had = whole and pulumi.known(stack).types
    code = pulumi.run(stack, *context.args)
    if had and not pulumi.known(stack).types:
        up.record("destroy", time.monotonic() - began)
    raise typer.Exit(code)


SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}
