"""Ensembles: whether networks that unlearned the forget set can be told from networks that never saw it.

Base networks are trained with other seeds, each unlearns by the same way, and as many networks are trained without
the forget set. Their margins on the forget set are compared: U-LiRA, the forgetting score of the NeurIPS 2023
challenge, and KLoM.

Source: Hayes et al., arXiv 2403.01218; Triantafillou et al., arXiv 2406.09073; Georgiev et al., arXiv 2410.23232.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from prune_verify.certify.jobs import Job, Result, content_key, run_jobs
from prune_verify.checker.claim import LabelledRows
from prune_verify.measure.architecture import trainable, untrained
from prune_verify.measure.attack_ensembles import (
    FEWEST_NETWORKS,
    ForgettingScore,
    Klom,
    ULira,
    forgetting_score,
    klom,
    u_lira,
)
from prune_verify.measure.baselines import Rows
from prune_verify.measure.deployed import Deployed
from prune_verify.measure.errors import MeasureInputError
from prune_verify.measure.membership import Shadows
from prune_verify.measure.membership_run import Done, seeds_of
from prune_verify.measure.membership_sets import Sets
from prune_verify.measure.shadow_training import Networks, Recipe, one_thread, train_bases, train_with_accuracy
from prune_verify.measure.unlearners import UNLEARNERS, UnlearnerError
from prune_verify.measure.unlearning_context import Context, unit_model
from prune_verify.repair.redirect import OutMargins, label_margins

__all__ = ["EnsembleAsked", "Ensembles", "measure_ensembles", "require_recipe"]

Floats = npt.NDArray[np.float32]
Progress = Callable[[str, int, int], None]
_FORMAT = b"prune-verify unlearned network 1"
_RETRAIN = "retrain"
_FAMILIES = tuple(name for name in UNLEARNERS if name != "REASSURE")  # which needs layers of torch.nn in turn
_TRAIN_ANEW, _BATCH, _RATE = frozenset({"amnesiac", "SISA"}), 128, 1e-3  # as measure/baselines.py trains


@dataclass(frozen=True)
class EnsembleAsked:
    """What is to be done.

    Args:
        family: name of a way to forget, as in ``UNLEARNERS``.
        networks: of each kind.
        radius: of the forget balls, a decimal in input units; where the way to forget has balls.
        retained_radius: of the retained balls.

    Raises:
        MeasureInputError: no such way, or too few networks.

    """

    family: str
    networks: int
    radius: str = "0.1"
    retained_radius: str = "0.05"

    def __post_init__(self) -> None:
        if self.family not in _FAMILIES:
            raise MeasureInputError(f"--family: expected one of {', '.join(_FAMILIES)}, found {self.family}")
        if self.networks < FEWEST_NETWORKS:
            expected = f"{FEWEST_NETWORKS} networks of each kind or more"
            raise MeasureInputError(f"--ensembles: expected {expected}, found {self.networks}")


@dataclass(frozen=True, eq=False)
class Ensembles:
    """What was found.

    Args:
        asked: what was to be done.
        unlearned: float32 [networks, forget records, labels], logits after unlearning.
        retrained: the same of networks that never saw the records.
        lira: whether the two kinds can be told apart, record by record.
        score: the challenge's forgetting score.
        klom: divergence of margins.

    """

    asked: EnsembleAsked
    unlearned: Floats
    retrained: Floats
    lira: ULira
    score: ForgettingScore
    klom: Klom


# --- unlearning, network by network ---


@dataclass(frozen=True, eq=False)
class _Task:
    """One base network that is to unlearn."""

    base: bytes
    asked: EnsembleAsked
    forget: Rows
    retain: Rows
    held_out: Rows
    out_margins: OutMargins
    epochs: int
    seed: int

    def key(self) -> str:
        """Digest of all of it."""
        arrays = [a for rows in (self.forget, self.retain, self.held_out) for a in (rows.x, rows.y)]
        parts = [np.ascontiguousarray(array).tobytes() for array in (*arrays, *self.out_margins.pools)]
        words = (self.asked.family, self.asked.radius, self.asked.retained_radius, str(self.epochs), str(self.seed))
        return content_key(_FORMAT, self.base, *parts, *(word.encode() for word in words))

    def context(self) -> Context:
        """What the way to forget may use."""

        def make() -> torch.nn.Module:
            return untrained(self.base, "base.onnx", int(torch.randint(2**31, (1,))))

        return Context(
            network=trainable(self.base, "base.onnx").eval(),
            make=make,
            epochs=self.epochs,
            seed=self.seed,
            model=unit_model(self.asked.radius, self.asked.retained_radius),
            out_margins=self.out_margins,
            held_out=LabelledRows(self.held_out.x, self.held_out.y),
        )


def _unlearned(task: _Task) -> Result:
    """The file of one network after unlearning; the worker's side."""
    with one_thread():
        try:
            found = UNLEARNERS[task.asked.family](task.base, task.forget, task.retain, task.context())
        except UnlearnerError as error:
            raise MeasureInputError(f"--family {task.asked.family}: {error}") from None
    return Result(found.onnx, final=True)


