"""Branch and bound over inputs and signs: trees that the checker accepts, limits, and none for what is false."""

from __future__ import annotations

import time
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from prune_verify.certify.input_splits import grow_by_input_splits
from prune_verify.certify.proof_trees import INPUT, RELU, Tree, TreeProof, merged
from prune_verify.certify.relaxed import OneBox, Relaxed
from prune_verify.certify.relu_splits import Grown, grow_by_relu_splits
from prune_verify.checker.goals import Goals, decide_goals
from prune_verify.checker.network import Network, evaluate, evaluate_exact
from prune_verify.checker.proof import emit, parse
from prune_verify.checker.relaxation import crown_intervals
from prune_verify.checker.rules import BINARY32, REAL
from prune_verify.checker.trees import leaves
from tests.certify.small_problems import crown_gaps, seen_gaps
from tests.checker.random_networks import every_operator, mlp

pytestmark = pytest.mark.prover

NETWORKS = [mlp(0, 3, 6, 6, 3), mlp(1, 2, 8, 8, 2), mlp(4, 4, 6, 5, 4), every_operator(3)]
PLACES = pytest.mark.parametrize("place", range(len(NETWORKS)))
SPARE = 1e-3


def _goals(network: Network, seed: int, least: float = 0.0, radius: float = 0.4, arithmetic: str = REAL) -> Goals:
    """One record and clause: that label 0 does not win by more than -least."""
    middle = np.random.default_rng(seed).uniform(-1, 1, (1, *network.input_shape)).astype(np.float32).astype(float)
    eye = np.eye(network.labels)
    rows = (eye[1:] - eye[0])[np.newaxis, np.newaxis]
    ends = np.full((1, 1, len(eye) - 1), least)
    return Goals(
        network,
        arithmetic,
        1,
        1,
        len(eye) - 1,
        lambda records: ((middle - radius)[records], (middle + radius)[records]),
        lambda records: (rows[records], ends[records]),
    )


def _between(network: Network, seed: int, share: float, **options: object) -> Goals:
    """A goal between what rule crown proves (share 0) and what was seen (share 1)."""
    goals = _goals(network, seed, **options)
    crown, seen = float(crown_gaps(goals)[0, 0]), float(seen_gaps(goals)[0, 0])
    assert crown < seen
    return _goals(network, seed, crown + share * (seen - crown), **options)


def _by_inputs(goals: Goals, most: int = 2**14, timeout: float = 20.0, spare: float = SPARE) -> tuple[Tree | None, str]:
    objectives, least = (values[0, 0] for values in goals.constraint(np.zeros(1, dtype=np.int64)))
    box = goals.boxes(np.zeros(1, dtype=np.int64))
    return grow_by_input_splits(goals.network, objectives, least + spare, box, most=most, timeout=timeout)


def _by_signs(goals: Goals, atom: int, spare: float = SPARE, **limits: object) -> Grown:
    chosen = np.zeros(1, dtype=np.int64)
    objectives, least = (values[0, 0] for values in goals.constraint(chosen))
    box = OneBox(Relaxed(goals.network), crown_intervals(goals.network, *goals.boxes(chosen), goals.arithmetic))
    given = {"iterations": 10, "most": 2000, "timeout": 20.0, **limits}
    return grow_by_relu_splits(box, objectives[[atom]], float(least[atom]) + spare, atom, **given)


def _accepted(goals: Goals, proof: TreeProof) -> bool:
    written = proof.write(goals, "property")
    assert emit(parse(emit(written), "p")) == emit(written)
    return bool(decide_goals(goals, written, "p").all())


def _nodes(tree: Tree) -> list[Tree]:
    found, stack = [], [tree]
    while stack:
        node = stack.pop()
        found.append(node)
        stack += node.children
    return found


@PLACES
@pytest.mark.parametrize("arithmetic", [REAL, BINARY32])
def test_trees_over_the_input_are_accepted(place: int, arithmetic: str) -> None:
    goals = _between(NETWORKS[place], place, 0.6, arithmetic=arithmetic)
    tree, why = _by_inputs(goals)
    assert (tree is not None, why) == (True, "closed")
    assert _accepted(goals, TreeProof(trees={0: (tree, None)}))
    assert not _accepted(goals, TreeProof(trees={0: (Tree(), None)}))  # the whole box as one leaf is not enough
    assert all(node.step[0] == INPUT for node in _nodes(tree) if node.children)


