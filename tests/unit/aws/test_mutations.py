"""Seeded mistakes in the whole program of prod: before `up`, policy or AWS's models refuse them."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml

from policies.infrastructure import limits
from policies.infrastructure.limits import Limits
from policies.infrastructure.resources import Resource, Stack, at
from policies.infrastructure.rules import RULES
from policies.infrastructure.rules.instance_types import TYPE, requirements
from slipway import toolchain
from slipway.errors import SlipwayError
from tests.unit.aws import models, stacks
from tests.unit.aws.mutations import MISSPELT, MUTATIONS, SHARED, Mutation

PROD = limits.load(["prod"], frozenset(RULES))
LEAST = 0.95
KUBERNETES = ("NodePool", "EC2NodeClass", "ClusterSecretStore", "ExternalSecret")


@pytest.fixture(scope="module")
def prod() -> list[Resource]:
    return judged("prod")


def judged(stack: str) -> list[Resource]:
    return [
        Resource(made.token, made.name, made.inputs, made.urn, made.ids, made.refers)
        for made in stacks.stack(stack).resources
    ]


@pytest.fixture(scope="module")
def cloud(prod: list[Resource]) -> list[Resource]:
    """Those in which mistakes are made; what runs on the cluster is the same as on any other."""
    kinds = (*KUBERNETES, "StorageClass")
    return [resource for resource in prod if resource.aws or resource.kind in kinds]


def by_policy(resources: list[Resource], found: Limits = PROD) -> Iterator[str]:
    """What policy stops, in prod or by other limits."""
    for rule in RULES.values():
        if found.levels[rule.name] == "mandatory":
            for resource, said in rule.judge(Stack(resources), found):
                yield f"{rule.name}: {resource.name}: {said}"


def test_production_loses_its_protection_by_a_waiver_with_a_reason() -> None:
    """A stack file alone does not do: each policy file is somebody's to approve."""
    refused = list(by_policy(judged("eks_to_be_destroyed")))
    assert {said.partition(":")[0] for said in refused} == {"deletion-protected"}
    for what in ("cluster", "consoles", "database", "bentos", "mlflow"):
        assert any(said.startswith(f"deletion-protected: {what}: ") for said in refused)
    text = (stacks.program.ROOT / "infra" / "aws" / "README.md").read_text()
    [line] = re.findall(r"^waivers: .*$", text, re.M)
    known = {**PROD.model_dump(), **yaml.safe_load(line)}
    waived = Limits.model_validate_json(json.dumps(known))
    assert all(waived.waived(*said.split(": ")[:2]) for said in refused)


def by_models(resource: Resource) -> Iterator[str]:
    """What AWS's own models, or Karpenter's definitions, say that a resource cannot be."""
    if resource.aws:
        yield from models.problems(resource.type, dict(resource.properties))
    if resource.kind in KUBERNETES:
        validator = jsonschema.Draft202012Validator(definitions()[resource.kind])
        yield from (error.message for error in validator.iter_errors(dict(resource.properties)))
        known = models.values("ec2", "InstanceType")
        for requirement in requirements(resource):
            if at(requirement, "key") == TYPE:
                yield from (f"no {name}" for name in requirement["values"] if name not in known)


@functools.cache
def definitions() -> dict[str, Any]:
    """Kind to the schema that the API server would hold it to."""
    try:
        folder = toolchain.files("karpenter") / "pkg" / "apis" / "crds"
    except SlipwayError as error:
        pytest.skip(str(error))
    # The others as the program itself installs them.
    installed = [
        made.inputs["spec"]
        for made in stacks.stack("prod").of(":CustomResourceDefinition")
        if made.inputs["spec"]["names"]["kind"] in KUBERNETES
    ]
    found = [yaml.safe_load(file.read_text())["spec"] for file in folder.glob("*.yaml")]
    found += installed
    return {
        spec["names"]["kind"]: spec["versions"][0]["schema"]["openAPIV3Schema"] for spec in found
    }


def caught(mutation: Mutation, resources: list[Resource]) -> bool:
    """Whether either refuses the mistake. Of the models only what the mistake is in is asked."""
    mistaken = mutation.seed(resources)
    before = set(map(id, resources))
    changed = [resource for resource in mistaken if id(resource) not in before]
    return any(any(by_models(resource)) for resource in changed) or any(by_policy(mistaken))


@pytest.mark.parametrize("stack", stacks.STACKS)
def test_without_a_mistake_nothing_is_refused(stack: str) -> None:
    """By the stack's own limits."""
    resources = judged(stack)
    assert list(by_policy(resources, limits.load([stack], frozenset(RULES)))) == []
    assert [said for resource in resources for said in by_models(resource)] == []


@pytest.mark.parametrize(
    ("stack", "holders"),
    [
        ("eks_with_a_forge", {"argocd-repository", "pipelines-forge"}),
        ("eks_with_a_forge_by_an_app", {"argocd-repository", "forge-app"}),
    ],
)
def test_what_the_stack_file_has_encrypted_is_no_mistake(stack: str, holders: set[str]) -> None:
    resources = judged(stack)
    kept = {r.name for r in resources if r.aws == "secretsmanager/SecretVersion"}
    assert holders <= kept
    assert list(by_policy(resources, limits.load(["dev"], frozenset(RULES)))) == []
    assert [said for resource in resources for said in by_models(resource)] == []


def test_what_other_accounts_read_is_no_mistake_and_more_is() -> None:
    resources = judged("eks_between_others")
    assert list(by_policy(resources, limits.load(["staging"], frozenset(RULES)))) == []
    assert [said for resource in resources for said in by_models(resource)] == []
    assert [m.mistake for m in SHARED if not caught(m, resources)] == []


def test_the_mistakes_are_refused(cloud: list[Resource]) -> None:
    missed = [m.mistake for m in MUTATIONS if not caught(m, cloud)]
    assert len(MUTATIONS) >= 40
    assert len({m.mistake for m in MUTATIONS}) == len(MUTATIONS)
    assert len(missed) <= (1 - LEAST) * len(MUTATIONS), missed


@pytest.mark.parametrize(
    "mutation", [m for m in MUTATIONS if m not in MISSPELT], ids=lambda m: m.mistake
)
def test_policy_alone_refuses(mutation: Mutation, cloud: list[Resource]) -> None:
    """Those that are no misspelling: policy also judges where no test runs."""
    assert any(by_policy(mutation.seed(cloud))), mutation.mistake
