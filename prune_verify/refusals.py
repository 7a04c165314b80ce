"""What the rooms refuse, in one form for the command line and the Python interface.

Source: FORMATS section 3 (exit codes).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from prune_verify.checker.errors import CheckError

__all__ = ["Refusal", "refusal_of"]

# A room that has not been imported has refused nothing.
_OF_ROOMS = (
    ("prune_verify.request_sets", "RequestInputError"),
    ("prune_verify.repair.errors", "RepairError"),
    ("prune_verify.certify.errors", "CertifyError"),
    ("prune_verify.bounds.errors", "BoundsError"),
    ("prune_verify.measure.errors", "MeasureInputError"),
    ("prune_verify.demo", "DemoError"),
    ("prune_verify.bench.chain", "BenchError"),
)


@dataclass(frozen=True)
class Refusal:
    """Why something could not be done.

    Args:
        text: which file, option or record; what was expected and what was found.
        code: stable, for programs: ``E_SIGNATURE``, ``E_IO``, ``InfeasiblePatchError``.
        exit_code: of the command line.
        data: what ``--json`` says beside the text.

    """

    text: str
    code: str
    exit_code: int = 2
    data: Mapping[str, object] = field(default_factory=dict)


def refusal_of(error: BaseException) -> Refusal | None:
    """What an error refuses; None for an error that is no refusal but a fault of this program.

    Args:
        error: as it was caught.

    """
    if isinstance(error, KeyboardInterrupt):
        return Refusal("interrupted; nothing half-written was left", "E_INTERRUPTED")
    if isinstance(error, ModuleNotFoundError):
        if (error.name or "").startswith("prune_verify"):
            return None
        text = f"{error.name} is not installed; `prune-verify doctor` prints the line that installs it"
        return Refusal(text, "E_NOT_INSTALLED")
    if isinstance(error, OSError):
        return Refusal(f"{error.filename or ''}: {error.strerror or error}", "E_IO")
    rooms = tuple(getattr(sys.modules[module], name) for module, name in _OF_ROOMS if module in sys.modules)
    if not isinstance(error, (CheckError, *rooms)):
        return None
    code, exit_code = str(getattr(error, "code", type(error).__name__)), int(getattr(error, "exit_code", 2))
    return Refusal(str(error), code, exit_code, getattr(error, "data", {}))
