"""From what a user names to inputs."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian, MediaStorageDirectoryStorage

from spinexr.batch import listing
from spinexr.batch.address import Address
from spinexr.batch.listing import Unlisted
from spinexr.errors import BatchError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Radiographs by their names, and what lies beside them."""
    root = tmp_path / "archive"
    for name in ("a.dcm", "deep/er/b", "deep/1.2.840.3", ".hidden", "index.json", "DICOMDIR"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def files(*names: str | Path) -> list[str]:
    """The inputs' files, and their members behind a `!`, in order; nothing else may be listed."""
    found = []
    for listed in listing.inputs(map(str, names)):
        assert isinstance(listed, Address), listed
        found.append(str(listed))
    return sorted(found)


def codes(*names: str | Path) -> dict[str, str]:
    """File name → code of what cannot be listed."""
    return {
        Path(u.address.file).name: u.error.code
        for u in listing.inputs(map(str, names))
        if isinstance(u, Unlisted)
    }


def test_a_folder_gives_its_files_at_any_depth_but_no_documents(folder: Path) -> None:
    names = ("a.dcm", "deep/1.2.840.3", "deep/er/b")
    assert files(folder) == [str(folder / name) for name in names]


def test_what_is_named_itself_is_an_input_whatever_its_name(folder: Path) -> None:
    assert files(folder / "index.json") == [str(folder / "index.json")]


def test_relative_names_become_absolute(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert files("a.dcm") == [str(folder / "a.dcm")]


def test_globs_reach_into_folders(folder: Path) -> None:
    assert files(folder / "**" / "b") == [str(folder / "deep/er/b")]
    assert files(f"{folder}/[a]*") == [str(folder / "a.dcm")]


def test_the_first_input_comes_before_the_last_folder_is_seen(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    real = os.scandir

    def scandir(path: str) -> object:
        seen.append(path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    for n in range(20):
        (folder / f"study{n}").mkdir()
        (folder / f"study{n}/image.dcm").touch()
    next(listing.inputs([str(folder)]))
    assert len(seen) <= 3


def test_a_folder_that_may_not_be_read_is_named_and_the_others_are_listed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.scandir

    def scandir(path: str) -> object:
        if path.endswith("er"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    listed = list(listing.inputs([str(folder)]))
    assert len(listed) == 3
    assert codes(folder) == {"er": "unreadable_file"}


def test_a_loop_of_links_ends_and_is_named(folder: Path) -> None:
    (folder / "deep/loop").symlink_to(folder)
    (folder / "deep/er/up").symlink_to("..")
    assert codes(folder) == {"loop": "link_loop", "up": "link_loop"}
    assert len(list(listing.inputs([str(folder)]))) == 5


def test_a_link_to_itself_costs_no_other_file_its_place(folder: Path) -> None:
    before = len(files(folder))
    (folder / "deep/self").symlink_to("self")
    assert codes(folder) == {"self": "link_loop"}
    assert len(list(listing.inputs([str(folder)]))) == before + 1


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("{root}", True), ("file://{root}", True), ("{root}/*", True), ("{root}/**/*.dcm", True),
        ("{root}/o?t/*", False), ("{root}/*.dcm", False), ("{root}/other", False),
        ("s3://bucket", False), ("{root}/out/../*", True),
    ],
)  # fmt: skip
def test_a_name_is_known_to_hold_a_folder_that_is_not_there_yet(
    tmp_path: Path, name: str, held: bool
) -> None:
    assert listing.would_list(name.format(root=tmp_path), tmp_path / "out") == held


def test_a_linked_folder_is_listed_once(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "c.dcm").write_bytes(b"x")
    (other / "back").symlink_to(folder)
    (folder / "one").symlink_to(other)
    (folder / "two").symlink_to(other)
    found = files(folder)
    assert [Path(f).name for f in found if "c.dcm" in f] == ["c.dcm"]
    assert len(found) == 4


def test_a_link_to_nothing_is_an_input_that_will_fail(folder: Path) -> None:
    (folder / "gone.dcm").symlink_to(folder / "nothing")
    assert str(folder / "gone.dcm") in files(folder)


@pytest.mark.parametrize("header", ["path,label\n", "label;x,File\n", ""])
def test_a_csv_names_files_relative_to_itself(folder: Path, header: str) -> None:
    rows = {"": "a.dcm\n\ndeep/er/b\n", "path,label\n": "a.dcm,1\n\ndeep/er/b,0\n"}
    text = header + rows.get(header, "1,a.dcm\n\n0,deep/er/b\n")
    (folder / "list.csv").write_text(text, encoding="utf-8")
    assert files(folder / "list.csv") == [str(folder / "a.dcm"), str(folder / "deep/er/b")]


def dicomdir(folder: Path, *names: list[str]) -> Path:
    """A DICOMDIR that refers to files by their names' parts."""
    records = []
    for parts in names:
        record = Dataset()
        record.DirectoryRecordType = "IMAGE"
        record.ReferencedFileID = parts
        records.append(record)
    dataset = Dataset()
    dataset.DirectoryRecordSequence = Sequence(records)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    dataset.save_as(folder / "DICOMDIR", enforce_file_format=True)
    return folder / "DICOMDIR"


def test_a_dicomdir_lists_its_images(folder: Path) -> None:
    assert files(dicomdir(folder, ["DEEP", "IM1"], ["IM2"])) == [
        str(folder / "DEEP/IM1"),
        str(folder / "IM2"),
    ]


def test_a_dicomdir_leads_nowhere_outside_of_its_folder(folder: Path) -> None:
    index = dicomdir(folder, ["..", "IM1"], ["IM2"])
    assert codes(index) == {"IM1": "unreadable_file"}


def test_a_damaged_dicomdir_is_named(folder: Path) -> None:
    assert codes(folder / "DICOMDIR") == {"DICOMDIR": "not_dicom"}


def test_a_zip_gives_its_members_and_a_broken_one_its_name(folder: Path) -> None:
    with zipfile.ZipFile(folder / "z.zip", "w") as archive:
        for name in ("study/x.dcm", "readme.txt", "__MACOSX/x.dcm"):
            archive.writestr(name, b"x")
    (folder / "broken.zip").write_bytes(b"PK\3\4 and no more")
    assert f"{folder}/z.zip!/study/x.dcm" in [
        str(a) for a in listing.inputs([str(folder / "z.zip")])
    ]
    assert len(files(folder / "z.zip")) == 1
    assert codes(folder) == {"broken.zip": "unreadable_file"}


@pytest.fixture
def memory() -> Iterator[None]:
    """Files in fsspec's memory."""
    system = fsspec.filesystem("memory")
    for name in ("/bucket/a.dcm", "/bucket/deep/b.dcm", "/bucket/notes.txt"):
        system.pipe(name, b"x")
    yield
    system.rm("/bucket", recursive=True)


@pytest.mark.usefixtures("memory")
def test_addresses_are_listed_as_folders_and_globs_are() -> None:
    assert files("memory://bucket") == ["memory:///bucket/a.dcm", "memory:///bucket/deep/b.dcm"]
    assert files("memory://bucket/*.dcm") == ["memory:///bucket/a.dcm"]
    assert files("memory://bucket/[n]otes.txt") == ["memory:///bucket/notes.txt"]
    assert files("memory://bucket/*/*.dcm") == ["memory:///bucket/deep/b.dcm"]
    assert files("memory://bucket/d*") == ["memory:///bucket/deep/b.dcm"]
    both = ["memory:///bucket/a.dcm", "memory:///bucket/deep/b.dcm"]
    assert files("memory://bucket/**/*.dcm") == files("memory://b*/**/?.dcm") == both
    assert files("memory://bucket/*.png") == []


@pytest.mark.usefixtures("memory")
def test_a_glob_of_addresses_looks_into_one_folder_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    system = fsspec.filesystem("memory")
    ls, looked_into = system.ls, []

    def noting(path: str, **options: object) -> object:
        looked_into.append(path)
        return ls(path, **options)

    monkeypatch.setattr(system, "ls", noting)
    assert str(next(listing.inputs(["memory://bucket/**/*.dcm"]))) == "memory:///bucket/a.dcm"
    assert looked_into == ["/bucket"]
    looked_into.clear()
    assert files("memory://bucket/x*/*.dcm") == []
    assert looked_into == ["/bucket"]


@pytest.mark.usefixtures("memory")
def test_a_folder_of_addresses_that_is_refused_is_named_and_the_others_are_listed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    system = fsspec.filesystem("memory")
    ls = system.ls

    def refusing(path: str, **options: object) -> object:
        if path.endswith("deep"):
            raise PermissionError("the token has expired")
        return ls(path, **options)

    monkeypatch.setattr(system, "ls", refusing)
    found = list(listing.inputs(["memory://bucket"]))
    assert [str(f) for f in found if isinstance(f, Address)] == ["memory:///bucket/a.dcm"]
    assert codes("memory://bucket") == {"deep": "source_denied"}


@pytest.mark.usefixtures("memory")
def test_a_sheet_at_an_address_is_read_as_a_local_one(folder: Path) -> None:
    text = f"label,path\n1,deep/b.dcm\n0,memory://bucket/a.dcm\n0,{folder / 'a.dcm'}\n"
    fsspec.filesystem("memory").pipe("/bucket/list.csv", text.encode())
    assert files("memory://bucket/list.csv") == [
        str(folder / "a.dcm"), "memory:///bucket/a.dcm", "memory:///bucket/deep/b.dcm",
    ]  # fmt: skip


def test_an_address_of_a_local_file_is_its_path(folder: Path) -> None:
    assert files((folder / "a.dcm").as_uri()) == [str(folder / "a.dcm")]


@pytest.mark.parametrize("name", ["nothing.dcm", "nothing*.dcm", "carrier-pigeon://a/b"])
def test_what_is_not_there_is_said_at_once(name: str) -> None:
    with pytest.raises(BatchError, match=r"nothing|carrier-pigeon"):
        listing.check([name])


def test_names_that_are_no_text_can_be_printed() -> None:
    assert str(Address("/a/\udcff.dcm")) == "/a/\\xff.dcm"
