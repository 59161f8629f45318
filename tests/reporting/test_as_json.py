from __future__ import annotations

import base64
import json

import pytest
from jsonschema import Draft202012Validator

from spinexr.domain import DetectPolicy
from spinexr.reporting import as_json, overlay
from tests.analyses import SCHEMA, analysis, schema_errors


def test_the_schema_is_a_valid_schema() -> None:
    Draft202012Validator.check_schema(json.loads(SCHEMA.read_text(encoding="utf-8")))


@pytest.mark.parametrize("abnormal", [True, False])
@pytest.mark.parametrize("detect", list(DetectPolicy))
def test_every_answer_follows_the_schema(abnormal: bool, detect: DetectPolicy) -> None:
    result = analysis(abnormal=abnormal, detect=detect)
    assert schema_errors(as_json.document(result)) == []
    assert schema_errors(as_json.document(result, image=overlay.as_jpeg(result))) == []


def test_the_document_survives_json_and_says_what_was_found() -> None:
    result = analysis(attributes={"PixelSpacing": [0.2, 0.2]})
    document = json.loads(json.dumps(as_json.document(result)))
    assert document["decision"] == "abnormal"
    assert document["probability"] > document["threshold"] == 0.449
    assert [m["weight"] for m in document["members"]] == [0.42, 0.26, 0.32]
    firm, tentative = document["detection"]["findings"]
    assert (firm["status"], tentative["status"]) == ("firm", "tentative")
    assert firm["box"] == {"x1": 10.0, "y1": 20.0, "x2": 60.0, "y2": 90.0}
    assert document["image"]["pixel_spacing"]["source"] == "PixelSpacing"
    assert document["bundle"]["caveat"].startswith("Untrained weights")


def test_the_activation_map_is_there_on_request_only() -> None:
    assert "activation_map" not in as_json.document(analysis())
    abnormal = as_json.document(analysis(), activation=True)
    assert (abnormal["activation_map"]["rows"], abnormal["activation_map"]["columns"]) == (2, 3)
    assert abnormal["activation_map"]["values"][0][0] == pytest.approx(-1.0)
    normal = as_json.document(analysis(abnormal=False), activation=True)
    assert normal["activation_map"] is None
    assert schema_errors(abnormal) == schema_errors(normal) == []


def test_an_override_of_the_body_part_is_carried() -> None:
    spine = as_json.document(analysis(allow_other_body_part=True))
    assert spine["other_body_part_allowed"] is False
    chest = as_json.document(
        analysis(allow_other_body_part=True, attributes={"BodyPartExamined": "CHEST"})
    )
    assert chest["other_body_part_allowed"] is True
    assert [n["code"] for n in chest["notices"]] == ["other_body_part"]
    assert schema_errors(chest) == []


def test_the_embedded_image_is_the_annotated_one() -> None:
    result = analysis()
    image = overlay.as_jpeg(result)
    uri = as_json.document(result, image=image)["image"]["annotated"]["data_uri"]
    assert base64.b64decode(uri.split(",", 1)[1]) == image.data


def test_the_schema_notices_a_broken_document() -> None:
    document = as_json.document(analysis())
    document["probability"] = 1.5
    document["detection"]["findings"][0]["status"] = "certain"
    del document["disclaimer"]
    assert len(schema_errors(document)) == 3


def test_images_of_a_study_belong_together_and_its_uid_stays_here() -> None:
    study = {"StudyInstanceUID": "1.2.3.4.5", "SeriesNumber": 2, "InstanceNumber": 7}
    result = analysis(attributes=study)
    assert "grouping" not in as_json.document(result)
    document = as_json.document(result, grouping_key="a")
    assert schema_errors(document) == []
    assert document["grouping"]["series_number"] == 2
    assert document["grouping"]["instance_number"] == 7
    same, other = (as_json.document(result, grouping_key=k)["grouping"]["study"] for k in "ab")
    assert document["grouping"]["study"] == same != other
    assert "1.2.3.4.5" not in json.dumps(document)


def test_an_image_that_names_no_study_belongs_to_none() -> None:
    result = analysis(attributes={"StudyInstanceUID": None})
    document = as_json.document(result, grouping_key="a")
    assert document["grouping"] is None
    assert schema_errors(document) == []
