"""Family ``learned``: a small ReLU network P, trained so that N' = N + P forgets, with bounds as the loss.

The loss is the worst case over the threat model, as linear relaxation bounds it, not the value at the
records: on every forget ball the margin of the forgotten label over the redirect target, and on
retained balls the size of every output of P. Both are also what the checker proves afterwards, so that
training aims at the certificate. P is bounded alone on the retained side, because N' - N is P.

P starts as one gate per forget record: a few half-spaces that are 0 on the forget ball and close the
gate on the retained balls near it, oblique ones, where a box gate has axes only. Training then finds the pushes that
the worst case needs and moves the half-spaces to whatever the start left open. A retained ball on which every gate is
closed has P = 0 exactly, because the last layer has no bias.

Source: MATHS 4.3; bounds by auto_LiRPA (CROWN) through :mod:`prune_verify.bounds`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prune_verify.bounds.bounded import Bounded, one_thread
from prune_verify.bounds.torch_network import TorchNetwork
from prune_verify.checker.network import Network, evaluate
from prune_verify.checker.patch import LearnedPatch
from prune_verify.repair.errors import RepairInputError

__all__ = ["LearnedThreatModel", "TrainedPatch", "train_learned_patch"]

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Progress = Callable[[str, float], None]

_ROWS_AT_ONCE = 2048
_LOOK_EVERY = 20
_SAFETY = 0.05
_RATE = 5e-3
_LEAST = 1e-6
_SIZE_WEIGHT = 1e-4
_FORGET_WEIGHT = 4.0
_WARM_UP = 60


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

    def __post_init__(self) -> None:
        amounts = (self.radius, self.retained_radius, self.margin, self.delta)
        if min(amounts) <= 0 or min(self.hidden, self.steps, self.batch) < 1:
            text = "radii, margin, delta, widths, steps and batch of a learned patch are all to be above 0"
            raise RepairInputError(text)


@dataclass(frozen=True, eq=False)
class TrainedPatch:
    """A trained patch and what bounds in floating point say of it; the checker decides.

    Args:
        patch: the layers.
        targets: int64 [forget]: the label to which each forget record is redirected.
        forget_margins: float32 [forget]: lower bounds of N'_target - N'_label on the forget balls.
        changes: float32 [retain]: upper bounds of the largest |P_j| on the retained balls.
        steps: how many were taken.

    """

    patch: LearnedPatch
    targets: Labels
    forget_margins: Floats
    changes: Floats
    steps: int

    def within(self, delta: Fraction) -> float:
        """The share of retained balls on which no logit moves by more than ``delta``, by these bounds."""
        return float(np.mean(self.changes <= float(delta)))


class _Sum(nn.Module):
    """N + P."""

    def __init__(self, base: nn.Module, patch: nn.Module) -> None:
        super().__init__()
        self.base, self.patch = base, patch

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.base(x) + self.patch(x)
        return logits


@dataclass(frozen=True, eq=False)
class _Balls:
    """Boxes: balls cut to the domain; tensors [rows, *input_shape]."""

    lower: Tensor
    upper: Tensor

    @classmethod
    def around(cls, x: Floats, radius: Fraction, domain: tuple[float, float]) -> _Balls:
        centre, reach = torch.from_numpy(np.array(x)), float(radius)
        return cls((centre - reach).clamp(min=domain[0]), (centre + reach).clamp(max=domain[1]))

    def rows(self, chosen: Tensor | slice) -> _Balls:
        return _Balls(self.lower[chosen], self.upper[chosen])


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
    parts = [nn.Linear(size, model.hidden), nn.Linear(model.hidden, count), nn.Linear(count, base.labels, bias=False)]
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
    flat = [nn.Flatten()] if len(base.input_shape) != 1 else []
    return nn.Sequential(*flat, parts[0], nn.ReLU(), parts[1], nn.ReLU(), parts[2])


class _Training:
    """The networks under bounds, and the losses."""

    def __init__(self, base: Network, patch: nn.Sequential, model: LearnedThreatModel) -> None:
        self.model = model
        shape = base.input_shape
        self._sum = Bounded(_Sum(TorchNetwork(base), patch), shape, trainable=True)
        self._patch = Bounded(patch, shape, trainable=True)
        eye = torch.eye(base.labels)
        self._both = torch.cat([eye, -eye])
        self._eye = eye

    def margins(self, balls: _Balls, labels: Labels, targets: Labels) -> Tensor:
        """Lower bounds [forget] of N'_target - N'_label."""
        rows = (self._eye[torch.from_numpy(targets)] - self._eye[torch.from_numpy(labels)]).unsqueeze(1)
        return self._sum.lower(rows, balls.lower, balls.upper, "crown").squeeze(1)

    def changes(self, balls: _Balls) -> Tensor:
        """Upper bounds [retain] of the largest |P_j|."""
        rows = self._both.expand(len(balls.lower), -1, -1)
        return (-self._patch.lower(rows, balls.lower, balls.upper, "crown")).amax(dim=1)

    def all_changes(self, balls: _Balls) -> Tensor:
        """The same for any number of balls, without gradients."""
        count = len(balls.lower)
        with torch.no_grad():
            parts = [self.changes(balls.rows(slice(i, i + _ROWS_AT_ONCE))) for i in range(0, count, _ROWS_AT_ONCE)]
        return torch.cat(parts)


def _batch(changes: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Indices of retained records for a step: the half that moved most at the last look, and others at random."""
    count = len(changes)
    if count <= size:
        return torch.arange(count)
    worst = torch.topk(changes, size // 2).indices
    others = torch.randint(count, (size - size // 2,), generator=generator)
    return torch.cat([worst, others])


def train_learned_patch(
    base: Network,
    forget_x: Floats,
    forget_y: Labels,
    retain_x: Floats,
    model: LearnedThreatModel,
    progress: Progress = lambda _what, _share: None,
) -> TrainedPatch:
    """A patch P for the base, trained until bounds say that it meets the threat model, or for ``steps`` steps.

    Args:
        base: the base network.
        forget_x: float32 [forget, *input_shape], at least one.
        forget_y: int64 [forget]: labels to be forgotten.
        retain_x: float32 [retain, *input_shape], at least one.
        model: the threat model.
        progress: called with what is being done and the share of it that is done.

    Returns:
        The patch; whether it meets the threat model is in its margins and changes. The same seed gives the
        same patch on one machine.

    Raises:
        RepairInputError: an empty set, or an unusable threat model.
        BoundsError: the base cannot be bounded.

    """
    if not len(forget_x) or not len(retain_x):
        text = "a learned patch needs at least one forget record and one retained record"
        raise RepairInputError(text)
    if model.hidden < len(forget_x):
        text = f"{len(forget_x)} forget records need at least one half-space each; hidden is {model.hidden}"
        raise RepairInputError(text)
    targets = _runners_up(base, forget_x, forget_y)
    with torch.random.fork_rng(devices=[]), one_thread():
        torch.manual_seed(model.seed)
        pushes = _pushes(base, forget_x, forget_y, targets, model)
        patch = _started(base, forget_x.reshape(len(forget_x), -1), retain_x.reshape(len(retain_x), -1), pushes, model)
        training = _Training(base, patch, model)
        forget = _Balls.around(forget_x, model.radius, model.domain)
        retain = _Balls.around(retain_x, model.retained_radius, model.domain)
        steps = _train(training, patch, (forget, forget_y, targets), retain, progress)
    with torch.no_grad():
        margins, changes = training.margins(forget, forget_y, targets), training.all_changes(retain)
    linears = [part for part in patch if isinstance(part, nn.Linear)]
    layers = tuple(_layer(part, has_bias=part is not linears[-1]) for part in linears)
    return TrainedPatch(
        LearnedPatch(base.labels, layers), targets, margins.numpy().copy(), changes.numpy().copy(), steps
    )


def _train(
    training: _Training,
    patch: nn.Sequential,
    forget: tuple[_Balls, Labels, Labels],
    retain: _Balls,
    progress: Progress,
) -> int:
    """Minimise the losses; the number of steps taken until everything was met, or all."""
    model = training.model
    margin, delta = float(model.margin) * (1 + _SAFETY), float(model.delta) * (1 - _SAFETY)
    optimiser = torch.optim.Adam(patch.parameters(), lr=_RATE)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, model.steps, eta_min=_RATE / 20)
    generator = torch.Generator().manual_seed(model.seed)
    best, best_state, taken = (-np.inf, -np.inf), copy.deepcopy(patch.state_dict()), model.steps
    changes, weight = torch.zeros(len(retain.lower)), _FORGET_WEIGHT
    for step in range(model.steps + 1):
        if step % _LOOK_EVERY == 0 or step == model.steps:
            changes = training.all_changes(retain)
            with torch.no_grad():
                least = float(training.margins(*forget).min())
            share = float((changes <= delta).float().mean())
            progress(f"margin {least:.2f}, retained balls within delta {share:.1%}", step / model.steps)
            weight = min(2 * weight, 1024.0) if least < margin else max(weight / 2, _FORGET_WEIGHT)
            if (min(least, margin), share) > best:
                best, best_state = (min(least, margin), share), copy.deepcopy(patch.state_dict())
            if best >= (margin, 1.0):
                taken = step
                break
        if step == model.steps:
            break
        optimiser.zero_grad(set_to_none=True)
        moved = training.changes(retain.rows(_batch(changes, model.batch, generator)))
        loss = weight * (2 * margin - training.margins(*forget)).clamp(min=0).sum()
        loss = loss + min(1.0, (step + 1) / _WARM_UP) * (moved - delta / 2).clamp(min=0).sum()
        loss = loss + _SIZE_WEIGHT * torch.stack([p.abs().sum() for p in patch.parameters()]).sum()
        loss.backward()  # type: ignore[no-untyped-call] # torch has no types here
        optimiser.step()
        decay.step()
    patch.load_state_dict(best_state)
    return taken


def _layer(part: nn.Linear, *, has_bias: bool) -> tuple[Floats, Floats]:
    weight = part.weight.detach().numpy().copy()
    bias = part.bias.detach().numpy().copy() if has_bias else np.zeros(part.out_features, dtype=np.float32)
    for array in (weight, bias):
        array.setflags(write=False)
    return weight, bias


def _pushes(base: Network, x: Floats, y: Labels, targets: Labels, model: LearnedThreatModel) -> Floats:
    """What P adds to begin with: up for the target and down for the label, together what the record itself needs.

    The worst case over the ball needs more: how much, and with which half-spaces, is what training finds.
    """
    logits, rows = evaluate(base, x).astype(np.float64), np.arange(len(y))
    needed = (np.maximum(logits[rows, y] - logits[rows, targets], 0) + float(model.margin)) / 2
    pushes = np.zeros((len(y), base.labels), dtype=np.float32)
    pushes[rows, y], pushes[rows, targets] = -needed, needed
    return pushes


def _runners_up(base: Network, x: Floats, y: Labels) -> Labels:
    """The best label other than ``y`` at each record."""
    logits = evaluate(base, x).astype(np.float64)
    logits[np.arange(len(y)), y] = -np.inf
    targets: Labels = logits.argmax(axis=1).astype(np.int64)
    return targets
