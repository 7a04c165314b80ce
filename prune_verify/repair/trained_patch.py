"""A trained patch with what bounds in floating point say of it, and by how much it falls short of what was asked.

Source: MATHS 4.3 and 2 (F, BD, RC, RL).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from prune_verify.checker.patch import LearnedPatch
from prune_verify.repair.training_state import Curve

__all__ = ["TrainedPatch", "TrainingGap"]

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TrainingGap:
    """What training did not reach.

    Args:
        forget: indices of the forget records whose margin (or band) is not met.
        lacking: by how many logits the worst of them misses it; 0 where all are met.
        retain: indices of the retained records on whose balls a logit may move by more than delta.
        excess: by how many logits the worst of them exceeds it; 0 where none does.

    """

    forget: tuple[int, ...]
    lacking: float
    retain: tuple[int, ...]
    excess: float


@dataclass(frozen=True, eq=False)
class TrainedPatch:
    """A trained patch and what bounds in floating point say of it; the checker decides.

    Args:
        patch: the layers.
        targets: int64 [forget]: the label to which each forget record is redirected.
        forget_margins: float32 [forget]: lower bounds of N'_target - N'_label on the forget balls.
        changes: float32 [retain]: upper bounds of the largest |P_j| on the retained balls.
        steps: how many were taken.
        curves: what was seen at each look.
        bands: float32 [forget, 2]: bounds of the margin of the forgotten label; redirect ``non-member`` only.
        aims: float32 [forget]: the non-member's margin that each record was to have; the same.
        kept_rows: int64 [looked at]: indices of the retained records that ``kept`` is about; class level only.
        kept: float32 [looked at]: lower bounds of the margin by which N' keeps the base's answer on the ball.

    """

    patch: LearnedPatch
    targets: Labels
    forget_margins: Floats
    changes: Floats
    steps: int
    curves: tuple[Curve, ...] = ()
    bands: Floats | None = None
    aims: Floats | None = None
    kept_rows: Labels | None = None
    kept: Floats | None = None

    def within(self, delta: Fraction) -> float:
        """The share of retained balls on which no logit moves by more than ``delta``, by these bounds."""
        return float(np.mean(self.changes <= float(delta)))

    def forgotten(self, margin: Fraction) -> float:
        """The share of forget balls on which the label loses by ``margin``, by these bounds."""
        return float(np.mean(self.forget_margins >= float(margin)))

    def answers_kept(self) -> float | None:
        """The share of the looked-at retained balls on which the answer stays, by these bounds; None: no look."""
        return None if self.kept is None else float(np.mean(self.kept > 0))

    def training_gap(self, margin: Fraction, delta: Fraction, band: Fraction | None = None) -> TrainingGap:
        """What is missing, and by how much.

        Args:
            margin: asked of forget balls, in logits.
            delta: asked of retained balls.
            band: the width asked of bands, where the redirect is ``non-member``; the margin is then not asked.

        """
        lacking = float(margin) - self.forget_margins
        if band is not None and self.bands is not None and self.aims is not None:
            reach = np.abs(self.bands - self.aims[:, np.newaxis]).max(axis=1)
            lacking = reach - float(band) / 2
        excess = self.changes - float(delta)
        return TrainingGap(
            tuple(np.flatnonzero(lacking > 0).tolist()),
            max(0.0, float(lacking.max())),
            tuple(np.flatnonzero(excess > 0).tolist()),
            max(0.0, float(excess.max())),
        )
