from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from spinexr.errors import (
    ConfigurationError,
    ModelsNotReadyError,
    Problem,
    SpineXRError,
    all_error_classes,
)
from spinexr.imaging.sandbox import Sandbox
from spinexr.inference.predictor import Predictor
from spinexr.settings import Settings
from spinexr.web import create_app
from spinexr.web.errors import NEVER_ANSWERED, STATUS_OF_FAMILY, status_of
from spinexr.web.models import Models
from tests import builders
from tests.fakes import FakeEngine
from tests.processes import ROOT

JSON = {"Accept": "application/json"}
PAGE = {"Accept": "text/html"}


def upload(client: FlaskClient, headers: dict[str, str] = JSON) -> object:
    data = {"file": (BytesIO(builders.dicom()), "image.dcm")}
    return client.post("/upload", data=data, headers=headers)


@pytest.fixture
def bare(tmp_path: Path) -> FlaskClient:
    """A client of an application without weights."""
    settings = Settings(weights=tmp_path, uploads=tmp_path / "uploads")
    models = Models.for_settings(settings, Sandbox())
    app = create_app(settings, models=models)
    models.wait()
    return app.test_client()


def test_the_page_offers_a_plain_form_with_its_limits(client: FlaskClient) -> None:
    page = client.get("/").text
    assert 'action="/upload"' in page
    assert 'enctype="multipart/form-data"' in page
    assert 'type="file" name="file"' in page
    assert "at most 16 MB" in page
    assert ".dicom" in page


def test_page_and_health_say_where_the_weights_come_from(client: FlaskClient) -> None:
    assert "Weights: fake (answers set by a test)" in client.get("/").text
    bundle = client.get("/health").get_json()["bundle"]
    assert bundle["description"] == "answers set by a test"
    assert bundle["training_data"] == "none"
    assert "mean nothing" in bundle["caveat"]


def test_the_page_shows_the_bundles_caveat(client: FlaskClient) -> None:
    assert "Untrained weights" in client.get("/").text


def test_health_lists_every_model_when_all_have_answered(client: FlaskClient) -> None:
    response = client.get("/health")
    assert response.status_code == 200
    health = response.get_json()
    assert health["status"] == "ok"
    assert health["bundle"]["name"] == "fake"
    assert health["engine"] == {
        "name": "fake", "version": "1", "device": "cpu", "precision": "exact",
        "wanted_precision": "exact", "precision_note": None, "precision_measured": None,
    }  # fmt: skip
    assert len(health["models"]) == 3
    assert all(m["loaded"] and len(m["sha256"]) == 64 for m in health["models"])


def test_without_weights_health_is_503_and_names_every_file(bare: FlaskClient) -> None:
    response = bare.get("/health")
    assert response.status_code == 503
    health = response.get_json()
    assert health["status"] == "unavailable"
    assert [p["file"] for p in health["problems"]] == [m["file"] for m in health["models"]]
    assert len(health["models"]) == 4
    assert not any(m["loaded"] for m in health["models"])


def test_without_weights_the_page_says_what_is_missing_and_where_it_goes(
    bare: FlaskClient,
) -> None:
    response = bare.get("/")
    assert response.status_code == 200
    assert "ensemble output/resnet50_optimized/model_best.pth is missing" in response.text
    assert "SPINEXR_WEIGHTS" in response.text


def test_without_weights_an_upload_is_503_for_programs_and_people(bare: FlaskClient) -> None:
    response = bare.post("/upload", data={"file": (BytesIO(builders.dicom()), "a")}, headers=JSON)
    assert (response.status_code, response.get_json()["code"]) == (503, "models_not_ready")
    assert len(response.get_json()["problems"]) == 4
    assert int(response.headers["Retry-After"]) > 0
    page = bare.post("/upload", data={"file": (BytesIO(builders.dicom()), "a")}, headers=PAGE)
    assert page.status_code == 503
    assert "best.pt is missing" in page.text


def test_without_weights_readers_are_waited_for_before_they_are_ended(
    tmp_path: Path,
) -> None:
    happened = []

    class Noted(Sandbox):
        def start(self) -> Callable[[], None]:
            wait = super().start()

            def waited() -> None:
                wait()
                happened.append("there")

            return waited

        def close(self) -> None:
            super().close()
            happened.append("ended")

    models = Models.for_settings(Settings(weights=tmp_path), Noted())
    models.start()
    models.wait()
    assert happened == ["there", "ended"]


