"""The account of a batch: which inputs there are, and what has become of each.

One SQLite file, written by the driver alone and locked by it. Whatever it says is true after a kill
at any moment: a part of results is on the disk before the ledger says that its inputs are answered.
Addresses may name patients, so the file is the owner's only.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from spinexr.batch.address import Address
from spinexr.batch.executor import Failure
from spinexr.errors import BatchError

_VERSION = "2"
_BATCH = 1000

_TABLES = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS inputs (
    number INTEGER PRIMARY KEY,
    file BLOB NOT NULL,
    member BLOB NOT NULL,
    state INTEGER NOT NULL DEFAULT 0,
    deaths INTEGER NOT NULL DEFAULT 0,
    instance TEXT,
    code TEXT,
    message TEXT,
    is_input INTEGER NOT NULL DEFAULT 1,
    UNIQUE (file, member)
);
CREATE INDEX IF NOT EXISTS waiting ON inputs (number) WHERE state = 0;
CREATE INDEX IF NOT EXISTS failed ON inputs (number) WHERE state = 3;
CREATE INDEX IF NOT EXISTS instances ON inputs (instance) WHERE instance IS NOT NULL;
"""


class State(IntEnum):
    """What has become of an input."""

    WAITING = 0
    IN_FLIGHT = 1
    ANSWERED = 2
    FAILED = 3


@dataclass(frozen=True, slots=True)
class Entry:
    """An input that is to be analysed. `deaths`: workers that died while they had it."""

    number: int
    address: Address
    deaths: int


