"""``measure membership --ensembles``: a patch is told from retraining, retraining is not, and who may know what."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from prune_verify.measure import membership_ensembles
from prune_verify.measure.baselines import Rows
from prune_verify.measure.membership import Shadows
from prune_verify.measure.membership_sets import Sets
from tests.unlearned_digits import run, unlearned_digits

pytestmark = pytest.mark.prover


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return unlearned_digits(tmp_path_factory.mktemp("digits"))


def words(folder: Path, out: Path, *more: object) -> list[object]:
    sets = ("--forget", folder / "forget.npz", "--retain", folder / "retain.npz", "--non-members", folder / "test.npz")
    recipe = ("--shadows", 16, "--epochs", 4, "--rate", 0.005, "--cache", folder / "cache")
    patched = folder / "out" / "patched.onnx"
    return ["measure", "membership", folder / "base.onnx", patched, *sets, *recipe, "--out", out, *more]


def measured(folder: Path, family: str) -> tuple[dict[str, dict], dict, Path]:
    out = folder / f"out-{family}"
    code, text = run(*words(folder, out, "--ensembles", 20, "--family", family, "--json"))
    assert code == 0, text
    found = json.loads(text)
    return {row["name"]: row for row in found["measurement"]["rows"]}, found, out


@pytest.mark.parametrize(("family", "told"), [("box", True), ("retrain", False)])
def test_gates_are_told_from_retraining_and_retraining_is_not(folder, family: str, told: bool):
    rows, found, out = measured(folder, family)
    low, high = (float(end) for end in rows["ensemble.u-lira.mean-auc"]["interval"])
    assert (low > 0.6) == told
    assert (low <= 0.5 <= high) == (not told)
    assert f"({family}) {'can' if told else 'cannot'}" in found["said"][-1]
    matched, control = (
        [float(end) for end in rows[f"ensemble.klom.{which}"]["interval"]] for which in ("matched", "control")
    )
    assert (matched[0] <= control[1] and control[0] <= matched[1]) == (not told)
    with np.load(out / "membership.npz") as arrays:
        assert arrays["ensemble.unlearned"].shape == arrays["ensemble.retrained"].shape == (20, 5, 10)
        assert len(np.unique(arrays["ensemble.retrained"][:, 0, 0])) == 20, "each from a seed of its own"
        assert arrays["ensemble.lira"].mean() == pytest.approx(
            float(rows["ensemble.u-lira.mean-auc"]["value"]), abs=1e-5
        )


def test_fine_tuning_keeps_what_it_learned_and_unlearned_networks_are_kept(folder, monkeypatch):
    rows, _, out = measured(folder, "fine-tune")
    assert float(rows["ensemble.u-lira.mean-auc"]["value"]) > 0.3
    monkeypatch.setattr(membership_ensembles, "_unlearned", lambda task: pytest.fail("it is in the cache"))
    code, _ = run(*words(folder, folder / "again", "--ensembles", 20, "--family", "fine-tune"))
    assert code == 0
    with np.load(out / "membership.npz") as first, np.load(folder / "again" / "membership.npz") as second:
        np.testing.assert_array_equal(first["ensemble.unlearned"], second["ensemble.unlearned"])
        assert np.ptp(first["ensemble.unlearned"], axis=0).min() > 0


def test_margins_of_networks_that_never_saw_a_record_are_those_of_its_shadows_outside():
    random = np.random.default_rng(0)
    rows = [Rows(random.random((n, 2), dtype=np.float32), np.arange(n) % 3) for n in (4, 5, 6, 2)]
    inside = random.random((6, 9)) < 0.5
    logits = random.normal(size=(6, 11, 3)).astype(np.float32)
    found = membership_ensembles._out_margins(Shadows(logits, inside), Sets(*rows, 0))
    for record, pool in enumerate(found.pools):
        expected = []
        for shadow in np.flatnonzero(~inside[:, record]):
            own, *others = np.roll(logits[shadow, record].astype(np.float64), -int(rows[0].y[record]))
            expected.append(own - max(others))
        np.testing.assert_allclose(pool, expected)
    assert len(found.pools) == 4
    assert found.per_record


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (("--ensembles", 19), "--ensembles: expected 20 networks of each kind or more, found 19"),
        (("--ensembles", 20, "--family", "magic"), "--family: expected one of retrain, box, relu-0"),
        (("--ensembles", 20, "--radius", "x"), "--radius"),
        (("--ensembles", 20, "--family", "SISA"), "--family SISA: expected --batch 128 --rate 0.001 --weight-decay 0, by"),
        (("--ensembles", 20, "--family", "REASSURE"), "--family: expected one of retrain, box, relu-0"),
    ],
    ids=["too few", "no such way", "no radius", "another recipe", "a network that it cannot"],
)  # fmt: skip
def test_ensembles_that_cannot_be_had_are_refused(folder, more, text):
    out = folder / "refused"
    code, said = run(*words(folder, out, *more))
    assert code == 2
    assert text in said
    assert not out.exists()
