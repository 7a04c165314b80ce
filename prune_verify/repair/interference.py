"""Gates of one request on the records of another: forget balls on which no label is left closed, and what is done then.

The joint head loses a label only where some label has no open gate (premise of rule joint_head). A new gate keeps out
the records of other labels that are live when it is made. An earlier gate has few coordinates and knows nothing of
later records: its slab may hold one. Then the earlier gate is made anew, among all live records. What cannot be kept
apart even so is handed back by index.

Which balls are looked at closely is decided in float64 with room to spare; the close look is the checker's own rule.

Source: MATHS 3.2 (side conditions), 4.4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from prune_verify.checker import rules
from prune_verify.checker.claim import LabelledRows
from prune_verify.checker.network import Network
from prune_verify.checker.patch import Gate, JointPatch
from prune_verify.repair.engine import RepairResult, Standing, repair_box
from prune_verify.repair.threat_model import ThreatModel

__all__ = ["LiveRepair", "interfering", "repair_live"]

Progress = Callable[[str, int, int], None]
Bools = npt.NDArray[np.bool_]
_ROWS_AT_ONCE = 64
_ROOM = 1 + 2.0**-10


@dataclass(frozen=True, eq=False)
class LiveRepair:
    """What came of one step of a stream.

    Args:
        result: the patch with earlier and new gates; its seconds are those of all attempts.
        remade: records of earlier gates that were made anew because they held a record of another label.
        left: forget records on whose balls gates of every label may still be open.
        between: records of the gates that may be open on those balls.

    """

    result: RepairResult
    remade: tuple[int, ...] = ()
    left: tuple[int, ...] = ()
    between: tuple[int, ...] = ()


def _near(gates: Sequence[Gate], rows: npt.NDArray[np.float32], radius: Fraction) -> Bools:
    """Which gates may be open somewhere on which balls, generously: bool [gates, rows]."""
    edges = [
        (place, interval.coordinate, sign, sign * float(edge))
        for place, gate in enumerate(gates)
        for interval in gate.intervals
        for sign, edge in ((1.0, interval.high), (-1.0, interval.low))
        if edge is not None
    ]
    owner, coordinate, sign, edge = (np.array(column) for column in zip(*edges, strict=True))
    starts = np.searchsorted(owner, np.arange(len(gates)))
    gamma = np.array([float(gate.gamma) for gate in gates])
    found = np.empty((len(gates), len(rows)), dtype=np.bool_)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = rows[start : start + _ROWS_AT_ONCE, coordinate].astype(np.float64)
        beyond = np.maximum(sign * part - edge - float(radius), 0.0)
        total = np.add.reduceat(beyond, starts, axis=1)
        found[:, start : start + _ROWS_AT_ONCE] = (total * gamma <= _ROOM).T
    return found


def interfering(
    patch: JointPatch, forget: LabelledRows, radius: Fraction, arithmetics: tuple[str, ...]
) -> tuple[int, ...]:
    """Forget records on whose balls gates of every label may be open, so that none of them is proved to lose.

    Args:
        patch: with gates at the input.
        forget: the live forget set, x float32 [records, *input_shape]; records of forgotten classes need no gate.
        radius: of the forget balls, in input units.
        arithmetics: of the claims.

    Returns:
        Their indices, ascending. Nothing where some label has no gate: it is closed everywhere.

    """
    labels = np.array([gate.label for gate in patch.gates], dtype=np.int64)
    if set(patch.allowed) - set(labels.tolist()):
        return ()
    flat = forget.flat()
    near = _near(patch.gates, flat, radius)
    every = np.logical_and.reduce([near[labels == label].any(axis=0) for label in patch.allowed])
    suspects = np.flatnonzero(every & np.isin(forget.y, patch.allowed))
    if not len(suspects):
        return ()
    held = np.flatnonzero(near[:, suspects].any(axis=1))
    found = rules.separate(tuple(patch.gates[g] for g in held), flat[suspects], radius, arithmetics)
    apart = np.logical_and.reduce([one.label_closed(patch.allowed) for one in found.values()])
    return tuple(int(i) for i in suspects[~apart])


def _in_the_way(
    patch: JointPatch, earlier: int, bad: Sequence[int], forget: LabelledRows, radius: Fraction, *, every: bool
) -> tuple[int, ...]:
    """Places of earlier gates, the first ones of the patch, to make anew so that a label is closed on each bad ball.

    Args:
        patch: with earlier and new gates.
        earlier: how many of the gates are earlier ones.
        bad: forget records.
        forget: the live forget set.
        radius: of the balls.
        every: those of all other labels, and not only of the label that has the fewest.

    """
    near = _near(patch.gates, forget.flat()[list(bad)], radius)
    chosen = set[int]()
    for column, record in enumerate(bad):
        by_label: dict[int, list[int]] = {}
        for place in np.flatnonzero(near[:, column]):
            label = patch.gates[place].label
            if label != int(forget.y[record]):
                by_label.setdefault(label, []).append(int(place))
        old = [places for places in by_label.values() if max(places) < earlier]
        if every or not old:
            chosen.update(place for places in by_label.values() for place in places if place < earlier)
        else:
            fewest: list[int] = min(old, key=len)
            chosen.update(fewest)
    return tuple(sorted(chosen))


def repair_live(
    base: Network,
    forget: LabelledRows,
    retain: LabelledRows,
    model: ThreatModel,
    standing: Standing,
    *,
    classes: tuple[int, ...] = (),
    minimal: float | None = None,
    progress: Progress = lambda _name, _done, _total: None,
) -> LiveRepair:
    """Gates for all live records: earlier ones stay, but for those that hold a later record of another label.

    Args:
        base: the base network.
        forget: the live forget set.
        retain: the retained set.
        model: the threat model.
        standing: earlier gates.
        classes: labels that are forgotten as a class as well.
        minimal: seconds for each new gate to look for the fewest coordinates; None: greedy only.
        progress: called with a name, gates done and gates in all.

    Returns:
        The result, with what was made anew and what could not be kept apart.

    Raises:
        RepairInputError: an empty set, or labels that leave nowhere to go.
        InfeasiblePatchError: a record that no coordinate separates from anything.

    """
    remade, seconds = set[int](), 0.0
    for every in (False, True, None):
        result = repair_box(
            base, forget, retain, model, classes=classes, minimal=minimal, standing=standing, progress=progress
        )
        seconds += result.seconds
        bad = interfering(result.patch, forget, model.radius, model.arithmetics)
        earlier = len(standing.gates)
        last = every is None or not bad
        again = () if last else _in_the_way(result.patch, earlier, bad, forget, model.radius, every=bool(every))
        if not again:
            break
        remade.update(record for place in again for record in standing.gates[place].records)
        kept = tuple(gate for place, gate in enumerate(standing.gates) if place not in again)
        standing = replace(standing, gates=kept)
    between = set[int]()
    if bad:
        held = _near(result.patch.gates, forget.flat()[list(bad)], model.radius).any(axis=1)
        between = {record for place in np.flatnonzero(held) for record in result.patch.gates[place].records}
    return LiveRepair(replace(result, seconds=seconds), tuple(sorted(remade)), bad, tuple(sorted(between - set(bad))))
