"""GitHub Apps, against exchanges that were written by hand from the API's public description.

None of it has run against GitHub. Each file of tests/fixtures/forge/app/{valid,invalid} has the
exchanges that asking for a token must cause, in this order; `ahead_s` is by how much this machine's
clock is ahead of the forge's.
"""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import yaml
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

from slipway import forge, github_app
from slipway.errors import BadInput, SlipwayError
from slipway.forge import ForgeError, GitHub
from slipway.github_app import STACK, App, Installation, load_key
from tests import tls

FIXTURES = Path(__file__).parents[1] / "fixtures" / "forge" / "app"
API = "https://api.github.com"
TOKEN = "ghs_16C7e42F292c6912E7710c838347Ae178B4a"
Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(scope="module")
def pem() -> str:
    return tls.rsa_key()


@pytest.fixture(scope="module")
def app(pem: str) -> App:
    return App(12345, 678, load_key(pem, STACK[2]), STACK)


def installed(app: App, handler: Handler, **options: Any) -> Installation:
    transport = httpx.MockTransport(handler)
    return Installation(app, API, "o/r", transport=transport, backoff_s=0, **options)


def claims(request: httpx.Request, app: App) -> dict[str, Any]:
    """What a request proves to be, its signature verified."""
    kind, _, proof = request.headers["authorization"].partition(" ")
    assert kind == "Bearer"
    head, body, signature = proof.split(".")
    said, meant, signed = (
        base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in (head, body, signature)
    )
    app.key.public_key().verify(signed, f"{head}.{body}".encode(), PKCS1v15(), hashes.SHA256())
    assert json.loads(said) == {"alg": "RS256", "typ": "JWT"}
    return dict(json.loads(meant))


class Script:
    """Answers as a fixture says, and asserts that it is asked as it says, by the app itself."""

    def __init__(self, exchanges: list[dict[str, Any]], app: App) -> None:
        self.left, self.app = list(exchanges), app

    def __call__(self, request: httpx.Request) -> httpx.Response:
        assert self.left, f"not foreseen: {request.method} {request.url}"
        exchange = self.left.pop(0)
        path = str(request.url).removeprefix(f"{API}/")
        assert f"{request.method} {path}" == exchange["request"]
        if "body" in exchange:
            assert json.loads(request.content) == exchange["body"]
        assert claims(request, self.app)["iss"] == "12345"
        there = datetime.now(UTC) - timedelta(seconds=exchange.get("ahead_s", 0))
        answer = json.dumps(exchange["response"])
        ends = f"{there + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
        return httpx.Response(
            exchange.get("status", 200),
            headers={"date": format_datetime(there, usegmt=True)},
            content=answer.replace("IN_AN_HOUR", ends),
        )


def asked(file: Path, app: App) -> tuple[Installation, Script]:
    document = yaml.safe_load(file.read_text())
    script = Script(document["exchanges"], app)
    return installed(app, script, permissions=document.get("permissions")), script


@pytest.mark.parametrize("file", sorted((FIXTURES / "valid").glob("*.yaml")), ids=lambda f: f.stem)
def test_valid(file: Path, app: App) -> None:
    made, script = asked(file, app)
    assert made.password == TOKEN
    assert 3590 < made.seconds <= 3601
    assert made.password == TOKEN, "kept"
    assert not script.left


@pytest.mark.parametrize(
    "file", sorted((FIXTURES / "invalid").glob("*.yaml")), ids=lambda f: f.stem
)
def test_invalid(file: Path, app: App) -> None:
    made, script = asked(file, app)
    with pytest.raises(SlipwayError) as refused:
        _ = made.password
    assert file.with_suffix(".expected").read_text().strip() in str(refused.value)
    assert not script.left
    assert "eyJ" not in str(refused.value), "of the proof there is nothing in it"


