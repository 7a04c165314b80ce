"""Networks that answer as the base of the vectors does, in the other forms in which users bring them.

The scores are those of the integer perceptron, up to a factor and a constant for all labels, so that each of these
networks answers every record with its label. Source: FORMATS section 1 (opset 7 and up, IR 3 and up; dense, conv, ...).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from certs.vector_maker.owner import LABELS, SIZE, base_model, scores

__all__ = ["FORMS", "renumbered"]

F = np.float32
_FIRST_IR_WITHOUT_INPUTS = 4
_IMAGE = (1, 8, 8)
_OPSET, _IR = 17, 8
_HEAD = np.concatenate([np.eye(LABELS), -np.eye(LABELS)], axis=1).astype(F)
_node = helper.make_node


def _weights() -> npt.NDArray[np.float32]:
    """Each label's score and its negative [2 labels, inputs]."""
    found = scores().astype(F)
    return np.concatenate([found, -found])


def _model(
    nodes: Sequence[NodeProto],
    constants: Mapping[str, npt.NDArray[np.float32]],
    *,
    shape: Sequence[int] = (SIZE,),
    batch: str | int = "batch",
) -> onnx.ModelProto:
    """A model from ``x`` to ``logits``."""
    graph = helper.make_graph(
        list(nodes),
        "base",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *shape])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, LABELS])],
        [numpy_helper.from_array(value.astype(F), name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", _OPSET)]
    return helper.make_model(graph, opset_imports=opset, producer_name="prune-verify vectors", ir_version=_IR)


def renumbered(opset: int, ir: int, *, inputs: bool = False) -> bytes:
    """The usual base in another opset and IR version; ``inputs``: its constants are listed as graph inputs too."""
    model = base_model()
    model.opset_import[0].version, model.ir_version = opset, ir
    if inputs or ir < _FIRST_IR_WITHOUT_INPUTS:
        for tensor in model.graph.initializer:
            model.graph.input.append(helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, tensor.dims))
    return model.SerializeToString()


def _matmul() -> onnx.ModelProto:
    """MatMul and Add where the usual base has Gemm."""
    nodes = [
        _node("MatMul", ["x", "w1"], ["m"]),
        _node("Add", ["m", "b1"], ["h"]),
        _node("Relu", ["h"], ["r"]),
        _node("MatMul", ["r", "w2"], ["logits"]),
    ]
    return _model(nodes, {"w1": _weights().T, "b1": np.zeros(2 * LABELS, F), "w2": _HEAD.T})


def _convolution() -> onnx.ModelProto:
    """One filter as large as the image for each score."""
    nodes = [
        _node("Conv", ["x", "w1"], ["c"], kernel_shape=[8, 8]),
        _node("Relu", ["c"], ["r"]),
        _node("Flatten", ["r"], ["f"], axis=1),
        _node("Gemm", ["f", "w2"], ["logits"], transB=1),
    ]
    return _model(nodes, {"w1": _weights().reshape(-1, *_IMAGE), "w2": _HEAD}, shape=_IMAGE)


def _strided() -> onnx.ModelProto:
    """The image in two halves: a score is the sum of what both say; a stride, a global pool and a Reshape."""
    halves = _weights().reshape(-1, 1, 2, 4, 8)
    kernel = np.concatenate([halves[:, :, 0], halves[:, :, 1]])
    gather = np.zeros((8, 16, 2, 1), F)  # the filters of the upper half at the upper place, the others at the lower
    gather[np.arange(8), np.arange(8), 0], gather[np.arange(8), 8 + np.arange(8), 1] = 1, 1
    nodes = [
        _node("Conv", ["x", "w1"], ["c"], kernel_shape=[4, 8], strides=[4, 8]),
        _node("Conv", ["c", "w2"], ["s"], kernel_shape=[2, 1]),
        _node("Relu", ["s"], ["r"]),
        _node("GlobalAveragePool", ["r"], ["p"]),
        _node("Reshape", ["p", "flat"], ["f"]),
        _node("Gemm", ["f", "w3"], ["logits"], transB=1),
    ]
    model = _model(nodes, {"w1": kernel, "w2": gather, "w3": _HEAD}, shape=_IMAGE)
    model.graph.initializer.append(numpy_helper.from_array(np.array([0, -1], np.int64), "flat"))
    return model


def _normalised() -> onnx.ModelProto:
    """A batch normalization as it is at inference, between convolution and ReLU."""
    nodes = [
        _node("Conv", ["x", "w1"], ["c"], kernel_shape=[8, 8]),
        _node("BatchNormalization", ["c", "scale", "shift", "mean", "variance"], ["n"]),
        _node("Relu", ["n"], ["r"]),
        _node("Flatten", ["r"], ["f"], axis=1),
        _node("Gemm", ["f", "w2"], ["logits"], transB=1),
    ]
    numbers = {"scale": 1.5, "shift": 0.25, "mean": 0.125, "variance": 0.5}
    constants = {name: np.full(2 * LABELS, value, F) for name, value in numbers.items()}
    return _model(nodes, {"w1": _weights().reshape(-1, *_IMAGE), "w2": _HEAD, **constants}, shape=_IMAGE)


def _residual() -> onnx.ModelProto:
    """A block around which its input is led: r + Relu(r)."""
    nodes = [
        _node("Gemm", ["x", "w1"], ["h"], transB=1),
        _node("Relu", ["h"], ["r"]),
        _node("Gemm", ["r", "w2"], ["g"], transB=1),
        _node("Relu", ["g"], ["s"]),
        _node("Add", ["s", "r"], ["t"]),
        _node("Gemm", ["t", "w3"], ["logits"], transB=1),
    ]
    return _model(nodes, {"w1": _weights(), "w2": np.eye(2 * LABELS) / 2, "w3": _HEAD})


def _pooled() -> onnx.ModelProto:
    """A MaxPool over single pixels, which leaves the image as it is, before the usual layers."""
    nodes = [
        _node("MaxPool", ["x"], ["m"], kernel_shape=[1, 1]),
        _node("Flatten", ["m"], ["f"], axis=1),
        _node("Gemm", ["f", "w1"], ["h"], transB=1),
        _node("Relu", ["h"], ["r"]),
        _node("Gemm", ["r", "w2"], ["logits"], transB=1),
    ]
    return _model(nodes, {"w1": _weights(), "w2": _HEAD}, shape=_IMAGE)


def _fixed_batch() -> onnx.ModelProto:
    """A batch of 1, as some exporters write it."""
    model = base_model()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    return model


def _constants_as_nodes() -> onnx.ModelProto:
    """Weights in Constant nodes."""
    model = base_model()
    tensors = list(model.graph.initializer)
    del model.graph.initializer[:]
    for place, tensor in enumerate(tensors):
        model.graph.node.insert(place, _node("Constant", [], [tensor.name], value=tensor))
    return model


FORMS = {
    "matmul": _matmul,
    "convolution": _convolution,
    "strided-convolution": _strided,
    "batch-normalization": _normalised,
    "residual": _residual,
    "pooling": _pooled,
    "fixed-batch": _fixed_batch,
    "constants-as-nodes": _constants_as_nodes,
}
