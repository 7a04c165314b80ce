"""A reader who does what a page says, in a folder, in this process where that is possible."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
import warnings
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path

from prune_verify.checker.__main__ import main as checker_main
from prune_verify.cli import main as cli_main
from tests.docs.documents import ROOT, Block, Command

CHECKER = ["python", "-P", "-m", "prune_verify.checker"]
# What a page may have its reader type beside this project's own commands.
SHELL = {"ls", "cat", "mkdir", "cp", "mv", "rm", "sed", "cut", "head", "cd", "sha256sum", "grep", "printf", "openssl"}


def matches(expected: list[str], found: list[str]) -> bool:
    """Lines equal; ``...`` inside a line is any text, ``...`` alone any lines."""
    if not expected:
        return not found
    if expected[0].strip() == "...":
        return any(matches(expected[1:], found[i:]) for i in range(len(found) + 1))
    pattern = ".*".join(re.escape(part) for part in expected[0].split("..."))
    return bool(found) and re.fullmatch(pattern, found[0]) is not None and matches(expected[1:], found[1:])


class Reader:
    """Does what blocks say, one after the other.

    Args:
        folder: where.

    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: dict[str, object] = {"__name__": "__main__"}
        self.environment: dict[str, str] = {}
        self.printed: list[str] = []

    def follow(self, block: Block) -> None:
        """Do what a block says.

        Raises:
            AssertionError: a command ends with another code, or prints something else than the page shows.

        """
        if block.not_run is not None:
            return
        if block.file is not None:
            (self.folder / block.file).write_text(block.text + "\n", encoding="utf-8")
        elif block.language == "python":
            self._python(block)
        elif block.language == "console":
            commands = block.commands()
            for place, command in enumerate(commands, 1):
                self._command(block, command, block.exits if place == len(commands) else 0)
        elif block.prints:
            assert matches(block.text.splitlines(), self.printed), f"{block.place}: printed {self.printed}"

    def _python(self, block: Block) -> None:
        out = io.StringIO()
        with chdir(self.folder), redirect_stdout(out), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the reader's own tools
            exec(compile(block.text, block.place, "exec"), self.names)  # noqa: S102 - what the page has its reader run
        self.printed = out.getvalue().splitlines()

    def _command(self, block: Block, command: Command, expected: int) -> None:
        code, found = self.run(command.line)
        assert code == expected, f"{block.place}: $ {command.line}\nended with {code}, not {expected}:\n{found}"
        shown = list(command.shown)
        if shown:
            assert matches(shown, found.splitlines()), f"{block.place}: $ {command.line}\nprinted:\n{found}"

    def run(self, line: str) -> tuple[int, str]:
        """One command line: its exit code and what stands on the screen."""
        words = shlex.split(line)
        if words[0] == "export":
            name, _, value = words[1].partition("=")
            self.environment[name] = value
            return 0, ""
        if words[0] == "prune-verify":
            return self._here(cli_main, words[1:])
        if words[: len(CHECKER)] == CHECKER:
            return self._here(checker_main, words[len(CHECKER) :])
        assert words[0] in SHELL or words[0] == "python", f"a command that no page may have its reader type: {line}"
        line = f"{shlex.quote(sys.executable)} {line.removeprefix('python ')}" if words[0] == "python" else line
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line], cwd=self.folder, capture_output=True, text=True, check=False,
            env={**os.environ, **self.environment, "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def _here(self, main, words: list[str]) -> tuple[int, str]:
        """A command of this project, in this process."""
        out = io.StringIO()
        before = {name: os.environ.get(name) for name in self.environment}
        os.environ.update(self.environment)
        try:
            with chdir(self.folder), redirect_stdout(out), redirect_stderr(out):
                try:
                    code = main(words)
                except SystemExit as ended:  # argparse
                    code = int(ended.code or 0)
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value
        return code, out.getvalue()
