"""Publishing a checkout to the forge: what moves, what is merged, and what is never touched."""

from __future__ import annotations

import base64
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from slipway import paths, publish
from slipway.errors import BadInput, SlipwayError
from slipway.publish import Remote


def git(folder: Path, *arguments: str, check: bool = True) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=check)
    return done.stdout.strip()


def commit(folder: Path, **files: str) -> str:
    """Commits files, by name; returns the commit."""
    for name, text in files.items():
        (folder / name).write_text(text)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", " ".join(files) or "empty")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone with one commit; git knows nobody's settings."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for variable in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"):
        monkeypatch.delenv(variable, raising=False)
    folder = tmp_path / "checkout"
    git(tmp_path, "init", "--quiet", "--initial-branch=work", str(folder))
    commit(folder, model="1\n")
    monkeypatch.setattr(paths, "REPOSITORY", folder)
    return folder


@pytest.fixture
def forge(tmp_path: Path, checkout: Path) -> Path:
    git(tmp_path, "init", "--quiet", "--bare", "--initial-branch=main", "forge.git")
    return tmp_path / "forge.git"


@pytest.fixture
def remote(forge: Path) -> Remote:
    return Remote(str(forge), "admin", "se cret'$")


@pytest.fixture
def other(tmp_path: Path, forge: Path, remote: Remote) -> Path:
    """Another clone of the forge, which has this checkout's commit."""
    publish.publish(remote)
    git(tmp_path, "clone", "--quiet", str(forge), "other")
    return tmp_path / "other"


def tip(forge: Path) -> str:
    return git(forge, "rev-parse", "main")


def merge_on_forge(other: Path, **files: str) -> str:
    made = commit(other, **files)
    git(other, "push", "--quiet")
    return made


def test_an_empty_forge_gets_the_checkout_s_commit(
    checkout: Path, forge: Path, remote: Remote
) -> None:
    assert publish.publish(remote) == (publish.head(), True)
    assert tip(forge) == publish.head()


def test_a_second_time_there_is_nothing_to_do(forge: Path, remote: Remote) -> None:
    publish.publish(remote)
    assert publish.publish(remote) == (tip(forge), False)


def test_new_commits_move_the_branch(
    checkout: Path, other: Path, forge: Path, remote: Remote
) -> None:
    new = commit(checkout, model="2\n")
    assert publish.publish(remote) == (new, True)
    assert tip(forge) == new


def test_what_the_forge_gained_is_no_reason_to_push(
    other: Path, forge: Path, remote: Remote
) -> None:
    gained = merge_on_forge(other, release="a\n")
    assert publish.publish(remote) == (gained, False)
    assert tip(forge) == gained


def test_both_moved(checkout: Path, other: Path, forge: Path, remote: Remote) -> None:
    gained = merge_on_forge(other, release="a\n")
    mine = commit(checkout, model="2\n")
    (checkout / "model").write_text("being edited\n")
    before = git(checkout, "status", "--porcelain", "--branch")

    merged, moved = publish.publish(remote)
    assert moved
    assert tip(forge) == merged
    assert git(forge, "rev-list", "--parents", "-1", merged).split()[1:] == [gained, mine]
    assert git(forge, "show", f"{merged}:model") == "2"
    assert git(forge, "show", f"{merged}:release") == "a"

    assert git(checkout, "status", "--porcelain", "--branch") == before
    assert publish.head() == mine
    assert (checkout / "model").read_text() == "being edited\n"
    assert len(git(checkout, "worktree", "list").splitlines()) == 1
    assert publish.publish(remote) == (merged, False)


def test_a_conflict_names_the_fix_and_changes_nothing(
    checkout: Path, other: Path, forge: Path, remote: Remote
) -> None:
    gained = merge_on_forge(other, model="theirs\n")
    mine = commit(checkout, model="mine\n")
    with pytest.raises(SlipwayError) as error:
        publish.publish(remote)
    said = str(error.value)
    assert "CONFLICT" in said
    assert "model" in said
    assert f"fix: git merge {gained[:12]}, resolve, commit, and run `make up` again" in said
    assert tip(forge) == gained
    assert publish.head() == mine
    assert git(checkout, "status", "--porcelain") == ""
    assert len(git(checkout, "worktree", "list").splitlines()) == 1

    # The fix is one that can be followed.
    git(checkout, "merge", "--quiet", gained[:12], check=False)
    resolved = commit(checkout, model="both\n")
    assert publish.publish(remote) == (resolved, True)


TOY = "environments/dev/models/toy.yaml"
GLASS = "environments/prod/break-glass/toy.yaml"


