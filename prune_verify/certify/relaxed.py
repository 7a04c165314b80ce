"""Linear relaxation in PyTorch, for finding proofs: batches of boxes, optimised slopes, multipliers of splits.

One walk back, as the checker's kernel does it, over any graph of linear operators and ReLUs. Everything found here is
a hint in floating point; whether a proof made from it holds is the checker's answer.

Source: CROWN (arXiv 1811.00866); alpha-CROWN (arXiv 2011.13824); beta-CROWN (arXiv 2103.06624); MATHS 5.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prune_verify.bounds.errors import BoundsError
from prune_verify.bounds.torch_network import TorchNetwork
from prune_verify.certify.errors import CertifyInputError
from prune_verify.checker.interval import Intervals
from prune_verify.checker.network import Network

__all__ = ["Bounds", "OneBox", "Relaxed", "Split", "Walked"]

Split = tuple[int, int, bool]  # Relu node, place, whether the case is <= 0
Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Ends = tuple[Tensor, Tensor]
_LEARNING_RATE, _DECAY = 0.1, 0.97
_CELLS = 2**23  # numbers of one batch of coefficients
_LEAN = 1 + 2.0**-10  # as the checker's rule crown has it
_LINEAR = (
    "Linear", "Conv", "BatchNorm", "Add", "Sub", "Mul", "Reshape", "Transpose", "Concat", "Gather", "AveragePool",
    "ReduceSum",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Walked:
    """What one walk back came to.

    Args:
        lower: [rows]: the bounds.
        costs: by ``Relu`` node: [rows, *shape]: what an unstable neuron's relaxation costs the bound.
        inputs: [rows, *input_shape]: the coefficients that meet the box, or None where the input is not reached.

    """

    lower: Tensor
    costs: dict[int, Tensor]
    inputs: Tensor | None


class Relaxed:
    """A network of linear operators and ReLUs, to be walked back.

    Args:
        network: to be bounded.
        dtype: of the walks.

    Raises:
        CertifyInputError: it has another operator that its output depends on.

    """

    def __init__(self, network: Network, dtype: torch.dtype = torch.float32) -> None:
        self.network, self.dtype = network, dtype
        try:
            self._module = TorchNetwork(network, dtype)
        except BoundsError as error:
            raise CertifyInputError(f"no optimised bounds: {error}") from error
        self._steps = self._module.steps()
        self._order = sorted((i for i in self._steps), reverse=True)
        for index in self._order:
            if network.nodes[index].op not in (*_LINEAR, "Relu"):
                text = f"no optimised bounds for {network.nodes[index].op}: linear operators and ReLUs are needed"
                raise CertifyInputError(text)
        self.relus = [i for i in reversed(self._order) if network.nodes[i].op == "Relu"]
        self._weights = {
            i: torch.tensor(node.arrays["weight"], dtype=dtype)
            for i, node in enumerate(network.nodes)
            if i in self._steps and node.op == "Linear" and len(node.shape) == 1 and "alpha" not in node.arrays
        }
        with torch.no_grad():
            self._offsets = {i: self._offset(i) for i in self._order if i not in self.relus}

    def tensor(self, array: npt.NDArray[np.floating]) -> Tensor:
        """Numbers of any shape in the type of the walks."""
        return torch.tensor(np.asarray(array), dtype=self.dtype)

    def _sources(self, index: int) -> list[int]:
        """The distinct inputs of a node that depend on the network's input."""
        found = dict.fromkeys(self.network.nodes[index].inputs)
        return [i for i in found if i == 0 or i in self._steps]

    def _offset(self, index: int) -> Tensor | None:
        zeros = {i: torch.zeros(1, *self.network.nodes[i].shape, dtype=self.dtype) for i in self._sources(index)}
        found = self._steps[index](zeros)
        return found if bool(found.any()) else None

    def _carried(self, index: int, coefficient: Tensor) -> Iterator[tuple[int, Tensor]]:
        """The coefficients of a linear node's inputs: the transposed operator, by automatic differentiation."""
        sources = self._sources(index)
        if index in self._weights:
            yield sources[0], coefficient @ self._weights[index]
            return
        rows = len(coefficient)
        with torch.enable_grad():
            values = {
                i: torch.zeros(rows, *self.network.nodes[i].shape, dtype=self.dtype, requires_grad=True)
                for i in sources
            }
            result = self._steps[index](values)
            found = torch.autograd.grad(
                [result], list(values.values()), [coefficient], create_graph=coefficient.requires_grad
            )
        yield from zip(sources, found, strict=True)

    def walk(
        self,
        start: int,
        coefficient: Tensor,
        box: Ends,
        before: Mapping[int, Ends],
        slopes: Mapping[int, Tensor] | None = None,
        shifts: Mapping[int, Tensor] | None = None,
        at: Tensor | None = None,
    ) -> Walked:
        """Lower-bound linear functions of a node's value.

        Args:
            start: the node.
            coefficient: [rows, *shape of the node].
            box: [boxes, *input_shape] each.
            before: by ``Relu`` node below: the enclosures of its input, [boxes, *shape] each.
            slopes: by ``Relu`` node: [rows, *shape] in [0, 1]; rule crown without.
            shifts: by ``Relu`` node: [rows, *shape], added to L.
            at: [rows]: over which box; None: row i over box i.

        """
        rows = len(coefficient)
        waiting, total, costs = {start: coefficient}, torch.zeros(rows, dtype=self.dtype), dict[int, Tensor]()

        def put(index: int, part: Tensor) -> None:
            waiting[index] = waiting[index] + part if index in waiting else part

        def wide(end: Tensor) -> Tensor:
            return end if at is None else end[at]

        for index in self._order:
            here = waiting.pop(index, None)
            if here is None:
                continue
            if index in self.relus:
                low, high = (wide(end) for end in before[index])
                shift = None if shifts is None else shifts.get(index)
                line, least = _relu(here, low, high, None if slopes is None else slopes[index], shift)
                total = total + least.flatten(1).sum(dim=1)
                costs[index] = torch.where((low < 0) & (high > 0), -least.detach(), 0 * least.detach())
                put(self.network.nodes[index].inputs[0], line)
                continue
            offset = self._offsets[index]
            if offset is not None:
                total = total + (here * offset).flatten(1).sum(dim=1)
            for source, part in self._carried(index, here):
                put(source, part)
        inputs = waiting.get(0)
        if inputs is not None:
            low, high = (wide(end) for end in box)
            total = total + torch.minimum(inputs * low, inputs * high).flatten(1).sum(dim=1)
        return Walked(total, costs, inputs)

    def enclose(self, box: Ends, within: Mapping[int, Ends] | None = None) -> dict[int, Ends]:
        """Enclose the inputs of all ReLUs over boxes by rule crown, in order.

        Args:
            box: [boxes, *input_shape] each.
            within: enclosures that hold already; only neurons that may be of either sign in one are tightened.

        """
        found = dict[int, Ends]()
        for relu in self.relus:
            source = self.network.nodes[relu].inputs[0]
            shape, boxes = self.network.nodes[source].shape, len(box[0])
            ends = [torch.full((boxes, prod(shape)), sign * float("inf"), dtype=self.dtype) for sign in (-1.0, 1.0)]
            if within is not None:
                ends = [end.flatten(1).clone() for end in within[relu]]
            linear = not self._interval(source, box, found, ends)
            rows, places = torch.nonzero(
                (ends[0] < ends[1]) if linear else (ends[0] < 0) & (ends[1] > 0), as_tuple=True
            )
            step = max(1, _CELLS // (2 * max(prod(n.shape) for n in self.network.nodes)))
            for row, place in zip(torch.split(rows, step), torch.split(places, step), strict=True):
                one = torch.zeros(len(row), prod(shape), dtype=self.dtype)
                one[torch.arange(len(row)), place] = 1.0
                both = torch.cat([one, -one]).reshape(-1, *shape)
                below, above = self.walk(source, both, box, found, at=torch.cat([row, row])).lower.chunk(2)
                ends[0][row, place] = torch.maximum(ends[0][row, place], below)
                ends[1][row, place] = torch.minimum(ends[1][row, place], -above)
            low, high = (end.reshape(boxes, *shape) for end in ends)
            found[relu] = low, torch.maximum(low, high)
        return found

    def _interval(self, source: int, box: Ends, before: Mapping[int, Ends], ends: list[Tensor]) -> bool:
        """Intersect with interval arithmetic over one layer: the checker does, and its slopes follow from it.

        Returns:
            Whether there is a ReLU below.

        """
        above, index = None, source
        while index not in self.relus and index:
            sources = self._sources(index)
            if index in self._weights and above is None:
                above = index
            elif self.network.nodes[index].op != "Reshape":
                return any(relu < source for relu in self.relus)
            index = sources[0]
        if above is None:
            return index in self.relus
        low, high = box if not index else tuple(end.clamp(min=0.0) for end in before[index])
        middle, radius = ((high + low) / 2).flatten(1), ((high - low) / 2).flatten(1)
        weight, offset = self._weights[above], self._offsets[above]
        center = middle @ weight.T + (0.0 if offset is None else offset)
        spread = radius @ weight.abs().T
        ends[0], ends[1] = torch.maximum(ends[0], center - spread), torch.minimum(ends[1], center + spread)
        return index in self.relus


def _relu(
    coefficient: Tensor, low: Tensor, high: Tensor, slope: Tensor | None, shift: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Rule relu: L, and what is paid for it."""
    unstable = (low < 0) & (high > 0)
    chord = high / torch.where(unstable, high - low, torch.ones_like(high))
    chosen = (high > -low * _LEAN).to(low.dtype) if slope is None else slope
    inner = torch.where(coefficient >= 0, chosen, chord)
    line = torch.where(unstable, coefficient * inner, torch.where(low >= 0, coefficient, 0 * coefficient))
    if shift is not None:
        line = line + shift
    below, above = (torch.where(end > 0, (coefficient - line) * end, -line * end) for end in (low, high))
    least = torch.minimum(below, above)
    return line, torch.where(unstable, torch.clamp(least, max=0.0), least)


@dataclass(frozen=True, eq=False)
class Bounds:
    """What was found for a batch of leaves.

    Args:
        lower: [leaves]: bounds as float32 has them.
        slopes: by ``Relu`` node: [leaves, n] in [0, 1].
        multipliers: by ``Relu`` node: [leaves, n], to be added to L.
        scores: by ``Relu`` node: [leaves, n]: what an unstable neuron's relaxation costs the bound.
        points: [leaves, *input_shape]: the inputs at which the relaxation is least.

    """

    lower: Singles
    slopes: dict[int, Singles]
    multipliers: dict[int, Singles]
    scores: dict[int, Singles]
    points: Singles


class OneBox:
    """A network on one box, with proved enclosures: leaves of split trees over the signs of its neurons.

    Args:
        relaxed: the network.
        intervals: enclosures.
        row: which of their rows.

    """

    def __init__(self, relaxed: Relaxed, intervals: Intervals, row: int = 0) -> None:
        self.relaxed, self.relus = relaxed, relaxed.relus

        def one(node: int) -> Ends:
            low, high = (end[min(row, len(end) - 1)][np.newaxis] for end in intervals.box(node))
            return relaxed.tensor(low), relaxed.tensor(high)

        self.box = one(0)
        self.before = {relu: one(relaxed.network.nodes[relu].inputs[0]) for relu in self.relus}

    def unstable(self, relu: int) -> npt.NDArray[np.int32]:
        """The places of a ``Relu`` whose sign is open."""
        low, high = (end.numpy().reshape(-1) for end in self.before[relu])
        return np.flatnonzero((low < 0) & (high > 0)).astype(np.int32)

    def _narrowed(self, splits: Sequence[Sequence[Split]]) -> tuple[dict[int, Ends], dict[int, Tensor]]:
        """Enclosures under the splits of each leaf, and on which side of a split a neuron is (1: <= 0; -1: >= 0)."""
        found, sides = dict[int, Ends](), dict[int, Tensor]()
        for relu in self.relus:
            shape = self.before[relu][0].shape[1:]
            low, high = (end.reshape(1, -1).repeat(len(splits), 1) for end in self.before[relu])
            side = torch.zeros_like(low)
            for row, listed in enumerate(splits):
                for node, place, below in listed:
                    if node == relu:
                        (high if below else low)[row, place].clamp_(*((None, 0.0) if below else (0.0, None)))
                        side[row, place] = 1.0 if below else -1.0  # x <= 0: L may grow; x >= 0: it may shrink
            found[relu] = low.reshape(-1, *shape), high.reshape(-1, *shape)
            sides[relu] = side.reshape(-1, *shape)
        return found, sides

    def bound(
        self,
        objectives: Floats,
        splits: Sequence[Sequence[Split]],
        iterations: int,
        start: dict[int, Singles] | None = None,
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
        before, sides = self._narrowed(splits)
        network, count = self.relaxed.network, len(splits)
        rows = self.relaxed.tensor(objectives).reshape(-1, *network.output_shape)
        box = self.box[0].expand(count, *network.input_shape), self.box[1].expand(count, *network.input_shape)
        slopes = {
            relu: (high > -low * _LEAN).to(low.dtype) if start is None else torch.tensor(start[relu]).reshape(low.shape)
            for relu, (low, high) in before.items()
        }
        sizes = {relu: torch.zeros_like(side) for relu, side in sides.items()}
        parameters = [*(() if fixed else slopes.values()), *sizes.values()]
        for parameter in parameters:
            parameter.requires_grad_(iterations > 0)
        best = _Best(count, slopes, sides, box)
        optimiser = torch.optim.Adam(parameters, lr=_LEARNING_RATE) if iterations and parameters else None
        for step in range(iterations + 1):
            shifts = {relu: sides[relu] * sizes[relu] for relu in self.relus}
            walked = self.relaxed.walk(network.output, rows, box, before, slopes, shifts)
            best.keep(walked, slopes, shifts)
            if optimiser is None or step == iterations:
                break
            optimiser.zero_grad()
            torch.autograd.backward([-walked.lower.sum()])
            optimiser.step()
            with torch.no_grad():
                for relu in self.relus:
                    slopes[relu].clamp_(0.0, 1.0)
                    sizes[relu].clamp_(min=0.0)
            for group in optimiser.param_groups:
                group["lr"] *= _DECAY
        return best.bounds()


class _Best:
    """The best step of each leaf so far."""

    def __init__(self, count: int, slopes: dict[int, Tensor], sides: dict[int, Tensor], box: Ends) -> None:
        self.box, self.points = box, box[0].clone()
        self.lower = torch.full((count,), -float("inf"), dtype=next(iter(sides.values())).dtype if sides else None)
        self.slopes = {relu: values.detach().clone() for relu, values in slopes.items()}
        self.shifts = {relu: torch.zeros_like(values) for relu, values in sides.items()}
        self.scores = {relu: torch.zeros_like(values) for relu, values in sides.items()}

    def keep(self, walked: Walked, slopes: dict[int, Tensor], shifts: dict[int, Tensor]) -> None:
        """Take over what is better."""
        lower = walked.lower.detach()
        better = lower > self.lower
        self.lower = torch.where(better, lower, self.lower)
        if walked.inputs is not None:
            points = torch.where(walked.inputs.detach() > 0, *self.box)
            self.points[better] = points[better]
        for kept, values in ((self.slopes, slopes), (self.shifts, shifts), (self.scores, walked.costs)):
            for relu, found in values.items():
                kept[relu][better] = found.detach()[better]

    def bounds(self) -> Bounds:
        """As arrays."""

        def flat(values: dict[int, Tensor]) -> dict[int, Singles]:
            return {relu: found.flatten(1).float().numpy() for relu, found in values.items()}

        lower, points = self.lower.float().numpy(), self.points.float().numpy()
        return Bounds(lower, flat(self.slopes), flat(self.shifts), flat(self.scores), points)
