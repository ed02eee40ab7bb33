"""There is evidence, signed by a known key, about this very release here; neither it nor what it
rests on is too old; and what it is about is there.

The commit that trained it also evaluated it, so a new release's has to be one that was merged.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from slipway.attestation import Unverified, check_about
from slipway.comparison import EvidencePolicy
from slipway.gates import CLOCK_SKEW, Finding, Subject, failed, passed

# The limits are also what the evidence is made by: margins, levels, resamples.
Limits = EvidencePolicy
APPLIES_TO = ("release", "rollout", "rollback")


def check(subject: Subject, limits: EvidencePolicy) -> Iterator[Finding]:
    if problem := subject.bento_problem.partition("\n")[0]:
        yield failed(
            f"the bento that it is about is not to be had: {problem}",
            "put the object back from a copy, or release another version: "
            f"slipway train {subject.model}",
        )
    found = subject.evidence
    if found is None:
        yield failed(subject.evidence_problem or "no evidence was found", subject.again)
        return
    try:
        check_about(found, subject.proposed, subject.environment)
    except Unverified as problem:
        message, _, fix = str(problem).partition("\n  fix: ")
        yield failed(message, fix)
        return
    # What is signed today may rest on what was evaluated long ago.
    for what, when, fix in (
        ("evaluated", found.evaluation.evaluated, _evaluate_again(subject)),
        ("created", found.created, subject.again),
    ):
        age = subject.now - datetime.fromisoformat(when)
        if age < -CLOCK_SKEW:
            yield failed(
                f"{what} {when}, {-age.total_seconds() / 60:.0f} min in the future",
                f"set the clocks of the machines right (NTP), then make evidence anew: {fix}",
            )
            return
        if subject.kind == "release" and age > timedelta(days=limits.maximum_age_days):
            yield failed(
                f"expired: {what} {age.days} days ago, at most {limits.maximum_age_days}", fix
            )
            return
    if subject.kind == "release" and not subject.merged:
        yield _unmerged(subject)
        return
    if not subject.bento_problem:
        yield passed(f"signed, about this release, of {found.created}")


def _evaluate_again(subject: Subject) -> str:
    code = subject.proposed.code.commit
    train = f"slipway train {subject.model} --commit {code} evaluates it anew"
    return f"{train}; then {subject.again}" if subject.previous_environment else train


def _unmerged(subject: Subject) -> Finding:
    commit = subject.proposed.code.commit[:12]
    if subject.merged is None:
        return failed(
            f"not evaluated: whether main has commit {commit}, which trained it, cannot be told",
            "git fetch --unshallow",
        )
    return failed(
        f"trained from commit {commit}, which main does not have",
        f"merge it, then: slipway train {subject.model}",
    )