@pytest.mark.parametrize("gained", [False, True], ids=["ahead", "both moved"])
@pytest.mark.parametrize("path", [TOY, GLASS])
def test_a_release_goes_by_pull_request(
    checkout: Path, other: Path, forge: Path, remote: Remote, path: str, gained: bool
) -> None:
    if gained:
        merge_on_forge(other, gained="a\n")
    before = tip(forge)
    (checkout / path).parent.mkdir(parents=True)
    mine = commit(checkout, **{path: "version: 9\n"})
    with pytest.raises(BadInput) as error:
        publish.publish(remote)
    assert str(error.value).startswith(f"{path}: changed by hand")
    assert "propose it: slipway promote" in str(error.value)
    assert tip(forge) == before
    # The fix is one that can be followed.
    git(checkout, "revert", "--no-edit", mine)
    assert publish.publish(remote)[1]


def test_releases_that_the_forge_has_stay_and_are_no_reason_to_refuse(
    checkout: Path, other: Path, forge: Path, remote: Remote
) -> None:
    (other / TOY).parent.mkdir(parents=True)
    merge_on_forge(other, **{TOY: "version: 1\n"})
    commit(checkout, model="2\n")
    assert publish.publish(remote)[1]
    assert git(forge, "show", f"main:{TOY}") == "version: 1"
    # Nor is one that was fetched from there, nor one that a forge without anything begins with.
    git(checkout, "merge", "--quiet", tip(forge))
    commit(checkout, model="3\n")
    assert publish.publish(remote)[1]
    git(forge, "update-ref", "-d", "refs/heads/main")
    assert publish.publish(remote) == (publish.head(), True)
    (checkout / TOY).unlink()
    commit(checkout, model="4\n")
    with pytest.raises(BadInput, match=TOY):
        publish.publish(remote)


# --- releases of another platform, which a clone brings along ------------------------------------

OTHER, MINE = "of: another\n", "of: this one\n"


