"""The certificate game: the owner lies, signs with a trusted key, and the checker says where.

Rows are named by the attack catalogue (T1 to T28). Each is refused with the code and the path that tell
the auditor what is wrong; the honest certificate beside them is VERIFIED, so that no row passes for another reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import onnx
import pytest
from onnx import helper

from prune_verify.checker.patch import Gate, Interval, JointPatch
from tests.dishonest_owner import Owner, failure

pytestmark = pytest.mark.prover
F = np.float32


def claim(document: dict, kind: str, arithmetic: str = "ieee754-binary32") -> dict:
    return next(c for c in document["predicate"]["claims"] if c["kind"] == kind and c["arithmetic"] == arithmetic)


def test_the_honest_certificates_are_verified(owner: Owner, class_owner: Owner) -> None:
    for one in (owner, class_owner):
        verdict = one.verdict()
        assert (verdict.word, verdict.code, verdict.exit_code) == ("VERIFIED", "OK", 0), verdict.text()
        assert all(check.status == "PASS" for check in verdict.checks)
        assert all(c.proved == c.total for c in verdict.claims)


# --- lies in the statement ---


def counts(kind: str, **said: int) -> Callable[[dict], None]:
    return lambda document: claim(document, kind)["counts"].update(said)


def all_claims(**members: object) -> Callable[[dict], None]:
    def change(document: dict) -> None:
        for item in document["predicate"]["claims"]:
            for name, value in members.items():
                if item[name] is not None:
                    item[name] = value

    return change


def drop(*, arithmetic: str = "", kind: str = "") -> Callable[[dict], None]:
    def change(document: dict) -> None:
        kept = [c for c in document["predicate"]["claims"] if c["arithmetic"] != arithmetic and c["kind"] != kind]
        document["predicate"]["claims"] = kept

    return change


def member(path: str, value: object) -> Callable[[dict], None]:
    def change(document: dict) -> None:
        *parents, last = path.split("/")
        for name in parents:
            document = document[name]
        document[last] = value

    return change


BALL = {"kind": "ball", "norm": "linf"}
STATEMENTS = [
    ("T6 needle patch: a radius below the policy's", all_claims(region=BALL | {"radius": "0.001"}), "E_POLICY", "predicate/claims/C1/region/radius"),
    ("T7 margin above what the head leaves", all_claims(margin="5"), "E_PROOF", "claim/margin"),
    ("T7 margin zero", all_claims(margin="0"), "E_PROOF", "claim/margin"),
    ("T7 negative margin", all_claims(margin="-1"), "E_PROOF", "claim/margin"),
    ("T14 more proved than records", counts("retain_exact", total=500, proved=500), "E_PROOF", "predicate/claims/C3/counts"),
    ("T14 a share of claims left out", counts("forget", total=3, proved=3), "E_PROOF", "predicate/claims/C1/counts"),
    ("T16 hides that the base was wrong already", counts("forget", alreadyWrong=1), "E_PROOF", "predicate/claims/C1/counts"),
    ("T12/T14 no retained claim", drop(kind="retain_exact"), "E_POLICY", "predicate/claims"),
    ("T14 no locality claim", drop(kind="locality"), "E_POLICY", "predicate/claims"),
    ("T27 real arithmetic only", drop(arithmetic="ieee754-binary32"), "E_POLICY", "predicate/claims"),
    ("T23 a domain of the owner's", member("predicate/semantics/domain", {"lower": "0", "upper": "0.5"}), "E_POLICY", "predicate/semantics/domain"),
    ("T23 an encoding of the owner's", member("predicate/semantics/encodingSha256", "ab" * 32), "E_POLICY", "predicate/semantics/encodingSha256"),
    ("T13 another root of the forget set", member("predicate/forgetSet/root", "00" * 32), "E_SUBJECT", "predicate/forgetSet/root"),
    ("T13 another size of the retained set", member("predicate/retainSet/size", 399), "E_SUBJECT", "predicate/retainSet/size"),
    ("T13 no forget set", member("predicate/forgetSet", None), "E_POLICY", "predicate/forgetSet"),
    ("T11 another base network", member("predicate/originalModel/sha256", "00" * 32), "E_SUBJECT", "predicate/originalModel/sha256"),
    ("T11 another network digest", member("predicate/originalModel/networkDigest", "00" * 32), "E_SUBJECT", "patched.onnx"),
    ("T11 expired", member("predicate/expiresAt", "2026-01-02T00:00:00Z"), "E_MALFORMED", ".*expiresAt"),
    ("T11 issued in the future", member("predicate/issuedAt", "2098-01-01T00:00:00Z"), "E_POLICY", "predicate/issuedAt"),
    ("T11 not yet valid", member("predicate/notBefore", "2026-12-01T00:00:00Z"), "E_POLICY", "predicate/notBefore"),
    ("T3 understates what the patch discloses", member("predicate/patch/disclosedBits", 1), "E_PROOF", "predicate/patch"),
    ("T14 an assumption that nothing needs", member("predicate/assumptions", ["trust me"]), "E_PROOF", "predicate/assumptions"),
    ("T2 leaves out what is not proved", member("predicate/nonClaims", []), "E_MALFORMED", ".*nonClaims"),
    ("another opset", member("predicate/semantics/opset", 11), "E_SUBJECT", "patched.onnx"),
    ("a field that says valid", member("predicate/valid", True), "E_MALFORMED", ".*predicate"),
]  # fmt: skip


@pytest.mark.parametrize(("attack", "change", "code", "path"), STATEMENTS, ids=[row[0] for row in STATEMENTS])
def test_lies_in_the_statement(owner: Owner, attack: str, change: Callable[[dict], None], code: str, path: str) -> None:
    owner.edit(change)
    word, found, place = failure(owner.verdict())
    assert (word, found) == ("REJECTED", code)
    assert place.endswith(path.removeprefix(".*")) if path.startswith(".*") else place == path


# --- weak or hostile patches, deployed consistently ---


def every_gate(**members: object) -> Callable[[JointPatch], JointPatch]:
    return lambda patch: replace(patch, gates=tuple(replace(gate, **members) for gate in patch.gates))


def wide_open(patch: JointPatch) -> JointPatch:
    """A box as wide as D on its one coordinate: a class cap sold as a record."""
    box = (Interval(10, F(-1), F(2)),)
    return replace(patch, gates=(replace(patch.gates[0], intervals=box), *patch.gates[1:]))


def half_the_domain(patch: JointPatch) -> JointPatch:
    """A box that leaves something of D outside but holds many retained records."""
    box = (Interval(10, None, F(0.99)),)
    return replace(patch, gates=(replace(patch.gates[0], intervals=box), *patch.gates[1:]))


def all_labels_open(patch: JointPatch) -> JointPatch:
    """Gates of every label that are open on the first record together, so that no label is proved closed."""
    records = tuple(range(4))
    box = (Interval(0, None, F(0.9)),)
    return replace(patch, gates=tuple(Gate(label, F(64), box, records) for label in range(patch.labels)))


PATCHES = [
    ("T5 leaky gate: gamma too small", every_gate(gamma=F(0.5)), "E_PROOF", "predicate/claims/C3/counts"),
    ("T6 a gate that misses the ball", lambda p: replace(p, gates=(replace(p.gates[0], intervals=(Interval(0, F(0.98), F(0.99)),)), *p.gates[1:])), "E_PROOF", "predicate/claims/C1/counts"),
    ("T14 K too small for the domain", lambda p: replace(p, slack=F(p.slack / 2)), "E_PROOF", "patch.json/slack"),
    ("T14 M too small for the domain", lambda p: replace(p, shift=F(1)), "E_PROOF", "patch.json/shift"),
    ("T7 tau below the rounding bound", lambda p: replace(p, tau=F(1e-6)), "E_PROOF", "claim/margin"),
    ("T25 a box as wide as the domain", wide_open, "E_PROOF", "patch.json/gates/0"),
    ("T18 retained records inside the gate", half_the_domain, "E_PROOF", "predicate/claims/C3/counts"),
    ("T28 gates of all labels open together", all_labels_open, "E_PROOF", "predicate/claims/C1/counts"),
    ("T15 one gate taken out", lambda p: replace(p, gates=p.gates[1:]), "E_PROOF", "predicate/claims/C1/counts"),
]  # fmt: skip


@pytest.mark.parametrize(("attack", "weaken", "code", "path"), PATCHES, ids=[row[0] for row in PATCHES])
def test_weak_patches(
    owner: Owner, attack: str, weaken: Callable[[JointPatch], JointPatch], code: str, path: str
) -> None:
    owner.deploy(weaken(owner.patch()))
    assert failure(owner.verdict()) == ("REJECTED", code, path)


def test_t17_a_trojan_beside_the_patch(owner: Owner) -> None:
    """One more node, after everything: the graph is no longer the base with exactly the patch's nodes."""
    model = onnx.load_from_string((owner.folder / "patched.onnx").read_bytes())
    output = model.graph.output[0].name
    for node in model.graph.node:
        for place, name in enumerate(node.output):
            if name == output:
                node.output[place] = "inner"
    model.graph.node.append(helper.make_node("Abs", ["inner"], [output]))
    owner.replace_file("patched.onnx", model.SerializeToString())
    assert failure(owner.verdict()) == ("REJECTED", "E_SUBJECT", "patched.onnx")


