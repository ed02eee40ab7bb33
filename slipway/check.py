"""Check: what a change of `environments/` does, and whether the gates let it in.

The change is what a head has that its merge base with the base has not. It is judged against the
base's tip: its thresholds, its champions. Nothing that comes with the change decides about it. One
of what judges or serves releases has no release in it, and approvals alone are asked of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, TypeGuard, cast

from pydantic import ValidationError, create_model

from slipway import gates, history, publish, release, sources
from slipway.errors import (
    BAD_INPUT,
    FAILED,
    OK,
    BadInput,
    SlipwayError,
    did_you_mean,
    from_validation,
)
from slipway.evidence import Evidence
from slipway.gates import BreakGlass, Finding, Kind, PullFacts, Subject
from slipway.release import ENVIRONMENTS, Release, Strict
from slipway.repository import Changed, Repository, Version
from slipway.sources import Source

if TYPE_CHECKING:
    from slipway.cost import Estimate, Line, Prices
    from slipway.endpoints import Cluster

FOLDER = "environments"
# What judges a release, or decides how it is served, does not change together with it, nor without
# the approvals that custody asks for. That is all but this and release files: what else there is
# may be imported where gates run, and a stack's file says who signs.
FREE, SERVING = ("bentos/", "tests/"), "bentos/serving/"
# What reads a stack's file, and what AWS asks for what is in it.
PROGRAM, PRICES = "infra/", "infra/prices.yaml"
# Of a forger's file only so much is read.
MAXIMUM_BYTES, MAXIMUM_DEPTH = 64 * 1024, 20
# A rollback goes to one of these; an earlier one is found by the bento that it names.
FORMER = 20


class Amounts(Strict):
    """Money a month: at least, at most; `what` says of what."""

    floor: float
    ceiling: float
    what: str = ""


class MoneyLine(Strict):
    """A part of a stack whose cost the change touches; None where it was not, or is no more."""

    name: str
    before: Amounts | None
    after: Amounts | None


class StackCost(Strict):
    """What a change does to the monthly cost of a stack, by the base's price table: of `prices`,
    as asked in `region`, which may be another than the stack's.

    `lines` are the parts that differ; `before` and `after` are the whole stack's.
    """

    stack: str
    currency: str
    prices: date
    region: str
    lines: list[MoneyLine]
    before: Amounts | None
    after: Amounts | None

    @property
    def total(self) -> MoneyLine:
        """The whole stack."""
        return MoneyLine(name="total", before=self.before, after=self.after)


class Problem(Strict):
    """A file that is wrong, whatever the gates say."""

    path: str
    message: str


class Difference(Strict):
    """One setting of a release that differs from the champion's; "" where there is none."""

    what: str
    before: str
    after: str


class ReleaseVerdict(Strict):
    """What the gates say of one release file. A removal proposes nothing.

    `champion_evidence` is what the champion was released with, where that can be had.
    """

    path: str
    environment: str
    model: str
    kind: Kind
    proposed: Release | None
    champion: Release | None
    findings: list[Finding]
    policy: str = ""
    evidence: Evidence | None = None
    evidence_problem: str = ""
    champion_evidence: Evidence | None = None

    @property
    def release(self) -> Release:
        """What is proposed, or else removed."""
        found = self.proposed or self.champion
        assert found is not None  # noqa: S101 -- nothing is neither proposed nor there
        return found

    @property
    def differences(self) -> list[Difference]:
        """What the release file says otherwise, evidence apart."""
        before, after = (_flat(r) if r else {} for r in (self.champion, self.proposed))
        return [
            Difference(what=name, before=before.get(name, ""), after=after.get(name, ""))
            for name in dict.fromkeys([*before, *after])
            if before.get(name) != after.get(name)
        ]


