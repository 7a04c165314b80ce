"""Many networks: each from its own records and seed, the same bytes on any number of workers, and resumed after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from prune_verify.certify.errors import CertifyInputError
from prune_verify.measure import shadow_training
from prune_verify.measure.baselines import Rows, retrain
from prune_verify.measure.datasets import digits
from prune_verify.measure.errors import MeasureInputError
from prune_verify.measure.robustness import session_logits
from prune_verify.measure.shadow_training import (
    Networks,
    Recipe,
    half_splits,
    train_bases,
    train_many,
    train_one,
    train_with_accuracy,
)
from prune_verify.measure.training import export_onnx, small_mlp

pytestmark = pytest.mark.prover
DATA = digits()
ROWS = Rows(DATA.train_x[:300], DATA.train_y[:300])
QUERIES = DATA.test_x[:50]


def make() -> torch.nn.Sequential:
    return small_mlp((64, 16, 10))


BASE = export_onnx(make(), DATA.train_x)
RECIPE = Recipe(BASE, epochs=3, batch=32)
PARTS = half_splits(300, 4, 0)
SEEDS = (10, 11, 12, 13)


@pytest.mark.parametrize(("rows", "shadows"), [(1, 2), (50, 8), (300, 64)])
def test_each_record_is_in_half_of_the_shadows(rows: int, shadows: int):
    parts = half_splits(rows, shadows, 3)
    assert parts.shape == (shadows, rows)
    assert (parts.sum(axis=0) == shadows // 2).all()
    np.testing.assert_array_equal(parts, half_splits(rows, shadows, 3))
    if rows > 1:
        assert (parts != half_splits(rows, shadows, 4)).any()
        assert len(np.unique(parts, axis=1).T) > 1, "drawn for each record by itself"


def test_a_network_is_what_its_records_and_seed_make_it():
    found = train_with_accuracy(Networks(RECIPE, ROWS, PARTS, SEEDS), QUERIES)
    for place, (part, seed) in enumerate(zip(PARTS, SEEDS, strict=True)):
        alone = train_one(RECIPE, ROWS, part, seed)
        with torch.no_grad():
            np.testing.assert_array_equal(alone(torch.from_numpy(QUERIES)).numpy(), found.logits[place])
            own = alone(torch.from_numpy(ROWS.x[part])).numpy()
        assert found.accuracy[place] == pytest.approx((own.argmax(axis=1) == ROWS.y[part]).mean())
    assert np.abs(found.logits[0] - found.logits[1]).max() > 0.1


def test_it_is_trained_as_the_other_networks_here_are():
    part = PARTS[0]
    theirs = retrain(make, Rows(ROWS.x[part], ROWS.y[part]), epochs=3, seed=10).network
    ours = train_one(Recipe(BASE, epochs=3), ROWS, part, 10)
    with torch.no_grad():
        x = torch.from_numpy(QUERIES)
        np.testing.assert_allclose(ours(x).numpy(), theirs(x).numpy(), atol=1e-4)


def test_weight_decay_is_applied():
    norms = [
        sum(
            float(w.detach().square().sum())
            for w in train_one(Recipe(BASE, 3, 32, 1e-3, decay), ROWS, PARTS[0], 1).parameters()
        )
        for decay in (0.0, 0.5)
    ]
    assert norms[1] < 0.9 * norms[0]


def test_the_same_bytes_whatever_the_number_of_workers_and_threads(tmp_path: Path):
    torch.set_num_threads(2)
    one = train_many(RECIPE, ROWS, PARTS, SEEDS, QUERIES)
    assert torch.get_num_threads() == 2
    two = train_many(RECIPE, ROWS, PARTS, SEEDS, QUERIES, cache=tmp_path, workers=2)
    assert one.tobytes() == two.tobytes()
    assert one.shape == (4, 50, 10)
    assert one.dtype == np.float32


def kept(folder: Path) -> dict[str, float]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("??/*") if not path.name.startswith(".")}


def test_what_is_in_the_cache_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trained, done = [], []
    original = shadow_training._trained
    monkeypatch.setattr(shadow_training, "_trained", lambda task: trained.append(task.seed) or original(task))
    first = train_many(RECIPE, ROWS, PARTS, SEEDS, QUERIES, cache=tmp_path)
    assert trained == list(SEEDS)
    gone = sorted(kept(tmp_path))[1]
    (tmp_path / gone[:2] / gone).unlink()
    again = train_many(
        RECIPE, ROWS, PARTS, SEEDS, QUERIES, cache=tmp_path, progress=lambda what, n, of: done.append((what, n, of))
    )
    assert len(trained) == 5, "only the one that was missing"
    assert first.tobytes() == again.tobytes()
    assert done == [("shadow networks", n, 4) for n in (1, 2, 3, 4)]


OTHERS = {
    "epochs": (Recipe(BASE, 4, 32), ROWS, PARTS[:1], (10,), QUERIES),
    "batch": (Recipe(BASE, 3, 33), ROWS, PARTS[:1], (10,), QUERIES),
    "rate": (Recipe(BASE, 3, 32, 2e-3), ROWS, PARTS[:1], (10,), QUERIES),
    "weight decay": (Recipe(BASE, 3, 32, 1e-3, 0.1), ROWS, PARTS[:1], (10,), QUERIES),
    "base": (Recipe(export_onnx(small_mlp((64, 17, 10)), DATA.train_x), 3, 32), ROWS, PARTS[:1], (10,), QUERIES),
    "rows": (RECIPE, Rows(ROWS.x * np.float32(0.5), ROWS.y), PARTS[:1], (10,), QUERIES),
    "labels": (RECIPE, Rows(ROWS.x, (ROWS.y + 1) % 10), PARTS[:1], (10,), QUERIES),
    "part": (RECIPE, ROWS, ~PARTS[:1], (10,), QUERIES),
    "seed": (RECIPE, ROWS, PARTS[:1], (11,), QUERIES),
    "queries": (RECIPE, ROWS, PARTS[:1], (10,), QUERIES[:49]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_whatever_a_network_depends_on_makes_another_entry(name: str, tmp_path: Path):
    train_many(RECIPE, ROWS, PARTS[:1], (10,), QUERIES, cache=tmp_path)
    before = kept(tmp_path)
    train_many(*OTHERS[name], cache=tmp_path)
    assert len(kept(tmp_path)) == 2
    assert before.items() <= kept(tmp_path).items()


_RUN = """
import sys
from pathlib import Path
from prune_verify.measure.baselines import Rows
from prune_verify.measure.datasets import digits
from prune_verify.measure.shadow_training import Recipe, half_splits, train_many
data = digits()
rows = Rows(data.train_x[:300], data.train_y[:300])
base = Path(sys.argv[1], "base.onnx").read_bytes()
train_many(Recipe(base, epochs=40, batch=32), rows, half_splits(300, 12, 0), range(12), data.test_x[:50],
           cache=Path(sys.argv[1], "cache"), workers=2)