def test_t17_one_weight_of_the_base_is_another(owner: Owner) -> None:
    model = onnx.load_from_string((owner.folder / "patched.onnx").read_bytes())
    weight = next(t for t in model.graph.initializer if list(t.dims) == [24, 64])
    values = onnx.numpy_helper.to_array(weight).copy()
    values[0, 0] = np.nextafter(values[0, 0], F(1))
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    owner.replace_file("patched.onnx", model.SerializeToString())
    assert failure(owner.verdict()) == ("REJECTED", "E_SUBJECT", "patched.onnx")


def test_t1_the_patch_is_stripped_from_the_file(owner: Owner) -> None:
    (owner.folder / "patched.onnx").write_bytes((owner.folder / "base.onnx").read_bytes())
    assert failure(owner.verdict()) == ("REJECTED", "E_SUBJECT", "subject/0/digest")


def test_t11_another_base(owner: Owner) -> None:
    (owner.folder / "base.onnx").write_bytes((owner.folder / "patched.onnx").read_bytes())
    assert failure(owner.verdict()) == ("REJECTED", "E_SUBJECT", "predicate/originalModel/sha256")


@pytest.mark.parametrize(("value", "sentence"), [(np.nan, "NaN"), (np.inf, "infinity")], ids=["NaN", "infinity"])
def test_t21_weights_that_are_no_numbers(owner: Owner, value: float, sentence: str) -> None:
    for name in ("base.onnx", "patched.onnx"):
        model = onnx.load_from_string((owner.folder / name).read_bytes())
        weight = next(t for t in model.graph.initializer if list(t.dims) == [24, 64])
        values = onnx.numpy_helper.to_array(weight).copy()
        values[0, 0] = value
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        owner.replace_file(name, model.SerializeToString())
    word, code, path = failure(owner.verdict())
    assert (word, code) == ("REJECTED", "E_MALFORMED")
    assert "base.onnx" in path


