"""Family ``learned`` all the way on digits: trained under the threat model, certified by relaxation, checked as by an auditor."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prune_verify.checker.envelope import parse_envelope
from prune_verify.checker.errors import MalformedInputError
from prune_verify.checker.proof import emit, parse
from prune_verify.checker.solver import Resolution
from tests.dishonest_owner import Owner, failure, honest, prepare, run

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
    ("kind", "member", "value"), [("forget", "margin", "9"), ("retain_close", "delta", "0.000000001")], ids=["F", "RC"]
)
def test_claims_that_do_not_follow_are_refused(owner: Owner, kind: str, member: str, value: str) -> None:
    """T20: the numbers are the checker's own, whatever the statement says.

    The patch is 0 on these balls: a delta that does not follow is one below what rounding a sum costs.
    """

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


def _hand_to_z3(owner: Owner, margin: str | None = None) -> str:
    """Record 0 of the claim over the reals rests on z3 (with a margin of the owner's); the assumption that it makes."""
    name = "evidence/C2.proof"
    proof = parse((owner.folder / name).read_bytes(), "C2")
    choices = proof.choices.copy()
    choices[0] = -1
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

    def change(document: dict) -> None:
        claim = document["predicate"]["claims"][1]
        claim.update(method="relaxation+smt")
        if margin is not None:
            claim.update(margin=margin, unknowns=list(range(1, claim["counts"]["total"])))
            claim["counts"] |= {"proved": 1, "unknown": claim["counts"]["total"] - 1}

    owner.edit(change)
    verdict = owner.verdict()
    assert (verdict.word, verdict.code) == ("UNDECIDED", "E_ASSUMPTION")
    (assumption,) = verdict.assumptions
    return assumption


def test_an_assumption_is_named_and_the_policy_decides(owner: Owner) -> None:
    """A record handed to z3 by the owner: the checker writes the question itself and names its digest."""
    assumption = _hand_to_z3(owner)
    assert assumption.startswith("z3_unsat:")
    path = owner.folder / "policy.toml"
    path.write_text(path.read_text().replace("permitted_assumptions = []", 'permitted_assumptions = ["z3_unsat:*"]'))
    assert failure(owner.verdict()) == ("REJECTED", "E_PROOF", "predicate/assumptions")
    owner.edit(lambda d: d["predicate"].update(assumptions=[assumption]))
    verdict = owner.verdict()
    assert (verdict.word, verdict.assumptions) == ("VERIFIED", (assumption,))


@pytest.mark.prover
@pytest.mark.parametrize("solver", ["z3", "cvc5"])
def test_the_auditors_own_solver_takes_the_place_of_the_assumption(owner: Owner, solver: str) -> None:
    pytest.importorskip(solver)
    assumption = _hand_to_z3(owner)
    owner.edit(lambda d: d["predicate"].update(assumptions=[assumption]))
    assert (owner.verdict().word, owner.verdict().code) == ("UNDECIDED", "E_ASSUMPTION")
    verdict = owner.verdict(resolve_smt=solver)
    digest = assumption.partition(":")[2]
    (resolved,) = verdict.assumptions
    assert (verdict.word, resolved.startswith(f"resolved_unsat:{solver}-"), resolved.endswith(digest)) == (
        "VERIFIED",
        True,
        True,
    )


@pytest.mark.prover
def test_a_question_with_a_counterexample_is_refused(owner: Owner) -> None:
    """A margin that no record reaches: the owner's word would do for z3; the auditor's solver has a counterexample."""
    assumption = _hand_to_z3(owner, margin="1000")
    owner.edit(lambda d: d["predicate"].update(assumptions=[assumption]))
    word, code, path = failure(owner.verdict(resolve_smt="z3"))
    assert (word, code, path) == ("REJECTED", "E_PROOF", "predicate/claims/C2/smt/0")


@pytest.mark.parametrize("answer", ["unknown", "sat"])
def test_a_solver_that_does_not_answer_leaves_the_assumption(owner: Owner, monkeypatch, answer: str) -> None:
    assumption = _hand_to_z3(owner)
    owner.edit(lambda d: d["predicate"].update(assumptions=[assumption]))
    monkeypatch.setattr("prune_verify.checker.verify.require_solver", lambda name: None)
    monkeypatch.setattr("prune_verify.checker.verify_claims.ask", lambda *_: Resolution(answer, "z3-0"))
    verdict = owner.verdict(resolve_smt="z3")
    if answer == "unknown":
        assert (verdict.word, verdict.code, verdict.assumptions) == ("UNDECIDED", "E_ASSUMPTION", (assumption,))
    else:
        assert failure(verdict) == ("REJECTED", "E_PROOF", "predicate/claims/C2/smt/0")


def test_an_assumption_of_two_claims_is_named_once(owner: Owner) -> None:
    """The same claim twice, each with its own evidence: both rest on the same question."""
    assumption = _hand_to_z3(owner)
    again = (owner.folder / "evidence" / "C2.proof").read_bytes()
    (owner.folder / "evidence" / "C9.proof").write_bytes(again)

    def change(document: dict) -> None:
        predicate = document["predicate"]
        predicate["claims"].append(predicate["claims"][1] | {"id": "C9"})
        listed = next(item for item in predicate["evidence"] if item["name"] == "C2.proof")
        predicate["evidence"].append(listed | {"name": "C9.proof"})

    owner.edit(change)
    verdict = owner.verdict()
    assert (verdict.word, verdict.code, verdict.assumptions) == ("UNDECIDED", "E_ASSUMPTION", (assumption,))


def test_a_patched_network_of_another_making_needs_no_patch_file(owner: Owner) -> None:
    """Bounds on the patched network alone: nothing is said of a patch, and nothing that rests on its form is claimed."""
    path = owner.folder / "policy.toml"
    path.write_text(path.read_text().replace('["forget", "retain_close"]', '["forget"]'))

    def change(document: dict) -> None:
        document["predicate"]["patch"] = None
        document["predicate"]["claims"] = [c for c in document["predicate"]["claims"] if c["kind"] == "forget"]

    owner.edit(change)
    verdict = owner.verdict()
    assert (verdict.word, [c.kind for c in verdict.claims]) == ("VERIFIED", ["forget", "forget"]), verdict.text()


SILENT = """print('{"answer": "unknown", "version": "1"}')"""


@pytest.mark.parametrize("permitted", [False, True])
def test_a_solver_that_does_not_know_leaves_it_to_the_policy(owner: Owner, monkeypatch, permitted: bool) -> None:
    assumption = _hand_to_z3(owner)
    owner.edit(lambda d: d["predicate"].update(assumptions=[assumption]))
    if permitted:
        path = owner.folder / "policy.toml"
        rule = 'permitted_assumptions = ["z3_unsat:*"]'
        path.write_text(path.read_text().replace("permitted_assumptions = []", rule))
    monkeypatch.setattr("prune_verify.checker.solver._CHILDREN", {"z3": SILENT})
    verdict = owner.verdict(resolve_smt="z3")
    expected = ("VERIFIED", "OK") if permitted else ("UNDECIDED", "E_ASSUMPTION")
    assert (verdict.word, verdict.code, verdict.assumptions) == (*expected, (assumption,))


def test_a_statement_cannot_name_what_only_the_auditor_can_say(owner: Owner) -> None:
    """Names are compared before an answer takes their place."""
    assumption = _hand_to_z3(owner)
    verdict = owner.verdict(resolve_smt="z3")
    assert failure(verdict) == ("REJECTED", "E_PROOF", "predicate/assumptions")
    for said in ([], [verdict.assumptions[0]], [verdict.assumptions[0], assumption]):
        owner.edit(lambda d, said=said: d["predicate"].update(assumptions=sorted(said)))
        assert owner.verdict(resolve_smt="z3").word == "REJECTED"
    owner.edit(lambda d: d["predicate"].update(assumptions=[assumption]))
    assert owner.verdict(resolve_smt="z3").word == "VERIFIED"


def test_the_command_line_prints_what_the_verdict_rests_on(owner: Owner, capsys) -> None:
    assumption = _hand_to_z3(owner)
    owner.edit(lambda d: d["predicate"].update(assumptions=[assumption]))
    capsys.readouterr()
    assert owner.exit_code() == 3
    assert f"rests on: {assumption}" in capsys.readouterr().out.splitlines()
    assert owner.exit_code("--resolve-smt", "z3") == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("rests on: ")]
    assert line.startswith("rests on: resolved_unsat:z3-")
    assert line.endswith(assumption.partition(":")[2])
    assert owner.exit_code("--resolve-smt", "z3", "--json") == 0
    assert json.loads(capsys.readouterr().out)["assumptions"] == [line.removeprefix("rests on: ")]


