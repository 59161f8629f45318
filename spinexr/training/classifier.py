"""Training of one classifier: a seeded, resumable loop over prepared images."""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from spinexr.errors import ConfigurationError, TrainingError
from spinexr.evaluation.classification import expected_calibration_error
from spinexr.inference.bundle import STANDARD_ENSEMBLE, Intensity
from spinexr.inference.engines.torch_checkpoints import CheckpointError, load_classifier
from spinexr.processors import available_threads
from spinexr.training import calibration
from spinexr.training.augment import augmented, resized, window
from spinexr.training.calibration import Calibration
from spinexr.training.examples import (
    Boxes,
    Examples,
    Progress,
    TrainPart,
    middles,
    prepare,
    silent,
)
from spinexr.training.networks import Learner, Teacher, location_loss
from spinexr.training.runs import (
    BEST,
    LAST,
    RunFolder,
    after_no_number,
    autocast,
    failures_named,
    pick_device,
)

_MARGIN = 1.15  # side of prepared images over that of inputs, for turning and zooming
_EMA = 0.995  # decay of the averaged weights that are validated and kept
_WARM_UP = 0.06  # share of the steps
_FINAL_RATE = 0.02  # of the highest learning rate
_OPINION = 0.5  # share of what a teacher says of an image in what is to be learnt
_AT_ONCE = 64  # images to validate on at most, without the memory that training takes
_PREPROCESSING = STANDARD_ENSEMBLE["preprocessing"]


@dataclass(frozen=True, slots=True)
class ClassifierOptions:
    """What a run depends on besides network and data. Sizes in pixels."""

    epochs: int = 30
    size: int = 224
    window: int = 112  # side of the windows cut from the images in the first epochs
    window_share: float = 0.5  # of the epochs that see windows
    batch: int = 32
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    location_weight: float = 1.0  # of the loss that says where, see `networks`
    patience: int = 10  # epochs of full size without a better validation AUROC
    validation_share: float = 0.1
    intensity: str = Intensity.STORED_MINMAX.value
    pretrained: bool = True  # ImageNet weights where they can be fetched
    initial_sha256: str = ""  # of the checkpoint to start from instead; empty for none
    teacher: str = ""  # architecture of the trained network to learn from; empty for none
    teacher_sha256: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.window > self.size:
            raise ConfigurationError(
                f"Windows of {self.window} pixels cannot be cut from images of {self.size}: lower "
                "--window."
            )

    def size_at(self, epoch: int) -> int:
        """Side of the inputs in an epoch counted from 0."""
        return self.window if self.windows_at(epoch) else self.size

    def windows_at(self, epoch: int) -> bool:
        """Whether an epoch counted from 0 sees windows, not whole images.

        A window is a quarter of the work and its label says far more about it than an image's
        (Shen et al., Sci Rep 2019, on mammograms: patches first, then whole images).
        """
        return epoch < int(self.window_share * self.epochs)


@dataclass(frozen=True, slots=True)
class Trained:
    """What a run came to; `best` has the network."""

    calibration: Calibration
    validation: dict[str, float]  # auroc, ece, loss, images, calibrated
    logits: npt.NDArray[np.float64]  # not calibrated, of the validation images in order
    epochs: int