def test_t21_weights_that_overflow_in_float32(owner: Owner) -> None:
    """Huge but finite weights: the interval pass refuses what may overflow, in the arithmetic of the claim."""
    base = onnx.load_from_string((owner.folder / "base.onnx").read_bytes())
    weight = next(t for t in base.graph.initializer if list(t.dims) == [24, 64])
    values = onnx.numpy_helper.to_array(weight) * F(1e37)
    weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(F), weight.name))
    (owner.folder / "base.onnx").write_bytes(base.SerializeToString())
    from prune_verify.checker.load_onnx import load_network

    digest = load_network(base.SerializeToString(), "base.onnx").network.digest()
    owner.replace_file("base.onnx", base.SerializeToString())
    owner.edit(member("predicate/originalModel/networkDigest", digest))
    owner.deploy(owner.patch())
    word, code, path = failure(owner.verdict())
    assert (word, code) == ("REJECTED", "E_PROOF")
    assert "Linear" in path or "node" in path


def test_t26_records_under_labels_that_the_base_never_answered(owner: Owner) -> None:
    """The owner relabels the forget set, so that the suppressed labels are not the ones that the network answers."""
    import tests.dishonest_owner as chain

    path = owner.folder / "forget.npz"
    forget = np.load(path)
    np.savez(path, x=forget["x"], y=(forget["y"] + 1) % 10)
    for name in ("owner.key", "owner.pub", "trust.json", "policy.toml", "a.unlearn.json"):
        (owner.folder / name).unlink()
    chain.honest(owner.folder)
    assert failure(owner.verdict()) == ("REJECTED", "E_POLICY", "predicate/claims/C1/alreadyWrong")
    owner.edit(
        lambda d: [c.update(alreadyWrong=[]) or c["counts"].update(alreadyWrong=0) for c in d["predicate"]["claims"]]
    )
    assert failure(owner.verdict()) == ("REJECTED", "E_PROOF", "predicate/claims/C1/counts")


