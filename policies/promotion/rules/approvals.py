"""Enough of the right people, other than the author, approve the very commit that is proposed."""

from __future__ import annotations

from collections.abc import Iterator

from slipway.errors import did_you_mean
from slipway.gates import Finding, NotEvaluated, Requirement, Subject, failed, passed
from slipway.release import Strict

APPLIES_TO = ("release", "rollout", "rollback", "removal")


class Limits(Strict):
    """`policy`: one of policies/promotion/approvals.yaml, the least that is asked here."""

    policy: str


def check(subject: Subject, limits: Limits) -> Iterator[Finding]:
    asked = [r for name in _policies(subject, limits) for r in _requirements(subject, name)]
    if not asked:
        yield passed("nobody's is asked")
        return
    pull = subject.pull
    if pull is None:
        raise NotEvaluated(
            "approvals stand on the pull request, and this is none", fix="open a pull request"
        )
    stale = sorted({a.login for a in pull.approvals if a.sha != pull.sha} - {*pull.approvers})
    for requirement in dict.fromkeys(asked):
        members = subject.policy.approvals.members(requirement.group)
        by = [login for login in pull.approvers if login.lower() in members]
        message = (
            f"{len(by)} of {requirement.count} by {requirement.group}"
            f"{': ' if by else ''}{', '.join(by)}"
        )
        if len(by) >= requirement.count:
            yield passed(message)
            continue
        old = f" ({', '.join(stale)} approved an earlier commit)" if stale else ""
        can = [who for key, who in members.items() if key != pull.author.lower()]
        yield failed(
            f"{message}{old}",
            f"ask {', '.join(can) or 'nobody: the group has no one but the author'} to approve "
            f"{pull.sha[:12]}; the author {pull.author} does not count",
        )


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
