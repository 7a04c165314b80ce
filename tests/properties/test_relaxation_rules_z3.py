"""z3 refutes the negation of every rule by which bounds are made and goals are decided, over the reals, on small shapes.

Each row states what the checker establishes before it uses the rule, and what it concludes: ``unsat`` for the negated
conclusion means that the rule holds. Every rule also has rows in which one side condition is dropped, and there z3
has to find a counterexample: the conditions are needed.

The linear transposes run the checker's own code on symbols. The formulas of the other rules are written down here, and
the last tests compare them, in rationals, with what ``relaxation_rules.py`` computes.

Source: certs/SPEC.md sections 4.9 and 5.2 to 5.4.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_verify.checker.interval import U64
from prune_verify.checker.network import Network, Node, apply_node
from prune_verify.checker.relaxation_rules import carried, constants, largest, offset, piecewise, relu
from tests.checker.random_networks import Builder

z3 = pytest.importorskip("z3")
pytestmark = pytest.mark.prover

HOLDS, FAILS = "unsat", "sat"
ULP, TINY = z3.Q(1, 2**24), z3.Q(1, 2**100)  # TINY: the unit of flushing, t in SPEC 5.1


def either(condition, one, other):
    """A choice between numbers, of z3 or of Python."""
    return (one if condition else other) if isinstance(condition, bool) else z3.If(condition, one, other)


def least(*values):
    found = values[0]
    for value in values[1:]:
        found = either(value < found, value, found)
    return found


def most(*values):
    return -least(*(-value for value in values))


def size(value):
    return either(value < 0, -value, value)


def refute(conditions, conclusion) -> str:
    solver = z3.Solver()
    solver.set("timeout", 60_000)
    solver.add(*conditions, z3.Not(conclusion))
    return str(solver.check())


def symbols(name: str, count: int):
    return [z3.Real(f"{name}{i}") for i in range(count)]


# --- the formulas: what the constant gains, given any L ---


def relu_least(a, line, low, high, *, breakpoint_paid=True):
    """Rule relu: the least of A max(x, 0) - L x at the ends, and at 0 where it lies between."""
    ends = least(*(a * most(x, 0) - line * x for x in (low, high)))
    if not breakpoint_paid:
        return ends
    crosses = low < 0 < high if isinstance(low, Fraction) else z3.And(low < 0, high > 0)
    return either(crosses, least(ends, 0), ends)


def piecewise_least(a, line, f, low, high, breaks):
    """Rules clip and abs: the least of A f(x) - L x at the ends and at the breakpoints moved into the enclosure."""
    points = [low, high, *(least(most(point, low), high) for point in breaks)]
    return least(*(a * f(x) - line * x for x in points))


def max_least(a, lines, low, high, first=None):
    """Rule max for any L: the least over who is largest, part by part; ``first``: over the first candidates only."""
    apart = [least(-c * lo, -c * hi) for c, lo, hi in zip(lines, low, high, strict=True)]
    chosen = [least((a - c) * lo, (a - c) * hi) for c, lo, hi in zip(lines, low, high, strict=True)]
    places = range(len(lines) if first is None else first)
    return least(*(chosen[i] + sum(apart[j] for j in range(len(lines)) if j != i) for i in places))


# --- one input with breakpoints ---

X, A, L, LOW, HIGH, AT, C, D = z3.Reals("x A L low high at c d")
INSIDE = [LOW <= X, X <= HIGH]


def clipped(x):
    return least(most(x, C), D)


ONE_INPUT = [
    ("relu, any L", INSIDE, most(X, 0), relu_least(A, L, LOW, HIGH), HOLDS),
    ("relu whose value leaves the enclosure above", [LOW <= X], most(X, 0), relu_least(A, L, LOW, HIGH), FAILS),
    ("relu whose value leaves the enclosure below", [X <= HIGH], most(X, 0), relu_least(A, L, LOW, HIGH), FAILS),
    ("relu without the breakpoint", INSIDE, most(X, 0), relu_least(A, L, LOW, HIGH, breakpoint_paid=False), FAILS),
    ("relu in the case <= 0", [*INSIDE, X <= 0], most(X, 0), relu_least(A, L, LOW, least(HIGH, 0)), HOLDS),
    ("relu in the case >= 0", [*INSIDE, X >= 0], most(X, 0), relu_least(A, L, most(LOW, 0), HIGH), HOLDS),
    ("relu, the case <= 0 used outside of it", INSIDE, most(X, 0), relu_least(A, L, LOW, least(HIGH, 0)), FAILS),
    ("relu, the case >= 0 used outside of it", INSIDE, most(X, 0), relu_least(A, L, most(LOW, 0), HIGH), FAILS),
    ("relu, cut above", [*INSIDE, X <= AT], most(X, 0), relu_least(A, L, LOW, least(HIGH, AT)), HOLDS),
    ("relu, cut above, but used below", [*INSIDE, X >= AT], most(X, 0), relu_least(A, L, LOW, least(HIGH, AT)), FAILS),
    ("abs, any L", INSIDE, size(X), piecewise_least(A, L, size, LOW, HIGH, [0]), HOLDS),
    ("abs without the breakpoint", INSIDE, size(X), piecewise_least(A, L, size, LOW, HIGH, []), FAILS),
    ("abs outside the enclosure", [LOW <= X], size(X), piecewise_least(A, L, size, LOW, HIGH, [0]), FAILS),
    ("clip, any L", INSIDE, clipped(X), piecewise_least(A, L, clipped, LOW, HIGH, [C, D]), HOLDS),
    ("clip without its lower end", INSIDE, clipped(X), piecewise_least(A, L, clipped, LOW, HIGH, [D]), FAILS),
    ("clip without its upper end", INSIDE, clipped(X), piecewise_least(A, L, clipped, LOW, HIGH, [C]), FAILS),
    ("clip outside the enclosure", [X <= HIGH], clipped(X), piecewise_least(A, L, clipped, LOW, HIGH, [C, D]), FAILS),
]  # fmt: skip


@pytest.mark.parametrize(
    ("sentence", "conditions", "value", "paid", "expected"), ONE_INPUT, ids=[row[0] for row in ONE_INPUT]
)
def test_nodes_of_one_input(sentence, conditions, value, paid, expected) -> None:
    """A f(x) >= L x + m, L being any number."""
    assert refute(conditions, A * value >= L * X + paid) == expected


# --- the largest of several ---


class Choice:
    """Candidates within enclosures, and any coefficients."""

    def __init__(self, count: int) -> None:
        self.x, self.low, self.high, self.lines = (symbols(name, count) for name in ("x", "low", "high", "L"))
        bounds = zip(self.low, self.x, self.high, strict=True)
        self.inside = [z3.And(lo <= x, x <= hi) for lo, x, hi in bounds]
        self.walked = sum(c * x for c, x in zip(self.lines, self.x, strict=True))
        self.negated = [-h for h in self.high], [-lo for lo in self.low]


@pytest.mark.parametrize(
    ("sentence", "dropped", "expected"),
    [
        ("the difference of two ReLUs lies between min(d, 0) and max(d, 0)", (), HOLDS),
        ("without an enclosure of d", ("d",), FAILS),
        ("without the sign of A", ("sign",), FAILS),
    ],
)
def test_the_difference_of_two_relus(sentence, dropped, expected) -> None:
    a, line, x, y, low, high = z3.Reals("a line x y low high")
    d = x - y
    conditions = [low <= high] if "d" in dropped else [low <= d, d <= high]
    below = [] if "sign" in dropped else [a >= 0]

    def chord(end):
        return a * least(end, 0) - line * end

    middle = either(low < 0, either(high > 0, chord(z3.RealVal(0)), chord(high)), chord(low))
    paid = least(chord(low), chord(high), middle)
    conclusion = a * (most(x, 0) - most(y, 0)) >= line * d + paid
    assert refute([*conditions, *below], conclusion) == expected
    if expected == HOLDS:  # and for A < 0 with max(d, 0)

        def steep(end):
            return a * most(end, 0) - line * end

        middle = either(low < 0, either(high > 0, steep(z3.RealVal(0)), steep(high)), steep(low))
        other = a * (most(x, 0) - most(y, 0)) >= line * d + least(steep(low), steep(high), middle)
        assert refute([*conditions, a < 0], other) == HOLDS


@pytest.mark.parametrize("count", [2, 3, 4])
def test_max_and_min_at_one_place(count) -> None:
    """A >= 0: max(x) >= x_k, whatever k. A <= 0: the same of min. Neither holds for the other sign."""
    c = Choice(count)
    for k in range(count):
        assert refute([A >= 0], A * most(*c.x) >= A * c.x[k]) == HOLDS
        assert refute([], A * most(*c.x) >= A * c.x[k]) == FAILS
        assert refute([A <= 0], A * least(*c.x) >= A * c.x[k]) == HOLDS
        assert refute([], A * least(*c.x) >= A * c.x[k]) == FAILS


@pytest.mark.parametrize("count", [2, 3, 4])
def test_max_and_min_where_no_other_candidate_reaches(count) -> None:
    """low_k >= the greatest high of the others: max(x) is x_k, for any A."""
    c = Choice(count)
    others = most(*c.high[1:])
    assert refute([*c.inside, c.low[0] >= others], A * most(*c.x) == A * c.x[0]) == HOLDS
    assert refute([*c.inside, c.high[0] >= others], A * most(*c.x) == A * c.x[0]) == FAILS
    assert refute([*c.inside, c.high[0] <= least(*c.low[1:])], A * least(*c.x) == A * c.x[0]) == HOLDS
    assert refute([*c.inside, c.low[0] <= least(*c.low[1:])], A * least(*c.x) == A * c.x[0]) == FAILS


@pytest.mark.parametrize("chosen", [0, 1])
def test_max_of_two_for_any_coefficients(chosen) -> None:
    """The checker's m for A < 0. It holds for A >= 0 as well, where the checker takes the better m = 0."""
    c = Choice(2)
    largest_here = [c.x[chosen] >= x for x in c.x]
    for sign in (A < 0, A >= 0):
        paid = max_least(A, c.lines, c.low, c.high)
        assert refute([sign, *c.inside, *largest_here], A * c.x[chosen] >= c.walked + paid) == HOLDS


