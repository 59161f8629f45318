from __future__ import annotations

from typing import Any

import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from spinexr import errors
from spinexr.imaging import gate, header
from tests import builders


def check(*, allow: bool = False, **attributes: Any) -> list[str]:
    """Codes of the notices for a radiograph with these attributes."""
    dataset = builders.dataset(attributes=attributes)
    return [n.code for n in gate.check_header(dataset, allow_other_body_part=allow)]


def region(meaning: str) -> Sequence:
    item = Dataset()
    item.CodeMeaning = meaning
    return Sequence([item])


@pytest.mark.parametrize("modality", ["CR", "DX", "RG"])
def test_radiographs_pass(modality: str) -> None:
    assert check(Modality=modality) == []


@pytest.mark.parametrize("modality", ["CT", "MR", "MG", "US", "SC", "OT", "XA"])
def test_other_modalities_are_refused_by_tag_and_value(modality: str) -> None:
    with pytest.raises(errors.UnsupportedModalityError) as e:
        check(Modality=modality)
    assert "(0008,0060)" in e.value.message
    assert repr(modality) in e.value.message


def test_a_missing_modality_is_settled_by_the_sop_class() -> None:
    assert check(Modality=None) == ["modality_missing"]
    with pytest.raises(errors.UnsupportedModalityError, match="missing"):
        check(Modality=None, SOPClassUID=uid.CTImageStorage)


@pytest.mark.parametrize(
    "part",
    ["SPINE", "CSPINE", "TSPINE", "LSPINE", "CTSPINE", "TLSPINE", "LSSPINE", "SSPINE", "C-SPINE",
     "COCCYX", "SACRUM", "lspine", "Lumbar Spine", "WHOLESPINE"],
)  # fmt: skip
def test_spine_body_parts_pass(part: str) -> None:
    assert check(BodyPartExamined=part) == []


@pytest.mark.parametrize("part", ["CHEST", "HAND", "ABDOMEN", "KNEE", "HEAD", "PELVIS", "RIBS"])
def test_other_body_parts_are_refused_by_tag_and_value(part: str) -> None:
    with pytest.raises(errors.OtherBodyPartError) as e:
        check(BodyPartExamined=part)
    assert "BodyPartExamined (0018,0015)" in e.value.message
    assert repr(part) in e.value.message
    assert "allow_other_body_part" in e.value.message


@pytest.mark.parametrize(
    ("attributes", "tag"),
    [
        ({"StudyDescription": "CHEST PA"}, "(0008,1030)"),
        ({"SeriesDescription": "Thorax p.a."}, "(0008,103E)"),
        ({"AnatomicRegionSequence": region("Knee joint")}, "(0008,2218)"),
        ({"ViewCodeSequence": region("Skull lateral")}, "(0054,0220)"),
    ],
)
def test_descriptions_that_name_another_part_are_refused(
    attributes: dict[str, Any], tag: str
) -> None:
    with pytest.raises(errors.OtherBodyPartError) as e:
        check(BodyPartExamined=None, **attributes)
    assert tag in e.value.message


def test_an_image_of_the_spine_from_a_study_of_several_regions_passes() -> None:
    assert check(BodyPartExamined="LSPINE", StudyDescription="XR PELVIS") == []


def test_a_series_of_another_part_is_refused_whatever_the_body_part_says() -> None:
    with pytest.raises(errors.OtherBodyPartError):
        check(BodyPartExamined="LSPINE", SeriesDescription="CHEST PA")


@pytest.mark.parametrize(
    "attributes",
    [
        {"PresentationIntentType": "FOR PROCESSING"},
        {"SOPClassUID": uid.DigitalXRayImageStorageForProcessing},
    ],
)
def test_an_image_for_processing_is_warned_of(attributes: dict[str, Any]) -> None:
    assert check(**attributes) == ["for_processing"]
    assert check(PresentationIntentType="FOR PRESENTATION") == []


@pytest.mark.parametrize(
    "description",
    ["HEADER CHECK", "HANDHELD DETECTOR", "C-ARM LATERAL", "ARMSTRONG PROTOCOL", "LEGACY SYSTEM"],
)
def test_words_that_only_contain_a_part_name_no_part(description: str) -> None:
    assert gate.region_named_by(description) is None


def test_a_description_that_names_the_spine_among_others_passes() -> None:
    assert check(BodyPartExamined=None, StudyDescription="Chest and thoracic spine") == []


@pytest.mark.parametrize(
    "part", ["NOSE", "EYE", "WHOLEBODY", "CHESTABDPELVIS", "AXILLA", "LKNEE", "R HAND", "SPLEEN"]
)
def test_every_other_part_of_the_standard_is_known(part: str) -> None:
    assert gate.region_named_by(part) == "other"


