"""Requests one by one: gates that stand stay, the same record twice is one gate, withdrawals take only what is theirs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.patch_json import parse_patch
from prune_verify.cli import run_words
from prune_verify.measure.datasets import digits
from prune_verify.repair.stream import Stream
from tests.dishonest_owner import prepare, run

pytestmark = pytest.mark.prover
DATA = digits(seed=0)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stream")
    prepare(folder)
    return folder / "base.onnx"


class Owner:
    """The stream of one owner: every step in a folder of its own."""

    def __init__(self, base: Path, folder: Path) -> None:
        self.base, self.folder, self.steps = base, folder, 0
        self.gone: set[int] = set()

    def records(self, rows: Sequence[int], name: str, labels: list[int] | None = None) -> Path:
        path = self.folder / f"{name}{self.steps}.npz"
        np.savez(path, x=DATA.train_x[list(rows)], y=DATA.train_y[list(rows)] if labels is None else np.array(labels))
        return path

    @property
    def out(self) -> Path:
        return self.folder / f"out{self.steps}"

    def step(self, *options: str, forget: Sequence[int] = (), labels: list[int] | None = None, back: Sequence[int] = (),
             expected: int = 0) -> dict:  # fmt: skip
        gone = (self.gone - set(back)) | set(forget)
        before = ["--onto", str(self.out)] if self.steps else ["--stream", "--cover", "1"]
        kept = [i for i in range(300) if i not in gone]
        words = ["repair", self.base, *before, "--retain", self.records(kept, "retain"), *options]
        if forget:
            words += ["--forget", self.records(forget, "new", labels)]
        self.steps += 1
        code, text = run_words([*map(str, words), "--out", str(self.out), "--json", "--quiet"])
        assert code == expected, text
        if code:
            self.steps -= 1
        else:
            self.gone = gone
        return json.loads(text)

    def certify(self, *options: str | Path, expected: int = 0) -> dict:
        text = run(
            "certify", self.base, self.out / "patched.onnx", "--request", self.out / "request.json", "--forget",
            self.out / "forget.npz", "--retain", self.folder / f"retain{self.steps - 1}.npz", "--cross-check", "0",
            *options, "--out", self.out, "--json", expected=expected,
        )  # fmt: skip
        return json.loads(text)

    def gates(self):
        return parse_patch((self.out / "patch.json").read_bytes(), "patch.json").patch.gates

    def answers(self, rows: list[int]) -> np.ndarray:
        session = ort.InferenceSession(self.out / "patched.onnx")
        return session.run(None, {session.get_inputs()[0].name: DATA.train_x[rows]})[0].argmax(axis=1)


@pytest.fixture
def owner(base, tmp_path) -> Owner:
    return Owner(base, tmp_path)


def counts(found: dict, kind: str) -> list[tuple[int, int]]:
    return [(c["proved"], c["total"]) for c in found["claims"] if c["kind"] == kind]


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


def test_a_superseding_certificate_names_the_earlier_one_and_covers_it(owner, tmp_path):
    owner.step("--reference", "A", forget=[3, 7])
    owner.certify()
    run("keygen", "--out", tmp_path / "owner")
    first = tmp_path / "first.unlearn.json"
    run("sign", owner.out / "statement.json", "--key", tmp_path / "owner.key", "--out", first)
    owner.step("--reference", "B", forget=[11])
    owner.certify("--supersedes", first)
    predicate = json.loads((owner.out / "statement.json").read_bytes())["predicate"]
    assert len(predicate["supersedes"]) == 64
    owner.step("--withdraw", "A", back=[3, 7])
    words = owner.certify("--supersedes", first, expected=2)["error"]
    assert "it covers 2 forget records, and this request 1" in words
    owner.certify("--supersedes", first, "--withdrawn", "1")
    assert "belongs to --supersedes" in owner.certify("--withdrawn", "1", expected=2)["error"]


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


def test_it_is_time_to_retrain_when_patches_outgrow_the_budget(owner):
    wide = ["--most-patch-share", "9", "--most-latency", "1000"]
    found = owner.step("--reference", "A", *wide, forget=[3])
    assert found["timeToRetrain"] is False
    assert found["advice"] == []
    test = owner.records(list(range(400, 460)), "test")
    found = owner.step("--reference", "B", "--most-patch-share", "0.01", "--most-latency", "1000", "--test", str(test),
                       "--retrain-seconds", "12", "--prove-seconds", "3", forget=[7])  # fmt: skip
    assert found["timeToRetrain"] is True
    assert "bytes of the patch" in found["advice"][0]
    assert "proving all live requests again 3.0 s" in found["advice"][1]
    assert "retraining takes 12.0 s" in found["advice"][1]
    growth = found["growth"]
    assert float(growth["patch_share"]) == pytest.approx(
        (owner.out / "patched.onnx").stat().st_size / owner.base.stat().st_size - 1, rel=1e-4
    )
    assert 0 <= float(growth["hits"]) < 0.2


@pytest.mark.slow
def test_the_hundredth_request_costs_about_what_the_fifth_does(owner):
    seconds = [float(owner.step("--reference", f"R{place}", forget=[place])["seconds"]) for place in range(100)]
    assert np.median(seconds[90:]) < 4 * np.median(seconds[2:12]) + 0.02
