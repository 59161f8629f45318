"""The annotated image: the radiograph as displayed, boxes, labels and a legend below.

The picture's origin is the radiograph's, so box coordinates times `scale` are picture coordinates;
the legend only adds rows at the bottom.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from spinexr.domain import Analysis, Finding
from spinexr.reporting.palette import RGB, class_colour, text_colour

JPEG_BUDGET_BYTES = 300_000
# Qualities, and about what share of the bytes at the best one a radiograph has left at each.
_JPEG_QUALITIES = {90: 1.0, 80: 0.64, 70: 0.5, 60: 0.41}
_LOWEST_QUALITY = 60
_MOST_REDUCED = 16
_LIKELY_PIXELS = 1_500_000  # beyond, noise fills the budget

_MOST_LABELS = 50  # more would hide the radiograph; the table beside it lists all findings

_HEAT_SIDE = 160  # pixels of the longer side; a browser smoothes them further
_HEAT_COLOUR: RGB = (230, 120, 0)

_BACKGROUND: RGB = (16, 18, 22)
_FOREGROUND: RGB = (235, 238, 242)
_Rect = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """An encoded picture. Box coordinates in stored pixels × `scale` are its coordinates."""

    data: bytes
    media_type: str
    width: int
    height: int
    scale: float


def as_png(analysis: Analysis) -> AnnotatedImage:
    """The annotated image at full size, without loss."""
    picture = _draw(analysis, _shown(analysis), 1)
    stream = BytesIO()
    picture.save(stream, "PNG", compress_level=3)
    return AnnotatedImage(stream.getvalue(), "image/png", picture.width, picture.height, 1.0)


def as_jpeg(
    analysis: Analysis, *, budget_bytes: int = JPEG_BUDGET_BYTES, plain: bool = False
) -> AnnotatedImage:
    """The annotated image within a budget: as large as fits, then as good as fits.

    Encoding costs time, so the first try is of the size that radiographs end at, larger ones are
    tried only where there is room for them, and qualities only where they are likely to fit.

    Args:
        plain: the radiograph alone, for a page that draws boxes over it.
    """
    shown = _shown(analysis)
    reduction = 1
    while shown.width * shown.height / reduction**2 > _LIKELY_PIXELS:
        reduction *= 2
    picture = _reduced if plain else partial(_draw, analysis)
    best = _fitted(picture, shown, reduction, budget_bytes)
    while best is None:
        reduction *= 2
        best = _fitted(picture, shown, reduction, budget_bytes)
    while reduction > 1:
        # With twice the side come about four times the bytes.
        expected = 4 * best.at_best_quality
        if expected * _JPEG_QUALITIES[_LOWEST_QUALITY] > budget_bytes:
            break
        reduction //= 2
        larger = _fitted(picture, shown, reduction, budget_bytes, expected)
        if larger is None:
            break
        best = larger
    return best.image


@dataclass(frozen=True, slots=True)
class _Fitted:
    image: AnnotatedImage
    at_best_quality: float  # bytes that the best quality would have, about


def _fitted(
    draw: Callable[[Image.Image, int], Image.Image],
    shown: Image.Image,
    reduction: int,
    budget_bytes: int,
    expected: float = 0.0,
) -> _Fitted | None:
    """The picture in the best quality within the budget; the smallest one in any case.

    Args:
        draw: from the radiograph and the reduction, the picture to encode.
        expected: bytes at the best quality, as far as is known.
    """
    picture = draw(shown, reduction)
    for quality, share in _JPEG_QUALITIES.items():
        lowest = quality == _LOWEST_QUALITY
        if expected * share > budget_bytes and not lowest:
            continue
        stream = BytesIO()
        picture.save(stream, "JPEG", quality=quality, subsampling=0)
        data = stream.getvalue()
        expected = len(data) / share
        if len(data) <= budget_bytes or (lowest and reduction >= _MOST_REDUCED):
            image = AnnotatedImage(data, "image/jpeg", *picture.size, 1 / reduction)
            return _Fitted(image, expected)
    return None


def heat(analysis: Analysis) -> AnnotatedImage | None:
    """What spoke for "abnormal", a colour of varying opacity to lay over the radiograph.

    None where nothing did. The class activation map is coarse: a cell is a seventh of the image's
    side in the standard profile, and it is drawn smoothed.
    """
    found = analysis.prediction.activation
    values = np.array(found.values, np.float32).clip(0) if found is not None else np.zeros((1, 1))
    if values.max() <= 0:
        return None
    radiograph = analysis.radiograph
    scale = min(1.0, _HEAT_SIDE / max(radiograph.rows, radiograph.columns))
    size = (max(1, round(radiograph.columns * scale)), max(1, round(radiograph.rows * scale)))
    share = Image.fromarray(np.float32(values / values.max())).resize(
        size, Image.Resampling.BICUBIC
    )
    picture = Image.new("RGBA", size, (*_HEAT_COLOUR, 0))
    picture.putalpha(Image.fromarray(np.rint(np.asarray(share).clip(0, 1) * 255).astype(np.uint8)))
    stream = BytesIO()
    picture.save(stream, "PNG")
    return AnnotatedImage(stream.getvalue(), "image/png", *size, scale)


def draw(analysis: Analysis, *, reduction: int = 1) -> Image.Image:
    """RGB picture of the radiograph with its boxes, and the legend below it.

    Args:
        reduction: so many pixels, in each direction, become one.
    """
    return _draw(analysis, _shown(analysis), reduction).convert("RGB")


def _reduced(shown: Image.Image, reduction: int) -> Image.Image:
    return shown.reduce(reduction) if reduction > 1 else shown


def _draw(analysis: Analysis, shown: Image.Image, reduction: int) -> Image.Image:
    """As `draw`, of the radiograph as shown; grey where nothing on it has a colour, which takes
    half the time to encode."""
    shown = _reduced(shown, reduction)
    scale = 1 / reduction
    style = _Style.for_size(*shown.size)
    legend = _legend(analysis, style, shown.width)
    picture = Image.new("L", (shown.width, shown.height + legend.height))
    picture.paste(shown)
    findings = analysis.prediction.findings or ()
    if findings:
        picture = picture.convert("RGB")
    lines = _Lines(picture, style)
    # The most confident last, so that they lie on top.
    for finding in reversed(findings):
        lines.draw(finding, scale)
    canvas = ImageDraw.Draw(picture)
    taken: list[_Rect] = []
    for finding in findings[:_MOST_LABELS]:
        _draw_label(canvas, finding, scale, style, shown.size, taken)
    picture.paste(_drawn(legend, shown.width, style), (0, shown.height))
    return picture


def _shown(analysis: Analysis) -> Image.Image:
    """The radiograph as a reader sees it, 8 bits."""
    radiograph = analysis.radiograph
    return Image.fromarray(radiograph.through(np.rint(radiograph.levels * 255.0).astype(np.uint8)))


@dataclass(frozen=True, slots=True)
class _Style:
    line: int
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont
    pad: int

    @classmethod
    def for_size(cls, width: int, height: int) -> _Style:
        """Lines and text that keep their share of the picture, legible on small ones."""
        side = (width * height) ** 0.5
        text = max(11.0, side / 75)
        return cls(
            line=max(2, round(side / 500)),
            font=ImageFont.load_default(size=text),
            pad=max(2, round(text / 4)),
        )


class _Lines:
    """Draws boxes, with a dark halo that keeps their lines visible on bone."""

    def __init__(self, picture: Image.Image, style: _Style) -> None:
        self._picture = picture
        self._line = style.line
        self._halo = style.line + 2
        self._dashes: dict[RGB, tuple[Image.Image, Image.Image]] = {}

    def draw(self, finding: Finding, scale: float) -> None:
        """The box of a finding: dashed where it is tentative."""
        box, colour = finding.box, class_colour(finding.class_index)
        x1, y1, x2, y2 = (round(v * scale) for v in (box.x1, box.y1, box.x2, box.y2))
        draw = self._dashed if finding.tentative else self._solid
        draw((x1, y1, x2, y2), colour)

    def _solid(self, corners: _Rect, colour: RGB) -> None:
        x1, y1, x2, y2 = corners
        canvas = ImageDraw.Draw(self._picture)
        for width, ink in ((self._halo, (0, 0, 0)), (self._line, colour)):
            before = width // 2
            after = width - 1 - before
            outer = (x1 - before, y1 - before, x2 + after, y2 + after)
            canvas.rectangle(outer, outline=ink, width=width)

    def _dashed(self, corners: _Rect, colour: RGB) -> None:
        x1, y1, x2, y2 = corners
        before = self._halo // 2
        across, down = self._strips(colour)
        for y in (y1, y2):
            strip = across.crop((0, 0, x2 - x1 + 1, self._halo))
            self._picture.paste(strip, (x1, y - before), strip)
        for x in (x1, x2):
            strip = down.crop((0, 0, self._halo, y2 - y1 + 1))
            self._picture.paste(strip, (x - before, y1), strip)

    def _strips(self, colour: RGB) -> tuple[Image.Image, Image.Image]:
        """Dashed lines, one across and one down, longer than any box: a line is pasted from them
        faster than its dashes are drawn. Dashes are 6 widths long, gaps two thirds of it."""
        if colour not in self._dashes:
            length, dash = max(self._picture.size) + 1, 6 * self._line
            across = Image.new("RGBA", (length, self._halo), (0, 0, 0, 0))
            canvas = ImageDraw.Draw(across)
            for start in range(0, length, dash * 5 // 3):
                end = start + dash - 1
                canvas.rectangle((start, 0, end, self._halo), fill=(0, 0, 0, 255))
                canvas.rectangle((start, 1, end, self._line), fill=(*colour, 255))
            self._dashes[colour] = across, across.transpose(Image.Transpose.TRANSPOSE)
        return self._dashes[colour]


def _draw_label(
    canvas: ImageDraw.ImageDraw,
    finding: Finding,
    scale: float,
    style: _Style,
    size: tuple[int, int],
    taken: list[_Rect],
) -> None:
    text = f"{finding.label} {finding.confidence:.2f}" + (" ?" if finding.tentative else "")
    left, top, right, bottom = canvas.textbbox((0, 0), text, font=style.font)
    width = round(right - left) + 2 * style.pad
    height = round(bottom - top) + 2 * style.pad
    place = _place(finding, scale, (width, height), size, taken, style)
    if place is None:  # the picture is full of labels: the table beside it lists all findings
        return
    x, y = place
    taken.append((x, y, x + width, y + height))
    colour = class_colour(finding.class_index)
    canvas.rectangle((x, y, x + width, y + height), fill=colour, outline=(0, 0, 0))
    canvas.text(
        (x + style.pad - left, y + style.pad - top),
        text,
        font=style.font,
        fill=text_colour(colour),
    )


def _place(
    finding: Finding,
    scale: float,
    label: tuple[int, int],
    size: tuple[int, int],
    taken: list[_Rect],
    style: _Style,
) -> tuple[int, int] | None:
    """Where the label goes: the best free place around its box, else the nearest one at all."""
    width, height = label
    box = finding.box
    x1, y1, x2, y2 = (round(v * scale) for v in (box.x1, box.y1, box.x2, box.y2))
    gap = style.line
    places = [
        (x1, y1 - height - gap),
        (x2 - width, y1 - height - gap),
        (x1, y2 + gap),
        (x2 - width, y2 + gap),
        (x2 + gap, y1),
        (x1 - width - gap, y1),
        (x1 + gap, y1 + gap),
        (x1 + gap, y2 - height - gap),
    ]
    corners = np.array(places).clip(0, (size[0] - width - 1, size[1] - height - 1))
    rects = np.hstack([corners, corners + label])
    free = (corners >= 0).all(axis=1) & ~_overlap(rects, taken)
    if free.any():
        x, y = corners[free.argmax()]
        return int(x), int(y)
    return _nearest_free(label, size, (x1, y1), taken)


def _nearest_free(
    label: tuple[int, int], size: tuple[int, int], near: tuple[int, int], taken: list[_Rect]
) -> tuple[int, int] | None:
    """Of places all over the picture the nearest free one."""
    width, height = label
    rows = np.arange(0, size[1] - height, height + 2)
    columns = np.arange(0, size[0] - width, max(width // 2, 1))
    left, top, right, bottom = np.array(taken).reshape(-1, 4).T[:, :, None]
    # Corners belong to the rectangle, as in `_overlap`.
    in_rows = (rows <= bottom) & (top <= rows + height)
    in_columns = (columns <= right) & (left <= columns + width)
    covered = in_rows.T.astype(np.float32) @ in_columns.astype(np.float32)  # by so many
    if covered.all():  # or there is no place at all
        return None
    distances = np.abs(rows - near[1])[:, None] + np.abs(columns - near[0])
    distances[covered > 0] = np.iinfo(distances.dtype).max
    y, x = np.unravel_index(distances.argmin(), distances.shape)
    return int(columns[x]), int(rows[y])


def _overlap(rects: npt.NDArray[np.intp], others: list[_Rect]) -> npt.NDArray[np.bool_]:
    """Whether each of the rectangles, (N, 4), covers a part of any of the others."""
    left, top, right, bottom = np.array(others, np.intp).reshape(-1, 4).T
    x1, y1, x2, y2 = rects.T[:, :, None]
    # Corners belong to the rectangle, as Pillow draws it.
    found: npt.NDArray[np.bool_] = (
        (x1 <= right) & (left <= x2) & (y1 <= bottom) & (top <= y2)
    ).any(axis=1)
    return found


@dataclass(frozen=True, slots=True)
class _Legend:
    rows: list[tuple[RGB | None, str]]
    row_height: int
    height: int


def _legend(analysis: Analysis, style: _Style, width: int) -> _Legend:
    """What stands below the radiograph: result, classes found, caveat and disclaimer."""
    prediction = analysis.prediction
    lines: list[tuple[RGB | None, str]] = [
        (
            None,
            f"{prediction.decision.capitalize()}: {prediction.probability:.3f} "
            f"(cut-off {prediction.threshold:.3f})",
        )
    ]
    findings = prediction.findings or ()
    counts: dict[tuple[int, str], int] = {}
    for finding in findings:
        key = (finding.class_index, finding.label)
        counts[key] = counts.get(key, 0) + 1
    lines += [
        (class_colour(index), f"{label} ({count})")
        for (index, label), count in sorted(counts.items())
    ]
    if any(f.tentative for f in findings):
        lines.append((None, f"dashed, ?: tentative, below {prediction.firm_confidence:g}"))
    if analysis.bundle.caveat:
        lines.append((None, analysis.bundle.caveat))
    lines.append((None, "Research software, never a diagnosis."))

    measure = ImageDraw.Draw(Image.new("L", (1, 1)))
    row_height = round(measure.textbbox((0, 0), "Ag", font=style.font)[3]) + 2 * style.pad
    rows: list[tuple[RGB | None, str]] = []
    for colour, text in lines:
        indent = 2 * style.pad + (row_height if colour else 0)
        wrapped = _wrap(measure, text, style, width - indent)
        rows += [(colour if n == 0 else None, part) for n, part in enumerate(wrapped)]
    return _Legend(rows, row_height, len(rows) * row_height + style.pad)


def _drawn(legend: _Legend, width: int, style: _Style) -> Image.Image:
    picture = Image.new("RGB", (width, legend.height), _BACKGROUND)
    canvas = ImageDraw.Draw(picture)
    y = style.pad
    for colour, text in legend.rows:
        x = style.pad
        if colour is not None:
            side = legend.row_height - 2 * style.pad
            canvas.rectangle((x, y + style.pad, x + side, y + style.pad + side), fill=colour)
            x += legend.row_height
        canvas.text((x, y), text, font=style.font, fill=_FOREGROUND)
        y += legend.row_height
    return picture


def _wrap(canvas: ImageDraw.ImageDraw, text: str, style: _Style, width: int) -> list[str]:
    """The text in lines that fit; a single word that does not is left whole."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and canvas.textlength(longer, font=style.font) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
