"""What the reviewer reads: complete, in order, and nothing in it is somebody else's markup."""

from __future__ import annotations

import io
import re
import struct
from datetime import date
from typing import Any, cast

import pytest
from rich.console import Console

from slipway import evidence, report
from slipway.check import Amounts, MoneyLine, Problem, ReleaseVerdict, StackCost, Verdict
from slipway.evidence import Bin, Drift, Estimate, Fairness, Slice
from slipway.gates import Finding
from tests import samples
from tests.unit.check.place import Place, files, of_champion, paired

EVIL = "<img src=x onerror=alert(1)> [click](http://evil.ex) | `x` @admin #1 **b** $y$\n# Approved"


def part(column: str, value: str, brier: float, rows: int = 1000) -> Slice:
    return Slice(
        column=column,
        value=value,
        rows=rows,
        groups=rows,
        mean_outcome=0.2,
        mean_prediction=0.2,
        metrics={"brier": brier, "roc_auc": 0.6},
    )


def verdict(**changes: Any) -> Verdict:
    """A challenger that is worse for two carriers."""
    champion = samples.released(version=2, bento=samples.bento("c0"))
    bins = [
        Bin(low=n / 10, high=(n + 1) / 10, rows=10, predicted=n / 10, observed=n / 12)
        for n in range(10)
    ]
    months = {f"2013-1{n}": {"brier": 0.15 + n / 100} for n in (1, 2)}
    found = samples.document(
        evaluation=samples.evaluation(
            slices=[
                part("carrier", "UA", 0.15),
                part("carrier", "HA", 0.23),
                part("hour", "21", 0.2),
            ],
            fairness=[
                Fairness(
                    column="carrier",
                    threshold=0.5,
                    differences={"demographic_parity": 0.123, "equalized_odds": 0.2},
                    worst_group="HA",
                )
            ],
            reliability=bins,
            by_period=months,
        ),
        champion=of_champion(champion, reliability=bins, by_period=months),
        comparison=evidence.Comparison(
            tests=[
                paired("brier", 0.004),
                paired(
                    "brier", 0.004, kind="superiority", margin=0.0, passed=False, p_adjusted=0.2
                ),
                paired("brier", -0.002, column="carrier", value="HA"),
                paired("brier", -0.012, column="carrier", value="UA", passed=False, p_adjusted=0.9),
                paired("brier", 0.003, column="hour", value="21"),
            ],
            yardstick=[
                evidence.YardstickChange(what="group", before=["day"], after=[]),
                evidence.YardstickChange(
                    what="outcomes",
                    before=[f"2013-11 {samples.digest('0a')}"],
                    after=[f"2013-11 {samples.digest('0b')}"],
                ),
            ],
            signature=[evidence.Change(name="tail", kind="removed", before="string")],
            model_signature=[
                evidence.Change(name="delay", kind="made_optional", before="long", after="long")
            ],
            drift=[Drift(column="distance", psi=0.2)],
            dependencies=["numpy 2.2.0 -> 2.3.0"],
        ),
    )
    proposed = samples.released(found, version=3, code=samples.release.Code(commit="ab" * 20))
    values: dict[str, Any] = {
        "path": "environments/dev/models/toy.yaml",
        "environment": "dev",
        "model": "toy",
        "kind": "release",
        "proposed": proposed,
        "champion": champion,
        "findings": [
            Finding("evidence", "pass", "signed"),
            Finding("slices", "fail", "carrier UA: gain -0.0120", "see who is behind these rows"),
            Finding("cost", "pass", "9.01 USD a month"),
            Finding("freeze", "not applicable", "skipped"),
        ],
        "evidence": found,
    } | changes
    return Verdict(
        base="ba" * 20,
        head="4e" * 20,
        scope=[Finding("scope", "pass", "changes dev alone")],
        releases=[ReleaseVerdict(**values)],
        problems=[],
        notes=[],
        unreachable=[],
    )


def markdown(found: Verdict, **options: Any) -> str:
    return report.markdown(found, compare_url=lambda a, b: f"compare/{a}...{b}", **options)


