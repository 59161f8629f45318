"""A real Orthanc with DICOMweb, of Debian's packages, on loopback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.node import peers
from tests.processes import ROOT, free_port

_PLUGINS = Path("/usr/share/orthanc/plugins")
_LONGEST_START_S = 60


def program() -> str:
    """Where Orthanc is; left out without it, unless TEST_ORTHANC says that it must be there."""
    found = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
    if found is None or not list(_PLUGINS.glob("libOrthancDicomWeb*")):
        message = "Orthanc is not installed: apt-get install orthanc orthanc-dicomweb"
        if os.environ.get("TEST_ORTHANC"):
            pytest.fail(message)
        pytest.skip(message)
    return found


class Orthanc:
    """An Orthanc over a folder; ports stay the same when it is started again."""

    def __init__(self, folder: Path, *, node_port: int) -> None:
        self.dicom_port, self.http_port = free_port(), free_port()
        self.folder = folder
        folder.mkdir(exist_ok=True)
        configuration = {
            "Name": "ORTHANC",
            "DicomAet": "ORTHANC",
            "DicomPort": self.dicom_port,
            "HttpPort": self.http_port,
            "StorageDirectory": str(folder / "db"),
            "IndexDirectory": str(folder / "db"),
            "AuthenticationEnabled": False,
            "RemoteAccessAllowed": False,
            "DicomAlwaysAllowStore": True,
            "DicomModalities": {"SPINEXR": [peers.NODE, "127.0.0.1", node_port]},
            "LuaScripts": [str(ROOT / "deploy/orthanc/forward.lua")],
            "ExecuteLuaEnabled": True,  # Debian's has no heart beat yet
            "Plugins": [str(_PLUGINS)],
            "DicomWeb": {"Enable": True},
        }
        (folder / "orthanc.json").write_text(json.dumps(configuration), encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Until it answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program(), str(self.folder / "orthanc.json")], stdout=log, stderr=log
            )
        ends = time.monotonic() + _LONGEST_START_S
        while time.monotonic() < ends and self._process.poll() is None:
            try:
                self.get("/system")
            except urllib.error.URLError:
                time.sleep(0.05)  # it has no other way to say that it is there
            else:
                return
        raise AssertionError((self.folder / "log").read_text(errors="replace"))

    def kill(self) -> None:
        """As a power cut."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def beat(self) -> None:
        """What LuaHeartBeatPeriod has it do now and then."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http_port}/tools/execute-script", b"OnHeartBeat()"
        )
        with urllib.request.urlopen(request, timeout=peers.LONGEST_S) as answer:
            answer.read()

    @property
    def unforwarded(self) -> list[int]:
        """How often each of the images was tried that wait for the node."""
        lines = (self.folder / "db/forward-SPINEXR").read_text(encoding="ascii").splitlines()
        return [int(line.split()[1]) for line in lines[1:]]

    def get(self, path: str, accept: str = "application/json") -> Any:
        """The document, or bytes of another type."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http_port}{path}", headers={"Accept": accept}
        )
        with urllib.request.urlopen(request, timeout=peers.LONGEST_S) as answer:
            data = answer.read()
        return json.loads(data or "[]") if "json" in accept else data

    def file(self, instance: str) -> bytes:
        """What it keeps of a SOP Instance UID."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http_port}/tools/lookup", instance.encode()
        )
        with urllib.request.urlopen(request, timeout=peers.LONGEST_S) as answer:
            (found,) = json.load(answer)
        data: bytes = self.get(f"{found['Path']}/file", "application/dicom")
        return data

    def instances(self, study: str) -> dict[str, list[dict[str, Any]]]:
        """Modality → instances of a study, by QIDO."""
        found: dict[str, list[dict[str, Any]]] = {}
        for instance in self.get(
            f"/dicom-web/instances?StudyInstanceUID={study}&includefield=00080060"
        ):
            (modality,) = instance["00080060"]["Value"]
            found.setdefault(modality, []).append(instance)
        return found

    def wait_for(self, study: str, modalities: set[str]) -> dict[str, list[dict[str, Any]]]:
        """The study's instances, once it has all these modalities."""
        ends = time.monotonic() + peers.LONGEST_S
        while time.monotonic() < ends:
            found = self.instances(study)
            if modalities <= found.keys():
                return found
            time.sleep(0.05)  # it tells nobody
        raise AssertionError(f"{sorted(self.instances(study))} of {sorted(modalities)}")
