"""``prune-verify measure WORD``: the words by name, each in a module of its own.

A word's module has ``add_options(parser)`` and ``run(options, progress)``, and imports what is heavy inside ``run``:
the command line builds every parser whenever it starts.

Source: FORMATS section 3.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Protocol

from prune_verify.measure import accuracy_command, disclosure_command, membership_command, relearning_command
from prune_verify.measure.inputs import Progress

__all__ = ["WORDS", "add_measure", "run_measure"]


class Word(Protocol):
    """What a module of a word has."""

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add every option of the word."""

    def run(self, options: argparse.Namespace, progress: Progress) -> tuple[int, str, dict[str, object]]:
        """Measure; give exit code, text, and the object for ``--json``."""


WORDS: dict[str, tuple[Word, str]] = {
    "accuracy": (accuracy_command, "accuracy, agreement, calibration and cost, base beside patched network"),
    "disclosure": (disclosure_command, "what a holder of patch.json can reconstruct of the forgotten records"),
    "relearning": (relearning_command, "how soon the forgotten comes back, beside networks that never saw it"),
    "membership": (membership_command, "membership inference: whether the forget set can be told from the never seen"),
}


def add_measure(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """Add every word.

    Args:
        add: makes the parser of a word from its name and what it does.

    """
    for name, (word, text) in WORDS.items():
        word.add_options(add(name, text))


def run_measure(options: argparse.Namespace, progress: Progress) -> tuple[int, str, dict[str, object]]:
    """Run the word that ``options.action`` names.

    Returns:
        Exit code, text, and the object for ``--json``.

    """
    return WORDS[options.action][0].run(options, progress)
