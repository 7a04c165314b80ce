"""Lowering of an ONNX graph to the per-row representation: the table of operators, and the walk.

Every operator that a network may use is a row of ``OPERATORS``; everything else is refused by name.
Nodes on constants alone are folded only where they move numbers without computing any. Element-wise
operators follow the broadcasting rules; operators on shapes keep track of the batch axis and are
refused where rows would mix or where the result would depend on the size of the batch (THREATS T24).

Source: the ONNX operator specifications, opset 7 and up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from prune_verify.checker import lower_layers as layers
from prune_verify.checker import lower_shapes as shapes
from prune_verify.checker.errors import MalformedInputError, UnsupportedVersionError
from prune_verify.checker.network import Array, Network, Node
from prune_verify.checker.row_graph import Builder, GraphNode, LoadLimits, Operand, Row, Step, shown

__all__ = ["OPERATORS", "Graph", "lower"]


@dataclass(frozen=True, eq=False)
class Graph:
    """An ONNX graph, freed from its protobuf.

    Args:
        path: the file, for errors.
        opset: version of the default domain.
        nodes: in topological order.
        constants: initialisers by name.
        input_name: the one input.
        row_shape: its shape without the batch axis 0.
        batch: the fixed batch size, or None when it is symbolic.
        output_name: the one output.
        declared: shapes that the file states for values, None for an unknown dimension.

    """

    path: str
    opset: int
    nodes: tuple[GraphNode, ...]
    constants: Mapping[str, Array]
    input_name: str
    row_shape: tuple[int, ...]
    batch: int | None
    output_name: str
    declared: Mapping[str, tuple[int | None, ...]]


# --- element-wise operators ---


def _elementwise(step: Step) -> Operand:
    """Add, Sub, Max and Min with broadcasting."""
    if len(step.args) == 1:
        return step.row(0)
    inputs, shape, axis = step.broadcast()
    if step.node.op in ("Max", "Min") and step.opset < 8:  # noqa: PLR2004 - they broadcast from opset 8 on
        found = {step.builder.nodes[i].shape for i in inputs}
        if len(found) != 1:
            raise step.malformed("shapes", "equal shapes below opset 8", " and ".join(map(str, sorted(found))))
    return step.emit(step.node.op, inputs, shape, axis)


def _mul(step: Step) -> Operand:
    """Mul of a value and a constant."""
    if isinstance(step.operand(0), Row) and isinstance(step.operand(1), Row):
        raise step.refuse("product", "a constant on one side", "two values that depend on the network's input")
    return _elementwise(step)


def _neg(step: Step) -> Operand:
    """Neg as an exact product with -1."""
    row = step.row(0)
    minus = step.emit_constant(np.array(-1, dtype=np.float32))
    return step.emit("Mul", (row.index, minus), step.shape(row), row.axis)


def _unary(step: Step) -> Operand:
    """Relu and Abs."""
    row = step.row(0)
    return step.emit(step.node.op, (row.index,), step.shape(row), row.axis)


def _clip(step: Step) -> Operand:
    """Clip with bounds from attributes (below opset 11) or inputs."""
    row = step.row(0)
    arrays = {}
    for place, (attribute, name) in enumerate((("min", "lower"), ("max", "upper")), start=1):
        if attribute in step.node.attributes:
            arrays[name] = np.array(step.number(attribute, 0.0), dtype=np.float32)
        elif step.optional(place) is not None:
            arrays[name] = step.floats(place)
            if arrays[name].size != 1:
                raise step.malformed(f"shape of {attribute}", "a scalar", str(arrays[name].shape))
            arrays[name] = arrays[name].reshape(())
    return step.emit("Clip", (row.index,), step.shape(row), row.axis, {}, arrays) if arrays else row


def _identity(step: Step) -> Operand:
    return step.operand(0)


def _dropout(step: Step) -> Operand:
    """Dropout at inference: the identity."""
    step.number("ratio", 0.5)
    step.integer("seed", 0)
    if step.optional(2) is not None and bool(np.any(step.constant(2))):
        raise step.refuse("training_mode", "false", "true")
    if step.optional(1) is not None:
        step.floats(1)
    return step.row(0)


def _constant(step: Step) -> Operand:
    """Constant of numbers."""
    if len(step.node.attributes) != 1:
        raise step.malformed("attributes", "exactly one value", str(sorted(step.node.attributes)))
    ((name, value),) = step.node.attributes.items()
    step.read.add(name)
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, str) or name not in ("value_float", "value_floats", "value_int", "value_ints"):
        raise step.refuse("value of a Constant", "numbers", name)
    return np.array(value, dtype=np.float32 if name.startswith("value_float") else np.int64)


# name -> (newest definition that was reviewed, lowering): a definition from a later opset is refused until reviewed
OPERATORS: dict[str, tuple[int, Callable[[Step], Operand]]] = {
    "Abs": (13, _unary),
    "Add": (14, _elementwise),
    "AveragePool": (22, layers.average_pool),
    "BatchNormalization": (15, layers.batch_normalization),
    "Cast": (28, shapes.cast),
    "Clip": (13, _clip),
    "Concat": (13, shapes.concat),
    "Constant": (25, _constant),
    "Conv": (22, layers.conv),
    "Dropout": (22, _dropout),
    "Flatten": (25, shapes.flatten),
    "Gather": (13, shapes.gather),
    "Gemm": (13, layers.gemm),
    "GlobalAveragePool": (22, layers.global_average_pool),
    "Identity": (25, _identity),
    "MatMul": (13, layers.matmul),
    "Max": (13, _elementwise),
    "MaxPool": (22, layers.max_pool),
    "Min": (13, _elementwise),
    "Mul": (14, _mul),
    "Neg": (13, _neg),
    "Pad": (25, shapes.pad),
    "ReduceMax": (20, layers.reduce_max),
    "ReduceMean": (18, layers.reduce_mean),
    "ReduceSum": (13, layers.reduce_sum),
    "Relu": (14, _unary),
    "Reshape": (25, shapes.reshape),
    "Shape": (25, shapes.shape),
    "Slice": (13, shapes.slice_vector),
    "Squeeze": (25, shapes.squeeze),
    "Sub": (14, _elementwise),
    "Transpose": (25, shapes.transpose),
    "Unsqueeze": (25, shapes.unsqueeze),
}


# --- the walk ---


def lower(graph: Graph, limits: LoadLimits) -> Network:
    """The per-row network that the graph computes.

    Args:
        graph: the graph; names are unique, which the caller has checked.
        limits: sizes allowed.

    Returns:
        The network, without nodes that do not reach the output.

    Raises:
        MalformedInputError: the graph is not valid ONNX.
        UnsupportedVersionError: an operator or a use of one that is not supported, or one that mixes rows.
        LimitError: a value is too large.

    """
    builder = Builder(graph.row_shape, graph.batch, limits, graph.path)
    values: dict[str, Operand] = {**graph.constants, graph.input_name: Row(0, 0)}
    produced = {name for node in graph.nodes for name in node.outputs}
    for node in graph.nodes:
        args = tuple(_lookup(values, produced, node, name) for name in node.inputs)
        step = Step(builder, node, args, graph.opset)
        result = OPERATORS[node.op][1](step)
        if unread := sorted(set(node.attributes) - step.read):
            raise step.refuse(f"attribute {unread[0]}", "not given", "given")
        values[node.outputs[0]] = result
        if isinstance(result, Row):
            _check_declared(graph, node.outputs[0], node.place, step.tensor_dims(result), result.axis)
    output = _output(graph, values, builder)
    _refuse_unreachable(graph, values)
    return _finished(builder.nodes, output)


def _lookup(values: Mapping[str, Operand], produced: set[str], node: GraphNode, name: str) -> Operand | None:
    if not name or name in values:
        return values[name] if name else None
    if name in produced:
        raise MalformedInputError(
            node.place, "first outputs of earlier nodes only", "topological order", f"'{name}' before it is there"
        )
    raise MalformedInputError(node.place, "inputs of nodes", "a value of the graph", f"unknown '{name}'")


def _check_declared(graph: Graph, name: str, place: str, dims: Sequence[int | None], axis: int | None) -> None:
    """Refuse a stated shape that differs from the computed one: other readers of the file may believe it."""
    declared = graph.declared.get(name)
    if declared is None:
        return
    fits = len(declared) == len(dims) and all(d is None or d == have for d, have in zip(declared, dims, strict=True))
    if not fits:
        rule = f"declared shape of '{name}'"
        raise MalformedInputError(place, rule, f"{shown(dims)}, batch axis {axis}", shown(declared))


def _output(graph: Graph, values: Mapping[str, Operand], builder: Builder) -> int:
    place = f"{graph.path}: output '{graph.output_name}'"
    value = values.get(graph.output_name)
    if value is None:
        raise MalformedInputError(place, "output", "a first output of a node", "no such value")
    if not isinstance(value, Row):
        raise UnsupportedVersionError(place, "output", "a value that depends on the input", "a constant")
    dims: list[int | None] = list(builder.nodes[value.index].shape)
    if value.axis is not None:
        dims.insert(value.axis, graph.batch)
    if value.axis != 0 and graph.batch != 1:
        raise UnsupportedVersionError(place, "batch axis of the output", "axis 0", shown(dims))
    _check_declared(graph, graph.output_name, place, dims, value.axis)
    return value.index


def _refuse_unreachable(graph: Graph, values: Mapping[str, Operand]) -> None:
    """Refuse nodes that depend on the input but not the output on them; dead constants are harmless."""
    needed = {graph.output_name}
    for node in reversed(graph.nodes):
        if node.outputs[0] in needed:
            needed.update(node.inputs)
        elif isinstance(values[node.outputs[0]], Row):
            raise UnsupportedVersionError(node.place, "nodes that reach the output", "a use", "a dead node")


def _finished(nodes: list[Node], output: int) -> Network:
    """The network with biases merged, without nodes that do not reach the output."""
    nodes, output = _live(nodes, output)
    nodes, output = _live(layers.fold_biases(nodes), output)
    return Network(tuple(nodes), output)


def _live(nodes: Sequence[Node], output: int) -> tuple[list[Node], int]:
    reached = {0, output}
    for index in range(output, -1, -1):
        if index in reached:
            reached.update(nodes[index].inputs)
    number = {old: new for new, old in enumerate(sorted(reached))}
    kept = [replace(nodes[old], inputs=tuple(number[i] for i in nodes[old].inputs)) for old in number]
    return kept, number[output]
