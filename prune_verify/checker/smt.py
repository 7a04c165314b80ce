"""The question of a forget claim on one ball as SMT-LIB 2 text (QF_LRA), in exact rational numbers.

``unsat`` means that the claim holds over the reals. The checker writes the text itself and names its digest in
the assumption, so that whoever wants to can put exactly this question to a solver of their own.

The text depends on the files only, not on the machine: intervals that settle a ReLU are computed here in exact
rationals, and whatever is asserted beside the network (bounds and the triangle of each ReLU that stays
open) follows from them, so that it changes no answer.

Source: MATHS 5.3; SMT-LIB 2.6, theory Reals, logic QF_LRA.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor, prod

import numpy as np
import numpy.typing as npt

from prune_verify.checker.errors import LimitError, MalformedInputError, UnsupportedVersionError
from prune_verify.checker.network import Network, Node, apply_node

__all__ = ["MAX_PRODUCTS", "MAX_QUERY_BYTES", "forget_query"]

MAX_PRODUCTS = 2**18
MAX_QUERY_BYTES = 2**23
_GRID = 2**20  # printed bounds are widened to this grid: short numbers, the same meaning
_ZERO = Fraction(0)
_ONE = Fraction(1)

_MOVES = ("Reshape", "Transpose", "Concat", "Gather")


@dataclass(frozen=True)
class _Affine:
    """A linear form in the query's constants: sum of factor * name, plus a number."""

    terms: dict[str, Fraction]
    number: Fraction

    def plus(self, other: _Affine, factor: Fraction) -> _Affine:
        """The form self + factor * other."""
        terms = dict(self.terms)
        for name, value in other.terms.items():
            terms[name] = terms.get(name, _ZERO) + factor * value
        kept = {name: value for name, value in terms.items() if value}
        return _Affine(kept, self.number + factor * other.number)


_NOTHING = _Affine({}, _ZERO)


def _number(value: Fraction) -> str:
    top = str(value.numerator) if value >= 0 else f"(- {-value.numerator})"
    return top if value.denominator == 1 else f"(/ {top} {value.denominator})"


def _form(form: _Affine) -> str:
    parts = [name if factor == 1 else f"(* {_number(factor)} {name})" for name, factor in form.terms.items()]
    if form.number or not parts:
        parts.append(_number(form.number))
    return parts[0] if len(parts) == 1 else f"(+ {' '.join(parts)})"


class _Query:
    """The text so far, and exact intervals of the constants declared in it."""

    def __init__(self, network: Network) -> None:
        self.nodes = network.nodes
        self.values: list[list[_Affine]] = []
        self._lines = ["(set-logic QF_LRA)"]
        self._boxes: dict[str, tuple[Fraction, Fraction]] = {}
        self._products, self._length = 0, 0

    def text(self) -> str:
        """The query."""
        return "\n".join([*self._lines, "(check-sat)", ""])

    def require(self, assertion: str) -> None:
        """Assert; refuses a text that grows too long."""
        self._line(f"(assert {assertion})")

    def _line(self, line: str) -> None:
        self._lines.append(line)
        self._length += len(line) + 1
        if self._length > MAX_QUERY_BYTES:
            raise LimitError("network", "SMT query: length", f"at most {MAX_QUERY_BYTES} bytes", "more")

    def declare(self, name: str, low: Fraction, high: Fraction) -> _Affine:
        """A new real constant that is known to lie between ``low`` and ``high``."""
        self._boxes[name] = low, high
        self._line(f"(declare-const {name} Real)")
        return _Affine({name: _ONE}, _ZERO)

    def box(self, form: _Affine) -> tuple[Fraction, Fraction]:
        """The exact interval of a linear form."""
        low = high = form.number
        for name, factor in form.terms.items():
            ends = sorted(factor * end for end in self._boxes[name])
            low, high = low + ends[0], high + ends[1]
        return low, high

    def spend(self, count: int) -> None:
        """Refuse a network whose products are too many to write down."""
        self._products += count
        if self._products > MAX_PRODUCTS:
            raise LimitError("network", "SMT query: products", f"at most {MAX_PRODUCTS}", "more")

    def linear(self, index: int, node: Node, inputs: list[_Affine]) -> list[_Affine]:
        """Rule linear: each output is a constant of its own, equal to its sum."""
        if node.ints["axis"][0] != -1:
            axis = f"axis {node.ints['axis'][0]}"
            raise UnsupportedVersionError("network", "SMT query: operator", "Linear over the last axis", axis)
        rows, width = node.arrays["weight"].shape
        self.spend(rows * len(inputs))
        alpha, beta = (_scalar(node, name) for name in ("alpha", "beta"))
        weight = [[alpha * Fraction(float(v)) for v in row] for row in node.arrays["weight"].tolist()]
        bias = [beta * Fraction(float(v)) for v in node.arrays["bias"].tolist()] if "bias" in node.arrays else []
        found: list[_Affine] = []
        for start in range(0, len(inputs), width):
            for row in range(rows):
                total = _sum(weight[row], inputs[start : start + width], bias[row] if bias else _ZERO)
                found.append(self._named(f"v{index}_{len(found)}", total))
        return found

    def _named(self, name: str, form: _Affine) -> _Affine:
        if len(form.terms) <= 1:
            return form
        value = self.declare(name, *self.box(form))
        self.require(f"(= {name} {_form(form)})")
        return value

    def relu(self, name: str, form: _Affine) -> _Affine:
        """Rule relu: settled by the interval, or a constant equal to an if-then-else."""
        low, high = self.box(form)
        if low >= 0:
            return form
        if high <= 0:
            return _NOTHING
        value, text = self.declare(name, _ZERO, high), _form(form)
        low, high = Fraction(floor(low * _GRID), _GRID), Fraction(ceil(high * _GRID), _GRID)
        self.require(f"(= {name} (ite (> {text} 0) {text} 0))")
        self.require(f"(and (<= {_number(low)} {text}) (<= {text} {_number(high)}) (<= 0 {name}) (<= {text} {name}))")
        self.require(f"(<= (* {_number(high - low)} {name}) (* {_number(high)} (- {text} {_number(low)})))")
        return value

    def elementwise(self, node: Node) -> list[_Affine]:
        """Add, Sub, and Mul by a constant, with broadcasting."""
        first, second = ([self.values[i][p] for p in self._positions(i, node.shape)] for i in node.inputs)
        self.spend(len(first))
        if node.op != "Mul":
            sign = _ONE if node.op == "Add" else -_ONE
            return [a.plus(b, sign) for a, b in zip(first, second, strict=True)]
        found = []
        for a, b in zip(first, second, strict=True):
            value, factor = (a, b) if not b.terms else (b, a)
            if factor.terms:
                raise UnsupportedVersionError("network", "SMT query: operator", "Mul by a constant", "Mul of values")
            found.append(_NOTHING.plus(value, factor.number))
        return found

    def _positions(self, index: int, shape: tuple[int, ...]) -> list[int]:
        own = self.nodes[index].shape
        return [int(v) for v in np.broadcast_to(np.arange(prod(own)).reshape(own), shape).reshape(-1)]

    def moved(self, node: Node) -> list[_Affine]:
        """Operators that only move numbers: applied to the numbers' positions."""
        everything: list[_Affine] = []
        places: list[npt.NDArray[np.float64]] = []
        for i in node.inputs:
            size = len(self.values[i])
            positions = np.arange(len(everything), len(everything) + size, dtype=np.float64)
            places.append(positions.reshape(1, *self.nodes[i].shape))
            everything += self.values[i]
        return [everything[int(p)] for p in apply_node(node, places).reshape(-1)]


