"""Which family of patches a request gets, and the patch: the one place that knows all of them.

Source: MATHS 4; FORMATS section 3 (``repair``).
"""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

from prune_verify.checker.claim import LabelledRows
from prune_verify.checker.encoding import read_file
from prune_verify.checker.load_onnx import LoadedModel
from prune_verify.checker.network import Network
from prune_verify.checker.patch import JointPatch, LearnedPatch, Patch, ShiftPatch
from prune_verify.checker.patch_json import disclosed
from prune_verify.checker.rebuild import coordinates_of
from prune_verify.checker.records import Records, load_records
from prune_verify.repair.engine import RepairResult, repair_box, repair_class_cap
from prune_verify.repair.errors import InfeasiblePatchError, RepairInputError, Shortfall
from prune_verify.repair.threat_model import ThreatModel

__all__ = ["FAMILIES", "Found", "Work", "beyond_budget", "find_patch", "read_non_members", "require_family"]

Progress = Callable[[str, int, int], None]
FAMILIES = ("auto", "box", "class-cap", "linear-region", "learned")
KEY_FILE = "redirect.key"
MOST_LOST = 0.25  # share of retained records that an additive patch may change by more than delta
_RECORDS = ("forget", "retain_exact", "retain_label", "locality")
_CLASS = ("forget_class", "retain_other_labels")
# Options and the families that they belong to.
_OF_FAMILY = {
    "site": ("box",),
    "shifts": ("box", "linear-region"),
    "minimal": ("box",),
    "clusters": ("linear-region",),
    "concept": ("learned",),
    "checkpoint": ("learned",),
    "device": ("learned",),
    "non_members": ("box", "learned"),
    "out_margins": ("box",),
    "redirect_key": ("box",),
}


@dataclass(frozen=True, eq=False)
class Work:
    """What was read, and the family that was asked for.

    Args:
        base_bytes: the base's file.
        base: the same, loaded.
        forget: the forget set, copies included; None for a class request.
        retain: the retained set.
        classes: to be forgotten for all inputs.
        family: of the patch.
        model: the threat model.
        groups: forget rows that are copies of one record, and share a gate where they can.

    """

    base_bytes: bytes
    base: LoadedModel
    forget: Records | None
    retain: Records | None
    classes: tuple[int, ...]
    family: str
    model: ThreatModel
    groups: tuple[tuple[int, ...], ...] | None = None

    @property
    def kind(self) -> str:
        """Of the request."""
        if self.forget is None:
            return "class"
        return "records+class" if self.classes else "records"

    def rows(self, which: str) -> LabelledRows:
        """The set ``which``, ``forget`` or ``retain``.

        Raises:
            RepairInputError: it is missing.

        """
        records = self.forget if which == "forget" else self.retain
        if records is None:
            text = (
                f"--{which}: the records that {'are to be forgotten' if which == 'forget' else 'must stay'} are needed"
            )
            raise RepairInputError(text)
        return LabelledRows(records.x, records.y)


@dataclass(frozen=True, eq=False)
class Found:
    """A patch, and what is to be said and written beside it.

    Args:
        patch: its parameters.
        claims: kinds that the request asks for.
        result: gates, sizes and conflicts, where the family has them.
        notes: lines for a person.
        files: further files of the output folder, by name.
        shortfalls: lines of the threat model that this patch does not meet.
        band: of BD claims; None where each gate has its own.

    """

    patch: Patch
    claims: tuple[str, ...]
    result: RepairResult | None = None
    notes: tuple[str, ...] = ()
    files: dict[str, bytes] = field(default_factory=dict)
    shortfalls: tuple[Shortfall, ...] = ()
    band: tuple[Fraction, Fraction] | None = None

    @property
    def conflicts(self) -> tuple[int, ...]:
        """Retained records inside a support."""
        return () if self.result is None else self.result.conflicts


