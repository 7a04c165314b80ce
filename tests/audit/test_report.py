"""The report: what it says, that it hides and loads nothing, that hostile text stays text, and that it renders."""

from __future__ import annotations

import base64
import json
import re
import struct
import zlib
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from importlib.resources import files

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from prune_verify import __version__, grey_levels
from prune_verify.audit import pictures
from prune_verify.audit.report import (
    Accuracy,
    FileIdentity,
    PatchSummary,
    PicturedRecord,
    ReportData,
    render_report,
    report_data_from_files,
    write_report,
)
from prune_verify.audit.wording import claim_sentence, outcome_words
from prune_verify.checker.claim import LabelledRows
from prune_verify.checker.patch import Interval
from prune_verify.checker.verdict import Check, ClaimVerdict, Verdict
from prune_verify.markup import said, tag, text, visible

F32 = np.float32
BINARY32 = "ieee754-binary32"
VOID = {"meta", "br"}
ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "section", "footer", "div"),
    *("h1", "h2", "h3", "p", "b", "span", "bdi", "ul", "li", "pre", "code"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td", "figure", "figcaption"),
    *("svg", "g", "path", "rect", "image"),
    *("nav", "ol", "a"),
}
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'/><svg onload=alert(1)>",
    "</style><style>body{display:none}</style>",
    "</title><meta http-equiv=refresh content=0;url=https://evil.example>",
    "\u202edeifireV\u202c",
    "VERI\u200bFIED\u2066\u2069",
    "\x1b[2J\x00\r\n\x85\u2028",
    "&lt;b&gt; &#60;b&#62; {radius} %s",
    "e\u0301 \u212b \u3164 \ud800 \U000e0041",
)


@dataclass
class Outline(HTMLParser):
    """The elements of a document, with its text, and a failure on any imbalance."""

    open: list[str] = field(default_factory=list)
    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def __post_init__(self):
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {k: v or "" for k, v in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, {k: v or "" for k, v in attrs}))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return "".join(self.words)

    def all(self, name):
        return [attributes for tag, attributes in self.elements if tag == name]


def outline(document):
    found = Outline()
    found.feed(document)
    found.close()
    assert found.open == []
    return found


CLAIMS = (
    ClaimVerdict("C1", "forget", BINARY32, "ball linf 0.1", 5, 5, 0, 0, 0, 1),
    ClaimVerdict("C2", "retain_exact", BINARY32, "ball linf 0.05", 59000, 58999, 0, 0, 1, 0),
    ClaimVerdict("C3", "forget_class", BINARY32, "all inputs", 1, 1, 0, 0, 0, 0),
)
VERDICT = Verdict(
    "VERIFIED",
    "OK",
    "9f" * 32,
    "2026-01-02T03:04:05Z",
    (("ab" * 32, "Acme AI"),),
    (Check("signature", "PASS", "1 of 1 required signatures"), Check("claim C1", "PASS", "5 of 5 proved")),
    CLAIMS,
    ("z3_unsat",),
    ("one conflict",),
)
REQUEST = {"kind": "records", "labels": [3, 7], "reference": "DSR-0417", "radius": "0.1", "retainedRadius": "0.05"}
STATEMENT = {
    "_type": "https://in-toto.io/Statement/v1",
    "subject": [{"name": "patched.onnx", "digest": {"sha256": "c0" * 32}}],
    "predicateType": "https://prune-verify.example/unlearning-certificate/v1",
    "predicate": {
        "certificateId": "demo-1",
        "issuedAt": "2026-01-01T00:00:00Z",
        "expiresAt": "2027-01-01T00:00:00Z",
        "request": REQUEST,
        "originalModel": {"name": "base.onnx", "digest": {"sha256": "aa" * 32}},
        "semantics": {"domain": {"lower": "0", "upper": "1"}, "tieRule": "lowest index"},
        "claims": [
            {"id": "C1", "kind": "forget", "region": {"radius": "0.1"}, "margin": "0.01", "method": "structural"},
            {"id": "C2", "kind": "retain_exact", "radius": "0.05", "logits": [0, 1, 2], "method": "structural"},
            {"id": "C3", "kind": "forget_class", "label": 8, "margin": "0.01", "method": "structural"},
        ],
        "nonClaims": ["The weights still depend on the record."],
        "measurements": [{"kind": "membership", "auc": "0.52", "interval": ["0.47", "0.57"], "seed": 0}],
    },
}
GREY = np.arange(64, dtype=F32) / F32(64)
EDGES = (Interval(9, F32(0.25), None), Interval(20, None, F32(0.5)), Interval(63, F32(0.75), F32(1.0)))
RECORD = PicturedRecord(4, GREY, 3, 3, 5, EDGES)
DATA = ReportData(
    verdict=VERDICT,
    statement=STATEMENT,
    records=(RECORD,),
    records_total=5,
    picture_shape=(8, 8),
    accuracies=(Accuracy("Forgotten records", 5, 0, 5), Accuracy("Test data", 349, 348, 360)),
    patch=PatchSummary("box", 10, 64, (8,), 0.05, 812.5, 1690.25, (3, 4, 9), (811,), 1024),
    files=(FileIdentity("base network", "aa" * 32, 12345),),
    command="python -m prune_verify.checker verify a.unlearn.json --trust 'my trust.json'",
    created="2026-01-02T03:04:06Z",
    notes=("test.csv: rows do not fit",),
)
REJECTED = Verdict(
    "REJECTED", "E_SIGNATURE", checks=(Check("signature", "FAIL", "no accepted signature", "E_SIGNATURE", "sig/0"),)
)


