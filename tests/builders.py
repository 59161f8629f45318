"""Radiographs and DICOM files made on the fly, good and bad."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import uid
from pydicom.dataset import Dataset

from spinexr.domain import Photometric, Radiograph
from spinexr.phantom import writer

UIDS = writer.Uids.derived_from("tests")


def pixels(
    rows: int = 160, columns: int = 112, *, bits: int = 12, seed: int = 0, dtype: str = "uint16"
) -> npt.NDArray[Any]:
    """(rows, columns) in 0 … 2^bits − 1: a bright column with bands on a dark, noisy ground."""
    rng = np.random.default_rng(seed)
    y = np.linspace(0, 1, rows)[:, None]
    x = np.linspace(-1, 1, columns)[None, :]
    column = np.exp(-((x / 0.25) ** 2)) * (0.7 + 0.3 * np.sin(40 * y))
    image = 0.15 + 0.1 * y + 0.6 * column + rng.normal(0, 0.02, (rows, columns))
    image = np.clip(image, 0, 1)
    image[0, 0], image[-1, -1] = 0, 1  # both ends of the range occur
    top = 2**bits - 1
    values = np.round(image * top)
    if dtype.startswith("int"):
        values -= 2 ** (bits - 1)
    result: npt.NDArray[Any] = values.astype(dtype)
    return result


def dataset(array: npt.NDArray[Any] | None = None, **options: Any) -> Dataset:
    """A spine radiograph; options as in `writer.build`."""
    array = pixels() if array is None else array
    if "bits_stored" not in options and array.dtype.itemsize == 2:
        options["bits_stored"] = 12
    return writer.build(array, uids=UIDS, **options)


def dicom(array: npt.NDArray[Any] | None = None, **options: Any) -> bytes:
    """The file of `dataset`."""
    return writer.to_bytes(dataset(array, **options))


def without_preamble(data: bytes) -> bytes:
    """The bare dataset of an implicit little endian file, as old archives hold it."""
    meta_length = int.from_bytes(data[140:144], "little")
    return data[144 + meta_length :]


MONOCHROME1 = Photometric.MONOCHROME1

LOSSLESS = {
    "implicit": uid.ImplicitVRLittleEndian,
    "explicit": uid.ExplicitVRLittleEndian,
    "big_endian": uid.ExplicitVRBigEndian,
    "deflated": uid.DeflatedExplicitVRLittleEndian,
    "rle": uid.RLELossless,
    "jpeg_lossless": uid.JPEGLossless,
    "jpeg_lossless_sv1": uid.JPEGLosslessSV1,
    "jpeg_ls": uid.JPEGLSLossless,
    "jpeg_2000_lossless": uid.JPEG2000Lossless,
}
LOSSY = {
    "jpeg_extended": uid.JPEGExtended12Bit,
    "jpeg_ls_near": uid.JPEGLSNearLossless,
    "jpeg_2000": uid.JPEG2000,
}


def radiograph(
    stored: npt.NDArray[Any],
    photometric: Photometric = Photometric.MONOCHROME2,
    *,
    inverted: bool = False,
) -> Radiograph:
    """A radiograph of stored values that displays them from the lowest to the highest."""
    low, high = int(stored.min()), int(stored.max())
    levels = np.linspace(0, 1, high - low + 1, dtype=np.float32)
    return Radiograph(stored, low, 1 - levels if inverted else levels, photometric, None, ())
