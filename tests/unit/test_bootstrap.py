"""toolchain/bootstrap: where it refuses, before anything is changed, and what it does elsewhere."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from slipway import doctor, paths


class Machine:
    """A checkout and a PATH of its own; every program that would change something only says so."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.checkout, self.log = folder, folder / "checkout", folder / "log"
        self.programs = folder / "bin"
        self.programs.mkdir()
        self.release = folder / "debian_version"
        self.release.touch()
        (self.checkout / "toolchain").mkdir(parents=True)
        for name in ("requirements/all.txt", "requirements/uv.txt", "pyproject.toml"):
            (self.checkout / name).parent.mkdir(exist_ok=True)
            (self.checkout / name).write_text(f"{name}\n")
        script = (paths.REPOSITORY / "toolchain" / "bootstrap").read_text()
        # Absolute paths are this machine's; these are the other one's.
        for there, here in {
            "/etc/debian_version": self.release,
            "/usr/bin/python3": self.programs / "python3",
            "/proc/meminfo": self.folder / "meminfo",
        }.items():
            assert there in script
            script = script.replace(there, str(here))
        self.script = self.program(self.checkout / "toolchain" / "bootstrap", script)
        for name in ("sh", "dirname", "cat", "sha256sum", "cut", "mkdir", "cp", "grep", "awk"):
            if found := shutil.which(name):
                (self.programs / name).symlink_to(found)
        self.system("Linux", "6.1")
        self.says("id", "0")
        self.disk(doctor.DISK_TO_BUILD)
        self.memory(doctor.MEMORY)
        self.logs(self.programs / "apt-get")
        self.python(works=True)

    def program(self, file: Path, text: str) -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)
        return file

    def says(self, name: str, text: str) -> None:
        self.program(self.programs / name, f"#!/bin/sh\necho '{text}'\n")

    def system(self, name: str, version: str) -> None:
        words = f'[ "$1" = -s ] && echo {name} || echo {name} {version}'
        self.program(self.programs / "uname", f"#!/bin/sh\n{words}\n")

    def disk(self, free: int) -> None:
        self.says("df", f"Filesystem 1024-blocks Used Available\n/dev/vda 9 9 {free // 1024} 9% /")

    def memory(self, total: int) -> None:
        (self.folder / "meminfo").write_text(f"MemTotal:  {total // 1024} kB\nMemFree:  1 kB\n")

    def logs(self, file: Path) -> None:
        self.program(file, f'#!/bin/sh\necho "{file.name} $*" >>{self.log}\n')

    def python(self, *, works: bool) -> None:
        """A python3 that has venv and ensurepip, or lacks them; it makes environments."""
        made = f"{self.checkout}/.venv/bin"
        venv = f'mkdir -p {made}; echo "venv" >>{self.log}; cp {self.folder}/tool {made}/pip; '
        venv += f"cp {self.folder}/tool {made}/uv"
        words = f'echo "${{0##*/}} $*" >>{self.log}\necho "$UV_CACHE_DIR" >{self.folder}/uv-cache'
        self.program(self.folder / "tool", f"#!/bin/sh\n{words}\n")
        self.program(
            self.programs / "python3",
            f'#!/bin/sh\n[ "$1" = -c ] && exit {0 if works else 1}\n{venv}\n',
        )

    def apt(self, *, works: bool) -> None:
        """An apt-get after which python3 is one that works, or is as it was."""
        self.python(works=works)
        brought = (self.programs / "python3").rename(self.folder / "brought")
        self.python(works=False)
        bring = f"cp {brought} {self.programs}/python3"
        self.program(
            self.programs / "apt-get",
            f'#!/bin/sh\necho "apt-get $*" >>{self.log}\n[ "$1" = update ] || {bring}\n',
        )

    def run(self, *arguments: str, **environment: str) -> tuple[int, str]:
        done = subprocess.run(
            [self.script, *arguments],
            env={"PATH": str(self.programs), "HOME": str(self.folder), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return done.returncode, done.stdout

    @property
    def changes(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def not_debian(machine: Machine) -> None:
    machine.release.unlink()


def not_linux(machine: Machine) -> None:
    machine.system("Darwin", "25")


def not_root(machine: Machine) -> None:
    machine.says("id", "1000")


def little_disk(machine: Machine) -> None:
    machine.disk(doctor.DISK_TO_BUILD - 1024)


def little_memory(machine: Machine) -> None:
    machine.memory(doctor.MEMORY - 1024)


FAULTS = {
    not_debian: "runs on Debian and Ubuntu only, and this is Linux 6.1",
    not_linux: "runs on Debian and Ubuntu only, and this is Darwin 25",
    not_root: "needs root",
    little_disk: "less than 25 GiB of disk are free at ",
    little_memory: "needs 6 GiB of memory",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("works", [True, False], ids=["python", "no_python"])
def test_refusals_change_nothing(machine: Machine, fault: object, works: bool) -> None:
    machine.python(works=works)
    fault(machine)  # type: ignore[operator]
    code, said = machine.run("up")
    assert code == 2
    assert FAULTS[fault] in said  # type: ignore[index]
    assert "KUBECONFIG=… make up" in said
    assert machine.changes == []
    assert not (machine.checkout / ".venv").exists()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_with_a_cluster_that_exists_nobody_is_refused(machine: Machine, fault: object) -> None:
    fault(machine)  # type: ignore[operator]
    code, said = machine.run("up", KUBECONFIG="/some/where")
    assert code == 0, said
    assert machine.changes[0] == "venv"
    assert not [change for change in machine.changes if change.startswith("apt-get")]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("cluster", ["kubeconfig", '"kubeconfig"'])
def test_a_stack_file_may_name_the_cluster_too(
    machine: Machine, fault: object, cluster: str
) -> None:
    fault(machine)  # type: ignore[operator]
    stack = machine.checkout / "environments" / "Pulumi.local.yaml"
    stack.parent.mkdir()
    stack.write_text(f"config:\n  slipway:cluster: {cluster}\n")
    assert machine.run("up")[0] == 0
    stack.write_text("config:\n  slipway:cluster: embedded  # not kubeconfig\n")
    (machine.checkout / ".venv" / "slipway.lock").unlink()
    assert machine.run("up")[0] == 2


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_to_stop_and_to_clean_up_takes_nothing_of_the_machine(
    machine: Machine, fault: object
) -> None:
    fault(machine)  # type: ignore[operator]
    assert machine.run()[0] == 0
    # Who has the environment, `slipway up` asks.
    assert machine.run("up")[0] == 0


def test_make_asks_for_up_alone() -> None:
    for target, said in (("up", " up"), ("down", ""), ("clean", ""), ("doctor", "")):
        command = ["make", "--dry-run", "--no-print-directory", target]
        done = subprocess.run(command, cwd=paths.REPOSITORY, capture_output=True, text=True)
        assert done.stdout.splitlines()[0].rstrip() == f"toolchain/bootstrap{said}"


def test_a_machine_that_has_the_programs_needs_less_disk(machine: Machine) -> None:
    (machine.folder / ".cache" / "slipway" / "toolchain").mkdir(parents=True)
    machine.disk(3 * doctor.GIB)
    assert machine.run("up")[0] == 0
    (machine.checkout / ".venv" / "slipway.lock").unlink()
    machine.disk(3 * doctor.GIB - 1024)
    assert "less than 3 GiB" in machine.run("up")[1]


def test_what_is_done_and_that_it_is_done_once(machine: Machine) -> None:
    assert machine.run()[0] == 0
    assert [change.split(" --")[0] for change in machine.changes] == [
        *("venv", "pip install", "uv pip sync", "uv pip install")
    ]
    assert all("--require-hashes" in change for change in machine.changes[1:3])
    assert machine.run() == (0, "")
    assert len(machine.changes) == 4


def uv_cache(machine: Machine, **environment: str) -> Path:
    assert machine.run(**environment)[0] == 0
    (machine.checkout / ".venv" / "slipway.lock").unlink()
    return Path((machine.folder / "uv-cache").read_text().strip())


def test_packages_are_kept_where_slipway_clean_finds_them(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable in ("UV_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(machine.folder))
    assert uv_cache(machine) == paths.uv_cache() == paths.cache() / "uv"
    for variable in ("XDG_CACHE_HOME", "UV_CACHE_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
        assert uv_cache(machine, **{variable: str(tmp_path / variable)}) == paths.uv_cache()


@pytest.mark.parametrize("file", ["requirements/all.txt", "requirements/uv.txt", "pyproject.toml"])
def test_it_is_done_again_when_a_lock_changes(machine: Machine, file: str) -> None:
    machine.run()
    with (machine.checkout / file).open("a") as lock:
        lock.write("more\n")
    machine.run()
    assert [change.split()[0] for change in machine.changes[4:]] == ["pip", "uv", "uv"]


def test_a_run_that_was_interrupted_is_done_anew(machine: Machine) -> None:
    machine.program(machine.folder / "tool", f"#!/bin/sh\necho broken >>{machine.log}\nexit 1\n")
    assert machine.run()[0] == 1
    assert not (machine.checkout / ".venv" / "slipway.lock").exists()
    for name in ("pip", "uv"):
        machine.logs(machine.checkout / ".venv" / "bin" / name)
    assert machine.run()[0] == 0


def test_python_is_installed_where_it_is_missing(machine: Machine) -> None:
    machine.apt(works=True)
    assert machine.run()[0] == 0
    assert machine.changes[0].startswith("apt-get update")
    assert "python3 python3-venv" in machine.changes[1]
    assert machine.changes[2] == "venv"


def test_a_python_that_is_old_after_it_was_installed_is_not_used(machine: Machine) -> None:
    """As Ubuntu 22.04's."""
    machine.apt(works=False)
    code, said = machine.run()
    assert code == 2
    assert "python3 is older than 3.11" in said
    assert "fix: use Debian 12" in said
    assert [change.split()[0] for change in machine.changes] == ["apt-get", "apt-get"]
    assert not (machine.checkout / ".venv").exists()


def test_without_root_what_is_missing_is_named(machine: Machine) -> None:
    machine.python(works=False)
    not_root(machine)
    code, said = machine.run(KUBECONFIG="/some/where")
    assert code == 2
    assert "needed and not there: python3 python3-venv" in said
    assert "install Python 3.11 or newer" in said
    assert machine.changes == []
