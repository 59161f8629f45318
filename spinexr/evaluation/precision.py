"""Calibrate a reduced precision, then judge it against float32 on other images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from spinexr.datasets import vindr
from spinexr.datasets.vindr import LabelledImage
from spinexr.errors import ConfigurationError
from spinexr.evaluation import parity, run
from spinexr.evaluation.parity import Parity
from spinexr.evaluation.predictions import ImagePrediction
from spinexr.imaging import reader
from spinexr.inference import transforms, yolo
from spinexr.inference.bundle import Bundle, load_bundle
from spinexr.inference.engines import EngineOptions, openvino_loading
from spinexr.inference.engines.precision import Precision, Verdicts
from spinexr.inference.loading import load_predictor

CALIBRATION_IMAGES = 300

Progress = Callable[[str, int, int], None]  # what, done, of how many


def judge(
    weights: Path,
    data: Path,
    options: EngineOptions,
    *,
    max_pixels: int,
    calibration_images: int = CALIBRATION_IMAGES,
    least_images: int = parity.LEAST_IMAGES,
    progress: Progress = lambda _what, _done, _of: None,
) -> Parity:
    """Make what a precision needs, compare it with float32, and file the verdict.

    int8 is calibrated on images of the train part; every image of the test part is judged.

    Args:
        options: the wanted precision, and the store that gets networks and verdict.

    Raises:
        ConfigurationError: the dataset has problems or is too small, or NNCF is missing.
        ModelsNotReadyError: a network cannot be loaded, or the processor lacks the precision.
        OSError: the store cannot be written.
    """
    store = options.store or weights / "engines"
    bundle = load_bundle(weights)
    training, test = labelled(data, least_images=least_images)
    openvino_loading.check_precision(options.precision)
    exact_options = replace(options, engine="openvino", precision=Precision.EXACT)
    exact = _predict(weights, exact_options, test, max_pixels, "In float32", progress)
    if options.precision is Precision.INT8:
        chosen = [i.file for i in _spread(training, calibration_images)]
        calibrate(weights, store, chosen, max_pixels=max_pixels, progress=progress)
    reduced_options = replace(options, engine="openvino", unjudged=True)
    label = f"In {options.precision}"
    reduced = _predict(weights, reduced_options, test, max_pixels, label, progress)
    found = parity.compare(
        test, exact, reduced, threshold=bundle.ensemble.threshold, least_images=least_images
    )
    Verdicts(store).write(
        options.precision,
        openvino_loading.verdict_subject(bundle, options.precision, store=store),
        accepted=found.refusal is None,
        measured=found.as_dict(),
    )
    return found


def calibrate(
    weights: Path,
    store: Path,
    files: Sequence[Path],
    *,
    max_pixels: int,
    progress: Progress = lambda _what, _done, _of: None,
) -> None:
    """Make the int8 networks of a bundle, their ranges taken from these radiographs.

    Raises:
        ConfigurationError: NNCF is missing.
        ModelsNotReadyError: a network cannot be loaded.
        SpineXRError: a file cannot be read.
    """
    bundle = load_bundle(weights)
    samples = _samples(bundle, files, max_pixels, progress)
    openvino_loading.quantise(bundle, samples, store=store)


def labelled(
    data: Path, *, least_images: int = parity.LEAST_IMAGES
) -> tuple[tuple[LabelledImage, ...], tuple[LabelledImage, ...]]:
    """The images to calibrate on and those to judge by.

    Raises:
        ConfigurationError: the dataset has problems or is too small.
    """
    parts = []
    for part in ("train", "test"):
        dataset = vindr.read(data, parts=(part,))
        if dataset.problems:
            raise ConfigurationError(
                f"{len(dataset.problems)} problems in the {part} part: {dataset.problems[0]}."
            )
        parts.append(dataset.images)
    parity.refuse_too_few(len(parts[1]), least_images)
    return parts[0], parts[1]


def _spread(images: Sequence[LabelledImage], count: int) -> list[LabelledImage]:
    """So many images, evenly from the whole list."""
    places = np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int)
    return [images[n] for n in places]


def _samples(
    bundle: Bundle, files: Sequence[Path], max_pixels: int, progress: Progress
) -> dict[str, list[np.ndarray]]:
    """The inputs of each network for some radiographs."""
    classifier, detector = [], []
    for n, file in enumerate(files):
        radiograph = reader.read(
            file.read_bytes(), max_pixels=max_pixels, allow_other_body_part=True
        )
        grey = transforms.to_grey(radiograph, bundle.ensemble.preprocessing.intensity)
        classifier.append(transforms.classifier_input(grey, bundle.ensemble.preprocessing))
        grey = transforms.to_grey(radiograph, bundle.detector.intensity)
        detector.append(yolo.detector_input(yolo.letterbox(grey, bundle.detector.size)[0]))
        progress("Reading to calibrate", n + 1, len(files))
    return {**{m.name: classifier for m in bundle.ensemble.members}, "detector": detector}


def _predict(
    weights: Path,
    options: EngineOptions,
    images: Sequence[LabelledImage],
    max_pixels: int,
    label: str,
    progress: Progress,
) -> list[ImagePrediction]:
    predictor = load_predictor(weights, options)
    try:
        if predictor.engine.precision is not options.precision:
            raise ConfigurationError(
                f"Nothing can be judged in {options.precision}: {predictor.engine.precision_note}"
            )
        answers = []
        for n, answer in enumerate(run.predict(images, predictor, max_pixels=max_pixels)):
            answers.append(answer)
            progress(label, n + 1, len(images))
        return answers
    finally:
        predictor.close()
