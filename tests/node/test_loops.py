"""What is tried again, how long it is waited for, and what becomes a dead letter."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spinexr.errors import (
    BusyError,
    CorruptDicomError,
    DestinationDeniedError,
    DestinationUnavailableError,
    ObjectRefusedError,
)
from spinexr.node.loops import Analysing, Delivering, pause_s
from spinexr.node.queue import Queue
from spinexr.node.work import Answer
from spinexr.phantom import writer
from tests.node import peers
from tests.node.peers import echoing, radiograph, steps


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    made = Queue(tmp_path, max_bytes=peers.LIMIT)
    yield made
    made.close()


def fill(queue: Queue, number: int = 3) -> None:
    for n in range(number):
        image = radiograph(n)
        queue.receive(
            writer.to_bytes(image), instance=image.SOPInstanceUID, caller="CR1", now=peers.NOW
        )


class Script:
    """A sender or work that raises what it is told to, then does its work; keeps what it got."""

    def __init__(self, *errors: BaseException | None) -> None:
        self.errors = list(errors)
        self.got: list[bytes] = []

    def send(self, data: bytes) -> None:
        if self.errors and (error := self.errors.pop(0)) is not None:
            raise error
        self.got.append(data)

    def work(self, data: bytes, caller: str) -> Any:
        self.send(data)
        return echoing(data, caller)


def analysing(queue: Queue, work: Any = echoing, **options: Any) -> tuple[Analysing, list[float]]:
    return without_waiting(Analysing(queue, work, **options))


def delivering(queue: Queue, sender: Any, attempts: int = 5) -> tuple[Delivering, list[float]]:
    return without_waiting(Delivering(queue, "archive", sender, attempts=attempts))


def without_waiting(loop: Any) -> tuple[Any, list[float]]:
    """The loop, and how long it would have waited."""
    pauses: list[float] = []

    def pause() -> None:
        loop._failures += 1
        pauses.append(pause_s(loop._failures))

    loop.pause = pause
    return loop, pauses


def test_pauses_grow_to_five_minutes_and_no_further() -> None:
    assert [pause_s(n) for n in (1, 2, 3, 9, 10, 10_000)] == [1, 2, 4, 256, 300, 300]


def test_a_destination_that_is_down_gets_everything_afterwards_in_order(queue: Queue) -> None:
    fill(queue)
    steps(analysing(queue)[0])
    sender = Script(*[DestinationUnavailableError("down")] * 4)
    loop, pauses = delivering(queue, sender)
    assert steps(loop) == 7
    assert pauses == [1, 2, 4, 8]
    assert sender.got == [peers.report(f"CR1 {n}") for n in (1, 2, 3)]
    assert queue.letters() == []


def test_what_the_queue_could_not_note_is_not_sent_again(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(queue, 2)
    steps(analysing(queue)[0])
    sender = Script()
    loop, _ = delivering(queue, sender)
    with monkeypatch.context() as patch:
        patch.setattr(Queue, "delivered", full)
        for _ in range(3):
            with pytest.raises(sqlite3.OperationalError):
                loop.step()
        assert queue.counts.waiting == {"archive": 2}
    steps(loop)
    assert sender.got == [peers.report("CR1 1"), peers.report("CR1 2")]
    assert queue.counts.waiting == {}


def full(*_: object, **__: object) -> None:
    raise sqlite3.OperationalError("database or disk is full")


def test_an_image_that_was_sent_under_another_uid_than_its_own_gets_no_answer(
    queue: Queue,
) -> None:
    fill(queue, 2)
    own = iter(["1.2.3", str(radiograph(1).SOPInstanceUID)])

    def work(data: bytes, caller: str) -> Answer:
        return replace(echoing(data, caller), instance=next(own))

    steps(analysing(queue, work)[0])
    (letter,) = queue.letters()
    assert letter.code == "instance_differs"
    assert "Affected SOP Instance UID" in letter.message
    assert queue.counts.waiting == {"archive": 1}


def test_after_its_attempts_an_object_is_a_dead_letter_and_the_next_one_has_as_many(
    queue: Queue,
) -> None:
    fill(queue, 2)
    steps(analysing(queue)[0])
    sender = Script(*[DestinationDeniedError("archive answered 401.")] * 5, None)
    loop, _ = delivering(queue, sender)
    steps(loop)
    (letter,) = queue.letters()
    assert (letter.code, letter.attempts) == ("destination_denied", 5)
    assert sender.got == [peers.report("CR1 2")]
    queue.retry(letter.name)
    steps(loop)
    assert sender.got == [peers.report("CR1 2"), peers.report("CR1 1")]
    assert queue.letters() == []


def test_an_object_that_is_refused_holds_up_no_other(queue: Queue) -> None:
    fill(queue, 3)
    steps(analysing(queue)[0])
    sender = Script(None, ObjectRefusedError("archive answered 0xC000."))
    loop, pauses = delivering(queue, sender)
    steps(loop)
    assert pauses == []
    assert sender.got == [peers.report("CR1 1"), peers.report("CR1 3")]
    (letter,) = queue.letters()
    assert (letter.code, letter.message) == ("object_refused", "archive answered 0xC000.")


def test_a_fault_of_a_library_is_tried_again_and_its_words_are_not_kept(queue: Queue) -> None:
    fill(queue, 1)
    steps(analysing(queue)[0])
    loop, pauses = delivering(queue, Script(KeyError("Mustermann")), attempts=1)
    steps(loop)
    assert pauses == [1]
    (letter,) = queue.letters()
    assert letter.code == "internal_error"
    assert "Mustermann" not in letter.message
    assert "KeyError" in letter.message


def test_an_analysis_without_room_is_tried_again_in_its_place(queue: Queue) -> None:
    fill(queue, 2)
    script = Script(BusyError("later"), BusyError("later"))
    loop, pauses = analysing(queue, script.work)
    steps(loop)
    assert pauses == [1, 2]
    assert queue.counts.waiting == {"archive": 2}
    delivery = queue.next_delivery("archive")
    assert delivery is not None
    assert delivery.data == peers.report("CR1 1")


def test_an_analysis_that_never_has_room_is_a_dead_letter(queue: Queue) -> None:
    fill(queue, 1)
    loop, _ = analysing(queue, Script(*[BusyError("later")] * 100).work)
    steps(loop)
    (letter,) = queue.letters()
    assert letter.code == "busy"


@pytest.mark.parametrize(
    ("error", "code"),
    [(CorruptDicomError("no"), "corrupt_dicom"), (KeyError("x"), "internal_error")],
)
def test_what_cannot_be_analysed_is_a_dead_letter_and_the_next_one_is_not(
    queue: Queue, error: Exception, code: str
) -> None:
    fill(queue, 2)
    loop, pauses = analysing(queue, Script(error).work)
    steps(loop)
    assert pauses == []
    assert [letter.code for letter in queue.letters()] == [code]
    assert queue.counts.waiting == {"archive": 1}


def test_what_ends_the_process_three_times_is_a_dead_letter(queue: Queue) -> None:
    fill(queue, 2)
    loop, _ = analysing(queue, Script(*[KeyboardInterrupt()] * 3).work)  # as a kill: no handler
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            loop.step()
        queue._begun = None  # what comes next is another process
    steps(loop)
    assert [letter.code for letter in queue.letters()] == ["worker_died"]
    assert queue.counts.waiting == {"archive": 1}


def test_a_queue_that_cannot_be_written_ends_no_thread(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(queue, 1)
    loop, pauses = analysing(queue)
    real = Queue.next_received

    def twice_full(self: Queue) -> Any:
        if len(pauses) < 2:
            full()
        loop._stop.set()
        return real(self)

    monkeypatch.setattr(Queue, "next_received", twice_full)
    loop.start()
    loop.join()
    assert pauses == [1, 2]
    assert queue.counts.waiting == {"archive": 1}