class Verdict(Strict):
    """All that was found about one change. Commits are 40 hex digits; `head` is "" when in memory.

    `unreachable`: what did not answer, so that asking again may find more. `costs` are of stacks on
    AWS whose file changes.
    """

    base: str
    head: str
    scope: list[Finding]
    releases: list[ReleaseVerdict]
    problems: list[Problem]
    notes: list[str]
    unreachable: list[str]
    costs: tuple[StackCost, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 may be merged, 1 a gate fails, 2 bad input."""
        if self.problems:
            return BAD_INPUT
        return FAILED if self.of("fail") else OK

    @property
    def findings(self) -> list[tuple[str, Finding]]:
        """Every finding with what it is about: a model where there are several, else ""."""
        several = len(self.releases) > 1
        return [
            *(("", finding) for finding in self.scope),
            *((r.model if several else "", f) for r in self.releases for f in r.findings),
        ]

    def of(self, *states: gates.State) -> list[tuple[str, Finding]]:
        """The findings in one of these states."""
        return [(about, found) for about, found in self.findings if found.state in states]

    @property
    def headline(self) -> str:
        """The verdict in one line, without what it rests on."""
        if self.problems:
            count = len(self.problems)
            return f"❌ bad input: {self.problems[0].path}" + (
                f" and {count - 1} more" * (count > 1)
            )
        failed = list(dict.fromkeys((about, f.rule) for about, f in self.of("fail")))
        if failed:
            named = ", ".join(f"{about} {rule}".strip() for about, rule in failed)
            return f"❌ {len(failed)} of {self.count} gates {_verb(failed)}: {named}"
        if not self.findings:
            return "✅ no release changed"
        waived = list(dict.fromkeys(f"{about} {f.rule}".strip() for about, f in self.of("waived")))
        if any(found.rule == "break_glass" for _, found in self.of("waived")):
            return f"⚠️ may be merged, with the glass broken: {', '.join(waived)}"
        allowed = f"; allowed without: {', '.join(waived)}" if waived else ""
        return f"✅ may be merged: {self.count - len(waived)} of {self.count} gates pass{allowed}"

    @property
    def count(self) -> int:
        """How many gates had something to say."""
        applicable = self.of("pass", "fail", "waived")
        return len({(about, found.rule) for about, found in applicable})

    @property
    def description(self) -> str:
        """The verdict as a commit status has room for: at most 140 characters."""
        if self.problems:
            text = f"bad input: {self.problems[0].path}: {self.problems[0].message}"
        elif failed := self.of("fail"):
            about, first = failed[0]
            text = f"{about} {first.rule}: {first.message}".strip()
        else:
            text = self.headline.partition(" ")[2]
        return shorten(" ".join(text.split()), 140)


def shorten(text: str, length: int) -> str:
    """At most `length` characters, the last a … where some are missing."""
    return text if len(text) <= length else text[: length - 1] + "…"


def _verb(failed: Sequence[object]) -> str:
    return "fails" if len(failed) == 1 else "fail"


def _flat(found: Release) -> dict[str, str]:
    """A release's settings by dotted name, but for evidence and what follows from a digest."""

    def items(prefix: str, value: Any) -> Iterable[tuple[str, str]]:
        if isinstance(value, dict):
            for name, inner in cast("dict[str, Any]", value).items():
                yield from items(f"{prefix}.{name}" if prefix else name, inner)
        else:
            yield prefix, str(value)

    document = found.model_dump(mode="json", exclude={"model", "evidence"})
    return {name: value for name, value in items("", document) if name != "bento.uri"}


def default_base(repository: Repository) -> str:
    """The branch that pull requests go to, as this clone has it."""
    for name in ("refs/remotes/origin/main", "refs/heads/main"):
        if repository.has(name):
            return name
    raise SlipwayError(
        f"{repository.path} has neither origin/main nor main", fix="name one: --base REV"
    )


def newest_main(repository: Repository, connect: Callable[[], Cluster]) -> tuple[str, str]:
    """The forge's main, or else what this clone has of it and why; `SlipwayError` for neither."""
    try:
        with connect().forge() as forge:
            return publish.fetched(forge.remote, repository.path), ""
    except SlipwayError as error:
        found = default_base(repository)
        first = str(error).partition("\n")[0]
        return found, f"as {found} of this clone has it, not the forge: {first}"


def check(
    repository: Repository,
    base: str,
    head: str,
    *,
    source: Source | None = None,
    pull: PullFacts | None = None,
    now: datetime | None = None,
) -> Verdict:
    """Judges what `head` would change on `base`. Cost: linear in the changed files.

    Args:
        source: gives evidence and soak; without one the gates that need it fail and say so.
        pull: what the forge knows of the pull request; without it likewise.
        now: aware; the present time.

    Raises:
        BadInput: no such commit, or no common history.
    """
    tip = repository.commit(base)
    judge = _Judge(repository, tip, source, pull, now or datetime.now(UTC))
    return _Change(judge, repository.commit(head)).verdict()


def judge(
    repository: Repository,
    base: str,
    environment: str,
    proposed: Release,
    *,
    source: Source | None = None,
    pull: PullFacts | None = None,
    glass: BreakGlass | None = None,
    now: datetime | None = None,
    as_merged: bool = False,
) -> Verdict:
    """Judges a release that is not committed yet, as `check` would its pull request.

    `glass` is the break-glass file that is to come with it; `as_merged`, that the base will have
    the commit that trained it.
    """
    tip = repository.commit(base)
    judge = _Judge(repository, tip, source, pull, now or datetime.now(UTC), as_merged)
    path = str(release.path(environment, proposed.model))
    found = judge.release(environment, proposed.model, path, proposed, glass)
    return Verdict(
        base=tip,
        head="",
        scope=[],
        releases=[found],
        problems=[],
        notes=[],
        unreachable=judge.unreachable,
    )


@dataclass
class _Judge:
    """The gates of one base commit."""

    repository: Repository
    base: str
    source: Source | None
    pull: PullFacts | None
    now: datetime
    as_merged: bool = False

    def __post_init__(self) -> None:
        self.unreachable: list[str] = []
        self._former: dict[str, list[Version]] = {}

    def walk(self, paths: Iterable[str]) -> None:
        """Looks up what these release files were, and those of the environments before theirs, all
        in one walk of the history."""
        asked = [name for path in paths for name in (path, _previous(path)) if name]
        wanted = [name for name in asked if name not in self._former]
        self._former |= self.repository.versions(self.base, wanted)

    def read(self, path: str) -> bytes | None:
        """A file's content on the base."""
        return self.repository.read(self.base, path)

    def on_base(self, path: str) -> Release | None:
        """The release that the base has at a path; None also where it cannot be read as one."""
        content = self.read(path)
        if content is not None:
            with suppress(SlipwayError):
                return release.parse(content, path)
        return None

    def _unreadable(self, path: str, champion: Release | None) -> bool:
        return champion is None and self.read(path) is not None

    def release(
        self,
        environment: str,
        model: str,
        path: str,
        proposed: Release | None,
        glass: BreakGlass | None = None,
    ) -> ReleaseVerdict:
        """What the gates say of `proposed` (None: the file goes) in place of the base's."""
        champion = self.on_base(path)
        subject_of = proposed or champion
        assert subject_of is not None  # noqa: S101 -- the caller looks
        found = ReleaseVerdict(
            path=path,
            environment=environment,
            model=model,
            kind="removal" if proposed is None else "release",
            proposed=proposed,
            champion=champion,
            findings=[],
        )
        try:
            policy = gates.load_policy(self.read, environment, model)
        except SlipwayError as error:
            why = f"the base's thresholds cannot be read: {error}"
            fix = "repair them on the base branch first"
            return found.model_copy(update={"findings": [Finding("policy", "fail", why, fix)]})
        subject = Subject(
            environment=environment,
            model=model,
            path=path,
            proposed=subject_of,
            champion=champion,
            policy=policy,
            now=self.now,
            former=self._earlier(path, champion, proposed),
            pull=self.pull,
            break_glass=glass,
            removal=proposed is None,
        )
        if proposed is not None:
            subject = self._with_facts(subject)
        findings = gates.evaluate(subject)
        if subject.kind != "rollback" and self._unreadable(path, champion):
            why = f"what {environment} serves now cannot be read, so nothing compares with it"
            findings.insert(0, Finding("policy", "fail", why, f"git revert what changed {path}"))
        return found.model_copy(
            update={
                "kind": subject.kind,
                "findings": findings,
                "policy": policy.digest,
                "evidence": subject.evidence,
                "evidence_problem": subject.evidence_problem,
                "champion_evidence": self._champions(champion, environment, subject),
            }
        )

    def _earlier(
        self, path: str, champion: Release | None, proposed: Release | None
    ) -> tuple[Release, ...]:
        """This environment's earlier releases of the model, as far as `proposed` may be one."""
        if proposed is None:
            return ()
        self.walk([path])
        bento = proposed.bento.digest.encode()
        found: dict[str, Release] = {}
        blobs = dict.fromkeys(v.blob for v in self._former[path] if v.blob)
        for place, blob in enumerate(blobs):
            content = self.repository.blob(blob)
            if place < FORMER or bento in content:
                with suppress(SlipwayError):
                    found[blob] = release.parse(content, path)
        return tuple(former for former in found.values() if former != champion)

    def _with_facts(self, subject: Subject) -> Subject:
        """With evidence, with the previous environment's release, and with what that served."""
        evidence, problem = self._evidence(subject.proposed, subject.environment)
        subject = replace(
            subject,
            evidence=evidence,
            evidence_problem=problem,
            bento_problem=self._bento(subject.proposed),
        )
        if subject.kind != "release":
            return subject
        trained = self.as_merged or self.repository.contains(
            self.base, subject.proposed.code.commit
        )
        subject = replace(subject, merged=trained)
        before, path = subject.previous_environment, _previous(subject.path)
        if before is None or path is None:
            return subject
        previous = self.on_base(path)
        subject = replace(subject, previous=previous)
        if "soak" not in subject.policy.limits or previous is None:
            return subject
        bento = subject.proposed.bento.digest
        stays = history.stays(self.repository, self._former[path], path, bento)
        subject = replace(subject, stays=stays)
        if self.source is None:
            return replace(subject, soak_problem="without the platform's store")
        try:
            soak = self.source.soak(before, subject.model, bento)
            return replace(subject, soak=soak)
        except SlipwayError as error:
            self._note(error)
            return replace(subject, soak_problem=str(error))

    def _evidence(self, proposed: Release, environment: str) -> tuple[Evidence | None, str]:
        """The verified evidence about a release there, or why there is none."""
        if self.source is None:
            return None, "cannot be evaluated without the platform's store"
        try:
            return sources.verified(self.source, proposed, environment), ""
        except SlipwayError as error:
            self._note(error)
            return None, str(error)

    def _bento(self, proposed: Release) -> str:
        """What is wrong with the bento; without a source the evidence says that there is none."""
        try:
            if self.source:
                self.source.bento(proposed.bento.digest)
        except SlipwayError as error:
            self._note(error)
            return str(error)
        return ""

    def _champions(
        self, champion: Release | None, environment: str, subject: Subject
    ) -> Evidence | None:
        """What the champion was released with, to show beside the challenger's: nice to have."""
        if champion is None or subject.evidence is None or subject.kind != "release":
            return None
        noted = list(self.unreachable)
        found, _ = self._evidence(champion, environment)
        self.unreachable = noted
        return found

    def _note(self, error: SlipwayError) -> None:
        """Remembers what may answer another time. By name: these modules cost their import."""
        known = str(error) in self.unreachable
        if type(error).__name__ in ("Unreachable", "ClusterError") and not known:
            self.unreachable.append(str(error))


class _Change:
    """The files that a change touches, each by what it is."""

    def __init__(self, judge: _Judge, head: str) -> None:
        self._judge, self._repository, self._head = judge, judge.repository, head
        # Of histories that crossed, what differs from any common commit may be merged.
        self._forks = self._repository.merge_bases(judge.base, head)
        found = [c for fork in self._forks for c in self._repository.changed(fork, head)]
        self._renamed = [c for c in found if c.status == "renamed"]
        gone = [Changed(c.old_path, "deleted", mode="000000") for c in self._renamed]
        came = [replace(c, status="added", old_path="") for c in self._renamed]
        plain = [c for c in found if c.status != "renamed"]
        self._changed = {c.path: c for c in [*plain, *gone, *came]}
        inside = (c for path, c in self._changed.items() if path.startswith(f"{FOLDER}/"))
        self._inside = {c.path: (c, _place(c.path)) for c in inside}
        self._problems: list[Problem] = []
        self._notes: list[str] = []
        self._costs: list[StackCost] = []

    def verdict(self) -> Verdict:
        """The whole verdict."""
        for change, place in self._inside.values():
            self._look(change, place)
        if _APPROVALS in self._changed:
            # Merged with a mistake in it, nobody could approve its repair.
            with self._reporting(_APPROVALS):
                gates.load_approvals(self._proposes)
        releases = [(c, place) for c, place in self._inside.values() if _is(place, "release")]
        proposed = {c.path: self._proposed(c) for c, _ in releases if c.status != "deleted"}
        self._judge.walk([path for path, found in proposed.items() if found])
        found = [self._release(c, place, proposed.get(c.path)) for c, place in releases]
        return Verdict(
            base=self._judge.base,
            head=self._head,
            scope=self._scope([c for c, _ in releases]),
            releases=[verdict for verdict in found if verdict],
            problems=self._problems,
            notes=self._notes,
            unreachable=self._judge.unreachable,
            costs=tuple(self._costs),
        )

    # Files

    def _look(self, change: Changed, place: _Place | None) -> None:
        """Reports what is wrong with a file, and what a person should know of it."""
        path = change.path
        if change.status != "deleted":
            with self._reporting(path):
                self._check(change, place)
        if _is(place, "values"):
            self._notes.append(f"{path} changes settings of every model in {place.environment}")
        elif _is(place, "stack"):
            self._notes.append(f"{path} changes a stack: see `pulumi preview`")
            if all(problem.path != path for problem in self._problems):
                self._price(path)

    def _check(self, change: Changed, place: _Place | None) -> None:
        path = change.path
        if place is None:
            raise BadInput("nothing of this name belongs here", file=path, fix=_belongs(path))
        if not change.is_file:
            raise BadInput("a link, not a file", file=path, fix="commit a plain file")
        if place.what == "stack":
            self._document(path)
            self._configured(path)
        elif place.what == "values":
            _check_values(self._document(path), self._judge.read(_CHART), path)
        elif place.what == "break glass":
            of = str(release.path(place.environment, place.model))
            if of not in self._changed:
                raise BadInput(
                    f"waives nothing: {of} does not change with it",
                    file=path,
                    fix="commit it in the pull request that it is for",
                )

    def _document(self, path: str) -> dict[str, Any]:
        return _document(self._repository.read(self._head, path) or b"", path)

    def _proposes(self, path: str) -> bytes | None:
        """A file's content at the head, None where there is none."""
        content = self._repository.read(self._head, path)
        if content is not None:
            _document(content, path)
        return content

    def _proposed(self, change: Changed) -> Release | None:
        if not change.is_file:
            return None
        content = self._repository.read(self._head, change.path) or b""
        with self._reporting(change.path):
            _document(content, change.path)
            return release.parse(content, change.path)
        return None

    def _reporting(self, path: str) -> _Reporting:
        return _Reporting(self._problems, path)

    # Stacks

    def _configured(self, path: str) -> None:
        """`BadInput` unless the program takes a stack's file."""
        from slipway import cost

        content = self._repository.read(self._head, path) or b""
        try:
            cost.stack_config(content, _stack(path))
        except BadInput:
            # Where the program changes too, it is another one that will have to take the file.
            if not any(changed.startswith(PROGRAM) for changed in self._changed):
                raise

    def _price(self, path: str) -> None:
        """Adds what the change of a stack's file does to its monthly cost."""
        from slipway import cost

        text = self._judge.read(PRICES)
        if text is None:
            return
        try:
            table = cost.parse_prices(text, PRICES)
            # The base may have moved on: only what this change does is its own.
            before, after = (self._estimate(c, path, table) for c in (self._forks[0], self._head))
        except SlipwayError as error:
            self._notes.append(f"what it does to the cost is not known: {error}")
            return
        for alarm in after.alarms if after else ():
            share = f"{alarm.spent / alarm.budget:.0%} of its budget of {alarm.budget:,.2f}"
            self._notes.append(f"{alarm.name}: {share} {table.currency} a month ({alarm.why})")
        lines = cost.changes(before, after)
        if not lines:
            return
        self._costs.append(
            StackCost(
                stack=_stack(path),
                currency=table.currency,
                prices=table.date,
                region=table.region,
                lines=[
                    MoneyLine(name=c.name, before=_amounts(c.before), after=_amounts(c.after))
                    for c in lines
                ],
                before=_amounts(before),
                after=_amounts(after),
            )
        )

    def _estimate(self, commit: str, path: str, table: Prices) -> Estimate | None:
        """What a stack costs at a commit; None where it has no file, or is not on AWS."""
        from slipway import cost

        content = self._repository.read(commit, path)
        if content is None:
            return None
        _document(content, path)
        return cost.estimate(cost.stack_config(content, _stack(path)), _stack(path), table)

    # Releases

    def _release(
        self, change: Changed, place: _Place, proposed: Release | None
    ) -> ReleaseVerdict | None:
        if proposed is None and (
            change.status != "deleted" or self._judge.on_base(change.path) is None
        ):
            return None  # a problem already, or gone there too, or nothing that could be served
        glass = self._glass(place.environment, place.model)
        return self._judge.release(place.environment, place.model, change.path, proposed, glass)

    def _glass(self, environment: str, model: str) -> BreakGlass | None:
        """The break-glass file, if it comes with this change: an older one waives nothing."""
        path = str(gates.break_glass_path(environment, model))
        came = self._changed.get(path)
        if came and came.status != "deleted" and came.is_file:
            content = self._repository.read(self._head, path) or b""
            with self._reporting(path):
                _document(content, path)
                return gates.parse_break_glass(content, path)
        return None

    # What may not come together

    def _scope(self, releases: Sequence[Changed]) -> list[Finding]:
        places = [place for _, place in self._inside.values() if place and place.environment]
        touched = list(dict.fromkeys(place.environment for place in places))
        found: list[Finding] = []

        def refuse(message: str, fix: str, rule: str = "scope") -> None:
            found.append(Finding(rule, "fail", message, fix))

        if len(touched) > 1:
            refuse(
                f"it changes {' and '.join(touched)} together: what one environment serves is "
                "judged before the next may have it",
                "a pull request for each environment, in their order",
            )
        apart = [path for path in self._changed if is_apart(path)]
        named = ", ".join(apart[:3]) + (f" and {len(apart) - 3} more" * (len(apart) > 3))
        if not releases:
            if apart and not found:
                what = f"changes what judges or serves releases, and no release: {named}"
                found.append(Finding("scope", "pass", what))
            if apart:
                found += gates.custody(self._judge.read, self._judge.pull)
            return found
        if apart:
            refuse(
                f"it changes what judges or serves releases together with a release: {named}",
                "two pull requests; a release is judged by what the base branch has",
            )
        for change in self._renamed:
            if _is(_place(change.path), "release") and _is(_place(change.old_path), "release"):
                refuse(
                    f"it renames {change.old_path} to {change.path}: a model of another name is "
                    "another model",
                    "release the new one, and remove the old one in a pull request of its own",
                )
        if not found:
            found.append(Finding("scope", "pass", f"changes {touched[0]} alone"))
        # What is merged must be what was judged, not a mixture with what the base has gained.
        if moved := [c.path for c in releases if self._moved(c.path)]:
            refuse(
                f"the base branch has changed {', '.join(moved)} since this one left it",
                "promote again: the champion is another one now",
                "current",
            )
        return found

    def _moved(self, path: str) -> bool:
        tip, mine = (self._repository.read(c, path) for c in (self._judge.base, self._head))
        return tip != mine and any(self._repository.read(f, path) != tip for f in self._forks)


class _Reporting:
    """Bad input met inside becomes a problem of the file, and ends the block."""

    def __init__(self, problems: list[Problem], path: str) -> None:
        self._problems, self._path = problems, path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        if not isinstance(error, SlipwayError):
            return False
        message = str(error).removeprefix(f"{self._path}: ")
        self._problems.append(Problem(path=self._path, message=message))
        return True


# What belongs into environments/


_What = Literal["release", "break glass", "values", "stack"]


@dataclass(frozen=True)
class _Place:
    """What a file in environments/ is. `environment` is "" for a stack's settings."""

    what: _What
    environment: str = ""
    model: str = ""


def is_apart(path: str) -> bool:
    """Whether a file judges releases, or decides how they are served."""
    if path.startswith(f"{FOLDER}/"):
        place = _place(path)
        return not (_is(place, "release") or _is(place, "break glass"))
    prose = "/" not in path and path.endswith(".md")
    return path.startswith(SERVING) or not (prose or path.startswith(FREE))


def _place(path: str) -> _Place | None:
    """None: no file of this name belongs there."""
    parts = PurePosixPath(path).parts[1:]
    match parts:
        case (name,) if name.startswith("Pulumi.") and name.endswith(".yaml"):
            return _Place("stack")
        case (environment, "values.yaml") if environment in ENVIRONMENTS:
            return _Place("values", environment)
        case (environment, "models" | "break-glass" as folder, name) if (
            environment in ENVIRONMENTS and name.endswith(".yaml")
        ):
            model = name.removesuffix(".yaml")
            with suppress(BadInput):
                release.check_model_name(model)
                what = "release" if folder == "models" else "break glass"
                return _Place(what, environment, model)
        case _:
            pass
    return None


def _previous(path: str) -> str | None:
    """The same model's release file in the environment before; None for the first."""
    place = _place(path)
    before = release.before(place.environment) if _is(place, "release") else None
    return str(release.path(before, place.model)) if place and before else None


def _stack(path: str) -> str:
    return PurePosixPath(path).name.removeprefix("Pulumi.").removesuffix(".yaml")


def _amounts(of: Line | Estimate | None) -> Amounts | None:
    what = getattr(of, "what", "")
    return (
        Amounts(floor=round(of.floor, 2), ceiling=round(of.ceiling, 2), what=what) if of else None
    )


def _is(place: _Place | None, what: _What) -> TypeGuard[_Place]:
    return place is not None and place.what == what


def _belongs(path: str) -> str:
    parts = PurePosixPath(path).parts
    if len(parts) > 2 and parts[1] not in ENVIRONMENTS:
        return f"an environment: {did_you_mean(parts[1], ENVIRONMENTS)}"
    return (
        "environments/ holds Pulumi.<stack>.yaml, <env>/values.yaml, <env>/models/<model>.yaml and "
        "<env>/break-glass/<model>.yaml"
    )


_CHART, _APPROVALS = "bentos/serving/values.yaml", str(gates.FOLDER / "approvals.yaml")


def _document(content: bytes, path: str) -> dict[str, Any]:
    """A small, flat YAML mapping: aliases make much data of little text, and the parser follows
    brackets as deep as its stack."""
    import yaml

    if len(content) > MAXIMUM_BYTES:
        raise BadInput(f"{len(content):,} bytes", file=path, fix=f"at most {MAXIMUM_BYTES:,}")
    opening = (
        *(yaml.FlowSequenceStartToken, yaml.FlowMappingStartToken),
        *(yaml.BlockSequenceStartToken, yaml.BlockMappingStartToken),
    )
    closing = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)
    depth = 0
    try:
        for token in yaml.scan(content):
            if isinstance(token, yaml.AliasToken):
                raise BadInput("has a YAML alias (*name)", file=path, fix="write the value out")
            depth += isinstance(token, opening) - isinstance(token, closing)
            if depth > MAXIMUM_DEPTH:
                raise BadInput("nested too deeply", file=path)
    except (yaml.YAMLError, UnicodeDecodeError):
        pass  # which the parser says better
    return release.parse_yaml(content, path)


