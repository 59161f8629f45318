"""Deployment files: each passes its own tool or schema, and a broken copy of it does not."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from spinexr.settings import Settings
from tests.deploy import checks
from tests.processes import ROOT, environment

# File, what judges it, and a change that must be found.
FILES: dict[str, tuple[checks.Check, tuple[str, str]]] = {
    "Dockerfile": (checks.hadolint, ("USER 1000", "USER root")),
    "deploy/huggingface/Dockerfile": (checks.hadolint, ("ENV PORT=7860", "ENVY PORT=7860")),
    "compose.yaml": (checks.compose, ("mem_limit", "memory_limit")),
    ".github/workflows/ci.yml": (checks.workflow, ("runs-on", "run-on")),
    "heroku.yml": (checks.schema("heroku"), ("docker:", "dockers:")),
    "render.yaml": (checks.schema("render"), ("runtime: docker", "runtime: doker")),
    "railway.json": (checks.schema("railway"), ("healthcheckPath", "healthCheckPath")),
    "deploy/huggingface/README.md": (checks.schema("space"), ("app_port: 7860", "port: 7860")),
    "deploy/k8s/kustomization.yaml": (checks.schema("kustomization"), ("resources:", "resource:")),
    "deploy/k8s/namespace.yaml": (checks.kubernetes, ("metadata:", "meta:")),
    "deploy/k8s/deployment.yaml": (checks.kubernetes, ("readinessProbe", "readynessProbe")),
    "deploy/k8s/service.yaml": (checks.kubernetes, ("port: 80", "port: http")),
    "deploy/k8s/autoscaler.yaml": (checks.kubernetes, ("maxReplicas: 4", "maxReplicas: four")),
    "deploy/k8s/networkpolicy.yaml": (checks.kubernetes, ("podSelector", "podselector")),
    "deploy/systemd/spinexr.service": (checks.systemd, ("ProtectHome=yes", "ProtectHouse=yes")),
    "deploy/systemd/spinexr-node.service": (checks.systemd, ("PrivateTmp=", "PrivateTemp=")),
    "deploy/orthanc/Dockerfile": (checks.hadolint, ("USER 0", "USERS 0")),
    "deploy/orthanc/compose.yaml": (checks.compose, ("read_only", "readonly")),
    "deploy/orthanc/node.toml": (checks.node, ("callers", "caller")),
    "deploy/nginx.conf": (checks.nginx, ("proxy_connect_timeout", "proxy_connection_timeout")),
    "deploy/cloud/cloudrun.yaml": (
        checks.schema("cloudrun"), ("containerConcurrency: 8", "containerConcurrency: 0"),
    ),
    "deploy/cloud/apprunner.json": (checks.schema("apprunner"), ('"1 vCPU"', '"1 CPU"')),
    "deploy/cloud/containerapp.yaml": (checks.schema("containerapp"), ("targetPort", "port")),
    "bin/pre_compile": (checks.shell, ("cp requirements", "cp $X requirements")),
    "bin/slim": (checks.shell, ('cd "$1"', "cd $1")),
    "bin/post_compile": (checks.shell, ('"$PACKED_URL"', "$PACKED_URL")),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_deployment_file_is_what_its_host_expects(name: str) -> None:
    check, _ = FILES[name]
    assert check(ROOT / name) == []


@pytest.mark.parametrize("name", FILES)
def test_a_broken_copy_of_it_is_found(name: str, tmp_path: Path) -> None:
    check, (right, wrong) = FILES[name]
    text = (ROOT / name).read_text(encoding="utf-8")
    assert right in text
    broken = tmp_path / Path(name).name
    broken.write_text(text.replace(right, wrong), encoding="utf-8")
    assert check(broken) != []


def test_every_deployment_file_is_judged() -> None:
    there = [f for f in (ROOT / "deploy").rglob("*") if f.is_file() and f.suffix != ".md"]
    # Grafana's is compared with the metrics in tests/web/test_watching.py, and Orthanc runs its
    # own in tests/node/test_orthanc.py.
    elsewhere = {"deploy/grafana.json", "deploy/orthanc/forward.lua"}
    named = {f.relative_to(ROOT).as_posix() for f in there} - elsewhere
    assert named <= FILES.keys()


@pytest.mark.parametrize("name", FILES)
def test_a_deployment_file_sets_only_what_there_is_to_set(name: str) -> None:
    named = set(re.findall(r"SPINEXR_[A-Z_0-9]+", (ROOT / name).read_text()))
    assert named <= Settings.variables().keys()


def test_kubernetes_adds_no_variables_of_its_own() -> None:
    """The service is called spinexr: SPINEXR_PORT and others would be unknown settings."""
    assert "enableServiceLinks: false" in (ROOT / "deploy/k8s/deployment.yaml").read_text()


@pytest.mark.parametrize("name", FILES)
def test_probes_ask_paths_that_answer(name: str, paths: set[str]) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    asked = re.findall(r"""(?:[pP]ath"?:\s*"?)(/[a-z]+)\b(?!/)""", text)
    assert set(asked) <= paths


@pytest.fixture(scope="module")
def paths() -> set[str]:
    document = checks.read(ROOT / "docs/openapi.json")
    return {p.rstrip("/") for p in document["paths"]} | {"/tmp", "/metrics", "/queue"}  # noqa: S108


def test_the_kustomization_names_every_file_beside_it() -> None:
    folder = ROOT / "deploy/k8s"
    beside = {f.name for f in folder.iterdir()} - {"kustomization.yaml"}
    assert set(checks.read(folder / "kustomization.yaml")["resources"]) == beside


def test_ports_agree() -> None:
    assert Settings().port == 5000
    assert "PORT=5000" in (ROOT / "Dockerfile").read_text()
    (container,) = deployment()["spec"]["template"]["spec"]["containers"]
    assert container["ports"][0]["containerPort"] == 5000
    app = checks.read(ROOT / "deploy/cloud/containerapp.yaml")
    assert app["properties"]["configuration"]["ingress"]["targetPort"] == 5000
    space = checks.read(ROOT / "deploy/huggingface/README.md")
    assert f"PORT={space['app_port']}" in (ROOT / "deploy/huggingface/Dockerfile").read_text()
    assert "server 127.0.0.1:5000;" in (ROOT / "deploy/nginx.conf").read_text()


def test_what_the_image_writes_is_writable_where_its_root_is_not() -> None:
    pod = deployment()["spec"]["template"]["spec"]
    mounts = {m["mountPath"] for m in pod["containers"][0]["volumeMounts"]}
    assert mounts == {"/tmp", "/app/uploads", "/dev/shm"}  # noqa: S108
    app = checks.read(ROOT / "compose.yaml")["services"]["app"]
    assert app["read_only"]
    # Over a folder of the image, engines keep its mode, and the owner is root.
    uploads = app["environment"]["SPINEXR_UPLOADS"]
    assert not uploads.startswith("/app")
    assert [t.split(":")[0] for t in app["tmpfs"]] == ["/tmp", uploads]  # noqa: S108


def test_what_stops_it_waits_for_analyses_in_flight() -> None:
    grace = Settings().graceful_timeout_s
    assert deployment()["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > grace
    compose = checks.read(ROOT / "compose.yaml")["services"]["app"]
    assert int(compose["stop_grace_period"].removesuffix("s")) > grace
    unit = (ROOT / "deploy/systemd/spinexr.service").read_text()
    (stop,) = re.findall(r"TimeoutStopSec=(\d+)", unit)
    assert int(stop) > grace


def test_the_build_hooks_are_executable() -> None:
    for name in ("bin/pre_compile", "bin/post_compile", "bin/slim"):
        assert os.access(ROOT / name, os.X_OK)


@pytest.fixture
def slug(tmp_path: Path) -> Path:
    """What the hooks find: the working copy, without what would strip this Python's packages."""
    (tmp_path / "bin").mkdir()
    for hook in ("pre_compile", "post_compile"):
        shutil.copy(ROOT / "bin" / hook, tmp_path / "bin")
    (tmp_path / "bin/slim").write_text("#!/bin/sh\ntouch slimmed\n")
    (tmp_path / "bin/slim").chmod(0o755)
    (tmp_path / "spinexr").symlink_to(ROOT / "spinexr")
    for name in ("requirements.txt", "requirements-serve.lock"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def run(hook: str, slug: Path, **env: str) -> int:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [f"bin/{hook}"], cwd=slug, env=environment(PATH=path, **env), check=False
    ).returncode


