from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom.data
import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from pydicom import uid
from werkzeug.datastructures import FileStorage
from werkzeug.test import TestResponse, encode_multipart

from spinexr.settings import MEBIBYTE
from tests import builders
from tests.analyses import schema_errors
from tests.fakes import NORMAL, FakeEngine

JSON = {"Accept": "application/json"}
PAGE = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def post(
    client: FlaskClient,
    data: bytes | None = None,
    name: str = "image.dcm",
    *,
    headers: Mapping[str, str] = JSON,
    **fields: Any,
) -> TestResponse:
    file = FileStorage(BytesIO(builders.dicom() if data is None else data), name)
    boundary, body = encode_multipart({"file": file, **fields})
    content_type = f'multipart/form-data; boundary="{boundary}"'
    return client.post("/upload", data=body, content_type=content_type, headers=headers)


def problem(response: TestResponse) -> tuple[int, str]:
    """(status, code) of a problem+json answer."""
    assert response.content_type == "application/problem+json"
    document = response.get_json()
    assert document["status"] == response.status_code
    assert document["title"]
    assert document["detail"]
    return response.status_code, document["code"]


def test_json_answers_follow_the_published_schema(client: FlaskClient) -> None:
    response = post(client)
    assert response.status_code == 200
    assert response.content_type == "application/json"
    document = response.get_json()
    assert schema_errors(document) == []
    assert document["image"]["annotated"]["data_uri"].startswith("data:image/jpeg;base64,")


def test_scripts_get_the_annotated_picture_at_full_size(client: FlaskClient) -> None:
    response = post(client, headers={"Accept": "image/png"})
    assert response.content_type == "image/png"
    with Image.open(BytesIO(response.data)) as picture:
        assert picture.width == builders.pixels().shape[1]


def test_near_the_cut_off_the_answer_says_so(client: FlaskClient, engine: FakeEngine) -> None:
    assert not post(client).get_json()["review"]["near_cutoff"]
    assert "Near the cut-off" not in post(client, headers=PAGE).text
    engine.logits = dict.fromkeys(engine.logits, -0.2)
    assert post(client).get_json()["review"] == {"low": 0.399, "high": 0.499, "near_cutoff": True}
    assert "Near the cut-off: read closely." in post(client, headers=PAGE).text


@pytest.mark.parametrize("headers", [PAGE, {}, {"Accept": "*/*"}])
def test_people_get_a_page(client: FlaskClient, headers: Mapping[str, str]) -> None:
    response = post(client, headers=headers)
    assert response.status_code == 200
    assert response.content_type.startswith("text/html")
    page = response.text
    assert "Abnormal, 0.881 (cut-off 0.449): one firm finding, one tentative." in page
    for shown in ("DenseNet121", "0.42", "Osteophytes", "tentative", "data:image/jpeg", "SPINE",
                  "Untrained weights", "never a diagnosis"):  # fmt: skip
        assert shown in page


def test_a_normal_page_says_that_the_detector_did_not_run(
    client: FlaskClient, engine: FakeEngine
) -> None:
    engine.logits = dict.fromkeys(engine.logits, NORMAL)
    page = post(client, headers=PAGE).text
    assert "Normal, 0.119 (cut-off 0.449)." in page
    assert "did not run" in page


def test_the_activation_map_comes_on_request_and_on_the_page(
    client: FlaskClient, engine: FakeEngine
) -> None:
    assert "activation_map" not in post(client).get_json()
    assert post(client, activation_map="1").get_json()["activation_map"]["rows"] == 2
    assert "What spoke for" in post(client, headers=PAGE).text
    engine.logits = dict.fromkeys(engine.logits, NORMAL)
    assert "What spoke for" not in post(client, headers=PAGE).text


def test_disagreement_is_said_in_words(client: FlaskClient, engine: FakeEngine) -> None:
    engine.logits = dict.fromkeys(engine.logits, NORMAL)
    page = post(client, headers=PAGE, detect="always").text
    assert "call the image normal, but the detector marks firm findings" in page


