"""The policies to begin with: that they parse, what each accepts, and what each refuses, on one honest chain."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from prune_verify.audit.challenge import new_challenge
from prune_verify.audit.policy_templates import TEMPLATES, policy_text
from prune_verify.checker.encoding import format_time
from prune_verify.checker.envelope import parse_envelope
from prune_verify.checker.errors import MalformedInputError
from prune_verify.checker.policy import default_policy_text, parse_policy
from prune_verify.checker.statement import parse_statement
from prune_verify.cli import run_words
from tests.adversary.test_trust import base_sha256, bind, key, own, predicate, sign_by
from tests.dishonest_owner import Owner, failure

ROOT = Path(__file__).resolve().parents[2]
POLICIES = ROOT / "certs" / "policies"
EXAMPLE = ROOT / "certs" / "examples" / "digits-records"


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_texts_in_certs_are_those_that_are_installed(name: str) -> None:
    assert (POLICIES / f"{name}.toml").read_text() == policy_text(name)
    parse_policy(policy_text(name).encode(), name)


def test_there_are_no_others() -> None:
    assert {path.stem for path in POLICIES.glob("*.toml")} == set(TEMPLATES)
    with pytest.raises(MalformedInputError) as caught:
        policy_text("lenient")
    assert caught.value.path == "--policy-template"


def test_the_default_template_is_the_default_policy_and_the_others_say_what_differs() -> None:
    assert policy_text() == default_policy_text()
    for name, template in TEMPLATES.items():
        own_values = {knob: f"{knob} = {value}" for knob, value in template.values.items()}
        changed = [
            row.partition(" = ")[0]
            for row in policy_text(name).splitlines()
            if row.startswith(tuple(own_values.values()))
        ]
        assert sorted(changed) == sorted(own_values)
        assert policy_text(name).startswith("# ")


@pytest.mark.parametrize("name", TEMPLATES)
def test_init_writes_a_template(tmp_path: Path, name: str) -> None:
    assert run_words(["trust", "init", str(tmp_path / "trust.json"), "--policy-template", name])[0] == 0
    assert (tmp_path / "policy.toml").read_text() == policy_text(name)


# --- on one honest chain ---


def under(owner: Owner, name: str) -> None:
    (owner.folder / "policy.toml").write_text(policy_text(name))


def for_the_regulator(owner: Owner) -> dict[str, object]:
    """All that the regulator's policy asks: a commitment, bound keys, a countersignature, an answered challenge."""
    under(owner, "regulator")
    bind(owner, base_sha256(owner))
    auditor = key(owner, "inspector", "auditor", bases=(base_sha256(owner),))
    nonce = new_challenge(owner.folder / "challenge.json")
    owner.edit(predicate("challenge", nonce))
    sign_by(owner, own(owner), auditor)
    return {"challenge": nonce, "commitment": owner.folder / "train.commitment.json"}


@pytest.mark.prover
@pytest.mark.parametrize("name", ["default", "internal-audit"])
def test_what_is_accepted_as_it_comes(owner: Owner, name: str) -> None:
    under(owner, name)
    assert owner.verdict().word == "VERIFIED", owner.verdict().text()


@pytest.mark.prover
def test_what_the_regulator_accepts(committed: Owner) -> None:
    brought = for_the_regulator(committed)
    verdict = committed.verdict(**brought)
    assert verdict.word == "VERIFIED", verdict.text()
    assert [who for _, who in verdict.signers] == ["owner", "inspector"]
    without_it = committed.verdict(**brought | {"commitment": None})
    assert (without_it.word, without_it.code) == ("UNDECIDED", "E_DATA_MISSING")


def old(owner: Owner) -> None:
    owner.edit(predicate("issuedAt", "2024-01-01T00:00:00Z"))


def without(kind: str) -> Callable[[Owner], None]:
    def change(owner: Owner) -> None:
        def drop(document: dict) -> None:
            kept = [claim for claim in document["predicate"]["claims"] if claim["kind"] != kind]
            document["predicate"]["claims"] = kept

        owner.edit(drop)

    return change


def radius(kind: str, value: str) -> Callable[[Owner], None]:
    def change(owner: Owner) -> None:
        def set_radius(document: dict) -> None:
            for claim in document["predicate"]["claims"]:
                if claim["kind"] == kind:
                    claim["region"]["radius"] = value

        owner.edit(set_radius)

    return change


