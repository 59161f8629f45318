"""What the queue writes to the disk: encrypted with a key, or as it is where there is none.

AES-256 in GCM, a random nonce of 96 bits each (NIST SP 800-38D), the place bound in: what is moved
to another place does not open.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from pathlib import Path
from typing import Protocol

from spinexr.errors import ConfigurationError

_KEY_BYTES = 32
_NONCE_BYTES = 12


class Seal(Protocol):
    """Closes what is kept, and names things without saying what they are."""

    def close(self, data: bytes, place: str) -> bytes: ...

    def open(self, data: bytes, place: str) -> bytes: ...

    def name(self, data: bytes) -> bytes: ...


class NoSeal:
    """Everything stays readable."""

    def close(self, data: bytes, place: str) -> bytes:
        return data

    def open(self, data: bytes, place: str) -> bytes:
        return data

    def name(self, data: bytes) -> bytes:
        """SHA-256."""
        return hashlib.sha256(data).digest()


class KeySeal:
    """AES-GCM with a key of 32 bytes."""

    def __init__(self, key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._cipher = AESGCM(key)
        # A key of its own for names, so that they say nothing about the cipher's.
        self._name_key = hmac.digest(key, b"spinexr names", "sha256")

    def close(self, data: bytes, place: str) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, data, place.encode())

    def open(self, data: bytes, place: str) -> bytes:
        """What was closed in that place.

        Raises:
            ConfigurationError: it was closed with another key, or is damaged.
        """
        from cryptography.exceptions import InvalidTag

        try:
            return self._cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], place.encode())
        except (InvalidTag, ValueError) as e:  # ValueError where the nonce is cut off
            raise ConfigurationError(
                "The queue does not open with this key: it was closed with another one, or is "
                "damaged. Set SPINEXR_NODE_KEY_FILE to the file of its key."
            ) from e

    def name(self, data: bytes) -> bytes:
        """HMAC-SHA-256: without the key nobody can try identifiers out."""
        return hmac.digest(self._name_key, data, "sha256")


def from_file(file: Path | None) -> Seal:
    """The seal of a key file; none without a file.

    Raises:
        ConfigurationError: it cannot be read, or holds no key.
    """
    if file is None:
        return NoSeal()
    try:
        key = base64.b64decode(file.read_bytes().strip(), validate=True)
    except OSError as e:
        raise ConfigurationError(
            f"SPINEXR_NODE_KEY_FILE={file} cannot be read: {e.strerror}."
        ) from e
    except binascii.Error:
        key = b""
    if len(key) != _KEY_BYTES:
        raise ConfigurationError(
            f"SPINEXR_NODE_KEY_FILE={file} holds no key: make one with "
            "python -m spinexr node key FILE."
        )
    return KeySeal(key)


def write_key(file: Path) -> None:
    """Make a key, readable by the owner only.

    Raises:
        OSError: the file is there already, or cannot be written.
    """
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as stream:
        stream.write(base64.b64encode(os.urandom(_KEY_BYTES)) + b"\n")
