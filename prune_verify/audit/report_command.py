"""The report of one ``verify`` run: reads the files that were checked once more and fills the report's fields.

Source: FORMATS 3 (``verify --report``).
"""

from __future__ import annotations

import argparse
import shlex
from dataclasses import replace
from pathlib import Path

from prune_verify.audit.learning import learning_rows
from prune_verify.audit.report import write_report
from prune_verify.audit.report_data import report_data_from_files
from prune_verify.checker.claim import LabelledRows
from prune_verify.checker.encoding import read_file
from prune_verify.checker.envelope import parse_envelope
from prune_verify.checker.errors import CheckError
from prune_verify.checker.records import load_records
from prune_verify.checker.verdict import Verdict

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


def report_of_verification(path: Path, verdict: Verdict, options: argparse.Namespace) -> None:
    """Write the report of a verification.

    Args:
        path: the HTML file.
        verdict: of the checker.
        options: the arguments of ``verify``; ``test``: held-out records for the before-and-after table; ``learning``:
            the learning curves of a learned patch.

    Raises:
        OSError: the file cannot be written.
        CheckError: the learning curves are not of their form.

    """
    certificate: Path = options.certificate
    evidence: Path = options.evidence or certificate.parent / "evidence"
    payload: bytes | None = None
    if verdict.payload_sha256:  # only what a trusted key has signed is shown as the owner's words
        payload = parse_envelope(_bytes(certificate), certificate.name).payload
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
    }
    words = ["python", "-m", "prune_verify.checker", "verify", str(certificate)]
    for name, value in named.items():
        words += [] if value is None else [name, str(value)]
    for receipt in options.receipt:
        words += ["--receipt", str(receipt)]
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
    if options.learning is not None:
        data = replace(data, learning=learning_rows(_bytes(options.learning), options.learning.name))
    write_report(path, data)
