"""Redirect ``non-member``: the distances, the draw, and bands that hold."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from prune_verify.checker.network import evaluate
from prune_verify.checker.rebuild import build
from prune_verify.repair.errors import RepairInputError
from prune_verify.repair.learned import LearnedThreatModel, train_learned_patch
from prune_verify.repair.non_members import NonMembers, discrepancy, drawn_margins, imitation, margins_of
from tests.repair.bases import trained_digits

pytestmark = pytest.mark.prover

MODEL = LearnedThreatModel(
    radius=Fraction("0.01"), retained_radius=Fraction("0.01"), margin=Fraction("0.5"), delta=Fraction("0.05"),
    redirect="non-member", band=Fraction(3), steps=300,
)  # fmt: skip


def test_margins_are_those_over_the_best_other_label() -> None:
    logits = torch.tensor([[1.0, 5.0, 2.0], [0.0, -1.0, 4.0]])
    assert margins_of(logits, torch.tensor([1, 0])).tolist() == [3.0, -4.0]


def test_the_discrepancy_is_zero_for_the_same_rows_and_grows_with_distance() -> None:
    rows = torch.rand(20, 3, generator=torch.Generator().manual_seed(0))
    assert float(discrepancy(rows, rows)) == pytest.approx(0.0, abs=1e-6)
    near, far = float(discrepancy(rows, rows + 0.1)), float(discrepancy(rows, rows + 0.5))
    assert 1e-4 < near < far
    assert float(discrepancy(rows, rows + 0.5)) == pytest.approx(float(discrepancy(rows + 0.5, rows)))


def test_imitation_is_zero_for_the_same_outputs_and_has_gradients_of_one_row() -> None:
    logits, labels = torch.randn(8, 4, generator=torch.Generator().manual_seed(1)), torch.arange(8) % 4
    assert float(imitation(logits, labels, logits, labels)) == pytest.approx(0.0, abs=1e-6)
    one = (logits[:1] + 3 * torch.eye(4)[labels[:1]]).requires_grad_()
    imitation(one, labels[:1], logits, labels).backward()
    assert torch.isfinite(one.grad).all()
    assert one.grad.any()


def test_margins_are_drawn_from_records_of_the_own_label_each_once() -> None:
    base, data = trained_digits()
    others = NonMembers(data.test_x, data.test_y)
    forget_y = np.array([3] * 10 + [5] * 7)
    drawn = drawn_margins(base, forget_y, others, seed=4)
    for label in (3, 5):
        rows = data.test_y == label
        logits = torch.from_numpy(evaluate(base, data.test_x[rows]).copy())
        own = margins_of(logits, torch.full((int(rows.sum()),), label)).numpy()
        mine = drawn[forget_y == label]
        assert np.abs(mine[:, np.newaxis] - own).min(axis=1).max() < 1e-4  # another batch, another rounding
        assert len(set(mine.tolist())) == len(mine)
    np.testing.assert_array_equal(drawn, drawn_margins(base, forget_y, others, seed=4))
    assert (drawn != drawn_margins(base, forget_y, others, seed=5)).any()


def test_few_non_members_are_drawn_again() -> None:
    base, data = trained_digits()
    few = np.flatnonzero(data.test_y == 3)[:2]
    drawn = drawn_margins(base, np.full(5, 3), NonMembers(data.test_x[few], data.test_y[few]), seed=0)
    assert len(set(drawn.tolist())) == 2


def test_a_label_without_non_members_is_refused() -> None:
    base, data = trained_digits()
    kept = data.test_y != 7
    with pytest.raises(RepairInputError, match="at least one record of label 7"):
        drawn_margins(base, np.array([7]), NonMembers(data.test_x[kept], data.test_y[kept]), seed=0)


def test_bands_hold_and_are_around_the_non_members_margins() -> None:
    base, data = trained_digits()
    forget, others = np.array([11, 12, 13]), NonMembers(data.test_x, data.test_y)
    retain = np.delete(data.train_x, forget, axis=0)[:400]
    found = train_learned_patch(base, data.train_x[forget], data.train_y[forget], retain, MODEL, non_members=others)
    assert found.bands is not None
    assert found.aims is not None
    assert (found.bands[:, 0] <= found.bands[:, 1]).all()
    lacking = found.training_gap(MODEL.margin, MODEL.delta, MODEL.band)
    assert (lacking.forget, lacking.lacking) == ((), 0.0)
    assert found.within(MODEL.delta) > 0.95
    patched, rng = build(base, found.patch), np.random.default_rng(0)
    for place, record in enumerate(forget):
        points = data.train_x[record] + 0.01 * rng.choice([-1.0, 1.0, 0.2], (3000, 64))
        logits = torch.from_numpy(evaluate(patched, np.clip(points, 0, 1).astype(np.float32)).copy())
        margins = margins_of(logits, torch.full((3000,), int(data.train_y[record])))
        assert margins.min() >= found.bands[place, 0] - 1e-3
        assert margins.max() <= found.bands[place, 1] + 1e-3
        assert (margins - found.aims[place]).abs().max() <= 1.5 + 1e-3


def test_a_band_that_is_too_narrow_is_told_with_what_lacks() -> None:
    base, data = trained_digits()
    model = replace(MODEL, band=Fraction("0.001"), steps=20)
    found = train_learned_patch(
        base, data.train_x[:1], data.train_y[:1], data.train_x[1:50], model,
        non_members=NonMembers(data.test_x, data.test_y),
    )  # fmt: skip
    lacking = found.training_gap(model.margin, model.delta, model.band)
    assert lacking.forget == (0,)
    assert found.bands is not None
    assert found.aims is not None
    assert lacking.lacking == pytest.approx(np.abs(found.bands[0] - found.aims[0]).max() - 0.0005)


@pytest.mark.parametrize(("redirect", "given"), [("non-member", False), ("misclassify", True)])
def test_non_members_belong_to_the_redirect(redirect: str, given: bool) -> None:
    base, data = trained_digits()
    others = NonMembers(data.test_x, data.test_y) if given else None
    with pytest.raises(RepairInputError, match=f"--redirect {redirect}"):
        train_learned_patch(
            base, data.train_x[:1], data.train_y[:1], data.train_x[1:9], replace(MODEL, redirect=redirect), non_members=others
        )  # fmt: skip
