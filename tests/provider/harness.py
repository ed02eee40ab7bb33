"""What the provider's tests speak with: the cluster, the provider, the engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import grpc
from standin import values
from standin.api import Cluster
from standin.protocol import provider_pb2, status_pb2

OPERATION_TIMEOUT_S = 120


class Objects:
    """What a test does to the cluster behind the provider's back."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace

    def _path(self, api_version: str, kind: str, name: str) -> str:
        return self.cluster.path(api_version, kind, self.namespace, name)

    def get(self, api_version: str, kind: str, name: str) -> Any:
        return self.cluster.get(api_version, kind, self.namespace, name)

    def create(self, obj: Any) -> Any:
        path = self._path(obj["apiVersion"], obj["kind"], "")
        return self.cluster.request("POST", path, body=obj)

    def patch(self, api_version: str, kind: str, name: str, patch: Any, sub: str = "") -> Any:
        path = self._path(api_version, kind, name) + sub
        query = {"fieldManager": "somebody-else"}
        return self.cluster.request("PATCH", path, query, patch, "application/merge-patch+json")

    def status(self, api_version: str, kind: str, name: str, status: Any) -> Any:
        return self.patch(api_version, kind, name, {"status": status}, "/status")

    def delete(self, api_version: str, kind: str, name: str) -> Any:
        return self.cluster.request("DELETE", self._path(api_version, kind, name))


class Failed(Exception):
    """The provider's error: `message`, and what it kept of a resource that is not ready."""

    def __init__(self, error: grpc.RpcError) -> None:
        self.message = error.details()  # pyright: ignore
        super().__init__(self.message)
        self.partial: Any = None
        trailing = dict(error.trailing_metadata())  # pyright: ignore
        if "grpc-status-details-bin" in trailing:
            status: Any = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
            self.partial = provider_pb2.ErrorResourceInitFailed.FromString(status.details[0].value)


class Client:
    """The provider over gRPC, its messages as Python values."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub

    def call(self, method: str, request: Any) -> Any:
        try:
            return getattr(self._stub, method)(request, timeout=OPERATION_TIMEOUT_S)
        except grpc.RpcError as error:
            raise Failed(error) from None

    @staticmethod
    def urn(obj: Any, name: str = "r") -> str:
        version = obj["apiVersion"] if "/" in obj["apiVersion"] else f"core/{obj['apiVersion']}"
        return f"urn:pulumi:s::p::kubernetes:{version}:{obj['kind']}::{name}"

    def configure(self, **config: Any) -> None:
        self.call("Configure", provider_pb2.ConfigureRequest(args=values.encode(config)))

    def check(self, news: Any, olds: Any = None, urn: str = "") -> Any:
        request = provider_pb2.CheckRequest(
            urn=urn or self.urn(news),
            news=values.encode(news),
            olds=values.encode(olds or {}),
            randomSeed=os.urandom(8),
        )
        return values.decode(self.call("Check", request).inputs)

    def create(self, obj: Any, preview: bool = False, timeout: float = 0) -> tuple[str, Any]:
        request = provider_pb2.CreateRequest(
            urn=self.urn(obj), properties=values.encode(obj), preview=preview, timeout=timeout
        )
        response = self.call("Create", request)
        return response.id, values.decode(response.properties)

    def diff(self, obj: Any, state: Any, news: Any) -> Any:
        request = provider_pb2.DiffRequest(
            id="x",
            urn=self.urn(obj),
            olds=values.encode(state),
            old_inputs=values.encode(obj),
            news=values.encode(news),
        )
        return self.call("Diff", request)

    def update(self, obj: Any, state: Any, news: Any, **more: Any) -> Any:
        request = provider_pb2.UpdateRequest(
            id="x",
            urn=self.urn(obj),
            olds=values.encode(state),
            old_inputs=values.encode(obj),
            news=values.encode(news),
            **more,
        )
        return values.decode(self.call("Update", request).properties)

    def read(self, obj: Any, id: str, state: Any = None, inputs: Any = None) -> Any:
        request = provider_pb2.ReadRequest(
            id=id,
            urn=self.urn(obj),
            properties=values.encode(state or {}),
            inputs=values.encode(inputs or {}),
        )
        return self.call("Read", request)

    def delete(self, obj: Any, id: str, state: Any, timeout: float = 0) -> None:
        self.call(
            "Delete",
            provider_pb2.DeleteRequest(
                id=id, urn=self.urn(obj), properties=values.encode(state), timeout=timeout
            ),
        )


class Stack:
    """A Pulumi project of one program and its stack."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment
        (folder / "Pulumi.yaml").write_text(
            f"name: {folder.name}\n"
            f"runtime: {{name: python, options: {{virtualenv: {sys.prefix}}}}}\n"
        )
        self.pulumi("stack", "init", "test")

    def program(self, text: str) -> None:
        header = "import pulumi\nimport pulumi_kubernetes as k8s\n"
        (self.folder / "__main__.py").write_text(header + textwrap.dedent(text))

    def pulumi(self, *arguments: str, fails: bool = False) -> str:
        """What the command printed."""
        done = subprocess.run(
            ["pulumi", *arguments, "--non-interactive"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=OPERATION_TIMEOUT_S,
        )
        assert (done.returncode != 0) == fails, done.stdout
        return done.stdout

    def up(self, *more: str, fails: bool = False) -> str:
        return self.pulumi("up", "--yes", "--skip-preview", *more, fails=fails)

    def start_up(self) -> subprocess.Popen[bytes]:
        """An update in a process group of its own, to be killed."""
        return subprocess.Popen(
            ["pulumi", "up", "--yes", "--skip-preview", "--non-interactive"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @staticmethod
    def kill(process: subprocess.Popen[bytes]) -> None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def state(self) -> str:
        return self.pulumi("stack", "export")