@cache
def _settings() -> type[Strict]:
    """The chart's own settings: what an environment's values.yaml may change."""
    from slipway.chart import Values

    own = {n: f for n, f in Values.model_fields.items() if n not in Release.model_fields}
    fields: dict[str, Any] = {name: (field.annotation, field) for name, field in own.items()}
    return create_model("Settings", __base__=Strict, **fields)


def _check_values(document: dict[str, Any], defaults: bytes | None, path: str) -> None:
    """`BadInput` unless an environment's values are settings of the chart's."""
    if pinned := sorted(set(document) & set(Release.model_fields)):
        raise BadInput(
            "belongs in the release file, which would overrule it",
            file=path,
            field=pinned[0],
            fix="environments/<env>/models/<model>.yaml",
        )
    chart = release.parse_yaml(defaults, _CHART) if defaults else {}
    own = {name: chart[name] for name in _settings().model_fields if name in chart}
    try:
        _settings().model_validate(_merged(own, document))
    except ValidationError as error:
        raise from_validation(error, _settings(), path) from None


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """As Helm merges values: mappings key by key, anything else replaced."""
    merged = dict(base)
    for name, value in over.items():
        mine = merged.get(name)
        if isinstance(mine, dict) and isinstance(value, dict):
            merged[name] = _merged(cast("dict[str, Any]", mine), cast("dict[str, Any]", value))
        else:
            merged[name] = value
    return merged
