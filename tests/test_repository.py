"""What stands in documents and deployment files is what the code does."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from pathlib import Path

import pytest

from spinexr import __version__
from spinexr.errors import all_error_classes
from spinexr.settings import Settings
from spinexr.web.errors import NEVER_ANSWERED, status_of

ROOT = Path(__file__).parent.parent
REQUIREMENTS = (
    "requirements.txt", "requirements-serve.txt", "requirements-dev.txt",
    "requirements-browser.txt", "requirements-node.txt", "requirements-dask.txt",
    "requirements-remote.txt", "constraints.txt",
)  # fmt: skip

DOCUMENTS = sorted(
    f.relative_to(ROOT).as_posix() for f in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
)


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_fixed_names_are_there() -> None:
    for name in (
        "app.py", "spinexr", "templates", "static", "uploads", "ensemble output",
        "detection output", "tests", "requirements.txt", "Dockerfile", "Procfile", "runtime.txt",
        "README.md", "LICENSE", "NOTICE",
    ):  # fmt: skip
        assert (ROOT / name).exists(), name


def test_the_page_s_libraries_are_what_vendor_json_says() -> None:
    vendor = ROOT / "static/vendor"
    listed = set()
    for library in json.loads((vendor / "vendor.json").read_text(encoding="utf-8")):
        for name, expected in library["sha256"].items():
            file = vendor / library["folder"] / name
            assert hashlib.sha256(file.read_bytes()).hexdigest() == expected, file
            listed.add(file)
        assert library["name"] in text("NOTICE")
    assert listed == {f for f in vendor.rglob("*") if f.is_file()} - {vendor / "vendor.json"}


def test_readme_lists_every_setting_with_its_default() -> None:
    for variable, default, about in Settings.describe():
        assert f"| `{variable}` | {default} | {about} |" in text("README.md")


def test_every_error_code_is_documented_with_its_status() -> None:
    of_commands = {"error", "configuration", "training_stopped", "batch_stopped", "node"}
    elsewhere = text("docs/batch.md") + text("docs/how-to/pacs-node.md")
    documented = {
        code: status
        for status, code in re.findall(r"^\| (\d{3}) \| `(\w+)`", text("docs/api.md"), re.MULTILINE)
    }
    for cls in all_error_classes():
        if cls.code in of_commands:
            continue
        if issubclass(cls, NEVER_ANSWERED):
            assert f"`{cls.code}`" in elsewhere
        else:
            assert documented.get(cls.code) == str(status_of(cls("")).value), cls.code


def test_every_requirement_is_pinned() -> None:
    for name in REQUIREMENTS:
        for line in text(name).splitlines():
            if line and not line.startswith(("#", "-")):
                assert re.match(r"[A-Za-z0-9._-]+==\S+", line), line


def test_what_serving_needs_is_pinned_as_everywhere() -> None:
    everything = text("requirements.txt").splitlines()
    for line in text("requirements-serve.txt").splitlines():
        if "==" in line:
            assert line in everything
            assert not line.startswith(("torch", "timm", "ultralytics"))


def test_the_lock_holds_the_serving_packages_with_hashes() -> None:
    locked = dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", text("requirements-serve.lock"), re.M))
    pins = re.findall(r"^([A-Za-z0-9._-]+)==([^; \n]+)", text("requirements-serve.txt"), re.M)
    constrained = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", text("constraints.txt"), re.M)
    normal = {re.sub(r"[-_.]+", "-", n).lower(): v for n, v in constrained + pins}
    assert {n for n, _ in pins} <= locked.keys()
    assert locked == {n: normal[n] for n in locked}
    entries = re.split(r"\n(?=\S)", text("requirements-serve.lock").strip())
    assert all("--hash=sha256:" in entry for entry in entries)


def test_no_requirement_carries_an_index_address() -> None:
    for name in (*REQUIREMENTS, "requirements-serve.lock"):
        assert "://" not in text(name)


def test_the_python_versions_agree() -> None:
    lowest = tomllib.loads(text("pyproject.toml"))["project"]["requires-python"].removeprefix(">=")
    version = text(".python-version").strip()
    assert text("runtime.txt").startswith(f"python-{version}.")
    assert re.search(rf"^ARG BASE=python:{version}-slim(@sha256:\w+)?$", text("Dockerfile"), re.M)
    assert version >= lowest


def test_the_procfile_serves_the_app_on_every_interface() -> None:
    assert text("Procfile") == ("web: SPINEXR_HOST=0.0.0.0 SPINEXR_INSECURE=1 gunicorn app:app\n")


def test_the_images_run_as_nobody_special_and_report_their_health() -> None:
    stages = re.split(r"^FROM ", text("Dockerfile"), flags=re.M)[1:]
    serving = [s for s in stages if 'CMD ["gunicorn"' in s]
    assert [s.splitlines()[0] for s in serving] == ["base AS full", "base AS serve"]
    for stage in serving:
        assert "SPINEXR_INSECURE=1" in stage
        assert stage.index("USER 1000") < stage.index('CMD ["gunicorn"')
        command = stage.split("HEALTHCHECK", 1)[1].split("CMD ", 1)[1].split("\n", 1)[0]
        program = json.loads(command)
        assert program[:2] == ["python", "-c"]
        compile(program[2], "HEALTHCHECK", "exec")


def test_the_serving_image_holds_every_package_folder_and_no_torch() -> None:
    stage = text("Dockerfile").split("FROM base AS serve")[1]
    for folder in ("spinexr", "templates", "static", "samples", "translations"):
        assert f"COPY {folder} {folder}" in stage
    assert "requirements.txt" not in stage


def test_the_changelog_has_a_place_for_what_comes_next() -> None:
    assert "## [Unreleased]" in text("CHANGELOG.md")
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_between_documents_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", text(name)):
        if "://" not in target:
            assert ((ROOT / name).parent / target).exists(), target