def test_the_comment_says_everything_and_the_verdict_first() -> None:
    said = markdown(verdict(), plots={"environments/dev/models/toy.yaml": "attachments/7"})
    parts = [
        "## ❌ 1 of 4 gates fails: slices",
        "- **slices**: carrier UA: gain -0.0120<br>→ see who is behind these rows",
        "### toy in dev: version 3 in place of 2",
        "| metric | champion (version 2) | challenger (version 3) | gain | test |",
        r"| brier (less is better) | 0.1540 \[0.1440, 0.1640\] | 0.1500 \[0.1400, 0.1600\]",
        "✅ non-inferior, margin 0.01 (p 0.002, α 0.05)<br>➖ not shown to be superior",
        "**2 of 3 slices got worse**, most of all carrier UA.",
        "| carrier UA | 1,000 | -0.0120",
        "Worst slices of all: brier carrier HA (0.2300, 1,000 rows); roc\\_auc",
        "| carrier | 0.123 | 0.200 | HA |",
        "![reliability, and what each period is worth](attachments/7)",
        f"| code | [`d4d4d4d4d4d4` … `abababababab`](compare/{'d4' * 20}...{'ab' * 20}) |",
        "| bento.digest | `c0c0c0c0c0c0` | `bebebebebebe` |",
        r"| hyper-parameter max\_iter | `200` | `300` |",
        "| signature: tail removed (breaks callers) | `string` | – |",
        "| MLflow signature: delay made optional | `long` | `long` |",
        "| yardstick: group | `day` | – |",
        "| yardstick: outcomes | `2013-11 0a0a0a0a0a0a` | `2013-11 0b0b0b0b0b0b` |",
        "distance 0.200",
        "numpy 2.2.0 -&gt; 2.3.0",
        "**Serving**: 5.0 ms median, 9.0 ms p99",
        "**Cost**: 9.01 USD a month",
        "<details><summary>Lineage</summary>",
        "| MLflow run |",
        "<details><summary>All 4 gates</summary>",
        "| ➖ | freeze | skipped |",
        "slipway check --base babababababa --head 4e4e4e4e4e4e",
        "slipway reproduce toy --env dev",
    ]
    at = -1
    for wanted in parts:
        wanted = wanted.replace(r"\[", "[").replace(r"\]", "]")
        assert wanted in said
        assert said.index(wanted, max(at, 0)) > at, wanted
        at = said.index(wanted, max(at, 0))


def rendered(text: str) -> str:
    """What is left of the Markdown that would be markup: code spans and escapes taken away."""
    return re.sub(r"`[^`]*`|\\[\\`*_{}\[\]#|~$]", "", text)


@pytest.mark.parametrize("where", ["finding", "problem", "slice", "note", "parameter", "path"])
def test_nothing_from_a_file_is_markup(where: str) -> None:
    found = verdict()
    (one,) = found.releases
    assert one.evidence is not None
    update: dict[str, Any] = {}
    if where == "finding":
        one = one.model_copy(update={"findings": [Finding("approvals", "fail", EVIL, EVIL)]})
        update = {"releases": [one]}
    elif where == "problem":
        said = f"{EVIL}\n  fix: {EVIL}"
        update = {"problems": [Problem(path="environments/x", message=said)]}
    elif where == "path":
        update = {"problems": [Problem(path=f"environments/{EVIL}", message="nothing")]}
    elif where == "note":
        update = {"notes": [EVIL]}
    else:
        evaluation = one.evidence.evaluation
        change = (
            {"slices": [part("carrier", EVIL, 0.9)]}
            if where == "slice"
            else {"parameters": {EVIL: EVIL, "x": 1}}
        )
        changed = one.evidence.model_copy(
            update={"evaluation": evaluation.model_copy(update=change)}
        )
        update = {"releases": [one.model_copy(update={"evidence": changed})]}
    said = markdown(found.model_copy(update=update))
    assert "onerror" in said
    left = rendered(said)
    assert "<img" not in left
    assert "](http" not in left
    assert "http://evil" not in left
    assert "@admin" not in left
    assert "\n# Approved" not in said
    for table in re.findall(r"(?:^\|.*\n?)+", said, flags=re.MULTILINE):
        columns = {rendered(row).count("|") for row in table.splitlines()}
        assert len(columns) == 1, table


