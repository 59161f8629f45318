"""Pixels → DICOM files in every transfer syntax that SpineXR reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Self

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import get_encoder

from spinexr.domain import Photometric

# imagecodecs' quality for lossy JPEG: high enough that a round trip stays within a few grey levels.
_JPEG_QUALITY = 98
# Largest error per pixel of near-lossless JPEG-LS, in stored values.
_JPEG_LS_NEAR = 2


@dataclass(frozen=True, slots=True)
class Uids:
    """The identifiers of one instance."""

    study: str
    series: str
    instance: str

    @classmethod
    def derived_from(cls, study: str, series: str = "", instance: str = "") -> Self:
        """The same names give the same identifiers."""
        return cls(
            study=uid.generate_uid(entropy_srcs=["spinexr", study]),
            series=uid.generate_uid(entropy_srcs=["spinexr", study, "series", series]),
            instance=uid.generate_uid(entropy_srcs=["spinexr", study, series, "image", instance]),
        )


def build(
    pixels: npt.NDArray[np.integer[Any]],
    *,
    uids: Uids,
    transfer_syntax: str = uid.ExplicitVRLittleEndian,
    photometric: Photometric = Photometric.MONOCHROME2,
    bits_stored: int | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> Dataset:
    """A DX For Presentation dataset around `pixels`, ready for `to_bytes`.

    Args:
        pixels: uint8, uint16, int8 or int16 (rows, columns); values must fit `bits_stored`.
        transfer_syntax: UID of the encoding of the pixels and the dataset.
        bits_stored: defaults to the width of the array's type.
        attributes: keyword → value, set last, so they may replace anything; a value of None
            removes the attribute.
    """
    signed = pixels.dtype.kind == "i"
    allocated = pixels.dtype.itemsize * 8
    stored = bits_stored or allocated
    syntax = uid.UID(transfer_syntax)

    dataset = Dataset()
    dataset.SOPClassUID = uid.DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = uids.instance
    dataset.StudyInstanceUID = uids.study
    dataset.SeriesInstanceUID = uids.series
    dataset.Modality = "DX"
    dataset.PresentationIntentType = "FOR PRESENTATION"
    # Type 2 in PS3.3: must exist, may be empty.
    for keyword in (
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "PatientSex",
        "StudyDate",
        "StudyTime",
        "AccessionNumber",
        "ReferringPhysicianName",
        "StudyID",
        "SeriesNumber",
        "InstanceNumber",
        "Laterality",
    ):
        setattr(dataset, keyword, None)
    dataset.BodyPartExamined = "SPINE"
    dataset.BurnedInAnnotation = "NO"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = str(photometric)
    dataset.PresentationLUTShape = (
        "INVERSE" if photometric is Photometric.MONOCHROME1 else "IDENTITY"
    )
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated = allocated
    dataset.BitsStored = stored
    dataset.HighBit = stored - 1
    dataset.PixelRepresentation = int(signed)
    dataset.PixelData = _pixel_data(pixels, syntax, stored)
    dataset["PixelData"].VR = "OB" if syntax.is_compressed or allocated == 8 else "OW"
    if syntax.is_compressed and syntax.is_encapsulated:
        dataset["PixelData"].is_undefined_length = True
    for keyword, value in (attributes or {}).items():
        if value is None:
            if keyword in dataset:
                delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)

    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", "1.2")
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", "1.2")
    return dataset


def to_bytes(dataset: Dataset) -> bytes:
    """The dataset as a DICOM file with preamble and file meta information."""
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _pixel_data(pixels: npt.NDArray[np.integer[Any]], syntax: uid.UID, stored: int) -> bytes:
    if not syntax.is_encapsulated:
        order = pixels.dtype.newbyteorder("<" if syntax.is_little_endian else ">")
        raw = pixels.astype(order).tobytes()
        return raw + b"\0" * (len(raw) % 2)
    return encapsulate([_encode_frame(pixels, syntax, stored)])


def _encode_frame(pixels: npt.NDArray[np.integer[Any]], syntax: uid.UID, stored: int) -> bytes:
    if syntax == uid.RLELossless:
        frames = get_encoder(syntax).iter_encode(
            pixels,
            rows=pixels.shape[0],
            columns=pixels.shape[1],
            samples_per_pixel=1,
            bits_allocated=pixels.dtype.itemsize * 8,
            bits_stored=stored,
            pixel_representation=int(pixels.dtype.kind == "i"),
            photometric_interpretation="MONOCHROME2",
            number_of_frames=1,
            encoding_plugin="pydicom",
        )
        return bytes(next(iter(frames)))
    if syntax in (uid.JPEG2000Lossless, uid.JPEG2000):
        lossless = syntax == uid.JPEG2000Lossless
        return bytes(
            imagecodecs.jpeg2k_encode(
                pixels,
                level=0 if lossless else 50,  # lossy: PSNR in dB
                codecformat="j2k",
                bitspersample=stored,
                reversible=lossless,
            )
        )
    # The remaining codecs know no sign: they carry the bits.
    unsigned = np.ascontiguousarray(pixels.view(pixels.dtype.str.replace("i", "u")))
    if syntax in (uid.JPEGLSLossless, uid.JPEGLSNearLossless):
        # Always written with the precision of the array's type, so its sign bits stay in place.
        level = 0 if syntax == uid.JPEGLSLossless else _JPEG_LS_NEAR
        return bytes(imagecodecs.jpegls_encode(unsigned, level=level))
    unsigned = unsigned & unsigned.dtype.type((1 << stored) - 1)
    if syntax in (uid.JPEGLossless, uid.JPEGLosslessSV1):
        predictor = 1 if syntax == uid.JPEGLosslessSV1 else 4
        return bytes(
            imagecodecs.jpeg8_encode(
                unsigned, lossless=True, predictor=predictor, bitspersample=stored
            )
        )
    if syntax in (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit):
        return bytes(imagecodecs.jpeg8_encode(unsigned, _JPEG_QUALITY, bitspersample=stored))
    raise ValueError(f"no encoder for {syntax.name}")
