"""``repair --stream`` and ``repair --onto DIR``: one request more, or some fewer, onto the patches of earlier ones.

Gates of earlier requests stay as they are; only records that no gate names get one, and an earlier gate is made anew
where it holds a later record of another label. The request that is written covers all live records, so that certify
proves all of them again on the final network.

Source: MATHS 4.4.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fractions import Fraction

import numpy as np

from prune_verify.checker.claim import LabelledRows
from prune_verify.checker.encoding import Json, read_file
from prune_verify.checker.load_onnx import LoadedModel, load_network
from prune_verify.checker.patch import JointPatch
from prune_verify.checker.patch_json import PatchFile, disclosed, emit_patch
from prune_verify.checker.rebuild import coordinates_of
from prune_verify.checker.records import Records
from prune_verify.checker.statement import MAX_REFERENCE
from prune_verify.checker.supersede import reference_of
from prune_verify.repair.asked_model import margin_note, with_margin_of_errors
from prune_verify.repair.budget import Budget, Growth, advice, measure_growth
from prune_verify.repair.engine import Standing, repair_class_cap
from prune_verify.repair.errors import InfeasiblePatchError, RepairInputError, Shortfall, named
from prune_verify.repair.export import export_patched
from prune_verify.repair.families import beyond_budget
from prune_verify.repair.interference import LiveRepair, repair_live
from prune_verify.repair.output import require_writable, write_files
from prune_verify.repair.stream import Hashes, LiveRequest, Stream
from prune_verify.repair.stream_input import (
    LIVE,
    MODEL,
    Live,
    begun,
    onto,
    read_records,
    require_options,
    retained,
    test_rows,
)
from prune_verify.repair.threat_model import ThreatModel, emit_threat_model
from prune_verify.request import Request, emit_request
from prune_verify.request_sets import fitted, require_files

__all__ = ["stream_command"]

Progress = Callable[[str, int, int], None]
_MOST_BYTES = 2**30
_RETAINED = "retain.npz"


@dataclass(frozen=True, eq=False)
class _Step:
    """One step of a stream, done.

    Args:
        stream: as it stands now.
        forget: the live forget set.
        found: the gates.
        growth: how large the patch is.
        seconds: of the whole step.
        bits: of records that the patch holds.
        next: options of certify for the sets.
        notes: further lines.

    """

    stream: Stream
    forget: LabelledRows
    found: LiveRepair
    growth: Growth
    seconds: float
    bits: int
    next: str
    notes: tuple[str, ...] = ()


def _changed(
    live: Live, new: LabelledRows | None, options: argparse.Namespace
) -> tuple[Stream, LabelledRows, JointPatch | None]:
    """The stream after withdrawals and with the new request."""
    stream, forget, patch = live.stream, live.forget, live.patch
    if options.withdraw:
        gates = () if patch is None else patch.gates
        stream, forget, gates = stream.without(options.withdraw, forget, gates)
        patch = None if patch is None else replace(patch, gates=gates)
    if new is not None or options.forget_class:
        none = LabelledRows(forget.x[:0], forget.y[:0])
        reference = options.reference or f"request {live.stream.repairs + 1}"
        at = datetime.now(UTC).replace(microsecond=0)
        request = LiveRequest(reference, at, (), tuple(sorted(set(options.forget_class))))
        stream, forget = stream.joined(forget, none if new is None else new, request)
    if not stream.requests:
        text = "--withdraw: no request would be left: deploy the base network itself"
        raise RepairInputError(text)
    return stream, forget, patch


def _repaired(
    base: LoadedModel,
    sets: tuple[LabelledRows, LabelledRows, Hashes],
    stream: Stream,
    live: Live,
    patch: JointPatch | None,
    minimal: float | None,
    progress: Progress,
) -> LiveRepair:
    """The patch of all live requests.

    Raises:
        InfeasiblePatchError: records of different labels that no coordinate keeps apart; the text names the requests.

    """
    forget, retain, hashes = sets
    if not len(forget.y):
        return LiveRepair(repair_class_cap(base.network, stream.classes, live.model))
    gates = () if patch is None else tuple(g for g in patch.gates if g.label not in stream.classes)
    found = repair_live(
        base.network,
        forget,
        retain,
        live.model,
        Standing(gates, stream.known(hashes)),
        classes=stream.classes,
        minimal=minimal,
        progress=progress,
    )
    if found.left:
        names = ", ".join(repr(one) for one in stream.references((*found.left, *found.between))[:12])
        text = (
            f"requests interfere: {names}: no coordinate keeps their records of different labels apart, so that on "
            "some forget balls no label would be left closed; a smaller radius may help, or withdraw one of them"
        )
        raise InfeasiblePatchError(text, forget=found.left)
    return found


def _require_met(options: argparse.Namespace, model: ThreatModel, base: LoadedModel, found: LiveRepair) -> None:
    """Refuse a patch that holds too much of the records, and under ``--strict`` one with conflicts.

    Raises:
        InfeasiblePatchError: the same.

    """
    short = beyond_budget(model, base.network, found.result.patch)
    if short:
        text = "the patch would hold more of the records than the threat model of the stream allows"
        raise InfeasiblePatchError(text, shortfalls=short)
    conflicts = found.result.conflicts
    if options.strict and conflicts:
        text = "--strict: retained records are in conflict, and nothing was written"
        asked = f"{float(model.retained_radius):g}"
        line = Shortfall("retained_radius", asked, "less, or a smaller radius", "retain", conflicts)
        raise InfeasiblePatchError(text, shortfalls=[line])


def stream_command(options: argparse.Namespace, progress: Progress) -> tuple[int, str, dict[str, Json]]:
    """Run the verb for a stream.

    Returns:
        Exit code 0, text, and the object for ``--json``.

    Raises:
        CheckError: a file cannot be used.
        RepairError: the same, or no patch meets the threat model.

    """
    start = time.monotonic()
    require_options(options)
    budget = Budget(options.most_patch_share, options.most_latency, options.most_hits)
    require_files([options.base, options.threat_model, options.encoding])
    base_bytes = read_file(options.base, "base network", _MOST_BYTES)
    base = load_network(base_bytes, str(options.base))
    sets = read_records(options)
    live = begun(options, base, sets) if options.onto is None else onto(options, base)
    sets = fitted(sets, base.network, live.model.domain, (live.model.radius, live.model.retained_radius))
    if options.onto is None:  # later requests have the margin of the first
        live = replace(live, model=with_margin_of_errors(live.model, base.network, _rows(sets, "retain")))
    test = test_rows(options, base, live.model)
    require_writable(options.out)
    new = _rows(sets, "forget")
    stream, forget, patch = _changed(live, new, options)
    retain = retained(sets, forget)
    hashes = stream.hashes(retain)
    found = _repaired(base, (forget, retain, hashes), stream, live, patch, options.minimal, progress)
    _require_met(options, live.model, base, found)
    result = found.result
    patched = export_patched(base_bytes, base, result.patch)
    seconds = time.monotonic() - start
    stream = replace(
        stream.with_checked(hashes, result.conflicts),
        seconds=stream.seconds + Fraction(round(1000 * seconds), 1000),
        proved=stream.proved + Fraction(round(1000 * (options.prove_seconds or 0)), 1000),
        repairs=stream.repairs + 1,
    )
    count = coordinates_of(base.network, result.patch)
    files = {
        "patched.onnx": patched,
        "patch.json": emit_patch(PatchFile(result.patch, base.network.digest(), result.conflicts), count),
        "request.json": emit_request(_request(stream, live.model, base, forget)),
        MODEL: emit_threat_model(live.model).encode(),
        **stream.write(),
        **_written_sets(options, forget, retain),
    }
    rows = retain.x if len(retain.y) else np.zeros((1, *base.network.input_shape), dtype=np.float32)
    growth = replace(
        measure_growth(base_bytes, patched, rows, test, result.patch.allowed),
        retained_hits=len(result.conflicts) / len(retain.y) if len(retain.y) else None,
        repair_seconds=float(stream.seconds),
        prove_seconds=float(stream.proved) or None,
        retrain_seconds=options.retrain_seconds,
    )
    write_files(options.out, files)
    if LIVE not in files and options.onto is not None and options.onto.resolve() == options.out.resolve():
        (options.out / LIVE).unlink(missing_ok=True)  # the records of an earlier step in the same folder
    told = [f"--{name.removesuffix('.npz')} {options.out / name}" for name in (LIVE, _RETAINED) if name in files]
    bits = disclosed(result.patch, count)[1]
    notes = margin_note(live.model) if options.onto is None else ()
    return 0, *_said(options, _Step(stream, forget, found, growth, seconds, bits, " ".join(told), notes), budget)


def _rows(sets: Mapping[str, Records], which: str) -> LabelledRows | None:
    return None if which not in sets else LabelledRows(sets[which].x, sets[which].y)


def _written_sets(options: argparse.Namespace, forget: LabelledRows, retain: LabelledRows) -> dict[str, bytes]:
    """The live forget set, and of encoded tables the retained one as well: certify takes both in one form."""
    files = {} if not len(forget.y) else {LIVE: _npz(forget)}
    if files and options.encoding is not None:
        files[_RETAINED] = _npz(retain)
    return files


def _request(stream: Stream, model: ThreatModel, base: LoadedModel, forget: LabelledRows) -> Request:
    """One request that covers all live ones."""
    records, last = len(forget.y) > 0, stream.requests[-1]
    label = () if stream.classes else ("retain_label",)
    claims: tuple[str, ...] = ("forget", "retain_exact", *label, "locality") if records else ()
    claims += ("forget_class", "retain_other_labels") if stream.classes else ()
    kind = "records+class" if records and stream.classes else "records" if records else "class"
    return Request(
        kind=kind,
        reference=_reference(stream),
        received_at=last.received_at,
        labels=base.network.labels,
        classes=stream.classes,
        domain=model.domain,
        radius=model.radius if records else None,
        retained_radius=model.retained_radius if records else None,
        margin=model.margin,
        cover=model.cover,
        delta=None,
        claims=claims,
        arithmetics=model.arithmetics,
        membership_acceptance=model.membership_acceptance,
    )


def _reference(stream: Stream) -> str:
    """The references of all live requests, in the one of the request that covers them.

    Raises:
        RepairInputError: together they are too long for a certificate.

    """
    found = reference_of(tuple(one.reference for one in stream.requests))
    if len(found) > MAX_REFERENCE:
        text = f"--reference: {len(stream.requests)} live requests have references of {len(found)} characters together"
        raise RepairInputError(f"{text}; a certificate lists them all, in at most {MAX_REFERENCE}")
    return found


def _npz(rows: LabelledRows) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=rows.x, y=rows.y)
    return buffer.getvalue()


def _said(options: argparse.Namespace, step: _Step, budget: Budget) -> tuple[str, dict[str, Json]]:
    """Text and the object for ``--json``."""
    stream, result, growth = step.stream, step.found.result, step.growth
    over, gates, records = advice(growth, budget), len(result.patch.gates), len(step.forget.y)
    live = f"{len(stream.requests)} live requests, {records} records, {gates} gates, {len(stream.classes)} classes"
    took = f"this run {step.seconds:.2f} s ({result.seconds:.3f} s on gates), {float(stream.seconds):.2f} s so far"
    size = f"the patch adds {100 * growth.patch_share:.3g} % to the base's bytes and holds {step.bits} bits of records"
    lines = [*step.notes, f"{live}; {took}", f"{size}; latency {growth.latency_factor:.2f} times the base's"]
    remade = stream.references(step.found.remade)
    if remade:
        names = ", ".join(repr(one) for one in remade[:12])
        lines.append(f"gates made anew, because they held a later record of another label: those of {names}")
    if result.conflicts:
        lines.append(f"warning: {len(result.conflicts)} retained records are in conflict: {named(result.conflicts)}")
    lines += [*over, *([f"next: certify with {step.next}"] if step.next else []), f"wrote {options.out}"]
    data: dict[str, Json] = {
        "family": result.patch.family,
        "requests": [one.reference for one in stream.requests],
        "records": records,
        "gates": gates,
        "classes": list(stream.classes),
        "conflicts": list(result.conflicts),
        "remade": list(remade),
        "disclosedBits": step.bits,
        "seconds": f"{step.seconds:.6f}",
        "gateSeconds": f"{result.seconds:.6f}",
        "growth": growth.plain(),
        "timeToRetrain": bool(over),
        "advice": list(over),
    }
    return "\n".join(lines), data
