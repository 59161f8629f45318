"""What claims to be large, and what is: the right refusal, soon, in little memory."""

from __future__ import annotations

import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import uid
from pydicom.encaps import encapsulate, generate_frames

from spinexr.phantom import writer
from tests import builders
from tests.robustness.service import Client, Service, multipart, peak_resident_bytes

LARGEST_CLAIM = 65535
GROWTH_MB = 50.0
SOON_S = 3.0
ANALYSED = "analysed"


def codestream(syntax: str, change: Callable[[bytearray], None]) -> bytes:
    """A file whose compressed image says something else than its header."""
    array = builders.pixels()
    if syntax == uid.JPEGBaseline8Bit:
        array = (array >> 4).astype(np.uint8)
    dataset = builders.dataset(array, transfer_syntax=syntax)
    frame = bytearray(next(generate_frames(dataset.PixelData, number_of_frames=1)))
    change(frame)
    dataset.PixelData = encapsulate([bytes(frame)])
    return writer.to_bytes(dataset)


def claim_in_siz(frame: bytearray) -> None:
    struct.pack_into(">II", frame, 8, LARGEST_CLAIM, LARGEST_CLAIM)


def claim_in_sof(frame: bytearray) -> None:
    for marker in (b"\xff\xc3", b"\xff\xc1", b"\xff\xc0", b"\xff\xf7"):
        if (place := frame.find(marker)) >= 0:
            struct.pack_into(">HH", frame, place + 5, LARGEST_CLAIM, LARGEST_CLAIM)
            return
    raise AssertionError("no start of frame")


def rle_of_runs() -> bytes:
    """128 bytes for every two: what unpacks to 64 times its size."""
    dataset = builders.dataset(transfer_syntax=uid.RLELossless)
    run = b"\x81\x00" * 2_000_000
    head = struct.pack("<16I", 2, 64, 64 + len(run), *[0] * 13)
    dataset.PixelData = encapsulate([head + run + run])
    return writer.to_bytes(dataset)


def deflated() -> bytes:
    data = builders.dicom(transfer_syntax=uid.DeflatedExplicitVRLittleEndian)
    start = 144 + int.from_bytes(data[140:144], "little")
    packer = zlib.compressobj(9, wbits=-15)
    return data[:start] + packer.compress(bytes(1_000_000_000)) + packer.flush()


def nested(levels: int = 300) -> bytes:
    """Sequences of undefined length within each other, which a reader follows level by level."""
    data = builders.dicom()
    start = 144 + int.from_bytes(data[140:144], "little")
    opened = b"\x08\x00\x18\x22SQ\x00\x00\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    closed = b"\xfe\xff\x0d\xe0\x00\x00\x00\x00" + b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"
    return data[:start] + opened * levels + closed * levels + data[start:]


BOMBS: dict[str, tuple[Callable[[], bytes], tuple[str, ...]]] = {
    "JPEG 2000 that claims 65535²": (
        lambda: codestream(uid.JPEG2000Lossless, claim_in_siz), ("image_too_large",)),
    "JPEG that claims 65535²": (
        lambda: codestream(uid.JPEGLosslessSV1, claim_in_sof), ("image_too_large",)),
    "JPEG of 8 bits that claims 65535²": (
        lambda: codestream(uid.JPEGBaseline8Bit, claim_in_sof), ("image_too_large",)),
    "JPEG-LS that claims 65535²": (
        lambda: codestream(uid.JPEGLSLossless, claim_in_sof), ("image_too_large",)),
    "RLE of runs": (rle_of_runs, ("corrupt_dicom",)),
    "1 GB deflated": (deflated, ("image_too_large",)),
    "2^31 - 1 frames": (
        lambda: builders.dicom(attributes={"NumberOfFrames": str(2**31 - 1)}),
        ("several_frames",)),
    "65535 rows and columns": (
        lambda: builders.dicom(attributes={"Rows": 65535, "Columns": 65535}),
        ("image_too_large",)),
    # Harmless where the reader gets through: then it is a radiograph with an odd attribute.
    "sequences in 300 levels": (nested, (ANALYSED, "corrupt_dicom")),
}  # fmt: skip


