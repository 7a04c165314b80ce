"""Goals: what has to hold of the logits on a box, decided from bounds that are computed here.

A claim over records gives every record a box and a constraint in conjunctive form: *clauses*, each a list of *atoms*
``c . y >= least``. The claim holds for the record if on its box every clause has, for every execution, an atom
that holds. A *goal* is one clause of one record; its number is ``record * clauses + clause``. The rules:

atom         c . N(x) >= least on the box, by a lower bound
combination  factors f >= 0, not all 0: if sum f_a (c_a . y) >= sum f_a least_a, then one atom holds at y
cases        a goal holds if it holds in every leaf of a tree of cases; a leaf whose enclosures have nothing in
             common is no case at all

Enclosures of all values are computed once for each box (and anew where a tree has a lemma), never read.

Source: MATHS 5.2; certs/SPEC.md sections 5.2 to 5.4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from math import prod

import numpy as np
import numpy.typing as npt

from prune_verify.checker.errors import ProofError
from prune_verify.checker.interval import U64, Box, Floats, Intervals, interval_pass
from prune_verify.checker.network import Network
from prune_verify.checker.proof import Proof
from prune_verify.checker.relaxation import Hints, crown_intervals, lower_bounds
from prune_verify.checker.trees import CROWN, Cut, Leaf, Lemma, leaves

__all__ = ["Goals", "decide_goals"]

_CELLS = 2**21  # numbers of all values of a batch of boxes
_GRID, _MOST = 2.0**16, 2.0**8  # objectives that can be combined without rounding
_MOST_ATOMS = 256

Bools = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Goals:
    """The goals of a claim.

    Args:
        network: whose output the atoms speak of.
        arithmetic: ``real`` or ``ieee754-binary32``.
        records: how many.
        clauses: of each record.
        atoms: of each clause.
        boxes: of some records: float64 lower and upper ends [records, *input_shape].
        constraint: of some records: c [records, clauses, atoms, labels], exact, and least [records, clauses, atoms].
        strict: whether an atom is ``>`` instead of ``>=``.
        exact: whether bounds are computed in integers.
        partners: by ``Relu`` node of the later of two networks side by side: the node of the other to compare it with.

    """

    network: Network
    arithmetic: str
    records: int
    clauses: int
    atoms: int
    boxes: Callable[[Rows], Box]
    constraint: Callable[[Rows], tuple[Floats, Floats]]
    strict: bool = False
    exact: bool = False
    partners: Mapping[int, int] = field(default_factory=dict)

    def holds(self, bound: Floats, least: Floats) -> Bools:
        """Whether a lower ``bound`` is enough, at ``least`` what its goal demands."""
        return bound > least if self.strict else bound >= least


def _combined(goals: Goals, proof: Proof, numbers: Rows, choices: Rows, path: str) -> tuple[Floats, Floats]:
    """Rules atom and combination: one objective [goals, labels], exact, and what it has to reach, rounded up."""
    records, places = np.unique(numbers // goals.clauses, return_inverse=True)
    objectives, least = goals.constraint(records)
    objectives, least = objectives[places, numbers % goals.clauses], least[places, numbers % goals.clauses]
    factors = np.eye(goals.atoms)[np.minimum(choices, goals.atoms - 1)]
    mixed = choices >= goals.atoms
    if mixed.any():
        table = proof.combinations.astype(np.float64).reshape(-1, goals.atoms)
        if int(choices.max()) - goals.atoms >= len(table):
            raise ProofError(f"{path}/choices", "choice", f"below {goals.atoms + len(table)}", str(int(choices.max())))
        factors[mixed] = table[choices[mixed] - goals.atoms]
        _require_combinable(objectives[mixed], factors[mixed], path)
    target = np.einsum("ga,ga->g", factors, least)
    lost = 2 * (goals.atoms + 4) * U64 * np.einsum("ga,ga->g", factors, np.abs(least))
    found = np.einsum("ga,gal->gl", factors, objectives)
    return found, np.where(mixed, np.nextafter(target + lost, np.inf), target)


def _require_combinable(objectives: Floats, factors: Floats, path: str) -> None:
    """Factors are not all 0, and products and sums of at most 256 atoms are exact in float64."""
    exact = (objectives * _GRID == np.floor(objectives * _GRID)).all() and (np.abs(objectives) <= _MOST).all()
    if not exact or factors.shape[1] > _MOST_ATOMS:
        raise ProofError(f"{path}/choices", "combination", "atoms with coefficients of few bits", "others")
    if not (factors > 0).any(axis=1).all():
        raise ProofError(f"{path}/combinations", "combination", "a factor above 0", "none")


def _slopes(goals: Goals, proof: Proof, sets: Rows, path: str) -> dict[int, Floats]:
    """The slopes of each bound from the rows of the tables; NaN (rule crown) where a proof has none."""
    found = {}
    for node, table in proof.slopes.items():
        if not 0 < node < len(goals.network.nodes) or goals.network.nodes[node].op != "Relu":
            raise ProofError(f"{path}/slopes/{node}", "slopes", "those of a Relu", "another node")
        shape, places = goals.network.nodes[node].shape, proof.active[node]
        if int(places[-1]) >= prod(shape):
            raise ProofError(f"{path}/active/{node}", "place of a neuron", f"below {prod(shape)}", str(int(places[-1])))
        values = np.full((len(sets), prod(shape)), np.nan)
        chosen = np.flatnonzero(sets != CROWN)
        values[np.ix_(chosen, places)] = table[sets[chosen]]
        found[node] = values.reshape(-1, *shape)
    return found


class _Roots:
    """The enclosures of whole boxes, kept as long as the same boxes are asked for."""

    def __init__(self, goals: Goals) -> None:
        self.goals, self.records = goals, np.empty(0, dtype=np.int64)
        self.intervals: Intervals | None = None

    def of(self, records: Rows) -> tuple[Intervals, Rows]:
        """Enclosures, and which of their rows belong to the records."""
        known, places = np.unique(records, return_inverse=True)
        if self.intervals is None or not np.isin(known, self.records).all():
            self.records = known
            goals = self.goals
            boxes = goals.boxes(known)
            self.intervals = crown_intervals(
                goals.network, *boxes, goals.arithmetic, exact=goals.exact, partners=goals.partners
            )
        return self.intervals, np.searchsorted(self.records, known)[places]


def _batches(network: Network, count: int) -> Iterator[Rows]:
    step = max(1, _CELLS // sum(prod(node.shape) for node in network.nodes))
    for start in range(0, count, step):
        yield np.arange(start, min(start + step, count))


def decide_goals(goals: Goals, proof: Proof, path: str) -> Bools:
    """Decide every goal that a proof has a choice or a tree for.

    Args:
        goals: what is claimed.
        proof: of this claim and this network (the caller has compared them).
        path: the proof's name, for errors.

    Returns:
        [records, clauses]: which goals are proved.

    Raises:
        ProofError: the proof names what is not there, or a tree is not complete.
        UnsupportedVersionError: an operator without a rule.
        LimitError: a tree is too deep.

    """
    total = goals.records * goals.clauses
    choices = proof.choices.astype(np.int64) if proof.choices.size else np.zeros(total, dtype=np.int64)
    if choices.size != total or len(proof.combinations) % goals.atoms:
        raise ProofError(f"{path}/choices", "choices", f"one per goal: {total}", str(choices.size))
    for name, listed in (("hinted", proof.hinted), ("trees", proof.trees)):
        if listed.size and int(listed[-1]) >= total:
            raise ProofError(f"{path}/{name}", "goal", f"below {total}", str(int(listed[-1])))
    proved, roots = np.zeros(total, dtype=np.bool_), _Roots(goals)
    choices[proof.trees] = -1
    sets = np.full(total, CROWN, dtype=np.int64)
    sets[proof.hinted] = np.arange(len(proof.hinted))
    for records in _batches(goals.network, goals.records):
        numbers = (records[:, np.newaxis] * goals.clauses + np.arange(goals.clauses)).reshape(-1)
        numbers = numbers[choices[numbers] >= 0]
        if numbers.size:
            proved[numbers] = _without_cases(roots, proof, numbers, choices[numbers], sets[numbers], path)
    _by_cases(roots, proof, proved, path)
    return proved.reshape(goals.records, goals.clauses)


def _without_cases(roots: _Roots, proof: Proof, numbers: Rows, choices: Rows, sets: Rows, path: str) -> Bools:
    """Goals that are decided on the whole box: by rule crown over intervals, over tightened enclosures, with slopes."""
    goals = roots.goals
    records, rows = np.unique(numbers // goals.clauses, return_inverse=True)
    objectives, least = _combined(goals, proof, numbers, choices, path)

    def bounded(chosen: Rows, known: Intervals, places: Rows, hints: Hints) -> Bools:
        exact, arithmetic = goals.exact, goals.arithmetic
        found = lower_bounds(goals.network, known, objectives[chosen], hints, arithmetic, places, exact=exact)
        return goals.holds(found, least[chosen])

    hinted = np.flatnonzero(sets != CROWN)
    hints = Hints(_slopes(goals, proof, sets[hinted], path) if hinted.size else {})  # refused even where not needed
    proved = np.zeros(len(numbers), dtype=np.bool_)
    with suppress(ProofError):  # what overflows in plain intervals need not in tightened ones
        plain = interval_pass(goals.network, *goals.boxes(records), goals.arithmetic)
        proved = bounded(np.arange(len(numbers)), plain, rows, Hints())
    left = np.flatnonzero(~proved)
    if left.size:
        intervals, places = roots.of(numbers[left] // goals.clauses)
        proved[left] = bounded(left, intervals, places, Hints())
        again = ~proved[hinted]
        if again.any():
            chosen = hinted[again]
            part = hints.part(np.flatnonzero(again))
            proved[chosen] = bounded(chosen, intervals, places[np.searchsorted(left, chosen)], part)
    return proved


def _by_cases(roots: _Roots, proof: Proof, proved: Bools, path: str) -> None:
    """Rule cases: a goal is proved if every leaf of its tree is."""
    goals = roots.goals
    proved[proof.trees] = True
    step = len(next(_batches(goals.network, _CELLS)))
    stream = leaves(goals.network, proof, path)
    while batch := list(islice(stream, step)):
        for intervals, rows, members in _levels(roots, proof, batch, path):
            _close(goals, proof, intervals, rows, members, proved, path)


def _close(
    goals: Goals, proof: Proof, intervals: Intervals, rows: Rows, batch: list[Leaf], proved: Bools, path: str
) -> None:
    """Decide leaves whose enclosures are rows of ``intervals``; a goal with a leaf that stays open is not proved."""
    numbers = np.array([leaf.goal for leaf in batch], dtype=np.int64)
    choices = np.array([leaf.choice for leaf in batch], dtype=np.int64)
    sets = np.array([leaf.slopes for leaf in batch], dtype=np.int64)
    objectives, least = _combined(goals, proof, numbers, choices, path)
    narrowed, empty = _narrowed(intervals, rows, [leaf.cuts for leaf in batch])
    slopes = _slopes(goals, proof, sets, path) if (sets != CROWN).any() else {}
    hints = Hints(slopes, _shifts(goals.network, batch), narrowed)
    found = lower_bounds(goals.network, intervals, objectives, hints, goals.arithmetic, rows, exact=goals.exact)
    closed = empty | goals.holds(found, least)
    proved[numbers[~closed]] = False


def _shifts(network: Network, batch: list[Leaf]) -> dict[int, Floats]:
    """The multipliers of splits, where they are added to L."""
    found: dict[int, Floats] = {}
    for row, leaf in enumerate(batch):
        for node, place, value in leaf.splits:
            if value:
                if node not in found:
                    found[node] = np.zeros((len(batch), prod(network.nodes[node].shape)))
                found[node][row, place] += value
    return {node: values.reshape(-1, *network.nodes[node].shape) for node, values in found.items()}


def _narrowed(intervals: Intervals, rows: Rows, cuts: Iterable[tuple[Cut, ...]]) -> tuple[dict[int, Box], Bools]:
    """Enclosures after the cuts of each row, by node, and which rows have none left."""
    listed: dict[int, list[tuple[int, Cut]]] = {}
    for row, members in enumerate(cuts):
        for cut in members:
            listed.setdefault(cut.node, []).append((row, cut))
    found, empty = {}, intervals.empty[rows]
    for node, entries in listed.items():
        low, high = (
            np.array(np.broadcast_to(end, (len(intervals.empty), *end.shape[1:]))[rows]) for end in intervals.box(node)
        )
        shape, low, high = low.shape, low.reshape(len(rows), -1), high.reshape(len(rows), -1)
        for ends, keep, below in ((high, np.minimum, True), (low, np.maximum, False)):
            chosen = [(row, cut.place, cut.value) for row, cut in entries if cut.below is below]
            if chosen:
                at, places, values = zip(*chosen, strict=True)
                keep.at(ends, (np.array(at), np.array(places)), np.array(values))
        empty = empty | (low > high).any(axis=1)
        found[node] = low.reshape(shape), np.maximum(low, high).reshape(shape)
    return found, empty


def _levels(roots: _Roots, proof: Proof, batch: list[Leaf], path: str) -> Iterator[tuple[Intervals, Rows, list[Leaf]]]:
    """The enclosures that leaves need, lemma by lemma from the roots: (enclosures, rows of the leaves, leaves)."""
    chains = [_chain(leaf.lemma) for leaf in batch]
    goals, level = roots.goals, 0
    intervals, rows = Intervals([], [], 0, np.zeros(0, dtype=np.bool_)), dict[Lemma, int]()
    while any(len(chain) > level for chain in chains):
        lemmas = list(dict.fromkeys(chain[level] for chain in chains if len(chain) > level))
        if level == 0:
            intervals, places = roots.of(np.array([lemma.goal // goals.clauses for lemma in lemmas]))
            rows = dict(zip(lemmas, places.tolist(), strict=True))
        else:
            above = np.array([rows[lemma.above] for lemma in lemmas if lemma.above is not None])
            intervals = _tightened(goals, proof, intervals, above, lemmas, path)
            rows = {lemma: place for place, lemma in enumerate(lemmas)}
        members = [leaf for leaf, chain in zip(batch, chains, strict=True) if len(chain) == level + 1]
        if members:
            yield intervals, np.array([rows[leaf.lemma] for leaf in members]), members
        level += 1


def _chain(lemma: Lemma) -> list[Lemma]:
    """The lemmas from the root of the tree to this one."""
    found, here = [], lemma
    while True:
        found.append(here)
        if here.above is None:
            return found[::-1]
        here = here.above


def _tightened(goals: Goals, proof: Proof, above: Intervals, rows: Rows, lemmas: list[Lemma], path: str) -> Intervals:
    """A lemma's enclosures: those of the lemma above, its cuts, and every bound tightened anew under them."""
    narrowed, empty = _narrowed(above, rows, [lemma.cuts for lemma in lemmas])
    kept = [above.box(node) for node in range(len(above.lower))]
    boxes = [(low, high) if len(low) == 1 else (low[rows], high[rows]) for low, high in kept]
    within = Intervals([low for low, _ in boxes], [high for _, high in boxes], above.logits, empty)
    for node, box in narrowed.items():
        within.narrow(node, box)
    sets = np.array([lemma.slopes for lemma in lemmas], dtype=np.int64)
    hints = Hints(_slopes(goals, proof, sets, path)) if (sets != CROWN).any() else Hints()
    lower, upper = (np.broadcast_to(end, (len(rows), *end.shape[1:])) for end in within.box(0))
    return crown_intervals(goals.network, lower, upper, goals.arithmetic, within=within, hints=hints, exact=goals.exact)
