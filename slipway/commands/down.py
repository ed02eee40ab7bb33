"""`slipway down`"""

from __future__ import annotations

from typing import Annotated

import typer

from slipway import cluster, up
from slipway.commands import err


def command(
    erase: Annotated[bool, typer.Option("--erase", help="Remove all data as well.")] = False,
) -> None:
    """Stop everything; leave no process, mount, interface, firewall rule or container behind."""
    with up.Report(err).step("down") as say:
        cluster.down(erase=erase, progress=say)
        say("stopped, data removed" if erase else "stopped; `make up` brings everything back")
