"""Bounds of a learned patch P alone and of N + P on balls, differentiable in P: intervals (cheap) or CROWN (as proved).

The base does not change while P is trained, so that its own part of a margin is bounded once; an interval
bound of P's part added to it is a sound bound of the sum, looser than CROWN of the sum and many times cheaper.

Source: MATHS 4.3 and 5.2; interval bound propagation, arXiv 1810.12715; CROWN, arXiv 1811.00866, by auto_LiRPA
through :mod:`prune_verify.bounds`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import prod

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prune_verify.bounds.bounded import Bounded
from prune_verify.bounds.torch_network import TorchNetwork
from prune_verify.checker.network import Network, evaluate
from prune_verify.checker.patch import LearnedPatch

__all__ = ["Balls", "PatchBounds", "chain", "interval_changes", "interval_margins", "learned_patch", "runners_up"]

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

_ROWS_AT_ONCE = 2048
_NUMBERS_AT_ONCE = 2**26
_CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Balls:
    """Boxes from ``lower`` to ``upper``: balls cut to the domain; tensors [rows, *input_shape], in input units."""

    lower: Tensor
    upper: Tensor

    @classmethod
    def around(
        cls, x: Floats, radius: Fraction | float, domain: tuple[float, float], device: torch.device = _CPU
    ) -> Balls:
        """Balls of ``radius`` around rows ``x`` [rows, *input_shape], inside the ``domain``, on a device."""
        centre, reach = torch.from_numpy(np.array(x)).to(device), float(radius)
        return cls((centre - reach).clamp(min=domain[0]), (centre + reach).clamp(max=domain[1]))

    def __len__(self) -> int:
        return len(self.lower)

    def rows(self, chosen: Tensor | slice) -> Balls:
        """Those of the rows that are chosen [n]."""
        return Balls(self.lower[chosen], self.upper[chosen])


def chain(shape: tuple[int, ...], widths: list[int]) -> nn.Sequential:
    """A ReLU chain with layer widths of this shape, input and output included; the last layer has no bias."""
    parts: list[nn.Module] = [nn.Flatten()] if len(shape) != 1 else []
    for fan_in, fan_out in zip(widths[:-2], widths[1:-1], strict=True):
        parts += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(widths[-2], widths[-1], bias=False))


def learned_patch(patch: nn.Sequential, labels: int) -> LearnedPatch:
    """The parameters of a patch (a chain) for so many labels as the checker reads them; no bias is zeros."""
    layers = []
    for part in patch:
        if isinstance(part, nn.Linear):
            weight = part.weight.detach().cpu().numpy().copy()
            kept = part.state_dict().get("bias")
            bias = np.zeros(len(weight), dtype=np.float32) if kept is None else kept.cpu().numpy().copy()
            weight.setflags(write=False)
            bias.setflags(write=False)
            layers.append((weight, bias))
    return LearnedPatch(labels, tuple(layers))


def runners_up(base: Network, x: Floats, y: Labels, barred: Labels | None = None) -> Labels:
    """The best label at each record other than ``y`` and, where that leaves any, than those barred.

    Args:
        base: the network.
        x: float32 [rows, *input_shape].
        y: int64 [rows].
        barred: int64 [n] labels, or None.

    """
    logits = evaluate(base, x).astype(np.float64)
    if barred is not None and len(set(barred.tolist())) < base.labels:
        logits[:, barred] = -np.inf
    logits[np.arange(len(y)), y] = -np.inf
    targets: Labels = logits.argmax(axis=1).astype(np.int64)
    return targets


# --- intervals: P alone ---


def _hidden_ends(patch: nn.Sequential, balls: Balls, slope: float) -> tuple[Tensor, Tensor, Tensor]:
    """Lower and upper ends [rows, width] of what the last layer reads, and that layer's weight."""
    low, high = balls.lower, balls.upper
    for part in list(patch)[:-1]:
        if isinstance(part, nn.Linear):
            centre, spread = part((low + high) / 2), (high - low) / 2 @ part.weight.abs().T
            low, high = centre - spread, centre + spread
        elif isinstance(part, nn.ReLU):
            low, high = nn.functional.leaky_relu(low, slope), part(high)
        else:
            low, high = part(low), part(high)
    weight: Tensor = patch[-1].weight  # type: ignore[assignment] # a chain ends in a linear layer
    return low, high, weight


def interval_margins(patch: nn.Sequential, balls: Balls, labels: Tensor, targets: Tensor, slope: float = 0.0) -> Tensor:
    """Lower bounds [rows] of P_target - P_label, by intervals; the two rows of the last layer are one form.

    With a ``slope`` above 0 a negative lower end of a ReLU counts as that share of itself instead of 0: as sound,
    looser, and with a gradient where a gate is closed that should be open.

    Args:
        patch: the chain.
        labels: int64 [rows].
        targets: int64 [rows].
        slope: of ReLUs below 0, for gradients.
        balls: the boxes.

    """
    low, high, weight = _hidden_ends(patch, balls, slope)
    form = weight[targets] - weight[labels]
    return (form.clamp(min=0) * low + form.clamp(max=0) * high).sum(dim=1)


