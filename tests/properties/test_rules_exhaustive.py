"""Bounds, enclosures and goals against every activation pattern of small networks, in rationals.

A network with ReLUs is linear on each cell of its activation patterns. For one or two inputs the cells are segments and
polygons, cut exactly out of the box neuron by neuron; the least of a linear output lies at a vertex of a cell. So its
exact minimum is known, whatever rule is to be judged:

no bound       of the checker lies above it, whatever slopes, multipliers, cuts and trees say;
with all       neurons split and the multipliers of the cells' linear programs (their duals, found here from the
               constraints that hold with equality at the vertex), the checker proves all but the rounding of the
               multipliers to float32: the gap is stated per tree, ``2^-23 sum of multiplier * reach`` at its widest leaf.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from math import inf, nextafter

import numpy as np
import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from prune_verify.checker import relaxation
from prune_verify.checker.goals import Goals, decide_goals
from prune_verify.checker.network import Network, Node, evaluate_all
from prune_verify.checker.proof import Proof, emit, parse
from prune_verify.checker.region import float64_not_above, float64_not_below
from prune_verify.checker.relaxation import Hints, crown_intervals, lower_bounds
from prune_verify.checker.rules import BINARY32, REAL

Point = tuple[Fraction, ...]
Form = tuple[Fraction, ...]  # coefficients, then the constant
Layer = tuple[list[list[Fraction]], list[Fraction]]
LEAF = (0, 0, -1)
LARGE = Fraction(2**20)
OBJECTIVE = np.array([1.0, -1.0])


@dataclass(frozen=True)
class Example:
    """A network input - Linear - Relu - .. - Linear with two outputs, and a box."""

    layers: tuple[Layer, ...]
    box: tuple[tuple[Fraction, Fraction], ...]

    @property
    def network(self) -> Network:
        nodes = [Node("Input", (), (len(self.box),))]
        for place, (weight, bias) in enumerate(self.layers):
            if place:
                nodes.append(Node("Relu", (len(nodes) - 1,), nodes[-1].shape))
            arrays = {"weight": np.array(weight, dtype=np.float32), "bias": np.array(bias, dtype=np.float32)}
            nodes.append(Node("Linear", (len(nodes) - 1,), (len(weight),), {"axis": (-1,)}, arrays))
        return Network(tuple(nodes), len(nodes) - 1)

    @property
    def relus(self) -> list[int]:
        return [i for i, node in enumerate(self.network.nodes) if node.op == "Relu"]

    @property
    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        low, high = np.array(self.box, dtype=np.float64).T
        return low[np.newaxis], high[np.newaxis]

    @property
    def corners(self) -> list[Point]:
        """The vertices of the box in turn."""
        if len(self.box) == 1:
            return [(end,) for end in self.box[0]]
        (a, b), (c, d) = self.box
        return [(a, c), (b, c), (b, d), (a, d)]

    @property
    def start(self) -> list[Form]:
        """The inputs as functions of the inputs."""
        size = len(self.box)
        return [tuple(Fraction(i == j) for j in range(size + 1)) for i in range(size)]


QUARTERS = st.integers(-8, 8).map(lambda n: Fraction(n, 4))


@st.composite
def examples(draw: st.DrawFn, most: int = 5, depth: int = 2) -> Example:
    inputs = draw(st.integers(1, 2))
    widths = [inputs, *(draw(st.sampled_from([most, *range(1, most)])) for _ in range(draw(st.integers(1, depth)))), 2]
    seeded = st.integers(0, 2**32).map(lambda seed: np.random.default_rng(seed).integers(-8, 9, 84).tolist())
    numbers = draw(
        seeded.map(lambda listed: [Fraction(n, 4) for n in listed]) | st.lists(QUARTERS, min_size=84, max_size=84)
    )
    layers = []
    for before, after in zip(widths, widths[1:], strict=False):
        weight = [[numbers.pop() for _ in range(before)] for _ in range(after)]
        layers.append((weight, [numbers.pop() for _ in range(after)]))
    middle, reach = ([numbers.pop() for _ in range(inputs)] for _ in range(2))
    reach = [abs(r) for r in reach]
    return Example(tuple(layers), tuple((m - r, m + r) for m, r in zip(middle, reach, strict=True)))


def of_full_size(seed: int) -> Example:
    """Two inputs and two hidden layers of five neurons, on a box that most neurons are unstable on."""
    numbers = [Fraction(n, 4) for n in np.random.default_rng(seed).integers(-8, 9, 57).tolist()]
    layers = []
    for before, after in ((2, 5), (5, 5), (5, 2)):
        weight = [[numbers.pop() for _ in range(before)] for _ in range(after)]
        layers.append((weight, [numbers.pop() for _ in range(after)]))
    return Example(tuple(layers), ((Fraction(-2), Fraction(2)), (Fraction(-3, 2), Fraction(5, 2))))


FULL_SIZE = st.integers(0, 2**32).map(of_full_size)

# --- exact geometry ---


def at(form: Form, point: Point) -> Fraction:
    return sum((a * x for a, x in zip(form, point, strict=False)), form[-1])


def mixed(weights: list[Fraction], forms: list[Form], constant: Fraction) -> Form:
    columns = zip(*forms, strict=True)
    made = [sum((w * v for w, v in zip(weights, column, strict=True)), Fraction(0)) for column in columns]
    return (*made[:-1], made[-1] + constant)


def part_below(polygon: list[Point], form: Form) -> list[Point]:
    """The vertices of a polygon's part where the form is <= 0, in turn; none if there is none."""
    found: list[Point] = []
    for one, other in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        a, b = at(form, one), at(form, other)
        if a <= 0:
            found.append(one)
        if a * b < 0:
            found.append(tuple(x + (y - x) * a / (a - b) for x, y in zip(one, other, strict=True)))
    return list(dict.fromkeys(found))


