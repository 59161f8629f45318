"""Zip and tar archives, which anybody may have made: nothing is unpacked to a disk.

What an archive claims is not believed. A member is read up to the limit for a file and no further,
a compressed tar may unpack to so many times its size and no more, and a name that leads out of the
archive is refused.
"""

from __future__ import annotations

import tarfile
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import closing
from pathlib import PurePosixPath
from typing import IO, Any, Self, cast

from spinexr.errors import InputError, TooLargeError, UnsafeArchiveError

ZIP, TAR = "zip", "tar"
_SUFFIXES = {
    ".zip": ZIP, ".tar": TAR, ".tgz": TAR, ".tbz2": TAR, ".txz": TAR,
    ".tar.gz": TAR, ".tar.bz2": TAR, ".tar.xz": TAR,
}  # fmt: skip
_MEBIBYTE = 1024 * 1024
# zipfile unpacks the others without a limit, all of what it took from the archive for one read.
_BOUNDED_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# Radiographs shrink to a third, empty ones to a hundredth; gzip can claim a thousandth.
_MOST_EXPANSION = 200
_ALWAYS_ALLOWED_BYTES = 256 * _MEBIBYTE
# tarfile reads a header of the size that it claims in one piece.
_LARGEST_HEADER_BYTES = _MEBIBYTE
_LONG_HEADERS = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip
# Members that were passed on the way to another one, kept for the threads that want them next.
_MEMBERS_KEPT = 8
_DAMAGED = "The archive is damaged: copy it again."
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, EOFError, ValueError, KeyError, IndexError)


def kind_of(name: str) -> str | None:
    """ZIP or TAR by the name's suffix, None for anything else."""
    lower = name.lower()
    return next((kind for suffix, kind in _SUFFIXES.items() if lower.endswith(suffix)), None)


