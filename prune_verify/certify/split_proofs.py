"""Proofs by cases: a plain branch and bound over signs of neurons, or over the input where it is small.

Every goal starts as one leaf. Leaves that the bounds leave open are split, worst first, until none is open or a limit
is reached. Bounds come from :mod:`prune_verify.certify.alpha_crown` (hints in float32) or from the checker's own
kernel; what is written is a proof, and whether it holds is the checker's answer.

Source: MATHS 5.2; branch and bound of beta-CROWN (arXiv 2103.06624).
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import numpy.typing as npt

from prune_verify.bounds.bounded import one_thread
from prune_verify.certify.alpha_crown import Chain, Split
from prune_verify.certify.errors import CertifyInputError
from prune_verify.checker.errors import ProofError
from prune_verify.checker.goals import Goals
from prune_verify.checker.interval import Box, Intervals
from prune_verify.checker.proof import Proof
from prune_verify.checker.relaxation import Hints, crown_intervals, lower_bounds

__all__ = ["Found", "prove_by_input_splits", "prove_by_relu_splits"]

_SPARE = 1e-4  # hints are float32: a leaf counts as closed only this far (and rounding) above what it has to reach
_BATCH = 64
_LEAF, _RELU, _INPUT, _LEMMA = range(4)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Found:
    """What branch and bound came to.

    Args:
        proof: for the goals that were closed; the others have choice -1.
        closed: which goals, as float hints have it.
        leaves: of all trees.
        seconds: spent.

    """

    proof: Proof
    closed: npt.NDArray[np.bool_]
    leaves: int
    seconds: float


@dataclass(eq=False)
class _Node:
    """A node of a tree: a leaf until it is split."""

    splits: tuple[Split, ...] = ()
    box: Box | None = None
    children: tuple[_Node, ...] = ()
    step: tuple[int, int, int] = (_LEAF, 0, -1)
    choice: int = 0
    multipliers: tuple[float, ...] = ()
    slopes: dict[int, npt.NDArray[np.float32]] | None = None


@dataclass(eq=False)
class _Trees:
    """The trees of one proof, written step by step."""

    steps: list[tuple[int, int, int]] = field(default_factory=list)
    cuts: list[float] = field(default_factory=list)
    multipliers: list[float] = field(default_factory=list)
    leaves: int = 0

    def write(self, root: _Node, slopes: int, *, lemma: bool) -> None:
        """Append one tree in pre-order; leaves take a set of slopes, and a lemma of their own if asked."""
        stack = [root]
        while stack:
            node = stack.pop()
            if node.children:
                kind, first, second = node.step
                if kind == _INPUT:
                    self.cuts.append(node.multipliers[0])
                    second = len(self.cuts) - 1
                self.steps.append((kind, first, second))
                stack += reversed(node.children)
                continue
            if lemma:
                self.steps.append((_LEMMA, -1, 0))
            self.steps.append((_LEAF, node.choice, slopes))
            self.multipliers += node.multipliers
            self.leaves += 1


def _one_box(goals: Goals) -> tuple[Box, Floats, Floats]:
    if goals.records != 1:
        text = f"branch and bound over one box at a time, not {goals.records}"
        raise CertifyInputError(text)
    record = np.zeros(1, dtype=np.int64)
    objectives, least = goals.constraint(record)
    return goals.boxes(record), objectives[0], least[0]


def _proof(
    goals: Goals, kind: str, choices: Sequence[int], trees: dict[int, _Node], written: _Trees, **more: object
) -> Proof:
    return Proof(
        kind=kind,
        arithmetic=goals.arithmetic,
        method="relaxation",
        network=goals.network.digest(),
        records=goals.records,
        choices=np.array(choices, dtype=np.int32),
        trees=np.array(sorted(trees), dtype=np.int32),
        steps=np.array(written.steps, dtype=np.int32).reshape(-1),
        cuts=np.array(written.cuts, dtype=np.float32),
        multipliers=np.array(written.multipliers, dtype=np.float32)
        if any(written.multipliers)
        else np.zeros(0, np.float32),
        **more,  # type: ignore[arg-type] # active and slopes, or nothing
    )


def prove_by_relu_splits(
    goals: Goals, kind: str = "property", *, iterations: int = 20, most: int = 4096, timeout: float = 60.0
) -> Found:
    """Branch and bound over the signs of unstable neurons, for one box.

    Args:
        goals: one record.
        kind: of the proof.
        iterations: of the optimiser, for each batch of leaves; the slopes of a goal are those of its root.
        most: leaves of one goal.
        timeout: seconds for all goals.

    Raises:
        CertifyInputError: several boxes, or a network that is no chain.

    """
    start = time.monotonic()
    (low, high), objectives, least = _one_box(goals)
    intervals = crown_intervals(goals.network, low, high, goals.arithmetic)
    chain, plain = Chain(goals.network, intervals), _plain_bounds(goals, intervals, objectives)
    written, trees, choices = _Trees(), dict[int, _Node](), []
    tables: list[dict[int, npt.NDArray[np.float32]]] = []
    for clause in range(goals.clauses):
        gaps = plain[clause] - least[clause]
        atom = int(np.argmax(gaps))
        choices.append(atom if gaps[atom] > 0 else -1)
        if gaps[atom] > 0:
            continue
        left = timeout - (time.monotonic() - start)
        with one_thread():
            spare = _rounding(goals, intervals, chain, objectives[clause][[atom]])
            target = least[clause][atom] + spare
            root, slopes = _grow(chain, objectives[clause][[atom]], target, atom, iterations, most, left)
        if root is not None:
            trees[clause] = root
            tables.append(slopes)
            written.write(root, len(tables) - 1, lemma=False)
    active, stacked = _tables(chain, tables)
    if not stacked:  # no neuron is unstable: the sets are empty and the leaves take rule crown
        written.steps = [(k, a, -1) if k == _LEAF else (k, a, b) for k, a, b in written.steps]
    proof = _proof(goals, kind, choices, trees, written, active=active, slopes=stacked)
    closed = np.array([choice >= 0 or clause in trees for clause, choice in enumerate(choices)])
    return Found(proof, closed, written.leaves, time.monotonic() - start)


def _plain_bounds(goals: Goals, intervals: Intervals, objectives: Floats) -> Floats:
    """Rule crown for every atom, by the checker's kernel."""
    flat = objectives.reshape(-1, objectives.shape[-1])
    rows = np.zeros(len(flat), dtype=np.int64)
    found = lower_bounds(goals.network, intervals, flat, Hints(), goals.arithmetic, rows)
    return found.reshape(objectives.shape[:2])


