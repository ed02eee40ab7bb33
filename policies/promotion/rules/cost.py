"""The rollout stays within its budget."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from slipway.gates import Finding, Subject, cores, failed, mebibytes, passed
from slipway.release import Strict

APPLIES_TO = ("release", "rollout")
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Limits(Strict):
    """Prices and budget are for one month; what a replica asks for is what it costs."""

    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    cpu: Price = Field(description="one core")
    memory: Price = Field(description="one GiB")
    maximum: Price


def check(subject: Subject, limits: Limits) -> Iterator[Finding]:
    rollout = subject.proposed.rollout
    cpu, memory = rollout.resources.cpu, rollout.resources.memory
    one = cores(cpu) * limits.cpu + mebibytes(memory) / 1024 * limits.memory
    total, currency = rollout.replicas * one, limits.currency
    message = (
        f"{total:.2f} {currency} a month ({rollout.replicas} × {one:.2f}: {cpu} CPU, {memory}), "
        f"at most {limits.maximum:.2f}"
    )
    yield (
        passed(message)
        if total <= limits.maximum
        else failed(message, f"{subject.path}: fewer replicas or smaller ones")
    )
