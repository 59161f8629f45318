"""What README and tutorial tell people to type works, in a copy of the project, offline."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator

import pytest

from tests.docs import blocks
from tests.docs.blocks import Block, Shell

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs fork"),
    pytest.mark.skipif(shutil.which("curl") is None, reason="the blocks need curl"),
]


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """One for both documents: blocks that stand in both are run once."""
    shell = Shell(tmp_path_factory.mktemp("copy"))
    yield shell
    shell.close()


def run_all(document: str, shell: Shell) -> dict[str, str]:
    """Block → what it printed, of all that are not marked as not run."""
    found = [b for b in blocks.of(document) if not b.mark.startswith("not run: ")]
    return {block.text: shell.run(block) for block in found}


def the_output(outputs: dict[str, str], words: str) -> str:
    """What the one block with these words printed."""
    (found,) = (output for text, output in outputs.items() if words in text)
    return found


@pytest.mark.parametrize("document", ["README.md", "docs/tutorial.md"])
def test_every_mark_is_known_and_says_why(document: str) -> None:
    found = blocks.of(document)
    assert any(not b.mark for b in found)
    for block in found:
        assert re.fullmatch(r"|serves|not run: \w.+", block.mark), block


def test_what_the_readme_says_can_be_typed(shell: Shell) -> None:
    outputs = run_all("README.md", shell)
    document = json.loads(the_output(outputs, "curl"))
    assert document["bundle"]["caveat"].startswith("Synthetic demo weights")
    assert re.search(r"(ab)?normal 0\.\d+", the_output(outputs, "spinexr analyse"))


def test_the_tutorial_leads_from_weights_to_a_report(shell: Shell) -> None:
    outputs = run_all("docs/tutorial.md", shell)
    assert "training data: synthetic" in the_output(outputs, "weights list")
    assert json.loads(the_output(outputs, "disc.dcm -H 'Accept: application/json'"))["decision"]
    assert json.loads(the_output(outputs, "file=@README.md"))["code"] == "unsupported_extension"
    assert (shell.folder / "runs/disc.png").read_bytes().startswith(b"\x89PNG")
    names = sorted(f.name for f in (shell.folder / "runs/results").iterdir())
    assert names == [
        "lumbar-implant.json", "lumbar-implant.png", "lumbar-normal.json", "lumbar-normal.png",
    ]  # fmt: skip
    metrics = json.loads((shell.folder / "runs/report/metrics.json").read_text(encoding="utf-8"))
    assert metrics["ensemble.auroc"] is not None
    assert "Nguyen et al." in (shell.folder / "runs/report/report.html").read_text("utf-8")


def test_a_block_that_fails_is_named_by_document_and_line(shell: Shell) -> None:
    text = (
        "One:\n\n```json\n{}\n```\n\n<!-- not run: why -->\n```\nx\n```\n\n"
        "```\nfalse\necho on\n```\n"
    )
    skipped, failing = blocks.found_in("some.md", text)
    assert (skipped.mark, skipped.text) == ("not run: why", "x\n")
    assert failing == Block("some.md", 12, "", "false\necho on\n")
    with pytest.raises(AssertionError, match=r"some\.md, line 12"):
        shell.run(failing)
