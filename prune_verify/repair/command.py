"""``prune-verify repair``: from a base network and records to a patched network, its parameters and the request.

Source: FORMATS sections 1 and 3.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np

from prune_verify.checker.claim import LabelledRows, strict_answers
from prune_verify.checker.encoding import Json, format_decimal, read_file
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.patch import INPUT, JointPatch
from prune_verify.checker.patch_json import PatchFile, disclosed, emit_patch
from prune_verify.checker.rebuild import coordinates_of
from prune_verify.checker.records import Records
from prune_verify.checker.region import domain_json
from prune_verify.repair.asked_model import asked_threat_model, margin_note, with_margin_of_errors
from prune_verify.repair.copies import image_size, shifted_copies
from prune_verify.repair.errors import InfeasiblePatchError, RepairInputError, Shortfall, named
from prune_verify.repair.export import export_patched
from prune_verify.repair.families import Found, Work, find_patch, require_family
from prune_verify.repair.output import require_writable, write_files
from prune_verify.request import Request, emit_request
from prune_verify.request_sets import domain_of, fitted, read_sets, require_files

__all__ = ["repair_command"]

Progress = Callable[[str, int, int], None]
_MOST_BYTES = 2**30
COPIES_FILE = "forget.npz"
_RECORD_OPTIONS = ("radius", "retained_radius", "cover", "retain")


def _read(options: argparse.Namespace) -> Work:
    """Every file, checked against the network and the domain."""
    family = require_family(options)
    require_files([options.base, options.threat_model, options.encoding, options.out_margins, options.redirect_key])
    base_bytes = read_file(options.base, "base network", _MOST_BYTES)
    base = load_network(base_bytes, str(options.base))
    sets = read_sets(options)
    model = asked_threat_model(options, domain_of(options.domain, list(sets.values())))
    radii = model.radius, model.retained_radius
    sets = fitted(sets, base.network, model.domain, radii)
    groups = None
    if options.shifts is not None:
        sets["forget"], groups = _with_copies(sets["forget"], options, base.network.input_shape)
        sets = fitted(sets, base.network, model.domain, radii)
    forget, retain = sets.get("forget"), sets.get("retain")
    classes = tuple(sorted(set(options.forget_class)))
    others = None if family != "box" or retain is None else LabelledRows(retain.x, retain.y)
    model = with_margin_of_errors(model, base.network, others)
    return Work(base_bytes, base, forget, retain, classes, family, model, groups)


def _with_copies(
    forget: Records, options: argparse.Namespace, shape: tuple[int, ...]
) -> tuple[Records, tuple[tuple[int, ...], ...]]:
    """The forget set with every record's shifted copies after it, and which rows are of one record."""
    if options.shifts < 1:
        text = f"--shifts {options.shifts}: expected a number of pixels, at least 1"
        raise RepairInputError(text)
    height, width = image_size(options.image, shape)
    copies = shifted_copies(forget.x, height, width, options.shifts)
    each = copies.shape[1]
    x = np.ascontiguousarray(copies.reshape(-1, *forget.x.shape[1:]))
    groups = tuple(tuple(range(each * i, each * (i + 1))) for i in range(len(forget)))
    name = str(options.out / COPIES_FILE)
    return replace(forget, x=x, y=np.repeat(forget.y, each), source=name), groups


def _request(work: Work, found: Found, options: argparse.Namespace) -> Request:
    model, records = work.model, work.forget is not None
    return Request(
        kind=work.kind,
        reference=options.reference,
        received_at=datetime.now(UTC).replace(microsecond=0),
        labels=work.base.network.labels,
        classes=work.classes,
        domain=model.domain,
        radius=model.radius if records else None,
        retained_radius=model.retained_radius if records else None,
        margin=model.margin,
        cover=model.cover,
        delta=model.delta if "retain_close" in found.claims else None,
        claims=found.claims,
        arithmetics=model.arithmetics,
        encoding_sha256=None if work.forget is None else work.forget.encoding_sha256,
        membership_acceptance=model.membership_acceptance,
        band=found.band,
    )


def _unused(options: argparse.Namespace) -> list[str]:
    """Record options that a class request accepts and does not need."""
    given = [name for name in _RECORD_OPTIONS if options.forget is None and getattr(options, name) is not None]
    return [f"--{name.replace('_', '-')}: not used by a class request" for name in given]


def _text(work: Work, found: Found, files: list[str], out: Path) -> list[str]:
    """The result for a person."""
    model, patch, result = work.model, found.patch, found.result
    lines = []
    if work.forget is not None:
        low, high = (format_decimal(end[0]) for end in (model.domain.lower, model.domain.upper))
        more = "" if model.domain.uniform else " (first coordinate)"
        lines.append(
            f"domain {low}..{high}{more}, forget radius {format_decimal(model.radius)}, retained radius "
            f"{format_decimal(model.retained_radius)}, gap {float(model.distance):g}, cover {model.cover}, "
            f"margin {format_decimal(model.margin)}"
        )
    if isinstance(patch, JointPatch):
        lines.append(f"head: tau {float(patch.tau):.6g}, M {float(patch.shift):.6g}, K {float(patch.slack):.6g}")
    lines += _sizes(work, found)
    if work.classes:
        lines.append(f"classes never answered: {', '.join(str(c) for c in work.classes)}")
    lines += _already_wrong(work)
    if result is not None and result.conflicts:
        lines.append(
            f"warning: {len(result.conflicts)} retained records are in conflict (inside a support): "
            f"{named(result.conflicts)}; the request wins, and the auditor's max_conflicts decides"
        )
    lines += [f"not met: {one.text()}" for one in found.shortfalls]
    if model.membership_acceptance:
        levels = ", ".join(f"{name} {level}" for name, level in model.membership_acceptance)
        lines.append(f"acceptance levels of membership inference ({levels}) are in the request and not checked here")
    names = ", ".join(str(out / name) for name in files)
    return [*lines, *found.notes, f"wrote {names}"]


