from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from spinexr.domain import ActivationMap, Analysis, Box, Finding
from spinexr.reporting import overlay
from spinexr.reporting.palette import CLASS_COLOURS, class_colour, text_colour
from tests import builders
from tests.analyses import analysis

Array = npt.NDArray[Any]


def finding(
    box: tuple[float, float, float, float], index: int = 0, *, tentative: bool = False
) -> Finding:
    return Finding("Osteophytes", index, 0.9 if not tentative else 0.2, Box(*box), tentative)


def with_findings(*findings: Finding, rows: int = 600, columns: int = 400) -> Analysis:
    base = analysis(builders.pixels(rows, columns))
    return replace(base, prediction=replace(base.prediction, findings=findings))


def drawn(result: Analysis) -> Array:
    return np.asarray(overlay.draw(result)).astype(int)


def near(picture: Array, colour: tuple[int, int, int], tolerance: int = 0) -> npt.NDArray[np.bool_]:
    close: npt.NDArray[np.bool_] = (np.abs(picture - np.array(colour)) <= tolerance).all(axis=-1)
    return close


def placed_labels(
    result: Analysis, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[int, int, int, int]]:
    """Where the labels of the drawn result are."""
    placed: list[tuple[int, int, int, int]] = []
    original = overlay._draw_label

    def spy(canvas: Any, f: Finding, scale: float, style: Any, size: Any, taken: Any) -> None:
        original(canvas, f, scale, style, size, taken)
        placed[:] = taken

    monkeypatch.setattr(overlay, "_draw_label", spy)
    overlay.draw(result)
    return placed


def test_without_findings_the_picture_is_the_display_and_a_legend_below() -> None:
    result = with_findings()
    picture = drawn(result)
    expected = np.rint(result.radiograph.display * 255).astype(int)
    for channel in range(3):
        np.testing.assert_array_equal(picture[:600, :, channel], expected)
    assert picture.shape[0] > 600


def test_a_box_is_drawn_where_it_is_in_its_class_colour() -> None:
    picture = drawn(with_findings(finding((100, 200, 300, 400), index=1)))
    line = near(picture[:600], class_colour(1))
    rows = np.nonzero(line[:, 150:250])[0]
    # The label lies above the box; the edges of the box itself are where they belong.
    assert {200, 400} <= {int(r) for r in rows}
    assert line[300, 99:102].any()
    assert line[300, 299:302].any()
    assert not line[210:390, 110:290].any()


def test_heat_colours_what_spoke_for_abnormal_and_nothing_else() -> None:
    """The fake engine's map rises from −1 at the upper left to 1 at the lower right."""
    result = analysis(builders.pixels(1400, 800))
    heat = overlay.heat(result)
    assert heat is not None
    picture = np.asarray(Image.open(BytesIO(heat.data))).astype(int)
    assert picture.shape == (160, 91, 4) == (heat.height, heat.width, 4)
    opacity = picture[..., 3]
    assert opacity[-15:, -15:].mean() > 180
    assert opacity[:40, :30].max() == 0
    assert (picture[..., :3] == [230, 120, 0]).all()


def test_where_nothing_spoke_for_abnormal_there_is_no_heat() -> None:
    base = analysis()
    for values in (None, ActivationMap(((-1.0, -2.0),))):
        result = replace(base, prediction=replace(base.prediction, activation=values))
        assert overlay.heat(result) is None


def test_colours_are_red_first() -> None:
    picture = drawn(with_findings(finding((100, 200, 300, 400), index=0)))
    assert picture[300, 100].tolist() == [230, 159, 0]


def test_tentative_boxes_are_dashed_and_firm_ones_are_not() -> None:
    firm = drawn(with_findings(finding((100, 200, 300, 500))))
    dashed = drawn(with_findings(finding((100, 200, 300, 500), tentative=True)))
    side = slice(230, 480)
    assert near(firm, class_colour(0))[side, 100].all()
    share = near(dashed, class_colour(0))[side, 100].mean()
    assert 0.4 < share < 0.8


