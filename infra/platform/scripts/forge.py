"""Brings Gitea's bot, organisation, repository and webhooks into the state of settings.json."""

import json
import os
from pathlib import Path
from typing import Any

import httpx

settings = json.loads(Path(__file__).with_name("settings.json").read_text())
owner, repository = settings["repository"].split("/")
bot = settings["bot"]
api = httpx.Client(
    base_url=f"{settings['url']}/api/v1",
    auth=(os.environ["ADMIN_USERNAME"], os.environ["ADMIN_PASSWORD"]),
    timeout=30,
    transport=httpx.HTTPTransport(retries=5),
)


def ask(method: str, path: str, **body: object) -> Any:
    response = api.request(method, path, json=body or None)
    if response.is_error:
        raise SystemExit(f"{method} {path}: {response.status_code} {response.text}")
    return response.json() if response.content else None


def exists(path: str) -> bool:
    return api.get(path).status_code == 200


password = {"password": os.environ["BOT_PASSWORD"], "must_change_password": False}
if not exists(f"/users/{bot}"):
    ask("POST", "/admin/users", username=bot, email=f"{bot}@slipway.invalid", **password)
ask("PATCH", f"/admin/users/{bot}", login_name=bot, source_id=0, **password)
print(f"user {bot} is there")

if not exists(f"/orgs/{owner}"):
    ask("POST", "/orgs", username=owner, visibility="private")
if not exists(f"/repos/{owner}/{repository}"):
    ask("POST", f"/orgs/{owner}/repos", name=repository, private=True, default_branch="main")
ask("PUT", f"/repos/{owner}/{repository}/collaborators/{bot}", permission="write")
print(f"repository {owner}/{repository} is there")

hooks = {hook["config"]["url"]: hook for hook in ask("GET", f"/repos/{owner}/{repository}/hooks")}
for url in settings["webhooks"]:
    config = {"url": url, "content_type": "json", "secret": os.environ["WEBHOOK_SECRET"]}
    wanted = {"config": config, "events": ["push"], "active": True}
    if url in hooks:
        ask("PATCH", f"/repos/{owner}/{repository}/hooks/{hooks[url]['id']}", **wanted)
    else:
        ask("POST", f"/repos/{owner}/{repository}/hooks", type="gitea", **wanted)
    print(f"webhook {url} is there")
