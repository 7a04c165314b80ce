"""Networks with random weights for the tests of bounds: chains, and one with every operator that has a relaxation."""

from __future__ import annotations

import numpy as np

from prune_verify.checker.network import Network, Node


class Builder:
    """Appends nodes with random weights; each method gives the index of the new node."""

    def __init__(self, seed: int, *shape: int, scale: float = 1.0) -> None:
        self.rng, self.scale = np.random.default_rng(seed), scale
        self.nodes = [Node("Input", (), shape)]

    def numbers(self, *shape: int) -> np.ndarray:
        return (self.scale * self.rng.standard_normal(shape)).astype(np.float32)

    def add(self, op: str, inputs: tuple[int, ...], shape: tuple[int, ...], arrays=None, **ints) -> int:
        self.nodes.append(Node(op, inputs, shape, ints, arrays or {}))
        return len(self.nodes) - 1

    def constant(self, *shape: int) -> int:
        return self.add("Constant", (), shape, {"value": self.numbers(*shape)})

    def linear(self, source: int, width: int, **extra: float) -> int:
        shape = self.nodes[source].shape
        arrays = {"weight": self.numbers(width, shape[-1]), "bias": self.numbers(width)}
        arrays |= {name: np.float32(value).reshape(()) for name, value in extra.items()}
        return self.add("Linear", (source,), (*shape[:-1], width), arrays, axis=(-1,))

    def relu(self, source: int) -> int:
        return self.add("Relu", (source,), self.nodes[source].shape)


def mlp(seed: int, *widths: int, scale: float = 1.0) -> Network:
    b = Builder(seed, widths[0], scale=scale)
    value = 0
    for place, width in enumerate(widths[1:]):
        value = b.linear(b.relu(value) if place else value, width)
    return Network(tuple(b.nodes), value)


def every_operator(seed: int) -> Network:
    """A network with every operator that has a rule, broadcasting, repeated indices and a residual edge."""
    b = Builder(seed, 2, 3)
    first = b.relu(b.linear(0, 4, alpha=-1.5, beta=0.25))  # [2, 4]
    turned = b.add("Transpose", (first,), (4, 2), perm=(1, 0))
    scaled = b.add("Mul", (b.constant(2), turned), (4, 2))
    shifted = b.add("Sub", (scaled, b.constant(4, 1)), (4, 2))
    again = b.add("Mul", (shifted, b.constant(3, 1, 1)), (3, 4, 2))  # broadcasts
    flat = b.add("Reshape", (b.relu(again),), (24,))
    taken = b.add("Gather", (flat,), (2, 4), axis=(0,), indices=(0, 5, -1, 5, 7, 5, 2, 23), index_shape=(2, 4))
    residual = b.add("Add", (taken, first), (2, 4))
    picked = b.add("Gather", (residual,), (2, 2), axis=(1,), indices=(3, 3), index_shape=(2,))
    joined = b.add("Concat", (b.relu(residual), picked, residual), (2, 10), axis=(1,))
    rows = b.relu(b.linear(joined, 2, beta=-0.5))
    last = b.linear(b.add("Reshape", (rows,), (4,)), 3)
    output = b.add("Sub", (last, b.constant(1, 3)), (1, 3))
    return Network(tuple(b.nodes), output)


def every_choice(seed: int) -> Network:
    """A network with every operator that is not linear, and the linear ones over space: convolution, pools, norm."""
    b = Builder(seed, 2, 5, 5)
    kernels = {"weight": b.numbers(4, 1, 3, 2), "bias": b.numbers(4)}
    grouped = {"strides": (2, 1), "pads": (1, 0, 1, 1), "dilations": (1, 2), "group": (2,)}
    conv = b.add("Conv", (0,), (4, 3, 4), kernels, **grouped)
    channels = {name: b.numbers(4) for name in ("scale", "bias", "mean")}
    channels |= {"variance": np.full(4, 0.25, dtype=np.float32), "epsilon": np.zeros((), dtype=np.float32)}
    normed = b.add("BatchNorm", (conv,), (4, 3, 4), channels)
    overlapping = {"kernel": (2, 2), "strides": (1, 1), "pads": (0, 1, 1, 0)}
    pooled = b.add("MaxPool", (b.relu(normed),), (4, 3, 4), **overlapping, dilations=(1, 1))
    clipped = b.add(
        "Clip", (pooled,), (4, 3, 4), {"lower": np.float32(0.25).reshape(()), "upper": np.float32(2).reshape(())}
    )
    mean = b.add("AveragePool", (clipped,), (4, 3, 4), **overlapping, count_include_pad=(seed % 2,))
    again = b.add(
        "Conv",
        (mean,),
        (3, 3, 4),
        {"weight": b.numbers(3, 4, 1, 1)},
        strides=(1, 1),
        pads=(0,) * 4,
        dilations=(1, 1),
        group=(1,),
    )
    sums = b.add("ReduceSum", (again,), (3, 1, 4), axes=(1,), keepdims=(1,))
    size = b.add("Abs", (b.add("Sub", (again, sums), (3, 3, 4)),), (3, 3, 4))
    most = b.add("ReduceMax", (size,), (3, 4), axes=(1,), keepdims=(0,))
    mixed = b.add("Linear", (most,), (2, 4), {"weight": b.numbers(2, 3), "bias": b.numbers(2)}, axis=(-2,))
    two = b.add("Max", (mixed, b.constant(4)), (2, 4))
    three = b.add("Min", (two, mixed, b.constant(2, 1)), (2, 4))
    other = b.add("Min", (three, b.add("Max", (mixed, three, two), (2, 4))), (2, 4))
    most_of_all = b.add("ReduceMax", (other,), (2,), axes=(1,), keepdims=(0,))
    joined = b.add("Concat", (most_of_all, b.add("Reshape", (three,), (8,))), (10,), axis=(0,))
    output = b.linear(joined, 3)
    return Network(tuple(b.nodes), output)
