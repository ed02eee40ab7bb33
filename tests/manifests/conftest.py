"""A real API server that has what the platform's other objects need, for the tests of a process."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.apiserver import binary, start_apiserver
from tests.manifests import program
from tests.manifests.program import FIRST, Kubectl


@pytest.fixture(scope="package")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Tests leave there only what disturbs no other: most that they send is a dry run."""
    with start_apiserver(tmp_path_factory.mktemp("apiserver")) as path:
        yield path


@pytest.fixture(scope="package")
def kubectl(kubeconfig: Path) -> Kubectl:
    """Runs it with these objects as its file; what the local stack's objects need is there."""

    def run(*arguments: str, objects: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [binary("kubectl"), f"--kubeconfig={kubeconfig}", *arguments, "--filename=-"],
            input=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return done

    program.make(run, [*program.of_stack(program.LOCAL).all(*FIRST), *program.definitions()])
    return run
