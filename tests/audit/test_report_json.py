"""The report as data: of its schema, and with every number that the tables of the HTML show."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import pytest

from prune_verify.audit.learning import LearningRow
from prune_verify.audit.report import ReportData, render_report
from prune_verify.audit.report_json import REPORT_FORMAT, report_json, write_report_json
from tests.audit.test_report import HOSTILE, REJECTED, VERDICT, hostile_data, with_predicate
from tests.audit.test_verdict_file import CHANGED, EXAMPLE, verify

SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "certs" / "schema" / "report.schema.json").read_text())
NUMBER = re.compile(r"(?<![\w.])[-\u2212]?\d[\d,]*(?:\.\d+)?(?![\w])")
ROW = {"kind": "membership inference, AUC", "value": "0.5213", "interval": ["0.4712", "0.5708"]}
ROW |= {"command": "prune-verify measure membership --seed 77", "seed": 77, "reportSha256": "be" * 32}
MEASURED = with_predicate(
    measurements=[ROW, {"kind": "another form", "count": 4242}],
    patch={"disclosedCoordinates": 16, "disclosedBits": 1024},
)
CURVES = (LearningRow(0, "interval", -2.0, 0.0, 0.5), LearningRow(40, "relaxation", 2.0, 1.0, 0.75))
UNDECIDED = replace(VERDICT, word="UNDECIDED", code="E_UNKNOWN")


class Cells(HTMLParser):
    """The text of every table cell."""

    def __init__(self, document: str) -> None:
        super().__init__(convert_charrefs=True)
        self.depth, self.found = 0, []
        self.feed(document)

    def handle_starttag(self, tag, attrs):
        if tag in {"td", "th"}:
            self.depth += 1
            self.found.append("")
        elif self.depth:
            self.found[-1] += " "

    def handle_endtag(self, tag):
        self.depth -= tag in {"td", "th"}

    def handle_data(self, data):
        if self.depth:
            self.found[-1] += data


def numbers(text: str) -> set[str]:
    return {
        found.group().replace(",", "").replace("\u2212", "-") for found in NUMBER.finditer(text.replace("SHA-256", ""))
    }


def told(data: ReportData) -> tuple[set[str], set[str]]:
    """The numbers of the HTML's tables, and those of the twin."""
    twin = json.dumps(report_json(data), ensure_ascii=False)
    return set().union(*(numbers(cell) for cell in Cells(render_report(data)).found)), numbers(twin)


CASES = [
    ("verified", MEASURED),
    ("undecided", replace(MEASURED, verdict=UNDECIDED)),
    ("rejected", replace(MEASURED, verdict=REJECTED)),
    ("not a picture", replace(MEASURED, picture_shape=None)),
    ("learned", replace(MEASURED, learning=CURVES)),
    ("empty", ReportData(REJECTED)),
]


@pytest.mark.parametrize(("sentence", "data"), CASES, ids=[row[0] for row in CASES])
def test_every_number_of_the_tables_is_in_the_twin(sentence, data) -> None:
    shown, twin = told(data)
    assert shown - twin == set(), sentence


def test_the_test_of_numbers_sees_a_missing_one() -> None:
    shown, twin = told(MEASURED)
    assert {
        "59000",
        "58999",
        "0.5213",
        "0.4712",
        "4242",
        "96.94",
        "-0.28",
        "812.5",
        "12345",
        "1024",
        "77",
    } <= shown & twin
    assert len(shown) > 30
    assert shown - numbers(json.dumps({**report_json(MEASURED), "answers": [], "patch": None})) >= {"812.5", "96.94"}


@pytest.mark.parametrize(("sentence", "data"), CASES, ids=[row[0] for row in CASES])
def test_it_is_of_its_schema(sentence, data) -> None:
    found = json.loads(json.dumps(report_json(data)))
    jsonschema.Draft202012Validator(SCHEMA).validate(found)
    assert found["format"] == REPORT_FORMAT