def test_names_of_the_owners_cannot_forge_lines_of_the_verdict(owner: Owner, capsys) -> None:
    hostile = "p.onnx\nVERDICT: VERIFIED code=OK payload-sha256=0\x1b[2J\u202e"
    owner.edit(lambda document: document["subject"][0].update(name=hostile))
    assert owner.exit_code() == 0
    printed = capsys.readouterr().out
    assert printed.count("\nVERDICT") == 0
    assert printed.isascii()
    assert "\x1b" not in printed


# --- data ---


def test_t13_a_record_in_both_sets(owner: Owner) -> None:
    """The owner commits to a retained set that holds a forgotten record."""
    from prune_verify.checker.merkle import set_root
    from prune_verify.checker.records import canonical_records, load_records

    path = owner.folder / "retain.npz"
    retain, forget = np.load(path), np.load(owner.folder / "forget.npz")
    x, y = retain["x"].copy(), retain["y"].copy()
    x[7], y[7] = forget["x"][2], forget["y"][2]
    np.savez(path, x=x, y=y)
    import json

    key = bytes.fromhex(json.loads((owner.folder / "openings.json").read_bytes())["retain"])
    root = set_root(key, canonical_records(load_records(str(path), what="retain set")))
    owner.edit(member("predicate/retainSet/root", root))
    assert failure(owner.verdict()) == ("REJECTED", "E_POLICY", "retain set")


def test_t13_one_easy_record_many_times(owner: Owner) -> None:
    """400 retained records as the policy demands, all of them the same one."""
    import json

    from prune_verify.checker.merkle import set_root
    from prune_verify.checker.records import canonical_records, load_records

    path = owner.folder / "retain.npz"
    retain = np.load(path)
    np.savez(path, x=np.repeat(retain["x"][:1], 400, axis=0), y=np.repeat(retain["y"][:1], 400))
    key = bytes.fromhex(json.loads((owner.folder / "openings.json").read_bytes())["retain"])
    root = set_root(key, canonical_records(load_records(str(path), what="retain set")))
    owner.edit(member("predicate/retainSet/root", root))
    assert failure(owner.verdict()) == ("REJECTED", "E_POLICY", "predicate/retainSet")


def test_t13_other_records_than_the_committed_ones(owner: Owner) -> None:
    path = owner.folder / "retain.npz"
    retain = np.load(path)
    x = retain["x"].copy()
    x[0, 5] = np.nextafter(x[0, 5], F(1))
    np.savez(path, x=x, y=retain["y"])
    assert failure(owner.verdict()) == ("REJECTED", "E_SUBJECT", "predicate/retainSet/root")


MISSING = [
    ("the forget set is not shown", {"forget": None}),
    ("the retained set is not shown", {"retain": None}),
    ("the openings are missing", {"openings": "nowhere.json"}),
    ("the evidence is missing", {"evidence": "nowhere"}),
]


@pytest.mark.parametrize(("sentence", "changed"), MISSING, ids=[row[0] for row in MISSING])
def test_what_is_missing_leaves_it_undecided(owner: Owner, sentence: str, changed: dict) -> None:
    from pathlib import Path

    given = {name: Path(value) if name in {"openings", "evidence"} else value for name, value in changed.items()}
    verdict = owner.verdict(**given)
    assert (verdict.word, verdict.code, verdict.exit_code) == ("UNDECIDED", "E_DATA_MISSING", 3)
    assert any(check.status == "SKIP" for check in verdict.checks)


def test_evidence_with_another_content_is_refused(owner: Owner) -> None:
    path = owner.folder / "evidence" / "patch.json"
    path.write_bytes(path.read_bytes().replace(b'"gates"', b'"gate5"'))
    assert failure(owner.verdict()) == ("REJECTED", "E_SUBJECT", "predicate/evidence/patch.json")


