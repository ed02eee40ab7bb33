"""`make up`: from nothing to a model that answers, in steps that may each be run again."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.markup import escape

from slipway import (
    cluster,
    doctor,
    endpoints,
    images,
    merging,
    paths,
    pulumi,
    release,
    serving,
    sources,
    toolchain,
    training,
)
from slipway.commands.predict import example
from slipway.commands.train import train
from slipway.endpoints import Cluster, ClusterError, Outside, part, patiently
from slipway.errors import BadInput, SlipwayError
from slipway.forge import Forge, ForgeError
from slipway.publish import Remote, changed, head, publish, published

STACK = "local"
FIRST_MODEL, FIRST_ENVIRONMENT = "flight_delay", "dev"
# First runs, whose time is kept: nothing there at all; the toolchain there, but no cluster.
KINDS = ("cold", "cached")
APPLICATIONS = "/apis/argoproj.io/v1alpha1/namespaces/argocd/applications"
# By it Argo CD is asked to look at an Application now.
REFRESH = "argocd.argoproj.io/refresh"

GIT = "git forge"
LOCAL = "no login: reachable from this machine only"
# What a person opens: namespace and service, the path that tells that it works, how to get in.
CONSOLES = {
    GIT: ("forge", "gitea", "/api/healthz", "login: Secret forge/gitea-admin"),
    "Argo CD": (
        *("argocd", "argocd-server", "/healthz"),
        "login: admin, Secret argocd/argocd-initial-admin-secret",
    ),
    "MLflow": ("mlflow", "mlflow", "/health", LOCAL),
    # Its API wants the token even for its version.
    "Argo Workflows": ("argo", "argo-server", "/", "token: Secret argo/console-token"),
    "MinIO (S3)": ("storage", "minio", "/minio/health/live", "keys: Secret storage/minio"),
}


@dataclass
class Report:
    """Tells what happens, all along: a spinner on a terminal, plain lines elsewhere."""

    console: Console = field(default_factory=lambda: Console(highlight=False))
    changed: bool = False

    def warn(self, text: str) -> None:
        self.console.print(f"[yellow]·[/] {escape(text)}", soft_wrap=True)

    @contextmanager
    def step(self, name: str) -> Generator[Callable[[str], None]]:
        """One step. The body calls what it gets with the news; only a step with news is shown."""
        started = time.monotonic()
        news: list[str] = []
        with self.console.status(f"[bold]{name}[/]") as spinner:

            def say(text: str) -> None:
                news.append(text)
                self.changed = True
                spinner.update(f"[bold]{name}[/] {escape(text)}")
                if not self.console.is_terminal:
                    self.console.print(f"    {name}: {text}", markup=False, soft_wrap=True)

            try:
                yield say
            except BaseException:
                self.console.print(f"[red]✗[/] {name}")
                raise
        took = time.monotonic() - started
        if news:
            last = escape(news[-1])
            self.console.print(f"[green]✓[/] {name:<12} {took:6.1f} s  [dim]{last}[/]")


def up(console: Console) -> None:
    """Brings everything up and shows a summary; says so when there was nothing to do.

    Raises:
        SlipwayError: a step failed; running it again goes on from there.
    """
    report = Report(console)
    embedded = pulumi.is_embedded(STACK)
    if pulumi.restoring(STACK).exists():
        raise BadInput(
            "a restore was begun and has not ended",
            file=pulumi.restoring(STACK),
            fix="`slipway restore` once more; or remove this file, and begin with what is there",
        )
    started = time.monotonic()
    if nothing_to_do():
        console.print(f"[green]✓[/] nothing to do: it runs ({time.monotonic() - started:.1f} s)")
        summary(console)
        return
    kind = _kind() if embedded else None
    examine(console, embedded=embedded)
    with _disk_peak() as peak:
        prepare(report, embedded=embedded)
        if embedded:
            start_cluster(report)
        apply(report)
        platform = Cluster.connect()
        await_consoles(report, platform)
        commit = _publish(report, platform)
        _first_release(report, platform, commit)
    _remember()
    _remember_time(kind, time.monotonic() - started, peak())
    console.print(f"\nthe platform is up ({time.monotonic() - started:.0f} s)")
    summary(console)


def examine(console: Console, *, embedded: bool) -> None:
    """Shows the doctor's report.

    Raises:
        BadInput: something is in the way that `make up` cannot mend.
    """
    findings = doctor.examine(embedded=embedded)
    if all(f.state == "ok" for f in findings):
        return
    doctor.show(findings, console)
    if failed := [f for f in findings if f.state == "failed"]:
        raise BadInput(f"{failed[0].what}: {failed[0].detail}", fix=failed[0].fix)


# --- the machine, the cluster -----------------------------------------------------------------


def prepare(report: Report, *, embedded: bool) -> None:
    if embedded:
        packages(report)
    with report.step("toolchain") as say:
        toolchain.build(None if embedded else pulumi.TOOLS, progress=news(say))
        toolchain.fetch(pulumi.MANIFESTS, progress=news(say))
    if embedded:
        with report.step("images") as say:
            images.build(progress=news(say, "cached"))


def packages(report: Report) -> None:
    """Installs the Debian packages that are missing."""
    if missing := doctor.missing_packages():
        with report.step("packages") as say:
            say(f"apt-get install {' '.join(missing)}")
            _apt(missing)


def news(say: Callable[[str], None], known: str = "") -> Callable[[str, str], None]:
    """A progress callback that passes on everything but what was there already."""

    def tell(name: str, what: str) -> None:
        if what != known:
            say(f"{name}: {what}")

    return tell


def _apt(packages: list[str]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages],
    ):
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SlipwayError(f"{' '.join(command[:2])} failed: {done.stderr.strip()[-1000:]}")


def start_cluster(report: Report) -> None:
    with report.step("cluster") as say:
        if not cluster.running():
            say("clearing what an earlier run left")
            cluster.clean_remains()
        cluster.configure()
        cluster.start_process("registry")
        images.push(progress=news(say, "pushed before"))
        cluster.up(progress=say, warn=report.warn)
        cluster.prefetch()


# --- the platform -----------------------------------------------------------------------------


def apply(report: Report) -> None:
    """Makes what the program declares."""
    _engine(report, "platform", "up")


def destroy(report: Report) -> None:
    """Removes all of it, data included."""
    _engine(report, "destroy", "destroy")


def _engine(report: Report, step: str, command: str) -> None:
    log = paths.state() / "logs" / "pulumi.log"
    changes: list[str] = []

    def hear(line: str) -> None:
        if change := change_in(line):
            changes.append(change[0])
            # What begins is news only once it takes a while.
            if not re.search(r"ing(?: \([0-3]s\))?$", change[1]):
                say(" ".join(change))

    with report.step(step) as say:
        say(f"pulumi {command}")
        options = ("--yes", "--skip-preview", "--non-interactive")
        code = pulumi.follow(STACK, command, *options, log=log, on_line=hear)
        if code:
            why = diagnostics(log.read_text())
            fix = f"see {log}, then do the same again"
            raise SlipwayError(f"pulumi {command} failed\n{why}", fix=fix)
        say(f"{len(set(changes))} resources changed" if changes else "nothing to change")


def change_in(line: str) -> tuple[str, str] | None:
    """Which resource changes and how, of a line in which the engine tells of a change.

    `+  kubernetes:apps/v1:Deployment mlflow created (12s)` is `("mlflow", "created (12s)")`.
    """
    # To look at a resource once more is no change of it.
    found = re.match(r"\s*(?:[-+~]+|\+-) +\S+ (\S+) (?!refresh)(\w+(?: \(\d+s\))?)", line)
    return (found[1], found[2]) if found else None


def diagnostics(said: str) -> str:
    """Why the engine failed, of all that it said."""
    _, heading, tail = said.rpartition("Diagnostics:")
    lines = tail.strip().splitlines()
    return "\n".join(lines[:30] if heading else lines[-15:])


def await_consoles(report: Report, platform: Cluster, seconds: float = 300) -> None:
    """Waits until every console answers: after a restart, what the API server says of the pods is
    for a while what was true before it."""
    deadline = time.monotonic() + seconds
    with report.step("consoles") as say:
        for what, (namespace, name, path, _) in _consoles(platform.outside_forge()).items():
            with platform.service(namespace, name) as url:
                waiting = False
                while not _answers(url + path):
                    if not waiting:
                        say(f"waiting for {what}")
                        waiting = True
                    if time.monotonic() > deadline:
                        raise SlipwayError(
                            f"{what} does not answer after {seconds:.0f} s",
                            fix=f"kubectl -n {namespace} get pods,events",
                        )
                    time.sleep(0.5)


def _consoles(outside: Outside | None) -> dict[str, tuple[str, str, str, str]]:
    """Those that the platform has; a forge that was there before is somebody else's."""
    return {what: at for what, at in CONSOLES.items() if what != GIT or not outside}


