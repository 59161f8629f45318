"""What a worker says of itself, and with what it refuses to begin."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spinexr.analysis import analyse
from spinexr.batch import work
from spinexr.batch.address import Address
from spinexr.batch.executor import Answer, Failure, Task
from spinexr.batch.work import OpenWorker, Options
from spinexr.domain import Analysis, DetectPolicy
from spinexr.errors import BusyError, ModelsNotReadyError
from spinexr.imaging.sandbox import SandboxOptions
from spinexr.inference.engines import EngineOptions
from spinexr.inference.engines.precision import Precision
from spinexr.inference.predictor import Predictor
from tests import builders
from tests.batch.workers import worker
from tests.fakes import FakeEngine, fake_bundle


def test_a_precision_that_is_not_to_be_had_is_refused_and_not_replaced(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.precision_note = "nobody has judged it"
    opened = OpenWorker(
        tmp_path, EngineOptions(precision=Precision.BF16), SandboxOptions(), Options(1, 1)
    )
    with pytest.raises(ModelsNotReadyError, match=r"in bf16: nobody has judged it"):
        opened._check_precision(engine)
    replace(opened, engine=EngineOptions())._check_precision(engine)


def test_the_bundle_s_hash_changes_with_any_number_that_results_depend_on() -> None:
    bundle = fake_bundle()
    ensemble, detector = bundle.ensemble, bundle.detector
    bundles = [
        bundle,
        replace(bundle, ensemble=replace(ensemble, threshold=0.45)),
        replace(bundle, ensemble=replace(ensemble, members=ensemble.members[::-1])),
        replace(bundle, detector=replace(detector, iou=0.6)),
    ]
    hashes = {sha256(b) for b in bundles}
    assert len(hashes) == len(bundles)
    assert sha256(fake_bundle()) in hashes


def sha256(bundle: object) -> str:
    predictor = Predictor(bundle, FakeEngine())  # type: ignore[arg-type]
    predictor.close()
    return predictor.fingerprint


def test_workers_that_would_answer_differently_have_another_identity() -> None:
    workers = [
        worker(), worker(), worker(detect=DetectPolicy.ALWAYS), worker(keep=("StudyDate",)),
        worker(allow_other_body_part=True), worker(max_pixels=5),
    ]  # fmt: skip
    identities = [str(w.about.identity) for w in workers]
    assert identities[0] == identities[1]
    assert len(set(identities)) == len(workers) - 1
    for each in workers:
        each.close()


def test_a_refusal_has_the_code_of_the_api_and_no_name_of_the_file(tmp_path: Path) -> None:
    asked = worker()
    (tmp_path / "Smith.dcm").write_bytes(b"")
    outcome = asked(Task(1, Address(str(tmp_path / "Smith.dcm"))))
    asked.close()
    assert isinstance(outcome, Failure)
    assert outcome.code == "empty_file"
    assert "Smith" not in outcome.message


@pytest.mark.parametrize("times", [1, 3])
def test_what_is_short_for_a_moment_costs_no_file_its_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    file = tmp_path / "a.dcm"
    file.write_bytes(builders.dicom())
    refusals = [BusyError("There is no place.")] * times

    def analysed(data: bytes, **options: Any) -> Analysis:
        if refusals:
            raise refusals.pop()
        return analyse(data, **options)

    monkeypatch.setattr(work, "analyse", analysed)
    monkeypatch.setattr(work, "_PAUSES_S", (0.0, 0.0))
    made = worker()
    outcome = made(Task(1, Address(str(file))))
    made.close()
    if times == 1:
        assert isinstance(outcome, Answer)
    else:
        assert isinstance(outcome, Failure)
        assert outcome.code == "busy"