def _scalar(node: Node, name: str) -> Fraction:
    return Fraction(float(node.arrays[name])) if name in node.arrays else _ONE


def _sum(factors: list[Fraction], forms: list[_Affine], number: Fraction) -> _Affine:
    terms: dict[str, Fraction] = {}
    for factor, form in zip(factors, forms, strict=True):
        if factor:
            for name, value in form.terms.items():
                terms[name] = terms.get(name, _ZERO) + factor * value
            number += factor * form.number
    return _Affine({name: value for name, value in terms.items() if value}, number)


def _value(query: _Query, index: int, node: Node) -> list[_Affine]:
    if node.op == "Constant":
        return [_Affine({}, Fraction(float(v))) for v in node.arrays["value"].reshape(-1).tolist()]
    if node.op == "Linear":
        return query.linear(index, node, query.values[node.inputs[0]])
    if node.op == "Relu":
        forms = query.values[node.inputs[0]]
        return [query.relu(f"r{index}_{i}", form) for i, form in enumerate(forms)]
    if node.op in ("Add", "Sub", "Mul"):
        return query.elementwise(node)
    if node.op in _MOVES:
        return query.moved(node)
    raise UnsupportedVersionError("network", "SMT query: operator", "one that can be written in QF_LRA", node.op)


def forget_query(
    network: Network, lower: Sequence[Fraction], upper: Sequence[Fraction], label: int, margin: Fraction
) -> str:
    """The negation of a forget claim on a box: for every j != y, N_y(x) > N_j(x) - margin.

    Args:
        network: the patched network.
        lower: lower ends of the box, one per number of the flattened input row.
        upper: upper ends.
        label: y, the forgotten label.
        margin: tau.

    Returns:
        SMT-LIB 2 text. ``unsat``: on the whole box N_y <= max over j != y of N_j - margin, over the reals.

    Raises:
        UnsupportedVersionError: an operator that is not piecewise linear, or has no rule.
        LimitError: the network is too large.
        MalformedInputError: the box or the label is not the network's.

    """
    size = prod(network.input_shape)
    boxed = len(lower) == len(upper) == size and all(a <= b for a, b in zip(lower, upper, strict=True))
    if not boxed or not 0 <= label < network.labels:
        raise MalformedInputError("SMT query", "box and label", f"{size} intervals, a label", f"{len(lower)}, {label}")
    query = _Query(network)
    inputs = []
    for place, (low, high) in enumerate(zip(lower, upper, strict=True)):
        inputs.append(query.declare(f"x{place}", low, high))
        query.require(f"(and (<= {_number(low)} x{place}) (<= x{place} {_number(high)}))")
    query.values.append(inputs)
    for index, node in enumerate(network.nodes[1:], start=1):
        query.values.append(_value(query, index, node))
    logits = query.values[network.output]
    for other in range(network.labels):
        if other != label:
            query.require(f"(> {_form(logits[label].plus(logits[other], -_ONE))} {_number(-margin)})")
    return query.text()
