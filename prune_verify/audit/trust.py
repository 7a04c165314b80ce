"""The auditor's trust store, as the commands ``trust ...`` change it: each change is one version more.

A store is replaced whole or not at all. The policy beside it says from which version on a store is good
(``min_trust_version``); each change raises that line too, so that an older store, with a key in it that was revoked
since, is refused (TUF's rollback). Nothing here takes a revocation back.

Source: FORMATS sections 1 and 3; THREATS 2 "Envelope and keys"; python-tuf (versions, roles, thresholds).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prune_verify.audit.policy_templates import policy_text
from prune_verify.checker.encoding import format_time, parse_digest, read_file, sha256_hex
from prune_verify.checker.envelope import load_public_key
from prune_verify.checker.errors import CheckError, MalformedInputError, printable
from prune_verify.checker.policy import (
    ROLES,
    TrustedKey,
    TrustStore,
    emit_trust,
    parse_policy,
    parse_trust,
)
from prune_verify.files import new_file, replace_file

__all__ = [
    "Changed",
    "Validity",
    "trust_add",
    "trust_init",
    "trust_renew",
    "trust_revoke",
    "trust_show",
    "trust_threshold",
]

_MOST_BYTES = 2**22
_MOST_MODEL_BYTES = 2**32
_MOST_SIGNERS = 16
_VERSION = re.compile(r"^(min_trust_version *= *)([0-9]+)", re.MULTILINE)


@dataclass(frozen=True)
class Changed:
    """A store that was changed.

    Args:
        keyid: of the key that the change is about, or empty.
        store: as it is now.
        sha256: of its file.
        policy: the policy whose ``min_trust_version`` was raised, or None where there is none beside the store.

    """

    keyid: str
    store: TrustStore
    sha256: str
    policy: Path | None


@dataclass(frozen=True)
class Validity:
    """From when and until when a key counts: ``not_before`` and ``not_after``, None where the store says it."""

    not_before: datetime | None = None
    not_after: datetime | None = None


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _read(trust: Path) -> TrustStore:
    return parse_trust(read_file(trust, "trust store", _MOST_BYTES), str(trust))


def _readable(text: str, option: str, what: str, most: int) -> str:
    if not text or len(text) > most or not text.isprintable():
        raise MalformedInputError(option, what, f"1 to {most} printable characters", repr(text)[:80])
    return text


def _role(role: str) -> str:
    if role not in ROLES:
        raise MalformedInputError("--role", "role of a key", f"one of {', '.join(ROLES)}", repr(role)[:80])
    return role


def _ends(days: int) -> datetime:
    if not 1 <= days <= 36525:  # noqa: PLR2004 - a century
        raise MalformedInputError("--days", "days of validity", "1 to 36525", str(days))
    return _now() + timedelta(days=days)


def _write(trust: Path, store: TrustStore, policy: Path | None, keyid: str = "") -> Changed:
    """Replace the store by its next version, then raise what the policy demands of it."""
    store = replace(store, version=store.version + 1)
    content = emit_trust(store)
    parse_trust(content, str(trust))
    raised = _raised(policy or trust.with_name("policy.toml"), store.version, asked=policy is not None)
    replace_file(trust, content)
    if raised is not None:
        replace_file(raised[0], raised[1])
    return Changed(keyid, store, sha256_hex(content), None if raised is None else raised[0])


def _raised(path: Path, version: int, *, asked: bool) -> tuple[Path, bytes] | None:
    """The policy with this ``min_trust_version``, if that is more; one that was not asked for may be missing."""
    try:
        data = read_file(path, "policy", _MOST_BYTES)
        demanded = parse_policy(data, str(path)).min_trust_version
    except CheckError:
        if asked:
            raise
        return None  # a revocation does not wait for somebody else's policy to be put right
    if demanded >= version:
        return None
    new = _VERSION.sub(rf"\g<1>{version}", data.decode(), count=1).encode()
    if parse_policy(new, str(path)).min_trust_version != version:
        place = f"{path}/keys/min_trust_version"
        raise MalformedInputError(place, "policy to raise the version in", "a line of its own", "another form")
    return path, new


def trust_init(trust: Path, policy: Path, *, days: int = 3650, template: str = "default") -> None:
    """Write an empty trust store and a policy; neither may exist.

    Args:
        trust: the store.
        policy: the policy.
        days: validity of the store.
        template: name of the policy's text.

    Raises:
        MalformedInputError: no such template, or no such number of days.
        OSError: one of them exists, or the folder cannot be written.

    """
    for path in (trust, policy):
        if path.exists():
            raise FileExistsError(17, "exists already; it is never overwritten", str(path))
    text = policy_text(template).encode()
    parse_policy(text, str(policy))
    new_file(trust, emit_trust(TrustStore(1, _ends(days), (), dict.fromkeys(ROLES, 1))), 0o644)
    try:
        new_file(policy, text, 0o644)
    except BaseException:
        trust.unlink()
        raise


def _base_models(bases: Sequence[str], old: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The base networks that a key is bound to: by digest, or by file."""
    found = list(old or ())
    for text in bases:
        if Path(text).is_file():
            found.append(sha256_hex(read_file(Path(text), "base network", _MOST_MODEL_BYTES)))
        else:
            found.append(parse_digest(text, "--base"))
    return tuple(dict.fromkeys(found)) or None


