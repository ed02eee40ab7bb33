"""The champion as far as it can be had here: from the platform, or from what came from there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slipway import publish, release, sources
from slipway.check import newest_main
from slipway.errors import SlipwayError
from slipway.steps.champion import Champion

if TYPE_CHECKING:
    from slipway.endpoints import Cluster
    from slipway.release import Release
    from slipway.repository import Repository
    from slipway.sources import Source


@dataclass(frozen=True)
class Found:
    """What an environment serves by main's release file: None where it serves nothing.

    `champion` is that with its verified evidence, or None and in `unknown` why. `note`: what a
    reader should know of where this comes from.
    """

    release: Release | None
    champion: Champion | None = None
    unknown: str = ""
    note: str = ""


def find(
    repository: Repository,
    connect: Callable[[], Cluster],
    source: Source,
    model: str,
    environment: str,
) -> Found:
    """By the forge's main where the platform runs, else by this clone's."""
    path = release.path(environment, model)
    try:
        main, note = newest_main(repository, connect)
        content = repository.read(main, str(path))
        if note and content is None and repository.has(publish.here()):
            main, note = publish.here(), "as the forge's main was when it was last fetched here"
            content = repository.read(main, str(path))
        pins = release.parse(content, path) if content is not None else None
    except SlipwayError as error:
        first = str(error).partition("\n")[0]
        return Found(None, unknown=f"what {environment} serves is not known: {first}")
    if pins is None:
        # What was fetched from a forge is what that had; a branch of one's own may lack releases.
        known = not main.startswith("refs/heads/")
        unknown = "" if known else f"whether {environment} serves one is not known"
        return Found(None, unknown=unknown, note=note)
    try:
        document = sources.verified(source, pins, environment)
    except SlipwayError as error:
        first = str(error).partition("\n")[0]
        return Found(pins, unknown=f"the evidence of version {pins.version}: {first}", note=note)
    return Found(pins, Champion(pins, document), note=note)
