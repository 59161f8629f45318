"""Analyses whose objects name no patient, for research destinations.

Nothing is taken out of finished objects: the excerpt of the file that objects are made from is
replaced by one that holds only what is listed here, so what nobody thought of is not in it. Of the
attributes of PS3.15 table E.1-1 that the objects have, names, identifiers and UIDs are replaced,
sex is kept, and all others that the basic profile removes or empties are empty.

pydicom's deid (0.4.13) is not used for it: it keeps every dataset it has seen for the life of the
process, and by its REMOVE ALL the VOI LUT Sequence stays as it is.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from spinexr.analysis import UNFAMILIAR
from spinexr.domain import Analysis, Source
from spinexr.imaging.display import MODALITY_LUT_IGNORED, VOI_LUT_IGNORED, WINDOW_IGNORED
from spinexr.imaging.gate import BODY_PART_UNKNOWN, BURNED_IN, FOR_PROCESSING

NOW = datetime(2000, 1, 1)  # Content Date must be there: one that says nothing
METHOD = "SpineXR: from an excerpt without identity, UIDs by keyed hash"  # LO, 64 at most
_UIDS = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
# Geometry, values and kind of the image; no text that somebody typed.
_KEPT = (
    "SOPClassUID", "PhotometricInterpretation", "PresentationLUTShape", "LossyImageCompression",
    "PatientOrientation", "Laterality", "ImageLaterality", "PatientSex", "InstanceNumber",
    "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "VOILUTSequence", "WindowCenter",
    "WindowWidth", "VOILUTFunction",
)  # fmt: skip
_EXPLAINED = ("LUTExplanation", "ModalityLUTType")
# Others quote the file.
_FIXED_NOTICES = (
    UNFAMILIAR, BODY_PART_UNKNOWN, BURNED_IN, FOR_PROCESSING,
    MODALITY_LUT_IGNORED, VOI_LUT_IGNORED, WINDOW_IGNORED,
)  # fmt: skip


def deidentified(analysis: Analysis, *, salt: bytes, body_parts: Collection[str]) -> Analysis:
    """The same analysis of nobody: the same patient and UIDs under the same salt.

    Args:
        salt: secret; whoever has it can tell whether a pseudonym is a given patient's.
        body_parts: values of Body Part Examined that are known to be no name.
    """
    source = analysis.radiograph.source
    if source is None:
        return analysis
    old = source.dataset
    new = Dataset()
    new.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _KEPT:
        if keyword in old:
            new[keyword] = old[keyword]
    for element in new.iterall():
        if element.keyword in _EXPLAINED:
            element.value = "US"
    if "WindowCenter" in new:
        new.WindowCenterWidthExplanation = None
    if "RescaleSlope" in new:
        new.RescaleType = "US"
    if old.get("BodyPartExamined") in body_parts:
        new.BodyPartExamined = old.BodyPartExamined
    for keyword in _UIDS:
        if keyword in old:
            setattr(new, keyword, _uid(str(old[keyword].value), salt))
    issuer, patient = (str(old.get(k, "")) for k in ("IssuerOfPatientID", "PatientID"))
    # Without an ID the study stands for the patient: two studies of one may then look like two.
    who = f"{issuer}\n{patient}" if patient.strip() else str(old.get("StudyInstanceUID", ""))
    new.PatientID = new.PatientName = f"SPX-{_digest('patient', who, salt)[:12].hex().upper()}"
    stream = DicomBytesIO()
    stream.is_implicit_VR, stream.is_little_endian = False, True
    write_dataset(stream, new)
    notices = tuple(n for n in analysis.notices if n in _FIXED_NOTICES)
    radiograph = replace(analysis.radiograph, source=Source(stream.getvalue()), attributes=())
    return replace(analysis, radiograph=radiograph, notices=notices)


def marked(dataset: Dataset) -> Dataset:
    """An object of such an analysis, which says so."""
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = METHOD
    dataset.LongitudinalTemporalInformationModified = "REMOVED"
    return dataset


def _uid(original: str, salt: bytes) -> str:
    number = int.from_bytes(_digest("uid", original, salt)[:16], "big")
    # Version 8 of RFC 9562: the bits are the maker's own.
    number = number & ~(0xF << 76) & ~(0x3 << 62) | 0x8 << 76 | 0x2 << 62
    return f"2.25.{number}"


def _digest(kind: str, text: str, salt: bytes) -> bytes:
    return hmac.digest(salt, f"{kind}\n{text}".encode(), hashlib.sha256)
