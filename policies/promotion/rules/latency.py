"""The bento answers, and starts, in time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from slipway.gates import Finding, Subject, failed, passed
from slipway.release import Strict

Limit = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Limits(Strict):
    """Milliseconds for one request after the other, seconds for a start."""

    maximum_p50_ms: Limit
    maximum_p99_ms: Limit
    maximum_start_seconds: Limit


def check(subject: Subject, limits: Limits) -> Iterator[Finding]:
    found = subject.found().serving
    message = (
        f"median {found.latency_p50_ms:.1f} ms, at most {limits.maximum_p50_ms:g}; "
        f"p99 {found.latency_p99_ms:.1f} ms, at most {limits.maximum_p99_ms:g}; "
        f"start {found.start_seconds:.1f} s, at most {limits.maximum_start_seconds:g} "
        f"({found.requests:,} requests)"
    )
    within = (
        found.latency_p50_ms <= limits.maximum_p50_ms
        and found.latency_p99_ms <= limits.maximum_p99_ms
        and found.start_seconds <= limits.maximum_start_seconds
    )
    yield (
        passed(message)
        if within
        else failed(
            message, "a smaller model or fewer features; measure again if the machine was busy"
        )
    )
