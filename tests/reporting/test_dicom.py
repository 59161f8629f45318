"""DICOM objects, judged by dicom3tools, dcmtk and highdicom."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as standard

from spinexr import DISCLAIMER
from spinexr.analysis import analyse
from spinexr.domain import Analysis, Box, DetectPolicy, Finding, ObjectKind
from spinexr.errors import ConfigurationError, NotReferableError, SpineXRError
from spinexr.imaging import reader
from spinexr.inference.predictor import Predictor
from spinexr.phantom.writer import Uids
from spinexr.reporting import codes, dicom, overlay
from spinexr.reporting.dicom.presentation import layer_names
from tests import builders
from tests.analyses import analysis
from tests.dicom_tools import NAMELESS, errors, misread, output_of, tool
from tests.fakes import ABNORMAL, NORMAL, FakeEngine, fake_bundle, raw
from tests.processes import ROOT
from tests.reporting import dicom_goldens
from tests.reporting.dicom_goldens import NOW, PATIENT
from tests.scale import pick

CODES = codes.read()
SAMPLES = sorted((ROOT / "samples").glob("*.dcm"))
KINDS = list(ObjectKind)


def made(result: Analysis, kind: ObjectKind, **options: Any) -> Dataset:
    """The object as somebody reads it from its file."""
    chosen: dict[str, Any] = {"codes": CODES, "now": NOW} | options
    (written,) = dicom.build(result, kinds=(kind,), **chosen)
    return pydicom.dcmread(BytesIO(written.data))


def complaints(result: Analysis, folder: Path, *, dcmtk: bool = True) -> dict[str, list[str]]:
    """What dciodvfy and dcmtk have against each object of the analysis."""
    file, found = folder / "object.dcm", {}
    for written in dicom.build(result, codes=CODES, now=NOW):
        file.write_bytes(written.data)
        found[written.kind.value] = errors(file) + (misread(file, written.kind) if dcmtk else [])
    return found


VALID: dict[str, list[str]] = {kind.value: [] for kind in ObjectKind}


def boxes_read_back(result: Analysis) -> list[tuple[float, ...]]:
    """The corners of the findings' boxes as highdicom reads them in the report."""
    _whole, *findings = report_of(result).content.get_planar_roi_measurement_groups()
    return [(*g.roi.value.min(axis=0), *g.roi.value.max(axis=0)) for g in findings]


def boxes_of(result: Analysis) -> list[Any]:
    """The same of the analysis, as single floats, which SCOORD has."""
    boxes = [f.box for f in result.prediction.findings or ()]
    return [pytest.approx((b.x1, b.y1, b.x2, b.y2), rel=1e-6) for b in boxes]


@pytest.fixture(scope="module")
def judge() -> Iterator[tuple[Predictor, FakeEngine]]:
    engine = FakeEngine()
    predictor = Predictor(fake_bundle(), engine)
    yield predictor, engine
    predictor.close()


# --- what others say --------------------------------------------------------------------------


@pytest.mark.parametrize("abnormal", [True, False])
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.stem)
def test_validators_find_no_error_in_the_objects_of_a_sample(
    judge: tuple[Predictor, FakeEngine], sample: Path, abnormal: bool, tmp_path: Path
) -> None:
    predictor, engine = judge
    engine.logits = dict.fromkeys(engine.logits, ABNORMAL if abnormal else NORMAL)
    result = analyse(sample.read_bytes(), predictor=predictor, max_pixels=40_000_000)
    assert complaints(result, tmp_path) == VALID
    assert boxes_read_back(result) == boxes_of(result)
    assert bool(result.prediction.findings) is abnormal


