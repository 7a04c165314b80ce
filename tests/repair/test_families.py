"""Every family all the way on digits: repaired, certified, verified, run by onnxruntime; and what each cannot meet."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from prune_verify.cli import run_words
from prune_verify.measure.datasets import digits
from prune_verify.measure.training import export_onnx, small_mlp, train
from tests.dishonest_owner import Owner, prepare, run

pytestmark = pytest.mark.prover
COPIES = 9


def logits(path: Path, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(path)
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def chain(folder: Path, options: list[str], demanded: str, forget: str = "forget.npz") -> Owner:
    """As ``dishonest_owner.honest``, with a policy that demands these claims of radii as small as the family's."""
    base, retain = folder / "base.onnx", ("--retain", folder / "retain.npz")
    run("repair", base, "--forget", folder / "forget.npz", *retain, *options, "--out", folder / "out")
    for name in ("patched.onnx", "patch.json", "request.json"):
        (folder / name).write_bytes((folder / "out" / name).read_bytes())
    if forget != "forget.npz":
        (folder / "forget.npz").write_bytes((folder / forget).read_bytes())
    run(
        "certify", base, folder / "patched.onnx", "--request", folder / "request.json", "--forget",
        folder / "forget.npz", *retain, "--cross-check", "3", "--out", folder,
    )  # fmt: skip
    run("keygen", "--out", folder / "owner")
    run("trust", "init", folder / "trust.json")
    run("trust", "add", folder / "trust.json", "--key", folder / "owner.pub", "--role", "prover", "--name", "owner")
    run("sign", folder / "statement.json", "--key", folder / "owner.key", "--out", folder / "a.unlearn.json")
    policy = (folder / "policy.toml").read_text()
    for old, new in (
        ('["forget", "retain_exact", "locality"]', demanded),
        ("min_forget_radius = 0.1", "min_forget_radius = 0.0001"),
        ("min_retained_radius = 0.05", "min_retained_radius = 0.0001"),
        ("max_conflicts = 0", "max_conflicts = 40"),
        ("max_slab_share = 0.001", "max_slab_share = 0.1"),
        ("max_already_wrong_share = 0.1", "max_already_wrong_share = 1"),
    ):
        assert old in policy
        policy = policy.replace(old, new)
    (folder / "policy.toml").write_text(policy)
    return Owner(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    prepare(tmp_path)
    return tmp_path


@pytest.fixture
def deep(folder: Path) -> Path:
    """With a base of so many neurons that few records share an activation pattern."""
    data = digits(seed=0)
    network = train(lambda: small_mlp((64, 64, 32, 10)), data, epochs=40, seed=0)
    (folder / "base.onnx").write_bytes(export_onnx(network, data.train_x))
    return folder


SMALL = ["--radius", "0.0004", "--retained-radius", "0.0002"]


@pytest.mark.parametrize(
    ("options", "demanded", "kinds"),
    [
        (["--cover", "1"], '["forget", "retain_exact", "locality"]', {"forget", "retain_exact", "retain_label", "locality"}),
        (["--site", "relu-0", "--radius", "0.01", "--retained-radius", "0.005", "--cover", "1"],
         '["forget", "retain_exact", "locality"]', {"forget", "retain_exact", "retain_label", "locality"}),
        (["--family", "learned", "--radius", "0.02", "--retained-radius", "0.01"], '["forget", "retain_close"]', {"forget", "retain_close"}),
    ],
    ids=["box", "hidden", "learned"],
)  # fmt: skip
def test_a_family_forgets_every_record_and_is_verified(folder, options, demanded, kinds):
    all_forgotten(chain(folder, options, demanded), kinds)


def test_a_linear_region_forgets_every_record_and_is_verified(deep):
    kinds = {"forget", "retain_close", "minimality"}
    all_forgotten(chain(deep, ["--family", "linear-region", *SMALL], json.dumps(sorted(kinds))), kinds)


def all_forgotten(owner: Owner, kinds: set[str]) -> None:
    folder, verdict = owner.folder, owner.verdict()
    assert verdict.word == "VERIFIED", verdict.text()
    assert {claim.kind for claim in verdict.claims} == kinds
    forgotten = [claim for claim in verdict.claims if claim.kind == "forget"]
    assert len(forgotten) == 2
    assert all(claim.proved == claim.total for claim in forgotten)
    records = np.load(folder / "forget.npz")
    assert (logits(folder / "patched.onnx", records["x"]).argmax(axis=1) != records["y"]).all()


def test_shifted_copies_are_forgotten_as_well(folder):
    options = ["--site", "relu-0", "--shifts", "1", "--image", "8x8", "--radius", "0.002", "--retained-radius", "0.001"]
    records = dict(np.load(folder / "forget.npz"))
    owner = chain(folder, [*options, "--cover", "1"], '["forget", "retain_exact"]', "out/forget.npz")
    verdict = owner.verdict()
    assert verdict.word == "VERIFIED", verdict.text()
    copies = np.load(folder / "forget.npz")
    assert len(copies["y"]) == COPIES * len(records["y"])
    np.testing.assert_array_equal(copies["x"][::COPIES], records["x"])
    assert (logits(folder / "patched.onnx", copies["x"]).argmax(axis=1) != copies["y"]).all()
    assert (folder / "out" / "forget.npz").stat().st_mode & 0o077 == 0


def test_margins_are_held_where_non_members_have_them(folder):
    data = digits(seed=0)
    np.savez(folder / "others.npz", x=data.test_x, y=data.test_y)
    options = ["--redirect", "non-member", "--non-members", str(folder / "others.npz"), "--cover", "1"]
    owner = chain(folder, options, '["band", "retain_exact"]')
    verdict = owner.verdict()
    assert verdict.word == "VERIFIED", verdict.text()
    band = [claim for claim in verdict.claims if claim.kind == "band"]
    assert all(claim.proved == claim.total for claim in band)
    key = (folder / "out" / "redirect.key").read_bytes()
    assert len(key) == 32
    again = ["--redirect-key", str(folder / "out" / "redirect.key")]
    run("repair", folder / "base.onnx", "--forget", folder / "forget.npz", "--retain", folder / "retain.npz",
        *options, *again, "--out", folder / "again")  # fmt: skip
    assert (folder / "again" / "patch.json").read_bytes() == (folder / "out" / "patch.json").read_bytes()
    held = [gate["hold"] for gate in json.loads((folder / "patch.json").read_bytes())["gates"]]
    assert all(held)


def test_a_band_that_is_wider_than_the_policy_allows_is_refused(folder):
    np.savez(folder / "margins.npz", margins=np.random.default_rng(0).normal(5, 2, (16, 4)))
    options = ["--redirect", "non-member", "--out-margins", str(folder / "margins.npz"), "--cover", "1"]
    owner = chain(folder, options, '["band", "retain_exact"]')
    assert owner.verdict().word == "VERIFIED"
    path = folder / "policy.toml"
    path.write_text(path.read_text().replace("max_band_width = 5 ", "max_band_width = 0.4 "))
    verdict = owner.verdict()
    assert (verdict.word, verdict.code) == ("REJECTED", "E_POLICY"), verdict.text()
    assert "band" in verdict.text()


def test_representatives_are_counted_honestly(deep):
    options = ["--family", "linear-region", "--clusters", "2", *SMALL]
    text = run("repair", deep / "base.onnx", "--forget", deep / "forget.npz", "--retain", deep / "retain.npz",
               *options, "--out", deep / "out")  # fmt: skip
    assert "2 representatives of 4 records" in text
    claims = json.loads(
        run("certify", deep / "base.onnx", deep / "out" / "patched.onnx", "--request",
            deep / "out" / "request.json", "--forget", deep / "forget.npz", "--retain", deep / "retain.npz",
            "--cross-check", "0", "--out", deep / "cert", "--json", expected=1)
    )["claims"]  # fmt: skip
    forgotten = [claim for claim in claims if claim["kind"] == "forget"]
    assert all(2 <= claim["proved"] < 4 for claim in forgotten)


def test_a_concept_is_learned_from_a_sample(folder):
    data = digits(seed=0)
    of = data.train_y == 5
    np.savez(folder / "forget.npz", x=data.train_x[of][:60], y=data.train_y[of][:60])
    np.savez(folder / "retain.npz", x=data.train_x[~of][:400], y=data.train_y[~of][:400])
    text = run(
        "repair", folder / "base.onnx", "--forget", folder / "forget.npz", "--retain", folder / "retain.npz",
        "--family", "learned", "--concept", "--radius", "0.01", "--retained-radius", "0.01", "--checkpoint",
        folder / "training.npz", "--out", folder / "out",
    )  # fmt: skip
    assert "by bounds" in text
    unseen = data.test_x[data.test_y == 5]
    before, after = (logits(folder / name, unseen).argmax(axis=1) for name in ("base.onnx", "out/patched.onnx"))
    assert (before == 5).mean() > 0.8
    assert (after == 5).mean() < 0.1
    assert (folder / "out" / "learning.json").exists()
    assert (folder / "training.npz").exists()


def refused(folder: Path, *options: str) -> dict:
    words = ["repair", str(folder / "base.onnx"), "--forget", str(folder / "forget.npz"), "--retain",
             str(folder / "retain.npz"), *options, "--out", str(folder / "new"), "--json", "--quiet"]  # fmt: skip
    code, text = run_words(words)
    assert code == 3, text
    assert not list((folder / "new").iterdir()), "nothing half-written"
    return json.loads(text)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--threat-model", "{budget}", "--strict"], "disclosure_bits"),
        (["--threat-model", "{each}"], "disclosure_bits_per_record"),
        (["--site", "relu-0", "--radius", "0.01", "--retained-radius", "0.005", "--threat-model", "{budget}"], "disclosure_bits"),
        (["--family", "linear-region", "--radius", "0.3"], "radius"),
        (["--family", "linear-region", *SMALL, "--threat-model", "{budget}"], "disclosure_bits"),
        (["--family", "learned", "--radius", "0.45", "--retained-radius", "0.2", "--margin", "60"], "delta"),
    ],
    ids=["box", "box-per-record", "hidden", "region", "region-budget", "learned"],
)  # fmt: skip
def test_a_family_says_which_line_it_cannot_meet_and_by_how_much(folder, options, line):
    (folder / "budget.toml").write_text("disclosure_bits = 20\n")
    (folder / "each.toml").write_text("disclosure_bits_per_record = 7\n")
    words = [word.format(budget=folder / "budget.toml", each=folder / "each.toml") for word in options]
    short = refused(folder, *words)["shortfalls"]
    found = {item["line"]: item for item in short}
    assert line in found
    asked, reached = found[line]["asked"], found[line]["reached"]
    assert asked
    assert reached
    assert asked != reached


