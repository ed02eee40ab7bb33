"""`slipway push`"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from slipway import doctor, images, paths, up
from slipway.commands import err, say
from slipway.errors import BadInput


def command(
    registry: Annotated[
        str,
        typer.Argument(
            metavar="REGISTRY",
            help="Where the cluster pulls from, e.g. registry.example.com/ml; "
            "log in to it with `skopeo login` first.",
            show_default=False,
        ),
    ],
) -> None:
    """Build and push the images that only Slipway has, for a cluster that exists. Root, on Debian.

    Prints the lines that name them for the stack file.
    """
    images.check_registry(registry)
    if os.geteuid() or not doctor.on_debian():
        raise BadInput(
            "images are built by root on Debian or Ubuntu only",
            fix="run it there; the cluster and `make up` need nothing of that machine",
        )
    report, names = up.Report(err), images.own()
    up.packages(report)
    with report.step("images") as tell:
        images.build(names, progress=up.news(tell, "cached"))
    with report.step("push") as tell:
        references = images.deliver(registry, names, progress=up.news(tell))
    say(f"for {paths.told(paths.stack_file(up.STACK))}, under config:")
    typer.echo("  slipway:images:")
    for name in names:
        typer.echo(f"    {name}: {references[name]}")
