"""The relaxation in PyTorch: true lower bounds, the checker's own numbers for the same slopes, better ones with effort."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from prune_verify.certify.errors import CertifyInputError
from prune_verify.certify.relaxed import OneBox, Relaxed
from prune_verify.checker.interval import interval_pass
from prune_verify.checker.network import Network, Node, evaluate_all
from prune_verify.checker.relaxation import Hints, crown_intervals, lower_bounds
from prune_verify.checker.rules import REAL
from tests.checker.random_networks import Builder, every_choice, every_operator, mlp

pytestmark = pytest.mark.prover

POINTS = 300


def residual(seed: int) -> Network:
    """Two branches that meet in an Add, twice, and the input that is added once more."""
    b = Builder(seed, 6, scale=0.6)
    first = b.relu(b.linear(0, 6))
    joined = b.relu(b.add("Add", (b.linear(first, 6), first), (6,)))
    again = b.add("Add", (b.linear(joined, 6), 0), (6,))
    output = b.linear(b.add("Sub", (b.relu(again), joined), (6,)), 3)
    return Network(tuple(b.nodes), output)


def convolved(seed: int) -> Network:
    """Convolutions, normalised, pooled by means, with a sum, a concatenation, a choice of places and a constant factor."""
    b = Builder(seed, 2, 5, 5, scale=0.5)
    one = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1), "group": (1,)}
    first = b.add("Conv", (0,), (4, 5, 5), {"weight": b.numbers(4, 2, 3, 3), "bias": b.numbers(4)}, **one)
    channels = {name: b.numbers(4) for name in ("scale", "bias", "mean")}
    channels |= {"variance": np.full(4, 0.5, np.float32), "epsilon": np.full((), 1e-5, np.float32)}
    normed = b.relu(b.add("BatchNorm", (first,), (4, 5, 5), channels))
    pooled = b.add(
        "AveragePool", (normed,), (4, 2, 2), kernel=(2, 2), strides=(2, 2), pads=(0,) * 4, dilations=(1, 1),
        count_include_pad=(0,),
    )  # fmt: skip
    two = one | {"strides": (2, 2), "pads": (0, 0, 1, 1)}
    second = b.relu(b.add("Conv", (pooled,), (3, 1, 1), {"weight": b.numbers(3, 4, 3, 3)}, **two))
    flat, small = b.add("Reshape", (pooled,), (16,)), b.add("Reshape", (second,), (3,))
    joined = b.add("Concat", (flat, small), (19,), axis=(0,))
    taken = b.add("Gather", (joined,), (8,), axis=(0,), indices=(0, 18, 3, 3, -1, 7, 16, 11), index_shape=(8,))
    scaled = b.relu(b.add("Mul", (taken, b.constant(8)), (8,)))
    total = b.add("ReduceSum", (b.add("Reshape", (scaled,), (2, 4)),), (4,), axes=(0,), keepdims=(0,))
    output = b.linear(total, 3)
    return Network(tuple(b.nodes), output)


CHAINS = [mlp(seed, *widths, scale=0.7) for seed, widths in enumerate([(3, 5, 4, 2), (5, 8, 8, 3), (4, 6, 6, 6, 3)])]
GRAPHS = [residual(0), residual(1), convolved(0), convolved(1), every_operator(0), every_operator(1)]
EVERY = pytest.mark.parametrize("place", range(len(CHAINS) + len(GRAPHS)))


def _box(network: Network, seed: int, boxes: int = 3, radius: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    middle = np.random.default_rng(seed).uniform(-1, 1, (boxes, *network.input_shape))
    return middle - radius, middle + radius


def _exactly(network: Network, x: np.ndarray) -> list[np.ndarray]:
    """Every value in float64: the parameters are raised to it first."""
    nodes = tuple(
        replace(node, arrays={name: array.astype(np.float64) for name, array in node.arrays.items()})
        for node in network.nodes
    )
    return [np.asarray(value, dtype=np.float64) for value in evaluate_all(Network(nodes, network.output), x)]


def _points(low: np.ndarray, high: np.ndarray, seed: int) -> np.ndarray:
    """Corners and others: [points, *input_shape]."""
    rng = np.random.default_rng(seed)
    shares = rng.random((POINTS, *low.shape))
    shares[::2] = shares[::2].round()
    return low + shares * (high - low)


def _pair(end: np.ndarray, other: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(end), torch.tensor(other)


@EVERY
def test_what_is_enclosed_contains_every_value(place: int) -> None:
    network = (CHAINS + GRAPHS)[place]
    low, high = _box(network, place)
    with torch.no_grad():
        relaxed = Relaxed(network, torch.float64)
        found = relaxed.enclose(_pair(low, high))
    assert set(found) == set(relaxed.relus)
    assert found
    for box in range(len(low)):
        values = _exactly(network, _points(low[box], high[box], place))
        for relu, (below, above) in found.items():
            value = values[network.nodes[relu].inputs[0]]
            assert (below[box].numpy() <= value + 1e-9).all()
            assert (value <= above[box].numpy() + 1e-9).all()


@EVERY
def test_enclosures_within_others_are_no_wider(place: int) -> None:
    network = (CHAINS + GRAPHS)[place]
    low, high = _box(network, place)
    with torch.no_grad():
        relaxed = Relaxed(network, torch.float64)
        whole = relaxed.enclose(_pair(low, high))
        half = relaxed.enclose(_pair(low, (low + high) / 2), whole)
    narrower = 0
    for relu, (below, above) in half.items():
        assert (below >= whole[relu][0] - 1e-12).all()
        assert (above <= whole[relu][1] + 1e-12).all()
        narrower += int((above - below < whole[relu][1] - whole[relu][0] - 1e-9).sum())
    assert narrower > 0


@EVERY
@pytest.mark.parametrize("drawn", [False, True], ids=["crown", "random slopes"])
def test_a_walk_bounds_every_value_from_below(place: int, drawn: bool) -> None:
    network, rng = (CHAINS + GRAPHS)[place], np.random.default_rng(place)
    low, high = _box(network, place)
    rows = rng.standard_normal((len(low), *network.output_shape))
    with torch.no_grad():
        relaxed, box = Relaxed(network, torch.float64), _pair(low, high)
        before = relaxed.enclose(box)
        slopes = {relu: torch.tensor(rng.random(tuple(ends[0].shape))) for relu, ends in before.items()}
        shifts = {relu: torch.tensor(rng.standard_normal(tuple(ends[0].shape))) for relu, ends in before.items()}
        given = {"slopes": slopes, "shifts": shifts} if drawn else {}
        walked = relaxed.walk(network.output, torch.tensor(rows), box, before, **given)
    for row in range(len(low)):
        values = _exactly(network, _points(low[row], high[row], place))[network.output]
        seen = (values * rows[row]).reshape(POINTS, -1).sum(axis=1).min()
        assert float(walked.lower[row]) <= seen + 1e-9
    assert all((cost >= 0).all() for cost in walked.costs.values())


def _drawn(rng: np.random.Generator, ends: tuple[torch.Tensor, torch.Tensor]) -> np.ndarray:
    """Any slopes of unstable neurons; the sign's own where float32 sees one although float64 has an end of 1e-308."""
    low, high = (end.numpy() for end in ends)
    return np.where((low < 0) & (high > 0), rng.random(low.shape), low >= 0).astype(np.float32)


