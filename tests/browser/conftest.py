"""The page in Chromium, before a server whose engine answers what the test sets.

Skipped where there is no Chromium, unless TEST_BROWSER says which one there must be.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from flask import Flask
from playwright.sync_api import Browser, Page, expect, sync_playwright
from werkzeug.serving import make_server
from werkzeug.wsgi import ClosingIterator

from spinexr.inference.engines.base import ClassifierOutput
from tests.fakes import FakeEngine, raw

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_LONGEST_MS = 60_000
expect.set_options(timeout=_LONGEST_MS)
_CHROMIUM = os.environ.get("TEST_BROWSER") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
# Quiet: nothing but the pages under test is ever asked for.
_ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
    "--disable-component-update", "--no-first-run",
]  # fmt: skip


# What the browser says of an answer such as 422, and of tests that read a canvas.
_NO_FAULT = ("Failed to load resource", "Multiple readback operations")


def _read_out(app: Flask) -> WSGIApplication:
    """Answers as a whole: werkzeug leaves their files open when a browser hangs up midway."""

    def whole(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        with closing(ClosingIterator(app(environ, start_response))) as answer:
            return [b"".join(answer)]

    return whole


@contextmanager
def served(app: Flask) -> Iterator[str]:
    """The application's address while it is served."""
    server = make_server("127.0.0.1", 0, _read_out(app), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if _CHROMIUM is None:
        pytest.skip("needs Chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def go_on(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """The engine answers nothing until this is set."""
    event, classify = threading.Event(), engine.classify

    def held_up(batch: npt.NDArray[np.float32]) -> dict[str, ClassifierOutput]:
        event.wait(60)
        return classify(batch)

    monkeypatch.setattr(engine, "classify", held_up)
    return event


@pytest.fixture
def site(make_app: Callable[..., Flask], engine: FakeEngine) -> Iterator[str]:
    """Address of a server that marks three firm findings and a tentative one."""
    engine.detections = raw(
        (20, 30, 60, 70, 0.81, 0), (25, 80, 70, 100, 0.44, 1), (40, 110, 80, 140, 0.33, 0),
        (70, 60, 100, 90, 0.18, 2),
    )  # fmt: skip
    with served(make_app()) as address:
        yield address


@pytest.fixture
def make_page(browser: Browser, site: str) -> Iterator[Callable[..., Page]]:
    """Opens the front page; a message in the console or an error of a script fails the test."""
    pages: list[tuple[Page, list[str]]] = []

    def make(*, width: int = 1440, height: int = 900, **options: Any) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height}, reduced_motion="reduce", **options
        )
        page = context.new_page()
        page.set_default_timeout(_LONGEST_MS)
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(site)
        pages.append((page, complaints))
        return page

    yield make
    for page, complaints in pages:
        page.context.close()
        assert [c for c in complaints if not any(known in c for known in _NO_FAULT)] == []


@pytest.fixture
def page(make_page: Callable[..., Page]) -> Page:
    """The front page on a screen of 1440 × 900."""
    return make_page()
