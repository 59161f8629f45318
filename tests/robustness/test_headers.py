"""Any header that can be written down ends in an analysis or a typed refusal."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spinexr.analysis import analyse
from spinexr.domain import Analysis, Photometric
from spinexr.errors import NotDicomError, UnanalysableError
from spinexr.inference.predictor import Predictor
from tests import builders, scale

_TEXT = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=40)
_NUMBER = st.one_of(
    st.integers(-(2**31), 2**31 - 1),
    st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False, width=32),
).map(lambda v: str(v)[:16])
_NUMBERS = st.lists(_NUMBER, min_size=1, max_size=3)
_UNSIGNED = st.one_of(st.integers(0, 2**16 - 1), st.sampled_from([0, 1, 2, 8, 12, 16, 112, 160]))
_ATTRIBUTES: dict[str, st.SearchStrategy[Any]] = {
    "Modality": st.sampled_from(["DX", "CR", "RG", "MR", "", "dx", "DX\\CR"]) | _TEXT,
    "BodyPartExamined": st.sampled_from(["SPINE", "LSPINE", "CHEST", "", "spine "]) | _TEXT,
    "PhotometricInterpretation": st.sampled_from(["MONOCHROME1", "RGB", "PALETTE COLOR", ""]),
    "StudyDescription": _TEXT,
    "SeriesDescription": _TEXT,
    "PatientOrientation": st.lists(_TEXT, max_size=3),
    "Manufacturer": _TEXT,
    "SpecificCharacterSet": st.sampled_from(["ISO_IR 100", "ISO_IR 192", "ISO 2022 IR 87", "odd"]),
    "WindowCenter": _NUMBERS,
    "WindowWidth": _NUMBERS,
    "VOILUTFunction": st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID", "odd", ""]),
    "RescaleSlope": _NUMBER,
    "RescaleIntercept": _NUMBER,
    "PixelSpacing": _NUMBERS,
    "ImagerPixelSpacing": _NUMBERS,
    "NumberOfFrames": _NUMBER.map(lambda v: v.split(".")[0].split("e")[0]),
    "SamplesPerPixel": _UNSIGNED,
    "Rows": _UNSIGNED,
    "Columns": _UNSIGNED,
    "BitsAllocated": _UNSIGNED,
    "BitsStored": _UNSIGNED,
    "HighBit": _UNSIGNED,
    "PixelRepresentation": st.integers(0, 3),
    "BurnedInAnnotation": st.sampled_from(["YES", "NO", ""]) | _TEXT,
    "SeriesNumber": _NUMBER.map(lambda v: v.split(".")[0].split("e")[0]),
}
_HEADERS = st.fixed_dictionaries({}, optional={k: v | st.none() for k, v in _ATTRIBUTES.items()})


COUNTS = {"drawn": 0, "written": 0, "analysed": 0}


@given(
    attributes=_HEADERS,
    syntax=st.sampled_from(sorted(builders.LOSSLESS)),
    photometric=st.sampled_from(Photometric),
    bits=st.integers(8, 16),
)
@settings(
    max_examples=scale.pick(300, 10_000), deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")  # pydicom's, while the odd headers are written
def test_any_header_ends_in_an_analysis_or_a_typed_refusal(
    predictor: Predictor, attributes: dict[str, Any], syntax: str, photometric: Photometric,
    bits: int,
) -> None:  # fmt: skip
    """Seen failing where a header that its pixels contradict is a fault (tools/weaken.py)."""
    COUNTS["drawn"] += 1
    try:
        data = builders.dicom(
            builders.pixels(bits=bits), transfer_syntax=builders.LOSSLESS[syntax],
            photometric=photometric, attributes=attributes, bits_stored=bits,
        )  # fmt: skip
    except Exception:
        return
    COUNTS["written"] += 1
    # Anything else that is raised fails the test, and shows the header.
    with contextlib.suppress(UnanalysableError, NotDicomError):
        analysis = analyse(data, predictor=predictor, max_pixels=10**7)
        assert isinstance(analysis, Analysis)
        COUNTS["analysed"] += 1


def test_most_of_these_headers_could_be_written_and_many_were_analysed() -> None:
    if not COUNTS["drawn"]:
        pytest.skip("none were drawn in this process")
    assert COUNTS["written"] >= COUNTS["drawn"] / 2
    assert COUNTS["analysed"] >= COUNTS["drawn"] / 20
