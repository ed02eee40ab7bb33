"""Publishes this checkout's commit to the forge, beside what the forge has gained meanwhile."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from slipway import authority, paths
from slipway.errors import BadInput, SlipwayError
from slipway.repository import Repository

# Whether the release file of this path and content is another platform's than the forge's.
IsForeign = Callable[[str, bytes], bool]

# Credentials go by the environment: a command line is readable by every process of the machine.
_HELPER = '!f() { echo "username=$SLIPWAY_GIT_USER"; echo "password=$SLIPWAY_GIT_PASSWORD"; }; f'
# This commit and this push are not the user's: neither hooks nor signatures.
_PLAIN = [
    *("-c", "core.hooksPath=/dev/null", "-c", "commit.gpgSign=false"),
    *("-c", "user.name=slipway", "-c", "user.email=slipway@localhost"),
]
# What environments run, and what lets it in.
_RELEASES = [f":(glob)environments/*/{folder}/**" for folder in ("models", "break-glass")]


@dataclass(frozen=True)
class Remote:
    """The forge's repository as git sees it. `ca`: see `slipway.authority`."""

    url: str
    username: str
    password: str = field(repr=False)
    ca: str = field(default="", repr=False)

    @property
    def settings(self) -> list[str]:
        """What git is told of it: no proxy leads to this machine, nor into the cluster."""
        host = urlsplit(self.url).hostname or ""
        near = host in ("127.0.0.1", "::1", "localhost") or host.endswith(".svc")
        # The first, empty, helper drops the user's own: nothing of ours lands in a key ring.
        helpers = ["-c", "credential.helper=", "-c", f"credential.helper={_HELPER}"]
        return [*helpers, *(("-c", "http.proxy=") if near else ())]


@contextmanager
def _reaching(remote: Remote) -> Generator[dict[str, str]]:
    """Variables by which git is let in. It knows authorities by files only."""
    login = {"SLIPWAY_GIT_USER": remote.username, "SLIPWAY_GIT_PASSWORD": remote.password}
    if not remote.ca:
        yield login
        return
    with tempfile.NamedTemporaryFile("w", prefix="slipway-ca-", suffix=".pem") as file:
        file.write(remote.ca)
        file.flush()
        yield {**login, "GIT_SSL_CAINFO": file.name}


def git(*arguments: str, remote: Remote | None = None, cwd: Path | None = None) -> str:
    with _reaching(remote) if remote else nullcontext(dict[str, str]()) as more:
        done = subprocess.run(
            ["git", *_PLAIN, *(remote.settings if remote else ()), *arguments],
            cwd=cwd or paths.REPOSITORY,
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0", **more},
            capture_output=True,
            text=True,
        )
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        if remote and (refused := authority.refused_git(said, remote.url, remote.ca)):
            raise refused
        raise SlipwayError(f"git {arguments[0]} failed: {said}")
    return done.stdout.strip()


def head() -> str:
    """The checkout's commit.

    Raises:
        SlipwayError: this is not a git checkout, or has no commit.
    """
    return git("rev-parse", "HEAD")


def changed() -> list[str]:
    """Files of the checkout that are not as its commit has them: changed, gone, or new and not
    ignored; relative to the repository."""
    tracked = git("diff", "--name-only", "--no-renames", "-z", "HEAD")
    new = git("ls-files", "--others", "--exclude-standard", "-z")
    return sorted(file for said in (tracked, new) for file in said.split("\0") if file)


def whole() -> str:
    """The checkout's commit, with all that came before it.

    Raises:
        SlipwayError: this is no git checkout, has no commit, or is shallow.
    """
    if git("rev-parse", "--is-shallow-repository") == "true":
        raise SlipwayError(
            "this clone is shallow and cannot be pushed", fix="git fetch --unshallow"
        )
    return head()


def publish(
    remote: Remote,
    branch: str = "main",
    *,
    is_foreign: IsForeign = lambda _path, _content: False,
    warn: Callable[[str], None] = lambda _: None,
) -> tuple[str, bool]:
    """Makes the forge's branch contain this checkout's HEAD.

    The forge gains commits of its own (merged release files), so HEAD is merged into its branch
    when neither contains the other. Release files of another platform, which a clone brings along,
    stay out: at their paths the forge keeps what it has. Your branch and your files are not
    touched.

    Args:
        warn: called with what stays out.

    Returns:
        The branch's commit, and whether it had to move.

    Raises:
        BadInput: it would change what an environment runs, past the gates.
        SlipwayError: the two conflict, or the checkout is shallow.
    """
    mine, theirs = whole(), _theirs(remote, branch)
    if theirs and _is_ancestor(mine, theirs):
        return theirs, False
    if foreign := _foreign(theirs, mine, is_foreign):
        mine = _without(foreign, mine, theirs)
        warn(_stays_out(foreign))
    if theirs and not _is_ancestor(theirs, mine):
        mine = _merged(mine, theirs)
    if theirs:
        _releases_nothing(theirs, mine)
    git("push", "--quiet", remote.url, f"{mine}:refs/heads/{branch}", remote=remote)
    return mine, True


