"""Goals at their bounds: strict and not, several clauses and boxes, hints that help and hints that do not, thin and empty cases."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from prune_verify.checker import goals as module
from prune_verify.checker.errors import ProofError
from prune_verify.checker.goals import Goals, decide_goals
from prune_verify.checker.interval import U64
from prune_verify.checker.network import Network, Node
from prune_verify.checker.proof import Proof
from prune_verify.checker.relaxation import Hints, crown_intervals, lower_bounds
from prune_verify.checker.rules import REAL
from prune_verify.checker.trees import Cut
from tests.checker.random_networks import mlp

IDENTITY = Network((Node("Input", (), (2,)),), 0)


def _i4(*values) -> np.ndarray:
    return np.array(values, dtype=np.int32).reshape(-1)


def _f4(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def _proof(**changes) -> Proof:
    return replace(Proof("property", REAL, "relaxation", "0" * 64, 1), **changes)


def _goals(
    network: Network, rows: np.ndarray, least: np.ndarray, low: np.ndarray, high: np.ndarray, **changes
) -> Goals:
    """``rows`` [clauses, atoms, labels] and ``least`` [records, clauses, atoms] on boxes [records, *input]."""
    count, clauses, atoms = least.shape

    def constraint(records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.broadcast_to(rows, (len(records), *rows.shape)), least[records]

    made = Goals(network, REAL, count, clauses, atoms, lambda records: (low[records], high[records]), constraint)
    return replace(made, **changes)


def _one(network: Network, least: float, **changes) -> Goals:
    """y_0 >= least on [-1, 1]^n."""
    ends = np.ones((1, *network.input_shape))
    return _goals(network, np.eye(network.labels)[:1][np.newaxis], np.full((1, 1, 1), least), -ends, ends, **changes)


def _tight(goals: Goals) -> float:
    """The bound of rule crown of the first atom of the first goal."""
    record = np.zeros(1, dtype=np.int64)
    intervals = crown_intervals(goals.network, *goals.boxes(record), REAL)
    return float(lower_bounds(goals.network, intervals, goals.constraint(record)[0][0, 0, :1], Hints(), REAL)[0])


@pytest.mark.parametrize("tree", [False, True])
def test_a_bound_that_is_just_reached_is_enough_unless_the_atom_is_strict(tree: bool) -> None:
    bound = _tight(_one(IDENTITY, 0.0))
    proof = _proof(trees=_i4(0), steps=_i4(0, 0, -1)) if tree else _proof()
    for least, strict, expected in (
        (bound, False, True), (bound, True, False), (np.nextafter(bound, 1), False, False), (np.nextafter(bound, -2), True, True),
    ):  # fmt: skip
        assert bool(decide_goals(_one(IDENTITY, float(least), strict=strict), proof, "p").all()) is expected


def test_every_clause_and_record_has_its_own_number() -> None:
    """Three boxes, two clauses: each clause holds on some boxes only, and only there."""
    low = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    rows = np.eye(2)[:, np.newaxis]
    goals = _goals(IDENTITY, rows, np.full((3, 2, 1), 0.5), low, low + 1)
    assert decide_goals(goals, _proof(), "p").tolist() == [[False, False], [True, False], [True, True]]
    some = decide_goals(goals, _proof(choices=_i4(0, 0, 0, 0, -1, 0)), "p")
    assert some.tolist() == [[False, False], [True, False], [False, True]]
    trees = _proof(choices=_i4(*[-1] * 6), trees=_i4(2, 5), steps=_i4(0, 0, -1, 0, 0, -1))
    assert decide_goals(goals, trees, "p").tolist() == [[False, False], [True, False], [False, True]]


def test_boxes_a_few_at_a_time_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever fits into a batch: every leaf and lemma keeps to its own box, with trees across the batches."""
    rng = np.random.default_rng(0)
    low = rng.uniform(-1, 1, (7, 3))
    network = mlp(1, 3, 6, 6, 2)
    rows = np.array([[[1.0, -1.0]], [[-1.0, 1.0]]])
    splits, sizes = _i4(*(1, 2, 0, 3, -1, 0, 0, 0, -1, 0, 0, -1) * 6), 3 + 4 * 6 + 2
    trees = _proof(trees=_i4(1, 6, 9, 10, 11, 13), steps=splits)
    for bar in (-2.0, 0.0, 1.0):
        goals = _goals(network, rows, np.full((7, 2, 1), bar), low, low + 0.3)
        found = []
        for cells in (2**21, 3 * sizes, 2 * sizes, 1):
            monkeypatch.setattr(module, "_CELLS", cells)
            found.append(decide_goals(goals, trees, "p").tolist())
        assert found[0] == found[1] == found[2] == found[3]
        alone = [
            decide_goals(_goals(network, rows, np.full((1, 2, 1), bar), low[i : i + 1], low[i : i + 1] + 0.3), _proof(), "p")
            for i in range(7)
        ]  # fmt: skip
        assert all(tree or not plain for tree, plain in zip(np.ravel(found[0]), np.ravel(alone), strict=True))
    assert 0 < np.sum(found[0]) < 14


