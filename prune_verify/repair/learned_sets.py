"""Family ``learned`` for a whole concept: members are a sample, and P is to forget those it was not shown as well.

P is a small MLP on the input that only ever lowers the logits of the labels to be forgotten: the rows of its last
layer for these labels are at most 0, the others are 0, and there is no bias. So for every input, whatever the
training found, N'_j = N_j for the other labels and N'_y <= N_y: an input that the base gives another label keeps
it, in binary32 too (a sum with 0 is exact and a sum with a negative number is no larger). What training decides
is where the label is lowered and how far: on balls around the members by what the worst of them needs, on
retained balls by no more than delta.

Members differ in what they need. Unseen ones may need more than the sample does, so that every member is pushed by
the same amount: what a high quantile of the sample needs, or more where it needs more itself. A part of the sample
takes no part in the steps: on it is decided how much forgetting weighs against retaining, and which state is best.

Source: MATHS 4.3, 3.1 item 3 (pointwise retention); interval bound propagation, arXiv 1810.12715.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prune_verify.bounds.bounded import one_thread
from prune_verify.checker.network import Network, evaluate
from prune_verify.repair.errors import RepairInputError
from prune_verify.repair.non_members import NonMembers, imitation
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
from prune_verify.repair.training_state import Checkpoint, Curve, run_digest

__all__ = ["ConceptThreatModel", "train_concept_patch"]

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

_SIZE_WEIGHT = 1e-5
_SLOPE = 0.01
_ROOM = 1.25
_WARM_UP = 200
_QUANTILE = 0.95
_ENOUGH = 0.999
_MANY = 20
_LOOK_EVERY = 100
_IMITATED_AT_ONCE = 512
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class ConceptThreatModel:
    """What a patch for a concept is trained against.

    Args:
        radius: of the balls around members, in input units.
        retained_radius: of the retained balls.
        margin: by which the forgotten label is to lose on the members' balls, in logits.
        delta: how far any logit may move on a retained ball.
        domain: the ends of every input's interval.
        hidden: widths of P's hidden layers.
        steps: most steps of training.
        crown_steps: of them, those at the end with CROWN bounds instead of intervals.
        batch: members and retained records per step, so many of each.
        rate: Adam's learning rate at the start.
        unseen: share of the held-out members' balls to be forgotten; above it, training turns to retaining.
        held_out: share of the members that steps do not see, in [0, 1); of few members none.
        looked_at: retained records on which it is bounded, after training, whether the answer stays.
        seed: of initialisation and batches.

    """

    radius: Fraction
    retained_radius: Fraction
    margin: Fraction
    delta: Fraction
    domain: tuple[float, float] = (0.0, 1.0)
    hidden: tuple[int, ...] = (64, 16)
    steps: int = 1500
    crown_steps: int = 200
    batch: int = 256
    rate: Fraction = Fraction("0.003")
    unseen: Fraction = Fraction("0.995")
    held_out: Fraction = Fraction(1, 10)
    looked_at: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        amounts = (self.radius, self.retained_radius, self.margin, self.delta, self.rate)
        if min(amounts) <= 0 or not self.hidden or min(*self.hidden, self.steps, self.batch) < 1:
            text = "radii, margin, delta, rate, widths, steps and batch of a learned patch are all to be above 0"
            raise RepairInputError(text)
        if (
            not 0 <= self.crown_steps <= self.steps
            or self.looked_at < 0
            or not 0 <= self.held_out < 1 >= self.unseen > 0
        ):
            text = "a learned patch: expected steps with CROWN from 0 to all, no negative number to look at, a share "
            found = f"{self.crown_steps} of {self.steps}, {self.looked_at}, {self.held_out}, {self.unseen}"
            raise RepairInputError(f"{text}held out in [0, 1) and one of the unseen in (0, 1]; found {found}")


@dataclass(frozen=True, eq=False)
class _Members:
    """The sample: rows, balls, what each is to be pushed by, and indices of those that steps see and of the others."""

    x: Tensor
    balls: Balls
    labels: Labels
    targets: Labels
    base_margins: Tensor
    goals: Tensor
    shown: Tensor
    hidden: Tensor


@dataclass(eq=False)
class _Objective:
    """Members in batches against retained records in batches."""

    patch: nn.Sequential
    model: ConceptThreatModel
    bounds: PatchBounds
    members: _Members
    retain: Balls
    near: Tensor
    allowed: Tensor
    like: tuple[Tensor, Tensor] | None = None
    changes: Tensor = field(default_factory=lambda: torch.zeros(0))

    def __post_init__(self) -> None:
        device = self.bounds.device
        self._labels = torch.from_numpy(self.members.labels).to(device)
        self._targets = torch.from_numpy(self.members.targets).to(device)
        self._unit = max(float(self.members.goals.max()), float(self.model.margin))

    def _pushed(self, chosen: Tensor, phase: str, slope: float = 0.0) -> Tensor:
        """Lower bounds of P_target - P_label on members' balls."""
        balls, members = self.members.balls.rows(chosen), self.members
        if phase == INTERVAL:
            return interval_margins(self.patch, balls, self._labels[chosen], self._targets[chosen], slope)
        picked = chosen.numpy()
        return self.bounds.patch_margins(balls, members.labels[picked], members.targets[picked])

    def look(self, phase: str) -> Look:
        asked, count = float(self.model.margin), len(self._labels)
        with torch.no_grad():
            inside = phase == INTERVAL
            found = interval_changes(self.patch, self.retain) if inside else self.bounds.all_changes(self.retain)
            self.changes = found.cpu()  # batches are drawn there, the same on every device
            parts = [self._pushed(rows, phase) for rows in torch.split(torch.arange(count), self.model.batch)]
            margins = self.members.base_margins + torch.cat(parts)
            imitated = None if self.like is None else float(self._imitation(torch.arange(count)[:_IMITATED_AT_ONCE]))
        within = float((self.changes <= float(self.model.delta)).float().mean())
        forgotten, least = float((margins >= asked).float().mean()), float(margins.min())
        if imitated is not None:
            return Look(least, forgotten, within, (within - imitated, within), short=False, met=False)
        unseen = float((margins[self.members.hidden] >= asked).float().mean())
        wanted = float(self.model.unseen)
        short = unseen < wanted or forgotten < wanted
        met = not short and within >= _ENOUGH
        return Look(least, forgotten, within, (min(unseen, wanted) + within, least), short, met)

    def _imitation(self, chosen: Tensor) -> Tensor:
        if self.like is None:
            return torch.zeros(())
        x, (logits, labels) = self.members.x[chosen], self.like
        return imitation(self.bounds.module(x) + self.patch(x), self._labels[chosen], logits, labels)

    def losses(self, step: int, phase: str, generator: torch.Generator) -> Losses:
        size = self.model.batch
        shown = self.members.shown
        chosen = shown[torch.randint(len(shown), (min(size, len(shown)),), generator=generator)]
        rows = self.retain.rows(self._retained(size, generator))
        moved = interval_changes(self.patch, rows) if phase == INTERVAL else self.bounds.changes(rows)
        forget, privacy = torch.zeros(()), torch.zeros(())
        if self.like is None:
            lacking = self.members.goals[chosen] - self._pushed(chosen, phase, _SLOPE)
            forget = lacking.clamp(min=0).mean() / self._unit
        else:
            privacy = self._imitation(chosen[:_IMITATED_AT_ONCE])
        ramp = min(1.0, (step + 1) / _WARM_UP)
        retain = ramp * (moved - float(self.model.delta) / 2).clamp(min=0).mean() / self._unit
        weights = _SIZE_WEIGHT * torch.stack([p.abs().sum() for p in self.patch.parameters()]).sum()
        return Losses(forget, retain, privacy, weights)

    def _retained(self, size: int, generator: torch.Generator) -> Tensor:
        """A batch: a quarter of those that moved most, a quarter near the concept, the others at random."""
        count, part = len(self.retain), size // 4
        if count <= size:
            return torch.arange(count)
        most = torch.topk(self.changes, min(count, 4 * size)).indices
        worst = most[torch.randint(len(most), (part,), generator=generator)]
        near = self.near[torch.randint(len(self.near), (part,), generator=generator)] if len(self.near) else worst[:0]
        others = torch.randint(count, (size - len(worst) - len(near),), generator=generator)
        return torch.cat([worst, near, others])

    def project(self) -> None:
        """The labels to be forgotten are lowered or left; the others are left."""
        with torch.no_grad():
            weight: Tensor = self.patch[-1].weight  # type: ignore[assignment] # a chain ends in a linear layer
            weight.clamp_(max=0).mul_(self.allowed)


