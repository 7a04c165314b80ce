"""Keys, stores and freshness: whose signature counts, for which network, and what an older certificate still says.

Rows are named by the attack (THREATS 2 "Envelope and keys", T11, T12); what is a file alone stands in certs/vectors.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from prune_verify.audit.challenge import new_challenge
from prune_verify.audit.keys import keygen, load_private_key
from prune_verify.audit.trust import Validity, trust_add, trust_revoke, trust_threshold
from prune_verify.checker.encoding import canonical_json, format_time, sha256_hex
from prune_verify.checker.envelope import parse_envelope
from prune_verify.checker.errors import PolicyError
from prune_verify.checker.merkle import set_root
from prune_verify.checker.policy import parse_trust
from prune_verify.checker.records import canonical_records, load_records
from prune_verify.checker.verify import verify
from prune_verify.signing import sign_payload
from tests.dishonest_owner import Owner, failure

pytestmark = pytest.mark.prover
ANOTHER_BASE = "ab" * 32
SIGNATURES = "a.unlearn.json/signatures"
BASE = "predicate/originalModel/sha256"
NOW = datetime.now(UTC).replace(microsecond=0)


def demand(owner: Owner, **knobs: object) -> None:
    """Change what the auditor's policy demands."""
    path = owner.folder / "policy.toml"
    lines = path.read_text().splitlines()
    for name, value in knobs.items():
        place = next(n for n, line in enumerate(lines) if line.startswith(f"{name} = "))
        lines[place] = f"{name} = {value}"
    path.write_text("\n".join(lines) + "\n")


def key(owner: Owner, name: str, *roles: str, bases: tuple[str, ...] = ()):
    """A key of somebody's, in the auditor's store where it has a role."""
    made = keygen(owner.folder / name)
    for role in roles:
        trust_add(owner.folder / "trust.json", made.public, role, name, bases=bases)
    assert made.private is not None
    return load_private_key(made.private)


def sign_by(owner: Owner, *signers: object) -> None:
    """The statement as it is, signed by others."""
    data = canonical_json(owner.statement())
    content, others = b"", ()
    for signer in signers:
        content = sign_payload(data, signer, others)  # type: ignore[arg-type] # a private key
        others = parse_envelope(content, "a").signatures
    owner.certificate.write_bytes(content)


def own(owner: Owner):
    return load_private_key(owner.folder / "owner.key")


def base_sha256(owner: Owner) -> str:
    return sha256_hex((owner.folder / "base.onnx").read_bytes())


def bind(owner: Owner, *bases: str) -> None:
    """Bind the owner's key to base networks."""
    trust_add(owner.folder / "trust.json", owner.folder / "owner.pub", "prover", "owner", bases=bases)


# --- whose signature counts ---


def two_owners(owner: Owner) -> None:
    """The store knows owner B, whose key is for another network; B signs about A's."""
    bind(owner, base_sha256(owner))
    sign_by(owner, key(owner, "other owner", "prover", bases=(ANOTHER_BASE,)))


def two_owners_together(owner: Owner) -> None:
    trust_threshold(owner.folder / "trust.json", "prover", 2)
    sign_by(owner, own(owner), key(owner, "other owner", "prover", bases=(ANOTHER_BASE,)))


def unbound(owner: Owner) -> None:
    demand(owner, require_bound_keys="true")


def one_of_two(owner: Owner) -> None:
    demand(owner, min_prover_signatures=2)


def no_countersignature(owner: Owner) -> None:
    demand(owner, min_auditor_signatures=1)


def its_own_auditor(owner: Owner) -> None:
    """A key with both roles signs once: the owner would countersign itself."""
    demand(owner, min_auditor_signatures=1)
    trust_add(owner.folder / "trust.json", owner.folder / "owner.pub", "auditor", "owner")
    key(owner, "auditor", "auditor")


def countersigned_by_a_stranger(owner: Owner) -> None:
    demand(owner, min_auditor_signatures=1)
    key(owner, "auditor", "auditor")
    sign_by(owner, own(owner), key(owner, "stranger"))


def countersigned_by_a_witness(owner: Owner) -> None:
    demand(owner, min_auditor_signatures=1)
    key(owner, "auditor", "auditor")
    sign_by(owner, own(owner), key(owner, "witness", "witness"))


