"""A key of several lines goes from a file into the stack file, as docs/forge.md has it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra import config
from slipway import paths, pulumi, toolchain
from tests import tls
from tests.manifests import program

NAME = "forge_on_github_by_an_app"


@pytest.mark.slow
def test_an_apps_key_is_encrypted_where_the_stack_is(tmp_path: Path) -> None:
    if toolchain.missing(pulumi.TOOLS):
        pytest.skip("the engine is not built: run `make up`")
    pem, stacks = tls.rsa_key(), tmp_path / "stacks"
    stacks.mkdir()
    (tmp_path / "key.pem").write_text(pem)
    valid = paths.REPOSITORY / "tests" / "unit" / "infra" / "valid" / f"{NAME}.yaml"
    lines = valid.read_text().splitlines(keepends=True)
    file = stacks / "Pulumi.local.yaml"
    file.write_text("".join(line for line in lines if "forgeAppKey" not in line))
    places = {"XDG_DATA_HOME": str(tmp_path / "data"), "SLIPWAY_STACKS": str(stacks)}

    def slipway(*arguments: str) -> str:
        with (tmp_path / "key.pem").open() as key:
            done = subprocess.run(
                [sys.executable, "-m", "slipway.cli", "pulumi", "config", *arguments],
                cwd=paths.REPOSITORY,
                env=os.environ | places,
                stdin=key,
                capture_output=True,
                text=True,
            )
        assert done.returncode == 0, done.stderr
        return done.stdout

    slipway("set", "--secret", "forgeAppKey")
    text = file.read_text()
    assert "PRIVATE KEY" not in text
    assert pem.splitlines()[1] not in text
    assert config.load(program.settings(file), "local").forgeAppKey
    assert slipway("get", "forgeAppKey").strip() == pem.strip()
