"""Ways to forget by changing weights, for comparison: retraining, fine-tuning, gradient ascent, amnesiac unlearning.

None of them gives a proof about the records, and each is measured as it is: what it still answers on the forget set,
what it answers elsewhere, and seconds.

Source: Bourtoule et al., arXiv 1912.03817 (retraining as the reference); Graves et al., Amnesiac machine learning,
arXiv 2010.10981; gradient ascent as in Golatkar et al., arXiv 1911.04933, with a floor on retained accuracy.
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

from prune_verify.measure.training import passes

__all__ = ["AmnesiacTraining", "Rows", "Unlearned", "fine_tune", "gradient_ascent", "retrain", "train_amnesiac"]

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
_BATCH = 128
_RATE = 1e-3
_LOOK_EVERY = 5
_LOOKED_AT = 2000


@dataclass(frozen=True, eq=False)
class Rows:
    """Records: ``x`` float32 [rows, *input_shape], ``y`` int64 [rows]."""

    x: Floats
    y: Labels

    def tensors(self) -> tuple[Tensor, Tensor]:
        """The same for torch."""
        return torch.from_numpy(np.array(self.x)), torch.from_numpy(np.array(self.y))


@dataclass(frozen=True, eq=False)
class Unlearned:
    """A network after unlearning.

    Args:
        name: of the method.
        network: the result.
        seconds: of unlearning alone.
        note: what else has to be known, such as what had to be kept since training.

    """

    name: str
    network: nn.Module
    seconds: float
    note: str = ""


def _loss(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(network(x), y)


def _epochs(network: nn.Module, rows: Rows, epochs: int, seed: int, rate: float) -> None:
    """Adam on cross-entropy, in place."""
    generator = torch.Generator().manual_seed(seed)
    for _ in passes(network, rows.tensors(), epochs=epochs, batch=_BATCH, rate=rate, generator=generator):
        pass


def retrain(make: Callable[[], nn.Module], retain: Rows, *, epochs: int, seed: int) -> Unlearned:
    """A new network on the retained records: the reference for what forgetting by training means.

    Args:
        make: builds the untrained network.
        retain: all records but the forgotten ones.
        epochs: as the base was trained.
        seed: of initialisation and batches.

    """
    start = time.monotonic()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = make()
    _epochs(network, retain, epochs, seed, _RATE)
    return Unlearned("retrain", network.eval(), time.monotonic() - start)


def fine_tune(network: nn.Module, retain: Rows, *, epochs: int, seed: int, rate: float = _RATE) -> Unlearned:
    """The network trained on with the retained records only.

    Args:
        network: stays as it is.
        retain: the records.
        epochs: passes.
        seed: of shuffling.
        rate: of the optimiser's steps.

    """
    start, found = time.monotonic(), copy.deepcopy(network).train()
    _epochs(found, retain, epochs, seed, rate)
    return Unlearned("fine-tune", found.eval(), time.monotonic() - start)


def gradient_ascent(
    network: nn.Module,
    forget: Rows,
    retain: Rows,
    *,
    seed: int,
    floor: float = 0.02,
    most_steps: int = 500,
    rate: float = 1e-4,
) -> Unlearned:
    """Steps up the loss of the forget records and down that of the retained ones, until none is answered.

    Args:
        network: the base.
        forget: to be answered wrongly.
        retain: to be kept; a batch of them takes part in each step.
        seed: of batches.
        floor: most loss of accuracy on a sample of the retained records; training stops there.
        most_steps: and after so many steps.
        rate: Adam's learning rate.

    """
    start, found = time.monotonic(), copy.deepcopy(network).train()
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(found.parameters(), lr=rate)
    (x, y), (kept_x, kept_y) = forget.tensors(), retain.tensors()
    sample = torch.randperm(len(kept_y), generator=generator)[:_LOOKED_AT]
    before = _right(found, kept_x[sample], kept_y[sample])
    note = f"stopped after {most_steps} steps"
    for step in range(most_steps):
        rows = torch.randint(len(y), (min(_BATCH, len(y)),), generator=generator)
        others = torch.randint(len(kept_y), (_BATCH,), generator=generator)
        optimiser.zero_grad(set_to_none=True)
        loss = _loss(found, kept_x[others], kept_y[others]) - _loss(found, x[rows], y[rows])
        loss.backward()  # type: ignore[no-untyped-call] # torch has no types here
        optimiser.step()
        if step % _LOOK_EVERY == 0:
            if _right(found, kept_x[sample], kept_y[sample]) < before - floor:
                note = f"stopped after {step + 1} steps at the floor of retained accuracy"
                break
            if _right(found, x, y) == 0:
                note = f"no forget record answered after {step + 1} steps"
                break
    return Unlearned("gradient ascent", found.eval(), time.monotonic() - start, note)


def _right(network: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((network(x).argmax(dim=1) == y).float().mean())


@dataclass(frozen=True, eq=False)
class AmnesiacTraining:
    """A trained network and what every batch with a sensitive record changed.

    Args:
        network: after training.
        updates: per batch with sensitive records: their indices, and the change of every parameter.
        seconds: of training.

    """

    network: nn.Module
    updates: tuple[tuple[frozenset[int], dict[str, Tensor]], ...]
    seconds: float

    @property
    def stored_bytes(self) -> int:
        """What has to be kept for the day of a request."""
        return sum(t.numel() * t.element_size() for _, change in self.updates for t in change.values())

    def unlearn(self, records: frozenset[int]) -> Unlearned:
        """Subtract every update of a batch that held one of the records."""
        start, found = time.monotonic(), copy.deepcopy(self.network)
        state = found.state_dict()
        concerned = [change for held, change in self.updates if held & records]
        for change in concerned:
            for name, difference in change.items():
                state[name] -= difference
        found.load_state_dict(state)
        note = f"{len(concerned)} updates subtracted; {self.stored_bytes / 2**20:.1f} MiB kept since training"
        return Unlearned("amnesiac", found.eval(), time.monotonic() - start, note)


def train_amnesiac(
    make: Callable[[], nn.Module], rows: Rows, sensitive: frozenset[int], *, epochs: int, seed: int
) -> AmnesiacTraining:
    """Train, and keep the change of every batch that holds a sensitive record.

    Args:
        make: builds the untrained network.
        rows: all records.
        sensitive: indices of those that may have to be forgotten.
        epochs: passes.
        seed: of initialisation and batches.

    """
    start = time.monotonic()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = make()
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(network.parameters(), lr=_RATE)
    x, y = rows.tensors()
    updates = []
    for _ in range(epochs):
        for chosen in torch.split(torch.randperm(len(y), generator=generator), _BATCH):
            held = sensitive & frozenset(chosen.tolist())
            before = {name: value.clone() for name, value in network.state_dict().items()} if held else {}
            optimiser.zero_grad(set_to_none=True)
            _loss(network, x[chosen], y[chosen]).backward()  # type: ignore[no-untyped-call] # torch has no types here
            optimiser.step()
            if held:
                updates.append((held, {name: v - before[name] for name, v in network.state_dict().items()}))
    return AmnesiacTraining(network.eval(), tuple(updates), time.monotonic() - start)
