"""The question whether a goal fails: exact points for sat, no point for unsat, the same answer as other questions."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from prune_verify.certify import smt_network
from prune_verify.certify.smt_goals import decide_goal, goal_query, violates
from prune_verify.certify.smt_solver import Answer, solve
from prune_verify.checker.errors import LimitError, MalformedInputError, UnsupportedVersionError
from prune_verify.checker.goals import Goals
from prune_verify.checker.interval import interval_pass
from prune_verify.checker.network import Network, Node, evaluate_exact
from prune_verify.checker.relaxation import crown_intervals
from prune_verify.checker.rules import BINARY32, REAL
from prune_verify.checker.smt import forget_query
from tests.checker.random_networks import Builder, every_choice, every_operator, mlp

pytestmark = pytest.mark.prover
LIMITS = {"timeout": 30, "memory_mb": 1024}


def _goals(
    network: Network, rows: np.ndarray, least: np.ndarray, radius: float = 0.5, seed: int = 0, **changes
) -> Goals:
    """One record around a random centre; one clause with the atoms ``rows`` [atoms, labels], ``least`` [atoms]."""
    middle = np.random.default_rng(seed).uniform(-1, 1, (1, *network.input_shape)).astype(np.float32).astype(float)

    def constraint(records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return rows[np.newaxis, np.newaxis], np.asarray(least, dtype=float)[np.newaxis, np.newaxis]

    made = Goals(network, REAL, 1, 1, len(rows), lambda _: (middle - radius, middle + radius), constraint)
    return replace(made, **changes)


def _margins(labels: int, own: int) -> np.ndarray:
    return np.array([np.eye(labels)[j] - np.eye(labels)[own] for j in range(labels) if j != own])


def _grid(goals: Goals, steps: int) -> np.ndarray:
    """Points of the box as fractions [points, *input]: a grid with its corners."""
    low, high = (end.reshape(-1).tolist() for end in goals.boxes(np.zeros(1, dtype=np.int64)))
    axes = [
        [Fraction(a) + (Fraction(b) - Fraction(a)) * Fraction(k, steps) for k in range(steps + 1)]
        for a, b in zip(low, high, strict=True)
    ]
    points = list(product(*axes))
    found = np.empty((len(points), len(low)), dtype=object)
    for place, point in enumerate(points):
        found[place] = point
    return found.reshape(len(points), *goals.network.input_shape)


def _best(goals: Goals, points: np.ndarray) -> list[Fraction]:
    """At each point the largest amount by which an atom holds."""
    rows, least = (v[0, 0] for v in goals.constraint(np.zeros(1, dtype=np.int64)))
    found = []
    for logits in evaluate_exact(goals.network, points):
        values = [
            sum(Fraction(c) * y for c, y in zip(row, logits, strict=True)) - Fraction(end)
            for row, end in zip(rows.tolist(), least.tolist(), strict=True)
        ]
        found.append(max(values))
    return found


@pytest.mark.parametrize("seed", range(8))
def test_sat_has_a_point_and_unsat_has_none_on_a_grid(seed: int) -> None:
    """Thresholds on either side of what a grid reaches: just above it there is a point, well below it there is none."""
    network = mlp(seed, 2, 5, 4, 3)
    goals = _goals(network, _margins(3, seed % 3), np.zeros(2), seed=seed)
    points = _grid(goals, 20)
    worst = float(min(_best(goals, points)))
    for shift in (0.01, -0.05, -0.5, -3.0):
        moved = _goals(network, _margins(3, seed % 3), np.full(2, worst + shift), seed=seed)
        decision = decide_goal(moved, 0, 0, **LIMITS)
        assert decision.result in ("sat", "unsat")
        if decision.result == "sat":
            assert violates(moved, 0, 0, decision.point)
        else:
            assert shift < 0
            assert min(_best(moved, points)) >= 0
    assert decide_goal(_goals(network, _margins(3, 0), np.full(2, -1e3)), 0, 0, **LIMITS).result == "unsat"


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shift", [Fraction(1, 100), -Fraction(1, 100), Fraction(-1)])
def test_forget_goals_are_decided_as_the_checkers_own_question_is(seed: int, shift: Fraction) -> None:
    network = every_operator(seed) if seed % 2 else mlp(seed, 3, 6, 5, 3)
    rows = _margins(network.labels, 1)
    goals = _goals(network, rows, np.zeros(len(rows)), radius=0.125, seed=seed)
    corner = goals.boxes(np.zeros(1, dtype=np.int64))[0]
    margin = float(_best(goals, corner)[0] + shift)
    goals = _goals(network, rows, np.full(len(rows), margin), radius=0.125, seed=seed)
    low, high = ([Fraction(v) for v in end.reshape(-1).tolist()] for end in goals.boxes(np.zeros(1, dtype=np.int64)))
    assert decide_goal(goals, 0, 0, **LIMITS).result == solve(
        forget_query(network, low, high, 1, Fraction(margin)), 30, 1024
    )


@pytest.mark.parametrize(
    "network", [every_operator(1), every_choice(0), every_choice(1)], ids=["operators", "choices0", "choices1"]
)
def test_every_operator_is_exact_at_a_point_and_on_a_small_box(network: Network) -> None:
    """On one point the solver has no freedom: sat just above the value there, unsat at it."""
    rows = np.eye(3)[:1]
    point = _goals(network, rows, np.zeros(1), radius=0.0)
    value = _best(point, point.boxes(np.zeros(1, dtype=np.int64))[0])[0]
    for radius in (0.0, 2.0**-6):
        above = _goals(network, rows, np.array([np.nextafter(float(value), np.inf) + 1e-9]), radius=radius)
        assert decide_goal(above, 0, 0, **LIMITS).result == "sat"
    below = _goals(network, rows, np.array([np.nextafter(float(value), -np.inf) - 1e-9]), radius=0.0)
    assert decide_goal(below, 0, 0, **LIMITS).result == "unsat"


@pytest.mark.parametrize("seed", range(3))
def test_choices_reach_what_a_search_reaches_and_no_more_than_the_enclosure(seed: int) -> None:
    network = every_choice(seed)
    rows, rng = np.eye(3)[1:2], np.random.default_rng(seed)
    goals = _goals(network, rows, np.zeros(1), radius=2.0**-5)
    low, high = goals.boxes(np.zeros(1, dtype=np.int64))
    points = low + (high - low) * rng.choice([0.0, 0.25, 1.0], (40, *network.input_shape))
    reached = float(min(_best(goals, points)))
    sat = decide_goal(_goals(network, rows, np.array([reached + 1e-6]), radius=2.0**-5), 0, 0, **LIMITS)
    assert sat.result == "sat"
    bound = float(interval_pass(network, low, high, REAL).output()[0][0, 1])
    assert (
        decide_goal(_goals(network, rows, np.array([bound - 1e-3]), radius=2.0**-5), 0, 0, **LIMITS).result == "unsat"
    )


POOL = {"kernel": (3,), "strides": (1,), "pads": (1, 1), "dilations": (1,)}
LARGEST = [
    ("ReduceMax", (1, 3), Node("ReduceMax", (0,), (1,), {"axes": (1,), "keepdims": (0,)})),
    ("MaxPool", (1, 3), Node("MaxPool", (0,), (1, 3), POOL)),
    ("Max", (3,), None),
]


@pytest.mark.parametrize(("op", "shape", "node"), LARGEST, ids=[row[0] for row in LARGEST])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_range_of_a_maximum_is_exact(
    op: str, shape: tuple[int, ...], node: Node | None, order: tuple[int, ...], sign: int
) -> None:
    """On overlapping intervals, whichever comes first, the largest of three reaches exactly what it should."""
    low, high = (np.array(ends)[list(order)].reshape(1, *shape) for ends in ([-4.0, -1.0, -0.75], [3.0, 1.0, 0.75]))
    nodes = [Node("Input", (), shape)]
    if node is None:
        nodes += [Node("Gather", (0,), (1,), {"axis": (0,), "indices": (i,), "index_shape": (1,)}) for i in range(3)]
        node = Node("Max" if sign > 0 else "Min", (1, 2, 3), (1,))
        low, high = (low, high) if sign > 0 else (-high, -low)
    nodes.append(node)
    network = Network(tuple(nodes), len(nodes) - 1)
    row = np.zeros((1, network.labels))
    own = sign if node.op == "Min" else 1
    row[0, network.labels // 2] = 1.0  # of a pool the middle window, which sees everything
    for direction, reached in ((1, -0.75), (-1, -3.0)):  # the least and the greatest value of the maximum
        rows = direction * own * row
        for step, expected in ((1e-9, "sat"), (0.0, "unsat")):
            goals = _goals(network, rows, np.array([reached + step]), boxes=lambda _: (low, high))
            assert decide_goal(goals, 0, 0, **LIMITS).result == expected


def test_a_counterexample_hidden_in_a_corner_is_found() -> None:
    """One neuron is active in one corner of the cube only, all others are stable: neither may be dropped."""
    weight = np.array([[1, 1, 1], [1, 0, 0], [0, -1, 0]], dtype=np.float32)
    bias = np.array([-2.9375, 5, -5], dtype=np.float32)
    b = Builder(0, 3)
    hidden = b.relu(b.add("Linear", (0,), (3,), {"weight": weight, "bias": bias}, axis=(-1,)))
    out = np.array([[-32, 0, 0], [0, 0, 64]], dtype=np.float32)
    output = b.add("Linear", (hidden,), (2,), {"weight": out, "bias": np.ones(2, dtype=np.float32)}, axis=(-1,))
    network = Network(tuple(b.nodes), output)
    goals = _goals(network, np.eye(2)[:1], np.zeros(1), boxes=lambda _: (np.zeros((1, 3)), np.ones((1, 3))))
    decision = decide_goal(goals, 0, 0, **LIMITS)
    assert decision.result == "sat"
    assert sum(decision.point) > Fraction(29, 10)
    text = goal_query(
        network,
        crown_intervals(network, *goals.boxes(np.zeros(1, dtype=np.int64)), REAL),
        0,
        np.eye(2)[:1],
        np.zeros(1),
        strict=False,
    )
    assert text.count("(ite ") == 1
    assert (
        decide_goal(replace(goals, boxes=lambda _: (np.zeros((1, 3)), np.full((1, 3), 0.96875))), 0, 0, **LIMITS).result
        == "unsat"
    )


@pytest.mark.parametrize("seed", range(4))
def test_signs_of_a_leaf_partition_the_question(seed: int) -> None:
    """A goal fails if and only if it fails in one of the two cases of a neuron, at a point of that case."""
    network = mlp(seed, 2, 4, 3, 2)
    goals = _goals(network, np.eye(2)[:1], np.zeros(1), seed=seed)
    worst = float(min(_best(goals, _grid(goals, 8))))
    for shift in (0.01, -10.0):
        moved = _goals(network, np.eye(2)[:1], np.array([worst + shift]), seed=seed)
        whole = decide_goal(moved, 0, 0, **LIMITS).result
        halves = [decide_goal(moved, 0, 0, signs={(2, 1): below}, **LIMITS) for below in (True, False)]
        assert ("sat" in [half.result for half in halves]) == (whole == "sat")
        for below, half in zip((True, False), halves, strict=True):
            if half.result == "sat":
                point = np.array(half.point, dtype=object).reshape(1, 2)
                (value,) = evaluate_exact(Network(network.nodes[:2], 1), point)
                assert value[1] <= 0 if below else value[1] >= 0


@pytest.mark.parametrize(("strict", "expected"), [(False, "unsat"), (True, "sat")])
def test_an_atom_that_is_just_reached_holds_unless_it_is_strict(strict: bool, expected: str) -> None:
    identity = Network((Node("Input", (), (1,)),), 0)
    goals = _goals(
        identity, np.eye(1), np.array([0.25]), strict=strict, boxes=lambda _: (np.array([[0.25]]), np.ones((1, 1)))
    )
    assert decide_goal(goals, 0, 0, **LIMITS).result == expected


@pytest.mark.parametrize(
    ("least", "expected"),
    [([np.inf, -9.0], "unsat"), ([np.inf, 9.0], "sat"), ([-np.inf, 9.0], "unsat"), ([np.inf, np.inf], "sat")],
)
def test_atoms_that_never_or_always_hold(least: list[float], expected: str) -> None:
    identity = Network((Node("Input", (), (2,)),), 0)
    assert decide_goal(_goals(identity, np.eye(2), np.array(least)), 0, 0, **LIMITS).result == expected


def test_an_empty_case_has_no_point() -> None:
    network = mlp(0, 2, 4, 2)
    low, high = np.zeros((1, 2)), np.ones((1, 2))
    intervals = crown_intervals(network, low, high, REAL)
    intervals.empty[:] = True
    assert solve(goal_query(network, intervals, 0, np.eye(2), np.full(2, 1e3), strict=False), 10, 512) == "unsat"


def test_a_point_that_violates_nothing_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the solver says is not believed: neither a point outside the box nor one at which an atom holds."""
    goals = _goals(mlp(0, 2, 3, 2), np.eye(2), np.full(2, -100.0))
    for value in (Fraction(50), Fraction(0)):
        monkeypatch.setattr(
            "prune_verify.certify.smt_goals.solve_with_model", lambda *_, v=value: Answer("sat", {"x0": v, "x1": v})
        )
        assert decide_goal(goals, 0, 0, **LIMITS).result == "unknown"