def with_predicate(**members):
    return replace(DATA, statement={**STATEMENT, "predicate": {**STATEMENT["predicate"], **members}})


# --- what it says ---

CONTENT = [
    ("the verdict in words", ["VERIFIED", "derived every claim below again"]),
    ("the stable line", [VERDICT.line()]),
    ("the request", ["single records are to be forgotten", "3, 7", "DSR-0417", "Radius around each forgotten record"]),
    ("a claim as a sentence", ["On every input within 0.1 of a forgotten record", "leads it by at least 0.01"]),
    ("logits of a claim", ["the outputs of the patched network for labels 0, 1, 2 are exactly"]),
    ("the label of a class claim", ["never answers label 8"]),
    ("counts, arithmetic and method", ["59,000", "58,999", "float32 program", "exact comparisons", "Already wrong"]),
    ("a conflict in words", ["Proved except 1 conflict", "could not tell apart"]),
    ("what is never said", ["influence was removed from the weights", "not an (epsilon, delta) guarantee", "bf16"]),
    ("non-claims of the certificate", ["The weights still depend on the record."]),
    ("answers per record", ["No longer answered", "row 2 column 2 at least 0.25", "row 3 column 5 at most 0.5"]),
    ("both edges", ["row 8 column 8 from 0.75 to 1"]),
    ("accuracy", ["349 (96.94 %)", "348 (96.67 %)", "\u22120.28", "0 (0.00 %)"]),
    ("measurements", ["membership", "0.47, 0.57", "does not repeat measurements"]),
    ("parameters", ["812.5", "1690.25", "median 4, at most 9 of the 64", "16 coordinates, 1,024 bits", "811"]),
    ("domain", ["Domain of the inputs", "lowest index"]),
    ("identity", ["9f" * 32, "Acme AI", "ab" * 32, "2027-01-01T00:00:00Z", "aa" * 32, "12,345", "c0" * 32]),
    ("the roster", ["1 of 1 required signatures", "PASS"]),
    ("how to repeat it", ["--trust 'my trust.json'", "exit code 0"]),
    ("tool and time", [f"prune-verify {__version__}", "2026-01-02T03:04:06Z", "2026-01-02T03:04:05Z"]),
    ("warnings and assumptions", ["Warning: one conflict", "Rests on the assumption: z3_unsat"]),
    ("personal data", ["Treat the report as you treat the records"]),
    ("what could not be shown", ["test.csv: rows do not fit"]),
    ("how to read it", ["How to read this", "Only VERIFIED means that the claims hold"]),
]


