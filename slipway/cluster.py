"""The embedded cluster: a standard kubeadm cluster of one node, on a machine without systemd.

Three supervised processes (image registry, containerd, kubelet) carry it; everything else runs in
pods. What it writes outside Slipway's own folders is where kubeadm, the kubelet and CNI have it:
/etc/kubernetes, /var/lib/kubelet, pods' logs in /var/log, and /var/lib/cni/results.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import ipaddress
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from string import Template

import psutil
import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from slipway import images, paths, toolchain
from slipway.errors import BadInput, SlipwayError, from_validation

TEMPLATES = paths.REPOSITORY / "toolchain" / "cluster"
RUN = Path("/run/slipway")
PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
KUBERNETES, KUBELET = Path("/etc/kubernetes"), Path("/var/lib/kubelet")
POD_LOGS = (Path("/var/log/pods"), Path("/var/log/containers"))
CNI_RESULTS = Path("/var/lib/cni/results")
REPOSITORY = f"{images.REGISTRY}/slipway"
PROGRAMS = ("registry", "containerd", "kubelet")
# By this queue the kernel asks kube-network-policies about a connection.
QUEUE = 7245
POLICIES, EDGE = "SLIPWAY-POLICIES", "SLIPWAY-EDGE"
# These listen on every interface; only the machine and its pods have business there.
LISTENERS = {"kubelet": 10250, "kube-proxy": 10256}
# What makes the same rules where the kernel has nftables' own `queue`, and leaves them behind.
POLICY_TABLE = ("inet", "kube-network-policies")
# Pods' packets are forwarded, and those that stay on the bridge see the services' rules.
SWITCHES = ("net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables")
# kube-proxy turns it on for node ports on 127.0.0.1, and leaves it on when the rules are gone that
# keep neighbours from what listens there.
LOOPBACK = "net/ipv4/conf/all/route_localnet"
BOOT = "kernel/random/boot_id"
NO_MODULE = "load them on this machine's host, or use a cluster that exists: KUBECONFIG=… make up"


class Addresses(BaseModel):
    """toolchain/cluster/cluster.toml."""

    model_config = ConfigDict(extra="forbid")

    bridge: str = Field(
        pattern=r"^[a-z][a-z0-9-]{0,14}$",
        description="an interface's name: at most 15 of a-z, 0-9 and -, a letter first",
    )
    node_ip: ipaddress.IPv4Address
    pod_subnet: ipaddress.IPv4Network
    service_subnet: ipaddress.IPv4Network
    api_port: int = Field(ge=1024, le=65535)

    @field_validator("pod_subnet")
    @classmethod
    def _holds_the_node(
        cls, subnet: ipaddress.IPv4Network, known: ValidationInfo
    ) -> ipaddress.IPv4Network:
        node = known.data.get("node_ip")
        if node and node not in subnet:
            raise ValueError(f"does not hold node_ip {node}")
        return subnet

    @field_validator("service_subnet")
    @classmethod
    def _is_apart_from_the_pods(
        cls, subnet: ipaddress.IPv4Network, known: ValidationInfo
    ) -> ipaddress.IPv4Network:
        pods = known.data.get("pod_subnet")
        if pods and pods.overlaps(subnet):
            raise ValueError(f"overlaps pod_subnet {pods}")
        return subnet


@functools.cache
def addresses() -> Addresses:
    """The embedded cluster's addresses.

    Raises:
        BadInput: the file is malformed.
    """
    file = TEMPLATES / "cluster.toml"
    try:
        return Addresses.model_validate(tomllib.loads(file.read_text()))
    except tomllib.TOMLDecodeError as error:
        raise BadInput(str(error), file=file) from error
    except ValidationError as error:
        raise from_validation(error, Addresses, file) from error


def registry_port() -> int:
    return int(images.REGISTRY.rpartition(":")[2])


def logs() -> Path:
    return paths.state() / "logs"


def _initialised() -> Path:
    """Exists once kubeadm has finished, with the digest of its settings; a first attempt that was
    interrupted starts afresh."""
    return paths.data() / "cluster-initialised"


def _is_ours() -> bool:
    """Whether the Kubernetes node on this machine, if there is one, is Slipway's."""
    return _initialised().exists() or (paths.data() / "kubeadm-started").exists()


