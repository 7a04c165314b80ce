"""Steps 9 and 10 of verification: every claim decided again from the files, and what the policy demands of them.

Source: the steps at the head of :mod:`prune_verify.checker.verify`; certs/SPEC.md section 8; THREATS T6, T14, T18,
T25, T27.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from prune_verify.checker.bounded_claims import decide_bounded, record_query
from prune_verify.checker.claim import Claim, Outcome, Problem, decide
from prune_verify.checker.claim_json import ClaimStatement, Counts
from prune_verify.checker.encoding import format_decimal
from prune_verify.checker.errors import AssumptionNotPermittedError, LimitError, PolicyError, ProofError
from prune_verify.checker.identity import decide_identity
from prune_verify.checker.minimality import decide_minimality
from prune_verify.checker.patch import JointPatch
from prune_verify.checker.policy import Policy, TrustStore
from prune_verify.checker.region import require_radius
from prune_verify.checker.rules import BINARY32
from prune_verify.checker.shift_minimality import decide_shift_minimality
from prune_verify.checker.solver import ask
from prune_verify.checker.statement import Statement
from prune_verify.checker.verdict import Check, ClaimVerdict, Roster, Verdict

__all__ = ["DATA_MISSING", "SUPPLIED_BY", "Inputs", "Run", "counts_of", "decide_claims", "require_demands"]

DATA_MISSING = "E_DATA_MISSING"
_SETS = {
    "forget": "forget", "band": "forget", "minimality": "forget",
    "retain_exact": "retain", "retain_label": "retain", "retain_close": "retain",
}  # fmt: skip
_DECIDES: dict[str, Callable[[Problem, Claim, bytes, str], Outcome]] = {
    "structural": lambda problem, claim, _data, _path: decide(problem, claim),
    "identity": lambda problem, claim, _data, _path: decide_identity(problem, claim),
    "covering-dual": decide_minimality,
    "shift-point": decide_shift_minimality,
    "relaxation": decide_bounded,
    "relaxation+smt": decide_bounded,
}
_WITHOUT_EVIDENCE = ("structural", "identity")
_TERMS = {
    "forget": ("radius", "margin"), "band": ("radius", "band"), "minimality": ("radius",),
    "retain_exact": ("radius", "logits"), "retain_label": ("radius", "logits"), "retain_close": ("radius", "delta"),
    "locality": ("logits",), "forget_class": ("label", "margin"), "retain_other_labels": ("label",),
    "covering-dual": ("cover",), "shift-point": ("margin",),
}  # fmt: skip
# Who supplies each input in the certificate game (SECURITY.md). The owner's are names of files whose content is
# compared with a digest, a root or a signature; whatever steers a check is the auditor's (tests/test_games.py).
SUPPLIED_BY: MappingProxyType[str, Literal["owner", "auditor"]] = MappingProxyType(
    {
        "certificate": "owner", "base": "owner", "patched": "owner", "evidence": "owner", "openings": "owner",
        "forget": "owner", "retain": "owner",
        "trust": "auditor", "policy": "auditor", "label_column": "auditor", "encoding": "auditor",
        "challenge": "auditor", "at_time": "auditor", "exact": "auditor", "resolve_smt": "auditor",
        "commitment": "auditor", "receipts": "auditor", "supersedes": "auditor",
        "superseded_forget": "owner", "superseded_openings": "owner",
        "insecure_skip_signature": "auditor", "insecure_skip_time": "auditor",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Inputs:
    """The files that the auditor brings or names.

    Args:
        certificate: the signed envelope.
        base: the base network as the auditor has it.
        patched: the deployed patched network.
        trust: the auditor's trust store.
        policy: the auditor's policy.
        evidence: folder of the evidence; ``evidence`` beside the certificate by default.
        openings: keys of the committed sets; ``openings.json`` beside the certificate by default.
        forget: records, or None when the auditor may not see them.
        retain: records, or None.
        label_column: of csv records.
        encoding: of csv records.
        challenge: the auditor's nonce in hex, or None.
        supersedes: the certificate that this one replaces, as the auditor holds it, or None.
        superseded_forget: its forget set, or None.
        superseded_openings: keys of its committed sets; ``openings.json`` beside it by default.
        at_time: judge validity at this time instead of now (archived certificates).
        exact: compute bounds in integers.
        resolve_smt: a solver of the auditor's own for questions that the owner left to z3, or None.
        commitment: of the training set, as the auditor received it before training, or None.
        receipts: that data subjects handed over.
        insecure_skip_signature: look at what an unsigned or foreign certificate would show; at most UNDECIDED.
        insecure_skip_time: look at it whatever the dates; at most UNDECIDED.

    """

    certificate: Path
    base: Path
    patched: Path
    trust: Path
    policy: Path
    evidence: Path | None = None
    openings: Path | None = None
    forget: str | None = None
    retain: str | None = None
    label_column: str | None = None
    encoding: Path | None = None
    challenge: str | None = None
    supersedes: Path | None = None
    superseded_forget: str | None = None
    superseded_openings: Path | None = None
    at_time: datetime | None = None
    exact: bool = False
    resolve_smt: str | None = None
    commitment: Path | None = None
    receipts: tuple[Path, ...] = ()
    insecure_skip_signature: bool = False
    insecure_skip_time: bool = False


@dataclass
class Run(Roster):
    """What the steps of a verification have established so far, beside what a :class:`Roster` has."""

    inputs: Inputs
    trust: TrustStore
    policy: Policy
    resolved: dict[str, str] = field(default_factory=dict)
    undecided: list[str] = field(default_factory=list)
    evidence: dict[str, bytes] = field(default_factory=dict)
    distinct: dict[str, int] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def require_time(self, path: str) -> None:
        """Refuse to go on past the policy's limit of time; whoever asks has a step behind it, none is interrupted.

        Raises:
            LimitError: it took longer.

        """
        taken, most = time.monotonic() - self.started, self.policy.max_seconds
        if taken > most:
            raise LimitError(path, "max_seconds of the policy", f"at most {most} s so far", f"{taken:.1f} s")

    def open(self, name: str, status: str, detail: str, code: str) -> None:
        """Note a step by name, status and ``detail`` that is not decided (``code``): at most UNDECIDED from here on."""
        self.checks.append(Check(name, status, detail, code))
        self.undecided.append(code)

    def verdict(self, word: str, code: str) -> Verdict:
        """The verdict of this word and code; a question that the auditor's own solver answered is named with it."""
        found = super().verdict(word, code)
        return replace(found, assumptions=tuple(self.resolved.get(name, name) for name in found.assumptions))


