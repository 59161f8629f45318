"""Shell blocks of a document, and running them in a copy of the project.

A block is a fence without a language. The line above it may say how it is run:

    <!-- not run: REASON -->
    <!-- serves -->            left running; later blocks talk to it
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.processes import ROOT, Server, environment, free_port

# What a checkout needs to run; the rest is tests and what their tools make.
_COPIED = (
    "spinexr", "templates", "static", "translations", "samples", "app.py", "gunicorn.conf.py",
    "requirements.txt", "README.md",
)  # fmt: skip
_FENCE = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]+) -->\n)?```\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_ANY_FENCE = re.compile(r"^```(\w*)$", re.MULTILINE)
_LONGEST_S = 300
_BASH = "/bin/bash"


@dataclass(frozen=True, slots=True)
class Block:
    """One fence and its mark, "" without one."""

    document: str
    line: int
    mark: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}, line {self.line}"


def of(document: str) -> list[Block]:
    """The shell blocks of a document, in order."""
    return found_in(document, (ROOT / document).read_text(encoding="utf-8"))


def found_in(document: str, text: str) -> list[Block]:
    """The shell blocks of a text."""
    # Fences of a language are emptied, so that the end of one is not the beginning of a block.
    openings = list(_ANY_FENCE.finditer(text))
    for opening, closing in zip(openings[::2], openings[1::2], strict=True):
        if opening[1]:
            inside = text[opening.start() : closing.end()]
            text = text.replace(inside, re.sub(r"[^\n]", " ", inside), 1)
    return [
        Block(document, text.count("\n", 0, m.start()) + 1, m["mark"] or "", m["text"])
        for m in _FENCE.finditer(text)
    ]


class Shell:
    """A copy of the project in which blocks are run, equal ones once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._port = free_port()
        self._server: Server | None = None
        self._outputs: dict[str, str] = {}
        for name in _COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copyfile(source, folder / name)
        for name in ("ensemble output", "detection output"):  # large, and only read
            (folder / name).symlink_to(ROOT / name)
        (folder / "uploads").mkdir()

    def run(self, block: Block) -> str:
        """What the block prints on standard output; it must succeed."""
        if block.text not in self._outputs:
            self._outputs[block.text] = self._run(block)
        return self._outputs[block.text]

    def close(self) -> None:
        if self._server is not None:
            self._server.kill()

    def _run(self, block: Block) -> str:
        # Networks are not compiled here: it takes a minute, and other tests do it.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        env = {"SPINEXR_ENGINE": "torch", "PATH": path}
        if block.mark == "serves":
            assert self._server is None, f"{block}: something is served already"
            command = [_BASH, "-c", f"cd {shlex.quote(str(self.folder))} && exec env {block.text}"]
            self._server = Server(command, self._port, **env)
            self._server.wait_for_log("models ready")
            return ""
        text = block.text.replace("localhost:5000", f"localhost:{self._port}")
        done = subprocess.run(
            [_BASH, "-e", "-o", "pipefail", "-c", text],
            cwd=self.folder,
            env=environment(**env),
            capture_output=True,
            text=True,
            timeout=_LONGEST_S,
            check=False,
        )
        assert done.returncode == 0, f"{block}:\n{block.text}\n{done.stdout}\n{done.stderr}"
        return done.stdout
