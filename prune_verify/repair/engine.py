"""Families ``box`` and ``class-cap``: one gate per forgotten record, few coordinates each, under the joint head.

A gate's coordinates are a greedy multi-cover of the retained records (and, where it can be had, of
the forgotten records of other labels, so that supports of different labels do not meet). What no coordinate
separates is a conflict, named by index; which records really are in conflict is decided by the checker's own rule.

Source: MATHS 3, 4.1, 4.4.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from prune_verify.checker import rules
from prune_verify.checker.claim import LabelledRows
from prune_verify.checker.network import Network
from prune_verify.checker.patch import Gate, Interval, JointPatch
from prune_verify.repair.box import Box, Thresholds, box_around, round_up, thresholds
from prune_verify.repair.cover import Separation, Table, cover_greedily, planes_of, separate
from prune_verify.repair.errors import InfeasiblePatchError, RepairInputError
from prune_verify.repair.head import head_bounds, with_head
from prune_verify.repair.threat_model import ThreatModel

__all__ = [
    "GateSize",
    "RepairResult",
    "Standing",
    "gamma_of",
    "intervals_of",
    "repair_box",
    "repair_class_cap",
    "require_labels",
]

Progress = Callable[[str, int, int], None]
_TINY = Fraction(1, 2**126)


@dataclass(frozen=True)
class GateSize:
    """How many coordinates a gate has, and what is known of the fewest.

    Args:
        coordinates: of the gate.
        lower_bound: no gate for this box and cover has fewer; None where it was not sought.

    """

    coordinates: int
    lower_bound: int | None = None


@dataclass(frozen=True, eq=False)
class RepairResult:
    """A patch and what is to be said of it.

    Args:
        patch: the parameters.
        conflicts: retained records that lie in a support.
        sizes: one per gate.
        seconds: spent on the gates.

    """

    patch: JointPatch
    conflicts: tuple[int, ...] = ()
    sizes: tuple[GateSize, ...] = ()
    seconds: float = 0.0


def require_labels(base: Network, classes: tuple[int, ...], forget: LabelledRows | None) -> None:
    """Refuse classes that do not exist, or that leave no label to answer.

    Raises:
        RepairInputError: the same.

    """
    for label in classes:
        if not 0 <= label < base.labels:
            text = f"--forget-class {label}: the network has labels 0 to {base.labels - 1}"
            raise RepairInputError(text)
    left = base.labels - len(set(classes))
    if left < 1 or (forget is not None and left < 2):  # noqa: PLR2004 - a redirect needs somewhere to go
        text = f"{left} labels would be left; forgetting classes needs one, forgetting records two"
        raise RepairInputError(text)


def repair_class_cap(base: Network, classes: tuple[int, ...], model: ThreatModel) -> RepairResult:
    """A patch after which the classes are never answered, whatever the input.

    Raises:
        RepairInputError: a class that does not exist, or no label left.

    """
    require_labels(base, classes, None)
    zero = np.float32(0)
    empty = JointPatch(base.labels, tuple(sorted(set(classes))), zero, zero, zero, ())
    return RepairResult(with_head(empty, model.margin, None, model.arithmetics))


@dataclass(frozen=True, eq=False)
class Standing:
    """Gates of earlier requests, which stay as they are.

    Args:
        gates: naming rows of the forget set as it is now.
        checked: bool [retain]: retained records already known to be outside every one of them.

    """

    gates: tuple[Gate, ...]
    checked: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class _Rows:
    """The records as tables by column, prepared once for all gates; ``alone``: no ball is to be in two supports."""

    forget: LabelledRows
    forgotten: npt.NDArray[np.float32]
    forget_table: Table
    retain_table: Table
    alone: bool

    def others(self, record: int) -> npt.NDArray[np.bool_]:
        """The forget records that the gate of one is to be closed at."""
        if not self.alone:
            return np.asarray(self.forget.y != self.forget.y[record])
        return np.asarray((self.forgotten != self.forgotten[record]).any(axis=1))


def repair_box(
    base: Network,
    forget: LabelledRows,
    retain: LabelledRows,
    model: ThreatModel,
    *,
    classes: tuple[int, ...] = (),
    minimal: float | None = None,
    standing: Standing | None = None,
    progress: Progress = lambda _name, _done, _total: None,
) -> RepairResult:
    """Gates for every forget record, under a joint head that the checker's rules accept.

    Args:
        base: the base network.
        forget: the forget set; records of a forgotten class need no gate.
        retain: the retained set.
        model: the threat model; with redirect ``non-member`` a gate is to be closed at every other forget record, and
            not only at those of other labels.
        classes: labels that are forgotten as a class as well.
        minimal: seconds for each gate to look for the fewest coordinates; None: greedy only.
        standing: gates of earlier requests; only records that none of them names get new ones.
        progress: called with a name, gates done and gates in all.

    Returns:
        The patch, the conflicts, and the sizes of the gates.

    Raises:
        RepairInputError: an empty set, or labels that leave nowhere to go.
        InfeasiblePatchError: a forget record that no coordinate separates from anything.

    """
    require_labels(base, classes, forget)
    if not len(forget.y) or not len(retain.y):
        text = f"the {'forget' if not len(forget.y) else 'retained'} set is empty"
        raise RepairInputError(text)
    start = time.monotonic()
    rows = _Rows(
        forget, forget.flat(), Table.of(forget.flat()), Table.of(retain.flat()), model.redirect == "non-member"
    )
    gates: list[Gate] = [] if standing is None else list(standing.gates)
    named = {record for gate in gates for record in gate.records}
    sizes = [GateSize(len(gate.intervals)) for gate in gates]
    for record in range(len(forget.y)):
        progress("gates", record, len(forget.y))
        if record in named or int(forget.y[record]) in classes or _joined(gates, rows, record, model):
            continue
        gate, size = _gate(rows, record, model, minimal)
        gates.append(gate)
        sizes.append(size)
    progress("gates", len(forget.y), len(forget.y))
    zero = np.float32(0)
    patch = JointPatch(base.labels, tuple(sorted(set(classes))), zero, zero, zero, tuple(gates))
    seconds = time.monotonic() - start
    bounds = head_bounds(base, patch.allowed, model.domain, model.arithmetics) if gates else None
    patch = with_head(patch, model.margin, bounds, model.arithmetics)
    return RepairResult(patch, _conflicts(patch, retain, model, standing), tuple(sizes), seconds)


def _joined(gates: list[Gate], rows: _Rows, record: int, model: ThreatModel) -> bool:
    """Whether an earlier gate of the same label already holds the record's ball; it is then named there."""
    for place, gate in enumerate(gates):
        if gate.label == int(rows.forget.y[record]) and rules.gate_open(
            gate, rows.forgotten[record], model.radius, model.domain
        ):
            gates[place] = replace(gate, records=tuple(sorted((*gate.records, record))))
            return True
    return False


