"""What the repair engine can refuse, and the exit code that each refusal stands for.

Source: STYLE "Errors"; FORMATS section 3 (exit codes of ``repair``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from prune_verify.checker.encoding import Json

__all__ = ["InfeasiblePatchError", "RepairError", "RepairInputError", "Shortfall"]

_MOST_NAMED = 12


def named(indices: Sequence[int]) -> str:
    """The first indices of a list as text, with the number of those left out."""
    shown = ", ".join(str(i) for i in indices[:_MOST_NAMED])
    return shown if len(indices) <= _MOST_NAMED else f"{shown} and {len(indices) - _MOST_NAMED} more"


@dataclass(frozen=True)
class Shortfall:
    """A line of the threat model that is not met.

    Args:
        line: its name, as in ``threat-model.toml``.
        asked: the value there.
        reached: what could be had, in the same unit.
        of: ``forget`` or ``retain`` records, or nothing where it is about none.
        records: their indices.

    """

    line: str
    asked: str
    reached: str
    of: str = ""
    records: tuple[int, ...] = ()

    def text(self) -> str:
        """For a person."""
        which = f" ({self.of} records {named(self.records)})" if self.records else ""
        return f"{self.line}: asked {self.asked}, reached {self.reached}{which}"

    def plain(self) -> dict[str, Json]:
        """For ``--json``."""
        records: list[Json] = list(self.records)
        return {"line": self.line, "asked": self.asked, "reached": self.reached, "of": self.of, "records": records}


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
        shortfalls: the lines of the threat model that are not met, and by how much.

    """

    exit_code = 3

    def __init__(
        self,
        message: str,
        *,
        forget: Sequence[int] = (),
        retain: Sequence[int] = (),
        shortfalls: Sequence[Shortfall] = (),
    ) -> None:
        self.forget = tuple(int(i) for i in forget)
        self.retain = tuple(int(i) for i in retain)
        self.shortfalls = tuple(shortfalls)
        parts = [message, *(one.text() for one in self.shortfalls)]
        if self.forget:
            parts.append(f"forget records {named(self.forget)}")
        if self.retain:
            parts.append(f"retained records {named(self.retain)}")
        super().__init__("; ".join(parts))

    @property
    def data(self) -> dict[str, Json]:
        """What the object for ``--json`` says beside the text."""
        return {"shortfalls": [one.plain() for one in self.shortfalls]}
