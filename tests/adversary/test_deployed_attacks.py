"""Attacks that would have worked: onnxruntime shows where the claim is false, the checker refuses to call it true.

The owner deploys a bad patch or file consistently and signs it again with a key that the auditor trusts. Each test first
shows with the deployed program that the attack does what it is for, so that no refusal is one of a harmless file.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from prune_verify.checker.encoding import sha256_hex
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.patch import Gate, Interval, JointPatch
from prune_verify.repair.export import export_patched
from tests.adversary.deployed import around, margins, programs, records, served, state_true_counts
from tests.dishonest_owner import Owner, failure

pytestmark = pytest.mark.prover
F = np.float32


def test_t5_a_leaky_gate_takes_its_neighbours_along(owner: Owner) -> None:
    """Gates that close over the whole domain instead of the gap: retained answers change, and are counted."""
    patch = owner.patch()
    owner.deploy(replace(patch, gates=tuple(replace(gate, gamma=F(2.0**-14)) for gate in patch.gates)))
    base, patched = programs(owner)
    x, _ = records(owner, "retain")
    assert (base(x).argmax(axis=1) != patched(x).argmax(axis=1)).any()
    assert failure(owner.verdict()) == ("REJECTED", "E_PROOF", "predicate/claims/C3/counts")
    state_true_counts(owner)
    assert failure(owner.verdict()) == ("REJECTED", "E_POLICY", "predicate/claims/C3/conflicts")


def test_t6_a_needle_forgets_the_very_record_and_nothing_beside_it(owner: Owner) -> None:
    patch, (x, y) = owner.patch(), records(owner, "forget")

    def needle(gate: Gate) -> Gate:
        record = gate.records[0]
        thin = tuple(Interval(j, x[record, j], x[record, j]) for j in range(x.shape[1]))
        return replace(gate, gamma=F(1000), intervals=thin)

    owner.deploy(replace(patch, gates=tuple(needle(gate) for gate in patch.gates)))
    _, patched = programs(owner)
    assert (patched(x).argmax(axis=1) != y).all()
    near = patched(around(x, 0.1, 20)).argmax(axis=1)
    assert (near == np.repeat(y, 20)).any()
    assert failure(owner.verdict()) == ("REJECTED", "E_PROOF", "predicate/claims/C1/counts")
    state_true_counts(owner)
    assert owner.verdict().word == "UNDECIDED"  # nothing is proved, and the word says so
    owner.edit(lambda d: [c["region"].update(radius="0") for c in d["predicate"]["claims"] if c["kind"] == "forget"])
    state_true_counts(owner)
    assert failure(owner.verdict()) == ("REJECTED", "E_POLICY", "predicate/claims/C1/region/radius")


def test_t23_a_ball_in_which_there_is_hardly_another_float32(owner: Owner) -> None:
    """Even an auditor whose policy allows any radius gets no needle in decimals."""
    policy = owner.folder / "policy.toml"
    policy.write_text(policy.read_text().replace("min_forget_radius = 0.1 ", "min_forget_radius = 0 "))
    owner.edit(
        lambda d: [c["region"].update(radius="0.0000001") for c in d["predicate"]["claims"] if c["kind"] == "forget"]
    )
    word, code, path = failure(owner.verdict())
    assert (word, code, path) == ("REJECTED", "E_POLICY", "predicate/claims/C1/region/radius")


def test_t7_t8_a_margin_that_float32_rounds_away(owner: Owner) -> None:
    """tau far below an ulp of the logits: over the reals the label loses, the deployed program ties."""
    owner.deploy(replace(owner.patch(), tau=F(2.0**-40)))
    owner.edit(lambda d: [c.update(margin="0.0000000000001") for c in d["predicate"]["claims"] if c["margin"]])
    _, patched = programs(owner)
    x, y = records(owner, "forget")
    assert (margins(patched(x), y) == 0).any()
    assert failure(owner.verdict()) == ("REJECTED", "E_PROOF", "claim/margin")
    owner.edit(
        lambda d: d["predicate"].update(claims=[c for c in d["predicate"]["claims"] if c["arithmetic"] == "real"])
    )
    assert failure(owner.verdict())[:2] == ("REJECTED", "E_POLICY")  # no claim about the program that runs (T27)


def test_t14_a_slack_too_small_lowers_logits_that_were_to_stay(owner: Owner) -> None:
    owner.deploy(replace(owner.patch(), slack=F(1)))
    base, patched = programs(owner)
    x, _ = records(owner, "retain")
    assert (base(x) != patched(x)).any()
    assert failure(owner.verdict()) == ("REJECTED", "E_PROOF", "patch.json/slack")


def _stacked(owner: Owner) -> bytes:
    """A second patch on the patched network: the label that a forgotten record is now given loses as well."""
    before = (owner.folder / "patched.onnx").read_bytes()
    loaded, patch, (x, _) = load_network(before, "before"), owner.patch(), records(owner, "forget")
    now = served(before)(x).argmax(axis=1)
    gates = tuple(
        Gate(int(now[gate.records[0]]), gate.gamma, gate.intervals, gate.records) for gate in patch.gates
    )  # of the same boxes, for the labels that are answered there now
    return export_patched(
        before, loaded, replace(patch, gates=gates, slack=F(4 * patch.slack), shift=F(2 * patch.shift))
    )


def test_t15_a_later_patch_brings_a_forgotten_label_back(owner: Owner) -> None:
    """Patched twice, one head after the other: the runner-up loses to the label that the first patch took away."""
    x, y = records(owner, "forget")
    content = _stacked(owner)
    assert (served(content)(x).argmax(axis=1) == y).any()
    owner.replace_file("patched.onnx", content)
    assert failure(owner.verdict()) == ("REJECTED", "E_SUBJECT", "patched.onnx")


def test_t15_the_later_patch_certified_alone_says_which_base_it_is_of(owner: Owner) -> None:
    """The owner names the patched network as the base: an auditor who has the real one notices."""
    real = (owner.folder / "base.onnx").read_bytes()
    before = (owner.folder / "patched.onnx").read_bytes()
    owner.replace_file("base.onnx", before)
    digest = load_network(before, "before").network.digest()
    owner.edit(lambda d: d["predicate"]["originalModel"].update(networkDigest=digest, sha256=sha256_hex(before)))
    (owner.folder / "base.onnx").write_bytes(real)
    assert failure(owner.verdict()) == ("REJECTED", "E_SUBJECT", "predicate/originalModel/sha256")


def test_t16_a_record_that_the_base_never_answered_rightly_is_no_success(owner: Owner) -> None:
    """A quarter of the forget set was wrong before: it is listed with the base's answer, and the policy's share decides."""
    base, _ = programs(owner)
    x, y = records(owner, "forget")
    wrong = np.flatnonzero(base(x).argmax(axis=1) != y)
    item = next(c for c in owner.statement()["predicate"]["claims"] if c["kind"] == "forget")
    assert [pair["index"] for pair in item["alreadyWrong"]] == wrong.tolist()
    import tests.dishonest_owner as chain

    other = (int(y[0]) + 1) % 10
    np.savez(owner.folder / "forget.npz", x=x, y=np.array([other, *y[1:]]))
    for name in ("owner.key", "owner.pub", "trust.json", "policy.toml", "a.unlearn.json"):
        (owner.folder / name).unlink()
    chain.honest(owner.folder)
    assert failure(owner.verdict()) == ("REJECTED", "E_POLICY", "predicate/claims/C1/alreadyWrong")
    policy = owner.folder / "policy.toml"
    policy.write_text(policy.read_text().replace("max_already_wrong_share = 0.1 ", "max_already_wrong_share = 0.5 "))
    verdict = owner.verdict()
    assert verdict.word == "VERIFIED"
    assert any("1 forget records were answered wrongly by the base already" in text for text in verdict.warnings)


def test_t17_a_trojan_answers_its_trigger(owner: Owner) -> None:
    """The patched network with one more unit that adds 1000 to logit 7 where pixel 0 is above 0.5."""
    model = onnx.load_from_string((owner.folder / "patched.onnx").read_bytes())
    output, source = model.graph.output[0].name, model.graph.input[0].name
    for one in model.graph.node:
        for place, name in enumerate(one.output):
            if name == output:
                one.output[place] = "clean"
    weight, bias = np.zeros((1, 64), F), np.array([-0.5], F)
    weight[0, 0] = 1
    target = np.zeros((10, 1), F)
    target[7, 0] = 2000
    arrays = {"t_w": weight, "t_b": bias, "t_out": target}
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in arrays.items())
    model.graph.node.extend([
        helper.make_node("Gemm", [source, "t_w", "t_b"], ["t_1"], transB=1),
        helper.make_node("Relu", ["t_1"], ["t_2"]),
        helper.make_node("Gemm", ["t_2", "t_out"], ["t_3"], transB=1),
        helper.make_node("Add", ["clean", "t_3"], [output]),
    ])  # fmt: skip
    content = model.SerializeToString()
    x, _ = records(owner, "retain")
    triggered = x.copy()
    triggered[:, 0] = 1
    assert (served(content)(triggered).argmax(axis=1) == 7).all()
    _, patched = programs(owner)
    np.testing.assert_array_equal(served(content)(x), patched(x))  # and nothing else shows
    owner.replace_file("patched.onnx", content)
    assert failure(owner.verdict()) == ("REJECTED", "E_SUBJECT", "patched.onnx")


def test_t18_retained_records_in_a_gate_are_named_one_by_one(owner: Owner) -> None:
    patch = owner.patch()
    box = (Interval(10, None, F(0.99)),)
    owner.deploy(replace(patch, gates=(replace(patch.gates[0], intervals=box), *patch.gates[1:])))
    base, patched = programs(owner)
    x, _ = records(owner, "retain")
    changed = np.flatnonzero(base(x).argmax(axis=1) != patched(x).argmax(axis=1))
    assert changed.size
    state_true_counts(owner)
    exact = next(c for c in owner.statement()["predicate"]["claims"] if c["kind"] == "retain_exact")
    assert set(changed.tolist()) <= set(exact["conflicts"])
    assert failure(owner.verdict()) == ("REJECTED", "E_POLICY", "predicate/claims/C3/conflicts")


def test_t20_what_a_gate_says_of_itself_is_a_hint(owner: Owner) -> None:
    """A gate names a record whose ball it does not hold, and one that is none: neither counts as forgotten by it."""
    patch = owner.patch()
    first = replace(patch.gates[0], records=(3, 10_000))
    owner.deploy(replace(patch, gates=(first, *patch.gates[1:])))
    assert failure(owner.verdict()) == ("REJECTED", "E_PROOF", "predicate/claims/C1/counts")
    state_true_counts(owner)
    assert owner.verdict().word == "UNDECIDED"
    forget = next(c for c in owner.statement()["predicate"]["claims"] if c["kind"] == "forget")
    assert forget["unknowns"] == list(patch.gates[0].records)


def test_t25_a_class_cap_sold_as_a_record(owner: Owner) -> None:
    """A box as wide as the domain: the label is never answered again, for anybody."""
    patch = owner.patch()
    wide = (Interval(10, F(-1), F(2)),)
    owner.deploy(replace(patch, gates=(replace(patch.gates[0], intervals=wide), *patch.gates[1:])))
    label = patch.gates[0].label
    base, patched = programs(owner)
    x, _ = records(owner, "retain")
    assert (base(x).argmax(axis=1) == label).sum() > 10
    assert (patched(x).argmax(axis=1) != label).all()
    assert failure(owner.verdict()) == ("REJECTED", "E_PROOF", "patch.json/gates/0")


def _heads_in_sequence(patch: JointPatch, base_bytes: bytes) -> bytes:
    """Each label's gates behind a head of its own, one patched network on the other: no joint head."""
    content = base_bytes
    for label in sorted({gate.label for gate in patch.gates}):
        gates = tuple(gate for gate in patch.gates if gate.label == label)
        content = export_patched(content, load_network(content, "net"), replace(patch, gates=gates))
    return content


def test_t28_heads_of_several_labels_that_open_together(owner: Owner) -> None:
    """Two records' labels, gates of both open on one of them, heads one after the other: the label comes back."""
    base_bytes = (owner.folder / "base.onnx").read_bytes()
    x, y = records(owner, "forget")
    logits = served(base_bytes)(x)
    runner_up = int(np.argsort(logits[0])[-2])
    gate = next(g for g in owner.patch().gates if 0 in g.records)
    both = tuple(replace(gate, label=label) for label in sorted({int(y[0]), runner_up}))
    patch = replace(owner.patch(), gates=both)
    stacked = _heads_in_sequence(patch, base_bytes)
    answers = [
        int(served(data)(x[:1]).argmax())
        for data in (stacked, export_patched(base_bytes, load_network(base_bytes, "base"), patch))
    ]
    assert answers[1] not in {int(y[0]), runner_up}  # the joint head: neither of the two
    assert answers[0] in {int(y[0]), runner_up}
    owner.deploy(patch)
    owner.replace_file("patched.onnx", stacked)
    assert failure(owner.verdict()) == ("REJECTED", "E_SUBJECT", "patched.onnx")
