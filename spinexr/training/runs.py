"""Run folders: what was asked, how it went, and checkpoints that survive a kill at any moment.

```
config.json   what was asked: options, data fingerprint, versions, command; what it started from
curves.csv    one row per epoch
curves.png    the same as a plot
last.pt       everything needed to go on after the last whole epoch
best.pt       the state with the best validation so far
```
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from spinexr.errors import TrainingError
from spinexr.inference.engines import torch_runtime

LAST, BEST = "last.pt", "best.pt"
_CONFIG, _CURVES, _PLOT = "config.json", "curves.csv", "curves.png"


class RunFolder:
    """One training run on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def exists(self) -> bool:
        """Whether a run has begun here."""
        return (self.path / _CONFIG).exists()

    def start(self, config: Mapping[str, Any]) -> None:
        """Claim the folder for a new run.

        Raises:
            TrainingError: it holds a run, or cannot be written.
        """
        self.check_free()
        self._describe(config)

    def began_with(self, weights: str) -> None:
        """Note which weights the run began with: imagenet, coco, given or random.

        Raises:
            TrainingError: there is no run, or it cannot be written.
        """
        self._describe(self.config() | {"initial_weights": weights})

    def initial_weights(self) -> str:
        """What `began_with` was given; "unknown" for a run of an older version.

        Raises:
            TrainingError: there is no run, or its file is damaged.
        """
        return str(self.config().get("initial_weights", "unknown"))

    def _describe(self, config: Mapping[str, Any]) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            _write(self.path / _CONFIG, json.dumps(config, indent=2).encode())
        except OSError as e:
            raise TrainingError(f"The run folder {self.path} cannot be made: {e.strerror}.") from e

    def check_free(self) -> None:
        """That no run has begun here.

        Raises:
            TrainingError: one has.
        """
        if self.exists():
            raise TrainingError(
                f"{self.path} holds a run already: go on with --resume, or give another --out."
            )

    def resume(self, config: Mapping[str, Any]) -> dict[str, Any] | None:
        """The state to go on from, None where no epoch was finished.

        Raises:
            TrainingError: the run was started with other options, on other data, or is damaged.
        """
        self.check(config)
        if not (self.path / LAST).exists():
            return None
        state = self.load(LAST)
        if state.get("architecture") != config["architecture"]:
            raise TrainingError(
                f"{self.path / LAST} holds a checkpoint of {state.get('architecture')}, not of "
                f"{config['architecture']}: it belongs to another run."
            )
        return state

    def check(self, config: Mapping[str, Any]) -> None:
        """That the run was started with these options on this data.

        Raises:
            TrainingError: it was not, or there is no run.
        """
        begun = self.config()
        for key in ("architecture", "data", "options"):
            if begun.get(key) != config[key]:
                raise TrainingError(_difference(self.path, key, begun.get(key), config[key]))

    def config(self) -> dict[str, Any]:
        """What `start` was given.

        Raises:
            TrainingError: there is no run, or its file is damaged.
        """
        try:
            begun = json.loads((self.path / _CONFIG).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise TrainingError(
                f"{self.path} holds no run to resume; start one without --resume."
            ) from None
        except (OSError, ValueError) as e:
            raise TrainingError(f"{self.path / _CONFIG} cannot be read: {e}.") from e
        if not isinstance(begun, dict):
            raise TrainingError(f"{self.path / _CONFIG} is not the description of a run.")
        return begun

    def load(self, name: str) -> dict[str, Any]:
        """A checkpoint of this run; weights only, no code runs.

        Raises:
            TrainingError: it is missing or damaged.
        """
        try:
            state = torch.load(self.path / name, map_location="cpu", weights_only=True)
        # torch raises UnpicklingError, RuntimeError, EOFError, … by kind of damage.
        except Exception as e:
            raise TrainingError(
                f"{self.path / name} cannot be read ({type(e).__name__}): remove the folder and "
                "start again."
            ) from e
        if not isinstance(state, dict):
            raise TrainingError(f"{self.path / name} is no checkpoint of a run.")
        return state

    def save(self, name: str, state: Mapping[str, Any]) -> None:
        """Write a checkpoint so that either the old one or the new one is there, whole.

        Raises:
            TrainingError: there is no space, or the folder is gone; the old one is kept.
        """
        save_whole(self.path / name, dict(state))

    def record(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Write all rows of the curves, as csv and as a plot."""
        if not rows:
            return
        text = [",".join(rows[0])]
        text += [",".join(f"{v:.6g}" for v in row.values()) for row in rows]
        try:
            _write(self.path / _CURVES, ("\n".join(text) + "\n").encode())
            _plot(self.path / _PLOT, rows)
        except OSError as e:
            raise TrainingError(f"{self.path / _CURVES} cannot be written: {e.strerror}.") from e

    def curves(self) -> list[dict[str, float]]:
        """What `record` wrote."""
        try:
            with (self.path / _CURVES).open(newline="") as stream:
                return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(stream)]
        except FileNotFoundError:
            return []


def save_whole(file: Path, state: dict[str, Any]) -> None:
    """`torch.save`, so that either the old file or the new one is there, whole.

    Raises:
        TrainingError: there is no space, or the folder is gone; the old one is kept.
    """
    part = file.with_suffix(".part")
    try:
        with part.open("wb") as stream:
            torch.save(state, stream)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(file)
    # torch turns a full disk into RuntimeError where its zip writer meets it.
    except (OSError, RuntimeError) as e:
        part.unlink(missing_ok=True)
        reason = e.strerror if isinstance(e, OSError) else "writing failed"
        raise TrainingError(
            f"{file} cannot be written: {reason}. The last good checkpoint is kept; make room "
            "and go on with --resume."
        ) from e


def pick_device(wanted: str) -> torch.device:
    """`auto` → CUDA, then MPS, then CPU.

    Raises:
        TrainingError: the wanted device is not there.
    """
    try:
        return torch_runtime.pick_device(wanted)
    except RuntimeError as e:
        raise TrainingError(f"{e} A run that began there can go on elsewhere.") from e


@contextlib.contextmanager
def failures_named(device: torch.device, place: Callable[[], str]) -> Iterator[None]:
    """An accelerator that fails is named, with the place that it was at.

    Raises:
        TrainingError: it failed, or has too little memory.
    """
    try:
        yield
    except RuntimeError as e:
        if not _may_go_away(device):
            raise
        if isinstance(e, torch.OutOfMemoryError):
            raise TrainingError(
                f"The device {device} has too little memory in {place()}: start again with a "
                "smaller --batch or --size."
            ) from e
        raise TrainingError(
            f"The device {device} failed in {place()}: {str(e).splitlines()[0]}. Go on with "
            "--resume when it is back."
        ) from e


def _may_go_away(device: torch.device) -> bool:
    return device.type != "cpu"


def after_no_number(epochs: int) -> str:
    """What is left of a run whose loss is no number after so many whole epochs, and what to do."""
    kept = f"The checkpoints of epoch {epochs} are kept" if epochs else "No epoch was finished"
    return f"{kept}; start again with a lower --learning-rate and another --out."


def computes_in_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 itself; emulating it takes ten times as long as float32.

    Processors with AMX have the AVX-512 form too.
    """
    return bool(torch.cpu._is_avx512_bf16_supported())


def autocast(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Half precision where the device computes in it: float16 on CUDA, bfloat16 on some CPUs."""
    if device.type == "cuda":
        return torch.autocast("cuda", torch.float16)
    if device.type == "cpu" and computes_in_bfloat16():
        return torch.autocast("cpu", torch.bfloat16)
    return contextlib.nullcontext()


def _difference(folder: Path, key: str, begun: Any, asked: Any) -> str:
    if key == "data":
        return (
            f"The data under --data changed since the run in {folder} began (fingerprint "
            f"{str(begun)[:12]}…, now {str(asked)[:12]}…). Restore it, or start a new run."
        )
    if isinstance(begun, dict) and isinstance(asked, dict):
        names = sorted(k for k in begun.keys() | asked.keys() if begun.get(k) != asked.get(k))
        shown = ", ".join(f"{n}: {begun.get(n)} then, {asked.get(n)} now" for n in names[:3])
        return f"The run in {folder} was started with other options ({shown})."
    return f"The run in {folder} is one of {begun}, not of {asked}."


def _write(file: Path, data: bytes) -> None:
    part = file.with_suffix(".part")
    part.write_bytes(data)
    part.replace(file)


def _plot(file: Path, rows: Sequence[Mapping[str, float]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in rows]
    for name in rows[0]:
        if "loss" in name:
            losses.plot(epochs, [row[name] for row in rows], label=name)
        elif name.startswith("val_"):
            scores.plot(epochs, [row[name] for row in rows], label=name)
    for axes, title in ((losses, "loss"), (scores, "validation")):
        axes.set_xlabel("epoch")
        axes.set_title(title)
        if axes.lines:
            axes.legend()
    part = file.with_suffix(".part")
    figure.savefig(part, format="png", dpi=90)
    part.replace(file)
