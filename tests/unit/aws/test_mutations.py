"""Seeded mistakes in the whole program of prod: before `up`, policy or AWS's models refuse them."""

from __future__ import annotations

import pytest

from policies.infrastructure import limits
from policies.infrastructure.resources import Resource, Stack
from policies.infrastructure.rules import RULES
from tests.manifests import program
from tests.manifests.program import Registered
from tests.unit.aws import mocks
from tests.unit.aws.mutations import MISSPELT, MUTATIONS, Mutation

PROD = limits.load(["prod"], frozenset(RULES))
FILE = program.ROOT / "environments" / "Pulumi.prod.yaml"
# Of one resource, what is wrong with it.
Found = set[tuple[str, str, str]]


def resource(registered: Registered) -> Resource:
    """As the policy pack would see it, in a preview of a stack that is there."""
    token, name, inputs = registered.token, registered.name, registered.inputs
    ids = {f"{name}-id", mocks.outputs(token, name, inputs).get("arn"), inputs.get("name")}
    return Resource(
        token,
        name,
        inputs,
        urn=f"{token}::{name}",
        ids=frozenset(i for i in ids if isinstance(i, str)),
        refers={field: frozenset({"what made the secret"}) for field in registered.secret},
    )


@pytest.fixture(scope="module")
def prod() -> list[Resource]:
    return [resource(r) for r in program.run(program.settings(FILE), "prod").resources]


def refused(resources: list[Resource]) -> Found:
    """What policy stops in prod."""
    return {
        (rule.name, r.name, said)
        for rule in RULES.values()
        if PROD.levels[rule.name] == "mandatory"
        for r, said in rule.judge(Stack(resources), PROD)
    }


def test_without_a_mistake_nothing_is_refused(prod: list[Resource]) -> None:
    assert refused(prod) == set()


def test_there_are_enough() -> None:
    assert len(MUTATIONS) >= 40
    assert len({m.mistake for m in MUTATIONS}) == len(MUTATIONS)


@pytest.mark.parametrize(
    "mutation", [m for m in MUTATIONS if m not in MISSPELT], ids=lambda m: m.mistake
)
def test_policy_refuses(mutation: Mutation, prod: list[Resource]) -> None:
    assert refused(mutation.seed(prod)), mutation.mistake
