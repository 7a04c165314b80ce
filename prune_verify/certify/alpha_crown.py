"""Lower bounds of chains with optimised slopes and multipliers, in float32 with PyTorch: hints, never results.

One walk back per leaf, as the checker's kernel does it, with the slopes of unstable neurons and the multipliers of
split neurons as parameters; both are moved along the gradient of the bound. Networks of Linear over the last axis,
Relu, Reshape, and Add or Sub of a constant.

Source: alpha-CROWN (arXiv 2011.13824), beta-CROWN (arXiv 2103.06624); MATHS 5.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prune_verify.certify.errors import CertifyInputError
from prune_verify.checker.interval import Intervals
from prune_verify.checker.network import Network

__all__ = ["Bounds", "Chain", "Split"]

Split = tuple[int, int, bool]  # Relu node, place, whether the case is <= 0
Floats = npt.NDArray[np.float64]
_LEARNING_RATE, _DECAY = 0.1, 0.97


@dataclass(frozen=True, eq=False)
class Bounds:
    """What was found for a batch of leaves.

    Args:
        lower: [leaves]: bounds as float32 has them.
        slopes: by ``Relu`` node: [leaves, n] in [0, 1].
        multipliers: by ``Relu`` node: [leaves, n], to be added to L.
        scores: by ``Relu`` node: [leaves, n]: what an unstable neuron's relaxation costs the bound.

    """

    lower: npt.NDArray[np.float32]
    slopes: dict[int, npt.NDArray[np.float32]]
    multipliers: dict[int, npt.NDArray[np.float32]]
    scores: dict[int, npt.NDArray[np.float32]]


class Chain:
    """A chain with enclosures of its pre-activations on one box.

    Args:
        network: to be bounded.
        intervals: enclosures, one row.

    Raises:
        CertifyInputError: the network is no chain of the operators above.

    """

    def __init__(self, network: Network, intervals: Intervals) -> None:
        self.network = network
        self.relus = [i for i, node in enumerate(network.nodes) if node.op == "Relu"]
        self.weights: dict[int, Tensor] = {}
        self.biases: dict[int, Tensor] = {}
        self.order: list[int] = []
        index = network.output
        while index:
            self.order.append(index)
            index = self._add(index)
        self.box = tuple(torch.tensor(end.reshape(-1), dtype=torch.float32) for end in intervals.box(0))
        self.pre = {
            relu: tuple(
                torch.tensor(end.reshape(-1), dtype=torch.float32)
                for end in intervals.box(network.nodes[relu].inputs[0])
            )
            for relu in self.relus
        }

    def _add(self, index: int) -> int:
        """Take a node into the chain; its one input that is no constant."""
        node = self.network.nodes[index]
        constants = [i for i in node.inputs if self.network.nodes[i].op == "Constant"]
        others = [i for i in node.inputs if i not in constants]
        if (
            node.op == "Linear"
            and node.ints["axis"][0] == -1
            and "alpha" not in node.arrays
            and "beta" not in node.arrays
        ):
            self.weights[index] = torch.tensor(node.arrays["weight"])
            if "bias" in node.arrays:
                self.biases[index] = torch.tensor(node.arrays["bias"])
        elif node.op in ("Add", "Sub") and len(constants) == 1 and node.inputs[1] == constants[0]:
            value = torch.tensor(self.network.nodes[constants[0]].arrays["value"].reshape(-1))
            self.biases[index] = -value if node.op == "Sub" else value
        elif node.op not in ("Relu", "Reshape"):
            text = f"no optimised bounds for {node.op}: a chain of Linear, Relu, Reshape, Add and Sub is needed"
            raise CertifyInputError(text)
        if len(others) != 1:
            text = "no optimised bounds for networks that are not chains"
            raise CertifyInputError(text)
        return others[0]

    def _narrowed(self, splits: Sequence[Sequence[Split]]) -> dict[int, tuple[Tensor, Tensor]]:
        found = {relu: tuple(end.repeat(len(splits), 1) for end in self.pre[relu]) for relu in self.relus}
        for row, listed in enumerate(splits):
            for relu, place, below in listed:
                low, high = found[relu]
                if below:
                    high[row, place] = torch.clamp(high[row, place], max=0.0)
                else:
                    low[row, place] = torch.clamp(low[row, place], min=0.0)
        return {relu: (low, high) for relu, (low, high) in found.items()}

    def bound(
        self,
        objectives: Floats,
        splits: Sequence[Sequence[Split]],
        iterations: int,
        start: dict[int, npt.NDArray[np.float32]] | None = None,
        *,
        fixed: bool = False,
    ) -> Bounds:
        """Bound one objective per leaf, keeping for each leaf the best step.

        Args:
            objectives: [leaves, labels].
            splits: of each leaf.
            iterations: of the optimiser; 0: rule crown.
            start: slopes to begin with, by ``Relu`` node [leaves, n].
            fixed: leave them as they are and optimise the multipliers alone.

        """
        boxes, count = self._narrowed(splits), len(splits)
        rows = torch.tensor(objectives, dtype=torch.float32)
        sides = {relu: torch.zeros(count, len(self.pre[relu][0])) for relu in self.relus}
        for row, listed in enumerate(splits):
            for relu, place, below in listed:
                sides[relu][row, place] = 1.0 if below else -1.0  # x <= 0: L may grow; x >= 0: it may shrink
        slopes = {
            relu: (high > -low).float() if start is None else torch.tensor(start[relu])
            for relu, (low, high) in boxes.items()
        }
        sizes = {relu: torch.zeros_like(sides[relu]) for relu in self.relus}
        parameters = [*(() if fixed else slopes.values()), *sizes.values()]
        for parameter in parameters:
            parameter.requires_grad_(iterations > 0)
        best = torch.full((count,), -float("inf"))
        kept = {
            name: {r: v.detach().clone() for r, v in values.items()} for name, values in (("s", slopes), ("m", sizes))
        }
        scores = {relu: torch.zeros_like(sides[relu]) for relu in self.relus}
        optimiser = torch.optim.Adam(parameters, lr=_LEARNING_RATE) if iterations else None
        for step in range(iterations + 1):
            shifts = {relu: sides[relu] * sizes[relu] for relu in self.relus}
            lower, found = self._walk(rows, boxes, slopes, shifts)
            better = lower.detach() > best
            best = torch.where(better, lower.detach(), best)
            for relu in self.relus:
                for name, values in (("s", slopes), ("m", shifts)):
                    kept[name][relu][better] = values[relu].detach()[better]
                scores[relu][better] = found[relu][better]
            if optimiser is None or step == iterations:
                break
            optimiser.zero_grad()
            torch.autograd.backward([-lower.sum()])
            optimiser.step()
            with torch.no_grad():
                for relu in self.relus:
                    slopes[relu].clamp_(0.0, 1.0)
                    sizes[relu].clamp_(min=0.0)
            for group in optimiser.param_groups:
                group["lr"] *= _DECAY
        return Bounds(
            best.numpy(),
            {relu: values.numpy() for relu, values in kept["s"].items()},
            {relu: values.numpy() for relu, values in kept["m"].items()},
            {relu: values.numpy() for relu, values in scores.items()},
        )

    def _walk(
        self,
        rows: Tensor,
        boxes: dict[int, tuple[Tensor, Tensor]],
        slopes: dict[int, Tensor],
        shifts: dict[int, Tensor],
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """One walk back: bounds, and what each neuron's relaxation costs."""
        coefficient, total, costs = rows, torch.zeros(len(rows)), {}
        for index in self.order:
            if index in self.biases:
                total = total + coefficient @ self.biases[index]
            if index in self.weights:
                coefficient = coefficient @ self.weights[index]
            elif index in boxes:
                low, high = boxes[index]
                unstable = (low < 0) & (high > 0)
                chord = high / torch.where(unstable, high - low, torch.ones_like(high))
                inner = torch.where(coefficient >= 0, slopes[index], chord)
                line = torch.where(unstable, coefficient * inner, torch.where(low >= 0, coefficient, 0 * coefficient))
                line = line + shifts[index]
                below, above = (torch.where(end > 0, (coefficient - line) * end, -line * end) for end in (low, high))
                least = torch.minimum(below, above)
                least = torch.where(unstable, torch.clamp(least, max=0.0), least)
                total = total + least.sum(dim=1)
                costs[index] = torch.where(unstable, -least.detach(), 0 * least.detach())
                coefficient = line
        low, high = self.box
        total = total + torch.minimum(coefficient * low, coefficient * high).sum(dim=1)
        return total, costs
