"""`slipway doctor`"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from slipway import cost, doctor, pulumi, up
from slipway.commands import Output, err, say, show, show_json
from slipway.errors import FAILED, BadInput


def command(
    leftovers: Annotated[
        bool,
        typer.Option("--leftovers", help="What a stack left behind, instead. Exit code 1: some."),
    ] = False,
    stack: Annotated[
        str, typer.Option("--stack", "-s", help="Whose leftovers. [default: local]")
    ] = "",
    output: Output = "text",
) -> None:
    """What this machine lacks, what will be installed, how long that takes. Changes nothing."""
    if leftovers:
        _leftovers(stack or up.STACK, output)
        return
    if stack:
        raise BadInput("--stack is for --leftovers", field="--stack", fix="add --leftovers")
    findings = doctor.examine(embedded=pulumi.is_embedded(up.STACK))
    if output == "json":
        show_json([asdict(finding) for finding in findings])
    else:
        doctor.show(findings, err)
    if any(finding.state == "failed" for finding in findings):
        raise typer.Exit(FAILED)


def _leftovers(stack: str, output: str) -> None:
    from slipway.leftovers import of_stack

    found, table = of_stack(stack), cost.prices()
    monthly = sum(one.monthly or 0 for one in found)
    if output == "json":
        show_json(
            {
                "stack": stack,
                "leftovers": [asdict(one) for one in found],
                "currency": table.currency,
                "monthly": round(monthly, 2),
            }
        )
    elif found:
        made = Table(box=None, pad_edge=False)
        for column in ("KIND", "WHAT", "WHY", f"{table.currency} A MONTH", "FIX"):
            made.add_column(column, justify="right" if "MONTH" in column else "left")
        for one in found:
            price = "" if one.monthly is None else f"{one.monthly:,.2f}"
            made.add_row(one.kind, one.id, one.why, price, one.fix)
        show(made)
        say(f"{len(found)} left behind, {monthly:,.2f} {table.currency} a month at least")
    else:
        say(f"nothing of stack {stack} is left behind")
    if found:
        raise typer.Exit(FAILED)
