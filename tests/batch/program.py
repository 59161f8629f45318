"""A driver in a process of its own, that can be killed.

`python -m tests.batch.program run OUT IN STEP` analyses a folder and kills itself at the step with
that number, if it gets there; `python -m tests.batch.program workers` starts worker processes,
prints their ids and waits.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spinexr.batch import listing, results
from spinexr.batch.driver import Driver, Places
from spinexr.batch.ledger import Ledger
from spinexr.batch.local import LocalExecutor, Place
from tests.batch.workers import MAX_BYTES, Here, Null, OpenFake


def _run(out: Path, inputs: Path, last_step: int) -> None:
    steps = 0

    def counted(owner: Any, name: str) -> None:
        real: Callable[..., Any] = getattr(owner, name)

        def step(*arguments: Any, **options: Any) -> Any:
            nonlocal steps
            found = real(*arguments, **options)
            steps += 1
            if steps == last_step:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        setattr(owner, name, step)

    # Everything that reaches the disk.
    for name in ("add", "take", "fail", "answer"):
        counted(Ledger, name)
    counted(results, "write_part")
    (out / "results").mkdir(parents=True, exist_ok=True)
    ledger = Ledger(out / "ledger.sqlite")
    driver = Driver(
        ledger=ledger, executor=Here(Null()), places=Places(out / "results"),
        schema=results.schema(()), max_bytes=MAX_BYTES, rows_a_part=2,
    )  # fmt: skip
    driver.run(listing.inputs([str(inputs)]))
    ledger.close()


def _workers() -> None:
    executor = LocalExecutor(OpenFake(), [Place()] * 2)
    executor.start()
    print(*executor.pids, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    if sys.argv[1] == "run":
        _run(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
    else:
        _workers()
