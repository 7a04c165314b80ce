"""Requests of different labels on one another's balls: none, made anew, or refused with names."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prune_verify.checker import rules
from prune_verify.checker.claim import Claim, LabelledRows, Problem, decide
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.patch import Gate, Interval, JointPatch
from prune_verify.checker.rebuild import build
from prune_verify.checker.region import Domain
from prune_verify.cli import run_words
from prune_verify.repair.engine import Standing, repair_box
from prune_verify.repair.interference import interfering, repair_live
from prune_verify.repair.threat_model import default_threat_model
from tests.dishonest_owner import run
from tests.repair.bases import mlp

pytestmark = pytest.mark.prover
F = np.float32
UNIT = Domain((Fraction(0),), (Fraction(1),))
MODEL = replace(default_threat_model(UNIT), cover=1)
BASE = load_network(mlp(labels=2), "base.onnx").network
BOTH = (rules.BINARY32, rules.REAL)
RADIUS = Fraction(1, 10)


def gate(label: int, coordinate: int, low: float, high: float) -> Gate:
    return Gate(label, F(64), (Interval(coordinate, F(low), F(high)),), (0,))


def patch(*gates: Gate, labels: int = 2, classes: tuple[int, ...] = ()) -> JointPatch:
    return JointPatch(labels, classes, F(1), F(1), F(1), gates)


def records(*points: tuple[float, ...], labels: tuple[int, ...]) -> LabelledRows:
    return LabelledRows(np.array(points, dtype=F), np.array(labels))


ONE, TWO = gate(0, 0, 0.0, 0.3), gate(1, 1, 0.0, 0.3)
CASES = [
    ("both gates open on the ball", patch(ONE, TWO), ((0.1, 0.1),), (0,), (0,)),
    ("one of them closed", patch(ONE, TWO), ((0.1, 0.9),), (0,), ()),
    ("the ball reaches into the slope of the second", patch(ONE, TWO), ((0.1, 0.41),), (0,), (0,)),
    ("the ball ends beyond the slope", patch(ONE, TWO), ((0.1, 0.42),), (0,), ()),
    ("a label without gates is closed everywhere", patch(ONE, TWO, labels=3), ((0.1, 0.1),), (0,), ()),
    ("a class that is forgotten needs no gate", patch(ONE, TWO, labels=3, classes=(2,)), ((0.1, 0.1),), (2,), ()),
    ("and is none of the labels that may be left", patch(ONE, TWO, labels=3, classes=(2,)), ((0.1, 0.1),), (0,), (0,)),
    ("only the records that are not apart", patch(ONE, TWO), ((0.9, 0.1), (0.1, 0.1), (0.2, 0.2)), (1, 0, 1), (1, 2)),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "found", "points", "labels", "expected"), CASES, ids=[row[0] for row in CASES])
def test_which_balls_have_no_label_left(sentence, found, points, labels, expected):
    assert interfering(found, records(*points, labels=labels), RADIUS, BOTH) == expected


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_it_is_what_the_rule_says_of_every_ball(seed):
    rng = np.random.default_rng(seed)
    gates = tuple(
        Gate(int(rng.integers(3)), F(rng.uniform(5, 200)), tuple(
            Interval(int(j), *sorted(rng.random(2).astype(F))) if rng.random() < 0.6 else Interval(int(j), None, F(rng.random()))
            for j in np.sort(rng.choice(4, int(rng.integers(1, 3)), replace=False))
        ), (0,))
        for _ in range(12)
    )  # fmt: skip
    found = JointPatch(3, (), F(1), F(1), F(1), gates)
    rows = LabelledRows(rng.random((90, 4)).astype(F), rng.integers(0, 3, 90))
    separation = rules.separate(gates, rows.flat(), RADIUS, BOTH)
    closed = np.logical_and.reduce([one.label_closed((0, 1, 2)) for one in separation.values()])
    assert interfering(found, rows, RADIUS, BOTH) == tuple(np.flatnonzero(~closed).tolist())


def in_the_slab(seed: int = 0) -> tuple[LabelledRows, LabelledRows, Standing]:
    """A record with its gate, and a later record of the other label inside the gate's slab."""
    rng = np.random.default_rng(seed)
    retain = LabelledRows(rng.random((6, 12)).astype(F), np.array([0, 1] * 3))
    first = LabelledRows(rng.random((1, 12)).astype(F), np.array([0]))
    made = repair_box(BASE, first, retain, MODEL).patch.gates
    later = rng.random((1, 12)).astype(F)
    for interval in made[0].intervals:
        later[:, interval.coordinate] = first.x[:, interval.coordinate]
    live = LabelledRows(np.concatenate([first.x, later]), np.array([0, 1]))
    return live, retain, Standing(made, np.ones(6, dtype=np.bool_))