ROOTS = {n: np.full(2, v, dtype=np.float32) for n, v in (("scale", 1), ("bias", 0), ("mean", 0), ("variance", 2))}
NORM = Network(
    (
        Node("Input", (), (2, 2)),
        Node("BatchNorm", (0,), (2, 2), {}, ROOTS | {"epsilon": np.zeros((), dtype=np.float32)}),
    ),
    1,
)
SQUARE = Network((Node("Input", (), (2,)), Node("Mul", (0, 0), (2,))), 1)
SMALL = mlp(0, 2, 3, 2)
REFUSED = [
    ("an irrational square root", NORM, np.eye(4), {}, (UnsupportedVersionError, "BatchNormalization")),
    ("a product of two values", SQUARE, np.eye(2), {}, (UnsupportedVersionError, "network")),
    ("too many products", mlp(0, 2, 1200, 1200), np.ones((1, 1200)), {}, (LimitError, "network")),
    ("atoms of another network", SMALL, np.eye(3), {}, (MalformedInputError, "SMT query")),
    ("a sign of what is no Relu", SMALL, np.eye(2), {(1, 0): True}, (MalformedInputError, "SMT query")),
    ("a sign of a neuron that is not there", SMALL, np.eye(2), {(2, 3): True}, (MalformedInputError, "SMT query")),
    ("none of these", SMALL, np.eye(2), {(2, 2): True}, None),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "network", "rows", "signs", "expected"), REFUSED, ids=[r[0] for r in REFUSED])
def test_what_is_refused(sentence, network, rows, signs, expected) -> None:
    low = np.zeros((1, *network.input_shape))
    intervals = interval_pass(network, low, low + 1, REAL)
    if expected is None:
        assert goal_query(network, intervals, 0, rows, np.zeros(len(rows)), strict=False, signs=signs).endswith(
            "(check-sat)\n"
        )
        return
    with pytest.raises(expected[0]) as refusal:
        goal_query(network, intervals, 0, rows, np.zeros(len(rows)), strict=False, signs=signs)
    assert refusal.value.path == expected[1]


def test_goals_in_binary32_and_texts_over_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    goals = _goals(SMALL, np.eye(2), np.zeros(2))
    with pytest.raises(UnsupportedVersionError):
        decide_goal(replace(goals, arithmetic=BINARY32), 0, 0, **LIMITS)
    monkeypatch.setattr(smt_network, "MAX_QUERY_BYTES", 100)
    with pytest.raises(LimitError):
        decide_goal(goals, 0, 0, **LIMITS)
