"""`spinexr node`: its commands, and what keeps it from starting."""

from __future__ import annotations

import re
import stat
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from spinexr.cli import main
from spinexr.domain import ObjectKind
from spinexr.node.queue import Output, Queue, held
from tests.processes import Server, free_port

pytest.importorskip("pynetdicom", reason="requirements-node.txt is not installed")
pytest.importorskip("cryptography", reason="requirements-node.txt is not installed")
from tests.node import peers
from tests.node.peers import LIMIT, NOW, Archive, radiograph

TOML = """
callers = ["CR1"]
[[destinations]]
name = "archive"
address = "dicom://ARCHIVE@127.0.0.1:{port}"
objects = ["report"]
"""


def spinexr(*arguments: str, **env: str) -> Result:
    return CliRunner().invoke(main, arguments, env=env)


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    file = tmp_path / "node.toml"
    file.write_text(TOML.format(port=1), encoding="utf-8")
    return file


def settings(tmp_path: Path, configuration: Path, **more: str) -> dict[str, str]:
    return {
        "SPINEXR_NODE_CONFIG": str(configuration),
        "SPINEXR_NODE_QUEUE": str(tmp_path / "queue"),
        "SPINEXR_WEIGHTS": str(tmp_path),
    } | more


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"SPINEXR_NODE_CONFIG": ""}, "set SPINEXR_NODE_CONFIG"),
        ({"SPINEXR_NODE_HOST": "0.0.0.0"}, "an AE title proves nothing"),
        ({"SPINEXR_NODE_AE_TITLE": "NO SPACES"}, "must be an AE title"),
        ({"SPINEXR_NODE_KEY_FILE": "/nowhere/key"}, "SPINEXR_NODE_KEY_FILE"),
        ({}, "The models cannot be loaded"),
    ],
)
def test_what_keeps_it_from_starting_is_said(
    tmp_path: Path, configuration: Path, changes: dict[str, str], why: str
) -> None:
    done = spinexr("node", **settings(tmp_path, configuration, **changes))
    assert done.exit_code == 1, done.output
    assert why in done.output


def test_what_waits_for_a_destination_that_is_gone_keeps_it_from_starting(
    tmp_path: Path, configuration: Path
) -> None:
    queue = Queue(tmp_path / "queue", max_bytes=LIMIT)
    queue.receive(b"image", instance="1.2", caller="CR1", now=NOW)
    received = queue.next_received()
    assert received is not None
    queue.analysed(received, [Output(ObjectKind.REPORT, b"report", ("earlier",))])
    queue.close()
    done = spinexr("node", **settings(tmp_path, configuration))
    assert done.exit_code == 1
    assert "earlier (1)" in done.output