def test_one_missing_checkpoint_is_never_a_partial_ensemble(tmp_path: Path) -> None:
    for name in ("densenet121_balanced", "resnet50_optimized", "tf_efficientnetv2_s_optimized"):
        file = tmp_path / "ensemble output" / name / "model_best.pth"
        file.parent.mkdir(parents=True)
        file.write_bytes(b"weights")
    settings = Settings(weights=tmp_path, uploads=tmp_path / "uploads")
    models = Models.for_settings(settings, Sandbox())
    app = create_app(settings, models=models)
    models.wait()
    response = app.test_client().post(
        "/upload", data={"file": (BytesIO(builders.dicom()), "a")}, headers=JSON
    )
    assert response.status_code == 503
    assert [p["file"] for p in response.get_json()["problems"]] == [
        "detection output/yolo11/weights/best.pt"
    ]


def test_while_models_load_everything_answers_and_says_so(
    tmp_path: Path, predictor: Predictor
) -> None:
    import threading

    go = threading.Event()

    def load() -> Predictor:
        go.wait(60)
        return predictor

    models = Models(load)
    app = create_app(Settings(uploads=tmp_path / "u", weights=tmp_path), models=models)
    client = app.test_client()
    try:
        assert client.get("/health").get_json()["status"] == "starting"
        assert client.get("/health").status_code == 503
        assert "are being loaded" in client.get("/").text
        response = client.post(
            "/upload", data={"file": (BytesIO(builders.dicom()), "a")}, headers=JSON
        )
        assert response.status_code == 503
        assert response.headers["Retry-After"]
    finally:
        go.set()
        models.wait()
    assert client.get("/health").status_code == 200


def test_a_fault_while_loading_is_not_ready_instead_of_a_dead_server(tmp_path: Path) -> None:
    def load() -> Predictor:
        raise MemoryError

    models = Models(load)
    app = create_app(Settings(uploads=tmp_path / "u", weights=tmp_path), models=models)
    models.wait()
    health = app.test_client().get("/health")
    assert health.status_code == 503
    assert health.get_json()["problems"][0]["code"] == "load_failed"


def test_beyond_its_places_the_service_is_busy_and_still_healthy(
    client: FlaskClient, predictor: Predictor
) -> None:
    with predictor.place(), predictor.place():
        response = client.post(
            "/upload", data={"file": (BytesIO(builders.dicom()), "a.dcm")}, headers=JSON
        )
        assert (response.status_code, response.get_json()["code"]) == (503, "busy")
        assert response.headers["Retry-After"] == "2"
        assert client.get("/health").status_code == 200
    response = client.post("/upload", data={"file": (BytesIO(builders.dicom()), "a.dcm")})
    assert response.status_code == 200


