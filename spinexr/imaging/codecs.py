"""Pixel decoding: which transfer syntaxes are read, by which decoder, and the guard before it.

pydicom drives the decoding (fragments, signs, unused bits); imagecodecs (BSD) decodes every JPEG
family member and is registered with pydicom as a decoding plugin. RLE and uncompressed data are
pydicom's own.
"""

from __future__ import annotations

import struct
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder

from spinexr.errors import CorruptDicomError, ImageTooLargeError, UnsupportedTransferSyntaxError

_JPEG = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1)
_JPEG_LS = (uid.JPEGLSLossless, uid.JPEGLSNearLossless)
_JPEG_2000 = (uid.JPEG2000Lossless, uid.JPEG2000)
_UNCOMPRESSED = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
)
SUPPORTED_TRANSFER_SYNTAXES = (*_UNCOMPRESSED, uid.RLELossless, *_JPEG, *_JPEG_LS, *_JPEG_2000)

_PLUGIN = "imagecodecs"

# What pydicom asks of a plugin module.
DECODER_DEPENDENCIES = dict.fromkeys((*_JPEG, *_JPEG_LS, *_JPEG_2000), ("imagecodecs",))


def is_available(transfer_syntax: str) -> bool:
    """Whether this plugin decodes the transfer syntax (asked by pydicom)."""
    return transfer_syntax in DECODER_DEPENDENCIES


def decode_frame(src: bytes, runner: DecodeRunner) -> bytes:
    """Decode one encoded frame to raw samples (called by pydicom)."""
    syntax = runner.transfer_syntax
    if syntax in _JPEG_2000:
        frame = imagecodecs.jpeg2k_decode(src)
    elif syntax in _JPEG_LS:
        frame = imagecodecs.jpegls_decode(src)
    else:
        frame = imagecodecs.jpeg8_decode(src)
    if frame.shape != (runner.rows, runner.columns):
        raise ValueError(f"decoded {frame.shape}, expected {(runner.rows, runner.columns)}")
    # The container follows the codestream's precision, which may be narrower than BitsAllocated.
    runner.set_option("bits_allocated", 8 * frame.dtype.itemsize)
    return bytes(np.ascontiguousarray(frame).data)


for _syntax in DECODER_DEPENDENCIES:
    _decoder = get_decoder(_syntax)
    if _PLUGIN not in _decoder.available_plugins:
        _decoder.add_plugin(_PLUGIN, (__name__, "decode_frame"))


def decode(dataset: Dataset, *, max_pixels: int) -> npt.NDArray[np.integer[Any]]:
    """Stored values of a single-frame greyscale image: integer (rows, columns), signed or not.

    Raises:
        UnsupportedTransferSyntaxError: no decoder for the transfer syntax.
        ImageTooLargeError: the header or the codestream claims more than `max_pixels`.
        CorruptDicomError: the pixels cannot be decoded or contradict the header.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax not in SUPPORTED_TRANSFER_SYNTAXES:
        raise UnsupportedTransferSyntaxError(
            f"The transfer syntax (0002,0010) is {syntax.name}, which SpineXR does not read. "
            "Export the image uncompressed, or as RLE, JPEG, JPEG-LS or JPEG 2000."
        )
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    _refuse_too_large(rows, columns, max_pixels, "the header")
    try:
        if syntax in DECODER_DEPENDENCIES:
            _check_codestream(dataset, rows, columns, max_pixels)
        array, _ = get_decoder(syntax).as_array(
            dataset,
            index=0,
            raw=True,
            decoding_plugin=_PLUGIN if syntax in DECODER_DEPENDENCIES else "",
        )
    except (ImageTooLargeError, CorruptDicomError):
        raise
    # Decoders and pydicom raise nearly anything on damaged data, RuntimeError to MemoryError.
    except Exception as e:
        raise CorruptDicomError(
            f"The image data (7FE0,0010) could not be decoded as {syntax.name}. "
            "The file is damaged or incomplete: export or copy it again."
        ) from e
    if array.shape != (rows, columns) or array.dtype.kind not in "iu":
        raise CorruptDicomError(
            f"The image data (7FE0,0010) decoded to {array.shape}, "
            f"but the header says {rows} rows by {columns} columns."
        )
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _check_codestream(dataset: Dataset, rows: int, columns: int, max_pixels: int) -> None:
    """Refuse what is cut off, and a size other than the header's, before anything is decoded.

    A codestream may claim 65535 × 65535 under honest-looking tags.
    """
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    # All three families end with FFD9, then padding. JPEG decoders make up what is cut off.
    if not frame.rstrip(b"\x00\xff").endswith(b"\xd9"):
        raise CorruptDicomError(
            "The compressed image data (7FE0,0010) end too early. "
            "The file is incomplete: export or copy it again."
        )
    size = codestream_size(frame)
    if size is None:
        raise CorruptDicomError(
            "The compressed image data (7FE0,0010) has no readable image header. "
            "The file is damaged or incomplete: export or copy it again."
        )
    _refuse_too_large(*size, max_pixels, "the compressed image data")
    if size != (rows, columns):
        raise CorruptDicomError(
            f"The compressed image data (7FE0,0010) is {size[0]} rows by {size[1]} columns, "
            f"but the header says {rows} by {columns}."
        )


def _refuse_too_large(rows: int, columns: int, max_pixels: int, where: str) -> None:
    if rows * columns > max_pixels:
        raise ImageTooLargeError(
            f"According to {where} the image is {columns} × {rows} pixels; "
            f"at most {max_pixels / 1e6:g} megapixels are accepted."
        )


def codestream_size(frame: bytes) -> tuple[int, int] | None:
    """(rows, columns) that a JPEG, JPEG-LS or JPEG 2000 codestream claims, None when unreadable.

    JPEG: the frame header, ITU-T T.81 B.2.2 (JPEG-LS: T.87 C.2.2). JPEG 2000: the SIZ marker
    segment, ITU-T T.800 A.5.1, also inside JP2 boxes, which DICOM forbids and files have.
    """
    if frame[:2] == b"\xff\xd8":
        return _jpeg_size(frame)
    siz = frame.find(b"\xff\x4f\xff\x51", 0, 4096)
    if siz < 0 or len(frame) < siz + 24:
        return None
    width, height, x0, y0 = struct.unpack_from(">IIII", frame, siz + 8)
    return (height - y0, width - x0) if height > y0 and width > x0 else None


def _jpeg_size(frame: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(frame):
        if frame[at] != 0xFF:
            return None
        marker = frame[at + 1]
        if marker == 0xFF:  # fill byte, B.1.1.2
            at += 1
            continue
        # SOF0–SOF15 without DHT (C4), JPG (C8) and DAC (CC); SOF55 (F7) is JPEG-LS.
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            rows, columns = struct.unpack_from(">HH", frame, at + 5)
            return (rows, columns) if rows and columns else None
        at += 2 + int(struct.unpack_from(">H", frame, at + 2)[0])
    return None
