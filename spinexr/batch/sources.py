"""Address → bytes, with nothing believed about the file that can change meanwhile."""

from __future__ import annotations

import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from spinexr.batch import archives, dicomweb
from spinexr.batch.address import Address, is_remote
from spinexr.batch.archives import Archive
from spinexr.errors import (
    BatchError,
    FileChangedError,
    InputError,
    SourceDeniedError,
    SourceMissingError,
    SourceTimeoutError,
    SpineXRError,
    TooLargeError,
)

_ARCHIVES_OPEN = 16  # and those in use beyond them
Stamp = tuple[Any, ...]


@dataclass(slots=True, eq=False)
class _Opened:
    stamp: Stamp
    archive: Archive
    users: int = 0
    outdated: bool = False  # the last user closes it


def file_system(file: str) -> tuple[Any, str]:
    """fsspec's file system for an address, and the path in it.

    Raises:
        BatchError: no such protocol, or a package that it needs is not installed.
    """
    import fsspec

    try:
        found: tuple[Any, str] = fsspec.core.url_to_fs(file)
    except (ImportError, ValueError) as e:
        raise BatchError(f"{file} cannot be opened: {e}") from e
    return found


class Sources:
    """Reads inputs; archives stay open from one member to the next. Threads may share it."""

    def __init__(self, *, max_bytes: int, credentials: dicomweb.Credentials | None = None) -> None:
        """A reader of files of at most `max_bytes` each.

        Args:
            credentials: for archives that speak DICOMweb.
        """
        self._max_bytes = max_bytes
        self._dicomweb = dicomweb.Archive(credentials)
        self._lock = threading.Lock()
        self._archives: OrderedDict[str, _Opened] = OrderedDict()

    def read(self, address: Address) -> bytes:
        """The bytes of one input.

        Raises:
            TooLargeError: it has more than `max_bytes`.
            FileChangedError: it changed while it was read.
            InputError: it cannot be read.
        """
        if address.remote:
            return self._remotely(address)
        try:
            if address.member:
                return self._member(address)
            return self._local(address.file)
        except FileNotFoundError as e:
            raise InputError("The file is no longer there.") from e
        except PermissionError as e:
            raise InputError("The file may not be read: permission denied.") from e
        except OSError as e:
            raise InputError(f"The file cannot be read: {e.strerror or type(e).__name__}.") from e

    def close(self) -> None:
        """Close the archives that are open."""
        with self._lock:
            while self._archives:
                self._archives.popitem()[1].archive.close()

    def _remotely(self, address: Address) -> bytes:
        try:
            if dicomweb.is_dicomweb(address.file):
                return self._dicomweb.fetch(address.file, max_bytes=self._max_bytes)
            return self._member(address) if address.member else self._remote(address.file)
        except SpineXRError:
            raise
        # Each file system of fsspec raises the errors of its library.
        except Exception as e:
            raise remote_error(e) from e

    def _local(self, file: str) -> bytes:
        if not stat.S_ISREG(os.stat(file).st_mode):  # noqa: PTH116  (opening a pipe would wait)
            raise InputError("This is not a file.")
        with Path(file).open("rb") as stream:
            before = os.fstat(stream.fileno())
            if before.st_size > self._max_bytes:
                raise TooLargeError(archives.too_large(self._max_bytes))
            data = stream.read(before.st_size + 1)
            after = os.fstat(stream.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise _changed()
        if len(data) != before.st_size:
            raise _changed()
        return data

    def _remote(self, file: str) -> bytes:
        system, path = file_system(file)
        before = stamp_of(file)
        with system.open(path, "rb") as stream:
            data: bytes = stream.read(self._max_bytes + 1)
        if len(data) > self._max_bytes:
            raise TooLargeError(archives.too_large(self._max_bytes))
        if stamp_of(file) != before:
            raise _changed()
        return data

    def _member(self, address: Address) -> bytes:
        before = stamp_of(address.file)
        with self._archive(address.file, before) as archive:
            data = archive.read(address.member, max_bytes=self._max_bytes)
        if stamp_of(address.file) != before:
            raise _changed()
        return data

    @contextmanager
    def _archive(self, file: str, stamp: Stamp) -> Iterator[Archive]:
        """An archive that nobody closes meanwhile."""
        with self._lock:
            opened = self._archives.pop(file, None)
            if opened is not None and opened.stamp != stamp:
                self._close(opened)
                opened = None
            if opened is None:
                stream, size = open_stream(file)
                archive = Archive(stream, archives.kind_of(file) or "", size=size)
                opened = _Opened(stamp, archive)
            opened.users += 1
            self._archives[file] = opened
            while len(self._archives) > _ARCHIVES_OPEN:
                self._close(self._archives.popitem(last=False)[1])
        try:
            yield opened.archive
        finally:
            with self._lock:
                opened.users -= 1
                if opened.outdated:
                    self._close(opened)

    def _close(self, opened: _Opened) -> None:
        opened.outdated = True
        if not opened.users:
            opened.archive.close()


def stamp_of(file: str) -> Stamp:
    """What changes when a file does."""
    if is_remote(file):
        system, path = file_system(file)
        info = system.info(path)
        return (info.get("size"), info.get("mtime"), info.get("LastModified"), info.get("ETag"))
    found = os.stat(file)  # noqa: PTH116
    return (found.st_ino, found.st_size, found.st_mtime_ns)


def open_stream(file: str) -> tuple[IO[bytes], int]:
    """A file's bytes to seek in, and how many they are.

    Raises:
        OSError: it cannot be opened.
    """
    if is_remote(file):
        system, path = file_system(file)
        return system.open(path, "rb"), int(system.info(path).get("size") or 0)
    return Path(file).open("rb"), Path(file).stat().st_size


def remote_error(error: Exception) -> InputError:
    """What another machine's refusal means, whatever library met it."""
    # fsspec makes a file that is not there of whatever a web server refuses.
    status = getattr(error, "status", None) or getattr(error.__cause__, "status", None)
    if isinstance(status, int) and status >= 400:
        return dicomweb.refusal(status)
    if isinstance(error, FileNotFoundError):
        return SourceMissingError("The server does not have it.")
    if isinstance(error, PermissionError) or type(error).__name__ == "NoCredentialsError":
        return SourceDeniedError(
            "The server refuses access: check the credentials (docs/batch.md)."
        )
    if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        return SourceTimeoutError("The server took too long. Try it again.")
    return InputError(f"The server does not give it ({type(error).__name__}).")


def _changed() -> FileChangedError:
    return FileChangedError("The file changed while it was read. Run again when it is complete.")
