"""Every object of the platform as a real API server takes it: its schemas, its Pod Security."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.manifests import program
from tests.manifests.program import FIRST, Kubectl

pytestmark = pytest.mark.apiserver


def stack_files() -> list[Path]:
    """Those of this repository, and what none of them is on AWS."""
    valid = program.ROOT / "tests" / "unit" / "infra" / "valid"
    others = [valid / f"{name}.yaml" for name in ("eks_own_stores", "forge_gitea_inside")]
    return [*sorted(program.ROOT.glob("environments/Pulumi.*.yaml")), *others]


@pytest.mark.parametrize("stack", stack_files(), ids=lambda f: f.stem)
def test_the_api_server_takes_every_object(stack: Path, kubectl: Kubectl) -> None:
    registered = program.of_stack(stack)
    there = {_id(m) for m in program.of_stack(program.LOCAL).all(*FIRST)}
    if missing := [m for m in registered.all(*FIRST) if _id(m) not in there]:
        program.make(kubectl, missing)
    objects = [m for m in registered.manifests if m["kind"] not in FIRST]
    dry_run = ("--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict")
    done = kubectl("apply", *dry_run, objects=objects)
    # The namespaces' labels make the API server say what would be refused, and what is deprecated.
    assert "Warning" not in done.stderr


def _id(manifest: dict[str, Any]) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]
