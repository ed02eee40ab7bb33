"""The training data was validated, and has not drifted from the champion's beyond measure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from slipway.gates import Finding, NotEvaluated, Subject, failed, not_applicable, passed
from slipway.release import Strict


class Limits(Strict):
    """`maximum_psi`: population stability index of any column; 0.1 is slight, 0.25 is much.

    `ignore`: columns that always move, such as an order's number.
    """

    minimum_rows: Annotated[int, Field(ge=1)]
    maximum_psi: Annotated[float, Field(gt=0)]
    ignore: tuple[str, ...] = ()


def check(subject: Subject, limits: Limits) -> Iterator[Finding]:
    found, compared = subject.found().evaluation, subject.compared()
    if not found.validation.checks:
        raise NotEvaluated("the evidence names no check of the data", fix="train again")
    if found.data.rows < limits.minimum_rows:
        yield failed(f"{found.data.rows:,} rows, at least {limits.minimum_rows:,}")
    else:
        yield passed(f"{found.data.rows:,} rows, {len(found.validation.checks)} checks held")
    if compared is None:
        yield not_applicable(f"no champion in {subject.environment} to have drifted from")
        return
    if not compared.drift:
        raise NotEvaluated("the evidence measures no drift from the champion", fix=subject.again)
    judged = [d for d in compared.drift if d.column not in limits.ignore]
    far = sorted((d for d in judged if d.psi > limits.maximum_psi), key=lambda d: -d.psi)
    for drift in far:
        yield failed(
            f"{drift.column} drifted: PSI {drift.psi:.3f}, at most {limits.maximum_psi:g}",
            "see whether the source or the world changed; the limit is the platform's to raise",
        )
    if not far and judged:
        worst = max(judged, key=lambda d: d.psi)
        yield passed(
            f"largest drift: {worst.column}, PSI {worst.psi:.3f}, at most {limits.maximum_psi:g}"
        )
