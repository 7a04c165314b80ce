"""A certificate that supersedes another names it by digest and covers no less, but for what was taken back."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from prune_verify.checker.envelope import parse_envelope
from tests.dishonest_owner import prepare, run
from tests.stream_owner import DATA, StreamOwner

pytestmark = pytest.mark.prover


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("supersedes")
    prepare(folder)
    run("keygen", "--out", folder / "owner")
    return folder / "base.onnx"


@pytest.fixture
def owner(base, tmp_path) -> StreamOwner:
    return StreamOwner(base, tmp_path)


def signed(owner: StreamOwner, name: str) -> Path:
    path = owner.folder / f"{name}.unlearn.json"
    run("sign", owner.out / "statement.json", "--key", owner.base.parent / "owner.key", "--out", path)
    return path


def predicate(owner: StreamOwner) -> dict:
    return json.loads((owner.out / "statement.json").read_bytes())["predicate"]


def test_it_names_the_payload_of_the_earlier_one_and_the_auditor_is_told(owner):
    owner.step("--reference", "A", forget=[3, 7])
    owner.certify()
    assert predicate(owner)["supersedes"] is None
    first = signed(owner, "first")
    owner.step("--reference", "B", forget=[11])
    owner.certify("--supersedes", first)
    payload = parse_envelope(first.read_bytes(), "first").payload
    assert predicate(owner)["supersedes"] == hashlib.sha256(payload).hexdigest()
    second = signed(owner, "second")
    folder = owner.folder
    run("trust", "init", folder / "trust.json")
    key = owner.base.parent / "owner.pub"
    run("trust", "add", folder / "trust.json", "--key", key, "--role", "prover", "--name", "owner")
    assert predicate(owner)["request"]["reference"] == '["A","B"]'
    words = [
        "verify", second, "--base", owner.base, "--patched", owner.out / "patched.onnx", "--trust",
        folder / "trust.json", "--policy", folder / "policy.toml", "--evidence", owner.out / "evidence", "--openings",
        owner.out / "openings.json", "--forget", owner.out / "forget.npz", "--retain", folder / "retain1.npz", "--json",
    ]  # fmt: skip
    found = json.loads(run(*words))
    assert found["verdict"] == "VERIFIED"
    assert any("was not compared" in warning for warning in found["warnings"])
    found = json.loads(run(*words, "--supersedes", first))
    assert found["verdict"] == "VERIFIED"
    assert [check["status"] for check in found["checks"] if check["id"] == "supersession"] == ["PASS"]


def test_what_was_withdrawn_is_shown_to_the_auditor_and_capped_by_the_policy(owner):
    """The whole way: a request is withdrawn, its certificate replaced, and the auditor holds the earlier one."""
    owner.step("--reference", "A", forget=[3, 7])
    owner.step("--reference", "B", forget=[11])
    owner.certify()
    first, before, keys = signed(owner, "first"), owner.out / "forget.npz", owner.out / "openings.json"
    owner.step("--withdraw", "A", back=[3, 7])
    owner.certify("--supersedes", first, "--withdrawn", "2")
    second, folder = signed(owner, "second"), owner.folder
    run("trust", "init", folder / "trust.json")
    run("trust", "add", folder / "trust.json", "--key", owner.base.parent / "owner.pub", "--name", "owner")
    words = [
        "verify", second, "--base", owner.base, "--patched", owner.out / "patched.onnx", "--trust",
        folder / "trust.json", "--policy", folder / "policy.toml", "--evidence", owner.out / "evidence", "--openings",
        owner.out / "openings.json", "--forget", owner.out / "forget.npz", "--retain", folder / "retain2.npz",
        "--supersedes", first, "--superseded-forget", before, "--superseded-openings", keys, "--json",
    ]  # fmt: skip
    found = json.loads(run(*words, expected=1))
    assert (found["verdict"], found["code"], found["checks"][-1]["path"]) == (
        "REJECTED",
        "E_POLICY",
        "predicate/supersedes",
    )
    policy = folder / "policy.toml"
    policy.write_text(policy.read_text().replace("max_withdrawn = 0", "max_withdrawn = 2"))
    found = json.loads(run(*words))
    assert found["verdict"] == "VERIFIED"
    assert "withdrawn since the earlier certificate: 2 of 3 records, request 'A'" in found["warnings"]


def test_a_request_that_is_no_more_named_is_refused_unless_it_was_taken_back(owner, tmp_path):
    """The same records under another reference: the first request would be gone from the list without a word."""
    owner.step("--reference", "A", forget=[3])
    owner.certify()
    first = signed(owner, "first")
    records = ("--forget", owner.out / "forget.npz", "--retain", owner.folder / "retain0.npz")
    run("repair", owner.base, *records, "--reference", "B", "--out", tmp_path / "o")
    words = [
        "certify", owner.base, tmp_path / "o" / "patched.onnx", "--request", tmp_path / "o" / "request.json", *records,
        "--cross-check", "0", "--supersedes", first, "--out", tmp_path / "o",
    ]  # fmt: skip
    assert "it names the requests 'A', and this request does not" in run(*words, expected=2)
    assert not (tmp_path / "o" / "statement.json").exists()
    run(*words, "--withdrawn", "1")


def test_fewer_records_are_refused_unless_they_were_taken_back(owner):
    owner.step("--reference", "A", forget=[3, 7])
    owner.step("--reference", "B", forget=[11])
    owner.certify()
    first = signed(owner, "first")
    owner.step("--withdraw", "A", back=[3, 7])
    words = owner.certify("--supersedes", first, expected=2)["error"]
    assert "it covers 3 forget records, and this request 1" in words
    assert "how many records and classes that were (2)" in words
    assert "it covers 3 forget records" in owner.certify("--supersedes", first, "--withdrawn", "1", expected=2)["error"]
    owner.certify("--supersedes", first, "--withdrawn", "2")
    assert len(predicate(owner)["supersedes"]) == 64


def test_a_class_that_is_no_more_forgotten_is_refused_unless_it_was_taken_back(owner):
    label = str(int(DATA.train_y[3]))
    owner.step("--reference", "A", forget=[3])
    owner.step("--reference", "K", "--forget-class", label)
    owner.certify()
    first = signed(owner, "first")
    owner.step("--withdraw", "K")
    words = owner.certify("--supersedes", first, expected=2)["error"]
    assert f"classes {label}" in words
    owner.certify("--supersedes", first, "--withdrawn", "1")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--radius", "0.05"], "has radius 0.1, this request 0.05"),
        (["--margin", "0.05"], "has margin 0.1, this request 0.05"),
        (["--domain", "0.01,1", "--radius", "0.1"], "has domain its domain, this request a smaller one"),
    ],
)
def test_weaker_terms_are_refused(owner, tmp_path, more, words):
    owner.step("--reference", "A", forget=[3])
    owner.certify()
    first = signed(owner, "first")
    records = ("--forget", owner.out / "forget.npz", "--retain", owner.folder / "retain0.npz")
    if "--domain" in more:
        records = tuple(lifted(path, tmp_path) if isinstance(path, Path) else path for path in records)
    run("repair", owner.base, *records, *more, "--out", tmp_path / "o")
    text = run(
        "certify", owner.base, tmp_path / "o" / "patched.onnx", "--request", tmp_path / "o" / "request.json", *records,
        "--supersedes", first, "--out", tmp_path / "o", expected=2,
    )  # fmt: skip
    assert words in text
    assert not (tmp_path / "o" / "statement.json").exists()


def lifted(path: Path, folder: Path) -> Path:
    """The same records, 0.02 at least everywhere."""
    with np.load(path) as found:
        np.savez(folder / path.name, x=np.maximum(found["x"], np.float32(0.02)), y=found["y"])
    return folder / path.name


def test_another_base_and_a_file_that_is_no_certificate_are_refused(owner, tmp_path):
    owner.step("--reference", "A", forget=[3])
    owner.certify()
    first = signed(owner, "first")
    document = json.loads((owner.out / "statement.json").read_bytes())
    digest = document["predicate"]["originalModel"]["sha256"]
    changed = tmp_path / "changed.json"
    changed.write_bytes((owner.out / "statement.json").read_bytes().replace(digest.encode(), digest[::-1].encode()))
    other = tmp_path / "other.unlearn.json"
    run("sign", changed, "--key", owner.base.parent / "owner.key", "--out", other)
    assert f"it is about the base {digest[::-1]}" in owner.certify("--supersedes", other, expected=2)["error"]
    assert "statement.json" in owner.certify("--supersedes", owner.out / "statement.json", expected=2)["error"]
    assert "belongs to --supersedes" in owner.certify("--withdrawn", "1", expected=2)["error"]
    assert "from 0" in owner.certify("--supersedes", first, "--withdrawn", "-1", expected=2)["error"]
