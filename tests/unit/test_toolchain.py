"""The pinned programs: what a folder says, what decides the key, whose program is taken, builds."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from slipway import images, paths, toolchain
from slipway.cli import app
from slipway.errors import BadInput, SlipwayError
from slipway.toolchain import Tool
from slipway.trial import history

FIXTURES = paths.REPOSITORY / "tests" / "fixtures" / "tools"
GOMOD = """module slipway/toolchain/tool

go 1.20

require example.com/tool v1.2.3

tool example.com/tool/cmd/tool
"""
# A compiler in name only: it makes the programs that it is told to, or fails where `broken` lies.
COMPILER = """#!/bin/sh
echo "$*" >>"$GO_LOG"
case "$1 $2" in
"mod download")
    [ "$3" = -json ] && printf '{"Dir": "%s"}' "$GO_MODULE"
    exit 0 ;;
"mod vendor")
    mkdir vendor; exit 0 ;;
esac
[ ! -e broken ] || { echo "main.go:1:1: that is no Go" >&2; exit 1; }
place=$GOBIN
while [ $# -gt 0 ]; do
    [ "$1" = -o ] && place=$2
    shift
done
for name in $GO_MAKES; do echo '#!/bin/sh' >"$place/$name"; done
"""

GO = shutil.which("go")
CACHED = (toolchain.tools, toolchain.binary, toolchain.go)
Make = Callable[..., Tool]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty machine: no tools, no caches, no programs but the system's."""
    for variable in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    monkeypatch.setenv("PATH", f"{tmp_path}/path:/usr/bin:/bin")
    (tmp_path / "path").mkdir()
    monkeypatch.setattr(toolchain, "FOLDER", tmp_path / "toolchain")
    _forget()
    yield tmp_path
    _forget()


def _forget() -> None:
    for cached in CACHED:
        cached.cache_clear()


@pytest.fixture
def make(place: Path) -> Make:
    """Makes a tool's folder."""

    def make(config: str = "", gomod: str = GOMOD, name: str = "tool", **files: str) -> Tool:
        folder = place / "toolchain" / name
        folder.mkdir(parents=True)
        for file, text in {"go.mod": gomod, "tool.toml": config, **files}.items():
            (folder / file).write_text(text)
        _forget()
        return Tool(folder)

    return make


def script(file: Path, text: str) -> Path:
    file.write_text(text)
    file.chmod(0o755)
    return file


def on_path(place: Path, name: str, says: str) -> Path:
    return script(place / "path" / name, f"#!/bin/sh\necho '{says}'\n")


@pytest.fixture
def compiler(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The compiler's log: one line a call."""
    monkeypatch.setenv("GO_LOG", str(place / "go.log"))
    monkeypatch.setenv("GO_MODULE", str(place / "module"))
    monkeypatch.setenv("GO_MAKES", "tool")
    go = script(place / "go", COMPILER)
    monkeypatch.setattr(toolchain, "go", lambda: str(go))
    return place / "go.log"


# --- what a folder says -----------------------------------------------------------------------


@pytest.mark.parametrize("file", sorted(FIXTURES.glob("valid/*.toml")), ids=lambda f: f.stem)
def test_valid(make: Make, file: Path) -> None:
    assert make(file.read_text()).version == "v1.2.3"


@pytest.mark.parametrize("file", sorted(FIXTURES.glob("invalid/*.toml")), ids=lambda f: f.stem)
def test_invalid(make: Make, file: Path) -> None:
    with pytest.raises(BadInput) as error:
        assert make(file.read_text()).version
    assert file.with_suffix(".expected").read_text().strip() in str(error.value)


@pytest.mark.parametrize(
    ("gomod", "config", "version", "binaries"),
    [
        (GOMOD, "", "v1.2.3", ["tool"]),
        (
            "require (\n\texample.com/t v1.0.0\n\texample.com/t/v3 v3.1.0 // indirect\n)\n"
            "tool (\n\texample.com/t/v3\n\texample.com/t/v3/cmd/server\n)\n",
            "",
            "v3.1.0",
            ["t", "server"],
        ),
        (
            "require example.com/t/v2 v2.0.0-20260212201848-7aac2a2c5b7c\ntool example.com/t/v2\n",
            "",
            "v2.0.0-20260212201848-7aac2a2c5b7c",
            ["t"],
        ),
        (
            "require example.com/t v1.0.0\nreplace example.com/t => example.com/t v0.9.0\n"
            "tool example.com/t/cmd\n",
            '[rename]\ncmd = "t"\n[links]\nt = ["t-server", "t-worker"]',
            "v1.0.0",
            ["t", "t-server", "t-worker"],
        ),
        ("require example.com/library v1.5.0\n", 'module = "example.com/library"', "v1.5.0", None),
    ],
    ids=["one", "major_versions", "pseudo_version", "renamed_and_linked", "own_program"],
)
def test_go_mod(
    make: Make, gomod: str, config: str, version: str, binaries: list[str] | None
) -> None:
    made = make(config, gomod)
    assert made.version == version
    assert made.binaries == (binaries or [made.name])


def test_a_tool_line_whose_module_is_not_required_is_refused(make: Make) -> None:
    with pytest.raises(BadInput, match=r"go\.mod: require: .* is not required"):
        assert make(gomod="tool example.com/tool/cmd/tool\n").version


def test_the_key_changes_with_what_decides_the_build_and_with_nothing_else(make: Make) -> None:
    folder = make(**{"go.sum": "example.com/tool v1.2.3 h1:a=\n"}).folder

    def key() -> str:
        return Tool(folder).key

    before = key()
    os.utime(folder / "go.mod", (1, 1))
    (folder / "bin").mkdir()
    (folder / "bin" / "helper").write_text("not part of the build")
    assert key() == before
    seen = {before}
    for name, text in {
        "go.mod": GOMOD.replace("v1.2.3", "v1.2.4"),
        "go.sum": "example.com/tool v1.2.3 h1:b=\n",
        "tool.toml": 'ldflags = "-X main.a=b"',
        "index.html": "a file for an overlay",
    }.items():
        (folder / name).write_text(text)
        seen.add(key())
    assert len(seen) == 5


def test_a_copy_elsewhere_has_the_same_key(make: Make, tmp_path: Path) -> None:
    made = make()
    clone = shutil.copytree(made.folder, tmp_path / "clone" / made.name)
    assert Tool(clone).key == made.key


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: toolchain.binary("toll"), "did you mean 'tool'"),
        (lambda: toolchain.tool("toll"), "did you mean 'tool'"),
        (lambda: toolchain.binary("tool"), "has not been built\n  fix: run `make up`"),
        (lambda: toolchain.files("tool"), "has not been built\n  fix: run `make up`"),
    ],
    ids=["program", "tool", "not_built", "no_files"],
)
def test_what_is_not_there(make: Make, ask: Callable[[], object], said: str) -> None:
    make()
    with pytest.raises(SlipwayError, match=re.escape(said)):
        ask()


