"""Stacks of this program whose environments come before: what each says of what it has made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pulumi

from slipway.attestation import keys_of
from slipway.errors import SlipwayError
from slipway.release import ENVIRONMENTS

# Of the stacks that say it.
OUTPUT = "artifacts"


@dataclass(frozen=True)
class Artifacts:
    """What a stack has made, for stacks that come after."""

    prefix: pulumi.Output[str]
    """Beginning of its buckets' names."""
    key: pulumi.Output[str]
    """ARN of the key that its objects are under."""
    environments: pulumi.Output[list[str]]
    evidence_keys: pulumi.Output[str]
    """Public keys (PEM) that its evidence is verified by."""

    @classmethod
    def of(cls, reference: pulumi.StackReference, hosted: Sequence[str]) -> Artifacts:
        """What that stack says. It fails where its environments do not come before `hosted`."""
        said = reference.require_output(OUTPUT)
        return cls(
            prefix=said["prefix"],
            key=said["key"],
            environments=pulumi.Output.all(said["environments"], reference.name).apply(
                lambda known: _before(known[0], known[1], hosted)
            ),
            evidence_keys=said["evidenceKeys"],
        )

    def export(self) -> None:
        """Says it."""
        said = {"prefix": self.prefix, "key": self.key, "environments": self.environments}
        pulumi.export(OUTPUT, {**said, "evidenceKeys": self.evidence_keys})


def _before(environments: list[str], stack: str, hosted: Sequence[str]) -> list[str]:
    first = min(map(ENVIRONMENTS.index, hosted))
    for environment in environments:
        if ENVIRONMENTS.index(environment) >= first:
            raise SlipwayError(
                f"aws.artifactsOf: {stack} hosts {environment}, which does not come before "
                f"{ENVIRONMENTS[first]}",
                fix="name stacks whose environments come before this one's",
            )
    return environments


def prefixes(stacks: Sequence[Artifacts]) -> pulumi.Output[str]:
    """As `slipway.store.UPSTREAM` has it: ENVIRONMENT=PREFIX, with spaces between."""
    return _by_environment(stacks, [stack.prefix for stack in stacks]).apply(
        lambda found: " ".join(f"{environment}={prefix}" for environment, prefix in found.items())
    )


def evidence_keys(stacks: Sequence[Artifacts]) -> pulumi.Output[dict[str, str]]:
    """File to public keys (PEM), one for each environment."""
    return _by_environment(stacks, [stack.evidence_keys for stack in stacks]).apply(
        lambda found: {keys_of(environment): pem for environment, pem in found.items()}
    )


def _by_environment(
    stacks: Sequence[Artifacts], values: Sequence[pulumi.Output[str]]
) -> pulumi.Output[dict[str, str]]:
    def joined(known: Sequence[Any]) -> dict[str, str]:
        found: dict[str, str] = {}
        for environments, value in known:
            found |= dict.fromkeys(environments, value)
        return found

    pairs = zip(stacks, values, strict=True)
    return pulumi.Output.all(
        *(pulumi.Output.all(stack.environments, value) for stack, value in pairs)
    ).apply(joined)
