"""Proofs of claims that rest on bounds: hints found, packed, and decided by the checker's own rules.

The steps, each for the records that the one before left open: rule crown, whose slopes need not be sent;
optimised slopes; and, for forget claims over the reals, z3. What stays open is unknown.

Source: MATHS 5.2, 5.3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from prune_verify.bounds.errors import BoundsError
from prune_verify.certify.slopes import Hint, forget_hints, retain_hints
from prune_verify.certify.smt_solver import solve
from prune_verify.checker.bounded_claims import (
    MAX_SMT_RECORDS,
    RELAXATION,
    WITH_SMT,
    decide_bounded,
    difference_network,
    record_query,
)
from prune_verify.checker.claim import Claim, LabelledRows, Outcome, Problem
from prune_verify.checker.errors import LimitError, ProofError, UnsupportedVersionError
from prune_verify.checker.network import Network, evaluate
from prune_verify.checker.proof import Proof, emit
from prune_verify.checker.rules import REAL

__all__ = ["prove_forget", "prove_retain_close"]

Progress = Callable[[str, float], None]
Indices = npt.NDArray[np.int32]
Elaborated = tuple[bytes, Outcome, str]

_OPEN_RELUS = 60  # a query with more open ReLUs is not handed to z3: it would run into its time limit
_MEMORY_MB = 2048
_NAME = "proof"
_NONE: Indices = np.zeros(0, dtype=np.int32)


def _silent(_what: str, _share: float) -> None:
    """Show nothing."""


def _numbers(values: Sequence[int]) -> Indices:
    return np.array(values, dtype=np.int32).reshape(-1)


def _empty(claim: Claim, network: Network, records: int) -> Proof:
    """A proof that leaves everything to rule crown."""
    return Proof(
        kind=claim.kind,
        arithmetic=claim.arithmetic,
        method=RELAXATION,
        network=network.digest(),
        records=records,
        competitors=_NONE,
        hinted=_NONE,
        smt=_NONE,
        slopes={},
    )


def _decided(problem: Problem, claim: Claim, proof: Proof) -> Elaborated:
    data = emit(proof)
    return data, decide_bounded(problem, replace(claim, method=proof.method), data, _NAME), proof.method


def _rows(rows: LabelledRows, chosen: Sequence[int]) -> LabelledRows:
    return LabelledRows(rows.x[list(chosen)], rows.y[list(chosen)])


def _runners_up(network: Network, rows: LabelledRows) -> Indices:
    """The label other than y with the greatest logit at each record, for networks that auto_LiRPA cannot bound."""
    logits = evaluate(network, rows.x).astype(np.float64)
    logits[np.arange(len(rows.y)), rows.y] = -np.inf
    return logits.argmax(axis=1).astype(np.int32)


def prove_forget(
    problem: Problem, claim: Claim, *, timeout: float = 60.0, progress: Progress = _silent
) -> Elaborated:
    """Prove a forget claim on the patched network by bounds, and by z3 where bounds do not reach.

    Args:
        problem: the files; the forget set is there.
        claim: of kind ``forget``.
        timeout: seconds for one solver query.
        progress: called with what is being done and the share of it that is done.

    Returns:
        The evidence, what the checker makes of it, and the claim's method.

    Raises:
        CheckError: the claim cannot be decided on this network at all.

    """
    network, rows = problem.patched, problem.rows("forget")
    radius = _radius(claim)
    try:
        hints = forget_hints(network, rows.x, rows.y, radius, problem.domain, method="crown", progress=progress)
        competitors = _numbers([-1 if hint.competitor is None else hint.competitor for hint in hints])
    except BoundsError:
        competitors = _runners_up(network, rows)
    proof = replace(_empty(claim, network, len(rows.y)), competitors=competitors)
    elaborated = _decided(problem, claim, proof)
    unknowns = elaborated[1].unknowns
    if unknowns:
        part = _rows(rows, unknowns)
        try:
            hints = forget_hints(network, part.x, part.y, radius, problem.domain, progress=progress)
        except BoundsError:
            hints = []
        if hints:
            for record, hint in zip(unknowns, hints, strict=True):
                competitors[record] = -1 if hint.competitor is None else hint.competitor
            slopes = _stacked([[hint] for hint in hints], squeeze=True)
            proof = _hinted(replace(proof, competitors=competitors), unknowns, slopes)
            elaborated = _decided(problem, claim, proof)
    return _with_smt(problem, claim, proof, elaborated, timeout, progress)


def _radius(claim: Claim):
    if claim.radius is None:
        raise ProofError(f"claim {claim.kind}", "region", "a ball with a radius", "nothing")
    return claim.radius
