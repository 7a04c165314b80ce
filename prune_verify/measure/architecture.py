"""A network in ONNX as a PyTorch module that can be trained: with new weights, or from the weights that it has.

Every operator that the checker reads is said in PyTorch's own operators, so that gradients are exact and training is
quick. Weights of one ONNX tensor that two layers read are trained apart, because the checker's form of the network
holds a copy for each.

Source: checker/network.py for the operators; initialisation as ``torch.nn.Linear`` and ``torch.nn.Conv2d`` have it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from prune_verify.bounds.errors import UnsupportedNetworkError
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.network import Network, Node, live_nodes, windows

__all__ = ["TrainableNetwork", "trainable", "untrained"]

Step = Callable[[list[Tensor]], Tensor]
Unary = Callable[[Tensor], Tensor]
_LAYERS = frozenset({"Linear", "Conv"})
_WEIGHTS = {"Linear": ("weight", "bias"), "Conv": ("weight", "bias"), "BatchNorm": ("scale", "bias")}
_MOST_SPACE = 3  # spatial axes that PyTorch's convolutions and pools have
_CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_AVERAGES = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}
_GREATEST = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_PAIRS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Max": torch.maximum,
    "Min": torch.minimum,
}


class TrainableNetwork(nn.Module):
    """A network of the checker as a module: [batch, *input_shape] to [batch, labels], equal up to float error.

    Weights and biases of layers, and scale and shift of normalisations, are parameters. With ``every`` set, so are
    constants that are added or multiplied, such as the thresholds of a patch's gates; otherwise they stay as they are.
    Normalisations keep their stored statistics, unless ``fresh`` is set: then they take those of the batches that they
    are trained on, as PyTorch's do.

    Args:
        network: any network of the checker; nodes that the output does not depend on are left out.
        name: of the file, for errors.
        every: whether constants are trained as well.
        fresh: whether normalisations start anew.

    Raises:
        UnsupportedNetworkError: names the node that has no form here.

    """

    def __init__(self, network: Network, name: str, *, every: bool = False, fresh: bool = False) -> None:
        super().__init__()
        live = live_nodes(network)
        if 0 not in live:
            raise UnsupportedNetworkError(f"{name}: expected an output that depends on the input, found a constant")
        self._name, self._every, self._fresh = name, every, fresh
        self._nodes, self._output, self._labels = network.nodes, network.output, network.labels
        self._live = sorted(live - {0})
        for index in self._live:
            self._keep(index, network.nodes[index])
        self._steps = self._translated()
        if not any(network.nodes[i].op in _LAYERS for i in live):
            raise UnsupportedNetworkError(f"{name}: expected a Linear or Conv node, found none: nothing can be trained")

    def forward(self, x: Tensor) -> Tensor:
        """Logits [batch, labels] of rows x [batch, *input_shape]."""
        values = {0: x}
        for index, step in self._steps:
            values[index] = step([values[i] for i in self._nodes[index].inputs])
        return torch.flatten(values[self._output], 1)

    def __getstate__(self) -> dict[str, object]:
        """Everything but the steps, which are functions of this very module: a copy makes its own."""
        return {name: value for name, value in self.__dict__.items() if name != "_steps"}

    def __setstate__(self, state: dict[str, object]) -> None:
        """Take up what was copied, and make the steps anew."""
        super().__setstate__(state)  # type: ignore[no-untyped-call] # torch has no types here
        self._steps = self._translated()

    def initialise(self, seed: int) -> None:
        """Draw new weights, layer by layer in the order of running, as PyTorch draws those of its layers.

        Args:
            seed: of the generator; equal seeds give equal weights.

        """
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for index, _ in self._steps:
                node = self._nodes[index]
                if node.op in _LAYERS:
                    bound = 1 / math.sqrt(math.prod(node.arrays["weight"].shape[1:]))
                    for what in ("weight", "bias"):
                        if what in node.arrays:
                            self._value(index, what).uniform_(-bound, bound, generator=generator)
                elif node.op == "BatchNorm":
                    for what, start in (("scale", 1.0), ("bias", 0.0), ("mean", 0.0), ("variance", 1.0)):
                        self._value(index, what).fill_(start)

    def _value(self, index: int, what: str) -> Tensor:
        found: Tensor = getattr(self, f"{what}_{index}")
        return found

    def _keep(self, index: int, node: Node) -> None:
        """Register the node's tensors, so that they are the module's."""
        trained = _WEIGHTS.get(node.op, ("value",) if self._every else ())
        for what, array in node.arrays.items():
            tensor = torch.from_numpy(np.array(array, dtype=np.float32))
            if what in trained:
                self.register_parameter(f"{what}_{index}", nn.Parameter(tensor))
            else:
                self.register_buffer(f"{what}_{index}", tensor)
        if node.op == "Gather":
            self.register_buffer(f"indices_{index}", torch.tensor(node.ints["indices"], dtype=torch.int64))
        elif node.op == "AveragePool":
            share = _share(node, self._nodes[node.inputs[0]].shape)
            self.register_buffer(f"share_{index}", torch.from_numpy(share))

    def _refused(self, index: int, expected: str, found: str) -> UnsupportedNetworkError:
        return UnsupportedNetworkError(
            f"{self._name}: node {index} ({self._nodes[index].op}): expected {expected}, found {found}"
        )

    def _translated(self) -> list[tuple[int, Step]]:
        """Each node as a function of the values of its inputs."""
        return [(index, self._step(index, self._nodes[index])) for index in self._live]

    def _step(self, index: int, node: Node) -> Step:
        if node.op == "Constant":
            return lambda _: self._value(index, "value")[None]
        if node.op in _PAIRS:
            return self._pairs(node)
        if node.op == "Concat":
            axis = node.ints["axis"][0] + 1

            def concat(values: list[Tensor]) -> Tensor:
                rows = max(v.shape[0] for v in values)
                return torch.cat([v.expand(rows, *v.shape[1:]) for v in values], dim=axis)

            return concat
        unary = self._unary(index, node)
        return lambda values: unary(values[0])

    def _pairs(self, node: Node) -> Step:
        rank = len(node.shape)
        pair = _PAIRS[node.op]

        def fold(values: list[Tensor]) -> Tensor:
            # Broadcasting is per row: axes of length one go behind the batch axis.
            first, *others = (v.reshape(-1, *(1,) * (rank + 1 - v.ndim), *v.shape[1:]) for v in values)
            for other in others:
                first = pair(first, other)
            return first

        return fold

    def _unary(self, index: int, node: Node) -> Unary:  # noqa: C901, PLR0911 - a table of operators
        """A node with one input, as a function of that input's value."""
        match node.op:
            case "Linear":
                return self._linear(index, node)
            case "Conv":
                return self._conv(index, node)
            case "BatchNorm":
                return self._batch_norm(index)
            case "Relu":
                return torch.relu
            case "Abs":
                return torch.abs
            case "Clip":
                low, high = (node.arrays.get(end) for end in ("lower", "upper"))
                ends = tuple(None if end is None else float(end) for end in (low, high))
                return lambda x: torch.clamp(x, *ends)
            case "Reshape":
                shape = node.shape
                return lambda x: torch.flatten(x, 1) if len(shape) == 1 else x.reshape(-1, *shape)
            case "Transpose":
                order = (0, *(p + 1 for p in node.ints["perm"]))
                return lambda x: x.permute(order)
            case "Gather":
                return self._gather(index, node)
            case "MaxPool" | "AveragePool":
                return self._pool(index, node)
            case "ReduceMax" | "ReduceSum":
                axes, keep = tuple(a + 1 for a in node.ints["axes"]), bool(node.ints["keepdims"][0])
                reduce = torch.amax if node.op == "ReduceMax" else torch.sum
                return lambda x: reduce(x, dim=axes, keepdim=keep)
        raise self._refused(index, "an operator of the checker's table", node.op)

    def _linear(self, index: int, node: Node) -> Unary:
        axis, held = node.ints["axis"][0], node.arrays.keys()

        def linear(x: Tensor) -> Tensor:
            weight = self._value(index, "weight")
            bias = self._value(index, "bias") if "bias" in held else None
            if "alpha" in held:
                weight = weight * self._value(index, "alpha")
            if bias is not None and "beta" in held:
                bias = bias * self._value(index, "beta")
            if axis == -1:
                return functional.linear(x, weight, bias)
            return functional.linear(x.transpose(axis, -1), weight, bias).transpose(axis, -1)

        return linear

    def _space(self, index: int, space: int) -> None:
        if not 1 <= space <= _MOST_SPACE:
            raise self._refused(index, f"1 to {_MOST_SPACE} spatial axes", str(space))

    def _conv(self, index: int, node: Node) -> Unary:
        space = node.arrays["weight"].ndim - 2
        self._space(index, space)
        conv, strides, dilations = _CONVOLUTIONS[space], node.ints["strides"], node.ints["dilations"]
        (begin, end), group = _padding(node), node.ints["group"][0]
        before = begin if begin == end else (0,) * space
        around = () if begin == end else _around(begin, end)

        def convolved(x: Tensor) -> Tensor:
            x = functional.pad(x, around) if around else x
            bias = self._value(index, "bias") if "bias" in node.arrays else None
            found: Tensor = conv(x, self._value(index, "weight"), bias, strides, before, dilations, group)
            return found

        return convolved

    def _batch_norm(self, index: int) -> Unary:
        epsilon = float(self._nodes[index].arrays["epsilon"])

        def normalised(x: Tensor) -> Tensor:
            mean, variance, scale, bias = (self._value(index, w) for w in ("mean", "variance", "scale", "bias"))
            own = self._fresh and self.training and x.numel() > x.shape[1]  # one number has no variance
            return functional.batch_norm(x, mean, variance, scale, bias, training=own, eps=epsilon)

        return normalised

    def _gather(self, index: int, node: Node) -> Unary:
        axis, shape = node.ints["axis"][0] + 1, node.ints["index_shape"]

        def gathered(x: Tensor) -> Tensor:
            found = torch.index_select(x, axis, self._value(index, "indices"))
            return found if len(shape) == 1 else found.reshape(*x.shape[:axis], *shape, *x.shape[axis + 1 :])

        return gathered

    def _pool(self, index: int, node: Node) -> Unary:
        kernel, strides = node.ints["kernel"], node.ints["strides"]
        self._space(index, len(kernel))
        (begin, end) = _padding(node)
        around = _around(begin, end) if any(begin + end) else ()
        if node.op == "MaxPool":
            greatest, dilations = _GREATEST[len(kernel)], node.ints["dilations"]
            return lambda x: greatest(
                functional.pad(x, around, value=-math.inf) if around else x, kernel, strides, 0, dilations
            )
        mean = _AVERAGES[len(kernel)]

        def averaged(x: Tensor) -> Tensor:
            found = mean(functional.pad(x, around) if around else x, kernel, strides)
            return found * self._value(index, "share")

        return averaged if around else lambda x: mean(x, kernel, strides)


