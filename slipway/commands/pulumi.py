"""`slipway pulumi`"""

from __future__ import annotations

from typing import Annotated

import typer

from slipway import pulumi, up


def command(
    context: typer.Context,
    stack: Annotated[str, typer.Option("--stack", "-s", help="Stack to work on.")] = up.STACK,
) -> None:
    """The Pulumi engine on this project: backend, plugins and passphrase are set."""
    raise typer.Exit(pulumi.run(stack, *context.args))


SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}
