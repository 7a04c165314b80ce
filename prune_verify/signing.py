"""Signing: the owner's and the auditor's half of envelopes. The checker verifies and never signs.

Source: DSSE v1; FORMATS section 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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
from prune_verify.checker.errors import SignatureError

__all__ = ["HeldKey", "PrivateKey", "public_half", "sign_payload"]


@dataclass(frozen=True)
class HeldKey:
    """A private key that a token or a key service holds and never shows.

    Args:
        name: where it is, for errors.
        public: its public half.
        signs: gives a signature over a message: Ed25519 as it is, ECDSA P-256 with SHA-256 in DER.

    """

    name: str
    public: PublicKey
    signs: Callable[[bytes], bytes]


PrivateKey = Ed25519PrivateKey | EllipticCurvePrivateKey | HeldKey


def public_half(key: PrivateKey) -> PublicKey:
    """The public half of a key, checked like any other.

    Raises:
        CheckError: not a key that certificates can be signed with.

    """
    if isinstance(key, HeldKey):
        return key.public
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return load_public_key(spki, "public key")


def _signature(message: bytes, key: PrivateKey) -> bytes:
    if isinstance(key, Ed25519PrivateKey):
        return key.sign(message)
    if isinstance(key, EllipticCurvePrivateKey):
        return key.sign(message, ECDSA(hashes.SHA256()))
    signature = key.signs(message)
    if not key.public.verifies(message, signature):
        expected = f"one by the {key.public.algorithm} key {key.public.keyid[:16]}"
        raise SignatureError(key.name, "signature of a key held elsewhere", expected, "one that does not verify")
    return signature


def sign_payload(payload: bytes, key: PrivateKey, others: tuple[tuple[str, bytes], ...] = ()) -> bytes:
    """An envelope over the payload.

    Args:
        payload: exact bytes.
        key: Ed25519 or ECDSA P-256, here or held elsewhere.
        others: signatures over the same payload that stand there already.

    Raises:
        SignatureError: a key that is held elsewhere gave a signature that does not verify.

    """
    signature = _signature(pae(PAYLOAD_TYPE, payload), key)
    return emit_envelope(Envelope(PAYLOAD_TYPE, payload, (*others, (public_half(key).keyid, signature))))