@pytest.mark.parametrize("count", [2, 3, 4, 6])
def test_max_for_any_coefficients_in_two_steps(count) -> None:
    """The same for more candidates, the products named: each part pays for its own product (first step); then, whichever
    is largest, the least over who is largest of the sums of parts is enough (second step)."""
    part = least(A * LOW, A * HIGH)
    assert refute(INSIDE, part <= A * X) == HOLDS
    assert refute(INSIDE[:1], part <= A * X) == FAILS
    reached, lines = symbols("Ax", count), symbols("Lx", count)
    chosen, apart = symbols("chosen", count), symbols("apart", count)
    first = [c <= a - line for c, a, line in zip(chosen, reached, lines, strict=True)]
    second = [p <= -line for p, line in zip(apart, lines, strict=True)]
    sums = [chosen[i] + sum(apart[j] for j in range(count) if j != i) for i in range(count)]
    for k in range(count):
        assert refute([*first, *second], reached[k] >= sum(lines) + least(*sums)) == HOLDS
        assert refute([*first, *second], reached[k] >= sum(lines) + least(*sums[:k], *sums[k + 1 :])) == FAILS
        assert refute([*first, *second[1:]], reached[count - 1] >= sum(lines) + least(*sums)) == FAILS


@pytest.mark.parametrize("count", [2, 3])
def test_max_without_a_side_condition_has_a_counterexample(count) -> None:
    c = Choice(count)
    value = A * most(*c.x)
    paid = max_least(A, c.lines, c.low, c.high)
    short = max_least(A, c.lines, c.low, c.high, count - 1)
    assert refute([A == -1, *c.inside], value >= c.walked + short) == FAILS
    assert refute([A == -1, *c.inside[1:]], value >= c.walked + paid) == FAILS


