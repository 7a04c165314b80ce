"""Split trees: every way in which one can be incomplete is refused, and a complete one proves what its leaves prove."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_verify.checker.errors import CheckError, LimitError, ProofError
from prune_verify.checker.goals import Goals, decide_goals
from prune_verify.checker.network import Network, evaluate_exact
from prune_verify.checker.proof import Proof, emit, parse
from prune_verify.checker.rules import BINARY32, REAL
from prune_verify.checker.trees import MAX_DEPTH, leaves
from tests.checker.random_networks import mlp

NETWORK = mlp(0, 2, 4, 2)
RELU = 2
LEAF, CROWN = (0, 0, -1), -1


def _i4(*values) -> np.ndarray:
    return np.array(values, dtype=np.int32).reshape(-1)


def _proof(*steps: tuple[int, int, int], trees=(0,), **changes) -> Proof:
    made = Proof("property", REAL, "relaxation", "0" * 64, 1, trees=_i4(*trees), steps=_i4(*steps))
    return replace(made, **changes)


def _f4(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


SPLIT, CUT, LEMMA = (1, RELU, 0), (2, 1, 0), (3, -1, 0)
ONE_CUT = {"cuts": _f4(0.5)}
SETS = {"active": {RELU: _i4(0)}, "slopes": {RELU: np.zeros((2, 1), np.float32)}}
ROWS = [
    ("one leaf", _proof(LEAF), None),
    ("a ReLU split", _proof(SPLIT, LEAF, LEAF), None),
    ("an input split", _proof(CUT, LEAF, LEAF, **ONE_CUT), None),
    ("both, with lemmas", _proof(LEMMA, SPLIT, LEMMA, CUT, LEAF, LEAF, LEAF, **ONE_CUT), None),
    ("two trees", _proof(LEAF, SPLIT, LEAF, LEAF, trees=(0, 2)), None),
    ("multipliers", _proof(SPLIT, SPLIT, LEAF, LEAF, LEAF, multipliers=_f4(1, 2, 3, 4, 5)), None),
    ("a set of slopes", _proof(SPLIT, (0, 0, 1), LEAF, **SETS), None),
    ("no step at all", _proof(), (ProofError, "p/steps/0")),
    ("a missing leaf", _proof(SPLIT, LEAF), (ProofError, "p/steps/2")),
    ("a missing leaf deep below", _proof(SPLIT, SPLIT, LEAF, LEAF), (ProofError, "p/steps/4")),
    ("a lemma without a subtree", _proof(LEMMA), (ProofError, "p/steps/1")),
    ("a leaf twice", _proof(SPLIT, LEAF, LEAF, LEAF), (ProofError, "p/steps/3")),
    ("a tree too many", _proof(LEAF, LEAF), (ProofError, "p/steps/1")),
    ("a tree too few", _proof(LEAF, trees=(0, 1)), (ProofError, "p/steps/1")),
    ("a split of a Linear", _proof((1, 1, 0), LEAF, LEAF), (ProofError, "p/steps/0")),
    ("a split of the input node", _proof((1, 0, 0), LEAF, LEAF), (ProofError, "p/steps/0")),
    ("a split of no node", _proof((1, 99, 0), LEAF, LEAF), (ProofError, "p/steps/0")),
    ("a split of the node after the last", _proof((1, 4, 0), LEAF, LEAF), (ProofError, "p/steps/0")),
    ("infinite depth by cases", _proof(*[SPLIT] * (MAX_DEPTH + 2), *[LEAF] * (MAX_DEPTH + 3)), (LimitError, f"p/steps/{MAX_DEPTH + 1}")),
    ("a split of a negative node", _proof((1, -2, 0), LEAF, LEAF), (ProofError, "p/steps/0")),
    ("a split of no neuron", _proof((1, RELU, 4), LEAF, LEAF), (ProofError, "p/steps/0")),
    ("a split of a negative neuron", _proof((1, RELU, -1), LEAF, LEAF), (ProofError, "p/steps/0")),
    ("a cut of no coordinate", _proof((2, 2, 0), LEAF, LEAF, **ONE_CUT), (ProofError, "p/steps/0")),
    ("a cut of a negative coordinate", _proof((2, -1, 0), LEAF, LEAF, **ONE_CUT), (ProofError, "p/steps/0")),
    ("a cut nowhere", _proof((2, 0, 1), LEAF, LEAF, **ONE_CUT), (ProofError, "p/steps/0")),
    ("a cut at a negative place", _proof((2, 0, -1), LEAF, LEAF, **ONE_CUT), (ProofError, "p/steps/0")),
    ("no such step", _proof((4, 0, 0), LEAF, LEAF), (ProofError, "p/steps/0")),
    ("a negative step", _proof((-1, 0, 0), LEAF, LEAF), (ProofError, "p/steps/0")),
    ("a leaf without a choice", _proof((0, -1, -1)), (ProofError, "p/steps/0")),
    ("a leaf with slopes that are not there", _proof((0, 0, 0)), (ProofError, "p/steps/0")),
    ("a leaf with a set too high", _proof((0, 0, 2), **SETS), (ProofError, "p/steps/0")),
    ("a lemma with a set too high", _proof((3, 2, 0), LEAF, **SETS), (ProofError, "p/steps/0")),
    ("a leaf with a set below -1", _proof((0, 0, -2)), (ProofError, "p/steps/0")),
    ("a multiplier too few", _proof(SPLIT, LEAF, LEAF, multipliers=_f4(1)), (ProofError, "p/multipliers")),
    ("a multiplier too many", _proof(SPLIT, LEAF, LEAF, multipliers=_f4(1, 2, 3)), (ProofError, "p/multipliers")),
    ("infinite depth", _proof(*[LEMMA] * (MAX_DEPTH + 2), LEAF), (LimitError, f"p/steps/{MAX_DEPTH + 1}")),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "proof", "expected"), ROWS, ids=[row[0] for row in ROWS])
def test_steps(sentence: str, proof: Proof, expected: tuple[type[CheckError], str] | None) -> None:
    if expected is None:
        assert list(leaves(NETWORK, parse(emit(proof), "p"), "p"))
        return
    with pytest.raises(expected[0]) as refusal:
        list(leaves(NETWORK, proof, "p"))
    assert (type(refusal.value), refusal.value.path) == expected


def test_what_a_leaf_knows() -> None:
    proof = _proof(SPLIT, LEMMA, CUT, (0, 1, 1), LEAF, LEAF, **ONE_CUT, **SETS, multipliers=_f4(7, 8, 9))
    first, second, third = leaves(NETWORK, proof, "p")
    assert [(c.node, c.place, c.value, c.below) for c in first.cuts] == [(0, 1, 0.5, True)]
    assert [(c.node, c.place, c.value, c.below) for c in second.cuts] == [(0, 1, 0.5, False)]
    assert [(c.node, c.place, c.value, c.below) for c in first.lemma.cuts] == [(1, 0, 0.0, True)]
    assert [(c.node, c.below) for c in third.cuts] == [(1, False)]
    assert first.lemma is second.lemma
    assert first.lemma.above is not None
    assert (first.choice, first.slopes, first.splits) == (1, 1, ((RELU, 0, 7.0),))
    assert (third.lemma.above, third.splits) == (None, ((RELU, 0, 9.0),))


@st.composite
def trees(draw: st.DrawFn, depth: int = 4) -> list[tuple[int, int, int]]:
    kind = draw(st.integers(0, 3)) if depth else 0
    if kind == 0:
        return [LEAF]
    step = {1: (1, RELU, draw(st.integers(0, 3))), 2: (2, draw(st.integers(0, 1)), draw(st.integers(0, 2))), 3: LEMMA}[
        kind
    ]
    return [step, *(s for _ in range(1 if kind == 3 else 2) for s in draw(trees(depth - 1)))]


@given(trees(), st.data())
def test_every_point_of_the_box_lies_in_a_leaf_and_no_step_can_go(steps, data: st.DataObject) -> None:
    """Children cover the parent: whatever the point, one leaf's cuts hold there. Dropping any step breaks the tree."""
    cuts = _f4(-0.5, 0.0, 0.25)
    found = list(leaves(NETWORK, _proof(*steps, cuts=cuts), "p"))
    point = np.array(data.draw(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.1, 0.25, 1.0]), min_size=2, max_size=2)))
    pre = NETWORK.nodes[1].arrays["weight"].astype(float) @ point + NETWORK.nodes[1].arrays["bias"]

    def inside(cut) -> bool:
        value = (point if cut.node == 0 else pre)[cut.place]
        return value <= cut.value if cut.below else value >= cut.value

    def holds(leaf) -> bool:
        lemma, listed = leaf.lemma, list(leaf.cuts)
        while lemma is not None:
            listed += lemma.cuts
            lemma = lemma.above
        return all(inside(cut) for cut in listed)

    assert any(holds(leaf) for leaf in found)
    place = data.draw(st.integers(0, len(steps) - 1))
    if steps[place][0] != 3:
        with pytest.raises(ProofError):
            list(leaves(NETWORK, _proof(*steps[:place], *steps[place + 1 :], cuts=cuts), "p"))


