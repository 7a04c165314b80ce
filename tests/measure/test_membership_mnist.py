"""Membership inference at full size: 5,000 rows of MNIST, of which a network that was trained too long tells its members."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prune_verify.measure.datasets import DataSet, mnist
from prune_verify.measure.training import export_onnx, small_mlp, train
from prune_verify.measurement_file import read_measurement
from tests.unlearned_digits import run

pytestmark = [pytest.mark.prover, pytest.mark.slow]
RECORDS, FORGOTTEN, NEVER_SEEN = 5000, 500, 5000


@pytest.fixture(scope="module")
def rows(shared_data: Path, tmp_path_factory) -> dict[str, dict]:
    """An over-fitted base, a patch of gates, and what the attacks find: rows by name."""
    folder = tmp_path_factory.mktemp("mnist")
    data = mnist(shared_data / "mnist")
    order = np.random.default_rng(0).permutation(len(data.train_y))
    own, others = order[:RECORDS], order[RECORDS : RECORDS + NEVER_SEEN]
    base = train(
        lambda: small_mlp((784, 256, 256, 10)),
        DataSet("mnist", data.train_x[own], data.train_y[own], data.test_x, data.test_y),
        epochs=25,
        seed=0,
    )
    (folder / "base.onnx").write_bytes(export_onnx(base, data.train_x))
    for name, chosen in (("forget", own[:FORGOTTEN]), ("retain", own[FORGOTTEN:]), ("others", others)):
        np.savez(folder / f"{name}.npz", x=data.train_x[chosen], y=data.train_y[chosen])
    sets = ("--forget", folder / "forget.npz", "--retain", folder / "retain.npz")
    code, text = run("repair", folder / "base.onnx", *sets, "--out", folder / "out")
    assert code == 0, text
    code, text = run(
        "measure", "membership", folder / "base.onnx", folder / "out" / "patched.onnx", *sets, "--non-members", folder / "others.npz",
        "--shadows", 16, "--workers", 2, "--out", folder / "found",
    )  # fmt: skip
    assert code == 0, text
    measurement, _ = read_measurement(folder / "found" / "membership.measurement.json")
    return {row.name: row for row in measurement.rows}


def ends(row) -> tuple[float, float]:
    return float(row.interval[0]), float(row.interval[1])


def test_an_over_fitted_base_is_found_by_lira(rows):
    assert ends(rows["base.lira-online.auc"])[0] > 0.55
    assert ends(rows["base.lira-online.tpr-at-0.01"])[0] > 0.01
    assert float(rows["base.lira-online.tpr-at-0.001"].value) > 0.005


def test_a_genuine_retrain_is_at_chance_on_the_forget_set(rows):
    assert int(rows["retrained.off-chance"].value) <= 1, "one interval of eight may miss by chance"
    for attack in ("lira-online", "unlike-non-member"):
        low, high = ends(rows[f"retrained.{attack}.auc"])
        assert low <= 0.5 <= high
        assert high - low < 0.08


def test_gates_that_forget_are_found_by_the_two_sided_detector(rows):
    assert ends(rows["patched.unlike-non-member.auc"])[0] > 0.9
    assert ends(rows["patched-over-retrained.unlike-non-member.auc"])[0] > 0.3
    assert float(rows["patched.lira-offline.auc"].value) < 0.1


def test_shadows_fit_their_records_as_the_base_does(rows):
    assert abs(int(rows["epochs"].value) - 25) <= 6
    assert float(rows["accuracy.shadows"].value) == pytest.approx(float(rows["accuracy.base"].value), abs=0.002)