AGE = ("REJECTED", "E_POLICY", "predicate/issuedAt")
REFUSED = [
    ("default", "older than a year", old, AGE),
    ("default", "a ball below 0.1", radius("forget", "0.06"), ("REJECTED", "E_POLICY", "predicate/claims/C1/region/radius")),
    ("default", "no claim of locality", without("locality"), ("REJECTED", "E_POLICY", "predicate/claims")),
    ("internal-audit", "older than a month", old, AGE),
    ("internal-audit", "a ball below 0.05", radius("forget", "0.04"), ("REJECTED", "E_POLICY", "predicate/claims/C1/region/radius")),
    ("internal-audit", "no claim about retained records", without("retain_exact"), ("REJECTED", "E_POLICY", "predicate/claims")),
    ("regulator", "as it comes: a key that is bound to nothing", lambda o: None, ("REJECTED", "E_SIGNATURE", "predicate/originalModel/sha256")),
    ("regulator", "nobody countersigned", lambda o: bind(o, base_sha256(o)), ("REJECTED", "E_SIGNATURE", "trust store")),
]  # fmt: skip


@pytest.mark.prover
@pytest.mark.parametrize(("name", "sentence", "change", "expected"), REFUSED, ids=[f"{r[0]}: {r[1]}" for r in REFUSED])
def test_what_is_refused(
    owner: Owner, name: str, sentence: str, change: Callable[[Owner], None], expected: tuple
) -> None:
    under(owner, name)
    change(owner)
    assert failure(owner.verdict()) == expected


BORNE = [
    ("a smaller ball", radius("forget", "0.06")),
    ("no claim of locality", without("locality")),
]


@pytest.mark.prover
@pytest.mark.parametrize(("sentence", "change"), BORNE, ids=[row[0] for row in BORNE])
def test_what_the_internal_audit_bears_and_the_default_policy_does_not(owner: Owner, sentence: str, change) -> None:
    change(owner)
    under(owner, "internal-audit")
    assert owner.verdict().word == "VERIFIED", owner.verdict().text()
    under(owner, "default")
    assert owner.verdict().word == "REJECTED"


@pytest.mark.prover
def test_what_the_regulator_refuses_although_it_is_countersigned(committed: Owner) -> None:
    owner, given = committed, for_the_regulator(committed)
    assert failure(owner.verdict()) == ("REJECTED", "E_POLICY", "--challenge")
    assert failure(owner.verdict(challenge="ab" * 32)) == ("REJECTED", "E_POLICY", "predicate/challenge")
    document = owner.statement()
    document["predicate"]["supersedes"] = "ab" * 32
    (owner.folder / "statement.json").write_text(json.dumps(document))
    auditor = key(owner, "second auditor", "auditor", bases=(base_sha256(owner),))
    sign_by(owner, own(owner), auditor)
    assert failure(owner.verdict(**given))[:2] == ("UNDECIDED", "E_DATA_MISSING")  # the earlier one is not shown


ON_THE_EXAMPLE = [
    ("default", "VERIFIED", "OK"),
    ("internal-audit", "VERIFIED", "OK"),
    ("regulator", "REJECTED", "E_SIGNATURE"),
]


@pytest.mark.parametrize(("name", "word", "code"), ON_THE_EXAMPLE, ids=[row[0] for row in ON_THE_EXAMPLE])
def test_the_committed_example_under_each_on_the_day_after_it_was_issued(name: str, word: str, code: str) -> None:
    payload = parse_envelope((EXAMPLE / "digits.unlearn.json").read_bytes(), "e").payload
    day_after = parse_statement(payload, "s").issued_at + timedelta(days=1)
    words = [
        "verify", EXAMPLE / "digits.unlearn.json", "--base", EXAMPLE / "base.onnx", "--patched",
        EXAMPLE / "patched.onnx", "--trust", EXAMPLE / "trust.json", "--policy", POLICIES / f"{name}.toml", "--forget",
        EXAMPLE / "forget.npz", "--retain", EXAMPLE / "retain.npz", "--at-time", format_time(day_after), "--json",
    ]  # fmt: skip
    found = json.loads(run_words([str(one) for one in words])[1])
    assert (found["verdict"], found["code"]) == (word, code)
