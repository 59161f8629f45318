from __future__ import annotations

import zlib

import numpy as np
import pytest
from pydicom import uid

from spinexr.errors import (
    CorruptDicomError,
    EmptyFileError,
    ImageTooLargeError,
    NotDicomError,
    SpineXRError,
    UnanalysableError,
)
from spinexr.imaging import dicom, reader
from tests import builders

LIMIT = 10_000_000


def test_no_bytes_are_an_empty_file() -> None:
    with pytest.raises(EmptyFileError):
        dicom.parse(b"", max_inflated_bytes=LIMIT)


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n" + bytes(200),
        b"%PDF-1.7 " + bytes(200),
        b"x",
        bytes(1000),
        b"hello world " * 100,
    ],
)
def test_other_files_are_not_dicom(data: bytes) -> None:
    with pytest.raises(NotDicomError):
        dicom.parse(data, max_inflated_bytes=LIMIT)


def test_bytes_that_only_begin_like_a_dataset_are_not_dicom() -> None:
    with pytest.raises((NotDicomError, CorruptDicomError)):
        dicom.parse(b"\x08\x00\x05\x00" + bytes(range(256)), max_inflated_bytes=LIMIT)


def test_a_file_without_preamble_is_read() -> None:
    data = builders.dicom(transfer_syntax=uid.ImplicitVRLittleEndian)
    dataset = dicom.parse(builders.without_preamble(data), max_inflated_bytes=LIMIT)
    assert dataset.Modality == "DX"
    assert dataset.file_meta.TransferSyntaxUID == uid.ImplicitVRLittleEndian


def test_a_file_without_preamble_in_explicit_encoding_is_read() -> None:
    data = builders.without_preamble(builders.dicom())
    radiograph = reader.read(data, max_pixels=LIMIT)
    np.testing.assert_array_equal(radiograph.stored, builders.pixels())


def test_magic_followed_by_nonsense_is_refused() -> None:
    with pytest.raises(UnanalysableError):
        reader.read(bytes(128) + b"DICM" + b"\xff" * 300, max_pixels=LIMIT)


@pytest.mark.parametrize("preamble", [True, False])
def test_a_deflated_bomb_is_refused_without_being_unpacked(preamble: bool) -> None:
    data = builders.dicom(transfer_syntax=uid.DeflatedExplicitVRLittleEndian)
    start = 144 + int.from_bytes(data[140:144], "little")
    deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    bomb = b"".join(deflater.compress(bytes(1_000_000)) for _ in range(50)) + deflater.flush()
    with pytest.raises(ImageTooLargeError, match="unpacks to more than"):
        dicom.parse((data[:start] + bomb)[0 if preamble else 132 :], max_inflated_bytes=LIMIT)


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_truncated_deflated_data_are_corrupt(keep: float) -> None:
    data = builders.dicom(transfer_syntax=uid.DeflatedExplicitVRLittleEndian)
    with pytest.raises(CorruptDicomError):
        dicom.parse(data[: int(len(data) * keep)], max_inflated_bytes=LIMIT)


def test_deeply_nested_sequences_do_not_escape_as_recursion_errors() -> None:
    # 3,000 undefined-length sequences of undefined-length items, one in the other.
    nested = b"\x40\x00\x55\x05\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 3000
    data = builders.dicom(transfer_syntax=uid.ImplicitVRLittleEndian)
    start = 144 + int.from_bytes(data[140:144], "little")
    with pytest.raises(CorruptDicomError):
        dicom.parse(data[:start] + nested, max_inflated_bytes=LIMIT)


@pytest.mark.parametrize("value", [b"1.2.840.10008.1\\2.1", b"\\" * 17])
def test_a_transfer_syntax_that_is_not_one_uid_is_corrupt(value: bytes) -> None:
    data = builders.dicom()
    original = b"1.2.840.10008.1.2.1\x00"
    assert original in data
    with pytest.raises(SpineXRError):
        reader.read(data.replace(original, value.ljust(20, b"\x00")), max_pixels=LIMIT)


@pytest.mark.parametrize("syntax", [uid.JPEG2000Lossless, uid.RLELossless])
def test_a_file_that_ends_inside_its_compressed_image_is_corrupt(syntax: str) -> None:
    data = builders.dicom(transfer_syntax=syntax)
    with pytest.raises(CorruptDicomError, match="ends inside"):
        dicom.parse(data[:-2000], max_inflated_bytes=LIMIT)
