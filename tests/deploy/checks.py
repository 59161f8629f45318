"""What the tools of hosts and containers say of the project's deployment files."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from spinexr.errors import ConfigurationError
from spinexr.node import configuration

SCHEMAS = Path(__file__).with_name("schemas")
Check = Callable[[Path], list[str]]


def hadolint(file: Path) -> list[str]:
    return _said(_tool("hadolint"), "--no-color", str(file))


def shell(file: Path) -> list[str]:
    return _said(_tool("shellcheck"), "--shell", "bash", str(file))


def compose(file: Path) -> list[str]:
    return _built_in("vendor.compose-spec", file)


def workflow(file: Path) -> list[str]:
    return _built_in("vendor.github-workflows", file)


def kubernetes(file: Path) -> list[str]:
    """Strict: unknown fields are problems too, as `kubectl apply` has them."""
    found = []
    for document in yaml.safe_load_all(file.read_text(encoding="utf-8")):
        try:
            kubernetes_validate.validate(document, "1.34", strict=True)
        except (
            kubernetes_validate.ValidationError,
            kubernetes_validate.SchemaNotFoundError,
            kubernetes_validate.InvalidSchemaError,
        ) as e:
            found.append(str(getattr(e, "message", e)))
    return found


def nginx(file: Path) -> list[str]:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed")
    done = subprocess.run(
        [program, "-t", "-q", "-e", "stderr", "-c", str(file), "-g", "pid /dev/null;"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stderr.splitlines() if done.returncode else []


def systemd(file: Path) -> list[str]:
    """Everything that systemd would ignore or refuse, but for the program that is not here."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd is not installed")
    done = subprocess.run(
        [program, "verify", "--man=no", str(file)], capture_output=True, text=True, check=False
    )
    return [x for x in done.stderr.splitlines() if file.name in x and "is not executable" not in x]


def node(file: Path) -> list[str]:
    """By the node itself."""
    try:
        configuration.read(file)
    except ConfigurationError as e:
        return [e.message]
    return []


def schema(name: str) -> Check:
    """By a schema in `schemas/`: the host's documentation as far as the project uses it."""
    document = json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(document)

    def check(file: Path) -> list[str]:
        return [f"{e.json_path}: {e.message}" for e in validator.iter_errors(read(file))]

    return check


def read(file: Path) -> Any:
    """What a JSON or YAML file holds, or the front matter of a Markdown file."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".md":
        text = re.split(r"^---$", text, flags=re.MULTILINE)[1]
    return yaml.safe_load(text)


def _built_in(name: str, file: Path) -> list[str]:
    return _said(
        sys.executable, "-m", "check_jsonschema", "--builtin-schema", name, "--no-cache", str(file)
    )


def _tool(name: str) -> str:
    """A program of the environment these tests run in."""
    return str(Path(sys.executable).with_name(name))


def _said(*command: str) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).splitlines() if done.returncode else []