def _answers(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(url, timeout=5, trust_env=False).is_success
    return False


def _publish(report: Report, platform: Cluster) -> str:
    with report.step("publish") as say:
        if platform.outside_forge():
            # Nobody pushes past the rules of a team's own forge.
            with platform.forge(administrator=True) as forge:
                commit = published(forge.remote)
            look_again(platform)
            wait_synced(platform, say, "workflows")
            return commit
        username, password = platform.forge_login(administrator=True)
        repository = platform.config("pipelines", "platform")["FORGE_REPOSITORY"]
        with platform.service("forge", "gitea") as url:
            remote = Remote(f"{url}/{repository}.git", username, password)
            commit, moved = publish(
                remote,
                is_foreign=lambda path, content: sources.is_foreign(platform, path, content),
                warn=report.warn,
            )
        if moved:
            say(f"{commit[:12]} is on the forge's main")
            look_again(platform)
        wait_synced(platform, say, "workflows")
        return commit


def look_again(platform: Cluster) -> None:
    """Has the ApplicationSets read git now: after an error, such as a repository that was still
    empty, they wait for minutes."""
    where = "/apis/argoproj.io/v1alpha1/namespaces/argocd/applicationsets"
    for found in platform.items(where):
        refresh = {"argocd.argoproj.io/application-set-refresh": "true"}
        platform.annotate(f"{where}/{found['metadata']['name']}", refresh)


def wait_synced(
    platform: Cluster, say: Callable[[str], None], application: str, seconds: float = 180
) -> None:
    """Waits until Argo CD has synced an application; asks it to look now, not at its next poll."""
    where = f"{APPLICATIONS}/{application}"
    deadline, asked, seen = time.monotonic() + seconds, False, ""
    while True:
        found = patiently(lambda: platform.find(where), say)
        if found and not asked:
            patiently(lambda: platform.annotate(where, {REFRESH: "normal"}), say)
            asked = True
            continue
        status = (found or {}).get("status", {})
        state = " ".join(status.get(what, {}).get("status", "?") for what in ("sync", "health"))
        # It takes the annotation away once it has looked; what it said before is of another commit.
        if state == "Synced Healthy" and not part(found, "metadata", "annotations", REFRESH):
            return
        if time.monotonic() > deadline:
            conditions = "; ".join(c["message"] for c in status.get("conditions", []))
            raise SlipwayError(
                f"Argo CD has not synced {application} in {seconds:.0f} s: {state} {conditions}",
                fix=f"kubectl -n argocd describe application {application}",
            )
        if state != seen:
            say(f"Argo CD: {application} {state}")
            seen = state
        time.sleep(0.5)


# --- the first model --------------------------------------------------------------------------


def _first_release(report: Report, platform: Cluster, commit: str) -> None:
    """Where nothing was ever released the sample model is; where it is released, it answers.

    What people have released since, or no more, is theirs.
    """
    model, env = FIRST_MODEL, FIRST_ENVIRONMENT
    path = str(release.path(env, model))
    with platform.forge(administrator=True) as forge:
        if not training.is_released(forge, model, env):
            # A fork may do without the sample model.
            if not training.has_model(forge, model, commit) or _has_released(forge):
                return
            if platform.outside_forge():
                report.warn(
                    f"{env} serves no {model} yet: within two minutes what is on main is trained "
                    "by itself; merge the pull request that this ends in"
                )
                return
            with report.step("train") as say:
                pull = train(platform, forge, model, commit=commit, environment=env, say=say)
            if pull:
                with report.step("release") as say:
                    merging.merge(forge, pull.number, say=say)
                    say(f"merged {pull.url}")
                    look_again(platform)
        digest = release.parse(forge.read(path), path).bento.digest
    with report.step("serve") as say:
        serving.wait_until_answering(platform, env, model, digest, say=say)
        said = ""
        if example(model).exists():
            answer = serving.predict(platform, env, model, example(model).read_bytes())
            said = f": {json.dumps(answer.prediction)}"
        say(f"{model} in {env} answers{said}")


def _has_released(forge: Forge) -> bool:
    """Whether an environment has a release, or had one that came by a pull request."""
    folders = (str(release.path(env, FIRST_MODEL).parent) for env in release.ENVIRONMENTS)
    if any(file.endswith(".yaml") for folder in folders for file in forge.files(folder)):
        return True
    return any(pull.merged and release.proposes(pull.head) for pull in forge.pulls("all"))


def _inputs() -> str:
    """Hash of what decides the platform's state: the same inputs need no second `pulumi up`.

    That is the checkout as it lies there, whatever of it the program reads.
    """
    files = [
        *(paths.REPOSITORY / name for name in changed()),
        paths.stack_file(STACK),  # may be outside of it, as are these
        paths.images_file(),
        endpoints.kubeconfig(STACK),  # another cluster is another platform
    ]
    sums = [
        f"{file} {hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else '-'}"
        for file in files
    ]
    return hashlib.sha256("\n".join([head(), *sums]).encode()).hexdigest()


def _remember() -> None:
    _mark().write_text(_inputs())


def forget() -> None:
    """What runs is not what the last `make up` left: the next one looks at all of it."""
    _mark().unlink(missing_ok=True)


def _mark() -> Path:
    """Of which inputs the last `make up` ended well."""
    return paths.state() / "up"


def _disk_used() -> int:
    """Bytes in use on the file systems that Slipway writes to."""
    places = {doctor.existing(place) for place in (paths.cache(), paths.data(), paths.state())}
    systems = {place.stat().st_dev: os.statvfs(place) for place in places}
    return sum((s.f_blocks - s.f_bfree) * s.f_frsize for s in systems.values())


@contextmanager
def _disk_peak(every_s: float = 1.0) -> Generator[Callable[[], int]]:
    """What the body gets says by how many bytes the disk in use has grown, at its most."""
    before = _disk_used()
    most, ended = before, threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.wait(every_s):
            most = max(most, _disk_used())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield lambda: max(most, _disk_used()) - before
    finally:
        ended.set()
        thread.join()


def times_file() -> Path:
    """JSON: what the last run of each of KINDS, of destroy and of `make check` took. See
    `slipway bench`."""
    return paths.cache() / "up-times.json"  # outlives `make down ERASE=1`, which one kind needs


def _kind() -> str | None:
    """Which first run this is; None when there is a cluster, or some of the toolchain."""
    if (cluster.KUBERNETES / "admin.conf").exists():
        return None
    if not toolchain.missing():
        return "cached"
    return None if any(tool.built for tool in toolchain.tools().values()) else "cold"


def _remember_time(kind: str | None, seconds: float, disk_peak: int) -> None:
    if kind is None:
        return
    # Began with `make`, whose first step is the Python environment.
    begun = float(os.environ.get("SLIPWAY_BEGUN") or 0)
    took = datetime.now(UTC).timestamp() - begun if begun else seconds
    record(kind, took, disk_peak=disk_peak)


def record(kind: str, seconds: float, **more: int) -> None:
    """Keeps how long something took that no bench can do, and what else is known of it."""
    ended = datetime.now(UTC)
    times = json.loads(times_file().read_text()) if times_file().exists() else {}
    times[kind] = {
        "seconds": round(seconds, 1),
        **more,
        "ended": ended.isoformat(timespec="seconds"),
        "commit": head(),
    }
    times_file().parent.mkdir(parents=True, exist_ok=True)
    times_file().write_text(json.dumps(times, indent=2))


def nothing_to_do() -> bool:
    """True when the last `make up` ended well on these inputs and everything still answers."""
    if not _mark().exists() or _mark().read_text() != _inputs():
        return False
    try:
        return all_ready() and _sample_answers()
    except (ClusterError, ForgeError):
        return False  # why, says who goes all the way


def _sample_answers() -> bool:
    """Whether the sample model does, where the forge releases it."""
    platform = Cluster.connect()
    with platform.forge(administrator=True) as forge:
        released = training.is_released(forge, FIRST_MODEL, FIRST_ENVIRONMENT)
    return not released or bool(serving.answering(platform, FIRST_ENVIRONMENT, FIRST_MODEL))


def all_ready() -> bool:
    """True when the cluster runs and every pod that controllers want is ready: of those in the
    platform's namespaces, where the cluster is not Slipway's own.

    Raises:
        ClusterError: it does not answer.
    """
    if pulumi.is_embedded(STACK) and not cluster.is_up():
        return False
    platform = Cluster.connect()
    labels = {} if platform.embedded else {"labelSelector": "app.kubernetes.io/part-of=slipway"}
    namespaces = platform.items("/api/v1/namespaces", **labels)
    ours = {namespace["metadata"]["name"] for namespace in namespaces}
    kinds = ("deployments", "statefulsets", "daemonsets")
    return all(
        _is_ready(item)
        for kind in kinds
        for item in platform.items(f"/apis/apps/v1/{kind}")
        if item["metadata"]["namespace"] in ours
    )


def _is_ready(item: dict[str, Any]) -> bool:
    status = item["status"]
    wanted = status.get("desiredNumberScheduled", item["spec"].get("replicas", 0))
    return status.get("readyReplicas", status.get("numberReady", 0)) >= wanted


def summary(console: Console) -> None:
    """Addresses, where the credentials are, and what to try next."""
    platform = Cluster.connect()
    if outside := platform.outside_forge():
        where = f"{outside.url}/{outside.repository}"
        console.print(f"{GIT:<15} {where:<24} login: your own", soft_wrap=True)
    for what, (namespace, name, _, credentials) in _consoles(outside).items():
        found = platform.find(f"/api/v1/namespaces/{namespace}/services/{name}") or {}
        port = part(found, "spec", "ports")[0].get("nodePort") if found else None
        address = f"http://127.0.0.1:{port}" if port else f"service {namespace}/{name}"
        console.print(f"{what:<15} {address:<24} {credentials}", soft_wrap=True)
    console.print(f"kubeconfig: {endpoints.kubeconfig()}", soft_wrap=True)
    sample = f"{FIRST_ENVIRONMENT}-{release.service(FIRST_MODEL)}"
    runs = platform.find(f"{APPLICATIONS}/{sample}")
    look = f"trace {FIRST_MODEL} --env {FIRST_ENVIRONMENT}" if runs else "status"
    console.print(f"next: .venv/bin/slipway {look}")