def _run(*command: str | Path, check: bool = True, **options: object) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        **options,  # type: ignore[call-overload]
    )
    if check and done.returncode:
        output = (done.stderr or done.stdout).strip()
        raise SlipwayError(f"{' '.join(map(str, command[:4]))} failed: {output[-2000:]}")
    return done.stdout


def kubectl(*arguments: str, check: bool = True, **options: object) -> str:
    """Runs kubectl on the embedded cluster and returns what it prints."""
    config = f"--kubeconfig={paths.kubeconfig()}"
    return _run(toolchain.binary("kubectl"), config, *arguments, check=check, **options)


def configure() -> None:
    """Writes the configuration of the supervised processes; the same input gives the same files."""
    for folder in (paths.data() / "volumes", paths.state(), logs(), RUN / "cni"):
        folder.mkdir(parents=True, exist_ok=True)
    paths.data().chmod(0o711)
    values = {
        "registry_address": f"127.0.0.1:{registry_port()}",
        **addresses().model_dump(mode="json"),
        "repository": REPOSITORY,
        "patches": TEMPLATES / "patches",
        "pause": f"{REPOSITORY}/pause@{images.images()['pause'].digest}",
        "kubernetes_version": toolchain.tool("kubernetes").version,
        "data": paths.data(),
        "state": paths.state(),
        "logs": logs(),
        "run": RUN,
        "registry_secret": paths.secret(paths.data() / "registry-secret"),
        "containerd": shutil.which("containerd") or "/usr/bin/containerd",
        "registry": toolchain.binary("registry"),
        "kubelet": toolchain.binary("kubelet"),
        # supervisord expands percent signs.
        "path": f"/usr/sbin:/usr/bin:/sbin:/bin:{os.environ.get('PATH', '')}".replace("%", "%%"),
        "resolv_conf": _resolv_conf(),
        "restrict_oom_score_adj": str(not _has_sys_resource()).lower(),
    }
    places = {
        "containerd.toml": paths.state(),
        "registry.yaml": paths.state(),
        "supervisord.conf": paths.state(),
        "kubeadm.yaml": paths.state(),
        "cni.conflist": RUN / "cni",
    }
    for name, folder in places.items():
        file = folder / name
        file.touch(mode=0o600)
        file.write_text(Template((TEMPLATES / name).read_text()).substitute(values))


def _resolv_conf() -> str:
    """The resolver that pods may forward to: a stub on loopback is not reachable from them."""
    real = Path("/run/systemd/resolve/resolv.conf")
    return str(real if real.exists() else Path("/etc/resolv.conf"))


def _has_sys_resource() -> bool:
    effective = re.search(r"^CapEff:\s*(\w+)", Path("/proc/self/status").read_text(), re.M)
    return bool(effective and int(effective[1], 16) >> 24 & 1)


# --- supervised processes ---------------------------------------------------------------------


def _supervisorctl(*arguments: str) -> str:
    return _run(
        Path(sys.executable).parent / "supervisorctl",
        *("-c", paths.state() / "supervisord.conf"),
        *arguments,
        check=False,
    )


def running() -> dict[str, bool]:
    """Which supervised processes run; empty when the supervisor itself does not."""
    if not (RUN / "supervisor.sock").exists():
        return {}
    lines = [line.split() for line in _supervisorctl("status").splitlines()]
    return {w[0]: w[1] == "RUNNING" for w in lines if len(w) > 1 and w[0] in PROGRAMS}


def start_process(*names: str) -> None:
    """Starts supervised processes (all that are named), with the configuration as it stands now.

    Raises:
        SlipwayError: one does not stay up.
    """
    if not running():
        _free_port(registry_port())
        config = paths.state() / "supervisord.conf"
        _run(Path(sys.executable).parent / "supervisord", "-c", config)
    else:
        _supervisorctl("update")
    _supervisorctl("start", *names)
    deadline = time.monotonic() + 20
    while not all(running().get(name) for name in names):
        if time.monotonic() > deadline:
            raise SlipwayError(
                f"{', '.join(n for n in names if not running().get(n))} does not stay up",
                fix=f"see {logs()}",
            )
        time.sleep(0.2)


def _free_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise SlipwayError(
                f"port {port}, which the image registry needs, is taken by {_who_listens(port)}",
                fix="stop that program",
            ) from error


def _who_listens(port: int) -> str:
    for connection in psutil.net_connections("tcp"):
        listens = connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,)
        if listens and connection.pid:
            return f"process {connection.pid} ({psutil.Process(connection.pid).name()})"
    return "another program"


