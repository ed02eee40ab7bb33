"""Streams out of and into the platform's pods, each compared at both ends."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from slipway import endpoints, toolchain
from slipway.backup.place import pass_on
from slipway.endpoints import Cluster, part, parts
from slipway.errors import SlipwayError

# Both end with the digest of what passed, on standard error. Only what the shell itself has opened
# may a container's user open once more by its number.
_OUT = "set -euo pipefail; exec 4>&1; {{ {0}; }} | tee /dev/fd/3 3>&1 >&4 | sha256sum >&2"
_IN = "set -euo pipefail; {{ tee /dev/fd/3 | {{ {0}; }} >&4; }} 3>&1 4>&2 | sha256sum >&2"


@dataclass(frozen=True)
class Pod:
    """A container that commands can be run in; it has bash, tee and sha256sum."""

    stack: str
    namespace: str
    name: str
    container: str

    @classmethod
    def of(cls, cluster: Cluster, stack: str, namespace: str, component: str) -> Pod:
        """The one that runs a component.

        Raises:
            SlipwayError: none does.
        """
        selector = f"app.kubernetes.io/name={component}"
        for pod in cluster.items(f"/api/v1/namespaces/{namespace}/pods", labelSelector=selector):
            if part(pod, "status", "phase") == "Running":
                return cls(stack, namespace, pod["metadata"]["name"], component)
        raise SlipwayError(
            f"no pod of {component} runs in {namespace}",
            fix=f"kubectl -n {namespace} get pods,events",
        )

    def say(self, script: str) -> str:
        """What a script prints.

        Raises:
            SlipwayError: it fails.
        """
        done = subprocess.run(self._command(script), capture_output=True, text=True)
        if done.returncode:
            raise self._failed(done.stderr)
        return done.stdout

    def read(self, script: str, target: Path) -> None:
        """Writes what a script prints to a file.

        Raises:
            SlipwayError: it fails, or what came is not what was sent.
        """
        command = self._command(_OUT.format(script))
        with target.open("wb") as file, tempfile.TemporaryFile() as said:
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said) as process:
                assert process.stdout  # noqa: S101  # a pipe was asked for
                digest, _ = pass_on(process.stdout, file)
            self._check(process.returncode, said, digest)

    def write(self, script: str, source: Path) -> None:
        """Runs a script with a file as its input.

        Raises:
            SlipwayError: it fails, or what came is not what was sent.
        """
        command = self._command(_IN.format(script), "--stdin")
        with source.open("rb") as file, tempfile.TemporaryFile() as said:
            done = subprocess.run(command, stdin=file, stdout=subprocess.DEVNULL, stderr=said)
            file.seek(0)
            self._check(done.returncode, said, hashlib.file_digest(file, "sha256").hexdigest())

    def _command(self, script: str, *options: str) -> list[str]:
        where = ["--namespace", self.namespace, self.name, "--container", self.container]
        return [*kubectl(self.stack), "exec", *options, *where, "--", "bash", "-c", script]

    def _check(self, code: int, said: BinaryIO, digest: str) -> None:
        said.seek(0)
        text = said.read().decode(errors="replace")
        if code:
            raise self._failed(text)
        if not re.search(rf"^{digest}  -$", text, re.M):
            raise SlipwayError(
                f"{self.namespace}/{self.name}: what came is not what was sent",
                fix="the connection broke off: run it again",
            )

    def _failed(self, said: str) -> SlipwayError:
        lines = [line for line in said.splitlines() if not re.match(r"[0-9a-f]{64}  -$", line)]
        return SlipwayError(f"in pod {self.namespace}/{self.name}: {chr(10).join(lines[-10:])}")


def kubectl(stack: str) -> list[str]:
    """kubectl on a stack's cluster: Slipway's own, or where a machine has built none, its own.

    Raises:
        SlipwayError: there is neither.
    """
    try:
        program = str(toolchain.binary("kubectl"))
    except SlipwayError:
        program = shutil.which("kubectl") or ""
        if not program:
            raise
    return [program, f"--kubeconfig={endpoints.kubeconfig(stack)}"]


@contextmanager
def stand_in(
    cluster: Cluster, stack: str, namespace: str, deployment: str, seconds: float = 180
) -> Generator[Pod]:
    """A pod with the volumes of a Deployment that is stopped, that does nothing by itself.

    Raises:
        SlipwayError: it does not start.
    """
    found = cluster.find(f"/apis/apps/v1/namespaces/{namespace}/deployments/{deployment}") or {}
    name, where = f"{deployment}-restore", f"/api/v1/namespaces/{namespace}/pods"
    cluster.delete(f"{where}/{name}", gracePeriodSeconds="1")
    deadline = time.monotonic() + seconds
    while cluster.find(f"{where}/{name}"):
        _not_after(deadline, f"pod {namespace}/{name} does not go")
    cluster.create(where, idle(found["spec"]["template"], name, deployment))
    try:
        while part(cluster.find(f"{where}/{name}"), "status", "phase") != "Running":
            _not_after(deadline, f"pod {namespace}/{name} does not start")
        yield Pod(stack, namespace, name, deployment)
    finally:
        cluster.delete(f"{where}/{name}", gracePeriodSeconds="1")


def _not_after(deadline: float, problem: str) -> None:
    if time.monotonic() > deadline:
        raise SlipwayError(problem, fix="kubectl get pods,events --all-namespaces")
    time.sleep(0.2)


def idle(template: Any, name: str, container: str) -> dict[str, Any]:
    """The pod of a template, but that its container only waits; no service leads to it."""
    spec: dict[str, Any] = json.loads(json.dumps(template["spec"]))
    main = next(c for c in parts(spec, "containers") if c["name"] == container)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe", "ports"):
        main.pop(probe, None)
    # As the first process of its container it is told of nothing but KILL.
    main |= {"command": ["sleep", "86400"], "args": []}
    spec |= {"containers": [main], "initContainers": [], "restartPolicy": "Never"}
    labels = {"app.kubernetes.io/part-of": "slipway"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
    }