def is_unsafe(member: str) -> bool:
    """Whether a member's name leads out of the archive."""
    path = PurePosixPath(member.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or ":" in path.as_posix().split("/")[0]


def members(stream: IO[bytes], kind: str, *, size: int) -> Iterator[str]:
    """The names of the files in an archive, in its order.

    Args:
        size: bytes of the archive.

    Raises:
        InputError: the archive is damaged or may not be opened.
    """
    try:
        if kind == ZIP:
            with zipfile.ZipFile(stream) as archive:
                for info in archive.infolist():
                    if not info.is_dir():
                        yield info.filename
            return
        with closing(_Tar(stream, size)) as tar:
            for entry in tar.entries():
                yield entry.name
    except _BROKEN as e:
        raise InputError(_DAMAGED) from e
    except (NotImplementedError, RuntimeError, OSError) as e:
        raise InputError(f"The archive cannot be read ({type(e).__name__}). {_DAMAGED}") from e


class Archive:
    """An archive that stays open while its members are read. Threads may share it."""

    def __init__(self, stream: IO[bytes], kind: str, *, size: int) -> None:
        """An archive over a stream, which it closes.

        Raises:
            InputError: it is damaged.
        """
        self._lock = threading.Lock()
        self._stream, self._size = stream, size
        self._tar: _Tar | None = None
        self._entries: Iterator[tarfile.TarInfo] = iter(())
        self._passed: OrderedDict[str, bytes] = OrderedDict()
        try:
            self._zip = zipfile.ZipFile(stream) if kind == ZIP else None
        except (*_BROKEN, NotImplementedError) as e:
            stream.close()
            raise InputError(_DAMAGED) from e

    def read(self, member: str, *, max_bytes: int) -> bytes:
        """The bytes of a member.

        Raises:
            TooLargeError: it holds more than `max_bytes`, whatever it claims.
            UnsafeArchiveError: its name leads out of the archive, or the archive is a bomb.
            InputError: it is damaged, encrypted, or not there.
        """
        if is_unsafe(member):
            raise UnsafeArchiveError(
                "The member's name leads out of the archive. Pack the archive again without "
                "absolute names and “..”."
            )
        with self._lock:
            try:
                if self._zip is not None:
                    return self._zip_member(member, max_bytes)
                return self._tar_member(member, max_bytes)
            except _BROKEN as e:
                raise InputError(f"The member cannot be read. {_DAMAGED}") from e
            except (NotImplementedError, RuntimeError) as e:
                raise InputError(
                    "The member is encrypted or compressed in a way that is not known."
                ) from e
            except OSError as e:
                raise InputError(f"The member cannot be read. {_DAMAGED}") from e
            except Exception as e:  # zlib.error, lzma.LZMAError: modules of their own
                if isinstance(e, (InputError, TooLargeError)):
                    raise
                raise InputError(f"The member cannot be read. {_DAMAGED}") from e

    def close(self) -> None:
        """Close the archive and its stream."""
        with self._lock:
            if self._zip is not None:
                self._zip.close()
            if self._tar is not None:
                self._tar.close()
            self._stream.close()

    def _zip_member(self, member: str, max_bytes: int) -> bytes:
        assert self._zip is not None  # noqa: S101
        if self._zip.getinfo(member).compress_type not in _BOUNDED_METHODS:
            raise InputError(
                "The member is compressed in another way than Deflate. Pack the archive again."
            )
        with self._zip.open(member) as stream:
            return _bounded(stream, max_bytes)

    def _tar_member(self, member: str, max_bytes: int) -> bytes:
        """Members are asked for in about their order; one that was passed starts anew."""
        if member in self._passed:
            return self._passed.pop(member)
        for begin_anew in (self._tar is None, True):
            if begin_anew:
                self._stream.seek(0)
                self._tar = _Tar(self._stream, self._size)
                self._entries = self._tar.entries()
            assert self._tar is not None  # noqa: S101
            for entry in self._entries:
                stream = self._tar.open(entry)
                if entry.name == member:
                    return _bounded(stream, max_bytes)
                if entry.size <= max_bytes:
                    self._passed[entry.name] = stream.read()
                    while len(self._passed) > _MEMBERS_KEPT:
                        self._passed.popitem(last=False)
        raise InputError("The archive no longer holds this member.")


class _Tar:
    """A tar read from its beginning to its end, under limits, its members forgotten at once."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        most = max(_ALWAYS_ALLOWED_BYTES, _MOST_EXPANSION * size)
        self._archive = tarfile.open(  # noqa: SIM115  (closed by `close`)
            fileobj=cast("IO[bytes]", _Unpacked(stream, most)), mode="r|", tarinfo=_Header
        )

    def entries(self) -> Iterator[tarfile.TarInfo]:
        while (entry := self._archive.next()) is not None:
            self._archive.members = []  # type: ignore[attr-defined]  # or it would keep them all
            if entry.isfile():
                yield entry

    def open(self, entry: tarfile.TarInfo) -> IO[bytes]:
        found = self._archive.extractfile(entry)
        assert found is not None  # noqa: S101  (only files are entries)
        return found

    def close(self) -> None:
        self._archive.close()


class _Unpacked:
    """The bytes of a tar, decompressed where it is compressed, with an end to what it may claim."""

    name = ""  # what tarfile asks of a stream besides `read`

    def __init__(self, stream: IO[bytes], most_bytes: int) -> None:
        self._stream = _decompressed(stream)
        self._left = most_bytes

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise UnsafeArchiveError(
                f"The archive unpacks to more than {_MOST_EXPANSION} times its size."
            )
        return data

    def close(self) -> None:
        """Whoever gave the stream closes it."""


class _Header(tarfile.TarInfo):
    """An entry that may not claim a header larger than any is."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        found = super().frombuf(buf, encoding, errors)
        if found.type in _LONG_HEADERS and found.size > _LARGEST_HEADER_BYTES:
            raise UnsafeArchiveError("The archive claims a header larger than any is.")
        return found


def _decompressed(stream: IO[bytes]) -> IO[bytes]:
    import bz2
    import gzip
    import lzma

    start = stream.read(6)
    stream.seek(0)
    if start.startswith(b"\x1f\x8b"):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=stream))
    if start.startswith(b"BZh"):
        return cast("IO[bytes]", bz2.BZ2File(stream))
    if start.startswith(b"\xfd7zXZ\0"):
        return cast("IO[bytes]", lzma.LZMAFile(stream))
    return stream


def _bounded(stream: IO[Any], max_bytes: int) -> bytes:
    data: bytes = stream.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise TooLargeError(too_large(max_bytes))
    return data


def too_large(max_bytes: int) -> str:
    """What is said of a file that is larger than the limit."""
    return (
        f"The file is larger than {max_bytes / _MEBIBYTE:g} MB; SPINEXR_MAX_UPLOAD_MB raises the "
        "limit."
    )
