"""Linear regions: open on the record's activation pattern, shifts as small as any additive patch's, limits named."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import onnxruntime as ort
import pytest
from scipy.optimize import linprog

from prune_verify.certify.elaborate import prove_bounded
from prune_verify.certify.minimal import prove_shift_minimality
from prune_verify.checker.claim import Claim, LabelledRows, Problem
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.network import evaluate, evaluate_all
from prune_verify.checker.patch import ShiftPatch
from prune_verify.checker.rebuild import build, site_nodes
from prune_verify.checker.region import Domain
from prune_verify.checker.rules import BINARY32, REAL
from prune_verify.checker.shift_minimality import decide_shift_minimality
from prune_verify.repair.errors import InfeasiblePatchError, RepairInputError
from prune_verify.repair.export import export_patched
from prune_verify.repair.linear_region import pattern_sites, region_radius, repair_linear_region, representatives
from prune_verify.repair.threat_model import ThreatModel
from tests.repair.bases import cnn, deep_cnn, mlp

pytestmark = pytest.mark.prover
RNG = np.random.default_rng(11)
MODEL = ThreatModel(Domain((Fraction(0),), (Fraction(1),)), Fraction("0.0005"), Fraction("0.0002"))


class Files:
    """A base, its rows and a patch, for one architecture."""

    def __init__(self, data: bytes, forgotten: int = 3) -> None:
        self.data, self.base = data, load_network(data, "base.onnx")
        network = self.base.network
        x = RNG.uniform(0, 1, (60, *network.input_shape)).astype(np.float32)
        y = evaluate(network, x).argmax(axis=1).astype(np.int64)
        wide = [i for i in range(30) if region_radius(network, x[i], MODEL) >= MODEL.radius * Fraction(63, 64)]
        chosen = np.array(wide[:forgotten])
        self.forget = LabelledRows(x[chosen], y[chosen])
        self.retain = LabelledRows(x[30:], y[30:])
        self.found = repair_linear_region(network, self.forget, self.retain, MODEL)

    def problem(self, patch: ShiftPatch | None = None) -> Problem:
        """For the checker."""
        patch, network = patch or self.found.patch, self.base.network
        return Problem(network, build(network, patch), patch, MODEL.domain, self.forget, self.retain)


@pytest.fixture(scope="module", params=[mlp, deep_cnn], ids=["dense", "convolutional"])
def files(request: pytest.FixtureRequest) -> Files:
    return Files(request.param())


def _forget(arithmetic: str) -> Claim:
    return Claim("forget", arithmetic, "relaxation", radius=MODEL.radius, margin=MODEL.margin)


@pytest.mark.parametrize("arithmetic", [BINARY32, REAL])
def test_every_record_is_proved_forgotten_and_what_stays_is_close(files, arithmetic):
    assert prove_bounded(files.problem(), _forget(arithmetic)).outcome.proved == len(files.forget.y)
    claim = Claim("retain_close", arithmetic, "relaxation", radius=MODEL.retained_radius, delta=Fraction("0.01"))
    kept = prove_bounded(files.problem(), claim).outcome
    assert set(kept.unknowns) <= set(files.found.conflicts)


def test_retained_records_of_the_same_pattern_are_kept_out_by_a_box_at_the_input():
    files = Files(mlp())
    assert files.found.patch.sites[0] == "input"
    assert files.found.conflicts == ()
    size = int(np.prod(files.base.network.input_shape))
    boxes = [[i for i in gate.intervals if i.coordinate < size] for gate in files.found.patch.gates]
    assert any(boxes)
    assert max(map(len, boxes)) < size
    values = evaluate_all(files.base.network, np.concatenate([files.forget.x, files.retain.x]))
    signs = [(values[node] > 0) for node in site_nodes(files.base.network, pattern_sites(files.base.network))]
    pattern = np.concatenate([sign.reshape(len(sign), -1) for sign in signs], axis=1)
    count = len(files.forget.y)
    shared = (pattern[count:, np.newaxis] == pattern[np.newaxis, :count]).all(axis=2).any(axis=1)
    assert shared.any(), "without the box these would be conflicts"


def test_the_gate_is_one_on_the_ball_and_the_file_adds_the_shift(files):
    data = export_patched(files.data, files.base, files.found.patch)
    patched, base = (ort.InferenceSession(one) for one in (data, files.data))
    name = patched.get_inputs()[0].name
    noise = RNG.choice([-1, 1], files.forget.x.shape) * 0.99 * float(MODEL.radius)
    rows = np.clip(files.forget.x + noise, 0, 1).astype(np.float32)
    moved = patched.run(None, {name: rows})[0] - base.run(None, {name: rows})[0]
    np.testing.assert_allclose(moved, files.found.patch.shifts, atol=1e-5)
    kept = np.delete(files.retain.x, files.found.conflicts, axis=0)
    assert len(kept) > 10
    np.testing.assert_array_equal(patched.run(None, {name: kept})[0], base.run(None, {name: kept})[0])


def test_the_shift_is_proved_least_and_a_greater_one_is_not(files):
    claim = Claim("minimality", REAL, "shift-point", radius=MODEL.radius, margin=MODEL.margin)
    problem = files.problem()
    outcome = decide_shift_minimality(problem, claim, prove_shift_minimality(problem, claim), "C1")
    assert outcome.proved == len(files.found.patch.gates)
    greater = replace(files.found.patch, shifts=files.found.patch.shifts * np.float32(1.01))
    problem = files.problem(greater)
    outcome = decide_shift_minimality(problem, claim, prove_shift_minimality(problem, claim), "C1")
    assert outcome.proved == 0


@pytest.mark.parametrize("record", range(3))
def test_no_affine_shift_is_smaller_in_the_greatest_logit(record):
    """REASSURE's linear program over affine p(x) = A x + b, min of max |p_j| over the ball, solved by HiGHS."""
    files = Files(mlp())
    network, gate = files.base.network, files.found.patch.gates[record]
    row, label, target = files.forget.x[record].astype(np.float64), gate.label, files.found.targets[record]
    step = 1e-4
    margins = lambda rows: np.diff(evaluate(network, rows.astype(np.float32)).astype(np.float64)[:, [target, label]])  # noqa: E731
    corners = RNG.choice([-1.0, 1.0], (400, row.size)) * float(MODEL.radius)
    gradient = np.array(
        [
            (margins((row + e * step * 8)[np.newaxis]) - margins((row - e * step * 8)[np.newaxis]))[0, 0] / (16 * step)
            for e in np.eye(row.size)
        ]
    )
    worst = np.sign(gradient) * float(MODEL.radius)
    points = row + np.vstack([corners, worst])
    points = points[((points >= 0) & (points <= 1)).all(axis=1)]
    ahead = margins(points)[:, 0]
    size, count = row.size, len(points)
    # Variables: A_target, b_target, A_label, b_label, t. At every point |p_j| <= t and p_target - p_label >= ahead + tau.
    one = np.hstack([points, np.ones((count, 1))])
    zero, last = np.zeros_like(one), -np.ones((count, 1))
    rows = np.vstack(
        [
            np.hstack([s * one, zero, last]) if first else np.hstack([zero, s * one, last])
            for s in (1, -1)
            for first in (True, False)
        ]
        + [np.hstack([-one, one, 0 * last])]
    )
    limits = np.concatenate([np.zeros(4 * count), -(ahead + float(MODEL.margin))])
    cost = np.zeros(2 * (size + 1) + 1)
    cost[-1] = 1
    solved = linprog(cost, A_ub=rows, b_ub=limits, bounds=(None, None), method="highs")
    assert solved.status == 0
    least = max((ahead.max() + float(MODEL.margin)) / 2, 0)
    assert solved.fun == pytest.approx(least, rel=1e-6, abs=1e-9)
    assert files.found.shifts[record] == pytest.approx(solved.fun, rel=2e-3)


