"""What ``measure`` refuses.

Source: FORMATS section 3 (exit codes).
"""

from __future__ import annotations

from typing import ClassVar

__all__ = ["MeasureInputError"]


class MeasureInputError(Exception):
    """The user's own files or options cannot be measured: it says which, what was expected and what was found."""

    exit_code: ClassVar[int] = 2
