"""Answers of this project, of cvc5 and of Marabou to the same questions about small networks: none contradicts another.

The networks have 2 to 5 inputs, 5 to 12 ReLUs and 3 labels; a goal says that on a box some other label beats label 0 by
``least``. What can be reached on the box is found by search, and thresholds are laid around it: far below (holds), near
it on both sides, and far above (fails).

cvc5 is exact, and has to agree always. Marabou computes in floating point with tolerances: it is asked wherever the
exact answers at ``least - 1e-4`` and ``least + 1e-4`` are the same, and has to agree there.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np
import pytest

from prune_verify.certify.prove_command import prove_goals
from prune_verify.certify.smt_goals import Decision, decide_goal, goal_query, violates
from prune_verify.checker.goals import Goals, decide_goals
from prune_verify.checker.network import Network, evaluate
from prune_verify.checker.proof import emit, parse
from prune_verify.checker.relaxation import crown_intervals
from prune_verify.checker.rules import REAL
from prune_verify.checker.smt import forget_query
from tests.checker.random_networks import mlp

pytestmark = pytest.mark.prover
TOLERANCE = 1e-4
WIDTHS = [
    (2, 5),
    (2, 4, 4),
    (3, 6),
    (3, 4, 3),
    (4, 8),
    (4, 6, 6),
    (5, 5),
    (5, 4, 4),
    (2, 6, 6),
    (3, 12),
    (4, 5, 3),
    (5, 7, 5),
]
SHIFTS = (-1.0, -0.02, 0.0005, 0.5)
ROWS = np.array([[-1.0, 1, 0], [-1, 0, 1]])
FIRST = np.zeros(1, dtype=np.int64)
CASES = [(seed, place) for seed in range(len(WIDTHS)) for place in range(len(SHIFTS))]


@dataclass(frozen=True)
class Question:
    network: Network
    low: np.ndarray
    high: np.ndarray
    least: float

    def goals(self, more: float = 0.0) -> Goals:
        """The goal, with ``more`` asked of every atom."""
        least = np.full((1, 1, 2), self.least + more)
        return Goals(
            self.network,
            REAL,
            1,
            1,
            2,
            lambda _: (self.low, self.high),
            lambda _: (ROWS[np.newaxis, np.newaxis], least),
        )


def _value(network: Network, x: np.ndarray) -> np.ndarray:
    """By how much the best other label beats label 0, in float64."""
    return (evaluate(network, x).astype(float) @ ROWS.T).max(axis=1)


@cache
def _question(seed: int, place: int) -> Question:
    widths, rng = WIDTHS[seed], np.random.default_rng(seed)
    network = mlp(seed, *widths, 3)
    middle = rng.uniform(-1, 1, (1, widths[0])).astype(np.float32).astype(float)
    low, high = middle - 0.5, middle + 0.5
    best = low + (high - low) * rng.random((400, widths[0]))
    for scale in (0.2, 0.05, 0.01, 0.002):  # a search around the lowest point so far
        start = best[_value(network, best).argmin()]
        best = np.concatenate(
            [start[np.newaxis], np.clip(start + rng.uniform(-scale, scale, (400, widths[0])), low, high)]
        )
    return Question(network, low, high, float(_value(network, best).min()) + SHIFTS[place])


@cache
def _exact(seed: int, place: int, more: float = 0.0) -> Decision:
    return decide_goal(_question(seed, place).goals(more), 0, 0, timeout=20, memory_mb=1024)


def test_both_answers_are_present_also_near_the_threshold() -> None:
    found = {place: {_exact(seed, place).result for seed in range(len(WIDTHS))} for place in range(len(SHIFTS))}
    assert found[0] == {"unsat"}
    assert found[3] == {"sat"}
    assert found[1] | found[2] == {"sat", "unsat"}


@pytest.mark.parametrize(("seed", "place"), CASES)
def test_what_is_proved_has_no_counterexample(seed: int, place: int) -> None:
    """The checker accepts no proof where the solver has a point; what holds by far is proved."""
    goals, decision = _question(seed, place).goals(), _exact(seed, place)
    assert decision.result == "unsat" or violates(goals, 0, 0, decision.point)
    limit = 5.0 if decision.result == "unsat" else 0.2
    proof = parse(emit(prove_goals(goals, limit).proof), "proof")
    proved = bool(decide_goals(goals, proof, "proof").all())
    assert decision.result == "unsat" or not proved
    assert proved or SHIFTS[place] > -0.5


def _cvc5(text: str, inputs: int) -> tuple[str, list[Fraction] | None]:
    """cvc5's answer, and its point."""
    cvc5 = pytest.importorskip("cvc5")
    solver = cvc5.Solver()
    solver.setOption("produce-models", "true")
    solver.setOption("tlimit", "10000")
    parser = cvc5.InputParser(solver)
    parser.setStringInput(cvc5.InputLanguage.SMT_LIB_2_6, text.replace("(check-sat)\n", ""), "question")
    symbols = parser.getSymbolManager()
    while not (command := parser.nextCommand()).isNull():
        assert not command.invoke(solver, symbols)
    answer = solver.checkSat()
    if not answer.isSat():
        return ("unsat" if answer.isUnsat() else "unknown"), None
    values = {str(term): solver.getValue(term).getRealValue() for term in symbols.getDeclaredTerms()}
    return "sat", [Fraction(values[f"x{i}"]) for i in range(inputs)]


