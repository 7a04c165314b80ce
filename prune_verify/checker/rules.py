"""The structural rules: what follows from the form of the joint head, whatever the base computes.

One function per rule. A rule looks at numbers in the files only; it raises :class:`ProofError`
naming the broken side condition, or returns which records it proves. Every comparison is exact, or
float64 with a rigorous bound and an exact second look at what lies too close.

u = 2^-24. The rules speak of the nodes that :func:`prune_verify.checker.rebuild.build` makes; that the
deployed file has exactly these nodes is checked by digest before any rule is used.

Source: MATHS 3.1, 3.2, 3.3, 4.1; certs/SPEC.md section 4 has the proofs with their rounding terms.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from prune_verify.checker.errors import ProofError
from prune_verify.checker.patch import Gate, JointPatch
from prune_verify.checker.region import Domain, float64_not_above, float64_not_below

__all__ = [
    "BINARY32",
    "REAL",
    "Separation",
    "class_cap",
    "gate_closed_within",
    "gate_leaves_part_of_domain",
    "gate_open",
    "gate_open_within",
    "gate_threshold",
    "gates_closed",
    "head_margin",
    "hold_head",
    "hold_within",
    "joint_head",
    "separate",
    "separation_of",
]

REAL = "real"
BINARY32 = "ieee754-binary32"
U = Fraction(1, 2**24)
_LEAST_TAU = Fraction(1, 2**100)
_LARGEST = 2**60
_SLACK = Fraction(1, 2**18)
_TINY = Fraction(1, 2**126)
_EXACT_LOOKS = 10_000

Bools = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]


def _exact(value: np.float32 | float) -> Fraction:
    return Fraction(float(value))


def _require(holds: bool, path: str, rule: str, expected: str, got: Fraction | int) -> None:  # noqa: FBT001 - a condition
    if not holds:
        shown = str(got) if isinstance(got, int) else f"{float(got):.9g}"
        raise ProofError(path, rule, expected, shown)


def joint_head(patch: JointPatch, spread: Fraction, magnitude: Fraction, arithmetic: str) -> None:
    """Rule joint_head: on D a closed label keeps its logit, an open one loses by tau (MATHS 3.2 (i)-(iii)).

    Args:
        patch: a patch with gates.
        spread: R, an upper bound over D of max - min of the logits of A, in ``arithmetic``.
        magnitude: Z, an upper bound over D of the absolute logits of A, in ``arithmetic``.
        arithmetic: ``real`` or ``ieee754-binary32``.

    Raises:
        ProofError: a side condition fails. They are: at least two labels in A; 2^-100 <= tau;
            M >= R + tau + s; K >= R + M + tau + s; K < 2^60, with s = 0 in reals and 2^-18 (K + Z) in binary32.

    """
    path = "patch.json"
    tau, shift, slack = _exact(patch.tau), _exact(patch.shift), _exact(patch.slack)
    _require(
        len(patch.allowed) > 1, path, "joint_head: labels that are not forgotten", "at least 2", len(patch.allowed)
    )
    _require(tau >= _LEAST_TAU, f"{path}/tau", "joint_head: tau", "at least 2^-100", tau)
    rounding = Fraction(0) if arithmetic == REAL else _SLACK * (slack + magnitude)
    least_shift = spread + tau + rounding
    _require(shift >= least_shift, f"{path}/shift", "joint_head: M >= R + tau + s", f"{float(least_shift):.9g}", shift)
    least_slack = spread + shift + tau + rounding
    _require(
        slack >= least_slack, f"{path}/slack", "joint_head: K >= R + M + tau + s", f"{float(least_slack):.9g}", slack
    )
    _require(slack < _LARGEST, f"{path}/slack", "joint_head: K", "below 2^60", slack)


def head_margin(patch: JointPatch, margin: Fraction, magnitude: Fraction, arithmetic: str) -> None:
    """Rule head_margin: what rounding (MATHS 3.3) of logits of this magnitude leaves of the margin of the joint head.

    N'_y <= fl(m - tau) <= m - tau + u (|m| + tau) + 2^-126 with |m| <= Z.

    Raises:
        ProofError: ``margin`` is not positive, or exceeds what is left of tau.

    """
    tau = _exact(patch.tau)
    left = tau if arithmetic == REAL else tau - U * (magnitude + tau) - _TINY
    _require(margin > 0, "claim/margin", "head_margin: margin", "above 0", margin)
    _require(margin <= left, "claim/margin", "head_margin: tau after rounding", f"at most {float(left):.9g}", margin)


def hold_head(patch: JointPatch, spread: Fraction, magnitude: Fraction, arithmetic: str) -> None:
    """Rule hold_head: on D a label keeps its logit where all gates are closed, and where one alone is open it is held.

    Held: the margin of the gate's label lies between the gate's ends, up to the rounding that rule hold_within pays.

    Args:
        patch: a patch whose gates hold margins; H is the greatest size of their ends.
        spread: R, as for rule joint_head.
        magnitude: Z.
        arithmetic: ``real`` or ``ieee754-binary32``.

    Raises:
        ProofError: a side condition fails. They are: no class is forgotten; low <= high; K >= R + 2 H + s; K < 2^60,
            with s = 0 in reals and 2^-18 (K + Z) in binary32.

    """
    path, slack, size = "patch.json", _exact(patch.slack), Fraction(0)
    _require(not patch.forgotten_classes, path, "hold_head: forgotten classes", "none", len(patch.forgotten_classes))
    for index, gate in enumerate(patch.gates):
        low, high = _ends(gate, f"{path}/gates/{index}")
        _require(low <= high, f"{path}/gates/{index}/hold", "hold_head: low <= high", f"at most {float(high):.9g}", low)
        size = max(size, abs(low), abs(high))
    least = spread + 2 * size + (Fraction(0) if arithmetic == REAL else _SLACK * (slack + magnitude))
    _require(slack >= least, f"{path}/slack", "hold_head: K >= R + 2 H + s", f"{float(least):.9g}", slack)
    _require(slack < _LARGEST, f"{path}/slack", "hold_head: K", "below 2^60", slack)


def _ends(gate: Gate, path: str) -> tuple[Fraction, Fraction]:
    if gate.hold is None:
        raise ProofError(path, "hold_head: a margin to hold", "two numbers", "nothing")
    return _exact(gate.hold[0]), _exact(gate.hold[1])


def hold_within(gate: Gate, band: tuple[Fraction, Fraction], magnitude: Fraction, arithmetic: str) -> bool:
    """Rule hold_within: the margin that a gate holds stays in the band after rounding logits of this magnitude.

    N'_y lies between fl(m + low) and fl(m + high), each off by at most u (Z + H) + 2^-126.
    """
    low, high = _ends(gate, "patch.json/gates")
    lost = Fraction(0) if arithmetic == REAL else U * (magnitude + max(abs(low), abs(high))) + _TINY
    return band[0] <= low - lost and high + lost <= band[1]


def class_cap(patch: JointPatch, margin: Fraction, arithmetic: str) -> None:
    """Rule class_cap: for EVERY input with finite logits, a forgotten class loses by ``margin`` (MATHS 3.1 item 4).

    N'_c <= m - (tau + 2^-20 |m|) in reals. In binary32 the four roundings cost at most 2^-22 tau and
    less than 2^-20 |m|, so that m - N'_c >= tau (1 - 2^-21) for every finite m.

    Raises:
        ProofError: no class is forgotten, no label is left, or ``margin`` exceeds what is left of tau.

    """
    tau = _exact(patch.tau)
    left = tau if arithmetic == REAL else tau * (1 - Fraction(1, 2**21))
    _require(bool(patch.forgotten_classes), "patch.json", "class_cap: forgotten classes", "at least 1", 0)
    _require(bool(patch.allowed), "patch.json", "class_cap: labels that are not forgotten", "at least 1", 0)
    _require(tau >= _LEAST_TAU, "patch.json/tau", "class_cap: tau", "at least 2^-100", tau)
    _require(margin > 0, "claim/margin", "class_cap: margin", "above 0", margin)
    _require(margin <= left, "claim/margin", "class_cap: tau after rounding", f"at most {float(left):.9g}", margin)


def gate_leaves_part_of_domain(gate: Gate, index: int, domain: Domain) -> None:
    """Rule gate_leaves_part_of_domain: the box of gate ``index`` excludes part of D (T25: a class cap as a record).

    Raises:
        ProofError: the gate has no coordinates, or its box holds all of D.

    """
    path = f"patch.json/gates/{index}"
    _require(bool(gate.intervals), path, "gate: coordinates", "at least 1", 0)
    for interval in gate.intervals:
        low, high = domain.interval(interval.coordinate)
        if interval.high is not None and _exact(interval.high) < high:
            return
        if interval.low is not None and _exact(interval.low) > low:
            return
    raise ProofError(path, "gate: the box excludes part of the domain", "an edge inside the domain", "none")


def gate_open(gate: Gate, centre: npt.NDArray[np.float32], radius: Fraction, domain: Domain) -> bool:
    """Rule gate_open: the ball of ``radius`` around ``centre`` [n], cut to D, lies in the box, so g = 1 on all of it.

    In binary32 every literal's difference is then <= 0, its ReLU an exact 0, and 1 - gamma 0 an exact 1.
    """
    for interval in gate.intervals:
        value = _exact(centre[interval.coordinate])
        low, high = domain.interval(interval.coordinate)
        if interval.high is not None and min(value + radius, high) > _exact(interval.high):
            return False
        if interval.low is not None and max(value - radius, low) < _exact(interval.low):
            return False
    return True


def gate_threshold(gate: Gate, arithmetic: str) -> Fraction:
    """Rule gate_closed: a violation of at least this much gives g = 0 exactly (MATHS 4.1); else ProofError.

    1/gamma in reals; (1/gamma)(1 + (2|S|+4) u) + (2|S|+4) 2^-126 in binary32, for any order of the sum.
    """
    if not gate.gamma >= np.float32(2.0**-126):  # flushed to 0 it would leave the gate open
        raise ProofError("gate", "gate_closed: slope", "a gamma of at least 2^-126", str(gate.gamma))
    reach = 1 / _exact(gate.gamma)
    terms = 2 * len(gate.intervals) + 4
    return reach if arithmetic == REAL else reach * (1 + terms * U) + terms * _TINY


def _violation(gate: Gate, row: npt.NDArray[np.float32], radius: Fraction) -> Fraction:
    """Exact least violation of the gate's box over the ball around one flattened row."""
    total = Fraction(0)
    for interval in gate.intervals:
        value = _exact(row[interval.coordinate])
        if interval.high is not None:
            total += max(value - radius - _exact(interval.high), Fraction(0))
        if interval.low is not None:
            total += max(_exact(interval.low) - value - radius, Fraction(0))
    return total


