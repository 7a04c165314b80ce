"""Keys and signatures, as the commands ``keygen`` and ``sign`` make them.

Source: FORMATS section 3; THREATS 2 "Envelope and keys".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from prune_verify.audit.held_keys import held_key, is_uri
from prune_verify.audit.key_files import private_pem, read_private_key
from prune_verify.checker.encoding import read_file, sha256_hex
from prune_verify.checker.envelope import PAYLOAD_TYPE, PublicKey, load_public_key, parse_envelope
from prune_verify.checker.errors import MalformedInputError, SubjectMismatchError, UnsupportedVersionError
from prune_verify.checker.statement import parse_statement
from prune_verify.files import new_file, replace_file
from prune_verify.signing import PrivateKey, sign_payload

__all__ = ["ALGORITHMS", "MadeKey", "export_public", "keygen", "load_private_key", "sign"]

ALGORITHMS = ("ed25519", "ecdsa-p256")
_MOST_STATEMENT_BYTES = 2**26


@dataclass(frozen=True)
class MadeKey:
    """The files of a key pair that was written, private and public, and its ``keyid``.

    The private half is None where a token or a key service holds it.

    ``keyid`` is the digest of the public half.
    """

    private: Path | None
    public: Path
    keyid: str


def _places(prefix: Path) -> tuple[Path, Path]:
    """Where the halves of a key go; neither may exist."""
    if not prefix.name or "\0" in str(prefix):
        raise MalformedInputError("--out", "prefix of a key", "a name without null characters", repr(str(prefix))[:80])
    places = prefix.with_name(prefix.name + ".key"), prefix.with_name(prefix.name + ".pub")
    for path in places:
        if path.exists() or path.is_symlink():
            raise FileExistsError(17, "exists already; a key is never overwritten", str(path))
    return places


def keygen(prefix: Path, *, algorithm: str = "ed25519", passphrase: str | None = None) -> MadeKey:
    """Make a key: ``PREFIX.key`` (PKCS#8 PEM, mode 0600) and ``PREFIX.pub``; never overwrites, never leaves one half.

    Args:
        prefix: of both files.
        algorithm: ``ed25519`` or ``ecdsa-p256``.
        passphrase: encrypts the private half.

    Raises:
        MalformedInputError: the prefix names no file, or the passphrase is short.
        OSError: one of the files exists, or the folder cannot be written.

    """
    private, public = _places(prefix)
    key = Ed25519PrivateKey.generate() if algorithm == "ed25519" else ec.generate_private_key(ec.SECP256R1())
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    new_file(private, private_pem(key, passphrase), 0o600)
    try:
        new_file(public, pem, 0o644)
    except BaseException:
        private.unlink()
        raise
    return MadeKey(private, public, load_public_key(pem, str(public)).keyid)


def export_public(key: PublicKey, prefix: Path) -> MadeKey:
    """Write the public half of a key that is held elsewhere as ``PREFIX.pub``, for ``trust add``.

    Raises:
        MalformedInputError: the prefix names no file.
        OSError: it exists, or the folder cannot be written.

    """
    _, public = _places(prefix)
    pem = load_der_public_key(key.spki).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    new_file(public, pem, 0o644)
    return MadeKey(None, public, key.keyid)


def load_private_key(key: str | Path, variable: str | None = None, public: Path | None = None) -> PrivateKey:
    """A private key from a file, encrypted or not, or by the URI of a token or key service that holds it.

    Args:
        key: a PEM file, or a URI such as ``hsm:2?label=NAME``.
        variable: name of the environment variable with the passphrase or PIN (``--passphrase-env``); without it the
            terminal is asked, if one is needed.
        public: for URIs, a file with the public half; a PKCS#11 token shows it itself.

    Raises:
        CheckError: missing, no private key, a wrong passphrase, or neither Ed25519 nor ECDSA P-256.
        ModuleNotFoundError: a URI, and the extra ``hsm`` is not installed.

    """
    if is_uri(str(key)):
        return held_key(str(key), variable, public)
    if public is not None:
        raise MalformedInputError("--pub", "public half of a key", "with a key that is held elsewhere only", str(key))
    return read_private_key(Path(key), variable)


def sign(statement: Path, key: PrivateKey, out: Path, *, add: bool = False) -> str:
    """Sign a statement; gives the SHA-256 of its payload.

    Args:
        statement: ``statement.json``, canonical.
        key: of :func:`load_private_key`.
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
    elif out.exists():
        raise FileExistsError(17, "exists already; --add adds a signature to it", str(out))
    content = sign_payload(payload, key, others)
    parse_envelope(content, str(out))
    if add:
        replace_file(out, content)
    else:
        new_file(out, content, 0o644)
    return sha256_hex(payload)
