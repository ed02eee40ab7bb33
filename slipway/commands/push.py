"""`slipway push`"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from slipway import doctor, images, paths, up
from slipway.commands import err, say
from slipway.ecr import Registry
from slipway.errors import BadInput


def command(
    registry: Annotated[
        str | None,
        typer.Argument(
            metavar="REGISTRY",
            help="Where the cluster pulls from, e.g. registry.example.com/ml; "
            "log in to it with `skopeo login` first. Without it: the ECR of a stack on AWS, "
            "which is made if it is not there.",
            show_default=False,
        ),
    ] = None,
    stack: Annotated[
        str, typer.Option("--stack", "-s", help="Whose stack file is to name the images.")
    ] = up.STACK,
) -> None:
    """Build and push the images that only Slipway has, for a cluster that exists, or a stack on
    AWS before its first `up`. Root, on Debian.

    Prints the lines that name them for the stack file.
    """
    target = registry if registry is not None else Registry.of(stack)
    if isinstance(target, str):
        images.check_registry(target)
    if os.geteuid() or not doctor.on_debian():
        raise BadInput(
            "images are built by root on Debian or Ubuntu only",
            fix="run it there; the cluster and `make up` need nothing of that machine",
        )
    report, names = up.Report(err), images.own()
    up.packages(report)
    with report.step("images") as tell:
        images.build(names, progress=up.news(tell, "cached"))
    if isinstance(target, str):
        references = _push(target, names, report)
    else:
        references = _push_to_own(target, names, report)
    say(f"for {paths.told(paths.stack_file(stack))}, under config:")
    typer.echo("  slipway:images:")
    for name in names:
        typer.echo(f"    {name}: {references[name]}")


def _push(
    registry: str, names: list[str], report: up.Report, login: Path | None = None
) -> dict[str, str]:
    with report.step("push") as tell:
        return images.deliver(registry, names, progress=up.news(tell, "pushed before"), login=login)


def _push_to_own(own: Registry, names: list[str], report: up.Report) -> dict[str, str]:
    """Without the registry's name: other stacks that pull from there write the same."""
    with report.step("registry") as tell:
        own.provide(tell)
    with own.login() as login:
        found = _push(own.address, names, report, login)
    return {name: said.removeprefix(f"{own.address}/") for name, said in found.items()}