@pytest.mark.parametrize(("sentence", "parts"), CONTENT, ids=[row[0] for row in CONTENT])
def test_the_report_says(sentence, parts):
    found = outline(render_report(DATA)).text
    assert [part for part in parts if part not in found] == [], sentence


def test_sections_stand_in_their_order():
    document = render_report(DATA)
    order = [
        "VERDICT: ", "Who signed", "What was examined", "When", "What was asked", "What is claimed", "What can still go wrong",
        "What this does not say", "How long it holds", "How to check this again", "Measurements", "The forgotten records",
        "Before and after", "Parameters of the patch", "The checks that were made",
    ]  # fmt: skip
    found = re.findall(r"<h2[^>]*>([^<]*)</h2>", document[document.index("</nav>") :])
    assert len(found) == len(order) - 1
    assert [name.startswith(begin) for name, begin in zip(found, order[1:], strict=True)] == [True] * len(found)
    contents = re.findall(r'<a href="#([a-z]+)">([^<]*)</a>', document)
    assert [name for _, name in contents] == found
    assert [name for name, _ in contents] == re.findall(r'<section id="([a-z]+)" aria-labelledby="\1-title">', document)
    order = ["VERDICT: ", *(f">{name}</h2>" for name in found)]
    places = [document.index(part) for part in order]
    assert places == sorted(places)


VERDICTS = [
    (
        "a failure names its check, place and meaning",
        REJECTED,
        "bad",
        ["sig/0", "No acceptable signature", "code=E_SIGNATURE"],
    ),
    ("no claim was decided", REJECTED, "bad", ["stopped before it decided any claim", "Claimed, not checked"]),
    ("nobody signed", REJECTED, "bad", ["No signature was accepted, so it is not known who stated it"]),
    (
        "rejected after counting",
        replace(VERDICT, word="REJECTED", code="E_POLICY", checks=()),
        "bad",
        ["only how far the checker came", "proves less than the auditor's policy demands"],
    ),
    (
        "a failure comes before what is open",
        replace(REJECTED, checks=(Check("a", "SKIP", "skipped"), Check("b", "FAIL", "failed"))),
        "bad",
        ["Check \u201cb\u201d: failed"],
    ),
    (
        "undecided",
        replace(
            VERDICT,
            word="UNDECIDED",
            code="E_DATA_MISSING",
            checks=(Check("sets", "SKIP", "no openings", "E_DATA_MISSING"),),
        ),
        "warn",
        ["UNDECIDED", "Do not treat this as verified", "no openings", "openings that a claim needs were not given"],
    ),
]


@pytest.mark.parametrize(("sentence", "verdict", "tone", "parts"), VERDICTS, ids=[row[0] for row in VERDICTS])
def test_other_verdicts(sentence, verdict, tone, parts):
    found = outline(render_report(replace(DATA, verdict=verdict)))
    assert [part for part in parts if part not in found.text] == [], sentence
    assert [a["class"] for a in found.all("section") if a.get("class", "").startswith("verdict")] == [f"verdict {tone}"]
    assert "derived every claim below again" not in found.text


def test_a_rejected_certificate_gets_no_tile_that_says_proved():
    assert 'class="tiles"' in render_report(DATA)
    assert 'class="tiles"' not in render_report(
        replace(DATA, verdict=replace(VERDICT, word="REJECTED", code="E_POLICY"))
    )


def test_an_empty_report_is_still_a_report():
    found = outline(render_report(ReportData(Verdict("REJECTED", "E_MALFORMED"))))
    assert "There is no request that can be read." in found.text
    assert "No forgotten records were given" in found.text


OUTCOMES = [
    ("all proved", (3, 3, 0, 0, 0), ("good", "Proved for all")),
    ("a single statement", (1, 1, 0, 0, 0), ("good", "Proved")),
    ("a conflict", (3, 2, 0, 0, 1), ("warn", "Proved except 1 conflict")),
    ("conflicts", (3, 1, 0, 0, 2), ("warn", "Proved except 2 conflicts")),
    ("an unknown", (3, 2, 0, 1, 0), ("warn", "Not proved for all")),
    ("counts that do not add up", (3, 2, 0, 0, 0), ("warn", "Not proved for all")),
    ("nothing at all", (0, 0, 0, 0, 0), ("warn", "Not proved for all")),
    ("a refutation", (3, 2, 1, 0, 0), ("bad", "Refuted")),
]


