"""`slipway down`: what it forgets with the data, and what it says of what it does not stop."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from slipway import cluster, paths
from slipway.cli import app

FIXTURES = paths.REPOSITORY / "tests" / "fixtures" / "states"


@pytest.fixture(autouse=True)
def downs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each time that the cluster was stopped: whether its data went, too."""
    for variable in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    done: list[bool] = []
    monkeypatch.setattr(cluster, "down", lambda *, erase, progress: done.append(erase))
    return done


def have(file: Path) -> Path:
    """Gives this machine a stack of that state and name."""
    place = paths.data() / "pulumi" / "state" / ".pulumi" / "stacks" / "slipway" / file.name
    text = file.read_text().replace("@KUBECONFIG@", str(paths.kubeconfig()))
    paths.write(place, text.encode())
    return place


def down(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["down", *arguments])


def test_with_nothing_there(downs: list[bool]) -> None:
    assert (down().exit_code, down("--erase").exit_code) == (0, 0)
    assert downs == [False, True]


@pytest.mark.parametrize("file", sorted(FIXTURES.glob("valid/*.json")), ids=lambda f: f.stem)
def test_what_is_on_the_embedded_cluster_goes_with_it(file: Path, downs: list[bool]) -> None:
    have(file)
    result = down("--erase")
    assert (result.exit_code, downs) == (0, [True])
    assert "does not stop" not in result.stderr


@pytest.mark.parametrize("file", sorted(FIXTURES.glob("invalid/*.json")), ids=lambda f: f.stem)
def test_the_state_of_what_runs_elsewhere_is_not_erased(file: Path, downs: list[bool]) -> None:
    have(FIXTURES / "valid" / "simulated.json")
    place, stack = have(file), file.stem
    result = down("--erase")
    assert (result.exit_code, downs) == (2, [])
    said = f"{place}: stack {stack} is on a cluster that this does not stop, and its state is here"
    assert said in result.stderr
    assert f"fix: `slipway pulumi destroy --stack {stack}`" in result.stderr
    # Where the cluster is gone, so may the file be.
    place.unlink()
    assert (down("--erase").exit_code, downs) == (0, [True])


@pytest.mark.parametrize("file", sorted(FIXTURES.glob("invalid/*.json")), ids=lambda f: f.stem)
def test_stopping_says_what_it_does_not_stop(file: Path, downs: list[bool]) -> None:
    have(file)
    result = down()
    assert (result.exit_code, downs) == (0, [False])
    assert f"stack {file.stem} is on a cluster that this does not stop" in result.stderr
