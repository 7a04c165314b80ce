"""What a VERIFIED certificate does not show, demonstrated: each attack here works, and the certificate says nothing else.

The weights still remember (T2), the patch gives coordinates away (T3), a forced error marks the record (T4), an endpoint
serves something else, by client or by record (T1, T9, T10). What can be counted is counted and compared; the rest is
said on every certificate, and no statement without these sentences is accepted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import onnx
import pytest
from onnx import helper

from prune_verify.checker.claim import LabelledRows
from prune_verify.checker.encoding import canonical_json
from prune_verify.checker.patch import Interval
from prune_verify.checker.statement import NON_CLAIMS
from prune_verify.measure.datasets import digits
from prune_verify.measure.disclosure import measure_disclosure
from tests.adversary.deployed import around, margins, problem_of, programs, records, served
from tests.dishonest_owner import Owner, failure

pytestmark = pytest.mark.prover
F = np.float32


# --- T2: what is not claimed ---


def without(place: int) -> Callable[[list[str]], list[str]]:
    return lambda said: said[:place] + said[place + 1 :]


def instead(place: int, change: Callable[[str], str]) -> Callable[[list[str]], list[str]]:
    return lambda said: [change(text) if i == place else text for i, text in enumerate(said)]


SENTENCES = [
    ("none at all", lambda _: []),
    *((f"sentence {i} left out", without(i)) for i in range(len(NON_CLAIMS))),
    *((f"sentence {i} without its not", instead(i, lambda t: t.replace(" not ", " ").replace("never ", ""))) for i in (0, 1, 2)),
    ("a full stop less", instead(0, lambda t: t.rstrip("."))),
    ("in other letters", instead(2, str.upper)),
    ("a sentence that is true, and another one", lambda said: ["This certificate is not a proof of removal.", *said[1:]]),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "change"), SENTENCES, ids=[row[0] for row in SENTENCES])
def test_t2_a_statement_that_says_less_of_what_is_not_claimed(owner: Owner, sentence: str, change: Callable) -> None:
    owner.edit(lambda d: d["predicate"].update(nonClaims=change(d["predicate"]["nonClaims"])))
    word, code, path = failure(owner.verdict())
    assert (word, code) == ("REJECTED", "E_MALFORMED"), sentence
    assert path.endswith("predicate/nonClaims")


def test_t2_the_weights_still_remember_and_the_checker_cannot_notice(owner: Owner) -> None:
    """Who has the file cuts the patch off: the base answers every forgotten record again. VERIFIED all the same."""
    model = onnx.load_from_string((owner.folder / "patched.onnx").read_bytes())
    x, y = records(owner, "forget")
    base, patched = programs(owner)
    model.graph.output.append(helper.make_tensor_value_info("prune_verify/base_logits_1", 1, ["batch", 10]))
    del model.graph.output[0]
    relearned = served(model.SerializeToString())
    np.testing.assert_array_equal(relearned(x).argmax(axis=1), base(x).argmax(axis=1))
    assert (patched(x).argmax(axis=1) != y).all()
    verdict = owner.verdict()
    assert verdict.word == "VERIFIED"
    assert "still depend on the forgotten records" in NON_CLAIMS[0]
    assert list(NON_CLAIMS) == owner.statement()["predicate"]["nonClaims"]


# --- T3: what the patch gives away ---


def _understate(owner: Owner, summary: dict[str, int], **file: int) -> None:
    """A patch.json and a statement that say less than the gates hold, consistently named by digest."""
    value = json.loads((owner.folder / "evidence" / "patch.json").read_bytes())
    value["disclosed"] |= file
    content = canonical_json(value)
    owner.replace_file("evidence/patch.json", content)
    digest = hashlib.sha256(content).hexdigest()
    owner.edit(lambda d: d["predicate"]["patch"].update(sha256=digest, **summary))


UNDERSTATED = [
    ("bits in the statement", {"disclosedBits": 8}, {}, "E_PROOF", "predicate/patch"),
    ("coordinates in the statement", {"disclosedCoordinates": 1}, {}, "E_PROOF", "predicate/patch"),
    ("the widest gate in the statement", {"maxCoordinates": 1}, {}, "E_PROOF", "predicate/patch"),
    ("bits in both files", {"disclosedBits": 8}, {"bits": 8}, "E_MALFORMED", "evidence/patch.json/disclosed"),
    ("coordinates in both files", {"disclosedCoordinates": 1}, {"coordinates": 1}, "E_MALFORMED", "evidence/patch.json/disclosed"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "summary", "file", "code", "path"), UNDERSTATED, ids=[r[0] for r in UNDERSTATED])
def test_t3_a_patch_that_discloses_more_than_is_said(
    owner: Owner, sentence: str, summary: dict, file: dict, code: str, path: str
) -> None:
    _understate(owner, summary, **file)
    assert failure(owner.verdict()) == ("REJECTED", code, path), sentence


def test_t3_a_gate_on_every_coordinate_is_the_record_and_the_bits_say_so(owner: Owner) -> None:
    """Whoever has the file reads the record off the gate's edges. That is no lie, so it is VERIFIED, with its bits."""
    patch, (x, y) = owner.patch(), records(owner, "forget")
    honest = owner.statement()["predicate"]["patch"]["disclosedBits"]
    gate = next(g for g in patch.gates if 0 in g.records)
    reach, known = F(0.1001), {i.coordinate: i for i in gate.intervals}
    every = tuple(known.get(j, Interval(j, F(x[0, j] - reach), F(x[0, j] + reach))) for j in range(x.shape[1]))
    owner.deploy(replace(patch, gates=tuple(replace(g, intervals=every) if g is gate else g for g in patch.gates)))
    assert owner.verdict().word == "VERIFIED"
    said = owner.statement()["predicate"]["patch"]
    assert said["maxCoordinates"] == 64
    assert said["disclosedBits"] > honest + 64 * 6
    data = digits(seed=0)
    problem = problem_of(owner)
    found = measure_disclosure(problem.base, owner.patch(), LabelledRows(x, y), LabelledRows(data.test_x, data.test_y))
    assert found.bits == said["disclosedBits"]
    assert found.attack.each[0] < 0.02 < found.label_mean.each[0]


