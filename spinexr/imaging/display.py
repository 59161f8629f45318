"""Stored values → display values: Modality LUT, VOI LUT and polarity of PS3.3 C.11 and C.7.6.3.

Everything is a function of the stored value alone, so it is computed once for each value from the
image's minimum to its maximum and then looked up.
"""

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi

from spinexr.domain import Notice, Photometric, VoiFunction, Window, Windowing
from spinexr.imaging import header

MODALITY_LUT_IGNORED = Notice(
    "modality_lut_ignored", "The file's Modality LUT is not usable and was ignored."
)
VOI_LUT_IGNORED = Notice("voi_lut_ignored", "The file's VOI LUT is not usable and was ignored.")
WINDOW_IGNORED = Notice(
    "window_ignored", "The file's display window is not usable and was ignored."
)

Values = npt.NDArray[np.float64]


def levels(
    lowest: int, highest: int, dataset: Dataset, photometric: Photometric
) -> tuple[npt.NDArray[np.float32], Windowing, tuple[Notice, ...]]:
    """float32 (highest − lowest + 1,) in 0–1, 0 = black; what a viewer needs to do the same with
    windows of its own; and what had to be ignored in the header.

    Args:
        lowest, highest: of the stored values, different and of at most 16 bits.
    """
    domain = np.arange(lowest, highest + 1, dtype=np.int32)
    values, notices = _values(domain, dataset)
    found, table, more = _levels(values, dataset)
    inverse, function = _inverse(dataset, photometric), _function(dataset)
    windowing = Windowing(
        values=values.astype(np.float32),
        function=function,
        windows=tuple(
            w
            for w in _windows(dataset)
            if _shows_something(apply_window(values, w.center, w.width, function))
        ),
        table=table,
        inverse=inverse,
    )
    return (1.0 - found if inverse else found).astype(np.float32), windowing, notices + more


def _inverse(dataset: Dataset, photometric: Photometric) -> bool:
    # DX demands INVERSE together with MONOCHROME1 (PS3.3 C.8.11.3.1.2): one inversion, not two.
    inverse = header.text(dataset, "PresentationLUTShape") == "INVERSE"
    return photometric is Photometric.MONOCHROME1 or inverse


def _function(dataset: Dataset) -> VoiFunction:
    """The VOI LUT Function; LINEAR where it is absent or none that there is."""
    name = header.text(dataset, "VOILUTFunction").upper()
    return VoiFunction(name) if name in list(VoiFunction) else VoiFunction.LINEAR


def _values(domain: npt.NDArray[np.int32], dataset: Dataset) -> tuple[Values, tuple[Notice, ...]]:
    """Each stored value in `domain` after the Modality LUT, or as it is where that is damaged."""
    try:
        return _modality_values(domain, dataset), ()
    # An empty or malformed LUT or rescale raises AttributeError, TypeError, ValueError, …
    except Exception:
        return domain.astype(np.float64), (MODALITY_LUT_IGNORED,)


def _levels(values: Values, dataset: Dataset) -> tuple[Values, bool, tuple[Notice, ...]]:
    """Grey level 0–1 of each of `values` before polarity, and whether a VOI LUT gave them.

    A table or window that is damaged, or that leaves nothing of the image, is passed over: the
    reader must see the image, and the notice says what was not followed.
    """
    notices: list[Notice] = []
    if header.optional(dataset, "VOILUTSequence"):
        try:
            levels = _voi_lut(values, dataset)
        # As above; a LUT that cannot be used leaves the window.
        except Exception:
            levels = np.zeros(1)
        if _shows_something(levels):
            return levels, True, tuple(notices)
        notices.append(VOI_LUT_IGNORED)
    for window in _windows(dataset)[:1]:
        levels = apply_window(values, window.center, window.width, _function(dataset))
        if _shows_something(levels):
            return levels, False, tuple(notices)
    if header.optional(dataset, "WindowWidth") is not None:
        notices.append(WINDOW_IGNORED)
    spread = values.max() - values.min()
    return (values - values.min()) / spread, False, tuple(notices)


def _shows_something(levels: Values) -> bool:
    """Whether more than one of 256 grey levels is left."""
    return bool(levels.max() - levels.min() >= 1 / 255)


def _modality_values(domain: npt.NDArray[np.int32], dataset: Dataset) -> Values:
    values = apply_modality_lut(domain, dataset).astype(np.float64)
    if not np.isfinite(values).all() or values.min() == values.max():
        raise ValueError("rescale gives values that are not finite, or one value for all")
    return values


def _windows(dataset: Dataset) -> list[Window]:
    """The usable windows in file order; width ≤ 0 and damage are left out."""
    centers = header.numbers(dataset, "WindowCenter")
    widths = header.numbers(dataset, "WindowWidth")
    names = header.texts(dataset, "WindowCenterWidthExplanation")
    return [
        Window(names[n] if n < len(names) else "", center, width)
        for n, (center, width) in enumerate(zip(centers, widths, strict=False))
        if center is not None and width is not None and width > 0
    ]


def apply_window(values: Values, center: float, width: float, function: VoiFunction) -> Values:
    """Grey level 0–1 by the VOI LUT Function (PS3.3 C.11.2.1.2 and C.11.2.1.3).

    Args:
        values: any shape, after the Modality LUT.
        width: greater than 0.
    """
    if function is VoiFunction.SIGMOID:
        exponent = np.clip(-4.0 * (values - center) / width, -700.0, 700.0)
        return 1.0 / (1.0 + np.exp(exponent))
    if function is not VoiFunction.LINEAR_EXACT:
        if width <= 1.0:  # C.11.2.1.2.1: a threshold at center − 0.5
            return (values > center - 0.5).astype(np.float64)
        center, width = center - 0.5, width - 1.0
    return np.clip((values - center) / width + 0.5, 0.0, 1.0)


def _voi_lut(values: Values, dataset: Dataset) -> Values:
    entries, first, bits = (int(v) for v in dataset.VOILUTSequence[0].LUTDescriptor)
    last = first + (entries or 2**16) - 1
    inputs = np.clip(np.rint(values), first, last).astype(np.int64)
    # pydicom counts entries in the type of the LUT's values, so that more than 256 of 8 bits wrap.
    wide = copy.deepcopy(dataset.VOILUTSequence[0])
    wide.LUTDescriptor = [entries, first, 16]
    table = Dataset()
    table.file_meta = dataset.file_meta
    table.VOILUTSequence = [wide]
    levels = apply_voi(inputs, table).astype(np.float64)
    # Entries may exceed the bits that the descriptor states.
    return levels / max(2.0**bits - 1.0, float(levels.max()))
