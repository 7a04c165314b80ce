"""The question for a forget claim on one ball: exact, complete, the same on every machine; z3 answers it rightly."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from prune_verify.certify.smt_solver import solve, solve_with_model
from prune_verify.checker import smt
from prune_verify.checker.errors import LimitError, MalformedInputError, UnsupportedVersionError
from prune_verify.checker.interval import interval_pass
from prune_verify.checker.network import Network, Node, evaluate_exact
from prune_verify.checker.relaxation import Hints, crown_intervals, lower_bounds
from prune_verify.checker.rules import REAL
from prune_verify.checker.smt import forget_query
from tests.checker.random_networks import every_operator, mlp

pytestmark = pytest.mark.prover


def _box(network: Network, radius: str, seed: int = 0) -> tuple[list[Fraction], list[Fraction]]:
    size = int(np.prod(network.input_shape))
    middle = [Fraction(float(v)) for v in np.random.default_rng(seed).uniform(-1, 1, size).astype(np.float32)]
    return [m - Fraction(radius) for m in middle], [m + Fraction(radius) for m in middle]


def _excess(network: Network, point: list[Fraction], label: int) -> Fraction:
    """N_y - max over j != y of N_j at a point, exactly."""
    row = np.array(point, dtype=object).reshape(1, *network.input_shape)
    (logits,) = evaluate_exact(network, row)
    return logits[label] - max(v for j, v in enumerate(logits) if j != label)


def _corners(lower: list[Fraction], upper: list[Fraction]) -> list[list[Fraction]]:
    return [list(point) for point in product(*zip(lower, upper, strict=True))][:64]


@pytest.mark.parametrize("network", [mlp(1, 3, 6, 5, 3), every_operator(2), mlp(4, 2, 4, 2)])
@pytest.mark.parametrize("label", [0, 1])
def test_z3_agrees_with_exact_evaluation_on_both_sides_of_the_greatest_excess(network: Network, label: int) -> None:
    lower, upper = _box(network, "0.05")
    reached = max(_excess(network, point, label) for point in _corners(lower, upper))
    exceeded = solve_with_model(forget_query(network, lower, upper, label, -reached + Fraction(1, 1000)), 20, 1024)
    assert exceeded.result == "sat"
    point = [exceeded.model[f"x{i}"] for i in range(len(lower))]
    assert all(a <= v <= b for a, v, b in zip(lower, point, upper, strict=True))
    assert _excess(network, point, label) > reached - Fraction(1, 1000)
    assert solve(forget_query(network, lower, upper, label, -reached - 100), 20, 1024) == "unsat"


def test_one_point_is_decided_exactly_at_the_margin() -> None:
    """A box of one point: the claim with margin tau holds if and only if the excess there is at most -tau."""
    network = every_operator(3)
    lower, _ = _box(network, "0")
    excess = _excess(network, lower, 1)
    for step, expected in ((Fraction(0), "unsat"), (Fraction(1, 2**80), "sat"), (-Fraction(1, 2**80), "unsat")):
        assert solve(forget_query(network, lower, lower, 1, -excess + step), 20, 1024) == expected


@pytest.mark.parametrize("seed", range(4))
def test_what_a_bound_proves_z3_does_not_refute(seed: int) -> None:
    network = mlp(seed, 3, 5, 5, 2)
    lower, upper = _box(network, "0.25", seed)
    ends = np.array([[float(v) for v in lower]]), np.array([[float(v) for v in upper]])
    intervals = crown_intervals(network, *ends, REAL)
    (bound,) = lower_bounds(network, intervals, np.array([[-1.0, 1.0]]), Hints(), REAL)
    margin = Fraction(float(bound)) - Fraction(1, 2**40)  # the boxes of the kernel are rounded to float64 here
    assert solve(forget_query(network, lower, upper, 0, margin), 20, 1024) == "unsat"


def test_the_text_is_the_same_every_time_and_stable_relus_are_linear() -> None:
    network = mlp(0, 3, 8, 8, 3)
    narrow, wide = (forget_query(network, *_box(network, radius), 0, Fraction(1)) for radius in ("0.0001", "1"))
    assert forget_query(network, *_box(network, "1"), 0, Fraction(1)) == wide
    assert narrow.count("(ite ") == 0
    lower, upper = (np.array([[float(v) for v in end]]) for end in _box(network, "1"))
    loose = interval_pass(network, lower, upper, REAL)
    unstable = sum(int(((loose.lower[i] < 0) & (loose.upper[i] > 0)).sum()) for i in (1, 3))
    assert wide.count("(ite ") == unstable > 4
    assert not re.search(r"[0-9]\.[0-9]|[0-9]e", wide)


@pytest.mark.parametrize("other", [{"label": 1}, {"margin": Fraction(2)}, {"upper": [Fraction(3)] * 3}])
def test_another_claim_is_another_text(other: dict[str, object]) -> None:
    network = mlp(0, 3, 8, 3)
    claim = {"lower": [Fraction(0)] * 3, "upper": [Fraction(1)] * 3, "label": 0, "margin": Fraction(1)}
    assert forget_query(network, **claim) != forget_query(network, **(claim | other))


def _one(op: str, inputs: tuple[int, ...]) -> Network:
    return Network((Node("Input", (), (2,)), Node(op, inputs, (2,))), 1)


WEIGHT = {"weight": np.eye(2, dtype=np.float32)}
TURNED = Network((Node("Input", (), (2, 2)), Node("Linear", (0,), (2, 2), {"axis": (-2,)}, WEIGHT)), 1)
ENDS = [Fraction(0)] * 2, [Fraction(1)] * 2
REFUSED = [
    ("an operator without a rule", _one("Abs", (0,)), ENDS, 0, (UnsupportedVersionError, "network")),
    ("a product of two values", _one("Mul", (0, 0)), ENDS, 0, (UnsupportedVersionError, "network")),
    ("a map over another axis", TURNED, (ENDS[0] * 2, ENDS[1] * 2), 0, (UnsupportedVersionError, "network")),
    ("a box of another size", mlp(0, 3, 2), ENDS, 0, (MalformedInputError, "SMT query")),
    ("an empty box", mlp(0, 2, 2), ENDS[::-1], 0, (MalformedInputError, "SMT query")),
    ("a label that is none", mlp(0, 2, 2), ENDS, 2, (MalformedInputError, "SMT query")),
    ("too many products", mlp(0, 2, 512, 600), ENDS, 0, (LimitError, "network")),
    ("none of these", mlp(0, 2, 2), ENDS, 1, None),
]


@pytest.mark.parametrize(("sentence", "network", "ends", "label", "expected"), REFUSED, ids=[r[0] for r in REFUSED])
def test_what_is_refused(sentence, network, ends, label, expected) -> None:
    if expected is None:
        assert forget_query(network, *ends, label, Fraction(1)).endswith("(check-sat)\n")
        return
    with pytest.raises(expected[0]) as refusal:
        forget_query(network, *ends, label, Fraction(1))
    assert refusal.value.path == expected[1]


def test_a_text_over_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smt, "MAX_QUERY_BYTES", 100)
    with pytest.raises(LimitError):
        forget_query(mlp(0, 2, 2), *ENDS, 0, Fraction(1))
