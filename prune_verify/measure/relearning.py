"""How soon what was forgotten comes back: fine-tuning, prototypes, and taking the gates off.

An attacker holds the file and some records. Whether a network comes back sooner than one that never saw the forgotten
records is what counts: a genuine retrain relearns as well, and answers many of the records rightly before that.

- ``full``: every number of the network is trained on the attacker's records;
- ``head``: only the last linear layer of the network itself is, what gates do behind it stays;
- ``prototype``: no training: records go to the label with the nearest mean feature before that layer;
- ``strip``: the base is looked for inside the file, node for node, and read out where it ends.

Source: Ha, Park and Yoon, arXiv 2506.01318 (prototypical relearning), here with prototypes of all labels as Snell et
al., arXiv 1703.05175, have them; Hu et al., arXiv 2406.13356, and THREATS 3 (relearning by fine-tuning).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import t as student

from prune_verify.checker.identity import base_inside
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.network import Network, evaluate, live_nodes
from prune_verify.measure.architecture import TrainableNetwork, trainable
from prune_verify.measure.baselines import Rows
from prune_verify.measure.errors import MeasureInputError
from prune_verify.measure.training import passes

__all__ = ["Attack", "Relearner", "Run", "epochs_until", "head_of", "mean_interval", "stripped"]

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
_ROWS_AT_ONCE = 4096
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Attack:
    """How the attacker trains.

    Args:
        epochs: passes over the attacker's records.
        batch: records per step.
        rate: Adam's learning rate.
        retained: retained records that it trains on as well, so that the rest is not lost meanwhile.

    """

    epochs: int
    batch: int
    rate: float
    retained: int = 0


@dataclass(frozen=True, eq=False)
class Run:
    """One relearning.

    Args:
        watched: float64 [epochs + 1], share of the watched forgotten records answered with their label, from before
            the first epoch on; of prototypes the share before and after.
        test: accuracy on held-out records afterwards.

    """

    watched: Doubles
    test: float


def head_of(network: Network, like: Network | None = None) -> int:
    """The last linear layer that gives a logit for each label; with ``like``, the last that is as wide as its head.

    Raises:
        MeasureInputError: there is none.

    """
    live = live_nodes(network)
    found = [i for i in sorted(live) if network.nodes[i].op == "Linear" and network.nodes[i].shape == (network.labels,)]
    if like is not None:
        shape = like.nodes[head_of(like)].arrays["weight"].shape
        found = [i for i in found if network.nodes[i].arrays["weight"].shape == shape] or found
    if not found:
        text = f"head: expected a linear layer with {network.labels} outputs, found none"
        raise MeasureInputError(text)
    return found[-1]


def stripped(base: Network, patched: Network) -> Network | None:
    """The patched network read out where the base ends inside it, bit for bit the base; None where it is not there."""
    node = base_inside(base, patched)
    return None if node is None else replace(patched, output=node)


class Relearner:
    """A network that is relearned from the same start again and again.

    Args:
        onnx: the file's bytes.
        name: of the file, for errors.
        base: the base network, by whose head the network's own is told.

    Raises:
        CheckError: no network that the checker reads.
        UnsupportedNetworkError: a node that cannot be trained.
        MeasureInputError: no head.

    """

    def __init__(self, onnx: bytes, name: str, base: Network) -> None:
        self._network = load_network(onnx, name).network
        self._module: TrainableNetwork = trainable(onnx, name)
        self._start = {key: value.clone() for key, value in self._module.state_dict().items()}
        self._head = head_of(self._network, base)

    def _answers(self, x: Floats) -> Labels:
        with torch.no_grad():
            parts = [
                self._module(torch.from_numpy(np.array(x[start : start + _ROWS_AT_ONCE]))).argmax(dim=1).numpy()
                for start in range(0, len(x), _ROWS_AT_ONCE)
            ]
        return np.concatenate(parts).astype(np.int64)

    def _right(self, rows: Rows) -> float:
        return float((self._answers(rows.x) == rows.y).mean())

    def accuracy(self, rows: Rows) -> float:
        """The share of records that the network answers with their label before any relearning."""
        self._module.load_state_dict(self._start)
        self._module.eval()
        return self._right(rows)

    def fine_tuned(self, known: Rows, watched: Rows, test: Rows, attack: Attack, *, head: bool, seed: int) -> Run:
        """Train on what the attacker has, and watch what comes back.

        Args:
            known: the attacker's records.
            watched: forgotten records, watched after every epoch.
            test: held-out records, answered at the end.
            attack: how it trains.
            head: train the last linear layer only.
            seed: of the order of records.

        """
        self._module.load_state_dict(self._start)
        self._module.eval()  # normalisations keep their statistics: a few records would spoil them
        own = {f"weight_{self._head}", f"bias_{self._head}"}
        for name, parameter in self._module.named_parameters():
            parameter.requires_grad_(not head or name in own)
        found = [self._right(watched)]
        generator = torch.Generator().manual_seed(seed)
        own_rows, epochs, batch = known.tensors(), attack.epochs, attack.batch
        steps = passes(self._module, own_rows, epochs=epochs, batch=batch, rate=attack.rate, generator=generator)
        found.extend(self._right(watched) for _ in steps)
        return Run(np.array(found), self._right(test))

    def prototyped(self, known: Rows, others: Rows, watched: Rows, test: Rows) -> Run:
        """Answer with the label of the nearest mean feature.

        Args:
            known: the attacker's records of forgotten labels.
            others: records of other labels; those of forgotten labels are not used.
            watched: forgotten records.
            test: held-out records.

        """
        before = self.accuracy(watched)
        feature = replace(self._network, output=self._network.nodes[self._head].inputs[0])
        forgotten = set(known.y.tolist())
        keep = ~np.isin(others.y, sorted(forgotten))
        x, y = np.concatenate([known.x, others.x[keep]]), np.concatenate([known.y, others.y[keep]])
        found, labels = _features(feature, x), np.unique(y)
        means = np.stack([found[y == label].mean(axis=0) for label in labels])

        def right(rows: Rows) -> float:
            values = _features(feature, rows.x)
            far = (means**2).sum(axis=1) - 2 * values @ means.T
            return float((labels[far.argmin(axis=1)] == rows.y).mean())

        return Run(np.array([before, right(watched)]), right(test))


def _features(network: Network, x: Floats) -> Doubles:
    """What a network computes, as float64 [rows, numbers]."""
    parts = [evaluate(network, x[start : start + _ROWS_AT_ONCE]) for start in range(0, len(x), _ROWS_AT_ONCE)]
    return np.concatenate(parts).reshape(len(x), -1).astype(np.float64)


def epochs_until(watched: Doubles, target: float) -> int | None:
    """The first epoch, from 0, after which the share is no less than the target; None where it never is.

    Args:
        watched: float64 [epochs + 1].
        target: between 0 and 1.

    """
    reached = np.flatnonzero(watched >= target - 1e-12)
    return int(reached[0]) if len(reached) else None


def mean_interval(values: Sequence[float]) -> tuple[float, tuple[float, float] | None]:
    """The mean over seeds with Student's interval for 95 %; none for a single seed.

    Args:
        values: one per seed, at least one.

    """
    mean = float(np.mean(values))
    if len(values) < 2:  # noqa: PLR2004 - one value has no spread
        return mean, None
    half = float(student.ppf((1 + _CONFIDENCE) / 2, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return mean, (mean - half, mean + half)
