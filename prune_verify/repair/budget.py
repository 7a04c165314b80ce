"""When patches have grown so far that it is time to retrain, with the figures.

Advice, never a refusal: the owner decides. Latency is measured here, in onnxruntime on one thread, base and patched
network in turns; bytes are those of the files; what a patch changes elsewhere is counted on rows that the owner gives,
and on the retained records. What a class request takes away is meant to go and is not counted.

Source: MATHS 4.4 (streams; when to retrain).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, fields
from math import isfinite
from statistics import median

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from prune_verify.checker.encoding import Json
from prune_verify.repair.errors import RepairInputError

__all__ = ["Budget", "Growth", "advice", "measure_growth"]

Floats = npt.NDArray[np.float32]
_TURNS = 60
_WARM = 5
_BATCH = 64
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Budget:
    """How large patches may grow.

    Args:
        patch_share: bytes that the patch adds, as a share of the base's file.
        latency_factor: time of the patched network over that of the base, batches of 64 rows.
        hits: share of test rows whose outputs the patch changes, and of retained records inside supports.

    Raises:
        RepairInputError: a limit that is no finite number from 0.

    """

    patch_share: float = 0.5
    latency_factor: float = 4.0
    hits: float = 0.001

    def __post_init__(self) -> None:
        options = ("--most-patch-share", "--most-latency", "--most-hits")
        for option, item in zip(options, fields(self), strict=True):
            value = getattr(self, item.name)
            if not (isfinite(value) and value >= 0):
                text = f"{option}: expected a number from 0, got {value}"
                raise RepairInputError(text)


@dataclass(frozen=True)
class Growth:
    """How large they are.

    Args:
        patch_share: as in the budget.
        latency_factor: as in the budget.
        hits: share of test rows; None where none were given.
        retained_hits: share of retained records inside supports; None where none were given.
        repair_seconds: spent on all requests so far.
        prove_seconds: spent on their certificates so far, each of which proves all live requests again; None where it
            was never given.
        retrain_seconds: what retraining takes; None where not given.

    """

    patch_share: float
    latency_factor: float
    hits: float | None = None
    retained_hits: float | None = None
    repair_seconds: float = 0.0
    prove_seconds: float | None = None
    retrain_seconds: float | None = None

    def plain(self) -> dict[str, Json]:
        """For ``--json``: decimals as strings."""
        return {name: None if value is None else f"{value:.6g}" for name, value in vars(self).items()}


def _session(model: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _filled(rows: Floats, batch: int) -> Floats:
    """A batch of exactly so many rows: the first ones, again and again where there are fewer."""
    return np.ascontiguousarray(np.resize(rows[:batch], (batch, *rows.shape[1:])))


def _latency(base: ort.InferenceSession, patched: ort.InferenceSession, rows: Floats) -> float:
    """Median time of the patched network over that of the base; the runs alternate."""
    times: list[list[float]] = [[], []]
    for turn in range(_TURNS):
        for place, session in enumerate((base, patched)):
            start = time.perf_counter()
            session.run(None, {session.get_inputs()[0].name: rows})
            if turn >= _WARM:
                times[place].append(time.perf_counter() - start)
    return median(times[1]) / median(times[0])


def _changed(
    base: ort.InferenceSession, patched: ort.InferenceSession, rows: Floats, step: int, kept: tuple[int, ...]
) -> int:
    """On how many rows a logit of the labels ``kept`` differs between the two."""
    changed = 0
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        full = _filled(part, step) if len(part) < step else np.ascontiguousarray(part)
        one, other = (s.run(None, {s.get_inputs()[0].name: full})[0].reshape(step, -1) for s in (base, patched))
        differs = (one[:, list(kept)] != other[:, list(kept)]).any(axis=1)
        changed += int(differs[: len(part)].sum())
    return changed


def measure_growth(base: bytes, patched: bytes, rows: Floats, test: Floats | None, kept: tuple[int, ...]) -> Growth:
    """Measure a patched network against its base.

    Args:
        base: ONNX bytes.
        patched: ONNX bytes.
        rows: float32 [some, *input_shape], at least one, for the latency.
        test: float32 [some, *input_shape], or None.
        kept: labels that are not forgotten as a class; test rows count where a logit of these changes.

    Returns:
        Shares of bytes and of test rows, and the factor of the latency.

    """
    sessions = _session(base), _session(patched)
    fixed = sessions[0].get_inputs()[0].shape[0]
    fixed = fixed if isinstance(fixed, int) else None
    factor = _latency(*sessions, _filled(rows, fixed or min(_BATCH, len(rows))))
    hits = None
    if test is not None:
        hits = _changed(*sessions, test, fixed or min(_ROWS_AT_ONCE, len(test)), kept) / len(test)
    return Growth((len(patched) - len(base)) / len(base), factor, hits)


def advice(growth: Growth, budget: Budget) -> list[str]:
    """What is over the budget, and what it costs beside retraining; empty where nothing is.

    Args:
        growth: as measured.
        budget: as asked.

    """
    over = [
        f"{name} {value:.4g}, budget {limit:g}"
        for name, value, limit in (
            ("bytes of the patch over those of the base", growth.patch_share, budget.patch_share),
            ("latency over that of the base", growth.latency_factor, budget.latency_factor),
            ("share of test rows changed", growth.hits, budget.hits),
            ("share of retained records inside supports", growth.retained_hits, budget.hits),
        )
        if value is not None and value > limit
    ]
    return [f"time to retrain: {'; '.join(over)}", _costs(growth)] if over else []


def _costs(growth: Growth) -> str:
    """What was spent so far, beside what retraining takes."""
    spent, total = f"repairing took {growth.repair_seconds:.1f} s so far", growth.repair_seconds
    if growth.prove_seconds is not None:
        spent += f", proving all live requests again {growth.prove_seconds:.1f} s"
        total += growth.prove_seconds
    if growth.retrain_seconds is None:
        return spent
    share = 100 * total / growth.retrain_seconds
    return f"{spent}; retraining takes {growth.retrain_seconds:.1f} s, and {share:.3g} % of that is spent"
