"""What `make up` needs of this machine, what is missing, and how long it will take."""

from __future__ import annotations

import os
import platform
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
from rich.console import Console
from rich.table import Table

from slipway import cluster, endpoints, images, paths, publish, pulumi, toolchain
from slipway.errors import BadInput, SlipwayError

PACKAGES = paths.REPOSITORY / "toolchain" / "packages.txt"
MIB, GIB = 2**20, 2**30
# By which an autoscaler learns what pods use.
METRICS = "/apis/metrics.k8s.io/v1beta1"
# Measured: the peak of a cold `make up`, and a running platform with room for training.
DISK_TO_BUILD, DISK_AT_REST, MEMORY = 25 * GIB, 10 * GIB, 6 * GIB
# What else there has to be for a large program to build, and where a platform is at rest already.
DISK_A_TOOL, DISK_TO_GO_ON = 4 * GIB, 3 * GIB


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report. `failed` stops `make up`; `todo` is done by it."""

    what: str
    state: Literal["ok", "todo", "failed"]
    detail: str
    fix: str = ""
    seconds: int = 0


def show(findings: list[Finding], console: Console) -> None:
    """Shows the findings and how long `make up` will take."""
    table = Table(box=None, show_header=False, padding=(0, 1))
    marks = {"ok": "[green]✓[/]", "todo": "[yellow]·[/]", "failed": "[red]✗[/]"}
    for finding in findings:
        table.add_row(marks[finding.state], finding.what, finding.detail)
        if finding.fix:
            table.add_row("", "", f"fix: {finding.fix}")
    console.print(table)
    if seconds := sum(f.seconds for f in findings):
        console.print(f"to do: about {max(1, round(seconds / 60))} min on this machine")


def missing_packages() -> list[str]:
    """Debian packages that are not there, by the file that each brings."""
    lines = [line.split() for line in PACKAGES.read_text().splitlines() if line[:1] not in "#"]
    return [name for name, file in lines if not Path(file).exists()]


def on_debian() -> bool:
    return Path("/etc/debian_version").exists()


def examine(*, embedded: bool = True, stack: str = "local") -> list[Finding]:
    """Examines the machine; changes nothing.

    Args:
        embedded: whether Slipway is to run the cluster itself; a cluster that is there needs
            neither root nor Debian.
        stack: whose cluster it is.
    """
    todo = toolchain.missing(None if embedded else pulumi.TOOLS)
    found = [_system(embedded), _checkout(), _disk(todo, embedded)]
    if not embedded:
        found += [_cluster(stack), _own_images(stack)]
    else:
        found += [_kubernetes(), _memory(), _kernel(), _packages(), *_ports(stack), _network()]
    return [*found, _toolchain(todo), *([_images()] if embedded else [])]


def _system(embedded: bool) -> Finding:
    name = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    if not embedded or (os.geteuid() == 0 and on_debian()):
        return Finding("system", "ok", name)
    why = "not root" if os.geteuid() else "neither Debian nor Ubuntu"
    return Finding(
        *("system", "failed", f"{name}, {why}: the embedded cluster cannot run here"),
        fix="run as root on Debian 12, or use a cluster that exists: KUBECONFIG=… make up",
    )


def _checkout() -> Finding:
    """The forge gets its first commits from here, when all else has been built."""
    if not (paths.REPOSITORY / ".git").exists():
        return Finding(
            *("checkout", "failed", f"{paths.REPOSITORY} is no git checkout"),
            fix="`git clone` the repository: an unpacked archive has no commits to publish",
        )
    if not shutil.which("git"):  # a package still to come, and this is asked again
        return Finding("checkout", "ok", "a git checkout")
    try:
        return Finding("checkout", "ok", f"commit {publish.whole()[:12]}")
    except SlipwayError as error:
        return _failed("checkout", error, "see `git status`")


def _failed(what: str, error: SlipwayError, fix: str = "") -> Finding:
    problem, _, said = str(error).partition("\n  fix: ")
    return Finding(what, "failed", problem, fix=said or fix)


def _cluster(stack: str) -> Finding:
    try:
        platform = endpoints.Cluster.connect()
        version = platform.find("/version") or {}
        measured = platform.find(METRICS) is not None
        pulumi.take_nothing_over(stack, platform, whole=False)
    except BadInput as error:
        return _failed("cluster", error)
    except SlipwayError as error:
        problem = str(error).splitlines()[0]
        fix = "KUBECONFIG names the file of one cluster that runs, and where you may work"
        return Finding("cluster", "failed", problem, fix=fix)
    # Which stops nothing: such a model is called Degraded, and why, when it comes.
    lacks = "" if measured else ", without metrics-server: no replicas there follow the CPU"
    found = f"{endpoints.kubeconfig()}: {version.get('gitVersion', '?')}{lacks}"
    return Finding("cluster", "ok", found)


def _own_images(stack: str) -> Finding:
    named = pulumi.named_images(stack)
    if missing := [name for name in images.own() if name not in named]:
        file = paths.told(paths.stack_file(stack))
        return Finding(
            "images",
            "failed",
            f"only Slipway has {', '.join(missing)}, and {file} names no reference under "
            "slipway:images",
            fix="`slipway push REGISTRY` as root on Debian, and what it prints into that file",
        )
    return Finding("images", "ok", "the stack names those that only Slipway has")


def _kubernetes() -> Finding:
    """Another's node is left alone, and a newer kubelet on an older API server not supported."""
    try:
        cluster.refuse_foreign_node()
    except BadInput as error:
        return _failed("Kubernetes", error)
    made, pinned = cluster.version(), toolchain.tool("kubernetes").version
    if made in ("", pinned):
        return Finding("Kubernetes", "ok", pinned)
    return Finding(
        "Kubernetes",
        "failed",
        f"the cluster was made with {made}, {toolchain.FOLDER / 'kubernetes' / 'go.mod'} pins "
        f"{pinned}, and nothing upgrades it",
        fix="check out the commit that made it, and take what you need: models, the forge's "
        "repository, which holds the releases. `make down ERASE=1 && make up` makes a new cluster, "
        "and all data on the old one is lost",
    )


