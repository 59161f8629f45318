from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from pydicom.pixels.processing import apply_modality_lut, apply_voi, apply_windowing

from spinexr import DISCLAIMER
from tests import builders
from tests.analyses import schema_errors
from tests.browser.acts import drop, painted, place_of, settle, upload
from tests.fakes import NORMAL, FakeEngine, fake_bundle
from tests.imaging.test_display import lut
from tests.processes import ROOT
from tools import translations

HEADLINE = "Abnormal, 0.881 (cut-off 0.449): three firm findings, one tentative."


def test_a_chosen_file_is_analysed_without_leaving_the_page(page: Page) -> None:
    upload(page)
    expect(page.locator("h1")).to_have_text(HEADLINE)
    expect(page.locator("h1")).to_be_focused()
    expect(page.locator("g[data-finding]")).to_have_count(4)
    page.go_back()
    expect(page.locator("#upload")).to_be_visible()
    page.go_forward()
    expect(page.locator("h1")).to_have_text(HEADLINE)


def test_a_dropped_file_is_analysed(page: Page) -> None:
    drop(page, {"1.2.840.10008": builders.dicom()})
    expect(page.locator("h1")).to_have_text(HEADLINE)


def test_a_file_dropped_on_a_result_is_the_next_one(page: Page) -> None:
    upload(page, builders.dicom(attributes={"Modality": "CT"}))
    expect(page.get_by_role("alert")).to_contain_text("CT")
    drop(page, {"next": builders.dicom()}, "main")
    expect(page.locator("h1")).to_have_text(HEADLINE)


def test_of_two_files_the_later_one_is_waited_for(page: Page, go_on: threading.Event) -> None:
    for rows in (160, 170):
        with page.expect_request("**/upload"):
            drop(page, {"a": builders.dicom(builders.pixels(rows, 112))})
    with page.expect_response("**/upload"):
        go_on.set()
    expect(page.get_by_text("112 × 170 pixels")).to_be_visible()
    settle(page)
    page.go_back()
    expect(page.locator("#upload")).to_be_visible()


def test_a_jump_within_a_result_leaves_it_there(page: Page) -> None:
    upload(page)
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/#main")
    expect(page.locator("h1")).to_have_text(HEADLINE)
    page.go_back()
    expect(page.locator("h1")).to_have_text(HEADLINE)
    page.go_back()
    expect(page.locator("#upload")).to_be_visible()


def test_without_scripts_the_answer_comes_by_a_form(make_page: Callable[..., Page]) -> None:
    page = make_page(java_script_enabled=False)
    page.set_input_files("#file", {"name": "a.dcm", "mimeType": "", "buffer": builders.dicom()})
    page.get_by_role("button", name="Analyse", exact=True).click()
    expect(page.locator("h1")).to_have_text(HEADLINE)
    page.wait_for_load_state("load")  # the heading is there before the style sheet
    left, top, right, _ = place_of(page, "img.plain")
    box = place_of(page, "g[data-finding='1'] .box-line")
    scale = (right - left) / 112
    assert box == pytest.approx(
        (left + 20 * scale, top + 30 * scale, left + 60 * scale, top + 70 * scale), abs=3
    )
    assert page.locator(".tools").is_hidden()


def shown_by_pydicom(dataset: Any) -> np.ndarray:
    values = apply_modality_lut(dataset.pixel_array, dataset)
    if "VOILUTSequence" in dataset:
        bits = dataset.VOILUTSequence[0].LUTDescriptor[2]
        grey = apply_voi(values, dataset) / (2.0**bits - 1)
    else:
        levels = apply_windowing(values, dataset)
        low, high = ends(dataset)
        grey = (levels - low) / (high - low)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        grey = 1 - grey
    return np.asarray(np.rint(grey * 255))


