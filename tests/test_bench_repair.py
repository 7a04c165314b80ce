"""``bench repair`` on digits and on records of one's own: every table, and what its cells may say."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from prune_verify.cli import run_words
from prune_verify.measure.datasets import digits

pytestmark = pytest.mark.prover
TABLES = {
    "records", "classes", "streams", "one point: REASSURE and ours", "copies", "families", "disclosure", "baselines",
}  # fmt: skip
FINE = ("VERIFIED OK", "repair, exit 3")


def own_table(folder: Path) -> list[str]:
    """A csv table of 600 flowers-like rows with a category, and half as many to test on."""
    rng = np.random.default_rng(0)
    for name, count in (("train", 600), ("test", 300)):
        x = rng.random((count, 3))
        kind = rng.choice(["a", "b", "c"], count)
        label = np.where(x[:, 0] + (kind == "a") > 0.8, "yes", "no")
        lines = [",".join([*(f"{v:.6f}" for v in row), k, y]) for row, k, y in zip(x, kind, label, strict=True)]
        (folder / f"{name}.csv").write_text("\n".join(["one,two,three,kind,wanted", *lines]) + "\n")
    return ["--train", str(folder / "train.csv"), "--test", str(folder / "test.csv"), "--label-column", "wanted"]


@pytest.mark.slow
def test_every_family_is_measured_and_what_is_proved_is_verified(tmp_path: Path) -> None:
    code, text = run_words(
        ["bench", "repair", *own_table(tmp_path), "--out", str(tmp_path / "out"), "--json", "--quiet"]
    )
    assert code == 0, text
    tables = json.loads(text)["tables"]
    assert set(tables) == TABLES
    for row in tables["records"]:
        assert row["forget accuracy %"] == 0, row
        assert row["forget proved"] == f"{row['records']}/{row['records']}", row
        assert row["verdict"] == "VERIFIED OK", row
    caps = [row for row in tables["classes"] if row["family"] == "class-cap"]
    assert {row["data"] for row in caps} == {"digits", "train"}
    for row in caps:
        assert (row["after %"], row["all inputs proved"], row["verdict"]) == (0, True, "VERIFIED OK")
        assert row["others after %"] >= row["others before %"]
    for row in (*tables["copies"], *tables["families"]):  # a table of one's own may leave a claim of bounds open
        assert row["verdict"].startswith(FINE if row["data"] == "digits" else (*FINE, "UNDECIDED E_UNKNOWN")), row
    assert {row["method"] for row in tables["baselines"]} >= {"ours (box)", "retrain", "lookup of stored records"}
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"repair.json", "repair_records.csv", "repair_cost.svg", "repair_copies.svg"} <= written
    with (tmp_path / "out" / "repair_records.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(tables["records"])


@pytest.mark.parametrize(
    ("sentence", "words", "said"),
    [
        ("train without test", ["--train", "a.npz"], "--train and --test together"),
        ("a folder without MNIST", ["--data", "."], "expected a folder mnist/"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_what_cannot_be_measured_is_refused(sentence, words, said, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, text = run_words(["bench", "repair", *words, "--quiet"])
    assert code == 2
    assert said in text


def test_records_outside_the_unit_interval_are_refused_before_anything_is_measured(tmp_path: Path) -> None:
    from prune_verify.bench.chain import BenchError
    from prune_verify.bench.own_data import OwnData

    data = digits()
    np.savez(tmp_path / "good.npz", x=data.train_x, y=data.train_y)
    np.savez(tmp_path / "bad.npz", x=data.test_x * 2, y=data.test_y)
    good, bad = str(tmp_path / "good.npz"), str(tmp_path / "bad.npz")
    with pytest.raises(BenchError, match=r"bad\.npz: row 0: expected values in \[0, 1\]"):
        OwnData(good, bad).load()
    found, image = OwnData(good, good).load()
    assert image is None
    assert found.train_x.shape == data.train_x.shape


def test_words_of_other_benchmarks_take_no_records(tmp_path: Path) -> None:
    code, text = run_words(["bench", "chain", "--train", "a", "--test", "b", "--quiet"])
    assert (code, "belong to bench repair" in text) == (2, True)
