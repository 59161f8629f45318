"""Pixel decoding: which transfer syntaxes are read, by which decoder, and the guard before it.

pydicom drives the decoding (fragments, signs, unused bits); imagecodecs (BSD) decodes every JPEG
family member and RLE, and is registered with pydicom as a decoding plugin. Uncompressed data are
pydicom's own.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import generate_fragments, generate_frames, parse_basic_offsets
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder

from spinexr.errors import (
    CorruptDicomError,
    ImageTooLargeError,
    SeveralFramesError,
    UnsupportedTransferSyntaxError,
)

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
_LARGE = 12_000_000  # pixels, from which decoding may need hundreds of megabytes
_FRAME_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff")  # JPEG and JPEG-LS, JPEG 2000

# What pydicom asks of a plugin module.
DECODER_DEPENDENCIES = dict.fromkeys(
    (*_JPEG, *_JPEG_LS, *_JPEG_2000, uid.RLELossless), ("imagecodecs",)
)

_threads = 1


def use_threads(threads: int) -> None:
    """Let decoders that can use several threads, which is JPEG 2000's, use so many."""
    global _threads
    _threads = threads


def is_available(transfer_syntax: str) -> bool:
    """Whether this plugin decodes the transfer syntax (asked by pydicom)."""
    return transfer_syntax in DECODER_DEPENDENCIES


def decode_frame(src: bytes, runner: DecodeRunner) -> bytes:
    """Decode one encoded frame to raw samples (called by pydicom)."""
    syntax = runner.transfer_syntax
    if syntax == uid.RLELossless:
        return _rle_frame(src, runner)
    if syntax in _JPEG_2000:
        frame = imagecodecs.jpeg2k_decode(_jpeg_2000_codestream(src), numthreads=_threads)
    elif syntax in _JPEG_LS:
        frame = imagecodecs.jpegls_decode(src)
    else:
        frame = imagecodecs.jpeg8_decode(src)
    if frame.shape != (runner.rows, runner.columns):
        raise ValueError(f"decoded {frame.shape}, expected {(runner.rows, runner.columns)}")
    _check_range(frame, runner.bits_stored, signed=bool(runner.pixel_representation))
    # The container follows the codestream's precision, which may be narrower than BitsAllocated.
    runner.set_option("bits_allocated", 8 * frame.dtype.itemsize)
    return bytes(np.ascontiguousarray(frame).data)


def _rle_frame(src: bytes, runner: DecodeRunner) -> bytes:
    """PS3.5 Annex G: one run-length segment for each byte of a sample, never beyond them."""
    size = runner.bits_allocated // 8
    expected = runner.rows * runner.columns * size
    raw = imagecodecs.dicomrle_decode(src, dtype=np.dtype(f"<u{size}"), out=expected)
    if len(raw) != expected:
        raise ValueError(f"decoded {len(raw)} bytes, expected {expected}")
    return bytes(raw)


