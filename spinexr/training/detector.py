"""Training of the lesion detector through ultralytics' own trainer."""

from __future__ import annotations

import contextlib
import csv
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from spinexr.datasets.vindr import CLASSES, LabelledImage
from spinexr.errors import ConfigurationError, TrainingError
from spinexr.inference.bundle import Intensity
from spinexr.inference.engines import torch_runtime
from spinexr.inference.yolo import STRIDE
from spinexr.processors import available_threads
from spinexr.training.augment import Grey, cut
from spinexr.training.examples import (
    Boxes,
    Progress,
    TrainPart,
    each_grey,
    middles,
    relative_boxes,
    silent,
)
from spinexr.training.runs import (
    RunFolder,
    after_no_number,
    computes_in_bfloat16,
    pick_device,
    save_whole,
)

torch_runtime.prepare()

from ultralytics import YOLO  # noqa: E402  (the runtime must be prepared first)
from ultralytics.nn.tasks import torch_safe_load  # noqa: E402
from ultralytics.utils.torch_utils import strip_optimizer  # noqa: E402

_ROOM = 1.2  # longest side of the images on disk over that of inputs, for zooming in
_MAP50, _MAP50_95 = "metrics/mAP50(B)", "metrics/mAP50-95(B)"
_WARM_UP = 0.05  # share of the epochs, three at most
_LAST, _BEST = Path("weights/last.pt"), Path("weights/best.pt")
# Copies of whole checkpoints: ultralytics writes its own in place, so that a kill may halve them.
_RESUME, _RESUME_BEST = "resume.pt", "resume_best.pt"
# What a released checkpoint keeps. The rest would tell of the machine and of the repository around
# it, and take the place of the optimizer's state.
_RELEASED = ("model", "train_args", "version", "license", "date")


@dataclass(frozen=True, slots=True)
class DetectorOptions:
    """What a run depends on besides data. `size` is the longer side of inputs in pixels.

    With a `window`, the run sees squares of that side cut around findings out of images of `size`
    instead of whole images: a way to begin where time is short, for a later run to start from.
    """

    scale: str = "n"
    epochs: int = 60
    size: int = 640
    window: int = 0  # side in pixels; 0 for whole images
    rectangular: bool = False  # whole images in their own shape, not padded to squares
    batch: int = 16
    learning_rate: float = 1e-3
    patience: int = 20
    validation_share: float = 0.1
    intensity: str = Intensity.STORED_MINMAX.value
    pretrained: bool = True  # COCO weights where they can be fetched
    initial_sha256: str = ""  # of the checkpoint to start from instead; empty for none
    seed: int = 0

    def __post_init__(self) -> None:
        if self.window > self.size:
            raise ConfigurationError(
                f"Windows of {self.window} pixels cannot be cut from images of {self.size}: lower "
                "--window."
            )
        if self.size % STRIDE or self.window % STRIDE:
            raise ConfigurationError(
                f"The detector's inputs must be a multiple of {STRIDE}, not {self.size} pixels "
                f"with windows of {self.window}."
            )

    @property
    def architecture(self) -> str:
        return f"yolo11{self.scale}"


@dataclass(frozen=True, slots=True)
class TrainedDetector:
    """The checkpoint of the best epoch, and ultralytics' measure of it on validation."""

    file: Path
    validation: dict[str, float]
    epochs: int


