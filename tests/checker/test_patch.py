"""Building a patched network: the patch has to fit the base, and the networks that come out are what they are for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from prune_verify.checker.errors import MalformedInputError
from prune_verify.checker.network import Network, Node, evaluate
from prune_verify.checker.patch import Gate, Interval, JointPatch, LearnedPatch, Patch
from prune_verify.checker.rebuild import build
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
