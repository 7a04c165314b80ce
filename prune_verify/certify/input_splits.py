"""Branch and bound over the input of a network with few inputs: many boxes at once, enclosures tightened in each.

Which input to cut is chosen in one of two ways. ``sensitivity``: the one through which the bounds that are still short
could gain most, by their own coefficients. ``lookahead``: the one whose two halves are bounded best, all of them
tried. Neither is best everywhere, so both are tried with limits that grow.

Source: MATHS 5.2 (one input coordinate cut at t); sensitivity of a bound: "smart branching" of the input in
alpha-beta-CROWN, ReluVal's smear (USENIX Security 2018).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prune_verify.certify.proof_trees import INPUT, Tree
from prune_verify.certify.relaxed import Ends, Relaxed
from prune_verify.checker.network import Network

__all__ = ["grow_by_input_splits"]

Floats = npt.NDArray[np.float64]
_BATCH = 512
_FIRST_LIMIT, _GROWTH = 1024, 4
_NARROW = 1e-7  # of the whole box's width: nothing is cut thinner


@dataclass(eq=False)
class _Front:
    """Open boxes, with the enclosures that hold in them and their nodes."""

    low: Tensor
    high: Tensor
    before: dict[int, Ends]
    nodes: list[Tree]

    def part(self, places: Tensor) -> _Front:
        """Some of the boxes."""
        before = {relu: (low[places], high[places]) for relu, (low, high) in self.before.items()}
        return _Front(self.low[places], self.high[places], before, [self.nodes[i] for i in places.tolist()])

    def joined(self, other: _Front) -> _Front:
        """Both."""
        before = {
            relu: (torch.cat([low, other.before[relu][0]]), torch.cat([high, other.before[relu][1]]))
            for relu, (low, high) in self.before.items()
        }
        low, high = torch.cat([self.low, other.low]), torch.cat([self.high, other.high])
        return _Front(low, high, before, self.nodes + other.nodes)


class _Search:
    """Branch and bound for one goal on one box.

    Args:
        network: to be bounded; few inputs.
        objectives: [atoms, labels].
        targets: [atoms]: what a bound has to exceed.
        box: float64 ends [1, *input_shape].

    """

    def __init__(self, network: Network, objectives: Floats, targets: Floats, box: tuple[Floats, Floats]) -> None:
        self.relaxed = Relaxed(network, torch.float64)
        self.objectives, self.targets = torch.tensor(objectives), torch.tensor(targets)
        self.low, self.high = (torch.tensor(end.reshape(1, -1)) for end in box)
        self.width = (self.high - self.low).clamp(min=1e-30)
        self.bounds = 0

    def bounded(self, front: _Front, *, root: bool = False) -> tuple[_Front, Tensor, Tensor]:
        """Enclosures of boxes, how far each atom is above its target [boxes, atoms], and coefficients of the inputs."""
        shape, atoms, boxes = self.relaxed.network.input_shape, len(self.objectives), len(front.low)
        box = front.low.reshape(-1, *shape), front.high.reshape(-1, *shape)
        self.bounds += boxes
        before = self.relaxed.enclose(box, None if root else front.before)
        output = self.relaxed.network.output_shape
        rows = self.objectives.reshape(atoms, *output).repeat(boxes, *(1,) * len(output))
        at = torch.arange(boxes).repeat_interleave(atoms)
        walked = self.relaxed.walk(self.relaxed.network.output, rows, box, before, at=at)
        gaps = walked.lower.reshape(boxes, atoms) - self.targets
        inputs = torch.zeros(boxes, atoms, prod(shape), dtype=torch.float64)
        if walked.inputs is not None:
            inputs = walked.inputs.reshape(boxes, atoms, -1)
        return _Front(front.low, front.high, before, front.nodes), gaps, inputs

    def halves(self, front: _Front, places: Tensor) -> _Front:
        """Both halves of each box, first all the lower ones; no nodes."""
        rows = torch.arange(len(places))
        middle = ((front.low[rows, places] + front.high[rows, places]) / 2).float().double()
        low, high = front.low.clone(), front.high.clone()
        low[rows, places] = high[rows, places] = middle
        before = {relu: (torch.cat([a, a]), torch.cat([b, b])) for relu, (a, b) in front.before.items()}
        return _Front(torch.cat([front.low, low]), torch.cat([high, front.high]), before, [])

    def cut(self, front: _Front, places: Tensor, halves: _Front) -> None:
        """Give each box's node two children, and the halves these nodes."""
        count = len(places)
        middles = halves.high[torch.arange(count), places].tolist()
        for node, place, middle in zip(front.nodes, places.tolist(), middles, strict=True):
            node.step, node.cut = (INPUT, place, 0), middle
            node.children = Tree(lemma=True), Tree(lemma=True)
        halves.nodes = [node.children[0] for node in front.nodes] + [node.children[1] for node in front.nodes]

    def widths(self, front: _Front) -> Tensor:
        """Of each box, 0 where an input is not to be cut any more."""
        width = front.high - front.low
        middle = ((front.low + front.high) / 2).float().double()
        inside = (front.low < middle) & (middle < front.high) & (width > _NARROW * self.width)
        return torch.where(inside, width, torch.zeros_like(width))

    def run(self, rule: str, most: int, end: float) -> Tree | None:
        """One tree whose leaves are all closed, or None when a limit is reached."""
        root, self.bounds = Tree(), 0
        front = _Front(self.low, self.high, {}, [root])
        front, gaps, inputs = self.bounded(front, root=True)
        stack = list(self._settled([], front, gaps, inputs))
        while stack:
            if self.bounds > most or time.monotonic() > end:
                return None
            front, inputs = self._batch(stack)
            width = self.widths(front)
            if not bool((width > 0).any(dim=1).all()):
                return None
            if rule == "sensitivity":
                places = torch.where(width > 0, inputs * width, -1.0).argmax(dim=1)
                halves = self.halves(front, places)
                self.cut(front, places, halves)
                found = self.bounded(halves)
            else:
                places, found = self._lookahead(front, width)
                self.cut(front, places, found[0])
            stack += self._settled([], *found)
        return root

    def _settled(
        self, found: list[tuple[_Front, Tensor]], front: _Front, gaps: Tensor, inputs: Tensor
    ) -> Sequence[tuple[_Front, Tensor]]:
        """Note which atom closes a box; the others, with the sensitivity of each input, stay open."""
        best, atom = gaps.max(dim=1)
        for node, choice in zip(front.nodes, atom.tolist(), strict=True):
            node.choice = choice
        left = torch.nonzero(best <= 0).reshape(-1)
        if len(left):
            found.append((front.part(left), inputs[left].abs().sum(dim=1)))
        return found

    def _batch(self, stack: list[tuple[_Front, Tensor]]) -> tuple[_Front, Tensor]:
        """Take boxes from the top of the stack, those found last first."""
        front, inputs = stack.pop()
        while stack and len(front.low) < _BATCH:
            other, more = stack.pop()
            front, inputs = other.joined(front), torch.cat([more, inputs])
        if len(front.low) > _BATCH:
            places = torch.arange(len(front.low))
            stack.append((front.part(places[:-_BATCH]), inputs[:-_BATCH]))
            front, inputs = front.part(places[-_BATCH:]), inputs[-_BATCH:]
        return front, inputs

    def _lookahead(self, front: _Front, width: Tensor) -> tuple[Tensor, tuple[_Front, Tensor, Tensor]]:
        """Bound the halves of every cut and keep those of the best."""
        count, rows = len(front.low), torch.arange(len(front.low))
        tried = []
        for place in range(front.low.shape[1]):
            halves = self.halves(front, torch.full((count,), place))
            tried.append(self.bounded(halves))
        short = torch.stack([gaps.max(dim=1).values.clamp(max=0.0).reshape(2, count).sum(0) for _, gaps, _ in tried])
        places = torch.where(width.T > 0, short, -float("inf")).argmax(dim=0)
        both, at = torch.cat([rows, rows + count]), torch.cat([places, places])

        def chosen(parts: list[Tensor]) -> Tensor:
            return torch.stack(parts)[at, both]

        fronts = [front for front, _, _ in tried]
        before = {
            relu: (chosen([f.before[relu][0] for f in fronts]), chosen([f.before[relu][1] for f in fronts]))
            for relu in self.relaxed.relus
        }
        kept = _Front(chosen([f.low for f in fronts]), chosen([f.high for f in fronts]), before, [])
        return places, (kept, chosen([gaps for _, gaps, _ in tried]), chosen([inputs for _, _, inputs in tried]))


def grow_by_input_splits(
    network: Network,
    objectives: Floats,
    targets: Floats,
    box: tuple[Floats, Floats],
    *,
    most: int,
    timeout: float,
) -> tuple[Tree | None, str]:
    """A tree for one goal on one box.

    Args:
        network: linear operators and ReLUs, few inputs.
        objectives: [atoms, labels].
        targets: [atoms]: one atom's bound is to exceed its own, in every leaf.
        box: float64 ends [1, *input_shape].
        most: boxes to bound in one attempt.
        timeout: seconds.

    Returns:
        The tree, or None and why.

    Raises:
        CertifyInputError: another operator.

    """
    search, end, limit = _Search(network, objectives, targets, box), time.monotonic() + timeout, _FIRST_LIMIT
    with torch.no_grad():
        while True:
            for rule in ("sensitivity", "lookahead"):
                root = search.run(rule, min(limit, most), end)
                if root is not None:
                    return root, "closed"
                if time.monotonic() > end:
                    return None, "time"
            if limit >= most:
                return None, "splits"
            limit *= _GROWTH
