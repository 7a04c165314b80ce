"""Claims that rest on bounds, each as goals over boxes, decided with the prover's hints.

forget          on each forget record's ball some label beats the forgotten one by tau: one clause, an atom per
                other label
retain_close    no logit moves by more than delta. N' = N + P of an additive patch, so that P alone is bounded; in
                binary32 N'_j = fl(z_j + p_j), and the rounding of that sum counts towards delta. Without an
                additive patch both networks are bounded together
retain_label    base and patched network answer the label that the base answers at the centre: an atom per label
                and network, strict
band            the margin of the forgotten label, N'_y - max of the others, stays in [a, b]

A record that rests on z3 is proved under the assumption ``z3_unsat:<SHA-256 of the question>``, where the
question is written here and not by the prover. Whether an assumption is permitted is the auditor's to say.

Source: MATHS 2 (F, RC, RL, BD), 4.3, 5.2, 5.3 and the last paragraph of 5; certs/SPEC.md section 5.3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from math import prod
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from prune_verify.checker.claim import Claim, LabelledRows, Outcome, Problem, strict_answers
from prune_verify.checker.encoding import sha256_hex
from prune_verify.checker.errors import LimitError, ProofError, UnsupportedVersionError
from prune_verify.checker.goals import Goals, decide_goals
from prune_verify.checker.interval import (
    BINARY32,
    TINY32,
    U32,
    Box,
    Floats,
    interval_pass,
    node_rounding,
    sum_rounding,
)
from prune_verify.checker.network import Network, Node, node_key
from prune_verify.checker.patch import LearnedPatch, ShiftPatch
from prune_verify.checker.proof import Proof, parse
from prune_verify.checker.rebuild import difference_network
from prune_verify.checker.region import float64_not_above, float64_not_below
from prune_verify.checker.smt import forget_query

__all__ = [
    "GOALS",
    "MAX_SMT_RECORDS",
    "GoalsRule",
    "decide_bounded",
    "goals_of",
    "pair_network",
    "record_query",
]

MAX_SMT_RECORDS = 64
RELAXATION = "relaxation"
WITH_SMT = "relaxation+smt"

Bools = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]
GoalsRule = Callable[[Problem, Claim], Goals]


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


def pair_network(base: Network, patched: Network, *, shared: bool = False) -> Network:
    """Base and patched network side by side on one input: the logits of the base, then those of the patched network.

    With ``shared`` a node of the patched network that is a node of the base (the same operator, attributes and numbers
    bit for bit, on inputs that are the same) IS that node, and no node of the base stands for two. Over the reals this
    changes no value. In binary32 base and patched network run apart, and one node may round differently in the two: a
    clause that speaks of the logits of one network only may share, because the nodes behind those logits are, one to
    one, the nodes of that network; a clause about both may not.
    """
    nodes, place = list(base.nodes), {0: 0}
    known: dict[tuple[object, ...], list[int]] = {}
    for index, node in enumerate(base.nodes if shared else ()):
        known.setdefault(node_key(node, node.inputs), []).append(index)
    for index, node in enumerate(patched.nodes[1:], 1):
        inputs = tuple(place[i] for i in node.inputs)
        same = known.get(node_key(node, inputs)) if shared else None
        if not same:
            nodes.append(replace(node, inputs=inputs))
        place[index] = same.pop(0) if same else len(nodes) - 1
    ends = []
    for output in (base.output, place[patched.output]):
        nodes.append(Node("Reshape", (output,), (prod(nodes[output].shape),)))
        ends.append(len(nodes) - 1)
    width = sum(prod(nodes[end].shape) for end in ends)
    nodes.append(Node("Concat", tuple(ends), (width,), {"axis": (0,)}))
    return Network(tuple(nodes), len(nodes) - 1)


def _others(labels: Rows, count: int) -> Rows:
    """The labels other than each record's own, ascending: [records, count - 1]."""
    every = np.broadcast_to(np.arange(count), (len(labels), count))
    found: Rows = every[every != labels[:, np.newaxis]].reshape(len(labels), count - 1)
    return found


def _margins(labels: Rows, count: int) -> Floats:
    """Objectives y_j - y_label for the other labels j: [records, count - 1, count]."""
    eye = np.eye(count)
    return eye[_others(labels, count)] - eye[labels][:, np.newaxis]


def _balls(problem: Problem, rows: LabelledRows, radius: Fraction) -> Callable[[Rows], Box]:
    return lambda records: problem.domain.ball(rows.x[records], radius)


def _filled(value: float, *shape: int) -> Floats:
    return np.full(shape, value, dtype=np.float64)


