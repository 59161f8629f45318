"""The queue: what it says is on the disk, and what was begun is never lost."""

from __future__ import annotations

import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from itertools import count as count_from
from pathlib import Path
from types import SimpleNamespace

import pytest

from spinexr.domain import ObjectKind
from spinexr.errors import ConfigurationError, InstanceDiffersError, QueueFullError
from spinexr.node import seal
from spinexr.node.queue import Output, Queue, Received, held
from tests.node.peers import LIMIT, NOW

MARK = b"Mustermann^Erika"


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    made = Queue(tmp_path / "queue", max_bytes=LIMIT)
    yield made
    made.close()


def receive(queue: Queue, name: str = "1.2", data: bytes = MARK) -> str | None:
    return queue.receive(data, instance=name, caller="CR1", now=NOW)


def output(data: bytes = b"made", *names: str) -> Output:
    return Output(ObjectKind.REPORT, data, names or ("archive",))


def test_an_object_goes_from_received_to_gone(queue: Queue) -> None:
    receive(queue)
    received = queue.next_received()
    assert received is not None
    assert (received.data, received.caller) == (MARK, "CR1")
    queue.analysed(received, [output(b"made", "a", "b")])
    assert queue.next_received() is None
    assert queue.counts.waiting == {"a": 1, "b": 1}
    for name in ("a", "b"):
        delivery = queue.next_delivery(name)
        assert delivery is not None
        assert (delivery.data, delivery.request) == (b"made", received.request)
        queue.delivered(delivery)
    assert rows(queue) == {"objects": 0, "outputs": 0, "deliveries": 0}


def rows(queue: Queue) -> dict[str, int]:
    execute = queue._connection.execute
    return {
        table: execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]  # noqa: S608
        for table in ("objects", "outputs", "deliveries")
    }


def test_folder_and_files_are_the_owner_s_only(queue: Queue, tmp_path: Path) -> None:
    receive(queue)
    with held(tmp_path / "queue"):
        assert stat.S_IMODE((tmp_path / "queue").stat().st_mode) == 0o700
        for file in (tmp_path / "queue").iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_commits_reach_the_disk_before_they_count(queue: Queue) -> None:
    execute = queue._connection.execute
    assert execute("PRAGMA synchronous").fetchone() == (3,)  # EXTRA
    assert execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_what_is_delivered_is_nowhere_in_the_file(queue: Queue, tmp_path: Path) -> None:
    receive(queue, data=MARK * 4000)
    received = queue.next_received()
    assert received is not None
    file = tmp_path / "queue/queue.sqlite"
    assert MARK in file.read_bytes()
    queue.analysed(received, [output(MARK * 3000)])
    delivery = queue.next_delivery("archive")
    assert delivery is not None
    queue.delivered(delivery)
    assert MARK not in file.read_bytes()


def test_the_same_object_once_more_is_no_second_one(queue: Queue) -> None:
    assert receive(queue)
    assert receive(queue) is None
    assert queue.counts.received == 1


def test_another_object_with_the_same_uid_is_refused_until_the_first_is_delivered(
    queue: Queue,
) -> None:
    receive(queue)
    with pytest.raises(InstanceDiffersError, match="SOP Instance UID"):
        receive(queue, data=b"other")
    received = queue.next_received()
    assert received is not None
    queue.analysed(received, [])
    assert receive(queue, data=b"other")


def test_a_file_with_another_header_around_the_same_object_is_the_same(queue: Queue) -> None:
    def with_header(header: bytes) -> str | None:
        return queue.receive(
            header + MARK, instance="1.2", caller="CR1", now=NOW, content=MARK
        )  # fmt: skip

    assert with_header(b"3.0.4")
    assert with_header(b"3.0.5") is None


def done(queue: Queue) -> None:
    """The next object is analysed and delivered."""
    received = queue.next_received()
    assert received is not None
    queue.analysed(received, [output()])
    delivery = queue.next_delivery("archive")
    assert delivery is not None
    queue.delivered(delivery)


def test_what_outlived_a_node_and_is_sent_again_is_done_once(queue: Queue) -> None:
    queue.begin(["archive"])
    receive(queue)
    done(queue)
    assert receive(queue)  # whose answer was heard: its sender wants it done again
    queue.begin(["archive"])  # as another node
    done(queue)
    assert receive(queue, data=b"other")
    done(queue)
    assert receive(queue) is None
    assert queue.counts.received == 0
    assert receive(queue)


def test_what_outlived_a_node_and_is_sent_again_in_time_may_be_sent_again_later(
    queue: Queue,
) -> None:
    receive(queue)
    queue.begin(["archive"])
    assert receive(queue) is None  # it is there
    done(queue)
    assert receive(queue)


