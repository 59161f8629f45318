"""kill −9, at any moment, of the driver."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pyarrow.parquet as pq

from tests.processes import ROOT, environment

_PROGRAM = [sys.executable, "-m", "tests.batch.program"]


def run(out: Path, inputs: Path, step: int) -> int:
    """The exit status of a run that kills itself at a step."""
    command = [*_PROGRAM, "run", str(out), str(inputs), str(step)]
    return subprocess.run(command, cwd=ROOT, env=environment(), check=False).returncode


def test_a_batch_that_is_killed_at_every_few_steps_gives_each_input_one_row(tmp_path: Path) -> None:
    inputs, out = tmp_path / "in", tmp_path / "out"
    inputs.mkdir()
    for n in range(7):
        (inputs / f"{n}.dcm").touch()
    kills = 0
    # Each run gets a step further into a part than the one before: so all kinds are met.
    for step in (1, 2, 3, 4, 5):
        if run(out, inputs, step) == 0:
            break
        kills += 1
    assert kills >= 4
    assert run(out, inputs, 0) == 0
    found = [n for f in (out / "results").iterdir() for n in pq.read_table(f)["input"].to_pylist()]
    assert sorted(found) == list(range(1, 8))


def test_workers_do_not_outlive_a_driver_that_was_killed() -> None:
    command = [*_PROGRAM, "workers"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as driver:
        assert driver.stdout is not None
        workers = [psutil.Process(int(pid)) for pid in driver.stdout.readline().split()]
        assert len(workers) == 2
        driver.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert alive == []
