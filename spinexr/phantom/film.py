"""Attenuation → film: exposure, scatter, blur, quanta, and the processing that makers sell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float32]

_LAYERS_MM = (1.0, 3.0, 8.0, 22.0)  # widths of the layers that processing raises
_OPEN = 0.1  # of the median attenuation: less is taken for direct exposure


@dataclass(frozen=True, slots=True)
class Film:
    """How a film was exposed and processed; lengths in mm at the patient."""

    scatter: float  # scatter over primary, behind a grid
    scatter_blur: float
    blur: float
    quanta: float  # per pixel of 0.2 mm behind the mean of the trunk
    gains: tuple[float, ...]  # of detail, by layer
    background: float  # spread of everything wider, relative to that of the detail
    contrast: float  # steepness of the S-curve
    black: float  # quantiles of the body that become black and white
    white: float

    @classmethod
    def draw(cls, rng: np.random.Generator, *, wide: float = 1.0) -> Self:
        """A film; `wide` stretches the ranges."""

        def between(low: float, high: float) -> float:
            middle, half = (low + high) / 2, (high - low) / 2
            return float(max(0.02 * high, middle + wide * half * rng.uniform(-1, 1)))

        return cls(
            scatter=between(0.15, 0.7),
            scatter_blur=between(25, 45),
            blur=between(0.12, 0.3),
            quanta=float(10 ** rng.uniform(2.9 - 0.2 * wide, 4.1)),
            gains=(between(1.0, 1.9), between(1.3, 2.3), between(1.3, 2.2), between(1.0, 1.6)),
            background=between(0.6, 1.6),
            contrast=between(0.9, 2.2),
            black=between(0.004, 0.03),
            white=1 - between(0.0005, 0.006),
        )


def expose(attenuation: Image, film: Film, pixel_mm: float, rng: np.random.Generator) -> Image:
    """Log signal (higher = more attenuated) of a detector behind `attenuation` (line integrals)."""
    primary = np.exp(-attenuation)
    light = primary + film.scatter * blurred(primary, film.scatter_blur / pixel_mm)
    light = blurred(light, film.blur / pixel_mm)
    per_pixel = film.quanta * (pixel_mm / 0.2) ** 2 / float(np.median(light))
    noise = rng.standard_normal(light.shape, dtype=np.float32)
    # The scintillator spreads each quantum's light a little.
    noisy = blurred(light + np.sqrt(light / per_pixel) * noise, 0.08 / pixel_mm)
    result: Image = -np.log(np.maximum(noisy, float(light.min()) * 0.3)).astype(np.float32)
    return result


def process(log_signal: Image, film: Film, pixel_mm: float, field: npt.NDArray[np.bool_]) -> Image:
    """Display values 0–1, 1 = bone: multi-scale contrast and an S-curve within the `field`."""
    signal = _beyond_the_field(log_signal, field, pixel_mm)
    # Direct exposure holds no picture: it ends as black and must not set the scale.
    air = float(signal[field].min())
    floor = air + _OPEN * float(np.median(signal[field]) - air)
    soft = 0.08 * (floor - air) + 1e-6
    signal = floor + soft * np.logaddexp(0, (signal - floor) / soft).astype(np.float32)
    body = field & (signal > floor + 2 * soft)
    layers, rest = [], signal
    for scale_mm in _LAYERS_MM:
        smooth = blurred(rest, scale_mm / pixel_mm)
        layers.append(rest - smooth)
        rest = smooth
    detail = np.zeros_like(signal)
    for gain, layer in zip(film.gains, layers, strict=True):
        spread = float(layer[::3, ::3].std()) + 1e-6
        # Weak detail is raised more than strong: edges must not ring.
        detail += gain * layer / (1 + 0.12 * np.abs(layer) / spread)
    inside = body if body.any() else field
    ratio = float(detail[inside].std()) / (float(rest[inside].std()) + 1e-6)
    result = detail + film.background * min(ratio, 1.0) * rest
    shown = result[inside][::7]
    low, high = np.quantile(shown, [film.black, film.white])
    level = np.clip((result - low) / max(high - low, 1e-6), 0, 1)
    k = film.contrast
    curve = 1 / (1 + np.exp(-k * 2 * (level - 0.5)))
    ends = 1 / (1 + np.exp(k)), 1 / (1 + np.exp(-k))
    display: Image = ((curve - ends[0]) / (ends[1] - ends[0])).astype(np.float32)
    # What direct exposure is left shows through as nearly black.
    display *= np.clip((signal - floor) / (4 * soft), 0.12, 1)
    return display


def blurred(image: Image, sigma: float) -> Image:
    """Gaussian blur, on a coarser grid where that changes nothing that can be seen."""
    factor = int(max(1, sigma // 5))
    if factor == 1:
        return _gauss(image, sigma)
    rows, columns = image.shape
    size = (max(1, columns // factor), max(1, rows // factor))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    wide = enlarged(_gauss(small, sigma / factor), (rows, columns))
    # Linear interpolation leaves creases, which processing would show as stripes.
    smooth: Image = cv2.blur(wide, (factor, factor), borderType=cv2.BORDER_REPLICATE)
    return smooth


def enlarged(image: Image, shape: tuple[int, int]) -> Image:
    """The same picture on a finer grid of `shape` (rows, columns)."""
    result: Image = cv2.resize(image, shape[::-1], interpolation=cv2.INTER_LINEAR)
    return result


def _gauss(image: Image, sigma: float) -> Image:
    if sigma < 0.1:
        return image
    result: Image = cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    return result


def _beyond_the_field(signal: Image, field: npt.NDArray[np.bool_], pixel_mm: float) -> Image:
    """Carry the picture over its edges, so that processing draws no line along them."""
    if field.all():
        return signal
    weight = field.astype(np.float32)
    near, far = (
        blurred(signal * weight, s / pixel_mm) / np.maximum(blurred(weight, s / pixel_mm), 1e-3)
        for s in (2.0, 20.0)
    )
    reached = np.clip(blurred(weight, 2.0 / pixel_mm) / 0.05, 0, 1)
    result: Image = np.where(field, signal, reached * near + (1 - reached) * far)
    return result
