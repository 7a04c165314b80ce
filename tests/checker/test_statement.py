"""The statement: parse . emit is the identity, the form is closed, and what must stand there stands there."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction

import pytest

from prune_verify.checker.claim import Claim
from prune_verify.checker.claim_json import ClaimStatement, Counts
from prune_verify.checker.encoding import canonical_json
from prune_verify.checker.errors import CheckError, MalformedInputError, UnsupportedVersionError
from prune_verify.checker.region import Domain
from prune_verify.checker.rules import BINARY32, REAL
from prune_verify.checker.statement import (
    NON_CLAIMS,
    Evidence,
    Measurement,
    PatchSummary,
    SetCommitment,
    Statement,
    emit_statement,
    parse_statement,
)

D = "0123456789abcdef" * 4
START = datetime(2026, 1, 1, tzinfo=UTC)
CLAIMS = (
    ClaimStatement(
        "C1",
        Claim("forget", BINARY32, "structural", radius=Fraction(1, 10), margin=Fraction(1, 8)),
        Counts(5, 5, already_wrong=1),
        already_wrong=((2, 7),),
    ),
    ClaimStatement(
        "C2",
        Claim("retain_exact", REAL, "structural", radius=Fraction(1, 20), logits=(0, 1)),
        Counts(9, 8, conflict=1),
        conflicts=(4,),
    ),
    ClaimStatement("C3", Claim("forget_class", REAL, "structural", label=2, margin=Fraction(1, 8)), Counts(1, 1)),
)
STATEMENT = Statement(
    patched_name="patched.onnx",
    patched_sha256=D,
    certificate_id="ab" * 16,
    issued_at=START,
    not_before=START,
    expires_at=START.replace(year=2027),
    supersedes=None,
    challenge="cd" * 16,
    prover=("prune-verify", "0"),
    request_sha256=D,
    request_kind="records+class",
    request_reference="case",
    base_name="base.onnx",
    base_sha256=D,
    base_network=D,
    patch=PatchSummary(D, "box", 5, (2,), 3, 12, 900),
    domain=Domain((Fraction(0),), (Fraction(1),)),
    arithmetics=(BINARY32, REAL),
    encoding_sha256=None,
    opset=17,
    forget_set=SetCommitment(D, 5),
    retain_set=None,
    claims=CLAIMS,
    evidence=(Evidence("patch.json", D, 17),),
    assumptions=(),
    non_claims=NON_CLAIMS,
    measurements=(Measurement("accuracy", "0.97", ("0.96", "0.98"), "prune-verify bench chain", 0, None),),
    environment=(("python", "3"), ("numpy", "2"), ("onnx", "1"), ("platform", "p")),
)


def test_parse_of_emit_is_the_identity() -> None:
    data = emit_statement(STATEMENT)
    assert parse_statement(data, "s") == STATEMENT
    assert emit_statement(parse_statement(data, "s")) == data


BAND = Claim("band", REAL, "relaxation", radius=Fraction(1, 10), band=(Fraction(-1, 2), Fraction(1, 4)))
COVER = Claim("minimality", REAL, "covering-dual", radius=Fraction(1, 10), cover=(2, Fraction(1, 20)))


@pytest.mark.parametrize("changes", [
    {"patch": None},
    {"measurements": (replace(STATEMENT.measurements[0], interval=None),)},
    {"retain_set": SetCommitment(D, 7)},
    {"claims": (ClaimStatement("C1", BAND, Counts(5, 5)), ClaimStatement("C2", COVER, Counts(2, 2)))},
], ids=["no patch", "a measurement without interval", "a retained set", "a band and a cover"])  # fmt: skip
def test_parse_of_emit_is_the_identity_for_other_forms(changes: dict) -> None:
    statement = replace(STATEMENT, **changes)
    data = emit_statement(statement)
    assert parse_statement(data, "s") == statement
    assert emit_statement(parse_statement(data, "s")) == data


def at(path: str, value: object) -> Callable[[dict], None]:
    def apply(document: dict) -> None:
        *parents, last = path.split("/")
        for name in parents:
            document = document[int(name) if isinstance(document, list) else name]
        document[int(last) if isinstance(document, list) else last] = value

    return apply


def without(path: str) -> Callable[[dict], None]:
    def apply(document: dict) -> None:
        *parents, last = path.split("/")
        for name in parents:
            document = document[name]
        del document[last]

    return apply


P = "s/predicate"
ROWS = [
    ("another statement type", at("_type", "x"), UnsupportedVersionError, "s/_type"),
    ("another predicate type", at("predicateType", "x"), UnsupportedVersionError, "s/predicateType"),
    ("two subjects", at("subject", [{}, {}]), MalformedInputError, "s/subject"),
    ("no subject", at("subject", []), MalformedInputError, "s/subject"),
    ("two digests of one subject", at("subject/0/digest", {"sha256": D, "md5": "x"}), MalformedInputError, "s/subject/0/digest"),
    ("an upper-case digest", at("subject/0/digest/sha256", D.upper()), MalformedInputError, "s/subject/0/digest/sha256"),
    ("a field that says valid", at("predicate/valid", True), MalformedInputError, P),
    ("a field missing", without("predicate/nonClaims"), MalformedInputError, P),
    ("non-claims left out", at("predicate/nonClaims", []), MalformedInputError, f"{P}/nonClaims"),
    ("a claim of an unknown kind", at("predicate/claims/0/kind", "erase"), MalformedInputError, f"{P}/claims/0/kind"),
    ("another quantifier", at("predicate/claims/0/quantifier", "domain"), MalformedInputError, f"{P}/claims/0/quantifier"),
    ("locality for all inputs", at("predicate/claims/0/kind", "locality"), MalformedInputError, f"{P}/claims/0/quantifier"),
    ("a claim by fiat", at("predicate/claims/0/method", "trust"), MalformedInputError, f"{P}/claims/0/method"),
    ("another norm", at("predicate/claims/0/region/norm", "l2"), MalformedInputError, f"{P}/claims/0/region/norm"),
    ("a negative count", at("predicate/claims/0/counts/proved", -1), MalformedInputError, f"{P}/claims/0/counts/proved"),
    ("two claims of one id", at("predicate/claims/1/id", "C1"), MalformedInputError, f"{P}/claims"),
    ("no claims", at("predicate/claims", []), MalformedInputError, f"{P}/claims"),
    ("descending conflicts", at("predicate/claims/1/conflicts", [4, 3]), MalformedInputError, f"{P}/claims/1/conflicts"),
    ("evidence outside", at("predicate/evidence/0/name", "../x"), MalformedInputError, f"{P}/evidence/0/name"),
    ("evidence named dots", at("predicate/evidence/0/name", ".."), MalformedInputError, f"{P}/evidence/0/name"),
    ("validity that ends before it begins", at("predicate/expiresAt", "2025-01-01T00:00:00Z"), MalformedInputError, f"{P}/expiresAt"),
    ("a short challenge", at("predicate/challenge", "ab"), MalformedInputError, f"{P}/challenge"),
    ("a measurement in words", at("predicate/measurements/0/value", "good"), MalformedInputError, f"{P}/measurements/0/value"),
    ("one end of an interval", at("predicate/measurements/0/interval", ["0.96"]), MalformedInputError, f"{P}/measurements/0/interval"),
    ("no certificate id", at("predicate/certificateId", None), MalformedInputError, f"{P}/certificateId"),
    ("a band that ends before it begins", at("predicate/claims/0/band", {"lower": "1", "upper": "0.5"}), MalformedInputError, f"{P}/claims/0/band"),
    ("a cover of no coordinates", at("predicate/claims/0/cover", {"count": 0, "retainedRadius": "0.1"}), MalformedInputError, f"{P}/claims/0/cover/count"),
    ("a set of no records", at("predicate/forgetSet/size", 0), MalformedInputError, f"{P}/forgetSet/size"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "edit", "error", "path"), ROWS, ids=[row[0] for row in ROWS])
def test_refusals(sentence: str, edit: Callable[[dict], None], error: type[CheckError], path: str) -> None:
    document = json.loads(emit_statement(STATEMENT))
    edit(document)
    with pytest.raises(error) as caught:
        parse_statement(canonical_json(document), "s")
    assert caught.value.path == path


def test_another_spelling_is_refused() -> None:
    with pytest.raises(MalformedInputError):
        parse_statement(emit_statement(STATEMENT) + b"\n", "s")