def decide_claims(run: Run, statement: Statement, problem: Problem, say: Callable[[str], None]) -> dict[str, Outcome]:
    """The outcomes of step 9 by claim: each decided again, and its counts compared with the statement's."""
    outcomes: dict[str, Outcome] = {}
    for item in statement.claims:
        run.require_time(f"predicate/claims/{item.id}")
        needed = {_SETS.get(item.claim.kind)} | ({"retain"} if item.claim.cover else set())
        which = next((name for name in ("forget", "retain") if name in needed and getattr(problem, name) is None), None)
        lacking = which is not None
        no_patch = problem.patch is None and statement.patch is not None
        proof = run.evidence.get(f"{item.id}.proof")
        if lacking or no_patch or (item.claim.method not in _WITHOUT_EVIDENCE and proof is None):
            reason = f"the {which} set is missing" if lacking else "its evidence is missing"
            run.open(f"claim {item.id}", "SKIP", f"{_phrase(item)}: {reason}", DATA_MISSING)
            continue
        say(f"claim {item.id}: {_phrase(item)}")
        _require_forgotten(item.id, item.claim, statement)
        outcome = _DECIDES[item.claim.method](problem, item.claim, proof or b"", f"evidence/{item.id}.proof")
        _compare(item, outcome)
        _require_no_other_terms(item)
        outcomes[item.id] = outcome
        _note(run, item, outcome)
        _resolve(run, item, problem, outcome, say)
    return outcomes


def _require_forgotten(name: str, claim: Claim, statement: Statement) -> None:
    """A least shift is least among patches that forget by the margin on the ball, so a claim F says that this one does.

    For a larger ball or margin than the patch is for, any shift would be a least one.
    """
    if claim.method != "shift-point" or claim.radius is None or claim.margin is None:
        return
    for other in (item.claim for item in statement.claims if item.claim.kind == "forget"):
        radius, margin = other.radius, other.margin
        if radius is not None and radius >= claim.radius and margin is not None and margin >= claim.margin:
            return
    expected = f"radius {format_decimal(claim.radius)} and margin {format_decimal(claim.margin)} or more"
    raise ProofError(f"predicate/claims/{name}", "least shift: a claim forget beside it", expected, "no such claim")


