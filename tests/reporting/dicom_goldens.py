"""The objects that are kept beside the tests, as JSON and XML.

    python -m tests.reporting.dicom_goldens

rewrites them: after a change that is meant, or a new version of SpineXR or highdicom. Needs dcmtk.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite

from spinexr.domain import ObjectKind
from spinexr.reporting import codes, dicom
from tests.analyses import analysis

FOLDER = Path(__file__).with_name("goldens")
NOW = datetime(2026, 1, 2, 3, 4, 5)
PATIENT = {
    "PatientName": "Müller^Änne", "PatientID": "P-1", "PatientBirthDate": "19500102",
    "PatientSex": "F", "StudyDate": "20250304", "StudyTime": "101112", "AccessionNumber": "A-1",
    "StudyID": "S-1", "ReferringPhysicianName": "Doe^Jane", "StudyDescription": "Lumbar spine",
    "BodyPartExamined": "LSPINE", "SpecificCharacterSet": "ISO_IR 100", "InstanceNumber": 3,
    "SeriesNumber": 1, "PatientOrientation": ["L", "F"], "WindowCenter": 2000, "WindowWidth": 1500,
    "RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "US",
}  # fmt: skip


def example(kind: ObjectKind) -> Dataset:
    """An object of one firm and one tentative finding."""
    return dicom.dataset(analysis(attributes=PATIENT), kind, codes=codes.read(), now=NOW)


def as_json(kind: ObjectKind) -> dict[str, Any]:
    """DICOM's JSON model (PS3.18 annex F) of the example, without pixels."""
    dataset = example(kind)
    if "PixelData" in dataset:
        del dataset.PixelData
    described: dict[str, Any] = json.loads(json.dumps(dataset.to_json_dict(), sort_keys=True))
    return described


def as_xml(kind: ObjectKind, dcm2xml: str) -> str:
    """The native model (PS3.19 annex A) that dcmtk's dcm2xml reads from the example."""
    dataset = example(kind)
    if "PixelData" in dataset:
        del dataset.PixelData
    with tempfile.NamedTemporaryFile(suffix=".dcm") as file:
        dcmwrite(file.name, dataset, enforce_file_format=True)
        done = subprocess.run(
            [dcm2xml, "--native-format", file.name], check=True, capture_output=True
        )
    tree = ElementTree.fromstring(done.stdout)  # noqa: S314  # of a file that was just made
    ElementTree.indent(tree)
    return ElementTree.canonicalize(ElementTree.tostring(tree, encoding="unicode")) + "\n"


def main() -> None:
    """Rewrite the files."""
    dcm2xml = shutil.which("dcm2xml")
    if dcm2xml is None:
        raise SystemExit("dcm2xml is missing: install dcmtk")
    FOLDER.mkdir(exist_ok=True)
    for kind in ObjectKind:
        text = json.dumps(as_json(kind), indent=1, ensure_ascii=False, sort_keys=True)
        (FOLDER / f"{kind}.json").write_text(text + "\n", encoding="utf-8")
        (FOLDER / f"{kind}.xml").write_text(as_xml(kind, dcm2xml), encoding="utf-8")


if __name__ == "__main__":
    main()
