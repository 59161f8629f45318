"""Documents, site and hooks say what the code does."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
import yaml

from spinexr.cli import main as command_line
from spinexr.errors import all_error_classes
from spinexr.settings import Settings
from tools import site

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = sorted(
    f
    for f in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
    if "reference" not in f.relative_to(ROOT).parts
)


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def commands_in(document: str) -> list[str]:
    """What follows each `python -m spinexr`, to the end of the line or code."""
    joined = document.replace("\\\n", " ")
    return re.findall(r"python -m spinexr ([^`\n)]+)", joined)


def resolve(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the words begin with, and the words after it."""
    command: click.Command = command_line
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"no command {words[0]!r}"
        command, words = command.commands[words[0]], words[1:]
    return command, words


def check(line: str) -> None:
    """That every command and option of a line exists."""
    plain = line.translate(str.maketrans("[]…", "   "))
    words = shlex.split(re.split(r"[;|>]|  ", plain)[0], comments=True)
    if re.fullmatch(r"(\w+\|)+\w+", words[0]):  # list|verify
        for name in words[0].split("|"):
            check(name)
        return
    command, rest = resolve(words)
    known = {name for p in command.params for name in (*p.opts, *p.secondary_opts)} | {"--help"}
    for word in rest:
        if word.startswith("--"):
            option = word.split("=")[0].rstrip(",.:")
            assert option in known, f"{command.name} has no {option}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda f: f.relative_to(ROOT).as_posix())
def test_every_command_and_option_that_a_document_names_exists(document: Path) -> None:
    for line in commands_in(document.read_text(encoding="utf-8")):
        check(line)


@pytest.mark.parametrize("wrong", ["analyze x.dcm", "analyse x.dcm --detekt", "weights fetsch"])
def test_a_command_or_option_that_is_misspelt_is_found(wrong: str) -> None:
    (line,) = commands_in(f"Type `python -m spinexr {wrong}` and wait.")
    with pytest.raises(AssertionError, match="no"):
        check(line)


def test_the_readme_lists_every_command() -> None:
    rows = re.findall(r"^\| `python -m spinexr ([^`]+)` \|", text("README.md"), re.MULTILINE)
    listed = {
        id(resolve(shlex.split(row.translate(str.maketrans("[]…", "   "))))[0]) for row in rows
    }
    train = command_line.commands["train"]
    for path in site.command_paths():
        command, rest = resolve(path.split()[3:])
        assert rest == []
        if isinstance(command, click.Group) or command in getattr(train, "commands", {}).values():
            continue  # `train all` stands for its parts
        assert id(command) in listed, path


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda f: f.relative_to(ROOT).as_posix())
def test_every_variable_that_a_document_names_is_a_setting(document: Path) -> None:
    named = set(re.findall(r"\bSPINEXR_[A-Z_]*[A-Z]\b", document.read_text(encoding="utf-8")))
    assert named <= Settings.variables().keys()


def test_the_readme_s_table_holds_the_settings_and_nothing_else() -> None:
    table = text("README.md").split("\n## Settings\n")[1].split("\n## ")[0]
    rows = [
        tuple(re.fullmatch(r"\| `(\w+)` \| (.*?) \| (.*) \|", line).groups())  # type: ignore[union-attr]
        for line in table.splitlines()
        if line.startswith("| `")
    ]
    assert rows == Settings.describe()


def test_the_api_s_table_holds_no_code_that_is_never_answered() -> None:
    listed = re.findall(r"^\| \d{3}[^|]* \| (`[^|]+`) \|", text("docs/api.md"), re.MULTILINE)
    codes = {code for cell in listed for code in re.findall(r"`(\w+)`", cell)}
    of_faults = {"internal_error"}
    assert codes - of_faults <= {cls.code for cls in all_error_classes()}


def test_the_published_figures_stand_with_their_caveat() -> None:
    section = text("README.md").split("\n## Published results\n")[1].split("\n## ")[0]
    for figure in ("91.03", "83.09", "84.91", "81.68", "18.99", "0.449", "88.61", "33.15"):
        assert figure in section
    assert "picked on the same test set" in section