def test_min_is_max_of_the_negated() -> None:
    """Rule min: A min(x) >= -L' x + m, L' and m those of max for -A over the negated enclosures."""
    c = Choice(2)
    paid = max_least(-A, c.lines, *c.negated)
    assert refute(c.inside, A * least(*c.x) >= -c.walked + paid) == HOLDS
    assert refute(c.inside, A * least(*c.x) >= c.walked + paid) == FAILS
    assert refute(c.inside, A * least(*c.x) >= -c.walked + max_least(-A, c.lines, c.low, c.high)) == FAILS


# --- linear nodes: the checker's own code on symbols ---


def _dyadic(node: Node) -> Node:
    """The same node with constants that are small multiples of 1/8, so that float64 adds and multiplies exactly."""
    arrays = {name: (np.round(array * 8) / 8).astype(np.float32) for name, array in node.arrays.items()}
    return Node(node.op, node.inputs, node.shape, node.ints, arrays)


def _linear(axis: int) -> Builder:
    b = Builder(1, 2, 3)
    shape, n = ((2, 2), 3) if axis == -1 else ((2, 3), 2)
    arrays = {"weight": b.numbers(2, n), "bias": b.numbers(2), "alpha": np.float32(-1.5), "beta": np.float32(0.25)}
    b.add("Linear", (0,), shape, arrays, axis=(axis,))
    return b