def test_t6_a_radius_below_the_policys_is_refused_without_the_records_too(owner: Owner) -> None:
    owner.edit(all_claims(region=BALL | {"radius": "0.001"}))
    found = failure(owner.verdict(forget=None, retain=None))
    assert found == ("REJECTED", "E_POLICY", "predicate/claims/C1/region/radius")


def test_t23_records_that_were_not_encoded_as_the_policy_demands(owner: Owner) -> None:
    policy = owner.folder / "policy.toml"
    policy.write_text(policy.read_text().replace('encoding_sha256 = "none"', f'encoding_sha256 = "{"ab" * 32}"'))
    assert failure(owner.verdict()) == ("REJECTED", "E_POLICY", "predicate/semantics/encodingSha256")
    owner.edit(member("predicate/semantics/encodingSha256", "ab" * 32))
    assert failure(owner.verdict()) == ("REJECTED", "E_SUBJECT", "forget set")


def test_structural_claims_without_a_patch_are_refused(owner: Owner) -> None:
    owner.edit(member("predicate/patch", None))
    assert failure(owner.verdict()) == ("REJECTED", "E_PROOF", "patch.json")


# --- time and challenge ---


def test_t11_a_certificate_that_supersedes_another_one_is_verified_with_a_warning(owner: Owner) -> None:
    owner.edit(member("predicate/supersedes", "ab" * 32))
    verdict = owner.verdict()
    assert verdict.word == "VERIFIED"
    assert any("supersedes" in warning for warning in verdict.warnings)


def test_t11_expired(owner: Owner) -> None:
    verdict = owner.verdict(at_time=datetime(2200, 1, 1, tzinfo=UTC))
    assert verdict.word == "REJECTED"
    assert verdict.warnings[0].startswith("validity was judged at 2200-01-01T00:00:00Z")


def test_t11_another_auditors_challenge(owner: Owner) -> None:
    assert failure(owner.verdict(challenge="ab" * 16)) == ("REJECTED", "E_POLICY", "predicate/challenge")
    owner.edit(member("predicate/challenge", "ab" * 16))
    assert owner.verdict(challenge="ab" * 16).word == "VERIFIED"
    assert failure(owner.verdict(challenge="ac" * 16)) == ("REJECTED", "E_POLICY", "predicate/challenge")


# --- classes ---

CLASS_STATEMENTS = [
    ("FC for another class", lambda d: [c.update(label=4) for c in d["predicate"]["claims"] if c["kind"] == "forget_class"], "E_PROOF", "claim forget_class/label"),
    ("FC with a margin above tau", lambda d: [c.update(margin="7") for c in d["predicate"]["claims"] if c["kind"] == "forget_class"], "E_PROOF", "claim/margin"),
    ("RX of the forgotten class's own logit", lambda d: [c.update(logits=None) for c in d["predicate"]["claims"] if c["kind"] == "retain_exact"], "E_PROOF", "claim retain_exact/logits"),
    ("no FC", drop(kind="forget_class"), "E_POLICY", "predicate/claims"),
    ("RC* for all inputs beside gates", lambda d: [c.update(quantifier="all-inputs") for c in d["predicate"]["claims"] if c["kind"] == "retain_other_labels"], "E_PROOF", "claim retain_other_labels/quantifier"),
    ("RL although a class is forgotten", lambda d: [c.update(kind="retain_label") for c in d["predicate"]["claims"] if c["kind"] == "retain_exact"], "E_PROOF", "claim retain_label"),
    ("a class forgotten by the way", member("predicate/request/kind", "records"), "E_POLICY", "predicate/request/kind"),
    ("gates by the way", member("predicate/request/kind", "class"), "E_POLICY", "predicate/request/kind"),
    ("no RC*", drop(kind="retain_other_labels"), "E_POLICY", "predicate/claims"),
]  # fmt: skip


@pytest.mark.parametrize(("attack", "change", "code", "path"), CLASS_STATEMENTS, ids=[r[0] for r in CLASS_STATEMENTS])
def test_lies_about_a_class(class_owner: Owner, attack: str, change: Callable, code: str, path: str) -> None:
    class_owner.edit(change)
    assert failure(class_owner.verdict()) == ("REJECTED", code, path)