# --- T4: an odd answer marks the record ---


def test_t4_a_forced_error_is_told_from_every_other_record_by_its_margin(owner: Owner) -> None:
    """One threshold on the margin of the true label finds all forgotten records and nobody else. VERIFIED all the same."""
    _, patched = programs(owner)
    (x, y), data = records(owner, "forget"), digits(seed=0)
    tau = float(owner.patch().tau)
    forgotten, others = margins(patched(x), y), margins(patched(data.test_x), data.test_y)
    window = 1e-3
    assert (np.abs(forgotten + tau) < window).all()
    assert (np.abs(others + tau) < window).mean() < 0.01
    assert owner.verdict().word == "VERIFIED"
    assert any("Membership inference" in text for text in owner.statement()["predicate"]["nonClaims"])


# --- T1, T9, T10: what an endpoint serves ---


def _deviating(endpoint: Callable, certified: Callable, rows: np.ndarray) -> float:
    return float((endpoint(rows).argmax(axis=1) != certified(rows).argmax(axis=1)).mean())


def test_t10_an_endpoint_that_knows_the_records_by_their_hash(owner: Owner) -> None:
    """It patches the very records and nothing else: queries with them see nothing, fresh ones in the balls a share p.

    k of these miss it with probability (1 - p)^k. The certificate is about the file and stays VERIFIED.
    """
    base, patched = programs(owner)
    x, _ = records(owner, "forget")
    known = {row.tobytes() for row in x}

    def endpoint(rows: np.ndarray) -> np.ndarray:
        listed = np.array([row.tobytes() in known for row in rows])
        return np.where(listed[:, np.newaxis], patched(rows), base(rows))

    assert _deviating(endpoint, patched, x) == 0
    fresh = around(x, 0.1, 100)
    share = _deviating(endpoint, patched, fresh)
    assert share > 0.5
    assert (1 - Fraction(share).limit_denominator(1000)) ** 20 < Fraction(1, 10**6)
    assert owner.verdict().word == "VERIFIED"


def test_t1_t9_an_endpoint_that_serves_the_base_to_some(owner: Owner) -> None:
    """By client: who is served the certified file sees nothing, however often; the other client's share is 1."""
    base, patched = programs(owner)
    x, _ = records(owner, "forget")
    serve = {"the auditor": patched, "everybody else": base}
    rows = around(x, 0.1, 50)
    assert _deviating(serve["the auditor"], patched, rows) == 0
    assert _deviating(serve["everybody else"], patched, rows) > 0.5
    assert owner.verdict().word == "VERIFIED"
