"""Damaged files: whatever is done to one, it costs that request a refusal at most."""

from __future__ import annotations

import math
import zlib

import numpy as np
import psutil
import pytest
from pydicom import uid

from tests import builders, scale
from tests.robustness.service import Client, Service, peak_bytes

SYNTAXES = builders.LOSSLESS | builders.LOSSY | {"jpeg_baseline": uid.JPEGBaseline8Bit}
PIXEL_DATA = b"\xe0\x7f\x10\x00"
PIXEL_DATA_BIG_ENDIAN = b"\x7f\xe0\x00\x10"
_ODD = (b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\xff\xff\xff\x7f", b"\xfe\xff\x00\xe0",
        b"SQ\x00\x00", b"UN\x00\x00", b"DS\x00\x00", b"\xfe\xff\xdd\xe0")  # fmt: skip


@pytest.fixture(scope="module")
def originals() -> dict[str, bytes]:
    array = builders.pixels(96, 80)
    of_8_bits = (array >> 4).astype(np.uint8)
    return {
        name: builders.dicom(of_8_bits if s == uid.JPEGBaseline8Bit else array, transfer_syntax=s)
        for name, s in SYNTAXES.items()
    }


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """A file with one damage; one that is deflated is damaged before as often as after."""
    start = 144 + int.from_bytes(data[140:144], "little")  # where the file meta ends
    if uid.DeflatedExplicitVRLittleEndian.encode() not in data[:start] or rng.random() < 0.5:
        return damaged(data, rng)
    inside = damaged(data[:start] + zlib.decompress(data[start:], wbits=-15), rng, start)
    packer = zlib.compressobj(1, wbits=-15)
    return inside[:start] + packer.compress(inside[start:]) + packer.flush()


def damaged(data: bytes, rng: np.random.Generator, start: int = 128) -> bytes:
    """One of: bits flipped, cut off, a part doubled or gone, an odd value in the header, odd bytes
    in the pixels; nothing before `start`, apart from bits."""
    changed = bytearray(data)
    pixels = max(data.rfind(PIXEL_DATA), data.rfind(PIXEL_DATA_BIG_ENDIAN), start + 4)
    kind = int(rng.integers(6))
    if kind == 0:
        for place in rng.integers(0, len(data), int(rng.integers(1, 24))):
            changed[place] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del changed[int(rng.integers(1, len(data))) :]
    elif kind == 2:
        start, length = int(rng.integers(0, len(data))), int(rng.integers(1, 200))
        changed[start:start] = data[start : start + length]
    elif kind == 3:
        start = int(rng.integers(0, len(data)))
        del changed[start : start + int(rng.integers(1, 200))]
    elif kind == 4:
        place = int(rng.integers(start, pixels)) & ~1
        changed[place : place + 4] = _ODD[int(rng.integers(len(_ODD)))]
    else:
        place = int(rng.integers(pixels, len(data)))
        end = min(len(data), place + int(rng.integers(1, 16)))
        changed[place:end] = rng.bytes(end - place)
    return bytes(changed)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_no_damaged_file_ends_in_anything_but_a_result_or_a_refusal(
    service: Service, client: Client, originals: dict[str, bytes], syntax: str
) -> None:
    """Seen failing where an unexpected error of the reader is not a refusal (tools/weaken.py)."""
    number = math.ceil(scale.pick(1000, 20_000) / len(SYNTAXES))
    rng = np.random.default_rng([7, list(SYNTAXES).index(syntax)])
    statuses: dict[str, int] = {}
    slowest = 0.0
    for n in range(number):
        answer = client.post(mutated(originals[syntax], rng))
        slowest = max(slowest, answer.seconds)
        if answer.status != 200:
            assert answer.status in (415, 422), (syntax, n, answer)
            assert answer.code, (syntax, n)
        key = answer.code or "analysed"
        statuses[key] = statuses.get(key, 0) + 1
    assert slowest <= 10.0
    assert service.worker.is_running()
    assert service.worker.pid == service._worker().pid
    limit = 384 * 1024 * 1024
    readers = service.readers()
    assert readers
    for reader in readers:
        assert reader.rlimit(psutil.RLIMIT_AS)[1] <= limit
        assert peak_bytes(reader) <= limit
    assert service.leftovers() == []
    scale.record("mutations", syntax=syntax, files=number, slowest_s=round(slowest, 2), **statuses)