def cells(example: Example, layer: int = 0, forms: list[Form] | None = None, polygon: list[Point] | None = None):
    """Every pattern that occurs: (vertices of its cell, the outputs as functions of the input)."""
    forms, polygon = forms or example.start, polygon or example.corners
    weight, bias = example.layers[layer]
    made = [mixed(w, forms, b) for w, b in zip(weight, bias, strict=True)]
    if layer == len(example.layers) - 1:
        yield polygon, made
        return
    patterns = [(polygon, [])]
    for form in made:
        flat = tuple(Fraction(0) for _ in form)
        turned = tuple(-v for v in form)
        patterns = [
            (part, [*outs, out])
            for here, outs in patterns
            for side, out in ((form, flat), (turned, form))
            if (part := part_below(here, side))
        ]
    for here, outs in patterns:
        yield from cells(example, layer + 1, outs, here)


def vertices(example: Example) -> list[Point]:
    return list(dict.fromkeys(point for polygon, _ in cells(example) for point in polygon))


def minimum(example: Example, objective: tuple[int, int] = (1, -1)) -> Fraction:
    """The exact least value of a linear output over the box."""
    weights = [Fraction(v) for v in objective]
    return min(at(mixed(weights, outs, Fraction(0)), point) for polygon, outs in cells(example) for point in polygon)


def area(polygon: list[Point]) -> Fraction:
    pairs = zip(polygon, polygon[1:] + polygon[:1], strict=True)
    return abs(sum((a[0] * b[1] - a[1] * b[0] for a, b in pairs), Fraction(0))) / 2


def test_the_geometry_agrees_with_the_network_evaluated_exactly() -> None:
    weight = [[Fraction(1), Fraction(-1)], [Fraction(1, 2), Fraction(2)], [Fraction(-3, 4), Fraction(1)]]
    last = [[Fraction(1), Fraction(-1), Fraction(2)], [Fraction(0), Fraction(1, 4), Fraction(-1)]]
    layers = ((weight, [Fraction(1, 4)] * 3), (last, [Fraction(0), Fraction(1)]))
    example = Example(layers, ((Fraction(-1), Fraction(1)), (Fraction(-1), Fraction(2))))
    found = list(cells(example))
    assert len(found) > 4
    assert sum(area(polygon) for polygon, _ in found) == 6  # nothing of the box is left out
    for polygon, outs in found:
        for point in polygon:
            exact = evaluate_all(example.network, np.array([point], dtype=object))[-1][0]
            assert [at(form, point) for form in outs] == exact.tolist()


