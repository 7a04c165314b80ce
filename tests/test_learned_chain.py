"""Family ``learned`` all the way on digits: trained under the threat model, certified by relaxation, checked as by an auditor."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from prune_verify.checker.envelope import parse_envelope
from prune_verify.checker.proof import emit, parse
from tests.dishonest_owner import Owner, failure, honest, prepare

pytestmark = pytest.mark.prover
KINDS = ("forget", "forget", "retain_close", "retain_close")


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Owner:
    folder = tmp_path_factory.mktemp("learned")
    prepare(folder)
    honest(folder, "--family", "learned", "--radius", "0.05", "--retained-radius", "0.02", "--delta", "0.1")
    policy = (folder / "policy.toml").read_text()
    for old, new in (
        ('["forget", "retain_exact", "locality"]', '["forget", "retain_close"]'),
        ("min_forget_radius = 0.1", "min_forget_radius = 0.05"),
        ("min_retained_radius = 0.05", "min_retained_radius = 0.02"),
    ):
        assert old in policy
        policy = policy.replace(old, new)
    (folder / "policy.toml").write_text(policy)
    return Owner(folder)


@pytest.fixture
def owner(chain: Owner, tmp_path: Path) -> Owner:
    return chain.copy(tmp_path / "chain")


def test_a_learned_patch_is_verified_in_both_arithmetics(owner: Owner) -> None:
    verdict = owner.verdict()
    assert (verdict.word, verdict.assumptions) == ("VERIFIED", ()), verdict.text()
    assert tuple(c.kind for c in verdict.claims) == KINDS
    assert all(c.proved == c.total for c in verdict.claims)


def test_a_policy_for_exact_patches_is_not_met(owner: Owner) -> None:
    path = owner.folder / "policy.toml"
    path.write_text(path.read_text().replace('["forget", "retain_close"]', '["forget", "retain_exact"]'))
    assert failure(owner.verdict()) == ("REJECTED", "E_POLICY", "predicate/claims")


@pytest.mark.parametrize(
    ("kind", "member", "value"), [("forget", "margin", "9"), ("retain_close", "delta", "0.0001")], ids=["F", "RC"]
)
def test_claims_that_do_not_follow_are_refused(owner: Owner, kind: str, member: str, value: str) -> None:
    """T20: the numbers are the checker's own, whatever the statement says."""

    def change(document: dict) -> None:
        for claim in document["predicate"]["claims"]:
            if claim["kind"] == kind:
                claim[member] = value

    owner.edit(change)
    word, code, path = failure(owner.verdict())
    assert (word, code) == ("REJECTED", "E_PROOF")
    assert path.endswith("/counts")


def test_slopes_of_another_prover_give_a_true_answer_or_none(owner: Owner) -> None:
    """Hostile slopes, consistently signed: the claim still holds, or it is not counted as proved."""
    name = "evidence/C1.proof"
    proof = parse((owner.folder / name).read_bytes(), "C1")
    for values in proof.slopes.values():
        values[:] = np.random.default_rng(0).random(values.shape)
    owner.replace_file(name, emit(proof))
    word, code, _ = failure(owner.verdict())
    assert (word, code) in {("VERIFIED", "OK"), ("REJECTED", "E_PROOF")}


def test_evidence_of_another_claim_is_refused(owner: Owner) -> None:
    owner.replace_file("evidence/C1.proof", (owner.folder / "evidence" / "C2.proof").read_bytes())
    word, code, path = failure(owner.verdict())
    assert (word, code) == ("REJECTED", "E_PROOF")
    assert path.startswith("evidence/C1.proof")


def test_missing_proofs_leave_it_undecided(owner: Owner) -> None:
    (owner.folder / "evidence" / "C3.proof").unlink()
    verdict = owner.verdict()
    assert (verdict.word, verdict.code) == ("UNDECIDED", "E_DATA_MISSING")


def test_an_assumption_is_named_and_the_policy_decides(owner: Owner) -> None:
    """A record handed to z3 by the owner: the checker writes the question itself and names its digest."""
    name = "evidence/C2.proof"
    proof = parse((owner.folder / name).read_bytes(), "C2")
    choices = proof.choices.copy()
    choices[0] = -1
    from dataclasses import replace

    keep = proof.hinted != 0
    handed = replace(
        proof,
        method="relaxation+smt",
        choices=choices,
        smt=np.array([0], dtype=np.int32),
        hinted=proof.hinted[keep],
        active=proof.active if keep.any() else {},
        slopes={node: values[keep] for node, values in proof.slopes.items()} if keep.any() else {},
    )
    owner.replace_file(name, emit(handed))
    owner.edit(lambda d: d["predicate"]["claims"][1].update(method="relaxation+smt"))
    verdict = owner.verdict()
    assert verdict.word == "UNDECIDED"
    assert verdict.code == "E_ASSUMPTION"
    (assumption,) = verdict.assumptions
    assert assumption.startswith("z3_unsat:")
    path = owner.folder / "policy.toml"
    path.write_text(path.read_text().replace("permitted_assumptions = []", 'permitted_assumptions = ["z3_unsat:*"]'))
    assert failure(owner.verdict()) == ("REJECTED", "E_PROOF", "predicate/assumptions")
    owner.edit(lambda d: d["predicate"].update(assumptions=[assumption]))
    verdict = owner.verdict()
    assert (verdict.word, verdict.assumptions) == ("VERIFIED", (assumption,))


def test_the_statement_says_what_was_proved_how(owner: Owner) -> None:
    payload = json.loads(parse_envelope(owner.certificate.read_bytes(), "c").payload)
    assert {c["method"] for c in payload["predicate"]["claims"]} == {"relaxation"}
    assert payload["predicate"]["patch"]["family"] == "learned"