def _require_no_other_terms(item: ClaimStatement) -> None:
    """Refuse numbers that no rule of the claim has read: they would be printed as part of what is proved."""
    claim = item.claim
    known = (*_TERMS[claim.kind], *_TERMS.get(claim.method, ()))
    for name in ("radius", "margin", "label", "delta", "band", "cover", "logits"):
        if name not in known and getattr(claim, name) is not None:
            path = f"predicate/claims/{item.id}/{'region' if name == 'radius' else name}"
            raise ProofError(path, f"terms of a claim {claim.kind}", ", ".join(known), name)


def _phrase(item: ClaimStatement) -> str:
    claim = item.claim
    parts = [claim.kind, claim.arithmetic]
    if claim.radius is not None:
        parts.append(f"radius {format_decimal(claim.radius)}")
    if claim.margin is not None:
        parts.append(f"margin {format_decimal(claim.margin)}")
    if claim.delta is not None:
        parts.append(f"delta {format_decimal(claim.delta)}")
    if claim.band is not None:
        parts.append(f"band {format_decimal(claim.band[0])} to {format_decimal(claim.band[1])}")
    elif claim.kind == "band":
        parts.append("between the ends that each gate holds")
    if claim.cover is not None:
        parts.append(f"cover {claim.cover[0]} of retained balls of radius {format_decimal(claim.cover[1])}")
    if claim.label is not None:
        parts.append(f"class {claim.label}")
    if claim.logits is not None:
        parts.append(f"logits {', '.join(str(j) for j in claim.logits)}")
    if claim.outside_supports:
        parts.append("outside the supports of gates")
    return " ".join(parts)


def counts_of(outcome: Outcome) -> Counts:
    """The counts of an outcome."""
    return Counts(
        total=outcome.total,
        proved=outcome.proved,
        proved_by_bound=outcome.by_bound,
        refuted=0,
        unknown=len(outcome.unknowns),
        conflict=len(outcome.conflicts),
        already_wrong=len(outcome.already_wrong),
    )


def _compare(item: ClaimStatement, outcome: Outcome) -> None:
    path = f"predicate/claims/{item.id}"
    found = counts_of(outcome)
    if item.counts != found:
        raise ProofError(f"{path}/counts", "counts recomputed", str(found), str(item.counts))
    for name, said, recomputed in (
        ("conflicts", item.conflicts, outcome.conflicts),
        ("unknowns", item.unknowns, outcome.unknowns),
        ("alreadyWrong", item.already_wrong, outcome.already_wrong),
    ):
        if said != recomputed:
            raise ProofError(f"{path}/{name}", "indices recomputed", str(recomputed)[:80], str(said)[:80])


def _note(run: Run, item: ClaimStatement, outcome: Outcome) -> None:
    """The claim's line, its counts, and what it rests on."""
    counts, claim = item.counts, item.claim
    region = "all inputs" if claim.kind in ("forget_class", "retain_other_labels") else "domain outside the supports"
    if claim.outside_supports:
        region = "domain outside the supports"
    if claim.radius is not None:
        region = f"ball linf {format_decimal(claim.radius)}"
    run.claims.append(
        ClaimVerdict(
            item.id, claim.kind, claim.arithmetic, region, counts.total, counts.proved, counts.refuted,
            counts.unknown, counts.conflict, counts.already_wrong,
        )
    )  # fmt: skip
    numbers = ", bounds in integers" if run.inputs.exact and claim.method.startswith("relaxation") else ""
    detail = f"{_phrase(item)}: {counts.proved} of {counts.total} proved{numbers}"
    if counts.conflict:
        detail += f", {counts.conflict} in conflict"
    for name in outcome.assumptions:
        if name not in run.assumptions:
            run.assumptions.append(name)
    detail += f", {counts.unknown} unknown" if counts.unknown else ""
    if counts.unknown and not _enough(run.policy, item):
        run.open(f"claim {item.id}", "UNDECIDED", detail, "E_UNKNOWN")
    else:
        run.passed(f"claim {item.id}", detail)
        _name_the_unknown(run, item)
    if counts.already_wrong:
        run.warnings.append(
            f"{item.id}: {counts.already_wrong} forget records were answered wrongly by the base already"
        )


