"""Vectors about gates at hidden ReLU outputs, gates that hold margins, and shifts with their least size.

The first layer has a neuron for each label's score and one for its negative, so that what a ball shows there is known
exactly; every number here is a short binary fraction. Source: certs/SPEC.md sections 3, 4.1, 4.2, 4.10 and 4.11.
"""

# ruff: noqa: E501 - a row of a table of vectors is one line

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from certs.vector_maker.cases import OK, Build, Case, Note, edit, refused, undecided
from certs.vector_maker.networks import put_patch
from certs.vector_maker.owner import (
    ARITHMETICS,
    DOMAIN,
    LABELS,
    MARGIN,
    RADIUS,
    RETAINED_RADIUS,
    Chain,
    base_model,
    gates_of,
    head_of,
    policy,
    scores,
    sets,
    write,
)
from certs.vector_maker.proofs import by_crown
from prune_verify.checker.bounded_claims import decide_bounded
from prune_verify.checker.claim import Claim, LabelledRows, Outcome, Problem, decide
from prune_verify.checker.encoding import canonical_json, format_binary32
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.patch import Gate, Interval, Patch, ShiftPatch
from prune_verify.checker.patch_json import parse_patch
from prune_verify.checker.proof import emit, parse
from prune_verify.checker.rebuild import difference_network
from prune_verify.checker.rules import REAL
from prune_verify.checker.shift_minimality import decide_shift_minimality, emit_points
from prune_verify.repair.export import export_patched

__all__ = ["HELD_CASES", "HIDDEN_CASES", "NOTES", "SHIFT_CASES", "held", "hidden", "shift"]

F = np.float32
Floats = npt.NDArray[np.float64]
_PATCH = "evidence/patch.json"
_SMALL, _SMALLER = Fraction(1, 128), Fraction(1, 512)  # radii at a hidden site
_ROOM = 2.0**-8  # between what a ball shows and the edges
_BAND = (Fraction(-9, 4), Fraction(11, 4))
_POLICY = {"min_forget_radius": "0.0078125", "min_retained_radius": "0.001953125"}
_MOST = 2.0**12
_PROOFS = ("evidence/C1.proof", "evidence/C2.proof", "evidence/C3.proof", "evidence/C4.proof")


def _problem(base_bytes: bytes, patch: Patch) -> Problem:
    """The files as an auditor has them."""
    base = load_network(base_bytes, "base.onnx")
    x, y, others, labels = sets()
    patched = load_network(export_patched(base_bytes, base, patch), "patched.onnx").network
    return Problem(base.network, patched, patch, DOMAIN, LabelledRows(x, y), LabelledRows(others, labels))


def _proved(chain: list[tuple[Claim, Outcome]]) -> list[tuple[Claim, Outcome]]:
    if any(outcome.proved != outcome.total for _, outcome in chain):
        raise ValueError(chain)
    return chain


def _ball(row: npt.NDArray[np.float32], weight: Floats, radius: Fraction) -> tuple[Floats, Floats]:
    """Least and greatest w x on the ball, cut at D; exact, as all numbers are short."""
    low, high = np.maximum(row - float(radius), 0), np.minimum(row + float(radius), 1)
    up, down = np.maximum(weight, 0), np.minimum(weight, 0)
    return up @ low + down @ high, up @ high + down @ low


def _gates_at_the_relu(gamma: float) -> tuple[Gate, ...]:
    """A box around what each forget ball shows behind the ReLU."""
    x, y, _, _ = sets()
    gates = []
    for index, (row, label) in enumerate(zip(x, y, strict=True)):
        low, high = _ball(row, scores(), _SMALL)
        below, above = np.maximum(np.concatenate([low, -high]), 0), np.maximum(np.concatenate([high, -low]), 0)
        intervals = tuple(
            Interval(j, F(lo - _ROOM) if lo > _ROOM else None, F(hi + _ROOM))
            for j, (lo, hi) in enumerate(zip(below, above, strict=True))
        )
        gates.append(Gate(int(label), F(gamma), intervals, (index,)))
    return tuple(gates)


