"""What a stack on AWS costs a month: at least, at most, and by whom.

From its configuration come the floor (every pool at its smallest and cheapest) and the ceiling (at
its largest and dearest), by a price table that is committed, `infra/prices.yaml`. A pool's largest
is `max` nodes; where its machines differ in size, Karpenter counts GPUs, and small ones can be more
and cost more. From what the cluster ran come shares by team and model, what was idle, and how much
of each budget is gone. Traffic, stored objects, requests and logs are in neither, nor are keys,
secrets, backups and volumes of pods.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from slipway import documents, paths
from slipway.errors import BadInput, did_you_mean
from slipway.release import Strict

if TYPE_CHECKING:
    from infra.aws.config import Account, Pool
    from infra.config import StackConfig
    from slipway.usage import Usage

PRICES = paths.REPOSITORY / "infra" / "prices.yaml"
STACKS = "environments"
# Shares of a budget at which somebody is told, and at which a command fails.
NEAR, OVER = 0.8, 1.0
# As many VPC endpoints are billed as infra/aws/network.py makes; that of S3 is free.
ENDPOINTS = 6
# Each of the platform's nodes has a disk of as many GiB as infra/aws/cluster.py says.
NODE_DISK_GIB = 50
# A database's disk may grow to as many times its size, as infra/aws/database.py says.
DATABASE_GROWTH = 4
Price = Annotated[float, Field(gt=0, allow_inf_nan=False)]
State = Literal["near", "over"]


class Hourly(Strict):
    """One of each, an hour."""

    cluster: Price
    cluster_extended: Price = Field(description="once its Kubernetes has left standard support")
    nat_gateway: Price
    load_balancer: Price
    interface_endpoint: Price = Field(description="in one zone")
    public_address: Price


class Monthly(Strict):
    """One GiB, a month."""

    disk_gib: Price
    database_gib: Price


class Prices(Strict):
    """A price table: whose, of when and for where."""

    date: date
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    region: Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")]
    source: Annotated[str, Field(min_length=20, description="in words")]
    hours_a_month: Annotated[int, Field(ge=672, le=744)]
    hourly: Hourly
    monthly: Monthly
    spot: Annotated[float, Field(gt=0, le=1)]
    databases: dict[str, Price]
    machines: dict[str, Price]

    def machine(self, instance_type: str) -> float:
        """An hour of one. `BadInput` where the table has none."""
        return self._of(self.machines, instance_type, "machines")

    def database(self, instance_type: str) -> float:
        """An hour of one in one zone. `BadInput` where the table has none."""
        return self._of(self.databases, instance_type, "databases")

    @staticmethod
    def _of(prices: Mapping[str, float], name: str, field: str) -> float:
        if name not in prices:
            fix = f"{did_you_mean(name, prices)}; or add its price, and the table's date"
            raise BadInput(f"no price of {name}", file="infra/prices.yaml", field=field, fix=fix)
        return prices[name]


def parse_prices(text: str | bytes, file: Path | str) -> Prices:
    """The table. `BadInput` names what is wrong in it."""
    return documents.parse(Prices, text, file)


def prices() -> Prices:
    """The committed table."""
    return parse_prices(PRICES.read_bytes(), "infra/prices.yaml")


@dataclass(frozen=True)
class Line:
    """What one part of a stack costs a month; `budget` is a GPU pool's."""

    name: str
    what: str
    floor: float
    ceiling: float
    budget: float | None = None


@dataclass(frozen=True)
class Alarm:
    """A budget that is nearly, or more than, spent: `spent` of `budget`, and by what it is said."""

    name: str
    state: State
    spent: float
    budget: float
    why: str


@dataclass(frozen=True)
class Estimate:
    """One stack's; `region` is where it is, which may not be the table's."""

    stack: str
    region: str
    lines: tuple[Line, ...]

    @property
    def floor(self) -> float:
        return sum(line.floor for line in self.lines)

    @property
    def ceiling(self) -> float:
        return sum(line.ceiling for line in self.lines)

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """Budgets that are not kept even when nothing more is asked for than always runs."""
        why = "its smallest number of nodes, all month"
        found = (alarm(line.name, line.floor, line.budget, why) for line in self.lines)
        return tuple(a for a in found if a)


