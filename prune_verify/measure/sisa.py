"""SISA: shards and slices, so that a request retrains only what was trained after the record came in.

Each record belongs to one shard, and within it to one slice; a shard is trained slice after slice, with a checkpoint
before each. A request retrains the shards concerned from the checkpoint before the first slice that held a forgotten
record. The shards' logits are averaged, which makes one network of them.

Source: Bourtoule et al., Machine Unlearning, arXiv 1912.03817.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prune_verify.measure.baselines import Rows, Unlearned

__all__ = ["Averaged", "SisaTraining", "train_sisa"]

Labels = npt.NDArray[np.int64]
State = dict[str, Tensor]
_BATCH = 128
_RATE = 1e-3


class Averaged(nn.Module):
    """The mean of several networks' logits."""

    def __init__(self, networks: list[nn.Module]) -> None:
        """Keep the networks; at least one."""
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [rows, labels] of x [rows, *input_shape]."""
        return torch.stack([network(x) for network in self.networks]).mean(dim=0)


@dataclass(frozen=True, eq=False)
class SisaTraining:
    """The shards after training.

    Args:
        make: builds an untrained network.
        rows: all records.
        slices: indices of the records of each slice of each shard.
        states: of each shard, before each slice and after the last.
        epochs: passes over what a shard has seen, for each slice.
        seed: of batches.
        seconds: of training.

    """

    make: Callable[[], nn.Module]
    rows: Rows
    slices: tuple[tuple[Labels, ...], ...]
    states: tuple[tuple[State, ...], ...]
    epochs: int
    seed: int
    seconds: float

    def network(self) -> nn.Module:
        """The mean of the shards."""
        return self._averaged([states[-1] for states in self.states])

    def _averaged(self, states: list[State]) -> nn.Module:
        networks = []
        for state in states:
            one = self.make()
            one.load_state_dict(state)
            networks.append(one)
        return Averaged(networks).eval()

    def unlearn(self, records: frozenset[int]) -> Unlearned:
        """Retrain the shards that hold one of the records, each from before the first slice concerned."""
        start, states, redone = time.monotonic(), [], 0
        gone = np.array(sorted(records), dtype=np.int64)
        for shard, slices in enumerate(self.slices):
            first = next((place for place, part in enumerate(slices) if np.isin(part, gone).any()), None)
            if first is None:
                states.append(self.states[shard][-1])
                continue
            redone += len(slices) - first
            kept = tuple(part[~np.isin(part, gone)] for part in slices)
            states.append(_trained(self, kept, shard, first, self.states[shard][first])[-1])
        network = self._averaged(states)
        every = sum(len(slices) for slices in self.slices)
        kept_bytes = sum(t.numel() * t.element_size() for s in self.states for state in s for t in state.values())
        note = f"{redone} of {every} slices trained again; {kept_bytes / 2**20:.1f} MiB kept since training"
        return Unlearned("SISA", network, time.monotonic() - start, note)


def _trained(run: SisaTraining, slices: tuple[Labels, ...], shard: int, first: int, state: State) -> tuple[State, ...]:
    """Train a shard from a state before one of its slices: the states after each slice, the first one before it."""
    network = run.make()
    network.load_state_dict(state)
    x, y = run.rows.tensors()
    states = [state]
    for place in range(first, len(slices)):
        seen = torch.from_numpy(np.concatenate(slices[: place + 1]))
        generator = torch.Generator().manual_seed(run.seed + 1000 * shard + place)
        optimiser = torch.optim.Adam(network.parameters(), lr=_RATE)
        for _ in range(run.epochs):
            for chosen in torch.split(seen[torch.randperm(len(seen), generator=generator)], _BATCH):
                optimiser.zero_grad(set_to_none=True)
                nn.functional.cross_entropy(network(x[chosen]), y[chosen]).backward()  # type: ignore[no-untyped-call] # torch
                optimiser.step()
        states.append(copy.deepcopy(network.state_dict()))
    return tuple(states)


def train_sisa(
    make: Callable[[], nn.Module], rows: Rows, *, shards: int, slices: int, epochs: int, seed: int
) -> SisaTraining:
    """Train shards slice after slice.

    Args:
        make: builds an untrained network.
        rows: all records.
        shards: how many networks.
        slices: of each shard.
        epochs: passes over what a shard has seen, for each slice.
        seed: of the split, the initialisation and the batches.

    Raises:
        ValueError: fewer records than slices in all.

    """
    if shards < 1 or slices < 1 or len(rows.y) < shards * slices:
        text = f"expected at least one record for each of {shards} x {slices} slices, found {len(rows.y)} records"
        raise ValueError(text)
    start = time.monotonic()
    order = np.random.default_rng(seed).permutation(len(rows.y)).astype(np.int64)
    parts = tuple(tuple(np.array_split(part, slices)) for part in np.array_split(order, shards))
    begun: list[State] = []
    with torch.random.fork_rng(devices=[]):
        for shard in range(shards):
            torch.manual_seed(seed + shard)
            begun.append(copy.deepcopy(make().state_dict()))
    empty = SisaTraining(make, rows, parts, tuple((state,) for state in begun), epochs, seed, 0.0)
    states = tuple(_trained(empty, part, shard, 0, begun[shard]) for shard, part in enumerate(parts))
    return SisaTraining(make, rows, parts, states, epochs, seed, time.monotonic() - start)
