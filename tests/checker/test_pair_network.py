"""Two networks as one: what they share is one node, where a claim allows it, and every value stays."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from prune_verify.checker.bounded_claims import decide_bounded, goals_of, pair_network
from prune_verify.checker.claim import Claim, LabelledRows, Problem
from prune_verify.checker.network import Network, Node, evaluate, evaluate_exact
from prune_verify.checker.proof import Proof, emit
from prune_verify.checker.region import Domain
from prune_verify.checker.rules import BINARY32, REAL
from tests.checker.random_networks import Builder, every_choice, every_operator, mlp

DOMAIN = Domain((Fraction(0),), (Fraction(1),))
X = np.random.default_rng(1).uniform(0.1, 0.9, (8, 4)).astype(np.float32)


def changed(network: Network, place: int, scale: float = 0.001) -> Network:
    """The same network with the numbers of one node moved."""
    nodes, rng = list(network.nodes), np.random.default_rng(place)
    arrays = {
        name: (array + scale * rng.standard_normal(array.shape)).astype(np.float32)
        for name, array in nodes[place].arrays.items()
    }
    nodes[place] = replace(nodes[place], arrays=arrays)
    return Network(tuple(nodes), network.output)


def residual(seed: int) -> Network:
    """A chain with an edge around each hidden layer, and one hidden layer twice."""
    b = Builder(seed, 4)
    value = b.relu(b.linear(0, 5))
    for _ in range(2):
        value = b.add("Add", (value, b.relu(b.linear(value, 5))), (5,))
    b.nodes.append(replace(b.nodes[1]))
    value = b.add("Sub", (value, b.relu(len(b.nodes) - 1)), (5,))
    output = b.linear(value, 3)
    return Network(tuple(b.nodes), output)


NETWORKS = [mlp(3, 4, 6, 6, 3), residual(0), residual(1), every_operator(2), every_choice(1)]


@pytest.mark.parametrize("network", NETWORKS, ids=["chain", "residual 0", "residual 1", "operators", "choices"])
def test_every_value_stays_whatever_is_changed(network: Network) -> None:
    """Bit for bit in float32, for the base as its own patched network and with each node changed in turn."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((20, *network.input_shape)).astype(np.float32)
    places = [i for i, node in enumerate(network.nodes) if node.arrays and node.op != "BatchNorm"]
    for patched in [network, *(changed(network, place) for place in places)]:
        both = np.concatenate([evaluate(network, rows), evaluate(patched, rows)], axis=1)
        for shared in (False, True):
            pair = pair_network(network, patched, shared=shared)
            np.testing.assert_array_equal(evaluate(pair, rows), both)
        assert len(pair.nodes) <= len(network.nodes) + len(patched.nodes) + 2
        assert all(max(node.inputs, default=-1) < index for index, node in enumerate(pair.nodes))


def test_the_trunk_of_a_fine_tuned_last_layer_is_one() -> None:
    base = mlp(0, 4, 6, 6, 3)
    patched = changed(base, base.output)
    assert len(pair_network(base, patched, shared=True).nodes) == len(base.nodes) + 1 + 3
    assert len(pair_network(base, patched).nodes) == 2 * len(base.nodes) - 1 + 3
    first = changed(base, 1)
    assert len(pair_network(base, first, shared=True).nodes) == 2 * len(base.nodes) - 1 + 3


def test_a_node_of_the_base_stands_for_one_node_only() -> None:
    """Two copies of a product may round differently: their difference is not 0 in binary32, and stays two nodes."""
    base = mlp(0, 4, 3)
    twice = (*base.nodes, base.nodes[1], Node("Sub", (1, 2), (3,)))
    pair = pair_network(base, Network(twice, 3), shared=True)
    assert [node.inputs for node in pair.nodes if node.op == "Sub"] == [(1, 2)]
    assert [node.op for node in pair.nodes].count("Linear") == 2
    again = pair_network(Network(twice, 3), Network(twice, 3), shared=True)
    assert [node.op for node in again.nodes].count("Linear") == 2
    assert [node.inputs for node in again.nodes if node.op == "Sub"] == [(1, 2)]


def test_nodes_that_differ_in_a_bit_are_two() -> None:
    base = mlp(0, 4, 3)
    zero = replace(base.nodes[1], arrays={"weight": base.nodes[1].arrays["weight"], "bias": np.zeros(3, np.float32)})
    minus = replace(zero, arrays={**zero.arrays, "bias": -np.zeros(3, np.float32)})
    pair = pair_network(Network((base.nodes[0], zero), 1), Network((base.nodes[0], minus), 1), shared=True)
    assert [node.op for node in pair.nodes].count("Linear") == 2


def _problem(base: Network, patched: Network) -> Problem:
    rows = LabelledRows(X, evaluate(base, X).argmax(axis=1))
    return Problem(base, patched, None, DOMAIN, forget=rows, retain=rows)


def _proved(problem: Problem, claim: Claim) -> int:
    goals = goals_of(problem, claim)
    proof = emit(Proof(claim.kind, claim.arithmetic, "relaxation", goals.network.digest(), goals.records))
    return decide_bounded(problem, claim, proof, "p").proved


def test_a_delta_over_the_reals_is_that_of_the_changed_layer() -> None:
    """With the trunk shared the difference of the last layers is bounded, not the sum of what both may do."""
    base = mlp(0, 4, 16, 16, 3)
    problem = _problem(base, changed(base, base.output))
    moved = np.abs(evaluate(problem.patched, X) - evaluate(base, X)).max()
    delta = Fraction(3 * float(moved)).limit_denominator(10**6)
    claim = Claim("retain_close", REAL, "relaxation", radius=Fraction("0.05"), delta=delta)
    assert _proved(problem, claim) == len(X)
    assert _proved(problem, replace(claim, arithmetic=BINARY32)) == len(X)  # unshared, by rule difference
    tight = replace(claim, delta=Fraction(float(moved)) / 2)
    assert _proved(problem, tight) < len(X)


def test_what_each_claim_shares() -> None:
    base = mlp(0, 4, 6, 3)
    problem = _problem(base, changed(base, base.output))
    shared, apart = (pair_network(base, problem.patched, shared=s).digest() for s in (True, False))
    for kind, arithmetic, expected in (
        ("retain_label", REAL, shared),
        ("retain_label", BINARY32, shared),
        ("retain_close", REAL, shared),
        ("retain_close", BINARY32, apart),
    ):
        claim = Claim(kind, arithmetic, "relaxation", radius=Fraction("0.01"), delta=Fraction(1))
        assert goals_of(problem, claim).network.digest() == expected


def test_logits_over_the_rationals_are_those_of_both() -> None:
    base = residual(2)
    patched = changed(base, base.output, 0.1)
    rows = X[:2]
    both = [one + two for one, two in zip(evaluate_exact(base, rows), evaluate_exact(patched, rows), strict=True)]
    assert evaluate_exact(pair_network(base, patched, shared=True), rows) == both
