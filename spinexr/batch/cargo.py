"""What workers on other machines need of a bundle: files that travel by their hash.

A `Depot` is where they lie on a worker's machine. It is asked which ones it lacks, so that each
file travels to each machine once, whatever bundles it is part of; nothing is believed about a file
there until its hash was compared.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from spinexr.batch.work import ENGINES
from spinexr.errors import BatchError
from spinexr.inference.bundle import (
    DETECTION_FOLDER,
    ENSEMBLE_FOLDER,
    MANIFEST,
    Bundle,
    load_bundle,
    sha256_of,
)
from spinexr.inference.engines import EngineOptions
from spinexr.inference.engines.precision import Precision

CHUNK_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True, order=True)
class Kind:
    """Machines that take the same files. `engine_version` is OpenVINO's, empty for torch."""

    engine: str
    engine_version: str
    processor: str


@dataclass(frozen=True, slots=True, order=True)
class Item:
    """A file of a bundle: its name below the bundle's folder, and what is in it."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Cargo:
    """The files for one kind of machine.

    compiled: whether the networks are among them as that machine takes them.
    found: by SHA-256, where each lies here.
    """

    items: tuple[Item, ...]
    compiled: bool
    found: Mapping[str, Path]


def pack(weights: Path, options: EngineOptions, kind: Kind) -> Cargo:
    """What machines of a kind need: compiled networks where there are any that fit, and otherwise
    the checkpoints to compile.

    Raises:
        ModelsNotReadyError: the bundle is not whole.
        BatchError: a file cannot be read.
    """
    bundle = load_bundle(weights)
    store = options.store or weights / ENGINES
    folders = _compiled(bundle, store, options, kind)
    files = {bundle.relative(f): f for f in _always(bundle)}
    for folder in folders or ():
        for file in sorted(folder.iterdir()):
            files[f"{ENGINES}/{folder.name}/{file.name}"] = file
    if folders is not None and options.precision is not Precision.EXACT:
        for file in store.glob(f"{options.precision.value}-*.json"):  # what the gate said
            files[f"{ENGINES}/{file.name}"] = file
    if folders is None or not _told_apart(bundle):
        for file in _checkpoints(bundle):
            files[bundle.relative(file)] = file
    items, found = [], {}
    try:
        for name, file in sorted(files.items()):
            digest = sha256_of(file)
            items.append(Item(name, digest, file.stat().st_size))
            found[digest] = file
    except OSError as e:
        raise BatchError(f"The bundle cannot be sent to the workers: {e}.") from e
    return Cargo(tuple(items), folders is not None, found)


def chunks(file: Path) -> Iterator[bytes]:
    """A file in pieces that travel; an empty file is one empty piece."""
    with file.open("rb") as stream:
        data = stream.read(CHUNK_BYTES)
        yield data
        while data := stream.read(CHUNK_BYTES):
            yield data


def _always(bundle: Bundle) -> Iterator[Path]:
    for folder in (ENSEMBLE_FOLDER, DETECTION_FOLDER):
        if (manifest := bundle.root / folder / MANIFEST).is_file():
            yield manifest
    if bundle.ensemble.familiarity is not None:
        yield bundle.ensemble.familiarity


def _checkpoints(bundle: Bundle) -> Iterator[Path]:
    yield from (m.file for m in bundle.ensemble.members)
    yield bundle.detector.file


def _told_apart(bundle: Bundle) -> bool:
    """Whether manifests alone say which compiled network is which."""
    members = bundle.ensemble.members
    named = all(m.sha256 for m in members) and bundle.detector.sha256
    return bool(named) and not bundle.assumed_profile


def _compiled(
    bundle: Bundle, store: Path, options: EngineOptions, kind: Kind
) -> Sequence[Path] | None:
    if kind.engine != "openvino":
        return None
    from spinexr.inference.engines import openvino_loading

    return openvino_loading.compiled_folders(
        bundle, store=store, precision=options.precision, version=kind.engine_version
    )


class Depot:
    """The files on a worker's machine, below one folder that all of its workers share."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files = root / "files"

    def lacking(self, items: Sequence[Item]) -> list[str]:
        """The hashes of the files that are not here, or not whole."""
        self._files.mkdir(mode=0o700, parents=True, exist_ok=True)
        return [sha256 for sha256 in dict.fromkeys(i.sha256 for i in items) if self._bad(sha256)]

    def put(
        self, sha256: str, piece: bytes, *, offset: int, last: bool, shipment: str = ""
    ) -> None:
        """Take the next piece of a file.

        Args:
            shipment: of whoever sends it; two may send the same file at once.

        Raises:
            BatchError: a piece was lost on the way, or the file is another one.
            OSError: there is no room.
        """
        partial = self._files / f".{_checked(sha256)}-{shipment}.part"
        with partial.open("r+b" if offset else "wb") as stream:
            if stream.seek(0, os.SEEK_END) != offset:
                raise BatchError("A piece of the bundle was lost on its way to a worker.")
            stream.write(piece)
        if last:
            if sha256_of(partial) != sha256:
                partial.unlink()
                raise BatchError("A file of the bundle changed on its way to a worker.")
            partial.replace(self._files / sha256)

    def folder(self, items: Sequence[Item]) -> Path:
        """The bundle's folder, laid out as on the driver's machine.

        Raises:
            BatchError: a file is not here.
            OSError: there is no room.
        """
        text = json.dumps([[i.name, i.sha256] for i in sorted(items)]).encode()
        target = self.root / "bundles" / hashlib.sha256(text).hexdigest()[:16]
        scratch = target.with_name(f".{target.name}-{uuid.uuid4().hex}")
        try:
            for item in items:
                file = scratch.joinpath(*_safe(item.name))
                file.parent.mkdir(parents=True, exist_ok=True)
                _link(self._files / item.sha256, file)
            try:
                scratch.rename(target)
            except OSError:
                if not target.is_dir():
                    raise
                # Made before. What was compiled beside it stays, what was damaged does not.
                for item in items:
                    scratch.joinpath(*_safe(item.name)).replace(target.joinpath(*_safe(item.name)))
        except FileNotFoundError as e:
            raise BatchError("A file of the bundle is missing on a worker.") from e
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return target

    def _bad(self, sha256: str) -> bool:
        file = self._files / _checked(sha256)
        if not file.exists() or sha256_of(file) == sha256:
            return not file.exists()
        file.unlink()
        return True


def _checked(sha256: str) -> str:
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise BatchError("A file of the bundle has no proper hash.")
    return sha256


def _safe(name: str) -> tuple[str, ...]:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise BatchError("A file of the bundle has a name that leads out of its folder.")
    return path.parts


def _link(source: Path, target: Path) -> None:
    """The same bytes under another name; a copy where a file system has no links."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)
