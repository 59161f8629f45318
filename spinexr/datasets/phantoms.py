"""Datasets of phantoms in the layout of VinDr-SpineXR, labels known because they were drawn."""

from __future__ import annotations

import csv
import hashlib
import json
import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from pydicom import uid

from spinexr import __version__
from spinexr.datasets.vindr import CLASSES, COLUMNS, NO_FINDING, PARTS
from spinexr.domain import Box, Photometric
from spinexr.errors import ConfigurationError
from spinexr.phantom import film, lesions, projection, writer
from spinexr.phantom.anatomy import LEVELS, Patient, Region
from spinexr.phantom.projection import View

# Weight of each class: osteophytes most, as in the dataset, its rare ones often enough to learn.
_PROBABILITIES = (0.34, 0.15, 0.10, 0.09, 0.11, 0.12, 0.09)
_ABNORMAL_STUDIES = 0.5
ABOUT = "phantoms.json"  # beside the annotations: what made the dataset
_REVISION = 3  # raised when the same plan gives other images
_ATTEMPTS = 50  # at a patient whose findings show
# The test part draws anatomy and film from wider ranges than train.
_WIDE = {"train": 1.0, "test": 1.25}
_LEVELS = {
    Region.CERVICAL: LEVELS[1:6],
    Region.THORACIC: LEVELS[8:17],
    Region.THORACOLUMBAR: LEVELS[14:22],
    Region.LUMBAR: LEVELS[17:23],
}
# What a frontal film hardly shows.
_FROM_THE_SIDE = ("Foraminal stenosis", "Spondylolysthesis")
_SYNTAXES = (
    uid.ExplicitVRLittleEndian,
    uid.ImplicitVRLittleEndian,
    uid.JPEG2000Lossless,
    uid.JPEGLSLossless,
    uid.JPEGLosslessSV1,
    uid.RLELossless,
)
_MAKERS = ("PHANTOM WORKS A", "PHANTOM WORKS B", "PHANTOM WORKS C", "PHANTOM WORKS D")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to make; the same plan makes the same files on any number of cores."""

    out: Path
    studies: int
    seed: int
    rows: int = 1200
    columns: int = 800
    test_share: float = 0.25  # of the studies
    alone: bool = False  # one class of findings in a patient, not up to three
    oftener: tuple[tuple[str, float], ...] = ()  # classes, and how many times their weight


@dataclass(frozen=True, slots=True)
class PhantomImage:
    """One image that was written."""

    part: str
    study_id: str
    series_id: str
    image_id: str
    boxes: tuple[tuple[str, Box], ...]


def generate(plan: Plan, *, workers: int) -> Iterator[int]:
    """Write the dataset; yields the number of images after each study.

    Raises:
        ConfigurationError: the folder holds something, or the plan has no study for both parts.
    """
    if plan.studies < 2:
        raise ConfigurationError("A dataset of two parts needs at least 2 studies.")
    if plan.out.exists() and any(plan.out.iterdir()):
        raise ConfigurationError(f"{plan.out} is not empty; choose another folder.")
    for part in PARTS:
        (plan.out / f"{part}_images").mkdir(parents=True)
    written: list[PhantomImage] = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        for images in pool.map(_make_study, [(plan, n) for n in range(plan.studies)]):
            written += images
            yield len(images)
    about = {
        "generator": "spinexr phantom", "version": __version__, "revision": _REVISION,
        **asdict(plan), "oftener": dict(plan.oftener),
    }  # fmt: skip
    del about["out"]
    (plan.out / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    (plan.out / "annotations").mkdir()
    for part in PARTS:
        _write_csv(plan.out / f"annotations/{part}.csv", [i for i in written if i.part == part])


def _make_study(task: tuple[Plan, int]) -> list[PhantomImage]:
    plan, number = task
    rng = np.random.default_rng([plan.seed, number])
    # Evenly spread, so that small datasets have both parts too.
    tests = min(max(1, round(plan.studies * plan.test_share)), plan.studies - 1)
    part = "test" if (number * tests) % plan.studies < tests else "train"
    study_id = _identifier(plan.seed, number)
    region = list(Region)[int(rng.choice(4, p=[0.25, 0.15, 0.2, 0.4]))]
    abnormal = rng.random() < _ABNORMAL_STUDIES
    # Findings that show in no view, say all outside the field, leave nothing to write.
    for _ in range(_ATTEMPTS):
        if images := _expose_patient(plan, part, study_id, region, abnormal, rng):
            return images
    raise ConfigurationError(
        f"Films of {plan.rows} × {plan.columns} pixels are too small to show any finding."
    )


def _expose_patient(
    plan: Plan, part: str, study_id: str, region: Region, abnormal: bool, rng: np.random.Generator
) -> list[PhantomImage]:
    patient = Patient.draw(rng, wide=_WIDE[part])
    findings = []
    if abnormal:
        findings = lesions.draw(
            _LEVELS[region], rng, classes=CLASSES, alone=plan.alone,
            probabilities=_probabilities(plan.oftener),
        )  # fmt: skip
    scene = projection.build_scene(region, patient, rng, findings=findings)
    person = {
        "PatientSex": patient.sex,
        "PatientAge": f"{patient.age:03d}Y",
        "Manufacturer": _MAKERS[int(rng.integers(len(_MAKERS)))],
        "Modality": "DX" if rng.random() < 0.7 else "CR",
    }
    wanted = 1 + int(rng.choice(4, p=[0.42, 0.36, 0.15, 0.07]))
    views = list(rng.permutation([View.FRONTAL, View.LATERAL, View.OBLIQUE, View.OBLIQUE]))
    if any(f.label in _FROM_THE_SIDE for f in findings):
        views.sort(key=lambda v: v == View.FRONTAL)
    images: list[PhantomImage] = []
    for n, view in enumerate(views):
        if len(images) == wanted:
            break
        image = _make_image(plan, part, study_id, n, scene, View(view), person, rng)
        if image is not None:
            images.append(image)
    return images


def _probabilities(oftener: Iterable[tuple[str, float]]) -> list[float]:
    factors = dict(oftener)
    return [p * factors.get(c, 1.0) for c, p in zip(CLASSES, _PROBABILITIES, strict=True)]


def _make_image(
    plan: Plan,
    part: str,
    study_id: str,
    number: int,
    scene: projection.Scene,
    view: View,
    person: dict[str, str],
    rng: np.random.Generator,
) -> PhantomImage | None:
    geometry = projection.geometry_for(scene, view, rng, rows=plan.rows, columns=plan.columns)
    boxes = []
    for mark in scene.marks:
        box = geometry.box_of(mark)
        if box is not None:
            boxes.append((mark.label, box))
    if scene.marks and not boxes:
        return None  # neither normal nor labelled
    exposure = film.Film.draw(rng, wide=_WIDE[part])
    shown = projection.expose(scene, geometry, exposure, rng)
    bits = int(rng.integers(10, 16))
    photometric = Photometric.MONOCHROME1 if rng.random() < 0.35 else Photometric.MONOCHROME2
    image_id = _identifier(plan.seed, study_id, number)
    magnification = float(rng.uniform(1.08, 1.25))
    spacing = f"{geometry.pixel_mm * magnification:.4f}"
    window = 2**bits - 1
    dataset = writer.build(
        projection.to_stored(shown, bits=bits, photometric=photometric),
        uids=writer.Uids.derived_from(study_id, str(number), image_id),
        transfer_syntax=_SYNTAXES[int(rng.integers(len(_SYNTAXES)))],
        photometric=photometric,
        bits_stored=bits,
        attributes={
            **person,
            "PatientName": "Phantom^SpineXR",
            "PatientID": study_id,
            "BurnedInAnnotation": None,  # letters may be; nothing is claimed
            "BodyPartExamined": scene.region.value,
            "StudyDescription": f"{scene.region.value} PHANTOM",
            "SeriesDescription": f"{scene.region.value} {geometry.view_position(view)}",
            "ViewPosition": geometry.view_position(view),
            "ImagerPixelSpacing": [spacing, spacing],
            "WindowCenter": round(window * float(rng.uniform(0.46, 0.54))),
            "WindowWidth": round(window * float(rng.uniform(0.85, 1.0))),
        },
    )
    file = plan.out / f"{part}_images" / f"{image_id}.dicom"
    file.write_bytes(writer.to_bytes(dataset))
    return PhantomImage(part, study_id, _identifier(study_id, number), image_id, tuple(boxes))


def _identifier(*parts: object) -> str:
    """32 hexadecimal digits, like the dataset's own ids."""
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:32]


def _write_csv(file: Path, images: list[PhantomImage]) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(COLUMNS)
        for image in images:
            start = [image.study_id, image.series_id, image.image_id, "phantom"]
            if not image.boxes:
                table.writerow([*start, NO_FINDING, "", "", "", ""])
            for label, b in image.boxes:
                table.writerow([*start, label, *(f"{v:.2f}" for v in (b.x1, b.y1, b.x2, b.y2))])
