"""The forge client against the real Gitea, on branches of its own."""

from __future__ import annotations

import base64
import io
import re
import secrets
import tarfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from slipway import merging
from slipway.endpoints import Cluster
from slipway.forge import ForgeError, Gitea, NotFound

from .conftest import as_user, until

# A picture of one pixel.
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture
def base(forge: Gitea) -> Iterator[str]:
    """A branch to merge into, so that main stays as it is."""
    name = f"test/{secrets.token_hex(4)}"
    forge.write(name, {}, "none")
    yield name
    forge.delete_branch(name)


def test_one_commit_for_several_files_and_none_for_no_change(forge: Gitea, base: str) -> None:
    start = forge.commit(base)
    assert start == forge.commit("main")
    first = forge.write(base, {"t/a.txt": b"a", "t/b ä.txt": b"b"}, "Two files")
    assert first == forge.commit(base) != start
    assert forge.files("t", base) == ["t/a.txt", "t/b ä.txt"]
    assert forge.read("t/b ä.txt", base) == b"b"
    assert forge.write(base, {"t/a.txt": b"a"}, "Nothing") == first
    second = forge.write(base, {"t/a.txt": None, "t/b ä.txt": b"c", "t/d.txt": b""}, "All three")
    assert forge.files("t", base) == ["t/b ä.txt", "t/d.txt"]
    assert forge.read("t/b ä.txt", first) == b"b"
    assert forge.commit(second[:12]) == second


def test_its_pages_have_their_style_and_their_scripts(platform: Cluster) -> None:
    with (
        platform.service("forge", "gitea") as url,
        httpx.Client(timeout=30, trust_env=False) as client,
    ):
        page = client.get(f"{url}/user/login").raise_for_status().text
        files = re.findall(r'(?:href|src)="(/assets/[^"]+\.(?:css|js)\b[^"]*)"', page)
        assert {Path(file.partition("?")[0]).name for file in files} >= {"index.css", "index.js"}
        for file in files:
            assert len(client.get(url + file).raise_for_status().content) > 1000, file


def test_what_is_not_there(forge: Gitea) -> None:
    assert forge.files("no-such-folder") == []
    for missing in (
        lambda: forge.commit("no-such-branch"),
        lambda: forge.commit("0" * 40),
        lambda: forge.files("", "no-such-branch"),
        lambda: forge.read("no-such-file"),
        lambda: forge.pull(10**6),
    ):
        with pytest.raises(NotFound):
            missing()
    assert forge.find("no-such-branch") is None


def test_a_pull_request_from_open_to_merged(forge: Gitea, base: str) -> None:
    head = f"{base}-change"
    sha = forge.write(head, {"t/release.yaml": b"x: 1\n"}, "Propose", base=base)
    pull = forge.open(head, "Propose", "body", base=base)
    assert (pull.sha, pull.base, pull.state) == (sha, base, "open")
    assert forge.open(head, "Propose it", "body", base=base).number == pull.number
    assert forge.pull(pull.number).title == "Propose it"
    assert pull.number in [p.number for p in forge.pulls()]

    forge.set_status(sha, "gates", "pending", "looking")
    forge.set_status(sha, "gates", "success", "fine")
    assert forge.statuses(sha) == {"gates": "success"}
    for text in ("first", "second"):
        forge.comment(pull.number, "gates", text)

    with pytest.raises(ForgeError, match="another head commit"):
        forge.merge(pull.number, sha="0" * 40)
    merged = forge.merge(pull.number, sha=sha)
    assert merged.merged
    assert merged.merge_sha == forge.commit(base)
    assert forge.read("t/release.yaml", base) == b"x: 1\n"
    assert forge.merge(pull.number).merge_sha == merged.merge_sha
    found = forge.find(head, base=base)
    assert found
    assert found.number == pull.number
    assert forge.read("t/release.yaml", pull.sha) == b"x: 1\n"
    with pytest.raises(NotFound):
        forge.commit(f"refs/heads/{head}")


def test_a_conflict_is_said_and_merges_nothing(forge: Gitea, base: str) -> None:
    forge.write(base, {"t/x": b"1\n"}, "Start")
    heads = [f"{base}-{side}" for side in ("left", "right")]
    pulls = []
    for head in heads:
        forge.write(head, {"t/x": f"{head}\n".encode()}, "Change", base=base)
        pulls.append(forge.open(head, head, "", base=base))
    forge.merge(pulls[0].number)
    # Gitea answers the same to a conflict as while it is still looking for one.
    forge.merge_patience_s = 5
    before = forge.commit(base)
    with pytest.raises(ForgeError, match=r"cannot be merged.*\n.*conflict"):
        forge.merge(pulls[1].number)
    assert forge.commit(base) == before
    forge.close(pulls[1].number)
    again = forge.open(heads[1], "Again", "", base=base)
    assert again.number != pulls[1].number
    assert forge.open(heads[1], "Again", "", base=base).number == again.number
    assert forge.find(heads[1], base=base) == again
    forge.close(again.number)
    assert (found := forge.find(heads[1], base=base))
    assert found.number == again.number
    forge.delete_branch(heads[1])


