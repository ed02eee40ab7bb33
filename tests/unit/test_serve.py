"""How a replica serves a bento: in one process, but for what only BentoML's supervisor can run."""

from __future__ import annotations

import copy
import fcntl
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from slipway.chart import CHART

SCRIPT = CHART / "files" / "serve.py"
DESCRIPTION: dict[str, Any] = {
    "service": "service:Toy",
    "name": "toy",
    "version": "1",
    "bentoml_version": "1.4.0",
    "creation_time": "2026-01-01T00:00:00+00:00",
    "labels": {},
    "models": [],
    "entry_service": "Toy",
    "services": [{"name": "Toy", "service": "", "models": [], "dependencies": [], "config": {}}],
    "envs": [],
    "schema": {"name": "Toy", "type": "service", "routes": [{"name": "predict", "is_task": False}]},
    "args": {},
    "spec": 2,
}
SERVICE = """
import asyncio
import os

import bentoml


@bentoml.service
class Toy:
    @bentoml.api
    async def predict(self, seconds: float) -> int:
        await asyncio.sleep(seconds)
        return os.getpid()
"""


def bento(
    folder: Path, change: Callable[[Any], None] = lambda _: None, code: str = SERVICE
) -> Path:
    description = copy.deepcopy(DESCRIPTION)
    change(description)
    (folder / "src").mkdir()
    (folder / "src" / "service.py").write_text(code)
    (folder / "bento.yaml").write_text(yaml.safe_dump(description))
    return folder


def config(**values: Any) -> Callable[[Any], None]:
    return lambda description: description["services"][0]["config"].update(values)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda _: None, ""),
        (config(workers=1, traffic={"timeout": 10}), ""),
        (config(workers=2), "workers"),
        (config(workers="cpu_count"), "workers"),
        (config(resources={"gpu": 1}), ""),
        (lambda d: d["services"].append(d["services"][0]), "dependent services"),
        (lambda d: d["services"][0]["dependencies"].append("Other"), "dependent services"),
        (lambda d: d["models"].append({"tag": "a:b"}), "models or variables"),
        (lambda d: d["envs"].append({"name": "X", "value": "1"}), "models or variables"),
        (lambda d: d["schema"]["routes"][0].update(is_task=True), "tasks"),
    ],
)
def test_what_needs_a_supervisor_gets_one(
    tmp_path: Path, change: Callable[[Any], None], why: str
) -> None:
    found = runpy.run_path(str(SCRIPT))["needs_supervisor"](bento(tmp_path, change))
    assert why in found
    assert bool(why) == bool(found)


def test_a_hook_needs_one_too(tmp_path: Path) -> None:
    code = SERVICE.replace("    @bentoml.api", "    @bentoml.on_deployment\n    def it(): ...\n")
    assert runpy.run_path(str(SCRIPT))["needs_supervisor"](bento(tmp_path, code=code)) == "hooks"


def is_held(lock: Path) -> bool:
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_until_its_last_process_is_gone_its_log_may_grow(tmp_path: Path) -> None:
    lock = tmp_path / "writing"
    code = (
        "import os, runpy, subprocess, sys\n"
        "runpy.run_path(sys.argv[1])['hold'](sys.argv[2])\n"
        # As a supervisor does: another program in this one's place, and a child.
        "os.execvp('sh', ['sh', '-c', 'cat & exec cat'])"
    )
    command = [sys.executable, "-c", code, SCRIPT, tmp_path / "log.jsonl"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not (lock.exists() and is_held(lock)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert process.returncode == 0
    assert not is_held(lock)


@pytest.mark.slow
def test_one_process_answers_and_finishes_what_it_has_begun(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path / "bento"
    folder.mkdir()
    home = {"BENTOML_HOME": str(tmp_path / "home"), "BENTOML_DO_NOT_TRACK": "true"}
    command = [sys.executable, SCRIPT, bento(folder), str(port), "20"]
    process = subprocess.Popen(command, env={**os.environ, **home})
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                httpx.get(f"{url}/livez").raise_for_status()
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline
                assert process.poll() is None
                time.sleep(0.1)
        with ThreadPoolExecutor() as pool:
            asked = pool.submit(httpx.post, f"{url}/predict", json={"seconds": 2}, timeout=30)
            time.sleep(0.5)
            process.send_signal(signal.SIGTERM)
            assert json.loads(asked.result().text) == process.pid
        process.wait(20)
        assert process.returncode in (0, -signal.SIGTERM)
    finally:
        process.kill()
