"""Reconstruction from patches: exact where the patch says everything, the label's mean where it says nothing."""

from __future__ import annotations

from fractions import Fraction
from functools import cache

import numpy as np
import pytest

from prune_verify.checker.claim import LabelledRows, strict_answers
from prune_verify.checker.errors import MalformedInputError
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.network import Network, Node
from prune_verify.checker.patch import Gate, Interval, JointPatch, LearnedPatch, ShiftPatch
from prune_verify.checker.rebuild import build
from prune_verify.checker.region import Domain
from prune_verify.measure.datasets import DataSet, digits
from prune_verify.measure.disclosure import Knowledge, bootstrap_interval, measure_disclosure
from prune_verify.measure.gate_inversion import GateInverter, edges_of_gate
from prune_verify.measure.patch_search import PatchSearch
from prune_verify.measure.population import Population, _ridge, conditional_guess
from prune_verify.measure.training import export_onnx, small_mlp, train
from prune_verify.repair.copies import shifted_copies
from prune_verify.repair.engine import repair_box
from prune_verify.repair.errors import RepairInputError
from prune_verify.repair.hidden import repair_hidden
from prune_verify.repair.linear_region import region_radius, repair_linear_region
from prune_verify.repair.threat_model import ThreatModel

pytestmark = pytest.mark.prover
F = np.float32
ZERO = F(0)
UNIT = Domain((Fraction(0),), (Fraction(1),))


@cache
def trained_digits() -> tuple[Network, DataSet]:
    """A 64-24-10 network trained on digits for a second."""
    import torch

    data = digits()
    with torch.random.fork_rng(devices=[]):
        net = train(lambda: small_mlp([64, 24, 10]), data, epochs=20, seed=0, rate=0.005)
    return load_network(export_onnx(net, data.train_x), "base").network, data


def wide_base(hidden: int, n: int = 64, labels: int = 10, seed: int = 0) -> Network:
    """One hidden layer of random weights, more neurons than inputs where asked."""
    rng = np.random.default_rng(seed)
    return Network(
        (
            Node("Input", (), (n,)),
            Node("Linear", (0,), (hidden,), {"axis": (-1,)}, {"weight": rng.standard_normal((hidden, n)).astype(F) / 4, "bias": rng.standard_normal(hidden).astype(F) / 8}),
            Node("Relu", (1,), (hidden,)),
            Node("Linear", (2,), (labels,), {"axis": (-1,)}, {"weight": rng.standard_normal((labels, hidden)).astype(F) / 8}),
        ),
        3,
    )  # fmt: skip


@pytest.fixture(scope="module")
def sets() -> tuple[LabelledRows, LabelledRows, LabelledRows]:
    """Eight digits to forget, 300 to retain, and 360 others that are public."""
    data = digits()
    forget = LabelledRows(data.train_x[:8], data.train_y[:8])
    return forget, LabelledRows(data.train_x[8:308], data.train_y[8:308]), LabelledRows(data.test_x, data.test_y)


def test_intervals_of_all_coordinates_give_the_record(sets) -> None:
    forget, _, public = sets
    x, radius = forget.x[0], F(0.05)
    every = tuple(
        Interval(j, None if v - radius <= 0 else F(v - radius), None if v + radius >= 1 else F(v + radius))
        for j, v in enumerate(x)
        if not (v - radius <= 0 and v + radius >= 1)
    )
    patch = JointPatch(10, (), F(0.1), ZERO, F(1), (Gate(int(forget.y[0]), F(1), every, (0,)),))
    one = LabelledRows(forget.x[:1], forget.y[:1])
    for knowledge in (None, Knowledge(radius=0.05)):
        found = measure_disclosure(wide_base(8), patch, one, public, knowledge=knowledge)
        assert found.attack.mean < 1e-6
        assert np.allclose(found.guesses[0], x, atol=1e-6)
    wrong = measure_disclosure(wide_base(8), patch, one, public, knowledge=Knowledge(radius=0.0))
    assert 0.01 < wrong.attack.mean < 0.05


