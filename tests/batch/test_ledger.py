"""The ledger alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from spinexr.batch.address import Address
from spinexr.batch.executor import Failure
from spinexr.batch.ledger import Ledger, State
from spinexr.errors import BatchError

A, B, C = Address("/a"), Address("/z.zip", "b"), Address("/\udcff")


def test_what_was_in_flight_waits_again_after_a_kill(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l")
    ledger.add([A, B, C])
    first, second, _ = ledger.take(5)
    ledger.answer([(first.number, "hash")], parts=1, active_s=2.5)
    ledger.fail([(second.number, Failure("code", "why"))])
    ledger.close()
    again = Ledger(tmp_path / "l")
    assert [again.count(s) for s in State] == [1, 0, 1, 1]
    assert [e.address for e in again.take(5)] == [C]
    assert (again.parts, again.active_s, again.first_with("hash")) == (1, 2.5, first.number)
    assert again.failure_codes() == {"code": 1}
    again.close()


def test_an_input_is_known_by_file_and_member(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l")
    for _ in range(2):
        ledger.add([A, B, A, Address("/z.zip"), Address("/z.zip", "c")])
    assert ledger.count(State.WAITING) == 4
    assert [e.address for e in ledger.take(2)] == [A, B]
    ledger.close()


def test_a_message_may_quote_a_name_that_is_no_text(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l")
    ledger.add([A])
    (entry,) = ledger.take(1)
    ledger.fail([(entry.number, Failure("code", "s3://b/\udcfc"))])
    ledger.add_failed(C, Failure("code", "/\udcff"))
    assert [f["message"] for f in next(ledger.failures())] == ["s3://b/\\udcfc", "/\\udcff"]
    ledger.close()


def test_two_drivers_never_share_a_ledger(tmp_path: Path) -> None:
    first = Ledger(tmp_path / "l")
    with pytest.raises(BatchError, match="Another batch"):
        Ledger(tmp_path / "l")
    first.close()
    Ledger(tmp_path / "l").close()


def test_the_ledger_is_its_owner_s_alone(tmp_path: Path) -> None:
    Ledger(tmp_path / "l").close()
    assert (tmp_path / "l").stat().st_mode & 0o077 == 0


def test_a_ledger_of_another_version_is_left_alone(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l")
    ledger._connection.execute("UPDATE about SET value = '0' WHERE name = 'version'")
    ledger.close()
    with pytest.raises(BatchError, match="another version"):
        Ledger(tmp_path / "l")
