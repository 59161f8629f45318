"""What is made once for a test run, by whichever of its processes needs it first.

TEST_SHARED names a folder that keeps it from one run to the next: as long as nothing that makes it
has changed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

if "TEST_SHARED" not in os.environ:
    _FOLDER = tempfile.TemporaryDirectory(prefix="spinexr-tests-")
    os.environ["TEST_SHARED"] = _FOLDER.name  # xdist's processes are begun after this
FOLDER = Path(os.environ["TEST_SHARED"])
ENGINES = FOLDER / "engines"  # compiled networks, apart from those of the working copy


def once(name: str, make: Callable[[Path], None]) -> Path:
    """The folder of this name, which `make` fills. Nothing may be written to it afterwards."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    target, begun = FOLDER / name, FOLDER / f"{name}.begun"
    with FileLock(FOLDER / f"{name}.lock"):
        if not target.exists():
            shutil.rmtree(begun, ignore_errors=True)
            make(begun)
            begun.rename(target)
    return target
