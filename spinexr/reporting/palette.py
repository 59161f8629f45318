"""Colours of the finding classes, the same in image, legend and page."""

from __future__ import annotations

RGB = tuple[int, int, int]

# Okabe & Ito, "Color Universal Design" (2008): told apart with every common colour blindness.
# Their black is left out, it would not show on a radiograph.
CLASS_COLOURS: tuple[RGB, ...] = (
    (230, 159, 0),  # orange
    (86, 180, 233),  # sky blue
    (240, 228, 66),  # yellow
    (0, 158, 115),  # bluish green
    (213, 94, 0),  # vermillion
    (204, 121, 167),  # reddish purple
    (0, 114, 178),  # blue
)


def class_colour(class_index: int) -> RGB:
    """Colour of a class; they repeat after seven."""
    return CLASS_COLOURS[class_index % len(CLASS_COLOURS)]


def text_colour(background: RGB) -> RGB:
    """Black or white, whichever contrasts more (relative luminance of WCAG 2.2)."""
    channels = [c / 255 for c in background]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)
