"""Pictures of the DICOM objects in OHIF, in docs/images/: `python -m tools.viewer`.

Needs requirements-browser.txt, requirements-node.txt, Chromium, npm, Orthanc with DICOMweb, and
weights (SPINEXR_WEIGHTS, or those of the project). OHIF comes from npm as its makers built it, and
is not kept.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
import requests
from flask import Flask, Response, request, send_from_directory
from playwright.sync_api import Page, sync_playwright
from werkzeug.serving import make_server

from tests.node.orthanc import Orthanc
from tests.processes import free_port

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
VERSION = "3.12.10"
SAMPLE = ROOT / "samples" / "lumbar-slip.dcm"
_QUALITY = 82
_LONGEST_MS = 120_000
_CONFIG = {
    "routerBasename": None,
    "extensions": [],
    "modes": [],
    "customizationService": {},
    "showStudyList": True,
    "useCPURendering": True,  # there is no GPU where this runs
    "showCPUFallbackMessage": False,
    "investigationalUseDialog": {"option": "never"},
    "defaultDataSourceName": "dicomweb",
    "dataSources": [
        {
            "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
            "sourceName": "dicomweb",
            "configuration": {
                "friendlyName": "Orthanc",
                "name": "Orthanc",
                "wadoUriRoot": "/dicom-web",
                "qidoRoot": "/dicom-web",
                "wadoRoot": "/dicom-web",
                "qidoSupportsIncludeField": False,
                "imageRendering": "wadors",
                "thumbnailRendering": "wadors",
                "enableStudyLazyLoad": True,
                "omitQuotationForMultipartRequest": True,
            },
        }
    ],
}


def main() -> None:
    """Replace the pictures by what the viewer shows now."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        viewer = _ohif(folder)
        orthanc = Orthanc(folder / "orthanc", node_port=free_port())
        orthanc.start()
        try:
            for file in (SAMPLE, *_objects(folder / "objects")):
                _store(orthanc, file)
            with _served(viewer, orthanc) as address, sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=shutil.which("chromium") or shutil.which("google-chrome"),
                    args=["--no-sandbox", "--disable-background-networking"],
                )
                page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
                study = pydicom.dcmread(SAMPLE, stop_before_pixels=True).StudyInstanceUID
                _take(page, f"{address}/viewer?StudyInstanceUIDs={study}")
                browser.close()
        finally:
            orthanc.kill()


def _ohif(folder: Path) -> Path:
    # npm holds it against the hash in its index
    subprocess.run(  # noqa: S603  (fixed words)
        ["npm", "pack", "--silent", f"@ohif/app@{VERSION}"],  # noqa: S607
        cwd=folder, check=True,
    )  # fmt: skip
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder / "package" / "dist"


def _objects(folder: Path) -> list[Path]:
    command = [sys.executable, "-m", "spinexr", "analyse", str(SAMPLE), "--dicom-out", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True)  # noqa: S603  (fixed words)
    return sorted(folder.iterdir())


def _store(orthanc: Orthanc, file: Path) -> None:
    there = f"http://127.0.0.1:{orthanc.http_port}/instances"
    urllib.request.urlopen(there, file.read_bytes()).close()


@contextmanager
def _served(viewer: Path, orthanc: Orthanc) -> Iterator[str]:
    """OHIF and, at the same origin, the archive."""
    app = Flask("viewer", static_folder=None)

    @app.get("/app-config.js")
    def configuration() -> Response:
        return Response(f"window.config = {json.dumps(_CONFIG)};", mimetype="text/javascript")

    @app.route("/dicom-web/<path:path>", methods=["GET", "POST"])
    def archive(path: str) -> Response:
        answer = requests.request(
            request.method,
            f"http://127.0.0.1:{orthanc.http_port}/dicom-web/{path}",
            params=request.args,
            data=request.get_data(),
            headers={k: v for k, v in request.headers if k in ("Accept", "Content-Type")},
            timeout=60,
        )
        kind = answer.headers.get("Content-Type")
        return Response(answer.content, answer.status_code, content_type=kind)

    @app.get("/", defaults={"path": ""})
    @app.get("/<path:path>")
    def page(path: str) -> Response:
        return send_from_directory(viewer, path if (viewer / path).is_file() else "index.html")

    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()


def _take(page: Page, address: str) -> None:
    page.set_default_timeout(_LONGEST_MS)
    page.add_init_script("localStorage.setItem('shownTours', '[\"basicViewerTour\"]')")
    page.goto(address)
    page.get_by_text("SpineXR report").dblclick()
    page.get_by_role("button", name="No", exact=True).click()  # measurements are not tracked
    _keep(page, "ohif-report")
    page.get_by_text("SpineXR picture").dblclick()
    _keep(page, "ohif-picture")


def _keep(page: Page, name: str) -> None:
    page.wait_for_timeout(3000)  # until it is drawn; nothing is tested here
    page.screenshot(path=IMAGES / f"{name}.jpg", type="jpeg", quality=_QUALITY)


if __name__ == "__main__":
    main()
