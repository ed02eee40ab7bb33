"""A verdict as people read it: the pull request's comment, a terminal, a plot."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slipway.check import Amounts, Difference, MoneyLine, ReleaseVerdict, StackCost, Verdict
from slipway.evidence import Bin, Estimate, Evaluation, Evidence, Serving, Slice, Test
from slipway.gates import Finding
from slipway.tasks import LARGER_IS_BETTER, TASKS

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

# Forges refuse comments of more than 65,536 characters.
MAXIMUM = 60_000
SHOWN_SLICES = 5

_MARKS = {"pass": "✅", "fail": "❌", "waived": "⚠️", "not applicable": "➖", "unknown": "❔"}

# The page that shows what two commits differ in.
CompareUrl = Callable[[str, str], str]


def document(verdict: Verdict) -> dict[str, Any]:
    """The verdict for a program."""
    return {
        "headline": verdict.headline,
        "exit_code": verdict.exit_code,
        **verdict.model_dump(mode="json"),
    }


# Markdown: nothing that a file, a person or a model says is markup here.


def plain(text: object) -> str:
    """Text as itself in a line of Markdown: no markup, link or mention, no end of a table cell."""
    line = " ".join(str(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*_{}\[\]#|~$])", r"\\\1", line)
    # A word joiner, which nobody sees, keeps forges from finding people, issues and addresses.
    return re.sub(r"@|#|:(?=//)|www(?=\.)", "\\g<0>\u2060", line)


def code(text: object) -> str:
    """Text as code, in a table too."""
    line = " ".join(str(text).split()).replace("|", "¦").replace("`", "ʼ")
    return f"`{line}`" if line else "–"


def short(digest: str) -> str:
    """A digest or commit as a person compares it."""
    return digest.removeprefix("sha256:")[:12]


def markdown(
    verdict: Verdict,
    *,
    compare_url: CompareUrl | None = None,
    plots: Mapping[str, str] | None = None,
) -> str:
    """The pull request's comment: the verdict first, then what it rests on.

    Args:
        compare_url: the forge's page for the difference of two commits.
        plots: release file to the address of its plot.
    """
    parts = [f"## {plain(verdict.headline)}", *_problems(verdict), *_failures(verdict)]
    for found in verdict.releases:
        parts += _release(verdict, found, compare_url, (plots or {}).get(found.path, ""))
    for cost in verdict.costs:
        parts += _cost(cost)
    parts += [f"> {plain(note)}" for note in verdict.notes]
    parts += _gates(verdict)
    if verdict.releases or verdict.problems:
        parts += _again(verdict)
    text = "\n\n".join(part for part in parts if part)
    if len(text) > MAXIMUM:
        cut = text[:MAXIMUM].rpartition("\n\n")[0]
        text = f"{cut}\n\n…\n\nThe rest: {code(_command(verdict))}"
    return text + "\n"


def _problems(verdict: Verdict) -> list[str]:
    lines: list[str] = []
    for problem in verdict.problems:
        said, _, fix = problem.message.partition("\n  fix: ")
        lines.append(f"- {code(problem.path)}: {plain(said)}{_fix(fix)}")
    return ["\n".join(lines)] if lines else []


def _fix(fix: str) -> str:
    """What to do about it, in a cell of a table."""
    return f"<br>→ {plain(fix)}" if fix else ""


def _failures(verdict: Verdict) -> list[str]:
    lines = [
        f"- **{plain(_named(about, f))}**: {plain(f.message)}{_fix(f.fix)}"
        for about, f in verdict.of("fail", "waived")
        if f.state == "fail" or f.rule == "break_glass"
    ]
    return ["\n".join(lines)] if lines else []


def _named(about: str, finding: Finding) -> str:
    return f"{about} {finding.rule}".strip()


def _title(found: ReleaseVerdict) -> str:
    release, champion = found.release, found.champion
    where = f"{found.model} in {found.environment}"
    if found.kind == "removal":
        return f"{where}: version {release.version} goes, and nothing takes its place"
    if found.kind == "rollback":
        return f"{where}: back to version {release.version}, which was released here before"
    if found.kind == "rollout":
        return f"{where}: version {release.version} stays, and runs otherwise"
    now = f" in place of {champion.version}" if champion else ", its first release"
    return f"{where}: version {release.version}{now}"


def _release(
    verdict: Verdict, found: ReleaseVerdict, compare_url: CompareUrl | None, plot: str
) -> Iterable[str]:
    yield f"### {plain(_title(found))}"
    evidence = found.evidence
    if evidence:
        yield _metrics(found, evidence)
        yield slices(_tests(evidence), evidence.evaluation)
        yield fairness(evidence.evaluation)
    elif found.evidence_problem:
        yield f"No evidence to show: {plain(found.evidence_problem)}"
    if plot:
        yield f"![reliability, and what each period is worth]({plot})"
    yield _changes(found, compare_url)
    if evidence:
        yield _served(found, evidence)
    yield _lineage(found)


def estimated(estimate: Estimate | None) -> str:
    """A number with its interval."""
    return f"{estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]" if estimate else "–"


def gained(estimate: Estimate) -> str:
    """A difference with its interval."""
    return f"{estimate.value:+.4f} [{estimate.low:+.4f}, {estimate.high:+.4f}]"


def _tests(evidence: Evidence) -> list[Test]:
    return evidence.comparison.tests if evidence.comparison else []


def _metrics(found: ReleaseVerdict, evidence: Evidence) -> str:
    evaluation, champion = evidence.evaluation, evidence.champion
    whole = [t for t in _tests(evidence) if not t.column]
    names = f"champion (version {champion.version})" if champion else "champion"
    lines = [
        f"| metric | {names} | challenger (version {found.release.version}) | gain | test |",
        "|---|---|---|---|---|",
    ]
    for name, estimate in evaluation.metrics.items():
        tests = [t for t in whole if t.metric == name]
        before = champion.metrics.get(name) if champion else None
        better = "more" if name in LARGER_IS_BETTER else "less"
        gain = gained(tests[0].difference) if tests else "–"
        lines.append(
            f"| {plain(name)} ({better} is better) | {estimated(before)} | {estimated(estimate)} "
            f"| {gain} | {'<br>'.join(map(tested, tests)) or '–'} |"
        )
    lines += [
        f"| skill over {plain(name)} | – | {e.value:.1%} [{e.low:.1%}, {e.high:.1%}] | | |"
        for name, e in evaluation.gain.items()
    ]
    lines += ["", f"{plain(judged_on(evaluation))}; a gain above 0 is the challenger's."]
    return "\n".join(lines)


def judged_on(evaluation: Evaluation) -> str:
    """The holdout, and of what the intervals are, in words."""
    holdout = evaluation.holdout
    partitions = holdout.partitions
    span = partitions[0] if len(partitions) == 1 else f"{partitions[0]} to {partitions[-1]}"
    left_out = f", {holdout.unknown:,} without an outcome left out" if holdout.unknown else ""
    return (
        f"On {holdout.rows:,} rows of {span}, {_outcomes(evaluation)}{left_out}. "
        f"Intervals are of {evaluation.confidence:.0%}"
    )


def _outcomes(evaluation: Evaluation) -> str:
    """What the holdout's rows are about, in words."""
    mean = evaluation.holdout.mean_outcome
    if evaluation.task == "classification":
        return f"{mean:.1%} of them positive"
    return f"outcomes {mean:.4g} ± {evaluation.holdout.deviation:.4g} (mean, standard deviation)"


