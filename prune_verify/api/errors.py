"""The one exception of the Python interface, for everything that the command line refuses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from prune_verify.refusals import refusal_of

__all__ = ["RefusalError", "refusals"]


class RefusalError(Exception):
    """A call was refused, for the reason that the command line would give.

    Args:
        message: which file, option or record; what was expected and what was found.
        code: stable, for programs, such as ``E_SIGNATURE``, ``E_IO`` or ``InfeasiblePatchError``.
        exit_code: what the command would end with: 2 for what could not run, 3 for a threat model that cannot be met.
        data: what ``--json`` says beside the text, such as the lines of the threat model that are not met.

    The error of the room that refused is the ``__cause__``.

    """

    def __init__(self, message: str, code: str, exit_code: int = 2, data: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.exit_code = exit_code
        self.data: Mapping[str, object] = {} if data is None else data


@contextmanager
def refusals() -> Iterator[None]:
    """What the rooms refuse, raised as a :class:`RefusalError`; faults of the program pass as they are.

    Raises:
        RefusalError: a room refused.

    """
    try:
        yield
    except RefusalError:
        raise
    except Exception as error:
        found = refusal_of(error)
        if found is None:
            raise
        raise RefusalError(found.text, found.code, found.exit_code, found.data) from error
