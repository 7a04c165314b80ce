"""What goals are settled with and what comes of it: the bound engine, limits, and findings.

Source: MATHS 5.2, 5.3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from prune_verify.bounds.bounded import Method
from prune_verify.bounds.engine import BoundResult
from prune_verify.certify.proof_trees import TreeProof

__all__ = ["Engine", "Limits", "Settled"]

Singles = npt.NDArray[np.float32]


class Engine(Protocol):
    """What finds slopes: :class:`prune_verify.bounds.engine.BoundEngine`, or another with the same method."""

    def lower_bounds(
        self, objective: Singles, lower: Singles, upper: Singles, *, method: Method = "crown", iterations: int = 20
    ) -> BoundResult:
        """Lower bounds of linear functions of the logits on boxes, with slopes; none of it is believed."""
        ...


@dataclass(frozen=True)
class Limits:
    """How much to spend; the result depends on ``seconds`` and the solver's limits only where they are reached.

    Args:
        iterations: of optimised bounds.
        splits: leaves of one goal.
        seconds: of branch and bound, for one record.
        solver_seconds: of z3, for one goal; 0: z3 is not asked.
        memory_mb: of z3.
        restarts: of the attack; 0: no attack.
        seed: of the attack.

    """

    iterations: int = 20
    splits: int = 4096
    seconds: float = 10.0
    solver_seconds: float = 10.0
    memory_mb: int = 2048
    restarts: int = 4
    seed: int = 0


@dataclass(eq=False)
class Settled:
    """What became of some records.

    Args:
        proof: of the goals that are proved.
        points: by record: a point at which one of its goals fails in float32.
        why: by record that is neither: the reason.
        best: by record that is not proved: the greatest proved gap of its worst goal (below 0), or -inf.
        solved: (record, clause) that z3 answers with unsat and no tree was found for.
        stages: how many records each stage closed.
        timed: whether a limit of time or memory had a part in this.

    """

    proof: TreeProof = field(default_factory=TreeProof)
    points: dict[int, Singles] = field(default_factory=dict)
    why: dict[int, str] = field(default_factory=dict)
    best: dict[int, float] = field(default_factory=dict)
    solved: list[tuple[int, int]] = field(default_factory=list)
    stages: dict[str, int] = field(default_factory=dict)
    timed: bool = False