def test_face_is_a_part_where_parts_are_named_and_a_view_elsewhere() -> None:
    assert check(BodyPartExamined="LSPINE", SeriesDescription="Rachis lombaire FACE") == []
    with pytest.raises(errors.OtherBodyPartError):
        check(BodyPartExamined="FACE")


def test_an_unknown_body_part_is_accepted_with_its_tag_and_value_in_the_warning() -> None:
    dataset = builders.dataset(attributes={"BodyPartExamined": "REGION 7"})
    (notice,) = gate.check_header(dataset, allow_other_body_part=False)
    assert notice.code == "body_part_unknown"
    assert "(0018,0015) reads 'REGION 7'" in notice.message


def test_nothing_named_is_accepted_with_a_visible_warning() -> None:
    assert check(BodyPartExamined=None) == ["body_part_unknown"]


def test_another_body_part_can_be_allowed_and_the_result_says_so() -> None:
    assert check(allow=True, BodyPartExamined="CHEST") == ["other_body_part"]


def test_several_frames_are_refused_and_one_stated_frame_is_not() -> None:
    with pytest.raises(errors.SeveralFramesError, match="is 3"):
        check(NumberOfFrames=3)
    assert check(NumberOfFrames=1) == []


@pytest.mark.parametrize("keyword", ["AnatomicRegionSequence", "ViewCodeSequence"])
def test_a_number_where_a_sequence_belongs_names_no_region(keyword: str) -> None:
    dataset = builders.dataset()
    dataset.add_new(keyword, "US", 5)
    assert list(gate.check_header(dataset, allow_other_body_part=False)) == []


@pytest.mark.parametrize("keyword", ["NumberOfFrames", "Rows"])
def test_a_number_without_end_is_no_count(keyword: str) -> None:
    dataset = builders.dataset()
    dataset.add_new(keyword, "FD", float("inf"))
    with pytest.raises(errors.CorruptDicomError, match="inf"):
        gate.check_header(dataset, allow_other_body_part=False)


@pytest.mark.parametrize("keyword", ["BodyPartExamined", "StudyDescription", "Rows"])
def test_what_a_sequence_holds_is_not_shown_as_the_text_of_an_attribute(keyword: str) -> None:
    item = Dataset()
    item.PatientName = "Doe^Jane"
    dataset = builders.dataset()
    dataset.add_new(keyword, "SQ", [item])
    assert "Doe" not in str(header.shown_attributes(dataset))
    with pytest.raises(errors.CorruptDicomError) as refused:
        gate._whole_number(dataset, keyword)
    assert "Doe" not in refused.value.message


def test_colour_is_refused() -> None:
    with pytest.raises(errors.NotGreyscaleError, match="RGB"):
        check(PhotometricInterpretation="RGB", SamplesPerPixel=3)


def test_a_missing_photometric_interpretation_is_refused() -> None:
    with pytest.raises(errors.NotGreyscaleError, match="missing"):
        check(PhotometricInterpretation=None)


@pytest.mark.parametrize(("allocated", "stored"), [(1, 1), (32, 32), (16, 17), (16, 0)])
def test_pixel_formats_that_no_radiograph_has_are_refused(allocated: int, stored: int) -> None:
    with pytest.raises(errors.UnsupportedPixelFormatError):
        check(BitsAllocated=allocated, BitsStored=stored)


def test_bits_that_are_not_the_lowest_are_refused() -> None:
    with pytest.raises(errors.UnsupportedPixelFormatError, match=r"HighBit \(0028,0102\) is 15"):
        check(HighBit=15)
    assert check(HighBit=None) == []


@pytest.mark.parametrize("keyword", ["SamplesPerPixel", "BitsStored", "PixelRepresentation"])
def test_what_the_pixels_mean_is_never_guessed(keyword: str) -> None:
    absent: dict[str, Any] = {keyword: None}
    with pytest.raises(errors.CorruptDicomError, match=keyword):
        check(**absent)


def test_thumbnails_are_refused() -> None:
    with pytest.raises(errors.ImageTooSmallError, match="63 × 200"):
        check(Rows=200, Columns=63)


def test_a_missing_size_is_corrupt() -> None:
    with pytest.raises(errors.CorruptDicomError, match=r"Rows \(0028,0010\)"):
        check(Rows=None)


def test_an_object_without_pixels_is_refused() -> None:
    with pytest.raises(errors.NoPixelDataError):
        check(PixelData=None)


def test_a_constant_image_is_refused() -> None:
    with pytest.raises(errors.ConstantImageError, match="value 7"):
        gate.check_range(7, 7)
