"""Split trees: case distinctions over the sign of a ReLU's input or over an input number, read as leaves.

A tree is written in pre-order, three numbers a step::

    0 choice set      a leaf: the atom or combination that holds there, and its set of slopes (-1: rule crown)
    1 node place      a case distinction: the input of ``Relu`` NODE at PLACE is <= 0 (first child), or >= 0
    2 place cut       a case distinction: the network's input at PLACE is <= cuts[CUT], or >= cuts[CUT]
    3 set 0           a lemma: in this subtree all enclosures are tightened anew under the case, with these slopes

So a tree is complete by construction: the two cases of a distinction cover everything, a leaf cannot be missing (the
steps would end early) or stand twice (steps would be left over). Whether a leaf's bound holds is decided elsewhere.

Source: MATHS 5.2 (split trees); certs/SPEC.md section 5.4; THREATS 2 "Proofs".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from prune_verify.checker.errors import LimitError, ProofError
from prune_verify.checker.network import Network
from prune_verify.checker.proof import Integers, Proof

__all__ = ["CROWN", "Cut", "Leaf", "Lemma", "leaves"]

CROWN = -1
MAX_DEPTH = 2048
_AT_ONCE = 4096
_LEAF, _RELU, _INPUT, _LEMMA = range(4)


@dataclass(frozen=True)
class Cut:
    """One side of a case distinction.

    Args:
        node: whose value is cut: the input node, or the input of a ReLU.
        place: flat place of the number.
        value: where.
        below: the case is <= ``value``; otherwise >=.

    """

    node: int
    place: int
    value: float
    below: bool


@dataclass(frozen=True, eq=False)
class Lemma:
    """The enclosures of a subtree of ``goal``: its cuts since the lemma ``above`` (None: the root) and the ``slopes``.

    Two lemmas are the same only if they are the same object.
    """

    goal: int
    above: Lemma | None
    cuts: tuple[Cut, ...]
    slopes: int


@dataclass(frozen=True, eq=False)
class Leaf:
    """One case of a tree.

    Args:
        goal: which the tree is for.
        lemma: whose enclosures hold here.
        cuts: the cuts since then.
        splits: (Relu node, place, multiplier) of every ReLU split above, from the root.
        choice: atom or combination.
        slopes: row of the slopes, or ``CROWN``.

    """

    goal: int
    lemma: Lemma
    cuts: tuple[Cut, ...]
    splits: tuple[tuple[int, int, float], ...]
    choice: int
    slopes: int


@dataclass(frozen=True, eq=False)
class _Open:
    """A subtree that is still to be read."""

    lemma: Lemma
    cuts: tuple[Cut, ...] = ()
    splits: tuple[tuple[int, int], ...] = ()
    depth: int = 0


def _in_turn(steps: Integers) -> Iterator[list[int]]:
    """The steps one after the other, a few thousand at a time in memory as Python's numbers."""
    for start in range(0, len(steps), _AT_ONCE):
        yield from steps[start : start + _AT_ONCE].tolist()


class _Steps:
    """The steps and numbers of a proof, taken one after the other."""

    def __init__(self, network: Network, proof: Proof, path: str) -> None:
        self.network, self.proof, self.path = network, proof, path
        self.steps = _in_turn(proof.steps.reshape(-1, 3))
        self.taken = self.paid = 0

    def refuse(self, rule: str, expected: str, got: str) -> ProofError:
        return ProofError(f"{self.path}/steps/{self.taken - 1}", rule, expected, got)

    def tree(self, goal: int) -> Iterator[Leaf]:
        """The leaves of one tree."""
        stack = [_Open(Lemma(goal, None, (), CROWN))]
        while stack:
            here = stack.pop()
            step = next(self.steps, None)
            self.taken += 1
            if step is None:
                raise self.refuse("tree", "a leaf for every case", "the end of the steps")
            if here.depth > MAX_DEPTH:
                raise LimitError(f"{self.path}/steps/{self.taken - 1}", "depth of a tree", str(MAX_DEPTH), "more")
            kind, first, second = step
            if kind == _LEAF:
                yield self._leaf(goal, here, first, second)
            elif kind == _LEMMA:
                self._require_set(first)
                stack.append(_Open(Lemma(goal, here.lemma, here.cuts, first), (), here.splits, here.depth + 1))
            else:
                stack += self._cases(here, kind, first, second)

    def end(self) -> None:
        """Establish that nothing is left over."""
        self.taken += 1
        if next(self.steps, None) is not None:
            raise self.refuse("trees", "no step after the last tree", "more")
        given = len(self.proof.multipliers)
        if given not in (0, self.paid):
            expected = f"{self.paid}, one per leaf and ReLU split above it"
            raise ProofError(f"{self.path}/multipliers", "multipliers", expected, str(given))

    def _cases(self, here: _Open, kind: int, first: int, second: int) -> list[_Open]:
        """Both sides of a case distinction, the first child last: it is read first."""
        nodes, splits = self.network.nodes, here.splits
        if kind == _RELU:
            if not 0 < first < len(nodes) or nodes[first].op != "Relu" or not 0 <= second < prod(nodes[first].shape):
                raise self.refuse("split", "a neuron of a Relu", f"{first}, {second}")
            node, place, value = nodes[first].inputs[0], second, 0.0
            splits = (*splits, (first, second))
        elif kind == _INPUT:
            if not 0 <= first < prod(nodes[0].shape) or not 0 <= second < len(self.proof.cuts):
                raise self.refuse("split", "a number of the input, a cut", f"{first}, {second}")
            node, place, value = 0, first, float(self.proof.cuts[second])
        else:
            raise self.refuse("step", "0, 1, 2 or 3", str(kind))
        return [
            _Open(here.lemma, (*here.cuts, Cut(node, place, value, below)), splits, here.depth + 1)
            for below in (False, True)
        ]

    def _leaf(self, goal: int, here: _Open, choice: int, slopes: int) -> Leaf:
        self._require_set(slopes)
        if choice < 0:
            raise self.refuse("leaf", "an atom or a combination", str(choice))
        values = self.proof.multipliers[self.paid : self.paid + len(here.splits)].tolist()
        self.paid += len(here.splits)
        values += [0.0] * (len(here.splits) - len(values))  # how many there are is compared at the end
        splits = tuple((node, place, value) for (node, place), value in zip(here.splits, values, strict=True))
        return Leaf(goal, here.lemma, here.cuts, splits, choice, slopes)

    def _require_set(self, slopes: int) -> None:
        if not CROWN <= slopes < self.proof.sets:
            raise self.refuse("slopes", f"a set below {self.proof.sets}, or -1", str(slopes))


def leaves(network: Network, proof: Proof, path: str) -> Iterator[Leaf]:
    """Every leaf of every tree of a proof, in order; a few at a time are in memory.

    Args:
        network: that the splits speak of.
        proof: with the trees.
        path: the proof's name, for errors.

    Raises:
        ProofError: a tree that is not complete, steps left over, or a step that names what is not there.
        LimitError: a tree deeper than the limit.

    """
    steps = _Steps(network, proof, path)
    for goal in proof.trees.tolist():
        yield from steps.tree(goal)
    steps.end()
