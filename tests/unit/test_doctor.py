"""What the doctor finds on machines that lack something, and what it says then."""

from __future__ import annotations

import ast
import json
import os
import shutil
import socket
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import httpx
import psutil
import pytest
from rich.console import Console
from typer.testing import CliRunner

from slipway import cluster, doctor, images, paths, publish, pulumi, toolchain, up
from slipway.cli import app
from slipway.doctor import GIB, Finding
from slipway.endpoints import Cluster
from slipway.errors import BadInput, SlipwayError

Usage = namedtuple("Usage", "total used free")  # as psutil and shutil have them
Patch = pytest.MonkeyPatch
CONNECT = Cluster.connect


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: Patch) -> Path:
    """Root on Debian with room for everything, where all is built and nothing runs."""
    for variable in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setattr(cluster, "KUBERNETES", tmp_path / "etc")
    monkeypatch.setattr(cluster, "KUBELET", tmp_path / "kubelet")
    (tmp_path / "packages.txt").write_text(f"# what and where\nmade-up {tmp_path}/packages.txt\n")
    monkeypatch.setattr(doctor, "PACKAGES", tmp_path / "packages.txt")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(doctor, "on_debian", lambda: True)
    memory(monkeypatch, 16 * GIB)
    disk(monkeypatch, 100 * GIB)
    for name, found in {
        **{"running": {}, "orphans": [], "foreign_routes": []},
        **{"missing_modules": []},
    }.items():
        monkeypatch.setattr(cluster, name, lambda found=found: found)
    monkeypatch.setattr(doctor, "_is_taken", lambda _: False)
    monkeypatch.setattr(toolchain, "missing", lambda _=None: [])
    monkeypatch.setattr(images, "missing", list)
    monkeypatch.setattr(publish, "whole", lambda: "d4" * 20)
    return tmp_path


def memory(monkeypatch: Patch, total: int) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=total))


def disk(monkeypatch: Patch, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(free, 0, free))


def tool(name: str, seconds: int) -> SimpleNamespace:
    return SimpleNamespace(name=name, config=SimpleNamespace(seconds=seconds))


def only(findings: list[Finding], state: str) -> Finding:
    """The one finding that is not ok."""
    found = [f for f in findings if f.state != "ok"]
    assert [f.state for f in found] == [state], found
    return found[0]


def test_a_machine_that_lacks_nothing() -> None:
    findings = doctor.examine()
    assert {f.state for f in findings} == {"ok"}
    assert sum(f.seconds for f in findings) == 0
    assert {f.what for f in findings} == {
        *("system", "checkout", "disk", "memory", "kernel", "packages", "ports", "network"),
        *("Kubernetes", "toolchain", "images"),
    }


def not_root(monkeypatch: Patch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


def other_system(monkeypatch: Patch) -> None:
    monkeypatch.setattr(doctor, "on_debian", lambda: False)


def little_memory(monkeypatch: Patch) -> None:
    memory(monkeypatch, 4 * GIB)


def little_disk_to_build(monkeypatch: Patch) -> None:
    disk(monkeypatch, 24 * GIB)
    monkeypatch.setattr(toolchain, "missing", lambda _=None: [tool("etcd", 0)] * 20)
    monkeypatch.setattr(doctor, "_toolchain", lambda _: Finding("toolchain", "ok", ""))


def little_disk_to_run(monkeypatch: Patch) -> None:
    disk(monkeypatch, 9 * GIB)


def older_cluster(monkeypatch: Patch) -> None:
    monkeypatch.setattr(cluster, "version", lambda: "v1.33.1")


def foreign_node(monkeypatch: Patch) -> None:
    """As kubeadm leaves one."""
    cluster.KUBERNETES.mkdir()
    (cluster.KUBERNETES / "admin.conf").touch()


def route(monkeypatch: Patch) -> None:
    monkeypatch.setattr(cluster, "foreign_routes", lambda: ["10.244.0.0/16 dev office"])


def no_overlay(monkeypatch: Patch) -> None:
    monkeypatch.setattr(cluster, "missing_modules", lambda: ["overlay"])
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)


def archive(monkeypatch: Patch) -> None:
    monkeypatch.setenv("SLIPWAY_STACKS", str(paths.REPOSITORY / "environments"))
    monkeypatch.setattr(paths, "REPOSITORY", Path("/no/checkout"))


