"""Every command of README and of the pages in docs/ is run, in order, and prints what is shown; none is left out."""

from __future__ import annotations

import argparse
import shlex
import shutil
from pathlib import Path

import pytest

from prune_verify.checker.__main__ import main as checker_main
from prune_verify.cli import command_line
from tests.docs.documents import ROOT, Block, DocumentError, blocks, documents, is_slow, spans
from tests.docs.reader import CHECKER, Reader, matches

pytestmark = pytest.mark.prover
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in documents()}
PRACTICE = "docs/how-to/practice-files.md"
MADE = {"practice-digits": 5, "practice-table": 3}  # files in each of its folders
# What a page may have its reader type that this test does not run.
ELSEWHERE = {"pip", "pipx", "make", "git", "cd", "python", "export", "docker"}
# Options of other programs that the pages name.
FOREIGN = {"--no-deps"}


def pages() -> list[object]:
    """Pages with something to do; those that say so are slow."""
    found = []
    for page, text in TEXTS.items():
        todo = [block for block in blocks(text, page) if block.language in {"console", "python"} and not block.not_run]
        if todo:
            found.append(pytest.param(page, id=page, marks=[pytest.mark.slow] if is_slow(text) else []))
    return found


@pytest.fixture(scope="session")
def practice(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders that the page of practice files has its reader make, by the name in its ``in`` comments."""
    found: dict[str, Path] = {}
    readers: dict[str, Reader] = {}
    for block in blocks(TEXTS[PRACTICE], PRACTICE):
        name = block.folder or "nowhere"
        if name not in found:
            found[name] = tmp_path_factory.mktemp(name)
            readers[name] = Reader(found[name])
        readers[name].follow(block)
    return found


def prepared(name: str, practice: dict[str, Path], folder: Path) -> Path:
    """A copy of a prepared folder: of the practice files, or of a committed example; or an empty one."""
    if name == "repository":
        return ROOT
    source = practice.get(name, ROOT / "certs" / "examples" / name)
    if name == "empty":
        folder.mkdir()
    else:
        shutil.copytree(source, folder)
    return folder


@pytest.mark.parametrize("page", pages())
def test_a_page_does_what_it_says(page: str, practice: dict[str, Path], tmp_path: Path) -> None:
    if page == PRACTICE:  # done by the fixture
        assert {name: len(list(folder.iterdir())) for name, folder in practice.items()} == MADE
        return
    reader, made = None, 0
    for block in blocks(TEXTS[page], page):
        if block.language == "folder":
            made += 1
            reader = Reader(prepared(block.folder or "", practice, tmp_path / str(made)))
        elif block.language in {"console", "python"} and not block.not_run:
            assert reader is not None, f"{block.place}: in which folder? (<!-- in: NAME -->)"
            reader.follow(block)
        elif reader is not None:
            reader.follow(block)


@pytest.mark.parametrize("page", TEXTS)
def test_every_block_is_of_a_kind_that_is_tested(page: str) -> None:
    for block in blocks(TEXTS[page], page):
        assert block.language == "folder" or block.text.strip(), block.place


def unrun() -> list[object]:
    found = [block for page, text in TEXTS.items() for block in blocks(text, page) if block.not_run is not None]
    return [pytest.param(block, id=block.place) for block in found if block.language == "console"]


@pytest.mark.parametrize("block", unrun())
def test_what_cannot_be_run_here_is_parsed(block: Block) -> None:
    parsed(block)


def parsed(block: Block) -> None:
    """The commands of a block have verbs and options that exist."""
    for command in block.commands():
        words = shlex.split(command.line)
        if words[0] == "prune-verify":
            command_line().parse_args(words[1 : words.index(">")] if ">" in words else words[1:])
        elif words[: len(CHECKER)] == CHECKER:
            with pytest.raises(SystemExit) as ended:
                checker_main([*words[len(CHECKER) :], "--help"])
            assert ended.value.code == 0
        else:
            assert words[0] in ELSEWHERE, block.place


def known_options() -> dict[str, set[str]]:
    """Options by verb, those of its actions among them."""

    def of(parser: argparse.ArgumentParser) -> set[str]:
        found = set()
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for child in action.choices.values():
                    found |= of(child)
            found |= set(action.option_strings)
        return found

    verbs = next(action for action in command_line()._actions if isinstance(action, argparse._SubParsersAction)).choices
    return {name: of(parser) for name, parser in verbs.items()}


@pytest.mark.parametrize("page", TEXTS)
def test_verbs_and_options_named_in_prose_exist(page: str) -> None:
    known = known_options()
    every = set().union(*known.values()) | FOREIGN
    for span in spans(TEXTS[page]):
        words = span.replace("|", " ").split()
        options = {word.split("=")[0].rstrip(",;") for word in words if word.startswith("--")}
        if words[0] == "prune-verify" and len(words) > 1 and not words[1].startswith("-"):
            assert words[1] in known, f"{page}: {span}"
            options -= known[words[1]]
            assert not options, f"{page}: {span}"
        elif words[0] not in {"pip", "python", "docker"}:
            assert {option for option in options if not option.endswith(("-...", "-"))} <= every, f"{page}: {span}"


BROKEN = [
    ("a block without a language", "```\nprune-verify doctor\n```", "expected console"),
    ("a shell block", "```bash\nls\n```", "expected console"),
    ("a command in a text block", "```text\nprune-verify doctor\n```", "make it ```console"),
    ("a command in an indented block", "As in\n\n    prune-verify doctor\n", "indented block"),
    ("a pip line in an indented block", "    pip install prune-verify\n", "indented block"),
    ("not run, and nobody says why", "<!-- not run -->\n```console\n$ make demo\n```", "without a reason"),
    ("a block that does not end", "```console\n$ ls\n", "does not end"),
]


@pytest.mark.parametrize(("what", "text", "said"), BROKEN, ids=[row[0] for row in BROKEN])
def test_what_cannot_be_tested_is_refused(what: str, text: str, said: str) -> None:
    with pytest.raises(DocumentError, match=said):
        blocks(text, "page.md")


def test_a_reader_notices(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    for text, said in (("$ ls nowhere", "ended with"), ("$ printf one\ntwo", "printed"), ("$ curl x", "no page may")):
        with pytest.raises(AssertionError, match=said):
            reader.follow(blocks(f"```console\n{text}\n```", "page.md")[0])
    with pytest.raises(SystemExit):
        parsed(
            blocks("<!-- not run: it does not exist -->\n```console\n$ prune-verify verify --no-such x\n```", "p")[0]
        )


@pytest.mark.parametrize(
    ("shown", "found", "same"),
    [
        (["a", "..."], ["a", "b", "c"], True),
        (["a ... c"], ["a b c"], True),
        (["..."], [], True),
        (["a"], ["a", "b"], False),
        (["a", "...", "d"], ["a", "b", "c"], False),
    ],
)
def test_lines_match(shown: list[str], found: list[str], same: bool) -> None:
    assert matches(shown, found) == same