def _tables(
    chain: Chain, tables: list[dict[int, npt.NDArray[np.float32]]]
) -> tuple[dict[int, npt.NDArray[np.int32]], dict[int, npt.NDArray[np.float32]]]:
    """The slopes of all goals: unstable neurons only."""
    active, stacked = {}, {}
    for relu in chain.relus if tables else ():
        low, high = (end.numpy() for end in chain.pre[relu])
        places = np.flatnonzero((low < 0) & (high > 0)).astype(np.int32)
        if places.size:
            active[relu] = places
            stacked[relu] = np.stack([table[relu][places] for table in tables])
    return active, stacked


def _rounding(goals: Goals, intervals: Intervals, chain: Chain, objective: Floats) -> float:
    """How far the checker's bound lies below a hint: what float32 and the claim's own rounding take, twice over."""
    hint = float(chain.bound(objective, [()], 0).lower[0])
    crown = {}
    for relu, (low, high) in chain.pre.items():
        slopes = (high > -low).numpy().astype(np.float64)
        crown[relu] = slopes.reshape(1, *goals.network.nodes[relu].shape)
    rows = np.zeros(1, dtype=np.int64)
    (sound,) = lower_bounds(goals.network, intervals, objective, Hints(crown), goals.arithmetic, rows)
    return _SPARE + 2 * max(0.0, hint - float(sound))


def _grow(
    chain: Chain, objective: Floats, target: float, atom: int, iterations: int, most: int, timeout: float
) -> tuple[_Node | None, dict[int, npt.NDArray[np.float32]]]:
    """The tree of one goal, or None; and its slopes, optimised at the root."""
    end = time.monotonic() + timeout
    root = _Node(choice=atom)
    first = chain.bound(objective, [()], 4 * iterations)
    slopes = {relu: values[0] for relu, values in first.slopes.items()}
    order, size = count(), 1
    queue: list[tuple[float, int, _Node]] = [(float(first.lower[0]), next(order), root)]
    if first.lower[0] > target:
        return root, slopes
    scores = {id(root): {relu: values[0] for relu, values in first.scores.items()}}
    while queue:
        if size > most or time.monotonic() > end:
            return None, slopes
        batch = [heapq.heappop(queue)[2] for _ in range(min(_BATCH, len(queue)))]
        children = list[_Node]()
        for node in batch:
            place = _worst(scores.pop(id(node)), node.splits)
            if place is None:
                return None, slopes
            relu, neuron = place
            node.step = (_RELU, relu, neuron)
            node.children = tuple(
                _Node(splits=(*node.splits, (relu, neuron, below)), choice=atom) for below in (True, False)
            )
            children += node.children
        size += len(batch)
        starts = {relu: np.repeat(values[np.newaxis], len(children), axis=0) for relu, values in slopes.items()}
        rows = np.repeat(objective, len(children), axis=0)
        found = chain.bound(rows, [c.splits for c in children], iterations, starts, fixed=True)
        for row, child in enumerate(children):
            child.multipliers = tuple(float(found.multipliers[relu][row, place]) for relu, place, _ in child.splits)
            if not found.lower[row] > target:
                scores[id(child)] = {relu: values[row] for relu, values in found.scores.items()}
                heapq.heappush(queue, (float(found.lower[row]), next(order), child))
    return root, slopes