@dataclass(frozen=True)
class Change:
    """A line before and after; None where it was not, or is no more."""

    name: str
    before: Line | None
    after: Line | None

    @property
    def floor(self) -> float:
        return _of(self.after, "floor") - _of(self.before, "floor")

    @property
    def ceiling(self) -> float:
        return _of(self.after, "ceiling") - _of(self.before, "ceiling")


def _of(line: Line | None, which: Literal["floor", "ceiling"]) -> float:
    return getattr(line, which) if line else 0.0


def alarm(name: str, spent: float, budget: float | None, why: str) -> Alarm | None:
    """Whether so much of a budget is gone that somebody has to be told."""
    if budget is None or spent < NEAR * budget:
        return None
    return Alarm(name, "over" if spent >= OVER * budget else "near", spent, budget, why)


def stack_config(text: bytes, stack: str, where: str = "") -> StackConfig:
    """A stack file's configuration by the program's own rules.

    Args:
        where: the commit that `text` is of, for the error.

    Raises:
        BadInput: the program would refuse it.
    """
    # The program is run by Pulumi from the checkout, and is no package that is installed.
    if str(paths.REPOSITORY) not in sys.path:
        sys.path.append(str(paths.REPOSITORY))
    load = importlib.import_module("infra.config").load
    file = f"{STACKS}/Pulumi.{stack}.yaml"
    given = documents.parse_stack(text, file)["config"]
    try:
        return load(
            {k: v if isinstance(v, str) else json.dumps(v) for k, v in given.items()}, stack
        )
    except BadInput as error:
        raise BadInput(f"at {where}: {error}" if where else str(error)) from None


def estimate(config: StackConfig, stack: str, table: Prices) -> Estimate | None:
    """What a stack costs a month; None where it is on a cluster that Slipway does not make.

    Raises:
        BadInput: the table has no price of something.
    """
    account = config.aws
    if config.cluster != "eks" or account is None:
        return None
    return Estimate(stack, account.region, tuple(_lines(config, account, table)))


def told(found: Estimate, table: Prices) -> str:
    """An estimate in a line."""
    amounts = f"{found.floor:,.2f} to {found.ceiling:,.2f} {table.currency}"
    line = (
        f"stack {found.stack}: {amounts} a month, by prices of {table.date} in {table.region}; "
        f"slipway cost --stack {found.stack} has the parts"
    )
    over = (f"; {a.name}: {a.spent / a.budget:.0%} of its budget at least" for a in found.alarms)
    return line + "".join(over)


def _lines(config: StackConfig, account: Account, table: Prices) -> Iterator[Line]:
    hours, hourly = table.hours_a_month, table.hourly
    what = "EKS' control plane; dearest in extended support"
    yield Line("cluster", what, hourly.cluster * hours, hourly.cluster_extended * hours)
    nodes, each = account.nodes, [table.machine(name) * hours for name in account.nodes.types]
    what = f"{_range(nodes.min, nodes.max)} nodes of {', '.join(nodes.types)}"
    disk = NODE_DISK_GIB * table.monthly.disk_gib
    yield Line("nodes", what, nodes.min * (min(each) + disk), nodes.max * (max(each) + disk))
    for pool in config.gpuPools:
        yield _pool(pool, table)
    network = config.network
    if network is not None:
        gateways = 1 if network.nat == "one" else len(network.zones)
        way_out = gateways * (hourly.nat_gateway + hourly.public_address) * hours
        endpoints = ENDPOINTS * len(network.zones) * hourly.interface_endpoint * hours
        what = f"{gateways} NAT, {ENDPOINTS} endpoints in {len(network.zones)} zones, no traffic"
        yield Line("network", what, way_out + endpoints, way_out + endpoints)
    if config.stores.postgres == "rds":
        database, copies = config.stores.database, 2 if config.protected else 1
        one = table.database(database.type) * hours
        space = database.storageGiB * table.monthly.database_gib
        what = f"{database.type}, {database.storageGiB} GiB, in {copies} zone{'s'[: copies - 1]}"
        most = one + space * DATABASE_GROWTH
        yield Line("database", what, copies * (one + space), copies * most)
    if config.domain is not None and network is not None:
        # It has an address in each zone.
        balancer = (hourly.load_balancer + len(network.zones) * hourly.public_address) * hours
        yield Line("front door", "one load balancer, no traffic", balancer, balancer)


