"""Networks of other making in onnxruntime: what rule identity proves is equal within one run, at every level of optimisation.

An audit copy of the graph, in memory, gives the base's logits as a second output; subnormal numbers flushed or kept.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from prune_verify.checker.claim import Claim, LabelledRows, Problem, decide
from prune_verify.checker.identity import decide_identity
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.region import Domain
from prune_verify.checker.rules import BINARY32, REAL
from prune_verify.measure.datasets import digits
from prune_verify.measure.training import export_onnx, small_mlp, train
from prune_verify.repair.engine import repair_box
from prune_verify.repair.export import export_patched
from prune_verify.repair.threat_model import default_threat_model
from tests.adversary.test_adversarial_networks import model, node

pytestmark = pytest.mark.prover
F = np.float32
UNIT = Domain((Fraction(0),), (Fraction(1),))
RADIUS = Fraction("0.05")
SUB = 2.0**-140
RNG = np.random.default_rng(8)
WIDTH, LABELS = 6, 3
WEIGHTS = {
    "w1": RNG.standard_normal((8, WIDTH)), "b1": RNG.standard_normal(8),
    "w2": RNG.standard_normal((LABELS, 8)), "w2t": RNG.standard_normal((8, LABELS)), "b2": RNG.standard_normal(LABELS),
}  # fmt: skip
GEMM = [node("Gemm", "x w1 b1", "h", transB=1), node("Relu", "h", "r"), node("Gemm", "r w2 b2", "z", transB=1)]
MATMUL = [node("Gemm", "x w1 b1", "h", transB=1), node("Relu", "h", "r"), node("MatMul", "r w2t", "z")]
BIASED = [*MATMUL[:2], node("MatMul", "r w2t", "m"), node("Add", "m b2", "z")]
BASES = {"Gemm": GEMM, "MatMul without bias": MATMUL, "MatMul and Add": BIASED}
# d > 0 far outside the box x_0 <= e; g is 1 in the box and 0 at distance 1/20
GATE = [
    node("Gather", "x zero", "x0", axis=1), node("Sub", "x0 e", "u"), node("Relu", "u", "d"), node("Mul", "d gamma", "s"),
    node("Sub", "one s", "t"), node("Relu", "t", "g"),
]  # fmt: skip
CONSTANTS = {
    "zero": np.array([0], np.int64), "e": np.array([0.3]), "gamma": np.array([20.0]), "one": np.array([1.0]), "ends": np.zeros(()),
    "top": np.ones(()), "row": np.array([[4.0, -3.0, 2.0]]), "big": np.array([1000.0]), "sub": np.array([SUB]), "low": np.array([-1000.0]),
    "naught": np.zeros(LABELS), "rowt": np.array([[4.0], [-3.0], [2.0]]), "ninety": np.array([90.0]), "minus": np.array([-0.0]), "axes": np.array([1], np.int64),
}  # fmt: skip
HEADS = {
    "MatMul added": [node("MatMul", "g row", "p"), node("Add", "z p", "y")],
    "added from before": [node("MatMul", "g row", "p"), node("Add", "p z", "y")],
    "Mul added": [node("Mul", "row g", "p"), node("Add", "z p", "y")],
    "subtracted twice": [node("MatMul", "g row", "p"), node("Sub", "z p", "q"), node("Sub", "q p", "y")],
    "Clip for the gate": [node("Clip", "t ends top", "c"), node("MatMul", "c row", "p"), node("Add", "z p", "y")],
    "Min": [node("Mul", "g ninety", "l"), node("Sub", "big l", "c"), node("Min", "z c", "y")],
    "Max": [node("Mul", "g ninety", "l"), node("Add", "low l", "c"), node("Max", "z c", "y")],
    "a subnormal part": [node("Mul", "g sub", "l"), node("Add", "z l", "y")],
    "-0": [node("Add", "z minus", "q"), node("Mul", "row g", "p"), node("Sub", "q p", "y")],
    "times 0": [node("Mul", "row g", "p"), node("Mul", "p naught", "q"), node("Add", "z q", "y")],
    "in a block of its own": [node("Concat", "g g", "gg", axis=1), node("ReduceSum", "gg axes", "n", keepdims=1), node("Mul", "n row", "p"), node("Add", "z p", "y")],
}  # fmt: skip

BEYOND = {"Clip for the gate", "in a block of its own"}  # true, and no name says so
ALWAYS = {"times 0", "Min", "Max"}
# a factor that flushing would lose; and where the loader makes the -0 the bias that the base does not have
NEVER = {"": {"a subnormal part"}, "MatMul without bias": {"a subnormal part", "-0"}}


def _file(nodes: list, output: str) -> bytes:
    used = {name for one in nodes for name in one.input}
    constants = {name: value for name, value in (WEIGHTS | CONSTANTS).items() if name in used}
    last = nodes[-1]
    renamed = [*nodes[:-1], onnx.NodeProto.FromString(last.SerializeToString())]
    if output != "y":
        renamed[-1].output[0] = "y"
    return model(renamed, constants, (WIDTH,), LABELS)


def _audited(data: bytes, inner: str, x: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """(patched, base) logits of single runs: all levels of optimisation, subnormals kept and flushed."""
    import onnxruntime
    import torch

    copy = onnx.load_from_string(data)
    copy.graph.output.append(helper.make_tensor_value_info(inner, TensorProto.FLOAT, None))
    levels, found = onnxruntime.GraphOptimizationLevel, []
    for level in (levels.ORT_DISABLE_ALL, levels.ORT_ENABLE_BASIC, levels.ORT_ENABLE_EXTENDED, levels.ORT_ENABLE_ALL):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level, options.log_severity_level = level, 4
        for flush in (False, True):
            torch.set_flush_denormal(flush)
            try:
                session = onnxruntime.InferenceSession(
                    copy.SerializeToString(), options, providers=["CPUExecutionProvider"]
                )
                found.append(tuple(session.run(None, {"x": x})))
            finally:
                torch.set_flush_denormal(False)
    return found


def _inside(centres: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    low, high = np.maximum(centres.astype(float) - 0.05, 0), np.minimum(centres.astype(float) + 0.05, 1)
    share = rng.random(centres.shape)
    share = np.where(rng.random((len(centres), 1)) < 0.5, np.round(share), share)
    x = (low + share * (high - low)).astype(F)
    x = np.where(x < low, np.nextafter(x, F(2)), x)
    return np.where(x > high, np.nextafter(x, F(-1)), x)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("base", BASES)
def test_heads_of_other_making(base: str, head: str) -> None:
    nodes = BASES[base]
    before = load_network(_file(nodes, "z"), "base.onnx").network
    used = {name for one in HEADS[head] for name in one.input}
    gate = [one for one in GATE if one.output[0] != "g" or "g" in used]
    after_bytes = _file([*nodes, *gate, *HEADS[head]], "y")
    after = load_network(after_bytes, "patched.onnx").network
    x = np.random.default_rng(3).random((60, WIDTH)).astype(F)
    rows = LabelledRows(x, np.zeros(60, np.int64))
    problem = Problem(before, after, None, UNIT, retain=rows)
    outcome = decide_identity(problem, Claim("retain_exact", BINARY32, "identity", radius=RADIUS))
    expected = x[:, 0].astype(float) - 0.05 > 0.3 + 0.05 + 1e-6  # the gate is closed on the ball
    if head in ALWAYS:
        expected = np.ones(60, dtype=np.bool_)
    if head in NEVER.get(base, NEVER[""]):
        expected = np.zeros(60, dtype=np.bool_)
    found = ~np.isin(np.arange(60), outcome.unknowns)
    assert not (found & ~expected).any()
    assert head in BEYOND or (found == expected).all()
    if not expected.any():
        return
    proved = np.flatnonzero(expected)
    rng = np.random.default_rng(4)
    points = _inside(np.repeat(x[proved], 50, axis=0), rng)
    runs = _audited(after_bytes, "z", points)
    assert len(runs) == 8
    for patched, base_logits in runs:
        assert np.array_equal(patched, base_logits)
    if head == "MatMul added":  # and what is unknown is not the same: the check above can fail
        patched, base_logits = _audited(after_bytes, "z", x[x[:, 0] < 0.2])[0]
        assert not np.array_equal(patched, base_logits)


@pytest.mark.parametrize("classes", [(), (3,)], ids=["records", "records and a class"])
def test_our_own_box_patches_without_patch_json(classes: tuple[int, ...]) -> None:
    """What the structural rule proves from patch.json, rule identity proves without it (on labels that are not forgotten)."""
    data, threat = digits(seed=0), default_threat_model(UNIT)
    base_bytes = export_onnx(train(lambda: small_mlp((64, 24, 10)), data, epochs=20, seed=0), data.train_x)
    base = load_network(base_bytes, "base.onnx")
    forget, retain = (
        LabelledRows(data.train_x[:40], data.train_y[:40]),
        LabelledRows(data.train_x[40:340], data.train_y[40:340]),
    )
    patch = repair_box(base.network, forget, retain, threat, classes=classes).patch
    patched_bytes = export_patched(base_bytes, base, patch)
    patched = load_network(patched_bytes, "patched.onnx").network
    radius = threat.retained_radius
    for arithmetic in (BINARY32, REAL):
        owner = Problem(base.network, patched, patch, UNIT, forget, retain)
        logits = patch.allowed if classes else None
        known = decide(owner, Claim("retain_exact", arithmetic, "structural", radius=radius, logits=logits))
        foreign = Problem(base.network, patched, None, UNIT, forget, retain)
        found = decide_identity(foreign, Claim("retain_exact", arithmetic, "identity", radius=radius))
        assert found.proved <= known.proved if classes else found.proved == known.proved == known.total
        assert found.proved > found.total / 3
    proved = np.setdiff1d(np.arange(len(retain.y)), found.unknowns)
    points = _inside(retain.x[np.random.default_rng(0).choice(proved, 20_000)], np.random.default_rng(1))
    for after, before in _audited(patched_bytes, "prune_verify/base_logits_1", points):
        assert np.array_equal(after, before)


def test_a_fine_tuned_network_proves_nothing() -> None:
    data = digits(seed=0)
    base_bytes = export_onnx(train(lambda: small_mlp((64, 24, 10)), data, epochs=10, seed=0), data.train_x)
    tuned = onnx.load_from_string(base_bytes)
    last = next(t for t in tuned.graph.initializer if list(t.dims) == [10])
    last.CopyFrom(numpy_helper.from_array(np.nextafter(numpy_helper.to_array(last), F(np.inf)), last.name))
    base, patched = (load_network(b, "n").network for b in (base_bytes, tuned.SerializeToString()))
    rows = LabelledRows(data.train_x, data.train_y)
    outcome = decide_identity(
        Problem(base, patched, None, UNIT, retain=rows), Claim("retain_exact", BINARY32, "identity", radius=RADIUS)
    )
    assert (outcome.proved, len(outcome.unknowns)) == (0, len(rows.y))