def countersigned_for_another_network(owner: Owner) -> None:
    demand(owner, min_auditor_signatures=1)
    sign_by(owner, own(owner), key(owner, "auditor", "auditor", bases=(ANOTHER_BASE,)))


def auditor_alone(owner: Owner) -> None:
    demand(owner, min_auditor_signatures=1)
    sign_by(owner, key(owner, "auditor", "auditor"))


def no_auditor_known(owner: Owner) -> None:
    demand(owner, min_auditor_signatures=1)
    sign_by(owner, own(owner), key(owner, "auditor"))


def revoked_auditor(owner: Owner) -> None:
    demand(owner, min_auditor_signatures=1)
    sign_by(owner, own(owner), key(owner, "auditor", "auditor"))
    keyid = parse_trust((owner.folder / "trust.json").read_bytes(), "t").keys[-1].key.keyid
    trust_revoke(owner.folder / "trust.json", keyid, "left the firm")


SIGNERS = [
    ("key of owner B on owner A's model", two_owners, BASE),
    ("key of owner B helps A to a threshold of two", two_owners_together, BASE),
    ("a key that is bound to no network, where the policy wants bound ones", unbound, BASE),
    ("one signature, where the policy wants two", one_of_two, SIGNATURES),
    ("nobody countersigned and no auditor is known", no_countersignature, "trust store"),
    ("the prover is its own auditor", its_own_auditor, SIGNATURES),
    ("countersigned by a stranger", countersigned_by_a_stranger, SIGNATURES),
    ("countersigned in another role", countersigned_by_a_witness, SIGNATURES),
    ("countersigned by an auditor of another network", countersigned_for_another_network, BASE),
    ("signed by the auditor alone", auditor_alone, SIGNATURES),
    ("countersigned, but the store has no auditor", no_auditor_known, "trust store"),
    ("countersigned by an auditor whose key is revoked", revoked_auditor, "trust store"),
]


@pytest.mark.parametrize(("attack", "change", "path"), SIGNERS, ids=[row[0] for row in SIGNERS])
def test_signatures_that_do_not_count(owner: Owner, attack: str, change: Callable[[Owner], None], path: str) -> None:
    change(owner)
    assert failure(owner.verdict()) == ("REJECTED", "E_SIGNATURE", path)


def test_signatures_that_count(owner: Owner) -> None:
    """The same demands, met."""
    bind(owner, ANOTHER_BASE, base_sha256(owner))
    second = key(owner, "second", "prover", bases=(base_sha256(owner),))
    auditor = key(owner, "auditor", "auditor", bases=(base_sha256(owner),))
    demand(owner, min_auditor_signatures=1, min_prover_signatures=2, require_bound_keys="true")
    sign_by(owner, auditor, own(owner), second)
    verdict = owner.verdict()
    assert verdict.word == "VERIFIED", verdict.text()
    assert [name for _, name in verdict.signers] == ["owner", "second", "auditor"]


def test_the_verdict_names_the_store_that_it_rests_on(owner: Owner) -> None:
    data = (owner.folder / "trust.json").read_bytes()
    first = owner.verdict().checks[0]
    version = parse_trust(data, "t").version
    assert (first.name, first.detail) == ("trust store", f"version {version}, sha256 {sha256_hex(data)}")


# --- rollback and revocation ---


def test_an_older_store_is_refused_before_anything_is_read(owner: Owner, capsys) -> None:
    """The store of before the revocation comes back: exit 2, and no verdict."""
    trust = owner.folder / "trust.json"
    old = trust.read_bytes()
    trust_revoke(trust, parse_trust(old, "t").keys[0].key.keyid, "stolen")
    assert failure(owner.verdict()) == ("REJECTED", "E_SIGNATURE", "trust store")
    trust.write_bytes(old)
    with pytest.raises(PolicyError) as caught:
        owner.verdict()
    assert caught.value.path == f"{trust}/version"
    assert owner.exit_code() == 2
    assert "VERDICT" not in capsys.readouterr().out


DATES = [
    ("revoked before it was issued", timedelta(days=-30), None, "REJECTED"),
    ("revoked after it was issued: a thief can date back", timedelta(0), None, "REJECTED"),
    ("to be revoked later", timedelta(days=1), None, "VERIFIED"),
    ("archived: judged at a time before the revocation", timedelta(days=2), timedelta(days=1), "VERIFIED"),
    ("archived: judged at a time after the revocation", timedelta(days=2), timedelta(days=3), "REJECTED"),
]