def _forget_goals(problem: Problem, claim: Claim) -> Goals:
    """F: one clause, that some other label beats y by tau."""
    network, rows = problem.patched, problem.rows("forget")
    count, least = network.labels, float64_not_below(_amount(claim.margin, claim, "margin"))

    def constraint(records: Rows) -> tuple[Floats, Floats]:
        return _margins(rows.y[records], count)[:, np.newaxis], _filled(least, len(records), 1, count - 1)

    boxes = _balls(problem, rows, _amount(claim.radius, claim, "radius"))
    return Goals(network, claim.arithmetic, len(rows.y), 1, count - 1, boxes, constraint)


def _band_goals(problem: Problem, claim: Claim) -> Goals:
    """BD: a clause per other label j, N'_y - N'_j >= a (its atom repeated), and one: some j has N'_j - N'_y >= -b."""
    network, rows = problem.patched, problem.rows("forget")
    count = network.labels
    if claim.band is None:
        raise ProofError("claim band", "band", "two numbers", "nothing")
    least, most = float64_not_below(claim.band[0]), float64_not_below(-claim.band[1])

    def constraint(records: Rows) -> tuple[Floats, Floats]:
        beaten = _margins(rows.y[records], count)
        each = np.repeat(-beaten[:, :, np.newaxis], count - 1, axis=2)
        ends = np.concatenate(
            [_filled(least, len(records), count - 1, count - 1), _filled(most, len(records), 1, count - 1)], axis=1
        )
        return np.concatenate([each, beaten[:, np.newaxis]], axis=1), ends

    boxes = _balls(problem, rows, _amount(claim.radius, claim, "radius"))
    return Goals(network, claim.arithmetic, len(rows.y), count, count - 1, boxes, constraint)


def _retain_close_goals(problem: Problem, claim: Claim) -> Goals:
    """RC: two clauses per label, that -P_j >= -delta and P_j >= -delta, P being what the patched network adds."""
    rows, delta = problem.rows("retain"), _amount(claim.delta, claim, "delta")
    boxes, count = _balls(problem, rows, _amount(claim.radius, claim, "radius")), problem.base.labels
    eye, most = np.eye(count), float64_not_above(delta)
    additive, partners = isinstance(problem.patch, LearnedPatch | ShiftPatch), dict[int, int]()
    if additive:
        network, moved = difference_network(problem.base, problem.additive_patch()), eye
    else:
        network = pair_network(problem.base, problem.patched, shared=claim.arithmetic != BINARY32)
        moved = np.concatenate([-eye, eye], axis=1)
        partners = _partners(network, len(problem.base.nodes))
    both = np.concatenate([-moved, moved])[:, np.newaxis]

    def constraint(records: Rows) -> tuple[Floats, Floats]:
        allowed = _filled(most, len(records), count)
        if additive and claim.arithmetic == BINARY32:
            allowed = _less_the_last_sum(problem, boxes(records), most)
        least = np.concatenate([-allowed, -allowed], axis=1)[:, :, np.newaxis]
        return np.broadcast_to(both, (len(records), *both.shape)), least

    return Goals(network, claim.arithmetic, len(rows.y), 2 * count, 1, boxes, constraint, partners=partners)


def _partners(pair: Network, first: int) -> dict[int, int]:
    """The ReLUs of two networks side by side, in order, where they have one shape; any pairing is sound.

    Those of the later network that are shared are not in it: the last ones are then those without a counterpart.
    """
    relus = [i for i, node in enumerate(pair.nodes) if node.op == "Relu"]
    later, earlier = [i for i in relus if i >= first], [i for i in relus if i < first]
    pairs = zip(later, earlier[max(0, len(earlier) - len(later)) :], strict=False)
    return {one: other for one, other in pairs if pair.nodes[one].shape == pair.nodes[other].shape}


def _less_the_last_sum(problem: Problem, box: Box, delta: float) -> Floats:
    """What |p| may be so that the logit N' computes lies within delta of z, in binary32.

    One sum z + p rounds by u |z + p| + 3 t. A runtime may also begin the last product of the base with p, so that z is
    rounded otherwise in N than in N': then both roundings of that product count.
    """
    known, index = interval_pass(problem.base, *box, BINARY32), problem.base.output
    while problem.base.nodes[index].op == "Reshape":
        index = problem.base.nodes[index].inputs[0]
    low, high = known.output()
    lost = (np.maximum(np.abs(low), np.abs(high)) + delta) * U32 * (1 + 2.0**-20) + 3 * TINY32
    if index in known.sums:
        total, terms = known.sums[index]
        own = np.asarray(node_rounding(problem.base, index, known, BINARY32), dtype=np.float64)
        lost = lost + (own + sum_rounding(total + delta, terms)).reshape(lost.shape)
    return np.nextafter(delta - np.broadcast_to(lost, (len(box[0]), lost.shape[1])), -np.inf)


