"""Rule difference: two networks side by side, the difference of their ReLUs bounded by the difference of their inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prune_verify.checker.bounded_claims import decide_bounded, goals_of, pair_network
from prune_verify.checker.claim import Claim, LabelledRows, Problem
from prune_verify.checker.errors import LimitError
from prune_verify.checker.interval import BINARY32
from prune_verify.checker.network import Network, evaluate, evaluate_exact
from prune_verify.checker.proof import Proof, emit
from prune_verify.checker.region import Domain
from prune_verify.checker.relaxation import Hints, crown_intervals, lower_bounds
from prune_verify.checker.relaxation_rules import difference
from prune_verify.checker.rules import REAL
from tests.checker.random_networks import mlp

NUMBERS = st.integers(-8, 8).map(lambda n: n / 2)


def _box(one: float, other: float) -> tuple[np.ndarray, np.ndarray]:
    return np.array([[min(one, other)]]), np.array([[max(one, other)]])


def _relu(x: Fraction) -> Fraction:
    return max(x, Fraction(0))


@given(a=NUMBERS, x=st.tuples(NUMBERS, NUMBERS), y=st.tuples(NUMBERS, NUMBERS), d=st.tuples(NUMBERS, NUMBERS))
@settings(max_examples=400, deadline=None)
def test_the_code_pays_what_the_rule_asks(a: float, x: tuple, y: tuple, d: tuple) -> None:
    """At every point of a grid that the enclosures allow, in rationals."""
    apart, one, other = _box(*d), _box(*x), _box(*y)
    line, least = (Fraction(float(v[0, 0])) for v in difference(np.array([[a]]), apart, one, other))
    for i in range(int(2 * one[0][0, 0]), int(2 * one[1][0, 0]) + 1):
        for j in range(int(2 * other[0][0, 0]), int(2 * other[1][0, 0]) + 1):
            first, second = Fraction(i, 2), Fraction(j, 2)
            if Fraction(float(apart[0][0, 0])) <= first - second <= Fraction(float(apart[1][0, 0])):
                room = Fraction(1, 10**12)  # L and m have a few roundings of their own, which the kernel pays
                assert Fraction(a) * (_relu(first) - _relu(second)) + room >= line * (first - second) + least


# (sentence, A, enclosure of d, of x', of x, (L, m))
ROWS = [
    ("both active: the difference itself", 3.0, (-1, 2), (0, 4), (1, 5), (3.0, 0.0)),
    ("both idle: nothing", 3.0, (-1, 2), (-4, 0), (-5, -1), (0.0, 0.0)),
    ("A >= 0, of either sign: the chord of min(d, 0)", 2.0, (-1, 3), (-4, 4), (-4, 4), (0.5, -1.5)),
    ("A < 0, of either sign: the chord of max(d, 0)", -2.0, (-1, 3), (-4, 4), (-4, 4), (-1.5, -1.5)),
    ("A >= 0, d never above 0: the difference", 2.0, (-3, -1), (-4, 4), (-4, 4), (2.0, 0.0)),
    ("A >= 0, d never below 0: nothing", 2.0, (1, 3), (-4, 4), (-4, 4), (0.0, 0.0)),
    ("A < 0, d never below 0: the difference", -2.0, (1, 3), (-4, 4), (-4, 4), (-2.0, 0.0)),
    ("A < 0, d never above 0: nothing", -2.0, (-3, -1), (-4, 4), (-4, 4), (0.0, 0.0)),
    ("x' active, x open: not settled", 2.0, (-1, 3), (0, 4), (-4, 4), (0.5, -1.5)),
    ("x' open, x idle: not settled", -2.0, (-1, 3), (-4, 4), (-4, 0), (-1.5, -1.5)),
]


@pytest.mark.parametrize(("sentence", "a", "apart", "one", "other", "expected"), ROWS, ids=[r[0] for r in ROWS])
def test_rows(sentence, a, apart, one, other, expected) -> None:
    line, least = difference(np.array([[a]]), _box(*apart), _box(*one), _box(*other))
    assert float(line[0, 0]) == expected[0]
    assert float(least[0, 0]) == pytest.approx(expected[1], rel=1e-12, abs=1e-12)


# --- the kernel with it ---


def _changed(network: Network, seed: int, share: float) -> Network:
    """The network with every weight moved a little."""
    rng = np.random.default_rng(seed)
    nodes = [
        replace(
            node,
            arrays={
                name: (a + share * np.abs(a).mean() * rng.standard_normal(a.shape)).astype(np.float32)
                for name, a in node.arrays.items()
            },
        )
        if node.op == "Linear"
        else node
        for node in network.nodes
    ]
    return Network(tuple(nodes), network.output)


def _rows(labels: int) -> np.ndarray:
    moved = np.concatenate([-np.eye(labels), np.eye(labels)], axis=1)
    return np.concatenate([moved, -moved])


def _in_order(pair: Network, first: int) -> dict[int, int]:
    relus = [i for i, node in enumerate(pair.nodes) if node.op == "Relu"]
    return dict(zip([i for i in relus if i >= first], [i for i in relus if i < first], strict=True))


def _reversed(pair: Network, first: int) -> dict[int, int]:
    """A hostile pairing: layers that have nothing to do with one another, where their shapes agree."""
    found = _in_order(pair, first)
    return dict(zip(found, reversed(found.values()), strict=True))


@pytest.mark.parametrize("pairing", [_in_order, _reversed])
@pytest.mark.parametrize("arithmetic", [REAL, BINARY32])
@pytest.mark.parametrize("seed", range(6))
def test_no_execution_goes_below_the_bound(pairing: Callable, arithmetic: str, seed: int) -> None:
    base = mlp(seed, 3, 8, 8, 3)
    patched = _changed(base, seed, (0.001, 0.05, 1.0)[seed % 3])
    pair, rng = pair_network(base, patched), np.random.default_rng(seed)
    x, radius = rng.uniform(-1, 1, (1, 3)), (0.05, 0.5)[seed % 2]
    partners = pairing(pair, len(base.nodes))
    known = crown_intervals(pair, x - radius, x + radius, arithmetic, partners=partners)
    found = lower_bounds(pair, known, _rows(3), Hints(), arithmetic, np.zeros(6, dtype=np.int64))
    points = rng.uniform(x - radius, x + radius, (400, 3)).astype(np.float32)
    for relu, (partner, (low, high)) in known.apart.items():
        assert partner == partners[relu]
        assert (low <= high).all()
    if arithmetic == REAL:
        for point in points[:20]:
            logits = [value for n in (base, patched) for value in evaluate_exact(n, point[np.newaxis])[0]]
            for row, bound in zip(_rows(3).tolist(), found.tolist(), strict=True):
                assert sum(Fraction(c) * z for c, z in zip(row, logits, strict=True)) >= Fraction(bound)
    both = np.concatenate([evaluate(n, points).astype(np.float64) for n in (base, patched)], axis=1)
    room = 1e-4 if arithmetic == REAL else 0.0
    assert (both @ _rows(3).T >= found - room).all()


def test_the_difference_of_inputs_lies_in_its_enclosure() -> None:
    from prune_verify.checker.network import evaluate_all

    base = mlp(3, 4, 10, 10, 3)
    patched = _changed(base, 1, 0.1)
    pair, rng = pair_network(base, patched), np.random.default_rng(0)
    x = rng.uniform(-1, 1, (1, 4))
    known = crown_intervals(pair, x - 0.3, x + 0.3, REAL, partners=_in_order(pair, len(base.nodes)))
    values = evaluate_all(pair, rng.uniform(x - 0.3, x + 0.3, (2000, 4)))
    for relu, (partner, (low, high)) in known.apart.items():
        apart = values[pair.nodes[relu].inputs[0]] - values[pair.nodes[partner].inputs[0]]
        assert ((low - 1e-9 <= apart) & (apart <= high + 1e-9)).all()
    assert len(known.apart) == 2


def test_it_is_never_worse_and_much_better_where_weights_moved_little() -> None:
    base = mlp(1, 6, 20, 20, 4)
    patched = _changed(base, 2, 0.001)
    pair, x = pair_network(base, patched), np.random.default_rng(0).uniform(-1, 1, (1, 6))
    rows = np.zeros(8, dtype=np.int64)
    plain, paired = (
        lower_bounds(pair, crown_intervals(pair, x - 0.2, x + 0.2, REAL, partners=p), _rows(4), Hints(), REAL, rows)
        for p in ({}, _in_order(pair, len(base.nodes)))
    )
    assert (paired >= plain).all()
    assert paired.min() > plain.min() / 20


def test_integers_do_not_follow_it() -> None:
    """The verdict of ``verify --exact`` is UNDECIDED then, and never REJECTED."""
    base = mlp(1, 3, 5, 5, 3)
    pair, x = pair_network(base, _changed(base, 2, 0.01)), np.zeros((1, 3))
    partners = _in_order(pair, len(base.nodes))
    with pytest.raises(LimitError) as refusal:
        crown_intervals(pair, x - 0.2, x + 0.2, REAL, exact=True, partners=partners)
    assert refusal.value.rule == "rule difference"


@pytest.mark.parametrize("arithmetic", [REAL, BINARY32])
def test_retain_close_of_a_network_tuned_everywhere(arithmetic: str) -> None:
    """A delta that two separate bounds miss by far is proved, and one below what is sampled is not."""
    base = mlp(1, 6, 20, 20, 4)
    patched = _changed(base, 2, 0.001)
    x = np.random.default_rng(0).uniform(-1, 1, (3, 6)).astype(np.float32)
    rows = LabelledRows(x, np.zeros(3, dtype=np.int64))
    problem = Problem(base, patched, None, Domain((Fraction(-2),), (Fraction(2),)), retain=rows)
    claim = Claim("retain_close", arithmetic, "relaxation", radius=Fraction("0.2"), delta=Fraction("0.3"))
    goals = goals_of(problem, claim)
    assert goals.partners
    proof = emit(Proof(claim.kind, arithmetic, "relaxation", goals.network.digest(), 3))
    assert decide_bounded(problem, claim, proof, "p").proved == 3
    points = np.random.default_rng(1).uniform(x[:1] - 0.2, x[:1] + 0.2, (2000, 6)).astype(np.float32)
    moved = float(np.abs(evaluate(base, points) - evaluate(patched, points)).max())
    false = replace(claim, delta=Fraction(moved * 0.99))
    assert 0 in decide_bounded(problem, false, proof, "p").unknowns
