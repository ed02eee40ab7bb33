"""The platform reads a forge that is there already: a Gitea beside it, on this machine, over https
and by an authority of its own.

What was on the platform goes with its own Gitea, and comes back from the backup that was taken
before, in test_z_destroy.py or when the tests end.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from slipway import cluster, merging, paths, publish, release, serving, toolchain, up
from slipway.endpoints import Cluster, part
from slipway.errors import BadInput, SlipwayError
from slipway.forge import ForgeError, Gitea, PullRequest
from tests.tls import Authority

from .conftest import (
    ENV,
    MODEL,
    SETTINGS,
    document,
    git,
    released,
    run,
    sweep,
    until,
    verdict,
    with_password,
)
from .kept import Kept

REPOSITORY, OWNER, BOT = "acme/models", "ada", "acme-bot"
CHANGED = f"bentos/{MODEL}/model.yaml"


@dataclass
class Server:
    """A Gitea of somebody's, and the tokens of its administrator and of the platform's login."""

    url: str
    folder: Path
    ca: str
    """The authority that its certificate is by."""
    tokens: dict[str, str]

    def client(self, who: str = OWNER) -> Gitea:
        return Gitea(self.url, REPOSITORY, who, self.tokens[who], ca=self.ca)

    def plain(self, **options: Any) -> httpx.Client:
        context = ssl.create_default_context(cadata=self.ca)
        return httpx.Client(
            base_url=f"{self.url}/api/v1", verify=context, timeout=30, trust_env=False, **options
        )

    def api(self) -> httpx.Client:
        return self.plain(auth=(OWNER, self.tokens[OWNER]))


def sql(*statements: str) -> None:
    """Run in the platform's PostgreSQL, which has room for a database of somebody else's."""
    commands = [f"--command={statement}" for statement in statements]
    where = ("-n", "storage", "exec", "postgres-0", "--")
    cluster.kubectl(*where, "psql", "--quiet", "--username=postgres", *commands)


def settings(folder: Path, address: str, port: int, password: str) -> str:
    database = cluster.kubectl(
        *("-n", "storage", "get", "service", "postgres", "-o", "jsonpath={.spec.clusterIP}")
    )
    return f"""
RUN_MODE = prod
WORK_PATH = {folder}
I_AM_BEING_UNSAFE_RUNNING_AS_ROOT = true
[server]
PROTOCOL = https
CERT_FILE = {folder}/server.pem
KEY_FILE = {folder}/server.pem
HTTP_ADDR = {address}
HTTP_PORT = {port}
ROOT_URL = https://{address}:{port}/
STATIC_ROOT_PATH = {toolchain.files("gitea")}
DISABLE_SSH = true
OFFLINE_MODE = true
[database]
DB_TYPE = postgres
HOST = {database}:5432
NAME = outside
USER = outside
PASSWD = {password}
[security]
INSTALL_LOCK = true
SECRET_KEY = {secrets.token_hex(32)}
[service]
REQUIRE_SIGNIN_VIEW = true
[webhook]
ALLOWED_HOST_LIST = loopback
[repository]
DEFAULT_BRANCH = main
[attachment]
ALLOWED_TYPES = .png
[log]
MODE = file
LEVEL = warn
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """It listens at the node's own address: pods reach that, and no other machine does."""
    folder = tmp_path_factory.mktemp("gitea")
    address, password = str(cluster.addresses().node_ip), secrets.token_hex(16)
    with socket.create_server((address, 0)) as free:
        port = free.getsockname()[1]
    sql(
        "DROP DATABASE IF EXISTS outside WITH (FORCE)",
        "DROP ROLE IF EXISTS outside",
        f"CREATE ROLE outside LOGIN PASSWORD '{password}'",
        "CREATE DATABASE outside OWNER outside",
    )
    config = folder / "app.ini"
    config.write_text(settings(folder, address, port, password))
    authority = Authority.make("Acme root")
    (folder / "server.pem").write_text(authority.signed(address))
    gitea = [str(toolchain.binary("gitea")), "--config", str(config)]
    environment = {**os.environ, "HOME": str(folder), "USER": "root"}
    process = subprocess.Popen([*gitea, "web"], env=environment, start_new_session=True)
    try:
        made = Server(f"https://{address}:{port}", folder, authority.pem, {})
        until(lambda: answers(made), 60, "the forge does not start")
        create = ("admin", "user", "create", "--admin", "--must-change-password=false")
        login = ("--username", OWNER, "--password", password, "--email", f"{OWNER}@slipway.invalid")
        subprocess.run([*gitea, *create, *login], env=environment, check=True)
        populate(made, password)
        yield made
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
        sql("DROP DATABASE IF EXISTS outside WITH (FORCE)", "DROP ROLE IF EXISTS outside")