def test_a_proof_counts_for_ten_minutes_at_most_and_allows_for_clocks(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(time=lambda: 1_800_000_000.9, monotonic=lambda: 0.0)
    monkeypatch.setattr(github_app, "time", clock)
    request = httpx.Request("GET", API, headers={"authorization": f"Bearer {app.proof()}"})
    found = claims(request, app)
    assert found == {"iat": 1_799_999_940, "exp": 1_800_000_540, "iss": "12345"}
    assert found["exp"] - found["iat"] <= 600


class GitHubItself:
    """Gives out tokens, and answers to whoever has the newest, for as long as that counts."""

    def __init__(self) -> None:
        self.now, self.given, self.ends = 0.0, 0, 0.0
        self.seen: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/access_tokens"):
            self.given, self.ends = self.given + 1, self.now + 3600
            there = datetime.now(UTC)
            body = {"token": f"token-{self.given}", "expires_at": (there + HOUR).isoformat()}
            date = format_datetime(there, usegmt=True)
            return httpx.Response(201, headers={"date": date}, json=body)
        if request.url.path == "/app":
            return httpx.Response(200, json={"id": 12345, "slug": "acme-slipway"})
        bearer = request.headers["authorization"]
        self.seen.append(bearer)
        if bearer != f"Bearer token-{self.given}" or self.now >= self.ends:
            return httpx.Response(401, json={"message": "Bad credentials"})
        return httpx.Response(200, json={"sha": "d4" * 20})


HOUR = timedelta(hours=1)


@pytest.fixture
def itself(monkeypatch: pytest.MonkeyPatch) -> GitHubItself:
    made = GitHubItself()
    real = github_app.time.time
    monkeypatch.setattr(github_app, "time", SimpleNamespace(time=real, monotonic=lambda: made.now))
    return made


def client(app: App, itself: GitHubItself) -> GitHub:
    transport = httpx.MockTransport(itself)
    return GitHub("o/r", installed(app, itself), transport=transport, backoff_s=0)


def test_a_token_is_kept_and_made_anew_shortly_before_it_ends(
    app: App, itself: GitHubItself
) -> None:
    forge = client(app, itself)
    for itself.now in (0, 60, 3200):
        forge.commit()
        assert forge.remote.password == "token-1"
    for itself.now in (3320, 6000):
        assert forge.remote.password == "token-2"
        forge.commit()
    itself.now = 3 * 3600
    forge.commit()
    assert itself.given == 3
    assert (forge.remote.username, forge.remote.password) == ("x-access-token", "token-3")


def test_one_that_is_taken_back_is_made_anew_once(app: App, itself: GitHubItself) -> None:
    forge = client(app, itself)
    forge.commit()
    itself.ends = 0
    assert forge.commit() == "d4" * 20
    assert itself.given == 2
    itself.seen.clear()
    answer = itself.__call__

    def refuse(request: httpx.Request) -> httpx.Response:
        itself.ends = 0 if not request.url.path.endswith("/access_tokens") else itself.ends
        return answer(request)

    forge = GitHub("o/r", installed(app, refuse), transport=httpx.MockTransport(refuse))
    with pytest.raises(ForgeError, match=r"refuses these credentials: Bad.*\n  fix: see app 12345"):
        forge.commit()
    assert len(itself.seen) == 2


def test_an_app_is_called_as_github_calls_what_it_does(app: App, itself: GitHubItself) -> None:
    assert client(app, itself).login == "acme-slipway[bot]"


def test_what_a_refused_request_would_take_is_said(app: App, itself: GitHubItself) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/access_tokens"):
            return itself(request)
        takes = {"x-accepted-github-permissions": "administration=write"}
        said = {"message": "Resource not accessible by integration"}
        return httpx.Response(403, headers=takes, json=said)

    forge = GitHub("o/r", installed(app, itself), transport=httpx.MockTransport(handler))
    with pytest.raises(ForgeError, match="in the repository, which takes administration=write;"):
        forge.protect("slipway/check")


@pytest.mark.parametrize("text", ["", "none", "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match=r"^slipway:forgeAppKey: no private key in PEM") as refused:
        load_key(text, STACK[2])
    assert "AAAA" not in str(refused.value)


def test_nor_is_another_kind_of_key(pem: str) -> None:
    with pytest.raises(BadInput, match="a private key, but no RSA one\n  fix: the app's settings"):
        load_key(tls.ec_key(), STACK[2])
    assert pem not in repr(App(1, 2, load_key(pem, STACK[2])))


# --- an app of one's own, as the environment says it -------------------------------------------


@pytest.fixture
def said(tmp_path: Path, pem: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "key.pem"
    file.write_text(pem)
    file.chmod(stat.S_IRUSR)
    values = ("12345", "678", str(file))
    for name, value in zip(github_app.OWN, values, strict=True):
        monkeypatch.setenv(name, value)
    for name in ("FORGE_KIND", "FORGE_TOKEN", "FORGE_USERNAME", "FORGE_PASSWORD", "GITHUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return file


def test_it_is_who_one_is(said: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = forge.own_credentials("github", "https://git.acme.com", "o/r")
    assert isinstance(found, Installation)
    assert (found.app.id, found.app.installation, found._api) == (
        *(12345, 678),
        "https://git.acme.com/api/v3",
    )
    monkeypatch.setenv("FORGE_KIND", "github")
    monkeypatch.setenv("FORGE_REPOSITORY", "o/r")
    made = forge.from_environment()
    assert isinstance(made, GitHub)
    assert isinstance(made._credentials, Installation)


def test_a_gitea_has_no_apps(said: Path) -> None:
    with pytest.raises(BadInput, match=r"^FORGE_APP_ID: no app of https://git\.acme\.com: only"):
        forge.own_credentials("gitea", "https://git.acme.com", "o/r")


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        *((name, "", f"{name}: not set\n  fix: set all of") for name in github_app.OWN),
        ("FORGE_APP_ID", "acme", "FORGE_APP_ID: 'acme' is no number"),
        ("FORGE_APP_INSTALLATION", "1.5", "FORGE_APP_INSTALLATION: '1.5' is no number"),
        ("FORGE_APP_KEY_FILE", "/no/such.pem", "/no/such.pem: FORGE_APP_KEY_FILE: cannot be read"),
        *(
            (name, "ada", f"FORGE_APP_ID: set beside {name}\n  fix: unset one of the two")
            for name in ("FORGE_TOKEN", "FORGE_USERNAME", "FORGE_PASSWORD")
        ),
    ],
)
def test_what_is_half_set_is_refused(
    said: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, problem: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BadInput) as refused:
        github_app.own()
    assert problem in str(refused.value)


def test_a_key_of_another_kind_is_told_by_its_file(said: Path) -> None:
    said.chmod(stat.S_IRUSR | stat.S_IWUSR)
    said.write_text(tls.ec_key())
    with pytest.raises(BadInput, match=f"^{said}: FORGE_APP_KEY_FILE: a private key, but no RSA"):
        github_app.own()


def test_nobody_is_an_app_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in github_app.OWN:
        monkeypatch.delenv(name, raising=False)
    assert github_app.own() is None
