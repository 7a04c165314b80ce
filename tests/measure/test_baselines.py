"""Baselines of unlearning on digits: each does what its paper says, and is exact where it claims to be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prune_verify.measure.baselines import Rows, fine_tune, gradient_ascent, retrain, train_amnesiac
from prune_verify.measure.datasets import digits
from prune_verify.measure.lookup import Lookup
from prune_verify.measure.sisa import train_sisa
from prune_verify.measure.training import export_onnx, small_mlp, train

pytestmark = pytest.mark.prover
DATA = digits()
ALL = Rows(DATA.train_x, DATA.train_y)
FORGET = Rows(DATA.train_x[:12], DATA.train_y[:12])
RETAIN = Rows(DATA.train_x[12:], DATA.train_y[12:])


def make() -> torch.nn.Sequential:
    return small_mlp((64, 32, 10))


BASE = train(make, DATA, epochs=20, seed=0)


def right(network: torch.nn.Module, rows: Rows) -> float:
    with torch.no_grad():
        x, y = rows.tensors()
        return float((network(x).argmax(dim=1) == y).float().mean())


def state(network: torch.nn.Module) -> np.ndarray:
    return np.concatenate([value.numpy().ravel() for value in network.state_dict().values()])


def test_retraining_never_sees_the_forgotten_and_still_answers_most_of_them():
    found = retrain(make, RETAIN, epochs=20, seed=1)
    assert right(found.network, RETAIN) > 0.85
    assert right(found.network, FORGET) > 0.6, "records are much like those that stay"
    assert found.seconds > 0
    np.testing.assert_array_equal(state(found.network), state(retrain(make, RETAIN, epochs=20, seed=1).network))


def test_fine_tuning_changes_the_network_and_forgets_little():
    before = state(BASE)
    found = fine_tune(BASE, RETAIN, epochs=2, seed=0)
    assert right(found.network, FORGET) > 0.8
    assert np.abs(state(found.network) - before).max() > 1e-4
    np.testing.assert_array_equal(state(BASE), before)


def test_gradient_ascent_forgets_or_stops_at_the_floor():
    found = gradient_ascent(BASE, FORGET, RETAIN, seed=0, rate=1e-3, floor=0.9)
    assert right(found.network, FORGET) < 0.5
    floored = gradient_ascent(BASE, FORGET, RETAIN, seed=0, rate=0.05, floor=0.0)
    assert "floor" in floored.note


def test_amnesiac_unlearning_subtracts_what_the_batches_added():
    training = train_amnesiac(make, ALL, frozenset(range(12)), epochs=1, seed=0)
    held = [records for records, _ in training.updates]
    assert frozenset().union(*held) == frozenset(range(12))
    every = training.unlearn(frozenset(range(12)))
    difference = sum(np.concatenate([v.numpy().ravel() for v in change.values()]) for _, change in training.updates)
    np.testing.assert_allclose(state(every.network), state(training.network) - difference, atol=1e-6)
    nothing = training.unlearn(frozenset({500}))
    np.testing.assert_array_equal(state(nothing.network), state(training.network))
    assert training.stored_bytes == len(held) * 4 * len(state(BASE))


def test_sisa_retrains_what_is_concerned_and_gets_what_training_without_the_record_gets():
    options = {"shards": 3, "slices": 2, "epochs": 12, "seed": 0}
    training = train_sisa(make, ALL, **options)
    record = int(training.slices[1][1][5])
    found = training.unlearn(frozenset({record}))
    assert found.note.startswith("1 of 6 slices")
    before, after = training.network(), found.network
    for shard in (0, 2):
        np.testing.assert_array_equal(state(after.networks[shard]), state(before.networks[shard]))
    assert (state(after.networks[1]) != state(before.networks[1])).any()
    first = int(training.slices[1][0][5])
    assert training.unlearn(frozenset({first, record})).note.startswith("2 of 6 slices")
    assert right(after, RETAIN) > 0.8
    session_input = DATA.train_x[:5]
    assert len(export_onnx(after, session_input)) > 3 * 4 * 64 * 32
    with pytest.raises(ValueError, match="3 x 600 slices"):
        train_sisa(make, ALL, shards=3, slices=600, epochs=1, seed=0)


def test_the_lookup_forgets_within_its_radius_and_stores_everything():
    def answers(rows: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return BASE(torch.from_numpy(rows)).argmax(dim=1).numpy()

    lookup = Lookup(answers, FORGET.x, FORGET.y, 0.05)
    known = answers(FORGET.x) == FORGET.y
    assert known.sum() > 8
    assert (lookup(FORGET.x)[known] == -1).all()
    near = np.clip(FORGET.x + np.float32(0.04), 0, 1)
    far = np.clip(FORGET.x + np.float32(0.2) * (np.arange(64) == 20).astype(np.float32), 0, 1)
    assert (lookup(near)[answers(near) == FORGET.y] == -1).all()
    moved = np.abs(far - FORGET.x).max(axis=1) > 0.05
    np.testing.assert_array_equal(lookup(far)[moved], answers(far)[moved])
    np.testing.assert_array_equal(lookup(RETAIN.x), answers(RETAIN.x))
    assert lookup.stored_bits_per_record == 8 * (64 * 4 + 8)
