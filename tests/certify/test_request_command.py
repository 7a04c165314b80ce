"""Only two networks and records: a request, a certificate without patch.json, and its verification."""

from __future__ import annotations

import json
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from prune_verify.checker.claim import Claim, LabelledRows, Problem
from prune_verify.checker.identity import decide_identity
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.region import Domain
from prune_verify.checker.rules import BINARY32, REAL
from prune_verify.cli import main, run_words
from prune_verify.request import parse_request
from tests.certify.foreign import prepare_foreign
from tests.dishonest_owner import Owner, failure, run

pytestmark = pytest.mark.prover
POLICY = (
    ('["forget", "retain_exact", "locality"]', '["forget", "retain_label"]'),
    ("min_forget_radius = 0.1", "min_forget_radius = 0.02"),
    ("min_retained_radius = 0.05", "min_retained_radius = 0.005"),
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foreign")
    prepare_foreign(folder)
    return folder


@pytest.fixture(scope="module")
def chain(files: Path) -> Owner:
    folder = files / "chain"
    folder.mkdir()
    for path in files.glob("*.*"):
        shutil.copy(path, folder)
    records = ("--forget", folder / "forget.npz", "--retain", folder / "retain.npz")
    networks = (folder / "base.onnx", folder / "patched.onnx")
    run(
        "request", *networks, *records, "--radius", "0.02", "--retained-radius", "0.005", "--delta", "2",
        "--band=-60,-0.1", "--out", folder / "request.json",
    )  # fmt: skip
    run(
        "certify", *networks, "--request", folder / "request.json", *records, "--timeout", "2", "--out", folder,
    )  # fmt: skip
    run("keygen", "--out", folder / "owner")
    run("trust", "init", folder / "trust.json")
    run("trust", "add", folder / "trust.json", "--key", folder / "owner.pub", "--role", "prover", "--name", "owner")
    run("sign", folder / "statement.json", "--key", folder / "owner.key", "--out", folder / "a.unlearn.json")
    policy = (folder / "policy.toml").read_text()
    for old, new in (*POLICY, ("max_delta = 0.1", "max_delta = 2"), ("max_band_width = 5", "max_band_width = 60")):
        assert old in policy
        policy = policy.replace(old, new)
    (folder / "policy.toml").write_text(policy)
    return Owner(folder)


@pytest.fixture
def owner(chain: Owner, tmp_path: Path) -> Owner:
    return chain.copy(tmp_path / "chain")


def test_claims_about_a_fine_tuned_network_are_proved_and_checked(owner: Owner) -> None:
    verdict = owner.verdict()
    assert verdict.word == "VERIFIED", verdict.text()
    kept = owner.statement()["predicate"]["retainSet"]["size"]
    assert kept >= 100
    totals = {"forget": 4, "retain_label": kept, "retain_close": kept, "band": 4}
    expected = [(kind, total) for kind, total in totals.items() for _ in range(2)]
    assert [(c.kind, c.total) for c in verdict.claims] == expected
    assert all(c.proved == c.total for c in verdict.claims)
    assert owner.statement()["predicate"]["patch"] is None
    assert not (owner.folder / "evidence" / "patch.json").exists()


def test_a_policy_for_structural_claims_is_not_met(owner: Owner) -> None:
    path = owner.folder / "policy.toml"
    path.write_text(path.read_text().replace('["forget", "retain_label"]', '["forget", "locality"]'))
    assert failure(owner.verdict()) == ("REJECTED", "E_POLICY", "predicate/claims")


def test_a_structural_claim_without_a_patch_is_refused(owner: Owner) -> None:
    owner.edit(lambda d: d["predicate"]["claims"][0].update(method="structural"))
    assert failure(owner.verdict())[:2] == ("REJECTED", "E_PROOF")


@pytest.mark.parametrize("kind", ["class", "records+class"])
def test_a_class_request_is_not_met_without_a_patch(owner: Owner, kind: str) -> None:
    """No claim about classes can stand there, and none would be demanded for the classes of no patch."""
    owner.edit(lambda d: d["predicate"]["request"].update(kind=kind))
    assert failure(owner.verdict()) == ("REJECTED", "E_POLICY", "predicate/request/kind")


def test_the_request_has_what_was_asked_and_names_what_is_unused(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "request.json"
    code, text = run_words([
        "request", str(files / "base.onnx"), "--forget", str(files / "forget.npz"), "--retain",
        str(files / "retain.npz"), "--arithmetic", "real", "--claims", "forget, retain_label", "--delta", "3",
        "--reference", "R-1", "--quiet", "--out", str(out),
    ])  # fmt: skip
    assert code == 0, text
    assert "--delta: not used by claims of kind forget, retain_label" in text
    assert "forget radius 0.1, retained radius 0.05, margin 0.1" in text
    request = parse_request(out.read_bytes(), "request.json")
    assert (request.claims, request.arithmetics, request.reference) == (("forget", "retain_label"), ("real",), "R-1")
    assert (request.delta, request.band, request.kind, request.labels) == (None, None, "records", 10)


def test_a_class_request_says_what_it_will_need(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "request.json"
    words = ["request", str(files / "base.onnx"), "--forget-class", "3", "--cover", "2", "--json", "--out", str(out)]
    code, text = run_words(words)
    assert code == 0
    data = json.loads(text)
    assert data["claims"] == ["forget_class", "retain_other_labels"]
    assert [note.partition(":")[0] for note in data["notes"]] == ["--cover", "forget_class, retain_other_labels"]


BAD = [
    ("nothing to forget", [], "nothing to forget"),
    ("no such base", ["BASE=none.onnx", "--forget", "F"], "no file"),
    ("no such patched network", ["PATCHED=none.onnx", "--forget", "F"], "no file"),
    ("no such records", ["--forget", "none.npz"], "none.npz"),
    ("a base that is no network", ["BASE=F", "--forget", "F"], "forget.npz"),
    ("unknown claim", ["--forget", "F", "--claims", "forget,remain"], "'remain'"),
    ("a claim twice", ["--forget", "F", "--claims", "forget,forget"], "twice"),
    ("unknown arithmetic", ["--forget", "F", "--arithmetic", "bf16"], "'bf16'"),
    ("retained records missing", ["--forget", "F", "--claims", "forget,retain_label"], "--retain"),
    ("classes missing", ["--forget", "F", "--claims", "forget,forget_class"], "--forget-class"),
    ("records missing", ["--forget-class", "1", "--claims", "forget_class,forget"], "--forget RECORDS"),
    ("band missing", ["--forget", "F", "--claims", "forget,band"], "--band"),
    ("nothing is forgotten by the claims", ["--forget", "F", "--band", "0,1", "--claims", "band"], "claim forget"),
    ("a band that is no band", ["--forget", "F", "--band", "3"], "--band"),
    ("a band upside down", ["--forget", "F", "--band", "3,1"], "--band"),
    ("a radius that is no number", ["--forget", "F", "--radius", "wide"], "--radius"),
    ("a radius of 0", ["--forget", "F", "--radius", "0"], "--radius"),
    ("a radius below 4 ulp", ["--forget", "F", "--radius", "0.00000001"], "radius"),
    ("a negative margin", ["--forget", "F", "--margin", "-1"], "--margin"),
    ("a cover of 0", ["--forget", "F", "--cover", "0"], "--cover"),
    ("a class that is no label", ["--forget-class", "10"], "--forget-class"),
    ("every class", [w for c in range(10) for w in ("--forget-class", str(c))], "no label is left"),
    ("one set as both", ["--forget", "F", "--retain", "F"], "in both sets"),
    ("a domain without the records", ["--forget", "F", "--domain", "0.5,1"], "domain"),
    ("a long reference", ["--forget", "F", "--reference", "r" * 600], "--reference"),
    ("a folder as output", ["--forget", "F", "--out", "."], "--out"),
    ("a folder that is missing", ["--forget", "F", "--out", "none/request.json"], "none"),
]


@pytest.mark.parametrize(("_sentence", "words", "named"), BAD, ids=[row[0] for row in BAD])
def test_bad_input(
    files: Path, tmp_path: Path, monkeypatch, capsys, _sentence: str, words: list[str], named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    networks = {"BASE": files / "base.onnx", "PATCHED": files / "patched.onnx"}
    for word in list(words):
        name, equals, value = word.partition("=")
        if equals and name in networks:
            networks[name] = files / "forget.npz" if value == "F" else Path(value)
            words = [w for w in words if w != word]
    given = [str(files / "forget.npz") if word == "F" else word for word in words]
    out = [] if "--out" in given else ["--out", "request.json"]
    code = main(["request", str(networks["BASE"]), str(networks["PATCHED"]), *given, *out, "--quiet"])
    assert code == 2
    assert named in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["locality", "minimality"])
def test_certify_names_what_needs_a_patch(files: Path, tmp_path: Path, kind: str) -> None:
    records = ["--forget", str(files / "forget.npz"), "--retain", str(files / "retain.npz")]
    networks = [str(files / "base.onnx"), str(files / "patched.onnx")]
    request = tmp_path / "request.json"
    assert run_words(["request", *networks, *records, "--claims", f"forget,{kind}", "--out", str(request)])[0] == 0
    out = tmp_path / "out"
    code, text = run_words(["certify", *networks, "--request", str(request), *records, "--out", str(out), "--quiet"])
    assert code == 2
    assert f"a claim of kind {kind} follows from the form of a patch, so patch.json is needed" in text
    assert not out.exists()


def test_a_patched_network_of_another_shape(files: Path, tmp_path: Path) -> None:
    from prune_verify.measure.training import export_onnx, small_mlp

    other = tmp_path / "other.onnx"
    other.write_bytes(export_onnx(small_mlp((64, 8, 9)), np.zeros((1, 64), dtype=np.float32)))
    words = ["request", str(files / "base.onnx"), str(other), "--forget", str(files / "forget.npz")]
    code, text = run_words([*words, "--out", str(tmp_path / "request.json")])
    assert code == 2
    assert "output shape" in text


def test_nothing_is_exact_after_fine_tuning(files: Path) -> None:
    """Merged weights: the base is not inside, so no record is proved, whatever the radius."""
    base, patched = (load_network((files / f"{n}.onnx").read_bytes(), n).network for n in ("base", "patched"))
    with np.load(files / "retain.npz") as data:
        rows = LabelledRows(data["x"], data["y"])
    problem = Problem(base, patched, None, Domain((Fraction(0),), (Fraction(1),)), retain=rows)
    for arithmetic in (BINARY32, REAL):
        outcome = decide_identity(problem, Claim("retain_exact", arithmetic, "identity", radius=Fraction("0.0001")))
        assert (outcome.proved, len(outcome.unknowns)) == (0, outcome.total)


def test_the_report_and_inspect_speak_of_a_network_without_a_patch(owner: Owner, tmp_path: Path) -> None:
    f, report = owner.folder, tmp_path / "report.html"
    run(
        "verify", owner.certificate, "--base", f / "base.onnx", "--patched", f / "patched.onnx", "--trust",
        f / "trust.json", "--policy", f / "policy.toml", "--forget", f / "forget.npz", "--retain", f / "retain.npz",
        "--report", report,
    )  # fmt: skip
    assert "VERIFIED" in report.read_text()
    assert "retain_close" in run("inspect", owner.certificate)