def train(
    architecture: str,
    part: TrainPart,
    folder: RunFolder,
    options: ClassifierOptions,
    *,
    initial: Path | None = None,
    teacher: Path | None = None,
    resume: bool = False,
    device: str = "auto",
    commands: Sequence[str] = (),
    cache: Path | None = None,
    report: Callable[[str], None] = lambda _line: None,
    progress: Progress = silent,
) -> Trained:
    """Train until the last epoch or until validation stops getting better.

    The same options, data and machine give the same curve, in one go or resumed.

    Args:
        initial: a checkpoint of the same architecture to start from.
        teacher: a checkpoint of the architecture `options.teacher`, to learn from.
        commands: this one, after those that made `initial`.

    Raises:
        ConfigurationError: `initial` or `teacher` does not hold its architecture.
        TrainingError: a loss or an answer that is not a number, a full disk, a device that went
            away, a run that does not fit; the last good checkpoint is kept.
    """
    where = pick_device(device)
    torch.set_num_threads(available_threads())
    torch.set_flush_denormal(True)  # denormal numbers are slow and change nothing
    config = {
        "architecture": architecture,
        "data": part.fingerprint,
        "options": asdict(options),
        "commands": list(commands),
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
        "device": where.type,
        "images": {"training": len(part.training), "validation": len(part.validation)},
    }
    weights = _given(initial, architecture).state_dict() if initial is not None else None
    taught_by = _given(teacher, options.teacher) if teacher is not None else None
    state = folder.resume(config) if resume else None
    if not resume:
        folder.start(config)
    intensity = Intensity(options.intensity)
    store = cache or folder.path / "cache"
    training = prepare(
        part.training, side=math.ceil(options.size * _MARGIN), intensity=intensity, cache=store,
        fingerprint=part.fingerprint, progress=progress,
    )  # fmt: skip
    validation = prepare(
        part.validation, side=options.size, intensity=intensity, cache=store,
        fingerprint=part.fingerprint, progress=progress,
    )  # fmt: skip
    with failures_named(where, lambda: "the beginning"):
        loop = _Loop(
            architecture, options, len(part.training), where, folder, teacher=taught_by,
            resumed=state is not None,
        )  # fmt: skip
        if weights is not None:
            loop.start_from(weights)
        if state is not None:
            loop.restore(state)
    if state is not None:
        report(f"{architecture}: going on after epoch {loop.epoch}.")
    else:
        folder.began_with(loop.learner.initial)
        unfetched = options.pretrained and loop.learner.initial == "random"
        why = " (ImageNet's could not be fetched)" if unfetched else ""
        report(f"{architecture}: starting from {loop.learner.initial} weights{why} on {where}.")
    while loop.epoch < options.epochs and not loop.out_of_patience:
        started = time.monotonic()
        with failures_named(where, lambda: f"epoch {loop.epoch + 1}, step {loop.step + 1}"):
            row = loop.run_epoch(training, validation, progress)
        row["seconds"] = time.monotonic() - started
        loop.keep(row)
        report(
            f"{architecture} epoch {loop.epoch}/{options.epochs} at "
            f"{options.size_at(loop.epoch - 1)} px: loss {row['train_loss']:.4f}, validation loss "
            f"{row['val_loss']:.4f}, AUROC {row['val_auroc']:.4f}, {row['seconds']:.0f} s"
        )
    with failures_named(where, lambda: "the validation of the best epoch"):
        return _judged(architecture, folder, validation, options, where, loop.epoch)


def best(architecture: str, folder: RunFolder) -> nn.Module:
    """The network of the run's best epoch, not calibrated.

    Raises:
        TrainingError: its checkpoint is missing or damaged.
    """
    network: nn.Module = _best(architecture, folder)[0].network
    return network.eval()