def gates_closed(
    gate: Gate, columns: npt.NDArray[np.float32], radius: Fraction, arithmetics: tuple[str, ...]
) -> dict[str, Bools]:
    """Rule gate_closed over many balls: which have a violation of at least the threshold everywhere.

    The float64 sum of |S| + 1 roundings of non-negative terms exceeds the exact one by a factor of at
    most 1 + (|S| + 3) 2^-53, which the bar includes; what lies within 2^-40 of it is decided exactly.

    Args:
        gate: the gate.
        columns: float32 [n, rows]: the centres, one per column.
        radius: exact radius of the balls.
        arithmetics: which thresholds to use.

    Returns:
        For each arithmetic a bool per ball: the gate is closed (g = 0) on all of it.

    """
    total = np.zeros(columns.shape[1])
    for interval in gate.intervals:
        column = columns[interval.coordinate].astype(np.float64)
        if interval.high is not None:
            total += np.maximum(column - float64_not_below(_exact(interval.high) + radius), 0.0)
        if interval.low is not None:
            total += np.maximum(float64_not_above(_exact(interval.low) - radius) - column, 0.0)
    result = {}
    for arithmetic in arithmetics:
        need = gate_threshold(gate, arithmetic)
        bar = float64_not_below(need * (1 + Fraction(len(gate.intervals) + 4, 2**52)))
        closed = total >= bar
        close = np.flatnonzero(~closed & (total >= bar * (1 - 2.0**-40)))
        for row in close[:_EXACT_LOOKS]:
            closed[row] = _violation(gate, columns[:, row], radius) >= need
        result[arithmetic] = closed
    return result


