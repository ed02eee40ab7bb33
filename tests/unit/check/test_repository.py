"""Git as it is read: by its own command line, from clones and bare repositories alike."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from slipway.errors import BadInput
from slipway.repository import Changed, GitError, Repository


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    folder = tmp_path / "clone"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main")
    commit(folder, "One", {"a/x.yaml": "1\n", "a/b/y.yaml": "2\n" * 20, "top": "t\n"})
    return folder


@pytest.fixture
def repository(clone: Path) -> Iterator[Repository]:
    with Repository(clone) as found:
        yield found


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@x", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit(folder: Path, message: str, files: dict[str, str | None]) -> str:
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            file.unlink()
        else:
            file.write_text(content)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", message)
    return git(folder, "rev-parse", "HEAD")


def test_files_are_read_at_a_commit_not_from_the_work_tree(
    clone: Path, repository: Repository
) -> None:
    first = repository.commit("main")
    (clone / "a/x.yaml").write_text("edited\n")
    assert repository.read(first, "a/x.yaml") == b"1\n"
    assert repository.read(first, "a") is None
    assert repository.read(first, "a/none.yaml") is None
    assert repository.read(first, "a\nb") is None
    assert repository.files(first, "a") == ["a/b/y.yaml", "a/x.yaml"]
    assert repository.files(first, "none") == []
    assert repository.contents(first, "a") == {"a/b/y.yaml": b"2\n" * 20, "a/x.yaml": b"1\n"}
    assert repository.is_dirty("a")
    assert not repository.is_dirty("top")
    second = commit(clone, "Odd", {"a\nb": "odd\n"})
    assert repository.read(second, "a\nb") == b"odd\n"
    # The one process goes on after it was closed, and after an odd question.
    repository.close()
    assert repository.read("HEAD", "top") == b"t\n"


def test_a_bare_clone_reads_the_same(clone: Path, repository: Repository, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "--bare", str(clone), "bare.git")
    with Repository(tmp_path / "bare.git") as bare:
        assert bare.contents("main", "a") == repository.contents("main", "a")
        assert not bare.is_dirty("a")


def test_changes_are_told_by_kind(clone: Path, repository: Repository) -> None:
    commit(clone, "Two", {"a/x.yaml": None, "a/z.yaml": "3\n", "top": "u\n"})
    git(clone, "mv", "a/b/y.yaml", "a/w.yaml")
    (clone / "link").symlink_to("top")
    commit(clone, "Three", {})
    assert repository.changed("HEAD~2", "HEAD") == [
        Changed("a/w.yaml", "renamed", "a/b/y.yaml"),
        Changed("a/x.yaml", "deleted", mode="000000"),
        Changed("a/z.yaml", "added"),
        Changed("link", "added", mode="120000"),
        Changed("top", "modified"),
    ]
    assert not repository.changed("HEAD~2", "HEAD")[3].is_file
    assert repository.changed("HEAD", "HEAD") == []


def test_commits_by_any_name_and_none_by_an_option(repository: Repository) -> None:
    first = repository.commit("main")
    assert repository.commit(first[:8]) == repository.commit("HEAD") == first
    assert repository.has("main")
    for name in ("none", "--all", "-x", "main:top", ""):
        assert not repository.has(name)
    with pytest.raises(BadInput, match=r"no commit 'none' in .*\n  fix: name a branch"):
        repository.commit("none")


def test_a_branch_that_moves_is_not_remembered(clone: Path, repository: Repository) -> None:
    first = repository.commit("main")
    second = commit(clone, "Two", {"top": "u\n"})
    assert (repository.commit("main"), repository.commit(first)) == (second, first)


def test_merge_bases_and_what_is_ahead(clone: Path, repository: Repository) -> None:
    first = repository.commit("main")
    git(clone, "checkout", "--quiet", "-b", "side")
    side = commit(clone, "Side", {"side": "s\n"})
    git(clone, "checkout", "--quiet", "main")
    commit(clone, "Main", {"top": "u\n"})
    assert repository.merge_base("main", "side") == first
    assert [c.sha for c in repository.ahead("main", "side")] == [side]
    git(clone, "checkout", "--quiet", "--orphan", "apart")
    commit(clone, "Apart", {})
    with pytest.raises(BadInput, match="no commit in common"):
        repository.merge_base("main", "apart")


def test_what_a_history_contains(clone: Path, repository: Repository, tmp_path: Path) -> None:
    first = repository.commit("main")
    git(clone, "checkout", "--quiet", "-b", "side")
    side = commit(clone, "Side", {"side": "1\n"})
    git(clone, "checkout", "--quiet", "main")
    main = commit(clone, "Two", {"two": "2\n"})
    contained = [repository.contains("main", found) for found in (first, main, side, "d4" * 20)]
    assert contained == [True, True, False, False]
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{clone}", str(shallow))
    with Repository(shallow) as cut:
        assert [cut.contains("main", found) for found in (first, main)] == [None, True]


def test_only_what_landed_on_the_branch_is_its_history(clone: Path, repository: Repository) -> None:
    git(clone, "checkout", "--quiet", "-b", "side")
    commit(clone, "Never on main", {"a/x.yaml": "bad\n"})
    commit(clone, "What is merged", {"a/x.yaml": "good\n"})
    git(clone, "checkout", "--quiet", "main")
    commit(clone, "Elsewhere", {"top": "u\n"})
    git(clone, "merge", "--quiet", "--no-ff", "-m", "Merge (#1)\n\nbody\x1f\nof two lines", "side")
    found = repository.log("main", "a/x.yaml")
    assert [c.subject for c in found] == ["Merge (#1)", "One"]
    assert (found[0].author, found[0].email) == ("Ada", "ada@x")
    assert (found[0].committer, found[0].committer_email) == ("Ada", "ada@x")
    assert found[0].body == "body\x1f\nof two lines"
    assert len(found[0].parents) == 2
    assert found[0].when.tzinfo is not None
    assert len(repository.log("main", "a/x.yaml", first_parent=False)) == 3
    assert len(repository.log("main", limit=2)) == 2
    brought = repository.brought(found[0])
    assert [c.subject for c in brought] == ["What is merged", "Never on main"]
    assert repository.brought(found[1]) == []
    versions = repository.versions("main", ["a/x.yaml", "top", "none"])
    had = versions["a/x.yaml"]
    assert [repository.blob(v.blob) for v in had] == [b"good\n", b"1\n"]
    assert [(v.commit, v.when) for v in had] == [(c.sha, c.when) for c in found]
    assert repository.landed(had[0].commit) == found[0]
    assert len(versions["top"]) == 2
    commit(clone, "Gone", {"a/x.yaml": None, "top": "v\n"})
    again = repository.versions("main", ["a/x.yaml", "top"])
    assert again["a/x.yaml"][0].blob == ""
    assert again["a/x.yaml"][1:] == had
    assert len(again["top"]) == 3
    assert versions["none"] == []


def test_what_was_replaced_is_still_what_will_be_merged(
    clone: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = repository.commit("main")
    second = commit(clone, "Two", {"top": "u\n"})
    git(clone, "replace", first, second)
    assert repository.read(first, "top") == b"t\n"
    # A hook's variables name another repository than the one asked for.
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    with Repository(clone) as again:
        assert again.read(first, "top") == b"t\n"


def test_a_folder_without_a_repository_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(GitError, match="not a git repository"):
        Repository(tmp_path).commit("main")
    with pytest.raises(GitError, match="no folder"):
        Repository(tmp_path / "none").commit("main")
