"""An image is built anew when, and only when, something that goes into it has changed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from slipway import images
from slipway.errors import BadInput, SlipwayError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Folder of two images, `base` and `app`, with a program, kept files and a lock."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("images/base", "images/app", "bin", "files/templates", "requirements"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "images/base/Containerfile").write_text("FROM scratch\n")
    (tmp_path / "images/app/Containerfile").write_text(
        "ARG BASE=docker.io/library/debian:bookworm-slim\nFROM ${BASE}\n"
        "COPY bin/program /usr/local/bin/other\nCOPY files/tool /usr/share/tool\n"
        "RUN --mount=type=bind,source=requirements/app.txt,target=/r.txt true\n"
    )
    (tmp_path / "images/app/entrypoint").write_text("#!/bin/sh\n")
    (tmp_path / "bin/program").write_bytes(b"program")
    (tmp_path / "files/templates/page").write_text("page")
    (tmp_path / "requirements/app.txt").write_text("numpy==2\n")
    monkeypatch.setattr(images, "FOLDER", tmp_path / "images")
    monkeypatch.setattr(images.paths, "REPOSITORY", tmp_path)
    monkeypatch.setattr(images.toolchain, "binary", lambda name: tmp_path / "bin" / name)
    monkeypatch.setattr(images.toolchain, "files", lambda _: tmp_path / "files")
    images.images.cache_clear()
    yield tmp_path
    images.images.cache_clear()


def key() -> str:
    images.images.cache_clear()
    return images.images()["app"].key


def test_the_context_is_what_the_containerfile_names(folder: Path) -> None:
    assert images.images()["app"].inputs == {
        "Containerfile": folder / "images/app/Containerfile",
        "entrypoint": folder / "images/app/entrypoint",
        "bin/program": folder / "bin/program",
        "files/tool": folder / "files",
        "requirements/app.txt": folder / "requirements/app.txt",
    }


@pytest.mark.parametrize(
    "changed",
    [
        "images/app/Containerfile",
        "images/app/entrypoint",
        "images/base/Containerfile",
        "bin/program",
        "files/templates/page",
        "requirements/app.txt",
    ],
)
def test_every_input_counts(folder: Path, changed: str) -> None:
    before = key()
    assert key() == before
    with (folder / changed).open("a") as file:
        file.write("\n# changed\n")
    assert key() != before


def test_permission_to_execute_counts(folder: Path) -> None:
    before = key()
    (folder / "images/app/entrypoint").chmod(0o755)
    assert key() != before


def test_names_count(folder: Path) -> None:
    before = key()
    (folder / "files/templates/page").rename(folder / "files/templates/pages")
    assert key() != before


def test_dates_and_what_others_need_do_not_count(folder: Path) -> None:
    before = key()
    (folder / "bin/program").touch()
    (folder / "bin/unrelated").write_bytes(b"unrelated")
    assert key() == before


@pytest.mark.usefixtures("folder")
def test_unknown_image() -> None:
    with pytest.raises(BadInput, match="did you mean 'app'"):
        images.build(["ap"])


@pytest.mark.usefixtures("folder")
def test_only_what_is_built_is_pushed() -> None:
    with pytest.raises(SlipwayError, match="app has not been built"):
        images.push(names=["app"])


def test_what_the_registry_has_is_on_the_disk_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("STATE", "DATA"):
        monkeypatch.setenv(f"XDG_{place}_HOME", str(folder / place))
    monkeypatch.setattr(images, "_push", lambda *_: None)
    monkeypatch.setattr(images.Image, "digest", "sha256:0")
    blobs = images.images()["app"].layout / "blobs" / "sha256"
    stored = folder / "DATA/slipway/registry/docker/registry/v2/blobs/sha256/ab/abc/data"
    for file in (blobs / "abc", blobs / "def", stored):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("a layer")
    for _ in range(2):
        images.push(names=["app"])
        assert (blobs / "abc").samefile(stored)
        assert sorted(file.name for file in blobs.iterdir()) == ["abc", "def"]
        assert not list(blobs.parent.parent.glob(".*"))


def test_what_is_cached_is_not_built(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    images.images()["app"].layout.mkdir(parents=True)
    said: list[tuple[str, str]] = []
    images.build(["app"], progress=lambda *state: said.append(state))
    assert said == [("app", "cached")]