@pytest.mark.parametrize(("sentence", "after", "judged", "word"), DATES, ids=[row[0] for row in DATES])
def test_a_revoked_key(owner: Owner, sentence: str, after: timedelta, judged: timedelta | None, word: str) -> None:
    trust = owner.folder / "trust.json"
    keyid = parse_trust(trust.read_bytes(), "t").keys[0].key.keyid
    trust_revoke(trust, keyid, "laptop stolen", at=NOW + after)
    verdict = owner.verdict(at_time=None if judged is None else NOW + judged)
    assert verdict.word == word, verdict.text()
    if word == "VERIFIED":  # it is never passed over in silence
        assert any("laptop stolen" in warning for warning in verdict.warnings)
        return
    assert failure(verdict)[1:] == ("E_SIGNATURE", "trust store")


# --- what is skipped caps the verdict ---


def test_skipping_dates_shows_the_rest_and_is_never_more_than_undecided(owner: Owner) -> None:
    trust_add(
        owner.folder / "trust.json",
        owner.folder / "owner.pub",
        "prover",
        "owner",
        validity=Validity(None, NOW - timedelta(days=1)),
    )
    late = datetime(2200, 1, 1, tzinfo=UTC)
    assert failure(owner.verdict(at_time=late))[:2] == ("REJECTED", "E_SIGNATURE")
    verdict = owner.verdict(at_time=late, insecure_skip_time=True)
    assert (verdict.word, verdict.code, verdict.exit_code) == ("UNDECIDED", "E_INSECURE", 3)
    assert [check.name for check in verdict.checks if check.status != "PASS"] == ["validity"]
    assert all(claim.proved == claim.total for claim in verdict.claims)
    assert "--insecure-skip-time" in verdict.text()
    keyid = parse_trust((owner.folder / "trust.json").read_bytes(), "t").keys[0].key.keyid
    trust_revoke(owner.folder / "trust.json", keyid, "stolen")
    assert failure(owner.verdict(insecure_skip_time=True)) == ("REJECTED", "E_SIGNATURE", "trust store")


def test_skipping_the_signature_shows_the_rest_and_is_never_more_than_undecided(owner: Owner) -> None:
    sign_by(owner, key(owner, "stranger"))
    assert failure(owner.verdict()) == ("REJECTED", "E_SIGNATURE", SIGNATURES)
    verdict = owner.verdict(insecure_skip_signature=True)
    assert (verdict.word, verdict.code, verdict.payload_sha256, verdict.signers) == ("UNDECIDED", "E_INSECURE", "", ())
    assert all(claim.proved == claim.total for claim in verdict.claims)
    owner.edit(lambda d: d["predicate"]["claims"][0]["counts"].update(total=9, proved=9))
    assert failure(owner.verdict(insecure_skip_signature=True))[:2] == ("REJECTED", "E_PROOF")


@pytest.mark.parametrize("option", ["--insecure-skip-signature", "--insecure-skip-time"])
def test_the_command_says_what_it_skipped(owner: Owner, capsys, option: str) -> None:
    assert owner.exit_code(option) == 3
    printed = capsys.readouterr().out
    assert printed.startswith("VERDICT: UNDECIDED code=E_INSECURE ")
    assert f"[SKIP] {'signature' if option.endswith('signature') else 'validity'} {option}" in printed


# --- challenges ---


def test_t11_a_replayed_certificate_does_not_answer_a_new_challenge(owner: Owner, tmp_path: Path) -> None:
    mine, new, others = tmp_path / "mine.json", tmp_path / "new.json", tmp_path / "other auditor.json"
    nonce = new_challenge(mine)
    for path in (new, others):
        new_challenge(path)
    owner.edit(lambda d: d["predicate"].update(challenge=nonce))
    assert owner.exit_code("--challenge", str(mine)) == 0
    assert owner.exit_code("--challenge", nonce) == 0
    for path in (new, others):
        assert owner.exit_code("--challenge", str(path)) == 1
        found = json.loads(path.read_bytes())["nonce"]
        assert failure(owner.verdict(challenge=found)) == ("REJECTED", "E_POLICY", "predicate/challenge")
    assert owner.exit_code("--challenge", str(owner.certificate)) == 2  # no challenge at all