@pytest.mark.parametrize(("sentence", "counts", "expected"), OUTCOMES, ids=[row[0] for row in OUTCOMES])
def test_outcomes(sentence, counts, expected):
    assert outcome_words(ClaimVerdict("C", "forget", BINARY32, "", *counts, 0)) == expected, sentence


@pytest.mark.parametrize(
    "kind",
    [
        "forget",
        "retain_exact",
        "retain_label",
        "retain_close",
        "locality",
        "forget_class",
        "retain_other_labels",
        "band",
        "minimality",
    ],
)
def test_every_kind_has_a_sentence(kind):
    assert "no sentence" not in claim_sentence(kind, {})
    assert "None" not in claim_sentence(kind, {})


def test_a_record_that_is_still_answered_is_called_so():
    found = outline(
        render_report(replace(DATA, records=(replace(RECORD, patched_answer=3), replace(RECORD, base_answer=1))))
    )
    assert "Still answered" in found.text
    assert "Already wrong before" in found.text


# --- hostile text ---


def hostile_data(bad):
    claims = (ClaimVerdict(bad, bad, bad, bad, 1, 0, 0, 1, 0, 0), *CLAIMS)
    verdict = replace(
        VERDICT,
        code=bad,
        at_time=bad,
        signers=((bad, bad),),
        checks=(Check(bad, bad, bad, bad, bad), Check(bad, "FAIL", bad, bad, bad)),
        claims=claims,
        assumptions=(bad,),
        warnings=(bad,),
        word="UNDECIDED",
    )
    stated = [{"id": bad, "kind": bad, "method": bad, "margin": bad, "radius": bad}]
    stated += [{"id": "C1", "kind": "forget", "radius": bad, "margin": {bad: [bad]}, "method": bad, "logits": [bad]}]
    members = {"request": {bad: bad, "kind": bad, "reference": bad, "labels": [bad], "nested": {bad: [{bad: bad}]}}}
    members |= {"claims": stated, "nonClaims": [bad, {bad: bad}], "measurements": [bad, {bad: bad}], "prover": bad}
    members |= {"semantics": {bad: bad}, "certificateId": bad, "issuedAt": bad, "forgetSet": {bad: bad}}
    return replace(
        DATA,
        verdict=verdict,
        statement={"subject": [{"name": bad}], "predicate": members},
        accuracies=(Accuracy(bad, 1, 1, 1),),
        patch=replace(DATA.patch, family=bad),
        files=(FileIdentity(bad, bad, 1),),
        command=bad,
        created=bad,
        notes=(bad,),
        title=bad,
    )


@pytest.mark.parametrize("bad", HOSTILE, ids=ascii)
def test_hostile_text_stays_text(bad):
    document = render_report(hostile_data(bad))
    document.encode("utf-8")
    found = outline(document)
    assert {name for name, _ in found.elements} <= ALLOWED
    assert not any(key.startswith("on") or key in {"src", "style", "srcset"} for _, a in found.elements for key in a)
    assert len(found.all("style")) == len(found.all("title")) == 1
    assert len(found.all("meta")) == len(outline(render_report(DATA)).all("meta"))
    assert found.text.count(visible(bad)) >= 20
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff]", document)


VISIBLE = [
    ("plain text", "Zürich GmbH & Söhne, 東京, Ελλάδα", "Zürich GmbH & Söhne, 東京, Ελλάδα"),
    ("right-to-left override", "a\u202eb", "a\\u202eb"),
    ("isolate", "\u2066", "\\u2066"),
    ("zero width", "a\u200bb", "a\\u200bb"),
    ("escape and newline", "\x1b\n", "\\u001b\\u000a"),
    ("combining mark (the NFD twin)", "e\u0301", "e\\u0301"),
    ("a singleton twin", "\u212b", "\\u212b"),
    ("a letter without ink", "\u3164", "\\u3164"),
    ("no-break space", "a\u00a0b", "a\\u00a0b"),
    ("lone surrogate", "\ud800", "\\ud800"),
    ("tag character", "\U000e0041", "\\U000e0041"),
]


