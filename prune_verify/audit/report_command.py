"""The report of one ``verify`` run: reads the files that were checked once more and fills the report's fields.

Source: FORMATS 3 (``verify --report``).
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from prune_verify.audit.learning import learning_rows
from prune_verify.audit.report import write_report
from prune_verify.audit.report_data import ReportData, report_data_from_files
from prune_verify.audit.report_json import write_report_json
from prune_verify.audit.report_measured import ShownMeasurement, beside, shown_measurements
from prune_verify.audit.report_values import items_of, predicate
from prune_verify.checker.claim import LabelledRows
from prune_verify.checker.encoding import read_file, sha256_hex
from prune_verify.checker.envelope import parse_envelope
from prune_verify.checker.errors import CheckError
from prune_verify.checker.records import load_records
from prune_verify.checker.verdict import Verdict
from prune_verify.measurement_file import MOST_BYTES

__all__ = ["report_of_verification"]

_MOST_BYTES = 2**30


def _bytes(path: Path) -> bytes:
    try:
        return read_file(path, "file of the report", _MOST_BYTES)
    except CheckError:
        return b""


def _rows(spec: str | None, options: argparse.Namespace) -> LabelledRows | None:
    if spec is None:
        return None
    try:
        found = load_records(spec, what="records", label_column=options.label_column, encoding=options.encoding)
    except CheckError:
        return None
    return LabelledRows(found.x, found.y)


def _signed(certificate: Path, verdict: Verdict) -> tuple[bytes | None, tuple[str, ...]]:
    """What a trusted key has signed, for only that is shown as the owner's words; and why there is none."""
    if not verdict.payload_sha256:
        return None, ()
    try:
        payload = parse_envelope(_bytes(certificate), certificate.name).payload
    except CheckError:
        payload = b""
    if sha256_hex(payload) != verdict.payload_sha256:
        return None, ("the certificate is no longer the file that was checked, so its statements are not shown",)
    return payload, ()


def _measured(data: ReportData, certificate: Path, given: Sequence[Path]) -> tuple[ShownMeasurement, ...]:
    """The measurement files beside the certificate, and those that were given.

    Raises:
        CheckError: one that was given cannot be read.

    """
    stated = items_of(predicate(data).get("measurements"))
    found = [(path, _bytes(path)) for path in beside(certificate, stated)]
    found += [(path, read_file(path, "measurement", MOST_BYTES)) for path in given]
    return shown_measurements([(path.name, data) for path, data in found], stated)


def report_of_verification(verdict: Verdict, options: argparse.Namespace) -> None:
    """Write the report of a verification, for people (``report``) and as data (``report_json``).

    Args:
        verdict: of the checker.
        options: the arguments of ``verify``; ``test``: held-out records for the before-and-after table; ``learning``:
            the learning curves of a learned patch; ``measurements``: measurement files.

    Raises:
        OSError: the file cannot be written.
        CheckError: the learning curves are not of their form, or a measurement file cannot be read.

    """
    certificate: Path = options.certificate
    evidence: Path = options.evidence or certificate.parent / "evidence"
    payload, notes = _signed(certificate, verdict)
    named = {
        "--base": options.base,
        "--patched": options.patched,
        "--trust": options.trust,
        "--policy": options.policy,
        "--evidence": options.evidence,
        "--openings": options.openings,
        "--forget": options.forget,
        "--retain": options.retain,
        "--commitment": options.commitment,
        "--label-column": options.label_column,
        "--encoding": options.encoding,
        "--challenge": options.challenge,
        "--at-time": options.at_time,
        "--resolve-smt": options.resolve_smt,
    }
    words = ["python", "-P", "-m", "prune_verify.checker", "verify", str(certificate)]
    for name, value in named.items():
        words += [] if value is None else [name, str(value)]
    for receipt in options.receipt:
        words += ["--receipt", str(receipt)]
    words += ["--exact"] if options.exact else []
    data = report_data_from_files(
        verdict,
        _bytes(options.base),
        _bytes(options.patched),
        payload,
        _bytes(evidence / "patch.json") or None,
        _rows(options.forget, options),
        _rows(options.retain, options),
        _rows(options.test, options),
        shlex.join(words),
    )
    data = replace(data, notes=(*notes, *data.notes))
    if options.learning is not None:
        data = replace(data, learning=learning_rows(_bytes(options.learning), options.learning.name))
    data = replace(data, measured=_measured(data, certificate, options.measurements))
    if options.report is not None:
        write_report(options.report, data)
    if options.report_json is not None:
        write_report_json(options.report_json, data)