# --- no bound is above the minimum ---

FINITE = st.sampled_from([0.0, 0.5, 1.0, -1.0, 2.0, 1e6, -1e6, 1e30, 5e-324]) | st.floats(-8, 8, width=32)
HOSTILE = FINITE | st.just(float("nan"))  # not a number: rule crown


def _per_relu(draw: st.DrawFn, example: Example, values: st.SearchStrategy[float]) -> dict[int, np.ndarray]:
    return {
        node: np.array([[draw(values) for _ in range(example.network.nodes[node].shape[0])]])
        for node in example.relus
        if draw(st.booleans())
    }


@st.composite
def hinted(draw: st.DrawFn) -> tuple[Example, Hints]:
    example = draw(examples() | FULL_SIZE)
    return example, Hints(_per_relu(draw, example, HOSTILE), _per_relu(draw, example, FINITE))


@given(hinted(), st.sampled_from([REAL, BINARY32]), st.booleans())
def test_no_bound_is_above_the_minimum(made, arithmetic, exact) -> None:
    """Any slopes and multipliers. The bounds in binary32 hold for every rounding, the exact execution among them."""
    example, hints = made
    network, least = example.network, minimum(example)
    intervals = crown_intervals(network, *example.ends, arithmetic, exact=exact)
    for given_hints in (Hints(), hints):
        found = lower_bounds(network, intervals, OBJECTIVE[np.newaxis], given_hints, arithmetic, exact=exact)
        assert Fraction(float(found[0])) <= least


@given(examples(), st.sampled_from([REAL, BINARY32]), st.booleans(), st.data())
def test_every_value_of_every_cell_is_enclosed(example, arithmetic, exact, data) -> None:
    """Hostile slopes may not narrow an enclosure below the values that occur: all vertices of all cells."""
    slopes = _per_relu(data.draw, example, HOSTILE)
    intervals = crown_intervals(example.network, *example.ends, arithmetic, hints=Hints(slopes), exact=exact)
    points = np.array(vertices(example), dtype=object).reshape(-1, len(example.box))
    for node, values in enumerate(evaluate_all(example.network, points)):
        low, high = intervals.box(node)
        assert (values >= low).all()
        assert (values <= high).all()


def size_of_x() -> Example:
    """|x| on [-1, 2]."""
    one, zero = Fraction(1), Fraction(0)
    layers = (([[one], [-one]], [zero, zero]), ([[one, one], [zero, zero]], [zero, zero]))
    return Example(layers, ((-one, 2 * one),))


