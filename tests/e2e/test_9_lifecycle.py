"""Up again, crash, down: nothing lost, nothing left."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from slipway import cluster, paths, up
from slipway.endpoints import Cluster
from slipway.trial import libraries

from .conftest import ENV, MODEL, SLIPWAY, document, git, until

# What a node is carried by: without its shim a container goes on, and is nobody's child.
CARRIERS = {"supervisord", "registry", "containerd", "containerd-shim-runc-v2", "kubelet"}


def bento() -> str:
    board = document("status")
    row = next(r for r in board if (r["model"], r["environment"]) == (MODEL, ENV))
    return str(row["answers"])


def of_the_node() -> dict[int, str]:
    """Processes of the node and of its pods, by number: what each is called. The kernel tells, and
    not the code that is tested."""
    found: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended by now
            words = (folder / "cmdline").read_text().split("\0")
            in_pod = "/kubepods" in (folder / "cgroup").read_text()
            carries = CARRIERS & {Path(word).name for word in words[:2]}
            ours = in_pod or (carries and any("slipway" in word for word in words))
            if ours and words[0]:  # else it has ended, and nobody has asked how
                found[int(folder.name)] = next(iter(carries), words[0])
    return found


def kill(numbers: Iterable[int]) -> None:
    """All at once, more or less: the oldest first, which would start the others again."""
    for number in sorted(numbers):
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def left_behind() -> dict[str, list[str]]:
    """What a stopped platform must not leave, by kind."""
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    families = ("iptables-save", "ip6tables-save")
    shown = "".join(subprocess.run([f], capture_output=True, text=True).stdout for f in families)
    places = (str(cluster.RUN), str(cluster.KUBELET), str(cluster.paths.data()))
    return {
        "processes": [f"{number} {name}" for number, name in of_the_node().items()],
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
        "control groups": [
            str(group) for at in ("", "*/") for group in cluster.CGROUPS.glob(f"{at}kubepods")
        ],
        "CNI": [str(file) for file in Path("/var/lib/cni/results").glob("slipway-*")],
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


def test_a_shells_pulumi_knows_the_platform() -> None:
    """As a platform engineer types it, within the project and below; nothing is written there."""
    script = """
    eval "$(.venv/bin/slipway env)"
    pulumi preview --non-interactive --expect-no-changes
    cd infra && pulumi stack output repository
    """
    done = subprocess.run(
        ["bash", "-euc", script], cwd=paths.REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "slipway/slipway.git" in done.stdout
    assert git(paths.REPOSITORY, "status", "--porcelain", "environments") == ""


@pytest.mark.slow
def test_a_try_needs_the_environment_alone(tmp_path: Path) -> None:
    """Made as documented, in a copy of the checkout that has none."""
    clone = tmp_path / "clone"
    git(None, "clone", "--quiet", "--shared", str(paths.REPOSITORY), str(clone))
    own = {"VIRTUAL_ENV", "PYTHONPATH", "KUBECONFIG"}
    environment = {k: v for k, v in os.environ.items() if k not in own}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    for command in (
        f"uv venv --python {libraries.PYTHON}",
        *libraries.INSTALL,
        f".venv/bin/slipway try {MODEL} --history",
        ".venv/bin/python -I -c 'import slipway; print(slipway.__file__)'",
    ):
        done = subprocess.run(
            ["sh", "-c", command], cwd=clone, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    assert done.stdout.strip() == str(clone / "slipway" / "__init__.py")


def test_what_is_measured_stands_beside_its_target() -> None:
    found = document("bench", "up", "disk", "push", "--rounds", "2")
    figures = {figure["name"]: figure for figure in found["figures"]}
    assert set(figures) == {"up", "disk", "push"}
    for figure in figures.values():
        assert figure["measured"] > 0
        assert figure["met"] == (figure["measured"] <= figure["target"])


def test_everything_killed_at_once_comes_back_with_its_data(slipway: Callable[..., str]) -> None:
    before = bento()
    kill(of_the_node())
    slipway("up")
    assert bento() == before
    slipway("trace", MODEL, "--env", ENV)


def test_down_leaves_nothing_and_up_brings_the_data_back(slipway: Callable[..., str]) -> None:
    before = bento()
    slipway("down")
    found = left_behind()
    assert not any(found.values()), found
    assert document("doctor", "--leftovers")["leftovers"] == []
    # Ctrl-C, then a crash, each in the middle of it; then what carries the pods goes, without them.
    interrupt_up("cluster: ", signal.SIGINT)
    interrupt_up("platform: pulumi up", signal.SIGKILL)
    pods = {number for number, name in of_the_node().items() if name not in CARRIERS}
    carriers = of_the_node().keys() - pods
    assert len(carriers) > 4
    kill(carriers)
    assert pods & of_the_node().keys()
    slipway("up")
    assert not pods & of_the_node().keys()
    assert bento() == before
    slipway("trace", MODEL, "--env", ENV)
