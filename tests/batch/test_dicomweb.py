"""Studies of an archive that speaks DICOMweb; a small one on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from spinexr.batch import dicomweb, listing
from spinexr.batch.address import Address
from spinexr.batch.dicomweb import Credentials
from spinexr.batch.listing import Unlisted
from spinexr.batch.sources import Sources
from spinexr.batch.work import Options
from spinexr.errors import BatchError, ConfigurationError, SpineXRError
from tests.processes import free_port

pytest.importorskip("dicomweb_client", reason="requirements-remote.txt")

MAX_BYTES = 1000
TOKEN = "Bearer swordfish"  # noqa: S105


class Archive:
    """Three studies of a series each, with two instances that hold their own UID."""

    def __init__(self) -> None:
        self.studies = {f"1.{n}": [f"1.{n}.9.{i}" for i in (1, 2)] for n in (1, 2, 3)}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.authorizations: list[str | None] = []
        self.status: dict[str, int] = {}  # by the end of a path
        self.redirect: str | None = None
        self.page = 2
        self.knows_offset = True
        self.multipart = True
        self.body: Callable[[str], bytes] = str.encode
        archive = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                archive.answer(self)

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # Whoever refuses a body closes the connection while it is sent.
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.origin = f"http://127.0.0.1:{self._server.server_port}"
        self.address = f"dicomweb+{self.origin}/dicom-web/studies"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, to: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(to.path)
        query = dict(parse_qsl(parts.query))
        path = parts.path.removeprefix("/dicom-web")
        self.asked.append((path, query))
        self.authorizations.append(to.headers["Authorization"])
        status = next((s for end, s in self.status.items() if path.endswith(end)), 200)
        words = path.strip("/").split("/")
        body, kind = b"", "application/dicom+json"
        if status == 302:
            to.send_response(status)
            to.send_header("Location", str(self.redirect))
            to.end_headers()
            return
        if status == 200 and words[-1] == "studies":
            body = self._page(query, [{"0020000D": {"Value": [s]}} for s in self.studies])
        elif status == 200 and words[-1] == "instances":
            made = [
                {"0020000E": {"Value": [f"{words[1]}.9"]}, "00080018": {"Value": [i]}}
                for i in self.studies[words[1]]
            ]
            body = self._page(query, made)
        elif status == 200:
            body, kind = self.body(words[-1]), "application/dicom"
            if self.multipart:
                kind = 'multipart/related; type="application/dicom"; boundary="b"'
                body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + body + b"\r\n--b--"
        to.send_response(status if body or status != 200 else 204)
        to.send_header("Content-Type", kind)
        to.send_header("Content-Length", str(len(body)))
        to.end_headers()
        to.wfile.write(body)

    def _page(self, query: dict[str, str], found: Sequence[object]) -> bytes:
        start = int(query["offset"]) if self.knows_offset else 0
        page = found[start : start + min(self.page, int(query["limit"]))]
        return json.dumps(page).encode() if page else b""


@pytest.fixture
def archive() -> Iterator[Archive]:
    made = Archive()
    yield made
    made.close()


@pytest.fixture
def sources() -> Iterator[Sources]:
    made = Sources(max_bytes=MAX_BYTES)
    yield made
    made.close()


def listed(*names: str, credentials: Credentials | None = None) -> list[str]:
    """The addresses, or the codes of what cannot be listed."""
    found = listing.inputs(names, credentials)
    return [f.error.code if isinstance(f, Unlisted) else f.file for f in found]


def code(sources: Sources, file: str) -> str:
    """The code of the refusal to read it."""
    with pytest.raises(SpineXRError) as caught:
        sources.read(Address(file))
    assert "swordfish" not in caught.value.message
    return caught.value.code


@pytest.mark.parametrize("multipart", [True, False])
def test_studies_are_listed_to_their_instances_and_these_are_fetched(
    archive: Archive, sources: Sources, multipart: bool
) -> None:
    archive.multipart = multipart
    found = listed(f"{archive.address}?StudyDate=20240101-20241231")
    assert found == [
        f"{archive.address}/{s}/series/{s}.9/instances/{i}"
        for s, instances in archive.studies.items()
        for i in instances
    ]
    searches = [query for path, query in archive.asked if path == "/studies"]
    assert {query["StudyDate"] for query in searches} == {"20240101-20241231"}
    assert [sources.read(Address(file)) for file in found] == [
        i.encode() for instances in archive.studies.values() for i in instances
    ]


def test_pages_are_asked_for_as_they_are_needed(archive: Archive) -> None:
    found = listing.inputs([archive.address])
    next(found)
    assert [path for path, _ in archive.asked] == ["/studies", "/studies/1.1/instances"]
    assert len(list(found)) == 5
    offsets = [query["offset"] for path, query in archive.asked if path == "/studies"]
    assert offsets == ["0", "2", "3"]


def test_one_study_a_series_of_it_an_instance_and_a_csv_of_studies_are_inputs(
    archive: Archive, tmp_path: Path
) -> None:
    study = f"{archive.address}/1.2"
    whole = [f"{study}/series/1.2.9/instances/1.2.9.{n}" for n in (1, 2)]
    sheet = tmp_path / "studies.csv"
    sheet.write_text(f"address\n{study}\n{archive.address}/1.3/\n", encoding="utf-8")
    assert listed(study) == whole
    assert len(listed(str(sheet))) == 4
    assert listed(whole[0]) == [whole[0]]
    assert listed(f"{study}/series/1.2.9") == whole
    assert archive.asked[-1][0] == "/studies/1.2/series/1.2.9/instances"


def test_an_archive_without_offset_is_named_and_not_asked_for_ever(archive: Archive) -> None:
    archive.knows_offset = False
    assert listed(f"{archive.address}/1.1")[-1] == "unreadable_file"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, "source_denied"), (403, "source_denied"), (404, "source_missing"),
        (504, "source_timeout"), (500, "unreadable_file"),
    ],
)  # fmt: skip
def test_refusals_have_codes_of_their_own(
    archive: Archive, sources: Sources, status: int, expected: str
) -> None:
    instance = f"{archive.address}/1.1/series/1.1.9/instances/1.1.9.1"
    archive.status = {"1.1.9.1": status, "/studies": status}
    assert code(sources, instance) == expected
    assert listed(archive.address) == [expected]


def test_a_service_that_does_not_answer_in_time_is_named(
    archive: Archive, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    def late(_: str) -> bytes:
        released.wait()
        return b""

    archive.body = late
    monkeypatch.setattr(dicomweb, "_TIMEOUT_S", 0.05)
    try:
        found = code(sources, f"{archive.address}/1.1/series/1.1.9/instances/1.1.9.1")
    finally:
        released.set()
    assert found == "source_timeout"


def test_nobody_who_answers_is_a_named_failure(sources: Sources) -> None:
    nobody = f"dicomweb+http://127.0.0.1:{free_port()}/studies"
    assert code(sources, f"{nobody}/1/series/2/instances/3") == "unreadable_file"
    assert listed(nobody) == ["unreadable_file"]


def test_what_is_larger_than_the_limit_or_cut_off_is_refused(
    archive: Archive, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = f"{archive.address}/1.1/series/1.1.9/instances/1.1.9.1"
    for size in (MAX_BYTES + 1, MAX_BYTES + 1_000_000):
        archive.body = lambda _, size=size: bytes(size)  # type: ignore[misc]
        assert code(sources, instance) == "too_large"
    archive.body = lambda _: b"whole\r\n--b--"
    assert sources.read(Address(instance)) == b"whole"
    monkeypatch.setattr(archive, "multipart", False)
    for body in (b"--b", b"--b\r\n\r\nhalf of it"):
        with pytest.raises(SpineXRError, match="cut off"):
            dicomweb._first_part(body, "multipart/related; boundary=b")


def test_credentials_go_to_their_origin_and_nowhere_else(archive: Archive, tmp_path: Path) -> None:
    other = Archive()
    file = tmp_path / "credentials"
    file.write_text(f"# ours\n\n{archive.origin} {TOKEN}\n", encoding="utf-8")
    credentials = Credentials.read(file)
    try:
        listed(archive.address, other.address, credentials=credentials)
        assert set(archive.authorizations) == {TOKEN}
        # Another host by its name, and so another origin: as a redirect of an attacker's would be.
        archive.status = {"1.1.9.1": 302}
        archive.redirect = f"{other.origin}/x".replace("127.0.0.1", "localhost")
        sources = Sources(max_bytes=MAX_BYTES, credentials=credentials)
        sources.read(Address(f"{archive.address}/1.1/series/1.1.9/instances/1.1.9.1"))
        sources.close()
        assert other.asked[-1][0] == "/x"
        assert set(other.authorizations) == {None}
    finally:
        other.close()
    assert "swordfish" not in repr(credentials) + repr(Options(1, 1, credentials=credentials))


def test_basic_credentials_are_encoded(tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text("https://pacs.example Basic reader:open sesame\n", encoding="utf-8")
    assert Credentials.read(file).by_origin == {
        "https://pacs.example": "Basic cmVhZGVyOm9wZW4gc2VzYW1l"
    }


@pytest.mark.parametrize(
    "line", ["pacs.example Bearer x", "https://pacs.example x", "https://a/b Bearer x", "Bearer x"]
)
def test_a_line_that_is_no_credential_is_named_by_its_number_alone(
    tmp_path: Path, line: str
) -> None:
    (tmp_path / "c").write_text(f"# first\n{line}\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="line 2") as caught:
        Credentials.read(tmp_path / "c")
    assert line not in caught.value.message


@pytest.mark.parametrize(
    "address",
    [
        "dicomweb+https://pacs.example/dicom-web", "dicomweb+ftp://pacs.example/studies",
        "dicomweb+https://reader:swordfish@pacs.example/studies",
        "dicomweb+https://pacs.example/studies?limit=5",
        "dicomweb+https://pacs.example/studies/1.2/series/../x",
    ],
)  # fmt: skip
def test_a_wrong_address_is_refused_before_anything_begins_and_a_password_is_not_repeated(
    tmp_path: Path, address: str
) -> None:
    with pytest.raises(BatchError) as caught:
        listing.check([address])
    assert "swordfish" not in caught.value.message
    (tmp_path / "list.csv").write_text(address, encoding="utf-8")
    (found,) = listing.inputs([str(tmp_path / "list.csv")])
    assert isinstance(found, Unlisted)
    assert "swordfish" not in str(found.address)
