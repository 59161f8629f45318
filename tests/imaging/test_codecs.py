from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames

from spinexr.errors import (
    CorruptDicomError,
    ImageTooLargeError,
    SeveralFramesError,
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
@pytest.mark.parametrize("keep", [0.3, 0.5, 0.99])
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


def repack(dataset: Dataset, frame: bytes) -> Dataset:
    dataset.PixelData = encapsulate([frame])
    return dataset


def frame_of(dataset: Dataset) -> bytes:
    return bytes(next(generate_frames(dataset.PixelData, number_of_frames=1)))


JPEGS = [uid.JPEGLosslessSV1, uid.JPEGLossless, uid.JPEGExtended12Bit]


@pytest.mark.parametrize("syntax", JPEGS)
def test_a_jpeg_cut_at_a_byte_that_looks_like_its_end_is_corrupt(syntax: str) -> None:
    dataset = builders.dataset(transfer_syntax=syntax)
    frame = frame_of(dataset)
    cuts = [n for n in range(600, len(frame) - 2) if frame[n] == 0xD9 and frame[n - 1] != 0xFF]
    assert cuts
    for cut in cuts[:5]:
        with pytest.raises(CorruptDicomError, match="too early"):
            codecs.decode(repack(dataset, frame[: cut + 1]), max_pixels=PIXELS)


@pytest.mark.parametrize("padding", [b"", b"\x00", b"\xff", b"\x00\x00\x00\x00"])
def test_padding_after_the_end_is_no_damage(padding: bytes) -> None:
    dataset = builders.dataset(transfer_syntax=uid.JPEGLosslessSV1)
    padded = repack(dataset, frame_of(dataset) + padding)
    np.testing.assert_array_equal(codecs.decode(padded, max_pixels=PIXELS), builders.pixels())


@pytest.mark.parametrize("syntax", [uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless])
def test_values_beyond_bits_stored_are_corrupt_not_folded(syntax: str) -> None:
    dataset = builders.dataset(
        builders.pixels(bits=16), transfer_syntax=syntax, bits_stored=16,
        attributes={"BitsStored": 12, "HighBit": 11},
    )  # fmt: skip
    with pytest.raises(CorruptDicomError):
        codecs.decode(dataset, max_pixels=PIXELS)


def test_a_codestream_deeper_than_the_header_says_is_corrupt() -> None:
    dataset = builders.dataset(transfer_syntax=uid.JPEG2000Lossless)
    frame = bytearray(frame_of(dataset))
    frame[42] = 23  # SIZ: 24 bits
    with pytest.raises(CorruptDicomError, match="24 bits"):
        codecs.decode(repack(dataset, bytes(frame)), max_pixels=PIXELS)


def test_a_codestream_of_many_channels_is_refused_before_decoding() -> None:
    dataset = builders.dataset(transfer_syntax=uid.JPEG2000Lossless)
    frame = bytearray(frame_of(dataset))
    struct.pack_into(">H", frame, 40, 100)  # SIZ: components
    with pytest.raises(CorruptDicomError, match=r"100 channel\(s\)"):
        codecs.decode(repack(dataset, bytes(frame)), max_pixels=PIXELS)


def jp2_box(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I4s", len(payload) + 8, kind) + payload


def test_jp2_boxes_around_a_codestream_are_read() -> None:
    dataset = builders.dataset(transfer_syntax=uid.JPEG2000Lossless)
    boxed = jp2_box(b"jP  ", b"\r\n\x87\n") + jp2_box(b"jp2c", frame_of(dataset))
    decoded = codecs.decode(repack(dataset, boxed), max_pixels=PIXELS)
    np.testing.assert_array_equal(decoded, builders.pixels())


def test_a_forged_size_in_another_box_does_not_hide_the_real_one() -> None:
    dataset = builders.dataset(transfer_syntax=uid.JPEG2000Lossless)
    frame = bytearray(frame_of(dataset))
    forged = bytes(frame[:60])
    struct.pack_into(">II", frame, 8, 65535, 65535)
    boxed = jp2_box(b"jP  ", b"\r\n\x87\n") + jp2_box(b"uuid", forged)
    boxed += jp2_box(b"jp2c", bytes(frame))
    with pytest.raises(ImageTooLargeError):
        codecs.decode(repack(dataset, boxed), max_pixels=PIXELS)


def test_a_second_frame_that_the_header_does_not_tell_of_is_refused() -> None:
    native = builders.dataset()
    native.PixelData = native.PixelData * 2
    with pytest.raises(SeveralFramesError):
        codecs.decode(native, max_pixels=PIXELS)
    for syntax in (uid.JPEG2000Lossless, uid.JPEGLosslessSV1, uid.RLELossless):
        dataset = builders.dataset(transfer_syntax=syntax)
        frame = frame_of(dataset)
        for with_offsets in (True, False):
            dataset.PixelData = encapsulate([frame, frame], has_bot=with_offsets)
            with pytest.raises(SeveralFramesError):
                codecs.decode(dataset, max_pixels=PIXELS)


def test_one_frame_in_several_fragments_is_one_frame() -> None:
    dataset = builders.dataset(transfer_syntax=uid.JPEG2000Lossless)
    dataset.PixelData = encapsulate([frame_of(dataset)], fragments_per_frame=4)
    np.testing.assert_array_equal(codecs.decode(dataset, max_pixels=PIXELS), builders.pixels())
