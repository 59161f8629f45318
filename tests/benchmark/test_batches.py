"""The driver's own cost, in small."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest

from spinexr.benchmark import batches, radiographs


def test_every_simulated_input_is_answered_once_and_the_resume_asks_for_none(
    tmp_path: Path,
) -> None:
    found = batches.of_driver(tmp_path, 3000)
    assert found["answered"] == found["inputs"] == 3000
    assert found["resume_processor_s"] < found["processor_ms_an_input"] * 3
    assert len(list((tmp_path / "results").iterdir())) == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_what_a_cluster_costs_is_measured_over_inputs_that_are_all_answered(
    tmp_path: Path,
) -> None:
    pytest.importorskip("distributed", reason="requirements-dask.txt")
    found = batches.of_cluster(tmp_path, 100)
    assert found["answered"] == found["inputs"] == 100
    assert found["driver_and_scheduler_processor_ms_an_input"] > 0
    assert found["worker_processor_ms_an_input"] > 0


def test_the_mix_holds_every_encoding() -> None:
    stored = radiographs.resized(np.full((40, 30), 5, np.uint16), 0.1)
    made = {
        name: pydicom.dcmread(BytesIO(radiographs.encoded(stored, name))).file_meta
        for name in radiographs.ALL_SYNTAXES
    }
    assert {n: m.TransferSyntaxUID for n, m in made.items()} == radiographs.ALL_SYNTAXES
    assert "RLE" in made