def _worst(scores: dict[int, npt.NDArray[np.float32]], splits: tuple[Split, ...]) -> tuple[int, int] | None:
    """The unstable neuron whose relaxation costs most, not split yet."""
    best, place = 0.0, None
    done = {(relu, neuron) for relu, neuron, _ in splits}
    for relu, values in scores.items():
        for neuron in np.argsort(-values)[: len(splits) + 1].tolist():
            if values[neuron] > best and (relu, neuron) not in done:
                best, place = float(values[neuron]), (relu, neuron)
    return place


def prove_by_input_splits(goals: Goals, kind: str = "property", *, most: int = 2**17, timeout: float = 60.0) -> Found:
    """Branch and bound over the input of a network with few inputs, for one box; every leaf tightens its enclosures.

    Args:
        goals: one record.
        kind: of the proof.
        most: leaves of one goal.
        timeout: seconds for all goals.

    Raises:
        CertifyInputError: several boxes.

    """
    start = time.monotonic()
    (low, high), objectives, least = _one_box(goals)
    written, trees = _Trees(), dict[int, _Node]()
    choices = [-1] * goals.clauses
    for clause in range(goals.clauses):
        left = timeout - (time.monotonic() - start)
        root = _cut(goals, objectives[clause], least[clause], (low, high), most, left)
        if root is not None:
            trees[clause] = root
            written.write(root, -1, lemma=True)
    proof = _proof(goals, kind, choices, trees, written)
    closed = np.array([clause in trees for clause in range(goals.clauses)])
    return Found(proof, closed, written.leaves, time.monotonic() - start)


def _cut(goals: Goals, objectives: Floats, least: Floats, box: Box, most: int, timeout: float) -> _Node | None:
    end, network = time.monotonic() + timeout, goals.network
    whole, root = crown_intervals(network, *box, goals.arithmetic), _Node(box=box)
    queue, size = [root], 1
    width = (box[1] - box[0]).reshape(-1)
    while queue:
        if size > most or time.monotonic() > end:
            return None
        batch, queue = queue[-512:], queue[:-512]
        low, high = (np.concatenate([node.box[side] for node in batch if node.box]) for side in (0, 1))
        try:
            within = _below(whole, low, high)  # as the checker has it: no bound may come out otherwise there
            intervals = crown_intervals(network, low, high, goals.arithmetic, within=within)
        except ProofError:
            return None
        rows = np.repeat(np.arange(len(batch)), goals.atoms)
        tiled = np.tile(objectives, (len(batch), 1))
        bounds = lower_bounds(network, intervals, tiled, Hints(), goals.arithmetic, rows).reshape(len(batch), -1)
        gaps = bounds - least - 1e-9 * (1 + np.abs(least))
        for row, node in enumerate(batch):
            node.choice = int(np.argmax(gaps[row]))
            if gaps[row, node.choice] > 0:
                continue
            one, other = low[row : row + 1].copy(), high[row : row + 1].copy()
            spans = (other - one).reshape(-1) / np.maximum(width, 1e-30)
            place = int(np.argmax(spans))
            middle = float(np.float32((one.reshape(-1)[place] + other.reshape(-1)[place]) / 2))
            if not one.reshape(-1)[place] < middle < other.reshape(-1)[place]:
                return None
            node.step, node.multipliers = (_INPUT, place, 0), (middle,)
            upper, lower = other.copy(), one.copy()
            upper.reshape(-1)[place] = lower.reshape(-1)[place] = middle
            node.children = _Node(box=(one, upper)), _Node(box=(lower, other))
            queue += node.children
            size += 1
    return root


def _below(whole: Intervals, low: Floats, high: Floats) -> Intervals:
    """The enclosures of the whole box for each of several boxes in it."""
    ends = [
        [np.repeat(end, len(low), axis=0) if len(end) == 1 else end for end in side]
        for side in (whole.lower, whole.upper)
    ]
    found = Intervals(ends[0], ends[1], whole.logits, np.zeros(len(low), dtype=np.bool_))
    found.narrow(0, (low, high))
    return found
