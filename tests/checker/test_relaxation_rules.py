"""The rules one by one: which L each chooses, that m is never above the exact minimum, and that rounding is charged in full."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from prune_verify.checker.interval import U64
from prune_verify.checker.network import Network, Node
from prune_verify.checker.relaxation_rules import _candidates, _least, largest, piecewise, relu


def _row(*values: float) -> np.ndarray:
    return np.array([values])


LEAN = 1 + 2.0**-10


@pytest.mark.parametrize(
    ("low", "high", "slope"),
    [(-1, 2, 1), (-2, 1, 0), (-1, 1, 0), (-1, LEAN, 0), (-1, np.nextafter(LEAN, 2), 1), (-1, 1.0005, 0), (-3, 3.1, 1), (-4, 1, 0)],
)  # fmt: skip
def test_rule_crown(low: float, high: float, slope: float) -> None:
    box = _row(low), _row(high)
    for given in (None, _row(np.nan)):
        line, least = relu(_row(3.0), box, given, None)
        assert line.tolist() == [[3 * slope]]
        assert least.tolist() == [[min(0.0, 3 * (1 - slope) * high, -3 * slope * low)]]
    assert relu(_row(-3.0), box, None, None)[0].tolist() == [[-3.0 * (high / (high - low))]]
    assert relu(_row(3.0), box, _row(0.25), None)[0].tolist() == [[0.75]]
    assert relu(_row(3.0), box, _row(0.25), _row(5.0))[0].tolist() == [[5.75]]


@pytest.mark.parametrize(("low", "high", "expected"), [(0, 2, 3.0), (1, 2, 3.0), (-2, -1, 0.0), (-2, 0, 0.0)])
def test_stable_neurons(low: float, high: float, expected: float) -> None:
    line, least = relu(_row(3.0), (_row(low), _row(high)), _row(0.5), None)
    assert (line.tolist(), least.tolist()) == ([[expected]], [[0.0]])
    line, least = relu(_row(3.0), (_row(low), _row(high)), None, _row(1.0))
    exact = min((3 * max(x, 0) - (expected + 1) * x) for x in (low, high))
    assert (line.tolist(), least.tolist()) == ([[expected + 1]], [[exact]])


def _choice(op: str, count: int) -> tuple[Network, Node]:
    node = Node(op, tuple(range(count)), (1,))
    return Network((*[Node("Input", (), (1,))] * count, node), count), node


MAX = [
    ("of two, crossing", [(0, 2), (-1, 1)], -1.0, [-0.75, -0.25], -0.75),
    ("of two, the other way round", [(-1, 1), (0, 2)], -1.0, [-0.25, -0.75], -0.75),
    ("of three, crossing", [(0, 2), (-1, 1), (-1, 0.5)], -1.0, [-0.5, 0, 0], -1.0),
    ("of three, below the greatest upper end", [(0, 0.5), (-1, 1), (-1, 0.5)], -2.0, [0, 0, 0], -2.0),
    ("dominated", [(1, 2), (-1, 1), (-1, 0.5)], -2.0, [-2, 0, 0], 0.0),
    ("a positive coefficient", [(0, 2), (-1, 1)], 3.0, [3, 0], 0.0),
    ("no coefficient", [(0, 2), (-1, 1)], 0.0, [0, 0], 0.0),
]


@pytest.mark.parametrize(("sentence", "ends", "coefficient", "lines", "least"), MAX, ids=[row[0] for row in MAX])
def test_max_and_min(sentence: str, ends: list, coefficient: float, lines: list, least: float) -> None:
    boxes = [(_row(low), _row(high)) for low, high in ends]
    network, node = _choice("Max", len(ends))
    found, paid = largest(network, node, _row(coefficient), boxes)
    assert [float(part[0, 0]) for part in found] == lines
    assert least - 1e-12 <= paid[0, 0] <= least
    network, node = _choice("Min", len(ends))
    mirrored = [(-high, -low) for low, high in boxes]
    found, paid = largest(network, node, _row(-coefficient), mirrored)
    assert [float(part[0, 0]) for part in found] == [-line for line in lines]
    assert least - 1e-12 <= paid[0, 0] <= least


@pytest.mark.parametrize("seed", range(30))
def test_the_least_of_a_max_pays_for_its_rounding(seed: int) -> None:
    """For any L: the exact minimum over the box less half of the charge is never passed."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 7))
    low = rng.standard_normal((1, 1, count)) * 10.0 ** rng.integers(-3, 4, count)
    high = low + rng.random((1, 1, count))
    line, coefficient = -rng.random((1, 1, count)), -rng.random((1, 1))

    def exact(array: np.ndarray) -> list[Fraction]:
        return [Fraction(float(v)) for v in array.reshape(-1)]

    a, (slopes, below, above) = Fraction(float(coefficient[0, 0])), map(exact, (line, low, high))
    others = [min(-s * p, -s * q) for s, p, q in zip(slopes, below, above, strict=True)]
    mine = [min((a - s) * p, (a - s) * q) for s, p, q in zip(slopes, below, above, strict=True)]
    minimum = min(sum(others) - other + one for other, one in zip(others, mine, strict=True))
    corners = product(*zip(below, above, strict=True))
    assert all(a * max(x) - sum(s * v for s, v in zip(slopes, x, strict=True)) >= minimum for x in corners)
    size = sum(abs(other) for other in others) + max(abs(one) for one in mine)
    charge = 8 * (count + 4) * Fraction(U64) * size
    assert (
        minimum - charge * 3 / 2 <= Fraction(float(_least(coefficient, line, low, high)[0, 0])) <= minimum - charge / 2
    )


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("op", ["Abs", "Clip"])
def test_abs_and_clip_pay_for_their_rounding(op: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ends = {"lower": np.float32(-0.5).reshape(()), "upper": np.float32(0.25).reshape(())} if op == "Clip" else {}
    node = Node(op, (0,), (1,), {}, ends)
    low = rng.standard_normal((1, 1))
    high = low + rng.random((1, 1)) * 3
    coefficient = rng.standard_normal((1, 1))
    line, least = piecewise(node, coefficient, (low, high))
    a, slope, p, q = (Fraction(float(v[0, 0])) for v in (coefficient, line, low, high))

    def value(x: Fraction) -> Fraction:
        return abs(x) if op == "Abs" else min(max(x, Fraction(-1, 2)), Fraction(1, 4))

    points = [p, q] + [x for x in (Fraction(0), Fraction(-1, 2), Fraction(1, 4)) if p < x < q]
    worst = min(points, key=lambda x: a * value(x) - slope * x)
    minimum = a * value(worst) - slope * worst
    charge = 8 * Fraction(U64) * (abs(a * value(worst)) + abs(slope * worst))
    assert Fraction(float(least[0, 0])) <= minimum - charge / 2
    assert float(minimum) - float(least[0, 0]) < 1e-12


PADDED = {"kernel": (2,), "strides": (1,), "pads": (1, 1), "dilations": (1,)}


@pytest.mark.parametrize(
    ("low", "high"),
    [((-0.25, -0.25), (-0.2, -0.2)), ((-100.0, -100.0), (0.0, 0.0)), ((0.0, -50.0), (100.0, 0.0)), ((-1e-3, -2e-3), (1e-3, 2e-3))],
)  # fmt: skip
@pytest.mark.parametrize("coefficient", [1.0, -1.0])
def test_padding_is_never_the_largest(low: tuple, high: tuple, coefficient: float) -> None:
    """Windows at the border hold one number and padding: the maximum is that number."""
    node = Node("MaxPool", (0,), (1, 3), PADDED)
    network = Network((Node("Input", (), (1, 2)), node), 1)
    box = np.array([[low]]), np.array([[high]])
    for place, source in ((0, 0), (2, 1)):
        one = np.zeros((1, 1, 3))
        one[0, 0, place] = coefficient
        (part,), least = largest(network, node, one, [box])
        expected = [0.0, 0.0]
        expected[source] = coefficient
        assert part.reshape(-1).tolist() == expected
        assert abs(least).max() == 0


def test_candidates_of_fewer_axes_are_broadcast_row_by_row() -> None:
    node = Node("Max", (0, 1), (2, 2))
    wide, narrow = np.arange(8.0).reshape(2, 2, 2), np.array([[10.0, 20.0], [30.0, 40.0]])
    low, _ = _candidates(node, [(wide, wide), (narrow, narrow)])
    assert low[..., 1].tolist() == [[[10, 20], [10, 20]], [[30, 40], [30, 40]]]
    assert low[..., 0].tolist() == wide.tolist()