# --- bringing it up ---------------------------------------------------------------------------


def up(
    progress: Callable[[str], None] = lambda _: None, warn: Callable[[str], None] = lambda _: None
) -> None:
    """Brings the cluster up, from nothing, from a stop, or from a crash; data stays.

    The registry must already run and hold the images (`start_process("registry")`).

    Args:
        progress: called with what is being done.
        warn: called with what works less well than it should.

    Raises:
        SlipwayError: it does not come up; the message names the log.
    """
    refuse_foreign_node()
    if _settings_changed():
        warn(
            f"settings in {TEMPLATES} have changed since this cluster was made, and take effect on "
            "a new one only: make down ERASE=1 && make up, which loses the data on this one"
        )
    progress("network")
    _bridge_up()
    if not _close_edge():
        warn(
            "other machines may reach the cluster's pods and ports: this kernel's iptables lacks "
            "conntrack, addrtype or physdev"
        )
    if not _queue_connections():
        warn("network policies may not be enforced: this kernel's iptables has no NFQUEUE")
    start_process("registry", "containerd", "kubelet")
    if not _initialised().exists():
        progress("kubeadm init")
        _kubeadm_init()
    shutil.copy(KUBERNETES / "admin.conf", paths.kubeconfig())
    paths.kubeconfig().chmod(0o600)
    progress("waiting for the API server")
    _wait(lambda: kubectl("get", "--raw=/readyz", check=False) == "ok", "API server", 180)
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=network_policies())
    progress("waiting for the node")
    ready = "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}"
    _wait(lambda: kubectl("get", "nodes", "-o", ready, check=False) == "True", "node", 180)


def network_policies() -> str:
    """YAML of what enforces the network policies."""
    text = Template((TEMPLATES / "network-policies.yaml").read_text())
    image = images.references(embedded=True)["kube-network-policies"]
    return text.substitute(image=image, queue=QUEUE)


def prefetch() -> None:
    """Begins to pull large images; whoever needs one finds it there, or waits the shorter."""
    job = Template((TEMPLATES / "prefetch.yaml").read_text())
    kubectl("apply", "-f", "-", input=job.substitute(images.references(embedded=True)))


def is_up() -> bool:
    """True when every supervised process runs and the API server says that it is ready."""
    state = running()
    alive = bool(state) and all(state.get(name) for name in PROGRAMS)
    return alive and kubectl("get", "--raw=/readyz", check=False) == "ok"


