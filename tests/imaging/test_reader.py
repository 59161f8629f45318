from __future__ import annotations

import contextlib

import numpy as np
import pytest

from spinexr.domain import Photometric, SpacingSource
from spinexr.errors import ConstantImageError, CorruptDicomError, SpineXRError, UnanalysableError
from spinexr.imaging import reader
from tests import builders

PIXELS = 10_000_000


def test_a_radiograph_carries_pixels_polarity_and_spacing() -> None:
    data = builders.dicom(
        photometric=builders.MONOCHROME1, attributes={"ImagerPixelSpacing": [0.15, 0.16]}
    )
    radiograph = reader.read(data, max_pixels=PIXELS)
    np.testing.assert_array_equal(radiograph.stored, builders.pixels())
    assert radiograph.photometric is Photometric.MONOCHROME1
    assert radiograph.spacing is not None
    assert radiograph.spacing.row_mm == 0.15
    assert radiograph.spacing.source is SpacingSource.IMAGER_PIXEL_SPACING


def test_pixel_spacing_goes_before_imager_pixel_spacing() -> None:
    attributes = {"ImagerPixelSpacing": [0.2, 0.2], "PixelSpacing": [0.1, 0.1]}
    radiograph = reader.read(builders.dicom(attributes=attributes), max_pixels=PIXELS)
    assert radiograph.spacing is not None
    assert radiograph.spacing.source is SpacingSource.PIXEL_SPACING


@pytest.mark.parametrize(
    ("calibration", "source"),
    [("", SpacingSource.IMAGER_PIXEL_SPACING), ("GEOMETRY", SpacingSource.PIXEL_SPACING)],
)
def test_two_equal_spacings_are_that_of_the_detector_unless_calibrated(
    calibration: str, source: SpacingSource
) -> None:
    attributes = {
        "ImagerPixelSpacing": [0.2, 0.2], "PixelSpacing": [0.2, 0.2],
        "PixelSpacingCalibrationType": calibration,
    }  # fmt: skip
    radiograph = reader.read(builders.dicom(attributes=attributes), max_pixels=PIXELS)
    assert radiograph.spacing is not None
    assert radiograph.spacing.source is source


@pytest.mark.parametrize("spacing", [[0, 0], [-1, 1], [0.1]])
def test_nonsensical_spacing_is_no_spacing(spacing: list[float]) -> None:
    data = builders.dicom(attributes={"PixelSpacing": spacing})
    assert reader.read(data, max_pixels=PIXELS).spacing is None


def test_only_attributes_of_the_allow_list_leave_the_reader() -> None:
    data = builders.dicom(
        attributes={
            "PatientName": "CANARY^NAME",
            "PatientID": "CANARY-ID",
            "PatientBirthDate": "19500101",
            "InstitutionName": "CANARY HOSPITAL",
            "AccessionNumber": "CANARY-ACC",
            "PatientAge": "061Y",
        }
    )
    shown = reader.read(data, max_pixels=PIXELS).attributes
    assert "CANARY" not in repr(shown)
    assert "19500101" not in repr(shown)
    assert ("PatientAge", "061Y") in [(a.keyword, a.value) for a in shown]


def test_shown_values_are_one_printable_line_of_bounded_length() -> None:
    data = builders.dicom(attributes={"SeriesDescription": "SPINE \x1b[31m\n\x00" + "x" * 500})
    shown = {a.keyword: a.value for a in reader.read(data, max_pixels=PIXELS).attributes}
    assert shown["SeriesDescription"].isprintable()
    assert len(shown["SeriesDescription"]) <= 120


def test_a_constant_image_is_refused() -> None:
    data = builders.dicom(np.full((100, 100), 5, np.uint16))
    with pytest.raises(ConstantImageError):
        reader.read(data, max_pixels=PIXELS)


@pytest.mark.parametrize("keep", [0.05, 0.3, 0.6, 0.99])
def test_a_truncated_file_is_refused(keep: float) -> None:
    data = builders.dicom()
    with pytest.raises(UnanalysableError):
        reader.read(data[: int(len(data) * keep)], max_pixels=PIXELS)


def test_a_damaged_attribute_that_is_only_shown_does_not_refuse_the_image() -> None:
    data = builders.dicom(attributes={"KVP": "70", "WindowCenter": "55", "WindowWidth": "77"})
    damaged = data.replace(b"DS\x02\x0070", b"DS\x02\x00zz").replace(
        b"DS\x02\x0077", b"DS\x02\x00ww"
    )
    assert damaged != data
    radiograph = reader.read(damaged, max_pixels=PIXELS)
    assert [n.code for n in radiograph.notices] == ["window_ignored"]


def test_a_header_that_is_not_a_number_is_corrupt() -> None:
    data = builders.dicom(attributes={"NumberOfFrames": "1"})
    damaged = data.replace(b"IS\x02\x001 ", b"IS\x02\x00x ")
    assert damaged != data
    with pytest.raises(CorruptDicomError, match="NumberOfFrames"):
        reader.read(damaged, max_pixels=PIXELS)


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_gives_a_radiograph_or_a_typed_refusal(seed: int) -> None:
    rng = np.random.default_rng(seed)
    syntax = list(builders.LOSSLESS.values())[seed % len(builders.LOSSLESS)]
    data = bytearray(builders.dicom(transfer_syntax=syntax))
    for at in rng.integers(0, len(data), 30):
        data[at] = rng.integers(256)
    for at in rng.integers(128, 1000, 10):
        data[at] = rng.integers(256)
    with contextlib.suppress(SpineXRError):
        reader.read(bytes(data), max_pixels=PIXELS)


def test_attributes_are_kept_when_they_are_named_and_there() -> None:
    data = builders.dicom(attributes={"PatientID": "A 17", "StudyDate": "20260102"})
    assert reader.read(data, max_pixels=PIXELS).kept == ()
    radiograph = reader.read(data, max_pixels=PIXELS, keep=("PatientID", "AccessionNumber"))
    assert radiograph.kept == (("PatientID", "A 17"),)