def _name_the_unknown(run: Run, item: ClaimStatement) -> None:
    """Which retained records the claim is not proved for, where the policy bears that."""
    if item.unknowns:
        shown = ", ".join(map(str, item.unknowns[:12])) + (", ..." if len(item.unknowns) > 12 else "")  # noqa: PLR2004 - a readable line
        run.warnings.append(f"{item.id}: not proved for the retained records {shown} (min_proved_share)")


def _enough(policy: Policy, item: ClaimStatement) -> bool:
    """Whether so many retained records are proved that the policy bears the others; never of the forget set."""
    counts = item.counts
    retained = _SETS.get(item.claim.kind) == "retain"
    return retained and Fraction(counts.unknown, counts.total) <= 1 - policy.min_proved_share


def _resolve(run: Run, item: ClaimStatement, problem: Problem, outcome: Outcome, say: Callable[[str], None]) -> None:
    """Ask the auditor's own solver what the owner left to z3; the questions are written here."""
    solver = run.inputs.resolve_smt
    for record, name in outcome.questions if solver is not None else ():
        run.require_time(f"predicate/claims/{item.id}/smt/{record}")
        say(f"claim {item.id}: record {record} to {solver}")
        found = ask(solver or "", record_query(problem, item.claim, record))
        if found.answer == "sat":
            path = f"predicate/claims/{item.id}/smt/{record}"
            raise ProofError(path, f"the question, put to {found.solver}", "unsat", "sat: the claim is false there")
        if found.answer == "unsat":
            run.resolved[name] = f"resolved_unsat:{found.solver}:{name.partition(':')[2]}"


def require_demands(run: Run, statement: Statement, problem: Problem, outcomes: dict[str, Outcome]) -> None:
    """Step 10: refuse what is below the policy's minima (T6, T14, T18, T25, T27)."""
    policy = run.policy
    for which, commitment, least in (
        ("forget", statement.forget_set, policy.min_forget_records),
        ("retain", statement.retain_set, policy.min_retain_records),
    ):
        size = 0 if commitment is None else run.distinct.get(which, commitment.size)
        if "records" in statement.request_kind and size < least:
            raise PolicyError(f"predicate/{which}Set", "least number of different records", str(least), str(size))
    _require_kinds(policy, statement)
    for item in statement.claims:
        _require_strength(policy, item, problem)
        outcome = outcomes.get(item.id)
        if outcome is not None:
            _require_few_conflicts(policy, item, outcome)
            _require_newly_forgotten(policy, item, outcome)
    if BINARY32 not in policy.arithmetics:
        run.open("arithmetic", "UNDECIDED", "the policy asks for real arithmetic only (T27)", "E_ARITHMETIC")
    for name in run.assumptions:
        if name not in run.resolved and not policy.permits(name):
            raise AssumptionNotPermittedError(
                "assumptions", "assumption that the policy permits", "a permitted one", name
            )
    if set(statement.assumptions) != set(run.assumptions) and len(outcomes) == len(statement.claims):
        raise ProofError(
            "predicate/assumptions", "assumptions recomputed", str(run.assumptions), str(statement.assumptions)
        )
    run.passed("policy", "every demand is met")


def _require_kinds(policy: Policy, statement: Statement) -> None:
    """Every kind of claim that the policy demands for this request stands there, in each arithmetic it demands."""
    demanded: list[tuple[str, int | None]] = []
    _require_kind(statement)
    if "records" in statement.request_kind:
        demanded += [(kind, None) for kind in policy.required_claims_records]
    if "class" in statement.request_kind:
        classes = statement.patch.forgotten_classes if statement.patch else ()
        demanded += [(kind, label) for kind in policy.required_claims_class for label in classes]
    if not demanded:
        raise PolicyError(
            "policy", "claims demanded", f"at least one for a request of kind {statement.request_kind}", "none"
        )
    standing = {(item.claim.kind, item.claim.label, item.claim.arithmetic) for item in statement.claims}
    sizes = {item.claim.kind for item in statement.claims} & {"minimality"}  # of the patch: not about how it is run
    for kind, label in demanded:
        for arithmetic in policy.arithmetics:
            if (kind, label, arithmetic) not in standing and kind not in sizes:
                wanted = f"{kind} in {arithmetic}" + ("" if label is None else f" for class {label}")
                raise PolicyError("predicate/claims", "claim that the policy demands", wanted, "no such claim")


