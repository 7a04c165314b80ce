"""REASSURE's dense patch: its region is where the network is affine, its linear program has the optimum found by hand."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

from prune_verify.measure.datasets import digits
from prune_verify.measure.reassure import DensePatched, dense_patch, linear_region
from prune_verify.measure.training import export_onnx, small_mlp, train

pytestmark = pytest.mark.prover
DATA = digits()
NETWORK = train(lambda: small_mlp((64, 24, 16, 10)), DATA, epochs=20, seed=0)


def _logits(network: nn.Module, rows: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return network(torch.from_numpy(np.atleast_2d(rows).astype(np.float32))).numpy()


def _patch(place: int, **options: float):
    row, logits = DATA.train_x[place], _logits(NETWORK, DATA.train_x[place])[0]
    target = int(np.argsort(logits)[-2])
    return row, target, dense_patch(NETWORK, row, target, margin=0.1, **options)


def test_the_region_is_where_the_network_is_affine():
    row = DATA.train_x[3]
    region = linear_region(NETWORK, row)
    assert region.weight.shape == (40, 64)
    rng, inside = np.random.default_rng(0), 0
    for size in (1e-4, 1e-3, 1e-2, 1e-1):
        for point in row + size * rng.standard_normal((200, 64)):
            affine = region.slope @ point + region.offset
            found = _logits(NETWORK, point)[0]
            if (region.weight @ point <= region.bias).all():
                inside += 1
                np.testing.assert_allclose(found, affine, atol=1e-4)
    assert inside > 100


def test_the_target_wins_on_the_region_and_the_point_is_forgotten():
    row, target, patch = _patch(3)
    patched = DensePatched(NETWORK, [patch])
    rng = np.random.default_rng(1)
    points = np.clip(row + 1e-3 * rng.standard_normal((300, 64)), 0, 1)
    points = np.vstack([row, points[(points @ patch.region.weight.T <= patch.region.bias).all(axis=1)]])
    assert len(points) > 20
    assert (_logits(patched, points).argmax(axis=1) == target).all()


def test_a_steep_gate_leaves_other_records_alone_and_a_flat_one_does_not():
    others = DATA.test_x
    shares = {}
    for gate in (1e-3, 1e4):
        _, _, patch = _patch(3, gate=gate)
        changed = np.abs(_logits(DensePatched(NETWORK, [patch]), others) - _logits(NETWORK, others)).max(axis=1) > 1e-4
        shares[gate] = changed.mean()
    assert shares[1e4] < 0.02 < shares[1e-3]


def test_the_linear_program_has_the_optimum_found_by_hand():
    network = nn.Sequential(nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 2))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[1.0, 1.0]]))
        network[0].bias.fill_(-1.0)
        network[2].weight.copy_(torch.tensor([[2.0], [0.0]]))
        network[2].bias.zero_()
    patch = dense_patch(network, np.array([0.75, 0.5], dtype=np.float32), 1, margin=0.1)
    # On x + y >= 1 within the unit square logit 0 is 2 (x + y - 1), at most 2: it has to fall by 2.1, half on each.
    np.testing.assert_allclose(patch.slope, 0, atol=1e-9)
    np.testing.assert_allclose(patch.offset, [-1.05, 1.05], atol=1e-6)
    assert patch.height == pytest.approx(1.05)
    assert patch.parameters == 2 + 1 + 4 + 2


def test_the_exported_network_runs_and_answers_the_same():
    row, _, patch = _patch(5)
    patched = DensePatched(NETWORK, [patch]).eval()
    session = ort.InferenceSession(export_onnx(patched, DATA.train_x))
    rows = np.vstack([row, DATA.test_x[:50]])
    np.testing.assert_allclose(session.run(None, {"x": rows})[0], _logits(patched, rows), atol=1e-4)


def test_other_layers_are_refused():
    with pytest.raises(TypeError, match="found Tanh"):
        linear_region(nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2)), np.zeros(2, dtype=np.float32))
