"""Family ``learned``: a small ReLU network P, trained so that N' = N + P forgets, with bounds as the loss.

The loss is the worst case over the threat model, as bounds see it, not the value at the records: on every
forget ball the margin of the forgotten label over the redirect target (or, with redirect ``non-member``, how far
the margin leaves the band that a record the base never saw would be in), and on retained balls the size of every
output of P. Both are also what the checker proves afterwards, so that training aims at the certificate. P is
bounded alone on the retained side, because N' - N is P.

P starts as one gate per forget record: a few half-spaces that are 0 on the forget ball and close the
gate on the retained balls near it, oblique ones, where a box gate has axes only. Training then finds the pushes that
the worst case needs and moves the half-spaces to whatever the start left open. A retained ball on which every gate is
closed has P = 0 exactly, because the last layer has no bias.

Source: MATHS 4.3; bounds by intervals, then CROWN, through :mod:`prune_verify.repair.patch_bounds`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prune_verify.bounds.bounded import one_thread
from prune_verify.checker.network import Network, evaluate
from prune_verify.repair.errors import RepairInputError
from prune_verify.repair.non_members import NonMembers, drawn_margins, imitation, margins_of
from prune_verify.repair.patch_bounds import (
    Balls,
    PatchBounds,
    chain,
    interval_changes,
    interval_margins,
    learned_patch,
    runners_up,
)
from prune_verify.repair.trained_patch import TrainedPatch
from prune_verify.repair.training_loop import INTERVAL, Look, Losses, Plan, Progress, optimise
from prune_verify.repair.training_state import Checkpoint, run_digest

__all__ = ["LearnedThreatModel", "TrainedPatch", "train_learned_patch"]

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Redirect = Literal["misclassify", "non-member"]

_SAFETY = 0.05
_RATE = 5e-3
_LEAST = 1e-6
_SIZE_WEIGHT = 1e-4
_WARM_UP = 60
_SLOPE = 0.01
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class LearnedThreatModel:
    """What the patch is trained against.

    Args:
        radius: of the forget balls, in input units.
        retained_radius: of the retained balls.
        margin: by which the forgotten label is to lose on the forget balls, in logits.
        delta: how far any logit may move on a retained ball.
        domain: the ends of every input's interval.
        hidden: half-spaces, which the forget records share.
        steps: most steps of training.
        batch: retained records per step.
        seed: of initialisation and batches.
        interval_steps: with interval bounds, at most, and at most half of the steps; the rest are with CROWN.
        redirect: ``misclassify`` (the label loses) or ``non-member`` (its margin is like a non-member's).
        band: how wide the band around a non-member's margin is, in logits; redirect ``non-member`` only.

    """

    radius: Fraction
    retained_radius: Fraction
    margin: Fraction
    delta: Fraction
    domain: tuple[float, float] = (0.0, 1.0)
    hidden: int = 24
    steps: int = 600
    batch: int = 512
    seed: int = 0
    interval_steps: int = 300
    redirect: Redirect = "misclassify"
    band: Fraction = Fraction(5)

    def __post_init__(self) -> None:
        amounts = (self.radius, self.retained_radius, self.margin, self.delta, self.band)
        if min(amounts) <= 0 or min(self.hidden, self.steps, self.batch) < 1:
            text = "radii, margin, delta, band, widths, steps and batch of a learned patch are all to be above 0"
            raise RepairInputError(text)
        if self.interval_steps < 0 or self.redirect not in ("misclassify", "non-member"):
            text = "a learned patch: expected interval steps of at least 0, and redirect misclassify or non-member; "
            raise RepairInputError(f"{text}found {self.interval_steps} and {self.redirect!r}")


@dataclass(frozen=True, eq=False)
class _Imitated:
    """What redirect ``non-member`` is trained towards."""

    margins: Tensor
    x: Tensor
    logits: Tensor
    labels: Tensor


def _started(base: Network, forget: Floats, retain: Floats, pushes: Floats, model: LearnedThreatModel) -> nn.Sequential:
    """P before training: half-spaces, one gate per forget record that they close, and the push that the gate gives.

    Half-space u belongs to record u mod count. It leads from the record towards the nearest retained
    record that the record's gate is still open at, is 0 on the forget ball, and 2 on the retained ball
    (a gate is ReLU(1 - the sum of its half-spaces), so that 1 would do).

    Args:
        base: the base network.
        forget: float32 [forget, n]: flattened rows.
        retain: float32 [retain, n].
        pushes: float32 [forget, labels]: what P is to add on each forget ball.
        model: the threat model.

    """
    count, size = forget.shape
    patch = chain(base.input_shape, [size, model.hidden, count, base.labels])
    parts = [part for part in patch if isinstance(part, nn.Linear)]
    inner, outer = float(model.radius), float(model.retained_radius)
    distances = [np.linalg.norm(retain - row, axis=1) for row in forget]
    violation = np.zeros((count, len(retain)))
    with torch.no_grad():
        for unit in range(model.hidden):
            record = unit % count
            towards = int(np.where(violation[record] < 1, distances[record], np.inf).argmin())
            way = retain[towards] - forget[record]
            size_of_way = float(np.abs(way).sum())
            way = 2 * way / max(float(way @ way) - (inner + outer) * size_of_way, float(way @ way) / 8, _LEAST)
            reach = float(np.abs(way).sum())
            bias = -float(way @ forget[record]) - inner * reach
            violation[record] += np.maximum(retain @ way + bias - outer * reach, 0)
            parts[0].weight[unit], parts[0].bias[unit] = torch.from_numpy(way), bias
        own = torch.arange(model.hidden) % count == torch.arange(count).unsqueeze(1)
        parts[1].weight.copy_(-own.float())
        parts[1].bias.fill_(1.0)
        parts[2].weight.copy_(torch.from_numpy(pushes.T.copy()))
    return patch


@dataclass(eq=False)
class _Objective:
    """Forget records one by one, each with its own ball and target."""

    patch: nn.Sequential
    model: LearnedThreatModel
    bounds: PatchBounds
    forget: Balls
    labels: Labels
    targets: Labels
    retain: Balls
    imitated: _Imitated | None = None
    changes: Tensor = field(default_factory=lambda: torch.zeros(0))

    def __post_init__(self) -> None:
        self.margin = float(self.model.margin) * (1 + _SAFETY)
        self.delta = float(self.model.delta) * (1 - _SAFETY)
        device = self.bounds.device
        self._chosen = torch.from_numpy(self.labels).to(device), torch.from_numpy(self.targets).to(device)
        if self.model.interval_steps:
            self._base_margins = self.bounds.base_margins(self.forget, self.labels, self.targets)

    def _margins(self, phase: str, slope: float = 0.0) -> Tensor:
        if phase == INTERVAL:
            return self._base_margins + interval_margins(self.patch, self.forget, *self._chosen, slope)
        return self.bounds.margins(self.forget, self.labels, self.targets)

    def _outside(self) -> Tensor:
        """How far [forget] the margin may be from the non-member's, over the ball, above half the band."""
        imitated = self.imitated
        if imitated is None:
            return torch.zeros(len(self.labels), device=self.bounds.device)
        low, high = self.bounds.bands(self.forget, self.labels)
        half = float(self.model.band) / 2
        return torch.maximum(imitated.margins - low, high - imitated.margins) - half

    def look(self, phase: str) -> Look:
        with torch.no_grad():
            found = interval_changes(self.patch, self.retain) if phase == INTERVAL else self._all_changes()
            self.changes = found.cpu()  # batches are drawn there, the same on every device
            reached = self._margins(phase) if self.imitated is None else -self._outside()
        least, asked = float(reached.min()), self.margin if self.imitated is None else 0.0
        within = float((self.changes <= self.delta).float().mean())
        forgotten = float((reached >= asked).float().mean())
        score = (min(least, asked), within)
        return Look(least, forgotten, within, score, least < asked, least >= asked and within >= 1.0)

    def _all_changes(self) -> Tensor:
        return self.bounds.all_changes(self.retain)

    def losses(self, step: int, phase: str, generator: torch.Generator) -> Losses:
        balls = self.retain.rows(_batch(self.changes, self.model.batch, generator))
        moved = interval_changes(self.patch, balls) if phase == INTERVAL else self.bounds.changes(balls)
        privacy = torch.zeros(())
        if self.imitated is None:
            forget = (2 * self.margin - self._margins(phase, _SLOPE)).clamp(min=0).sum()
        else:
            forget = (self._outside() + _SAFETY * float(self.model.band)).clamp(min=0).sum()
            logits = self.bounds.module(self.imitated.x) + self.patch(self.imitated.x)
            privacy = imitation(logits, self._chosen[0], self.imitated.logits, self.imitated.labels)
        retain = min(1.0, (step + 1) / _WARM_UP) * (moved - self.delta / 2).clamp(min=0).sum()
        size = _SIZE_WEIGHT * torch.stack([p.abs().sum() for p in self.patch.parameters()]).sum()
        return Losses(forget, retain, privacy, size)

    def project(self) -> None:
        """Nothing: every parameter is free."""


def _batch(changes: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Indices of retained records for a step: the half that moved most at the last look, and others at random."""
    count = len(changes)
    if count <= size:
        return torch.arange(count)
    worst = torch.topk(changes, size // 2).indices
    others = torch.randint(count, (size - size // 2,), generator=generator)
    return torch.cat([worst, others])


def train_learned_patch(  # noqa: PLR0913 - the sets, and what learned patches take besides
    base: Network,
    forget_x: Floats,
    forget_y: Labels,
    retain_x: Floats,
    model: LearnedThreatModel,
    progress: Progress = lambda _what, _share: None,
    *,
    non_members: NonMembers | None = None,
    checkpoint: Checkpoint | None = None,
    device: torch.device = _CPU,
) -> TrainedPatch:
    """A patch P for the base, trained until bounds say that it meets the threat model, or for ``steps`` steps.

    Args:
        base: the base network.
        forget_x: float32 [forget, *input_shape], at least one.
        forget_y: int64 [forget]: labels to be forgotten.
        retain_x: float32 [retain, *input_shape], at least one.
        model: the threat model.
        progress: called with what is being done and the share of it that is done.
        non_members: records that the base never saw, with every forgotten label; redirect ``non-member`` only.
        checkpoint: the file in which the state of training is kept, and from which it is taken up again.
        device: where it is trained.

    Returns:
        The patch; whether it meets the threat model is in its margins and changes. The same seed gives the
        same patch on one machine, also after an interruption.

    Raises:
        RepairInputError: an empty set, or an unusable threat model or checkpoint.
        BoundsError: the base cannot be bounded.

    """
    _require_usable(forget_x, retain_x, model, non_members)
    targets = runners_up(base, forget_x, forget_y)
    with torch.random.fork_rng(devices=[]), one_thread():
        torch.manual_seed(model.seed)
        imitated = None if non_members is None else _imitated(base, forget_x, forget_y, non_members, model, device)
        pushes = _pushes(base, forget_x, forget_y, targets, model, imitated)
        patch = _started(base, forget_x.reshape(len(forget_x), -1), retain_x.reshape(len(retain_x), -1), pushes, model)
        bounds = PatchBounds(base, patch, device=device)
        forget = Balls.around(forget_x, model.radius, model.domain, device)
        retain = Balls.around(retain_x, model.retained_radius, model.domain, device)
        objective = _Objective(patch, model, bounds, forget, forget_y, targets, retain, imitated)
        others = () if non_members is None else (non_members.x, non_members.y)
        run = run_digest(base, (forget_x, forget_y, retain_x, *others), {"level": "records", **asdict(model)})
        interval_steps = 0 if imitated is not None else min(model.interval_steps, model.steps // 2)
        steps, curves = optimise(
            objective, Plan(model.steps, interval_steps, _RATE, model.seed), run, checkpoint, progress
        )
        margins, changes = bounds.all_margins(forget, forget_y, targets), bounds.all_changes(retain)
        bands = None if imitated is None else _ends(bounds, forget, forget_y)
    return TrainedPatch(
        learned_patch(patch, base.labels),
        targets,
        margins.cpu().numpy().copy(),
        changes.cpu().numpy().copy(),
        steps,
        curves=curves,
        bands=bands,
        aims=None if imitated is None else imitated.margins.cpu().numpy().copy(),
    )


def _require_usable(
    forget_x: Floats, retain_x: Floats, model: LearnedThreatModel, non_members: NonMembers | None
) -> None:
    if not len(forget_x) or not len(retain_x):
        text = "a learned patch needs at least one forget record and one retained record"
        raise RepairInputError(text)
    if model.hidden < len(forget_x):
        text = f"{len(forget_x)} forget records need at least one half-space each; hidden is {model.hidden}"
        raise RepairInputError(text)
    if (model.redirect == "non-member") != (non_members is not None):
        found = "none" if non_members is None else "some"
        text = (
            f"--redirect {model.redirect}: expected non-members with redirect non-member and only then, found {found}"
        )
        raise RepairInputError(text)


def _ends(bounds: PatchBounds, balls: Balls, labels: Labels) -> Floats:
    with torch.no_grad():
        return torch.stack(bounds.bands(balls, labels), dim=1).cpu().numpy().copy()


def _imitated(
    base: Network, x: Floats, y: Labels, non_members: NonMembers, model: LearnedThreatModel, device: torch.device
) -> _Imitated:
    margins = torch.from_numpy(drawn_margins(base, y, non_members, model.seed))
    own = np.isin(non_members.y, y)
    logits = torch.from_numpy(evaluate(base, non_members.x[own]).astype(np.float32))
    parts = margins, torch.from_numpy(np.array(x)), logits, torch.from_numpy(non_members.y[own])
    return _Imitated(*(part.to(device) for part in parts))


def _pushes(
    base: Network, x: Floats, y: Labels, targets: Labels, model: LearnedThreatModel, imitated: _Imitated | None
) -> Floats:
    """What P adds to begin with: up for the target and down for the label, together what the record itself needs.

    The worst case over the ball needs more: how much, and with which half-spaces, is what training finds. To
    imitate a non-member only the label's own logit moves, by what its margin lacks.
    """
    logits, rows = evaluate(base, x).astype(np.float64), np.arange(len(y))
    pushes = np.zeros((len(y), base.labels), dtype=np.float32)
    if imitated is None:
        needed = (np.maximum(logits[rows, y] - logits[rows, targets], 0) + float(model.margin)) / 2
        pushes[rows, y], pushes[rows, targets] = -needed, needed
    else:
        now = margins_of(torch.from_numpy(logits), torch.from_numpy(y)).numpy()
        pushes[rows, y] = imitated.margins.cpu().numpy() - now
    return pushes
