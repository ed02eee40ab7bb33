"""Runs the real Pulumi program against mocks and keeps what it registered."""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import json
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pulumi
import pytest
import yaml
from pulumi.runtime.mocks import MockMonitor
from pulumi.runtime.rpc import is_rpc_secret, unwrap_rpc_secret
from pulumi.runtime.settings import SETTINGS
from pulumi.runtime.stack import run_pulumi_func

from slipway import toolchain
from slipway.errors import SlipwayError
from tests.unit.aws import mocks

FILES = toolchain.files
ROOT = Path(__file__).parents[2]
LOCAL = ROOT / "environments" / "Pulumi.local.yaml"
EXECUTOR = ROOT / "toolchain" / "pulumi-language-python" / "bin" / "pulumi-language-python-exec"
# As a stack runs with it; besides, the SDK's own takes seconds for the stacks on AWS.
contains_unknowns = runpy.run_path(str(EXECUTOR))["contains_unknowns"]
# What other objects need to be there.
FIRST = ("CustomResourceDefinition", "Namespace", "PriorityClass")
# What a cluster has by itself, and the program only reads: by type and name.
THERE = {
    ("kubernetes:discovery.k8s.io/v1:EndpointSlice", "default/kubernetes"): {
        "endpoints": [{"addresses": ["10.244.0.1"]}],
        "ports": [{"port": 6443}],
    },
    ("kubernetes:core/v1:Service", "default/kubernetes"): {
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 443}]},
    },
}
Kubectl = Callable[..., "subprocess.CompletedProcess[str]"]
NAMES = yaml.safe_load((ROOT / "toolchain" / "images.yaml").read_text())
IMAGES = {
    name: f"localhost:5000/slipway/{name}@sha256:{hashlib.sha256(name.encode()).hexdigest()}"
    for name in NAMES
}


def read_yaml(file: Path) -> Any:
    return yaml.safe_load(file.read_text())


def password(name: str, length: int) -> str:
    """What the mock of a RandomPassword gives."""
    return (hashlib.sha256(name.encode()).hexdigest() * 2)[:length]


def settings(file: Path) -> dict[str, str]:
    """A stack file's configuration as Pulumi hands it to the program: strings, objects as JSON."""
    config = yaml.safe_load(file.read_text())["config"]
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in config.items()}


@dataclass(frozen=True)
class Registered:
    """A resource as the engine sees it; `secret`: the inputs that are encrypted in the state."""

    token: str
    name: str
    inputs: dict[str, Any]
    secret: frozenset[str]


@dataclass
class Program(pulumi.runtime.Mocks):
    resources: list[Registered] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)
    requests: list[tuple[str, Any]] = field(default_factory=list)
    """What the engine is asked to register, by URN, with all that a resource hangs on."""
    states: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What it answers, by URN."""

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        if there := THERE.get((args.typ, args.resource_id or "")):
            return args.resource_id or "", there
        secret = frozenset(key for key, value in args.inputs.items() if is_rpc_secret(value))
        inputs = {key: unwrap_rpc_secret(value) for key, value in args.inputs.items()}
        self.resources.append(Registered(args.typ, args.name, inputs, secret))
        outputs = dict(inputs)
        if args.typ.endswith(":RandomPassword"):
            outputs["result"] = password(args.name, int(args.inputs["length"]))
        if args.typ.endswith(":SigningKey"):
            outputs |= {"private": password(args.name, 64), "public": "a public key"}
        if args.typ.endswith(":ServingCertificate"):
            outputs |= {"certificate": "a certificate", "key": password(args.name, 64)}
        return f"{args.name}-id", outputs | mocks.outputs(args.typ, args.name, inputs)

    def call(self, args: pulumi.runtime.MockCallArgs) -> dict[str, Any]:
        answer = mocks.call(args.token, dict(args.args))
        if answer is None:
            raise AssertionError(f"the program calls {args.token}: no machine has that plugin")
        return answer

    @property
    def manifests(self) -> list[dict[str, Any]]:
        """The Kubernetes objects, in the order of registration."""
        return [r.inputs for r in self.resources if "apiVersion" in r.inputs]

    def all(self, *kinds: str) -> list[dict[str, Any]]:
        return [m for m in self.manifests if m["kind"] in kinds]

    def one(self, kind: str, name: str, namespace: str | None = None) -> dict[str, Any]:
        [found] = [
            m
            for m in self.all(kind)
            if m["metadata"]["name"] == name and namespace in (None, m["metadata"].get("namespace"))
        ]
        return found

    def pods(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Namespace, name and pod specification of every workload."""
        for manifest in self.all("Deployment", "StatefulSet", "Job"):
            where = manifest["metadata"]
            yield where["namespace"], where["name"], manifest["spec"]["template"]["spec"]


