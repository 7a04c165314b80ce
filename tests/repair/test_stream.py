"""Requests one by one: gates that stand stay, the same record twice is one gate, withdrawals take only what is theirs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from prune_verify.checker.load_onnx import load_network
from prune_verify.cli import run_words
from prune_verify.repair.stream import Stream
from tests.dishonest_owner import prepare, run
from tests.repair.bases import mlp
from tests.stream_owner import DATA, StreamOwner, counts

pytestmark = pytest.mark.prover


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stream")
    prepare(folder)
    return folder / "base.onnx"


@pytest.fixture
def owner(base, tmp_path) -> StreamOwner:
    return StreamOwner(base, tmp_path)


def test_requests_one_by_one_and_in_batches_are_proved_together(owner):
    owner.step("--reference", "A", forget=[3])
    first = owner.gates()
    owner.step("--reference", "B", forget=[7, 11, 20])
    found = owner.step("--reference", "C", forget=[40])
    assert found["requests"] == ["A", "B", "C"]
    assert (found["records"], found["gates"]) == (5, 5)
    assert owner.gates()[:1] == first, "gates that stand stay as they are"
    proved = owner.certify()
    assert counts(proved, "forget") == [(5, 5)] * 2
    assert counts(proved, "retain_exact") == [(295 - len(found["conflicts"]), 295)] * 2
    rows = [3, 7, 11, 20, 40]
    assert (owner.answers(rows) != DATA.train_y[rows]).all()


def test_the_same_record_twice_is_one_gate_that_stays_until_both_are_withdrawn(owner):
    owner.step("--reference", "A", forget=[3, 7])
    found = owner.step("--reference", "B", forget=[7])
    assert (found["records"], found["gates"]) == (2, 2)
    found = owner.step("--withdraw", "A", back=[3])
    assert (found["records"], found["gates"], found["requests"]) == (1, 1, ["B"])
    assert counts(owner.certify(), "forget") == [(1, 1)] * 2
    assert owner.answers([7])[0] != DATA.train_y[7]
    assert owner.answers([3])[0] == DATA.train_y[3]
    text = owner.step("--withdraw", "B", back=[7], expected=2)["error"]
    assert "no request would be left" in text


def test_a_withdrawn_record_that_is_retained_again_is_checked_against_every_gate(owner):
    owner.step("--reference", "A", forget=[3])
    owner.step("--reference", "B", forget=[7])
    found = owner.step("--withdraw", "A", back=[3])
    assert counts(owner.certify(), "retain_exact") == [(299 - len(found["conflicts"]), 299)] * 2


def test_conflicts_of_earlier_requests_are_not_forgotten(owner):
    owner.step("--reference", "A", forget=[3])
    twin = np.clip(DATA.train_x[3] + np.float32(0.01), 0, 1)
    original = DATA.train_x[9].copy()
    try:
        DATA.train_x[9] = twin
        owner.step("--reference", "B", forget=[7])
        found = owner.step("--reference", "C", forget=[5])
        place = [i for i in range(300) if i not in owner.gone].index(9)
        assert place in found["conflicts"]
        assert counts(owner.certify(), "retain_exact")[0][0] == 297 - len(found["conflicts"])
    finally:
        DATA.train_x[9] = original


def test_interfering_requests_with_two_labels_for_one_record_are_both_met(owner):
    owner.step("--reference", "A", forget=[3])
    found = owner.step("--reference", "B", forget=[3], labels=[(int(DATA.train_y[3]) + 1) % 10])
    assert (found["records"], found["gates"]) == (2, 2)
    assert counts(owner.certify(), "forget") == [(2, 2)] * 2


def test_a_class_joins_and_leaves_a_stream(owner):
    owner.step("--reference", "A", forget=[3, 7])
    label = int(DATA.train_y[3])
    found = owner.step("--reference", "K", "--forget-class", str(label))
    assert found["classes"] == [label]
    assert found["gates"] == sum(DATA.train_y[r] != label for r in (3, 7))
    assert {c["kind"] for c in owner.certify()["claims"]} >= {"forget", "forget_class", "retain_other_labels"}
    found = owner.step("--withdraw", "K")
    assert (found["gates"], found["classes"]) == (2, [])
    assert counts(owner.certify(), "forget") == [(2, 2)] * 2


def test_files_that_hold_records_are_the_owners_alone(owner):
    owner.step("--reference", "A", forget=[3])
    for name in ("forget.npz", "stream.json", "checked.npz"):
        assert (owner.out / name).stat().st_mode & 0o077 == 0, name
    stream = Stream.read(owner.out)
    assert stream.repairs == 1
    assert len(stream.checked) == 299


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--reference", "A", "--forget-class", "1"], "expected one that no live request has"),
        (["--withdraw", "Z"], "live are 'A'"),
        (["--radius", "0.2", "--forget-class", "1"], "is fixed when it begins"),
        (["--family", "learned", "--forget-class", "1"], "streams are of gates at the input"),
        ([], "--withdraw REFERENCE"),
        (["--stream", "--forget-class", "1"], "give one of them"),
        (["--withdraw", "A", "--clusters", "2"], "--clusters: streams are of gates at the input"),
        (["--withdraw", "A", "--retrain-seconds", "nan"], "--retrain-seconds: expected seconds above 0, got nan"),
        (["--withdraw", "A", "--most-latency", "-1"], "--most-latency: expected a number from 0, got -1"),
        (["--reference", "x" * 257, "--forget-class", "1"], "expected at most 256 characters, got 257"),
    ],
)
def test_what_a_stream_refuses(owner, options, words):
    owner.step("--reference", "A", forget=[3])
    assert words in owner.step(*options, expected=2)["error"]


def test_a_folder_that_is_no_stream_and_a_stream_of_another_base_are_refused(owner, tmp_path):
    (tmp_path / "empty").mkdir()
    code, text = run_words(["repair", str(owner.base), "--onto", str(tmp_path / "empty"), "--forget-class", "1",
                            "--out", str(tmp_path / "o"), "--quiet"])  # fmt: skip
    assert code == 2
    assert "found no stream.json" in text
    owner.step("--reference", "A", forget=[3])
    path = owner.out / "stream.json"
    document = json.loads(path.read_bytes())
    digest = load_network(owner.base.read_bytes(), "base.onnx").network.digest()
    path.write_bytes(path.read_bytes().replace(document["baseDigest"].encode(), digest[::-1].encode()))
    assert "expected a stream of the base" in owner.step("--forget-class", "1", expected=2)["error"]


def test_options_of_streams_are_refused_without_one(owner, tmp_path):
    words = ["repair", str(owner.base), "--forget-class", "1", "--out", str(tmp_path / "o"), "--quiet"]
    for options in (["--withdraw", "A"], ["--test", "t.npz"], ["--retrain-seconds", "9"], ["--prove-seconds", "9"]):
        code, text = run_words([*words, *options])
        assert (code, "belong to a stream" in text) == (2, True), options
    code, text = run_words([*words, "--stream", "--withdraw", "A"])
    assert (code, "belongs to --onto" in text) == (2, True)
    assert not (tmp_path / "o").exists()


def test_a_gate_for_two_near_records_is_made_anew_when_one_is_withdrawn(owner):
    wide = np.clip(DATA.train_x[3] + np.float32(0.001), 0, 1)
    original = DATA.train_x[7].copy(), DATA.train_y[7]
    try:
        DATA.train_x[7], DATA.train_y[7] = wide, DATA.train_y[3]
        owner.step("--reference", "A", "--radius", "0.1", forget=[3])
        found = owner.step("--reference", "B", forget=[7])
        assert (found["records"], found["gates"]) == (2, 1), "the box of 3 is 1/64 of its radius wider than its ball"
        before = owner.gates()
        owner.step("--withdraw", "A")
        assert owner.gates()[0].records == (0,)
        assert owner.gates()[0].intervals != before[0].intervals
        assert counts(owner.certify(), "forget") == [(1, 1)] * 2
    finally:
        DATA.train_x[7], DATA.train_y[7] = original


def test_strict_refuses_conflicts_and_writes_nothing(owner):
    original = DATA.train_x[9].copy()
    try:
        DATA.train_x[9] = np.clip(DATA.train_x[3] + np.float32(0.01), 0, 1)
        found = owner.step("--reference", "A", "--strict", forget=[3], expected=3)
        assert "retained records 8" in found["error"] or "retain records 8" in found["error"]
        assert not (owner.folder / "out1" / "patch.json").exists()
    finally:
        DATA.train_x[9] = original


def test_the_disclosure_budget_holds_for_a_stream(owner, tmp_path):
    model = tmp_path / "t.toml"
    model.write_text("disclosure_bits = 600\n")
    bits = owner.step("--reference", "A", "--threat-model", str(model), forget=[3])["disclosedBits"]
    assert bits <= 600
    found = owner.step("--reference", "B", forget=list(range(20, 60)), expected=3)
    assert found["shortfalls"][0]["line"] == "disclosure_bits"


def test_a_threat_model_that_holds_margins_begins_no_stream(owner, tmp_path):
    model = tmp_path / "t.toml"
    model.write_text('redirect = "non-member"\n')
    found = owner.step("--threat-model", str(model), forget=[3], expected=2)
    assert "expected misclassify, got non-member" in found["error"]


def test_a_step_into_the_same_folder_leaves_no_records_of_earlier_ones(owner):
    owner.step("--reference", "A", forget=[3])
    retain = owner.folder / "retain0.npz"
    words = ["repair", owner.base, "--onto", owner.out, "--out", owner.out, "--retain", retain, "--quiet"]
    assert run_words([*map(str, words), "--withdraw", "A", "--forget-class", "1"])[0] == 0
    assert not (owner.out / "forget.npz").exists()
    words = [*map(str, words), "--forget", str(owner.out / "forget.npz")]
    code, text = run_words(words)
    assert (code, "is written there" in text) == (2, True)


def test_an_encoded_table_is_certified_as_it_was_encoded(tmp_path):
    rng = np.random.default_rng(0)
    base, table = tmp_path / "base.onnx", tmp_path / "retain.csv"
    base.write_bytes(mlp(labels=2))
    names = [f"c{i}" for i in range(12)]
    for name, count in (("retain", 40), ("new", 1)):
        rows = ["".join(f"{v:.3f}," for v in row) + "ab"[i % 2] for i, row in enumerate(rng.random((count, 12)))]
        (tmp_path / f"{name}.csv").write_text("\n".join([",".join([*names, "label"]), *rows]) + "\n")
    encoding, out = tmp_path / "encoding.json", tmp_path / "out"
    run("encode", table, "--label-column", "label", "--out", encoding)
    text = run(
        "repair", base, "--stream", "--reference", "A", "--forget", tmp_path / "new.csv", "--retain", table,
        "--label-column", "label", "--encoding", encoding, "--domain=-1,2", "--out", out,
    )  # fmt: skip
    assert f"certify with --forget {out / 'forget.npz'} --retain {out / 'retain.npz'}" in text
    assert (out / "retain.npz").stat().st_mode & 0o077 == 0
    run(
        "certify", base, out / "patched.onnx", "--request", out / "request.json", "--forget", out / "forget.npz",
        "--retain", out / "retain.npz", "--cross-check", "0", "--out", out,
    )  # fmt: skip


@pytest.mark.slow
def test_the_three_hundredth_request_costs_about_what_the_tenth_does(owner):
    seconds = {}
    owner.step("--reference", "first", forget=list(range(5)))
    for place in range(5, 15):
        seconds[place] = float(owner.step("--reference", f"R{place}", forget=[place])["gateSeconds"])
    owner.step("--reference", "many", forget=list(range(300, 585)))
    for place in range(15, 25):
        seconds[place] = float(owner.step("--reference", f"R{place}", forget=[place])["gateSeconds"])
    early, late = (np.median([seconds[place] for place in part]) for part in (range(5, 15), range(15, 25)))
    assert late < 4 * early + 0.02
