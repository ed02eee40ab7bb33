"""The stacks on AWS as the engine would see them, each run once against mocks."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pulumi.runtime

from tests.manifests import program
from tests.manifests.program import Program, Registered

STACKS = ("dev", "staging", "prod")
# What none of those is: stores in pods and no GPUs, and a forge that is there already.
# And one between others, of which it reads and which read of it.
OTHERS = ("eks_own_stores", "eks_with_a_forge", "eks_between_others")


@dataclass(frozen=True)
class Made(Registered):
    """A resource as it is registered, and what it hangs on (URNs)."""

    urn: str
    parent: str
    provider: str
    protect: bool
    dependencies: frozenset[str]
    refers: dict[str, frozenset[str]]
    """Property to the resources that its value comes from."""
    outputs: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def ids(self) -> frozenset[str]:
        """What other resources' inputs hold to name it."""
        known = (self.outputs.get(key) for key in ("arn", "id", "url", "name"))
        return frozenset({f"{self.name}-id", *(k for k in known if isinstance(k, str))})


@dataclass(frozen=True)
class Stack:
    program: Program
    resources: tuple[Made, ...]

    def of(self, *tokens: str) -> Iterator[Made]:
        """Resources whose type ends so, e.g. `s3/bucket:Bucket`, or `:NodePool`."""
        return (r for r in self.resources if r.token.endswith(tokens))

    def one(self, token: str, name: str) -> Made:
        [found] = [r for r in self.of(token) if r.name == name]
        return found

    @functools.cached_property
    def by_urn(self) -> dict[str, Made]:
        return {r.urn: r for r in self.resources}

    @functools.cached_property
    def _children(self) -> dict[str, set[str]]:
        children: dict[str, set[str]] = {}
        for resource in self.resources:
            children.setdefault(resource.parent, set()).add(resource.urn)
        return children

    def needs(self, resource: Made) -> frozenset[str]:
        """Everything that is made before this resource, and removed after it."""
        seen: set[str] = set()
        todo = [resource.urn]
        while todo:
            made = self.by_urn.get(todo.pop())
            if made is None:
                continue
            ahead = {*made.dependencies, made.parent, made.provider.rpartition("::")[0]} - seen
            seen |= ahead
            todo += ahead
        return frozenset(seen - {resource.urn, ""})

    def goes_before(self, first: Made, then: Made) -> bool:
        """Whether a destroy has removed `first` before it begins with `then`."""
        return then.urn in self.needs(first)


@functools.cache
def stack(name: str) -> Stack:
    """The stack of environments/Pulumi.<name>.yaml, or of a fixture that is valid.

    Not to be changed: tests share it.
    """
    file = program.ROOT / "environments" / f"Pulumi.{name}.yaml"
    if not file.exists():
        file = program.ROOT / "tests" / "unit" / "infra" / "valid" / f"{name}.yaml"
    ran = program.of_stack(file)
    known = {(r.token, r.name): r for r in ran.resources}
    made = (_made(urn, request, known, ran.states[urn]) for urn, request in ran.requests)
    return Stack(ran, tuple(made))


def _made(
    urn: str, request: Any, known: dict[tuple[str, str], Registered], state: dict[str, Any]
) -> Made:
    plain = known[request.type, request.name]
    inputs = pulumi.runtime.rpc.deserialize_properties(request.object)
    return Made(
        token=plain.token,
        name=plain.name,
        inputs={k: pulumi.runtime.rpc.unwrap_rpc_secret(v) for k, v in inputs.items()},
        secret=plain.secret,
        urn=urn,
        parent=request.parent,
        provider=request.provider,
        protect=request.protect,
        dependencies=frozenset(request.dependencies),
        refers={k: frozenset(v.urns) for k, v in request.propertyDependencies.items()},
        outputs={k: pulumi.runtime.rpc.unwrap_rpc_secret(v) for k, v in state.items()},
    )
