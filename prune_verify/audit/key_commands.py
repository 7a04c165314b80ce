"""The verbs ``keygen``, ``sign``, ``trust`` and ``challenge``: parsed options in; exit code, text and object out."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime, timedelta

from prune_verify.audit.challenge import new_challenge
from prune_verify.audit.key_files import read_secret
from prune_verify.audit.keys import export_public, keygen, load_private_key, sign
from prune_verify.audit.trust import (
    Changed,
    Validity,
    trust_add,
    trust_init,
    trust_renew,
    trust_revoke,
    trust_show,
    trust_threshold,
)
from prune_verify.checker.encoding import parse_time, read_file, sha256_hex
from prune_verify.checker.envelope import load_public_key
from prune_verify.checker.errors import MalformedInputError
from prune_verify.signing import public_half

__all__ = ["challenge_command", "keygen_command", "sign_command", "trust_command"]

Said = tuple[int, str, dict[str, object]]
_MOST_BYTES = 2**22


def keygen_command(options: argparse.Namespace) -> Said:
    """Run ``keygen``.

    Returns:
        Exit code 0, text, and the object for ``--json``.

    Raises:
        CheckError: an option does not fit, or the token does not show the key.
        OSError: a file exists, or cannot be written.

    """
    if options.key is not None:
        if options.encrypt or options.algorithm is not None:
            raise MalformedInputError("--key", "options of a key that is held elsewhere", "--out alone", "more")
        held = public_half(load_private_key(options.key, options.passphrase_env))
        made = export_public(held, options.out)
        return 0, f"wrote {made.public}\nkeyid {made.keyid}", {"pub": str(made.public), "keyid": made.keyid}
    passphrase = None
    if options.encrypt or options.passphrase_env is not None:
        passphrase = read_secret(f"passphrase of {options.out.name}.key", options.passphrase_env, twice=True)
    made = keygen(options.out, algorithm=options.algorithm or "ed25519", passphrase=passphrase)
    how = "encrypted; keep its passphrase" if passphrase is not None else "keep it secret"
    text = f"wrote {made.private} ({how}) and {made.public}\nkeyid {made.keyid}"
    return 0, text, {"key": str(made.private), "pub": str(made.public), "keyid": made.keyid}


def sign_command(options: argparse.Namespace) -> Said:
    """Run ``sign``.

    Returns:
        Exit code 0, text, and the object for ``--json``.

    Raises:
        CheckError: a file or key cannot be used.
        OSError: the certificate exists, or cannot be written.

    """
    key = load_private_key(options.key, options.passphrase_env, options.pub)
    digest = sign(options.statement, key, options.out, add=options.add)
    text = f"wrote {options.out}\npayload sha256 {digest}"
    return 0, text, {"certificate": str(options.out), "payloadSha256": digest, "keyid": public_half(key).keyid}


def trust_command(options: argparse.Namespace) -> Said:
    """Run ``trust``.

    Returns:
        Exit code 0, text, and the object for ``--json``.

    Raises:
        CheckError: a file or option cannot be used; the store is as it was.
        OSError: a file exists, or cannot be written.

    """
    trust, action = options.trust, options.action
    if action == "show":
        data = read_file(trust, "trust store", _MOST_BYTES)
        return 0, trust_show(trust), {"sha256": sha256_hex(data), **json.loads(data)}
    if action == "init":
        policy = options.policy or trust.with_name("policy.toml")
        trust_init(trust, policy, days=options.days, template=options.policy_template)
        text = f"wrote {trust} (trusts nobody yet) and {policy} (read it and set what you demand)"
        return 0, text, {"trust": str(trust), "policy": str(policy)}
    if action == "add":
        return _added(options)
    if action == "revoke":
        keyid = options.keyid
        if keyid is None:
            keyid = load_public_key(read_file(options.key, "public key", _MOST_BYTES), str(options.key)).keyid
        at = None if options.at is None else parse_time(options.at, "--at")
        return _said(trust_revoke(trust, keyid, options.reason, at=at, policy=options.policy), "is revoked")
    if action == "threshold":
        changed = trust_threshold(trust, options.role, options.threshold, policy=options.policy)
        keys = sum(options.role in item.roles for item in changed.store.keys)
        return _said(changed, f"{options.threshold} keys with role {options.role} have to sign, of {keys} in the store")
    return _said(trust_renew(trust, options.days, policy=options.policy), f"valid for {options.days} days from now")


def _added(options: argparse.Namespace) -> Said:
    first = None if options.not_before is None else parse_time(options.not_before, "--not-before")
    last = None if options.not_after is None else parse_time(options.not_after, "--not-after")
    if options.days is not None:
        last = datetime.now(UTC).replace(microsecond=0) + timedelta(days=min(max(options.days, 0), 36525))
    changed = trust_add(
        options.trust,
        options.key,
        options.role,
        options.name,
        validity=Validity(first, last),
        bases=options.base,
        policy=options.policy,
    )
    code, text, data = _said(changed, f"({options.name}) now has role {options.role}")
    return code, text, {**data, "role": options.role}


def _said(changed: Changed, what: str) -> Said:
    """What a change came to, and what the policy now says of the store's version."""
    store, raised = changed.store, changed.policy
    lines = [f"{changed.keyid} {what}".strip(), f"version {store.version}, sha256 {changed.sha256}"]
    if raised is None:
        lines.append(f"see that your policy has min_trust_version = {store.version}: older stores are then refused")
    else:
        lines.append(f"{raised} now demands min_trust_version = {store.version}")
    data: dict[str, object] = {"version": store.version, "sha256": changed.sha256}
    data["policy"] = None if raised is None else str(raised)
    return 0, "\n".join(lines), data | ({"keyid": changed.keyid} if changed.keyid else {})


def challenge_command(options: argparse.Namespace) -> Said:
    """Run ``challenge``.

    Returns:
        Exit code 0, text, and the object for ``--json``.

    Raises:
        CheckError: a note that cannot be used.
        OSError: the file exists, or cannot be written.

    """
    nonce = new_challenge(options.out, options.note)
    text = f"wrote {options.out}\nnonce {nonce}\ngive it to the owner (certify --challenge) and keep it for verify"
    return 0, text, {"challenge": str(options.out), "nonce": nonce}
