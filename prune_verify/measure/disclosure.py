"""What a holder of ``patch.json`` can see of the forgotten records: reconstruction attacks, beside guesses without it.

The attacker knows base, patch, labels, and a public sample of the population. Gates at the input name coordinates and
intervals: stored coordinates are taken from them, the others are what a ridge regression on the sample says, given
these. Gates behind ReLUs are opened by gradient: from the label's mean to the nearest input that violates no
literal. Of a learned patch the input is sought at which it lowers the label most. A guess without the patch is the
label's mean, or a random record of the label. Measured, never proved: another attack may be better.

Source: MATHS 4.1 (disclosure budget); THREATS (reconstruction from the patch); model inversion, Fredrikson et al. 2015.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prune_verify.bounds.torch_network import TorchNetwork
from prune_verify.checker.claim import LabelledRows
from prune_verify.checker.network import Network, Node
from prune_verify.checker.patch import INPUT, Gate, JointPatch, LearnedPatch, Patch, ShiftPatch
from prune_verify.checker.patch_json import disclosed
from prune_verify.checker.rebuild import coordinates_of, site_nodes

__all__ = ["Disclosure", "disclosure", "reconstructed"]

Doubles = npt.NDArray[np.float64]
_STEPS = 300
_RATE = 0.02
_RIDGE = 1e-2
_PULL = 1e-3
_STARTS = 4
_LEAK = 0.1  # closed gates have no gradient; the attack looks through them
_RESAMPLES = 2000


@dataclass(frozen=True)
class Disclosure:
    """Errors of reconstructions, root mean square over the numbers of a record, in input units.

    Args:
        family: of the patch.
        bits: that the patch holds.
        records: that were reconstructed.
        attack: error of the attack, mean over the records.
        mean: error of the label's mean.
        random: error of a random record of the label.
        advantage: 95 % bootstrap interval of (mean - attack) / mean: 0 and below, the patch tells nothing.

    """

    family: str
    bits: int
    records: int
    attack: float
    mean: float
    random: float
    advantage: tuple[float, float]


def _site_network(base: Network, sites: tuple[str, ...]) -> Network:
    """From the input to the values that gates read, one after the other."""
    indices = site_nodes(base, sites)
    nodes, flat = list(base.nodes[: max(indices) + 1]), []
    for index in indices:
        size = prod(base.nodes[index].shape)
        nodes.append(Node("Reshape", (index,), (size,)))
        flat.append(len(nodes) - 1)
    if len(flat) > 1:
        size = sum(nodes[i].shape[0] for i in flat)
        nodes.append(Node("Concat", tuple(flat), (size,), {"axis": (0,)}))
    return Network(tuple(nodes), len(nodes) - 1)


def _regressed(gate: Gate, public: Doubles, mean: Doubles) -> Doubles:
    """Stored coordinates from their intervals, the others by ridge regression on them."""
    found, where = mean.copy(), [i.coordinate for i in gate.intervals]
    spread = public[:, where]
    for place, interval in enumerate(gate.intervals):
        low = -np.inf if interval.low is None else float(interval.low)
        high = np.inf if interval.high is None else float(interval.high)
        inside = spread[(spread[:, place] >= low) & (spread[:, place] <= high), place]
        if np.isfinite(low) and np.isfinite(high):
            found[where[place]] = (low + high) / 2
        else:
            found[where[place]] = inside.mean() if len(inside) else (low if np.isfinite(low) else high)
    centred, all_centred = spread - mean[where], public - mean
    gram = centred.T @ centred + _RIDGE * len(public) * np.eye(len(where))
    slopes = np.linalg.solve(gram, centred.T @ all_centred)
    guess = mean + (found[where] - mean[where]) @ slopes
    guess[where] = found[where]
    return guess


def _ascended(start: Doubles, ends: tuple[Doubles, Doubles], loss: Callable[[Tensor], Tensor]) -> Doubles:
    """Gradient descent on a loss from a start, held in the domain."""
    low, high = (torch.from_numpy(end.astype(np.float32)) for end in ends)
    origin = torch.from_numpy(start.astype(np.float32))
    x = origin.clone().requires_grad_()
    optimiser = torch.optim.Adam([x], lr=_RATE * float((high - low).mean()))
    for _ in range(_STEPS):
        optimiser.zero_grad()
        (loss(x) + _PULL * ((x - origin) ** 2).sum()).backward()  # type: ignore[no-untyped-call] # torch has no types here
        optimiser.step()
        with torch.no_grad():
            x.copy_(torch.minimum(torch.maximum(x, low), high))
    return x.detach().numpy().astype(np.float64)


def _opening(network: TorchNetwork, gate: Gate, shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    """The violation of a gate as a function of the input, scaled by each literal's size."""
    where = torch.tensor([i.coordinate for i in gate.intervals])
    low = torch.tensor([-torch.inf if i.low is None else float(i.low) for i in gate.intervals])
    high = torch.tensor([torch.inf if i.high is None else float(i.high) for i in gate.intervals])

    def loss(x: Tensor) -> Tensor:
        values = network(x.reshape(1, *shape))[0][where]
        above, below = (values - high).clamp(min=0), (low - values).clamp(min=0)
        total: Tensor = (above + below).sum() + (above**2 + below**2).sum()
        return total

    return loss


