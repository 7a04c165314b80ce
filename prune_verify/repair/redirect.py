"""Redirect ``non-member``: an open gate holds the margin of the label where networks without the record have it.

A record that is answered wrongly with force is as conspicuous as one that is remembered (THREATS T4). Here the margin
of the record's label is drawn from those that networks show there which never saw it: one draw per record and release,
from a keyed hash of the record, so that neither a second release nor a copy of the record gives a second draw. The
label is answered no more only where most of those networks do not answer it.

The margins are given (one row per network, as a membership attack computes them), or taken from the base's own margins
on records of the same label that it never saw; these stand for "most such networks" then, each with its own sign.
A draw is a member of the pool, spread by as much as the mean of so few networks is unsure: without that, draws would
never lie outside of the pool and forgotten records would be more ordinary than non-members are.
A gate holds the margin within a width, always on one side of 0, so that the answer on the region is one; within these
ends the base's own margin shows through, so that the end nearer to it is the draw and the record itself has it exactly.

Source: MATHS 6, THREATS T4; the margins are those of LiRA, Carlini et al., arXiv 2112.03570; smoothed bootstrap: Efron
and Tibshirani, An Introduction to the Bootstrap, section 16.4.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from prune_verify.checker.claim import LabelledRows
from prune_verify.checker.network import Network, evaluate
from prune_verify.repair.box import float32_not_above, float32_not_below
from prune_verify.repair.engine import RepairResult, repair_box
from prune_verify.repair.errors import RepairInputError
from prune_verify.repair.head import head_bounds, with_hold_head
from prune_verify.repair.threat_model import ThreatModel

__all__ = [
    "KEY_BYTES",
    "OutMargins",
    "Redirect",
    "base_margins",
    "drawn",
    "held_out_margins",
    "label_margins",
    "load_out_margins",
    "repair_non_member",
]

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Progress = Callable[[str, int, int], None]
KEY_BYTES = 32
_LEAST_MODELS = 8
_LEAST_RECORDS = 20
_EDGE = 2.0**-10
_LEAST_SHARE = 2.0**-49  # a normal number has no quantile at 0
_DOMAIN = b"prune-verify/non-member-margin/v2"


@dataclass(frozen=True, eq=False)
class OutMargins:
    """Margins of each forget record's label in networks that never saw it.

    Args:
        pools: per record, float64 [at least 8], in logits.
        per_record: the margins are those of this record in several networks, and not of other records in the base.

    """

    pools: tuple[Doubles, ...]
    per_record: bool


@dataclass(frozen=True, eq=False)
class Redirect:
    """How the margins of forgotten records are drawn.

    Args:
        margins: of networks that never saw the records.
        key: secret of the draws, 32 bytes or more.
        width: how far the margin may range on a region, in logits.

    Raises:
        RepairInputError: a short key, or a width of 0 or less.

    """

    margins: OutMargins
    key: bytes
    width: Fraction = Fraction(1, 2)

    def __post_init__(self) -> None:
        if len(self.key) < KEY_BYTES:
            text = f"the key of the draws: expected {KEY_BYTES} bytes or more, found {len(self.key)}"
            raise RepairInputError(text)
        if self.width <= 0:
            text = f"width of the band: expected above 0, found {float(self.width):g}"
            raise RepairInputError(text)


def label_margins(logits: npt.NDArray[np.generic], labels: npt.NDArray[np.int64]) -> Doubles:
    """The margin of each row's label over the best other: float64 [..., rows].

    Args:
        logits: [..., rows, labels], of one network or of several.
        labels: int64 [rows].

    """
    wide = logits.astype(np.float64)
    own = np.arange(wide.shape[-1]) == labels[:, np.newaxis]
    mine, others = np.where(own, wide, -np.inf), np.where(own, -np.inf, wide)
    return np.asarray(mine.max(axis=-1) - others.max(axis=-1))


def base_margins(network: Network, rows: LabelledRows) -> Doubles:
    """The margin of each row's label over the best other, in logits: float64 [rows]."""
    return label_margins(evaluate(network, rows.x).reshape(len(rows.y), -1), rows.y)


def load_out_margins(path: Path, records: int) -> OutMargins:
    """Read out-model margins: an npz with ``margins`` [models, records], NaN where a network saw the record.

    Raises:
        RepairInputError: no such array, another number of records, an infinite number, or fewer than 8 networks.

    """
    try:
        with np.load(path, allow_pickle=False) as found:
            if "margins" not in found:
                text = f"{path}: expected an array named margins [models, records], found {', '.join(found) or 'none'}"
                raise RepairInputError(text)
            margins = np.asarray(found["margins"])
    except (OSError, ValueError) as error:
        text = f"{path}: expected an npz file with margins [models, records]: {error}"
        raise RepairInputError(text) from None
    expected = f"{path}: margins: expected numbers [models, {records}] in the order of the forget set"
    if margins.dtype.kind != "f" or margins.ndim != 2 or margins.shape[1] != records:  # noqa: PLR2004 - a matrix
        text = f"{expected}, found {margins.dtype} {list(margins.shape)}"
        raise RepairInputError(text)
    if np.isinf(margins).any():
        text = f"{expected}, found an infinite one"
        raise RepairInputError(text)
    pools = tuple(column[~np.isnan(column)].astype(np.float64) for column in margins.T)
    few = next((i for i, pool in enumerate(pools) if len(pool) < _LEAST_MODELS), None)
    if few is not None:
        got = len(pools[few])
        text = f"{path}: margins: record {few}: expected {_LEAST_MODELS} networks that never saw it, found {got}"
        raise RepairInputError(text)
    return OutMargins(pools, per_record=True)