@pytest.fixture
def memory(service: Service) -> Iterator[None]:
    """The server does not grow by a bomb, not even for a moment."""
    Path(f"/proc/{service.worker.pid}/clear_refs").write_text("5")  # forgets the peak
    before = peak_resident_bytes(service.worker)
    yield
    assert (peak_resident_bytes(service.worker) - before) / 1e6 < GROWTH_MB


@pytest.fixture(scope="module", autouse=True)
def _warm(service: Service) -> None:
    """What every first file costs is no bomb's."""
    client = service.client()
    for _ in range(4):
        assert client.post(builders.dicom()).status == 200
    client.close()


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_file_that_claims_more_than_it_is_is_refused_soon(client: Client, bomb: str) -> None:
    """Seen failing where a codestream's own size is not looked at, where what is deflated
    unpacks without end, where any number of frames is one (tools/weaken.py).
    """
    make, expected = BOMBS[bomb]
    answer = client.post(make())
    assert answer.status in (200, 422)
    assert (ANALYSED if answer.status == 200 else answer.code) in expected
    assert answer.seconds <= SOON_S


def conversation(service: Service, chunks: Iterator[bytes]) -> tuple[bytes, float]:
    """What a server answers to a client that sends until it is cut off, and after what time."""
    start = time.perf_counter()
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as connection:
        try:
            for chunk in chunks:
                connection.sendall(chunk)
        except (BrokenPipeError, ConnectionResetError):
            pass
        try:
            answer = connection.recv(65536)
        except ConnectionResetError:
            answer = b""
    return answer, time.perf_counter() - start


@pytest.mark.usefixtures("memory")
def test_a_body_of_1_gb_is_refused_without_being_taken(service: Service) -> None:
    """Seen failing where bodies have no limit (tools/weaken.py)."""
    head = (
        b"POST /upload HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n"
        b"Content-Type: multipart/form-data; boundary=%s\r\nContent-Length: 1000000000\r\n\r\n"
    ) % multipart(b"").split(b"\r\n", 1)[0][2:]

    taken_mb = 0

    def sending() -> Iterator[bytes]:
        nonlocal taken_mb
        yield head
        yield multipart(b"").split(b"\r\n--", 1)[0]  # a file that begins
        for taken_mb in range(1000):  # noqa: B007  (how far it got is what is asked)
            yield bytes(1_000_000)

    answer, seconds = conversation(service, sending())
    assert taken_mb < 100
    # The answer may be lost where the client goes on sending into a closed connection.
    assert answer == b"" or answer.startswith(b"HTTP/1.1 413")
    assert seconds <= SOON_S
    assert service.metric("spinexr_requests_total", status="413") >= 1
    assert service.leftovers() == []


@pytest.mark.usefixtures("memory")
def test_a_form_of_10_000_parts_is_refused(client: Client) -> None:
    """Seen failing where forms have no limit of parts (tools/weaken.py)."""
    whole = multipart(builders.dicom())
    boundary = whole.split(b"\r\n", 1)[0]
    part = boundary + b'\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
    headers = {
        "Content-Type": f"multipart/form-data; boundary={boundary[2:].decode()}",
        "Accept": "application/json",
    }
    answer = client.send("POST", "/upload", part * 10_000 + whole, headers)
    assert (answer.status, answer.code) == (400, "bad_request")
    assert answer.seconds <= SOON_S


@pytest.mark.usefixtures("memory")
def test_100_000_headers_are_refused(service: Service) -> None:
    """Seen failing where a head may have as many fields as it likes (tools/weaken.py)."""

    def sending() -> Iterator[bytes]:
        yield b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"
        for n in range(100):
            yield b"".join(b"X-%d: 1\r\n" % (1000 * n + k) for k in range(1000))
        yield b"\r\n"

    answer, seconds = conversation(service, sending())
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert seconds <= SOON_S
    client = service.client()
    assert client.get("/livez").status == 200
    client.close()