def _gate(rows: _Rows, record: int, model: ThreatModel, minimal: float | None) -> tuple[Gate, GateSize]:
    """The gate of one record."""
    box = box_around(rows.forgotten[record], model.radius, model.domain)
    kept = thresholds(box, model.retained_radius, model.distance)
    parts: list[tuple[Table, Thresholds]] = [(rows.retain_table, kept)]
    every = np.ones(rows.retain_table.count, dtype=np.bool_)
    needs = [(every, model.cover)]
    others = rows.others(record)
    if others.any():
        parts.append((rows.forget_table, thresholds(box, model.radius, model.distance)))
        needs.append((others, 1))
    separation = separate(parts)
    chosen = [int(separation.coordinates[place]) for place in cover_greedily(separation, planes_of(needs))]
    if not chosen:
        text = "no coordinate separates the record from any retained record: a smaller radius or gap may help"
        raise InfeasiblePatchError(text, forget=(record,))
    size = GateSize(len(chosen))
    if minimal is not None:
        chosen, size = _fewest(rows, separation, others, chosen, model, minimal)
    label = int(rows.forget.y[record])
    return Gate(label, gamma_of(len(chosen), model.distance), intervals_of(box, chosen), (record,)), size


def _fewest(
    rows: _Rows,
    separation: Separation,
    others: npt.NDArray[np.bool_],
    greedy: list[int],
    model: ThreatModel,
    seconds: float,
) -> tuple[list[int], GateSize]:
    """The smallest cover that z3 finds in time, or the greedy one, with a lower bound on the size of any."""
    from prune_verify.bounds.minimal import minimal_cover

    octets = separation.bits.view(np.uint8)
    retained, words = rows.retain_table.count, 8 * rows.retain_table.words
    bits = np.unpackbits(octets[:, :words], axis=1)[:, :retained].astype(np.bool_)
    found = minimal_cover(bits, model.cover, seconds)
    chosen = sorted(int(separation.coordinates[place]) for place in found.selected)
    apart = np.zeros(len(rows.forget.y), dtype=np.bool_)
    if others.any():
        forgotten = np.unpackbits(octets[:, words:], axis=1)[:, : len(rows.forget.y)].astype(np.bool_)
        apart = others & forgotten.any(axis=0) & ~forgotten[list(found.selected)].any(axis=0)
    if apart.any() or len(chosen) >= len(greedy):  # the smallest cover would let supports of two labels meet
        return greedy, GateSize(len(greedy), found.lower_bound)
    return chosen, GateSize(len(chosen), found.lower_bound)