def held_out_margins(base: Network, labels: npt.NDArray[np.int64], held_out: LabelledRows) -> OutMargins:
    """The base's margins on records that it never saw, by label: what it shows on non-members.

    Args:
        base: the base network.
        labels: int64 [forget]: of the forget records.
        held_out: records that the base was not trained on.

    Raises:
        RepairInputError: a label with fewer than 20 held-out records.

    """
    margins = base_margins(base, held_out)
    pools = {int(label): margins[held_out.y == label] for label in np.unique(labels)}
    few = next((label for label, pool in pools.items() if len(pool) < _LEAST_RECORDS), None)
    if few is not None:
        text = f"held-out records: expected {_LEAST_RECORDS} or more of label {few}, found {len(pools[few])}"
        raise RepairInputError(text)
    return OutMargins(tuple(pools[int(label)] for label in labels), per_record=False)


def _uniforms(key: bytes, row: Floats, label: int) -> tuple[float, float]:
    """Two numbers in [0, 1) that depend on the key, the record and its label only."""
    found = hmac.new(key, _DOMAIN + label.to_bytes(8, "big") + row.astype("<f4").tobytes(), hashlib.sha256).digest()
    return int.from_bytes(found[:6], "big") / 2.0**48, int.from_bytes(found[6:12], "big") / 2.0**48


def drawn(redirect: Redirect, forget: LabelledRows) -> Doubles:
    """One margin for each record: a member of its pool, moved by a normal number of variance 2 s^2 / n.

    With that the draws of n margins of variance s^2 vary as a further network's margin does about their mean, which is
    by s^2 (1 + 1 / n). Where the pool is of this record in several networks, only those on the side of the majority are
    drawn from, and a move never leads to the other side.

    Args:
        redirect: the pools and the key; the same key and record give the same draw.
        forget: the records, in the order of the pools.

    Returns:
        float64 [records], in logits.

    Raises:
        RepairInputError: margins of other records.

    """
    margins = redirect.margins
    if len(margins.pools) != len(forget.y):
        text = f"out-model margins: expected {len(forget.y)} records, found {len(margins.pools)}"
        raise RepairInputError(text)
    found = np.zeros(len(forget.y))
    for place, (pool, row, label) in enumerate(zip(margins.pools, forget.flat(), forget.y, strict=True)):
        side = pool[(pool > 0) == bool((pool > 0).mean() > 1 / 2)] if margins.per_record else pool
        which, move = _uniforms(redirect.key, row, int(label))
        member = float(np.sort(side)[int(which * len(side))])
        spread = float(side.std(ddof=1)) * (2 / len(side)) ** 0.5 if len(side) > 1 else 0.0
        moved = member + spread * NormalDist().inv_cdf(max(move, _LEAST_SHARE))
        found[place] = moved if (moved > 0) == (member > 0) or not margins.per_record else member
    return found


def _ends(margin: float, own: float, width: Fraction) -> tuple[np.float32, np.float32]:
    """Ends of that width, or less next to 0, between which the base's own margin is led to the drawn one.

    Args:
        margin: drawn.
        own: the base's.
        width: of the band.

    """
    least, most = _EDGE * (1 + float(width)), float(width)
    if margin > 0:
        low = max(margin - most if own >= margin else margin, least)
        high = max(margin if own >= margin else low + most, 2 * least)
    else:
        high = min(margin if own >= margin else margin + most, -least)
        low = min(high - most if own >= margin else margin, -2 * least)
    return np.float32(float32_not_above(np.array(low))), np.float32(float32_not_below(np.array(high)))


def repair_non_member(
    base: Network,
    forget: LabelledRows,
    retain: LabelledRows,
    model: ThreatModel,
    redirect: Redirect,
    *,
    minimal: float | None = None,
    progress: Progress = lambda _name, _done, _total: None,
) -> RepairResult:
    """Gates at the input that hold the margin of each forget record's label where a non-member's would be.

    Args:
        base: the base network.
        forget: the forget set.
        retain: the retained set.
        model: the threat model; its margin is not used.
        redirect: margins of networks that never saw the records, and how they are drawn.
        minimal: as for :func:`repair_box`.
        progress: called with a name, gates done and gates in all.

    Returns:
        The patch, the conflicts, and the sizes of the gates.

    Raises:
        RepairInputError: an empty set, or margins of other records.
        InfeasiblePatchError: a forget record that no coordinate separates from anything.

    """
    start = time.monotonic()
    draws, own = drawn(redirect, forget), base_margins(base, forget)
    model = replace(model, redirect="non-member")
    found = repair_box(base, forget, retain, model, minimal=minimal, progress=progress)
    gates = tuple(
        replace(gate, hold=_ends(float(draws[gate.records[0]]), float(own[gate.records[0]]), redirect.width))
        for gate in found.patch.gates
    )
    bounds = head_bounds(base, found.patch.allowed, model.domain, model.arithmetics)
    patch = with_hold_head(replace(found.patch, gates=gates), bounds, model.arithmetics)
    return replace(found, patch=patch, seconds=time.monotonic() - start)
