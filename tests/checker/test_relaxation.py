"""The relaxation kernel: no bound lies above an exact value, whatever the slopes; tolerance 0."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from prune_verify.checker import relaxation
from prune_verify.checker.errors import CheckError, MalformedInputError, ProofError, UnsupportedVersionError
from prune_verify.checker.interval import enclose, interval_pass, node_cost
from prune_verify.checker.network import Network, Node, evaluate, evaluate_all, evaluate_exact
from prune_verify.checker.relaxation import Hints, beats, crown_intervals, lower_bounds
from prune_verify.checker.relaxation_rules import carried, constants
from prune_verify.checker.rules import BINARY32, REAL
from tests.checker.random_networks import every_choice, every_operator, mlp


def boxes(seed: int, network: Network, count: int, radius: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    middle = rng.uniform(-1, 1, (count, *network.input_shape))
    reach = radius * rng.random(middle.shape)
    return middle - reach, middle + reach


def inside(seed: int, lower: np.ndarray, upper: np.ndarray, count: int = 6) -> np.ndarray:
    """Corners and other points of one box, as float64 numbers in it."""
    rng = np.random.default_rng(seed)
    corners = np.where(rng.random((count, *lower.shape)) < 0.5, lower, upper)
    points = np.clip(lower + rng.random((count, *lower.shape)) * (upper - lower), lower, upper)
    return np.concatenate([corners, points, lower[np.newaxis], upper[np.newaxis]])


HOSTILE = {
    "crown": lambda rng, shape: None,
    "in [0, 1]": lambda rng, shape: rng.random(shape).astype(np.float32),
    "outside [0, 1]": lambda rng, shape: 5 * rng.standard_normal(shape),
    "huge": lambda rng, shape: 1e12 * rng.standard_normal(shape),
    "ends": lambda rng, shape: rng.choice([-1.0, 0.0, 1.0, 2.0, 5e-324], shape),
}


def _slopes(network: Network, kind: str, bounds: int, seed: int) -> dict[int, np.ndarray]:
    rng = np.random.default_rng(seed)
    relus = [i for i, node in enumerate(network.nodes) if node.op == "Relu"]
    made = {i: HOSTILE[kind](rng, (bounds, *network.nodes[i].shape)) for i in relus}
    return {i: values for i, values in made.items() if values is not None}


def _least_gap(network: Network, seed: int, kind: str, radius: float) -> Fraction:
    """The least difference between an exact value and the bound that was proved for its box."""
    lower, upper = boxes(seed, network, 3, radius)
    rng = np.random.default_rng(seed + 1)
    objectives = rng.choice([-1.0, 0.0, 1.0, 0.1], (6, network.labels))
    rows = np.array([0, 1, 2, 2, 1, 0])
    intervals = crown_intervals(network, lower, upper, REAL)
    found = lower_bounds(network, intervals, objectives, Hints(_slopes(network, kind, 6, seed)), REAL, rows)
    gaps = []
    for objective, row, bound in zip(objectives.tolist(), rows, found.tolist(), strict=True):
        for logits in evaluate_exact(network, inside(seed, lower[row], upper[row], 3)):
            value = sum((Fraction(c) * z for c, z in zip(objective, logits, strict=True)), Fraction(0))
            gaps.append(value - Fraction(bound))
    return min(gaps)


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("seed", range(4))
def test_no_bound_is_above_an_exact_value(kind: str, seed: int) -> None:
    for network in (mlp(seed, 4, 8, 8, 3), every_operator(seed), every_choice(seed), mlp(seed, 5, 6, 2, scale=1e6)):
        for radius in (0.0, 1e-9, 0.3):
            assert _least_gap(network, seed, kind, radius) >= 0


def test_an_operator_without_a_rule_has_no_transpose() -> None:
    network = Network((Node("Input", (), (2,)), Node("Softmax", (0,), (2,))), 1)
    with pytest.raises(UnsupportedVersionError) as refusal:
        carried(network, network.nodes[1], np.ones((1, 2)), constants(network, network.nodes[1]))
    assert (refusal.value.path, refusal.value.got) == ("network", "Softmax")


def test_without_paying_for_rounding_the_same_test_finds_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaxation, "U64", 0.0)
    monkeypatch.setattr(relaxation, "node_cost", lambda *_: (0.0, 0))
    assert min(_least_gap(every_operator(seed), seed, "in [0, 1]", 0.0) for seed in range(4)) < 0


@pytest.mark.parametrize("seed", range(4))
def test_tightened_intervals_enclose_every_exact_value(seed: int) -> None:
    for network in (mlp(seed, 3, 6, 6, 6, 2), every_operator(seed), every_choice(seed)):
        lower, upper = boxes(seed, network, 2, 0.6)
        loose, tight = (f(network, lower, upper, REAL) for f in (interval_pass, crown_intervals))
        for row in range(2):
            points = np.vectorize(Fraction, otypes=[object])(inside(seed, lower[row], upper[row], 3))
            for index, values in enumerate(evaluate_all(network, points)):
                low, high = (end[index][min(row, len(end[index]) - 1)] for end in (tight.lower, tight.upper))
                assert (values >= low).all()
                assert (values <= high).all()
        assert sum(float((t - w).sum()) for t, w in zip(tight.lower, loose.lower, strict=True)) > 0
        relus = [i for i, node in enumerate(network.nodes) if node.op == "Relu"]
        assert all((tight.upper[i] <= loose.upper[i]).all() for i in relus)


def _in_any_order(network: Network, x: np.ndarray, rng: np.random.Generator, fused: bool) -> np.ndarray:
    """Float32 logits of a chain, every sum in an order of its own, with or without fused multiply-add."""
    value = x.astype(np.float32)
    for node in network.nodes[1:]:
        if node.op == "Relu":
            value = np.maximum(value, np.float32(0))
            continue
        weight, total = node.arrays["weight"], node.arrays["bias"].copy() * np.float32(rng.integers(2))
        late = node.arrays["bias"] - total
        for i in rng.permutation(weight.shape[1]):
            if fused:  # the product of two float32 is exact in float64; its sum is rounded twice
                total = (weight[:, i].astype(np.float64) * np.float64(value[i]) + total).astype(np.float32)
            else:
                total = total + weight[:, i] * value[i]
        value = total + late
    return value


def _least_float_gap(seed: int) -> Fraction:
    network = mlp(seed, 24, 24, 24, 3, scale=3.0)
    middle = np.random.default_rng(seed).uniform(-1, 1, (1, 24)).astype(np.float32).astype(np.float64)
    lower, upper = middle, middle  # a point: everything between bound and value is rounding
    objectives = np.array([[1.0, -1, 0], [-1.0, 1, 0], [0, 1, -1]])
    intervals = crown_intervals(network, lower, upper, BINARY32)
    found = lower_bounds(network, intervals, objectives, Hints(), BINARY32, np.zeros(3, dtype=np.int64))
    rng, gaps = np.random.default_rng(seed), []
    runs = [_in_any_order(network, middle[0], rng, fused) for fused in (False, True) for _ in range(6)]
    runs.append(evaluate(network, middle.astype(np.float32))[0])
    for logits in runs:
        exact = [Fraction(float(v)) for v in logits]
        for objective, bound in zip(objectives.tolist(), found.tolist(), strict=True):
            total = sum((Fraction(c) * z for c, z in zip(objective, exact, strict=True)), Fraction(0))
            gaps.append(total - Fraction(bound))
    return min(gaps)


@pytest.mark.parametrize("seed", range(6))
def test_binary32_bounds_hold_for_computed_logits_in_any_order(seed: int) -> None:
    assert _least_float_gap(seed) >= 0


def test_without_paying_for_float32_the_same_test_finds_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaxation, "node_cost", lambda n, i, known, _: node_cost(n, i, known, REAL))
    monkeypatch.setattr(relaxation, "enclose", lambda n, i, found, box, _: enclose(n, i, found, box, REAL))
    assert min(_least_float_gap(seed) for seed in range(6)) < 0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("made", [every_operator, every_choice])
def test_binary32_bounds_hold_on_boxes(made, seed: int) -> None:
    network = made(seed)
    lower, upper = boxes(seed, network, 1, 0.3)
    objectives = np.concatenate([np.eye(3), -np.eye(3)])
    intervals = crown_intervals(network, lower, upper, BINARY32)
    found = lower_bounds(network, intervals, objectives, Hints(), BINARY32, np.zeros(6, dtype=np.int64))
    points = inside(seed, lower[0], upper[0], 200).astype(np.float32)
    points = points[((points >= lower[0]) & (points <= upper[0])).reshape(len(points), -1).all(axis=1)]
    values = evaluate(network, points).astype(np.float64) @ objectives.T
    assert len(points) > 20
    assert (values >= found).all()


@pytest.mark.parametrize("seed", range(5))
def test_bounds_hold_for_every_pattern_of_activation(seed: int) -> None:
    """Brute force: on a line, a network with one hidden layer is least at an end or where a neuron switches."""
    network = mlp(seed, 1, 7, 2)
    weight, bias = (network.nodes[1].arrays[name] for name in ("weight", "bias"))
    kinks = [-Fraction(float(b)) / Fraction(float(w)) for w, b in zip(weight[:, 0], bias, strict=True)]
    points = [Fraction(-1), Fraction(1), *(k for k in kinks if -1 <= k <= 1)]
    rows = np.array(points, dtype=object).reshape(-1, 1)
    least = min(a - b for a, b in evaluate_exact(network, rows))
    lower, upper = np.array([[-1.0]]), np.array([[1.0]])
    intervals = crown_intervals(network, lower, upper, REAL)
    best = -np.inf
    for choice in product((0.0, 1.0), repeat=7):
        slopes = {2: np.array([choice])}
        bound = float(lower_bounds(network, intervals, np.array([[1.0, -1.0]]), Hints(slopes), REAL)[0])
        assert Fraction(bound) <= least
        best = max(best, bound)
    (crown,) = lower_bounds(network, intervals, np.array([[1.0, -1.0]]), Hints(), REAL)
    assert crown <= best


@pytest.mark.parametrize("seed", range(3))
def test_where_every_relu_is_stable_the_bound_is_the_minimum(seed: int) -> None:
    network = mlp(seed, 3, 6, 6, 2)
    lower, upper = boxes(seed, network, 1, 1e-6)
    intervals = crown_intervals(network, lower, upper, REAL)
    (bound,) = lower_bounds(network, intervals, np.array([[1.0, -1.0]]), Hints(), REAL)
    corners = np.array(list(product(*zip(lower[0], upper[0], strict=True))))
    least = min(a - b for a, b in evaluate_exact(network, corners))
    assert 0 <= least - Fraction(float(bound)) < Fraction(1, 10**12)


def _one(op: str, inputs: tuple[int, ...], shape: tuple[int, ...], arrays=None, **ints) -> Network:
    return Network((Node("Input", (), (2,)), Node(op, inputs, shape, ints, arrays or {})), 1)


WEIGHT = {"weight": np.eye(2, dtype=np.float32)}
GOOD = mlp(0, 2, 3, 2)
REFUSED = [
    ("a product of two values", _one("Mul", (0, 0), (2,)), {}, (UnsupportedVersionError, "network")),
    ("a slope that is NaN is rule crown", GOOD, {2: np.full((1, 3), np.nan)}, None),
    ("a slope that is infinite", GOOD, {2: np.full((1, 3), np.inf)}, (ProofError, "slopes/2")),
    ("slopes that overflow", mlp(0, 2, 3, 2, scale=1e6), {2: np.full((1, 3), 1e305)}, (ProofError, "node 1")),
    ("slopes of another shape", GOOD, {2: np.zeros((1, 4))}, (ProofError, "slopes/2")),
    ("slopes of a Linear", GOOD, {1: np.zeros((1, 3))}, (ProofError, "slopes/1")),
    ("slopes of no node", GOOD, {-1: np.zeros((1, 2))}, (ProofError, "slopes/-1")),
    ("slopes in [0, 1]", GOOD, {2: np.full((1, 3), 0.5)}, None),
]


@pytest.mark.parametrize(("sentence", "network", "slopes", "expected"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_is_refused(sentence, network, slopes, expected: tuple[type[CheckError], str] | None) -> None:
    lower, upper = np.full((1, 2), -5.0), np.full((1, 2), 5.0)
    intervals = interval_pass(network, lower, upper, REAL)
    if expected is None:
        assert np.isfinite(lower_bounds(network, intervals, np.array([[1.0, -1.0]]), Hints(slopes), REAL)).all()
        return
    with pytest.raises(expected[0]) as refusal:
        lower_bounds(network, intervals, np.array([[1.0, -1.0]]), Hints(slopes), REAL)
    assert refusal.value.path == expected[1]


def _logits(*offsets: float) -> Network:
    """Logits relu(x) + offset."""
    bias = np.array(offsets, dtype=np.float32)
    weight = np.ones((len(offsets), 1), dtype=np.float32)
    nodes = (
        Node("Input", (), (1,)),
        Node("Relu", (0,), (1,)),
        Node("Linear", (1,), (len(offsets),), {"axis": (-1,)}, {"weight": weight, "bias": bias}),
    )
    return Network(nodes, 2)


TIE = float(np.float32(2.0**-23))
BEATS = [
    ("a clear answer beats both", _logits(1, 0, -1), 0, (1, 2), REAL, True),
    ("the same in binary32", _logits(1, 0, -1), 0, (1, 2), BINARY32, True),
    ("it does not beat a better one", _logits(1, 0, -1), 1, (0,), REAL, False),
    ("one label that is not beaten is enough", _logits(1, 0, -1), 1, (2, 0), REAL, False),
    ("a tie is not beaten", _logits(1, 1), 0, (1,), REAL, False),
    ("an answer does not beat itself", _logits(1, 0), 0, (0,), REAL, False),
    ("one ulp beats in reals", _logits(1 + TIE, 1), 0, (1,), REAL, True),
    ("one ulp is lost to rounding in binary32", _logits(1 + TIE, 1), 0, (1,), BINARY32, False),
    ("no labels", _logits(1, 0), 0, (), REAL, True),
    ("an operator without a rule", _one("Mul", (0, 0), (2,)), 0, (1,), REAL, False),
    ("a value that may overflow", mlp(0, 1, 2, 2, scale=1e20), 0, (1,), BINARY32, False),
]


@pytest.mark.parametrize(("sentence", "network", "answer", "labels", "arithmetic", "expected"), BEATS)
def test_beats(sentence, network, answer, labels, arithmetic, expected) -> None:
    lower, upper = np.full((1, *network.input_shape), -1.0), np.ones((1, *network.input_shape))
    assert beats(network, lower, upper, answer, labels, arithmetic) is expected


def test_batches_give_the_bounds_of_single_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    network = every_operator(1)
    lower, upper = boxes(1, network, 5, 0.3)
    objectives, rows = np.tile(np.eye(3), (5, 1)), np.repeat(np.arange(5), 3)

    def run() -> np.ndarray:
        intervals = crown_intervals(network, lower, upper, BINARY32)
        return lower_bounds(network, intervals, objectives, Hints(), BINARY32, rows)

    at_once = run()
    monkeypatch.setattr(relaxation, "_CELLS", 1)
    np.testing.assert_allclose(run(), at_once, rtol=1e-9, atol=1e-9)
    alone = crown_intervals(network, lower[3:4], upper[3:4], BINARY32)
    single = lower_bounds(network, alone, np.eye(3), Hints(), BINARY32, np.zeros(3, dtype=np.int64))
    np.testing.assert_allclose(single, at_once[9:12], rtol=1e-9, atol=1e-9)


def test_an_empty_box_is_refused() -> None:
    with pytest.raises((ProofError, MalformedInputError)):
        crown_intervals(GOOD, np.ones((1, 2)), np.zeros((1, 2)), REAL)


def _chain(*factors: float) -> Network:
    """Maps of one number without bias, one after the other, and a node that nothing reads."""
    nodes = [Node("Input", (), (1,)), Node("Relu", (0,), (1,))]
    for place, factor in enumerate(factors):
        weight = np.array([[factor]], dtype=np.float32)
        nodes.append(Node("Linear", (place and len(nodes) - 1,), (1,), {"axis": (-1,)}, {"weight": weight}))
    return Network(tuple(nodes), len(nodes) - 1)


@pytest.mark.parametrize(
    ("network", "ends", "objective", "path"),
    [
        (_chain(2.0, -3.0), (-1.0, 1.0), 1.0, None),
        (_chain(*[1e30] * 11), (-1e-200, 1e-200), 1.0, "node 0"),  # the values are finite, their coefficient is not
        (_chain(1.0), (-1e3, 1e3), 1e306, "relaxation"),
    ],
)
def test_what_overflows_is_refused(network: Network, ends, objective: float, path: str | None) -> None:
    intervals = interval_pass(network, np.array([[ends[0]]]), np.array([[ends[1]]]), REAL)
    if path is None:
        (bound,) = lower_bounds(network, intervals, np.array([[objective]]), Hints(), REAL)
        assert -6.001 < bound <= -6
        return
    with pytest.raises(ProofError) as refusal:
        lower_bounds(network, intervals, np.array([[objective]]), Hints(), REAL)
    assert refusal.value.path == path


def test_enclosures_that_contradict_one_another_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaxation._Walk, "run", lambda self, start, objective: np.full(len(objective), 1e9))
    network = mlp(0, 3, 6, 6, 2)
    with pytest.raises(ProofError) as refusal:
        crown_intervals(network, *boxes(0, network, 1, 0.6), REAL)
    assert refusal.value.path == "node 3"


def _at(value: float) -> tuple[Network, np.ndarray]:
    return Network((Node("Input", (), (1,)),), 0), np.array([[value]])


def test_the_sum_of_the_constant_pays_in_full() -> None:
    """One term v: 2 (count + 8) 2^-53 |v| below it, count being 2, and no more than twice that."""
    for value in (3.0, -7.5, 1e200):
        network, point = _at(value)
        intervals = interval_pass(network, point, point, REAL)
        (bound,) = lower_bounds(network, intervals, np.array([[1.0]]), Hints(), REAL)
        gap = Fraction(value) - Fraction(float(bound))
        charge = 2 * 10 * Fraction(2) ** -53 * abs(Fraction(value))
        assert charge * Fraction(99, 100) <= gap <= 2 * charge


def test_two_contributions_to_one_coefficient_are_charged() -> None:
    network, box = _at(1.0)[0], (np.array([[-2.0]]), np.array([[8.0]]))
    known = relaxation._Enclosure(network, interval_pass(network, *box, REAL), REAL)
    walk = relaxation._Walk(known, np.zeros(1, dtype=np.int64))
    walk.push(0, np.array([[0.25]]))
    assert walk.total.tolist() == [0.0]
    walk.push(0, np.array([[0.5]]))
    assert walk.coefficients[0].tolist() == [[0.75]]
    assert walk.total.tolist() == [-(2 * 2.0**-53 * 0.75 * 8.0)]


def test_one_bound_that_overflows_is_enough_to_refuse() -> None:
    network = _chain(1.0)
    ends = np.array([[-1e3], [-1.0]]), np.array([[1e3], [1.0]])
    intervals = interval_pass(network, *ends, REAL)
    with pytest.raises(ProofError):
        lower_bounds(network, intervals, np.array([[1e306], [1.0]]), Hints(), REAL)


def test_slopes_of_the_node_after_the_last_are_refused() -> None:
    intervals = interval_pass(GOOD, np.full((1, 2), -1.0), np.ones((1, 2)), REAL)
    with pytest.raises(ProofError) as refusal:
        lower_bounds(GOOD, intervals, np.array([[1.0, -1.0]]), Hints({4: np.zeros((1, 2))}), REAL)
    assert refusal.value.path == "slopes/4"


def test_what_may_underflow_is_charged_once_per_walk() -> None:
    network = mlp(0, 3, 4, 2)
    known = relaxation._Enclosure(
        network, interval_pass(network, np.full((1, 3), -2.0), np.full((1, 3), 1.0), REAL), REAL
    )
    each, once = known.cost(1, np.zeros(1, dtype=np.int64))
    assert (each > 0).all()
    assert once.tolist() == [7 * 2.0**-1020 * (1.0 + 6.0)]