def shallow(monkeypatch: Patch) -> None:
    def whole() -> str:
        raise SlipwayError("this clone is shallow", fix="git fetch --unshallow")

    monkeypatch.setattr(publish, "whole", whole)


PINS = toolchain.FOLDER / "kubernetes" / "go.mod"
KUBERNETES = toolchain.tool("kubernetes").version
FAULTS = [
    (archive, "checkout", "/no/checkout is no git checkout", "git clone"),
    (shallow, "checkout", "this clone is shallow", "git fetch --unshallow"),
    (not_root, "system", "not root", "KUBECONFIG=… make up"),
    (other_system, "system", "neither Debian nor Ubuntu", "KUBECONFIG=… make up"),
    (older_cluster, "Kubernetes", f"with v1.33.1, {PINS} pins {KUBERNETES},", "make down ERASE=1"),
    (foreign_node, "Kubernetes", "that Slipway did not start", "KUBECONFIG=… make up"),
    (little_memory, "memory", "4.0 GiB, 6 needed", "a cluster that exists"),
    (little_disk_to_build, "disk", "24.0 GiB free", "slipway clean"),
    (little_disk_to_run, "disk", "9.0 GiB free", "slipway clean"),
    (no_overlay, "kernel", "no overlay, loaded or to be loaded", "KUBECONFIG=… make up"),
    (route, "network", "10.244.0.0/24 is in use: 10.244.0.0/16 dev office", "pod_subnet"),
]


@pytest.mark.parametrize(
    ("fault", "what", "detail", "fix"), FAULTS, ids=[fault.__name__ for fault, *_ in FAULTS]
)
def test_what_stops_make_up(
    monkeypatch: Patch, fault: Callable[[Patch], None], what: str, detail: str, fix: str
) -> None:
    fault(monkeypatch)
    found = only(doctor.examine(), "failed")
    assert found.what == what
    assert detail in found.detail
    assert fix in found.fix

    # `make up` stops there, before it changes anything.
    with pytest.raises(BadInput, match="fix: "):
        up.examine(Console(quiet=True), embedded=True)


def test_a_module_that_can_be_loaded_stops_nothing(monkeypatch: Patch) -> None:
    no_overlay(monkeypatch)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: "/usr/bin/true")
    found = {f.what: f for f in doctor.examine()}["kernel"]
    assert (found.state, found.detail) == ("ok", "overlay can be loaded")


def test_a_port_that_is_taken(monkeypatch: Patch) -> None:
    monkeypatch.undo()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert doctor._is_taken(port)
    assert not doctor._is_taken(port)


def test_taken_ports_are_named(monkeypatch: Patch) -> None:
    taken = {cluster.registry_port(), 2379}
    monkeypatch.setattr(doctor, "_is_taken", lambda port: port in taken)
    found = [f for f in doctor.examine() if f.state == "failed"]
    assert [f.detail for f in found] == ["5000 (registry) is taken", "2379 (etcd) is taken"]
    assert found[0].fix == "see `ss -ltnp sport = 5000`"


def test_a_console_s_port_that_is_taken_is_named(monkeypatch: Patch) -> None:
    """Whoever listens there would be heard no more, as rules of the kernel come first."""
    monkeypatch.setattr(doctor, "_is_taken", lambda port: port == 30500)
    assert only(doctor.examine(), "failed").detail == "30500 (console of mlflow) is taken"


@pytest.mark.parametrize(
    ("built", "embedded", "tools", "needed"),
    [
        (False, True, 20, 25),
        (False, True, 1, 14),
        (False, True, 0, 10),
        (True, True, 1, 7),
        (True, True, 0, 3),
        (False, False, 2, 11),
    ],
)
@pytest.mark.usefixtures("elsewhere")
def test_disk_is_asked_for_by_what_is_to_be_built(
    monkeypatch: Patch, built: bool, embedded: bool, tools: int, needed: int
) -> None:
    if built:
        paths.write(paths.images_file(), b"{}")
    monkeypatch.setattr(toolchain, "missing", lambda _=None: [tool("etcd", 0)] * tools)
    for free, state in ((needed * GIB, "ok"), (needed * GIB - 1, "failed")):
        disk(monkeypatch, free)
        found = {f.what: f for f in doctor.examine(embedded=embedded)}["disk"]
        assert (found.state, f", {needed} needed" in found.detail) == (state, True)


