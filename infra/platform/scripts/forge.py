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
here = f"/repos/{owner}/{repository}"
ask("PATCH", here, has_issues=True, **settings["merges"])
ask("PUT", f"{here}/collaborators/{bot}", permission="write")
print(f"repository {owner}/{repository} is there")

hooks = {hook["config"]["url"]: hook for hook in ask("GET", f"{here}/hooks")}
for url, events in settings["webhooks"].items():
    config = {"url": url, "content_type": "json", "secret": os.environ["WEBHOOK_SECRET"]}
    wanted = {"config": config, "events": events, "active": True}
    if url in hooks:
        ask("PATCH", f"{here}/hooks/{hooks[url]['id']}", **wanted)
    else:
        ask("POST", f"{here}/hooks", type="gitea", **wanted)
    print(f"webhook {url} is there")

protections = f"{here}/branch_protections"
if exists(f"{protections}/main"):
    ask("PATCH", f"{protections}/main", **settings["protection"])
else:
    ask("POST", protections, rule_name="main", **settings["protection"])
print("branch main is protected")

# A tag of that name would be what many a reader of "main" gets.
tags = {"name_pattern": "main", "whitelist_usernames": [os.environ["ADMIN_USERNAME"]]}
if not [tag for tag in ask("GET", f"{here}/tag_protections") if tag["name_pattern"] == "main"]:
    ask("POST", f"{here}/tag_protections", **tags)
print("tag main is protected")
