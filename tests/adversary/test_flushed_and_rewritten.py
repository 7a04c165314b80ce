"""Factors, flushing and what runtimes rewrite: a float32 claim is refused, or true in onnxruntime as it comes.

Each row was a claim that the checker once proved and an execution contradicted: Gemm's alpha and beta beside underflow,
subnormal parameters that are flushed, factors that onnxruntime moves into weights when it loads a graph.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from prune_verify.checker import interval, rules
from prune_verify.checker.bounded_claims import decide_bounded
from prune_verify.checker.claim import Claim, LabelledRows, Problem
from prune_verify.checker.errors import CheckError, ProofError
from prune_verify.checker.interval import interval_pass
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.patch import Gate, Interval, LearnedPatch
from prune_verify.checker.proof import Proof, emit
from prune_verify.checker.rebuild import build, difference_network
from prune_verify.checker.region import Domain
from prune_verify.repair.export import export_patched
from tests.adversary.test_adversarial_networks import (
    F32,
    F64,
    _require_enclosed,
    executions,
    model,
    node,
    onnxruntime_logits,
    separated,
)
from tests.adversary.test_float32_rows import Unit, gate_value

P = 2.0
SUB = P**-130


def gemm(weight, bias, **attributes):
    return model(
        [node("Gemm", "x w b", "y", transB=1, **attributes)],
        {"w": np.array(weight, F32), "b": np.array(bias, F32)},
        (len(weight[0]),),
    )


def amplified(first, constants, shape=(1,), gain=P**60):
    """``first`` computes h [N, 1]; logit 0 is gain h, logit 1 is 512."""
    nodes = [*first, node("Gemm", "h v e", "y")]
    return model(nodes, constants | {"v": np.array([[gain, 0.0]]), "e": np.array([0.0, 512.0])}, shape)


BN = {"si": np.array([P**-80]), "bi": np.zeros(1), "me": np.zeros(1), "va": np.ones(1)}
CONV = {"w": np.full((1, 1, 1), P**-70)}
BIG = np.full((1, 1), P**120, F32)
ROWS = [
    # plain IEEE float32, no flushing, no rewriting
    (
        "A1 Gemm: alpha undoes an underflow that E counts once",
        amplified([node("Gemm", "x w", "h", transB=1, alpha=P**100)], {"w": np.array([[P**-75]])}),
        np.full(1, P**-75, F32),
    ),
    (
        "A2 Gemm: alpha 0 times a sum that overflows is NaN",
        gemm([[P**127], [0]], [1, 0], alpha=0.0),
        np.full(1, P**100, F32),
    ),
    (
        "A3 Conv: a factor behind it makes a weight infinite",
        model(
            [node("Conv", "x w", "c"), node("Mul", "c s", "m"), node("Flatten", "m", "y")],
            {"w": np.full((2, 1, 1), P**126), "s": np.full((2, 1), P**20)},
            (1, 1),
        ),
        np.full((1, 1), P**-120, F32),
    ),
    (
        "A4 Conv: four factors behind it",
        model(
            [
                node("Conv", "x w", "c"),
                *(node("Mul", f"{a} s", b) for a, b in ("cd", "de", "ef", "fg")),
                node("Flatten", "g", "y"),
            ],
            {"w": np.full((2, 1, 1), P**60), "s": np.full((2, 1), P**20)},
            (1, 1),
        ),
        np.full((1, 1), P**-125, F32),
    ),
    # flushed subnormals
    ("B1 Gemm: a subnormal beta", gemm([[0], [1]], [P**126, 0], beta=SUB), np.full(1, P**-5, F32)),
    ("B2 Gemm: a subnormal bias times a large beta", gemm([[0], [1]], [SUB, 0], beta=P**126), np.full(1, P**-5, F32)),
    ("B3 Gemm: a subnormal alpha", gemm([[P**40], [0]], [0, P**-20], alpha=SUB), np.full(1, P**80, F32)),
    (
        "B4 BatchNorm: a subnormal scale over a small deviation",
        model(
            [node("BatchNormalization", "x s b m v", "y", epsilon=0.0)],
            {"s": np.array([SUB, SUB]), "b": np.array([0, P**-12]), "m": np.zeros(2), "v": np.full(2, P**-120)},
            (2,),
        ),
        np.array([P**60, 0], F32),
    ),
    (
        "B5 BatchNorm: a subnormal variance is a division by zero",
        model(
            [node("BatchNormalization", "x s b m v", "y", epsilon=0.0)],
            {"s": np.array([P**-60, 1]), "b": np.array([0.0, 1]), "m": np.zeros(2), "v": np.array([SUB, 1])},
            (2,),
        ),
        np.array([2, 0], F32),
    ),
    (
        "B7 Max with a subnormal constant has E = 0",
        model([node("Max", "x c", "y")], {"c": np.array([0, SUB], F32)}, (2,)),
        np.array([0, 0], F32),
    ),
    # what onnxruntime rewrites by default (ENABLE_BASIC and up, ENABLE_EXTENDED and up for the first)
    (
        "C1 Mul by a scalar before MatMul becomes FusedMatMul with alpha",
        amplified(
            [node("Mul", "x c", "a"), node("MatMul", "a w", "h")], {"c": np.array(P**100), "w": np.array([[P**-75]])}
        ),
        np.full(1, P**-75, F32),
    ),
    (
        "C2 Conv and BatchNorm become one Conv",
        amplified(
            [
                node("Conv", "x w", "c"),
                node("BatchNormalization", "c si bi me va", "n", epsilon=0.0),
                node("Flatten", "n", "h"),
            ],
            CONV | BN,
            (1, 1),
        ),
        BIG,
    ),
    (
        "C3 Conv and Mul become one Conv",
        amplified(
            [node("Conv", "x w", "c"), node("Mul", "c k", "n"), node("Flatten", "n", "h")],
            CONV | {"k": np.full((1, 1), P**-80)},
            (1, 1),
        ),
        BIG,
    ),
]


@pytest.mark.parametrize(("sentence", "data", "point"), ROWS, ids=[row[0] for row in ROWS])
def test_enclosed_or_refused(sentence, data, point):
    try:
        network = load_network(data, "net.onnx").network
        known = interval_pass(network, F64(point)[np.newaxis], F64(point)[np.newaxis], "ieee754-binary32")
    except CheckError:
        return
    rows = point[np.newaxis]
    low, high = known.output()
    low, high = low.reshape(1, -1), high.reshape(1, -1)
    for logits in onnxruntime_logits(data, rows):
        for first, second in ((0, 1), (1, 0)):
            if separated(network, point, first, second, "ieee754-binary32"):
                assert logits[0, first] > logits[0, second], f"{first} is proved to beat {second}"
        assert (low <= logits).all(), (low, logits)
        assert (logits <= high).all(), (logits, high)
    for one in executions():
        _require_enclosed(network, known, one.run(network, rows), sentence)


def test_d_gate_with_a_subnormal_gamma_under_flushing():
    """4.2: gamma flushed to 0 leaves the gate open wherever; refuse gamma below 2^-126."""
    gamma, edge, x = F32(P**-126.5), F32(-(P**126)), F32(P**126)
    gate = Gate(0, gamma, (Interval(0, None, edge),), ())
    with pytest.raises(ProofError):
        rules.gates_closed(gate, np.array([[x]]), 0, (rules.BINARY32,))
    g = gate_value(
        Unit(flush=True, fused=False), np.random.default_rng(0), np.array([[x]]), np.array([[edge]]), np.array([gamma])
    )
    assert g[0] > 0  # the flushed slope opens it


REWRITTEN = {
    "Conv and BatchNorm": [node("Conv", "x w", "c"), node("BatchNormalization", "c si bi me va", "n", epsilon=1e-5)],
    "Conv and Mul": [node("Conv", "x w", "c"), node("Mul", "c k", "n")],
    "Conv and Add": [node("Conv", "x w", "c"), node("Add", "c k", "n")],
    "Conv and a residual": [node("Conv", "x w1", "c"), node("Add", "c x", "n")],
    "Conv, BatchNorm, residual and Relu": [
        node("Conv", "x w1", "c"), node("BatchNormalization", "c s1 b1 m1 v1", "d", epsilon=1e-5),
        node("Add", "d x", "e"), node("Relu", "e", "n"),
    ],
    "a scalar before MatMul": [node("Flatten", "x", "f"), node("Mul", "f q", "a"), node("MatMul", "a u", "n")],
    "a scalar after MatMul": [node("Flatten", "x", "f"), node("MatMul", "f u", "a"), node("Mul", "a q", "n")],
    "MatMul and BatchNorm": [
        node("Flatten", "x", "f"), node("MatMul", "f u", "a"),
        node("BatchNormalization", "a su bu mu vu", "n", epsilon=1e-5),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", REWRITTEN)
def test_what_onnxruntime_rewrites_is_enclosed(name: str) -> None:
    """Random weights and factors within the range allowed, sums that cancel: points, so that only rounding counts."""
    refused = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        wide = F32(P ** rng.integers(-16, 17, 3))
        constants = {
            "w": rng.standard_normal((3, 2, 3)), "w1": rng.standard_normal((2, 2, 1)),
            "k": (wide * rng.standard_normal(3)).reshape(3, 1), "q": np.array(wide[0]), "u": rng.standard_normal((10, 3)),
        }  # fmt: skip
        for scale, bias, mean, spread, count in (
            ("si", "bi", "me", "va", 3),
            ("s1", "b1", "m1", "v1", 2),
            ("su", "bu", "mu", "vu", 3),
        ):
            constants |= {scale: wide[:count] * rng.standard_normal(count), bias: rng.standard_normal(count)}
            constants |= {mean: 1e3 * rng.standard_normal(count), spread: rng.random(count)}
        nodes = REWRITTEN[name]
        used = {part for one in nodes for part in one.input}
        kept = {key: F32(value) for key, value in constants.items() if key in used}
        size = {"Conv and a residual": 10, "Conv, BatchNorm, residual and Relu": 10}.get(
            name, 9 if "Conv" in name else 3
        )
        data = model([*nodes, node("Flatten", "n", "y")], kept, (2, 5), size)
        network = load_network(data, "net.onnx").network
        point = F32(rng.standard_normal((2, 5)) * P ** rng.integers(-8, 9, (2, 5)))
        try:
            known = interval_pass(network, F64(point)[np.newaxis], F64(point)[np.newaxis], "ieee754-binary32")
        except CheckError:
            refused += 1
            continue
        low, high = known.output()
        for logits in onnxruntime_logits(data, point[np.newaxis]):
            assert (low <= logits).all()
            assert (logits <= high).all()
    assert refused < 15


def _swallowed() -> tuple[bytes, np.ndarray, float]:
    """64 products of 2^-25 added to a residual of 1, and what one sum that begins with the residual makes of them."""
    weight = np.full((64, 64, 1), P**-25)
    nodes = [node("Conv", "x w", "c"), node("Add", "c x", "n"), node("Flatten", "n", "y")]
    total = F32(1)
    for _ in range(64):
        total = F32(total + F32(P**-25))
    return model(nodes, {"w": weight}, (64, 1), 64), np.ones((64, 1), F32), float(total)


def test_a_sum_that_begins_with_the_residual_is_enclosed() -> None:
    data, point, total = _swallowed()
    network = load_network(data, "net.onnx").network
    low, high = interval_pass(network, F64(point)[np.newaxis], F64(point)[np.newaxis], "ieee754-binary32").output()
    assert (low <= total).all()
    assert (total <= high).all()
    for logits in onnxruntime_logits(data, point[np.newaxis]):
        assert (low <= logits).all()


def test_without_the_rule_for_rewritten_graphs_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interval, "_rewritten", lambda *_: 0.0)
    data, point, total = _swallowed()
    network = load_network(data, "net.onnx").network
    low, _ = interval_pass(network, F64(point)[np.newaxis], F64(point)[np.newaxis], "ieee754-binary32").output()
    assert not (low <= total).all()


@pytest.mark.prover
@pytest.mark.parametrize("bias", [False, True])
def test_a_learned_patch_that_enters_the_last_product_of_the_base(bias: bool) -> None:
    """onnxruntime makes MatMul and Add(p) one Gemm that begins with p: what is proved close is close there as well."""
    count = 1024
    weight = np.concatenate([np.full((count // 2, 2), P**11), np.full((count // 2, 2), -(P**11))])
    nodes = [node("MatMul", "x w", "m" if bias else "y")] + ([node("Add", "m b", "y")] if bias else [])
    constants = {"w": weight} | ({"b": np.zeros(2)} if bias else {})
    base_bytes = model(nodes, constants, (count,))
    base = load_network(base_bytes, "base.onnx")
    patch = LearnedPatch(2, ((np.zeros((2, count), F32), np.array([0.04, -0.04], F32)),))
    patched_bytes = export_patched(base_bytes, base, patch)
    x = np.random.default_rng(0).uniform(0.6, 0.8, (50, count)).astype(F32)
    rows = LabelledRows(x, np.zeros(50, np.int64))
    domain = Domain((Fraction(0),), (Fraction(1),))
    problem = Problem(base.network, build(base.network, patch), patch, domain, forget=rows, retain=rows)
    digest = difference_network(base.network, patch).digest()
    moved = max(
        float(np.abs(one.astype(float) - other).max())
        for one, other in zip(onnxruntime_logits(patched_bytes, x), onnxruntime_logits(base_bytes, x), strict=True)
    )
    proved = []
    for delta in ("0.05", "0.1", "5", "50", "500"):
        claim = Claim(
            "retain_close", "ieee754-binary32", "relaxation", radius=Fraction(1, 2**20), delta=Fraction(delta)
        )
        proof = emit(Proof("retain_close", "ieee754-binary32", "relaxation", digest, 50))
        outcome = decide_bounded(problem, claim, proof, "p")
        assert outcome.proved == 0 or moved <= float(delta)
        proved.append(outcome.proved)
    assert proved[0] == 0
    assert proved[-1] == 50