def test_a_box_patch_of_the_engine_gives_its_coordinates_and_helps_with_the_others(sets) -> None:
    forget, retain, public = sets
    patch = repair_box(wide_base(8), forget, retain, ThreatModel(UNIT, Fraction(1, 20), Fraction(1, 40))).patch
    found = measure_disclosure(wide_base(8), patch, forget, public)
    for record, gate in enumerate(patch.gates):
        stored = [i.coordinate for i in gate.intervals]
        assert gate.records == (record,)
        assert np.allclose(found.guesses[record, stored], forget.x[record, stored], atol=1e-6)
    assert (found.family, found.intervals) == ("box", sum(len(gate.intervals) for gate in patch.gates))
    assert found.bits > 32 * found.intervals
    assert found.gain.low > 0
    assert found.attack.mean < found.label_mean.mean < found.random.mean
    assert found.gain.mean == pytest.approx(found.label_mean.mean - found.attack.mean)
    assert found.text().splitlines()[0].startswith("box: 8 records")


def test_what_stores_nothing_gives_the_mean(sets) -> None:
    forget, _, public = sets
    cap = JointPatch(10, (3,), F(0.1), ZERO, ZERO, ())
    found = measure_disclosure(wide_base(8), cap, forget, public)
    expected = [public.x[public.y == y].astype(np.float64).mean(axis=0) for y in forget.y]
    assert (found.family, found.intervals, found.bits) == ("class-cap", 0, 0)
    assert np.allclose(found.guesses, expected)
    assert set(found.gain.each) == {0.0}
    expected_error = np.sqrt(np.square(forget.x - np.array(expected)).mean(axis=1))
    assert np.allclose(found.attack.each, expected_error)


@pytest.mark.parametrize(("hidden", "most"), [(160, 0.05), (12, 0.9)])
def test_linear_regions_give_more_the_more_neurons_they_store(sets, hidden: int, most: float) -> None:
    """The edge of a neuron that is on is a known fraction of its value: enough of them are the record."""
    forget, retain, public = sets
    base, model = wide_base(hidden), ThreatModel(UNIT, Fraction(1, 20), Fraction(1, 10_000))
    least = min(region_radius(base, x, model) for x in forget.x)
    assert least > 0
    model = ThreatModel(UNIT, least * Fraction(9, 10), Fraction(1, 10_000))
    patch = repair_linear_region(base, forget, retain, model).patch
    found = measure_disclosure(base, patch, forget, public, knowledge=Knowledge(radius=float(model.radius)))
    assert found.family == "linear-region"
    assert found.gain.low > 0
    assert found.attack.mean < most * found.label_mean.mean
    if hidden < 64:
        assert found.attack.mean > 0.2 * found.label_mean.mean


def test_boxes_at_a_hidden_site_are_inverted(sets) -> None:
    forget, retain, public = sets
    base = wide_base(96)
    patch = repair_hidden(base, forget, retain, ThreatModel(UNIT, Fraction(1, 100), Fraction(1, 1000), cover=6)).patch
    found = measure_disclosure(base, patch, forget, public, knowledge=Knowledge(radius=0.01))
    assert patch.sites == ("relu-0",)
    assert found.gain.low > 0
    assert (found.guesses >= 0).all()
    assert (found.guesses <= 1).all()


def test_boxes_of_shifted_copies_are_about_the_record_itself(sets) -> None:
    forget, retain, public = sets
    few = LabelledRows(forget.x[:4], forget.y[:4])
    copies = shifted_copies(few.x, 8, 8, 1)
    rows = LabelledRows(copies.reshape(-1, 64), np.repeat(few.y, 9))
    base, groups = wide_base(96), tuple(tuple(range(9 * i, 9 * i + 9)) for i in range(4))
    model = ThreatModel(UNIT, Fraction(1, 1000), Fraction(1, 10_000), cover=4)
    patch = repair_hidden(base, rows, retain, model, groups=groups).patch
    found = measure_disclosure(base, patch, few, public, knowledge=Knowledge(radius=0.001, size=(8, 8), pixels=1))
    assert len(found.attack.each) == 4
    assert found.gain.mean > 0