@PLACES
def test_leaves_over_the_input_cover_the_box(place: int) -> None:
    """Every point of the box meets the cuts of a leaf, and the atom chosen there holds at it."""
    goals = _between(NETWORKS[place], place, 0.6)
    tree, _ = _by_inputs(goals)
    proof = TreeProof(trees={0: (tree, None)}).write(goals, "property")
    chosen = np.zeros(1, dtype=np.int64)
    low, high = (end.reshape(-1) for end in goals.boxes(chosen))
    objectives, least = (values[0, 0] for values in goals.constraint(chosen))
    points = np.random.default_rng(place).uniform(low, high, (200, low.size)).astype(np.float32)
    cuts = {node.cut for node in _nodes(tree) if node.children}
    points[:50, 0] = np.random.default_rng(place).choice(sorted(cuts), 50)  # points on a cut as well
    met = np.zeros(200, dtype=bool)
    logits = evaluate(goals.network, points.reshape(200, *goals.network.input_shape)).astype(np.float64)
    for leaf in leaves(goals.network, proof, "p"):
        inside, above = np.ones(200, dtype=bool), leaf.lemma
        while above is not None:
            for cut in (*above.cuts, *leaf.cuts):
                value = points[:, cut.place]
                inside &= value <= cut.value if cut.below else value >= cut.value
            above = above.above
        met |= inside
        within = inside & ((low <= points) & (points <= high)).all(axis=1)
        assert (logits[within] @ objectives[leaf.choice] >= least[leaf.choice]).all()
    assert met.all()


@PLACES
@pytest.mark.parametrize("arithmetic", [REAL, BINARY32])
def test_trees_over_signs_are_accepted(place: int, arithmetic: str) -> None:
    network = NETWORKS[place]
    least, atoms = _goals(network, place, arithmetic=arithmetic), network.labels - 1
    crown = [float(crown_gaps(_one_atom(least, atom))[0, 0]) for atom in range(atoms)]
    seen = [float(seen_gaps(_one_atom(least, atom))[0, 0]) for atom in range(atoms)]
    atom = int(np.argmax(np.array(seen) - crown))
    goals = _goals(network, place, crown[atom] + 0.2 * (seen[atom] - crown[atom]), arithmetic=arithmetic)
    grown = _by_signs(goals, atom)
    assert (grown.why, grown.point) == ("closed", None)
    assert _accepted(goals, TreeProof(trees={0: (grown.tree, grown.slopes)}))
    inner = [node for node in _nodes(grown.tree) if node.children]
    assert all(node.step[0] == RELU for node in inner)
    for node in _nodes(grown.tree):
        assert len(set(node.splits)) == len(node.splits)
        assert all((relu, neuron, not below) not in node.splits for relu, neuron, below in node.splits)
        assert not node.children or {child.splits[:-1] for child in node.children} == {node.splits}


