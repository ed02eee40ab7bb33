"""Challenger and champion are measured as the champion was when it came, or by more.

What the challenger's own folder says of it decides the comparison: `group`, `slices`,
`decision_threshold` and `split.holdout` of model.yaml, and what training.py's target() answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from slipway.evidence import YardstickChange
from slipway.gates import Finding, Subject, failed, passed, waived
from slipway.release import Strict


class Limits(Strict):
    """`changed`: whether it may be other than the champion's. Allowing it shows as waived.

    A later holdout and slices besides are no such change.
    """

    changed: Literal["refuse", "allow"]


def check(subject: Subject, limits: Limits) -> Iterator[Finding]:
    compared = subject.compared()
    if compared is None:
        yield subject.no_champion
        return
    for change in (c for c in compared.yardstick if c.matters):
        message = _said(change)
        if limits.changed == "allow":
            yield waived(f"{message}, which {subject.policy.file} allows")
        elif change.what == "champion's training":
            yield failed(
                message, f"bentos/{subject.model}/model.yaml: hold out what is later than that"
            )
        else:
            yield failed(
                message,
                f"bentos/{subject.model}: change it back, or release it alone, with nothing else "
                "that differs, and let break-glass waive yardstick",
            )
    if not any(c.matters for c in compared.yardstick):
        others = "; ".join(map(_said, compared.yardstick))
        yield passed(f"no less than the champion's: {others}" if others else "as the champion's")


def _said(change: YardstickChange) -> str:
    if change.what == "champion's training":
        return f"the champion learned from {', '.join(change.after)}, of this holdout"
    before, after = (", ".join(map(_short, side)) or "-" for side in (change.before, change.after))
    return f"{change.what}: {before} -> {after}"


def _short(name: str) -> str:
    what, _, digest = name.partition(" sha256:")
    return f"{what} {digest[:12]}" if digest else name
