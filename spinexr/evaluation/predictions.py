"""predictions.csv: one row per image, from a bundle or from somebody else's program.

Columns: `image_id`; `probability` of "abnormal", 0–1; any number of `member:NAME` with the
probabilities of single classifiers; `boxes`, a JSON list of `[label, confidence, x1, y1, x2, y2]`
in pixels of the stored image; `error`, a code where there is no answer. Only the first two are
needed.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spinexr.domain import Box
from spinexr.errors import ConfigurationError
from spinexr.evaluation.detection import ScoredBox

_MEMBER = "member:"
RESERVED = ("ensemble", "ensemble+detector")  # scores that are no member's


@dataclass(frozen=True, slots=True)
class ImagePrediction:
    """The answer for one image; `boxes` is None where no detector ran, `error` where all failed."""

    image_id: str
    probability: float | None
    members: dict[str, float] = field(default_factory=dict)
    boxes: tuple[ScoredBox, ...] | None = None
    error: str | None = None


def write(predictions: Iterable[ImagePrediction], file: Path) -> None:
    """Write predictions in the order given."""
    rows = list(predictions)
    members = list(dict.fromkeys(name for p in rows for name in p.members))
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(
            ["image_id", "probability", *(_MEMBER + m for m in members), "boxes", "error"]
        )
        for p in rows:
            writer.writerow(
                [
                    p.image_id,
                    "" if p.probability is None else repr(p.probability),
                    *(repr(p.members[m]) if m in p.members else "" for m in members),
                    "" if p.boxes is None else json.dumps([_as_list(b) for b in p.boxes]),
                    p.error or "",
                ]
            )


def read(file: Path, *, classes: Sequence[str]) -> list[ImagePrediction]:
    """Read predictions.

    Raises:
        ConfigurationError: a column is missing, or a row is nonsense; the message names it.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            csv.field_size_limit(2**27)  # the boxes of one image may exceed csv's 131,072 letters
            reader = csv.DictReader(stream)
            missing = {"image_id", "probability"} - set(reader.fieldnames or ())
            if missing:
                raise ConfigurationError(f"{file} has no column {', '.join(sorted(missing))}.")
            if taken := {_MEMBER + n for n in RESERVED} & set(reader.fieldnames or ()):
                raise ConfigurationError(
                    f"{file}: the column {', '.join(sorted(taken))} has the name of another score; "
                    "rename it."
                )
            found: dict[str, ImagePrediction] = {}
            for row in reader:
                try:
                    prediction = _from_row(row, classes)
                except (ValueError, TypeError) as e:
                    raise ConfigurationError(f"{file}, row {reader.line_num}: {e}.") from e
                if prediction.image_id in found:
                    raise ConfigurationError(
                        f"{file}, row {reader.line_num}: the image {prediction.image_id} stands "
                        "here twice."
                    )
                found[prediction.image_id] = prediction
    except (OSError, csv.Error, UnicodeDecodeError) as e:
        raise ConfigurationError(f"{file} cannot be read as csv: {e}.") from e
    return list(found.values())


def _from_row(row: dict[str, str | None], classes: Sequence[str]) -> ImagePrediction:
    image_id = (row["image_id"] or "").strip()
    if not image_id:
        raise ValueError("image_id is empty")
    error = (row.get("error") or "").strip() or None
    text = (row["probability"] or "").strip()
    if not text and error is None:
        raise ValueError("probability is empty")
    members = {
        column.removeprefix(_MEMBER): _fraction(column, value)
        for column, value in row.items()
        if column and column.startswith(_MEMBER) and value
    }
    boxes = (row.get("boxes") or "").strip()
    return ImagePrediction(
        image_id=image_id,
        probability=_fraction("probability", text) if text else None,
        members=members,
        boxes=tuple(_from_list(b, classes) for b in json.loads(boxes)) if boxes else None,
        error=error,
    )


def _fraction(column: str, text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and 0 <= value <= 1):
        raise ValueError(f"{column} is {text}, not between 0 and 1")
    return value


def _as_list(box: ScoredBox) -> list[object]:
    b = box.box
    return [box.label, box.confidence, b.x1, b.y1, b.x2, b.y2]


def _from_list(values: Sequence[object], classes: Sequence[str]) -> ScoredBox:
    if len(values) != 6:
        raise ValueError(f"a box is {values}, not [label, confidence, x1, y1, x2, y2]")
    label, *numbers = values
    if label not in classes:
        raise ValueError(f"the label {label!r} is not a class of the dataset")
    confidence, *corners = (float(n) for n in numbers)  # type: ignore[arg-type]  # refused if not
    return ScoredBox(str(label), _fraction("confidence", str(confidence)), Box(*corners))