def test_what_a_combination_has_to_reach_is_charged_for_its_own_rounding() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        least = rng.standard_normal((1, 1, 6)) * 10.0 ** rng.integers(-3, 4, 6)
        factors = (rng.integers(1, 2**16, 6) / 2**16).astype(np.float32)
        ends = np.ones((1, 2))
        goals = _goals(IDENTITY, np.zeros((1, 6, 2)), least, -ends, ends)
        proof = _proof(combinations=factors)
        _, target = module._combined(goals, proof, np.zeros(1, np.int64), np.full(1, 6), "p")
        parts = [Fraction(float(f)) * Fraction(float(t)) for f, t in zip(factors, least.reshape(-1), strict=True)]
        size = sum(abs(part) for part in parts)
        assert (
            sum(parts) + 10 * Fraction(U64) * size
            <= Fraction(float(target[0]))
            <= sum(parts) + 60 * Fraction(U64) * size
        )


def test_the_better_of_rule_crown_and_hints_counts() -> None:
    """Slopes that are worse than rule crown's take nothing away; better ones prove more."""
    network = mlp(3, 2, 6, 2)
    goals, rng = _one(network, 0.0), np.random.default_rng(0)
    crown = _tight(goals)
    places = _i4(*range(6))
    best, worst = None, None
    for _ in range(200):
        slopes = rng.random((1, 6)).astype(np.float32)
        (bound,) = lower_bounds(
            network, crown_intervals(network, *goals.boxes(np.zeros(1, np.int64)), REAL), np.eye(2)[:1],
            Hints({2: slopes}), REAL,
        )  # fmt: skip
        best = max(best or (bound, slopes), (bound, slopes), key=lambda one: one[0])
        worst = min(worst or (bound, slopes), (bound, slopes), key=lambda one: one[0])
    assert worst[0] < crown < best[0]
    between = float((crown + best[0]) / 2)
    for least, slopes, expected in (
        (between, best[1], True),
        (between, worst[1], False),
        (float(crown), worst[1], True),
    ):
        proof = _proof(hinted=_i4(0), active={2: places}, slopes={2: slopes})
        assert bool(decide_goals(_one(network, least), proof, "p").all()) is expected
        tree = _proof(trees=_i4(0), steps=_i4(0, 0, 0), active={2: places}, slopes={2: slopes})
        assert bool(decide_goals(_one(network, least), tree, "p").all()) is (expected and slopes is best[1])
    # a goal with hints beside one without
    two = _goals(
        network,
        np.repeat(np.eye(2)[:1][np.newaxis], 2, axis=0),
        np.array([[[between], [between]]]),
        -np.ones((1, 2)),
        np.ones((1, 2)),
    )
    for hinted in (0, 1):
        proof = _proof(hinted=_i4(hinted), active={2: places}, slopes={2: best[1]})
        assert decide_goals(two, proof, "p")[0].tolist() == [hinted == 0, hinted == 1]
    # leaves with a set of slopes beside leaves without, and the same under lemmas
    for lemma in ((), (3, -1, 0)):
        steps = (2, 0, 0, *lemma, 0, 0, 0, *lemma, 0, 0, -1)
        proof = _proof(trees=_i4(0), steps=_i4(*steps), cuts=_f4(0.0), active={2: places}, slopes={2: best[1]})
        low = float(crown) - 50
        assert decide_goals(_one(network, low), proof, "p").all()


