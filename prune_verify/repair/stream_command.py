"""``repair --stream`` and ``repair --onto DIR``: one request more, or some fewer, onto the patches of earlier ones.

Gates of earlier requests stay as they are; only records that no gate names get one. The request that is written
covers all live records, so that certify proves all of them again on the final network.

Source: MATHS 4.4.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import numpy as np

from prune_verify.checker.claim import LabelledRows
from prune_verify.checker.encoding import Json, read_file
from prune_verify.checker.load_onnx import LoadedModel, load_network
from prune_verify.checker.patch import INPUT, JointPatch
from prune_verify.checker.patch_json import PatchFile, disclosed, emit_patch, parse_patch
from prune_verify.checker.rebuild import coordinates_of
from prune_verify.checker.records import Records, check_against, load_records
from prune_verify.repair.budget import Budget, Growth, advice, measure_growth
from prune_verify.repair.engine import RepairResult, Standing, repair_box, repair_class_cap
from prune_verify.repair.errors import RepairInputError, named
from prune_verify.repair.export import export_patched
from prune_verify.repair.output import require_writable, write_files
from prune_verify.repair.stream import LiveRequest, Stream
from prune_verify.repair.threat_model import (
    ThreatModel,
    default_threat_model,
    emit_threat_model,
    load_threat_model,
)
from prune_verify.request import Request, emit_request
from prune_verify.request_sets import amounts_of, domain_of, fitted, read_sets, require_files

__all__ = ["stream_command"]

Progress = Callable[[str, int, int], None]
_MOST_BYTES = 2**30
_LIVE, _MODEL = "forget.npz", "threat-model.toml"
_FIXED = ("radius", "retained_radius", "margin", "delta", "cover", "threat_model", "domain", "redirect")


@dataclass(frozen=True, eq=False)
class _Live:
    """The stream as it stands before this run."""

    stream: Stream
    forget: LabelledRows
    patch: JointPatch | None
    model: ThreatModel


def _require_options(options: argparse.Namespace) -> None:
    """Refuse what a stream does not know.

    Raises:
        RepairInputError: another family than boxes at the input and class caps, or options that stand already.

    """
    other = options.family not in ("auto", "box", "class-cap")
    if other or options.site not in (None, ["input"]) or options.shifts or options.redirect == "non-member":
        text = "--stream, --onto: streams are of gates at the input and of classes: other families make a patch alone"
        raise RepairInputError(text)
    if options.onto is None:
        return
    given = [f"--{name.replace('_', '-')}" for name in _FIXED if getattr(options, name) is not None]
    if given:
        text = f"{given[0]}: the threat model of a stream is fixed when it begins, in {options.onto / _MODEL}"
        raise RepairInputError(text)
    if options.forget is None and not options.forget_class and not options.withdraw:
        text = "--onto: give --forget RECORDS, --forget-class C or --withdraw REFERENCE"
        raise RepairInputError(text)


def _onto(options: argparse.Namespace, base: LoadedModel) -> _Live:
    """What a folder of the stream holds, checked against the base."""
    folder: Path = options.onto
    stream = Stream.read(folder)
    digest = base.network.digest()
    if stream.base != digest:
        text = f"{folder}: expected a stream of the base {options.base} ({digest}), found one of {stream.base}"
        raise RepairInputError(text)
    model = load_threat_model(folder / _MODEL, default_threat_model(domain_of("0,1", [])))
    file = parse_patch(read_file(folder / "patch.json", "patch parameters", _MOST_BYTES), str(folder / "patch.json"))
    if not isinstance(file.patch, JointPatch) or file.patch.sites != (INPUT,) or file.patch.holds:
        text = f"{folder / 'patch.json'}: expected gates at the input or a class cap, found family {file.patch.family}"
        raise RepairInputError(text)
    empty = np.zeros((0, *base.network.input_shape), dtype=np.float32)
    live = LabelledRows(empty, np.zeros(0, dtype=np.int64))
    if any(request.records for request in stream.requests):
        records = load_records(str(folder / _LIVE), what="live forget set")
        records = check_against(
            records,
            input_shape=base.network.input_shape,
            labels=base.network.labels,
            domain=model.domain,
            what="live forget set",
        )
        live = LabelledRows(records.x, records.y)
    most = max((record for request in stream.requests for record in request.records), default=-1)
    named_most = max((record for gate in file.patch.gates for record in gate.records), default=-1)
    if max(most, named_most) >= len(live.y):
        text = f"{folder}: expected records below {len(live.y)}, found {max(most, named_most)}: files of two streams"
        raise RepairInputError(text)
    return _Live(stream, live, file.patch, model)


def _begun(options: argparse.Namespace, base: LoadedModel, sets: dict[str, Records]) -> _Live:
    """A new stream, with the threat model that all of its requests will have."""
    model = default_threat_model(domain_of(options.domain, list(sets.values())))
    if options.threat_model is not None:
        model = load_threat_model(options.threat_model, model)
    if options.cover is not None:
        model = replace(model, cover=options.cover)
    model = replace(model, **amounts_of(options))  # type: ignore[arg-type] # all of them are amounts
    empty = np.zeros((0, *base.network.input_shape), dtype=np.float32)
    live = LabelledRows(empty, np.zeros(0, dtype=np.int64))
    return _Live(Stream.begun(base.network.digest()), live, None, model)


def _changed(
    live: _Live, new: LabelledRows | None, options: argparse.Namespace
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
    base: LoadedModel, retain: LabelledRows, forget: LabelledRows, stream: Stream, live: _Live, patch: JointPatch | None
) -> Callable[[Progress], RepairResult]:
    if not len(forget.y):
        return lambda _progress: repair_class_cap(base.network, stream.classes, live.model)
    gates = () if patch is None else tuple(g for g in patch.gates if g.label not in stream.classes)
    standing = Standing(gates, stream.known(retain))
    return lambda progress: repair_box(
        base.network, forget, retain, live.model, classes=stream.classes, standing=standing, progress=progress
    )


def stream_command(options: argparse.Namespace, progress: Progress) -> tuple[int, str, dict[str, Json]]:
    """Run the verb for a stream.

    Returns:
        Exit code 0, text, and the object for ``--json``.

    Raises:
        CheckError: a file cannot be used.
        RepairError: the same, or no patch meets the threat model.

    """
    _require_options(options)
    require_files([options.base, options.threat_model, options.encoding])
    base_bytes = read_file(options.base, "base network", _MOST_BYTES)
    base = load_network(base_bytes, str(options.base))
    sets = _read_sets(options)
    live = _begun(options, base, sets) if options.onto is None else _onto(options, base)
    sets = fitted(sets, base.network, live.model.domain, (live.model.radius, live.model.retained_radius))
    require_writable(options.out)
    new = None if "forget" not in sets else LabelledRows(sets["forget"].x, sets["forget"].y)
    stream, forget, patch = _changed(live, new, options)
    retain = _retained(sets, forget)
    result = _repaired(base, retain, forget, stream, live, patch)(progress)
    stream = replace(
        stream.with_checked(retain, result.conflicts),
        seconds=stream.seconds + Fraction(round(1000 * result.seconds), 1000),
        repairs=stream.repairs + 1,
    )
    patched = export_patched(base_bytes, base, result.patch)
    count = coordinates_of(base.network, result.patch)
    files = {
        "patched.onnx": patched,
        "patch.json": emit_patch(PatchFile(result.patch, base.network.digest(), result.conflicts), count),
        "request.json": emit_request(_request(stream, live.model, base, forget)),
        _MODEL: emit_threat_model(live.model).encode(),
        **stream.write(),
    }
    if len(forget.y):
        files[_LIVE] = _npz(forget)
    write_files(options.out, files)
    growth = _growth(options, base_bytes, patched, retain, stream, base)
    return 0, *_said(options, stream, result, forget, growth, disclosed(result.patch, count)[1])


def _read_sets(options: argparse.Namespace) -> dict[str, Records]:
    """The new records, where there are any, and the retained ones."""
    found = read_sets(options)
    if options.forget is None and options.retain is not None:
        what = "retain set"
        found["retain"] = load_records(
            options.retain, what=what, label_column=options.label_column, encoding=options.encoding
        )
    return found


def _retained(sets: dict[str, Records], forget: LabelledRows) -> LabelledRows:
    """The retained set, which holds no live forget record.

    Raises:
        RepairInputError: it is missing where there are gates, or holds one.

    """
    if "retain" not in sets:
        if len(forget.y):
            text = "--retain: the records that must stay as they are, are needed"
            raise RepairInputError(text)
        return forget
    retain = LabelledRows(sets["retain"].x, sets["retain"].y)
    gone = {row.tobytes() for row in forget.flat()}
    both = [i for i, row in enumerate(retain.flat()) if row.tobytes() in gone]
    if both:
        text = f"{sets['retain'].source}: records {named(both)} are to be forgotten by a live request; take them out"
        raise RepairInputError(text)
    return retain


def _request(stream: Stream, model: ThreatModel, base: LoadedModel, forget: LabelledRows) -> Request:
    """One request that covers all live ones."""
    records, last = len(forget.y) > 0, stream.requests[-1]
    label = () if stream.classes else ("retain_label",)
    claims: tuple[str, ...] = ("forget", "retain_exact", *label, "locality") if records else ()
    claims += ("forget_class", "retain_other_labels") if stream.classes else ()
    kind = "records+class" if records and stream.classes else "records" if records else "class"
    count = len(stream.requests)
    return Request(
        kind=kind,
        reference=last.reference if count == 1 else f"{count} live requests, the last one {last.reference}",
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


def _npz(rows: LabelledRows) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=rows.x, y=rows.y)
    return buffer.getvalue()


def _growth(
    options: argparse.Namespace,
    base_bytes: bytes,
    patched: bytes,
    retain: LabelledRows,
    stream: Stream,
    base: LoadedModel,
) -> Growth:
    test = None
    if options.test is not None:
        found = load_records(
            options.test, what="test rows", label_column=options.label_column, encoding=options.encoding
        )
        shape = (len(found), *base.network.input_shape)
        test = np.ascontiguousarray(found.x.reshape(shape))
    rows = retain.x if len(retain.y) else np.zeros((1, *base.network.input_shape), dtype=np.float32)
    return replace(
        measure_growth(base_bytes, patched, rows, test),
        repair_seconds=float(stream.seconds),
        prove_seconds=options.prove_seconds,
        retrain_seconds=options.retrain_seconds,
    )


def _said(
    options: argparse.Namespace, stream: Stream, result: RepairResult, forget: LabelledRows, growth: Growth, bits: int
) -> tuple[str, dict[str, Json]]:
    """Text and the object for ``--json``."""
    budget = Budget(options.most_patch_share, options.most_latency, options.most_hits)
    over = advice(growth, budget)
    gates = len(result.patch.gates)
    live = (
        f"{len(stream.requests)} live requests, {len(forget.y)} records, {gates} gates, {len(stream.classes)} classes"
    )
    took = f"this run {result.seconds:.3f} s on gates, {float(stream.seconds):.3f} s so far"
    size = f"the patch adds {100 * growth.patch_share:.3g} % to the base's bytes and holds {bits} bits of records"
    lines = [f"{live}; {took}", f"{size}; latency {growth.latency_factor:.2f} times the base's"]
    if result.conflicts:
        lines.append(f"warning: {len(result.conflicts)} retained records are in conflict: {named(result.conflicts)}")
    lines += [*over, f"next: certify with --forget {options.out / _LIVE}", f"wrote {options.out}"]
    data: dict[str, Json] = {
        "family": result.patch.family,
        "requests": [one.reference for one in stream.requests],
        "records": len(forget.y),
        "gates": gates,
        "classes": list(stream.classes),
        "conflicts": list(result.conflicts),
        "disclosedBits": bits,
        "seconds": f"{result.seconds:.6f}",
        "growth": growth.plain(),
        "timeToRetrain": bool(over),
        "advice": list(over),
    }
    return "\n".join(lines), data
