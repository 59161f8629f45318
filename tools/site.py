"""Build the documents as a site: what is written by hand, and a reference made from the code.

    python -m tools.site [OUT]

Pages keep their places relative to each other, so a link that works in the repository works on
the site. The reference is made each time and kept nowhere. mkdocs runs strictly: a page or a link
that is not there ends the build. Nothing is fetched, neither here nor by the pages.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import yaml

from spinexr.cli import main as command_line
from spinexr.errors import SpineXRError, all_error_classes
from spinexr.settings import Settings
from spinexr.web.errors import NEVER_ANSWERED, STATUS_OF_FAMILY, status_of
from tools import openapi

ROOT = Path(__file__).resolve().parent.parent
CONFIGURATION = ROOT / "mkdocs.yml"
_SCHEMA = "docs/schema/analysis-1.schema.json"
_FIRST = ("README.md", "docs/tutorial.md")
_ABOUT = ("MODEL_CARD.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "LICENSE", "NOTICE")
_DEPLOYING = ("DEPLOYMENT.md", "DEPLOYMENT_GUIDE.md", "GITHUB_SETUP.md")
_COLUMNS = 88  # of a help text
_LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def main() -> None:
    """Build the site into the folder given, runs/site by default."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "runs/site"
    sys.exit(build(out.resolve()))


def build(out: Path) -> int:
    """Build the site; the exit status of mkdocs."""
    with tempfile.TemporaryDirectory() as folder:
        return run_mkdocs(stage(Path(folder), out)).returncode


def run_mkdocs(configuration: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """mkdocs, strictly; `options` of subprocess.run. Quietly, it would not count warnings."""
    return subprocess.run(  # noqa: S603  (our own interpreter)
        [
            sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file",
            str(configuration),
        ],
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},  # mkdocs.yml says it for good
        text=True,
        check=False,
        **options,
    )  # fmt: skip


def stage(folder: Path, out: Path) -> Path:
    """Lay out everything the site is made of; the file that mkdocs is to read."""
    pages = folder / "pages"
    pages.mkdir(parents=True)
    for name in (*_FIRST, *_DEPLOYING, *_ABOUT):
        if "/" not in name:
            shutil.copyfile(ROOT / name, pages / name)
    shutil.copytree(
        ROOT / "docs", pages / "docs", ignore=lambda _folder, names: {"reference"} & set(names)
    )
    made = reference()
    for name, text in made.items():
        file = pages / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    configuration = folder / "mkdocs.yml"
    configuration.write_text(
        yaml.safe_dump(
            {
                "INHERIT": str(CONFIGURATION),
                "docs_dir": str(pages),
                "site_dir": str(out),
                "nav": navigation(pages),
            }
        ),
        encoding="utf-8",
    )
    return configuration


def navigation(pages: Path) -> list[dict[str, Any]]:
    """Sections in the order of reading; a page of docs/ that is new comes into "Subjects"."""

    def below(folder: str) -> list[str]:
        found = sorted((pages / "docs" / folder).glob("*.md"))
        return [f.relative_to(pages).as_posix() for f in found]

    subjects = [page for page in below(".") if page not in _FIRST]
    return [
        {"Start": list(_FIRST)},
        {"How to": [*below("how-to"), *_DEPLOYING]},
        {"Subjects": subjects},
        {"Reference": below("reference")},
        {"Explanation": ["docs/explanation/architecture.md"]},
        {"Decisions": below("explanation/decisions")},
        {"Project": [name for name in _ABOUT if name.endswith(".md")]},
    ]


def reference() -> dict[str, str]:
    """Path on the site → text, of every page that is made from the code."""
    return {
        "docs/reference/commands.md": commands(),
        "docs/reference/settings.md": settings(),
        "docs/reference/errors.md": errors(),
        "docs/reference/analysis.md": analysis(),
        "docs/reference/http.md": http(),
    }


def commands() -> str:
    """The help of every command, as it prints it."""
    parts = ["# Commands\n"]
    for path, command in _walk("python -m spinexr", command_line):
        depth = "##" if path.count(" ") < 4 else "###"
        parts.append(f"{depth} {path}\n\n```text\n{_help(path, command)}\n```\n")
    return "\n".join(parts)


def command_paths() -> list[str]:
    """Every command as it is typed, groups too."""
    return [path for path, _ in _walk("python -m spinexr", command_line)]


