"""Base networks to measure on: small classifiers trained with a seed and exported to ONNX bytes.

Not part of what is certified: the product takes any ONNX classifier. These are the networks of the demo and
the benchmarks.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from prune_verify.measure.datasets import DataSet

__all__ = ["accuracy", "export_onnx", "small_cnn", "small_mlp", "train"]


def small_mlp(widths: Sequence[int]) -> nn.Sequential:
    """A ReLU multi-layer perceptron with the given layer widths, input and output included."""
    layers: list[nn.Module] = []
    for place, (fan_in, fan_out) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        layers += [nn.Linear(fan_in, fan_out)] + ([nn.ReLU()] if place < len(widths) - 2 else [])
    return nn.Sequential(*layers)


def small_cnn(labels: int = 10) -> nn.Sequential:
    """Two convolutions with stride 2 and two dense layers, for rows of shape 1 x 28 x 28."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 7 * 7, 64),
        nn.ReLU(),
        nn.Linear(64, labels),
    )


def train(
    make: Callable[[], nn.Sequential], data: DataSet, *, epochs: int, seed: int, batch: int = 128, rate: float = 1e-3
) -> nn.Sequential:
    """A network trained with Adam and cross-entropy; the same seed gives the same weights on one machine.

    Args:
        make: builds the untrained network.
        data: rows are reshaped by the caller to what the network reads.
        epochs: passes over the training set.
        seed: of initialisation and shuffling.
        batch: rows per step.
        rate: Adam's learning rate.

    """
    torch.manual_seed(seed)
    network = make()
    optimiser = torch.optim.Adam(network.parameters(), lr=rate)
    x, y = torch.from_numpy(np.array(data.train_x)), torch.from_numpy(np.array(data.train_y))
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(y)), batch):
            optimiser.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(network(x[rows]), y[rows]).backward()  # type: ignore[no-untyped-call] # torch has no types here
            optimiser.step()
    return network.eval()


def export_onnx(network: nn.Module, example: npt.NDArray[np.float32], opset: int = 17) -> bytes:
    """ONNX bytes with a symbolic batch axis, input ``x`` and output ``logits``."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter announces its own successor
        torch.onnx.export(
            network,
            (torch.from_numpy(example[:1].copy()),),
            buffer,  # type: ignore[arg-type] # the annotation forgets what the documentation allows
            input_names=["x"],
            output_names=["logits"],
            dynamic_axes={"x": {0: "batch"}, "logits": {0: "batch"}},
            opset_version=opset,
            dynamo=False,
        )
    return buffer.getvalue()


def accuracy(answers: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> float:
    """Share of rows answered with their label."""
    return float(np.mean(answers == labels))
