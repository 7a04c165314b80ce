"""The loop that trains a patch: steps, looks by bounds, the best state so far, curves and checkpoints.

Bounds come in two phases. Interval bounds first, which cost little more than evaluation; once they say that the
threat model is met, or their share of the steps is spent, CROWN, which is what the checker proves. What is
returned is the state that scored best by CROWN.

Source: MATHS 4.3; Adam, arXiv 1412.6980; cosine decay, arXiv 1608.03983.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, inf, nan, pi
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from prune_verify.repair.errors import RepairInputError
from prune_verify.repair.training_state import Array, Checkpoint, Curve, Saved

__all__ = ["INTERVAL", "RELAXATION", "Look", "Losses", "Objective", "Plan", "Progress", "optimise"]

Progress = Callable[[str, float], None]

INTERVAL = "interval"
RELAXATION = "relaxation"
_LOOK_EVERY = 20
_LEAST_WEIGHT = 4.0
_MOST_WEIGHT = 1024.0


@dataclass(frozen=True)
class Look:
    """What bounds say of the patch as it is.

    Args:
        margin: least lower bound of the forget margin, in logits.
        forgotten: share of forget balls with the margin.
        within: share of retained balls within delta.
        score: the larger, the better; compared within a phase.
        short: whether the forget side falls short, which raises its weight.
        met: whether nothing is left to do.

    """

    margin: float
    forgotten: float
    within: float
    score: tuple[float, float]
    short: bool
    met: bool


@dataclass(frozen=True, eq=False)
class Losses:
    """The terms of one step, before the forget term's weight; shape [], with gradients.

    They are ``forget``, ``retain``, ``privacy`` and ``size``.
    """

    forget: Tensor
    retain: Tensor
    privacy: Tensor
    size: Tensor


class Objective(Protocol):
    """What is trained for."""

    @property
    def patch(self) -> nn.Sequential:
        """The network whose parameters are trained."""

    def look(self, phase: str) -> Look:
        """Bounds on every ball, without gradients."""

    def losses(self, step: int, phase: str, generator: torch.Generator) -> Losses:
        """The terms at this step; what is drawn is drawn from ``generator``."""

    def project(self) -> None:
        """Bring the parameters back to where they must be, after a step."""


@dataclass(frozen=True)
class Plan:
    """How long and how fast.

    Args:
        steps: at most.
        interval_steps: of them with interval bounds, at most.
        rate: Adam's learning rate at the start; a twentieth of it at the end.
        seed: of batches.
        look_every: steps between two looks.

    """

    steps: int
    interval_steps: int
    rate: float
    seed: int
    look_every: int = _LOOK_EVERY


class _Run:
    """The state between two steps."""

    def __init__(self, patch: nn.Sequential, plan: Plan) -> None:
        self.step = 0
        self.phase = INTERVAL if plan.interval_steps else RELAXATION
        self.weight = _LEAST_WEIGHT
        self.best = (-inf, -inf)
        self.best_state = {name: value.clone() for name, value in patch.state_dict().items()}
        self.curves: list[Curve] = []
        self.last: tuple[float, float, float, float] = (nan, nan, nan, nan)
        self.generator = torch.Generator().manual_seed(plan.seed)
        self.optimiser = torch.optim.Adam(patch.parameters(), lr=plan.rate)
        self._patch = patch

    def arrays(self) -> dict[str, Array]:
        """Everything that the next step reads."""
        found: dict[str, Array] = {
            "weight": np.array([self.weight]),
            "best": np.array(self.best),
            "last": np.array(self.last),
            "generator": self.generator.get_state().numpy().copy(),
            "curves": np.array([_row(curve) for curve in self.curves]).reshape(len(self.curves), _COLUMNS),
        }
        for name, value in self._patch.state_dict().items():
            found[f"patch/{name}"] = value.cpu().numpy().copy()
            found[f"best/{name}"] = self.best_state[name].cpu().numpy().copy()
        for name, parameter in self._patch.named_parameters():
            kept = self.optimiser.state.get(parameter)
            for part in ("exp_avg", "exp_avg_sq"):
                value = torch.zeros_like(parameter) if kept is None else kept[part]
                found[f"adam/{part}/{name}"] = value.detach().cpu().numpy().copy()
        return found

    def restore(self, saved: Saved) -> None:
        """Continue from what was kept."""
        arrays = saved.arrays
        self.step, self.phase = saved.step, saved.phase
        self.weight = float(arrays["weight"][0])
        self.best = (float(arrays["best"][0]), float(arrays["best"][1]))
        self.last = tuple(float(v) for v in arrays["last"])  # type: ignore[assignment] # four of them, by its shape
        self.generator.set_state(torch.from_numpy(arrays["generator"]))
        self.curves = [_curve(row) for row in arrays["curves"].tolist()]
        state = {name: torch.from_numpy(arrays[f"patch/{name}"]) for name in self.best_state}
        self._patch.load_state_dict(state)
        self.best_state = {name: torch.from_numpy(arrays[f"best/{name}"]) for name in self.best_state}
        if self.step:
            for name, parameter in self._patch.named_parameters():
                self.optimiser.state[parameter] = {"step": torch.tensor(float(self.step))} | {
                    part: torch.from_numpy(arrays[f"adam/{part}/{name}"]).to(parameter.device)
                    for part in ("exp_avg", "exp_avg_sq")
                }


_COLUMNS = 9


def _row(curve: Curve) -> list[float]:
    losses = (curve.forget_loss, curve.retain_loss, curve.privacy_loss, curve.size_loss)
    phase = float(curve.phase == RELAXATION)
    return [curve.step, phase, curve.margin, curve.forgotten, curve.within, *(nan if v is None else v for v in losses)]


def _curve(row: list[float]) -> Curve:
    losses = (None if v != v else v for v in row[5:])  # noqa: PLR0124 - only NaN differs from itself
    return Curve(int(row[0]), RELAXATION if row[1] else INTERVAL, row[2], row[3], row[4], *losses)


def optimise(
    objective: Objective, plan: Plan, run: str, checkpoint: Checkpoint | None, progress: Progress
) -> tuple[int, tuple[Curve, ...]]:
    """Train until a look by CROWN says that everything is met, or for all steps; the patch then has its best state.

    Args:
        objective: what is trained, and for what.
        plan: how long.
        run: the digest of the run's inputs, for the checkpoint.
        checkpoint: where the state is kept and taken up from, or None.
        progress: called at each look with what bounds say and the share of steps taken.

    Returns:
        Steps taken, and the curves.

    Raises:
        RepairInputError: the checkpoint cannot be used.

    """
    state = _Run(objective.patch, plan)
    _take_up(state, run, checkpoint)
    started = state.step
    while True:
        if state.step % plan.look_every == 0 or state.step == plan.steps:
            if checkpoint is not None and state.step != started and _due(state.step, checkpoint, plan):
                checkpoint.save(run, Saved(state.step, state.phase, state.arrays()))
            if _looked(objective, plan, state, progress):
                break
        if state.step == plan.steps:
            break
        _stepped(objective, plan, state)
    objective.patch.load_state_dict(state.best_state)
    return state.step, tuple(state.curves)


def _due(step: int, checkpoint: Checkpoint, plan: Plan) -> bool:
    """Whether a multiple of ``every`` lies between the look before and this one."""
    return step // checkpoint.every > (step - plan.look_every) // checkpoint.every


def _take_up(state: _Run, run: str, checkpoint: Checkpoint | None) -> None:
    if checkpoint is None:
        return
    saved = checkpoint.load(run, state.arrays())
    if saved is None:
        return
    try:
        state.restore(saved)
    except (RuntimeError, TypeError, ValueError) as error:
        text = f"--checkpoint {checkpoint.path}: expected a state of this training, found {error}"
        raise RepairInputError(text) from None


def _looked(objective: Objective, plan: Plan, state: _Run, progress: Progress) -> bool:
    """Look, keep the best state, and say whether training is over."""
    look = objective.look(state.phase)
    if state.phase == INTERVAL and (look.met or state.step >= plan.interval_steps):
        state.phase, state.best = RELAXATION, (-inf, -inf)
        look = objective.look(state.phase)
    losses = tuple(None if v != v else v for v in state.last)  # noqa: PLR0124 - only NaN differs from itself
    state.curves.append(Curve(state.step, state.phase, look.margin, look.forgotten, look.within, *losses))
    words = f"margin {look.margin:.2f}, retained balls within delta {look.within:.1%}"
    progress(words, state.step / plan.steps)
    if look.short:
        state.weight = min(2 * state.weight, _MOST_WEIGHT)
    else:
        state.weight = max(state.weight / 2, _LEAST_WEIGHT)
    if look.score > state.best:
        state.best = look.score
        state.best_state = {name: value.clone() for name, value in objective.patch.state_dict().items()}
    return look.met and state.phase == RELAXATION


def _stepped(objective: Objective, plan: Plan, state: _Run) -> None:
    """One step of Adam."""
    share = (1 + cos(pi * state.step / plan.steps)) / 2
    for group in state.optimiser.param_groups:
        group["lr"] = plan.rate * (1 / 20 + 19 / 20 * share)
    state.optimiser.zero_grad(set_to_none=True)
    losses = objective.losses(state.step, state.phase, state.generator)
    (state.weight * losses.forget + losses.retain + losses.privacy + losses.size).backward()  # type: ignore[no-untyped-call] # torch has no types here
    state.optimiser.step()
    objective.project()
    parts = (losses.forget, losses.retain, losses.privacy, losses.size)
    state.last = tuple(float(part.detach()) for part in parts)  # type: ignore[assignment] # four of them
    state.step += 1
