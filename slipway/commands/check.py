"""`slipway check`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from slipway import paths, report
from slipway.check import FOLDER, check, default_base
from slipway.commands import say, show, show_json
from slipway.endpoints import Cluster
from slipway.repository import Repository
from slipway.sources import Platform


def command(
    base: Annotated[
        str | None,
        typer.Option(metavar="REV", help="Where it is to be merged. [default: origin/main, main]"),
    ] = None,
    head: Annotated[str, typer.Option(metavar="REV", help="What is proposed.")] = "HEAD",
    keys: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Public keys (PEM) to verify evidence by. [default: the platform's]",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    evidence: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Evidence as files called by their digest's hex. [default: the platform's]",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    repo: Annotated[
        Path, typer.Option(metavar="PATH", help="A clone, bare or not.", show_default=False)
    ] = paths.REPOSITORY,
    output: Annotated[
        Literal["text", "json", "markdown"],
        typer.Option("-o", "--output", help="How to show what was found."),
    ] = "text",
) -> None:
    """Whether a change of environments/ may be merged. Exit code 1: a gate fails; 2: bad input.

    It is judged by the thresholds and against the champions of the base. What needs the platform
    (evidence and bentos not seen here before, soak) fails and says so where there is none.
    """
    with Repository(repo) as repository:
        onto = base or default_base(repository)
        source = Platform(Cluster.connect, folder=evidence, keys=keys)
        verdict = check(repository, onto, head, source=source)
        if head == "HEAD" and repository.is_dirty(FOLDER):
            say(f"not looked at: changes of {FOLDER}/ that are not committed")
    if output == "json":
        show_json(report.document(verdict))
    elif output == "markdown":
        typer.echo(report.markdown(verdict), nl=False)
    else:
        show(report.text(verdict))
    raise typer.Exit(verdict.exit_code)