def test_what_outlived_a_node_is_remembered_by_the_next_one_alone(queue: Queue) -> None:
    receive(queue)
    queue.begin(["archive"])
    done(queue)
    queue.begin(["archive"])
    assert receive(queue)


def test_what_outlived_a_node_and_led_to_nothing_may_be_sent_again(queue: Queue) -> None:
    ends: dict[str, Callable[[Received], None]] = {
        "dropped": queue.dropped,
        "not wanted": lambda received: queue.analysed(received, []),
        "dead": lambda received: queue.failed(received, "not_dicom", ""),
        "not delivered": lambda received: queue.analysed(received, [output()]),
    }
    for name in ends:
        receive(queue, name)
    queue.begin(["archive"])
    for end in ends.values():
        received = queue.next_received()
        assert received is not None
        end(received)
    delivery = queue.next_delivery("archive")
    assert delivery is not None
    queue.refused(delivery, "object_refused", "")
    for letter in queue.letters():
        assert queue.drop(letter.name)
    for name in ends:
        assert receive(queue, name), name


def test_a_queue_that_is_full_when_a_node_begins_says_so(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "_writing", full)
    with pytest.raises(QueueFullError, match="full"):
        queue.begin(["archive"])


def test_what_was_begun_when_the_process_ended_is_begun_again(tmp_path: Path) -> None:
    first = Queue(tmp_path, max_bytes=LIMIT)
    receive(first, "1.2")
    receive(first, "1.3")
    assert first.next_received()
    first.close()
    second = Queue(tmp_path, max_bytes=LIMIT)
    again = second.next_received()
    assert again is not None
    assert (again.deaths, again.data) == (1, MARK)
    second.put_back(again, failed=True)
    third = second.next_received()
    assert third is not None
    assert (third.number, third.deaths, third.attempts) == (again.number, 1, 1)
    second.close()


def test_what_one_process_begins_again_and_again_has_killed_nobody(tmp_path: Path) -> None:
    first = Queue(tmp_path, max_bytes=LIMIT)
    receive(first)
    begun = [first.next_received() for _ in range(5)]
    assert [b.deaths for b in begun if b] == [0] * 5
    first.close()
    second = Queue(tmp_path, max_bytes=LIMIT)
    again = second.next_received()
    assert again is not None
    assert again.deaths == 1
    second.close()


def test_more_than_it_may_hold_is_refused_and_there_is_room_again_afterwards(
    tmp_path: Path,
) -> None:
    queue = Queue(tmp_path, max_bytes=400_000)
    receive(queue, "1", bytes(200_000))
    with pytest.raises(QueueFullError, match="SPINEXR_NODE_QUEUE_MB"):
        receive(queue, "2", bytes(200_000))
    received = queue.next_received()
    assert received is not None
    queue.analysed(received, [])
    assert receive(queue, "2", bytes(200_000))
    queue.close()


def test_a_full_disk_is_refused_before_it_is_full(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=1000))
    with pytest.raises(QueueFullError, match="full"):
        receive(queue)
    assert rows(queue)["objects"] == 0


def test_a_disk_that_is_full_all_the_same_loses_nothing(queue: Queue) -> None:
    receive(queue, "1")
    (pages,) = queue._connection.execute("PRAGMA page_count").fetchone()
    queue._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(QueueFullError, match="full"):
        receive(queue, "2", bytes(100_000))
    received = queue.next_received()
    assert received is not None
    with pytest.raises(sqlite3.OperationalError, match="full"):
        queue.analysed(received, [output(bytes(100_000))])
    queue._connection.execute("PRAGMA max_page_count = 1000000")
    assert rows(queue) == {"objects": 1, "outputs": 0, "deliveries": 0}
    again = queue.next_received()
    assert again is not None
    assert again.data == MARK


