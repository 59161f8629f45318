"""The folder where uploads in flight wait."""

from __future__ import annotations

import tempfile
from pathlib import Path

from spinexr.errors import ConfigurationError

PREFIX = "spool-"


def prepare(folder: Path) -> None:
    """Make the folder, see that files can be written there, and remove what a killed process left.

    Raises:
        ConfigurationError: nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder, prefix=PREFIX):
            pass
        for leftover in folder.glob(f"{PREFIX}*"):
            leftover.unlink(missing_ok=True)
    except OSError as e:
        raise ConfigurationError(
            f"Uploads cannot be kept in {folder} ({e.strerror}); set SPINEXR_UPLOADS to a folder "
            "that can be written."
        ) from e