def hidden() -> Chain:
    """An honest certificate of family ``box`` at site relu-0."""
    base_bytes = base_model().SerializeToString()
    patch = replace(head_of(base_bytes, (), _gates_at_the_relu(64)), sites=("relu-0",))
    problem = _problem(base_bytes, patch)
    kinds = (
        Claim("forget", REAL, "structural", radius=_SMALL, margin=MARGIN),
        Claim("retain_exact", REAL, "structural", radius=_SMALLER),
        Claim("locality", REAL, "structural"),
    )
    claims = [replace(claim, arithmetic=arithmetic) for claim in kinds for arithmetic in ARITHMETICS]
    chain = write("records", patch, _proved([(claim, decide(problem, claim)) for claim in claims]), {}, base_bytes)
    chain.files["policy.toml"] = policy(**_POLICY)
    return chain


def held() -> Chain:
    """An honest certificate of gates at the input that hold margins."""
    base_bytes = base_model().SerializeToString()
    x, y, others, _ = sets()
    ends = ((F(-1), F(1)), (F(-2), F(-1)), (F(0), F(0)), (F(0.5), F(2.5)))
    gates = tuple(replace(g, hold=e) for g, e in zip(gates_of(x, y, others), ends, strict=True))
    patch = replace(head_of(base_bytes, (), gates), tau=F(0), shift=F(0))
    problem = _problem(base_bytes, patch)
    kinds = (
        Claim("band", REAL, "structural", radius=RADIUS, band=_BAND),
        Claim("retain_exact", REAL, "structural", radius=RETAINED_RADIUS),
        Claim("locality", REAL, "structural"),
    )
    claims = [replace(claim, arithmetic=arithmetic) for claim in kinds for arithmetic in ARITHMETICS]
    chain = write("records", patch, _proved([(claim, decide(problem, claim)) for claim in claims]), {}, base_bytes)
    chain.files["policy.toml"] = policy(required_for_records='["band", "retain_exact", "locality"]')
    return chain


# --- shifts ---