# --- whose program is taken -------------------------------------------------------------------

VERSIONED = 'version_command = ["version"]'


@pytest.mark.parametrize("said", ["v1.2.3", "1.2.3", "tool v1.2.3+g3d8990f", "Client: 1.2.3\nmore"])
def test_an_official_program_of_the_pinned_version_is_taken(
    make: Make, place: Path, said: str
) -> None:
    make(VERSIONED)
    official = on_path(place, "tool", said)
    assert toolchain.binary("tool") == official
    assert toolchain.missing() == []


@pytest.mark.parametrize("said", ["v1.2.4", "v1.2.30", "v11.2.3", "v1.2.3-rc.1", "v1.2.3.4", ""])
def test_an_official_program_of_another_version_is_not(make: Make, place: Path, said: str) -> None:
    made = make(VERSIONED)
    on_path(place, "tool", said)
    assert [t.name for t in toolchain.missing()] == ["tool"]
    (made.place / "bin").mkdir(parents=True)
    assert toolchain.binary("tool") == made.place / "bin" / "tool"


def test_a_program_that_does_not_run_is_not_taken(make: Make, place: Path) -> None:
    make(VERSIONED)
    script(place / "path" / "tool", "#!/no/such/interpreter\n")
    assert [t.name for t in toolchain.missing()] == ["tool"]


