"""Linear relaxation: rigorous lower bounds of linear functions of a network's values over boxes, from any slopes.

One kernel serves CROWN, alpha-CROWN and stable neurons. It walks back from the output with one coefficient
per value and keeps, for all values that an execution can have,

    c . N(x)  >=  sum over the open nodes of A . value  +  a constant.

Only at a ReLU is anything chosen, and there any finite L is sound, because for x in [low, high]

    A relu(x) >= L x + m     with m = min(0, -L low, (A - L) high)     if low < 0 < high,

the function being piecewise linear with its one breakpoint at 0; so slopes may be wrong or hostile.

Rounding. A coefficient is whatever float64 number was computed for it; how far it may lie from the exact one is
paid into the constant at once, times the largest absolute value of its node. A product of n terms pays
(n+4) 2^-53 |A||W| + n (2 + max|A| + max|W|) 2^-1020, doubled, for any order of summation. The terms of the constant
have at most four roundings each (A and L are the floats computed, so that A - L has one; rounding keeps signs and
order, so that a minimum has the relative error of its members). Their sum pays 2 (count + 8) 2^-53 times the sum of
their absolute values, and count 2^-1020. In binary32 every node pays |A| E as well, E being its own rounding in
any execution, so that the bound is on exact differences of the logits that the deployed program computes.

Source: MATHS 5.2; CROWN (arXiv 1811.00866); Higham, Accuracy and Stability of Numerical Algorithms, section 3.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np
import numpy.typing as npt

from prune_verify.checker.errors import ProofError, UnsupportedVersionError
from prune_verify.checker.interval import (
    BINARY32,
    U64,
    Box,
    Floats,
    Intervals,
    interval_pass,
    node_rounding,
    require_ieee_float64,
)
from prune_verify.checker.network import Network, Node

__all__ = ["beats", "crown_intervals", "lower_bounds"]

Rows = npt.NDArray[np.int64]
Slopes = Mapping[int, npt.NDArray[np.float32] | Floats]
Part = tuple[Floats, Floats | None]  # what an input's coefficient gains, and how far that may be off

_TINY = 2.0**-1020
_CELLS = 2**21  # most numbers of one array


class _Enclosure:
    """A network's enclosed values, and the rounding of each node, computed once per batch of boxes."""

    def __init__(self, network: Network, intervals: Intervals, arithmetic: str) -> None:
        self.network, self.arithmetic = network, arithmetic
        self.lower, self.upper = list(intervals.lower), list(intervals.upper)
        self._rounding: dict[int, Floats] = {}

    def box(self, index: int, rows: Rows) -> Box:
        """The enclosure of a node's value for the chosen rows."""
        return _rows(self.lower[index], rows), _rows(self.upper[index], rows)

    def magnitude(self, index: int, rows: Rows) -> Floats:
        """The largest absolute value that a node can have."""
        low, high = self.box(index, rows)
        return np.maximum(np.abs(low), np.abs(high))

    def rounding(self, index: int, rows: Rows) -> Floats | None:
        """E of a node, or None where it is 0."""
        if self.arithmetic != BINARY32:
            return None
        node = self.network.nodes[index]
        if index not in self._rounding:
            boxes = [(self.lower[i], self.upper[i]) for i in node.inputs]
            found = np.asarray(node_rounding(node, boxes, self.arithmetic), dtype=np.float64)
            self._rounding[index] = found if found.ndim == len(node.shape) + 1 else found[np.newaxis]
        found = self._rounding[index]
        return _rows(found, rows) if found.any() else None


def _rows(array: Floats, rows: Rows) -> Floats:
    """The chosen rows; of a value that does not depend on the input there is one for all."""
    return array if array.shape[0] == 1 else array[rows]


