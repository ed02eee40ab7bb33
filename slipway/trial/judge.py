"""What an environment's gates say of a try, as far as that can be known before a pull request."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from slipway import gates, release
from slipway.evidence import Champion, Comparison, Evidence, PolicyPin, instant
from slipway.gates import Finding, NotKnown, Policy, Subject
from slipway.release import Runtime
from slipway.steps import propose

if TYPE_CHECKING:
    from slipway.evidence import Dependencies, Evaluation, Serving
    from slipway.release import Bento, Release

# Evidence names the run in MLflow and the image that it would be released with. Here is neither.
NO_RUN, NO_IMAGE = "0" * 32, f"none@sha256:{'0' * 64}"
# What rules judge by that comes only with a pull request, or with time.
UNKNOWN = {
    "evidence": "signed on the platform, about a commit that main has",
    "fresh": "whether champion and thresholds are still these when it is merged",
    "approvals": "given on the pull request",
    "stages": "what the environment before it has by then",
    "soak": "what the environment before it will have served",
    "freeze": "depends on when it is merged",
}


@dataclass(frozen=True)
class Against:
    """What a try was compared with. `release`: what the environment serves, None for nothing.

    `champion` is what that answers on the try's holdout; without it `unknown` says why, where there
    is something to compare with.
    """

    release: Release | None
    champion: Champion | None = None
    comparison: Comparison | None = None
    unknown: str = ""


class _Unserved:
    """Stands for what the bento costs to run: a rule that asks learns that nobody looked."""

    def __getattr__(self, name: str) -> Any:
        raise NotKnown("the bento was not served: --skip-serve")


def judge(
    policy: Policy,
    against: Against,
    *,
    evaluation: Evaluation,
    bento: Bento,
    serving: Serving | None,
    dependencies: Dependencies,
) -> list[Finding]:
    """The findings of every rule; those that cannot be judged here are `unknown` and say why."""
    now, environment = datetime.now(UTC), policy.environment
    present = against.release
    document = Evidence.model_construct(
        created=instant(now),
        environment=environment,
        policy=PolicyPin(environment=environment, digest=policy.digest),  # type: ignore[arg-type] -- load_policy has checked it
        version=present.version + 1 if present else 1,
        bento=bento,
        runtime=Runtime(image=NO_IMAGE),
        evaluation=evaluation,
        serving=serving or _Unserved(),
        dependencies=dependencies,
        champion=against.champion,
        comparison=against.comparison,
    )
    proposed = propose.proposal(document, evaluation.predictions, present)
    return gates.evaluate(
        Subject(
            environment=environment,
            model=evaluation.model,
            path=str(release.path(environment, evaluation.model)),
            proposed=proposed.release,
            champion=present,
            policy=policy,
            now=now,
            evidence=document,
            unknown=UNKNOWN,
            comparison_unknown=against.unknown,
        )
    )