def _retain_label_goals(problem: Problem, claim: Claim) -> Goals:
    """RL: a clause per other label and network, that the base's own answer at the centre beats it; strict."""
    rows, count = problem.rows("retain"), problem.base.labels
    answers = strict_answers(problem.base, rows.x)
    network = pair_network(problem.base, problem.patched, shared=True)  # each clause is about one of the two

    def constraint(records: Rows) -> tuple[Floats, Floats]:
        one = -_margins(np.maximum(answers[records], 0), count)
        none = np.zeros_like(one)
        found = np.concatenate([np.concatenate([one, none], axis=2), np.concatenate([none, one], axis=2)], axis=1)
        tied = np.where(answers[records] < 0, np.inf, 0.0)  # no answer at the centre: nothing is claimed to stay
        least = np.broadcast_to(tied[:, np.newaxis, np.newaxis], (len(records), 2 * (count - 1), 1))
        return found[:, :, np.newaxis], least

    boxes = _balls(problem, rows, _amount(claim.radius, claim, "radius"))
    return Goals(network, claim.arithmetic, len(rows.y), 2 * (count - 1), 1, boxes, constraint, strict=True)


# Read-only: no import changes what the checker accepts. Who tries a rule of their own passes a table of their own.
GOALS: Mapping[str, GoalsRule] = MappingProxyType(
    {
        "forget": _forget_goals,
        "band": _band_goals,
        "retain_close": _retain_close_goals,
        "retain_label": _retain_label_goals,
    }
)


def goals_of(problem: Problem, claim: Claim, *, rules: Mapping[str, GoalsRule] = GOALS) -> Goals:
    """What a claim of method ``relaxation`` comes to, by the table's rule for its kind.

    Raises:
        UnsupportedVersionError: no rule of bounds for claims of this kind.
        CheckError: the claim lacks a number, or the files are not those of the claim.

    """
    if claim.kind not in rules:
        raise UnsupportedVersionError(f"claim {claim.kind}", "method", "a known rule for this kind", claim.method)
    return rules[claim.kind](problem, claim)


def _require_fit(proof: Proof, claim: Claim, goals: Goals, path: str) -> None:
    """The proof is one for this claim and this network."""
    for name, expected, got in (
        ("kind", claim.kind, proof.kind),
        ("arithmetic", claim.arithmetic, proof.arithmetic),
        ("method", claim.method, proof.method),
        ("network", goals.network.digest(), proof.network),
        ("records", str(goals.records), str(proof.records)),
    ):
        if expected != got:
            raise ProofError(f"{path}/{name}", "the claim that the proof is for", expected, got)
    if claim.method not in (RELAXATION, WITH_SMT) or (claim.method == WITH_SMT) != bool(proof.smt.size):
        raise ProofError(f"{path}/smt", "records that rest on z3", f"as method {claim.method} has", str(proof.smt.size))
    if proof.smt.size and (claim.kind != "forget" or int(proof.smt[-1]) >= goals.records):
        raise ProofError(f"{path}/smt", "records that rest on z3", "records of a forget claim", str(int(proof.smt[-1])))


def _by_smt(problem: Problem, claim: Claim, proof: Proof, path: str) -> tuple[tuple[int, str], ...]:
    """The records that rest on z3, each with the assumption that it rests on."""
    if len(proof.smt) > MAX_SMT_RECORDS:
        raise LimitError(f"{path}/smt", "records that rest on z3", f"at most {MAX_SMT_RECORDS}", str(len(proof.smt)))
    found = []
    for record in proof.smt.tolist():
        if not proof.choices.size or proof.choices[record] != -1:
            raise ProofError(f"{path}/choices/{record}", "a record that rests on z3 alone", "-1", "a choice")
        found.append((record, f"z3_unsat:{sha256_hex(record_query(problem, claim, record).encode())}"))
    return tuple(found)


def decide_bounded(
    problem: Problem, claim: Claim, data: bytes, path: str, *, rules: Mapping[str, GoalsRule] = GOALS
) -> Outcome:
    """Decide a claim whose method is not structural.

    Args:
        problem: the files; the networks may be of any making.
        claim: of a kind that has goals.
        data: the evidence.
        path: its name, for errors.
        rules: goals by kind of claim; the checker's commands leave it as it is.

    Returns:
        What follows. A claim may be proved for some records only.

    Raises:
        CheckError: the evidence is malformed or for something else, or there is no rule.

    """
    proof, goals = parse(data, path), replace(goals_of(problem, claim, rules=rules), exact=problem.exact)
    _require_fit(proof, claim, goals, path)
    proved: Bools = np.array(decide_goals(goals, proof, path).all(axis=1))
    questions = _by_smt(problem, claim, proof, path)
    proved[[record for record, _ in questions]] = True
    unknowns = tuple(int(i) for i in np.flatnonzero(~proved))
    wrong = problem.already_wrong() if claim.kind in ("forget", "band") else ()
    return Outcome(
        goals.records,
        int(proved.sum()),
        unknowns=unknowns,
        already_wrong=wrong,
        assumptions=tuple(sorted({name for _, name in questions})),
        questions=questions,
    )
