"""DICOM objects over HTTP, and the buttons for them."""

from __future__ import annotations

from email.parser import BytesParser
from email.policy import HTTP
from io import BytesIO

import pydicom
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from spinexr.domain import ObjectKind
from tests import builders
from tests.fakes import FakeEngine
from tests.web.test_upload import JSON, PAGE, post, problem

PARTS = {"Accept": 'multipart/related; type="application/dicom"'}
ONE = {"Accept": "application/dicom, application/problem+json"}
CLASSES = {
    ObjectKind.REPORT: "1.2.840.10008.5.1.4.1.1.88.34",
    ObjectKind.PRESENTATION: "1.2.840.10008.5.1.4.1.1.11.1",
    ObjectKind.PICTURE: "1.2.840.10008.5.1.4.1.1.7",
}


def parts(response: TestResponse) -> list[bytes]:
    """The bodies of an answer in parts, each of DICOM."""
    head = f"Content-Type: {response.content_type}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(head + response.data)
    assert message.get_content_type() == "multipart/related"
    assert message["Content-Type"].params["type"] == "application/dicom"
    found = list(message.iter_parts())
    assert [p.get_content_type() for p in found] == ["application/dicom"] * len(found)
    boundary = message["Content-Type"].params["boundary"].encode()
    bodies = [b.split(b"\r\n\r\n", 1)[1][:-2] for b in response.data.split(b"--" + boundary)[1:-1]]
    assert len(bodies) == len(found)
    return bodies


@pytest.mark.parametrize(
    "accept",
    ['multipart/related; type="application/dicom"', "multipart/related;type=application/dicom",
     "multipart/related",
     'multipart/related; type="application/dicom", application/problem+json;q=0.5'],
)  # fmt: skip
def test_programs_get_all_objects_in_parts(client: FlaskClient, accept: str) -> None:
    response = post(client, headers={"Accept": accept})
    assert response.status_code == 200
    objects = [pydicom.dcmread(BytesIO(body)) for body in parts(response)]
    assert [o.SOPClassUID for o in objects] == list(CLASSES.values())
    assert {o.StudyInstanceUID for o in objects} == {builders.UIDS.study}


@pytest.mark.parametrize("kind", list(ObjectKind))
def test_programs_get_the_one_object_that_they_name(client: FlaskClient, kind: ObjectKind) -> None:
    response = post(client, headers=ONE, object=kind.value)
    assert response.content_type == "application/dicom"
    assert pydicom.dcmread(BytesIO(response.data)).SOPClassUID == CLASSES[kind]


def test_without_a_name_it_is_the_report(client: FlaskClient) -> None:
    response = post(client, headers=ONE)
    assert pydicom.dcmread(BytesIO(response.data)).Modality == "SR"


def test_an_object_that_there_is_none_of_is_400(client: FlaskClient, engine: FakeEngine) -> None:
    assert problem(post(client, object="film", headers=ONE)) == (400, "invalid_option")
    assert engine.batches == []


@pytest.mark.parametrize("headers", [PARTS, ONE])
def test_a_file_that_cannot_be_referred_to_is_422_and_analysed_all_the_same(
    client: FlaskClient, headers: dict[str, str]
) -> None:
    data = builders.dicom(attributes={"StudyInstanceUID": None})
    response = post(client, data, headers=headers)
    assert problem(response) == (422, "not_referable")
    assert "StudyInstanceUID (0020,000D)" in response.get_json()["detail"]
    assert post(client, data, headers=JSON).status_code == 200


def test_several_frames_are_refused_before_there_are_objects(client: FlaskClient) -> None:
    data = builders.dicom(attributes={"NumberOfFrames": 2})
    assert problem(post(client, data, headers=PARTS)) == (422, "several_frames")


def test_a_model_that_fails_makes_no_object(client: FlaskClient, engine: FakeEngine) -> None:
    engine.logits["ResNet50"] = float("nan")
    assert problem(post(client, headers=PARTS)) == (503, "model_output_invalid")


def test_objects_of_a_sample_can_be_had_too(client: FlaskClient) -> None:
    response = client.post("/samples/lumbar-normal", headers=PARTS)
    assert len(parts(response)) == 3


def test_other_answers_do_not_name_the_patient(client: FlaskClient) -> None:
    data = builders.dicom(attributes={"PatientName": "KANARIENVOGEL", "StudyID": "KANARIENVOGEL"})
    for headers in (JSON, PAGE, {"Accept": "image/png"}):
        assert b"KANARIENVOGEL" not in post(client, data, headers=headers).data
    assert b"KANARIENVOGEL" in post(client, data, headers=ONE).data


def test_the_page_offers_each_object(client: FlaskClient) -> None:
    page = post(client, headers=PAGE).text
    for kind in ObjectKind:
        assert f'data-action="save-dicom" data-object="{kind}"' in page