"""


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path):
    (tmp_path / "base.onnx").write_bytes(BASE)
    environment = os.environ | {"PYTHONPATH": str(repository)}
    run = subprocess.Popen([sys.executable, "-c", _RUN, str(tmp_path)], env=environment, start_new_session=True)
    end = time.monotonic() + 60
    while len(kept(tmp_path / "cache")) < 3 and time.monotonic() < end:
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    before = kept(tmp_path / "cache")
    assert 3 <= len(before) < 12
    trained = []
    original = shadow_training._trained
    monkeypatch.setattr(shadow_training, "_trained", lambda task: trained.append(task.seed) or original(task))
    recipe, parts = Recipe(BASE, epochs=40, batch=32), half_splits(300, 12, 0)
    found = train_many(recipe, ROWS, parts, range(12), QUERIES, cache=tmp_path / "cache")
    assert len(trained) == 12 - len(before)
    assert before.items() <= kept(tmp_path / "cache").items()
    assert found[5].tobytes() == train_many(recipe, ROWS, parts[5:6], (5,), QUERIES).tobytes()


def test_bases_are_files_that_answer_as_the_networks_do(tmp_path: Path):
    networks = Networks(RECIPE, ROWS, PARTS[:2], SEEDS[:2])
    found = train_bases(networks, cache=tmp_path)
    logits = train_with_accuracy(networks, QUERIES, cache=tmp_path).logits
    for onnx, expected in zip(found, logits, strict=True):
        np.testing.assert_allclose(session_logits(onnx)(QUERIES), expected, atol=1e-4)
    assert train_bases(networks, cache=tmp_path) == found


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_gives_nearly_the_same():
    here, there = (
        train_many(Recipe(BASE, 3, 32, device=device), ROWS, PARTS, SEEDS, QUERIES) for device in ("cpu", "auto")
    )
    np.testing.assert_allclose(here, there, atol=1e-2)
    assert Recipe(BASE, 3, device="auto").key != Recipe(BASE, 3).key


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (lambda: half_splits(10, 3, 0), "shadows: expected an even number from 2, found 3"),
        (lambda: half_splits(10, 0, 0), "shadows: expected an even number from 2, found 0"),
        (lambda: Recipe(BASE, epochs=0), "recipe: epochs: expected a positive number, found 0"),
        (lambda: Recipe(BASE, 1, rate=-1.0), "recipe: rate: expected a positive number, found -1.0"),
        (lambda: Recipe(BASE, 1, weight_decay=-1.0), "recipe: weight decay: expected 0 or more, found -1.0"),
        (lambda: Networks(RECIPE, ROWS, PARTS, (1,)), r"memberships: expected truth values \(1, 300\)"),
        (lambda: Networks(RECIPE, ROWS, PARTS.astype(np.int64), SEEDS), "memberships: .*found int64"),
        (lambda: Networks(RECIPE, ROWS, PARTS & False, SEEDS), "network 0: expected records to train it on"),
        (lambda: Networks(RECIPE, Rows(ROWS.x[:, :9], ROWS.y), PARTS, SEEDS), r"rows: expected shape \(300, 64\), found"),
        (lambda: Networks(RECIPE, Rows(ROWS.x, ROWS.y + 1), PARTS, SEEDS), "rows: expected labels from 0 to 9, found 1 to 10"),
        (lambda: train_many(RECIPE, ROWS, PARTS, SEEDS, QUERIES[:, :9]), r"queries: expected rows of shape \(64,\)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(what, expected: str):
    with pytest.raises(MeasureInputError, match=expected):
        what()


def test_a_cache_that_cannot_be_written_is_refused(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CertifyInputError, match="the cache cannot be written"):
        train_many(RECIPE, ROWS, PARTS[:1], (10,), QUERIES, cache=tmp_path / "file")
