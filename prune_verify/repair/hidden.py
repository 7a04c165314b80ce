"""Family ``box`` at a hidden site: gates on the outputs of a ReLU layer, which forget shifted and noisy copies as well.

A picture moved by one pixel is far from the record in every input norm, and near to it behind the first layer. The
box of a request holds everything that its copies' balls can become at the site; the retained balls are kept outside by
the gap. What a ball can become is enclosed by the checker's own bounds, in binary32, so that the checker will find the
same. The gap, and with it the slope, is what the request allows: as much as every retained record that can be separated
leaves, up to ``_WIDEST`` of the box's own size.

Source: MATHS 4.1 (hidden site).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import prod

import numpy as np
import numpy.typing as npt

from prune_verify.checker.claim import LabelledRows, Problem
from prune_verify.checker.interval import Box, interval_pass
from prune_verify.checker.network import Network
from prune_verify.checker.patch import Gate, Interval, JointPatch
from prune_verify.checker.rebuild import build, site_nodes
from prune_verify.checker.relaxation import crown_intervals
from prune_verify.checker.rules import BINARY32
from prune_verify.repair.box import float32_not_above, float32_not_below
from prune_verify.repair.cover import Separation, cover_greedily, planes_of
from prune_verify.repair.engine import GateSize, RepairResult, gamma_of, require_labels
from prune_verify.repair.errors import InfeasiblePatchError, RepairInputError
from prune_verify.repair.head import head_bounds, with_head
from prune_verify.repair.threat_model import ThreatModel

__all__ = ["SiteTable", "gates_at_site", "repair_hidden", "site_table"]

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Groups = tuple[tuple[int, ...], ...]
Progress = Callable[[str, int, int], None]
_ROWS_AT_ONCE = 1024
_WIDEST = 0.5
_NARROWEST = 2.0**-12
_WORD = 64


@dataclass(frozen=True, eq=False)
class SiteTable:
    """What records are at a hidden site: ``low`` and ``high``, enclosures of their balls, float32 [rows, n]."""

    low: Floats
    high: Floats


def _enclosed(base: Network, sites: tuple[str, ...], box: Box, *, relaxed: bool) -> tuple[Floats, Floats]:
    nodes = site_nodes(base, sites)
    last = max(nodes)
    network = Network(base.nodes[: last + 1], last)
    found = (crown_intervals if relaxed else interval_pass)(network, *box, BINARY32)
    count = len(box[0])
    low, high = (
        np.concatenate(
            [np.broadcast_to(v[i].reshape(len(v[i]), -1), (count, prod(base.nodes[i].shape))) for i in nodes], axis=1
        )
        for v in (found.lower, found.upper)
    )
    return float32_not_above(low), float32_not_below(high)


def site_table(
    base: Network, sites: tuple[str, ...], rows: Floats, radius: Fraction, model: ThreatModel, *, relaxed: bool = False
) -> SiteTable:
    """Enclose what balls become at the sites.

    Args:
        base: the base network.
        sites: names of the sites.
        rows: float32 [balls, *input_shape]: the centres.
        radius: of the balls.
        model: for the domain.
        relaxed: by relaxation instead of intervals: tighter behind a second layer, and slower.

    """
    lows, highs = [], []
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        box = model.domain.ball(rows[start : start + _ROWS_AT_ONCE], radius)
        low, high = _enclosed(base, sites, box, relaxed=relaxed)
        lows.append(low.T)
        highs.append(high.T)
    return SiteTable(
        np.ascontiguousarray(np.concatenate(lows, axis=1)), np.ascontiguousarray(np.concatenate(highs, axis=1))
    )


def _box(table: SiteTable, members: tuple[int, ...], hidden: Bools) -> tuple[Floats, Floats]:
    """The hull of some balls at the sites; at a ReLU an edge at 0 or below restricts nothing and is left out."""
    low, high = table.low[:, members].min(axis=1), table.high[:, members].max(axis=1)
    return np.where(hidden & (low <= 0), np.float32(-np.inf), low), high


def _violations(low: Floats, high: Floats, others: SiteTable) -> Floats:
    """How far each ball is from the box in each coordinate: float32 [coordinates, balls], not above the exact value."""
    found: Floats = np.maximum(others.low - high[:, np.newaxis], low[:, np.newaxis] - others.high)
    return found


def _gap(violations: Floats, widths: Floats, cover: int) -> float:
    """The gap: what separable balls leave at their cover-th best coordinate, capped by the size of the box."""
    ranked, best = np.partition(violations, -cover, axis=0)[-cover], violations.max(axis=0)
    scale = _scale(widths)
    cap, least = _WIDEST * scale, _NARROWEST * scale
    reached = np.where(ranked > least, ranked, best)
    usable = reached[reached > least]
    return float(min(cap, usable.min() * (1 - 2.0**-16))) if usable.size else cap


def _packed(bits: Bools) -> npt.NDArray[np.uint64]:
    """Bits [coordinates, balls] as words, each row's last word filled with 0."""
    octets = np.packbits(bits, axis=1)
    words = np.zeros((len(bits), 8 * -(-bits.shape[1] // _WORD)), dtype=np.uint8)
    words[:, : octets.shape[1]] = octets
    return words.view(np.uint64)


def gates_at_site(
    table: SiteTable,
    retained: SiteTable,
    groups: Groups,
    labels: npt.NDArray[np.int64],
    hidden: Bools,
    model: ThreatModel,
    progress: Progress = lambda _name, _done, _total: None,
) -> Iterator[Gate]:
    """A gate for each group of forget rows, or several where one box would hold retained records.

    Args:
        table: of the forget rows' balls.
        retained: of the retained balls.
        groups: rows that share a gate, all of one label.
        labels: int64 [rows].
        hidden: bool [coordinates]: outputs of a ReLU, and not inputs.
        model: for the cover.
        progress: called with a name, gates done and gates in all.

    Raises:
        InfeasiblePatchError: no coordinate separates a group from any retained record.

    """
    every = np.ones(retained.low.shape[1], dtype=np.bool_)
    needs = planes_of([(every, model.cover)])
    for place, members in enumerate(groups):
        progress("gates", place, len(groups))
        open_ = [members]
        while open_:
            part = open_.pop()
            low, high = _box(table, part, hidden)
            violations = _violations(low, high, retained)
            if len(part) > 1 and not _all_separable(violations, high - np.maximum(low, 0)):
                open_ += _halves(table, part)
            else:
                yield _gate(low, high, violations, needs, int(labels[part[0]]), part)
    progress("gates", len(groups), len(groups))


def _scale(widths: Floats) -> float:
    """The size of a box: the median width of the coordinates that have one."""
    return float(np.median(widths[widths > 0])) if (widths > 0).any() else 1.0


def _all_separable(violations: Floats, widths: Floats) -> bool:
    return bool((violations.max(axis=0) > _NARROWEST * _scale(widths)).all())


def _halves(table: SiteTable, members: tuple[int, ...]) -> list[tuple[int, ...]]:
    """A group in two: each row goes with the nearer one of the two that are farthest apart at the site."""
    rows = (table.low[:, members] + table.high[:, members]).T
    apart = np.abs(rows[:, np.newaxis] - rows[np.newaxis]).sum(axis=2)
    one, other = np.unravel_index(int(apart.argmax()), apart.shape)
    nearer = apart[one] <= apart[other]
    nearer[one], nearer[other] = True, False
    return [tuple(m for m, near in zip(members, nearer, strict=True) if near == side) for side in (False, True)]


def _gate(
    low: Floats,
    high: Floats,
    violations: Floats,
    needs: list[npt.NDArray[np.uint64]],
    label: int,
    members: tuple[int, ...],
) -> Gate:
    """The gate of one box."""
    gap = _gap(violations, high - np.maximum(low, 0), len(needs))
    bits = violations >= np.float32(gap * (1 + 2.0**-20))
    useful = np.flatnonzero(bits.any(axis=1))
    picked = cover_greedily(Separation(useful, _packed(bits[useful])), needs)
    if not picked:
        text = "no coordinate of the site separates the record from any retained record: a smaller radius, fewer "
        raise InfeasiblePatchError(text + "shifts or another --site may help", forget=members)
    chosen = sorted(int(useful[i]) for i in picked)
    intervals = tuple(Interval(j, low[j] if np.isfinite(low[j]) else None, high[j]) for j in chosen)
    return Gate(label, gamma_of(len(chosen), Fraction(gap)), intervals, members)


def repair_hidden(
    base: Network,
    forget: LabelledRows,
    retain: LabelledRows,
    model: ThreatModel,
    *,
    sites: tuple[str, ...] = ("relu-0",),
    groups: Groups | None = None,
    progress: Progress = lambda _name, _done, _total: None,
) -> RepairResult:
    """Gates at hidden sites for every forget record, under the joint head.

    Args:
        base: the base network.
        forget: the forget set, copies included.
        retain: the retained set.
        model: the threat model; its gap is not used here.
        sites: outputs of ReLUs (and the input, if so).
        groups: rows that share a gate where they can, such as the copies of one record; each row alone by default.
        progress: called with a name, steps done and steps in all.

    Returns:
        The patch, the conflicts by the checker's own rule, and the sizes of the gates.

    Raises:
        RepairInputError: an empty set, no such site, a group of several labels, or labels that leave nowhere to go.
        InfeasiblePatchError: a record that nothing separates, or a base that may overflow on the domain.

    """
    require_labels(base, (), forget)
    if not len(forget.y) or not len(retain.y):
        text = f"the {'forget' if not len(forget.y) else 'retained'} set is empty"
        raise RepairInputError(text)
    parts = tuple((i,) for i in range(len(forget.y))) if groups is None else groups
    mixed = [members for members in parts if len(set(forget.y[list(members)].tolist())) > 1]
    if mixed:
        found = sorted(set(forget.y[list(mixed[0])].tolist()))
        text = f"forget rows {mixed[0]} are to share a gate and have labels {found}"
        raise RepairInputError(text)
    start = time.monotonic()
    nodes = site_nodes(base, sites)
    hidden = np.concatenate([np.full(prod(base.nodes[i].shape), base.nodes[i].op == "Relu") for i in nodes])
    progress("bounds at the site", 0, 1)
    deep = _has_choice_below(base, nodes)
    table = site_table(base, sites, forget.x, model.radius, model, relaxed=deep)
    retained = site_table(base, sites, retain.x, model.retained_radius, model)
    gates = tuple(gates_at_site(table, retained, parts, forget.y, hidden, model, progress))
    seconds = time.monotonic() - start
    zero = np.float32(0)
    bounds = head_bounds(base, tuple(range(base.labels)), model.domain, model.arithmetics)
    patch = with_head(
        JointPatch(base.labels, (), zero, zero, zero, gates, sites), model.margin, bounds, model.arithmetics
    )
    problem = Problem(base, build(base, patch), patch, model.domain, forget, retain)
    closed = [problem.separation("retain", model.retained_radius, a).closed for a in model.arithmetics]
    conflicts = tuple(int(i) for i in np.flatnonzero(~np.logical_and.reduce(closed)))
    return RepairResult(patch, conflicts, tuple(GateSize(len(gate.intervals)) for gate in gates), seconds)


def _has_choice_below(base: Network, nodes: tuple[int, ...]) -> bool:
    """Whether a ReLU or another choice stands before the layer of a site."""
    below: list[bool] = []
    for node in base.nodes:
        below.append(
            node.op not in ("Input", "Constant") and any(below[i] or base.nodes[i].op == "Relu" for i in node.inputs)
        )
    return any(below[i] for i in nodes)
