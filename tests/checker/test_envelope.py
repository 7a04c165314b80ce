"""Envelopes: who signed what. Each refusal is pinned by error type and path; published vectors agree."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from prune_verify.checker.encoding import canonical_json
from prune_verify.checker.envelope import (
    PAYLOAD_TYPE,
    Envelope,
    PublicKey,
    emit_envelope,
    load_public_key,
    open_envelope,
    pae,
    parse_envelope,
)
from prune_verify.checker.errors import (
    CheckError,
    KeyIdError,
    MalformedInputError,
    SignatureError,
    UnsupportedVersionError,
)
from prune_verify.checker.policy import ROLES, TrustedKey, TrustStore
from prune_verify.signing import public_half, sign_payload

PAYLOAD = b'{"hello":"w\xc3\xb6rld"}'
ONE, TWO, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2, 3))
P256 = ec.derive_private_key(7, ec.SECP256R1())
DER, SPKI = Encoding.DER, PublicFormat.SubjectPublicKeyInfo


def trusted(*keys) -> dict:
    return {public_half(k).keyid: (public_half(k), f"signer {n}") for n, k in enumerate(keys)}


def test_pae_counts_bytes_not_characters() -> None:
    assert pae("application/vnd.in-toto+json", "ö".encode()) == b"DSSEv1 28 application/vnd.in-toto+json 2 \xc3\xb6"


@pytest.mark.parametrize("key", [ONE, P256], ids=["Ed25519", "ECDSA P-256"])
def test_a_signature_by_a_trusted_key_opens(key) -> None:
    opened = open_envelope(sign_payload(PAYLOAD, key), "e", trusted(key), 1)
    assert opened.payload == PAYLOAD
    assert opened.signers == ((public_half(key).keyid, "signer 0"),)


def test_two_signers_reach_a_threshold_of_two_and_one_does_not() -> None:
    first = sign_payload(PAYLOAD, ONE)
    both = sign_payload(PAYLOAD, TWO, parse_envelope(first, "e").signatures)
    assert len(open_envelope(both, "e", trusted(ONE, TWO), 2).signers) == 2
    with pytest.raises(SignatureError) as caught:
        open_envelope(first, "e", trusted(ONE, TWO), 2)
    assert (caught.value.path, caught.value.expected, caught.value.got) == ("e/signatures", "at least 2", "1")


def test_unknown_signers_do_not_count_but_do_no_harm() -> None:
    data = sign_payload(PAYLOAD, ONE, parse_envelope(sign_payload(PAYLOAD, OTHER), "e").signatures)
    assert len(open_envelope(data, "e", trusted(ONE), 1).signers) == 1


def test_a_key_of_another_role_does_not_count() -> None:
    """Role confusion: the prover signs a verdict, the auditor signs a certificate."""
    now = datetime(2026, 6, 1, tzinfo=UTC)
    start, end = now - timedelta(days=1), now + timedelta(days=1)
    owner, auditor = (
        TrustedKey(public_half(key), role, (role,), start, end) for key, role in ((ONE, "prover"), (TWO, "auditor"))
    )
    store = TrustStore(1, end, (owner, auditor), dict.fromkeys(ROLES, 1))
    for signer, role, other in ((ONE, "prover", "auditor"), (TWO, "auditor", "prover")):
        data = sign_payload(PAYLOAD, signer)
        assert open_envelope(data, "e", *store.keys_for(role, now)).signers == ((public_half(signer).keyid, role),)
        with pytest.raises(SignatureError) as caught:
            open_envelope(data, "e", *store.keys_for(other, now))
        assert (caught.value.path, caught.value.got) == ("e/signatures", "0")


@pytest.mark.parametrize("key", [ONE, P256], ids=["Ed25519", "ECDSA P-256"])
def test_every_byte_changed_in_turn_is_refused(key) -> None:
    data, keys = sign_payload(PAYLOAD, key), trusted(key)
    open_envelope(data, "e", keys, 1)
    for place in range(len(data)):
        for mask in (1, 0x20, 0x80):
            changed = bytearray(data)
            changed[place] ^= mask
            with pytest.raises(CheckError):
                open_envelope(bytes(changed), "e", keys, 1)
        with pytest.raises(CheckError):
            open_envelope(data[:place], "e", keys, 1)


def envelope(**changed: object) -> bytes:
    value = json.loads(sign_payload(PAYLOAD, ONE)) | changed
    return canonical_json(value)


def signature(**changed: object) -> bytes:
    value = json.loads(sign_payload(PAYLOAD, ONE))
    value["signatures"][0] |= changed
    return canonical_json(value)


def bare() -> bytes:
    """The body signed without PAE."""
    return emit_envelope(Envelope(PAYLOAD_TYPE, PAYLOAD, ((public_half(ONE).keyid, ONE.sign(PAYLOAD)),)))


def retyped() -> bytes:
    """A good signature over another payload type."""
    kind = "application/json"
    return emit_envelope(Envelope(kind, PAYLOAD, ((public_half(ONE).keyid, ONE.sign(pae(kind, PAYLOAD))),)))


GOOD = sign_payload(PAYLOAD, ONE)
SIGNATURE = json.loads(GOOD)["signatures"][0]
ROWS = [
    ("signed without PAE", bare(), SignatureError, "e/signatures/0"),
    ("payload type swapped", envelope(payloadType="text/plain"), SignatureError, "e/signatures/0"),
    ("another payload type, signed", retyped(), UnsupportedVersionError, "e/payloadType"),
    ("another payload", envelope(payload=base64.b64encode(b"{}").decode()), SignatureError, "e/signatures/0"),
    ("no signature", envelope(signatures=[]), MalformedInputError, "e/signatures"),
    ("17 signatures", envelope(signatures=[SIGNATURE] * 17), MalformedInputError, "e/signatures"),
    ("one keyid twice", envelope(signatures=[SIGNATURE, SIGNATURE]), KeyIdError, "e/signatures"),
    ("a keyid of another key", signature(keyid="0" * 64), KeyIdError, "e/signatures/0/keyid"),
    ("an empty keyid", signature(keyid=""), MalformedInputError, "e/signatures/0/keyid"),
    ("an upper-case keyid", signature(keyid=SIGNATURE["keyid"].upper()), MalformedInputError, "e/signatures/0/keyid"),
    ("a key shipped inside", signature(cert="x"), MalformedInputError, "e/signatures/0"),
    ("a member too many", envelope(valid=True), MalformedInputError, "e"),
    ("a loose base64 tail", signature(sig=SIGNATURE["sig"][:-3] + "B=="), MalformedInputError, "e/signatures/0/sig"),
    ("base64 with a line break", envelope(payload="aGVs\nbG8="), MalformedInputError, "e/payload"),
    ("URL-safe base64", envelope(payload="-_-_"), MalformedInputError, "e/payload"),
    ("a signature of another length", signature(sig="AAAA"), SignatureError, "e/signatures/0"),
    ("another spelling of the file", GOOD.replace(b",", b", ", 1), MalformedInputError, "e"),
    ("a byte after the end", GOOD + b"\n", MalformedInputError, "e"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "data", "error", "path"), ROWS, ids=[row[0] for row in ROWS])
def test_refusals(sentence: str, data: bytes, error: type[CheckError], path: str) -> None:
    with pytest.raises(error) as caught:
        open_envelope(data, "e", trusted(ONE), 1)
    assert caught.value.path == path


@pytest.mark.parametrize("threshold", [0, -1])
def test_a_threshold_below_one_asks_for_one(threshold: int) -> None:
    with pytest.raises(SignatureError):
        open_envelope(GOOD, "e", trusted(TWO), threshold)


def test_a_bad_signature_by_a_trusted_key_is_not_made_good_by_another() -> None:
    wrong = (public_half(ONE).keyid, ONE.sign(b"something else"))
    data = sign_payload(PAYLOAD, TWO, (wrong,))
    with pytest.raises(SignatureError) as caught:
        open_envelope(data, "e", trusted(ONE, TWO), 1)
    assert caught.value.path == "e/signatures/0"


@given(st.binary(max_size=300))
def test_any_bytes_give_an_envelope_or_a_check_error(data: bytes) -> None:
    try:
        found = parse_envelope(data, "e")
    except CheckError:
        return
    assert emit_envelope(found) == data


# --- keys ---

PRIME = 2**255 - 19
ED25519_DER = bytes.fromhex("302a300506032b6570032100")
# y of the points of order 1, 2, 4 and 8, with the sign bit where x may be odd (RFC 8032; RFC 7748 section 7)
EIGHT = 2707385501144840649318225287225658788936804267575313519463743609750303021951
SMALL = [1, PRIME - 1, 0, EIGHT, PRIME - EIGHT, EIGHT + 2**255, PRIME - EIGHT + 2**255, 2**255]


@pytest.mark.parametrize("number", SMALL)
def test_points_of_small_order_are_refused(number: int) -> None:
    with pytest.raises(SignatureError) as caught:
        load_public_key(ED25519_DER + number.to_bytes(32, "little"), "k")
    assert caught.value.rule == "Ed25519 key"


def test_a_point_with_a_torsion_part_is_refused() -> None:
    from prune_verify.checker import envelope as module

    raw = ONE.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    point, torsion = module._decoded(raw), (0, PRIME - 1)
    x, y = module._plus(point, torsion)
    mixed = (y + ((x & 1) << 255)).to_bytes(32, "little")
    with pytest.raises(SignatureError):
        load_public_key(ED25519_DER + mixed, "k")


POINT = P256.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
COMPRESSED = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200") + POINT
KEYS = [
    ("a coordinate above the prime", ED25519_DER + (PRIME + 1).to_bytes(32, "little"), MalformedInputError),
    ("bytes that are no point", ED25519_DER + (2).to_bytes(32, "little"), MalformedInputError),
    ("RSA", rsa.generate_private_key(65537, 2048).public_key().public_bytes(DER, SPKI), UnsupportedVersionError),
    ("Ed448", ed448.Ed448PrivateKey.generate().public_key().public_bytes(DER, SPKI), UnsupportedVersionError),
    ("P-384", ec.derive_private_key(7, ec.SECP384R1()).public_key().public_bytes(DER, SPKI), UnsupportedVersionError),
    ("P-256 with a compressed point", COMPRESSED, MalformedInputError),
    ("a private key", ONE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), MalformedInputError),
    ("nothing", b"", MalformedInputError),
    ("DER with a byte after it", ONE.public_key().public_bytes(DER, SPKI) + b"\0", MalformedInputError),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "data", "error"), KEYS, ids=[row[0] for row in KEYS])
def test_keys_that_are_refused(sentence: str, data: bytes, error: type[CheckError]) -> None:
    with pytest.raises(error) as caught:
        load_public_key(data, "k")
    assert caught.value.path == "k"


def test_a_key_of_another_algorithm_verifies_nothing() -> None:
    """load_public_key makes no such key; one made by hand accepts no signature, not even its own."""
    rsa_key = rsa.generate_private_key(65537, 2048)
    spki = rsa_key.public_key().public_bytes(DER, SPKI)
    signed = rsa_key.sign(PAYLOAD, PKCS1v15(), SHA256())
    assert not PublicKey("0" * 64, "rsa", spki).verifies(PAYLOAD, signed)


def test_pem_and_der_give_one_keyid() -> None:
    key = ONE.public_key()
    assert load_public_key(key.public_bytes(Encoding.PEM, SPKI), "k") == load_public_key(
        key.public_bytes(DER, SPKI), "k"
    )


@given(
    st.sampled_from([key.public_key().public_bytes(form, SPKI) for key in (ONE, P256) for form in (DER, Encoding.PEM)]),
    st.data(),
)
def test_any_bytes_give_a_key_or_a_check_error(good: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(good)))
    changed = good[:place] + data.draw(st.binary(max_size=3)) + good[data.draw(st.integers(place, len(good))) :]
    with suppress(CheckError):
        key = load_public_key(changed, "k")
        assert load_public_key(key.spki, "k") == key  # the canonical encoding


@pytest.mark.parametrize("name", ["ed25519_test.json", "ecdsa_secp256r1_sha256_test.json"])
def test_wycheproof(shared_data: Path, name: str) -> None:
    """Signatures: exactly the valid ones verify (both twins of an ECDSA signature do; identity is the payload's digest)."""
    groups = json.loads((shared_data / "vectors" / "wycheproof" / name).read_text())["testGroups"]
    seen = set()
    for group in groups:
        key = load_public_key(bytes.fromhex(group["publicKeyDer"]), "k")  # all are keys to verify with
        for test in group["tests"]:
            verified = key.verifies(bytes.fromhex(test["msg"]), bytes.fromhex(test["sig"]))
            assert verified == (test["result"] == "valid"), (test["tcId"], test["comment"])
            seen.add(test["result"])
    assert seen == {"valid", "invalid"}