class _Loop:
    """The state that a checkpoint holds, and the steps that change it."""

    def __init__(
        self, architecture: str, options: ClassifierOptions, images: int, device: torch.device,
        folder: RunFolder, *, teacher: nn.Module | None, resumed: bool,
    ) -> None:  # fmt: skip
        torch.manual_seed(options.seed)
        self.options = options
        self.architecture = architecture
        self.device = device
        self.folder = folder
        self.epoch = self.step = 0
        self.rows: list[dict[str, float]] = []
        self.steps = max(1, images // options.batch)
        self.learner = Learner(
            architecture,
            pretrained=options.pretrained and not options.initial_sha256 and not resumed,
        )
        self.teacher = Teacher(teacher, self.learner) if teacher is not None else None
        taught: list[Any] = [m for m in (self.learner, self.teacher) if m is not None]
        for module in taught:
            module.to(device, memory_format=torch.channels_last)
        self.averaged = copy.deepcopy(self.learner).requires_grad_(False)
        self.trained = [p for m in taught for p in m.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(_groups(self.trained, options.weight_decay), fused=True)
        self.scaler = torch.amp.GradScaler(enabled=device.type == "cuda")

    @property
    def out_of_patience(self) -> bool:
        full = self.rows[int(self.options.window_share * self.options.epochs) :]
        if not full:
            return False
        best = max(range(len(full)), key=lambda n: full[n]["val_auroc"])
        return len(full) - 1 - best >= self.options.patience

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Take over a trained network; what says where starts afresh."""
        self.learner.network.load_state_dict(weights)
        self.averaged.network.load_state_dict(weights)
        self.learner.initial = "given"

    def restore(self, state: dict[str, Any]) -> None:
        self.learner.load_state_dict(state["learner"])
        self.averaged.load_state_dict(state["averaged"])
        if self.teacher is not None:
            self.teacher.hints.load_state_dict(state["hints"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:  # empty where the run was on a CPU until now
            self.scaler.load_state_dict(state["scaler"])
        self.epoch = int(state["epoch"])
        self.rows = [dict(row) for row in state["rows"]]

    def keep(self, row: dict[str, float]) -> None:
        """Write curves and checkpoints of the epoch that was run."""
        self.epoch += 1
        self.rows.append(row)
        if row["val_auroc"] >= max(r["val_auroc"] for r in self.rows):
            self.folder.save(
                BEST, {"architecture": self.architecture, "averaged": self.averaged.state_dict(),
                       "epoch": self.epoch},
            )  # fmt: skip
        self.folder.save(
            LAST,
            {
                "architecture": self.architecture,
                "learner": self.learner.state_dict(),
                "averaged": self.averaged.state_dict(),
                "hints": self.teacher.hints.state_dict() if self.teacher is not None else {},
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "epoch": self.epoch,
                "rows": self.rows,
            },
        )
        self.folder.record(self.rows)

    def run_epoch(
        self, training: Examples, validation: Examples, progress: Progress
    ) -> dict[str, float]:
        options = self.options
        # Nothing of an epoch depends on the one before but the weights, so a resumed run goes on
        # exactly as it would have.
        rng = np.random.default_rng([options.seed, self.epoch])
        torch.manual_seed(options.seed * 100_003 + self.epoch)
        balance = float((~training.abnormal).sum() / max(1, training.abnormal.sum()))
        self.learner.train()
        total = 0.0
        for step, (images, abnormal, boxes) in enumerate(
            _batches(training, options, self.epoch, self.steps, rng)
        ):
            self.step = step
            loss = self._step(step, images, abnormal, boxes, balance)
            total += loss
            progress(f"{self.architecture} epoch {self.epoch + 1}", step + 1, self.steps)
        scores = _logits(
            self.averaged, validation, self.device, options.size,
            batch=min(_AT_ONCE, options.batch), epoch=self.epoch + 1,
        )  # fmt: skip
        margin = np.where(validation.abnormal, scores, -scores)
        return {
            "epoch": self.epoch + 1.0,
            "size": float(options.size_at(self.epoch)),
            "learning_rate": self._rate(self.steps - 1),
            "train_loss": total / self.steps,
            "val_loss": float(np.logaddexp(0, -margin).mean()),
            "val_auroc": float(roc_auc_score(validation.abnormal, scores)),
        }

    def _step(
        self, step: int, images: Tensor, abnormal: Tensor, boxes: list[Any], balance: float
    ) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(step)
        pixels, wanted = _to(images, self.device), abnormal.to(self.device)
        weight = torch.where(wanted > 0, balance, 1.0)
        with autocast(self.device):
            logit, features, where = self.learner(pixels)
            if self.teacher is not None:
                said, distance = self.teacher(pixels, features)
                wanted = wanted.lerp(torch.sigmoid(said), _OPINION)
        loss = nn.functional.binary_cross_entropy_with_logits(logit, wanted, weight=weight)
        if self.teacher is not None:
            loss = loss + distance
        if self.options.location_weight:
            loss = loss + self.options.location_weight * location_loss(where, boxes)
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingError(
                f"The loss is {value} in epoch {self.epoch + 1}, step {step + 1} of "
                f"{self.steps}. {after_no_number(self.epoch)}"
            )
        self.optimizer.zero_grad(set_to_none=True)
        scaled: Any = self.scaler.scale(loss)
        scaled.backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.trained, 5.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._average(self.epoch * self.steps + step)
        return value

    def _rate(self, step: int) -> float:
        """A linear rise and a cosine's fall over all steps of the run (Loshchilov & Hutter)."""
        done = (self.epoch * self.steps + step) / (self.options.epochs * self.steps)
        if done < _WARM_UP:
            return self.options.learning_rate * max(done / _WARM_UP, 0.01)
        fall = (1 + math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP))) / 2
        return self.options.learning_rate * (_FINAL_RATE + (1 - _FINAL_RATE) * fall)

    @torch.no_grad()
    def _average(self, step: int) -> None:
        decay = min(_EMA, (1 + step) / (10 + step))
        now = self.learner.state_dict()
        for name, value in self.averaged.state_dict().items():
            if value.is_floating_point():
                value.lerp_(now[name], 1 - decay)
            else:
                value.copy_(now[name])


def _given(checkpoint: Path, architecture: str) -> nn.Module:
    try:
        network: nn.Module = load_classifier(checkpoint, architecture)
    except (CheckpointError, OSError) as e:
        raise ConfigurationError(f"Training cannot start from {checkpoint}: it {e}") from e
    return network


