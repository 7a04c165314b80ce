"""Any bytes as a network, or a refusal: the strict subset of ONNX that this checker reads.

The bytes given are the bytes read: no path is opened and no external data is followed. In order:

 1. the size limit, then the protobuf;
 2. IR version 3 or newer, default domain at opset 7 or newer, both known to the installed ``onnx``;
    other domains may be imported (exporters do) but no node may use them; no functions, no training graph;
 3. one float32 input [batch, ...] with fixed dimensions behind the batch axis, one float32 output. An
    initialiser that is also listed as an input is a constant up to IR 3 and refused from IR 4;
 4. tensors: stored in the file, once, in full, of float32 or integers, finite; sizes are checked first;
 5. nodes: operators of the table in lower_onnx.py, checked against the operator's schema; no subgraphs;
 6. every name is defined once, before its use; dead nodes are refused, unused initialisers and dead
    constants are not (neither exporter of PyTorch writes dead nodes, both leave constants behind);
 7. lowering, which refuses whatever mixes rows; stated shapes must agree with the computed ones.

Source: THREATS T22 and T24; FORMATS section 1; the ONNX IR specification.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
import onnx
import onnx.defs
from google.protobuf.message import DecodeError  # type: ignore[import-untyped,unused-ignore] # comes with onnx

from prune_verify.checker.errors import LimitError, MalformedInputError, UnsupportedVersionError
from prune_verify.checker.lower_onnx import OPERATORS, Graph, lower
from prune_verify.checker.network import Array, Network
from prune_verify.checker.row_graph import Attribute, GraphNode, LoadLimits

__all__ = ["LoadLimits", "LoadedModel", "load_network"]

_LEAST_OPSET, _LEAST_IR, _LAST_IR_WITH_INPUT_CONSTANTS = 7, 3, 3
_DEFAULT_LIMITS = LoadLimits()
_DEFAULT_DOMAIN = ("", "ai.onnx")
_BOOL = onnx.TensorProto.BOOL
_TYPED_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
_STORAGE: dict[int, tuple[str, str]] = {  # data type: (layout of raw_data, typed field)
    onnx.TensorProto.FLOAT: ("<f4", "float_data"),
    onnx.TensorProto.INT32: ("<i4", "int32_data"),
    onnx.TensorProto.INT64: ("<i8", "int64_data"),
    _BOOL: ("u1", "int32_data"),
}


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A network and what its file says about itself.

    Args:
        network: the per-row representation.
        input_name: name of the graph's input.
        output_name: name of the graph's output.
        input_dtype: always ``float32``.
        opset: version of the default domain.
        ir_version: of the file.
        batch: the fixed batch size, or None when it is symbolic.
        input_shape: as declared, with names for symbolic dimensions (empty when unnamed).
        output_shape: as declared, or None when the file states no shape.

    """

    network: Network
    input_name: str
    output_name: str
    input_dtype: str
    opset: int
    ir_version: int
    batch: int | None
    input_shape: tuple[int | str, ...]
    output_shape: tuple[int | str, ...] | None


def load_network(data: bytes, path: str, limits: LoadLimits = _DEFAULT_LIMITS) -> LoadedModel:
    """Read a network from the bytes of an ONNX file.

    Args:
        data: the file, read once; these bytes are parsed.
        path: name of the file, for errors.
        limits: sizes allowed.

    Returns:
        The network with its names, versions and declared shapes.

    Raises:
        MalformedInputError: not a valid ONNX model.
        UnsupportedVersionError: a version, type, operator or use outside the subset above.
        LimitError: larger than the limits allow.

    """
    if len(data) > limits.max_bytes:  # (1)
        raise LimitError(path, "bytes of the file", f"at most {limits.max_bytes}", str(len(data)))
    model = _parsed(data, path)
    opset = _versions(model, path)  # (2)
    source, output = _ends(model.graph, model.ir_version, path)  # (3)
    input_shape, output_shape = _declared_shape(source, path), _declared_shape(output, path)
    graph = _plain(model.graph, opset, path, limits, source.name, output.name, input_shape)
    network = lower(graph, limits)  # (7)
    shapes = input_shape or (), output_shape
    return LoadedModel(network, source.name, output.name, "float32", opset, model.ir_version, graph.batch, *shapes)


