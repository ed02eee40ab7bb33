"""`make up`: from nothing to a model that answers, in steps that may each be run again."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from slipway import cluster, doctor, images, paths, publish, pulumi, release, toolchain
from slipway.errors import BadInput, SlipwayError
from slipway.forge import Gitea

STACK = "local"
FIRST_MODEL, FIRST_ENVIRONMENT = "flight_delay", "dev"
REPOSITORY = "slipway/slipway"


@dataclass
class Report:
    """Tells what happens, all along: a spinner on a terminal, plain lines elsewhere."""

    console: Console = field(default_factory=lambda: Console(highlight=False))
    changed: bool = False

    @contextmanager
    def step(self, name: str) -> Generator[Callable[[str], None]]:
        """One step. The body calls what it gets with the news; only a step with news is shown."""
        started = time.monotonic()
        news: list[str] = []
        with self.console.status(f"[bold]{name}[/]") as spinner:

            def say(text: str) -> None:
                news.append(text)
                self.changed = True
                spinner.update(f"[bold]{name}[/] {text}")
                if not self.console.is_terminal:
                    self.console.print(f"    {name}: {text}", markup=False)

            try:
                yield say
            except BaseException:
                self.console.print(f"[red]✗[/] {name}")
                raise
        took = time.monotonic() - started
        if news:
            self.console.print(f"[green]✓[/] {name:<12} {took:6.1f} s  [dim]{news[-1]}[/]")


def up(console: Console) -> None:
    """Brings everything up and shows a summary; says so when there was nothing to do.

    Raises:
        SlipwayError: a step failed; running it again goes on from there.
    """
    report = Report(console)
    embedded = not os.environ.get("KUBECONFIG")
    started = time.monotonic()
    if embedded and _nothing_to_do():
        console.print(f"[green]✓[/] nothing to do: it runs ({time.monotonic() - started:.1f} s)")
        summary(console)
        return
    examine(console, embedded=embedded)
    if embedded:
        _machine(report)
        _cluster(report)
    _platform(report)
    commit = _publish(report)
    _first_release(report, commit)
    _remember()
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
    table = Table(box=None, show_header=False, padding=(0, 1))
    marks = {"ok": "[green]✓[/]", "todo": "[yellow]·[/]", "failed": "[red]✗[/]"}
    for finding in findings:
        table.add_row(marks[finding.state], finding.what, finding.detail)
    console.print(table)
    if seconds := sum(f.seconds for f in findings):
        console.print(f"to do: about {max(1, round(seconds / 60))} min on this machine")
    if failed := [f for f in findings if f.state == "failed"]:
        raise BadInput(f"{failed[0].what}: {failed[0].detail}", fix=failed[0].fix)


# --- the machine, the cluster -----------------------------------------------------------------


def _machine(report: Report) -> None:
    if missing := doctor.missing_packages():
        with report.step("packages") as say:
            say(f"apt-get install {' '.join(missing)}")
            _apt(missing)
    with report.step("toolchain") as say:
        toolchain.build(progress=lambda tool, what: say(f"{tool}: {what}"))
    with report.step("images") as say:
        images.build(progress=lambda image, what: say(f"{image}: {what}"))


def _apt(packages: list[str]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages],
    ):
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SlipwayError(f"{' '.join(command[:2])} failed: {done.stderr.strip()[-1000:]}")


def _cluster(report: Report) -> None:
    with report.step("cluster") as say:
        if not cluster.running():
            say("clearing what an earlier run left")
            cluster.clean_remains()
        cluster.configure()
        cluster.start_process("registry")
        images.push(progress=lambda image, what: say(f"image {image}: {what}"))
        cluster.up(progress=say)


# --- the platform -----------------------------------------------------------------------------


def _platform(report: Report) -> None:
    with report.step("platform") as say:
        say("pulumi up")
        log = paths.state() / "logs" / "pulumi.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        done = pulumi.run(STACK, "up", "--yes", "--skip-preview", "--non-interactive", capture=True)
        log.write_text(done.stdout)
        if done.returncode:
            tail = "\n".join(done.stdout.splitlines()[-25:])
            raise SlipwayError(f"pulumi up failed\n{tail}", fix=f"see {log}, then `make up` again")
        changes = [line.strip() for line in done.stdout.splitlines() if line.startswith("    ")]
        say(", ".join(c for c in changes if c[:1] in "+~-±" or c[:1].isdigit()) or "no changes")


def secret(namespace: str, name: str) -> dict[str, str]:
    """The decoded content of a Kubernetes Secret."""
    found = cluster.kubectl("-n", namespace, "get", "secret", name, "-o", "json")
    data = json.loads(found).get("data") or {}
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def forge() -> Gitea:
    """The forge, as its administrator, from this machine."""
    admin = secret("forge", "gitea-admin")
    return Gitea(_forge_url(), REPOSITORY, admin["username"], admin["password"])


def _forge_url() -> str:
    port = "jsonpath={.spec.ports[0].nodePort}"
    return f"http://127.0.0.1:{cluster.kubectl('-n', 'forge', 'get', 'svc', 'gitea', '-o', port)}"


def _publish(report: Report) -> str:
    with report.step("publish") as say:
        admin = secret("forge", "gitea-admin")
        url = f"{_forge_url()}/{REPOSITORY}.git"
        commit = publish.publish(publish.Remote(url, admin["username"], admin["password"]))
        say(f"{commit[:12]} is on the forge's main")
        _wait_synced(say, "workflows")
        return commit


def _wait_synced(say: Callable[[str], None], application: str, seconds: float = 180) -> None:
    """Waits until Argo CD has synced an application; asks it to look now, not at its next poll."""
    what = ("-n", "argocd", "application", application)
    deadline = time.monotonic() + seconds
    refresh = "argocd.argoproj.io/refresh=normal"
    cluster.kubectl("annotate", "--overwrite", *what, refresh, check=False)
    while True:
        path = "jsonpath={.status.sync.status} {.status.health.status}"
        state = cluster.kubectl("get", *what, "-o", path, check=False).split()
        if state == ["Synced", "Healthy"]:
            return
        if time.monotonic() > deadline:
            raise SlipwayError(
                f"Argo CD has not synced {application} in {seconds:.0f} s: {' '.join(state)}",
                fix=f"kubectl -n argocd describe application {application}",
            )
        say(f"Argo CD: {application} {' '.join(state) or 'not seen yet'}")
        time.sleep(1)


# --- the first model --------------------------------------------------------------------------


def _first_release(report: Report, commit: str) -> None:
    from slipway.commands import predict, train

    client = forge()
    path = str(release.path(FIRST_ENVIRONMENT, FIRST_MODEL))
    if path not in client.files(str(Path(path).parent)):
        with report.step("train") as say:
            train.train(FIRST_MODEL, commit=commit, environment=FIRST_ENVIRONMENT, say=say)
        with report.step("release") as say:
            pull = client.find_release(FIRST_ENVIRONMENT, FIRST_MODEL)
            client.merge(pull.number)
            say(f"merged {pull.url}")
    with report.step("serve") as say:
        digest = release.parse(client.read(path), path).bento.digest
        say(f"waiting for {FIRST_MODEL} {digest[:19]}")
        predict.wait_until_answering(FIRST_MODEL, FIRST_ENVIRONMENT, digest, say=say)


def _inputs() -> str:
    """Hash of what decides the platform's state: the same inputs need no second `pulumi up`."""
    files = [
        *(paths.REPOSITORY / "infra").rglob("*"),
        *(paths.REPOSITORY / "toolchain").rglob("*"),
        paths.REPOSITORY / "environments" / f"Pulumi.{STACK}.yaml",
        paths.images_file(),
    ]
    sums = [
        f"{file} {hashlib.sha256(file.read_bytes()).hexdigest()}"
        for file in sorted(files)
        if file.is_file() and "__pycache__" not in file.parts
    ]
    return hashlib.sha256("\n".join([publish.head(), *sums]).encode()).hexdigest()


