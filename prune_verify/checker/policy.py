"""What the auditor brings: the trust store (whose keys, in which roles) and the policy (what is demanded).

Nothing that steers a check may come from a certificate; it comes from these two files. Both are closed:
an unknown member is refused, so that a misspelt demand is never silently no demand.

Source: FORMATS section 1 (``policy.toml``, ``trust.json``); THREATS 2; python-tuf (roles, thresholds).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from fractions import Fraction

from prune_verify.checker.claim import CLAIM_KINDS
from prune_verify.checker.encoding import (
    MAX_INTEGER,
    Json,
    Members,
    canonical_json,
    format_time,
    parse_base64,
    parse_digest,
    parse_json,
)
from prune_verify.checker.envelope import MAX_SIGNATURES, PublicKey, load_public_key
from prune_verify.checker.errors import MalformedInputError, PolicyError, SignatureError, UnsupportedVersionError
from prune_verify.checker.region import Domain
from prune_verify.checker.rules import BINARY32, REAL

__all__ = [
    "ROLES",
    "Policy",
    "TrustStore",
    "TrustedKey",
    "default_policy_text",
    "emit_trust",
    "parse_policy",
    "parse_trust",
]

FORMAT_VERSION = 1
ROLES = ("prover", "auditor", "log", "witness")
_MOST_DIGITS = 64  # as decimals in strings
_MOST_BYTES = 2**32  # a file is read whole
_KEY = ("name", "spki", "roles", "baseModels", "notBefore", "notAfter", "revoked")
_MOST_MODELS = 1024  # that one key is bound to


# --- trust store ---


@dataclass(frozen=True)
class TrustedKey:
    """A key in the store.

    Args:
        key: checked when it was loaded.
        name: whose it is.
        roles: what it may sign.
        not_before: when it becomes valid.
        not_after: when it ends.
        revoked: (time, reason), or None.
        base_models: SHA-256 of the base networks that it may sign about; None: of any.

    """

    key: PublicKey
    name: str
    roles: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    revoked: tuple[datetime, str] | None = None
    base_models: tuple[str, ...] | None = None

    def unusable(self, now: datetime, *, dated: bool = True) -> str | None:
        """Why the key does not count ``now``, or None; revocation counts also where it is not ``dated``."""
        if self.revoked is not None and self.revoked[0] <= now:
            return f"revoked since {format_time(self.revoked[0])}: {self.revoked[1]}"
        if dated and not self.not_before <= now:
            return f"not valid before {format_time(self.not_before)}"
        return None if not dated or now < self.not_after else f"expired at {format_time(self.not_after)}"

    def speaks_of(self, base_sha256: str, *, bound: bool) -> bool:
        """Whether the key may sign about the base ``base_sha256``; with ``bound``, only a key bound to it may."""
        return not bound if self.base_models is None else base_sha256 in self.base_models


@dataclass(frozen=True)
class TrustStore:
    """Keys by role; rises by one version with each change.

    Args:
        version: from 1.
        expires: the store itself ends.
        keys: each SPKI once.
        thresholds: for each role, how many distinct keys must sign.

    """

    version: int
    expires: datetime
    keys: tuple[TrustedKey, ...]
    thresholds: Mapping[str, int]

    def keys_for(self, role: str, now: datetime, *, dated: bool = True) -> tuple[dict[str, tuple[PublicKey, str]], int]:
        """The keys of a role, by keyid, that count ``now`` (``dated``: by their dates), with names, and its threshold.

        Raises:
            SignatureError: the store has expired, or the role has no usable key (the reasons are named).

        """
        if dated and now >= self.expires:
            raise SignatureError(
                "trust store", "validity of the trust store", format_time(now), format_time(self.expires)
            )
        refused = self.unusable(role, now, dated=dated)
        keys = [item for item in self.keys if role in item.roles and item.key.keyid not in refused]
        if not keys:
            reasons = "; ".join(refused.values()) or "none"
            raise SignatureError("trust store", f"a usable key with role {role}", "one", reasons)
        return {item.key.keyid: (item.key, item.name) for item in keys}, self.thresholds.get(role, 1)

    def unusable(self, role: str, now: datetime, *, dated: bool = True) -> dict[str, str]:
        """Whose keys of a role do not count ``now``, where ``dated`` by their dates too, and why, by keyid."""
        reasons = ((item, item.unusable(now, dated=dated)) for item in self.keys if role in item.roles)
        return {item.key.keyid: f"{item.name} {reason}" for item, reason in reasons if reason is not None}

    def require_version(self, least: int, path: str) -> None:
        """Refuse a store older than version ``least``: a revocation would be undone (rollback).

        Raises:
            PolicyError: it is older.

        """
        if self.version < least:
            expected = f"at least {least}, the policy's min_trust_version"
            raise PolicyError(f"{path}/version", "version of the trust store", expected, str(self.version))


def _trusted_key(value: Json, path: str) -> TrustedKey:
    fields = Members(value, path, _KEY)
    revoked = None
    if not fields.null("revoked"):
        found = fields.members("revoked", ("at", "reason"))
        revoked = found.time("at"), found.text("reason")
    return TrustedKey(
        key=load_public_key(parse_base64(fields.raw("spki"), fields.place("spki")), fields.place("spki")),
        name=fields.text("name", longest=128),
        roles=fields.texts("roles", among=ROLES),
        not_before=fields.time("notBefore"),
        not_after=fields.time("notAfter"),
        revoked=revoked,
        base_models=None if fields.null("baseModels") else _base_models(fields),
    )


def _base_models(fields: Members) -> tuple[str, ...]:
    place = fields.place("baseModels")
    found = tuple(parse_digest(item, place) for item in fields.items("baseModels", most=_MOST_MODELS))
    if not found or len(set(found)) != len(found):
        raise MalformedInputError(place, "base networks of a key", "null, or different digests", str(len(found)))
    return found


def parse_trust(data: bytes, path: str) -> TrustStore:
    """Read ``trust.json``.

    Raises:
        MalformedInputError: not of the closed form, a key twice, a key that is none.
        UnsupportedVersionError: another version or algorithm.
        SignatureError: a weak key.

    """
    fields = Members(parse_json(data, path), path, ("formatVersion", "version", "expires", "keys", "roles"))
    if fields.integer("formatVersion") != FORMAT_VERSION:
        raise UnsupportedVersionError(fields.place("formatVersion"), "version", str(FORMAT_VERSION), "another")
    listed = fields.items("keys", most=1024)
    keys = tuple(_trusted_key(item, f"{fields.place('keys')}/{i}") for i, item in enumerate(listed))
    if len({item.key.keyid for item in keys}) != len(keys):
        raise MalformedInputError(
            fields.place("keys"), "keys", "each once", "one twice, which could reach a threshold alone"
        )
    roles = fields.members("roles", ROLES)
    thresholds = {}
    for role in ROLES:
        thresholds[role] = roles.members(role, ("threshold",)).integer("threshold", least=1, most=16)
    return TrustStore(fields.integer("version", least=1), fields.time("expires"), keys, thresholds)


def emit_trust(store: TrustStore) -> bytes:
    """The canonical bytes of ``trust.json``."""
    from base64 import b64encode

    keys: list[Json] = []
    for item in store.keys:
        revoked: Json = None
        if item.revoked is not None:
            revoked = {"at": format_time(item.revoked[0]), "reason": item.revoked[1]}
        keys.append(
            {
                "name": item.name,
                "spki": b64encode(item.key.spki).decode(),
                "roles": list(item.roles),
                "baseModels": None if item.base_models is None else list(item.base_models),
                "notBefore": format_time(item.not_before),
                "notAfter": format_time(item.not_after),
                "revoked": revoked,
            }
        )
    return canonical_json(
        {
            "formatVersion": FORMAT_VERSION,
            "version": store.version,
            "expires": format_time(store.expires),
            "keys": keys,
            "roles": {role: {"threshold": store.thresholds[role]} for role in ROLES},
        }
    )


# --- policy ---


@dataclass(frozen=True)
class Policy:
    """What a certificate has to prove for the auditor. Names and meaning: the text of :func:`default_policy_text`."""

    domain: Domain
    min_trust_version: int
    min_prover_signatures: int
    min_auditor_signatures: int
    require_bound_keys: bool
    min_forget_radius: Fraction
    min_retained_radius: Fraction
    min_margin: Fraction
    max_delta: Fraction
    max_band_width: Fraction
    required_claims_records: tuple[str, ...]
    required_claims_class: tuple[str, ...]
    arithmetics: tuple[str, ...]
    permitted_assumptions: tuple[str, ...]
    min_proved_share: Fraction
    max_conflicts: int
    max_slab_share: Fraction
    max_already_wrong_share: Fraction
    min_forget_records: int
    min_retain_records: int
    encoding_sha256: str | None
    require_commitment: bool
    require_countersignature: bool
    max_age_days: int
    require_challenge: bool
    require_superseded: bool
    max_withdrawn: int
    max_model_bytes: int
    max_evidence_bytes: int
    max_records: int
    max_seconds: int

    def permits(self, assumption: str) -> bool:
        """Whether an assumption is on the list, by its name or by its kind (``z3_unsat:*``)."""
        kind, colon, _ = assumption.partition(":")
        return assumption in self.permitted_assumptions or (colon != "" and f"{kind}:*" in self.permitted_assumptions)


_DEFAULT = """\
# What YOU demand of a certificate. Nothing here can be changed by the certificate; unknown members are refused.

