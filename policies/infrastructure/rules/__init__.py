"""The rules, a topic a module."""

from __future__ import annotations

from policies.infrastructure.rule import Rule, StackRule
from policies.infrastructure.rules import (
    durability,
    encryption,
    exposure,
    gpu_pools,
    instance_types,
    network,
    secrets,
    tags,
    workloads,
)

TOPICS = (
    encryption,
    exposure,
    durability,
    network,
    tags,
    instance_types,
    gpu_pools,
    secrets,
    workloads,
)
RULES: dict[str, Rule | StackRule] = {rule.name: rule for topic in TOPICS for rule in topic.RULES}
