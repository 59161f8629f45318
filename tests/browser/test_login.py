"""The page of a server that asks for tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from flask import Flask
from playwright.sync_api import Browser

from spinexr import tokens
from tests.browser import acts
from tests.browser.conftest import served


@pytest.fixture
def token() -> str:
    return tokens.new()


@pytest.fixture
def address(make_app: Callable[..., Flask], tmp_path: Path, token: str) -> Iterator[str]:
    """Of a server that asks for a token."""
    file = tmp_path / "tokens"
    file.write_text(tokens.line("ann", token), encoding="utf-8")
    with served(make_app(tokens_file=file)) as address:
        yield address


def test_somebody_logs_in_reads_changes_the_window_and_logs_out(
    browser: Browser, address: str, token: str
) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(address)
        assert page.url == f"{address}/login"
        assert Axe().run(page).violations_count == 0
        page.fill("#token", "wrong")
        page.click("main button")
        assert "not a token" in page.locator("[role='alert']").inner_text()
        page.fill("#token", token)
        page.click("main button")
        page.wait_for_selector(".drop-active")
        acts.upload(page)
        page.keyboard.press("1")  # asks for the stored values
        assert acts.painted(page).shape == (160, 112)
        page.click("[data-action='again']")
        page.wait_for_selector("#upload")
        page.click("form[data-sample] button >> nth=0")
        page.wait_for_selector(".result, .notice-bad h1")
        assert page.locator(".result").count() == 1
        page.click("header form button")
        assert page.url == f"{address}/login"
        page.goto(address)
        assert page.url == f"{address}/login"


def test_a_login_that_has_ended_is_said_and_leads_to_the_next(
    browser: Browser, address: str, token: str
) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(address)
        page.fill("#token", token)
        page.click("main button")
        page.wait_for_selector(".drop-active")
        context.clear_cookies()
        acts.upload(page)
        assert "where the login has ended" in page.locator("[role='alert']").inner_text()
        page.get_by_role("link", name="Log in").click()
        page.wait_for_url(f"{address}/login")