@pytest.mark.parametrize(
    "box", [(0, 0, 400, 600), (0, 0, 20, 20), (380, 580, 400, 600), (390, 0, 400, 10)]
)
def test_labels_stay_inside_the_image(
    box: tuple[float, float, float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = placed_labels(with_findings(finding(box)), monkeypatch)
    ((x1, y1, x2, y2),) = labels
    assert 0 <= x1 < x2 < 400
    assert 0 <= y1 < y2 < 600


def test_labels_do_not_cover_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    same = [finding((100, 200, 300, 400), index=n % 7) for n in range(30)]
    labels = placed_labels(with_findings(*same), monkeypatch)
    assert len(labels) == 30
    painted = np.zeros((600, 400), int)
    for x1, y1, x2, y2 in labels:
        painted[y1 : y2 + 1, x1 : x2 + 1] += 1  # Pillow paints both corners
    assert painted.max() == 1


@pytest.mark.parametrize(("rows", "columns"), [(64, 64), (600, 64), (64, 400), (64, 110)])
def test_a_picture_too_small_for_its_labels_does_without_some(
    rows: int, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = [finding((2, 2, 12, 12), index=n % 7) for n in range(60)]
    labels = placed_labels(with_findings(*same, rows=rows, columns=columns), monkeypatch)
    assert len(labels) < 60
    painted = np.zeros((rows, columns), int)
    for x1, y1, x2, y2 in labels:
        assert 0 <= x1 < x2 < columns
        assert 0 <= y1 < y2 < rows
        painted[y1 : y2 + 1, x1 : x2 + 1] += 1
    assert painted.max() <= 1
    # Such as "Osteophytes 0.90" are wider than 64 pixels.
    assert bool(labels) is (columns > 64)


def test_lines_and_text_grow_with_the_image() -> None:
    small = overlay._Style.for_size(300, 400)
    large = overlay._Style.for_size(3000, 4000)
    assert large.line > small.line
    assert large.pad > small.pad


def test_png_is_full_size_and_lossless() -> None:
    result = with_findings(finding((100, 200, 300, 400)))
    image = overlay.as_png(result)
    decoded = np.asarray(Image.open(BytesIO(image.data)))
    np.testing.assert_array_equal(decoded, drawn(result))
    assert (image.scale, image.media_type) == (1.0, "image/png")


def test_a_full_size_radiograph_fits_the_budget_as_jpeg() -> None:
    result = with_findings(finding((300, 500, 900, 1100)), rows=2455, columns=1606)
    image = overlay.as_jpeg(result)
    assert len(image.data) <= 300_000
    decoded = Image.open(BytesIO(image.data))
    assert decoded.size == (image.width, image.height)


def test_a_picture_is_in_colour_only_where_something_on_it_is() -> None:
    for findings, mode in (((), "L"), ((finding((10, 20, 90, 80)),), "RGB")):
        result = with_findings(*findings)
        for image in (overlay.as_jpeg(result), overlay.as_png(result)):
            assert Image.open(BytesIO(image.data)).mode == mode
        assert overlay.draw(result).mode == "RGB"


def test_no_more_labels_are_drawn_than_leave_the_radiograph_visible(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    many = [finding((200, 300, 260, 360), index=n % 7) for n in range(120)]
    labels = placed_labels(with_findings(*many, rows=2400, columns=1600), monkeypatch)
    assert len(labels) == 50


def test_halved_pictures_keep_exact_coordinates() -> None:
    # Noise compresses badly, so that quality alone does not reach the budget.
    noise = np.random.default_rng(0).integers(0, 4096, (800, 600)).astype(np.uint16)
    base = analysis(noise)
    result = replace(
        base,
        prediction=replace(base.prediction, findings=(finding((100, 200, 500, 600)),)),
    )
    image = overlay.as_jpeg(result, budget_bytes=60_000)
    assert image.scale < 1
    assert len(image.data) <= 60_000
    picture = np.asarray(Image.open(BytesIO(image.data))).astype(int)
    x, y = round(100 * image.scale), round(400 * image.scale)
    assert near(picture[y : y + 1, max(0, x - 1) : x + 2], class_colour(0), tolerance=60).any()


def test_a_normal_result_names_no_class_and_has_the_disclaimer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts: list[str] = []
    original = overlay._wrap

    def spy(canvas: Any, text: str, style: Any, width: int) -> list[str]:
        texts.append(text)
        return original(canvas, text, style, width)

    monkeypatch.setattr(overlay, "_wrap", spy)
    overlay.draw(analysis(abnormal=False))
    assert texts[0].startswith("Normal: ")
    assert texts[-1] == "Research software, never a diagnosis."
    assert not any("Osteophytes" in t for t in texts)


def test_class_colours_differ_and_their_text_is_readable() -> None:
    assert len(set(CLASS_COLOURS)) == 7
    for colour in CLASS_COLOURS:
        assert text_colour(colour) in ((0, 0, 0), (255, 255, 255))
    assert text_colour((240, 228, 66)) == (0, 0, 0)
    assert text_colour((0, 0, 128)) == (255, 255, 255)