def test_a_refusal_that_cannot_be_noted_is_no_death(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive(queue)
    received = queue.next_received()
    assert received is not None
    with monkeypatch.context() as patch:
        patch.setattr(queue._seal, "close", full)
        with pytest.raises(sqlite3.OperationalError):
            queue.failed(received, "not_dicom", "")
    again = queue.next_received()
    assert again is not None
    assert again.deaths == 0


def full(*_: object) -> bytes:
    raise sqlite3.OperationalError("database or disk is full")


def test_a_long_line_for_one_destination_makes_no_work_for_another(queue: Queue) -> None:
    def work() -> int:
        """Steps of SQLite's machine for an object from its arrival to its delivery."""
        steps = 0

        def count() -> int:
            nonlocal steps
            steps += 1
            return 0

        queue._connection.set_progress_handler(count, 1)
        pass_through("up")
        delivery = queue.next_delivery("up")
        assert delivery is not None
        queue.delivered(delivery)
        queue._connection.set_progress_handler(None, 1)
        return steps

    def pass_through(destination: str) -> None:
        receive(queue, str(next(numbers)))
        received = queue.next_received()
        assert received is not None
        queue.analysed(received, [output(b"made", destination)])

    numbers = count_from(1)
    pass_through("down")
    before = work()
    for _ in range(100):
        pass_through("down")
    assert work() < 1.2 * before


def test_a_jump_of_the_clock_changes_no_order(queue: Queue) -> None:
    for number, year in enumerate((2026, 1999, 2050)):
        queue.receive(b"x", instance=str(number), caller="CR1", now=datetime(year, 1, 1))
    found = []
    while (received := queue.next_received()) is not None:
        found.append(received.number)
        queue.failed(received, "not_dicom", "No.")
    assert found == sorted(found)
    assert len(found) == 3


# --- dead letters ---------------------------------------------------------------------------------


def test_dead_letters_are_listed_retried_and_dropped(queue: Queue) -> None:
    receive(queue, "1")
    receive(queue, "2")
    (first,) = [queue.next_received()]
    assert first is not None
    queue.failed(first, "not_dicom", "What it reads like.")
    second = queue.next_received()
    assert second is not None
    queue.analysed(second, [output(b"made", "a", "b")])
    delivery = queue.next_delivery("a")
    assert delivery is not None
    queue.refused(delivery, "object_refused", "a answered 0xC000.")
    letters = queue.letters()
    assert [(x.name[0], x.what, x.destination, x.code) for x in letters] == [
        ("r", "radiograph", "", "not_dicom"), ("d", "report", "a", "object_refused"),
    ]  # fmt: skip
    assert letters[0].message == "What it reads like."
    assert queue.counts.dead == 2

    assert queue.retry(letters[0].name)
    again = queue.next_received()
    assert again is not None
    assert (again.number, again.deaths, again.attempts) == (first.number, 0, 0)
    queue.failed(again, "not_dicom", "")
    assert queue.drop(letters[0].name)
    assert queue.drop(letters[1].name)
    assert queue.letters() == []
    assert queue.counts.waiting == {"b": 1}


def test_a_letter_to_where_nobody_delivers_is_not_retried(queue: Queue) -> None:
    receive(queue)
    received = queue.next_received()
    assert received is not None
    queue.analysed(received, [output(b"made", "old")])
    delivery = queue.next_delivery("old")
    assert delivery is not None
    queue.refused(delivery, "object_refused", "")
    queue.begin(["new", "other"])
    (letter,) = queue.letters()
    with pytest.raises(ConfigurationError, match="no more to old"):
        queue.retry(letter.name)
    assert queue.letters() == [letter]
    queue.begin(["new", "old"])
    assert queue.retry(letter.name)


@pytest.mark.parametrize("name", ["r99", "d99", "x1", "r", "1", "r1; DROP"])
def test_what_is_no_letter_is_neither_retried_nor_dropped(queue: Queue, name: str) -> None:
    receive(queue)
    assert not queue.retry(name)
    assert not queue.drop(name)
    assert not queue.drop("r1")  # it waits, and is not dead
    assert queue.counts.received == 1


def test_letters_may_be_worked_on_from_another_process_s_connection(tmp_path: Path) -> None:
    node, command = (Queue(tmp_path, max_bytes=LIMIT) for _ in range(2))
    receive(node)
    received = node.next_received()
    assert received is not None
    node.failed(received, "not_dicom", "")
    (letter,) = command.letters()
    command.retry(letter.name)
    assert node.next_received() is not None
    node.close()
    command.close()


def test_one_node_at_a_time_works_on_a_queue(tmp_path: Path) -> None:
    with (
        held(tmp_path),
        pytest.raises(ConfigurationError, match="Another node"),
        held(tmp_path),
    ):
        pass
    with held(tmp_path):
        pass


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "queue").write_text("a file")
    with pytest.raises(ConfigurationError, match="SPINEXR_NODE_QUEUE"):
        Queue(tmp_path / "queue", max_bytes=LIMIT)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/queue.sqlite").write_bytes(b"no database " * 100)
    with pytest.raises(ConfigurationError, match="not a database"):
        Queue(tmp_path / "other", max_bytes=LIMIT)


# --- the seal -------------------------------------------------------------------------------------