class _Walk:
    """One walk back from a node: open coefficients and the constant, for a batch of objectives."""

    def __init__(self, known: _Enclosure, rows: Rows, slopes: Slopes) -> None:
        self.known, self.rows, self.slopes = known, rows, slopes
        self.coefficients: dict[int, Floats] = {}
        self.total, self.size, self.count = np.zeros(len(rows)), np.zeros(len(rows)), 0

    def pay(self, terms: Floats) -> None:
        """Add terms [rows, ...] to the constant, each with at most four roundings."""
        flat = terms.reshape(len(self.rows), -1)
        self.total += flat.sum(axis=1)
        self.size += np.abs(flat).sum(axis=1)
        self.count += flat.shape[1] + 1

    def push(self, index: int, part: Part) -> None:
        """Add to the coefficient of a node, and pay for how far the result may be off."""
        coefficient, radius = part
        if index in self.coefficients:
            coefficient = self.coefficients[index] + coefficient
            added = 2 * U64 * np.abs(coefficient)
            radius = added if radius is None else radius + added
        if not np.isfinite(coefficient).all():
            raise ProofError(f"node {index}", "relaxation: finite coefficients", "no overflow", "overflow")
        self.coefficients[index] = coefficient
        if radius is not None:
            self.pay(-(radius * self.known.magnitude(index, self.rows)))

    def constant(self) -> Floats:
        """The constant, rounded down by all that its sum may have lost."""
        lost = 2 * (self.count + 8) * U64 * self.size + self.count * _TINY
        return np.nextafter(self.total - lost, -np.inf)

    def run(self, start: int, objective: Floats) -> Floats:
        """Lower bounds [rows] of ``objective`` [rows, *shape of the start node] times that node's value."""
        with np.errstate(all="ignore"):  # what overflows is refused below and in push
            self.push(start, (objective, None))
            for index in range(start, -1, -1):
                coefficient = self.coefficients.pop(index, None)
                if coefficient is not None:
                    self._replace(index, self.known.network.nodes[index], coefficient)
            found = self.constant()
        if not np.isfinite(found).all():
            raise ProofError("relaxation", "relaxation: finite bounds", "no overflow", "overflow")
        return found

    def _replace(self, index: int, node: Node, coefficient: Floats) -> None:
        """Replace A . value of a node by coefficients of its inputs."""
        if node.op in ("Input", "Constant"):
            low, high = self.known.box(index, self.rows)
            self.pay(np.minimum(coefficient * low, coefficient * high))
            return
        rounding = self.known.rounding(index, self.rows)
        if rounding is not None:
            self.pay(-(np.abs(coefficient) * rounding))
        for source, part in zip(node.inputs, self._parts(index, node, coefficient), strict=True):
            self.push(source, part)

    def _parts(self, index: int, node: Node, coefficient: Floats) -> list[Part]:
        shapes = [self.known.network.nodes[i].shape for i in node.inputs]
        match node.op:
            case "Linear":
                return [self._linear(node, coefficient)]
            case "Relu":
                return [self._relu(index, node, coefficient)]
            case "Add" | "Sub":
                second = -coefficient if node.op == "Sub" else coefficient
                return [_folded(coefficient, shapes[0]), _folded(second, shapes[1])]
            case "Mul":
                return self._product(node, coefficient, shapes)
            case "Reshape":
                return [(coefficient.reshape(len(self.rows), *shapes[0]), None)]
            case "Transpose":
                return [(coefficient.transpose(0, *(int(p) + 1 for p in np.argsort(node.ints["perm"]))), None)]
            case "Concat":
                axis = node.ints["axis"][0]
                cuts = np.cumsum([shape[axis] for shape in shapes])[:-1]
                return [(part, None) for part in np.split(coefficient, cuts, axis + 1)]
            case "Gather":
                return [_scattered(node, coefficient, shapes[0])]
        raise UnsupportedVersionError("network", "relaxation: operator", "one with a relaxation rule", node.op)

    def _linear(self, node: Node, coefficient: Floats) -> Part:
        """Rule linear: A (W x + b) = (A W) x + A b. alpha W and beta b are exact in float64 (48 bits)."""
        if node.ints["axis"][0] != -1:
            axis = f"axis {node.ints['axis'][0]}"
            raise UnsupportedVersionError("network", "relaxation: operator", "Linear over the last axis", axis)
        weight = node.arrays["weight"].astype(np.float64)
        if "alpha" in node.arrays:
            weight *= float(node.arrays["alpha"])
        if "bias" in node.arrays:
            bias = node.arrays["bias"].astype(np.float64)
            self.pay(coefficient * (bias * float(node.arrays["beta"]) if "beta" in node.arrays else bias))
        terms = weight.shape[0]
        absolute, sizes = np.abs(coefficient), np.abs(weight)
        tiny = terms * (2.0 + absolute.max(initial=0.0) + sizes.max(initial=0.0)) * _TINY
        return coefficient @ weight, 2 * ((terms + 4) * U64 * (absolute @ sizes) + tiny)

    def _relu(self, index: int, node: Node, coefficient: Floats) -> Part:
        """Rule relu: A relu(x) >= L x + m for any finite L; stable neurons take L = A or L = 0 and m = 0."""
        low, high = self.known.box(node.inputs[0], self.rows)
        unstable = (low < 0) & (high > 0)
        slope = self.slopes.get(index)
        chosen = (high > -low).astype(np.float64) if slope is None else slope.astype(np.float64)
        chord = high / np.where(unstable, high - low, 1.0)
        line = np.where(unstable, coefficient * np.where(coefficient >= 0, chosen, chord), 0.0)
        line = np.where(low >= 0, coefficient, line)
        if not np.isfinite(line).all():
            raise ProofError(f"node {index}", "relaxation: finite slopes", "a finite L", "not finite")
        least = np.minimum(np.minimum(-(line * low), (coefficient - line) * high), 0.0)
        self.pay(np.where(unstable, least, 0.0))
        return line, None

    def _product(self, node: Node, coefficient: Floats, shapes: list[tuple[int, ...]]) -> list[Part]:
        """Rule scale: a constant factor times a value; the constant itself gets nothing more."""
        factors = [self.known.network.nodes[i] for i in node.inputs]
        place = next((i for i, factor in enumerate(factors) if factor.op == "Constant"), None)
        if place is None:
            raise UnsupportedVersionError("network", "relaxation: operator", "Mul by a constant", "Mul of two values")
        value = factors[place].arrays["value"].astype(np.float64)
        scaled, radius = _folded(coefficient * value, shapes[1 - place], roundings=1)
        nothing = np.zeros((len(self.rows), *shapes[place]))
        return [(nothing, None), (scaled, radius)][:: 1 if place == 0 else -1]