@EVERY
def test_a_walk_says_what_the_checkers_kernel_says(place: int) -> None:
    """For the same enclosures and slopes, as far as float32 goes."""
    network, rng = (CHAINS + GRAPHS)[place], np.random.default_rng(place)
    low, high = _box(network, place)
    intervals = crown_intervals(network, low, high, REAL)
    rows = rng.standard_normal((len(low), network.labels))
    for dtype, most in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        relaxed = Relaxed(network, dtype)
        sources = {relu: network.nodes[relu].inputs[0] for relu in relaxed.relus}
        before = {relu: tuple(relaxed.tensor(end) for end in intervals.box(at)) for relu, at in sources.items()}
        slopes = {relu: _drawn(rng, ends) for relu, ends in before.items()}
        for given in ({}, slopes):
            with torch.no_grad():
                walked = relaxed.walk(
                    network.output,
                    relaxed.tensor(rows).reshape(-1, *network.output_shape),
                    (relaxed.tensor(low), relaxed.tensor(high)),
                    before,
                    {relu: relaxed.tensor(values) for relu, values in given.items()} or None,
                )
            sound = lower_bounds(network, intervals, rows, Hints(given), REAL)
            assert np.abs(walked.lower.numpy() - sound).max() <= most * (1 + np.abs(sound).max())


@pytest.mark.parametrize("place", range(len(CHAINS)))
def test_enclosures_of_chains_are_the_checkers(place: int) -> None:
    network = CHAINS[place]
    low, high = _box(network, place)
    intervals = crown_intervals(network, low, high, REAL)
    with torch.no_grad():
        found = Relaxed(network, torch.float64).enclose(_pair(low, high))
    for relu, ends in found.items():
        for end, sound in zip(ends, intervals.box(network.nodes[relu].inputs[0]), strict=True):
            open_here = (ends[0] < 0) & (ends[1] > 0)  # the checker tightens those of unknown sign only
            np.testing.assert_allclose(end[open_here], sound[open_here.numpy()], atol=1e-9)