def test_an_earlier_gate_that_holds_a_later_record_is_made_anew():
    live, retain, standing = in_the_slab()
    claim = Claim("forget", rules.BINARY32, "structural", MODEL.radius, MODEL.margin)
    plain = repair_box(BASE, live, retain, MODEL, standing=standing).patch
    assert decide(Problem(BASE, build(BASE, plain), plain, UNIT, live, retain), claim).unknowns, (
        "else nothing is tested"
    )
    found = repair_live(BASE, live, retain, MODEL, standing)
    assert (found.remade, found.left, found.between) == ((0,), (), ())
    mended = found.result.patch
    assert decide(Problem(BASE, build(BASE, mended), mended, UNIT, live, retain), claim).proved == 2


def test_gates_that_hold_no_later_record_stay():
    live, retain, standing = in_the_slab()
    apart = LabelledRows(live.x.copy(), live.y)
    for interval in standing.gates[0].intervals:
        old = apart.x[0, interval.coordinate]
        apart.x[1, interval.coordinate] = F(0.95) if old < 0.5 else F(0.05)
    found = repair_live(BASE, apart, retain, MODEL, standing)
    assert found.remade == ()
    assert standing.gates[0] in found.result.patch.gates


def test_a_record_as_two_labels_of_two_is_left_with_both_records():
    live, retain, standing = in_the_slab()
    twins = LabelledRows(np.repeat(live.x[:1], 2, axis=0), live.y)
    found = repair_live(BASE, twins, retain, MODEL, standing)
    assert (found.left, found.between) == ((0, 1), ())


class Tables:
    """A stream on two labels, through the command line."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.base, self.steps = folder, folder / "base.onnx", 0
        self.base.write_bytes(mlp(labels=2))

    def step(self, live: LabelledRows, retain: LabelledRows, place: int, expected: int) -> dict:
        new, kept, out = (self.folder / f"{name}{self.steps}" for name in ("new", "kept", "out"))
        for path, rows in ((new, LabelledRows(live.x[place : place + 1], live.y[place : place + 1])), (kept, retain)):
            np.savez(f"{path}.npz", x=rows.x, y=rows.y)
        before = ["--onto", str(self.folder / f"out{self.steps - 1}")] if self.steps else ["--stream", "--cover", "1"]
        code, text = run_words([
            "repair", str(self.base), *before, "--forget", f"{new}.npz", "--retain", f"{kept}.npz", "--reference",
            "first" if place == 0 else "second", "--out", str(out), "--json", "--quiet",
        ])  # fmt: skip
        assert code == expected, text
        self.steps += not expected
        return json.loads(text)


def test_the_command_says_whose_gates_were_made_anew_and_certify_proves_both(tmp_path):
    live, retain, _ = in_the_slab()
    tables = Tables(tmp_path)
    tables.step(live, retain, 0, 0)
    found = tables.step(live, retain, 1, 0)
    assert (found["remade"], found["gates"], found["records"]) == (["first"], 2, 2)
    out = tmp_path / "out1"
    run(
        "certify", tables.base, out / "patched.onnx", "--request", out / "request.json", "--forget", out / "forget.npz",
        "--retain", tmp_path / "kept1.npz", "--cross-check", "0", "--out", out,
    )  # fmt: skip


def test_the_command_refuses_what_cannot_be_kept_apart_and_names_the_requests(tmp_path):
    live, retain, _ = in_the_slab()
    twins = LabelledRows(np.repeat(live.x[:1], 2, axis=0), live.y)
    tables = Tables(tmp_path)
    tables.step(twins, retain, 0, 0)
    found = tables.step(twins, retain, 1, 3)
    assert "requests interfere: 'first', 'second'" in found["error"]
    assert "forget records 0, 1" in found["error"]
    assert not (tmp_path / "out1" / "patch.json").exists()


def test_an_earlier_record_that_joins_a_later_ones_gate_is_named_in_order():
    live, retain, _ = in_the_slab()
    twins = LabelledRows(np.repeat(live.x[:1], 2, axis=0), np.array([0, 0]))
    made = repair_box(BASE, LabelledRows(twins.x[1:], twins.y[1:]), retain, MODEL).patch.gates[0]
    standing = Standing((replace(made, records=(1,)),), np.ones(6, dtype=np.bool_))
    found = repair_live(BASE, twins, retain, MODEL, standing)
    assert [gate.records for gate in found.result.patch.gates] == [(0, 1)], "patch.json lists records ascending"
