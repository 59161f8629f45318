"""Reading attributes of a DICOM header that may be damaged, and naming them to people."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from pydicom.datadict import dictionary_description, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from spinexr.domain import HeaderAttribute, PixelSpacing, Place, SpacingSource
from spinexr.errors import CorruptDicomError

_LONGEST_VALUE = 120
TRANSFER_SYNTAX = "Transfer Syntax"

# What may be shown and returned: how the image was made and what it shows, never who it shows.
SHOWN = (
    "Modality",
    "BodyPartExamined",
    "ViewPosition",
    "PatientOrientation",
    "Laterality",
    "ImageLaterality",
    "StudyDescription",
    "SeriesDescription",
    "PatientSex",
    "PatientAge",
    "Manufacturer",
    "ManufacturerModelName",
    "KVP",
    "Exposure",
    "DistanceSourceToDetector",
    "Rows",
    "Columns",
    "BitsStored",
    "PhotometricInterpretation",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "PresentationIntentType",
    "BurnedInAnnotation",
)


# Shown only where the deployer wants it: who it is.
PATIENT = ("PatientName", "PatientID")


def required(dataset: Dataset, keyword: str) -> Any:
    """The attribute's value, None when absent.

    Raises:
        CorruptDicomError: the attribute is there but cannot be read.
    """
    try:
        return dataset.get(keyword)
    # pydicom converts values on access and raises whatever the conversion meets.
    except Exception as e:
        raise CorruptDicomError(
            f"{label(keyword)} cannot be read. The file is damaged: export or copy it again."
        ) from e


def optional(dataset: Dataset, keyword: str) -> Any:
    """The attribute's value, None when absent or unreadable."""
    try:
        return required(dataset, keyword)
    except CorruptDicomError:
        return None


def numbers(dataset: Dataset, keyword: str) -> list[float | None]:
    """The attribute's values as finite numbers, None in the place of a value that is not one."""
    value = _plain(dataset, keyword)
    if value is None or value == "":
        return []
    return [_number(v) for v in (value if isinstance(value, (MultiValue, list)) else [value])]


def text(dataset: Dataset, keyword: str) -> str:
    """The attribute's value as one printable line, empty when absent, unreadable or a sequence."""
    value = _plain(dataset, keyword)
    return "" if value is None else clean(value)


def items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; none when absent, unreadable or not a sequence."""
    value = optional(dataset, keyword)
    return list(value) if isinstance(value, Sequence) else []


def texts(dataset: Dataset, keyword: str) -> list[str]:
    """The attribute's values, each as one printable line; none where `text` is empty."""
    value = _plain(dataset, keyword)
    if value is None or value == "":
        return []
    return [clean(v) for v in (value if isinstance(value, (MultiValue, list)) else [value])]


def raw_texts(dataset: Dataset, keyword: str) -> list[str]:
    """The attribute's values as text, as they are; none where `text` is empty."""
    value = _plain(dataset, keyword)
    if value is None or value == "":
        return []
    return [str(v) for v in (value if isinstance(value, (MultiValue, list)) else [value])]


def _plain(dataset: Dataset, keyword: str) -> Any:
    """As `optional`; None for a sequence too, whose text would be that of all it holds."""
    value = optional(dataset, keyword)
    return None if isinstance(value, Sequence) else value


def clean(value: object) -> str:
    """`value` as one printable line of bounded length."""
    if isinstance(value, Sequence):
        return "a sequence"
    items = value if isinstance(value, (MultiValue, list)) else [value]
    line = "\\".join(str(item) for item in items)
    line = " ".join("".join(c if c.isprintable() else " " for c in line).split())
    return line if len(line) <= _LONGEST_VALUE else line[: _LONGEST_VALUE - 1] + "…"


def label(keyword: str) -> str:
    """Such as `BodyPartExamined (0018,0015)`."""
    return f"{keyword} {tag_text(keyword)}"


def tag_text(keyword: str) -> str:
    """Such as `(0018,0015)`."""
    tag = Tag(tag_for_keyword(keyword) or 0)
    return f"({tag.group:04X},{tag.element:04X})"


def shown_attributes(
    dataset: Dataset, *, show_patient: bool = False
) -> tuple[HeaderAttribute, ...]:
    """The attributes of the allow-list that are present and not empty."""
    found = []
    for keyword in (*PATIENT, *SHOWN) if show_patient else SHOWN:
        value = text(dataset, keyword)
        if value:
            name = dictionary_description(keyword)
            found.append(HeaderAttribute(tag_text(keyword), keyword, name, value))
    syntax = dataset.file_meta.TransferSyntaxUID
    found.append(
        HeaderAttribute("(0002,0010)", "TransferSyntaxUID", TRANSFER_SYNTAX, clean(syntax.name))
    )
    return tuple(found)


def kept(dataset: Dataset, keywords: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """(keyword, value) of the attributes that are present and not empty."""
    return tuple((k, value) for k in keywords if (value := text(dataset, k)))


def place(dataset: Dataset) -> Place | None:
    """Study, series and number of the image; None where the file names no study."""
    study = text(dataset, "StudyInstanceUID")
    if not study:
        return None
    series, instance = (
        int(found[0]) if (found := numbers(dataset, keyword)) and found[0] is not None else None
        for keyword in ("SeriesNumber", "InstanceNumber")
    )
    return Place(study, series, instance)


def shown_names() -> dict[str, str]:
    """The standard's names of everything that `shown_attributes` may give, by keyword."""
    names = {keyword: dictionary_description(keyword) for keyword in (*PATIENT, *SHOWN)}
    return names | {"TransferSyntaxUID": TRANSFER_SYNTAX}


def pixel_spacing(dataset: Dataset) -> PixelSpacing | None:
    """PixelSpacing where the file has it, else ImagerPixelSpacing, else None.

    Where both say the same and no calibration is named, it is the spacing at the detector, not
    corrected for magnification (PS3.3 10.7.1.3).
    """
    calibrated, imager = (
        _spacing(dataset, source)
        for source in (SpacingSource.PIXEL_SPACING, SpacingSource.IMAGER_PIXEL_SPACING)
    )
    if calibrated is None or imager is None:
        return calibrated or imager
    same = (calibrated.row_mm, calibrated.column_mm) == (imager.row_mm, imager.column_mm)
    return imager if same and not text(dataset, "PixelSpacingCalibrationType") else calibrated


def _spacing(dataset: Dataset, source: SpacingSource) -> PixelSpacing | None:
    values = numbers(dataset, source.value)
    if len(values) != 2 or not values[0] or not values[1]:
        return None
    try:
        return PixelSpacing(values[0], values[1], source)
    except ValueError:
        return None


def _number(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]  # refused below like any other text
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
