"""Weights that show a gate to be minimal: the dual of the covering relaxation, by linear programming.

Retained records enter as they are needed: the relaxation is solved over a few of them, those that its
solution leaves uncovered join, until none is left. The duals, rounded down to units of 2^-20, are the evidence;
whatever rounding loses, the checker recomputes the bound.

Source: MATHS 4.1; column generation; scipy's HiGHS.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import linprog
from scipy.sparse import csr_array

from prune_verify.certify.errors import CertifyInputError
from prune_verify.checker.claim import Claim, Problem
from prune_verify.checker.minimality import UNIT, emit_weights, separable

__all__ = ["prove_minimality"]

_FIRST, _MORE, _ROUNDS = 64, 64, 60
_SPARE = 2.0**-19  # duals are lowered by this share: no coordinate's load passes 1 by rounding

Weights = tuple[tuple[int, int], ...]


def _weights(apart: npt.NDArray[np.bool_], cover: int) -> Weights:
    """Duals of the covering relaxation over the rows that can be covered."""
    times = apart.sum(axis=1)
    usable = np.flatnonzero(times >= cover)
    if not usable.size:
        return ()
    chosen = usable[np.argsort(times[usable], kind="stable")[:_FIRST]]
    size, duals = apart.shape[1], np.zeros(0)
    for _ in range(_ROUNDS):
        rows = csr_array(-apart[chosen].astype(np.float64))
        found = linprog(
            np.ones(size), A_ub=rows, b_ub=np.full(len(chosen), -float(cover)), bounds=(0, 1), method="highs"
        )
        if found.status != 0:
            return ()
        duals = -found.ineqlin.marginals
        lacking = cover - apart[usable] @ found.x
        worst = usable[np.argsort(-lacking, kind="stable")[:_MORE]]
        worst = np.setdiff1d(worst[(cover - apart[worst] @ found.x) > _SPARE], chosen)
        if not worst.size:
            break
        chosen = np.concatenate([chosen, worst])
    scaled = np.floor(np.maximum(duals, 0.0) * (1 - _SPARE) * UNIT).astype(np.int64)
    return tuple(sorted((int(r), int(w)) for r, w in zip(chosen, scaled, strict=True) if w > 0))


def prove_minimality(problem: Problem, claim: Claim) -> bytes:
    """Weights for every gate of the patch.

    Args:
        problem: the files; the patch has gates, and forget and retained set are there.
        claim: M, with radius and cover.

    Returns:
        The evidence; how many gates it proves minimal, the checker says.

    Raises:
        CertifyInputError: the claim lacks radius or cover.

    """
    if claim.cover is None or claim.radius is None:
        text = "a claim of minimality needs the forget radius, the cover and the retained radius"
        raise CertifyInputError(text)
    cover, retained = claim.cover
    forget, others = problem.rows("forget").flat(), problem.rows("retain").flat()
    found = []
    for gate in problem.joint_patch().gates:
        apart = separable(forget[list(gate.records)], others, claim.radius, retained)
        found.append(_weights(apart, cover))
    return emit_weights(found)