def tested(test: Test) -> str:
    """What a test shows, in a cell of a table."""
    what = "non-inferior" if test.kind == "non_inferiority" else "superior"
    margin = f", margin {test.margin:g}" if test.margin else ""
    # That a challenger is no better is no fault; whether it matters is a gate's to say.
    mark = "✅" if test.passed else ("❌" if test.kind == "non_inferiority" else "➖")
    shown = "" if test.passed else "not shown to be "
    return f"{mark} {shown}{what}{margin} (p {test.p_adjusted:.2g}, α {test.alpha:g})"


def worse(tests: Iterable[Test]) -> list[Test]:
    """Those of slices that lost, the greatest loss first."""
    lost = (t for t in tests if t.column and t.difference.value < 0)
    return sorted(lost, key=lambda t: t.difference.value)


def slices(tests: Sequence[Test], evaluation: Evaluation) -> str:
    """Who is worse off than before by the tests, and who is worst off at all."""
    tests = [t for t in tests if t.column]
    lost = worse(tests)
    lines: list[str] = []
    if lost:
        most = lost[0]
        lines += [
            f"**{len(lost)} of {len(tests)} slices got worse**, most of all {plain(sliced(most))}.",
            "",
            f"| slice | rows | gain in {plain(most.metric)} | test |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| {plain(sliced(t))} | {t.rows:,} | {gained(t.difference)} | {tested(t)} |"
            for t in lost[:SHOWN_SLICES]
        ]
        if len(lost) > SHOWN_SLICES:
            lines.append(f"| and {len(lost) - SHOWN_SLICES} more | | | |")
    elif tests:
        lines.append(f"None of {len(tests)} slices got worse.")
    least = min((t.rows for t in tests), default=0)
    judged = [s for s in evaluation.slices if s.rows >= least]
    worst = [f"{name} {plain(text)}" for name, text in _worst(judged)]
    if worst:
        lines += ["", f"Worst slices of all: {'; '.join(worst)}."]
    return "\n".join(lines)


