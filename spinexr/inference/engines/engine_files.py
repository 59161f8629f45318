"""Compiled networks on disk: found by what they depend on, whole or not at all.

Each is a folder named after a hash of its key, with the network in OpenVINO's own format and
`about.json`: the key, the SHA-256 of the other files and of its own words, and whatever the one who
made it measured.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spinexr.inference.bundle import sha256_of

NETWORK = "network.xml"
_ABOUT = "about.json"
_WORDS = "about_sha256"
# Raised when conversion changes what the same checkpoint becomes.
_CONVERSION = 2


# Writes a network to a path and says what there is to know of it.
Writer = Callable[[Path], Mapping[str, Any]]


class EngineFileError(ValueError):
    """An engine file is damaged; the message may be shown."""


@dataclass(frozen=True, slots=True)
class EngineKey:
    """Everything that a compiled network depends on."""

    architecture: str
    checkpoint_sha256: str
    input_size: int
    precision: str
    engine_version: str
    conversion: int = _CONVERSION

    @property
    def folder_name(self) -> str:
        text = json.dumps(asdict(self), sort_keys=True)
        return f"{self.architecture}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


@dataclass(frozen=True, slots=True)
class EngineFile:
    """A compiled network and what is known of it."""

    network: Path
    about: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class EngineStore:
    """The compiled networks below one folder."""

    root: Path

    def holds(self, key: EngineKey) -> bool:
        """Whether there is something of this key, sound or not."""
        return (self.root / key.folder_name).is_dir()

    def find(self, key: EngineKey) -> EngineFile | None:
        """The network of a key, None where there is none.

        Raises:
            EngineFileError: it is there but damaged, or of another key.
        """
        folder = self.root / key.folder_name
        if not folder.is_dir():
            return None
        try:
            about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
            digests = about["sha256"]
            if about["key"] != asdict(key) or NETWORK not in digests:
                raise EngineFileError(f"{folder.name} belongs to another network.")
            if about.pop(_WORDS) != _digest_of(about):
                raise EngineFileError(f"{folder.name}/{_ABOUT} was changed.")
            for name, digest in digests.items():
                if Path(name).name != name or sha256_of(folder / name) != digest:
                    raise EngineFileError(f"{folder.name}/{name} was changed or cut off.")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
            if isinstance(e, EngineFileError):
                raise
            raise EngineFileError(f"{folder.name} is damaged.") from e
        return EngineFile(folder / NETWORK, about)

    def add(self, key: EngineKey, write: Writer) -> EngineFile:
        """Make and keep a network; where another process was faster, its one is taken.

        Args:
            write: called with the path of the network's file in a folder of its own; what it
                returns is kept beside the network.

        Raises:
            OSError: the store cannot be written; nothing is left behind.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        scratch = self.root / f".{key.folder_name}-{uuid.uuid4().hex}"
        target = self.root / key.folder_name
        scratch.mkdir()
        try:
            about = write(scratch / NETWORK)
            digests = {f.name: sha256_of(f) for f in sorted(scratch.iterdir())}
            words = {**about, "key": asdict(key), "sha256": digests}
            words[_WORDS] = _digest_of(words)
            text = json.dumps(words, indent=2, ensure_ascii=False)
            (scratch / _ABOUT).write_text(text + "\n", encoding="utf-8")
            try:
                scratch.rename(target)
            except OSError:
                if not target.is_dir():
                    raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        found = self.find(key)
        if found is None:
            raise EngineFileError(f"{target.name} vanished while it was made.")
        return found

    def remove(self, key: EngineKey) -> None:
        """Forget a network, damaged or not."""
        shutil.rmtree(self.root / key.folder_name, ignore_errors=True)


def _digest_of(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
