"""A real Kubernetes API server on etcd, for tests: no nodes, no workloads, its own folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import yaml

from slipway import toolchain
from slipway.errors import SlipwayError

TOKEN = "test"
START_TIMEOUT_S = 180
DELETION = ("garbage-collector-controller", "namespace-controller")


def binary(tool: str, name: str = "") -> Path:
    """The tool's binary from the toolchain, else from where builds leave it, else from PATH."""
    with contextlib.suppress(SlipwayError):
        return toolchain.binary(tool)
    built = Path(os.environ.get("SLIPWAY_BIN", "/tmp/bin"))
    for candidate in (built / tool / (name or tool), built / (name or tool)):
        if candidate.is_file():
            return candidate
    if on_path := shutil.which(name or tool):
        return Path(on_path)
    raise FileNotFoundError(f"{tool} is not built: run `make up` (looked in {built}, PATH)")


def free_ports(count: int) -> list[int]:
    """Ports on the loopback interface that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@contextlib.contextmanager
def start_apiserver(folder: Path, *controllers: str) -> Iterator[Path]:
    """Runs etcd and kube-apiserver with their data in `folder`; yields the admin's kubeconfig.

    `controllers`: the only ones that run; DELETION is what deletion needs.
    Raises `FileNotFoundError` where a binary is missing, `RuntimeError` where one does not start.
    """
    client, peer, port = free_ports(3)
    etcd_url, peer_url = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
    key = folder / "accounts.key"
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    (folder / "tokens.csv").write_text(f"{TOKEN},admin,admin,system:masters\n")
    commands = {
        "etcd": [
            str(binary("etcd", "server")),
            f"--data-dir={folder / 'etcd'}",
            f"--listen-client-urls={etcd_url}",
            f"--advertise-client-urls={etcd_url}",
            f"--listen-peer-urls={peer_url}",
            f"--initial-advertise-peer-urls={peer_url}",
            f"--initial-cluster=default={peer_url}",
            "--unsafe-no-fsync",
        ],
        "kube-apiserver": [
            str(binary("kube-apiserver")),
            f"--etcd-servers={etcd_url}",
            f"--cert-dir={folder / 'certificates'}",
            f"--secure-port={port}",
            "--bind-address=127.0.0.1",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--authorization-mode=RBAC",
            "--allow-privileged=true",  # as on every cluster; Pod Security says who may
            f"--token-auth-file={folder / 'tokens.csv'}",
            "--service-account-issuer=https://test",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--disable-admission-plugins=ServiceAccount",
        ],
    }
    with contextlib.ExitStack() as stack:
        running = {
            name: stack.enter_context(_process(command, folder / f"{name}.log"))
            for name, command in commands.items()
        }
        _wait_until_ready(f"https://127.0.0.1:{port}", running, folder)
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(_kubeconfig(f"https://127.0.0.1:{port}", folder))
        if controllers:
            command = [
                str(binary("kube-controller-manager")),
                f"--kubeconfig={kubeconfig}",
                f"--controllers={','.join(controllers)}",
                "--leader-elect=false",
                "--secure-port=0",
            ]
            stack.enter_context(_process(command, folder / "kube-controller-manager.log"))
        yield kubeconfig


@contextlib.contextmanager
def _process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=log.parent)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def _wait_until_ready(
    server: str, running: dict[str, subprocess.Popen[bytes]], folder: Path
) -> None:
    insecure = ssl.create_default_context()
    insecure.check_hostname, insecure.verify_mode = False, ssl.CERT_NONE
    request = urllib.request.Request(
        f"{server}/readyz", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        for name, process in running.items():
            if process.poll() is not None:
                log = (folder / f"{name}.log").read_text(errors="replace")
                raise RuntimeError(f"{name} ended with {process.returncode}:\n{log[-3000:]}")
        with (
            contextlib.suppress(OSError),  # URLError too
            urllib.request.urlopen(request, context=insecure, timeout=5),
        ):
            return
        time.sleep(0.1)
    log = (folder / "kube-apiserver.log").read_text(errors="replace")
    raise RuntimeError(f"kube-apiserver not ready in {START_TIMEOUT_S} s:\n{log[-3000:]}")


def _kubeconfig(server: str, folder: Path) -> str:
    cluster = {
        "server": server,
        "certificate-authority": str(folder / "certificates" / "apiserver.crt"),
    }
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
            "current-context": "test",
        }
    )
