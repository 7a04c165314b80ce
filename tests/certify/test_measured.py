"""Measurements in a certificate, from files to the report, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from prune_verify.certify.errors import CertifyInputError
from prune_verify.certify.measured import measured_files
from prune_verify.checker.encoding import sha256_hex
from prune_verify.checker.errors import MalformedInputError
from prune_verify.measurement_file import MeasuredRow, MeasurementFile, emit_measurement, read_measurement
from tests.unlearned_digits import run, unlearned_digits

PATCHED = b"the patched network"
FILE = MeasurementFile(
    "accuracy",
    "prune-verify measure accuracy",
    5,
    (("p.onnx", sha256_hex(PATCHED)),),
    (MeasuredRow("a", "0.5", ("0.4", "0.6")),),
)


def written(path: Path, measurement: MeasurementFile = FILE) -> Path:
    path.write_bytes(emit_measurement(measurement))
    return path


def test_each_row_becomes_an_entry_that_names_the_file(tmp_path) -> None:
    path = written(tmp_path / "m.json", replace(FILE, rows=(*FILE.rows, MeasuredRow("b", "2"))))
    found = measured_files([path, path], {"p.onnx": PATCHED})
    digest = sha256_hex(path.read_bytes())
    assert [(e.kind, e.value, e.interval, e.seed, e.report_sha256) for e in found.entries] == [
        ("accuracy.a", "0.5", ("0.4", "0.6"), 5, digest), ("accuracy.b", "2", None, 5, digest),
    ]  # fmt: skip
    found.write(tmp_path)
    assert (tmp_path / "measurements" / f"{digest}.json").read_bytes() == path.read_bytes()


def test_a_measurement_of_another_network_is_refused(tmp_path) -> None:
    path = written(tmp_path / "m.json", replace(FILE, inputs=(("p.onnx", "ab" * 32),)))
    with pytest.raises(
        CertifyInputError, match=r"m\.json: expected a measurement of p\.onnx or patch\.json, found one of other files"
    ):
        measured_files([path], {"p.onnx": PATCHED, "patch.json": b"x"})


def test_more_numbers_than_there_is_room_for_are_refused(tmp_path) -> None:
    paths = [written(tmp_path / f"{i}.json", replace(FILE, seed=i)) for i in range(3)]
    with pytest.raises(CertifyInputError, match="--measurements: expected at most 2 numbers in all, found 3"):
        measured_files(paths, {"p.onnx": PATCHED}, 2)


def test_a_file_that_is_none_is_refused(tmp_path) -> None:
    (tmp_path / "m.json").write_bytes(b"{}")
    with pytest.raises(MalformedInputError, match=r"m\.json"):
        measured_files([tmp_path / "m.json"], {"p.onnx": PATCHED})


def test_nothing_measured_writes_nothing(tmp_path) -> None:
    measured_files([], {"p.onnx": PATCHED}).write(tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- the whole way ---


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Measured, certified and signed."""
    folder = unlearned_digits(tmp_path_factory.mktemp("measured"))
    out, sets = folder / "out", ("--forget", folder / "forget.npz", "--retain", folder / "retain.npz")
    words = (
        ("measure", "accuracy", folder / "base.onnx", out / "patched.onnx", "--test", folder / "test.npz", "--no-cost", "--out", folder / "accuracy.json"),
        ("measure", "disclosure", folder / "base.onnx", out / "patch.json", *sets[:2], "--public", folder / "test.npz", "--out", folder / "disclosure.json"),
        (
            "certify", folder / "base.onnx", out / "patched.onnx", "--request", out / "request.json", *sets, "--cross-check", "0",
            "--measurements", folder / "accuracy.json", folder / "disclosure.json", "--out", out,
        ),
        ("keygen", "--out", folder / "owner"),
        ("trust", "init", folder / "trust.json"),
        ("trust", "add", folder / "trust.json", "--key", folder / "owner.pub", "--role", "prover", "--name", "owner"),
        ("sign", out / "statement.json", "--key", folder / "owner.key", "--out", out / "a.unlearn.json"),
    )  # fmt: skip
    for line in words:
        code, text = run(*line)
        assert code == 0, text
    return folder


def verified(folder: Path, *more: object) -> tuple[dict, dict]:
    """The verdict, and the report as data."""
    out, report = folder / "out", folder / "report.json"
    code, text = run(
        "verify", out / "a.unlearn.json", "--base", folder / "base.onnx", "--patched", out / "patched.onnx", "--trust", folder / "trust.json",
        "--policy", folder / "policy.toml", "--forget", folder / "forget.npz", "--retain", folder / "retain.npz", "--json",
        "--report-json", report, "--report", folder / "report.html", *more,
    )  # fmt: skip
    assert code == 0, text
    return json.loads(text), json.loads(report.read_text())


@pytest.mark.prover
def test_measurements_are_stated_and_are_no_claims(folder) -> None:
    predicate = json.loads((folder / "out" / "statement.json").read_bytes())["predicate"]
    files = {name: read_measurement(folder / f"{name}.json") for name in ("accuracy", "disclosure")}
    stated = [(e["kind"], e["value"], e["reportSha256"]) for e in predicate["measurements"]]
    assert stated == [
        (f"{m.kind}.{row.name}", row.value, sha256_hex(data)) for m, data in files.values() for row in m.rows
    ]
    verdict, _ = verified(folder)
    assert {claim["kind"] for claim in verdict["claims"]} <= {"forget", "retain_exact", "retain_label", "locality"}
    assert "measured" not in json.dumps(verdict["claims"])


@pytest.mark.prover
def test_the_report_finds_the_files_beside_the_certificate(folder) -> None:
    _, report = verified(folder)
    assert [item["problem"] for item in report["measurementFiles"]] == [None, None]
    assert [item["measurement"]["kind"] for item in report["measurementFiles"]] == ["accuracy", "disclosure"]
    assert "expected calibration error" in (folder / "report.html").read_text()


@pytest.mark.prover
def test_a_forged_file_changes_nothing_but_what_is_said_of_it(folder, tmp_path) -> None:
    measurement, _ = read_measurement(folder / "accuracy.json")
    row = MeasuredRow("<b>proved</b>", "1")
    forged = written(tmp_path / "forged.json", replace(measurement, rows=(row,)))
    verdict, report = verified(folder, "--measurements", forged)
    assert verdict["verdict"] == "VERIFIED"
    assert "does not name this file" in report["measurementFiles"][-1]["problem"]
    assert "proved</b>" not in (folder / "report.html").read_text()


@pytest.mark.prover
def test_inspect_shows_what_was_measured(folder) -> None:
    code, text = run("inspect", folder / "out" / "a.unlearn.json")
    assert code == 0
    assert "measured: disclosure.bits = " in text


@pytest.mark.prover
def test_a_report_is_not_written_over_a_measurement(folder) -> None:
    path = folder / "accuracy.json"
    code, text = run(
        "verify", folder / "out" / "a.unlearn.json", "--base", folder / "base.onnx", "--patched", folder / "out" / "patched.onnx",
        "--trust", folder / "trust.json", "--policy", folder / "policy.toml", "--measurements", path, "--report", path,
    )  # fmt: skip
    assert code == 2
    assert "another file than that of measurements" in text