def _best(architecture: str, folder: RunFolder) -> tuple[Learner, int]:
    """The learner of the best epoch, and which that is, from 1."""
    learner, kept = Learner(architecture), folder.load(BEST)
    learner.load_state_dict(kept["averaged"])
    return learner, kept["epoch"]


def _judged(
    architecture: str, folder: RunFolder, validation: Examples, options: ClassifierOptions,
    device: torch.device, epochs: int,
) -> Trained:  # fmt: skip
    learner, epoch = _best(architecture, folder)
    raw = _logits(
        learner.to(device), validation, device, options.size, exact=True,
        batch=min(_AT_ONCE, options.batch), epoch=epoch,
    )  # fmt: skip
    fitted = calibration.fit(raw, validation.abnormal)
    logits = fitted.apply(raw)
    probability = 1 / (1 + np.exp(-logits))
    margin = np.where(validation.abnormal, logits, -logits)
    measured = {
        "auroc": float(roc_auc_score(validation.abnormal, logits)),
        "ece": expected_calibration_error(validation.abnormal, probability),
        "loss": float(np.logaddexp(0, -margin).mean()),
        "images": float(len(validation)),
    }
    return Trained(fitted, measured, raw, epochs)


def _batches(
    examples: Examples, options: ClassifierOptions, epoch: int, steps: int, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor, list[Boxes]]]:
    order = rng.permutation(len(examples))
    places = np.concatenate([middles(b) for b in examples.boxes])
    for step in range(steps):
        images, abnormal, boxes = [], [], []
        for n in order[step * options.batch : (step + 1) * options.batch]:
            pixels, found, label = examples.pixels[n], examples.boxes[n], examples.abnormal[n]
            if options.windows_at(epoch):
                focus = _focus(found, places, rng)
                image, found, label = window(
                    pixels, found, options.window, options.size, focus, rng
                )
            else:
                image, found = augmented(pixels, found, options.size, rng)
            images.append(image)
            abnormal.append(float(label))
            boxes.append(found)
        yield torch.from_numpy(np.stack(images)), torch.tensor(abnormal), boxes


def _focus(
    boxes: Boxes, places: npt.NDArray[np.float32], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Where to look: mostly at a finding, rare classes as often as others, or where others are."""
    chosen = places
    if len(boxes) and rng.random() < 0.8:
        chosen = middles(boxes[boxes[:, 4] == rng.choice(np.unique(boxes[:, 4]))])
    if not len(chosen):
        return np.full(2, 0.5, np.float32)
    result: npt.NDArray[np.float32] = chosen[rng.integers(len(chosen))]
    return result


@torch.no_grad()
def _logits(
    learner: Learner,
    examples: Examples,
    device: torch.device,
    size: int,
    *,
    exact: bool = False,
    batch: int,
    epoch: int,
) -> npt.NDArray[np.float64]:
    """Logits of images as they are, without augmentation, in order; `exact` as when serving.

    Raises:
        TrainingError: an answer of the network, which is that of `epoch`, is not a number.
    """
    learner.eval()
    found = []
    for n in range(0, len(examples), batch):
        images = np.stack([resized(image, size) for image in examples.pixels[n : n + batch]])
        with contextlib.nullcontext() if exact else autocast(device):
            answer = learner.network(_to(torch.from_numpy(images), device))
        found.append(answer[:, 0].float().cpu().numpy())
    logits = np.concatenate(found).astype(np.float64)
    if not np.isfinite(logits).all():
        raise TrainingError(
            f"The network of epoch {epoch} answers validation images with values that are not "
            "numbers. The checkpoints of other epochs are kept; start again with a lower "
            "--learning-rate."
        )
    return logits


def _to(pixels: Tensor, device: torch.device) -> Tensor:
    """uint8 (batch, size, size) → standardised float32 (batch, 3, size, size), channels last."""
    mean, std = (torch.tensor(_PREPROCESSING[k])[:, None, None] for k in ("mean", "std"))
    images = (pixels.float()[:, None] / 255.0 - mean) / std
    return images.to(device).contiguous(memory_format=torch.channels_last)


def _groups(parameters: Sequence[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Weights decay; biases and normalisation do not."""
    flat = [p for p in parameters if p.ndim <= 1]
    deep = [p for p in parameters if p.ndim > 1]
    return [
        {"params": deep, "weight_decay": weight_decay},
        {"params": flat, "weight_decay": 0.0},
    ]
