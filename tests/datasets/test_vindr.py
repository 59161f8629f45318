from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from spinexr.datasets import vindr
from spinexr.errors import ConfigurationError
from tests.datasets import roots
from tests.datasets.roots import Image


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return roots.write(tmp_path / "data")


def codes(dataset: vindr.Dataset) -> list[str]:
    return [p.code for p in dataset.problems]


def edit_csv(root: Path, change: Callable[[str], str], part: str = "test") -> None:
    file = root / f"annotations/{part}.csv"
    before = file.read_text()
    file.write_text(change(before))
    assert file.read_text() != before


def test_a_good_root_is_read_with_labels_boxes_and_studies(root: Path) -> None:
    dataset = vindr.read(root)
    assert dataset.problems == ()
    by_id = {i.image_id: i for i in dataset.images}
    assert set(by_id) == set("abcdef")
    assert [i.image_id for i in dataset.images if i.abnormal] == ["f", "a", "c"]
    assert by_id["a"].study_id == by_id["b"].study_id == "s1"
    assert [lesion.label for lesion in by_id["a"].lesions] == [
        "Osteophytes", "Disc space narrowing",
    ]  # fmt: skip
    assert by_id["a"].lesions[0].box.x2 == 40.0
    assert by_id["a"].file.is_file()


def test_the_folder_that_wget_makes_is_found(tmp_path: Path) -> None:
    roots.write(tmp_path / "physionet.org/files/vindr-spinexr/1.0.0")
    assert len(vindr.read(tmp_path).images) == 6


def test_stray_files_of_a_download_are_ignored(root: Path) -> None:
    (root / "test_images/index.html").write_text("<html>")
    assert vindr.read(root).problems == ()


def test_reading_one_part_opens_nothing_of_the_other(root: Path) -> None:
    for file in (root / "test_images").iterdir():
        file.unlink()
    (root / "test_images").rmdir()
    (root / "annotations/test.csv").unlink()
    assert {i.image_id for i in vindr.read(root, parts=("train",)).images} == {"e", "f"}


def test_a_folder_that_is_no_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="annotations"):
        vindr.read(tmp_path)


def test_missing_folders_and_csvs_are_named(root: Path) -> None:
    (root / "test_images").rename(root / "elsewhere")
    with pytest.raises(ConfigurationError, match="test_images"):
        vindr.read(root)
    (root / "elsewhere").rename(root / "test_images")
    (root / "annotations/test.csv").unlink()
    with pytest.raises(ConfigurationError, match=r"annotations/test\.csv"):
        vindr.read(root)


def test_a_missing_column_is_named(root: Path) -> None:
    edit_csv(root, lambda t: t.replace("xmax", "right"))
    with pytest.raises(ConfigurationError, match="xmax"):
        vindr.read(root)


def test_an_empty_part_is_an_error(root: Path) -> None:
    edit_csv(root, lambda t: t.splitlines()[0] + "\n")
    with pytest.raises(ConfigurationError, match="lists no image"):
        vindr.read(root)


@pytest.mark.parametrize(
    ("lesion", "code"),
    [
        (("Osteophytes", 60, 20, 40, 60), "bad_box"),
        (("Osteophytes", 10, 60, 40, 20), "bad_box"),
        (("Osteophytes", "", "", "", ""), "bad_box"),
        (("Osteophytes", "nan", 1, 2, 3), "bad_box"),
        (("Osteophytes", 10, 20, 140, 60), "box_outside"),
        (("Osteophytes", -10, 20, 40, 60), "box_outside"),
        (("Spondylolisthesis", 10, 20, 40, 60), "unknown_class"),
    ],
)
def test_a_bad_row_is_named_and_its_image_left_out(
    tmp_path: Path, lesion: roots.Lesion, code: str
) -> None:
    images = (*roots.DEFAULT, Image("s9", "bad", [lesion]))
    dataset = vindr.read(roots.write(tmp_path / "data", images))
    (problem,) = dataset.problems
    assert problem.code == code
    assert problem.where == "annotations/test.csv, row 7"
    assert "bad" not in {i.image_id for i in dataset.images}
    assert len(dataset.images) == 6


def test_a_box_on_the_very_edge_is_not_outside(tmp_path: Path) -> None:
    images = (*roots.DEFAULT, Image("s9", "edge", [("Osteophytes", 0, 0, 112.5, 160.9)]))
    assert vindr.read(roots.write(tmp_path / "data", images)).problems == ()


def test_an_image_listed_but_absent_and_one_present_but_not_listed(root: Path) -> None:
    (root / "test_images/c.dicom").rename(root / "test_images/z.dicom")
    dataset = vindr.read(root)
    assert sorted(codes(dataset)) == ["file_missing", "not_listed"]
    assert [p.where for p in dataset.problems] == [
        "annotations/test.csv, row 5", "test_images/z.dicom",
    ]  # fmt: skip


def test_a_corrupt_file_is_named(root: Path) -> None:
    (root / "test_images/c.dicom").write_bytes(b"no dicom at all")
    dataset = vindr.read(root)
    assert codes(dataset) == ["corrupt_file"]
    assert "c" not in {i.image_id for i in dataset.images}


def test_normal_and_abnormal_at_once_is_a_contradiction(root: Path) -> None:
    edit_csv(root, lambda t: t + "s2,s2.1,c,R1,No finding,,,,\n")
    assert codes(vindr.read(root)) == ["contradiction"]


def test_the_same_row_twice_is_a_duplicate(root: Path) -> None:
    edit_csv(root, lambda t: t + t.splitlines()[-2] + "\n")
    assert codes(vindr.read(root)) == ["duplicate_row"]


def test_one_image_id_in_two_studies_is_a_duplicate(root: Path) -> None:
    edit_csv(root, lambda t: t + "s8,s8.1,c,R1,Osteophytes,1,1,9,9\n")
    assert codes(vindr.read(root)) == ["duplicate_image"]


def test_a_study_in_both_parts_is_no_test(tmp_path: Path) -> None:
    images = (*roots.DEFAULT, Image("s5", "leak"))
    root = roots.write(tmp_path / "data", images)
    for parts in (vindr.PARTS, ("test",)):
        dataset = vindr.read(root, parts=parts)
        assert codes(dataset) == ["study_in_both_parts"]
        assert "leak" not in {i.image_id for i in dataset.images}


def test_one_image_in_both_parts_is_a_duplicate(tmp_path: Path) -> None:
    images = (*roots.DEFAULT, Image("s9", "f"))
    assert codes(vindr.read(roots.write(tmp_path / "data", images))) == ["duplicate_image"]
