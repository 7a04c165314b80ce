"""For how many epochs shadow networks have to be trained so that they fit their records as closely as the base does.

A shadow that fits less than the base hides members, one that fits more invents them; so one network is trained on the
base's own records until it answers as many of them rightly and its loss on them is as low.

Source: Carlini et al., arXiv 2112.03570, section 6 (shadow models that overfit as the target does).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import logsumexp

from prune_verify.certify.jobs import Job, Result, content_key, run_jobs
from prune_verify.measure.baselines import Rows
from prune_verify.measure.shadow_training import Recipe, epochs_of, logits_of, one_thread

__all__ = ["Fit", "Matched", "fit_of", "match_epochs"]

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
_FORMAT = b"prune-verify epochs 1"
_FOUND = struct.Struct("<Qdd")


@dataclass(frozen=True)
class Fit:
    """How closely a network fits records.

    Args:
        accuracy: share that it answers with their label.
        loss: mean cross-entropy, in nats.

    """

    accuracy: float
    loss: float

    def reaches(self, goal: Fit) -> bool:
        """Whether it is as close as the goal."""
        return self.accuracy >= goal.accuracy and self.loss <= goal.loss


@dataclass(frozen=True)
class Matched:
    """What was found.

    Args:
        recipe: with the epochs to train for.
        fit: of the network after them.
        goal: the base's.

    """

    recipe: Recipe
    fit: Fit
    goal: Fit

    def text(self) -> str:
        """For a person."""
        words = [f"{100 * f.accuracy:.2f} % right, loss {f.loss:.3g}" for f in (self.fit, self.goal)]
        reached = "" if self.fit.reaches(self.goal) else "; the base fits more closely than that many epochs reach"
        return f"{self.recipe.epochs} epochs: {words[0]} on its own records (the base: {words[1]}){reached}"


def fit_of(logits: Floats, labels: Labels) -> Fit:
    """How closely logits fit labels.

    Args:
        logits: float32 [records, labels].
        labels: int64 [records].

    """
    wide = logits.astype(np.float64)
    own = wide[np.arange(len(labels)), labels]
    return Fit(float((wide.argmax(axis=1) == labels).mean()), float((logsumexp(wide, axis=1) - own).mean()))


def match_epochs(
    most: Recipe,
    rows: Rows,
    goal: Fit,
    seed: int,
    *,
    cache: Path | None = None,
    progress: Callable[[str, int, int], None] = lambda _name, _done, _total: None,
) -> Matched:
    """Train one network until it fits its records as closely as the base does.

    Args:
        most: the recipe, with the most epochs that are tried.
        rows: the base's training set.
        goal: how closely the base fits it.
        seed: of the network.
        cache: folder of what was found, by content.
        progress: called with the number of epochs.

    Raises:
        CertifyError: the cache cannot be written.

    """

    def look(_: object) -> Result:
        found, epoch = Fit(0.0, np.inf), 0
        with one_thread():
            for epoch, (network, own) in enumerate(epochs_of(most, rows, np.ones(len(rows.y), np.bool_), seed), 1):
                progress("epochs that the base took", epoch, most.epochs)
                found = fit_of(logits_of(network.eval(), own.x), own.y)
                network.train()
                if found.reaches(goal):
                    break
        progress("epochs that the base took", most.epochs, most.epochs)
        return Result(_FOUND.pack(epoch, found.accuracy, found.loss), final=True)

    digests = [hashlib.sha256(np.ascontiguousarray(array).tobytes()).digest() for array in (rows.x, rows.y)]
    numbers = struct.pack("<qdd", seed, goal.accuracy, goal.loss)
    key = content_key(_FORMAT, most.key, *digests, numbers, torch.__version__.encode())
    (result,) = run_jobs([Job(key, None)], look, cache=cache)
    epochs, accuracy, loss = _FOUND.unpack(result.data)
    return Matched(replace(most, epochs=epochs), Fit(accuracy, loss), goal)