def test_slopes_of_a_lemma_serve_its_subtree() -> None:
    """Somewhere a lemma with good slopes proves what one with rule crown does not; mixed sets keep to their own."""
    network, rng = mlp(6, 2, 5, 5, 2), np.random.default_rng(1)
    places = {2: _i4(*range(5)), 4: _i4(*range(5))}
    better = 0
    for _ in range(40):
        slopes = {node: rng.random((1, 5)).astype(np.float32) for node in (2, 4)}

        def least(which: int, slopes: dict = slopes) -> float:
            """The most that a tree of one lemma with that set proves, by bisection."""
            low, high = -300.0, 50.0
            for _ in range(30):
                middle = (low + high) / 2
                steps = _i4(3, which, 0, 0, 0, -1)
                proof = _proof(trees=_i4(0), steps=steps, active=places, slopes=slopes)
                low, high = (middle, high) if decide_goals(_one(network, middle), proof, "p").all() else (low, middle)
            return low

        gained = least(0) - least(-1)
        assert gained > -1e-3  # enclosures are intersected: a lemma cannot lose what was known
        better += gained > 1e-3
        steps = _i4(2, 0, 0, 3, 0, 0, 0, 0, -1, 3, -1, 0, 0, 0, -1)
        both = _proof(trees=_i4(0), steps=steps, cuts=_f4(0.0), active=places, slopes=slopes)
        assert decide_goals(_one(network, -300.0), both, "p").all()
    assert better > 0


def test_a_multiplier_has_its_sign() -> None:
    """y = relu(x) - x / 2 on [-1, 1] with the case x <= 0: at L = 0 the bound is 0 - 1/2 high; a multiplier moves it."""
    weight = {"weight": np.array([[1.0, -0.5]], np.float32)}
    nodes = (
        Node("Input", (), (1,)),
        Node("Relu", (0,), (1,)),
        Node("Concat", (1, 0), (2,), {"axis": (0,)}),
        Node("Linear", (2,), (1,), {"axis": (-1,)}, weight),
    )
    network = Network(nodes, 3)
    # x <= 0: y = -x/2 >= 0. x >= 0: y = x/2 >= 0. The enclosure of the input node is cut as well: exact without help.
    steps = _i4(1, 1, 0, 0, 0, -1, 0, 0, -1)
    assert decide_goals(_one(network, -1e-9), _proof(trees=_i4(0), steps=steps), "p").all()
    for first, second, expected in ((0.0, 0.0, True), (0.25, -0.25, True), (-3.0, 0.0, False), (0.0, 3.0, False)):
        proof = _proof(trees=_i4(0), steps=steps, multipliers=_f4(first, second))
        assert bool(decide_goals(_one(network, -1e-9), proof, "p").all()) is expected, (first, second)


def _two_atoms(least: float) -> Goals:
    """x_0 >= least, or an atom that never holds."""
    rows = np.array([[[1.0, 0.0], [0.0, 0.0]]])
    ends = np.ones((1, 2))
    return _goals(IDENTITY, rows, np.array([[[least, 1.0]]]), -ends, ends)


def test_a_thin_case_is_a_case_and_an_empty_one_is_none() -> None:
    steps = _i4(2, 0, 0, 0, 1, -1, 0, 0, -1)  # x_0 <= t: the atom that never holds; x_0 >= t: the one that does
    for cut, expected in ((-1.0, False), (np.nextafter(np.float32(-1), np.float32(-2)), True), (-0.5, False)):
        proof = _proof(trees=_i4(0), steps=steps, cuts=_f4(cut))
        assert bool(decide_goals(_two_atoms(-1.5), proof, "p").all()) is expected
    # the same under a lemma, and for two numbers of which one alone is out of reach
    for extra in ((3, -1, 0), ()):
        deep = _i4(2, 0, 0, *extra, 0, 1, -1, 0, 0, -1)
        assert decide_goals(_two_atoms(-1.5), _proof(trees=_i4(0), steps=deep, cuts=_f4(-2)), "p").all()
        assert not decide_goals(_two_atoms(-1.5), _proof(trees=_i4(0), steps=deep, cuts=_f4(-1)), "p").any()


def test_a_goal_with_a_tree_is_decided_by_the_tree_alone() -> None:
    """The first atom would do without the tree, whose leaf names the one that never holds."""
    for choice in (0, 1, -1):
        proof = _proof(choices=_i4(choice), trees=_i4(0), steps=_i4(0, 1, -1))
        assert not decide_goals(_two_atoms(-1.5), proof, "p").any()
    rows = np.array([[[0.0, 0.0], [1.0, 0.0]]])
    ends = np.ones((1, 2))
    swapped = _goals(IDENTITY, rows, np.array([[[1.0, -1.5]]]), -ends, ends)
    assert not decide_goals(swapped, _proof(trees=_i4(0), steps=_i4(0, 0, -1)), "p").any()


