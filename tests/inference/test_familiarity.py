from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spinexr.analysis import analyse
from spinexr.errors import ModelOutputError
from spinexr.inference import familiarity
from spinexr.inference.familiarity import THUMBNAIL, Familiarity, FamiliarityFileError
from spinexr.inference.predictor import Predictor
from spinexr.reporting import as_json
from tests import builders
from tests.fakes import FEATURES, FakeEngine, fake_bundle

MEMBERS = ("DenseNet121", "ResNet50", "EfficientNetV2-S")


def features(seed: int, count: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Two classes in three of `FEATURES` dimensions and hardly anything in the others."""
    rng = np.random.default_rng(seed)
    abnormal = rng.random(count) < 0.5
    found = rng.normal(0, 0.01, (count, FEATURES))
    found[:, :3] += rng.normal(0, 1, (count, 3))
    found[:, 0] += 4 * abnormal
    return found.astype(np.float32), abnormal


RAMP = np.tile(np.linspace(0, 255, 64).astype(np.uint16), (64, 1))
USUAL = familiarity.thumbnail(RAMP.astype(np.uint8))


def thumbnails(seed: int, count: int = 600) -> np.ndarray:
    """Brighter to the right, each a little brighter or darker than the others."""
    rng = np.random.default_rng(seed)
    brighter, own = rng.normal(0, 0.1, (count, 1)), rng.normal(0, 0.01, (count, USUAL.size))
    return (USUAL + brighter + own).astype(np.float32)


def seen(members: np.ndarray, small: np.ndarray = USUAL) -> dict[str, np.ndarray]:
    return dict.fromkeys(MEMBERS, members) | {THUMBNAIL: np.resize(small, (len(members), 64))}


@pytest.fixture(scope="module")
def known() -> Familiarity:
    training, abnormal = features(0)
    validation, _ = features(1)
    member = familiarity.fit(training, abnormal, validation, components=3)
    small = familiarity.fit(thumbnails(0), abnormal, thumbnails(1), components=1)
    return familiarity.with_cut(
        dict.fromkeys(MEMBERS, member) | {THUMBNAIL: small}, seen(validation, thumbnails(1))
    )


def far(known: Familiarity, point: np.ndarray) -> bool:
    return bool(known.distance(seen(point.astype(np.float32)[None]))[0] > known.cut)


def test_fresh_images_of_the_kind_rarely_exceed_the_cut(known: Familiarity) -> None:
    fresh, _ = features(2, 4000)
    share = (known.distance(seen(fresh, thumbnails(2, 4000))) > known.cut).mean()
    assert 0.002 < share < 0.03


def test_both_classes_are_near_and_what_is_beyond_them_is_far(known: Familiarity) -> None:
    axis = np.eye(FEATURES)
    assert not far(known, 0 * axis[0])
    assert not far(known, 4 * axis[0])
    assert far(known, -8 * axis[0])
    assert far(known, 8 * axis[1])


def test_what_the_subspace_does_not_explain_is_far(known: Familiarity) -> None:
    assert far(known, 0.5 * np.eye(FEATURES)[5])


def test_one_member_that_finds_it_odd_is_enough(known: Familiarity) -> None:
    usual = np.zeros((1, FEATURES), np.float32)
    odd = np.full((1, FEATURES), 3.0, np.float32)
    assert known.distance(seen(usual))[0] <= known.cut
    assert known.distance(seen(usual) | {MEMBERS[1]: odd})[0] > known.cut


@pytest.mark.parametrize("other", [1 - USUAL, USUAL[:, ::-1], USUAL**6, USUAL**0.2])
def test_a_picture_of_turned_polarity_or_shifted_contrast_is_far(
    known: Familiarity, other: np.ndarray
) -> None:
    assert known.distance(seen(np.zeros((1, FEATURES), np.float32), other))[0] > known.cut


@pytest.mark.parametrize("shape", [(8, 8), (640, 424), (2455, 1606), (32, 3000)])
def test_a_thumbnail_holds_the_means_of_its_fields(shape: tuple[int, int]) -> None:
    rows = np.repeat(np.arange(8) * 30, -(-shape[0] // 8))[: shape[0]]
    small = familiarity.thumbnail(np.tile(rows.astype(np.uint8)[:, None], (1, shape[1])))
    assert small.shape == (1, 64)
    np.testing.assert_allclose(
        small.reshape(8, 8), np.tile(np.arange(8)[:, None] * 30 / 255, (1, 8)), atol=0.05
    )


def test_statistics_survive_their_file(known: Familiarity, tmp_path: Path) -> None:
    file = tmp_path / "familiarity.npz"
    familiarity.save(known, file)
    again = familiarity.load(file, MEMBERS)
    fresh, _ = features(3)
    sample = seen(fresh, thumbnails(3))
    np.testing.assert_allclose(again.distance(sample), known.distance(sample), rtol=0.02)
    assert again.cut == known.cut


@pytest.mark.parametrize("damage", [b"", b"not a zip", b"PK\x03\x04 half a zip"])
def test_a_damaged_file_is_refused(damage: bytes, tmp_path: Path) -> None:
    file = tmp_path / "familiarity.npz"
    file.write_bytes(damage)
    with pytest.raises(FamiliarityFileError):
        familiarity.load(file, MEMBERS)


def test_statistics_of_other_members_or_of_no_numbers_are_refused(
    known: Familiarity, tmp_path: Path
) -> None:
    file = tmp_path / "familiarity.npz"
    familiarity.save(known, file)
    with pytest.raises(FamiliarityFileError, match="not of A, B, thumbnail"):
        familiarity.load(file, ("A", "B"))
    familiarity.save(Familiarity(known.parts, float("nan")), file)
    with pytest.raises(FamiliarityFileError, match="not numbers"):
        familiarity.load(file, MEMBERS)


def test_an_unfamiliar_image_is_answered_with_a_warning(known: Familiarity) -> None:
    engine = FakeEngine()
    predictor = Predictor(fake_bundle(), engine, familiarity=known)
    try:
        usual = analyse(builders.dicom(RAMP), predictor=predictor, max_pixels=10**7)
        turned = analyse(builders.dicom(255 - RAMP), predictor=predictor, max_pixels=10**7)
        engine.feature = 50.0
        odd = analyse(builders.dicom(RAMP), predictor=predictor, max_pixels=10**7)
        engine.feature = float("nan")
        with pytest.raises(ModelOutputError):
            analyse(builders.dicom(RAMP), predictor=predictor, max_pixels=10**7)
    finally:
        predictor.close()
    assert not usual.prediction.familiarity.unlike_training_images  # type: ignore[union-attr]
    assert "unlike_training_images" not in {n.code for n in usual.notices}
    assert turned.notices[-1].code == odd.notices[-1].code == "unlike_training_images"
    document = as_json.document(odd)
    assert document["familiarity"]["unlike_training_images"] is True
    assert document["familiarity"]["distance"] > document["familiarity"]["cut"]


def test_a_bundle_without_statistics_says_nothing(predictor: Predictor) -> None:
    analysis = analyse(builders.dicom(), predictor=predictor, max_pixels=10**7)
    assert analysis.prediction.familiarity is None
    assert as_json.document(analysis)["familiarity"] is None
