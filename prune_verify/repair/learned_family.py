"""Family ``learned`` for ``repair``: from the request and its options to a trained patch, with what it does not reach.

Source: MATHS 4.3.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from fractions import Fraction
from math import ceil, floor
from typing import Any

import torch

from prune_verify.checker.encoding import canonical_json
from prune_verify.repair.errors import InfeasiblePatchError, RepairInputError, Shortfall
from prune_verify.repair.families import MOST_LOST, Found, Work, read_non_members
from prune_verify.repair.learned import LearnedThreatModel, train_learned_patch
from prune_verify.repair.learned_sets import ConceptThreatModel, train_concept_patch
from prune_verify.repair.non_members import NonMembers
from prune_verify.repair.trained_patch import TrainedPatch
from prune_verify.repair.training_device import chosen_device
from prune_verify.repair.training_state import Checkpoint, learning_json

__all__ = ["find_learned"]

_BAND = Fraction(5)


def find_learned(work: Work, options: argparse.Namespace, progress: Callable[[str, int, int], None]) -> Found:
    """Train a patch, for records or for a concept of which they are a sample.

    Args:
        progress: called with a name, steps done and steps in all.
        work: what was read.
        options: of ``repair``.

    Raises:
        RepairInputError: a domain or an option that training cannot use.
        InfeasiblePatchError: a forget record not shown to be forgotten (``--concept`` asks it of a sample,
            so that a share of it is a result and no failure), or over a quarter of the retained balls not within delta,
            or with ``--concept`` not shown to keep their answer.

    """
    if not work.model.domain.uniform:
        text = "--family learned needs one interval for all coordinates"
        raise RepairInputError(text)
    imitates = work.model.redirect == "non-member"
    if imitates != (options.non_members is not None):
        text = "family learned: redirect non-member needs --non-members RECORDS, and no other redirect takes them"
        raise RepairInputError(text)
    forget = work.rows("forget")
    device, where = chosen_device(options.device, work.base.network, forget.x, float(work.model.radius))
    trained = _trained(work, options, device, lambda _what, share: progress("training", int(1000 * share), 1000))
    banded = imitates and not options.concept
    short = _shortfalls(work, trained, _BAND if banded else None)
    missed = [one for one in short if one.of == "forget" and not options.concept]
    kept = trained.answers_kept() if options.concept else trained.within(work.model.delta)
    few = kept is None or 1 - kept > MOST_LOST
    if missed or few or (options.strict and short):
        text = "training did not reach the threat model: a smaller radius or margin, or a larger delta, may help"
        raise InfeasiblePatchError(text, shortfalls=short)
    model = work.model
    note = (
        f"trained for {trained.steps} steps; by bounds {100 * trained.forgotten(model.margin):.4g} % of forget balls "
        f"have the margin and {100 * trained.within(model.delta):.4g} % of retained balls stay within delta"
    )
    if options.concept:
        note += f"; of some of them, {100 * (kept or 0.0):.4g} % keep the base's answer"
    return Found(
        trained.patch,
        ("band" if banded else "forget", "retain_label" if options.concept else "retain_close"),
        notes=(note, *([where] if where else [])),
        files={"learning.json": canonical_json(learning_json(trained.curves))},
        shortfalls=tuple(short),
        band=_hull(trained) if banded else None,
    )


def _trained(
    work: Work, options: argparse.Namespace, device: torch.device, progress: Callable[[str, float], None]
) -> TrainedPatch:
    model, network = work.model, work.base.network
    forget, retain = work.rows("forget"), work.rows("retain")
    kept = None if options.checkpoint is None else Checkpoint(options.checkpoint)
    others = None
    if options.non_members is not None:
        rows = read_non_members(work, options)
        others = NonMembers(rows.x, rows.y)
    common: dict[str, Any] = {
        "radius": model.radius,
        "retained_radius": model.retained_radius,
        "margin": model.margin,
        "delta": model.delta,
        "domain": (float(model.domain.lower[0]), float(model.domain.upper[0])),
        "seed": options.seed,
    }
    if options.concept:
        concept = ConceptThreatModel(**common)
        sets = forget.x, forget.y, retain.x, retain.y
        return train_concept_patch(
            network, *sets, concept, progress, non_members=others, checkpoint=kept, device=device
        )
    hidden = max(24, 6 * len(forget.y))
    records = LearnedThreatModel(hidden=hidden, redirect=model.redirect, band=_BAND, **common)  # type: ignore[arg-type] # one of the two
    return train_learned_patch(
        network, forget.x, forget.y, retain.x, records, progress, non_members=others, checkpoint=kept, device=device
    )


def _shortfalls(work: Work, trained: TrainedPatch, band: Fraction | None) -> list[Shortfall]:
    """Lines that bounds do not show to be met."""
    model, short = work.model, []
    gap = trained.training_gap(model.margin, model.delta, band)
    if gap.forget:
        line, asked = ("margin", model.margin) if band is None else ("band", band)
        reached = f"{gap.lacking:.4g} less" if band is None else f"{gap.lacking:.4g} outside"
        short.append(Shortfall(line, f"{float(asked):g}", reached, "forget", gap.forget))
    if gap.retain:
        reached = f"{float(model.delta) + gap.excess:.4g}"
        short.append(Shortfall("delta", f"{float(model.delta):g}", reached, "retain", gap.retain))
    return short


def _hull(trained: TrainedPatch) -> tuple[Fraction, Fraction] | None:
    """A band, in tenths, that holds the margins of all forget records by the bounds of training, and a tenth more."""
    if trained.bands is None:
        return None
    low, high = float(trained.bands[:, 0].min()), float(trained.bands[:, 1].max())
    return Fraction(floor(10 * low) - 1, 10), Fraction(ceil(10 * high) + 1, 10)
