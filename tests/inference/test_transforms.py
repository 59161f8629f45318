from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from spinexr.domain import Photometric
from spinexr.errors import ConstantImageError
from spinexr.inference import transforms
from spinexr.inference.bundle import Intensity
from tests import builders
from tests.fakes import fake_bundle

MONOCHROME1, MONOCHROME2 = Photometric.MONOCHROME1, Photometric.MONOCHROME2


def straight(stored: npt.NDArray[Any], photometric: Photometric) -> npt.NDArray[np.uint8]:
    """The standard profile's words, one by one, for each pixel."""
    values = stored.astype(np.float64)
    if photometric is MONOCHROME1:
        values = values.max() - values
    values = np.maximum(values, 0)
    values = (values - values.min()) / (values.max() - values.min()) * 255.0
    grey: npt.NDArray[np.uint8] = values.astype(np.uint8)
    return grey


@pytest.mark.parametrize("photometric", [MONOCHROME1, MONOCHROME2])
@pytest.mark.parametrize("dtype", ["uint16", "int16"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("seed", range(3))
def test_the_table_gives_the_same_bits_as_the_formula(
    photometric: Photometric, dtype: str, bits: int, seed: int
) -> None:
    stored = builders.pixels(bits=bits, dtype=dtype, seed=seed)
    expected = straight(stored, photometric)
    np.testing.assert_array_equal(
        transforms.stored_minmax(builders.radiograph(stored, photometric)), expected
    )


def test_offset_values_are_stretched_to_the_full_range() -> None:
    stored = builders.pixels(bits=8) + np.uint16(1000)
    grey = transforms.stored_minmax(builders.radiograph(stored))
    assert (grey.min(), grey.max()) == (0, 255)


def test_an_image_that_the_rule_leaves_empty_is_an_error_not_black() -> None:
    stored = np.linspace(-500, -10, 64 * 64).reshape(64, 64).astype(np.int16)
    with pytest.raises(ConstantImageError, match="normalisation"):
        transforms.stored_minmax(builders.radiograph(stored))


def test_the_display_rule_follows_the_window() -> None:
    radiograph = builders.radiograph(builders.pixels(), inverted=True)
    grey = transforms.to_grey(radiograph, Intensity.DISPLAY)
    assert grey.dtype == np.uint8
    np.testing.assert_array_equal(grey, (radiograph.display * 255).astype(np.uint8))


def test_a_display_of_one_grey_level_is_an_error_not_an_input() -> None:
    stored = builders.pixels()
    flat = replace(builders.radiograph(stored), levels=np.full(1 << 16, 0.5, np.float32))
    with pytest.raises(ConstantImageError, match="one grey level"):
        transforms.to_grey(flat, Intensity.DISPLAY)


def test_the_classifier_input_is_resized_and_standardised_like_three_channels() -> None:
    grey = transforms.stored_minmax(builders.radiograph(builders.pixels()))
    three = Image.fromarray(np.repeat(grey[..., None], 3, axis=2))
    resized = np.asarray(three.resize((32, 32), Image.Resampling.BILINEAR), np.float32)
    mean = np.array([0.485, 0.456, 0.406], np.float32)
    std = np.array([0.229, 0.224, 0.225], np.float32)
    expected = ((resized / np.float32(255) - mean) / std).transpose(2, 0, 1)[None]
    found = transforms.classifier_input(grey, fake_bundle().ensemble.preprocessing)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.float32
