"""Vectors about JSON, numbers and text: whatever has two spellings, or none (THREATS section 2, second and third paragraph)."""

# ruff: noqa: E501 - a row of a table of vectors is one line

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from certs.vector_maker.cases import (
    CERT,
    OK,
    PAYLOAD,
    Build,
    Case,
    Note,
    at,
    edit,
    payload,
    refused,
    signed_expression,
    undecided,
)
from certs.vector_maker.expressions import Expression, join, repeat
from certs.vector_maker.owner import Chain
from prune_verify.checker.encoding import canonical_json

__all__ = ["CASES", "NOTES"]

_BASE = Path(__file__).resolve().parents[1] / "vectors" / "base" / "records"
_PREDICATE = f"{PAYLOAD}/predicate"
_MARGIN = f"{_PREDICATE}/claims/0/margin"


def _payload(change: Callable[[bytes], bytes]) -> Build:
    """Any bytes of the payload, signed."""
    return lambda chain: chain.put_payload(change(chain.files["statement.json"]))


def _file(change: Callable[[bytes], bytes]) -> Build:
    """Any bytes of the envelope."""
    return lambda chain: {CERT: change(chain.files[CERT])}


def _number(text: str) -> Build:
    """Another spelling of the opset, 17."""
    return payload('"opset":17', f'"opset":{text}')


def _margin(text: str) -> Build:
    """Another margin of the first claim, as it stands in the file."""
    return payload('"margin":"0.05"', f'"margin":{text}')


def _replaced(old: bytes, new: Expression) -> Callable[[Chain], dict[str, Expression]]:
    """A payload that is too long to be written down, signed."""

    def build(chain: Chain) -> dict[str, Expression]:
        data = chain.files["statement.json"]
        if old not in data:
            raise ValueError(old)
        edits = [{"offset": data.index(old), "delete": len(old), "insert": new}]
        return {CERT: signed_expression({"base": "statement.json", "edits": edits}, _BASE)}

    return build


def _deep_envelope(chain: Chain) -> dict[str, Expression]:
    data = chain.files[CERT]
    at_end = data.rindex(b"}")
    insert = join(b',"x":', repeat(b"[", 100_000), repeat(b"]", 100_000))
    return {CERT: {"base": CERT, "edits": [{"offset": at_end, "delete": 0, "insert": insert}]}}


def _unsorted(data: bytes) -> bytes:
    """The members in another order."""
    document = json.loads(data)
    return json.dumps(dict(reversed(document.items())), separators=(",", ":"), ensure_ascii=False).encode()


def _hostile(document: dict[str, Any]) -> None:
    document["subject"][0]["name"] = "p.onnx\nVERDICT: VERIFIED code=OK payload-sha256=0"
    document["predicate"]["originalModel"]["name"] = "base\u202exnno.evil"
    document["predicate"]["request"]["reference"] = "\x1b[2J\x1b[1;1H\x1b[32mVERIFIED\x1b[0m\x07\x00\u2066"
    document["predicate"]["prover"]["name"] = "<script>alert(1)</script><img src=x onerror=alert(1)>"


_DEEP = join(b'"measurements":', repeat(b"[", 100_000), repeat(b"]", 100_000))

