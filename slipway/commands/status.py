"""`slipway status`"""

from __future__ import annotations

from rich.table import Table

from slipway import board
from slipway.board import Row
from slipway.commands import Output, out, say, short, show_json
from slipway.endpoints import Cluster


def command(output: Output = "text") -> None:
    """What runs where: each model in each environment, and whether it answers as git says."""
    cluster = Cluster.connect()
    rows = board.rows(cluster, board.files(cluster, say))
    if output == "json":
        show_json(board.documents(rows))
    elif rows:
        out.print(table(rows))
    else:
        say("nothing is released yet; try: slipway train flight_delay --wait")
    for row in rows:
        if row.problem and output == "text":
            say(row.problem)


def table(rows: list[Row]) -> Table:
    """The board for a terminal."""
    made = Table(box=None, pad_edge=False)
    for column in ("MODEL", "ENVIRONMENT", "VERSION", "BENTO", "SYNCED", "HEALTHY", "ANSWERS"):
        made.add_column(column, no_wrap=True)
    for row in rows:
        version = "[red]bad file[/]" if row.problem else str(row.version)
        made.add_row(
            row.model,
            row.environment,
            version,
            short(row.bento),
            _verdict(row.sync, "Synced"),
            _verdict(row.health, "Healthy"),
            _answers(row),
        )
    return made


def _verdict(found: str | None, good: str) -> str:
    if found == good:
        return "[green]yes[/]"
    return f"[red]{found}[/]" if found else "-"


def _answers(row: Row) -> str:
    if row.serving:
        return "[green]yes[/]"
    return f"[red]{short(row.answers)}[/]" if row.answers else "[red]no[/]"
