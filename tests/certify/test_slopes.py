"""Hints for the relaxation kernel: the competitor and slopes of forget claims, both directions of retained ones."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from prune_verify.certify.slopes import difference_network, forget_hints, retain_hints
from prune_verify.checker.network import Network, Node, evaluate
from prune_verify.checker.patch import LearnedPatch, build
from prune_verify.checker.region import Domain

pytestmark = pytest.mark.prover

DOMAIN = Domain((Fraction(0),), (Fraction(1),))
RADIUS = Fraction("0.05")
RNG = np.random.default_rng(11)


def _layer(fan_in: int, fan_out: int) -> tuple[np.ndarray, np.ndarray]:
    return RNG.standard_normal((fan_out, fan_in)).astype(np.float32), RNG.standard_normal(fan_out).astype(np.float32)


LAYERS = (_layer(6, 8), _layer(8, 4))
PATCH = LearnedPatch(4, (_layer(6, 5), _layer(5, 4)))
X = RNG.random((7, 6), dtype=np.float32)


def _base() -> Network:
    (w1, b1), (w2, b2) = LAYERS
    nodes = (
        Node("Input", (), (6,)),
        Node("Linear", (0,), (8,), {"axis": (-1,)}, {"weight": w1, "bias": b1}),
        Node("Relu", (1,), (8,)),
        Node("Linear", (2,), (4,), {"axis": (-1,)}, {"weight": w2, "bias": b2}),
    )
    return Network(nodes, 3)


def test_the_difference_network_is_the_difference() -> None:
    base = _base()
    exact = evaluate(build(base, PATCH), X) - evaluate(base, X)
    np.testing.assert_allclose(evaluate(difference_network(PATCH, (6,)), X), exact, atol=1e-5)
    shaped = difference_network(PATCH, (2, 3))
    np.testing.assert_array_equal(evaluate(shaped, X.reshape(-1, 2, 3)), evaluate(difference_network(PATCH, (6,)), X))


def test_forget_hints_name_the_best_competitor_with_a_bound_that_holds() -> None:
    patched = build(_base(), PATCH)
    y = evaluate(patched, X).argmin(axis=1)
    hints = forget_hints(patched, X, y, RADIUS, DOMAIN)
    assert [h.record for h in hints] == list(range(len(X)))
    for hint, row, label in zip(hints, X, y.tolist(), strict=True):
        assert hint.competitor != label
        assert hint.objective.tolist() == [float(j == hint.competitor) - float(j == label) for j in range(4)]
        samples = np.clip(row + RNG.uniform(-0.05, 0.05, (500, 6)), 0, 1).astype(np.float32)
        assert (evaluate(patched, samples) @ hint.objective).min() >= hint.lower - 1e-4
        assert sorted(hint.slopes) == [i for i, n in enumerate(patched.nodes) if n.op == "Relu"]
        for node, slopes in hint.slopes.items():
            assert slopes.shape == patched.nodes[node].shape
            assert ((slopes >= 0) & (slopes <= 1)).all()
    assert max(h.lower for h in hints) > 0


def test_retain_hints_bound_every_output_from_both_sides() -> None:
    difference = difference_network(PATCH, (6,))
    hints = retain_hints(difference, X, RADIUS, DOMAIN)
    assert len(hints) == len(X)
    for place, row in enumerate(X):
        samples = np.clip(row + RNG.uniform(-0.05, 0.05, (500, 6)), 0, 1).astype(np.float32)
        values = evaluate(difference, samples)
        bounds = np.array([h.lower for h in hints[place]])
        assert (-values.max(axis=0) >= bounds[:4] - 1e-4).all()
        assert (values.min(axis=0) >= bounds[4:] - 1e-4).all()
        assert [h.record for h in hints[place]] == [place] * 8
        assert all(h.competitor is None for h in hints[place])
        objectives = np.stack([h.objective for h in hints[place]])
        np.testing.assert_array_equal(objectives, np.concatenate([-np.eye(4), np.eye(4)]))
