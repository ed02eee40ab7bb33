"""A tiny model, a clone that has it, and no platform."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from slipway import bento, paths, store
from slipway.bento import Folder
from slipway.endpoints import Cluster, ClusterError
from slipway.repository import Repository
from slipway.steps import package
from slipway.trial.document import Step, Trial
from slipway.trial.run import Run, Surroundings
from slipway.trial.wish import Part, Wish, overridden
from tests.gitforge import GitForge
from tests.unit.check.place import Kept

FIXTURES = paths.REPOSITORY / "tests" / "fixtures" / "tries"


class World:
    """The folder of a model, to be changed and tried."""

    def __init__(self, place: Path) -> None:
        self.path, self.home = place / "tiny", place / "tries"
        shutil.copytree(FIXTURES / "valid" / "tiny", self.path)
        self.forge = GitForge(place / "forge.git")
        files = {f"bentos/tiny/{f.name}": f.read_bytes() for f in self.path.iterdir()}
        self.forge.write("main", {**files}, "A model")
        self.source = Kept()
        self.told: list[Step] = []
        self.bundle = b""

    def replace(self, file: str, old: str, new: str) -> None:
        text = (self.path / file).read_text()
        assert text.count(old) == 1
        (self.path / file).write_text(text.replace(old, new))

    def folder(self) -> Folder:
        return bento.load(self.path)

    def connect(self) -> Cluster:
        raise ClusterError("no cluster: none is there")

    def attempt(
        self,
        before: Trial | None = None,
        *,
        parameters: Mapping[str, str] | None = None,
        part: Part | None = None,
        serve: bool = False,
        fresh: bool = False,
    ) -> Trial:
        """One try; what its steps were is in `told`."""
        self.told = []
        folder, changed = overridden(self.folder(), parameters or {})
        with Repository(self.forge.folder) as repository:
            around = Surroundings(
                repository,
                self.connect,
                self.source,
                self.home,
                lambda _: contextlib.nullcontext(),
                self.told.append,
            )
            wish = Wish("dev", part or Part(), serve=serve, fresh=fresh)
            trial, self.bundle = Run(folder, wish, around, changed)(before)
        return trial

    @property
    def done(self) -> list[str]:
        """The steps that were really done."""
        return [step.name for step in self.told if not step.again]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bento without BentoML, which takes seconds."""

    def build(folder: Folder, model: Mapping[str, bytes]) -> bytes:
        own: dict[str, Any] = {f"src/{n}": f.read_bytes() for n, f in folder.served.items()}
        return store.tar({**own, **{f"src/model/{n}": c for n, c in model.items()}})

    monkeypatch.setattr(package, "build", build)
