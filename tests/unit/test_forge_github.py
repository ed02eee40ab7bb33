"""The GitHub client against exchanges that were written by hand from the API's public description.

It has never run against GitHub itself. Each file of tests/fixtures/forge/github/{valid,invalid} is
a call, the exchanges that it must cause in this order, and what it gives back (of an object, at
least these fields); `use` names an answer in shapes/, `with` what is otherwise in it.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from slipway import forge
from slipway.credentials import Token
from slipway.errors import BadInput
from slipway.forge import ForgeError, GitHub
from slipway.publish import Remote

FIXTURES = Path(__file__).parents[1] / "fixtures" / "forge" / "github"
VALID = sorted((FIXTURES / "valid").glob("*.yaml"))
INVALID = sorted((FIXTURES / "invalid").glob("*.yaml"))
API = "https://api.github.com"


def shaped(item: Any) -> Any:
    """An answer, with the shapes that it uses."""
    if isinstance(item, list):
        return [shaped(i) for i in item]
    if isinstance(item, dict) and "use" in item:
        shape = yaml.safe_load((FIXTURES / "shapes" / f"{item['use']}.yaml").read_text())
        return {**shape, **item.get("with", {})}
    return item


class Script:
    """Answers as a fixture says, and asserts that it is asked as it says."""

    def __init__(self, exchanges: list[dict[str, Any]]) -> None:
        self.left = list(exchanges)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        assert self.left, f"not foreseen: {request.method} {request.url}"
        exchange = self.left.pop(0)
        path = str(request.url).removeprefix(API).removeprefix("/repos/o/r/")
        if "?" not in exchange["request"]:
            path = path.partition("?")[0]
        assert f"{request.method} {path}" == exchange["request"]
        if "body" in exchange:
            assert json.loads(request.content) == exchange["body"]
        assert request.headers["authorization"] == "Bearer secret"
        assert request.headers["x-github-api-version"] == "2022-11-28"
        return httpx.Response(
            exchange.get("status", 200),
            headers=exchange.get("headers"),
            json=shaped(exchange.get("response")),
        )


def github(handler: Any) -> GitHub:
    return GitHub("o/r", Token("secret"), transport=httpx.MockTransport(handler), backoff_s=0)


def called(document: dict[str, Any]) -> tuple[Any, Script]:
    """What the fixture's call gives back. A mapping as its last argument holds keywords."""
    name, *arguments = document["call"]
    keywords = arguments.pop() if arguments and isinstance(arguments[-1], dict) else {}
    if name == "write":
        arguments[1] = {p: c if c is None else c.encode() for p, c in arguments[1].items()}
    if name == "attach":
        arguments[2] = arguments[2].encode()
    script = Script(document["exchanges"])
    return getattr(github(script), name)(*arguments, **keywords), script


def holds(found: Any, expected: Any) -> bool:
    """Whether `found` is as expected; an object may have more fields."""
    if isinstance(expected, dict) and dataclasses.is_dataclass(found):
        return all(holds(getattr(found, k), v) for k, v in expected.items())
    if isinstance(expected, dict) and isinstance(found, dict):
        return found.keys() == expected.keys() and all(holds(found[k], expected[k]) for k in found)
    if isinstance(expected, list) and isinstance(found, list | tuple):
        return len(found) == len(expected) and all(map(holds, found, expected))
    return found == expected


@pytest.mark.parametrize("file", VALID, ids=lambda f: f.stem)
def test_valid(file: Path) -> None:
    document = yaml.safe_load(file.read_text())
    found, script = called(document)
    assert holds(found, document["returns"]), found
    assert not script.left


@pytest.mark.parametrize("file", INVALID, ids=lambda f: f.stem)
def test_invalid(file: Path) -> None:
    document = yaml.safe_load(file.read_text())
    with pytest.raises(ForgeError) as refused:
        called(document)
    assert file.with_suffix(".expected").read_text().strip() in str(refused.value)
    assert "secret" not in str(refused.value)


def test_read_asks_for_the_content_itself() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert request.headers["accept"] == "application/vnd.github.raw+json"
        return httpx.Response(200, content=b"\0bytes")

    assert github(handler).read("t/a.txt") == b"\0bytes"


def test_lists_are_read_to_their_end() -> None:
    pull = shaped({"use": "pull"})
    pages = {"1": [{**pull, "number": n} for n in range(100)], "2": [{**pull, "number": 100}]}
    asked = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params["page"])
        return httpx.Response(200, json=pages[asked[-1]])

    assert [p.number for p in github(handler).pulls()] == list(range(101))
    assert asked == ["1", "2"]


def test_a_wait_that_is_asked_for_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("slipway.forge.rest.time.sleep", slept.append)
    answers = [
        httpx.Response(429, headers={"retry-after": "7"}),
        httpx.Response(200, json=shaped({"use": "pull"})),
    ]
    assert github(lambda _: answers.pop(0)).pull(7).number == 7
    assert slept == [7]


def test_archive_follows_to_where_it_is_and_leaves_the_token_behind() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/commits/main"):
            return httpx.Response(200, json=shaped({"use": "commit"}))
        if request.url.host == "api.github.com":
            where = "https://codeload.github.com/o/r/legacy.tar.gz/refs/heads/main"
            return httpx.Response(302, headers={"location": where})
        assert "authorization" not in request.headers
        return httpx.Response(200, content=b"tar")

    assert b"".join(github(handler).archive()) == b"tar"


def test_which_forge_is_said_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORGE_URL", "FORGE_REPOSITORY", "FORGE_USERNAME", "FORGE_PASSWORD"):
        monkeypatch.setenv(name, "http://forge" if name == "FORGE_URL" else "o/r")
    assert isinstance(forge.from_environment(), forge.Gitea)
    monkeypatch.setenv("FORGE_KIND", "github")
    monkeypatch.setenv("FORGE_URL", "https://git.example.com/api/v3")
    monkeypatch.setenv("FORGE_SERVER", "https://git.example.com")
    found = forge.from_environment()
    assert isinstance(found, GitHub)
    assert found.remote == Remote("https://git.example.com/o/r.git", "x-access-token", "o/r")
    for name in ("URL", "SERVER", "REPOSITORY", "USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"FORGE_{name}")
    monkeypatch.setenv("GITHUB_REPOSITORY", "o/r")
    monkeypatch.setenv("GITHUB_TOKEN", "secret")
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://git.example.org/")
    found = forge.from_environment()
    assert isinstance(found, GitHub)
    assert found.remote.url == "https://git.example.org/o/r.git"
    assert found.compare_url("a", "b").startswith("https://git.example.org/o/r/compare/")
    monkeypatch.delenv("GITHUB_TOKEN")
    with pytest.raises(BadInput, match="not set: FORGE_TOKEN, GITHUB_TOKEN"):
        forge.from_environment()
    monkeypatch.setenv("FORGE_KIND", "githup")
    with pytest.raises(BadInput, match="did you mean 'github'"):
        forge.from_environment()
