"""`slipway cost`"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from slipway import cost, paths, usage
from slipway.commands import Output, say, show, show_json
from slipway.cost import Alarm, Change, Estimate, Prices, Spending
from slipway.endpoints import Cluster
from slipway.errors import BadInput, did_you_mean
from slipway.repository import Repository


def command(
    stack: Annotated[
        str, typer.Option("--stack", "-s", help="One stack. [default: all]", show_default=False)
    ] = "",
    diff: Annotated[
        str, typer.Option(metavar="REV", help="What changes in money since this commit.")
    ] = "",
    ran: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="Shares of what ran: recorded, or `cluster` for what it knows."
        ),
    ] = "",
    record: Annotated[
        str,
        typer.Option(metavar="FILE", help="Add what the cluster knows to this month's record."),
    ] = "",
    output: Output = "text",
) -> None:
    """What stacks on AWS cost a month: floor and ceiling. Exit code 1: a budget is not kept."""
    if record and ran not in ("", "cluster"):
        raise BadInput("--record is of the cluster", field="--ran", fix="--ran cluster, or none")
    table = cost.prices()
    files = _files(stack)
    configs = {name: cost.stack_config(file.read_bytes(), name) for name, file in files.items()}
    now = {name: cost.estimate(config, name, table) for name, config in configs.items()}
    # Where one stack is asked about: others' pools may have the same names.
    pools = configs[stack].gpuPools if stack else []
    found = [estimate for estimate in now.values() if estimate]
    changed = _changes(diff, now, table) if diff else {}
    spent = None
    if ran or record:
        shares = {pool.name: pool.shares for pool in pools}
        spent = cost.spending(_usage(ran, record, shares), table, cost.rates(pools, table))
    alarms = [a for estimate in found for a in estimate.alarms]
    if spent:
        alarms += spent.alarms({pool.name: pool.budget for pool in pools})
    if output == "json":
        show_json(_document(table, found, changed if diff else None, spent, alarms))
    else:
        _show(table, found, changed if diff else None, spent)
    for alarm in alarms:
        say(
            f"{alarm.name}: {_money(alarm.spent)} of {_money(alarm.budget)} {table.currency}, "
            f"{alarm.spent / alarm.budget:.0%} of its budget ({alarm.why})"
        )
    if any(alarm.state == "over" for alarm in alarms):
        raise typer.Exit(1)


def _files(stack: str) -> dict[str, Path]:
    folder = paths.stack_file("*").parent
    known = {f.name.split(".")[1]: f for f in sorted(folder.glob("Pulumi.*.yaml"))}
    if not stack:
        return known
    if stack not in known:
        fix = did_you_mean(stack, known)
        raise BadInput(f"no such stack: {stack}", file=folder, fix=fix)
    return {stack: known[stack]}


def _estimate(text: bytes | None, stack: str, table: Prices, where: str = "") -> Estimate | None:
    if text is None:
        return None
    return cost.estimate(cost.stack_config(text, stack, where), stack, table)


def _changes(rev: str, now: dict[str, Estimate | None], table: Prices) -> dict[str, list[Change]]:
    with Repository(paths.REPOSITORY) as repository:
        sha = repository.commit(rev)
        then = {name: repository.read(sha, f"{cost.STACKS}/Pulumi.{name}.yaml") for name in now}
    old = {name: _estimate(text, name, table, rev) for name, text in then.items()}
    return {name: cost.changes(old[name], now[name]) for name in now}


def _usage(ran: str, record: str, shares: dict[str, int]) -> usage.Usage:
    if record or ran == "cluster":
        found = usage.of_cluster(Cluster.connect(), shares=shares)
        return usage.record(Path(record), found) if record else found
    file = Path(ran)
    if not file.is_file():
        raise BadInput("no such file", file=ran, fix="name a recorded sample, or `cluster`")
    return usage.parse(file.read_bytes(), file)


def _document(
    table: Prices,
    found: list[Estimate],
    changed: dict[str, list[Change]] | None,
    spent: Spending | None,
    alarms: list[Alarm],
) -> dict[str, Any]:
    document: dict[str, Any] = {
        "currency": table.currency,
        "prices": {
            "date": table.date.isoformat(),
            "region": table.region,
            "source": table.source,
        },
        "stacks": [
            {
                "stack": estimate.stack,
                "region": estimate.region,
                "floor": round(estimate.floor, 2),
                "ceiling": round(estimate.ceiling, 2),
                "lines": [_rounded(asdict(line)) for line in estimate.lines],
            }
            for estimate in found
        ],
        "alarms": [_rounded(asdict(alarm)) for alarm in alarms],
    }
    if changed is not None:
        document["changes"] = {
            name: [
                {"name": c.name, "floor": round(c.floor, 2), "ceiling": round(c.ceiling, 2)}
                for c in lines
            ]
            for name, lines in changed.items()
        }
    if spent:
        document["ran"] = {
            "total": round(spent.total, 2),
            "gpu_hours": round(spent.gpu_hours, 2),
            "shares": [_rounded(asdict(share)) for share in spent.shares],
            "idle": _rounded(asdict(spent.idle)),
            "pools": _rounded(dict(spent.by_pool)),
        }
    return document


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}


def _show(
    table: Prices,
    found: list[Estimate],
    changed: dict[str, list[Change]] | None,
    spent: Spending | None,
) -> None:
    if not found:
        say("nothing here is on AWS: a cluster that is there already costs what it costs")
    for estimate in found:
        show(_lines(estimate, table))
        if estimate.region != table.region:
            say(f"{estimate.stack} is in {estimate.region}, priced as in {table.region}")
    for name, lines in (changed or {}).items():
        if lines:
            show(_difference(name, lines, table))
    if changed is not None and not any(changed.values()):
        say("no difference in money")
    if spent:
        show(_shares(spent, table))
    say(f"prices of {table.date}, {table.region}: {table.source}")


def _lines(estimate: Estimate, table: Prices) -> Table:
    made = _table(estimate.stack.upper(), "", "FLOOR", "CEILING", "BUDGET")
    for line in estimate.lines:
        budget = _money(line.budget) if line.budget else ""
        made.add_row(line.name, line.what, _money(line.floor), _money(line.ceiling), budget)
    what = f"{table.currency} a month"
    made.add_row("total", what, _money(estimate.floor), _money(estimate.ceiling), "")
    return made


def _difference(stack: str, changed: list[Change], table: Prices) -> Table:
    made = _table(f"{stack.upper()} CHANGES", "", "FLOOR", "CEILING")
    for change in changed:
        was = change.before.what if change.before else "new"
        what = change.after.what if change.after else "gone"
        text = what if was == what else f"{was} → {what}"
        made.add_row(change.name, text, _signed(change.floor), _signed(change.ceiling))
    floor, ceiling = sum(c.floor for c in changed), sum(c.ceiling for c in changed)
    made.add_row("total", f"{table.currency} a month", _signed(floor), _signed(ceiling))
    return made


def _shares(spent: Spending, table: Prices) -> Table:
    made = _table("TEAM", "MODEL", "GPU-HOURS", "SHARE", table.currency)
    for share in (*spent.shares, spent.idle):
        who = (share.team, share.model) if share.team else ("idle", "")
        made.add_row(*who, f"{share.gpu_hours:,.1f}", f"{share.share:.0%}", _money(share.money))
    return made


def _table(*columns: str) -> Table:
    made = Table(box=None, pad_edge=False)
    for index, column in enumerate(columns):
        made.add_column(column, justify="left" if index < 2 else "right")
    return made


def _money(amount: float) -> str:
    return f"{amount:,.2f}"


def _signed(amount: float) -> str:
    return f"{amount:+,.2f}"
