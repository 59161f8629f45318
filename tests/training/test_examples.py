from __future__ import annotations

import builtins
import io
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spinexr.datasets import phantoms
from spinexr.errors import ConfigurationError
from spinexr.imaging import reader
from spinexr.inference.bundle import STANDARD_ENSEMBLE, Intensity
from spinexr.inference.transforms import stored_minmax
from spinexr.training import examples
from spinexr.training.augment import augmented, cut, resized, window
from spinexr.training.networks import cells_with_boxes


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "phantoms"
    list(phantoms.generate(phantoms.Plan(root, 24, seed=4, rows=240, columns=160), workers=2))
    return root


@pytest.fixture(scope="module")
def part(root: Path) -> examples.TrainPart:
    return examples.read_train_part(root, validation_share=0.3, seed=0)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths opened for reading or listed by this process."""
    paths: list[str] = []
    real_open, real_scandir = builtins.open, os.scandir

    def spy_open(file: Any, *args: Any, **kwargs: Any) -> Any:
        paths.append(str(file))
        return real_open(file, *args, **kwargs)

    def spy_scandir(path: Any = ".") -> Any:
        paths.append(str(path))
        return real_scandir(path)

    monkeypatch.setattr(builtins, "open", spy_open)
    monkeypatch.setattr(io, "open", spy_open)
    monkeypatch.setattr(os, "scandir", spy_scandir)
    return paths


def test_the_test_part_is_never_opened(root: Path, opened: list[str]) -> None:
    examples.read_train_part(root, validation_share=0.3, seed=0)
    assert any("train_images" in p for p in opened)
    assert not [p for p in opened if "test_images" in p or p.endswith("test.csv")]


def test_training_needs_no_test_part_at_all(root: Path, tmp_path: Path) -> None:
    for name in ("train_images", "annotations"):
        (tmp_path / name).mkdir()
    (tmp_path / "annotations/train.csv").symlink_to(root / "annotations/train.csv")
    for file in (root / "train_images").iterdir():
        (tmp_path / "train_images" / file.name).symlink_to(file)
    part = examples.read_train_part(tmp_path, validation_share=0.3, seed=0)
    assert part.training


def test_no_study_is_on_both_sides_and_both_sides_have_both_labels(
    part: examples.TrainPart,
) -> None:
    sides = (part.training, part.validation)
    studies = [{i.study_id for i in side} for side in sides]
    assert not studies[0] & studies[1]
    assert 0.15 < len(studies[1]) / (len(studies[0]) + len(studies[1])) < 0.45
    for side in sides:
        assert {i.abnormal for i in side} == {True, False}


def test_the_split_depends_on_the_seed_and_on_nothing_else(
    root: Path, part: examples.TrainPart
) -> None:
    again, other = (
        examples.read_train_part(root, validation_share=0.3, seed=seed) for seed in (0, 1)
    )
    assert again == part
    assert other.validation != part.validation
    assert other.fingerprint == part.fingerprint


def test_the_fingerprint_sees_a_changed_image(root: Path, tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "train_images").mkdir()
    (tmp_path / "annotations/train.csv").write_bytes((root / "annotations/train.csv").read_bytes())
    file = tmp_path / "train_images/a.dicom"
    found = set()
    for content in (b"1", b"12"):
        file.write_bytes(content)
        found.add(examples._fingerprint(tmp_path))
    assert len(found) == 2


def test_a_dataset_with_problems_is_named_and_refused(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "data")
    missing = next((tmp_path / "data/train_images").iterdir())
    missing.unlink()
    with pytest.raises(ConfigurationError, match=f"1 in all: .*{missing.stem}"):
        examples.read_train_part(tmp_path / "data", validation_share=0.3, seed=0)


def test_too_few_studies_to_split_are_said(root: Path) -> None:
    with pytest.raises(ConfigurationError, match="too few studies"):
        examples.read_train_part(root, validation_share=0.0, seed=0)


def test_prepared_images_are_what_serving_sees(part: examples.TrainPart, tmp_path: Path) -> None:
    size = 64
    made = examples.prepare(
        part.validation, side=size, intensity=Intensity.STORED_MINMAX, cache=tmp_path
    )
    from PIL import Image

    for n, image in enumerate(part.validation[:5]):
        radiograph = reader.read(image.file.read_bytes(), max_pixels=10**6)
        grey = stored_minmax(radiograph)
        served = Image.fromarray(grey).resize((size, size), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(made.pixels[n], np.asarray(served))
        assert made.abnormal[n] == image.abnormal
        assert len(made.boxes[n]) == len(image.lesions)
        assert ((made.boxes[n][:, :4] >= -0.01) & (made.boxes[n][:, :4] <= 1.01)).all()
    assert STANDARD_ENSEMBLE["preprocessing"]["resize_filter"] == "bilinear"


def test_prepared_images_are_read_once(part: examples.TrainPart, tmp_path: Path) -> None:
    calls: list[int] = []

    def count(_what: str, done: int, _total: int) -> None:
        calls.append(done)

    for _ in range(2):
        examples.prepare(
            part.validation, side=32, intensity=Intensity.DISPLAY, cache=tmp_path, progress=count
        )
    assert calls == list(range(1, len(part.validation) + 1))


def test_an_unreadable_image_is_named_and_leaves_no_half_cache(
    part: examples.TrainPart, tmp_path: Path
) -> None:
    from dataclasses import replace

    bad = tmp_path / "bad.dicom"
    bad.write_bytes(b"no dicom")
    images = [*part.validation, replace(part.validation[0], file=bad, image_id="bad")]
    with pytest.raises(ConfigurationError, match=r"bad\.dicom"):
        examples.prepare(
            images, side=32, intensity=Intensity.STORED_MINMAX, cache=tmp_path / "cache"
        )
    assert not list((tmp_path / "cache").iterdir())


def square_image(box: tuple[float, float, float, float], side: int = 200) -> np.ndarray:
    image = np.full((side, side), 60, np.uint8)
    x1, y1, x2, y2 = (round(v * side) for v in box)
    image[y1:y2, x1:x2] = 200
    return image


def test_boxes_follow_the_image_through_augmentation() -> None:
    box = (0.4, 0.3, 0.6, 0.5)
    image = square_image(box)
    boxes = np.array([[*box, 2]], np.float32)
    for seed in range(30):
        turned, moved = augmented(image, boxes, 100, np.random.default_rng(seed))
        middle = (int(turned.max()) + int(turned[45:55, 2:6].mean())) / 2
        y, x = np.nonzero(turned > middle)
        seen = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1]) / 100
        # A turned square fills its box but for the corners.
        np.testing.assert_allclose(moved[0, :4], seen, atol=0.035)
        assert moved[0, 4] == 2


def test_a_window_around_a_finding_shows_it_at_the_scale_of_the_image() -> None:
    box = (0.70, 0.30, 0.80, 0.40)
    image = square_image(box)
    boxes = np.array([[*box, 2]], np.float32)
    focus = np.array([0.75, 0.35])
    for seed in range(30):
        cut, moved, shows = window(image, boxes, 50, 100, focus, np.random.default_rng(seed))
        assert cut.shape == (50, 50)
        assert shows
        x1, y1, x2, y2 = moved[0, :4] * 50
        assert x2 - x1 == pytest.approx(10, abs=3.5)  # a tenth of 100 pixels, turned and zoomed
        assert 12 < (x1 + x2) / 2 < 38
        assert cut[int((y1 + y2) / 2), int((x1 + x2) / 2)] > cut[2:5, 2:5].mean() + 20


def test_a_window_elsewhere_shows_nothing() -> None:
    box = (0.70, 0.30, 0.80, 0.40)
    boxes = np.array([[*box, 2]], np.float32)
    for seed in range(30):
        rng = np.random.default_rng(seed)
        _, moved, shows = window(square_image(box), boxes, 25, 100, np.array([0.2, 0.8]), rng)
        assert not shows
        assert len(moved) == 0


def test_a_finding_larger_than_the_window_is_shown_where_it_fills_it() -> None:
    box = (0.1, 0.1, 0.9, 0.9)
    boxes = np.array([[*box, 2]], np.float32)
    rng = np.random.default_rng(0)
    _, moved, shows = window(square_image(box), boxes, 25, 100, np.array([0.5, 0.5]), rng)
    assert shows
    np.testing.assert_allclose(moved[0, :4], [0, 0, 1, 1])


def test_augmentation_keeps_up_up_and_bright_bright() -> None:
    image = np.repeat(np.linspace(0, 220, 128).astype(np.uint8)[:, None], 128, 1)
    for seed in range(30):
        turned, _ = augmented(image, np.zeros((0, 5), np.float32), 96, np.random.default_rng(seed))
        assert turned.shape == (96, 96)
        assert turned.dtype == np.uint8
        assert turned[70:80, 30:60].mean() > turned[20:30, 30:60].mean() + 20


def test_augmentation_is_seeded() -> None:
    image = square_image((0.2, 0.2, 0.5, 0.6))
    none = np.zeros((0, 5), np.float32)
    first, again, other = (
        augmented(image, none, 64, np.random.default_rng(seed))[0] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_an_image_of_the_right_size_is_left_alone() -> None:
    image = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    np.testing.assert_array_equal(resized(image, 64), image)


def test_cells_with_boxes_are_those_that_a_box_covers() -> None:
    wide = np.array([[0.0, 0.0, 0.5, 0.25, 1]], np.float32)  # two cells of the upper row
    small = np.array([[0.80, 0.80, 0.82, 0.82, 3]], np.float32)  # within one cell
    target = cells_with_boxes([wide, small, np.zeros((0, 5), np.float32)], 4, 4).numpy()
    assert target.shape == (3, 7, 4, 4)
    assert target[0, 1].tolist() == [[1, 1, 0, 0], [0] * 4, [0] * 4, [0] * 4]
    assert target[0].sum() == 2
    assert target[1, 3, 3, 3] == 1
    assert target[1].sum() == 1
    assert target[2].sum() == 0


def test_a_piece_cut_from_an_image_holds_its_focus_and_the_boxes_half_in_it() -> None:
    image = np.zeros((100, 60), np.uint8)
    image[80, 50] = 255
    boxes = np.array(
        [[45 / 60, 0.75, 55 / 60, 0.85, 2], [0, 0, 0.2, 0.1, 1], [0, 0.75, 44 / 60, 0.85, 3]],
        np.float32,
    )
    piece, found = cut(image, boxes, 40, np.array([50 / 60, 0.8]))
    assert piece.shape == (40, 40)
    y, x = (int(n[0]) for n in np.nonzero(piece))
    assert (x, y) == (30, 20)  # moved inside: columns 20 to 59, rows 60 to 99
    np.testing.assert_allclose(
        found, [[25 / 40, 15 / 40, 35 / 40, 25 / 40, 2], [0, 15 / 40, 24 / 40, 25 / 40, 3]],
        atol=1e-6,
    )  # fmt: skip


def test_an_image_smaller_than_the_piece_is_padded() -> None:
    piece, found = cut(
        np.full((30, 20), 9, np.uint8), np.array([[0, 0, 1, 1, 0]], np.float32), 40, np.ones(2)
    )
    assert piece[:30, :20].min() == 9
    assert not piece[30:].any()
    assert not piece[:, 20:].any()
    np.testing.assert_allclose(found, [[0, 0, 0.5, 0.75, 0]])
