"""What lies on a film besides the patient: letters, electrodes, hooks, seams, burned-in text."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from spinexr.phantom import film

_Rng = np.random.Generator


def attenuation(rows: int, columns: int, pixel_mm: float, rng: _Rng) -> film.Image:
    """Line integrals of a lead letter and of things worn: float32 (rows, columns)."""
    total = 6.0 * _letter(rows, columns, pixel_mm, rng)
    if rng.random() < 0.12:
        total += 1.2 * _electrode(rows, columns, pixel_mm, rng)
    if rng.random() < 0.08:
        total += 1.6 * _hooks(rows, columns, pixel_mm, rng)
    for _ in range(int(rng.integers(1, 4)) if rng.random() < 0.25 else 0):
        total += 0.05 * _seam(rows, columns, pixel_mm, rng)
    return film.blurred(total, 0.2 / pixel_mm)


def burned_in(rows: int, columns: int, rng: _Rng) -> film.Image:
    """Exposure letters and a scale in a corner, 0–1, written over the processed picture."""
    picture = Image.new("L", (columns, rows))
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=max(8.0, rows * float(rng.uniform(0.012, 0.02))))
    if rng.random() < 0.2:
        lines = [
            f"KV {rng.integers(66, 90)}  MAS {rng.integers(4, 90)}",
            f"SID {rng.choice([100, 110, 115, 150, 180])}",
            f"EI {rng.integers(150, 900)}",
        ]
        text = "\n".join(lines[: int(rng.integers(1, 4))])
        x = (0.02 if rng.random() < 0.5 else 0.74) * columns
        y = (0.02 if rng.random() < 0.5 else 0.93) * rows
        draw.multiline_text((x, y), text, 255, font)
    if rng.random() < 0.1:
        y, step = 0.985 * rows, columns * float(rng.uniform(0.02, 0.03))
        for n in range(11):
            x = 0.35 * columns + n * step
            draw.line((x, y, x, y - (0.012 if n % 5 == 0 else 0.006) * rows), 255, 1)
        draw.line((0.35 * columns, y, 0.35 * columns + 10 * step, y), 255, 1)
    return _as_image(picture)


def _letter(rows: int, columns: int, pixel_mm: float, rng: _Rng) -> film.Image:
    """A side marker, standing at a side of the film."""
    picture = Image.new("L", (columns, rows))
    if rng.random() < 0.85:
        font = ImageFont.load_default(size=max(10.0, float(rng.uniform(9, 15)) / pixel_mm))
        x = (0.06 if rng.random() < 0.5 else 0.86) * columns
        y = float(rng.uniform(0.08, 0.85)) * rows
        draw = ImageDraw.Draw(picture)
        draw.text((x, y), "L" if rng.random() < 0.5 else "R", 255, font)
        picture = picture.rotate(float(rng.normal(0, 6)), center=(x, y))
    return _as_image(picture)


def _electrode(rows: int, columns: int, pixel_mm: float, rng: _Rng) -> film.Image:
    """A snap electrode with its wire running off the film."""
    picture = np.zeros((rows, columns), np.uint8)
    x, y = float(rng.uniform(0.1, 0.9)) * columns, float(rng.uniform(0.1, 0.9)) * rows
    side = 0.0 if x < columns / 2 else float(columns)
    bow = np.array([[x, y], [(x + side) / 2, y + rng.normal(0, 0.1) * rows], [side, y]])
    t = np.linspace(0, 1, 40)[:, None]
    curve = (1 - t) ** 2 * bow[0] + 2 * t * (1 - t) * bow[1] + t**2 * bow[2]
    width = max(1, round(1.0 / pixel_mm))
    cv2.polylines(picture, [curve.astype(np.int32)], False, 70, width, cv2.LINE_AA)
    center = (round(x), round(y))
    cv2.circle(picture, center, max(2, round(5.0 / pixel_mm)), 120, -1, cv2.LINE_AA)
    cv2.circle(picture, center, max(1, round(2.0 / pixel_mm)), 255, -1, cv2.LINE_AA)
    return picture.astype(np.float32) / 255.0


def _hooks(rows: int, columns: int, pixel_mm: float, rng: _Rng) -> film.Image:
    """Two or three small rings of wire one above the other, as on clothing."""
    picture = np.zeros((rows, columns), np.uint8)
    x, y = float(rng.uniform(0.15, 0.85)) * columns, float(rng.uniform(0.15, 0.8)) * rows
    for n in range(int(rng.integers(2, 4))):
        center = (round(x), round(y + n * 12.0 / pixel_mm))
        axes = (max(2, round(3.2 / pixel_mm)), max(1, round(1.8 / pixel_mm)))
        width = max(1, round(0.9 / pixel_mm))
        cv2.ellipse(picture, center, axes, 0, 0, 320, 255, width, cv2.LINE_AA)
    return picture.astype(np.float32) / 255.0


def _seam(rows: int, columns: int, pixel_mm: float, rng: _Rng) -> film.Image:
    """A faint line of clothing or a fold of skin, slightly bent."""
    picture = np.zeros((rows, columns), np.uint8)
    x0, x1 = rng.uniform(-0.1, 1.1, 2) * columns
    y0, y1 = rng.uniform(0.0, 1.0) * rows, rng.uniform(0.0, 1.0) * rows
    t = np.linspace(0, 1, 30)
    bow = float(rng.normal(0, 0.03)) * rows
    x, y = x0 + (x1 - x0) * t, y0 + (y1 - y0) * t + bow * np.sin(np.pi * t)
    curve = np.stack([x, y], 1).astype(np.int32)
    width = max(1, round(float(rng.uniform(0.8, 3)) / pixel_mm))
    cv2.polylines(picture, [curve], False, 255, width, cv2.LINE_AA)
    return picture.astype(np.float32) / 255.0


def _as_image(picture: Image.Image) -> film.Image:
    result: film.Image = np.asarray(picture, dtype=np.float32) / 255.0
    return result