def test_without_a_packed_archive_the_hooks_change_nothing(slug: Path) -> None:
    before = sorted(slug.iterdir())
    assert run("pre_compile", slug) == run("post_compile", slug) == 0
    assert sorted(slug.iterdir()) == before
    assert (slug / "requirements.txt").read_bytes() == (ROOT / "requirements.txt").read_bytes()


def test_with_a_packed_archive_the_slug_serves_its_networks_without_torch(slug: Path) -> None:
    packed = slug / "elsewhere.tar"
    with tarfile.open(packed, "w") as tar:
        tar.add(ROOT / "LICENSE", "engines/network.xml")
    where = {"PACKED_URL": packed.as_uri()}
    right = hashlib.sha256(packed.read_bytes()).hexdigest()
    assert run("pre_compile", slug, **where) == 0
    assert "torch==" not in (slug / "requirements.txt").read_text()

    assert run("post_compile", slug, **where) != 0  # no hash
    assert run("post_compile", slug, PACKED_SHA256="0" * 64, **where) != 0
    assert not (slug / "engines").exists()
    assert run("post_compile", slug, PACKED_SHA256=right, **where) == 0
    assert (slug / "engines/network.xml").exists()
    assert not (slug / "packed.tar").exists()
    assert (slug / "slimmed").exists()


def deployment() -> Any:
    return checks.read(ROOT / "deploy/k8s/deployment.yaml")
