"""VNN-LIB texts: read back to the same boxes and atoms, true of the same outputs, and read by others' parsers."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prune_verify.certify.vnnlib_files import (
    margin_rows,
    pair_property_text,
    parse_counterexample,
    property_text,
    with_margins,
    write_counterexample,
)
from prune_verify.checker.bounded_claims import goals_of, pair_network
from prune_verify.checker.claim import Claim, LabelledRows, Problem
from prune_verify.checker.errors import MalformedInputError, UnsupportedVersionError
from prune_verify.checker.goals import Goals
from prune_verify.checker.network import Network, evaluate_exact
from prune_verify.checker.patch import LearnedPatch
from prune_verify.checker.rebuild import build, difference_network
from prune_verify.checker.region import Domain
from prune_verify.checker.rules import REAL
from prune_verify.checker.vnnlib import goals_of_property, parse_property
from tests.checker.random_networks import every_operator, mlp

FIRST = np.zeros(1, dtype=np.int64)
DOMAIN = Domain((Fraction(-1),), (Fraction(1),))


def _problem(seed: int, base: Network | None = None) -> Problem:
    base = base or mlp(seed, 3, 5, 3)
    size = int(np.prod(base.input_shape))
    rng = np.random.default_rng(seed)
    layers = tuple(
        (rng.standard_normal(shape).astype(np.float32), np.zeros(shape[0], dtype=np.float32))
        for shape in ((4, size), (3, 4))
    )
    patch = LearnedPatch(3, layers)
    rows = LabelledRows(rng.uniform(-1, 1, (3, *base.input_shape)).astype(np.float32), np.array([0, 2, 1]))
    return Problem(base, build(base, patch), patch, DOMAIN, rows, rows)


def _forget(seed: int, margin: str, base: Network | None = None) -> Goals:
    claim = Claim("forget", REAL, "relaxation", radius=Fraction("0.05"), margin=Fraction(margin))
    return goals_of(_problem(seed, base), claim)


def _read(text: str, network: Network) -> Goals:
    size = int(np.prod(network.input_shape))
    return goals_of_property(network, parse_property(text.encode(), "p", size, network.labels), REAL)


def _same(goals: Goals, record: int, again: Goals) -> None:
    """The same box, and the same clauses as sets of atoms."""
    chosen = np.array([record])
    for first, second in zip(goals.boxes(chosen), again.boxes(FIRST), strict=True):
        assert (first == second).all()
    found = []
    for one, row in ((goals, chosen), (again, FIRST)):
        objectives, least = (values[0] for values in one.constraint(row))
        found.append(
            {
                frozenset((tuple(c), float(v)) for c, v in zip(cs, vs, strict=True))
                for cs, vs in zip(objectives.tolist(), least.tolist(), strict=True)
            }
        )
    assert found[0] == found[1]


@pytest.mark.parametrize("record", [0, 1, 2])
@pytest.mark.parametrize("base", [None, every_operator(3)])
def test_forget_goals_are_read_back(record: int, base: Network | None) -> None:
    goals = _forget(1, "0", base)
    _same(goals, record, _read(property_text(goals, record), goals.network))


@pytest.mark.parametrize("kind", ["forget", "band"])
def test_margins_become_outputs_of_a_longer_network(kind: str) -> None:
    claim = Claim(
        kind,
        REAL,
        "relaxation",
        radius=Fraction("0.05"),
        margin=Fraction("0.1"),
        band=(Fraction("-0.7"), Fraction("0.3")),
    )
    problem = _problem(2, every_operator(4))
    goals = goals_of(problem, claim)
    with pytest.raises(UnsupportedVersionError):
        property_text(goals, 1)
    longer = with_margins(goals, 1)
    _same(longer, 0, _read(property_text(longer, 0), longer.network))
    x = problem.rows("forget").x[1:2]
    (logits,), (margins,) = evaluate_exact(goals.network, x), evaluate_exact(longer.network, x)
    assert margins == [
        sum(Fraction(float(c)) * y for c, y in zip(row, logits, strict=True)) for row in margin_rows(goals, 1)
    ]
    found = []
    for one, y, record in ((goals, logits, 1), (longer, margins, 0)):
        objectives, least = (v[0] for v in one.constraint(np.array([record])))
        rows = objectives.reshape(-1, len(y)).tolist()
        found.append(([sum(Fraction(f) * z for f, z in zip(row, y, strict=True)) for row in rows], least.tolist()))
    assert found[0] == found[1]


@given(
    st.lists(st.floats(-1e30, 1e30, allow_subnormal=True), min_size=4, max_size=4), st.floats(-1e6, 1e6), st.booleans()
)
@settings(max_examples=200)
def test_any_box_is_read_back_or_a_step_wider(ends: list[float], least: float, negative: bool) -> None:
    """Exactly where 80 digits are enough, as for all ends that are not tiny; else a little more is asked."""
    network = mlp(0, 2, 2, 2)
    low, high = np.sort(np.array(ends).reshape(2, 2), axis=0).reshape(2, 1, 2)
    sign = -1.0 if negative else 1.0
    goals = Goals(
        network,
        REAL,
        1,
        1,
        1,
        lambda _: (low, high),
        lambda _: (sign * np.eye(2)[np.newaxis, np.newaxis, :1], np.full((1, 1, 1), least)),
    )
    again = _read(property_text(goals, 0), network)
    for k, (first, second) in enumerate(zip(goals.boxes(FIRST), again.boxes(FIRST), strict=True)):
        outward = np.nextafter(first, np.inf if k else -np.inf)
        large = (np.abs(first) >= 2.0**-38) | (first == 0)
        assert np.where(large, second == first, (second == first) | (second == outward)).all()
    reached = float(again.constraint(FIRST)[1][0, 0, 0])
    assert reached in (least, np.nextafter(least, np.inf))


@pytest.mark.parametrize("end", [0.1, 2.0**-60 + 2.0**-100, 5e-324, 1.7e-310, 1e300])
def test_a_box_is_never_written_smaller(end: float) -> None:
    network = mlp(0, 2, 2, 2)
    low, high = np.array([[-end, end]]), np.array([[end, end]])
    for sign in (1.0, -1.0):
        goals = Goals(
            network,
            REAL,
            1,
            1,
            1,
            lambda _: (low, high),
            lambda _, s=sign: (s * np.eye(2)[np.newaxis, np.newaxis, :1], np.full((1, 1, 1), end)),
        )
        (case,) = parse_property(property_text(goals, 0).encode(), "p", 2, 2)
        assert all(a <= Fraction(b) for a, b in zip(case.lower, low[0].tolist(), strict=True))
        assert all(a >= Fraction(b) for a, b in zip(case.upper, high[0].tolist(), strict=True))
        assert case.atoms[0][1] >= Fraction(end)
        assert abs(case.upper[0] - Fraction(end)) <= Fraction(end) / 10**70


def test_clauses_that_nothing_can_meet_are_always_violated() -> None:
    network = mlp(0, 2, 3, 2)
    goals = Goals(
        network,
        REAL,
        1,
        2,
        1,
        lambda _: (np.zeros((1, 2)), np.ones((1, 2))),
        lambda _: (np.eye(2)[np.newaxis, :, np.newaxis], np.array([[[np.inf], [3.0]]])),
    )
    objectives, least = (v[0, :, 0] for v in _read(property_text(goals, 0), network).constraint(FIRST))
    assert (objectives[0].tolist(), least[0]) == ([0.0, 0.0], 0.0)  # 0 > 0 holds nowhere
    assert (objectives[1].tolist(), least[1]) == ([0.0, 1.0], 3.0)


ODD = [
    ("a scaled output", np.array([2.0, 0.0]), 0.0),
    ("a difference and a number", np.array([1.0, -1.0]), 0.5),
    ("a sum", np.array([1.0, 1.0]), 0.0),
    ("nothing", np.array([0.0, 0.0]), 0.0),
    ("always met", np.array([1.0, 0.0]), -np.inf),
    ("no number", np.array([1.0, 0.0]), np.nan),
]


@pytest.mark.parametrize(("sentence", "row", "least"), ODD, ids=[row[0] for row in ODD])
def test_atoms_that_the_first_version_cannot_say(sentence: str, row: np.ndarray, least: float) -> None:
    goals = Goals(
        mlp(0, 2, 2, 2),
        REAL,
        1,
        1,
        1,
        lambda _: (np.zeros((1, 2)), np.ones((1, 2))),
        lambda _: (row.reshape(1, 1, 1, 2), np.full((1, 1, 1), least)),
    )
    with pytest.raises(UnsupportedVersionError):
        property_text(goals, 0)


def test_coefficients_that_are_no_float32_have_no_margins() -> None:
    goals = Goals(
        mlp(0, 2, 2, 2),
        REAL,
        1,
        1,
        1,
        lambda _: (np.zeros((1, 2)), np.ones((1, 2))),
        lambda _: (np.full((1, 1, 1, 2), 0.1), np.zeros((1, 1, 1))),
    )
    with pytest.raises(UnsupportedVersionError):
        with_margins(goals, 0)


# --- version 2.0 ---

RETAIN = [("retain_close", True), ("retain_close", False), ("retain_label", True)]


def _pair(kind: str, additive: bool, base: Network | None = None) -> tuple[Problem, Goals]:
    problem = _problem(5, base)
    if not additive:
        problem = Problem(problem.base, problem.patched, None, DOMAIN, problem.forget, problem.retain)
    claim = Claim(kind, REAL, "relaxation", radius=Fraction("0.05"), delta=Fraction("0.1"))
    return problem, goals_of(problem, claim)


def _holds(vnnlib, expression, values: dict) -> bool:
    """The value of a parsed formula of version 2.0."""
    number = partial(_number, vnnlib, values=values)
    match type(expression).__name__:
        case "And":
            return all(_holds(vnnlib, e, values) for e in expression.args)
        case "Or":
            return any(_holds(vnnlib, e, values) for e in expression.args)
        case "LessThan":
            return number(expression.lhs) < number(expression.rhs)
        case "LessEqual":
            return number(expression.lhs) <= number(expression.rhs)
        case "GreaterEqual":
            return number(expression.lhs) >= number(expression.rhs)
        case "Equal":
            return number(expression.lhs) == number(expression.rhs)
    raise AssertionError(expression)


def _number(vnnlib, expression, values: dict) -> Fraction:
    number = partial(_number, vnnlib, values=values)
    match type(expression).__name__:
        case "Var":
            return values[expression.name][tuple(expression.indices)]
        case "Float" | "Int" | "Literal":
            return Fraction(expression.lexeme)
        case "Negate":
            return -number(expression.expr)
        case "Minus":
            return number(expression.head) - sum(number(e) for e in expression.rest)
        case "Plus":
            return sum((number(e) for e in expression.args), Fraction(0))
        case "Multiply":
            return np.prod([number(e) for e in expression.args])
    raise AssertionError(expression)


@pytest.mark.parametrize(("kind", "additive"), RETAIN)
@pytest.mark.parametrize("base", [None, every_operator(6)], ids=["mlp", "shapes"])
def test_a_pair_is_read_by_the_standards_parser_and_means_the_negation(
    kind: str, additive: bool, base: Network | None
) -> None:
    """Evaluated exactly on parsed formulas: the assertions hold at an input if and only if a clause fails there."""
    vnnlib = pytest.importorskip("vnnlib", reason="vnnlib 1.x is the parser of version 2.0")
    problem, goals = _pair(kind, additive, base)
    text = pair_property_text(problem.base, problem.patched, goals, 1)
    query = vnnlib.parse_query_string(text)
    assert [n.name for n in query.networks] == ["base", "patched"]
    low, high = goals.boxes(np.array([1]))
    rng, met = np.random.default_rng(0), set()
    outside = high + 1
    for x in [*(low + (high - low) * rng.random((12, *low.shape[1:]))), outside[0], low[0], high[0]]:
        exact = np.array([Fraction(v) for v in x.reshape(-1).tolist()], dtype=object).reshape(1, *x.shape)
        values = {"X_base": exact, "X_patched": exact}
        for name, network in (("base", problem.base), ("patched", problem.patched)):
            values[f"Y_{name}"] = np.array(evaluate_exact(network, exact), dtype=object).reshape(
                1, *network.output_shape
            )
        found = all(_holds(vnnlib, assertion.expr, values) for assertion in query.assertions)
        objectives, least = (v[0].tolist() for v in goals.constraint(np.array([1])))
        (logits,) = evaluate_exact(goals.network, exact)
        held = [
            any(
                _reached(sum(Fraction(f) * y for f, y in zip(row, logits, strict=True)), end, goals.strict)
                for row, end in zip(rows, ends, strict=True)
            )
            for rows, ends in zip(objectives, least, strict=True)
        ]
        inside = bool(((low[0] <= x) & (x <= high[0])).all())
        assert found == (inside and not all(held))
        met.add((inside, found))
    assert {(False, False), (True, True)} <= met


def _reached(value: Fraction, least: float, strict: bool) -> bool:
    return least != np.inf and (value > Fraction(least) if strict else value >= Fraction(least))


def test_a_record_that_the_base_does_not_answer_has_nothing_that_stays() -> None:
    vnnlib = pytest.importorskip("vnnlib", reason="vnnlib 1.x is the parser of version 2.0")
    base = mlp(0, 2, 3, 2)
    pair = pair_network(base, base)
    goals = Goals(
        pair,
        REAL,
        1,
        1,
        1,
        lambda _: (np.zeros((1, 2)), np.ones((1, 2))),
        lambda _: (np.array([[[[1.0, -1, 0, 0]]]]), np.full((1, 1, 1), np.inf)),
        strict=True,
    )
    last = vnnlib.parse_query_string(pair_property_text(base, base, goals, 0)).assertions[-1]
    assert type(last.expr).__name__ == "Equal"


def test_sums_with_factors_are_read_by_the_standards_parser() -> None:
    vnnlib = pytest.importorskip("vnnlib", reason="vnnlib 1.x is the parser of version 2.0")
    base = mlp(0, 2, 3, 2)
    rows = np.array([[[[2.5, -1, 0.1, 0]], [[-1, 0, 0, 0]], [[0, 0, 0, 0]]]])
    goals = Goals(
        pair_network(base, base),
        REAL,
        1,
        3,
        1,
        lambda _: (np.zeros((1, 2)), np.ones((1, 2))),
        lambda _: (rows, np.array([[[1e-9], [0.0], [-1.0]]])),
    )
    (last,) = vnnlib.parse_query_string(pair_property_text(base, base, goals, 0)).assertions[-1:]
    y = np.array([[Fraction(3), Fraction(5)]], dtype=object)
    assert not _holds(vnnlib, last.expr, {"Y_base": y * 0, "Y_patched": y})
    assert _holds(vnnlib, last.expr, {"Y_base": y, "Y_patched": y})


def test_goals_about_a_difference_say_which_network_is_added_to() -> None:
    """One side of retain_close alone: patched - base >= -0.1 fails where the patched network is below the base."""
    vnnlib = pytest.importorskip("vnnlib", reason="vnnlib 1.x is the parser of version 2.0")
    problem = _problem(1)
    network = difference_network(problem.base, problem.patch)
    goals = Goals(
        network,
        REAL,
        1,
        1,
        1,
        lambda _: (np.zeros((1, 3)), np.ones((1, 3))),
        lambda _: (np.eye(3)[np.newaxis, np.newaxis, :1], np.full((1, 1, 1), -0.1)),
    )
    (last,) = vnnlib.parse_query_string(pair_property_text(problem.base, problem.patched, goals, 0)).assertions[-1:]
    zero, one = (np.array([[Fraction(v)] * 3], dtype=object) for v in (0, 1))
    assert _holds(vnnlib, last.expr, {"Y_base": one, "Y_patched": zero})
    assert not _holds(vnnlib, last.expr, {"Y_base": zero, "Y_patched": one})


def test_goals_about_one_network_are_not_written_as_a_pair() -> None:
    problem = _problem(1)
    for goals in (_forget(1, "0"), Goals(mlp(3, 3, 5), REAL, 1, 1, 1, None, None)):
        with pytest.raises(MalformedInputError):
            pair_property_text(problem.base, problem.patched, goals, 0)
    with pytest.raises(MalformedInputError):
        pair_property_text(
            problem.base,
            mlp(0, 4, 3),
            Goals(difference_network(problem.base, problem.patch), REAL, 1, 1, 1, None, None),
            0,
        )


def test_the_parser_of_version_one_reads_the_same_box_and_inequalities(tmp_path) -> None:
    """With vnnlib 0.0.1.post1 in a folder of its own (it has the name of the parser of 2.0): PRUNE_VERIFY_VNNLIB1=FOLDER."""
    folder = os.environ.get("PRUNE_VERIFY_VNNLIB1")
    if not folder:
        pytest.skip("PRUNE_VERIFY_VNNLIB1 is not set: pip install --no-deps --target FOLDER vnnlib==0.0.1.post1")
    goals = with_margins(_forget(4, "0.25"), 2)
    band = goals_of(
        _problem(4),
        Claim("band", REAL, "relaxation", radius=Fraction("0.05"), band=(Fraction("-0.7"), Fraction("0.3"))),
    )
    for one in (goals, with_margins(band, 0)):
        path = tmp_path / "p.vnnlib"
        path.write_text(property_text(one, 0))
        code = "import sys; sys.path.insert(0, sys.argv[1]); from vnnlib.compat import read_vnnlib_simple as r; print([(b, [(m.tolist(), v.reshape(-1).tolist()) for m, v in o]) for b, o in r(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))])"
        words = [sys.executable, "-c", code, folder, str(path), "3", str(one.network.labels)]
        ((box, cases),) = eval(subprocess.run(words, capture_output=True, text=True, check=True).stdout)  # noqa: S307 - our own literal
        low, high = (end.reshape(-1).tolist() for end in one.boxes(FIRST))
        assert [tuple(pair) for pair in box] == list(zip(low, high, strict=True))
        objectives, least = (v[0].tolist() for v in one.constraint(FIRST))
        expected = {
            frozenset((tuple(c), v) for c, v in zip(cs, vs, strict=True))
            for cs, vs in zip(objectives, least, strict=True)
        }
        assert {frozenset((tuple(c), v) for c, v in zip(m, vs, strict=True)) for m, vs in cases} == expected


# --- counterexamples ---


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=6))
def test_counterexamples_are_read_back(values: list[float]) -> None:
    x, y = np.array(values[:2], dtype=np.float32), np.array(values[2:], dtype=np.float32)
    text = write_counterexample(x, y)
    for prefix in ("", "sat\n"):
        again = parse_counterexample(prefix + text, len(x), len(y))
        assert [a.tobytes() for a in again] == [x.tobytes(), y.tobytes()]


def test_the_form_is_that_of_the_competition() -> None:
    text = write_counterexample(np.array([[0.1, -2]], dtype=np.float32), np.array([1e-10], dtype=np.float32))
    assert text == "((X_0 0.1)\n(X_1 -2.0)\n(Y_0 1e-10))\n"


def test_a_value_is_rounded_once() -> None:
    """Just above the middle of two float32 numbers, by less than a float64 sees."""
    text = f"((X_0 {format(1 + 2**-24, '.30f')[:-1]}1)\n(Y_0 0.0))"
    assert parse_counterexample(text, 1, 1)[0][0] == np.nextafter(np.float32(1), np.float32(2))


BAD = [
    ("no parentheses", "X_0 1", "counterexample"),
    ("a word between", "((X_0 1) and (Y_0 2))", "counterexample"),
    ("a third letter", "((X_0 1) (Z_0 2))", "counterexample"),
    ("no number", "((X_0 one) (Y_0 2))", "counterexample/X_0"),
    ("not a finite number", "((X_0 1) (Y_0 nan))", "counterexample/Y_0"),
    ("too large for a float32", "((X_0 1) (Y_0 1e39))", "counterexample/Y_0"),
    ("the largest that rounds to infinity", "((X_0 1) (Y_0 3.4028236e38))", "counterexample/Y_0"),
    ("given twice", "((X_0 1) (X_0 1) (Y_0 2))", "counterexample/X_0"),
    ("an unknown input", "((X_0 1) (X_1 1) (Y_0 2))", "counterexample/X_1"),
    ("an output too few", "((X_0 1))", "counterexample/Y_0"),
    ("nothing", "", "counterexample"),
]


@pytest.mark.parametrize(("sentence", "text", "path"), BAD, ids=[row[0] for row in BAD])
def test_what_is_no_counterexample(sentence: str, text: str, path: str) -> None:
    with pytest.raises(MalformedInputError) as refusal:
        parse_counterexample(text, 1, 1)
    assert refusal.value.path == path


def test_numbers_that_are_not_finite_are_not_written() -> None:
    with pytest.raises(MalformedInputError):
        write_counterexample(np.array([np.inf], dtype=np.float32), np.zeros(1, dtype=np.float32))