def _pool(pool: Pool, table: Prices) -> Line:
    each = [table.machine(name) * table.hours_a_month for name in pool.types]
    disk = pool.diskGiB * table.monthly.disk_gib
    # Reserved blocks are paid ahead, by their own price, which no table has.
    least = table.spot if pool.purchase == "spot" else 1.0
    families = ", ".join(pool.families)
    return Line(
        f"pool {pool.name}",
        f"{_range(pool.min, pool.max)} nodes of {families}, {pool.purchase}",
        pool.min * (least * min(each) + disk),
        pool.max * (max(each) + disk),
        pool.budget,
    )


def _range(least: int, most: int) -> str:
    return f"{least}" if least == most else f"{least}–{most}"


def changes(before: Estimate | None, after: Estimate | None) -> list[Change]:
    """Lines that differ, in the order of the newer, then those that are gone."""
    old = {line.name: line for line in before.lines} if before else {}
    new = {line.name: line for line in after.lines} if after else {}
    names = [*new, *(name for name in old if name not in new)]
    both = [Change(name, old.get(name), new.get(name)) for name in names]
    return [change for change in both if change.before != change.after]


@dataclass(frozen=True)
class Share:
    """GPU-hours that a team's model asked for, of all that nodes had, and their money."""

    team: str
    model: str
    gpu_hours: float
    share: float
    money: float


@dataclass(frozen=True)
class Spending:
    """What was spent on GPU nodes, by whom it was used, and what nobody used."""

    total: float
    gpu_hours: float
    shares: tuple[Share, ...]
    idle: Share
    by_pool: Mapping[str, float]

    def alarms(self, budgets: Mapping[str, float]) -> list[Alarm]:
        """Budgets of pools of which 80 or 100 % are spent."""
        found = (
            alarm(f"pool {pool}", spent, budgets.get(pool), "spent so far")
            for pool, spent in self.by_pool.items()
        )
        return [a for a in found if a]


def rates(pools: Iterable[Pool], table: Prices) -> dict[str, float]:
    """Pool to what a GPU costs an hour in the machine where it is cheapest.

    Raises:
        BadInput: the table has no price of a machine.
    """
    return {
        pool.name: min(table.machine(name) / size.gpus for name, size in pool.types.items())
        for pool in pools
    }


def spending(usage: Usage, table: Prices, rates: Mapping[str, float] | None = None) -> Spending:
    """Money by who asked for it: a pool's cost falls on its GPU-hours alike, used or idle.

    Args:
        rates: pool to the price of a GPU-hour, for GPUs that pods had on nodes nobody knows.

    Raises:
        BadInput: the table has no price of a node's type.
    """
    spent, had = defaultdict[str, float](float), defaultdict[str, float](float)
    for node in usage.nodes:
        spent[node.pool] += table.machine(node.type) * node.hours
        had[node.pool] += node.gpus * node.hours
    # A pool had at least what it gave: of nodes that are gone, only their pods may be known.
    given = defaultdict[str, float](float)
    for pod in usage.pods:
        given[pod.pool] += pod.gpus * pod.hours
    for pool, amount in given.items():
        unknown = max(0.0, amount - had[pool])
        had[pool] += unknown
        spent[pool] += unknown * (rates or {}).get(pool, 0.0)
    used, money = (
        defaultdict[tuple[str, str], float](float),
        defaultdict[tuple[str, str], float](float),
    )
    for pod in usage.pods:
        who, hours = (pod.team, pod.model), pod.gpus * pod.hours
        used[who] += hours
        money[who] += hours * (spent[pod.pool] / had[pod.pool] if had[pod.pool] else 0.0)
    total, hours = sum(spent.values()), sum(had.values())
    shares = [
        Share(team, model, gpu_hours, gpu_hours / hours if hours else 0.0, money[team, model])
        for (team, model), gpu_hours in used.items()
    ]
    idle = max(0.0, hours - sum(used.values()))
    rest = max(0.0, total - sum(money.values()))
    return Spending(
        total,
        hours,
        tuple(sorted(shares, key=lambda s: (-s.money, s.team, s.model))),
        Share("", "", idle, idle / hours if hours else 0.0, rest),
        dict(spent),
    )
