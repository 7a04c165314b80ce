"""Vectors about claims that rest on bounds, and their proof files: family ``learned`` (THREATS section 2, Proofs; T20).

The form of a proof file is left to ``emit`` and ``parse`` of the checker, so that another form needs the
same vectors made anew and no other line here.
"""

# ruff: noqa: E501 - a row of a table of vectors is one line

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from certs.vector_maker.cases import OK, PAYLOAD, Build, Case, Note, at, edit, refused, undecided
from certs.vector_maker.networks import put_patch
from certs.vector_maker.owner import (
    ARITHMETICS,
    DOMAIN,
    LABELS,
    MARGIN,
    RADIUS,
    RETAINED_RADIUS,
    SIZE,
    Chain,
    base_model,
    gates_of,
    policy,
    sets,
    write,
)
from prune_verify.checker.bounded_claims import decide_bounded, goals_of
from prune_verify.checker.claim import Claim, LabelledRows, Outcome, Problem
from prune_verify.checker.encoding import canonical_json
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.network import evaluate
from prune_verify.checker.patch import Gate, LearnedPatch
from prune_verify.checker.proof import Proof, emit, parse
from prune_verify.repair.export import export_patched

__all__ = ["CASES", "NOTES", "by_crown", "learned", "patched_problem", "to_z3"]

F = np.float32
_DELTA_TEXT = "0.1"
_PUSH = 512.0
_C1, _C2, _C3 = "evidence/C1.proof", "evidence/C2.proof", "evidence/C3.proof"
_PATCH = "evidence/patch.json"
_RELU = 2  # of the nodes of the patched network: 0 is the input, 1 the base's first layer, 2 its ReLU of 8 neurons
_SPLIT, _LEAF = (1, _RELU, 0), (0, 0, -1)


def _patch_of(gates: tuple[Gate, ...]) -> LearnedPatch:
    """Gates written as a ReLU chain: half-spaces, openness, and a push against the label where a gate is open."""
    rows, edges, owner = [], [], []
    for place, gate in enumerate(gates):
        for interval in gate.intervals:
            for sign, edge in ((1.0, interval.high), (-1.0, interval.low)):
                if edge is not None:
                    row = np.zeros(SIZE, F)
                    row[interval.coordinate] = sign
                    rows.append(row)
                    edges.append(-sign * float(edge))
                    owner.append(place)
    closing = np.zeros((len(gates), len(rows)), F)
    for column, place in enumerate(owner):
        closing[place, column] = -gates[place].gamma
    push = np.zeros((LABELS, len(gates)), F)
    for place, gate in enumerate(gates):
        push[gate.label, place] = -_PUSH
    first = (np.array(rows, F), np.array(edges, F))
    return LearnedPatch(LABELS, (first, (closing, np.ones(len(gates), F)), (push, np.zeros(LABELS, F))))


def by_crown(problem: Problem, claim: Claim) -> bytes:
    """A proof that leaves everything to rule crown; of a forget claim, that the runner-up at the record beats it."""
    goals = goals_of(problem, claim)
    objectives, least = goals.constraint(np.arange(goals.records))
    choices = np.zeros((goals.records, goals.clauses), np.int32)
    if claim.kind == "forget":
        logits = evaluate(goals.network, problem.rows("forget").x).astype(np.float64)
        choices = (np.einsum("rcal,rl->rca", objectives, logits) - least).argmax(axis=2).astype(np.int32)
    return emit(
        Proof(
            kind=claim.kind,
            arithmetic=claim.arithmetic,
            method="relaxation",
            network=goals.network.digest(),
            records=goals.records,
            choices=choices.reshape(-1) if claim.kind == "forget" else np.zeros(0, np.int32),
        )
    )


def patched_problem() -> tuple[bytes, LearnedPatch, Problem]:
    """The base's file, an additive patch with a gate per forget record, and the files as an auditor has them."""
    base_bytes = base_model().SerializeToString()
    base = load_network(base_bytes, "base.onnx")
    x, y, others, labels = sets()
    patch = _patch_of(gates_of(x, y, others))
    patched = load_network(export_patched(base_bytes, base, patch), "patched.onnx").network
    problem = Problem(base.network, patched, patch, DOMAIN, LabelledRows(x, y), LabelledRows(others, labels))
    return base_bytes, patch, problem


