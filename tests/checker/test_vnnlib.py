"""VNN-LIB properties: what is read, what is refused and where, and that goals mean what the property says."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_verify.checker.errors import CheckError, LimitError, MalformedInputError
from prune_verify.checker.vnnlib import goals_of_property, parse_property
from tests.checker.random_networks import mlp

DECLARED = "(declare-const X_0 Real)\n(declare-const X_1 Real)\n(declare-const Y_0 Real)\n(declare-const Y_1 Real)\n"
BOX = "(assert (<= X_0 1.0))(assert (>= X_0 -1))\n(assert (<= X_1 2e-1))(assert (>= X_1 -0.25))\n"
OUT = "(assert (<= Y_0 Y_1))\n"
GOOD = DECLARED + BOX + OUT


def _parse(text: str):
    return parse_property(text.encode(), "p", 2, 2)


def test_a_conjunction_is_one_case() -> None:
    (case,) = _parse("; a comment\n" + GOOD + "(assert (>= Y_1 0.5)) ; more\n")
    assert case.lower == (Fraction(-1), Fraction(-1, 4))
    assert case.upper == (Fraction(1), Fraction(1, 5))
    assert case.atoms == (({0: 1, 1: -1}, Fraction(0)), ({1: -1}, Fraction(-1, 2)))


def test_a_disjunction_is_many_cases_and_bounds_are_intersected() -> None:
    cases = _parse(DECLARED + BOX + "(assert (or (and (>= Y_0 Y_1) (<= X_0 0)) (and (<= Y_0 3))))(assert (<= X_0 0.5))")
    assert [case.upper[0] for case in cases] == [0, Fraction(1, 2)]
    assert [case.atoms for case in cases] == [((({1: 1, 0: -1}, Fraction(0))),), (({0: 1}, Fraction(3)),)]


ROWS = [
    ("as it should be", GOOD, None),
    ("no closing parenthesis", GOOD + "(assert (<= Y_0 1)", (MalformedInputError, "p/line 8")),
    ("a word outside", GOOD + "x", (MalformedInputError, "p/line 8")),
    ("a closing parenthesis too many", GOOD + ")", (MalformedInputError, "p/line 8")),
    ("another command", GOOD + "(check-sat)", (MalformedInputError, "p/line 8")),
    ("another sort", GOOD.replace("X_0 Real", "X_0 Int"), (MalformedInputError, "p/line 1")),
    ("a variable of another name", DECLARED + "(declare-const Z_0 Real)", (MalformedInputError, "p/line 5")),
    ("a variable twice", DECLARED + "(declare-const X_0 Real)", (MalformedInputError, "p/line 5")),
    ("a number with a leading zero", "(declare-const X_00 Real)", (MalformedInputError, "p/line 1")),
    ("a variable too few", GOOD.replace("(declare-const Y_1 Real)\n", ""), (MalformedInputError, "p")),
    ("a variable too many", GOOD + "(declare-const Y_2 Real)", (MalformedInputError, "p")),
    ("an operator that is not read", GOOD + "(assert (< Y_0 1))", (MalformedInputError, "p/line 8")),
    ("equality", GOOD + "(assert (= Y_0 1))", (MalformedInputError, "p/line 8")),
    ("a product", GOOD + "(assert (<= (* 2 Y_0) 1))", (MalformedInputError, "p/line 8")),
    ("three sides", GOOD + "(assert (<= Y_0 1 2))", (MalformedInputError, "p/line 8")),
    ("inputs beside outputs", GOOD + "(assert (<= X_0 Y_0))", (MalformedInputError, "p/line 8")),
    ("two inputs", GOOD + "(assert (<= X_0 X_1))", (MalformedInputError, "p/line 8")),
    ("two numbers", GOOD + "(assert (<= 1 2))", (MalformedInputError, "p/line 8")),
    ("infinity", GOOD + "(assert (<= Y_0 inf))", (MalformedInputError, "p/line 8")),
    ("a huge exponent", GOOD + "(assert (<= Y_0 1e9999))", (MalformedInputError, "p/line 8")),
    ("a million digits", GOOD + f"(assert (<= Y_0 {'1' * 10**6}))", (MalformedInputError, "p/line 8")),
    ("Arabic digits", GOOD + "(assert (<= Y_0 \u0661))", (MalformedInputError, "p")),
    ("depth", GOOD + "(assert " + "(and " * 40 + "x", (LimitError, "p/line 8")),
    ("too many cases", GOOD + "(assert (or (<= Y_0 1) (<= Y_0 2)))" * 13, (LimitError, "p/line 8")),
    ("an input without an upper bound", DECLARED + "(assert (>= X_0 0))(assert (>= X_1 0))" + OUT, (MalformedInputError, "p")),
    ("an input without a lower bound", DECLARED + "(assert (<= X_0 0))(assert (<= X_1 0))" + OUT, (MalformedInputError, "p")),
    ("a bound of no input", GOOD + "(assert (<= X_2 0))", (MalformedInputError, "p")),
    ("no outputs", DECLARED + BOX, (MalformedInputError, "p")),
    ("an output that is none", GOOD + "(assert (<= Y_2 0))", (MalformedInputError, "p")),
    ("nothing", "", (MalformedInputError, "p")),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "text", "expected"), ROWS, ids=[row[0] for row in ROWS])
def test_properties(sentence: str, text: str, expected: tuple[type[CheckError], str] | None) -> None:
    if expected is None:
        assert _parse(text)
        return
    with pytest.raises(expected[0]) as refusal:
        _parse(text)
    assert (type(refusal.value), refusal.value.path) == expected


def test_a_file_over_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prune_verify.checker.vnnlib.MAX_BYTES", 10)
    with pytest.raises(LimitError):
        _parse(GOOD)


@given(st.text(alphabet="()<=> XY_01assertdecl-onRiorn;.\n", max_size=80))
def test_any_text_gives_cases_or_a_check_error(text: str) -> None:
    with suppress(CheckError):
        _parse(GOOD + text)


WORDS = st.sampled_from(["(", ")", "assert", "or", "and", "<=", ">=", "X_0", "Y_0", "Y_1", "1", "-2.5", " "])


@given(st.lists(WORDS, max_size=30))
def test_any_words_give_cases_or_a_check_error(words: list[str]) -> None:
    with suppress(CheckError):
        assert _parse(GOOD + " ".join(words))


@given(st.integers(0, 10**6))
def test_goals_mean_that_no_case_is_met(seed: int) -> None:
    """For random cases and outputs: every clause has an atom that holds exactly if no case is met."""
    rng = np.random.default_rng(seed)
    text, names = DECLARED + BOX, ("Y_0", "Y_1")
    listed = []
    for _ in range(rng.integers(1, 4)):
        atoms = [
            f"({rng.choice(['<=', '>='])} {rng.choice(names)} {rng.integers(-2, 3)})" for _ in range(rng.integers(1, 3))
        ]
        extra = "(<= X_0 0.5)" if rng.random() < 0.3 else ""
        listed.append(f"(and {' '.join(atoms)} {extra})")
    cases = _parse(text + f"(assert (or {' '.join(listed)}))")
    network = mlp(0, 2, 3, 2)
    goals = goals_of_property(network, cases, "real")
    for y in rng.integers(-3, 4, (20, 2)).astype(float):
        objectives, least = goals.constraint(np.arange(goals.records))
        holds = (objectives @ y > least).any(axis=2)  # [records, clauses]
        for record in range(goals.records):
            low, high = goals.boxes(np.array([record]))
            mine = [c for c in cases if all(abs(float(a) - b) < 1e-9 for a, b in zip(c.upper, high[0], strict=True))]
            met = any(
                all(sum(f * y[j] for j, f in factors.items()) <= number for factors, number in c.atoms) for c in mine
            )
            assert met == (not holds[record].all())
            assert (low <= high).all()


def test_an_empty_box_stays_as_a_point_that_has_to_be_proved() -> None:
    """A box without inputs is a mistake of the question more often than its meaning; it must not pass for a proof."""
    cases = _parse(DECLARED + BOX + "(assert (<= X_0 -2))" + OUT)
    goals = goals_of_property(mlp(0, 2, 3, 2), cases, "real")
    low, high = goals.boxes(np.array([0]))
    assert (goals.records, low[0, 0], high[0, 0]) == (1, -1, -1)


def test_a_network_with_another_number_of_inputs_is_refused() -> None:
    with pytest.raises(MalformedInputError) as refusal:
        goals_of_property(mlp(0, 3, 3, 2), _parse(GOOD), "real")
    assert (refusal.value.path, refusal.value.expected) == ("property", "3")