def test_a_new_command_appears_in_the_reference_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    @click.option("--shiny", help="Shines.")
    def polish(shiny: str) -> None:
        """Make it shine."""

    monkeypatch.setitem(command_line.commands, "polish", polish)
    made = site.commands()
    assert "## python -m spinexr polish" in made
    assert "Shines." in made


def test_the_reference_holds_every_command_setting_code_and_route() -> None:
    made = site.reference()
    for path in site.command_paths():
        assert re.search(rf"^#+ {re.escape(path)}$", made["docs/reference/commands.md"], re.M)
    for variable, default, about in Settings.describe():
        assert f"| `{variable}` | {default} | {about} |" in made["docs/reference/settings.md"]
    for cls in all_error_classes()[1:]:
        assert f"| `{cls.code}` |" in made["docs/reference/errors.md"]
    assert "| `members[].probability` | number ≥ 0, ≤ 1 |" in made["docs/reference/analysis.md"]
    assert "## POST /upload" in made["docs/reference/http.md"]
    assert "| `detect` | `multipart/form-data` |" in made["docs/reference/http.md"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly, with one page that nobody announced."""
    pytest.importorskip("mkdocs", reason="needs requirements-dev.txt")
    folder = tmp_path_factory.mktemp("site")
    configuration = site.stage(folder, folder / "out")
    done = site.run_mkdocs(configuration, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "out"


def test_every_document_is_a_page_of_the_site(built: Path) -> None:
    menu = (built / "index.html").read_text(encoding="utf-8")
    for document in DOCUMENTS:
        page = document.relative_to(ROOT).with_suffix(".html").as_posix()
        page = "index.html" if page == "README.html" else page
        assert (built / page).is_file()
        assert page == "index.html" or f'href="{page}"' in menu, page
    for name in site.reference():
        assert (built / name).with_suffix(".html").is_file()


def test_pages_of_the_site_fetch_nothing_from_elsewhere(built: Path) -> None:
    pages = list(built.rglob("*.html"))
    assert len(pages) > len(DOCUMENTS)
    for page in pages:
        html = page.read_text(encoding="utf-8")
        fetched = re.findall(r"<(?:script|img|iframe)[^>]*?\bsrc=[\"']?([^\"' >]+)", html)
        fetched += [
            href
            for tag in re.findall(r"<link[^>]*>", html)
            if "canonical" not in tag
            for href in re.findall(r"\bhref=[\"']?([^\"' >]+)", tag)
        ]
        assert fetched
        assert not [address for address in fetched if re.match(r"(https?:)?//", address)], page


def test_a_link_that_leads_nowhere_ends_the_build(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="needs requirements-dev.txt")
    configuration = site.stage(tmp_path, tmp_path / "out")
    (tmp_path / "pages/docs/tutorial.md").write_text("# T\n\n[x](nowhere.md)\n", encoding="utf-8")
    done = site.run_mkdocs(configuration, capture_output=True)
    assert done.returncode != 0
    assert "nowhere.md" in done.stdout + done.stderr


def test_the_hooks_run_what_make_lint_runs() -> None:
    (repository,) = yaml.safe_load(text(".pre-commit-config.yaml"))["repos"]
    assert repository["repo"] == "local"
    hooks = {hook["entry"].replace(".venv/bin/", "$(BIN)/") for hook in repository["hooks"]}
    recipes = re.findall(
        r"^(?:lint|format-check):[^\n]*\n((?:\t[^\n]*\n)+)", text("Makefile"), re.MULTILINE
    )
    assert hooks == {line.strip() for recipe in recipes for line in recipe.splitlines()}
    assert all(hook["language"] == "system" for hook in repository["hooks"])


def test_the_workflow_runs_what_ci_run_runs() -> None:
    workflow = yaml.safe_load(text(".github/workflows/ci.yml"))
    (job,) = workflow["jobs"].values()
    (command,) = (step["run"] for step in job["steps"] if "run" in step)
    assert command.endswith("bash .ci/run")
    assert text(".ci/run").splitlines()[-1] == "make check"
