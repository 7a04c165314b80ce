"""The interval pass encloses what is computed: exactly in reals, by any order of summation in float32. Tolerance 0."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prune_verify.checker.errors import LimitError, ProofError
from prune_verify.checker.interval import interval_pass, logit_spread, node_rounding, require_ieee_float64
from prune_verify.checker.network import Network, Node, evaluate_all
from prune_verify.checker.rules import BINARY32, REAL
from tests.bounds.small_networks import NETWORKS, mlp
from tests.checker.random_networks import mlp as random_mlp

BOXES = 4
POINTS = 24


def boxes(network: Network, rng: np.random.Generator, width: float) -> tuple[np.ndarray, np.ndarray]:
    middle = rng.standard_normal((BOXES, *network.input_shape)).astype(np.float32).astype(np.float64)
    reach = width * rng.random((BOXES, *network.input_shape))
    return middle - reach, middle + reach


def points(lower: np.ndarray, upper: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Corners and inner points as float32 that lie in the box."""
    chosen = np.where(rng.random(lower.shape) < 0.5, lower, upper)
    inner = lower + rng.random(lower.shape) * (upper - lower)
    x = np.where(rng.random((len(lower),) + (1,) * (lower.ndim - 1)) < 0.5, chosen, inner).astype(np.float32)
    x = np.where(x < lower, np.nextafter(x, np.float32(np.inf)), x)
    return np.where(x > upper, np.nextafter(x, np.float32(-np.inf)), x)


@pytest.mark.parametrize("name", sorted(NETWORKS))
@pytest.mark.parametrize("width", [0.0, 0.01, 1.0])
def test_every_value_computed_in_float32_is_enclosed(name: str, width: float) -> None:
    network, rng = NETWORKS[name], np.random.default_rng(3)
    lower, upper = boxes(network, rng, width)
    found = interval_pass(network, lower, upper, BINARY32)
    for _ in range(POINTS):
        for node, value in enumerate(evaluate_all(network, points(lower, upper, rng))):
            assert (found.lower[node] <= value).all(), network.nodes[node].op
            assert (value <= found.upper[node]).all(), network.nodes[node].op


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_exact_value_is_enclosed(name: str) -> None:
    network, rng = NETWORKS[name], np.random.default_rng(5)
    if any(node.op == "BatchNorm" for node in network.nodes):
        network = _rational_roots(network)
    lower, upper = boxes(network, rng, 0.25)
    found = interval_pass(network, lower, upper, REAL)
    x = points(lower, upper, rng)
    exact = np.empty(x.size, dtype=object)
    exact[:] = [Fraction(float(v)) for v in x.reshape(-1)]
    for node, value in enumerate(evaluate_all(network, exact.reshape(x.shape))):
        flat = np.broadcast_to(value, found.lower[node].shape).reshape(-1)
        for low, middle, high in zip(found.lower[node].flat, flat, found.upper[node].flat, strict=True):
            assert Fraction(low) <= middle <= Fraction(high), network.nodes[node].op