def _convolution() -> Builder:
    b = Builder(2, 2, 5)
    places = {"strides": (2,), "pads": (1, 2), "dilations": (2,), "group": (2,)}
    b.add("Conv", (0,), (2, 2), {"weight": b.numbers(2, 1, 3), "bias": b.numbers(2)}, **places)
    return b


def _normal() -> Builder:
    b = Builder(3, 2, 2)
    arrays = {name: b.numbers(2) for name in ("scale", "bias", "mean")}
    arrays |= {"variance": np.full(2, 3.75, np.float32), "epsilon": np.float32(0.25)}
    b.add("BatchNorm", (0,), (2, 2), arrays)
    return b


def _pool() -> Builder:
    b = Builder(4, 1, 4)
    b.add("AveragePool", (0,), (1, 3), kernel=(2,), strides=(2,), pads=(1, 1), count_include_pad=(1,))
    return b


def _one(op: str, shape: tuple[int, ...], out: tuple[int, ...], **ints) -> Builder:
    b = Builder(5, *shape)
    b.add(op, (0,), out, **ints)
    return b


def _two(op: str, second: tuple[int, ...], out: tuple[int, ...], **ints) -> Builder:
    b = Builder(6, 2, 2)
    b.add(op, (0, b.constant(*second)), out, **ints)
    return b


LINEAR = [
    ("Linear over the last axis, alpha and beta", _linear(-1)),
    ("Linear over another axis", _linear(-2)),
    ("Conv with groups, strides, pads and dilations", _convolution()),
    ("BatchNorm", _normal()),
    ("AveragePool over its padding", _pool()),
    ("ReduceSum", _one("ReduceSum", (2, 2), (2,), axes=(0,), keepdims=(0,))),
    ("Reshape", _one("Reshape", (2, 2), (4,))),
    ("Transpose", _one("Transpose", (2, 1, 2), (2, 2, 1), perm=(2, 0, 1))),
    ("Gather that takes an element twice", _one("Gather", (3,), (4,), axis=(0,), indices=(2, 0, 2, -1), index_shape=(4,))),
    ("Concat", _two("Concat", (1, 2), (3, 2), axis=(0,))),
    ("Add that broadcasts", _two("Add", (2,), (2, 2))),
    ("Sub that broadcasts", _two("Sub", (1, 1), (2, 2))),
    ("Mul by a constant that broadcasts", _two("Mul", (2, 1), (2, 2))),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "made"), LINEAR, ids=[row[0] for row in LINEAR])
def test_linear_transposes(sentence, made) -> None:
    """sum A f(x) = sum over the inputs of (A carried back) x + sum A b, for every A and x; not with A b left out, and not
    with one coefficient turned round."""
    nodes = [_dyadic(node) for node in made.nodes]
    network, node = Network(tuple(nodes), len(nodes) - 1), nodes[-1]
    constant = [place for place, i in enumerate(node.inputs) if nodes[i].op == "Constant" and node.op == "Mul"]
    values = [
        nodes[i].arrays["value"].astype(np.float64).astype(object)
        if place in constant
        else np.array(symbols(f"x{place}_", int(np.prod(nodes[i].shape))), dtype=object).reshape(nodes[i].shape)
        for place, i in enumerate(node.inputs)
    ]
    coefficient = np.array(symbols("A", int(np.prod(node.shape))), dtype=object).reshape(1, *node.shape)
    reached = (coefficient * apply_node(node, [value[np.newaxis] for value in values])).sum()
    parts = carried(network, node, coefficient, constants(network, node))
    shift = offset(network, node)
    paid = 0 if shift is None else (coefficient * np.broadcast_to(shift, node.shape)).sum()
    walked = [(part[0] * value).sum() for part, value in zip(parts, values, strict=True)]
    assert refute([], reached == sum(walked) + paid) == HOLDS
    assert refute([], reached == sum(walked[:-1]) - walked[-1] + paid) == (FAILS if node.op != "Mul" else HOLDS)
    assert refute([], reached == -walked[0] + sum(walked[1:]) + paid) == (FAILS if 0 not in constant else HOLDS)
    if shift is not None:
        assert refute([], reached == sum(walked)) == FAILS


