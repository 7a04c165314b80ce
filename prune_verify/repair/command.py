"""``prune-verify repair``: from a base network and records to a patched network, its parameters and the request.

Source: FORMATS sections 1 and 3.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np

from prune_verify.checker.claim import LabelledRows
from prune_verify.checker.encoding import Json, format_decimal, read_file
from prune_verify.checker.load_onnx import LoadedModel, load_network
from prune_verify.checker.patch import JointPatch, Patch
from prune_verify.checker.patch_json import PatchFile, disclosed, emit_patch
from prune_verify.checker.rebuild import coordinates_of
from prune_verify.checker.records import Records
from prune_verify.checker.region import Domain, domain_json
from prune_verify.repair.engine import RepairResult, repair_box, repair_class_cap
from prune_verify.repair.errors import InfeasiblePatchError, RepairInputError
from prune_verify.repair.export import export_patched
from prune_verify.repair.threat_model import ThreatModel, default_threat_model, load_threat_model
from prune_verify.request import Request, emit_request
from prune_verify.request_sets import amounts_of, domain_of, fitted, read_sets, require_files

__all__ = ["repair_command"]

Progress = Callable[[str, int, int], None]
_MOST_BYTES = 2**30
_RECORD_OPTIONS = ("radius", "retained_radius", "cover", "retain")


@dataclass(frozen=True, eq=False)
class _Work:
    """What was read, and the family that was asked for."""

    base_bytes: bytes
    base: LoadedModel
    forget: Records | None
    retain: Records | None
    classes: tuple[int, ...]
    family: str
    model: ThreatModel

    @property
    def kind(self) -> str:
        """Of the request."""
        if self.forget is None:
            return "class"
        return "records+class" if self.classes else "records"


def _rows(records: Records | None) -> LabelledRows:
    if records is None:
        text = "--retain: the records that must stay as they are, are needed"
        raise RepairInputError(text)
    return LabelledRows(records.x, records.y)


def _family(options: argparse.Namespace) -> str:
    """The family that the request needs."""
    asked: str = options.family
    if options.forget is None and not options.forget_class:
        text = "nothing to forget: give --forget RECORDS, --forget-class C, or both"
        raise RepairInputError(text)
    fitting = "box" if options.forget is not None else "class-cap"
    if asked == "learned" and (options.forget is None or options.forget_class):
        text = "--family learned forgets records, and no class: give --forget and leave out --forget-class"
        raise RepairInputError(text)
    if asked not in ("auto", "learned", fitting):
        text = f"--family {asked} does not fit the request; family {fitting} does"
        raise RepairInputError(text)
    return "learned" if asked == "learned" else fitting


def _threat_model(options: argparse.Namespace, domain: Domain) -> ThreatModel:
    model = default_threat_model(domain)
    if options.threat_model is not None:
        model = load_threat_model(options.threat_model, model)
        if options.domain is not None:
            model = replace(model, domain=domain)
    if options.cover is not None:
        model = replace(model, cover=options.cover)
    return replace(model, **amounts_of(options))  # type: ignore[arg-type] # all of them are amounts


def _read(options: argparse.Namespace) -> _Work:
    """Every file, checked against the network and the domain."""
    family = _family(options)
    require_files([options.base, options.threat_model, options.encoding])
    base_bytes = read_file(options.base, "base network", _MOST_BYTES)
    base = load_network(base_bytes, str(options.base))
    sets = read_sets(options)
    model = _threat_model(options, domain_of(options.domain, list(sets.values())))
    sets = fitted(sets, base.network, model.domain, (model.radius, model.retained_radius))
    return _Work(
        base_bytes,
        base,
        sets.get("forget"),
        sets.get("retain"),
        tuple(sorted(set(options.forget_class))),
        family,
        model,
    )


def _found(work: _Work, options: argparse.Namespace, progress: Progress) -> tuple[Patch, RepairResult | None]:
    """The patch of the family."""
    if work.family == "learned":
        return _trained(work, options, progress), None
    if work.forget is None:
        result = repair_class_cap(work.base.network, work.classes, work.model)
    else:
        result = repair_box(
            work.base.network,
            _rows(work.forget),
            _rows(work.retain),
            work.model,
            classes=work.classes,
            minimal=options.minimal,
            progress=progress,
        )
    bits = disclosed(result.patch, coordinates_of(work.base.network, result.patch))[1]
    if work.model.disclosure_bits is not None and bits > work.model.disclosure_bits:
        text = f"the patch would disclose {bits} bits of records, the budget is {work.model.disclosure_bits}"
        raise InfeasiblePatchError(text)
    return result.patch, result


def _trained(work: _Work, options: argparse.Namespace, progress: Progress) -> Patch:
    from prune_verify.repair.learned import LearnedThreatModel, train_learned_patch

    model, domain = work.model, work.model.domain
    if not domain.uniform:
        text = "--family learned needs one interval for all coordinates"
        raise RepairInputError(text)
    forget, retain = _rows(work.forget), _rows(work.retain)
    found = train_learned_patch(
        work.base.network,
        forget.x,
        forget.y,
        retain.x,
        LearnedThreatModel(
            radius=model.radius,
            retained_radius=model.retained_radius,
            margin=model.margin,
            delta=model.delta,
            domain=(float(domain.lower[0]), float(domain.upper[0])),
            hidden=max(24, 6 * len(forget.y)),
            seed=options.seed,
        ),
        progress=lambda _what, share: progress("training", int(1000 * share), 1000),
    )
    short = np.flatnonzero(found.forget_margins < float(model.margin))
    moved = np.flatnonzero(found.changes > float(model.delta))
    if len(short) or (len(moved) and options.strict):
        text = "training did not reach the threat model: a smaller radius or margin, or a larger delta, may help"
        raise InfeasiblePatchError(text, forget=short.tolist(), retain=moved.tolist())
    return found.patch


def _request(work: _Work, options: argparse.Namespace) -> Request:
    model, records = work.model, work.forget is not None
    claims: tuple[str, ...] = ("forget_class", "retain_other_labels") if work.classes else ()
    if work.family == "learned":
        claims = ("forget", "retain_close")
    elif records:
        label = () if work.classes else ("retain_label",)
        claims = ("forget", "retain_exact", *label, "locality", *claims)
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
        delta=model.delta if work.family == "learned" else None,
        claims=claims,
        arithmetics=model.arithmetics,
        encoding_sha256=None if work.forget is None else work.forget.encoding_sha256,
        membership_acceptance=model.membership_acceptance,
    )


def _writable(out: Path) -> None:
    """Refuse a folder that cannot be written before any work is done."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        text = f"--out {out}: expected a folder that can be written, got: {error.strerror}"
        raise RepairInputError(text) from None


