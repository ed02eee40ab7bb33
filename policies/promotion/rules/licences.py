"""No locked dependency has a licence that is denied here."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import Field

from slipway.gates import Finding, NotEvaluated, Subject, failed, passed, waived
from slipway.release import Strict


class Limits(Strict):
    """`denied`: patterns over a licence's text, upper and lower case alike. `unknown`: whether a
    package may say nothing. `accepted`: package to why it is used whatever its metadata says."""

    denied: tuple[str, ...]
    unknown: Literal["refuse", "allow"]
    accepted: dict[str, Annotated[str, Field(min_length=10)]] = Field(default={})


def check(subject: Subject, limits: Limits) -> Iterator[Finding]:
    packages = subject.found().dependencies.packages
    if not packages:
        raise NotEvaluated("the evidence lists no packages", fix=subject.again)
    silent, bad = list[str](), False
    for package in packages:
        text = package.licence.strip().lower()
        if text and not any(fnmatchcase(text, pattern.lower()) for pattern in limits.denied):
            continue
        message = f"{package.name} {package.version}: {package.licence.strip() or 'unknown':.60}"
        if why := limits.accepted.get(package.name):
            yield waived(f"{message}; {subject.policy.file} accepts it: {why}")
        elif not text:
            silent.append(package.name)
        else:
            bad = True
            yield failed(f"{message}: denied", "replace the package, lock and train")
    if silent and limits.unknown == "allow":
        yield waived(f"{subject.policy.file} allows saying nothing: {', '.join(silent)}")
    elif silent:
        yield failed(
            f"not evaluated: no licence known of {', '.join(silent)}",
            "name the package under accepted once its licence was read",
        )
    if not bad and len(silent) < len(packages):
        yield passed(f"{len(packages) - len(silent)} packages, none denied that is not accepted")
