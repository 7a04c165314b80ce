"""Conformance cases that must not be VERIFIED and are no vectors: a step beyond what ``accepted.py`` meets exactly, and others.

A new case is a line here: the folder's name, the step, the base and a ``Case`` as the vectors have it.
"""

# ruff: noqa: E501 - a row of a table is one line

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np

from certs.vector_maker.accepted import NOW, already_wrong, conflict_of_forty, signed_by
from certs.vector_maker.bases import renumbered
from certs.vector_maker.cases import (
    CERT,
    PAYLOAD,
    Build,
    Case,
    Files,
    at,
    demand,
    edit,
    files,
    payload,
    refused,
    then,
    undecided,
    unusable,
)
from certs.vector_maker.envelopes import ED25519_SPKI, forged_trust
from certs.vector_maker.folders import DATA, Folder
from certs.vector_maker.owner import ISSUED, Chain, key, trust, trusted
from certs.vector_maker.tables import NAMES, as_csv, as_idx, csv_words, encoded, idx_bytes, idx_words, table
from prune_verify.checker.proof import emit, parse
from prune_verify.signing import public_half

__all__ = ["boundaries"]

_PATCH = "evidence/patch.json"
_PRIME = 2**255 - 19
_P256_BYTES = 32
_SECOND = timedelta(seconds=1)
_NONCE = "5eed" * 16
_C1 = "evidence/C1.proof"


def _unknown(chain: Chain) -> Chain:
    """The proof leaves record 0 of the first claim open, and the statement says so."""
    proof = parse(chain.files[_C1], _C1)
    choices = proof.choices.copy()
    choices[0] = -1
    chain.swap(_C1, emit(replace(proof, choices=choices)))
    document = chain.statement()
    claim = document["predicate"]["claims"][0]
    claim["counts"] |= {"proved": claim["counts"]["proved"] - 1, "unknown": 1}
    claim["unknowns"] = [0]
    return chain.put(document)


def _compressed() -> bytes:
    """The SPKI of a P-256 test key with its point compressed."""
    whole = public_half(key("ecdsa owner", "p256")).spki
    head, x, y = whole[: -2 * _P256_BYTES - 1], whole[-2 * _P256_BYTES : -_P256_BYTES], whole[-_P256_BYTES:]
    short = bytes([2 + y[-1] % 2]) + x
    return bytes([head[0], head[1] - _P256_BYTES, *head[2:-2], head[-2] - _P256_BYTES, head[-1]]) + short


def _challenge(nonce: str) -> Build:
    return lambda _: {
        "challenge.json": json.dumps(
            {"formatVersion": 1, "nonce": nonce, "createdAt": "2029-12-31T00:00:00Z", "note": ""}
        ).encode()
    }


def _short_domain(document: dict[str, Any]) -> None:
    document["predicate"]["semantics"]["domain"] = {"lower": ["0"] * 63, "upper": ["1"] * 63}


def _sizes(name: str, file: str) -> Build:
    """A limit that is a byte below a file's size."""
    return lambda chain: demand(**{name: str(len(chain.files[file]) - 1)})(chain)


def _cut_idx(chain: Chain) -> Files:
    found = as_idx()(chain)
    if isinstance(found, Chain):
        raise TypeError(found)
    data = found["retain-images.idx"]
    return found | {"retain-images.idx": data[:-1] if isinstance(data, bytes) else data}


def _labels_too_few(chain: Chain) -> Files:
    found = as_idx()(chain)
    if isinstance(found, Chain):
        raise TypeError(found)
    return found | {"retain-labels.idx": idx_bytes(np.zeros(40, np.uint8))}


_NESTED = '"measurements":' + "[" * 31 + "]" * 31
_LONG = "0.05" + "0" * 61
_CLAIM = "predicate/claims/C{}/{}"