def answers(server: Server) -> bool:
    try:
        with server.plain() as api:
            return api.get(f"{server.url}/api/healthz").is_success
    except httpx.TransportError:
        return False


def populate(made: Server, password: str) -> None:
    """A login for the platform, a repository that it may write to, and tokens of both."""
    owner, name = REPOSITORY.split("/")

    def token(who: str) -> str:
        wanted = {"name": "slipway", "scopes": ["all"]}
        with made.plain(auth=(who, password)) as api:
            answer = api.post(f"users/{who}/tokens", json=wanted)
        return str(answer.raise_for_status().json()["sha1"])

    made.tokens[OWNER] = token(OWNER)
    with made.api() as api:
        bot = {"username": BOT, "email": f"{BOT}@slipway.invalid", "password": password}
        for path, body in (
            ("admin/users", {**bot, "must_change_password": False}),
            ("orgs", {"username": owner, "visibility": "private"}),
            (f"orgs/{owner}/repos", {"name": name, "private": True}),
        ):
            api.post(path, json=body).raise_for_status()
        write = {"permission": "write"}
        api.put(f"repos/{REPOSITORY}/collaborators/{BOT}", json=write).raise_for_status()
    made.tokens[BOT] = token(BOT)


@pytest.fixture(scope="module")
def stacks(server: Server) -> Iterator[Path]:
    """A folder of stack files of one's own; what the repository has stays as it is."""
    patch = pytest.MonkeyPatch()
    folder = server.folder / "stacks"
    folder.mkdir()
    stack = yaml.safe_load(paths.stack_file("local").read_text())
    address, _, port = server.url.removeprefix("https://").partition(":")
    stack["config"] |= {
        "slipway:pollSeconds": 30,
        "slipway:forge": {
            "kind": "gitea",
            "url": server.url,
            "repository": REPOSITORY,
            "username": BOT,
            "places": [{"cidr": f"{address}/32", "ports": [int(port)]}],
            "ca": server.ca,
        },
    }
    (folder / "Pulumi.local.yaml").write_text(yaml.safe_dump(stack, sort_keys=False))
    for name in ("FORGE_KIND", "FORGE_USERNAME", "FORGE_PASSWORD", "FORGE_TOKEN"):
        patch.delenv(name, raising=False)
    patch.setenv("SLIPWAY_STACKS", str(folder))
    run("pulumi", "config", "set", "--secret", "forgeToken", server.tokens[BOT])
    yield folder
    patch.undo()


@pytest.fixture(scope="module")
def commit(server: Server) -> str:
    """Main of the outside forge: this checkout, and a model that nobody has trained."""
    place = server.folder / "clone"
    git(None, "clone", "--quiet", "--shared", str(paths.REPOSITORY), str(place))
    model = place / CHANGED
    model.write_text(f"{model.read_text()}# {secrets.token_hex(4)}\n")
    git(place, "commit", "--quiet", "--all", "--message", "Another model")
    push(server, place)
    return git(place, "rev-parse", "HEAD")


