"""What the repair engine can refuse, and the exit code that each refusal stands for.

Source: STYLE "Errors"; FORMATS section 3 (exit codes of ``repair``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

__all__ = ["InfeasiblePatchError", "RepairError", "RepairInputError"]

_MOST_NAMED = 12


def named(indices: Sequence[int]) -> str:
    """The first indices of a list as text, with the number of those left out."""
    shown = ", ".join(str(i) for i in indices[:_MOST_NAMED])
    return shown if len(indices) <= _MOST_NAMED else f"{shown} and {len(indices) - _MOST_NAMED} more"


class RepairError(Exception):
    """A refusal by the repair engine. ``exit_code`` is what the command line answers."""

    exit_code: ClassVar[int] = 2


class RepairInputError(RepairError):
    """The user's own input cannot be used: it says which file, option or record, and what was expected."""


class InfeasiblePatchError(RepairError):
    """No patch of this family meets the threat model.

    Args:
        message: what cannot be met, and what would help.
        forget: indices of the forget records concerned.
        retain: indices of the retained records in conflict with them.

    """

    exit_code = 3

    def __init__(self, message: str, *, forget: Sequence[int] = (), retain: Sequence[int] = ()) -> None:
        self.forget = tuple(int(i) for i in forget)
        self.retain = tuple(int(i) for i in retain)
        parts = [message]
        if self.forget:
            parts.append(f"forget records {named(self.forget)}")
        if self.retain:
            parts.append(f"retained records {named(self.retain)}")
        super().__init__("; ".join(parts))
