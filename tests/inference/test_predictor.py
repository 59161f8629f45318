from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import numpy.typing as npt
import pytest

from spinexr.analysis import analyse
from spinexr.domain import Agreement, DetectPolicy, Prediction, Radiograph
from spinexr.errors import BusyError, DeadlineError, ModelOutputError
from spinexr.inference.bundle import Flip, Intensity
from spinexr.inference.engines.base import ClassifierOutput, RawDetections
from spinexr.inference.predictor import Predictor
from tests import builders
from tests.fakes import ABNORMAL, NO_BOXES, NORMAL, FakeEngine, fake_bundle, raw


def radiograph(seed: int = 0) -> Radiograph:
    return builders.radiograph(builders.pixels(seed=seed))


def set_all(engine: FakeEngine, logit: float) -> None:
    engine.logits = dict.fromkeys(engine.logits, logit)


def ask(predictor: Predictor, detect: DetectPolicy = DetectPolicy.WHEN_ABNORMAL) -> Prediction:
    return predictor.predict(radiograph(), detect=detect).prediction


def test_an_abnormal_image_gets_one_detector_pass_at_the_lower_level(
    predictor: Predictor, engine: FakeEngine
) -> None:
    prediction = ask(predictor)
    assert prediction.abnormal
    assert engine.detect_calls == [0.15]
    assert [f.tentative for f in prediction.findings or ()] == [False, True]


def test_a_normal_image_is_not_given_to_the_detector(
    predictor: Predictor, engine: FakeEngine
) -> None:
    set_all(engine, NORMAL)
    prediction = ask(predictor)
    assert prediction.decision == "normal"
    assert prediction.findings is None
    assert prediction.agreement is Agreement.NOT_COMPARED
    assert engine.detect_calls == []


def test_detect_always_marks_disagreement_on_a_normal_image(
    predictor: Predictor, engine: FakeEngine
) -> None:
    set_all(engine, NORMAL)
    prediction = ask(predictor, DetectPolicy.ALWAYS)
    assert [f.confidence for f in prediction.findings or ()] == [pytest.approx(0.8)]
    assert prediction.agreement is Agreement.FINDINGS_ON_NORMAL


def test_abnormal_without_a_box_is_disagreement(predictor: Predictor, engine: FakeEngine) -> None:
    engine.detections = NO_BOXES
    assert ask(predictor).agreement is Agreement.ABNORMAL_WITHOUT_FINDINGS


def test_the_members_scores_and_weights_are_in_the_answer(predictor: Predictor) -> None:
    members = ask(predictor).members
    assert [m.weight for m in members] == [0.42, 0.26, 0.32]
    assert members[0].probability == pytest.approx(1 / (1 + np.exp(-ABNORMAL)))


def test_exactly_at_the_threshold_is_normal() -> None:
    prediction = Prediction(0.449, 0.449, (0.399, 0.499), (), None, 0.25, 0.15)
    assert prediction.decision == "normal"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_member_that_answers_nonsense_is_an_error_not_a_normal(
    predictor: Predictor, engine: FakeEngine, bad: float
) -> None:
    engine.logits["ResNet50"] = bad
    with pytest.raises(ModelOutputError, match="ResNet50"):
        ask(predictor)


def test_a_member_that_does_not_answer_is_an_error_not_a_normal(
    predictor: Predictor, engine: FakeEngine
) -> None:
    del engine.logits["ResNet50"]
    with pytest.raises(ModelOutputError, match="ResNet50"):
        ask(predictor)


def test_a_broken_detector_is_an_error_not_no_findings(
    predictor: Predictor, engine: FakeEngine
) -> None:
    engine.detections = raw((float("nan"), 0, 9, 9, 0.9, 0))
    with pytest.raises(ModelOutputError):
        ask(predictor)


def test_logits_are_averaged_over_the_bundles_flips(engine: FakeEngine) -> None:
    predictor = Predictor(fake_bundle(flips=(Flip.NONE, Flip.HORIZONTAL)), engine)
    ask(predictor)
    predictor.close()
    (batch,) = engine.batches
    assert batch.shape == (2, 3, 32, 32)
    np.testing.assert_array_equal(batch[1], batch[0][..., ::-1])


def test_the_activation_map_is_the_members_weighted_mean(
    predictor: Predictor, engine: FakeEngine
) -> None:
    found = predictor.predict(radiograph()).prediction.activation
    assert found is not None
    np.testing.assert_allclose(np.array(found.values), engine.activation, atol=1e-6)
    assert found.shape == (2, 3)


