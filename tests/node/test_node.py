"""The node as a whole, between senders and archives on loopback."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from pathlib import Path

import pydicom
import pytest

from spinexr.domain import DetectPolicy, ObjectKind
from spinexr.errors import QueueFullError
from spinexr.imaging import reader
from spinexr.inference.predictor import Predictor
from spinexr.node import senders
from spinexr.node.queue import Queue
from spinexr.node.work import Answer, Worker
from spinexr.phantom import writer
from spinexr.reporting import codes
from tests.node import peers
from tests.node.peers import Archive, destination, radiograph, running, send, wait_until


@pytest.fixture
def archive():  # type: ignore[no-untyped-def]
    made = Archive()
    yield made
    made.close()


def way(archive: Archive, **options: object):  # type: ignore[no-untyped-def]
    there = destination(archive.port, **options)
    return there, senders.to(there, ae_title=peers.NODE)


def worker(predictor: Predictor, *destinations: object, **options: object) -> Worker:
    chosen: dict[str, object] = {
        "predictor": predictor, "read": reader.read, "codes": codes.read(),
        "destinations": destinations, "salt": bytes(32), "max_pixels": 1_000_000,
        "detect": DetectPolicy.ALWAYS, "timeout_s": 60.0, "clock": lambda: peers.NOW,
    }  # fmt: skip
    return Worker(**(chosen | options))  # type: ignore[arg-type]


def test_what_a_modality_sends_comes_out_as_three_objects_of_its_study(
    tmp_path: Path, predictor: Predictor, archive: Archive
) -> None:
    there, sender = way(archive)
    with running(tmp_path, work=worker(predictor, there), ways=[(there, sender)]) as (node, queue):
        image = radiograph()
        assert send(node.port, image) == [0x0000]
        archive.wait(3)
        wait_until(queue, lambda: queue.counts.waiting == {})
        assert queue.letters() == []
    assert [d.Modality for d in archive.kept] == ["SR", "PR", "OT"]
    assert {d.StudyInstanceUID for d in archive.kept} == {image.StudyInstanceUID}
    assert not any(tmp_path.glob("*-journal"))


def test_objects_of_an_association_are_delivered_in_its_order(
    tmp_path: Path, archive: Archive
) -> None:
    with running(tmp_path, ways=[way(archive)]) as (node, _queue):

        def sending(caller: str, start: int) -> None:
            images = [radiograph(start + n) for n in range(6)]
            assert send(node.port, *images, caller=caller) == [0x0000] * 6

        threads = [
            threading.Thread(target=sending, args=(caller, start))
            for caller, start in (("CR1", 0), ("CR2", 100))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        archive.wait(12)
    for caller, start in (("CR1", 0), ("CR2", 100)):
        texts = [t for t in archive.texts if t.startswith(caller)]
        assert texts == [f"{caller} {start + n + 1}" for n in range(6)]


def test_what_is_stopped_goes_on_where_it_was(tmp_path: Path, archive: Archive) -> None:
    with running(tmp_path) as (node, queue):  # nobody delivers
        assert send(node.port, radiograph(0), radiograph(1)) == [0x0000, 0x0000]
        wait_until(queue, lambda: queue.counts.waiting == {"archive": 2})
    with running(tmp_path, ways=[way(archive)]) as (_node, queue):
        archive.wait(2)
        wait_until(queue, lambda: queue.counts.waiting == {})
    assert archive.texts == ["CR1 1", "CR1 2"]


def test_a_queue_that_is_full_at_the_start_is_delivered_all_the_same(
    tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path) as (node, queue):  # nobody delivers
        assert send(node.port, radiograph()) == [0x0000]
        wait_until(queue, lambda: queue.counts.waiting == {"archive": 1})

    def full(*_: object) -> None:
        raise QueueFullError("The queue cannot be written: database or disk is full.")

    monkeypatch.setattr(Queue, "begin", full)
    with running(tmp_path, ways=[way(archive)]) as (_node, queue):
        wait_until(queue, lambda: queue.counts.waiting == {})
    assert archive.texts == ["CR1 1"]


def test_livez_and_metrics_say_how_it_is(tmp_path: Path, archive: Archive) -> None:
    with running(tmp_path, ways=[way(archive)]) as (node, queue):
        send(node.port, radiograph())
        archive.wait(1)
        wait_until(queue, lambda: queue.counts.waiting == {})

        def get(path: str) -> tuple[int, str]:
            address = f"http://127.0.0.1:{node.http_port}{path}"
            try:
                with urllib.request.urlopen(address, timeout=peers.LONGEST_S) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as e:
                with e:
                    return e.code, ""

        assert get("/livez") == (200, "ok\n")
        assert get("/elsewhere")[0] == 404
        normal = 'spinexr_node_analyses_total{outcome="normal"} 1.0'
        wait_until(queue, lambda: normal in get("/metrics")[1])  # counted after it is handed on
        _, metrics = get("/metrics")
        assert 'spinexr_node_objects_total{caller="CR1",outcome="received"} 1.0' in metrics
        assert 'spinexr_node_waiting{destination="archive"} 0.0' in metrics
        assert "spinexr_node_letters 0.0" in metrics
        node._loops[0].stop()
        node._loops[0].join()
        assert get("/livez")[0] == 503


def test_rules_choose_by_modality_body_part_and_caller(
    tmp_path: Path, predictor: Predictor
) -> None:
    wanted = {
        "all": destination(name="all"),
        "cr": destination(name="cr", modalities=frozenset({"CR"})),
        "lumbar": destination(name="lumbar", body_parts=frozenset({"LSPINE"})),
        "second": destination(name="second", callers=frozenset({"CR2"})),
        "reports": destination(name="reports", objects=(ObjectKind.REPORT,)),
    }
    answer = worker(predictor, *wanted.values())(
        writer.to_bytes(radiograph(attributes={"BodyPartExamined": "LSPINE"})), "CR1"
    )
    found = {output.kind: output.destinations for output in answer.outputs}
    assert found == {
        ObjectKind.REPORT: ("all", "lumbar", "reports"),
        ObjectKind.PRESENTATION: ("all", "lumbar"),
        ObjectKind.PICTURE: ("all", "lumbar"),
    }


def test_an_object_that_no_destination_wants_leaves_nothing(tmp_path: Path) -> None:
    def none(_data: bytes, _caller: str) -> Answer:
        return Answer((), "normal")

    done = threading.Event()

    def watched(data: bytes, caller: str) -> Answer:
        done.set()
        return none(data, caller)

    with running(tmp_path, work=watched) as (node, queue):
        assert send(node.port, radiograph()) == [0x0000]
        assert done.wait(peers.LONGEST_S)
        wait_until(queue, lambda: queue.counts.received == 0)
        assert queue.letters() == []


def test_a_radiograph_that_is_refused_is_a_dead_letter_and_the_next_one_is_not(
    tmp_path: Path, predictor: Predictor, archive: Archive
) -> None:
    there, sender = way(archive, objects=(ObjectKind.REPORT,))
    with running(tmp_path, work=worker(predictor, there), ways=[(there, sender)]) as (node, queue):
        chest = radiograph(0, attributes={"BodyPartExamined": "CHEST"})
        assert send(node.port, chest, radiograph(1)) == [0x0000, 0x0000]
        archive.wait(1)
        (letter,) = queue.letters()
    assert letter.code == "other_body_part"
    assert archive.kept[0].InstanceNumber == 2


def test_codes_that_are_to_be_dropped_leave_no_letter(
    tmp_path: Path, predictor: Predictor, archive: Archive
) -> None:
    there, sender = way(archive, objects=(ObjectKind.REPORT,))
    with running(
        tmp_path, work=worker(predictor, there), ways=[(there, sender)],
        dropped=["other_body_part"],
    ) as (node, queue):  # fmt: skip
        chest = radiograph(0, attributes={"BodyPartExamined": "CHEST"})
        send(node.port, chest, radiograph(1))
        archive.wait(1)
        wait_until(queue, lambda: queue.counts.received == 0)
        assert queue.letters() == []
    assert pydicom.uid.UID(archive.kept[0].SOPInstanceUID).is_valid
