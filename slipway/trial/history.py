"""The tries that were made on this machine."""

from __future__ import annotations

import time
from pathlib import Path

from pydantic import ValidationError

from slipway import digests, paths
from slipway.trial.document import Trial

KEPT = 50


def folder() -> Path:
    """Where tries and all that they remember are: it can be rebuilt."""
    return paths.cache() / "tries"


def keep(home: Path, trial: Trial) -> None:
    """Keeps a try, and of all of the model the newest."""
    place = home / "results" / trial.model
    paths.write(
        place / f"{time.time_ns():020}.json", digests.canonical_json(trial.model_dump(mode="json"))
    )
    for old in sorted(place.glob("*.json"))[:-KEPT]:
        old.unlink(missing_ok=True)


def newest(home: Path, model: str) -> list[Trial]:
    """The model's tries, the newest first; those that an older program wrote are left out."""
    found: list[Trial] = []
    for file in sorted((home / "results" / model).glob("*.json"), reverse=True):
        try:
            found.append(Trial.model_validate_json(file.read_bytes()))
        except ValidationError:
            continue
    return found
