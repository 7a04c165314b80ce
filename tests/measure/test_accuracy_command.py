"""``measure accuracy`` on digits: what it writes, what it compares, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from prune_verify.checker.encoding import sha256_hex
from prune_verify.measurement_file import read_measurement
from tests.unlearned_digits import run, unlearned_digits

pytestmark = pytest.mark.prover


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return unlearned_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def groups(folder) -> Path:
    """Two attributes of the test records: how much ink there is, and a name for every record."""
    with np.load(folder / "test.npz") as test:
        ink = np.where(test["x"].mean(axis=1) > 0.3, "much", "little")
    np.savez(folder / "groups.npz", ink=ink, name=np.arange(len(ink)))
    lines = ["ink,name", *(f"{one},{place}" for place, one in enumerate(ink))]
    (folder / "groups.csv").write_text("\n".join(lines) + "\n")
    return folder / "groups.npz"


def words(folder: Path, *more: object) -> list[object]:
    return [
        "measure",
        "accuracy",
        folder / "base.onnx",
        folder / "out" / "patched.onnx",
        "--test",
        folder / "test.npz",
        *more,
    ]


@pytest.fixture(scope="module")
def found(folder, groups):
    """One whole run: its answer, the file, and the file's bytes."""
    out = folder / "accuracy.json"
    code, text = run(
        *words(folder, "--forget", folder / "forget.npz", "--retain", folder / "retain.npz"),
        "--subgroups", groups, "--subgroup-column", "ink", "--rounds", 3, "--out", out,
    )  # fmt: skip
    assert code == 0
    return text, *read_measurement(out)


def test_a_patch_forgets_its_records_and_leaves_the_others(found) -> None:
    _, measurement, _ = found
    rows = {row.name: row for row in measurement.rows}
    assert rows["forget.accuracy.base"].value == "1"
    assert rows["forget.accuracy.patched"].value == "0"
    assert rows["forget.accuracy.difference"].value == "-1"
    assert rows["forget.mcnemar.p"].value == "0.0625"
    assert rows["retain.identical"].value == "1"
    before, after = (rows[f"test.accuracy.{which}"] for which in ("base", "patched"))
    assert (before.value, before.interval) == (after.value, after.interval)


def test_every_share_lies_in_its_interval(found) -> None:
    for row in found[1].rows:
        if row.interval is not None and not row.name.startswith("test.calibration"):
            assert float(row.interval[0]) <= float(row.value) <= float(row.interval[1]), row


def test_classes_and_groups_add_up(found) -> None:
    rows = {row.name: row for row in found[1].rows}

    def hits(name: str) -> tuple[int, int]:
        right, _, count = rows[name].note.split(",")[0].partition(" of ")
        return int(right), int(count)

    whole = hits("test.accuracy.patched")
    for names in (
        [f"test.class.{c}.patched" for c in range(10)],
        ["test.group.ink=little.patched", "test.group.ink=much.patched"],
    ):
        assert tuple(map(sum, zip(*(hits(n) for n in names), strict=True))) == whole
    assert found[1].series["test.class.label"] == tuple("0123456789")
    assert sum(map(int, found[1].series["test.class.rows"])) == whole[1]


def test_cost_is_measured_for_both(found) -> None:
    rows = {row.name: float(row.value) for row in found[1].rows if row.name.startswith("cost.")}
    assert rows["cost.parameters.base"] == 64 * 24 + 24 + 24 * 10 + 10
    assert rows["cost.bytes.patched"] > rows["cost.bytes.base"]
    for batch in (1, 256):
        assert all(
            rows[f"cost.batch-{batch}.{name}"] > 0 for name in ("microseconds.base", "microseconds.patched", "ratio")
        )
    assert rows["cost.memory.mib.patched"] > 0


def test_the_file_names_its_inputs_and_the_command_that_repeats_it(found, folder) -> None:
    text, measurement, data = found
    assert f"sha256 {sha256_hex(data)}" in text
    assert "measured, not proved" in text
    for name in ("base.onnx", "out/patched.onnx", "test.npz", "forget.npz", "retain.npz", "groups.npz"):
        assert (Path(name).name, sha256_hex((folder / name).read_bytes())) in measurement.inputs
    assert measurement.command.startswith("prune-verify measure accuracy ")
    assert "--subgroup-column ink" in measurement.command
    assert "--out" not in measurement.command
    code, again = run(*measurement.command.split()[1:], "--no-cost", "--json")
    assert code == 0
    repeated = {row["name"]: row["value"] for row in json.loads(again)["measurement"]["rows"]}
    assert {row.name: row.value for row in measurement.rows if repeated.get(row.name, row.value) != row.value} == {}