def _padding(node: Node) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Zeros before and behind, by spatial axis."""
    pads = node.ints["pads"]
    return pads[: len(pads) // 2], pads[len(pads) // 2 :]


def _around(begin: Sequence[int], end: Sequence[int]) -> tuple[int, ...]:
    """The same as ``torch.nn.functional.pad`` takes it: last axis first."""
    return tuple(n for pair in zip(reversed(begin), reversed(end), strict=True) for n in pair)


def _share(node: Node, source: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """By what the mean over a whole window is to be multiplied where padding does not count: [*space]."""
    kernel, ones = node.ints["kernel"], (1,) * len(node.ints["kernel"])
    fill = 1 if node.ints["count_include_pad"][0] else 0
    mask = np.ones((1, 1, *source[1:]), dtype=np.int64)
    seen = windows(mask, kernel, node.ints["strides"], node.ints["pads"], ones, fill)
    count = seen.sum(axis=tuple(range(-len(kernel), 0)))[0, 0]
    return np.asarray(math.prod(kernel) / count, dtype=np.float32)


def untrained(onnx: bytes, name: str, seed: int) -> TrainableNetwork:
    """The architecture of an ONNX network with new weights.

    A network of ``torch.nn.Linear`` and ``torch.nn.Conv2d`` layers gets the very weights that building it under
    ``torch.manual_seed(seed)`` gives. Constants that are no weights, such as the scaling of inputs, stay.

    Args:
        onnx: the file's bytes.
        name: of the file, for errors.
        seed: of the weights.

    Raises:
        CheckError: no network that the checker reads.
        UnsupportedNetworkError: a node has no form here.

    """
    network = TrainableNetwork(load_network(onnx, name).network, name, fresh=True)
    network.initialise(seed)
    return network


def trainable(onnx: bytes, name: str) -> TrainableNetwork:
    """An ONNX network, base or patched, with all its weights and constants to train on from where they are.

    Args:
        onnx: the file's bytes.
        name: of the file, for errors.

    Raises:
        CheckError: no network that the checker reads.
        UnsupportedNetworkError: a node has no form here.

    """
    return TrainableNetwork(load_network(onnx, name).network, name, every=True)