def settings() -> str:
    """Every setting with its default and what it may be."""
    accepted = {f.name: f.metadata["parse"].__doc__ for f in fields(Settings)}
    names = Settings.variables()
    rows = [
        f"| `{variable}` | {default} | {about} | {accepted[names[variable]]} |"
        for variable, default, about in Settings.describe()
    ]
    return "\n".join(
        [
            "# Settings\n",
            "Environment variables, read and checked at start. A value that is not accepted, and a",
            "variable beginning with `SPINEXR_` that is not listed here, end the start by name.\n",
            "| variable | default | what it is | accepted |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def errors() -> str:
    """Every error code with its family and HTTP status."""
    families = (*STATUS_OF_FAMILY, *NEVER_ANSWERED)
    rows = []
    for cls in all_error_classes():
        if cls is SpineXRError:
            continue
        family = next(f for f in families if issubclass(cls, f))
        kind = (family.__doc__ or "").splitlines()[0]
        status = "–" if issubclass(cls, NEVER_ANSWERED) else status_of(cls("")).value
        rows.append(f"| `{cls.code}` | {status} | {cls.title} | {kind} |")
    return "\n".join(
        [
            "# Error codes\n",
            "`code` is the same in the API, in `analyse --json` and in the log. What each one",
            "means for a caller of the API is in [HTTP API](../api.md#errors).\n",
            "| code | HTTP status | title | kind |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def analysis() -> str:
    """The fields of the JSON document of one analysis."""
    schema = json.loads((ROOT / _SCHEMA).read_text(encoding="utf-8"))
    rows = [
        f"| `{path}` | {kind} | {'' if required else 'optional'} | {about} |"
        for path, kind, required, about in _schema_rows(schema, schema)
    ]
    return "\n".join(
        [
            "# The analysis document\n",
            f"{schema['description']}\n",
            "Made from [the JSON schema](../schema/analysis-1.schema.json).\n",
            "| field | value | | meaning |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def http() -> str:
    """Every route, from the OpenAPI document of the application."""
    document = json.loads(openapi.as_text())
    parts = [
        "# Routes\n",
        "Made from [the OpenAPI document](../openapi.json), which is made from the application's"
        " routes.\n",
    ]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parts.append(f"## {method.upper()} {path}\n\n{operation['summary']}.\n")
            taken = list(_parameters(operation))
            if taken:
                parts.append("| takes | in | value |\n|---|---|---|\n" + "\n".join(taken) + "\n")
            parts.append("| answer | content |\n|---|---|")
            for status, answer in operation["responses"].items():
                kinds = ", ".join(f"`{kind}`" for kind in answer["content"])
                parts[-1] += f"\n| {status} | {kinds} |"
            parts[-1] += "\n"
    return "\n".join(parts)


def _walk(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, below in sorted(command.commands.items()):
            yield from _walk(f"{path} {name}", below)


def _help(path: str, command: click.Command) -> str:
    with click.Context(
        command, info_name=path, max_content_width=_COLUMNS, terminal_width=_COLUMNS
    ) as context:
        return command.get_help(context)


def _schema_rows(
    schema: dict[str, Any], of: dict[str, Any], prefix: str = ""
) -> Iterator[tuple[str, str, bool, str]]:
    """(path, kind of value, whether it is always there, meaning) of each property below `of`."""
    for name, given in of.get("properties", {}).items():
        value = _resolved(schema, given)
        path = f"{prefix}{name}"
        about = given.get("description") or value.get("description", "")
        yield path, _kind(schema, value), name in of.get("required", ()), about.replace("|", "\\|")
        for part in (value, *value.get("anyOf", ()), *value.get("oneOf", ())):
            part = _resolved(schema, part)
            yield from _schema_rows(schema, part, f"{path}.")
            if "items" in part:
                yield from _schema_rows(schema, _resolved(schema, part["items"]), f"{path}[].")


def _resolved(schema: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in value:
        return value
    found: dict[str, Any] = schema["$defs"][value["$ref"].removeprefix("#/$defs/")]
    return found


def _kind(schema: dict[str, Any], value: dict[str, Any]) -> str:
    """A word or two for what a value may be."""
    value = _resolved(schema, value)
    if "const" in value:
        return f"`{json.dumps(value['const'])}`"
    if "enum" in value:
        return ", ".join(f"`{json.dumps(v)}`" for v in value["enum"])
    for key in ("anyOf", "oneOf"):
        if key in value:
            return " or ".join(_kind(schema, part) for part in value[key])
    kind = value.get("type", "any")
    kind = " or ".join(kind) if isinstance(kind, list) else kind
    limits = [f"{sign} {value[key]:g}" for key, sign in _LIMITS.items() if key in value]
    return f"{kind} {', '.join(limits)}".strip()


def _parameters(operation: dict[str, Any]) -> Iterator[str]:
    for parameter in operation.get("parameters", ()):
        yield f"| `{parameter['name']}` | {parameter['in']} | {_taken(parameter['schema'])} |"
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        needed = content["schema"].get("required", ())
        for name, value in content["schema"]["properties"].items():
            more = "" if name in needed else ", optional"
            yield f"| `{name}` | `{kind}` | {_taken(value)}{more} |"


def _taken(value: dict[str, Any]) -> str:
    if "enum" in value:
        return "one of " + ", ".join(f"`{v}`" for v in value["enum"] if v)
    return str(value.get("description", value.get("type", "any")))


if __name__ == "__main__":
    main()