@pytest.mark.parametrize(("seed", "place"), CASES)
def test_cvc5_agrees_on_this_question_and_on_the_checkers_own(seed: int, place: int) -> None:
    question = _question(seed, place)
    goals, size = question.goals(), question.low.size
    intervals = crown_intervals(question.network, question.low, question.high, REAL)
    ends = [[Fraction(v) for v in end.reshape(-1).tolist()] for end in (question.low, question.high)]
    for text in (
        goal_query(question.network, intervals, 0, ROWS, np.full(2, question.least), strict=False),
        forget_query(question.network, *ends, 0, Fraction(question.least)),
    ):
        answer, point = _cvc5(text, size)
        assert answer == _exact(seed, place).result
        assert point is None or violates(goals, 0, 0, point)


def _marabou(question: Question) -> tuple[str, list[float] | None]:
    """Marabou's answer, and its point; the network goes in layer by layer."""
    core = pytest.importorskip(
        "maraboupy.MarabouCore", reason="maraboupy 2.0.0, installed without dependencies (see Makefile)"
    )
    query = core.InputQuery()
    query.setNumberOfVariables(sum(node.shape[0] for node in question.network.nodes))
    for place, (a, b) in enumerate(zip(question.low[0].tolist(), question.high[0].tolist(), strict=True)):
        query.setLowerBound(place, a)
        query.setUpperBound(place, b)
        query.markInputVariable(place, place)
    ends = np.cumsum([0] + [node.shape[0] for node in question.network.nodes]).tolist()
    for index, node in enumerate(question.network.nodes[1:], start=1):
        source, target = ends[node.inputs[0]], ends[index]
        for row in range(node.shape[0]):
            if node.op == "Relu":
                core.addReluConstraint(query, source + row, target + row)
                continue
            terms = {source + column: weight for column, weight in enumerate(node.arrays["weight"][row].tolist())}
            query.addEquation(
                _equation(core, core.Equation.EQ, {**terms, target + row: -1.0}, -float(node.arrays["bias"][row]))
            )
    output = ends[question.network.output]
    for row in ROWS.tolist():
        terms = {output + label: factor for label, factor in enumerate(row) if factor}
        query.addEquation(_equation(core, core.Equation.LE, terms, question.least))
    options = core.Options()
    options._verbosity, options._timeoutInSeconds = 0, 10
    answer, values, _ = core.solve(query, options, "")
    return answer, [values[i] for i in range(question.low.size)] if answer == "sat" else None


def _equation(core, kind, terms: dict[int, float], scalar: float):
    made = core.Equation(kind)
    for variable, factor in terms.items():
        made.addAddend(factor, variable)
    made.setScalar(scalar)
    return made


@pytest.mark.parametrize(("seed", "place"), CASES)
def test_marabou_agrees_beyond_its_tolerance(seed: int, place: int) -> None:
    question = _question(seed, place)
    answer, point = _marabou(question)
    around = {_exact(seed, place, more).result for more in (-TOLERANCE, 0.0, TOLERANCE)}
    assert around <= {"sat", "unsat"}
    if len(around) == 1:
        assert {answer} == around
    if answer == "sat":
        clipped = np.clip(np.array(point), question.low[0], question.high[0]).tolist()
        exact = [Fraction(v) for v in clipped]
        assert _exact(seed, place).result == "sat" or not violates(question.goals(), 0, 0, exact)


def test_few_questions_are_within_the_tolerance() -> None:
    """Otherwise the comparison above would say little."""
    inside = [case for case in CASES if len({_exact(*case, more).result for more in (-TOLERANCE, TOLERANCE)}) > 1]
    assert len(inside) <= len(CASES) // 8
