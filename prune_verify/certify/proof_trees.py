"""Trees of cases as they grow, and the proof that is written from them.

Source: certs/SPEC.md section 5.4 (steps of a tree); MATHS 5.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from prune_verify.checker.goals import Goals
from prune_verify.checker.proof import Proof

__all__ = ["CROWN", "INPUT", "LEAF", "LEMMA", "RELU", "Slopes", "Tree", "TreeProof", "merged"]

LEAF, RELU, INPUT, LEMMA = range(4)
CROWN = -1
Split = tuple[int, int, bool]  # Relu node, place, whether the case is <= 0
Slopes = dict[int, npt.NDArray[np.float32]]  # by Relu node: [n], of all neurons
Integers = npt.NDArray[np.int32]


@dataclass(eq=False)
class Tree:
    """A node of a tree: a leaf until it is split.

    Args:
        splits: signs of neurons that hold here.
        children: none, or the case <= and the case >=.
        step: RELU with node and place, or INPUT with place and 0.
        cut: of an INPUT step.
        choice: of a leaf: which atom holds there.
        multipliers: of a leaf: one per split.
        lemma: whether enclosures are tightened anew here.

    """

    splits: tuple[Split, ...] = ()
    children: tuple[Tree, ...] = ()
    step: tuple[int, int, int] = (LEAF, 0, CROWN)
    cut: float = 0.0
    choice: int = 0
    multipliers: tuple[float, ...] = ()
    lemma: bool = False


@dataclass(eq=False)
class TreeProof:
    """Goals with what proves them, to be written as one proof.

    Args:
        choices: by goal: an atom; goals that are not there are not proved.
        hinted: by goal without a tree: its slopes.
        trees: by goal: its tree, and the slopes of all its leaves (None: rule crown).
        smt: records that rest on z3.

    """

    choices: dict[int, int] = field(default_factory=dict)
    hinted: dict[int, Slopes] = field(default_factory=dict)
    trees: dict[int, tuple[Tree, Slopes | None]] = field(default_factory=dict)
    smt: list[int] = field(default_factory=list)

    def leaves(self) -> int:
        """Of all trees."""
        return sum(_leaves(tree) for tree, _ in self.trees.values())

    def only(self, goals: Sequence[int]) -> TreeProof:
        """Of some goals, which keep their numbers; what rests on z3 stays."""
        chosen = set(goals)
        return TreeProof(
            {goal: choice for goal, choice in self.choices.items() if goal in chosen},
            {goal: slopes for goal, slopes in self.hinted.items() if goal in chosen},
            {goal: tree for goal, tree in self.trees.items() if goal in chosen},
            list(self.smt),
        )

    def shifted(self, records: Sequence[int], clauses: int) -> TreeProof:
        """The same goals, so many ``clauses`` a record, as those of other records: record i becomes ``records[i]``."""

        def moved(goal: int) -> int:
            return records[goal // clauses] * clauses + goal % clauses

        return TreeProof(
            {moved(goal): choice for goal, choice in self.choices.items()},
            {moved(goal): slopes for goal, slopes in self.hinted.items()},
            {moved(goal): tree for goal, tree in self.trees.items()},
            [records[record] for record in self.smt],
        )

    def write(self, goals: Goals, kind: str, active: dict[int, Integers] | None = None) -> Proof:
        """The proof.

        Args:
            goals: all goals of the claim.
            kind: of the claim.
            active: by ``Relu`` node the places whose sign is open somewhere; None: all of them.

        """
        choices = np.full(goals.records * goals.clauses, -1, dtype=np.int32)
        for goal, choice in self.choices.items():
            choices[goal] = choice
        hinted, trees = sorted(self.hinted), sorted(self.trees)
        tables = [self.hinted[goal] for goal in hinted]
        numbers: dict[int, int] = {}
        for goal in trees:
            slopes = self.trees[goal][1]
            if slopes is not None:
                numbers[goal] = len(tables)
                tables.append(slopes)
        places, stacked = _tables(tables, active)
        if not stacked:  # no neuron is unstable: the sets are empty and leaves take rule crown
            hinted, numbers = [], {}
        written = _Written()
        for goal in trees:
            written.add(self.trees[goal][0], numbers.get(goal, CROWN))
        multipliers = np.array(written.multipliers, dtype=np.float32)
        return Proof(
            kind=kind,
            arithmetic=goals.arithmetic,
            method="relaxation+smt" if self.smt else "relaxation",
            network=goals.network.digest(),
            records=goals.records,
            choices=choices if choices.any() else choices[:0],
            hinted=np.array(hinted, dtype=np.int32),
            smt=np.array(sorted(self.smt), dtype=np.int32),
            trees=np.array(trees, dtype=np.int32),
            steps=np.array(written.steps, dtype=np.int32).reshape(-1),
            cuts=np.array(written.cuts, dtype=np.float32),
            multipliers=multipliers if multipliers.any() else multipliers[:0],
            active=places,
            slopes=stacked,
        )


def merged(parts: Sequence[TreeProof]) -> TreeProof:
    """Goals of several parts, no goal in two of them."""
    found = TreeProof()
    for part in parts:
        found.choices |= part.choices
        found.hinted |= part.hinted
        found.trees |= part.trees
        found.smt += part.smt
    return replace(found, smt=sorted(found.smt))


def _leaves(tree: Tree) -> int:
    count, stack = 0, [tree]
    while stack:
        here = stack.pop()
        count += not here.children
        stack += here.children
    return count


def _tables(
    tables: Sequence[Slopes], active: dict[int, Integers] | None
) -> tuple[dict[int, Integers], dict[int, npt.NDArray[np.float32]]]:
    """The slopes of all sets, one table per ``Relu``: only of the places that are active."""
    places, stacked = {}, {}
    sizes = {relu: values.size for table in tables for relu, values in table.items()}
    for relu, size in sorted(sizes.items()):
        chosen = np.arange(size, dtype=np.int32) if active is None else active.get(relu)
        if chosen is not None and chosen.size:
            none = np.zeros(size, dtype=np.float32)  # of a neuron that the output does not depend on
            rows = [table.get(relu, none).reshape(-1)[chosen] for table in tables]
            places[relu], stacked[relu] = chosen, np.stack(rows).astype(np.float32)
    return places, stacked


@dataclass(eq=False)
class _Written:
    """Trees as the steps of a proof."""

    steps: list[tuple[int, int, int]] = field(default_factory=list)
    cuts: list[float] = field(default_factory=list)
    multipliers: list[float] = field(default_factory=list)

    def add(self, root: Tree, slopes: int) -> None:
        """Append one tree in pre-order; all its leaves take one set of slopes."""
        stack = [root]
        while stack:
            node = stack.pop()
            if node.lemma:
                self.steps.append((LEMMA, CROWN, 0))
            if node.children:
                kind, first, second = node.step
                if kind == INPUT:
                    self.cuts.append(node.cut)
                    second = len(self.cuts) - 1
                self.steps.append((kind, first, second))
                stack += reversed(node.children)
                continue
            self.steps.append((LEAF, node.choice, slopes))
            self.multipliers += node.multipliers or (0.0,) * len(node.splits)