def push(server: Server, place: Path) -> None:
    """As a person does, who may."""
    remote = server.client().remote
    publish.git("push", "--quiet", remote.url, "HEAD:refs/heads/main", remote=remote, cwd=place)


@pytest.fixture(scope="module")
def moved(kept: Kept, server: Server, stacks: Path, commit: str) -> Iterator[Server]:
    """The platform reads it, and people say who they are there."""
    patch = pytest.MonkeyPatch()
    kept.lost = True
    patch.setenv("SLIPWAY_GIVE_UP", "gitea")
    run("up")
    patch.delenv("SLIPWAY_GIVE_UP")
    patch.setenv("FORGE_TOKEN", server.tokens[OWNER])
    yield server
    patch.undo()
    back(stacks)


def back(stacks: Path) -> None:
    """To a Gitea of its own, which is empty."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SLIPWAY_STACKS")
        run("pulumi", "up", *SETTINGS)
        platform = Cluster.connect()
        until(up.all_ready, 180, "not every pod is ready")
        assert platform.outside_forge() is None
        with platform.forge() as own, pytest.raises(ForgeError) as empty:
            own.commit()
        assert empty.value.status in (404, 409)


# --- in this order ----------------------------------------------------------------------------


def test_the_token_is_encrypted_where_the_stack_is(server: Server, stacks: Path) -> None:
    text = (stacks / "Pulumi.local.yaml").read_text()
    assert server.tokens[BOT] not in text
    assert set(yaml.safe_load(text)["config"]["slipway:forgeToken"]) == {"secure"}
    assert git(paths.REPOSITORY, "status", "--porcelain", "environments") == ""


def test_a_gitea_is_not_given_up_unasked(stacks: Path, commit: str) -> None:
    said = run("up", code=2)
    assert "gives up its Gitea" in said
    assert "SLIPWAY_GIVE_UP=gitea" in said


def test_branches_and_tags_are_copied_as_readme_says(server: Server, forge: Gitea) -> None:
    owner, _, _ = REPOSITORY.partition("/")
    with server.api() as api:
        wanted = {"name": "copied", "private": True}
        api.post(f"orgs/{owner}/repos", json=wanted).raise_for_status()
    there = Gitea(server.url, f"{owner}/copied", OWNER, server.tokens[OWNER], ca=server.ca).remote
    mirror = server.folder / "slipway.git"
    git(None, "clone", "--mirror", with_password(forge), str(mirror))
    refs = ("refs/heads/*", "refs/tags/*")
    publish.git("push", there.url, "refs/heads/*", "refs/tags/*", remote=there, cwd=mirror)
    copied = publish.git("ls-remote", there.url, *refs, remote=there)
    assert f"{forge.commit()}\trefs/heads/main" in copied.splitlines()
    assert copied == git(None, "ls-remote", with_password(forge), *refs)


def test_there_is_no_gitea_any_more(moved: Server, platform: Cluster) -> None:
    assert platform.find("/api/v1/namespaces/forge") is None
    claims = [
        v
        for v in platform.items("/api/v1/persistentvolumes")
        if part(v, "spec", "claimRef", "namespace") == "forge"
    ]
    assert claims == []
    assert run("pulumi", "preview", "--expect-no-changes")


def test_nobody_else_is_taken_for_it(moved: Server, platform: Cluster) -> None:
    outside = platform.outside_forge()
    assert outside
    assert outside.ca == moved.ca
    other = Authority.make("Acme root").pem
    with (
        Gitea(moved.url, REPOSITORY, OWNER, moved.tokens[OWNER], ca=other) as forge,
        pytest.raises(BadInput, match=r"an authority that slipway:forge\.ca does not name"),
    ):
        forge.commit()


def test_commands_ask_who_one_is_there(moved: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORGE_TOKEN")
    said = run("train", MODEL, code=2)
    assert f"FORGE_TOKEN: the platform reads {REPOSITORY} on {moved.url}" in said


def test_a_push_is_synced_when_the_forge_tells_of_it(
    moved: Server, platform: Cluster, commit: str
) -> None:
    """By the addresses and the secret that the stack tells, read as README says."""
    webhooks = json.loads(run("pulumi", "stack", "output", "webhooks"))
    told = json.loads(run("pulumi", "stack", "output", "secrets"))["webhooks"]
    assert told == "argocd/argocd-secret, webhook.gogs.secret"
    key = r"jsonpath={.data.webhook\.gogs\.secret}"
    encoded = cluster.kubectl("-n", "argocd", "get", "secret", "argocd-secret", "-o", key)
    secret = base64.b64decode(encoded).decode()
    with moved.api() as api:
        for url, events in webhooks.items():
            config = {"url": url, "content_type": "json", "secret": secret}
            hook = {"type": "gitea", "config": config, "events": events, "active": True}
            api.post(f"repos/{REPOSITORY}/hooks", json=hook).raise_for_status()
    application = "/apis/argoproj.io/v1alpha1/namespaces/argocd/applications/workflows"

    def revision() -> str | None:
        return part(platform.find(application), "status", "sync", "revision")

    until(lambda: revision() == commit, 60, "Argo CD has not the first commit")
    place = moved.folder / "clone"
    git(place, "commit", "--quiet", "--allow-empty", "--message", "Nothing")
    push(moved, place)
    # Without the webhook it would look after half a minute.
    new = git(place, "rev-parse", "HEAD")
    until(lambda: revision() == new, 20, "Argo CD has not synced what was pushed")


@pytest.fixture(scope="module")
def proposed(moved: Server) -> PullRequest:
    """What main has is trained by itself."""
    platform = Cluster.connect()
    sweep(platform)
    with moved.client() as forge:
        return until(
            lambda: next((p for p in forge.pulls() if release.proposes(p.head)), None),
            300,
            "nothing was proposed",
            every_s=2,
        )


def test_main_is_protected_once_and_then_nobody_pushes(moved: Server) -> None:
    tried = document("protect", "--dry-run")
    assert tried["changes"]["status_check_contexts"]["to"] == [merging.CONTEXT]
    assert tried["changes"]["allow_rebase"] == {"from": True, "to": False}
    assert tried["changed"] is False
    with moved.client() as forge:
        assert forge.protect(merging.CONTEXT, dry_run=True)
    run("protect")
    again = document("protect")
    assert (again["changes"], again["changed"]) == ({}, False)
    place = moved.folder / "clone"
    git(place, "commit", "--quiet", "--allow-empty", "--message", "Past the gates")
    with pytest.raises(SlipwayError, match="protected branch main"):
        push(moved, place)
    git(place, "reset", "--quiet", "--hard", "HEAD~1")


def test_what_is_trained_is_proposed_judged_and_served(
    moved: Server, platform: Cluster, proposed: PullRequest
) -> None:
    assert proposed.author == BOT
    with moved.client() as forge:
        assert verdict(forge, proposed.number) == "success"
        said = [c for c in forge.comments(proposed.number) if merging.MARKER in c.body]
        assert [c.author for c in said] == [BOT]
        merging.merge(forge, proposed.number)
        merged = released(forge, ENV)
        assert merged
    serving.wait_until_answering(platform, ENV, MODEL, merged.bento.digest, timeout_s=180)
    assert "answered by" in run("predict", MODEL, "--env", ENV)


def test_commands_read_it(moved: Server, proposed: PullRequest) -> None:
    [row] = [r for r in document("status") if r["environment"] == ENV]
    assert row["model"] == MODEL
    [entry] = document("history", MODEL, "--env", ENV)
    assert entry["pull"] == proposed.number
    assert all(link["ok"] for link in document("trace", MODEL, "--env", ENV))
    assert moved.url in run("up")
