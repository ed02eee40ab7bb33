"""Gates: whether a proposed release may enter an environment, rule by rule.

Thresholds are data, `policies/promotion/<env>.yaml`; a rule is a module under
`policies/promotion/rules/`, so adding a gate is adding a file. Whoever evaluates says where the
thresholds are read from (the base revision, never the proposal); the rules are those of the running
checkout. `python -m slipway.gates` writes the JSON schema of a policy document.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeVar, cast

from pydantic import AwareDatetime, Field, ValidationError, create_model

from slipway import digests, paths, release
from slipway.digests import Digest
from slipway.errors import BadInput, did_you_mean, from_validation
from slipway.release import Release, Strict, check_environment, parse_yaml

if TYPE_CHECKING:
    from slipway.comparison import EvidencePolicy
    from slipway.evidence import Comparison, Evidence, Test

FOLDER = PurePosixPath("policies", "promotion")
RULES = paths.REPOSITORY / FOLDER / "rules"
SCHEMA = paths.REPOSITORY / FOLDER / "schema.json"
# Clocks of machines that trust each other differ by seconds; by minutes, one of them is wrong.
CLOCK_SKEW = timedelta(minutes=5)

# `unknown`: cannot be judged where it is asked (`NotKnown`), which on the platform nothing is.
State = Literal["pass", "fail", "waived", "not applicable", "unknown"]
# `rollback`: exactly an earlier release file of the environment; else `release`: other pins, or
# `rollout`: the same pins, run otherwise; `removal`: the model leaves the environment.
Kind = Literal["release", "rollback", "rollout", "removal"]
# A file's content by its path in the repository, None where there is none.
Read = Callable[[str], bytes | None]


class NotEvaluated(Exception):
    """A rule lacks what it judges by. That is a failure which says so, never a pass."""

    def __init__(self, reason: str, *, fix: str = "") -> None:
        super().__init__(reason)
        self.fix = fix


class NotKnown(NotEvaluated):
    """A rule is asked where what it judges by cannot be had: neither a pass nor a failure."""


@dataclass(frozen=True)
class Finding:
    """What one rule found. Of a rule's several findings one failure is enough to fail it."""

    rule: str
    state: State
    message: str
    fix: str = ""


def passed(message: str) -> Finding:
    """For rules: the engine adds the rule's name."""
    return Finding("", "pass", message)


def failed(message: str, fix: str = "") -> Finding:
    return Finding("", "fail", message, fix)


def waived(message: str) -> Finding:
    """Not held, and allowed: the message names who or what allows it."""
    return Finding("", "waived", message)


def not_applicable(message: str) -> Finding:
    return Finding("", "not applicable", message)


class Approval(NamedTuple):
    """Somebody's present approval of a pull request, and the commit that it was given for."""

    login: str
    sha: str
    when: datetime


@dataclass(frozen=True)
class PullFacts:
    """What the forge knows of a pull request. `sha`: its head. Dismissed approvals are left out.

    `proposers`: who committed it or asked for it, in lower case.
    """

    number: int
    author: str
    sha: str
    approvals: tuple[Approval, ...] = ()
    proposers: frozenset[str] = frozenset()

    @property
    def own(self) -> frozenset[str]:
        """Whose approval does not count, in lower case."""
        return self.proposers | {self.author.lower()}

    @property
    def agreeing(self) -> dict[str, str]:
        """Who approves the present head, by their lower case."""
        return {a.login.lower(): a.login for a in self.approvals if a.sha == self.sha}

    @property
    def approvers(self) -> list[str]:
        """Who approves the present head, and did not propose it."""
        return [login for key, login in self.agreeing.items() if key not in self.own]


class Stay(NamedTuple):
    """A time in which a release file named one bento; `until` is None where it still does."""

    since: datetime
    until: datetime | None


@dataclass(frozen=True)
class Soak:
    """What one bento really served in one environment.

    `times`, oldest first, are of predictions: one for each piece of a replica's log, which is some
    seconds long. `squared_error` is the mean over the labelled ones: of probabilities the Brier
    score.
    """

    times: tuple[datetime, ...]
    predictions: int
    labelled: int
    squared_error: float | None

    def within(self, stay: Stay) -> tuple[datetime, ...]:
        """The times in a stay."""
        start = bisect_left(self.times, stay.since)
        return self.times[start : bisect_left(self.times, stay.until) if stay.until else None]

    def lasted(self, stays: Iterable[Stay], now: datetime) -> timedelta:
        """How long it served: in each stay from its first prediction to its last, in the one that
        still is to `now`."""
        served = [(stay, times) for stay in stays if (times := self.within(stay))]
        spans = [(times[-1] if stay.until else now) - times[0] for stay, times in served]
        return sum((max(span, timedelta()) for span in spans), timedelta())


