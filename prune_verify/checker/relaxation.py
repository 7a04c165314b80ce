"""Linear relaxation: rigorous lower bounds of linear functions of a network's values over boxes, from any slopes.

One kernel serves CROWN, alpha-CROWN, beta-CROWN, stable neurons and the duals of linear programs. It walks back from
the output with one coefficient per value and keeps, for all values that an execution can have,

    c . N(x)  >=  sum over the open nodes of A . value  +  a constant.

Only at a node that is not linear is anything chosen, and there any finite L is sound: the rules are those of
:mod:`prune_verify.checker.relaxation_rules`. So slopes and multipliers may be wrong or hostile.

Rounding. A coefficient is whatever float64 number was computed for it. How far the coefficients of a node's inputs lie
from the exact ones is charged where the node is replaced: a sum of n products is off by at most
(n+4) 2^-53 times the sum of their absolute values, so that all inputs together lose at most (n+4) 2^-53 |A| total,
total being the sum of absolute values that makes up the node (known from the enclosures); twice that is charged,
for any order of summation. The terms of the constant have at most four roundings each (A and L are the floats
computed, so that A - L has one; rounding keeps signs and order, so that a minimum has the relative error of its
members). Their sum pays 2 (count + 8) 2^-53 times the sum of their absolute values, and count 2^-1020 (underflow).
In binary32 every node pays |A| E as well, E being its own rounding in any execution, so that the bound is on
exact differences of the logits that the deployed program computes.

Source: MATHS 5.2; CROWN (arXiv 1811.00866); beta-CROWN (arXiv 2103.06624); Higham, Accuracy and Stability of Numerical
Algorithms, section 3.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from prune_verify.checker.errors import LimitError, ProofError, UnsupportedVersionError
from prune_verify.checker.exact import replay
from prune_verify.checker.interval import (
    BINARY32,
    TINY64,
    U64,
    Box,
    Floats,
    Intervals,
    enclose,
    node_cost,
    node_rounding,
    require_ieee_float64,
)
from prune_verify.checker.network import Network, Node
from prune_verify.checker.relaxation_rules import carried, constants, difference, largest, offset, piecewise, relu

__all__ = ["Hints", "beats", "crown_intervals", "lower_bounds"]

Rows = npt.NDArray[np.int64]
Singles = npt.NDArray[np.float32]

_CELLS = 2**21  # most numbers of one array
_CHOICES = ("Relu", "Abs", "Clip", "Max", "Min", "MaxPool", "ReduceMax")


@dataclass(frozen=True, eq=False)
class Hints:
    """What a proof supplies for a batch of bounds. Nothing here is believed but ``narrowed``, which the checker makes.

    Args:
        slopes: by ``Relu`` node, [bounds, *node.shape]: L / A where A >= 0; any finite numbers, or NaN for rule crown,
            which nodes without slopes take.
        shifts: by ``Relu`` node, [bounds, *node.shape]: added to L; any finite numbers (multipliers of splits).
        narrowed: by node, (lower, upper) [bounds, *node.shape]: enclosures after the case distinctions of a leaf.

    """

    slopes: Mapping[int, Floats | Singles] = field(default_factory=dict)
    shifts: Mapping[int, Floats | Singles] = field(default_factory=dict)
    narrowed: Mapping[int, Box] = field(default_factory=dict)

    def part(self, places: Rows) -> Hints:
        """The hints of the bounds at ``places``, numbers as float64."""
        return Hints(
            {node: values[places].astype(np.float64) for node, values in self.slopes.items()},
            {node: values[places].astype(np.float64) for node, values in self.shifts.items()},
            {node: (low[places], high[places]) for node, (low, high) in self.narrowed.items()},
        )

    def require_fit(self, network: Network, count: int) -> None:
        """Establish that every number of ``count`` bounds is finite and belongs to a value of the network.

        Raises:
            ProofError: otherwise.

        """
        for name, found in (("slopes", self.slopes), ("shifts", self.shifts)):
            for index, values in found.items():
                known = 0 <= index < len(network.nodes) and network.nodes[index].op == "Relu"
                if not known or values.shape != (count, *network.nodes[index].shape) or np.isinf(values).any():
                    raise ProofError(f"{name}/{index}", name, "finite, of the shape of a Relu", str(values.shape))


_NONE = Hints()
_ALONE: Mapping[int, int] = MappingProxyType({})


class _Enclosure:
    """A network's enclosed values, and what each node charges, computed once per batch of boxes."""

    def __init__(self, network: Network, intervals: Intervals, arithmetic: str, *, exact: bool = False) -> None:
        self.network, self.intervals, self.arithmetic, self.exact = network, intervals, arithmetic, exact
        self._costs: dict[int, tuple[Floats, Floats] | None] = {}

    def box(self, index: int, rows: Rows) -> Box:
        """The enclosure of a node's value for the chosen rows."""
        low, high = self.intervals.box(index)
        return _rows(low, rows), _rows(high, rows)

    def magnitude(self, index: int, rows: Rows) -> Floats:
        """The largest absolute value that a node can have."""
        low, high = self.box(index, rows)
        return np.maximum(np.abs(low), np.abs(high))

    def cost(self, index: int, rows: Rows) -> tuple[Floats, Floats] | None:
        """What a node charges per unit of each coefficient, and once per walk; None where it is nothing."""
        if index not in self._costs:
            node = self.network.nodes[index]
            boxes = [self.intervals.box(i) for i in node.inputs]
            each, terms = node_cost(self.network, index, self.intervals, self.arithmetic)
            each = np.asarray(each, dtype=np.float64)
            each = each if each.ndim == len(node.shape) + 1 else np.broadcast_to(each, (1, *node.shape))
            reach = sum((np.maximum(np.abs(a), np.abs(b)).reshape(len(a), -1).sum(axis=1) for a, b in boxes), 0.0)
            once = np.atleast_1d(terms * TINY64 * (1.0 + reach))
            self._costs[index] = (each, once) if terms or each.any() else None
        found = self._costs[index]
        return None if found is None else (_rows(found[0], rows), _rows(found[1], rows))


