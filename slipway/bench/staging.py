"""A release that is new to an environment, and a merge where the API server admits what is released
alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from slipway import merging, promotion, release, serving, training
from slipway.bench.figures import Figure, percentile
from slipway.bench.promotion import ENV as BEFORE
from slipway.bench.promotion import (
    MODEL,
    PATIENCE_S,
    Taken,
    address,
    merge_release,
    one,
    pair,
    path_of,
    second,
)
from slipway.bench.watch import watching
from slipway.commands.predict import example
from slipway.endpoints import Cluster
from slipway.errors import SlipwayError
from slipway.forge import Forge, NotFound
from slipway.release import Release

ENV = "staging"
# A promotion of its own takes a minute or more, so these are few.
ROUNDS = 4


def staging(platform: Cluster, say: Callable[[str], None], *, rounds: int = ROUNDS) -> list[Figure]:
    """Two bentos that dev has known are promoted to staging, and then take turns there."""
    if not platform.embedded:
        raise SlipwayError("requests are for this machine's own cluster only")
    with platform.forge() as forge:
        here, other = pair(forge) or second(platform, forge, say)
        before = present(forge)
        gates: list[float] = []
        files: list[bytes] = []
        taken = Taken()
        try:
            for file in order(here, other, before):
                gates.append(released(platform, forge, file, say))
                files.append(forge.read(path_of(ENV)))
            with watching(f"http://{address(platform, ENV)}:80/predict", example(MODEL)) as watch:
                for number in range(rounds):
                    took = one(forge, watch, files[number % 2], taken, env=ENV)
                    say(f"{number + 1} of {rounds}: {took:.1f} s")
        finally:
            restore(forge, here, before)
    return figures(gates, taken)


def present(forge: Forge) -> bytes | None:
    """The release file of `ENV`."""
    with suppress(NotFound):
        return forge.read(path_of(ENV))
    return None


def order(here: bytes, other: bytes, before: bytes | None) -> tuple[bytes, bytes]:
    """Which is promoted first: not the bento that is there already, which would be no release."""

    def bento(file: bytes) -> str:
        return release.parse(file, path_of(ENV)).bento.digest

    return (other, here) if before and bento(before) == bento(here) else (here, other)


def released(platform: Cluster, forge: Forge, file: bytes, say: Callable[[str], None]) -> float:
    """Promotes what dev serves by this release file: seconds from the push to the verdict.

    The push is of the forge's clock, which knows no parts of a second.
    """
    pins = release.parse(file, path_of(BEFORE))
    if forge.read(path_of(BEFORE)) != file:
        merge_release(forge, file, f"{time.time_ns()}")
    _answers(platform, BEFORE, pins)
    workflow, _ = promotion.begin(platform, promotion.plan(MODEL, ENV, BEFORE))
    say(f"{workflow.name} promotes version {pins.version} to {ENV}")
    for now in training.follow(platform, workflow.name):
        workflow = now
    found = promotion.outcome(platform, workflow)
    if found.number is None:
        raise SlipwayError(f"nothing to promote to {ENV}: {found.note}")
    pull = merging.wait_for_gates(forge, found.number, every_s=0.25)
    verdict = time.time()
    pushed = forge.history(path_of(ENV), pull.head, limit=1)[0].when.timestamp()
    forge.merge(pull.number, sha=pull.sha)
    _answers(platform, ENV, pins)
    return verdict - pushed


def _answers(platform: Cluster, env: str, pins: Release) -> None:
    serving.wait_until_answering(platform, env, MODEL, pins.bento.digest, timeout_s=PATIENCE_S)


def restore(forge: Forge, here: bytes, before: bytes | None) -> None:
    """Both environments as they were."""
    if forge.read(path_of(BEFORE)) != here:
        merge_release(forge, here, "as-before")
    if present(forge) == before:
        return
    if before is None:
        forge.write("main", {path_of(ENV): None}, f"Bench: {MODEL} was not in {ENV}")
    else:
        merge_release(forge, before, "as-before", env=ENV)


def figures(gates: Sequence[float], taken: Taken) -> list[Figure]:
    """What the promotions and the rounds come to: of few the slowest."""
    merges = taken.merges
    return [
        Figure(
            "gates-release",
            max(gates),
            f"the slower of {len(gates)} promotions to {ENV}, each with evidence, comparison and "
            "lineage to judge; by the forge's clock",
            "",
            {"seconds": list(gates)},
        ),
        Figure(
            "staging",
            max(merges),
            f"the slowest of {len(merges)} merges, median {percentile(merges, 50):.1f} s; both "
            "bentos are former releases",
            "",
            {"seconds": merges},
        ),
    ]
