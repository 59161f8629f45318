"""Labelled radiographs → arrays to train on. Only the train part is ever opened."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from spinexr.datasets import vindr
from spinexr.datasets.vindr import CLASSES, LabelledImage
from spinexr.errors import ConfigurationError, SpineXRError, TrainingError
from spinexr.imaging import reader
from spinexr.inference import yolo
from spinexr.inference.bundle import Intensity
from spinexr.inference.transforms import Grey, to_grey

_PART = "train"
_CHUNK = 16

Progress = Callable[[str, int, int], None]  # what, done, of how many
Boxes = npt.NDArray[np.float32]  # (N, 5): x1, y1, x2, y2 as shares of width and height; class


def silent(_what: str, _done: int, _total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True, slots=True)
class TrainPart:
    """The images of the train part, split by study, and what they are."""

    root: Path
    training: tuple[LabelledImage, ...]
    validation: tuple[LabelledImage, ...]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Examples:
    """Prepared images, uint8 (N, side, side), with their truth in the same order."""

    pixels: npt.NDArray[np.uint8]
    abnormal: npt.NDArray[np.bool_]
    boxes: tuple[Boxes, ...]

    def __len__(self) -> int:
        return len(self.pixels)


def read_train_part(root: Path, *, validation_share: float, seed: int) -> TrainPart:
    """The train part, its studies split into training and validation.

    Studies are dealt out within normal and abnormal ones apart, so that both sides have both.

    Raises:
        ConfigurationError: the dataset has problems, or too few studies to split.
    """
    dataset = vindr.read(root, parts=(_PART,))
    if dataset.problems:
        first = "; ".join(str(p) for p in dataset.problems[:3])
        raise ConfigurationError(
            f"Problems in the train part of {dataset.root}, {len(dataset.problems)} in all: "
            f"{first}. "
            f"Mend them, or take those images' rows out of annotations/{_PART}.csv and their files "
            f"out of {_PART}_images."
        )
    validation = _validation_studies(dataset.images, validation_share, seed)
    sides: tuple[list[LabelledImage], list[LabelledImage]] = ([], [])
    for image in dataset.images:
        sides[image.study_id in validation].append(image)
    for side in sides:
        if len({i.abnormal for i in side}) < 2:
            raise ConfigurationError(
                f"The train part of {dataset.root} has too few studies: training and validation "
                "each need normal and abnormal ones."
            )
    return TrainPart(dataset.root, tuple(sides[0]), tuple(sides[1]), _fingerprint(dataset.root))


def prepare(
    images: Sequence[LabelledImage],
    *,
    side: int,
    intensity: Intensity,
    cache: Path,
    fingerprint: str = "",
    max_pixels: int = 10**8,
    progress: Progress = silent,
) -> Examples:
    """Read, normalise and resize images once; later calls take them from `cache`.

    Args:
        fingerprint: of the data; images of other data are never taken for these.

    Raises:
        ConfigurationError: a file cannot be read; it is named.
    """
    named = "\n".join([fingerprint, *(i.image_id for i in images)])
    key = hashlib.sha256(named.encode()).hexdigest()[:12]
    stem = cache / f"{intensity.value}-{side}-{key}"
    pixels, shapes = stem.with_suffix(".npy"), stem.with_suffix(".shapes.npy")
    if not (pixels.exists() and shapes.exists()):
        cache.mkdir(parents=True, exist_ok=True)
        _write_cache(pixels, shapes, images, side, intensity, max_pixels, progress)
    return Examples(
        pixels=np.load(pixels, mmap_mode="r"),
        abnormal=np.array([i.abnormal for i in images]),
        boxes=tuple(
            relative_boxes(i, rows, columns)
            for i, (rows, columns) in zip(images, np.load(shapes), strict=True)
        ),
    )


def each_grey(
    images: Sequence[LabelledImage],
    *,
    size: tuple[int, int] | int | None,
    intensity: Intensity,
    max_pixels: int = 10**8,
    workers: int = 0,
) -> Iterable[tuple[Grey, tuple[int, int]]]:
    """The uint8 images in order with their shapes as stored, read by several processes.

    Args:
        size: (width, height) to resize to as for the classifiers, the longest side as for the
            detector, or None to leave it.
    """
    tasks = [(i.file, size, intensity, max_pixels) for i in images]
    with ProcessPoolExecutor(workers or os.cpu_count(), mp_context=get_context("spawn")) as pool:
        yield from pool.map(_grey, tasks, chunksize=_CHUNK)


def _grey(
    task: tuple[Path, tuple[int, int] | int | None, Intensity, int],
) -> tuple[Grey, tuple[int, int]]:
    file, size, intensity, max_pixels = task
    try:
        # The dataset says that its images show spines, whatever their files say.
        read = reader.read(file.read_bytes(), max_pixels=max_pixels, allow_other_body_part=True)
        grey = to_grey(read, intensity)
    except SpineXRError as e:
        raise ConfigurationError(f"{file}: {e.message}") from e
    except OSError as e:
        raise ConfigurationError(f"{file} cannot be read: {e.strerror or e}.") from e
    shape = (grey.shape[0], grey.shape[1])
    if size is None:
        return grey, shape
    if isinstance(size, int):
        scale = size / max(grey.shape)
        columns, rows = (max(1, round(n * scale)) for n in (grey.shape[1], grey.shape[0]))
        return yolo.resized(grey, rows, columns), shape  # as when serving
    return np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR)), shape


def _write_cache(
    pixels_file: Path,
    shapes_file: Path,
    images: Sequence[LabelledImage],
    side: int,
    intensity: Intensity,
    max_pixels: int,
    progress: Progress,
) -> None:
    part, shapes_part = pixels_file.with_suffix(".part"), shapes_file.with_suffix(".part")
    try:
        # A full disk must be met here: within a mapping it would kill the process.
        pixels = np.lib.format.open_memmap(part, "w+", np.uint8, (len(images), side, side))
        with part.open("rb+") as stream:
            _reserve(stream.fileno(), part.stat().st_size)
        shapes = []
        greys = each_grey(images, size=(side, side), intensity=intensity, max_pixels=max_pixels)
        for n, (grey, shape) in enumerate(greys):
            pixels[n] = grey
            shapes.append(shape)
            progress(f"Reading at {side} pixels", n + 1, len(images))
        pixels.flush()
        with shapes_part.open("wb") as stream:
            np.save(stream, np.array(shapes))
        shapes_part.replace(shapes_file)
        part.replace(pixels_file)
    except OSError as e:
        raise TrainingError(f"{pixels_file} cannot be written: {e.strerror}.") from e
    finally:
        part.unlink(missing_ok=True)
        shapes_part.unlink(missing_ok=True)


def _reserve(file: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):  # not on macOS and Windows
        os.posix_fallocate(file, 0, size)


def middles(boxes: Boxes) -> npt.NDArray[np.float32]:
    """(N, 2): x and y as shares of width and height."""
    result: npt.NDArray[np.float32] = boxes[:, :4].reshape(-1, 2, 2).mean(1)
    return result


def relative_boxes(image: LabelledImage, rows: int, columns: int) -> Boxes:
    """The findings of an image stored with `rows` and `columns`."""
    found = [
        (x.box.x1 / columns, x.box.y1 / rows, x.box.x2 / columns, x.box.y2 / rows,
         CLASSES.index(x.label))
        for x in image.lesions
    ]  # fmt: skip
    return np.array(found, np.float32).reshape(-1, 5)


def _validation_studies(images: Sequence[LabelledImage], share: float, seed: int) -> set[str]:
    abnormal: dict[str, bool] = {}
    for image in images:
        abnormal[image.study_id] = abnormal.get(image.study_id, False) or image.abnormal
    chosen: set[str] = set()
    for kind in (False, True):
        studies = sorted(s for s, a in abnormal.items() if a is kind)
        order = np.random.default_rng([seed, int(kind)]).permutation(len(studies))
        chosen |= {studies[n] for n in order[: round(share * len(studies))]}
    return chosen


def _fingerprint(root: Path) -> str:
    """SHA-256 over the annotations and the names and sizes of the images they speak of."""
    digest = hashlib.sha256((root / f"annotations/{_PART}.csv").read_bytes())
    for entry in sorted(os.scandir(root / f"{_PART}_images"), key=lambda e: e.name):
        if entry.name != "index.html":
            digest.update(f"{entry.name} {entry.stat().st_size}\n".encode())
    return digest.hexdigest()
