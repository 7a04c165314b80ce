"""From keyword arguments to the parsed options of a verb: the verb's own parser reads them, as it reads a command line.

Every option of a verb is a keyword argument of the same name, dashes as underscores; what the parser refuses is a
:class:`~prune_verify.api.errors.RefusalError` with code ``E_USAGE``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from difflib import get_close_matches
from fractions import Fraction
from numbers import Real
from pathlib import Path
from typing import NoReturn, TypeGuard

from prune_verify.api.errors import RefusalError
from prune_verify.checker.encoding import format_decimal

__all__ = ["known_only", "parsed"]

REPEATED = frozenset(
    {"forget_class", "site", "withdraw", "receipt", "base", "measurements", "against", "subgroup_column"}
)


class _Parser(argparse.ArgumentParser):
    """A parser that raises instead of leaving the process."""

    def error(self, message: str) -> NoReturn:
        raise RefusalError(message, "E_USAGE")


def known_only(call: str, given: Mapping[str, object], known: Mapping[str, object]) -> None:
    """Refuse keyword arguments that a call does not have, as Python does.

    Args:
        call: its name.
        given: keyword arguments.
        known: those that there are.

    Raises:
        TypeError: one that there is not, with the nearest that there is.

    """
    for name in given:
        if name not in known:
            near = get_close_matches(name, list(known), 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            text = f"{call}() got an unexpected keyword argument {name!r}{hint}"
            raise TypeError(text)


def parsed(
    verb: str,
    add: Callable[[argparse.ArgumentParser], object],
    places: Sequence[str | Path],
    options: Mapping[str, object],
) -> argparse.Namespace:
    """The options of a verb, with the defaults of the command line.

    Args:
        verb: its name, for errors.
        add: adds the verb's options to a parser.
        places: positional arguments.
        options: by name, dashes as underscores. None and False leave an option out, True sets it; numbers are written
            exactly, as decimals; lists are repeated or, for ``LO,HI``, joined by commas.

    Raises:
        RefusalError: a value that the verb's parser does not take.

    """
    parser = _Parser(prog=verb, add_help=False, allow_abbrev=False)
    add(parser)
    words = [word for name, value in options.items() for word in _words(name, value)]
    plain = [f"./{place}" if str(place).startswith("-") else str(place) for place in places]
    return parser.parse_args([*plain, *words])


def _words(name: str, value: object) -> list[str]:
    option = f"--{name.replace('_', '-')}"
    if value is None or value is False:
        return []
    if value is True:
        return [option]
    if _is_list(value):
        if name in REPEATED:
            return [f"{option}={_text(name, item)}" for item in value]
        return [f"{option}={','.join(_text(name, item) for item in value)}"]
    return [f"{option}={_text(name, value)}"]


def _is_list(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _text(name: str, value: object) -> str:
    """One value as the command line would have it; float64 numbers exactly as Python shows them, without exponent."""
    value = getattr(value, "path", value)  # results of other calls stand for their files
    if isinstance(value, str | Path | int):
        return str(value)
    if isinstance(value, Fraction):
        return format_decimal(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, Real):  # numpy's numbers as well
        return format(Decimal(repr(float(value))), "f")
    text = f"{name}: expected text, a path or a number, got {type(value).__name__}"
    raise RefusalError(text, "E_USAGE")
