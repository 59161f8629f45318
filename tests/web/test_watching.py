"""What the service says of itself: probes, metrics, audit lines, log formats."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from io import BytesIO, StringIO
from logging.handlers import RotatingFileHandler
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from spinexr import stopping
from spinexr.errors import ConfigurationError, ModelsNotReadyError
from spinexr.imaging.sandbox import Sandbox
from spinexr.inference.predictor import Predictor
from spinexr.logs import AUDIT
from spinexr.settings import Settings
from spinexr.web import create_app
from spinexr.web.models import Models
from tests import builders
from tests.fakes import FakeEngine
from tests.processes import ROOT

JSON = {"Accept": "application/json"}


def upload(client: FlaskClient, data: bytes | None = None, name: str = "a.dcm") -> int:
    form = {"file": (BytesIO(data or builders.dicom()), name)}
    return client.post("/upload", data=form, headers=JSON).status_code


class Metrics:
    """What /metrics says."""

    def __init__(self, client: FlaskClient) -> None:
        families = text_string_to_metric_families(client.get("/metrics").text)
        self.samples = [sample for family in families for sample in family.samples]

    def value(self, sample: str, **labels: str) -> float:
        """Of the one sample of that name and these labels."""
        named = [s for s in self.samples if s.name == sample]
        (found,) = [s for s in named if labels.items() <= s.labels.items()]
        return float(found.value)


@pytest.fixture
def stopped() -> Iterator[None]:
    """As after SIGTERM."""
    stopping.REQUESTED.set()
    yield
    stopping.REQUESTED.clear()


def test_it_lives_before_it_is_ready(tmp_path: Path) -> None:
    settings = Settings(weights=tmp_path, uploads=tmp_path / "uploads")
    models = Models.for_settings(settings, Sandbox())
    client = create_app(settings, models=models).test_client()
    models.wait()
    assert client.get("/livez").status_code == 200
    assert client.get("/readyz").status_code == 503
    with pytest.raises(ModelsNotReadyError):
        models.predictor()


def test_it_is_ready_with_its_models(client: FlaskClient) -> None:
    assert client.get("/readyz").status_code == 200


@pytest.mark.usefixtures("stopped")
def test_it_is_not_ready_once_it_is_to_end(client: FlaskClient) -> None:
    assert client.get("/readyz").status_code == 503
    assert client.get("/livez").status_code == 200
    assert upload(client) == 200


def test_metrics_count_requests_results_and_refusals(client: FlaskClient) -> None:
    upload(client)
    upload(client, b"x", "a.png")
    found = Metrics(client)
    name = "spinexr_requests_total"
    assert found.value(name, endpoint="upload.upload", status="200", code="ok") == 1
    assert found.value(name, status="415", code="unsupported_extension") == 1
    assert found.value("spinexr_results_total", decision="abnormal") == 1
    assert found.value("spinexr_findings_total", status="firm") == 1
    assert found.value("spinexr_stage_seconds_count", stage="classify") == 1
    assert found.value("spinexr_ready") == 1


def test_metrics_tell_how_full_it_is(client: FlaskClient, predictor: Predictor) -> None:
    with predictor.place():
        assert Metrics(client).value("spinexr_queue_depth") == 1
    assert Metrics(client).value("spinexr_queue_depth") == 0
    assert Metrics(client).value("spinexr_queue_places") == 2


def test_metrics_name_the_bundle_by_its_hash(client: FlaskClient, predictor: Predictor) -> None:
    labels = {"name": "fake", "sha256": predictor.fingerprint, "precision": "exact"}
    assert Metrics(client).value("spinexr_bundle_info", **labels) == 1


def test_a_path_that_a_client_makes_up_is_no_label(client: FlaskClient) -> None:
    client.get("/CANARY")
    client.open("/upload", method="CANARY")
    assert "CANARY" not in client.get("/metrics").text


def test_each_analysis_leaves_a_line_without_a_patient(
    make_app: Callable[..., Flask], tmp_path: Path, engine: FakeEngine
) -> None:
    file = tmp_path / "audit" / "audit.log"
    client = make_app(audit_file=file).test_client()
    upload(client, builders.dicom(attributes={"PatientName": "CANARY"}), "CANARY.dcm")
    upload(client, builders.dicom(attributes={"BodyPartExamined": "KNEE"}))
    upload(client, b"x", "a.png")  # nothing was analysed
    text = file.read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["outcome"] for line in lines] == ["abnormal", "other_body_part"]
    assert all(len(line["bundle"]) == 64 and line["ms"] >= 0 for line in lines)
    assert "CANARY" not in text


def test_the_audit_file_makes_room_for_itself(
    make_app: Callable[..., Flask], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spinexr.logs._AUDIT_BYTES", 1000)
    client = make_app(audit_file=tmp_path / "audit.log").test_client()
    for _ in range(40):
        upload(client)
    files = sorted(tmp_path.glob("audit.log*"))
    assert len(files) == 6
    assert all(f.stat().st_size <= 1000 for f in files)


class Full(StringIO):
    """A file on a disk without room."""

    def write(self, _text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_without_room_for_its_audit_line_there_is_no_result(
    make_app: Callable[..., Flask], tmp_path: Path
) -> None:
    client = make_app(audit_file=tmp_path / "audit.log").test_client()
    (handler,) = (
        h for h in logging.getLogger(AUDIT).handlers if isinstance(h, RotatingFileHandler)
    )
    whole = handler.setStream(Full())  # type: ignore[arg-type]
    assert upload(client) == 507
    assert whole is not None
    handler.setStream(whole)
    assert upload(client) == 200


def test_an_audit_file_that_cannot_be_written_is_named(
    make_app: Callable[..., Flask], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"SPINEXR_AUDIT_FILE=.*audit\.log"):
        make_app(audit_file=tmp_path / "file" / "audit.log")


def test_log_lines_are_json_where_programs_read_them(
    make_app: Callable[..., Flask], capsys: pytest.CaptureFixture[str]
) -> None:
    client = make_app(log_format="json").test_client()
    upload(client, b"x", "a.png")
    line = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert line["event"] == "request"
    assert (line["status"], line["code"]) == (415, "unsupported_extension")
    assert line["timestamp"].endswith("Z")


def test_the_patient_is_shown_only_where_the_deployer_wants_it() -> None:
    data = builders.dicom(attributes={"PatientName": "Doe^Jane", "PatientID": "4711"})
    for wanted in (False, True):
        settings = Settings(show_patient=wanted, readers=1)
        sandbox = Sandbox(settings.sandbox_options)
        shown = {a.value for a in sandbox.read(data, max_pixels=10**7).attributes}
        sandbox.close()
        assert ("Doe^Jane" in shown) is wanted
        assert ("4711" in shown) is wanted


@pytest.mark.parametrize(
    ("value", "warned"), [("YES", True), ("NO", False), (None, False), ("MAYBE", True)]
)
def test_text_in_the_pixels_is_warned_of(
    client: FlaskClient, value: str | None, warned: bool
) -> None:
    data = builders.dicom(attributes={"BurnedInAnnotation": value})
    form = {"file": (BytesIO(data), "a.dcm")}
    page = client.post("/upload", data=form, headers={"Accept": "text/html"}).text
    assert ("burned into its pixels" in page) is warned


def test_an_analysis_that_does_not_end_is_an_error_and_frees_its_place(
    make_app: Callable[..., Flask], engine: FakeEngine, predictor: Predictor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    client = make_app(request_timeout_s=1).test_client()
    release = threading.Event()
    real = engine.classify

    def hang(*args: object, **kwargs: object) -> object:
        release.wait(30)
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "classify", hang)
    form = {"file": (BytesIO(builders.dicom()), "a.dcm")}
    response = client.post("/upload", data=form, headers=JSON)
    assert (response.status_code, response.get_json()["code"]) == (503, "deadline_exceeded")
    assert int(response.headers["Retry-After"]) > 0
    assert predictor.taken == 0
    release.set()
    assert upload(client) == 200


def test_the_dashboard_asks_for_metrics_that_there_are(client: FlaskClient) -> None:
    upload(client)
    dashboard = json.loads((ROOT / "deploy/grafana.json").read_text(encoding="utf-8"))
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"\b(?:spinexr|process)_\w+", target["expr"])
    }
    assert len(asked) > 10
    offered = {sample.name for sample in Metrics(client).samples}
    assert asked <= offered
