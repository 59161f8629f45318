"""The files that the benchmark sends: one phantom, in several encodings and sizes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom import uid

from spinexr.datasets import phantoms, vindr
from spinexr.imaging import reader
from spinexr.phantom import writer
from spinexr.processors import available_threads

ROWS, COLUMNS = 2455, 1606  # the mean size in VinDr-SpineXR (Nguyen et al., MICCAI 2021)
BITS = 12
SYNTAXES = {
    "uncompressed": uid.ExplicitVRLittleEndian,
    "JPEG 2000": uid.JPEG2000Lossless,
    "JPEG-LS": uid.JPEGLSLossless,
}
ALL_SYNTAXES = {**SYNTAXES, "RLE": uid.RLELossless}
_MAX_PIXELS = 100_000_000

Stored = npt.NDArray[np.integer[Any]]


def phantom() -> Stored:
    """The stored values of one phantom radiograph, uint16 (ROWS, COLUMNS)."""
    with tempfile.TemporaryDirectory(prefix="spinexr-benchmark-") as folder:
        root = Path(folder) / "phantoms"
        plan = phantoms.Plan(root, studies=2, seed=1, rows=ROWS, columns=COLUMNS)
        for _ in phantoms.generate(plan, workers=1):
            pass
        image = vindr.read(root, parts=("train",)).images[0]
        stored = reader.read(image.file.read_bytes(), max_pixels=_MAX_PIXELS).stored
    top = (1 << BITS) - 1
    scaled = (stored.astype(np.float64) - stored.min()) / float(np.ptp(stored)) * top
    values: Stored = np.rint(scaled).astype(np.uint16)
    return values


def few(root: Path) -> list[Path]:
    """A few small phantoms, written below an empty folder, to calibrate by."""
    plan = phantoms.Plan(root, studies=16, seed=2, rows=640, columns=424, test_share=0.1)
    for _ in phantoms.generate(plan, workers=available_threads()):
        pass
    return [image.file for image in vindr.read(root, parts=("train",)).images]


def encoded(stored: Stored, syntax: str) -> bytes:
    """A DICOM file of stored values.

    Args:
        syntax: a name in ALL_SYNTAXES.
    """
    dataset = writer.build(
        stored,
        uids=writer.Uids.derived_from("benchmark"),
        transfer_syntax=ALL_SYNTAXES[syntax],
        bits_stored=BITS,
    )
    return writer.to_bytes(dataset)


def resized(stored: Stored, megapixels: float) -> Stored:
    """The same image with so many pixels, its noise about as strong."""
    scale = (megapixels * 1e6 / stored.size) ** 0.5
    size = (round(stored.shape[1] * scale), round(stored.shape[0] * scale))
    grown = np.asarray(
        Image.fromarray(stored.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    )
    noise = np.random.default_rng(0).normal(0, 2, grown.shape)
    return np.clip(np.rint(grown + noise), 0, (1 << BITS) - 1).astype(np.uint16)
