"""A try as people read it: on a terminal, or pasted as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from slipway import report
from slipway.evidence import Test
from slipway.report import code, estimated, gained, plain, sliced, tested, worse
from slipway.tasks import LARGER_IS_BETTER, TASKS
from slipway.trial.document import Trial

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table


def text(trial: Trial) -> RenderableType:
    """The try for a terminal: what it is, metrics, slices, fairness, what it costs, every gate."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [Text(line) for line in _lines(trial)]
    parts += [Text(), _table(_metrics(trial))]
    parts += [Text(f"{line}.", style="dim") for line in _below(trial)]
    if rows := _slices(trial):
        parts += [Text(), _table(rows)]
    if trial.evaluation.fairness:
        parts += [Text(), _table(_fairness(trial))]
    if trial.serving:
        parts += [Text(), Text(f"served: {report.served(trial.serving)}")]
    if trial.findings:
        parts += [Text(), report.gate_table((f.rule, f) for f in trial.findings)]
    parts += [Text(f"note: {note}", style="dim") for note in trial.notes]
    parts += [Text(), Text(trial.headline, style="bold")]
    return Group(*parts)


def markdown(trial: Trial) -> str:
    """The same for a pull request or an issue."""
    head, *rows = _metrics(trial, tests=True)
    parts = [
        f"## {plain(trial.headline)}",
        "\n".join(f"- {plain(line)}" for line in _lines(trial)),
        "\n".join([_row(head), "|---" * len(head) + "|", *map(_row, rows)]),
        " ".join(f"{plain(line)}." for line in _below(trial)),
        report.slices(_tests(trial), trial.evaluation),
        report.fairness(trial.evaluation),
        f"**Served on this machine**: {report.served(trial.serving)}" if trial.serving else "",
        _gate_table(trial),
        *(f"> {plain(note)}" for note in trial.notes),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def history(trials: Sequence[Trial]) -> Table:
    """Tries, a line each."""
    lead = TASKS[trials[0].evaluation.task].lead
    head = ("WHEN", "BENTO", lead.upper(), "LEARNED FROM", "PARAMETERS OTHER THAN MODEL.YAML'S")
    rows = [
        (
            trial.created,
            report.short(trial.bento.digest),
            estimated(trial.evaluation.metrics.get(lead)),
            trial.part or "all rows",
            _settings(trial),
        )
        for trial in trials
    ]
    return _table([head, *rows])


def _settings(trial: Trial) -> str:
    return ", ".join(f"{name} {value}" for name, value in trial.overridden.items())


def _lines(trial: Trial) -> Iterator[str]:
    """What was tried, and beside what."""
    dirty = ", with changes that no commit has" if trial.changed else ""
    yield f"{trial.model} at {trial.evaluation.code[:12]}{dirty}"
    if trial.overridden:
        yield f"instead of model.yaml's: {_settings(trial)}"
    if trial.part:
        yield f"learned from {trial.part} alone"
    same = ""
    if trial.champion:
        version = f"version {trial.champion.version}, which {trial.environment} serves"
        same = f", the same as {version}" if trial.is_champion else f", another than {version}"
    yield f"bento {trial.bento.digest}{same}"
    if trial.libraries:
        yield f"the platform may make another bento of this: here {trial.libraries}"
    elif not trial.part:
        yield "the platform has the libraries that are here, and makes the same bento of this"
    if trial.champion is None:
        yield f"champion: {trial.champion_unknown or f'{trial.environment} serves none'}"


def _tests(trial: Trial) -> list[Test]:
    """Those against the champion, or else against the last try."""
    if trial.comparison:
        return trial.comparison.tests
    return trial.before.tests if trial.before else []


def _metrics(trial: Trial, *, tests: bool = False) -> list[tuple[str, ...]]:
    """A heading, and a row a metric; with `tests` also what they show."""
    champion, before = trial.champion, trial.before
    head = ["metric"]
    head += [f"champion ({champion.version})"] if champion else []
    head += ["last try"] if before else []
    head += ["this try"]
    paired = [t for t in _tests(trial) if not t.column]
    if paired:
        head += ["gain", "test"] if tests else ["gain"]
    rows: list[tuple[str, ...]] = [tuple(head)]
    for name, estimate in trial.evaluation.metrics.items():
        mine = [t for t in paired if t.metric == name]
        row = [f"{name} ({'more' if name in LARGER_IS_BETTER else 'less'} is better)"]
        row += [estimated(champion.metrics.get(name))] if champion else []
        row += [estimated(before.metrics.get(name))] if before else []
        row += [estimated(estimate)]
        if paired:
            row += [gained(mine[0].difference) if mine else "–"]
        if paired and tests:
            row += ["; ".join(tested(t) for t in mine) or "–"]
        rows.append(tuple(row))
    return rows


def _below(trial: Trial) -> Iterator[str]:
    """What the metrics are of."""
    gains = ", ".join(
        f"{name} {e.value:.1%} [{e.low:.1%}, {e.high:.1%}]"
        for name, e in trial.evaluation.gain.items()
    )
    yield f"Skill over {gains}"
    yield report.judged_on(trial.evaluation)
    before = trial.before
    if before:
        whole = f", which learned from {before.part}" if before.part else ""
        same = "; it made this very bento" if before.bento == trial.bento.digest else ""
        yield f"The last try is of {before.created}{whole}{same}"
        if changed := _changed(before.parameters, trial):
            yield f"Since then {changed}"
    if trial.champion and (changed := _changed(trial.champion.parameters, trial)):
        yield f"Against the champion {changed}"


def _changed(other: Mapping[str, object], trial: Trial) -> str:
    """In which parameters the try differs from another."""
    found = report.changed(other, trial.evaluation.parameters)
    return ", ".join(f"{d.what} {d.before} → {d.after}" for d in found)


def _slices(trial: Trial) -> list[tuple[str, ...]]:
    lost = worse(_tests(trial))
    if not lost:
        return []
    beside = "the champion" if trial.comparison else "the last try"
    few = lost[: report.SHOWN_SLICES]
    head = (f"slices worse than {beside}: {len(lost)}", "rows", f"gain in {lost[0].metric}")
    rows = [(sliced(t), f"{t.rows:,}", gained(t.difference)) for t in few]
    more = [(f"and {len(lost) - len(few)} more", "", "")] if few != lost else []
    return [head, *rows, *more]


def _fairness(trial: Trial) -> list[tuple[str, ...]]:
    found = trial.evaluation.fairness
    names = list(found[0].differences)
    head = ("fairness between", *(name.replace("_", " ") for name in names), "worst group")
    rows = [
        (f.column, *(f"{f.differences[name]:.3f}" for name in names), f.worst_group) for f in found
    ]
    return [head, *rows]


def _table(rows: Iterable[Sequence[str]]) -> Table:
    """A table under its first row."""
    from rich.table import Table
    from rich.text import Text

    head, *others = rows
    made = Table(box=None, pad_edge=False)
    for name in head:
        made.add_column(Text(name))
    for row in others:
        made.add_row(*map(Text, row))
    return made


def _gate_table(trial: Trial) -> str:
    if not trial.findings:
        return ""
    rows = report.gate_rows((f.rule, f) for f in trial.findings)
    return "\n".join([f"| | gate of {code(trial.environment)} | finding |", "|---|---|---|", *rows])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(plain, cells))} |"