def ends(dataset: Any) -> tuple[float, float]:
    """What apply_windowing gives for black and white: the range of the rescaled values."""
    low = -(2.0 ** (dataset.BitsStored - 1)) if dataset.PixelRepresentation else 0.0
    high = low + 2.0**dataset.BitsStored - 1
    slope = float(dataset.get("RescaleSlope", 1))
    intercept = float(dataset.get("RescaleIntercept", 0))
    return low * slope + intercept, high * slope + intercept


WINDOWS: dict[str, dict[str, Any]] = {
    "linear": {"WindowCenter": 1500, "WindowWidth": 900},
    "exact": {"WindowCenter": 1500, "WindowWidth": 900, "VOILUTFunction": "LINEAR_EXACT"},
    "sigmoid": {"WindowCenter": 1500, "WindowWidth": 900, "VOILUTFunction": "SIGMOID"},
    "rescaled": {"RescaleSlope": 0.5, "RescaleIntercept": -200, "WindowCenter": 500,
                 "WindowWidth": 700},
    "white is 0": {"PhotometricInterpretation": "MONOCHROME1", "WindowCenter": 1500,
                   "WindowWidth": 2900},
    "threshold": {"WindowCenter": 1500, "WindowWidth": 1},
}  # fmt: skip


@pytest.mark.parametrize("name", WINDOWS)
def test_windows_show_what_pydicom_shows(page: Page, name: str) -> None:
    dataset = builders.dataset(attributes=WINDOWS[name])
    upload(page, builders.dicom(attributes=WINDOWS[name]))
    page.keyboard.press("1")
    assert np.abs(painted(page) - shown_by_pydicom(dataset)).max() <= 1


