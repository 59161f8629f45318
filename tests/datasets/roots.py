"""Small datasets in the layout of VinDr-SpineXR."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spinexr.datasets.vindr import COLUMNS, NO_FINDING
from tests import builders

# (lesion_type, xmin, ymin, xmax, ymax)
Lesion = tuple[str, float, float, float, float]


@dataclass
class Image:
    """One image to write; no lesions means "No finding"."""

    study: str
    name: str
    lesions: Sequence[Lesion] = ()
    part: str = "test"
    attributes: dict[str, Any] = field(default_factory=dict)


DEFAULT = (
    Image("s1", "a", [("Osteophytes", 10, 20, 40, 60), ("Disc space narrowing", 5, 5, 100, 30)]),
    Image("s1", "b"),
    Image("s2", "c", [("Osteophytes", 30, 30, 60, 90)]),
    Image("s3", "d"),
    Image("s4", "e", part="train"),
    Image("s5", "f", [("Vertebral collapse", 1, 1, 20, 20)], part="train"),
)


def rows_of(image: Image) -> list[list[object]]:
    start = [image.study, f"{image.study}.1", image.name, "R1"]
    if not image.lesions:
        return [[*start, NO_FINDING, "", "", "", ""]]
    return [[*start, *lesion] for lesion in image.lesions]


def write(root: Path, images: Sequence[Image] = DEFAULT) -> Path:
    """Write a dataset and return its root."""
    (root / "annotations").mkdir(parents=True)
    for part in ("train", "test"):
        folder = root / f"{part}_images"
        folder.mkdir()
        with (root / f"annotations/{part}.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(COLUMNS)
            for n, image in enumerate(images):
                if image.part == part:
                    writer.writerows(rows_of(image))
                    data = builders.dicom(builders.pixels(seed=n), attributes=image.attributes)
                    (folder / f"{image.name}.dicom").write_bytes(data)
    return root