def test_the_command_line_without_the_solver_ends_with_2(owner: Owner, monkeypatch, capsys) -> None:
    monkeypatch.setattr("prune_verify.checker.solver._CHILDREN", {"z3": "import no_such_module_here"})
    assert owner.exit_code("--resolve-smt", "z3") == 2
    assert "pip install z3-solver" in capsys.readouterr().err


def test_a_solver_that_is_not_installed_ends_with_the_line_that_installs_it(owner: Owner, monkeypatch) -> None:
    monkeypatch.setattr("prune_verify.checker.solver._CHILDREN", {"z3": "raise SystemExit(1)"})
    with pytest.raises(MalformedInputError) as refusal:
        owner.verdict(resolve_smt="z3")
    assert (refusal.value.path, refusal.value.expected) == ("--resolve-smt z3", "pip install z3-solver")


def test_the_statement_says_what_was_proved_how(owner: Owner) -> None:
    payload = json.loads(parse_envelope(owner.certificate.read_bytes(), "c").payload)
    assert {c["method"] for c in payload["predicate"]["claims"]} == {"relaxation"}
    assert payload["predicate"]["patch"]["family"] == "learned"


def _as_band(owner: Owner, lower: str, upper: str) -> None:
    """The forget claim over the reals becomes one about a band, with a proof of its own."""
    name = "evidence/C2.proof"
    proof = parse((owner.folder / name).read_bytes(), "C2")
    labels = 10
    choices = [0] * (labels - 1)
    listed = [number for choice in proof.choices.tolist() for number in (*choices, choice)]
    made = replace(
        proof, kind="band", choices=np.array(listed, np.int32), hinted=proof.hinted[:0], active={}, slopes={}
    )
    owner.replace_file(name, emit(made))

    def change(document: dict) -> None:
        band = {"lower": lower, "upper": upper}
        document["predicate"]["claims"][1].update(kind="band", margin=None, band=band)

    owner.edit(change)


