"""Levels and limits: what is accepted, what is refused and in which words; those committed."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import jsonschema
import pytest
import yaml

from policies.infrastructure import limits, managed, schema
from policies.infrastructure.limits import LEVELS, parse
from policies.infrastructure.resources import Resource, Stack
from policies.infrastructure.rules import RULES
from slipway.errors import BadInput
from slipway.release import ENVIRONMENTS

HERE = Path(__file__).parent
NAMES = frozenset({"tagged", "keys-rotate"})


@pytest.mark.parametrize("file", sorted(HERE.glob("valid/*.yaml")), ids=lambda f: f.stem)
def test_valid(file: Path) -> None:
    assert parse(file.read_bytes(), NAMES, "dev", file)


@pytest.mark.parametrize("file", sorted(HERE.glob("invalid/*.yaml")), ids=lambda f: f.stem)
def test_invalid(file: Path) -> None:
    with pytest.raises(BadInput) as refused:
        parse(file.read_bytes(), NAMES, "dev", file)
    assert file.with_suffix(".expected").read_text().strip() in str(refused.value)
    assert file.name in str(refused.value)


@pytest.mark.parametrize("file", sorted(HERE.glob("managed/valid/*.yaml")), ids=lambda f: f.stem)
def test_valid_policies_of_aws_s_own(file: Path) -> None:
    [known] = managed.parse(file.read_bytes(), file).values()
    assert known.allows("ec2:DescribeVolumes")
    assert not known.allows("ec2:DetachVolume")


@pytest.mark.parametrize("file", sorted(HERE.glob("managed/invalid/*.yaml")), ids=lambda f: f.stem)
def test_invalid_policies_of_aws_s_own(file: Path) -> None:
    with pytest.raises(BadInput) as refused:
        managed.parse(file.read_bytes(), file)
    assert file.with_suffix(".expected").read_text().strip() in str(refused.value)
    assert file.name in str(refused.value)


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_those_committed_hold_and_fit_the_schema(env: str) -> None:
    assert limits.load([env], frozenset(RULES)).environments == (env,)
    document = yaml.safe_load((limits.FOLDER / f"{env}.yaml").read_bytes())
    jsonschema.validate(document, json.loads(schema.FILE.read_bytes()))
    assert list(document["levels"]) == list(RULES), "in the order of the rules"


def test_the_schema_is_the_code_s() -> None:
    assert json.loads(schema.FILE.read_bytes()) == schema.schema(), (
        "python -m policies.infrastructure.schema"
    )


def test_nearer_to_prod_nothing_is_laxer() -> None:
    found = [limits.load([env], frozenset(RULES)) for env in ENVIRONMENTS]
    for before, after in pairwise(found):
        for rule in RULES:
            assert LEVELS.index(after.levels[rule]) >= LEVELS.index(before.levels[rule]), rule
        assert after.durability.zones >= before.durability.zones
        assert after.durability.backup_days >= before.durability.backup_days


def test_a_stack_of_several_environments_has_the_strictest_levels() -> None:
    both = limits.load(["prod", "dev"], frozenset(RULES))
    prod = limits.load(["prod"], frozenset(RULES))
    assert both.levels == prod.levels
    assert both.durability == prod.durability
    assert both.environments == ("dev", "prod")


@pytest.mark.parametrize(("given", "said"), [(["live"], "unknown environment"), ([], "no env")])
def test_environments_that_cannot_be(given: list[str], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        limits.load(given, frozenset(RULES))


def test_a_waiver_is_for_what_it_names() -> None:
    file = HERE / "valid" / "waiver.yaml"
    found = parse(file.read_bytes(), NAMES, "dev", file)
    keys = [Resource("aws:kms/key:Key", name) for name in ("old-1", "new-1")]
    judged = [resource.name for resource, _ in RULES["keys-rotate"].judge(Stack(keys), found)]
    assert judged == ["new-1"]


def test_the_readme_tells_of_every_rule() -> None:
    text = (limits.FOLDER / "README.md").read_text()
    for rule in RULES.values():
        assert f"`{rule.name}` | {rule.description.rstrip('.')}" in text
