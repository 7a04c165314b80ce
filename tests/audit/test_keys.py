"""Keys and signatures as commands make them: never half a pair, never overwritten, never in the clear by mistake."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

import prune_verify.audit.keys as module
from prune_verify.audit.keys import MadeKey, keygen, load_private_key, sign
from prune_verify.checker.encoding import sha256_hex
from prune_verify.checker.envelope import Envelope, emit_envelope, load_public_key, open_envelope, parse_envelope
from prune_verify.checker.errors import CheckError, MalformedInputError, SubjectMismatchError, UnsupportedVersionError
from prune_verify.checker.statement import emit_statement
from prune_verify.cli import run_words
from prune_verify.signing import public_half, sign_payload
from tests.checker.test_statement import STATEMENT

PHRASE = "correct horse"


def held(made: MadeKey):
    assert made.private is not None
    return load_private_key(made.private)


def statement(folder: Path, reference: str = "case") -> Path:
    from dataclasses import replace

    path = folder / "statement.json"
    path.write_bytes(emit_statement(replace(STATEMENT, request_reference=reference)))
    return path


def test_keygen_makes_a_secret_key_and_never_overwrites(tmp_path: Path) -> None:
    made = keygen(tmp_path / "owner")
    assert stat.S_IMODE(made.private.stat().st_mode) == 0o600
    assert load_public_key(made.public.read_bytes(), "k").keyid == made.keyid
    before = made.private.read_bytes()
    with pytest.raises(FileExistsError):
        keygen(tmp_path / "owner")
    made.public.unlink()
    with pytest.raises(FileExistsError):
        keygen(tmp_path / "owner")
    assert made.private.read_bytes() == before


def test_sign_and_add(tmp_path: Path) -> None:
    first, second = keygen(tmp_path / "a"), keygen(tmp_path / "b")
    path, out = statement(tmp_path), tmp_path / "c.unlearn.json"
    assert sign(path, held(first), out) == sha256_hex(path.read_bytes())
    with pytest.raises(FileExistsError):
        sign(path, held(second), out)
    sign(path, held(second), out, add=True)
    assert [keyid for keyid, _ in parse_envelope(out.read_bytes(), "c").signatures] == [first.keyid, second.keyid]
    with pytest.raises(CheckError):
        sign(path, held(second), out, add=True)
    statement(tmp_path, "another case")
    with pytest.raises(SubjectMismatchError):
        sign(path, held(second), out, add=True)


def test_what_is_no_statement_is_not_signed(tmp_path: Path) -> None:
    made = keygen(tmp_path / "a")
    path = tmp_path / "statement.json"
    path.write_bytes(emit_statement(STATEMENT) + b" ")
    with pytest.raises(MalformedInputError):
        sign(path, held(made), tmp_path / "out.unlearn.json")
    assert not (tmp_path / "out.unlearn.json").exists()


def test_ecdsa_signs_and_others_do_not(tmp_path: Path) -> None:
    for key, error in (
        (ec.derive_private_key(7, ec.SECP256R1()), None),
        (ec.derive_private_key(7, ec.SECP384R1()), UnsupportedVersionError),
        (rsa.generate_private_key(65537, 2048), UnsupportedVersionError),
    ):
        path = tmp_path / "k.key"
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        if error is None:
            sign(statement(tmp_path), load_private_key(path), tmp_path / "e.unlearn.json")
            continue
        with pytest.raises(error):
            load_private_key(path)


def test_keys_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    key, path = ec.derive_private_key(7, ec.SECP256R1()), tmp_path / "k.key"
    for content in (
        b"nothing",
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    ):
        path.write_bytes(content)
        with pytest.raises(MalformedInputError, match=r"k\.key"):
            load_private_key(path)


@pytest.mark.parametrize("prefix", [".", "/", "a\0b"])
def test_prefixes_that_name_no_file(prefix: str) -> None:
    with pytest.raises(MalformedInputError) as caught:
        keygen(Path(prefix))
    assert caught.value.path == "--out"


def test_a_signature_is_not_added_beside_one_over_another_payload_type(tmp_path: Path) -> None:
    made, path, out = keygen(tmp_path / "a"), statement(tmp_path), tmp_path / "c.unlearn.json"
    out.write_bytes(emit_envelope(Envelope("text/plain", path.read_bytes(), (("0" * 64, b"x"),))))
    before = out.read_bytes()
    with pytest.raises(UnsupportedVersionError):
        sign(path, held(made), out, add=True)
    assert out.read_bytes() == before


# --- algorithms and passphrases ---


@pytest.mark.parametrize("algorithm", ["ed25519", "ecdsa-p256"])
@pytest.mark.parametrize("secret", [None, PHRASE, "\u00fcml\u00e4uts in it"], ids=["plain", "encrypted", "not ASCII"])
def test_a_key_of_each_algorithm_signs_what_its_public_half_verifies(tmp_path, monkeypatch, algorithm, secret) -> None:
    made = keygen(tmp_path / "owner", algorithm=algorithm, passphrase=secret)
    monkeypatch.setenv("WORDS", secret or "")
    key = load_private_key(made.private, "WORDS")
    public = load_public_key(made.public.read_bytes(), "k")
    assert (public.algorithm, public.keyid) == (algorithm, made.keyid)
    assert open_envelope(sign_payload(b"{}", key), "e", {public.keyid: (public, "owner")}, 1).payload == b"{}"
    assert (b"ENCRYPTED" in made.private.read_bytes()) == (secret is not None)
    assert stat.S_IMODE(made.private.stat().st_mode) == 0o600


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here to open the key with")
def test_openssl_opens_an_encrypted_key_and_finds_many_rounds_in_it(tmp_path: Path) -> None:
    made = keygen(tmp_path / "owner", passphrase=PHRASE)
    opened = ["openssl", "pkey", "-in", str(made.private), "-passin", f"pass:{PHRASE}", "-pubout"]
    assert subprocess.run(opened, capture_output=True, check=True).stdout == made.public.read_bytes()
    read = ["openssl", "asn1parse", "-in", str(made.private)]
    assert f"{600_000:06X}" in subprocess.run(read, capture_output=True, check=True, text=True).stdout


def test_a_key_under_a_passphrase_of_another_program_is_read(tmp_path: Path, monkeypatch) -> None:
    key, path = ec.derive_private_key(7, ec.SECP256R1()), tmp_path / "k.key"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(PHRASE.encode())))
    monkeypatch.setenv("WORDS", PHRASE)
    assert public_half(load_private_key(path, "WORDS")) == public_half(key)


NO_PHRASE = [
    ("another passphrase", {"WORDS": "wrong horse"}, "WORDS", "owner.key", "a PEM private key under this passphrase"),
    ("no such variable", {}, "WORDS", "--passphrase-env", "an environment variable WORDS with it"),
    ("an empty variable", {"WORDS": ""}, "WORDS", "--passphrase-env", "an environment variable WORDS with it"),
    ("neither variable nor terminal", {"WORDS": PHRASE}, None, "--passphrase-env", "a terminal to ask at, or"),
]


@pytest.mark.parametrize(
    ("sentence", "known", "name", "path", "expected"), NO_PHRASE, ids=[row[0] for row in NO_PHRASE]
)
def test_an_encrypted_key_stays_shut(tmp_path, monkeypatch, sentence, known, name, path, expected) -> None:
    made = keygen(tmp_path / "owner", passphrase=PHRASE)
    monkeypatch.delenv("WORDS", raising=False)
    for variable, value in known.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(MalformedInputError) as caught:
        load_private_key(made.private, name)
    assert caught.value.path.endswith(path)
    assert caught.value.expected.startswith(expected)
    assert PHRASE not in str(caught.value)


@pytest.mark.parametrize(("answers", "code"), [(["correct horse"] * 2, 0), (["correct horse", "corect horse"], 2)])
def test_a_passphrase_is_asked_for_twice_at_a_terminal(tmp_path, monkeypatch, answers: list[str], code: int) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("getpass.getpass", lambda _: answers.pop(0))
    assert run_words(["keygen", "--out", str(tmp_path / "owner"), "--encrypt"])[0] == code
    assert (tmp_path / "owner.key").exists() == (code == 0)


# --- what is left behind ---


@pytest.mark.parametrize("passphrase", ["", "seven77"])
def test_a_short_passphrase_leaves_no_key(tmp_path: Path, passphrase: str) -> None:
    with pytest.raises(MalformedInputError) as caught:
        keygen(tmp_path / "owner", passphrase=passphrase)
    assert (caught.value.path, caught.value.got) == ("--encrypt", str(len(passphrase)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(28, "no space left"), KeyboardInterrupt()], ids=["full disk", "Ctrl-C"])
def test_half_a_pair_is_never_left(tmp_path: Path, monkeypatch, error: BaseException) -> None:
    whole = module.new_file

    def breaks(path: Path, content: bytes, mode: int) -> None:
        if path.suffix == ".pub":
            raise error
        whole(path, content, mode)

    monkeypatch.setattr(module, "new_file", breaks)
    with pytest.raises(type(error)):
        keygen(tmp_path / "owner")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_whole_is_not_there(tmp_path: Path, monkeypatch) -> None:
    def full(*_: object) -> object:
        raise OSError(28, "no space left")

    monkeypatch.setattr("os.fdopen", full)
    with pytest.raises(OSError, match="no space left"):
        keygen(tmp_path / "owner")
    assert list(tmp_path.iterdir()) == []


def test_a_key_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "owner.pub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        keygen(tmp_path / "owner")
    assert not (tmp_path / "elsewhere").exists()
    assert not (tmp_path / "owner.key").exists()


def test_the_commands_say_what_they_did(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("WORDS", PHRASE)
    code, text = run_words(
        ["keygen", "--out", str(tmp_path / "o"), "--algorithm", "ecdsa-p256", "--passphrase-env", "WORDS", "--json"]
    )
    made = json.loads(text)
    assert (code, set(made)) == (0, {"key", "pub", "keyid"})
    words = [
        "sign",
        str(statement(tmp_path)),
        "--key",
        made["key"],
        "--out",
        str(tmp_path / "a.unlearn.json"),
        "--json",
    ]
    code, text = run_words(words)
    assert (code, json.loads(text)["code"]) == (2, "E_MALFORMED")  # nobody to ask
    assert not (tmp_path / "a.unlearn.json").exists()
    code, text = run_words([*words, "--passphrase-env", "WORDS"])
    assert (code, json.loads(text)["keyid"]) == (0, made["keyid"])
    code, text = run_words([*words, "--passphrase-env", "WORDS"])
    assert (code, json.loads(text)["code"]) == (2, "E_IO")
    code, text = run_words(["keygen", "--out", str(tmp_path / "x"), "--key", "hsm:", "--encrypt"])
    assert (code, text.partition(":")[0]) == (2, "--key")
    code, text = run_words([*words, "--passphrase-env", "WORDS", "--pub", made["pub"]])
    assert (code, json.loads(text)["error"].partition(":")[0]) == (2, "--pub")
