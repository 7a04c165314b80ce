"""REASSURE's patch of one point, as its authors make it: the dense half-spaces of a linear region, and linear programs.

A baseline, never part of a certificate. The region of a point is A x <= b, one dense row per hidden neuron; for every
other label the program finds how far it may be ahead of the target on the region, and the affine patch p(x) = C x + d
moves each by what is missing. The patched network is

    g(x) = ReLU(sum_i [ReLU(n (b - A x)_i + 1) - ReLU(n (b - A x)_i)] - m + 1)
    N'   = N + ReLU(p + K g - K) - ReLU(-p + K g - K),   K = max |p| on the box

Where this differs from the authors' program it is faster: the box is given to HiGHS as bounds instead of 2 n rows, and
the rows of A come from one product per layer instead of one backward pass per neuron.

Source: Fu and Li, REASSURE, ICLR 2022, arXiv 2110.07682, sections 4.1 to 4.3.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linprog
from torch import Tensor, nn

__all__ = ["DensePatch", "DensePatched", "LinearRegion", "dense_patch", "linear_region"]

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
_MOST_AHEAD = 100.0  # lower end of the output specification in the authors' experiments


@dataclass(frozen=True, eq=False)
class LinearRegion:
    """Where a network is affine around a point: ``weight x <= bias``, and there N(x) = slope x + offset.

    Args:
        weight: float64 [hidden neurons, n].
        bias: float64 [hidden neurons].
        slope: float64 [labels, n].
        offset: float64 [labels].

    """

    weight: Doubles
    bias: Doubles
    slope: Doubles
    offset: Doubles


@dataclass(frozen=True, eq=False)
class DensePatch:
    """A patch of one point.

    Args:
        region: of the point.
        slope: C, float64 [labels, n].
        offset: d, float64 [labels].
        gate: n of the support network.
        height: K.
        seconds: spent.

    """

    region: LinearRegion
    slope: Doubles
    offset: Doubles
    gate: float
    height: float
    seconds: float

    @property
    def parameters(self) -> int:
        """Numbers that the patch adds to the network: half-spaces and affine patch."""
        return self.region.weight.size + self.region.bias.size + self.slope.size + self.offset.size


def linear_region(network: nn.Sequential, row: Floats) -> LinearRegion:
    """The linear region of a row, by one product per layer.

    Args:
        network: ``Linear`` and ``ReLU`` layers in turn.
        row: float32 [n].

    Raises:
        TypeError: another kind of layer.

    """
    slope, offset = np.eye(len(row)), np.zeros(len(row))
    point, weights, biases = row.astype(np.float64), [], []
    for layer in network:
        if isinstance(layer, nn.Linear):
            weight, bias = (value.detach().numpy().astype(np.float64) for value in (layer.weight, layer.bias))
            slope, offset = weight @ slope, weight @ offset + bias
        elif isinstance(layer, nn.ReLU):
            on = slope @ point + offset > 0
            sign = np.where(on, -1.0, 1.0)  # on: -z <= 0; off: z <= 0
            weights.append(slope * sign[:, np.newaxis])
            biases.append(-offset * sign)
            slope, offset = slope * on[:, np.newaxis], offset * on
        else:
            text = f"expected Linear and ReLU layers, found {type(layer).__name__}"
            raise TypeError(text)
    return LinearRegion(np.concatenate(weights), np.concatenate(biases), slope, offset)


def _range(region: LinearRegion, objective: Doubles, box: tuple[float, float]) -> tuple[float, float]:
    """The least and greatest value of a linear function on the region within the box, by HiGHS."""
    ends = []
    for sign in (1.0, -1.0):
        found = linprog(sign * objective, A_ub=region.weight, b_ub=region.bias, bounds=box, method="highs")
        if found.status:
            text = f"linear program of a region: expected an optimum, HiGHS said: {found.message}"
            raise ValueError(text)
        ends.append(sign * float(found.fun))
    return ends[0], ends[1]


def _moved(least: float, most: float, margin: float) -> tuple[float, float]:
    """Factor and shift that bring [least, most] between the specification's ends."""
    factor = min(1.0, (_MOST_AHEAD - margin) / (most - least)) if most > least else 1.0
    if factor * least < -_MOST_AHEAD:
        return factor, -_MOST_AHEAD - factor * least
    return factor, min(0.0, -margin - factor * most)


def dense_patch(
    network: nn.Sequential,
    row: Floats,
    target: int,
    *,
    margin: float,
    gate: float = 0.5,
    box: tuple[float, float] = (0.0, 1.0),
) -> DensePatch:
    """A patch with which the network answers ``target`` on the whole linear region of a row.

    Args:
        network: ``Linear`` and ``ReLU`` layers in turn.
        row: float32 [n].
        target: the label that is to win there.
        margin: by which, in logits.
        gate: n of the support network; 0.5 in the authors' experiments on MNIST.
        box: of the inputs.

    Raises:
        TypeError: another kind of layer.
        ValueError: a program that HiGHS does not solve.

    """
    start = time.monotonic()
    region = linear_region(network, row)
    labels = len(region.offset)
    others = [label for label in range(labels) if label != target]
    basis = np.vstack([np.eye(labels)[others] - np.eye(labels)[target], np.ones(labels) / labels**0.5])
    factors, shifts = np.ones(labels), np.zeros(labels)
    for place in range(labels - 1):
        at = float(basis[place] @ region.offset)
        least, most = _range(region, basis[place] @ region.slope, box)
        factors[place], shifts[place] = _moved(least + at, most + at, margin)
    inverse = np.linalg.inv(basis)
    change = inverse @ np.diag(factors) @ basis - np.eye(labels)
    slope, offset = change @ region.slope, change @ region.offset + inverse @ shifts
    low, high = box
    rise, fall = np.clip(slope, 0, None), np.clip(slope, None, 0)
    reach = [rise @ np.full(len(row), a) + fall @ np.full(len(row), b) + offset for a, b in ((high, low), (low, high))]
    height = float(np.abs(np.array(reach)).max())
    return DensePatch(region, slope, offset, gate, height, time.monotonic() - start)


class DensePatched(nn.Module):
    """The patched network of several points, patches with their own supports; for measuring and for export to ONNX."""

    def __init__(self, network: nn.Sequential, patches: list[DensePatch]) -> None:
        """Keep the network and the patches as float32.

        Args:
            network: the base.
            patches: of one or more points; where supports meet, patches add up.

        """
        super().__init__()
        self.network = network
        for place, patch in enumerate(patches):
            for name, value in (
                ("weight", patch.region.weight),
                ("bias", patch.region.bias),
                ("slope", patch.slope),
                ("offset", patch.offset),
            ):
                self.register_buffer(f"{name}_{place}", torch.from_numpy(value.astype(np.float32)))
        self._ends = [(patch.gate, patch.height) for patch in patches]

    def forward(self, x: Tensor) -> Tensor:
        """Logits [rows, labels] of x [rows, *input_shape]."""
        logits: Tensor = self.network(x)
        for place, (gate, height) in enumerate(self._ends):
            weight, bias, slope, offset = (
                getattr(self, f"{name}_{place}") for name in ("weight", "bias", "slope", "offset")
            )
            inside = gate * (bias - x @ weight.T)
            steps = (torch.relu(inside + 1) - torch.relu(inside)).sum(dim=1, keepdim=True)
            lift = height * torch.relu(steps - len(bias) + 1) - height
            moved = x @ slope.T + offset
            logits = logits + torch.relu(moved + lift) - torch.relu(lift - moved)
        return logits