def _folded(coefficient: Floats, shape: tuple[int, ...], roundings: int = 0) -> Part:
    """The coefficient summed over the axes along which an input of ``shape`` was broadcast."""
    lifted = (1,) * (coefficient.ndim - 1 - len(shape)) + shape
    axes = tuple(i + 1 for i, (n, m) in enumerate(zip(coefficient.shape[1:], lifted, strict=True)) if n != m)
    if not axes and not roundings:
        return coefficient.reshape(coefficient.shape[0], *shape), None
    terms = prod(coefficient.shape[axis] for axis in axes)
    both = (coefficient, np.abs(coefficient))
    part, size = (v.sum(axis=axes, keepdims=True).reshape(len(v), *shape) for v in both)
    return part, 2 * ((terms + 4 + roundings) * U64 * size + terms * _TINY)


def _scattered(node: Node, coefficient: Floats, shape: tuple[int, ...]) -> Part:
    """Rule gather: an element taken several times gets the sum of its coefficients."""
    axis, indices = node.ints["axis"][0], np.array(node.ints["indices"], dtype=np.int64)
    rows, head, tail = coefficient.shape[0], prod(shape[:axis]), prod(shape[axis + 1 :])
    taken = np.moveaxis(coefficient.reshape(rows, head, len(indices), tail), 2, 0)
    sums = []
    for values in (taken, np.abs(taken)):
        found = np.zeros((shape[axis], rows, head, tail))
        np.add.at(found, indices, values)
        sums.append(np.moveaxis(found, 0, 2).reshape(rows, *shape))
    most = int(np.bincount(indices % shape[axis], minlength=1).max(initial=0))
    return sums[0], None if most <= 1 else 2 * (most + 4) * U64 * sums[1]