def _write(out: Path, files: dict[str, bytes]) -> None:
    """Write all files or none: each under another name first."""
    with tempfile.TemporaryDirectory(prefix=".repair-", dir=out) as name:
        for file, data in files.items():
            (Path(name) / file).write_bytes(data)
        for file in files:
            os.replace(Path(name) / file, out / file)  # noqa: PTH105 - replaces, on every system


def _unused(options: argparse.Namespace) -> list[str]:
    """Record options that a class request accepts and does not need."""
    given = [name for name in _RECORD_OPTIONS if options.forget is None and getattr(options, name) is not None]
    return [f"--{name.replace('_', '-')}: not used by a class request" for name in given]


def _text(work: _Work, patch: Patch, result: RepairResult | None, out: Path) -> list[str]:
    """The result for a person."""
    model = work.model
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
    coordinates, bits = disclosed(patch, coordinates_of(work.base.network, patch))
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
    if work.classes:
        lines.append(f"classes never answered: {', '.join(str(c) for c in work.classes)}")
    if result is not None and result.conflicts:
        shown = ", ".join(str(i) for i in result.conflicts[:12]) + (", ..." if len(result.conflicts) > 12 else "")  # noqa: PLR2004 - a readable line
        lines.append(
            f"warning: {len(result.conflicts)} retained records are in conflict (inside a support): {shown}; "
            "the request wins, and the auditor's max_conflicts decides"
        )
    names = ", ".join(str(out / name) for name in ("patched.onnx", "patch.json", "request.json"))
    return [*lines, f"wrote {names}"]


def repair_command(options: argparse.Namespace, progress: Progress) -> tuple[int, str, dict[str, Json]]:
    """Run the verb.

    Returns:
        Exit code (0, or 3 under ``--strict`` with conflicts), text, and the object for ``--json``.

    Raises:
        CheckError: a file cannot be used.
        RepairError: the same, or no patch meets the threat model.

    """
    work = _read(options)
    _writable(options.out)
    patch, result = _found(work, options, progress)
    conflicts = () if result is None else result.conflicts
    request = _request(work, options)
    if conflicts and options.strict:
        text = "--strict: retained records are in conflict, and nothing was written"
        raise InfeasiblePatchError(text, retain=conflicts)
    files = {
        "patched.onnx": export_patched(work.base_bytes, work.base, patch),
        "patch.json": emit_patch(
            PatchFile(patch, work.base.network.digest(), conflicts), coordinates_of(work.base.network, patch)
        ),
        "request.json": emit_request(request),
    }
    _write(options.out, files)
    sizes = [] if result is None else [size.coordinates for size in result.sizes]
    notes = _unused(options)
    data: dict[str, Json] = {
        "family": patch.family,
        "gates": len(sizes),
        "coordinates": list(sizes),
        "lowerBounds": [] if result is None else [size.lower_bound for size in result.sizes],
        "conflicts": list(conflicts),
        "disclosedBits": disclosed(patch, coordinates_of(work.base.network, patch))[1],
        "secondsPerRequest": None if result is None or not sizes else f"{result.seconds / len(sizes):.6f}",
        "domain": domain_json(work.model.domain),
        "notes": list(notes),
    }
    return 0, "\n".join([*notes, *_text(work, patch, result, options.out)]), data
