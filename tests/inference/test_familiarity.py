from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spinexr.analysis import analyse
from spinexr.errors import ModelOutputError
from spinexr.inference import familiarity
from spinexr.inference.familiarity import LOOKS, Familiarity, FamiliarityFileError
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


def pictures(seed: int, count: int = 600) -> np.ndarray:
    """Brighter to the right, each a little brighter or darker than the others."""
    rng = np.random.default_rng(seed)
    levels = RAMP * rng.uniform(0.7, 1, (count, 1, 1)) + rng.normal(0, 2, (count, *RAMP.shape))
    return levels.clip(0, 255).astype(np.uint8)


def looks(images: np.ndarray) -> dict[str, np.ndarray]:
    each = [familiarity.looks_of(image) for image in images]
    return {name: np.concatenate([one[name] for one in each]) for name in LOOKS}


def seen(members: np.ndarray, images: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Features of every member, and what the images look like."""
    shown = np.resize(RAMP, (len(members), *RAMP.shape)) if images is None else images
    return dict.fromkeys(MEMBERS, members) | looks(shown.astype(np.uint8))


@pytest.fixture(scope="module")
def known() -> Familiarity:
    training, abnormal = features(0)
    validation, _ = features(1)
    member = familiarity.fit(training, abnormal, validation, components=3)
    seen_then, shown_then = looks(pictures(0)), seen(validation, pictures(1))
    parts = dict.fromkeys(MEMBERS, member) | {
        name: familiarity.fit(seen_then[name], abnormal, shown_then[name], components=2)
        for name in LOOKS
    }
    return familiarity.with_cut(parts, shown_then)


def far(known: Familiarity, point: np.ndarray) -> bool:
    return bool(known.distance(seen(point.astype(np.float32)[None]))[0] > known.cut)


def test_fresh_images_of_the_kind_rarely_exceed_the_cut(known: Familiarity) -> None:
    fresh, _ = features(2, 4000)
    share = (known.distance(seen(fresh, pictures(2, 4000))) > known.cut).mean()
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


@pytest.mark.parametrize("power", [-1, 6, 0.2])
def test_a_picture_of_turned_polarity_or_shifted_contrast_is_far(
    known: Familiarity, power: float
) -> None:
    share = RAMP / 255
    other = 255 * (1 - share if power == -1 else share**power)
    assert known.distance(seen(np.zeros((1, FEATURES), np.float32), other[None]))[0] > known.cut


def dotted(times: int) -> np.ndarray:
    """A picture as others, in dots of darker and brighter pixels."""
    picture = np.kron(0.75 * RAMP, np.ones((times, times)))
    rows, columns = np.indices(picture.shape)
    return np.asarray(picture * np.where((rows + columns) % 2, 0.7, 1.3))


def test_greys_that_no_thumbnail_sees_are_far(known: Familiarity) -> None:
    still = np.zeros((1, FEATURES), np.float32)
    plain, dots = seen(still, (0.75 * RAMP)[None]), seen(still, dotted(1)[None])
    assert known.distance(plain)[0] <= known.cut
    assert known.distance(dots)[0] > known.cut
    assert known.distance(dots | {"histogram": plain["histogram"]})[0] <= known.cut


@pytest.mark.parametrize("shape", [(8, 8), (640, 424), (2455, 1606), (32, 3000)])
def test_looks_are_means_of_fields_and_shares_of_greys(shape: tuple[int, int]) -> None:
    rows = np.repeat(np.arange(8) * 30, -(-shape[0] // 8))[: shape[0]]
    found = familiarity.looks_of(np.tile(rows.astype(np.uint8)[:, None], (1, shape[1])))
    assert {name: value.shape for name, value in found.items()} == {
        "thumbnail": (1, 64), "histogram": (1, 16),
    }  # fmt: skip
    np.testing.assert_allclose(
        found["thumbnail"].reshape(8, 8), np.tile(np.arange(8)[:, None] * 30 / 255, (1, 8)),
        atol=0.05,
    )  # fmt: skip
    shares = np.zeros(16)
    np.add.at(shares, np.arange(8) * 30 // 16, 1 / 8)
    np.testing.assert_allclose(found["histogram"][0] ** 2, shares, atol=0.01)


def test_statistics_survive_their_file(known: Familiarity, tmp_path: Path) -> None:
    file = tmp_path / "familiarity.npz"
    familiarity.save(known, file)
    again = familiarity.load(file, MEMBERS)
    fresh, _ = features(3)
    sample = seen(fresh, pictures(3))
    np.testing.assert_allclose(again.distance(sample), known.distance(sample), rtol=0.02)
    assert again.cut == known.cut


@pytest.mark.parametrize("damage", [b"", b"not a zip", b"PK\x03\x04 half a zip"])
def test_a_damaged_file_is_refused(damage: bytes, tmp_path: Path) -> None:
    file = tmp_path / "familiarity.npz"
    file.write_bytes(damage)
    with pytest.raises(FamiliarityFileError):
        familiarity.load(file, MEMBERS)


def test_a_file_of_an_older_version_says_what_to_do(known: Familiarity, tmp_path: Path) -> None:
    file = tmp_path / "familiarity.npz"
    familiarity.save(known, file)
    with np.load(file) as arrays:
        np.savez(file, **(dict(arrays) | {"version": np.array(1)}))
    with pytest.raises(FamiliarityFileError, match=r"version 1, not 2: .*--resume"):
        familiarity.load(file, MEMBERS)


def test_statistics_of_other_members_or_of_no_numbers_are_refused(
    known: Familiarity, tmp_path: Path
) -> None:
    file = tmp_path / "familiarity.npz"
    familiarity.save(known, file)
    with pytest.raises(FamiliarityFileError, match="not of A, B, thumbnail, histogram"):
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


def test_an_image_is_looked_at_as_the_members_see_it(known: Familiarity) -> None:
    """The dots of a large image are gone at the size of the input."""
    predictor = Predictor(fake_bundle(), FakeEngine(), familiarity=known)
    try:
        large = builders.dicom((16 * dotted(20)).astype(np.uint16))
        found = analyse(large, predictor=predictor, max_pixels=10**7)
    finally:
        predictor.close()
    assert "unlike_training_images" not in {n.code for n in found.notices}


def test_a_bundle_without_statistics_says_nothing(predictor: Predictor) -> None:
    analysis = analyse(builders.dicom(), predictor=predictor, max_pixels=10**7)
    assert analysis.prediction.familiarity is None
    assert as_json.document(analysis)["familiarity"] is None
