"""Attestation: evidence as an in-toto statement in a DSSE envelope, signed with Ed25519.

The envelope is the object that a release file names by digest. Its signature says that `attest` of
the platform wrote the evidence; the digest says which evidence the release means.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError

from slipway import digests
from slipway.digests import Digest
from slipway.errors import BadInput, SlipwayError, from_validation
from slipway.evidence import Evidence
from slipway.release import ModelName, Release, Strict
from slipway.store import Store, Unreachable, uri

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slipway.dev/evidence/v4"

Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Unverified(SlipwayError):
    """The envelope proves nothing: by whom it is, what it says, or what it is about is wrong."""


class _Signature(Strict):
    keyid: Hex
    sig: str


class _Envelope(Strict):
    payload: str
    payload_type: str = Field(alias="payloadType")
    signatures: Annotated[list[_Signature], Field(min_length=1)]


class _Sha256(Strict):
    sha256: Hex


class _Subject(Strict):
    name: ModelName
    digest: _Sha256


class _Statement(Strict):
    type: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: Annotated[list[_Subject], Field(min_length=1, max_length=1)]
    predicate_type: Literal["https://slipway.dev/evidence/v4"] = Field(alias="predicateType")
    predicate: dict[str, Any]


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is signed, so that no two envelopes read alike."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def key_id(public: Ed25519PublicKey) -> str:
    """The sha256 of the raw public key, as hex."""
    return hashlib.sha256(public.public_bytes_raw()).hexdigest()


def sign(document: Evidence, key: Ed25519PrivateKey) -> bytes:
    """The envelope, in canonical JSON: the same document and key give the same bytes."""
    payload = digests.canonical_json(
        {
            "_type": STATEMENT_TYPE,
            "subject": [
                {
                    "name": document.evaluation.model,
                    "digest": {"sha256": document.bento.digest.removeprefix("sha256:")},
                }
            ],
            "predicateType": PREDICATE_TYPE,
            "predicate": document.model_dump(mode="json"),
        }
    )
    signature = key.sign(pae(PAYLOAD_TYPE, payload))
    return digests.canonical_json(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [
                {
                    "keyid": key_id(key.public_key()),
                    "sig": base64.b64encode(signature).decode(),
                }
            ],
        }
    )


def verify(envelope: bytes, keys: Mapping[str, Ed25519PublicKey], name: str) -> Evidence:
    """The evidence that one of `keys` (by `key_id`) signed; `name` says where it came from.

    Raises:
        Unverified: it is no such envelope, no known key signed it, it was altered since, or what it
            says is not evidence about its subject.
    """
    from cryptography.exceptions import InvalidSignature

    sealed = _parse(_Envelope, envelope, name, "not a signed envelope")
    if sealed.payload_type != PAYLOAD_TYPE:
        raise Unverified(f"{name}: its payload is {sealed.payload_type}, not {PAYLOAD_TYPE}")
    payload = _decode(sealed.payload, name, "payload")
    known = [s for s in sealed.signatures if s.keyid in keys]
    if not known:
        by = ", ".join(s.keyid[:12] for s in sealed.signatures)
        mine = ", ".join(key[:12] for key in keys) or "none"
        raise Unverified(
            f"{name}: not signed by a known key: signed by {by}, known: {mine}",
            fix="evidence is signed by the step attest alone; where the key changed, the former "
            "public key belongs into the stack's slipway:formerKeys",
        )
    for signature in known:
        try:
            keys[signature.keyid].verify(
                _decode(signature.sig, name, "signature"), pae(sealed.payload_type, payload)
            )
            break
        except InvalidSignature:
            pass
    else:
        raise Unverified(
            f"{name}: altered since it was signed: the signature does not fit the content",
            fix="take the evidence that attest wrote, or train again",
        )
    statement = _parse(_Statement, payload, name, "not a statement of evidence")
    try:
        document = Evidence.model_validate(statement.predicate)
    except ValidationError as error:
        raise Unverified(str(from_validation(error, Evidence, name))) from None
    subject = statement.subject[0]
    about = (document.evaluation.model, document.bento.digest)
    if about != (subject.name, f"sha256:{subject.digest.sha256}"):
        raise Unverified(f"{name}: its subject is not the bento that its evidence is about")
    return document


S = TypeVar("S", _Envelope, _Statement)


def _parse(kind: type[S], data: bytes, name: str, problem: str) -> S:
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise Unverified(f"{problem}: {from_validation(error, kind, name)}") from None


def _decode(text: str, name: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise Unverified(f"{name}: its {what} is not base64: {error}") from None


def load_keys(pem: str, name: str = "public keys") -> dict[str, Ed25519PublicKey]:
    """The public keys in PEM, one block or several, by `key_id`.

    Raises:
        BadInput: there is none, or one is not Ed25519.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    end = "-----END PUBLIC KEY-----"
    found: dict[str, Ed25519PublicKey] = {}
    for block in pem.split(end)[:-1]:
        try:
            key = serialization.load_pem_public_key(f"{block.lstrip()}{end}\n".encode())
        except ValueError as error:
            raise BadInput(f"not a public key: {error}", file=name) from None
        if not isinstance(key, Ed25519PublicKey):
            raise BadInput(f"a key is {type(key).__name__}, not Ed25519", file=name)
        found[key_id(key)] = key
    if not found:
        raise BadInput("no public key in it", file=name, fix="PEM, -----BEGIN PUBLIC KEY-----")
    return found


