"""README and the pages of docs/ as what they tell a reader to do: fenced blocks in order, with what is said about each.

A comment just above a fence says what the block is: ``<!-- exits 1 -->`` for the code of its last command,
``<!-- file: NAME -->`` for the text of a file, ``<!-- prints -->`` for what the Python block before it printed, and
``<!-- not run: REASON -->`` where it cannot be run here. ``<!-- in: FOLDER -->`` begins a prepared folder, and
``<!-- slow -->`` anywhere makes the page's test slow.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMENT = re.compile(r"<!--\s*(in|exits|file|prints|not run|slow)(?::?\s+(.*?))?\s*-->")
FENCE = re.compile(r"^( *)(`{3,})\s*([\w-]*)(.*)$")
# Languages of blocks that hold no commands.
DATA = {"text", "json", "toml", "csv", "yaml", "smtlib", "html"}
COMMANDS = re.compile(
    r"^\s*(?:\$ |(?:prune-verify|python3?|pip|make|git|docker|export|conda|pipx|apt-get) +[\w./'\"\[-])", re.MULTILINE
)
SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)


class DocumentError(Exception):
    """A page says something that cannot be tested: the text names the page and the line."""


@dataclass(frozen=True)
class Command:
    """A command line, joined over its continuations, and the lines that it is shown to print (none: not compared)."""

    line: str
    shown: tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """A fenced block with what the comments above it say."""

    page: str
    line: int
    language: str
    text: str
    folder: str | None
    exits: int = 0
    file: str | None = None
    prints: bool = False
    not_run: str | None = None

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    def commands(self) -> list[Command]:
        """The commands of a console block."""
        found: list[Command] = []
        lines = iter(self.text.splitlines())
        for line in lines:
            if line.startswith("$ "):
                whole = line[2:]
                while whole.endswith("\\"):
                    whole = whole[:-1] + next(lines).strip()
                found.append(Command(whole, ()))
            elif found:
                found[-1] = Command(found[-1].line, (*found[-1].shown, line))
            else:
                raise DocumentError(f"{self.place}: output before the first `$ ` line: {line}")
        return found


def documents() -> list[Path]:
    """README and every page of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(text: str, page: str) -> list[Block]:
    """The fenced blocks of a text, in order.

    Raises:
        DocumentError: a fence that is not closed, without a language or with an unknown one, or a command outside
            of console blocks.

    """
    found: list[Block] = []
    folder: str | None = None
    said: dict[str, str] = {}
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        line, start = lines[at], at + 1
        at += 1
        if comment := COMMENT.fullmatch(line.strip()):
            if comment[1] == "in":
                folder, said = comment[2], {}
                found.append(Block(page, start, "folder", "", folder))
            else:
                said[comment[1]] = comment[2] or ""
            continue
        fence = FENCE.match(line)
        if fence is None:
            if line.strip():
                said = {}
                if line.startswith("    ") and COMMANDS.search(line):
                    raise DocumentError(f"{page}:{start}: a command in an indented block: {line.strip()}")
            continue
        indent, ticks, language = len(fence[1]), fence[2], fence[3]
        body = []
        while at < len(lines) and lines[at].strip() != ticks:
            body.append(lines[at][indent:])
            at += 1
        if at == len(lines):
            raise DocumentError(f"{page}:{start}: a block that does not end")
        at += 1
        found.append(_block(page, start, language, "\n".join(body), folder, said))
        said = {}
    return found


def _block(page: str, line: int, language: str, text: str, folder: str | None, said: dict[str, str]) -> Block:
    place = f"{page}:{line}"
    if language not in {"console", "python"} | DATA:
        raise DocumentError(
            f"{place}: expected console, python or one of {', '.join(sorted(DATA))}, found {language!r}"
        )
    if language in DATA and COMMANDS.search(text):
        raise DocumentError(f"{place}: a command in a block of {language}; make it ```console")
    if "not run" in said and not said["not run"]:
        raise DocumentError(f"{place}: not run, without a reason")
    return Block(
        page, line, language, text, folder, int(said.get("exits", "0")), said.get("file"), "prints" in said,
        said.get("not run"),
    )  # fmt: skip


def is_slow(text: str) -> bool:
    """Whether a page says that its test is slow."""
    return "<!-- slow -->" in text


def spans(text: str) -> list[str]:
    """What stands in backticks outside of fenced blocks."""
    prose, inside = [], ""
    for line in text.splitlines():
        fence = FENCE.match(line)
        if inside:
            inside = "" if line.strip() == inside else inside
        elif fence is not None:
            inside = fence[2]
        else:
            prose.append(line)
    return [" ".join(match[2].split()) for match in SPAN.finditer("\n".join(prose))]
