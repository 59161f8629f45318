"""A worker whose network is cut for 20 seconds: in a network namespace of its own.

Part of the long form (`make soak`), for root on Linux alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from spinexr.batch import results
from spinexr.batch.address import Address
from spinexr.batch.driver import Driver, Places, Progress
from spinexr.batch.executor import Answer, Failure, Task
from spinexr.batch.ledger import Ledger, State
from tests.batch.chaos import Chaos
from tests.processes import ROOT, environment
from tests.scale import LONG, record

pytest.importorskip("distributed", reason="requirements-dask.txt")

from spinexr.batch.dask_executor import DaskExecutor

_INPUTS = 2000
_CUT_S = 20.0
_ANALYSIS_S = 0.05
_OURS, _THEIRS = "10.213.77.1", "10.213.77.2"

pytestmark = [
    pytest.mark.skipif(not LONG, reason="part of the long form"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


@dataclass(frozen=True)
class OpenWorking:
    """A worker for which each input is some work."""

    def __call__(self) -> Working:
        return Working()


class Working(Chaos):
    def __call__(self, task: Task) -> Answer | Failure:
        time.sleep(_ANALYSIS_S)  # the work
        return Answer(dict.fromkeys(self._names) | {"instance": task.address.file})


def ip(*words: str) -> None:
    subprocess.run([str(shutil.which("ip")), *words], check=True, capture_output=True)


@pytest.fixture
def namespace() -> Iterator[str]:
    """A network with one other end, `cable`, in this one."""
    name, cable = f"spinexr-{os.getpid()}", f"sx{os.getpid()}"
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("needs root and ip")
    try:
        ip("netns", "add", name)
    except subprocess.CalledProcessError:
        pytest.skip("there are no network namespaces here")
    try:
        ip("link", "add", cable, "type", "veth", "peer", "name", "cable", "netns", name)
        ip("address", "add", f"{_OURS}/30", "dev", cable)
        ip("link", "set", cable, "up")
        ip("-n", name, "address", "add", f"{_THEIRS}/30", "dev", "cable")
        ip("-n", name, "link", "set", "cable", "up")
        ip("-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        ip("netns", "del", name)  # and the cable with it


@pytest.fixture
def cluster(namespace: str, tmp_path: Path) -> Iterator[Any]:
    """A worker beside the scheduler, and one at the other end of the cable."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None, host=_OURS,
        local_directory=str(tmp_path / "near"), silence_logs=50,
    ) as made:  # fmt: skip
        far = subprocess.Popen(
            [
                str(shutil.which("ip")), "netns", "exec", namespace,
                sys.executable, "-m", "distributed.cli.dask_worker", made.scheduler_address,
                "--nthreads", "1", "--no-dashboard", "--local-directory", str(tmp_path / "far"),
            ],
            cwd=ROOT, env=environment(PYTHONPATH=str(ROOT)), stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield made
        finally:
            far.terminate()
            far.wait(timeout=60)


def test_a_worker_without_a_network_for_20_seconds_costs_no_input_its_one_row(
    cluster: Any, namespace: str, tmp_path: Path
) -> None:
    executor = DaskExecutor(cluster.scheduler_address, OpenWorking())
    restored = threading.Event()
    begun: list[float] = []

    def restore() -> None:
        ip("-n", namespace, "link", "set", "cable", "up")
        restored.set()

    def cut(progress: Progress) -> None:
        if not begun and progress.answered >= _INPUTS // 10 and len(executor._workers) == 2:
            begun.append(time.monotonic())
            ip("-n", namespace, "link", "set", "cable", "down")
            threading.Timer(_CUT_S, restore).start()

    out = tmp_path / "results"
    out.mkdir()
    executor.start()
    ledger = Ledger(tmp_path / "ledger.sqlite")
    driver = Driver(
        ledger=ledger, executor=executor, places=Places(out), schema=results.schema(()),
        max_bytes=1, report=cut,
    )  # fmt: skip
    assert driver.run(Address(f"/{n}") for n in range(_INPUTS))
    assert restored.wait(2 * _CUT_S)
    assert begun
    rows = [r["instance"] for f in out.iterdir() for r in pq.read_table(f).to_pylist()]
    assert len(rows) == len(set(rows)) == _INPUTS
    assert ledger.count(State.FAILED) == 0
    ledger.close()
    executor.close()
    record("batch, a worker's network cut", inputs=_INPUTS, rows=len(rows), cut_s=_CUT_S)