def _remember() -> None:
    (paths.state() / "up").write_text(_inputs())


def _nothing_to_do() -> bool:
    """True when the last `make up` ended well on these inputs and everything still answers."""
    from slipway.commands import predict

    mark = paths.state() / "up"
    if not mark.exists() or not cluster.is_up() or mark.read_text() != _inputs():
        return False
    kinds = "deployments,statefulsets,daemonsets"
    found = json.loads(cluster.kubectl("get", kinds, "-A", "-o", "json", check=False) or "{}")
    return all(_is_ready(item) for item in found.get("items", [])) and predict.answers(
        FIRST_MODEL, FIRST_ENVIRONMENT
    )


def _is_ready(item: dict[str, dict[str, int]]) -> bool:
    status, wanted = item["status"], item["spec"].get("replicas", 1)
    if item["kind"] == "DaemonSet":
        return status.get("numberReady", 0) == status.get("desiredNumberScheduled", 0)
    return status.get("readyReplicas", 0) >= wanted


def summary(console: Console) -> None:
    """Addresses, where the credentials are, and what to try next."""
    table = Table(box=None, show_header=False, padding=(0, 2))
    rows = {
        "git forge": ("forge", "gitea", "secret forge/gitea-admin"),
        "Argo CD": (
            "argocd",
            "argocd-server",
            "secret argocd/argocd-initial-admin-secret, user admin",
        ),
        "MLflow": ("mlflow", "mlflow", "none: reachable from this machine only"),
        "Argo Workflows": ("argo", "argo-server", "none: reachable from this machine only"),
        "MinIO (S3)": ("storage", "minio", "secret storage/minio-root"),
    }
    path = "jsonpath={.spec.ports[0].nodePort}"
    for what, (namespace, service, credentials) in rows.items():
        port = cluster.kubectl("-n", namespace, "get", "svc", service, "-o", path, check=False)
        table.add_row(
            what, f"http://127.0.0.1:{port}" if port else f"{service}.{namespace}", credentials
        )
    console.print(table)
    console.print(f"kubeconfig: {paths.kubeconfig()}")
    console.print(f"next: [bold].venv/bin/slipway trace {FIRST_MODEL} --env {FIRST_ENVIRONMENT}[/]")
