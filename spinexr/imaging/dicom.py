"""Bytes → pydicom Dataset, for files as they are found: no preamble, no file meta, deflated."""

from __future__ import annotations

import logging
import struct
import warnings
import zlib
from io import SEEK_CUR, BytesIO
from pathlib import Path

from pydicom import config, uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import dcmread, read_dataset

from spinexr.errors import CorruptDicomError, EmptyFileError, ImageTooLargeError, NotDicomError

# pydicom reports odd values by quoting them, and a quoted value can be a patient's name: its log
# records and warnings must not reach a log. What matters is raised as an error here.
config.settings.reading_validation_mode = config.IGNORE
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")

_PREAMBLE = 128
_MAGIC = b"DICM"
_ENCAPSULATED_PIXELS = b"\xe0\x7f\x10\x00OB\x00\x00\xff\xff\xff\xff"  # the tag, of undefined length
_DAMAGED = "The file is damaged or incomplete: export or copy it again."


def parse(data: bytes, *, max_inflated_bytes: int) -> Dataset:
    """Parse one DICOM file; the result always has a `file_meta.TransferSyntaxUID`.

    Args:
        data: the whole file.
        max_inflated_bytes: the most that a deflated dataset may unpack to.

    Raises:
        EmptyFileError: no bytes at all.
        NotDicomError: nothing in the bytes says DICOM.
        CorruptDicomError: DICOM that cannot be parsed.
        ImageTooLargeError: a deflated dataset beyond the limit.
        MemoryError: the limit of memory is reached.
    """
    if not data:
        raise EmptyFileError("The file has no bytes. Choose another file, or export it again.")
    has_magic = data[_PREAMBLE : _PREAMBLE + 4] == _MAGIC
    if not has_magic and not _starts_like_a_dataset(data):
        raise NotDicomError(
            "The file does not start like DICOM: there is no DICM marker at byte 128 and no "
            "dataset at its beginning. Export the radiograph as DICOM, not as a picture."
        )
    try:
        dataset = _parse_deflated(data, max_inflated_bytes)
        if dataset is None:
            dataset = dcmread(BytesIO(data), force=True)
        _complete_file_meta(dataset)
    except (CorruptDicomError, ImageTooLargeError, MemoryError):
        raise
    # dcmread raises RecursionError, OSError, TypeError, NotImplementedError and more on damage.
    except Exception as e:
        raise CorruptDicomError(f"The DICOM header cannot be parsed. {_DAMAGED}") from e
    if "PixelData" not in dataset and _ENCAPSULATED_PIXELS in data:
        # pydicom drops an element of undefined length that does not end.
        raise CorruptDicomError(f"The file ends inside its image data (7FE0,0010). {_DAMAGED}")
    if not has_magic and "SOPClassUID" not in dataset and "PixelData" not in dataset:
        raise NotDicomError("The file looked like DICOM at first but holds no DICOM object.")
    return dataset


def parse_header(file: Path) -> Dataset:
    """The attributes of a DICOM file before its pixels, for looking through many files.

    Raises:
        CorruptDicomError: the file cannot be parsed.
        OSError: it cannot be opened.
    """
    try:
        return dcmread(file, stop_before_pixels=True)
    except OSError:
        raise
    # As in `parse`.
    except Exception as e:
        raise CorruptDicomError(f"The DICOM header cannot be parsed. {_DAMAGED}") from e


def _starts_like_a_dataset(data: bytes) -> bool:
    """Whether the first tag is in group 0002 or 0008, as in files without preamble."""
    if len(data) < 8:
        return False
    return any(
        struct.unpack_from(f"{order}H", data)[0] in (0x0002, 0x0008)
        and struct.unpack_from(f"{order}H", data, 2)[0] <= 0x0100
        for order in "<>"
    )


def _parse_deflated(data: bytes, max_inflated_bytes: int) -> Dataset | None:
    """The dataset of a deflated file, None for any other; dcmread inflates without bound."""
    stream = BytesIO(data)
    # dcmread reads file meta at the start too, where the preamble is missing.
    stream.seek(_PREAMBLE + 4 if data[_PREAMBLE : _PREAMBLE + 4] == _MAGIC else 0)
    if stream.read(2) != b"\x02\x00":
        return None
    stream.seek(-2, SEEK_CUR)
    # The file meta group is always explicit little endian (PS3.10 section 7.1).
    elements = read_dataset(
        stream,
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=lambda tag, _vr, _length: tag.group != 2,
    )
    if elements.get("TransferSyntaxUID") != uid.DeflatedExplicitVRLittleEndian:
        return None
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)  # raw deflate, PS3.5 section A.5
    inflated = inflater.decompress(stream.read(), max_inflated_bytes)
    if inflater.unconsumed_tail:
        raise ImageTooLargeError(
            f"The deflated file unpacks to more than {max_inflated_bytes / 1e6:.0f} MB, "
            "which is more than any accepted radiograph."
        )
    if not inflater.eof:
        raise CorruptDicomError(f"The deflated data end too early. {_DAMAGED}")
    dataset = read_dataset(BytesIO(inflated), is_implicit_VR=False, is_little_endian=True)
    dataset.file_meta = FileMetaDataset(elements)
    dataset.set_original_encoding(is_implicit_vr=False, is_little_endian=True)
    return dataset


def _complete_file_meta(dataset: Dataset) -> None:
    """Fill in the transfer syntax where the file has none, from how the dataset was written."""
    if not hasattr(dataset, "file_meta"):
        dataset.file_meta = FileMetaDataset()
    if syntax := dataset.file_meta.get("TransferSyntaxUID"):
        if not isinstance(syntax, uid.UID):
            raise CorruptDicomError(f"The Transfer Syntax (0002,0010) is not one UID. {_DAMAGED}")
        return
    implicit, little = dataset.original_encoding
    if implicit:
        dataset.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian
    else:
        explicit = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = explicit
