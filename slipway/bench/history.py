"""A repository as years of promotions leave it: many models, each promotion a merged pull request.

`python -m slipway.bench.history FOLDER` makes one to look at.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from slipway import paths, release
from slipway.errors import SlipwayError
from slipway.release import ENVIRONMENTS, Release

MODELS, COMMITS = 1000, 20_000
# Every third hour; it ends before this was written, so no clock finds a commit of the future.
BEGIN, STEP_S = 1_650_000_000, 3 * 3600
# Of this checkout, as gates and comments look at them in a repository.
FOLDERS = ("policies/promotion", "workflows", "bentos", "environments")
BOT = "slipway-bot <slipway-bot@slipway.invalid>"
REVIEWER = "slipway-admin <slipway-admin@slipway.invalid>"


@dataclass(frozen=True)
class Promotion:
    """The `number`th pull request that was merged: a version of a model enters an environment."""

    number: int
    model: str
    version: int
    environment: str

    @property
    def title(self) -> str:
        return f"Release {self.model} {self.version} to {self.environment}"

    @property
    def path(self) -> str:
        return str(release.path(self.environment, self.model))


def model_name(number: int) -> str:
    """`model_0001` and so on."""
    return f"model_{number:04}"


def promotions(models: int, count: int) -> Iterator[Promotion]:
    """The first `count`: each model's version goes through all environments before the next."""
    for number in range(count):
        at, environment = divmod(number, len(ENVIRONMENTS))
        turn, model = divmod(at, models)
        yield Promotion(number, model_name(model), turn + 1, ENVIRONMENTS[environment])


def pins(model: str, version: int, commit: str) -> Release:
    """A release whose digests are made from its name alone."""

    def digest(what: str) -> str:
        return f"sha256:{hashlib.sha256(f'{what} {model} {version}'.encode()).hexdigest()}"

    bento = digest("bento")
    return Release.model_validate(
        {
            "model": model,
            "version": version,
            "bento": {
                "digest": bento,
                "uri": f"s3://bentos/{bento.replace(':', '/')}",
                "size": 399_360,
            },
            "runtime": {"image": f"localhost:5000/slipway/serving@{digest('image')}"},
            "data": {"digest": digest("data")},
            "code": {"commit": commit},
            "mlflow": {"run": digest("run").removeprefix("sha256:")[:32]},
            "signature": {"digest": digest("signature")},
            "evidence": {
                "digest": digest("evidence"),
                "summary": {"roc_auc": 0.71, "brier": 0.1738, "baseline_brier": 0.1913},
            },
        }
    )


def make(place: Path, *, models: int = MODELS, commits: int = COMMITS) -> None:
    """Makes a bare repository: a commit with this checkout's own files, then the promotions.

    Each promotion is two commits, the change and its merge, as a forge leaves them.

    Raises:
        SlipwayError: git refuses.
    """
    _git(None, "init", "--quiet", "--bare", "--initial-branch=main", str(place))
    stream = Stream()
    stream.commit("main", "Begin", BEGIN, _checkout())
    tip = first = stream.into(place, "main")
    content = lru_cache(1)(lambda *pinned: release.dumps(pins(*pinned)).encode())
    for promotion in promotions(models, commits // 2):
        when = BEGIN + (promotion.number + 1) * STEP_S
        files = {promotion.path: content(promotion.model, promotion.version, first)}
        change = stream.commit("change", promotion.title, when, files, [tip])
        title = f"Merge pull request '{promotion.title}' (#{promotion.number + 1})"
        tip = stream.commit("main", title, when + 60, files, [tip, change], REVIEWER)
    stream.into(place, "main")
    _git(place, "update-ref", "-d", "refs/heads/change")


def propose(place: Path, files: dict[str, bytes], title: str, branch: str = "challenger") -> str:
    """Puts a commit beside main, as a pull request's; its id."""
    main, when = _git(place, "show", "-s", "--format=%H %ct", "main").split()
    stream = Stream()
    stream.commit(branch, title, int(when) + 60, files, [main])
    return stream.into(place, branch)


class Stream:
    """What `git fast-import` reads."""

    def __init__(self) -> None:
        self._out, self._marks = io.BytesIO(), 0

    def commit(
        self,
        branch: str,
        message: str,
        when: int,
        files: dict[str, bytes],
        parents: Sequence[str] = (),
        committer: str = BOT,
    ) -> str:
        """Adds a commit; gives the name by which it can be a parent, as a commit's id can."""
        self._marks += 1
        self._line(f"commit refs/heads/{branch}")
        self._line(f"mark :{self._marks}")
        self._line(f"committer {committer} {when} +0000")
        self._data(message.encode())
        for word, parent in zip(("from", "merge"), parents, strict=False):
            self._line(f"{word} {parent}")
        for path, content in files.items():
            self._line(f"M 100644 inline {path}")
            self._data(content)
        return f":{self._marks}"

    def _line(self, text: str) -> None:
        self._out.write(f"{text}\n".encode())

    def _data(self, content: bytes) -> None:
        self._out.write(b"data %d\n%s\n" % (len(content), content))

    def into(self, place: Path, branch: str) -> str:
        """Imports all that was added since the last time; the id of the branch's last commit."""
        content = self._out.getvalue()
        self._out = io.BytesIO()
        _git(place, "fast-import", "--quiet", "--force", given=content)
        return _git(place, "rev-parse", f"refs/heads/{branch}")


def _checkout() -> dict[str, bytes]:
    """This checkout's files, those that are new included and its releases left out."""
    command = ("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *FOLDERS)
    names = [name for name in _git(paths.REPOSITORY, *command).split("\0") if name]
    found = {name: paths.REPOSITORY / name for name in names if "/models/" not in name}
    return {name: file.read_bytes() for name, file in found.items() if file.is_file()}


def _git(place: Path | None, *arguments: str, given: bytes | None = None) -> str:
    done = subprocess.run(["git", *arguments], cwd=place, input=given, capture_output=True)
    if done.returncode:
        raise SlipwayError(f"git {arguments[0]} failed: {done.stderr.decode().strip()[-1000:]}")
    return done.stdout.decode().strip()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m slipway.bench.history", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", type=int, default=MODELS)
    parser.add_argument("--commits", type=int, default=COMMITS)
    given = parser.parse_args()
    make(given.folder, models=given.models, commits=given.commits)