def train(
    part: TrainPart,
    folder: RunFolder,
    options: DetectorOptions,
    *,
    initial: Path | None = None,
    resume: bool = False,
    device: str = "auto",
    commands: Sequence[str] = (),
    data: Path,
    report: Callable[[str], None] = lambda _line: None,
    progress: Progress = silent,
) -> TrainedDetector:
    """Train, or go on after the last whole epoch.

    Args:
        initial: a checkpoint of the same architecture to start from.
        commands: this one, after those that made `initial`.
        data: folder for the images in ultralytics' format; made once, used again.

    Raises:
        ConfigurationError: `initial` does not hold the architecture.
        TrainingError: a run that does not fit, a full disk, a device that went away, a loss that
            stays no number.
    """
    where = pick_device(device)
    config = {
        "architecture": options.architecture,
        "data": part.fingerprint,
        "options": asdict(options),
        "commands": list(commands),
        "versions": {"torch": torch.__version__},
        "device": where.type,
        "images": {"training": len(part.training), "validation": len(part.validation)},
    }
    first = _given(initial, options) if initial is not None else None
    begun = False
    if resume:
        folder.check(config)
        begun = (folder.path / _LAST).exists() or (folder.path / _RESUME).exists()
    else:
        folder.start(config)
    description = write_dataset(part, data, options, progress=progress)
    if begun:
        model = _begun(folder.path, options)
        said = "going on"
    else:
        model, weights = (first, "given") if first is not None else _fresh(options)
        folder.began_with(weights)
        unfetched = options.pretrained and weights == "random"
        why = " (COCO's could not be fetched)" if unfetched else ""
        said = f"starting from {weights} weights{why}"
    if model is None:
        report(f"{options.architecture}: the run is finished.")
        return _finished(folder.path, part)

    step = 0

    def after_step(trainer: Any) -> None:
        nonlocal step
        step += 1
        steps = len(trainer.train_loader)
        if trainer.loss is not None and not torch.isfinite(trainer.loss).all():
            raise TrainingError(
                f"The loss is {trainer.loss.item()} in epoch {trainer.epoch + 1}, step {step} of "
                f"{steps}. {after_no_number(trainer.epoch)}"
            )
        progress(f"{options.architecture} epoch {trainer.epoch + 1}", step, steps)

    def after_epoch(trainer: Any) -> None:
        nonlocal step
        step = 0
        # The best first: `_begun` takes both where there is the last one.
        _copy_whole(trainer.best, folder.path / _RESUME_BEST)
        _copy_whole(trainer.last, folder.path / _RESUME)
        folder.record(_curves(folder.path))
        shown = {k: trainer.metrics.get(k, 0.0) for k in (_MAP50, _MAP50_95)}
        report(
            f"{options.architecture} epoch {trainer.epoch + 1}/{options.epochs}: validation mAP50 "
            f"{shown[_MAP50]:.4f}, mAP50-95 {shown[_MAP50_95]:.4f}"
        )

    model.add_callback("on_train_batch_end", after_step)
    model.add_callback("on_model_save", after_epoch)
    # On a CPU ultralytics offers no mixed precision; torch has it there where the CPU has.
    model.add_callback("on_pretrain_routine_end", _mixed_precision_on_cpu)
    report(f"{options.architecture}: {said} on {where.type}.")
    place = {"data": str(description), "save_dir": str(folder.path.resolve())}
    try:
        if begun:
            model.train(resume=True, device=where.type, **place)
        else:
            model.train(**_arguments(folder.path, description, options, where))
    except FileNotFoundError as e:
        raise TrainingError(f"A file of the run is missing: {e}") from e
    except OSError as e:
        raise TrainingError(
            f"{folder.path} cannot be written: {e.strerror or e}. The last checkpoint is kept; "
            "make room and go on with --resume."
        ) from e
    except RuntimeError as e:  # lost devices, and a loss that stays no number after its retries
        epoch = getattr(model.trainer, "epoch", 0) + 1
        raise TrainingError(
            f"The detector's training stopped in epoch {epoch}: {str(e).splitlines()[0]}. The "
            "last checkpoint is kept; go on with --resume."
        ) from e
    for copy in (_RESUME, _RESUME_BEST):
        (folder.path / copy).unlink(missing_ok=True)
    return _finished(folder.path, part)


def _copy_whole(source: Path, target: Path) -> None:
    shutil.copyfile(source, target.with_suffix(".part"))
    target.with_suffix(".part").replace(target)


def _given(checkpoint: Path, options: DetectorOptions) -> Any:
    try:
        found = YOLO(str(checkpoint))
    # ultralytics raises TypeError, RuntimeError, AttributeError, … by kind of damage.
    except Exception as e:
        raise ConfigurationError(
            f"Training cannot start from {checkpoint}: it cannot be read ({type(e).__name__})."
        ) from e
    if _scale(found) != options.scale:
        raise ConfigurationError(
            f"Training cannot start from {checkpoint}: it holds yolo11{_scale(found)}, not "
            f"{options.architecture}."
        )
    # As it is: loaded into a fresh network, whose classes are another number, it would lose the
    # layers that tell them apart.
    return found


def _fresh(options: DetectorOptions) -> tuple[Any, str]:
    """A new model, and what its weights are."""
    model: Any = YOLO(f"{options.architecture}.yaml")
    if options.pretrained:
        # Without a network there is nothing to fetch, and training starts from scratch.
        with contextlib.suppress(Exception):
            model.load(f"{options.architecture}.pt")
            return model, "coco"
    return model, "random"