# --- goals ---


@pytest.mark.parametrize("count", [1, 2, 4])
def test_combination(count) -> None:
    """Factors from 0, not all 0: a bound of the sum that reaches the sum of the leasts gives one atom that holds."""
    values, leasts, factors = symbols("v", count), symbols("t", count), symbols("f", count)
    sums = [sum(f * v for f, v in zip(factors, row, strict=True)) for row in (values, leasts)]
    not_negative, some = [f >= 0 for f in factors], z3.Or([f > 0 for f in factors])
    one = z3.Or([v >= t for v, t in zip(values, leasts, strict=True)])
    strictly = z3.Or([v > t for v, t in zip(values, leasts, strict=True)])
    assert refute([*not_negative, some, sums[0] >= sums[1]], one) == HOLDS
    assert refute([*not_negative, some, sums[0] > sums[1]], strictly) == HOLDS
    assert refute([*not_negative, sums[0] >= sums[1]], one) == FAILS
    assert refute([z3.Or([f != 0 for f in factors]), *not_negative[1:], sums[0] >= sums[1]], one) == FAILS
    assert refute([*not_negative, some, sums[0] >= sums[1]], strictly) == FAILS


@pytest.mark.parametrize("count", [1, 2, 3])
def test_cases_cover(count) -> None:
    """A goal holds if it holds in every leaf; with one leaf left out, or its cut moved, it does not follow."""
    values, cuts, goal = symbols("p", count), symbols("c", count), z3.Real("goal")
    leaves = [[]]
    for p, c in zip(values, cuts, strict=True):
        leaves = [[*leaf, side] for leaf in leaves for side in (p <= c, p >= c)]
    proved = [z3.Implies(z3.And(leaf), goal >= 0) for leaf in leaves]
    assert refute(proved, goal >= 0) == HOLDS
    for place in range(len(proved)):
        assert refute([*proved[:place], *proved[place + 1 :]], goal >= 0) == FAILS
    moved = z3.Implies(z3.And([*leaves[0][:-1], values[-1] <= cuts[-1] - 1]), goal >= 0)
    assert refute([moved, *proved[1:]], goal >= 0) == FAILS


def test_a_case_without_values_is_none() -> None:
    """An enclosure cut to low > high holds no value; low = high may hold one."""
    nothing = z3.BoolVal(val=False)
    assert refute([*INSIDE, X <= AT, most(LOW, LOW) > least(HIGH, AT)], nothing) == HOLDS
    assert refute([*INSIDE, X >= AT, most(LOW, AT) > HIGH], nothing) == HOLDS
    assert refute([*INSIDE, X <= AT, least(HIGH, AT) <= LOW], nothing) == FAILS
    assert refute([*INSIDE, most(LOW, AT) > HIGH], nothing) == FAILS


def test_enclosures_of_one_value_may_be_intersected() -> None:
    inside = z3.And(most(LOW, C) <= X, least(HIGH, D) >= X)
    assert refute([*INSIDE, C <= X, X <= D], inside) == HOLDS
    assert refute([*INSIDE, C <= X], inside) == FAILS


# --- the claims that are made of goals ---


@pytest.mark.parametrize("count", [2, 3, 4])
def test_band_follows_from_its_clauses(count) -> None:
    """For each j: N_y - N_j >= a; and some j has N_j - N_y >= -b. So a <= N_y - max of the others <= b."""
    y, others = z3.Real("y"), symbols("n", count - 1)
    a, b = z3.Reals("a b")
    each = [y - n >= a for n in others]
    some = z3.Or([n - y >= -b for n in others])
    band = z3.And(a <= y - most(*others), y - most(*others) <= b)
    assert refute([*each, some], band) == HOLDS
    assert refute([band], z3.And(*each, some)) == HOLDS
    assert refute(each, band) == FAILS
    assert refute([*each[1:], some], band) == FAILS


