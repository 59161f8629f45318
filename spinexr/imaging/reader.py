"""The imaging half of the one path: bytes → parse → gate → decode → Radiograph."""

from __future__ import annotations

from pydicom.dataset import Dataset

from spinexr.domain import Radiograph
from spinexr.imaging import codecs, dicom, display, excerpt, gate, header

# Room for a header beside the pixels when a deflated dataset is unpacked.
_HEADER_BYTES = 16 * 1024 * 1024


def read(
    data: bytes,
    *,
    max_pixels: int,
    allow_other_body_part: bool = False,
    show_patient: bool = False,
    keep: tuple[str, ...] = (),
) -> Radiograph:
    """Read one spine radiograph from the bytes of a DICOM file.

    Args:
        data: the whole file.
        max_pixels: rows × columns may not exceed this.
        allow_other_body_part: accept an image whose header names another body part; the
            radiograph then carries a notice that says so.
        show_patient: take the patient's name and ID among the attributes that are shown.
        keep: keywords whose values the radiograph carries in `kept`, where the file has them.

    Raises:
        NotDicomError: the bytes are not DICOM.
        UnanalysableError: they are, but hold no single, readable, greyscale spine radiograph.
    """
    dataset = dicom.parse(data, max_inflated_bytes=2 * max_pixels + _HEADER_BYTES)
    return radiograph_from(
        dataset,
        max_pixels=max_pixels,
        allow_other_body_part=allow_other_body_part,
        show_patient=show_patient,
        keep=keep,
    )


def radiograph_from(
    dataset: Dataset,
    *,
    max_pixels: int,
    allow_other_body_part: bool = False,
    show_patient: bool = False,
    keep: tuple[str, ...] = (),
) -> Radiograph:
    """As `read`, from a dataset that `dicom.parse` returned.

    Raises:
        UnanalysableError: no single, readable, greyscale spine radiograph.
    """
    notices = gate.check_header(dataset, allow_other_body_part=allow_other_body_part)
    stored = codecs.decode(dataset, max_pixels=max_pixels)
    lowest, highest = int(stored.min()), int(stored.max())
    gate.check_range(lowest, highest)
    photometric = gate.photometric(dataset)
    levels, windowing, display_notices = display.levels(lowest, highest, dataset, photometric)
    return Radiograph(
        stored=stored,
        lowest=lowest,
        levels=levels,
        photometric=photometric,
        spacing=header.pixel_spacing(dataset),
        attributes=header.shown_attributes(dataset, show_patient=show_patient),
        notices=notices + display_notices,
        place=header.place(dataset),
        kept=header.kept(dataset, keep),
        windowing=windowing,
        source=excerpt.source(dataset, windowing, display_notices),
    )
