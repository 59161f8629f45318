"""Radiograph → network input, to the last bit as the bundle's profile says."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from spinexr.domain import Photometric, Radiograph
from spinexr.errors import ConstantImageError
from spinexr.inference.bundle import Intensity, Preprocessing

Grey = npt.NDArray[np.uint8]


def to_grey(radiograph: Radiograph, intensity: Intensity) -> Grey:
    """uint8 (H, W), 0 = black, by the bundle's intensity rule.

    Raises:
        ConstantImageError: nothing is left of the image under the rule.
    """
    if intensity is Intensity.STORED_MINMAX:
        return stored_minmax(radiograph)
    table = (radiograph.levels * 255.0).astype(np.uint8)
    grey = radiograph.through(table)
    if grey.min() == grey.max():
        raise ConstantImageError(
            "The file's own display settings leave one grey level of the image, and these weights "
            "were trained on images as displayed."
        )
    return grey


def stored_minmax(radiograph: Radiograph) -> Grey:
    """The standard profile's rule on stored values, before Modality and VOI LUT.

    MONOCHROME1: maximum − v; then max(v, 0); float64 min–max × 255, truncated to uint8. The rule is
    evaluated once for each value from the minimum to the maximum and looked up, which gives the
    same bits as evaluating it for each pixel.

    Raises:
        ConstantImageError: no two pixels differ after the clip at 0.
    """
    # As many levels as values from the lowest to the highest, and both occur in the image, so these
    # are the image's own extremes.
    values = radiograph.lowest + np.arange(len(radiograph.levels), dtype=np.int64)
    if radiograph.photometric is Photometric.MONOCHROME1:
        values = values[-1] - values
    values = np.maximum(values, 0)
    bottom, top = int(values.min()), int(values.max())
    if bottom == top:
        raise ConstantImageError(
            "No pixel has a stored value above 0, so nothing is left of the image after the "
            "normalisation that these weights were trained with."
        )
    table = ((values.astype(np.float64) - bottom) / (top - bottom) * 255.0).astype(np.uint8)
    return radiograph.through(table)


def classifier_input(grey: Grey, preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
    """float32 (1, 3, size, size): resized and standardised.

    Args:
        grey: uint8 (H, W).
    """
    return standardised(resized(grey, preprocessing), preprocessing)


def resized(grey: Grey, preprocessing: Preprocessing) -> Grey:
    """uint8 (size, size): bilinear, without keeping the aspect."""
    size = (preprocessing.size, preprocessing.size)
    return np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR))


def standardised(small: Grey, preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
    """float32 (1, 3, size, size) of what `resized` gives."""
    scaled = small.astype(np.float32) / np.float32(255.0)
    mean = np.array(preprocessing.mean, dtype=np.float32)[:, None, None]
    std = np.array(preprocessing.std, dtype=np.float32)[:, None, None]
    return np.ascontiguousarray(((scaled[None] - mean) / std)[None], dtype=np.float32)
