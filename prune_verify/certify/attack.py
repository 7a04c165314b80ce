"""Search for points at which goals fail: projected gradient descent with restarts, from the middle, corners and chance.

A point found here is a float32 execution of the network that breaks a goal; whether it refutes the claim in
onnxruntime is decided in :mod:`prune_verify.certify.counterexamples`.

Source: PGD (arXiv 1706.06083); THREATS (attack first, so that false claims end fast).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prune_verify.bounds.bounded import one_thread
from prune_verify.bounds.errors import BoundsError
from prune_verify.bounds.torch_network import TorchNetwork
from prune_verify.checker.goals import Goals
from prune_verify.checker.network import Network, evaluate

__all__ = ["Attack", "gaps_at", "inner_box"]

Singles = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
_CELLS = 2**22


def inner_box(low: Floats, high: Floats) -> tuple[Singles, Singles]:
    """The greatest box of float32 numbers within one of float64 numbers [...]; empty where low exceeds high."""
    one, other = low.astype(np.float32), high.astype(np.float32)
    one = np.where(one < low, np.nextafter(one, np.float32(np.inf)), one)
    return one, np.where(other > high, np.nextafter(other, np.float32(-np.inf)), other)


def gaps_at(goals: Goals, records: Rows, x: Singles) -> Floats:
    """How far each clause holds at points x [records, *input_shape]: float32 [records, clauses]; below 0: it fails."""
    objectives, least = goals.constraint(records)
    logits = evaluate(goals.network, x).astype(np.float64)
    found: Floats = (np.einsum("rcal,rl->rca", objectives, logits) - least).max(axis=2)
    return found


@dataclass(frozen=True)
class Attack:
    """Projected gradient descent; the restarts of a record go for its clauses in turn, the nearest to failing first.

    Args:
        restarts: starting points of each record: the middle, then corners along the gradient, then chance.
        steps: of each.
        seed: of what is drawn.

    """

    restarts: int = 4
    steps: int = 20
    seed: int = 0

    def run(self, goals: Goals, records: Rows) -> dict[int, Singles]:
        """Points [*input_shape] of the boxes of these records at which some clause fails; none where none was found."""
        found: dict[int, Singles] = {}
        try:
            module = _module(goals.network)
        except BoundsError:
            return found
        each = goals.clauses * goals.atoms * goals.network.labels + max(prod(n.shape) for n in goals.network.nodes)
        step = max(1, _CELLS // (self.restarts * each))
        for start in range(0, len(records), step):
            part = records[start : start + step]
            with one_thread():
                points = self._descend(module, goals, part)
            for restart in range(points.shape[1]):
                gaps = gaps_at(goals, part, points[:, restart]).min(axis=1)
                for row in np.flatnonzero(gaps < 0).tolist():
                    found.setdefault(int(part[row]), points[row, restart])
        return found

    def _descend(self, module: TorchNetwork, goals: Goals, records: Rows) -> Singles:
        """The best point of each restart: [records, restarts, *input_shape]."""
        shape, count = goals.network.input_shape, len(records)
        low, high = (torch.from_numpy(end.reshape(count, 1, -1)) for end in inner_box(*goals.boxes(records)))
        objectives, least = (torch.from_numpy(np.array(a, dtype=np.float32)) for a in goals.constraint(records))
        generator = torch.Generator().manual_seed(self.seed)
        chance = torch.rand((count, self.restarts, low.shape[2]), generator=generator)
        chance[:, 0] = 0.5
        x = torch.maximum(torch.minimum(low + chance * (high - low), high), low)

        def gap(x: Tensor) -> Tensor:
            logits = module(x.reshape(-1, *shape)).reshape(count, self.restarts, -1)
            atoms = torch.einsum("rcal,rsl->rsca", objectives, logits) - least[:, None]
            clauses: Tensor = atoms.max(dim=3).values
            return clauses

        with torch.no_grad():
            ranks = gap(x)[:, 0].argsort(dim=1)  # at the middle; one restart goes for each clause in turn
            aims = ranks[:, torch.arange(self.restarts) % goals.clauses, None]
        best, kept = torch.full((count, self.restarts), float("inf")), x.clone()
        for step in range(self.steps + 1):
            x.requires_grad_()
            clauses = gap(x)
            aimed = clauses.gather(2, aims)
            (slope,) = torch.autograd.grad(aimed.sum(), x)
            with torch.no_grad():
                value = clauses.min(dim=2).values
                better = value < best
                best = torch.where(better, value, best)
                kept[better] = x[better]
                if step == self.steps or bool((best < 0).any(dim=1).all()):
                    break
                size = (high - low) * (1.0 if step == 0 else 0.25 * 0.01 ** (step / self.steps))
                x = torch.maximum(torch.minimum(x - size * slope.sign(), high), low)
        return kept.detach().numpy().reshape(count, self.restarts, *shape)


def _module(network: Network) -> TorchNetwork:
    module = TorchNetwork(network)
    for parameter in module.parameters():
        parameter.requires_grad_(False)  # noqa: FBT003 - PyTorch's own signature
    return module
