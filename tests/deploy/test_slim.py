"""What `bin/slim` leaves of the serving packages serves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.processes import ROOT

# Linked, not copied, where the file system allows it.
_PACKAGES = (
    "openvino",
    "imagecodecs",
    "imagecodecs.libs",
    "babel",
    "numpy",
    "numpy.libs",
    "highdicom",
)
_SERVE = """
import numpy as np, openvino as ov, imagecodecs, babel
from openvino import opset16 as ops
for package in (np, ov, imagecodecs, babel):
    assert package.__file__.startswith({site!r}), package.__file__

x = ops.parameter([2], np.float32)
ov.save_model(ov.Model([ops.sqrt(x)], [x]), {model!r})
network = ov.Core().compile_model({model!r}, "CPU")
assert network(np.array([4, 9], np.float32))[0].tolist() == [2, 3]

image = np.arange(64, dtype=np.uint8).reshape(8, 8)
for kind in ("jpeg2k", "jpegls"):
    code = getattr(imagecodecs, kind + "_encode")(image, level=0)
    assert (getattr(imagecodecs, kind + "_decode")(code) == image).all()
code = imagecodecs.jpeg8_encode(image.astype(np.uint16), lossless=True, bitspersample=12)
assert (imagecodecs.jpeg8_decode(code) == image).all()
header = b"\\1\\0\\0\\0\\x40\\0\\0\\0" + bytes(56)
assert imagecodecs.dicomrle_decode(header + b"\\1\\7\\x09", dtype="u1", out=2) == b"\\7\\x09"

import highdicom
from spinexr.domain import ObjectKind
from tests.reporting import dicom_goldens
assert highdicom.__file__.startswith({site!r}), highdicom.__file__
for kind in ObjectKind:
    assert dicom_goldens.example(kind).SOPInstanceUID

for language in ("en", "vi"):
    assert babel.Locale.parse(language).number_symbols["latn"]["decimal"]
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not sys.platform.startswith("linux"):
        pytest.skip("is for Linux")
    site = tmp_path_factory.mktemp("site")
    for package in _PACKAGES:
        shutil.copytree(
            Path(sysconfig.get_path("platlib")) / package, site / package, copy_function=_link
        )
    subprocess.run([ROOT / "bin/slim", site], check=True)
    return site


def test_networks_run_images_are_decoded_and_both_languages_are_there(site: Path) -> None:
    code = _SERVE.format(site=str(site), model=str(site / "network.xml"))
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": f"{site}{os.pathsep}{ROOT}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_less_than_half_is_left(site: Path) -> None:
    whole = Path(sysconfig.get_path("platlib"))
    before = sum(_bytes(whole / package) for package in _PACKAGES)
    assert sum(_bytes(site / package) for package in _PACKAGES) < before / 2


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _bytes(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.suffix != ".pyc" and f.is_file())
