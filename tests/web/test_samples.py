from __future__ import annotations

import errno
from pathlib import Path

import pydicom
import pytest
from flask.testing import FlaskClient

from spinexr.datasets.vindr import CLASSES
from spinexr.web import samples

NAMES = [s.name for s in samples.shipped()]


def test_six_samples_ship_one_normal_five_findings_two_views_two_syntaxes() -> None:
    shipped = samples.shipped()
    assert len(shipped) == 6
    assert [s.findings for s in shipped].count(()) == 1
    assert len({f for s in shipped for f in s.findings}) == 5
    assert {f for s in shipped for f in s.findings} <= set(CLASSES)
    headers = [pydicom.dcmread(s.file) for s in shipped]
    assert len({h.file_meta.TransferSyntaxUID for h in headers}) == 2
    assert {h.ViewPosition in ("LL", "RL") for h in headers} == {True, False}
    assert all(s.file.stat().st_size <= 500_000 for s in shipped)


def test_the_list_is_a_page_and_a_document(client: FlaskClient) -> None:
    page = client.get("/samples")
    assert page.status_code == 200
    assert page.mimetype == "text/html"
    listed = client.get("/samples", headers={"Accept": "application/json"}).get_json()
    assert [s["name"] for s in listed["samples"]] == NAMES
    for name in NAMES:
        assert f'action="/samples/{name}"' in page.text


def test_the_front_page_offers_each_by_one_button_without_javascript(client: FlaskClient) -> None:
    page = client.get("/").text
    for name in NAMES:
        assert f'<form action="/samples/{name}" method="post"' in page
        with client.get(f"/static/samples/{name}.jpg") as picture:
            assert picture.status_code == 200


@pytest.mark.parametrize("name", NAMES)
def test_every_sample_is_analysed_without_a_warning(client: FlaskClient, name: str) -> None:
    answer = client.post(f"/samples/{name}", headers={"Accept": "application/json"})
    assert answer.status_code == 200
    assert answer.get_json()["notices"] == []
    assert client.post(f"/samples/{name}").mimetype == "text/html"


@pytest.mark.parametrize("name", NAMES)
def test_every_sample_can_be_taken_along(client: FlaskClient, name: str) -> None:
    with client.get(f"/samples/{name}") as answer:
        assert answer.mimetype == "application/dicom"
        assert answer.data[128:132] == b"DICM"
        assert f"{name}.dcm" in answer.headers["Content-Disposition"]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_a_sample_that_cannot_be_opened_for_want_of_descriptors_is_asked_for_again(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def none_left(_path: Path) -> bytes:
        raise OSError(number, "none left")

    monkeypatch.setattr(Path, "read_bytes", none_left)
    answer = client.post(f"/samples/{NAMES[0]}", headers={"Accept": "application/json"})
    assert (answer.status_code, answer.get_json()["code"]) == (503, "busy")
    assert int(answer.headers["Retry-After"]) > 0


@pytest.mark.parametrize("name", ["none", "..", "index.json", "%2e%2e%2fapp"])
def test_what_is_no_sample_is_not_found(client: FlaskClient, name: str) -> None:
    assert client.post(f"/samples/{name}").status_code in (404, 405)
    assert client.get(f"/samples/{name}").status_code == 404
