"""What is encrypted comes back with its passphrase, whole, or not at all."""

from __future__ import annotations

import io

import pytest

from slipway.backup.seal import CHUNK, NONCE, TAG, Broken, Seal

SALT = "000102030405060708090a0b0c0d0e0f"
SEAL = Seal("passphrase", SALT)


def encrypted(content: bytes) -> bytes:
    target = io.BytesIO()
    SEAL.encrypt(io.BytesIO(content), target)
    return target.getvalue()


def decrypted(content: bytes, seal: Seal = SEAL) -> bytes:
    target = io.BytesIO()
    seal.decrypt(io.BytesIO(content), target)
    return target.getvalue()


@pytest.mark.parametrize("size", [0, 1, TAG, CHUNK - TAG, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
def test_there_and_back(size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    sealed = encrypted(content[:size])
    assert len(sealed) == NONCE + size + TAG
    assert decrypted(sealed) == content[:size]


def test_neither_the_content_nor_that_it_is_the_same_can_be_seen() -> None:
    first, second = encrypted(b"webhook secret"), encrypted(b"webhook secret")
    assert b"webhook" not in first
    assert first != second


@pytest.mark.parametrize("place", [0, NONCE, NONCE + 5, -1])
def test_one_bit_that_has_changed_is_noticed(place: int) -> None:
    content = bytearray(encrypted(b"a dump of a database"))
    content[place] ^= 1
    with pytest.raises(Broken, match="does not decrypt"):
        decrypted(bytes(content))


@pytest.mark.parametrize("length", [NONCE, NONCE + 3, NONCE + TAG, -1])
def test_what_is_cut_short_is_noticed(length: int) -> None:
    with pytest.raises(Broken, match="does not decrypt"):
        decrypted(encrypted(b"a dump of a database")[:length])


@pytest.mark.parametrize("other", [Seal("another", SALT), Seal("passphrase", "ff" * 16)])
def test_another_passphrase_or_salt_opens_nothing(other: Seal) -> None:
    with pytest.raises(Broken):
        decrypted(encrypted(b"a dump"), other)
    assert not other.holds(b"a manifest", SEAL.of(b"a manifest"))


def test_a_seal_is_of_one_content() -> None:
    assert SEAL.holds(b"a manifest", SEAL.of(b"a manifest"))
    assert not SEAL.holds(b"a manifesto", SEAL.of(b"a manifest"))
    # Of a file that an editor has ended with a line.
    assert Seal("passphrase\n", SALT).of(b"x") == SEAL.of(b"x")
