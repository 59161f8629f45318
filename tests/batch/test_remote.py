"""Inputs on other machines: a store of objects and a web server, both on loopback."""

from __future__ import annotations

import functools
import threading
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest

from spinexr.batch import listing
from spinexr.batch.address import Address
from spinexr.batch.listing import Unlisted
from spinexr.batch.sources import Sources
from spinexr.errors import SpineXRError

MAX_BYTES = 1000

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture
def sources() -> Iterator[Sources]:
    made = Sources(max_bytes=MAX_BYTES)
    yield made
    made.close()


def listed(*names: str) -> list[str]:
    """The addresses, or the codes of what cannot be listed."""
    found = listing.inputs(names)
    return [f.error.code if isinstance(f, Unlisted) else str(f) for f in found]


def code(sources: Sources, file: str) -> str:
    """The code of the refusal to read it."""
    with pytest.raises(SpineXRError) as caught:
        sources.read(Address(file))
    return caught.value.code


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A bucket `archive` behind what fsspec and the clients of S3 read of the environment."""
    server_module = pytest.importorskip("moto.server", reason="requirements-dev.txt")
    pytest.importorskip("s3fs", reason="requirements-remote.txt")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "reader")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "2")  # a list has pages
        system = fsspec.filesystem("s3")
        system.mkdir("archive")
        packed = tmp_path_factory.mktemp("s3") / "more.zip"
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("c.dcm", b"c")
        system.pipe(
            {
                "archive/2024/a.dcm": b"a", "archive/2024/01/b.dcm": b"b",
                "archive/2024/notes.txt": b"n", "archive/2024/02/": b"",
                **{f"archive/many/{n}/{n}.dcm": b"m" for n in range(7)},
                "archive/more.zip": packed.read_bytes(),
                "archive/large.dcm": bytes(MAX_BYTES + 1),
                "archive/list.csv": b"path\ns3://archive/2024/a.dcm\n",
            }
        )  # fmt: skip
        yield
        type(system).clear_instance_cache()
    server.stop()


def test_objects_below_a_prefix_in_archives_and_in_lists_are_read(
    store: None, sources: Sources
) -> None:
    found = listed("s3://archive/2024", "s3://archive/more.zip")
    assert found == [
        "s3://archive/2024/a.dcm", "s3://archive/2024/01/b.dcm", "s3://archive/more.zip!/c.dcm",
    ]  # fmt: skip
    read = list(listing.inputs(["s3://archive/2024", "s3://archive/more.zip"]))
    assert [sources.read(a) for a in read if isinstance(a, Address)] == [b"a", b"b", b"c"]
    assert listed("s3://archive/*/*.dcm") == ["s3://archive/2024/a.dcm"]
    assert listed("s3://archive/list.csv") == ["s3://archive/2024/a.dcm"]
    many = [f"s3://archive/many/{n}/{n}.dcm" for n in range(7)]
    assert sorted(listed("s3://archive/many")) == many
    assert len(listed("s3://archive")) == len(["a", "b", "c", "large", *many])


def test_objects_that_are_gone_or_too_large_are_named(store: None, sources: Sources) -> None:
    assert code(sources, "s3://archive/gone.dcm") == "source_missing"
    assert code(sources, "s3://elsewhere/gone.dcm") == "source_missing"
    assert code(sources, "s3://archive/large.dcm") == "too_large"


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A server of the files of a folder; `denied` is for nobody."""
    pytest.importorskip("aiohttp", reason="requirements-remote.txt")

    class Handler(SimpleHTTPRequestHandler):
        def send_head(self):  # type: ignore[no-untyped-def]
            if self.path == "/denied":
                self.send_error(401)
                return None
            return super().send_head()

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(tmp_path))
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_file_of_a_web_server_is_an_input_and_what_it_refuses_is_named(
    web: str, tmp_path: Path, sources: Sources
) -> None:
    (tmp_path / "a.dcm").write_bytes(b"a" * 10)
    (tmp_path / "large").write_bytes(bytes(MAX_BYTES + 1))
    assert listed(f"{web}/a.dcm") == [f"{web}/a.dcm"]
    assert sources.read(Address(f"{web}/a.dcm")) == b"a" * 10
    assert code(sources, f"{web}/gone") == "source_missing"
    assert code(sources, f"{web}/denied") == "source_denied"
    assert code(sources, f"{web}/large") == "too_large"
