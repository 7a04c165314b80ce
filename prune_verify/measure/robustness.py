"""How far forgetting reaches: whether forgotten records are still forgotten when noise, a shift or light changes them.

Measured on deployed files through onnxruntime, never proved; a record counts as forgotten under a perturbation only
where it is in all of its draws.

Source: MATHS 4.1 (semantic forgetting); intervals: Clopper and Pearson, Biometrika 26 (1934).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from prune_verify.measure.roc import clopper_pearson
from prune_verify.repair.copies import shifted_copies

__all__ = ["Forgetting", "forgetting", "session_answers", "session_logits"]

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
_LEVELS = 255
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Forgetting:
    """How many records are still forgotten under one kind of perturbation.

    Args:
        perturbation: in words.
        forgotten: records whose label is not answered strictly in any draw.
        records: in all.
        interval: of the share, exact, 95 %.

    """

    perturbation: str
    forgotten: int
    records: int
    interval: tuple[float, float]

    @property
    def share(self) -> float:
        """Of the records, in [0, 1]."""
        return self.forgotten / self.records


def session_logits(model: bytes) -> Callable[[Floats], Floats]:
    """A function from rows to the logits that onnxruntime gives for a model: float32 [rows, labels]."""
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def logits(rows: Floats) -> Floats:
        parts = [rows[start : start + _ROWS_AT_ONCE] for start in range(0, len(rows), _ROWS_AT_ONCE)]
        return np.concatenate([session.run(None, {name: part})[0].reshape(len(part), -1) for part in parts])

    return logits


def session_answers(model: bytes) -> Callable[[Floats], Labels]:
    """A function from rows to the label that onnxruntime answers for a model, or -1 where the best logit is tied."""
    logits_of = session_logits(model)

    def answers(rows: Floats) -> Labels:
        logits = logits_of(rows)
        best = logits.max(axis=1, keepdims=True)
        return np.where((logits == best).sum(axis=1) == 1, logits.argmax(axis=1), -1).astype(np.int64)

    return answers


def _draws(
    x: Floats, image: tuple[int, int] | None, noise: int, draws: int, seed: int, ends: tuple[float, float]
) -> Iterator[tuple[str, Floats]]:
    """Names of perturbations and perturbed rows [draws, rows, *row]."""
    rng, (low, high) = np.random.default_rng(seed), ends

    def noisy(rows: Floats) -> Floats:
        steps = rng.uniform(-noise, noise, rows.shape) * (high - low) / _LEVELS
        found: Floats = np.clip(rows + steps, low, high).astype(np.float32)
        return found

    grey = f"noise of {noise}/{_LEVELS} on every number"
    yield "none", x[np.newaxis]
    yield grey, np.stack([noisy(x) for _ in range(draws)])
    for change in (-0.1, 0.1):
        lit = np.clip(x + np.float32(change * (high - low)), low, high).astype(np.float32)
        yield f"brightness {change:+g}", lit[np.newaxis]
    if image is not None:
        copies = np.moveaxis(shifted_copies(x, *image, 1, fill=low), 1, 0)
        yield "one pixel, each way", np.ascontiguousarray(copies[1:])
        every = np.concatenate([noisy(copies) for _ in range(draws)])
        yield f"one pixel each way or none, and {grey}", every


def forgetting(
    model: bytes,
    x: Floats,
    y: Labels,
    *,
    image: tuple[int, int] | None = None,
    noise: int = 1,
    draws: int = 5,
    seed: int = 0,
    ends: tuple[float, float] = (0.0, 1.0),
) -> tuple[Forgetting, ...]:
    """How many records a deployed network still does not answer with their label, by perturbation.

    Args:
        model: ONNX bytes.
        x: float32 [rows, *input_shape].
        y: int64 [rows]: labels to be forgotten.
        image: height and width of a row, where it is a picture; shifts are left out where it is not.
        noise: most change of a number, in 255ths of the domain.
        draws: of noise, for every row.
        seed: of noise.
        ends: of the domain.

    Raises:
        ValueError: no rows, or another number of labels.

    """
    if not len(x) or len(x) != len(y):
        text = f"expected at least one row and a label for each, found {len(x)} and {len(y)}"
        raise ValueError(text)
    answers, found = session_answers(model), []
    for name, rows in _draws(x, image, noise, draws, seed, ends):
        away = answers(rows.reshape(-1, *x.shape[1:])).reshape(len(rows), len(x)) != y
        hits = int(away.all(axis=0).sum())
        found.append(Forgetting(name, hits, len(x), clopper_pearson(hits, len(x))))
    return tuple(found)
