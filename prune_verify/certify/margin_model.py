"""An ONNX network with one more matrix behind its logits, so that a property can speak of their differences.

Source: ONNX operator documentation (MatMul, Flatten).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from prune_verify.certify.errors import CertifyInputError
from prune_verify.checker.load_onnx import LoadedModel, load_network
from prune_verify.checker.network import Network

__all__ = ["margin_model"]

_INITIALISERS_ARE_INPUTS = 4  # below this IR version
_PREFIX = "prune_verify_margins"


def margin_model(data: bytes, loaded: LoadedModel, rows: npt.NDArray[np.float32], expected: Network) -> bytes:
    """The network with outputs ``rows @ logits``.

    Args:
        data: the file.
        loaded: the same, loaded.
        rows: float32 [outputs, labels].
        expected: the network that it has to be.

    Returns:
        The bytes of the longer network.

    Raises:
        CertifyInputError: the file written is not that network.

    """
    model = onnx.load_from_string(data)
    graph, source, prefix = model.graph, loaded.output_name, _PREFIX
    taken = {name for node in graph.node for name in (*node.input, *node.output, node.name)}
    while any(name.startswith(prefix) for name in taken):
        prefix += "_"
    weight, output = f"{prefix}_rows", f"{prefix}_output"
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(rows.T), weight))
    if model.ir_version < _INITIALISERS_ARE_INPUTS:
        graph.input.append(helper.make_tensor_value_info(weight, TensorProto.FLOAT, rows.T.shape))
    if len(loaded.network.output_shape) != 1:
        graph.node.append(helper.make_node("Flatten", [source], [f"{prefix}_flat"], f"{prefix}_flat", axis=1))
        source = f"{prefix}_flat"
    graph.node.append(helper.make_node("MatMul", [source, weight], [output], output))
    del graph.output[:]
    batch: int | str = loaded.batch or "batch"
    graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch, len(rows)]))
    made: bytes = model.SerializeToString()
    if load_network(made, "margins").network.digest() != expected.digest():
        text = "the network with margins could not be written: its digest is another one"
        raise CertifyInputError(text)
    return made