def learned() -> Chain:
    """An honest certificate of family ``learned``: four claims, each with a proof."""
    from fractions import Fraction

    base_bytes, patch, problem = patched_problem()
    claims: list[tuple[Claim, Outcome]] = []
    evidence: dict[str, bytes] = {}
    for kind in ("forget", "retain_close"):
        for arithmetic in ARITHMETICS:
            claim = Claim(kind, arithmetic, "relaxation", radius=RADIUS, margin=MARGIN)
            if kind == "retain_close":
                claim = replace(claim, radius=RETAINED_RADIUS, margin=None, delta=Fraction(_DELTA_TEXT))
            proof = by_crown(problem, claim)
            outcome = decide_bounded(problem, claim, proof, "proof")
            if outcome.proved != outcome.total:
                raise ValueError(outcome)
            evidence[f"C{len(claims) + 1}.proof"] = proof
            claims.append((claim, outcome))
    chain = write("records", patch, claims, evidence, base_bytes)
    chain.files["policy.toml"] = policy(required_for_records='["forget", "retain_close"]')
    return chain


# --- forgeries ---


def _bytes(change: Callable[[bytes], bytes], name: str = _C1) -> Build:
    """Other bytes of a proof, their digest in the statement."""
    return lambda chain: chain.swap(name, change(chain.files[name]))


def _unsigned(change: Callable[[bytes], bytes]) -> Build:
    """Other bytes of a proof; the statement names the honest ones."""
    return lambda chain: {_C1: change(chain.files[_C1])}


def _proof(change: Callable[[Proof], Proof], name: str = _C1) -> Build:
    """Another proof, well-formed as far as ``emit`` can tell."""
    return lambda chain: chain.swap(name, emit(change(parse(chain.files[name], name))))


