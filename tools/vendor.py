"""Fetch the page's libraries from npm into static/vendor/, with version, licence and hashes.

    python tools/vendor.py

Needs npm. Users of SpineXR do not: what this writes is committed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

VENDOR = Path(__file__).resolve().parent.parent / "static" / "vendor"

# name, version, licence, and which of its files to take
LIBRARIES = (("@panzoom/panzoom", "4.6.2", "MIT", ("dist/panzoom.es.js", "MIT-License.txt")),)


def main() -> None:
    """Replace static/vendor/ by what LIBRARIES say."""
    shutil.rmtree(VENDOR, ignore_errors=True)
    found = [_fetch(*library) for library in LIBRARIES]
    (VENDOR / "vendor.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _fetch(name: str, version: str, licence: str, files: tuple[str, ...]) -> dict[str, object]:
    folder = VENDOR / name.rpartition("/")[2]
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as place:
        made = subprocess.run(  # noqa: S603  (fixed words)
            ["npm", "pack", "--json", f"{name}@{version}"],  # noqa: S607
            cwd=place, check=True, capture_output=True, text=True,
        )  # fmt: skip
        packed = json.loads(made.stdout)[0]
        with tarfile.open(Path(place) / packed["filename"]) as archive:
            about = json.load(archive.extractfile("package/package.json"))  # type: ignore[arg-type]
            if about["license"] != licence:
                raise SystemExit(f"{name} {version} is now under {about['license']}: check first.")
            hashes = {}
            for file in files:
                data = archive.extractfile(f"package/{file}").read()  # type: ignore[union-attr]
                target = folder / Path(file).name
                target.write_bytes(data)
                hashes[target.name] = hashlib.sha256(data).hexdigest()
    return {
        "name": name,
        "version": version,
        "licence": licence,
        "integrity": packed["integrity"],
        "folder": folder.name,
        "sha256": hashes,
    }


if __name__ == "__main__":
    main()
