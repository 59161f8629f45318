from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_windowing
from pydicom.sequence import Sequence

from spinexr.domain import Notice, Photometric
from spinexr.imaging import display
from tests import builders

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def render(
    stored: npt.NDArray[Any] = RAMP,
    photometric: Photometric = Photometric.MONOCHROME2,
    **attributes: Any,
) -> npt.NDArray[np.float32]:
    shown, _ = render_with_notices(stored, photometric, **attributes)
    return shown


def render_with_notices(
    stored: npt.NDArray[Any] = RAMP,
    photometric: Photometric = Photometric.MONOCHROME2,
    **attributes: Any,
) -> tuple[npt.NDArray[np.float32], tuple[Notice, ...]]:
    dataset = builders.dataset(stored, photometric=photometric, attributes=attributes)
    low, high = int(stored.min()), int(stored.max())
    levels, _, notices = display.levels(low, high, dataset, photometric)
    return levels[stored.astype(int) - low], notices


def lut(descriptor: list[int], data: list[int]) -> Sequence:
    item = Dataset()
    item.LUTDescriptor = descriptor
    item["LUTDescriptor"].VR = "US"
    item.LUTData = data
    item["LUTData"].VR = "US"
    item.ModalityLUTType = "US"
    return Sequence([item])


def test_a_voi_lut_of_8_bits_may_have_more_than_256_entries() -> None:
    shown, notices = render_with_notices(
        VOILUTSequence=lut([4096, 0, 8], [n // 16 for n in range(4096)])
    )
    assert notices == ()
    np.testing.assert_allclose(shown, (RAMP // 16) / 255, atol=1e-6)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("center", "width"), [(2048, 4096), (1000, 300), (3000.5, 2)])
def test_windows_agree_with_pydicom(function: str, center: float, width: float) -> None:
    attributes: dict[str, Any] = {
        "WindowCenter": center,
        "WindowWidth": width,
        "VOILUTFunction": function,
    }
    with np.errstate(over="ignore"):  # pydicom's sigmoid overflows far from the center
        expected = apply_windowing(RAMP, builders.dataset(RAMP, attributes=attributes)) / 4095
    np.testing.assert_allclose(render(**attributes), expected, atol=1e-6)


def test_a_window_applies_after_rescale() -> None:
    shown = render(
        RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=0, WindowWidth=2000,
        VOILUTFunction="LINEAR_EXACT",
    )  # fmt: skip
    # 0 after rescale is the stored value 500, the middle of the window.
    assert shown[RAMP == 500][0] == pytest.approx(0.5)


def test_the_first_of_several_windows_counts() -> None:
    several = render(WindowCenter=[1000, 2000], WindowWidth=[500, 4000])
    np.testing.assert_array_equal(several, render(WindowCenter=1000, WindowWidth=500))


@pytest.mark.parametrize("width", [0, -5])
def test_a_window_without_width_is_ignored_and_said(width: int) -> None:
    shown, notices = render_with_notices(WindowCenter=1000, WindowWidth=width)
    assert [n.code for n in notices] == ["window_ignored"]
    np.testing.assert_array_equal(shown, render())


def test_a_usable_window_after_an_unusable_one_counts() -> None:
    shown = render(WindowCenter=[1000, 2000], WindowWidth=[0, 400])
    np.testing.assert_array_equal(shown, render(WindowCenter=2000, WindowWidth=400))


def test_width_one_is_a_threshold() -> None:
    shown = render(WindowCenter=1000, WindowWidth=1)
    np.testing.assert_array_equal(shown, (RAMP > 999.5).astype(np.float32))


def test_without_voi_the_full_range_is_shown() -> None:
    shown = render()
    assert (shown.min(), shown.max()) == (0.0, 1.0)


def test_a_voi_lut_is_looked_up() -> None:
    table = [0, 100, 200, 1023]
    shown = render(VOILUTSequence=lut([4, 1000, 10], table))
    for stored, entry in [(0, 0), (1000, 0), (1001, 100), (1002, 200), (1003, 1023), (4095, 1023)]:
        assert shown[stored == RAMP][0] == pytest.approx(entry / 1023)


def test_an_eight_bit_voi_lut_does_not_wrap() -> None:
    shown = render(VOILUTSequence=lut([256, 0, 8], list(range(256))))
    assert shown[RAMP == 255][0] == 1.0
    assert shown[RAMP == 300][0] == 1.0


def test_an_empty_voi_lut_is_ignored_and_said() -> None:
    shown, notices = render_with_notices(
        VOILUTSequence=Sequence([Dataset()]), WindowCenter=1000, WindowWidth=500
    )
    assert [n.code for n in notices] == ["voi_lut_ignored"]
    np.testing.assert_array_equal(shown, render(WindowCenter=1000, WindowWidth=500))


def test_a_modality_lut_sequence_is_looked_up() -> None:
    table = list(range(4095, -1, -1))
    shown = render(ModalityLUTSequence=lut([4096, 0, 16], table))
    np.testing.assert_allclose(shown, 1 - render(), atol=1e-7)


def test_an_unusable_modality_lut_is_ignored_and_said() -> None:
    shown, notices = render_with_notices(ModalityLUTSequence=Sequence([Dataset()]))
    assert [n.code for n in notices] == ["modality_lut_ignored"]
    np.testing.assert_array_equal(shown, render())


def test_monochrome1_is_inverted_after_voi() -> None:
    window: dict[str, Any] = {"WindowCenter": 1000, "WindowWidth": 300}
    inverted = render(photometric=Photometric.MONOCHROME1, **window)
    np.testing.assert_allclose(inverted, 1 - render(**window), atol=1e-7)


def test_presentation_inverse_inverts_monochrome2_and_monochrome1_once() -> None:
    expected = 1 - render()
    np.testing.assert_allclose(render(PresentationLUTShape="INVERSE"), expected, atol=1e-7)
    both = render(photometric=Photometric.MONOCHROME1, PresentationLUTShape="INVERSE")
    np.testing.assert_allclose(both, expected, atol=1e-7)


def test_signed_values_are_windowed_as_signed() -> None:
    stored = (RAMP.astype(int) - 2048).astype(np.int16)
    shown = render(stored, WindowCenter=0, WindowWidth=4096, VOILUTFunction="LINEAR_EXACT")
    assert shown[stored == 0][0] == pytest.approx(0.5)
    assert shown[stored == -2048][0] == 0.0


def test_display_is_float32_with_black_at_zero() -> None:
    shown = render(WindowCenter=2000, WindowWidth=1000)
    assert shown.dtype == np.float32
    assert shown[RAMP == 0][0] == 0.0
    assert shown[RAMP == 4095][0] == 1.0


def test_a_window_that_shows_nothing_of_the_image_is_ignored_and_said() -> None:
    for window in ((100_000, 10), (-100_000, 10)):
        shown, notices = render_with_notices(WindowCenter=window[0], WindowWidth=window[1])
        assert [n.code for n in notices] == ["window_ignored"]
        np.testing.assert_array_equal(shown, render())


def test_a_rescale_to_one_value_is_ignored_and_said() -> None:
    shown, notices = render_with_notices(RescaleSlope=0, RescaleIntercept=5)
    assert [n.code for n in notices] == ["modality_lut_ignored"]
    np.testing.assert_array_equal(shown, render())


def test_a_voi_lut_that_shows_nothing_is_ignored_and_said() -> None:
    _, notices = render_with_notices(VOILUTSequence=lut([2, 0, 10], [500, 500]))
    assert [n.code for n in notices] == ["voi_lut_ignored"]
