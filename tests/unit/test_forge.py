"""How the forge client meets errors. That Gitea behaves as assumed is tested in tests/e2e."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

import httpx
import pytest

from slipway.errors import BadInput, SlipwayError
from slipway.forge import ForgeError, Gitea, NotFound

HEAD = "d4" * 20

Answer = httpx.Response | Exception


class Script:
    """Answers requests in turn, and keeps what was asked."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append((request.method, request.url.path.removeprefix("/api/v1/repos/o/r/")))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def gitea(handler: Callable[[httpx.Request], httpx.Response]) -> Gitea:
    transport = httpx.MockTransport(handler)
    return Gitea("http://forge/", "o/r", "bot", "secret", transport=transport, backoff_s=0)


def commit(sha: str = HEAD) -> httpx.Response:
    return httpx.Response(200, json={"sha": sha})


def pull(*, merged: bool = False, state: str = "open", title: str = "t") -> httpx.Response:
    return httpx.Response(
        200,
        json={
            "number": 7,
            "html_url": "http://forge/o/r/pulls/7",
            "title": title,
            "body": "b",
            "state": state,
            "merged": merged,
            "merge_commit_sha": HEAD if merged else None,
            "head": {"label": "release/x-1", "sha": HEAD},
            "base": {"label": "main", "sha": HEAD},
        },
    )


def said(status: int, message: str = "") -> httpx.Response:
    return httpx.Response(status, json={"message": message})


@pytest.mark.parametrize("fault", [said(502), said(500), said(429), httpx.ReadTimeout("slow")])
def test_reading_is_tried_again(fault: Answer) -> None:
    script = Script(fault, httpx.ConnectError("refused"), commit())
    assert gitea(script).commit() == HEAD
    assert len(script.asked) == 3


@pytest.mark.parametrize("fault", [said(500, "boom"), httpx.ReadTimeout("slow")])
def test_writing_is_not_repeated_when_it_may_have_happened(fault: Answer) -> None:
    script = Script(fault)
    with pytest.raises(ForgeError):
        gitea(script).set_status(HEAD, "gates", "success")
    assert len(script.asked) == 1


def test_writing_is_tried_again_when_it_cannot_have_happened() -> None:
    script = Script(httpx.ConnectError("refused"), said(503), said(201))
    gitea(script).set_status(HEAD, "gates", "success")
    assert len(script.asked) == 3


def test_no_answer_says_where_and_what_to_do() -> None:
    script = Script(*[httpx.ConnectError("refused")] * 6)
    with pytest.raises(ForgeError, match=r"no answer from the forge at http://forge.*refused"):
        gitea(script).commit()


def test_refused_credentials_are_named_but_not_shown() -> None:
    with pytest.raises(ForgeError, match="refuses these credentials") as error:
        gitea(Script(said(401, "invalid username or password"))).commit()
    assert "secret" not in str(error.value)


def test_not_found_is_told_apart() -> None:
    with pytest.raises(NotFound, match=r"no file a\.yaml at main"):
        gitea(Script(said(404))).read("a.yaml")


def test_an_answer_that_is_no_json_is_quoted() -> None:
    with pytest.raises(ForgeError, match="409: <html>"):
        gitea(Script(httpx.Response(409, text="<html>"))).set_status(HEAD, "c", "success")


def test_merge_of_a_merged_one_does_nothing() -> None:
    script = Script(pull(merged=True, state="closed"))
    assert gitea(script).merge(7).merge_sha == HEAD
    assert script.asked == [("GET", "pulls/7")]


def test_merge_waits_for_mergeability() -> None:
    later = said(405, "Please try again later")
    script = Script(pull(), later, pull(), said(200), pull(merged=True, state="closed"))
    assert gitea(script).merge(7).merged


def test_merge_that_happened_without_an_answer_is_a_merge() -> None:
    script = Script(pull(), httpx.ReadTimeout("slow"), pull(merged=True, state="closed"))
    assert gitea(script).merge(7).merged


def test_merge_refuses_a_head_that_moved() -> None:
    with pytest.raises(ForgeError, match="another head commit now"):
        gitea(Script(pull())).merge(7, sha="e5" * 20)


def test_merge_refuses_a_closed_one() -> None:
    with pytest.raises(ForgeError, match="closed without merging"):
        gitea(Script(pull(state="closed"))).merge(7)


def test_merge_conflict_is_an_error() -> None:
    with pytest.raises(ForgeError, match="409: conflict"):
        gitea(Script(pull(), said(409, "conflict"), pull())).merge(7)


def test_open_finds_the_open_one() -> None:
    script = Script(pull())
    assert gitea(script).open("release/x-1", "t", "b").number == 7
    assert script.asked == [("GET", "pulls/main/release/x-1")]


def test_open_brings_title_and_body_up_to_date() -> None:
    script = Script(pull(title="old"), pull())
    gitea(script).open("release/x-1", "t", "b")
    assert script.asked[-1] == ("PATCH", "pulls/7")


def blob(content: bytes) -> httpx.Response:
    return httpx.Response(200, json={"content": base64.b64encode(content).decode(), "sha": "b10b"})


def test_write_of_the_same_content_makes_no_commit() -> None:
    script = Script(commit(), blob(b"same"))
    assert gitea(script).write("branch", {"a.yaml": b"same"}, "m") == HEAD
    assert [method for method, _ in script.asked] == ["GET", "GET"]


def test_write_is_one_commit_that_names_what_it_replaces() -> None:
    requests: list[httpx.Request] = []
    answers = Script(commit(), blob(b"old"), said(404), blob(b"gone"), said(201))
    answers.answers[-1] = httpx.Response(201, json={"commit": {"sha": "e5" * 20}})

    def handler(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return answers(request)

    files = {"a.yaml": b"new", "b.yaml": b"b", "c.yaml": None}
    assert gitea(handler).write("branch", files, "m") == "e5" * 20
    sent = json.loads(requests[-1].content)
    assert [(f["operation"], f.get("sha")) for f in sent["files"]] == [
        ("update", "b10b"),
        ("create", None),
        ("delete", "b10b"),
    ]


def test_comment_is_updated_in_place() -> None:
    present = httpx.Response(200, json=[{"id": 3, "body": "<!-- gates -->\nold"}])
    script = Script(present, said(200))
    gitea(script).comment(7, "gates", "new")
    assert script.asked[-1] == ("PATCH", "issues/comments/3")


def test_unset_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORGE_URL", "FORGE_REPOSITORY", "FORGE_USERNAME"):
        monkeypatch.setenv(name, "x")
    monkeypatch.delenv("FORGE_PASSWORD", raising=False)
    with pytest.raises(BadInput, match="not set: FORGE_PASSWORD"):
        Gitea.from_environment()


def test_repository_needs_an_owner() -> None:
    with pytest.raises(SlipwayError, match="not OWNER/NAME"):
        Gitea("http://forge", "slipway", "u", "p")
