"""The platform's flows through its front door: commands, git, HTTP. In the order of the files."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from slipway import cluster, merging, paths, release, serving, training
from slipway.endpoints import Cluster, part
from slipway.forge import Gitea, NotFound, PullRequest
from slipway.release import Release

if TYPE_CHECKING:
    from .kept import Kept

MODEL, ENV = "flight_delay", "dev"
# Of Pulumi, which would ask.
SETTINGS = ("--yes", "--skip-preview", "--non-interactive")
SLIPWAY = str(Path(sys.executable).with_name("slipway"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "e2e" in item.path.parts:
            item.add_marker(pytest.mark.cluster)


def run(
    *arguments: str,
    code: int | None = 0,
    timeout: float = 3600,
    who: Mapping[str, str] | None = None,
) -> str:
    """Runs `slipway ARGUMENTS` as a user would, `who` being who one is on the forge; returns stdout
    and stderr together."""
    done = subprocess.run(
        [SLIPWAY, *arguments],
        cwd=paths.REPOSITORY,
        env=os.environ | (who or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    if code is not None:
        assert done.returncode == code, f"slipway {' '.join(arguments)}:\n{done.stdout}"
    return done.stdout


def document(*arguments: str, code: int = 0) -> Any:
    """What `slipway ARGUMENTS -o json` shows, without what it says besides."""
    command = [SLIPWAY, *arguments, "-o", "json"]
    done = subprocess.run(command, cwd=paths.REPOSITORY, capture_output=True, text=True)
    assert done.returncode == code, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"
    return json.loads(done.stdout)


@pytest.fixture(scope="session")
def slipway() -> Callable[..., str]:
    return run


@pytest.fixture(scope="session", autouse=True)
def running(slipway: Callable[..., str]) -> None:
    """The platform is up before the first test; on a running one this changes nothing."""
    slipway("up")


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    """A backup, for tests that take away what the platform has. When the last of them has ended,
    whichever failed, the platform has it again."""
    from .kept import Kept

    made = Kept.take(tmp_path_factory.mktemp("kept"))
    yield made
    if made.lost:
        run(*made.restore, "--replace")
        made.check()


@pytest.fixture
def platform() -> Cluster:
    return Cluster.connect()


@pytest.fixture
def forge(platform: Cluster) -> Iterator[Gitea]:
    with platform.forge() as client:
        yield client


@pytest.fixture
def api(platform: Cluster) -> Iterator[httpx.Client]:
    """The forge's own API on the repository, as its administrator: what `Forge` does not ask."""
    admin = platform.secret("forge", "gitea-admin")
    with as_user(platform, admin["username"], admin["password"]) as client:
        yield client


@contextmanager
def as_user(platform: Cluster, username: str, password: str) -> Iterator[httpx.Client]:
    """The forge's own API on the repository."""
    repository = platform.config("pipelines", "platform")["FORGE_REPOSITORY"]
    with (
        platform.service("forge", "gitea") as url,
        httpx.Client(
            base_url=f"{url}/api/v1/repos/{repository}/",
            auth=(username, password),
            timeout=30,
            trust_env=False,
        ) as client,
    ):
        yield client


@contextmanager
def login(api: httpx.Client, name: str) -> Iterator[dict[str, str]]:
    """Somebody who may read on the forge and not write, as commands are told of it."""
    users = str(api.base_url).partition("/repos/")[0] + "/admin/users"
    password = secrets.token_urlsafe(24)
    person = {"username": name, "password": password, "must_change_password": False}
    person["email"] = f"{name}@slipway.invalid"
    api.post(users, json=person).raise_for_status()
    try:
        api.put(f"collaborators/{name}", json={"permission": "read"}).raise_for_status()
        yield {"FORGE_USERNAME": name, "FORGE_PASSWORD": password}
    finally:
        api.delete(f"{users}/{name}", params={"purge": "true"})


