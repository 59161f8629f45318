"""VinDr-SpineXR as PhysioNet ships it, and any dataset of the same layout.

```
annotations/train.csv   train_images/*.dicom
annotations/test.csv    test_images/*.dicom
```

One csv row is one lesion, or one "No finding". An image is abnormal unless its rows say the latter.
A validation pass finds whatever would make a result quietly wrong and names its row or file.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from spinexr.domain import Box
from spinexr.errors import ConfigurationError, UnanalysableError
from spinexr.imaging import dicom

PARTS = ("train", "test")
COLUMNS = (
    "study_id",
    "series_id",
    "image_id",
    "rad_id",
    "lesion_type",
    "xmin",
    "ymin",
    "xmax",
    "ymax",
)
NO_FINDING = "No finding"
# In the dataset's spelling and the order of its paper.
CLASSES = (
    "Osteophytes",
    "Disc space narrowing",
    "Surgical implant",
    "Foraminal stenosis",
    "Spondylolysthesis",
    "Vertebral collapse",
    "Other lesions",
)

_BELOW_ROOT = Path("physionet.org/files/vindr-spinexr/1.0.0")  # where `wget -r` puts it
_EXTENSIONS = (".dicom", ".dcm")
_BOX_TOLERANCE_PX = 1.0  # annotation tools round outwards


@dataclass(frozen=True, slots=True)
class Lesion:
    """One annotated finding."""

    label: str
    box: Box


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One image and what the radiologists said of it."""

    part: str
    study_id: str
    image_id: str
    file: Path
    lesions: tuple[Lesion, ...]

    @property
    def abnormal(self) -> bool:
        return bool(self.lesions)


@dataclass(frozen=True, slots=True)
class DatasetProblem:
    """Something wrong with one row, one image or one file."""

    code: str
    where: str  # "annotations/test.csv, row 7" or "test_images/abc.dicom"
    message: str
    image_id: str | None = None

    def __str__(self) -> str:
        return f"{self.where}: {self.message} [{self.code}]"


@dataclass(frozen=True, slots=True)
class Dataset:
    """The images without a problem, and the problems of the others."""

    root: Path
    images: tuple[LabelledImage, ...]
    problems: tuple[DatasetProblem, ...]


def locate(root: Path) -> Path:
    """The folder that holds `annotations/`: `root` itself, or where `wget -r` puts it below.

    Raises:
        ConfigurationError: neither holds it.
    """
    for folder in (root, root / _BELOW_ROOT):
        if (folder / "annotations").is_dir():
            return folder
    raise ConfigurationError(
        f"{root} holds no folder “annotations”. Give the folder that holds annotations/, "
        "train_images/ and test_images/."
    )


def read(root: Path, *, parts: Sequence[str] = PARTS, check_files: bool = True) -> Dataset:
    """Read and validate the given parts; the files of other parts are not opened.

    Args:
        root: the dataset, or the folder into which it was downloaded.
        parts: of "train" and "test".
        check_files: also read each image's header, which finds damaged files and boxes outside.

    Raises:
        ConfigurationError: a folder, a csv or a column is missing, or a part has no image; nothing
            sensible can be made of such a root.
    """
    base = locate(root)
    images: list[LabelledImage] = []
    problems: list[DatasetProblem] = []
    for part in parts:
        part_images, part_problems = _read_part(base, part, check_files=check_files)
        images += part_images
        problems += part_problems
    problems += _across_parts(images, _train_ids(base) if "train" not in parts else [])
    bad = {p.image_id for p in problems if p.image_id is not None}
    return Dataset(base, tuple(i for i in images if i.image_id not in bad), tuple(problems))


@dataclass(frozen=True, slots=True)
class _Row:
    where: str
    study_id: str
    image_id: str
    lesion_type: str
    corners: tuple[str, str, str, str]


def _read_part(
    base: Path, part: str, *, check_files: bool
) -> tuple[list[LabelledImage], list[DatasetProblem]]:
    files, problems = _files(base, part)
    rows = _rows(base, part)
    by_image: dict[str, list[_Row]] = defaultdict(list)
    for row in rows:
        by_image[row.image_id].append(row)
    images = []
    for image_id, image_rows in by_image.items():
        file = files.get(image_id)
        if file is None:
            problems.append(
                DatasetProblem(
                    "file_missing",
                    image_rows[0].where,
                    f"the image {image_id} is listed, but {part}_images/ has no file of that name",
                    image_id,
                )
            )
            continue
        lesions, found = _label(image_rows)
        if check_files and not found:
            found = _check_file(file, f"{part}_images/{file.name}", image_id, image_rows, lesions)
        problems += found
        images.append(LabelledImage(part, image_rows[0].study_id, image_id, file, tuple(lesions)))
    problems += [
        DatasetProblem(
            "not_listed", f"{part}_images/{file.name}", "the file is not in the csv", image_id
        )
        for image_id, file in files.items()
        if image_id not in by_image
    ]
    if not images:
        raise ConfigurationError(f"annotations/{part}.csv lists no image that is there.")
    return images, problems