def _rows(array: Floats, rows: Rows) -> Floats:
    """The chosen rows; of a value that does not depend on the input there is one for all."""
    return array if array.shape[0] == 1 else array[rows]


class _Walk:
    """One walk back from a node: open coefficients and the constant, for a batch of objectives."""

    def __init__(self, known: _Enclosure, rows: Rows, hints: Hints = _NONE, *, paired: bool = False) -> None:
        self.known, self.rows, self.hints = known, rows, hints
        self.apart = known.intervals.apart if paired else {}
        self.coefficients: dict[int, Floats] = {}
        self.lines: dict[int, Floats] = {}
        self.total, self.size, self.count = np.zeros(len(rows)), np.zeros(len(rows)), 0

    def box(self, index: int) -> Box:
        """The enclosure of a node's value, narrowed by the case distinctions of each leaf."""
        narrowed = self.hints.narrowed.get(index)
        return self.known.box(index, self.rows) if narrowed is None else narrowed

    def pay(self, terms: Floats) -> None:
        """Add terms [rows, ...] to the constant, each with at most four roundings."""
        flat = terms.reshape(len(terms), -1)
        self.total += flat.sum(axis=1)
        self.size += np.abs(flat).sum(axis=1)
        self.count += flat.shape[1] + 1

    def push(self, index: int, coefficient: Floats) -> None:
        """Add to the coefficient of a node, and charge what the addition may lose."""
        before = self.coefficients.get(index)
        if before is not None:
            coefficient = before + coefficient
            self.pay(-(2 * U64 * np.abs(coefficient) * self.known.magnitude(index, self.rows)))
        if not np.isfinite(coefficient).all():
            raise ProofError(f"node {index}", "relaxation: finite coefficients", "no overflow", "overflow")
        self.coefficients[index] = coefficient

    def run(self, start: int, objective: Floats, less: int | None = None) -> Floats:
        """Lower bounds [rows] of ``objective`` [rows, *shape of the start node] times that node's value.

        With ``less``: times what is left of it without the value of that earlier node.
        """
        with np.errstate(all="ignore"):  # what overflows is refused below and in push
            self.push(start, objective)
            if less is not None:
                self.push(less, -objective)
            for index in range(start, -1, -1):
                coefficient = self.coefficients.pop(index, None)
                if coefficient is not None:
                    self._replace(index, self.known.network.nodes[index], coefficient)
            lost = 2 * (self.count + 8) * U64 * self.size + self.count * TINY64
            found = np.nextafter(self.total - lost, -np.inf)
        if not np.isfinite(found).all():
            raise ProofError("relaxation", "relaxation: finite bounds", "no overflow", "overflow")
        if self.known.exact:
            return replay(self.known.network, start, objective, self.lines, self.box, self._rounding)
        return found

    def _rounding(self, index: int) -> Floats | None:
        """E of a node."""
        node = self.known.network.nodes[index]
        if self.known.arithmetic != BINARY32 or node.op in ("Input", "Constant"):
            return None
        found = np.asarray(node_rounding(self.known.network, index, self.known.intervals, BINARY32), dtype=np.float64)
        return found if found.ndim <= len(node.shape) else _rows(found, self.rows)

    def _replace(self, index: int, node: Node, coefficient: Floats) -> None:
        """Replace A . value of a node by coefficients of its inputs."""
        if node.op in ("Input", "Constant"):
            low, high = self.box(index)
            self.pay(np.minimum(coefficient * low, coefficient * high))
            return
        cost = self.known.cost(index, self.rows)
        if cost is not None:
            self.pay(-(np.abs(coefficient) * cost[0]))
            self.pay(np.broadcast_to(-cost[1], len(self.rows)))
        if index in self.apart:
            self._difference(index, node, coefficient)
            return
        if node.op in _CHOICES:
            parts, least = self._chosen(index, node, coefficient)
            self.pay(least)
        else:
            network = self.known.network
            parts = carried(network, node, coefficient, constants(network, node))
            constant = offset(network, node)
            if constant is not None:
                self.pay(coefficient * constant)
        for source, part in zip(node.inputs, parts, strict=True):
            self.push(source, part)

    def _difference(self, index: int, node: Node, coefficient: Floats) -> None:
        """Rule difference: A relu' = A (relu' - relu) + A relu; the partner pays its own rounding in both parts."""
        partner, (low, high) = self.apart[index]
        source, other = node.inputs[0], self.known.network.nodes[partner].inputs[0]
        apart = _rows(low, self.rows), _rows(high, self.rows)
        line, least = difference(coefficient, apart, self.box(source), self.box(other))
        self.pay(least)
        cost = self.known.cost(partner, self.rows)
        if cost is not None:
            self.pay(-(np.abs(coefficient) * cost[0]))
        self.push(source, line)
        self.push(other, -line)
        self.push(partner, coefficient)

    def _chosen(self, index: int, node: Node, coefficient: Floats) -> tuple[list[Floats], Floats]:
        """L of each input, and what is paid for it, for a node that is not linear."""
        if node.op == "Relu":
            slope, shift = self.hints.slopes.get(index), self.hints.shifts.get(index)
            line, least = relu(coefficient, self.box(node.inputs[0]), slope, shift)
        elif node.op in ("Abs", "Clip"):
            line, least = piecewise(node, coefficient, self.box(node.inputs[0]))
        else:
            return largest(self.known.network, node, coefficient, [self.box(i) for i in node.inputs])
        self.lines[index] = line
        return [line], least


