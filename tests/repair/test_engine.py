"""What the engine finds is what the checker's rules accept: open on forget balls, closed on retained ones, conflicts named."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prune_verify.checker import rules
from prune_verify.checker.claim import Claim, LabelledRows, Problem, decide
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.patch import JointPatch
from prune_verify.checker.rebuild import build
from prune_verify.checker.region import Domain
from prune_verify.repair.engine import repair_box, repair_class_cap
from prune_verify.repair.errors import InfeasiblePatchError, RepairInputError
from prune_verify.repair.threat_model import ThreatModel, default_threat_model
from tests.repair.bases import mlp

pytestmark = pytest.mark.prover
UNIT = Domain((Fraction(0),), (Fraction(1),))
BASE = load_network(mlp(), "base.onnx").network
F = np.float32


def rows(count: int, seed: int) -> LabelledRows:
    rng = np.random.default_rng(seed)
    return LabelledRows(rng.random((count, 12)).astype(F), rng.integers(0, 5, count))


def problem(patch: JointPatch, forget: LabelledRows, retain: LabelledRows, model: ThreatModel) -> Problem:
    return Problem(BASE, build(BASE, patch), patch, model.domain, forget, retain)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 60), st.integers(1, 3))
def test_every_claim_that_the_engine_promises_is_decided(seed: int, forget: int, retain: int, cover: int) -> None:
    model = replace(default_threat_model(UNIT), cover=cover)
    forgotten, kept = rows(forget, seed), rows(retain, seed + 1)
    found = repair_box(BASE, forgotten, kept, model)
    files = problem(found.patch, forgotten, kept, model)
    for arithmetic in (rules.BINARY32, rules.REAL):
        exact = decide(files, Claim("retain_exact", arithmetic, "structural", radius=model.retained_radius))
        assert exact.conflicts == found.conflicts
        assert exact.proved == retain - len(found.conflicts)
        forgetting = decide(files, Claim("forget", arithmetic, "structural", model.radius, model.margin))
        open_together = _all_labels_touched(found.patch, forgotten, model)
        assert set(forgetting.unknowns) <= open_together
        assert decide(files, Claim("locality", arithmetic, "structural")).proved == 1


def _all_labels_touched(patch: JointPatch, forget: LabelledRows, model: ThreatModel) -> set[int]:
    """Forget records on whose balls gates of every label may be open: the one side condition that repair cannot always meet."""
    found = rules.separate(patch.gates, forget.flat(), model.radius, (rules.BINARY32,))[rules.BINARY32]
    return {int(i) for i in np.flatnonzero(~found.label_closed(patch.allowed))}


def test_a_near_duplicate_is_a_conflict_by_name() -> None:
    forget, retain = rows(3, 0), rows(40, 1)
    retain.x[17] = np.clip(forget.x[1] + F(0.01), 0, 1)
    found = repair_box(BASE, forget, retain, default_threat_model(UNIT))
    assert found.conflicts == (17,)


def test_twins_in_the_forget_set_share_a_gate() -> None:
    forget, retain = rows(3, 0), rows(40, 1)
    forget.x[2], forget.y[2] = forget.x[0], forget.y[0]
    found = repair_box(BASE, forget, retain, default_threat_model(UNIT))
    assert [gate.records for gate in found.patch.gates] == [(0, 2), (1,)]


def test_records_of_a_forgotten_class_need_no_gate() -> None:
    forget, retain = rows(6, 0), rows(40, 1)
    forget.y[:3] = 2
    forget.y[3:] = 1
    model = default_threat_model(UNIT)
    found = repair_box(BASE, forget, retain, model, classes=(2,))
    assert [gate.records for gate in found.patch.gates] == [(3,), (4,), (5,)]
    files = problem(found.patch, forget, retain, model)
    claim = Claim("forget", rules.BINARY32, "structural", model.radius, model.margin)
    assert decide(files, claim).proved == 6


def test_minimal_finds_no_larger_gates_and_says_what_is_known() -> None:
    forget, retain = rows(4, 5), rows(200, 6)
    model = default_threat_model(UNIT)
    greedy = repair_box(BASE, forget, retain, model)
    fewest = repair_box(BASE, forget, retain, model, minimal=5.0)
    assert all(a.coordinates <= b.coordinates for a, b in zip(fewest.sizes, greedy.sizes, strict=True))
    assert all(size.lower_bound is not None and size.lower_bound <= size.coordinates for size in fewest.sizes)
    assert fewest.conflicts == greedy.conflicts


def test_class_cap() -> None:
    found = repair_class_cap(BASE, (3, 1), default_threat_model(UNIT))
    assert (found.patch.family, found.patch.forgotten_classes, found.patch.gates) == ("class-cap", (1, 3), ())
    for arithmetic in (rules.REAL, rules.BINARY32):
        rules.class_cap(found.patch, Fraction(1, 10), arithmetic)


REFUSALS = [
    ("an empty forget set", lambda: repair_box(BASE, rows(0, 0), rows(5, 1), default_threat_model(UNIT)), "forget set is empty"),
    ("an empty retained set", lambda: repair_box(BASE, rows(2, 0), rows(0, 1), default_threat_model(UNIT)), "retained set is empty"),
    ("a class that does not exist", lambda: repair_class_cap(BASE, (5,), default_threat_model(UNIT)), "labels 0 to 4"),
    ("no label left", lambda: repair_class_cap(BASE, (0, 1, 2, 3, 4), default_threat_model(UNIT)), "0 labels would be left"),
    ("one label left beside records", lambda: repair_box(BASE, rows(2, 0), rows(5, 1), default_threat_model(UNIT), classes=(0, 1, 2, 3)), "1 labels would be left"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "call", "text"), REFUSALS, ids=[row[0] for row in REFUSALS])
def test_refusals(sentence: str, call, text: str) -> None:
    with pytest.raises(RepairInputError, match=text):
        call()


def test_a_record_that_nothing_separates_is_named() -> None:
    forget, retain = rows(2, 0), rows(1, 1)
    retain.x[0] = forget.x[1]
    with pytest.raises(InfeasiblePatchError) as caught:
        repair_box(BASE, LabelledRows(forget.x[1:], forget.y[1:]), retain, default_threat_model(UNIT))
    assert caught.value.forget == (0,)
    assert caught.value.exit_code == 3


def test_a_base_that_may_overflow_is_refused() -> None:
    base = load_network(mlp(scale=1e38), "base.onnx").network
    with pytest.raises(InfeasiblePatchError, match="domain"):
        repair_box(base, rows(2, 0), rows(5, 1), default_threat_model(UNIT))


def test_a_head_too_large_is_refused() -> None:
    base = load_network(mlp(scale=1e17), "base.onnx").network
    with pytest.raises(InfeasiblePatchError, match="2\\^60"):
        repair_box(base, rows(2, 0), rows(5, 1), default_threat_model(UNIT))
