"""Trust store and policy: closed forms, exact numbers, keys that count only while they are good."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from prune_verify.checker.encoding import canonical_json
from prune_verify.checker.errors import CheckError, MalformedInputError, PolicyError, SignatureError
from prune_verify.checker.policy import (
    ROLES,
    TrustedKey,
    TrustStore,
    default_policy_text,
    emit_trust,
    parse_policy,
    parse_trust,
)
from prune_verify.checker.region import Domain
from prune_verify.signing import public_half

NOW = datetime(2026, 6, 1, tzinfo=UTC)
YEAR = timedelta(days=365)
KEY = public_half(Ed25519PrivateKey.from_private_bytes(b"\1" * 32))
TRUSTED = TrustedKey(KEY, "owner", ("prover",), NOW - YEAR, NOW + YEAR)
STORE = TrustStore(3, NOW + YEAR, (TRUSTED,), dict.fromkeys(ROLES, 1) | {"witness": 2})


def test_parse_of_emit_is_the_identity() -> None:
    revoked = replace(TRUSTED, revoked=(NOW, "lost"))
    bound = replace(TRUSTED, base_models=("ab" * 32, "cd" * 32))
    for store in (STORE, replace(STORE, keys=(revoked,)), replace(STORE, keys=(bound,)), replace(STORE, keys=())):
        assert parse_trust(emit_trust(store), "t") == store


def test_keys_of_a_role() -> None:
    keys, threshold = STORE.keys_for("prover", NOW)
    assert (list(keys), threshold) == ([KEY.keyid], 1)


USELESS = [
    ("another role", TRUSTED, "auditor", NOW, "none"),
    ("an hour before it expires", TRUSTED, "prover", NOW + timedelta(days=364, hours=23), None),
    ("expired key", replace(TRUSTED, not_after=NOW), "prover", NOW, "expired"),
    ("not yet valid", replace(TRUSTED, not_before=NOW + timedelta(seconds=1)), "prover", NOW, "not valid before"),
    ("revoked", replace(TRUSTED, revoked=(NOW, "lost laptop")), "prover", NOW, "lost laptop"),
    ("revoked later", replace(TRUSTED, revoked=(NOW + timedelta(days=1), "lost")), "prover", NOW, None),
]


@pytest.mark.parametrize(("sentence", "key", "role", "now", "reason"), USELESS, ids=[row[0] for row in USELESS])
def test_only_good_keys_count(sentence: str, key: TrustedKey, role: str, now: datetime, reason: str | None) -> None:
    store = replace(STORE, keys=(key,))
    if reason is None:
        assert store.keys_for(role, now)[0]
        return
    with pytest.raises(SignatureError) as caught:
        store.keys_for(role, now)
    assert reason in caught.value.got


UNDATED = [
    ("expired", replace(TRUSTED, not_after=NOW), True),
    ("not yet valid", replace(TRUSTED, not_before=NOW + YEAR / 2), True),
    ("revoked", replace(TRUSTED, revoked=(NOW, "lost")), False),
]


@pytest.mark.parametrize(("sentence", "key", "counts"), UNDATED, ids=[row[0] for row in UNDATED])
def test_a_revoked_key_counts_no_more_also_where_dates_are_not_looked_at(sentence, key, counts: bool) -> None:
    store = replace(STORE, keys=(key,), expires=NOW)
    with pytest.raises(SignatureError):
        store.keys_for("prover", NOW)
    if counts:
        assert list(store.keys_for("prover", NOW, dated=False)[0]) == [KEY.keyid]
        return
    with pytest.raises(SignatureError) as caught:
        store.keys_for("prover", NOW, dated=False)
    assert "lost" in caught.value.got


def test_a_key_speaks_of_the_networks_that_it_is_bound_to() -> None:
    bound = replace(TRUSTED, base_models=("ab" * 32,))
    assert [bound.speaks_of(base * 32, bound=need) for base in ("ab", "cd") for need in (False, True)] == [
        True,
        True,
        False,
        False,
    ]
    assert [TRUSTED.speaks_of("ab" * 32, bound=need) for need in (False, True)] == [True, False]


def test_an_older_version_than_the_policy_has_seen_is_refused() -> None:
    for least in (1, 2, 3):
        STORE.require_version(least, "t")
    with pytest.raises(PolicyError) as caught:
        STORE.require_version(4, "t")
    assert (caught.value.path, caught.value.got) == ("t/version", "3")


def test_unusable_keys_are_named_beside_usable_ones() -> None:
    other = public_half(Ed25519PrivateKey.from_private_bytes(b"\2" * 32))
    revoked = TrustedKey(other, "gone", ("prover",), NOW - YEAR, NOW + YEAR, (NOW, "lost laptop"))
    store = replace(STORE, keys=(TRUSTED, revoked))
    assert list(store.keys_for("prover", NOW)[0]) == [KEY.keyid]
    assert list(store.unusable("prover", NOW)) == [other.keyid]
    assert "lost laptop" in store.unusable("prover", NOW)[other.keyid]
    assert store.unusable("auditor", NOW) == {}


def test_an_expired_store_trusts_nobody() -> None:
    with pytest.raises(SignatureError) as caught:
        STORE.keys_for("prover", NOW + YEAR)
    assert caught.value.rule == "validity of the trust store"


def test_one_key_under_two_names_is_refused() -> None:
    with pytest.raises(MalformedInputError) as caught:
        parse_trust(emit_trust(replace(STORE, keys=(TRUSTED, replace(TRUSTED, name="again")))), "t")
    assert caught.value.path == "t/keys"


TRUST_ROWS = [
    ("another version", lambda d: d.update(formatVersion=2), "t/formatVersion"),
    ("a threshold of zero", lambda d: d["roles"]["prover"].update(threshold=0), "t/roles/prover/threshold"),
    ("an unknown role", lambda d: d["keys"][0].update(roles=["king"]), "t/keys/0/roles"),
    ("a role missing", lambda d: d["roles"].pop("log"), "t/roles"),
    ("a key of small order", lambda d: d["keys"][0].update(spki="MCowBQYDK2VwAyEAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="), "t/keys/0/spki"),
    ("version 0", lambda d: d.update(version=0), "t/version"),
    ("no word on base networks", lambda d: d["keys"][0].pop("baseModels"), "t/keys/0"),
    ("a key for no base network", lambda d: d["keys"][0].update(baseModels=[]), "t/keys/0/baseModels"),
    ("a base network twice", lambda d: d["keys"][0].update(baseModels=["ab" * 32] * 2), "t/keys/0/baseModels"),
    ("a base network by name", lambda d: d["keys"][0].update(baseModels=["base.onnx"]), "t/keys/0/baseModels"),
    ("revoked without a reason", lambda d: d["keys"][0].update(revoked={"at": "2026-01-01T00:00:00Z"}), "t/keys/0/revoked"),
    ("a time without zone", lambda d: d.update(expires="2027-01-01T00:00:00"), "t/expires"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "change", "path"), TRUST_ROWS, ids=[row[0] for row in TRUST_ROWS])
def test_trust_stores_that_are_refused(sentence: str, change, path: str) -> None:
    document = json.loads(emit_trust(STORE))
    change(document)
    with pytest.raises(CheckError) as caught:
        parse_trust(canonical_json(document), "t")
    assert caught.value.path == path


def test_the_default_policy() -> None:
    policy = parse_policy(default_policy_text().encode(), "p")
    assert policy.domain == Domain((Fraction(0),), (Fraction(1),))
    assert (policy.min_forget_radius, policy.min_retained_radius) == (Fraction(1, 10), Fraction(1, 20))
    assert policy.arithmetics == ("ieee754-binary32",)
    assert (policy.max_conflicts, policy.permitted_assumptions, policy.encoding_sha256) == (0, (), None)
    assert not policy.permits("z3_unsat:" + "a" * 64)


def test_assumptions_are_permitted_by_name_or_by_kind() -> None:
    text = default_policy_text().replace("permitted_assumptions = []", 'permitted_assumptions = ["z3_unsat:*", "x"]')
    policy = parse_policy(text.encode(), "p")
    assert policy.permits("z3_unsat:" + "a" * 64)
    assert policy.permits("x")
    assert not policy.permits("cvc5_unsat:" + "a" * 64)
    assert not policy.permits("xx")
    assert not policy.permits("z3_unsat")


POLICY_ROWS = [
    ("a misspelt demand", "min_margin", "min_marign", "p/claims/min_margin"),
    ("a demand left out", "min_margin = 0.05", "", "p/claims/min_margin"),
    ("a radius in words", "min_forget_radius = 0.1", 'min_forget_radius = "0.1"', "p/claims/min_forget_radius"),
    ("a million digits before the point", "max_delta = 0.1", "max_delta = " + "1" * 10**6 + ".5", "p/claims/max_delta"),
    ("a digit too many", "max_delta = 0.1", "max_delta = 0." + "1" * 64, "p/claims/max_delta"),
    ("a hexadecimal number of 20,000 digits", "max_delta = 0.1", "max_delta = 0x" + "f" * 20000, "p/claims/max_delta"),
    ("such a bound of the domain", "upper = 1", "upper = 0x" + "f" * 20000, "p/domain/upper"),
    ("such a count", "max_conflicts = 0", "max_conflicts = 0x" + "f" * 20000, "p/records/max_conflicts"),
    ("such a digest", '"none"', "0x" + "f" * 20000, "p/records/encoding_sha256"),
    ("a list of such numbers", '"none"', "[0x" + "f" * 20000 + "]", "p/records/encoding_sha256"),
    ("a table a thousand deep", 'encoding_sha256 = "none"', "encoding_sha256." + "a." * 1000 + "a = 1", "p/records/encoding_sha256"),
    ("a count above 2^53 - 1", "max_conflicts = 0", "max_conflicts = 9007199254740992", "p/records/max_conflicts"),
    ("more bytes than a file is read", "max_model_bytes = 1073741824", "max_model_bytes = 4294967297", "p/limits/max_model_bytes"),
    ("a limit of nothing", "max_records = 16777216", "max_records = 0", "p/limits/max_records"),
    ("no bounds of the domain", "lower = 0", "lower = []", "domain"),
    ("a negative radius", "min_forget_radius = 0.1", "min_forget_radius = -0.1", "p/claims/min_forget_radius"),
    ("an infinite delta", "max_delta = 0.1", "max_delta = inf", "p/claims/max_delta"),
    ("a number of a million digits", "max_delta = 0.1", "max_delta = 1e2000000", "p/claims/max_delta"),
    ("an unknown claim", '"locality"]', '"vitality"]', "p/claims/required_for_records"),
    ("an unknown arithmetic", '"ieee754-binary32"]', '"bfloat16"]', "p/claims/arithmetics"),
    ("a boolean count", "max_conflicts = 0", "max_conflicts = false", "p/records/max_conflicts"),
    ("no record demanded", "min_retain_records = 100", "min_retain_records = 0", "p/records/min_retain_records"),
    ("an upper-case digest", '"none"', '"' + "AB" * 32 + '"', "p/records/encoding_sha256"),
    ("an empty domain", "upper = 1", "upper = 0", "domain/0"),
    ("a challenge in words", "require_challenge = false", 'require_challenge = "no"', "p/freshness/require_challenge"),
    ("a commitment in words", "require_commitment = false", 'require_commitment = "yes"', "p/records/require_commitment"),
    ("a countersignature in numbers", "require_countersignature = false", "require_countersignature = 1", "p/records/require_countersignature"),
    ("a misspelt demand", "require_commitment = false", "require_comitment = true", "p/records/require_commitment"),
    ("such a demand in another table", "require_challenge = false", "require_challenge = false\nrequire_commitment = true", "p/freshness/require_commitment"),
    ("version 0 of the trust store", "min_trust_version = 1", "min_trust_version = 0", "p/keys/min_trust_version"),
    ("no signature", "min_prover_signatures = 1", "min_prover_signatures = 0", "p/keys/min_prover_signatures"),
    ("more signatures than an envelope has", "min_prover_signatures = 1", "min_prover_signatures = 17", "p/keys/min_prover_signatures"),
    ("fewer auditors than none", "min_auditor_signatures = 0", "min_auditor_signatures = -1", "p/keys/min_auditor_signatures"),
    ("bound keys in words", "require_bound_keys = false", 'require_bound_keys = "no"', "p/keys/require_bound_keys"),
    ("a share of nothing", "min_proved_share = 1", "min_proved_share = 0", "p/claims/min_proved_share"),
    ("a share above one", "min_proved_share = 1", "min_proved_share = 1.01", "p/claims/min_proved_share"),
    ("fewer withdrawn than none", "max_withdrawn = 0", "max_withdrawn = -1", "p/freshness/max_withdrawn"),
    ("an earlier certificate in words", "require_superseded = false", "require_superseded = 0", "p/freshness/require_superseded"),
    ("no time at all", "max_seconds = 86400", "max_seconds = 0", "p/limits/max_seconds"),
    ("half a second", "max_seconds = 86400", "max_seconds = 0.5", "p/limits/max_seconds"),
    ("no demands on keys", "[keys]", "[lock]", "p/keys"),
    ("not TOML", "[limits]", "[limits", "p"),
    ("a table left out", "[freshness]", "[fresh]", "p/freshness"),
    ("a list instead of a table", "[freshness]", "[[freshness]]", "p/freshness"),
    ("a member beside the tables", "# What YOU", "verdict = true\n#", "p/verdict"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "old", "new", "path"), POLICY_ROWS, ids=[row[0] for row in POLICY_ROWS])
def test_policies_that_are_refused(sentence: str, old: str, new: str, path: str) -> None:
    text = default_policy_text()
    assert old in text
    with pytest.raises(MalformedInputError) as caught:
        parse_policy(text.replace(old, new, 1).encode(), "p")
    assert caught.value.path in {path, path.replace("min_margin", "min_marign")}


@pytest.mark.parametrize("name", ["require_commitment", "require_countersignature", "require_superseded"])
def test_a_demand_is_never_left_out_by_mistake(name: str) -> None:
    lines = default_policy_text().splitlines()
    with pytest.raises(MalformedInputError) as caught:
        parse_policy("\n".join(line for line in lines if not line.startswith(name)).encode(), "p")
    assert caught.value.path.endswith(f"/{name}")


def test_numbers_of_64_digits_are_exact() -> None:
    policy = parse_policy(default_policy_text().replace("max_delta = 0.1", "max_delta = 0." + "1" * 63).encode(), "p")
    assert policy.max_delta == Fraction(int("1" * 63), 10**63)


NUMBERS = ("0", "-0", "+1", "1e400", "1e-400", "nan", "-inf", "0x" + "f" * 9000, "9" * 70, "true", '"1"', "[]", "[[1]]", "{}", "{a=1}", "1979-05-27")  # fmt: skip


@given(st.data())
def test_any_value_of_any_knob_gives_a_policy_or_a_check_error(data: st.DataObject) -> None:
    rows = default_policy_text().splitlines()
    place = data.draw(st.sampled_from([n for n, row in enumerate(rows) if " = " in row and row[0] != "#"]))
    rows[place] = rows[place].partition(" = ")[0] + " = " + data.draw(st.sampled_from(NUMBERS))
    with suppress(CheckError):
        policy = parse_policy("\n".join(rows).encode(), "p")
        assert len(repr(policy)) < 5000  # every number can be written


KEYS_OF_A_STORE = json.loads(emit_trust(STORE))


@given(
    st.sampled_from(sorted(KEYS_OF_A_STORE)),
    st.sampled_from([None, True, 0, -1, "", [], {}, [None], {"a": 1}, "9" * 99]),
)
def test_any_member_of_a_trust_store_gives_a_result_or_a_check_error(name: str, value) -> None:
    with suppress(CheckError):
        parse_trust(canonical_json(KEYS_OF_A_STORE | {name: value}), "t")


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_any_bytes_give_a_result_or_a_check_error(data: bytes) -> None:
    for parse in (parse_policy, parse_trust):
        with pytest.raises(CheckError):
            parse(data, "p")
