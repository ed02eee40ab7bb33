"""`slipway kubeconfig`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slipway import endpoints, paths
from slipway.commands import say
from slipway.endpoints import Cluster
from slipway.errors import BadInput


def command(
    user: Annotated[
        str, typer.Option("--for", metavar="USER", help="Who it is for.", show_default=False)
    ],
    group: Annotated[
        list[str] | None,
        typer.Option(metavar="GROUP", help="One of slipway:people. May be repeated."),
    ] = None,
    hours: Annotated[int, typer.Option(min=1, max=24 * 365, help="How long it is good for.")] = 12,
    to: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A new file, for its owner only. [default: stdout]"),
    ] = None,
) -> None:
    """Hand somebody a kubeconfig of their own, with what their groups may do. For administrators.

    For a cluster that signs client certificates, as the embedded one does. Where people log in by
    OIDC or IAM they have a kubeconfig, and their groups stand in slipway:people.
    """
    from slipway import kubeconfig

    if to and to.exists():
        raise BadInput("is there already", file=to, field="--to", fix="name a new file")
    made = kubeconfig.make(Cluster.connect(), endpoints.kubeconfig(), user, group or [], hours)
    if to is None:
        typer.echo(made, nl=False)
        return
    paths.secret(to, made)
    say(f"{to}: {user} for {hours} h, of {', '.join(group or ['no group'])}")
