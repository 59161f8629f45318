"""The durable queue: what was received and is not delivered yet, in one SQLite file.

    received ──analysed──► deliveries ──delivered──► gone
        └──────────── dead letters ◄──────┘

Each step is one transaction that is on the disk before it counts: DELETE journal with
synchronous=EXTRA, which also syncs the folder after a commit. So a kill at any moment leaves the
state before a step or the state after it. The only thing a kill can take is the knowledge that a
destination has answered; the delivery is then repeated, byte for byte, with the same SOP Instance
UID, which an archive that has it takes as what it is: the same object.

No time is in any decision: the order is that of arrival, and attempts are counted. Clocks may jump.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from enum import IntEnum
from pathlib import Path

from spinexr.domain import ObjectKind
from spinexr.errors import (
    ConfigurationError,
    InstanceDiffersError,
    QueueFullError,
    RecordDamagedError,
)
from spinexr.node.seal import KeySeal, NoSeal, Seal

_FILE, _LOCK = "queue.sqlite", "lock.sqlite"
_VERSION = "1"
_CHECK, _SALT, _DESTINATIONS = "check", "salt", "destinations"
_BUSY_S = 30.0
# Room that has to stay on the disk for the answers to what was received: an object and its picture.
_SPARE_BYTES = 128 * 1024 * 1024

_DAMAGED = (
    RecordDamagedError.code,
    "What the queue kept of this object is not what it wrote, so the disk may be failing. Drop the "
    "letter, and have the radiograph sent again.",
)

_TABLES = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS objects (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    request TEXT NOT NULL,
    caller TEXT NOT NULL,
    instance BLOB NOT NULL UNIQUE,
    content BLOB NOT NULL,
    received TEXT NOT NULL,
    state INTEGER NOT NULL DEFAULT 0,
    deaths INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    code TEXT,
    message BLOB,
    data BLOB
);
CREATE TABLE IF NOT EXISTS outputs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    object INTEGER NOT NULL REFERENCES objects (number),
    kind TEXT NOT NULL,
    place TEXT NOT NULL,
    data BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS deliveries (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    output INTEGER NOT NULL REFERENCES outputs (number),
    destination TEXT NOT NULL,
    state INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    code TEXT,
    message BLOB
);
CREATE TABLE IF NOT EXISTS survivors (
    instance BLOB PRIMARY KEY,
    content BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS received ON objects (number) WHERE state = 0;
CREATE INDEX IF NOT EXISTS outputs_of ON outputs (object);
CREATE INDEX IF NOT EXISTS deliveries_of ON deliveries (output);
CREATE INDEX IF NOT EXISTS waiting ON deliveries (destination, number) WHERE state = 0;
"""


class State(IntEnum):
    """Of an object that was received, and of a delivery (which is waiting or dead)."""

    WAITING = 0
    ANALYSED = 1
    DEAD = 2


@dataclass(frozen=True, slots=True)
class Received:
    """What is to be analysed. `instance`: the UID it was sent under, as the queue names it;
    `deaths`: how often a process ended while it had it; `attempts`: how often there was no answer
    for another reason."""

    number: int
    instance: bytes
    request: str
    caller: str
    deaths: int
    attempts: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Output:
    """An object to be delivered, as a file, and where to."""

    kind: ObjectKind
    data: bytes
    destinations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One object for one destination."""

    number: int
    request: str
    kind: ObjectKind
    attempts: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter: what it is that nobody took, and why.

    name: what the commands call it, such as r12 (a radiograph) or d34 (a delivery).
    """

    name: str
    what: str
    destination: str
    received: str
    attempts: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Counts:
    """How much the queue holds now."""

    received: int
    waiting: dict[str, int]  # by destination
    dead: int
    used_bytes: int


