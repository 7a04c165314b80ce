"""DSSE envelopes: who signed which bytes, by keys that the auditor's trust store names.

A signature is over the PAE of the exact payload bytes. The ``keyid`` in an envelope selects neither
trust nor algorithm, but it must be the SHA-256 of the DER SPKI of the key that verifies. Weak keys are
refused when they are loaded: the identity among Ed25519 points verifies any message with common libraries.

Source: DSSE v1 (secure-systems-lab), RFC 8032 (Ed25519), RFC 5280 (SPKI); FORMATS section 2; THREATS 2.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)

from prune_verify.checker.encoding import Members, canonical_json, parse_base64, parse_json, sha256_hex
from prune_verify.checker.errors import KeyIdError, MalformedInputError, SignatureError, UnsupportedVersionError

__all__ = [
    "MAX_SIGNATURES",
    "PAYLOAD_TYPE",
    "Envelope",
    "OpenedEnvelope",
    "PublicKey",
    "emit_envelope",
    "load_public_key",
    "open_envelope",
    "pae",
    "parse_envelope",
]

PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_ENVELOPE_BYTES = 2**26
MAX_SIGNATURES = 16
_PRIME = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, _PRIME - 2, _PRIME) % _PRIME
_IDENTITY = (0, 1)

Point = tuple[int, int]


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding of a ``payload`` and its ``payload_type``; lengths count bytes."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


@dataclass(frozen=True)
class Envelope:
    """An envelope (FORMATS section 2) as it was read; nothing in it is verified."""

    payload_type: str
    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]


def parse_envelope(data: bytes, path: str) -> Envelope:
    """Read an envelope in its canonical bytes.

    Raises:
        MalformedInputError: not of the closed form, or another spelling.
        LimitError: too long.
        KeyIdError: one keyid twice.

    """
    value = parse_json(data, path, max_bytes=MAX_ENVELOPE_BYTES, canonical=True)
    fields = Members(value, path, ("payload", "payloadType", "signatures"))
    signatures = []
    for place, item in enumerate(fields.items("signatures", most=MAX_SIGNATURES)):
        one = Members(item, f"{fields.place('signatures')}/{place}", ("keyid", "sig"))
        signatures.append((one.digest("keyid"), parse_base64(one.raw("sig"), one.place("sig"))))
    if not signatures:
        raise MalformedInputError(fields.place("signatures"), "signatures", "at least one", "none")
    if len({keyid for keyid, _ in signatures}) != len(signatures):
        raise KeyIdError(fields.place("signatures"), "signatures", "each keyid once", "one twice")
    payload = parse_base64(fields.raw("payload"), fields.place("payload"))
    return Envelope(fields.text("payloadType"), payload, tuple(signatures))


def emit_envelope(envelope: Envelope) -> bytes:
    """The canonical bytes of an envelope."""
    return canonical_json(
        {
            "payload": base64.b64encode(envelope.payload).decode(),
            "payloadType": envelope.payload_type,
            "signatures": [{"keyid": k, "sig": base64.b64encode(s).decode()} for k, s in envelope.signatures],
        }
    )


# --- keys ---


@dataclass(frozen=True)
class PublicKey:
    """A key that was found fit to verify with.

    Args:
        keyid: SHA-256 (hex) of the DER SPKI.
        algorithm: ``ed25519`` or ``ecdsa-p256``.
        spki: DER bytes.

    """

    keyid: str
    algorithm: str
    spki: bytes

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Whether the signature over the message is this key's."""
        key = load_der_public_key(self.spki)
        try:
            if isinstance(key, Ed25519PublicKey):
                key.verify(signature, message)
            elif isinstance(key, EllipticCurvePublicKey):
                key.verify(signature, message, ECDSA(hashes.SHA256()))
            else:
                return False
        except InvalidSignature:
            return False
        return True


def load_public_key(data: bytes, path: str) -> PublicKey:
    """Read a public key (PEM or DER SPKI) and refuse what is no key to verify with.

    Raises:
        MalformedInputError: no public key, a private one, or not the canonical DER encoding.
        UnsupportedVersionError: another algorithm or curve.
        SignatureError: an Ed25519 point of small order or with a torsion part.

    """
    if b"PRIVATE KEY" in data:
        raise MalformedInputError(path, "public key", "a public key", "a private key: keep it secret")
    pem = data.lstrip().startswith(b"-----BEGIN")
    try:
        key = load_pem_public_key(data) if pem else load_der_public_key(data)
    except (ValueError, UnsupportedAlgorithm, TypeError):
        raise MalformedInputError(path, "public key", "a PEM or DER public key", "something else") from None
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if not pem and spki != data:
        raise MalformedInputError(path, "public key", "its DER encoding", "another encoding")
    if isinstance(key, Ed25519PublicKey):
        _require_prime_order(key.public_bytes(Encoding.Raw, PublicFormat.Raw), path)
        return PublicKey(sha256_hex(spki), "ed25519", spki)
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return PublicKey(sha256_hex(spki), "ecdsa-p256", spki)
    raise UnsupportedVersionError(path, "algorithm of a key", "Ed25519 or ECDSA P-256", type(key).__name__)


