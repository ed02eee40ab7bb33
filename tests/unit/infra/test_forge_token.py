"""The script that keeps a GitHub App's token in a Secret, as its pod has it: GitHub is played, by
answers of its published shapes, and so is the Kubernetes API, over https."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.platform import forge_token, pods
from slipway import paths
from tests import tls
from tests.tls import Authority

SECRET = "/api/v1/namespaces/pipelines/secrets/forge"
PERMISSIONS = {"contents": "write", "metadata": "read", "pull_requests": "write"}


class Both(BaseHTTPRequestHandler):
    """GitHub and Kubernetes; each test makes a subclass of its own."""

    patched: list[tuple[str, str, dict[str, Any]]]
    minted: list[dict[str, Any]]
    installed = True

    def _body(self) -> dict[str, Any]:
        return json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def do_GET(self) -> None:
        found = self.path == "/app"
        self._answer(200 if found else 404, {"slug": "acme-slipway"} if found else {})

    def do_POST(self) -> None:
        self.minted.append(self._body())
        ends = datetime.now(UTC) + timedelta(hours=1)
        made = {"token": f"token-{len(self.minted)}", "expires_at": f"{ends:%Y-%m-%dT%H:%M:%SZ}"}
        found = self.installed and self.path == "/app/installations/678/access_tokens"
        self._answer(201 if found else 404, made if found else {"message": "Not Found"})

    def do_PATCH(self) -> None:
        self.patched.append((self.path, self.headers["Authorization"], self._body()))
        self._answer(200, {})

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def handler() -> type[Both]:
    return type("Mine", (Both,), {"patched": [], "minted": []})


@pytest.fixture
def place(handler: type[Both], tmp_path: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """The script's folder, with what its pod finds there, and the pod's environment."""
    folder, account = tmp_path / "scripts", tmp_path / "account"
    (folder / "slipway").mkdir(parents=True)
    account.mkdir()
    authority = Authority.make("Kubernetes")
    (account / "token").write_text("the pod's")
    (account / "ca.crt").write_text(authority.pem)
    (tmp_path / "key.pem").write_text(tls.rsa_key())
    (folder / forge_token.SCRIPT).write_text((pods.SCRIPTS / forge_token.SCRIPT).read_text())
    for module in forge_token.MODULES:
        source = paths.REPOSITORY / "slipway" / f"{module}.py"
        (folder / "slipway" / source.name).write_text(source.read_text())
    with (
        ThreadingHTTPServer((tls.HERE, 0), handler) as github,
        tls.serving(handler, authority.signed(), tmp_path) as port,
    ):
        threading.Thread(target=github.serve_forever, args=(0.01,), daemon=True).start()
        settings = {
            "id": 12345,
            "installation": 678,
            "api": f"http://{tls.HERE}:{github.server_port}",
            "repository": "acme/models",
            "permissions": PERMISSIONS,
            "ca": "",
            "key": str(tmp_path / "key.pem"),
            "account": str(account),
            "secret": SECRET,
        }
        (folder / "settings.json").write_text(json.dumps(settings))
        kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "http_proxy")}
        yield (
            folder,
            kept
            | {"KUBERNETES_SERVICE_HOST": tls.HERE, "KUBERNETES_SERVICE_PORT": str(port)}
            | {"TMPDIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1", "no_proxy": tls.HERE},
        )
        github.shutdown()


def test_it_puts_a_token_where_steps_look(
    place: tuple[Path, dict[str, str]], handler: type[Both], tmp_path: Path
) -> None:
    folder, environment = place
    command = [sys.executable, str(folder / forge_token.SCRIPT)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True) as running:
        try:
            deadline = time.monotonic() + 20
            while not (tmp_path / "ready").exists() and running.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        finally:
            running.terminate()
        said = "".join(running.communicate())
    assert handler.minted == [{"repositories": ["models"], "permissions": PERMISSIONS}]
    values = {
        "FORGE_USERNAME": "x-access-token",
        "FORGE_PASSWORD": "token-1",
        "FORGE_LOGIN": "acme-slipway[bot]",
    }
    assert handler.patched == [(SECRET, "Bearer the pod's", {"stringData": values})]
    assert "token-1" not in said


def test_where_there_is_none_its_log_says_why(
    place: tuple[Path, dict[str, str]], handler: type[Both], tmp_path: Path
) -> None:
    handler.installed = False
    folder, environment = place
    command = [sys.executable, str(folder / forge_token.SCRIPT)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("no token: slipway:forge.app.installation: app 12345 has no inst")
    assert "Traceback" not in done.stderr
    assert handler.patched == []
    assert not (tmp_path / "ready").exists()


def test_the_next_one_is_made_while_half_an_hour_is_left(
    place: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than a step may run: what a pod began with counts until it ends."""
    folder, environment = place
    for name in ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "TMPDIR", "no_proxy"):
        monkeypatch.setenv(name, environment[name])
    found = importlib.util.spec_from_file_location("script", folder / forge_token.SCRIPT)
    assert found
    assert found.loader
    script = importlib.util.module_from_spec(found)
    found.loader.exec_module(script)

    class Slept(Exception):
        pass

    def sleep(seconds: float) -> None:
        raise Slept(seconds)

    monkeypatch.setattr(script.time, "sleep", sleep)
    with pytest.raises(Slept) as slept:
        script.main(json.loads((folder / "settings.json").read_text()))
    assert 1790 < slept.value.args[0] < 1802
    assert max(step_seconds()) < script.RESERVE_S


def step_seconds() -> Iterator[int]:
    """For how long templates that are given the Secret may run."""
    for file in (paths.REPOSITORY / "workflows").glob("*.yaml"):
        for document in yaml.safe_load_all(file.read_text()):
            for template in document["spec"].get("templates", []):
                given = template.get("container", {}).get("envFrom", [])
                if {"secretRef": {"name": forge_token.SECRET}} in given:
                    yield int(template["activeDeadlineSeconds"])
