"""A second opinion on structural forget claims: auto_LiRPA bounds the same margin on the same ball by itself.

It proves nothing that a certificate rests on. A structural rule says that N'_y - max of the others is
at most -tau on the ball; optimised bounds on the deployed graph are to find that to within 1 %.

Source: MATHS 3.3 (last paragraph).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from prune_verify.checker.claim import Problem
from prune_verify.checker.patch import JointPatch
from prune_verify.checker.statement import Measurement
from prune_verify.request import Request

__all__ = ["CrossCheck", "cross_check"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class CrossCheck:
    """What bound propagation found.

    Args:
        records: forget records that were bounded.
        bounds: upper bounds of N'_y - max over the others, one per record.
        tau: the margin of the head.

    """

    records: tuple[int, ...]
    bounds: tuple[float, ...]
    tau: float

    @property
    def worst(self) -> float:
        """The largest share of tau by which a bound misses -tau."""
        return max((bound + self.tau) / self.tau for bound in self.bounds)

    def measurement(self) -> Measurement:
        """As the statement tells it."""
        return Measurement(
            kind="auto_LiRPA cross-check of forget claims: largest distance of a bound from -tau, in tau",
            value=f"{max(self.worst, 0.0):.6f}",
            interval=None,
            command=f"prune-verify certify --cross-check {len(self.records)}",
            seed=0,
            report_sha256=None,
        )


def cross_check(problem: Problem, request: Request, count: int, progress: Progress) -> CrossCheck | None:
    """Bound ``count`` forget claims, evenly spread over the forget set; None where nothing is structural.

    Raises:
        BoundsError: auto_LiRPA cannot bound the network.

    """
    patch, forget = problem.patch, problem.forget
    if not isinstance(patch, JointPatch) or forget is None or not patch.gates or request.radius is None or count < 1:
        return None
    if "forget" not in request.claims:
        return None
    from prune_verify.bounds.engine import cross_check_forget

    domain = (float(request.domain.lower[0]), float(request.domain.upper[0])) if request.domain.uniform else None
    candidates = [i for i in range(len(forget.y)) if int(forget.y[i]) not in patch.forgotten_classes]
    chosen = sorted({candidates[int(i)] for i in np.linspace(0, len(candidates) - 1, min(count, len(candidates)))})
    bounds = []
    for done, record in enumerate(chosen):
        progress("auto_LiRPA cross-check", done, len(chosen))
        bounds.append(
            cross_check_forget(
                problem.base,
                problem.patched,
                forget.x[record],
                int(forget.y[record]),
                float(request.radius),
                domain=domain,
            )
        )
    progress("auto_LiRPA cross-check", len(chosen), len(chosen))
    return CrossCheck(tuple(chosen), tuple(bounds), float(patch.tau))