@pytest.mark.parametrize(("sentence", "given", "expected"), VISIBLE, ids=[row[0] for row in VISIBLE])
def test_hidden_characters_are_shown(sentence, given, expected):
    assert visible(given) == expected, sentence
    assert outline(text(given)).text == expected


def test_an_escape_is_told_apart_from_the_same_letters():
    assert text("\u202e") != text("\\u202e")


def test_foreign_text_is_isolated():
    assert said("\u05d0") == "<bdi>\u05d0</bdi>"


def test_attributes_are_escaped():
    assert tag("p", title='"><b>\u202e') == '<p title="&quot;&gt;&lt;b&gt;\\u202e"></p>'


def test_long_values_are_cut_and_say_so():
    document = render_report(with_predicate(request={"reference": "x" * 10**6, "labels": list(range(10**5))}))
    assert len(document) < 10**5
    assert "[998000 more characters]" in document
    assert "and 99,900 more" in document


@pytest.mark.parametrize(
    ("value", "words"),
    [(10**5000, "a number too large to show"), (True, "yes"), ([], "none"), ({}, "none"), (None, "not stated")],
    ids=["huge", "true", "empty list", "empty object", "null"],
)
def test_odd_values_are_shown(value, words):
    assert words in outline(render_report(with_predicate(semantics={"odd": value}))).text


def test_deep_values_end():
    deep = "end"
    for _ in range(900):
        deep = [deep]
    assert "nested too deep to show" in render_report(with_predicate(semantics={"deep": deep}))


@pytest.mark.parametrize(
    "members", [{"claims": 3}, {"claims": [3, None, {}]}, {"request": []}, {"nonClaims": {"a": 1}}]
)
def test_members_of_another_type_do_no_harm(members):
    outline(render_report(with_predicate(**members)))


# --- nothing is loaded, nothing runs ---


