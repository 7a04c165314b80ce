"""``patched.onnx``: the base graph untouched, and the patch's nodes after it, a few tensor operations for all gates.

The gates are laid out with the batch last: [slots, gates, batch] sums faster than [batch, slots, gates]
(measured: 2.7 times at 1,000 gates and batch 256). The checker's loader reads both layouts as the same network, and the
exported file is loaded again here and compared with what the checker will rebuild.

Source: certs/SPEC.md section 3; ONNX operator documentation for the forms of each opset.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from prune_verify.checker.errors import CheckError
from prune_verify.checker.load_onnx import LoadedModel, load_network
from prune_verify.checker.network import Network
from prune_verify.checker.patch import INPUT, JointPatch, LearnedPatch, Patch, ShiftPatch, blocks
from prune_verify.checker.rebuild import CAP_SLOPE, build, hold_ends, hold_order, hold_slots, site_nodes
from prune_verify.repair.errors import RepairError

__all__ = ["export_patched"]

_AXES_AS_INPUT = {"ReduceSum": 13, "ReduceMax": 18}
_BROADCAST_EXTREMES = 8
_INITIALISERS_ARE_INPUTS = 4  # below this IR version
_ROW_RANK = 2  # [batch, numbers]
_PREFIX = "prune_verify/"


class _Graph:
    """Appends nodes and constants to a base model."""

    def __init__(self, model: onnx.ModelProto, opset: int) -> None:
        self.model, self.graph, self.opset = model, model.graph, opset
        self._count = 0
        taken = {name for node in self.graph.node for name in (*node.output, node.name)}
        taken |= {value.name for value in (*self.graph.initializer, *self.graph.input, *self.graph.output)}
        self._prefix = _PREFIX
        while any(name.startswith(self._prefix) for name in taken):
            self._prefix += "_"

    def name(self, what: str) -> str:
        """A new name."""
        self._count += 1
        return f"{self._prefix}{what}_{self._count}"

    def constant(self, value: npt.ArrayLike, dtype: type = np.float32) -> str:
        """An initialiser."""
        array: npt.NDArray[np.generic] = np.array(value, dtype=dtype, order="C")
        name = self.name("constant")
        self.graph.initializer.append(numpy_helper.from_array(array, name))
        if self.model.ir_version < _INITIALISERS_ARE_INPUTS:
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            self.graph.input.append(helper.make_tensor_value_info(name, kind, array.shape))
        return name

    def add(self, op: str, inputs: Sequence[str], **attributes: int | list[int]) -> str:
        """A node with one output, whose name is returned."""
        output = self.name(op.lower())
        self.graph.node.append(helper.make_node(op, list(inputs), [output], output, **attributes))  # type: ignore[arg-type] # attributes
        return output

    def rows(self, source: str) -> str:
        """The input as [batch, numbers]; no node where it has that form."""
        declared = next(value for value in self.graph.input if value.name == source)
        rank = len(declared.type.tensor_type.shape.dim)
        return source if rank == _ROW_RANK else self.add("Flatten", [source], axis=1)

    def reduce(self, op: str, value: str, axis: int, *, keep: bool) -> str:
        """ReduceSum or ReduceMax over one axis, in the form of the opset."""
        if self.opset >= _AXES_AS_INPUT[op]:
            return self.add(op, [value, self.constant([axis], np.int64)], keepdims=int(keep))
        return self.add(op, [value], axes=[axis], keepdims=int(keep))


def _openness(graph: _Graph, patch: JointPatch | ShiftPatch, sites: list[str]) -> tuple[str, list[int]]:
    """The value g, [gates, batch], and which gate each row is."""
    rows = sites[0] if len(sites) == 1 else graph.add("Concat", sites, axis=1)
    columns = graph.add("Transpose", [rows], perm=[1, 0])
    parts: list[str] = []
    order: list[int] = []
    for block in blocks(patch):
        gathered = graph.add("Gather", [columns, graph.constant(block.coordinates, np.int64)], axis=0)
        if block.signs is not None:
            gathered = graph.add("Mul", [gathered, graph.constant(block.signs[:, :, np.newaxis])])
        above = graph.add("Sub", [gathered, graph.constant(block.edges[:, :, np.newaxis])])
        parts.append(graph.reduce("ReduceSum", graph.add("Relu", [above]), 0, keep=False))
        order += block.gates
    violation = parts[0] if len(parts) == 1 else graph.add("Concat", parts, axis=0)
    gamma = graph.constant(np.array([[patch.gates[g].gamma] for g in order]))
    scaled = graph.add("Mul", [violation, gamma])
    return graph.add("Relu", [graph.add("Sub", [graph.constant(1.0), scaled])]), order


def _rivals(graph: _Graph, logits: str, width: int) -> str:
    """The greatest logit other than each one, [batch, width]."""
    others = np.array([[j for j in range(width) if j != y] for y in range(width)], dtype=np.int64)
    return graph.reduce(
        "ReduceMax", graph.add("Gather", [logits, graph.constant(others, np.int64)], axis=1), 2, keep=False
    )


def _record_head(graph: _Graph, patch: JointPatch, sites: list[str], logits: str) -> str:
    """N' of the labels in A, [batch, labels in A]."""
    openness, order = _openness(graph, patch, sites)
    minus = np.zeros((len(patch.allowed), len(order)), dtype=np.float32)
    for column, index in enumerate(order):
        minus[patch.allowed.index(patch.gates[index].label), column] = -1.0
    ones = graph.constant(np.ones(len(patch.allowed)))
    total = graph.add("Gemm", [openness, graph.constant(minus), ones], transA=1, transB=1)
    closed = graph.add("Relu", [total])
    opened = graph.add("Sub", [graph.constant(1.0), closed])
    lowered = graph.add("Sub", [logits, graph.add("Mul", [opened, graph.constant(patch.shift)])])
    below = graph.add("Sub", [_rivals(graph, lowered, len(patch.allowed)), graph.constant(patch.tau)])
    lifted = graph.add("Mul", [closed, graph.constant(patch.slack)])
    return graph.add("Min", [logits, graph.add("Add", [below, lifted])])