def keys_from_environment(environment: str | None = None) -> dict[str, Ed25519PublicKey]:
    """The public keys of whoever attests for an environment; of this stack without one.

    The file that SLIPWAY_EVIDENCE_KEYS names has this stack's. Those of another stack, which hosts
    an earlier environment, are in a file beside it and count for that environment alone.
    """
    own, name = _file("SLIPWAY_EVIDENCE_KEYS"), os.environ["SLIPWAY_EVIDENCE_KEYS"]
    theirs = Path(name).with_name(keys_of(environment)) if environment else None
    if theirs and theirs.is_file():
        return load_keys(theirs.read_text(), str(theirs))
    return load_keys(own.decode(), name)


def keys_of(environment: str) -> str:
    """What the file of another stack's keys, which attests for an environment, is called."""
    return f"{environment}.pem"


def key_from_environment() -> Ed25519PrivateKey:
    """The signing key in the file that SLIPWAY_SIGNING_KEY names."""
    return load_private(_file("SLIPWAY_SIGNING_KEY"), os.environ["SLIPWAY_SIGNING_KEY"])


def _file(variable: str) -> bytes:
    name = os.environ.get(variable)
    if not name:
        raise BadInput("not set", field=variable, fix="set it to the path of a PEM file")
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise BadInput(f"cannot be read: {error.strerror}", file=name, field=variable) from None


def fetch(objects: Store, digest: Digest, keys: Mapping[str, Ed25519PublicKey]) -> Evidence:
    """The evidence of that digest, verified.

    Raises:
        Missing: the object is gone.
        Corrupt: its bytes are not those of that digest.
        Unverified: its bytes are, and prove nothing.
    """
    return verify(objects.get("evidence", digest), keys, uri("evidence", digest))


def proven(
    objects: Store, named: Iterable[Digest], keys: Mapping[str, Ed25519PublicKey]
) -> Iterator[Evidence]:
    """What can be verified of the evidence that is named by whom nobody need believe.

    Of the rest it is said why. Raises `Unreachable`: the store does not answer.
    """
    for digest in dict.fromkeys(named):
        try:
            yield fetch(objects, digest, keys)
        except Unreachable:
            raise
        except SlipwayError as problem:
            print(f"evidence {digest} is not believed: {problem}")


def load_private(pem: bytes, name: str) -> Ed25519PrivateKey:
    """The signing key. `BadInput` unless it is Ed25519; no message holds any of it."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        raise BadInput("not a private key in PEM, without a passphrase", file=name) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise BadInput(f"the key is {type(key).__name__}, not Ed25519", file=name)
    return key


def check_about(document: Evidence, release: Release, environment: str) -> None:
    """`Unverified`, naming every difference, unless this evidence is about this release there."""
    wrong = [
        *_differences(("environment", document.environment, environment)),
        *differences(document, release),
        *_differences(("summary", document.summary(), release.evidence.summary)),
    ]
    if wrong:
        raise Unverified(
            "the evidence is not about this release: its " + "; its ".join(wrong),
            fix="release files are written by slipway promote and the training workflow; "
            "promote again instead of editing",
        )


def differences(document: Evidence, release: Release) -> list[str]:
    """What of the release's pins is another than the evidence is about, whichever environment's."""
    found = document.evaluation
    return _differences(
        ("model", found.model, release.model),
        ("version", document.version, release.version),
        ("bento", document.bento, release.bento),
        ("runtime image", document.runtime.image, release.runtime.image),
        ("data", found.data.digest, release.data.digest),
        ("commit", found.code, release.code.commit),
        ("run", found.run, release.mlflow.run),
        ("signature", found.signature.digest, release.signature.digest),
    )


def _differences(*pairs: tuple[str, object, object]) -> list[str]:
    return [
        f"{what} is {mine}, the release file says {its}" for what, mine, its in pairs if mine != its
    ]
