"""Analysis → DICOM objects for an archive: a structured report, a presentation state, a picture.

Importing this imports pydicom and highdicom, which callers do where somebody asks for objects.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO

from pydicom.dataset import Dataset

from spinexr.domain import Analysis, ObjectKind
from spinexr.reporting.codes import Codes
from spinexr.reporting.dicom import picture, presentation, report
from spinexr.reporting.dicom.context import Context

# Both quote values that they find odd, and a quoted value can be a patient's name.
for _name in ("pydicom", "highdicom"):
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)
warnings.filterwarnings("ignore", module=r"(pydicom|highdicom)(\.|$)")

MEDIA_TYPE = "application/dicom"


_BUILDERS = {
    ObjectKind.REPORT: report.build,
    ObjectKind.PRESENTATION: presentation.build,
    ObjectKind.PICTURE: picture.build,
}


@dataclass(frozen=True, slots=True)
class DicomObject:
    """One object as a file."""

    kind: ObjectKind
    data: bytes


def dataset(analysis: Analysis, kind: ObjectKind, *, codes: Codes, now: datetime) -> Dataset:
    """One object.

    Its UIDs come from those of the image, the weights, the codes and this version of SpineXR, so
    that a repeat makes the same object and not one more. Only its times differ.

    Args:
        now: local time, as DICOM means times without an offset.

    Raises:
        NotReferableError: the file does not identify the image, its series and its study.
    """
    context = Context.of(analysis, kind.value, codes=codes, now=now)
    return context.finished(_BUILDERS[kind](context))


def build(
    analysis: Analysis,
    *,
    codes: Codes,
    now: datetime,
    kinds: tuple[ObjectKind, ...] = tuple(ObjectKind),
) -> tuple[DicomObject, ...]:
    """The objects as DICOM files, see `dataset`.

    Raises:
        NotReferableError
    """
    return tuple(
        DicomObject(kind, as_file(dataset(analysis, kind, codes=codes, now=now))) for kind in kinds
    )


def as_file(dataset: Dataset) -> bytes:
    """An object with its preamble and file meta information (PS3.10)."""
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()
