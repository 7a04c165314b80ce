"""Proofs of claims that rest on bounds: hints found, packed, and decided by the checker's own rules.

The steps, each for the records that the one before left open: rule crown, whose slopes need not be sent;
optimised slopes, sent for the records that they prove; and, for forget claims over the reals, z3. What stays
open is unknown. Whatever auto_LiRPA or z3 say, the result returned is the checker's.

Source: MATHS 5.2, 5.3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

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
from prune_verify.checker.proof import MAX_PROOF_BYTES, Proof, emit
from prune_verify.checker.rules import REAL

__all__ = ["prove_forget", "prove_retain_close"]

Progress = Callable[[str, float], None]
Integers = npt.NDArray[np.int32]
Elaborated = tuple[bytes, Outcome, str]

_OPEN_RELUS = 60  # z3 would run into its time limit with more
_MEMORY_MB = 2048
_NAME = "proof"
_SPARE = Fraction(1, 2**30)  # float64 sums come out a little otherwise on another machine: claim nothing that close
_WORD = 4


def _silent(_what: str, _share: float) -> None:
    """Show nothing."""


def _integers(values: Sequence[int]) -> Integers:
    return np.array(values, dtype=np.int32).reshape(-1)


def _plain(claim: Claim, network: Network, records: int, competitors: Sequence[int] = ()) -> Proof:
    """A proof without slopes: everything is left to rule crown."""
    return Proof(
        kind=claim.kind,
        arithmetic=claim.arithmetic,
        method=RELAXATION,
        network=network.digest(),
        records=records,
        competitors=_integers(competitors),
        hinted=_integers(()),
        smt=_integers(()),
        slopes={},
    )


def _decided(problem: Problem, claim: Claim, proof: Proof) -> Elaborated:
    """The evidence, and what the checker makes of it."""
    data = emit(proof)
    return data, decide_bounded(problem, replace(claim, method=proof.method), data, _NAME), proof.method


def _radius(claim: Claim) -> Fraction:
    if claim.radius is None:
        raise ProofError(f"claim {claim.kind}", "region", "a ball with a radius", "nothing")
    return claim.radius


def _hinted(proof: Proof, records: Sequence[int], hints: Sequence[Sequence[Hint]]) -> Proof:
    """The proof with the slopes of some records, as many as fit: one hint each, or one for each bound."""
    if not records or not hints[0][0].slopes:
        return proof
    each = sum(values.size for hint in hints[0] for values in hint.slopes.values()) * _WORD
    fitting = min(len(records), MAX_PROOF_BYTES // (2 * each))
    single = proof.kind == "forget"
    slopes = {}
    for node in hints[0][0].slopes:
        stacked = np.stack([np.stack([hint.slopes[node] for hint in group]) for group in hints[:fitting]])
        slopes[node] = stacked[:, 0] if single else stacked
    return replace(proof, hinted=_integers(records[:fitting]), slopes=slopes) if fitting else proof


def _without_idle_hints(proof: Proof, unknowns: Sequence[int]) -> Proof:
    """The proof without the slopes of records that stay open all the same."""
    useful = ~np.isin(proof.hinted, _integers(unknowns))
    slopes = {node: values[useful] for node, values in proof.slopes.items()} if useful.any() else {}
    return replace(proof, hinted=proof.hinted[useful], slopes=slopes)


def _runners_up(network: Network, rows: LabelledRows) -> list[int]:
    """The label other than y with the greatest logit at each record, for networks that auto_LiRPA cannot bound."""
    logits = evaluate(network, rows.x).astype(np.float64)
    logits[np.arange(len(rows.y)), rows.y] = -np.inf
    return [int(label) for label in logits.argmax(axis=1)]


def _rivals(hints: Sequence[Hint]) -> list[int]:
    return [-1 if hint.competitor is None else hint.competitor for hint in hints]


def prove_forget(problem: Problem, claim: Claim, *, timeout: float = 60.0, progress: Progress = _silent) -> Elaborated:
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
    network, rows, radius = problem.patched, problem.rows("forget"), _radius(claim)
    try:
        found = forget_hints(network, rows.x, rows.y, radius, problem.domain, method="crown", progress=progress)
        rivals = _rivals(found)
    except BoundsError:
        rivals = _runners_up(network, rows)
    proof = _plain(claim, network, len(rows.y), rivals)
    stronger = claim if claim.margin is None else replace(claim, margin=claim.margin + _SPARE)
    elaborated = _decided(problem, stronger, proof)
    unknowns = elaborated[1].unknowns
    if not unknowns:
        return elaborated
    try:
        x, y = rows.x[list(unknowns)], rows.y[list(unknowns)]
        found = forget_hints(network, x, y, radius, problem.domain, method="alpha-crown", progress=progress)
        proof = _hinted(proof, unknowns, [[hint] for hint in found])
        elaborated = _decided(problem, stronger, proof)
        proof = _without_idle_hints(proof, elaborated[1].unknowns)
    except BoundsError:
        progress("slopes for forget balls: auto_LiRPA has none", 1.0)
    unknowns = elaborated[1].unknowns
    is_open = np.isin(np.arange(proof.records), _integers(unknowns))
    proof = replace(proof, competitors=np.where(is_open, np.int32(-1), proof.competitors))
    by_smt = _by_smt(problem, claim, unknowns, timeout, progress) if claim.arithmetic == REAL else []
    if by_smt:
        proof = replace(proof, method=WITH_SMT, smt=_integers(by_smt))
    return _decided(problem, claim, proof)


def _by_smt(problem: Problem, claim: Claim, records: Sequence[int], timeout: float, progress: Progress) -> list[int]:
    """The records among ``records`` whose question z3 answers with unsat; those with large questions are left out."""
    found = []
    for place, record in enumerate(records[:MAX_SMT_RECORDS]):
        progress("z3 for forget balls", place / len(records))
        try:
            query = record_query(problem, claim, record)
        except (LimitError, UnsupportedVersionError):
            break  # the network is too large or has such an operator: no other record fares better
        if query.count("(ite ") <= _OPEN_RELUS and solve(query, timeout, _MEMORY_MB) == "unsat":
            found.append(record)
    return found


def prove_retain_close(
    problem: Problem, claim: Claim, *, timeout: float = 60.0, progress: Progress = _silent
) -> Elaborated:
    """Prove that an additive patch moves no logit by more than delta on the retained balls.

    Args:
        problem: the files; the retained set is there and the patch is additive.
        claim: of kind ``retain_close``.
        timeout: not used: no solver is asked.
        progress: called with what is being done and the share of it that is done.

    Returns:
        The evidence, what the checker makes of it, and the claim's method.

    Raises:
        CheckError: the claim cannot be decided on these files at all.

    """
    del timeout  # the same signature as prove_forget
    network, rows = difference_network(problem.learned_patch(), problem.base.input_shape), problem.rows("retain")
    proof = _plain(claim, network, len(rows.y))
    elaborated = _decided(problem, claim, proof)
    unknowns = elaborated[1].unknowns
    if not unknowns:
        return elaborated
    try:
        x, radius = rows.x[list(unknowns)], _radius(claim)
        hints = retain_hints(network, x, radius, problem.domain, method="alpha-crown", progress=progress)
    except BoundsError:
        return elaborated
    hinted = _hinted(proof, unknowns, hints)
    return _decided(problem, claim, _without_idle_hints(hinted, _decided(problem, claim, hinted)[1].unknowns))
