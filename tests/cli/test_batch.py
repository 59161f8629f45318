"""`python -m spinexr batch` as a subprocess."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from spinexr.batch.driver import Progress
from spinexr.cli import main
from spinexr.cli.batch import text_of
from tests import builders
from tests.processes import ROOT, environment, free_port, spinexr, wait_for_port


@pytest.fixture
def radiographs(tmp_path: Path) -> Path:
    """A folder of three radiographs."""
    folder = tmp_path / "in"
    folder.mkdir()
    for n in range(3):
        attributes = {"SOPInstanceUID": f"1.2.3.{n}", "PatientID": f"patient {n}"}
        data = builders.dicom(builders.pixels(320, 208, seed=n), attributes=attributes)
        (folder / f"{n}.dcm").write_bytes(data)
    return folder


def test_a_batch_writes_a_table_a_page_and_pictures_and_goes_on_when_asked(
    untrained_root: Path, radiographs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    asked = ("batch", radiographs, "--out", out, "--weights", untrained_root)
    done = spinexr(*asked, "--overlay", "--keep", "0010,0020")
    assert done.returncode == 0, done.stderr
    assert "Untrained weights" in done.stdout
    assert done.stderr == ""  # there is no terminal
    table = pq.read_table(out / "results").to_pydict()
    assert sorted(table["PatientID"]) == ["patient 0", "patient 1", "patient 2"]
    assert len(list((out / "overlay").iterdir())) == 3
    assert "Untrained weights" in (out / "summary.html").read_text(encoding="utf-8")
    assert pq.read_table(out / "failures.parquet").num_rows == 0

    again = spinexr(*asked, "--overlay", "--keep", "PatientID")
    assert again.returncode == 2
    assert "--resume" in again.stderr

    (radiographs / "none.dcm").write_bytes(b"nothing of the kind")
    resumed = spinexr(*asked, "--overlay", "--keep", "PatientID", "--resume", "--dicom-out")
    assert resumed.returncode == 1
    assert "3 inputs were answered before; nothing of them" in resumed.stderr
    assert pq.read_table(out / "results").num_rows == 3
    (failure,) = pq.read_table(out / "failures.parquet").to_pylist()
    assert failure["code"] == "not_dicom"
    assert failure["address"] == str(radiographs / "none.dcm")


@contextmanager
def dask(*arguments: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """`dask …` until the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *map(str, arguments), "--dashboard-address", "127.0.0.1:0"],
        cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_a_batch_runs_on_the_workers_of_a_cluster(
    untrained_root: Path, radiographs: Path, tmp_path: Path
) -> None:
    pytest.importorskip("distributed", reason="requirements-dask.txt")
    (radiographs / "none.dcm").write_bytes(b"nothing of the kind")
    out, port = tmp_path / "out", free_port()
    address, scratch = f"tcp://127.0.0.1:{port}", tmp_path / "worker"
    with dask("scheduler", "--host", address) as scheduler:
        wait_for_port(port, scheduler)
        with dask("worker", address, "--nthreads", "1", "--local-directory", scratch):
            done = spinexr("batch", radiographs, "--out", out, "--weights", untrained_root,
                           "--dask", address)  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert pq.read_table(out / "results").num_rows == 3
    (failure,) = pq.read_table(out / "failures.parquet").to_pylist()
    assert failure["code"] == "not_dicom"


def test_an_interrupted_batch_says_so_keeps_its_ledger_and_goes_on(
    untrained_root: Path, radiographs: Path, tmp_path: Path
) -> None:
    out, sheet = tmp_path / "out", tmp_path / "list.csv"
    os.mkfifo(sheet)
    command = [
        sys.executable, "-m", "spinexr", "batch", str(sheet), "--out", str(out),
        "--weights", str(untrained_root),
    ]  # fmt: skip
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        threading.Thread(target=_let_go, args=(process, sheet), daemon=True).start()
        with sheet.open("w", encoding="utf-8") as stream:  # opens when the batch reads it
            process.send_signal(signal.SIGINT)
            stream.write("".join(f"{file}\n" for file in radiographs.iterdir()))
        process.communicate(timeout=120)
        assert process.returncode == 130
    assert "not finished" in (out / "summary.html").read_text(encoding="utf-8")
    done = spinexr(
        "batch", radiographs, "--out", out, "--weights", untrained_root, "--resume"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert pq.read_table(out / "results").num_rows == 3


def _let_go(process: subprocess.Popen[bytes], pipe: Path) -> None:
    """Whoever waits for a reader of the pipe waits no longer when the process has ended."""
    process.wait()
    os.close(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nothing.dcm",), "nothing.dcm is not there"),
        ((".", "--keep", "PatientsNose"), "PatientsNose"),
        ((".", "--workers", "0"), "--workers"),
        ((), "INPUT"),
        ((".", "--retry-failed"), "--resume"),
        ((".", "--dask", "tcp://127.0.0.1:9", "--workers", "1"), "exclude each other"),
        ((".", "--dask", "no.json"), "no.json is neither"),
        (("dicomweb+https://pacs.example/dicom-web",), "no address of studies"),
    ],
)
def test_wrong_calls_are_usage_errors(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = spinexr("batch", *arguments, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "out").exists()


def test_results_among_the_inputs_are_refused(radiographs: Path) -> None:
    done = CliRunner().invoke(
        main, ["batch", str(radiographs), "--out", str(radiographs / "deep/out")]
    )
    assert done.exit_code == 2
    assert "choose another folder" in done.output
    assert not (radiographs / "deep").exists()


def test_a_batch_without_weights_names_the_files(tmp_path: Path, radiographs: Path) -> None:
    done = spinexr("batch", radiographs, "--out", tmp_path / "out", "--weights", tmp_path)
    assert done.returncode == 1
    assert "resnet50_optimized/model_best.pth" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_ledger_that_cannot_be_used_is_named(
    tmp_path: Path, radiographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(sys.modules["spinexr.cli.batch"], "_run", full)
    done = CliRunner().invoke(main, ["batch", str(radiographs), "--out", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert "database or disk is full. Make room" in done.output


def test_the_line_of_progress_holds_rate_time_left_and_failures() -> None:
    assert text_of(Progress(1_000, 3, 5_003, True, 2.0)) == (
        "Analysing: 1,003/5,003, 2.0/s, 0:33:20 left, 3 failed"
    )
    assert text_of(Progress(1, 0, 5, False, 2.0)) == "Analysing: 1/5+, 2.0/s, 0 failed"