def _members(
    base: Network, bounds: PatchBounds, x: Floats, y: Labels, concept: Labels, model: ConceptThreatModel
) -> _Members:
    balls = Balls.around(x, model.radius, model.domain, bounds.device)
    targets = runners_up(base, x, y, concept)
    margins = bounds.base_margins(balls, y, targets)
    needed = (float(model.margin) - margins).clamp(min=0)
    floor = torch.quantile(needed, _QUANTILE)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(model.seed))
    aside = int(len(y) * model.held_out) if len(y) >= _MANY else 0
    hidden = order[:aside] if aside else order
    goals = _ROOM * torch.maximum(needed, floor)
    rows = torch.from_numpy(np.array(x)).to(bounds.device)
    return _Members(rows, balls, y, targets, margins, goals, order[aside:], hidden)


def train_concept_patch(  # noqa: PLR0913 - two sets of rows and labels, and what learned patches take besides
    base: Network,
    forget_x: Floats,
    forget_y: Labels,
    retain_x: Floats,
    retain_y: Labels,
    model: ConceptThreatModel,
    progress: Progress = lambda _what, _share: None,
    *,
    non_members: NonMembers | None = None,
    checkpoint: Checkpoint | None = None,
    device: torch.device = _CPU,
) -> TrainedPatch:
    """A patch that forgets a class or another concept from a sample of its members.

    Args:
        base: the base network.
        forget_x: float32 [members, *input_shape]: a sample of the concept, at least one.
        forget_y: int64 [members]: their labels, which are to be forgotten; not all that there are.
        retain_x: float32 [retain, *input_shape]: what is to stay, at least one; records of a forgotten label
            among them make the concept a part of that label's.
        retain_y: int64 [retain].
        model: the threat model.
        progress: called with what is being done and the share of it that is done.
        non_members: records of the forgotten labels that the base never saw; where given, outputs on members are
            trained to be like the base's on these, instead of to lose by the margin.
        checkpoint: the file in which the state of training is kept, and from which it is taken up again.
        device: where it is trained.

    Returns:
        The patch. The share of members and of retained balls on which the threat model is met by CROWN bounds, and
        by how much it is not, is in it; how it answers records that it was not shown is for the caller to measure.

    Raises:
        RepairInputError: an empty set, every label to be forgotten, or an unusable checkpoint.
        BoundsError: the base cannot be bounded.

    """
    concept = np.unique(forget_y)
    _require_usable(base, (forget_x, forget_y), (retain_x, retain_y), concept, non_members)
    with torch.random.fork_rng(devices=[]), one_thread():
        torch.manual_seed(model.seed)
        patch = chain(base.input_shape, [int(np.prod(base.input_shape)), *model.hidden, base.labels])
        bounds = PatchBounds(base, patch, concept, device)
        objective = _Objective(
            patch,
            model,
            bounds,
            _members(base, bounds, forget_x, forget_y, concept, model),
            Balls.around(retain_x, model.retained_radius, model.domain, device),
            torch.from_numpy(np.flatnonzero(np.isin(_answers(base, retain_x), concept))),
            torch.from_numpy(np.isin(np.arange(base.labels), concept)).float().unsqueeze(1).to(device),
            None if non_members is None else _like(base, non_members, concept, device),
        )
        with torch.no_grad():
            patch[-1].weight.abs_().neg_()  # type: ignore[operator] # a chain ends in a linear layer
        objective.project()
        plan = Plan(model.steps, model.steps - model.crown_steps, float(model.rate), model.seed, _LOOK_EVERY)
        others = () if non_members is None else (non_members.x, non_members.y)
        arrays = (forget_x, forget_y, retain_x, retain_y, *others)
        run = run_digest(base, arrays, {"level": "concept", **asdict(model)})
        steps, curves = optimise(objective, plan, run, checkpoint, progress)
        return _reported(base, objective, retain_x, steps, curves)


