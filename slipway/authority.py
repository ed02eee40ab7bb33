"""The authority that a forge's certificate is by, where that is one's own: PEM in slipway:forge."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime

from slipway.errors import BadInput

FIELD = "slipway:forge.ca"
# What OpenSSL calls them: not yet valid, or no longer; and of another name, or another address.
_DATES, _NAMES = (9, 10), (62, 64)


def check(pem: str) -> None:
    """Raises `ValueError`, with the fix, unless these are certificates that count today."""
    from cryptography import x509  # which most of what trusts one has no use for

    if "PRIVATE KEY" in pem:
        raise ValueError("a private key: write the certificate alone, and keep the key to yourself")
    try:
        found = x509.load_pem_x509_certificates(pem.encode())
    except ValueError:
        raise ValueError("no certificate in it: PEM, -----BEGIN CERTIFICATE-----") from None
    now = datetime.now(UTC)
    for certificate in found:
        name, ended = certificate.subject.rfc4514_string(), certificate.not_valid_after_utc
        if ended < now:
            raise ValueError(
                f"{name} expired on {ended:%Y-%m-%d}: write the certificate that came after it"
            )
        if certificate.not_valid_before_utc > now:
            raise ValueError(
                f"{name} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}: "
                "look at this machine's clock"
            )


def trusting(pem: str) -> ssl.SSLContext | bool:
    """What httpx verifies a forge by: this authority and no other; "" for those that are known."""
    return ssl.create_default_context(cadata=pem) if pem else True


def refused(error: BaseException, url: str, pem: str) -> BadInput | None:
    """Why a forge's certificate is not trusted; None where that is not what failed.

    Args:
        error: what came of talking to it.
        url: where it is.
        pem: the authority that counts there, "" for those that are known.
    """
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _told(cause.verify_code, str(cause.verify_message), url, pem)
    return None


def refused_git(said: str, url: str, pem: str) -> BadInput | None:
    """The same of what git says, which of two libraries it was built with."""
    text = said.lower()
    if "certificate" not in text or not ("ssl" in text or "verification failed" in text):
        return None
    code = next((codes[0] for word, codes in _WORDS.items() if word in text), 0)
    # Debian's git does not say why.
    or_else = ", or out of date" if "verification failed" in text else ""
    return _told(code, said.splitlines()[-1], url, pem, or_else)


_WORDS = {"expired": _DATES, "does not match": _NAMES, "no alternative certificate": _NAMES}


def _told(code: int, said: str, url: str, pem: str, or_else: str = "") -> BadInput:
    problem, fix = f"{url}: its certificate is ", "write that authority's certificate there, as PEM"
    if code in _DATES:
        problem += f"out of date: {said}"
        fix = "renew it there; or look at this machine's clock"
    elif code in _NAMES:
        problem += f"another's: {said}"
        fix = "slipway:forge.url has the name that the certificate is for"
    elif pem:
        problem += f"by an authority that {FIELD} does not name{or_else} ({said})"
    else:
        problem += f"by an authority that nobody knows here{or_else} ({said})"
    return BadInput(problem, field=FIELD, fix=fix)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
