"""The folder that a batch writes to: one result set, and earlier ones of other weights beside it.

A set that no longer fits what answers is moved to `earlier/` whole, and back when it fits again.
The move is noted first, so that one that was killed is finished by the next run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from spinexr.batch import results
from spinexr.errors import BatchError

_IDENTITY = "set.json"
_MOVE = "moving.json"
_SALT = "salt"
_EARLIER = "earlier"
_SALT_BYTES = 32
# The identity last: what holds it is whole.
_OF_A_SET = (
    "results", "overlay", "dicom", "failures.parquet", "summary.html",
    "ledger.sqlite-wal", "ledger.sqlite-shm", "ledger.sqlite", _IDENTITY,
)  # fmt: skip


class OutputFolder:
    """A folder that one batch at a time may write to."""

    def __init__(self, root: Path) -> None:
        """Make the folder where it is not there, and lock it.

        Raises:
            BatchError: another batch is running in it, or it holds results that are none of ours.
            OSError: it cannot be written.
        """
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(root / ".lock")
        try:
            self._finish_move()
            self._refuse_foreign()
            self.salt = self._read_salt()
        except BaseException:
            self.close()
            raise

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def overlays(self) -> Path:
        return self.root / "overlay"

    @property
    def objects(self) -> Path:
        return self.root / "dicom"

    @property
    def failures(self) -> Path:
        return self.root / "failures.parquet"

    @property
    def summary(self) -> Path:
        return self.root / "summary.html"

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.sqlite"

    def holds(self, identity: Mapping[str, Any]) -> bool:
        """Whether results of this identity are there, in place or among the earlier ones."""
        return self._identity() == dict(identity) or self._earlier(identity).exists()

    @property
    def in_use(self) -> bool:
        """Whether a result set is in place, of whatever identity."""
        return self._identity() is not None

    def choose(self, identity: Mapping[str, Any]) -> None:
        """Make the result set of an identity the one in place; a new one where there is none.

        Raises:
            BatchError: parts are there without the ledger that says which of them count.
            OSError: a file cannot be moved or written.
        """
        present = self._identity()
        if present is not None and present != dict(identity):
            self._move("", self._earlier(present).relative_to(self.root).as_posix())
        if self._earlier(identity).exists() and self._identity() is None:
            self._move(self._earlier(identity).relative_to(self.root).as_posix(), "")
        if self._identity() is None:
            text = json.dumps(dict(identity), indent=2, sort_keys=True) + "\n"
            results.write_bytes(self.root / _IDENTITY, text.encode())
        self.results.mkdir(exist_ok=True)
        if not self.ledger.exists() and next(self.results.glob("part-*"), None):
            raise BatchError(
                f"{self.results} holds results, but {self.ledger.name} is gone, which says which "
                "of them count. Put it back, or choose another folder; nothing was removed."
            )

    def close(self) -> None:
        """Let another batch in."""
        self._lock.close()

    def _refuse_foreign(self) -> None:
        if self._identity() is None and self.results.exists():
            raise BatchError(f"{self.results} is there and no batch made it; choose another.")

    def _identity(self) -> dict[str, Any] | None:
        return self._read_json(_IDENTITY)

    def _earlier(self, identity: Mapping[str, Any]) -> Path:
        text = json.dumps(dict(identity), sort_keys=True).encode()
        return self.root / _EARLIER / hashlib.sha256(text).hexdigest()[:12]

    def _move(self, source: str, target: str) -> None:
        note = json.dumps({"source": source, "target": target}).encode()
        results.write_bytes(self.root / _MOVE, note)
        self._finish_move()

    def _finish_move(self) -> None:
        note = self._read_json(_MOVE)
        if note is None:
            return
        source, target = self.root / note["source"], self.root / note["target"]
        target.mkdir(parents=True, exist_ok=True)
        for name in _OF_A_SET:
            if (source / name).exists():
                (source / name).rename(target / name)
        if source != self.root and source.exists():
            source.rmdir()
        (self.root / _MOVE).unlink()

    def _read_json(self, name: str) -> dict[str, Any] | None:
        file = self.root / name
        try:
            found: dict[str, Any] = json.loads(file.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as e:
            raise BatchError(f"{file} is damaged: choose another folder.") from e
        return found

    def _read_salt(self) -> bytes:
        """Of all result sets of the folder, so that they can be compared."""
        file = self.root / _SALT
        if not file.exists():  # the lock is held
            results.write_bytes(file, secrets.token_hex(_SALT_BYTES).encode(), mode=0o600)
        try:
            salt = bytes.fromhex(file.read_text("ascii"))
        except ValueError:
            salt = b""
        if len(salt) != _SALT_BYTES:
            raise BatchError(f"{file} is damaged: without it, hashes of instances would change.")
        return salt


def _locked(file: Path) -> IO[bytes]:
    stream = file.open("ab")
    with contextlib.suppress(ImportError):  # not on Windows, where the ledger is locked alone
        import fcntl

        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            stream.close()
            raise BatchError(f"Another batch is running in {file.parent}.") from e
    return stream
