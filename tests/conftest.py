"""Fixtures shared by all tests. Whatever needs full-size networks runs last."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from spinexr.imaging import reader
from spinexr.inference.bundle import DETECTION_FOLDER, MANIFEST
from spinexr.inference.predictor import Predictor
from spinexr.settings import Settings
from spinexr.web import create_app
from spinexr.web.models import Models
from tests import shared
from tests.fakes import FakeEngine, fake_bundle

# The page is tested in a browser where what drives one is installed (requirements-browser.txt).
collect_ignore = [] if find_spec("playwright") else ["browser"]

_HEAVY_FIXTURES = ("small_weights", "untrained_root", "real_predictor", "server", "phantom_root")
_SMALL_SIDE = 64
SMALLEST = ("test_resnet", "test_efficientnet", "test_byobnet")  # of timm's networks
_LONGEST = ("test_train",)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The fast ones first, then the longest module; where several processes share the tests
    (`pytest -n 2 --dist loadfile --no-loadscope-reorder`) one begins with that."""
    longest = -1 if hasattr(config, "workerinput") else 1
    items.sort(key=lambda item: longest if item.path.stem in _LONGEST else 2 * _uses_networks(item))


def _uses_networks(item: pytest.Item) -> bool:
    return any(f in _HEAVY_FIXTURES for f in getattr(item, "fixturenames", ()))


@pytest.fixture
def engine() -> FakeEngine:
    """An engine whose answers the test sets."""
    return FakeEngine()


@pytest.fixture
def predictor(engine: FakeEngine) -> Iterator[Predictor]:
    """A predictor over `engine`."""
    predictor = Predictor(fake_bundle(), engine, queue=2)
    yield predictor
    predictor.close()


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """Where `client` keeps uploads in flight."""
    return tmp_path / "uploads"


@pytest.fixture
def make_app(predictor: Predictor, spool: Path) -> Callable[..., Flask]:
    """Builds applications over `predictor`, its models loaded; settings as keywords."""

    def make(**settings: object) -> Flask:
        models = Models(lambda: predictor)
        chosen: dict[str, Any] = {"uploads": spool, **settings}
        app = create_app(Settings(**chosen), models=models, read=reader.read)
        models.wait()
        app.testing = False  # the error mapping is under test too
        return app

    return make


@pytest.fixture
def client(make_app: Callable[..., Flask]) -> FlaskClient:
    """A client of an application whose models are ready."""
    return make_app().test_client()


@pytest.fixture(scope="session")
def untrained_root() -> Path:
    """Full-size networks with random weights: calls most images abnormal and finds boxes."""

    def make(root: Path) -> None:
        from spinexr.training.untrained import write_untrained_bundle

        write_untrained_bundle(root, detector="yolo11n", abnormal=True, boxes=60)

    return shared.once("untrained", make)


@pytest.fixture(scope="session")
def small_weights() -> Path:
    """An untrained bundle of small networks that see 64 pixels, so that they cost nothing and a
    server with them starts soon, and that calls images abnormal."""

    def make(root: Path) -> None:
        from spinexr.inference.bundle import load_bundle
        from spinexr.inference.engines import openvino_loading
        from spinexr.training.untrained import write_untrained_bundle

        write_untrained_bundle(
            root, architectures=SMALLEST, size=_SMALL_SIDE, abnormal=True, boxes=20
        )
        manifest = root / DETECTION_FOLDER / MANIFEST
        about = json.loads(manifest.read_text(encoding="utf-8"))
        about["preprocessing"]["size"] = _SMALL_SIDE
        manifest.write_text(json.dumps(about), encoding="utf-8")
        # Two servers that begin at once would both do that.
        openvino_loading.load(load_bundle(root), store=shared.ENGINES, threads=2)

    return shared.once("small", make)


@pytest.fixture(scope="session")
def phantom_root() -> Path:
    """A small dataset of phantoms: at least 400 images of 240 × 160 pixels."""

    def make(root: Path) -> None:
        from spinexr.datasets.phantoms import Plan, generate

        for _ in generate(Plan(root, studies=270, seed=3, rows=240, columns=160), workers=2):
            pass

    return shared.once("phantoms", make)


@pytest.fixture(scope="session")
def real_predictor(untrained_root: Path) -> Iterator[Predictor]:
    """A predictor over `untrained_root`."""
    from spinexr.inference.engines import EngineOptions
    from spinexr.inference.loading import load_predictor

    predictor = load_predictor(untrained_root, EngineOptions(engine="torch"))
    yield predictor
    predictor.close()
