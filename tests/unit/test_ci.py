""".ci/run: what it runs, that it hides no failure, and what it leaves."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from slipway import paths

OUTSIDE = ("/run/slipway", "/etc/kubernetes", "/var/lib/kubelet", "/var/log/pods")
LAST = ["make down", "slipway doctor --leftovers", "make down ERASE=1"]
ALL = ["make down ERASE=1", "make up", "make test", *LAST]


class Machine:
    """A checkout where `make` and `slipway` only note that they were called; one call may fail."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log, self.failed = folder, folder / "log", folder / "tmp"
        self.failed.mkdir()
        text = (paths.REPOSITORY / ".ci" / "run").read_text()
        for place in OUTSIDE:
            assert place in text
            text = text.replace(place, f"{folder}{place}")
        self.script = self.program(folder / ".ci" / "run", text)

    def program(self, file: Path, text: str) -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)
        return file

    def run(self, failing: str = "", *, erases: bool = True) -> int:
        logs, pods = self.folder / "state/slipway/logs", f"{self.folder}/var/log/pods"
        script = f"""#!/bin/sh
            call="${{0##*/}} $*"
            echo "$call" >>{self.log}
            case $call in
                "make up") mkdir -p {logs} {pods}/pod && echo why >{logs}/pulumi.log;;
                "make down ERASE=1") {"rm -rf" if erases else ":"} {self.folder}/state {pods};;
            esac
            [ "$call" != "{failing}" ] || exit 7
        """
        for place in ("bin/make", ".venv/bin/slipway"):
            self.program(self.folder / place, script)
        environment = {
            "PATH": f"{self.folder}/bin:/usr/bin:/bin",
            **{"HOME": str(self.folder), "TMPDIR": str(self.failed)},
            **{"XDG_DATA_HOME": f"{self.folder}/data", "XDG_STATE_HOME": f"{self.folder}/state"},
        }
        return subprocess.run([self.script], env=environment, capture_output=True).returncode

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().splitlines()

    @property
    def kept(self) -> list[str]:
        return sorted(file.name for folder in self.failed.iterdir() for file in folder.iterdir())


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_what_goes_well_leaves_nothing(machine: Machine) -> None:
    assert machine.run() == 0
    assert machine.calls == ALL
    assert machine.kept == []


@pytest.mark.parametrize("failing", ["make up", "make test"])
def test_a_failure_is_not_hidden_and_its_logs_are_kept(machine: Machine, failing: str) -> None:
    assert machine.run(failing) == 7
    assert machine.calls == [*ALL[: ALL.index(failing) + 1], *LAST]
    assert machine.kept == ["logs", "pods"]
    assert not (machine.folder / "state").exists()


@pytest.mark.parametrize("failing", LAST[:2])
def test_what_does_not_stop_or_is_left_running_is_a_failure(machine: Machine, failing: str) -> None:
    assert machine.run(failing) == 1
    assert machine.calls == ALL[: ALL.index(failing) + 1]


def test_what_is_not_erased_is_a_failure(machine: Machine) -> None:
    assert machine.run(erases=False) == 1
    assert machine.calls == ALL