def gate_open_within(gate: Gate, low: Doubles, high: Doubles, place: Mapping[int, int]) -> Bools:
    """Rule gate_open at any site: which balls the gate's box holds, by enclosures of the values that it reads.

    Args:
        gate: the gate.
        low: float64 [coordinates, balls]: what the program computes is not below.
        high: the same; not above.
        place: the row of each coordinate.

    """
    held = np.ones(low.shape[1], dtype=np.bool_)
    for interval in gate.intervals:
        row = place[interval.coordinate]
        if interval.high is not None:
            held &= high[row] <= np.float64(interval.high)
        if interval.low is not None:
            held &= low[row] >= np.float64(interval.low)
    return held


def gate_closed_within(gate: Gate, low: Doubles, high: Doubles, place: Mapping[int, int], arithmetic: str) -> Bools:
    """Rule gate_closed at any site: on which balls the gate is closed, by enclosures of the values that it reads.

    A float64 difference and the sum of at most 2 |S| of them, none negative, exceed the exact ones by a factor of at
    most 1 + (2 |S| + 2) 2^-53, which the bar includes.

    Args:
        gate: the gate.
        low: float64 [coordinates, balls]: what the program computes is not below.
        high: the same; not above.
        place: the row of each coordinate.
        arithmetic: whose threshold to use.

    """
    total = np.zeros(low.shape[1])
    for interval in gate.intervals:
        row = place[interval.coordinate]
        if interval.high is not None:
            total += np.maximum(low[row] - np.float64(interval.high), 0.0)
        if interval.low is not None:
            total += np.maximum(np.float64(interval.low) - high[row], 0.0)
    bar = gate_threshold(gate, arithmetic) * (1 + Fraction(2 * len(gate.intervals) + 4, 2**52))
    return np.asarray(total >= float64_not_below(bar))


