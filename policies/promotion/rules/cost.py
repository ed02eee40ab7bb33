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
    """Prices and budget are for one month; what a replica asks for is what it costs.

    Where the number of replicas follows what they do, the most there may be are paid for.
    """

    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    cpu: Price = Field(description="one core")
    memory: Price = Field(description="one GiB")
    gpu: Price | None = Field(default=None, description="one GPU; without, none may be asked for")
    maximum: Price


def check(subject: Subject, limits: Limits) -> Iterator[Finding]:
    rollout = subject.proposed.rollout
    cpu, memory = rollout.resources.cpu, rollout.resources.memory
    gpus = rollout.gpu.count if rollout.gpu else 0
    if gpus and limits.gpu is None:
        yield failed(
            f"{gpus} GPUs a replica, which have no price here",
            f"{subject.policy.file}: cost.gpu, what one costs a month",
        )
        return
    one = cores(cpu) * limits.cpu + mebibytes(memory) / 1024 * limits.memory
    one += gpus * (limits.gpu or 0)
    total, currency = rollout.most * one, limits.currency
    asked = f"{cpu} CPU, {memory}" + (f", {gpus} GPU" if gpus else "")
    message = (
        f"{total:.2f} {currency} a month ({rollout.most} × {one:.2f}: {asked}), "
        f"at most {limits.maximum:.2f}"
    )
    yield (
        passed(message)
        if total <= limits.maximum
        else failed(message, f"{subject.path}: fewer replicas or smaller ones")
    )