def _check_range(frame: npt.NDArray[Any], bits_stored: int, *, signed: bool) -> None:
    """pydicom cuts values to BitsStored, which would fold bright pixels into dark ones."""
    limit = 1 << bits_stored
    views = [frame]
    if signed and frame.dtype.kind == "u":  # codecs without a sign carry two's complement
        views.append(frame.view(frame.dtype.str.replace("u", "i")))
    for view in views:
        low, high = (-limit // 2, limit // 2) if view.dtype.kind == "i" else (0, limit)
        if low <= int(view.min()) and int(view.max()) < high:
            return
    raise ValueError(f"values exceed the {bits_stored} bits stored")


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
        if syntax.is_encapsulated:
            _check_one_encapsulated_frame(dataset, rle=syntax == uid.RLELossless)
        else:
            _check_one_native_frame(dataset, rows * columns)
        if syntax in DECODER_DEPENDENCIES and syntax != uid.RLELossless:
            _check_codestream(dataset, rows, columns, max_pixels)
        array = _decoded(dataset, syntax)
    except (ImageTooLargeError, CorruptDicomError, SeveralFramesError, MemoryError):
        raise
    # Decoders and pydicom raise nearly anything on damaged data, RuntimeError to MemoryError.
    except Exception as e:
        # Native decoders do not say that it was memory they lacked.
        hint = (
            " Or it is too large for the memory that reading may use here."
            if rows * columns > _LARGE
            else ""
        )
        raise CorruptDicomError(
            f"The image data (7FE0,0010) could not be decoded as {syntax.name}. "
            f"The file is damaged or incomplete: export or copy it again.{hint}"
        ) from e
    if array.shape != (rows, columns) or array.dtype.kind not in "iu":
        raise CorruptDicomError(
            f"The image data (7FE0,0010) decoded to {array.shape}, "
            f"but the header says {rows} rows by {columns} columns."
        )
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _decoded(dataset: Dataset, syntax: uid.UID) -> npt.NDArray[Any]:
    decoder = get_decoder(syntax)
    plugin = _PLUGIN if syntax in DECODER_DEPENDENCIES else ""
    try:
        array, _ = decoder.as_array(dataset, index=0, raw=True, decoding_plugin=plugin)
    except (ValueError, RuntimeError):
        if syntax != uid.RLELossless:
            raise
        # Some segments run on beyond the image, which pydicom's slower decoder forgives.
        array, _ = decoder.as_array(dataset, index=0, raw=True, decoding_plugin="pydicom")
    return array


def _check_one_encapsulated_frame(dataset: Dataset, *, rle: bool) -> None:
    """Refuse a second frame that NumberOfFrames does not tell of."""
    stream = BytesIO(dataset.PixelData)
    offsets = parse_basic_offsets(stream)
    # An RLE frame is one fragment (PS3.5 A.4.2); a JPEG frame may be split, but begins only once.
    first = [f for f in generate_fragments(stream) if rle or f[:3] in _FRAME_STARTS]
    if len(offsets) > 1 or len(first) > 1:
        raise SeveralFramesError(
            "The image data (7FE0,0010) hold several frames; send one radiograph per file."
        )


def _check_one_native_frame(dataset: Dataset, pixels: int) -> None:
    """As above; a little padding is common."""
    one = pixels * int(dataset.BitsAllocated) // 8
    if len(dataset.PixelData) >= 2 * one:
        raise SeveralFramesError(
            f"The image data (7FE0,0010) have {len(dataset.PixelData)} bytes, room for several "
            f"images of the {one} bytes that the header says; send one radiograph per file."
        )


def _check_codestream(dataset: Dataset, rows: int, columns: int, max_pixels: int) -> None:
    """Refuse before decoding what is cut off, has several channels, or another size or depth.

    A codestream may claim 65535 × 65535 under honest-looking tags.
    """
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    # All three families end with FFD9, then padding. JPEG decoders make up what is cut off.
    if not frame.rstrip(b"\x00\xff").endswith(b"\xff\xd9"):
        raise CorruptDicomError(
            "The compressed image data (7FE0,0010) end too early. "
            "The file is incomplete: export or copy it again."
        )
    claimed = codestream_header(frame)
    if claimed is None:
        raise CorruptDicomError(
            "The compressed image data (7FE0,0010) have no readable image header. "
            "The file is damaged or incomplete: export or copy it again."
        )
    _refuse_too_large(claimed.rows, claimed.columns, max_pixels, "the compressed image data")
    if (claimed.rows, claimed.columns) != (rows, columns):
        raise CorruptDicomError(
            f"The compressed image data (7FE0,0010) are {claimed.rows} rows by {claimed.columns} "
            f"columns, but the header says {rows} by {columns}."
        )
    allocated = int(dataset.BitsAllocated)
    if claimed.components != 1 or not 1 <= claimed.precision <= allocated:
        raise CorruptDicomError(
            f"The compressed image data (7FE0,0010) have {claimed.components} channel(s) of "
            f"{claimed.precision} bits, but the header says one of at most {allocated}."
        )


def _refuse_too_large(rows: int, columns: int, max_pixels: int, where: str) -> None:
    if rows * columns > max_pixels:
        raise ImageTooLargeError(
            f"According to {where} the image is {columns} × {rows} pixels; "
            f"at most {max_pixels / 1e6:g} megapixels are accepted. Export it at a smaller size, "
            "or ask whoever runs SpineXR to allow more."
        )


@dataclass(frozen=True, slots=True)
class CodestreamHeader:
    """What a codestream claims to hold; subsampled channels count as several."""

    rows: int
    columns: int
    components: int
    precision: int


def codestream_header(frame: bytes) -> CodestreamHeader | None:
    """What a JPEG, JPEG-LS or JPEG 2000 frame claims, None when that is unreadable.

    JPEG: the frame header, ITU-T T.81 B.2.2 (JPEG-LS: T.87 C.2.2). JPEG 2000: the SIZ marker
    segment, ITU-T T.800 A.5.1.
    """
    if frame[:2] == b"\xff\xd8":
        return _jpeg_header(frame)
    stream = _jpeg_2000_codestream(frame)
    if stream[:4] != b"\xff\x4f\xff\x51" or len(stream) < 45:
        return None
    width, height, x0, y0 = struct.unpack_from(">IIII", stream, 8)
    components, depth, dx, dy = struct.unpack_from(">HBBB", stream, 40)
    if height <= y0 or width <= x0:
        return None
    if (dx, dy) != (1, 1):
        components += 1
    return CodestreamHeader(height - y0, width - x0, components, (depth & 0x7F) + 1)


def _jpeg_2000_codestream(frame: bytes) -> bytes:
    """The codestream itself: DICOM forbids JP2 boxes around it, and files have them (T.800 I.4)."""
    if frame[4:8] != b"jP  ":
        return frame
    at = 0
    while at + 8 <= len(frame):
        length, kind = struct.unpack_from(">I4s", frame, at)
        start = at + 8
        if length == 1 and at + 16 <= len(frame):
            (length,) = struct.unpack_from(">Q", frame, at + 8)
            start = at + 16
        end = len(frame) if length == 0 else at + length
        if end <= at + 7:
            break
        if kind == b"jp2c":
            return frame[start:end]
        at = end
    return b""


def _jpeg_header(frame: bytes) -> CodestreamHeader | None:
    at = 2
    while at + 10 <= len(frame):
        if frame[at] != 0xFF:
            return None
        marker = frame[at + 1]
        if marker == 0xFF:  # fill byte, B.1.1.2
            at += 1
            continue
        # SOF0–SOF15 without DHT (C4), JPG (C8) and DAC (CC); SOF55 (F7) is JPEG-LS.
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            precision, rows, columns, components = struct.unpack_from(">BHHB", frame, at + 4)
            return CodestreamHeader(rows, columns, components, precision) if rows else None
        at += 2 + int(struct.unpack_from(">H", frame, at + 2)[0])
    return None
