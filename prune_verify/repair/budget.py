"""When patches have grown so far that it is time to retrain, with the figures.

Advice, never a refusal: the owner decides. Latency is measured here, in onnxruntime on one thread, base and patched
network in turns; bytes are those of the files; what a patch changes elsewhere is counted on rows that the owner gives.

Source: MATHS 4.4 (streams; when to retrain).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from prune_verify.checker.encoding import Json

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
        hits: share of test rows whose outputs the patch changes.

    """

    patch_share: float = 0.5
    latency_factor: float = 4.0
    hits: float = 0.001


@dataclass(frozen=True)
class Growth:
    """How large they are.

    Args:
        patch_share: as in the budget.
        latency_factor: as in the budget.
        hits: as in the budget; None where no test rows were given.
        repair_seconds: spent on all requests so far.
        prove_seconds: of the last certificate, which proves all live requests again; None where not given.
        retrain_seconds: what retraining takes; None where not given.

    """

    patch_share: float
    latency_factor: float
    hits: float | None = None
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


def measure_growth(base: bytes, patched: bytes, rows: Floats, test: Floats | None) -> Growth:
    """Measure a patched network against its base.

    Args:
        base: ONNX bytes.
        patched: ONNX bytes.
        rows: float32 [some, *input_shape], for the latency.
        test: float32 [some, *input_shape], or None.

    """
    sessions = _session(base), _session(patched)
    shape = sessions[0].get_inputs()[0].shape
    batch = int(shape[0]) if isinstance(shape[0], int) else min(_BATCH, len(rows))
    factor = _latency(*sessions, np.ascontiguousarray(rows[:batch]))
    hits = None
    if test is not None:
        changed, step = 0, batch if isinstance(shape[0], int) else _ROWS_AT_ONCE
        for start in range(0, len(test), step):
            part = np.ascontiguousarray(test[start : start + step])
            one, other = (session.run(None, {session.get_inputs()[0].name: part})[0] for session in sessions)
            changed += int((one != other).reshape(len(part), -1).any(axis=1).sum())
        hits = changed / len(test)
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
        )
        if value is not None and value > limit
    ]
    if not over:
        return []
    spent = f"repairing took {growth.repair_seconds:.1f} s so far"
    if growth.prove_seconds is not None:
        spent += f", proving all live requests again {growth.prove_seconds:.1f} s"
    against = "" if growth.retrain_seconds is None else f"; retraining takes {growth.retrain_seconds:.1f} s"
    return [f"time to retrain: {'; '.join(over)}", f"{spent}{against}"]
