"""The command line as a subprocess."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import numpy as np
import pydicom
import pytest
from click.testing import CliRunner
from PIL import Image

from spinexr.cli import main
from tests import builders
from tests.analyses import schema_errors
from tests.processes import free_port, spinexr


@pytest.fixture
def radiographs(tmp_path: Path) -> list[Path]:
    """Two good files of one stem in two folders, and one that is not DICOM."""
    files = [tmp_path / "a" / "x.dcm", tmp_path / "b" / "x.dcm", tmp_path / "y.png"]
    for seed, file in enumerate(files):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(builders.dicom(builders.pixels(320, 208, seed=seed)))
    files[2].write_bytes(b"\x89PNG\r\n\x1a\n")
    return files


def test_help_is_there_without_loading_a_network() -> None:
    done = spinexr("--help")
    assert done.returncode == 0
    for command in ("analyse", "serve", "doctor", "weights"):
        assert command in done.stdout
    assert "never a diagnosis" in done.stdout


def test_analyse_prints_a_line_each_and_writes_images_and_json(
    untrained_root: Path, radiographs: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = spinexr("analyse", *radiographs, "--out", out, "--weights", untrained_root)
    assert done.returncode == 1  # one of three was refused
    lines = done.stdout.strip().splitlines()
    assert len(lines) == 2
    assert all("abnormal 0." in line and "Untrained weights" in line for line in lines)
    assert "y.png" in done.stderr
    assert "[not_dicom]" in done.stderr
    assert sorted(f.name for f in out.iterdir()) == ["x-2.json", "x-2.png", "x.json", "x.png"]
    picture = np.asarray(Image.open(out / "x.png"))
    assert picture.shape[1] == 208
    assert picture.shape[0] > 320
    assert schema_errors(json.loads((out / "x-2.json").read_text(encoding="utf-8"))) == []


def test_analyse_writes_dicom_objects_of_what_it_analysed(
    untrained_root: Path, radiographs: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "objects"
    done = spinexr("analyse", *radiographs, "--dicom-out", out, "--weights", untrained_root)
    assert done.returncode == 1  # one of three was refused
    kinds = ("picture", "presentation", "report")
    assert sorted(f.name for f in out.iterdir()) == [
        f"{name}-{kind}.dcm" for name in ("x-2", "x") for kind in kinds
    ]
    modalities = [pydicom.dcmread(out / f"x-{kind}.dcm").Modality for kind in kinds]
    assert modalities == ["OT", "PR", "SR"]


def test_analyse_refuses_codes_that_are_none(tmp_path: Path, radiographs: list[Path]) -> None:
    file = tmp_path / "codes.toml"
    file.write_text("[concepts]\nnormal = 1\n", encoding="utf-8")
    done = spinexr("analyse", radiographs[0], "--dicom-out", tmp_path, SPINEXR_CODES=str(file))
    assert done.returncode == 1
    assert "codes.toml cannot be used: concepts.normal needs value" in done.stderr


def test_analyse_json_prints_one_document_a_line(
    untrained_root: Path, radiographs: list[Path]
) -> None:
    done = spinexr(
        "analyse", radiographs[0], radiographs[2], radiographs[1], "--json", "--detect", "always",
        SPINEXR_WEIGHTS=str(untrained_root),
    )  # fmt: skip
    assert done.returncode == 1
    first, refused, second = (json.loads(line) for line in done.stdout.splitlines())
    assert (first["file"], second["file"]) == (str(radiographs[0]), str(radiographs[1]))
    assert schema_errors(first) == schema_errors(second) == []
    assert first["probability"] != second["probability"]
    assert refused["file"] == str(radiographs[2])
    assert refused["error"]["code"] == "not_dicom"


def test_analyse_goes_on_past_files_that_are_not_there(
    untrained_root: Path, radiographs: list[Path], tmp_path: Path
) -> None:
    done = spinexr(
        "analyse", tmp_path / "missing.dcm", tmp_path, radiographs[0], "--weights", untrained_root
    )
    assert done.returncode == 1
    assert "missing.dcm: No such file" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stdout.splitlines()) == 1


def test_analyse_without_weights_names_the_files(tmp_path: Path, radiographs: list[Path]) -> None:
    done = spinexr("analyse", radiographs[0], "--weights", tmp_path)
    assert done.returncode == 1
    assert "resnet50_optimized/model_best.pth is missing" in done.stderr
    assert done.stdout == ""


def test_analyse_without_files_is_a_usage_error() -> None:
    assert spinexr("analyse").returncode == 2


def test_a_nonsensical_setting_is_named() -> None:
    done = spinexr("analyse", "x.dcm", SPINEXR_DEVICE="abacus")
    assert done.returncode == 1
    assert "SPINEXR_DEVICE='abacus'" in done.stderr


def test_doctor_is_content_with_weights_in_place(untrained_root: Path, tmp_path: Path) -> None:
    done = spinexr(
        "doctor", "--weights", untrained_root, PORT=str(free_port()),
        SPINEXR_UPLOADS=str(tmp_path),
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout
    assert [line.split()[1].rstrip(":") for line in lines] == [
        "python", "packages", "torchvision", "settings", "memory", "uploads", "weights", "port",
    ]  # fmt: skip
    assert all(line.startswith("ok ") for line in lines)


def test_doctor_finds_missing_weights_a_taken_port_and_a_bad_setting(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = spinexr("doctor", "--weights", tmp_path, PORT=str(taken.getsockname()[1]))
    assert done.returncode == 1
    wrong = [line for line in done.stdout.splitlines() if line.startswith("WRONG")]
    assert [line.split()[1] for line in wrong] == ["weights:", "port:"]
    assert "best.pt is missing" in wrong[0]
    done = spinexr("doctor", "--weights", tmp_path, SPINEXR_QUEUE="none")
    assert "WRONG settings: SPINEXR_QUEUE='none'" in done.stdout


def test_weights_untrained_never_overwrites(untrained_root: Path) -> None:
    before = {f: f.stat().st_mtime_ns for f in untrained_root.rglob("*") if f.is_file()}
    done = spinexr("weights", "untrained", untrained_root)
    assert done.returncode == 1
    assert "choose an empty folder" in done.stderr
    assert before == {f: f.stat().st_mtime_ns for f in untrained_root.rglob("*") if f.is_file()}


@pytest.mark.parametrize(
    "arguments",
    [
        ["analyse", "samples/lumbar-normal.dcm", "--out", "/proc/nothing/out"],
        ["phantom", "/proc/nothing/data", "--studies", "2", "--rows", "128", "--columns", "128"],
        ["token", "ann", "--file", "/proc/nothing/tokens"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_where_nothing_can_be_written_a_command_names_the_place(arguments: list[str]) -> None:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)  # said, not fallen over
    assert "/proc/nothing" in done.stderr
