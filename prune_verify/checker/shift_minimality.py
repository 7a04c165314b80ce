"""Rule M for additive patches: on a forget ball no additive patch that forgets by the margin could shift less.

In words: let a patch of the form N + P make label y lose by at least tau on the ball of a gate's record. Then somewhere
on the ball some |P_j| is at least L, and the greatest number that the gates add to a logit on it is at most
L / (1 - 2^-10): this gate and every other one that is not proved closed there count together, because two gates
that open together would each be a least one and add twice as much.

Proof. The evidence names a point x of the ball, cut to D. There some j has N_j + P_j >= N_y + P_y + tau, so that
P_j - P_y >= N_y - m + tau with m the greatest other logit of the base, and one of |P_j|, |P_y| is at least half of it:
L = (N_y(x) - m(x) + tau) / 2, or 0 where that is more. It is computed in exact rationals. So no affine P does better
than a constant one in this norm, and none that is not affine either. A float32 program may have other logits: the rule
is for the reals alone.

The evidence is canonical JSON: {"formatVersion":1,"points":[BASE64,..]}: for each gate the float32 numbers of its
point.

Source: MATHS 4.2 (minimal shift); the lower bound is the primal of REASSURE's linear program, arXiv 2110.07682;
certs/SPEC.md section 4.10.
"""

from __future__ import annotations

import base64
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from prune_verify.checker.claim import Claim, Outcome, Problem
from prune_verify.checker.encoding import Members, canonical_json, parse_base64, parse_json
from prune_verify.checker.errors import MalformedInputError, ProofError, UnsupportedVersionError
from prune_verify.checker.network import evaluate_exact
from prune_verify.checker.patch import Gate, ShiftPatch
from prune_verify.checker.rules import REAL
from prune_verify.checker.sites import Reader

__all__ = ["decide_shift_minimality", "emit_points"]

FORMAT_VERSION = 1
NEAR = 1 - Fraction(1, 2**10)
_MOST_BYTES = 2**28

Floats = npt.NDArray[np.float32]


def emit_points(points: Floats) -> bytes:
    """The evidence of a claim M of a shift patch: ``points`` float32 [gates, n]."""
    listed = [base64.b64encode(point.astype("<f4").tobytes()).decode() for point in points]
    return canonical_json({"formatVersion": FORMAT_VERSION, "points": list(listed)})


def _inside(problem: Problem, claim: Claim, gate: Gate, point: Floats) -> bool:
    """Whether a point lies in D and in the ball of the first record that the gate names."""
    rows = problem.rows("forget")
    if claim.radius is None or not gate.records or gate.records[0] >= len(rows.y):
        return False
    record = gate.records[0]
    if rows.y[record] != gate.label:
        return False
    for j, (value, centre) in enumerate(zip(point.tolist(), rows.flat()[record].tolist(), strict=True)):
        low, high = problem.domain.interval(j)
        if not low <= Fraction(value) <= high or abs(Fraction(value) - Fraction(centre)) > claim.radius:
            return False
    return True


def _least(problem: Problem, claim: Claim, gate: Gate, point: Floats) -> Fraction:
    """L at the point, or 0 where that is more: the base may answer another label there already."""
    if claim.margin is None:
        raise ProofError("claim minimality", "margin", "a number", "nothing")
    logits = evaluate_exact(problem.base, point.reshape(1, *problem.base.input_shape))[0]
    best = max(value for label, value in enumerate(logits) if label != gate.label)
    return max((logits[gate.label] - best + claim.margin) / 2, Fraction(0))


def _greatest(problem: Problem, claim: Claim, patch: ShiftPatch) -> list[Fraction]:
    """For each gate the most that all gates together may add to one logit on the ball of its first record."""
    rows, radius = problem.rows("forget"), claim.radius
    firsts = np.array([next((r for r in g.records if r < len(rows.y)), 0) for g in patch.gates], dtype=np.int64)
    if radius is None:
        return [Fraction(0)] * len(firsts)

    def closed(gate: Gate) -> npt.NDArray[np.bool_]:
        reader = Reader(problem.base, patch.sites, (gate,), REAL, exact=problem.exact)
        return reader.separate(lambda chosen: problem.domain.ball(rows.x[firsts[chosen]], radius), len(firsts)).closed

    open_there = ~np.array([closed(gate) for gate in patch.gates]) | np.eye(len(firsts), dtype=np.bool_)
    sizes = [[abs(Fraction(value)) for value in shift] for shift in patch.shifts.tolist()]
    together = ([sizes[g] for g in np.flatnonzero(ball)] for ball in open_there.T)
    return [max(sum(column, Fraction(0)) for column in zip(*added, strict=True)) for added in together]


def decide_shift_minimality(problem: Problem, claim: Claim, data: bytes, path: str) -> Outcome:
    """Decide a claim M of a patch of family ``linear-region``.

    Args:
        problem: the files; the forget set is there.
        claim: with radius and margin.
        data: the evidence.
        path: its name, for errors.

    Returns:
        On how many gates' balls the patch is proved to add no more than any additive patch has to, up to the factor.

    Raises:
        CheckError: the evidence is malformed, the patch is of another family, or the claim not over the reals.

    """
    if claim.kind != "minimality":
        raise UnsupportedVersionError(f"claim {claim.kind}", "method", "shift-point for minimality only", claim.method)
    if claim.arithmetic != REAL:  # the logits of the float32 program may be others, and a smaller shift enough for it
        raise UnsupportedVersionError(f"claim {claim.kind}", "arithmetic of method shift-point", REAL, claim.arithmetic)
    patch = problem.additive_patch()
    if not isinstance(patch, ShiftPatch):
        raise ProofError("patch.json/family", "method shift-point", "linear-region", patch.family)
    fields = Members(parse_json(data, path, max_bytes=_MOST_BYTES, canonical=True), path, ("formatVersion", "points"))
    if fields.integer("formatVersion") != FORMAT_VERSION:
        raise UnsupportedVersionError(fields.place("formatVersion"), "formatVersion", str(FORMAT_VERSION), "another")
    listed = fields.items("points", most=len(patch.gates))
    if len(listed) != len(patch.gates):
        raise ProofError(
            fields.place("points"), "points", f"one for each of {len(patch.gates)} gates", str(len(listed))
        )
    unknowns, size = list[int](), int(np.prod(problem.base.input_shape))
    greatest = _greatest(problem, claim, patch)
    for place, (gate, item) in enumerate(zip(patch.gates, listed, strict=True)):
        raw = parse_base64(item, f"{fields.place('points')}/{place}")
        if len(raw) != 4 * size:
            raise MalformedInputError(
                f"{fields.place('points')}/{place}", "point", f"{size} float32", f"{len(raw)} bytes"
            )
        point = np.frombuffer(raw, dtype="<f4").astype(np.float32)
        if not (
            np.isfinite(point).all()
            and _inside(problem, claim, gate, point)
            and _least(problem, claim, gate, point) >= greatest[place] * NEAR
        ):
            unknowns.append(place)
    return Outcome(len(patch.gates), len(patch.gates) - len(unknowns), unknowns=tuple(unknowns))