def _require_kind(statement: Statement) -> None:
    """The patch does what the request is said to be for, and nothing else: no class by the way, no gate by the way."""
    patch, path = statement.patch, "predicate/request/kind"
    if patch is None:  # a network of foreign making has no form from which the claims of a class request could follow
        if "class" in statement.request_kind:
            raise PolicyError(path, "request that can be met without patch.json", "records", statement.request_kind)
        return
    classes, gates = patch.forgotten_classes, patch.gates
    if ("class" in statement.request_kind) != bool(classes):
        raise PolicyError(
            path, "request that fits the patch", f"forgotten classes {list(classes)}", statement.request_kind
        )
    if statement.request_kind == "class" and gates:
        raise PolicyError(path, "request that fits the patch", f"{gates} gates of records", statement.request_kind)


def _require_strength(policy: Policy, item: ClaimStatement, problem: Problem) -> None:
    claim, path = item.claim, f"predicate/claims/{item.id}"
    which = _SETS.get(claim.kind)
    if which is not None:
        least = policy.min_forget_radius if which == "forget" else policy.min_retained_radius
        if claim.radius is None:
            raise PolicyError(f"{path}/region", "region", "a ball with a radius", "nothing")
        rows = problem.forget if which == "forget" else problem.retain
        if rows is not None:
            require_radius(f"{path}/region/radius", claim.radius, rows.x, least)
        elif claim.radius < least:
            raise PolicyError(
                f"{path}/region/radius", "minimum radius", format_decimal(least), format_decimal(claim.radius)
            )
    if claim.kind in ("forget", "forget_class") and (claim.margin is None or claim.margin < policy.min_margin):
        raise PolicyError(f"{path}/margin", "minimum margin", format_decimal(policy.min_margin), str(claim.margin))
    if claim.cover is not None and claim.cover[1] < policy.min_retained_radius:
        expected, got = format_decimal(policy.min_retained_radius), format_decimal(claim.cover[1])
        raise PolicyError(f"{path}/cover/retainedRadius", "minimum radius", expected, got)
    if claim.kind == "band":
        width = _band_width(claim, problem)
        if width > policy.max_band_width:
            expected, got = format_decimal(policy.max_band_width), f"{float(width):.9g}"
            raise PolicyError(f"{path}/band", "greatest width of a band", expected, got)
    if claim.kind == "retain_close" and (claim.delta is None or claim.delta > policy.max_delta):
        raise PolicyError(f"{path}/delta", "greatest delta", format_decimal(policy.max_delta), str(claim.delta))


def _band_width(claim: Claim, problem: Problem) -> Fraction:
    """How far the margin may range: by the band, or by the ends of the gate that holds it farthest."""
    if claim.band is not None:
        return claim.band[1] - claim.band[0]
    gates = problem.patch.gates if isinstance(problem.patch, JointPatch) else ()
    held = [gate.hold for gate in gates if gate.hold is not None]
    if not held:
        raise PolicyError("predicate/claims", "width of a band", "a band, or gates that hold a margin", "neither")
    return max(Fraction(float(high)) - Fraction(float(low)) for low, high in held)


def _require_few_conflicts(policy: Policy, item: ClaimStatement, outcome: Outcome) -> None:
    path, count = f"predicate/claims/{item.id}/conflicts", len(outcome.conflicts)
    if count > policy.max_conflicts:
        raise PolicyError(path, "max_conflicts", f"at most {policy.max_conflicts}", str(count))
    if Fraction(count, outcome.total) > policy.max_slab_share:
        raise PolicyError(
            path, "max_slab_share", f"at most {float(policy.max_slab_share):g}", f"{count / outcome.total:g}"
        )


def _require_newly_forgotten(policy: Policy, item: ClaimStatement, outcome: Outcome) -> None:
    """T16, T26: to forget what the base never answered is no forgetting; wrong labels would make it look like one."""
    share = Fraction(len(outcome.already_wrong), outcome.total)
    if share > policy.max_already_wrong_share:
        path = f"predicate/claims/{item.id}/alreadyWrong"
        most = f"at most {float(policy.max_already_wrong_share):g}"
        raise PolicyError(path, "max_already_wrong_share", most, f"{float(share):g}")
