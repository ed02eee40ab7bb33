"""No locked dependency has a vulnerability beyond the severity that is borne."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from slipway.gates import Finding, Subject, failed, passed, waived
from slipway.release import Digest, Strict

_SEVERITIES = ("none", "low", "medium", "high", "critical")


class Limits(Strict):
    """`database`: of what is known, by its digest in the store; when evidence is made, it is looked
    up there. `maximum`: the gravest that is borne. `not_checked`: whether one may be released
    without a database; it shows as waived, never as passed. `accepted`: vulnerability to why it is
    borne."""

    database: Digest | None = None
    maximum: Literal["none", "low", "medium", "high", "critical"]
    not_checked: Literal["refuse", "allow"]
    accepted: dict[str, Annotated[str, Field(min_length=10)]] = Field(default={})


def check(subject: Subject, limits: Limits) -> Iterator[Finding]:
    found = subject.found().dependencies
    if isinstance(found.vulnerabilities, str):
        message = f"not checked: no database ({len(found.packages)} packages)"
        if limits.not_checked == "allow":
            yield waived(f"{message}, which {subject.policy.file} allows")
        else:
            fix = (
                ""
                if limits.database
                else f"name one in {subject.policy.file}: slipway "
                "vulnerabilities puts it into the store; then "
            )
            yield failed(message, f"{fix}{subject.again}")
        return
    borne = _SEVERITIES.index(limits.maximum)
    grave = False
    for known in found.vulnerabilities:
        # One of unknown severity may be of the gravest.
        severity = "critical" if known.severity == "unknown" else known.severity
        if _SEVERITIES.index(severity) <= borne:
            continue
        message = f"{known.id} in {known.package} {known.version}: {known.severity}"
        if known.id in limits.accepted:
            yield waived(
                f"{message}; {subject.policy.file} accepts it: {limits.accepted[known.id]}"
            )
        else:
            grave = True
            yield failed(
                f"{message}, at most {limits.maximum}", "raise the package, lock and train"
            )
    if not grave:
        yield passed(
            f"{len(found.packages)} packages, none above {limits.maximum} that is not accepted "
            f"({found.database or 'database unnamed'})"
        )
