"""Small base networks of several kinds and opsets, as users bring them, and records for them."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from prune_verify.checker.network import Network, Node
from prune_verify.measure.datasets import DataSet, digits

F = np.float32


def _model(nodes: list, initialisers: dict[str, np.ndarray], shape: tuple, out: tuple, opset: int, ir: int) -> bytes:
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in initialisers.items()]
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)]
    if ir < 4:
        inputs += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in tensors]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, out)]
    graph = helper.make_graph(nodes, "base", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = ir
    return model.SerializeToString()


def mlp(opset: int = 17, ir: int = 8, *, seed: int = 0, scale: float = 1.0, labels: int = 5) -> bytes:
    rng = np.random.default_rng(seed)
    values = {
        "w1": rng.standard_normal((16, 12)).astype(F) / 3, "b1": rng.standard_normal(16).astype(F),
        "w2": (rng.standard_normal((labels, 16)) * scale).astype(F), "b2": (rng.standard_normal(labels) * scale).astype(F),
    }  # fmt: skip
    nodes = [
        helper.make_node("Gemm", ["input", "w1", "b1"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["scores"], transB=1),
    ]
    return _model(nodes, values, ("batch", 12), ("batch", labels), opset, ir)


def cnn(opset: int = 17) -> bytes:
    rng = np.random.default_rng(1)
    values = {
        "k": rng.standard_normal((3, 1, 2, 2)).astype(F), "c": rng.standard_normal(3).astype(F),
        "w": rng.standard_normal((4, 18)).astype(F), "b": rng.standard_normal(4).astype(F),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["input", "k", "c"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "b"], ["scores"], transB=1),
    ]
    return _model(nodes, values, ("batch", 1, 4, 3), ("batch", 4), opset, 8)


def deep_cnn() -> bytes:
    """A convolution and two dense layers."""
    rng = np.random.default_rng(4)
    values = {
        "k": rng.standard_normal((3, 1, 2, 2)).astype(F), "c": rng.standard_normal(3).astype(F),
        "w": rng.standard_normal((14, 18)).astype(F) / 2, "b": rng.standard_normal(14).astype(F),
        "w2": rng.standard_normal((4, 14)).astype(F), "b2": rng.standard_normal(4).astype(F),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["input", "k", "c"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "b"], ["d"], transB=1),
        helper.make_node("Relu", ["d"], ["e"]),
        helper.make_node("Gemm", ["e", "w2", "b2"], ["scores"], transB=1),
    ]
    return _model(nodes, values, ("batch", 1, 4, 3), ("batch", 4), 17, 8)


def fixed_batch() -> bytes:
    """One row at a time, a column of pixels, and scores of shape [1, 3, 1]."""
    rng = np.random.default_rng(2)
    values = {
        "s": np.array([1, 6], dtype=np.int64), "t": np.array([1, 3, 1], dtype=np.int64),
        "w": rng.standard_normal((6, 3)).astype(F), "b": rng.standard_normal(3).astype(F),
    }  # fmt: skip
    nodes = [
        helper.make_node("Reshape", ["input", "s"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["m"]),
        helper.make_node("Add", ["m", "b"], ["a"]),
        helper.make_node("Reshape", ["a", "t"], ["scores"]),
    ]
    return _model(nodes, values, (1, 6, 1), (1, 3, 1), 13, 8)


def residual() -> bytes:
    rng = np.random.default_rng(3)
    values = {
        "w1": rng.standard_normal((8, 8)).astype(F) / 2, "b1": rng.standard_normal(8).astype(F),
        "w2": rng.standard_normal((3, 8)).astype(F), "b2": rng.standard_normal(3).astype(F),
    }  # fmt: skip
    nodes = [
        helper.make_node("Gemm", ["input", "w1", "b1"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Add", ["r", "input"], ["s"]),
        helper.make_node("Gemm", ["s", "w2", "b2"], ["scores"], transB=1),
    ]
    return _model(nodes, values, ("batch", 8), ("batch", 3), 18, 9)


BASES = {
    "mlp, opset 17": mlp(),
    "mlp, opset 7 and IR 3": mlp(7, 3),
    "mlp, opset 9": mlp(9, 4),
    "mlp, opset 13": mlp(13, 7),
    "mlp, opset 18": mlp(18, 9),
    "mlp, opset 21": mlp(21, 10),
    "cnn": cnn(),
    "cnn, opset 11": cnn(11),
    "fixed batch": fixed_batch(),
    "residual": residual(),
}


def renamed(data: bytes, old: str, new: str) -> bytes:
    model = onnx.load_from_string(data)
    for node in model.graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == old:
                    names[place] = new
    return model.SerializeToString()


@cache
def trained_digits() -> tuple[Network, DataSet]:
    """A 64-24-10 network trained on digits for a second, and the data with a hold-out part."""
    import torch

    from prune_verify.measure.training import small_mlp, train

    data = digits()
    with torch.random.fork_rng(devices=[]):
        net = train(lambda: small_mlp([64, 24, 10]), data, epochs=20, seed=0, rate=0.005)
    nodes = [Node("Input", (), (64,))]
    for part in net:
        if isinstance(part, torch.nn.Linear):
            arrays = {"weight": part.weight.detach().numpy().copy(), "bias": part.bias.detach().numpy().copy()}
            nodes.append(Node("Linear", (len(nodes) - 1,), (part.out_features,), {"axis": (-1,)}, arrays))
        else:
            nodes.append(Node("Relu", (len(nodes) - 1,), nodes[-1].shape))
    return Network(tuple(nodes), len(nodes) - 1), data
