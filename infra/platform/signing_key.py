"""An Ed25519 key pair made once; its private half is kept in Pulumi's state as a secret."""

from __future__ import annotations

from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider, UpdateResult


class SigningKeyProvider(ResourceProvider):
    """PEM: PKCS #8 for the private half, SubjectPublicKeyInfo for the public one."""

    def create(self, props: dict[str, Any]) -> CreateResult:
        import secrets

        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        key, pem = Ed25519PrivateKey.generate(), serialization.Encoding.PEM
        private = key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
        made = {"private": private.decode(), "public": public.decode()}
        return CreateResult(secrets.token_hex(8), made)

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        # An edit of this very file changes the serialized provider; it must not change a key.
        return DiffResult(changes=False)

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        return UpdateResult({"private": _olds["private"], "public": _olds["public"]})


# Pickled by value, not by name: the process that runs the provider cannot import this package.
SigningKeyProvider.__module__ = "__main__"


class SigningKey(Resource, name="SigningKey"):
    """`private` and `public`, in PEM. They never change: another key is another resource."""

    private: pulumi.Output[str]
    public: pulumi.Output[str]

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None) -> None:
        secret = pulumi.ResourceOptions(additional_secret_outputs=["private"])
        super().__init__(
            SigningKeyProvider(),
            name,
            {"private": None, "public": None},
            pulumi.ResourceOptions.merge(opts, secret),
        )
