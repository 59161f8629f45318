"""What a user names → the addresses of inputs, one after the other: no list of them is held.

From folders and archives, files that cannot be radiographs by their names (documents, pictures,
hidden files, a DICOMDIR) are passed over; whatever is named itself, in a csv or in a DICOMDIR, is
an input.
"""

from __future__ import annotations

import csv
import glob
import io
import os
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from spinexr.batch import archives, dicomweb, sources
from spinexr.batch.address import Address, is_remote
from spinexr.errors import BatchError, InputError, LinkLoopError, SpineXRError

_PASSED_OVER = {
    ".json", ".csv", ".tsv", ".txt", ".md", ".xml", ".html", ".htm", ".pdf", ".png", ".jpg",
    ".jpeg", ".gif", ".svg", ".ini", ".log", ".yml", ".yaml", ".py", ".exe", ".inf", ".parquet",
}  # fmt: skip
_LARGEST_DICOMDIR_BYTES = 256 * 1024 * 1024
_COLUMNS = ("path", "file", "address")


@dataclass(frozen=True, slots=True)
class Unlisted:
    """Something that was to be listed and cannot be."""

    address: Address
    error: SpineXRError


Listed = Address | Unlisted


def check(names: Iterable[str]) -> None:
    """Say at once what is not there.

    Raises:
        BatchError: a name is no file, folder, glob or address.
    """
    for name in names:
        if dicomweb.is_dicomweb(name):
            dicomweb.Query.of(name)
            dicomweb.import_client()
        elif is_remote(name):
            sources.file_system(name)
        elif not os.path.lexists(name) and not glob.has_magic(name):
            raise BatchError(f"{name} is not there.")
        elif not os.path.lexists(name) and next(glob.iglob(name, recursive=True), None) is None:  # noqa: PTH207  (any root)
            raise BatchError(f"{name} matches no file.")


def inputs(
    names: Iterable[str], credentials: dicomweb.Credentials | None = None
) -> Iterator[Listed]:
    """The inputs of files, folders, globs, csv files of paths, DICOMDIRs, archives and addresses.

    An input that two names lead to is listed twice; the ledger knows it by its address.

    Args:
        credentials: for archives that speak DICOMweb.
    """
    for name in names:
        if dicomweb.is_dicomweb(name):
            yield from _guarded(dicomweb.without_user(name), _instances(name, credentials))
        elif is_remote(name) and urlsplit(name).scheme != "file":
            yield from _remote(name, credentials)
        else:
            path = url2pathname(urlsplit(name).path) if is_remote(name) else name
            yield from _local(path, credentials)


def _local(path: str, credentials: dicomweb.Credentials | None) -> Iterator[Listed]:
    if not os.path.lexists(path) and glob.has_magic(path):
        for found in glob.iglob(path, recursive=True):  # noqa: PTH207
            yield from _named(os.path.abspath(found), credentials)  # noqa: PTH100  (links stay)
    else:
        yield from _named(os.path.abspath(path), credentials)  # noqa: PTH100


def _instances(name: str, credentials: dicomweb.Credentials | None) -> Iterator[Listed]:
    for found in dicomweb.Archive(credentials).instances(name):
        yield Address(found)


def _named(path: str, credentials: dicomweb.Credentials | None) -> Iterator[Listed]:
    """What a user, or a glob, names itself."""
    if os.path.isdir(path):  # noqa: PTH112
        yield from _folder(path)
    elif PurePosixPath(path).name.upper() == "DICOMDIR":
        yield from _guarded(path, _dicomdir(path))
    elif path.lower().endswith(".csv"):
        yield from _guarded(path, _sheet(path, credentials))
    else:
        yield from _file(path)


def _file(path: str) -> Iterator[Listed]:
    """A file, or what is in it where it is an archive."""
    if kind := archives.kind_of(path):
        yield from _guarded(path, _archive(path, kind))
    else:
        yield Address(path)


def _guarded(path: str, listed: Iterator[Listed]) -> Iterator[Listed]:
    """What is listed before the list cannot go on, and then why."""
    try:
        yield from listed
    except SpineXRError as e:
        yield Unlisted(Address(path), e)
    # csv raises its own, and each file system of fsspec those of its library.
    except Exception as e:
        reason = getattr(e, "strerror", None) or type(e).__name__
        error = InputError(f"It cannot be listed: {reason}.")
        yield Unlisted(Address(path), sources.remote_error(e) if is_remote(path) else error)


def _folder(root: str) -> Iterator[Listed]:
    """The files below a folder. Links to other folders are followed, each target once."""
    followed = [os.path.realpath(root)]
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif entry.is_symlink() and entry.is_dir():
                        target = os.path.realpath(entry.path)
                        if _holds(target, os.path.realpath(folder)) or any(
                            target != known and _holds(target, known) for known in followed
                        ):
                            message = "The link leads back to what is listed; not followed."
                            yield Unlisted(Address(entry.path), LinkLoopError(message))
                        elif not any(_holds(known, target) for known in followed):
                            followed.append(target)
                            waiting.append(entry.path)
                    elif _may_be_one(entry.name) and (entry.is_file() or entry.is_symlink()):
                        yield from _file(entry.path)
        except OSError as e:
            reason = e.strerror or type(e).__name__
            yield Unlisted(Address(folder), InputError(f"The folder cannot be read: {reason}."))


