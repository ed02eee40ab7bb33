"""`slipway try` as a person runs it: what it prints, and its exit codes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from slipway import bento
from slipway.cli import app
from slipway.commands import try_
from slipway.endpoints import Cluster
from slipway.repository import Repository
from slipway.trial import libraries
from tests.unit.trial.conftest import World


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["try", *arguments])


@pytest.fixture
def tiny(world: World, quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A checkout whose one model is tiny, on a machine without a cluster."""
    monkeypatch.setattr(bento, "BENTOS", world.path.parent)
    monkeypatch.setattr(Cluster, "connect", world.connect)
    monkeypatch.setattr(try_, "Repository", lambda _: Repository(world.forge.folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in try_.ENVIRONMENT:
        monkeypatch.setenv(name, os.environ.get(name, "1"))
    return world


@pytest.mark.slow
def test_tried_twice(tiny: World) -> None:
    first = run("tiny", "--skip-serve")
    assert first.exit_code == 0, first.output
    assert "gates of dev would pass; allowed without: vulnerabilities" in first.stdout
    assert "ingest" not in first.stdout
    assert "4,800 rows in 4 partitions" in first.stderr
    assert "no cluster: none is there" in first.stdout
    again = run("tiny", "--skip-serve", "-o", "json", "--param", "C=2")
    found = json.loads(again.stdout)
    assert found["exit_code"] == again.exit_code == 0
    assert found["overridden"] == {"C": 2.0}
    assert [s["name"] for s in found["steps"] if s["again"]] == ["ingest", "validate"]
    assert "as before" in again.stderr
    assert found["before"]["parameters"]["C"] == 1.0
    text = run("tiny", "--skip-serve", "-o", "markdown")
    assert text.stdout.startswith("## ✅ ")
    assert "| brier (less is better) |" in text.stdout
    past = run("tiny", "--history")
    assert "C 2.0" in past.stdout
    assert len(json.loads(run("tiny", "--history", "-o", "json").stdout)) >= 1


def test_a_step_that_fails(tiny: World) -> None:
    tiny.replace("training.py", "    from sklearn", "    raise ValueError('no')\n    from sklearn")
    result = run("tiny", "--skip-serve")
    assert result.exit_code == 1
    assert "in fit(): ValueError: no" in result.stderr
    assert result.stdout == ""
    assert "not tried here yet" in run("tiny", "--history").stderr


def test_a_gate_that_refuses(tiny: World) -> None:
    tiny.replace("training.py", "1 / (1 +", "0.7 + 0.3 / (1 +")
    result = run("tiny", "--skip-serve")
    assert result.exit_code == 1
    assert "refuses: calibration" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tini"], "did you mean 'tiny'"),
        (["Tiny"], "a model's name is"),
        (["tiny", "--against", "stagin"], "did you mean 'staging'"),
        (["tiny", "--param", "C"], "'C' is no KEY=VALUE"),
        (["tiny", "--param", "D=1"], "model.yaml has no parameter 'D'"),
        (["tiny", "--rows", "5", "--sample", "0.5"], "both say how much"),
        (["tiny", "--sample", "2"], "2 is no share"),
    ],
)
def test_bad_input(tiny: World, arguments: list[str], said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert said in result.stderr


def test_a_pretrained_model_is_not_tried() -> None:
    result = run("qwen_chat")
    assert result.exit_code == 2
    assert "slipway fetch qwen_chat" in result.stderr


def test_without_the_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "installed", lambda: {"pandas": "", "numpy": "1"})
    result = run("tiny")
    assert result.exit_code == 1
    assert "not installed: pandas\n  fix: uv pip sync" in result.stderr
