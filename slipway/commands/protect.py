"""`slipway protect`"""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.table import Table

from slipway import merging
from slipway.commands import Output, say, show, show_json
from slipway.endpoints import Cluster
from slipway.errors import BadInput

# By which app GitHub's own workflows report.
ACTIONS = "github-actions"


def command(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would change on the forge.")
    ] = False,
    output: Output = "text",
) -> None:
    """Protect main of the forge that the platform reads: what the gates refuse, nobody merges.

    Run again, it changes only what somebody has changed. It takes somebody who may administer the
    repository: FORGE_TOKEN, or an app. The platform's own Gitea is protected by `slipway up`.
    """
    cluster = Cluster.connect()
    outside = cluster.outside_forge()
    if outside is None:
        raise BadInput(
            "the platform's own forge is protected as long as it runs",
            fix="slipway up makes it so; slipway:forge in the stack file names another one",
        )
    with cluster.forge() as forge:
        by = ACTIONS if outside.gates == "actions" else outside.app
        changes = forge.protect(merging.CONTEXT, by=by, dry_run=dry_run)
    if output == "json":
        show_json(
            {
                "forge": outside.url,
                "repository": outside.repository,
                "changed": not dry_run and bool(changes),
                "changes": {
                    setting: {"from": before, "to": after}
                    for setting, (before, after) in changes.items()
                },
            }
        )
        return
    where = f"main of {outside.repository} on {outside.url}"
    if not changes:
        say(f"nothing to do: {where} is protected")
        return
    show(table(changes))
    say(f"{where} {'would be' if dry_run else 'is now'} protected so")


def table(changes: dict[str, tuple[Any, Any]]) -> Table:
    """What is otherwise than it should be, and what it becomes."""
    made = Table(box=None, pad_edge=False)
    for column in ("SETTING", "WAS", "IS"):
        made.add_column(column, no_wrap=True)
    for setting, (before, after) in changes.items():
        made.add_row(setting, json.dumps(before), json.dumps(after))
    return made