def test_validators_find_no_error_in_the_objects_of_phantoms(
    judge: tuple[Predictor, FakeEngine], phantom_root: Path, tmp_path: Path
) -> None:
    predictor, engine = judge
    files = sorted(phantom_root.rglob("*.dicom"))
    for n, file in enumerate(files[:: len(files) // pick(8, 200)]):
        engine.logits = dict.fromkeys(engine.logits, NORMAL if n % 4 == 0 else ABNORMAL)
        result = analyse(
            file.read_bytes(), predictor=predictor, max_pixels=40_000_000,
            detect=list(DetectPolicy)[n % 2],
        )  # fmt: skip
        assert complaints(result, tmp_path) == VALID, file.name
        assert boxes_read_back(result) == boxes_of(result), file.name


def test_the_validator_sees_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "object.dcm"
    for kind in KINDS:
        broken = made(analysis(), kind)
        del broken.PatientSex
        broken.save_as(file)
        assert len(errors(file)) == 1


def test_dcmtk_accepts_the_objects(tmp_path: Path) -> None:
    file = tmp_path / "object.dcm"
    for abnormal in (True, False):
        result = analysis(abnormal=abnormal, attributes=PATIENT)
        made(result, ObjectKind.REPORT).save_as(file)
        assert "SX-ABNORMAL" in output_of("dsrdump", file) or not abnormal
        assert "<report" in output_of("dsr2xml", file)
        made(result, ObjectKind.PRESENTATION).save_as(file)
        assert "Test passed" in output_of("dcmpschk", file)


def test_without_a_name_dcmpschk_misses_the_name_alone(tmp_path: Path) -> None:
    file = tmp_path / "object.dcm"
    made(analysis(), ObjectKind.PRESENTATION).save_as(file)
    assert output_of("dcmpschk", file).splitlines()[1:] == NAMELESS


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_is_the_one_that_is_kept_as_json(kind: ObjectKind) -> None:
    kept = (dicom_goldens.FOLDER / f"{kind}.json").read_text(encoding="utf-8")
    assert dicom_goldens.as_json(kind) == json.loads(kept)


@pytest.mark.parametrize("kind", KINDS)
def test_dcmtk_reads_the_object_that_is_kept_as_xml(kind: ObjectKind) -> None:
    kept = (dicom_goldens.FOLDER / f"{kind}.xml").read_text(encoding="utf-8")
    assert dicom_goldens.as_xml(kind, tool("dcm2xml")) == kept


# --- what is said -----------------------------------------------------------------------------


def several() -> Analysis:
    """Boxes of three classes at fractions of pixels."""
    base = analysis()
    findings = (
        Finding("Osteophytes", 0, 0.875, Box(10.25, 20.5, 60.75, 90.0), False),
        Finding("Surgical implant", 2, 0.5, Box(0.0, 0.0, 112.0, 160.0), False),
        Finding("Disc space narrowing", 1, 0.1875, Box(30.5, 40.0, 31.0, 159.875), True),
    )
    return replace(base, prediction=replace(base.prediction, findings=findings))


def report_of(result: Analysis) -> Any:
    (written,) = dicom.build(result, codes=CODES, now=NOW, kinds=(ObjectKind.REPORT,))
    return hd.sr.srread(BytesIO(written.data))


def test_highdicom_reads_the_boxes_back() -> None:
    result = several()
    groups = report_of(result).content.get_planar_roi_measurement_groups()
    whole, *findings = groups
    assert whole.roi.value.max(axis=0).tolist() == [112, 160]
    found = []
    for group in findings:
        corners = group.roi.value
        (measured,) = group.get_measurements()
        (status,) = [e for e in group.get_qualitative_evaluations() if e.name.value == "SX-STATUS"]
        (x1, y1), (x2, y2) = corners.min(axis=0), corners.max(axis=0)
        found.append((group.finding_type.meaning, measured.value, status.value.value,
                      Box(x1, y1, x2, y2)))  # fmt: skip
    assert found == [
        (f.label, f.confidence, "SX-TENTATIVE" if f.tentative else "SX-FIRM", f.box)
        for f in result.prediction.findings or ()
    ]


def test_the_presentation_state_has_the_boxes_of_a_class_on_its_layer() -> None:
    result = several()
    state = made(result, ObjectKind.PRESENTATION)
    layers = {layer.GraphicLayer: layer for layer in state.GraphicLayerSequence}
    assert list(layers) == [
        "SPINEXR RESULT", "OSTEOPHYTES", "SURGICAL IMPLANT", "DISC SPACE",
    ]  # fmt: skip
    drawn = state.GraphicAnnotationSequence[1:]
    for finding, annotation in zip(result.prediction.findings or (), drawn, strict=True):
        assert layers[annotation.GraphicLayer].GraphicLayerDescription == finding.label
        outline = annotation.GraphicObjectSequence[0]
        points = np.array(outline.GraphicData).reshape(-1, 2)
        assert Box(*points.min(axis=0), *points.max(axis=0)) == finding.box
        style = outline.LineStyleSequence[0]
        assert (style.LineDashingStyle == "DASHED") is finding.tentative
        label = annotation.TextObjectSequence[0].UnformattedTextValue
        assert label.startswith(finding.label)
        assert label.endswith("?") is finding.tentative


def test_layers_are_code_strings_and_no_two_the_same() -> None:
    labels = (
        "Other lesions of bone",
        "Other lesions of soft tissue",
        "骨棘",
        "狭窄",
        "SpineXR result",
    )
    names = layer_names(labels)
    assert len(set(names.values())) == len(labels)
    assert all(len(n) <= 16 and n.isascii() and n.upper() == n for n in names.values())
    assert "SPINEXR RESULT" not in names.values()


def test_the_picture_is_the_annotated_image_at_full_size() -> None:
    result = analysis()
    picture = made(result, ObjectKind.PICTURE)
    assert (picture.pixel_array == np.asarray(overlay.draw(result))).all()
    assert picture.ImageType == ["DERIVED", "SECONDARY"]
    assert picture.BurnedInAnnotation == "YES"
    (reference,) = picture.SourceImageSequence
    assert reference.ReferencedSOPInstanceUID == builders.UIDS.instance


@pytest.mark.parametrize("kind", KINDS)
def test_every_object_says_that_it_is_for_research(kind: ObjectKind) -> None:
    dataset = made(analysis(), kind)
    assert "for research use only" in dataset.SeriesDescription
    texts = [str(e.value) for e in dataset.iterall() if e.VR in ("UT", "ST", "LT")]
    expected = DISCLAIMER if kind is ObjectKind.REPORT else "For research use only"
    assert any(expected in t for t in texts)


def test_caveat_and_notices_stand_in_the_report() -> None:
    result = analysis(allow_other_body_part=True, attributes={"BodyPartExamined": "CHEST"})
    comments = [
        item.TextValue
        for group in made(result, ObjectKind.REPORT).ContentSequence[-1].ContentSequence
        for item in group.ContentSequence
        if item.ConceptNameCodeSequence[0].CodeMeaning == "Comment"
    ]
    assert result.bundle.caveat in comments
    assert all(n.message in comments for n in result.notices)
    assert result.notices


def test_a_normal_result_is_a_report_too(tmp_path: Path) -> None:
    result = analysis(abnormal=False)
    report = report_of(result)
    (group,) = report.content.get_planar_roi_measurement_groups()
    assert [m.value for m in group.get_measurements()] == pytest.approx(
        [result.prediction.probability, 0.449]
    )
    codes = [e.value.value for e in group.get_qualitative_evaluations()]
    assert codes == ["SX-NORMAL", "75958009"]  # bounded by
    assert complaints(result, tmp_path) == VALID


@pytest.mark.parametrize(
    ("abnormal", "detect", "flag"),
    [(True, "when_abnormal", "COMPLETE"), (False, "always", "COMPLETE"),
     (False, "when_abnormal", "PARTIAL")],
)  # fmt: skip
def test_a_report_is_complete_when_classifiers_and_detector_looked(
    abnormal: bool, detect: str, flag: str
) -> None:
    report = made(analysis(abnormal=abnormal, detect=DetectPolicy(detect)), ObjectKind.REPORT)
    assert report.CompletionFlag == flag
    assert report.VerificationFlag == "UNVERIFIED"
    assert report.PreliminaryFlag == "PRELIMINARY"


def test_the_evidence_is_the_image() -> None:
    report = report_of(several())
    image = builders.dataset()
    assert report.get_evidence() == [
        (image.StudyInstanceUID, image.SeriesInstanceUID, image.SOPInstanceUID, image.SOPClassUID)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_patient_and_study_are_those_of_the_file(kind: ObjectKind) -> None:
    dataset = made(analysis(attributes=PATIENT), kind)
    for keyword in ("PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
                    "AccessionNumber", "StudyID", "StudyDescription"):  # fmt: skip
        assert dataset[keyword].value == PATIENT[keyword], keyword
    assert str(dataset.PatientName) == "Müller^Änne"
    assert dataset.StudyInstanceUID == builders.UIDS.study
    assert dataset.SeriesInstanceUID != builders.UIDS.series


# --- display ----------------------------------------------------------------------------------


def display_of(**options: Any) -> Dataset:
    return made(analysis(**options), ObjectKind.PRESENTATION)


def test_window_rescale_and_polarity_of_the_file_are_repeated() -> None:
    state = display_of(
        photometric=builders.MONOCHROME1,
        attributes={"WindowCenter": [1000, 2000], "WindowWidth": [500, 0],
                    "VOILUTFunction": "SIGMOID", "RescaleSlope": 2, "RescaleIntercept": -100},
    )  # fmt: skip
    (voi,) = state.SoftcopyVOILUTSequence
    assert (voi.WindowCenter, voi.WindowWidth, voi.VOILUTFunction) == (1000, 500, "SIGMOID")
    assert (state.RescaleSlope, state.RescaleIntercept, state.RescaleType) == (2, -100, "US")
    assert state.PresentationLUTShape == "INVERSE"


def test_what_the_file_does_not_say_of_its_display_is_not_made_up() -> None:
    state = display_of()
    for keyword in ("SoftcopyVOILUTSequence", "RescaleSlope", "ModalityLUTSequence",
                    "ImageRotation", "ImageHorizontalFlip"):  # fmt: skip
        assert keyword not in state
    assert state.PresentationLUTShape == "IDENTITY"
    (area,) = state.DisplayedAreaSelectionSequence
    assert list(area.DisplayedAreaBottomRightHandCorner) == [112, 160]


def lut(entries: int, data: list[int]) -> list[Dataset]:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [entries, 0, 16])
    item.add_new("LUTData", "US", data)
    item.ModalityLUTType = "US"
    return [item]


def test_tables_of_the_file_are_repeated(tmp_path: Path) -> None:
    table = [n * 16 for n in range(4096)]
    result = analysis(attributes={"VOILUTSequence": lut(4096, table)})
    (voi,) = made(result, ObjectKind.PRESENTATION).SoftcopyVOILUTSequence
    (item,) = voi.VOILUTSequence
    assert list(item.LUTDescriptor) == [4096, 0, 16]
    assert np.frombuffer(item.LUTData, "<u2").tolist() == table
    assert complaints(result, tmp_path) == VALID
    result = analysis(attributes={"ModalityLUTSequence": lut(4096, table)})
    assert made(result, ObjectKind.PRESENTATION).ModalityLUTSequence[0].LUTDescriptor[0] == 4096
    assert complaints(result, tmp_path) == VALID


def test_a_table_that_is_damaged_is_left_out(tmp_path: Path) -> None:
    for keyword in ("VOILUTSequence", "ModalityLUTSequence"):
        result = analysis(attributes={keyword: lut(4096, [1, 2, 3])})
        state = made(result, ObjectKind.PRESENTATION)
        assert "ModalityLUTSequence" not in state
        assert "SoftcopyVOILUTSequence" not in state
        assert complaints(result, tmp_path) == VALID


# --- identifiers and clocks -------------------------------------------------------------------


def identifiers(dataset: Dataset) -> list[str]:
    return [str(e.value) for e in dataset.iterall() if e.VR == "UI"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_repeat_is_the_same_object_but_for_its_times(kind: ObjectKind) -> None:
    first = made(analysis(), kind)
    later = made(analysis(), kind, now=datetime(2027, 6, 7, 8, 9, 10))
    assert identifiers(first) == identifiers(later)
    assert "20260102" in str(first)
    differing = {
        a.VR for a, b in zip(first.iterall(), later.iterall(), strict=True)
        if a.VR != "SQ" and a.value != b.value
    }  # fmt: skip
    assert differing <= {"DA", "TM", "DT"}
    assert made(analysis(), kind) == first


@pytest.mark.parametrize("kind", KINDS)
def test_other_weights_codes_or_images_make_other_objects(kind: ObjectKind) -> None:
    base = analysis()
    other = Uids.derived_from("another study")
    results = [
        made(base, kind),
        made(replace(base, fingerprint="1" * 64), kind),
        made(base, kind, codes=replace(CODES, digest="0" * 64)),
        made(analysis(attributes={"SOPInstanceUID": other.instance}), kind),
    ]
    instances = [r.SOPInstanceUID for r in results]
    assert len(set(instances)) == len(results)
    assert results[3].SeriesInstanceUID == results[0].SeriesInstanceUID
    assert all(u.is_valid and u.startswith("2.25.") for u in instances)


def test_the_objects_of_an_analysis_are_three_in_three_series() -> None:
    objects = [made(analysis(), kind) for kind in KINDS]
    assert len({o.SOPInstanceUID for o in objects}) == 3
    assert len({o.SeriesInstanceUID for o in objects}) == 3
    assert {o.StudyInstanceUID for o in objects} == {builders.UIDS.study}


# --- bad files --------------------------------------------------------------------------------


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
@pytest.mark.parametrize("value", [None, "1.2.banana", "1." + "2" * 64, "1.02.3"])
def test_an_image_that_cannot_be_referred_to_gets_no_objects(
    keyword: str, value: str | None
) -> None:
    result = analysis(attributes={keyword: value})
    for kind in KINDS:
        with pytest.raises(NotReferableError, match=keyword):
            made(result, kind)


def test_a_radiograph_without_a_file_gets_no_objects() -> None:
    base = analysis()
    bare = replace(base, radiograph=replace(base.radiograph, source=None))
    with pytest.raises(NotReferableError):
        made(bare, ObjectKind.REPORT)


TYPE_2 = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
          "ReferringPhysicianName", "StudyID", "AccessionNumber")  # fmt: skip
ODD: dict[str, dict[str, Any]] = {
    "nothing of patient and study": dict.fromkeys((*TYPE_2, "SeriesNumber", "InstanceNumber")),
    "several names": {"PatientName": ["Doe^John", "Roe^Jane"], "PatientID": ["1", "2"]},
    "a name that is too long": {"PatientName": "^".join("x" * 70 for _ in range(9))},
    "texts that are too long": dict.fromkeys(("PatientID", "AccessionNumber", "StudyID"), "y" * 99),
    "controls": {"PatientName": "Do\x07e^\x1bJohn\n", "PatientID": "1\t2"},
    "no dates": {"PatientBirthDate": "1950", "StudyDate": "20250230", "StudyTime": "2561"},
    "dotted dates": {"PatientBirthDate": "1950.01.02", "StudyTime": "10:11:12"},
    "an unknown sex": {"PatientSex": "unknown", "PatientAge": "old"},
    "sizes": {"PatientSize": "-1", "PatientWeight": "0"},
    "numbers": {"InstanceNumber": "-7", "SeriesNumber": "1e3"},
    "three orientations": {"PatientOrientation": ["L", "F", "F"]},
    "a private SOP class": {"SOPClassUID": "1.2.3.4.5.6"},
    "a Japanese name": {
        "SpecificCharacterSet": ["", "ISO 2022 IR 87"],
        "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    },
    "a Korean name": {
        "SpecificCharacterSet": ["", "ISO 2022 IR 149"], "PatientName": "Hong^Gildong=洪^吉洞",
    },
    "Cyrillic": {"SpecificCharacterSet": "ISO_IR 144", "PatientName": "Люкceмбypг"},
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
def test_odd_headers_make_valid_objects(case: str, tmp_path: Path) -> None:
    # dcmtk knows no private kinds of images, and no name in three spellings.
    assert complaints(analysis(attributes=ODD[case]), tmp_path, dcmtk=False) == VALID


def test_damage_where_only_objects_look_costs_no_analysis(
    judge: tuple[Predictor, FakeEngine], tmp_path: Path
) -> None:
    """Every byte of the header in turn is another one; refusals are as they were."""
    data = builders.dicom(attributes={**PATIENT, "VOILUTSequence": lut(4, [0, 1, 2, 4095])})
    end = data.index(b"\xe0\x7f\x10\x00OW")
    met = 0
    for at in range(400, end, pick(23, 1)):
        for value in (0x00, 0x5C, 0xFF):
            damaged = data[:at] + bytes([value]) + data[at + 1 :]
            try:
                result = analyse(damaged, predictor=judge[0], max_pixels=40_000_000)
            except SpineXRError:
                continue
            met += 1
            with contextlib.suppress(NotReferableError):
                dicom.build(result, codes=CODES, now=NOW, kinds=(ObjectKind.PRESENTATION,))
    assert met > 50


@pytest.mark.parametrize(
    ("keyword", "item"),
    [
        ("VOILUTSequence", {"LUTDescriptor": ("IS", [2, 99999, 16]), "LUTData": ("US", [1, 2])}),
        ("VOILUTSequence", {"LUTDescriptor": ("US", [2, 0, 16]), "LUTData": ("LO", ["a", "b"])}),
        ("ModalityLUTSequence", {"LUTDescriptor": ("LO", "x"), "LUTData": ("OW", b"")}),
        ("AnatomicRegionSequence", {"CodeValue": ("OB", b"\xff\xfe")}),
        ("AnatomicRegionSequence", {"CodeValue": ("LO", "x" * 40)}),
    ],
)
def test_items_that_are_none_are_left_out(
    keyword: str, item: dict[str, tuple[str, Any]], tmp_path: Path
) -> None:
    odd = Dataset()
    for name, (vr, value) in item.items():
        odd.add_new(name, vr, value)
    dataset = builders.dataset()
    setattr(dataset, keyword, [odd])
    radiograph = reader.radiograph_from(dataset, max_pixels=40_000_000)
    result = replace(analysis(), radiograph=radiograph)
    assert complaints(result, tmp_path) == VALID


@pytest.mark.parametrize("case", ["a Japanese name", "a Korean name", "Cyrillic"])
def test_names_keep_their_letters(case: str) -> None:
    dataset = made(analysis(attributes=ODD[case]), ObjectKind.PRESENTATION)
    assert dataset.SpecificCharacterSet == "ISO_IR 192"
    assert made(analysis(), ObjectKind.REPORT).SpecificCharacterSet == "ISO_IR 100"
    assert str(dataset.PatientName) == ODD[case]["PatientName"]


def test_of_several_names_the_first_is_taken() -> None:
    dataset = made(analysis(attributes=ODD["several names"]), ObjectKind.REPORT)
    assert (str(dataset.PatientName), dataset.PatientID) == ("Doe^John", "1")


@pytest.mark.parametrize("declared", ["", "ISO_IR 999", "ISO_IR 192"])
def test_text_in_another_character_set_than_the_file_says_makes_valid_objects(
    declared: str, judge: tuple[Predictor, FakeEngine], tmp_path: Path
) -> None:
    attributes = {"SpecificCharacterSet": declared, "PatientName": "Mueller^Jo"}
    data = builders.dicom(attributes=attributes).replace(b"Mueller^Jo", b"M\xfcller^J\xf6\xff")
    result = analyse(data, predictor=judge[0], max_pixels=40_000_000)
    assert complaints(result, tmp_path) == VALID
    assert "M" in str(made(result, ObjectKind.REPORT).PatientName)


def test_nothing_of_the_patient_is_logged_or_shown(caplog: pytest.LogCaptureFixture) -> None:
    hostile = {"PatientName": "KANARIENVOGEL", "PatientID": "KANARIENVOGEL" * 9}
    result = analysis(attributes=hostile)
    with caplog.at_level(logging.DEBUG):
        for kind in KINDS:
            assert "KANARIENVOGEL" in str(made(result, kind).PatientName)
    assert "KANARIENVOGEL" not in caplog.text
    assert "KANARIENVOGEL" not in repr(result.radiograph.source)


# --- codes ------------------------------------------------------------------------------------


def test_codes_that_no_standard_has_are_of_the_private_scheme() -> None:
    private = [*CODES.concepts.values(), *CODES.findings.values()]
    assert {c.scheme for c in private} == {"99SPINEXR"}
    assert len({c.value for c in private}) == len(private)


def test_regions_are_coded_as_in_the_dictionary() -> None:
    known = {standard.SCT.__getattr__(name).value for name in standard.SCT.dir("")}
    for code in CODES.regions.values():
        assert code.scheme == "SCT"
        assert code.value in known


@pytest.mark.parametrize(
    ("attributes", "region"),
    [
        ({"BodyPartExamined": "LSPINE"}, "Lumbar spine"),
        ({"BodyPartExamined": "lspine "}, "Lumbar spine"),
        ({"BodyPartExamined": "HWS"}, None),
        ({"BodyPartExamined": None, "SeriesDescription": "spine"}, None),
    ],
)
def test_a_region_is_said_where_the_file_names_one(
    attributes: dict[str, Any], region: str | None
) -> None:
    text = str(made(analysis(attributes=attributes), ObjectKind.REPORT))
    assert ("Finding Site" in text) is (region is not None)
    assert region is None or region in text


def test_a_coded_region_of_the_file_comes_first() -> None:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "T-11500", "SRT", "Spine, old"
    text = str(made(analysis(attributes={"AnatomicRegionSequence": [item]}), ObjectKind.REPORT))
    assert "T-11500" in text


def test_a_deployer_s_codes_replace_the_private_ones(tmp_path: Path) -> None:
    file = tmp_path / "codes.toml"
    file.write_text(
        '[concepts]\nabnormal = { value = "263654008", scheme = "SCT", meaning = "Abnormal" }\n'
        '[findings]\nOsteophytes = { value = "OST", scheme = "99HOSPITAL", meaning = "Spur" }\n'
        '[scheme]\ndesignator = "99MINE"\nname = "Mine"\n',
        encoding="utf-8",
    )
    own = codes.read(file)
    text = str(made(analysis(), ObjectKind.REPORT, codes=own))
    assert all(t in text for t in ("263654008", "99HOSPITAL", "Spur", "99MINE", "SX-F-DISC"))
    assert "99SPINEXR" not in text
    assert own.digest != CODES.digest


def test_a_class_without_an_entry_gets_a_code_of_its_name(tmp_path: Path) -> None:
    labels = ("Scheuermann's \\ disease", "x" * 99, "骨")
    found = [CODES.finding(label) for label in labels]
    assert len({c.value for c in found}) == 3
    assert all(len(c.value) <= 16 and 1 <= len(c.meaning) <= 64 for c in found)
    base = analysis()
    findings = tuple(Finding(label, 0, 0.5, Box(1, 2, 30, 40), False) for label in labels)
    result = replace(base, prediction=replace(base.prediction, findings=findings))
    assert complaints(result, tmp_path) == VALID


@pytest.mark.parametrize(
    "text",
    [
        "not toml", "[others]\n", "concepts = 1\n", "[scheme]\nsuffix = 'x'\n",
        "[scheme]\ndesignator = '99TOOLONGTOBEONEOFTHEM'\n",
        "[concepts]\nunheard = { value = '1', scheme = 'DCM', meaning = 'x' }\n",
        "[concepts]\nnormal = { value = '1', meaning = 'x' }\n",
        "[concepts]\nnormal = 'x'\n",
        "[concepts]\nnormal = { value = '', scheme = 'DCM', meaning = 'x' }\n",
        "[findings]\nx = { value = '12345678901234567', scheme = 'DCM', meaning = 'x' }\n",
        "[findings]\nx = { value = 'a\\\\b', scheme = 'DCM', meaning = 'x', more = 1 }\n",
    ],
)  # fmt: skip
def test_codes_that_are_none_are_refused_by_name(text: str, tmp_path: Path) -> None:
    file = tmp_path / "codes.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"codes\.toml"):
        codes.read(file)


def test_a_missing_file_of_codes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        codes.read(tmp_path / "none.toml")


# --- size -------------------------------------------------------------------------------------


def test_many_boxes_make_valid_objects(judge: tuple[Predictor, FakeEngine], tmp_path: Path) -> None:
    predictor, engine = judge
    engine.logits = dict.fromkeys(engine.logits, ABNORMAL)
    before = engine.detections
    engine.detections = raw(*((n / 4, n / 3, n / 4 + 9.5, n / 3 + 9.5, 0.9 - n / 500, n % 3)
                              for n in range(40)))  # fmt: skip
    try:
        result = analyse(builders.dicom(), predictor=predictor, max_pixels=40_000_000)
    finally:
        engine.detections = before
    assert len(result.prediction.findings or ()) == 40
    assert complaints(result, tmp_path) == VALID