# Where inputs lie, in input units: one interval for all numbers of a record, or a list of them. It must be the owner's.
[domain]
lower = {lower}
upper = {upper}

[keys]
min_trust_version = 1            # an older trust store is refused (rollback); `trust` commands raise it
min_prover_signatures = 1        # different keys with role prover; more where the trust store's threshold is higher
min_auditor_signatures = 0       # other keys with role auditor that must have countersigned the certificate
require_bound_keys = false       # only keys that the trust store binds to the base network count (trust add --base)

[claims]
min_forget_radius = 0.1          # l-infinity; a smaller region could be one exact record only
min_retained_radius = 0.05
min_margin = 0.05                # by which a forgotten label loses, in logits
max_delta = 0.1                  # family learned: how far a retained logit may move
max_band_width = 5               # claims of kind band: how far the margin of a forgotten label may range, in logits
required_for_records = ["forget", "retain_exact", "locality"]      # family learned: ["forget", "retain_close"]
required_for_class = ["forget_class", "retain_other_labels"]
arithmetics = ["ieee754-binary32"]     # "real" alone never gives VERIFIED: a network can tell the two apart
permitted_assumptions = []       # such as "z3_unsat:*"; each is printed with the verdict
min_proved_share = 1             # of each claim about retained records (the others are named); of forget records: all