@pytest.mark.parametrize("bad", HOSTILE, ids=ascii)
def test_hostile_text_stays_text(tmp_path, bad) -> None:
    write_report_json(tmp_path / "a.json", hostile_data(bad))
    data = (tmp_path / "a.json").read_bytes()
    assert data.isascii()
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", data)
    assert json.loads(data)["verdict"]["warnings"] == [bad]


def test_odd_values_are_bounded() -> None:
    deep: object = "end"
    for _ in range(900):
        deep = [deep]
    found = json.dumps(report_json(with_predicate(semantics={"deep": deep, "huge": 10**5000, "odd": 1.5})))
    assert "nested too deep to show" in found
    assert "a number too large to show" in found


SAME = [
    ("the claims' sentences", lambda t: [c["sentence"] for c in t["claims"]]),
    ("what is done about risks", lambda t: [part for r in t["risks"] for part in (r["risk"], r["size"], r["advice"])]),
    ("what is not said", lambda t: [*t["unsaid"]["always"], *t["unsaid"]["stated"]]),
    ("validity", lambda t: t["validity"]),
    ("the command", lambda t: [t["again"]]),
    ("the verdict", lambda t: [t["verdict"]["line"], t["verdict"]["sentence"], *t["verdict"]["warnings"]]),
    ("the roster", lambda t: [c["detail"] for c in t["verdict"]["checks"]]),
    ("results of records", lambda t: [r["result"] for r in t["records"]["shown"]]),
    ("notes", lambda t: t["notes"]),
]


@pytest.mark.parametrize(("sentence", "parts"), SAME, ids=[row[0] for row in SAME])
def test_its_words_are_those_of_the_html(sentence, parts) -> None:
    class Words(HTMLParser):
        found = ""

        def handle_data(self, data):
            self.found += data

    page = Words(convert_charrefs=True)
    page.feed(render_report(MEASURED))
    listed = parts(report_json(MEASURED))
    assert listed
    assert [part for part in listed if part not in page.found] == [], sentence


# --- the command ---


def test_verify_writes_both(tmp_path: Path) -> None:
    code, text = verify(EXAMPLE, "--report", tmp_path / "r.html", "--report-json", tmp_path / "r.json", "--exact")
    assert code == 0
    assert text.splitlines()[-2:] == [f"wrote {tmp_path / 'r.html'}", f"wrote {tmp_path / 'r.json'}"]
    found = json.loads((tmp_path / "r.json").read_text())
    jsonschema.Draft202012Validator(SCHEMA).validate(found)
    shown = set().union(*(numbers(cell) for cell in Cells((tmp_path / "r.html").read_text()).found))
    assert shown - numbers(json.dumps(found, ensure_ascii=False)) == set()
    assert found["again"].startswith("python -P -m prune_verify.checker verify ")
    assert found["again"].endswith(" --exact")


def test_the_command_line_of_a_report_gives_its_verdict_again(tmp_path: Path) -> None:
    import os
    import shlex
    import subprocess
    import sys

    for example, code in ((EXAMPLE, 0), (CHANGED, 1)):
        verify(example, "--report-json", tmp_path / "r.json")
        found = json.loads((tmp_path / "r.json").read_text())
        words = shlex.split(found["again"])
        root = Path(__file__).resolve().parents[2]
        done = subprocess.run(
            [sys.executable, *words[1:]],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout.splitlines()[0]) == (code, found["verdict"]["line"])


def test_a_rejected_certificate_gets_a_report_without_the_owners_words(tmp_path: Path) -> None:
    code, _ = verify(CHANGED, "--report", tmp_path / "r.html", "--report-json", tmp_path / "r.json")
    found = json.loads((tmp_path / "r.json").read_text())
    assert (code, found["verdict"]["verdict"], found["statement"], found["signed"]) == (1, "REJECTED", None, False)
    assert found["risks"] == []
    assert "treat the network as if there were no certificate" in (tmp_path / "r.html").read_text()