def _files(base: Path, part: str) -> tuple[dict[str, Path], list[DatasetProblem]]:
    folder = base / f"{part}_images"
    if not folder.is_dir():
        raise ConfigurationError(f"{base} holds no folder “{folder.name}”.")
    files: dict[str, Path] = {}
    problems = []
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() not in _EXTENSIONS:  # wget leaves index.html files
            continue
        if file.stem in files:
            problems.append(
                DatasetProblem(
                    "duplicate_file",
                    f"{folder.name}/{file.name}",
                    f"{files[file.stem].name} has the same image id",
                    file.stem,
                )
            )
        files[file.stem] = file
    return files, problems


def _rows(base: Path, part: str) -> list[_Row]:
    shown = f"annotations/{part}.csv"
    try:
        with (base / shown).open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            missing = [c for c in COLUMNS if c not in (reader.fieldnames or ())]
            if missing:
                raise ConfigurationError(f"{shown} has no column {', '.join(missing)}.")
            return [
                _Row(
                    where=f"{shown}, row {reader.line_num}",
                    study_id=(row["study_id"] or "").strip(),
                    image_id=(row["image_id"] or "").strip(),
                    lesion_type=(row["lesion_type"] or "").strip(),
                    corners=tuple((row[c] or "").strip() for c in COLUMNS[5:]),  # type: ignore[arg-type]
                )
                for row in reader
            ]
    except FileNotFoundError as e:
        raise ConfigurationError(f"{base} holds no {shown}.") from e
    except (csv.Error, UnicodeDecodeError) as e:
        raise ConfigurationError(f"{shown} cannot be read as csv: {e}.") from e


def _label(rows: list[_Row]) -> tuple[list[Lesion], list[DatasetProblem]]:
    lesions: list[Lesion] = []
    problems: list[DatasetProblem] = []

    def refuse(code: str, row: _Row, message: str) -> None:
        problems.append(DatasetProblem(code, row.where, message, row.image_id))

    if len({r.study_id for r in rows}) > 1:
        refuse("duplicate_image", rows[-1], "the image id also stands in another study")
    normal = [r for r in rows if r.lesion_type == NO_FINDING]
    if normal and len(normal) < len(rows):
        refuse("contradiction", normal[0], "“No finding” stands beside findings of the same image")
    seen: set[tuple[str, ...]] = set()
    for row in rows:
        if not row.study_id or not row.image_id:
            refuse("id_missing", row, "study_id or image_id is empty")
        if row.lesion_type == NO_FINDING:
            continue
        if row.lesion_type not in CLASSES:
            refuse("unknown_class", row, f"the lesion_type is {row.lesion_type!r}")
            continue
        if (row.lesion_type, *row.corners) in seen:
            refuse("duplicate_row", row, "the same box stands here twice")
        seen.add((row.lesion_type, *row.corners))
        try:
            lesions.append(Lesion(row.lesion_type, Box(*(float(c) for c in row.corners))))
        except ValueError:
            refuse("bad_box", row, f"the box {', '.join(row.corners)} is inverted or no box")
    return lesions, problems


def _check_file(
    file: Path, shown: str, image_id: str, rows: list[_Row], lesions: Iterable[Lesion]
) -> list[DatasetProblem]:
    try:
        header = dicom.parse_header(file)
        rows_px, columns_px = int(header.Rows), int(header.Columns)
    except (UnanalysableError, AttributeError, TypeError, ValueError, OSError):
        return [DatasetProblem("corrupt_file", shown, "the DICOM header cannot be read", image_id)]
    boxed = [r for r in rows if r.lesion_type != NO_FINDING]
    return [
        DatasetProblem(
            "box_outside",
            row.where,
            f"the box leaves the image of {columns_px} × {rows_px} pixels",
            image_id,
        )
        for row, lesion in zip(boxed, lesions, strict=True)
        if min(lesion.box.x1, lesion.box.y1) < -_BOX_TOLERANCE_PX
        or lesion.box.x2 > columns_px + _BOX_TOLERANCE_PX
        or lesion.box.y2 > rows_px + _BOX_TOLERANCE_PX
    ]


def _train_ids(base: Path) -> list[tuple[str, str]]:
    """(study, image) of the train part, where there is one, so that a test part is held against it.

    The other way round nothing is looked up: training never opens the test part.
    """
    if not (base / "annotations" / "train.csv").exists():
        return []
    return [(row.study_id, row.image_id) for row in _rows(base, "train")]


def _across_parts(
    images: Sequence[LabelledImage], train_ids: Sequence[tuple[str, str]]
) -> list[DatasetProblem]:
    """Studies and images that stand in both parts: a test on them would be no test."""
    part_of_study: dict[str, str] = {study: "train" for study, _ in train_ids}
    part_of_image: dict[str, str] = {image: "train" for _, image in train_ids}
    problems = []
    for image in images:
        if part_of_study.setdefault(image.study_id, image.part) != image.part:
            problems.append(
                DatasetProblem(
                    "study_in_both_parts",
                    f"annotations/{image.part}.csv",
                    f"the study {image.study_id} stands in both parts",
                    image.image_id,
                )
            )
        elif part_of_image.setdefault(image.image_id, image.part) != image.part:
            problems.append(
                DatasetProblem(
                    "duplicate_image",
                    f"annotations/{image.part}.csv",
                    f"the image {image.image_id} stands in both parts",
                    image.image_id,
                )
            )
    return problems
