"""What keeps a backup from who may only read, or write, the place where it lies.

Dumps hold what opens doors: sessions, webhooks' secrets, the platform's own keys. They are
encrypted (AES-256-GCM), and the manifest, which names all else by digest, is sealed (HMAC-SHA256),
both by keys that scrypt makes of the passphrase of Pulumi's state.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM

from slipway.errors import SlipwayError

NONCE, TAG, CHUNK = 12, 16, 2**20


class Broken(SlipwayError):
    """What was encrypted has changed, or another passphrase did it."""


class Seal:
    """The keys that one passphrase makes for one backup."""

    def __init__(self, passphrase: str, salt: str) -> None:
        made = hashlib.scrypt(
            passphrase.strip().encode(), salt=bytes.fromhex(salt), n=2**14, r=8, p=1, dklen=64
        )
        self._encrypting, self._sealing = made[:32], made[32:]

    def of(self, content: bytes) -> str:
        """The keyed digest of some content, as hex."""
        return hmac.new(self._sealing, content, hashlib.sha256).hexdigest()

    def holds(self, content: bytes, seal: str) -> bool:
        return hmac.compare_digest(self.of(content), seal)

    def encrypt(self, source: BinaryIO, target: BinaryIO) -> None:
        """Nonce, ciphertext, tag; of any size."""
        nonce = os.urandom(NONCE)
        encryptor = Cipher(AES(self._encrypting), GCM(nonce)).encryptor()
        target.write(nonce)
        while chunk := source.read(CHUNK):
            target.write(encryptor.update(chunk))
        target.write(encryptor.finalize() + encryptor.tag)

    def decrypt(self, source: BinaryIO, target: BinaryIO) -> None:
        """The way back. What `target` got counts only once this returns.

        Raises:
            Broken: it is not what `encrypt` has written with this passphrase.
        """
        decryptor = Cipher(AES(self._encrypting), GCM(source.read(NONCE))).decryptor()
        held = b""
        while chunk := source.read(CHUNK):
            held += chunk
            target.write(decryptor.update(held[:-TAG]))
            held = held[-TAG:]
        try:
            target.write(decryptor.finalize_with_tag(held))
        except (InvalidTag, ValueError):
            raise Broken("a part of the backup does not decrypt", fix="take another one") from None
