from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from spinexr.evaluation import classification

# Worked by hand: abnormal 0.9 and 0.4, normal 0.6, 0.3, 0.4.
ABNORMAL = np.array([True, False, True, False, False])
SCORES = np.array([0.9, 0.6, 0.4, 0.3, 0.4])
STUDIES = np.array(["a", "b", "c", "d", "e"])


def evaluate(**changes: object) -> classification.Classification:
    arguments: dict[str, object] = {"threshold": 0.5, "replicates": 200} | changes
    return classification.evaluate(ABNORMAL, SCORES, STUDIES, **arguments)  # type: ignore[arg-type]


def test_auroc_and_ap_are_those_worked_by_hand() -> None:
    estimates = evaluate().estimates
    # Of 6 pairs: 0.9 beats three; 0.4 beats 0.3 and ties with 0.4: 4.5 of 6.
    assert estimates["auroc"].value == pytest.approx(4.5 / 6)
    # Down the ranking: 0.9 → recall ½ at precision 1; 0.4 (with a tied normal) → ½ at 2/4.
    assert estimates["ap"].value == pytest.approx(0.5 * 1 + 0.5 * 0.5)


def test_decisions_are_above_not_at_the_threshold() -> None:
    result = evaluate(threshold=0.6)
    assert result.confusion == classification.Confusion(
        true_positive=1, false_positive=0, false_negative=1, true_negative=3
    )
    assert result.estimates["sensitivity"].value == 0.5
    assert result.estimates["specificity"].value == 1.0
    assert result.estimates["f1"].value == pytest.approx(2 / 3)


def test_weighted_forms_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    abnormal = rng.random(300) < 0.4
    scores: npt.NDArray[np.float64] = rng.random(300) * 0.7 + 0.3 * abnormal
    scores = np.rint(scores * 100) / 100  # many ties
    weights = rng.integers(0, 4, (20, 300)).astype(float)
    auroc = classification.weighted_auroc(abnormal, scores, weights)
    ap = classification.weighted_ap(abnormal, scores, weights)
    for n, w in enumerate(weights):
        assert auroc[n] == pytest.approx(roc_auc_score(abnormal, scores, sample_weight=w))
        assert ap[n] == pytest.approx(average_precision_score(abnormal, scores, sample_weight=w))


def test_an_interval_of_independent_images_has_the_known_width() -> None:
    # Sensitivity 0.8 on 400 abnormals: ± 1.96 · √(0.8 · 0.2 / 400) = ± 0.0392.
    abnormal = np.ones(800, bool)
    abnormal[400:] = False
    scores = np.where(np.arange(800) % 5 == 0, 0.1, 0.9)
    studies = np.arange(800).astype(str)
    result = classification.evaluate(abnormal, scores, studies, threshold=0.5, replicates=4000)
    sensitivity = result.estimates["sensitivity"]
    assert sensitivity.value == 0.8
    assert sensitivity.low == pytest.approx(0.8 - 0.0392, abs=0.006)
    assert sensitivity.high == pytest.approx(0.8 + 0.0392, abs=0.006)


def test_images_of_one_study_do_not_narrow_the_interval() -> None:
    rng = np.random.default_rng(1)
    abnormal = rng.random(100) < 0.5
    scores = np.clip(rng.normal(0.4 + 0.2 * abnormal, 0.2), 0, 1)
    alone = classification.evaluate(
        abnormal, scores, np.arange(100).astype(str), threshold=0.5, replicates=2000
    )
    # The same images four times over, as copies within their studies.
    copied = classification.evaluate(
        np.repeat(abnormal, 4), np.repeat(scores, 4), np.repeat(np.arange(100).astype(str), 4),
        threshold=0.5, replicates=2000,
    )  # fmt: skip
    width = [r.estimates["auroc"].high - r.estimates["auroc"].low for r in (alone, copied)]
    assert width[1] == pytest.approx(width[0], rel=0.1)


def test_the_same_seed_gives_the_same_interval() -> None:
    assert evaluate(seed=3) == evaluate(seed=3)


def test_calibration_error_is_the_one_worked_by_hand() -> None:
    scores = np.array([0.1, 0.2, 0.7, 0.9])
    abnormal = np.array([False, False, True, False])
    # Two bins of two: |0.15 − 0| and |0.8 − 0.5|.
    found = classification.expected_calibration_error(abnormal, scores, bins=2)
    assert found == pytest.approx((0.15 + 0.3) / 2)


def test_the_order_of_rows_with_one_score_is_of_no_account() -> None:
    rng = np.random.default_rng(0)
    abnormal, scores = rng.random(57) < 0.5, np.round(rng.random(57), 1)
    order = rng.permutation(57)
    assert classification.expected_calibration_error(
        abnormal[order], scores[order]
    ) == pytest.approx(classification.expected_calibration_error(abnormal, scores), abs=1e-12)


def test_bins_have_equal_mass_and_keep_every_image() -> None:
    scores = np.linspace(0, 1, 103) ** 3
    bins = classification.reliability(scores > 0.5, scores)
    assert len(bins) == 10
    assert {b.count for b in bins} == {10, 11}
    assert sum(b.count for b in bins) == 103


def test_without_abnormals_ranking_is_undefined_and_not_a_number_of_its_own() -> None:
    result = classification.evaluate(
        np.zeros(4, bool), np.array([0.1, 0.6, 0.2, 0.3]), np.array(list("abcd")), threshold=0.5,
        replicates=50,
    )  # fmt: skip
    assert math.isnan(result.estimates["auroc"].value)
    assert math.isnan(result.estimates["sensitivity"].low)
    assert result.estimates["specificity"].value == 0.75
