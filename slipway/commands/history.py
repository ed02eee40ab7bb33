"""`slipway history`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from slipway import paths, release
from slipway.check import default_base, newest_main
from slipway.commands import Environment, Model, Output, say, short, show, show_json
from slipway.endpoints import Cluster
from slipway.history import Entry, entries
from slipway.repository import Repository


def command(
    model: Model,
    env: Environment,
    output: Output = "text",
    limit: Annotated[int, typer.Option(min=0, help="The newest so many; 0: all.")] = 0,
    repo: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="A clone, as it is. [default: the forge's main]"),
    ] = None,
) -> None:
    """Who released what, when, and on what evidence: from git alone."""
    release.check_environment(env)
    release.check_model_name(model)
    with Repository(repo or paths.REPOSITORY) as repository:
        rev = default_base(repository) if repo else _main(repository)
        found = entries(repository, rev, env, model, limit)
    if output == "json":
        show_json([entry.document for entry in found])
    elif found:
        show(table(found))
    else:
        say(f"{model} was never released to {env}")


def _main(repository: Repository) -> str:
    """The forge's main where there is a platform, else what this clone has of it."""
    found, why = newest_main(repository, Cluster.connect)
    if why:
        say(why)
    return found


def table(found: list[Entry]) -> Table:
    """The history for a terminal."""
    made = Table(box=None, pad_edge=False)
    for column in ("WHEN", "WHAT", "VERSION", "BENTO", "EVIDENCE", "BY", "MERGED BY", "PULL"):
        made.add_column(column, no_wrap=True)
    made.add_column("SUMMARY")
    for entry in found:
        of = entry.release
        summary = of.evidence.summary if of else {}
        numbers = " ".join(f"{name} {value:g}" for name, value in summary.items())
        glass = f"break-glass by {entry.break_glass}" if entry.break_glass else ""
        made.add_row(
            f"{entry.when:%Y-%m-%d %H:%M}",
            entry.kind,
            str(of.version) if of else "-",
            short(of.bento.digest if of else None),
            short(of.evidence.digest if of else None),
            Text(entry.requested_by.partition(" <")[0] or entry.author),
            Text(entry.merger),
            f"#{entry.pull}" if entry.pull else entry.commit[:12],
            Text("; ".join(part for part in (numbers, glass) if part)),
        )
    return made
