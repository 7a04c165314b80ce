"""The kernel in integers: never above an exact value, never below the float64 kernel, with and without python-flint."""

from __future__ import annotations

import sys
import time
from fractions import Fraction

import numpy as np
import pytest

from prune_verify.checker.errors import LimitError
from prune_verify.checker.exact import Scaled
from prune_verify.checker.network import Network, Node, evaluate_exact
from prune_verify.checker.relaxation import Hints, crown_intervals, lower_bounds
from prune_verify.checker.rules import BINARY32, REAL
from tests.checker.random_networks import Builder, every_operator, mlp
from tests.checker.test_relaxation import HOSTILE, _slopes, boxes, inside


def spatial(seed: int) -> Network:
    """Grouped and dilated convolutions, Clip, Abs, ReduceSum, and Linear over another axis."""
    b = Builder(seed, 2, 4, 4)
    kernels = {"weight": b.numbers(4, 1, 2, 2), "bias": b.numbers(4)}
    conv = b.add("Conv", (0,), (4, 3, 4), kernels, strides=(1, 1), pads=(0, 1, 1, 1), dilations=(2, 2), group=(2,))
    size = b.add("Abs", (b.relu(conv),), (4, 3, 4))
    ends = {"lower": np.float32(0.25).reshape(()), "upper": np.float32(2).reshape(())}
    clipped = b.add("Clip", (size,), (4, 3, 4), ends)
    sums = b.add("ReduceSum", (clipped,), (4, 3), axes=(2,), keepdims=(0,))
    mixed = b.add("Linear", (sums,), (2, 3), {"weight": b.numbers(2, 4), "bias": b.numbers(2)}, axis=(-2,))
    output = b.linear(b.add("Reshape", (mixed,), (6,)), 3)
    return Network(tuple(b.nodes), output)


def branches(seed: int) -> Network:
    """Two branches, so that walks from one of them pass by nodes of the other."""
    b = Builder(seed, 3)
    first, other = b.relu(b.linear(0, 4)), b.relu(b.linear(0, 4))
    deep = b.relu(b.linear(first, 4))
    late = b.relu(b.linear(other, 4))
    return Network((*b.nodes, Node("Add", (deep, late), (4,))), len(b.nodes))


NETWORKS = {
    "branches": branches,
    "chain": lambda s: mlp(s, 4, 8, 8, 3),
    "every operator": every_operator,
    "spatial": spatial,
}


@pytest.mark.parametrize("arithmetic", [REAL, BINARY32])
@pytest.mark.parametrize("kind", ["crown", "in [0, 1]", "outside [0, 1]", "ends"])
@pytest.mark.parametrize("name", NETWORKS)
def test_exact_bounds_lie_between_the_kernels_and_the_values(name: str, kind: str, arithmetic: str) -> None:
    assert kind in HOSTILE
    strictly = 0
    for seed in range(3):
        network = NETWORKS[name](seed)
        for radius in (0.0, 0.2):
            lower, upper = boxes(seed, network, 2, radius)
            objectives = np.random.default_rng(seed).choice([-1.0, 0.0, 1.0, 0.1], (4, network.labels))
            rows, hints = np.array([0, 1, 1, 0]), Hints(_slopes(network, kind, 4, seed))
            found = []
            for precise in (False, True):
                intervals = crown_intervals(network, lower, upper, arithmetic, exact=precise)
                found.append(lower_bounds(network, intervals, objectives, hints, arithmetic, rows, exact=precise))
            assert (found[1] >= found[0]).all()
            strictly += int((found[1] > found[0]).sum())
            if arithmetic == REAL:
                for objective, row, bound in zip(objectives.tolist(), rows, found[1].tolist(), strict=True):
                    for logits in evaluate_exact(network, inside(seed, lower[row], upper[row], 3)):
                        assert sum(Fraction(c) * z for c, z in zip(objective, logits, strict=True)) >= Fraction(bound)
    assert strictly > 0


def test_at_a_point_the_exact_bound_is_the_value_rounded_down() -> None:
    network = mlp(1, 3, 5, 2)
    point = np.array([[0.1, -0.7, 0.3]])
    intervals = crown_intervals(network, point, point, REAL, exact=True)
    (bound,) = lower_bounds(network, intervals, np.array([[1.0, -1.0]]), Hints(), REAL, exact=True)
    ((first, second),) = evaluate_exact(network, point)
    value = first - second
    assert Fraction(float(bound)) <= value < Fraction(float(np.nextafter(bound, np.inf)))


def test_without_flint_the_answers_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("flint")
    network = every_operator(2)
    lower, upper = boxes(2, network, 2, 0.3)
    answers = []
    for missing in (False, True):
        if missing:
            monkeypatch.setitem(sys.modules, "flint", None)
        intervals = crown_intervals(network, lower, upper, BINARY32, exact=True)
        answers.append(lower_bounds(network, intervals, np.eye(3)[:2], Hints(), BINARY32, exact=True))
    np.testing.assert_array_equal(answers[0], answers[1])


@pytest.mark.parametrize("op", ["Max", "ReduceMax"])
def test_operators_without_a_rule_in_integers_are_refused(op: str) -> None:
    node = Node("Max", (0, 0), (2,)) if op == "Max" else Node(op, (0,), (1,), {"axes": (0,), "keepdims": (1,)})
    network = Network((Node("Input", (), (2,)), node), 1)
    intervals = crown_intervals(network, np.zeros((1, 2)), np.ones((1, 2)), REAL, exact=True)
    with pytest.raises(LimitError):
        lower_bounds(network, intervals, np.ones((1, network.labels)), Hints(), REAL, exact=True)


@pytest.mark.parametrize("values", [[0.0], [1.0, -2.5, 0.1], [5e-324, 1e308, -0.0], [3.0e-45]])
def test_scaled_numbers_are_the_floats(values: list[float]) -> None:
    found = Scaled.of(np.array(values))
    assert [Fraction(int(n)) * Fraction(2) ** found.exponent for n in found.integers] == [Fraction(v) for v in values]


@pytest.mark.slow
def test_a_network_of_full_size_takes_seconds(shared_data) -> None:
    """784-256-256-10, every enclosure and nine rows in integers."""
    from prune_verify.checker.load_onnx import load_network

    path = shared_data / "vnncomp" / "mnist_fc" / "mnist-net_256x2.onnx"
    network = load_network(path.read_bytes(), path.name).network
    middle = np.random.default_rng(0).random((1, *network.input_shape))
    lower, upper = np.clip(middle - 0.02, 0, 1), np.clip(middle + 0.02, 0, 1)
    start = time.monotonic()
    found = [
        lower_bounds(
            network, crown_intervals(network, lower, upper, REAL, exact=precise), np.eye(10)[:9], Hints(), REAL,
            np.zeros(9, dtype=np.int64), exact=precise,
        )
        for precise in (False, True)
    ]  # fmt: skip
    assert (found[1] >= found[0]).all()
    assert time.monotonic() - start < 60