def test_a_table_says_the_same_of_groups_as_an_archive(folder, groups) -> None:
    answers = []
    for file in (groups, folder / "groups.csv"):
        code, text = run(*words(folder, "--subgroups", file, "--subgroup-column", "ink", "--no-cost", "--json"))
        assert code == 0
        answers.append([row for row in json.loads(text)["measurement"]["rows"] if ".group." in row["name"]])
    assert answers[0] == answers[1]
    assert len(answers[0]) == 4


def test_a_column_of_the_test_table_may_make_the_groups(folder) -> None:
    with np.load(folder / "test.npz") as test:
        x, y = test["x"][:40], test["y"][:40]
    head = ",".join([*(f"p{i}" for i in range(64)), "digit"])
    lines = [",".join([*(str(v) for v in row), str(label)]) for row, label in zip(x, y, strict=True)]
    table = folder / "test.csv"
    table.write_text("\n".join([head, *lines]) + "\n")
    code, text = run(
        "measure", "accuracy", folder / "base.onnx", folder / "base.onnx", "--test", table, "--label-column", "digit",
        "--subgroup-column", "p0", "--no-cost", "--json",
    )  # fmt: skip
    assert code == 0
    assert "test.group.p0=0.0.base" in text


REFUSED = [
    ("every record a group", ["--subgroups", "groups.npz"], "at most 24 groups"),
    ("an attribute that is not there", ["--subgroups", "groups.npz", "--subgroup-column", "age"], "expected an attribute 'age', found ink, name"),
    ("a table of another size", ["--subgroups", "short.csv"], "a value for each of 360 records, found 1"),
    ("a table with a row too short", ["--subgroups", "ragged.csv"], "as many cells in every row"),
    ("an archive that is none", ["--subgroups", "broken.npz"], "an npz archive of plain arrays"),
    ("pictures as an attribute", ["--subgroups", "forget.npz"], "one value per record"),
    ("no timing at all", ["--rounds", "0"], "--rounds: expected 1 or more, found 0"),
    ("a place that is taken", ["--out", "base.onnx"], "never overwritten"),
    ("a folder that is missing", ["--out", "missing/x.json"], "a folder that exists"),
    ("another network's records", ["--forget", "narrow.npz"], "rows of 64 numbers"),
    ("a label that no logit stands for", ["--forget", "labels.npz"], "a label from 0 to 9, found 10"),
    ("values that are no numbers", ["--forget", "nan.npz"], "row 1: expected finite numbers"),
]  # fmt: skip


@pytest.mark.parametrize(("more", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_does_not_fit_is_refused_by_name(folder, groups, more, message, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    Path("short.csv").write_text("a\n1\n")
    Path("ragged.csv").write_text("a,b\n1\n")
    Path("broken.npz").write_bytes(b"PK")
    np.savez("narrow.npz", x=np.zeros((2, 3), dtype=np.float32), y=np.zeros(2, dtype=np.int64))
    np.savez("labels.npz", x=np.zeros((2, 64), dtype=np.float32), y=np.array([0, 10]))
    np.savez("nan.npz", x=np.array([[0.0] * 64, [np.nan] * 64], dtype=np.float32), y=np.array([0, 1]))
    code, text = run(*words(folder, "--no-cost", *more))
    assert code == 2
    assert message in text


def test_networks_of_another_form_are_refused(folder, tmp_path) -> None:
    from prune_verify.measure.training import export_onnx, small_mlp

    other = tmp_path / "other.onnx"
    other.write_bytes(export_onnx(small_mlp((64, 4, 3)), np.zeros((1, 64), dtype=np.float32)))
    code, text = run("measure", "accuracy", folder / "base.onnx", other, "--test", folder / "test.npz")
    assert (code, "expected rows of [64] and 10 labels as base.onnx, found rows of [64] and 3 labels" in text) == (
        2,
        True,
    )