def _holds(folder: str, path: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _may_be_one(name: str) -> bool:
    return (
        not name.startswith(".")
        and name.upper() != "DICOMDIR"
        and PurePosixPath(name).suffix.lower() not in _PASSED_OVER
    )


def _archive(path: str, kind: str) -> Iterator[Listed]:
    stream, size = sources.open_stream(path)
    with closing(stream):
        for member in archives.members(stream, kind, size=size):
            wanted = _may_be_one(PurePosixPath(member).name) and "__MACOSX" not in member
            if wanted or archives.is_unsafe(member):  # the latter to be refused by name
                yield Address(path, member)


def _sheet(path: str, credentials: dicomweb.Credentials | None) -> Iterator[Listed]:
    """The first column, or the one named path, file or address; relative to the sheet's folder."""
    with Path(path).open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        for cell in _cells(stream):
            if is_remote(cell):
                yield from inputs([cell], credentials)
            else:
                yield from _named_in_sheet(
                    os.path.normpath(Path(path).parent / cell)  # links of the folder stay
                )


def _cells(sheet: Iterable[str]) -> Iterator[str]:
    column = 0
    for number, row in enumerate(csv.reader(sheet)):
        if number == 0:
            names = [cell.strip().lower() for cell in row]
            named = next((names.index(c) for c in _COLUMNS if c in names), None)
            if named is not None:
                column = named
                continue
        if len(row) > column and (cell := row[column].strip()):
            yield cell


def _named_in_sheet(path: str) -> Iterator[Listed]:
    if os.path.isdir(path):  # noqa: PTH112
        yield from _folder(path)
    else:
        yield from _file(path)


def _dicomdir(path: str) -> Iterator[Listed]:
    """The images that a DICOMDIR lists (PS3.3 section F.3), next to it."""
    from spinexr.imaging import dicom

    file = Path(path)
    if file.stat().st_size > _LARGEST_DICOMDIR_BYTES:
        raise InputError("The DICOMDIR is larger than any of a disc.")
    dataset = dicom.parse(file.read_bytes(), max_inflated_bytes=_LARGEST_DICOMDIR_BYTES)
    # pydicom converts values on access and raises whatever the conversion meets.
    try:
        for record in dataset.get("DirectoryRecordSequence") or ():
            parts = record.get("ReferencedFileID")
            if record.get("DirectoryRecordType") != "IMAGE" or not parts:
                continue
            names = [parts] if isinstance(parts, str) else [str(p) for p in parts]
            address = Address(str(file.parent.joinpath(*names)))
            if any("/" in n or "\\" in n or n in ("", ".", "..") for n in names):
                message = "The DICOMDIR names a file outside of its folder; not read."
                yield Unlisted(address, InputError(message))
            else:
                yield address
    except SpineXRError:
        raise
    except Exception as e:
        raise InputError("The DICOMDIR is damaged: copy it again.") from e


def _remote(name: str, credentials: dicomweb.Credentials | None) -> Iterator[Listed]:
    yield from _guarded(name, _remote_files(name, credentials))


def _remote_files(name: str, credentials: dicomweb.Credentials | None) -> Iterator[Listed]:
    system, path = sources.file_system(name)
    if name.startswith(("http://", "https://")) and not path.endswith("/"):
        found = iter([path])  # asking whether it is a folder would fetch it, and ? is no glob
    elif glob.has_magic(path):
        found = iter(system.glob(path))
    elif system.isdir(path):
        yield from _remote_folder(system, path, credentials)
        return
    else:
        found = iter([path])
    for file in found:
        yield from _remote_file(system.unstrip_protocol(file), credentials)


def _remote_folder(
    system: Any, root: str, credentials: dicomweb.Credentials | None
) -> Iterator[Listed]:
    """The files below a folder. `walk` of fsspec would pass over what it may not list."""
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            entries = system.ls(folder, detail=True)
        # Each file system of fsspec raises the errors of its library.
        except Exception as e:
            yield Unlisted(Address(system.unstrip_protocol(folder)), sources.remote_error(e))
            continue
        system.invalidate_cache(folder)  # it would keep what it has listed to the end
        for entry in entries:
            name = entry["name"]
            if entry["type"] == "directory":
                if name.rstrip("/") != folder.rstrip("/"):
                    waiting.append(name)
            elif _may_be_one(PurePosixPath(name).name):
                yield from _remote_file(system.unstrip_protocol(name), credentials)


def _remote_file(name: str, credentials: dicomweb.Credentials | None) -> Iterator[Listed]:
    if name.lower().endswith(".csv"):
        stream, _ = sources.open_stream(name)
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
        with closing(stream), text:
            for cell in _cells(text):
                if is_remote(cell):
                    yield from inputs([cell], credentials)
                elif cell.startswith("/"):
                    yield from _named_in_sheet(cell)
                else:
                    yield from _file(f"{name.rpartition('/')[0]}/{cell}")
    else:
        yield from _file(name)
