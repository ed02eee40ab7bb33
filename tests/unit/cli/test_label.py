"""`slipway label`: what came true, stored where soak reads it."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from slipway import bento
from slipway.cli import app
from slipway.endpoints import Cluster


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


TASK = "classification"
LOGGED, UNKNOWN = "01a209ebcfc70630eadcd0023bbc", "01a209ebd010984d2f3b0fdfc658"


@pytest.fixture
def logged(connected: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """A prediction log with one prediction; gives the labels that were stored."""
    monkeypatch.setattr(bento, "find", lambda _: SimpleNamespace(config=SimpleNamespace(task=TASK)))
    line = {"time": "2026-11-23T19:39:38.823Z", "id": LOGGED, "prediction": [0.5]}
    written: dict[str, bytes] = {}
    key = f"dev/toy/{'a' * 64}/20261123T193938-toy-1-1.jsonl"
    content = json.dumps(line, separators=(",", ":")).encode()
    log = SimpleNamespace(
        names=lambda _, prefix: [key] if key.startswith(prefix) else [], read=lambda *_: content
    )
    labels = SimpleNamespace(
        write=lambda bucket, key, data: written.update({f"{bucket}/{key}": data})
    )
    cluster = Cluster.connect()
    monkeypatch.setattr(
        cluster,
        "store",
        lambda rights_of="": contextlib.nullcontext(labels if rights_of == "labels" else log),
    )
    return written


def test_label_stores_what_came_true(logged: dict[str, bytes], tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(f"id,outcome\n{LOGGED},1\n{UNKNOWN},0\n")
    result = run("label", "toy", "--env", "dev", "--file", str(file))
    assert result.exit_code == 0, result.output
    assert "2 labels of toy in dev stored as s3://labels/dev/toy/" in result.stderr
    assert f"1 of them are of no prediction in the log so far: {UNKNOWN}" in result.stderr
    [(key, content)] = logged.items()
    assert key.startswith("labels/dev/toy/")
    assert [json.loads(line)["outcome"] for line in content.splitlines()] == [1, 0]
    shown = run("label", "toy", "--env", "dev", "--file", str(file), "-o", "json")
    assert json.loads(shown.stdout)["unknown"] == [UNKNOWN]


@pytest.mark.parametrize(
    ("env", "text", "said"),
    [
        ("dev", f"id,outcome\n{UNKNOWN},1\n", "none of its 1 ids is of a prediction of toy in dev"),
        (
            "prod",
            f"id,outcome\n{LOGGED},1\n",
            "none of its 1 ids is of a prediction of toy in prod",
        ),
        ("dev", "id,outcome\nx,1\n", "line 2: 'x' is not a prediction's id"),
        ("nowhere", "", "unknown environment 'nowhere'"),
    ],
)
def test_label_refuses_what_labels_nothing(
    logged: dict[str, bytes], tmp_path: Path, env: str, text: str, said: str
) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(text)
    result = run("label", "toy", "--env", env, "--file", str(file))
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
    assert not logged
