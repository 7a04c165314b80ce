"""Odd inputs through the command line: each ends in a patch that is proved, or in an error that says what to do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from prune_verify.cli import run_words
from tests.dishonest_owner import prepare

pytestmark = pytest.mark.prover


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    prepare(tmp_path)
    return tmp_path


def rows(folder: Path, name: str) -> dict[str, np.ndarray]:
    return dict(np.load(folder / f"{name}.npz"))


def repair(folder: Path, *options: str, expected: int = 0) -> tuple[dict, str]:
    data = ["--forget", str(folder / "forget.npz"), "--retain", str(folder / "retain.npz")]
    words = ["repair", str(folder / "base.onnx"), *data, *options, "--out", str(folder / "out"), "--quiet"]
    code, text = run_words(words)
    assert code == expected, text
    if code:
        assert not (folder / "out").exists() or not list((folder / "out").iterdir())
        return {}, text
    return json.loads(run_words([*words, "--json"])[1]), text


def claims(folder: Path) -> dict[str, dict]:
    data = ["--forget", str(folder / "forget.npz"), "--retain", str(folder / "retain.npz")]
    code, text = run_words(
        ["certify", str(folder / "base.onnx"), str(folder / "out" / "patched.onnx"), "--request",
         str(folder / "out" / "request.json"), *data, "--cross-check", "0", "--out", str(folder / "c"), "--json", "--quiet"]
    )  # fmt: skip
    assert code in (0, 1), text
    return {claim["kind"]: claim for claim in json.loads(text)["claims"] if claim["arithmetic"] != "real"}


@pytest.mark.parametrize("same_label", [True, False])
def test_a_near_twin_among_the_retained_is_a_conflict_by_index(folder, same_label):
    forget, retain = rows(folder, "forget"), rows(folder, "retain")
    retain["x"][11] = np.clip(forget["x"][1] + np.float32(0.01), 0, 1)
    retain["y"][11] = forget["y"][1] if same_label else (forget["y"][1] + 1) % 10
    np.savez(folder / "retain.npz", **retain)
    found, text = repair(folder)
    assert found["conflicts"] == [11]
    assert "1 retained records are in conflict (inside a support): 11" in text
    assert claims(folder)["retain_exact"]["conflict"] == 1


def test_records_that_the_base_misclassifies_are_kept_and_named(folder):
    forget = rows(folder, "forget")
    forget["y"][2] = (forget["y"][2] + 3) % 10
    np.savez(folder / "forget.npz", **forget)
    found, text = repair(folder)
    assert found["alreadyWrong"] == [2]
    assert "1 forget records are not answered with their label by the base either: 2" in text
    assert claims(folder)["forget"]["proved"] == 4


def test_identical_records_are_one_gate(folder):
    forget = rows(folder, "forget")
    np.savez(
        folder / "forget.npz", x=np.vstack([forget["x"], forget["x"][:2]]), y=np.append(forget["y"], forget["y"][:2])
    )
    found, _ = repair(folder)
    assert found["gates"] == 4
    assert claims(folder)["forget"]["proved"] == 6


def test_identical_records_with_two_labels_are_forgotten_as_both(folder):
    forget = rows(folder, "forget")
    other = (forget["y"][:1] + 1) % 10
    np.savez(folder / "forget.npz", x=np.vstack([forget["x"], forget["x"][:1]]), y=np.append(forget["y"], other))
    found, _ = repair(folder)
    assert found["gates"] == 5
    assert claims(folder)["forget"]["proved"] == 5


def test_more_to_forget_than_to_retain(folder):
    forget, retain = rows(folder, "forget"), rows(folder, "retain")
    np.savez(folder / "forget.npz", x=retain["x"][:200], y=retain["y"][:200])
    np.savez(folder / "retain.npz", **forget)
    found, _ = repair(folder)
    assert found["gates"] > 150
    assert claims(folder)["forget"]["proved"] == 200


def test_one_label_only_among_all_records(folder):
    retain = rows(folder, "retain")
    of = np.flatnonzero(retain["y"] == 3)
    np.savez(folder / "forget.npz", x=retain["x"][of[:3]], y=retain["y"][of[:3]])
    np.savez(folder / "retain.npz", x=retain["x"][of[3:]], y=retain["y"][of[3:]])
    repair(folder)
    found = claims(folder)
    assert found["forget"]["proved"] == 3
    assert found["retain_exact"]["proved"] == len(of) - 3


def five_columns(folder: Path) -> None:
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((7, 5)), "b": rng.standard_normal(7), "v": rng.standard_normal((3, 7))}
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "v"], ["z"], transB=1),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size]) for name, size in (("x", 5), ("z", 3))
    ]
    graph = helper.make_graph(nodes, "table", ends[:1], ends[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "base.onnx")
    x = rng.uniform(0, 1, (80, 5)).astype(np.float32)
    y = rng.integers(0, 3, 80)
    np.savez(folder / "forget.npz", x=x[:3], y=y[:3])
    np.savez(folder / "retain.npz", x=x[3:], y=y[3:])


def test_rows_that_are_no_pictures(folder):
    five_columns(folder)
    _, text = repair(folder, "--shifts", "1", "--image", "2x2", expected=2)
    assert "no multiple of 4" in text
    found, _ = repair(folder, "--radius", "0.02", "--retained-radius", "0.01")
    assert claims(folder)["forget"]["proved"] == 3
    assert found["gates"] == 3


def test_models_of_float64_are_refused_with_what_to_do(folder):
    five_columns(folder)
    model = onnx.load(folder / "base.onnx")
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.DOUBLE
    onnx.save(model, folder / "base.onnx")
    _, text = repair(folder, expected=2)
    assert "base.onnx" in text
    assert "float32" in text
    assert "double" in text.lower() or "float64" in text


@pytest.mark.parametrize("which", ["forget", "retain"])
def test_empty_sets_are_refused(folder, which):
    found = rows(folder, which)
    np.savez(folder / f"{which}.npz", x=found["x"][:0], y=found["y"][:0])
    _, text = repair(folder, expected=2)
    assert f"{which}.npz" in text


def test_a_class_request_with_options_of_records_says_that_they_are_not_used(folder):
    code, text = run_words(
        ["repair", str(folder / "base.onnx"), "--forget-class", "4", "--radius", "0.2", "--cover", "3",
         "--out", str(folder / "out"), "--quiet"]
    )  # fmt: skip
    assert code == 0, text
    assert "--radius: not used by a class request" in text
    assert "--cover: not used by a class request" in text


def test_acceptance_levels_are_copied_into_the_request_and_said_not_to_be_checked(folder):
    (folder / "t.toml").write_text('[membership_acceptance]\nauc = "0.55"\n')
    _, text = repair(folder, "--threat-model", str(folder / "t.toml"))
    assert "acceptance levels of membership inference (auc 0.55) are in the request and not checked here" in text
    assert json.loads((folder / "out" / "request.json").read_bytes())["membershipAcceptance"] == {"auc": "0.55"}
