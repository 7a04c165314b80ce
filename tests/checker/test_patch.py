"""Building a patched network: the patch has to fit the base, and the networks that come out are what they are for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from prune_verify.checker.errors import MalformedInputError
from prune_verify.checker.network import Network, Node, evaluate
from prune_verify.checker.patch import Gate, Interval, JointPatch, LearnedPatch, Patch, ShiftPatch
from prune_verify.checker.rebuild import build, difference_network
from tests.checker.random_networks import mlp

F32 = np.float32
BASE = mlp(1, 4, 6, 3)
GATE = Gate(0, F32(64), (Interval(3, F32(0.25), F32(0.5)),), (0,))
BOX = JointPatch(3, (), F32(0.5), F32(100), F32(400), (GATE,))
CAP = JointPatch(3, (2,), F32(0.5), F32(0), F32(0), ())


def _learned(*shapes: tuple[int, int], labels: int = 3) -> LearnedPatch:
    rng = np.random.default_rng(0)
    return LearnedPatch(
        labels, tuple((rng.standard_normal(s).astype(F32), rng.standard_normal(s[0]).astype(F32)) for s in shapes)
    )


ROWS = [
    ("another number of labels", replace(BOX, labels=4), "patch.json/labels"),
    ("a learned patch of another number of labels", _learned((4, 4), labels=4), "patch.json/labels"),
    ("a coordinate beyond the input", replace(BOX, gates=(replace(GATE, intervals=(Interval(4, F32(0), None),)),)), "patch.json/gates"),
    ("a layer of another width", _learned((5, 3), (3, 5)), "patch.json/layers/0"),
    ("a second layer of another width", _learned((5, 4), (3, 4)), "patch.json/layers/1"),
    ("an output too few", _learned((5, 4), (2, 5)), "patch.json/layers"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "patch", "path"), ROWS, ids=[row[0] for row in ROWS])
def test_what_does_not_fit_is_refused(sentence: str, patch: Patch, path: str) -> None:
    with pytest.raises(MalformedInputError) as refusal:
        build(BASE, patch)
    assert refusal.value.path == path


@pytest.mark.parametrize("patch", [BOX, CAP, _learned((5, 4), (3, 5))], ids=["box", "class cap", "learned"])
def test_a_base_of_another_output_shape_keeps_it(patch: Patch) -> None:
    """The logits as [1, 3]: the patched network has the same shape, and the same numbers as for a base with [3]."""
    nodes = (*BASE.nodes, Node("Reshape", (BASE.output,), (1, 3)))
    shaped = Network(nodes, len(nodes) - 1)
    x = np.random.default_rng(0).uniform(0, 1, (20, 4)).astype(F32)
    found = build(shaped, patch)
    assert found.output_shape == (1, 3)
    assert np.array_equal(evaluate(found, x), evaluate(build(BASE, patch), x))


X = np.random.default_rng(3).uniform(0, 1, (50, 4)).astype(F32)


def test_a_class_cap_lowers_by_tau_and_a_little_of_the_rivals() -> None:
    """N'_c = min(z_c, m - (tau + 2^-20 |m|)), the rounding of four float32 operations aside."""
    z = evaluate(BASE, X).astype(np.float64)
    often = int(np.bincount(z.argmax(axis=1)).argmax())
    found = evaluate(build(BASE, replace(CAP, forgotten_classes=(often,))), X).astype(np.float64)
    others = [j for j in range(3) if j != often]
    best = z[:, others].max(axis=1)
    expected = np.minimum(z[:, often], best - (0.5 + 2.0**-20 * np.abs(best)))
    assert (found[:, others] == z[:, others]).all()
    np.testing.assert_allclose(found[:, often], expected, rtol=0, atol=1e-6)
    assert (expected < z[:, often]).sum() > 10


def test_a_learned_patch_adds_its_chain_to_the_logits() -> None:
    """A ReLU between layers and none before the first: inputs below 0 count."""
    patch = _learned((5, 4), (3, 5))
    (first, bias), (second, last) = patch.layers
    x = X - F32(0.5)
    added = np.maximum(x @ first.T + bias, 0) @ second.T + last
    alone = evaluate(difference_network(BASE, patch), x)
    np.testing.assert_allclose(alone, added, atol=1e-5)
    np.testing.assert_allclose(evaluate(build(BASE, patch), x), evaluate(BASE, x) + added, atol=1e-5)


@pytest.mark.parametrize("sites", [("relu-0",), ("input", "relu-0"), ("relu-0", "input"), ("relu-1", "relu-0")])
def test_a_shift_patch_adds_what_its_difference_network_says(sites: tuple[str, ...]) -> None:
    base = mlp(1, 4, 6, 5, 3)
    reach = (range(4), range(5, 9))
    gates = tuple(Gate(0, F32(0.125), tuple(Interval(j, None, F32(0.125)) for j in one), (0,)) for one in reach)
    patch = ShiftPatch(
        3, gates if len(sites) > 1 else gates[:1], sites, np.array([[1, -2, 0], [0, 4, 8]], F32)[: len(sites)]
    )
    alone = evaluate(difference_network(base, patch), X)
    np.testing.assert_allclose(evaluate(build(base, patch), X), evaluate(base, X) + alone, atol=1e-5)
    assert len(np.unique(alone, axis=0)) > 5
