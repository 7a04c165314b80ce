"""``measure membership`` on digits: what attacks find on an over-fitted base, and do not find on a genuine retrain."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import torch
from scipy.stats import norm

from prune_verify.checker.encoding import sha256_hex
from prune_verify.measure import shadow_training
from prune_verify.measure.attack_scores import ATTACKS
from prune_verify.measure.baselines import Rows
from prune_verify.measure.datasets import digits
from prune_verify.measure.errors import MeasureInputError
from prune_verify.measure.membership import auc_difference, probes_near
from prune_verify.measure.membership_command import FILES
from prune_verify.measure.membership_picture import thinned_roc
from prune_verify.measure.membership_sets import choose_sets, shadow_parts
from prune_verify.measure.roc import auc, roc
from prune_verify.measure.shadow_epochs import Fit, fit_of, match_epochs
from prune_verify.measure.shadow_training import Recipe, train_one
from prune_verify.measure.training import export_onnx, small_mlp
from prune_verify.measurement_file import read_measurement
from tests.unlearned_digits import run, unlearned_digits

pytestmark = pytest.mark.prover
DATA = digits()


# --- which records ---


def rows(count: int, first: float, labels: int = 10) -> Rows:
    x = np.full((count, 4), first, np.float32) + np.arange(count, dtype=np.float32)[:, None] / 1000
    return Rows(x, np.arange(count) % labels)


@pytest.mark.parametrize(
    ("forget", "retain", "others", "scored", "population"),
    [(20, 80, 100, 80, 20), (20, 80, 1000, 100, 200), (20, 8000, 9000, 8000, 1000), (50, 20, 30, 24, 6)],
    ids=["all others", "no more others than the base was trained on", "most of a population", "few others"],
)
def test_every_record_has_one_part_and_scored_ones_are_in_half_of_the_shadows(
    forget, retain, others, scored, population
):
    sets = choose_sets(rows(forget, 0.0), rows(retain, 100.0), rows(others, 200.0), 0)
    assert (len(sets.outside.y), len(sets.population.y)) == (scored, population)
    assert sets.unused == others - scored - population
    assert not set(sets.outside.x[:, 0]) & set(sets.population.x[:, 0])
    parts = shadow_parts(sets, 6, 1)
    assert parts.shape == (6, forget + scored + retain)
    assert (parts[:, : sets.scored].sum(axis=0) == 3).all()
    if forget <= scored:
        sizes = np.maximum(forget + retain, parts[:, : sets.scored].sum(axis=1))
        np.testing.assert_array_equal(parts.sum(axis=1), sizes)
    else:
        assert parts[:, sets.scored :].all(), "no more than all retained records"
    assert sets.trained_on(forget=True).sum() == forget + retain
    assert sets.trained_on(forget=False).sum() == retain
    assert (sets.pool.x[sets.trained_on(forget=False), 0] >= 100).all()
    np.testing.assert_array_equal(parts, shadow_parts(sets, 6, 1))


def test_others_have_labels_that_the_forget_set_has():
    sets = choose_sets(rows(20, 0.0, labels=2), rows(80, 100.0), rows(100, 200.0), 0)
    assert set(sets.outside.y) == set(sets.population.y) == {0, 1}
    assert sets.unused == 80
    with pytest.raises(MeasureInputError, match=r"records: expected 2 forget records and 4 others .*found 20 and 3"):
        choose_sets(rows(20, 0.0, labels=1), rows(80, 100.0), rows(30, 200.0), 0)


# --- epochs ---


def test_epochs_are_those_that_the_base_took(tmp_path: Path):
    own = Rows(DATA.train_x[:400], DATA.train_y[:400])
    base = export_onnx(small_mlp((64, 16, 10)), DATA.train_x)
    recipe = Recipe(base, epochs=30, batch=32, rate=3e-3)
    every = np.ones(400, np.bool_)
    network = train_one(Recipe(base, 12, 32, 3e-3), own, every, 5)
    with torch.no_grad():
        goal = fit_of(network(torch.from_numpy(own.x)).numpy(), own.y)
    seen = []
    found = match_epochs(recipe, own, goal, 5, cache=tmp_path, progress=lambda what, n, of: seen.append(n))
    assert found.recipe.epochs == 12, "the same seed fits as closely at the same epoch"
    assert found.fit.loss == pytest.approx(goal.loss, abs=1e-6)
    assert "12 epochs" in found.text()
    assert len(seen) > 11
    seen.clear()
    assert match_epochs(recipe, own, goal, 5, cache=tmp_path, progress=lambda what, n, of: seen.append(n)) == found
    assert seen == [], "kept"
    never = match_epochs(recipe, own, Fit(1.0, 1e-9), 5)
    assert never.recipe.epochs == 30
    assert "fits more closely" in never.text()


# --- numbers ---


def test_the_interval_of_a_difference_of_areas_covers_it():
    """Scores that are correlated through the record, areas known: the 95 % interval covers in about 95 % of draws."""
    random = np.random.default_rng(0)
    truth = norm.cdf(1.0 / np.sqrt(2)) - norm.cdf(0.5 / np.sqrt(2))
    covered, trials = 0, 300
    for _ in range(trials):
        shared = random.normal(size=200)
        first, second = (0.8 * shared + 0.6 * random.normal(size=200) for _ in range(2))
        shift = np.arange(200) < 80
        found = auc_difference(first + shift, second + 0.5 * shift, 80)
        covered += found.low <= truth <= found.high
    assert 0.91 <= covered / trials <= 0.985
    same = auc_difference(first, first, 80)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    exact = auc(first[:80], first[80:]).value - auc(second[:80], second[80:]).value
    assert auc_difference(first, second, 80).value == pytest.approx(exact)


def test_probes_are_the_same_for_every_network_and_start_with_the_record():
    x = DATA.test_x[:5]
    asked: list[np.ndarray] = []

    def logits(rows: np.ndarray) -> np.ndarray:
        asked.append(rows)
        return np.stack([-rows.sum(axis=1), rows.sum(axis=1)], axis=1)

    first = probes_near(logits, x, 0.3, 1)
    assert first.shape == (5, 25)
    np.testing.assert_array_equal(asked[0], x)
    spreads = [float((rows - x).std()) for rows in asked[1:]]
    np.testing.assert_allclose(spreads, np.repeat([0.075, 0.15, 0.3, 0.6], 6), rtol=0.25)
    np.testing.assert_array_equal(first, probes_near(logits, x, 0.3, 1))
    np.testing.assert_array_equal(asked[3], asked[28])


def test_a_thinned_curve_is_the_curve_where_it_has_points():
    random = np.random.default_rng(1)
    curve = roc(random.normal(1, 1, 500), random.normal(0, 1, 5000))
    false, true = thinned_roc(curve, 50)
    assert len(false) <= 50
    assert (false[0], false[-1], true[-1]) == (0.0, 1.0, 1.0)
    for rate, height in zip(false, true, strict=True):
        assert height == curve.true_positive[curve.false_positive <= rate].max()


# --- the command ---


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return unlearned_digits(tmp_path_factory.mktemp("digits"))


def words(folder: Path, out: Path, *more: object) -> list[object]:
    sets = ("--forget", folder / "forget.npz", "--retain", folder / "retain.npz", "--non-members", folder / "test.npz")
    patched = folder / "out" / "patched.onnx"
    return ["measure", "membership", folder / "base.onnx", patched, *sets, "--out", out, "--rate", 0.005, *more]


@pytest.fixture(scope="module")
def found(folder):
    """One whole run: its object, and its folder."""
    out = folder / "membership"
    code, text = run(
        *words(folder, out, "--shadows", 8, "--cache", folder / "cache", "--json"), "--against", f"again={folder / 'base.onnx'}"
    )  # fmt: skip
    assert code == 0
    return json.loads(text), out


def test_it_writes_a_measurement_with_every_attack_on_every_network(found, folder):
    said, out = found
    measurement, data = read_measurement(out / FILES[0])
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)
    assert said["measurement"] == json.loads(data)
    assert said["sha256"] == sha256_hex(data)
    rows = {row.name: row for row in measurement.rows}
    for network in ("base", "patched", "again", "retrained"):
        for attack in ATTACKS:
            if (network, attack) != ("base", "two-version"):
                assert rows[f"{network}.{attack}.auc"].interval is not None
    assert "base.two-version.auc" not in rows
    assert not any("tpr-at-0.001" in name for name in rows), "too few records for that rate"
    assert measurement.kind == "membership"
    assert {name for name, _ in measurement.inputs} >= {
        "base.onnx",
        "patched.onnx",
        "forget.npz",
        "retain.npz",
        "test.npz",
    }
    assert rows["again.lira-online.auc"].value == rows["base.lira-online.auc"].value
    assert "--shadows 8" in measurement.command
    assert "--cache" not in measurement.command


def test_an_ordinary_patch_is_found_by_the_two_sided_detector_and_hides_from_one_sided_attacks(found):
    said, _ = found
    rows = {row["name"]: row for row in said["measurement"]["rows"]}
    assert float(rows["patched.unlike-non-member.auc"]["value"]) > 0.9
    assert float(rows["patched.lira-offline.auc"]["value"]) < 0.1
    assert float(rows["patched-over-retrained.unlike-non-member.auc"]["interval"][0]) > 0
    assert said["said"][0].startswith("the two-sided detector tells forgotten records from records never seen better")
    assert rows["retrained.off-chance"]["value"] == "0"
    assert "0.5 lies in the interval of every attack" in said["said"][1]


def test_the_scores_can_be_computed_again_from_the_arrays(found):
    said, out = found
    rows = {row["name"]: row for row in said["measurement"]["rows"]}
    with np.load(out / "membership.npz", allow_pickle=False) as arrays:
        member = arrays["member"]
        for name in ("patched.unlike-non-member", "retrained.rmia-offline", "base.label-only"):
            scores = arrays[f"scores.{name}"]
            area = auc(scores[member], scores[~member])
            assert float(rows[f"{name}.auc"]["value"]) == pytest.approx(area.value, abs=1e-5)
        assert (arrays["inside"].sum(axis=0) == 4).all()
        assert arrays["shadows"].shape == (8, len(member) + len(arrays["population_labels"]), 10)
        assert arrays["logits.patched"].shape == arrays["shadows"].shape[1:]
        right = arrays["shadows"][:, : len(member)].argmax(axis=2) == arrays["labels"]
        assert right[arrays["inside"]].mean() > 0.95, "a shadow answers what it was trained on"


def test_the_picture_has_a_panel_per_attack_and_network(found):
    _, out = found
    root = ET.fromstring((out / "membership.svg").read_bytes())  # noqa: S314 - our own file
    titles = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    for attack in ATTACKS:
        assert attack in titles
    for network in ("base", "patched", "again", "retrained"):
        assert network in titles, "in the legend"
        assert f"{network}: forgotten, and never seen (grey)" in titles
    assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) > 40
    assert b"<script" not in (out / "membership.svg").read_bytes()


def test_a_second_run_trains_nothing_and_finds_the_same(found, folder, monkeypatch):
    _, out = found
    trained = []
    monkeypatch.setattr(shadow_training, "_trained", trained.append)
    again = folder / "again"
    code, text = run(
        *words(folder, again, "--shadows", 8, "--cache", folder / "cache"), "--against", f"again={folder / 'base.onnx'}"
    )  # fmt: skip
    assert code == 0
    assert trained == []
    first, second = (read_measurement(one / FILES[0])[0] for one in (out, again))
    assert first.rows == second.rows
    assert first.series == second.series
    assert (out / "membership.svg").read_bytes() == (again / "membership.svg").read_bytes()
    assert "n/a (needs 1,000 non-members, has" in text
    assert "area under the ROC curve" in text


def other_shape(folder: Path) -> str:
    path = folder / "other.onnx"
    path.write_bytes(export_onnx(small_mlp((32, 10)), np.zeros((1, 32), np.float32)))
    return f"other={path}"


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (("--shadows", 7), "--shadows: expected an even number, found 7"),
        (("--shadows", 0), "--shadows: expected 2 or more, found 0"),
        (("--epochs", 0), "--epochs: expected 1 or more, found 0"),
        (("--rate", -1), "recipe: rate: expected a positive number, found -1.0"),
        (("--retrained", 0), "--retrained: expected 1 or more, found 0"),
        (("--retrained", 8), "--against, --retrained: expected at most 7 networks together, found 0 and 8"),
        (("--against", "patched=x.onnx"), "--against: expected NAME=NETWORK.onnx with a new name"),
        (("--against", "x.onnx"), "--against: expected NAME=NETWORK.onnx with a new name"),
        (("--non-members", "{folder}/retain.npz"), "retain.npz: expected none of the records of"),
        (("--against", "other"), "other.onnx: expected rows of [64] and 10 labels as base.onnx, found rows of [32]"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused(folder, more, text):
    more = [str(one).format(folder=folder) for one in more]
    if more[1] == "other":
        more[1] = other_shape(folder)
    out = folder / "refused"
    code, said = run(*words(folder, out, "--epochs", 1, "--shadows", 2, *more))
    assert code == 2
    assert text in said
    assert not out.exists()


def test_files_that_exist_are_not_written_over(found, folder):
    _, out = found
    before = (out / FILES[0]).read_bytes()
    code, said = run(*words(folder, out))
    assert code == 2
    assert "never overwritten" in said
    assert (out / FILES[0]).read_bytes() == before


def test_an_interrupted_run_leaves_no_files_and_keeps_its_networks(folder, tmp_path, monkeypatch):
    original, done = shadow_training._trained, []

    def interrupted(task):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(task)
        return original(task)

    monkeypatch.setattr(shadow_training, "_trained", interrupted)
    out, cache = tmp_path / "out", tmp_path / "cache"
    options = ("--shadows", 4, "--epochs", 1, "--cache", cache)
    code, text = run(*words(folder, out, *options))
    assert code == 2
    assert "interrupted" in text
    assert not out.exists()
    assert len([p for p in cache.glob("??/*") if not p.name.startswith(".")]) == 2
    monkeypatch.setattr(shadow_training, "_trained", lambda task: done.append(task) or original(task))
    assert run(*words(folder, out, *options))[0] == 0
    assert len(done) == 5, "two before, two after, and the retrain"
