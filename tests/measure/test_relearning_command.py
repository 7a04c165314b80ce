"""``measure relearning`` on digits, from files to a measurement, and what it refuses."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from prune_verify.measurement_file import read_measurement
from tests.unlearned_digits import run, unlearned_digits

pytestmark = pytest.mark.prover
QUICK = (
    "--epochs",
    4,
    "--seeds",
    2,
    "--records",
    "1,2",
    "--control-epochs",
    15,
    "--control-rate",
    "0.005",
    "--others",
    20,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return unlearned_digits(tmp_path_factory.mktemp("digits"))


def words(folder: Path, *more: object) -> list[object]:
    sets = [word for name in ("forget", "retain", "test") for word in (f"--{name}", folder / f"{name}.npz")]
    return ["measure", "relearning", folder / "base.onnx", folder / "out" / "patched.onnx", *sets, *QUICK, *more]


@pytest.fixture(scope="module")
def found(folder):
    code, text = run(*words(folder, "--svg", folder / "curves.svg", "--out", folder / "relearning.json"))
    assert code == 0, text
    return text, read_measurement(folder / "relearning.json")[0]


def test_the_answer_says_plainly_that_the_base_is_in_the_file(found) -> None:
    text, measurement = found
    rows = {row.name: row for row in measurement.rows}
    assert "the weights of the base are still in the file" in text
    assert (rows["strip.epochs"].value, rows["strip.accuracy"].value) == ("0", "1")


def test_a_control_is_trained_and_stands_beside(found) -> None:
    rows = {row.name: row for row in found[1].rows}
    assert float(rows["retrain.test"].value) > 0.8
    for mode in ("head", "full"):
        for records in ("1", "2", "all", "others"):
            assert rows[f"patched-beside-retrain.{mode}.{records}.epochs"].interval is not None
    assert rows["patched.full.all.accuracy"].value == "1"
    assert "patched.prototype.1.accuracy" in rows
    own, control = (float(rows[f"{name}.prototype.1.accuracy"].value) for name in ("patched", "retrain"))
    assert float(rows["patched-beside-retrain.prototype.1.accuracy"].value) == pytest.approx(own - control, abs=2e-6)


def test_each_mode_and_each_set_of_records_is_drawn(found, folder) -> None:
    drawn = ET.fromstring((folder / "curves.svg").read_text())  # noqa: S314 - our own file
    said = [text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert sum("attacker has: " in words for words in said) == 2 * 4
    assert said.count("patched") == said.count("retrain") == 2 * 4


def test_the_command_repeats_the_measurement(found) -> None:
    measurement = found[1]
    code, text = run(*measurement.command.split()[1:], "--json")
    assert code == 0
    rows = json.loads(text)["measurement"]["rows"]
    assert [(row["name"], row["value"]) for row in rows] == [(row.name, row.value) for row in measurement.rows]


def test_a_control_of_ones_own_is_not_trained(folder, tmp_path) -> None:
    shutil.copy(folder / "base.onnx", tmp_path / "same.onnx")
    code, text = run(
        *words(folder, "--against", f"retrain={tmp_path / 'same.onnx'}", "--against", f"other={tmp_path / 'same.onnx'}"),
        "--modes", "full", "--seeds", 1, "--json",
    )  # fmt: skip
    assert code == 0
    rows = {row["name"]: row for row in json.loads(text)["measurement"]["rows"]}
    assert rows["retrain.full.all.epochs"]["value"] == "0"
    assert rows["retrain.full.all.epochs"]["interval"] is None
    assert rows["other-beside-retrain.full.all.epochs"]["value"] == "0"
    assert not any(name.startswith("strip") for name in rows)


def test_a_control_is_trained_until_it_fits_as_closely_as_the_base(folder) -> None:
    sets = [word for name in ("forget", "retain", "test") for word in (f"--{name}", folder / f"{name}.npz")]
    more = ("--modes", "full", "--seeds", 1, "--epochs", 1, "--records", 1, "--control-rate", "0.02")
    code, text = run("measure", "relearning", folder / "base.onnx", folder / "out" / "patched.onnx", *sets, *more)
    assert code == 0, text
    assert "the control is trained for " in text
    assert " % right, loss " in text


def test_records_that_a_retrain_answers_anyway_are_no_sign_of_memory(folder) -> None:
    code, text = run(*words(folder, "--modes", "full", "--against", f"retrain={folder / 'base.onnx'}"))
    assert code == 0
    assert "retrain answers the forgotten records before any relearning, though it never saw them" in text


def test_a_control_that_knows_little_is_named(folder) -> None:
    code, text = run(*words(folder, "--modes", "full", "--control-epochs", 1))
    assert code == 0
    assert "a control that knows less than the base says little" in text


REFUSED = [
    ("no epochs", ["--epochs", "0"], "--epochs: expected 1 or more, found 0"),
    ("no seeds", ["--seeds", "0"], "--seeds: expected 1 or more, found 0"),
    ("fewer than no others", ["--others=-1"], "--others: expected 0 or more, found -1"),
    ("fewer than no retained records", ["--retained=-1"], "--retained: expected 0 or more, found -1"),
    ("a mode that nobody knows", ["--modes", "full,all"], "found 'all'"),
    ("a mode twice", ["--modes", "full,full"], "at most once, found 'full'"),
    ("more than everything back", ["--recovered", "1.5"], "--recovered: expected more than 0 and at most 1, found 1.5"),
    ("a rate in words", ["--rate", "fast"], "--rate: decimal: expected plain decimal notation"),
    ("another network without a name", ["--against", "base.onnx"], "--against: expected NAME=NET.onnx"),
    ("another network that is called patched", ["--against", "patched=base.onnx"], "with a name of its own, found 'patched=base.onnx'"),
    ("two networks of one name", ["--against", "a=base.onnx", "--against", "a=base.onnx"], "with a name of its own"),
    ("a name with a point", ["--against", "a.b=base.onnx"], "with a name of its own"),
    ("a control of other labels", ["--against", "retrain=narrow.onnx"], "expected rows of [64] and 10 labels as base.onnx"),
    ("forgotten records in the retained set", ["--retain", "forget.npz"], "expected none of the records of"),
    ("forgotten records in the test set", ["--test", "forget.npz"], "expected none of the records of"),
    ("a place that is taken", ["--svg", "base.onnx"], "never overwritten"),
]  # fmt: skip


@pytest.mark.parametrize(("more", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_does_not_fit_is_refused_by_name(folder, more, message, monkeypatch) -> None:
    from prune_verify.measure.training import export_onnx, small_mlp

    monkeypatch.chdir(folder)
    if not Path("narrow.onnx").exists():
        Path("narrow.onnx").write_bytes(export_onnx(small_mlp((64, 4, 3)), np.zeros((1, 64), dtype=np.float32)))
    code, text = run(*words(folder, *more))
    assert code == 2
    assert message in text
