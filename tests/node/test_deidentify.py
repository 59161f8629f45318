"""Objects for research destinations: nothing of the patient is in them, and nobody is lost."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset

from spinexr.domain import DetectPolicy, ObjectKind
from spinexr.imaging import reader
from spinexr.inference.predictor import Predictor
from spinexr.node import deidentify
from spinexr.node.work import Worker
from spinexr.phantom import writer
from spinexr.reporting import codes
from tests.dicom_tools import errors, misread
from tests.node import peers
from tests.node.peers import destination, radiograph

PATIENT: dict[str, Any] = {
    "PatientName": "Mustermann^Erika", "PatientID": "CANARY-ID", "PatientBirthDate": "19640812",
    "PatientSex": "F", "PatientAge": "062Y", "StudyDate": "20260102", "StudyTime": "030405",
    "AccessionNumber": "CANARY-ACC", "StudyID": "CANARY-SID", "ReferringPhysicianName": "CANARY^R",
    "StudyDescription": "CANARY lumbar", "SeriesDescription": "CANARY spine",
    "IssuerOfPatientID": "CANARY-ISS", "PatientSize": 1.71, "PatientWeight": 71,
    "BodyPartExamined": "CANARYSPINE", "WindowCenter": 2000, "WindowWidth": 4000,
    "WindowCenterWidthExplanation": "CANARY-WIN",
}  # fmt: skip
CANARIES = (b"CANARY", b"Mustermann", b"Erika", b"19640812", b"062Y", b"20260102", b"030405")
RESEARCH = destination(
    name="research", deidentify=True, objects=(ObjectKind.REPORT, ObjectKind.PRESENTATION)
)


@pytest.fixture
def objects(predictor: Predictor) -> Any:
    """The objects of a radiograph for destinations, by kind."""

    def make(image: Dataset, there: Any = RESEARCH, salt: bytes = bytes(32)) -> dict[str, bytes]:
        worker = Worker(
            predictor=predictor, read=reader.read, codes=codes.read(), destinations=(there,),
            salt=salt, max_pixels=1_000_000, detect=DetectPolicy.ALWAYS, timeout_s=60.0,
            clock=lambda: peers.NOW,
        )  # fmt: skip
        outputs = worker(writer.to_bytes(image), "CR1").outputs
        return {output.kind.value: output.data for output in outputs}

    return make


def opened(data: bytes) -> Dataset:
    return pydicom.dcmread(BytesIO(data))


def test_patients_without_an_id_are_not_one_patient(objects: Any) -> None:
    without = {"PatientID": "", "IssuerOfPatientID": "HOSPITAL"}
    pseudonyms = set()
    for study in ("1.2.1", "1.2.2"):
        image = radiograph(attributes=without | {"StudyInstanceUID": study})
        pseudonyms.add(opened(objects(image)["report"]).PatientID)
    assert len(pseudonyms) == 2


def test_the_method_fits_its_attribute() -> None:
    assert len(deidentify.METHOD) <= 64  # LO


def test_nothing_of_the_patient_is_in_them(objects: Any) -> None:
    image = radiograph(attributes=PATIENT)
    uids = [
        str(image[k].value) for k in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
    ]
    found = objects(image)
    assert set(found) == {"report", "presentation"}
    for data in found.values():
        for canary in (*CANARIES, *(u.encode() for u in uids), f"{peers.NOW:%Y%m%d}".encode()):
            assert canary not in data
        made = opened(data)
        assert made.PatientIdentityRemoved == "YES"
        assert made.PatientID == made.PatientName
        assert str(made.PatientID).startswith("SPX-")
        assert made.PatientBirthDate == made.StudyDate == made.AccessionNumber == ""
        assert made.PatientSex == "F"


def test_validators_find_no_error_in_them(objects: Any, tmp_path: Path) -> None:
    file = tmp_path / "object.dcm"
    for attributes in (PATIENT, {}):
        for kind, data in objects(radiograph(attributes=attributes)).items():
            file.write_bytes(data)
            assert errors(file) + misread(file, ObjectKind(kind)) == []


def test_the_canaries_would_be_found(objects: Any) -> None:
    data = objects(radiograph(attributes=PATIENT), destination(objects=(ObjectKind.REPORT,)))
    assert any(canary in data["report"] for canary in CANARIES)


def test_the_same_patient_and_study_are_the_same_again_and_others_are_not(objects: Any) -> None:
    first, second = (opened(objects(radiograph(n, attributes=PATIENT))["report"]) for n in (1, 2))
    other = opened(objects(radiograph(3, attributes=PATIENT | {"PatientID": "ANOTHER"}))["report"])
    elsewhere = opened(objects(radiograph(1, attributes=PATIENT), salt=bytes(31) + b"x")["report"])
    assert (first.PatientID, first.StudyInstanceUID) == (second.PatientID, second.StudyInstanceUID)
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert other.PatientID != first.PatientID
    assert elsewhere.PatientID != first.PatientID
    assert elsewhere.StudyInstanceUID != first.StudyInstanceUID


def test_they_differ_from_those_with_the_patient_in_their_uids(objects: Any) -> None:
    image = radiograph(attributes=PATIENT)
    plain = opened(objects(image, destination())["report"])
    hidden = opened(objects(image)["report"])
    assert plain.SOPInstanceUID != hidden.SOPInstanceUID
    assert plain.SeriesInstanceUID != hidden.SeriesInstanceUID