def _one_atom(goals: Goals, atom: int) -> Goals:
    def constraint(records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        objectives, least = goals.constraint(records)
        return objectives[:, :, [atom]], least[:, :, [atom]]

    return replace(goals, atoms=1, constraint=constraint)


def test_multipliers_prove_what_splits_alone_do_not() -> None:
    """Trees that the checker accepts, and without the multipliers of their leaves it leaves one of them open."""
    needed = []
    for seed in range(4):
        goals = _between(mlp(7 + seed, 18, 8, 8, 2, scale=0.5), seed, 0.4)
        for atom in range(goals.atoms):
            grown = _by_signs(goals, atom, most=60)
            if grown.tree is not None and grown.tree.children:
                proof = TreeProof(trees={0: (grown.tree, grown.slopes)}).write(goals, "property")
                assert decide_goals(goals, proof, "p").all()
                bare = replace(proof, multipliers=proof.multipliers[:0])
                needed.append(not decide_goals(goals, bare, "p").all())
    assert any(needed)


@pytest.mark.parametrize("seed", range(3))
def test_false_goals_never_have_an_accepted_tree(seed: int) -> None:
    """A little more than the least value seen exactly: neither search closes it, and forced trees are not accepted."""
    network = NETWORKS[seed % 3]
    goals = _goals(network, seed)
    worst = _least_at_corners(goals)
    goals = _goals(network, seed, float(worst) + 1e-6)
    tree, why = _by_inputs(goals, most=60, spare=0.0)
    assert tree is None
    assert why == "splits"
    for atom in range(goals.atoms):
        grown = _by_signs(goals, atom, spare=0.0, most=8, iterations=2)
        assert grown.tree is None
        assert grown.why in ("splits", "complete")
        assert grown.bound <= float(worst) + 1e-4
    # a search that is told to reach less gives a tree, which proves that less and nothing more
    easy, _ = _by_inputs(goals, spare=-5.0)
    assert easy is not None
    assert not _accepted(goals, TreeProof(trees={0: (easy, None)}))


def _least_at_corners(goals: Goals) -> Fraction:
    """The least by which the clause holds at some points of the box, exactly."""
    chosen = np.zeros(1, dtype=np.int64)
    low, high = (end[0] for end in goals.boxes(chosen))
    shares = np.random.default_rng(0).integers(0, 3, (150, *low.shape)) / 2
    points = np.clip(low + shares * (high - low), low, high)
    objectives, least = (values[0, 0] for values in goals.constraint(chosen))
    found = []
    for logits in evaluate_exact(goals.network, points):
        values = [
            sum((Fraction(f) * y for f, y in zip(row, logits, strict=True)), Fraction(0)) - Fraction(end)
            for row, end in zip(objectives.tolist(), least.tolist(), strict=True)
        ]
        found.append(max(values))
    return min(found)


@pytest.mark.parametrize("place", range(3))
def test_limits_are_kept(place: int) -> None:
    goals = _between(NETWORKS[place], place, 0.9)
    assert _by_inputs(goals, most=0) == (None, "splits")
    assert _by_inputs(goals, timeout=-1.0) == (None, "time")
    for atom in range(goals.atoms):
        assert _by_signs(goals, atom, most=0).why == "splits"
        start = time.monotonic()
        assert _by_signs(goals, atom, timeout=-1.0).why == "time"
        assert time.monotonic() - start < 5
        grown = _by_signs(goals, atom, most=7)
        if grown.tree is not None:
            assert sum(not node.children for node in _nodes(grown.tree)) <= 14


def test_a_point_that_breaks_the_goal_ends_the_search() -> None:
    goals = _goals(NETWORKS[0], 0, 50.0)
    asked = []

    def broken(points: np.ndarray) -> np.ndarray:
        asked.append(points)
        return points[0]

    grown = _by_signs(goals, 0, broken=broken)
    low, high = goals.boxes(np.zeros(1, dtype=np.int64))
    assert (grown.tree, grown.why) == (None, "broken")
    assert (grown.point == asked[0][0]).all()
    assert len(asked) == 1
    assert ((low - 1e-6 <= asked[0]) & (asked[0] <= high + 1e-6)).all()


def test_a_goal_that_the_root_closes_is_one_leaf() -> None:
    goals = _goals(NETWORKS[0], 0, -100.0)
    tree, why = _by_inputs(goals)
    assert (tree.children, why) == ((), "closed")
    grown = _by_signs(goals, 1)
    assert (grown.tree.children, grown.tree.choice, grown.why) == ((), 1, "closed")
    assert grown.bound > -100.0 + SPARE


def test_a_network_without_an_open_sign_is_complete_at_once() -> None:
    goals = _goals(mlp(0, 3, 2), 0, 50.0)
    grown = _by_signs(goals, 0)
    assert (grown.tree, grown.why) == (None, "complete")


def test_the_same_tree_twice() -> None:
    goals = _between(NETWORKS[2], 2, 0.6)
    proofs = []
    for _ in range(2):
        tree, _ = _by_inputs(goals)
        proofs.append(emit(TreeProof(trees={0: (tree, None)}).write(goals, "property")))
    assert proofs[0] == proofs[1]


def _records(goals: Goals, count: int) -> Goals:
    """The same record several times, twice the clause."""
    none = np.zeros(1, dtype=np.int64)

    def boxes(records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return tuple(np.repeat(end, len(records), axis=0) for end in goals.boxes(none))

    def constraint(records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return tuple(np.repeat(np.repeat(v, 2, axis=1), len(records), axis=0) for v in goals.constraint(none))

    return replace(goals, records=count, clauses=2, boxes=boxes, constraint=constraint)


def test_parts_of_a_proof_move_to_other_records_and_merge() -> None:
    one = _between(NETWORKS[0], 0, 0.6)
    tree, _ = _by_inputs(one)
    both = TreeProof(choices={0: 0, 1: 0}, trees={0: (tree, None), 1: (tree, None)})
    goals = _records(one, 3)
    for records in ([0], [2], [0, 2], [1, 0]):
        parts = [both.shifted([record], 2) for record in records]
        decided = decide_goals(goals, merged(parts).write(goals, "property"), "p")
        assert np.flatnonzero(decided.all(axis=1)).tolist() == sorted(records)
    half = merged([both.shifted([record], 2) for record in range(3)]).only([0, 1, 4])
    assert decide_goals(goals, half.write(goals, "property"), "p").reshape(-1).tolist() == [1, 1, 0, 0, 1, 0]
    assert half.leaves() == 3 * both.only([0]).leaves()
