"""`slipway new`: what it writes works as it is, and nothing is overwritten."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from slipway import bento, paths, scaffold
from slipway.errors import BadInput


@pytest.mark.parametrize("template", scaffold.templates())
def test_the_folder_is_a_bento(tmp_path: Path, template: str) -> None:
    written = scaffold.create("second_model", template, bentos=tmp_path)
    folder = bento.load(tmp_path / "second_model")
    assert folder.config.name == "second_model"
    assert folder.config.service == "service:SecondModel"
    assert {str(path.relative_to(folder.path)) for path in written} >= set(bento.REQUIRED)


def test_a_name_may_have_digits(tmp_path: Path) -> None:
    scaffold.create("churn_v2", "classifier", bentos=tmp_path)
    assert bento.load(tmp_path / "churn_v2").config.service == "service:ChurnV2"


@pytest.mark.parametrize("template", scaffold.templates())
def test_what_is_written_is_linted(tmp_path: Path, template: str) -> None:
    scaffold.create("second_model", template, bentos=tmp_path)
    repository = str(paths.REPOSITORY)
    config = [f"--config={repository}/pyproject.toml", f"--config=src=['{repository}']"]
    # The exceptions that the configuration makes are for paths in the repository.
    for check in (["check", "--per-file-ignores", "**/tests/**:S"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *check, "--no-cache", *config, "."]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("template", scaffold.templates())
def test_its_own_tests_pass(tmp_path: Path, template: str) -> None:
    scaffold.create("second_model", template, bentos=tmp_path)
    config = f"--config-file={paths.REPOSITORY / 'pyproject.toml'}"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", config]
    done = subprocess.run(
        [*command, "--rootdir", str(tmp_path), str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(BadInput, match="exists already"):
        scaffold.create("mine", "classifier", bentos=tmp_path)
    assert list((tmp_path / "mine").iterdir()) == []


@pytest.mark.parametrize(
    ("model", "template", "said"),
    [
        ("My-Model", "classifier", "a model's name is"),
        ("../up", "classifier", "a model's name is"),
        ("serving", "classifier", "reserved"),
        ("envelope", "classifier", "reserved"),
        ("mine", "clasifier", "did you mean 'classifier'"),
    ],
)
def test_bad_input_writes_nothing(tmp_path: Path, model: str, template: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        scaffold.create(model, template, bentos=tmp_path)
    assert list(tmp_path.iterdir()) == []
