"""The bento is not too big to fetch, and a replica has the memory that it takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from slipway.gates import Finding, Subject, failed, mebibytes, passed
from slipway.release import Strict

APPLIES_TO = ("release", "rollout")


class Limits(Strict):
    """`maximum_memory_share`: of the release's rollout.resources.memory."""

    maximum_bento_mib: Annotated[float, Field(gt=0)]
    maximum_memory_share: Annotated[float, Field(gt=0, le=1)]


def check(subject: Subject, limits: Limits) -> Iterator[Finding]:
    found, asked = subject.found().serving, subject.proposed.rollout.resources.memory
    bento = found.bento_bytes / 2**20
    message = f"bento {bento:.1f} MiB, at most {limits.maximum_bento_mib:g}"
    yield (
        passed(message)
        if bento <= limits.maximum_bento_mib
        else failed(message, "package less, or a smaller model")
    )
    share = found.memory_mib / mebibytes(asked)
    message = (
        f"memory {found.memory_mib:.0f} MiB, {share:.0%} of {asked}, "
        f"at most {limits.maximum_memory_share:.0%}"
    )
    yield (
        passed(message)
        if share <= limits.maximum_memory_share
        else failed(message, f"{subject.path}: raise rollout.resources.memory")
    )
