from __future__ import annotations

from io import BytesIO
from pathlib import Path

from flask.testing import FlaskClient
from werkzeug.datastructures import FileStorage

from spinexr.reporting import pixels
from tests import builders
from tests.reporting.test_pixels import decoded
from tests.web.test_upload import problem


def post(client: FlaskClient, data: bytes, **fields: str):  # type: ignore[no-untyped-def]
    return client.post("/pixels", data={"file": FileStorage(BytesIO(data), "a.dcm"), **fields})


def test_pixels_are_the_stored_values_and_nothing_is_left_behind(
    client: FlaskClient, spool: Path
) -> None:
    response = post(client, builders.dicom())
    assert response.status_code == 200
    assert response.content_type == pixels.MEDIA_TYPE
    assert response.headers["Cache-Control"] == "no-store"
    head, entries, _ = decoded(response.data)
    assert (entries + head["lowest"] == builders.pixels()).all()
    assert list(spool.iterdir()) == []


def test_what_is_refused_for_analysis_is_refused_for_viewing(client: FlaskClient) -> None:
    knee = builders.dicom(attributes={"BodyPartExamined": "KNEE"})
    assert problem(post(client, knee)) == (422, "other_body_part")
    assert post(client, knee, allow_other_body_part="1").status_code == 200
    assert problem(client.post("/pixels")) == (400, "file_missing")


def test_the_answer_names_no_patient(client: FlaskClient) -> None:
    named = builders.dicom(attributes={"PatientName": "Doe^Jane", "PatientID": "4711"})
    body = post(client, named).data
    assert b"Doe" not in body
    assert b"4711" not in body
