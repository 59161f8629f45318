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


@pytest.mark.parametrize("name", SAMPLES)
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


def a_chest() -> Pixels:
    """Two dark lungs beside a spine, with ribs."""
    rows, columns = np.mgrid[:640, :540]
    picture = np.full((640, 540), 2600.0)
    for middle in (170, 370):
        picture -= 1700 * np.exp(
            -((((columns - middle) / 80) ** 2 + ((rows - 300) / 190) ** 2) ** 2)
        )
    picture += 700 * np.exp(-(((columns - 270) / 30) ** 2))
    for rib in range(9):
        arch = rows - 100 - 45 * rib - 0.002 * (columns - 270) ** 2
        picture += 150 * np.exp(-((arch / 7) ** 2))
    return picture


def a_hand() -> Pixels:
    """Five fingers on a palm, before a black ground."""
    rows, columns = np.mgrid[:640, :540]
    picture = np.full((640, 540), 100.0)
    for finger, middle in enumerate((120, 190, 260, 330, 420)):
        tip = 120 + 20 * abs(finger - 2)
        inside = np.exp(-((((columns - middle) / 22) ** 2) ** 2)) * ((rows > tip) & (rows < 520))
        picture += 1800 * inside
    palm = ((columns - 260) / 150) ** 2 + ((rows - 520) / 90) ** 2
    return np.asarray(picture + 1500 * np.exp(-(palm**2)))


ODD: dict[str, Callable[[], Pixels]] = {
    "inverted": lambda: 4095 - a_normal(),
    "shifted contrast": lambda: (a_normal() / a_normal().max()) ** 6 * 4000,
    "burnt out": lambda: (a_normal() / a_normal().max() * 3).clip(max=1) * 4000,
    "chest": a_chest,
    "hand": a_hand,
    "gradient": lambda: np.add.outer(np.linspace(0, 2000, 640), np.linspace(0, 2000, 424)),
    "noise": lambda: np.random.default_rng(0).uniform(0, 4000, (640, 424)),
}


@pytest.mark.parametrize("kind", ODD)
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
    assert (PROJECT_ROOT / "ensemble output/familiarity.npz").stat().st_size <= 2_000_000
    for folder in FOLDERS:
        manifest = json.loads((PROJECT_ROOT / folder / "manifest.json").read_text("utf-8"))
        assert manifest["provenance"]["commands"]