def test_retain_close_leaves_room_for_the_last_sum() -> None:
    """|p| <= delta - u (max|z| + delta) - 3 t gives |fl(z + p) - z| <= delta, if z is the same in both networks and the
    sum z + p is rounded once, by u |z + p| + 3 t."""
    z, p, rounded, delta, reach = z3.Reals("z p rounded delta reach")
    rounding = size(rounded - (z + p)) <= ULP * size(z + p) + 3 * TINY
    close = size(rounded - z) <= delta
    known = [size(z) <= reach, rounding]

    def below(most_allowed):
        return [-p >= -most_allowed, p >= -most_allowed]

    assert refute([*known, *below(delta - ULP * (reach + delta) - 3 * TINY)], close) == HOLDS
    assert refute([*known, *below(delta - ULP * (reach + delta))], close) == FAILS
    assert refute([*known, *below(delta - ULP * delta - 3 * TINY)], close) == FAILS
    assert refute([rounding, *below(delta - ULP * (reach + delta) - 3 * TINY)], close) == FAILS
    assert refute([*known, below(delta - ULP * (reach + delta) - 3 * TINY)[0]], close) == FAILS
    assert refute(below(delta), size((z + p) - z) <= delta) == HOLDS
    assert refute(below(delta)[:1], size((z + p) - z) <= delta) == FAILS


# --- minimality ---


class Cover:
    """Which coordinates separate which records, the coordinates that a box has, and weights."""

    def __init__(self, records: int, coordinates: int, cover: int) -> None:
        bit = [symbols(f"a{i}_", coordinates) for i in range(records)]
        self.taken, self.weights = symbols("s", coordinates), symbols("w", records)
        self.bits = [z3.Or(v == 0, v == 1) for v in (*self.taken, *(v for row in bit for v in row))]
        self.covered = [sum(z3.If(s == 1, v, 0) for v, s in zip(row, self.taken, strict=True)) >= cover for row in bit]
        self.not_negative = [w >= 0 for w in self.weights]
        loads = [
            sum(z3.If(row[j] == 1, w, 0) for row, w in zip(bit, self.weights, strict=True)) for j in range(coordinates)
        ]
        over = sum(most(0, load - 1) for load in loads)
        self.conclusion = sum(self.taken) >= cover * sum(self.weights) - over
        self.unpaid = sum(self.taken) >= cover * sum(self.weights)


@pytest.mark.parametrize(("records", "coordinates", "cover"), [(1, 2, 1), (2, 3, 1), (3, 2, 1), (2, 3, 2), (3, 3, 2)])
def test_weak_duality_of_minimality(records, coordinates, cover) -> None:
    c = Cover(records, coordinates, cover)
    assert refute([*c.bits, *c.not_negative, *c.covered], c.conclusion) == HOLDS
    without_sign = refute([*c.bits, *c.not_negative[1:], *c.covered], c.conclusion)
    assert without_sign == (FAILS if records > 2 else HOLDS)  # it takes three records to gain from a weight below 0
    assert refute([*c.bits, *c.not_negative, *c.covered[1:]], c.conclusion) == FAILS  # a record nothing can separate
    assert refute([*c.bits, *c.not_negative, *c.covered], c.unpaid) == FAILS


def test_a_coordinate_separates_only_what_is_disjoint() -> None:
    """A box that holds the hull of the forget balls: its interval misses a retained ball only if the hull does."""
    x, rho, bottom, top, low, high = z3.Reals("x rho bottom top low high")
    misses = [rho >= 0, bottom <= top, z3.Or(x - rho > high, x + rho < low)]
    counted = z3.Or(x - rho > top, x + rho < bottom)
    assert refute([*misses, low <= bottom, high >= top], counted) == HOLDS
    assert refute([*misses, low <= bottom], counted) == FAILS
    assert refute([*misses, high >= top], counted) == FAILS
    assert refute([*misses, low <= bottom, high >= top], z3.And(counted, x - rho > top)) == FAILS


# --- the formulas above are those of the code ---

NUMBERS = st.sampled_from([0.0, 1.0, -1.0, 0.5, -3.0, 1e-3, 7.25, -1e6, 0.1]) | st.floats(-4, 4, width=32)
ENCLOSURES = st.tuples(NUMBERS, NUMBERS).map(sorted)


def _exact(value) -> Fraction:
    return Fraction(float(value))


def _box(ends) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.array(ends, dtype=np.float64).T
    return low[np.newaxis], high[np.newaxis]


def _scale(*values) -> Fraction:
    return sum((abs(v) for v in values), Fraction(0)) * Fraction(U64)


