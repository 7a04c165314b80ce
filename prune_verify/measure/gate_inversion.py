"""What a gate that reads hidden activations says about its record: the input that would give the same gate.

The attacker has the base and knows how gates are made: the edges of a box are the ends of what the record's ball, and
the balls of its shifted copies, become at the site; the edges of a linear region are 0 for neurons that are off and a
known fraction of the least value for those that are on. So the search, from the label's mean, is not only for an input
at which the gate is open but for one whose own gate would have these edges, and which is likely for its label. How
strongly likelihood counts is rehearsed on public records of the label, for which the attacker can make gates.

Source: MATHS 4.1 (privacy of the patch itself), 4.2; model inversion, Fredrikson et al., CCS 2015.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prune_verify.bounds.bounded import one_thread
from prune_verify.bounds.torch_network import TorchNetwork
from prune_verify.checker.network import Network
from prune_verify.checker.patch import Gate
from prune_verify.checker.rebuild import site_nodes
from prune_verify.measure.population import Population

__all__ = ["Edges", "GateInverter", "Knowledge", "edges_of_gate"]

Doubles = npt.NDArray[np.float64]
_OFF = 2.0**-60  # greatest value of a neuron that is off, as enclosures in floating point say it
_LINEAR_REGION_EDGE = 2.0**-10  # of the least value of a neuron that is on, as repair.linear_region writes it
_WEIGHTS = (1.0, 1e-1, 1e-2, 1e-3, 1e-5)
_REHEARSALS = 6
_REHEARSED_GATES = 3
_STEPS = 80
_LAST_STEPS = 200
_RATE = 0.1
_PUBLIC = 1024  # records that say how much a value varies
_LEAST_SCALE = 1e-6
_LEAK = 0.01  # slope outside the domain, so that the search finds back
_ROWS = 32  # at once where slopes are computed


@dataclass(frozen=True)
class Knowledge:
    """What a holder of the patch knows besides it: the request and the certificate say it.

    Args:
        radius: of the forget balls, in input units; None: guessed from the widths of
            intervals at the input, and 0 at hidden sites.
        size: height and width of the pictures, where gates are about shifted copies.
        pixels: most shift of the copies.
        fill: what the border of a shifted copy shows.
        domain: the ends of every number.

    """

    radius: float | None = None
    size: tuple[int, int] | None = None
    pixels: int = 0
    fill: float = 0.0
    domain: tuple[float, float] = (0.0, 1.0)

    @property
    def copies(self) -> int:
        """Forget rows per record, the record itself first."""
        return 1 if self.size is None else (2 * self.pixels + 1) ** 2


@dataclass(frozen=True, eq=False)
class Edges:
    """The edges of gates on the same coordinates, as the attacker reads them: float64 [gates, coordinates] each.

    Args:
        low: least value over the copies' balls; NaN where the gate does not say.
        high: greatest value; NaN where the gate does not say; 0 or less: the neuron is off.
        cut: 1 where the missing low end of a box says that the least value is not above 0.

    """

    low: Doubles
    high: Doubles
    cut: Doubles


def edges_of_gate(gate: Gate, hidden: npt.NDArray[np.bool_], *, region: bool) -> Edges:
    """Read one gate.

    Args:
        gate: the gate.
        hidden: bool [coordinates of the site]: outputs of a ReLU.
        region: whether it is a gate of a linear region, whose lower edges are a fraction of the least values.

    """
    shares = [1 / _LINEAR_REGION_EDGE if region and hidden[i.coordinate] else 1.0 for i in gate.intervals]
    low = [np.nan if i.low is None else float(i.low) * share for i, share in zip(gate.intervals, shares, strict=True)]
    high = [np.nan if i.high is None else float(i.high) for i in gate.intervals]
    high = [0.0 if hidden[i.coordinate] and h < _OFF else h for i, h in zip(gate.intervals, high, strict=True)]
    cut = [float(i.low is None and i.high is not None and hidden[i.coordinate]) for i in gate.intervals]
    return Edges(np.array([low]), np.array([high]), np.array([cut]))


def _minimise(z: Tensor, loss: Callable[[], Tensor]) -> None:
    """Small steps first, which find the way past kinks, then a method that follows narrow valleys."""
    adam = torch.optim.Adam([z], lr=_RATE)
    last = torch.optim.LBFGS([z], max_iter=_LAST_STEPS, history_size=20, line_search_fn="strong_wolfe")

    def slope(optimiser: torch.optim.Optimizer) -> float:
        optimiser.zero_grad(set_to_none=True)
        value = loss()
        value.backward()  # type: ignore[no-untyped-call] # torch has no types here
        return float(value.detach())

    for _ in range(_STEPS):
        slope(adam)
        adam.step()
    last.step(lambda: slope(last))  # type: ignore[no-untyped-call] # torch has no types here


class GateInverter:
    """Reconstructs records from gates at the sites of one base.

    Args:
        base: the base network.
        sites: what the gates read.
        population: the public sample.
        knowledge: what else is known.
        region: whether the gates are of linear regions.
        seed: of the rehearsals.

    """

    def __init__(
        self,
        base: Network,
        sites: tuple[str, ...],
        population: Population,
        knowledge: Knowledge,
        *,
        region: bool,
        seed: int = 0,
    ) -> None:
        self._shape, self._knowledge = base.input_shape, knowledge
        self._population, self._region, self._seed = population, region, seed
        self._parts: list[TorchNetwork | None] = []
        flags: list[npt.NDArray[np.bool_]] = []
        for index in site_nodes(base, sites):
            node = base.nodes[index]
            before = node.inputs[0] if node.op == "Relu" else index
            self._parts.append(
                TorchNetwork(Network(base.nodes[: before + 1], before), torch.float64) if before else None
            )
            flags.append(np.full(prod(node.shape), node.op == "Relu"))
        self.hidden: npt.NDArray[np.bool_] = np.concatenate(flags)
        self._priors: dict[int, tuple[Tensor, Tensor]] = {}
        self._scale = torch.ones(len(self.hidden), dtype=torch.float64)
        everything = torch.arange(len(self.hidden))
        with torch.no_grad():
            public = torch.from_numpy(population.x[:_PUBLIC])
            self._scale = self._values(public, everything).std(dim=0).clamp_min(_LEAST_SCALE)
        self._weight, self._radius = _WEIGHTS[-1], knowledge.radius or 0.0

    def _prior(self, label: int) -> tuple[Tensor, Tensor]:
        if label not in self._priors:
            prior = self._population.prior(label)
            self._priors[label] = torch.from_numpy(prior.mean), torch.from_numpy(prior.directions)
        return self._priors[label]

    def _values(self, x: Tensor, coordinates: Tensor) -> Tensor:
        """What stands before the ReLUs of the sites: [rows, coordinates]."""
        rows = x.reshape(len(x), *self._shape)
        parts = [rows.flatten(1) if part is None else part(rows).flatten(1) for part in self._parts]
        return torch.cat(parts, dim=1)[:, coordinates]

    def _copies(self, x: Tensor, chosen: tuple[int, ...]) -> Tensor:
        """Some of the shifted copies of flat rows, all by default: [rows, copies, n]; ordered as in repair.copies."""
        known = self._knowledge
        if known.size is None or known.pixels == 0:
            return x[:, None]
        (height, width), pixels = known.size, known.pixels
        pictures = x.reshape(len(x), -1, height, width)
        padded = torch.nn.functional.pad(pictures, (pixels,) * 4, value=known.fill)
        reach = range(-pixels, pixels + 1)
        steps = sorted(((down, right) for down in reach for right in reach), key=lambda s: (abs(s[0]) + abs(s[1]), s))
        corners = [(pixels - steps[i][0], pixels - steps[i][1]) for i in chosen or range(len(steps))]
        moved = [padded[:, :, top : top + height, left : left + width].flatten(1) for top, left in corners]
        return torch.stack(moved, dim=1)

    def _ends(
        self, x: Tensor, coordinates: Tensor, slopes: Tensor, chosen: tuple[int, ...] = ()
    ) -> tuple[Tensor, Tensor]:
        """Least and greatest values over the balls of the copies, before the ReLU: [rows, coordinates] each."""
        copies = self._copies(x, chosen)
        values = self._values(copies.flatten(0, 1), coordinates).reshape(len(x), copies.shape[1], -1)
        first, last = self._population.domain  # balls are cut to it
        down, up = (room.clamp(0.0, self._radius) for room in (copies - first, last - copies))
        least = values - down @ slopes.relu().T - up @ (-slopes).relu().T
        greatest = values + up @ slopes.relu().T + down @ (-slopes).relu().T
        return least.amin(dim=1), greatest.amax(dim=1)

    def _slopes(self, label: int, coordinates: Tensor) -> Tensor:
        """By how much each value moves with each input, at the label's mean (behind one layer everywhere): [., n]."""
        slopes = []
        for start in range(0, len(coordinates), _ROWS):
            part = coordinates[start : start + _ROWS]
            x = self._prior(label)[0].expand(len(part), -1).clone().requires_grad_()
            chosen = self._values(x, part).diagonal().sum()
            (slope,) = torch.autograd.grad(chosen, x)
            slopes.append(slope)
        return torch.cat(slopes)

    def _own_edges(self, x: Tensor, coordinates: Tensor, slopes: Tensor) -> Edges:
        """The edges that gates of these records would have."""
        with torch.no_grad():
            low, high = (end.numpy() for end in self._ends(x, coordinates, slopes))
        hidden = self.hidden[coordinates.numpy()]
        inside = self._population.domain
        dark, bright = low <= inside[0], high >= inside[1]
        if self._region:  # beside the signs, numbers of the input that keep out records with the same signs
            on = low > 0
            ends = np.where(hidden, np.where(on, np.nan, 0.0), np.where(bright, np.nan, high))
            return Edges(np.where(np.where(hidden, on, ~dark), low, np.nan), ends, np.zeros(low.shape))
        low = np.where(np.where(hidden, low <= 0, dark), np.nan, low)
        high = np.where(~hidden & bright, np.nan, np.where(hidden, np.maximum(high, 0), high))
        return Edges(low, high, (hidden & np.isnan(low)).astype(np.float64))

    def _searched(
        self,
        label: int,
        edges: Edges,
        coordinates: Tensor,
        slopes: Tensor,
        weight: float,
        copies: tuple[int, ...] = (),
    ) -> Doubles:
        """The likeliest records with such gates: [gates, n]; with infinite weight the label's mean."""
        low, high, cut = (torch.from_numpy(part) for part in (edges.low, edges.high, edges.cut))
        (mean, directions), scale = self._prior(label), self._scale[coordinates]
        has_low, off, has_high = ~low.isnan(), high <= 0, high > 0
        first, last = self._population.domain
        z = torch.zeros((len(low), directions.shape[1]), dtype=torch.float64, requires_grad=True)

        def record() -> Tensor:
            x = mean + z @ directions.T
            inside = x.clamp(first, last)
            return inside + _LEAK * (x - inside)

        def loss() -> Tensor:
            least, greatest = self._ends(record(), coordinates, slopes, copies)
            below = torch.where(has_low, least - low, cut * least.relu()) / scale
            above = torch.where(has_high, greatest - high, off * greatest.relu()) / scale
            return below.square().sum() + above.square().sum() + weight * z.square().sum()

        if weight < float("inf"):
            _minimise(z, loss)
        with torch.no_grad():
            return np.asarray(record().clamp(first, last).numpy())

    def rehearse(self, gates: Sequence[Gate]) -> None:
        """Choose the weight of likelihood with which public records are found best from gates of their own.

        Args:
            gates: of the patch; the coordinates of the first of each label, for a few labels, are used.

        """
        weights = (float("inf"), *_WEIGHTS)
        errors = np.zeros(len(weights))
        first = {gate.label: gate for gate in reversed(gates)}
        with one_thread():
            for gate in list(first.values())[:_REHEARSED_GATES]:
                own = self._population.of_label(gate.label)
                own = own[np.random.default_rng(self._seed).permutation(len(own))[:_REHEARSALS]]
                coordinates = torch.tensor([i.coordinate for i in gate.intervals])
                slopes = self._slopes(gate.label, coordinates)
                edges = self._own_edges(torch.from_numpy(own), coordinates, slopes)
                for place, weight in enumerate(weights):
                    found = self._searched(gate.label, edges, coordinates, slopes, weight)
                    errors[place] += float(np.square(found - own).mean())
        self._weight = weights[int(np.argmin(errors))]

    def guess(self, gate: Gate, copies: tuple[int, ...] = ()) -> Doubles:
        """The record that a gate was made for, as far as the search gets: float64 [n], in the domain.

        Args:
            gate: of this patch.
            copies: which of the record's shifted copies the gate is for, in the order of repair.copies; all by default.

        """
        coordinates = torch.tensor([i.coordinate for i in gate.intervals])
        edges = edges_of_gate(gate, self.hidden, region=self._region)
        with one_thread():
            slopes = self._slopes(gate.label, coordinates)
            return np.asarray(self._searched(gate.label, edges, coordinates, slopes, self._weight, copies)[0])
