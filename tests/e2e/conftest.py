"""The platform's flows through its front door: commands, git, HTTP. In the order of the files."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slipway import cluster, paths
from slipway.endpoints import Cluster
from slipway.forge import Gitea

MODEL, ENV = "flight_delay", "dev"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "e2e" in item.path.parts:
            item.add_marker(pytest.mark.cluster)


def run(*arguments: str, code: int | None = 0, timeout: float = 3600) -> str:
    """Runs `slipway ARGUMENTS` as a user would; returns stdout and stderr together."""
    command = [str(Path(sys.executable).with_name("slipway")), *arguments]
    done = subprocess.run(
        command,
        cwd=paths.REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    if code is not None:
        assert done.returncode == code, f"slipway {' '.join(arguments)}:\n{done.stdout}"
    return done.stdout


@pytest.fixture(scope="session")
def slipway() -> Callable[..., str]:
    return run


@pytest.fixture(scope="session", autouse=True)
def running(slipway: Callable[..., str]) -> None:
    """The platform is up before the first test; on a running one this changes nothing."""
    slipway("up")


@pytest.fixture
def platform() -> Cluster:
    return Cluster.connect()


@pytest.fixture
def forge(platform: Cluster) -> Iterator[Gitea]:
    with platform.forge() as client:
        yield client


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
    }
    for file, question in questions.items():
        try:
            answer = cluster.kubectl(*question, check=False)
        except Exception as error:
            answer = str(error)
        (folder / f"{file}.txt").write_text(answer)
    return folder