def test_what_gates_read_and_write(forge: Gitea, base: str) -> None:
    head = f"{base}-gated"
    sha = forge.write(head, {"t/new.yaml": b"x: 1\n"}, "Propose", base=base)
    pull = forge.open(head, "Propose", "body", base=base)
    assert (pull.author, pull.fork) == ("slipway-admin", False)
    assert forge.changed(pull.number) == ["t/new.yaml"]
    assert [r.sha for r in forge.history("t/new.yaml", head)] == [sha]
    assert forge.history("t/none.yaml", head) == []
    assert forge.reviews(pull.number) == []
    with pytest.raises(ForgeError):  # one's own
        forge.approve(pull.number)

    first = forge.attach(pull.number, "plot.png", PNG)
    assert forge.attach(pull.number, "plot.png", PNG) == first
    assert first.startswith("attachments/")
    other = forge.attach(pull.number, "plot.png", PNG + b"\0")
    assert other != first
    with httpx.Client(auth=_login(forge), timeout=30, trust_env=False) as client:
        at = f"{forge.url}/{forge.repository}"
        assert client.get(f"{at}/{other}").content == PNG + b"\0"
        assert client.get(f"{at}/{first}").is_error

    forge.comment(pull.number, "gates", f"![plot]({other}) [diff]({forge.compare_url(base, head)})")
    [comment] = forge.comments(pull.number)
    assert comment.author == "slipway-admin"
    assert other in comment.body
    forge.close(pull.number)
    assert forge.close(pull.number).state == "closed"
    forge.delete_branch(head)


def test_nobody_merges_or_pushes_past_the_protection(forge: Gitea, base: str) -> None:
    rule = {
        "rule_name": base,
        "enable_status_check": True,
        "status_check_contexts": ["test/check"],
        "block_admin_merge_override": True,
        "enable_push": False,
    }
    forge._api.send("POST", "branch_protections", json=rule)
    head = f"{base}-protected"
    sha = forge.write(head, {"t/p": b"1\n"}, "Propose", base=base)
    pull = forge.open(head, "Propose", "", base=base)
    with pytest.raises(ForgeError, match="missing check"):
        forge.merge(pull.number)
    with pytest.raises(ForgeError):
        forge.write(base, {"t/p": b"2\n"}, "Push past it")
    forge.set_status(sha, "test/check", "success")
    assert forge.merge(pull.number, sha=sha).merged
    forge._api.send("DELETE", f"branch_protections/{quote(base, safe='')}")


@pytest.mark.parametrize("way", ["rebase", "rebase-merge", "fast-forward-only"])
def test_a_branch_s_commits_do_not_become_main_s(forge: Gitea, base: str, way: str) -> None:
    """Each would count as what stood there once, whether it was ever judged or not."""
    head = f"{base}-commits"
    for text in (b"1\n", b"2\n"):
        sha = forge.write(head, {"t/p": text}, "Propose", base=base)
    pull = forge.open(head, "Propose", "", base=base)

    def refusal() -> str:
        request = {"Do": way, "head_commit_id": sha}
        with pytest.raises(ForgeError) as refused:
            forge._api.send("POST", f"pulls/{pull.number}/merge", json=request)
        return "" if "try again later" in str(refused.value) else str(refused.value)

    assert "merge style" in until(refusal, 30, "the forge did not settle")
    assert forge.merge(pull.number, sha=sha).merged
    assert forge.read("t/p", base) == b"2\n"


def test_who_only_proposes_cannot_report_a_verdict(platform: Cluster, forge: Gitea) -> None:
    """Read access is enough for a pull request, from a fork; a commit status takes more."""
    admin = platform.secret("forge", "gitea-admin")
    name, password = f"reader-{secrets.token_hex(4)}", secrets.token_urlsafe(24)
    with as_user(platform, admin["username"], admin["password"]) as client:
        users = str(client.base_url).partition("/repos/")[0] + "/admin/users"
        person = {"username": name, "email": f"{name}@slipway.invalid", "password": password}
        client.post(users, json={**person, "must_change_password": False}).raise_for_status()
        try:
            asked = client.put(f"collaborators/{name}", json={"permission": "read"})
            asked.raise_for_status()
            with as_user(platform, name, password) as reader:
                assert reader.get("branches/main").is_success
                report = {"context": merging.CONTEXT, "state": "success"}
                assert reader.post(f"statuses/{forge.commit()}", json=report).status_code == 403
                assert reader.post("forks", json={}).is_success
        finally:
            client.delete(f"{users}/{name}", params={"purge": "true"}).raise_for_status()


def _login(forge: Gitea) -> tuple[str, str]:
    return forge.remote.username, forge.remote.password


def test_archive(forge: Gitea, base: str) -> None:
    forge.write(base, {"t/a.txt": b"a"}, "One file")
    archive = io.BytesIO(b"".join(forge.archive(base)))
    with tarfile.open(fileobj=archive, mode="r:gz") as tar:
        assert any(name.endswith("/t/a.txt") for name in tar.getnames())
