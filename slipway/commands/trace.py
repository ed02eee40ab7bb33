"""`slipway trace`"""

from __future__ import annotations

import typer
from rich.markup import escape
from rich.table import Table

from slipway import lineage, release, sources
from slipway.commands import Environment, Model, Output, out, say, show_json
from slipway.endpoints import Cluster
from slipway.lineage import Link


def command(model: Model, env: Environment, output: Output = "text") -> None:
    """From what answers back to the data, each link checked at its source. Exit code 1: broken."""
    release.check_environment(env)
    release.check_model_name(model)
    cluster = Cluster.connect()
    keys = sources.Platform(lambda: cluster).keys(env, fresh=True)
    with cluster.forge() as forge, cluster.store() as store:
        mlflow = lineage.mlflow(cluster)
        links = lineage.trace(cluster, forge, store, keys, mlflow, env, model)
    if output == "json":
        show_json([vars(link) for link in links])
    else:
        out.print(table(links))
    broken = [link.what for link in links if not link.ok]
    if broken:
        say(f"broken: {', '.join(broken)}")
        raise typer.Exit(1)


def table(links: list[Link]) -> Table:
    """The chain for a terminal."""
    made = Table(box=None, show_header=False, pad_edge=False)
    for link in links:
        mark = "[green]✓[/]" if link.ok else "[red]✗[/]"
        made.add_row(mark, link.what, shortened(link.value), escape(link.found))
    return made


def shortened(value: str) -> str:
    """A digest or commit as a person compares it; anything else as it is."""
    digits = value.removeprefix("sha256:")
    return digits[:12] if len(digits) in (32, 40, 64) else value
