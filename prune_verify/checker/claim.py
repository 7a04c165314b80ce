"""Claims and how each is decided: from the files, never from a number that the certificate states.

A claim is a kind, an arithmetic, a region and a margin. :func:`decide` answers with an
:class:`Outcome` that the caller compares with the counts in the certificate. What is shared by many
claims (the rebuilt network, the interval pass over D, which balls lie outside which supports) is
computed once by :class:`Problem`.

Source: MATHS 2 (claims), 3.1 (RL), 3.2; THREATS T14 to T18, T26.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from math import prod

import numpy as np
import numpy.typing as npt

from prune_verify.checker import rules
from prune_verify.checker.errors import ProofError, SubjectMismatchError, UnsupportedVersionError
from prune_verify.checker.interval import Intervals, interval_pass, logit_spread
from prune_verify.checker.network import Network, evaluate
from prune_verify.checker.patch import INPUT, JointPatch, LearnedPatch, Patch, ShiftPatch
from prune_verify.checker.rebuild import build
from prune_verify.checker.region import Domain
from prune_verify.checker.sites import Balls, Reader

__all__ = ["CLAIM_KINDS", "REQUEST_KINDS", "Claim", "LabelledRows", "Outcome", "Problem", "decide"]

REQUEST_KINDS = ("records", "class", "records+class")
CLAIM_KINDS = (
    "forget",
    "retain_exact",
    "retain_label",
    "retain_close",
    "band",
    "minimality",
    "locality",
    "forget_class",
    "retain_other_labels",
)
ARITHMETICS = (rules.BINARY32, rules.REAL)
_BATCH = 4096
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Claim:
    """What is claimed, without any result.

    Args:
        kind: ``forget``, ``retain_exact``, ``retain_label``, ``retain_close``, ``band``, ``minimality``,
            ``locality``, ``forget_class`` or ``retain_other_labels`` (MATHS 2).
        arithmetic: ``real`` or ``ieee754-binary32``.
        method: ``structural``, ``relaxation``, ``relaxation+smt``, ``covering-dual``, ``shift-point`` or ``identity``.
        radius: of the ball around each record; None where no record is meant.
        margin: tau of F and FC; None elsewhere.
        label: the class of FC and RC*.
        delta: of RC.
        band: (a, b) of BD: the margin of the forgotten label stays in between; None: between the ends of the gate
            that holds it, in ``patch.json``.
        cover: of M: how many coordinates have to separate each retained ball from a gate, and the balls' radius.
        logits: the logits that RX and L speak of; None for all.
        outside_supports: RC* beside gates speaks of the domain outside their supports, and not of all inputs.

    """

    kind: str
    arithmetic: str
    method: str
    radius: Fraction | None = None
    margin: Fraction | None = None
    label: int | None = None
    delta: Fraction | None = None
    band: tuple[Fraction, Fraction] | None = None
    cover: tuple[int, Fraction] | None = None
    logits: tuple[int, ...] | None = None
    outside_supports: bool = False


@dataclass(frozen=True)
class Outcome:
    """The result of a claim, recomputed.

    ``total = proved + len(unknowns) + len(conflicts)``: a record is proved, or it is not and its index is listed.

    Args:
        total: number of statements (records, or 1).
        proved: how many follow.
        by_bound: how many of the proved follow from a bound on the base rather than from separation (RL).
        unknowns: indices that do not follow.
        conflicts: indices of retained records that lie in a support.
        already_wrong: (index, the base's float answer) of forget records that the base does not answer with y strictly.
        assumptions: names of what the result rests on beside the checker's trust base.
        questions: (forget record, assumption) of what rests on an SMT solver.

    """

    total: int
    proved: int
    by_bound: int = 0
    unknowns: tuple[int, ...] = ()
    conflicts: tuple[int, ...] = ()
    already_wrong: tuple[tuple[int, int], ...] = ()
    assumptions: tuple[str, ...] = ()
    questions: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """Records as the network reads them: ``x`` float32 [count, *input_shape], ``y`` int64 [count]."""

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64]

    def flat(self) -> npt.NDArray[np.float32]:
        """The rows flattened: [count, n]."""
        return self.x.reshape(self.x.shape[0], prod(self.x.shape[1:]))


def strict_answers(network: Network, x: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """The label that ``network`` answers on each row in float32, or -1 where the best logit is tied."""
    answers = []
    for start in range(0, x.shape[0], _BATCH):
        logits = evaluate(network, x[start : start + _BATCH]).astype(np.float64)
        best = logits.max(axis=1)
        tied = (logits == best[:, np.newaxis]).sum(axis=1) != 1
        answers.append(np.where(tied, -1, logits.argmax(axis=1)))
    return np.concatenate(answers).astype(np.int64)


@dataclass(eq=False)
class Problem:
    """The auditor's files, and what is derived from them once.

    Args:
        base: the base network.
        patched: the patched network, as deployed.
        patch: its parameters, or None for a patched network of foreign making.
        domain: D, from the auditor's policy.
        forget: the forget set, or None where no claim needs it.
        retain: the retained set, or None.
        exact: bounds are to be computed in integers.

    Raises:
        SubjectMismatchError: the networks differ in the shape of their input or output.

    """

    base: Network
    patched: Network
    patch: Patch | None
    domain: Domain
    forget: LabelledRows | None = None
    retain: LabelledRows | None = None
    exact: bool = False
    _cache: dict[tuple[str, str], object] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Refuse a patched network that cannot stand in the base's place: one label more would beat every other."""
        for name in ("input_shape", "output_shape"):
            expected, got = str(getattr(self.base, name)), str(getattr(self.patched, name))
            if expected != got:
                raise SubjectMismatchError("patched.onnx", f"the base's {name.replace('_', ' ')}", expected, got)

    def require_rebuilt(self) -> None:
        """Establish that the patched network is the base with exactly the patch's nodes (T17), once; else ProofError.

        Raises:
            SubjectMismatchError: the digests differ.

        """
        if ("rebuilt", "") in self._cache:
            return
        if self.patch is None:
            raise ProofError("patch.json", "structural claims need the patch's parameters", "patch.json", "nothing")
        expected, found = build(self.base, self.patch).digest(), self.patched.digest()
        if expected != found:
            raise SubjectMismatchError("patched.onnx", "base and patch.json give the patched network", expected, found)
        self._cache["rebuilt", ""] = True

    def joint_patch(self) -> JointPatch:
        """The patch, rebuilt and of a family with structural rules; any other is refused."""
        self.require_rebuilt()
        if not isinstance(self.patch, JointPatch):
            raise ProofError("patch.json/family", "structural rules", "box or class-cap", "learned or linear-region")
        return self.patch

    def additive_patch(self) -> LearnedPatch | ShiftPatch:
        """The patch, rebuilt and additive; any other is refused."""
        self.require_rebuilt()
        if not isinstance(self.patch, LearnedPatch | ShiftPatch):
            raise ProofError("patch.json/family", "an additive patch", "learned or linear-region", "box or class-cap")
        return self.patch

    def head_bounds(self, arithmetic: str) -> tuple[Fraction, Fraction]:
        """R and Z of MATHS 3.2 over D for the labels that are not forgotten, by one interval pass."""
        if ("bounds", arithmetic) not in self._cache:
            lower, upper = self.domain.outward(self.base.input_shape)
            intervals = interval_pass(self.base, lower[np.newaxis], upper[np.newaxis], arithmetic)
            self._cache["bounds", arithmetic] = _spread(self.base, intervals, self.joint_patch().allowed)
        found = self._cache["bounds", arithmetic]
        return found  # type: ignore[return-value] # stored three lines above

    def head(self, arithmetic: str) -> JointPatch:
        """The patch, with rule joint_head established in ``arithmetic`` where it has gates."""
        patch = self.joint_patch()
        if patch.gates and ("head", arithmetic) not in self._cache:
            spread, magnitude = self.head_bounds(arithmetic)
            (rules.hold_head if patch.holds else rules.joint_head)(patch, spread, magnitude, arithmetic)
            self.require_part_outside(patch, arithmetic)
            self._cache["head", arithmetic] = True
        return patch

    def rows(self, which: str) -> LabelledRows:
        """The set ``which``, forget or retain; one that is missing is refused."""
        found = self.forget if which == "forget" else self.retain
        if found is None:
            raise ProofError(f"{which} set", "records of a claim over records", "the records", "nothing")
        return found

    def separation(self, which: str, radius: Fraction, arithmetic: str) -> rules.Separation:
        """Which balls of ``radius`` around the records of a set lie outside the supports."""
        key, patch = (f"separation/{which}/{radius}", arithmetic), self.joint_patch()
        if key not in self._cache and patch.sites == (INPUT,):
            found = rules.separate(patch.gates, self.rows(which).flat(), radius, ARITHMETICS)
            for name, value in found.items():
                self._cache[f"separation/{which}/{radius}", name] = value
        elif key not in self._cache:
            balls, count = self._balls(which, radius), len(self.rows(which).y)
            self._cache[key] = self._reader(arithmetic).separate(balls, count)
        return self._cache[key]  # type: ignore[return-value] # only Separation is stored under such keys

    def _balls(self, which: str, radius: Fraction) -> Balls:
        """The boxes of some records of a set."""
        rows = self.rows(which)
        return lambda records: self.domain.ball(rows.x[records], radius)

    def _reader(self, arithmetic: str) -> Reader:
        patch = self.joint_patch()
        return Reader(self.base, patch.sites, patch.gates, arithmetic, exact=self.exact)

    def opened(self, radius: Fraction, arithmetic: str) -> Bools:
        """Which forget records' balls of ``radius`` lie in a gate of their label and name: bool [gates, records]."""
        patch, rows = self.joint_patch(), self.rows("forget")
        held = np.zeros((len(patch.gates), len(rows.y)), dtype=np.bool_)
        every = np.arange(len(rows.y))
        known = (
            None if patch.sites == (INPUT,) else self._reader(arithmetic).opened(self._balls("forget", radius), every)
        )
        flat = rows.flat()
        for place, gate in enumerate(patch.gates):
            for record in gate.records:
                if record < len(rows.y) and rows.y[record] == gate.label:
                    held[place, record] = (
                        rules.gate_open(gate, flat[record], radius, self.domain)
                        if known is None
                        else known[place, record]
                    )
        return held

    def require_part_outside(self, patch: JointPatch, arithmetic: str) -> None:
        """Rule gate_leaves_part_of_domain (T25), else ProofError: an edge in D; at hidden sites, a record outside."""
        if patch.sites == (INPUT,):
            for index, gate in enumerate(patch.gates):
                rules.gate_leaves_part_of_domain(gate, index, self.domain)
            return
        which = "forget" if self.retain is None else "retain"
        excludes = self.separation(which, Fraction(0), arithmetic).excludes
        if not excludes.all():
            path, expected = f"patch.json/gates/{int(excludes.argmin())}", f"a {which} record outside the support"
            raise ProofError(path, "gate: it excludes part of the domain", expected, "none")

    def already_wrong(self) -> tuple[tuple[int, int], ...]:
        """Forget records that the base does not answer with their label strictly, with its answer (T16, T26)."""
        if ("wrong", "") not in self._cache:
            forget = self.rows("forget")
            answers = strict_answers(self.base, forget.x)
            wrong = np.flatnonzero(answers != forget.y)
            self._cache["wrong", ""] = tuple((int(i), int(answers[i])) for i in wrong)
        return self._cache["wrong", ""]  # type: ignore[return-value] # stored one line above


def _spread(network: Network, intervals: Intervals, labels: tuple[int, ...]) -> tuple[Fraction, Fraction]:
    lower, upper = intervals.output()
    chosen = list(labels)
    magnitude = float(np.maximum(np.abs(lower), np.abs(upper))[0, chosen].max())
    return Fraction(float(logit_spread(network, intervals, labels))), Fraction(magnitude)


def _radius(claim: Claim) -> Fraction:
    if claim.radius is None:
        raise ProofError(f"claim {claim.kind}", "region", "a ball with a radius", "nothing")
    return claim.radius


def _margin(claim: Claim) -> Fraction:
    if claim.margin is None:
        raise ProofError(f"claim {claim.kind}", "margin", "a margin", "nothing")
    return claim.margin


def _forget(problem: Problem, claim: Claim) -> Outcome:
    """F: every forget record's ball lies in an open gate of its label, and some label is closed on it."""
    patch, rows, radius = problem.joint_patch(), problem.rows("forget"), _radius(claim)
    proved = np.zeros(len(rows.y), dtype=np.bool_)
    if patch.forgotten_classes:
        rules.class_cap(patch, _margin(claim), claim.arithmetic)
        proved |= np.isin(rows.y, patch.forgotten_classes)
    if patch.gates:
        if patch.holds:
            raise ProofError(
                "claim forget", "a head that takes the label away", "gates without hold", "gates that hold"
            )
        problem.head(claim.arithmetic)
        rules.head_margin(patch, _margin(claim), problem.head_bounds(claim.arithmetic)[1], claim.arithmetic)
        one_closed = problem.separation("forget", radius, claim.arithmetic).label_closed(patch.allowed)
        proved |= problem.opened(radius, claim.arithmetic).any(axis=0) & one_closed
    unknowns = tuple(int(i) for i in np.flatnonzero(~proved))
    return Outcome(len(rows.y), int(proved.sum()), unknowns=unknowns, already_wrong=problem.already_wrong())


def _band(problem: Problem, claim: Claim) -> Outcome:
    """BD: every forget record's ball lies in an open gate that holds the margin in the band; all others are closed.

    Without a band the claim speaks of the ends that each gate holds, up to the rounding of rule hold_within.
    """
    patch, rows, radius = problem.joint_patch(), problem.rows("forget"), _radius(claim)
    if not patch.holds:
        raise ProofError("claim band", "structural rules", "gates that hold a margin", "gates that do not")
    problem.head(claim.arithmetic)
    magnitude, band = problem.head_bounds(claim.arithmetic)[1], claim.band
    within = [band is None or rules.hold_within(gate, band, magnitude, claim.arithmetic) for gate in patch.gates]
    alone = problem.separation("forget", radius, claim.arithmetic).left == 1  # then it is the gate that is open
    proved = (problem.opened(radius, claim.arithmetic) & np.array(within)[:, np.newaxis]).any(axis=0) & alone
    unknowns = tuple(int(i) for i in np.flatnonzero(~proved))
    return Outcome(len(rows.y), int(proved.sum()), unknowns=unknowns, already_wrong=problem.already_wrong())


def _require_logits(problem: Problem, claim: Claim) -> JointPatch:
    """The patch, when the claim speaks of exactly the logits that the patch leaves alone (those of A)."""
    patch = problem.head(claim.arithmetic)
    if (patch.allowed if claim.logits is None else claim.logits) != patch.allowed or (
        claim.logits is None and patch.forgotten_classes
    ):
        raise ProofError(
            f"claim {claim.kind}/logits", "logits that the patch keeps", str(patch.allowed), str(claim.logits)
        )
    return patch


def _conflicts(closed: Bools, by_bound: int = 0) -> Outcome:
    conflicts = tuple(int(i) for i in np.flatnonzero(~closed))
    return Outcome(len(closed), len(closed) - len(conflicts), by_bound=by_bound, conflicts=conflicts)


def _retain_exact(problem: Problem, claim: Claim) -> Outcome:
    """RX: on a ball outside every support the logits of A are those of the base, bit for bit."""
    patch = _require_logits(problem, claim)
    if not patch.gates:
        return _conflicts(np.ones(len(problem.rows("retain").y), dtype=np.bool_))
    return _conflicts(problem.separation("retain", _radius(claim), claim.arithmetic).closed)


def _retain_label(problem: Problem, claim: Claim) -> Outcome:
    """RL: where all gates are closed; else where the base answers none of the labels with an open gate (by a bound)."""
    patch = _require_logits(problem, claim)
    if patch.forgotten_classes:  # the base may answer a forgotten class somewhere on the ball
        got = str(patch.forgotten_classes)
        raise ProofError("claim retain_label", "labels of balls stay where no class is forgotten", "no class", got)
    separation = problem.separation("retain", _radius(claim), claim.arithmetic)
    kept = separation.closed.copy()
    for record in np.flatnonzero(~kept) if not patch.holds else ():  # such a head may raise a label too
        labels = tuple(
            label for label in patch.allowed if label in separation.touched and separation.touched[label][record]
        )
        kept[record] = _never_answers(problem, claim, int(record), labels)
    return _conflicts(kept, by_bound=int(kept.sum() - separation.closed.sum()))


def _never_answers(problem: Problem, claim: Claim, record: int, labels: tuple[int, ...]) -> bool:
    """Whether the base is proved to answer none of ``labels`` on the ball: its own answer there beats each of them."""
    from prune_verify.checker.relaxation import beats

    x = problem.rows("retain").x[record : record + 1]
    answer = int(strict_answers(problem.base, x)[0])
    if answer < 0 or answer in labels:
        return False
    lower, upper = problem.domain.ball(x, _radius(claim))
    return beats(problem.base, lower, upper, answer, labels, claim.arithmetic, exact=problem.exact)


def _locality(problem: Problem, claim: Claim) -> Outcome:
    """L: outside the declared supports nothing changes on D; it is rule joint_head itself."""
    _require_logits(problem, claim)
    return Outcome(1, 1)


def _forget_class(problem: Problem, claim: Claim) -> Outcome:
    """FC: the forgotten class is never answered, whatever the input."""
    patch = problem.joint_patch()
    if claim.label not in patch.forgotten_classes:
        got = str(claim.label)
        raise ProofError("claim forget_class/label", "a forgotten class", str(patch.forgotten_classes), got)
    rules.class_cap(patch, _margin(claim), claim.arithmetic)
    return Outcome(1, 1)


def _retain_other_labels(problem: Problem, claim: Claim) -> Outcome:
    """RC*: an answer that is not a forgotten class stays (outside the supports of gates, where there are any)."""
    patch = problem.head(claim.arithmetic)
    if claim.label not in patch.forgotten_classes:
        got = str(claim.label)
        raise ProofError("claim retain_other_labels/label", "a forgotten class", str(patch.forgotten_classes), got)
    if claim.outside_supports != bool(patch.gates):  # gates redirect other labels inside their supports
        expected = "domain-outside-supports" if patch.gates else "all-inputs"
        raise ProofError("claim retain_other_labels/quantifier", "reach of the claim", expected, "the other one")
    return Outcome(1, 1)


_STRUCTURAL: dict[str, Callable[[Problem, Claim], Outcome]] = {
    "forget": _forget,
    "band": _band,
    "retain_exact": _retain_exact,
    "retain_label": _retain_label,
    "locality": _locality,
    "forget_class": _forget_class,
    "retain_other_labels": _retain_other_labels,
}


def decide(problem: Problem, claim: Claim) -> Outcome:
    """Decide one claim from the files.

    Returns:
        What follows. A claim over records may be proved for some of them only.

    Raises:
        ProofError: a side condition that concerns the whole claim fails.
        UnsupportedVersionError: no rule for this kind and method.

    """
    rule = _STRUCTURAL.get(claim.kind) if claim.method == "structural" else None
    if rule is None:
        raise UnsupportedVersionError(f"claim {claim.kind}", "method", "a known rule for this kind", claim.method)
    return rule(problem, claim)
