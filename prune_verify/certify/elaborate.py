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
    goals_of,
    record_query,
)
from prune_verify.checker.claim import Claim, LabelledRows, Outcome, Problem
from prune_verify.checker.errors import LimitError, ProofError, UnsupportedVersionError
from prune_verify.checker.goals import Goals
from prune_verify.checker.network import Network, evaluate
from prune_verify.checker.proof import MAX_PROOF_BYTES, Proof, emit
from prune_verify.checker.relaxation import crown_intervals
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


def _plain(claim: Claim, network: Network, records: int, choices: Sequence[int] = ()) -> Proof:
    """A proof without slopes: everything is left to rule crown."""
    return Proof(
        kind=claim.kind,
        arithmetic=claim.arithmetic,
        method=RELAXATION,
        network=network.digest(),
        records=records,
        choices=_integers(choices),
    )


def _decided(problem: Problem, claim: Claim, proof: Proof) -> Elaborated:
    """The evidence, and what the checker makes of it."""
    data = emit(proof)
    return data, decide_bounded(problem, replace(claim, method=proof.method), data, _NAME), proof.method


def _radius(claim: Claim) -> Fraction:
    if claim.radius is None:
        raise ProofError(f"claim {claim.kind}", "region", "a ball with a radius", "nothing")
    return claim.radius


def _hinted(goals: Goals, proof: Proof, records: Sequence[int], hints: Sequence[Sequence[Hint]]) -> Proof:
    """The proof with slopes of the goals of some records, as many as fit: one hint for each clause."""
    if not records or not hints[0][0].slopes:
        return proof
    active = _unstable(goals, np.array(records, dtype=np.int64), list(hints[0][0].slopes))
    each = goals.clauses * sum(places.size for places in active.values()) * _WORD
    fitting = min(len(records), MAX_PROOF_BYTES // max(1, 2 * each))
    if not fitting or not active:
        return proof
    chosen = [hint for group in hints[:fitting] for hint in group]
    numbers = [record * goals.clauses + clause for record in records[:fitting] for clause in range(goals.clauses)]
    slopes = {
        node: np.stack([hint.slopes[node].reshape(-1)[places] for hint in chosen]).astype(np.float32)
        for node, places in active.items()
    }
    return replace(proof, hinted=_integers(numbers), active=active, slopes=slopes)


def _unstable(goals: Goals, records: npt.NDArray[np.int64], nodes: Sequence[int]) -> dict[int, Integers]:
    """The places of each ``Relu`` whose sign is open on one of the boxes at least."""
    intervals = crown_intervals(goals.network, *goals.boxes(records), goals.arithmetic)
    found = {}
    for node in nodes:
        low, high = intervals.box(goals.network.nodes[node].inputs[0])
        places = np.flatnonzero(((low < 0) & (high > 0)).reshape(len(low), -1).any(axis=0))
        if places.size:
            found[node] = places.astype(np.int32)
    return found


def _without_idle_hints(goals: Goals, proof: Proof, unknowns: Sequence[int]) -> Proof:
    """The proof without the slopes of records that stay open all the same."""
    useful = ~np.isin(proof.hinted // goals.clauses, _integers(unknowns))
    if not useful.any():
        return replace(proof, hinted=_integers(()), active={}, slopes={})
    slopes = {node: values[useful] for node, values in proof.slopes.items()}
    return replace(proof, hinted=proof.hinted[useful], slopes=slopes)


def _runners_up(network: Network, rows: LabelledRows) -> list[int]:
    """The label other than y with the greatest logit at each record, for networks that auto_LiRPA cannot bound."""
    logits = evaluate(network, rows.x).astype(np.float64)
    logits[np.arange(len(rows.y)), rows.y] = -np.inf
    return [int(label) for label in logits.argmax(axis=1)]


def _choices(rivals: Sequence[int], labels: npt.NDArray[np.int64]) -> list[int]:
    """The atom of each rival: its place among the labels other than the record's own."""
    return [rival - (rival > label) for rival, label in zip(rivals, labels.tolist(), strict=True)]


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
        rivals = [hint.competitor or 0 for hint in found]
    except BoundsError:
        rivals = _runners_up(network, rows)
    goals, proof = goals_of(problem, claim), _plain(claim, network, len(rows.y), _choices(rivals, rows.y))
    stronger = claim if claim.margin is None else replace(claim, margin=claim.margin + _SPARE)
    elaborated = _decided(problem, stronger, proof)
    unknowns = elaborated[1].unknowns
    if not unknowns:
        return elaborated
    try:
        x, y = rows.x[list(unknowns)], rows.y[list(unknowns)]
        found = forget_hints(network, x, y, radius, problem.domain, method="alpha-crown", progress=progress)
        proof = _hinted(goals, proof, unknowns, [[hint] for hint in found])
        elaborated = _decided(problem, stronger, proof)
        proof = _without_idle_hints(goals, proof, elaborated[1].unknowns)
    except BoundsError:
        progress("slopes for forget balls: auto_LiRPA has none", 1.0)
    unknowns = elaborated[1].unknowns
    is_open = np.isin(np.arange(proof.records), _integers(unknowns))
    proof = replace(proof, choices=np.where(is_open, np.int32(-1), proof.choices))
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
    goals, proof = goals_of(problem, claim), _plain(claim, network, len(rows.y))
    elaborated = _decided(problem, claim, proof)
    unknowns = elaborated[1].unknowns
    if not unknowns:
        return elaborated
    try:
        x, radius = rows.x[list(unknowns)], _radius(claim)
        hints = retain_hints(network, x, radius, problem.domain, method="alpha-crown", progress=progress)
    except BoundsError:
        return elaborated
    hinted = _hinted(goals, proof, unknowns, hints)
    return _decided(problem, claim, _without_idle_hints(goals, hinted, _decided(problem, claim, hinted)[1].unknowns))