class Queue:
    """The open queue. Threads may share it, and another process may have it open as well."""

    def __init__(self, folder: Path, *, seal: Seal | None = None, max_bytes: int) -> None:
        """Open a queue, or begin one; what was begun and not finished is waiting again.

        Raises:
            ConfigurationError: it cannot be written, belongs to another key, or is of another
                version.
        """
        self._seal: Seal = seal or NoSeal()
        self._max_bytes = max_bytes
        self._lock = threading.RLock()
        self._begun: int | None = None  # what this process has begun to analyse
        self._folder = folder
        self.changed = threading.Condition()
        try:
            prepare(folder)
            file = folder / _FILE
            _create(file)
            self._connection = sqlite3.connect(
                file, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as e:
            raise _unusable(folder, e) from e
        try:
            for pragma in (
                "auto_vacuum = INCREMENTAL",  # before the first table
                "journal_mode = DELETE",
                "synchronous = EXTRA",
                "secure_delete = ON",
                "foreign_keys = ON",
            ):
                self._connection.execute(f"PRAGMA {pragma}")
            self._connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} COMMIT;")
            self._check()
        except sqlite3.Error as e:
            self._connection.close()
            raise _unusable(folder, e) from e
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def begin(self, destinations: Sequence[str]) -> None:
        """A node begins to work on the queue; notes where it delivers to.

        What the queue holds has outlived another node. Its senders may not have had an answer and
        send it again, perhaps when it is delivered and gone; so each is remembered, until it comes
        or another node begins, by keyed hashes where there is a key.

        Raises:
            QueueFullError: it cannot be written. The node may go on all the same.
        """
        try:
            with self._writing() as connection:
                connection.execute(
                    "INSERT OR REPLACE INTO about VALUES (?, ?)",
                    (_DESTINATIONS, "\n".join(destinations).encode()),
                )
                connection.execute("DELETE FROM survivors")
                connection.execute("INSERT INTO survivors SELECT instance, content FROM objects")
        except sqlite3.Error as e:
            raise _not_written(e) from e

    # --- from received to delivered ---------------------------------------------------------------

    def receive(
        self, data: bytes, *, instance: str, caller: str, now: datetime, content: bytes = b""
    ) -> str | None:
        """Keep an object; when this returns it is on the disk.

        Args:
            data: the whole file.
            instance: its SOP Instance UID, as its sender names it.
            content: what makes it the same object; the file where nothing is given.
            now: for people who look at dead letters.

        Returns:
            The random name it goes by in logs; None where the queue holds the same object already,
            or held it when the process before ended, whose answer its sender may not have got. A
            dead letter that is sent again waits again.

        Raises:
            InstanceDiffersError: it holds another object with this UID.
            QueueFullError: there is no room.
        """
        name, identity = self._named(instance), self._seal.name(content or data)
        request = secrets.token_hex(8)
        try:
            with self._writing() as connection:
                known = connection.execute(
                    "SELECT number, request, content, state FROM objects WHERE instance = ?",
                    (name,),
                ).fetchone()
                # One repeat is that of a sender who had no answer; another one is meant.
                repeats = connection.execute(
                    "DELETE FROM survivors WHERE instance = ? AND content = ?", (name, identity)
                ).rowcount
                if known is None and repeats:
                    return None
                if known is None:
                    self._refuse_too_much(len(data))
                    connection.execute(
                        "INSERT INTO objects (request, caller, instance, content, received, data)"
                        " VALUES (?, ?, ?, ?, ?, ?)",
                        (
                            request, caller, name, identity, f"{now:%Y-%m-%d %H:%M:%S}",
                            self._seal.close(data, f"object {request}"),
                        ),
                    )  # fmt: skip
                elif known[2] != identity:
                    raise InstanceDiffersError(
                        "An object with this SOP Instance UID (0008,0018) and other content is in "
                        "the queue. Send it again once that is delivered or, where it is a dead "
                        "letter, dropped (python -m spinexr node letters list)."
                    )
                elif known[3] != State.DEAD:
                    return None
                else:
                    request = str(known[1])
                    connection.execute(
                        "UPDATE objects SET state = ?, deaths = 0, attempts = 0, code = NULL,"
                        " message = NULL, data = ? WHERE number = ?",
                        (State.WAITING, self._seal.close(data, f"object {request}"), known[0]),
                    )
        except sqlite3.Error as e:
            raise _not_written(e) from e
        self._tell()
        return request

    def next_received(self) -> Received | None:
        """The oldest object that is to be analysed; notes that it is begun.

        Begun again by the same process, as after a full disk, it is no further death. One whose
        record is damaged is a dead letter, and the next one has its turn.
        """
        while found := self._begin_next():
            received, place = found
            try:
                return replace(received, data=self._seal.open(received.data, place))
            except ConfigurationError:
                self._bury("objects", received.number, *_DAMAGED)
        return None

    def _begin_next(self) -> tuple[Received, str] | None:
        """What is next, its data sealed, and the place it is sealed for."""
        with self._writing() as connection:
            row = connection.execute(
                "SELECT number, instance, request, caller, deaths, attempts, data FROM objects"
                " WHERE state = ? ORDER BY number LIMIT 1",
                (State.WAITING,),
            ).fetchone()
            if row is None:
                return None
            number, instance, request, caller, deaths, attempts, data = row
            if number == self._begun:
                deaths -= 1
            else:
                connection.execute(
                    "UPDATE objects SET deaths = deaths + 1 WHERE number = ?", (number,)
                )
        self._begun = number
        received = Received(number, instance, request, caller, deaths, attempts, data)
        return received, f"object {request}"

    def was_sent_as(self, received: Received, instance: str) -> bool:
        """Whether this is the SOP Instance UID that it was sent under."""
        return self._named(instance) == received.instance

    def put_back(self, received: Received, *, failed: bool) -> None:
        """It was begun and has no answer: it waits again, in its place.

        Args:
            failed: count it as an attempt.
        """
        with self._writing() as connection:
            connection.execute(
                "UPDATE objects SET deaths = ?, attempts = attempts + ? WHERE number = ?",
                (received.deaths, int(failed), received.number),
            )
        self._begun = None

    def analysed(self, received: Received, outputs: Sequence[Output]) -> None:
        """Its objects take its place; with nothing to deliver it is gone."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE objects SET state = ?, data = NULL WHERE number = ?",
                (State.ANALYSED, received.number),
            )
            for output in outputs:
                place = secrets.token_hex(8)
                made = connection.execute(
                    "INSERT INTO outputs (object, kind, place, data) VALUES (?, ?, ?, ?)",
                    (
                        received.number, output.kind.value, place,
                        self._seal.close(output.data, f"output {place}"),
                    ),
                )  # fmt: skip
                connection.executemany(
                    "INSERT INTO deliveries (output, destination) VALUES (?, ?)",
                    [(made.lastrowid, name) for name in output.destinations],
                )
            if not outputs:
                self._forget(connection, received.number)
            self._drop_done(connection, received.number)
        self._tell()

    def failed(self, received: Received, code: str, message: str) -> None:
        """It will not be analysed: a dead letter."""
        self._bury("objects", received.number, code, message)

    def dropped(self, received: Received) -> None:
        """It is not wanted: gone."""
        with self._writing() as connection:
            self._forget(connection, received.number)
            connection.execute("DELETE FROM objects WHERE number = ?", (received.number,))

    def next_delivery(self, destination: str) -> Delivery | None:
        """The oldest object that waits for a destination; a damaged one is a dead letter."""
        while row := self._first_waiting(destination):
            number, request, kind, attempts, place, data = row
            try:
                opened = self._seal.open(data, f"output {place}")
            except ConfigurationError:
                self._bury("deliveries", number, *_DAMAGED)
                continue
            return Delivery(number, request, ObjectKind(kind), attempts, opened)
        return None

    def _first_waiting(self, destination: str) -> tuple[int, str, str, int, str, bytes] | None:
        with self._lock:
            row: tuple[int, str, str, int, str, bytes] | None = self._connection.execute(
                "SELECT d.number, o.request, u.kind, d.attempts, u.place, u.data"
                " FROM deliveries d JOIN outputs u ON u.number = d.output"
                " JOIN objects o ON o.number = u.object"
                " WHERE d.destination = ? AND d.state = ? ORDER BY d.number LIMIT 1",
                (destination, State.WAITING),
            ).fetchone()
        return row

    def delivered(self, delivery: Delivery) -> None:
        """The destination has it: gone, and with the last one the object too."""
        with self._writing() as connection:
            self._remove_delivery(connection, delivery.number)

    def attempted(self, delivery: Delivery) -> None:
        """It was tried in vain and stays first in its line."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE deliveries SET attempts = attempts + 1 WHERE number = ?",
                (delivery.number,),
            )

    def refused(self, delivery: Delivery, code: str, message: str) -> None:
        """It will not be delivered: a dead letter."""
        self._bury("deliveries", delivery.number, code, message)

    # --- dead letters -----------------------------------------------------------------------------

    def letters(self) -> list[Letter]:
        """All dead letters, oldest first."""
        with self._lock:
            objects = self._connection.execute(
                "SELECT number, received, attempts, code, message FROM objects WHERE state = ?"
                " ORDER BY number",
                (State.DEAD,),
            ).fetchall()
            deliveries = self._connection.execute(
                "SELECT d.number, o.received, d.attempts, d.code, d.message, u.kind, d.destination"
                " FROM deliveries d JOIN outputs u ON u.number = d.output"
                " JOIN objects o ON o.number = u.object WHERE d.state = ? ORDER BY d.number",
                (State.DEAD,),
            ).fetchall()
        found = [
            Letter(f"r{number}", "radiograph", "", received, attempts, code, self._text(message))
            for number, received, attempts, code, message in objects
        ]
        for number, received, attempts, code, message, kind, destination in deliveries:
            text = self._text(message)
            found.append(Letter(f"d{number}", kind, destination, received, attempts, code, text))
        return found

    def retry(self, name: str) -> bool:
        """A dead letter waits again, behind nothing; False where there is none of this name.

        Raises:
            ConfigurationError: the node delivers no more to where it is to go.
        """
        table, number = _of(name)
        more = ", deaths = 0" if table == "objects" else ""
        with self._writing() as connection:
            if table == "deliveries":
                self._check_destination(connection, number)
            done = connection.execute(
                f"UPDATE {table} SET state = ?, attempts = 0, code = NULL, message = NULL{more}"  # noqa: S608
                " WHERE number = ? AND state = ?",
                (State.WAITING, number, State.DEAD),
            )
        self._tell()
        return done.rowcount == 1

    def drop(self, name: str) -> bool:
        """Remove a dead letter for good; False where there is none of this name."""
        table, number = _of(name)
        with self._writing() as connection:
            dead = connection.execute(
                f"SELECT 1 FROM {table} WHERE number = ? AND state = ?",  # noqa: S608
                (number, State.DEAD),
            ).fetchone()
            if dead is None:
                return False
            found = number if table == "objects" else self._object_of(connection, number)
            self._forget(connection, found)
            if table == "deliveries":
                self._remove_delivery(connection, number)
            else:
                connection.execute("DELETE FROM objects WHERE number = ?", (number,))
        return True

    # --- about it ---------------------------------------------------------------------------------

    @property
    def counts(self) -> Counts:
        with self._lock:
            execute = self._connection.execute
            (received,) = execute(
                "SELECT COUNT(*) FROM objects WHERE state = ?", (State.WAITING,)
            ).fetchone()
            (dead,) = execute(
                "SELECT (SELECT COUNT(*) FROM objects WHERE state = ?)"
                " + (SELECT COUNT(*) FROM deliveries WHERE state = ?)",
                (State.DEAD, State.DEAD),
            ).fetchone()
            waiting = dict(
                execute(
                    "SELECT destination, COUNT(*) FROM deliveries WHERE state = ?"
                    " GROUP BY destination",
                    (State.WAITING,),
                ).fetchall()
            )
            return Counts(received, waiting, dead, self._used_bytes())

    @property
    def salt(self) -> bytes:
        """32 random bytes that stay with the queue."""
        with self._writing() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO about VALUES (?, ?)",
                (_SALT, self._seal.close(secrets.token_bytes(32), _SALT)),
            )
            (value,) = connection.execute(
                "SELECT value FROM about WHERE name = ?", (_SALT,)
            ).fetchone()
        return self._seal.open(value, _SALT)

    def wait(self, timeout_s: float) -> None:
        """Until something was put in, or for so long."""
        with self.changed:
            self.changed.wait(timeout_s)

    def shrink(self) -> None:
        """Give what is free back to the disk."""
        with self._lock:
            self._connection.execute("PRAGMA incremental_vacuum").fetchall()

    # --- inside -----------------------------------------------------------------------------------

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _bury(self, table: str, number: int, code: str, message: str) -> None:
        with self._writing() as connection:
            connection.execute(
                f"UPDATE {table} SET state = ?, code = ?, message = ?, attempts = attempts + 1"  # noqa: S608
                " WHERE number = ?",
                (State.DEAD, code, self._seal.close(message.encode(), "message"), number),
            )
        if table == "objects":
            self._begun = None

    @staticmethod
    def _forget(connection: sqlite3.Connection, number: int | None) -> None:
        """An object of which nothing comes may be sent again at once."""
        connection.execute(
            "DELETE FROM survivors WHERE instance ="
            " (SELECT instance FROM objects WHERE number = ?)",
            (number,),
        )

    @staticmethod
    def _check_destination(connection: sqlite3.Connection, number: int) -> None:
        """That the node, if there was one yet, delivers to where a delivery is to go."""
        known = connection.execute(
            "SELECT value FROM about WHERE name = ?", (_DESTINATIONS,)
        ).fetchone()
        wanted = connection.execute(
            "SELECT destination FROM deliveries WHERE number = ?", (number,)
        ).fetchone()
        if known and wanted and wanted[0] not in known[0].decode().split("\n"):
            raise ConfigurationError(
                f"the node delivers no more to {wanted[0]}. Name it in SPINEXR_NODE_CONFIG and "
                "restart the node, or drop the letter."
            )

    def _remove_delivery(self, connection: sqlite3.Connection, number: int) -> None:
        found = self._object_of(connection, number)
        if found is not None:
            connection.execute("DELETE FROM deliveries WHERE number = ?", (number,))
            self._drop_done(connection, found)

    @staticmethod
    def _object_of(connection: sqlite3.Connection, delivery: int) -> int | None:
        """The radiograph whose answer is delivered; None where there is no such delivery."""
        found = connection.execute(
            "SELECT u.object FROM deliveries d JOIN outputs u ON u.number = d.output"
            " WHERE d.number = ?",
            (delivery,),
        ).fetchone()
        return None if found is None else int(found[0])

    def _drop_done(self, connection: sqlite3.Connection, number: int) -> None:
        """Of an object that is analysed, remove what nobody waits for any more.

        Of this one alone: the queue may be long where a destination is down.
        """
        connection.execute(
            "DELETE FROM outputs WHERE object = ? AND NOT EXISTS"
            " (SELECT 1 FROM deliveries WHERE output = outputs.number)",
            (number,),
        )
        connection.execute(
            "DELETE FROM objects WHERE number = ? AND NOT EXISTS"
            " (SELECT 1 FROM outputs WHERE object = objects.number)",
            (number,),
        )

    def _used_bytes(self) -> int:
        (size,), (pages,), (free,) = (
            self._connection.execute(f"PRAGMA {name}").fetchone()
            for name in ("page_size", "page_count", "freelist_count")
        )
        return int(size) * (int(pages) - int(free))

    def _refuse_too_much(self, more_bytes: int) -> None:
        if self._used_bytes() + more_bytes > self._max_bytes:
            raise QueueFullError(
                f"The queue holds as much as SPINEXR_NODE_QUEUE_MB allows "
                f"({self._max_bytes // 1024**2} MB)."
            )
        if shutil.disk_usage(self._folder).free < more_bytes + _SPARE_BYTES:
            raise QueueFullError("The disk of the queue is full.")

    def _named(self, instance: str) -> bytes:
        return self._seal.name(instance.strip(" \0").encode())

    def _text(self, message: bytes) -> str:
        try:
            return self._seal.open(message, "message").decode()
        except ConfigurationError:
            return "(This text is damaged.)"

    def _tell(self) -> None:
        with self.changed:
            self.changed.notify_all()

    def _check(self) -> None:
        """That version and key are those that it was begun with."""
        sealed = isinstance(self._seal, KeySeal)
        with self._writing() as connection:
            about = dict(connection.execute("SELECT name, value FROM about").fetchall())
            if not about:
                values = [
                    ("version", _VERSION.encode()),
                    ("sealed", str(int(sealed)).encode()),
                    (_CHECK, self._seal.close(b"spinexr", _CHECK)),
                ]
                connection.executemany("INSERT INTO about VALUES (?, ?)", values)
                return
        if about["version"] != _VERSION.encode():
            raise ConfigurationError(
                f"The queue in {self._folder} is of another version of SpineXR."
            )
        if about["sealed"] != str(int(sealed)).encode():
            how = "without SPINEXR_NODE_KEY_FILE" if sealed else "with its SPINEXR_NODE_KEY_FILE"
            raise ConfigurationError(
                f"The queue in {self._folder} was begun with{'out' if sealed else ''} a key. Start "
                f"{how}; to change that, let it run empty, remove the folder and begin a new one."
            )
        self._seal.open(about[_CHECK], _CHECK)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """The right to work on a queue, which one process has at a time; a killed one has it no more.

    Raises:
        ConfigurationError: another process has it.
    """
    try:
        prepare(folder)
        _create(folder / _LOCK)
    except OSError as e:
        raise _unusable(folder, e) from e
    connection = sqlite3.connect(folder / _LOCK, timeout=0, isolation_level=None)
    try:
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as e:
            raise ConfigurationError(f"Another node works on the queue in {folder}.") from e
        yield
    finally:
        connection.close()


def prepare(folder: Path) -> None:
    """Make the folder the owner's own."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)


def _create(file: Path) -> None:
    """The owner's only from its first moment; what SQLite puts beside it takes the mode over."""
    if not file.exists():
        os.close(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600))


def _of(name: str) -> tuple[str, int]:
    """(table, number) of a letter's name."""
    kind, number = name[:1], name[1:]
    if kind not in ("r", "d") or not number.isdecimal():
        return "objects", -1
    return ("objects" if kind == "r" else "deliveries"), int(number)


def _not_written(error: sqlite3.Error) -> QueueFullError:
    return QueueFullError(f"The queue cannot be written: {error}.")


def _unusable(folder: Path, error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"The queue cannot be kept in {folder} ({error}); set SPINEXR_NODE_QUEUE to a folder that "
        "can be written."
    )
