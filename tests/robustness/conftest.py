"""A server whose networks cost nothing, so that everything else is what is tested."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.robustness.service import Client, Service


def pytest_ignore_collect() -> bool | None:
    """Servers and their limits are those of Linux."""
    return None if sys.platform == "linux" else True


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