def sliced(test: Test) -> str:
    """Which slice a test is of."""
    return f"{test.column} {test.value}"


def _worst(slices: Sequence[Slice]) -> Iterable[tuple[str, str]]:
    """Each metric with its worst slice in words."""
    for name in dict.fromkeys(name for s in slices for name in s.metrics):
        having = [s for s in slices if name in s.metrics]
        sign = 1 if name in LARGER_IS_BETTER else -1
        worst = min(having, key=lambda s: sign * s.metrics[name])
        yield (
            plain(name),
            f"{worst.column} {worst.value} ({worst.metrics[name]:.4f}, {worst.rows:,} rows)",
        )


def fairness(evaluation: Evaluation) -> str:
    """The differences between groups, a row a column."""
    found = evaluation.fairness
    if not found:
        return ""
    names = list(found[0].differences)
    rows = [
        [f.column, *(f"{f.differences[name]:.3f}" for name in names), f.worst_group] for f in found
    ]
    at = found[0].threshold
    threshold = "" if at is None else f", yes from {at:g} on"
    head = [f"fairness between{threshold}", *(n.replace("_", " ") for n in names), "worst group"]
    lines = [f"| {' | '.join(map(plain, row))} |" for row in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def _changes(found: ReleaseVerdict, compare_url: CompareUrl | None) -> str:
    """What differs from the champion, a row each; nothing where there is no champion."""
    if found.champion is None or found.proposed is None:
        return ""
    rows = [_row(d.what, d.before, d.after) for d in _pinned(found.differences)]
    before, after = found.champion.code.commit, found.proposed.code.commit
    if before != after:
        link = compare_url(before, after) if compare_url else ""
        text = f"{code(short(before))} … {code(short(after))}"
        shown = f"[{text}]({link})" if link else text
        rows.insert(0, f"| code | {shown} | |")
    rows += [_row(f"hyper-parameter {d.what}", d.before, d.after) for d in parameters(found)]
    evidence = found.evidence
    if evidence and evidence.comparison:
        compared = evidence.comparison
        rows += [
            f"| signature: {plain(c.name)} {plain(c.kind)}{' (breaks callers)' * c.breaks} "
            f"| {code(c.before)} | {code(c.after)} |"
            for c in compared.signature
        ]
        rows += [
            _row(f"MLflow signature: {c.name} {c.kind.replace('_', ' ')}", c.before, c.after)
            for c in compared.model_signature
        ]
        rows += [
            _row(f"yardstick: {c.what}", ", ".join(c.before), ", ".join(c.after))
            for c in compared.yardstick
        ]
        moved = sorted(compared.drift, key=lambda d: -d.psi)[:3]
        if moved:
            named = ", ".join(f"{plain(d.column)} {d.psi:.3f}" for d in moved)
            rows.append(f"| drift of the training data (PSI), most | | {named} |")
        rows += [f"| dependency | | {plain(line)} |" for line in compared.dependencies]
    if not rows:
        return "Nothing but the file's text differs from the champion."
    return "\n".join(["| what changed | champion | challenger |", "|---|---|---|", *rows])


def _pinned(differences: Iterable[Difference]) -> list[Difference]:
    apart = ("version", "code.commit", "mlflow.run", "bento.size")
    return [d for d in differences if d.what not in apart]


def _row(what: str, before: str, after: str) -> str:
    return f"| {plain(what)} | {code(_shortened(before))} | {code(_shortened(after))} |"


def _shortened(value: str) -> str:
    """A digest, or an image by one, as a person compares it."""
    return re.sub(r"sha256:([0-9a-f]{12})[0-9a-f]{52}", r"\1", value)


def parameters(found: ReleaseVerdict) -> list[Difference]:
    """The hyper-parameters that differ from the champion's."""
    evidence = found.evidence
    if evidence is None or evidence.champion is None:
        return []
    return changed(evidence.champion.parameters, evidence.evaluation.parameters)


def changed(old: Mapping[str, object], new: Mapping[str, object]) -> list[Difference]:
    """Settings of which one side has others."""
    return [
        Difference(what=n, before=str(old.get(n, "")), after=str(new.get(n, "")))
        for n in dict.fromkeys([*old, *new])
        if old.get(n) != new.get(n)
    ]


def served(serving: Serving) -> str:
    """What the bento costs to run, and whether it answered as was evaluated."""
    compared = f"as evaluated ({serving.compared})" if serving.compared else "not compared"
    return (
        f"{serving.latency_p50_ms:.1f} ms median, {serving.latency_p99_ms:.1f} ms p99, "
        f"{serving.memory_mib:.0f} MiB, ready in {serving.start_seconds:.1f} s, bento "
        f"{serving.bento_bytes / 2**20:.1f} MiB, answers {compared}"
    )


def _served(found: ReleaseVerdict, evidence: Evidence) -> str:
    cost = next((f.message for f in found.findings if f.rule == "cost"), "")
    lines = [
        f"**Serving**: {served(evidence.serving)}",
        f"**Cost**: {plain(cost)}" if cost else "",
    ]
    return "<br>".join(line for line in lines if line)


def _lineage(found: ReleaseVerdict) -> str:
    release, evidence = found.release, found.evidence
    chain = [
        ("bento", release.bento.digest),
        ("runtime image", release.runtime.image),
        ("code", release.code.commit),
        ("data", release.data.digest),
        ("MLflow run", release.mlflow.run),
        ("evidence", release.evidence.digest),
    ]
    if evidence:
        chain += [
            ("made", evidence.created),
            ("evaluated", evidence.evaluation.evaluated),
            ("holdout", evidence.evaluation.holdout.digest),
            ("dependencies", evidence.dependencies.lock),
            ("thresholds", evidence.policy.digest),
        ]
    rows = "\n".join(f"| {what} | {code(value)} |" for what, value in chain)
    return _folded("Lineage", f"| | |\n|---|---|\n{rows}")


# Money


def _money_title(cost: StackCost) -> str:
    total = cost.total
    floor, ceiling = (f"{_moved(total, which):+,.2f}" for which in ("floor", "ceiling"))
    return f"Stack {cost.stack}: {floor} at least, {ceiling} at most, in {cost.currency} a month"


def _moved(line: MoneyLine, which: str) -> float:
    before, after = (getattr(side, which) if side else 0.0 for side in (line.before, line.after))
    return after - before


def _amount(side: Amounts | None, which: str) -> str:
    return f"{getattr(side, which):,.2f}" if side else "–"


def _money_rows(cost: StackCost) -> Iterable[tuple[str, ...]]:
    """What, before and after in words, and floor and ceiling before, after and their difference."""
    for line in (*cost.lines, cost.total):
        was, now = (side.what if side else "" for side in (line.before, line.after))
        what = now if was == now else f"{was or 'nothing'} → {now or 'nothing'}"
        amounts = [
            text
            for which in ("floor", "ceiling")
            for text in (
                _amount(line.before, which),
                _amount(line.after, which),
                f"{_moved(line, which):+,.2f}",
            )
        ]
        yield (line.name, what, *amounts)


MONEY = ("", "", "floor before", "after", "", "ceiling before", "after", "")


def _cost(cost: StackCost) -> Iterable[str]:
    yield f"### {plain(_money_title(cost))}"
    rows = [f"| {' | '.join(plain(cell) for cell in row)} |" for row in _money_rows(cost)]
    head = [f"| {' | '.join(MONEY)} |", "|---|---|--:|--:|--:|--:|--:|--:|"]
    yield "\n".join([*head, *rows])
    prices = f"By the base's prices of {cost.prices} in {plain(cost.region)}"
    yield f"{prices}, without traffic, stored objects and requests."


def _folded(summary: str, text: str) -> str:
    return f"<details><summary>{summary}</summary>\n\n{text}\n\n</details>"


def _gates(verdict: Verdict) -> list[str]:
    rows = gate_rows((_named(about, f), f) for about, f in verdict.findings)
    if not rows:
        return []
    table = "\n".join(["| | gate | finding |", "|---|---|---|", *rows])
    return [_folded(f"All {verdict.count} gates", table)]


def gate_rows(findings: Iterable[tuple[str, Finding]]) -> list[str]:
    """Rows of a table in Markdown: what each gate, by the name that it is given here, found."""
    return [
        f"| {_MARKS[f.state]} | {plain(name)} | {plain(_found(f))}{_fix(f.fix)} |"
        for name, f in findings
    ]


def gate_table(findings: Iterable[tuple[str, Finding]]) -> Table:
    """The same for a terminal."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, show_header=False, pad_edge=False)
    for name, f in findings:
        style = {"fail": "red", "waived": "yellow", "pass": ""}.get(f.state, "dim")
        said = f"{_found(f)}\n→ {f.fix}" if f.fix else _found(f)
        made.add_row(_MARKS[f.state], Text(name), Text(said, style=style))
    return made


def _found(finding: Finding) -> str:
    return f"{'not known here: ' if finding.state == 'unknown' else ''}{finding.message}"


def _command(verdict: Verdict) -> str:
    return f"slipway check --base {verdict.base[:12]} --head {verdict.head[:12]}"


def _again(verdict: Verdict) -> list[str]:
    """How whoever doubts it sees for himself."""
    lines = [_command(verdict)] if verdict.head else []
    lines += [
        f"slipway reproduce {found.model} --env {found.environment}   # retrains from the pins"
        for found in verdict.releases
        if found.proposed
    ]
    text = "\n".join(lines)
    judged = (
        f"Judged {code(verdict.head[:12])} by the gates and champions of {code(verdict.base[:12])}."
    )
    return [_folded("Reproduce", f"{judged}\n\n```sh\n{text}\n```")] if lines else []


# Terminal


def text(verdict: Verdict) -> RenderableType:
    """The verdict for a terminal: the headline, what fails, what changes, and every gate."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[RenderableType] = [Text(verdict.headline, style="bold")]
    for problem in verdict.problems:
        parts.append(Text(f"{problem.path}: {problem.message}", style="red"))
    for found in verdict.releases:
        parts += [Text(), Text(_title(found), style="bold"), *_compared(found)]
        changed = Table(box=None, show_header=False, pad_edge=False)
        rows = [*_pinned(found.differences), *parameters(found)]
        if found.champion and found.proposed and rows:
            for d in rows:
                before, after = (_shortened(v) or "-" for v in (d.before, d.after))
                changed.add_row(Text(d.what), Text(before), "→", Text(after))
            parts.append(changed)
    for cost in verdict.costs:
        parts += [Text(), Text(_money_title(cost), style="bold"), _money(cost)]
    if verdict.findings:
        gates = gate_table((_named(about, f), f) for about, f in verdict.findings)
        parts += [Text(), gates]
    parts += [Text(f"note: {note}", style="dim") for note in verdict.notes]
    return Group(*parts)


def _money(cost: StackCost) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for index, name in enumerate(MONEY):
        table.add_column(name, justify="left" if index < 2 else "right")
    for row in _money_rows(cost):
        table.add_row(*(Text(cell) for cell in row))
    return table


def _compared(found: ReleaseVerdict) -> list[RenderableType]:
    from rich.table import Table
    from rich.text import Text

    evidence = found.evidence
    if evidence is None:
        return []
    made = Table(box=None, pad_edge=False)
    for name in ("METRIC", "CHAMPION", "CHALLENGER", "GAIN"):
        made.add_column(name)
    gains = {t.metric: t.difference for t in _tests(evidence) if not t.column}
    before = evidence.champion.metrics if evidence.champion else {}
    for name, estimate in evidence.evaluation.metrics.items():
        gain = gained(gains[name]) if name in gains else "–"
        made.add_row(Text(name), _bracketed(before.get(name)), _bracketed(estimate), Text(gain))
    return [made]


def _bracketed(estimate: Estimate | None) -> RenderableType:
    from rich.text import Text

    return Text(estimated(estimate))


# Plot


def plot(found: ReleaseVerdict) -> bytes:
    """A PNG: reliability curves of champion and challenger, and the task's first metric by period.

    Raises:
        ValueError: there is no evidence to plot.
    """
    evidence = found.evidence
    if evidence is None:
        raise ValueError("no evidence")
    # Takes a second: only where a plot is asked for. Agg, as there is no display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    task = TASKS[evidence.evaluation.task]
    edges = [edge for line in _curves(found, evidence) for b in line.bins for edge in _ends(b)]
    ends = (0, 1) if task.name == "classification" else (min(edges), max(edges))
    left.plot(ends, ends, color="0.8", linewidth=1, zorder=0)
    for line in _curves(found, evidence):
        style = {"color": line.color, "marker": "o", "markersize": 3, "linewidth": 1.5}
        left.plot([b.predicted for b in line.bins], [b.observed for b in line.bins], **style)
        scores = {p: m[task.lead] for p, m in line.by_period.items() if task.lead in m}
        if scores:
            right.plot(list(scores), list(scores.values()), label=line.name, **style)
    left.set(xlabel="predicted", ylabel="observed", title="Reliability", xlim=ends, ylim=ends)
    right.set(title=f"{task.lead} (less is better)")
    right.tick_params(axis="x", labelrotation=30)
    if right.lines:
        right.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    file = io.BytesIO()
    # Without the writer's version in it equal evidence gives equal bytes.
    canvas.print_png(file, metadata={"Software": None})
    return file.getvalue()


def _ends(found: Bin) -> tuple[float, ...]:
    return found.predicted, found.observed


@dataclass(frozen=True)
class _Curve:
    name: str
    color: str
    bins: Sequence[Bin]
    by_period: Mapping[str, Mapping[str, float]]


def _curves(found: ReleaseVerdict, evidence: Evidence) -> Iterable[_Curve]:
    """The champion's, where it is known, then the challenger's."""
    before, now = evidence.champion, evidence.evaluation
    if before and before.reliability:
        yield _Curve(
            f"champion ({before.version})", "#888888", before.reliability, before.by_period
        )
    name = f"challenger ({found.release.version})"
    yield _Curve(name, "#1f6feb", now.reliability, now.by_period)
