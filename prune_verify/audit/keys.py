"""Keys, trust stores and signatures, as the commands ``keygen``, ``trust`` and ``sign`` make them.

Source: FORMATS section 3; THREATS 2 "Envelope and keys".
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from prune_verify.checker.encoding import format_time, read_file, sha256_hex
from prune_verify.checker.envelope import PAYLOAD_TYPE, load_public_key, parse_envelope
from prune_verify.checker.errors import MalformedInputError, SubjectMismatchError, UnsupportedVersionError
from prune_verify.checker.policy import (
    ROLES,
    TrustedKey,
    TrustStore,
    default_policy_text,
    emit_trust,
    parse_policy,
    parse_trust,
)
from prune_verify.checker.statement import parse_statement
from prune_verify.files import replace_file
from prune_verify.signing import PrivateKey, sign_payload

__all__ = ["MadeKey", "keygen", "load_private_key", "sign", "trust_add", "trust_init", "trust_show"]

_MOST_BYTES = 2**22
_MOST_STATEMENT_BYTES = 2**26


@dataclass(frozen=True)
class MadeKey:
    """A key pair that was written."""

    private: Path
    public: Path
    keyid: str


def _new_file(path: Path, content: bytes, mode: int) -> None:
    """Write a file that must not exist yet, readable as ``mode`` says from its first byte on.

    Raises:
        OSError: it exists, or the folder cannot be written.

    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as stream:
        stream.write(content)


def keygen(prefix: Path) -> MadeKey:
    """Make an Ed25519 key: ``PREFIX.key`` (PKCS#8 PEM, mode 0600) and ``PREFIX.pub``; never overwrites.

    Raises:
        MalformedInputError: the prefix names no file.
        OSError: one of them exists, or the folder cannot be written.

    """
    if not prefix.name or "\0" in str(prefix):
        raise MalformedInputError("--out", "prefix of a key", "a name without null characters", repr(str(prefix))[:80])
    private, public = prefix.with_name(prefix.name + ".key"), prefix.with_name(prefix.name + ".pub")
    if public.exists():
        raise FileExistsError(17, "exists already; a key is never overwritten", str(public))
    key = Ed25519PrivateKey.generate()
    _new_file(private, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    _new_file(public, pem, 0o644)
    return MadeKey(private, public, load_public_key(pem, str(public)).keyid)


def load_private_key(path: Path) -> PrivateKey:
    """Read a private key.

    Raises:
        MalformedInputError: missing, no PEM private key, or an encrypted one.
        UnsupportedVersionError: neither Ed25519 nor ECDSA P-256.

    """
    data = read_file(path, "private key", _MOST_BYTES)
    try:
        key = load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise MalformedInputError(
            str(path), "private key", "an unencrypted PEM private key", "something else"
        ) from None
    fits = isinstance(key, EllipticCurvePrivateKey) and key.curve.name == "secp256r1"
    if isinstance(key, Ed25519PrivateKey) or (isinstance(key, EllipticCurvePrivateKey) and fits):
        return key
    raise UnsupportedVersionError(str(path), "algorithm of a key", "Ed25519 or ECDSA P-256", type(key).__name__)


def trust_init(trust: Path, policy: Path, *, days: int = 3650) -> None:
    """Write an empty trust store and a default policy; neither may exist.

    Raises:
        OSError: one of them exists, or the folder cannot be written.

    """
    for path in (trust, policy):
        if path.exists():
            raise FileExistsError(17, "exists already; it is never overwritten", str(path))
    expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)
    text = default_policy_text().encode()
    parse_policy(text, str(policy))
    _new_file(trust, emit_trust(TrustStore(1, expires, (), dict.fromkeys(ROLES, 1))), 0o644)
    _new_file(policy, text, 0o644)


def trust_add(trust: Path, key: Path, role: str, name: str) -> str:
    """Take up a public key in a role; gives its keyid. The same key again gains the role.

    Raises:
        CheckError: a file cannot be used, or the key is weak.

    """
    if role not in ROLES:
        raise MalformedInputError("--role", "role of a key", f"one of {', '.join(ROLES)}", repr(role)[:80])
    store = parse_trust(read_file(trust, "trust store", _MOST_BYTES), str(trust))
    public = load_public_key(read_file(key, "public key", _MOST_BYTES), str(key))
    if not name or len(name) > 128 or not name.isprintable():  # noqa: PLR2004 - a readable name
        raise MalformedInputError("--name", "name of a signer", "1 to 128 printable characters", repr(name)[:80])
    known = {item.key.keyid: item for item in store.keys}
    if public.keyid in known:
        old = known[public.keyid]
        new = replace(old, roles=tuple(dict.fromkeys((*old.roles, role))))
    else:
        now = datetime.now(UTC).replace(microsecond=0)
        new = TrustedKey(public, name, (role,), now.replace(year=now.year - 1, day=1), store.expires)
    keys = tuple((known | {public.keyid: new}).values())
    replace_file(trust, emit_trust(replace(store, version=store.version + 1, keys=keys)))
    return public.keyid


def trust_show(trust: Path) -> str:
    """The store for a person: a line each for the store and its keys.

    Raises:
        CheckError: it cannot be used.

    """
    store = parse_trust(read_file(trust, "trust store", _MOST_BYTES), str(trust))
    now = datetime.now(UTC)
    lines = [f"version {store.version}, until {format_time(store.expires)}, {len(store.keys)} keys"]
    for item in store.keys:
        state = item.unusable(now) or f"valid until {format_time(item.not_after)}"
        lines.append(f"{item.key.keyid}  {item.key.algorithm}  {item.name!a}  {', '.join(item.roles)}  {state}")
    return "\n".join(lines)


def sign(statement: Path, key: Path, out: Path, *, add: bool = False) -> str:
    """Sign a statement; gives the SHA-256 of its payload.

    Args:
        statement: ``statement.json``, canonical.
        key: a private key.
        out: the certificate; it must not exist, except with ``add``.
        add: add a signature to a certificate over the same statement.

    Raises:
        CheckError: a file cannot be used, or ``out`` is over another statement.
        OSError: ``out`` exists, or cannot be written.

    """
    payload = read_file(statement, "statement", _MOST_STATEMENT_BYTES)
    parse_statement(payload, str(statement))
    others: tuple[tuple[str, bytes], ...] = ()
    if add:
        envelope = parse_envelope(read_file(out, "certificate", _MOST_STATEMENT_BYTES), str(out))
        if envelope.payload != payload:
            raise SubjectMismatchError(str(out), "statement that is signed already", sha256_hex(payload), "another")
        if envelope.payload_type != PAYLOAD_TYPE:  # the other signatures are over their own type and would all break
            raise UnsupportedVersionError(str(out), "payload type", PAYLOAD_TYPE, envelope.payload_type)
        others = envelope.signatures
    content = sign_payload(payload, load_private_key(key), others)
    parse_envelope(content, str(out))
    if add:
        replace_file(out, content)
    else:
        _new_file(out, content, 0o644)
    return sha256_hex(payload)
