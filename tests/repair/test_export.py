"""``patched.onnx``: valid ONNX, the base untouched in it, and exactly the network that the checker rebuilds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.network import evaluate
from prune_verify.checker.patch import Gate, Interval, JointPatch, LearnedPatch
from prune_verify.checker.rebuild import build
from prune_verify.repair.errors import RepairError
from prune_verify.repair.export import export_patched
from tests.repair.bases import BASES, mlp, renamed

pytestmark = pytest.mark.prover
F = np.float32


def joint(size: int, labels: int, count: int, classes: tuple[int, ...], *, lows: bool = True) -> JointPatch:
    rng = np.random.default_rng(size + count)
    allowed = [j for j in range(labels) if j not in classes]
    gates = []
    for place in range(count):
        chosen = sorted(rng.choice(size, rng.integers(1, min(size, 5) + 1), replace=False).tolist())
        box = tuple(
            Interval(j, F(0.2) if lows and rng.random() < 0.5 else None, F(0.7)) if lows else Interval(j, None, F(0.7))
            for j in chosen
        )
        gates.append(Gate(allowed[place % len(allowed)], F(40 + place), box, (place,)))
    zero = F(0)
    return JointPatch(labels, classes, F(0.25), F(200) if gates else zero, F(500) if gates else zero, tuple(gates))


def sessions(*contents: bytes) -> list[ort.InferenceSession]:
    return [ort.InferenceSession(content, providers=["CPUExecutionProvider"]) for content in contents]


CASES = [(name, count, classes) for name in BASES for count, classes in ((3, ()), (3, (1,)), (0, (1,)))]


@pytest.mark.parametrize(("name", "count", "classes"), CASES, ids=[f"{n}, {c} gates, classes {k}" for n, c, k in CASES])
def test_the_exported_file_is_what_the_checker_rebuilds(name: str, count: int, classes: tuple[int, ...]) -> None:
    data = BASES[name]
    base = load_network(data, "base.onnx")
    patch = joint(int(np.prod(base.network.input_shape)), base.network.labels, count, classes)
    exported = export_patched(data, base, patch)
    model, original = onnx.load_from_string(exported), onnx.load_from_string(data)
    onnx.checker.check_model(model)
    patched = load_network(exported, "patched.onnx")
    assert patched.network.digest() == build(base.network, patch).digest()
    for mine, theirs in (
        (model.graph.input[0], original.graph.input[0]),
        (model.graph.output[0], original.graph.output[0]),
    ):
        assert mine == theirs
    assert (model.ir_version, model.opset_import) == (original.ir_version, original.opset_import)
    kept = [node.op_type for node in model.graph.node][: len(original.graph.node)]
    assert kept == [node.op_type for node in original.graph.node]
    rng = np.random.default_rng(0)
    rows = 1 if base.batch else 16
    x = rng.random((rows, *base.network.input_shape)).astype(F)
    (session,) = sessions(exported)
    found = session.run(None, {session.get_inputs()[0].name: x.reshape(session_shape(session, rows))})[0]
    mine = evaluate(patched.network, x)
    assert np.allclose(found.reshape(rows, -1), mine, rtol=1e-4, atol=1e-4)


def session_shape(session: ort.InferenceSession, rows: int) -> tuple[int, ...]:
    return tuple(rows if isinstance(d, str) or d is None else d for d in session.get_inputs()[0].shape)


def test_thousands_of_gates_are_a_few_nodes() -> None:
    data = mlp()
    base = load_network(data, "base.onnx")
    counts = []
    for count in (10, 1000):
        exported = export_patched(data, base, joint(12, 5, count, ()))
        counts.append(len(onnx.load_from_string(exported).graph.node))
    assert counts[1] - counts[0] <= 3 * 5 + 1  # three more blocks of five nodes, and their Concat


def test_without_lower_edges_nothing_is_negated() -> None:
    data = mlp()
    base = load_network(data, "base.onnx")
    patch = joint(12, 5, 4, (), lows=False)
    assert "Concat" not in [n.op_type for n in onnx.load_from_string(export_patched(data, base, patch)).graph.node]


def test_names_of_the_base_are_not_taken() -> None:
    data = renamed(mlp(), "h", "prune_verify/sub_3")
    base = load_network(data, "base.onnx")
    exported = export_patched(data, base, joint(12, 5, 3, ()))
    names = [name for node in onnx.load_from_string(exported).graph.node for name in node.output]
    assert len(names) == len(set(names))


def test_a_learned_patch_is_added() -> None:
    data, rng = mlp(), np.random.default_rng(0)
    base = load_network(data, "base.onnx")
    layers = tuple((rng.standard_normal(s).astype(F), rng.standard_normal(s[0]).astype(F)) for s in ((7, 12), (5, 7)))
    exported = export_patched(data, base, LearnedPatch(5, layers))
    assert load_network(exported, "p").network.digest() == build(base.network, LearnedPatch(5, layers)).digest()


def test_an_opset_without_the_operators_is_refused() -> None:
    data = mlp(7, 3)
    base = load_network(data, "base.onnx")
    with pytest.raises(RepairError, match="opset 7"):
        export_patched(data, base, joint(12, 5, 0, (1, 2)))


def test_a_file_that_is_not_base_and_patch_is_never_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from prune_verify.repair import export

    data = mlp()
    base = load_network(data, "base.onnx")
    patch = joint(12, 5, 3, ())
    monkeypatch.setattr(export, "build", lambda network, _: build(network, replace(patch, tau=F(0.5))))
    with pytest.raises(RepairError, match="digest"):
        export_patched(data, base, patch)
