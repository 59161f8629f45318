"""Contact sheets: many labelled radiographs in one picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from spinexr.datasets.vindr import CLASSES, LabelledImage
from spinexr.imaging import reader
from spinexr.reporting.palette import RGB, class_colour

_GAP = 6
_LEGEND = 26
_BACKGROUND: RGB = (16, 18, 22)
_FOREGROUND: RGB = (235, 238, 242)


def contact_sheet(
    images: Sequence[LabelledImage], *, columns: int, tile_height: int, max_pixels: int = 10**8
) -> Image.Image:
    """The radiographs as displayed with their boxes, row by row, and a legend of the classes.

    Raises:
        SpineXRError: a file that cannot be read.
    """
    tiles = [_tile(i, tile_height, max_pixels) for i in images]
    rows = [tiles[n : n + columns] for n in range(0, len(tiles), columns)]
    width = max(sum(t.width + _GAP for t in row) for row in rows) + _GAP
    sheet = Image.new("RGB", (width, len(rows) * (tile_height + _GAP) + _LEGEND), _BACKGROUND)
    for n, row in enumerate(rows):
        x = _GAP
        for tile in row:
            sheet.paste(tile, (x, _GAP + n * (tile_height + _GAP)))
            x += tile.width + _GAP
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=12)
    step = (width - _GAP) / len(CLASSES)
    for n, label in enumerate(CLASSES):
        left, top = _GAP + n * step, sheet.height - _LEGEND + 9
        draw.rectangle((left, top, left + 10, top + 10), class_colour(n))
        draw.text((left + 15, top - 3), label, _FOREGROUND, font)
    return sheet


def _tile(image: LabelledImage, height: int, max_pixels: int) -> Image.Image:
    display = reader.read(image.file.read_bytes(), max_pixels=max_pixels).display
    scale = height / display.shape[0]
    grey = Image.fromarray(np.rint(display * 255).astype(np.uint8))
    picture = grey.resize((max(1, round(display.shape[1] * scale)), height)).convert("RGB")
    draw = ImageDraw.Draw(picture)
    for lesion in image.lesions:
        b = lesion.box
        corners = tuple(v * scale for v in (b.x1, b.y1, b.x2, b.y2))
        draw.rectangle(corners, outline=class_colour(CLASSES.index(lesion.label)), width=1)
    return picture
