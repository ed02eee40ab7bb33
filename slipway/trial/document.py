"""What a try found, as it is shown, kept, and compared with the next one."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from slipway.bento import Parameter
from slipway.digests import Digest
from slipway.errors import FAILED, OK
from slipway.evidence import (
    Champion,
    Comparison,
    Environment,
    Estimate,
    Evaluation,
    Instant,
    MetricName,
    Serving,
    Test,
)
from slipway.gates import Finding, State
from slipway.release import Bento, ModelName, Strict


class Step(Strict):
    """A step and its seconds; `again`: done before, and nothing differs of what it needs."""

    name: str
    seconds: float
    again: bool
    said: str = ""


class Before(Strict):
    """The last try of this model, and by how much this one is better on the same holdout."""

    created: Instant
    bento: Digest
    parameters: dict[str, str | int | float | bool | None]
    metrics: dict[MetricName, Estimate]
    part: str = ""
    tests: list[Test] = Field(default=[])


class Trial(Strict):
    """One try. `part`: what of the training data it learned from, "" for all.

    `overridden`: parameters that were given otherwise than model.yaml has them. `champion` is null
    where the environment has none, or none to compare with: `champion_unknown` says why, then.
    `findings` are of the gates of the environment, none where they were not asked.
    """

    schema_version: Literal[1] = 1
    created: Instant
    model: ModelName
    environment: Environment
    changed: bool = Field(description="whether there is more than that commit has")
    libraries: str = Field(
        description="how this machine's differ from the images'; empty: in no way"
    )
    part: str
    overridden: dict[str, Parameter]
    steps: list[Step]
    bento: Bento
    evaluation: Evaluation
    serving: Serving | None
    champion: Champion | None
    champion_unknown: str
    comparison: Comparison | None
    before: Before | None
    findings: list[Finding]
    notes: list[str]

    @property
    def exit_code(self) -> int:
        """1 where a gate that could be judged refuses."""
        return FAILED if any(found.state == "fail" for found in self.findings) else OK

    @property
    def is_champion(self) -> bool:
        """Whether the environment serves this very bento."""
        return self.champion is not None and self.champion.bento == self.bento.digest

    @property
    def headline(self) -> str:
        """The verdict in one line."""
        if self.part:
            return f"tried on {self.part}: no gate is claimed to pass"
        failed, waived, unknown = (self._rules(state) for state in ("fail", "waived", "unknown"))
        count = len({*self._rules("pass"), *failed, *waived})
        more = f"; {len(unknown)} cannot be judged here" if unknown else ""
        if failed:
            verb = "refuses" if len(failed) == 1 else "refuse"
            refusing = f"{len(failed)} of {count} gates of {self.environment} {verb}"
            return f"❌ {refusing}: {', '.join(failed)}{more}"
        passing = len({*self._rules("pass")} - {*waived})
        allowed = f"; allowed without: {', '.join(waived)}" if waived else ""
        return f"✅ {passing} of {count} gates of {self.environment} would pass{allowed}{more}"

    def _rules(self, state: State) -> list[str]:
        """Rules with a finding in this state, in the order of the findings."""
        return list(dict.fromkeys(f.rule for f in self.findings if f.state == state))

    def as_before(self) -> Before:
        """What the next try is compared with."""
        return Before(
            created=self.created,
            bento=self.bento.digest,
            parameters=self.evaluation.parameters,
            metrics=self.evaluation.metrics,
            part=self.part,
        )


def dump(trial: Trial) -> dict[str, Any]:
    """The try for a program."""
    return {
        "headline": trial.headline,
        "exit_code": trial.exit_code,
        **trial.model_dump(mode="json"),
    }
