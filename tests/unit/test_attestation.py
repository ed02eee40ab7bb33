"""What is signed can be verified; whatever was changed since is refused and named."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from slipway import attestation, release
from slipway.attestation import Unverified, key_id, load_keys, load_private, pae, sign, verify
from slipway.errors import BadInput
from tests import samples

KEY = Ed25519PrivateKey.from_private_bytes(b"1" * 32)
OTHER = Ed25519PrivateKey.from_private_bytes(b"2" * 32)


def keys(*private: Ed25519PrivateKey) -> dict[str, Ed25519PublicKey]:
    return {key_id(k.public_key()): k.public_key() for k in private}


def pem(key: Any) -> str:
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def private_pem(key: Any) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def test_what_was_signed_is_what_is_read() -> None:
    envelope = sign(samples.document(), KEY)
    assert verify(envelope, keys(KEY), "x") == samples.document()
    assert sign(samples.document(), KEY) == envelope
    assert json.loads(envelope)["signatures"][0]["keyid"] == key_id(KEY.public_key())


def test_the_encoding_is_dsses_own_example() -> None:
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_the_statement_names_the_bento() -> None:
    payload = json.loads(base64.b64decode(json.loads(sign(samples.document(), KEY))["payload"]))
    assert payload["_type"] == "https://in-toto.io/Statement/v1"
    assert payload["predicateType"] == "https://slipway.dev/evidence/v4"
    assert payload["subject"] == [{"name": "toy", "digest": {"sha256": "be" * 32}}]


Change = Callable[[dict[str, Any]], None]


def altered(change: Change, *, signed: bool) -> bytes:
    """The envelope after `change` of its statement; signed again, or with the old signature."""
    envelope = json.loads(sign(samples.document(), KEY))
    statement = json.loads(base64.b64decode(envelope["payload"]))
    change(statement)
    payload = json.dumps(statement).encode()
    envelope["payload"] = base64.b64encode(payload).decode()
    if signed:
        signature = KEY.sign(pae(attestation.PAYLOAD_TYPE, payload))
        envelope["signatures"][0]["sig"] = base64.b64encode(signature).decode()
    return json.dumps(envelope).encode()


def better(statement: dict[str, Any]) -> None:
    statement["predicate"]["evaluation"]["metrics"]["roc_auc"]["value"] = 0.99


def test_hand_edited_metrics_are_refused() -> None:
    with pytest.raises(Unverified, match="altered since it was signed"):
        verify(altered(better, signed=False), keys(KEY), "x")
    assert verify(altered(better, signed=True), keys(KEY), "x").evaluation.metrics


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update(predicateType="https://slsa.dev/provenance/v1"), "predicateType"),
        (lambda s: s.update(_type="https://in-toto.io/Statement/v0.1"), "_type"),
        (lambda s: s["subject"][0]["digest"].update(sha256="aa" * 32), "its subject is not"),
        (lambda s: s["subject"][0].update(name="another"), "its subject is not"),
        (lambda s: s["subject"].append(s["subject"][0]), "subject"),
        (lambda s: s["predicate"].update(schema_version=1), "schema_version"),
        (lambda s: s["predicate"].update(extra=1), "extra: unknown key"),
    ],
)
def test_a_signature_alone_is_not_enough(change: Change, message: str) -> None:
    with pytest.raises(Unverified, match=message):
        verify(altered(change, signed=True), keys(KEY), "x")


def envelope_with(**changes: Any) -> bytes:
    return json.dumps(json.loads(sign(samples.document(), KEY)) | changes).encode()


@pytest.mark.parametrize(
    ("envelope", "message"),
    [
        (sign(samples.document(), KEY)[:-20], "not a signed envelope"),
        (b"", "not a signed envelope"),
        (b"[]", "not a signed envelope"),
        (envelope_with(signatures=[]), "not a signed envelope: x: signatures"),
        (envelope_with(payloadType="text/plain"), "its payload is text/plain"),
        (envelope_with(payload="!!!"), "payload is not base64"),
        (envelope_with(extra=1), "extra: unknown key"),
    ],
)
def test_what_is_no_envelope_is_refused(envelope: bytes, message: str) -> None:
    with pytest.raises(Unverified, match=message):
        verify(envelope, keys(KEY), "x")


def test_the_payload_type_is_signed_too() -> None:
    payload = base64.b64decode(json.loads(sign(samples.document(), KEY))["payload"])
    signature = base64.b64encode(KEY.sign(pae("text/plain", payload))).decode()
    forged = envelope_with(signatures=[{"keyid": key_id(KEY.public_key()), "sig": signature}])
    with pytest.raises(Unverified, match="altered"):
        verify(forged, keys(KEY), "x")


def test_an_unknown_key_is_refused_even_under_a_known_keys_name() -> None:
    envelope = sign(samples.document(), OTHER)
    with pytest.raises(Unverified, match="not signed by a known key: signed by "):
        verify(envelope, keys(KEY), "x")
    with pytest.raises(Unverified, match="known: none"):
        verify(envelope, {}, "x")
    document = json.loads(envelope)
    document["signatures"][0]["keyid"] = key_id(KEY.public_key())
    with pytest.raises(Unverified, match="altered"):
        verify(json.dumps(document).encode(), keys(KEY), "x")


def test_a_key_is_rotated_without_losing_what_it_signed() -> None:
    both = load_keys(pem(OTHER) + "\n# the former key\n" + pem(KEY))
    assert set(both) == set(keys(KEY, OTHER))
    for key in (KEY, OTHER):
        assert verify(sign(samples.document(), key), both, "x") == samples.document()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no public key"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "not a public key"),
        (pem(ec.generate_private_key(ec.SECP256R1())), "not Ed25519"),
    ],
)
def test_other_keys_are_refused(text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load_keys(text, "public.pem")


def test_the_signing_key_is_read_and_never_shown() -> None:
    assert load_private(private_pem(KEY), "k").private_bytes_raw() == b"1" * 32
    other = private_pem(ec.generate_private_key(ec.SECP256R1()))
    for content in (b"secret words, but no key", other, private_pem(KEY)[:60]):
        with pytest.raises(BadInput) as raised:
            load_private(content, "private.pem")
        assert "private.pem" in str(raised.value)
        assert content.decode()[:20] not in str(raised.value)


def test_evidence_is_about_one_release() -> None:
    attestation.check_about(samples.document(), samples.released(), "dev")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bento": samples.bento("b0")}, "its bento is"),
        ({"version": 1}, "its version is 3, the release file says 1"),
        (
            {"runtime": release.Runtime(image=samples.IMAGE[:-1] + "0")},
            r"its runtime image is localhost:5000/slipway/serving@sha256:\S+2, the release",
        ),
        ({"data": release.Data(digest=samples.digest("00"))}, "its data is"),
        ({"code": release.Code(commit="0" * 40)}, "its commit is"),
        ({"mlflow": release.MLflow(run="0" * 32)}, "its run is"),
        ({"signature": release.Signature(digest=samples.digest("00"))}, "its signature is"),
        ({"model": "another"}, "its model is"),
        (
            {"evidence": release.Evidence(digest=samples.digest("ef"), summary={"roc_auc": 0.99})},
            "its summary is",
        ),
    ],
)
def test_evidence_for_another_release_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Unverified, match=message):
        attestation.check_about(samples.document(), samples.released(**changes), "dev")


def test_evidence_for_another_environment_is_refused() -> None:
    with pytest.raises(Unverified, match="its environment is dev, the release file says prod"):
        attestation.check_about(samples.document(), samples.released(), "prod")