# --- the limit of time ---


def test_a_verification_that_takes_longer_than_the_policy_allows_is_undecided(owner: Owner, monkeypatch) -> None:
    clock = time.monotonic
    demand(owner, max_seconds=60)
    assert owner.verdict().word == "VERIFIED"
    monkeypatch.setattr(time, "monotonic", lambda: clock() + 61)
    assert failure(owner.verdict()) == ("UNDECIDED", "E_LIMIT", "predicate/claims/C1")


@pytest.mark.parametrize(("word", "path"), [("claim C3", "predicate/claims/C4"), ("claim C8", "verification")])
def test_time_is_looked_at_between_claims_and_at_the_end(owner: Owner, monkeypatch, word: str, path: str) -> None:
    clock, passed = time.monotonic, [0]
    demand(owner, max_seconds=60)
    monkeypatch.setattr(time, "monotonic", lambda: clock() + passed[0])

    def say(words: str) -> None:
        passed[0] = 61 if words.startswith(word) else passed[0]

    verdict = verify(owner.inputs(), say)
    assert failure(verdict) == ("UNDECIDED", "E_LIMIT", path)
    assert len(verdict.claims) == int(word[-1])  # the step that had begun is whole


# --- a certificate that replaces another ---


@pytest.fixture
def earlier(owner: Owner, tmp_path: Path) -> Owner:
    """What the auditor holds: the certificate before this one, in a folder of its own."""
    return owner.copy(tmp_path / "earlier")


def payload_sha256(owner: Owner) -> str:
    return sha256_hex(parse_envelope(owner.certificate.read_bytes(), "a").payload)


def replaces(owner: Owner, earlier: Owner) -> dict[str, object]:
    """Let the owner's certificate name the earlier one; what the auditor gives to verify."""
    owner.edit(lambda d: d["predicate"].update(supersedes=payload_sha256(earlier)))
    return {"supersedes": earlier.certificate}


def claims(document: dict, kind: str) -> list[dict]:
    return [item for item in document["predicate"]["claims"] if item["kind"] == kind]


def said(**members: object) -> Callable[[dict], None]:
    """What the earlier certificate says of its forget claims."""
    return lambda d: [item.update(members) for item in claims(d, "forget")]


def predicate(path: str, value: object) -> Callable[[dict], None]:
    def change(document: dict) -> None:
        *parents, last = path.split("/")
        found = document["predicate"]
        for name in parents:
            found = found[name]
        found[last] = value

    return change


def with_a_class(document: dict) -> None:
    one = claims(document, "forget")[0]
    more = {"id": "C99", "kind": "forget_class", "quantifier": "all-inputs", "region": None, "label": 7}
    document["predicate"]["claims"].append(one | more)


BALL = {"kind": "ball", "norm": "linf"}
TERMS = "predicate/claims"
COVERED = [
    ("the same again", lambda _: None, None),
    ("it covered fewer records", predicate("forgetSet/size", 3), None),
    ("it covered no records", predicate("forgetSet", None), None),
    ("its ball was smaller", said(region=BALL | {"radius": "0.05"}), None),
    ("it named the same request", predicate("request/reference", ""), None),
    ("T12 a record is dropped", predicate("forgetSet/size", 5), "predicate/supersedes"),
    ("T12 a class is dropped", with_a_class, "predicate/supersedes"),
    ("T12 a request is dropped", predicate("request/reference", "case 17"), "predicate/supersedes"),
    ("T12 one of the live requests is dropped", predicate("request/reference", '["case 17","case 18"]'), "predicate/supersedes"),
    ("T6 the ball is smaller than it was", said(region=BALL | {"radius": "0.2"}), f"{TERMS} (radius of C1 of the earlier certificate)"),
    ("T7 the margin is smaller than it was", said(margin="50"), f"{TERMS} (margin of C1 of the earlier certificate)"),
    ("T23 the domain is smaller than it was", predicate("semantics/domain", {"lower": "-1", "upper": "1"}), f"{TERMS} (domain of C1 of the earlier certificate)"),
    ("T11 it is about another base", predicate("originalModel/sha256", ANOTHER_BASE), "a.unlearn.json/payload/predicate/originalModel/sha256"),
    ("T11 it was issued later than the one that replaces it", predicate("issuedAt", "2098-01-01T00:00:00Z"), "predicate/issuedAt"),
]  # fmt: skip


