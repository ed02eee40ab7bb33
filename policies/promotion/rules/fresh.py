"""Nothing that the evidence rests on has changed since: champion, thresholds.

Its data is the release's: evidence of other data is not about this release (see evidence).
"""

from __future__ import annotations

from collections.abc import Iterator

from slipway.gates import Finding, Subject, failed, passed
from slipway.release import Strict


class Limits(Strict):
    """Nothing to set."""


def check(subject: Subject, limits: Limits) -> Iterator[Finding]:
    found, champion = subject.found(), subject.champion
    env, problems = subject.environment, list[str]()
    judged = found.champion.bento if found.champion else None
    serves = champion.bento.digest if champion else None
    if judged != serves:
        then = f"version {found.champion.version}" if found.champion else "nothing"
        now = f"version {champion.version}" if champion else "nothing"
        problems.append(
            f"it compares with what {env} served then ({then}, {_short(judged)}), "
            f"and now {env} serves {now} ({_short(serves)})"
        )
    policy = subject.policy
    if (found.policy.environment, found.policy.digest) != (policy.environment, policy.digest):
        problems.append(
            f"it was made by other thresholds ({found.policy.environment} "
            f"{_short(found.policy.digest)}) than {policy.file} has now ({_short(policy.digest)})"
        )
    for problem in problems:
        yield failed(f"expired: {problem}", subject.again)
    if not problems:
        yield passed("champion and thresholds are those that it was made with")


def _short(digest: str | None) -> str:
    return digest.removeprefix("sha256:")[:12] if digest else "-"