class BreakGlass(Strict):
    """`environments/<env>/break-glass/<model>.yaml`: who waives which rules, why and until when."""

    who: Annotated[str, Field(min_length=1)]
    why: Annotated[str, Field(min_length=20)]
    until: AwareDatetime
    rules: Annotated[tuple[str, ...], Field(min_length=1)]


class Rollback(Strict):
    """What going back asks for, beside signed evidence about the bento."""

    approvals: str = "none"


class BreakGlassLimits(Strict):
    """Who may break the glass, for how long, and which rules that can waive."""

    group: str
    maximum_hours: Annotated[int, Field(ge=1, le=72)] = 24
    rules: tuple[str, ...]


class Requirement(Strict):
    """So many different people of one group."""

    group: str
    count: Annotated[int, Field(ge=1)] = 1


class ApprovalPolicies(Strict):
    """`policies/promotion/approvals.yaml`: groups of logins, and policies that ask for them.

    `custody` is the policy for what judges and serves releases.
    """

    groups: dict[str, tuple[str, ...]]
    policies: dict[str, tuple[Requirement, ...]]
    custody: str

    def members(self, group: str) -> dict[str, str]:
        """The group's logins, by their lower case: forges do not tell the cases apart."""
        return {login.lower(): login for login in self.groups[group]}

    def findings(self, asked: Iterable[Requirement], pull: PullFacts | None) -> Iterator[Finding]:
        """Whether enough of the right people, other than the author, approve the head."""
        requirements = dict.fromkeys(asked)
        if not requirements:
            yield passed("nobody's is asked")
            return
        if pull is None:
            yield failed(
                "not evaluated: approvals stand on the pull request, and this is none",
                "open a pull request",
            )
            return
        agreeing = pull.agreeing.values()
        stale = sorted({a.login for a in pull.approvals if a.sha != pull.sha} - {*agreeing})
        notes = [f"{', '.join(stale)} approved an earlier commit"] if stale else []
        if mine := sorted({*agreeing} - {*pull.approvers}):
            notes.append(f"{', '.join(mine)} approves what is their own")
        aside = f" ({'; '.join(notes)})" if notes else ""
        for requirement in requirements:
            members = self.members(requirement.group)
            by = [login for login in pull.approvers if login.lower() in members]
            message = (
                f"{len(by)} of {requirement.count} by {requirement.group}"
                f"{': ' if by else ''}{', '.join(by)}"
            )
            if len(by) >= requirement.count:
                yield passed(message)
                continue
            can = [who for key, who in members.items() if key not in pull.own]
            yield failed(
                f"{message}{aside}",
                f"ask {', '.join(can) or 'nobody: the group has no one but the author'} to approve "
                f"{pull.sha[:12]}; the author {pull.author} does not count",
            )


@dataclass(frozen=True)
class Policy:
    """One environment's thresholds as they hold for one model.

    `limits`: rule to its limits, in the document's order. `skip`: rules that do not hold here, and
    why. `digest` is of the parsed document: comments and other models' exceptions do not count.
    """

    environment: str
    file: str
    digest: Digest
    limits: Mapping[str, Strict]
    skip: Mapping[str, str]
    rollback: Rollback
    break_glass: BreakGlassLimits | None
    approvals: ApprovalPolicies

    @property
    def evidence(self) -> EvidencePolicy:
        """By what margins and levels the evidence is to be made."""
        return cast("EvidencePolicy", self.limits["evidence"])


