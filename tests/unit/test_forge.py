"""How the forge client meets errors. That Gitea behaves as assumed is tested in tests/e2e."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from slipway import protection
from slipway.errors import BadInput, SlipwayError
from slipway.forge import ForgeError, Gitea, NotFound, Report

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


def pull(
    *, merged: bool = False, state: str = "open", title: str = "t", fork: bool = False
) -> httpx.Response:
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
            "user": {"login": "ada"},
            "labels": [],
            "head": {"label": "release/x-1", "sha": HEAD, "repo_id": 2 if fork else 1},
            "base": {"label": "main", "sha": HEAD, "repo_id": 1},
        },
    )


def listed(*pulls: httpx.Response) -> httpx.Response:
    return httpx.Response(200, json=[pull.json() for pull in pulls])


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
    script = Script(listed(pull(fork=True), pull()))
    assert gitea(script).open("release/x-1", "t", "b").number == 7
    assert script.asked == [("GET", "pulls")]


def test_open_takes_the_one_that_somebody_else_was_faster_to_open() -> None:
    script = Script(listed(), said(409, "pull request already exists"), listed(pull()))
    assert gitea(script).open("release/x-1", "t", "b").number == 7
    with pytest.raises(ForgeError, match="409: no commits"):
        gitea(Script(listed(), said(409, "no commits"), listed())).open("release/x-1", "t", "b")


def test_find_prefers_the_open_one_and_then_the_newest() -> None:
    # Gitea's own look-up by branch gives any of them.
    assert gitea(Script(listed(pull(title="new")))).find("release/x-1").title == "new"
    old, new = pull(state="closed", title="old"), pull(state="closed", title="new")
    assert gitea(Script(listed(), old, listed(new, old))).find("release/x-1").title == "new"
    assert gitea(Script(listed(), said(404))).find("release/x-1") is None


def test_open_brings_title_and_body_up_to_date() -> None:
    script = Script(listed(pull(title="old")), pull())
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
    bodies = [(2, "eve"), (3, "Bot")]
    comments = [
        {"id": i, "body": "<!-- gates -->\nold", "user": {"login": login}} for i, login in bodies
    ]
    script = Script(httpx.Response(200, json=comments), said(200))
    gitea(script).comment(7, "gates", "new")
    assert script.asked[-1] == ("PATCH", "issues/comments/3")


def test_what_was_said_is_this_user_s_or_theirs_whom_one_believes() -> None:
    comments = [
        {"id": i, "body": f"<!-- gates -->\n{i}", "user": {"login": login} if login else None}
        for i, login in enumerate(("", "eve", "bot", "ada"))
    ]
    for by, expected in (((), "2"), (("ada", "nobody"), "3"), (("nobody",), "")):
        script = Script(httpx.Response(200, json=comments))
        assert gitea(script).said(7, "gates", by=by)[-1:] == expected


def test_comment_of_another_is_not_taken_over() -> None:
    theirs = {"id": 2, "body": "<!-- gates -->\nI am the gates", "user": {"login": "eve"}}
    mine = {"id": 3, "body": "<!-- gates -->\nnew", "user": {"login": "bot"}}
    both = httpx.Response(200, json=[theirs, mine])
    script = Script(httpx.Response(200, json=[theirs]), said(201), both)
    gitea(script).comment(7, "gates", "new")
    assert script.asked[1:] == [("POST", "issues/7/comments"), ("GET", "issues/7/comments")]


@pytest.mark.parametrize("deleted", [said(204), said(404)], ids=["deleted", "gone already"])
def test_of_two_comments_made_at_once_the_first_stays(deleted: Answer) -> None:
    made = [
        {"id": i, "body": f"<!-- gates -->\n{text}", "user": {"login": "bot"}}
        for i, text in ((3, "theirs"), (4, "new"))
    ]
    none, both = httpx.Response(200, json=[]), httpx.Response(200, json=made)
    script = Script(none, said(201), both, deleted, said(200))
    gitea(script).comment(7, "gates", "new")
    assert script.asked[3:] == [("DELETE", "issues/comments/4"), ("PATCH", "issues/comments/3")]


def test_pull_of_a_fork_is_told_and_not_found_by_its_branch() -> None:
    assert gitea(Script(pull(fork=True))).pull(7).fork
    forks = [listed(pull(fork=True)), pull(fork=True), listed(pull(fork=True, state="closed"))]
    assert gitea(Script(*forks)).find("release/x-1") is None


def test_a_merge_that_a_check_forbids_is_not_waited_for() -> None:
    missing = said(405, "not ready to merge: Not all required status checks successful")
    with pytest.raises(ForgeError, match=r"cannot be merged.*\n.*missing check.*required status"):
        gitea(Script(pull(), missing, pull())).merge(7)


def review(login: str, state: str = "APPROVED", **more: object) -> dict[str, object]:
    when = "2026-01-02T03:04:05+01:00"
    facts = {"stale": False, "dismissed": False, "commit_id": HEAD, "submitted_at": when}
    return {"user": {"login": login}, "state": state, **facts, **more}


def test_a_report_is_the_newest_of_its_context_and_somebody_s() -> None:
    reports = [
        {"id": number, "context": context, "status": state, "description": said, "creator": who}
        for number, context, state, said, who in (
            (2, "gates", "success", "well", None),
            (3, "gates", "error", "the store does not answer", {"login": "bot"}),
            (1, "gates", "pending", "", {"login": "bot"}),
            (4, "other", "failure", "no", {"login": "eve"}),
        )
    ]
    script = Script(*[httpx.Response(200, json=reports)] * 2)
    found = gitea(script).report(HEAD, "gates")
    assert found == ("error", "bot", "the store does not answer")
    assert gitea(script).report(HEAD, "third") is None


def test_reviews_are_the_approvals_that_stand() -> None:
    given = [
        review("ada", state="REQUEST_CHANGES"),
        review("ada"),
        review("bob", dismissed=True),
        review("eve", stale=True),
        review("joe"),
        review("Joe", state="REQUEST_CHANGES"),
        review("kim", state="COMMENT"),
        review("", state="REQUEST_REVIEW", user=None),
    ]
    found = gitea(Script(pull(), httpx.Response(200, json=given))).reviews(7)
    assert [(r.login, r.sha, r.when.isoformat()) for r in found] == [
        ("ada", HEAD, "2026-01-02T02:04:05+00:00")
    ]


def test_changed_has_both_names_of_a_renamed_file() -> None:
    files = [{"filename": "b", "previous_filename": "a"}, {"filename": "c"}]
    assert gitea(Script(httpx.Response(200, json=files))).changed(7) == ["a", "b", "c"]


def test_an_attachment_takes_the_place_of_its_older_version_only() -> None:
    names = ["plot-0123456789ab.png", "plot-of-losses.png", "other-0123456789ab.png"]
    present = [{"id": i, "name": name, "uuid": "u"} for i, name in enumerate(names)]
    made = httpx.Response(201, json={"id": 9, "name": "x", "uuid": "new"})
    script = Script(httpx.Response(200, json=present), made, said(204))
    assert gitea(script).attach(7, "plot.png", b"png") == "attachments/new"
    assert script.asked[1:] == [("POST", "issues/7/assets"), ("DELETE", "issues/7/assets/0")]


def test_an_attachment_that_is_there_is_not_sent_again() -> None:
    name = f"plot-{hashlib.sha256(b'png').hexdigest()[:12]}.png"
    script = Script(httpx.Response(200, json=[{"id": 1, "name": name, "uuid": "old"}]))
    assert gitea(script).attach(7, "plot.png", b"png") == "attachments/old"


def test_close_leaves_a_closed_one() -> None:
    assert gitea(Script(pull(state="closed"))).close(7).state == "closed"
    script = Script(pull(), pull(state="closed"))
    gitea(script).close(7)
    assert script.asked[-1] == ("PATCH", "pulls/7")


def test_history_of_what_never_was_is_empty() -> None:
    assert gitea(Script(commit(), said(404))).history("none.yaml") == []
    with pytest.raises(NotFound):
        gitea(Script(said(404))).history("none.yaml", "no-such-branch")


def test_unset_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORGE_URL", "FORGE_REPOSITORY", "FORGE_USERNAME"):
        monkeypatch.setenv(name, "x")
    monkeypatch.delenv("FORGE_PASSWORD", raising=False)
    with pytest.raises(BadInput, match="not set: FORGE_PASSWORD"):
        Gitea.from_environment()


def test_repository_needs_an_owner() -> None:
    with pytest.raises(SlipwayError, match="not OWNER/NAME"):
        Gitea("http://forge", "slipway", "u", "p")


# --- reports ----------------------------------------------------------------------------------


def test_the_newest_report_and_whose_it_is() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/api/v1/repos/o/r/commits/5a/statuses"
        reports = [("gates", "x", "y"), ("gates", "failure", "bot"), ("other", "success", "ada")]
        said = [
            {"id": n, "context": c, "status": s, "creator": {"login": who}, "description": "why"}
            for n, (c, s, who) in enumerate(reports)
        ]
        return httpx.Response(200, json=said)

    assert gitea(handler).report("5a", "gates") == Report("failure", "bot", "why")
    assert gitea(handler).report("5a", "none") is None


# --- protection -------------------------------------------------------------------------------

RULE = {"id": 1, "rule_name": "main", "push_whitelist_usernames": None}
# What a repository of Gitea's is like before anybody has said how its pull requests are merged.
NEW = dict.fromkeys(protection.GITEA_MERGES, True)


def asked(gitea_says: list[httpx.Response], **options: bool) -> tuple[list[Any], dict[str, Any]]:
    """Requests that change something, and what is said to change."""
    sent: list[Any] = []
    answers = list(gitea_says)

    def handler(request: httpx.Request) -> httpx.Response:
        if request.method != "GET":
            path = request.url.path.removeprefix("/api/v1/repos/o/r").strip("/")
            sent.append((request.method, path, json.loads(request.content)))
        return answers.pop(0)

    changes = gitea(handler).protect("slipway/check", **options)
    assert not answers
    return sent, changes


def test_main_is_protected_where_it_was_not() -> None:
    done = httpx.Response(201, json={})
    new = httpx.Response(200, json=NEW)
    sent, changes = asked([said(404), done, new, done, httpx.Response(200, json=[]), done])
    assert sent == [
        (
            *("POST", "branch_protections"),
            {"rule_name": "main", **protection.gitea("slipway/check")},
        ),
        ("PATCH", "", dict(protection.GITEA_MERGES)),
        ("POST", "tag_protections", {"name_pattern": "main", "whitelist_usernames": ["bot"]}),
    ]
    assert changes["status_check_contexts"] == (None, ["slipway/check"])
    assert changes["tag main"] == (None, ["bot"])
    forbidden = {k: found for k, found in changes.items() if k.startswith("allow_")}
    assert forbidden == {
        "allow_rebase": (True, False),
        "allow_rebase_explicit": (True, False),
        "allow_fast_forward_only_merge": (True, False),
    }


def test_what_is_protected_is_left_alone_and_other_statuses_stay_required() -> None:
    tags = httpx.Response(200, json=[{"id": 3, "name_pattern": "main"}])
    there = {**protection.gitea("slipway/check"), **RULE}
    merges = httpx.Response(200, json=dict(protection.GITEA_MERGES))
    assert asked([httpx.Response(200, json=there), merges, tags]) == ([], {})
    there["status_check_contexts"] = ["lint"]
    there["block_admin_merge_override"] = False
    present = httpx.Response(200, json=there)
    assert asked([present, httpx.Response(200, json=NEW), tags], dry_run=True)[0] == []
    sent, changes = asked([present, httpx.Response(200, json={}), merges, tags])
    [(method, path, body)] = sent
    assert (method, path) == ("PATCH", "branch_protections/main")
    assert body["status_check_contexts"] == ["lint", "slipway/check"]
    assert changes == {
        "status_check_contexts": (["lint"], ["lint", "slipway/check"]),
        "block_admin_merge_override": (False, True),
    }


def test_a_token_alone_tells_whose_it_is() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"] == f"Basic {basic}"
        assert request.url.path == "/api/v1/user"
        return httpx.Response(200, json={"login": "ada"})

    basic = base64.b64encode(b"token:secret").decode()
    forge = Gitea("http://forge", "o/r", "", "secret", transport=httpx.MockTransport(handler))
    assert forge.remote.username == "token"
    assert forge.login == forge.login == "ada"