def _out_margins(shadows: Shadows, sets: Sets) -> OutMargins:
    """Margins of the forget records in those shadows that were not trained on them."""
    records = len(sets.forget.y)
    margins = label_margins(shadows.logits[:, :records], sets.forget.y)
    outside = ~shadows.inside[:, :records]
    return OutMargins(tuple(margins[outside[:, record], record] for record in range(records)), per_record=True)


def _unlearn_all(done: Done, ensemble: EnsembleAsked, bases: list[bytes], progress: Progress) -> Iterator[bytes]:
    """The file of each base after unlearning."""
    asked, sets = done.asked, done.asked.sets
    margins, seeds = _out_margins(done.shadows, sets), seeds_of("unlearning", asked.seed, len(bases))
    tasks = [
        _Task(base, ensemble, sets.forget, sets.retain, sets.population, margins, asked.recipe.epochs, seed)
        for base, seed in zip(bases, seeds, strict=True)
    ]
    found = run_jobs(
        (Job(task.key(), task) for task in tasks),
        _unlearned,
        cache=asked.cache,
        workers=asked.workers,
        progress=lambda done, total: progress(f"unlearning by {ensemble.family}", done, total),
        total=len(tasks),
    )
    for place, result in enumerate(found):
        if not result.data:
            text = f"unlearning by {ensemble.family}: network {place}: its process died; fewer workers need less memory"
            raise MeasureInputError(text)
        yield result.data


def require_recipe(recipe: Recipe, family: str) -> None:
    """Refuse a family of ways to forget that train from the start by another recipe than what they are compared to.

    Raises:
        MeasureInputError: they do.

    """
    theirs, ours = (_BATCH, _RATE, 0.0), (recipe.batch, recipe.rate, recipe.weight_decay)
    if family in _TRAIN_ANEW and ours != theirs:
        words = [f"--batch {b} --rate {r:g} --weight-decay {w:g}" for b, r, w in (theirs, ours)]
        raise MeasureInputError(f"--family {family}: expected {words[0]}, by which it trains, found {words[1]}")


def measure_ensembles(done: Done, ensemble: EnsembleAsked, progress: Progress) -> Ensembles:
    """Train both kinds, unlearn with the first, and compare.

    A way to forget that needs margins of networks that never saw the records gets those of the shadow networks: the
    networks that it is compared with take no part in it.

    Args:
        done: records, recipe with its epochs, shadow networks, and where networks are kept.
        ensemble: the way to forget, and how many networks.
        progress: called with what is done, and how much of it.

    Raises:
        MeasureInputError: the way to forget cannot be had for these records.
        CertifyError: the cache cannot be written, or workers cannot be had.
        RepairError: a patch cannot be found.

    """
    asked, sets, count = done.asked, done.asked.sets, ensemble.networks
    cache, workers, records = asked.cache, asked.workers, sets.forget.x

    def networks(part: str, what: str, *, forget: bool) -> Networks:
        parts = np.repeat(sets.trained_on(forget=forget)[None], count, axis=0)
        return Networks(asked.recipe, sets.pool, parts, seeds_of(part, asked.seed, count), what)

    def without(part: str, what: str) -> Floats:
        plan = networks(part, what, forget=False)
        return train_with_accuracy(plan, records, cache=cache, workers=workers, progress=progress).logits

    if ensemble.family == _RETRAIN:  # by the recipe itself: what perfect unlearning gets
        unlearned = without("unlearning", "networks retrained to unlearn")
    else:
        plan = networks("bases", "base networks", forget=True)
        bases = train_bases(plan, cache=cache, workers=workers, progress=progress)
        files = _unlearn_all(done, ensemble, bases, progress)
        unlearned = np.stack([Deployed(onnx, ensemble.family).logits(records) for onnx in files])
    retrained = without("ensemble", "networks that never saw the forget set")
    kinds = unlearned.astype(np.float64), retrained.astype(np.float64), sets.forget.y
    return Ensembles(
        ensemble,
        unlearned,
        retrained,
        u_lira(*kinds, seed=asked.seed),
        forgetting_score(*kinds, seed=asked.seed),
        klom(*kinds, seed=asked.seed),
    )
