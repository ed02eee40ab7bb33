"""Follow: MLflow's aliases `@dev`, `@staging` and `@prod` say what git says and the pods serve.

They come after git and after the environment: an alias moves once the model answers with the bento
that the release file on main pins. Run again and again, it repairs what anything else has moved.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from slipway import paths, release
from slipway.endpoints import BENTO_HEADER
from slipway.errors import BadInput
from slipway.release import Release
from slipway.steps import hosts
from slipway.steps.registry import Registry, RegistryError

_EVERY_S = 1.0


@dataclass(frozen=True)
class Behind:
    """An alias that is not yet what it will be, and why."""

    model: str
    environment: str
    why: str

    def __str__(self) -> str:
        return f"{self.model}@{self.environment}: {self.why}"


def run(wait: str = "0") -> dict[str, str]:
    """Waits up to `wait` seconds for pods that a merge has just changed. No outputs."""
    if others := hosts.upstream():
        print(f"MLflow has the models on the stack that trained them: {', '.join(others)} before")
        return {}
    releases, problems = read(paths.REPOSITORY / "environments", hosts.here())
    deadline = time.monotonic() + float(wait)
    with Registry.from_environment() as registry:
        while behind := follow(registry, releases, hosts.here(), answering):
            if time.monotonic() > deadline:
                break
            time.sleep(_EVERY_S)
    for one in behind:
        print(f"{one}; the sweep looks again")
    if problems:
        raise BadInput("\n".join(map(str, problems)))
    return {}


def read(folder: Path, among: list[str]) -> tuple[dict[tuple[str, str], Release], list[BadInput]]:
    """The release files: (model, environment) to release; and what is wrong with the others."""
    found: dict[tuple[str, str], Release] = {}
    problems: list[BadInput] = []
    for environment in among:
        for file in sorted((folder / environment / "models").glob("*.yaml")):
            try:
                found[file.stem, environment] = release.load(file)
            except BadInput as error:
                problems.append(error)
    return found, problems


def follow(
    registry: Registry,
    releases: Mapping[tuple[str, str], Release],
    among: list[str],
    answers: Callable[[str, str], str | None],
) -> list[Behind]:
    """Moves every alias whose model answers as git wants it; returns those that must wait.

    Args:
        answers: the bento with which a model (first) answers in an environment, None if none does.
    """
    present = registry.aliases()
    behind: list[Behind] = []
    for (model, environment), wanted in releases.items():
        has = present.get(model, {}).get(environment)
        if has == wanted.version:
            continue
        bento = answers(model, environment)
        if bento != wanted.bento.digest:
            what = f"answers with {bento}" if bento else "nothing answers"
            behind.append(
                Behind(model, environment, f"version {wanted.version} is released, but {what}")
            )
            continue
        try:
            registry.set_alias(model, environment, wanted.version)
        except RegistryError as error:
            behind.append(Behind(model, environment, str(error)))
            continue
        print(f"{model}@{environment}: {has or 'nothing'} -> {wanted.version}")
    for model, aliases in present.items():
        for environment in [e for e in among if e in aliases and (model, e) not in releases]:
            if bento := answers(model, environment):
                why = f"its release file is gone, but {bento} still answers"
                behind.append(Behind(model, environment, why))
                continue
            registry.delete_alias(model, environment)
            print(f"{model}@{environment}: {aliases[environment]} -> nothing")
    return behind


def answering(model: str, environment: str) -> str | None:
    """The bento that answers now at the model's service, in an environment's namespace."""
    url = f"http://{release.service(model)}.{environment}.svc/readyz"
    try:
        response = httpx.get(url, timeout=3, trust_env=False)
    except httpx.TransportError:
        return None
    return response.headers.get(BENTO_HEADER) if response.is_success else None
