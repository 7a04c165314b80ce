"""Keys that a token or a key service holds: what they sign is verified as any signature is, by keyid and SPKI of ours."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256

from prune_verify.audit.held_keys import held_key, is_uri
from prune_verify.audit.keys import keygen, load_private_key
from prune_verify.checker.encoding import sha256_hex
from prune_verify.checker.envelope import load_public_key, open_envelope
from prune_verify.checker.errors import CheckError, MalformedInputError, SignatureError, UnsupportedVersionError
from prune_verify.checker.statement import emit_statement
from prune_verify.cli import run_words
from prune_verify.signing import public_half, sign_payload
from tests.checker.test_statement import STATEMENT

library = pytest.mark.skipif(
    importlib.util.find_spec("securesystemslib") is None, reason="securesystemslib (extra hsm) is not installed"
)
MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
)
PIN, TOKEN = "2468", "prune-verify test"


def test_uris_and_files(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_uri("hsm:2?label=x")
    assert is_uri("gcpkms:projects/a")
    assert not is_uri("owner.key")
    assert not is_uri("/keys/owner:2.key")
    assert not is_uri("./hsm:2")
    (tmp_path / "hsm:2").write_text("a file of this name is a file")
    assert not is_uri("hsm:2")


# --- PKCS#11, with a token in software ---


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A SoftHSM2 token with a P-256 key (2) and a P-384 key (3)."""
    found = next((path for path in MODULES if Path(path).is_file()), None)
    if found is None or shutil.which("softhsm2-util") is None:
        pytest.skip("SoftHSM2 is not installed (Debian: softhsm2)")
    pkcs11 = pytest.importorskip("pkcs11", reason="python-pkcs11 (extra hsm) is not installed")
    folder = tmp_path_factory.mktemp("token")
    (folder / "tokens").mkdir()
    settings = folder / "softhsm2.conf"
    settings.write_text(f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n")
    environment = {"SOFTHSM2_CONF": str(settings), "PYKCS11LIB": found}
    make = ["softhsm2-util", "--init-token", "--free", "--label", TOKEN, "--pin", PIN, "--so-pin", "13579"]
    subprocess.run(make, check=True, capture_output=True, env={**os.environ, **environment})
    kind, attribute, mechanism = pkcs11.KeyType.EC, pkcs11.Attribute, pkcs11.Mechanism
    with pytest.MonkeyPatch.context() as patch:  # the module reads it when it is loaded, once
        patch.setenv("SOFTHSM2_CONF", environment["SOFTHSM2_CONF"])
        with pkcs11.lib(found).get_token(token_label=TOKEN).open(user_pin=PIN, rw=True) as session:
            for number, curve in ((2, "secp256r1"), (3, "secp384r1")):
                form = {attribute.EC_PARAMS: pkcs11.util.ec.encode_named_curve_parameters(curve)}
                made = session.create_domain_parameters(kind, form, local=True)
                made.generate_keypair(id=bytes([number]), store=True, mechanism=mechanism.EC_KEY_PAIR_GEN)
    return environment


@pytest.fixture
def pin(token: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in {**token, "PIN": PIN}.items():
        monkeypatch.setenv(name, value)
    return f"hsm:2?label={TOKEN.replace(' ', '+')}"


@library
def test_a_token_signs_a_certificate_that_its_exported_half_verifies(tmp_path: Path, pin: str) -> None:
    code, text = run_words(["keygen", "--key", pin, "--out", str(tmp_path / "token"), "--json"])  # needs no PIN
    assert (code, set(json.loads(text))) == (0, {"pub", "keyid"})
    assert [path.name for path in tmp_path.iterdir()] == ["token.pub"]
    public = load_public_key((tmp_path / "token.pub").read_bytes(), "k")
    assert (public.algorithm, public.keyid) == ("ecdsa-p256", sha256_hex(public.spki))
    assert json.loads(text)["keyid"] == public.keyid
    path, out = tmp_path / "statement.json", tmp_path / "a.unlearn.json"
    path.write_bytes(emit_statement(STATEMENT))
    words = ["sign", str(path), "--key", pin, "--passphrase-env", "PIN", "--out", str(out)]
    assert run_words(words)[0] == 0
    opened = open_envelope(out.read_bytes(), "a", {public.keyid: (public, "token")}, 1)
    assert (opened.payload, opened.signers) == (path.read_bytes(), ((public.keyid, "token"),))
    assert run_words(["trust", "init", str(tmp_path / "trust.json")])[0] == 0
    assert (
        run_words(["trust", "add", str(tmp_path / "trust.json"), "--key", str(tmp_path / "token.pub"), "--name", "t"])[
            0
        ]
        == 0
    )


@library
def test_the_only_token_is_found_without_its_label(pin: str) -> None:
    assert public_half(load_private_key("hsm:2", "PIN")) == public_half(load_private_key(pin, "PIN"))


TOKENS = [
    ("another PIN", "hsm:2", {"PIN": "1111"}, MalformedInputError, "PinIncorrect"),
    ("another token", "hsm:2?label=nobody", {}, MalformedInputError, "No PKCS#11 token found for label nobody"),
    ("another key", "hsm:9", {}, MalformedInputError, "could not find ECDSA key"),
    ("a keyid that is no number", "hsm:two", {}, MalformedInputError, "invalid literal"),
    ("a curve that certificates are not signed with", "hsm:3", {}, UnsupportedVersionError, "ECPublicKey"),
    ("no module", "hsm:2", {"PYKCS11LIB": ""}, MalformedInputError, "PYKCS11LIB environment variable must be set"),
]


@library
@pytest.mark.parametrize(("sentence", "uri", "changed", "error", "got"), TOKENS, ids=[row[0] for row in TOKENS])
def test_tokens_that_do_not_sign(pin: str, monkeypatch, sentence, uri, changed, error: type[CheckError], got) -> None:
    for name, value in changed.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(error) as caught:
        sign_payload(b"{}", held_key(uri, "PIN"))
    assert caught.value.path == uri
    assert got in caught.value.got
    assert PIN not in str(caught.value)


@library
def test_the_public_half_of_another_key_is_noticed_before_anything_is_written(tmp_path: Path, pin: str) -> None:
    other = keygen(tmp_path / "other", algorithm="ecdsa-p256").public
    with pytest.raises(SignatureError) as caught:
        sign_payload(b"{}", load_private_key(pin, "PIN", other))
    assert (caught.value.path, caught.value.rule) == (pin, "signature of a key held elsewhere")


# --- key services, with one in this process ---


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Register a signer of the library's for URIs ``testkms:``."""
    found = pytest.importorskip("securesystemslib.signer", reason="securesystemslib (extra hsm) is not installed")

    def register(signs: Callable[[bytes], bytes]) -> None:
        class Service(found.Signer):
            def __init__(self, public) -> None:
                self._public = public

            @classmethod
            def from_priv_key_uri(cls, priv_key_uri, public_key, secrets_handler=None):
                return cls(public_key)

            @property
            def public_key(self):
                return self._public

            def sign(self, payload: bytes):
                return found.Signature(self._public.keyid, signs(payload).hex())

        monkeypatch.setitem(found.SIGNER_FOR_URI_SCHEME, "testkms", Service)

    return register


EC = ec.derive_private_key(7, ec.SECP256R1())
ED = Ed25519PrivateKey.from_private_bytes(b"\1" * 32)


@pytest.mark.parametrize(
    ("key", "signs"),
    [(EC, lambda m: EC.sign(m, ECDSA(SHA256()))), (ED, ED.sign)],
    ids=["ECDSA P-256", "Ed25519"],
)
def test_a_key_service_signs_with_the_half_that_it_shows(tmp_path: Path, service, key, signs) -> None:
    service(signs)
    public = tmp_path / "k.pub"
    public.write_bytes(public_half(key).spki)
    held = load_private_key("testkms:projects/a/key", None, public)
    assert public_half(held) == public_half(key)
    found = public_half(key)
    assert open_envelope(sign_payload(b"{}", held), "e", {found.keyid: (found, "service")}, 1).payload == b"{}"


SERVICES = [
    ("no public half", "testkms:k", None, ED.sign, MalformedInputError, "testkms:k", "public half of a key"),
    ("an unknown scheme", "nokms:k", ED, ED.sign, MalformedInputError, "nokms:k", "key held elsewhere"),
    ("a signature over something else", "testkms:k", ED, lambda m: ED.sign(m + b" "), SignatureError, "testkms:k", "signature of a key held elsewhere"),
    ("a service that fails", "testkms:k", ED, lambda m: m[10**9], MalformedInputError, "testkms:k", "key held elsewhere"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("sentence", "uri", "key", "signs", "error", "path", "rule"), SERVICES, ids=[row[0] for row in SERVICES]
)
def test_key_services_that_do_not_sign(tmp_path, service, sentence, uri, key, signs, error, path, rule) -> None:
    service(signs)
    public = None
    if key is not None:
        public = tmp_path / "k.pub"
        public.write_bytes(public_half(key).spki)
    with pytest.raises(error) as caught:
        sign_payload(b"{}", held_key(uri, None, public))
    assert (caught.value.path, caught.value.rule) == (path, rule)


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "securesystemslib.signer", None)
    monkeypatch.setitem(sys.modules, "securesystemslib", None)
    path = tmp_path / "statement.json"
    path.write_bytes(emit_statement(STATEMENT))
    code, text = run_words(["sign", str(path), "--key", "hsm:2", "--out", str(tmp_path / "a.unlearn.json")])
    assert code == 2
    assert "securesystemslib" in text
    assert "prune-verify doctor" in text
