"""What every verb that writes a request reads: the sets, the domain and the amounts, checked against the network.

Source: FORMATS section 1; MATHS 4.1 (radii).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from fractions import Fraction
from math import prod
from pathlib import Path
from typing import ClassVar

from prune_verify.checker.encoding import parse_decimal, parse_json, read_file
from prune_verify.checker.network import Network
from prune_verify.checker.records import Records, check_against, duplicates_between, load_records
from prune_verify.checker.region import Domain, parse_domain, require_radius

__all__ = ["RequestInputError", "amounts_of", "default_radii", "domain_of", "fitted", "read_sets", "require_files"]

AMOUNTS = ("radius", "retained_radius", "margin", "delta")


class RequestInputError(Exception):
    """The user's own files or options cannot make a request: it says which, and what was expected."""

    exit_code: ClassVar[int] = 2


def require_files(paths: Sequence[Path | None]) -> None:
    """Refuse a path that is given and is no file.

    Raises:
        RequestInputError: the first of them.

    """
    for path in paths:
        if path is not None and not path.is_file():
            text = f"no file {path}"
            raise RequestInputError(text)


def read_sets(options: argparse.Namespace) -> dict[str, Records]:
    """The forget and the retained set, where records are to be forgotten.

    Raises:
        CheckError: a set cannot be read.

    """
    if options.forget is None:
        return {}
    return {
        name: load_records(
            getattr(options, name), what=f"{name} set", label_column=options.label_column, encoding=options.encoding
        )
        for name in ("forget", "retain")
        if getattr(options, name) is not None
    }


def domain_of(value: str | None, found: list[Records]) -> Domain:
    """The domain as asked, or [0, 1] when all data lie in it.

    Args:
        value: ``LO,HI``, the name of a JSON file, or None.
        found: the sets that were read.

    Raises:
        RequestInputError: nothing was asked, and not all records lie in [0, 1].
        CheckError: not a domain.

    """
    if value is None:
        inside = not any((r.x < 0).any() or (r.x > 1).any() for r in found)  # NaN is refused by row later
        if not inside:
            text = (
                "--domain: not all records lie in [0, 1]: give LO,HI in input units, or a JSON file of lower and upper"
            )
            raise RequestInputError(text)
        return Domain((Fraction(0),), (Fraction(1),))
    if "," in value and not Path(value).exists():
        low, _, high = value.partition(",")
        return Domain((parse_decimal(low.strip(), "--domain"),), (parse_decimal(high.strip(), "--domain"),))
    return parse_domain(parse_json(read_file(Path(value), "domain", 2**26), value), value)


def default_radii(domain: Domain) -> tuple[Fraction, Fraction]:
    """Forget and retained radius: 0.1 and 0.05 times the width of the narrowest interval of the domain."""
    width = min(high - low for low, high in zip(domain.lower, domain.upper, strict=True))
    return width / 10, width / 20


def amounts_of(options: argparse.Namespace) -> dict[str, Fraction]:
    """The lengths and margins that were given, exact.

    Raises:
        CheckError: not a decimal.

    """
    return {
        name: parse_decimal(getattr(options, name), f"--{name.replace('_', '-')}")
        for name in AMOUNTS
        if getattr(options, name) is not None
    }


def fitted(
    sets: dict[str, Records], network: Network, domain: Domain, radii: tuple[Fraction, Fraction]
) -> dict[str, Records]:
    """The sets as the network reads them: in the domain, with labels of the network, apart from one another.

    Args:
        sets: by name, ``forget`` and ``retain``.
        network: the base.
        domain: D.
        radii: of the forget and of the retained balls.

    Raises:
        CheckError: a record, a label, the domain or a radius does not fit.
        RequestInputError: the sets are encoded differently, or share a record.

    """
    domain.require_size(prod(network.input_shape))
    result = {}
    for name, records in sets.items():
        result[name] = check_against(
            records, input_shape=network.input_shape, labels=network.labels, domain=domain, what=f"{name} set"
        )
        require_radius(f"{name} radius", radii[name != "forget"], result[name].x, Fraction(0))
    if len(result) > 1:
        _require_apart(result["forget"], result["retain"])
    return result


def _require_apart(forget: Records, retain: Records) -> None:
    if forget.encoding_sha256 != retain.encoding_sha256:
        text = "the forget and retained sets are encoded differently"
        raise RequestInputError(text)
    both = duplicates_between(forget, retain)
    if both:
        first, second = both[0]
        text = (
            f"the same record is in both sets: record {first} of {forget.source} is record {second} of "
            f"{retain.source} ({len(both)} in all); take it out of the retained set"
        )
        raise RequestInputError(text)
