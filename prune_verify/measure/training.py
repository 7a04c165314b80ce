"""Base networks to measure on: small classifiers trained with a seed and exported to ONNX bytes.

Not part of what is certified: the product takes any ONNX classifier. These are the networks of the demo and
the benchmarks.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prune_verify.measure.datasets import DataSet

__all__ = ["accuracy", "export_onnx", "passes", "small_cnn", "small_mlp", "train", "train_certified"]


def small_mlp(widths: Sequence[int]) -> nn.Sequential:
    """A ReLU multi-layer perceptron with the given layer widths, input and output included."""
    layers: list[nn.Module] = []
    for place, (fan_in, fan_out) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        layers += [nn.Linear(fan_in, fan_out)] + ([nn.ReLU()] if place < len(widths) - 2 else [])
    return nn.Sequential(*layers)


def small_cnn(labels: int = 10) -> nn.Sequential:
    """Two convolutions with stride 2 and two dense layers, from rows of shape 1 x 28 x 28 to so many labels."""
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


def passes(
    network: nn.Module,
    rows: tuple[Tensor, Tensor],
    *,
    epochs: int,
    batch: int,
    rate: float,
    weight_decay: float = 0.0,
    generator: torch.Generator | None = None,
    fused: bool = False,
) -> Iterator[int]:
    """Train in place with Adam and cross-entropy; after each pass over the rows its number, from 1.

    Args:
        network: in the mode in which it is to be trained.
        rows: values [rows, *input_shape] and labels [rows], where the network is.
        epochs: passes.
        batch: rows per step.
        rate: Adam's learning rate.
        weight_decay: its L2 penalty.
        generator: of the order of rows, on the CPU; the global one by default.
        fused: Adam in one kernel: about a quarter quicker on small networks, and other last bits.

    Returns:
        The number of each pass that is over.

    """
    x, y = rows
    optimiser = torch.optim.Adam(network.parameters(), lr=rate, weight_decay=weight_decay, fused=fused or None)
    for epoch in range(1, epochs + 1):
        for chosen in torch.split(torch.randperm(len(y), generator=generator), batch):
            place = chosen.to(y.device)
            optimiser.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(network(x[place]), y[place]).backward()  # type: ignore[no-untyped-call] # torch has no types here
            optimiser.step()
        yield epoch


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
    rows = torch.from_numpy(np.array(data.train_x)), torch.from_numpy(np.array(data.train_y))
    for _ in passes(network, rows, epochs=epochs, batch=batch, rate=rate):
        pass
    return network.eval()


def train_certified(
    network: nn.Sequential,
    rows: tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]],
    *,
    radius: float,
    epochs: int,
    seed: int,
    batch: int = 128,
    rate: float = 1e-3,
) -> nn.Sequential:
    """Train, or train on, an MLP on worst-case logits over balls as well, by interval bounds; radius and share grow.

    Args:
        network: ``Linear`` and ``ReLU`` layers in turn; changed in place.
        rows: float32 [rows, n] in [0, 1], and labels.
        radius: of the balls.
        epochs: passes.
        seed: of shuffling.
        batch: rows per step.
        rate: Adam's learning rate.

    Source: interval bound propagation, arXiv 1810.12715.

    """
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(network.parameters(), lr=rate)
    x, y = (torch.from_numpy(np.array(array)) for array in rows)
    steps, step = epochs * -(-len(y) // batch), 0
    for _ in range(epochs):
        for chosen in torch.split(torch.randperm(len(y), generator=generator), batch):
            step += 1
            share = min(1.0, 2 * step / steps)
            middle, labels = x[chosen], y[chosen]
            low, high = ((middle + sign * share * radius).clamp(0.0, 1.0) for sign in (-1.0, 1.0))
            for layer in network:
                if isinstance(layer, nn.Linear):
                    center, spread = layer((low + high) / 2), (high - low) / 2 @ layer.weight.abs().T
                    low, high = center - spread, center + spread
                else:
                    low, high = layer(low), layer(high)
            own = nn.functional.one_hot(labels, low.shape[1]).bool()
            worst = nn.functional.cross_entropy(torch.where(own, low, high), labels)
            loss = (1 - share / 2) * nn.functional.cross_entropy(network(middle), labels) + share / 2 * worst
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call] # torch has no types here
            optimiser.step()
    return network.eval()


def export_onnx(network: nn.Module, example: npt.NDArray[np.float32], opset: int = 17) -> bytes:
    """ONNX bytes with a symbolic batch axis, input ``x`` and output ``logits``.

    Args:
        network: in evaluation mode.
        example: float32 [rows, *input_shape]; the first row is used.
        opset: of the file.

    """
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
    """Share of the answers [rows] that are the labels [rows]."""
    return float(np.mean(answers == labels))