def test_who_cannot_say_its_version_is_not_taken(make: Make, place: Path) -> None:
    make()
    on_path(place, "tool", "v1.2.3")
    assert [t.name for t in toolchain.missing()] == ["tool"]


def test_a_program_of_ours_on_path_is_not_official(make: Make, place: Path) -> None:
    made = make(VERSIONED)
    (made.place / "bin").mkdir(parents=True)
    ours = script(made.place / "bin" / "tool", "#!/bin/sh\necho v1.2.3\n")
    (place / "path" / "tool").symlink_to(ours)
    assert toolchain.binary("tool") == ours


def test_a_shells_own_hides_no_official_one(
    make: Make, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which to ask would have no end: it asks which program there is."""
    make(VERSIONED)
    monkeypatch.setattr(toolchain, "SHELL", place / "shell")
    (place / "shell").mkdir()
    script(place / "shell" / "tool", "#!/bin/sh\necho v1.2.3\n")
    monkeypatch.setenv("PATH", f"{place / 'shell'}{os.pathsep}{os.environ['PATH']}")
    assert [t.name for t in toolchain.missing()] == ["tool"]
    official = on_path(place, "tool", "v1.2.3")
    assert toolchain.binary("tool") == official


def test_an_official_program_brings_no_files(make: Make, place: Path) -> None:
    make(f'{VERSIONED}\nfiles = ["manifests"]')
    on_path(place, "tool", "v1.2.3")
    assert [t.name for t in toolchain.missing()] == ["tool"]


def test_a_compiler_that_is_too_old_is_not_taken(
    make: Make, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(gomod=GOMOD.replace("go 1.20", "go 1.26.1"))
    old = on_path(place, "go", "go1.25.9")
    wheel = script(place / "wheel", "")
    monkeypatch.setattr(toolchain.sys, "executable", str(place / "python"))
    wheel.rename(place / "go")
    assert toolchain.go() == str(place / "go")
    toolchain.go.cache_clear()
    on_path(place, "go", "go1.26.10")
    assert toolchain.go() == str(old)


# --- building ---------------------------------------------------------------------------------


def test_build_renames_links_and_keeps_files(
    make: Make, place: Path, compiler: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GO_MAKES", "cmd")
    (place / "module" / "manifests" / "crds").mkdir(parents=True)
    (place / "module" / "manifests" / "crds" / "crd.yaml").write_text("kind: X\n")
    (place / "module" / "LICENSE").write_text("free\n")
    made = make(
        'module = "example.com/tool"\nfiles = ["manifests", "LICENSE"]\n'
        'ldflags = "-X v={version} -X major={major}"\n'
        '[rename]\ncmd = "tool"\n[links]\ntool = ["tool-server"]'
    )
    news: list[tuple[str, str]] = []
    toolchain.build(progress=lambda *what: news.append(what))
    assert toolchain.binary("tool").is_file()
    assert toolchain.binary("tool-server").resolve() == toolchain.binary("tool")
    kept = toolchain.files("tool")
    assert (kept / "manifests" / "crds" / "crd.yaml").read_text() == "kind: X\n"
    assert (kept / "LICENSE").exists()
    assert "-s -w -X v=v1.2.3 -X major=1" in compiler.read_text()
    assert [name for name, _ in news] == ["tool", "tool"]
    assert not (paths.cache() / "go-build").exists()

    compiler.unlink()
    toolchain.build()
    assert not compiler.exists(), "it was built already"
    (made.folder / "go.mod").write_text(GOMOD.replace("v1.2.3", "v1.2.4"))
    _forget()
    toolchain.build()
    assert "-X v=v1.2.4" in compiler.read_text()


def test_files_are_fetched_without_a_build_and_kept_until_the_pins_change(
    make: Make, place: Path, compiler: Path
) -> None:
    (place / "module" / "manifests").mkdir(parents=True)
    made = make('module = "example.com/tool"\nfiles = ["manifests"]')
    toolchain.fetch(["tool"])
    assert (toolchain.files("tool") / "manifests").is_dir()
    assert not made.built
    assert "install" not in compiler.read_text()
    compiler.unlink()
    toolchain.fetch(["tool"])
    assert not compiler.exists(), "they are there"
    toolchain.drop_former()
    assert toolchain.files("tool").is_dir()
    (made.folder / "go.mod").write_text(GOMOD.replace("v1.2.3", "v1.2.4"))
    _forget()
    toolchain.drop_former()
    with pytest.raises(SlipwayError, match="has not been built"):
        toolchain.files("tool")


def test_an_overlay_replaces_files_of_the_vendored_module(make: Make, compiler: Path) -> None:
    made = make('[overlay]\n"vendor/example.com/tool/a.go" = "a.go"', **{"a.go": "package a\n"})
    toolchain.build()
    assert toolchain.binary("tool") == made.place / "bin" / "tool"
    assert "-mod=vendor -overlay" in compiler.read_text()


def test_a_failing_build_leaves_nothing_half_built_and_what_was_built_before(
    make: Make, compiler: Path
) -> None:
    good, bad = make("seconds = 9"), make("seconds = 1", name="other", broken="")
    with pytest.raises(SlipwayError, match=r"other: .* failed\n(.*\n)*main.go:1:1: that is no Go"):
        toolchain.build()
    assert good.built
    assert not bad.built
    (bad.folder / "broken").unlink()
    bad = Tool(bad.folder)
    _forget()
    toolchain.build()
    assert sorted(f.name for f in bad.place.parent.glob("*") if f.suffix != ".partial") == [bad.key]


def test_a_half_finished_build_is_done_anew(make: Make, compiler: Path) -> None:
    made = make()
    leftover = made.place.with_name(f"{made.key}.partial") / "bin" / "leftover"
    leftover.parent.mkdir(parents=True)
    leftover.touch()
    assert not made.built
    toolchain.build()
    assert [f.name for f in (made.place / "bin").iterdir()] == ["tool"]


def test_only_what_is_asked_for_is_built(make: Make, compiler: Path) -> None:
    one, other = make(), make(name="other")
    toolchain.build(["other"])
    assert (one.built, other.built) == (False, True)


def test_what_one_command_needs_is_built_for_it_alone(
    make: Make, place: Path, compiler: Path
) -> None:
    (place / "module" / "stages").mkdir(parents=True)
    platform = make()
    extra = make(
        'module = "example.com/tool"\nfiles = ["stages"]\nonly_for = "slipway bench scale"',
        GOMOD.replace("cmd/tool", "cmd/extra"),
        name="extra",
    )
    assert [t.name for t in toolchain.missing()] == ["tool"]
    toolchain.build()
    assert (platform.built, extra.built) == (True, False)
    for ask in (lambda: toolchain.binary("extra"), lambda: toolchain.files("extra")):
        with pytest.raises(SlipwayError, match="run `slipway bench scale`"):
            ask()
    assert [t.name for t in toolchain.missing(["extra"])] == ["extra"]
    toolchain.build(["extra"])
    toolchain.drop_former()
    assert (toolchain.files("extra") / "stages").is_dir()


def test_clean_drops_former_pins_and_what_was_interrupted(
    make: Make, compiler: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make()
    toolchain.build()
    for name in ("tool/former", f"tool/{made.key}.partial", "removed/key"):
        (made.place.parent.parent / name).mkdir(parents=True)
    (paths.cache() / "go-build").mkdir()
    (paths.cache() / "uv" / "wheels").mkdir(parents=True)
    (paths.cache() / "images" / "base" / "key").mkdir(parents=True)
    monkeypatch.setattr(images, "_drop_storage", lambda: None)
    assert CliRunner().invoke(app, ["clean"]).exit_code == 0
    left = {f.relative_to(paths.cache()) for f in paths.cache().rglob("*") if f.is_file()}
    assert {str(f) for f in left} == {"images/.lock", f"toolchain/tool/{made.key}/bin/tool"}
    assert not (paths.cache() / "go-build").exists()
    assert not (paths.cache() / "uv").exists()
    assert not (paths.cache() / "images" / "base" / "key").exists()


def test_clean_all_forgets_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "clean", lambda **_: None)
    tried = history.folder() / "results" / "toy" / "1.json"
    paths.write(tried, b"{}")
    assert CliRunner().invoke(app, ["clean"]).exit_code == 0
    assert tried.exists()
    assert CliRunner().invoke(app, ["clean", "--all"]).exit_code == 0
    assert not history.folder().exists()


def test_clean_where_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_drop_storage", lambda: None)
    assert CliRunner().invoke(app, ["clean"]).exit_code == 0


@pytest.mark.skipif(not GO, reason="no Go compiler on this machine")
def test_the_real_compiler_s_words_are_in_the_error(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(
        gomod="module slipway/toolchain/tool\n\ngo 1.20\n",
        **{"main.go": "package main\n\nimport nothing\n"},
    )
    monkeypatch.setattr(toolchain, "go", lambda: GO)
    monkeypatch.setattr(Tool, "version", "v0.0.0")
    with pytest.raises(SlipwayError, match=r"main\.go:3:15: missing import path") as error:
        toolchain.build()
    assert str(paths.state() / "logs" / "toolchain" / "tool.log") in str(error.value)
    assert not made.built


# --- the repository's own pins ----------------------------------------------------------------

OWN = [Tool(f.parent) for f in sorted((paths.REPOSITORY / "toolchain").glob("*/go.mod"))]


@pytest.mark.parametrize("owner", OWN, ids=lambda t: t.name)
def test_each_pin_is_checksummed(owner: Tool) -> None:
    sums = (owner.folder / "go.sum").read_text()
    replaced = re.findall(r"^replace \S+(?: v\S+)? => (\S+ v\S+)$", owner.gomod, re.M)
    module = owner.config.module or next(
        line.split()[0]
        for line in sums.splitlines()
        if owner.packages[0].startswith(line.split()[0])
    )
    assert f"{module} {owner.version} h1:" in sums or any(f"{r} h1:" in sums for r in replaced)


# What an official one prints, and when it is asked how.
OFFICIAL = {
    "coredns": ("--version", "CoreDNS-{}\nlinux/amd64, go1.24.6, 7bfda65"),
    "etcd": ("--version", "etcd Version: {}\nGit SHA: a061450\nGo Version: go1.24.7"),
    "helm": ("version --short", "v{}+g3d8990f"),
    "kustomize": ("version", "v{}"),
    "pulumi": ("version", "v{}"),
}


@pytest.mark.parametrize("owner", OWN, ids=lambda t: t.name)
def test_those_that_are_official_are_known_by_what_they_say(owner: Tool, place: Path) -> None:
    assert bool(owner.config.version_command) == (owner.name in OFFICIAL)
    asked, said = OFFICIAL.get(owner.name, ("", ""))
    for version, taken in ((owner.version.lstrip("v"), True), ("0.0.1", False)):
        text = f"#!/bin/sh\n[ \"$*\" != '{asked}' ] || echo '{said.format(version)}'\n"
        official = script(place / "path" / owner.name, text)
        expected = official if taken and asked else None
        assert toolchain._official(owner, owner.name) == expected


def test_it_is_documented_which_may_be_official() -> None:
    text = (paths.REPOSITORY / "docs/install.md").read_text()
    said = re.search(r"An official (.*?) of the pinned version", text)
    assert said
    assert set(re.findall(r"`(\w+)`", said[1])) == OFFICIAL.keys()


def test_each_program_comes_from_one_folder() -> None:
    names = [name for owner in OWN for name in owner.binaries]
    assert sorted(set(names)) == sorted(names)


def test_a_tool_is_for_the_platform_or_for_a_command_that_exists() -> None:
    group: Any = typer.main.get_command(app)
    for owner in OWN:
        program, command = owner.builder.split()[:2]
        assert program == "make" or command in group.commands, owner.name


@pytest.mark.parametrize("owner", OWN, ids=lambda t: t.name)
def test_flags_can_be_filled_in(owner: Tool) -> None:
    numbers = {"version": owner.version, "major": "1", "minor": "2"}
    assert "{" not in owner.config.ldflags.format(**numbers)