@pytest.mark.parametrize("of", ["running", "orphans"])
def test_ports_that_slipway_itself_holds_are_fine(monkeypatch: Patch, of: str) -> None:
    """Those of a platform that runs, and those that a crash left, which `make up` clears away."""
    monkeypatch.setattr(doctor, "_is_taken", lambda _: True)
    monkeypatch.setattr(cluster, of, lambda: {"kubelet": True})
    assert {f.state for f in doctor.examine()} == {"ok"}


def test_what_make_up_will_do_and_how_long_it_takes(monkeypatch: Patch) -> None:
    with doctor.PACKAGES.open("a") as file:
        file.write("other-package /no/such/file\n")
    monkeypatch.setattr(toolchain, "missing", lambda _=None: [tool("kubernetes", 360)])
    monkeypatch.setattr(images, "missing", lambda: ["base"])
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    todo = {f.what: f for f in doctor.examine() if f.state == "todo"}
    assert todo["packages"].detail == "apt-get install other-package"
    assert (todo["toolchain"].detail, todo["toolchain"].seconds) == ("kubernetes", 360)
    assert todo["images"].detail == "base"
    with (console := Console(width=100)).capture() as shown:
        doctor.show(list(todo.values()), console)
    assert "apt-get install other-package" in shown.get()
    assert "about 7 min" in shown.get()


@pytest.mark.usefixtures("elsewhere")
def test_a_cluster_that_exists_needs_neither_root_nor_debian_nor_much(monkeypatch: Patch) -> None:
    for fault in (not_root, other_system, little_memory, route):
        fault(monkeypatch)
    monkeypatch.setattr(doctor, "_is_taken", lambda _: True)
    asked: list[object] = []
    monkeypatch.setattr(toolchain, "missing", lambda names=None: asked.append(names) or [])
    findings = doctor.examine(embedded=False)
    assert {f.what: f.state for f in findings} == dict.fromkeys(
        ("system", "checkout", "disk", "cluster", "images", "toolchain"), "ok"
    )
    assert asked == [pulumi.TOOLS]


@pytest.fixture
def elsewhere(monkeypatch: Patch, machine: Path) -> dict[str, str]:
    """A cluster that exists, and the images that the stack file names."""
    named = dict.fromkeys(images.own(), "registry/image@sha256:0")
    monkeypatch.setattr(pulumi, "named_images", lambda _: named)
    api = httpx.MockTransport(lambda _: httpx.Response(200, json={"gitVersion": "v1.34.2"}))
    client = httpx.Client(base_url="https://api", transport=api)
    monkeypatch.setattr(Cluster, "connect", lambda: Cluster(client, embedded=False))
    return named


