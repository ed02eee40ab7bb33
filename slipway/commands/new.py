"""`slipway new`"""

from __future__ import annotations

from typing import Annotated

import typer

from slipway import paths, scaffold
from slipway.commands import Model, out, say


def command(
    model: Model,
    template: Annotated[
        str, typer.Option("--from", metavar="TEMPLATE", help="What to begin with.")
    ] = "classifier",
) -> None:
    """Make a bento folder that works as it is: it trains, serves and has tests."""
    for file in scaffold.create(model, template):
        out.print(file.relative_to(paths.REPOSITORY), markup=False, soft_wrap=True)
    say(f"next, here: slipway try {model}; then commit and push a branch, and on the platform:")
    say(f"slipway train {model} --commit BRANCH --wait")
    say("once merged it is trained and proposed by itself")
