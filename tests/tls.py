"""Authorities, certificates and keys of a test's own, and an https server that has one."""

from __future__ import annotations

import ipaddress
import ssl
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

HERE = "127.0.0.1"


@dataclass(frozen=True)
class Authority:
    """`pem` is its certificate."""

    name: str
    key: ec.EllipticCurvePrivateKey
    pem: str

    @classmethod
    def make(cls, name: str, days: tuple[float, float] = (-1, 10)) -> Authority:
        """`days`: from when until when it counts, as days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(name, name, key, days).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        made = builder.sign(key, hashes.SHA256())
        return cls(name, key, made.public_bytes(serialization.Encoding.PEM).decode())

    def signed(self, address: str = HERE, days: tuple[float, float] = (-1, 10)) -> str:
        """A certificate for an address or a name, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            name: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(address))
        except ValueError:
            name = x509.DNSName(address)
        builder = _builder(address, self.name, key, days).add_extension(
            x509.SubjectAlternativeName([name]), critical=False
        )
        made = builder.sign(self.key, hashes.SHA256())
        return made.public_bytes(serialization.Encoding.PEM).decode() + _pem(key)


def _builder(
    name: str, issuer: str, key: ec.EllipticCurvePrivateKey, days: tuple[float, float]
) -> x509.CertificateBuilder:
    subject, by = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, n)]) for n in (name, issuer))
    begins, ends = (datetime.now(UTC) + timedelta(days=d) for d in days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
    )


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    form = serialization.PrivateFormat.TraditionalOpenSSL
    encryption = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, encryption).decode()


def rsa_key() -> str:
    """As GitHub makes them for apps."""
    return _pem(rsa.generate_private_key(65537, 2048))


def ec_key() -> str:
    return _pem(ec.generate_private_key(ec.SECP256R1()))


@contextmanager
def serving(
    handler: type[BaseHTTPRequestHandler], certificate: str, folder: Path
) -> Generator[int]:
    """An https server on this machine: its port."""
    file = folder / "server.pem"
    file.write_text(certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    with ThreadingHTTPServer((HERE, 0), handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
