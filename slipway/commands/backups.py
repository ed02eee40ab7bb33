"""`slipway backups`"""

from __future__ import annotations

from rich.table import Table

from slipway.backup import place, shelf
from slipway.backup.manifest import Manifest
from slipway.commands import Output, say, show, show_json
from slipway.commands.backup import Where


def command(where: Where, output: Output = "text") -> None:
    """List the backups in a place, the newest first. One that was never finished is none."""
    target = place.at(where)
    found = dict(reversed(shelf.backups(target).items()))
    if output == "json":
        shown = [
            {"name": name, "problem": None, **backup.model_dump(mode="json")}
            if isinstance(backup, Manifest)
            else {"name": name, "problem": str(backup)}
            for name, backup in found.items()
        ]
        show_json(shown)
        return
    if not found:
        say(f"no backup in {target}")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("NAME", "STACK", "COMMIT", "RELEASES", "PULLS", "RUNS", "OBJECTS", "MB"):
        table.add_column(heading)
    for name, backup in found.items():
        if isinstance(backup, Manifest):
            counts = backup.counts
            numbers = (counts.releases, counts.pull_requests, counts.runs, counts.objects)
            cells = ["-" if number is None else f"{number:,}" for number in numbers]
            table.add_row(
                name, backup.stack, backup.commit[:12], *cells, f"{backup.bytes / 1e6:,.1f}"
            )
        else:
            table.add_row(name, "damaged")
            say(str(backup))
    show(table)
