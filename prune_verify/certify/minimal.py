"""Evidence of minimality: weights of the covering relaxation, by linear programming, and points for least shifts.

Retained records enter as they are needed: the relaxation is solved over a few of them, those that its
solution leaves uncovered join, until none is left. The duals, rounded down to units of 2^-20, are the evidence;
whatever rounding loses, the checker recomputes the bound.

Source: MATHS 4.1; column generation; scipy's HiGHS.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linprog
from scipy.sparse import csr_array

from prune_verify.bounds.torch_network import TorchNetwork
from prune_verify.certify.errors import CertifyInputError
from prune_verify.checker.claim import Claim, Problem
from prune_verify.checker.minimality import UNIT, emit_weights, separable
from prune_verify.checker.network import evaluate
from prune_verify.checker.patch import ShiftPatch
from prune_verify.checker.shift_minimality import emit_points

__all__ = ["prove_minimality", "prove_shift_minimality"]

_FIRST, _MORE, _ROUNDS = 64, 64, 60
_SPARE = 2.0**-19  # duals are lowered by this share: no coordinate's load passes 1 by rounding

Floats = npt.NDArray[np.float32]
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


def prove_shift_minimality(problem: Problem, claim: Claim) -> bytes:
    """For every gate of a shift patch the point of its record's ball where the base answers the label most clearly.

    The base is affine where the gate is open, so that the point is the corner that its gradient shows.

    Args:
        problem: the files; the patch is of family ``linear-region``.
        claim: M, with radius and margin.

    Returns:
        The evidence; how many gates it proves, the checker says.

    Raises:
        CertifyInputError: the claim lacks a radius.

    """
    if claim.radius is None:
        text = "a claim of minimality needs the forget radius"
        raise CertifyInputError(text)
    patch, rows, points = problem.additive_patch(), problem.rows("forget"), []
    if not isinstance(patch, ShiftPatch):
        text = f"a claim of least shift needs a patch of family linear-region, got {patch.family}"
        raise CertifyInputError(text)
    network = TorchNetwork(problem.base)
    reach = np.nextafter(np.float32(claim.radius), np.float32(0))
    low, high = (end.astype(np.float32) for end in problem.domain.outward(problem.base.input_shape))
    for gate in patch.gates:
        centre = rows.x[gate.records[0]]
        corners = [np.clip(_inward(centre, way * reach), low, high) for way in _ways(network, centre, gate.label)]
        logits = evaluate(problem.base, np.stack([centre, *corners]))
        rivals = np.delete(logits, gate.label, axis=1).max(axis=1)
        best = int((logits[:, gate.label] - rivals).argmax())
        points.append(np.stack([centre, *corners])[best].reshape(-1))
    return emit_points(np.stack(points))


def _ways(network: TorchNetwork, centre: Floats, label: int) -> list[Floats]:
    """Signs of the gradients of z_label - z_j at the centre, for every other label j."""
    x = torch.from_numpy(np.array(centre)).unsqueeze(0).requires_grad_()
    logits = network(x)[0]
    others = [j for j in range(len(logits)) if j != label]
    return [np.sign(torch.autograd.grad(logits[label] - logits[j], x, retain_graph=True)[0][0].numpy()) for j in others]


def _inward(centre: Floats, step: Floats) -> Floats:
    """The float32 number next to centre + step, on the centre's side: no point beyond the ball by rounding."""
    found = centre + step
    return np.where(step == 0, centre, np.nextafter(found, centre))