def key_file(tmp_path: Path, name: str = "key") -> Path:
    seal.write_key(tmp_path / name)
    return tmp_path / name


def test_with_a_key_nothing_of_an_object_is_on_the_disk(tmp_path: Path) -> None:
    closed = seal.from_file(key_file(tmp_path))
    queue = Queue(tmp_path / "queue", seal=closed, max_bytes=LIMIT)
    receive(queue, "1.2.3.4.5", MARK * 100)
    receive(queue, "1.2.3.4.6", MARK)
    received = queue.next_received()
    assert received is not None
    assert received.data == MARK * 100
    queue.analysed(received, [output(MARK * 50)])
    other = queue.next_received()
    assert other is not None
    queue.failed(other, "other_body_part", "(0018,0015) reads 'Mustermann^Erika'")
    everything = (tmp_path / "queue/queue.sqlite").read_bytes()
    assert MARK not in everything
    assert b"1.2.3.4." not in everything
    delivery = queue.next_delivery("archive")
    assert delivery is not None
    assert delivery.data == MARK * 50
    assert "Mustermann" in queue.letters()[0].message
    queue.close()


def test_another_key_or_none_is_refused(tmp_path: Path) -> None:
    Queue(tmp_path / "q", seal=seal.from_file(key_file(tmp_path)), max_bytes=LIMIT).close()
    with pytest.raises(ConfigurationError, match="does not open with this key"):
        Queue(tmp_path / "q", seal=seal.from_file(key_file(tmp_path, "b")), max_bytes=LIMIT)
    with pytest.raises(ConfigurationError, match="begun with a key"):
        Queue(tmp_path / "q", max_bytes=LIMIT)
    Queue(tmp_path / "open", max_bytes=LIMIT).close()
    with pytest.raises(ConfigurationError, match="begun without a key"):
        Queue(tmp_path / "open", seal=seal.from_file(tmp_path / "key"), max_bytes=LIMIT)


def test_a_damaged_record_is_a_dead_letter_and_the_others_have_their_turn(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "q", seal=seal.from_file(key_file(tmp_path)), max_bytes=LIMIT)
    for n in range(4):
        receive(queue, f"1.2.{n}", bytes([n]))
    for _ in range(2):
        received = queue.next_received()
        assert received is not None
        queue.analysed(received, [output(received.data)])

    def damage(statement: str) -> None:
        with closing(sqlite3.connect(tmp_path / "q/queue.sqlite")) as connection, connection:
            assert connection.execute(statement).rowcount == 1

    damage("UPDATE objects SET data = zeroblob(40) WHERE number = 3")
    damage("UPDATE outputs SET data = x'00' WHERE number = 1")
    received = queue.next_received()
    delivery = queue.next_delivery("archive")
    assert received is not None
    assert delivery is not None
    assert (received.data, delivery.data) == (b"\x03", b"\x01")
    assert [(x.name, x.code) for x in queue.letters()] == [
        ("r3", "record_damaged"), ("d1", "record_damaged"),
    ]  # fmt: skip
    damage("UPDATE objects SET message = x'00' WHERE number = 3")
    assert queue.letters()[0].message == "(This text is damaged.)"
    assert queue.retry("r3")
    queue.put_back(received, failed=False)
    received = queue.next_received()
    assert received is not None
    assert received.data == b"\x03"
    assert [x.name for x in queue.letters()] == ["r3", "d1"]
    queue.close()


def test_a_dead_letter_that_is_sent_again_waits_again(queue: Queue) -> None:
    name = receive(queue)
    received = queue.next_received()
    assert received is not None
    queue.failed(received, "busy", "too much at once")
    assert queue.next_received() is None
    assert receive(queue) == name
    assert queue.letters() == []
    again = queue.next_received()
    assert again is not None
    assert (again.data, again.deaths, again.attempts) == (MARK, 0, 0)
    assert receive(queue) is None


def test_what_was_closed_in_one_place_opens_in_no_other(tmp_path: Path) -> None:
    closed = seal.from_file(key_file(tmp_path))
    data = closed.close(MARK, "object 1")
    assert closed.open(data, "object 1") == MARK
    with pytest.raises(ConfigurationError, match="key"):
        closed.open(data, "object 2")


@pytest.mark.parametrize("content", [b"", b"short", b"QUJD", b"\xff\xfe"])
def test_a_file_that_holds_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(ConfigurationError, match="holds no key"):
        seal.from_file(tmp_path / "key")


def test_a_key_overwrites_nothing_and_is_the_owner_s_only(tmp_path: Path) -> None:
    file = key_file(tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        seal.write_key(file)
