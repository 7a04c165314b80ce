"""Redirect ``non-member``: outputs on forgotten records like those of records that the base never saw.

Each forget record draws the margin of a non-member of its own label, and a band around it is what bounds are
asked for. Two distances between the sets of outputs are trained down as well: maximum mean discrepancy of the
softmax, and the first two moments of the margins. How near the two are is measured elsewhere and never proved.

Source: MATHS 4.3 and 6; maximum mean discrepancy, Gretton et al., JMLR 13 (2012), biased estimate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prune_verify.checker.network import Network, evaluate
from prune_verify.repair.errors import RepairInputError

__all__ = ["NonMembers", "discrepancy", "drawn_margins", "imitation", "margins_of"]

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

_WIDTHS = (0.1, 0.3, 1.0)


@dataclass(frozen=True, eq=False)
class NonMembers:
    """Records that the base never saw.

    Args:
        x: float32 [rows, *input_shape].
        y: int64 [rows].

    """

    x: Floats
    y: Labels


def margins_of(logits: Tensor, labels: Tensor) -> Tensor:
    """The margin [rows] of each of the labels [rows] over the best other, in logits."""
    own = torch.nn.functional.one_hot(labels, logits.shape[1]).bool()
    return logits[own] - logits.masked_fill(own, -torch.inf).amax(dim=1)


def drawn_margins(base: Network, forget_y: Labels, non_members: NonMembers, seed: int) -> Floats:
    """For each forget record the margin that the base gives a non-member of its label, drawn with a seed.

    Args:
        forget_y: int64 [rows], the labels.
        seed: of the draws.
        base: the network.
        non_members: to draw from.

    Returns:
        float32 [forget], in logits; without replacement as long as there are enough.

    Raises:
        RepairInputError: a label to be forgotten has no non-member.

    """
    logits = torch.from_numpy(evaluate(base, non_members.x).astype(np.float32))
    margins = margins_of(logits, torch.from_numpy(non_members.y)).numpy()
    rng, drawn = np.random.default_rng(seed), np.zeros(len(forget_y), dtype=np.float32)
    for label in np.unique(forget_y):
        own, rows = np.flatnonzero(non_members.y == label), np.flatnonzero(forget_y == label)
        if not len(own):
            text = f"non-members: expected at least one record of label {label}, which is to be forgotten; found none"
            raise RepairInputError(text)
        rounds = [rng.permutation(own) for _ in range(-(-len(rows) // len(own)))]
        drawn[rows] = margins[np.concatenate(rounds)[: len(rows)]]
    return drawn


def discrepancy(first: Tensor, second: Tensor) -> Tensor:
    """Squared maximum mean discrepancy of the first and second set of rows [rows, n]; Gaussian kernels, 3 widths."""

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        squared = ((a.unsqueeze(1) - b.unsqueeze(0)) ** 2).sum(dim=2)
        return torch.stack([torch.exp(-squared / (2 * width**2)).mean() for width in _WIDTHS]).sum()

    return kernel(first, first) + kernel(second, second) - 2 * kernel(first, second)


def imitation(logits: Tensor, labels: Tensor, like: Tensor, like_labels: Tensor) -> Tensor:
    """How far outputs are from those of non-members: discrepancy of the softmax, and moments of the margins.

    Args:
        logits: [rows, labels], with gradients.
        labels: [rows].
        like: [non-members, labels]: the base's own logits.
        like_labels: [non-members].

    """
    ours, theirs = margins_of(logits, labels), margins_of(like, like_labels)
    scale = theirs.std(correction=0) + 1
    moments = ((ours.mean() - theirs.mean()) / scale) ** 2
    if len(ours) > 1:
        moments = moments + ((ours.std(correction=0) - theirs.std(correction=0)) / scale) ** 2
    return discrepancy(logits.softmax(dim=1), like.softmax(dim=1)) + moments
