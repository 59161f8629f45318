"""Attenuation → film: exposure, scatter, blur, quanta, and the processing that makers sell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, zoom

Image = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Film:
    """How a film was exposed and processed; lengths in mm at the patient."""

    scatter: float  # scatter over primary, behind a grid
    scatter_blur: float
    blur: float
    quanta: float  # per pixel of 0.2 mm behind the mean of the trunk
    gains: tuple[float, float, float, float]  # of detail near 1, 3, 8 and 25 mm
    background: float  # what is left of everything wider
    contrast: float  # steepness of the S-curve
    black: float  # quantiles that become black and white
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
            gains=(between(1.0, 1.8), between(1.3, 2.2), between(1.2, 2.0), between(0.9, 1.3)),
            background=between(0.2, 0.55),
            contrast=between(1.2, 2.6),
            black=between(0.002, 0.02),
            white=1 - between(0.0005, 0.006),
        )


def expose(attenuation: Image, film: Film, pixel_mm: float, rng: np.random.Generator) -> Image:
    """Log signal (higher = more attenuated) of a detector behind `attenuation` (line integrals)."""
    primary = np.exp(-attenuation)
    scattered = _wide_blur(primary, film.scatter_blur / pixel_mm)
    light = primary + film.scatter * scattered
    light = gaussian_filter(light, film.blur / pixel_mm)
    per_pixel = film.quanta * (pixel_mm / 0.2) ** 2 / float(np.median(light))
    noise = rng.standard_normal(light.shape, dtype=np.float32)
    noisy = light + np.sqrt(light / per_pixel) * noise
    # The scintillator spreads each quantum's light a little.
    noisy = gaussian_filter(noisy, 0.08 / pixel_mm)
    result: Image = -np.log(np.maximum(noisy, float(light.min()) * 0.3)).astype(np.float32)
    return result


def process(log_signal: Image, film: Film, pixel_mm: float, field: npt.NDArray[np.bool_]) -> Image:
    """Display values 0–1, 1 = bone: multi-scale contrast and an S-curve within the `field`."""
    fill = float(np.median(log_signal[field]))
    signal = np.where(field, log_signal, fill)
    layers, rest = [], signal
    for scale_mm in (1.0, 3.0, 8.0, 25.0):
        smooth = _wide_blur(rest, scale_mm / pixel_mm)
        layers.append(rest - smooth)
        rest = smooth
    result = film.background * rest
    for gain, layer in zip(film.gains, layers, strict=True):
        spread = float(layer.std()) + 1e-6
        # Weak detail is raised more than strong: edges must not ring.
        result = result + gain * layer / (1 + 0.12 * np.abs(layer) / spread)
    low, high = np.quantile(result[field][::7], [film.black, film.white])
    level = np.clip((result - low) / (high - low), 0, 1)
    k = film.contrast
    curve = 1 / (1 + np.exp(-k * 2 * (level - 0.5)))
    ends = 1 / (1 + np.exp(k)), 1 / (1 + np.exp(-k))
    display: Image = ((curve - ends[0]) / (ends[1] - ends[0])).astype(np.float32)
    return display


def _wide_blur(image: Image, sigma: float) -> Image:
    """Gaussian blur, on a coarser grid where that changes nothing that can be seen."""
    factor = int(max(1, sigma // 4))
    if factor == 1:
        fine: Image = gaussian_filter(image, sigma)
        return fine
    rows, columns = (n // factor * factor for n in image.shape)
    small = image[:rows, :columns].reshape(rows // factor, factor, columns // factor, factor)
    blurred = gaussian_filter(small.mean(axis=(1, 3)), sigma / factor)
    size = [n / m for n, m in zip(image.shape, blurred.shape, strict=True)]
    result: Image = zoom(blurred, size, order=1, mode="nearest", grid_mode=True)
    return result
