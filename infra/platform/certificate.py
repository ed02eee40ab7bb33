"""A certificate for a service that the API server calls, made once and kept in Pulumi's state."""

from __future__ import annotations

from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider, UpdateResult


class ServingCertificateProvider(ResourceProvider):
    """Signed by itself: whoever calls the service is given it, and trusts nothing else."""

    days = 3650

    def create(self, props: dict[str, Any]) -> CreateResult:
        import datetime
        import secrets

        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        name = str(props["name"])
        key = ec.generate_private_key(ec.SECP256R1())
        # The name of a service may be longer than a common name.
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name[:64])])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=self.days))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        private = key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        made = {"certificate": certificate.public_bytes(pem).decode(), "key": private.decode()}
        return CreateResult(secrets.token_hex(8), {"name": name, **made})

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        # An edit of this very file changes the serialized provider; it must not change the key.
        changed = _olds["name"] != _news["name"]
        return DiffResult(changes=changed, replaces=["name"] if changed else [])

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        return UpdateResult(dict(_olds))


# Pickled by value, not by name: the process that runs the provider cannot import this package.
ServingCertificateProvider.__module__ = "__main__"


class ServingCertificate(Resource, name="ServingCertificate"):
    """`certificate` and its private `key`, PEM, for a service's name as the API server calls it."""

    certificate: pulumi.Output[str]
    key: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        service: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(
            ServingCertificateProvider(),
            name,
            {"name": service, "certificate": None, "key": None},
            pulumi.ResourceOptions.merge(
                opts, pulumi.ResourceOptions(additional_secret_outputs=["key"])
            ),
        )
