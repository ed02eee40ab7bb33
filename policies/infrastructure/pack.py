"""The rules as a policy pack: what Pulumi's engine asks to what they take, and back."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pulumi
from pulumi_policy import (
    EnforcementLevel,
    PolicyPack,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    StackValidationArgs,
    StackValidationPolicy,
)
from pulumi_policy.proxy import UnknownValueError

from policies.infrastructure import limits
from policies.infrastructure.limits import Limits
from policies.infrastructure.resources import UNKNOWN, Resource, Stack
from policies.infrastructure.rule import Rule, StackRule
from policies.infrastructure.rules import RULES
from slipway.errors import SlipwayError

NAME = "slipway-infrastructure"


def serve() -> None:
    """Answers the engine until that ends this process; a wrong document ends it with what to do."""
    environments = json.loads(pulumi.Config("slipway").get("environments") or "[]")
    try:
        found = limits.load(environments, frozenset(RULES))
    except SlipwayError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
    PolicyPack(NAME, [policy(rule, found) for rule in RULES.values()])


def policy(
    rule: Rule | StackRule, found: Limits
) -> ResourceValidationPolicy | StackValidationPolicy:
    """A rule as Pulumi has it, at the level that it has in the stack's environments."""
    level = EnforcementLevel(found.levels[rule.name])
    if isinstance(rule, Rule):

        def judge(args: ResourceValidationArgs, report: ReportViolation) -> None:
            for said in rule.of_one(resource_of(args), found):
                report(said, None)

        return ResourceValidationPolicy(rule.name, rule.description, judge, level)

    def judge_all(args: StackValidationArgs, report: ReportViolation) -> None:
        for resource, said in rule.judge(stack_of(args), found):
            report(said, resource.urn)

    return StackValidationPolicy(rule.name, rule.description, judge_all, level)


def resource_of(args: ResourceValidationArgs) -> Resource:
    provider = plain(args.provider.props) if args.provider else {}
    properties = plain(args.props)
    return Resource(args.resource_type, args.name, properties, args.urn, provider=provider)


def stack_of(args: StackValidationArgs) -> Stack:
    return Stack(
        [
            Resource(
                resource.resource_type,
                resource.name,
                plain(resource.props),
                resource.urn,
                refers={
                    name: frozenset(other.urn for other in others)
                    for name, others in resource.property_dependencies.items()
                },
                provider=plain(resource.provider.props) if resource.provider else {},
            )
            for resource in args.resources
        ]
    )


def plain(value: Any) -> Any:
    """Without the SDK's wrappers, which raise at what is not known yet."""
    if isinstance(value, Mapping):
        given = cast("Mapping[Any, Any]", value)
        return {key: _known(given, key) for key in given}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        items = cast("Sequence[Any]", value)
        return [_known(items, index) for index in range(len(items))]
    return value


def _known(container: Any, key: Any) -> Any:
    try:
        return plain(container[key])
    except UnknownValueError:
        return UNKNOWN