def test_conflicts_under_strict_say_at_which_radius_there_are_none(folder):
    forget, retain = np.load(folder / "forget.npz"), dict(np.load(folder / "retain.npz"))
    retain["x"][7] = np.clip(forget["x"][2] + np.float32(0.13), 0, 1)
    np.savez(folder / "retain.npz", **retain)
    found = refused(folder, "--strict")
    short = {item["line"]: item for item in found["shortfalls"]}["retained_radius"]
    assert 7 in short["records"]
    reached = float(short["reached"].removeprefix("about "))
    assert 0 < reached < 0.05
    run("repair", folder / "base.onnx", "--forget", folder / "forget.npz", "--retain", folder / "retain.npz",
        "--strict", "--retained-radius", f"{0.95 * reached:.6f}", "--cover", "1", "--out", folder / "new")  # fmt: skip


def test_a_retained_twin_of_a_linear_region_is_a_line_that_is_not_met(deep):
    forget, retain = np.load(deep / "forget.npz"), dict(np.load(deep / "retain.npz"))
    retain["x"][7] = np.clip(forget["x"][2] + np.float32(0.0003), 0, 1)
    np.savez(deep / "retain.npz", **retain)
    found = refused(deep, "--family", "linear-region", *SMALL, "--strict")
    short = {item["line"]: item for item in found["shortfalls"]}["delta"]
    assert short["records"] == [7]
    assert float(short["reached"]) > float(short["asked"]) == 0.1


