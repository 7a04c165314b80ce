"""A gate with needless intervals sold as the smallest one (T5, T25): claim M by the owner's choice of terms and records.

The owner adds an interval to every gate that separates nothing which was not separated before, and looks for terms of the
claim, or names records, for which the larger gate counts as minimal.
"""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from prune_verify.certify.minimal import prove_minimality
from prune_verify.checker.claim import Claim, LabelledRows, Problem
from prune_verify.checker.encoding import sha256_hex
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.minimality import decide_minimality
from prune_verify.checker.patch import Gate, Interval
from prune_verify.checker.policy import parse_policy
from prune_verify.checker.records import load_records
from prune_verify.checker.verify_claims import counts_of
from tests.dishonest_owner import Owner, failure

pytestmark = pytest.mark.prover
F = np.float32


def _problem(owner: Owner) -> Problem:
    sets = [load_records(str(owner.folder / f"{name}.npz"), what=name) for name in ("forget", "retain")]
    names = ("base.onnx", "patched.onnx")
    base, patched = (load_network((owner.folder / name).read_bytes(), name).network for name in names)
    rows = [LabelledRows(one.x, one.y) for one in sets]
    domain = parse_policy((owner.folder / "policy.toml").read_bytes(), "policy.toml").domain
    return Problem(base, patched, owner.patch(), domain, *rows)


def claim_minimality(owner: Owner, cover: int) -> tuple[int, int]:
    """Put a claim M of this cover, with the best weights that the owner finds and true counts, into the statement."""
    problem = _problem(owner)
    claim = Claim("minimality", "real", "covering-dual", radius=Fraction("0.1"), cover=(cover, Fraction("0.05")))
    data = prove_minimality(problem, claim)
    outcome = decide_minimality(problem, claim, data, "M.proof")
    (owner.folder / "evidence" / "M1.proof").write_bytes(data)
    counts = counts_of(outcome)

    def change(document: dict) -> None:
        predicate = document["predicate"]
        predicate["claims"] = [c for c in predicate["claims"] if c["id"] != "M1"]
        predicate["evidence"] = [e for e in predicate["evidence"] if e["name"] != "M1.proof"]
        sample = predicate["claims"][0]
        predicate["claims"].append(
            dict.fromkeys(sample)
            | {
                "id": "M1", "kind": "minimality", "arithmetic": "real", "quantifier": "each-gate",
                "method": "covering-dual", "region": {"kind": "ball", "norm": "linf", "radius": "0.1"},
                "cover": {"count": cover, "retainedRadius": "0.05"}, "conflicts": [],
                "unknowns": list(outcome.unknowns), "alreadyWrong": [],
                "counts": {
                    "total": counts.total, "proved": counts.proved, "provedByBound": 0, "refuted": 0,
                    "unknown": counts.unknown, "conflict": 0, "alreadyWrong": 0,
                },
            }
        )  # fmt: skip
        predicate["evidence"].append({"name": "M1.proof", "sha256": sha256_hex(data), "bytes": len(data)})
        predicate["evidence"].sort(key=lambda item: item["name"])

    owner.edit(change)
    return outcome.proved, outcome.total


def needless(problem: Problem, gate: Gate) -> Gate:
    """The gate with one interval more, on a coordinate that it does not read: the forget balls are in it."""
    held = problem.forget.flat()[list(gate.records)]
    reach, used = F(0.11), {i.coordinate for i in gate.intervals}
    spread = problem.retain.flat().max(axis=0) - held.max(axis=0)
    free = next(int(j) for j in np.argsort(-spread, kind="stable") if int(j) not in used)
    more = Interval(free, None, F(held[:, free].max() + reach))
    return replace(gate, intervals=tuple(sorted((*gate.intervals, more), key=lambda i: i.coordinate)))


def deploy_needless(owner: Owner) -> None:
    """Deploy gates with an interval more each: the claims that the policy demands hold of them as they did before."""
    problem, patch = _problem(owner), owner.patch()
    owner.deploy(replace(patch, gates=tuple(needless(problem, gate) for gate in patch.gates)))
    assert owner.verdict().word == "VERIFIED"


def test_the_honest_gates_are_the_fewest_where_the_bound_says_so(owner: Owner) -> None:
    proved, total = claim_minimality(owner, json.loads((owner.folder / "request.json").read_bytes())["cover"])
    assert proved > 0
    assert owner.verdict().word == ("VERIFIED" if proved == total else "UNDECIDED")


@pytest.mark.parametrize("cover", [1, 2, 4, 16])
def test_t5_needless_intervals_are_the_fewest_for_no_cover(owner: Owner, cover: int) -> None:
    """With cover 2 and more all four gates once counted as minimal: every box with that cover has as many intervals."""
    deploy_needless(owner)
    assert claim_minimality(owner, cover) == (0, 4)
    assert owner.verdict().word == "UNDECIDED"
    owner.edit(lambda document: document["predicate"]["claims"][-1].update(all_proved()))
    assert failure(owner.verdict()) == ("REJECTED", "E_PROOF", "predicate/claims/M1/counts")


def all_proved() -> dict:
    counts = {"total": 4, "proved": 4, "provedByBound": 0, "refuted": 0, "unknown": 0, "conflict": 0, "alreadyWrong": 0}
    return {"counts": counts, "unknowns": []}
