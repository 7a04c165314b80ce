"""Progress of long work, for a person at a terminal: a bar on standard error, or nothing at all.

Nothing else in the project prints progress. Repair and certify take any callable of
(name, done, total); this is the one that the command line hands them.

Source: FORMATS section 3 ("none when stderr is not a terminal").
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Protocol, Self

__all__ = ["Progress"]


class _Bar(Protocol):
    """The part of ``tqdm.tqdm`` that is used here."""

    n: int
    total: int

    def update(self, n: int) -> object: ...

    def close(self) -> None: ...


class Progress:
    """A callback that shows one bar at a time, and is silent unless enabled.

    Args:
        enabled: show bars; without tqdm (it comes with the prover's packages) nothing is shown either.

    """

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._name = ""
        self._bar: _Bar | None = None

    def __call__(self, name: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` steps of the work called ``name`` are over.

        Args:
            name: what is being done; another name starts another bar.
            done: steps that are over, counted from the start of this work.
            total: all steps; it may grow while the work goes on.

        """
        if not self._enabled:
            return
        if self._bar is None or name != self._name:
            self.close()
            self._bar = self._opened(name, total)
            self._name = name
        if self._bar is not None:
            self._bar.total = total
            self._bar.update(done - self._bar.n)
            if done >= total:
                self.close()

    def _opened(self, name: str, total: int) -> _Bar | None:
        try:
            from tqdm import tqdm  # type: ignore[import-untyped,unused-ignore]  # the base install has no tqdm
        except ImportError:
            self._enabled = False
            return None
        bar: _Bar = tqdm(total=total, desc=name, file=sys.stderr, dynamic_ncols=True)
        return bar

    def close(self) -> None:
        """End the bar that is shown, if any, and leave the cursor on a fresh line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Self:
        """Give the callback itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the bar, whatever happened."""
        self.close()
