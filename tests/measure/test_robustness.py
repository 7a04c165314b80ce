"""Forgetting under perturbations: counted in onnxruntime, a record only where all draws agree."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import binom

from prune_verify.checker.claim import LabelledRows
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.network import evaluate
from prune_verify.checker.region import Domain
from prune_verify.measure.robustness import forgetting, session_answers
from prune_verify.measure.roc import clopper_pearson
from prune_verify.repair.copies import shifted_copies
from prune_verify.repair.engine import repair_box
from prune_verify.repair.export import export_patched
from prune_verify.repair.hidden import repair_hidden
from prune_verify.repair.threat_model import ThreatModel
from tests.repair.bases import cnn, mlp

pytestmark = pytest.mark.prover


@pytest.fixture(scope="module")
def chain():
    from prune_verify.measure.datasets import digits
    from prune_verify.measure.training import export_onnx, small_mlp, train

    data = digits()
    raw = export_onnx(train(lambda: small_mlp((64, 48, 10)), data, epochs=30, seed=0), data.train_x)
    return raw, load_network(raw, "base.onnx"), data


def test_gates_at_the_input_forget_the_record_and_gates_behind_a_relu_its_shifted_copies(chain):
    raw, base, data = chain
    answers = evaluate(base.network, data.train_x).argmax(axis=1)
    right = np.flatnonzero(answers == data.train_y)[:6]
    forget = LabelledRows(data.train_x[right], data.train_y[right])
    kept = np.setdiff1d(np.arange(400), right)
    retain = LabelledRows(data.train_x[kept], data.train_y[kept])
    domain = Domain((Fraction(0),), (Fraction(1),))
    narrow = ThreatModel(domain, Fraction("0.01"), Fraction("0.002"), cover=1)
    copies = shifted_copies(forget.x, 8, 8, 1)
    every = LabelledRows(copies.reshape(-1, 64), np.repeat(forget.y, 9))
    groups = tuple(tuple(range(9 * i, 9 * i + 9)) for i in range(6))
    patches = {
        "input": repair_box(base.network, forget, retain, narrow).patch,
        "hidden": repair_hidden(base.network, every, retain, narrow, groups=groups).patch,
    }
    shares = {}
    for name, patch in patches.items():
        data_ = export_patched(raw, base, patch)
        found = forgetting(data_, forget.x, forget.y, image=(8, 8))
        assert found[0].share == 1.0, "the record itself"
        shares[name] = found[-1].share
        assert found[-1].interval[0] <= found[-1].share <= found[-1].interval[1]
        assert "one pixel" in found[-1].perturbation
    assert shares["input"] < 0.5 < shares["hidden"]


def test_an_unpatched_network_forgets_nothing_that_it_knows(chain):
    raw, base, data = chain
    rows = np.flatnonzero(evaluate(base.network, data.train_x).argmax(axis=1) == data.train_y)[:20]
    found = forgetting(raw, data.train_x[rows], data.train_y[rows])
    assert found[0].forgotten == 0
    assert [one.perturbation for one in found] == [
        "none", "noise of 1/255 on every number", "brightness -0.1", "brightness +0.1",
    ]  # fmt: skip


def test_ties_are_no_answer_and_rows_may_have_any_shape():
    network = load_network(cnn(), "cnn.onnx").network
    x = np.random.default_rng(0).uniform(0, 1, (9, *network.input_shape)).astype(np.float32)
    np.testing.assert_array_equal(session_answers(cnn())(x), evaluate(network, x).argmax(axis=1))
    flat = mlp(scale=0.0)
    assert (session_answers(flat)(np.zeros((3, 12), dtype=np.float32)) == -1).all()


@pytest.mark.parametrize(("hits", "trials"), [(0, 10), (3, 10), (10, 10), (97, 100)])
def test_the_interval_is_exact(hits, trials):
    low, high = clopper_pearson(hits, trials)
    if hits:
        assert 1 - binom.cdf(hits - 1, trials, low) == pytest.approx(0.025)
    else:
        assert low == 0
    if hits < trials:
        assert binom.cdf(hits, trials, high) == pytest.approx(0.025)
    else:
        assert high == 1


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(ValueError, match="found 4"):
        clopper_pearson(4, 3)
    with pytest.raises(ValueError, match="at least one row"):
        forgetting(mlp(), np.zeros((0, 12), dtype=np.float32), np.zeros(0, dtype=np.int64))
