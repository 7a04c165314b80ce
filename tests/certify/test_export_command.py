"""``prune-verify export``: properties that mean the claims, networks that give their outputs, a folder whole or none."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from prune_verify.certify.errors import CertifyInputError
from prune_verify.certify.margin_model import margin_model
from prune_verify.certify.smt_goals import decide_goal
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.network import Network, Node, evaluate_exact
from prune_verify.checker.vnnlib import goals_of_property, parse_property
from prune_verify.cli import main
from tests.dishonest_owner import prepare, run

pytestmark = pytest.mark.prover


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    prepare(folder)
    sets = ("--forget", folder / "forget.npz", "--retain", folder / "retain.npz")
    made = (
        "--family",
        "learned",
        "--radius",
        "0.05",
        "--retained-radius",
        "0.02",
        "--delta",
        "0.1",
        "--margin",
        "0.125",
    )
    run("repair", folder / "base.onnx", *sets, *made, "--out", folder)
    return folder


def _export(folder: Path, out: Path, *more: str) -> int:
    words = ["export", folder / "base.onnx", folder / "patched.onnx", "--request", folder / "request.json"]
    words += ["--forget", folder / "forget.npz", "--retain", folder / "retain.npz", *more, "--out", out]
    return main([str(word) for word in words])


def test_properties_of_a_learned_patch(learned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert _export(learned, out, "--records", "1:3", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    claims = json.loads((learned / "request.json").read_bytes())["claims"]
    assert data["properties"] == {
        f"C{2 * place + 2}-{kind}": 2 for place, kind in enumerate(claims) if kind.startswith(("forget", "retain_c"))
    }
    assert sorted(data["files"]) == sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert "real arithmetic." in (out / "README.txt").read_text()
    forget = next(name for name in data["properties"] if name.endswith("forget"))
    lines = (out / "instances.csv").read_text().splitlines()
    assert [line.split(",")[1:] for line in lines] == [[f"{forget}/record-{r}.vnnlib", "300"] for r in (1, 2)]
    assert (out / "patched.onnx").read_bytes() == (learned / "patched.onnx").read_bytes()
    records = np.load(learned / "forget.npz")
    for record, line in zip((1, 2), lines, strict=True):
        _means_the_claim(out, line, records["x"][record], int(records["y"][record]))


def _means_the_claim(out: Path, line: str, x: np.ndarray, label: int) -> None:
    """At random inputs the property's negation holds exactly if some other label beats the forgotten one by 0.125."""
    network = load_network((out / line.split(",", maxsplit=1)[0]).read_bytes(), "margins").network
    patched = load_network((out / "patched.onnx").read_bytes(), "patched").network
    cases = parse_property((out / line.split(",")[1]).read_bytes(), "p", x.size, network.labels)
    goals = goals_of_property(network, cases, "real")
    low, high = goals.boxes(np.zeros(1, dtype=np.int64))
    assert ((low <= x) & (x <= high)).all()
    objectives, least = (v[0] for v in goals.constraint(np.zeros(1, dtype=np.int64)))
    for point in np.random.default_rng(0).random((3, 1, *x.shape)).astype(np.float32):
        (logits,), (margins,) = evaluate_exact(patched, point), evaluate_exact(network, point)
        claimed = any(y - logits[label] > Fraction(1, 8) for j, y in enumerate(logits) if j != label)
        values = [
            [sum(Fraction(c) * y for c, y in zip(row, margins, strict=True)) for row in rows]
            for rows in objectives.tolist()
        ]
        assert claimed == all(
            any(v > Fraction(b) for v, b in zip(vs, bs, strict=True))
            for vs, bs in zip(values, least.tolist(), strict=True)
        )


def test_pairs_are_read_by_the_standards_parser(learned: Path, tmp_path: Path) -> None:
    vnnlib = pytest.importorskip("vnnlib", reason="vnnlib 1.x is the parser of version 2.0")
    assert _export(learned, tmp_path / "new" / "out", "--records", "3:4", "--arithmetic", "ieee754-binary32") == 0
    (path,) = (tmp_path / "new" / "out").glob("C*-retain_close/record-3.vnnlib")
    query = vnnlib.parse_query_file(str(path))
    assert [(n.name, n.inputs[0].shape, n.outputs[0].shape) for n in query.networks] == [
        ("base", [1, 64], [1, 10]),
        ("patched", [1, 64], [1, 10]),
    ]
    assert len(query.assertions) == 3 * 64 + 1
    assert "binary32" in (path.parent.parent / "README.txt").read_text()