def trust_add(
    trust: Path,
    key: Path,
    role: str,
    name: str,
    *,
    validity: Validity | None = None,
    bases: Sequence[str] = (),
    policy: Path | None = None,
) -> Changed:
    """Take up a public key in a role. The same key again gains the role, and what else is said of it.

    Args:
        trust: the store.
        key: PEM or DER.
        role: what it may sign.
        name: whose it is.
        validity: when it counts.
        bases: base networks that it may sign about, as files or SHA-256; none: any, or those that it has.
        policy: whose ``min_trust_version`` is raised; ``policy.toml`` beside the store by default.

    Raises:
        CheckError: a file cannot be used, the key is weak or revoked, or its times are the wrong way round.

    """
    _role(role)
    store = _read(trust)
    public = load_public_key(read_file(key, "public key", _MOST_BYTES), str(key))
    _readable(name, "--name", "name of a signer", 128)
    known = {item.key.keyid: item for item in store.keys}
    old, now = known.get(public.keyid), _now()
    if old is not None and old.revoked is not None:
        raise MalformedInputError(str(key), "key to take up", "one that is not revoked", f"revoked: {old.revoked[1]}")
    first = now.replace(year=now.year - 1, day=1)
    item = old or TrustedKey(public, name, (), first, store.expires)
    times = validity or Validity()
    item = replace(
        item,
        roles=tuple(dict.fromkeys((*item.roles, role))),
        not_before=times.not_before or item.not_before,
        not_after=times.not_after or item.not_after,
        base_models=_base_models(bases, item.base_models),
    )
    if not item.not_before < item.not_after:
        got = f"{format_time(item.not_before)} to {format_time(item.not_after)}"
        raise MalformedInputError("--not-after", "validity of a key", "a time after --not-before", got)
    keys = tuple((known | {public.keyid: item}).values())
    return _write(trust, replace(store, keys=keys), policy, public.keyid)


def trust_revoke(
    trust: Path, keyid: str, reason: str, *, at: datetime | None = None, policy: Path | None = None
) -> Changed:
    """Revoke a key from a time on; a revocation can be moved to an earlier time, and never be taken back.

    Args:
        trust: the store.
        keyid: of the key, or enough of its beginning to name one.
        reason: printed wherever the key is refused.
        at: from when on it does not count; now by default. Of a stolen key: when it may have been stolen.
        policy: as for :func:`trust_add`.

    Raises:
        MalformedInputError: no such key, no reason, or one that is revoked from an earlier time on already.

    """
    store = _read(trust)
    _readable(reason, "--reason", "reason of a revocation", 256)
    found = [item for item in store.keys if len(keyid) >= 8 and item.key.keyid.startswith(keyid)]  # noqa: PLR2004 - a name
    if len(found) != 1:
        expected = "the keyid of one key of the store (`trust show`), at least 8 digits of it"
        raise MalformedInputError("--keyid", "key to revoke", expected, f"{keyid[:64]!r}, which fits {len(found)}")
    old, when = found[0], at or _now()
    if old.revoked is not None and old.revoked[0] <= when:
        got = f"revoked from {format_time(old.revoked[0])} on already: {old.revoked[1]}"
        raise MalformedInputError("--at", "time of a revocation", f"one before {format_time(when)}", got)
    keys = tuple(replace(item, revoked=(when, reason)) if item is old else item for item in store.keys)
    return _write(trust, replace(store, keys=keys), policy, old.key.keyid)


def trust_threshold(trust: Path, role: str, threshold: int, *, policy: Path | None = None) -> Changed:
    """Say how many different keys of a role have to sign.

    Args:
        trust: the store.
        role: of the keys.
        threshold: how many, at least 1.
        policy: whose least version is raised, or None.

    Raises:
        MalformedInputError: no such role, or not from 1 to 16.

    """
    if not 1 <= threshold <= _MOST_SIGNERS:
        raise MalformedInputError("--threshold", "threshold of a role", f"1 to {_MOST_SIGNERS}", str(threshold))
    store = _read(trust)
    thresholds = {**store.thresholds, _role(role): threshold}
    return _write(trust, replace(store, thresholds=thresholds), policy)


def trust_renew(trust: Path, days: int, *, policy: Path | None = None) -> Changed:
    """Let the store itself be valid for so many days from now; its keys keep their own times.

    Args:
        trust: the store.
        days: from now.
        policy: whose least version is raised, or None.

    Raises:
        MalformedInputError: not from 1 to 36525 days.

    """
    return _write(trust, replace(_read(trust), expires=_ends(days)), policy)


def trust_show(trust: Path) -> str:
    """The store ``trust`` for a person: its version and digest, the thresholds, a line for each key.

    Raises:
        CheckError: it cannot be used.

    """
    store, now = _read(trust), datetime.now(UTC)
    digest = sha256_hex(read_file(trust, "trust store", _MOST_BYTES))
    state = "EXPIRED at" if now >= store.expires else "until"
    lines = [f"version {store.version}, {state} {format_time(store.expires)}, {len(store.keys)} keys, sha256 {digest}"]
    needed = (f"{role} {store.thresholds[role]}" for role in ROLES)
    lines.append(f"signatures needed: {', '.join(needed)}")
    for item in store.keys:
        state = item.unusable(now) or f"valid until {format_time(item.not_after)}"
        lines.append(
            f"{item.key.keyid}  {item.key.algorithm}  {item.name!a}  {', '.join(item.roles)}  {printable(state)}"
        )
        bound = "any base network" if item.base_models is None else f"base networks {', '.join(item.base_models)}"
        lines.append(f"    may sign about {bound}")
    return "\n".join(lines)