def _plain(
    graph: onnx.GraphProto,
    opset: int,
    path: str,
    limits: LoadLimits,
    source: str,
    output: str,
    input_shape: tuple[int | str, ...] | None,
) -> Graph:
    """Free the graph from its protobuf: steps 3 (shape) to 6."""
    row_shape, batch = _row_shape(input_shape, f"{path}: input '{source}'")
    constants = _initialisers(graph, path, limits)  # (4)
    if len(graph.node) > limits.max_nodes:
        raise LimitError(path, "nodes", f"at most {limits.max_nodes}", str(len(graph.node)))
    nodes = tuple(_node(node, i, opset, path, limits) for i, node in enumerate(graph.node))  # (5)
    _refuse_duplicates(source, constants, nodes, path)  # (6)
    stated = _stated_shapes(graph, constants, path)
    return Graph(path, opset, nodes, constants, source, row_shape, batch, output, stated)


# --- the model ---


def _parsed(data: bytes, path: str) -> onnx.ModelProto:
    if not data:
        raise MalformedInputError(path, "an ONNX model", "a protobuf", "an empty file")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise MalformedInputError(path, "an ONNX model", "a protobuf", "other bytes") from error
    if not model.HasField("graph"):
        raise MalformedInputError(path, "an ONNX model", "a graph", "none")
    return model


def _versions(model: onnx.ModelProto, path: str) -> int:
    """The opset of the default domain; versions unknown to the installed ``onnx`` are refused."""
    if not _LEAST_IR <= model.ir_version <= onnx.IR_VERSION:
        raise UnsupportedVersionError(path, "IR version", f"{_LEAST_IR} to {onnx.IR_VERSION}", str(model.ir_version))
    domains = [_text(o.domain, f"{path}: opset_import") for o in model.opset_import]
    normal = ["" if d in _DEFAULT_DOMAIN else d for d in domains]
    if (twice := _twice(normal)) is not None:
        raise MalformedInputError(path, "imports of a domain", "one each", f"'{twice}' twice")
    if "" not in normal:
        raise UnsupportedVersionError(path, "opset", "an import of the default domain", "none")
    opset = int(model.opset_import[normal.index("")].version)
    newest = onnx.defs.onnx_opset_version()
    if not _LEAST_OPSET <= opset <= newest:
        raise UnsupportedVersionError(path, "opset", f"{_LEAST_OPSET} to {newest}", str(opset))
    for name, found in (
        ("functions", len(model.functions)),
        ("training graphs", len(model.training_info)),
        ("sparse initialisers", len(model.graph.sparse_initializer)),
        ("quantisation annotations", len(model.graph.quantization_annotation)),
    ):
        if found:
            raise UnsupportedVersionError(path, name, "none", str(found))
    return opset


def _text(value: object, place: str) -> str:
    """A protobuf string, which the parser hands over as bytes when it is not UTF-8."""
    if not isinstance(value, str):
        raise MalformedInputError(place, "names", "UTF-8", "other bytes")
    return value


