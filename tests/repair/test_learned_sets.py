"""A patch for a concept: it forgets members that it was not shown, and no input loses another label."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.network import Network, evaluate
from prune_verify.checker.rebuild import build
from prune_verify.measure.concept import concept_shares
from prune_verify.measure.datasets import DataSet, mnist
from prune_verify.measure.training import export_onnx, small_mlp, train
from prune_verify.repair.errors import RepairInputError
from prune_verify.repair.learned_sets import ConceptThreatModel, train_concept_patch
from prune_verify.repair.non_members import NonMembers, imitation
from prune_verify.repair.trained_patch import TrainedPatch
from prune_verify.repair.training_state import Checkpoint
from tests.repair.bases import trained_digits

pytestmark = pytest.mark.prover

Labels = npt.NDArray[np.int64]
CLASS = 5
MODEL = ConceptThreatModel(
    radius=Fraction("0.03"), retained_radius=Fraction("0.02"), margin=Fraction("0.5"), delta=Fraction("0.1"),
    hidden=(32, 16), steps=800, crown_steps=100, looked_at=60,
)  # fmt: skip
SHORT = replace(MODEL, hidden=(16,), steps=200, crown_steps=60, batch=64, looked_at=10)


def _sets(data: DataSet) -> tuple[Labels, Labels]:
    """A hundred members, and everything of the other labels."""
    members = np.flatnonzero(data.train_y == CLASS)
    return np.random.default_rng(0).choice(members, 100, replace=False), np.flatnonzero(data.train_y != CLASS)


def _trained(model: ConceptThreatModel, **more: object) -> TrainedPatch:
    base, data = trained_digits()
    forget, retain = _sets(data)
    rows = data.train_x[forget], data.train_y[forget], data.train_x[retain], data.train_y[retain]
    return train_concept_patch(base, *rows, model, **more)  # type: ignore[arg-type] # as each test names them


@cache
def _found() -> tuple[Network, DataSet, TrainedPatch]:
    return *trained_digits(), _trained(MODEL)


def test_members_that_were_not_shown_are_forgotten_and_no_accuracy_is_lost() -> None:
    base, data, found = _found()
    own = data.test_y == CLASS
    shares = concept_shares(
        base, build(base, found.patch), (data.test_x[own], data.test_y[own]), (data.test_x[~own], data.test_y[~own])
    )
    assert shares.members == own.sum() > 20
    assert shares.recognised_before > 0.9
    assert shares.recognised <= 0.05
    assert shares.accuracy >= shares.accuracy_before > 0.9


def test_no_input_loses_another_label() -> None:
    """Pointwise and everywhere, not on records only."""
    base, _, found = _found()
    rng = np.random.default_rng(0)
    points = (rng.random((20000, 64)) * rng.choice([1.0, 3.0, 100.0], (20000, 1))).astype(np.float32)
    before, after = evaluate(base, points), evaluate(build(base, found.patch), points)
    kept = before.argmax(axis=1) != CLASS
    assert kept.sum() > 1000
    assert (after.argmax(axis=1) == before.argmax(axis=1))[kept].all()
    others = np.arange(10) != CLASS
    np.testing.assert_array_equal(after[:, others], before[:, others])
    assert (after[:, CLASS] <= before[:, CLASS]).all()
    assert (after[:, CLASS] < before[:, CLASS]).any()


def test_the_last_layer_lowers_the_class_only() -> None:
    _, _, found = _found()
    weight, bias = found.patch.layers[-1]
    assert not bias.any()
    assert (weight[CLASS] <= 0).all()
    assert weight[CLASS].any()
    assert not np.delete(weight, CLASS, axis=0).any()


def test_most_balls_are_met_by_bounds_and_what_is_not_is_told() -> None:
    _, data, found = _found()
    forget, retain = _sets(data)
    assert len(found.forget_margins) == len(forget)
    assert len(found.changes) == len(retain)
    assert found.forgotten(MODEL.margin) >= 0.95
    assert found.within(MODEL.delta) >= 0.85
    answers_kept = found.answers_kept()
    assert answers_kept is not None
    assert answers_kept > 0.5
    lacking = found.training_gap(MODEL.margin, MODEL.delta)
    assert lacking.retain == tuple(np.flatnonzero(found.changes > 0.1))
    assert lacking.excess == pytest.approx(max(0.0, found.changes.max() - 0.1))
    assert lacking.forget == tuple(np.flatnonzero(found.forget_margins < 0.5))


def test_the_bounds_hold_on_corners() -> None:
    base, data, found = _found()
    forget, retain = _sets(data)
    patched, rng = build(base, found.patch), np.random.default_rng(0)
    assert found.kept is not None
    assert found.kept_rows is not None
    for _ in range(20):
        points = data.train_x[forget] + 0.03 * rng.choice([-1.0, 1.0], (len(forget), 64))
        logits = evaluate(patched, np.clip(points, 0, 1).astype(np.float32))
        margins = logits[np.arange(len(forget)), found.targets] - logits[:, CLASS]
        assert (margins >= found.forget_margins - 1e-3).all()
        points = np.clip(data.train_x[retain] + 0.02 * rng.choice([-1.0, 1.0], (len(retain), 64)), 0, 1)
        before, after = evaluate(base, points.astype(np.float32)), evaluate(patched, points.astype(np.float32))
        assert (np.abs(after - before).max(axis=1) <= found.changes + 1e-3).all()
        proved = found.kept_rows[found.kept > 0]
        answers = evaluate(base, data.train_x[retain[proved]]).argmax(axis=1)
        assert (after[proved].argmax(axis=1) == answers).all()


def test_a_part_of_a_class_is_forgotten_and_the_rest_of_it_stays() -> None:
    """The concept: those fives that are darker on the left; the other fives are retained."""
    base, data = trained_digits()
    lean = data.train_x.reshape(-1, 8, 8)[:, :, :4].sum(axis=(1, 2)) - data.train_x.reshape(-1, 8, 8)[:, :, 4:].sum(
        axis=(1, 2)
    )
    own = data.train_y == CLASS
    cut = np.quantile(lean[own], [0.4, 0.6])
    concept, rest = own & (lean > cut[1]), own & (lean < cut[0])
    retain = ~own | rest
    found = train_concept_patch(
        base, data.train_x[concept], data.train_y[concept], data.train_x[retain], data.train_y[retain], MODEL
    )
    patched = build(base, found.patch)
    shares = concept_shares(
        base, patched, (data.train_x[concept], data.train_y[concept]), (data.train_x[rest], data.train_y[rest])
    )
    assert shares.recognised <= 0.1
    assert shares.accuracy >= 0.8


@pytest.mark.parametrize("stop", [0.3, 0.8])
def test_an_interrupted_training_ends_with_the_same_bits(tmp_path: Path, stop: float) -> None:
    """Once in each phase: with intervals, and with CROWN."""
    model = replace(SHORT, steps=300, crown_steps=150)
    whole, looks = _trained(model), list[float]()

    def interrupt(_what: str, share: float) -> None:
        looks.append(share)
        if share >= stop:
            raise KeyboardInterrupt

    checkpoint = Checkpoint(tmp_path / "training.npz", every=100)
    with pytest.raises(KeyboardInterrupt):
        _trained(model, progress=interrupt, checkpoint=checkpoint)
    assert checkpoint.path.exists()
    shares: list[float] = []
    again = _trained(model, progress=lambda _, share: shares.append(share), checkpoint=checkpoint)
    assert shares[0] > 0
    for (w1, b1), (w2, b2) in zip(whole.patch.layers, again.patch.layers, strict=True):
        assert w1.tobytes() == w2.tobytes()
        assert b1.tobytes() == b2.tobytes()
    assert again.curves == whole.curves
    np.testing.assert_array_equal(again.changes, whole.changes)


def test_the_seed_decides() -> None:
    first, again, other = _trained(SHORT), _trained(SHORT), _trained(replace(SHORT, seed=1))
    for (w1, _), (w2, _) in zip(first.patch.layers, again.patch.layers, strict=True):
        np.testing.assert_array_equal(w1, w2)
    assert (first.patch.layers[0][0] != other.patch.layers[0][0]).any()


def test_outputs_on_members_become_like_those_of_non_members() -> None:
    base, data = trained_digits()
    forget, _ = _sets(data)
    own = data.test_y == CLASS
    # Non-members that the base is less sure of: an attacker tells members by their margins.
    blurred = (0.6 * data.test_x[own] + 0.4 * data.test_x.mean(axis=0)).astype(np.float32)
    found = _trained(replace(MODEL, steps=400), non_members=NonMembers(blurred, data.test_y[own]))

    def margins(network: Network, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        logits = evaluate(network, x).astype(np.float64)
        return logits[:, CLASS] - np.delete(logits, CLASS, axis=1).max(axis=1)

    wanted, before = margins(base, blurred).mean(), margins(base, data.train_x[forget]).mean()
    after = margins(build(base, found.patch), data.train_x[forget]).mean()
    assert abs(after - wanted) < 0.3 * abs(before - wanted)
    labels, like = torch.full((len(forget),), CLASS), torch.from_numpy(evaluate(base, blurred).copy())

    def far(network: Network) -> float:
        logits = torch.from_numpy(evaluate(network, data.train_x[forget]).copy())
        return float(imitation(logits, labels, like, torch.from_numpy(data.test_y[own])))

    assert far(build(base, found.patch)) < 0.3 * far(base)


def test_sets_that_cannot_be_used_are_refused() -> None:
    base, data = trained_digits()
    x, y = data.train_x, data.train_y
    with pytest.raises(RepairInputError, match="--forget: expected at least one record"):
        train_concept_patch(base, x[:0], y[:0], x, y, MODEL)
    with pytest.raises(RepairInputError, match="--retain: expected at least one record"):
        train_concept_patch(base, x, y, x[:0], y[:0], MODEL)
    with pytest.raises(RepairInputError, match="found 3 and 2"):
        train_concept_patch(base, x[:3], y[:2], x, y, MODEL)
    with pytest.raises(RepairInputError, match="and not all"):
        train_concept_patch(base, x, y, x, y, MODEL)
    with pytest.raises(RepairInputError, match="and not all, found"):
        train_concept_patch(base, x[:1], np.array([10]), x, y, MODEL)
    with pytest.raises(RepairInputError, match=r"found none of \[5\]"):
        _trained(SHORT, non_members=NonMembers(x[y == 1], y[y == 1]))


@pytest.mark.parametrize(
    ("sentence", "change"),
    [
        ("no radius", {"radius": Fraction(0)}),
        ("no retained radius", {"retained_radius": Fraction(0)}),
        ("no margin", {"margin": Fraction(0)}),
        ("no delta", {"delta": Fraction(0)}),
        ("no rate", {"rate": Fraction(0)}),
        ("no hidden layer", {"hidden": ()}),
        ("an empty layer", {"hidden": (4, 0)}),
        ("no steps", {"steps": 0}),
        ("no batch", {"batch": 0}),
        ("more steps with CROWN than steps", {"steps": 10, "crown_steps": 11}),
        ("a negative number of records to look at", {"looked_at": -1}),
        ("all held out", {"held_out": Fraction(1)}),
        ("more than all of the unseen", {"unseen": Fraction(2)}),
    ],
)
def test_an_unusable_threat_model_is_refused(sentence: str, change: dict[str, Fraction | int]) -> None:
    assert sentence
    with pytest.raises(RepairInputError, match="a learned patch"):
        replace(MODEL, **change)  # type: ignore[arg-type] # the field's own type


@pytest.mark.slow
@pytest.mark.shared_data
def test_class_5_of_mnist_is_forgotten_on_test_data(shared_data: Path) -> None:
    """784-256-256-10: fewer than 1 % of unseen fives are answered, and the other classes lose nothing."""
    data = mnist(shared_data / "mnist")
    with torch.random.fork_rng(devices=[]):
        net = train(lambda: small_mlp([784, 256, 256, 10]), data, epochs=2, seed=0)
    base = load_network(export_onnx(net, data.train_x), "base").network
    own, unseen = data.train_y == CLASS, data.test_y == CLASS
    model = ConceptThreatModel(
        radius=Fraction("0.02"), retained_radius=Fraction("0.01"), margin=Fraction("0.5"), delta=Fraction("0.1"),
        steps=1500, crown_steps=20, looked_at=50,
    )  # fmt: skip
    found = train_concept_patch(
        base, data.train_x[own], data.train_y[own], data.train_x[~own], data.train_y[~own], model
    )
    members, others = (data.test_x[unseen], data.test_y[unseen]), (data.test_x[~unseen], data.test_y[~unseen])
    shares = concept_shares(base, build(base, found.patch), members, others)
    assert shares.recognised_before > 0.9
    assert shares.recognised < 0.01
    assert shares.accuracy >= shares.accuracy_before
    assert found.forgotten(model.margin) > 0.99
    assert found.within(model.delta) > 0.6
