"""What a rule is: a plain function over plain data, in the module of `rules/` that is its topic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from policies.infrastructure.limits import Limits
from policies.infrastructure.resources import Resource, Stack

# What they give says what is wrong and, after a semicolon or in place of it, what to do.
Check = Callable[[Resource, Limits], Iterator[str]]
StackCheck = Callable[[Stack, Limits], Iterator[tuple[Resource, str]]]


class _Named:
    check: Callable[..., object]

    @property
    def name(self) -> str:
        return self.check.__name__.replace("_", "-")

    @property
    def description(self) -> str:
        return (self.check.__doc__ or "").partition("\n")[0]


@dataclass(frozen=True)
class Rule(_Named):
    """Of one resource alone: judged before that one is made."""

    check: Check

    def judge(self, stack: Stack, limits: Limits) -> Iterator[tuple[Resource, str]]:
        """What it finds in a whole stack, without what is waived."""
        for resource in stack.resources:
            yield from ((resource, said) for said in self.of_one(resource, limits))

    def of_one(self, resource: Resource, limits: Limits) -> Iterator[str]:
        """What it finds, unless that is waived."""
        if not limits.waived(self.name, resource.name):
            yield from self.check(resource, limits)


@dataclass(frozen=True)
class StackRule(_Named):
    """Of resources together: judged when all are registered."""

    check: StackCheck

    def judge(self, stack: Stack, limits: Limits) -> Iterator[tuple[Resource, str]]:
        """What it finds, without what is waived."""
        for resource, said in self.check(stack, limits):
            if not limits.waived(self.name, resource.name):
                yield resource, said