@pytest.mark.parametrize(
    ("row", "atoms", "accepted"),
    [
        ([1.0, -1.0], 2, True),
        ([256.0, 2.0**-16], 2, True),
        ([257.0, 1.0], 2, False),
        ([1.0, 300.0], 2, False),
        ([2.0**-17, 1.0], 2, False),
        ([1.0, 0.1], 2, False),
        ([1.0, -1.0], 256, True),
        ([1.0, -1.0], 257, False),
    ],
)
def test_what_can_be_combined(row: list[float], atoms: int, accepted: bool) -> None:
    rows = np.broadcast_to(np.array(row), (1, atoms, 2))
    ends = np.ones((1, 2))
    goals = _goals(IDENTITY, rows, np.full((1, 1, atoms), -1000.0), -ends, ends)
    proof = _proof(choices=_i4(atoms), combinations=_f4(*[0.5] * atoms))
    if accepted:
        assert decide_goals(goals, proof, "p").all()
        return
    with pytest.raises(ProofError) as refusal:
        decide_goals(goals, proof, "p")
    assert refusal.value.path == "p/choices"


def test_a_combination_of_nothing_is_refused_beside_good_ones() -> None:
    ends = np.ones((2, 2))
    goals = _goals(IDENTITY, np.eye(2)[np.newaxis], np.full((2, 1, 2), -5.0), -ends, ends)
    proof = _proof(records=2, choices=_i4(2, 3), combinations=_f4(0.5, 0.0, 0.0, 0.0))
    with pytest.raises(ProofError) as refusal:
        decide_goals(goals, proof, "p")
    assert refusal.value.path == "p/combinations"
    good = _proof(records=2, choices=_i4(2, 3), combinations=_f4(0.5, 0.0, 0.0, 0.25))
    assert decide_goals(goals, good, "p").all()


def test_what_a_combination_has_to_reach_is_rounded_up() -> None:
    """With factors 1/2 each, x_0 >= 1 - 2^-53 ... the sum of the ends is not a float: it must not be rounded down."""
    ends = np.full((1, 2), 1.0)
    tiny = 2.0**-60
    for least, expected in (((0.5, 0.5), True), ((1.0, 1.0 + 2.0**-52), False), ((1.0 + tiny, 1.0), False)):
        goals = _goals(IDENTITY, np.eye(2)[np.newaxis], np.array([[least]]), ends, ends)
        proof = _proof(choices=_i4(2), combinations=_f4(0.5, 0.5))
        assert bool(decide_goals(goals, proof, "p").all()) is expected


@pytest.mark.parametrize("node", [0, 1, 5])
def test_slopes_of_what_is_no_relu_are_refused(node: int) -> None:
    network = mlp(0, 2, 3, 3, 2)  # 0 input, 1 linear, 2 relu, 3 linear, 4 relu, 5 linear
    with pytest.raises(ProofError) as refusal:
        decide_goals(
            _one(network, -1e6),
            _proof(hinted=_i4(0), active={node: _i4(0)}, slopes={node: np.zeros((1, 1), np.float32)}),
            "p",
        )
    assert refusal.value.path == f"p/slopes/{node}"


def test_slopes_of_the_node_after_the_last_are_refused() -> None:
    network = mlp(0, 2, 3, 2)
    with pytest.raises(ProofError) as refusal:
        decide_goals(
            _one(network, -1e6),
            _proof(hinted=_i4(0), active={4: _i4(0)}, slopes={4: np.zeros((1, 1), np.float32)}),
            "p",
        )
    assert refusal.value.path == "p/slopes/4"


def test_cuts_of_several_rows_meet_their_own_row_only() -> None:
    network = IDENTITY
    low, high = -np.ones((2, 2)), np.ones((2, 2))
    intervals = crown_intervals(network, low, high, REAL)
    cuts = [(Cut(0, 0, 0.5, True), Cut(0, 1, 0.25, False)), (), (Cut(0, 0, -2.0, True),)]
    narrowed, empty = module._narrowed(intervals, np.array([0, 1, 1]), cuts)
    below, above = narrowed[0]
    assert below.tolist() == [[-1, 0.25], [-1, -1], [-1, -1]]
    assert above.tolist() == [[0.5, 1], [1, 1], [-1, 1]]
    assert empty.tolist() == [False, False, True]
