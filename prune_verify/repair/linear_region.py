"""Family ``linear-region``: PRUNE's and REASSURE's gate on one activation pattern, region, slope and shift put right.

Where every ReLU has the sign that it has at the record the base is affine. The gate reads the ReLU outputs: a neuron
that is off must stay at 0, one that is on must stay above a small edge, so that no pre-activation has to be tapped, the
gate is exactly 1 on the region, and nothing dense is stored (one literal per neuron, where the half-spaces over the
input take n numbers each). A constant is added to the logits there, half of it up for the runner-up and half of it down
for the label: no additive patch, affine or not, can do with less in the greatest logit (checker.shift_minimality). The
slope comes from the retained records. Those that have the record's own pattern are kept out by a box at the input, on
as few coordinates as a greedy cover finds; what is near in every coordinate as well is a conflict.

In a convolutional network the pattern is that of the dense layers; the base is then affine in their input only, and the
shift comes from bounds.

Source: MATHS 4.2; PRUNE, arXiv 2505.06520 (multi-point mode); REASSURE, arXiv 2110.07682.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from math import prod

import numpy as np
import numpy.typing as npt

from prune_verify.checker.claim import LabelledRows
from prune_verify.checker.errors import CheckError
from prune_verify.checker.network import Network, canonical_order, evaluate
from prune_verify.checker.patch import INPUT, Gate, Interval, ShiftPatch
from prune_verify.checker.rebuild import build
from prune_verify.checker.relaxation import Hints, crown_intervals, lower_bounds
from prune_verify.checker.rules import BINARY32
from prune_verify.repair.box import box_around, round_up
from prune_verify.repair.engine import intervals_of
from prune_verify.repair.errors import InfeasiblePatchError, RepairInputError, Shortfall
from prune_verify.repair.hidden import SiteTable, site_table
from prune_verify.repair.threat_model import ThreatModel

__all__ = ["RegionResult", "pattern_sites", "region_radius", "repair_linear_region", "representatives"]

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Progress = Callable[[str, int, int], None]
_EDGE = np.float32(2.0**-10)  # of the least value of a neuron that is on
_OFF = np.float32(2.0**-90)  # enclosures of 0 are up to that wide (SPEC 5.1: t)
_STEEPER = Fraction(1) + Fraction(1, 2**8)
_NEAREST = float(_STEEPER / 2**20)  # slopes above 2^20 have no bounds in binary32 (SPEC 5.1)
_ROUNDS = 4
_HALVINGS = 24


@dataclass(frozen=True, eq=False)
class RegionResult:
    """A patch of linear regions and what is to be said of it.

    Args:
        patch: the parameters.
        conflicts: retained records whose balls may reach a region.
        shifts: greatest number that each gate adds to a logit.
        targets: the label that each gate raises.
        seconds: spent.

    """

    patch: ShiftPatch
    conflicts: tuple[int, ...]
    shifts: tuple[float, ...]
    targets: tuple[int, ...]
    seconds: float


def pattern_sites(base: Network) -> tuple[str, ...]:
    """The ReLUs that the pattern is of: those of dense layers.

    Raises:
        RepairInputError: there are none.

    """
    relus = [i for i in canonical_order(base) if base.nodes[i].op == "Relu"]
    sites = tuple(f"relu-{place}" for place, i in enumerate(relus) if len(base.nodes[i].shape) == 1)
    if not sites:
        text = "--family linear-region: the base has no dense layer with a ReLU, whose signs a region could be made of"
        raise RepairInputError(text)
    return sites


def _stable(table: SiteTable) -> npt.NDArray[np.bool_]:
    """Which balls lie in one pattern: bool [balls]."""
    return np.asarray(((table.low > 0) | (table.high <= _OFF)).all(axis=0))


def region_radius(base: Network, record: Floats, model: ThreatModel, *, most: Fraction | None = None) -> Fraction:
    """The greatest radius, to within a factor, whose ball is proved to lie in the record's linear region.

    Args:
        base: the base network.
        record: float32 [*input_shape].
        model: for the domain.
        most: where to begin; the threat model's radius by default.

    Returns:
        A radius for which bounds hold in binary32; 0 where none was found.

    """
    sites = pattern_sites(base)
    low, high = Fraction(0), model.radius if most is None else most
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        inside = bool(_stable(site_table(base, sites, record[np.newaxis], middle, model, relaxed=True))[0])
        low, high = (middle, high) if inside else (low, middle)
        if low and high - low < low / 64:
            break
    return low


def _intervals(table: SiteTable, record: int) -> tuple[Interval, ...]:
    """A literal for every neuron: at 0 where it is off, above an edge where it is on."""
    return tuple(
        Interval(j, None, np.float32(0)) if low <= 0 else Interval(j, np.float32(low * _EDGE), None)
        for j, low in enumerate(table.low[:, record])
    )


def _boxed(record: Floats, others: Floats, model: ThreatModel) -> tuple[tuple[Interval, ...], npt.NDArray[np.float64]]:
    """Intervals at the input that keep retained balls out of the record's ball, and how far out: float64 [balls].

    Args:
        record: float32 [n].
        others: float32 [balls, n]: the centres.
        model: radii.

    """
    box = box_around(record, model.radius, model.domain)
    reach, middle = float(model.radius + model.retained_radius), record.astype(np.float64)
    apart = (np.abs(others.astype(np.float64) - middle) - reach) * (1 - 2.0**-20)
    left, chosen = apart.max(axis=1) > _NEAREST, list[int]()
    wanted = np.where(left, apart.max(axis=1) / 2, np.inf)
    while left.any():
        best = int((apart[left] >= wanted[left, np.newaxis]).sum(axis=0).argmax())
        chosen.append(best)
        left &= apart[:, best] < wanted
    intervals = intervals_of(box, chosen)
    outside = np.maximum(apart[:, chosen], 0).sum(axis=1) if chosen else np.zeros(len(others))
    return intervals, np.asarray(outside)


def _violations(gate: tuple[Interval, ...], retained: SiteTable) -> npt.NDArray[np.float64]:
    """Least violation of a gate over each retained ball: float64 [balls], rounded down."""
    low = np.array([0 if i.low is None else i.low for i in gate], dtype=np.float32)[:, np.newaxis]
    off = np.array([i.low is None for i in gate])[:, np.newaxis]
    each = np.where(off, retained.low, np.maximum(low - retained.high, 0))
    total = each.astype(np.float64).sum(axis=0)
    return np.asarray(total * (1 - 2.0**-20))


def _ahead(network: Network, row: Floats, label: int, target: int, model: ThreatModel) -> float:
    """How far the label may be ahead of the target somewhere on the ball of a record, in binary32."""
    lower, upper = model.domain.ball(row[np.newaxis], model.radius)
    objective = np.zeros((1, network.labels))
    objective[0, target], objective[0, label] = 1.0, -1.0
    intervals = crown_intervals(network, lower, upper, BINARY32)
    return -float(lower_bounds(network, intervals, objective, Hints(), BINARY32)[0])


def _pushed(
    base: Network, patch: ShiftPatch, x: Floats, targets: list[int], model: ThreatModel, progress: Progress
) -> ShiftPatch:
    """The patch with the least shifts, half of them up and half of them down, for which bounds show the margin.

    First what the base alone needs, then what rounding in the patched network takes of it.
    """
    shifts, open_ = patch.shifts.copy(), list(range(len(x)))
    for done in range(_ROUNDS):
        network = base if done == 0 else build(base, replace(patch, shifts=shifts))
        short = []
        for place in open_:
            progress("shifts", done * len(x) + place, _ROUNDS * len(x))
            label = patch.gates[place].label
            missing = Fraction(_ahead(network, x[place], label, targets[place], model)) + model.margin
            if missing > 0:
                push = round_up(Fraction(float(shifts[place, targets[place]])) + missing / 2)
                shifts[place, targets[place]], shifts[place, label] = push, -push
                short.append(place)
        open_ = open_ if done == 0 else short
        if not open_:
            break
    progress("shifts", _ROUNDS * len(x), _ROUNDS * len(x))
    return replace(patch, shifts=shifts)


def representatives(x: Floats, clusters: int, seed: int) -> tuple[Labels, Labels]:
    """PRUNE's multi-point mode: K-means, and the member nearest to each centre.

    Args:
        x: float32 [rows, n].
        clusters: how many, at most as many as rows.
        seed: of K-means.

    Returns:
        Row of each representative, and the cluster of each row.

    """
    from sklearn.cluster import KMeans

    found = KMeans(n_clusters=min(clusters, len(x)), n_init=4, random_state=seed).fit(x)
    far = np.linalg.norm(x[:, np.newaxis] - found.cluster_centers_[np.newaxis], axis=2)
    return far.argmin(axis=0).astype(np.int64), found.labels_.astype(np.int64)


def repair_linear_region(
    base: Network,
    forget: LabelledRows,
    retain: LabelledRows,
    model: ThreatModel,
    *,
    clusters: int | None = None,
    seed: int = 0,
    progress: Progress = lambda _name, _done, _total: None,
) -> RegionResult:
    """A gate on the activation pattern of every forget record (or representative), and its shift.

    Args:
        base: the base network.
        forget: the forget set.
        retain: the retained set.
        model: the threat model; its radius has to fit into the regions.
        clusters: forget the representatives of so many clusters only (PRUNE's multi-point mode); the others are
            forgotten where the region of their representative happens to hold them.
        seed: of the clusters.
        progress: called with a name, records done and records in all.

    Raises:
        RepairInputError: an empty set, or a base without dense ReLUs.
        InfeasiblePatchError: a ball that is larger than the linear region of its record, with the radius that is not.

    """
    if not len(forget.y) or not len(retain.y):
        text = f"the {'forget' if not len(forget.y) else 'retained'} set is empty"
        raise RepairInputError(text)
    start, sites = time.monotonic(), pattern_sites(base)
    rows = (
        np.arange(len(forget.y)) if clusters is None else np.unique(representatives(forget.flat(), clusters, seed)[0])
    )
    table = _tables(base, sites, forget.x[rows], model)
    _require_regions(base, forget, rows, table, model)
    retained = site_table(base, sites, retain.x, model.retained_radius, model)
    near = np.zeros(len(retain.y), dtype=np.bool_)
    gates, boxes, targets = list[Gate](), list[tuple[Interval, ...]](), list[int]()
    logits = evaluate(base, forget.x[rows]).astype(np.float64)
    for place, row in enumerate(rows):
        progress("regions", place, len(rows))
        label = int(forget.y[row])
        rivals = np.where(np.arange(base.labels) == label, -np.inf, logits[place])
        targets.append(int(rivals.argmax()))
        intervals = _intervals(table, place)
        violations = _violations(intervals, retained)
        inside = np.flatnonzero(violations <= _NEAREST)
        box, outside = _boxed(forget.flat()[row], retain.flat()[inside], model)
        violations[inside] += outside
        near |= violations <= _NEAREST
        apart = violations[violations > _NEAREST]
        slope = round_up(_STEEPER / Fraction(float(apart.min()))) if apart.size else np.float32(1)
        boxes.append(box)
        gates.append(Gate(label, slope, intervals, (int(row),)))
    progress("regions", len(rows), len(rows))
    if any(boxes):
        sites, size = (INPUT, *sites), prod(base.input_shape)
        gates = [_with_box(gate, box, size) for gate, box in zip(gates, boxes, strict=True)]
    patch = ShiftPatch(base.labels, tuple(gates), sites, np.zeros((len(rows), base.labels), dtype=np.float32))
    patch = _pushed(base, patch, forget.x[rows], targets, model, progress)
    return RegionResult(
        patch,
        tuple(int(i) for i in np.flatnonzero(near)),
        tuple(float(shift.max()) for shift in patch.shifts),
        tuple(targets),
        time.monotonic() - start,
    )


def _with_box(gate: Gate, box: tuple[Interval, ...], size: int) -> Gate:
    """A gate on the pattern with intervals at the input before it."""
    return replace(gate, intervals=(*box, *(replace(i, coordinate=i.coordinate + size) for i in gate.intervals)))


def _tables(base: Network, sites: tuple[str, ...], x: Floats, model: ThreatModel) -> SiteTable:
    try:
        return site_table(base, sites, x, model.radius, model, relaxed=True)
    except CheckError as error:
        text = f"no region can be proved for this base: {error}; a smaller --radius or --domain may help"
        raise InfeasiblePatchError(text) from None


def _require_regions(base: Network, forget: LabelledRows, rows: Labels, table: SiteTable, model: ThreatModel) -> None:
    """Refuse balls that no linear region holds, and say how large they may be."""
    outside = rows[~_stable(table)]
    if outside.size:
        reached = min(region_radius(base, forget.x[row], model) for row in outside[:8])
        named = tuple(int(i) for i in outside)
        short = Shortfall("radius", f"{float(model.radius):g}", f"{float(reached):.3g}", "forget", named)
        text = (
            f"the linear regions of {outside.size} of {len(rows)} records do not hold their balls (of the first ones "
            "the smallest is given); --family box has no such limit"
        )
        raise InfeasiblePatchError(text, shortfalls=[short])
