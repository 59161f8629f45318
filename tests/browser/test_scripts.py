"""Whatever a file holds is text on the page."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page
from pydicom.datadict import dictionary_VR, tag_for_keyword

from spinexr.imaging import header
from tests import builders
from tests.browser import acts

SCRIPT = "<img src=x onerror=ran=1><script>ran=1</script>"
# The decision to analyse depends on these; a marked value would be refused, which is tested too.
_DECIDING = ("Modality", "Rows", "Columns", "BitsStored", "PhotometricInterpretation")


def with_script_in(*keywords: str) -> bytes:
    texts = {"AS", "LO", "SH", "PN", "CS", "LT", "ST", "UT"}
    attributes = {k: SCRIPT for k in keywords if dictionary_VR(tag_for_keyword(k) or 0) in texts}
    assert attributes
    return builders.dicom(attributes=attributes)


@pytest.mark.parametrize("shown", ["all shown attributes", "modality"])
def test_a_script_in_a_file_does_not_run(make_page: Callable[..., Page], shown: str) -> None:
    """Seen failing with autoescape off: the browser's complaint about an inline script is a message
    in the console, which fails the test, as does the script itself."""
    keywords = [k for k in header.SHOWN if k not in _DECIDING]
    data = with_script_in(*(keywords if shown.startswith("all") else ["Modality"]))
    page = make_page()
    acts.upload(page, data, name="<script>ran=1</script>.dcm")
    assert page.evaluate("() => typeof ran") == "undefined"
    assert page.locator("main script:not([type='application/json'])").count() == 0
    assert page.locator("main img[src='x']").count() == 0
    assert "<script>" in page.locator("main").inner_text().lower()