def test_a_fault_says_nothing_of_itself_to_client_or_log(
    client: FlaskClient,
    engine: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("CANARY patient name")

    monkeypatch.setattr(engine, "classify", fail)
    logging.getLogger("spinexr").propagate = True
    response = client.post(
        "/upload", data={"file": (BytesIO(builders.dicom()), "CANARY.dcm")}, headers=JSON
    )
    logging.getLogger("spinexr").propagate = False
    assert (response.status_code, response.get_json()["code"]) == (500, "internal_error")
    assert "CANARY" not in response.text
    assert "CANARY" not in caplog.text
    assert "ValueError at" in caplog.text
    assert response.headers["X-Request-Id"] in response.get_json()["detail"]


def test_the_log_has_request_id_endpoint_and_code_but_no_path_query_or_name(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("spinexr").propagate = True
    client.post("/upload?CANARY=1", data={"file": (BytesIO(b"x"), "CANARY.png")}, headers=JSON)
    client.get("/CANARY")
    logging.getLogger("spinexr").propagate = False
    assert "CANARY" not in caplog.text
    events = [r.msg for r in caplog.records if isinstance(r.msg, dict)]
    refused, lost = events[0], events[-1]
    assert refused["endpoint"] == "upload.upload"
    assert (refused["status"], refused["code"]) == (415, "unsupported_extension")
    assert (lost["method"], lost["endpoint"], lost["code"]) == ("GET", "-", "not_found")


def test_what_pydicom_quotes_reaches_neither_log_nor_standard_error() -> None:
    # In a process of its own, since pytest replaces the warning filters. A character set that is
    # not known is quoted both as a warning and into the log, as any odd value may be.
    script = (
        "import logging; logging.basicConfig(level=0)\n"
        "from tests import builders; from spinexr.imaging import reader\n"
        "data = builders.dicom(attributes={'SpecificCharacterSet': 'ISO_IR 100'})\n"
        "damaged = data.replace(b'ISO_IR 100', b'CANARYNAME')\n"
        "assert damaged != data\n"
        "reader.read(damaged, max_pixels=10**7)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", script],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "CANARY" not in done.stderr
    assert "CANARY" not in done.stdout


@pytest.mark.parametrize("path", ["/", "/health", "/upload", "/nothing", "/static/spinexr.css"])
def test_every_answer_carries_the_security_headers(client: FlaskClient, path: str) -> None:
    with client.get(path) as response:
        headers = response.headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert "Access-Control-Allow-Origin" not in headers


def test_results_are_not_cached(client: FlaskClient) -> None:
    response = client.post("/upload", data={"file": (BytesIO(builders.dicom()), "a.dcm")})
    assert response.headers["Cache-Control"] == "no-store"


def test_pages_have_no_inline_script_or_style(client: FlaskClient) -> None:
    result = client.post("/upload", data={"file": (BytesIO(builders.dicom()), "a.dcm")})
    for page in (client.get("/").text, result.text, client.get("/x", headers=PAGE).text):
        assert "<style" not in page
        assert "style=" not in page
        assert "<script>" not in page
        assert "onclick" not in page


def test_only_configured_origins_may_read(make_app: Callable[..., Flask]) -> None:
    client = make_app(cors_origins=("https://reader.example",)).test_client()
    allowed = client.get("/health", headers={"Origin": "https://reader.example"})
    assert allowed.headers["Access-Control-Allow-Origin"] == "https://reader.example"
    other = client.get("/health", headers={"Origin": "https://other.example"})
    assert "Access-Control-Allow-Origin" not in other.headers


def test_unknown_paths_and_methods_are_problems_or_pages(client: FlaskClient) -> None:
    missing = client.get("/nothing", headers=JSON)
    assert (missing.status_code, missing.get_json()["code"]) == (404, "not_found")
    wrong = client.get("/upload")
    assert (wrong.status_code, wrong.get_json()["code"]) == (405, "method_not_allowed")
    assert "POST" in wrong.headers["Allow"]
    assert "PUT does nothing here" in client.put("/upload").get_json()["detail"]
    for address, said in (("/nothing", "nothing at this address"), ("/upload", "have no address")):
        page = client.get(address, headers=PAGE)
        assert page.content_type.startswith("text/html")
        assert said in page.text


def test_leftovers_of_a_killed_process_are_swept_at_start(
    make_app: Callable[..., Flask], spool: Path
) -> None:
    spool.mkdir()
    (spool / "spool-abc").write_bytes(b"radiograph")
    (spool / ".gitkeep").touch()
    make_app()
    assert [f.name for f in spool.iterdir()] == [".gitkeep"]


def test_a_spool_that_cannot_be_written_is_named(make_app: Callable[..., Flask]) -> None:
    with pytest.raises(ConfigurationError, match="SPINEXR_UPLOADS"):
        make_app(uploads=Path("/proc/nothing"))


def test_every_error_has_a_code_of_its_own_a_title_and_a_status() -> None:
    classes = all_error_classes()
    families = (*STATUS_OF_FAMILY, *NEVER_ANSWERED)
    assert len({c.code for c in classes}) == len(classes)
    for cls in classes:
        assert cls.title
        if cls is not SpineXRError:
            error = cls("message")
            assert any(isinstance(error, family) for family in families)
            assert 400 <= status_of(error) < 600


def test_problems_of_models_are_listed(tmp_path: Path) -> None:
    error = ModelsNotReadyError("two", [Problem("a", "first"), Problem("b", "second", "file")])

    def load() -> Predictor:
        raise error

    models = Models(load)
    app = create_app(Settings(uploads=tmp_path / "u", weights=tmp_path), models=models)
    models.wait()
    problems = app.test_client().get("/health").get_json()["problems"]
    assert problems == [
        {"code": "a", "message": "first", "file": None},
        {"code": "b", "message": "second", "file": "file"},
    ]
