"""Scripts that complete command lines in bash, zsh and fish.

shtab makes them from the parser of every verb, and they lie beside this file (``make completions``), so that the base
install needs nothing for them and a shell need not start Python to complete a word.
"""

from __future__ import annotations

from importlib.resources import files

__all__ = ["SHELLS", "script"]

SHELLS = ("bash", "zsh", "fish")


def script(shell: str) -> str:
    """The script for one shell.

    Args:
        shell: one of ``SHELLS``.

    """
    return (files(__name__) / f"prune-verify.{shell}").read_text(encoding="utf-8")