def test_a_property_of_a_claim_that_holds_has_no_counterexample(learned: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert _export(learned, out, "--records", ":1") == 0
    name, path, _ = (out / "instances.csv").read_text().split(",")
    network = load_network((out / name).read_bytes(), "margins").network
    cases = parse_property((out / path).read_bytes(), "p", 64, network.labels)
    decision = decide_goal(goals_of_property(network, cases, "real"), 0, 0, timeout=20, memory_mb=1024)
    assert decision.result == "unsat"


REFUSED = [
    ("a range of another form", ("--records", "1-3"), "--records: expected FIRST:END"),
    ("a range without a record", ("--records", "90000:"), "--records: no record"),
    ("an empty range", ("--records", "3:3"), "--records: no record"),
    ("a missing patch", ("--patch", "nowhere.json"), "--patch: no file"),
    ("a missing network", None, "no file"),
]


@pytest.mark.parametrize(("sentence", "words", "expected"), REFUSED, ids=[row[0] for row in REFUSED])
def test_a_refusal_leaves_nothing(
    sentence: str,
    words: tuple[str, ...] | None,
    expected: str,
    learned: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if words is None:
        code = main(
            [
                "export",
                "nowhere.onnx",
                "nowhere.onnx",
                "--request",
                str(learned / "request.json"),
                "--out",
                str(tmp_path / "out"),
            ]
        )
    else:
        code = _export(learned, tmp_path / "out", *words)
    assert code == 2
    assert expected in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_folder_with_files_is_not_overwritten_and_an_empty_one_is_used(
    learned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").write_text("kept")
    assert _export(learned, tmp_path, "--records", ":1") == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    (tmp_path / "b").mkdir()
    assert _export(learned, tmp_path / "b", "--records", ":1") == 0
    assert (tmp_path / "b" / "instances.csv").is_file()


def test_a_write_that_fails_leaves_nothing(learned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert _export(learned, tmp_path / "out", "--records", ":1") == 2
    assert not list(tmp_path.iterdir())


def test_a_request_without_such_claims_is_refused(
    learned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = json.loads((learned / "request.json").read_bytes()) | {"claims": []}
    other = tmp_path / "request.json"
    other.write_bytes(json.dumps(request, sort_keys=True, separators=(",", ":")).encode() + b"\n")
    code = _export(learned, tmp_path / "out", "--request", str(other))
    assert (code, (tmp_path / "out").exists()) == (2, False)


@pytest.mark.parametrize("version", [3, 8])
def test_logits_of_another_shape_are_flattened_for_margins(version: int) -> None:
    """[batch, 2, 2] outputs, an old IR version in which initialisers are inputs, and a name that is taken."""
    weight = np.arange(16, dtype=np.float32).reshape(4, 4)
    nodes = [
        helper.make_node("MatMul", ["x", "prune_verify_margins_rows"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["y"]),
    ]
    constants = [
        numpy_helper.from_array(weight, "prune_verify_margins_rows"),
        numpy_helper.from_array(np.array([-1, 2, 2], dtype=np.int64), "shape"),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])]
    if version < 4:
        inputs += [
            helper.make_tensor_value_info("prune_verify_margins_rows", TensorProto.FLOAT, [4, 4]),
            helper.make_tensor_value_info("shape", TensorProto.INT64, [3]),
        ]
    graph = helper.make_graph(
        nodes, "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2, 2])], constants
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)])
    model.ir_version = version
    data = model.SerializeToString()
    loaded = load_network(data, "net")
    rows = np.array([[1, -1, 0, 0], [0, 0, 1, -1]], dtype=np.float32)
    nodes = [*loaded.network.nodes, Node("Reshape", (loaded.network.output,), (4,))]
    nodes.append(Node("Linear", (len(nodes) - 1,), (2,), {"axis": (-1,)}, {"weight": rows}))
    expected = Network(tuple(nodes), len(nodes) - 1)
    made = margin_model(data, loaded, rows, expected)
    onnx.checker.check_model(onnx.load_from_string(made))
    with pytest.raises(CertifyInputError):
        margin_model(data, loaded, -rows, expected)
