from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from spinexr.errors import ModelsNotReadyError, Problem
from spinexr.imaging import reader
from spinexr.inference.predictor import Predictor
from spinexr.settings import Settings
from spinexr.web import create_app
from spinexr.web.models import Models
from tests import builders
from tests.browser.acts import drop, painted, place_of, upload
from tests.browser.conftest import served
from tests.fakes import NORMAL, FakeEngine

RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


def violations(page: Page) -> list[str]:
    found = Axe().run(page, options=RULES).response["violations"]
    return [f"{v['id']}: {n['html'][:120]}" for v in found for n in v["nodes"]]


@pytest.fixture(params=["dark", "light"])
def themed(request: pytest.FixtureRequest, make_page: Callable[..., Page]) -> Page:
    page = make_page()
    if request.param == "light":
        page.get_by_role("button", name="Light theme").click()
    return page


def test_the_front_page_has_no_violation(themed: Page) -> None:
    assert violations(themed) == []


def test_an_abnormal_result_has_no_violation(themed: Page) -> None:
    upload(themed)
    themed.keyboard.press("1")
    painted(themed)
    assert violations(themed) == []


def test_a_normal_result_has_no_violation(themed: Page, engine: FakeEngine) -> None:
    engine.logits = dict.fromkeys(engine.logits, NORMAL)
    upload(themed)
    assert violations(themed) == []


def test_the_list_of_keys_has_no_violation(page: Page) -> None:
    upload(page)
    page.keyboard.press("?")
    assert violations(page) == []


def test_the_samples_have_no_violation(page: Page, site: str) -> None:
    page.goto(f"{site}/samples")
    assert violations(page) == []


REFUSED: dict[str, dict[str, Any]] = {
    "other modality": {"Modality": "CT"},
    "other body part": {"BodyPartExamined": "KNEE"},
    "no pixels": {"PixelData": None},
    "several frames": {"NumberOfFrames": 2},
}
NO_IMAGE = {
    "no DICOM": b"GIF89a",
    "cut off": builders.dicom()[:3000],
    "one grey level": builders.dicom(np.full((64, 64), 7, np.uint16)),
}


@pytest.mark.parametrize("name", [*REFUSED, *NO_IMAGE])
def test_a_refusal_has_no_violation(themed: Page, name: str) -> None:
    data = NO_IMAGE.get(name) or builders.dicom(attributes=REFUSED[name])
    upload(themed, data)
    expect(themed.get_by_role("alert")).to_be_visible()
    assert violations(themed) == []


def test_a_worklist_with_a_refused_file_has_no_violation(themed: Page) -> None:
    drop(themed, {"one.dcm": builders.dicom(), "two.dcm": NO_IMAGE["cut off"]})
    expect(themed.locator(".worklist-summary")).to_contain_text("1")
    expect(themed.locator("[data-role='retry']:visible")).to_have_count(1)
    assert violations(themed) == []


@pytest.mark.parametrize("size", [(1440, 900), (3840, 2160)])
def test_vietnamese_has_no_violation_on_any_screen(
    make_page: Callable[..., Page], size: tuple[int, int]
) -> None:
    page = make_page(width=size[0], height=size[1], locale="vi-VN")
    expect(page.locator("html")).to_have_attribute("lang", "vi")
    upload(page)
    expect(page.locator("h1")).to_contain_text("Bất thường")
    assert violations(page) == []
    picture, stage = place_of(page, ".plain"), place_of(page, ".stage")
    assert picture[3] - picture[1] == pytest.approx(stage[3] - stage[1], abs=1)


def test_a_page_without_models_has_no_violation(browser: Browser, spool: Path) -> None:
    def fail() -> Predictor:
        raise ModelsNotReadyError("None.", [Problem("file_missing", "best.pt is missing.")])

    models = Models(fail)
    app = create_app(Settings(uploads=spool), models=models, read=reader.read)
    models.wait()
    with served(app) as address:
        page = browser.new_page()
        page.goto(address)
        expect(page.get_by_role("alert")).to_contain_text("best.pt is missing.")
        assert violations(page) == []
        page.close()


def test_an_unknown_address_has_no_violation(page: Page, site: str) -> None:
    page.goto(f"{site}/nothing")
    assert violations(page) == []


def test_everything_works_at_360_pixels(make_page: Callable[..., Page]) -> None:
    page = make_page(width=360, height=740)
    upload(page)
    wide = page.evaluate("() => document.documentElement.scrollWidth")
    assert wide <= 360
    assert violations(page) == []
