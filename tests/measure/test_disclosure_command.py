"""``measure disclosure`` on digits: numbers, pictures, and what it refuses."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from prune_verify.checker.encoding import sha256_hex
from prune_verify.measurement_file import read_measurement
from tests.unlearned_digits import FORGOTTEN, run, unlearned_digits

pytestmark = pytest.mark.prover


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return unlearned_digits(tmp_path_factory.mktemp("digits"))


def words(folder: Path, *more: object) -> list[object]:
    return [
        "measure", "disclosure", folder / "base.onnx", folder / "out" / "patch.json", "--forget", folder / "forget.npz",
        "--public", folder / "test.npz", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def found(folder):
    out, svg = folder / "disclosure.json", folder / "disclosure.svg"
    code, text = run(*words(folder, "--out", out, "--svg", svg))
    assert code == 0, text
    return text, read_measurement(out)[0], svg


def test_bits_are_those_of_the_patch(found, folder) -> None:
    rows = {row.name: row for row in found[1].rows}
    patch = json.loads((folder / "out" / "patch.json").read_text())
    assert int(rows["bits"].value) == patch["disclosed"]["bits"]
    assert float(rows["bits-per-record"].value) == pytest.approx(patch["disclosed"]["bits"] / len(FORGOTTEN), rel=1e-5)
    assert rows["bits"].interval is None


def test_the_gain_is_the_difference_of_the_errors(found) -> None:
    rows = {row.name: float(row.value) for row in found[1].rows}
    assert rows["gain"] == pytest.approx(rows["error.label-mean"] - rows["error.attack"], abs=2e-6)
    attack = [float(v) for v in found[1].series["record.error.attack"]]
    assert rows["error.attack"] == pytest.approx(np.mean(attack), rel=1e-4)
    assert "reconstruct" not in found[0]
    assert "that says nothing of better attacks" in found[0] or "the patch discloses" in found[0]


def test_each_record_is_drawn_beside_its_guess_and_the_mean(found) -> None:
    drawn = ET.fromstring(found[2].read_text())  # noqa: S314 - our own file
    space = "{http://www.w3.org/2000/svg}"
    assert len(drawn.findall(f"{space}image")) == 3 * len(FORGOTTEN)
    said = [text.text for text in drawn.findall(f"{space}text")]
    assert said[:3] == ["record", "guessed from the patch", "mean of the label"]
    assert len(said) == 3 + 3 * len(FORGOTTEN)
    assert all(image.get("href").startswith("data:image/png;base64,") for image in drawn.findall(f"{space}image"))


def test_the_inputs_are_named_and_the_command_repeats(found, folder) -> None:
    measurement = found[1]
    assert ("patch.json", sha256_hex((folder / "out" / "patch.json").read_bytes())) in measurement.inputs
    assert "--svg" not in measurement.command
    code, text = run(*measurement.command.split()[1:], "--json")
    assert code == 0
    rows = json.loads(text)["measurement"]["rows"]
    assert [(row["name"], row["value"]) for row in rows] == [(row.name, row.value) for row in measurement.rows]


REFUSED = [
    ("the forgotten records as the public sample", ["--public", "forget.npz"], "expected none of the records of"),
    ("too few public records of a label", ["--public", "few.npz"], "at least 8 records of label"),
    ("a picture of another size", ["--image", "8x9"], "--image: expected HxW of 64 numbers in all, found '8x9'"),
    ("a picture in words", ["--image", "small"], "found 'small'"),
    ("a domain upside down", ["--domain", "1,0"], "--domain: expected LO,HI with LO below HI"),
    ("a domain of one end", ["--domain", "1"], "--domain: expected LO,HI"),
    ("shifts of rows that are no pictures", ["--shifts", "1"], "--shifts: expected 0 or more pixels, and --image"),
    ("a place that is taken", ["--svg", "base.onnx"], "never overwritten"),
]  # fmt: skip


@pytest.mark.parametrize(("more", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_does_not_fit_is_refused_by_name(folder, more, message, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    with np.load("test.npz") as test:
        np.savez("few.npz", x=test["x"][:9], y=test["y"][:9])
    code, text = run(*words(folder, *more))
    assert code == 2
    assert message in text


def test_the_patch_of_another_network_is_refused(folder, tmp_path) -> None:
    from prune_verify.measure.training import export_onnx, small_mlp

    other = tmp_path / "other.onnx"
    other.write_bytes(export_onnx(small_mlp((64, 24, 10)), np.zeros((1, 64), dtype=np.float32)))
    code, text = run(
        "measure", "disclosure", other, folder / "out" / "patch.json", "--forget", folder / "forget.npz", "--public", folder / "test.npz"
    )  # fmt: skip
    assert (code, "expected a patch of other.onnx, found one of another base network" in text) == (2, True)
