"""Pictures of the DICOM objects in OHIF, in docs/images/: `python -m tools.viewer [SAMPLE]`.

Needs requirements-browser.txt, requirements-node.txt, Chromium, npm, Orthanc with DICOMweb, and
weights (SPINEXR_WEIGHTS, or those of the project) that find something on the sample. OHIF comes
from npm as its makers built it, and is not kept.
"""

from __future__ import annotations

import json
import logging
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
SAMPLE = "lumbar-osteophytes"
_WINDOW = {"width": 1240, "height": 700}
_SCALE = 1.5  # the picture's own pixels fit
_QUALITY = 82
_LONGEST_MS = 120_000
# WebGL without a GPU. With OHIF's own rendering on the CPU, boxes of a report are not drawn.
_WEBGL = (
    "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
)  # fmt: skip
_CONFIG = {
    "routerBasename": None,
    "extensions": [],
    "modes": [],
    "customizationService": {"autoCineModalities": {"$set": []}},  # no player over the picture
    "showStudyList": True,
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


def main(sample: str = SAMPLE) -> None:
    """Replace the pictures by what the viewer shows now of a sample."""
    radiograph = ROOT / "samples" / f"{sample}.dcm"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        viewer = _ohif(folder)
        orthanc = Orthanc(folder / "orthanc", node_port=free_port())
        orthanc.start()
        try:
            for file in (radiograph, *_objects(radiograph, folder / "objects")):
                _store(orthanc, file)
            with _served(viewer, orthanc) as address, sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=shutil.which("chromium") or shutil.which("google-chrome"),
                    args=["--no-sandbox", "--disable-background-networking", *_WEBGL],
                )
                page = browser.new_page(viewport=_WINDOW, device_scale_factor=_SCALE)
                study = pydicom.dcmread(radiograph, stop_before_pixels=True).StudyInstanceUID
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


def _objects(radiograph: Path, folder: Path) -> list[Path]:
    analyse = [sys.executable, "-m", "spinexr", "analyse", str(radiograph)]
    subprocess.run([*analyse, "--dicom-out", str(folder)], cwd=ROOT, check=True)  # noqa: S603  (no shell)
    return sorted(folder.iterdir())


def _store(orthanc: Orthanc, file: Path) -> None:
    there = f"http://127.0.0.1:{orthanc.http_port}/instances"
    urllib.request.urlopen(there, file.read_bytes()).close()


@contextmanager
def _served(viewer: Path, orthanc: Orthanc) -> Iterator[str]:
    """OHIF and, at the same origin, the archive."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
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
    _wait_for_image(page, "DX")
    page.get_by_text("SpineXR report").dblclick()
    page.get_by_role("button", name="No", exact=True).click()  # measurements are not tracked
    # That of the whole image, and one at least. OHIF draws them with the next frame only.
    page.wait_for_function(
        """() => {
            cornerstone.getRenderingEngines().forEach((engine) => engine.render());
            return document.querySelectorAll(".svg-layer polyline").length > 1;
        }""",
        polling=200,
    )
    _keep(page, "ohif-report")
    page.get_by_text("SpineXR picture").dblclick()
    _wait_for_image(page, "OT")
    _keep(page, "ohif-picture")


def _wait_for_image(page: Page, modality: str) -> None:
    page.wait_for_function(
        """(modality) => window.cornerstone?.getEnabledElements().some(({ viewport }) => {
            const image = viewport.getCurrentImageId?.();
            const series = image && cornerstone.metaData.get("generalSeriesModule", image);
            return viewport.viewportStatus === "rendered" && series?.modality === modality;
        })""",
        arg=modality,
    )


def _keep(page: Page, name: str) -> None:
    page.wait_for_load_state("networkidle")  # thumbnails
    page.screenshot(path=IMAGES / f"{name}.jpg", type="jpeg", quality=_QUALITY)


if __name__ == "__main__":
    main(*sys.argv[1:])
