"""What the objects share: the image they are about, who made them, when, and their identifiers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ComputedRadiographyImageStorage

from spinexr import DISCLAIMER, __version__
from spinexr.domain import Analysis
from spinexr.errors import NotReferableError
from spinexr.reporting.codes import Code, Codes

NAME = "SpineXR"
FOR_RESEARCH = "For research use only: never a diagnosis."
SERIES_NUMBERS = {"report": 9901, "presentation": 9902, "picture": 9903}  # beyond a modality's own
_SERIES = {
    "report": "SpineXR report, for research use only",
    "presentation": "SpineXR boxes, for research use only",
    "picture": "SpineXR picture, for research use only",
}

_IDENTIFIERS = {
    "SOPClassUID": "(0008,0016)",
    "SOPInstanceUID": "(0008,0018)",
    "StudyInstanceUID": "(0020,000D)",
    "SeriesInstanceUID": "(0020,000E)",
}
# Patient and General Study modules, PS3.3 C.7.1.1 and C.7.2.1. Type 2: must exist, may be empty.
_TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "ReferringPhysicianName", "StudyID", "AccessionNumber",
)  # fmt: skip
_TYPE_3 = ("IssuerOfPatientID", "StudyDescription", "PatientAge", "PatientSize", "PatientWeight")
_TEXTS = (
    "LO",
    "LT",
    "PN",
    "SH",
    "ST",
    "UC",
    "UT",
)  # what a character set is for, PS3.5 section 6.1.2
_STAMPS = (
    ("InstanceCreationDate", "InstanceCreationTime"),
    ("ContentDate", "ContentTime"),
    ("PresentationCreationDate", "PresentationCreationTime"),
    ("DateOfSecondaryCapture", "TimeOfSecondaryCapture"),
)


@dataclass(frozen=True, slots=True)
class Context:
    """One object to be made."""

    analysis: Analysis
    source: Dataset  # the excerpt of the image's file
    kind: str
    codes: Codes
    now: datetime

    @classmethod
    def of(cls, analysis: Analysis, kind: str, *, codes: Codes, now: datetime) -> Context:
        """The context of an analysis.

        Raises:
            NotReferableError: the file does not identify the image, its series and its study.
        """
        if analysis.radiograph.source is None:
            raise NotReferableError(
                "No file stands behind the image, so no object can refer to it."
            )
        source = analysis.radiograph.source.dataset
        for keyword, tag in _IDENTIFIERS.items():
            if keyword not in source:
                raise NotReferableError(
                    f"{keyword} {tag} is missing or is no UID, so that no DICOM object can refer "
                    "to the image. Export the radiograph from the archive again, or ask for the "
                    "result as a page or as JSON."
                )
        return cls(analysis, source, kind, codes, now)

    @property
    def common(self) -> dict[str, Any]:
        """What the constructors of all objects are told. Patient and study are added by `finished`:
        the constructors judge, and quote what they do not like."""
        return {
            "series_instance_uid": self.uid("series", self.source.SeriesInstanceUID),
            "series_number": SERIES_NUMBERS[self.kind],
            "series_description": _SERIES[self.kind],
            "sop_instance_uid": self.uid("instance", self.source.SOPInstanceUID),
            "instance_number": max(1, int(self.source.get("InstanceNumber") or 1)),
            "manufacturer": NAME,
            "manufacturer_model_name": NAME,
            "software_versions": __version__,
            "device_serial_number": self.analysis.fingerprint or "unknown",
            "specific_character_set": "ISO_IR 192",
        }

    @property
    def image(self) -> Dataset:
        """The image as the objects refer to it, without patient, and of a class that the library
        knows; `finished` puts in those of the file."""
        image = Dataset()
        for keyword in _IDENTIFIERS:
            setattr(image, keyword, self.source[keyword].value)
        image.SOPClassUID = ComputedRadiographyImageStorage
        for keyword in _TYPE_2:
            setattr(image, keyword, "")
        image.SamplesPerPixel = 1
        image.Rows, image.Columns = (
            self.analysis.radiograph.rows,
            self.analysis.radiograph.columns,
        )
        return image

    @property
    def region(self) -> Code | None:
        """The region that the file names, as it codes it or else by its body part."""
        if "AnatomicRegionSequence" in self.source:
            item = self.source.AnatomicRegionSequence[0]
            return Code(item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning)
        return self.codes.regions.get(self.source.get("BodyPartExamined", ""))

    @property
    def result(self) -> str:
        """The answer in one line."""
        prediction = self.analysis.prediction
        return (
            f"{prediction.decision.capitalize()}: {prediction.probability:.3f} "
            f"(cut-off {prediction.threshold:.3f})"
        )

    @property
    def caveats(self) -> tuple[str, ...]:
        """What a reader has to know beside the answer."""
        analysis = self.analysis
        notices = tuple(n.message for n in analysis.notices)
        return (
            DISCLAIMER,
            *((analysis.bundle.caveat,) if analysis.bundle.caveat else ()),
            *notices,
        )

    def uid(self, *parts: str) -> str:
        """A UID that the same image, weights, engine, codes and version give."""
        prediction = self.analysis.prediction
        if parts[0] in ("series", "device"):
            # A series takes up every image of one, whatever was found on it.
            kind = (self.kind,) if parts[0] == "series" else ()
            return _uid(NAME, __version__, self.analysis.fingerprint, *kind, *parts)
        ran = "detected" if prediction.findings is not None else "not detected"
        return _uid(
            NAME, __version__, self.analysis.fingerprint, self.analysis.engine, self.codes.digest,
            ran, self.kind, *parts,
        )  # fmt: skip

    def finished(self, dataset: Dataset) -> Dataset:
        """The object with the patient, study and SOP class of the file, and the given time."""
        for element in dataset.iterall():
            if element.keyword == "ReferencedSOPClassUID":
                element.value = self.source.SOPClassUID
        for keyword in _TYPE_2:
            # As text: a name that was read keeps the bytes it was read from.
            setattr(dataset, keyword, str(self.source.get(keyword, "")))
        for keyword in _TYPE_3:
            if keyword in self.source:
                setattr(dataset, keyword, self.source[keyword].value)
        for date_keyword, time_keyword in _STAMPS:
            if date_keyword in dataset:
                setattr(dataset, date_keyword, f"{self.now:%Y%m%d}")
                setattr(dataset, time_keyword, f"{self.now:%H%M%S}")
        for equipment in dataset.get("ContributingEquipmentSequence", ()):  # the library itself
            equipment.ContributionDateTime = f"{self.now:%Y%m%d%H%M%S}"
        dataset.SpecificCharacterSet = _character_set(dataset)
        return dataset


def _character_set(dataset: Dataset) -> str:
    """Latin-1 where it is enough, since old archives know it; UTF-8 for all else."""
    text = "".join(str(e.value) for e in dataset.iterall() if e.VR in _TEXTS)
    return "ISO_IR 100" if _is_latin_1(text) else "ISO_IR 192"


def _is_latin_1(text: str) -> bool:
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True


def _uid(*named: str) -> str:
    """The same texts give the same UID below 2.25 (PS3.5 section B.2)."""
    digest = hashlib.sha256("\n".join(named).encode()).digest()
    # Version 8 of RFC 9562: the bits are the maker's own.
    number = int.from_bytes(digest[:16], "big") & ~(0xF << 76) & ~(0x3 << 62)
    return f"2.25.{number | 0x8 << 76 | 0x2 << 62}"
