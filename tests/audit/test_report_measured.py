"""Measurement files in the report: only what the certificate names is shown, and what differs is said."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import pytest

from prune_verify.audit.report import render_report
from prune_verify.audit.report_json import report_json
from prune_verify.audit.report_measured import beside, shown_measurements
from prune_verify.checker.encoding import sha256_hex
from prune_verify.measurement_file import MeasuredRow, MeasurementFile, emit_measurement
from tests.audit.test_report import ALLOWED, DATA, HOSTILE, outline, with_predicate

SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "certs" / "schema" / "report.schema.json").read_text())
FILE = MeasurementFile(
    kind="membership",
    command="prune-verify measure membership base.onnx patched.onnx",
    seed=3,
    inputs=(("base.onnx", "ab" * 32),),
    rows=(MeasuredRow("patched.lira.auc", "0.5213", ("0.4712", "0.5708"), "DeLong"), MeasuredRow("shadows", "64")),
    series={
        "roc.patched.lira.fpr": ("0", "0.001", "1"), "roc.patched.lira.tpr": ("0", "0.01", "1"),
        "curve.patched.full.all": ("0", "0.5", "1"), "curve.retrain.full.all": ("0.4", "0.5", "0.6"),
    },
    created_at=datetime(2026, 11, 28, 4, 50, tzinfo=UTC),
)  # fmt: skip
BYTES = emit_measurement(FILE)


def entries(measurement: MeasurementFile = FILE, data: bytes = BYTES) -> list[dict]:
    """What a certificate states that names the file."""
    return [
        {
            "kind": f"{measurement.kind}.{row.name}", "value": row.value, "interval": None if row.interval is None else list(row.interval),
            "command": measurement.command, "seed": measurement.seed, "reportSha256": sha256_hex(data),
        }
        for row in measurement.rows
    ]  # fmt: skip


def report(stated: list, *files: bytes):
    shown = shown_measurements([(f"m{i}.json", data) for i, data in enumerate(files)], stated)
    return replace(with_predicate(measurements=stated), measured=shown)


def section(data) -> str:
    document = render_report(data)
    return document[document.index('<section id="measurements"') : document.index('<section id="records"')]


def test_a_file_that_the_certificate_names_is_shown_with_its_pictures() -> None:
    found = outline(section(report(entries(), BYTES)))
    for words in (
        "patched.lira.auc",
        "0.5213",
        "0.4712 to 0.5708",
        "DeLong",
        "shadows",
        "2026-11-28T04:50:00Z",
        sha256_hex(BYTES),
        "ab" * 32,
    ):
        assert words in found.text
    assert [svg["aria-label"].split(":")[0] for svg in found.all("svg")] == [
        "membership inference, patched",
        "full, attacker has",
    ]
    assert "Not shown" not in found.text
    assert "Differs" not in found.text
    assert found.text.count("0.5213") == 1  # the certificate's own entry would say the same


def test_without_the_file_the_entries_are_shown() -> None:
    found = outline(section(report(entries())))
    assert "membership.patched.lira.auc" in found.text
    assert "verify --report --measurements FILE" in found.text
    assert found.all("svg") == []


def test_a_file_that_the_certificate_does_not_name_is_not_shown() -> None:
    altered = emit_measurement(replace(FILE, rows=(replace(FILE.rows[0], value="0.999", interval=None), FILE.rows[1])))
    found = outline(section(report(entries(), altered)))
    assert "the certificate does not name this file, so nothing of it is shown" in found.text
    assert sha256_hex(altered) in found.text
    assert "0.999" not in found.text
    assert "0.5213" in found.text  # what the certificate states
    assert found.all("svg") == []


def test_entries_that_are_not_the_files_are_named() -> None:
    stated = entries()
    stated[0]["value"] = "0.5000"
    found = outline(section(report(stated, BYTES)))
    assert "the certificate states other numbers than this file: membership.patched.lira.auc" in found.text
    assert "0.5213" in found.text


DIFFERENCES = [
    ("a value", lambda s: s[0].update(value="0.5")),
    ("an interval", lambda s: s[0].update(interval=None)),
    ("the command", lambda s: s[0].update(command="x")),
    ("the seed", lambda s: s[0].update(seed=4)),
    ("a row left out", lambda s: s.pop(0)),
    ("a row of its own", lambda s: s.append({**s[0], "kind": "membership.proved"})),
]


@pytest.mark.parametrize("change", [row[1] for row in DIFFERENCES], ids=[row[0] for row in DIFFERENCES])
def test_every_difference_between_entries_and_file_is_said(change) -> None:
    stated = entries()
    change(stated)
    assert "states other numbers" in report(stated, BYTES).measured[0].problem


def test_a_named_file_that_is_no_measurement_says_so() -> None:
    broken = BYTES + b"\n"
    found = outline(section(report(entries(data=broken), broken)))
    assert "it cannot be read: m0.json: canonical JSON" in found.text
    assert "0.5213" in found.text


def test_without_an_accepted_certificate_no_file_is_shown() -> None:
    data = replace(DATA, statement=None, measured=shown_measurements([("m.json", BYTES)], ()))
    found = outline(section(data))
    assert "does not name this file" in found.text
    assert "0.5213" not in found.text


def test_a_file_that_is_given_twice_is_shown_once() -> None:
    assert len(report(entries(), BYTES, BYTES).measured) == 1


@pytest.mark.parametrize(
    "stated", [[], [7], [{"reportSha256": 7}], [{"reportSha256": "../../etc/passwd"}], [None, {}]], ids=str
)
def test_entries_of_any_form_name_nothing(stated) -> None:
    assert shown_measurements([("m.json", BYTES)], stated)[0].found is None


MARKUP = [bad for bad in HOSTILE if bad.isprintable()]


@pytest.mark.parametrize("bad", MARKUP, ids=ascii)
def test_markup_in_a_file_stays_text(bad) -> None:
    series = {
        f"roc.{bad}.a.fpr": ("0", "1"),
        f"roc.{bad}.a.tpr": ("0", "1"),
        f"curve.{bad.replace('.', '')}.b.c": ("0", "1"),
    }
    hostile = replace(
        FILE, command=bad, tool=bad, inputs=((bad, "ab" * 32),), rows=(MeasuredRow(bad, "1", None, bad),), series=series
    )
    data = emit_measurement(hostile)
    page = report(entries(hostile, data), data)
    page = replace(page, measured=(*page.measured, *shown_measurements([(bad, b"")], ())))
    found = outline(render_report(page))
    assert {name for name, _ in found.elements} <= ALLOWED | {"text"}
    assert not any(key.startswith("on") or key in {"src", "style", "srcset"} for _, a in found.elements for key in a)
    assert len(found.all("svg")) >= 2
    assert bad in found.text


def test_the_report_as_data_has_the_file_and_its_problem() -> None:
    stated = entries()
    altered = BYTES.replace(b'"seed":3', b'"seed":4')
    found = report_json(report(stated, BYTES, altered))
    jsonschema.validate(found, SCHEMA)
    first, second = found["measurementFiles"]
    assert first["measurement"] == json.loads(BYTES)
    assert first["problem"] is None
    assert second == {
        "name": "m1.json",
        "sha256": sha256_hex(altered),
        "problem": second["problem"],
        "measurement": None,
    }
    assert "does not name this file" in second["problem"]
    jsonschema.validate(report_json(replace(DATA, measured=())), SCHEMA)


def test_files_beside_a_certificate_are_found_by_their_digest(tmp_path) -> None:
    certificate, stated = tmp_path / "a.unlearn.json", entries()
    assert beside(certificate, stated) == []
    (tmp_path / "measurements").mkdir()
    path = tmp_path / "measurements" / f"{sha256_hex(BYTES)}.json"
    path.write_bytes(BYTES)
    (tmp_path / "measurements" / "another.json").write_bytes(BYTES)
    assert beside(certificate, [*stated, {"reportSha256": "../measurements/another"}, 3]) == [path]