@pytest.mark.parametrize(
    "name",
    ["IM000001", "a.dcm", "a.DCM", "a.dicom", "1.2.840.113619.2.5", "..\\..\\x.dcm",
     "../../etc/passwd", "/etc/passwd", "ü–漢.dcm", "a b;c&d$(e).dcm", "x" * 5000 + ".dcm", ".dcm"],
)  # fmt: skip
def test_names_of_archives_and_of_attackers_are_only_names(
    client: FlaskClient, spool: Path, name: str
) -> None:
    response = post(client, name=name)
    assert response.status_code == 200
    assert name not in response.text
    assert list(spool.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["a.png", "a.dcm.jpg", "a.zip", "a.txt", "a.dcm ", "a.123x", "x.png.1"]
)
def test_other_extensions_are_415(client: FlaskClient, name: str) -> None:
    assert problem(post(client, name=name)) == (415, "unsupported_extension")


Case = tuple[Callable[[], bytes], int, str]
BAD: dict[str, Case] = {
    "wrong type": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(500), 415, "not_dicom"),
    "empty": (lambda: b"", 415, "empty_file"),
    "truncated": (lambda: builders.dicom()[:20_000], 422, "corrupt_dicom"),
    "truncated in the header": (lambda: builders.dicom()[:500], 422, "no_pixel_data"),
    "truncated compressed": (
        lambda: builders.dicom(transfer_syntax=uid.JPEGLosslessSV1)[:-900],
        422,
        "corrupt_dicom",
    ),
    "no pixel data": (
        lambda: builders.dicom(attributes={"PixelData": None}),
        422,
        "no_pixel_data",
    ),
    "several frames": (
        lambda: builders.dicom(attributes={"NumberOfFrames": 2}),
        422,
        "several_frames",
    ),
    "CT": (lambda: builders.dicom(attributes={"Modality": "CT"}), 422, "unsupported_modality"),
    "RGB": (
        lambda: builders.dicom(
            attributes={"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}
        ),
        422,
        "not_greyscale",
    ),
    "chest": (
        lambda: builders.dicom(attributes={"BodyPartExamined": "CHEST"}),
        422,
        "other_body_part",
    ),
    "constant": (lambda: builders.dicom(builders.pixels() * 0 + 9), 422, "constant_image"),
    "tiny": (lambda: builders.dicom(builders.pixels(40, 40)), 422, "image_too_small"),
    "17 MB": (lambda: builders.dicom()[:200] + bytes(17 * MEBIBYTE), 413, "too_large"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_and_nothing_is_left(
    client: FlaskClient, spool: Path, case: str
) -> None:
    make, status, code = BAD[case]
    assert problem(post(client, make())) == (status, code)
    assert list(spool.iterdir()) == []


@pytest.mark.parametrize("case", BAD)
def test_people_get_the_same_refusal_as_a_page(client: FlaskClient, case: str) -> None:
    make, status, code = BAD[case]
    response = post(client, make(), headers=PAGE)
    assert response.status_code == status
    assert response.content_type.startswith("text/html")
    assert f"<code>{code}</code>" in response.text
    assert "Choose another file" in response.text


def test_a_refusal_names_the_tag_and_the_value(client: FlaskClient) -> None:
    response = post(client, builders.dicom(attributes={"BodyPartExamined": "KNEE"}))
    assert "(0018,0015)" in response.get_json()["detail"]
    assert "KNEE" in response.get_json()["detail"]


def test_values_of_the_file_are_escaped_on_the_page(client: FlaskClient) -> None:
    hostile = "<script>alert(1)</script> SPINE"
    for attributes in ({"SeriesDescription": hostile}, {"SeriesDescription": hostile + " CHEST",
                       "BodyPartExamined": "CHEST"}):  # fmt: skip
        page = post(client, builders.dicom(attributes=attributes), headers=PAGE).text
        assert "<script>alert" not in page


def test_a_file_of_exactly_the_limit_is_not_too_large(
    make_app: Callable[..., Flask],
) -> None:
    client = make_app(max_upload_mb=1).test_client()
    header = builders.dicom()
    assert problem(post(client, header + bytes(MEBIBYTE - len(header) + 1))) == (413, "too_large")
    assert post(client, header + bytes(MEBIBYTE - len(header))).status_code != 413


def test_another_body_part_can_be_allowed_and_the_answer_says_so(client: FlaskClient) -> None:
    chest = builders.dicom(attributes={"BodyPartExamined": "CHEST"})
    for response in (
        post(client, chest, allow_other_body_part="1"),
        client.post(
            "/upload?allow_other_body_part=1",
            data={"file": (BytesIO(chest), "a.dcm")},
            headers=JSON,
        ),
    ):
        assert response.status_code == 200
        assert response.get_json()["other_body_part_allowed"] is True
    assert "was asked for" in post(client, chest, headers=PAGE, allow_other_body_part="1").text


def test_a_missing_field_is_400(client: FlaskClient) -> None:
    wrong = {"image": (BytesIO(builders.dicom()), "a.dcm")}
    for response in (
        client.post("/upload", headers=JSON),
        client.post("/upload", data={"x": "1"}, headers=JSON),
        client.post("/upload", data=b"raw", content_type="application/dicom", headers=JSON),
        client.post("/upload", data=b"x", content_type="multipart/form-data", headers=JSON),
        client.post("/upload", data=wrong, headers=JSON, content_type="multipart/form-data"),
        post(client, name=""),
    ):
        assert problem(response) == (400, "file_missing")


def test_two_files_are_400(client: FlaskClient, spool: Path) -> None:
    two = [(BytesIO(builders.dicom()), "a.dcm"), (BytesIO(builders.dicom()), "b.dcm")]
    response = client.post("/upload", data={"file": two}, headers=JSON)
    assert problem(response) == (400, "several_files")
    other = {
        "file": (BytesIO(builders.dicom()), "a.dcm"),
        "more": (BytesIO(builders.dicom()), "b.dcm"),
    }
    response = client.post("/upload", data=other, headers=JSON)
    assert problem(response) == (400, "several_files")
    assert list(spool.iterdir()) == []


@pytest.mark.parametrize(
    "fields", [{"detect": "sometimes"}, {"allow_other_body_part": "maybe"}, {"activation_map": "2"}]
)
def test_unknown_options_are_400(client: FlaskClient, fields: dict[str, Any]) -> None:
    assert problem(post(client, **fields)) == (400, "invalid_option")


def test_too_many_form_parts_are_refused(client: FlaskClient) -> None:
    fields: dict[str, Any] = {f"f{n}": "x" for n in range(50)}
    assert problem(post(client, **fields)) == (400, "bad_request")


def test_a_model_that_fails_is_503_and_never_a_normal(
    client: FlaskClient, engine: FakeEngine
) -> None:
    engine.logits["ResNet50"] = float("nan")
    response = post(client)
    assert problem(response) == (503, "model_output_invalid")
    assert "Retry-After" in response.headers
    assert "normal" not in response.text.lower().replace("model", "")


def test_the_spool_is_used_and_empty_afterwards(
    make_app: Callable[..., Flask], spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    folders: list[Path] = []
    original = tempfile.TemporaryFile

    def spy(*args: Any, **kwargs: Any) -> Any:
        folders.append(kwargs["dir"])
        return original(*args, **kwargs)

    client = make_app().test_client()
    monkeypatch.setattr(tempfile, "TemporaryFile", spy)
    assert post(client).status_code == 200
    assert folders == [spool]
    assert list(spool.iterdir()) == []


def test_no_file_that_pydicom_bundles_is_a_fault_of_the_server(client: FlaskClient) -> None:
    folder = Path(pydicom.data.__file__).parent / "test_files"
    for file in sorted(f for f in folder.rglob("*") if f.is_file()):
        assert post(client, file.read_bytes()).status_code in (415, 422), file.name