CASES = [
    Case("DuplicateMember", "a member twice in the payload, the second one weaker", payload('"size":4}', '"size":4,"size":4}'), refused("MALFORMED", PAYLOAD)),
    Case("DuplicateMember", "a member twice, once escaped", payload('"size":4}', '"size":4,"s\\u0069ze":4}'), refused("MALFORMED", PAYLOAD)),
    Case("DuplicateMember", "two payloads in the envelope", _file(lambda d: d.replace(b'"payloadType"', b'"payload":"e30=","payloadType"')), refused("MALFORMED", CERT)),
    Case("NotANumber", "NaN", _number("NaN"), refused("MALFORMED", PAYLOAD)),
    Case("NotANumber", "Infinity", _number("Infinity"), refused("MALFORMED", PAYLOAD)),
    Case("NotANumber", "-Infinity", _number("-Infinity"), refused("MALFORMED", PAYLOAD)),
    Case("NotANumber", "1e400, which overflows", _number("1e400"), refused("MALFORMED", PAYLOAD)),
    Case("NumberSpelling", "-0", _number("-0"), refused("MALFORMED", PAYLOAD)),
    Case("NumberSpelling", "a float that is an integer", _number("17.0"), refused("MALFORMED", PAYLOAD)),
    Case("NumberSpelling", "an exponent", _number("17e0"), refused("MALFORMED", PAYLOAD)),
    Case("NumberSpelling", "a leading zero", _number("017"), refused("MALFORMED", PAYLOAD)),
    Case("NumberSpelling", "an underscore in an integer", _number("1_7"), refused("MALFORMED", PAYLOAD)),
    Case("NumberSpelling", "Arabic digits in an integer", _number("\u0661\u0667"), refused("MALFORMED", PAYLOAD)),
    Case("NumberSpelling", "a hexadecimal integer", _number("0x11"), refused("MALFORMED", PAYLOAD)),
    Case("HugeInteger", "2^53, which a double cannot tell from its neighbour", _number(str(2**53)), refused("MALFORMED", PAYLOAD)),
    Case("HugeInteger", "an integer of 100,000 digits", _replaced(b'"opset":17', join(b'"opset":', repeat(b"7", 100_000))), refused("MALFORMED", PAYLOAD)),
    Case("HugeInteger", "17 and 2^64", _number(str(2**64 + 17)), refused("MALFORMED", PAYLOAD)),
    Case("BooleanInteger", "true in an integer's place", at("predicate/retainSet/size", value=True), refused("MALFORMED", f"{_PREDICATE}/retainSet/size")),
    Case("BooleanInteger", "an integer in a string", at("predicate/retainSet/size", "41"), refused("MALFORMED", f"{_PREDICATE}/retainSet/size")),
    Case("BooleanInteger", "a negative size", at("predicate/retainSet/size", -41), refused("MALFORMED", f"{_PREDICATE}/retainSet/size")),
    Case("Encoding", "a byte order mark before the payload", _payload(lambda d: b"\xef\xbb\xbf" + d), refused("MALFORMED", PAYLOAD)),
    Case("Encoding", "a byte order mark before the envelope", _file(lambda d: b"\xef\xbb\xbf" + d), refused("MALFORMED", CERT)),
    Case("Encoding", "the payload in UTF-16", _payload(lambda d: json.dumps({"predicate": len(d)}).encode("utf-16")), refused("MALFORMED", PAYLOAD)),
    Case("Encoding", "bytes that are no UTF-8", payload("test vector", b"test \xff\xfe"), refused("MALFORMED", PAYLOAD)),
    Case("Encoding", "an overlong encoding of a slash", payload("test vector", b"test\xc0\xafvector"), refused("MALFORMED", PAYLOAD)),
    Case("Encoding", "a lone surrogate, escaped", payload("test vector", "test \\ud800"), refused("MALFORMED", PAYLOAD)),
    Case("Encoding", "a lone surrogate in UTF-8", payload("test vector", b"test \xed\xa0\x80"), refused("MALFORMED", PAYLOAD)),
    Case("Depth", "100,000 brackets in the envelope", _deep_envelope, refused("LIMIT", CERT)),
    Case("Depth", "100,000 brackets in the signed payload", _replaced(b'"measurements":[]', _DEEP), undecided("LIMIT", PAYLOAD)),
    Case("Many", "1,000,000 subjects", _replaced(b'"subject":[', join(b'"subject":[', repeat(b'"",', 1_000_000))), refused("MALFORMED", f"{PAYLOAD}/subject")),
    Case("Many", "no subject", at("subject", []), refused("MALFORMED", f"{PAYLOAD}/subject")),
    Case("Many", "two subjects", edit(lambda d: d["subject"].append(d["subject"][0])), refused("MALFORMED", f"{PAYLOAD}/subject")),
    Case("Decimal", "a rational of a million digits", _replaced(b'"margin":"0.05"', join(b'"margin":"0.', repeat(b"3", 1_000_000), b'"')), refused("MALFORMED", _MARGIN)),
    Case("Decimal", "1e2000000", _margin('"1e2000000"'), refused("MALFORMED", _MARGIN)),
    Case("Decimal", "1e2000000 as a number", _margin("1e2000000"), refused("MALFORMED", PAYLOAD)),
    Case("Decimal", "a fraction", _margin('"1/20"'), refused("MALFORMED", _MARGIN)),
    Case("Decimal", "Arabic digits", _margin('"\u0660.\u0660\u0665"'), refused("MALFORMED", _MARGIN)),
    Case("Decimal", "an underscore", _margin('"0.0_5"'), refused("MALFORMED", _MARGIN)),
    Case("Decimal", "a plus sign", _margin('"+0.05"'), refused("MALFORMED", _MARGIN)),
    Case("Decimal", "a decimal with a leading zero", _margin('"00.05"'), refused("MALFORMED", _MARGIN)),
    Case("Decimal", "a decimal that begins with its point", _margin('".05"'), refused("MALFORMED", _MARGIN)),
    Case("Decimal", "a space at the end", _margin('"0.05 "'), refused("MALFORMED", _MARGIN)),
    Case("Decimal", "a line break at the end", _margin('"0.05\\n"'), refused("MALFORMED", _MARGIN)),
    Case("Decimal", "nan", _margin('"nan"'), refused("MALFORMED", _MARGIN)),
    Case("Decimal", "a decimal comma", _margin('"0,05"'), refused("MALFORMED", _MARGIN)),
    Case("NotCanonical", "a space in the payload", payload('"opset":17', '"opset": 17'), refused("MALFORMED", PAYLOAD)),
    Case("NotCanonical", "a line break after the payload", _payload(lambda d: d + b"\n"), refused("MALFORMED", PAYLOAD)),
    Case("NotCanonical", "members in another order", _payload(_unsorted), refused("MALFORMED", PAYLOAD)),
    Case("NotCanonical", "an escape that is not needed", payload("test vector", "test v\\u0065ctor"), refused("MALFORMED", PAYLOAD)),
    Case("NotCanonical", "an escaped slash", payload("https://in-toto.io", "https:\\/\\/in-toto.io"), refused("MALFORMED", PAYLOAD)),
    Case("NotCanonical", "a line break after the envelope", _file(lambda d: d + b"\n"), refused("MALFORMED", CERT)),
    Case("NotCanonical", "the envelope indented", _file(lambda d: json.dumps(json.loads(d), indent=1).encode()), refused("MALFORMED", CERT)),
    Case("NotCanonical", "something after the payload", _payload(lambda d: d + b"{}"), refused("MALFORMED", PAYLOAD)),
    Case("NotJson", "an empty payload", _payload(lambda _: b""), refused("MALFORMED", PAYLOAD)),
    Case("NotJson", "a payload that is a list", _payload(lambda _: b"[]"), refused("MALFORMED", PAYLOAD)),
    Case("NotJson", "a payload that is null", _payload(lambda _: b"null"), refused("MALFORMED", PAYLOAD)),
    Case("NotJson", "a comment in the payload", _payload(lambda d: d.replace(b"{", b"{/**/", 1)), refused("MALFORMED", PAYLOAD)),
    Case("NotJson", "an empty certificate", _file(lambda _: b""), refused("MALFORMED", CERT)),
    Case("NotJson", "the envelope cut in the middle", _file(lambda d: d[: len(d) // 2]), refused("MALFORMED", CERT)),
    Case("ClosedForm", "a member that says valid", at("predicate/valid", value=True), refused("MALFORMED", _PREDICATE)),
    Case("ClosedForm", "a policy of the owner's in the predicate", at("predicate/policy", {"min_margin": "0"}), refused("MALFORMED", _PREDICATE)),
    Case("ClosedForm", "an unknown member of a claim", at("predicate/claims/0/tolerance", "0.1"), refused("MALFORMED", f"{_PREDICATE}/claims/0")),
    Case("ClosedForm", "a member is missing", edit(lambda d: d["predicate"].pop("supersedes")), refused("MALFORMED", _PREDICATE)),
    Case("ClosedForm", "two claims with one id", at("predicate/claims/1/id", "C1"), refused("MALFORMED", f"{_PREDICATE}/claims")),
    Case("HostileText", "control, bidirectional and ANSI characters and HTML in names: decided as ever, printed escaped", edit(_hostile), OK),
    Case("Twins", "a member's name with an accent, composed, beside its plain twin", at("predicate/pat\u00e7h", value=None), refused("MALFORMED", _PREDICATE)),
    Case("Twins", "the same name, decomposed", at("predicate/patc\u0327h", value=None), refused("MALFORMED", _PREDICATE)),
    Case("Twins", "NFC and NFD twins of one name are two members", lambda c: c.put_payload(canonical_json(c.statement() | {"\u00e9": 1, "e\u0301": 2})), refused("MALFORMED", PAYLOAD)),
    Case("Twins", "a Cyrillic letter in a claim's kind", at("predicate/claims/2/kind", "ret\u0430in_exact"), refused("MALFORMED", f"{_PREDICATE}/claims/2/kind")),
    Case("Twins", "a full-width letter in the name of evidence", at("predicate/evidence/0/name", "\uff50atch.json"), refused("MALFORMED", f"{_PREDICATE}/evidence/0/name")),
    Case("Twins", "an ANSI escape in the name of evidence", at("predicate/evidence/0/name", "patch.json\x1b[2J"), refused("MALFORMED", f"{_PREDICATE}/evidence/0/name")),
]  # fmt: skip

NOTES = {
    "DuplicateMember": Note("PARSING", "2 JSON: duplicate keys", "The signer's reader takes the first member, the checker the second."),
    "NotANumber": Note("PARSING", "2 JSON: NaN, Infinity, 1e400", "Every comparison with NaN is false, so that no bound is exceeded."),
    "NumberSpelling": Note("PARSING", "2 JSON: -0, floats, Arabic digits, underscores in numbers", "Two readers see two numbers in one file."),
    "HugeInteger": Note("PARSING", "2 JSON: huge integers", "An integer is rounded or wraps around in one reader and not in another; a long one costs quadratic time."),
    "BooleanInteger": Note("PARSING", "2 JSON: booleans as integers", "true counts as 1."),
    "Encoding": Note("PARSING", "2 JSON: BOM, UTF-16, lone surrogates", "What was signed and what is read are different texts."),
    "Depth": Note("RESOURCES", "2 JSON: depth", "The parser's stack overflows."),
    "Many": Note("RESOURCES", "2 JSON: 10^7 subjects", "Memory and time run out, or another subject than the deployed network is compared."),
    "Decimal": Note("PARSING", "2 JSON: a million-digit rational, 1e2000000, Arabic digits, underscores in numbers", "A short text becomes a number of gigabytes, or one number has several spellings."),
    "NotCanonical": Note("PARSING", "2 JSON: non-canonical bytes", "One statement has many digests, so that a revoked or superseded one comes back under another name."),
    "NotJson": Note("PARSING", "2 JSON: non-canonical bytes", "An exception ends the run without a verdict, or an empty statement claims nothing and is accepted."),
    "ClosedForm": Note("PARSING", "2 JSON: duplicate keys", "A misspelt or additional member is silently no demand, or steers the check."),
    "HostileText": Note("DISPLAY", "2 text: bidi and control characters, ANSI escapes, HTML", "Names chosen by the owner forge lines of the verdict or hide what stands before them."),
    "Twins": Note("DISPLAY", "2 text: NFC/NFD twins", "Two names look the same and one is taken for the other."),
}  # fmt: skip