def intervals_of(box: Box, coordinates: list[int]) -> tuple[Interval, ...]:
    """The box's intervals on some coordinates, ascending; ends beyond the domain restrict nothing and are left out."""

    def edge(value: np.float32) -> np.float32 | None:
        return value if np.isfinite(value) else None

    return tuple(Interval(j, edge(box.low[j]), edge(box.high[j])) for j in sorted(coordinates))


def gamma_of(coordinates: int, gap: Fraction) -> np.float32:
    """The least slope at which a violation of the gap in so many coordinates closes the gate (rule gate_closed)."""
    terms = 2 * coordinates + 4
    return round_up((1 + terms * rules.U) / (gap - terms * _TINY))


def _on_fewer(gates: tuple[Gate, ...]) -> tuple[tuple[Gate, ...], list[int]]:
    """The gates as they read only those coordinates that some of them reads, and which these are, ascending."""
    used = sorted({interval.coordinate for gate in gates for interval in gate.intervals})
    place = {coordinate: i for i, coordinate in enumerate(used)}
    moved = (
        replace(gate, intervals=tuple(replace(i, coordinate=place[i.coordinate]) for i in gate.intervals))
        for gate in gates
    )
    return tuple(moved), used


def _conflicts(
    patch: JointPatch, retain: LabelledRows, model: ThreatModel, standing: Standing | None
) -> tuple[int, ...]:
    """Retained records whose balls are not outside every support, by the checker's own rule.

    Earlier gates are asked only about the records that have not been checked against them.
    """
    closed, flat = np.ones(len(retain.y), dtype=np.bool_), retain.flat()
    old = 0 if standing is None else len(standing.gates)
    unchecked = np.arange(len(retain.y)) if standing is None else np.flatnonzero(~standing.checked)
    for gates, rows in ((patch.gates[:old], unchecked), (patch.gates[old:], np.arange(len(retain.y)))):
        if gates and len(rows):
            read, looked_at = _on_fewer(gates)
            found = rules.separate(read, flat[rows[:, np.newaxis], looked_at], model.retained_radius, model.arithmetics)
            closed[rows] &= np.logical_and.reduce([one.closed for one in found.values()])
    return tuple(int(i) for i in np.flatnonzero(~closed))