# --- what trees prove ---


def _goals(network: Network, least: float, arithmetic: str = REAL, **changes) -> Goals:
    """y_0 - y_1 >= least on the box [-1, 1]^n; a second atom that never holds."""
    labels = np.eye(network.labels)
    rows = np.stack([labels[0] - labels[1], np.zeros(network.labels)])

    def constraint(records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shape = (len(records), 1, 2, network.labels)
        return np.broadcast_to(rows, shape), np.broadcast_to(np.array([least, 1.0]), (len(records), 1, 2))

    def boxes(records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ends = np.ones((len(records), *network.input_shape))
        return -ends, ends

    return replace(Goals(network, arithmetic, 1, 1, 2, boxes, constraint), **changes)


def _all_splits(network: Network, depth: int, lemma: bool) -> list[tuple[int, int, int]]:
    """The tree that splits the first neurons of the first layer, one after the other."""
    if not depth:
        return [LEMMA, LEAF] if lemma else [LEAF]
    below = _all_splits(network, depth - 1, lemma)
    return [(1, RELU, depth - 1), *below, *below]


def _least(network: Network) -> Fraction:
    """The exact minimum of y_0 - y_1 for one hidden layer of few neurons on [-1, 1]^2, by brute force over a fine grid
    of vertices: every vertex of the arrangement of the neurons' lines and the box."""
    weight, bias = (network.nodes[1].arrays[name] for name in ("weight", "bias"))
    lines = [([Fraction(float(v)) for v in w], Fraction(float(b))) for w, b in zip(weight, bias, strict=True)]
    one, zero = Fraction(1), Fraction(0)
    lines += [([one, zero], one), ([one, zero], -one), ([zero, one], one), ([zero, one], -one)]
    points = []
    for (a, c), (b, d) in product(lines, lines):
        det = a[0] * b[1] - a[1] * b[0]
        if det:
            x = [(-c * b[1] + d * a[1]) / det, (-a[0] * d + b[0] * c) / det]
            if all(-1 <= v <= 1 for v in x):
                points.append(x)
    values = evaluate_exact(network, np.array(points, dtype=object))
    return min(a - b for a, b in values)


@pytest.mark.parametrize("arithmetic", [REAL, BINARY32])
@pytest.mark.parametrize("lemma", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_with_every_neuron_split_the_exact_minimum_is_reached_and_never_passed(seed, lemma, arithmetic) -> None:
    """Every pattern of activation by brute force. After a full split only the box of each case is relaxed, so that some
    least below the minimum is proved; nothing above the minimum ever is."""
    network = mlp(seed, 2, 4, 2)
    least = _least(network)
    proof = _proof(*_all_splits(network, 4, lemma))
    assert decide_goals(_goals(network, float(least) - 40.0, arithmetic), proof, "p").all()
    for above in (1e-9, 1e-3, 1.0):
        assert not decide_goals(_goals(network, float(least) + above, arithmetic), proof, "p").any()


def test_splits_prove_more_than_no_splits_and_multipliers_more_than_splits() -> None:
    network, gained = mlp(3, 2, 4, 2), []
    for steps in ([LEAF], _all_splits(network, 4, lemma=True)):
        low, high = -200.0, float(_least(network))
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (
                (middle, high) if decide_goals(_goals(network, middle), _proof(*steps), "p").all() else (low, middle)
            )
        gained.append(low)
    assert gained[1] > gained[0]


@pytest.mark.parametrize("seed", range(8))
def test_hostile_multipliers_slopes_and_cuts_prove_nothing_false(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = mlp(seed, 2, 4, 2)
    least = float(_least(network))
    for scale in (1.0, 1e3, 1e30):
        steps = [(3, 1, 0), (2, 0, 0), *_all_splits(network, 3, lemma=False), *_all_splits(network, 2, lemma=True)]
        proof = _proof(*[(0, 0, int(rng.integers(-1, 2))) if s == LEAF else s for s in steps],
            cuts=_f4(rng.uniform(-2, 2)),
            multipliers=(scale * rng.standard_normal(3 * 8 + 2 * 4)).astype(np.float32),
            active={RELU: _i4(0, 2)}, slopes={RELU: (scale * rng.standard_normal((2, 2))).astype(np.float32)},
        )  # fmt: skip
        for arithmetic in (REAL, BINARY32):
            assert not decide_goals(_goals(network, least + 1e-9, arithmetic), proof, "p").any()


def test_an_empty_case_needs_no_bound() -> None:
    """x <= -2 is no case on [-1, 1]; x <= -1 is one, however thin."""
    goals = _goals(NETWORK, 1e6)
    steps = ((2, 0, 0), LEAF, LEAF)
    assert not decide_goals(goals, _proof(*steps, cuts=_f4(-2)), "p").any()
    impossible = ((2, 0, 0), (2, 0, 1), LEAF, LEAF, (2, 0, 1), LEAF, LEAF)
    easy = _goals(NETWORK, float(_least(NETWORK)) - 200.0)
    assert decide_goals(easy, _proof(*impossible, cuts=_f4(0.5, -2)), "p").all()
    # both sides: only if every leaf is empty may anything be proved, which no tree can bring about
    for cut in (-1.0, 1.0, 0.0, -0.999):
        assert not decide_goals(goals, _proof(*steps, cuts=_f4(cut)), "p").any()


def test_one_open_leaf_is_enough_to_prove_nothing() -> None:
    network, least = mlp(1, 2, 4, 2), float(_least(mlp(1, 2, 4, 2)))
    good = _all_splits(network, 4, lemma=True)
    goals = _goals(network, least - 40.0)
    assert decide_goals(goals, _proof(*good), "p").all()
    for place in [i for i, step in enumerate(good) if step == LEAF]:
        spoiled = [(0, 1, -1) if i == place else step for i, step in enumerate(good)]  # the atom that never holds
        assert not decide_goals(goals, _proof(*spoiled), "p").any()


def test_combinations() -> None:
    """max(a, b) with a = x, b = -x is at least 0, which neither atom shows alone; half of each does."""
    from prune_verify.checker.network import Node

    weight = {"weight": np.array([[1.0], [-1.0]], np.float32)}
    network = Network((Node("Input", (), (1,)), Node("Linear", (0,), (2,), {"axis": (-1,)}, weight)), 1)

    def constraint(records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.eye(2).reshape(1, 1, 2, 2), np.full((1, 1, 2), -1e-9)

    goals = replace(_goals(network, 0.0), constraint=constraint)
    for choice, factors, expected in ((0, (), False), (1, (), False), (2, (0.5, 0.5), True), (2, (0.75, 0.25), False)):
        proof = _proof(trees=(), choices=_i4(choice), combinations=_f4(*factors))
        assert bool(decide_goals(goals, proof, "p").all()) is expected
        tree = _proof((0, choice, -1), combinations=_f4(*factors))
        assert bool(decide_goals(goals, tree, "p").all()) is expected
    for choice, factors, path in (
        (2, (0.0, 0.0), "p/combinations"), (3, (0.5, 0.5), "p/choices"), (2, (), "p/choices"), (2, (0.5,), "p/choices"),
    ):  # fmt: skip
        with pytest.raises(ProofError) as refusal:
            decide_goals(goals, _proof(trees=(), choices=_i4(choice), combinations=_f4(*factors)), "p")
        assert refusal.value.path == path


def test_combinations_of_coefficients_that_cannot_be_summed_exactly_are_refused() -> None:
    def constraint(records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.full((1, 1, 2, 2), 0.1), np.zeros((1, 1, 2))

    goals = replace(_goals(NETWORK, 0.0), constraint=constraint)
    with pytest.raises(ProofError) as refusal:
        decide_goals(goals, _proof(trees=(), choices=_i4(2), combinations=_f4(0.5, 0.5)), "p")
    assert refusal.value.path == "p/choices"


BAD = [
    ("too many choices", {"trees": _i4(), "choices": _i4(0, 0)}, "p/choices"),
    ("a tree for no goal", {"trees": _i4(1)}, "p/trees"),
    ("hints for no goal", {"trees": _i4(), "hinted": _i4(1), **SETS}, "p/hinted"),
    ("slopes of a Linear", {"active": {1: _i4(0)}, "slopes": {1: np.zeros((1, 1), np.float32)}, "trees": _i4(), "hinted": _i4(0)}, "p/slopes/1"),
    ("slopes of no neuron", {"active": {2: _i4(4)}, "slopes": {2: np.zeros((1, 1), np.float32)}, "trees": _i4(), "hinted": _i4(0)}, "p/active/2"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "changes", "path"), BAD, ids=[row[0] for row in BAD])
def test_what_does_not_fit_is_refused(sentence: str, changes: dict, path: str) -> None:
    steps = _i4(*LEAF) if "trees" not in changes else _i4()
    with pytest.raises(ProofError) as refusal:
        decide_goals(_goals(NETWORK, 0.0), _proof(**{"steps": steps, **changes}), "p")
    assert refusal.value.path == path


def test_batches_of_leaves_give_what_all_at_once_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    from prune_verify.checker import goals as module

    network = mlp(2, 2, 4, 3, 2)
    steps = [(3, -1, 0), *_all_splits(network, 4, lemma=True)]
    answers = []
    for cells in (2**21, 1):
        monkeypatch.setattr(module, "_CELLS", cells)
        answers.append(
            [
                bool(decide_goals(_goals(network, float(least)), _proof(*steps), "p").all())
                for least in np.linspace(-30, 5, 36)
            ]
        )
    assert answers[0] == answers[1]
    assert 0 < sum(answers[0]) < 36