def test_a_long_comment_is_cut_where_a_forge_would_refuse_it() -> None:
    found = [Finding("slices", "fail", f"{n} " + "x" * 200) for n in range(1000)]
    said = markdown(verdict(findings=found))
    assert len(said) < 65_536
    assert said.startswith("## ❌ 1 of 2 gates fails")
    assert "The rest: `slipway check --base" in said


def test_removal_rollback_rollout_and_a_first_release_say_so() -> None:
    assert "version 2 goes" in markdown(verdict(kind="removal", proposed=None, evidence=None))
    assert "back to version 3, which was released here" in markdown(verdict(kind="rollback"))
    assert "version 3 stays" in markdown(verdict(kind="rollout"))
    first = markdown(verdict(champion=None, evidence=samples.document()))
    assert "version 3, its first release" in first
    assert "what changed" not in first
    none = markdown(verdict(evidence=None, evidence_problem="gone"))
    assert "No evidence to show: gone" in none


def test_the_terminal_and_the_program_get_the_same_verdict() -> None:

    console = Console(width=200, record=True, file=io.StringIO())
    console.print(report.text(verdict(findings=[Finding("x", "fail", "[red]not markup[/]", "do")])))
    said = console.export_text()
    assert said.startswith("❌ 1 of 2 gates fails: x")
    assert "[red]not markup[/]" in said
    assert "→ do" in said
    found = report.document(verdict())
    assert (found["exit_code"], found["releases"][0]["kind"]) == (1, "release")
    assert found["headline"] == "❌ 1 of 4 gates fails: slices"


def test_the_plot_is_a_picture_and_the_same_each_time(place: Place) -> None:
    (found,) = verdict().releases
    made = report.plot(found)
    assert made.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", made[16:24])
    assert width > 600
    assert height > 250
    assert report.plot(found) == made
    # The first release has no champion, and the least evidence no curve: still a picture.
    (first,) = place.propose(files(place.next())).releases
    assert report.plot(first).startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="no evidence"):
        report.plot(first.model_copy(update={"evidence": None}))


def test_estimates_say_their_interval() -> None:
    said = markdown(verdict(evidence=samples.document(evaluation=samples.evaluation())))
    assert "0.7000 [0.6000, 0.8000]" in said
    assert Estimate(value=1, low=0, high=2)


def test_money_in_every_format() -> None:
    line = MoneyLine(
        name="pool inference",
        before=None,
        after=Amounts(floor=0, ceiling=3000.5, what="0–4 nodes of g6 | spot"),
    )
    cost = StackCost(
        stack="dev",
        currency="USD",
        prices=date(2026, 1, 2),
        region="us-east-1",
        lines=[line],
        before=Amounts(floor=10, ceiling=20),
        after=Amounts(floor=10, ceiling=3020.5),
    )
    found = verdict().model_copy(update={"costs": (cost,)})
    said = report.markdown(found)
    assert "### Stack dev: +0.00 at least, +3,000.50 at most, in USD a month" in said
    row = (
        "| pool inference | nothing → 0–4 nodes of g6 \\| spot | – | 0.00 | +0.00 | – | 3,000.50 | "
    )
    assert row in said
    assert "| total |  | 10.00 | 10.00 | +0.00 | 20.00 | 3,020.50 | +3,000.50 |" in said
    assert "prices of 2026-01-02 in us-east-1" in said
    shown = Console(file=io.StringIO(), width=200)
    shown.print(report.text(found))
    terminal = cast("io.StringIO", shown.file).getvalue()
    assert "Stack dev: +0.00 at least, +3,000.50 at most" in terminal
    assert report.document(found)["costs"][0]["after"]["ceiling"] == 3020.5
