"""Up again, crash, down: nothing lost, nothing left."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from slipway import cluster, paths, up
from slipway.endpoints import Cluster

from .conftest import ENV, MODEL, SLIPWAY, document, until


def bento() -> str:
    board = document("status")
    row = next(r for r in board if (r["model"], r["environment"]) == (MODEL, ENV))
    return str(row["answers"])


def left_behind() -> dict[str, list[str]]:
    """What a stopped platform must not leave, by kind."""
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    shown = subprocess.run(["iptables-save"], capture_output=True, text=True).stdout
    places = (str(cluster.RUN), str(cluster.KUBELET), str(cluster.paths.data()))
    return {
        "processes": [str(p) for p in cluster.orphans()],
        "mounts": [m for m in mounts if m.startswith(places)],
        "interfaces": [
            n
            for n in os.listdir("/sys/class/net")
            if n == cluster.addresses().bridge or n.startswith("veth")
        ],
        "rules": [line for line in shown.splitlines() if re.search("KUBE-|CNI-|SLIPWAY-", line)],
        "namespaces": [n for n in os.listdir("/run/netns") if n.startswith("cni-")]
        if os.path.isdir("/run/netns")
        else [],
        "sockets": [str(cluster.RUN)] if cluster.RUN.exists() else [],
    }


def interrupt_up(when: str, how: signal.Signals) -> None:
    """Sends a signal to `slipway up` and all that it has started, once it says `when`."""
    with subprocess.Popen(
        # Who runs the tests in the background has them ignore Ctrl-C.
        ["env", "--default-signal=INT", SLIPWAY, "up"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout
        said = ""
        for line in process.stdout:
            said += line
            if when in line:
                os.killpg(process.pid, how)
                break
        assert process.wait(120) != 0, said
    assert when in said, said


def test_a_second_up_has_nothing_to_do(slipway: Callable[..., str]) -> None:
    slipway("up")  # the tests before may have published
    until(up.all_ready, 180, "not every pod is ready")
    assert "nothing to do" in slipway("up")


def test_a_shell_has_what_readme_promises_it(platform: Cluster) -> None:
    """Typed as it stands there: the programs, and one secret read."""
    script = """
    eval "$(.venv/bin/slipway env)"
    command -v slipway kubectl argo argocd helm pulumi >&2
    kubectl -n forge get secret gitea-admin -o jsonpath='{.data.password}' | base64 -d
    """
    command = ["bash", "-euc", script]
    done = subprocess.run(command, cwd=paths.REPOSITORY, capture_output=True, text=True)
    assert len(done.stderr.splitlines()) == 6, done.stderr
    # Not in the assertion itself, which would print it.
    same = done.stdout == platform.secret("forge", "gitea-admin")["password"]
    assert same
    for target in ("doctor", "status"):
        subprocess.run(["make", target], cwd=paths.REPOSITORY, check=True, capture_output=True)


def test_what_is_measured_stands_beside_its_target() -> None:
    found = document("bench", "up", "disk", "push", "--rounds", "2")
    figures = {figure["name"]: figure for figure in found["figures"]}
    assert set(figures) == {"up", "disk", "push"}
    for figure in figures.values():
        assert figure["measured"] > 0
        assert figure["met"] == (figure["measured"] <= figure["target"])


def test_everything_killed_at_once_comes_back_with_its_data(slipway: Callable[..., str]) -> None:
    before = bento()
    for process in cluster.orphans():
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    slipway("up")
    assert bento() == before
    slipway("trace", MODEL, "--env", ENV)


def test_down_leaves_nothing_and_up_brings_the_data_back(slipway: Callable[..., str]) -> None:
    before = bento()
    slipway("down")
    found = left_behind()
    assert not any(found.values()), found
    assert document("doctor", "--leftovers")["leftovers"] == []
    # Ctrl-C, then a crash, each in the middle of it.
    interrupt_up("cluster: ", signal.SIGINT)
    interrupt_up("platform: pulumi up", signal.SIGKILL)
    slipway("up")
    assert bento() == before
    slipway("trace", MODEL, "--env", ENV)
