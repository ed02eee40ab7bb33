"""`slipway vulnerabilities`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slipway import dependencies
from slipway.commands import Output, out, say, show_json
from slipway.endpoints import Cluster


def command(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="OSV's export for PyPI, all.zip.", show_default=False),
    ],
    output: Output = "text",
) -> None:
    """Put a database of known vulnerabilities into the store, where thresholds name it.

    Evidence that is made from then on says what it knows. It takes an administrator's rights.
    """
    export = dependencies.read_export(file)
    about = dependencies.described(dependencies.read_osv(export, file))
    with Cluster.connect().store("object-store") as store:
        digest = store.put("evidence", export)
    if output == "json":
        show_json({"database": digest, "about": about})
        return
    out.print(digest)
    say(f"{about}: in the store")
    say(f"name it in policies/promotion/ENV.yaml: vulnerabilities: {{database: {digest}, …}}")
