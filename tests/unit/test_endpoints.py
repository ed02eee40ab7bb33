"""As whom the command line is on the platform's forge."""

from __future__ import annotations

import base64
from contextlib import nullcontext

import httpx
import pytest

from slipway import endpoints
from slipway.endpoints import Cluster, ClusterError, patiently
from slipway.errors import BadInput
from slipway.forge import Gitea, GitHub

Patch = pytest.MonkeyPatch
SECRET = "/api/v1/namespaces/forge/secrets/gitea-admin"


@pytest.fixture(autouse=True)
def nobody(monkeypatch: Patch) -> None:
    for name in ("FORGE_KIND", "FORGE_USERNAME", "FORGE_PASSWORD", "FORGE_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def mine(monkeypatch: Patch) -> None:
    monkeypatch.setenv("FORGE_USERNAME", "ada")
    monkeypatch.setenv("FORGE_PASSWORD", "hers")


def platform(monkeypatch: Patch, *, readable: bool) -> Cluster:
    """One with a forge, whose administrator's Secret may be read by everybody, or by nobody."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/v1/namespaces/pipelines/configmaps/platform":
            return httpx.Response(200, json={"data": {"FORGE_REPOSITORY": "slipway/slipway"}})
        assert request.url.path == SECRET
        if not readable:
            return httpx.Response(403, json={"message": "secrets is forbidden: ada cannot get it"})
        admin = {"username": "slipway-admin", "password": "theirs"}
        data = {k: base64.b64encode(v.encode()).decode() for k, v in admin.items()}
        return httpx.Response(200, json={"data": data})

    client = httpx.Client(base_url="https://api", transport=httpx.MockTransport(answer))
    monkeypatch.setattr(Cluster, "service", lambda *_: nullcontext("http://forge"))
    return Cluster(client, embedded=True)


def login(cluster: Cluster, *, administrator: bool = False) -> tuple[str, str]:
    with cluster.forge(administrator=administrator) as forge:
        assert isinstance(forge, Gitea)
        assert forge.login == forge.remote.username
        return forge.remote.username, forge.remote.password


def test_one_is_the_administrator_unless_one_says_who(monkeypatch: Patch) -> None:
    cluster = platform(monkeypatch, readable=True)
    assert login(cluster) == ("slipway-admin", "theirs")
    mine(monkeypatch)
    assert login(cluster) == ("ada", "hers")
    assert login(cluster, administrator=True) == ("slipway-admin", "theirs")


def test_an_own_login_needs_no_right_to_the_administrators(monkeypatch: Patch) -> None:
    cluster = platform(monkeypatch, readable=False)
    with pytest.raises(ClusterError, match=r"gitea-admin: 403 .*\n  fix: .*set FORGE_USERNAME and"):
        login(cluster)
    mine(monkeypatch)
    assert login(cluster) == ("ada", "hers")


@pytest.mark.parametrize("missing", ["FORGE_USERNAME", "FORGE_PASSWORD"])
def test_half_a_login_is_none(monkeypatch: Patch, missing: str) -> None:
    mine(monkeypatch)
    monkeypatch.setenv(missing, "")
    with pytest.raises(BadInput, match=f"^{missing}: not set"):
        login(platform(monkeypatch, readable=True))


# --- a forge that was there before ------------------------------------------------------------


def reading(kind: str, server: str) -> Cluster:
    """A platform that reads another forge, whose bot's login only few may read."""
    known = {
        "FORGE_KIND": kind,
        "FORGE_SERVER": server,
        "FORGE_REPOSITORY": "acme/models",
        "FORGE_GATES": "cluster",
    }
    bot = {"FORGE_USERNAME": "acme-bot", "FORGE_PASSWORD": "its"}

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/configmaps/platform"):
            return httpx.Response(200, json={"data": known})
        assert request.url.path == "/api/v1/namespaces/pipelines/secrets/forge"
        data = {k: base64.b64encode(v.encode()).decode() for k, v in bot.items()}
        return httpx.Response(200, json={"data": data})

    return Cluster(
        httpx.Client(base_url="https://api", transport=httpx.MockTransport(answer)), embedded=False
    )


def test_on_a_forge_of_others_one_says_who_one_is(monkeypatch: Patch) -> None:
    cluster = reading("gitea", "https://git.example.com")
    with pytest.raises(
        BadInput, match=r"^FORGE_TOKEN: the platform reads acme/models on https"
    ) as e:
        login(cluster)
    assert "fix: set it to an access token of yours, or FORGE_USERNAME" in str(e.value)
    assert login(cluster, administrator=True) == ("acme-bot", "its")
    mine(monkeypatch)
    assert login(cluster) == ("ada", "hers")
    assert login(cluster, administrator=True) == ("acme-bot", "its")
    monkeypatch.setenv("FORGE_PASSWORD", "")
    monkeypatch.setenv("FORGE_TOKEN", "token")
    assert login(cluster) == ("ada", "token")


def test_github_is_asked_where_its_api_is(monkeypatch: Patch) -> None:
    monkeypatch.setenv("FORGE_TOKEN", "token")
    for server, api in (
        ("https://github.com", "https://api.github.com"),
        ("https://acme.ghe.com", "https://api.acme.ghe.com"),
        ("https://git.acme.com", "https://git.acme.com/api/v3"),
    ):
        with reading("github", server).forge() as forge:
            assert isinstance(forge, GitHub)
            assert str(forge._api._client.base_url) == f"{api}/repos/acme/models/"
            assert forge.remote.url == f"{server}/acme/models.git"
            assert forge.remote.password == "token"


def test_the_platforms_own_forge_is_no_other(monkeypatch: Patch) -> None:
    assert platform(monkeypatch, readable=True).outside_forge() is None


# --- an API server that is away -----------------------------------------------------------------


@pytest.mark.parametrize(("status", "passes"), [(0, True), (429, True), (503, True), (403, False)])
def test_an_api_server_that_is_away_is_waited_for_and_a_refusal_is_none(
    monkeypatch: Patch, status: int, passes: bool
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(endpoints.time, "sleep", slept.append)
    problems = [ClusterError("no answer", status=status, fix="wait")] * 2
    news: list[str] = []

    def ask() -> str:
        if problems:
            raise problems.pop()
        return "an answer"

    if passes:
        assert patiently(ask, news.append) == "an answer"
        assert (slept, news) == ([1, 1], ["waiting for the API server, at most 120 s: no answer"])
    else:
        with pytest.raises(ClusterError):
            patiently(ask, news.append)
        assert (slept, news) == ([], [])


def test_an_api_server_that_stays_away_is_not_waited_for_forever(monkeypatch: Patch) -> None:
    now = [0.0]
    monkeypatch.setattr(endpoints.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(endpoints.time, "sleep", lambda s: now.__setitem__(0, now[0] + s))

    def ask() -> str:
        raise ClusterError("no answer")

    with pytest.raises(ClusterError, match="no answer"):
        patiently(ask, seconds=5)
    assert now == [6]
