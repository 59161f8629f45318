from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from spinexr.imaging import reader
from spinexr.reporting import pixels
from tests import builders
from tests.imaging.test_display import lut

RNG = np.random.default_rng(5)


def decoded(body: bytes) -> tuple[dict[str, Any], npt.NDArray[np.int64], bytes]:
    """Head, pixels and the rest, as spinexr/reporting/pixels.py describes them."""
    size = int.from_bytes(body[:4], "little")
    head = json.loads(body[4 : 4 + size])
    inflated = zlib.decompress(body[4 + size :])
    count = head["rows"] * head["columns"]
    planes = np.frombuffer(inflated[: 2 * count], np.uint8).reshape(2, count).astype(np.int64)
    folded = planes[0] | planes[1] << 8
    differences = (folded >> 1) ^ -(folded & 1)
    entries = (np.cumsum(differences) - head["lowest"]) % 65536
    return head, entries.reshape(head["rows"], head["columns"]), inflated[2 * count :]


def encoded(array: npt.NDArray[Any], **attributes: Any) -> bytes:
    data = builders.dicom(array, attributes=attributes)
    return pixels.encode(reader.read(data, max_pixels=10**7))


@pytest.mark.parametrize(
    "stored",
    [
        RNG.integers(0, 256, (70, 64), np.uint8),
        RNG.integers(0, 65536, (70, 64), np.uint16),
        RNG.integers(-32768, 32768, (70, 64), np.int16),
        builders.pixels(),
    ],
    ids=["8 bits", "16 bits", "signed", "a ramp"],
)
def test_stored_values_come_back_without_loss(stored: npt.NDArray[Any]) -> None:
    data = builders.dicom(stored, bits_stored=8 * stored.dtype.itemsize)
    radiograph = reader.read(data, max_pixels=10**7)
    head, entries, rest = decoded(pixels.encode(radiograph))
    assert (entries + head["lowest"] == stored).all()
    assert head["highest"] == stored.max()
    shown = np.frombuffer(rest[: head["highest"] - head["lowest"] + 1], np.uint8)[entries]
    assert np.abs(shown - radiograph.display * 255.0).max() <= 0.5001


def test_windows_come_with_their_names_and_those_that_show_nothing_are_left_out() -> None:
    head, _, _ = decoded(
        encoded(
            builders.pixels(),
            WindowCenter=[1500, 800, -90000],
            WindowWidth=[900, 500, 10],
            WindowCenterWidthExplanation=["BONE", "SOFT", "NOTHING"],
            RescaleSlope=2,
            RescaleIntercept=-100,
            VOILUTFunction="SIGMOID",
        )
    )
    assert head["windows"] == [
        {"name": "BONE", "center": 1500.0, "width": 900.0},
        {"name": "SOFT", "center": 800.0, "width": 500.0},
    ]
    assert head["function"] == "SIGMOID"
    assert head["rescale"] == {"slope": 2.0, "intercept": 2.0 * head["lowest"] - 100}
    assert not head["table"]


def test_a_modality_lut_comes_as_a_table() -> None:
    stored = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) // 64
    squares = [n * n for n in range(64)]
    head, _, rest = decoded(encoded(stored, ModalityLUTSequence=lut([64, 0, 16], squares)))
    assert head["rescale"] is None
    assert np.frombuffer(rest[64:], "<f4").tolist() == squares


def test_a_voi_lut_and_an_inverse_scale_are_named() -> None:
    table = lut([64, 0, 8], [n // 2 for n in range(64)])
    head, _, _ = decoded(
        encoded(
            np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) // 64,
            VOILUTSequence=table,
            PhotometricInterpretation="MONOCHROME1",
        )
    )
    assert head["table"]
    assert head["inverse"]


def test_a_noisy_full_size_radiograph_has_at_most_6_mb() -> None:
    rows, columns = np.mgrid[:2455, :1606]
    smooth = 2000 + 1500 * np.sin(rows / 400) * np.cos(columns / 300)
    noisy = np.clip(smooth + RNG.normal(0, 12, smooth.shape), 0, 4095).astype(np.uint16)
    assert len(pixels.encode(builders.radiograph(noisy))) <= 6_000_000
