"""A forge whose certificate is by an authority of one's own: real https, its API and its git."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from slipway import authority, publish
from slipway.errors import BadInput
from slipway.forge import Gitea
from slipway.publish import Remote
from tests import tls
from tests.tls import Authority

SHA = "d4" * 20


class Handler(SimpleHTTPRequestHandler):
    """The API's answer about a commit, and a repository as git reads it from plain files."""

    def do_GET(self) -> None:
        if not self.path.startswith("/api/"):
            super().do_GET()
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"sha": SHA}).encode())

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture(scope="module")
def ours() -> Authority:
    return Authority.make("Acme root")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is served: the repository o/r, with one commit."""
    made = tmp_path_factory.mktemp("served")
    place = made / "o" / "r.git"
    place.mkdir(parents=True)

    def git(*arguments: str) -> str:
        who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
        command = ["git", *who, *arguments]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "--quiet", "--bare", "--initial-branch=main", "--template=")
    tree = git("hash-object", "-t", "tree", "-w", "/dev/null")
    git("update-ref", "refs/heads/main", git("commit-tree", tree, "-m", "Nothing"))
    git("update-server-info")
    return made


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, tls.HERE)


@pytest.fixture
def server(ours: Authority, folder: Path, tmp_path: Path, request: Any) -> Iterator[str]:
    """Its address; the certificate is as the test's parameter says."""
    certificate = ours.signed(**getattr(request, "param", {}))
    handler = partial(Handler, directory=str(folder))
    with tls.serving(handler, certificate, tmp_path) as port:  # type: ignore[arg-type]
        yield f"https://{tls.HERE}:{port}"


def api(url: str, pem: str) -> str:
    with Gitea(url, "o/r", "bot", "secret", ca=pem, backoff_s=0) as forge:
        return forge.commit()


def main_of(url: str, pem: str) -> str:
    remote = Remote(f"{url}/o/r.git", "bot", "secret", pem)
    return publish.git("ls-remote", remote.url, "refs/heads/main", remote=remote)


WAYS = pytest.mark.parametrize("way", [api, main_of])


@WAYS
def test_whoever_knows_the_authority_is_answered(server: str, ours: Authority, way: Any) -> None:
    assert way(server, ours.pem)
    others = Authority.make("Another").pem
    assert way(server, others + ours.pem), "one of several"


@WAYS
def test_who_does_not_is_told_what_to_name(server: str, way: Any) -> None:
    with pytest.raises(BadInput, match=r"an authority that slipway:forge\.ca does not") as error:
        way(server, Authority.make("Acme root").pem)
    assert str(error.value).startswith(f"slipway:forge.ca: {server}")
    assert "fix: write that authority's certificate there, as PEM" in str(error.value)
    with pytest.raises(BadInput, match="an authority that nobody knows here"):
        way(server, "")


@pytest.mark.parametrize("server", [{"days": (-9, -1)}], indirect=True)
@WAYS
def test_what_has_expired_is_told(server: str, ours: Authority, way: Any) -> None:
    with pytest.raises(BadInput, match=r"its certificate is .*out of date") as error:
        way(server, ours.pem)
    if way is api:  # git may not know better
        assert "fix: renew it there; or look at this machine's clock" in str(error.value)


@pytest.mark.parametrize("server", [{"address": "git.example.com"}], indirect=True)
@WAYS
def test_and_what_is_anothers(server: str, ours: Authority, way: Any) -> None:
    with pytest.raises(BadInput, match="its certificate is another's: ") as error:
        way(server, ours.pem)
    assert "fix: slipway:forge.url has the name that the certificate is for" in str(error.value)


def test_git_leaves_no_file_of_it_behind(
    server: str, ours: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = set(tmp_path.iterdir())
    assert main_of(server, ours.pem)
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "said",
    [
        "fatal: unable to access 'https://x/': server certificate verification failed. CAfile: a",
        "fatal: unable to access 'https://x/': SSL certificate problem: unable to get local issuer "
        "certificate",
    ],
)
def test_both_libraries_of_git_are_understood(said: str) -> None:
    told = authority.refused_git(said, "https://x", "PEM")
    assert "that slipway:forge.ca does not name" in str(told)


def test_what_else_git_says_is_no_matter_of_certificates() -> None:
    for said in ("fatal: Authentication failed for 'https://x/'", "remote: a certificate of merit"):
        assert authority.refused_git(said, "https://x", "") is None
