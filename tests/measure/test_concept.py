"""Shares before and after a patch, on a base whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from prune_verify.checker.network import Network, Node
from prune_verify.checker.patch import LearnedPatch
from prune_verify.checker.rebuild import build
from prune_verify.measure.concept import ConceptShares, concept_shares

F32 = np.float32
# The base answers the larger coordinate; the patch lowers label 0 by 10 where x_0 > 2.
BASE = Network((Node("Input", (), (2,)), Node("Reshape", (0,), (2,))), 1)
PATCH = LearnedPatch(
    2,
    (
        (np.array([[1.0, 0.0]], dtype=F32), np.array([-2.0], dtype=F32)),
        (np.array([[-10.0], [0.0]], dtype=F32), np.zeros(2, dtype=F32)),
    ),
)


def rows(*values: tuple[float, float]) -> np.ndarray:
    return np.array(values, dtype=F32)


def test_each_share_is_of_its_own_set_and_network() -> None:
    members = rows((3, 1), (4, 1), (1.5, 1), (0, 1)), np.array([0, 0, 0, 0])
    others = rows((0, 1), (1, 2), (3, 4), (1, 0), (2, 0)), np.array([1, 1, 1, 1, 0])
    found = concept_shares(BASE, build(BASE, PATCH), members, others)
    assert found == ConceptShares(4, 0.75, 0.25, 5, 0.8, 0.8)


@pytest.mark.parametrize("empty", [0, 1])
def test_an_empty_set_is_refused(empty: int) -> None:
    sets = [(rows((3, 1)), np.array([0])), (rows((0, 1)), np.array([1]))]
    sets[empty] = np.zeros((0, 2), dtype=F32), np.zeros(0, dtype=np.int64)
    with pytest.raises(ValueError, match="expected members and others"):
        concept_shares(BASE, BASE, *sets)