@dataclass(frozen=True, eq=False)
class Separation:
    """Which balls are proved to lie outside which supports; arrays [gates or labels, balls].

    Args:
        closed: bool per ball: every gate is closed on it.
        touched: per label with gates, bool per ball: some gate of the label is not proved closed on it.
        excludes: bool per gate: it is closed on some ball.
        left: int per ball: how many gates are not proved closed on it.

    """

    closed: Bools
    touched: dict[int, Bools]
    excludes: Bools
    left: npt.NDArray[np.int64]

    def label_closed(self, allowed: tuple[int, ...]) -> Bools:
        """Per ball: some allowed label has all its gates closed, or no gate (premise of rule joint_head)."""
        if any(label not in self.touched for label in allowed):
            return np.ones_like(self.closed)
        every: Bools = np.logical_and.reduce([self.touched[label] for label in allowed])
        return ~every


def separation_of(gates: tuple[Gate, ...], closed: Iterable[Bools], count: int) -> Separation:
    """What outcomes of rule gate_closed, ``closed``, one bool [count] per gate, say of balls and labels."""
    left, touched, excludes = np.zeros(count, dtype=np.int64), dict[int, Bools](), list[bool]()
    for gate, result in zip(gates, closed, strict=True):
        left += ~result
        known = touched.setdefault(gate.label, np.zeros(count, dtype=np.bool_))
        known |= ~result
        excludes.append(bool(result.any()))
    return Separation(left == 0, touched, np.array(excludes), left)


def separate(
    gates: tuple[Gate, ...], rows: npt.NDArray[np.float32], radius: Fraction, arithmetics: tuple[str, ...]
) -> dict[str, Separation]:
    """What rule gate_closed says in ``arithmetics`` of every gate and ball of ``radius`` around ``rows`` [count, n]."""
    columns = np.ascontiguousarray(rows.T)
    count = rows.shape[0]
    found = [gates_closed(gate, columns, radius, arithmetics) for gate in gates]
    return {a: separation_of(gates, (one[a] for one in found), count) for a in arithmetics}