def reconstructed(
    base: Network, patch: Patch, records: LabelledRows, public: LabelledRows, seed: int = 0
) -> Iterator[tuple[int, Doubles]]:
    """The attack's guess of each record that a patch is for.

    Args:
        base: the base network.
        patch: its parameters.
        records: the forgotten records; only their number and labels are used.
        public: a sample of the population, with records of each label.
        seed: of the starts against learned patches.

    Yields:
        Index of a record and float64 [n].

    """
    rows, shape = public.flat().astype(np.float64), base.input_shape
    ends = rows.min(axis=0), rows.max(axis=0)
    means = {int(label): rows[public.y == label].mean(axis=0) for label in np.unique(records.y)}
    if isinstance(patch, LearnedPatch):
        yield from _of_learned(patch, records, public, seed)
        return
    at_input = isinstance(patch, JointPatch) and patch.sites == (INPUT,)
    network = None if at_input else TorchNetwork(_site_network(base, patch.sites))
    for gate in patch.gates:
        mean = means[gate.label]
        if network is None:
            guess = np.clip(_regressed(gate, rows[public.y == gate.label], mean), *ends)
        else:
            guess = _ascended(mean, ends, _opening(network, gate, shape))
        for record in gate.records:
            yield record, guess


def _of_learned(
    patch: LearnedPatch, records: LabelledRows, public: LabelledRows, seed: int
) -> Iterator[tuple[int, Doubles]]:
    """The input at which the patch lowers a label most, of several starts; the same for all records of a label."""
    rows = public.flat().astype(np.float64)
    layers = [tuple(torch.from_numpy(np.array(one)) for one in layer) for layer in patch.layers]
    ends, rng = (rows.min(axis=0), rows.max(axis=0)), np.random.default_rng(seed)
    for label in np.unique(records.y):
        own = rows[public.y == label]
        starts = [own.mean(axis=0), *own[rng.permutation(len(own))[: _STARTS - 1]]]

        def pushed(x: Tensor, label: int = int(label)) -> Tensor:
            value = x
            for place, (weight, bias) in enumerate(layers):
                value = weight @ (value if place == 0 else torch.nn.functional.leaky_relu(value, _LEAK)) + bias
            return value[label]

        found = [_ascended(start, ends, pushed) for start in starts]
        with torch.no_grad():
            lowest = [float(pushed(torch.from_numpy(guess.astype(np.float32)))) for guess in found]
        for record in np.flatnonzero(records.y == label):
            yield int(record), found[int(np.argmin(lowest))]


def disclosure(
    base: Network, patch: Patch, records: LabelledRows, public: LabelledRows, seed: int = 0
) -> Disclosure | None:
    """What a patch tells of its records, beside what the population tells.

    Args:
        base: the base network.
        patch: its parameters.
        records: the forgotten records.
        public: a sample of the population without them, with at least two records of each label.
        seed: of random guesses and resamples.

    Returns:
        None for a patch that is for no record (family ``class-cap``).

    Raises:
        ValueError: a label without public records.

    """
    missing = [int(v) for v in np.unique(records.y) if (public.y == v).sum() < 2]  # noqa: PLR2004 - a mean and a spread
    if missing:
        text = f"public sample: expected two or more records of every forgotten label, found fewer of {missing}"
        raise ValueError(text)
    guesses = dict(reconstructed(base, patch, records, public, seed))
    if not guesses:
        return None
    rng, rows = np.random.default_rng(seed), public.flat().astype(np.float64)
    errors = []
    for record, guess in guesses.items():
        truth = records.flat()[record].astype(np.float64)
        own = rows[public.y == records.y[record]]
        tried = guess, own.mean(axis=0), own[rng.integers(len(own))]
        errors.append([float(np.sqrt(((one - truth) ** 2).mean())) for one in tried])
    table = np.array(errors)
    resampled = table[rng.integers(len(table), size=(_RESAMPLES, len(table)))].mean(axis=1)
    shares = 1 - resampled[:, 0] / resampled[:, 1]
    attack, mean, random = (float(v) for v in table.mean(axis=0))
    low, high = (float(v) for v in np.quantile(shares, [0.025, 0.975]))
    bits = disclosed(patch, coordinates_of(base, patch))[1]
    family = (
        patch.family if not isinstance(patch, JointPatch | ShiftPatch) else f"{patch.family} at {'+'.join(patch.sites)}"
    )
    return Disclosure(family, bits, len(table), attack, mean, random, (low, high))
