"""Simplification on a region changes no value there, removes what is decided, and lets equal maxima cancel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from prune_verify.bounds.errors import UnsupportedNetworkError
from prune_verify.bounds.presolve import simplified
from prune_verify.checker.network import Network, evaluate, evaluate_exact
from tests.bounds.small_networks import Builder, mlp

pytestmark = pytest.mark.prover

BOX = np.full(4, -0.5), np.full(4, 0.5)
WIDE = np.full(3, -100.0), np.full(3, 100.0)


Build = Callable[[Builder, int], int]


def _after_base(build: Build) -> tuple[Network, int]:
    """A base 4-6-3 with nodes after it, and the number of the base's nodes; ``build`` gets the logits."""
    base = mlp(4, 6, 3)
    b = Builder(4)
    b.nodes = list(base.nodes)
    output = build(b, base.output)
    return Network(tuple(b.nodes), output), len(base.nodes)


def _everything(b: Builder, logits: int) -> int:
    """One number through every operator that a patch may use."""
    negated = b.add("Mul", (0, b.constant(-1.0)), (4,))
    both = b.add("Concat", (0, negated), (8,), axis=(0,))
    moved = b.add("Transpose", (b.add("Reshape", (both,), (2, 4)),), (4, 2), perm=(1, 0))
    above = b.relu(b.add("Sub", (moved, b.constant(np.full((4, 2), 0.1))), (4, 2)))
    total = b.add("ReduceSum", (above,), (2,), axes=(0,), keepdims=(0,))
    gate = b.relu(b.add("Sub", (b.constant(1.0), total), (2,)))
    mixed = b.linear(gate, 3)
    others = b.add("Gather", (logits,), (3, 2), axis=(0,), indices=(1, 2, 0, 2, 0, 1), index_shape=(3, 2))
    best = b.add("ReduceMax", (others,), (3,), axes=(1,), keepdims=(0,))
    size = b.add("Abs", (b.add("Add", (best, mixed), (3,)),), (3,))
    least = b.add("Min", (logits, size, mixed), (3,))
    most = b.add("Max", (least, b.constant(np.float32(-0.3))), (3,))
    return b.add("ReduceMax", (most,), (1,), axes=(0,), keepdims=(1,))


def _relus(network: Network, base_nodes: int) -> int:
    return sum(n.shape[0] for n in network.nodes[base_nodes:] if n.op == "Relu")


def test_no_value_on_the_region_changes() -> None:
    network, count = _after_base(_everything)
    found = simplified(network, count, {0: BOX, count - 1: WIDE})
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (200, 4))
    np.testing.assert_allclose(evaluate(found, x), evaluate(network, x), rtol=1e-6, atol=1e-6)
    exact = x[:5].astype(np.float32)
    for new, old in zip(evaluate_exact(found, exact), evaluate_exact(network, exact), strict=True):
        assert abs(float(new[0] - old[0])) < 1e-6


def test_equal_maxima_cancel() -> None:
    def build(b: Builder, logits: int) -> int:
        lowered = b.add("Sub", (logits, b.constant(np.zeros(3))), (3,))
        first, second = (b.add("ReduceMax", (v,), (1,), axes=(0,), keepdims=(1,)) for v in (logits, lowered))
        return b.add("Sub", (first, b.add("Add", (second, b.constant(0.25)), (1,))), (1,))

    network, count = _after_base(build)
    found = simplified(network, count, {0: BOX, count - 1: WIDE})
    assert _relus(found, count) == 0
    assert (evaluate(found, np.ones((2, 4))) == -0.25).all()


def test_intervals_decide_relus_and_only_then() -> None:
    def build(b: Builder, logits: int) -> int:
        return b.add("ReduceMax", (b.relu(logits),), (1,), axes=(0,), keepdims=(1,))

    network, count = _after_base(build)
    ordered = np.array([1.0, 3.0, -2.0]), np.array([2.0, 4.0, -1.0])
    assert _relus(simplified(network, count, {0: BOX, count - 1: ordered}), count) == 0
    touching = np.array([1.0, 3.0, -2.0]), np.array([3.1, 4.0, -1.0])
    assert _relus(simplified(network, count, {0: BOX, count - 1: touching}), count) == 1
    assert _relus(simplified(network, count, {0: BOX, count - 1: WIDE}), count) > 3


def test_an_unknown_operator_after_the_base_is_refused() -> None:
    network, count = _after_base(lambda b, logits: b.add("Clip", (logits,), (3,)))
    with pytest.raises(UnsupportedNetworkError, match="Clip"):
        simplified(network, count, {0: BOX, count - 1: WIDE})
