"""`slipway push`: what a cluster that exists needs of us, in a registry of the user's."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from slipway import doctor, images, paths
from slipway.cli import app
from slipway.errors import SlipwayError

OURS = ["mlflow", "serving", "training"]
DIGEST = f"sha256:{'a' * 64}"


@pytest.fixture
def pushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was built and pushed, by root on Debian."""
    done: list[str] = []
    for variable in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(doctor, "on_debian", lambda: True)
    monkeypatch.setattr(doctor, "missing_packages", list)
    monkeypatch.setattr(
        images, "build", lambda names, **_: done.extend(f"build {n}" for n in names)
    )
    monkeypatch.setattr(images.Image, "built", True)
    monkeypatch.setattr(images.Image, "digest", DIGEST)
    monkeypatch.setattr(
        images, "_push", lambda image, to, _: done.append(f"push {image.name} {to}")
    )
    return done


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_it_prints_what_the_stack_file_takes(pushed: list[str]) -> None:
    result = run("push", "registry.example.com/ml")
    assert result.exit_code == 0, result.output
    assert pushed[:3] == [f"build {name}" for name in OURS]
    assert sorted(pushed[3:]) == [f"push {name} registry.example.com/ml" for name in OURS]
    printed = yaml.safe_load(f"config:\n{result.stdout}")
    assert printed["config"]["slipway:images"] == {
        name: f"registry.example.com/ml/slipway/{name}@{DIGEST}" for name in OURS
    }
    assert "environments/Pulumi.local.yaml" in result.stderr
    # The embedded cluster's own references stay what they are.
    assert not paths.images_file().exists()


def not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


def not_debian(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "on_debian", lambda: False)


@pytest.mark.parametrize("fault", [not_root, not_debian])
def test_it_needs_root_on_debian(
    pushed: list[str],
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[pytest.MonkeyPatch], None],
) -> None:
    fault(monkeypatch)
    result = run("push", "registry.example.com")
    assert result.exit_code == 2
    assert "by root on Debian or Ubuntu only" in result.stderr
    assert pushed == []


@pytest.mark.parametrize("registry", ["https://registry.example.com", "registry/", "Registry", ""])
def test_what_is_no_registry(pushed: list[str], registry: str) -> None:
    result = run("push", registry)
    assert result.exit_code == 2
    assert "REGISTRY: no registry" in result.stderr
    assert pushed == []


def test_a_registry_that_refuses(monkeypatch: pytest.MonkeyPatch, pushed: list[str]) -> None:
    def refused(*_: object, **__: object) -> None:
        raise SlipwayError("image mlflow: pushing failed", fix="`skopeo login registry`")

    monkeypatch.setattr(images, "_push", refused)
    result = run("push", "registry")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "skopeo login" in result.stderr
