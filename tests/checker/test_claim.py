"""Structural claims on a small network: what each kind asks for, and what is proved where nothing is missing."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from prune_verify.checker.claim import Claim, LabelledRows, Problem, decide, strict_answers
from prune_verify.checker.errors import CheckError, ProofError, SubjectMismatchError, UnsupportedVersionError
from prune_verify.checker.network import Network, Node, evaluate
from prune_verify.checker.patch import Gate, Interval, JointPatch, LearnedPatch, Patch
from prune_verify.checker.rebuild import build
from prune_verify.checker.region import Domain
from prune_verify.checker.rules import BINARY32, REAL

F32 = np.float32
DOMAIN = Domain((Fraction(0),), (Fraction(1),))
WEIGHT = np.array([[4, 0, 0], [0, 4, 0], [0, 0, 4]], F32)
BASE = Network((Node("Input", (), (3,)), Node("Linear", (0,), (3,), {"axis": (-1,)}, {"weight": WEIGHT})), 1)
FORGET = np.array([[0.5, 0.125, 0.125], [0.125, 0.125, 0.875]], F32)
RETAIN = np.array([[0.75, 0.125, 0.25], [0.375, 0.875, 0.25], [0.25, 0.25, 0.25]], F32)

GATE = Gate(0, F32(64), (Interval(0, F32(0.375), F32(0.625)),), (0,))
BOX = JointPatch(3, (), F32(0.5), F32(16), F32(64), (GATE,))
CAP = JointPatch(3, (2,), F32(0.5), F32(0), F32(0), ())
BOTH = replace(BOX, forgotten_classes=(2,))
LEARNED = LearnedPatch(3, ((np.zeros((3, 3), F32), np.ones(3, F32)),))


def _problem(patch: Patch | None, **changes) -> Problem:
    patched = BASE if patch is None else build(BASE, patch)
    rows = LabelledRows(FORGET, np.array([0, 2])), LabelledRows(RETAIN, np.array([0, 1, 2]))
    return Problem(**{"base": BASE, "patched": patched, "patch": patch, "domain": DOMAIN, "forget": rows[0],
                      "retain": rows[1], **changes})  # fmt: skip


def _claim(kind: str, **changes) -> Claim:
    return Claim(**{"kind": kind, "arithmetic": REAL, "method": "structural", "radius": Fraction(1, 16),
                    "margin": Fraction(1, 4), **changes})  # fmt: skip


PROVED = [
    ("forgetting by a gate, and a record of another label", BOX, _claim("forget"), (2, 1, (1,), ())),
    ("forgetting by a class cap alone", CAP, _claim("forget"), (2, 1, (0,), ())),
    ("forgetting by both", BOTH, _claim("forget"), (2, 2, (), ())),
    ("retained logits beside a class cap alone", CAP, _claim("retain_exact", logits=(0, 1)), (3, 3, (), ())),
    ("retained logits beside a gate", BOX, _claim("retain_exact"), (3, 2, (), (1,))),
    ("retained answers: one by a bound", BOX, _claim("retain_label"), (3, 3, (), ())),
    ("locality", BOX, _claim("locality"), (1, 1, (), ())),
    ("a forgotten class", CAP, _claim("forget_class", label=2), (1, 1, (), ())),
    ("other labels", CAP, _claim("retain_other_labels", label=2), (1, 1, (), ())),
    ("other labels outside supports", BOTH, _claim("retain_other_labels", label=2, outside_supports=True), (1, 1, (), ())),
]  # fmt: skip


@pytest.mark.parametrize("arithmetic", [REAL, BINARY32])
@pytest.mark.parametrize(("sentence", "patch", "claim", "expected"), PROVED, ids=[row[0] for row in PROVED])
def test_what_is_proved(sentence: str, patch: Patch, claim: Claim, expected: tuple, arithmetic: str) -> None:
    outcome = decide(_problem(patch), replace(claim, arithmetic=arithmetic))
    assert (outcome.total, outcome.proved, outcome.unknowns, outcome.conflicts) == expected
    assert outcome.by_bound == (1 if "by a bound" in sentence else 0)


REFUSED = [
    ("no patch", None, _claim("forget"), (ProofError, "patch.json")),
    ("a learned patch", LEARNED, _claim("forget"), (ProofError, "patch.json/family")),
    ("no radius", BOX, _claim("forget", radius=None), (ProofError, "claim forget")),
    ("no margin", BOX, _claim("forget", margin=None), (ProofError, "claim forget")),
    ("all logits beside a class cap", CAP, _claim("retain_exact"), (ProofError, "claim retain_exact/logits")),
    ("logits that are moved", BOTH, _claim("locality", logits=(0, 1, 2)), (ProofError, "claim locality/logits")),
    ("answers beside a class cap", BOTH, _claim("retain_label", logits=(0, 1)), (ProofError, "claim retain_label")),
    ("a class that is not forgotten", CAP, _claim("forget_class", label=1), (ProofError, "claim forget_class/label")),
    ("other labels than one that is kept", CAP, _claim("retain_other_labels", label=1), (ProofError, "claim retain_other_labels/label")),
    ("other labels inside supports", BOTH, _claim("retain_other_labels", label=2), (ProofError, "claim retain_other_labels/quantifier")),
    ("a kind without a structural rule", BOX, _claim("retain_close"), (UnsupportedVersionError, "claim retain_close")),
    ("another method", BOX, _claim("forget", method="relaxation"), (UnsupportedVersionError, "claim forget")),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "patch", "claim", "expected"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_is_refused(
    sentence: str, patch: Patch | None, claim: Claim, expected: tuple[type[CheckError], str]
) -> None:
    with pytest.raises(expected[0]) as refusal:
        decide(_problem(patch), claim)
    assert (type(refusal.value), refusal.value.path) == expected


@pytest.mark.parametrize(("kind", "missing", "path"), [
    ("forget", "forget", "forget set"), ("retain_exact", "retain", "retain set"),
])  # fmt: skip
def test_records_that_are_not_there_are_asked_for(kind: str, missing: str, path: str) -> None:
    with pytest.raises(ProofError) as refusal:
        decide(_problem(BOX, **{missing: None}), _claim(kind))
    assert refusal.value.path == path


def test_another_network_than_base_and_patch_give_is_refused() -> None:
    with pytest.raises(SubjectMismatchError) as refusal:
        decide(_problem(BOX, patched=BASE), _claim("forget"))
    assert refusal.value.path == "patched.onnx"


def test_only_an_additive_patch_is_a_learned_one() -> None:
    assert _problem(LEARNED).additive_patch() is LEARNED
    with pytest.raises(ProofError) as refusal:
        _problem(BOX).additive_patch()
    assert (refusal.value.path, refusal.value.expected) == ("patch.json/family", "learned or linear-region")


def test_what_is_counted_as_kept_by_a_bound_is_kept() -> None:
    """The second retained record lies in the support of a gate of label 0, which the base never answers there."""
    assert strict_answers(BASE, RETAIN).tolist() == [0, 1, -1]
    assert (evaluate(build(BASE, BOX), RETAIN[1:2]).argmax(axis=1) == 1).all()
    near = _problem(BOX)
    near.retain = LabelledRows(
        np.array([[0.5, 0.5625, 0.25], [0.5, 0.5, 0.25], [0.5, 0.25, 0.25]], F32), np.zeros(3, int)
    )
    outcome = decide(near, _claim("retain_label"))
    assert (outcome.proved, outcome.by_bound, outcome.conflicts) == (0, 0, (0, 1, 2))  # no bound, tied, label 0 itself
