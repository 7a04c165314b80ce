"""What `inspect` prints: everything of the certificate, escaped, and never a verdict."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from prune_verify.audit.inspect import inspect_text
from prune_verify.checker.envelope import PAYLOAD_TYPE, Envelope, emit_envelope
from prune_verify.checker.errors import CheckError
from prune_verify.checker.statement import Measurement, Statement, emit_statement
from prune_verify.signing import public_half, sign_payload
from tests.checker.test_statement import STATEMENT

KEY = Ed25519PrivateKey.from_private_bytes(b"\1" * 32)
HOSTILE = [
    "VERDICT: VERIFIED code=OK payload-sha256=00",
    "case\nVERDICT: VERIFIED code=OK",
    "case\r\x1b[2J\x1b[31mVERIFIED",
    "case \u202eDEIFIREV\u202c verified",
    "\uff36\uff25\uff32\uff29\uff26\uff29\uff25\uff24 <b>VERDICT</b> UNVERIFIED",
]  # fmt: skip


def shown(statement: Statement) -> str:
    return inspect_text(sign_payload(emit_statement(statement), KEY))


def unsigned(payload: bytes) -> bytes:
    """An envelope whose signature is none; `inspect` checks none."""
    return emit_envelope(Envelope(PAYLOAD_TYPE, payload, (("0" * 64, b"none"),)))


def test_all_that_the_certificate_says_is_there() -> None:
    text = shown(replace(STATEMENT, assumptions=("z3_unsat:" + "a" * 64,)))
    first, *rest = text.splitlines()
    assert first == "UNVERIFIED: nothing below was checked"
    wanted = [
        public_half(KEY).keyid, STATEMENT.patched_sha256, "2026-01-01T00:00:00Z to 2027-01-01T00:00:00Z", "made by prune-verify 0",
        "challenge " + "cd" * 16, "forget set: 5 records", "retained set: none", "patch box: 5 gates", "radius 0.1",
        "says: 8 of 9, 1 in conflict", "class 2", "z3_unsat:" + "a" * 64, "not claimed:", STATEMENT.non_claims[0],
        "measured: accuracy = 0.97", "evidence patch.json  17 bytes",
    ]  # fmt: skip
    assert [item for item in wanted if not any(item in line for line in rest)] == []


@pytest.mark.parametrize("words", HOSTILE)
def test_foreign_text_is_escaped_and_spells_no_verdict(words: str) -> None:
    plain = shown(STATEMENT)
    for changed in (
        replace(STATEMENT, request_reference=words),
        replace(STATEMENT, patched_name=words),
        replace(STATEMENT, prover=(words, words)),
        replace(STATEMENT, measurements=(Measurement(words, words, ("0", "1"), words, 0, None),)),
    ):
        try:
            text = shown(changed)
        except CheckError:  # the statement's own form refuses it
            continue
        first, rest = text.split("\n", 1)
        assert first == "UNVERIFIED: nothing below was checked"
        assert text.isascii()
        assert all(c.isprintable() or c == "\n" for c in text)
        assert len(text.splitlines()) == len(plain.splitlines())
        assert "VERIFIED" not in rest.upper()
        assert "VERDICT" not in rest.upper()


def test_the_reference_of_a_request_may_hold_anything() -> None:
    """So that the table above is about texts that get through."""
    for words in HOSTILE:
        assert shown(replace(STATEMENT, request_reference=words))


@given(st.binary(max_size=300))
def test_any_bytes_give_text_or_a_check_error(data: bytes) -> None:
    for content in (data, unsigned(data)):
        with pytest.raises(CheckError):
            inspect_text(content)


@given(st.data())
def test_any_member_of_the_predicate_gives_text_or_a_check_error(data: st.DataObject) -> None:
    document = json.loads(emit_statement(STATEMENT))
    name = data.draw(st.sampled_from(sorted(document["predicate"])))
    document["predicate"][name] = data.draw(st.sampled_from([None, True, -1, "", "VERIFIED", [], {}, [[]], {"a": 1}]))
    payload = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    with suppress(CheckError):
        assert inspect_text(unsigned(payload)).startswith("UNVERIFIED")


@pytest.mark.parametrize("data", [b"", b"{}", json.dumps({"payload": ""}).encode()])
def test_what_is_no_certificate_is_refused(data: bytes) -> None:
    with pytest.raises(CheckError):
        inspect_text(data)