def test_a_ball_larger_than_its_region_is_refused_with_what_would_fit():
    files = Files(mlp())
    wide = replace(MODEL, radius=Fraction("0.3"))
    with pytest.raises(InfeasiblePatchError, match=r"radius: asked 0\.3, reached 0\.0"):
        repair_linear_region(files.base.network, files.forget, files.retain, wide)


def test_the_radius_found_is_the_largest_that_holds():
    files = Files(mlp())
    network, record = files.base.network, files.forget.x[0]
    wide = replace(MODEL, radius=Fraction(1, 2))
    radius = region_radius(network, record, wide)
    one = LabelledRows(record[np.newaxis], files.forget.y[:1])
    repair_linear_region(network, one, files.retain, replace(MODEL, radius=radius))
    with pytest.raises(InfeasiblePatchError):
        repair_linear_region(network, one, files.retain, replace(MODEL, radius=radius * Fraction(17, 16)))


def test_a_retained_record_of_the_same_pattern_is_a_conflict():
    files = Files(mlp())
    network = files.base.network
    x = files.retain.x.copy()
    x[5] = files.forget.x[0] + np.float32(1e-4)
    patterns = [evaluate_all(network, rows) for rows in (x[5:6], files.forget.x[:1])]
    for node in site_nodes(network, pattern_sites(network)):
        np.testing.assert_array_equal(patterns[0][node] > 0, patterns[1][node] > 0)
    assert 5 in repair_linear_region(network, files.forget, LabelledRows(x, files.retain.y), MODEL).conflicts


def test_representatives_promise_no_more_than_themselves():
    files = Files(mlp(), forgotten=8)
    found = repair_linear_region(files.base.network, files.forget, files.retain, MODEL, clusters=3)
    chosen, cluster = representatives(files.forget.flat(), 3, 0)
    assert {gate.records[0] for gate in found.patch.gates} == set(chosen.tolist())
    assert all(cluster[row] == place for place, row in enumerate(chosen))
    outcome = prove_bounded(files.problem(found.patch), _forget(REAL)).outcome
    assert len(chosen) <= outcome.proved < len(files.forget.y)
    assert not set(chosen.tolist()) & set(outcome.unknowns)


def test_a_base_without_dense_relus_and_empty_sets_are_refused():
    files = Files(mlp())
    empty = LabelledRows(files.forget.x[:0], files.forget.y[:0])
    with pytest.raises(RepairInputError, match="forget set is empty"):
        repair_linear_region(files.base.network, empty, files.retain, MODEL)
    with pytest.raises(RepairInputError, match="retained set is empty"):
        repair_linear_region(files.base.network, files.forget, empty, MODEL)
    with pytest.raises(RepairInputError, match="no dense layer with a ReLU"):
        pattern_sites(load_network(cnn(), "cnn.onnx").network)