@dataclass(frozen=True)
class Subject:
    """One proposed change of one release file, and all that the rules may look at.

    `champion`, `previous`, `former` are the base revision's: this environment's release, the
    previous environment's, and this environment's earlier ones, newest first; `stays` is when the
    previous environment's named the proposed bento, oldest first. `evidence` has been
    verified; where there is none `evidence_problem` says why. `bento_problem`: why the bento cannot
    be served, "" where it can. `merged`: whether the base contains the commit that trained it; None
    where that cannot be told. A removal proposes what it removes. `unknown`: rules that cannot be
    judged where they are asked, and why; `comparison_unknown`: why nothing compares with the
    champion there.
    """

    environment: str
    model: str
    path: str
    proposed: Release
    champion: Release | None
    policy: Policy
    now: datetime
    previous: Release | None = None
    former: tuple[Release, ...] = ()
    evidence: Evidence | None = None
    evidence_problem: str = ""
    bento_problem: str = ""
    merged: bool | None = None
    pull: PullFacts | None = None
    stays: tuple[Stay, ...] = ()
    soak: Soak | None = None
    soak_problem: str = ""
    break_glass: BreakGlass | None = None
    removal: bool = False
    unknown: Mapping[str, str] = field(default_factory=dict[str, str])
    comparison_unknown: str = ""

    @property
    def kind(self) -> Kind:
        if self.removal:
            return "removal"
        if self.proposed in self.former:
            return "rollback"
        champion = self.champion
        same = champion is not None and champion.pins == self.proposed.pins
        return "rollout" if same else "release"

    @property
    def previous_environment(self) -> str | None:
        """Where the model has to have been before; None for the first."""
        return release.before(self.environment)

    def found(self) -> Evidence:
        """The verified evidence, or `NotEvaluated`."""
        if self.evidence is None:
            raise NotEvaluated("no verified evidence to judge by (see the rule evidence)")
        return self.evidence

    def compared(self) -> Comparison | None:
        """The comparison with the champion, or None where there is no champion to compare with."""
        found = self.found()
        if self.comparison_unknown:
            raise NotKnown(self.comparison_unknown)
        if self.champion is None:
            return None
        if found.comparison is None:
            raise NotEvaluated(
                f"the evidence compares with nothing, and {self.environment} serves version "
                f"{self.champion.version}",
                fix=self.again,
            )
        return found.comparison

    @property
    def no_champion(self) -> Finding:
        return not_applicable(f"{self.environment} serves no {self.model} to compare with")

    @property
    def again(self) -> str:
        """How evidence for this environment is made anew."""
        return f"slipway promote {self.model} --to {self.environment} makes evidence anew"


@dataclass(frozen=True)
class Rule:
    """A module of `policies/promotion/rules/`: its `Limits`, its `check`, its first line.

    It applies to releases alone unless its `APPLIES_TO` names other kinds of change.
    """

    name: str
    limits: type[Strict]
    check: Callable[[Subject, Any], Iterable[Finding]]
    applies_to: tuple[Kind, ...]
    file: Path


@cache
def rules(folder: Path = RULES) -> dict[str, Rule]:
    """Every rule of the checkout that runs, by name. `BadInput` names a file that is broken."""
    files = sorted(file for file in folder.glob("*.py") if file.stem != "__init__")
    return {file.stem: _rule(file) for file in files}


def _rule(file: Path) -> Rule:
    name = f"slipway_rules.{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise BadInput("no Python module", file=file)
    module = importlib.util.module_from_spec(spec)
    # pydantic looks up a class's module to read its annotations.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        limits, check = module.Limits, module.check
    except Exception as error:
        raise BadInput(
            f"a broken rule: {type(error).__name__}: {error}",
            file=file,
            fix="a rule is a module with class Limits(Strict) and check(subject, limits)",
        ) from error
    if file.stem in _BLOCKS:
        raise BadInput(f"no rule may be called {file.stem}: a policy's block is", file=file)
    applies_to = cast("tuple[Kind, ...]", getattr(module, "APPLIES_TO", ("release",)))
    return Rule(file.stem, limits, check, applies_to, file)


# Keys of a policy document that are not rules.
_BLOCKS = ("skip", "models", "rollback", "break_glass")


class _Document(Strict):
    """One environment's thresholds: a key per rule with its limits, and what is not a rule."""

    skip: dict[str, Annotated[str, Field(min_length=10)]] = Field(
        default={}, description="rules that do not hold here, and why; every other has limits"
    )
    rollback: Rollback = Rollback()
    break_glass: BreakGlassLimits | None = None


