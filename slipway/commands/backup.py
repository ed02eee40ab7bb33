"""`slipway backup`"""

from __future__ import annotations

from typing import Annotated

import typer

from slipway import pulumi, up
from slipway.backup import place, shelf, take
from slipway.commands import Output, err, say, show_json

Where = Annotated[
    str,
    typer.Argument(
        metavar="PLACE",
        help="A folder, or s3://BUCKET/PREFIX with the endpoint and keys of the AWS variables.",
        show_default=False,
    ),
]


def command(
    where: Where,
    keep: Annotated[
        int | None,
        typer.Option(
            "--keep",
            min=1,
            help="Then remove all but so many of this stack, and the objects only those named.",
        ),
    ] = None,
    stack: Annotated[str, typer.Option("--stack", "-s", help="Whose platform.")] = up.STACK,
    output: Output = "text",
) -> None:
    """Copy the platform's data to another place, while it runs: what it takes to `restore` it.

    That is the forge, MLflow, the store's objects and all generated secrets. Objects that are there
    already are not copied again. What could open doors is encrypted by the passphrase of this
    machine's Pulumi states, which is in no backup: keep it elsewhere.
    """
    target = place.at(where, new=True)
    taken = take.take(target, stack, up.Report(err))
    gone = shelf.keep(target, keep, stack) if keep else []
    if output == "json":
        show_json({"name": taken.name, "removed": gone, **taken.model_dump(mode="json")})
    for name in gone:
        say(f"removed {name}")
    for what in taken.elsewhere:
        say(f"not in it: {what}")
    say(f"backup {taken.name} is in {target}")
    say(f"nobody restores it without what is in {pulumi.passphrase_file()}: keep that elsewhere")
