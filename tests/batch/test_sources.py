"""Reading inputs, archives of any intention among them."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from spinexr.batch import archives, listing
from spinexr.batch.address import Address
from spinexr.batch.listing import Listed, Unlisted
from spinexr.batch.sources import Sources, stamp_of
from spinexr.errors import SpineXRError

MAX_BYTES = 1000


@pytest.fixture
def sources() -> Iterator[Sources]:
    made = Sources(max_bytes=MAX_BYTES)
    yield made
    made.close()


def code(sources: Sources, address: Address) -> str:
    """The code of the refusal to read it."""
    with pytest.raises(SpineXRError) as caught:
        sources.read(address)
    return caught.value.code


def write_zip(file: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file


def write_tar(file: Path, mode: str, members: dict[str, bytes]) -> Path:
    with tarfile.open(file, mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return file


def test_a_file_is_read_up_to_the_limit_and_no_further(tmp_path: Path, sources: Sources) -> None:
    (tmp_path / "a").write_bytes(b"a" * MAX_BYTES)
    (tmp_path / "b").write_bytes(b"b" * (MAX_BYTES + 1))
    assert sources.read(Address(str(tmp_path / "a"))) == b"a" * MAX_BYTES
    assert code(sources, Address(str(tmp_path / "b"))) == "too_large"


def test_what_is_gone_or_no_file_is_named(tmp_path: Path, sources: Sources) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("gone", "pipe", ""):
        assert code(sources, Address(str(tmp_path / name))) == "unreadable_file"


@pytest.mark.parametrize("change", [b"longer than before", b"short"])
def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, sources: Sources, monkeypatch: pytest.MonkeyPatch, change: bytes
) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"as it was")
    real = os.fstat
    seen: list[int] = []

    def fstat(descriptor: int) -> os.stat_result:
        found = real(descriptor)
        if not seen:
            file.write_bytes(change)  # between the first look and the reading
        seen.append(descriptor)
        return found

    monkeypatch.setattr(os, "fstat", fstat)
    assert code(sources, Address(str(file))) == "file_changed"


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz", "a.tgz"])
def test_members_of_tars_are_read_in_any_order(tmp_path: Path, sources: Sources, name: str) -> None:
    mode = {"tar": "w", "gz": "w:gz", "tgz": "w:gz", "bz2": "w:bz2", "xz": "w:xz"}
    members = {f"{n}.dcm": bytes([n]) * n for n in range(1, 30)}
    file = write_tar(tmp_path / name, mode[name.rsplit(".", 1)[1]], members)
    listed = [a for a in listing.inputs([str(file)]) if isinstance(a, Address)]
    assert [a.member for a in listed] == list(members)
    for address in (*listed[3:], *reversed(listed), listed[0]):
        assert sources.read(address) == members[address.member]


def test_members_of_zips_are_read(tmp_path: Path, sources: Sources) -> None:
    file = write_zip(tmp_path / "a.zip", x=b"1", y=b"2")
    assert sources.read(Address(str(file), "y")) == b"2"
    assert sources.read(Address(str(file), "x")) == b"1"
    assert code(sources, Address(str(file), "z")) == "unreadable_file"


def test_an_archive_that_was_replaced_is_opened_anew(tmp_path: Path, sources: Sources) -> None:
    file = write_zip(tmp_path / "a.zip", x=b"1")
    assert sources.read(Address(str(file), "x")) == b"1"
    write_zip(tmp_path / "b.zip", x=b"2").replace(file)
    assert sources.read(Address(str(file), "x")) == b"2"


def test_an_archive_in_use_is_not_closed_for_others(
    tmp_path: Path, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spinexr.batch.sources._ARCHIVES_OPEN", 1)
    first, second = (write_zip(tmp_path / name, x=b"1") for name in ("a.zip", "b.zip"))
    with sources._archive(str(first), stamp_of(str(first))) as archive:
        assert sources.read(Address(str(second), "x")) == b"1"
        assert archive.read("x", max_bytes=10) == b"1"
    assert sources.read(Address(str(first), "x")) == b"1"


def test_a_member_without_a_name_ends_no_list(tmp_path: Path) -> None:
    file = write_zip(tmp_path / "a.zip", **{".": b"1", "x": b"2"})
    assert Address(str(file), "x") in list(listing.inputs([str(file)]))


@pytest.mark.parametrize(
    ("method", "refusal"),
    [
        (zipfile.ZIP_DEFLATED, "too_large"),
        (zipfile.ZIP_BZIP2, "unreadable_file"),
        (zipfile.ZIP_LZMA, "unreadable_file"),
    ],
)
def test_a_zip_bomb_costs_the_limit_and_no_more(
    tmp_path: Path,
    sources: Sources,
    method: int,
    refusal: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "bomb.zip"
    with zipfile.ZipFile(file, "w", method) as archive, archive.open("x", "w") as member:
        for _ in range(400):
            member.write(bytes(1_000_000))
    assert file.stat().st_size < 500_000
    unpacked = 0
    real = zipfile.ZipExtFile._read1  # type: ignore[attr-defined]

    def read(stream: zipfile.ZipExtFile, size: int) -> bytes:
        nonlocal unpacked
        data: bytes = real(stream, size)
        unpacked += len(data)
        return data

    monkeypatch.setattr(zipfile.ZipExtFile, "_read1", read)
    assert code(sources, Address(str(file), "x")) == refusal
    assert unpacked < 100_000_000


def test_a_zip_that_lies_about_a_size_is_bounded_all_the_same(
    tmp_path: Path, sources: Sources
) -> None:
    file = write_zip(tmp_path / "lie.zip", x=bytes(50_000))
    data = file.read_bytes().replace((50_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    file.write_bytes(data)
    assert code(sources, Address(str(file), "x")) in ("too_large", "unreadable_file")


@pytest.mark.parametrize("member", ["../x.dcm", "a/../../x.dcm", "/x.dcm", "..\\x.dcm", "C:/x.dcm"])
def test_a_name_that_leads_out_of_the_archive_is_refused(
    tmp_path: Path, sources: Sources, member: str
) -> None:
    archived = write_zip(tmp_path / "a.zip", **{member: b"1"})
    packed = write_tar(tmp_path / "a.tar", "w", {member: b"1"})
    for file in (archived, packed):
        (address,) = listing.inputs([str(file)])
        assert isinstance(address, Address)
        assert code(sources, address) == "unsafe_archive"
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a.tar", "a.zip"]


def unlisted(file: Path) -> str:
    """The code of the one thing listed."""
    *_, last = listing.inputs([str(file)])
    assert isinstance(last, Unlisted)
    return last.error.code


def test_a_tar_that_unpacks_to_far_more_than_its_size_ends_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "_ALWAYS_ALLOWED_BYTES", 1_000_000)
    file = write_tar(tmp_path / "bomb.tgz", "w:gz", {"x": bytes(30_000_000)})
    assert unlisted(file) == "unsafe_archive"


def test_a_tar_whose_header_claims_gigabytes_is_refused(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("x")
    entry.type, entry.size = tarfile.XHDTYPE, 1 << 33
    file = tmp_path / "header.tgz"
    file.write_bytes(gzip.compress(entry.tobuf(tarfile.GNU_FORMAT) + bytes(1024)))
    assert unlisted(file) == "unsafe_archive"


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_damage_anywhere_in_an_archive_is_a_refusal(
    tmp_path: Path, name: str, sources: Sources
) -> None:
    members = {f"{n}": os.urandom(500) for n in range(4)}
    file = tmp_path / name
    if name == "a.zip":
        write_zip(file, **members)
    else:
        write_tar(file, "w:gz" if name.endswith("gz") else "w", members)
    whole = file.read_bytes()
    found = set()
    for at in range(0, len(whole), 97):
        file.write_bytes(whole[:at])
        list(listing.inputs([str(file)]))  # names what it can, raises nothing
        file.write_bytes(whole[:at] + b"\xff\x00" + whole[at + 2 :])
        found |= {outcome(sources, listed) for listed in listing.inputs([str(file)])}
    assert found <= {"", "unreadable_file", "unsafe_archive", "too_large"}
    assert "unreadable_file" in found


def outcome(sources: Sources, listed: Listed) -> str:
    """The code of what is wrong with something listed, empty where nothing is."""
    if isinstance(listed, Unlisted):
        return listed.error.code
    try:
        sources.read(listed)
    except SpineXRError as e:
        return e.code
    return ""
