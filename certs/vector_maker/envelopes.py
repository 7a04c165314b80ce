"""Vectors about envelopes and keys: who signed which bytes (THREATS section 2, first paragraph)."""

# ruff: noqa: E501 - a row of a table of vectors is one line

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from certs.vector_maker.cases import CERT, OK, PAYLOAD, Build, Case, Note, at, edit, files, refused, unusable
from certs.vector_maker.expressions import Expression, join, repeat
from certs.vector_maker.owner import Chain, key, sign, signature, trust, trusted
from prune_verify.checker.encoding import canonical_json
from prune_verify.checker.envelope import PAYLOAD_TYPE, _decoded, _plus, pae
from prune_verify.signing import public_half

__all__ = ["CASES", "ED25519_SPKI", "NOTES", "forged_trust"]

ED25519_SPKI = bytes.fromhex("302a300506032b6570032100")
_ORDER_25519 = 2**252 + 27742317777372353535851937790883648493
_ORDER_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_ORDER_8 = bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")
_PRIME = 2**255 - 19


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _envelope(change: Callable[[dict[str, Any]], object]) -> Build:
    """Change the envelope after it was signed."""

    def build(chain: Chain) -> dict[str, bytes]:
        envelope = json.loads(chain.files[CERT])
        change(envelope)
        return {CERT: canonical_json(envelope)}

    return build


def _signature(change: Callable[[dict[str, Any], Chain], object]) -> Build:
    """Change the first signature of the envelope."""

    def build(chain: Chain) -> dict[str, bytes]:
        envelope = json.loads(chain.files[CERT])
        change(envelope["signatures"][0], chain)
        return {CERT: canonical_json(envelope)}

    return build


def _over(message: Callable[[bytes], bytes], change: Callable[[dict[str, Any]], object] = lambda _: None) -> Build:
    """The owner's signature over other bytes than the PAE of the payload."""

    def build(chain: Chain) -> dict[str, bytes]:
        document = chain.statement()
        change(document)
        data = chain.put(document).files["statement.json"]
        envelope = json.loads(chain.files[CERT])
        envelope["signatures"][0]["sig"] = _b64(signature(message(data), key("owner")))
        return {CERT: canonical_json(envelope)}

    return build


def _signed_by(*names: str, **changed: bytes) -> Build:
    """The honest payload signed by others, with another trust store beside it where given."""

    def build(chain: Chain) -> dict[str, bytes]:
        keys = [key(name, "p256" if name.startswith("ecdsa") else "ed25519") for name in names]
        found = {CERT: sign(chain.files["statement.json"], *keys)}
        return found | {name.replace("_", "."): data for name, data in changed.items()}

    return build


def _characters(data: bytes) -> bytes:
    """The PAE of a signer who counts characters instead of bytes."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(data.decode()), data)


def forged_trust(spki: bytes, **members: object) -> bytes:
    """A trust store that lists one key, whatever it is."""
    document = json.loads(trust(trusted("owner")))
    document["keys"][0] |= {"spki": _b64(spki)} | members
    return canonical_json(document)


def _weak_key(raw: bytes) -> Build:
    """A key that verifies anything is in the store; the signature is R = identity, S = 0."""

    def build(chain: Chain) -> dict[str, bytes]:
        envelope = json.loads(chain.files[CERT])
        spki = ED25519_SPKI + raw
        envelope["signatures"] = [{"keyid": sha256(spki).hexdigest(), "sig": _b64(bytes([1]) + bytes(63))}]
        return {CERT: canonical_json(envelope), "trust.json": forged_trust(spki)}

    return build


def _with_torsion() -> bytes:
    """The owner's key plus a point of order 8."""
    raw = public_half(key("owner")).spki[-32:]
    one, other = _decoded(raw), _decoded(_ORDER_8)
    if one is None or other is None:
        raise ValueError(raw)
    x, y = _plus(one, other)
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _plus_order(item: dict[str, Any], _: Chain) -> None:
    data = base64.b64decode(item["sig"])
    number = int.from_bytes(data[32:], "little") + _ORDER_25519
    item["sig"] = _b64(data[:32] + number.to_bytes(32, "little"))


