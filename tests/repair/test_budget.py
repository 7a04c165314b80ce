"""When it is time to retrain: which budget is exceeded, by what, and what was spent beside retraining."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prune_verify.checker.claim import strict_answers
from prune_verify.checker.load_onnx import load_network
from prune_verify.cli import run_words
from prune_verify.repair.budget import Budget, Growth, advice, measure_growth
from prune_verify.repair.engine import repair_class_cap
from prune_verify.repair.errors import RepairInputError
from prune_verify.repair.export import export_patched
from prune_verify.repair.stream import Stream
from prune_verify.repair.threat_model import default_threat_model
from prune_verify.request_sets import domain_of
from tests.dishonest_owner import prepare
from tests.repair.bases import fixed_batch, mlp
from tests.stream_owner import DATA, StreamOwner

pytestmark = pytest.mark.prover
F = np.float32
SMALL = Growth(0.1, 2.0, hits=0.0005, retained_hits=0.0, repair_seconds=6.0)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("budget")
    prepare(folder)
    return folder / "base.onnx"


@pytest.fixture
def owner(base, tmp_path) -> StreamOwner:
    return StreamOwner(base, tmp_path)


OVER = [
    ("within", {}, None),
    ("bytes", {"patch_share": 0.51}, "bytes of the patch over those of the base 0.51, budget 0.5"),
    ("latency", {"latency_factor": 4.5}, "latency over that of the base 4.5, budget 4"),
    ("test rows", {"hits": 0.002}, "share of test rows changed 0.002, budget 0.001"),
    ("retained records", {"retained_hits": 0.01}, "share of retained records inside supports 0.01, budget 0.001"),
    ("exactly the budget is within it", {"patch_share": 0.5, "latency_factor": 4.0, "hits": 0.001}, None),
    ("test rows that were not given", {"hits": None, "retained_hits": None}, None),
]


@pytest.mark.parametrize(("sentence", "change", "words"), OVER, ids=[row[0] for row in OVER])
def test_one_row_per_budget(sentence, change, words):
    found = advice(replace(SMALL, **change), Budget())
    assert found == ([] if words is None else [f"time to retrain: {words}", "repairing took 6.0 s so far"])


def test_every_budget_that_is_exceeded_is_named_with_the_costs_beside_retraining():
    growth = replace(SMALL, patch_share=0.6, latency_factor=5.0, prove_seconds=3.0, retrain_seconds=12.0)
    first, second = advice(growth, Budget())
    assert first.count("budget") == 2
    assert second == (
        "repairing took 6.0 s so far, proving all live requests again 3.0 s; retraining takes 12.0 s, and 75 % of that "
        "is spent"
    )


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("name", "option"),
    [("patch_share", "--most-patch-share"), ("latency_factor", "--most-latency"), ("hits", "--most-hits")],
)
def test_a_budget_is_a_number_from_0(name, option, value):
    with pytest.raises(RepairInputError, match=option):
        Budget(**{name: value})


def test_the_same_network_has_grown_by_nothing():
    rows = np.random.default_rng(0).random((100, 12)).astype(F)
    found = measure_growth(mlp(), mlp(), rows, rows, (0, 1, 2, 3, 4))
    assert (found.patch_share, found.hits) == (0.0, 0.0)
    assert 0.2 < found.latency_factor < 5


def test_rows_with_a_changed_logit_are_counted():
    rows = np.random.default_rng(0).random((4100, 12)).astype(F)
    assert measure_growth(mlp(), mlp(seed=1), rows, rows, (0,)).hits == 1.0


def test_what_a_class_request_takes_away_is_not_counted():
    data = mlp()
    base = load_network(data, "base.onnx")
    rows = np.random.default_rng(0).random((500, 12)).astype(F)
    label = int(np.bincount(strict_answers(base.network, rows)).argmax())
    patch = repair_class_cap(base.network, (label,), default_threat_model(domain_of("0,1", []))).patch
    patched = export_patched(data, base, patch)
    every = measure_growth(data, patched, rows, rows, (0, 1, 2, 3, 4)).hits
    assert every is not None
    assert every > 0, "else nothing is tested"
    assert measure_growth(data, patched, rows, rows, patch.allowed).hits == 0.0


def test_networks_of_a_fixed_batch_are_measured_too():
    rows = np.random.default_rng(0).random((3, 6, 1)).astype(F)
    assert measure_growth(fixed_batch(), fixed_batch(), rows, rows, (0, 1, 2)).hits == 0.0


def test_a_stream_says_when_it_is_time_and_goes_on(owner):
    wide = ["--most-patch-share", "9", "--most-latency", "1000"]
    found = owner.step("--reference", "A", *wide, forget=[3])
    assert (found["timeToRetrain"], found["advice"]) == (False, [])
    assert found["growth"]["prove_seconds"] is None
    test = owner.records(list(range(400, 460)), "test")
    found = owner.step("--reference", "B", "--most-patch-share", "0.01", "--most-latency", "1000", "--test", str(test),
                       "--retrain-seconds", "12", "--prove-seconds", "3", forget=[7])  # fmt: skip
    assert found["timeToRetrain"] is True
    assert "bytes of the patch" in found["advice"][0]
    assert "proving all live requests again 3.0 s; retraining takes 12.0 s" in found["advice"][1]
    size = (owner.out / "patched.onnx").stat().st_size / owner.base.stat().st_size - 1
    assert float(found["growth"]["patch_share"]) == pytest.approx(size, rel=1e-4)
    assert 0 <= float(found["growth"]["hits"]) < 0.2
    assert found["growth"]["retained_hits"] == f"{len(found['conflicts']) / 298:.6g}"


def test_seconds_are_added_up_in_the_folder(owner):
    owner.step("--reference", "A", forget=[3])
    one = Stream.read(owner.out)
    assert one.seconds > 0
    owner.step("--reference", "B", "--prove-seconds", "2.5", forget=[7])
    owner.step("--reference", "C", "--prove-seconds", "1.25", forget=[11])
    found = Stream.read(owner.out)
    assert found.seconds > one.seconds
    assert (float(found.proved), found.repairs) == (3.75, 3)


def test_the_text_for_a_person_has_the_same_lines(owner):
    owner.step("--reference", "A", forget=[3])
    code, text = run_words([
        "repair", str(owner.base), "--onto", str(owner.out), "--forget", str(owner.records([7], "new")), "--retain",
        str(owner.records(list(range(10, 200)), "kept")), "--most-latency", "0", "--out", str(owner.folder / "o"),
        "--quiet",
    ])  # fmt: skip
    assert code == 0
    assert "time to retrain: latency over that of the base" in text


def test_test_rows_that_do_not_fit_are_refused_before_anything_is_written(owner, tmp_path):
    path = tmp_path / "test.npz"
    np.savez(path, x=DATA.train_x[:4, :9], y=DATA.train_y[:4])
    found = owner.step("--reference", "A", "--test", str(path), forget=[3], expected=2)
    assert "shape of the test rows: expected 64 values per row" in found["error"]
    assert not (owner.folder / "out1").exists()
