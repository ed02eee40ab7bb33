"""The Pulumi program as a platform engineer works with it, on the running cluster."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from slipway import cluster, paths
from slipway.endpoints import Cluster

from .conftest import SETTINGS


def test_nothing_changed_is_no_diff(slipway: Callable[..., str]) -> None:
    output = slipway("pulumi", "preview", "--non-interactive", "--expect-no-changes")
    assert re.search(r"\d+ unchanged", output)


def test_drift_is_repaired(slipway: Callable[..., str]) -> None:
    """A hand edit, a deleted object; nobody else's objects are touched."""
    replicas = ("-n", "mlflow", "get", "deployment", "mlflow", "-o", "jsonpath={.spec.replicas}")
    cluster.kubectl("-n", "mlflow", "scale", "deployment/mlflow", "--replicas=0")
    cluster.kubectl("-n", "mlflow", "delete", "service", "mlflow")
    cluster.kubectl("-n", "mlflow", "create", "configmap", "somebody-else-s")
    slipway("pulumi", "refresh", *SETTINGS)
    assert cluster.kubectl(*replicas) == "0"
    slipway("pulumi", "up", *SETTINGS)
    assert cluster.kubectl(*replicas) == "1"
    cluster.kubectl("-n", "mlflow", "get", "service", "mlflow")
    cluster.kubectl("-n", "mlflow", "delete", "configmap", "somebody-else-s")
    slipway("pulumi", "preview", "--non-interactive", "--expect-no-changes")


def generated(value: str) -> list[str]:
    """Parts of a Secret's value that only chance makes; names and addresses are none."""
    runs = re.findall(r"[A-Za-z0-9_-]{16,}", value)
    return [run for run in runs if re.search("[a-z]", run) and re.search("[A-Z]", run)]


def test_no_secret_is_in_the_state_or_a_log(slipway: Callable[..., str], platform: Cluster) -> None:
    """Every generated secret, looked for as text and as Kubernetes encodes it."""
    wanted: dict[str, str] = {}
    for found in platform.items("/api/v1/secrets"):
        where = f"{found['metadata']['namespace']}/{found['metadata']['name']}"
        if where.startswith("kube-") or found["type"].endswith("account-token"):
            continue
        for key, encoded in (found.get("data") or {}).items():
            if not key.endswith(".crt"):
                parts = generated(base64.b64decode(encoded).decode(errors="replace"))
                wanted |= dict.fromkeys([*parts, *([encoded] if parts else [])], f"{where} {key}")
    names = {name.split()[0] for name in wanted.values()}
    # By whom it was found last, where two have the same.
    assert {"forge/gitea-admin", "storage/minio-buckets", "pipelines/evidence-key"} <= names
    exported = slipway("pulumi", "stack", "export")
    assert json.loads(exported)["deployment"]["resources"]
    places = [*(paths.state() / "logs").rglob("*.log"), *(paths.state() / "logs").rglob("*.txt")]
    texts = {"stack export": exported} | {str(f): f.read_text(errors="replace") for f in places}
    for place, text in texts.items():
        shown = {name for secret, name in wanted.items() if secret in text}
        assert not shown, f"{shown} in {place}"


def test_a_wrong_key_names_the_file_the_key_and_the_fix(
    slipway: Callable[..., str], tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", paths.REPOSITORY, clone], check=True)
    (clone / ".venv").symlink_to(paths.REPOSITORY / ".venv")
    stack = clone / "environments" / "Pulumi.local.yaml"
    stack.write_text(stack.read_text().replace("slipway:nodePorts", "slipway:nodePort"))
    program = "import sys; sys.path[0] = '.'; from slipway.cli import app; app()"
    done = subprocess.run(
        [clone / ".venv/bin/python", "-c", program, "pulumi", "preview", "--non-interactive"],
        cwd=clone,
        capture_output=True,
        text=True,
    )
    said = done.stdout + done.stderr
    assert done.returncode
    assert "environments/Pulumi.local.yaml" in said
    assert "did you mean 'nodePorts'" in said
