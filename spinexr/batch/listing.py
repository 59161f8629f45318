"""What a user names → the addresses of inputs, one after the other: no list of them is held.

From folders and archives, files that cannot be radiographs by their names (documents, pictures,
hidden files, a DICOMDIR) are passed over; whatever is named itself, in a csv or in a DICOMDIR, is
an input.
"""

from __future__ import annotations

import csv
import errno
import fnmatch
import glob
import io
import os
from collections.abc import Callable, Iterable, Iterator
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


def would_list(name: str, path: Path) -> bool:
    """Whether an input of this name holds the path, or would once the path is there."""
    if dicomweb.is_dicomweb(name) or (is_remote(name) and urlsplit(name).scheme != "file"):
        return False
    plain = url2pathname(urlsplit(name).path) if is_remote(name) else name
    if not glob.has_magic(plain):
        return path.resolve().is_relative_to(Path(plain).resolve())
    wanted = Path(os.path.abspath(plain)).parts  # noqa: PTH100  (links stay)
    given = Path(os.path.abspath(path)).parts  # noqa: PTH100
    if "**" in wanted:
        wanted = wanted[: wanted.index("**")]
    return len(wanted) <= len(given) and all(map(fnmatch.fnmatchcase, given, wanted))


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
    """The files below a folder. Links to other folders are followed, each target once.

    Folders are entered as they are met, so that no more of them are kept than lie above one file.
    """
    followed = [os.path.realpath(root)]
    above: list[tuple[str, os.ScandirIterator[str]]] = []  # type: ignore[name-defined]
    entered: str | None = root
    try:
        while entered is not None or above:
            try:
                if entered is not None:
                    path, entered = entered, None
                    above.append((path, os.scandir(path)))
                path, entries = above[-1]
                entry = next(entries, None)
            except OSError as e:
                yield _unlisted(path, "The folder cannot be read", e)
                if above and above[-1][0] == path:
                    above.pop()[1].close()
                continue
            if entry is None:
                above.pop()[1].close()
                continue
            try:
                is_folder = entry.is_dir(follow_symlinks=False)
                is_link = entry.is_symlink() and entry.is_dir()
            except OSError as e:
                yield _unlisted(entry.path, "The link cannot be followed", e)
                continue
            if is_folder:
                entered = entry.path
            elif is_link:
                target = os.path.realpath(entry.path)
                if _holds(target, os.path.realpath(path)) or any(
                    target != known and _holds(target, known) for known in followed
                ):
                    message = "The link leads back to what is listed; not followed."
                    yield Unlisted(Address(entry.path), LinkLoopError(message))
                elif not any(_holds(known, target) for known in followed):
                    followed.append(target)
                    entered = entry.path
            elif _may_be_one(entry.name) and (entry.is_file() or entry.is_symlink()):
                yield from _file(entry.path)
    finally:
        for _, entries in above:
            entries.close()


def _unlisted(path: str, what: str, error: OSError) -> Unlisted:
    kind = LinkLoopError if error.errno == errno.ELOOP else InputError
    return Unlisted(Address(path), kind(f"{what}: {error.strerror or type(error).__name__}."))


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
        yield from _remote_glob(system, path, credentials)
        return
    elif system.isdir(path):
        yield from _remote_folder(system, path, credentials)
        return
    else:
        found = iter([path])
    for file in found:
        yield from _remote_file(system.unstrip_protocol(file), credentials)


def _remote_glob(
    system: Any, path: str, credentials: dicomweb.Credentials | None
) -> Iterator[Listed]:
    """What a glob matches, and what is below the folders that it matches, one folder after the
    other: fsspec would first make a list of everything."""
    pattern = path.rstrip("/").split("/")
    fixed = next(n for n, part in enumerate(pattern) if glob.has_magic(part))
    deep = "**" in pattern
    above = pattern[: pattern.index("**")] if deep else pattern

    def leads_there(name: str) -> bool:
        return all(map(fnmatch.fnmatchcase, name.rstrip("/").split("/"), above))

    def matches(name: str) -> bool:
        parts = name.split("/")
        below = not deep and len(parts) > len(pattern) and leads_there(name)
        return _fits(parts, pattern) or (below and _may_be_one(parts[-1]))

    root = "/".join(pattern[:fixed])
    yield from _remote_folder(system, root, credentials, enters=leads_there, wanted=matches)


def _fits(parts: list[str], pattern: list[str]) -> bool:
    """Whether a path, by its parts, is one of a glob's; `**` stands for any number of parts."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_fits(parts[n:], pattern[1:]) for n in range(len(parts) + 1))
    return (
        bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])
    )


def _remote_folder(
    system: Any,
    root: str,
    credentials: dicomweb.Credentials | None,
    *,
    enters: Callable[[str], bool] = lambda _folder: True,
    wanted: Callable[[str], bool] = lambda file: _may_be_one(PurePosixPath(file).name),
) -> Iterator[Listed]:
    """The files below a folder. `walk` of fsspec would pass over what it may not list.

    Args:
        enters: whether a folder below is looked into.
        wanted: whether a file is listed.
    """
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            for name, is_folder in _entries(system, folder):
                if is_folder:
                    if name.rstrip("/") != folder.rstrip("/") and enters(name):
                        waiting.append(name)
                elif wanted(name):
                    yield from _remote_file(system.unstrip_protocol(name), credentials)
        # Each file system of fsspec raises the errors of its library.
        except Exception as e:
            yield Unlisted(Address(system.unstrip_protocol(folder)), sources.remote_error(e))


def _entries(system: Any, folder: str) -> Iterator[tuple[str, bool]]:
    """Name of each entry of a folder, and whether it is one: page by page where the store is S3,
    whose folders may hold millions; fsspec would keep them all."""
    if not hasattr(system, "call_s3"):
        for entry in system.ls(folder, detail=True):
            yield entry["name"], entry["type"] == "directory"
        system.invalidate_cache(folder)  # it would keep what it has listed to the end
        return
    bucket, key, _ = system.split_path(folder)
    if not bucket:
        for entry in system.ls(folder, detail=True):
            yield entry["name"], True
        return
    wanted = {"Bucket": bucket, "Prefix": f"{key}/" if key else "", "Delimiter": "/"}
    while True:
        page = system.call_s3("list_objects_v2", **wanted)
        for found in page.get("CommonPrefixes", ()):
            yield f"{bucket}/{found['Prefix'].rstrip('/')}", True
        for found in page.get("Contents", ()):
            if found["Key"] != wanted["Prefix"]:  # an object that stands for the folder
                yield f"{bucket}/{found['Key']}", False
        if not page.get("IsTruncated"):
            return
        wanted["ContinuationToken"] = page["NextContinuationToken"]


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
