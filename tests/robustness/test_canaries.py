"""A marked patient and a marked file name: what of them the service leaves anywhere."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import pytest

from spinexr.imaging import header
from tests import builders
from tests.robustness.service import Service, running

CANARY = "KANARIENVOGEL"
NAME = f"{CANARY}^{CANARY}.dcm"
# Who it is, where, when, and whatever people type into a header; text of 30 kinds of attributes.
IDENTIFYING = (
    "PatientName", "PatientID", "OtherPatientNames", "IssuerOfPatientID", "PatientBirthName",
    "PatientMotherBirthName", "PatientAddress", "PatientTelephoneNumbers", "PatientComments",
    "AdditionalPatientHistory", "EthnicGroup", "Occupation", "MilitaryRank", "CountryOfResidence",
    "RegionOfResidence", "PatientReligiousPreference", "AccessionNumber", "StudyID",
    "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName", "RequestingPhysician",
    "PhysiciansOfRecord", "NameOfPhysiciansReadingStudy", "InstitutionName", "InstitutionAddress",
    "InstitutionalDepartmentName", "StationName", "ImageComments", "RequestedProcedureDescription",
)  # fmt: skip


def marked() -> bytes:
    return builders.dicom(attributes=dict.fromkeys(IDENTIFYING, CANARY))


def damaged(data: bytes) -> list[bytes]:
    """The same patient in files that are refused, for many reasons."""
    return [
        data[: len(data) // 2],
        data[:2000],
        data.replace(b"MONOCHROME2", b"MONOKROM^^2"),
        data.replace(b"DX", b"MR"),
        CANARY.encode() * 100,
    ]


def test_no_patient_and_no_file_name_is_left_anywhere(small_weights: Path, tmp_path: Path) -> None:
    """Seen failing where the log names files (tools/weaken.py)."""
    audit = tmp_path / "audit.log"
    with (
        running(small_weights, tmp_path, SPINEXR_LOG_LEVEL="debug",
                SPINEXR_AUDIT_FILE=str(audit)) as service,
        contextlib.closing(service.client()) as client,
    ):  # fmt: skip
        data = marked()
        assert CANARY.encode() in data
        answers = [client.post(data, name=NAME)]
        assert answers[0].status == 200
        answers += [client.post(bad, name=NAME) for bad in damaged(data)]
        assert all(400 <= a.status < 500 for a in answers[1:]), [a.status for a in answers]
        answers += [client.post(data, name=NAME, path="/pixels")]
        answers += [client.post(data, name=f"{CANARY}.png"), client.get(f"/{CANARY}?{CANARY}=1")]
        answers += [client.post(data, name=NAME, path=f"/upload?detect={CANARY}")]
        metrics = client.get("/metrics").body
        found = leaks(service, audit)
        for n, answer in enumerate(answers):
            if CANARY.encode() in answer.body:
                found.append(f"answer {n}")
            found += [f"{k} of answer {n}" for k, v in answer.headers.items() if CANARY in v]
        if CANARY.encode() in metrics:
            found.append("metrics")
    assert CANARY not in service.log
    assert found == []


def leaks(service: Service, audit: Path) -> list[str]:
    """Where the mark is found, by name."""
    found = [f"spool: {p}" for p in service.leftovers()]
    if CANARY in service.log:
        found.append("log")
    if CANARY in audit.read_text(encoding="utf-8"):
        found.append("audit file")
    for process in (service.worker, *service.worker.children(recursive=True)):
        if any(CANARY in word for word in process.cmdline()):
            found.append("command line")
    return found


def test_requests_that_cannot_be_parsed_are_not_quoted(service: Service) -> None:
    """Seen failing where refused requests are quoted (tools/weaken.py)."""
    for text in (
        f"GET /{CANARY} HTTP/9.9", f"{CANARY} / HTTP/1.1", f"GET /{CANARY}", CANARY,
        f"GET / HTTP/1.1\r\n{CANARY}", f"GET / HTTP/1.1\r\n({CANARY}): 1",
        f"POST /upload HTTP/1.1\r\nTransfer-Encoding: {CANARY}",
        f"POST /upload HTTP/1.1\r\nContent-Length: {CANARY}",
    ):  # fmt: skip
        with socket.create_connection(("127.0.0.1", service.port), timeout=30) as connection:
            connection.sendall(text.encode() + b"\r\n\r\n")
            assert connection.recv(65536).startswith((b"HTTP/1.1 4", b"HTTP/1.1 501"))
    service.wait_for_log("a request was refused")
    assert CANARY not in service.log


@pytest.mark.parametrize("keyword", header.PATIENT)
def test_nobody_is_named_among_what_is_shown(keyword: str) -> None:
    """Seen failing where names are among what is shown (tools/weaken.py)."""
    assert keyword not in header.SHOWN