def _hold_head(graph: _Graph, patch: JointPatch, sites: list[str], logits: str) -> str:
    """All logits, those of labels with gates held where one is open, [batch, labels]."""
    openness, order = _openness(graph, patch, sites)
    owners = graph.constant([patch.gates[g].label for g in order], np.int64)
    best = graph.add("Gather", [_rivals(graph, logits, patch.labels), owners], axis=1)
    loose = graph.add("Sub", [graph.constant(1.0), graph.add("Transpose", [openness], perm=[1, 0])])
    loose = graph.add("Mul", [loose, graph.constant(patch.slack)])
    low, high = hold_ends(patch, order)
    gated, slots = hold_slots(patch, order)
    ends = []
    for near in (
        graph.add("Sub", [graph.constant(-high), best]),
        graph.add("Add", [best, graph.constant(low)]),
    ):
        far = graph.add("Gather", [graph.add("Sub", [near, loose]), graph.constant(slots, np.int64)], axis=1)
        ends.append(graph.reduce("ReduceMax", far, 2, keep=False))
    upper = graph.add("Sub", [graph.constant(0.0), ends[0]])
    own = graph.add("Gather", [logits, graph.constant(gated, np.int64)], axis=1)
    held = graph.add("Max", [graph.add("Min", [own, upper]), ends[1]])
    joined = graph.add("Concat", [logits, held], axis=1)
    return graph.add("Gather", [joined, graph.constant(hold_order(patch.labels, gated), np.int64)], axis=1)


def _class_head(graph: _Graph, patch: JointPatch, logits: str, allowed: str) -> str:
    """All logits in the base's order, those of forgotten classes capped."""
    classes = patch.forgotten_classes
    best = graph.reduce("ReduceMax", allowed, 1, keep=True)
    size = graph.add("Mul", [graph.add("Abs", [best]), graph.constant(CAP_SLOPE)])
    cap = graph.add("Sub", [best, graph.add("Add", [graph.constant(patch.tau), size])])
    forgotten = graph.add("Gather", [logits, graph.constant(classes, np.int64)], axis=1)
    capped = graph.add("Min", [forgotten, cap])
    joined = graph.add("Concat", [allowed, capped], axis=1)
    place = {label: i for i, label in enumerate(patch.allowed + classes)}
    order = graph.constant([place[j] for j in range(patch.labels)], np.int64)
    return graph.add("Gather", [joined, order], axis=1)


def _learned(graph: _Graph, patch: LearnedPatch, source: str) -> str:
    """P, [batch, labels]."""
    value = graph.rows(source)
    for place, (weight, bias) in enumerate(patch.layers):
        value = graph.add("Relu", [value]) if place else value
        value = graph.add("Gemm", [value, graph.constant(weight), graph.constant(bias)], transB=1)
    return value


def _shift(graph: _Graph, patch: ShiftPatch, sites: list[str]) -> str:
    """P, [batch, labels]."""
    openness, order = _openness(graph, patch, sites)
    zeros = graph.constant(np.zeros(patch.labels))
    columns = graph.constant(np.ascontiguousarray(patch.shifts[order].T))
    return graph.add("Gemm", [openness, columns, zeros], transA=1, transB=1)


