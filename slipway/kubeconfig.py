"""A kubeconfig for somebody: a client certificate that the cluster signs, for a limited time."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from slipway.endpoints import Cluster, part, parts
from slipway.errors import BadInput, SlipwayError

API = "certificates.k8s.io/v1"
REQUESTS = f"/apis/{API}/certificatesigningrequests"
SIGNER = "kubernetes.io/kube-apiserver-client"
SIGNED_WITHIN_S = 30


def make(cluster: Cluster, config: Path, user: str, groups: Sequence[str], hours: int) -> str:
    """A kubeconfig by which one is this user, of these groups, at the cluster of another one.

    Args:
        config: kubeconfig that says where the cluster is.
        hours: how long; nobody can take it back earlier but by taking away rights.

    Raises:
        BadInput: a name is one of Kubernetes' own.
        SlipwayError: the cluster signs no such certificates.
    """
    for field, name in (("--for", user), *(("--group", group) for group in groups)):
        if name.startswith("system:") or not name:
            raise BadInput(f"{name!r} is no name of a person's or a team's", field=field)
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    certificate = _signed(cluster, _request(key, user, groups), hours)
    name = "slipway"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": _place(config)}],
        "users": [
            {
                "name": user,
                "user": {
                    "client-certificate-data": certificate,
                    "client-key-data": base64.b64encode(private).decode(),
                },
            }
        ],
        "contexts": [{"name": name, "context": {"cluster": name, "user": user}}],
        "current-context": name,
    }
    return yaml.safe_dump(document, sort_keys=False)


def _request(key: ec.EllipticCurvePrivateKey, user: str, groups: Sequence[str]) -> bytes:
    """As the API server reads a certificate: its common name is the user, organisations groups."""
    names = [
        *(x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, group) for group in groups),
        x509.NameAttribute(x509.NameOID.COMMON_NAME, user),
    ]
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names))
    return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _signed(cluster: Cluster, request: bytes, hours: int) -> str:
    """The certificate, in base64. What asked for it does not stay."""
    body = {
        "apiVersion": API,
        "kind": "CertificateSigningRequest",
        "metadata": {"generateName": "slipway-"},
        "spec": {
            "request": base64.b64encode(request).decode(),
            "signerName": SIGNER,
            "expirationSeconds": hours * 3600,
            "usages": ["client auth"],
        },
    }
    path = f"{REQUESTS}/{cluster.create(REQUESTS, body)['metadata']['name']}"
    try:
        approved = {
            "type": "Approved",
            "status": "True",
            "reason": "SlipwayKubeconfig",
            "message": "slipway kubeconfig",
        }
        cluster.patch(f"{path}/approval", {"status": {"conditions": [approved]}})
        deadline = time.monotonic() + SIGNED_WITHIN_S
        while time.monotonic() < deadline:
            found = cluster.find(path)
            if certificate := part(found, "status", "certificate"):
                return str(certificate)
            if failed := [c for c in parts(found, "status", "conditions") if c["type"] == "Failed"]:
                raise SlipwayError(f"no certificate: {failed[0].get('message', '')}")
            time.sleep(0.2)
    finally:
        cluster.delete(path)
    raise SlipwayError(
        f"the cluster has not signed it within {SIGNED_WITHIN_S} s",
        fix="some (EKS among them) sign none: there, groups come from who logs in elsewhere, by "
        "OIDC or access entries",
    )


def _place(config: Path) -> dict[str, Any]:
    """Where a kubeconfig's cluster is and how it proves itself, without other files."""
    read = cast("dict[str, Any]", yaml.safe_load(config.read_text()))
    [current] = [c["context"] for c in read["contexts"] if c["name"] == read["current-context"]]
    [place] = [c["cluster"] for c in read["clusters"] if c["name"] == current["cluster"]]
    found = dict(cast("dict[str, Any]", place))
    if authority := found.pop("certificate-authority", None):
        data = (config.parent / authority).read_bytes()
        found["certificate-authority-data"] = base64.b64encode(data).decode()
    return found
