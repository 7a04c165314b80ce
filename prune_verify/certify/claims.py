"""The claims that a request asks for, decided: each with its outcome, its evidence, and the words of the statement.

Source: MATHS 2 and 5; FORMATS section 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from prune_verify.certify.elaborate import Effort, Elaborated, prove_bounded
from prune_verify.certify.errors import CertifyInputError
from prune_verify.certify.minimal import prove_minimality, prove_shift_minimality
from prune_verify.checker.claim import Claim, Outcome, Problem, decide
from prune_verify.checker.claim_json import ClaimStatement, Counts
from prune_verify.checker.identity import decide_identity
from prune_verify.checker.minimality import decide_minimality
from prune_verify.checker.patch import JointPatch
from prune_verify.checker.rules import REAL
from prune_verify.checker.shift_minimality import decide_shift_minimality
from prune_verify.request import Request

__all__ = ["Decided", "claims_of", "decide_all", "statement_of"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Decided:
    """A claim with its outcome and, where it is not structural, the proof that the checker will read.

    Args:
        id: its name in the statement.
        claim: what is claimed.
        outcome: what the checker is to make of it.
        proof: the evidence, or None.
        found: how it was proved, where it rests on bounds.

    """

    id: str
    claim: Claim
    outcome: Outcome
    proof: bytes | None = None
    found: Elaborated | None = None


def _each(kind: str, request: Request, method: str, logits: tuple[int, ...] | None, *, gates: bool) -> Iterator[Claim]:
    """The claims of one kind in the first arithmetic."""
    arithmetic = request.arithmetics[0]
    match kind:
        case "forget":
            yield Claim(kind, arithmetic, method, radius=request.radius, margin=request.margin)
        case "band":
            yield Claim(kind, arithmetic, method, radius=request.radius, band=request.band)
        case "retain_close":
            yield Claim(kind, arithmetic, method, radius=request.retained_radius, delta=request.delta)
        case "retain_exact" | "retain_label":
            yield Claim(kind, arithmetic, method, radius=request.retained_radius, logits=logits)
        case "locality":
            yield Claim(kind, arithmetic, method, logits=logits)
        case "forget_class":
            for label in request.classes:
                yield Claim(kind, arithmetic, method, label=label, margin=request.margin)
        case "retain_other_labels":
            for label in request.classes:
                yield Claim(kind, arithmetic, method, label=label, outside_supports=gates)
        case _:
            yield _minimality(kind, request, method)


def _minimality(kind: str, request: Request, method: str) -> Claim:
    if kind == "minimality" and method == "relaxation":  # of an additive patch
        return Claim(kind, REAL, "shift-point", radius=request.radius, margin=request.margin)
    if kind != "minimality" or request.retained_radius is None:
        text = f"certify has no way to prove a claim of kind {kind} from this request"
        raise CertifyInputError(text)
    cover = request.cover, request.retained_radius
    return Claim(kind, request.arithmetics[0], "covering-dual", radius=request.radius, cover=cover)


_FOREIGN = {
    "forget": "relaxation",
    "band": "relaxation",
    "retain_exact": "identity",
    "retain_label": "relaxation",
    "retain_close": "relaxation",
}


def _foreign_method(kind: str) -> str:
    """How a claim about a patched network is proved of which nothing but the file is known.

    Raises:
        CertifyInputError: claims of this kind follow from the form of a patch.

    """
    if kind not in _FOREIGN:
        text = (
            f"a claim of kind {kind} follows from the form of a patch, so patch.json is needed: beside the patched "
            f"network, or named with --patch; without it: {', '.join(sorted(_FOREIGN))}"
        )
        raise CertifyInputError(text)
    return _FOREIGN[kind]


def _require_terms(request: Request, *, holds: bool) -> None:
    """The request has a number for each of its claims; gates that hold a margin have their own band.

    Raises:
        CertifyInputError: a kind whose number is null.

    """
    terms = {
        "forget": ("radius", request.radius),
        "band": ("band", () if holds else request.band),
        "retain_exact": ("retainedRadius", request.retained_radius),
        "retain_label": ("retainedRadius", request.retained_radius),
        "retain_close": ("delta", request.delta),
    }
    for kind in request.claims:
        name, value = terms.get(kind, ("", ()))
        if value is None:
            text = f"the request asks for {kind}, and its {name} is null"
            raise CertifyInputError(text)


def claims_of(request: Request, problem: Problem) -> list[Claim]:
    """Every claim of a request, in each of its arithmetics.

    Without ``patch.json`` the patched network may be of any making: only what can be decided on the two networks
    alone is claimed.

    Raises:
        CertifyInputError: a kind that needs the patch's parameters, or a number that the request lacks.

    """
    patch = problem.patch
    joint = patch if isinstance(patch, JointPatch) else None
    holds = joint is not None and joint.holds
    _require_terms(request, holds=holds)
    method = "relaxation" if joint is None else "structural"
    gates = joint is not None and bool(joint.gates)
    logits = joint.allowed if joint is not None and joint.forgotten_classes else None
    found = []
    for kind in request.claims:
        bounded = kind == "band" and not holds
        how = _foreign_method(kind) if patch is None else "relaxation" if bounded else method
        for claim in _each(kind, request, how, logits, gates=gates):
            both = (claim.arithmetic,) if claim.method == "shift-point" else request.arithmetics
            found += [replace(claim, arithmetic=arithmetic) for arithmetic in both]
    return found


def _structural(problem: Problem, claim: Claim, name: str, _effort: Effort, _progress: Progress) -> Decided:
    return Decided(name, claim, decide(problem, claim))


def _minimal(problem: Problem, claim: Claim, name: str, _effort: Effort, _progress: Progress) -> Decided:
    proof = prove_minimality(problem, claim)
    return Decided(name, claim, decide_minimality(problem, claim, proof, name), proof)


def _least_shift(problem: Problem, claim: Claim, name: str, _effort: Effort, _progress: Progress) -> Decided:
    proof = prove_shift_minimality(problem, claim)
    return Decided(name, claim, decide_shift_minimality(problem, claim, proof, name), proof)


def _bounded(problem: Problem, claim: Claim, name: str, effort: Effort, progress: Progress) -> Decided:
    proved = prove_bounded(problem, claim, effort=effort, progress=progress)
    return Decided(name, replace(claim, method=proved.method), proved.outcome, proved.proof, proved)


def _identical(problem: Problem, claim: Claim, name: str, _effort: Effort, _progress: Progress) -> Decided:
    return Decided(name, claim, decide_identity(problem, claim))


_PROVERS: dict[str, Callable[[Problem, Claim, str, Effort, Progress], Decided]] = {
    "structural": _structural,
    "identity": _identical,
    "covering-dual": _minimal,
    "shift-point": _least_shift,
    "relaxation": _bounded,
}


def decide_all(problem: Problem, claims: list[Claim], *, effort: Effort, progress: Progress) -> list[Decided]:
    """Decide every claim with the checker's own rules, finding proofs where a rule needs one.

    Args:
        problem: the files.
        claims: what to prove.
        effort: how proofs are looked for.
        progress: called with a name, steps done and steps in all.

    Returns:
        Every claim of the request with its outcome, in order.

    Raises:
        CheckError: a claim cannot hold as it stands.

    """
    found = []
    for place, claim in enumerate(claims):
        progress("claims", place, len(claims))
        found.append(_PROVERS[claim.method](problem, claim, f"C{place + 1}", effort, progress))
    progress("claims", len(claims), len(claims))
    return found


def statement_of(decided: Decided) -> ClaimStatement:
    """What the statement says of a decided claim."""
    outcome = decided.outcome
    return ClaimStatement(
        id=decided.id,
        claim=decided.claim,
        counts=Counts(
            total=outcome.total,
            proved=outcome.proved,
            proved_by_bound=outcome.by_bound,
            unknown=len(outcome.unknowns),
            conflict=len(outcome.conflicts),
            already_wrong=len(outcome.already_wrong),
        ),
        conflicts=outcome.conflicts,
        unknowns=outcome.unknowns,
        already_wrong=outcome.already_wrong,
    )