@pytest.mark.usefixtures("elsewhere")
def test_a_cluster_that_exists_says_its_version(monkeypatch: Patch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/some/where")
    found = {f.what: f for f in doctor.examine(embedded=False)}["cluster"]
    assert found.detail == "/some/where: v1.34.2"


@pytest.mark.usefixtures("elsewhere")
def test_a_cluster_where_nobody_measures_pods_says_what_then_does_not_work(
    monkeypatch: Patch,
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        status = 404 if request.url.path == doctor.METRICS else 200
        return httpx.Response(status, json={"gitVersion": "v1.34.2"})

    client = httpx.Client(base_url="https://api", transport=httpx.MockTransport(answer))
    monkeypatch.setattr(Cluster, "connect", lambda: Cluster(client, embedded=False))
    found = {f.what: f for f in doctor.examine(embedded=False)}["cluster"]
    assert found.state == "ok"
    assert found.detail.endswith(
        "v1.34.2, without metrics-server: no replicas there follow the CPU"
    )


def test_an_image_that_no_registry_has_is_missed_before_anything_is_compiled(
    elsewhere: dict[str, str],
) -> None:
    del elsewhere["serving"], elsewhere["training"]
    found = only(doctor.examine(embedded=False), "failed")
    assert found.what == "images"
    assert "only Slipway has serving, training, and environments/Pulumi.local.yaml" in found.detail
    assert "slipway push REGISTRY" in found.fix


@pytest.mark.usefixtures("elsewhere")
def test_a_cluster_that_has_a_prod_already(monkeypatch: Patch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/some/where")
    answers = {
        "/api/v1": {"resources": [{"kind": "Namespace", "name": "namespaces"}]},
        "/api/v1/namespaces/prod": {"metadata": {"uid": "theirs"}},
    }
    api = httpx.MockTransport(lambda r: httpx.Response(200, json=answers.get(r.url.path, {})))
    client = httpx.Client(base_url="https://api", transport=api)
    monkeypatch.setattr(Cluster, "connect", lambda: Cluster(client, embedded=False))
    found = only(doctor.examine(embedded=False), "failed")
    assert found.what == "cluster"
    assert "/some/where: its cluster has Namespace prod, which" in found.detail
    assert "take another cluster" in found.fix


@pytest.mark.parametrize(
    ("value", "said", "fix"),
    [
        ("/no/such/file", "no cluster: /no/such/file does not exist", "KUBECONFIG names"),
        ("/a/config:/b/config", "KUBECONFIG: several files: /a/config:/b/config", "`kubectl"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used(
    elsewhere: dict[str, str], monkeypatch: Patch, value: str, said: str, fix: str
) -> None:
    monkeypatch.setattr(Cluster, "connect", CONNECT)
    monkeypatch.setenv("KUBECONFIG", value)
    found = only(doctor.examine(embedded=False), "failed")
    assert (found.what, found.detail) == ("cluster", said)
    assert found.fix.startswith(fix)


def test_the_packages_of_this_repository_are_well_formed(monkeypatch: Patch) -> None:
    lines = (paths.REPOSITORY / "toolchain" / "packages.txt").read_text().splitlines()
    entries = [line.split() for line in lines if not line.startswith("#")]
    assert all(len(entry) == 2 and entry[1].startswith("/") for entry in entries)


def programs(source: str) -> set[str]:
    """What a module starts by name: `run(["ip", …])`, `run("ip", …)`, `command = ["ip", …]`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        first: ast.expr | None = None
        if isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func
            name = called if isinstance(called, str) else getattr(called, "id", "")
            first = node.args[0] if name in ("run", "Popen", "_run", "_output") else None
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            first = node.value if node.targets[0].id in ("command", "mount") else None
        if isinstance(first, ast.List | ast.Tuple) and first.elts:
            first = first.elts[0]
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            found.add(first.value)
    return found


def test_what_images_and_cluster_start_is_installed() -> None:
    """On a machine with nothing, whatever the one that this was written on has."""
    lines = (paths.REPOSITORY / "toolchain" / "packages.txt").read_text().splitlines()
    installed = {Path(line.split()[1]).name for line in lines if not line.startswith("#")}
    # Of the packages mount and util-linux; in the image that is built; the kernel's own.
    besides = {"umount", "setpriv", "./prepare", "modprobe"}
    started = {p for m in (images, cluster) for p in programs(Path(str(m.__file__)).read_text())}
    assert {"buildah", "skopeo", "ip"} <= started
    assert started <= installed | besides


# --- the command ------------------------------------------------------------------------------


def test_a_fine_machine_is_exit_code_0() -> None:
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0
    assert "✓" in result.stderr
    assert "to do" not in result.stderr


@pytest.mark.parametrize("arguments", [["doctor"], ["doctor", "-o", "json"]])
def test_a_fault_is_exit_code_1(monkeypatch: Patch, arguments: list[str]) -> None:
    little_memory(monkeypatch)
    assert CliRunner().invoke(app, arguments).exit_code == 1


def test_what_is_to_do_is_no_fault(monkeypatch: Patch) -> None:
    monkeypatch.setattr(toolchain, "missing", lambda _=None: [tool("etcd", 30)])
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0
    assert "about 1 min" in result.stderr


def test_as_data(monkeypatch: Patch) -> None:
    route(monkeypatch)
    findings = json.loads(CliRunner().invoke(app, ["doctor", "-o", "json"]).stdout)
    assert all(set(f) == {"what", "state", "detail", "fix", "seconds"} for f in findings)
    network = next(f for f in findings if f["what"] == "network")
    assert network["state"] == "failed"
    assert "pod_subnet" in network["fix"]


def test_a_bad_stack_file_is_exit_code_2(monkeypatch: Patch, machine: Path) -> None:
    monkeypatch.setattr(paths, "REPOSITORY", machine)
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 2
    assert "no such stack: local" in result.stderr