def require_family(options: argparse.Namespace) -> str:
    """The family that the request needs.

    Raises:
        RepairInputError: nothing to forget, a family that does not fit, or an option of another family.

    """
    asked: str = options.family
    if options.forget is None and not options.forget_class:
        text = "nothing to forget: give --forget RECORDS, --forget-class C, or both"
        raise RepairInputError(text)
    fitting = "box" if options.forget is not None else "class-cap"
    if asked in ("learned", "linear-region") and (options.forget is None or options.forget_class):
        text = f"--family {asked} forgets records, and no class: give --forget and leave out --forget-class"
        raise RepairInputError(text)
    if asked not in ("auto", "learned", "linear-region", fitting):
        text = f"--family {asked} does not fit the request; family {fitting} does"
        raise RepairInputError(text)
    family = fitting if asked == "auto" else asked
    for name, families in _OF_FAMILY.items():
        if getattr(options, name, None) not in (None, False, []) and family not in families:
            text = f"--{name.replace('_', '-')} belongs to family {' or '.join(families)}; this patch is of {family}"
            raise RepairInputError(text)
    return family


def find_patch(work: Work, options: argparse.Namespace, progress: Progress) -> Found:
    """The patch of the family that was asked for.

    Raises:
        RepairInputError: an option that cannot be used.
        InfeasiblePatchError: no patch of the family meets the threat model.

    """
    if work.family == "learned":
        from prune_verify.repair.learned_family import find_learned

        return find_learned(work, options, progress)
    if work.family == "linear-region":
        return _linear_region(work, options, progress)
    if work.family == "class-cap":
        result = repair_class_cap(work.base.network, work.classes, work.model)
        return Found(result.patch, _CLASS, result)
    return _within_budget(work, options, progress)


def _within_budget(work: Work, options: argparse.Namespace, progress: Progress) -> Found:
    """Gates of a box within the budget of bits: with less cover where that is what it takes, and not under --strict."""
    model, asked = work.model, work.model.cover
    for cover in (asked,) if options.strict else range(asked, 0, -1):
        found = _box(replace(work, model=replace(model, cover=cover)), options, progress)
        short = beyond_budget(work.model, work.base.network, found.patch)
        if not short:
            break
    else:
        text = "the patch would hold more of the records than the threat model allows"
        raise InfeasiblePatchError(text, shortfalls=short)
    if cover < asked:
        less = Shortfall("cover", str(asked), str(cover))
        note = f"cover {cover} instead of {asked}: with more, the patch would hold more bits than the budget allows"
        found = replace(found, notes=(*found.notes, note), shortfalls=(*found.shortfalls, less))
    return found


def beyond_budget(model: ThreatModel, base: Network, patch: Patch) -> list[Shortfall]:
    """Lines of the threat model's disclosure budget that a patch exceeds."""
    short, count = [], coordinates_of(base, patch)
    bits = disclosed(patch, count)[1]
    if model.disclosure_bits is not None and bits > model.disclosure_bits:
        short.append(Shortfall("disclosure_bits", str(model.disclosure_bits), str(bits)))
    most = model.disclosure_bits_per_record
    if most is not None and not isinstance(patch, LearnedPatch):
        each = [disclosed(_alone(patch, place), count)[1] for place in range(len(patch.gates))]
        over = [place for place, own in enumerate(each) if own > most]
        if over:
            named = tuple(record for place in over for record in patch.gates[place].records)
            short.append(Shortfall("disclosure_bits_per_record", str(most), str(max(each)), "forget", named))
    return short


def _alone(patch: JointPatch | ShiftPatch, place: int) -> Patch:
    """The patch with one of its gates only."""
    gates = patch.gates[place : place + 1]
    if isinstance(patch, ShiftPatch):
        return replace(patch, gates=gates, shifts=patch.shifts[place : place + 1])
    return replace(patch, gates=gates)


def _box(work: Work, options: argparse.Namespace, progress: Progress) -> Found:
    if work.model.redirect == "non-member":
        return _non_member(work, options, progress)
    network, forget, retain = work.base.network, work.rows("forget"), work.rows("retain")
    label = () if work.classes else ("retain_label",)
    claims = ("forget", "retain_exact", *label, "locality", *(_CLASS if work.classes else ()))
    if options.site and options.site != ["input"]:
        from prune_verify.repair.hidden import repair_hidden

        if work.classes or options.minimal is not None:
            text = "--site relu-K goes with neither --forget-class nor --minimal"
            raise RepairInputError(text)
        sites, groups = tuple(options.site), work.groups
        result = repair_hidden(network, forget, retain, work.model, sites=sites, groups=groups, progress=progress)
    else:
        result = repair_box(
            network, forget, retain, work.model, classes=work.classes, minimal=options.minimal, progress=progress
        )
    return Found(result.patch, claims, result)


