"""`slipway bench`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from slipway import bench
from slipway.bench.figures import TARGETS, Figure
from slipway.commands import Output, err, out, say, show_json
from slipway.errors import FAILED

_NAMES = ", ".join(TARGETS)


def command(
    figures: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FIGURE",
            help=f"Some of {_NAMES}; default: all but scale and gpus.",
            show_default=False,
        ),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(min=1, help="How many pushes and promotions; default: 20 of each."),
    ] = None,
    models: Annotated[
        int | None,
        typer.Option(min=1, max=5000, help="How many models for scale; default: 1,000."),
    ] = None,
    output: Output = "text",
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Where the JSON goes; default: bench.json in the state folder."
        ),
    ] = None,
) -> None:
    """Measure the running platform, each figure beside its target; half an hour for all.

    It pushes to the forge, trains and loads this machine, and leaves things as they were. A target
    that is missed is shown. Exit code 1: something could not be measured.
    """
    names = figures or []
    bench.check_names(names)
    with err.status("[bold]bench[/]") as spinner:

        def tell(figure: str, news: str) -> None:
            spinner.update(f"[bold]{figure}[/] {escape(news)}")
            if not err.is_terminal:
                say(f"{figure}: {news}")

        found = list(
            bench.measure(bench.platform(names), names, tell, rounds=rounds, models=models)
        )
    content = bench.document(found)
    place = file or bench.default_file()
    bench.write(place, content)
    if output == "json":
        show_json(content)
    else:
        out.print(table(found))
        say(f"JSON: {place}")
    if any(figure.problem for figure in found):
        raise typer.Exit(FAILED)


def table(figures: list[Figure]) -> Table:
    """The figures for a terminal."""
    made = Table(box=None, pad_edge=False)
    for column in ("FIGURE", "MEASURED", "TARGET", "MET", "HOW"):
        made.add_column(column, justify="right" if column in ("MEASURED", "TARGET") else "left")
    for figure in figures:
        target = figure.target
        sign = "≥" if target.at_least else "≤"
        made.add_row(
            target.what,
            amount(figure.value, target.unit),
            "-" if target.limit is None else f"{sign} {amount(target.limit, target.unit)}",
            {True: "[green]yes[/]", False: "[red]no[/]", None: "-"}[target.met(figure.value)],
            f"[red]{escape(figure.problem)}[/]" if figure.problem else escape(figure.how),
        )
    return made


def amount(value: float | None, unit: str) -> str:
    """Three digits that count, and the unit."""
    if value is None:
        return "-"
    if not unit:  # counted, not measured
        return f"{value:.0f}"
    digits = max(2 - len(str(int(value))) + 1, 0) if value < 100 else 0
    return f"{value:.{digits}f} {unit}"
