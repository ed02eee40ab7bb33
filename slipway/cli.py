"""`slipway`, the command line: it only puts the commands together."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from slipway.commands import (
    backup,
    backups,
    bench,
    check,
    clean,
    cost,
    doctor,
    down,
    env,
    err,
    experiments,
    fetch,
    history,
    kubeconfig,
    label,
    new,
    predict,
    promote,
    protect,
    pulumi,
    push,
    reproduce,
    restore,
    rollback,
    status,
    trace,
    train,
    try_,
    up,
    vulnerabilities,
)
from slipway.errors import SlipwayError


class _Commands(TyperGroup):
    """Shows what a user can act on as a message, and everything else as the bug that it is."""

    def invoke(self, ctx: Any) -> Any:  # of the click that typer brings along, a private module
        try:
            return super().invoke(ctx)
        except SlipwayError as error:
            err.print("[bold red]error:[/] ", end="")
            err.print(str(error), markup=False, soft_wrap=True)
            ctx.exit(error.exit_code)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Models promoted by pull request. Exit codes: 0 done, 1 failed, 2 bad input.",
)
for module in (
    up,
    down,
    doctor,
    push,
    status,
    train,
    experiments,
    promote,
    rollback,
    predict,
    label,
    check,
    history,
    trace,
    reproduce,
    new,
    try_,
    fetch,
    backup,
    backups,
    restore,
    cost,
    vulnerabilities,
    protect,
    kubeconfig,
    env,
    bench,
    clean,
):
    app.command(module.__name__.rpartition(".")[2].rstrip("_"))(module.command)
app.command("pulumi", context_settings=pulumi.SETTINGS)(pulumi.command)

if __name__ == "__main__":
    app()
