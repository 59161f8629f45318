"""pydicom's bundled files are real DICOM: each has an expected outcome, as it is and as a DX."""

from __future__ import annotations

from pathlib import Path

import pydicom.data
import pytest

from spinexr.errors import SpineXRError
from spinexr.imaging import dicom, reader

PIXELS = 40_000_000
FOLDER = Path(pydicom.data.__file__).parent / "test_files"

# As they are: none is a spine radiograph, so every one is refused, and for the right reason.
OUTCOMES = {
    "no_pixel_data": """
        ExplVR_BigEndNoMeta.dcm ExplVR_LitEndNoMeta.dcm UN_sequence.dcm empty_charset_LEI.dcm
        no_meta_group_length.dcm priv_SQ.dcm reportsi.dcm reportsi_with_empty_number_tags.dcm
        rtplan.dcm rtplan_truncated.dcm rtstruct.dcm test-SR.dcm waveform_ecg.dcm
    """,
    "not_dicom": """
        README.txt crayons.icc no_meta.dcm rtplan.dump rtstruct.dump test1.json test_PN.json
        zipMR.gz
    """,
    "unsupported_modality": """
        693_J2KI.dcm CT_small.dcm ExplVR_BigEnd.dcm GDCMJ2K_TextGBR.dcm
        J2K_pixelrep_mismatch.dcm JPEG-lossy.dcm JPEG2000-embedded-sequence-delimiter.dcm
        JPEG2000.dcm JPEGLSNearLossless_08.dcm JPEGLSNearLossless_16.dcm JPGExtended.dcm
        MR_small.dcm MR_small_RLE.dcm MR_small_bigendian.dcm MR_small_expb.dcm
        MR_small_implicit.dcm MR_small_jp2klossless.dcm MR_small_jpeg_ls_lossless.dcm
        MR_small_padded.dcm MR_truncated.dcm SC_jpeg_no_color_transform.dcm
        SC_jpeg_no_color_transform_2.dcm SC_rgb_dcmtk_+eb+cr.dcm SC_rgb_dcmtk_+eb+cy+n1.dcm
        SC_rgb_dcmtk_+eb+cy+n2.dcm SC_rgb_dcmtk_+eb+cy+np.dcm SC_rgb_dcmtk_+eb+cy+s2.dcm
        SC_rgb_dcmtk_+eb+cy+s4.dcm SC_rgb_gdcm_KY.dcm SC_rgb_jls_lossy_line.dcm
        SC_rgb_jls_lossy_sample.dcm SC_rgb_jpeg.dcm SC_rgb_jpeg_app14_dcmd.dcm
        SC_rgb_jpeg_dcmd.dcm SC_rgb_jpeg_dcmtk.dcm SC_rgb_jpeg_gdcm.dcm
        SC_rgb_jpeg_lossy_gdcm.dcm SC_rgb_rle.dcm SC_rgb_rle_16bit.dcm
        SC_rgb_rle_16bit_2frame.dcm SC_rgb_rle_2frame.dcm SC_rgb_rle_32bit.dcm
        SC_rgb_rle_32bit_2frame.dcm SC_rgb_small_odd.dcm SC_rgb_small_odd_big_endian.dcm
        SC_rgb_small_odd_jpeg.dcm SC_ybr_full_422_uncompressed.dcm badVR.dcm examples_jpeg2k.dcm
        examples_overlay.dcm examples_palette.dcm examples_rgb_color.dcm examples_ybr_color.dcm
        image_dfl.dcm liver_1frame.dcm liver_expb_1frame.dcm meta_missing_tsyntax.dcm
        nested_priv_SQ.dcm rtdose.dcm rtdose_1frame.dcm rtdose_expb.dcm rtdose_expb_1frame.dcm
        rtdose_rle.dcm rtdose_rle_1frame.dcm
    """,
}
AS_THEY_ARE = {name: code for code, names in OUTCOMES.items() for name in names.split()}

# With Modality DX, body part spine and one frame, so that pixels are reached: the shape decoded,
# or why not.
AS_RADIOGRAPHS: dict[str, tuple[int, int] | str] = {
    "693_J2KI.dcm": (512, 512),
    "CT_small.dcm": (128, 128),
    "ExplVR_BigEnd.dcm": "not_greyscale",
    "J2K_pixelrep_mismatch.dcm": (512, 512),
    "JPEG-lossy.dcm": (1024, 256),
    "JPEG2000-embedded-sequence-delimiter.dcm": "image_too_large",
    "JPEG2000.dcm": (1024, 256),
    "JPEGLSNearLossless_08.dcm": "image_too_small",
    "JPGExtended.dcm": (1024, 256),
    "MR_small.dcm": (64, 64),
    "MR_small_RLE.dcm": (64, 64),
    "MR_small_bigendian.dcm": (64, 64),
    "MR_small_implicit.dcm": (64, 64),
    "MR_small_jp2klossless.dcm": (64, 64),
    "MR_small_jpeg_ls_lossless.dcm": (64, 64),
    "MR_small_padded.dcm": (64, 64),
    "MR_truncated.dcm": "corrupt_dicom",
    "SC_rgb_jpeg.dcm": "not_greyscale",
    "image_dfl.dcm": (512, 512),
    "liver_1frame.dcm": "unsupported_pixel_format",
    "rtdose_1frame.dcm": "unsupported_pixel_format",
}


@pytest.mark.parametrize(("name", "code"), AS_THEY_ARE.items(), ids=AS_THEY_ARE)
def test_each_file_is_refused_for_the_right_reason(name: str, code: str) -> None:
    with pytest.raises(SpineXRError) as e:
        reader.read((FOLDER / name).read_bytes(), max_pixels=PIXELS)
    assert e.value.code == code


def test_the_table_knows_every_bundled_file() -> None:
    assert set(AS_THEY_ARE) == {f.name for f in FOLDER.iterdir() if f.is_file()}


def test_the_files_of_the_bundled_media_directory_are_refused_too() -> None:
    files = [f for f in (FOLDER / "dicomdirtests").rglob("*") if f.is_file()]
    assert files
    for file in files:
        with pytest.raises(SpineXRError) as e:
            reader.read(file.read_bytes(), max_pixels=PIXELS)
        assert e.value.code in (
            "no_pixel_data", "unsupported_modality", "image_too_small", "not_dicom"
        )  # fmt: skip


@pytest.mark.parametrize(("name", "outcome"), AS_RADIOGRAPHS.items(), ids=AS_RADIOGRAPHS)
def test_each_file_as_a_radiograph(name: str, outcome: tuple[int, int] | str) -> None:
    dataset = dicom.parse((FOLDER / name).read_bytes(), max_inflated_bytes=PIXELS)
    dataset.Modality = "DX"
    dataset.BodyPartExamined = "SPINE"
    dataset.StudyDescription = dataset.SeriesDescription = None
    if isinstance(outcome, str):
        with pytest.raises(SpineXRError) as e:
            reader.radiograph_from(dataset, max_pixels=PIXELS)
        assert e.value.code == outcome
    else:
        radiograph = reader.radiograph_from(dataset, max_pixels=PIXELS)
        assert radiograph.stored.shape == outcome
        assert 0.0 <= radiograph.display.min() < radiograph.display.max() <= 1.0
