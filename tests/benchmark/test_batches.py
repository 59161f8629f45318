"""The driver's own cost, in small."""

from __future__ import annotations

from pathlib import Path

from spinexr.benchmark import batches


def test_every_simulated_input_is_answered_once_and_the_resume_asks_for_none(
    tmp_path: Path,
) -> None:
    found = batches.of_driver(tmp_path, 3000)
    assert found["answered"] == found["inputs"] == 3000
    assert found["resume_processor_s"] < found["processor_ms_an_input"] * 3
    assert len(list((tmp_path / "results").iterdir())) == 2
