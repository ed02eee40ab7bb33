"""From an open pull request to a merged one: what the gates say is waited for, not skipped."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from slipway.errors import SlipwayError

if TYPE_CHECKING:
    from slipway.forge import Forge, PullRequest

# The commit status that branch protection requires.
CONTEXT = "slipway/check"
# What the gates' comment carries.
MARKER = "slipway-check"


class NotAllowed(SlipwayError):
    """The gates refuse the pull request; its comment says why."""


def wait_for_gates(
    forge: Forge,
    number: int,
    *,
    say: Callable[[str], None] = lambda _: None,
    timeout_s: float = 180,
    every_s: float = 1,
) -> PullRequest:
    """The pull request once its present head commit has passed.

    An error is no verdict: who could not judge it, for want of the store for instance, looks again.

    Raises:
        NotAllowed: a gate fails.
        SlipwayError: no verdict within `timeout_s` seconds, or it was closed.
    """
    deadline, seen = time.monotonic() + timeout_s, ""
    while True:
        pull = forge.pull(number)
        if pull.merged:
            return pull
        if pull.state == "closed":
            raise SlipwayError(f"pull request {number} was closed: {pull.url}")
        report = forge.report(pull.sha, CONTEXT)
        state = report.state if report else ""
        if state == "success":
            return pull
        if state == "failure":
            raise NotAllowed(
                f"the gates refuse pull request {number}: {pull.url}",
                fix="read the comment there; its last part says how to see it here",
            )
        why = f"{state}: {report.description}" if report and state == "error" else state
        if why != seen:
            say(f"gates: {why}")
            seen = why
        if time.monotonic() > deadline:
            said = f"\nthe gates: {why}" if why else ""
            raise SlipwayError(
                f"no verdict on pull request {number} after {timeout_s:.0f} s: {pull.url}{said}",
                fix="kubectl -n pipelines get workflows; the sweep looks again every two minutes",
            )
        time.sleep(every_s)


def merge(
    forge: Forge,
    number: int,
    *,
    say: Callable[[str], None] = lambda _: None,
    timeout_s: float = 180,
) -> PullRequest:
    """Merges once the gates have passed, and only what they have judged."""
    pull = wait_for_gates(forge, number, say=say, timeout_s=timeout_s)
    return pull if pull.merged else forge.merge(number, sha=pull.sha)