def test_less_cover_is_tried_before_a_budget_is_given_up(folder):
    def bits(*options: str) -> dict:
        out = folder / f"o{len(list(folder.iterdir()))}"
        text = run("repair", folder / "base.onnx", "--forget", folder / "forget.npz", "--retain",
                   folder / "retain.npz", *options, "--out", out, "--json")  # fmt: skip
        return json.loads(text)

    full, least = bits("--cover", "3")["disclosedBits"], bits("--cover", "1")["disclosedBits"]
    assert least < full
    (folder / "t.toml").write_text(f"cover = 3\ndisclosure_bits = {full - 1}\n")
    found = bits("--threat-model", str(folder / "t.toml"))
    assert found["disclosedBits"] < full
    short = found["shortfalls"][0]
    assert (short["line"], short["asked"]) == ("cover", "3")
    assert short["reached"] in ("1", "2")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--clusters", "2"], "--clusters belongs to family linear-region"),
        (["--family", "learned", "--site", "relu-0"], "--site belongs to family box"),
        (["--site", "relu-7"], "relu-0"),
        (["--family", "linear-region", "--clusters", "9", *SMALL], "expected from 1 to 4"),
        (["--shifts", "1"], "--image"),
        (["--shifts", "1", "--image", "7x8"], "no multiple of 56"),
        (["--shifts", "0", "--image", "8x8"], "at least 1"),
        (["--redirect", "non-member"], "--out-margins FILE.npz or --non-members RECORDS"),
        (["--redirect", "non-member", "--non-members", "{forget}"], "it is no non-member"),
        (["--family", "learned", "--redirect", "non-member"], "needs --non-members"),
        (["--family", "linear-region", "--forget-class", "1"], "leave out --forget-class"),
    ],
)
def test_options_that_do_not_go_together_are_refused(folder, options, words):
    command = ["repair", str(folder / "base.onnx"), "--forget", str(folder / "forget.npz"), "--retain",
               str(folder / "retain.npz"), *(o.format(forget=folder / "forget.npz") for o in options),
               "--out", str(folder / "new"), "--quiet"]  # fmt: skip
    code, text = run_words(command)
    assert code == 2, text
    assert words in text
