from __future__ import annotations

import pytest

from spinexr.domain import MemberScore
from spinexr.errors import ModelOutputError
from spinexr.inference.ensemble import combine
from tests.fakes import fake_bundle

SPEC = fake_bundle().ensemble


def scores(**probabilities: float) -> list[MemberScore]:
    names = {"d": "DenseNet121", "r": "ResNet50", "e": "EfficientNetV2-S", "x": "Other"}
    return [MemberScore(names[k], "any", p, 0.0) for k, p in probabilities.items()]


def test_the_probability_is_the_weighted_mean() -> None:
    assert combine(scores(d=1.0, r=0.5, e=0.25), SPEC) == pytest.approx(0.42 + 0.13 + 0.08)


def test_unanimous_members_give_their_own_probability() -> None:
    assert combine(scores(d=1.0, r=1.0, e=1.0), SPEC) == 1.0
    assert combine(scores(d=0.0, r=0.0, e=0.0), SPEC) == 0.0


def test_missing_member_is_an_error_not_a_normal() -> None:
    with pytest.raises(ModelOutputError, match="ResNet50"):
        combine(scores(d=0.0, e=0.0), SPEC)


def test_no_member_at_all_is_an_error() -> None:
    with pytest.raises(ModelOutputError):
        combine([], SPEC)


def test_a_surplus_or_doubled_member_is_an_error() -> None:
    with pytest.raises(ModelOutputError):
        combine(scores(d=0.1, r=0.1, e=0.1, x=0.1), SPEC)
    with pytest.raises(ModelOutputError):
        combine(scores(d=0.1, r=0.1, e=0.1) + scores(d=0.1), SPEC)


@pytest.mark.parametrize("bad", [float("nan"), -0.1, 1.1, float("inf")])
def test_a_score_that_is_no_probability_is_an_error(bad: float) -> None:
    with pytest.raises(ModelOutputError, match="DenseNet121"):
        combine(scores(d=bad, r=0.1, e=0.1), SPEC)
