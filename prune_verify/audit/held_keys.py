"""Keys that a token or a key service holds, by securesystemslib's signer URIs: ``hsm:2?label=NAME``, ``gcpkms:...``.

The library (extra ``hsm``) hashes and signs; the signature and the key's identity are ours: ECDSA P-256 in DER or
Ed25519 over the PAE, the keyid the SHA-256 of the SPKI. Nothing is taken from the library that is not verified by the
public half, which comes from the token itself or from a file.

Source: securesystemslib, ``Signer.from_priv_key_uri``; PKCS#11 2.40; FORMATS section 2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib import parse

from cryptography.hazmat.primitives.serialization import load_der_public_key

from prune_verify.audit.key_files import read_secret
from prune_verify.checker.encoding import read_file
from prune_verify.checker.envelope import PublicKey, load_public_key
from prune_verify.checker.errors import CheckError, MalformedInputError
from prune_verify.signing import HeldKey

__all__ = ["held_key", "is_uri"]

_MOST_BYTES = 2**22
_URI = re.compile(r"[a-z][a-z0-9]+:")
_SCHEMES = {"ed25519": "ed25519", "ecdsa-p256": "ecdsa-sha2-nistp256"}


def is_uri(text: str) -> bool:
    """Whether a text names a key by URI and not by file."""
    return _URI.match(text) is not None and not Path(text).exists()


@contextmanager
def _named(uri: str) -> Iterator[None]:
    """Whatever the library or a driver below it raises becomes one error that names the key."""
    try:
        yield
    except (CheckError, ModuleNotFoundError):
        raise
    except Exception as error:
        got = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise MalformedInputError(uri, "key held elsewhere", "a token or service that signs with it", got) from error


def _imported(uri: str, pin: Callable[[str], str]) -> PublicKey:
    """The public half of a key on a PKCS#11 token, as the token shows it."""
    from securesystemslib.signer import HSMSigner

    found = parse.urlparse(uri)
    if found.scheme != HSMSigner.SCHEME:
        raise MalformedInputError(uri, "public half of a key", "--pub FILE with it, as the service shows it", "nothing")
    label = dict(parse.parse_qsl(found.query)).get("label")
    number = int(found.path) if found.path else None
    shown = HSMSigner.import_(number, label, pin)[1]
    return load_public_key(shown.keyval["public"].encode(), uri)


def held_key(uri: str, variable: str | None = None, public: Path | None = None) -> HeldKey:
    """A key that a token or a key service holds.

    Args:
        uri: as securesystemslib has it; ``hsm:[KEYID][?label=TOKEN]`` needs ``PYKCS11LIB`` in the environment.
        variable: name of the environment variable with the PIN, or None: it is asked for.
        public: a file with the public half; a PKCS#11 token shows it itself.

    Raises:
        MalformedInputError: no such token, service or key, or a wrong PIN; the URI is the path.
        UnsupportedVersionError: neither Ed25519 nor ECDSA P-256.
        ModuleNotFoundError: the extra ``hsm`` is not installed.

    """
    from securesystemslib.signer import Signer, SSlibKey

    def pin(what: str) -> str:
        return read_secret(f"{what} of {uri}", variable)

    with _named(uri):
        if public is None:
            half = _imported(uri, pin)
        else:
            half = load_public_key(read_file(public, "public key", _MOST_BYTES), str(public))
        known = SSlibKey.from_crypto(load_der_public_key(half.spki), half.keyid, _SCHEMES[half.algorithm])
        signer = Signer.from_priv_key_uri(uri, known, pin)

    def signs(message: bytes) -> bytes:
        with _named(uri):
            return bytes.fromhex(signer.sign(message).signature)

    return HeldKey(uri, half, signs)
