"""Pictures of every state of the page, in docs/screens/: `python tools/screens.py`.

Needs requirements-browser.txt, Chromium and weights (SPINEXR_WEIGHTS, or those of the project).
"""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pydicom
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
SCREENS = ROOT / "docs" / "screens"
SIZES = {"": (1440, 900), "-phone": (390, 844)}
_QUALITY = 82
_LONGEST_START_S = 180


def main() -> None:
    """Replace docs/screens/ by what the page looks like now."""
    shutil.rmtree(SCREENS, ignore_errors=True)
    SCREENS.mkdir(parents=True)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as aside:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        with _server() as address:
            _take(browser, address, STATES)
        tokens = Path(aside) / "tokens"
        command = [sys.executable, "-m", "spinexr", "token", "reader", "--file", str(tokens)]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
        with _server(SPINEXR_TOKENS_FILE=str(tokens)) as address:
            _take(browser, address, {"login": _nothing})
        browser.close()


def _take(browser: Browser, address: str, states: Mapping[str, Callable[[Page], None]]) -> None:
    for suffix, (width, height) in SIZES.items():
        for name, act in states.items():
            context = browser.new_context(viewport={"width": width, "height": height})
            page = context.new_page()
            page.goto(address)
            act(page)
            page.wait_for_timeout(300)  # for the last frame; nothing is tested here
            page.screenshot(
                path=SCREENS / f"{name}{suffix}.jpg",
                type="jpeg",
                quality=_QUALITY,
                full_page=bool(suffix),
            )
            context.close()


def _nothing(_page: Page) -> None:
    """The front page as it is."""


def _sample(name: str) -> Callable[[Page], None]:
    def act(page: Page) -> None:
        page.set_input_files("#file", ROOT / "samples" / f"{name}.dcm")
        page.wait_for_selector(".result")
        page.keyboard.press("1")
        page.wait_for_selector("canvas.plain:not([hidden])")

    return act


def _windowed(page: Page) -> None:
    _sample("lumbar-implant")(page)
    stage = page.locator(".stage").bounding_box()
    assert stage is not None  # noqa: S101  (it is shown)
    x, y = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 60, y - 30, steps=4)
    page.mouse.up()
    page.mouse.wheel(0, -500)


def _measured(page: Page) -> None:
    _sample("thoracolumbar-collapse")(page)
    page.get_by_role("button", name="Measure").click()
    stage = page.locator(".stage").bounding_box()
    assert stage is not None  # noqa: S101  (it is shown)
    x, y = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    page.mouse.click(x - 20, y - 60)
    page.mouse.click(x + 40, y + 50)


def _beside(page: Page) -> None:
    _sample("lumbar-implant")(page)
    page.locator("[data-role='swipe']").fill("50")
    page.evaluate("() => window.scrollTo(0, 0)")


def _heat(page: Page) -> None:
    _sample("thoracolumbar-collapse")(page)
    page.locator("#heat-on").check()
    page.evaluate("() => window.scrollTo(0, 0)")


def _keys(page: Page) -> None:
    _sample("lumbar-implant")(page)
    page.keyboard.press("?")


def _light(page: Page) -> None:
    page.locator("[data-role='theme']").click()
    _sample("lumbar-disc")(page)


def _worklist(page: Page) -> None:
    page.set_input_files("#file", sorted((ROOT / "samples").glob("*.dcm")))
    page.get_by_text("6 of 6").wait_for()
    page.locator("[data-role='order']").select_option("abnormal")
    page.locator(".item-open").first.click()
    page.evaluate("() => window.scrollTo(0, 0)")


def _light_worklist(page: Page) -> None:
    page.locator("[data-role='theme']").click()
    _worklist(page)


def _other_part(page: Page) -> None:
    dataset = pydicom.dcmread(ROOT / "samples" / "lumbar-normal.dcm")
    dataset.BodyPartExamined = "KNEE"
    knee = io.BytesIO()
    dataset.save_as(knee)
    page.set_input_files("#file", {"name": "a.dcm", "mimeType": "", "buffer": knee.getvalue()})
    page.wait_for_selector(".notice-bad")


def _samples(page: Page) -> None:
    page.goto(f"{page.url}samples")


def _refused(page: Page) -> None:
    broken = (ROOT / "samples" / "lumbar-disc.dcm").read_bytes()[:2000]
    page.set_input_files("#file", {"name": "a.dcm", "mimeType": "", "buffer": broken})
    page.wait_for_selector(".notice-bad")


def _vietnamese(page: Page) -> None:
    page.get_by_role("link", name="Tiếng Việt").click()
    page.wait_for_selector("html[lang='vi'] .drop-active")
    _sample("lumbar-osteophytes")(page)


STATES: dict[str, Callable[[Page], None]] = {
    "front": _nothing,
    "abnormal": _sample("lumbar-implant"),
    "normal": _sample("lumbar-normal"),
    "windowed": _windowed,
    "measured": _measured,
    "beside": _beside,
    "heat": _heat,
    "keys": _keys,
    "light": _light,
    "worklist": _worklist,
    "worklist-light": _light_worklist,
    "refused": _refused,
    "other-part": _other_part,
    "samples": _samples,
    "vietnamese": _vietnamese,
}


@contextmanager
def _server(**more: str) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "spinexr", "serve"],
        cwd=ROOT,
        env=os.environ | {"PORT": str(port)} | more,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait(address)
        yield address
    finally:
        process.terminate()
        process.wait()


def _wait(address: str) -> None:
    deadline = time.monotonic() + _LONGEST_START_S
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{address}/health") as answer:  # noqa: S310  (our own)
                if json.load(answer)["status"] == "ok":
                    return
        except (urllib.error.URLError, ConnectionError):
            pass
        time.sleep(0.5)
    raise SystemExit("The server is not ready; its log says why.")


if __name__ == "__main__":
    main()
