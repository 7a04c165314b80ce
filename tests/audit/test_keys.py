"""Keys, trust stores, signatures and ``inspect`` as commands make them."""

from __future__ import annotations

import stat
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

from prune_verify.audit.keys import keygen, load_private_key, sign, trust_add, trust_init, trust_show
from prune_verify.checker.encoding import sha256_hex
from prune_verify.checker.envelope import Envelope, emit_envelope, load_public_key, parse_envelope
from prune_verify.checker.errors import CheckError, MalformedInputError, SubjectMismatchError, UnsupportedVersionError
from prune_verify.checker.policy import parse_policy, parse_trust
from prune_verify.checker.statement import emit_statement
from tests.checker.test_statement import STATEMENT


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


def test_trust_init_add_show(tmp_path: Path) -> None:
    trust, policy, made = tmp_path / "trust.json", tmp_path / "policy.toml", keygen(tmp_path / "owner")
    trust_init(trust, policy)
    parse_policy(policy.read_bytes(), "p")
    with pytest.raises(FileExistsError):
        trust_init(trust, policy)
    assert trust_add(trust, made.public, "prover", "Anna") == made.keyid
    trust_add(trust, made.public, "witness", "Anna")
    store = parse_trust(trust.read_bytes(), "t")
    assert (store.version, len(store.keys), store.keys[0].roles) == (3, 1, ("prover", "witness"))
    shown = trust_show(trust)
    assert made.keyid in shown
    assert "valid until" in shown


@pytest.mark.parametrize("name", ["", "a" * 129, "evil\x1b[2J"])
def test_names_of_signers_are_readable(tmp_path: Path, name: str) -> None:
    made = keygen(tmp_path / "owner")
    trust_init(tmp_path / "trust.json", tmp_path / "policy.toml")
    with pytest.raises(MalformedInputError):
        trust_add(tmp_path / "trust.json", made.public, "prover", name)
    assert parse_trust((tmp_path / "trust.json").read_bytes(), "t").keys == ()


def test_a_private_key_is_no_key_to_trust(tmp_path: Path) -> None:
    made = keygen(tmp_path / "owner")
    trust_init(tmp_path / "trust.json", tmp_path / "policy.toml")
    with pytest.raises(MalformedInputError, match="secret"):
        trust_add(tmp_path / "trust.json", made.private, "prover", "Anna")


def test_sign_and_add(tmp_path: Path) -> None:
    first, second = keygen(tmp_path / "a"), keygen(tmp_path / "b")
    path, out = statement(tmp_path), tmp_path / "c.unlearn.json"
    assert sign(path, first.private, out) == sha256_hex(path.read_bytes())
    with pytest.raises(FileExistsError):
        sign(path, second.private, out)
    sign(path, second.private, out, add=True)
    assert [keyid for keyid, _ in parse_envelope(out.read_bytes(), "c").signatures] == [first.keyid, second.keyid]
    with pytest.raises(CheckError):
        sign(path, second.private, out, add=True)
    statement(tmp_path, "another case")
    with pytest.raises(SubjectMismatchError):
        sign(path, second.private, out, add=True)


def test_what_is_no_statement_is_not_signed(tmp_path: Path) -> None:
    made = keygen(tmp_path / "a")
    path = tmp_path / "statement.json"
    path.write_bytes(emit_statement(STATEMENT) + b" ")
    with pytest.raises(MalformedInputError):
        sign(path, made.private, tmp_path / "out.unlearn.json")
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
            sign(statement(tmp_path), path, tmp_path / "e.unlearn.json")
            continue
        with pytest.raises(error):
            load_private_key(path)


def test_keys_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    key, path = ec.derive_private_key(7, ec.SECP256R1()), tmp_path / "k.key"
    for content in (
        b"nothing",
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")),
    ):
        path.write_bytes(content)
        with pytest.raises(MalformedInputError, match=r"k\.key"):
            load_private_key(path)


@pytest.mark.parametrize("prefix", [".", "/", "a\0b"])
def test_prefixes_that_name_no_file(prefix: str) -> None:
    with pytest.raises(MalformedInputError) as caught:
        keygen(Path(prefix))
    assert caught.value.path == "--out"


def test_an_unknown_role_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    trust, made = tmp_path / "trust.json", keygen(tmp_path / "owner")
    trust_init(trust, tmp_path / "policy.toml")
    before = trust.read_bytes()
    with pytest.raises(MalformedInputError) as caught:
        trust_add(trust, made.public, "king", "Anna")
    assert (caught.value.path, trust.read_bytes()) == ("--role", before)


def test_a_signature_is_not_added_beside_one_over_another_payload_type(tmp_path: Path) -> None:
    made, path, out = keygen(tmp_path / "a"), statement(tmp_path), tmp_path / "c.unlearn.json"
    out.write_bytes(emit_envelope(Envelope("text/plain", path.read_bytes(), (("0" * 64, b"x"),))))
    before = out.read_bytes()
    with pytest.raises(UnsupportedVersionError):
        sign(path, made.private, out, add=True)
    assert out.read_bytes() == before
