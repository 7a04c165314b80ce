"""Claim M all the way: asked for in the request, proved by the dual, checked, and refused where it is too strong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.dishonest_owner import Owner, failure, prepare, run

pytestmark = pytest.mark.prover


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Owner:
    folder = tmp_path_factory.mktemp("minimality")
    prepare(folder)
    records = ("--forget", folder / "forget.npz", "--retain", folder / "retain.npz")
    run("repair", folder / "base.onnx", *records, "--cover", "1", "--out", folder)
    request = json.loads((folder / "request.json").read_bytes())
    request["claims"].append("minimality")
    (folder / "request.json").write_text(json.dumps(request, sort_keys=True, separators=(",", ":")))
    # where the relaxation has a gap a gate counts as unknown: exit 3
    run(
        "certify", folder / "base.onnx", folder / "patched.onnx", "--request", folder / "request.json", *records,
        "--cross-check", "0", "--out", folder, expected=3 if _has_gap(folder) else 0,
    )  # fmt: skip
    run("keygen", "--out", folder / "owner")
    run("trust", "init", folder / "trust.json")
    run("trust", "add", folder / "trust.json", "--key", folder / "owner.pub", "--role", "prover", "--name", "owner")
    run("sign", folder / "statement.json", "--key", folder / "owner.key", "--out", folder / "a.unlearn.json")
    return Owner(folder)


def _has_gap(folder: Path) -> bool:
    """Whether the bound of some gate lies below its number of intervals: decided from the same files, before certify."""
    from prune_verify.certify.minimal import prove_minimality
    from prune_verify.checker.claim import Claim, LabelledRows, Problem
    from prune_verify.checker.load_onnx import load_network
    from prune_verify.checker.minimality import decide_minimality
    from prune_verify.checker.patch_json import parse_patch
    from prune_verify.checker.records import load_records
    from prune_verify.request import parse_request

    request = parse_request((folder / "request.json").read_bytes(), "request.json")
    sets = [load_records(str(folder / f"{name}.npz"), what=name) for name in ("forget", "retain")]
    base, patched = (load_network((folder / f"{n}.onnx").read_bytes(), n).network for n in ("base", "patched"))
    patch = parse_patch((folder / "patch.json").read_bytes(), "patch.json").patch
    forget, retain = (LabelledRows(one.x, one.y) for one in sets)
    problem = Problem(base, patched, patch, request.domain, forget, retain)
    claim = Claim("minimality", "real", "covering-dual", radius=request.radius, cover=(1, request.retained_radius))
    outcome = decide_minimality(problem, claim, prove_minimality(problem, claim), "p")
    assert outcome.proved > 0
    return outcome.proved < outcome.total


@pytest.fixture
def owner(chain: Owner, tmp_path: Path) -> Owner:
    return chain.copy(tmp_path)


def _claim(owner: Owner) -> dict:
    return next(c for c in owner.statement()["predicate"]["claims"] if c["kind"] == "minimality")


def test_minimality_is_verified_or_left_open_gate_by_gate(owner: Owner) -> None:
    counts, verdict = _claim(owner)["counts"], owner.verdict()
    assert counts["total"] == 4
    assert counts["proved"] >= 1
    assert verdict.word == ("VERIFIED" if counts["proved"] == 4 else "UNDECIDED"), failure(verdict)
    assert f"{counts['proved']} of 4 proved" in "\n".join(check.detail for check in verdict.checks)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"cover": {"count": 4, "retainedRadius": "0.05"}}, ("REJECTED", "E_PROOF")),
        ({"cover": {"count": 1, "retainedRadius": "0.01"}}, ("REJECTED", "E_PO")),
        ({"cover": {"count": 0, "retainedRadius": "0.05"}}, ("REJECTED", "E_MALFORMED")),
        ({"cover": None}, ("REJECTED", "E_PROOF")),
        ({"region": None}, ("REJECTED", "E_PROOF")),
        ({"method": "structural"}, ("REJECTED", "E_UNSUPPORTED")),
    ],
)
def test_what_is_changed_afterwards_is_refused(owner: Owner, change: dict, expected: tuple[str, str]) -> None:
    def edit(document: dict) -> None:
        for claim in document["predicate"]["claims"]:
            if claim["kind"] == "minimality":
                claim.update(change)

    owner.edit(edit)
    word, code, _ = failure(owner.verdict())
    assert word == expected[0]
    assert code.startswith(expected[1]) or code == "E_PROOF"


def test_without_the_retained_records_it_stays_open(owner: Owner) -> None:
    verdict = owner.verdict(retain=None)
    assert (verdict.word, verdict.code) == ("UNDECIDED", "E_DATA_MISSING")


def test_a_cover_of_small_balls_is_refused_without_the_retained_records_too(owner: Owner) -> None:
    def edit(document: dict) -> None:
        for claim in document["predicate"]["claims"]:
            if claim["kind"] == "minimality":
                claim["cover"] = {"count": 1, "retainedRadius": "0.01"}

    owner.edit(edit)
    expected = f"predicate/claims/{_claim(owner)['id']}/cover/retainedRadius"
    assert failure(owner.verdict(retain=None)) == ("REJECTED", "E_POLICY", expected)
