"""Money: the price table, floors and ceilings, what changes, who used what, and when to tell."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from typer.testing import CliRunner

from slipway import cost, paths, usage
from slipway.cli import app
from slipway.cost import Prices
from slipway.endpoints import Cluster
from slipway.errors import BadInput

FIXTURES = paths.REPOSITORY / "tests" / "fixtures"
SMALL = FIXTURES / "prices" / "valid" / "small.yaml"
NOVEMBER = FIXTURES / "usage" / "valid" / "november.yaml"
STACK: dict[str, Any] = {
    "slipway:cluster": "eks",
    "slipway:environments": ["dev"],
    "slipway:aws": {
        "account": "111111111111",
        "region": "us-east-1",
        "deployRole": "arn:aws:iam::111111111111:role/deploy",
        "alarms": "ml-platform@example.com",
        "nodes": {"types": ["m7i.large", "m6i.large"], "min": 2, "max": 4},
    },
    "slipway:network": {
        "cidr": "10.16.0.0/16",
        "zones": ["us-east-1a", "us-east-1b", "us-east-1c"],
        "nat": "one",
    },
    "slipway:tags": {"owner": "platform", "costCentre": "1"},
    "slipway:gpuPools": [
        {
            "name": "shared",
            "families": ["g6"],
            "sizes": ["xlarge", "2xlarge"],
            "max": 3,
            "min": 1,
            "diskGiB": 100,
            "budget": 2000,
        }
    ],
}


def fixtures(kind: str, which: str) -> list[Path]:
    return sorted((FIXTURES / kind / which).glob("*.yaml"))


def table() -> Prices:
    return cost.parse_prices(SMALL.read_bytes(), SMALL)


def text(**changed: Any) -> bytes:
    return yaml.safe_dump({"config": {**STACK, **changed}}).encode()


def lines(**changed: Any) -> dict[str, cost.Line]:
    """A stack's lines by name; keyword arguments replace keys of its configuration."""
    given = {f"slipway:{key}": value for key, value in changed.items()}
    found = cost.estimate(cost.stack_config(text(**given), "dev"), "dev", table())
    assert found
    return {line.name: line for line in found.lines}


def pool(**changed: Any) -> cost.Line:
    [given] = STACK["slipway:gpuPools"]
    return lines(gpuPools=[{**given, **changed}])["pool shared"]


# --- the table --------------------------------------------------------------------------------


@pytest.mark.parametrize("file", fixtures("prices", "valid"), ids=lambda f: f.stem)
def test_prices(file: Path) -> None:
    assert cost.parse_prices(file.read_bytes(), file)


@pytest.mark.parametrize("file", fixtures("prices", "invalid"), ids=lambda f: f.stem)
def test_prices_refused(file: Path) -> None:
    with pytest.raises(BadInput) as refused:
        cost.parse_prices(file.read_bytes(), file)
    assert file.with_suffix(".expected").read_text().strip() in str(refused.value)
    assert file.name in str(refused.value)


def test_the_committed_table_has_what_pools_may_ask_for() -> None:
    from infra.aws import families

    committed = cost.prices()
    for name, family in families.catalogue().families.items():
        for size, what in family.sizes.items():
            assert committed.machine(f"{name}.{size}") == pytest.approx(what.price, rel=1e-3)


def test_what_is_counted_is_what_the_program_makes() -> None:
    from infra.aws.cluster import DISK_GIB
    from infra.aws.database import GROWTH
    from infra.aws.network import ENDPOINTS

    made = (len(ENDPOINTS), DISK_GIB, GROWTH)
    assert made == (cost.ENDPOINTS, cost.NODE_DISK_GIB, cost.DATABASE_GROWTH)


def test_a_machine_without_a_price() -> None:
    with pytest.raises(BadInput, match=r"no price of m7i\.larg\n  fix: did you mean 'm7i.large'"):
        table().machine("m7i.larg")


# --- floor and ceiling ------------------------------------------------------------------------