def _corners() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Of each forget ball the corner where its label is furthest ahead of the rival at the record; how far; the rival."""
    x, y, _, _ = sets()
    points, ahead, rivals = [], [], []
    for row, label in zip(x, y, strict=True):
        z = scores() @ row
        z[label] = -np.inf
        rivals.append(int(z.argmax()))
        away = scores()[label] - scores()[rivals[-1]]
        point = np.clip(row + np.sign(away) * float(_SMALL), 0, 1)
        points.append(point.astype(F))
        ahead.append(float(away @ point))
    return np.array(points), np.array(ahead), np.array(rivals)


def _shift_patch(factor: float = 1 + 2.0**-11) -> ShiftPatch:
    """Half of the way up for the rival and half of it down for the label, and a little more for rounding."""
    _, ahead, rivals = _corners()
    labels = sets()[1]
    shifts = np.zeros((len(ahead), LABELS), F)
    for place, (far, rival, label) in enumerate(zip(ahead, rivals, labels, strict=True)):
        push = np.ceil((far + float(MARGIN)) / 2 * factor * _MOST) / _MOST
        shifts[place, rival], shifts[place, label] = push, -push
    return ShiftPatch(LABELS, _gates_at_the_relu(64), ("relu-0",), shifts)


def _bounded(problem: Problem) -> list[tuple[Claim, bytes]]:
    """Claims of a shift patch that rest on bounds, each with its proof."""
    kinds = (
        Claim("forget", REAL, "relaxation", radius=_SMALL, margin=MARGIN),
        Claim("retain_close", REAL, "relaxation", radius=_SMALLER, delta=Fraction(1, 10)),
    )
    claims = [replace(claim, arithmetic=arithmetic) for claim in kinds for arithmetic in ARITHMETICS]
    return [(claim, by_crown(problem, claim)) for claim in claims]


def shift() -> Chain:
    """An honest certificate of family ``linear-region``."""
    base_bytes, patch = base_model().SerializeToString(), _shift_patch()
    problem, claims, evidence = _problem(base_bytes, patch), list[tuple[Claim, Outcome]](), dict[str, bytes]()
    for claim, proof in _bounded(problem):
        claims.append((claim, decide_bounded(problem, claim, proof, "proof")))
        evidence[f"C{len(claims)}.proof"] = proof
    least, points = Claim("minimality", REAL, "shift-point", radius=_SMALL, margin=MARGIN), emit_points(_corners()[0])
    claims.append((least, decide_shift_minimality(problem, least, points, "points")))
    evidence[f"C{len(claims)}.proof"] = points
    chain = write("records", patch, _proved(claims), evidence, base_bytes)
    chain.files["policy.toml"] = policy(required_for_records='["forget", "retain_close"]', **_POLICY)
    return chain


# --- forgeries ---


def _json(change: Callable[[dict[str, Any]], object]) -> Build:
    """Another ``patch.json``; the network is the honest one."""

    def build(chain: Chain) -> Chain:
        value = json.loads(chain.files[_PATCH])
        change(value)
        return put_patch(chain, canonical_json(value))

    return build


def _member(**members: object) -> Build:
    return _json(lambda value: value.update(members))


def _gate(**members: object) -> Build:
    return _json(lambda value: value["gates"][0].update(members))


def _deployed(change: Callable[[Any], Patch]) -> Build:
    """Another patch and its network; proofs are for that network as well."""

    def build(chain: Chain) -> Chain:
        patch = change(parse_patch(chain.files[_PATCH], _PATCH).patch)
        chain.deploy(patch)
        networks = {"forget": load_network(chain.files["patched.onnx"], "patched.onnx").network}
        if isinstance(patch, ShiftPatch):
            base = load_network(chain.files["base.onnx"], "base.onnx").network
            networks["retain_close"] = difference_network(base, patch)
        for name in (name for name in _PROOFS if name in chain.files):
            proof = parse(chain.files[name], name)
            chain.swap(name, emit(replace(proof, network=networks[proof.kind].digest())))
        return chain

    return build


def _first(**changed: object) -> Build:
    """Another first gate, deployed."""
    return _deployed(lambda p: replace(p, gates=(replace(p.gates[0], **changed), *p.gates[1:])))


def _both(first: Build, second: Build) -> Build:
    """One change after the other."""
    return lambda chain: second(first(chain))


def _hex(value: float) -> str:
    return format_binary32(F(value))


def _claims(*places: int, **members: object) -> Build:
    def change(document: dict[str, Any]) -> None:
        for place in places:
            document["predicate"]["claims"][place].update(members)

    return edit(change)


def _ball_of(radius: str) -> dict[str, str]:
    return {"kind": "ball", "norm": "linf", "radius": radius}


def _retained_too(*, said: bool) -> Build:
    """All but a forget record is retained as well; the statement says that it is in conflict, or does not."""

    def build(chain: Chain) -> Chain:
        x, y, others, labels = sets()
        rows = others.copy()
        rows[7] = x[0]
        rows[7, 0] += F(2.0**-10)  # the same record in both sets would be refused
        answers = labels.copy()
        answers[7] = y[0]
        chain.records("retain", rows, answers)
        document = chain.statement()
        for claim in document["predicate"]["claims"]:
            if said and claim["kind"] == "retain_exact":
                claim["counts"] |= {"proved": len(answers) - 1, "conflict": 1}
                claim["conflicts"] = [7]
        return chain.put(document)

    return build


def _points(change: Callable[[list[Any]], list[Any]]) -> Build:
    """Other points as evidence of claim M."""

    def build(chain: Chain) -> Chain:
        name = "evidence/C5.proof"
        value = json.loads(chain.files[name])
        return chain.swap(name, canonical_json(value | {"points": change(value["points"])}))

    return build


def _text(values: npt.NDArray[Any], dtype: str = "<f4") -> str:
    return base64.b64encode(values.astype(dtype).tobytes()).decode()


def _centre(place: int) -> npt.NDArray[np.float32]:
    return sets()[0][place]


def _beyond() -> npt.NDArray[np.float32]:
    """The first corner, one coordinate an ulp further."""
    point, row = _corners()[0][0].copy(), _centre(0)
    place = int(np.flatnonzero(point > row)[0])
    point[place] = np.nextafter(point[place], F(2))
    return point


def _raised(factor: float, margin: str | None = None, radius: str | None = None) -> Build:
    """Shifts that are larger than any need, deployed; claim M with a margin or a ball for which they would be least."""

    def build(chain: Chain) -> Chain:
        found = _deployed(lambda p: replace(p, shifts=(p.shifts * F(factor)).astype(F)))(chain)
        document = (found if isinstance(found, Chain) else chain).statement()
        least = document["predicate"]["claims"][4]
        least["margin"] = margin or least["margin"]
        least["region"] = _ball_of(radius) if radius else least["region"]
        return chain.put(document)

    return build


def _twice(unknowns: tuple[int, ...] = ()) -> Build:
    """The first gate twice, deployed, with its point twice; claim M as said."""
    said = {"total": 5, "proved": 5 - len(unknowns), "unknown": len(unknowns)}
    counts = dict.fromkeys(("provedByBound", "refuted", "conflict", "alreadyWrong"), 0) | said
    again = _deployed(
        lambda p: replace(p, gates=(*p.gates, p.gates[0]), shifts=np.concatenate([p.shifts, p.shifts[:1]]))
    )
    return _both(_both(again, _points(lambda p: [*p, p[0]])), _claims(4, counts=counts, unknowns=list(unknowns)))


_COUNTS = "predicate/claims/C{}/counts"
_M = "predicate/claims/C5"
_C5 = "evidence/C5.proof"
_SHIFTS = f"{_PATCH}/shifts"
_SITE = "patch.json/site"

HIDDEN_CASES = [
    Case("Honest", "gates at a hidden ReLU output: forgotten, retained and locality, each in both arithmetics", lambda c: c, OK),
    Case("HiddenSite", "a retained record inside a support, and the statement does not say so", _retained_too(said=False), refused("PROOF", _COUNTS.format(3))),
    Case("HiddenSite", "a retained record inside a support, named as a conflict", _retained_too(said=True), refused("POLICY", "predicate/claims/C3/conflicts")),
    Case("HiddenSite", "a retained record inside a support, named, and the policy bears it", lambda c: _retained_too(said=True)(c).files | {"policy.toml": policy(max_conflicts="1", max_slab_share="0.1", **_POLICY)}, OK),
    Case("HiddenSite", "a box that holds what the record shows and not what its ball does", _deployed(lambda p: replace(p, gates=(replace(p.gates[0], intervals=tuple(replace(i, high=F(np.maximum(np.concatenate([scores() @ _centre(0), -scores() @ _centre(0)]), 0)[i.coordinate] + _ROOM)) for i in p.gates[0].intervals)), *p.gates[1:]))), refused("PROOF", _COUNTS.format(1))),
    Case("HiddenSite", "a slope so flat that the support reaches retained records", _first(gamma=F(0.25)), refused("PROOF", _COUNTS.format(3))),
    Case("HiddenSite", "a slope so flat that no record lies outside the support", _first(gamma=F(2.0**-20)), refused("PROOF", "patch.json/gates/0")),
    Case("HiddenSite", "a gate that names another record", _first(records=(1,)), refused("PROOF", _COUNTS.format(1))),
    Case("HiddenSite", "balls of ten times the radius", _claims(0, 1, region=_ball_of("0.078125")), refused("PROOF", _COUNTS.format(1))),
    Case("Sites", "the site is a ReLU that the base does not have", _member(site=["relu-1"]), refused("MALFORMED", _SITE)),
    Case("Sites", "the site is a pre-activation by the name that the file gives it", _member(site=["h"]), refused("MALFORMED", _SITE)),
    Case("Sites", "one site twice", _member(site=["relu-0", "relu-0"]), refused("MALFORMED", _SITE)),
    Case("Sites", "another spelling of the number", _member(site=["relu-00"]), refused("MALFORMED", _SITE)),
    Case("Sites", "no site", _member(site=[]), refused("MALFORMED", f"{_PATCH}/site")),
    Case("Sites", "the site as a text", _member(site="relu-0"), refused("MALFORMED", f"{_PATCH}/site")),
    Case("Sites", "the input in a list", _member(site=["input"]), refused("MALFORMED", f"{_PATCH}/site")),
    Case("Sites", "the input, whose first coordinates are others", _json(lambda v: v.update(site="input", disclosed=v["disclosed"] | {"bits": v["disclosed"]["bits"] + 3 * v["disclosed"]["coordinates"]})), refused("PROOF", "predicate/patch")),
    Case("Sites", "a coordinate beyond the site", _json(lambda v: v["gates"][0]["intervals"][7].__setitem__(0, 8)), refused("MALFORMED", "patch.json/gates")),
]  # fmt: skip
HELD_CASES = [
    Case("Honest", "gates that hold margins: band, retained and locality, each in both arithmetics", lambda c: c, OK),
    Case("Hold", "ends swapped in patch.json", _gate(hold=[_hex(1), _hex(-1)]), refused("SUBJECT", "patched.onnx")),
    Case("Hold", "ends swapped and deployed", _first(hold=(F(1), F(-1))), refused("PROOF", "patch.json/gates/0/hold")),
    Case("Hold", "wider ends than the band, deployed", _first(hold=(F(-1), F(4))), refused("PROOF", _COUNTS.format(1))),
    Case("Hold", "K that is too small for the domain", _deployed(lambda p: replace(p, slack=F(8))), refused("PROOF", "patch.json/slack")),
    Case("Hold", "ends for which K is too small", _first(hold=(F(-_MOST), F(1))), refused("PROOF", "patch.json/slack")),
    Case("Hold", "a NaN end", _gate(hold=["7fc00000", _hex(1)]), refused("MALFORMED", f"{_PATCH}/gates/0/hold")),
    Case("Hold", "one end", _gate(hold=[_hex(1)]), refused("MALFORMED", f"{_PATCH}/gates/0/hold")),
    Case("Hold", "one gate without ends", _json(lambda v: v["gates"][0].pop("hold")), refused("MALFORMED", f"{_PATCH}/gates")),
    Case("Hold", "tau beside gates that hold", _member(tau=_hex(0.125)), refused("MALFORMED", f"{_PATCH}/gates")),
    Case("Hold", "a band that ends just above what an end may round to", _claims(0, band={"lower": "-2.25", "upper": "2.5"}), refused("PROOF", _COUNTS.format(1))),
    Case("Hold", "the same band over the reals: exact", _claims(1, band={"lower": "-2", "upper": "2.5"}), OK),
    Case("Hold", "no band: each gate's own ends, which are narrower than the policy's band", _claims(0, 1, band=None), OK),
    Case("Hold", "no band, and ends wider apart than the policy's band", _both(_first(hold=(F(-3), F(3))), _claims(0, 1, band=None)), refused("POLICY", "predicate/claims/C1/band")),
    Case("Hold", "a band of nothing beside no gates that hold", _both(_claims(0, 1, band=None), _deployed(lambda p: replace(p, tau=F(0.125), shift=F(64), slack=F(256), gates=tuple(replace(g, hold=None) for g in p.gates)))), refused("PROOF", "claim band")),
    Case("Hold", "a band that is wider than the policy's", _claims(0, 1, band={"lower": "-3", "upper": "3"}), refused("POLICY", "predicate/claims/C1/band")),
    Case("Hold", "the label is said to lose where its margin is held", _claims(0, 1, kind="forget", band=None, margin="0.05"), refused("PROOF", "claim forget")),
    Case("OtherTerms", "a margin of a claim that a band is held", _claims(0, margin="100"), refused("PROOF", "predicate/claims/C1/margin")),
    Case("OtherTerms", "a ball of a claim about the domain", _claims(4, region=_ball_of("0.5")), refused("PROOF", "predicate/claims/C5/region")),
    Case("OtherTerms", "a band of a claim of exact logits", _claims(2, band={"lower": "0", "upper": "0"}), refused("PROOF", "predicate/claims/C3/band")),
    Case("Hold", "a record of another label than its gate", _first(label=2), refused("PROOF", _COUNTS.format(1))),
    Case("Hold", "two gates open on one ball", _deployed(lambda p: replace(p, gates=(replace(p.gates[1], label=p.gates[0].label, hold=(F(-1), F(1))), *p.gates))), refused("PROOF", _COUNTS.format(1))),
]  # fmt: skip
SHIFT_CASES = [
    Case("Honest", "a shift patch: forgotten, retained closely, and no shift larger than it has to be", lambda c: c, OK),
    Case("Shifts", "smaller shifts in patch.json than are deployed", _member(shifts=_text(np.zeros((4, LABELS)))), refused("SUBJECT", "patched.onnx")),
    Case("Shifts", "a row too few", _member(shifts=_text(np.zeros((3, LABELS)))), refused("MALFORMED", _SHIFTS)),
    Case("Shifts", "a number too many", _member(shifts=_text(np.zeros(4 * LABELS + 1))), refused("MALFORMED", _SHIFTS)),
    Case("Shifts", "NaN", _member(shifts=_text(np.full((4, LABELS), np.nan))), refused("MALFORMED", _SHIFTS)),
    Case("Shifts", "infinity", _member(shifts=_text(np.full((4, LABELS), np.inf))), refused("MALFORMED", _SHIFTS)),
    Case("Shifts", "float64", _member(shifts=_text(np.zeros((4, LABELS)), "<f8")), refused("MALFORMED", _SHIFTS)),
    Case("Shifts", "loose base64", _json(lambda v: v.update(shifts=v["shifts"].rstrip("=") + "===")), refused("MALFORMED", _SHIFTS)),
    Case("Shifts", "gates that hold margins", _gate(hold=[_hex(-1), _hex(1)]), refused("MALFORMED", f"{_PATCH}/gates")),
    Case("Shifts", "the constants of a head", _member(tau=_hex(1)), refused("MALFORMED", _PATCH)),
    Case("Shifts", "shifts that are too small to forget, deployed", _raised(0.5), refused("PROOF", _COUNTS.format(1))),
    Case("Shifts", "a structural claim about a shift patch", _claims(0, method="structural"), refused("PROOF", "patch.json/family")),
    Case("LeastShift", "shifts of twice the least, deployed", _raised(2), refused("PROOF", f"{_M}/counts")),
    Case("LeastShift", "shifts of twice the least, and a margin for which they would be least", _raised(2, margin="12"), refused("PROOF", _M)),
    Case("LeastShift", "shifts of a hundredth more, and a ball in which they would be least", _raised(1.01, radius="0.015625"), refused("PROOF", _M)),
    Case("LeastShift", "in binary32, of which exact logits say nothing", _claims(4, arithmetic="ieee754-binary32"), refused("UNSUPPORTED", "claim minimality")),
    Case("LeastShift", "a point an ulp beyond the ball", _points(lambda p: [_text(_beyond()), *p[1:]]), refused("PROOF", f"{_M}/counts")),
    Case("LeastShift", "the points of two gates exchanged", _points(lambda p: [p[1], p[0], *p[2:]]), refused("PROOF", f"{_M}/counts")),
    Case("LeastShift", "the record itself, where less is needed than at the corner", _points(lambda p: [_text(_centre(0)), *p[1:]]), refused("PROOF", f"{_M}/counts")),
    Case("LeastShift", "a point of NaN", _points(lambda p: [_text(np.full(64, np.nan)), *p[1:]]), refused("PROOF", f"{_M}/counts")),
    Case("LeastShift", "a point in float64", _points(lambda p: [_text(_centre(0), "<f8"), *p[1:]]), refused("MALFORMED", f"{_C5}/points/0")),
    Case("LeastShift", "a point too few", _points(lambda p: p[1:]), refused("PROOF", f"{_C5}/points")),
    Case("LeastShift", "a point too many", _points(lambda p: [*p, p[0]]), refused("MALFORMED", f"{_C5}/points")),
    Case("LeastShift", "no points", lambda _: {_C5: {"absent": True}}, undecided("DATA_MISSING")),
    Case("LeastShift", "a cover, of which this method says nothing", _claims(4, cover={"count": 1000, "retainedRadius": "0.5"}), refused("PROOF", f"{_M}/cover")),
    Case("OtherTerms", "a delta of a claim that a label is forgotten", _claims(0, delta="0.0000001"), refused("PROOF", "predicate/claims/C1/delta")),
    Case("OtherTerms", "a margin of a claim that logits stay close", _claims(2, margin="100"), refused("PROOF", "predicate/claims/C3/margin")),
    Case("LeastShift", "the method of boxes", _claims(4, method="covering-dual", cover={"count": 1, "retainedRadius": "0.001953125"}), refused("PROOF", "patch.json/family")),
]  # fmt: skip
TOGETHER_CASES = [
    Case("LeastShift", "the same gate twice, each the least for its record, and twice as much together", _twice(), refused("PROOF", f"{_M}/counts")),
    Case("LeastShift", "the same gate twice, and the statement says that neither is shown to be least", _twice((0, 4)), undecided("UNKNOWN")),
]  # fmt: skip

NOTES = {
    "HiddenSite": Note("PROOF", "2 proofs: bound for another norm, radius, region or layer", "What a gate reads at a hidden output is judged at the record and not on its ball, or not at all."),
    "Sites": Note("PARSING", "1 T17", "A site is looked up by a name that the owner chose, or read where a runtime computes something else."),
    "Hold": Note("PROOF", "1 T14", "A margin is held elsewhere than is said, or by a head whose constants do not suffice."),
    "OtherTerms": Note("PROOF", "2 proofs: claim weakened after proof, vacuous region", "A number that no rule reads is shown beside the claim as if it were proved."),
    "Shifts": Note("PARSING", "1 T17", "Other numbers are added to the logits than the file says, or numbers that are none."),
    "LeastShift": Note("PROOF", "2 proofs: claim weakened after proof, vacuous region", "A shift counts as least by a point outside of the ball, or beside a margin or a ball that the patch is not for."),
}  # fmt: skip
