"""Key files: private keys in PKCS#8, under a passphrase or not, and where passphrases come from.

PKCS#8 under PBES2 (PBKDF2 with HMAC-SHA-256, AES-256-CBC) is put together here, because cryptography writes it with
2,048 rounds only; any reader of PKCS#8 opens it.

Source: RFC 5958 (PKCS#8), RFC 8018 (PBES2), RFC 7468 (PEM); FORMATS section 3 (``keygen``).
"""

from __future__ import annotations

import base64
import getpass
import os
import secrets
import sys
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from prune_verify.checker.encoding import read_file
from prune_verify.checker.errors import MalformedInputError, UnsupportedVersionError

__all__ = ["FileKey", "private_pem", "read_private_key", "read_secret"]

FileKey = Ed25519PrivateKey | EllipticCurvePrivateKey
_MOST_BYTES = 2**22
_LEAST_PASSPHRASE = 8
_ROUNDS = 600_000
_ENCRYPTED = b"ENCRYPTED PRIVATE KEY"
_PBES2 = bytes.fromhex("06092a864886f70d01050d")
_PBKDF2 = bytes.fromhex("06092a864886f70d01050c")
_HMAC_SHA256 = bytes.fromhex("300c06082a864886f70d02090500")
_AES256_CBC = bytes.fromhex("060960864801650304012a")
_SEQUENCE, _OCTETS, _INTEGER = b"\x30", b"\x04", b"\x02"


def read_secret(what: str, variable: str | None, *, twice: bool = False) -> str:
    """A passphrase or PIN: from the environment variable that was named, or asked for at the terminal.

    Args:
        what: what it is, for the prompt and errors.
        variable: name of an environment variable (``--passphrase-env``).
        twice: ask twice, for a new one.

    Raises:
        MalformedInputError: no such variable, no terminal, or two different answers.

    """
    if variable is not None:
        found = os.environ.get(variable, "")
        if not found:
            raise MalformedInputError("--passphrase-env", what, f"an environment variable {variable} with it", "none")
        return found
    if not sys.stdin.isatty():
        expected = "a terminal to ask at, or --passphrase-env NAME of an environment variable with it"
        raise MalformedInputError("--passphrase-env", what, expected, "neither")
    answer = getpass.getpass(f"{what}: ")
    if twice and getpass.getpass(f"{what}, again: ") != answer:
        raise MalformedInputError("--encrypt", what, "the same twice", "two different ones")
    return answer


def _der(tag: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8 or 1, "big")
    length = size if len(body) < 0x80 else bytes([0x80 | len(size)]) + size  # noqa: PLR2004 - X.690, 8.1.3
    return tag + length + body


def _derived(passphrase: str, salt: bytes) -> bytes:
    return PBKDF2HMAC(SHA256(), 32, salt, _ROUNDS).derive(passphrase.encode())


def private_pem(key: FileKey, passphrase: str | None) -> bytes:
    """A private key as PKCS#8 PEM, encrypted where there is a passphrase.

    Raises:
        MalformedInputError: the passphrase is short.

    """
    if passphrase is None:
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    if len(passphrase) < _LEAST_PASSPHRASE:
        expected = f"at least {_LEAST_PASSPHRASE} characters"
        raise MalformedInputError("--encrypt", "passphrase", expected, str(len(passphrase)))
    plain = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    salt, start = secrets.token_bytes(16), secrets.token_bytes(16)
    padder = PKCS7(128).padder()
    encryptor = Cipher(AES256(_derived(passphrase, salt)), CBC(start)).encryptor()
    hidden = encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()
    rounds = _der(_INTEGER, _ROUNDS.to_bytes(3, "big"))
    derivation = _der(_SEQUENCE, _PBKDF2, _der(_SEQUENCE, _der(_OCTETS, salt), rounds, _HMAC_SHA256))
    scheme = _der(_SEQUENCE, _AES256_CBC, _der(_OCTETS, start))
    algorithm = _der(_SEQUENCE, _PBES2, _der(_SEQUENCE, derivation, scheme))
    text = base64.b64encode(_der(_SEQUENCE, algorithm, _der(_OCTETS, hidden)))
    lines = [text[place : place + 64] for place in range(0, len(text), 64)]
    return b"\n".join([b"-----BEGIN " + _ENCRYPTED + b"-----", *lines, b"-----END " + _ENCRYPTED + b"-----", b""])


def read_private_key(path: Path, variable: str | None) -> FileKey:
    """Read a private key in PEM; an encrypted one asks for its passphrase.

    Args:
        path: the file.
        variable: name of the environment variable with the passphrase, or None.

    Raises:
        MalformedInputError: missing, no PEM private key, or a wrong passphrase.
        UnsupportedVersionError: neither Ed25519 nor ECDSA P-256.

    """
    data, secret = read_file(path, "private key", _MOST_BYTES), None
    if _ENCRYPTED in data:
        secret = read_secret(f"passphrase of {path.name}", variable).encode()
    try:
        key = load_pem_private_key(data, secret)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        expected = "a PEM private key" if secret is None else "a PEM private key under this passphrase"
        raise MalformedInputError(str(path), "private key", expected, "something else") from None
    fits = isinstance(key, EllipticCurvePrivateKey) and key.curve.name == "secp256r1"
    if isinstance(key, Ed25519PrivateKey) or (isinstance(key, EllipticCurvePrivateKey) and fits):
        return key
    raise UnsupportedVersionError(str(path), "algorithm of a key", "Ed25519 or ECDSA P-256", type(key).__name__)