def test_floor_and_ceiling_of_each_part() -> None:
    found = {name: (line.floor, line.ceiling) for name, line in lines().items()}
    assert found == {
        "cluster": pytest.approx((73, 6 * 73)),
        "nodes": pytest.approx((2 * (73 + 5), 4 * (146 + 5))),
        "pool shared": pytest.approx((730 + 10, 3 * (2 * 730 + 10))),
        "network": pytest.approx([(0.055 + 6 * 3 * 0.01) * 730] * 2),
        # Its disk grows by itself.
        "database": pytest.approx((73 + 2, 73 + 8)),
    }


def test_spot_may_be_cheap_but_is_never_dearer() -> None:
    assert pool(purchase="spot").floor == pytest.approx(73 + 10)
    assert pool(purchase="spot").ceiling == pool().ceiling


def test_a_pool_that_may_be_empty_has_no_floor() -> None:
    assert pool(min=0).floor == 0


def test_prod_has_two_databases_and_each_zone_its_way_out() -> None:
    network = {**STACK["slipway:network"], "nat": "zone"}
    found = lines(environments=["prod"], network=network)
    assert found["database"].floor == pytest.approx(2 * lines()["database"].floor)
    assert found["network"].floor == pytest.approx((3 * 0.055 + 6 * 3 * 0.01) * 730)


def test_what_is_not_had_costs_nothing() -> None:
    assert "database" not in lines(stores={"postgres": "pod"})
    assert "pool shared" not in lines(gpuPools=[])
    assert "front door" not in lines()


def test_a_cluster_that_is_there_is_not_priced() -> None:
    config = yaml.safe_dump({"config": {"slipway:environments": ["dev"]}}).encode()
    assert cost.estimate(cost.stack_config(config, "local"), "local", table()) is None


def test_a_stack_that_the_program_refuses() -> None:
    with pytest.raises(BadInput, match=r"at HEAD~1: environments/Pulumi\.dev\.yaml"):
        cost.stack_config(text(**{"slipway:gpuPool": []}), "dev", "HEAD~1")
    with pytest.raises(BadInput, match="config: a mapping"):
        cost.stack_config(b"a: 1", "dev")


@pytest.mark.parametrize("stack", ["dev", "staging", "prod"])
def test_those_committed_are_priced(stack: str) -> None:
    file = paths.REPOSITORY / "environments" / f"Pulumi.{stack}.yaml"
    found = cost.estimate(cost.stack_config(file.read_bytes(), stack), stack, cost.prices())
    assert found
    assert 0 < found.floor <= found.ceiling
    assert not [a for a in found.alarms if a.state == "over"]


def test_a_preview_says_it_and_the_state_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import pulumi

    from infra.aws import price

    said: list[str] = []
    kept: dict[str, Any] = {}
    monkeypatch.setattr(cost, "PRICES", SMALL)
    monkeypatch.setattr(pulumi.log, "info", said.append)
    monkeypatch.setattr(pulumi.log, "warn", said.append)
    monkeypatch.setattr(pulumi, "export", kept.__setitem__)
    monkeypatch.setattr(pulumi.runtime, "is_dry_run", lambda: True)
    found = cost.Estimate("dev", "us-east-1", tuple(lines().values()))
    price.tell(cost.stack_config(text(), "dev"), "dev")
    assert said == [cost.told(found, table())]
    assert said[0].startswith(f"stack dev: {found.floor:,.2f} to {found.ceiling:,.2f} USD a month")
    assert kept == {
        "monthlyUSD": {"floor": f"{found.floor:.2f}", "ceiling": f"{found.ceiling:.2f}"}
    }
    pools = [{"name": "dear", "families": ["p4d"], "max": 1, "budget": 20000}]
    price.tell(cost.stack_config(text(**{"slipway:gpuPools": pools}), "dev"), "dev")
    assert "no price of p4d" in said[1]


# --- differences ------------------------------------------------------------------------------


