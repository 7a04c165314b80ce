"""The learned patch: trained on digits under the threat model, and honest about what bounds say of it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.datasets import load_digits

from prune_verify.checker.network import Network, Node, evaluate
from prune_verify.checker.rebuild import build
from prune_verify.repair.errors import RepairInputError
from prune_verify.repair.learned import LearnedThreatModel, TrainedPatch, train_learned_patch
from prune_verify.repair.trained_patch import TrainingGap
from prune_verify.repair.training_state import Checkpoint

pytestmark = pytest.mark.prover

Floats = npt.NDArray[np.float32]
MODEL = LearnedThreatModel(
    radius=Fraction("0.03"), retained_radius=Fraction("0.02"), margin=Fraction("0.5"), delta=Fraction("0.01"), seed=1
)
FORGET = np.array([679, 735])


@cache
def _digits() -> tuple[Network, Floats, npt.NDArray[np.int64]]:
    """A 64-24-10 network trained for a second, and the data."""
    found = load_digits()
    x, y = (found.data / 16).astype(np.float32), found.target.astype(np.int64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(64, 24), torch.nn.ReLU(), torch.nn.Linear(24, 10))
        optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
        for _ in range(120):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(net(torch.from_numpy(x)), torch.from_numpy(y)).backward()
            optimiser.step()
    nodes = [Node("Input", (), (64,))]
    for part in net:
        if isinstance(part, torch.nn.Linear):
            arrays = {"weight": part.weight.detach().numpy().copy(), "bias": part.bias.detach().numpy().copy()}
            nodes.append(Node("Linear", (len(nodes) - 1,), (part.out_features,), {"axis": (-1,)}, arrays))
        else:
            nodes.append(Node("Relu", (len(nodes) - 1,), nodes[-1].shape))
    return Network(tuple(nodes), len(nodes) - 1), x, y


def _trained(model: LearnedThreatModel = MODEL) -> TrainedPatch:
    base, x, y = _digits()
    return train_learned_patch(base, x[FORGET], y[FORGET], np.delete(x, FORGET, axis=0), model)


@cache
def _default() -> TrainedPatch:
    return _trained()


def test_the_threat_model_is_met_by_bounds() -> None:
    found = _default()
    assert found.forget_margins.min() >= float(MODEL.margin)
    assert found.within(MODEL.delta) == 1.0
    assert len(found.changes) == 1797 - len(FORGET)


def test_the_bounds_hold_on_corners_of_the_forget_balls() -> None:
    found, (base, x, y) = _default(), _digits()
    patched, rng = build(base, found.patch), np.random.default_rng(0)
    for place, record in enumerate(FORGET):
        points = np.clip(x[record] + 0.03 * rng.choice([-1.0, 1.0, 0.3], (2000, 64)), 0, 1).astype(np.float32)
        logits = evaluate(patched, points)
        margins = logits[:, found.targets[place]] - logits[:, y[record]]
        assert margins.min() >= found.forget_margins[place] - 1e-3
        assert (logits.argmax(axis=1) != y[record]).all()
        assert evaluate(base, x[record : record + 1]).argmax() == y[record]


def test_the_bounds_hold_on_corners_of_retained_balls() -> None:
    found, (base, x, _) = _default(), _digits()
    retained, rng = np.delete(x, FORGET, axis=0), np.random.default_rng(0)
    points = np.clip(retained + 0.02 * rng.choice([-1.0, 1.0], (5, *retained.shape)), 0, 1).astype(np.float32)
    for batch in points:
        moved = np.abs(evaluate(build(base, found.patch), batch) - evaluate(base, batch)).max(axis=1)
        assert (moved <= found.changes + 1e-4).all()


def test_the_patch_is_small_and_its_shape_is_as_asked() -> None:
    found = _default()
    assert [w.shape for w, _ in found.patch.layers] == [(24, 64), (2, 24), (10, 2)]
    assert all(w.dtype == b.dtype == np.float32 and not w.flags.writeable for w, b in found.patch.layers)
    assert not found.patch.layers[-1][1].any()


def test_training_is_needed_and_is_reported() -> None:
    shares: list[float] = []
    base, x, y = _digits()
    few = replace(MODEL, steps=1)
    retained = np.delete(x, FORGET, axis=0)
    start = train_learned_patch(base, x[FORGET], y[FORGET], retained, few, lambda _, share: shares.append(share))
    assert start.forget_margins.min() < float(MODEL.margin)
    assert 0 < _default().steps < MODEL.steps
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_the_same_seed_gives_the_same_patch() -> None:
    short = replace(MODEL, steps=25)
    first, second = _trained(short), _trained(short)
    for (w1, b1), (w2, b2) in zip(first.patch.layers, second.patch.layers, strict=True):
        np.testing.assert_array_equal(w1, w2)
        np.testing.assert_array_equal(b1, b2)
    other = _trained(replace(short, seed=2, batch=64))
    assert any((w1 != w2).any() for (w1, _), (w2, _) in zip(first.patch.layers, other.patch.layers, strict=True))


def test_a_record_among_the_retained_cannot_be_met_and_is_not_claimed() -> None:
    base, x, y = _digits()
    found = train_learned_patch(base, x[FORGET], y[FORGET], x, replace(MODEL, steps=40))
    assert found.forget_margins.min() < float(MODEL.margin) or found.within(MODEL.delta) < 1.0


def test_images_are_flattened() -> None:
    base, x, y = _digits()
    nodes = [replace(n, inputs=tuple(i + 1 for i in n.inputs)) for n in base.nodes[1:]]
    shaped = Network((Node("Input", (), (1, 8, 8)), Node("Reshape", (0,), (64,)), *nodes), base.output + 1)
    found = train_learned_patch(shaped, x[FORGET].reshape(-1, 1, 8, 8), y[FORGET], x[:50].reshape(-1, 1, 8, 8), MODEL)
    assert found.forget_margins.min() >= float(MODEL.margin)
    assert build(shaped, found.patch).labels == 10


@pytest.mark.parametrize(
    ("sentence", "change"),
    [
        ("no radius", {"radius": Fraction(0)}),
        ("a negative retained radius", {"retained_radius": Fraction(-1)}),
        ("no margin", {"margin": Fraction(0)}),
        ("no delta", {"delta": Fraction(0)}),
        ("no hidden units", {"hidden": 0}),
        ("no steps", {"steps": 0}),
        ("no batch", {"batch": 0}),
        ("no band", {"band": Fraction(0)}),
        ("negative steps with intervals", {"interval_steps": -1}),
        ("a redirect that does not exist", {"redirect": "vanish"}),
    ],
)
def test_an_unusable_threat_model_is_refused(sentence: str, change: dict[str, Fraction | int]) -> None:
    assert sentence
    with pytest.raises(RepairInputError):
        replace(MODEL, **change)  # type: ignore[arg-type] # the field's own type


def test_empty_sets_and_too_few_units_are_refused() -> None:
    base, x, y = _digits()
    with pytest.raises(RepairInputError, match="forget record"):
        train_learned_patch(base, x[:0], y[:0], x, MODEL)
    with pytest.raises(RepairInputError, match="retained record"):
        train_learned_patch(base, x[:1], y[:1], x[:0], MODEL)
    with pytest.raises(RepairInputError, match="half-space"):
        train_learned_patch(base, x[:3], y[:3], x[3:], replace(MODEL, hidden=2))


def test_intervals_first_reach_the_same_as_crown_alone() -> None:
    alone, both = _trained(replace(MODEL, interval_steps=0)), _default()
    assert [curve.phase for curve in alone.curves] == ["relaxation"] * len(alone.curves)
    assert both.curves[0].phase == "interval"
    assert both.curves[-1].phase == "relaxation"
    for found in (alone, both):
        assert found.training_gap(MODEL.margin, MODEL.delta) == TrainingGap((), 0.0, (), 0.0)
        assert found.curves[-1].step == found.steps
        assert found.curves[-1].margin == pytest.approx(found.forget_margins.min())
        assert found.curves[0].forget_loss is None
        assert found.curves[-1].forget_loss is not None


def test_what_cannot_be_met_is_told_with_its_amount() -> None:
    base, x, y = _digits()
    model = replace(MODEL, steps=60, interval_steps=20)
    found = train_learned_patch(base, x[FORGET], y[FORGET], x, model)
    lacking = found.training_gap(model.margin, model.delta)
    assert set(FORGET) & set(lacking.retain) or lacking.forget
    if lacking.forget:
        assert lacking.lacking == pytest.approx(float(model.margin) - found.forget_margins.min())
    assert lacking.excess == pytest.approx(max(0.0, float(found.changes.max()) - float(model.delta)))
    assert found.forgotten(model.margin) == pytest.approx(1 - len(lacking.forget) / len(FORGET))


@pytest.mark.parametrize("stop", [40, 100])
def test_an_interrupted_training_ends_with_the_same_bits(tmp_path: Path, stop: int) -> None:
    """Once in each phase; the interruption comes after the checkpoint of its look."""
    base, x, y = _digits()
    model = replace(MODEL, steps=120, interval_steps=60, batch=64)
    rows = x[FORGET], y[FORGET], x  # the forget records among the retained: never met
    whole = train_learned_patch(base, *rows, model)
    assert whole.steps == 120

    def interrupt(_what: str, share: float) -> None:
        if share * 120 >= stop:
            raise KeyboardInterrupt

    checkpoint = Checkpoint(tmp_path / "training.npz")
    with pytest.raises(KeyboardInterrupt):
        train_learned_patch(base, *rows, model, interrupt, checkpoint=checkpoint)
    # A second interruption right after taking up again changes nothing either.
    with pytest.raises(KeyboardInterrupt):
        train_learned_patch(base, *rows, model, interrupt, checkpoint=checkpoint)
    shares: list[float] = []
    again = train_learned_patch(base, *rows, model, lambda _, share: shares.append(share), checkpoint=checkpoint)
    assert shares[0] * 120 >= 40
    assert (again.steps, again.curves) == (whole.steps, whole.curves)
    for (w1, b1), (w2, b2) in zip(whole.patch.layers, again.patch.layers, strict=True):
        assert (w1.tobytes(), b1.tobytes()) == (w2.tobytes(), b2.tobytes())


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    base, x, y = _digits()
    checkpoint, model = Checkpoint(tmp_path / "training.npz"), replace(MODEL, steps=20)
    rows = x[FORGET], y[FORGET], np.delete(x, FORGET, axis=0)
    train_learned_patch(base, *rows, model, checkpoint=checkpoint)
    for changed, arrays in (
        (replace(model, seed=9), rows),
        (replace(model, delta=Fraction("0.02")), rows),
        (model, (x[FORGET[::-1]], *rows[1:])),
        (model, (*rows[:2], rows[2][:-1])),
    ):
        with pytest.raises(RepairInputError, match="another base, other records or other settings"):
            train_learned_patch(base, *arrays, changed, checkpoint=checkpoint)
