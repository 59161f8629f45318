from __future__ import annotations

import csv
import io
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Dialog, Page, Request, expect

from tests import builders
from tests.analyses import schema_errors
from tests.browser.acts import drop, painted
from tests.browser.test_accessibility import violations
from tests.fakes import NORMAL, FakeEngine

STUDIES = ("1.2.3.1", "1.2.3.2")


def files(count: int) -> dict[str, bytes]:
    """Radiographs of two studies in turn, the later instances first."""
    return {
        f"Doe^Jane-{n}.dcm": builders.dicom(
            builders.pixels(160 + n, 112),
            attributes={"StudyInstanceUID": STUDIES[n % 2], "InstanceNumber": 100 - n},
        )
        for n in range(count)
    }


def finished(page: Page, text: str) -> None:
    expect(page.locator(".worklist-summary")).to_contain_text(text, timeout=30_000)


def labels(page: Page) -> list[str]:
    return [t.split(" · ")[0] for t in page.locator("[data-role='label']").all_inner_texts()]


def download(page: Page, name: str) -> str:
    with page.expect_download() as found:
        page.get_by_role("button", name=name, exact=True).first.click()
    return Path(found.value.path()).read_text(encoding="utf-8-sig")


def test_ten_files_with_a_bad_one_two_requests_at_a_time(
    page: Page, go_on: threading.Event
) -> None:
    sent: list[Request] = []
    page.on("request", lambda r: sent.append(r) if r.url.endswith("/upload") else None)
    drop(page, files(9) | {"bad.dcm": builders.dicom(attributes={"Modality": "CT"})})
    expect(page.locator(".item[data-state='running']")).to_have_count(2)
    expect(page.locator(".item[data-state='waiting']")).to_have_count(8)
    assert len(sent) == 2
    go_on.set()
    finished(page, "10 of 10 files done: 9 abnormal, 1 refused or failed.")
    assert len(sent) == 10
    assert violations(page) == []
    refused = page.locator(".item[data-state='failed']")
    expect(refused).to_have_count(1)
    refused.locator(".item-open").click()
    expect(page.locator(".worklist-shown [role='alert']")).to_contain_text("CT")
    assert "Doe" not in page.locator("main").inner_text()


def test_a_file_is_looked_at_in_full_depth_and_the_keys_go_up_and_down(page: Page) -> None:
    drop(page, files(3))
    finished(page, "3 of 3")
    page.get_by_label("Order").select_option("as dropped")
    page.locator(".item-open").nth(0).click()
    assert painted_size(page) == (160, 112)
    page.locator(".item-open").nth(0).press("ArrowDown")
    expect(page.locator(".item-open").nth(1)).to_be_focused()
    assert painted_size(page) == (161, 112)
    page.keyboard.press("ArrowUp")
    expect(page.locator(".item-open").nth(0)).to_have_attribute("aria-current", "true")
    assert violations(page) == []


def painted_size(page: Page) -> tuple[int, ...]:
    page.keyboard.press("1")
    return painted(page).shape


def test_the_report_of_one_file_of_a_list_is_one_page_without_the_list(page: Page) -> None:
    drop(page, {f"{n}": builders.dicom(builders.pixels(1200, 800 + n)) for n in range(6)})
    finished(page, "6 of 6")
    page.locator(".item-open").first.click()
    assert page.pdf(format="A4", prefer_css_page_size=False).count(b"/Type /Page\n") == 1
    page.emulate_media(media="print")
    for part in (".worklist-items", ".worklist-summary", ".worklist > h1"):
        expect(page.locator(part)).to_be_hidden()
    expect(page.locator(".result h1")).to_be_visible()


def test_a_phone_goes_from_result_to_result_without_the_list(
    make_page: Callable[..., Page],
) -> None:
    page = make_page(width=390, height=844)
    drop(page, files(3))
    finished(page, "3 of 3")
    page.get_by_label("Order").select_option("as dropped")
    steps, shown = page.locator(".steps"), page.locator(".item-open[aria-current='true']")
    expect(steps).to_be_hidden()
    page.locator(".item-open").first.click()
    expect(steps).to_be_in_viewport()
    expect(steps).to_contain_text("1 of 3")
    step = page.get_by_role("button", name="Next")
    for number in (2, 3):
        step.click()
        expect(steps).to_contain_text(f"{number} of 3")
        expect(shown).to_contain_text(f"File {number}")
    expect(step).to_have_attribute("aria-disabled", "true")
    expect(step).to_be_focused()
    page.get_by_role("button", name="Previous").click()
    expect(shown).to_contain_text("File 2")
    assert violations(page) == []
    page.get_by_role("button", name="To the list").click()
    expect(shown).to_be_focused()
    expect(shown).to_be_in_viewport()


def test_abnormal_ones_come_first_and_studies_together(page: Page, engine: FakeEngine) -> None:
    drop(page, files(3))
    finished(page, "3 of 3")
    engine.logits = dict.fromkeys(engine.logits, NORMAL)
    page.set_input_files(
        "[data-role='add']", {"name": "x.dcm", "mimeType": "", "buffer": builders.dicom()}
    )
    finished(page, "4 of 4 files done: 3 abnormal")
    assert labels(page)[:3] == ["File 3", "File 1", "File 2"]
    expect(page.locator(".item-study")).to_have_count(3)
    order = page.get_by_label("Order")
    order.select_option("abnormal first")
    assert labels(page) == ["File 1", "File 2", "File 3", "File 4"]