def test_a_band_is_verified_as_far_as_the_policy_lets_it_be_wide(owner: Owner) -> None:
    _as_band(owner, "-100000", "-0.05")
    assert failure(owner.verdict()) == ("REJECTED", "E_POLICY", "predicate/claims/C2/band")
    path = owner.folder / "policy.toml"
    path.write_text(path.read_text().replace("max_band_width = 5", "max_band_width = 100000"))
    verdict = owner.verdict()
    assert verdict.word == "VERIFIED", failure(verdict)
    assert "band -100000 to -0.05" in "\n".join(check.detail for check in verdict.checks)


def test_a_band_that_does_not_hold_is_refused(owner: Owner) -> None:
    _as_band(owner, "-100000", "-100000")
    assert failure(owner.verdict()) == ("REJECTED", "E_PROOF", "predicate/claims/C2/counts")
    _as_band_ends(owner, "1", "-1")
    word, code, path = failure(owner.verdict())
    assert (word, code, path.endswith("/band")) == ("REJECTED", "E_MALFORMED", True)


def _as_band_ends(owner: Owner, lower: str, upper: str) -> None:
    owner.edit(lambda d: d["predicate"]["claims"][1].update(band={"lower": lower, "upper": upper}))


def test_the_report_shows_how_the_patch_was_learned(owner: Owner, tmp_path: Path) -> None:
    folder = owner.folder
    words = [
        "verify", folder / "a.unlearn.json", "--base", folder / "base.onnx", "--patched", folder / "patched.onnx",
        "--trust", folder / "trust.json", "--policy", folder / "policy.toml", "--forget", folder / "forget.npz",
        "--retain", folder / "retain.npz", "--report", tmp_path / "r.html",
    ]  # fmt: skip
    run(*words, "--learning", folder / "learning.json")
    page = (tmp_path / "r.html").read_text()
    assert "How the patch was learned" in page
    assert "it is in no certificate and nothing rests on it" in page
    assert page.count("<svg") > 0
    run(*words)
    assert "How the patch was learned" not in (tmp_path / "r.html").read_text()
    (tmp_path / "bad.json").write_text("{}")
    assert "format" in run(*words, "--learning", tmp_path / "bad.json", expected=2)
