"""``prune-verify certify``: from files to a statement that the checker accepts.

Source: FORMATS section 3.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path

from prune_verify.certify.claims import Decided
from prune_verify.certify.committed import Committed, committed_sets
from prune_verify.certify.elaborate import Effort
from prune_verify.certify.engines import engine_of
from prune_verify.certify.errors import CertifyInputError
from prune_verify.certify.issue import Issued, Sources, issue
from prune_verify.certify.measured import FOLDER, measured_files
from prune_verify.certify.settle import Limits
from prune_verify.certify.supersede import superseded
from prune_verify.checker.__main__ import challenge_of
from prune_verify.checker.encoding import read_file
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.records import Records, check_against, load_records
from prune_verify.measurement_file import MOST_ROWS
from prune_verify.request import Request, parse_request

__all__ = ["certify_command", "read_sources"]

Progress = Callable[[str, int, int], None]
_MOST_BYTES = 2**30
_SHOWN = 3


def _records(options: argparse.Namespace, request: Request, shape: tuple[int, ...], which: str) -> Records | None:
    """A set as the request needs it, or None for a class request without data."""
    spec = getattr(options, which)
    if spec is None:
        if "records" in request.kind:
            text = f"--{which}: the request forgets records, so its {which} set is needed"
            raise CertifyInputError(text)
        return None
    found = load_records(spec, what=f"{which} set", label_column=options.label_column, encoding=options.encoding)
    if found.encoding_sha256 != request.encoding_sha256:
        expected, got = request.encoding_sha256, found.encoding_sha256
        text = f"{spec}: its encoding is not the request's: expected {expected}, got {got}"
        raise CertifyInputError(text)
    return check_against(found, input_shape=shape, labels=request.labels, domain=request.domain, what=f"{which} set")


def read_sources(options: argparse.Namespace) -> Sources:
    """The files that a verb names: base, patched, request, patch and sets.

    Raises:
        CheckError: a file cannot be used.
        CertifyInputError: a file is missing, or a set is not the request's.

    """
    for path in (options.base, options.patched, options.request):
        if not path.is_file():
            text = f"no file {path}"
            raise CertifyInputError(text)
    request_bytes = read_file(options.request, "request", 2**26)
    request = parse_request(request_bytes, options.request.name)
    base_bytes = read_file(options.base, "base network", _MOST_BYTES)
    shape = load_network(base_bytes, options.base.name).network.input_shape
    patch = options.patch or options.patched.with_name("patch.json")
    if options.patch is not None and not options.patch.is_file():
        text = f"--patch: no file {options.patch}"
        raise CertifyInputError(text)
    arguments: list[str] = []
    for name in ("forget", "retain"):
        if getattr(options, name) is not None:
            arguments += [f"--{name}", getattr(options, name)]
    if options.label_column is not None:
        arguments += ["--label-column", options.label_column]
    if options.encoding is not None:
        arguments += ["--encoding", str(options.encoding)]
    return Sources(
        base=options.base,
        patched=options.patched,
        base_bytes=base_bytes,
        patched_bytes=read_file(options.patched, "patched network", _MOST_BYTES),
        request=request,
        request_bytes=request_bytes,
        patch_bytes=read_file(patch, "patch parameters", 2**28) if patch.is_file() else None,
        forget=_records(options, request, shape, "forget"),
        retain=_records(options, request, shape, "retain"),
        arguments=tuple(arguments),
    )


def _some(places: Sequence[int]) -> str:
    return ", ".join(str(place) for place in places[:_SHOWN]) + (", ..." if len(places) > _SHOWN else "")


def _text(issued: Issued, out: Path, committed: Committed | None) -> str:
    """The result for a person."""
    lines = []
    for item in issued.decided:
        claim, outcome = item.claim, item.outcome
        line = (
            f"{item.id} {claim.kind} ({claim.arithmetic}, {claim.method}): {outcome.proved} of {outcome.total} proved"
        )
        for name, values in (("in conflict", outcome.conflicts), ("unknown", outcome.unknowns)):
            if values:
                shown = ", ".join(str(v) for v in values[:12]) + (", ..." if len(values) > 12 else "")  # noqa: PLR2004 - a readable line
                line += f", {len(values)} {name} ({shown})"
        refuted = [str(r.point.record) for r in issued.refuted if r.claim == item.id]
        if refuted:
            shown = ", ".join(refuted[:12]) + (", ..." if len(refuted) > 12 else "")  # noqa: PLR2004 - a readable line
            line += f"; {len(refuted)} of these refuted ({shown})"
        if outcome.already_wrong:
            line += f", {len(outcome.already_wrong)} answered wrongly by the base already"
        lines += [line, *_reasons(item, {int(record) for record in refuted})]
    if issued.cross is not None:
        lines.append(
            f"auto_LiRPA finds the same margin on {len(issued.cross.records)} forget balls, "
            f"within {100 * max(issued.cross.worst, 0.0):.2f} % of tau = {issued.cross.tau:.6g}"
        )
    if committed is not None:
        twins = committed.opening.twins
        more = f", but for {len(twins)} twins of forgotten records ({_some([i for i, _ in twins])})" if twins else ""
        lines.append(f"forget and retained set are the committed training set{more}")
    if issued.measured.files:
        count, files = len(issued.measured.entries), len(issued.measured.files)
        lines.append(f"{count} measured numbers of {files} files, not proved, copied to {out / FOLDER}/")
    if issued.refuted:
        lines.append(f"counterexamples, confirmed by onnxruntime: {out / 'counterexamples'}/")
    lines += [
        f"the checker, in a process of its own, answers {issued.verdict['verdict']}",
        f"wrote {issued.statement}, {out / 'evidence'}/ and {out / 'openings.json'} (confidential)",
        f"next: prune-verify sign {issued.statement} --key OWNER.key --out {out / 'NAME.unlearn.json'}",
    ]
    return "\n".join(lines)


def _reasons(item: Decided, refuted: set[int]) -> list[str]:
    """Why records are unknown, the first few, with the bound that comes nearest."""
    if item.found is None:
        return []
    left = [record for record in item.outcome.unknowns if record not in refuted]
    lines = []
    for record in left[:_SHOWN]:
        why = item.found.why.get(record, "a goal fails at a point that does not refute the claim")
        best = item.found.best.get(record, float("-inf"))
        near = f" (best bound {-best:.3g} short of it)" if isfinite(best) and best < 0 else ""
        lines.append(f"   record {record} unknown: {why}{near}")
    return lines


def _effort(options: argparse.Namespace) -> Effort:
    """How proofs are looked for, as the command line says."""
    if not options.timeout > 0:
        text = f"--timeout: expected more than 0 seconds, got {options.timeout}"
        raise CertifyInputError(text)
    if options.workers < 1:
        text = f"--workers: expected 1 or more, got {options.workers}"
        raise CertifyInputError(text)
    limits = Limits(seconds=options.timeout, solver_seconds=options.timeout, seed=options.seed)
    return Effort(limits, options.workers, options.cluster, options.cache, engine_of(options.engine))


def certify_command(options: argparse.Namespace, progress: Progress) -> tuple[int, str, dict[str, object]]:
    """Run the verb.

    Returns:
        Exit code (0 every claim proved or listed as conflict, 1 refuted ones, 3 unknown ones), text, and the object
        for ``--json``.

    Raises:
        CheckError: a file cannot be used.
        CertifyError: the same, or the checker refuses the result.

    """
    sources = read_sources(options)
    sources = replace(
        sources,
        committed=committed_sets(options, sources.forget, sources.retain),
        measured=measured_files(
            options.measurements, sources.subjects, MOST_ROWS - 1
        ),  # one is left to the cross-check
    )
    issued = issue(
        sources,
        options.out,
        challenge=challenge_of(options.challenge),
        days=options.days,
        supersedes=superseded(options.supersedes, options.withdrawn, sources),
        cross_checked=options.cross_check,
        effort=_effort(options),
        progress=progress,
    )
    unknown = any(item.outcome.unknowns for item in issued.decided)
    data: dict[str, object] = {
        "statement": str(issued.statement),
        "claims": issued.verdict["claims"],
        "selfCheck": issued.verdict["verdict"],
        "refuted": [{"claim": r.claim, "record": r.point.record} for r in issued.refuted],
        "stages": {item.id: item.found.stages for item in issued.decided if item.found is not None},
        "reasons": {
            item.id: {str(record): why for record, why in item.found.why.items()}
            for item in issued.decided
            if item.found is not None
        },
        "measurements": len(issued.measured.entries),
        "crossCheckWorst": None if issued.cross is None else issued.cross.worst,
    }
    return 1 if issued.refuted else 3 if unknown else 0, _text(issued, options.out, sources.committed), data