def _non_member(work: Work, options: argparse.Namespace, progress: Progress) -> Found:
    """Gates that hold each record's margin where networks without it have it."""
    from prune_verify.repair.redirect import (
        KEY_BYTES,
        Redirect,
        held_out_margins,
        load_out_margins,
        repair_non_member,
    )

    if options.site or options.shifts or work.classes:
        text = "redirect non-member: gates at the input, records alone: leave out --site, --shifts and --forget-class"
        raise RepairInputError(text)
    forget, network = work.rows("forget"), work.base.network
    if (options.out_margins is None) == (options.non_members is None):
        text = "redirect non-member: give --out-margins FILE.npz or --non-members RECORDS, one of them"
        raise RepairInputError(text)
    if options.out_margins is not None:
        margins = load_out_margins(options.out_margins, len(forget.y))
    else:
        margins = held_out_margins(network, forget.y, read_non_members(work, options))
    given = options.redirect_key is not None
    key = read_file(options.redirect_key, "key of the draws", 2**16) if given else secrets.token_bytes(KEY_BYTES)
    result = repair_non_member(
        network,
        forget,
        work.rows("retain"),
        work.model,
        Redirect(margins, key),
        minimal=options.minimal,
        progress=progress,
    )
    files = {} if given else {KEY_FILE: key}
    note = f"margins drawn with a key; keep {KEY_FILE} secret: the same key draws the same margins in a later release"
    held = [gate.hold for gate in result.patch.gates if gate.hold is not None]
    flipped = sum(high < 0 for _, high in held)
    notes = (f"{len(held)} margins held, {flipped} of them below 0 (the label is answered no more)", note)
    return Found(result.patch, ("band", *_RECORDS[1:]), result, notes=notes, files=files)


def read_non_members(work: Work, options: argparse.Namespace) -> LabelledRows:
    """Records that the base never saw, as the network reads them.

    Raises:
        CheckError: they cannot be read, or do not fit the network.
        RepairInputError: one of them is to be forgotten.

    """
    from prune_verify.checker.records import check_against, duplicates_between

    found = load_records(
        options.non_members, what="non-members", label_column=options.label_column, encoding=options.encoding
    )
    network, domain = work.base.network, work.model.domain
    found = check_against(
        found, input_shape=network.input_shape, labels=network.labels, domain=domain, what="non-members"
    )
    if work.forget is not None and duplicates_between(work.forget, found):
        first, second = duplicates_between(work.forget, found)[0]
        text = f"--non-members: record {second} of {found.source} is forget record {first}: it is no non-member"
        raise RepairInputError(text)
    return LabelledRows(found.x, found.y)


def _linear_region(work: Work, options: argparse.Namespace, progress: Progress) -> Found:
    from prune_verify.repair.linear_region import repair_linear_region

    forget = work.rows("forget")
    if options.clusters is not None and not 1 <= options.clusters <= len(forget.y):
        text = f"--clusters {options.clusters}: expected from 1 to {len(forget.y)}, the records to be forgotten"
        raise RepairInputError(text)
    found = repair_linear_region(
        work.base.network,
        forget,
        work.rows("retain"),
        work.model,
        clusters=options.clusters,
        seed=options.seed,
        progress=progress,
    )
    short = beyond_budget(work.model, work.base.network, found.patch)
    if short:
        text = "the patch would hold more of the records than the threat model allows"
        raise InfeasiblePatchError(text, shortfalls=short)
    if found.conflicts:
        asked, reached = f"{float(work.model.delta):g}", f"{max(found.shifts):.4g}"
        short.append(Shortfall("delta", asked, reached, "retain", found.conflicts))
    if len(found.conflicts) > MOST_LOST * len(work.rows("retain").y) or (options.strict and short):
        text = "retained balls may reach a region, because the base has few neurons or they are near the records"
        raise InfeasiblePatchError(text, shortfalls=short)
    notes = [f"greatest shift of a logit: {max(found.shifts):.4g} (median {float(np.median(found.shifts)):.4g})"]
    claims: tuple[str, ...] = ("forget", "retain_close", "minimality")
    if options.clusters is not None:
        notes.append(
            f"{len(found.patch.gates)} representatives of {len(forget.y)} records have gates; the request names all "
            "records, and certify counts how many are proved"
        )
    return Found(found.patch, claims, notes=tuple(notes), shortfalls=tuple(short))
