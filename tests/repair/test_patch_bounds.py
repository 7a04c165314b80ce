"""Interval bounds of a patch are below every value on the ball, and the base's part is bounded once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prune_verify.checker.network import Network, Node, evaluate
from prune_verify.checker.rebuild import build
from prune_verify.repair.patch_bounds import (
    Balls,
    PatchBounds,
    chain,
    interval_changes,
    interval_margins,
    learned_patch,
    runners_up,
)
from tests.repair.bases import trained_digits

pytestmark = pytest.mark.prover


def _patch(seed: int = 0) -> torch.nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return chain((64,), [64, 12, 8, 10])


def _points(balls: Balls, seed: int) -> torch.Tensor:
    share = torch.rand(balls.lower.shape, generator=torch.Generator().manual_seed(seed))
    share = share.round() if seed % 2 else share
    return balls.lower + share * (balls.upper - balls.lower)


def test_balls_stay_in_the_domain() -> None:
    balls = Balls.around(np.array([[0.0, 0.5, 1.0]], dtype=np.float32), 0.1, (0.0, 1.0))
    np.testing.assert_allclose(balls.lower.numpy(), [[0.0, 0.4, 0.9]], atol=1e-6)
    np.testing.assert_allclose(balls.upper.numpy(), [[0.1, 0.6, 1.0]], atol=1e-6)
    assert len(balls) == len(balls.rows(slice(1))) == 1


def test_intervals_bound_every_value_and_a_slope_only_loosens() -> None:
    data, patch = trained_digits()[1], _patch()
    balls = Balls.around(data.train_x[:40], 0.05, (0.0, 1.0))
    labels, targets = torch.arange(40) % 10, (torch.arange(40) + 3) % 10
    with torch.no_grad():
        low, loose = (interval_margins(patch, balls, labels, targets, slope) for slope in (0.0, 0.1))
        moved = interval_changes(patch, balls)
        assert (loose <= low + 1e-6).all()
        assert (loose < low).any()
        for seed in range(60):
            values, rows = patch(_points(balls, seed)), torch.arange(40)
            assert (values[rows, targets] - values[rows, labels] >= low - 1e-5).all()
            assert (values.abs().amax(dim=1) <= moved + 1e-5).all()


def test_crown_bounds_of_the_sum_the_patch_and_the_base_agree_with_values() -> None:
    (base, data), patch = trained_digits(), _patch(1)
    bounds, x = PatchBounds(base, patch), data.train_x[:30]
    labels = evaluate(base, x).argmax(axis=1).astype(np.int64)
    targets, balls = runners_up(base, x, labels), Balls.around(x, 0.02, (0.0, 1.0))
    alone, both = bounds.base_margins(balls, labels, targets), bounds.all_margins(balls, labels, targets)
    with torch.no_grad():
        part, moved = bounds.patch_margins(balls, labels, targets), bounds.all_changes(balls)
        low, high = bounds.bands(balls, labels)
    kept, rows = bounds.kept(balls, labels), np.arange(30)
    torch.testing.assert_close(kept, low)
    patched = build(base, learned_patch(patch, 10))
    for seed in range(40):
        points = _points(balls, seed).numpy()
        before, after = evaluate(base, points), evaluate(patched, points)
        assert (before[rows, targets] - before[rows, labels] >= alone.numpy() - 1e-4).all()
        assert (after[rows, targets] - after[rows, labels] >= both.numpy() - 1e-4).all()
        difference = after - before
        assert (difference[rows, targets] - difference[rows, labels] >= part.numpy() - 1e-4).all()
        assert (np.abs(difference).max(axis=1) <= moved.numpy() + 1e-4).all()
        others = np.where(np.eye(10, dtype=bool)[labels], -np.inf, after).max(axis=1)
        margins = after[rows, labels] - others
        assert (margins >= low.numpy() - 1e-4).all()
        assert (margins <= high.numpy() + 1e-4).all()


def test_runners_up_are_never_barred_while_others_are_left() -> None:
    nodes = (Node("Input", (), (3,)), Node("Reshape", (0,), (3,)))
    base, x = Network(nodes, 1), np.array([[3.0, 2.0, 1.0], [1.0, 5.0, 3.0]], dtype=np.float32)
    y = np.array([0, 1])
    assert runners_up(base, x, y).tolist() == [1, 2]
    assert runners_up(base, x, y, np.array([0, 1])).tolist() == [2, 2]
    assert runners_up(base, x, y, np.array([0, 1, 2])).tolist() == [1, 2]


def test_a_chain_has_no_bias_at_its_end_and_is_what_the_checker_rebuilds() -> None:
    (base, data), patch = trained_digits(), _patch()
    found = learned_patch(patch, 10)
    assert [w.shape for w, _ in found.layers] == [(12, 64), (8, 12), (10, 8)]
    assert not found.layers[-1][1].any()
    assert not any(array.flags.writeable for layer in found.layers for array in layer)
    x = data.test_x[:50]
    with torch.no_grad():
        moved = patch(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(evaluate(build(base, found), x) - evaluate(base, x), moved, atol=1e-4)
    assert isinstance(chain((1, 8, 8), [64, 4, 10])[0], torch.nn.Flatten)