def interval_changes(patch: nn.Sequential, balls: Balls) -> Tensor:
    """Upper bounds [rows] of the largest |P_j| of a patch, by intervals."""
    low, high, weight = _hidden_ends(patch, balls, 0.0)
    up, down = weight.clamp(min=0).T, weight.clamp(max=0).T
    return torch.maximum(high @ up + low @ down, -(low @ up + high @ down)).amax(dim=1)


# --- CROWN ---


class _Sum(nn.Module):
    """N + P."""

    def __init__(self, base: nn.Module, patch: nn.Module) -> None:
        super().__init__()
        self.base, self.patch = base, patch

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.base(x) + self.patch(x)
        return logits


class PatchBounds:
    """The base, P and N + P under bounds.

    Methods take balls, and of each the label and the one that is to win, int64 [rows]: ``labels``, ``targets``.

    Args:
        base: the base network.
        patch: a chain from the base's input to its labels; its parameters stay shared.
        lowered: the labels whose logits P can only lower, where it moves no other; None where it may move all.
        device: where bounds are computed; the patch is moved there.

    Raises:
        BoundsError: the base cannot be bounded.

    """

    def __init__(
        self, base: Network, patch: nn.Sequential, lowered: Labels | None = None, device: torch.device = _CPU
    ) -> None:
        shape, where = base.input_shape, str(device)
        module = TorchNetwork(base).to(device)
        self.patch = patch.to(device)
        self.device = device
        self.module = module
        self._sum = Bounded(_Sum(module, patch), shape, trainable=True, device=where)
        self._patch = Bounded(patch, shape, trainable=True, device=where)
        self._base = Bounded(module, shape, device=where)
        self._eye = torch.eye(base.labels, device=device)
        self._moved = torch.cat([self._eye, -self._eye]) if lowered is None else self._eye[torch.from_numpy(lowered)]
        # The matrices that CROWN carries back have the sizes of two layers.
        widest = max(prod(node.shape) for node in base.nodes)
        self._sum_rows = max(1, min(_ROWS_AT_ONCE, _NUMBERS_AT_ONCE // widest**2))

    def _difference(self, labels: Labels, targets: Labels) -> Tensor:
        return (self._eye[torch.from_numpy(targets)] - self._eye[torch.from_numpy(labels)]).unsqueeze(1)

    def base_margins(self, balls: Balls, labels: Labels, targets: Labels) -> Tensor:
        """Lower bounds [rows] of N_target - N_label, without gradients."""
        rows = self._difference(labels, targets)

        def bound(part: slice) -> Tensor:
            some = balls.rows(part)
            return self._base.lower(rows[part], some.lower, some.upper, "crown").squeeze(1)

        return self._in_parts(len(balls), self._sum_rows, bound)

    def margins(self, balls: Balls, labels: Labels, targets: Labels) -> Tensor:
        """Lower bounds [rows] of N'_target - N'_label."""
        return self._sum.lower(self._difference(labels, targets), balls.lower, balls.upper, "crown").squeeze(1)

    def all_margins(self, balls: Balls, labels: Labels, targets: Labels) -> Tensor:
        """The same for any number of balls, without gradients."""

        def bound(part: slice) -> Tensor:
            return self.margins(balls.rows(part), labels[part], targets[part])

        return self._in_parts(len(balls), self._sum_rows, bound)

    def patch_margins(self, balls: Balls, labels: Labels, targets: Labels) -> Tensor:
        """Lower bounds [rows] of P_target - P_label."""
        return self._patch.lower(self._difference(labels, targets), balls.lower, balls.upper, "crown").squeeze(1)

    def changes(self, balls: Balls) -> Tensor:
        """Upper bounds [rows] of the largest |P_j|."""
        rows = self._moved.expand(len(balls), -1, -1)
        return (-self._patch.lower(rows, balls.lower, balls.upper, "crown")).amax(dim=1)

    def all_changes(self, balls: Balls) -> Tensor:
        """The same for any number of balls, without gradients."""
        return self._in_parts(len(balls), _ROWS_AT_ONCE, lambda part: self.changes(balls.rows(part)))

    def bands(self, balls: Balls, labels: Labels) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds [rows] of the margin N'_label - max of the others."""
        count = len(self._eye)
        others = torch.tensor([[j for j in range(count) if j != label] for label in labels.tolist()])
        rows = self._eye[torch.from_numpy(labels)].unsqueeze(1) - self._eye[others]
        ends = self._sum.lower(torch.cat([rows, -rows], dim=1), balls.lower, balls.upper, "crown")
        return ends[:, : count - 1].amin(dim=1), (-ends[:, count - 1 :]).amin(dim=1)

    def kept(self, balls: Balls, labels: Labels) -> Tensor:
        """Lower bounds [rows] of N'_label - max of the others, for any number of balls, without gradients."""

        def bound(part: slice) -> Tensor:
            return self.bands(balls.rows(part), labels[part])[0]

        return self._in_parts(len(balls), self._sum_rows, bound)

    @staticmethod
    def _in_parts(count: int, size: int, bound: Callable[[slice], Tensor]) -> Tensor:
        with torch.no_grad():
            return torch.cat([bound(slice(i, i + size)) for i in range(0, count, size)])
