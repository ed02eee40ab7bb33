"""One environment's levels and limits: `policies/infrastructure/<env>.yaml`."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from slipway import documents, paths
from slipway.errors import BadInput, did_you_mean
from slipway.release import ENVIRONMENTS, Strict, check_environment

FOLDER = paths.REPOSITORY / "policies" / "infrastructure"
Level = Literal["disabled", "advisory", "mandatory"]
# The lowest first.
LEVELS: tuple[Level, ...] = ("disabled", "advisory", "mandatory")
Why = Annotated[str, Field(min_length=10)]
Count = Annotated[int, Field(ge=1)]


class Waiver(Strict):
    """A rule that does not hold for some resources, and why."""

    rule: str
    resource: Annotated[str, Field(min_length=1, description="its name, with * for any text")]
    why: Why


class GpuPools(Strict):
    """What a pool of GPU nodes may be."""

    maximum_gpus: Count
    maximum_node_hours: Count = Field(description="a node is replaced, and billed, no longer")
    maximum_idle_minutes: Count = Field(description="an empty node is gone after")


class Durability(Strict):
    """How much may fail, and how long it can be brought back."""

    zones: Count
    ways_out: Count = Field(description="NAT gateways of a network")
    backup_days: Annotated[int, Field(ge=0, le=35)]


class Limits(Strict):
    """Every rule has a level, so none is forgotten in silence."""

    levels: dict[str, Level]
    waivers: tuple[Waiver, ...] = ()
    tags: tuple[str, ...] = Field(min_length=1, description="that everything billed has")
    environments: tuple[str, ...] = Field(
        default=(), description="what the tag `environment` may say; by default the file's own"
    )
    instance_types: tuple[str, ...] = Field(description="patterns, e.g. m7i.*")
    gpu_pools: GpuPools
    durability: Durability
    privileged_namespaces: dict[str, Why] = Field(
        default={}, description="whose pods work on the node itself, and why"
    )

    def waived(self, rule: str, resource: str) -> bool:
        return any(w.rule == rule and fnmatchcase(resource, w.resource) for w in self.waivers)

    def allows_type(self, instance_type: str) -> bool:
        """Whether machines of this type may be had. `FAMILY.*` asks for all of a family."""
        return any(fnmatchcase(instance_type, pattern) for pattern in self.instance_types)


def parse(text: str | bytes, rules: frozenset[str], env: str, file: Path | str) -> Limits:
    """Reads a document about exactly these rules.

    Raises:
        BadInput: a key or a rule is unknown, a rule has no level, or a value cannot be.
    """
    found = documents.parse(Limits, text, file)
    named = [(f"levels.{name}", name) for name in found.levels]
    named += [(f"waivers.{at}.rule", waiver.rule) for at, waiver in enumerate(found.waivers)]
    for where, name in named:
        if name not in rules:
            fix = did_you_mean(name, rules)
            raise BadInput(f"no rule {name!r}", file=file, field=where, fix=fix)
    if missing := sorted(rules - found.levels.keys()):
        fix = f"write {missing[0]}: mandatory, or advisory, or disabled"
        raise BadInput(f"no level for {', '.join(missing)}", file=file, field="levels", fix=fix)
    return found if found.environments else found.model_copy(update={"environments": (env,)})


def _strictest(levels: Iterable[Level]) -> Level:
    return max(levels, key=LEVELS.index)


def load(environments: list[str], rules: frozenset[str], folder: Path = FOLDER) -> Limits:
    """The limits of a stack that hosts these environments.

    The strictest level of any holds for all of it, and otherwise what the last says (prod's, where
    it hosts prod).

    Raises:
        BadInput: a document is wrong, or an environment unknown.
    """
    known = sorted(map(check_environment, environments), key=ENVIRONMENTS.index)
    if not known:
        raise BadInput("no environment to judge by", field="slipway:environments")
    found: list[Limits] = []
    for env in known:
        file = folder / f"{env}.yaml"
        found.append(parse(file.read_bytes(), rules, env, file))
    strictest = {name: _strictest(limits.levels[name] for limits in found) for name in rules}
    allowed = tuple(dict.fromkeys(name for limits in found for name in limits.environments))
    return found[-1].model_copy(update={"levels": strictest, "environments": allowed})
