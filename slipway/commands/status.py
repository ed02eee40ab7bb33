"""`slipway status`"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from slipway import board, paths
from slipway.board import Remaining, Row
from slipway.commands import Output, out, say, short, show_json
from slipway.endpoints import Cluster
from slipway.errors import BadInput
from slipway.release import ENVIRONMENTS
from slipway.repository import Repository


def command(
    git: Annotated[
        bool, typer.Option("--git", help="From git alone: what is released, whatever runs.")
    ] = False,
    repo: Annotated[
        Path | None,
        typer.Option(help="With --git: a clone, bare or not; default: this checkout."),
    ] = None,
    output: Output = "text",
) -> None:
    """What runs where: each model in each environment, and whether it answers as git says."""
    if repo and not git:
        raise BadInput("says which clone --git reads", field="--repo", fix="add --git")
    if git:
        with Repository(repo or paths.REPOSITORY) as repository:
            tip = repository.commit("HEAD")
            rows = board.rows_from_git(repository, tip)
        say(f"as of commit {tip[:12]}")
    else:
        rows = board.look(Cluster.connect(), say)
    if output == "json":
        show_json(board.documents(rows, running=not git))
        return
    if not rows:
        say("nothing is released yet; try: slipway train flight_delay --wait")
        return
    out.print(table(rows, running=not git))
    for line in news(rows):
        out.print(line, markup=False, soft_wrap=True)
    for row in rows:
        if row.problem:
            say(row.problem)


def table(rows: list[Row], *, running: bool) -> Table:
    """The board for a terminal: a row a model, a column an environment.

    Beside version and bento stand, where it is `running` that was looked at, three marks: synced,
    healthy, and answers with this bento.
    """
    others = dict.fromkeys(r.environment for r in rows if r.environment not in ENVIRONMENTS)
    environments = [*ENVIRONMENTS, *others]
    legend = "each version: its bento; synced, healthy, answers with this bento"
    made = Table(box=None, pad_edge=False, caption=legend if running else None)
    made.caption_justify = "left"
    for column in ("MODEL", *(env.upper() for env in environments)):
        made.add_column(column, no_wrap=True)
    cells = {(row.model, row.environment): row for row in rows}
    for model in dict.fromkeys(row.model for row in rows):
        found = [cells.get((model, env)) for env in environments]
        made.add_row(model, *(_cell(row, running) for row in found))
    return made


def _cell(row: Row | None, running: bool) -> Text:
    if row is None:
        return Text("-", "dim")
    if row.problem:
        return Text("bad file", "red")
    if row.version is None:
        return Text("proposed", "yellow")
    cell = Text(f"{row.version} {short(row.bento)}")
    if running:
        for good in (row.sync == "Synced", row.health == "Healthy", row.serving):
            cell.append(" ")
            cell.append("✓" if good else "✗", "green" if good else "red")
    return cell


def news(rows: list[Row]) -> Iterator[str]:
    """A line for each thing that is under way, or not as it should be."""
    for row in rows:
        where = f"{row.model} in {row.environment}"
        # Where no Application is yet, that nothing answers is said already by the marks.
        if row.version and row.sync:
            wrong = [
                *([row.sync] if row.sync != "Synced" else []),
                *([row.health] if row.health and row.health != "Healthy" else []),
                *([_answers(row)] if not row.serving else []),
            ]
            if wrong:
                yield f"{where}: {', '.join(wrong)}"
        if row.doubt:
            yield f"{where}: past the gates: {row.doubt}"
        if row.drift:
            alias = f"version {row.alias}" if row.alias else "not set"
            yield f"{where}: MLflow's @{row.environment} is {alias}, git says {row.version}"
        if row.soak:
            yield f"{where}: {_soak(row.soak)}"
        for pull in row.pull_requests:
            yield f"#{pull.number} {pull.title}: gates {pull.gates or 'not yet'}, {pull.url}"


def _answers(row: Row) -> str:
    return f"{short(row.answers)} answers" if row.answers else "nothing answers"


def _soak(left: Remaining) -> str:
    if left.over:
        return f"has served long enough for {left.before}"
    parts = [
        f"{_lasting(left.seconds)}" if left.seconds else "",
        f"{left.predictions:,} predictions" if left.predictions else "",
        f"{left.labelled:,} labelled ones" if left.labelled else "",
    ]
    return f"{', '.join(filter(None, parts))} to go before {left.before}"


def _lasting(seconds: int) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds} s"
