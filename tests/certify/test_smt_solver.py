"""z3 in its own process: answers, models, limits, and what is not an answer."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest

from prune_verify.certify.smt_solver import MalformedQueryError, solve, solve_with_model

pytestmark = pytest.mark.prover

LINEAR = """
(set-logic QF_LRA)
(declare-const x Real) (declare-const y Real)
(assert (>= x (/ 3 2))) (assert (= y (* 2.0 x))) (assert (<= y 3.0))
"""


def _pigeons(count: int) -> str:
    """``count + 1`` pigeons in ``count`` holes: unsatisfiable, and slow to refute."""
    names = [[f"p{i}_{j}" for j in range(count)] for i in range(count + 1)]
    text = "".join(f"(declare-const {name} Bool)" for row in names for name in row)
    text += "".join(f"(assert (or {' '.join(row)}))" for row in names)
    pairs = ((a, b) for a in range(count + 1) for b in range(a))
    return text + "".join(f"(assert (not (and {names[a][j]} {names[b][j]})))" for a, b in pairs for j in range(count))


def test_sat_with_an_exact_model() -> None:
    found = solve_with_model(LINEAR + "(check-sat)", 10, 256)
    assert found.result == "sat"
    assert found.model == {"x": Fraction(3, 2), "y": Fraction(3)}


def test_unsat() -> None:
    assert solve(LINEAR + "(assert (> x 1.5))", 10, 256) == "unsat"


def test_a_time_out_is_unknown_and_keeps_the_limit() -> None:
    start = time.monotonic()
    assert solve(_pigeons(12), 0.5, 512) == "unknown"
    assert time.monotonic() - start < 5


def test_too_little_memory_is_unknown() -> None:
    assert solve(_pigeons(12), 20, 2) == "unknown"


@pytest.mark.parametrize("text", ["(assert x)", "(assert (> 1 0)", "garbage (", "(assert (foo 1))"])
def test_what_z3_cannot_read_is_refused(text: str) -> None:
    with pytest.raises(MalformedQueryError):
        solve(text, 5, 256)


def test_the_same_query_gives_the_same_model() -> None:
    query = "".join(f"(declare-const x{i} Real)(assert (< 0 x{i} 1))" for i in range(6))
    query += "(assert (> (+ x0 x1 x2 x3 x4 x5) 2.5))"
    first, second = (solve_with_model(query, 10, 256) for _ in range(2))
    assert first == second
    assert sum(first.model.values()) > Fraction(5, 2)
