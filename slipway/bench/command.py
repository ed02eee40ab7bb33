"""Commands that have nothing to do, timed; and what the runs took that had."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slipway import paths, pulumi, toolchain, up
from slipway.bench.figures import GB, Figure
from slipway.endpoints import Cluster
from slipway.errors import SlipwayError

NOT_YET = "not measured yet"


def installs(_: Cluster | None, say: Callable[[str], None]) -> list[Figure]:
    """What the last `make up` of each kind recorded: no bench can begin with nothing."""
    say("reading what make up recorded")
    figures = [_recorded(f"up-{kind}", kind, "make up") for kind in up.KINDS]
    times = _times()
    peaks = {kind: times[kind].get("disk_peak") for kind in up.KINDS if kind in times}
    peaks = {kind: peak for kind, peak in peaks.items() if peak is not None}
    if not peaks:
        return [*figures, Figure("disk-peak", None, NOT_YET)]
    kind = max(peaks, key=lambda kind: peaks[kind])
    how = f"disk in use above what it was when make up, {kind}, began"
    return [*figures, Figure("disk-peak", peaks[kind] / GB, how, "", {"bytes": peaks})]


def destroyed(_: Cluster | None, say: Callable[[str], None]) -> list[Figure]:
    """What the last `slipway pulumi destroy` recorded: no bench removes what it measures."""
    say("reading what pulumi destroy recorded")
    return [_recorded("destroy", "destroy", "pulumi destroy")]


def checked(_: Cluster | None, say: Callable[[str], None]) -> list[Figure]:
    """What the last `make check` that passed recorded: it is minutes, and no part of a bench."""
    say("reading what make check recorded")
    return [_recorded("make-check", "make-check", "make check")]


def _times() -> dict[str, Any]:
    file = up.times_file()
    return json.loads(file.read_text()) if file.exists() else {}


def _recorded(name: str, kind: str, what: str) -> Figure:
    found = _times().get(kind)
    if not found:
        return Figure(name, None, NOT_YET)
    how = f"{what} that ended {found['ended']}, commit {found['commit'][:12]}"
    return Figure(name, found["seconds"], how)


def no_op_up(_: Cluster | None, say: Callable[[str], None]) -> list[Figure]:
    """`slipway up` on a platform that runs."""
    say("slipway up")
    if not up.nothing_to_do():
        raise SlipwayError("`slipway up` has something to do", fix="run `make up` first")
    seconds, output = timed("up")
    if "nothing to do" not in output:
        raise SlipwayError(f"`slipway up` had something to do:\n{output[-500:]}")
    return [Figure("up", seconds, "wall clock of the process, Python's start included")]


def pulumi_up(_: Cluster | None, say: Callable[[str], None]) -> list[Figure]:
    """`pulumi up` as an engineer runs it, preview included, without any change."""
    options = ("--non-interactive", "--suppress-progress")
    say("pulumi preview: is there nothing to change?")
    preview_s, _output = timed("pulumi", "preview", "--expect-no-changes", *options)
    say("pulumi up")
    seconds, _output = timed("pulumi", "up", "--yes", "--expect-no-changes", *options)
    say("pulumi up --skip-preview")
    update_s, _output = timed(
        *("pulumi", "up", "--yes", "--expect-no-changes", "--skip-preview"), *options
    )
    how = f"pulumi up --yes with its preview; {update_s:.1f} s with --skip-preview"
    details = {"preview_seconds": preview_s, "skip_preview_seconds": update_s}
    return [Figure("pulumi-up", seconds, how, "", details)]


def preview(_: Cluster | None, say: Callable[[str], None]) -> list[Figure]:
    """The program of each stack on AWS, run whole against the tests' mocks of the engine."""
    stacks = pulumi.on_aws()
    toolchain.fetch(pulumi.MANIFESTS_ON_AWS)
    # As the engine runs it: thousands of modules are compiled once.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    details: dict[str, float] = {}
    for stack in stacks:
        say(f"stack {stack}, against mocks")
        program = [sys.executable, "-m", "tests.manifests.program", stack]
        failed = f"the program of stack {stack}", "run `make check`"
        if not details:
            _run(program, *failed, environment)
        details[stack], output = _run(program, *failed, environment)
        say(f"stack {stack}: {output.strip()}")
    slowest = max(details, key=lambda stack: details[stack], default="")
    how = f"stack {slowest}, the slowest of {len(stacks)}; no engine, no provider"
    return [Figure("preview", details[slowest] if slowest else None, how, "", details)]


def timed(*arguments: str) -> tuple[float, str]:
    """Runs `slipway ARGUMENTS`: seconds, and what it said.

    Raises:
        SlipwayError: it failed.
    """
    command = [str(Path(sys.executable).with_name("slipway")), *arguments]
    return _run(command, f"slipway {' '.join(arguments[:2])}", "run `make up` first")


def _run(
    command: list[str], what: str, fix: str, environment: dict[str, str] | None = None
) -> tuple[float, str]:
    began = time.monotonic()
    done = subprocess.run(
        command, cwd=paths.REPOSITORY, env=environment, capture_output=True, text=True
    )
    seconds = time.monotonic() - began
    output = done.stdout + done.stderr
    if done.returncode:
        raise SlipwayError(f"{what} failed\n{output.strip()[-1500:]}", fix=fix)
    return seconds, output