def test_a_difference_names_what_differs() -> None:
    def of(**changed: Any) -> cost.Estimate:
        return cost.Estimate("dev", "us-east-1", tuple(lines(**changed).values()))

    [given] = STACK["slipway:gpuPools"]
    before = of()
    [more] = cost.changes(before, of(gpuPools=[{**given, "max": 4}]))
    assert (more.name, more.floor) == ("pool shared", 0)
    assert more.ceiling == pytest.approx(2 * 730 + 10)
    added = cost.changes(before, of(gpuPools=[given, {**given, "name": "more"}]))
    assert [c.name for c in added] == ["pool more"]
    assert added[0].before is None
    [gone] = cost.changes(before, of(gpuPools=[]))
    assert (gone.floor, gone.after) == (-before.lines[2].floor, None)
    assert cost.changes(before, before) == []
    assert len(cost.changes(None, before)) == len(before.lines)


# --- budgets ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "state"), [(None, None), (926, None), (925, "near"), (741, "near"), (740, "over")]
)
def test_alarms_at_80_and_100_percent(budget: float | None, state: str | None) -> None:
    found = cost.alarm("pool shared", 740, budget, "")
    assert (found.state if found else None) == state


def test_a_floor_beyond_its_budget() -> None:
    line = pool(budget=740)
    [found] = cost.Estimate("dev", "us-east-1", (line,)).alarms
    assert (found.name, found.state) == ("pool shared", "over")


# --- what ran ---------------------------------------------------------------------------------


@pytest.mark.parametrize("file", fixtures("usage", "valid"), ids=lambda f: f.stem)
def test_usage(file: Path) -> None:
    assert usage.parse(file.read_bytes(), file).nodes


@pytest.mark.parametrize("file", fixtures("usage", "invalid"), ids=lambda f: f.stem)
def test_usage_refused(file: Path) -> None:
    with pytest.raises(BadInput) as refused:
        usage.parse(file.read_bytes(), file)
    assert file.with_suffix(".expected").read_text().strip() in str(refused.value)


def test_shares_add_up() -> None:
    found = cost.spending(usage.parse(NOVEMBER.read_bytes(), NOVEMBER), table())
    assert found.by_pool == {"shared": 200, "training": 500}
    assert found.total == 700
    assert found.gpu_hours == 280
    told = {(s.team, s.model): (s.gpu_hours, s.money) for s in found.shares}
    assert told == {("delays", "flight_delay"): (100, 100), ("research", "-"): (40, 250)}
    assert (found.idle.gpu_hours, found.idle.money) == (140, 350)
    assert sum(s.share for s in found.shares) + found.idle.share == pytest.approx(1)
    alarms = found.alarms({"shared": 250, "training": 499, "other": 1})
    assert [(a.name, a.state) for a in alarms] == [
        ("pool shared", "near"),
        ("pool training", "over"),
    ]


def test_nothing_ran() -> None:
    at = datetime(2026, 11, 1, tzinfo=UTC)
    found = cost.spending(usage.Usage(start=at, end=at), table())
    assert (found.total, found.shares, found.idle.share) == (0, (), 0)


def node(name: str, gpus: str = "1", came: str = "2026-11-02T00:00:00Z", **labels: str) -> Any:
    return {
        "metadata": {
            "name": name,
            "creationTimestamp": came,
            "labels": {
                "karpenter.sh/nodepool": "shared",
                "node.kubernetes.io/instance-type": "g6.xlarge",
                **{k.replace("__", "/"): v for k, v in labels.items()},
            },
        },
        "status": {"capacity": {"cpu": "4", **({usage.GPU: gpus} if gpus else {})}},
    }


def pod(where: str | None, gpus: str | None = "1", **more: Any) -> Any:
    resources = {"limits": {usage.GPU: gpus}} if gpus else {}
    return {
        "metadata": {"namespace": "dev", "labels": more.pop("labels", {})},
        "spec": {"nodeName": where, "containers": [{"resources": resources}]},
        "status": {"phase": "Running", "startTime": "2026-11-02T12:00:00Z", **more},
    }


def cluster(nodes: list[Any], pods: list[Any]) -> Cluster:
    answers = {"/api/v1/nodes": nodes, "/api/v1/pods": pods}

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path not in answers:  # no Argo Workflows, nor its token
            return httpx.Response(404, json={"message": "not found"})
        return httpx.Response(200, json={"items": answers[request.url.path]})

    client = httpx.Client(base_url="http://api", transport=httpx.MockTransport(answer))
    return Cluster(client, embedded=False)