def published(remote: Remote, branch: str = "main") -> str:
    """The commit of the forge's branch, which has this checkout's HEAD in it already.

    Raises:
        BadInput: it has not.
        SlipwayError: the forge's git does not answer, or the checkout is shallow.
    """
    mine, theirs = whole(), _theirs(remote, branch)
    if theirs and _is_ancestor(mine, theirs):
        return theirs
    if theirs:
        problem = f"{branch} of {remote.url} has not got commit {mine[:12]} of this checkout"
        fix = "push a branch there and merge its pull request, or check out what is there: "
        fix += f"git switch --detach {theirs[:12]}"
    else:
        problem = f"{remote.url} has no branch {branch}"
        fix = f"git push {remote.url} HEAD:refs/heads/{branch}"
    raise BadInput(problem, fix=fix)


def fetch(remote: Remote, into: Path, *refspecs: str) -> None:
    """Fetches into a repository, bare or not, without tags; `SlipwayError` where git cannot."""
    git("fetch", "--quiet", "--no-tags", remote.url, *refspecs, remote=remote, cwd=into)


def fetched(remote: Remote, into: Path, branch: str = "main") -> str:
    """The remote's branch, fetched beside the repository's own branches: what it is called here."""
    fetch(remote, into, f"+refs/heads/{branch}:{here(branch)}")
    return here(branch)


def here(branch: str = "main") -> str:
    """What the forge's branch is called in a repository that it was fetched into."""
    return f"refs/slipway/{branch}"


def _theirs(remote: Remote, branch: str) -> str:
    if not git("ls-remote", remote.url, f"refs/heads/{branch}", remote=remote):
        return ""
    return git("rev-parse", fetched(remote, paths.REPOSITORY, branch))


def _is_ancestor(older: str, newer: str) -> bool:
    command = ["git", "merge-base", "--is-ancestor", older, newer]
    return subprocess.run(command, cwd=paths.REPOSITORY, capture_output=True).returncode == 0


def _releases_nothing(theirs: str, mine: str) -> None:
    """Who may push to a protected branch passes by its gates: releases are not to come that way."""
    if files := _releases(theirs, mine):
        raise BadInput(
            "changed by hand, and the forge's main takes releases by pull request only"
            + _more(files),
            file=files[0],
            fix="git revert what changed it; then propose it: slipway promote, or a branch and a "
            "pull request on the forge",
        )


def _releases(before: str, after: str) -> list[str]:
    """The files by which `after` changes what environments run; `before` is "" for nothing yet."""
    before = before or _nothing()
    changed = git("diff", "--name-only", "--no-renames", "-z", before, after, "--", *_RELEASES)
    return [file for file in changed.split("\0") if file]


def _nothing() -> str:
    """A tree without files."""
    return git("hash-object", "-t", "tree", os.devnull)


def _more(files: Sequence[str]) -> str:
    return f" ({len(files) - 1} more like it)" if files[1:] else ""


def _foreign(theirs: str, mine: str, is_foreign: IsForeign) -> list[str]:
    """What came to `mine`, and `theirs` has otherwise, with the releases of another platform."""
    with Repository(paths.REPOSITORY) as repository:
        base = repository.git("merge-base", theirs, mine, ok=(0, 1)).strip() if theirs else ""

        def is_of_another(file: str) -> bool:
            """By the release that it is, goes with, or was before it went."""
            _, environment, _, name = PurePosixPath(file).parts[:4]
            path = str(PurePosixPath("environments", environment, "models", name))
            content = repository.read(mine, path) or (repository.read(base, path) if base else None)
            return content is not None and is_foreign(path, content)

        different = set(_releases(theirs, mine))
        return [f for f in _releases(base, mine) if f in different and is_of_another(f)]


def _without(files: Sequence[str], mine: str, theirs: str) -> str:
    """A commit on `mine` that has these files as `theirs` has them."""
    as_there = f"--source={theirs or _nothing()}"
    with _worktree(mine) as place:
        named = [f":(top,literal){file}" for file in files]
        git("restore", as_there, "--staged", "--worktree", "--", *named, cwd=place)
        git("commit", "--quiet", "--message", "Leave out what another platform released", cwd=place)
        return git("rev-parse", "HEAD", cwd=place)


def _stays_out(files: Sequence[str]) -> str:
    return (
        f"{files[0]}{_more(files)} stays out of the forge: another platform released it, and its "
        "evidence is in that one's store (`slipway restore` brings a platform back with both)"
    )


@contextmanager
def _worktree(commit: str) -> Generator[Path]:
    """A checkout beside this one."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "merge"
        git("worktree", "add", "--quiet", "--detach", str(place), commit)
        try:
            yield place
        finally:
            git("worktree", "remove", "--force", str(place))


def _merged(mine: str, theirs: str) -> str:
    with _worktree(theirs) as place:
        try:
            message = f"Merge {mine[:12]} from a checkout"
            git("merge", "--quiet", "--no-ff", "--no-edit", "-m", message, mine, cwd=place)
            return git("rev-parse", "HEAD", cwd=place)
        except SlipwayError as error:
            raise SlipwayError(
                f"this checkout and the forge's main conflict: {error}",
                fix=f"git merge {theirs[:12]}, resolve, commit, and run `make up` again",
            ) from error