def test_nothing_is_loaded_and_nothing_runs():
    found = outline(render_report(DATA))
    assert {name for name, _ in found.elements} <= ALLOWED
    links = [value for _, a in found.elements for key, value in a.items() if key in {"href", "src", "xlink:href"}]
    assert links
    within = {f"#{a['id']}" for _, a in found.elements if "id" in a}
    assert all(link.startswith("data:image/png;base64,") or link in within for link in links)
    policies = [a["content"] for a in found.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    assert policies[0].startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    style = files("prune_verify.audit").joinpath("report.css").read_text()
    assert not re.search(r"url\(|@import|expression|</", style)
    assert not re.search(r"https?://", render_report(replace(DATA, statement=None)))


# --- accessibility ---


def test_headings_and_tables_are_accessible():
    document = render_report(DATA)
    found = outline(document)
    levels = [int(name[1]) for name, _ in found.elements if re.fullmatch("h[1-6]", name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= before + 1 for before, later in zip(levels, levels[1:], strict=False))
    assert found.all("html") == [{"lang": "en"}]
    assert all(a.get("scope") in {"row", "col"} for a in found.all("th"))
    assert len(found.all("caption")) == len(found.all("table")) > 0
    for drawing in found.all("svg"):
        assert drawing.get("aria-hidden") == "true" or (drawing["role"] == "img" and drawing["aria-label"])
    assert "Marked: row 2 column 2 at least 0.25; row 3 column 5 at most 0.5" in document


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


PAIRS = [(ink, page) for ink in ("ink", "muted") for page in ("page", "panel", "good-page", "warn-page", "bad-page")]
PAIRS += [(tone, page) for tone in ("good", "warn", "bad") for page in ("page", "panel", f"{tone}-page")]


@pytest.mark.parametrize(("ink", "page"), PAIRS)
@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_contrast_is_at_least_four_and_a_half(scheme, ink, page):
    style = files("prune_verify.audit").joinpath("report.css").read_text()
    block = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[scheme]
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block))
    light, dark = sorted((luminance(colours[ink]), luminance(colours[page])), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


# --- pictures ---


def decoded(data):
    """Grey levels of an 8-bit greyscale PNG with filter type 0."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    place, body, size = 8, b"", (0, 0)
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        kind, chunk = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        assert struct.unpack(">I", data[place + 8 + length : place + 12 + length]) == (zlib.crc32(kind + chunk),)
        size = struct.unpack(">II", chunk[:8]) if kind == b"IHDR" else size
        body += chunk if kind == b"IDAT" else b""
        place += length + 12
    lines = np.frombuffer(zlib.decompress(body), dtype=np.uint8).reshape(size[1], size[0] + 1)
    assert not lines[:, 0].any()
    return lines[:, 1:]


def test_a_picture_shows_the_grey_levels():
    drawing = outline(pictures.picture(GREY, (8, 8), (0.0, 1.0), (), "a record"))
    levels = decoded(base64.b64decode(drawing.all("image")[0]["href"].partition(",")[2]))
    factor = levels.shape[0] // 8
    assert np.array_equal(levels[::factor, ::factor], np.rint(GREY.reshape(8, 8) * 255))
    assert np.array_equal(levels[factor - 1 :: factor, factor - 1 :: factor], levels[::factor, ::factor])


def test_a_picture_marks_the_right_pixels_with_the_right_shapes():
    drawing = outline(pictures.picture(GREY, (8, 8), (0.0, 1.0), EDGES, "a record"))
    marks = [(a["data-row"], a["data-column"]) for a in drawing.all("g")]
    assert marks == [("1", "1"), ("2", "4"), ("7", "7")]
    assert [(a["y"], a["x"]) for a in drawing.all("rect") if a["class"] == "frame"] == marks
    paths = drawing.all("path")
    assert [a["class"] for a in paths] == ["mark-low", "mark-high", "mark-both"]
    assert [a["transform"] for a in paths] == [f"translate({c} {r}) scale(1)" for r, c in marks]
    assert len({a["d"] for a in paths}) == 3


def test_marks_of_a_large_picture_are_centred_on_their_pixel():
    drawing = outline(pictures.picture(np.zeros(784, F32), (28, 28), (0.0, 1.0), (Interval(57, F32(0.1), None),), "x"))
    x, y, scale = map(float, re.findall(r"-?[\d.]+", drawing.all("path")[0]["transform"]))
    assert scale > 1
    assert (x + scale / 2, y + scale / 2) == pytest.approx((1.5, 2.5), abs=1e-4)


def test_marks_outside_the_picture_are_not_drawn():
    assert outline(pictures.picture(GREY, (8, 8), (0.0, 1.0), (Interval(64, F32(0), None),), "x")).all("g") == []


def test_hostile_values_give_a_picture():
    row = np.array([np.nan, np.inf, -np.inf, 3e38] * 16, dtype=F32)
    assert grey_levels.grey_levels(row, (8, 8), 0.0, 1.0)[0, :4].tolist() == [0, 255, 0, 255]
    assert grey_levels.grey_levels(row, (8, 8), 0.5, 0.5).shape == (8, 8)


SHAPES = [
    ((8, 8), (8, 8)),
    ((28, 28), (28, 28)),
    ((1, 28, 20), (28, 20)),
    ((64,), (8, 8)),
    ((784,), (28, 28)),
    ((108,), None),
    ((3, 32, 32), None),
    ((1, 1, 64), None),
    ((2, 200), None),
    ((), None),
]


@pytest.mark.parametrize(("shape", "expected"), SHAPES)
def test_which_rows_are_pictures(shape, expected):
    assert grey_levels.picture_shape(shape) == expected


def test_rows_of_a_table_are_named_by_number():
    found = outline(render_report(replace(DATA, picture_shape=None)))
    assert found.all("image") == []
    assert "number 9 at least 0.25" in found.text
    assert "The records are not pictures" in found.text


# --- many claims and checks ---


def test_many_claims_keep_those_that_are_not_proved():
    many = [ClaimVerdict(f"C{i}", "forget", BINARY32, "ball", 1, 1, 0, 0, 0, 0) for i in range(3000)]
    many[2999] = replace(many[2999], proved=0, unknown=1)
    found = outline(render_report(replace(DATA, verdict=replace(VERDICT, claims=tuple(many)))))
    assert "C2999 \u00b7 forget" in found.text
    assert "2,500 more claims are not listed here, all of them proved for all" in found.text
    assert found.text.count(" \u00b7 forget") == 500


def test_many_unproved_claims_are_counted():
    many = tuple(ClaimVerdict(f"C{i}", "forget", BINARY32, "ball", 1, 0, 0, 1, 0, 0) for i in range(700))
    document = render_report(replace(DATA, verdict=replace(VERDICT, claims=many)))
    assert "200 more claims are not listed here, 200 of them not proved for all" in document


def test_many_checks_keep_the_failure():
    many = (*(Check(f"step {i}", "PASS", "fine") for i in range(2000)), Check("last", "FAIL", "broken"))
    document = render_report(replace(DATA, verdict=replace(REJECTED, checks=many)))
    assert "1,501 more checks are not listed here, 0 of them not passed" in document
    assert document.count("broken") == 2


# --- writing ---


def test_the_same_data_give_the_same_report(tmp_path):
    write_report(tmp_path / "a.html", DATA)
    assert (tmp_path / "a.html").read_text(encoding="utf-8") == render_report(DATA)
    assert [p.name for p in tmp_path.iterdir()] == ["a.html"]


def test_an_interruption_leaves_the_old_report(tmp_path, monkeypatch):
    target = tmp_path / "a.html"
    target.write_text("old")
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_report(target, DATA)
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.html"]


def test_a_missing_folder_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_report(tmp_path / "none" / "a.html", DATA)


# --- from files ---


def model(weight, shape=(64,)):
    """ONNX bytes of one dense layer on flattened rows."""
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("Gemm", ["f", "w"], ["z"], transB=1)]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", weight.shape[0]])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


BASE = model(np.eye(3, 64, dtype=F32))
PATCHED = model(np.eye(3, 64, dtype=F32)[[0, 2, 1]])


def rows(*labels):
    x = np.zeros((len(labels), 64), dtype=F32)
    x[np.arange(len(labels)), labels] = 1.0
    return LabelledRows(x, np.array(labels, dtype=np.int64))


def binary32(value):
    return struct.pack(">f", value).hex()


def patch_json(gates):
    network = "0" * 64
    coordinates = sum(len(g["intervals"]) for g in gates)
    edges = sum((low is not None) + (high is not None) for g in gates for _, low, high in g["intervals"])
    content = {
        "formatVersion": 1,
        "family": "box" if gates else "class-cap",
        "baseNetwork": network,
        "labels": 3,
        "site": "input",
        "forgottenClasses": [] if gates else [0],
        "tau": binary32(0.5),
        "shift": binary32(16 if gates else 0),
        "slack": binary32(64 if gates else 0),
        "gates": gates,
        "conflicts": [7] if gates else [],
        "disclosed": {"coordinates": coordinates, "bits": 32 * edges + 6 * coordinates},
    }
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def gate(label, intervals, records):
    written = [[j, *(None if e is None else binary32(e) for e in (low, high))] for j, low, high in intervals]
    return {"label": label, "gamma": binary32(8), "intervals": written, "records": records}


HOLDS_ONE = gate(1, [(1, 0.5, None), (9, None, 0.25)], [1])
LIES = gate(2, [(1, 0.5, None)], [2])  # says that it is for record 2, which does not lie in it
PATCH = patch_json([HOLDS_ONE, LIES])


def from_files(**changes):
    given = {
        "verdict": VERDICT,
        "base_bytes": BASE,
        "patched_bytes": PATCHED,
        "statement_payload": STATEMENT,
        "patch_json_bytes": PATCH,
        "forget": rows(0, 1, 2),
        "retain": rows(0, 0, 1),
        "test": None,
        "command": "again",
    } | changes
    return report_data_from_files(**given)


def test_files_are_evaluated():
    data = from_files(created="2026-01-01T00:00:00Z")
    assert data.accuracies == (Accuracy("Forgotten records", 3, 1, 3), Accuracy("Retained records", 3, 2, 3))
    assert [(r.label, r.base_answer, r.patched_answer) for r in data.records] == [(0, 0, 0), (1, 1, 2), (2, 2, 1)]
    assert data.picture_shape == (8, 8)
    assert [f.size for f in data.files] == [len(BASE), len(PATCHED), len(PATCH)]
    assert (data.patch.coordinates, data.patch.conflicts, data.patch.disclosed_bits) == ((2, 1), (7,), 96 + 18)
    assert data.notes == ()
    assert "Still answered" in outline(render_report(data)).text


def test_a_gate_is_shown_only_for_records_that_lie_in_it():
    assert [[i.coordinate for i in r.intervals] for r in from_files().records] == [[], [1, 9], []]


def test_the_report_time_is_now_unless_given():
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", from_files().created)


def test_large_sets_are_evaluated_on_a_part_that_is_named():
    data = from_files(forget=None, retain=None, test=rows(*[0, 1] * 6000))
    assert data.accuracies[0].count == 10_000
    assert data.accuracies[0].name == "Test data (10,000 of 12,000, evenly spread)"
    assert data.accuracies[0].before == 10_000


def test_at_most_24_records_are_shown():
    data = from_files(forget=rows(*[1] * 40))
    assert (len(data.records), data.records_total) == (24, 40)
    assert "The first 24 of 40 records" in render_report(data)


UNREADABLE = [
    ("a base that is no network", {"base_bytes": b"junk"}, "base.onnx could not be read"),
    ("a patched file that is no network", {"patched_bytes": b""}, "patched.onnx could not be read"),
    ("a patch that is no patch", {"patch_json_bytes": b"{"}, "patch.json could not be read"),
    ("a statement that is no JSON", {"statement_payload": b"\xff"}, "the statement could not be read"),
    (
        "networks with different rows",
        {"patched_bytes": model(np.eye(3, 9, dtype=F32), (9,))},
        "rows of different shapes",
    ),
    ("records of another size", {"forget": LabelledRows(np.zeros((1, 5), F32), np.zeros(1, np.int64))}, "do not fit"),
    ("no records", {"retain": LabelledRows(np.zeros((0, 64), F32), np.zeros(0, np.int64))}, "no rows with a label"),
    (
        "more rows than labels",
        {"test": LabelledRows(np.zeros((2, 64), F32), np.zeros(1, np.int64))},
        "no rows with a label",
    ),
]


@pytest.mark.parametrize(("sentence", "changes", "note"), UNREADABLE, ids=[row[0] for row in UNREADABLE])
def test_what_cannot_be_read_is_named(sentence, changes, note):
    data = from_files(**changes)
    assert any(note in line for line in data.notes), sentence
    assert note in outline(render_report(data)).text


def test_the_statement_may_be_given_as_bytes():
    payload = json.dumps(STATEMENT).encode()
    assert from_files(statement_payload=payload).statement == STATEMENT
    assert from_files(statement_payload=None, patch_json_bytes=None).patch is None


def test_a_class_patch_has_no_gates():
    data = from_files(patch_json_bytes=patch_json([]))
    assert data.patch.forgotten_classes == (0,)
    assert "no gate on pixels" in render_report(data)


def test_overflow_and_nan_are_shown_not_raised():
    huge = LabelledRows(np.full((2, 64), np.nan, F32), np.zeros(2, np.int64))
    huge.x[1] = 3e38
    data = from_files(base_bytes=model(np.full((3, 64), 1e30, F32)), forget=huge)
    assert len(data.records) == 2
    outline(render_report(data))


def test_values_outside_the_unit_interval_set_the_scale():
    wide = rows(0, 1)
    wide.x[0, 5] = -3.0
    assert from_files().pixel_range == (0.0, 1.0)
    assert from_files(forget=wide).pixel_range == (-3.0, 1.0)


def test_onnx_is_the_version_that_is_meant():
    onnx.checker.check_model(onnx.load_from_string(BASE))
