from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydicom import uid
from pydicom.encaps import encapsulate, generate_frames

from spinexr.errors import (
    CorruptDicomError,
    ImageTooLargeError,
    UnsupportedTransferSyntaxError,
)
from spinexr.imaging import codecs, dicom
from tests import builders

PIXELS = 10_000_000


def decode(data: bytes) -> npt.NDArray[Any]:
    return codecs.decode(dicom.parse(data, max_inflated_bytes=PIXELS), max_pixels=PIXELS)


@pytest.mark.parametrize("dtype", ["uint16", "int16"])
@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize("syntax", builders.LOSSLESS.values(), ids=builders.LOSSLESS)
def test_lossless_syntaxes_give_back_every_stored_value(syntax: str, bits: int, dtype: str) -> None:
    pixels = builders.pixels(bits=bits, dtype=dtype)
    decoded = decode(builders.dicom(pixels, transfer_syntax=syntax, bits_stored=bits))
    assert decoded.dtype == pixels.dtype
    np.testing.assert_array_equal(decoded, pixels)


@pytest.mark.parametrize("syntax", builders.LOSSLESS.values(), ids=builders.LOSSLESS)
def test_eight_bit_images_of_odd_size_are_read(syntax: str) -> None:
    pixels = builders.pixels(65, 67, bits=8, dtype="uint8")
    np.testing.assert_array_equal(decode(builders.dicom(pixels, transfer_syntax=syntax)), pixels)


@pytest.mark.parametrize(
    ("syntax", "tolerance"),
    [(uid.JPEGExtended12Bit, 4), (uid.JPEGLSNearLossless, 2), (uid.JPEG2000, 80)],
)
def test_lossy_syntaxes_come_close(syntax: str, tolerance: int) -> None:
    pixels = builders.pixels(bits=12)
    decoded = decode(builders.dicom(pixels, transfer_syntax=syntax))
    assert np.abs(decoded.astype(int) - pixels).max() <= tolerance


def test_baseline_jpeg_comes_close() -> None:
    pixels = builders.pixels(bits=8, dtype="uint8")
    decoded = decode(builders.dicom(pixels, transfer_syntax=uid.JPEGBaseline8Bit))
    assert np.abs(decoded.astype(int) - pixels).max() <= 6


def test_unused_bits_above_bits_stored_do_not_count() -> None:
    pixels = builders.pixels(bits=12)
    dirty = pixels | np.uint16(0xA000)
    np.testing.assert_array_equal(decode(builders.dicom(dirty, bits_stored=12)), pixels)


def test_an_unknown_transfer_syntax_is_named() -> None:
    dataset = builders.dataset(transfer_syntax=uid.JPEG2000Lossless)
    dataset.file_meta.TransferSyntaxUID = uid.MPEG2MPML
    with pytest.raises(UnsupportedTransferSyntaxError, match="MPEG2"):
        codecs.decode(dataset, max_pixels=PIXELS)


def test_truncated_pixels_are_corrupt() -> None:
    dataset = builders.dataset()
    dataset.PixelData = dataset.PixelData[:-100]
    with pytest.raises(CorruptDicomError):
        codecs.decode(dataset, max_pixels=PIXELS)


@pytest.mark.parametrize(
    "syntax", [uid.JPEG2000Lossless, uid.JPEGLSLossless, uid.JPEGLosslessSV1, uid.RLELossless]
)
@pytest.mark.parametrize("keep", [0.3, 0.99])
def test_a_codestream_that_is_cut_off_is_corrupt(syntax: str, keep: float) -> None:
    dataset = builders.dataset(transfer_syntax=syntax)
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    dataset.PixelData = encapsulate([frame[: int(len(frame) * keep)]])
    with pytest.raises(CorruptDicomError):
        codecs.decode(dataset, max_pixels=PIXELS)


def test_a_header_beyond_the_limit_is_refused_before_decoding() -> None:
    dataset = builders.dataset(attributes={"Rows": 65535, "Columns": 65535})
    with pytest.raises(ImageTooLargeError, match="65535 × 65535"):
        codecs.decode(dataset, max_pixels=PIXELS)


def test_a_codestream_beyond_the_limit_is_refused_under_an_honest_header() -> None:
    dataset = builders.dataset(transfer_syntax=uid.JPEG2000Lossless)
    frame = bytearray(next(generate_frames(dataset.PixelData, number_of_frames=1)))
    struct.pack_into(">II", frame, 8, 65535, 65535)
    dataset.PixelData = encapsulate([bytes(frame)])
    with pytest.raises(ImageTooLargeError, match="compressed image data"):
        codecs.decode(dataset, max_pixels=PIXELS)


@pytest.mark.parametrize("syntax", [uid.JPEG2000Lossless, uid.JPEGLSLossless, uid.JPEGLosslessSV1])
def test_a_codestream_that_contradicts_the_header_is_corrupt(syntax: str) -> None:
    dataset = builders.dataset(transfer_syntax=syntax)
    dataset.Rows -= 10
    with pytest.raises(CorruptDicomError, match="160 rows by 112 columns"):
        codecs.decode(dataset, max_pixels=PIXELS)


def test_a_codestream_without_a_header_is_corrupt() -> None:
    dataset = builders.dataset(transfer_syntax=uid.JPEG2000Lossless)
    dataset.PixelData = encapsulate([b"no codestream at all\xff\xd9"])
    with pytest.raises(CorruptDicomError, match="no readable image header"):
        codecs.decode(dataset, max_pixels=PIXELS)
