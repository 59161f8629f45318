from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests import builders
from tests.browser.acts import painted, upload
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


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_has_no_violation(page: Page, name: str) -> None:
    upload(page, builders.dicom(attributes=REFUSED[name]))
    expect(page.get_by_role("alert")).to_be_visible()
    assert violations(page) == []


def test_an_unknown_address_has_no_violation(page: Page, site: str) -> None:
    page.goto(f"{site}/nothing")
    assert violations(page) == []


def test_everything_works_at_360_pixels(make_page: Callable[..., Page]) -> None:
    page = make_page(width=360, height=740)
    upload(page)
    wide = page.evaluate("() => document.documentElement.scrollWidth")
    assert wide <= 360
    assert violations(page) == []