def test_without_the_breakpoint_the_same_comparison_finds_a_bound_above_the_minimum(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = relaxation.relu

    def forgetful(coefficient, box, slope, shift):
        line, _ = honest(coefficient, box, slope, shift)
        ends = [coefficient * np.maximum(end, 0) - line * end for end in box]
        return line, np.minimum(*ends)

    example, slopes = size_of_x(), Hints({2: np.array([[0.5, 0.5]])})

    def gap() -> Fraction:
        intervals = crown_intervals(example.network, *example.ends, REAL)
        found = lower_bounds(example.network, intervals, OBJECTIVE[np.newaxis], slopes, REAL)
        return Fraction(float(found[0])) - minimum(example)

    assert gap() <= 0
    monkeypatch.setattr(relaxation, "relu", forgetful)
    assert gap() > 0


# --- trees ---


def _goals(example: Example, rows: np.ndarray, least: list[float], **changes) -> Goals:
    """One goal on the box: some atom ``row . y >= least``."""
    atoms = len(rows)

    def constraint(records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shape = (len(records), 1, atoms)
        return np.broadcast_to(rows, (*shape, 2)), np.broadcast_to(np.array(least), shape)

    return Goals(example.network, REAL, 1, 1, atoms, lambda _: example.ends, constraint, **changes)


def _proof(steps: list[tuple[int, int, int]], **changes) -> Proof:
    """Through the file, as a verifier gets it."""
    numbers = np.array(steps, dtype=np.int32).reshape(-1)
    made = Proof("property", REAL, "relaxation", "0" * 64, 1, trees=np.zeros(1, np.int32), steps=numbers, **changes)
    return parse(emit(made), "p")


def above(value: Fraction) -> float:
    """A float64 that exceeds an exact number, and no other is between them."""
    near = float64_not_below(value)
    return near if Fraction(near) > value else nextafter(near, inf)


@st.composite
def trees(draw: st.DrawFn, example: Example, choices: int, sets: int, depth: int = 4) -> list[tuple[int, int, int]]:
    kind = draw(st.integers(0, 3)) if depth else 0
    chosen = draw(st.integers(-1, sets - 1))
    if kind == 0:
        return [(0, draw(st.integers(0, choices - 1)), chosen)]
    node = draw(st.sampled_from(example.relus))
    place = draw(st.integers(0, example.network.nodes[node].shape[0] - 1))
    step = {1: (1, node, place), 2: (2, draw(st.integers(0, len(example.box) - 1)), draw(st.integers(0, 2))),
            3: (3, chosen, 0)}[kind]  # fmt: skip
    below = [draw(trees(example, choices, sets, depth - 1)) for _ in range(1 if kind == 3 else 2)]
    return [step, *(s for part in below for s in part)]


def _splits_of_leaves(steps: list[tuple[int, int, int]]) -> int:
    """How many multipliers a tree has: one per leaf and ReLU split above it."""
    stack, found = [0], 0
    for kind, _, _ in steps:
        splits = stack.pop()
        if kind == 0:
            found += splits
        else:
            stack += [splits] if kind == 3 else [splits + (kind == 1)] * 2
    return found


SINGLES = st.floats(-100, 100, width=32) | st.sampled_from([0.0, 1e30, -1e30])


@st.composite
def dishonest(draw: st.DrawFn) -> tuple[Example, list[tuple[int, int, int]], dict]:
    """A tree with any splits, cuts inside and outside the box, lemmas, sets of slopes and multipliers."""
    example = draw(examples())
    sets = draw(st.integers(0, 2))
    changes: dict = {"cuts": np.array([draw(st.floats(-4, 4, width=32)) for _ in range(3)], dtype=np.float32)}
    changes["active"], changes["slopes"] = {}, {}
    for node in example.relus if sets else []:
        size = example.network.nodes[node].shape[0]
        changes["active"][node] = np.arange(size, dtype=np.int32)
        changes["slopes"][node] = np.array([[draw(SINGLES) for _ in range(size)] for _ in range(sets)], np.float32)
    changes["combinations"] = np.array(
        [draw(st.sampled_from([0.25, 0.5, 1.0])), draw(st.sampled_from([0.0, 0.75]))], np.float32
    )
    steps = draw(trees(example, 3, sets))
    if draw(st.booleans()):
        count = _splits_of_leaves(steps)
        changes["multipliers"] = np.array([draw(SINGLES) for _ in range(count)], dtype=np.float32)
    return example, steps, changes


@settings(max_examples=150)
@given(dishonest(), st.sampled_from([REAL, BINARY32]), st.booleans())
def test_no_tree_proves_more_than_the_minimum(made, arithmetic, exact) -> None:
    """One clause of two atoms, y_0 - y_1 >= s or 2 y_1 - y_0 >= t: where both can fail at one vertex nothing is proved,
    whatever the leaves choose, the combination of both among them."""
    example, steps, changes = made
    rows = np.array([[1.0, -1.0], [-1.0, 2.0]])
    points = {point: outs for polygon, outs in cells(example) for point in polygon}
    worst = min(points, key=lambda point: at(mixed([Fraction(1), Fraction(-1)], points[point], Fraction(0)), point))
    values = [at(mixed([Fraction(v) for v in row.tolist()], points[worst], Fraction(0)), worst) for row in rows]
    goals = _goals(example, rows, [above(v) for v in values], exact=exact)
    goals = Goals(**{**vars(goals), "arithmetic": arithmetic})
    assert not decide_goals(goals, _proof(steps, **changes), "p").any()
    easy = Goals(**{**vars(goals), "constraint": _goals(example, rows, [-1e9, -1e9]).constraint})
    event("the tree proves something that is true: " + str(decide_goals(easy, _proof(steps, **changes), "p").all()))


# --- with every neuron split ---


@dataclass(frozen=True)
class Case:
    """Constraints form <= 0 so far (signed inputs of neurons), the polygon where they hold."""

    polygon: list[Point]
    constraints: tuple[tuple[Form, int], ...] = ()


def dual(example: Example, case: Case, form: Form) -> tuple[Fraction, list[Fraction]]:
    """The least value of a form over a polygon, and a multiplier per constraint that shows it, the box's own left out.

    At a vertex where it is attained minus the gradient is a sum of at most as many normals of constraints that hold with
    equality there as there are inputs, with factors from 0 (Caratheodory).
    """
    size = len(example.box)
    vertex = min(case.polygon, key=lambda point: at(form, point))
    normals = [(i, f[:-1]) for i, (f, _) in enumerate(case.constraints) if at(f, vertex) == 0]
    for j, (low, high) in enumerate(example.box):
        unit = tuple(Fraction(i == j) for i in range(size))
        normals += [(None, unit)] if vertex[j] == high else []
        normals += [(None, tuple(-v for v in unit))] if vertex[j] == low else []
    target = [-v for v in form[:-1]]
    for count in range(size + 1):
        for chosen in combinations(normals, count):
            factors = solved([n for _, n in chosen], target)
            if factors is not None and all(f >= 0 for f in factors):
                found = [Fraction(0)] * len(case.constraints)
                for (index, _), factor in zip(chosen, factors, strict=True):
                    if index is not None:
                        found[index] += factor
                return at(form, vertex), found
    raise AssertionError("a vertex without multipliers is no minimum")


def solved(columns: list[Form], target: list[Fraction]) -> list[Fraction] | None:
    """Factors of at most two columns that add up to the target, or None."""
    if len(columns) == 2:
        (a, c), (b, d) = columns
        det = a * d - b * c
        return [(d * target[0] - b * target[1]) / det, (a * target[1] - c * target[0]) / det] if det else None
    if not columns:
        return [] if not any(target) else None
    factor = next((t / v for v, t in zip(columns[0], target, strict=True) if v), Fraction(0))
    return [factor] if all(factor * v == t for v, t in zip(columns[0], target, strict=True)) else None


class FullTree:
    """The tree that splits every neuron, layer by layer, a case that is empty excepted; and what it can prove."""

    def __init__(self, example: Example) -> None:
        self.example = example
        self.steps: list[tuple[int, int, int]] = []
        self.multipliers: list[float] = []
        self.least, self.gap = Fraction(10**9), Fraction(0)
        self._layer(0, example.start, Case(example.corners))

    def _layer(self, layer: int, forms: list[Form], case: Case) -> None:
        weight, bias = self.example.layers[layer]
        made = [mixed(w, forms, b) for w, b in zip(weight, bias, strict=True)]
        if layer == len(self.example.layers) - 1:
            least, factors = dual(self.example, case, mixed([Fraction(1), Fraction(-1)], made, Fraction(0)))
            self.least = min(self.least, least)
            self._leaf(case, factors)
            lost = sum(
                (f * self._reach(form) for f, (form, _) in zip(factors, case.constraints, strict=True)), Fraction(1)
            )
            self.gap = max(self.gap, lost * Fraction(1, 2**23))
        else:
            self._neurons(layer, made, [], case)

    def _neurons(self, layer: int, made: list[Form], outs: list[Form], case: Case) -> None:
        if len(outs) == len(made):
            self._layer(layer + 1, outs, case)
            return
        form, place = made[len(outs)], len(outs)
        self.steps.append((1, self.example.relus[layer], place))
        for sign in (1, -1):
            side = tuple(sign * v for v in form)
            below = Case(part_below(case.polygon, side), (*case.constraints, (side, sign)))
            if below.polygon:
                self._neurons(layer, made, [*outs, tuple(Fraction(0) for _ in form) if sign > 0 else form], below)
            else:
                self._empty(case, below, side)

    def _empty(self, case: Case, below: Case, side: Form) -> None:
        """No point of the case has side <= 0: the multipliers that show side > 0, as large as any bound asks for."""
        positive, factors = dual(self.example, case, side)
        lost = sum(
            (f * self._reach(form) for f, (form, _) in zip(factors, case.constraints, strict=True)), self._reach(side)
        )
        assume(positive > lost * Fraction(1, 2**20))  # float32 has the digits for it
        self._leaf(below, [LARGE / positive * f for f in (*factors, Fraction(1))])

    def _leaf(self, case: Case, factors: list[Fraction]) -> None:
        self.steps.append(LEAF)
        self.multipliers += [float(sign * f) for f, (_, sign) in zip(factors, case.constraints, strict=True)]

    def _reach(self, form: Form) -> Fraction:
        """The greatest absolute value of a form over the box."""
        return max(abs(at(form, corner)) for corner in self.example.corners)


@settings(max_examples=150)
@given(examples() | FULL_SIZE, st.booleans())
def test_with_every_neuron_split_the_minimum_is_proved_but_for_the_gap(example, exact) -> None:
    tree, least = FullTree(example), minimum(example)
    assert tree.least == least  # two ways to the same number: linear programs, and vertices
    proof = _proof(tree.steps, multipliers=np.array(tree.multipliers, dtype=np.float32))
    rows = OBJECTIVE[np.newaxis]
    assert decide_goals(_goals(example, rows, [float64_not_above(least - tree.gap)], exact=exact), proof, "p").all()
    assert not decide_goals(_goals(example, rows, [above(least)], exact=exact), proof, "p").any()
    event(f"gap below 2^{tree.gap.numerator.bit_length() - tree.gap.denominator.bit_length() + 1}")
    event(f"leaves: 2^{tree.steps.count(LEAF).bit_length() - 1}")


@settings(max_examples=40)
@given(examples(most=4), st.data())
def test_one_multiplier_turned_round_never_proves_more(example, data) -> None:
    """The honest tree with one multiplier negated, doubled, dropped or made large, or with all of them in another order."""
    tree, least = FullTree(example), minimum(example)
    values, steps = np.array(tree.multipliers, dtype=np.float32), list(tree.steps)
    place = data.draw(st.integers(0, len(values) - 1))
    values[place] *= data.draw(st.sampled_from([-1, 0, 2, 1e6]))
    goals = _goals(example, OBJECTIVE[np.newaxis], [above(least)])
    assert not decide_goals(goals, _proof(steps, multipliers=values), "p").any()
    assert not decide_goals(goals, _proof(steps, multipliers=values[::-1].copy()), "p").any()


def test_without_splits_less_is_proved() -> None:
    """The least |x| on [-1, 2] is 0, which needs both cases; rule crown alone stays below it."""
    example, rows = size_of_x(), OBJECTIVE[np.newaxis]
    tree = FullTree(example)
    goals = _goals(example, rows, [float64_not_above(minimum(example) - tree.gap)])
    assert minimum(example) == 0
    assert decide_goals(goals, _proof(tree.steps, multipliers=np.array(tree.multipliers, np.float32)), "p").all()
    assert not decide_goals(goals, _proof([LEAF]), "p").any()