def _twice(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


# --- inputs and outputs ---


def _ends(graph: onnx.GraphProto, ir_version: int, path: str) -> tuple[onnx.ValueInfoProto, onnx.ValueInfoProto]:
    """The one input that is not a constant, and the one output."""
    for value in (*graph.input, *graph.output):
        _text(value.name, f"{path}: inputs and outputs")
    if (twice := _twice(v.name for v in graph.input)) is not None:
        raise MalformedInputError(path, "names of inputs", "distinct", f"'{twice}' twice")
    stored = {_text(t.name, f"{path}: initialisers") for t in graph.initializer}
    listed = [v.name for v in graph.input if v.name in stored]
    if listed and ir_version > _LAST_IR_WITH_INPUT_CONSTANTS:
        expected = "a constant only (from IR 4 on an input may be overridden by the caller)"
        raise UnsupportedVersionError(f"{path}: initialiser '{listed[0]}'", "initialisers", expected, "also an input")
    inputs = [v for v in graph.input if v.name not in stored]
    for name, found in (("input", inputs), ("output", graph.output)):
        if len(found) != 1:
            got = f"{len(found)}: {', '.join(v.name for v in found)}"
            raise UnsupportedVersionError(path, f"number of {name}s", f"one {name}", got)
    return inputs[0], graph.output[0]


def _declared_shape(value: onnx.ValueInfoProto, path: str) -> tuple[int | str, ...] | None:
    """The declared shape of a float32 value, names for symbolic dimensions, None when no shape is stated."""
    place = f"{path}: value '{value.name}'"
    if not value.type.HasField("tensor_type"):
        raise UnsupportedVersionError(place, "type", "a float32 tensor", "another kind")
    tensor = value.type.tensor_type
    if tensor.elem_type != onnx.TensorProto.FLOAT:
        raise UnsupportedVersionError(place, "type", "float32", _type_name(tensor.elem_type))
    return _dims(tensor, place) if tensor.HasField("shape") else None


def _dims(tensor: onnx.TypeProto.Tensor, place: str) -> tuple[int | str, ...]:
    dims: list[int | str] = []
    for dim in tensor.shape.dim:
        if not dim.HasField("dim_value"):
            dims.append(_text(dim.dim_param, place))
        elif dim.dim_value < 0:
            raise MalformedInputError(place, "declared dimension", "at least 0", str(dim.dim_value))
        else:
            dims.append(dim.dim_value)
    return tuple(dims)


def _row_shape(dims: tuple[int | str, ...] | None, place: str) -> tuple[tuple[int, ...], int | None]:
    if dims is None or len(dims) < 2:  # noqa: PLR2004 - the batch axis and one more
        raise UnsupportedVersionError(place, "shape", "a batch axis and at least one more", str(dims))
    if 0 in dims:
        raise MalformedInputError(place, "shape", "positive dimensions", str(dims))
    row = tuple(d for d in dims[1:] if isinstance(d, int))
    if len(row) != len(dims) - 1:
        raise UnsupportedVersionError(place, "shape", "fixed dimensions behind the batch axis", str(dims))
    return row, dims[0] if isinstance(dims[0], int) else None


def _stated_shapes(graph: onnx.GraphProto, constants: dict[str, Array], path: str) -> dict[str, tuple[int | None, ...]]:
    """Shapes that the file states for values; those of initialisers are compared here."""
    stated: dict[str, tuple[int | None, ...]] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        name = _text(value.name, f"{path}: value_info")
        if not (value.type.HasField("tensor_type") and value.type.tensor_type.HasField("shape")):
            continue
        place = f"{path}: value '{name}'"
        shape = tuple(d if isinstance(d, int) else None for d in _dims(value.type.tensor_type, place))
        if stated.setdefault(name, shape) != shape:
            raise MalformedInputError(place, "declared shape", str(stated[name]), str(shape))
        if name in constants and any(
            len(shape) != constants[name].ndim or d not in (None, have)
            for d, have in zip(shape, constants[name].shape, strict=False)
        ):
            raise MalformedInputError(place, "declared shape", str(constants[name].shape), str(shape))
    return stated


# --- tensors ---


def _type_name(number: int) -> str:
    return next((str(name) for name, value in onnx.TensorProto.DataType.items() if value == number), f"type {number}")


def _initialisers(graph: onnx.GraphProto, path: str, limits: LoadLimits) -> dict[str, Array]:
    constants: dict[str, Array] = {}
    for tensor in graph.initializer:
        place = f"{path}: initialiser '{tensor.name}'"
        if not tensor.name or tensor.name in constants:
            raise MalformedInputError(place, "names of initialisers", "distinct and not empty", f"'{tensor.name}'")
        constants[tensor.name] = _tensor(tensor, place, limits)
    return constants


def _tensor(tensor: onnx.TensorProto, place: str, limits: LoadLimits) -> Array:
    """The numbers of a tensor: float32, int64 (also for int32) or bool; read-only and contiguous."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL or len(tensor.external_data):
        remedy = "data inside the file: torch.onnx.export(..., external_data=False)"
        raise UnsupportedVersionError(place, "storage", remedy, "external data")
    if tensor.data_type not in _STORAGE:
        got = _type_name(tensor.data_type)
        raise UnsupportedVersionError(place, "type", "float32 (or integers, for shapes and indices)", got)
    shape = tuple(tensor.dims)
    if len(shape) > limits.max_rank:
        raise LimitError(place, "rank", f"at most {limits.max_rank}", str(len(shape)))
    if min(shape, default=1) < 0 or (0 in shape and (tensor.data_type == onnx.TensorProto.FLOAT or len(shape) > 1)):
        raise MalformedInputError(place, "dimensions", "at least 1", str(shape))
    count = prod(shape)  # Python integers do not overflow
    if count > limits.max_elements:
        raise LimitError(place, "numbers", f"at most {limits.max_elements}", str(count))
    if tensor.HasField("segment"):
        raise UnsupportedVersionError(place, "storage", "a whole tensor", "a segment")
    array = _stored(tensor, count, place).reshape(shape)
    array.setflags(write=False)
    return array


def _stored(tensor: onnx.TensorProto, count: int, place: str) -> Array:
    layout, wanted = _STORAGE[tensor.data_type]
    filled = [name for name in _TYPED_FIELDS if len(getattr(tensor, name))]
    raw = tensor.HasField("raw_data")
    if raw and filled:
        raise MalformedInputError(place, "storage", "one of raw_data and typed data", f"raw_data and {filled[0]}")
    if filled not in ([], [wanted]):
        raise MalformedInputError(place, "storage", f"raw_data or {wanted}", ", ".join(filled))
    have = len(tensor.raw_data) // np.dtype(layout).itemsize if raw else len(getattr(tensor, wanted))
    if have != count or (raw and len(tensor.raw_data) % np.dtype(layout).itemsize):
        got = f"{len(tensor.raw_data)} bytes" if raw else f"{have} numbers"
        raise MalformedInputError(place, "numbers stored", f"{count} of {_type_name(tensor.data_type)}", got)
    if tensor.data_type == onnx.TensorProto.FLOAT:
        floats = np.frombuffer(tensor.raw_data, layout) if raw else np.fromiter(tensor.float_data, np.float32, count)
        return _finite(floats.astype(np.float32), place)
    integers = np.frombuffer(tensor.raw_data, layout) if raw else np.fromiter(getattr(tensor, wanted), np.int64, count)
    if tensor.data_type == _BOOL:
        if not bool(np.all((integers == 0) | (integers == 1))):
            raise MalformedInputError(place, "booleans", "0 or 1", "other numbers")
        return integers.astype(np.bool_)
    return integers.astype(np.int64)


def _finite(array: npt.NDArray[np.float32], place: str) -> npt.NDArray[np.float32]:
    if not bool(np.all(np.isfinite(array))):
        raise MalformedInputError(place, "finite numbers", "no NaN and no infinity", "NaN or infinity")
    return array


# --- nodes ---


def _node(node: onnx.NodeProto, index: int, opset: int, path: str, limits: LoadLimits) -> GraphNode:
    place = f"{path}: node {index}"
    op, domain = _text(node.op_type, place), _text(node.domain, place)
    place = f"{path}: node '{_text(node.name, place)}' ({op})" if node.name else f"{place} ({op})"
    if domain not in _DEFAULT_DOMAIN:
        raise UnsupportedVersionError(place, "domain", "the default domain", f"'{domain}'")
    if op not in OPERATORS or node.overload:
        raise UnsupportedVersionError(place, "operator", "one that this checker supports", op)
    schema = onnx.defs.get_schema(op, opset, "")
    if schema.deprecated or schema.since_version > OPERATORS[op][0]:
        expected = f"a definition up to opset {OPERATORS[op][0]}"
        raise UnsupportedVersionError(place, "operator", expected, f"opset {schema.since_version}")
    inputs = tuple(_text(name, place) for name in node.input)
    outputs = tuple(_text(name, place) for name in node.output)
    for name, found, least, most in (
        ("inputs", inputs, schema.min_input, schema.max_input),
        ("outputs", outputs, schema.min_output, schema.max_output),
    ):
        if not least <= len(found) <= most:
            raise MalformedInputError(place, f"number of {name}", f"{least} to {most}", str(len(found)))
    if not outputs or not outputs[0]:
        raise MalformedInputError(place, "first output", "a name", "none")
    if op != "Dropout" and any(outputs[1:]):
        raise UnsupportedVersionError(place, "outputs", "the first only", ", ".join(outputs[1:]))
    return GraphNode(op, schema.since_version, place, inputs, outputs, _attributes(node, schema, place, limits))


def _attributes(
    node: onnx.NodeProto, schema: onnx.defs.OpSchema, place: str, limits: LoadLimits
) -> dict[str, Attribute]:
    result: dict[str, Attribute] = {}
    for attribute in node.attribute:
        name = _text(attribute.name, place)
        where = f"{place}: attribute '{name}'"
        if name in result:
            raise MalformedInputError(where, "attributes", "no name twice", name)
        if attribute.type not in _READERS:
            kinds = onnx.AttributeProto.AttributeType.items()
            got = next((str(kind) for kind, value in kinds if value == attribute.type), "unknown")
            raise UnsupportedVersionError(where, "type of attribute", "numbers, text or a tensor", got)
        kind, reader = _READERS[attribute.type]
        if attribute.ref_attr_name:
            raise UnsupportedVersionError(where, "attributes", "a value", "a reference to a function's attribute")
        if name not in schema.attributes or schema.attributes[name].type != kind:
            expected = ", ".join(sorted(schema.attributes)) or "none"
            raise MalformedInputError(where, "attributes of the operator", expected, f"{name} of type {attribute.type}")
        result[name] = reader(attribute, where, limits)
    return result


def _float_attribute(attribute: onnx.AttributeProto, place: str, _: LoadLimits) -> Attribute:
    _finite(np.array([attribute.f], dtype=np.float32), place)
    return float(attribute.f)


def _floats_attribute(attribute: onnx.AttributeProto, place: str, _: LoadLimits) -> Attribute:
    return tuple(float(v) for v in _finite(np.array(attribute.floats, dtype=np.float32), place))


def _string_attribute(attribute: onnx.AttributeProto, place: str, _: LoadLimits) -> Attribute:
    try:
        return attribute.s.decode("ascii")
    except UnicodeDecodeError as error:
        raise MalformedInputError(place, "text", "ASCII", "other bytes") from error


_Kind = onnx.defs.OpSchema.AttrType
_Reader = Callable[[onnx.AttributeProto, str, LoadLimits], Attribute]
_READERS: dict[int, tuple[onnx.defs.OpSchema.AttrType, _Reader]] = {
    onnx.AttributeProto.FLOAT: (_Kind.FLOAT, _float_attribute),
    onnx.AttributeProto.INT: (_Kind.INT, lambda a, _place, _limits: int(a.i)),
    onnx.AttributeProto.STRING: (_Kind.STRING, _string_attribute),
    onnx.AttributeProto.TENSOR: (_Kind.TENSOR, lambda a, place, limits: _tensor(a.t, place, limits)),
    onnx.AttributeProto.FLOATS: (_Kind.FLOATS, _floats_attribute),
    onnx.AttributeProto.INTS: (_Kind.INTS, lambda a, _place, _limits: tuple(a.ints)),
}


def _refuse_duplicates(source: str, constants: dict[str, Array], nodes: Iterable[GraphNode], path: str) -> None:
    """Refuse two definitions of one name: readers differ in which of them counts."""
    seen = {source, *constants}
    for node in nodes:
        for name in filter(None, node.outputs):
            if name in seen:
                raise MalformedInputError(node.place, "names of values", "each defined once", f"'{name}' again")
            seen.add(name)
    if not source:
        raise MalformedInputError(path, "name of the input", "a name", "none")
