"""A network's values over one box as SMT-LIB 2 text: linear forms, and an if-then-else for each ReLU that stays open.

Every choice is brought to ReLUs: max(a, b) = b + relu(a - b), min(a, b) = a - relu(a - b), |x| = 2 relu(x) - x.

Source: MATHS 5.3; SMT-LIB 2.6, theory Reals, logic QF_LRA.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from math import prod

import numpy as np
import numpy.typing as npt

from prune_verify.certify.linear_forms import ZERO, Form, form_text, number_text
from prune_verify.checker.errors import LimitError, UnsupportedVersionError
from prune_verify.checker.interval import Intervals
from prune_verify.checker.network import Network, Node, evaluate_all, windows

__all__ = ["MAX_PRODUCTS", "MAX_QUERY_BYTES", "Encoding", "Signs", "weighted_sum"]

MAX_PRODUCTS = 2**20
MAX_QUERY_BYTES = 2**25
_FEW_TERMS = 2  # longer sums get a name of their own, so that what reads them stays short

_MAPS = ("Linear", "Conv", "BatchNorm", "AveragePool", "ReduceSum", "Reshape", "Transpose", "Gather")
_MOVES = ("Reshape", "Transpose", "Gather", "Concat", "Constant")

Signs = Mapping[tuple[int, int], bool]
Forms = npt.NDArray[np.object_]
Ends = tuple[Fraction, Fraction]


class Encoding:
    """The text so far, and the forms of every node's value.

    Args:
        network: what is written down.
        intervals: enclosures over the box in real arithmetic, by the checker's own kernel.
        row: which of their rows belongs to the box.
        signs: by (Relu node, place), whether the case is that of an input at most 0 rather than at least 0.

    Raises:
        UnsupportedVersionError: an operator that is not piecewise linear with rational factors.
        LimitError: the network is too large.

    """

    def __init__(self, network: Network, intervals: Intervals, row: int, signs: Signs) -> None:
        self.nodes, self.intervals, self.row, self.signs = network.nodes, intervals, row, signs
        self.values: list[Forms] = []
        self._lines = ["(set-logic QF_LRA)"]
        self._products, self._length = 0, 0
        self.values.append(self.inputs())
        for index, node in enumerate(network.nodes[1:], start=1):
            found = _value(self, index, node)
            if node.op not in _MOVES:
                names = (f"v{index}_{place}" for place in range(found.size))
                few = [self.named(n, f, _FEW_TERMS) for n, f in zip(names, found.reshape(-1), strict=True)]
                found = _array(few, node.shape)
            self.values.append(found)
        if intervals.empty[row]:
            self.require("false")  # two enclosures of one value have nothing in common: there is no such point

    def text(self) -> str:
        """The query."""
        return "\n".join([*self._lines, "(check-sat)", ""])

    def _line(self, line: str) -> None:
        self._lines.append(line)
        self._length += len(line) + 1
        if self._length > MAX_QUERY_BYTES:
            raise LimitError("network", "SMT query: length", f"at most {MAX_QUERY_BYTES} bytes", "more")

    def require(self, assertion: str) -> None:
        """Assert an assertion; refuses a text that grows too long."""
        self._line(f"(assert {assertion})")

    def declare(self, name: str) -> Form:
        """A new real constant of this name."""
        self._line(f"(declare-const {name} Real)")
        return Form({name: Fraction(1)}, Fraction(0))

    def spend(self, count: int) -> None:
        """Refuse a network whose products, ``count`` more, are too many to write down."""
        self._products += count
        if self._products > MAX_PRODUCTS:
            raise LimitError("network", "SMT query: products", f"at most {MAX_PRODUCTS}", "more")

    def ends(self, index: int) -> list[Ends]:
        """The enclosure of every number of the value of node ``index``."""
        low, high = (end[self.row if len(end) > 1 else 0].reshape(-1) for end in self.intervals.box(index))
        return [(Fraction(a), Fraction(b)) for a, b in zip(low.tolist(), high.tolist(), strict=True)]

    def inputs(self) -> Forms:
        """The inputs: constants in their box; one that can have one value only is a number in every form."""
        found = []
        for place, (low, high) in enumerate(self.ends(0)):
            form = self.declare(f"x{place}")
            self.require(f"(and (<= {number_text(low)} x{place}) (<= x{place} {number_text(high)}))")
            found.append(Form({}, low) if low == high else form)
        return _array(found, self.nodes[0].shape)

    def named(self, name: str, form: Form, most: int = 1) -> Form:
        """The form, under a name of its own where it has more than ``most`` terms."""
        if len(form.terms) <= most:
            return form
        value = self.declare(name)
        self.require(f"(= {name} {form_text(form)})")
        return value

    def relu(self, name: str, form: Form, ends: Ends) -> Form:
        """max(form, 0): settled by the enclosure, or a constant of this name equal to an if-then-else."""
        low, high = ends
        if low >= 0:
            return form
        if high <= 0:
            return ZERO
        value, text = self.declare(name), form_text(self.named(f"{name}_in", form))
        low, high = _wider(low, high)
        self.require(f"(= {name} (ite (> {text} 0) {text} 0))")
        bounds = f"(<= {number_text(low)} {text}) (<= {text} {number_text(high)})"
        self.require(f"(and {bounds} (<= 0 {name}) (<= {text} {name}))")
        shifted = f"(- {text} {number_text(low)})"
        self.require(f"(<= (* {number_text(high - low)} {name}) (* {number_text(high)} {shifted}))")
        return value

    def relus(self, index: int, node: Node) -> list[Form]:
        """The values of a Relu node, the node ``index``, each in the case that ``signs`` says, if any."""
        found = []
        source = node.inputs[0]
        for place, (form, ends) in enumerate(zip(self.values[source].reshape(-1), self.ends(source), strict=True)):
            below = self.signs.get((index, place))
            if below is not None:
                self.require(f"({'<=' if below else '>='} {form_text(form)} 0)")
                found.append(ZERO if below else form)
            else:
                found.append(self.relu(f"r{index}_{place}", form, ends))
        return found

    def most(self, name: str, members: list[tuple[Form, Ends]]) -> tuple[Form, Ends]:
        """The largest of several members, under this name, and its enclosure."""
        least = max(low for _, (low, _) in members)
        kept = [item for item in members if item[1][1] > least or item[1][0] == least]
        form, ends = kept[0]
        for place, (other, (low, high)) in enumerate(kept[1:]):
            difference = other - form, (low - ends[1], high - ends[0])
            form = form + self.relu(f"{name}_{place}", *difference)
            ends = max(low, ends[0]), max(high, ends[1])
        return form, ends

    def linear(self, node: Node) -> Forms:
        """Linear over the last axis."""
        x = self.values[node.inputs[0]]
        weight = node.arrays["weight"]
        self.spend(weight.shape[0] * x.size)
        alpha, beta = (Fraction(float(node.arrays[n])) if n in node.arrays else Fraction(1) for n in ("alpha", "beta"))
        factors = [[alpha * Fraction(v) for v in row] for row in weight.astype(np.float64).tolist()]
        bias = [beta * Fraction(float(v)) for v in node.arrays["bias"].tolist()] if "bias" in node.arrays else []
        found = []
        for forms in x.reshape(-1, weight.shape[1]):
            found += [
                weighted_sum(row, forms, bias[place] if bias else Fraction(0)) for place, row in enumerate(factors)
            ]
        return _array(found, node.shape)


def _array(forms: list[Form], shape: tuple[int, ...]) -> Forms:
    found = np.empty(len(forms), dtype=object)
    found[:] = forms
    return found.reshape(shape)


def _wider(low: Fraction, high: Fraction) -> Ends:
    """Ends of few digits that enclose these."""
    ends = np.array([float(low), float(high)], dtype=np.float64)
    with np.errstate(over="ignore"):
        short = np.nextafter(ends.astype(np.float32), np.array([-np.inf, np.inf], dtype=np.float32))
    if not np.isfinite(short).all():
        return low, high
    return Fraction(float(short[0])), Fraction(float(short[1]))


def weighted_sum(factors: list[Fraction], forms: Forms, number: Fraction) -> Form:
    """The sum of factors times forms [n], plus a number."""
    terms: dict[str, Fraction] = {}
    for factor, form in zip(factors, forms, strict=True):
        if factor:
            number += factor * form.number
            for name, value in form.terms.items():
                terms[name] = terms.get(name, Fraction(0)) + factor * value
    return Form({name: value for name, value in terms.items() if value}, number)


def _mapped(query: Encoding, node: Node) -> Forms:
    """A linear operator of one input, by its own evaluation on forms."""
    x = query.values[node.inputs[0]]
    per_output = prod(node.arrays["weight"].shape[1:] if "weight" in node.arrays else node.ints.get("kernel", (1,)))
    query.spend(max(prod(node.shape) * per_output, x.size))
    alone = Network((Node("Input", (), x.shape), replace(node, inputs=(0,))), 1)
    value = evaluate_all(alone, x[np.newaxis])[1][0]
    forms = [form if isinstance(form, Form) else Form({}, Fraction(form)) for form in value.reshape(-1).tolist()]
    return _array(forms, node.shape)


def _folded(query: Encoding, index: int, node: Node) -> Forms:
    """Max and Min of several values, with broadcasting: Min as the negative of Max of negatives."""
    sign = 1 if node.op == "Max" else -1
    members: list[list[tuple[Form, Ends]]] = [[] for _ in range(prod(node.shape))]
    for i in node.inputs:
        forms, ends = query.values[i].reshape(-1), query.ends(i)
        own = np.arange(forms.size).reshape(query.nodes[i].shape)
        for place, p in enumerate(np.broadcast_to(own, node.shape).reshape(-1).tolist()):
            members[place].append((forms[p] * sign, _signed(ends[p], sign)))
    return _array([query.most(f"m{index}_{p}", group)[0] * sign for p, group in enumerate(members)], node.shape)


def _signed(ends: Ends, sign: int) -> Ends:
    return ends if sign > 0 else (-ends[1], -ends[0])


def _reduced(query: Encoding, index: int, node: Node) -> Forms:
    """MaxPool and ReduceMax: the largest of a group of positions."""
    source = node.inputs[0]
    shape = query.nodes[source].shape
    places = np.arange(prod(shape), dtype=np.int64).reshape(1, *shape)
    if node.op == "MaxPool":
        kernel, ints = node.ints["kernel"], node.ints
        grouped = windows(places, kernel, ints["strides"], ints["pads"], ints["dilations"], -1)
        groups = grouped.reshape(prod(node.shape), prod(kernel))
    else:
        axes = tuple(a + 1 for a in node.ints["axes"])
        last = np.moveaxis(places, axes, tuple(range(-len(axes), 0)))
        groups = last.reshape(prod(node.shape), -1)
    query.spend(groups.size)
    forms, ends = query.values[source].reshape(-1), query.ends(source)
    found = []
    for place, group in enumerate(groups.tolist()):
        members = [(forms[p], ends[p]) for p in group if p >= 0]
        found.append(query.most(f"m{index}_{place}", members)[0])
    return _array(found, node.shape)


def _clipped(query: Encoding, index: int, node: Node) -> Forms:
    """Clip: a maximum with the lower end, then a minimum with the upper one."""
    found = []
    source = node.inputs[0]
    limits = {name: Fraction(float(array)) for name, array in node.arrays.items()}
    for place, (form, ends) in enumerate(zip(query.values[source].reshape(-1), query.ends(source), strict=True)):
        value, reach = form, ends
        for name, sign in (("lower", 1), ("upper", -1)):
            if name in limits:
                fixed = Form({}, sign * limits[name]), (sign * limits[name], sign * limits[name])
                value, reach = query.most(f"c{index}_{place}_{name}", [fixed, (value * sign, _signed(reach, sign))])
                value, reach = value * sign, _signed(reach, sign)
        found.append(value)
    return _array(found, node.shape)


def _value(query: Encoding, index: int, node: Node) -> Forms:
    """The forms of one node's value.

    Raises:
        UnsupportedVersionError: an operator that is not piecewise linear with rational factors.

    """
    sources = [query.values[i] for i in node.inputs]
    if node.op == "Constant":
        return _array([Form({}, Fraction(v)) for v in node.arrays["value"].astype(np.float64).reshape(-1)], node.shape)
    if node.op == "Linear" and node.ints["axis"][0] == -1:
        return query.linear(node)
    if node.op == "Concat":
        return np.concatenate(sources, node.ints["axis"][0])
    if node.op in ("Add", "Sub", "Mul"):
        query.spend(prod(node.shape))
        found: Forms = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply}[node.op](*sources)
        return found.reshape(node.shape)
    if node.op in _MAPS:
        return _mapped(query, node)
    if node.op in ("Max", "Min"):
        return _folded(query, index, node)
    if node.op in ("MaxPool", "ReduceMax"):
        return _reduced(query, index, node)
    return _value_of_one(query, index, node)


def _value_of_one(query: Encoding, index: int, node: Node) -> Forms:
    """Operators on each number alone."""
    if node.op == "Clip":
        return _clipped(query, index, node)
    if node.op == "Relu":
        return _array(query.relus(index, node), node.shape)
    if node.op == "Abs":
        source = node.inputs[0]
        pairs = zip(query.values[source].reshape(-1), query.ends(source), strict=True)
        found = [query.relu(f"r{index}_{p}", form, ends) * 2 - form for p, (form, ends) in enumerate(pairs)]
        return _array(found, node.shape)
    raise UnsupportedVersionError("network", "SMT query: operator", "one that can be written in QF_LRA", node.op)
