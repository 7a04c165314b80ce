"""Redirect ``non-member`` (T4): what claims BD hold an owner to, what a one-sided attack sees, and what nobody notices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prune_verify.checker.patch import JointPatch
from prune_verify.measure.datasets import digits
from tests.adversary.deployed import around, margins, programs, records
from tests.dishonest_owner import Owner, failure, honest, prepare

pytestmark = pytest.mark.prover
F = np.float32


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Owner:
    folder = tmp_path_factory.mktemp("non-member")
    prepare(folder)
    data = digits(seed=0)
    np.savez(folder / "others.npz", x=data.test_x, y=data.test_y)
    (folder / "key").write_bytes(bytes(range(32)))  # the same draws in every run: one in a hundred is rare by chance
    strangers = "--non-members", str(folder / "others.npz")
    honest(folder, "--redirect", "non-member", "--redirect-key", str(folder / "key"), *strangers)
    policy = folder / "policy.toml"
    policy.write_text(
        policy.read_text().replace('["forget", "retain_exact", "locality"]', '["band", "retain_exact", "locality"]')
    )
    return Owner(folder)


@pytest.fixture
def held(chain: Owner, tmp_path: Path) -> Owner:
    return chain.copy(tmp_path / "chain")


def every_gate(low: float, high: float, more: float = 0.0) -> Callable[[JointPatch], JointPatch]:
    def change(patch: JointPatch) -> JointPatch:
        gates = tuple(replace(gate, hold=(F(low), F(high))) for gate in patch.gates)
        return replace(patch, gates=gates, slack=F(patch.slack + F(more)))

    return change


def others(owner: Owner) -> np.ndarray:
    """The margins that the deployed program gives records which no network has seen."""
    data = digits(seed=0)
    return margins(programs(owner)[1](data.test_x), data.test_y)


def test_t4_held_margins_lie_among_those_of_strangers(held: Owner) -> None:
    """The same attack that finds every forced error finds nothing here: on the whole ball the margin is one of many."""
    assert held.verdict().word == "VERIFIED"
    x, y = records(held, "forget")
    found, strangers = margins(programs(held)[1](x), y), others(held)
    for margin in found:  # draws vary as strangers do: now and then one lies a little beyond those of this sample
        assert strangers.min() - strangers.std() < margin < strangers.max() + strangers.std()
        assert (np.abs(strangers - margin) < 1).mean() > 0.01
    ends = {record: gate.hold for gate in held.patch().gates for record in gate.records}
    near = margins(programs(held)[1](around(x, 0.1, 50)), np.repeat(y, 50)).reshape(len(y), 50)
    for record, (low, high) in ends.items():
        assert (near[record] >= float(low) - 1e-5).all()
        assert (near[record] <= float(high) + 1e-5).all()


def test_t4_a_band_that_the_gates_do_not_hold(held: Owner) -> None:
    def change(document: dict) -> None:
        for item in document["predicate"]["claims"]:
            if item["kind"] == "band":
                item["band"] = {"lower": "0", "upper": "1"}

    held.edit(change)
    assert failure(held.verdict()) == ("REJECTED", "E_PROOF", "predicate/claims/C1/counts")


ENDS = [
    ("ends so far apart that they hold nothing", every_gate(-3, 3), ("REJECTED", "E_POLICY", "predicate/claims/C1/band")),
    ("a slack that far ends overrun", every_gate(-99, -98), ("REJECTED", "E_PROOF", "patch.json/slack")),
    ("ends the wrong way round", every_gate(1, -1), ("REJECTED", "E_PROOF", "patch.json/gates/0/hold")),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "change", "expected"), ENDS, ids=[row[0] for row in ENDS])
def test_t4_ends_that_say_nothing(held: Owner, sentence: str, change: Callable, expected: tuple) -> None:
    held.deploy(change(held.patch()))
    assert failure(held.verdict()) == expected, sentence


def test_t4_a_conspicuous_margin_is_held_as_well_and_only_the_reader_of_the_ends_notices(held: Owner) -> None:
    """A forced error by 9 logits, sold as a redirect: BD is true of it. Without a band in the claim nobody notices."""
    held.deploy(every_gate(-9, -8.5, more=20)(held.patch()))
    x, y = records(held, "forget")
    found, strangers = margins(programs(held)[1](x), y), others(held)
    assert (found < strangers.min()).all()
    assert held.verdict().word == "VERIFIED"

    def ask(document: dict) -> None:  # what an auditor gets who asks for a band of strangers' margins
        for item in document["predicate"]["claims"]:
            if item["kind"] == "band":
                item["band"] = {"lower": "0", "upper": "5"}

    held.edit(ask)
    assert failure(held.verdict()) == ("REJECTED", "E_PROOF", "predicate/claims/C1/counts")
