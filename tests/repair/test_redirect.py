"""Redirect ``non-member``: one keyed draw per record, held on its whole region, and flipped only by a majority."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from prune_verify.checker.claim import Claim, LabelledRows, Problem, decide
from prune_verify.checker.errors import ProofError
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.network import evaluate
from prune_verify.checker.patch_json import PatchFile, emit_patch, parse_patch
from prune_verify.checker.rebuild import build
from prune_verify.checker.region import Domain
from prune_verify.checker.rules import BINARY32, REAL
from prune_verify.repair.errors import RepairInputError
from prune_verify.repair.export import export_patched
from prune_verify.repair.redirect import (
    _EDGE,
    OutMargins,
    Redirect,
    _ends,
    base_margins,
    drawn,
    held_out_margins,
    load_out_margins,
    repair_non_member,
)
from prune_verify.repair.threat_model import ThreatModel
from tests.repair.bases import mlp

pytestmark = pytest.mark.prover
RNG = np.random.default_rng(5)
MODEL = ThreatModel(Domain((Fraction(0),), (Fraction(1),)), Fraction("0.05"), Fraction("0.02"))
DATA = mlp()
BASE = load_network(DATA, "base.onnx")
X = RNG.uniform(0, 1, (80, 12)).astype(np.float32)
Y = evaluate(BASE.network, X).argmax(axis=1).astype(np.int64)
FORGET, RETAIN = LabelledRows(X[:6], Y[:6]), LabelledRows(X[6:], Y[6:])
KEY = bytes(range(32))
CENTRES = np.array([4.0, -2.0, 0.1, 1.0, -0.05, 7.0])
POOLS = OutMargins(tuple(c + np.linspace(-0.04, 0.04, 16) for c in CENTRES), per_record=True)
REDIRECT = Redirect(POOLS, KEY)
FOUND = repair_non_member(BASE.network, FORGET, RETAIN, MODEL, REDIRECT)


def _problem() -> Problem:
    return Problem(BASE.network, build(BASE.network, FOUND.patch), FOUND.patch, MODEL.domain, FORGET, RETAIN)


@pytest.mark.parametrize("arithmetic", [BINARY32, REAL])
def test_every_margin_is_proved_to_stay_and_everything_else_too(arithmetic):
    band = decide(_problem(), Claim("band", arithmetic, "structural", radius=MODEL.radius))
    assert (band.proved, band.total) == (6, 6)
    for kind in ("retain_exact", "retain_label"):
        kept = decide(_problem(), Claim(kind, arithmetic, "structural", radius=MODEL.retained_radius))
        assert kept.conflicts == FOUND.conflicts
    assert len(FOUND.conflicts) <= 2
    with pytest.raises(ProofError, match="gates without hold"):
        decide(_problem(), Claim("forget", arithmetic, "structural", radius=MODEL.radius, margin=Fraction(1, 10)))


def test_a_stated_band_holds_only_the_gates_that_lie_in_it():
    band = Fraction(3), Fraction(8)
    outcome = decide(_problem(), Claim("band", BINARY32, "structural", radius=MODEL.radius, band=band))
    assert outcome.unknowns == (1, 2, 3, 4)


def test_the_deployed_file_holds_the_margin_on_the_region_and_keeps_the_rest():
    session, base = (ort.InferenceSession(d) for d in (export_patched(DATA, BASE, FOUND.patch), DATA))
    name = session.get_inputs()[0].name
    ends = {r: gate.hold for gate in FOUND.patch.gates for r in gate.records}
    for _ in range(40):
        noise = RNG.choice([-1, 1, 0.4], FORGET.x.shape) * 0.999 * float(MODEL.radius)
        rows = np.clip(FORGET.x + noise, 0, 1).astype(np.float32)
        logits = session.run(None, {name: rows})[0].astype(np.float64)
        own = logits[np.arange(6), FORGET.y].copy()
        logits[np.arange(6), FORGET.y] = -np.inf
        margins = own - logits.max(axis=1)
        for record, margin in enumerate(margins):
            low, high = ends[record]
            assert float(low) - 1e-5 <= margin <= float(high) + 1e-5
            assert (margin > 0) == (CENTRES[record] > 0)
    kept = np.delete(RETAIN.x, FOUND.conflicts, axis=0)
    np.testing.assert_array_equal(session.run(None, {name: kept})[0], base.run(None, {name: kept})[0])


def test_the_patch_survives_its_file():
    data = emit_patch(PatchFile(FOUND.patch, "0" * 64), 12)
    assert parse_patch(data, "patch.json").patch.gates == FOUND.patch.gates


def test_a_draw_depends_on_key_and_record_and_on_nothing_else():
    again = drawn(
        Redirect(OutMargins(POOLS.pools[::-1], per_record=True), KEY), LabelledRows(FORGET.x[::-1], FORGET.y[::-1])
    )
    np.testing.assert_array_equal(again[::-1], drawn(REDIRECT, FORGET))
    assert (drawn(Redirect(POOLS, bytes(32)), FORGET) != drawn(REDIRECT, FORGET)).all()


def test_draws_follow_the_distribution():
    rng, count = np.random.default_rng(0), 4000
    rows = LabelledRows(rng.random((count, 3)).astype(np.float32), np.zeros(count, dtype=np.int64))
    pool = np.sort(rng.normal(2, 1, 400))
    found = drawn(Redirect(OutMargins((pool,) * count, per_record=False), KEY), rows)
    for share in (0.1, 0.5, 0.9):
        assert (found < np.quantile(pool, share)).mean() == pytest.approx(share, abs=0.025)
    assert (found < 0).any()


def test_draws_vary_as_a_further_network_would():
    rng, count, few = np.random.default_rng(3), 6000, 12
    rows = LabelledRows(rng.random((count, 3)).astype(np.float32), np.zeros(count, dtype=np.int64))
    middle = rng.normal(20, 3, count)
    pools, further = (rng.normal(middle, 1, (n, count)) for n in (few, 1))
    found = drawn(Redirect(OutMargins(tuple(pools.T), per_record=True), KEY), rows)
    spread = pools.std(axis=0, ddof=1) * np.sqrt(1 + 1 / few)
    ours, theirs = (np.abs(v - pools.mean(axis=0)) / spread for v in (found, further[0]))
    assert (ours**2).mean() == pytest.approx(1, abs=0.05)
    for quantile in (0.5, 0.9, 0.99):  # of how far from the mean, as the two-sided attack looks at it
        assert (ours > np.quantile(theirs, quantile)).mean() == pytest.approx(1 - quantile, abs=0.03)


def test_the_record_itself_has_the_margin_that_was_drawn():
    session = ort.InferenceSession(export_patched(DATA, BASE, FOUND.patch))
    logits = session.run(None, {session.get_inputs()[0].name: FORGET.x})[0].astype(np.float64)
    own = logits[np.arange(6), FORGET.y].copy()
    logits[np.arange(6), FORGET.y] = -np.inf
    aims = drawn(REDIRECT, FORGET)
    least = 2 * _EDGE * (1 + float(REDIRECT.width))  # no nearer to 0 than that
    aims = np.sign(aims) * np.maximum(np.abs(aims), least)
    np.testing.assert_allclose(own - logits.max(axis=1), aims, atol=1e-4)


@pytest.mark.parametrize("own", [-9.0, -0.3, 0.001, 0.4, 9.0])
@pytest.mark.parametrize("margin", [-5.0, -0.2, -1e-6, 1e-6, 0.2, 5.0])
def test_ends_lie_on_the_side_of_the_draw_and_lead_the_base_to_it(margin, own):
    low, high = (float(end) for end in _ends(margin, own, Fraction(1, 2)))
    assert 0 < high - low <= 0.5 + 1e-6
    assert (low > 0) == (high > 0) == (margin > 0)
    assert min(max(own, low), high) == pytest.approx(margin, abs=0.004)


def test_only_a_majority_flips_the_label():
    few, most = np.array([-1.0] * 3 + [1.0] * 5), np.array([-1.0] * 5 + [1.0] * 3)
    rows = LabelledRows(FORGET.x[:2], FORGET.y[:2])
    for key in range(20):
        found = drawn(Redirect(OutMargins((few, most), per_record=True), bytes([key]) * 32), rows)
        assert found[0] > 0 > found[1]


def test_twins_get_one_gate_and_one_draw():
    x, y = FORGET.x.copy(), FORGET.y.copy()
    x[3], y[3] = x[0], y[0]
    found = repair_non_member(BASE.network, LabelledRows(x, y), RETAIN, MODEL, REDIRECT)
    assert (0, 3) in [gate.records for gate in found.patch.gates]


def test_held_out_records_stand_for_networks_that_never_saw_the_record():
    found = held_out_margins(BASE.network, np.array([int(np.bincount(Y).argmax())]), LabelledRows(X, Y))
    np.testing.assert_array_equal(
        found.pools[0], base_margins(BASE.network, LabelledRows(X, Y))[np.bincount(Y).argmax() == Y]
    )
    rare = int(np.bincount(Y, minlength=5).argmin())
    with pytest.raises(RepairInputError, match=f"20 or more of label {rare}"):
        held_out_margins(BASE.network, np.array([rare]), LabelledRows(X, Y))


def test_margins_are_read_from_a_file_and_bad_ones_are_named(tmp_path: Path):
    path = tmp_path / "out.npz"

    def write(**arrays: np.ndarray) -> Path:
        np.savez(path, **arrays)
        return path

    values = np.zeros((10, 6))
    values[1, 2] = np.nan
    assert [len(pool) for pool in load_out_margins(write(margins=values), 6).pools] == [10, 10, 9, 10, 10, 10]
    for bad, words in (
        ({"other": values}, "an array named margins"),
        ({"margins": values[:, :5]}, r"\[models, 6\] in the order of the forget set, found float64 \[10, 5\]"),
        ({"margins": np.zeros((10, 6), dtype=np.int64)}, "found int64"),
        ({"margins": values + np.inf}, "infinite"),
        ({"margins": values[:7]}, "record 0: expected 8 networks"),
    ):
        with pytest.raises(RepairInputError, match=words):
            load_out_margins(write(**bad), 6)
    path.write_bytes(b"no npz")
    with pytest.raises(RepairInputError, match="expected an npz file"):
        load_out_margins(path, 6)


@pytest.mark.parametrize(
    ("key", "width", "words"), [(b"short", Fraction(1), "32 bytes"), (KEY, Fraction(0), "above 0")]
)
def test_a_short_key_or_no_width_is_refused(key, width, words):
    with pytest.raises(RepairInputError, match=words):
        Redirect(POOLS, key, width)
