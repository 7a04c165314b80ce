"""The head of a patch, simplified on one region before it is bounded.

A linear relaxation treats two ReLUs with the same input as unrelated, and so cannot see that the two
maxima over the same logits on both sides of a forget claim cancel. Therefore the nodes after the base
are rewritten, number by number, as affine forms over shared atoms: the values of base nodes, and
ReLUs of affine forms, one atom for equal forms. A ReLU, maximum or minimum that exact interval arithmetic decides
on the region disappears; so do the gates that cannot open there, and whatever depended on them.

The result equals the network on the region in real arithmetic. It is handed to the bound engine, whose
word is never trusted.

Source: MATHS 3.3, last paragraph; THREATS T17 (this is a cross-check, the rules do not rest on it).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce

import numpy as np
import numpy.typing as npt

from prune_verify.bounds.errors import UnsupportedNetworkError
from prune_verify.bounds.torch_layers import alone, candidates
from prune_verify.checker.network import Network, Node, evaluate_all

__all__ = ["simplified"]

_ZERO = Fraction(0)
_UNARY = frozenset({"Linear", "Reshape", "Transpose", "Gather", "ReduceSum"})
Doubles = npt.NDArray[np.float64]
Forms = npt.NDArray[np.object_]
Key = tuple[Fraction, tuple[tuple[int, Fraction], ...]]


@dataclass(frozen=True, eq=False)
class _Form:
    """An affine form over atoms, with an interval that holds its values on the region.

    Args:
        constant: the constant term.
        terms: coefficient by atom; none is zero.
        lower: least value.
        upper: greatest value.

    """

    constant: Fraction
    terms: dict[int, Fraction]
    lower: Fraction
    upper: Fraction

    @property
    def key(self) -> Key:
        """Equal for equal forms."""
        return self.constant, tuple(sorted(self.terms.items()))

    def within(self, lower: Fraction, upper: Fraction) -> _Form:
        """The same form with another interval."""
        return _Form(self.constant, self.terms, lower, upper)

    def __add__(self, other: _Form | Fraction) -> _Form:
        if isinstance(other, Fraction):
            return _Form(self.constant + other, self.terms, self.lower + other, self.upper + other)
        terms = dict(self.terms)
        for atom, factor in other.terms.items():
            total = terms.pop(atom, _ZERO) + factor
            if total:
                terms[atom] = total
        return _Form(self.constant + other.constant, terms, self.lower + other.lower, self.upper + other.upper)

    def __mul__(self, factor: Fraction) -> _Form:
        if not factor:
            return _fixed(_ZERO)
        ends = sorted((self.lower * factor, self.upper * factor))
        return _Form(self.constant * factor, {a: c * factor for a, c in self.terms.items()}, ends[0], ends[1])

    def __neg__(self) -> _Form:
        return self * Fraction(-1)

    def __sub__(self, other: _Form | Fraction) -> _Form:
        return self + (-other)

    def __rsub__(self, other: Fraction) -> _Form:
        return -self + other

    __radd__ = __add__
    __rmul__ = __mul__


def _fixed(value: Fraction) -> _Form:
    return _Form(value, {}, value, value)


def _as_form(value: _Form | Fraction) -> _Form:
    return value if isinstance(value, _Form) else _fixed(value)


class _Atoms:
    """The atoms in use: (node, place) of a base value, or the form under a ReLU."""

    def __init__(self) -> None:
        self.base: dict[int, tuple[int, int]] = {}
        self.relus: dict[int, _Form] = {}
        self.depth: dict[int, int] = {}
        self._known: dict[Key, int] = {}

    def base_value(self, node: int, place: int, lower: Fraction, upper: Fraction) -> _Form:
        """A new atom for a number that a base node computes."""
        atom = len(self.depth)
        self.base[atom], self.depth[atom] = (node, place), 0
        return _Form(_ZERO, {atom: Fraction(1)}, lower, upper)

    def relu(self, form: _Form) -> _Form:
        """ReLU of a form: itself or zero where its interval decides, else an atom shared by equal forms."""
        if form.lower >= 0:
            return form
        if form.upper <= 0:
            return _fixed(_ZERO)
        atom = self._known.setdefault(form.key, len(self.depth))
        if atom not in self.depth:
            self.relus[atom], self.depth[atom] = form, 1 + self.height(form)
        return _Form(_ZERO, {atom: Fraction(1)}, _ZERO, form.upper)

    def height(self, form: _Form) -> int:
        """How many ReLUs stand one behind another in a form."""
        return max((self.depth[atom] for atom in form.terms), default=0)

    def greatest(self, forms: list[_Form]) -> _Form:
        """Maximum in the ReLU form over those that can be greatest, the simplest first: equal maxima share atoms."""
        floor = max(f.lower for f in forms)
        kept = {f.key: f for f in forms if f.upper >= floor}
        ordered = sorted(kept.values(), key=lambda f: (self.height(f), f.key[1], f.constant))
        ceiling = max(f.upper for f in ordered)
        best = reduce(lambda a, b: a + self.relu(b - a), ordered)
        return best.within(floor, ceiling)

    def least(self, forms: list[_Form]) -> _Form:
        """Minimum of two: a - ReLU(a - b)."""
        first, second = forms
        if first.upper <= second.lower:
            return first
        if second.upper <= first.lower:
            return second
        result = first - self.relu(first - second)
        return result.within(min(first.lower, second.lower), min(first.upper, second.upper))


def _each(shape: tuple[int, ...], function: Callable[..., _Form], *operands: Forms) -> Forms:
    """The function of corresponding numbers of operands, as an array of forms."""
    wide = [np.broadcast_to(o, shape).reshape(-1) for o in operands]
    result = np.empty(wide[0].size, dtype=object)
    result[:] = [function(*(_as_form(v) for v in values)) for values in zip(*wide, strict=True)]
    return result.reshape(shape)


def _value(node: Node, atoms: _Atoms, xs: list[Forms]) -> Forms:  # noqa: C901 - a table of operators
    """The forms of one node from those of its inputs (arrays of forms or fractions, per-row shapes)."""
    first = xs[0]
    match node.op:
        case "Relu":
            return _each(node.shape, atoms.relu, first)
        case "Abs":
            return _each(node.shape, lambda f: atoms.relu(f) + atoms.relu(-f), first)
        case "Add":
            return np.asarray(first + xs[1], dtype=object)
        case "Sub":
            return np.asarray(first - xs[1], dtype=object)
        case "Mul":
            return np.asarray(first * xs[1], dtype=object)
        case "Max":
            return _each(node.shape, lambda *fs: atoms.greatest(list(fs)), *xs)
        case "Min":
            return _each(node.shape, lambda *fs: reduce(lambda a, b: atoms.least([a, b]), fs), *xs)
        case "ReduceMax":
            rows = first.reshape(-1)[candidates(node, first.shape)]
            return _each(node.shape, lambda *fs: atoms.greatest(list(fs)), *(row.reshape(node.shape) for row in rows))
        case "Concat":
            return np.concatenate(xs, axis=node.ints["axis"][0])
        case op if op in _UNARY:
            value = evaluate_all(alone(node, first.shape, bias=True), first[np.newaxis])[1][0]
            return np.asarray(value, dtype=object)
    raise UnsupportedNetworkError(f"no simplification is known for the operator {node.op}")


def _fractions(array: npt.NDArray[np.floating]) -> Forms:
    flat = np.empty(array.size, dtype=object)
    flat[:] = [Fraction(float(v)) for v in array.reshape(-1).tolist()]
    return flat.reshape(array.shape)


def simplified(network: Network, base_nodes: int, intervals: Mapping[int, tuple[Doubles, Doubles]]) -> Network:
    """A network equal to ``network`` on a region, with the nodes after the base simplified there.

    Args:
        network: a patched network with one output number.
        base_nodes: how many of its first nodes are the base's; these stay.
        intervals: for the base nodes that later nodes read, the lower and upper ends of their values on the
            region, float64 of the node's shape each.

    Returns:
        The base nodes, and layers of ReLUs over the values that are still needed.

    Raises:
        UnsupportedNetworkError: a node after the base cannot be simplified.

    """
    atoms, forms = _Atoms(), dict[int, Forms]()
    for index, (lower, upper) in intervals.items():
        ends = zip(lower.reshape(-1).tolist(), upper.reshape(-1).tolist(), strict=True)
        flat = np.empty(lower.size, dtype=object)
        flat[:] = [atoms.base_value(index, place, Fraction(a), Fraction(b)) for place, (a, b) in enumerate(ends)]
        forms[index] = flat.reshape(lower.shape)
    for index in range(base_nodes, len(network.nodes)):
        node = network.nodes[index]
        if node.op == "Constant":
            forms[index] = _fractions(node.arrays["value"])
        else:
            forms[index] = _value(node, atoms, [forms[i] for i in node.inputs])
    return _emit(network, base_nodes, atoms, _as_form(forms[network.output].reshape(-1)[0]))


def _needed(atoms: _Atoms, form: _Form) -> list[int]:
    """The atoms that a form rests on, base values first, then ReLUs by depth."""
    seen, stack = set[int](), list(form.terms)
    while stack:
        atom = stack.pop()
        if atom not in seen:
            seen.add(atom)
            stack += atoms.relus[atom].terms if atom in atoms.relus else ()
    return sorted(seen, key=lambda atom: (atoms.depth[atom], atom))


def _emit(network: Network, base_nodes: int, atoms: _Atoms, result: _Form) -> Network:
    """Nodes for one form: the base values side by side, then one layer of ReLUs per depth appended to them."""
    needed = _needed(atoms, result) or [0]  # a constant is written with weight 0 on some number
    nodes = list(network.nodes[:base_nodes])
    column: dict[int, int] = {}

    def add(op: str, inputs: list[int], width: int, **ints: tuple[int, ...]) -> int:
        nodes.append(Node(op, tuple(inputs), (width,), dict(ints)))
        return len(nodes) - 1

    def linear(source: int, rows: list[_Form]) -> int:
        weight = np.zeros((len(rows), nodes[source].shape[0]), dtype=np.float32)
        for row, form in enumerate(rows):
            for atom, factor in form.terms.items():
                weight[row, column[atom]] = float(factor)
        bias = np.array([float(form.constant) for form in rows], dtype=np.float32)
        nodes.append(Node("Linear", (source,), (len(rows),), {"axis": (-1,)}, {"weight": weight, "bias": bias}))
        return len(nodes) - 1

    def joined(parts: list[int]) -> int:
        width = sum(nodes[p].shape[0] for p in parts)
        return parts[0] if len(parts) == 1 else add("Concat", parts, width, axis=(0,))

    parts = []
    for source in sorted({atoms.base[a][0] for a in needed if a in atoms.base}):
        mine = [a for a in needed if atoms.base.get(a, (-1, 0))[0] == source]
        places = tuple(atoms.base[a][1] for a in mine)
        column.update({a: len(column) + i for i, a in enumerate(mine)})
        size = int(np.prod(nodes[source].shape))
        flat = source if nodes[source].shape == (size,) else add("Reshape", [source], size)
        parts.append(add("Gather", [flat], len(mine), axis=(0,), indices=places, index_shape=(len(mine),)))
    known = joined(parts)
    for depth in range(1, 1 + max(atoms.depth[a] for a in needed)):
        layer = [a for a in needed if atoms.depth[a] == depth]
        relu = add("Relu", [linear(known, [atoms.relus[a] for a in layer])], len(layer))
        known = joined([known, relu])
        column.update({a: len(column) + i for i, a in enumerate(layer)})
    output = linear(known, [result])
    return Network(tuple(nodes), output)
