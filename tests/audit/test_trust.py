"""The auditor's trust store: every change is a version more, nothing is taken back, and an older store is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from prune_verify.audit.keys import MadeKey, keygen
from prune_verify.audit.trust import (
    Validity,
    trust_add,
    trust_init,
    trust_renew,
    trust_revoke,
    trust_show,
    trust_threshold,
)
from prune_verify.checker.encoding import format_time, sha256_hex
from prune_verify.checker.errors import CheckError, MalformedInputError, PolicyError
from prune_verify.checker.policy import parse_policy, parse_trust
from prune_verify.cli import run_words

SOON = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def made(tmp_path: Path) -> MadeKey:
    return keygen(tmp_path / "owner")


@pytest.fixture
def trust(tmp_path: Path) -> Path:
    trust_init(tmp_path / "trust.json", tmp_path / "policy.toml")
    return tmp_path / "trust.json"


def store(trust: Path):
    return parse_trust(trust.read_bytes(), "t")


def demanded(trust: Path) -> int:
    return parse_policy(trust.with_name("policy.toml").read_bytes(), "p").min_trust_version


def test_init_writes_both_files_or_none(tmp_path: Path, trust: Path) -> None:
    assert (store(trust).version, store(trust).keys, demanded(trust)) == (1, (), 1)
    with pytest.raises(FileExistsError):
        trust_init(trust, tmp_path / "other.toml")
    trust.unlink()
    with pytest.raises(FileExistsError):
        trust_init(trust, trust.with_name("policy.toml"))
    with pytest.raises(OSError, match="No such file"):
        trust_init(trust, tmp_path / "nowhere" / "policy.toml")
    for days, template in ((0, "default"), (10, "lenient")):
        with pytest.raises(MalformedInputError):
            trust_init(trust, tmp_path / "other.toml", days=days, template=template)
    assert not trust.exists()
    assert not (tmp_path / "other.toml").exists()


def test_a_key_gains_roles_and_everything_is_shown(tmp_path: Path, trust: Path, made: MadeKey) -> None:
    assert trust_add(trust, made.public, "prover", "Anna").keyid == made.keyid
    changed = trust_add(trust, made.public, "witness", "Anna")
    found = store(trust)
    assert (found.version, len(found.keys), found.keys[0].roles) == (3, 1, ("prover", "witness"))
    assert (changed.sha256, changed.policy) == (sha256_hex(trust.read_bytes()), trust.with_name("policy.toml"))
    shown = trust_show(trust)
    for words in (
        made.keyid,
        "version 3",
        changed.sha256,
        "valid until",
        "may sign about any base network",
        "prover 1",
    ):
        assert words in shown


def test_each_change_raises_what_the_policy_demands(tmp_path: Path, trust: Path, made: MadeKey) -> None:
    text = trust.with_name("policy.toml").read_text()
    trust_add(trust, made.public, "prover", "Anna")
    trust_threshold(trust, "prover", 2)
    trust_renew(trust, 30)
    trust_revoke(trust, made.keyid, "lost")
    assert (store(trust).version, demanded(trust)) == (5, 5)
    assert trust.with_name("policy.toml").read_text() == text.replace(
        "min_trust_version = 1 ", "min_trust_version = 5 "
    )


def test_a_policy_that_demands_more_stays(trust: Path, made: MadeKey) -> None:
    policy = trust.with_name("policy.toml")
    policy.write_text(policy.read_text().replace("min_trust_version = 1 ", "min_trust_version = 9 "))
    assert trust_add(trust, made.public, "prover", "Anna").policy is None
    assert demanded(trust) == 9


def test_a_policy_elsewhere_is_raised_when_it_is_named(tmp_path: Path, trust: Path, made: MadeKey) -> None:
    policy = trust.with_name("policy.toml").rename(tmp_path / "demands.toml")
    assert trust_add(trust, made.public, "prover", "Anna").policy is None
    assert trust_renew(trust, 30, policy=policy).policy == policy
    assert parse_policy(policy.read_bytes(), "p").min_trust_version == 3


def test_a_broken_policy_stops_no_revocation_unless_it_was_named(trust: Path, made: MadeKey) -> None:
    policy = trust.with_name("policy.toml")
    trust_add(trust, made.public, "prover", "Anna")
    policy.write_text("nothing")
    before = trust.read_bytes()
    with pytest.raises(CheckError) as caught:
        trust_revoke(trust, made.keyid, "stolen", policy=policy)
    assert (caught.value.path, trust.read_bytes()) == (str(policy), before)
    assert trust_revoke(trust, made.keyid, "stolen").policy is None
    assert store(trust).keys[0].revoked is not None


def test_a_store_of_an_earlier_version_is_refused(trust: Path, made: MadeKey) -> None:
    """Rollback: the store of before the revocation comes back from a backup."""
    trust_add(trust, made.public, "prover", "Anna")
    old = parse_trust(trust.read_bytes(), "t")
    trust_revoke(trust, made.keyid, "stolen")
    store(trust).require_version(demanded(trust), "t")
    with pytest.raises(PolicyError) as caught:
        old.require_version(demanded(trust), "trust.json")
    assert (caught.value.path, caught.value.got) == ("trust.json/version", "2")
    assert caught.value.expected == "at least 3, the policy's min_trust_version"


def test_times_and_base_networks_of_a_key(tmp_path: Path, trust: Path, made: MadeKey) -> None:
    base = tmp_path / "base.onnx"
    base.write_bytes(b"a network")
    trust_add(trust, made.public, "prover", "Anna", validity=Validity(LONG_AGO, SOON), bases=[str(base), "ab" * 32])
    found = store(trust).keys[0]
    assert (found.not_before, found.not_after) == (LONG_AGO, SOON)
    assert found.base_models == (sha256_hex(b"a network"), "ab" * 32)
    trust_add(trust, made.public, "prover", "Anna", bases=["cd" * 32])
    found = store(trust).keys[0]
    assert (found.not_before, found.not_after, len(found.base_models or ())) == (LONG_AGO, SOON, 3)
    assert "may sign about base networks" in trust_show(trust)


def test_a_revocation_has_a_reason_a_time_and_no_way_back(trust: Path, made: MadeKey) -> None:
    trust_add(trust, made.public, "prover", "Anna")
    trust_revoke(trust, made.keyid[:8], "laptop left on a train", at=SOON)
    trust_revoke(trust, made.keyid, "and it was stolen before", at=LONG_AGO)  # to an earlier time
    assert store(trust).keys[0].revoked == (LONG_AGO, "and it was stolen before")
    assert "revoked since 2020-01-01T00:00:00Z: and it was stolen before" in trust_show(trust)
    before = trust.read_bytes()
    for later in (None, SOON, LONG_AGO):
        with pytest.raises(MalformedInputError) as caught:
            trust_revoke(trust, made.keyid, "found again", at=later)
        assert caught.value.path == "--at"
    with pytest.raises(MalformedInputError) as caught:
        trust_add(trust, made.public, "auditor", "Anna")
    assert (caught.value.path, caught.value.rule) == (str(made.public), "key to take up")
    assert trust.read_bytes() == before


REFUSED = [
    ("an unknown role", lambda t, k: trust_add(t, k.public, "king", "Anna"), "--role"),
    ("no name", lambda t, k: trust_add(t, k.public, "prover", ""), "--name"),
    ("a long name", lambda t, k: trust_add(t, k.public, "prover", "a" * 129), "--name"),
    ("a name with an escape", lambda t, k: trust_add(t, k.public, "prover", "evil\x1b[2J"), "--name"),
    ("a private key", lambda t, k: trust_add(t, k.private, "prover", "Anna"), "owner.key"),
    ("times the wrong way round", lambda t, k: trust_add(t, k.public, "prover", "A", validity=Validity(SOON, LONG_AGO)), "--not-after"),
    ("a base that is neither file nor digest", lambda t, k: trust_add(t, k.public, "prover", "A", bases=["base.onx"]), "--base"),
    ("an upper-case digest of a base", lambda t, k: trust_add(t, k.public, "prover", "A", bases=["AB" * 32]), "--base"),
    ("a keyid that no key has", lambda t, k: trust_revoke(t, "0" * 64, "lost"), "--keyid"),
    ("a keyid of seven digits", lambda t, k: trust_revoke(t, k.keyid[:7], "lost"), "--keyid"),
    ("no reason", lambda t, k: trust_revoke(t, k.keyid, ""), "--reason"),
    ("a reason of two lines", lambda t, k: trust_revoke(t, k.keyid, "lost\n[PASS] signature"), "--reason"),
    ("threshold 0", lambda t, k: trust_threshold(t, "prover", 0), "--threshold"),
    ("threshold -1", lambda t, k: trust_threshold(t, "prover", -1), "--threshold"),
    ("threshold 17", lambda t, k: trust_threshold(t, "prover", 17), "--threshold"),
    ("the threshold of no role", lambda t, k: trust_threshold(t, "king", 1), "--role"),
    ("a store for no day", lambda t, k: trust_renew(t, 0), "--days"),
    ("a store for ever", lambda t, k: trust_renew(t, 36526), "--days"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "change", "path"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_is_refused_leaves_store_and_policy_as_they_were(trust, made, sentence, change, path: str) -> None:
    trust_add(trust, made.public, "prover", "Anna")
    before = trust.read_bytes(), trust.with_name("policy.toml").read_bytes()
    with pytest.raises(CheckError) as caught:
        change(trust, made)
    assert caught.value.path.endswith(path)
    assert (trust.read_bytes(), trust.with_name("policy.toml").read_bytes()) == before


def test_the_commands_do_the_same(tmp_path: Path, made: MadeKey) -> None:
    trust = str(tmp_path / "trust.json")

    def run(*words: str, expected: int = 0) -> dict:
        code, text = run_words(["trust", *words, "--json"])
        assert code == expected, text
        return json.loads(text)

    run("init", trust, "--policy-template", "internal-audit", "--days", "30")
    assert "max_withdrawn = 10 " in (tmp_path / "policy.toml").read_text()
    added = run(
        "add", trust, "--key", str(made.public), "--name", "Anna", "--not-before", format_time(LONG_AGO), "--days", "2"
    )
    assert (added["version"], added["keyid"], added["role"], added["policy"]) == (
        2,
        made.keyid,
        "prover",
        str(tmp_path / "policy.toml"),
    )
    found = store(Path(trust)).keys[0]
    ends = datetime.now(UTC) + timedelta(days=2)
    assert (found.not_before, abs(found.not_after - ends) < timedelta(minutes=5)) == (LONG_AGO, True)
    assert run("threshold", trust, "--role", "prover", "--threshold", "2")["version"] == 3
    assert run("renew", trust, "--days", "60")["version"] == 4
    assert (
        run("revoke", trust, "--key", str(made.public), "--reason", "lost", "--at", format_time(LONG_AGO))["version"]
        == 5
    )
    shown = run("show", trust)
    assert (shown["version"], shown["sha256"]) == (5, sha256_hex(Path(trust).read_bytes()))
    assert shown["keys"][0]["revoked"] == {"at": format_time(LONG_AGO), "reason": "lost"}
    assert run("add", trust, "--key", str(made.public), "--name", "A", "--not-before", "yesterday", expected=2)[
        "error"
    ].startswith("--not-before")