NOW = datetime(2026, 11, 3, tzinfo=UTC)


def test_what_a_cluster_knows() -> None:
    ended = {
        "phase": "Succeeded",
        "containerStatuses": [{"state": {"terminated": {"finishedAt": "2026-11-02T18:00:00Z"}}}],
    }
    labels = {"slipway.dev/model": "flight_delay", "kueue.x-k8s.io/queue-name": "delays"}
    found = usage.of_cluster(
        cluster(
            [node("a"), node("cpu", gpus=""), node("old", came="2026-10-01T00:00:00Z")],
            [
                pod("a", labels=labels),
                pod("a", **ended),
                pod("a", gpus=None),
                pod(None),
                pod("cpu"),
            ],
        ),
        NOW,
    )
    assert [(n.pool, n.type, n.gpus, n.hours) for n in found.nodes] == [
        ("shared", "g6.xlarge", 1, 24),
        ("shared", "g6.xlarge", 1, 48),  # of this month
    ]
    assert [(p.team, p.model, p.gpus, p.hours) for p in found.pods] == [
        ("delays", "flight_delay", 1, 12),
        ("dev", "-", 1, 6),
    ]


def test_a_gpu_that_pods_share_is_one() -> None:
    """Nothing on a node says so: its type does, by infra/aws/families.yaml."""
    found = usage.of_cluster(cluster([node("a", gpus="4")], [pod("a"), pod("a")]), NOW)
    assert found.nodes[0].gpus == 1
    assert [p.gpus for p in found.pods] == [0.25, 0.25]


STEP = "search-1000027602"


class WithArgo(Cluster):
    """A cluster with Argo Workflows; `workflows` are what its server and its archive know."""

    def __init__(self, api: Cluster, monkeypatch: pytest.MonkeyPatch, *workflows: Any) -> None:
        super().__init__(api._client, embedded=False)
        self.asked: list[httpx.URL] = []
        plain = httpx.Client

        def argo(**options: Any) -> httpx.Client:
            assert options["headers"] == {"Authorization": "Bearer t"}
            return plain(transport=httpx.MockTransport(answer))

        def answer(request: httpx.Request) -> httpx.Response:
            self.asked.append(request.url)
            name = request.url.path.rpartition("/")[2]
            if name != "pipelines":
                [found] = [w for w in workflows if w["metadata"]["name"] == name]
                return httpx.Response(200, json=found)
            page = int(request.url.params["listOptions.continue"] or 0)
            more = {"continue": str(page + 1)} if page + 1 < len(workflows) else {}
            return httpx.Response(200, json={"metadata": more, "items": [workflows[page]]})

        monkeypatch.setattr(usage.httpx, "Client", argo)

    def secret(self, namespace: str, name: str) -> dict[str, str]:
        assert (namespace, name) == ("argo", "console-token")
        return {"token": "t"}

    @contextlib.contextmanager
    def service(self, namespace: str, name: str) -> Iterator[str]:
        yield "http://argo"


def workflow(
    name: str = "search", finished: str | None = "2026-11-02T20:00:00Z", **more: Any
) -> Any:
    """One that had two GPUs for an hour in a step, and for another that was not counted."""
    step = {
        "id": STEP,
        "type": "Pod",
        "startedAt": "2026-11-02T10:00:00Z",
        "finishedAt": "2026-11-02T12:00:00Z",
        "resourcesDuration": {"cpu": 9, usage.GPU: 7200},
        **more,
    }
    given = [{"name": "pool", "value": "shared"}]
    return {
        "metadata": {
            "name": name,
            "uid": f"uid-{name}",
            "labels": {"slipway.dev/model": "flight_delay", "slipway.dev/team": "delays"},
        },
        "spec": {"arguments": {"parameters": given}},
        "status": {
            "finishedAt": finished,
            "resourcesDuration": step.get("resourcesDuration"),
            "nodes": {
                STEP: step,
                "dag": {**step, "id": "dag", "type": "DAG"},
                "w": {"type": "Pod"},
            },
        },
    }


