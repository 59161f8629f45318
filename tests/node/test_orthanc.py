"""Between a real Orthanc and itself: what is stored there gets its answers there."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pydicom
import pytest
from PIL import Image

from spinexr.inference.predictor import Predictor
from spinexr.node import senders
from spinexr.node.configuration import Destination
from spinexr.node.node import Node
from spinexr.node.queue import Queue
from spinexr.phantom import writer
from tests import builders
from tests.disks import small_disk
from tests.node import peers
from tests.node.orthanc import Orthanc
from tests.node.peers import destination, radiograph, running, wait_until
from tests.node.test_node import worker
from tests.processes import ROOT, free_port

ANSWERS = {"SR", "PR", "OT"}
HOW_TO = ROOT / "docs/how-to/pacs-node.md"


@pytest.fixture
def port() -> int:
    """Of the node: Orthanc must know it before the node is there."""
    return free_port()


@pytest.fixture
def orthanc(tmp_path: Path, port: int) -> Iterator[Orthanc]:
    made = Orthanc(tmp_path / "orthanc", node_port=port)
    made.start()
    yield made
    made.kill()


def by_c_store(orthanc: Orthanc) -> Destination:
    return destination(orthanc.dicom_port, ae_title="ORTHANC", attempts=1000)


def by_stow(orthanc: Orthanc) -> Destination:
    return destination(orthanc.http_port, scheme="http", path="/dicom-web", attempts=1000)


@contextmanager
def node(
    folder: Path, port: int, predictor: Predictor, *ways: Destination
) -> Iterator[tuple[int, Queue]]:
    with running(
        folder,
        work=worker(predictor, *ways),
        ways=[(way, senders.to(way, ae_title=peers.NODE)) for way in ways],
        port=port,
        callers=("ORTHANC", peers.CALLER),
    ) as (made, queue):
        yield made.port, queue


def storescu(port: int, *files: Path, called: str = "ORTHANC") -> None:
    """Store as the how-to says, by dcmtk's own program, not the library's."""
    program = shutil.which("storescu", path="/usr/bin:/usr/local/bin:/opt/homebrew/bin")
    if program is None:
        pytest.skip("storescu is not installed: apt-get install dcmtk")
    (line,) = [x for x in HOW_TO.read_text("utf-8").splitlines() if x.startswith("storescu ")]
    compression, *_options, _host, _port, _file = line.split()[1:]
    titles = ["-aec", called, "-aet", peers.CALLER]
    subprocess.run(
        [program, compression, *titles, "127.0.0.1", str(port), *files],
        check=True, timeout=peers.LONGEST_S,
    )  # fmt: skip


@pytest.mark.parametrize("way", [by_c_store, by_stow])
def test_what_is_stored_in_orthanc_is_forwarded_and_answered_in_its_study(
    orthanc: Orthanc, port: int, predictor: Predictor, tmp_path: Path, way: object
) -> None:
    there = way(orthanc)  # type: ignore[operator]
    file = ROOT / "samples/lumbar-slip.dcm"
    image = pydicom.dcmread(file, stop_before_pixels=True)
    with node(tmp_path / "queue", port, predictor, there) as (_port, queue):
        storescu(orthanc.dicom_port, file)
        found = orthanc.wait_for(image.StudyInstanceUID, ANSWERS | {"DX"})
        wait_until(queue, lambda: queue.counts.waiting == {} and queue.counts.received == 0)
        assert queue.letters() == []
    assert {modality: len(there) for modality, there in found.items()} == {
        "DX": 1, "SR": 1, "PR": 1, "OT": 1,
    }  # fmt: skip

    (picture,) = found["OT"]
    study, series, instance = (
        picture[tag]["Value"][0] for tag in ("0020000D", "0020000E", "00080018")
    )
    address = f"/dicom-web/studies/{study}/series/{series}/instances/{instance}"
    png = orthanc.get(f"{address}/rendered", "image/png")
    shown = np.asarray(Image.open(BytesIO(png)).convert("RGB"))
    pixels = pydicom.dcmread(BytesIO(orthanc.file(instance))).pixel_array
    assert np.array_equal(shown, pixels)
    assert (pixels[..., 0] != pixels[..., 1]).any()  # the boxes have colours


def test_a_study_that_is_stored_on_the_node_is_answered_in_the_archive(
    orthanc: Orthanc, port: int, predictor: Predictor, tmp_path: Path
) -> None:
    files = []
    for n in range(3):
        files.append(tmp_path / f"{n}.dcm")
        files[-1].write_bytes(writer.to_bytes(radiograph(n)))
    with node(tmp_path / "queue", port, predictor, by_stow(orthanc)) as (_port, queue):
        storescu(port, *files, called=peers.NODE)
        wait_until(queue, lambda: queue.counts.waiting == {} and queue.counts.received == 0)
        assert queue.letters() == []
    found = orthanc.instances(radiograph(0).StudyInstanceUID)
    assert {modality: len(there) for modality, there in found.items()} == dict.fromkeys(ANSWERS, 3)


def test_what_orthanc_could_not_forward_is_forwarded_later_even_if_it_was_killed_meanwhile(
    orthanc: Orthanc, port: int, predictor: Predictor, tmp_path: Path
) -> None:
    images = [radiograph(n) for n in range(5)]
    (study,) = {image.StudyInstanceUID for image in images}
    assert peers.send(orthanc.dicom_port, *images[:3], called="ORTHANC") == [0x0000] * 3
    orthanc.kill()
    orthanc.start()
    assert peers.send(orthanc.dicom_port, *images[3:], called="ORTHANC") == [0x0000] * 2
    there = by_c_store(orthanc)
    work, ways = worker(predictor, there), [(there, senders.to(there, ae_title=peers.NODE))]
    options: dict[str, Any] = {
        "work": work, "ways": ways, "port": port, "callers": ("ORTHANC",),
    }  # fmt: skip
    with running(tmp_path / "queue", max_bytes=1, **options) as (node, queue):

        def refused() -> bool:
            orthanc.beat()
            return objects(node, "queue_full") >= 3

        wait_until(queue, refused)
        assert queue.counts.received == 0
    with running(tmp_path / "queue", **options) as (node, queue):
        orthanc.beat()
        wait_until(queue, lambda: objects(node, "received") == len(images))
        orthanc.wait_for(study, ANSWERS)
        wait_until(queue, lambda: queue.counts.waiting == {} and queue.counts.received == 0)
        orthanc.beat()
        assert queue.letters() == []
        assert objects(node, "received") == len(images)
    assert orthanc.unforwarded == []
    found = orthanc.instances(study)
    assert {modality: len(there) for modality, there in found.items()} == dict.fromkeys(
        ANSWERS | {"DX"}, len(images)
    )


def test_what_the_node_does_not_take_holds_up_no_other_and_stays_in_line(
    orthanc: Orthanc, port: int, tmp_path: Path
) -> None:
    large = radiograph(0, pixels=builders.pixels(2000, 1200))  # more than its door lets in
    assert peers.send(orthanc.dicom_port, large, called="ORTHANC") == [0x0000]
    with running(tmp_path / "queue", port=port, callers=("ORTHANC",)) as (node, queue):

        def refused() -> bool:
            orthanc.beat()
            return max(orthanc.unforwarded, default=0) >= 4

        wait_until(queue, refused)
        images = [radiograph(n) for n in range(1, 4)]
        assert peers.send(orthanc.dicom_port, *images, called="ORTHANC") == [0x0000] * 3
        orthanc.beat()
        wait_until(queue, lambda: objects(node, "received") == len(images))
    (tries,) = orthanc.unforwarded
    assert tries >= 4


def objects(node: Node, outcome: str) -> int:
    """How many of those that Orthanc sent had it."""
    with urlopen(f"http://127.0.0.1:{node.http_port}/metrics", timeout=peers.LONGEST_S) as answer:
        metrics = answer.read().decode()
    name = f'spinexr_node_objects_total{{caller="ORTHANC",outcome="{outcome}"}}'
    return sum(int(float(line.split()[-1])) for line in metrics.splitlines() if name in line)


def test_orthanc_down_and_killed_has_everything_once_afterwards(
    orthanc: Orthanc, port: int, predictor: Predictor, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("spinexr.node.loops.pause_s", lambda _failures: 0.2)
    images = [radiograph(n) for n in range(3)]
    with node(tmp_path / "queue", port, predictor, by_c_store(orthanc)) as (_port, queue):
        orthanc.kill()
        assert peers.send(port, *images) == [0x0000] * 3
        wait_until(queue, lambda: queue.counts.waiting == {"archive": 9})
        orthanc.start()
        orthanc.wait_for(images[0].StudyInstanceUID, {"SR"})
        orthanc.kill()  # wherever it is
        orthanc.start()
        wait_until(queue, lambda: queue.counts.waiting == {})
        assert queue.letters() == []
    found = orthanc.instances(images[0].StudyInstanceUID)  # all three are of one study
    assert {modality: len(there) for modality, there in found.items()} == dict.fromkeys(ANSWERS, 3)


def test_a_full_orthanc_has_everything_once_when_there_is_room(
    port: int, predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[int] = []

    def pause_s(number: int) -> float:
        failures.append(number)
        return 0.2

    monkeypatch.setattr("spinexr.node.loops.pause_s", pause_s)
    images = [radiograph(n) for n in range(3)]
    archive = Orthanc(tmp_path / "orthanc", node_port=port)
    with small_disk(tmp_path / "orthanc" / "db", megabytes=8) as disk, ExitStack() as last:
        last.callback(archive.kill)
        archive.start()
        rest = disk / "rest"
        rest.write_bytes(bytes(shutil.disk_usage(disk).free))
        with node(tmp_path / "queue", port, predictor, by_c_store(archive)) as (_port, queue):
            assert peers.send(port, *images) == [0x0000] * 3
            wait_until(queue, lambda: queue.counts.waiting == {"archive": 9})
            wait_until(queue, lambda: max(failures, default=0) >= 3)
            rest.unlink()
            wait_until(queue, lambda: queue.counts.waiting == {})
            assert queue.letters() == []
        found = archive.instances(images[0].StudyInstanceUID)
        assert {modality: len(there) for modality, there in found.items()} == dict.fromkeys(
            ANSWERS, 3
        )