def _ecdsa(change: Callable[[bytes], bytes]) -> Build:
    """Signed by an ECDSA key, the signature changed."""

    def build(chain: Chain) -> dict[str, bytes]:
        envelope = json.loads(sign(chain.files["statement.json"], key("ecdsa owner", "p256")))
        item = envelope["signatures"][0]
        item["sig"] = _b64(change(base64.b64decode(item["sig"])))
        store = trust(trusted("ecdsa owner", kind="p256"))
        return {CERT: canonical_json(envelope), "trust.json": store}

    return build


def _twin(data: bytes) -> bytes:
    r, s = decode_dss_signature(data)
    return encode_dss_signature(r, _ORDER_P256 - s)


def _ber(data: bytes) -> bytes:
    """The same two numbers, the outer length in the long form."""
    return data[:1] + b"\x81" + data[1:]


def _tail(text: str) -> str:
    """The same bytes with another unused bit at the end."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    body = text.rstrip("=")
    if body == text:
        raise ValueError(text[-4:])
    return body[:-1] + alphabet[alphabet.index(body[-1]) + 1] + "=" * (len(text) - len(body))


def _loose_payload(change: Callable[[str], str]) -> Build:
    """The payload's base64 in another spelling; the honest payload's length leaves unused bits."""

    def build(chain: Chain) -> dict[str, bytes]:
        envelope = json.loads(chain.files[CERT])
        envelope["payload"] = change(envelope["payload"])
        return {CERT: canonical_json(envelope)}

    return build


def _url_safe(chain: Chain) -> dict[str, bytes]:
    """A signature whose base64 needs the last two letters of the alphabet, in the other alphabet."""
    document = chain.statement()
    while True:
        envelope = json.loads(chain.put(document).files[CERT])
        found = envelope["signatures"][0]["sig"]
        if "+" in found or "/" in found:
            break
        document["predicate"]["request"]["reference"] += "."
    envelope["signatures"][0]["sig"] = found.replace("+", "-").replace("/", "_")
    return {CERT: canonical_json(envelope)}


def _many_signatures(chain: Chain) -> dict[str, Expression]:
    data = chain.files[CERT]
    start = data.index(b'"signatures":[') + len(b'"signatures":[')
    one = data[start : data.index(b"}]}") + 1]
    base: Expression = {"base": CERT, "edits": [{"offset": start, "delete": len(data) - start, "insert": {"text": ""}}]}
    return {CERT: join(base, repeat(one + b",", 99_999), one + b"]}")}


def _twice(envelope: dict[str, Any]) -> None:
    envelope["signatures"] *= 2


def _two_ids(chain: Chain) -> dict[str, bytes]:
    envelope = json.loads(chain.files[CERT])
    first = envelope["signatures"][0]
    envelope["signatures"].append({"keyid": public_half(key("other")).keyid, "sig": first["sig"]})
    store = trust(trusted("owner"), trusted("second"), threshold=2)
    return {CERT: canonical_json(envelope), "trust.json": store}


def _bad_then_good(chain: Chain) -> dict[str, bytes]:
    data = chain.files["statement.json"]
    envelope = json.loads(sign(data, key("second"), key("owner")))
    envelope["signatures"][0]["sig"] = _b64(signature(pae(PAYLOAD_TYPE, data + b" "), key("second")))
    return {CERT: canonical_json(envelope), "trust.json": trust(trusted("owner"), trusted("second"))}


def _key_inside(envelope: dict[str, Any]) -> None:
    envelope["signatures"][0]["publicKey"] = _b64(public_half(key("owner")).spki)


def _threshold(value: int) -> Build:
    def build(chain: Chain) -> dict[str, bytes]:
        document = json.loads(chain.files["trust.json"])
        document["roles"]["prover"]["threshold"] = value
        return {"trust.json": canonical_json(document)}

    return build


def _digest(value: object) -> Build:
    return at("subject/0/digest", value)


def _sha(change: Callable[[str], str]) -> Build:
    def build(document: dict[str, Any]) -> None:
        digest = document["subject"][0]["digest"]
        digest["sha256"] = change(digest["sha256"])

    return edit(build)


_THEN, _LATER = datetime(2029, 12, 15, tzinfo=UTC), datetime(2031, 1, 1, tzinfo=UTC)
_P384 = bytes.fromhex("3076301006072a8648ce3d020106052b81040022036200")
_SECOND = trust(trusted("owner"), trusted("second"), threshold=2)
_DIGEST = f"{PAYLOAD}/subject/0/digest"
_KEY = "trust.json/keys/0/spki"
_VERDICT = "https://prune-verify.example/verdict/v1"


def _p384_point() -> bytes:
    """A key on P-384, from a fixed number."""
    from cryptography.hazmat.primitives.asymmetric import ec

    found = ec.derive_private_key(7, ec.SECP384R1()).public_key()
    return found.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


CASES = [
    Case("Honest", "the honest certificate", lambda c: c, OK),
    Case("Honest", "signed by an ECDSA P-256 key", _signed_by("ecdsa owner", trust_json=trust(trusted("ecdsa owner", kind="p256"))), OK),
    Case("Honest", "threshold 2, two keys signed", _signed_by("owner", "second", trust_json=_SECOND), OK),
    Case("Honest", "a signature by somebody unknown beside a good one", _signed_by("stranger", "owner"), OK),
    Case("NoPae", "the signature is over the payload without PAE", _over(lambda data: data), refused("SIGNATURE", f"{CERT}/signatures/0")),
    Case("NoPae", "the signature is over the PAE of the payload's base64", _over(lambda data: pae(PAYLOAD_TYPE, base64.b64encode(data))), refused("SIGNATURE", f"{CERT}/signatures/0")),
    Case("PayloadType", "the payload type is another one than was signed", _envelope(lambda e: e.update(payloadType="text/plain")), refused("SIGNATURE", f"{CERT}/signatures/0")),
    Case("PayloadType", "another payload type, signed", lambda c: {CERT: sign(c.files["statement.json"], key("owner"), payload_type="application/json")}, refused("UNSUPPORTED", f"{CERT}/payloadType")),
    Case("CharacterLength", "PAE with lengths in characters, over a payload with a character of two bytes", _over(_characters, lambda d: d["subject"][0].update(name="modèle.onnx")), refused("SIGNATURE", f"{CERT}/signatures/0")),
    Case("PredicateType", "another predicate type", at("predicateType", "https://slsa.dev/provenance/v1"), refused("UNSUPPORTED", f"{PAYLOAD}/predicateType")),
    Case("PredicateType", "the predicate type of version 2", at("predicateType", "https://prune-verify.example/unlearning-certificate/v2"), refused("UNSUPPORTED", f"{PAYLOAD}/predicateType")),
    Case("PredicateType", "another statement type", at("_type", "https://in-toto.io/Statement/v0.1"), refused("UNSUPPORTED", f"{PAYLOAD}/_type")),
    Case("KeyId", "the keyid of another key", _signature(lambda s, _: s.update(keyid=public_half(key("second")).keyid)), refused("KEYID", f"{CERT}/signatures/0/keyid")),
    Case("KeyId", "an empty keyid", _signature(lambda s, _: s.update(keyid="")), refused("MALFORMED", f"{CERT}/signatures/0/keyid")),
    Case("KeyId", "no keyid", _signature(lambda s, _: s.pop("keyid")), refused("MALFORMED", f"{CERT}/signatures/0")),
    Case("KeyId", "an upper-case keyid", _signature(lambda s, _: s.update(keyid=s["keyid"].upper())), refused("MALFORMED", f"{CERT}/signatures/0/keyid")),
    Case("KeyIdTwice", "the same signature twice", _envelope(_twice), refused("KEYID", f"{CERT}/signatures")),
    Case("OneKeyTwoIds", "threshold 2, one key's signature under two keyids", _two_ids, refused("KEYID", f"{CERT}/signatures/1/keyid")),
    Case("OneKeyTwoIds", "a trust store that lists one key under two names", files(trust__json=trust(trusted("owner"), trusted("owner"), threshold=2)), unusable("MALFORMED", "trust.json/keys")),
    Case("Threshold", "threshold 2, one signature", files(trust__json=_SECOND), refused("SIGNATURE", f"{CERT}/signatures")),
    Case("Threshold", "threshold 0", _threshold(0), unusable("MALFORMED", "trust.json/roles/prover/threshold")),
    Case("Threshold", "threshold -1", _threshold(-1), unusable("MALFORMED", "trust.json/roles/prover/threshold")),
    Case("NoSignature", "an empty list of signatures", _envelope(lambda e: e.update(signatures=[])), refused("MALFORMED", f"{CERT}/signatures")),
    Case("NoSignature", "no member signatures", _envelope(lambda e: e.pop("signatures")), refused("MALFORMED", CERT)),
    Case("NoSignature", "an empty signature", _signature(lambda s, _: s.update(sig="")), refused("SIGNATURE", f"{CERT}/signatures/0")),
    Case("ManySignatures", "100,000 signatures", _many_signatures, refused("MALFORMED", f"{CERT}/signatures")),
    Case("BadThenGood", "a bad signature under a trusted keyid, then a good one", _bad_then_good, refused("SIGNATURE", f"{CERT}/signatures/0")),
    Case("Roles", "signed by the auditor's key", _signed_by("auditor"), refused("SIGNATURE", f"{CERT}/signatures")),
    Case("Roles", "a verdict, signed by the owner, in a certificate's place", at("predicateType", _VERDICT), refused("UNSUPPORTED", f"{PAYLOAD}/predicateType")),
    Case("OtherOwner", "signed by another owner's key, which the store does not list", _signed_by("other owner"), refused("SIGNATURE", f"{CERT}/signatures")),
    Case("KeyInside", "the key is shipped in the signature", _envelope(_key_inside), refused("MALFORMED", f"{CERT}/signatures/0")),
    Case("KeyInside", "the key is shipped in the envelope", _envelope(lambda e: e.update(publicKey="AAAA")), refused("MALFORMED", CERT)),
    Case("KeyState", "the only key is revoked", files(trust__json=trust(trusted("owner", revoked=(_THEN, "stolen")))), refused("SIGNATURE", "trust store")),
    Case("KeyState", "the key is revoked, another one is not", files(trust__json=trust(trusted("owner", revoked=(_THEN, "stolen")), trusted("second"))), refused("SIGNATURE", f"{CERT}/signatures")),
    Case("KeyState", "the key will be revoked later", files(trust__json=trust(trusted("owner", revoked=(_LATER, "stolen")))), OK),
    Case("KeyState", "the key has expired", files(trust__json=trust(trusted("owner", not_after=_THEN))), refused("SIGNATURE", "trust store")),
    Case("KeyState", "the key is not yet valid", files(trust__json=trust(trusted("owner", not_before=_LATER))), refused("SIGNATURE", "trust store")),
    Case("KeyState", "the trust store itself has expired", files(trust__json=trust(trusted("owner"), expires=_THEN)), refused("SIGNATURE", "trust store")),
    Case("WeakKey", "the identity as Ed25519 key: it verifies any message", _weak_key(bytes([1]) + bytes(31)), unusable("SIGNATURE", _KEY)),
    Case("WeakKey", "an Ed25519 key of order 2", _weak_key((_PRIME - 1).to_bytes(32, "little")), unusable("SIGNATURE", _KEY)),
    Case("WeakKey", "an Ed25519 key of order 4", _weak_key(bytes(32)), unusable("SIGNATURE", _KEY)),
    Case("WeakKey", "an Ed25519 key of order 8", _weak_key(_ORDER_8), unusable("SIGNATURE", _KEY)),
    Case("WeakKey", "an Ed25519 key with a torsion part", lambda _: {"trust.json": forged_trust(ED25519_SPKI + _with_torsion())}, unusable("SIGNATURE", _KEY)),
    Case("WeakKey", "the identity in a second encoding, y = p + 1", _weak_key((_PRIME + 1).to_bytes(32, "little")), unusable("MALFORMED", _KEY)),
    Case("WeakKey", "the identity in a second encoding, x = -0", _weak_key(bytes([1]) + bytes(30) + bytes([128])), unusable("MALFORMED", _KEY)),
    Case("WeakKey", "a key on another curve", lambda _: {"trust.json": forged_trust(_p384_point())}, unusable("UNSUPPORTED", _KEY)),
    Case("WeakKey", "bytes that are no key", lambda _: {"trust.json": forged_trust(b"key")}, unusable("MALFORMED", _KEY)),
    Case("Malleable", "the ECDSA twin (r, n - s): the identity is the payload's digest", _ecdsa(_twin), OK),
    Case("Malleable", "an ECDSA signature with a length in the long form", _ecdsa(_ber), refused("SIGNATURE", f"{CERT}/signatures/0")),
    Case("Malleable", "an Ed25519 signature with S + L", _signature(_plus_order), refused("SIGNATURE", f"{CERT}/signatures/0")),
    Case("Base64", "unused bits at the end of a signature's base64", _signature(lambda s, _: s.update(sig=_tail(s["sig"]))), refused("MALFORMED", f"{CERT}/signatures/0/sig")),
    Case("Base64", "unused bits at the end of the payload's base64", _loose_payload(_tail), refused("MALFORMED", PAYLOAD)),
    Case("Base64", "the payload's base64 without padding", _loose_payload(lambda t: t.rstrip("=")), refused("MALFORMED", PAYLOAD)),
    Case("Base64", "a line break in the payload's base64", _loose_payload(lambda t: t[:76] + "\n" + t[76:]), refused("MALFORMED", PAYLOAD)),
    Case("Base64", "the URL-safe alphabet", _url_safe, refused("MALFORMED", f"{CERT}/signatures/0/sig")),
    Case("Digest", "a truncated digest", _sha(lambda d: d[:-2]), refused("MALFORMED", f"{_DIGEST}/sha256")),
    Case("Digest", "an upper-case digest", _sha(str.upper), refused("MALFORMED", f"{_DIGEST}/sha256")),
    Case("Digest", "a digest of odd length", _sha(lambda d: d[:-1]), refused("MALFORMED", f"{_DIGEST}/sha256")),
    Case("Digest", "a digest of a weak algorithm only", _digest({"sha1": "da39a3ee5e6b4b0d3255bfef95601890afd80709"}), refused("MALFORMED", _DIGEST)),
    Case("Digest", "one good digest and one bad", edit(lambda d: d["subject"][0]["digest"].update(sha512="00" * 64)), refused("MALFORMED", _DIGEST)),
]  # fmt: skip

NOTES = {
    "Honest": Note("NONE", "none", "Nothing: a checker that refuses these refuses what is right."),
    "NoPae": Note("SIGNATURE", "2 envelope: body signed without PAE", "A signature over something else than type and payload together counts: one kind of file passes for another."),
    "PayloadType": Note("SIGNATURE", "2 envelope: payloadType swapped", "The signed bytes are read as another kind of document."),
    "CharacterLength": Note("SIGNATURE", "2 envelope: length in characters instead of bytes", "Two different payloads share one signed message."),
    "PredicateType": Note("CONFUSION", "2 envelope: wrong predicateType", "A statement of another meaning is read as a certificate."),
    "KeyId": Note("SIGNATURE", "2 envelope: keyid wrong, empty, missing", "The keyid names a key that did not sign, and is reported as the signer."),
    "KeyIdTwice": Note("SIGNATURE", "2 envelope: keyid duplicated", "One signature is counted twice."),
    "OneKeyTwoIds": Note("SIGNATURE", "2 envelope: one key under two ids reaching a threshold of two", "One key reaches a threshold of two (TUF, CVE-2020-6174)."),
    "Threshold": Note("SIGNATURE", "2 envelope: threshold 0 or negative", "A certificate that nobody, or too few, signed is accepted (go-tuf, CVE-2026-23992)."),
    "NoSignature": Note("SIGNATURE", "2 envelope: no signature", "A loop over no signatures finds no bad one."),
    "ManySignatures": Note("RESOURCES", "2 envelope: 10^5 signatures", "Each signature costs a verification: the checker is kept busy for hours."),
    "BadThenGood": Note("SIGNATURE", "2 envelope: first bad then good", "A forged signature of a trusted signer is passed over because another one is good."),
    "Roles": Note("CONFUSION", "2 envelope: roles confused", "Whoever may sign verdicts may sign certificates, or the reverse."),
    "OtherOwner": Note("SIGNATURE", "2 envelope: key of owner A on owner B's model", "Anybody with a key certifies anybody's model."),
    "KeyInside": Note("SIGNATURE", "2 envelope: key shipped inside the file", "The file brings the key that it is verified with."),
    "KeyState": Note("SIGNATURE", "2 envelope: revoked, expired, not yet valid", "A stolen or retired key goes on signing."),
    "WeakKey": Note("SIGNATURE", "2 envelope: small-order Ed25519 keys", "A key that verifies any message, or has several encodings and so several keyids, enters the store."),
    "Malleable": Note("SIGNATURE", "2 envelope: ECDSA (r, n-s) twin accepted, so identity is the payload digest", "A second spelling of a signature, or of a certificate's identity, passes for a new certificate."),
    "Base64": Note("PARSING", "2 envelope: base64 with non-canonical tail", "Two files have one payload: what is named by digest is not what was signed."),
    "Digest": Note("PARSING", "2 envelope: digest truncated, upper-case, odd length, weak algorithm, one good and one bad", "A digest that another file shares, or that is not compared, binds nothing."),
}  # fmt: skip