def test_t6_a_claim_over_records_needs_a_ball_also_where_no_gate_asks_for_one(class_owner: Owner) -> None:
    """A class cap alone keeps the other logits everywhere; without a radius the policy's minimum would be met by nothing."""
    class_owner.deploy(replace(class_owner.patch(), gates=(), shift=F(0), slack=F(0)))

    def change(document: dict) -> None:
        document["predicate"]["request"]["kind"] = "class"
        kept = [c for c in document["predicate"]["claims"] if c["kind"] not in ("forget", "locality")]
        document["predicate"]["claims"] = kept
        for item in kept:
            if item["kind"] == "retain_other_labels":
                item["quantifier"] = "all-inputs"

    class_owner.edit(change)
    assert class_owner.verdict().word == "VERIFIED", class_owner.verdict().text()
    exact = claim(class_owner.statement(), "retain_exact")["id"]
    class_owner.edit(lambda d: [c.update(region=None) for c in d["predicate"]["claims"] if c["kind"] == "retain_exact"])
    word, code, path = failure(class_owner.verdict())
    assert (word, code, path.startswith("predicate/claims/"), path.endswith("/region")) == (
        "REJECTED",
        "E_POLICY",
        True,
        True,
    )
    assert int(path.split("/")[2][1:]) <= int(exact[1:])


def test_t18_a_conflict_is_named_and_left_to_the_policy(owner: Owner) -> None:
    """An honest statement with a conflict: refused by max_conflicts = 0, verified where the policy allows one."""
    import json

    import tests.dishonest_owner as chain

    path = owner.folder / "retain.npz"
    retain, forget = np.load(path), np.load(owner.folder / "forget.npz")
    x, y = retain["x"].copy(), retain["y"].copy()
    x[7] = np.clip(forget["x"][2] + F(0.001), 0, 1)
    np.savez(path, x=x, y=y)
    for name in ("owner.key", "owner.pub", "trust.json", "policy.toml", "a.unlearn.json"):
        (owner.folder / name).unlink()
    chain.honest(owner.folder)
    exact = next(c for c in owner.statement()["predicate"]["claims"] if c["kind"] == "retain_exact")
    assert exact["conflicts"] == [7]
    assert json.loads((owner.folder / "patch.json").read_bytes())["conflicts"] == [7]
    word, code, place = failure(owner.verdict())
    assert (word, code) == ("REJECTED", "E_POLICY")
    assert place.endswith("/conflicts")
    policy = owner.folder / "policy.toml"
    policy.write_text(policy.read_text().replace("max_conflicts = 0", "max_conflicts = 1"))
    assert owner.verdict().checks[-1].name == "max_slab_share"  # one of 400 is more than the policy's share
    policy.write_text(policy.read_text().replace("max_slab_share = 0.001", "max_slab_share = 0.01"))
    assert owner.verdict().word == "VERIFIED"
    owner.edit(lambda d: [c.update(conflicts=[]) for c in d["predicate"]["claims"]])
    assert failure(owner.verdict())[:2] == ("REJECTED", "E_PROOF")


def test_every_byte_of_the_signed_file_counts(owner: Owner) -> None:
    """Each byte changed in turn (and one cut off, and one added) is refused before anything else is read."""
    data = owner.certificate.read_bytes()
    rng = np.random.default_rng(0)
    from prune_verify.checker.encoding import read_file
    from prune_verify.checker.envelope import open_envelope
    from prune_verify.checker.errors import CheckError
    from prune_verify.checker.policy import parse_trust

    trust = parse_trust(read_file(owner.folder / "trust.json", "trust", 2**20), "trust.json")
    keys, threshold = trust.keys_for("prover", datetime.now(UTC))
    open_envelope(data, "a", keys, threshold)
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] = (changed[place] + int(rng.integers(1, 256))) % 256
        with pytest.raises(CheckError):
            open_envelope(bytes(changed), "a", keys, threshold)
    for content in (data[:-1], data + b"\n", b"", b"{}", data * 2):
        owner.certificate.write_bytes(content)
        assert owner.verdict().word == "REJECTED"
        assert owner.exit_code() == 1
