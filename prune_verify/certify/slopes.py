"""Lower slopes for the checker's relaxation kernel, found by auto_LiRPA: the kernel is sound with any.

For a forget claim the kernel is to lower-bound N'_j - N'_y on a ball for one competitor j; which j, and with
which slopes, is found here. For a retained claim of an additive patch the difference N' - N is
the patch, so that the patch alone is bounded, in both directions for every label.

Source: MATHS 5.2 (CROWN is L = A alpha where A >= 0), 5 last paragraph (the difference is the patch).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from prune_verify.bounds.engine import BoundEngine, BoundResult, Method
from prune_verify.checker.bounded_claims import difference_network
from prune_verify.checker.network import Network
from prune_verify.checker.region import Domain

__all__ = ["Hint", "difference_network", "forget_hints", "retain_hints"]

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Progress = Callable[[str, float], None]

_RECORDS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Hint:
    """How one lower bound was found.

    Args:
        record: index of the record.
        objective: float32 [labels]: the bound is on objective @ logits.
        lower: the bound, as auto_LiRPA has it.
        competitor: the label j of a forget claim; None elsewhere.
        slopes: by ``Relu`` node of the network: lower slopes in [0, 1], float32 of the node's shape.

    """

    record: int
    objective: Floats
    lower: float
    competitor: int | None
    slopes: dict[int, Floats]


def _outward(lower: npt.NDArray[np.float64], upper: npt.NDArray[np.float64]) -> tuple[Floats, Floats]:
    """The float64 boxes as float32 ones that hold them."""
    low, high = lower.astype(np.float32), upper.astype(np.float32)
    return (
        np.where(low > lower, np.nextafter(low, np.float32(-np.inf)), low),
        np.where(high < upper, np.nextafter(high, np.float32(np.inf)), high),
    )


def _slopes_of(result: BoundResult, row: int, record: int) -> dict[int, Floats]:
    return {node: np.ascontiguousarray(slopes[row, record]) for node, slopes in result.slopes.items()}


def forget_hints(
    patched: Network,
    x: Floats,
    y: Labels,
    radius: Fraction,
    domain: Domain,
    *,
    method: Method = "alpha-crown",
    iterations: int = 20,
    progress: Progress = lambda _what, _share: None,
) -> list[Hint]:
    """For every forget record the label that the forgotten one loses to most surely on the ball, and slopes for it.

    Args:
        patched: the patched network.
        x: float32 [records, *input_shape].
        y: int64 [records]: the forgotten labels.
        radius: of the balls.
        domain: D; balls are cut to it.
        method: of the bound engine.
        iterations: of alpha-CROWN.
        progress: called with what is being done and the share of it that is done.

    Raises:
        BoundsError: auto_LiRPA cannot bound the network.

    """
    engine, hints = BoundEngine(patched), list[Hint]()
    eye = np.eye(patched.labels, dtype=np.float32)
    for start in range(0, len(y), _RECORDS_AT_ONCE):
        progress("slopes for forget balls", start / len(y))
        labels = y[start : start + _RECORDS_AT_ONCE]
        others = np.stack([np.delete(np.arange(patched.labels), label) for label in labels])
        objective = eye[others] - eye[labels][:, np.newaxis]
        low, high = _outward(*domain.ball(x[start : start + len(labels)], radius))
        best = engine.lower_bounds(objective, low, high, method="crown").lower.argmax(axis=1)
        places = np.arange(len(labels))
        chosen, rivals = objective[places, best], others[places, best]
        # One row at a time: auto_LiRPA keeps the slopes of the step at which any row improved.
        result = engine.lower_bounds(chosen[:, np.newaxis], low, high, method=method, iterations=iterations)
        for place, rival in enumerate(rivals.tolist()):
            lower = float(result.lower[place, 0])
            hints.append(Hint(start + place, chosen[place], lower, rival, _slopes_of(result, 0, place)))
    return hints


def retain_hints(
    difference: Network,
    x: Floats,
    radius: Fraction,
    domain: Domain,
    *,
    method: Method = "crown",
    iterations: int = 20,
    progress: Progress = lambda _what, _share: None,
) -> list[list[Hint]]:
    """For every retained record the hints for -P_j and P_j, for all labels j: first the negative ones, then the others.

    Args:
        difference: the patch alone.
        x: float32 [records, *input_shape].
        radius: of the balls.
        domain: D; balls are cut to it.
        method: of the bound engine.
        iterations: of alpha-CROWN.
        progress: called with what is being done and the share of it that is done.

    Raises:
        BoundsError: auto_LiRPA cannot bound the network.

    """
    engine, hints = BoundEngine(difference), list[list[Hint]]()
    eye = np.eye(difference.labels, dtype=np.float32)
    both = np.concatenate([-eye, eye])
    for start in range(0, len(x), _RECORDS_AT_ONCE):
        progress("slopes for retained balls", start / len(x))
        rows = x[start : start + _RECORDS_AT_ONCE]
        low, high = _outward(*domain.ball(rows, radius))
        objective = np.broadcast_to(both, (len(rows), *both.shape))
        result = engine.lower_bounds(objective, low, high, method=method, iterations=iterations)
        for place in range(len(rows)):
            found = result.lower[place].tolist()
            slopes = [_slopes_of(result, row, place) for row in range(len(both))]
            hints.append([Hint(start + place, both[r], found[r], None, slopes[r]) for r in range(len(both))])
    return hints