def _reported(
    base: Network, objective: _Objective, retain_x: Floats, steps: int, curves: tuple[Curve, ...]
) -> TrainedPatch:
    """The patch with CROWN bounds of N + P on members' balls and of P on retained balls."""
    members, model, bounds = objective.members, objective.model, objective.bounds
    count = min(model.looked_at, len(retain_x))
    rows = np.unique(np.linspace(0, len(retain_x) - 1, count).astype(np.int64))
    kept = np.zeros(0, dtype=np.float32)
    if count:
        balls = Balls.around(retain_x[rows], model.retained_radius, model.domain, bounds.device)
        kept = bounds.kept(balls, _answers(base, retain_x[rows])).cpu().numpy().copy()
    return TrainedPatch(
        learned_patch(objective.patch, base.labels),
        members.targets,
        bounds.all_margins(members.balls, members.labels, members.targets).cpu().numpy().copy(),
        bounds.all_changes(objective.retain).cpu().numpy().copy(),
        steps,
        curves=curves,
        kept_rows=rows,
        kept=kept,
    )


def _require_usable(
    base: Network,
    forget: tuple[Floats, Labels],
    retain: tuple[Floats, Labels],
    concept: Labels,
    non_members: NonMembers | None,
) -> None:
    for what, (x, y) in (("forget", forget), ("retain", retain)):
        if not len(x) or len(x) != len(y):
            text = f"--{what}: expected at least one record and a label for each, found {len(x)} and {len(y)}"
            raise RepairInputError(text)
    if len(concept) >= base.labels or concept.min() < 0 or concept.max() >= base.labels:
        text = f"--forget: expected some of the labels 0 to {base.labels - 1} and not all, found {concept.tolist()}"
        raise RepairInputError(text)
    if non_members is not None and set(concept.tolist()) - set(non_members.y.tolist()):
        missing = sorted(set(concept.tolist()) - set(non_members.y.tolist()))
        text = f"non-members: expected records of every label to be forgotten, found none of {missing}"
        raise RepairInputError(text)


def _answers(base: Network, x: Floats) -> Labels:
    answers: Labels = evaluate(base, x).argmax(axis=1).astype(np.int64)
    return answers


def _like(base: Network, non_members: NonMembers, concept: Labels, device: torch.device) -> tuple[Tensor, Tensor]:
    """The base's logits on non-members of the concept's labels, and these labels."""
    own = np.flatnonzero(np.isin(non_members.y, concept))[:_IMITATED_AT_ONCE]
    logits = evaluate(base, non_members.x[own]).astype(np.float32)
    return torch.from_numpy(logits).to(device), torch.from_numpy(non_members.y[own]).to(device)