def _at_once(network: Network) -> int:
    """How many objectives to walk back at once."""
    return max(1, _CELLS // max(prod(node.shape) for node in network.nodes))


def _require_slopes(network: Network, slopes: Slopes, count: int) -> None:
    for index, slope in slopes.items():
        of_relu = 0 <= index < len(network.nodes) and network.nodes[index].op == "Relu"
        if not of_relu or slope.shape != (count, *network.nodes[index].shape) or not np.isfinite(slope).all():
            raise ProofError(f"slopes/{index}", "slopes", "finite, of the shape of a Relu", str(slope.shape))


def lower_bounds(
    network: Network,
    intervals: Intervals,
    objectives: Floats,
    slopes: Slopes,
    arithmetic: str,
    rows: Rows | None = None,
) -> Floats:
    """Lower-bound linear functions of the logits over boxes.

    Args:
        network: the network.
        intervals: proved enclosures of its values over the boxes, in the same arithmetic.
        objectives: float64 [bounds, labels]: c, exact.
        slopes: by ``Relu`` node, [bounds, *node.shape]: L / A where A >= 0; any finite numbers. Others: rule crown,
            which is 1 if high > -low, else 0.
        arithmetic: ``real`` or ``ieee754-binary32``; there c times the computed logits is bounded, in exact numbers.
        rows: int64 [bounds]: the box of each objective; None if there is one objective for each box.

    Returns:
        Float64 [bounds]: no value of c . N(x) on the box is below.

    Raises:
        UnsupportedVersionError: an operator without a rule.
        ProofError: not finite, or slopes that are not a ReLU's.
        LimitError: float64 is not IEEE 754 in this process.

    """
    require_ieee_float64()
    count = len(objectives)
    _require_slopes(network, slopes, count)
    places = np.arange(count) if rows is None else rows
    known, step, found = _Enclosure(network, intervals, arithmetic), _at_once(network), np.empty(count)
    for start in range(0, count, step):
        part = slice(start, start + step)
        objective = objectives[part].reshape(-1, *network.output_shape)
        chosen = {index: slope[part] for index, slope in slopes.items()}
        found[part] = _Walk(known, places[part], chosen).run(network.output, objective)
    return found


def crown_intervals(network: Network, lower: Floats, upper: Floats, arithmetic: str) -> Intervals:
    """Enclose every value over boxes, the inputs of unstable ReLUs tightened in order by rule crown.

    Args:
        network: the network.
        lower: float64 [rows, *input_shape]: lower ends of the boxes.
        upper: the same; upper ends.
        arithmetic: ``real`` or ``ieee754-binary32``.

    Raises:
        UnsupportedVersionError: an operator without a rule, below a ReLU.
        ProofError: a value may overflow.
        LimitError: float64 is not IEEE 754 in this process, or a sum is too long.

    """
    intervals = interval_pass(network, lower, upper, arithmetic)
    known = _Enclosure(network, intervals, arithmetic)
    relaxed: list[bool] = []  # whether a ReLU lies below: otherwise the interval pass is as tight already
    for index, node in enumerate(network.nodes):
        relaxed.append(node.op == "Relu" or any(relaxed[i] for i in node.inputs))
        if node.op == "Relu":
            source = node.inputs[0]
            if relaxed[source]:
                _tighten(known, source)
            known.lower[index] = np.maximum(known.lower[source], 0.0)
            known.upper[index] = np.maximum(known.upper[source], 0.0)
    return Intervals(known.lower, known.upper, network.output)


def _tighten(known: _Enclosure, index: int) -> None:
    """Tighten the enclosure of every element of a node that may be of either sign."""
    shape, step = known.network.nodes[index].shape, max(1, _at_once(known.network) // 2)
    low, high = (ends[index].reshape(len(ends[index]), -1).copy() for ends in (known.lower, known.upper))
    rows, elements = np.nonzero((low < 0) & (high > 0))
    for start in range(0, len(rows), step):
        row, element = rows[start : start + step], elements[start : start + step]
        one = np.zeros((len(row), low.shape[1]))
        one[np.arange(len(row)), element] = 1.0
        objective = np.concatenate([one, -one]).reshape(-1, *shape)
        below, above = np.split(_Walk(known, np.concatenate([row, row]), {}).run(index, objective), 2)
        low[row, element] = np.maximum(low[row, element], below)
        high[row, element] = np.minimum(high[row, element], -above)
    if not (low <= high).all():
        raise ProofError(f"node {index}", "relaxation: enclosures", "a region that is not empty", "an empty enclosure")
    known.lower[index], known.upper[index] = low.reshape(-1, *shape), high.reshape(-1, *shape)


def beats(
    network: Network, lower: Floats, upper: Floats, answer: int, labels: tuple[int, ...], arithmetic: str
) -> bool:
    """Whether the logit of ``answer`` is proved to exceed that of each of ``labels`` on one box.

    Args:
        network: the network.
        lower: float64 [1, *input_shape]: lower ends of the box.
        upper: the same; upper ends.
        answer: a label.
        labels: labels that are to be beaten.
        arithmetic: ``real`` or ``ieee754-binary32``: the logits that the program computes.

    Returns:
        True if it follows; False if it does not, or if the network has operators without a rule or may overflow.

    """
    eye = np.eye(network.labels)
    objectives = eye[[answer] * len(labels)] - eye[list(labels)]
    rows = np.zeros(len(labels), dtype=np.int64)
    try:
        intervals = crown_intervals(network, lower, upper, arithmetic)
        found = lower_bounds(network, intervals, objectives, {}, arithmetic, rows)
    except (UnsupportedVersionError, ProofError):
        return False
    return bool((found > 0).all())
