"""The steps of ``measure membership``: epochs, shadow networks, genuine retrains, attacks; each from seeds of its own.

Source: Carlini et al., arXiv 2112.03570, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prune_verify.measure.baselines import Rows
from prune_verify.measure.deployed import Deployed
from prune_verify.measure.membership import Membership, Shadows, Target, attack_all
from prune_verify.measure.membership_sets import Sets, shadow_parts
from prune_verify.measure.shadow_epochs import Fit, Matched, fit_of, match_epochs
from prune_verify.measure.shadow_training import Networks, Recipe, train_bases, train_with_accuracy

__all__ = ["Asked", "Done", "run_membership", "seeds_of"]

Doubles = npt.NDArray[np.float64]
Progress = Callable[[str, int, int], None]
_MOST_EPOCHS = 100
_PARTS = {"epochs": 3, "shadows": 4, "retrained": 5, "ensemble": 6, "bases": 7, "unlearning": 8}


@dataclass(frozen=True, eq=False)
class Asked:
    """What is to be done.

    Args:
        sets: the records.
        recipe: of training; its epochs count where ``epochs`` is given.
        epochs: of training, or None: as many as the base seems to have had.
        shadows: number of shadow networks.
        retrained: number of genuine retrains.
        seed: of everything.
        cache: folder of trained networks.
        workers: processes.

    """

    sets: Sets
    recipe: Recipe
    epochs: int | None
    shadows: int
    retrained: int
    seed: int
    cache: Path | None
    workers: int


@dataclass(frozen=True, eq=False)
class Done:
    """What was found.

    Args:
        asked: what was to be done, with the epochs that were taken.
        matched: how the epochs were found; None where they were given.
        fit: how closely the base fits its training set.
        shadows: what shadow networks answer.
        accuracy: float64 [shadows], share of its own training records that a shadow answers with their label.
        membership: all attacks.

    """

    asked: Asked
    matched: Matched | None
    fit: Fit
    shadows: Shadows
    accuracy: Doubles
    membership: Membership


def seeds_of(part: str, seed: int, count: int) -> tuple[int, ...]:
    """Seeds of ``count`` networks: other ones for each part of the work and each seed of the whole."""
    return tuple(np.random.default_rng((seed, _PARTS[part])).integers(2**31, size=count).tolist())


def run_membership(asked: Asked, base: Target, targets: tuple[Target, ...], progress: Progress) -> Done:
    """Train what has to be trained, and attack base, targets and genuine retrains.

    Args:
        asked: what is to be done.
        base: the network before unlearning.
        targets: networks after it, but for the retrains.
        progress: called with what is done, and how much of it.

    Raises:
        MeasureInputError: records that do not fit the network.
        CertifyError: the cache cannot be written, or workers cannot be had.

    """
    sets = asked.sets
    own = sets.trained_on(forget=True)
    training_set = Rows(sets.pool.x[own], sets.pool.y[own])
    fit = fit_of(base.logits(training_set.x), training_set.y)
    matched = None
    if asked.epochs is None:
        most = replace(asked.recipe, epochs=_MOST_EPOCHS)
        (seed,) = seeds_of("epochs", asked.seed, 1)
        matched = match_epochs(most, training_set, fit, seed, cache=asked.cache, progress=progress)
        asked = replace(asked, recipe=matched.recipe)

    cache, workers = asked.cache, asked.workers
    parts = shadow_parts(sets, asked.shadows, asked.seed)
    seeds = seeds_of("shadows", asked.seed, asked.shadows)
    trained = train_with_accuracy(
        Networks(asked.recipe, sets.pool, parts, seeds), sets.queries, cache=cache, workers=workers, progress=progress
    )
    without = np.repeat(sets.trained_on(forget=False)[None], asked.retrained, axis=0)
    seeds = seeds_of("retrained", asked.seed, asked.retrained)
    again = train_bases(
        Networks(asked.recipe, sets.pool, without, seeds, "genuine retrains"),
        cache=cache,
        workers=workers,
        progress=progress,
    )
    names = ["retrained", *(f"retrained-{n}" for n in range(2, asked.retrained + 1))]
    controls = tuple(
        Target(name, Deployed(onnx, name).logits, control=True) for name, onnx in zip(names, again, strict=True)
    )
    shadows = Shadows(trained.logits, parts[:, : sets.scored])
    found = attack_all(sets, shadows, base, (*targets, *controls), seed=asked.seed, progress=progress)
    return Done(asked, matched, fit, shadows, trained.accuracy, found)
