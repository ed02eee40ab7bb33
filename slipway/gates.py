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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Protocol, cast

from pydantic import AwareDatetime, Field, ValidationError, create_model

from slipway import digests, paths
from slipway.digests import Digest
from slipway.errors import BadInput, did_you_mean, from_validation
from slipway.release import ENVIRONMENTS, Release, Strict, parse_yaml

if TYPE_CHECKING:
    from slipway.comparison import EvidencePolicy
    from slipway.evidence import Evidence

FOLDER = PurePosixPath("policies", "promotion")
RULES = paths.REPOSITORY / FOLDER / "rules"
SCHEMA = paths.REPOSITORY / FOLDER / "schema.json"
# Clocks of machines that trust each other differ by seconds; by minutes, one of them is wrong.
CLOCK_SKEW = timedelta(minutes=5)

State = Literal["pass", "fail", "waived", "not applicable"]
# `release`: another bento, or other pins; `rollback`: exactly an earlier release of the environment;
# `rollout`: the same pins run otherwise; `removal`: the model leaves the environment.
Kind = Literal["release", "rollback", "rollout", "removal"]
# A file's content by its path in the repository, None where there is none.
Read = Callable[[str], bytes | None]


class NotEvaluated(Exception):
    """A rule lacks what it judges by. That is a failure which says so, never a pass."""


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
    """What the forge knows of a pull request. `sha`: its head. Dismissed approvals are left out."""

    number: int
    author: str
    sha: str
    approvals: tuple[Approval, ...] = ()

    @property
    def approvers(self) -> list[str]:
        """Who approves the present head, and did not propose it."""
        found = {a.login: None for a in self.approvals if a.sha == self.sha}
        return [login for login in found if login.lower() != self.author.lower()]


@dataclass(frozen=True)
class Soak:
    """What one bento really served in one environment. `brier` is over the labelled predictions."""

    first: datetime | None
    last: datetime | None
    predictions: int
    labelled: int
    brier: float | None


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
    """`policies/promotion/approvals.yaml`: groups of logins, and policies that ask for them."""

    groups: dict[str, tuple[str, ...]]
    policies: dict[str, tuple[Requirement, ...]]

    def members(self, group: str) -> frozenset[str]:
        return frozenset(login.lower() for login in self.groups[group])


@dataclass(frozen=True)
class Policy:
    """One environment's thresholds as they hold for one model.

    `limits`: rule to its limits, in the document's order. `skip`: rules that do not hold here, and
    why. `digest` is of the parsed document, so comments and another model's exceptions do not count.
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
    previous environment's, and this environment's earlier ones, newest first. `evidence` has been
    verified; where there is none `evidence_problem` says why. A removal proposes what it removes.
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
    pull: PullFacts | None = None
    soak: Soak | None = None
    soak_problem: str = ""
    break_glass: BreakGlass | None = None
    removal: bool = False

    @property
    def kind(self) -> Kind:
        if self.removal:
            return "removal"
        champion = self.champion
        if champion is not None and champion.pins == self.proposed.pins:
            return "rollout"
        return "rollback" if self.proposed in self.former else "release"

    @property
    def previous_environment(self) -> str | None:
        """Where the model has to have been before; None for the first."""
        at = ENVIRONMENTS.index(self.environment)
        return ENVIRONMENTS[at - 1] if at else None

    def found(self) -> Evidence:
        """The verified evidence, or `NotEvaluated`."""
        if self.evidence is None:
            raise NotEvaluated("no verified evidence to judge by")
        return self.evidence


class Rule(Protocol):
    """A module of `policies/promotion/rules/`. `APPLIES_TO` may be left out: releases alone."""

    Limits: type[Strict]
    APPLIES_TO: tuple[Kind, ...]

    def check(self, subject: Subject, limits: Any) -> Iterable[Finding]: ...


def load_policy(read: Read, env: str, model: str) -> Policy:
    """The thresholds for `model` in `env`, from wherever `read` reads.

    Raises:
        BadInput: a document is not there or wrong, or a rule is neither given limits nor skipped.
    """
    raise NotImplementedError


def evaluate(subject: Subject) -> list[Finding]:
    """Every rule's findings, in the policy document's order; the break-glass file's come first."""
    raise NotImplementedError


def break_glass_path(env: str, model: str) -> PurePosixPath:
    """The break-glass file's path, relative to the repository's root."""
    return PurePosixPath("environments", env, "break-glass", f"{model}.yaml")


def parse_break_glass(text: str | bytes, file: PurePosixPath | Path | str) -> BreakGlass:
    """`BadInput` names every wrong field."""
    raise NotImplementedError


def reader(folder: Path) -> Read:
    """Reads a checkout's files, for `load_policy`."""

    def read(path: str) -> bytes | None:
        file = folder / path
        return file.read_bytes() if file.is_file() else None

    return read