def _numbers(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def _hinted(*values: float, node: int = _RELU, places: tuple[int, ...] = (0,), goals: tuple[int, ...] = (0,)) -> Build:
    """Slopes of the prover's for some neurons of one node."""
    table = np.array(values, F).reshape(1, -1)
    return _proof(lambda p: replace(p, hinted=_numbers(*goals), active={node: _numbers(*places)}, slopes={node: table}))


def _choices(change: Callable[[list[int]], list[int]], *factors: float) -> Build:
    """Other choices of the four goals, and combinations of the three atoms of each."""
    values = np.array(factors, F)
    return _proof(lambda p: replace(p, choices=_numbers(*change([0, 0, 0, 0])), combinations=values))


def _first(value: int) -> Callable[[list[int]], list[int]]:
    return lambda choices: [value, *choices[1:]]


def _tree(
    *steps: int, multipliers: tuple[float, ...] = (), cuts: tuple[float, ...] = (), goals: tuple[int, ...] = (0,)
) -> Build:
    """Goal 0 by cases; the steps are three numbers each."""
    return _proof(
        lambda p: replace(
            p,
            trees=_numbers(*goals),
            steps=_numbers(*steps),
            multipliers=np.array(multipliers, F),
            cuts=np.array(cuts, F),
        )
    )


def to_z3(name: str, *, method: str = "relaxation+smt") -> Build:
    """Record 0 is handed to z3."""

    def build(chain: Chain) -> Chain:
        proof = replace(parse(chain.files[name], name), method=method, choices=_numbers(-1, 0, 0, 0), smt=_numbers(0))
        chain.swap(name, emit(proof))
        document = chain.statement()
        document["predicate"]["claims"][int(name[-7]) - 1]["method"] = method
        return chain.put(document)

    return build


def _exchanged(chain: Chain) -> Chain:
    return chain.swap(_C1, chain.files[_C2])


def _of_a_retained_claim(chain: Chain) -> Chain:
    return chain.swap(_C1, chain.files[_C3])


def _flip(place: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[place] ^= 1
        return bytes(changed)

    return change


def _two_claims(place: int, **members: object) -> Build:
    def change(document: dict[str, Any]) -> None:
        for claim in document["predicate"]["claims"][place : place + 2]:
            claim.update(members)

    return edit(change)


def _radius(place: int, value: str) -> Build:
    return _two_claims(place, region={"kind": "ball", "norm": "linf", "radius": value})


def _layer(place: int, **members: object) -> Build:
    """Another layer in ``patch.json``."""

    def build(chain: Chain) -> Chain:
        value = json.loads(chain.files[_PATCH])
        value["layers"][place].update(members)
        return put_patch(chain, canonical_json(value))

    return build


_NAN = base64.b64encode(np.full(4, np.nan, "<f4").tobytes()).decode()
_COUNTS = "predicate/claims/C1/counts"

CASES = [
    Case("Honest", "a learned patch, every claim with its proof", lambda c: c, OK),
    Case("ProofBytes", "one bit of the numbers is another, and the statement does not know", _unsigned(_flip(-1)), refused("SUBJECT", "predicate/evidence/C1.proof")),
    Case("ProofBytes", "one bit of the numbers is another, signed", _bytes(_flip(-1)), refused("MALFORMED", _C1)),
    Case("ProofBytes", "one bit of the first line is another, signed", _bytes(_flip(0)), refused("MALFORMED", _C1)),
    Case("ProofBytes", "truncated evidence, signed", _bytes(lambda d: d[:-4]), refused("MALFORMED", _C1)),
    Case("ProofBytes", "half of the evidence, signed", _bytes(lambda d: d[: len(d) // 2]), refused("MALFORMED", _C1)),
    Case("ProofBytes", "an empty proof, signed", _bytes(lambda _: b""), refused("MALFORMED", _C1)),
    Case("ProofBytes", "bytes after the proof, signed", _bytes(lambda d: d + bytes(4)), refused("MALFORMED", _C1)),
    Case("OtherProof", "the proof of the same claim in the other arithmetic", _exchanged, refused("PROOF", f"{_C1}/arithmetic")),
    Case("OtherProof", "the proof of a claim about retained records", _of_a_retained_claim, refused("PROOF", f"{_C1}/kind")),
    Case("OtherProof", "a proof for another network", _proof(lambda p: replace(p, network="00" * 32)), refused("PROOF", f"{_C1}/network")),
    Case("OtherProof", "a proof for fewer records", _proof(lambda p: replace(p, records=3)), refused("PROOF", f"{_C1}/records")),
    Case("OtherProof", "a choice per record where there are eight goals per record", _proof(lambda p: replace(p, choices=np.zeros(41, np.int32)), _C3), refused("PROOF", f"{_C3}/choices")),
    Case("Slopes", "foolish slopes, negative and huge: the checker's own are no worse", _hinted(-1e6, 1e6, places=(0, 1)), OK),
    Case("Slopes", "a slope that is NaN", _hinted(float("nan")), refused("MALFORMED", f"{_C1}/slopes/2")),
    Case("Slopes", "a slope that is infinite", _hinted(float("inf")), refused("MALFORMED", f"{_C1}/slopes/2")),
    Case("Slopes", "slopes of a node that is no ReLU", _hinted(0.5, node=1), refused("PROOF", f"{_C1}/slopes/1")),
    Case("Slopes", "slopes of a node that does not exist", _hinted(0.5, node=1000), refused("PROOF", f"{_C1}/slopes/1000")),
    Case("Slopes", "slopes of a neuron that does not exist", _hinted(0.5, places=(8,)), refused("PROOF", f"{_C1}/active/2")),
    Case("Slopes", "slopes of one neuron twice", _hinted(0.5, 0.5, places=(1, 1)), refused("MALFORMED", f"{_C1}/active/2")),
    Case("Slopes", "two slopes for one neuron", _hinted(0.5, 0.5), refused("MALFORMED", f"{_C1}/slopes/2")),
    Case("Slopes", "slopes of one goal twice", _hinted(0.5, goals=(0, 0)), refused("MALFORMED", f"{_C1}/hinted")),
    Case("Slopes", "slopes of two goals, one set of them", _hinted(0.5, goals=(0, 1)), refused("MALFORMED", f"{_C1}/hinted")),
    Case("Slopes", "slopes of a goal that does not exist", _hinted(0.5, goals=(4,)), refused("PROOF", f"{_C1}/hinted")),
    Case("Choices", "no choice for a record that counts as proved", _choices(_first(-1)), refused("PROOF", _COUNTS)),
    Case("Choices", "a choice below -1", _choices(_first(-2)), refused("MALFORMED", f"{_C1}/choices")),
    Case("Choices", "an atom that does not exist", _choices(_first(3)), refused("PROOF", f"{_C1}/choices")),
    Case("Choices", "fewer choices than goals", _choices(lambda c: c[:-1]), refused("PROOF", f"{_C1}/choices")),
    Case("Choices", "a combination of all atoms", _choices(_first(3), 0.5, 0.25, 0.25), OK),
    Case("Choices", "a combination of nothing: 0 >= 0", _choices(_first(3), 0, 0, 0), refused("PROOF", f"{_C1}/combinations")),
    Case("Choices", "a combination with a negative factor", _choices(_first(3), -0.5, 1, 1), refused("MALFORMED", f"{_C1}/combinations")),
    Case("Choices", "a combination with a factor above 1", _choices(_first(3), 2, 0, 0), refused("MALFORMED", f"{_C1}/combinations")),
    Case("Choices", "a combination with a factor of too many bits", _choices(_first(3), 0.1, 0, 0), refused("MALFORMED", f"{_C1}/combinations")),
    Case("Choices", "factors for half a combination", _choices(_first(3), 0.5, 0.5), refused("PROOF", f"{_C1}/choices")),
    Case("Trees", "two cases, a leaf for each", _tree(*_SPLIT, *_LEAF, *_LEAF), OK),
    Case("Trees", "cases over another neuron than the slopes are for: sound all the same", _tree(1, 2, 7, *_LEAF, *_LEAF), OK),
    Case("Trees", "cases over an input number", _tree(2, 5, 0, *_LEAF, *_LEAF, cuts=(0.5,)), OK),
    Case("Trees", "the same case over and over", _tree(*_SPLIT, *_SPLIT, *_LEAF, *_LEAF, *_LEAF), OK),
    Case("Trees", "a leaf is missing", _tree(*_SPLIT, *_LEAF), refused("PROOF", f"{_C1}/steps/2")),
    Case("Trees", "a leaf twice", _tree(*_SPLIT, *_LEAF, *_LEAF, *_LEAF), refused("PROOF", f"{_C1}/steps/3")),
    Case("Trees", "a tree without steps", _tree(), refused("PROOF", f"{_C1}/steps/0")),
    Case("Trees", "a split on a node that is no ReLU", _tree(1, 1, 0, *_LEAF, *_LEAF), refused("PROOF", f"{_C1}/steps/0")),
    Case("Trees", "a split on a neuron that does not exist", _tree(1, 2, 8, *_LEAF, *_LEAF), refused("PROOF", f"{_C1}/steps/0")),
    Case("Trees", "a split on neuron -1", _tree(1, 2, -1, *_LEAF, *_LEAF), refused("PROOF", f"{_C1}/steps/0")),
    Case("Trees", "a cut that does not exist", _tree(2, 5, 0, *_LEAF, *_LEAF), refused("PROOF", f"{_C1}/steps/0")),
    Case("Trees", "a cut at NaN, of which neither case holds", _tree(2, 5, 0, *_LEAF, *_LEAF, cuts=(float("nan"),)), refused("MALFORMED", f"{_C1}/cuts")),
    Case("Trees", "a step of an unknown kind", _tree(4, 0, 0), refused("PROOF", f"{_C1}/steps/0")),
    Case("Trees", "a leaf that chooses nothing", _tree(0, -1, -1), refused("PROOF", f"{_C1}/steps/0")),
    Case("Trees", "a leaf with slopes that are not there", _tree(0, 0, 0), refused("PROOF", f"{_C1}/steps/0")),
    Case("Trees", "a leaf with an atom that does not exist", _tree(0, 3, -1), refused("PROOF", f"{_C1}/choices")),
    Case("Trees", "two thirds of a step", _tree(0, 0), refused("MALFORMED", f"{_C1}/steps")),
    Case("Trees", "two trees for one goal", _tree(*_LEAF, *_LEAF, goals=(0, 0)), refused("MALFORMED", f"{_C1}/trees")),
    Case("Trees", "a tree for a goal that does not exist", _tree(*_LEAF, goals=(4,)), refused("PROOF", f"{_C1}/trees")),
    Case("Depth", "a tree without end: 3,000 lemmas, one in the other", _tree(*[3, -1, 0] * 3_000), undecided("LIMIT", f"{_C1}/steps/2049")),
    Case("Multipliers", "multipliers of 0", _tree(*_SPLIT, *_LEAF, *_LEAF, multipliers=(0.0, 0.0)), OK),
    Case("Multipliers", "huge multipliers", _tree(*_SPLIT, *_LEAF, *_LEAF, multipliers=(1e6, 1e6)), refused("PROOF", _COUNTS)),
    Case("Multipliers", "multipliers of the wrong sign", _tree(*_SPLIT, *_LEAF, *_LEAF, multipliers=(-1e6, -1e6)), refused("PROOF", _COUNTS)),
    Case("Multipliers", "fewer multipliers than splits above leaves", _tree(*_SPLIT, *_LEAF, *_LEAF, multipliers=(0.5,)), refused("PROOF", f"{_C1}/multipliers")),
    Case("Multipliers", "a multiplier that is NaN", _tree(*_SPLIT, *_LEAF, *_LEAF, multipliers=(0.5, float("nan"))), refused("MALFORMED", f"{_C1}/multipliers")),
    Case("Weakened", "the margin is raised after the proof", _two_claims(0, margin="600"), refused("PROOF", _COUNTS)),
    Case("Weakened", "the radius is raised after the proof", _radius(0, "0.4"), refused("PROOF", _COUNTS)),
    Case("Weakened", "the retained radius is raised after the proof", _radius(2, "0.6"), refused("PROOF", "predicate/claims/C3/counts")),
    Case("Weakened", "delta is lowered below the rounding of the sum", _two_claims(2, delta="0.0000001"), refused("PROOF", "predicate/claims/C3/counts")),
    Case("Weakened", "delta is above the policy's", _two_claims(2, delta="0.2"), refused("POLICY", "predicate/claims/C3/delta")),
    Case("Weakened", "a vacuous region: the ball is a point", _radius(0, "0"), refused("POLICY", "predicate/claims/C1/region/radius")),
    Case("NoSuchRule", "a method that version 1 does not have", at("predicate/claims/0/method", "sampling"), refused("MALFORMED", f"{PAYLOAD}/predicate/claims/0/method")),
    Case("NoSuchRule", "a structural claim about a learned patch", at("predicate/claims/0/method", "structural"), refused("PROOF", "patch.json/family")),
    Case("NoSuchRule", "a claim of exact logits by relaxation", _two_claims(2, kind="retain_exact", delta=None), refused("UNSUPPORTED", "claim retain_exact")),
    Case("Missing", "no proof", lambda _: {_C3: {"absent": True}}, undecided("DATA_MISSING")),
    Case("Missing", "the statement names no proof of a claim", edit(lambda d: d["predicate"]["evidence"].pop(2)), undecided("DATA_MISSING")),
    Case("Assumption", "a record rests on z3, which the policy does not permit", to_z3(_C2), undecided("ASSUMPTION", "assumptions")),
    Case("Assumption", "permitted, but the statement does not say so", lambda c: to_z3(_C2)(c).files | {"policy.toml": c.files["policy.toml"].replace(b"permitted_assumptions = []", b'permitted_assumptions = ["z3_unsat:*"]')}, refused("PROOF", "predicate/assumptions")),
    Case("Assumption", "a record rests on z3 in binary32, of which z3 knows nothing", to_z3(_C1), refused("UNSUPPORTED", "claim forget")),
    Case("Assumption", "a record rests on z3 and the method does not say so", to_z3(_C2, method="relaxation"), refused("PROOF", f"{_C2}/smt")),
    Case("PatchFile", "a weight of the learned patch is NaN", _layer(2, bias=_NAN), refused("MALFORMED", f"{_PATCH}/layers/2/bias")),
    Case("PatchFile", "a layer of another shape than its weights", _layer(2, shape=[4, 5]), refused("MALFORMED", f"{_PATCH}/layers/2/weight")),
    Case("PatchFile", "a layer of 2^64 weights", _layer(2, shape=[2**32, 2**32]), undecided("LIMIT", f"{_PATCH}/layers/2/shape")),
    Case("PatchFile", "other weights than were deployed", _layer(2, bias=base64.b64encode(bytes(12) + b"\0\0\x80\x3f").decode()), refused("SUBJECT", "patched.onnx")),
]  # fmt: skip

NOTES = {
    "ProofBytes": Note("PARSING", "2 proofs: truncated evidence", "A proof is read although it was changed or cut, and what is missing counts as proved."),
    "OtherProof": Note("PROOF", "2 proofs: proof of another claim; bound for another norm, radius, region or layer", "The proof is sound, and of something else."),
    "Slopes": Note("PROOF", "2 proofs: flipped slope", "A slope is believed where a rule has to hold for any, or is used for another neuron."),
    "Choices": Note("PROOF", "2 proofs: proof of another claim", "Nothing is proved and counts, or a combination of nothing holds."),
    "Trees": Note("PROOF", "2 proofs: missing leaf, leaf twice, split on another neuron", "The cases do not cover the region, and what lies between them is not proved (a hole in a split tree)."),
    "Multipliers": Note("PROOF", "2 proofs: wrong multiplier sign", "A multiplier of the wrong sign makes a bound better than it is."),
    "Depth": Note("RESOURCES", "2 proofs: infinite depth; 2 JSON: depth", "The stack overflows, or the checker never ends."),
    "Weakened": Note("PROOF", "2 proofs: claim weakened after proof, vacuous region", "The counts of one claim are shown with the numbers of another."),
    "NoSuchRule": Note("PROOF", "1 T20", "A method that the checker does not know, or that does not fit the claim, is passed over instead of refused."),
    "Assumption": Note("POLICY", "1 T20", "A solver's word counts as a proof, and nobody says so."),
}  # fmt: skip
