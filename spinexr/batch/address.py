"""Where an input lies: the one name by which ledger, workers and failures know it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """A file, or a member of an archive.

    file: an absolute path, or an address that fsspec opens, such as `memory://a/b.dcm`.
    member: the name inside the archive `file`; empty where it is none.
    """

    file: str
    member: str = ""

    def __str__(self) -> str:
        """Printable: bytes of a name that are not UTF-8 are written out."""
        name = f"{self.file}!/{self.member}" if self.member else self.file
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

    @property
    def remote(self) -> bool:
        """Whether fsspec opens the file, or an archive is asked for it."""
        return is_remote(self.file)


def is_remote(file: str) -> bool:
    """Whether a name is an address and not a path."""
    scheme, separator, _ = file.partition("://")
    return bool(separator) and scheme.replace("+", "").replace("-", "").isalnum()