[records]
max_conflicts = 0                # retained records inside a support; they are listed by index
max_slab_share = 0.001           # their share of the retained set
max_already_wrong_share = 0.1    # share of the forget set that the base does not answer with its label anyway
min_forget_records = 1
min_retain_records = 100
encoding_sha256 = "none"         # digest of the encoding of tabular records
require_commitment = false       # demand that forget and retained set are the training set committed to (--commitment)
require_countersignature = false # of that commitment, by keys with role auditor: its time is not the owner's word alone

[freshness]
max_age_days = 365
require_challenge = false        # demand your own nonce (--challenge)
require_superseded = false       # where a certificate replaces another one, demand that one (--supersedes)
max_withdrawn = 0                # of that one's records and classes, and of its requests, how many may be gone

[limits]                         # of bytes at most 4294967296
max_model_bytes = 1073741824
max_evidence_bytes = 268435456
max_records = 16777216
max_seconds = 86400              # of verification, looked at between claims; longer is UNDECIDED
"""


def default_policy_text(lower: str = "0", upper: str = "1") -> str:
    """The annotated default policy, as TOML, for inputs from ``lower`` to ``upper``."""
    return _DEFAULT.format(lower=lower, upper=upper)


def _is_short(number: Decimal | int) -> bool:
    """Whether a finite number has few digits in plain notation: no 1e2000000, no million digits."""
    if isinstance(number, int):
        return len(f"{abs(number):x}") <= _MOST_DIGITS  # hexadecimal digits are counted in linear time
    return max(number.adjusted(), 0) + 1 - min(int(number.as_tuple().exponent), 0) <= _MOST_DIGITS


_MEMBERS = {
    "domain": ("lower", "upper"),
    "keys": ("min_trust_version", "min_prover_signatures", "min_auditor_signatures", "require_bound_keys"),
    "claims": (
        "min_forget_radius", "min_retained_radius", "min_margin", "max_delta", "max_band_width",
        "required_for_records", "required_for_class", "arithmetics", "permitted_assumptions", "min_proved_share",
    ),
    "records": (
        "max_conflicts", "max_slab_share", "max_already_wrong_share", "min_forget_records", "min_retain_records",
        "encoding_sha256", "require_commitment", "require_countersignature",
    ),
    "freshness": ("max_age_days", "require_challenge", "require_superseded", "max_withdrawn"),
    "limits": ("max_model_bytes", "max_evidence_bytes", "max_records", "max_seconds"),
}  # fmt: skip


class _Table:
    """A closed TOML table."""

    def __init__(self, value: object, path: str, names: tuple[str, ...]) -> None:
        if not isinstance(value, dict):
            raise MalformedInputError(path, "form", "a table", type(value).__name__)
        for name in (*names, *value):
            if name not in value or name not in names:
                raise MalformedInputError(
                    f"{path}/{name}", "closed form", "exactly the known members", "missing or unknown"
                )
        self.value, self.path = value, path

    def _bad(self, name: str, expected: str) -> MalformedInputError:
        found = self.value[name]
        short = _is_short(found) if isinstance(found, int) else isinstance(found, str | Decimal)
        got = repr(found)[:80] if short else type(found).__name__  # repr fails on huge integers and deep tables
        return MalformedInputError(f"{self.path}/{name}", "form", expected, got)

    def decimal(self, name: str, value: object = None) -> Fraction:
        found = self.value[name] if value is None else value
        if isinstance(found, bool) or not isinstance(found, Decimal | int) or not Decimal(found).is_finite():
            raise self._bad(name, "a number in plain notation")
        if not _is_short(found):
            raise self._bad(name, f"a number of at most {_MOST_DIGITS} digits")
        return Fraction(found)

    def decimals(self, name: str) -> tuple[Fraction, ...]:
        found = self.value[name]
        return tuple(self.decimal(name, item) for item in (found if isinstance(found, list) else [found]))

    def amount(self, name: str) -> Fraction:
        found = self.decimal(name)
        if found < 0:
            raise self._bad(name, "a number from 0")
        return found

    def share(self, name: str) -> Fraction:
        found = self.decimal(name)
        if not 0 < found <= 1:
            raise self._bad(name, "a number above 0, at most 1")
        return found

    def integer(self, name: str, least: int = 0, most: int = MAX_INTEGER) -> int:
        found = self.value[name]
        if isinstance(found, bool) or not isinstance(found, int) or not least <= found <= most:
            raise self._bad(name, f"an integer from {least} to {most}")
        return found

    def boolean(self, name: str) -> bool:
        found = self.value[name]
        if not isinstance(found, bool):
            raise self._bad(name, "true or false")
        return found

    def texts(self, name: str, among: tuple[str, ...] = ()) -> tuple[str, ...]:
        found = self.value[name]
        if not isinstance(found, list) or not all(isinstance(t, str) and (not among or t in among) for t in found):
            raise self._bad(name, f"a list of {', '.join(among) or 'strings'}")
        return tuple(found)

    def text(self, name: str) -> str:
        found = self.value[name]
        if not isinstance(found, str):
            raise self._bad(name, "a string")
        return found


def parse_policy(data: bytes, path: str) -> Policy:
    """Read ``policy.toml``.

    Raises:
        MalformedInputError: not TOML, a member missing or unknown, or of another form; the path names it.

    """
    tables = _tables(data, path)
    keys, claims, records = tables["keys"], tables["claims"], tables["records"]
    freshness, limits = tables["freshness"], tables["limits"]
    encoding = records.text("encoding_sha256")
    return Policy(
        domain=Domain(tables["domain"].decimals("lower"), tables["domain"].decimals("upper")),
        min_trust_version=keys.integer("min_trust_version", 1),
        min_prover_signatures=keys.integer("min_prover_signatures", 1, MAX_SIGNATURES),
        min_auditor_signatures=keys.integer("min_auditor_signatures", 0, MAX_SIGNATURES),
        require_bound_keys=keys.boolean("require_bound_keys"),
        min_forget_radius=claims.amount("min_forget_radius"),
        min_retained_radius=claims.amount("min_retained_radius"),
        min_margin=claims.amount("min_margin"),
        max_delta=claims.amount("max_delta"),
        max_band_width=claims.amount("max_band_width"),
        required_claims_records=claims.texts("required_for_records", CLAIM_KINDS),
        required_claims_class=claims.texts("required_for_class", CLAIM_KINDS),
        arithmetics=claims.texts("arithmetics", (BINARY32, REAL)),
        permitted_assumptions=claims.texts("permitted_assumptions"),
        min_proved_share=claims.share("min_proved_share"),
        max_conflicts=records.integer("max_conflicts"),
        max_slab_share=records.amount("max_slab_share"),
        max_already_wrong_share=records.amount("max_already_wrong_share"),
        min_forget_records=records.integer("min_forget_records", 1),
        min_retain_records=records.integer("min_retain_records", 1),
        encoding_sha256=None if encoding == "none" else parse_digest(encoding, f"{path}/records/encoding_sha256"),
        require_commitment=records.boolean("require_commitment"),
        require_countersignature=records.boolean("require_countersignature"),
        max_age_days=min(freshness.integer("max_age_days", 1), 10**6),
        require_challenge=freshness.boolean("require_challenge"),
        require_superseded=freshness.boolean("require_superseded"),
        max_withdrawn=freshness.integer("max_withdrawn"),
        max_model_bytes=limits.integer("max_model_bytes", 1, _MOST_BYTES),
        max_evidence_bytes=limits.integer("max_evidence_bytes", 1, _MOST_BYTES),
        max_records=limits.integer("max_records", 1),
        max_seconds=limits.integer("max_seconds", 1),
    )


def _tables(data: bytes, path: str) -> dict[str, _Table]:
    """The closed tables of a policy, by name."""
    try:
        found = tomllib.loads(data.decode(), parse_float=Decimal)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValueError, RecursionError, ArithmeticError) as error:
        raise MalformedInputError(path, "policy", "TOML", str(error)) from None
    whole = _Table(found, path, tuple(_MEMBERS))
    return {name: _Table(whole.value[name], f"{path}/{name}", names) for name, names in _MEMBERS.items()}