@pytest.mark.parametrize(("attack", "change", "path"), COVERED, ids=[row[0] for row in COVERED])
def test_what_the_earlier_certificate_covered(owner: Owner, earlier: Owner, attack, change, path: str | None) -> None:
    earlier.edit(change)
    given = replaces(owner, earlier)
    word, code, place = failure(owner.verdict(**given))
    if path is None:
        assert (word, code) == ("VERIFIED", "OK"), owner.verdict(**given).text()
        return
    assert (word, place) == ("REJECTED", path)
    assert code == ("E_SUBJECT" if "another base" in attack else "E_POLICY")


def test_what_the_policy_lets_be_withdrawn_is_named(owner: Owner, earlier: Owner) -> None:
    for change in (predicate("forgetSet/size", 5), with_a_class, predicate("request/reference", '["A","B"]')):
        earlier.edit(change)
    given = replaces(owner, earlier)
    demand(owner, max_withdrawn=1)
    assert failure(owner.verdict(**given)) == ("REJECTED", "E_POLICY", "predicate/supersedes")
    demand(owner, max_withdrawn=2)
    verdict = owner.verdict(**given)
    assert verdict.word == "VERIFIED", verdict.text()
    named = "1 of 5 records, class 7, request 'A', request 'B'"
    assert f"withdrawn since the earlier certificate: {named}" in verdict.warnings
    assert any(
        check.name == "supersession" and check.detail.endswith(f"withdrawn: {named}") for check in verdict.checks
    )


def open_earlier(earlier: Owner, x: np.ndarray, y: np.ndarray) -> None:
    """Another forget set of the earlier certificate, committed under its own key."""
    np.savez(earlier.folder / "forget.npz", x=x, y=y)
    secret = "11" * 32
    openings = {"formatVersion": 1, "forget": secret, "retain": None}
    (earlier.folder / "openings.json").write_bytes(canonical_json(openings))
    records = load_records(str(earlier.folder / "forget.npz"), what="forget set")
    root = set_root(bytes.fromhex(secret), canonical_records(records))
    earlier.edit(predicate("forgetSet", {"root": root, "size": len(y)}))


def test_t12_a_record_is_dropped_and_another_one_takes_its_place(owner: Owner, earlier: Owner) -> None:
    """The numbers agree; only the opened sets show it."""
    forget, retain = (np.load(owner.folder / f"{name}.npz") for name in ("forget", "retain"))
    x, y = forget["x"].copy(), forget["y"].copy()
    x[1], y[1] = retain["x"][0], retain["y"][0]
    open_earlier(earlier, x, y)
    given = replaces(owner, earlier)
    verdict = owner.verdict(**given)
    assert verdict.word == "VERIFIED"
    assert "records compared by number only" in next(c.detail for c in verdict.checks if c.name == "supersession")
    given["superseded_forget"] = str(earlier.folder / "forget.npz")
    assert failure(owner.verdict(**given)) == ("REJECTED", "E_POLICY", "predicate/supersedes")
    demand(owner, max_withdrawn=1)
    assert "withdrawn since the earlier certificate: 1 of 4 records" in owner.verdict(**given).warnings


def test_records_one_by_one(owner: Owner, earlier: Owner) -> None:
    forget = np.load(owner.folder / "forget.npz")
    open_earlier(earlier, forget["x"][::-1][:3], forget["y"][::-1][:3])  # in another order
    given = replaces(owner, earlier) | {"superseded_forget": str(earlier.folder / "forget.npz")}
    verdict = owner.verdict(**given)
    assert verdict.word == "VERIFIED", verdict.text()
    assert "one by one" in next(c.detail for c in verdict.checks if c.name == "supersession")
    y = forget["y"].copy()
    y[0] = (y[0] + 1) % 10
    open_earlier(earlier, forget["x"], y)  # the same values under another label are another record
    assert failure(owner.verdict(**given | replaces(owner, earlier)))[2] == "predicate/supersedes"


def test_terms_hold_for_the_records_that_are_left_where_both_sets_show_which(owner: Owner, earlier: Owner) -> None:
    """A policy that lets all four records be withdrawn bears weaker terms, unless the sets show that none was."""
    earlier.edit(said(region=BALL | {"radius": "0.2"}))
    given = replaces(owner, earlier)
    demand(owner, max_withdrawn=4)
    assert owner.verdict(**given).word == "VERIFIED"
    given["superseded_forget"] = str(earlier.folder / "forget.npz")
    assert failure(owner.verdict(**given))[2] == f"{TERMS} (radius of C1 of the earlier certificate)"


