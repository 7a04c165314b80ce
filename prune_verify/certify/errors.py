"""What the prover can refuse, and the exit code that each refusal stands for.

Source: STYLE "Errors"; FORMATS section 3 (exit codes of ``certify``).
"""

from __future__ import annotations

from typing import ClassVar

__all__ = ["CertifyError", "CertifyInputError", "RefusedByCheckerError", "WorkersUnavailableError"]


class CertifyError(Exception):
    """A refusal by the prover. ``exit_code`` is what the command line answers."""

    exit_code: ClassVar[int] = 2


class CertifyInputError(CertifyError):
    """The user's own files cannot be used: it says which, and what was expected."""


class RefusedByCheckerError(CertifyError):
    """The checker refuses what was to be issued; nothing was written."""

    exit_code = 1


class WorkersUnavailableError(CertifyError):
    """Processes or a cluster that were asked for cannot be used: it says what is missing, and how to get it."""