def _plus(a: Point, b: Point) -> Point:
    """The sum on the twisted Edwards curve -x^2 + y^2 = 1 + d x^2 y^2 (RFC 8032, 5.1.4)."""
    product = _D * a[0] * b[0] * a[1] * b[1] % _PRIME
    x = (a[0] * b[1] + a[1] * b[0]) * pow(1 + product, _PRIME - 2, _PRIME)
    y = (a[1] * b[1] + a[0] * b[0]) * pow(1 - product, _PRIME - 2, _PRIME)
    return x % _PRIME, y % _PRIME


def _times(number: int, point: Point) -> Point:
    total = _IDENTITY
    while number:
        total = _plus(total, point) if number & 1 else total
        point = _plus(point, point)
        number >>= 1
    return total


def _decoded(data: bytes) -> Point | None:
    """The point of 32 bytes (RFC 8032, 5.1.3), or None."""
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, number & (2**255 - 1)
    if y >= _PRIME:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, _PRIME - 2, _PRIME) % _PRIME
    x = pow(square, (_PRIME + 3) // 8, _PRIME)
    if (x * x - square) % _PRIME:
        x = x * pow(2, (_PRIME - 1) // 4, _PRIME) % _PRIME
    if (x * x - square) % _PRIME or (x == 0 and sign):
        return None
    return (_PRIME - x if x % 2 != sign else x), y


def _require_prime_order(raw: bytes, path: str) -> None:
    """Refuse points of small order (the identity verifies any message) and points with a torsion part."""
    point = _decoded(raw)
    if point is None:
        raise MalformedInputError(path, "Ed25519 key", "a point of the curve in its canonical encoding", raw.hex())
    if _times(8, point) == _IDENTITY or _times(_ORDER, point) != _IDENTITY:
        raise SignatureError(path, "Ed25519 key", "a point of prime order", "a point of small order or with torsion")


# --- opening ---


@dataclass(frozen=True)
class OpenedEnvelope:
    """A payload with enough good signatures.

    Args:
        payload: the exact bytes that were signed.
        payload_sha256: their digest, the identity of a certificate.
        signers: (keyid, name) of the trusted keys that signed.

    """

    payload: bytes
    payload_sha256: str
    signers: tuple[tuple[str, str], ...]


def open_envelope(
    data: bytes, path: str, keys: Mapping[str, tuple[PublicKey, str]], threshold: int, what: str = "trusted signers"
) -> OpenedEnvelope:
    """Establish that enough trusted keys signed the payload.

    Args:
        data: the envelope.
        path: its name, for errors.
        keys: the auditor's keys for the role, by keyid, each with its name.
        threshold: how many distinct ones must have signed, at least 1.
        what: who they are, for errors.

    Raises:
        MalformedInputError: not an envelope.
        KeyIdError: a trusted key's signature under another keyid.
        SignatureError: a signature under a trusted keyid does not verify, or too few signed.
        UnsupportedVersionError: another payload type.

    """
    envelope = parse_envelope(data, path)
    message = pae(envelope.payload_type, envelope.payload)
    signers = []
    for place, (keyid, signature) in enumerate(envelope.signatures):
        where = f"{path}/signatures/{place}"
        if keyid in keys:
            key, name = keys[keyid]
            if not key.verifies(message, signature):
                raise SignatureError(where, "signature", f"one by {name} over these bytes", "another")
            signers.append((keyid, name))
        elif any(key.verifies(message, signature) for key, _ in keys.values()):
            raise KeyIdError(f"{where}/keyid", "keyid", "the SHA-256 of the key that verifies", keyid)
    if threshold < 1 or len(signers) < threshold:
        raise SignatureError(f"{path}/signatures", what, f"at least {max(threshold, 1)}", str(len(signers)))
    if envelope.payload_type != PAYLOAD_TYPE:
        raise UnsupportedVersionError(f"{path}/payloadType", "payload type", PAYLOAD_TYPE, envelope.payload_type)
    return OpenedEnvelope(envelope.payload, sha256_hex(envelope.payload), tuple(signers))