def put(folder: Path, **files: str | None) -> str:
    """As `commit`, with folders made and files removed."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            (folder / name).unlink()
    return commit(folder, **{name: text for name, text in files.items() if text is not None})


@pytest.fixture
def warned() -> list[str]:
    return []


@pytest.fixture
def begin(remote: Remote, warned: list[str]) -> Callable[[], tuple[str, bool]]:
    """`publish` on a platform whose store knows what is its own."""

    def is_foreign(path: str, content: bytes) -> bool:
        assert path.startswith("environments/")
        return content.decode().startswith(OTHER.strip())

    return lambda: publish.publish(remote, is_foreign=is_foreign, warn=warned.append)


def on_forge(forge: Path) -> list[str]:
    return git(forge, "ls-tree", "-r", "--name-only", "main").splitlines()


def test_an_empty_forge_begins_without_the_releases_of_another_platform(
    checkout: Path, forge: Path, begin: Callable[[], tuple[str, bool]], warned: list[str]
) -> None:
    of_mine = TOY.replace("toy", "mine")
    mine = put(checkout, **{TOY: OTHER, GLASS.replace("prod", "dev"): "who: ada\n", of_mine: MINE})
    begun, moved = begin()
    assert (moved, tip(forge)) == (True, begun)
    assert on_forge(forge) == [of_mine, "model"]
    [said] = warned
    assert said.startswith(
        f"{GLASS.replace('prod', 'dev')} (1 more like it) stays out of the forge"
    )
    # The checkout is as it was, and has nothing to publish.
    assert publish.head() == mine
    assert (checkout / TOY).read_text() == OTHER
    assert git(checkout, "status", "--porcelain") == ""
    assert len(git(checkout, "worktree", "list").splitlines()) == 1
    assert begin() == (begun, False)
    assert len(warned) == 1


def test_later_commits_go_there_and_later_releases_of_the_other_platform_do_not(
    tmp_path: Path,
    checkout: Path,
    forge: Path,
    begin: Callable[[], tuple[str, bool]],
    warned: list[str],
) -> None:
    more = TOY.replace("dev", "prod")
    put(checkout, **{TOY: OTHER})
    begin()
    git(tmp_path, "clone", "--quiet", str(forge), "other")
    put(tmp_path / "other", **{TOY: MINE})  # this platform's own, by pull request
    git(tmp_path / "other", "push", "--quiet")
    commit(checkout, model="2\n")
    assert begin()[1]
    assert len(warned) == 1
    for files in ({TOY: f"{OTHER}version: 2\n", more: OTHER, "model": "3\n"}, {TOY: None}):
        put(checkout, **files)
        assert begin()[1]
        assert on_forge(forge) == [TOY, "model"]
        assert git(forge, "show", f"main:{TOY}") == MINE.strip()
        assert git(forge, "show", "main:model") == "3"
        assert begin()[1] is False
    assert len(warned) == 3


def test_a_release_of_this_platform_is_still_not_changed_by_hand(
    checkout: Path, forge: Path, begin: Callable[[], tuple[str, bool]]
) -> None:
    put(checkout, **{TOY: OTHER})
    begun, _ = begin()
    put(checkout, **{GLASS: "who: ada\n", TOY.replace("toy", "mine"): MINE})
    with pytest.raises(BadInput, match=r"dev/models/mine.yaml: changed by hand.* \(1 more"):
        begin()
    assert tip(forge) == begun


def test_the_user_s_settings_and_hooks_stay_out_of_it(
    checkout: Path, other: Path, remote: Remote, tmp_path: Path
) -> None:
    merge_on_forge(other, release="a\n")
    commit(checkout, model="2\n")
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in ("pre-push", "pre-merge-commit", "post-checkout", "commit-msg"):
        (hooks / name).write_text("#!/bin/sh\nexit 1\n")
        (hooks / name).chmod(0o755)
    (tmp_path / "gitconfig").write_text(
        f"[core]\nhooksPath = {hooks}\n[commit]\ngpgSign = true\n[merge]\nff = only\n"
        "[gpg]\nprogram = false\n[http]\nproxy = http://192.0.2.1:1\n"
    )
    assert publish.publish(remote)[1]


def test_a_shallow_clone_is_refused(
    tmp_path: Path, checkout: Path, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(checkout, model="2\n")
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{checkout}", str(shallow))
    monkeypatch.setattr(paths, "REPOSITORY", shallow)
    with pytest.raises(SlipwayError, match=r"shallow .*\n  fix: git fetch --unshallow"):
        publish.publish(remote)


def test_no_checkout_is_an_error_of_its_own(
    tmp_path: Path, checkout: Path, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.setattr(paths, "REPOSITORY", tmp_path)
    with pytest.raises(SlipwayError, match="not a git repository"):
        publish.publish(remote)


# --- credentials ------------------------------------------------------------------------------


class _Forge(BaseHTTPRequestHandler):
    """A repository without branches, for who has the credentials."""

    seen: list[str]

    def do_GET(self) -> None:
        given = self.headers.get("Authorization")
        self.send_response(200 if given else 401)
        self.send_header("WWW-Authenticate", 'Basic realm="forge"')
        self.end_headers()
        self.seen.append(base64.b64decode((given or "").removeprefix("Basic ")).decode())

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """URL of a forge that wants a password, and what it was given."""
    seen: list[str] = []
    handler = type("Forge", (_Forge,), {"seen": seen})
    with HTTPServer(("127.0.0.1", 0), handler) as made:
        threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{made.server_port}/forge.git", seen
        made.shutdown()


def test_credentials_arrive_and_are_on_no_command_line(
    checkout: Path, server: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, seen = server
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:1")
    lines: list[str] = []
    run = subprocess.run

    def spy(command: list[str], **options: object) -> object:
        lines.extend(command)
        return run(command, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", spy)
    remote = Remote(url, "admin", "se cret'$HOME`")
    assert publish._theirs(remote, "main") == ""
    assert seen[0] == "", "git asks without a password first"
    assert set(seen[1:]) == {"admin:se cret'$HOME`"}
    assert not [line for line in lines if "se cret" in line]
    files = [f for f in checkout.rglob("*") if f.is_file()]
    assert not [f for f in files if b"se cret" in f.read_bytes()]


def test_a_wrong_password_is_an_error_and_no_question(
    server: tuple[str, list[str]], checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Forge, "do_GET", lambda self: self.send_error(403))
    with pytest.raises(SlipwayError, match=r"git ls-remote failed: .*403"):
        publish.publish(Remote(server[0], "admin", "wrong"))


# --- a forge that nobody here pushes to -------------------------------------------------------


def test_what_is_on_the_forge_already_is_published(
    checkout: Path, other: Path, remote: Remote
) -> None:
    assert publish.published(remote) == publish.head()
    gained = merge_on_forge(other, release="a\n")
    assert publish.published(remote) == gained


def test_what_is_not_yet_there_is_to_be_pushed_and_merged_by_who_may(
    checkout: Path, other: Path, forge: Path, remote: Remote
) -> None:
    there, mine = tip(forge), commit(checkout, model="2\n")
    with pytest.raises(BadInput) as error:
        publish.published(remote)
    assert f"main of {remote.url} has not got commit {mine[:12]} of this checkout" in str(
        error.value
    )
    assert (
        f"push a branch there and merge its pull request, or check out what is there: git "
        f"switch --detach {there[:12]}" in str(error.value)
    )
    assert tip(forge) == there


def test_an_empty_forge_is_told_where_to_push(checkout: Path, remote: Remote) -> None:
    with pytest.raises(BadInput, match=r"no branch main\n  fix: git push .* HEAD:refs/heads/main"):
        publish.published(remote)


def test_only_what_is_near_is_reached_without_the_users_proxy() -> None:
    for url in ("http://127.0.0.1:30300/a/b.git", "http://gitea.forge.svc:3000/a/b.git"):
        assert "http.proxy=" in Remote(url, "u", "p").settings
    assert "http.proxy=" not in Remote("https://github.com/a/b.git", "u", "p").settings