OPENED = [
    ("the records are not those of the earlier certificate", lambda o, e: np.savez(e.folder / "forget.npz", x=np.load(e.folder / "forget.npz")["x"] / 2, y=np.load(e.folder / "forget.npz")["y"]), {}, ("REJECTED", "E_SUBJECT", "a.unlearn.json/payload/predicate/forgetSet/root")),
    ("there is no opening of the earlier set", lambda o, e: (e.folder / "openings.json").unlink(), {}, ("UNDECIDED", "E_DATA_MISSING", "")),
    ("the new set is not open", lambda o, e: None, {"forget": None}, ("UNDECIDED", "E_DATA_MISSING", "")),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "change", "more", "expected"), OPENED, ids=[row[0] for row in OPENED])
def test_sets_that_do_not_open(owner: Owner, earlier: Owner, sentence, change, more, expected) -> None:
    given = replaces(owner, earlier) | {"superseded_forget": str(earlier.folder / "forget.npz")} | more
    change(owner, earlier)
    assert failure(owner.verdict(**given)) == expected


def test_t11_an_older_certificate_is_shown_to_an_auditor_who_holds_a_newer_one(owner: Owner, earlier: Owner) -> None:
    replaces(owner, earlier)
    assert earlier.verdict().word == "VERIFIED"  # nobody told it that there is a newer one
    found = failure(earlier.verdict(supersedes=owner.certificate))
    assert found == ("REJECTED", "E_POLICY", "predicate/supersedes")


def test_the_earlier_certificate_is_signed_by_a_prover_of_the_store(owner: Owner, earlier: Owner) -> None:
    sign_by(earlier, key(owner, "auditor", "auditor"))
    given = replaces(owner, earlier)
    assert failure(owner.verdict(**given)) == ("REJECTED", "E_SIGNATURE", SIGNATURES)
    given["supersedes"] = owner.folder / "patch.json"
    assert failure(owner.verdict(**given)) == ("REJECTED", "E_MALFORMED", "patch.json")
    assert owner.exit_code("--supersedes", str(owner.folder / "nowhere")) == 2


def test_an_earlier_certificate_by_a_key_that_was_revoked_since_is_still_compared(owner: Owner, earlier: Owner) -> None:
    """Otherwise whoever lost a key could drop what was certified with it."""
    sign_by(earlier, key(owner, "old key", "prover"))
    keyid = parse_envelope(earlier.certificate.read_bytes(), "a").signatures[0][0]
    trust_revoke(owner.folder / "trust.json", keyid, "lost in May")
    given = replaces(owner, earlier)
    verdict = owner.verdict(**given)
    assert verdict.word == "VERIFIED", verdict.text()
    assert any("lost in May" in warning for warning in verdict.warnings)
    given["at_time"] = None
    earlier.edit(predicate("forgetSet/size", 5))  # signed by the owner's own key
    assert failure(owner.verdict(**given | replaces(owner, earlier)))[2] == "predicate/supersedes"


def test_without_the_earlier_certificate_nothing_is_compared_and_that_is_said(owner: Owner, earlier: Owner) -> None:
    replaces(owner, earlier)
    verdict = owner.verdict()
    assert verdict.word == "VERIFIED"
    assert any("not compared" in warning for warning in verdict.warnings)
    demand(owner, require_superseded="true")
    assert failure(owner.verdict())[:2] == ("UNDECIDED", "E_DATA_MISSING")
    assert owner.verdict(supersedes=earlier.certificate).word == "VERIFIED"
    assert owner.exit_code("--supersedes", str(earlier.certificate)) == 0
    owner.edit(predicate("supersedes", None))
    assert owner.verdict().word == "VERIFIED"
    assert failure(owner.verdict(supersedes=earlier.certificate))[2] == "predicate/supersedes"


def test_dates_of_the_fixtures(owner: Owner) -> None:
    """The certificate of these tests is from today, so that nothing above passes for its age."""
    issued = owner.statement()["predicate"]["issuedAt"]
    assert format_time(NOW - timedelta(days=1)) < issued
