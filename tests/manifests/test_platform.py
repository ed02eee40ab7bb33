"""Every object of the platform as a real API server takes it: its schemas, its Pod Security."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.apiserver import binary, start_apiserver
from tests.manifests import program

pytestmark = pytest.mark.apiserver
FIRST = ("CustomResourceDefinition", "Namespace", "PriorityClass")


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Iterable[Callable[..., Any]]:
    folder = tmp_path_factory.mktemp("apiserver")
    with start_apiserver(folder) as kubeconfig:

        def run(*arguments: str, objects: list[dict[str, Any]]) -> str:
            done = subprocess.run(
                [binary("kubectl"), "--kubeconfig", kubeconfig, *arguments, "--filename=-"],
                input=yaml.safe_dump_all(objects),
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr
            return done.stderr

        yield run


def stack_files() -> list[Path]:
    return sorted(program.ROOT.glob("environments/Pulumi.*.yaml"))


@pytest.mark.parametrize("stack", stack_files(), ids=lambda f: f.stem)
def test_the_api_server_takes_every_object(stack: Path, kubectl: Callable[..., str]) -> None:
    registered = program.run(program.settings(stack))
    first = registered.all(*FIRST)
    rest = [m for m in registered.manifests if m not in first]
    apply = ("apply", "--server-side", "--force-conflicts")
    kubectl(*apply, objects=first)
    kubectl(
        "wait",
        "--for=condition=Established",
        "--timeout=60s",
        objects=registered.all("CustomResourceDefinition"),
    )
    warnings = kubectl(*apply, "--dry-run=server", "--validate=strict", objects=rest)
    # The namespaces' labels make the API server say what would be refused, and what is deprecated.
    assert "Warning" not in warnings, warnings