def document_model(known: Mapping[str, Rule]) -> type[Strict]:
    """The pydantic model of a policy document under these rules."""
    limits: Any = {name: (rule.limits, Field(default=None)) for name, rule in known.items()}
    exceptions = create_model("Exceptions", __base__=Strict, **limits)
    described = Field(default={}, description="one model's limits, instead of everyone's")
    models: Any = (dict[str, exceptions], described)
    return create_model("Policy", __base__=_Document, **limits, models=models)


def schema() -> dict[str, Any]:
    """JSON schema of a policy document, `policies/promotion/<env>.yaml`."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **document_model(rules()).model_json_schema(),
        "title": "Thresholds of one environment",
    }


def _plain(value: Any) -> Any:
    """YAML as JSON has it: a date is text again, whether it stood in quotes or not."""
    if isinstance(value, dict):
        items = cast("dict[Any, Any]", value)
        if wrong := [key for key in items if not isinstance(key, str)]:
            raise ValueError(f"key {wrong[0]!r} is not text: put it in quotes")
        return {key: _plain(item) for key, item in items.items()}
    if isinstance(value, list):
        return [_plain(item) for item in cast("list[Any]", value)]
    return value.isoformat() if isinstance(value, date) else value


_Model = TypeVar("_Model", bound=Strict)


def _parse(kind: type[_Model], text: str | bytes, file: str) -> tuple[_Model, dict[str, Any]]:
    read = parse_yaml(text, file)
    try:
        document = _plain(read)
        # As JSON: only from there may a strict model take text for a date and a list for a tuple.
        return kind.model_validate_json(digests.canonical_json(document)), document
    except ValidationError as error:
        raise from_validation(error, kind, file) from None
    except ValueError as error:
        raise BadInput(f"not what JSON can say: {error}", file=file) from None


def _required(read: Read, path: PurePosixPath) -> bytes:
    content = read(str(path))
    if content is None:
        raise BadInput(
            "no such file, and nothing may be released without it", file=str(path), fix="restore it"
        )
    return content


def load_policy(read: Read, env: str, model: str) -> Policy:
    """The thresholds for `model` in `env`, from wherever `read` reads.

    Raises:
        BadInput: a document is not there or wrong, or a rule is neither given limits nor skipped.
    """
    known = rules()
    path = FOLDER / f"{check_environment(env)}.yaml"
    parsed, document = _parse(document_model(known), _required(read, path), str(path))
    approvals = load_approvals(read)
    block = cast("_Document", parsed)
    exceptions = cast("dict[str, Strict]", parsed.models).get(model)  # type: ignore[attr-defined]
    own = cast("dict[str, Any]", document.pop("models", {})).get(model, {})
    _complete(known, document, block, str(path))
    _named(approvals, block.rollback.approvals, str(path), "rollback.approvals")
    _glass(block.break_glass, known, approvals, str(path))
    limits = {name: getattr(parsed, name) for name in document if name in known}
    limits |= {name: getattr(exceptions, name) for name in own}
    return Policy(
        environment=env,
        file=str(path),
        digest=digests.of_json(document | own),
        limits=limits,
        skip={name: reason for name, reason in block.skip.items() if name not in limits},
        rollback=block.rollback,
        break_glass=block.break_glass,
        approvals=approvals,
    )


def load_approvals(read: Read) -> ApprovalPolicies:
    """Groups and named policies. `BadInput` when one could never be fulfilled."""
    path = FOLDER / "approvals.yaml"
    found, _ = _parse(ApprovalPolicies, _required(read, path), str(path))
    for name, requirements in found.policies.items():
        for at, asked in enumerate(requirements):
            where = f"policies.{name}.{at}"
            if asked.group not in found.groups:
                raise BadInput(
                    f"no group {asked.group!r}",
                    file=str(path),
                    field=where,
                    fix=did_you_mean(asked.group, found.groups),
                )
            if asked.count > len(found.members(asked.group)):
                raise BadInput(
                    f"asks for {asked.count} of {asked.group}, which has "
                    f"{len(found.members(asked.group))}",
                    file=str(path),
                    field=where,
                )
    _named(found, found.custody, str(path), "custody")
    return found


def _named(approvals: ApprovalPolicies, policy: str, file: str, field: str) -> None:
    if policy not in approvals.policies:
        raise BadInput(
            f"no approvals policy {policy!r}",
            file=file,
            field=field,
            fix=did_you_mean(policy, approvals.policies),
        )


def custody(read: Read, pull: PullFacts | None) -> list[Finding]:
    """Whether those who keep what judges and serves releases approve a change of it."""
    try:
        approvals = load_approvals(read)
    except BadInput as error:
        why = f"the base's approvals cannot be read: {error}"
        fix = "have an administrator push a repair to the base: no pull request can be approved"
        return [Finding("custody", "fail", why, fix)]
    found = approvals.findings(approvals.policies[approvals.custody], pull)
    return [replace(finding, rule="custody") for finding in found]


def _complete(
    known: Mapping[str, Rule], document: Mapping[str, Any], block: _Document, file: str
) -> None:
    """Nobody forgets a rule in silence."""
    for name in block.skip:
        if name not in known:
            raise BadInput(
                f"no rule {name!r}", file=file, field="skip", fix=did_you_mean(name, known)
            )
        if name in document:
            raise BadInput("is skipped, and has limits", file=file, field=name, fix="remove one")
    if missing := [name for name in known if name not in document and name not in block.skip]:
        raise BadInput(
            f"neither limits nor a reason to skip: {', '.join(missing)}",
            file=file,
            fix=f"give limits ({FOLDER}/README.md), or write  skip: {{{missing[0]}: why}}",
        )
    if "evidence" in block.skip:
        raise BadInput("cannot be skipped: the others rest on it", file=file, field="evidence")


def _glass(
    limits: BreakGlassLimits | None,
    known: Mapping[str, Rule],
    approvals: ApprovalPolicies,
    file: str,
) -> None:
    if limits is None:
        return
    if limits.group not in approvals.groups:
        raise BadInput(
            f"no group {limits.group!r}",
            file=file,
            field="break_glass.group",
            fix=did_you_mean(limits.group, approvals.groups),
        )
    for name in limits.rules:
        if name not in known:
            raise BadInput(
                f"no rule {name!r}",
                file=file,
                field="break_glass.rules",
                fix=did_you_mean(name, known),
            )
        if name == "evidence":
            raise BadInput(
                "evidence cannot be waived: the others rest on it",
                file=file,
                field="break_glass.rules",
            )


def evaluate(subject: Subject) -> list[Finding]:
    """Every rule's findings, in the policy document's order.

    A break-glass file's own finding comes first; the rules that are skipped come last.
    """
    known, policy = rules(), subject.policy
    glass, broken = _break_glass(subject)
    found = [
        _waive(finding, subject.break_glass) if finding.rule in broken else finding
        for name, limits in policy.limits.items()
        for finding in _apply(known[name], subject, limits)
    ]
    skipped = [
        Finding(name, "not applicable", f"{policy.file} skips it: {reason}")
        for name, reason in policy.skip.items()
    ]
    return [*glass, *found, *skipped]


def _apply(rule: Rule, subject: Subject, limits: Strict) -> Iterator[Finding]:
    if subject.kind not in rule.applies_to:
        yield Finding(rule.name, "not applicable", f"not asked of a {_KINDS[subject.kind]}")
        return
    if why := subject.unknown.get(rule.name):
        yield Finding(rule.name, "unknown", why)
        return
    findings = list[Finding]()
    try:
        # Not as a list at once: what was found before it raises counts.
        for finding in rule.check(subject, limits):
            findings.append(finding)
    except NotKnown as reason:
        findings.append(Finding("", "unknown", str(reason)))
    except NotEvaluated as reason:
        yield Finding(rule.name, "fail", f"not evaluated: {reason}", reason.fix)
        return
    except Exception as error:
        # What no rule foresaw must not let a release through, nor hide what the others say.
        yield Finding(
            rule.name,
            "fail",
            f"not evaluated: the rule itself failed: {type(error).__name__}: {error}",
            f"mend {FOLDER}/rules/{rule.file.name}",
        )
        return
    if not findings:
        yield Finding(rule.name, "fail", "not evaluated: the rule found nothing to say")
    for finding in findings:
        yield replace(finding, rule=rule.name)


_KINDS: dict[Kind, str] = {
    "release": "release",
    "rollback": "rollback: this very release was approved here before",
    "rollout": "change of the rollout alone",
    "removal": "removal",
}


def _waive(finding: Finding, glass: BreakGlass | None) -> Finding:
    if finding.state != "fail" or glass is None:
        return finding
    return replace(
        finding,
        state="waived",
        message=f"{finding.message} (waived by {glass.who}, break-glass)",
        fix="",
    )


def _break_glass(subject: Subject) -> tuple[list[Finding], frozenset[str]]:
    """The finding about the break-glass file, and the rules that it waives: none if it is wrong."""
    glass = subject.break_glass
    if glass is None:
        return [], frozenset()
    problems = list(_glass_problems(glass, subject))
    if problems:
        return [replace(problem, rule="break_glass") for problem in problems], frozenset()
    until = glass.until.astimezone(UTC)
    message = f"{glass.who} until {until:%Y-%m-%d %H:%M}Z: {glass.why}; {', '.join(glass.rules)}"
    return [Finding("break_glass", "waived", message)], frozenset(glass.rules)


def _glass_problems(glass: BreakGlass, subject: Subject) -> Iterator[Finding]:
    limits = subject.policy.break_glass
    if limits is None:
        yield failed(f"{subject.environment} allows no break-glass", "remove the file")
        return
    for name in glass.rules:
        if name not in limits.rules:
            allowed = ", ".join(limits.rules)
            yield failed(f"{name} may not be waived in {subject.environment}", f"may: {allowed}")
    if glass.until <= subject.now:
        yield failed(f"over since {glass.until.isoformat()}", "remove the file")
    if glass.until > subject.now + timedelta(hours=limits.maximum_hours):
        yield failed(
            f"until {glass.until.isoformat()} is more than {limits.maximum_hours} h ahead",
            "name an earlier instant",
        )
    members = subject.policy.approvals.members(limits.group)
    if glass.who.lower() not in members:
        who = ", ".join(members.values()) or "nobody yet"
        yield failed(f"{glass.who} is not of {limits.group}", f"these are: {who}")
    pull = subject.pull
    if pull is None:
        yield failed(
            f"not evaluated: whether {glass.who} asks for it stands on the pull request",
            "open one: slipway check sees the working tree alone",
        )
    elif glass.who.lower() not in {pull.author.lower(), *pull.agreeing}:
        yield failed(
            f"{glass.who} neither opened the pull request nor approves its head",
            f"let {glass.who} approve {pull.sha[:12]}",
        )


def break_glass_path(env: str, model: str) -> PurePosixPath:
    """The break-glass file's path, relative to the repository's root."""
    return PurePosixPath("environments", env, "break-glass", f"{model}.yaml")


def parse_break_glass(text: str | bytes, file: PurePosixPath | Path | str) -> BreakGlass:
    """`BadInput` names every wrong field."""
    return _parse(BreakGlass, text, str(file))[0]


def reader(folder: Path) -> Read:
    """Reads a checkout's files, for `load_policy`."""

    def read(path: str) -> bytes | None:
        file = folder / path
        return file.read_bytes() if file.is_file() else None

    return read


