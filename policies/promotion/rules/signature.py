"""Callers of the champion are understood by the challenger, and understand its answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from slipway.gates import Finding, Subject, failed, passed, waived
from slipway.release import Strict


class Limits(Strict):
    """`breaking`: whether callers may be made to change. Allowing it shows as waived."""

    breaking: Literal["refuse", "allow"]


def check(subject: Subject, limits: Limits) -> Iterator[Finding]:
    found, compared = subject.found(), subject.compared()
    released, tested = subject.proposed.signature.digest, found.evaluation.signature.digest
    if released != tested:
        yield failed(
            f"the release says {released[:19]}, the model that was evaluated has {tested[:19]}",
            subject.again,
        )
        return
    if compared is None:
        yield subject.no_champion
        return
    for change in (c for c in compared.signature if c.breaks):
        sides = " -> ".join(filter(None, (change.before, change.after)))
        message = f"{change.name}: {change.kind.replace('_', ' ')}{f' ({sides})' if sides else ''}"
        if limits.breaking == "allow":
            yield waived(f"{message}: breaks callers, which {subject.policy.file} allows")
        else:
            yield failed(
                f"{message}: breaks callers",
                "keep what callers send and get, or release it as another model beside this one",
            )
    if not any(c.breaks for c in compared.signature):
        added = [c.name for c in compared.signature]
        yield passed(f"new and optional: {', '.join(added)}" if added else "as the champion's")
