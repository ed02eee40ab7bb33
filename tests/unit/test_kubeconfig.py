"""A kubeconfig for somebody: what is asked of the cluster, and what is handed out."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from typer.testing import CliRunner

from slipway import kubeconfig
from slipway.cli import app
from slipway.endpoints import Cluster
from slipway.errors import SlipwayError

Patch = pytest.MonkeyPatch
NAME = f"{kubeconfig.REQUESTS}/slipway-x"


class Signer:
    """A cluster that signs what has been approved, or says why not."""

    def __init__(self, status: dict[str, Any]) -> None:
        self.status, self.asked, self.seen = status, {}, []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(f"{request.method} {request.url.path}")
        if request.method == "POST":
            self.asked = json.loads(request.content)
            return httpx.Response(201, json={"metadata": {"name": "slipway-x"}})
        approved = f"PATCH {NAME}/approval" in self.seen
        return httpx.Response(200, json={"status": self.status if approved else {}})


@pytest.fixture
def signer(monkeypatch: Patch, tmp_path: Path) -> Signer:
    made = Signer({"certificate": "c2lnbmVk"})
    client = httpx.Client(base_url="https://api", transport=httpx.MockTransport(made))
    monkeypatch.setattr(Cluster, "connect", lambda: Cluster(client, embedded=False))
    (tmp_path / "ca.crt").write_text("an authority")
    place = {"server": "https://api:6443", "certificate-authority": "ca.crt"}
    config = {
        "clusters": [{"name": "a", "cluster": place}, {"name": "b", "cluster": {"server": "no"}}],
        "contexts": [{"name": "c", "context": {"cluster": "a", "user": "admin"}}],
        "current-context": "c",
        "users": [{"name": "admin", "user": {"token": "the administrator's"}}],
    }
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    return made


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["kubeconfig", *arguments])


def test_it_says_who_one_is_and_nothing_of_the_administrator(signer: Signer) -> None:
    result = run("--for", "ada", "--group", "viewers", "--group", "others", "--hours", "2")
    assert result.exit_code == 0, result.output
    spec = signer.asked["spec"]
    assert (spec["signerName"], spec["expirationSeconds"], spec["usages"]) == (
        "kubernetes.io/kube-apiserver-client",
        7200,
        ["client auth"],
    )
    request = x509.load_pem_x509_csr(base64.b64decode(spec["request"]))
    assert {(a.rfc4514_attribute_name, a.value) for a in request.subject} == {
        ("CN", "ada"),
        ("O", "viewers"),
        ("O", "others"),
    }
    # What asked for it is gone.
    assert signer.seen[-1] == f"DELETE {NAME}"
    made = yaml.safe_load(result.stdout)
    [user] = made["users"]
    assert (user["name"], user["user"]["client-certificate-data"]) == ("ada", "c2lnbmVk")
    key = serialization.load_pem_private_key(
        base64.b64decode(user["user"]["client-key-data"]), None
    )
    assert key.public_key() == request.public_key()
    [place] = made["clusters"]
    assert place["cluster"] == {
        "server": "https://api:6443",
        "certificate-authority-data": base64.b64encode(b"an authority").decode(),
    }
    assert "administrator" not in result.stdout


def test_a_file_is_its_owners_and_is_not_overwritten(signer: Signer, tmp_path: Path) -> None:
    file = tmp_path / "ada"
    assert run("--for", "ada", "--to", str(file)).exit_code == 0
    assert file.stat().st_mode & 0o777 == 0o600
    again = run("--for", "ada", "--to", str(file))
    assert again.exit_code == 2
    assert "is there already" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("--for", "system:admin"), "--for"),
        (("--for", "ada", "--group", "system:masters"), "--group"),
    ],
)
def test_nobody_becomes_one_of_kubernetes_own(
    signer: Signer, arguments: tuple[str, ...], field: str
) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert f"{field}: 'system:" in result.stderr
    assert not signer.seen


def test_a_cluster_that_signs_none_is_not_waited_for_long(
    signer: Signer, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(kubeconfig, "SIGNED_WITHIN_S", 0)
    signer.status = {}
    result = run("--for", "ada")
    assert result.exit_code == 1
    assert "has not signed it" in result.stderr
    assert "access entries" in result.stderr
    assert signer.seen[-1] == f"DELETE {NAME}"


def test_a_refusal_to_sign_says_why(signer: Signer) -> None:
    signer.status = {"conditions": [{"type": "Failed", "message": "too long"}]}
    with pytest.raises(SlipwayError, match="no certificate: too long"):
        kubeconfig._signed(Cluster.connect(), b"request", 1)