_CASES: list[tuple[str, int, str, Case]] = [
    # 1
    ("policy-knob-missing", 1, "records", Case("Policy", "a demand is missing from the policy", lambda c: {"policy.toml": c.files["policy.toml"].replace(b"min_margin", b"# min_margin")}, unusable("MALFORMED", "policy.toml/claims/min_margin"))),
    ("policy-65-digits", 1, "records", Case("Policy", "a margin of 65 digits in the policy, one more than is read", demand(min_margin="0.05" + "0" * 62), unusable("MALFORMED", "policy.toml/claims/min_margin"))),
    ("policy-1e64", 1, "records", Case("Policy", "a delta of 1e64 in the policy, which has 65 digits", demand(max_delta="1e64"), unusable("MALFORMED", "policy.toml/claims/max_delta"))),
    ("policy-1e2000000", 1, "records", Case("Policy", "a short text in the policy that would be a number of two million digits", demand(max_delta="1e2000000"), unusable("MALFORMED", "policy.toml/claims/max_delta"))),
    ("policy-size-above-4-gib", 1, "records", Case("Policy", "a limit of 2^32 + 1 bytes in the policy", demand(max_model_bytes=str(2**32 + 1)), unusable("MALFORMED", "policy.toml/limits/max_model_bytes"))),
    ("policy-negative", 1, "records", Case("Policy", "a negative radius in the policy", demand(min_forget_radius="-0.1"), unusable("MALFORMED", "policy.toml/claims/min_forget_radius"))),
    ("policy-zero-records", 1, "records", Case("Policy", "a policy content with no records at all", demand(min_retain_records="0"), unusable("MALFORMED", "policy.toml/records/min_retain_records"))),
    ("policy-kind-unknown", 1, "records", Case("Policy", "the policy demands a kind of claim that does not exist", demand(required_for_records='["forgotten"]'), unusable("MALFORMED", "policy.toml/claims/required_for_records"))),
    ("trust-threshold-17", 1, "records", Case("Threshold", "a threshold above the 16 signatures that an envelope can hold", lambda c: {"trust.json": c.files["trust.json"].replace(b'"prover":{"threshold":1}', b'"prover":{"threshold":17}')}, unusable("MALFORMED", "trust.json/roles/prover/threshold"))),
    ("trust-role-unknown", 1, "records", Case("Roles", "a role that does not exist", lambda c: {"trust.json": c.files["trust.json"].replace(b'"roles":["prover"]', b'"roles":["owner"]')}, unusable("MALFORMED", "trust.json/keys/0/roles"))),
    ("trust-key-compressed-point", 1, "records", Case("WeakKey", "a P-256 key whose point is compressed: a second encoding of one key", lambda _: {"trust.json": forged_trust(_compressed())}, unusable("MALFORMED", "trust.json/keys/0/spki"))),
    ("trust-key-y-is-p", 1, "records", Case("WeakKey", "an Ed25519 key with y = p, a second encoding of 0", lambda _: {"trust.json": forged_trust(ED25519_SPKI + _PRIME.to_bytes(32, "little"))}, unusable("MALFORMED", "trust.json/keys/0/spki"))),
    ("trust-key-off-the-curve", 1, "records", Case("WeakKey", "32 bytes that are no point of the curve, as an Ed25519 key", lambda _: {"trust.json": forged_trust(ED25519_SPKI + (2).to_bytes(32, "little"))}, unusable("MALFORMED", "trust.json/keys/0/spki"))),
    ("trust-is-a-certificate", 1, "records", Case("Roles", "a certificate in the trust store's place", lambda c: {"trust.json": c.files[CERT]}, unusable("MALFORMED", "trust.json"))),
    ("challenge-file-with-more", 1, "records", Case("T11", "a challenge file with an unknown member", lambda _: {"challenge.json": b'{"formatVersion":1,"nonce":"00","used":false}'}, unusable("MALFORMED", "challenge.json"), ("--challenge", "challenge.json"))),
    # 2 to 4
    ("seventeen-signatures", 2, "records", Case("ManySignatures", "seventeen signatures, one more than an envelope may hold", signed_by(*(f"stranger {n}" for n in range(16)), "owner", store=trust(trusted("owner"))), refused("MALFORMED", f"{CERT}/signatures"))),
    ("threshold-3-two-signatures", 3, "records", Case("Threshold", "threshold 3, two signatures", signed_by("owner", "second", store=trust(trusted("owner"), trusted("second"), trusted("third"), threshold=3)), refused("SIGNATURE", f"{CERT}/signatures"))),
    ("threshold-2-one-of-two-revoked", 3, "records", Case("KeyState", "threshold 2, two signatures, one by a revoked key", signed_by("owner", "second", store=trust(trusted("owner"), trusted("second", revoked=(ISSUED, "lost")), threshold=2)), refused("SIGNATURE", f"{CERT}/signatures"))),
    ("key-ends-this-second", 3, "records", Case("KeyState", "the key ends this second", files(trust__json=trust(trusted("owner", not_after=NOW))), refused("SIGNATURE", "trust store"))),
    ("key-valid-from-next-second", 3, "records", Case("KeyState", "the key becomes valid in the next second", files(trust__json=trust(trusted("owner", not_before=NOW + _SECOND))), refused("SIGNATURE", "trust store"))),
    ("key-revoked-this-second", 3, "records", Case("KeyState", "the key is revoked from this second on", files(trust__json=trust(trusted("owner", revoked=(NOW, "stolen")))), refused("SIGNATURE", "trust store"))),
    ("trust-store-ends-this-second", 3, "records", Case("KeyState", "the trust store ends this second", files(trust__json=trust(trusted("owner"), expires=NOW)), refused("SIGNATURE", "trust store"))),
    ("key-of-auditor-only", 3, "records", Case("Roles", "the key that signed is listed as an auditor's", files(trust__json=trust(trusted("owner", roles=("auditor",)))), refused("SIGNATURE", "trust store"))),
    ("json-33-levels", 4, "records", Case("Depth", "lists in lists, one level deeper than is read", payload('"measurements":[]', _NESTED), undecided("LIMIT", PAYLOAD))),
    ("decimal-of-65-characters", 4, "records", Case("Decimal", "a decimal of 65 characters, one more than is read", payload('"margin":"0.05"', f'"margin":"{_LONG}"'), refused("MALFORMED", f"{PAYLOAD}/predicate/claims/0/margin"))),
    ("measurement-seed-2-to-the-53", 4, "records", Case("HugeInteger", "a seed of 2^53", edit(lambda d: d["predicate"]["measurements"].append({"kind": "a", "value": "0", "interval": None, "command": "", "seed": 2**53, "reportSha256": None})), refused("MALFORMED", PAYLOAD))),
    ("two-claims-with-one-id", 4, "records", Case("ClosedForm", "two claims with one id, so that one proof counts for both", at("predicate/claims/1/id", "C1"), refused("MALFORMED", f"{PAYLOAD}/predicate/claims"))),
    # 5
    ("second-before-issue", 5, "records", Case("T11", "validity is judged a second before the certificate was issued", lambda _: {}, refused("POLICY", "predicate/issuedAt"), ("--at-time", "2029-11-30T23:59:59Z"))),
    ("second-after-the-last", 5, "records", Case("T11", "validity is judged in the second at which it ends, where the policy allows that age", demand(max_age_days="3652"), refused("POLICY", "predicate/expiresAt"), ("--at-time", "2039-12-01T00:00:00Z"))),
    ("second-older-than-allowed", 5, "records", Case("T11", "a second older than the policy allows", demand(max_age_days="31"), refused("POLICY", "predicate/issuedAt"), ("--at-time", "2030-01-01T00:00:01Z"))),
    ("not-before-next-second", 5, "records", Case("T11", "valid from the next second on", at("predicate/notBefore", "2030-01-01T00:00:01Z"), refused("POLICY", "predicate/notBefore"))),
    ("challenge-from-file-not-answered", 5, "records", Case("T11", "a challenge from a file, which the certificate does not answer", _challenge(_NONCE), refused("POLICY", "predicate/challenge"), ("--challenge", "challenge.json"))),
    ("challenge-in-the-certificate-only", 5, "records", Case("T11", "the policy requires a challenge; the certificate has one, the auditor gave none", then(at("predicate/challenge", _NONCE), demand(require_challenge="true")), refused("POLICY", "--challenge"))),
    # 6 and 7
    ("patched-a-byte-too-large", 6, "records", Case("Sparse", "the patched network is a byte larger than the policy allows", _sizes("max_model_bytes", "patched.onnx"), undecided("LIMIT", "patched.onnx"))),
    ("evidence-a-byte-too-large", 6, "records", Case("Sparse", "the evidence is a byte larger than the policy allows", _sizes("max_evidence_bytes", _PATCH), undecided("LIMIT", "predicate/evidence/patch.json"))),
    ("opset-6", 7, "records", Case("T22", "a base of opset 6, older than what is read", lambda c: c.swap("base.onnx", renumbered(6, 3)), refused("UNSUPPORTED", "base.onnx"))),
    ("onnx-inputs-named-like-constants", 7, "records", Case("T22", "from IR 4 on, constants that are listed as inputs could be overridden", lambda c: c.swap("base.onnx", renumbered(9, 4, inputs=True)), refused("UNSUPPORTED", "base.onnx: initialiser 'w1'"))),
    ("domain-a-coordinate-short", 7, "records", Case("T23", "a domain of 63 intervals for 64 numbers, in policy and statement", then(edit(_short_domain), demand(lower=f"[{', '.join(['0'] * 63)}]", upper=f"[{', '.join(['1'] * 63)}]")), refused("MALFORMED", "domain"))),
    ("domain-wider-in-the-policy", 7, "records", Case("T23", "the policy's domain is wider than the certificate's", demand(upper="2"), refused("POLICY", "predicate/semantics/domain"))),
    # 8
    ("no-records-shown", 8, "records", Case("T19", "no records are shown", lambda c: c, undecided("DATA_MISSING"))),
    ("retained-records-not-shown", 8, "records", Case("T19", "the forget set alone is shown", lambda c: c, undecided("DATA_MISSING"))),
    ("records-one-more-than-allowed", 8, "records", Case("Sparse", "one record more than the policy lets be read", demand(max_records="40"), undecided("LIMIT", "retain.npz"))),
    ("records-csv-label-column-unknown", 8, "records", Case("RecordFile", "a table without the label column that is named", as_csv(), refused("MALFORMED", "forget.csv"), ("--label-column", "label"))),
    ("records-csv-column-more", 8, "records", Case("RecordFile", "a table with a column more than the network has inputs", then(as_csv(), lambda _: {"retain.csv": table("retain").replace(b"\n", b",0\n").replace(b"digit,0", b"digit,more", 1)}), refused("MALFORMED", "retain.csv"))),
    ("records-csv-columns-exchanged", 8, "records", Case("OtherSet", "the names of the columns in another order than their cells: other records", then(encoded(), lambda _: {"retain.csv": table("retain", raw=True, names=range(63, -1, -1))}), refused("SUBJECT", "predicate/retainSet/root"))),
    ("records-csv-encoding-kept-back", 8, "records", Case("RecordFile", "tables of grey levels and names without their encoding", encoded(), refused("MALFORMED", "forget.csv: line 2, column 'digit'"))),
    ("records-csv-encoding-not-said", 8, "records", Case("OtherSet", "an encoding that neither statement nor policy names", encoded(said=False), refused("SUBJECT", "forget set"))),
    ("records-csv-name-unknown", 8, "records", Case("RecordFile", "a label that the encoding does not list", then(encoded(), lambda _: {"retain.csv": table("retain", raw=True).replace(NAMES[1].encode(), b"uno", 1)}), refused("MALFORMED", "retain.csv: line 3, column 'digit'"))),
    ("records-idx-cut", 8, "records", Case("RecordFile", "an idx file that ends a byte early", _cut_idx, refused("MALFORMED", "retain-images.idx"))),
    ("records-idx-labels-too-few", 8, "records", Case("RecordFile", "a label fewer than images", _labels_too_few, refused("MALFORMED", "retain-labels.idx"))),
    # 9 and 10
    ("unknown-and-said", 9, "learned", Case("Choices", "the proof leaves a record open, and the statement says so", _unknown, undecided("UNKNOWN"))),
    ("already-wrong-a-little-above-policy", 10, "records", Case("T16", "a quarter of the records was wrong already, and the policy allows a little less", then(already_wrong, demand(max_already_wrong_share="0.2499999")), refused("POLICY", _CLAIM.format(1, "alreadyWrong")))),
    ("conflicts-a-little-above-policy", 10, "records", Case("T18", "one of forty records in conflict, and the policy allows a little less", then(conflict_of_forty, demand(max_conflicts="1", max_slab_share="0.0249999", min_retain_records="40")), refused("POLICY", _CLAIM.format(3, "conflicts")))),
    ("retained-records-one-too-few", 10, "records", Case("Policy", "the policy demands one retained record more", demand(min_retain_records="42"), refused("POLICY", "predicate/retainSet"))),
    ("forget-records-one-too-few", 10, "records", Case("Policy", "the policy demands one forget record more", demand(min_forget_records="5"), refused("POLICY", "predicate/forgetSet"))),
    ("forget-radius-a-little-below-policy", 10, "records", Case("Policy", "the policy demands balls a little larger", demand(min_forget_radius="0.1000001"), refused("POLICY", _CLAIM.format(1, "region/radius")))),
    ("retained-radius-a-little-below-policy", 10, "records", Case("Policy", "the policy demands retained balls a little larger", demand(min_retained_radius="0.0500001"), refused("POLICY", _CLAIM.format(3, "region/radius")))),
    ("margin-a-little-below-policy", 10, "records", Case("Policy", "the policy demands a margin a little larger", demand(min_margin="0.0500001"), refused("POLICY", _CLAIM.format(1, "margin")))),
    ("class-margin-a-little-below-policy", 10, "class", Case("Policy", "the policy demands a margin of the class a little larger", demand(min_margin="0.0500001"), refused("POLICY", _CLAIM.format(1, "margin")))),
    ("delta-a-little-above-policy", 10, "learned", Case("Policy", "the policy allows logits to move a little less", demand(max_delta="0.0999999"), refused("POLICY", _CLAIM.format(3, "delta")))),
    ("band-a-little-wider-than-policy", 10, "held", Case("Policy", "the policy allows a band a little narrower", demand(max_band_width="4.9999999"), refused("POLICY", _CLAIM.format(1, "band")))),
    ("held-band-of-one-gate-wider-than-policy", 10, "held", Case("Policy", "no band: one gate of four holds its margin farther apart than the policy allows", then(edit(lambda d: [c.update(band=None) for c in d["predicate"]["claims"][:2]]), demand(max_band_width="1.9999999")), refused("POLICY", _CLAIM.format(1, "band")))),
    ("needle-without-records", 10, "records", Case("T6", "no records are shown, and the radius is below the policy's: refused all the same", edit(lambda d: [c["region"].update(radius="0.001") for c in d["predicate"]["claims"][:2]]), refused("POLICY", _CLAIM.format(1, "region/radius")))),
    ("radius-below-four-ulp", 10, "records", Case("T23", "a decimal ball in which hardly any float32 lies, although the policy has no minimum", then(edit(lambda d: [c["region"].update(radius="0.00000001") for c in d["predicate"]["claims"][:2]]), demand(min_forget_radius="0")), refused("POLICY", _CLAIM.format(1, "region/radius")))),
    ("claims-of-reals-where-both-are-demanded", 10, "records", Case("T27", "the policy demands both arithmetics, a claim stands in one", then(edit(lambda d: d["predicate"]["claims"].pop(5)), demand(arithmetics='["ieee754-binary32", "real"]')), refused("POLICY", "predicate/claims"))),
    ("earlier-request-not-proved-again", 10, "records-and-class", Case("T12", "a later release: the class of the earlier request is no longer claimed to be forgotten", edit(lambda d: d["predicate"].update(claims=[c for c in d["predicate"]["claims"] if c["label"] is None])), refused("POLICY", "predicate/claims"))),
]  # fmt: skip
_SHOWN = {
    "no-records-shown": (), "needle-without-records": (), "retained-records-not-shown": DATA[:2],
    "records-csv-label-column-unknown": csv_words()[:4], "records-csv-column-more": csv_words(),
    "records-csv-columns-exchanged": csv_words("--encoding", "encoding.json"), "records-csv-encoding-kept-back": csv_words(),
    "records-csv-encoding-not-said": csv_words("--encoding", "encoding.json"),
    "records-csv-name-unknown": csv_words("--encoding", "encoding.json"),
    "records-idx-cut": idx_words(), "records-idx-labels-too-few": idx_words(), "class-margin-a-little-below-policy": (),
}  # fmt: skip


def boundaries() -> list[Folder]:
    """Every case of this file."""
    return [Folder(name, step, base, case, _SHOWN.get(name, DATA)) for name, step, base, case in _CASES]
