"""A checker's network as a PyTorch module that auto_LiRPA can bound.

The bound engine knows few operators well, so each node becomes one or more of: ``linear``, ``conv2d``,
ReLU, addition, subtraction, multiplication by a constant, index selection, reshape and concatenation.

* Piecewise linear nodes are ReLU forms: max(a, b) = a + ReLU(b - a), min(a, b) = a - ReLU(a - b),
  |a| = ReLU(a) + ReLU(-a). ``ReduceMax`` and ``MaxPool`` fold the first form over their candidates.
* Every linear node without a native form is a matrix, computed by the checker's own evaluation.
* What does not depend on the input is computed once.

Source: MATHS 3.3 (the ReLU form belongs in the chain handed to provers); checker/network.py for the operators.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prune_verify.bounds import torch_layers as layers
from prune_verify.bounds.errors import UnsupportedNetworkError
from prune_verify.checker.network import Network, Node, evaluate_all, live_nodes

__all__ = ["ReluSite", "TorchNetwork"]

_BINARY = frozenset({"Add", "Sub", "Mul"})
_MATRICES = frozenset({"Linear", "Conv", "AveragePool", "ReduceSum"})
_CONV_AXES = 2

Values = dict[int, Tensor]
Unary = Callable[[Tensor], Tensor]
Step = Callable[[Values], Tensor]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ReluSite:
    """Where a ReLU of the module comes from.

    Args:
        node: index of the node in the checker's network.
        part: the place among the ReLUs of that node: 0 for a ``Relu`` node, any in the ReLU form of another.
        own: whether the node is a ``Relu``.
        shape: per-row shape.

    """

    node: int
    part: int
    own: bool
    shape: tuple[int, ...]


class TorchNetwork(nn.Module):
    """A network as a PyTorch module: [batch, *input_shape] to [batch, labels], equal to ``evaluate`` up to float error.

    Args:
        network: any network of the checker; nodes that the output does not depend on are left out.
        dtype: of the parameters; inputs are to have the same.

    Raises:
        UnsupportedNetworkError: a node would become a matrix of more than 2^26 numbers, or multiplies two values
            that depend on the input, or the output does not depend on it.

    """

    def __init__(self, network: Network, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        live = live_nodes(network)
        self._dtype = dtype
        self._nodes = network.nodes
        self._output = network.output
        self._labels = network.labels
        self._parts = nn.ModuleList()
        self._sites: list[ReluSite] = []
        self._fixed = _constants(network, live)
        if network.output in self._fixed:
            text = "the output does not depend on the input"
            raise UnsupportedNetworkError(text)
        self._steps = [(i, self._translate(i, network.nodes[i])) for i in sorted(live - set(self._fixed) - {0})]

    @property
    def relu_sites(self) -> tuple[ReluSite, ...]:
        """The module's ReLUs in the order in which they run."""
        return tuple(self._sites)

    def steps(self) -> dict[int, Step]:
        """By node that the output depends on and that depends on the input: its value from those of its inputs."""
        return dict(self._steps)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [batch, labels] of rows x [batch, *input_shape]."""
        values = {0: x}
        for index, step in self._steps:
            values[index] = step(values)
        logits = values[self._output]
        return logits if self._nodes[self._output].shape == (self._labels,) else torch.flatten(logits, 1)

    def _keep(self, part: nn.Module) -> Unary:
        """Register a layer, so that its constants are the module's."""
        self._parts.append(part)
        return part

    def _relu(self, index: int) -> Unary:
        """One more ReLU of a node; asked for in the order of running."""
        part = sum(site.node == index for site in self._sites)
        node = self._nodes[index]
        self._sites.append(ReluSite(index, part, node.op == "Relu", node.shape))
        return torch.relu

    def _translate(self, index: int, node: Node) -> Step:
        if node.op in _BINARY:
            return self._binary(node)
        if node.op in {"Max", "Min"}:
            return self._extreme(index, node)
        if node.op == "Concat":
            return self._concat(node)
        source = node.inputs[0]
        unary = self._unary(index, node, self._nodes[source].shape)
        return lambda values: unary(values[source])

    def _unary(self, index: int, node: Node, source_shape: tuple[int, ...]) -> Unary:
        """A node with one input, as a function of that input's value."""
        match node.op:
            case "Relu":
                return self._relu(index)
            case "Abs":
                positive, negative = self._relu(index), self._relu(index)
                return lambda x: positive(x) + negative(-x)
            case "Clip":
                return self._clip(index, node)
            case "Reshape":
                return self._keep(layers.Reshaped(node.shape))
            case "Gather" | "Transpose":
                index_map = layers.index_map(node, source_shape)
                return self._keep(layers.index_layer(index_map, source_shape, node.shape, self._dtype))
            case "BatchNorm":
                return self._batch_norm(node)
            case "MaxPool" | "ReduceMax":
                return self._greatest(index, node, source_shape)
            case "Conv" if _is_plain_conv2d(node):
                return self._conv2d(node)
            case op if op in _MATRICES:
                return self._keep(layers.matrix(node, source_shape, self._dtype))
        raise UnsupportedNetworkError(f"no bound is known for the operator {node.op}")

    def _conv2d(self, node: Node) -> Unary:
        weight, group = node.arrays["weight"], node.ints["group"][0]
        bias = node.arrays.get("bias")
        conv = nn.Conv2d(
            weight.shape[1] * group,
            weight.shape[0],
            _pair(weight.shape[2:]),
            stride=_pair(node.ints["strides"]),
            padding=_pair(node.ints["pads"]),
            dilation=_pair(node.ints["dilations"]),
            groups=group,
            bias=bias is not None,
            dtype=self._dtype,
        ).requires_grad_(requires_grad=False)
        conv.weight.copy_(torch.from_numpy(np.array(weight)))
        if conv.bias is not None and bias is not None:
            conv.bias.copy_(torch.from_numpy(np.array(bias)))
        return self._keep(conv)

    def _batch_norm(self, node: Node) -> Unary:
        arrays = {name: array.astype(np.float64) for name, array in node.arrays.items()}
        scale = arrays["scale"] / np.sqrt(arrays["variance"] + arrays["epsilon"])
        shift = arrays["bias"] - arrays["mean"] * scale
        column = (-1, *(1,) * (len(node.shape) - 1))
        wide = [np.broadcast_to(v.reshape(column), node.shape) for v in (scale, shift)]
        return self._keep(layers.Scaled(wide[0], wide[1], self._dtype))

    def _limited(self, index: int, limit: Doubles, *, below: bool) -> Unary:
        """max(x, limit) where ``below``, else min(x, limit): limit + ReLU(x - limit), limit - ReLU(limit - x)."""
        sign = 1.0 if below else -1.0
        scale = None if below else np.full_like(limit, -1.0)
        into = self._keep(layers.Scaled(scale, -sign * limit, self._dtype))
        relu = self._relu(index)
        back = self._keep(layers.Scaled(scale, limit, self._dtype))
        return lambda x: back(relu(into(x)))

    def _clip(self, index: int, node: Node) -> Unary:
        ends = [(node.arrays[name], name == "lower") for name in ("lower", "upper") if name in node.arrays]
        steps = [self._limited(index, _wide(end, node.shape), below=below) for end, below in ends]

        def clip(x: Tensor) -> Tensor:
            for step in steps:
                x = step(x)
            return x

        return clip

    def _greatest(self, index: int, node: Node, source_shape: tuple[int, ...]) -> Unary:
        """Maximum over candidates: one index map per candidate, and the ReLU form folded over them."""
        rows = layers.candidates(node, source_shape)
        first, *others = [self._keep(layers.index_layer(row, source_shape, node.shape, self._dtype)) for row in rows]
        relus = [self._relu(index) for _ in others]

        def greatest(x: Tensor) -> Tensor:
            best = first(x)
            for other, relu in zip(others, relus, strict=True):
                best = best + relu(other(x) - best)
            return best

        return greatest

    def _operand(self, source: int, shape: tuple[int, ...]) -> Step:
        """A value that depends on the input, repeated along the axes in which it is narrower than ``shape``."""
        own = self._nodes[source].shape
        if own == shape:
            return lambda values: values[source]
        places = np.arange(layers.size_of(own), dtype=np.int64).reshape(own)
        wide = np.ascontiguousarray(np.broadcast_to(places, shape).reshape(-1))
        spread = self._keep(layers.index_layer(wide, own, shape, self._dtype))
        return lambda values: spread(values[source])

    def _binary(self, node: Node) -> Step:
        """Add, Sub, Mul: of two values, or of a value and a constant in either order."""
        first, second = node.inputs
        if first not in self._fixed and second not in self._fixed:
            left, right = self._operand(first, node.shape), self._operand(second, node.shape)
            if node.op == "Mul":
                text = "a product of two values that depend on the input"
                raise UnsupportedNetworkError(text)
            if node.op == "Add":
                return lambda values: left(values) + right(values)
            return lambda values: left(values) - right(values)
        constant, source = (first, second) if first in self._fixed else (second, first)
        amount, value = _wide(self._fixed[constant], node.shape), self._operand(source, node.shape)
        if node.op == "Mul":
            scaled = self._keep(layers.Scaled(amount, None, self._dtype))
        elif node.op == "Sub" and constant == first:
            scaled = self._keep(layers.Scaled(-np.ones_like(amount), amount, self._dtype))
        else:
            scaled = self._keep(layers.Scaled(None, amount if node.op == "Add" else -amount, self._dtype))
        return lambda values: scaled(value(values))

    def _extreme(self, index: int, node: Node) -> Step:
        """Max or Min of any number of values and constants: the values one by one, the constants in one last step."""
        greatest = node.op == "Max"
        first, *others = [self._operand(i, node.shape) for i in node.inputs if i not in self._fixed]
        relus = [self._relu(index) for _ in others]
        fixed = [_wide(self._fixed[i], node.shape) for i in node.inputs if i in self._fixed]
        limit = (np.maximum if greatest else np.minimum).reduce(fixed) if fixed else None
        last = self._limited(index, limit, below=greatest) if limit is not None else None

        def extreme(values: Values) -> Tensor:
            best = first(values)
            for other, relu in zip(others, relus, strict=True):
                best = best + relu(other(values) - best) if greatest else best - relu(best - other(values))
            return best if last is None else last(best)

        return extreme

    def _concat(self, node: Node) -> Step:
        """Concatenation; beside constants, which have no batch axis, every value is placed by a matrix instead."""
        sources, axis = node.inputs, node.ints["axis"][0]
        if not any(i in self._fixed for i in sources):
            # Times one: auto_LiRPA 0.7 cannot concatenate its own input's box, only what came out of a node.
            parts = [(i, self._keep(layers.Scaled(np.ones(self._nodes[i].shape), None, self._dtype))) for i in sources]
            return lambda values: torch.cat([same(values[i]) for i, same in parts], dim=axis + 1)
        total = layers.size_of(node.shape)
        ends = np.cumsum([self._nodes[i].shape[axis] for i in sources])[:-1]
        places = np.split(np.arange(total).reshape(node.shape), ends, axis=axis)
        shift = np.zeros(total)
        placed: list[tuple[int, Unary]] = []
        for source, place in zip(sources, (p.reshape(-1) for p in places), strict=True):
            if source in self._fixed:
                shift[place] = self._fixed[source].reshape(-1)
            else:
                weight = np.zeros((total, len(place)))
                weight[place, np.arange(len(place))] = 1.0
                placed.append((source, self._keep(layers.Affine(weight, None, node.shape, self._dtype))))
        shifted = self._keep(layers.Scaled(None, shift.reshape(node.shape), self._dtype))

        def concat(values: Values) -> Tensor:
            (source, put), *rest = placed
            result = shifted(put(values[source]))
            for other, put_other in rest:
                result = result + put_other(values[other])
            return result

        return concat


def _wide(array: npt.NDArray[np.float32], shape: tuple[int, ...]) -> Doubles:
    return np.array(np.broadcast_to(array, shape), dtype=np.float64)


def _pair(numbers: Sequence[int]) -> tuple[int, int]:
    return numbers[0], numbers[1]


def _constants(network: Network, live: set[int]) -> dict[int, npt.NDArray[np.float32]]:
    """The live nodes that do not depend on the input, and their values."""
    varying = {0}
    for index, node in enumerate(network.nodes):
        if varying.intersection(node.inputs):
            varying.add(index)
    fixed = live - varying
    if all(network.nodes[i].op == "Constant" for i in fixed):
        return {i: network.nodes[i].arrays["value"] for i in fixed}
    values = evaluate_all(network, np.zeros((1, *network.input_shape), dtype=np.float32))
    return {i: values[i][0].astype(np.float32) for i in fixed}


def _is_plain_conv2d(node: Node) -> bool:
    """Whether PyTorch's ``conv2d`` can say it: two spatial axes, the same padding at both ends."""
    pads = node.ints["pads"]
    return node.arrays["weight"].ndim == _CONV_AXES + 2 and pads[:_CONV_AXES] == pads[_CONV_AXES:]
