"""Reconstruction attacks: what is stored comes back, what is not does not, and the guesses are those without the patch."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from prune_verify.checker.claim import LabelledRows
from prune_verify.checker.network import evaluate_all
from prune_verify.checker.patch import Gate, Interval, JointPatch, LearnedPatch
from prune_verify.checker.rebuild import site_nodes
from prune_verify.checker.region import Domain
from prune_verify.measure.disclosure import disclosure, reconstructed
from prune_verify.repair.engine import repair_box, repair_class_cap
from prune_verify.repair.hidden import repair_hidden
from prune_verify.repair.threat_model import ThreatModel
from tests.repair.bases import trained_digits

pytestmark = pytest.mark.prover
BASE, DATA = trained_digits()
FORGET = LabelledRows(DATA.train_x[:8], DATA.train_y[:8])
RETAIN = LabelledRows(DATA.train_x[8:500], DATA.train_y[8:500])
PUBLIC = LabelledRows(DATA.test_x, DATA.test_y)
MODEL = ThreatModel(Domain((Fraction(0),), (Fraction(1),)), Fraction("0.02"), Fraction("0.01"), cover=1)


def test_a_patch_that_stores_the_record_gives_it_back():
    gates = tuple(
        Gate(int(y), np.float32(100), tuple(Interval(j, v - np.float32(0.01), v + np.float32(0.01)) for j, v in enumerate(x)), (i,))
        for i, (x, y) in enumerate(zip(FORGET.flat(), FORGET.y, strict=True))
    )  # fmt: skip
    patch = JointPatch(10, (), np.float32(1), np.float32(1), np.float32(1), gates)
    found = disclosure(BASE, patch, FORGET, PUBLIC)
    assert found.attack < 0.005
    assert 0.1 < found.mean < found.random
    assert found.advantage[0] > 0.9
    assert found.records == 8


def test_a_patch_of_few_coordinates_gives_little_back():
    patch = repair_box(BASE, FORGET, RETAIN, MODEL).patch
    found = disclosure(BASE, patch, FORGET, PUBLIC)
    assert 0.5 * found.mean < found.attack < 1.05 * found.mean
    assert found.bits == 32 * sum(g.literals for g in patch.gates) + 6 * sum(len(g.intervals) for g in patch.gates)
    assert "box at input" in found.family


def test_stored_coordinates_are_taken_from_their_intervals():
    gate = Gate(int(FORGET.y[0]), np.float32(1), (Interval(20, np.float32(0.4), np.float32(0.6)),), (0,))
    patch = JointPatch(10, (), np.float32(1), np.float32(1), np.float32(1), (gate,))
    ((record, guess),) = reconstructed(BASE, patch, FORGET, PUBLIC)
    assert record == 0
    assert guess[20] == pytest.approx(0.5)


def test_gates_behind_a_relu_are_opened():
    patch = repair_hidden(BASE, FORGET, RETAIN, MODEL).patch
    node = site_nodes(BASE, ("relu-0",))[0]
    before, after = [], []
    for record, guess in reconstructed(BASE, patch, FORGET, PUBLIC):
        gate = next(g for g in patch.gates if record in g.records)
        mean = PUBLIC.flat()[PUBLIC.y == gate.label].mean(axis=0)
        for x, into in ((mean, before), (guess, after)):
            value = evaluate_all(BASE, x.astype(np.float32)[np.newaxis])[node][0]
            into.append(sum(
                max(float(value[i.coordinate]) - float(np.inf if i.high is None else i.high), 0)
                + max(float(-np.inf if i.low is None else i.low) - float(value[i.coordinate]), 0)
                for i in gate.intervals
            ))  # fmt: skip
    assert np.mean(after) < 0.2 * np.mean(before)


def test_learned_patches_are_searched_where_they_push_most():
    rng = np.random.default_rng(0)
    layers = [
        (rng.standard_normal((16, 64)) / 8, rng.standard_normal(16)),
        (-np.abs(rng.standard_normal((10, 16))), np.zeros(10)),
    ]
    patch = LearnedPatch(10, tuple((w.astype(np.float32), b.astype(np.float32)) for w, b in layers))
    found = disclosure(BASE, patch, FORGET, PUBLIC)
    assert found.records == 8
    assert found.bits == 32 * (16 * 65 + 10 * 17)
    assert found.attack > 0.5 * found.mean, "random weights know no record"


def test_a_class_cap_is_for_no_record_and_a_label_without_public_records_is_refused():
    assert disclosure(BASE, repair_class_cap(BASE, (3,), MODEL).patch, FORGET, PUBLIC) is None
    few = replace(PUBLIC, x=PUBLIC.x[:0], y=PUBLIC.y[:0])
    with pytest.raises(ValueError, match="every forgotten label"):
        disclosure(BASE, repair_box(BASE, FORGET, RETAIN, MODEL).patch, FORGET, few)