def test_a_table_of_the_file_comes_first_and_a_drag_leaves_it(page: Page) -> None:
    steps = {"VOILUTSequence": lut([4096, 0, 16], [(n // 512) * 8000 for n in range(4096)])}
    upload(page, builders.dicom(attributes=steps))
    page.keyboard.press("1")
    shown = painted(page)
    assert np.abs(shown - shown_by_pydicom(builders.dataset(attributes=steps))).max() <= 1
    assert len(np.unique(shown)) <= 8
    expect(page.locator("select option").nth(0)).to_have_text("1: Table of the file")
    page.keyboard.press("2")
    assert len(np.unique(painted(page))) > 100


def test_two_fingers_zoom_where_they_are(make_page: Callable[..., Page]) -> None:
    page = make_page(width=390, height=844, has_touch=True)
    upload(page)
    page.locator(".stage").scroll_into_view_if_needed()
    left, top, right, bottom = place_of(page, ".stage")
    x, y = (left + right) / 2, (top + bottom) / 2
    before = place_of(page, ".turn")
    session = page.context.new_cdp_session(page)

    def touch(kind: str, *offsets: float) -> None:
        points = [{"x": x + dx, "y": y, "id": n} for n, dx in enumerate(offsets)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        settle(page)

    touch("touchStart", -30)
    touch("touchStart", -30, 30)
    for spread in (50, 70, 90):
        touch("touchMove", -spread, spread)
    touch("touchEnd")
    after = place_of(page, ".turn")
    # They part from 60 to 180 pixels.
    assert after[2] - after[0] == pytest.approx(3 * (before[2] - before[0]), rel=0.02)
    assert (after[0] + after[2]) / 2 == pytest.approx((before[0] + before[2]) / 2, abs=3)


def test_a_finger_scrolls_over_the_image_until_it_is_tapped(make_page: Callable[..., Page]) -> None:
    page = make_page(width=390, height=844, has_touch=True)
    upload(page)
    page.locator(".stage").scroll_into_view_if_needed()
    session = page.context.new_cdp_session(page)

    def swipe(across: float, down: float) -> float:
        """How far the page was scrolled by it."""
        left, top, right, bottom = place_of(page, ".stage")
        x, y = (left + right) / 2, (top + bottom) / 2
        before = page.evaluate("scrollY")
        ways = [*(n / 8 for n in range(1, 9)), 1, 1, 1]  # it rests at the end: no fling
        for kind, part in [("touchStart", 0), *(("touchMove", way) for way in ways)]:
            point = {"x": x + part * across, "y": y + part * down}
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
            settle(page)
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        at = None
        while at != (at := page.evaluate("scrollY")):
            settle(page)
        return float(at - before)

    assert swipe(0, -120) > 60
    width = page.get_by_label("Window width")
    expect(width).to_have_value("")  # nobody asked for it to be changed
    assert swipe(120, 0) == 0
    expect(page.locator(".hint")).to_have_text("Tap the image first; then swipes change it.")
    left, top, _right, _bottom = place_of(page, ".stage")
    page.touchscreen.tap(left + 5, top + 5)
    expect(width).not_to_have_value("")
    before = width.input_value()
    assert swipe(0, -60) == 0
    assert swipe(120, 0) == 0
    expect(width).not_to_have_value(before)


def test_a_sample_can_be_windowed_too(page: Page) -> None:
    page.get_by_role("button", name="lateral: disc space narrowing").click()
    expect(page.locator("h1")).to_contain_text("Abnormal")
    page.keyboard.press("2")
    assert painted(page).shape == (840, 560)


def test_pixels_that_do_not_come_are_asked_for_again(page: Page) -> None:
    page.route("**/pixels", lambda route: route.abort())
    upload(page)
    page.keyboard.press("1")
    expect(page.locator(".hint")).to_have_text(
        "The server did not answer. Is the connection there? Then try again."
    )
    page.unroute("**/pixels")
    page.keyboard.press("1")
    assert painted(page).shape == (160, 112)


def test_signed_values_are_shown_and_read_out(page: Page) -> None:
    stored = builders.pixels().astype(np.int16) - 2000
    window = {"WindowCenter": -500, "WindowWidth": 1200}
    upload(page, builders.dicom(stored, attributes=window))
    page.keyboard.press("1")
    dataset = builders.dataset(stored, attributes=window)
    assert np.abs(painted(page) - shown_by_pydicom(dataset)).max() <= 1
    left, top, right, _ = place_of(page, "canvas.plain")
    scale = (right - left) / stored.shape[1]
    page.mouse.move(left + 30.5 * scale, top + 40.5 * scale)
    expect(page.locator(".readout")).to_contain_text(f"x 30 y 40 · value {stored[40, 30]}")


def test_a_drag_changes_the_window_and_space_resets_it(page: Page) -> None:
    window = {"WindowCenter": 1500, "WindowWidth": 900}
    upload(page, builders.dicom(attributes=window))
    page.keyboard.press("1")
    before = painted(page)
    left, top, right, bottom = place_of(page, ".stage")
    page.mouse.move((left + right) / 2, (top + bottom) / 2)
    page.mouse.down()
    page.mouse.move((left + right) / 2 + 80, (top + bottom) / 2 - 40, steps=4)
    page.mouse.up()
    after = painted(page)
    text = page.locator(".readout").inner_text()
    center, width = (float(part) for part in text.split("C ")[1].split(" ·")[0].split(" W "))
    assert width > 900
    assert center > 1500
    dragged = {"WindowCenter": center, "WindowWidth": width}
    expected = shown_by_pydicom(builders.dataset(attributes=dragged))
    assert np.abs(after - expected).max() <= 1
    page.keyboard.press(" ")
    assert (painted(page) == before).all()


def test_a_window_can_be_written_down(page: Page) -> None:
    upload(page, builders.dicom(attributes={"WindowCenter": 1500, "WindowWidth": 900}))
    expect(page.get_by_label("Window centre")).to_have_value("")
    page.keyboard.press("1")
    expect(page.get_by_label("Window centre")).to_have_value("1500")
    page.get_by_label("Window centre").fill("1200")
    page.get_by_label("Window width").fill("400")
    page.get_by_label("Window width").press("Enter")
    written = builders.dataset(attributes={"WindowCenter": 1200, "WindowWidth": 400})
    assert np.abs(painted(page) - shown_by_pydicom(written)).max() <= 1
    page.get_by_label("Window width").fill("-3")
    page.get_by_label("Window width").press("Enter")
    expect(page.get_by_label("Window width")).to_have_value("400")


def test_a_window_drawn_meanwhile_leaves_what_is_being_written(page: Page) -> None:
    upload(page, builders.dicom(attributes={"WindowCenter": 1500, "WindowWidth": 900}))
    page.keyboard.press("1")
    expect(page.get_by_label("Window width")).to_have_value("900")
    page.get_by_label("Window width").evaluate(
        """(width) => {
          const center = document.querySelector("[data-role='center']");
          center.value = 1200;
          center.dispatchEvent(new Event("change"));
          width.value = 400;
          width.dispatchEvent(new Event("input"));
        }"""
    )
    settle(page)
    expect(page.get_by_label("Window centre")).to_have_value("1200")
    assert page.get_by_label("Window width").input_value() == "400"


def test_keys_invert_turn_flip_and_choose_windows(page: Page) -> None:
    upload(
        page, builders.dicom(attributes={"WindowCenter": [1500, 800], "WindowWidth": [900, 500]})
    )
    page.keyboard.press("1")
    before = painted(page).astype(int)
    page.keyboard.press("i")
    assert (painted(page) == 255 - before).all()
    page.keyboard.press("2")
    page.keyboard.press("i")
    second = builders.dataset(attributes={"WindowCenter": 800, "WindowWidth": 500})
    assert np.abs(painted(page) - shown_by_pydicom(second)).max() <= 1
    upright = place_of(page, "canvas.plain")
    page.keyboard.press("r")
    settle(page)
    turned = place_of(page, "canvas.plain")
    assert upright[2] - upright[0] < upright[3] - upright[1]
    assert turned[2] - turned[0] > turned[3] - turned[1]
    page.keyboard.press("l")
    page.keyboard.press("h")
    settle(page)
    left, _, right, _ = place_of(page, "canvas.plain")
    box = place_of(page, "g[data-finding='1'] .box-line")
    scale = (right - left) / 112
    assert (box[0], box[2]) == pytest.approx((right - 60 * scale, right - 20 * scale), abs=3)
    page.keyboard.press(" ")
    settle(page)
    assert place_of(page, "canvas.plain") == pytest.approx(upright, abs=0.1)


def test_keys_can_be_switched_off_and_are_listed(page: Page) -> None:
    upload(page)
    page.keyboard.press("1")
    before = painted(page)
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keys and mouse")
    expect(dialog).to_be_visible()
    dialog.get_by_label("Use single keys").uncheck()
    dialog.get_by_role("button", name="Close").click()
    page.keyboard.press("i")
    assert (painted(page) == before).all()


def test_boxes_stay_on_the_image_while_it_is_zoomed_and_panned(page: Page) -> None:
    upload(page)
    left, top, right, bottom = place_of(page, ".stage")
    at = (left + 0.4 * (right - left), top + 0.3 * (bottom - top))
    page.mouse.move(*at)
    before = place_of(page, ".plain")
    page.mouse.wheel(0, -300)
    settle(page)
    zoomed = place_of(page, ".plain")
    assert zoomed[2] - zoomed[0] > 1.1 * (before[2] - before[0])
    # The point under the pointer stays there.
    for n in (0, 1):
        share = (at[n] - before[n]) / (before[n + 2] - before[n])
        assert zoomed[n] + share * (zoomed[n + 2] - zoomed[n]) == pytest.approx(at[n], abs=1)
    page.keyboard.down("Shift")
    page.mouse.down()
    page.mouse.move(at[0] + 50, at[1] + 20, steps=3)
    page.mouse.up()
    page.keyboard.up("Shift")
    settle(page)
    left, top, right, _ = place_of(page, ".plain")
    assert (left, top) == pytest.approx((zoomed[0] + 50, zoomed[1] + 20), abs=1)
    scale = (right - left) / 112
    box = place_of(page, "g[data-finding='2'] .box-line")
    assert box == pytest.approx(
        (left + 25 * scale, top + 80 * scale, left + 70 * scale, top + 100 * scale), abs=3
    )


def test_with_the_hand_a_click_brings_a_place_to_the_middle(page: Page) -> None:
    upload(page)
    page.keyboard.press("+")
    page.get_by_role("button", name="Pan").click()
    left, top, right, bottom = place_of(page, ".stage")
    before = place_of(page, ".plain")
    away = (-60.0, 45.0)
    middle = ((left + right) / 2, (top + bottom) / 2)
    page.mouse.click(middle[0] + away[0], middle[1] + away[1])
    settle(page)
    after = place_of(page, ".plain")
    moved = [after[n] - before[n] for n in range(4)]
    assert moved == pytest.approx([-away[0], -away[1]] * 2, abs=1)


def test_many_small_turns_of_a_wheel_zoom_as_a_few_large_ones(page: Page) -> None:
    upload(page)
    page.mouse.move(400, 400)

    def zoom_by(turns: int, pixels: int) -> float:
        page.keyboard.press("=")
        for _ in range(turns):
            page.mouse.wheel(0, pixels)
        settle(page)
        left, _, right, _ = place_of(page, ".plain")
        return right - left

    few, many = zoom_by(3, -100), zoom_by(60, -5)
    assert many == pytest.approx(few, rel=0.02)
    assert zoom_by(1, 0) == pytest.approx(zoom_by(0, 0))
    assert zoom_by(1, -100_000) == pytest.approx(60 * zoom_by(0, 0), rel=0.02)


def test_on_a_phone_a_row_leads_to_its_box(make_page: Callable[..., Page]) -> None:
    page = make_page(width=390, height=844)
    upload(page)
    row = page.locator("tr[data-finding='1']")
    row.scroll_into_view_if_needed()
    row.click()
    expect(page.locator("g[data-finding='1'] .box-line")).to_be_in_viewport()


def test_one_to_one_shows_a_pixel_on_a_pixel(page: Page) -> None:
    upload(page)
    page.get_by_role("button", name="One image pixel on one screen pixel").click()
    settle(page)
    left, top, right, bottom = place_of(page, ".plain")
    assert (right - left, bottom - top) == pytest.approx((112, 160), abs=0.5)
    expect(page.locator(".readout")).to_contain_text("100 %")


def test_a_row_and_its_box_light_up_together(page: Page) -> None:
    upload(page)
    page.locator("tr[data-finding='2']").hover()
    expect(page.locator("g[data-finding='2']")).to_have_class("box box-firm linked")
    page.locator("g[data-finding='3']").focus()
    expect(page.locator("tr[data-finding='3']")).to_have_class("linked")
    page.locator("tr[data-finding='4']").press("Enter")
    settle(page)
    left, top, right, bottom = place_of(page, ".stage")
    box = place_of(page, "g[data-finding='4'] .box-line")
    assert ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2) == pytest.approx(
        ((left + right) / 2, (top + bottom) / 2), abs=2
    )


def test_classes_and_confidence_choose_what_is_marked(page: Page) -> None:
    upload(page)
    marked = page.locator("g[data-finding]:visible")
    page.get_by_role("checkbox", name="Osteophytes").uncheck()
    expect(marked).to_have_count(2)
    page.get_by_label("Confidence from").fill("0.25")
    expect(marked).to_have_count(1)
    page.get_by_role("checkbox", name="Osteophytes").check()
    expect(marked).to_have_count(3)


def test_plain_and_marked_lie_side_by_side(page: Page) -> None:
    upload(page)
    page.get_by_label("Plain beside marked").fill("40")
    clip = page.locator(".boxes").evaluate("e => getComputedStyle(e).clipPath")
    assert clip == "inset(0px 60% 0px 0px)"


def test_what_spoke_for_abnormal_is_a_layer_with_an_opacity(page: Page) -> None:
    upload(page)
    heat = page.locator("img.heat")
    expect(heat).to_be_hidden()
    page.get_by_label("Show in colour").check()
    expect(heat).to_be_visible()
    page.get_by_label("Opacity").fill("20")
    assert heat.evaluate("e => getComputedStyle(e).opacity") == "0.2"


@pytest.mark.parametrize(
    ("attributes", "said"),
    [({"PixelSpacing": [0.2, 0.2]}, "5 mm"),
     ({"ImagerPixelSpacing": [0.2, 0.2]}, "5 mm at the detector")],
)  # fmt: skip
def test_a_ruler_shows_millimetres(page: Page, attributes: dict[str, Any], said: str) -> None:
    cleared = {"PixelSpacing": None, "ImagerPixelSpacing": None}
    upload(page, builders.dicom(attributes=cleared | attributes))
    ruler = page.locator(".ruler")
    expect(ruler).to_have_text(said)
    left, _, right, _ = place_of(page, ".ruler")
    picture = place_of(page, ".plain")
    assert (right - left) * 112 * 0.2 / (picture[2] - picture[0]) == pytest.approx(5, abs=0.15)
    page.get_by_role("button", name="Measure").click()
    page.mouse.move(picture[0] + 20, picture[1] + 50)
    page.mouse.down()
    page.mouse.move(picture[0] + 120, picture[1] + 50)
    page.mouse.up()
    length = 100 * 112 * 0.2 / (picture[2] - picture[0])
    measured = page.locator(".measure text")
    expect(measured).to_contain_text(f"{length:.1f} mm")
    # The same without dragging.
    page.mouse.click(picture[0] + 20, picture[1] + 80)
    expect(measured).to_contain_text("0.0 mm")
    page.mouse.click(picture[0] + 120, picture[1] + 80)
    page.mouse.move(picture[0] + 60, picture[1] + 10)
    expect(measured).to_contain_text(f"{length:.1f} mm")


def test_without_spacing_there_is_no_ruler(page: Page) -> None:
    upload(page, builders.dicom(attributes={"PixelSpacing": None, "ImagerPixelSpacing": None}))
    expect(page.locator(".ruler")).to_be_hidden()
    expect(page.get_by_role("button", name="Measure")).to_have_count(0)


def test_the_answer_is_saved_as_json_by_its_schema(page: Page) -> None:
    upload(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="JSON").click()
    document = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert schema_errors(document) == []


def test_the_annotated_picture_is_saved_at_full_size(page: Page) -> None:
    upload(page, builders.dicom(builders.pixels(600, 400)))
    with page.expect_download() as download:
        page.get_by_role("button", name="Annotated PNG").click()
    assert download.value.suggested_filename == "spinexr-annotated.png"
    picture = Image.open(BytesIO(Path(download.value.path()).read_bytes()))
    assert picture.width == 400
    assert picture.height > 600
    assert picture.convert("RGB").getpixel((20, 50)) == (230, 159, 0)


@pytest.mark.parametrize(
    ("button", "name", "modality"),
    [("DICOM report", "spinexr-report.dcm", "SR"),
     ("DICOM boxes", "spinexr-presentation.dcm", "PR"),
     ("DICOM picture", "spinexr-picture.dcm", "OT")],
)  # fmt: skip
def test_each_dicom_object_is_saved(page: Page, button: str, name: str, modality: str) -> None:
    upload(page)
    with page.expect_download() as download:
        page.get_by_role("button", name=button).click()
    assert download.value.suggested_filename == name
    assert pydicom.dcmread(download.value.path()).Modality == modality


def test_a_file_that_gets_no_dicom_object_is_told_why(page: Page) -> None:
    upload(page, builders.dicom(attributes={"StudyInstanceUID": None}))
    page.get_by_role("button", name="DICOM report").click()
    told = page.get_by_text("StudyInstanceUID (0020,000D)")
    expect(told).to_be_visible()
    expect(told).to_be_in_viewport()


def test_another_part_of_the_body_is_analysed_when_the_reader_says_so(page: Page) -> None:
    upload(page, builders.dicom(attributes={"BodyPartExamined": "CHEST"}))
    expect(page.locator("h1")).to_have_text("This is not a spine radiograph")
    page.get_by_role("button", name="Analyse anyway").click()
    expect(page.locator("h1")).to_have_text(HEADLINE)
    page.keyboard.press("1")  # asks for the stored values, of such a file too
    assert painted(page).shape == (160, 112)


def test_a_tap_inside_a_box_tells_which_it_is(make_page: Callable[..., Page]) -> None:
    page = make_page(width=390, height=844, has_touch=True)
    upload(page)
    page.locator(".stage").scroll_into_view_if_needed()
    left, top, right, bottom = place_of(page, "g[data-finding='2'] .box-line")
    page.touchscreen.tap((left + right) / 2, (top + bottom) / 2)
    expect(page.locator("g[data-finding='2']")).to_have_class("box box-firm linked")
    expect(page.locator("tr[data-finding='2']")).to_be_focused()


def test_what_the_slider_hides_is_printed(page: Page) -> None:
    upload(page)
    page.locator("[data-role='swipe']").fill("0")
    assert clip_of_boxes(page) == "inset(0px 100% 0px 0px)"
    page.emulate_media(media="print")
    assert clip_of_boxes(page) == "none"


def clip_of_boxes(page: Page) -> str:
    clip: str = page.evaluate("() => getComputedStyle(document.querySelector('.boxes')).clipPath")
    return clip


@pytest.mark.parametrize("format", ["A4", "Letter"])
def test_a_report_is_one_page(page: Page, format: str) -> None:
    """With as much in it as a header and the demo weights have to say."""
    upload(page, (ROOT / "samples" / "lumbar-implant.dcm").read_bytes())
    trained_on = page.get_by_role("row", name="Trained on").locator("td")
    trained_on.evaluate("cell => { cell.textContent = 'phantoms: 640 × 424 pixels; '.repeat(6) }")
    document = page.pdf(
        format=format,
        prefer_css_page_size=False,
        margin={"top": "10mm", "right": "10mm", "bottom": "10mm", "left": "10mm"},
    )
    assert document.count(b"/Type /Page\n") == 1


def test_a_print_says_how_the_image_was_looked_at(page: Page) -> None:
    upload(page)
    page.pdf()
    expect(page.locator("[data-role='printed']")).not_to_contain_text("inverted")
    page.keyboard.press("i")
    page.keyboard.press("1")
    painted(page)
    page.pdf()
    expect(page.locator("[data-role='printed']")).to_have_text(
        re.compile(r" · C \d.* W \d.* · inverted$")
    )


def test_the_first_touch_moves_nothing(page: Page) -> None:
    upload(page)
    before = page.locator(".stage").bounding_box()
    page.keyboard.press("1")
    painted(page)
    assert page.locator(".stage").bounding_box() == before


def test_a_saved_picture_speaks_the_page_s_language(make_page: Callable[..., Page]) -> None:
    page = make_page(locale="vi")
    page.evaluate(
        "() => { window.written = []; const fill = CanvasRenderingContext2D.prototype.fillText;"
        "CanvasRenderingContext2D.prototype.fillText = function (text, ...rest) {"
        " window.written.push(text); return fill.call(this, text, ...rest); }; }"
    )
    upload(page)
    with page.expect_download():
        page.locator("[data-action='save-png']").click()
    written = " ".join(page.evaluate("() => window.written"))
    assert "Gai xương" in written
    assert "Osteophytes" not in written
    for warning in (fake_bundle().summary(()).caveat, DISCLAIMER):
        assert warning is not None
        message = translations.read("vi").get(warning)
        assert message is not None
        assert str(message.string) in written


def test_lines_are_printed_as_wide_as_ever_after_zooming_and_turning(page: Page) -> None:
    upload(page)
    page.locator("tr[data-finding='2']").click()
    page.keyboard.press("r")
    page.emulate_media(media="print")
    settle(page)
    style = page.evaluate(
        """() => {
          const of = (selector) => getComputedStyle(document.querySelector(selector));
          const line = of("g[data-finding='1'] .box-line");
          return [line.strokeWidth, line.vectorEffect, of(".box-number").transform];
        }"""
    )
    assert style == ["2px", "non-scaling-stroke", "none"]


def test_a_normal_image_is_shown_with_what_spoke_neither_for_nor_against(
    page: Page, engine: FakeEngine
) -> None:
    engine.logits = dict.fromkeys(engine.logits, NORMAL)
    upload(page)
    expect(page.locator("h1")).to_have_text("Normal, 0.119 (cut-off 0.449).")
    expect(page.get_by_text("Show in colour")).to_have_count(0)


def test_near_the_cut_off_it_says_so(page: Page, engine: FakeEngine) -> None:
    engine.logits = dict.fromkeys(engine.logits, -0.2)
    upload(page)
    expect(page.get_by_text("Near the cut-off: read closely.")).to_be_visible()


def test_a_refused_file_says_why_and_keeps_the_way_back(page: Page) -> None:
    upload(page, builders.dicom(attributes={"Modality": "CT"}))
    expect(page.get_by_role("alert")).to_contain_text("CT")
    page.go_back()
    upload(page)
    expect(page.locator("h1")).to_have_text(HEADLINE)


def test_the_way_back_to_the_form_keeps_the_result(page: Page) -> None:
    upload(page)
    page.get_by_role("link", name="Analyse another radiograph").click()
    expect(page.locator("#upload")).to_be_visible()
    page.go_back()
    expect(page.locator("h1")).to_have_text(HEADLINE)
    page.get_by_role("link", name="SpineXR", exact=True).click()
    expect(page.locator("#upload")).to_be_visible()


def test_a_sample_of_the_page_of_samples_that_fails_says_why(page: Page) -> None:
    page.goto(f"{page.url}samples")
    page.route("**/samples/*", lambda route: route.abort())
    page.get_by_role("button", name="lateral: disc space narrowing").click()
    expect(page.get_by_role("alert")).to_contain_text("The server did not answer.")


def test_the_page_works_where_the_browser_keeps_nothing(make_page: Callable[..., Page]) -> None:
    page = make_page()
    page.add_init_script(
        """Object.defineProperty(window, "localStorage", {
          get() { throw new DOMException("denied", "SecurityError"); } })"""
    )
    page.reload()
    page.get_by_role("button", name="Light theme").click()
    upload(page)
    page.keyboard.press("1")
    assert painted(page).shape == (160, 112)


def test_the_theme_is_dark_until_another_is_chosen(page: Page) -> None:
    ground = "() => getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(ground) == "rgb(16, 21, 28)"
    page.get_by_role("button", name="Light theme").click()
    page.reload()
    assert page.evaluate(ground) == "rgb(255, 255, 255)"


def test_the_first_load_is_small(page: Page) -> None:
    sizes = page.evaluate(
        """() => performance.getEntriesByType("resource")
             .filter((e) => !e.name.includes("/samples/"))
             .map((e) => e.encodedBodySize)"""
    )
    document = page.evaluate("() => performance.getEntriesByType('navigation')[0].encodedBodySize")
    assert document + sum(sizes) <= 200_000