def _wait(ready: Callable[[], bool], what: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise SlipwayError(
                f"the {what} is not ready after {seconds:.0f} s", fix=f"see {logs()}/kubelet.log"
            )
        time.sleep(0.5)


def refuse_foreign_node() -> None:
    """Raises BadInput where this machine is a node of a cluster that Slipway did not make."""
    for place in (KUBERNETES / "admin.conf", KUBELET / "config.yaml"):
        if place.exists() and not _is_ours():
            raise BadInput(
                "this machine already runs a Kubernetes node that Slipway did not start",
                file=place,
                fix="use that cluster (`KUBECONFIG=… make up`), or `kubeadm reset` it first",
            )


def foreign_routes() -> list[str]:
    """Routes of this machine that overlap the pods' network and are not ours."""
    a = addresses()
    if not shutil.which("ip"):  # a package still to come, and this is asked again
        return []
    routes = _run("ip", "-4", "route", "show", "root", str(a.pod_subnet), check=False)
    return [line.strip() for line in routes.splitlines() if f"dev {a.bridge}" not in line]


def missing_modules() -> list[str]:
    """Modules of the kernel that the node needs and that are neither loaded nor built in."""
    filter_ = [] if (PROC / "sys" / SWITCHES[1]).exists() else ["br_netfilter"]
    file = PROC / "filesystems"
    known = file.read_text().split() if file.exists() else ()  # another system has no such file
    return [*filter_, *([] if "overlay" in known else ["overlay"])]


def load_modules(*, dry_run: bool = False) -> list[str]:
    """Loads what is missing; the modules that this kernel does not have.

    Args:
        dry_run: only finds out.
    """
    # Who is not root may have neither of them on the path.
    modprobe = shutil.which("modprobe", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    missing = missing_modules()
    if not modprobe:
        return missing
    options = ["--dry-run"] if dry_run else []
    return [m for m in missing if subprocess.run([modprobe, "-q", *options, m]).returncode]


def _bridge_up() -> None:
    a = addresses()
    if foreign := foreign_routes():
        raise BadInput(
            f"{a.pod_subnet} is in use on this machine ({foreign[0]})",
            file=TEMPLATES / "cluster.toml",
            field="pod_subnet",
            fix="choose another private network",
        )
    if not Path(f"/sys/class/net/{a.bridge}").exists():
        _run("ip", "link", "add", a.bridge, "type", "bridge")
    network = f"{a.node_ip}/{a.pod_subnet.prefixlen}"
    _run("ip", "addr", "replace", network, "dev", a.bridge)
    _run("ip", "link", "set", a.bridge, "up")
    # Until kube-proxy has its rules, nothing for a service may leave the machine: whoever answers
    # there would keep the API server's connection for good.
    _run("ip", "route", "replace", str(a.service_subnet), "dev", a.bridge)
    if lacking := load_modules():
        raise SlipwayError(f"this kernel has no {', no '.join(lacking)}", fix=NO_MODULE)
    _set_switches()


def _close_edge() -> bool:
    """Has the kernel refuse what other machines ask of the pods and of Kubernetes; whether it can.

    A neighbour needs but a route by way of this machine, which forwards for the pods' sake. Where
    it did not before, it forwards for nobody else either, unless a rule of somebody's accepts it.
    """
    a, new = addresses(), "-m conntrack --ctstate NEW -j DROP"
    inside = [f"-i {name} -j RETURN" for name in ("lo", a.bridge)]
    local = "-p tcp -m addrtype --dst-type LOCAL --dport"
    ports = [f"{local} {port} {new}" for port in (a.api_port, *LISTENERS.values())]
    pods = [f"-o {a.bridge} {new}", f"-d {a.node_ip} {new}"]
    # kube-proxy puts before all else in `filter` what accepts connections to services. Only what
    # is put behind everybody's rules there leaves a Docker that is started later its own.
    made = [_chain("mangle", EDGE, [*inside, *pods, *ports], "--insert", "INPUT", "FORWARD")]
    if (PROC / "net/if_inet6").exists():
        made += [_chain("mangle", EDGE, [*inside, *ports], "--insert", "INPUT", ip="ip6tables")]
    if not int(json.loads(_switches_before().read_text())[SWITCHES[0]]):
        # What others' bridges carry is shown to iptables too.
        routed = [*inside, "-m physdev --physdev-is-bridged -j RETURN", new]
        made += [_chain("filter", EDGE, routed, "--append", "FORWARD")]
    return all(made)


def _chain(
    table: str, name: str, rules: list[str], how: str, *hooks: str, ip: str = "iptables"
) -> bool:
    """A chain of ours with these rules and no others, and the kernel's chains that lead there;
    whether the kernel has what they need."""
    text = [f"*{table}", f":{name} - [0:0]", *(f"-A {name} {rule}" for rule in rules), "COMMIT", ""]
    restore = [f"{ip}-restore", "--wait", "--noflush"]
    done = subprocess.run(restore, input="\n".join(text), capture_output=True, text=True)
    if done.returncode:
        return False
    command = (ip, "--wait", "--table", table)
    for hook in hooks:
        if f"-j {name}" not in _run(*command, "--list-rules", hook):
            _run(*command, how, hook, "-j", name)
    return True


def _queue_connections() -> bool:
    """Has the kernel ask kube-network-policies about each new connection from or to a pod; whether
    it can.

    It would make such rules itself, but with a part of nftables that not every kernel has. While
    nobody is there to ask, the kernel lets them pass. Not asked is about DNS: of two questions that
    wait at once one gets lost (netfilter's bug 1766), and every pod may ask that.
    """
    new = f"-m conntrack --ctstate NEW -j NFQUEUE --queue-num {QUEUE} --queue-bypass"
    asked = [f"-{end} {addresses().pod_subnet} {new}" for end in "sd"]
    # To the machine itself, where the API server is, and through it. What comes from the machine,
    # such as the kubelet's probes, is nobody's to refuse.
    rules = ["-p udp --dport 53 -j RETURN", *asked]
    return _chain("mangle", POLICIES, rules, "--append", "INPUT", "FORWARD")


def _set_switches() -> None:
    if not _switches_before().exists():
        keys = (BOOT, *SWITCHES, LOOPBACK)
        before = {key: (PROC / "sys" / key).read_text() for key in keys}
        _switches_before().write_text(json.dumps(before))
    for key in SWITCHES:
        (PROC / "sys" / key).write_text("1")


def _switches_before() -> Path:
    """JSON: what SWITCHES and LOOPBACK were before the cluster started, and which boot of the
    machine that was; another one has settings of its own."""
    return paths.state() / "switches.json"


def _restore_switches() -> None:
    if not _switches_before().exists():
        return
    before = json.loads(_switches_before().read_text())
    if (PROC / "sys" / BOOT).read_text() == before.pop(BOOT):
        for key, value in before.items():
            (PROC / "sys" / key).write_text(value)
    _switches_before().unlink()


def version() -> str:
    """The version of Kubernetes that the cluster was made with; empty while there is none."""
    manifest = KUBERNETES / "manifests" / "kube-apiserver.yaml"
    made = manifest.read_text() if _initialised().exists() and manifest.exists() else ""
    found = re.search(r"/kube-apiserver:(\S+)", made)
    return found[1] if found else ""


def _settings() -> str:
    """Digest of what kubeadm makes a cluster from, wherever the checkout is."""
    folder = TEMPLATES / "patches"
    config = (paths.state() / "kubeadm.yaml").read_text().replace(str(folder), folder.name)
    patches = [f.read_text() for f in sorted(folder.iterdir())]
    meant = [list(yaml.safe_load_all(text)) for text in (config, *patches)]
    return hashlib.sha256(json.dumps(meant).encode()).hexdigest()


def _settings_changed() -> bool:
    made = _initialised().read_text() if _initialised().exists() else ""
    return bool(made) and made != _settings()


def _kubeadm_init() -> None:
    (paths.data() / "kubeadm-started").touch()
    kubeadm = toolchain.binary("kubeadm")
    socket_flag = f"--cri-socket=unix://{RUN}/containerd.sock"
    _run(kubeadm, "reset", "--force", socket_flag, "--cleanup-tmp-dir", check=False)
    shutil.rmtree(paths.data() / "etcd", ignore_errors=True)
    log = logs() / "kubeadm.log"
    with log.open("w") as out:
        code = subprocess.run(
            [
                *(kubeadm, "init", "--config", paths.state() / "kubeadm.yaml"),
                "--ignore-preflight-errors=all",
                "--skip-token-print",
            ],
            stdout=out,
            stderr=out,
            env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
        ).returncode
    if code:
        tail = "\n".join(log.read_text().splitlines()[-12:])
        raise SlipwayError(f"kubeadm init failed\n{tail}", fix=f"see {log} and {logs()}")
    shutil.copy(KUBERNETES / "admin.conf", paths.kubeconfig())
    # kubeadm asks for two, of which the second would share the first one's fate on one node.
    kubectl("--namespace=kube-system", "scale", "deployment/coredns", "--replicas=1")
    _initialised().write_text(_settings())


# --- taking it down ---------------------------------------------------------------------------


def down(*, erase: bool = False, progress: Callable[[str], None] = lambda _: None) -> None:
    """Stops everything and leaves no process, mount, interface, iptables rule or container.

    Args:
        erase: also removes the cluster's data (etcd, volumes, registry, Pulumi state).
    """
    if running():
        progress("stopping the kubelet")
        _supervisorctl("stop", "kubelet")
        progress("stopping the pods")
        _stop_containers()
        _supervisorctl("stop", "all")
        _supervisorctl("shutdown")
    progress("removing what is left")
    clean_remains()
    if erase:
        kubernetes = (KUBERNETES, KUBELET, *POD_LOGS) if _is_ours() else ()
        for place in (*kubernetes, paths.data(), paths.state()):
            shutil.rmtree(place, ignore_errors=True)


def _stop_containers() -> None:
    """Ends every container as a shutdown would: TERM, time to finish, then KILL."""
    inside = list(_in_pods())
    # The store goes last: who writes to it may finish first. The API server waits for its clients.
    last = [p for p in inside if _name(p) in ("etcd", "kube-apiserver")]
    for processes, seconds in ([p for p in inside if p not in last], 20), (last, 3):
        for process in processes:
            _signal(process, signal.SIGTERM)
        _await_end(processes, seconds)
    ctr = ["ctr", "--address", f"{RUN}/containerd.sock", "--namespace", "k8s.io"]
    for container in _run(*ctr, "tasks", "list", "--quiet", check=False).split():
        _run(*ctr, "tasks", "delete", "--force", container, check=False)
    for container in _run(*ctr, "containers", "list", "--quiet", check=False).split():
        _run(*ctr, "containers", "delete", container, check=False)


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _name(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.name()
    return ""


def _await_end(processes: list[psutil.Process], seconds: float) -> None:
    """Until all have ended, at most so long.

    psutil's own wait fails where one ends at that very moment: from Linux 6.15 on, opening a pidfd
    then says ENOENT.
    """
    deadline = time.monotonic() + seconds
    while any(map(_runs, processes)) and time.monotonic() < deadline:
        time.sleep(0.05)


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def our_processes(*arguments: str) -> Iterator[psutil.Process]:
    """Processes whose command line holds these arguments: those that only ours can hold."""
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if all(argument in line for argument in arguments):
            yield process


def orphans() -> list[psutil.Process]:
    """What runs of the node: its supervisor, all that this one started, and what is in pods."""
    state = paths.state()
    lines = [
        ("-c", f"{state}/supervisord.conf"),
        ("--config", f"{state}/containerd.toml"),
        ("serve", f"{state}/registry.yaml"),
        ("-address", f"{RUN}/containerd.sock"),
    ]
    found = [p for line in lines for p in our_processes(*line) if p.pid != os.getpid()]
    found += _kubelets()
    found += [child for p in found for child in _children(p)]
    return [*dict.fromkeys((*found, *_in_pods()))]


def _kubelets() -> Iterator[psutil.Process]:
    """Our kubelet, and the shell that waits to become it. All others that kubeadm set up, kind's
    for instance, have the same arguments, but not our program."""
    ours = f"{toolchain.cache()}/"
    for process in our_processes("--kubeconfig=/etc/kubernetes/kubelet.conf"):
        if any(argument.startswith(ours) for argument in process.info["cmdline"]):
            yield process


def _in_pods() -> Iterator[psutil.Process]:
    """What runs in pods, by their control groups: when a shim was killed, its container goes on and
    is nobody's child."""
    numbers: set[int] = set()
    for folder in (folder for root in _cgroups() for folder, _, _ in os.walk(root)):
        with contextlib.suppress(OSError):  # gone by now
            numbers.update(map(int, Path(folder, "cgroup.procs").read_text().split()))
    for number in numbers:
        with contextlib.suppress(psutil.NoSuchProcess):
            yield psutil.Process(number)


def clean_remains() -> None:
    """Removes what a crash or a kill leaves: processes, mounts, interfaces, rules, namespaces.

    Safe to call at any time that the supervisor does not run.
    """
    if running():
        return
    left = orphans()
    for process in left:
        _signal(process, signal.SIGKILL)
    _await_end(left, 10)
    for _ in range(3):  # mounts may be stacked
        for place in _mounts():
            _run("umount", "--lazy", place, check=False)
    _remove_network_namespaces()
    # The kernel takes its time to remove what a namespace held; its other end goes at once.
    for port in _ports():
        _run("ip", "link", "delete", port, check=False)
    _remove_rules()
    if Path(f"/sys/class/net/{addresses().bridge}").exists():
        _run("ip", "link", "delete", addresses().bridge, check=False)
    _restore_switches()
    for file in _cni_results():
        file.unlink(missing_ok=True)
    shutil.rmtree(RUN, ignore_errors=True)
    _remove_cgroups()


def remains() -> dict[str, list[str]]:
    """What a stopped cluster must not leave, by kind; of a running one, what it works with."""
    bridge = Path("/sys/class/net") / addresses().bridge
    return {
        "process": [f"{process.pid} ({_name(process)})" for process in orphans()],
        "mount": _mounts(),
        "interface": [*_ports(), *([bridge.name] if bridge.exists() else [])],
        "network namespace": [str(place) for place in network_namespaces()],
        "firewall rules": _shown_rules(),
        "folder": [str(RUN)] if RUN.exists() else [],
        "control group": [str(root) for root in _cgroups()],
        "CNI result": [str(file) for file in _cni_results()],
    }


def _ports() -> list[str]:
    """Interfaces of pods: what is plugged into the bridge."""
    return [port.name for port in Path(f"/sys/class/net/{addresses().bridge}/brif").glob("*")]


def lost_volumes() -> list[Path]:
    """Folders of volumes that no cluster has; what a stopped one will have again is kept."""
    folders = sorted((paths.data() / "volumes").glob("*"))
    if not folders or (_initialised().exists() and not is_up()):
        return []
    if not _initialised().exists():
        return folders
    where = "{.items[*]['spec.hostPath.path','spec.local.path']}"
    used = kubectl("get", "persistentvolumes", "-o", f"jsonpath={where}").split()
    return [folder for folder in folders if str(folder) not in used]


def _mounts(table: Path = Path("/proc/self/mounts")) -> list[str]:
    """Our mount points, the innermost first."""
    # Blanks in a path are written as octal numbers.
    points = [
        re.sub(r"\\(\d{3})", lambda blank: chr(int(blank[1], 8)), line.split()[1])
        for line in table.read_text().splitlines()
    ]
    ours = [p for p in points if p.startswith((f"{RUN}/", f"{paths.data()}/"))]
    if _is_ours():  # the kubelet mounts its folder on itself
        ours += [p for p in points if f"{p}/".startswith(f"{KUBELET}/")]
    return sorted(ours, reverse=True)


def network_namespaces() -> dict[Path, str]:
    """Those of our pods, each with its pod's IP, and, with none, those that nothing is in."""
    found: dict[Path, str] = {}
    if not _is_ours():  # another's pods may have the same addresses
        return found
    for place in Path("/run/netns").glob("cni-*"):
        shown = _run("nsenter", f"--net={place}", "ip", "-o", "-4", "addr", check=False)
        inside = re.findall(r"inet (\S+?)/", shown)
        ours = [ip for ip in inside if ipaddress.ip_address(ip) in addresses().pod_subnet]
        if ours or not shown:
            found[place] = ours[0] if ours else ""
    return found


def _remove_network_namespaces() -> None:
    for place in network_namespaces():
        _run("umount", "--lazy", place, check=False)
        place.unlink(missing_ok=True)


def without_our_rules(saved: str) -> str:
    """What `iptables-save` said, less our chains and the rules in and to them."""
    # Kubernetes and the CNI plugins name theirs the same when they are another's.
    chains = "KUBE|CNI|SLIPWAY" if _is_ours() else "SLIPWAY"
    ours = re.compile(rf"(^:|^-A | -[jg] )({chains})-")
    kept = [line for line in saved.splitlines() if not ours.search(line)]
    return "".join(f"{line}\n" for line in kept)


def _rules() -> Iterator[tuple[str, str, str]]:
    """Families of rules that hold chains of ours: what each says, and that without them."""
    for family in ("iptables", "ip6tables"):
        if not shutil.which(f"{family}-save"):
            continue
        saved = _run(f"{family}-save", check=False)
        if (kept := without_our_rules(saved)) != saved:
            yield family, saved, kept


def _shown_rules() -> list[str]:
    lines = [
        f"{family}: {saved.count(chr(10)) - kept.count(chr(10))} lines"
        for family, saved, kept in _rules()
    ]
    return lines + _policy_tables()


def _remove_rules() -> None:
    for family, _, kept in _rules():
        subprocess.run([f"{family}-restore"], input=kept, text=True)
    if _policy_tables():
        _run("nft", "delete", "table", *POLICY_TABLE)


def _policy_tables() -> list[str]:
    if not (_is_ours() and shutil.which("nft")):
        return []
    tables = _run("nft", "list", "tables", check=False)
    return [line for line in tables.splitlines() if line.split()[1:] == [*POLICY_TABLE]]


def _cgroups() -> list[Path]:
    """Of our pods: one, or where the machine has version 1, one for each controller."""
    if not _is_ours():  # another's kubelet calls them the same
        return []
    return [*CGROUPS.glob("kubepods"), *CGROUPS.glob("*/kubepods")]


def _remove_cgroups() -> None:
    for root in _cgroups():
        for folder, _, _ in os.walk(root, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()


def _cni_results() -> list[Path]:
    """What is noted of our pods' networks, a file each; of a container that went without the CNI
    plugins' being asked, it stays."""
    ours = {file.name.rsplit("-", 2)[1] for file in CNI_RESULTS.glob("slipway-*-*")}
    return [file for file in CNI_RESULTS.glob("*-*-*") if file.name.rsplit("-", 2)[1] in ours]
