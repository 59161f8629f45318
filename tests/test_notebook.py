"""The dataset notebook, run top to bottom outside of a notebook server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.processes import ROOT, environment

NOTEBOOK = ROOT / "vindr-spinexr-dataset-analysis.ipynb"


def run(root: Path) -> subprocess.CompletedProcess[str]:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    source = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    return subprocess.run(
        [sys.executable, "-c", source],
        cwd=ROOT,
        env=environment(VINDR_ROOT=str(root), MPLBACKEND="Agg"),
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_notebook_runs_on_a_phantom_dataset(phantom_root: Path) -> None:
    done = run(phantom_root)
    assert done.returncode == 0, done.stderr
    for expected in ("0 problems", "Osteophytes", "images per study", "mean size 240 × 160"):
        assert expected in done.stdout


def test_the_notebook_says_what_is_wrong_with_a_root(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode != 0
    assert "annotations" in done.stderr


def test_the_notebook_is_kept_without_outputs() -> None:
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        assert not cell.get("outputs")
        assert not cell.get("execution_count")
