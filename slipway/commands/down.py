"""`slipway down`"""

from __future__ import annotations

from typing import Annotated

import typer

from slipway import cluster, pulumi, up
from slipway.commands import err
from slipway.errors import BadInput


def command(
    erase: Annotated[bool, typer.Option("--erase", help="Remove all data as well.")] = False,
) -> None:
    """Stop everything; leave no process, mount, interface, firewall rule or container behind."""
    report = up.Report(err)
    if erase:
        _keep_what_runs_elsewhere()
    with report.step("down") as say:
        cluster.down(erase=erase, progress=say)
        say("stopped, data removed" if erase else "stopped; `make up` brings everything back")
    for stack in pulumi.on_other_clusters():
        report.warn(f"stack {stack} is on a cluster that this does not stop: {_destroy(stack)}")


def _keep_what_runs_elsewhere() -> None:
    """With its state goes all knowledge of what a stack has made, and its secrets."""
    for stack, file in pulumi.on_other_clusters().items():
        raise BadInput(
            f"stack {stack} is on a cluster that this does not stop, and its state is here",
            file=file,
            fix=f"{_destroy(stack)}; where that cluster is gone, remove this file",
        )


def _destroy(stack: str) -> str:
    return f"`slipway pulumi destroy --stack {stack}`, with the KUBECONFIG that it was made by"
