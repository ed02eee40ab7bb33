"""A platform in small: a real MinIO, real git, and programs that play PostgreSQL."""

from __future__ import annotations

import base64
import contextlib
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest

from slipway import digests, pulumi
from slipway.backup import pods, take
from slipway.endpoints import Cluster
from slipway.release import path as release_path
from slipway.store import Store
from tests.apiserver import binary, free_ports

ROOT = ("slipway-root", "root-password")
BUCKETS = ("bentos", "data", "evidence", "labels", "mlflow", "predictions", "workflows")
ANSWERS = {
    "http://gitea/api/v1/version": '{"version": "1.25.2"}',
    "http://mlflow/version": "3.17.2",
    "http://mlflow/api/2.0/mlflow/registered-models/search": '{"registered_models": [{}]}',
}
ELSEWHERE = {
    "FORGE_KIND": "gitea",
    "FORGE_SERVER": "https://git.example.com",
    "FORGE_REPOSITORY": "acme/models",
    "FORGE_GATES": "cluster",
}
# Runs here what is meant for a pod: its volume is a folder.
KUBECTL = """#!/bin/bash
echo "$*" | tr '\\n' ' ' >>"$PLAYED/asked"; echo >>"$PLAYED/asked"
script=${*: -1}
exec bash -c "${script//\\/data/$PLAYED/data}"
"""
# A database is a file of as many lines as its one table has rows.
PROGRAMS = {
    "psql": """#!/bin/bash
query=${*: -1} database=$(echo "$*" | sed 's/.*-d \\([a-z]*\\).*/\\1/')
case $query in
    "SELECT count"*) wc -l <"$PLAYED/$database" ;;
    "SHOW server_version") echo '15.14 (Debian 15.14-0+deb12u1)' ;;
    DROP*) rm -f "$PLAYED/$(echo "$query" | sed 's/.*EXISTS \\([a-z]*\\).*/\\1/')" ;;
    CREATE*) : >"$PLAYED/$(echo "$query" | sed 's/.*DATABASE \\([a-z]*\\).*/\\1/')" ;;
esac
""",
    "pg_dump": '#!/bin/bash\ncat "$PLAYED/${*: -1}"\n[ ! -e "$PLAYED/broken" ]\n',
    "pg_restore": '#!/bin/bash\n[ ! -s "$PLAYED/${*: -1}" ] && cat >"$PLAYED/${*: -1}"\n',
    "gitea": '#!/bin/bash\necho "$*" >>"$PLAYED/hooks"\n',
}


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a real object store."""
    folder = tmp_path_factory.mktemp("minio")
    port, console = free_ports(2)
    addresses = [f"--address=127.0.0.1:{port}", f"--console-address=127.0.0.1:{console}"]
    command = [binary("minio"), "server", "--quiet", folder / "data", *addresses]
    root = {"MINIO_ROOT_USER": ROOT[0], "MINIO_ROOT_PASSWORD": ROOT[1]}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env={**os.environ, **root}, stdout=log, stderr=log)
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120
    try:
        while True:
            try:
                urllib.request.urlopen(f"{url}/minio/health/ready", timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < deadline, "the store does not answer"
                time.sleep(0.1)
        yield url
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def administrator(endpoint: str) -> Any:
    """Made once: to read what S3 can do takes longer than many a test."""
    session: Any = boto3.Session(*ROOT, region_name="us-east-1")
    return session.client("s3", endpoint_url=endpoint)


@pytest.fixture
def client(administrator: Any, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """S3 as its administrator, with the buckets of a platform, empty; so does the environment."""
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": ROOT[0],
        "AWS_SECRET_ACCESS_KEY": ROOT[1],
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    there = {bucket["Name"] for bucket in administrator.list_buckets()["Buckets"]}
    for bucket in (*BUCKETS, "backups"):
        if bucket not in there:
            administrator.create_bucket(Bucket=bucket)
        empty(administrator, bucket)
    yield administrator
    empty(administrator, "backups")


def empty(client: Any, bucket: str) -> None:
    for item in client.list_objects_v2(Bucket=bucket).get("Contents", []):
        client.delete_object(Bucket=bucket, Key=item["Key"])


@dataclass
class Forge:
    """What the commands ask the forge itself."""

    releases: dict[str, bytes] = field(default_factory=dict[str, bytes])

    def commit(self, ref: str = "main") -> str:
        return "d4" * 20

    def files(self, folder: str, ref: str = "main") -> list[str]:
        return [path for path in self.releases if path.startswith(f"{folder}/")]

    def read(self, path: str, ref: str = "main") -> bytes:
        return self.releases[path]


@dataclass
class Platform:
    """`folder` holds a file a database, and `data`, the forge's volume."""

    folder: Path
    endpoint: str
    forge: Forge = field(default_factory=Forge)
    scaled: dict[str, Any] = field(default_factory=dict[str, Any])
    stores: tuple[str, ...] = ("minio", "postgres")
    answers: dict[str, str] = field(default_factory=lambda: dict(ANSWERS))
    steps: dict[str, str] = field(default_factory=dict[str, str])
    """What the steps of workflows are told, of a forge that is another's for instance."""

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def cluster(self) -> Cluster:
        client = httpx.Client(base_url="https://api", transport=httpx.MockTransport(self._api))
        made: Any = Cluster(client, embedded=True)
        made.service = self._service
        made.mlflow = lambda: contextlib.nullcontext("http://mlflow")
        made.forge = lambda **_: contextlib.nullcontext(self.forge)
        made.forge_login = lambda **_: ("admin", "password")
        return made

    def _service(self, namespace: str, name: str) -> Any:
        return contextlib.nullcontext(self.endpoint if name == "minio" else f"http://{name}")

    def _api(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        kind, name = path.split("/")[-2:]
        if kind == "statefulsets":
            return httpx.Response(200 if name in self.stores else 404, json={"message": "none"})
        if (kind, name) == ("configmaps", "platform"):
            return httpx.Response(200, json={"data": self.steps})
        if kind == "secrets":
            held = dict(zip(("username", "password"), ROOT, strict=True))
            data = {key: base64.b64encode(value.encode()).decode() for key, value in held.items()}
            return httpx.Response(200, json={"data": data})
        if kind == "deployments":
            return self._deployment(request, name)
        if name == "pods" and request.method == "GET":
            selector = request.url.params["labelSelector"].rpartition("=")[2]
            replicas = self.scaled.get(selector, {}).get("spec", {}).get("replicas", 1)
            pod = {"metadata": {"name": f"{selector}-0"}, "status": {"phase": "Running"}}
            return httpx.Response(200, json={"items": [pod] * replicas})
        return httpx.Response(404, json={"message": f"{path} not found"})

    def _deployment(self, request: httpx.Request, name: str) -> httpx.Response:
        if request.method == "PATCH":
            self.scaled[name] = httpx.Response(200, content=request.content).json()
            return httpx.Response(200, json={})
        change = self.scaled.get(name, {})
        replicas = change.get("spec", {}).get("replicas", 1)
        container = {"name": name, "image": "image", "livenessProbe": {}}
        spec = {
            "replicas": replicas,
            "selector": {"matchLabels": {"app.kubernetes.io/name": name}},
            "template": {"spec": {"containers": [container]}},
        }
        metadata = change.get("metadata", {})
        return httpx.Response(
            200, json={"metadata": metadata, "spec": spec, "status": {"readyReplicas": replicas}}
        )


def git(place: Path, *arguments: str) -> str:
    own = ("-c", "user.name=tester", "-c", "user.email=tester@slipway.invalid")
    done = subprocess.run(["git", *own, *arguments], cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def push(platform: Platform, message: str) -> str:
    """A commit more in the forge's repository."""
    repository = platform.data / "repositories" / "slipway" / "slipway.git"
    tree = git(repository, "hash-object", "-t", "tree", "-w", "/dev/null")
    commit = git(repository, "commit-tree", tree, "-m", message)
    git(repository, "update-ref", "refs/heads/main", commit)
    return commit


@pytest.fixture
def platform(
    tmp_path: Path, endpoint: str, client: Any, monkeypatch: pytest.MonkeyPatch
) -> Platform:
    """One that runs, with a release, three databases, a repository and some objects."""
    folder = tmp_path / "platform"
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {**PROGRAMS, "kubectl": KUBECTL}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    made = Platform(folder, endpoint)
    repository = made.data / "repositories" / "slipway" / "slipway.git"
    repository.mkdir(parents=True)
    git(repository, "init", "--bare", "--quiet", "--initial-branch=main")
    push(made, "first")
    (made.data / "attachments").mkdir()
    (made.data / "attachments" / "plot.png").write_bytes(b"a plot")
    (made.data / "queues").mkdir()
    (made.data / "queues" / "LOCK").write_bytes(b"in use")
    for database, rows in {"gitea": 2, "mlflow": 3, "argo": 1}.items():
        (folder / database).write_text("row\n" * rows)
    made.forge.releases[str(release_path("dev", "toy"))] = b"a release"
    monkeypatch.setenv("PLAYED", str(folder))
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    for variable in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    monkeypatch.setattr(pods, "kubectl", lambda _: [str(programs / "kubectl")])
    monkeypatch.setattr(take, "SETTLED_S", 0)
    monkeypatch.setattr(pulumi, "exported", lambda _: b'{"version": 3, "deployment": {}}')
    monkeypatch.setattr(Cluster, "connect", lambda *_: made.cluster)

    def get(url: str, **_: Any) -> httpx.Response:
        text = made.answers[url]
        return httpx.Response(200 if text else 503, text=text, request=httpx.Request("GET", url))

    monkeypatch.setattr(httpx, "get", get)
    return made


@pytest.fixture
def objects(client: Any) -> dict[tuple[str, str], bytes]:
    """What is in the store; the content of one is there twice."""
    bento = b"a bento of many bytes"
    Store().put("bentos", bento)
    content = {
        ("bentos", digests.of(bento).replace(":", "/")): bento,
        ("labels", "dev/toy/1.jsonl"): b"{}\n",
        ("mlflow", "1/models/MLmodel"): b"flavors: {}\n",
        ("predictions", "dev/toy/1.jsonl"): b"{}\n",
        ("workflows", "train-1/main.log"): b"",
    }
    for (bucket, key), data in content.items():
        if bucket != "bentos":
            client.put_object(Bucket=bucket, Key=key, Body=data)
    return content