def make(kubectl: Kubectl, objects: list[dict[str, Any]]) -> None:
    """Applies objects of FIRST, so that others can be."""
    kubectl("apply", "--server-side", "--force-conflicts", objects=objects)
    if definitions := [m for m in objects if m["kind"] == "CustomResourceDefinition"]:
        kubectl("wait", "--for=condition=Established", "--timeout=60s", objects=definitions)


def definitions() -> list[dict[str, Any]]:
    """Of kinds that only some clusters have, for what we make there: by the modules of whoever
    defines them."""
    return [
        read_yaml(file)
        for name, tool in toolchain.tools().items()
        if tool.builder == "make check"
        for file in sorted(_files(name).rglob("*.yaml"))
    ]


def containers(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def decoded(secret: Mapping[str, Any]) -> dict[str, str]:
    return {k: base64.b64decode(v).decode() for k, v in secret["data"].items()}


@functools.cache
def of_stack(file: Path) -> Program:
    """What a stack file's platform is; read by many tests, so not to be changed."""
    return run(settings(file), file.stem.removeprefix("Pulumi.").replace("_", "-"))


def run(
    config: Mapping[str, str], stack: str = "local", *, encrypted: Sequence[str] = ()
) -> Program:
    """Runs infra/ as Pulumi does, with images that stand for built ones.

    Args:
        encrypted: keys whose values the engine has decrypted.
    """
    program = Program()
    asyncio.set_event_loop(asyncio.new_event_loop())
    pulumi.runtime.set_mocks(program, project="slipway", stack=stack, preview=False)
    pulumi.runtime.set_all_config(dict(config), list(encrypted))
    # Pulumi keeps what failed in the same process before, and raises it again.
    SETTINGS.rpc_manager.clear()
    SETTINGS.outputs.clear()
    path = list(sys.path)

    def exported(name: str, value: Any) -> None:
        pulumi.Output.from_input(value).apply(lambda v: program.outputs.__setitem__(name, v))

    register = MockMonitor.RegisterResource

    def recorded(monitor: MockMonitor, request: Any) -> Any:
        answer = register(monitor, request)
        if answer.urn in monitor.resources:  # all but the stack itself
            program.requests.append((answer.urn, request))
            program.states[answer.urn] = monitor.resources[answer.urn].state
        return answer

    def main() -> None:
        with (
            mock.patch("slipway.images.references", _references),
            mock.patch("slipway.toolchain.files", _files),
            mock.patch("pulumi.export", exported),
        ):
            runpy.run_path(str(ROOT / "infra"), run_name="__main__")

    try:
        with (
            mock.patch.object(MockMonitor, "RegisterResource", recorded),
            mock.patch("pulumi.runtime.rpc.contains_unknowns", contains_unknowns),
        ):
            asyncio.get_event_loop().run_until_complete(run_pulumi_func(main))
    finally:
        sys.path[:] = path
    return program


def _files(tool: str) -> Path:
    try:
        return FILES(tool)
    except SlipwayError as error:
        pytest.skip(str(error))


def _references(embedded: bool) -> dict[str, str]:
    return IMAGES if embedded else {k: v for k, v in NAMES.items() if v}


if __name__ == "__main__":
    # As `pulumi preview` would: `python -m tests.manifests.program STACK` says what it registered.
    found = of_stack(ROOT / "environments" / f"Pulumi.{sys.argv[1]}.yaml")
    print(f"{len(found.requests)} resources")