def _begun(folder: Path, options: DetectorOptions) -> Any:
    """The model to go on with; None where the run was finished."""
    last, whole = folder / _LAST, folder / _RESUME
    if not whole.exists():
        if _load(last).ckpt.get("optimizer") is None:  # stripped when the run ended
            return None
        whole = last
    elif (folder / _RESUME_BEST).exists():
        shutil.copyfile(folder / _RESUME_BEST, folder / _BEST)
    model = _load(whole)
    if _scale(model) != options.scale:
        raise TrainingError(
            f"{whole} holds a checkpoint of yolo11{_scale(model)}, not of "
            f"{options.architecture}: it belongs to another run."
        )
    if model.ckpt["epoch"] + 1 >= options.epochs:  # killed between the last epoch and the end
        strip_optimizer(folder / _BEST)
        return None
    return model


def _scale(model: Any) -> str:
    return str((getattr(model.model, "yaml", None) or {}).get("scale"))


def _load(checkpoint: Path) -> Any:
    try:
        return YOLO(str(checkpoint))
    # ultralytics raises TypeError, RuntimeError, AttributeError, … by kind of damage.
    except Exception as e:
        raise TrainingError(
            f"{checkpoint} cannot be read ({type(e).__name__}): remove the run's folder and start "
            "again."
        ) from e


def release_checkpoint(trained: TrainedDetector, file: Path) -> None:
    """The best checkpoint without what ultralytics tells in it of machine, paths and repository.

    Raises:
        TrainingError: it cannot be read or written.
    """
    try:
        found, _ = torch_safe_load(str(trained.file), safe_only=True)
        checkpoint = {key: found[key] for key in _RELEASED if key in found}
    # As in `_load`.
    except Exception as e:
        raise TrainingError(
            f"{trained.file} cannot be read ({type(e).__name__}): remove the run's folder and "
            "start again."
        ) from e
    for arguments in (checkpoint.get("train_args"), getattr(checkpoint["model"], "args", None)):
        if isinstance(arguments, dict):
            for key in ("data", "project", "name", "save_dir", "model", "resume"):
                arguments.pop(key, None)
    vars(checkpoint["model"]).pop("pt_path", None)  # where the run began from
    file.parent.mkdir(parents=True, exist_ok=True)
    save_whole(file, checkpoint)


def write_dataset(
    part: TrainPart, folder: Path, options: DetectorOptions, *, progress: Progress = silent
) -> Path:
    """The images and boxes in ultralytics' format; the path of its description.

    Nothing is done where the same images are there already.
    """
    side = round(options.size * _ROOM)
    description = folder / "data.yaml"
    window = round(options.window * _ROOM)
    made = {"data": part.fingerprint, "side": side, "window": window,
            "intensity": options.intensity,
            "share": options.validation_share, "seed": options.seed}  # fmt: skip
    stamp = folder / "made.json"
    if stamp.exists() and json.loads(stamp.read_text(encoding="utf-8")) == made:
        _describe(description)
        return description
    shutil.rmtree(folder, ignore_errors=True)
    for name, images in (("train", part.training), ("val", part.validation)):
        greys = each_grey(images, size=side, intensity=Intensity(options.intensity))
        _write_side(folder, name, images, greys, progress, window=window, seed=options.seed)
    _describe(description)
    stamp.write_text(json.dumps(made), encoding="utf-8")
    return description


def _describe(description: Path) -> None:
    """Written each time: the folder may have moved."""
    names = "".join(f"  {n}: {label}\n" for n, label in enumerate(CLASSES))
    folder = json.dumps(str(description.parent.resolve()))
    description.write_text(
        f"path: {folder}\ntrain: images/train\nval: images/val\nnames:\n{names}", encoding="utf-8"
    )


