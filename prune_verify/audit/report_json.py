"""The report as data: what the HTML shows, in full and in the same order, for programs.

Numbers that are no integers are decimals in strings, written as the HTML writes them; text is escaped to ASCII, so that
a terminal shows nothing that the file hides. The form is certs/schema/report.schema.json.

Source: FORMATS 3 (``verify --report``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from prune_verify import __version__
from prune_verify.audit import wording
from prune_verify.audit.pictures import edge_words
from prune_verify.audit.report_claims import stated_claims
from prune_verify.audit.report_data import Accuracy, PatchSummary, PicturedRecord, ReportData
from prune_verify.audit.report_evidence import change_in_points, record_result
from prune_verify.audit.report_measured import ShownMeasurement
from prune_verify.audit.report_risk import risks_of
from prune_verify.audit.report_scope import validity_of
from prune_verify.audit.report_values import items_of, predicate, radii
from prune_verify.checker.encoding import parse_json
from prune_verify.checker.verdict import ClaimVerdict
from prune_verify.files import replace_file
from prune_verify.measurement_file import emit_measurement

__all__ = ["REPORT_FORMAT", "report_json", "write_report_json"]

REPORT_FORMAT = "prune-verify-report/1"
_MOST_DEPTH = 40
_LARGE = 2**64


def _plain(value: object, depth: int = 0) -> object:
    """A value of the certificate as JSON: bounded in depth, and its integers in size."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return value if abs(value) < _LARGE else "a number too large to show"
    if depth >= _MOST_DEPTH:
        return "nested too deep to show"
    if isinstance(value, Mapping):
        return {str(k): _plain(v, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v, depth + 1) for v in value]
    return str(value)


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.7g}"


def _claim(claim: ClaimVerdict, stated: dict[str, object]) -> dict[str, object]:
    method = stated.get("method")
    return {
        "id": claim.id,
        "kind": claim.kind,
        "heading": wording.heading_of(claim.kind),
        "sentence": wording.claim_sentence(claim.kind, stated),
        "region": claim.region,
        "regionWords": wording.region_words(claim.region),
        "arithmetic": claim.arithmetic,
        "arithmeticWords": wording.arithmetic_words(claim.arithmetic),
        "method": None if method is None else str(method),
        "methodWords": "method not stated" if method is None else wording.method_words(str(method)),
        "outcome": wording.outcome_words(claim)[1],
        "total": claim.total,
        "proved": claim.proved,
        "unknown": claim.unknown,
        "conflict": claim.conflict,
        "refuted": claim.refuted,
        "alreadyWrong": claim.already_wrong,
    }


def _accuracy(row: Accuracy) -> dict[str, object]:
    return {
        "set": row.name,
        "rows": row.count,
        "before": row.before,
        "beforePercent": wording.percent(row.before, row.count),
        "after": row.after,
        "afterPercent": wording.percent(row.after, row.count),
        "changeInPoints": change_in_points(row),
    }


def _record(record: PicturedRecord, shape: tuple[int, int] | None) -> dict[str, object]:
    return {
        "index": record.index,
        "label": record.label,
        "base": record.base_answer,
        "patched": record.patched_answer,
        "result": record_result(record)[1],
        "gate": [
            {
                "coordinate": i.coordinate,
                "low": _number(None if i.low is None else float(i.low)),
                "high": _number(None if i.high is None else float(i.high)),
                "words": edge_words(i, shape),
            }
            for i in record.intervals
        ],
    }


def _patch(patch: PatchSummary | None) -> dict[str, object] | None:
    if patch is None:
        return None
    return {
        "family": patch.family,
        "labels": patch.labels,
        "inputSize": patch.input_size,
        "forgottenClasses": list(patch.forgotten_classes),
        "margin": _number(patch.tau),
        "lift": _number(patch.slack),
        "drop": _number(patch.shift),
        "gates": len(patch.coordinates),
        "coordinates": list(patch.coordinates),
        "coordinatesMedian": f"{patch.coordinates_median:g}",
        "coordinatesTotal": sum(patch.coordinates),
        "disclosedBits": patch.disclosed_bits,
        "layers": [list(pair) for pair in patch.layers],
        "conflicts": list(patch.conflicts),
    }


def _measured(item: ShownMeasurement) -> dict[str, object]:
    """A measurement file; its numbers are those of the file, and null where nothing of it is shown."""
    found = item.found
    return {
        "name": item.name,
        "sha256": item.sha256,
        "problem": item.problem or None,
        "measurement": None if found is None else parse_json(emit_measurement(found), item.name),
    }


def report_json(data: ReportData) -> dict[str, object]:
    """What the report shows, as data.

    Args:
        data: as :func:`prune_verify.audit.report.render_report` takes it.

    Returns:
        A JSON object; the same data give the same object, member for member.

    """
    stated, verdict, claims = predicate(data), data.verdict, stated_claims(data)
    why = wording.reason(verdict)
    shape = data.picture_shape
    return {
        "format": REPORT_FORMAT,
        "title": data.title,
        "created": data.created,
        "tool": {"name": "prune-verify", "version": __version__},
        "verdict": {
            **verdict.to_json(),
            "line": verdict.line(),
            "sentence": wording.VERDICT_SENTENCES.get(verdict.word, ""),
            "reason": None if why is None else f"{wording.code_sentence(why.code)} {why.name}: {why.detail}".strip(),
            "digests": dict(verdict.digests),
        },
        "signed": bool(verdict.payload_sha256),
        "files": [{"name": f.name, "sha256": f.sha256, "bytes": f.size} for f in data.files],
        "scope": {
            "forgetRadii": radii(data, ("forget", "band")),
            "retainRadii": radii(data, ("retain_exact", "retain_label", "retain_close")),
            **{name: _plain(stated.get(name)) for name in ("request", "semantics", "forgetSet", "retainSet")},
        },
        "claims": [_claim(claim, claims.get(claim.id, {})) for claim in verdict.claims],
        "risks": [{"risk": r.name, "size": r.size, "advice": r.advice, "bounded": r.bounded} for r in risks_of(data)],
        "unsaid": {"always": list(wording.ALWAYS_UNSAID), "stated": _plain(items_of(stated.get("nonClaims")))},
        "validity": list(validity_of(data)),
        "again": data.command,
        "measurements": _plain(items_of(stated.get("measurements"))),
        "measurementFiles": [_measured(item) for item in data.measured],
        "records": {
            "total": data.records_total,
            "shown": [_record(record, shape) for record in data.records],
            "picture": None if shape is None else {"height": shape[0], "width": shape[1]},
            "black": f"{data.pixel_range[0]:g}",
            "white": f"{data.pixel_range[1]:g}",
        },
        "answers": [_accuracy(row) for row in data.accuracies],
        "patch": _patch(data.patch),
        "learning": [
            {
                "step": row.step,
                "phase": row.phase,
                "margin": _number(row.margin),
                "forgotten": _number(row.forgotten),
                "within": _number(row.within),
            }
            for row in data.learning
        ],
        "notes": list(data.notes),
        "statement": _plain(data.statement),
    }


def write_report_json(path: Path, data: ReportData) -> None:
    """Write the report as data; a reader finds the whole file or none, also after an interruption.

    Args:
        path: the file to write or replace.
        data: what it holds.

    Raises:
        OSError: the folder is missing or not writable.

    """
    replace_file(path, (json.dumps(report_json(data), indent=1, allow_nan=False) + "\n").encode("ascii"))
