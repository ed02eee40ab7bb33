"""The workflows as Argo itself reads them: each reference to a template, input or output holds."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from slipway import paths
from tests.apiserver import binary

pytestmark = pytest.mark.apiserver
WORKFLOWS = paths.REPOSITORY / "workflows"


def lint(*files: Path) -> tuple[int, str]:
    command = [binary("argo"), "lint", "--offline", "--no-color", *files]
    environment = os.environ | {"KUBECONFIG": os.devnull}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return done.returncode, done.stdout + done.stderr


def test_argo_finds_no_fault() -> None:
    # One call: what one of them refers to, another has.
    status, said = lint(*sorted(WORKFLOWS.glob("*.yaml")))
    assert status == 0, said


def test_argo_would_have_found_one(tmp_path: Path) -> None:
    text = (WORKFLOWS / "promote.yaml").read_text()
    reference = "tasks.attest.outputs.parameters.evidence"
    assert reference in text
    wrong = tmp_path / "promote.yaml"
    wrong.write_text(text.replace(reference, "tasks.attest.outputs.parameters.proof"))
    status, said = lint(wrong)
    assert status != 0
    assert "proof" in said
