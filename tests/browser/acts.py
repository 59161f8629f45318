"""What people do on the page, and what they see."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import numpy.typing as npt
from playwright.sync_api import Page

from tests import builders


def upload(page: Page, data: bytes | None = None, name: str = "image.dcm") -> None:
    """Choose a file in the form; returns when the answer is there."""
    content = builders.dicom() if data is None else data
    page.set_input_files(
        "#file", {"name": name, "mimeType": "application/dicom", "buffer": content}
    )
    page.wait_for_selector(".result, .notice-bad h1")


def drop(page: Page, files: dict[str, bytes], selector: str = "#upload") -> None:
    """Drop files, by name, on an element."""
    encoded = [[name, base64.b64encode(data).decode()] for name, data in files.items()]
    transfer = page.evaluate_handle(
        """files => {
          const transfer = new DataTransfer();
          for (const [name, data] of files) {
            const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
            transfer.items.add(new File([bytes], name));
          }
          return transfer;
        }""",
        encoded,
    )
    page.dispatch_event(selector, "drop", {"dataTransfer": transfer})


def painted(page: Page) -> npt.NDArray[np.uint8]:
    """Grey levels (rows, columns) of the canvas once it shows the latest window."""
    page.wait_for_selector("canvas.plain:not([hidden])")
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    found: dict[str, Any] = page.evaluate(
        """() => {
          const canvas = document.querySelector("canvas.plain");
          const { width, height } = canvas;
          const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
          const grey = new Uint8Array(width * height).map((_, n) => data[4 * n]);
          let text = "";
          for (let n = 0; n < grey.length; n += 8192)
            text += String.fromCharCode(...grey.subarray(n, n + 8192));
          return { width, height, data: btoa(text) };
        }"""
    )
    grey = np.frombuffer(base64.b64decode(found["data"]), np.uint8)
    return grey.reshape(found["height"], found["width"])


def place_of(page: Page, selector: str) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) on the screen, fractions of a pixel included."""
    frame = page.evaluate(
        """selector => {
          const { left, top, right, bottom } =
            document.querySelector(selector).getBoundingClientRect();
          return [left, top, right, bottom];
        }""",
        selector,
    )
    return (frame[0], frame[1], frame[2], frame[3])


def settle(page: Page) -> None:
    """Until what was asked for is drawn."""
    page.evaluate(
        "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )
