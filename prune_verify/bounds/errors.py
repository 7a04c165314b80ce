"""What the bound engine can refuse.

Source: STYLE "Errors".
"""

from __future__ import annotations

__all__ = ["BoundsError", "BoundsUnavailableError", "UnsupportedNetworkError"]

_INSTALL = (
    "Bounds need PyTorch and auto_LiRPA; install them with\n"
    "    pip install torch==2.13.0\n"
    "    pip install --no-deps auto_LiRPA==0.3\n"
    "    pip install appdirs tqdm packaging"
)


class BoundsError(Exception):
    """A refusal by the bound engine."""


class BoundsUnavailableError(BoundsError):
    """A library that bounds need cannot be imported; the text has the lines that install it.

    Args:
        reason: what went wrong.

    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"{_INSTALL}\n({reason})")


class UnsupportedNetworkError(BoundsError):
    """A network has a form that the bound engine cannot translate."""