# What several rules need.


def difference(test: Test) -> str:
    """A paired test in words: the gain with its interval, and whether it shows what it is to."""
    e, margin = test.difference, f", margin {test.margin:g}" if test.margin else ""
    where = f" ({test.column} {test.value}, {test.rows:,} rows)" if test.column else ""
    shown = "non-inferior" if test.kind == "non_inferiority" else "better"
    verdict = shown if test.passed else f"not shown to be {shown}"
    sign = "≥" if test.p_adjusted >= test.alpha else "<"
    return (
        f"{test.metric}{where}: gain {e.value:+.4f} [{e.low:+.4f}, {e.high:+.4f}]{margin}: "
        f"{verdict} (p {test.p_adjusted:.2g} {sign} α {test.alpha:g})"
    )


def duration(text: str) -> timedelta:
    """`90s`, `15m`, `24h`, `7d`."""
    return int(text[:-1]) * timedelta(seconds={"s": 1, "m": 60, "h": 3600, "d": 86400}[text[-1]])


def cores(quantity: str) -> float:
    """A Kubernetes quantity of CPU: `250m` is 0.25."""
    return int(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


def mebibytes(quantity: str) -> float:
    """A Kubernetes quantity of memory: `1Gi` is 1024."""
    return int(quantity[:-2]) * {"Ki": 1 / 1024, "Mi": 1, "Gi": 1024}[quantity[-2:]]


if __name__ == "__main__":
    SCHEMA.write_text(json.dumps(schema(), indent=2, ensure_ascii=False) + "\n")
