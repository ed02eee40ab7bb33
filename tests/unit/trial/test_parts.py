"""The parts that a try is made of, one by one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from slipway import digests
from slipway.errors import SlipwayError
from slipway.store import Corrupt, Missing, Store, StoreError
from slipway.trial import libraries, memory
from slipway.trial.objects import Local
from tests import samples
from tests.unit.trial.conftest import World


def test_objects_are_files_called_by_their_digest(tmp_path: Path) -> None:
    local = Local(tmp_path)
    digest = local.put("bentos", b"content")
    assert digest == digests.of(b"content")
    assert local.get("bentos", digest) == b"content"
    assert local.has("bentos", digest)
    assert not local.has("data", digest)
    file = tmp_path / "bentos" / digest.replace(":", "/")
    file.write_bytes(b"other")
    with pytest.raises(Corrupt, match="altered"):
        local.verify("bentos", digest)
    local.put("bentos", b"content")
    assert local.get("bentos", digest) == b"content"
    with pytest.raises(Missing, match="not on this machine"):
        local.get("data", digest)
    with pytest.raises(StoreError, match="no digest names"):
        local.names("predictions", "dev/")


def test_what_came_from_the_platform_stays(tmp_path: Path) -> None:
    platform, asked = samples.Objects(), list[str]()
    digest = platform.put("evidence", b"signed")

    @contextlib.contextmanager
    def upstream() -> Iterator[Store]:
        asked.append("")
        yield platform

    local = Local(tmp_path, upstream)
    assert local.has("evidence", digest)
    assert local.get("evidence", digest) == local.get("evidence", digest) == b"signed"
    assert len(asked) == 2
    with pytest.raises(Missing):
        local.get("evidence", samples.digest("00"))
    assert not local.has("data", digest)


def test_a_missing_library_says_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    libraries.check()
    assert libraries.others() == ""
    real = libraries.installed()
    monkeypatch.setattr(libraries, "installed", lambda: {**real, "pandas": "", "numpy": "0.1"})
    with pytest.raises(SlipwayError, match=r"not installed: pandas\n  fix: uv pip sync"):
        libraries.check()
    assert "numpy 0.1 (locked: " in libraries.others()
    monkeypatch.setattr(libraries, "installed", lambda: dict.fromkeys(real, ""))
    with pytest.raises(SlipwayError, match=r"and 1\d+ more"):
        libraries.check()


def test_what_a_function_can_see(world: World) -> None:
    def names() -> dict[str, str]:
        folder = world.folder()
        return {f: memory.code(folder, f) for f in ("ingest", "fit", "requests")}

    def changed(file: str, old: str, new: str) -> set[str]:
        before = names()
        world.replace(file, old, new)
        after = names()
        return {name for name in before if before[name] != after[name]}

    assert changed("training.py", "import json", "import json  # to write") == set()
    assert changed("training.py", "seed + 10", "seed + 11") == {"ingest"}
    assert changed("training.py", "return np.random", "print() or np.random") == {
        *("ingest", "fit", "requests")
    }
    assert changed("training.py", ".fit(x, y)", ".fit(x, y.astype(int))") == {"fit"}
    assert changed("service.py", "x: float", "x: int") == set()
    assert changed("schema.py", "(-10, 10)", "(-9, 9)") == {"ingest", "fit", "requests"}
    # Who names another function, by whatever means, sees it.
    assert changed("training.py", 'rows["above"].to', 'rows["above"].copy().to') == set()
    assert changed("training.py", "return Logistic", "target; return Logistic") == {"fit"}
    assert changed("training.py", ".copy().to", ".to") == {"fit"}


def test_what_is_remembered(tmp_path: Path) -> None:
    calls: list[int] = []

    def make() -> dict[str, str]:
        calls.append(1)
        return {"data": str(len(calls))}

    kept = memory.Memory(tmp_path)
    assert kept.recall("ingest", {"a": 1}, make) == ({"data": "1"}, False)
    assert kept.recall("ingest", {"a": 1}, make) == ({"data": "1"}, True)
    assert kept.recall("ingest", {"a": 2}, make) == ({"data": "2"}, False)
    assert kept.recall("train", {"a": 1}, make) == ({"data": "3"}, False)
    assert memory.Memory(tmp_path, fresh=True).recall("ingest", {"a": 1}, make)[0] == {"data": "4"}
    assert memory.Memory(tmp_path).recall("ingest", {"a": 1}, make) == ({"data": "4"}, True)
