"""Make the scripts of ``prune-verify completion`` anew, from the parser of every verb: ``make completions``."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import shtab

from prune_verify.cli import command_line
from prune_verify.completion import SHELLS

FOLDER = Path(__file__).resolve().parents[1] / "prune_verify" / "completion"
_FOLDERS = re.compile("DIR")
_FILES = re.compile(r"FILE|RECORDS|\.\w+")  # of options that take a file or something else, as --key FILE|URI


def scripts() -> dict[str, str]:
    """The script of each shell, as shtab makes it now."""
    parser = command_line()
    _complete_files(parser)
    return {shell: shtab.complete(parser, shell=shell) for shell in SHELLS}


def _complete_files(parser: argparse.ArgumentParser) -> None:
    """Tell shtab which arguments are files and folders, which argparse does not know."""
    for action in parser._actions:
        shown = action.metavar if isinstance(action.metavar, str) else ""
        if isinstance(action, argparse._SubParsersAction):
            for under in action.choices.values():
                _complete_files(under)
        elif action.type is Path or _FILES.search(shown):
            action.complete = shtab.DIRECTORY if _FOLDERS.fullmatch(shown) else shtab.FILE


def main() -> None:
    """Write them."""
    for shell, text in scripts().items():
        (FOLDER / f"prune-verify.{shell}").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