def _sizes(work: Work, found: Found) -> list[str]:
    """How large the gates are, and what they give away."""
    result, lines = found.result, []
    coordinates, bits = disclosed(found.patch, coordinates_of(work.base.network, found.patch))
    if result is not None and result.sizes:
        sizes = [size.coordinates for size in result.sizes]
        lines.append(
            f"{len(sizes)} gates of {median(sizes):g} coordinates (median; at most {max(sizes)}); the patch discloses "
            f"{coordinates} coordinates of records, {bits} bits; {result.seconds / len(sizes):.3f} s per gate"
        )
        bounds = [size for size in result.sizes if size.lower_bound is not None]
        if bounds:
            fewest = sum(size.coordinates == size.lower_bound for size in bounds)
            lines.append(f"{fewest} of {len(bounds)} gates are proved smallest")
    elif work.forget is not None:
        lines.append(f"the patch discloses {coordinates} numbers, {bits} bits")
    return lines


def _wrong(work: Work) -> list[int]:
    """Forget records that the base does not answer with their label anyway."""
    if work.forget is None:
        return []
    rows = work.rows("forget")
    return [int(i) for i in np.flatnonzero(strict_answers(work.base.network, rows.x) != rows.y)]


def _already_wrong(work: Work) -> list[str]:
    wrong = _wrong(work)
    if not wrong:
        return []
    return [f"{len(wrong)} forget records are not answered with their label by the base either: {named(wrong)}"]


def _require_few_conflicts(work: Work, found: Found) -> None:
    """``--strict``: no conflict, or the radius at which there would be none.

    Raises:
        InfeasiblePatchError: there is one.

    """
    if found.conflicts:
        text = "--strict: retained records are in conflict, and nothing was written"
        short = [Shortfall("retained_radius", format_decimal(work.model.retained_radius), *_apart(work, found))]
        raise InfeasiblePatchError(text, retain=found.conflicts, shortfalls=short)


def _apart(work: Work, found: Found) -> tuple[str, str, tuple[int, ...]]:
    """The retained radius at which boxes at the input would leave all conflicts outside, and the conflicts."""
    patch = found.patch
    if not isinstance(patch, JointPatch) or patch.sites != (INPUT,):
        return "unknown for this family", "retain", found.conflicts
    forget, retain = work.rows("forget").flat(), work.rows("retain").flat()[list(found.conflicts)]
    centres = forget[[gate.records[0] for gate in patch.gates]]
    far = min(float(np.abs(retain - centre).max(axis=1).min()) for centre in centres)
    share = float(work.model.distance / work.model.retained_radius)
    radius = (far - float(work.model.radius)) / (1 + share)
    return (f"about {radius:.3g}" if radius > 0 else "none at this forget radius"), "retain", found.conflicts


def repair_command(options: argparse.Namespace, progress: Progress) -> tuple[int, str, dict[str, Json]]:
    """Run the verb.

    Returns:
        Exit code 0, text, and the object for ``--json``.

    Raises:
        CheckError: a file cannot be used.
        RepairError: the same, or no patch meets the threat model.

    """
    work = _read(options)
    require_writable(options.out)
    found = find_patch(work, options, progress)
    if options.strict:
        _require_few_conflicts(work, found)
    patch, result = found.patch, found.result
    count = coordinates_of(work.base.network, patch)
    files = {
        "patched.onnx": export_patched(work.base_bytes, work.base, patch),
        "patch.json": emit_patch(PatchFile(patch, work.base.network.digest(), found.conflicts), count),
        "request.json": emit_request(_request(work, found, options)),
        **found.files,
    }
    if work.groups is not None and work.forget is not None:
        files[COPIES_FILE] = _npz(work.forget)
    write_files(options.out, files)
    sizes = [] if result is None else [size.coordinates for size in result.sizes]
    notes = [*_unused(options), *margin_note(work.model)]
    data: dict[str, Json] = {
        "family": patch.family,
        "gates": len(sizes),
        "coordinates": list(sizes),
        "lowerBounds": [] if result is None else [size.lower_bound for size in result.sizes],
        "conflicts": list(found.conflicts),
        "alreadyWrong": list(_wrong(work)),
        "disclosedBits": disclosed(patch, count)[1],
        "secondsPerRequest": None if result is None or not sizes else f"{result.seconds / len(sizes):.6f}",
        "domain": domain_json(work.model.domain),
        "shortfalls": [one.plain() for one in found.shortfalls],
        "notes": [*notes, *found.notes],
    }
    return 0, "\n".join([*notes, *_text(work, found, list(files), options.out)]), data


def _npz(records: Records) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=records.x, y=records.y)
    return buffer.getvalue()
