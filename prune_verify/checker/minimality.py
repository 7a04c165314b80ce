"""Rule M: no gate of the patch could have fewer intervals, by the dual of a covering problem.

In words: the gate's box on the graph input holds the balls of its forget records, all of its label, and each retained
ball is separated from it in at least ``cover`` coordinates (retained balls that no ``cover`` coordinates can separate
do not count); and every box of which this is true has at least as many intervals. Without the first half a gate with
needless intervals would be the smallest one for a cover that it does not have (T5, T25).

Proof. Coordinate j can separate retained ball r only if the ball's interval there and the hull H_j of the forget balls'
intervals are disjoint: a_rj = 1, else 0. A box with the set S of coordinates has sum over j in S of a_rj >= cover for
every r that counts. For weights w_r >= 0 and q_j = sum_r w_r a_rj,

    cover sum_r w_r  <=  sum over j in S of q_j  <=  |S| + sum over j of max(0, q_j - 1),

so that |S| is at least ``cover sum w - sum max(0, q_j - 1)``, rounded up. Everything is computed in integers and exact
rationals; the weights are the prover's and may be anything from 0.

The evidence is canonical JSON: {"formatVersion":1,"gates":[[[record, weight],..],..]}: for each gate the retained
records with their weights in units of 2^-20, records ascending.

Source: MATHS 2 (M), 4.1 (set multi-cover); linear programming duality; certs/SPEC.md section 4.9.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil

import numpy as np
import numpy.typing as npt

from prune_verify.checker.claim import Claim, Outcome, Problem
from prune_verify.checker.encoding import Json, Members, canonical_json, parse_json
from prune_verify.checker.errors import MalformedInputError, ProofError, UnsupportedVersionError
from prune_verify.checker.patch import INPUT, Gate
from prune_verify.checker.rules import gate_open

__all__ = ["UNIT", "decide_minimality", "emit_weights", "separable"]

UNIT = 2**20
FORMAT_VERSION = 1
_MOST_BYTES = 2**26
_ROWS = 4096  # retained records looked at together

Weights = tuple[tuple[int, int], ...]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]


def emit_weights(gates: list[Weights]) -> bytes:
    """The evidence of a claim M: the weights of its ``gates``."""
    listed: list[Json] = [[[record, weight] for record, weight in weights] for weights in gates]
    return canonical_json({"formatVersion": FORMAT_VERSION, "gates": listed})


def _weights(item: Json, path: str, records: int) -> Weights:
    found = list[tuple[int, int]]()
    for pair in item if isinstance(item, list) else [None]:
        numbers = pair if isinstance(pair, list) else []
        integers = [n for n in numbers if isinstance(n, int) and not isinstance(n, bool)]
        if len(integers) != 2 or len(numbers) != 2:  # noqa: PLR2004 - a pair
            raise MalformedInputError(path, "weights", "pairs of integers", "something else")
        record, weight = integers
        if not (found[-1][0] if found else -1) < record < records or weight < 0:
            raise ProofError(
                path, "weights", f"ascending records below {records}, weights from 0", f"{record}, {weight}"
            )
        found.append((record, weight))
    return tuple(found)


def separable(forget: Floats, retain: Floats, radius: Fraction, retained: Fraction) -> Bools:
    """In which coordinates a ball of ``retained`` around ``retain`` misses the hull of the forget balls: [retained, n].

    That is x_r - retained > max x_f + radius, or x_r + retained < min x_f - radius. Differences of float32 numbers in
    float64 are off by 2^-53 of their size, so that only those close to the radii are looked at in rationals.
    """
    reach = radius + retained
    top, bottom = forget.max(axis=0).astype(np.float64), forget.min(axis=0).astype(np.float64)
    rows = retain.astype(np.float64)
    above, below = rows - top, bottom - rows
    bar, window = float(reach), float(reach) * 2.0**-40
    clear: Bools = (above > bar + window) | (below > bar + window)
    for row, j in zip(*np.nonzero((np.abs(above - bar) <= window) | (np.abs(below - bar) <= window)), strict=True):
        x, high, low = (Fraction(float(v)) for v in (rows[row, j], top[j], bottom[j]))
        clear[row, j] = x - high > reach or low - x > reach
    return clear


def _covers(problem: Problem, claim: Claim, gate: Gate) -> bool:
    """Whether the gate is one of the boxes that it is compared with: it holds its balls and leaves out what it can."""
    if claim.cover is None or claim.radius is None:
        return False
    (cover, retained), radius = claim.cover, claim.radius
    forget, rows, listed = problem.rows("forget"), problem.rows("retain").flat(), list(gate.records)
    flat = forget.flat()
    holds = all(gate_open(gate, flat[record], radius, problem.domain) for record in listed)
    if not holds or (forget.y[listed] != gate.label).any():
        return False
    read = [interval.coordinate for interval in gate.intervals]
    ends = [[-np.inf if i.low is None else i.low for i in gate.intervals]]
    ends += [[np.inf if i.high is None else i.high for i in gate.intervals]]
    box = np.array(ends, dtype=np.float32)
    for start in range(0, len(rows), _ROWS):
        part = rows[start : start + _ROWS]
        left = part[separable(box, part[:, read], Fraction(0), retained).sum(axis=1) < cover]
        if len(left) and (separable(flat[listed], left, radius, retained).sum(axis=1) >= cover).any():
            return False
    return True


def _fewest(problem: Problem, claim: Claim, gate: Gate, weights: Weights, path: str) -> int:
    """The lower bound that the weights give for one gate."""
    if claim.cover is None or claim.radius is None:
        raise ProofError("claim minimality", "cover and radius", "numbers", "nothing")
    cover, retained = claim.cover
    flat = problem.rows("forget").flat()
    if not weights or not gate.records:
        return 0
    chosen = [record for record, _ in weights]
    apart = separable(flat[list(gate.records)], problem.rows("retain").flat()[chosen], claim.radius, retained)
    hopeless = np.flatnonzero(apart.sum(axis=1) < cover)
    if hopeless.size:
        got = f"record {chosen[int(hopeless[0])]}"
        raise ProofError(path, "weights", f"records that {cover} coordinates can separate", got)
    units = [weight for _, weight in weights]
    loads = [sum(w for w, a in zip(units, column, strict=True) if a) for column in apart.T.tolist()]
    over = sum(max(0, load - UNIT) for load in loads)
    return max(0, ceil(Fraction(cover * sum(units) - over, UNIT)))


def decide_minimality(problem: Problem, claim: Claim, data: bytes, path: str) -> Outcome:
    """Decide a claim M.

    Args:
        problem: the files; the patch has gates, and forget and retained set are there.
        claim: with radius (of forget balls) and cover.
        data: the evidence.
        path: its name, for errors.

    Returns:
        How many gates are proved to have the fewest intervals.

    Raises:
        CheckError: the evidence is malformed, or weighs records that do not count.

    """
    if claim.kind != "minimality":
        raise UnsupportedVersionError(
            f"claim {claim.kind}", "method", "covering-dual for minimality only", claim.method
        )
    patch, records = problem.joint_patch(), len(problem.rows("retain").y)
    if patch.sites != (INPUT,):
        raise ProofError("patch.json/site", "method covering-dual", "gates that read the input", ", ".join(patch.sites))
    fields = Members(parse_json(data, path, max_bytes=_MOST_BYTES, canonical=True), path, ("formatVersion", "gates"))
    if fields.integer("formatVersion") != FORMAT_VERSION:
        raise UnsupportedVersionError(fields.place("formatVersion"), "formatVersion", str(FORMAT_VERSION), "another")
    listed = fields.items("gates")
    if len(listed) != len(patch.gates):
        raise ProofError(
            fields.place("gates"), "weights", f"a list for each of {len(patch.gates)} gates", str(len(listed))
        )
    unknowns = list[int]()
    for place, (gate, item) in enumerate(zip(patch.gates, listed, strict=True)):
        where = f"{fields.place('gates')}/{place}"
        if max(gate.records, default=0) >= len(problem.rows("forget").y):
            raise ProofError(where, "records of the gate", "forget records", str(max(gate.records)))
        fewest = _fewest(problem, claim, gate, _weights(item, where, records), where)
        if len(gate.intervals) > fewest or not _covers(problem, claim, gate):
            unknowns.append(place)
    return Outcome(len(patch.gates), len(patch.gates) - len(unknowns), unknowns=tuple(unknowns))
