"""Enough of the right people, other than the author, approve the very commit that is proposed."""

from __future__ import annotations

from collections.abc import Iterator

from slipway.errors import did_you_mean
from slipway.gates import Finding, NotEvaluated, Requirement, Subject
from slipway.release import Strict

APPLIES_TO = ("release", "rollout", "rollback", "removal")


class Limits(Strict):
    """`policy`: one of policies/promotion/approvals.yaml, the least that is asked here."""

    policy: str


def check(subject: Subject, limits: Limits) -> Iterator[Finding]:
    asked = [r for name in _policies(subject, limits) for r in _requirements(subject, name)]
    yield from subject.policy.approvals.findings(asked, subject.pull)


def _policies(subject: Subject, limits: Limits) -> list[str]:
    """A release file may ask for more than the environment does, and not drop what it asked for."""
    if subject.kind == "rollback":
        return [subject.policy.rollback.approvals]
    names = [limits.policy, subject.proposed.approvals.policy]
    if subject.champion is not None:
        before = subject.champion.approvals.policy
        # One that approvals.yaml no longer has would otherwise refuse every later release.
        names += [before] if before in subject.policy.approvals.policies else []
    return list(dict.fromkeys(names))


def _requirements(subject: Subject, name: str) -> tuple[Requirement, ...]:
    known = subject.policy.approvals.policies
    if name not in known:
        raise NotEvaluated(f"no approvals policy {name!r}", fix=did_you_mean(name, known))
    return known[name]
