"""The script that sets the forge up, against a forge in memory: twice, as each `make up` may."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from infra.platform import pods
from slipway import protection
from slipway.forge import Gitea

HERE = "/api/v1/repos/slipway/slipway"
PROTECTION = protection.gitea("slipway/check", pushers=["slipway-admin"])


class Forge:
    """What has been made, by path; hooks as Gitea lists them."""

    def __init__(self) -> None:
        self.made: dict[str, dict[str, Any]] = {}
        self.hooks: list[dict[str, Any]] = []
        self.tags: list[dict[str, Any]] = []

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path == f"{HERE}/hooks":
            if method == "POST":
                self.hooks.append({"id": len(self.hooks) + 1, **body})
            return 200, self.hooks
        if path.startswith(f"{HERE}/hooks/"):
            self.hooks[int(path.rsplit("/", 1)[1]) - 1] |= body
            return 200, {}
        if path == f"{HERE}/tag_protections":
            if method == "POST":
                self.tags.append(body)
            return 200, self.tags
        if method == "GET":
            return (200, self.made[path]) if path in self.made else (404, {})
        places = {
            "/api/v1/admin/users": f"/api/v1/users/{body.get('username')}",
            "/api/v1/orgs": f"/api/v1/orgs/{body.get('username')}",
            "/api/v1/orgs/slipway/repos": HERE,
            f"{HERE}/branch_protections": f"{HERE}/branch_protections/{body.get('rule_name')}",
        }
        place = places.get(path, path)
        if method == "POST" and place in self.made:
            return 409, {"message": f"{place} exists"}
        if place == HERE and "has_pull_requests" not in body:
            body = {key: value for key, value in body.items() if not key.startswith("allow_")}
        self.made[place] = {**self.made.get(place, {}), **body}
        return 201, {}


@pytest.fixture
def forge() -> Iterator[tuple[Forge, str]]:
    state = Forge()

    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, answer = state.answer(self.command, self.path, json.loads(body or b"{}"))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        do_GET = do_POST = do_PUT = do_PATCH = _do

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield state, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def set_up(folder: Path, url: str, **changes: Any) -> None:
    settings = {
        "url": url,
        "repository": "slipway/slipway",
        "bot": "slipway-bot",
        "webhooks": {"http://a.svc/hook": ["push"], "http://b.svc/events": ["pull_request_only"]},
        "protection": PROTECTION,
        "merges": dict(protection.GITEA_MERGES),
        **changes,
    }
    shutil.copy(pods.SCRIPTS / "forge.py", folder)
    (folder / "settings.json").write_text(json.dumps(settings))
    names = ("ADMIN_USERNAME", "ADMIN_PASSWORD", "BOT_PASSWORD", "WEBHOOK_SECRET")
    environment = {**os.environ, **{name: name.lower() for name in names}}
    command = [sys.executable, str(folder / "forge.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_forge_is_set_up_once_and_brought_up_to_date_after(
    forge: tuple[Forge, str], tmp_path: Path
) -> None:
    state, url = forge
    set_up(tmp_path, url)
    assert {h["config"]["url"]: h["events"] for h in state.hooks} == {
        "http://a.svc/hook": ["push"],
        "http://b.svc/events": ["pull_request_only"],
    }
    assert {h["config"]["secret"] for h in state.hooks} == {"webhook_secret"}
    assert state.made[f"{HERE}/branch_protections/main"] == {"rule_name": "main", **PROTECTION}
    assert state.made[HERE]["has_issues"] is True
    # Each of a branch's commits would be one of main's, and its release files with them.
    for way in ("allow_rebase", "allow_rebase_explicit", "allow_fast_forward_only_merge"):
        assert state.made[HERE][way] is False
    made, hooks = json.dumps(state.made), json.dumps(state.hooks)
    set_up(tmp_path, url)
    assert (json.dumps(state.made), len(state.hooks)) == (made, 2)
    assert json.dumps(state.hooks) == hooks
    assert state.tags == [{"name_pattern": "main", "whitelist_usernames": ["admin_username"]}]
    set_up(tmp_path, url, protection={**PROTECTION, "block_admin_merge_override": True})
    assert state.made[f"{HERE}/branch_protections/main"]["block_admin_merge_override"] is True


def test_it_protects_as_slipway_protect_does(forge: tuple[Forge, str], tmp_path: Path) -> None:
    """The script runs by itself, without this package: so both are held to each other here."""
    state, url = forge
    set_up(tmp_path, url, protection=protection.gitea("slipway/check"))
    made, tags = json.loads(json.dumps(state.made)), list(state.tags)
    rule = f"{HERE}/branch_protections/main"
    with Gitea(url, "slipway/slipway", "admin_username", "admin_password") as client:
        assert client.protect("slipway/check", dry_run=True) == {}
        state.made.pop(rule)
        state.made[HERE] |= dict.fromkeys(protection.GITEA_MERGES, True)  # as Gitea begins
        state.tags.clear()
        client.protect("slipway/check")
    assert (state.made, state.tags) == (made, tags)
