"""The relaxation kernel again, in integers: no float64 rounding has to be argued about.

After a walk in float64 every choice is known: L at each node that is not linear, as float64 numbers. Any L is sound,
so the same L are taken, and everything else is computed anew and exactly: coefficients are integers times a
power of two, the constant a rational number. The result, rounded down to float64, is never below what the float64
kernel says, which pays for its rounding; so that the two differ in one direction only.

Exact here: every walk, and so every bound that decides and every tightened enclosure. The interval pass (section
5.1) and E stay float64 with their own rounding bounds. Operators: the linear ones but BatchNorm and AveragePool (their
factors are no binary fractions), Relu, Clip and Abs.

Products of matrices go through python-flint where it is installed (the extra ``exact``), else through Python's own
integers.

Source: MATHS 5.2; certs/SPEC.md section 5.2.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import cast

import numpy as np
import numpy.typing as npt

from prune_verify.checker.errors import LimitError
from prune_verify.checker.interval import Box, Floats
from prune_verify.checker.network import Network, Node, apply_node
from prune_verify.checker.region import float64_not_above
from prune_verify.checker.relaxation_rules import carried, offset

__all__ = ["Scaled", "replay"]

Integers = npt.NDArray[np.object_]
_SUPPORTED = (
    "Linear", "Conv", "Add", "Sub", "Mul", "Reshape", "Transpose", "Concat", "Gather", "ReduceSum", "Relu", "Clip",
    "Abs",
)  # fmt: skip
_MANTISSA = 53


class Scaled:
    """An array of Python integers, of any shape, times one power of two.

    Args:
        integers: object array.
        exponent: of two.

    """

    def __init__(self, integers: Integers, exponent: int) -> None:
        self.integers, self.exponent = integers, exponent

    @staticmethod
    def of(values: Floats | npt.NDArray[np.float32]) -> Scaled:
        """The exact values of floats."""
        mantissas, exponents = np.frexp(values.astype(np.float64))
        whole = (mantissas * 2.0**_MANTISSA).astype(np.int64).reshape(-1).tolist()
        shifts = (exponents.astype(np.int64) - _MANTISSA).reshape(-1).tolist()
        least = min((shift for number, shift in zip(whole, shifts, strict=True) if number), default=0)
        found = np.empty(len(whole), dtype=object)
        found[:] = [number << (shift - least) if number else 0 for number, shift in zip(whole, shifts, strict=True)]
        return Scaled(found.reshape(values.shape), least)

    def times(self, other: Scaled) -> Scaled:
        """The product with another, element by element; ``other`` has a shape that broadcasts."""
        return Scaled(self.integers * other.integers, self.exponent + other.exponent)

    def plus(self, other: Scaled, sign: int = 1) -> Scaled:
        """The sum with ``other``, or the difference for ``sign`` -1."""
        least = min(self.exponent, other.exponent)
        first = self.integers * (1 << (self.exponent - least))
        return Scaled(first + sign * other.integers * (1 << (other.exponent - least)), least)

    def least(self, *others: Scaled) -> Scaled:
        """The minimum with ``others``, element by element."""
        found = self
        for other in others:
            found = _chosen(found.plus(other, -1).integers <= 0, found, other)
        return found

    def row_sums(self) -> list[Fraction]:
        """The sum of each row's elements."""
        unit = Fraction(2) ** self.exponent
        return [sum(row, 0) * unit for row in self.integers.reshape(len(self.integers), -1).tolist()]


def _chosen(condition: npt.NDArray[np.bool_] | Integers, first: Scaled, second: Scaled) -> Scaled:
    least = min(first.exponent, second.exponent)
    one, other = (part.integers * (1 << (part.exponent - least)) for part in (first, second))
    return Scaled(np.where(condition.astype(np.bool_), one, other), least)


def _product(first: Integers, second: Integers) -> Integers:
    """A product of integer matrices."""
    try:
        from flint import fmpz_mat
    except ModuleNotFoundError:
        found: Integers = first @ second
        return found
    table = (fmpz_mat(first.tolist()) * fmpz_mat(second.tolist())).tolist()
    made = np.empty((first.shape[0], second.shape[1]), dtype=object)
    made[:] = [[int(number) for number in row] for row in table]
    return made


