"""The options of ``keygen``, ``sign``, ``trust`` and ``challenge``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

__all__ = ["Adder", "add_challenge", "add_keygen", "add_secret", "add_sign", "add_trust"]

_ROLES = ["prover", "auditor", "log", "witness"]
_TEMPLATES = ["default", "regulator", "internal-audit"]
_ALGORITHMS = ["ed25519", "ecdsa-p256"]
_TIME = "YYYY-MM-DDTHH:MM:SSZ"

Adder = Callable[[str, str], argparse.ArgumentParser]


def add_secret(parser: argparse.ArgumentParser, what: str) -> None:
    """The option that says where a passphrase or PIN comes from, for every verb that reads a private key.

    Args:
        what: it is, in words.
        parser: of the verb.

    """
    parser.add_argument(
        "--passphrase-env", metavar="NAME", help=f"environment variable with the {what} (default: ask at the terminal)"
    )


def add_keygen(parser: argparse.ArgumentParser) -> None:
    """Add every option of ``keygen``."""
    parser.add_argument("--out", type=Path, required=True, metavar="PREFIX", help="writes PREFIX.key and PREFIX.pub")
    parser.add_argument("--algorithm", choices=_ALGORITHMS, help="of the new key (default: ed25519)")
    parser.add_argument("--encrypt", action="store_true", help="put PREFIX.key under a passphrase")
    parser.add_argument(
        "--key", metavar="URI", help="write PREFIX.pub of a key on a PKCS#11 token: hsm:[KEYID][?label=TOKEN]"
    )
    add_secret(parser, "passphrase, which implies --encrypt, or PIN")


def add_sign(parser: argparse.ArgumentParser) -> None:
    """Add every option of ``sign``."""
    parser.add_argument("statement", type=Path, metavar="STATEMENT.json", help="as `certify` wrote it")
    parser.add_argument(
        "--key", required=True, metavar="FILE|URI", help="a PEM file, or a key that a token or key service holds"
    )
    parser.add_argument("--pub", type=Path, metavar="FILE", help="public half of a key that a key service holds")
    add_secret(parser, "passphrase or PIN")
    parser.add_argument("--out", type=Path, required=True, metavar="NAME.unlearn.json", help="the certificate")
    parser.add_argument("--add", action="store_true", help="add a signature to an envelope that exists")


def add_trust(add: Adder) -> None:
    """Add ``trust`` with its actions.

    Args:
        add: makes the parser of an action from its name and what it does.

    """
    init = _store(add("init", "write a store that trusts nobody yet, and a policy"))
    init.add_argument(
        "--policy", type=Path, metavar="POLICY.toml", help="the policy's place (default: policy.toml beside TRUST.json)"
    )
    init.add_argument(
        "--policy-template", choices=_TEMPLATES, default="default", help="the policy to begin with (default: default)"
    )
    init.add_argument(
        "--days", type=int, default=3650, metavar="N", help="validity of the store, in days (default 3650)"
    )
    take = _changing(add("add", "take up a public key in a role"))
    take.add_argument("--key", type=Path, required=True, metavar="PREFIX.pub", help="the public key, as you got it")
    take.add_argument("--role", choices=_ROLES, default="prover", help="what it may sign as (default: prover)")
    take.add_argument("--name", default="", metavar="TEXT", help="whose key it is")
    take.add_argument(
        "--base",
        action="append",
        default=[],
        metavar="BASE.onnx|SHA256",
        help="the key may sign about this base network only (repeatable; default: about any)",
    )
    take.add_argument("--not-before", metavar="T", help=f"the key counts from then on, {_TIME} (default: a year ago)")
    ends = take.add_mutually_exclusive_group()
    ends.add_argument("--not-after", metavar="T", help=f"and until then, {_TIME} (default: as long as the store)")
    ends.add_argument("--days", type=int, metavar="N", help="and for N days from now")
    revoke = _changing(add("revoke", "a key counts no more"))
    which = revoke.add_mutually_exclusive_group(required=True)
    which.add_argument("--key", type=Path, metavar="PREFIX.pub", help="the public key")
    which.add_argument("--keyid", metavar="ID", help="as `trust show` prints it, or its first digits")
    revoke.add_argument("--reason", required=True, metavar="TEXT", help="printed wherever the key is refused")
    revoke.add_argument("--at", metavar="T", help=f"from then on, {_TIME} (default: now)")
    threshold = _changing(add("threshold", "how many different keys of a role have to sign"))
    threshold.add_argument("--role", choices=_ROLES, required=True, help="whose signatures are counted")
    threshold.add_argument(
        "--threshold", type=int, required=True, metavar="N", help="keys of that role that have to sign"
    )
    renew = _changing(add("renew", "let the store itself be valid for longer"))
    renew.add_argument("--days", type=int, required=True, metavar="N", help="validity from now, in days")
    _store(add("show", "print version, digest, thresholds and keys"))


def _store(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("trust", type=Path, metavar="TRUST.json", help="the trust store")
    return parser


def _changing(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """An action that makes a new version of the store."""
    _store(parser).add_argument(
        "--policy",
        type=Path,
        metavar="POLICY.toml",
        help="the policy whose min_trust_version is raised (default: policy.toml beside TRUST.json, if it is there)",
    )
    return parser


def add_challenge(add: Adder) -> None:
    """Add ``challenge`` with its action."""
    new = add("new", "write a nonce for the owner, whose certificate then cannot be older")
    new.add_argument("--out", type=Path, required=True, metavar="CHALLENGE.json", help="never overwritten")
    new.add_argument("--note", default="", metavar="TEXT", help="for the people who handle it")
