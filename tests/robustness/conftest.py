"""A server whose networks cost nothing, so that everything else is what is tested."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from spinexr.inference.bundle import DETECTION_FOLDER, MANIFEST
from tests.robustness.service import Client, Service

SIDE = 64


def pytest_ignore_collect() -> bool | None:
    """Servers and their limits are those of Linux."""
    return None if sys.platform == "linux" else True


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained bundle whose networks see 64 pixels, and that calls images abnormal.

    TEST_SMALL_WEIGHTS names a folder that keeps it from one run to the next.
    """
    from spinexr.training.untrained import write_untrained_bundle

    kept = os.environ.get("TEST_SMALL_WEIGHTS")
    root = Path(kept) if kept else tmp_path_factory.mktemp("small") / "weights"
    if root.exists():
        return root
    write_untrained_bundle(root, size=SIDE, abnormal=True, boxes=20)
    manifest = root / DETECTION_FOLDER / MANIFEST
    about = json.loads(manifest.read_text(encoding="utf-8"))
    about["preprocessing"]["size"] = SIDE
    manifest.write_text(json.dumps(about), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def service(small_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server of this module's own."""
    made = Service(small_weights, tmp_path_factory.mktemp("service"))
    yield made
    made.kill()


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    made = service.client()
    yield made
    made.close()