def test_the_inverters_edges_are_those_that_the_engine_writes(sets) -> None:
    """Else the attacker would rehearse something else than what is stored: every stored edge, of boxes and regions."""
    import torch

    forget, retain, public = sets
    base, population = wide_base(24), Population.of(public, forget, (0.0, 1.0))
    copies = shifted_copies(forget.x[:1], 8, 8, 1).reshape(-1, 64)
    rows, known = LabelledRows(copies, np.repeat(forget.y[:1], 9)), Knowledge(radius=0.01, size=(8, 8), pixels=1)
    boxes = repair_hidden(
        base, rows, retain, ThreatModel(UNIT, Fraction(1, 100), Fraction(1, 1000)), groups=(tuple(range(9)),)
    ).patch
    model = ThreatModel(UNIT, Fraction(1, 20), Fraction(1, 10_000))
    radius = region_radius(base, forget.x[0], model)
    one = LabelledRows(forget.x[:1], forget.y[:1])
    regions = repair_linear_region(base, one, retain, ThreatModel(UNIT, radius, Fraction(1, 10_000))).patch
    compared = 0
    for patch, knowledge in ((boxes, known), (regions, Knowledge(radius=float(radius)))):
        region = isinstance(patch, ShiftPatch)
        inverter = GateInverter(base, patch.sites, population, knowledge, region=region)
        for gate in patch.gates:
            coordinates = torch.tensor([i.coordinate for i in gate.intervals])
            read = edges_of_gate(gate, inverter.hidden, region=region)
            chosen = tuple(gate.records) if not region else ()
            x = torch.from_numpy(forget.x[:1].astype(np.float64))
            low, high = inverter._ends(x, coordinates, inverter._slopes(gate.label, coordinates), chosen)
            for end, stored in ((low.numpy(), read.low), (high.numpy(), read.high)):
                given = ~np.isnan(stored) & (stored != 0)
                assert np.allclose(end[given], stored[given], atol=1e-4)
                compared += int(given.sum())
            assert (high.numpy()[read.high == 0] <= 1e-6).all()
    assert compared > 20


def test_a_learned_patch_is_searched_for_what_the_base_knows_and_the_patched_network_not(sets) -> None:
    """The patch acts on a half-space that holds few likely inputs of its label: the guesses lie in it."""
    forget, _, public = sets
    _, data = trained_digits()
    base, label = trained_digits()[0], 3
    three = data.train_x[data.train_y == label]
    direction = (three[0] - three.mean(axis=0)).astype(F)
    edge = F((direction @ three[0] + direction @ three.mean(axis=0)) / 2)
    push = np.zeros((10, 1), dtype=F)
    push[label] = -40.0 / (direction @ three[0] - edge)
    patch = LearnedPatch(10, ((direction[np.newaxis], np.array([-edge])), (push, np.zeros(10, dtype=F))))
    population = Population.of(public, forget, (0.0, 1.0))
    found = PatchSearch(base, patch, population).guesses(label, 3)
    assert found.shape == (3, 64)
    assert (found @ direction > edge).all()
    assert population.mean(label) @ direction < edge
    assert (strict_answers(base, found.astype(F)) == label).all()
    assert (strict_answers(build(base, patch), found.astype(F)) != label).all()
    report = measure_disclosure(base, patch, LabelledRows(three[:1], np.array([label])), public)
    assert (report.family, report.intervals, report.bits) == ("learned", 0, 32 * (64 + 1 + 10 + 10))
    assert report.gain.mean > 0


def test_guesses_of_a_learned_patch_are_paired_for_the_baseline_as_well(sets) -> None:
    """With a patch that does nothing, random guesses of a label are no worse for standing in another order."""
    _, _, public = sets
    same = LabelledRows(digits().train_x[digits().train_y == 3][:6], np.full(6, 3))
    nothing = LearnedPatch(
        10, ((np.zeros((1, 64), dtype=F), np.zeros(1, dtype=F)), (np.zeros((10, 1), dtype=F), np.zeros(10, dtype=F)))
    )
    cap = JointPatch(10, (3,), F(0.1), ZERO, ZERO, ())
    paired = measure_disclosure(wide_base(8), nothing, same, public, seed=1)
    unpaired = measure_disclosure(wide_base(8), cap, same, public, seed=1)
    assert np.square(paired.random.each).sum() < np.square(unpaired.random.each).sum()


