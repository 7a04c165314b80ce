"""From counts to a verdict: one row per reason, and the certificate's own verdict is never outdone."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from prune_verify.audit.endpoint_answers import Expected
from prune_verify.audit.endpoint_challenges import Challenge
from prune_verify.audit.endpoint_options import Demands
from prune_verify.audit.endpoint_protocol import Address, EndpointError
from prune_verify.audit.endpoint_result import Audited, Tally, concluded
from prune_verify.audit.endpoint_state import RIGHT, UNDRAWN, Outcome
from prune_verify.checker.verdict import REJECTED, UNDECIDED, VERIFIED, Verdict

pytestmark = pytest.mark.prover

WRONG = ("label 1", "label 2")
FAILURE = EndpointError("POST http://a/infer", "an answer in 6 tries", "an answer", "status 503")
GOOD = Verdict(VERIFIED, "OK")


def challenge(kind: str, telling: bool) -> Challenge:
    ends = np.zeros(2)
    return Challenge(0, kind, "noise", np.zeros(1, dtype=np.float32), Expected(ends, ends), telling)


def audited(
    *rows: tuple[str, Outcome, int, bool], regions: tuple[str, ...] = ("forget",), failure: EndpointError | None = None
) -> Audited:
    tally, index = Tally(0.95, failure), 0
    for kind, outcome, count, telling in rows:
        for _ in range(count):
            tally.add([(index, kind, None if outcome == UNDRAWN else challenge(kind, telling), outcome)])
            index += 1
    demands = Demands(index, (Fraction(1), Fraction(1), Fraction(1)), 1, 0.95, 0.01, None, None)
    return Audited(Address("http://a", "", "m"), demands, "00" * 32, False, ("logits",), "FP32", regions, 0.5, tally)


CASES = [
    ("enough right answers", audited(("forget", RIGHT, 299, True)), GOOD, (VERIFIED, "OK", "")),
    ("one answer too few", audited(("forget", RIGHT, 298, True)), GOOD, (UNDECIDED, "E_FEW_QUERIES", "audit/forget")),
    ("enough, but not all counted", audited(("forget", RIGHT, 298, True), ("forget", UNDRAWN, 9, False)), GOOD, (UNDECIDED, "E_FEW_QUERIES", "audit/forget")),
    ("answers that would not tell the base", audited(("forget", RIGHT, 299, False)), GOOD, (UNDECIDED, "E_POWER", "audit/forget")),
    ("one that would", audited(("forget", RIGHT, 298, False), ("forget", RIGHT, 1, True)), GOOD, (VERIFIED, "OK", "")),
    ("a class without queries", audited(("forget", RIGHT, 299, True), regions=("forget", "class")), GOOD, (UNDECIDED, "E_FEW_QUERIES", "audit/class")),
    ("nothing to ask about", audited(("elsewhere", RIGHT, 500, True), regions=()), GOOD, (UNDECIDED, "E_DATA_MISSING", "audit/forget")),
    ("a deviation in a region", audited(("forget", RIGHT, 299, True), ("forget", WRONG, 1, True)), GOOD, (REJECTED, "E_DEVIATION", "audit/forget")),
    ("a deviation elsewhere", audited(("forget", RIGHT, 299, True), ("elsewhere", WRONG, 1, True)), GOOD, (REJECTED, "E_DEVIATION", "audit/elsewhere")),
    ("unanswered queries", audited(("forget", RIGHT, 299, True), ("retained", None, 1, True), failure=FAILURE), GOOD, (UNDECIDED, "E_ENDPOINT", FAILURE.path)),
    ("unanswered queries and too few", audited(("forget", RIGHT, 9, True), ("forget", None, 1, True), failure=FAILURE), GOOD, (UNDECIDED, "E_ENDPOINT", FAILURE.path)),
    ("unanswered queries and a deviation", audited(("forget", WRONG, 1, True), failure=FAILURE), GOOD, (REJECTED, "E_DEVIATION", "audit/forget")),
    ("a certificate that was rejected", audited(("forget", RIGHT, 299, True)), Verdict(REJECTED, "E_PROOF"), (UNDECIDED, "E_PROOF", "")),
    ("a certificate that is undecided", audited(("forget", RIGHT, 299, True)), Verdict(UNDECIDED, "E_UNKNOWN"), (UNDECIDED, "E_UNKNOWN", "")),
    ("a rejected certificate and a deviation", audited(("forget", WRONG, 1, True)), Verdict(REJECTED, "E_PROOF"), (REJECTED, "E_DEVIATION", "audit/forget")),
]  # fmt: skip


@pytest.mark.parametrize(("what", "found", "verdict", "expected"), CASES, ids=[row[0] for row in CASES])
def test_the_verdict_follows_from_the_counts(
    what: str, found: Audited, verdict: Verdict, expected: tuple[str, str, str]
) -> None:
    ended, data = concluded(verdict, found)
    path = next((c.path for c in ended.checks if c.code == expected[1] != "OK"), "")
    assert (ended.word, ended.code, path) == expected
    assert (data["verdict"], data["code"], data["exitCode"]) == (
        ended.word,
        ended.code,
        {VERIFIED: 0, REJECTED: 1, UNDECIDED: 3}[ended.word],
    )


def test_requests_with_several_queries_are_single_trials() -> None:
    tally = Tally(0.95)
    tally.add(
        [
            (0, "forget", challenge("forget", True), WRONG),
            (1, "forget", challenge("forget", True), WRONG),
            (2, "retained", challenge("retained", True), RIGHT),
        ]
    )
    tally.add([(3, "forget", challenge("forget", True), RIGHT), (4, "forget", None, UNDRAWN)])
    assert {kind: (tally.share(kind).trials, tally.share(kind).deviations) for kind in ("forget", "retained", "elsewhere", "overall")} == {
        "forget": (2, 1), "retained": (1, 0), "elsewhere": (0, 0), "overall": (2, 1),
    }  # fmt: skip
    assert (tally.counts["forget"].queries, tally.counts["forget"].deviations, tally.counts["forget"].undrawn) == (
        3,
        2,
        1,
    )


def test_what_a_server_says_is_escaped_in_the_roster() -> None:
    ended, _ = concluded(GOOD, audited(("forget", ("a\nVERDICT: VERIFIED", "\x1b[2J\u202e"), 1, True)))
    assert ended.text().count("VERDICT:") == 2
    assert [line for line in ended.text().splitlines() if line.startswith("VERDICT: ")] == [ended.line()]
    assert ended.text().isascii()
    assert "\x1b" not in ended.text()


def test_plain_http_and_a_chosen_seed_are_warned_of() -> None:
    found = audited(("forget", RIGHT, 299, True))
    ended, _ = concluded(GOOD, found)
    assert any(text.startswith("plain http: ") for text in ended.warnings)
    assert not any("seed" in text for text in ended.warnings)
