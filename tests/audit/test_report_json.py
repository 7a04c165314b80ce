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
from prune_verify.checker.envelope import parse_envelope
from prune_verify.cli import run_words
from tests.audit.test_report import (
    ALLOWED,
    BASE,
    HOSTILE,
    PATCH,
    PATCHED,
    REJECTED,
    VERDICT,
    from_files,
    hostile_data,
    outline,
    with_predicate,
)
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


OWNERS = [bad for bad in (*HOSTILE, "x" * 500) if "\ud800" not in bad]  # which no JSON parser of ours lets in
HIDDEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069]")


@pytest.mark.parametrize("bad", OWNERS, ids=lambda bad: ascii(bad)[:24])
def test_an_owner_with_a_trusted_key_cannot_write_into_the_answers(tmp_path: Path, bad: str) -> None:
    """Every text that a statement may hold, signed by a key that the auditor trusts, through the whole command."""
    from prune_verify.audit.keys import load_private_key
    from prune_verify.audit.trust import trust_add
    from prune_verify.checker.encoding import canonical_json
    from prune_verify.checker.statement import Measurement, emit_statement
    from prune_verify.signing import sign_payload
    from tests.audit.test_verdict_file import Auditor, verify_words
    from tests.checker.test_statement import STATEMENT

    auditor, owner = Auditor(tmp_path), Auditor((tmp_path / "owner", (tmp_path / "owner").mkdir())[0])
    trust_add(auditor.trust, owner.made.public, "prover", "owner")
    statement = replace(
        STATEMENT,
        patched_name=bad,
        base_name=bad,
        request_reference=bad,
        prover=(bad, bad),
        assumptions=(bad,),
        non_claims=(*STATEMENT.non_claims, bad),
        measurements=(Measurement(bad, "0.5", ("0.4", "0.6"), bad, 0, None),),
        environment=tuple((name, bad) for name, _ in STATEMENT.environment),
    )
    payload = emit_statement(statement)
    assert canonical_json(json.loads(payload)) == payload
    (tmp_path / "c.unlearn.json").write_bytes(sign_payload(payload, load_private_key(owner.made.private)))
    page, data = tmp_path / "r.html", tmp_path / "r.json"
    words = verify_words(EXAMPLE, "--trust", auditor.trust, "--report", page, "--report-json", data, *auditor.options)
    words[1] = str(tmp_path / "c.unlearn.json")
    code, text = run_words(words)
    assert code == 1, text
    assert not HIDDEN.search(text)
    assert text.isascii()
    html = page.read_text(encoding="utf-8")
    assert not HIDDEN.search(html)
    found = outline(html)
    assert {name for name, _ in found.elements} <= ALLOWED
    assert not any(key.startswith("on") or key == "src" for _, attributes in found.elements for key in attributes)
    assert [a.get("http-equiv") for a in found.all("meta") if "http-equiv" in a] == ["Content-Security-Policy"]
    assert data.read_bytes().isascii()
    assert json.loads(data.read_bytes())["statement"]["predicate"]["request"]["reference"] == bad
    assert parse_envelope(auditor.out.read_bytes(), "v").payload.isascii()
    assert auditor.check().exit_code == 1


def test_a_rejected_certificate_gets_a_report_without_the_owners_words(tmp_path: Path) -> None:
    code, _ = verify(CHANGED, "--report", tmp_path / "r.html", "--report-json", tmp_path / "r.json")
    found = json.loads((tmp_path / "r.json").read_text())
    assert (code, found["verdict"]["verdict"], found["statement"], found["signed"]) == (1, "REJECTED", None, False)
    assert found["risks"] == []
    assert "treat the network as if there were no certificate" in (tmp_path / "r.html").read_text()


CHANGED_FILES = [
    ("the base", {"base_bytes": PATCHED}, "base network"),
    ("the patched network", {"patched_bytes": BASE}, "patched network"),
    ("the patch", {"patch_json_bytes": PATCH + b" "}, "patch parameters"),
]


@pytest.mark.parametrize(("sentence", "changes", "name"), CHANGED_FILES, ids=[row[0] for row in CHANGED_FILES])
def test_what_has_changed_since_the_check_is_not_shown(sentence, changes, name) -> None:
    from prune_verify.checker.encoding import sha256_hex

    checked = replace(VERDICT, digests=(("base", sha256_hex(BASE)), ("patched", sha256_hex(PATCHED))))
    stated = {"predicate": {"patch": {"sha256": sha256_hex(PATCH)}}}
    assert from_files(verdict=checked, statement_payload=stated).notes == ()
    data = from_files(verdict=checked, statement_payload=stated, **changes)
    assert data.notes == (f"the file with the {name} is not the one that was checked, so it is not used here",), (
        sentence
    )
    assert name not in {f.name for f in data.files}
    if name != "patch parameters":
        assert checked.digests[name.startswith("patched")][1] in render_report(data)
        assert data.accuracies == ()


def test_a_certificate_that_has_changed_since_the_check_is_not_quoted(tmp_path, monkeypatch) -> None:
    from prune_verify.audit import report_command

    original = report_command.read_file
    other = (CHANGED / "digits.unlearn.json").read_bytes()
    monkeypatch.setattr(report_command, "read_file", lambda p, *a: other if "unlearn" in p.name else original(p, *a))
    verify(EXAMPLE, "--report-json", tmp_path / "r.json")
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["statement"] is None
    assert "no longer the file that was checked" in found["notes"][0]