def test_a_conditional_guess_uses_what_is_correlated_and_keeps_what_is_known() -> None:
    rng = np.random.default_rng(0)
    first = rng.random(400)
    x = np.stack([first, 1 - first, rng.random(400)], axis=1)
    population = Population(x, np.zeros(400, dtype=np.int64))
    found = conditional_guess(population, 0, np.array([0]), np.array([0.9]))
    assert found[0] == 0.9
    assert found[1] == pytest.approx(0.1, abs=0.02)
    assert found[2] == pytest.approx(x[:, 2].mean(), abs=0.1)
    bent = np.stack([first, 4 * first * (1 - first)], axis=1)  # no line fits: neighbours do
    found = conditional_guess(Population(bent, np.zeros(400, dtype=np.int64)), 0, np.array([0]), np.array([0.5]))
    assert found[1] == pytest.approx(1.0, abs=0.02)


def test_the_bootstrap_interval_of_equal_values_is_a_point_and_holds_a_mean() -> None:
    assert bootstrap_interval(np.full(5, 2.0)).low == bootstrap_interval(np.full(5, 2.0)).high == 2.0
    held = 0
    for seed in range(200):
        found = bootstrap_interval(np.random.default_rng(seed).normal(1.0, 0.5, 60), 0.9)
        held += found.low <= 1.0 <= found.high
    assert 165 <= held <= 192


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f, p: (LabelledRows(f.x[:0], f.y[:0]), p), "forget set: expected labelled records"),
        (lambda f, p: (f, LabelledRows(p.x[:, :5], p.y)), "public sample: expected labelled records of 64"),
        (
            lambda f, p: (f, LabelledRows(np.concatenate([p.x, f.x[3:4]]), np.append(p.y, f.y[3]))),
            "found forget record 3",
        ),
        (lambda f, p: (f, LabelledRows(p.x[:20], p.y[:20])), "expected at least 8 records of label"),
    ],
)
def test_sets_that_measure_nothing_are_refused(sets, change, message) -> None:
    forget, _, public = sets
    forget, public = change(forget, public)
    with pytest.raises(RepairInputError, match=message):
        measure_disclosure(wide_base(8), JointPatch(10, (3,), F(0.1), ZERO, ZERO, ()), forget, public)


def test_a_site_that_the_base_has_not_is_refused(sets) -> None:
    forget, _, public = sets
    gate = Gate(0, F(1), (Interval(0, None, F(1)),), (0,))
    patch = JointPatch(10, (), F(0.1), ZERO, F(1), (gate,), ("relu-7",))
    with pytest.raises(MalformedInputError, match="relu-7"):
        measure_disclosure(wide_base(8), patch, forget, public)
    with pytest.raises(RepairInputError, match="bootstrap"):
        bootstrap_interval(np.zeros(0))


def test_numbers_that_are_the_same_in_every_public_record_tell_nothing_of_the_others() -> None:
    """A record with ink where its label has none in the sample: regression on it gives the label's mean."""
    rng, known = np.random.default_rng(0), np.array([0, 1])
    for constant in (0.0, 1e-160, 1e-250):
        x = rng.random((40, 6))
        x[:, :2] = constant * rng.integers(0, 2, (40, 2))
        found = conditional_guess(Population(x, np.zeros(40, np.int64)), 0, known, np.array([0.5, 0.25]))
        assert np.isfinite(found).all()
        assert found[:2].tolist() == [0.5, 0.25]
    blank = np.concatenate([np.zeros((40, 2)), x[:, 2:]], axis=1)
    guessed = _ridge(blank, np.array([[0.5, 0.25], [0.0, 0.0]]), known, 1e-4)
    assert guessed == pytest.approx(np.stack([blank.mean(axis=0)] * 2))
