"""This project's patches as ways to forget that can be measured: found, exported, and counted in bits.

What is measured here is the file that ``repair`` would write for the same request; nothing is proved here.

Source: MATHS 4; the families are those of :mod:`prune_verify.repair.families`.
"""

from __future__ import annotations

import time
from dataclasses import replace
from fractions import Fraction

import numpy as np

from prune_verify.checker.claim import LabelledRows
from prune_verify.checker.load_onnx import LoadedModel, load_network
from prune_verify.checker.patch import Patch
from prune_verify.checker.patch_json import disclosed
from prune_verify.checker.rebuild import coordinates_of
from prune_verify.measure.baselines import Rows
from prune_verify.measure.unlearning_context import Context, Outcome, UnlearnerError
from prune_verify.repair.asked_model import with_margin_of_errors
from prune_verify.repair.engine import repair_box, repair_class_cap
from prune_verify.repair.export import export_patched
from prune_verify.repair.hidden import repair_hidden
from prune_verify.repair.learned import LearnedThreatModel, train_learned_patch
from prune_verify.repair.linear_region import region_radius, repair_linear_region
from prune_verify.repair.redirect import OutMargins, Redirect, held_out_margins, repair_non_member
from prune_verify.repair.threat_model import GIVEN, ThreatModel

__all__ = ["box", "class_cap", "hidden_box", "learned", "linear_region", "non_member", "non_member_held_out"]

_SMALLEST = Fraction(1, 10**6)
_SITE = "relu-0"


def _loaded(base: bytes) -> LoadedModel:
    return load_network(base, "base.onnx")


def _labelled(rows: Rows) -> LabelledRows:
    return LabelledRows(rows.x, rows.y)


def _outcome(base: bytes, loaded: LoadedModel, patch: Patch, start: float, records: int) -> Outcome:
    """The deployed file of a patch."""
    onnx = export_patched(base, loaded, patch)
    bits = disclosed(patch, coordinates_of(loaded.network, patch))[1]
    return Outcome(onnx, time.monotonic() - start, records, patch_bits=bits)


def _asked(context: Context, loaded: LoadedModel, retain: Rows) -> ThreatModel:
    """The threat model with the margin that ``repair`` would choose."""
    return with_margin_of_errors(context.model, loaded.network, _labelled(retain))


def _conflicts(count: int) -> str:
    return f"{count} retained records in conflict" if count else ""


def box(base: bytes, forget: Rows, retain: Rows, context: Context) -> Outcome:
    """Gates at the input; the label loses by the margin of the base's own errors."""
    start, loaded = time.monotonic(), _loaded(base)
    found = repair_box(loaded.network, _labelled(forget), _labelled(retain), _asked(context, loaded, retain))
    return _outcome(base, loaded, found.patch, start, len(forget.y)).noted(_conflicts(len(found.conflicts)))


def hidden_box(base: bytes, forget: Rows, retain: Rows, context: Context) -> Outcome:
    """Gates behind the first ReLU."""
    start, loaded = time.monotonic(), _loaded(base)
    radius, retained = context.narrow
    model = replace(_asked(context, loaded, retain), radius=radius, retained_radius=retained)
    found = repair_hidden(loaded.network, _labelled(forget), _labelled(retain), model, sites=(_SITE,))
    return _outcome(base, loaded, found.patch, start, len(forget.y)).noted(_conflicts(len(found.conflicts)))


def non_member(base: bytes, forget: Rows, retain: Rows, context: Context) -> Outcome:
    """Gates that hold margins drawn from those of this record in networks that never saw it.

    Raises:
        UnlearnerError: no such margins were given.

    """
    if context.out_margins is None:
        text = "non-member: expected margins of networks that never saw the records, found none"
        raise UnlearnerError(text)
    margins = context.out_margins
    fewest = min(len(pool) for pool in margins.pools)
    note = f"margins of {fewest} or more networks that never saw the record"
    return _held(base, forget, retain, context, margins).noted(note)


def non_member_held_out(base: bytes, forget: Rows, retain: Rows, context: Context) -> Outcome:
    """Gates that hold margins drawn from the base's on held-out records of the same label.

    Raises:
        UnlearnerError: no held-out records were given.

    """
    if context.held_out is None:
        text = "non-member, held out: expected records that the base never saw, found none"
        raise UnlearnerError(text)
    margins = held_out_margins(_loaded(base).network, forget.y, context.held_out)
    return _held(base, forget, retain, context, margins).noted(f"margins of {len(context.held_out.y)} other records")


def _held(base: bytes, forget: Rows, retain: Rows, context: Context, margins: OutMargins) -> Outcome:
    start, loaded = time.monotonic(), _loaded(base)
    redirect = Redirect(margins, context.key)
    found = repair_non_member(loaded.network, _labelled(forget), _labelled(retain), context.model, redirect)
    return _outcome(base, loaded, found.patch, start, len(forget.y)).noted(_conflicts(len(found.conflicts)))


def linear_region(base: bytes, forget: Rows, retain: Rows, context: Context) -> Outcome:
    """The least shift on each record's linear region, at the greatest radius that all of them hold.

    Records on whose region no ball can be shown to lie (a neuron is at 0 there) get no gate, and the note counts them.

    Raises:
        UnlearnerError: no record has such a ball.

    """
    start, loaded = time.monotonic(), _loaded(base)
    model = replace(context.model, margin_from=GIVEN)
    radii = [region_radius(loaded.network, row, model) for row in forget.x]
    rows = [place for place, radius in enumerate(radii) if radius >= _SMALLEST]
    if not rows:
        text = f"linear-region: expected a record whose region holds a ball of {float(_SMALLEST):g}, found none"
        raise UnlearnerError(text)
    reach = min(radii[place] for place in rows)
    model = replace(model, radius=reach, retained_radius=max(reach / 2, _SMALLEST))
    held = LabelledRows(forget.x[rows], forget.y[rows])
    found = repair_linear_region(loaded.network, held, _labelled(retain), model)
    made = _outcome(base, loaded, found.patch, start, len(forget.y)).noted(_conflicts(len(found.conflicts)))
    left = len(forget.y) - len(rows)
    return made.noted(f"radius {float(reach):.2g}" + (f"; {left} records have no region and stay" if left else ""))


def learned(base: bytes, forget: Rows, retain: Rows, context: Context) -> Outcome:
    """A small network trained under the threat model."""
    start, loaded = time.monotonic(), _loaded(base)
    radius, retained = context.learned_radii
    hidden = max(24, 6 * len(forget.y))
    model = LearnedThreatModel(
        radius=radius, retained_radius=retained, margin=context.model.margin, delta=context.model.delta,
        hidden=hidden, seed=context.seed,
    )  # fmt: skip
    found = train_learned_patch(loaded.network, forget.x, forget.y, retain.x, model)
    shares = found.forgotten(model.margin), found.within(model.delta)
    note = f"bounds show {100 * shares[0]:.3g} % of forget and {100 * shares[1]:.3g} % of retained balls"
    return _outcome(base, loaded, found.patch, start, len(forget.y)).noted(note)


def class_cap(base: bytes, forget: Rows, _retain: Rows, context: Context) -> Outcome:
    """Labels that are never answered, for all inputs.

    Raises:
        UnlearnerError: no classes were given.

    """
    classes = context.classes or tuple(int(label) for label in np.unique(forget.y))
    start, loaded = time.monotonic(), _loaded(base)
    found = repair_class_cap(loaded.network, classes, replace(context.model, margin_from=GIVEN))
    return _outcome(base, loaded, found.patch, start, len(forget.y))