@given(NUMBERS, ENCLOSURES, st.none() | NUMBERS, st.none() | NUMBERS)
def test_the_code_pays_what_the_rule_relu_asks(a, ends, slope, shift) -> None:
    """m is the formula's, with four roundings, for the L that is returned."""
    low, high = ends
    given_numbers = [None if v is None else np.array([[v]]) for v in (slope, shift)]
    line, paid = relu(np.array([[a]]), _box([ends]), *given_numbers)
    exact = [_exact(v) for v in (a, line[0, 0], low, high)]
    formula = relu_least(*exact)
    reach = max(abs(exact[2]), abs(exact[3]))
    assert abs(_exact(paid[0, 0]) - formula) <= 4 * Fraction(U64) * (abs(exact[0]) + abs(exact[1])) * reach
    if low >= 0 and shift is None:
        assert line[0, 0] == a
    if slope is not None and shift is None and low < 0 < high and a >= 0:
        assert line[0, 0] == a * slope


CLIPS = st.tuples(NUMBERS, NUMBERS).map(sorted)


@given(NUMBERS, ENCLOSURES, st.none() | CLIPS)
def test_the_code_pays_what_clip_and_abs_ask(a, ends, clip) -> None:
    """m is never above the formula's, and below it by the declared charge only."""
    breaks = [Fraction(0)] if clip is None else [_exact(np.float32(v)) for v in clip]
    arrays = (
        {} if clip is None else {n: np.float32(v).reshape(()) for n, v in zip(("lower", "upper"), clip, strict=True)}
    )
    node = Node("Abs" if clip is None else "Clip", (0,), (1,), {}, arrays)
    line, paid = piecewise(node, np.array([[a]]), _box([ends]))
    low, high = (_exact(v) for v in ends)

    def f(x: Fraction) -> Fraction:
        return abs(x) if clip is None else min(max(x, breaks[0]), breaks[-1])

    exact_a, exact_line = _exact(a), _exact(line[0, 0])
    formula = piecewise_least(exact_a, exact_line, f, low, high, breaks)
    reach = max(abs(low), abs(high), *(abs(b) for b in breaks))
    assert formula - 20 * _scale(exact_a * reach, exact_line * reach) <= _exact(paid[0, 0]) <= formula


@given(NUMBERS, st.lists(ENCLOSURES, min_size=2, max_size=4), st.sampled_from(["Max", "Min"]))
def test_the_code_pays_what_max_and_min_ask(a, ends, op) -> None:
    """m is 0 with all of A at one candidate where the rule for that applies, and never above the formula's elsewhere."""
    b = Builder(0, 1)
    node = b.nodes[b.add(op, (0,) * len(ends), (1,))]
    network = Network(tuple(b.nodes), 1)
    lines, paid = largest(network, node, np.array([[a]]), [_box([one]) for one in ends])
    sign = 1 if op == "Max" else -1
    exact_a, exact_lines = sign * _exact(a), [sign * _exact(part[0, 0]) for part in lines]
    boxes = [sorted((sign * _exact(lo), sign * _exact(hi))) for lo, hi in ends]
    low, high = zip(*boxes, strict=True)
    found, reach = _exact(paid[0, 0]), max(abs(v) for box in boxes for v in box)
    k = max(range(len(low)), key=lambda i: low[i])
    reached = max(high[i] for i in range(len(high)) if i != k) > low[k]
    if exact_a >= 0 or not reached:
        assert (found, exact_lines) == (0, [exact_a if i == k else 0 for i in range(len(low))])
    else:
        formula = max_least(exact_a, exact_lines, low, high)
        charge = 40 * (len(low) + 4) * _scale(exact_a * reach, *(line * reach for line in exact_lines))
        assert formula - charge <= found <= formula


def test_retain_close_leaves_room_for_a_sum_that_begins_with_the_patch() -> None:
    """N and N' round the last product each in their own way: |N - e| <= lost and |N' - (e + p)| <= more, e the exact value."""
    exact, p, one, other, delta, lost, more = z3.Reals("exact p one other delta lost more")
    known = [size(one - exact) <= lost, size(other - (exact + p)) <= more, lost >= 0, more >= 0]
    close = size(other - one) <= delta
    assert refute([*known, size(p) <= delta - lost - more], close) == HOLDS
    assert refute([*known, size(p) <= delta - more], close) == FAILS
    assert refute([*known, size(p) <= delta - lost], close) == FAILS