def test_the_list_is_saved_without_names_unless_asked_for(page: Page) -> None:
    drop(page, files(2) | {"bad.dcm": b"nothing"})
    finished(page, "3 of 3")
    rows = list(csv.DictReader(io.StringIO(download(page, "CSV"))))
    assert [row["decision"] for row in rows] == ["abnormal", "abnormal", ""]
    assert [row["study"] for row in rows] == ["1", "2", ""]
    assert rows[0]["classes"] == "Osteophytes; Disc space narrowing; Surgical implant"
    assert rows[2]["error"] == "not_dicom"
    assert "name" not in rows[0]
    assert all(uid not in download(page, "CSV") for uid in STUDIES)
    rows_of_the_list = page.locator(".item [data-role='label']")
    expect(rows_of_the_list.first).not_to_contain_text("Doe")
    page.get_by_label("with file names").check()
    expect(rows_of_the_list.first).to_contain_text("File 1 · Doe^Jane-0.dcm")
    rows = list(csv.DictReader(io.StringIO(download(page, "CSV"))))
    assert rows[1]["name"] == "Doe^Jane-1.dcm"
    assert rows[2]["message"] == "This is not a DICOM file"
    page.get_by_label("with file names").uncheck()
    expect(rows_of_the_list.first).not_to_contain_text("Doe")
    listed = json.loads(download(page, "JSON"))
    assert schema_errors(listed[0]["analysis"]) == []
    assert listed[2]["error"]["code"] == "not_dicom"


def test_what_is_saved_of_a_result_has_its_number_in_the_list(page: Page) -> None:
    drop(page, files(2))
    finished(page, "2 of 2")
    page.locator(".item-open").nth(1).click()
    with page.expect_download() as saved:
        page.locator(".result").get_by_role("button", name="JSON").click()
    assert saved.value.suggested_filename == "spinexr-2-result.json"
    page.pdf()
    expect(page.locator(".result [data-role='printed']")).to_contain_text("File 2 · ")


def test_a_busy_server_is_asked_again_and_a_lost_one_by_hand(page: Page) -> None:
    page.route("**/upload", lambda route: route.abort())
    drop(page, files(2))
    finished(page, "2 refused or failed")
    page.unroute("**/upload")
    for _ in range(2):
        page.get_by_role("button", name="Try again", exact=True).first.click()
    finished(page, "2 of 2 files done: 2 abnormal, 0 refused or failed.")
    turned_away = 0

    def busy_once(route, request) -> None:  # type: ignore[no-untyped-def]
        nonlocal turned_away
        turned_away += 1
        if turned_away == 1:
            route.fulfill(status=503, headers={"Retry-After": "1"}, body="<main></main>")
        else:
            route.continue_()

    page.route("**/upload", busy_once)
    page.set_input_files(
        "[data-role='add']", {"name": "x.dcm", "mimeType": "", "buffer": builders.dicom()}
    )
    finished(page, "3 of 3 files done: 3 abnormal, 0 refused or failed.")
    assert turned_away == 2


def test_what_is_no_radiograph_is_left_out_and_named(page: Page) -> None:
    drop(page, files(2) | {"index.html": b"<html>", "notes.txt": b"x"})
    finished(page, "2 of 2")
    expect(page.locator("[data-role='left-out']")).to_contain_text("Left out: 2.")


def test_another_part_of_the_body_in_a_list_is_analysed_when_the_reader_says_so(page: Page) -> None:
    drop(page, files(1) | {"b.dcm": builders.dicom(attributes={"BodyPartExamined": "CHEST"})})
    finished(page, "2 of 2 files done: 1 abnormal, 1 refused or failed.")
    page.get_by_role("button", name="Analyse anyway").click()
    finished(page, "2 of 2 files done: 2 abnormal, 0 refused or failed.")


def test_a_folder_is_taken_with_all_that_is_in_it(page: Page, tmp_path: Path) -> None:
    for n, data in enumerate(files(3).values()):
        folder = tmp_path / "study" / f"series{n}"
        folder.mkdir(parents=True)
        (folder / "image.dcm").write_bytes(data)
    page.set_input_files("[data-role='folder']", tmp_path / "study")
    finished(page, "3 of 3 files done: 3 abnormal")


@pytest.mark.parametrize("width", [390, 1440])
def test_the_worklist_fits_the_screen(make_page: Callable[..., Page], width: int) -> None:
    page = make_page(width=width, height=844)
    drop(page, files(4))
    finished(page, "4 of 4")
    page.locator(".item-open").nth(0).click()
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    assert violations(page) == []


def test_leaving_a_list_is_asked_about(page: Page) -> None:
    drop(page, files(2))
    finished(page, "2 of 2")
    asked: list[str] = []

    def stay(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    page.on("dialog", stay)
    page.locator("h1").click()  # a browser asks only where somebody did something
    page.get_by_role("link", name="Tiếng Việt").click(no_wait_after=True)
    expect(page.locator(".worklist")).to_be_visible()
    assert asked == ["beforeunload"]
