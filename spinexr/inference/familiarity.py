"""Is a radiograph like those that a bundle was trained on?

A network answers whatever it is shown. Before its last layer an image is a point in the space of
pooled features; training images fill a small part of that space. So they do in the spaces of their
thumbnails and histograms, which see what networks have learned to overlook, as shifted contrast.
Two distances tell how far outside an image lies, for each of them:

- within the subspace of the largest principal components of the training features, the Mahalanobis
  distance to the nearer of the two class means (Lee et al., "A Simple Unified Framework for
  Detecting Out-of-Distribution Samples", NeurIPS 2018);
- across it, the length of what the subspace does not explain (Wang et al., "ViM", CVPR 2022).

Each is divided by its own 99th percentile on validation images, and the largest of all is compared
with a cut-off, the 99th percentile of that on the same images.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats = npt.NDArray[np.float32]

LOOKS = ("thumbnail", "histogram")  # beside the members, by name
_SIDE = 8  # of a thumbnail
_BINS = 16
_QUANTILE = 0.99
_VERSION = 2
_DAMAGE = (zipfile.BadZipFile, zlib.error)


class FamiliarityFileError(ValueError):
    """The file does not hold the statistics of these members."""


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """C values of each training image, a member's features or one of its looks, summed up in R
    components."""

    center: Floats  # (C,)
    components: Floats  # (R, C), orthonormal rows
    variances: Floats  # (R,), within classes
    means: Floats  # (2, R): normal, abnormal
    scales: Floats  # (2,): 99th percentiles of the two distances on validation

    def distances(self, features: Floats) -> Floats:
        """(N, 2): within and across the subspace, before scaling.

        Args:
            features: float32 (N, C).
        """
        centred = features - self.center
        inside = centred @ self.components.T
        apart = (inside[:, None] - self.means[None]) ** 2 / self.variances
        within = np.sqrt(apart.mean(2).min(1))
        across = np.sqrt(np.maximum((centred**2).sum(1) - (inside**2).sum(1), 0))
        return np.stack([within, across], 1)


@dataclass(frozen=True, slots=True, eq=False)
class Familiarity:
    """Statistics of every member and of `LOOKS` by name, and the distance beyond which an image is
    unlike them."""

    parts: Mapping[str, Statistics]
    cut: float

    def distance(self, features: Mapping[str, Floats]) -> Floats:
        """(N,): 1 is the 99th percentile of validation images in the part that is furthest.

        Args:
            features: float32 (N, C) of each member, and what `looks_of` gives.
        """
        scaled = [p.distances(features[n]) / p.scales for n, p in self.parts.items()]
        furthest: Floats = np.concatenate(scaled, 1).max(1)
        return furthest


def looks_of(grey: npt.NDArray[np.uint8]) -> dict[str, Floats]:
    """What an image looks like before any network, by the names of `LOOKS`.

    Returns:
        float32 (1, 64), the means of 8 × 8 fields from 0, black, to 1; and float32 (1, 16), the
        roots of the shares of the pixels in as many ranges of grey.

    Args:
        grey: uint8 (H, W), at the size of the members' input as training images are: resizing
            takes noise away, and with it greys.
    """
    image = Image.fromarray(grey)
    small = image.resize((_SIDE, _SIDE), Image.Resampling.BOX)
    counts = np.reshape(image.histogram(), (_BINS, -1)).sum(1)
    return {
        "thumbnail": np.asarray(small, np.float32).reshape(1, -1) / np.float32(255.0),
        "histogram": np.sqrt(counts / grey.size).astype(np.float32)[None],
    }


def fit(
    training: Floats, abnormal: npt.NDArray[np.bool_], validation: Floats, *, components: int
) -> Statistics:
    """Statistics of one member's features, or of one of the looks.

    Args:
        training: (N, C). abnormal: (N,), both values present. validation: (M, C).
    """
    center = training.mean(0)
    classes = np.stack([training[~abnormal].mean(0), training[abnormal].mean(0)])
    residual = training - classes[abnormal.astype(int)]
    _, singular, rows = np.linalg.svd(residual.astype(np.float64), full_matrices=False)
    kept = min(components, len(singular))
    variances = singular[:kept] ** 2 / len(training)
    found = Statistics(
        center=center.astype(np.float32),
        components=rows[:kept].astype(np.float32),
        variances=(variances + 1e-6 * variances.max()).astype(np.float32),
        means=((classes - center) @ rows[:kept].T).astype(np.float32),
        scales=np.ones(2, np.float32),
    )
    scales = np.quantile(found.distances(validation), _QUANTILE, axis=0)
    return Statistics(
        found.center, found.components, found.variances, found.means,
        np.maximum(scales, 1e-6).astype(np.float32),
    )  # fmt: skip


def with_cut(parts: Mapping[str, Statistics], validation: Mapping[str, Floats]) -> Familiarity:
    """The whole, its cut-off at the 99th percentile of the validation images."""
    uncut = Familiarity(parts, np.inf)
    return Familiarity(parts, float(np.quantile(uncut.distance(validation), _QUANTILE)))


def save(familiarity: Familiarity, file: Path) -> None:
    """Write as npz."""
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "version": np.array(_VERSION),
        "cut": np.array(familiarity.cut),
        "names": np.array(list(familiarity.parts)),
    }
    for n, m in enumerate(familiarity.parts.values()):
        arrays |= {
            f"center{n}": m.center,
            f"components{n}": m.components,
            f"variances{n}": m.variances,
            f"means{n}": m.means,
            f"scales{n}": m.scales,
        }
    part = file.with_suffix(".part.npz")
    np.savez_compressed(part, **arrays)  # type: ignore[arg-type]
    part.replace(file)


def load(file: Path, names: tuple[str, ...]) -> Familiarity:
    """Read what `save` wrote for members of these names.

    Raises:
        FamiliarityFileError: it is damaged, or of other members.
        OSError: it cannot be read.
    """
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            if int(arrays["version"]) != _VERSION:
                raise FamiliarityFileError(
                    f"has version {arrays['version']}, not {_VERSION}: `train classifier --resume` "
                    "writes it anew, or take `familiarity` out of the manifest."
                )
            found = tuple(str(n) for n in arrays["names"])
            cut = float(arrays["cut"])
            parts = {
                name: Statistics(
                    *(
                        np.asarray(arrays[f"{key}{n}"], dtype=np.float32)
                        for key in ("center", "components", "variances", "means", "scales")
                    )
                )
                for n, name in enumerate(found)
            }
    except (KeyError, ValueError, TypeError, EOFError, AttributeError, *_DAMAGE) as e:
        if isinstance(e, FamiliarityFileError):
            raise
        raise FamiliarityFileError("is damaged or not a file of such statistics.") from e
    if set(found) != {*names, *LOOKS}:
        wanted = ", ".join([*names, *LOOKS])
        raise FamiliarityFileError(f"is of {', '.join(found)}, not of {wanted}.")
    if not np.isfinite(cut) or not all(_sound(p) for p in parts.values()):
        raise FamiliarityFileError("holds values that are not numbers, or of the wrong shapes.")
    return Familiarity(parts, cut)


def _sound(m: Statistics) -> bool:
    if m.components.ndim != 2:
        return False
    rank, width = m.components.shape
    shapes = (m.center.shape, m.variances.shape, m.means.shape, m.scales.shape)
    right = shapes == ((width,), (rank,), (2, rank), (2,))
    arrays = (m.center, m.components, m.variances, m.means, m.scales)
    return right and all(bool(np.isfinite(a).all()) for a in arrays)
