"""The step of verification that looks at the certificate which this one replaces, as the auditor holds it.

Establishes that the new certificate names the earlier one by its payload, that a prover of the trust store signed
that one, and that what :mod:`prune_verify.checker.supersede` finds lost or weaker is within the policy's bounds.

Source: FORMATS section 3 (supersession); THREATS T11, T12; certs/SPEC.md section 8.
"""

from __future__ import annotations

from prune_verify.checker.claim import LabelledRows
from prune_verify.checker.encoding import format_time, read_file
from prune_verify.checker.envelope import open_envelope
from prune_verify.checker.errors import PolicyError, SubjectMismatchError
from prune_verify.checker.opened_sets import read_openings, require_committed
from prune_verify.checker.records import Records, canonical_records, load_records
from prune_verify.checker.statement import Statement, parse_statement
from prune_verify.checker.supersede import Covered, covered_by, lost, weaker_terms
from prune_verify.checker.verify_claims import DATA_MISSING, Run

__all__ = ["replaced", "require_covered"]

_MOST_BYTES = 2**26
_PLACE = "predicate/supersedes"


def replaced(run: Run, statement: Statement) -> Statement | None:
    """The certificate that the statement says it replaces, where the auditor brought it.

    Any key with role prover in the trust store may have signed it, also one that has expired or was revoked since: the
    comparison only asks more of the new certificate.

    Raises:
        CheckError: the earlier one cannot be used, or the statement does not replace it.

    """
    path = run.inputs.supersedes
    if path is None:
        if statement.supersedes is not None:
            run.warnings.append("the certificate supersedes another one, which was not compared (--supersedes)")
            if run.policy.require_superseded:
                run.open("supersession", "SKIP", "the policy demands the earlier certificate", DATA_MISSING)
        return None
    provers = {item.key.keyid: (item.key, item.name) for item in run.trust.keys if "prover" in item.roles}
    opened = open_envelope(read_file(path, "earlier certificate", _MOST_BYTES), path.name, provers, 1)
    if statement.supersedes != opened.payload_sha256:
        got = statement.supersedes or "nothing"
        raise PolicyError(_PLACE, "payload of the earlier certificate", opened.payload_sha256, got)
    earlier = parse_statement(opened.payload, f"{path.name}/payload")
    if earlier.base_sha256 != statement.base_sha256:
        place = f"{path.name}/payload/predicate/originalModel/sha256"
        raise SubjectMismatchError(place, "base of both certificates", statement.base_sha256, earlier.base_sha256)
    if earlier.issued_at > statement.issued_at:
        expected, got = f"not before {format_time(earlier.issued_at)}", format_time(statement.issued_at)
        raise PolicyError("predicate/issuedAt", "order of both certificates", expected, got)
    for keyid, who in opened.signers:
        reason = run.trust.unusable("prover", run.now).get(keyid)
        if reason is not None:
            run.warnings.append(f"signer of the earlier certificate, {who}: {reason}")
    return earlier


def require_covered(run: Run, statement: Statement, earlier: Statement, forget: LabelledRows | None) -> None:
    """Refuse a certificate that covers less than the earlier one, but for what the policy lets be withdrawn.

    Args:
        run: the run.
        statement: the new one.
        earlier: the one that it replaces.
        forget: the new forget set, opened, or None.

    Raises:
        PolicyError: more was withdrawn than ``max_withdrawn``, or a term is weaker.

    """
    before, now = covered_by(earlier), covered_by(statement)
    missing = _missing(run, earlier, forget)
    gone, most = lost(before, now, missing), run.policy.max_withdrawn
    names = [f"{gone.records} of {before.records} records", *(f"class {label}" for label in gone.classes)]
    names += [f"request {name!r}" for name in gone.requests]
    if gone.count > most:
        raise PolicyError(_PLACE, "max_withdrawn", f"at most {most} withdrawn", f"withdrawn: {', '.join(names)}")
    for item in weaker_terms(before, now, most if missing is None else missing):
        place = f"predicate/claims ({item.what} of {item.term.name} of the earlier certificate)"
        raise PolicyError(place, "terms of the earlier certificate", item.before, item.now)
    how = "by number only: one of the forget sets is not open" if missing is None else "one by one"
    detail = f"covers what {_said(before)} covered; records compared {how}"
    run.passed("supersession", detail + (f"; withdrawn: {', '.join(names)}" if gone.count else ""))
    if gone.count:
        run.warnings.append(f"withdrawn since the earlier certificate: {', '.join(names)}")


def _said(covered: Covered) -> str:
    classes = f", {len(covered.classes)} classes" if covered.classes else ""
    return f"the earlier certificate of {covered.records} records{classes}, {len(covered.requests)} requests"


def _missing(run: Run, earlier: Statement, forget: LabelledRows | None) -> int | None:
    """How many records of the earlier forget set are not in the new one; None where one of them is not open."""
    path, spec = run.inputs.supersedes, run.inputs.superseded_forget
    if path is None or spec is None or earlier.forget_set is None:
        return None if earlier.forget_set is not None else 0
    key = read_openings(run.inputs.superseded_openings or path.with_name("openings.json")).forget
    if key is None or forget is None:
        run.open("supersession", "SKIP", "an opening of the earlier or the new forget set is missing", DATA_MISSING)
        return None
    inputs, most = run.inputs, run.policy.max_records
    what, column = "earlier forget set", inputs.label_column
    records = load_records(spec, what=what, label_column=column, encoding=inputs.encoding, max_records=most)
    require_committed(records, earlier.forget_set, key, f"{path.name}/payload/predicate/forgetSet")
    new = Records(forget.x, forget.y, None, "forget set")
    return len(set(canonical_records(records)) - set(canonical_records(new)))