class Ledger:
    """The open ledger of one result set."""

    def __init__(self, file: Path) -> None:
        """Open a ledger, or begin one. What was in flight is waiting again.

        Raises:
            BatchError: another batch has it open, or it is of another version.
            OSError, sqlite3.OperationalError: it cannot be written.
        """
        if not file.exists():
            os.close(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600))
        self._connection = sqlite3.connect(file, timeout=0, isolation_level=None)
        try:
            # Before WAL: then the lock is held until the end, by a killed process no longer.
            self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} COMMIT;")
            self._check_version()
            with self._writing():
                self._connection.execute(
                    "UPDATE inputs SET state = ? WHERE state = ?", (State.WAITING, State.IN_FLIGHT)
                )
        except sqlite3.OperationalError as e:
            self._connection.close()
            if "locked" in str(e):
                raise BatchError("Another batch is running in this folder.") from e
            raise
        except BaseException:
            self._connection.close()
            raise
        self._counts = dict.fromkeys(State, 0)
        for state, count in self._connection.execute(
            "SELECT state, COUNT(*) FROM inputs GROUP BY state"
        ):
            self._counts[State(state)] = count

    def _check_version(self) -> None:
        if self.about("version", _VERSION) != _VERSION:
            raise BatchError("The ledger is of another version of SpineXR.")

    def about(self, name: str, default: str) -> str:
        """What was noted by a name; from the first time on `default` where nothing was."""
        self._connection.execute("INSERT OR IGNORE INTO about VALUES (?, ?)", (name, default))
        found = self._connection.execute("SELECT value FROM about WHERE name = ?", (name,))
        value: str = found.fetchone()[0]
        return value

    def add(self, addresses: Iterable[Address]) -> None:
        """Note inputs that are not known yet as waiting."""
        rows = [(_bytes(a.file), _bytes(a.member)) for a in addresses]
        with self._writing():
            before = self._connection.total_changes
            self._connection.executemany(
                "INSERT OR IGNORE INTO inputs (file, member) VALUES (?, ?)", rows
            )
            self._counts[State.WAITING] += self._connection.total_changes - before

    def add_failed(self, address: Address, failure: Failure) -> None:
        """Note something that is no input, and why; nothing where it is known."""
        with self._writing():
            before = self._connection.total_changes
            self._connection.execute(
                "INSERT OR IGNORE INTO inputs (file, member, state, code, message, is_input) "
                "VALUES (?, ?, ?, ?, ?, 0)",
                (
                    _bytes(address.file), _bytes(address.member), State.FAILED,
                    failure.code, _written(failure.message),
                ),
            )  # fmt: skip
            self._counts[State.FAILED] += self._connection.total_changes - before

    def reopen_failed(self) -> None:
        """Make inputs that failed wait again, as if nobody had tried; forget what could not be
        listed, since it is listed again."""
        with self._writing():
            forgotten = self._connection.execute(
                "DELETE FROM inputs WHERE state = ? AND is_input = 0", (State.FAILED,)
            ).rowcount
            opened = self._connection.execute(
                "UPDATE inputs SET state = ?, deaths = 0, code = NULL, message = NULL "
                "WHERE state = ?",
                (State.WAITING, State.FAILED),
            ).rowcount
        self._counts[State.FAILED] -= forgotten
        self._moved(State.FAILED, State.WAITING, opened)

    def take(self, most: int) -> list[Entry]:
        """The first of the waiting inputs, from now on in flight."""
        with self._writing():
            rows = self._connection.execute(
                "SELECT number, file, member, deaths FROM inputs WHERE state = 0 "
                "ORDER BY number LIMIT ?",
                (most,),
            ).fetchall()
            self._connection.executemany(
                "UPDATE inputs SET state = ? WHERE number = ?",
                [(State.IN_FLIGHT, number) for number, *_ in rows],
            )
        self._moved(State.WAITING, State.IN_FLIGHT, len(rows))
        return [
            Entry(number, Address(_text(file), _text(member)), deaths)
            for number, file, member, deaths in rows
        ]

    def died(self, numbers: Iterable[int]) -> dict[int, int]:
        """Note that a worker died with these inputs; how many have died with each."""
        found = {}
        with self._writing():
            for number in numbers:
                self._connection.execute(
                    "UPDATE inputs SET deaths = deaths + 1 WHERE number = ?", (number,)
                )
                row = self._connection.execute(
                    "SELECT deaths FROM inputs WHERE number = ?", (number,)
                ).fetchone()
                found[number] = int(row[0])
        return found

    def fail(self, failures: Sequence[tuple[int, Failure]]) -> None:
        """Note why inputs in flight have no answer."""
        with self._writing():
            self._connection.executemany(
                "UPDATE inputs SET state = ?, code = ?, message = ? WHERE number = ?",
                [(State.FAILED, f.code, _written(f.message), number) for number, f in failures],
            )
        self._moved(State.IN_FLIGHT, State.FAILED, len(failures))

    def first_with(self, instance: str) -> int | None:
        """The input that was answered with an instance's hash before."""
        row = self._connection.execute(
            "SELECT MIN(number) FROM inputs WHERE instance = ?", (instance,)
        ).fetchone()
        return None if row[0] is None else int(row[0])

    def answer(
        self, answered: Sequence[tuple[int, str | None]], *, parts: int, active_s: float
    ) -> None:
        """Note the inputs of a part that is on the disk as answered.

        Args:
            answered: number and instance hash of each.
            parts: how many parts there are now.
            active_s: seconds that the batch has run so far.
        """
        with self._writing():
            self._connection.executemany(
                "UPDATE inputs SET state = ?, instance = ? WHERE number = ?",
                [(State.ANSWERED, instance, number) for number, instance in answered],
            )
            self._connection.executemany(
                "INSERT OR REPLACE INTO about VALUES (?, ?)",
                [("parts", str(parts)), ("active_s", repr(active_s))],
            )
        self._moved(State.IN_FLIGHT, State.ANSWERED, len(answered))

    @property
    def parts(self) -> int:
        """How many parts the results have."""
        return int(self.about("parts", "0"))

    @property
    def active_s(self) -> float:
        """Seconds that the batch has run, up to its last part."""
        return float(self.about("active_s", "0"))

    def count(self, state: State) -> int:
        """How many inputs are in a state."""
        return self._counts[state]

    def failures(self) -> Iterator[list[dict[str, object]]]:
        """The failures, some at a time, as rows of `results.FAILURES`."""
        last = 0
        while rows := self._connection.execute(
            "SELECT number, file, member, code, message FROM inputs "
            "WHERE state = 3 AND number > ? ORDER BY number LIMIT ?",
            (last, _BATCH),
        ).fetchall():
            last = rows[-1][0]
            yield [
                {
                    "input": number, "address": str(Address(_text(file), _text(member))),
                    "code": code, "message": message,
                }
                for number, file, member, code, message in rows
            ]  # fmt: skip

    def failure_codes(self) -> dict[str, int]:
        """How many inputs failed by each code, the most frequent first."""
        return dict(
            self._connection.execute(
                "SELECT code, COUNT(*) FROM inputs WHERE state = 3 GROUP BY code "
                "ORDER BY COUNT(*) DESC, code"
            )
        )

    def close(self) -> None:
        """Close the file; also where it can no longer be written."""
        self._connection.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _moved(self, old: State, new: State, number: int) -> None:
        self._counts[old] -= number
        self._counts[new] += number


def _bytes(name: str) -> bytes:
    """File names are bytes that need not be UTF-8."""
    return name.encode("utf-8", "surrogateescape")


def _written(message: str) -> str:
    """A message may quote a file's name, of which not every byte need be a character."""
    return message.encode("utf-8", "backslashreplace").decode()


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
