"""Domains and balls: where a claim speaks, in exact numbers.

A domain D is a product of closed intervals, one per input number; a retained or forget region is
the closed l-infinity ball around a record intersected with D. A record is its float32 values, so
centres are exact, and radii are exact decimals: nothing here rounds.

Source: MATHS 1 and 2 ("refused as vacuous"); THREATS T6, T23.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from prune_verify.checker.encoding import Json, Members, format_decimal, parse_decimal
from prune_verify.checker.errors import MalformedInputError, PolicyError

__all__ = ["Domain", "domain_json", "float64_not_above", "float64_not_below", "parse_domain", "require_radius"]

_LEAST_ULPS = 4


def float64_not_above(value: Fraction) -> float:
    """The greatest float64 that does not exceed ``value`` (|value| < 2^1000)."""
    near = value.numerator / value.denominator
    return float(np.nextafter(near, -np.inf)) if Fraction(near) > value else near


def float64_not_below(value: Fraction) -> float:
    """The least float64 that is not below ``value`` (|value| < 2^1000)."""
    return -float64_not_above(-value)


@dataclass(frozen=True)
class Domain:
    """A product of closed intervals.

    Args:
        lower: one exact number for all coordinates, or one per coordinate (flattened row).
        upper: the same; every ``upper`` exceeds its ``lower``.

    Raises:
        MalformedInputError: an empty interval, lists of different lengths, or an end of 2^127 or more.

    """

    lower: tuple[Fraction, ...]
    upper: tuple[Fraction, ...]

    def __post_init__(self) -> None:
        if not self.lower or len(self.lower) != len(self.upper):
            raise MalformedInputError(
                "domain", "one lower and one upper end per coordinate", str(len(self.lower)), str(len(self.upper))
            )
        for place, (low, high) in enumerate(zip(self.lower, self.upper, strict=True)):
            if not -(2**127) < low < high < 2**127:
                raise MalformedInputError(
                    f"domain/{place}",
                    "an interval that is not empty",
                    "lower < upper, both below 2^127",
                    f"{low}, {high}",
                )

    @property
    def uniform(self) -> bool:
        """Whether one interval serves all coordinates."""
        return len(self.lower) == 1

    def interval(self, coordinate: int) -> tuple[Fraction, Fraction]:
        """The interval of one coordinate of the flattened row."""
        place = 0 if self.uniform else coordinate
        return self.lower[place], self.upper[place]

    def require_size(self, size: int) -> None:
        """Refuse a per-coordinate domain of another length than the network's input size."""
        if not self.uniform and len(self.lower) != size:
            raise MalformedInputError("domain", "one interval per input number", str(size), str(len(self.lower)))

    def outward(self, shape: Sequence[int]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Float64 lower and upper ends that enclose D, each of the input's per-row ``shape``."""
        low = np.array([float64_not_above(v) for v in self.lower])
        high = np.array([float64_not_below(v) for v in self.upper])
        size = int(np.prod(shape, dtype=np.int64))
        return np.broadcast_to(low, size).reshape(shape).copy(), np.broadcast_to(high, size).reshape(shape).copy()

    def ball(
        self, centres: npt.NDArray[np.float32], radius: Fraction
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Float64 boxes that enclose the balls of ``radius`` around ``centres`` [rows, *shape], intersected with D."""
        reach = float64_not_below(radius)
        middle = centres.astype(np.float64)
        low, high = self.outward(centres.shape[1:])
        return (
            np.maximum(np.nextafter(middle - reach, -np.inf), low),
            np.minimum(np.nextafter(middle + reach, np.inf), high),
        )


def require_radius(path: str, radius: Fraction, records: npt.NDArray[np.float32], least: Fraction) -> None:
    """Refuse a radius below the policy's minimum, or so small that a ball holds hardly any float32 input (T6, T23).

    Args:
        path: where the radius stands, for the error.
        radius: exact, in input units.
        records: float32 centres [rows, ...].
        least: the policy's minimum radius.

    Raises:
        PolicyError: the radius is below ``least`` or below 4 ulp of the largest value.

    """
    if radius < least:
        raise PolicyError(path, "minimum radius", f"at least {float(least):g}", f"{float(radius):g}")
    largest = np.float32(np.abs(records).max(initial=0.0))
    ulps = _LEAST_ULPS * Fraction(float(np.spacing(largest)))
    if radius < ulps:
        raise PolicyError(
            path, "radius of at least 4 ulp of the records", f"at least {float(ulps):g}", f"{float(radius):g}"
        )


def domain_json(domain: Domain) -> Json:
    """A domain as in files: one decimal for all coordinates, or one per coordinate."""
    lower, upper = [format_decimal(v) for v in domain.lower], [format_decimal(v) for v in domain.upper]
    return {"lower": lower[0], "upper": upper[0]} if domain.uniform else {"lower": list(lower), "upper": list(upper)}


def parse_domain(value: Json, path: str) -> Domain:
    """Read a domain.

    Raises:
        MalformedInputError: not of the form, or an empty interval.

    """
    fields = Members(value, path, ("lower", "upper"))
    ends: list[tuple[Fraction, ...]] = []
    for name in ("lower", "upper"):
        raw = fields.raw(name)
        listed = raw if isinstance(raw, list) else [raw]
        ends.append(tuple(parse_decimal(item, fields.place(name)) for item in listed))
    return Domain(*ends)
