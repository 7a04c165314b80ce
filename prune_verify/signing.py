"""Signing: the owner's and the auditor's half of envelopes. The checker verifies and never signs.

Source: DSSE v1; FORMATS section 2.
"""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from prune_verify.checker.envelope import (
    PAYLOAD_TYPE,
    Envelope,
    PublicKey,
    emit_envelope,
    load_public_key,
    pae,
)

__all__ = ["PrivateKey", "public_half", "sign_payload"]

PrivateKey = Ed25519PrivateKey | EllipticCurvePrivateKey


def public_half(key: PrivateKey) -> PublicKey:
    """The public half of a key, checked like any other.

    Raises:
        CheckError: not a key that certificates can be signed with.

    """
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return load_public_key(spki, "public key")


def sign_payload(payload: bytes, key: PrivateKey, others: tuple[tuple[str, bytes], ...] = ()) -> bytes:
    """An envelope over the payload.

    Args:
        payload: exact bytes.
        key: Ed25519 or ECDSA P-256.
        others: signatures over the same payload that stand there already.

    """
    message = pae(PAYLOAD_TYPE, payload)
    signature = key.sign(message) if isinstance(key, Ed25519PrivateKey) else key.sign(message, ECDSA(hashes.SHA256()))
    return emit_envelope(Envelope(PAYLOAD_TYPE, payload, (*others, (public_half(key).keyid, signature))))