def _at_once(network: Network) -> int:
    """How many objectives to walk back at once."""
    return max(1, _CELLS // max(prod(node.shape) for node in network.nodes))


def lower_bounds(
    network: Network,
    intervals: Intervals,
    objectives: Floats,
    hints: Hints,
    arithmetic: str,
    rows: Rows | None = None,
    *,
    exact: bool = False,
) -> Floats:
    """Lower-bound linear functions of the logits over boxes.

    Args:
        network: the network.
        intervals: proved enclosures of its values over the boxes, in the same arithmetic.
        objectives: float64 [bounds, labels]: c, exact.
        hints: for the bounds.
        arithmetic: ``real`` or ``ieee754-binary32``: the logits that the program computes.
        rows: [bounds]: which box; None: bound i is over box i.
        exact: in integers.

    Returns:
        float64 [bounds]: no execution over the box gives less.

    Raises:
        UnsupportedVersionError: an operator without a rule.
        ProofError: hints that do not fit, or a bound that is not finite.
        LimitError: float64 is not IEEE 754 in this process.

    """
    require_ieee_float64()
    count = len(objectives)
    hints.require_fit(network, count)
    places = np.arange(count) if rows is None else rows
    known, step, found = _Enclosure(network, intervals, arithmetic, exact=exact), _at_once(network), np.empty(count)
    for start in range(0, count, step):
        part = np.arange(start, min(start + step, count))
        objective = objectives[part].reshape(-1, *network.output_shape)
        found[part] = _Walk(known, places[part], hints.part(part)).run(network.output, objective)
        if intervals.apart:
            other = _Walk(known, places[part], hints.part(part), paired=True).run(network.output, objective)
            found[part] = np.maximum(found[part], other)
    return found


def crown_intervals(
    network: Network,
    lower: Floats,
    upper: Floats,
    arithmetic: str,
    *,
    within: Intervals | None = None,
    hints: Hints = _NONE,
    exact: bool = False,
    partners: Mapping[int, int] = _ALONE,
) -> Intervals:
    """Enclose every value over boxes, the inputs of unstable ReLUs (and of other choices) tightened in order.

    Args:
        network: the network.
        lower: float64 [rows, *input_shape]: lower ends of the boxes.
        upper: the same; upper ends.
        arithmetic: ``real`` or ``ieee754-binary32``.
        within: enclosures that hold for the same rows already, narrowed by a case distinction.
        hints: slopes for all bounds on one row; others take rule crown.
        exact: tighten in integers.
        partners: by ``Relu`` node: an earlier one of the same shape, whose input is to be compared with its own.

    Returns:
        The enclosures; with ``within``, rows in which two of them have nothing in common are ``empty``.

    Raises:
        UnsupportedVersionError: an operator without a rule, below a ReLU.
        ProofError: a value may overflow, or enclosures contradict one another without any case distinction.
        LimitError: float64 is not IEEE 754 in this process, a sum is too long, or partners in integers.

    """
    require_ieee_float64()
    if exact and partners:
        raise LimitError("relaxation", "rule difference", "float64", "integers")
    hints.require_fit(network, len(lower))
    empty = np.zeros(len(lower), dtype=np.bool_) if within is None else within.empty.copy()
    found = Intervals([], [], network.output, empty)
    known = _Enclosure(network, found, arithmetic, exact=exact)
    signs, ends = _read_by_choices(network)
    relaxed: list[bool] = []  # whether a choice lies below: otherwise the interval pass is as tight already
    for index, node in enumerate(network.nodes):
        enclose(network, index, found, (lower, upper), arithmetic)
        if within is not None:
            found.narrow(index, within.box(index))
        if any(relaxed[i] for i in node.inputs) and index in signs | ends:
            _tighten(known, index, hints, signs_only=index not in ends)
            if within is None and found.empty.any():
                expected, got = "a region that is not empty", "an empty enclosure"
                raise ProofError(f"node {index}", "relaxation: enclosures", expected, got)
        if index in partners:
            found.apart[index] = partners[index], _apart(known, index, partners[index])
        relaxed.append(node.op in _CHOICES or any(relaxed[i] for i in node.inputs))
    return found


def _apart(known: _Enclosure, index: int, partner: int) -> Box:
    """Enclose the difference of the inputs of two ReLUs: by their enclosures, and by walks where a sign is open."""
    source, other = (known.network.nodes[i].inputs[0] for i in (index, partner))
    (one_low, one_high), (low, high) = known.intervals.box(source), known.intervals.box(other)
    below, above = np.nextafter(one_low - high, -np.inf), np.nextafter(one_high - low, np.inf)
    shape, step = below.shape[1:], max(1, _at_once(known.network) // 2)
    below, above = below.reshape(len(below), -1), above.reshape(len(above), -1)
    settled = ((one_low >= 0) & (low >= 0)) | ((one_high <= 0) & (high <= 0))
    rows, elements = np.nonzero(~settled.reshape(below.shape))
    for start in range(0, len(rows), step):
        row, element = rows[start : start + step], elements[start : start + step]
        one = np.zeros((len(row), below.shape[1]))
        one[np.arange(len(row)), element] = 1.0
        objective, both = np.concatenate([one, -one]).reshape(-1, *shape), np.concatenate([row, row])
        least, most = np.split(_Walk(known, both, paired=True).run(source, objective, other), 2)
        below[row, element] = np.maximum(below[row, element], least)
        above[row, element] = np.minimum(above[row, element], -most)
    return below.reshape(-1, *shape), np.maximum(below, above).reshape(-1, *shape)


def _read_by_choices(network: Network) -> tuple[set[int], set[int]]:
    """The nodes whose sign a ReLU asks for, and those whose ends another choice asks for (a choice has tight ends)."""
    signs, ends = set(), set()
    for node in network.nodes:
        for source in node.inputs if node.op in _CHOICES else ():
            if node.op == "Relu":
                signs.add(source)
            elif network.nodes[source].op not in _CHOICES:
                ends.add(source)
    return signs, ends


def _tighten(known: _Enclosure, index: int, hints: Hints, *, signs_only: bool) -> None:
    """Tighten the enclosure of every element of a node, or of every one that may be of either sign."""
    shape, step = known.network.nodes[index].shape, max(1, _at_once(known.network) // 2)
    low, high = (end.reshape(len(end), -1).copy() for end in known.intervals.box(index))
    rows, elements = np.nonzero((low < 0) & (high > 0) if signs_only else low < high)
    for start in range(0, len(rows), step):
        row, element = rows[start : start + step], elements[start : start + step]
        one = np.zeros((len(row), low.shape[1]))
        one[np.arange(len(row)), element] = 1.0
        objective, both = np.concatenate([one, -one]).reshape(-1, *shape), np.concatenate([row, row])
        below, above = np.split(_Walk(known, both, hints.part(both)).run(index, objective), 2)
        low[row, element] = np.maximum(low[row, element], below)
        high[row, element] = np.minimum(high[row, element], -above)
    known.intervals.narrow(index, (low.reshape(-1, *shape), high.reshape(-1, *shape)))


def beats(
    network: Network,
    lower: Floats,
    upper: Floats,
    answer: int,
    labels: tuple[int, ...],
    arithmetic: str,
    *,
    exact: bool = False,
) -> bool:
    """Whether the logit of ``answer`` is proved to exceed that of each of ``labels`` on one box.

    Args:
        network: the network.
        lower: float64 [1, *input_shape]: lower ends of the box.
        upper: the same; upper ends.
        answer: a label.
        labels: labels that are to be beaten.
        arithmetic: ``real`` or ``ieee754-binary32``: the logits that the program computes.
        exact: in integers.

    Returns:
        True if it follows; False if it does not, or if the network has operators without a rule or may overflow.

    Raises:
        LimitError: float64 is not IEEE 754 in this process.

    """
    require_ieee_float64()
    eye = np.eye(network.labels)
    objectives = eye[[answer] * len(labels)] - eye[list(labels)]
    rows = np.zeros(len(labels), dtype=np.int64)
    try:
        intervals = crown_intervals(network, lower, upper, arithmetic, exact=exact)
        found = lower_bounds(network, intervals, objectives, _NONE, arithmetic, rows, exact=exact)
    except (UnsupportedVersionError, ProofError, LimitError):
        return False
    return bool((found > 0).all())
