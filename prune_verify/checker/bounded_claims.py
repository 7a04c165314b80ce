"""Claims that rest on bounds: a forget claim and the closeness of retained logits, decided with the prover's hints.

Rule forget_by_relaxation: a record is proved if a lower bound of N'_j - N'_y on its ball, for a competitor
j that the proof names, is at least tau. Rule retain_close_by_relaxation: N' = N + P, so that P alone is bounded; in
binary32 N'_j = fl(z_j + p_j), and the rounding of that sum over the ball counts towards delta.

A record that rests on z3 is proved under the assumption ``z3_unsat:<SHA-256 of the question>``, where the
question is written here and not by the prover. Whether an assumption is permitted is the auditor's to say.

Source: MATHS 2 (F, RC), 4.3, 5.2, 5.3 and the last paragraph of 5.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from prune_verify.checker.claim import Claim, LabelledRows, Outcome, Problem
from prune_verify.checker.encoding import sha256_hex
from prune_verify.checker.errors import LimitError, MalformedInputError, ProofError, UnsupportedVersionError
from prune_verify.checker.interval import BINARY32, Floats, interval_pass, node_rounding
from prune_verify.checker.network import Network, Node
from prune_verify.checker.patch import LearnedPatch
from prune_verify.checker.proof import Proof, parse
from prune_verify.checker.region import float64_not_above, float64_not_below
from prune_verify.checker.relaxation import Hints, crown_intervals, lower_bounds
from prune_verify.checker.smt import forget_query

__all__ = [
    "MAX_SMT_RECORDS",
    "decide_bounded",
    "difference_network",
    "forget_by_relaxation",
    "record_query",
    "retain_close_by_relaxation",
]

MAX_SMT_RECORDS = 64
RELAXATION = "relaxation"
WITH_SMT = "relaxation+smt"
_CELLS = 2**21  # numbers of all values of a batch of boxes

Bools = npt.NDArray[np.bool_]


def difference_network(patch: LearnedPatch, input_shape: tuple[int, ...]) -> Network:
    """The patch alone, from the input to its outputs: what N' - N is.

    Args:
        patch: an additive patch.
        input_shape: per-row shape of the base's input.

    """
    size = int(np.prod(input_shape, dtype=np.int64))
    nodes = [Node("Input", (), input_shape)]
    if input_shape != (size,):
        nodes.append(Node("Reshape", (0,), (size,)))
    for place, (weight, bias) in enumerate(patch.layers):
        if place:
            nodes.append(Node("Relu", (len(nodes) - 1,), nodes[-1].shape))
        arrays = {"weight": weight, "bias": bias}
        nodes.append(Node("Linear", (len(nodes) - 1,), (weight.shape[0],), {"axis": (-1,)}, arrays))
    return Network(tuple(nodes), len(nodes) - 1)


@dataclass(frozen=True, eq=False)
class _Batch:
    """Some records of a claim, their boxes, and the slopes of the hinted ones among them."""

    records: npt.NDArray[np.int64]
    lower: Floats
    upper: Floats
    hinted: npt.NDArray[np.int64]
    slopes: dict[int, npt.NDArray[np.float32]]


def _batches(
    problem: Problem, network: Network, rows: LabelledRows, radius: Fraction, proof: Proof
) -> Iterator[_Batch]:
    """The records in batches, ``hinted`` counted within the batch."""
    sizes = sum(int(np.prod(node.shape, dtype=np.int64)) for node in network.nodes)
    step = max(1, _CELLS // sizes)
    for start in range(0, len(rows.y), step):
        records = np.arange(start, min(start + step, len(rows.y)))
        lower, upper = problem.domain.ball(rows.x[records], radius)
        places = np.flatnonzero((proof.hinted >= records[0]) & (proof.hinted <= records[-1]))
        slopes = {node: values[places] for node, values in proof.slopes.items()}
        yield _Batch(records, lower, upper, proof.hinted[places].astype(np.int64) - start, slopes)


def _bounds(network: Network, batch: _Batch, objectives: Floats, arithmetic: str) -> Floats:
    """Lower bounds [records, bounds] of objectives [records, bounds, labels]: the better of rule crown and hints."""
    intervals = crown_intervals(network, batch.lower, batch.upper, arithmetic)
    count, each, labels = objectives.shape
    places = np.repeat(np.arange(count), each)
    best = lower_bounds(network, intervals, objectives.reshape(-1, labels), Hints(), arithmetic, places)
    best = best.reshape(count, each)
    if batch.slopes:
        chosen = objectives[batch.hinted].reshape(-1, labels)
        slopes = {node: values.reshape(-1, *network.nodes[node].shape) for node, values in batch.slopes.items()}
        found = lower_bounds(network, intervals, chosen, Hints(slopes), arithmetic, np.repeat(batch.hinted, each))
        best[batch.hinted] = np.maximum(best[batch.hinted], found.reshape(-1, each))
    return best


def _require_fit(proof: Proof, claim: Claim, network: Network, records: int, each: tuple[int, ...], path: str) -> None:
    """The proof is one for this claim and this network, and its slopes are those of ReLUs."""
    for name, expected, got in (
        ("kind", claim.kind, proof.kind),
        ("arithmetic", claim.arithmetic, proof.arithmetic),
        ("method", claim.method, proof.method),
        ("network", network.digest(), proof.network),
        ("records", str(records), str(proof.records)),
    ):
        if expected != got:
            raise ProofError(f"{path}/{name}", "the claim that the proof is for", expected, got)
    if claim.method not in (RELAXATION, WITH_SMT) or (claim.method == WITH_SMT) != bool(proof.smt.size):
        raise ProofError(f"{path}/smt", "records that rest on z3", f"as method {claim.method} has", str(proof.smt.size))
    for index, values in proof.slopes.items():
        relu = index < len(network.nodes) and network.nodes[index].op == "Relu"
        if not relu or values.shape[1:] != (*each, *network.nodes[index].shape):
            raise ProofError(f"{path}/slopes/{index}", "slopes", "of the shape of a Relu", str(values.shape))


def _amount(value: Fraction | None, claim: Claim, name: str) -> Fraction:
    if value is None:
        raise ProofError(f"claim {claim.kind}", name, "a number", "nothing")
    return value


def record_query(problem: Problem, claim: Claim, record: int) -> str:
    """The question to an SMT solver for one forget record: the ball in exact numbers, cut to D.

    Raises:
        UnsupportedVersionError: the claim is not one over the reals, or an operator has no rule.
        LimitError: the network is too large.

    """
    if claim.arithmetic == BINARY32:
        raise UnsupportedVersionError(f"claim {claim.kind}", "SMT query: arithmetic", "real", claim.arithmetic)
    rows = problem.rows("forget")
    radius, margin = _amount(claim.radius, claim, "radius"), _amount(claim.margin, claim, "margin")
    lower, upper = [], []
    for coordinate, value in enumerate(rows.flat()[record].tolist()):
        low, high = problem.domain.interval(coordinate)
        lower.append(max(low, Fraction(value) - radius))
        upper.append(min(high, Fraction(value) + radius))
    return forget_query(problem.patched, lower, upper, int(rows.y[record]), margin)


def _by_smt(problem: Problem, claim: Claim, proof: Proof, path: str) -> tuple[Bools, tuple[str, ...]]:
    """The records that rest on z3, and the assumptions that they rest on."""
    proved = np.zeros(proof.records, dtype=np.bool_)
    if len(proof.smt) > MAX_SMT_RECORDS:
        raise LimitError(f"{path}/smt", "records that rest on z3", f"at most {MAX_SMT_RECORDS}", str(len(proof.smt)))
    names = []
    for record in proof.smt.tolist():
        if proof.competitors[record] != -1:
            got = str(proof.competitors[record])
            raise ProofError(f"{path}/competitors/{record}", "a record that rests on z3 alone", "-1", got)
        names.append(f"z3_unsat:{sha256_hex(record_query(problem, claim, record).encode())}")
        proved[record] = True
    return proved, tuple(sorted(set(names)))


def forget_by_relaxation(problem: Problem, claim: Claim, proof: Proof, path: str = "proof") -> Outcome:
    """F: on each forget record's ball some label beats the forgotten one by tau, by a bound or under an assumption.

    Args:
        problem: the files; the patched network may be of any making.
        claim: a forget claim of method ``relaxation`` or ``relaxation+smt``.
        proof: competitors, slopes, and which records rest on z3.
        path: the proof's name, for errors.

    Raises:
        ProofError: the proof is for something else.
        MalformedInputError: a competitor that is no other label.
        UnsupportedVersionError: the patched network has an operator without a rule.

    """
    network, rows = problem.patched, problem.rows("forget")
    radius, margin = _amount(claim.radius, claim, "radius"), _amount(claim.margin, claim, "margin")
    _require_fit(proof, claim, network, len(rows.y), (), path)
    chosen = proof.competitors.astype(np.int64)
    if chosen.size != len(rows.y) or bool(((chosen >= network.labels) | (chosen == rows.y)).any()):
        raise MalformedInputError(f"{path}/competitors", "competitors", "a label other than the forgotten one", "none")
    proved, assumptions = _by_smt(problem, claim, proof, path)
    eye, enough = np.eye(network.labels), float64_not_below(margin)
    for batch in _batches(problem, network, rows, radius, proof):
        rivals = chosen[batch.records]
        objectives = (eye[np.maximum(rivals, 0)] - eye[rows.y[batch.records]])[:, np.newaxis]
        found = _bounds(network, batch, objectives, claim.arithmetic)[:, 0]
        proved[batch.records] |= (rivals >= 0) & (found >= enough)
    unknowns = tuple(int(i) for i in np.flatnonzero(~proved))
    return Outcome(
        len(rows.y),
        int(proved.sum()),
        unknowns=unknowns,
        already_wrong=problem.already_wrong(),
        assumptions=assumptions,
    )


def _moved(problem: Problem, batch: _Batch, reach: Floats) -> Floats:
    """Upper bounds [records, labels] of |fl(z + p) - z| in binary32, for |p| <= ``reach``."""
    low, high = interval_pass(problem.base, batch.lower, batch.upper, BINARY32).output()
    low, high = np.broadcast_to(low, reach.shape), np.broadcast_to(high, reach.shape)
    add = Node("Add", (0, 0), reach.shape[1:])
    rounding = np.asarray(node_rounding(add, [(low, high), (-reach, reach)], BINARY32))
    return np.asarray(np.nextafter(reach + rounding, np.inf), dtype=np.float64)


def retain_close_by_relaxation(problem: Problem, claim: Claim, proof: Proof, path: str = "proof") -> Outcome:
    """RC: on each retained record's ball no logit moves by more than delta, by bounds on the patch alone.

    Args:
        problem: the files; the patch is additive.
        claim: a retain_close claim of method ``relaxation``.
        proof: slopes for -P_j and then for P_j, for all labels j.
        path: the proof's name, for errors.

    Raises:
        ProofError: the proof is for something else, or a value may overflow.
        SubjectMismatchError: the patched network is not the base with the patch.

    """
    network = difference_network(problem.learned_patch(), problem.base.input_shape)
    rows, delta = problem.rows("retain"), _amount(claim.delta, claim, "delta")
    eye = np.eye(network.labels)
    both = np.concatenate([-eye, eye])
    _require_fit(proof, claim, network, len(rows.y), (len(both),), path)
    if proof.smt.size or proof.competitors.size:
        raise ProofError(path, "evidence of a retain_close claim", "slopes only", "competitors or records for z3")
    proved, most = np.zeros(len(rows.y), dtype=np.bool_), float64_not_above(delta)
    for batch in _batches(problem, network, rows, _amount(claim.radius, claim, "radius"), proof):
        objectives = np.broadcast_to(both, (len(batch.records), *both.shape))
        found = -_bounds(network, batch, objectives, claim.arithmetic)
        reach = np.maximum(np.maximum(found[:, : network.labels], found[:, network.labels :]), 0.0)
        if claim.arithmetic == BINARY32:
            reach = _moved(problem, batch, reach)
        proved[batch.records] = (reach <= most).all(axis=1)
    unknowns = tuple(int(i) for i in np.flatnonzero(~proved))
    return Outcome(len(rows.y), int(proved.sum()), unknowns=unknowns)


def decide_bounded(problem: Problem, claim: Claim, data: bytes, path: str) -> Outcome:
    """Decide a claim whose method is not structural.

    Args:
        problem: the files.
        claim: of kind ``forget`` or ``retain_close``.
        data: the evidence.
        path: its name, for errors.

    Returns:
        What follows. A claim may be proved for some records only.

    Raises:
        CheckError: the evidence is malformed or for something else, or there is no rule.

    """
    proof = parse(data, path)
    match claim.kind:
        case "forget":
            return forget_by_relaxation(problem, claim, proof, path)
        case "retain_close":
            return retain_close_by_relaxation(problem, claim, proof, path)
    raise UnsupportedVersionError(f"claim {claim.kind}", "method", "a known rule for this kind", claim.method)