def _memory() -> Finding:
    total = psutil.virtual_memory().total
    detail = f"{total / GIB:.1f} GiB, {MEMORY / GIB:.0f} needed"
    if total >= MEMORY:
        return Finding("memory", "ok", detail)
    return Finding("memory", "failed", detail, fix="a larger machine, or a cluster that exists")


def _kernel() -> Finding:
    if lacking := cluster.load_modules(dry_run=True):
        return Finding(
            *("kernel", "failed", f"no {', no '.join(lacking)}, loaded or to be loaded"),
            fix=cluster.NO_MODULE,
        )
    todo = cluster.missing_modules()
    return Finding("kernel", "ok", f"{', '.join(todo)} can be loaded" if todo else "has all")


def existing(place: Path) -> Path:
    """The folder, or where it is still to come the nearest one above it."""
    return place if place.exists() else existing(place.parent)


def _disk(todo: list[toolchain.Tool], embedded: bool) -> Finding:
    place = existing(paths.cache())
    free = shutil.disk_usage(place).free
    fresh = embedded and not paths.images_file().exists()
    needed = (DISK_AT_REST if fresh else DISK_TO_GO_ON) + DISK_A_TOOL * len(todo)
    needed = min(needed, DISK_TO_BUILD)
    detail = f"{free / GIB:.1f} GiB free at {place}, {needed / GIB:.0f} needed"
    if free >= needed:
        return Finding("disk", "ok", detail)
    return Finding("disk", "failed", detail, fix="free space, or `slipway clean`")


def _packages() -> Finding:
    missing = missing_packages()
    if not missing:
        return Finding("packages", "ok", "all there")
    return Finding("packages", "todo", f"apt-get install {' '.join(missing)}", seconds=60)


def _ports(stack: str) -> list[Finding]:
    # What a crash has left of us holds them too, until `make up` clears it away.
    if cluster.running() or cluster.orphans():
        return [Finding("ports", "ok", "in use by Slipway itself")]
    ports = {
        "registry": cluster.registry_port(),
        "API server": cluster.addresses().api_port,
        **{"etcd": 2379, "etcd's peers": 2380, **cluster.LISTENERS},
        **{"controller manager": 10257, "scheduler": 10259},
        **{f"console of {name}": port for name, port in pulumi.config(stack).node_ports.items()},
    }
    taken = {what: port for what, port in ports.items() if _is_taken(port)}
    if not taken:
        return [Finding("ports", "ok", f"{', '.join(map(str, ports.values()))} are free")]
    return [
        Finding(
            "ports", "failed", f"{port} ({what}) is taken", fix=f"see `ss -ltnp sport = {port}`"
        )
        for what, port in taken.items()
    ]


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return True
    return False


def _network() -> Finding:
    foreign = cluster.foreign_routes()
    if not foreign:
        return Finding("network", "ok", f"{cluster.addresses().pod_subnet} is free")
    return Finding(
        *("network", "failed", f"{cluster.addresses().pod_subnet} is in use: {foreign[0]}"),
        fix=f"another pod_subnet in {cluster.TEMPLATES / 'cluster.toml'}",
    )


def _toolchain(todo: list[toolchain.Tool]) -> Finding:
    if not todo:
        return Finding("toolchain", "ok", "every program is built")
    seconds = sum(t.config.seconds for t in todo) * 2 // (os.cpu_count() or 2)
    return Finding("toolchain", "todo", ", ".join(t.name for t in todo), seconds=seconds)


def _images() -> Finding:
    todo = images.missing()
    if not todo:
        return Finding("images", "ok", "every image is built")
    return Finding("images", "todo", ", ".join(todo), seconds=25 * len(todo))