def test_mirrored_views_are_mirrored_back_before_maps_are_averaged(engine: FakeEngine) -> None:
    predictor = Predictor(fake_bundle(flips=(Flip.NONE, Flip.HORIZONTAL)), engine)
    found = predictor.predict(radiograph()).prediction.activation
    predictor.close()
    assert found is not None
    expected = (engine.activation + engine.activation[:, ::-1]) / 2
    np.testing.assert_allclose(np.array(found.values), expected, atol=1e-6)


def test_a_normal_image_has_no_activation_map(predictor: Predictor, engine: FakeEngine) -> None:
    set_all(engine, NORMAL)
    assert predictor.predict(radiograph()).prediction.activation is None


def test_the_intensity_rule_is_the_bundles(engine: FakeEngine) -> None:
    shown = builders.radiograph(builders.pixels(), inverted=True)
    for intensity in Intensity:
        predictor = Predictor(fake_bundle(intensity=intensity), engine)
        predictor.predict(shown)
        predictor.close()
    by_stored, by_display = engine.batches
    assert np.corrcoef(by_stored.ravel(), by_display.ravel())[0, 1] < 0


def test_stages_are_timed(predictor: Predictor) -> None:
    timed = predictor.predict(radiograph())
    assert set(timed.stage_ms) == {"normalise", "classify", "detect"}


class BlockingEngine(FakeEngine):
    """Stands still in `classify` until released, and records how many were in it at once."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Semaphore(0)
        self.release = threading.Event()
        self.inside = 0
        self.most_inside = 0

    def classify(self, batch: npt.NDArray[np.float32]) -> dict[str, ClassifierOutput]:
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        self.entered.release()
        self.release.wait(60)
        self.inside -= 1
        return super().classify(batch)

    def detect(self, grey: npt.NDArray[np.uint8], *, confidence: float) -> RawDetections:
        return NO_BOXES


@pytest.fixture
def blocking() -> Iterator[BlockingEngine]:
    engine = BlockingEngine()
    yield engine
    engine.release.set()


def analysed(predictor: Predictor) -> Prediction:
    return analyse(builders.dicom(), predictor=predictor, max_pixels=10**7).prediction


def test_more_analyses_than_there_are_places_are_refused_at_once(
    blocking: BlockingEngine,
) -> None:
    predictor = Predictor(fake_bundle(), blocking, queue=1)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(analysed, predictor)
        assert blocking.entered.acquire(timeout=60)
        with pytest.raises(BusyError):
            analysed(predictor)
        blocking.release.set()
        assert running.result(60).abnormal
    assert analysed(predictor).abnormal  # the place is free again
    predictor.close()


def test_a_place_is_taken_before_the_image_is_decoded(predictor: Predictor) -> None:
    with predictor.place(), predictor.place(), pytest.raises(BusyError):
        analyse(b"not even DICOM", predictor=predictor, max_pixels=10**7)


def test_an_image_waits_to_be_read_while_two_are_at_work() -> None:
    predictor = Predictor(fake_bundle(), FakeEngine(), queue=3)
    arrived, happened = threading.Event(), list[str]()

    def third() -> None:
        arrived.set()
        with predictor.place():
            happened.append("the third was read")

    with ThreadPoolExecutor(1) as pool, predictor.place():
        with predictor.place():
            running = pool.submit(third)
            assert arrived.wait(60)
            happened.append("the second was done")
        running.result(60)
    assert happened == ["the second was done", "the third was read"]
    predictor.close()


def test_a_failed_analysis_gives_its_place_back(engine: FakeEngine) -> None:
    predictor = Predictor(fake_bundle(), engine, queue=1)
    engine.logits["ResNet50"] = float("nan")
    for _ in range(3):
        with pytest.raises(ModelOutputError):
            analysed(predictor)
    predictor.close()


def test_callers_from_many_threads_are_served_one_at_a_time(blocking: BlockingEngine) -> None:
    blocking.release.set()
    predictor = Predictor(fake_bundle(), blocking, queue=16)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: ask(predictor), range(16)))
    assert all(a == answers[0] for a in answers)
    assert blocking.most_inside == 1
    predictor.close()


def test_candidates_are_every_box_and_change_nothing_else(
    predictor: Predictor, engine: FakeEngine
) -> None:
    set_all(engine, NORMAL)
    prediction = predictor.predict(radiograph(), candidates_from=0.001).prediction
    assert engine.detect_calls == [0.001]
    assert len(prediction.candidates) == 2
    assert prediction.findings is None  # the image is normal and nothing was to be shown
    assert ask(predictor).candidates == ()


def test_as_many_images_are_read_at_once_as_there_are_readers() -> None:
    predictor = Predictor(fake_bundle(), FakeEngine(), 8, readers=4)
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(predictor.place(timeout_s=0))
        with pytest.raises(DeadlineError), predictor.place(timeout_s=0):
            pass
    predictor.close()