def until(what: Callable[[], Any], seconds: float, message: str, every_s: float = 0.5) -> Any:
    """What `what` gives once that is true."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, message
        time.sleep(every_s)
    return found


# --- releases and pull requests ---------------------------------------------------------------


def released(forge: Gitea, env: str, model: str = MODEL) -> Release | None:
    """What main says that an environment runs."""
    path = str(release.path(env, model))
    try:
        return release.parse(forge.read(path), path)
    except NotFound:
        return None


def propose(
    forge: Gitea, files: Mapping[str, bytes | None], title: str, branch: str = ""
) -> PullRequest:
    """A pull request with one commit, on a branch of its own."""
    branch = branch or f"test/{secrets.token_hex(4)}"
    forge.write(branch, files, title)
    return forge.open(branch, title, "")


def number_in(output: str) -> int:
    """The pull request that a command names."""
    found = re.findall(r"/pulls/(\d+)", output)
    assert found, output
    return int(found[-1])


def verdict(forge: Gitea, number: int, seconds: float = 180) -> str:
    """What the gates say of a pull request's present head, once they have looked."""

    def state() -> str | None:
        found = forge.statuses(forge.pull(number).sha).get(merging.CONTEXT)
        # What could not be judged is looked at again.
        return None if found in (None, "pending", "error") else found

    return str(until(state, seconds, f"no verdict on pull request {number}"))


def comment(forge: Gitea, number: int) -> str:
    """The gates' comment: there is one, however often they have looked."""
    found = [c.body for c in forge.comments(number) if "slipway-check" in c.body.splitlines()[0]]
    assert len(found) == 1, found
    return found[0]


def judged_after(api: httpx.Client, forge: Gitea, number: int) -> float:
    """Seconds from the push of a pull request's head to its verdict, by the forge's clock."""
    sha = forge.pull(number).sha
    commit = api.get(f"git/commits/{sha}").raise_for_status().json()
    reports = api.get(f"commits/{sha}/statuses").raise_for_status().json()
    verdicts = [
        datetime.fromisoformat(report["created_at"])
        for report in reports
        if report["context"] == merging.CONTEXT and report["status"] in ("success", "failure")
    ]
    pushed = datetime.fromisoformat(commit["commit"]["committer"]["date"])
    return (min(verdicts) - pushed).total_seconds()


def merge(forge: Gitea, platform: Cluster, number: int, env: str, seconds: float = 180) -> Release:
    """Merges what the gates let in, and waits until the environment answers with its bento."""
    merging.merge(forge, number)
    merged = released(forge, env)
    assert merged
    serving.wait_until_answering(platform, env, MODEL, merged.bento.digest, timeout_s=seconds)
    return merged


def with_password(forge: Gitea) -> str:
    """The repository's address. Only for git, and for the time of a test."""
    remote = forge.remote
    return remote.url.replace("://", f"://{remote.username}:{remote.password}@", 1)


def git(place: Path | None, *arguments: str) -> str:
    own = ("-c", "user.name=tester", "-c", "user.email=tester@slipway.invalid", "-c", "http.proxy=")
    done = subprocess.run(["git", *own, *arguments], cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- workflows --------------------------------------------------------------------------------


def workflows(platform: Cluster, template: str) -> dict[str, str]:
    """Name to phase of every workflow that was made from a template."""
    return {
        item["metadata"]["name"]: part(item, "status", "phase") or ""
        for item in platform.items(f"{training.API}/workflows")
        if part(item, "spec", "workflowTemplateRef", "name") == template
    }


def sweep(platform: Cluster) -> str:
    """What happens every two minutes, now; the workflow's name."""
    body = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"generateName": "sweep-now-"},
        "spec": {"workflowTemplateRef": {"name": "sweep"}},
    }
    name = platform.create(f"{training.API}/workflows", body)["metadata"]["name"]
    until(
        lambda: workflows(platform, "sweep").get(name, "") not in training.RUNNING,
        300,
        "the sweep does not end",
    )
    return str(name)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failure leaves behind what tells why."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed and "e2e" in item.path.parts:
        report.sections.append(("the cluster", f"logs: {_diagnose(item.name)}"))


def _diagnose(name: str) -> Path:
    folder = paths.state() / "logs" / "e2e" / "".join(c if c.isalnum() else "-" for c in name)
    folder.mkdir(parents=True, exist_ok=True)
    questions = {
        "pods": ("get", "pods", "-A", "-o", "wide"),
        "events": ("get", "events", "-A", "--sort-by=.lastTimestamp"),
        "workflows": ("get", "workflows", "-A", "-o", "yaml"),
        "applications": ("get", "applications", "-A", "-o", "yaml"),
        "nodes": ("describe", "nodes"),
        "apiserver": ("-n", "kube-system", "logs", "-l", "component=kube-apiserver", "--tail=500"),
    }
    for file, question in questions.items():
        try:
            answer = cluster.kubectl(*question, check=False)
        except Exception as error:
            answer = str(error)
        (folder / f"{file}.txt").write_text(answer)
    return folder
