"""Branch and bound over the signs of unstable neurons, for one goal on one box; multipliers of splits are optimised.

Source: beta-CROWN (arXiv 2103.06624); MATHS 5.2 (beta of a split neuron is only another L on the clipped interval).
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import numpy as np
import numpy.typing as npt

from prune_verify.certify.proof_trees import RELU, Slopes, Split, Tree
from prune_verify.certify.relaxed import OneBox

__all__ = ["Grown", "grow_by_relu_splits"]

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
_BATCH = 64
_ROOT_STEPS = 4  # times the iterations of a leaf


@dataclass(frozen=True, eq=False)
class Grown:
    """What branch and bound came to; a point has the shape of the input.

    Args:
        tree: whose leaves are all closed, or None.
        slopes: of all its leaves.
        bound: the least bound of an open leaf; of a closed tree, the root's.
        why: ``closed``, ``time``, ``splits``, ``broken`` or ``complete`` (no neuron is left to split).
        point: at which the goal is ``broken``.

    """

    tree: Tree | None
    slopes: Slopes
    bound: float
    why: str
    point: Singles | None = None


def grow_by_relu_splits(
    box: OneBox,
    objective: Floats,
    target: float,
    atom: int,
    *,
    iterations: int,
    most: int,
    timeout: float,
    broken: Callable[[Singles], Singles | None] = lambda _: None,
) -> Grown:
    """A tree for one goal by one of its atoms.

    Args:
        box: the network on the box.
        objective: [1, labels]: of the atom.
        target: what its bound has to exceed in every leaf.
        atom: its number.
        iterations: of the optimiser, for each batch of leaves; four times as many at the root, whose slopes all
            leaves keep.
        most: leaves.
        timeout: seconds.
        broken: one of some points at which the goal fails, if there is one: asked with the inputs at which the
            relaxations of leaves are least.

    """
    end = time.monotonic() + timeout
    root = Tree(choice=atom)
    first = box.bound(objective, [()], _ROOT_STEPS * iterations)
    slopes = {relu: values[0] for relu, values in first.slopes.items()}
    order, size, bound = count(), 1, float(first.lower[0])
    if bound > target:
        return Grown(root, slopes, bound, "closed")
    queue: list[tuple[float, int, Tree]] = [(bound, next(order), root)]
    scores = {id(root): {relu: values[0] for relu, values in first.scores.items()}}
    while queue:
        if size > most or time.monotonic() > end:
            return Grown(None, slopes, queue[0][0], "splits" if size > most else "time")
        children = list[Tree]()
        for _, _, node in [heapq.heappop(queue) for _ in range(min(_BATCH, len(queue)))]:
            place = _worst(scores.pop(id(node)), node.splits)
            if place is None:
                return Grown(None, slopes, bound, "complete")
            relu, neuron = place
            node.step = (RELU, relu, neuron)
            node.children = tuple(
                Tree(splits=(*node.splits, (relu, neuron, below)), choice=atom) for below in (True, False)
            )
            children += node.children
            size += 1
        starts = {relu: np.repeat(values[np.newaxis], len(children), axis=0) for relu, values in slopes.items()}
        rows = np.repeat(objective, len(children), axis=0)
        found = box.bound(rows, [c.splits for c in children], iterations, starts, fixed=True)
        point = broken(found.points)
        if point is not None:
            return Grown(None, slopes, bound, "broken", point)
        for row, child in enumerate(children):
            child.multipliers = tuple(float(found.multipliers[relu][row, place]) for relu, place, _ in child.splits)
            if not found.lower[row] > target:
                scores[id(child)] = {relu: values[row] for relu, values in found.scores.items()}
                heapq.heappush(queue, (float(found.lower[row]), next(order), child))
        bound = queue[0][0] if queue else bound
    return Grown(root, slopes, bound, "closed")


def _worst(scores: Slopes, splits: tuple[Split, ...]) -> tuple[int, int] | None:
    """The unstable neuron whose relaxation costs most, not split yet."""
    best, place = 0.0, None
    done = {(relu, neuron) for relu, neuron, _ in splits}
    for relu, values in scores.items():
        for neuron in np.argsort(-values)[: len(splits) + 1].tolist():
            if values[neuron] > best and (relu, neuron) not in done:
                best, place = float(values[neuron]), (relu, neuron)
    return place