def _joint(graph: _Graph, patch: JointPatch, sites: list[str], logits: str) -> str:
    allowed = logits
    if patch.forgotten_classes:
        allowed = graph.add("Gather", [logits, graph.constant(patch.allowed, np.int64)], axis=1)
    if patch.gates:
        allowed = (_hold_head if patch.holds else _record_head)(graph, patch, sites, allowed)
    return _class_head(graph, patch, logits, allowed) if patch.forgotten_classes else allowed


def _site_names(graph: _Graph, base: LoadedModel, sites: tuple[str, ...]) -> list[str]:
    """The values that the sites name in the file, each as [batch, numbers]."""
    found = []
    for site, index in zip(sites, site_nodes(base.network, sites), strict=True):
        if site == INPUT:
            found.append(graph.rows(base.input_name))
            continue
        name = _value_name(graph.model, Network(base.network.nodes, index).digest())
        flat = len(base.network.nodes[index].shape) == 1
        found.append(name if flat else graph.add("Flatten", [name], axis=1))
    return found


def _value_name(model: onnx.ModelProto, digest: str) -> str:
    """The value of the graph that computes the network of this digest."""
    for node in model.graph.node:
        for name in filter(None, node.output):
            try:
                if load_network(_part(model, name), "a part of the base").network.digest() == digest:
                    return str(name)
            except CheckError:  # not every value is a network's output
                continue
    text = f"no value of the base's file is the site with digest {digest}"
    raise RepairError(text)


def _part(model: onnx.ModelProto, name: str) -> bytes:
    """The model that computes one of a model's values."""
    part = onnx.ModelProto()
    part.CopyFrom(model)
    needed, kept = {name}, []
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    del part.graph.node[:], part.graph.output[:], part.graph.initializer[:]
    part.graph.node.extend(reversed(kept))
    part.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in needed)
    part.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return bytes(part.SerializeToString())


def _renamed(model: onnx.ModelProto, old: str, new: str) -> None:
    """Call the base's logits something else inside, so that the graph's output can keep its name."""
    for node in model.graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == old:
                    names[place] = new
    for place in reversed(range(len(model.graph.value_info))):
        if model.graph.value_info[place].name == old:
            del model.graph.value_info[place]


def export_patched(base_bytes: bytes, base: LoadedModel, patch: Patch) -> bytes:
    """The patched network as ONNX, with the base's input and output names, types, opset and IR version.

    Args:
        base_bytes: the base's file.
        base: the same, loaded.
        patch: parameters.

    Returns:
        The bytes of ``patched.onnx``; loaded again, they have the digest of the network that the checker rebuilds.

    Raises:
        RepairError: the base has an opset, or a form, in which the patch cannot be written.

    """
    several = isinstance(patch, JointPatch) and len(patch.forgotten_classes) > 1
    if several and base.opset < _BROADCAST_EXTREMES:
        text = f"the base has opset {base.opset}; forgetting several classes needs opset {_BROADCAST_EXTREMES} or later"
        raise RepairError(text)
    model = onnx.load_from_string(base_bytes)
    graph = _Graph(model, base.opset)
    sites = [] if isinstance(patch, LearnedPatch) or not patch.gates else _site_names(graph, base, patch.sites)
    inner = graph.name("base_logits")
    _renamed(model, base.output_name, inner)
    logits = inner if len(base.network.output_shape) == 1 else graph.add("Flatten", [inner], axis=1)
    if isinstance(patch, JointPatch):
        output = _joint(graph, patch, sites, logits)
    else:
        added = (
            _learned(graph, patch, base.input_name) if isinstance(patch, LearnedPatch) else _shift(graph, patch, sites)
        )
        output = graph.add("Add", [logits, added])
    if len(base.network.output_shape) == 1:
        graph.graph.node[-1].output[0] = base.output_name
    else:
        shape = graph.constant([base.batch or -1, *base.network.output_shape], np.int64)
        graph.graph.node.append(helper.make_node("Reshape", [output, shape], [base.output_name]))
    data: bytes = model.SerializeToString()
    _require_same(data, base, patch)
    return data


def _require_same(data: bytes, base: LoadedModel, patch: Patch) -> None:
    """Establish that the file is the network that the checker will rebuild from base and parameters."""
    expected = build(base.network, patch).digest()
    found = load_network(data, "patched.onnx").network.digest()
    if found != expected:
        text = f"the exported network is not base and patch: expected digest {expected}, got {found}"
        raise RepairError(text)
