"""The yardstick measures the same work, and its tables say what was measured."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spinexr.analysis import analyse
from spinexr.benchmark import measure, radiographs, report, servers
from spinexr.benchmark.servers import Server
from spinexr.errors import ConfigurationError
from spinexr.imaging import reader
from spinexr.inference.predictor import Predictor
from tests import builders


class FakeServer(Server):
    """Answers at once with a status."""

    def __init__(self, name: str, status: int = 200) -> None:
        self.name = name
        self.status = status
        self.asked = 0

    def post(self, data: bytes, *, html: bool = False) -> tuple[float, int, bytes]:
        self.asked += 1
        return 0.5, self.status, b"answer"

    def memory_bytes(self) -> int:
        return 7


def test_the_plain_server_and_spinexr_answer_alike(
    untrained_root: Path, real_predictor: Predictor
) -> None:
    from spinexr.benchmark.reference import create_reference

    data = builders.dicom(builders.pixels(540, 360))
    client = create_reference(untrained_root, threads=2).test_client()
    plain = client.post("/upload", data={"file": (BytesIO(data), "a.dcm")}).get_json()
    ours = analyse(data, predictor=real_predictor, max_pixels=10**7).prediction
    assert plain["abnormal"] is True
    assert ours.probability == pytest.approx(plain["probability"], abs=1e-4)
    firm = [f for f in ours.findings or () if not f.tentative]
    assert len(firm) == len(plain["boxes"]) >= 1
    for found, expected in zip(firm, plain["boxes"], strict=True):
        assert found.label == expected["label"]
        assert found.confidence == pytest.approx(expected["confidence"], abs=1e-3)
        box = (found.box.x1, found.box.y1, found.box.x2, found.box.y2)
        np.testing.assert_allclose(box, expected["xyxy"], atol=0.5)


def test_every_encoding_holds_the_same_image() -> None:
    stored = radiographs.resized(builders.pixels(200, 130), 0.03)
    assert stored.size == pytest.approx(30_000, rel=0.02)
    for syntax in radiographs.SYNTAXES:
        found = reader.read(radiographs.encoded(stored, syntax), max_pixels=10**6).stored
        np.testing.assert_array_equal(found, stored)


def test_servers_are_asked_in_turn_and_medians_are_theirs() -> None:
    a, b = FakeServer("a"), FakeServer("b")
    assert measure.alternating([a, b], b"file", rounds=3) == {"a": 0.5, "b": 0.5}
    assert a.asked == b.asked == 5


def test_refusals_are_no_answers() -> None:
    with pytest.raises(ConfigurationError, match="answered 503"):
        measure.alternating([FakeServer("busy", status=503)], b"file", rounds=1)


def test_throughput_counts_every_answer() -> None:
    server = FakeServer("a")
    found = measure.throughput(server, b"file", clients=4, requests=12)
    assert server.asked == 13
    assert found.p50_s == found.p99_s == 0.5
    assert found.per_second > 0


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="Linux only")
def test_memory_is_that_of_the_whole_family() -> None:
    assert servers._pss(os.getpid()) > 10_000_000
    assert os.getpid() in servers._family(os.getppid())


def test_the_tables_hold_ratios_against_the_first_server() -> None:
    results: dict[str, Any] = {
        "machine": {
            "processor": "A processor", "threads": 2, "system": "Linux", "python": "3.11",
            "torch": "2", "openvino": "1", "detector": "yolo11n", "rows": 2, "columns": 1,
            "rounds": 3, "reference_decoders": "gdcm",
        },
        "latency": [
            {"syntax": "JPEG 2000", "case": "normal",
             "seconds": {"reference, 1 thread": 1.2, "SpineXR, exact": 0.3}},
        ],
        "throughput": [
            {"server": "reference, 1 thread", "clients": 1, "per_second": 0.5, "p50_s": 2.0,
             "p95_s": 2.1, "p99_s": 2.2, "peak_bytes": 2**30},
            {"server": "SpineXR, exact", "clients": 8, "per_second": 2.0, "p50_s": 4.0,
             "p95_s": 4.1, "p99_s": 4.2, "peak_bytes": 2**29},
        ],
        "start": [{"server": "s", "ready_s": 1.25, "json_bytes": 1000, "html_bytes": 0}],
        "stages": {"reading": {"decode": 0.1}, "exact": {"resize": 0.002}},
        "networks": [
            {"network": "DenseNet121", "precision": "exact", "gflop": 5.7, "seconds": 0.05,
             "shares": {"PyTorch": 0.71}},
        ],
        "sizes": [{"megapixels": 4.0, "file_bytes": 5_000_000, "read_s": 0.2, "rest_s": 0.3}],
    }  # fmt: skip
    table = report.as_markdown(results)
    assert "| JPEG 2000 | normal | 1200 | 300 | 4.00 × |" in table
    assert "| SpineXR, exact | 8 | 2.00 | 4.00 × | 4000 | 4100 | 4200 | 512 |" in table
    assert "| DenseNet121 | exact | 5.7 | 50.0 | 114 | 0.71 |" in table
    assert "| resize |  | 2.0 |" in table