def _rational_roots(network: Network) -> Network:
    """Variances of 1 and no epsilon, so that the exact value exists."""
    nodes = []
    for node in network.nodes:
        arrays = dict(node.arrays)
        if node.op == "BatchNorm":
            arrays |= {"variance": np.ones_like(arrays["variance"]), "epsilon": np.zeros((), dtype=np.float32)}
        nodes.append(Node(node.op, node.inputs, node.shape, node.ints, arrays))
    return Network(tuple(nodes), network.output)


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 200), st.sampled_from([1e-30, 1e-3, 1.0, 1e6, 1e20]))
def test_any_order_of_a_float32_sum_is_enclosed(seed: int, terms: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    weight = (rng.standard_normal((1, terms)) * scale).astype(np.float32)
    bias = (rng.standard_normal(1) * scale).astype(np.float32)
    x = rng.standard_normal(terms).astype(np.float32)
    linear = Node("Linear", (0,), (1,), {"axis": (-1,)}, {"weight": weight, "bias": bias})
    network = Network((Node("Input", (), (terms,)), linear), 1)
    point = x.astype(np.float64)[np.newaxis]
    found = interval_pass(network, point, point, BINARY32)
    summands = [*(weight[0] * x), bias[0]]
    for _ in range(8):
        total = np.float32(0)
        for place in rng.permutation(len(summands)):
            total = np.float32(total + summands[place])
        assert found.lower[1][0, 0] <= total <= found.upper[1][0, 0]
    exact = sum(
        (Fraction(float(w)) * Fraction(float(v)) for w, v in zip(weight[0], x, strict=True)), Fraction(float(bias[0]))
    )
    real = interval_pass(network, point, point, REAL)
    assert Fraction(real.lower[1][0, 0]) <= exact <= Fraction(real.upper[1][0, 0])


def test_the_enclosure_is_tight_enough_to_be_of_use() -> None:
    network = mlp(8, 16, 3)
    point = np.full((1, 8), 0.5)
    for arithmetic, widest in ((REAL, 1e-12), (BINARY32, 1e-4)):
        low, high = interval_pass(network, point, point, arithmetic).output()
        assert (high - low).max() < widest


def test_binary32_is_wider_than_real() -> None:
    network, point = mlp(8, 16, 3), np.full((1, 8), 0.5)
    real, binary32 = (interval_pass(network, point, point, a).output() for a in (REAL, BINARY32))
    assert (binary32[0] < real[0]).all()
    assert (binary32[1] > real[1]).all()
    known = interval_pass(network, np.zeros((1, 8)), np.ones((1, 8)), BINARY32)
    assert node_rounding(network, 1, known, REAL) == 0
    assert np.min(node_rounding(network, 1, known, BINARY32)) > 0


def _one(weight: list[float], bias: float = 0.0) -> Network:
    arrays = {"weight": np.array([weight], dtype=np.float32), "bias": np.array([bias], dtype=np.float32)}
    return Network((Node("Input", (), (len(weight),)), Node("Linear", (0,), (1,), {"axis": (-1,)}, arrays)), 1)


OVERFLOWS = [
    ("the result is 2^127 or more", _one([2.0**126, 2.0**126])),
    ("partial sums overflow although the result would not", _one([2.0**126, 2.0**126, -(2.0**126), -(2.0**126)])),
    ("the bias alone overflows the sum", _one([2.0**126], 2.0**126)),
]


@pytest.mark.parametrize(("sentence", "network"), OVERFLOWS, ids=[row[0] for row in OVERFLOWS])
def test_overflow_in_float32_is_refused(sentence: str, network: Network) -> None:
    ones = np.ones((1, *network.input_shape))
    with pytest.raises(ProofError) as caught:
        interval_pass(network, ones, ones, BINARY32)
    assert "2^100" in caught.value.expected
    interval_pass(network, ones, ones, REAL)


def test_a_box_of_infinite_width_is_refused() -> None:
    with pytest.raises(ProofError):
        interval_pass(_one([1.0]), np.array([[-np.inf]]), np.array([[np.inf]]), REAL)


def test_a_box_with_exchanged_ends_is_refused() -> None:
    with pytest.raises(ProofError):
        interval_pass(_one([1.0]), np.array([[1.0]]), np.array([[0.0]]), REAL)


def test_nan_is_refused() -> None:
    with pytest.raises(ProofError):
        interval_pass(_one([1.0]), np.array([[np.nan]]), np.array([[np.nan]]), REAL)


def test_the_spread_of_chosen_labels() -> None:
    arrays = {"weight": np.zeros((3, 1), dtype=np.float32), "bias": np.array([1, 5, 100], dtype=np.float32)}
    network = Network((Node("Input", (), (1,)), Node("Linear", (0,), (3,), {"axis": (-1,)}, arrays)), 1)
    found = interval_pass(network, np.zeros((1, 1)), np.ones((1, 1)), REAL)
    assert 4.0 <= logit_spread(network, found, (0, 1)) < 4.0001
    assert 99.0 <= logit_spread(network, found, (0, 1, 2)) < 99.0001


def test_flushed_subnormals_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    require_ieee_float64()
    real_array = np.array
    monkeypatch.setattr(
        np, "array", lambda values, *rest, **more: real_array([0.0 if v < 2.0**-1022 else v for v in values])
    )
    with pytest.raises(LimitError):
        require_ieee_float64()


def test_an_input_beyond_float32_is_refused_in_binary32_only() -> None:
    network = Network((Node("Input", (), (1,)), Node("Relu", (0,), (1,))), 1)
    high = np.array([[2.0**127]])
    assert interval_pass(network, -high, high, REAL).upper[1].tolist() == [[2.0**127]]
    for lower, upper in ((-high, high * 0), (high * 0, high)):
        with pytest.raises(ProofError) as refusal:
            interval_pass(network, lower, upper, BINARY32)
        assert (refusal.value.path, refusal.value.expected) == ("node 0 (Input)", "below 2^127")


def test_a_sum_of_more_than_two_to_the_twenty_terms_is_refused_in_binary32() -> None:
    count = 2**20
    weight = {"weight": np.zeros((1, count), np.float32)}
    network = Network((Node("Input", (), (count,)), Node("Linear", (0,), (1,), {"axis": (-1,)}, weight)), 1)
    box = np.zeros((1, count))
    with pytest.raises(LimitError) as refusal:
        interval_pass(network, box, box, BINARY32)
    assert (refusal.value.path, refusal.value.rule) == ("network", "terms of one sum")


def test_enclosures_of_another_network_give_no_spread() -> None:
    small, large = (random_mlp(0, 3, 4, labels) for labels in (2, 3))
    found = interval_pass(small, np.zeros((1, 3)), np.ones((1, 3)), REAL)
    with pytest.raises(ProofError) as refusal:
        logit_spread(large, found, (0, 1))
    assert (refusal.value.path, refusal.value.expected, refusal.value.got) == ("intervals", "3", "2")
