"""Validators that others wrote: dicom3tools and dcmtk.

Left out where they are not installed, unless TEST_DICOM_TOOLS says that they must be.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from spinexr.domain import ObjectKind


def tool(name: str) -> str:
    """Where the program is."""
    found = shutil.which(name)
    if found is None:
        message = f"{name} is not installed: apt-get install dicom3tools dcmtk"
        if os.environ.get("TEST_DICOM_TOOLS"):
            pytest.fail(message)
        pytest.skip(message)
    return found


def output_of(name: str, *arguments: str | Path) -> str:
    """What the program says on both its streams; it must end well."""
    done = subprocess.run([tool(name), *arguments], capture_output=True, check=False, timeout=60)
    text = (done.stdout + done.stderr).decode("utf-8", "replace")
    assert done.returncode == 0, text
    return text


def errors(file: Path) -> list[str]:
    """What dciodvfy has against an object, warnings aside."""
    done = subprocess.run([tool("dciodvfy"), file], capture_output=True, check=False, timeout=60)
    lines = (done.stdout + done.stderr).decode("utf-8", "replace").splitlines()
    # It names the kind of object that it judges by.
    assert any(line in _KINDS for line in lines), lines
    return [line for line in lines if "Error" in line]


def misread(file: Path, kind: ObjectKind) -> list[str]:
    """What dcmtk has against an object that dciodvfy judges; its programs must read it.

    That a patient has no name, which is allowed, is the one thing that dcmpschk may say.
    """
    if kind is ObjectKind.REPORT:
        output_of("dsrdump", file)
        output_of("dsr2xml", file)
    elif kind is ObjectKind.PRESENTATION:
        said = output_of("dcmpschk", file).splitlines()[1:]
        return [] if said == NAMELESS or "Test passed" in said[-1] else said
    return []


NAMELESS = [
    "W: patientName absent or empty in presentation state",
    "W: Test failed - one or more errors.",
]
_KINDS = ("Comprehensive3DSR", "GrayscaleSoftcopyPresentationState", "SCImage")