def test_a_package_that_is_not_installed_is_named(
    tmp_path: Path, configuration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'pynetdicom'", name="pynetdicom")

    monkeypatch.setattr(sys.modules["spinexr.cli.node"], "_opened", missing)
    done = spinexr("node", **settings(tmp_path, configuration))
    assert done.exit_code == 1
    assert "needs the package pynetdicom: pip install -r requirements-node.txt" in done.output


def test_two_nodes_do_not_work_on_one_queue(tmp_path: Path, configuration: Path) -> None:
    with held(tmp_path / "queue"):
        done = spinexr("node", **settings(tmp_path, configuration))
    assert done.exit_code == 1
    assert "Another node" in done.output


def test_letters_are_listed_retried_and_dropped(tmp_path: Path, configuration: Path) -> None:
    env = settings(tmp_path, configuration)
    queue = Queue(tmp_path / "queue", max_bytes=peers.LIMIT)
    for name in ("1", "2"):
        queue.receive(b"x", instance=name, caller="CR1", now=peers.NOW)
        received = queue.next_received()
        assert received is not None
        queue.failed(received, "not_dicom", "It is none.")
    listed = spinexr("node", "letters", "list", **env)
    assert listed.output == (
        "r1\tradiograph\t-\t2026-01-02 03:04:05\t1\tnot_dicom\tIt is none.\n"
        "r2\tradiograph\t-\t2026-01-02 03:04:05\t1\tnot_dicom\tIt is none.\n"
    )
    assert spinexr("node", "letters", "retry", "r1", **env).exit_code == 0
    assert queue.counts.received == 1
    wrong = spinexr("node", "letters", "drop", "r1", "r2", **env)
    assert (wrong.exit_code, wrong.output) == (1, "r1: there is no such letter\n")
    assert spinexr("node", "letters", "drop", "--all", **env).exit_code == 0
    assert spinexr("node", "letters", "drop", **env).exit_code == 2
    assert queue.letters() == []
    queue.close()


def test_a_letter_to_where_the_node_delivers_no_more_is_said(
    tmp_path: Path, configuration: Path
) -> None:
    env = settings(tmp_path, configuration)
    queue = Queue(tmp_path / "queue", max_bytes=peers.LIMIT)
    for name, place in (("1", "earlier"), ("2", "archive")):
        queue.receive(b"x", instance=name, caller="CR1", now=peers.NOW)
        received = queue.next_received()
        assert received is not None
        queue.analysed(received, [Output(ObjectKind.REPORT, b"report", (place,))])
        delivery = queue.next_delivery(place)
        assert delivery is not None
        queue.refused(delivery, "object_refused", "")
    queue.begin(["archive"])
    done = spinexr("node", "letters", "retry", "--all", **env)
    assert done.exit_code == 1
    assert "d1: the node delivers no more to earlier. Name it in" in done.output
    assert queue.counts.waiting == {"archive": 1}
    queue.close()


def test_letters_of_no_queue_make_none(tmp_path: Path, configuration: Path) -> None:
    done = spinexr("node", "letters", "list", **settings(tmp_path, configuration))
    assert done.exit_code == 1
    assert "There is no queue" in done.output
    assert not (tmp_path / "queue").exists()


def test_a_key_is_made_once(tmp_path: Path) -> None:
    file = tmp_path / "key"
    assert spinexr("node", "key", str(file)).exit_code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = spinexr("node", "key", str(file))
    assert again.exit_code == 1
    assert "File exists" in again.output


def test_the_program_receives_analyses_delivers_and_ends_when_asked(
    small_weights: Path, tmp_path: Path
) -> None:
    archive = Archive()
    (tmp_path / "node.toml").write_text(TOML.format(port=archive.port), encoding="utf-8")
    assert spinexr("node", "key", str(tmp_path / "key")).exit_code == 0
    port = free_port()
    node = Server(
        [sys.executable, "-m", "spinexr", "node"],
        free_port(),
        SPINEXR_NODE_CONFIG=str(tmp_path / "node.toml"),
        SPINEXR_NODE_QUEUE=str(tmp_path / "queue"),
        SPINEXR_NODE_KEY_FILE=str(tmp_path / "key"),
        SPINEXR_NODE_PORT=str(port),
        SPINEXR_NODE_HTTP_PORT=str(free_port()),
        SPINEXR_WEIGHTS=str(small_weights),
        SPINEXR_ENGINE="torch",
    )
    try:
        node.wait_for_log("node ready")
        image = radiograph(attributes={"PatientName": "Mustermann^Erika"})
        assert peers.send(port, image) == [0x0000]
        archive.wait(1)
        node.wait_for_log("outcome=delivered")
        status, log = node.stop()
    finally:
        node.process.kill()
        archive.close()
    assert status == 0
    assert archive.kept[0].StudyInstanceUID == image.StudyInstanceUID
    assert archive.kept[0].PatientName == "Mustermann^Erika"
    assert "Mustermann" not in log
    assert image.SOPInstanceUID not in log
    (line,) = (x for x in log.splitlines() if "] analysis" in x)
    assert re.search(r"bundle=\w{64} ms=\d+ outcome=\w+ request=\w{16}", line)