def _carried(network: Network, node: Node, coefficient: Scaled) -> list[Scaled]:
    """The coefficients of a linear node's inputs: rule linear in integers."""
    weights = {name: Scaled.of(array) for name, array in node.arrays.items() if name in ("weight", "alpha")}
    exponent = coefficient.exponent + sum(part.exponent for part in weights.values())
    if node.op == "Linear" and node.ints["axis"][0] == -1:
        flat = coefficient.integers.reshape(-1, node.shape[-1])
        found = _product(flat, weights["weight"].integers)
        if "alpha" in weights:
            found = found * weights["alpha"].integers
        return [Scaled(found.reshape(*coefficient.integers.shape[:-1], -1), exponent)]
    factors = [network.nodes[i] for i in node.inputs if node.op == "Mul" and network.nodes[i].op == "Constant"]
    if factors:
        weights["value"] = Scaled.of(factors[0].arrays["value"])
        exponent += weights["value"].exponent
    # carried adds and multiplies only, so that it serves integers as it serves float64
    parts = carried(network, node, cast("Floats", coefficient.integers), lambda n: cast("Floats", weights[n].integers))
    return [Scaled(cast("Integers", part), exponent) for part in parts]


def _relaxed(node: Node, coefficient: Scaled, line: Scaled, box: Box, rows: int) -> Scaled:
    """The least value of A f(x) - L x over the enclosure: rules relu, clip and abs."""
    low, high = (np.broadcast_to(end, (rows, *end.shape[1:])) for end in box)
    breaks = [0.0] if node.op in ("Relu", "Abs") else [float(array) for array in node.arrays.values()]
    found = []
    for point in (low, high, *(np.clip(value, low, high) for value in breaks)):
        reached = coefficient.times(Scaled.of(apply_node(node, [point])))
        found.append(reached.plus(line.times(Scaled.of(point)), -1))
    return found[0].least(*found[1:])


def replay(
    network: Network,
    start: int,
    objective: Floats,
    lines: dict[int, Floats],
    box: Callable[[int], Box],
    rounding: Callable[[int], Floats | None],
) -> Floats:
    """Lower bounds of ``objective`` times a node's value, exact but for the last rounding down.

    Args:
        network: the network.
        start: the node.
        objective: float64 [rows, *shape], exact.
        lines: L by node that is not linear, float64 [rows, *shape of its input], as the walk in float64 chose them.
        box: the enclosure of a node, [rows or 1, *shape].
        rounding: E of a node, [rows or 1, *shape], or None where it is 0.

    Raises:
        LimitError: an operator without a rule in integers.

    """
    rows = len(objective)
    total, open_nodes = [Fraction(0)] * rows, {start: Scaled.of(objective)}
    for index in range(start, -1, -1):
        coefficient = open_nodes.pop(index, None)
        if coefficient is None:
            continue
        parts, terms = _replaced(network, index, coefficient, lines, box)
        lost = rounding(index)
        if lost is not None:
            size = Scaled(np.abs(coefficient.integers), coefficient.exponent)
            terms.append(size.times(Scaled.of(-np.broadcast_to(lost, coefficient.integers.shape))))
        for term in terms:
            total = [have + more for have, more in zip(total, term.row_sums(), strict=True)]
        for source, part in zip(network.nodes[index].inputs, parts, strict=True):
            open_nodes[source] = open_nodes[source].plus(part) if source in open_nodes else part
    return np.array([float64_not_above(value) for value in total])


def _replaced(
    network: Network, index: int, coefficient: Scaled, lines: dict[int, Floats], box: Callable[[int], Box]
) -> tuple[list[Scaled], list[Scaled]]:
    """The coefficients of a node's inputs, and what the constant gains."""
    node, rows = network.nodes[index], len(coefficient.integers)
    if node.op in ("Input", "Constant"):
        ends = (Scaled.of(np.broadcast_to(end, (rows, *end.shape[1:]))) for end in box(index))
        low, high = (coefficient.times(end) for end in ends)
        return [], [low.least(high)]
    if node.op not in _SUPPORTED:
        expected = f"one of {', '.join(_SUPPORTED)}"  # float64 decides what integers cannot: no fault of the proof's
        raise LimitError("network", "operators that integers can follow", expected, node.op)
    if index in lines:
        line = Scaled.of(lines[index])
        return [line], [_relaxed(node, coefficient, line, box(node.inputs[0]), rows)]
    constant = offset(network, node)
    shape = coefficient.integers.shape[1:]
    gains = [] if constant is None else [coefficient.times(Scaled.of(np.broadcast_to(constant, shape)))]
    return _carried(network, node, coefficient), gains