@EVERY
def test_effort_never_makes_a_bound_worse_and_often_better(place: int) -> None:
    network, rng = (CHAINS + GRAPHS)[place], np.random.default_rng(place)
    low, high = _box(network, place, radius=0.6)
    intervals, relaxed = crown_intervals(network, low, high, REAL), Relaxed(network)
    gains = []
    for row in range(2):
        box, objective = OneBox(relaxed, intervals, row), rng.standard_normal((1, network.labels))
        bounds = [box.bound(objective, [()], iterations) for iterations in (0, 4, 12)]
        lower = [float(found.lower[0]) for found in bounds]
        assert lower == sorted(lower)
        gains.append(lower[-1] - lower[0])
        for found in bounds:
            slopes = {relu: values.reshape(1, *network.nodes[relu].shape) for relu, values in found.slopes.items()}
            assert all(((values >= 0) & (values <= 1)).all() for values in slopes.values())
            (sound,) = lower_bounds(network, intervals, objective, Hints(slopes), REAL, np.array([row]))
            assert abs(float(found.lower[0]) - sound) <= 1e-4 * (1 + abs(sound))
            assert ((low[row] - 1e-6 <= found.points[0]) & (found.points[0] <= high[row] + 1e-6)).all()
    assert max(gains) > 1e-3


@EVERY
def test_a_leaf_bounds_the_points_of_its_case(place: int) -> None:
    """Random splits: the bound of a leaf holds wherever the signs are as it says."""
    network, rng = (CHAINS + GRAPHS)[place], np.random.default_rng(place)
    low, high = _box(network, place, boxes=1, radius=0.6)
    box = OneBox(Relaxed(network), crown_intervals(network, low, high, REAL))
    listed = [(relu, int(neuron)) for relu in box.relus for neuron in box.unstable(relu)]
    chosen = [listed[i] for i in rng.choice(len(listed), min(2, len(listed)), replace=False)]
    cases = [()]
    for relu, neuron in chosen:
        cases = [(*case, (relu, neuron, below)) for case in cases for below in (True, False)]
    objective = rng.standard_normal((1, network.labels))
    root = box.bound(objective, [()], 6)
    start = {relu: np.repeat(values, len(cases), axis=0) for relu, values in root.slopes.items()}
    found = box.bound(np.repeat(objective, len(cases), axis=0), cases, 6, start, fixed=True)
    values = _exactly(network, _points(low[0], high[0], place))
    seen = values[network.output].reshape(POINTS, -1) @ objective[0]
    met = 0
    for row, case in enumerate(cases):
        inside = np.ones(POINTS, dtype=bool)
        for relu, neuron, below in case:
            sign = values[network.nodes[relu].inputs[0]].reshape(POINTS, -1)[:, neuron]
            inside &= sign <= 0 if below else sign >= 0
            multiplier = found.multipliers[relu][row, neuron]
            assert multiplier >= 0 if below else multiplier <= 0
        met += int(inside.sum())
        if inside.any():
            assert found.lower[row] <= seen[inside].min() + 1e-4 * (1 + abs(seen).max())
    assert met >= POINTS
    assert all((start[relu] == found.slopes[relu]).all() for relu in start)


def test_only_neurons_of_either_sign_are_unstable() -> None:
    network = CHAINS[1]
    low, high = _box(network, 1)
    intervals = interval_pass(network, low, high, REAL)
    for row in range(len(low)):
        box = OneBox(Relaxed(network, torch.float64), intervals, row)
        for relu in box.relus:
            below, above = (end[row] for end in intervals.box(network.nodes[relu].inputs[0]))
            assert box.unstable(relu).tolist() == np.flatnonzero((below < 0) & (above > 0)).tolist()


def _dead(seed: int) -> Network:
    """A maximum that the output does not depend on, beside a ReLU that it does."""
    b = Builder(seed, 3)
    value = b.relu(b.linear(0, 4))
    b.add("Max", (value, b.constant(4)), (4,))
    output = b.linear(value, 2)
    return Network(tuple(b.nodes), output)


SQUARE = Network((Node("Input", (), (2,)), Node("Mul", (0, 0), (2,))), 1)
FIXED = Network((Node("Input", (), (2,)), Node("Constant", (), (2,), {}, {"value": np.ones(2, np.float32)})), 1)
OPERATORS = [
    ("a maximum, a clip and an absolute value", every_choice(0), "no optimised bounds for"),
    ("a product of two values", SQUARE, "no optimised bounds: "),
    ("an output that does not depend on the input", FIXED, "no optimised bounds: "),
    ("a maximum beside the way to the output", _dead(0), None),
]


@pytest.mark.parametrize(("sentence", "network", "text"), OPERATORS, ids=[row[0] for row in OPERATORS])
def test_operators(sentence: str, network: Network, text: str | None) -> None:
    if text is None:
        assert len(Relaxed(network).relus) == 1
        return
    with pytest.raises(CertifyInputError, match=f"^{text}"):
        Relaxed(network)
