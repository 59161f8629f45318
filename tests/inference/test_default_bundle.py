"""The weights that come with the repository, on the samples that come with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import torch

from spinexr.analysis import UNFAMILIAR, analyse
from spinexr.domain import Analysis, TrainingData
from spinexr.inference.engines import EngineOptions
from spinexr.inference.loading import load_predictor
from spinexr.inference.predictor import Predictor
from spinexr.settings import PROJECT_ROOT
from spinexr.web.samples import Sample, shipped
from tests import builders

FOLDERS = ("ensemble output", "detection output")
MOST_BYTES = 130_000_000
SAMPLES = {s.name: s for s in shipped()}
Pixels = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def predictor() -> Iterator[Predictor]:
    threads = torch.get_num_threads()
    loaded = load_predictor(PROJECT_ROOT, EngineOptions(engine="torch"))
    yield loaded
    loaded.close()
    torch.set_num_threads(threads)


def answer(data: bytes, predictor: Predictor) -> Analysis:
    return analyse(data, predictor=predictor, max_pixels=40_000_000)


# Where these weights fall short, as MODEL_CARD.md says. Strict: better ones take the mark away.
_SHORT = pytest.mark.xfail(reason="a known miss of the demo weights", strict=True)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=_SHORT) if n == "lumbar-slip" else n for n in SAMPLES]
)
def test_samples_are_called_what_they_were_made(name: str, predictor: Predictor) -> None:
    sample = SAMPLES[name]
    found = answer(sample.file.read_bytes(), predictor)
    assert found.prediction.abnormal == bool(sample.findings)
    assert UNFAMILIAR not in found.notices


def test_most_findings_of_the_samples_are_marked(predictor: Predictor) -> None:
    def marked(sample: Sample) -> bool:
        found = answer(sample.file.read_bytes(), predictor).prediction.findings or ()
        return set(sample.findings) <= {f.label for f in found}

    abnormal = [s for s in SAMPLES.values() if s.findings]
    assert sum(marked(s) for s in abnormal) >= 4


def a_normal() -> Pixels:
    return np.asarray(pydicom.dcmread(SAMPLES["lumbar-normal"].file).pixel_array, np.float64)


ODD: dict[str, Callable[[], Pixels]] = {
    "inverted": lambda: 4095 - a_normal(),
    "shifted contrast": lambda: (a_normal() / a_normal().max()) ** 6 * 4000,
    "burnt out": lambda: (a_normal() / a_normal().max() * 3).clip(max=1) * 4000,
    "gradient": lambda: np.add.outer(np.linspace(0, 2000, 640), np.linspace(0, 2000, 424)),
    "noise": lambda: np.random.default_rng(0).uniform(0, 4000, (640, 424)),
}


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=_SHORT) if k == "shifted contrast" else k for k in ODD]
)
def test_an_image_unlike_the_training_images_is_warned_of(kind: str, predictor: Predictor) -> None:
    odd = ODD[kind]().clip(0).astype(np.uint16)
    assert UNFAMILIAR in answer(builders.dicom(odd), predictor).notices


def test_it_says_that_it_was_trained_on_phantoms(predictor: Predictor) -> None:
    bundle = answer(SAMPLES["lumbar-normal"].file.read_bytes(), predictor).bundle
    assert bundle.training_data is TrainingData.SYNTHETIC
    assert "results on patients mean nothing" in (bundle.caveat or "")


def test_it_is_small_and_lies_beside_its_manifests() -> None:
    files = [f for folder in FOLDERS for f in (PROJECT_ROOT / folder).rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) <= MOST_BYTES
    for folder in FOLDERS:
        manifest = json.loads((PROJECT_ROOT / folder / "manifest.json").read_text("utf-8"))
        assert manifest["provenance"]["commands"]
