"""Result sets as others read them, and the summary page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spinexr.batch import results, summary
from spinexr.batch.address import Address
from spinexr.batch.executor import Answer, Task
from spinexr.domain import DetectPolicy
from tests import builders
from tests.batch.workers import worker
from tests.fakes import NORMAL, FakeEngine

_KEPT = ("PatientID", "StudyDate", results.ADDRESS)


def rows(folder: Path, numbers: int = 3, **options: Any) -> list[dict[str, Any]]:
    """Rows of the real path."""
    asked = worker(**options)
    found = []
    for n in range(numbers):
        file = folder / f"{n}.dcm"
        attributes = {"SOPInstanceUID": f"1.2.{n}", "PatientID": f"patient {n}"}
        file.write_bytes(builders.dicom(builders.pixels(seed=n), attributes=attributes))
        outcome = asked(Task(n, Address(str(file))))
        assert isinstance(outcome, Answer)
        found.append({"input": n, **outcome.row})
    asked.close()
    return found


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Two parts."""
    folder = tmp_path / "results"
    folder.mkdir()
    made = rows(tmp_path)
    results.write_part(folder, 0, made[:2], results.schema(()))
    results.write_part(folder, 1, made[2:], results.schema(()))
    return folder


def test_a_row_has_a_value_for_every_column_and_no_other(tmp_path: Path) -> None:
    for keep in ((), _KEPT):
        (row,) = rows(tmp_path, 1, keep=keep)
        assert {*row, "duplicate_of"} == set(results.schema(keep).names)


def test_attributes_are_there_when_they_are_named_and_only_then(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, 1)
    assert "patient 0" not in str(row)
    (row,) = rows(tmp_path, 1, keep=_KEPT)
    assert row["PatientID"] == "patient 0"
    assert row["StudyDate"] is None  # the file has none
    assert row[results.ADDRESS] == str(tmp_path / "0.dcm")


def test_findings_are_null_where_nobody_looked(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.logits = dict.fromkeys(engine.logits, NORMAL)
    (row,) = rows(tmp_path, 1, engine=engine)
    assert row["decision"] == "normal"
    assert row["detector_ran"] is False
    assert row["findings"] is None
    (row,) = rows(tmp_path, 1, detect=DetectPolicy.ALWAYS)
    assert row["detector_ran"]
    assert row["findings"][0]["tentative"] is False
    assert row["detect_ms"] > 0


def test_pandas_reads_a_result_set(written: Path) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.read_parquet(written)
    assert sorted(table["input"]) == [0, 1, 2]
    assert set(table["decision"]) == {"abnormal"}
    assert table["findings"][0][0]["label"] == "Osteophytes"


def test_duckdb_reads_a_result_set(written: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    query = (
        "SELECT COUNT(*), COUNT(DISTINCT instance), MAX(findings[1].confidence) "
        "FROM read_parquet(?)"
    )
    with duckdb.connect() as connection:
        found = connection.execute(query, [f"{written}/*.parquet"]).fetchone()
    assert found[:2] == (3, 3)
    assert found[2] == pytest.approx(0.8)


def test_what_a_killed_run_left_behind_is_removed(written: Path) -> None:
    (written / ".part-000002.parquet.partial").write_bytes(b"half of it")
    (written / ".nfs0001").mkdir()
    results.remove_uncommitted(written, 1)
    assert sorted(f.name for f in written.iterdir()) == [".nfs0001", "part-000000.parquet"]


def test_the_summary_counts_what_the_rows_say(written: Path) -> None:
    counts = summary.count(results.batches(written, summary.COLUMNS))
    assert (counts.answered, counts.abnormal, counts.normal) == (3, 3, 0)
    assert counts.findings == {"Osteophytes": 3, "Disc space narrowing": 3}
    assert sum(counts.histogram) == 3
    assert counts.histogram[17] == 3  # sigmoid(2) is 0.88


def test_the_summary_names_failures_caveat_and_what_answered() -> None:
    page = summary.as_html(
        summary.Counts(answered=2, abnormal=1),
        failures={"not_dicom": 7},
        waiting=3,
        active_s=3.0,
        identity={"bundle": "<b>"},
        caveat="Untrained",
    )
    assert "<td>not_dicom</td><td>7</td>" in page
    assert "<td>Inputs a second</td><td>3.00</td>" in page
    assert "Untrained" in page
    assert "&lt;b&gt;" in page
    assert "not finished" in page
    assert "never a diagnosis" in page


def test_a_probability_of_one_is_in_the_last_bin() -> None:
    batch: dict[str, list[Any]] = {
        "decision": ["abnormal"], "probability": [1.0], "threshold": [0.4], "near_cutoff": [False],
        "duplicate_of": [None], "findings": [None],
    }  # fmt: skip
    assert summary.count([batch]).histogram[-1] == 1