def test_what_is_gone_is_in_argo_s_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    without = workflow("train")
    del without["status"]["resourcesDuration"][usage.GPU]
    former = workflow("former", "2026-10-30T00:00:00Z")
    known = WithArgo(
        cluster([node("a")], []), monkeypatch, without, workflow(), former, workflow("later")
    )
    [ran] = usage.of_cluster(known, NOW).pods
    assert (ran.team, ran.model, ran.pool, ran.id) == ("delays", "flight_delay", "shared", STEP)
    assert ran.gpus * ran.hours == 2
    # Of last month's nothing is read, nor what came before it.
    assert [url.path.rpartition("/")[2] for url in known.asked] == [
        *("pipelines", "pipelines", "search", "pipelines")
    ]


def test_a_step_whose_pod_is_there_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    there = pod("a")
    there["metadata"]["annotations"] = {usage.STEP: STEP}
    known = WithArgo(cluster([node("a")], [there]), monkeypatch, workflow())
    [ran] = usage.of_cluster(known, NOW).pods
    assert (ran.team, ran.hours, ran.id) == ("dev", 12, STEP)


@pytest.mark.parametrize(("there", "hours"), [([node("a", gpus="4")], 0.5), ([], 0.25)])
def test_a_step_had_its_part_of_a_gpu(
    there: list[Any], hours: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the nodes of its pool; where none is there any more, by the pool."""
    known = WithArgo(cluster(there, []), monkeypatch, workflow())
    [ran] = usage.of_cluster(known, NOW, {"shared": 8}).pods
    assert ran.gpus * ran.hours == hours


def test_a_step_counts_as_far_as_it_is_of_this_month(monkeypatch: pytest.MonkeyPatch) -> None:
    began = {"startedAt": "2026-10-31T22:00:00Z", "finishedAt": "2026-11-01T02:00:00Z"}
    known = WithArgo(cluster([], []), monkeypatch, workflow(**began))
    [ran] = usage.of_cluster(known, NOW).pods
    assert ran.gpus * ran.hours == 1


def test_a_pool_had_at_least_what_it_gave() -> None:
    at = datetime(2026, 11, 1, tzinfo=UTC)
    one = usage.RanNode(pool="shared", type="g6.xlarge", gpus=1, hours=1)
    ran = usage.RanPod(team="a", model="b", pool="shared", gpus=1, hours=4)
    found = cost.spending(usage.Usage(start=at, end=at, nodes=(one,), pods=(ran,)), table())
    assert (found.gpu_hours, found.total, found.idle.gpu_hours) == (4, 1, 0)
    assert (found.shares[0].share, found.shares[0].money) == (1, 1)
    # Nodes that nobody knows cost at least what their GPUs do where they are cheapest.
    rates = cost.rates(cost.stack_config(text(), "dev").gpuPools, table())
    assert rates == {"shared": 1}
    found = cost.spending(usage.Usage(start=at, end=at, nodes=(one,), pods=(ran,)), table(), rates)
    assert (found.total, found.shares[0].money, found.by_pool) == (4, 4, {"shared": 4})


def test_a_record_remembers_what_is_gone(tmp_path: Path) -> None:
    def known(id: str, hours: float, month: int = 11) -> usage.Usage:
        start = datetime(2026, month, 1, tzinfo=UTC)
        one = usage.RanNode(pool="shared", type="g6.xlarge", gpus=1, hours=hours, id=id)
        ran = usage.RanPod(team="a", model="b", pool="shared", gpus=1, hours=hours / 2, id=id)
        return usage.Usage(start=start, end=start, nodes=(one,), pods=(ran,))

    file = tmp_path / "usage.yaml"
    assert usage.record(file, known("1", 1)) == known("1", 1)
    usage.record(file, known("2", 3))
    whole = usage.record(file, known("2", 4))
    assert {n.id: n.hours for n in whole.nodes} == {"1": 1, "2": 4}
    assert {p.id: p.hours for p in whole.pods} == {"1": 0.5, "2": 2}
    assert usage.parse(file.read_bytes(), file) == whole
    with pytest.raises(BadInput, match=r"another month|began 2026-11-01"):
        usage.record(file, known("3", 1, 12))


# --- the command ------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one stack that was committed."""
    file = tmp_path / "environments" / "Pulumi.dev.yaml"
    file.parent.mkdir()
    file.write_bytes(text())
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "a stack"]):
        own = ["-c", "user.name=t", "-c", "user.email=t@slipway.invalid"]
        subprocess.run(["git", *own, *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(paths, "REPOSITORY", tmp_path)
    monkeypatch.setattr(cost, "PRICES", SMALL)
    return tmp_path


@pytest.fixture
def slipway(checkout: Path) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(app, ["cost", *arguments])
        return done.exit_code, done.stdout, done.stderr

    return run


Run = Callable[..., tuple[int, str, str]]


def test_the_command(slipway: Run) -> None:
    code, shown, said = slipway("--stack", "dev")
    assert code == 0
    assert "pool shared" in shown
    assert "2,000.00" in shown
    assert "prices of 2026-01-02, us-east-1: made up" in said


def test_the_command_s_document(slipway: Run) -> None:
    code, shown, _ = slipway("-o", "json", "--ran", str(NOVEMBER), "--diff", "HEAD")
    found = json.loads(shown)
    assert code == 0
    assert found["stacks"][0]["lines"][2]["name"] == "pool shared"
    assert found["stacks"][0]["floor"] == round(
        sum(line["floor"] for line in found["stacks"][0]["lines"]), 2
    )
    assert found["ran"]["idle"]["gpu_hours"] == 140
    assert found["changes"] == {"dev": []}


def test_what_a_pull_request_changes(checkout: Path, slipway: Run) -> None:
    [given] = STACK["slipway:gpuPools"]
    file = checkout / "environments" / "Pulumi.dev.yaml"
    file.write_bytes(text(**{"slipway:gpuPools": [{**given, "max": 4}]}))
    code, shown, _ = slipway("--diff", "HEAD")
    assert code == 0
    assert "1–3 nodes of g6, on-demand → 1–4 nodes of g6, on-demand" in shown
    assert "+1,470.00" in shown
    file.write_bytes(text())
    assert "no difference in money" in slipway("--diff", "HEAD")[2]


def test_a_new_stack_is_all_difference(checkout: Path, slipway: Run) -> None:
    (checkout / "environments" / "Pulumi.more.yaml").write_bytes(text())
    assert "MORE CHANGES" in slipway("--diff", "HEAD")[1]


def test_a_budget_that_is_not_kept_is_an_exit_code(checkout: Path, slipway: Run) -> None:
    [given] = STACK["slipway:gpuPools"]
    file = checkout / "environments" / "Pulumi.dev.yaml"
    file.write_bytes(text(**{"slipway:gpuPools": [{**given, "budget": 700}]}))
    code, _, said = slipway()
    assert code == 1
    assert "pool shared: 740.00 of 700.00 USD, 106% of its budget" in said
    file.write_bytes(text(**{"slipway:gpuPools": [{**given, "budget": 800}]}))
    code, _, said = slipway()
    assert code == 0
    assert "92% of its budget" in said


def test_what_was_spent_counts_too(checkout: Path, slipway: Run) -> None:
    [given] = STACK["slipway:gpuPools"]
    file = checkout / "environments" / "Pulumi.dev.yaml"
    file.write_bytes(text(**{"slipway:gpuPools": [{**given, "min": 0, "budget": 200}]}))
    code, shown, said = slipway("--stack", "dev", "--ran", str(NOVEMBER))
    assert code == 1
    assert "200.00 of 200.00 USD, 100% of its budget (spent so far)" in said
    assert "idle" in shown
    assert "flight_delay" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--stack", "deb"], "no such stack: deb\n  fix: did you mean 'dev'?"),
        (["--ran", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["--diff", "nowhere"], "nowhere"),
        (["--ran", "november.yaml", "--record", "more.yaml"], "--record is of the cluster"),
    ],
)
def test_wrong_arguments(slipway: Run, arguments: list[str], said: str) -> None:
    code, _, error = slipway(*arguments)
    assert code in (1, 2)
    assert said in error