def _write_side(
    folder: Path, name: str, images: Sequence[LabelledImage],
    greys: Iterable[tuple[Grey, tuple[int, int]]], progress: Progress, *, window: int, seed: int,
) -> None:  # fmt: skip
    pictures, labels = folder / "images" / name, folder / "labels" / name
    pictures.mkdir(parents=True)
    labels.mkdir(parents=True)
    rng = np.random.default_rng([seed, *name.encode()])
    others = [np.full((1, 2), 0.5, np.float32)]  # where images so far have findings
    for n, (image, (grey, shape)) in enumerate(zip(images, greys, strict=True)):
        found = relative_boxes(image, *shape)
        shown = [(grey, found)]
        if window:
            foci = _foci(found, np.concatenate(others), rng)
            shown = [cut(grey, found, window, focus) for focus in foci]
            others.append(middles(found))
        for k, (pixels, boxes) in enumerate(shown):
            stem = f"{image.image_id}-{k}" if window else image.image_id
            Image.fromarray(pixels).save(pictures / f"{stem}.png", compress_level=1)
            (labels / f"{stem}.txt").write_text(_lines(boxes), encoding="ascii")
        progress(f"Writing images for the detector ({name})", n + 1, len(images))


def _foci(
    boxes: Boxes, others: npt.NDArray[np.float32], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Where to cut windows: at one finding of each class, or where other images have one."""
    if not len(boxes):
        return others[[rng.integers(len(others))]]
    chosen = [rng.choice(np.flatnonzero(boxes[:, 4] == c)) for c in np.unique(boxes[:, 4])]
    return middles(boxes[chosen])


def _lines(boxes: Boxes) -> str:
    """Class, middle and size of each box as shares of the image, as ultralytics reads them."""
    shown = boxes[:, :4].clip(0, 1)
    middle, size = (shown[:, :2] + shown[:, 2:]) / 2, shown[:, 2:] - shown[:, :2]
    rows = zip(boxes[:, 4].astype(int), np.concatenate([middle, size], 1), strict=True)
    return "".join(f"{label} {' '.join(f'{v:.6f}' for v in row)}\n" for label, row in rows)


def _arguments(
    folder: Path, description: Path, options: DetectorOptions, device: torch.device
) -> dict[str, Any]:
    return {
        "data": str(description),
        "project": str(folder.parent.resolve()),
        "name": folder.name,
        "exist_ok": True,
        "epochs": options.epochs,
        "imgsz": options.window or options.size,
        "rect": options.rectangular,
        "batch": options.batch,
        "nbs": options.batch,  # a step for every batch, not one for every 64 images
        "warmup_epochs": min(3.0, _WARM_UP * options.epochs),
        "warmup_bias_lr": 0.0,  # the default, 0.1, is SGD's
        "optimizer": "AdamW",
        "lr0": options.learning_rate,
        "lrf": 0.02,
        "cos_lr": True,
        "patience": options.patience,
        "seed": options.seed,
        "deterministic": True,
        "device": device.type,
        "amp": device.type == "cuda",
        "workers": min(2, available_threads()),
        "plots": False,
        # Radiographs: no colour, never upside down, little turning.
        "hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.3, "flipud": 0.0, "fliplr": 0.5,
        "degrees": 5.0, "translate": 0.08, "scale": 0.25, "mosaic": 0.5,
        "close_mosaic": max(1, options.epochs // 4), "erasing": 0.0, "auto_augment": None,
    }  # fmt: skip


def _mixed_precision_on_cpu(trainer: Any) -> None:
    if trainer.device.type == "cpu":
        trainer.amp = computes_in_bfloat16()
        torch.set_num_threads(available_threads())
        torch.set_flush_denormal(True)


def _results(folder: Path) -> list[dict[str, float]]:
    """The epochs as ultralytics keeps them."""
    with (folder / "results.csv").open(newline="") as stream:
        return [{k.strip(): float(v) for k, v in row.items()} for row in csv.DictReader(stream)]


def _curves(folder: Path) -> list[dict[str, float]]:
    """The epochs as the classifiers' are kept."""
    return [
        {
            "epoch": row["epoch"],
            "learning_rate": row["lr/pg0"],
            "train_loss": sum(v for k, v in row.items() if k.startswith("train/")),
            "val_loss": sum(v for k, v in row.items() if k.startswith("val/")),
            "val_map50": row[_MAP50],
            "val_map50_95": row[_MAP50_95],
        }
        for row in _results(folder)
    ]


def _finished(folder: Path, part: TrainPart) -> TrainedDetector:
    rows = _results(folder)
    best = max(rows, key=lambda r: r[_MAP50_95])
    validation = {
        "map50": best[_MAP50],
        "map50_95": best[_MAP50_95],
        "images": float(len(part.validation)),
    }
    return TrainedDetector(folder / _BEST, validation, int(rows[-1]["epoch"]))
