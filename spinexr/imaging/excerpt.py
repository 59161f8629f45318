"""What DICOM objects about an image have to repeat of its file, cleaned.

Files hold names that are too long, dates that are none and character sets that they do not name.
What is passed on keeps to its value representation (PS3.5 section 6.2); what cannot be made to is
left out.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterable
from datetime import date
from typing import Any

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from spinexr.domain import Notice, Source, Windowing
from spinexr.imaging import header
from spinexr.imaging.display import MODALITY_LUT_IGNORED

_MOST_LUT_ENTRIES = 2**16  # PS3.3 C.11.1.1
_MOST_WINDOWS = 16


def source(dataset: Dataset, windowing: Windowing, notices: Iterable[Notice]) -> Source:
    """The excerpt of a file.

    Args:
        windowing, notices: what `display.levels` took from the file, and what it passed over.
    """
    kept = Dataset()
    kept.SpecificCharacterSet = "ISO_IR 192"
    for clean, keywords in _KINDS.items():
        for keyword in keywords:
            _attempt(_add_text, kept, dataset, keyword, clean)
    _attempt(_add_orientation, kept, dataset)
    _attempt(_add_region, kept, dataset)
    if MODALITY_LUT_IGNORED not in notices:
        _attempt(_add_modality_lut, kept, dataset)
    _attempt(_add_voi_lut, kept, dataset, windowing)
    kept.PresentationLUTShape = "INVERSE" if windowing.inverse else "IDENTITY"
    return Source(_as_bytes(kept))


def _attempt(add: Callable[..., None], kept: Dataset, *arguments: Any) -> None:
    """Add something, or leave it out where the file is damaged there: that costs no analysis."""
    part = Dataset()
    # Damage raises AttributeError, TypeError, ValueError, LookupError, struct.error, …
    with contextlib.suppress(Exception):
        add(part, *arguments)
        _as_bytes(part)
        kept.update(part)


def _as_bytes(dataset: Dataset) -> bytes:
    stream = DicomBytesIO()
    stream.is_implicit_VR, stream.is_little_endian = False, True
    write_dataset(stream, dataset, parent_encoding="utf-8")
    return stream.getvalue()


def _add_text(kept: Dataset, dataset: Dataset, keyword: str, clean: Callable[[str], str]) -> None:
    for value in header.raw_texts(dataset, keyword)[:1]:
        if cleaned := clean(value):
            setattr(kept, keyword, cleaned)


def _add_orientation(kept: Dataset, dataset: Dataset) -> None:
    orientation = [v for t in header.raw_texts(dataset, "PatientOrientation") if (v := _code(t))]
    if len(orientation) == 2:  # along the rows, along the columns
        kept.PatientOrientation = orientation


def _add_region(kept: Dataset, dataset: Dataset) -> None:
    item = _first_item(dataset, "AnatomicRegionSequence")
    if item is None:
        return
    code = Dataset()
    for keyword, longest in (
        ("CodeValue", 16),
        ("CodingSchemeDesignator", 16),
        ("CodeMeaning", 64),
    ):
        text = next(iter(header.raw_texts(item, keyword)), "")
        if not (cleaned := _text(text, len(text))) or len(cleaned) > longest:
            return
        setattr(code, keyword, cleaned)
    kept.AnatomicRegionSequence = [code]


def _add_modality_lut(kept: Dataset, dataset: Dataset) -> None:
    item = _first_item(dataset, "ModalityLUTSequence")
    if item is not None:
        if table := _lut(item):
            table.ModalityLUTType = next(
                (_text(t, 64) for t in header.raw_texts(item, "ModalityLUTType")), "US"
            )
            kept.ModalityLUTSequence = [table]
        return
    slope, intercept = (header.numbers(dataset, k) for k in ("RescaleSlope", "RescaleIntercept"))
    if len(slope) == len(intercept) == 1 and slope[0] and intercept[0] is not None:
        kept.RescaleSlope, kept.RescaleIntercept = decimal(slope[0]), decimal(intercept[0])
        kind = [_text(t, 64) for t in header.raw_texts(dataset, "RescaleType")]
        kept.RescaleType = (kind and kind[0]) or "US"  # unspecified, PS3.3 C.11.1.1.2


def _add_voi_lut(kept: Dataset, dataset: Dataset, windowing: Windowing) -> None:
    """What the image is shown with: the table where it is used, else the usable windows."""
    item = _first_item(dataset, "VOILUTSequence") if windowing.table else None
    if item is not None and (table := _lut(item)):
        kept.VOILUTSequence = [table]
        return
    windows = windowing.windows[:_MOST_WINDOWS]
    if windows:
        kept.WindowCenter = [decimal(w.center) for w in windows]
        kept.WindowWidth = [decimal(w.width) for w in windows]
        kept.WindowCenterWidthExplanation = [_text(w.name, 64) or "none" for w in windows]
        kept.VOILUTFunction = windowing.function.value


def _lut(item: Dataset) -> Dataset | None:
    """The table of an item, None where it does not keep to its own description."""
    described, data = header.numbers(item, "LUTDescriptor"), header.optional(item, "LUTData")
    if len(described) != 3 or data is None:
        return None
    entries, first, bits = (int(v or 0) for v in described)
    if isinstance(data, bytes):
        raw = data
    else:
        values = data if isinstance(data, Iterable) else [data]
        raw = b"".join((int(v) & 0xFFFF).to_bytes(2, "little") for v in values)
    if len(raw) != 2 * (entries or _MOST_LUT_ENTRIES):
        return None
    table = Dataset()
    kind = "SS" if first < 0 else "US"
    table.add_new("LUTDescriptor", kind, [_as(kind, entries), first, bits])
    table.add_new("LUTData", "OW", raw)
    explained = [_text(t, 64) for t in header.raw_texts(item, "LUTExplanation")]
    if explained and explained[0]:
        table.LUTExplanation = explained[0]
    return table


def _as(kind: str, value: int) -> int:
    return value - 2**16 if kind == "SS" and value >= 2**15 else value


def _first_item(dataset: Dataset, keyword: str) -> Dataset | None:
    items = header.items(dataset, keyword)
    return items[0] if items else None


# --- values ---------------------------------------------------------------------------------------


def decimal(value: float) -> str:
    """A decimal string (DS) of at most 16 characters."""
    for digits in range(15, 0, -1):
        text = f"{value:.{digits}g}"
        if len(text) <= 16:
            return text
    raise ValueError(value)


def _text(value: str, longest: int) -> str:
    """Printable, on one line, without the separator of values."""
    line = "".join(c if c.isprintable() and c != "\\" else " " for c in value)
    return " ".join(line.split())[:longest].strip()


def _long(value: str) -> str:
    return _text(value, 64)


def _short(value: str) -> str:
    return _text(value, 16)


def _name(value: str) -> str:
    """A person name: up to three groups of up to five components, 64 characters a group."""
    groups = [_text("^".join(g.split("^")[:5]), 64).rstrip("^ ") for g in value.split("=")[:3]]
    return "=".join(groups).rstrip("=")


def _code(value: str) -> str:
    text = value.strip().upper()
    return text if re.fullmatch(r"[A-Z0-9_ ]{1,16}", text) else ""


def _sex(value: str) -> str:
    return text if (text := _code(value)) in ("M", "F", "O") else ""


def _side(value: str) -> str:
    return text if (text := _code(value)) in ("L", "R") else ""


def _date(value: str) -> str:
    text = value.strip()
    try:
        return text if re.fullmatch(r"\d{8}", text) and date.fromisoformat(text) else ""
    except ValueError:
        return ""


def _time(value: str) -> str:
    text = value.strip()
    pattern = r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?"
    return text if re.fullmatch(pattern, text) else ""


def _age(value: str) -> str:
    return text if re.fullmatch(r"\d{3}[DWMY]", text := value.strip()) else ""


def _uid(value: str) -> str:
    text = value.strip().rstrip("\0")
    if len(text) > 64 or not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+", text):
        return ""
    return text


def _integer(value: str) -> str:
    text = value.strip()
    return str(int(text)) if re.fullmatch(r"[+-]?\d{1,9}", text) else ""


def _measure(value: str) -> str:
    try:
        number = float(value)
    except ValueError:
        return ""
    return decimal(number) if 0 < number < math.inf else ""


_KINDS: dict[Callable[[str], str], tuple[str, ...]] = {
    _uid: ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"),
    _name: ("PatientName", "ReferringPhysicianName"),
    _long: ("PatientID", "IssuerOfPatientID", "StudyDescription"),
    _short: ("AccessionNumber", "StudyID"),
    _date: ("PatientBirthDate", "StudyDate"),
    _time: ("StudyTime",),
    _sex: ("PatientSex",),
    _age: ("PatientAge",),
    _measure: ("PatientSize", "PatientWeight"),
    _code: ("BodyPartExamined", "PhotometricInterpretation", "LossyImageCompression"),
    _side: ("Laterality", "ImageLaterality"),
    _integer: ("InstanceNumber", "SeriesNumber"),
}
