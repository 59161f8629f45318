from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from spinexr.evaluation.classification import expected_calibration_error
from spinexr.training import calibration, select


def overconfident(n: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Logits three times too large and one too high, and their truth."""
    rng = np.random.default_rng(0)
    honest = rng.normal(0, 1.5, n)
    abnormal = rng.random(n) < 1 / (1 + np.exp(-honest))
    return 3 * honest + 1, abnormal


def test_calibration_finds_the_temperature_and_bias_that_were_put_in() -> None:
    logits, abnormal = overconfident()
    fitted = calibration.fit(logits, abnormal)
    assert fitted.scale == pytest.approx(1 / 3, rel=0.1)
    assert fitted.bias == pytest.approx(-1 / 3, abs=0.1)
    before, after = (
        expected_calibration_error(abnormal, 1 / (1 + np.exp(-z)))
        for z in (logits, fitted.apply(logits))
    )
    assert after < 0.03 < before


def test_calibration_keeps_the_ranking_even_of_a_useless_classifier() -> None:
    rng = np.random.default_rng(1)
    logits, abnormal = rng.normal(0, 1, 500), rng.random(500) < 0.5
    fitted = calibration.fit(-logits, abnormal)
    assert fitted.scale > 0
    assert roc_auc_score(abnormal, fitted.apply(logits)) == roc_auc_score(abnormal, logits)


def test_calibration_of_separable_validation_stays_finite() -> None:
    logits = np.array([-2.0, -1.0, 1.0, 2.0])
    fitted = calibration.fit(logits, logits > 0)
    assert np.isfinite([fitted.scale, fitted.bias]).all()


def test_the_mean_of_calibrated_members_is_calibrated_once_more() -> None:
    """Members with errors of their own agree less than they know: their mean is too cautious."""
    rng = np.random.default_rng(2)
    truth = rng.normal(0, 3, 4000)
    abnormal = rng.random(4000) < 1 / (1 + np.exp(-truth))
    weights = np.array([0.42, 0.26, 0.32])
    alone = []
    for _ in weights:
        logits = truth + rng.normal(0, 3, 4000)
        alone.append(calibration.fit(logits, abnormal).apply(logits))
    members = np.stack(alone)
    fitted = calibration.fit(members, abnormal, weights=weights)
    before, after = (
        expected_calibration_error(abnormal, weights @ (1 / (1 + np.exp(-z))))
        for z in (members, fitted.apply(members))
    )
    assert fitted.scale > 1
    assert after < before / 2


def test_one_member_is_calibrated_as_it_is_alone() -> None:
    logits, abnormal = overconfident()
    alone = calibration.fit(logits, abnormal)
    mean_of_one = calibration.fit(logits[None], abnormal, weights=np.ones(1))
    assert (mean_of_one.scale, mean_of_one.bias) == (alone.scale, alone.bias)


def test_calibrations_follow_each_other() -> None:
    first, second = calibration.Calibration(0.5, 1.0), calibration.Calibration(3.0, -2.0)
    logits = np.array([-4.0, 0.0, 7.0])
    np.testing.assert_allclose(first.then(second).apply(logits), second.apply(first.apply(logits)))


def test_folding_changes_the_answers_as_the_calibration_says() -> None:
    torch.manual_seed(0)
    head, features = torch.nn.Linear(5, 1), torch.randn(7, 5)
    fitted = calibration.Calibration(0.4, -0.7)
    expected = fitted.apply(head(features).detach().numpy())
    calibration.fold(head, fitted)
    np.testing.assert_allclose(head(features).detach().numpy(), expected, atol=1e-6)


def test_the_standard_operating_point() -> None:
    point = select.standard()
    assert list(point.weights.values()) == [0.42, 0.26, 0.32]
    assert point.threshold == 0.449


def test_the_search_gives_a_useful_member_the_weight_and_keeps_all() -> None:
    rng = np.random.default_rng(2)
    abnormal = rng.random(400) < 0.5
    good = np.clip(0.5 + 0.3 * (abnormal - 0.5) + rng.normal(0, 0.1, 400), 0, 1)
    scores = {"a": rng.random(400), "b": good, "c": rng.random(400)}
    point = select.search(scores, abnormal)
    assert point.weights["b"] > 0.6
    assert min(point.weights.values()) > 0
    assert sum(point.weights.values()) == pytest.approx(1)
    mean = np.sum([scores[n] * w for n, w in point.weights.items()], axis=0)
    called = mean > point.threshold
    balanced = called[abnormal].mean() + (~called[~abnormal]).mean()
    others = [(mean > t)[abnormal].mean() + (mean <= t)[~abnormal].mean() for t in mean]
    assert balanced == pytest.approx(max(others))


def test_a_search_over_useless_members_still_calls_something_abnormal() -> None:
    abnormal = np.array([True, True, False, False])
    backwards = np.array([0.1, 0.2, 0.8, 0.9])
    point = select.search({"a": backwards, "b": backwards, "c": backwards}, abnormal)
    assert point.threshold < 0.9
    # Nothing tells them apart, so none is as good as dropped.
    assert max(point.weights.values()) - min(point.weights.values()) < 0.03
