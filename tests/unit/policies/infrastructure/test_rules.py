"""Every rule both ways: what it lets pass, and what it refuses and in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from policies.infrastructure import limits
from policies.infrastructure.resources import UNKNOWN, Resource, Stack
from policies.infrastructure.rules import RULES, TOPICS

CASES = sorted(Path(__file__).parent.glob("cases/*.yaml"))
PROD = limits.load(["prod"], frozenset(RULES))


def known(value: Any) -> Any:
    """A question mark in a case stands for what only an update will tell."""
    if isinstance(value, dict):
        return {key: known(item) for key, item in value.items()}
    if isinstance(value, list):
        return [known(item) for item in value]
    return UNKNOWN if value == "?" else value


def resource(case: dict[str, Any]) -> Resource:
    name = case.get("name", "r")
    properties = known(case.get("properties", {}))
    if case["type"].startswith("kubernetes:"):
        _, version, kind = case["type"].split(":")
        properties |= {"apiVersion": version.removeprefix("core/"), "kind": kind}
    return Resource(
        case["type"],
        name,
        properties,
        urn=f"urn:{name}",
        ids=frozenset({f"{name}-id"}),
        refers={key: frozenset({f"urn:{to}"}) for key, to in case.get("refers", {}).items()},
        provider=case.get("provider", {}),
    )


def stack(case: Any) -> Stack:
    """A case is a resource, or a list of them, or has one under `resources`."""
    found = case.get("resources", case) if isinstance(case, dict) else case
    return Stack([resource(item) for item in (found if isinstance(found, list) else [found])])


def cases(which: str) -> list[Any]:
    return [
        pytest.param(rule, case, id=f"{rule}-{index}")
        for file in CASES
        for rule, both in yaml.safe_load(file.read_text()).items()
        for index, case in enumerate(both[which])
    ]


@pytest.mark.parametrize(("rule", "case"), cases("accepted"))
def test_accepted(rule: str, case: Any) -> None:
    assert [said for _, said in RULES[rule].judge(stack(case), PROD)] == []


@pytest.mark.parametrize(("rule", "case"), cases("refused"))
def test_refused(rule: str, case: dict[str, Any]) -> None:
    found = [said for _, said in RULES[rule].judge(stack(case), PROD)]
    assert any(case["says"] in said for said in found), found


def test_every_rule_has_cases() -> None:
    told = {file.stem: list(yaml.safe_load(file.read_text())) for file in CASES}
    rules = {
        topic.__name__.rpartition(".")[2]: [rule.name for rule in topic.RULES] for topic in TOPICS
    }
    assert told == rules


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda r: r.name)
def test_what_is_not_known_yet_is_not_judged(rule: Any) -> None:
    """In a preview of a new stack most values are not."""
    file = next(f for f in CASES if rule.name in yaml.safe_load(f.read_text()))
    both = yaml.safe_load(file.read_text())[rule.name]
    for case in [*both["accepted"], *both["refused"]]:
        blurred = [
            Resource(r.type, r.name, _blur(r.properties), r.urn, r.ids)
            for r in stack(case).resources
        ]
        list(rule.judge(Stack(blurred), PROD))


def _blur(properties: Any) -> dict[str, Any]:
    """Only what an object is stays known."""
    return {k: v if k in ("kind", "apiVersion") else UNKNOWN for k, v in properties.items()}
