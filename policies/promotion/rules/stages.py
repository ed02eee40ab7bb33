"""What is proposed is exactly what the previous environment has: no stage is skipped."""

from __future__ import annotations

from collections.abc import Iterator

from slipway.gates import Finding, Subject, failed, not_applicable, passed
from slipway.release import Release, Strict


class Limits(Strict):
    """Nothing to set."""


def check(subject: Subject, limits: Limits) -> Iterator[Finding]:
    before, previous = subject.previous_environment, subject.previous
    if before is None:
        yield not_applicable(f"{subject.environment} is the first environment")
        return
    fix = f"slipway promote {subject.model} --to {before}, and let it serve there first"
    if previous is None:
        yield failed(f"{before} has no {subject.model}", fix)
        return
    wanted, has = _pins(subject.proposed), _pins(previous)
    differ = [name for name in wanted if wanted[name] != has[name]]
    if differ:
        yield failed(
            f"{before} has version {previous.version}, this is version "
            f"{subject.proposed.version}; different: {', '.join(differ)}",
            fix,
        )
    else:
        yield passed(f"as {before} has it: version {previous.version}")


def _pins(release: Release) -> dict[str, object]:
    """What an environment may not have of its own: all but evidence, rollout and approvals."""
    own = {"evidence", "rollout", "approvals"}
    return {name: getattr(release, name) for name in Release.model_fields if name not in own}
