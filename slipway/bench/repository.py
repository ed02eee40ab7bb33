"""Gates and the board on repositories of their own, a small and a large one, without a platform."""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slipway import digests, paths
from slipway.bench import history, sample
from slipway.bench.command import timed
from slipway.bench.figures import Figure
from slipway.endpoints import Cluster
from slipway.errors import SlipwayError

TURNS = 5
SMALL = (3, 60)
LARGE = (history.MODELS, history.COMMITS)


def repository(_: Cluster | None, say: Callable[[str], None]) -> list[Figure]:
    """Each command as a whole process, the median of some."""
    figures: list[Figure] = []
    for name, size in {"check": SMALL, "check-large": LARGE}.items():
        models, commits = size
        say(f"a repository of {models:,} models and {commits:,} commits")
        with tempfile.TemporaryDirectory(prefix="slipway-bench-") as folder:
            place, own = made(*size), Path(folder)
            challenger = sample.propose(place, own, history.model_name(models // 3))
            options = (
                *("--repo", str(place), "--base", "main", "--head", challenger.branch),
                *("--evidence", str(challenger.evidence), "--keys", str(challenger.keys)),
            )
            taken: list[float] = []
            for turn in range(TURNS):
                seconds, output = timed("check", *options, "-o", "json")
                _has_judged(output)
                taken.append(seconds)
                say(f"{turn + 1} of {TURNS}: slipway check {seconds:.2f} s")
            how = f"whole process, median of {TURNS}; {models:,} models × 3, {commits:,} commits"
            figures.append(Figure(name, statistics.median(taken), how, "", {"seconds": taken}))
    boards = [_status(made(*LARGE), say) for _ in range(TURNS)]
    how = f"whole process, median of {TURNS}: slipway status --git"
    return [
        *figures,
        Figure("status-large", statistics.median(boards), how, "", {"seconds": boards}),
    ]


def made(models: int, commits: int) -> Path:
    """The repository of that size, made if it is not there from another time."""
    what = digests.of_json([models, commits, *_sources()]).removeprefix("sha256:")[:12]
    folder = paths.cache() / "bench"
    place = folder / f"{models}-{commits}-{what}"
    if not place.exists():
        for former in folder.glob(f"{models}-{commits}-*"):
            shutil.rmtree(former)
        partial = place.with_name(f"{place.name}.partial")
        partial.parent.mkdir(parents=True, exist_ok=True)
        history.make(partial, models=models, commits=commits)
        partial.rename(place)
    return place


def _sources() -> list[str]:
    """What a repository is made of."""
    policies = sorted((paths.REPOSITORY / "policies" / "promotion").glob("*.yaml"))
    files = [Path(history.__file__), paths.REPOSITORY / "slipway" / "release.py", *policies]
    return [digests.of_file(file) for file in files]


def _document(output: str) -> Any:
    """What a command shows as JSON, before whatever it says besides."""
    return json.JSONDecoder().raw_decode(output)[0]


def _has_judged(output: str) -> None:
    """Raises `SlipwayError` unless the gates had all that they judge by."""
    verdict = _document(output)
    states = [finding["state"] for found in verdict["releases"] for finding in found["findings"]]
    if not states or "fail" in states:
        raise SlipwayError("the sample does not pass its gates", fix="see slipway/bench/sample.py")


def _status(place: Path, say: Callable[[str], None]) -> float:
    seconds, output = timed("status", "--git", "--repo", str(place), "-o", "json")
    rows = len(_document(output))
    say(f"slipway status: {rows:,} releases in {seconds:.2f} s")
    return seconds
