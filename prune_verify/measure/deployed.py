"""What a deployed network answers and what it costs: onnxruntime on one thread, the file as it is served.

Latency of two networks is taken in turns, so that whatever else the machine does hits both alike; the ratio is the
figure that another machine can repeat.

Source: ONNX Runtime, ``InferenceSession`` and its session options; proc(5) for memory.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnx import TensorProto, load_from_string
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from prune_verify.measure.errors import MeasureInputError

__all__ = ["Deployed", "Spread", "interleaved_latency", "parameters_of", "peak_memory", "spread"]

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
_ROWS_AT_ONCE = 512
_REFUSED = (ort_errors.Fail, ort_errors.InvalidArgument, ort_errors.InvalidGraph, ort_errors.NotImplemented)
_LEAST_NANOSECONDS = 200_000  # of one timed stretch: far above what a clock costs, below what a busy machine grants
_MOST_REPEATS = 1000


class Deployed:
    """A network in onnxruntime, on one thread.

    Args:
        model: ONNX bytes.
        name: of the file, for errors.

    Raises:
        MeasureInputError: onnxruntime does not load it.

    """

    def __init__(self, model: bytes, name: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except _REFUSED as error:
            text = f"{name}: expected a network that onnxruntime loads, found: {error}"
            raise MeasureInputError(text) from None
        self._input = self._session.get_inputs()[0].name

    def run(self, rows: Floats) -> Floats:
        """Logits float32 [rows, labels] of one batch."""
        found: Floats = self._session.run(None, {self._input: rows})[0]
        return found.reshape(len(rows), -1)

    def logits(self, rows: Floats) -> Floats:
        """Logits float32 [rows, labels], in batches."""
        parts = [self.run(rows[start : start + _ROWS_AT_ONCE]) for start in range(0, len(rows), _ROWS_AT_ONCE)]
        return np.concatenate(parts)


@dataclass(frozen=True)
class Spread:
    """Median and quartiles, ``low`` and ``high``, of something measured several times."""

    median: float
    low: float
    high: float


def spread(values: Doubles) -> Spread:
    """Median and quartiles of at least one of the values [n]."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return Spread(float(middle), float(low), float(high))


def _stretch(network: Deployed, rows: Floats, repeats: int) -> int:
    start = perf_counter_ns()
    for _ in range(repeats):
        network.run(rows)
    return perf_counter_ns() - start


def interleaved_latency(first: Deployed, second: Deployed, rows: Floats, rounds: int) -> tuple[Spread, Spread, Spread]:
    """Time per row of two networks, taken in turns.

    Args:
        first: the network to compare with.
        second: the other.
        rows: float32 [batch, *row], one batch.
        rounds: how often each is timed.

    Returns:
        Microseconds per row of the first and of the second, and the ratio of the second to the first, round by round.

    """
    for network in (first, second):
        network.run(rows)  # the first run allocates
    once = max(1, _stretch(first, rows, 3) // 3)
    repeats = min(max(1, -(-_LEAST_NANOSECONDS // once)), _MOST_REPEATS)
    times = np.empty((2, rounds))
    for turn in range(rounds):
        for place in (0, 1) if turn % 2 == 0 else (1, 0):
            times[place, turn] = _stretch((first, second)[place], rows, repeats)
    each = times / (repeats * len(rows) * 1000)
    return spread(each[0]), spread(each[1]), spread(times[1] / times[0])


def parameters_of(model: bytes) -> int:
    """Numbers that the file of a model stores as floating point: initialisers and constants, at any depth of use."""
    graph = load_from_string(model).graph
    floats = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16}
    tensors = list(graph.initializer)
    tensors += [a.t for node in graph.node if node.op_type == "Constant" for a in node.attribute if a.name == "value"]
    return int(sum(np.prod(t.dims, dtype=np.int64) for t in tensors if t.data_type in floats))


def peak_memory(model: bytes, rows: Floats) -> float | None:
    """MiB that a fresh process needs beyond onnxruntime itself to answer these rows once; None where Linux is not.

    Args:
        model: ONNX bytes.
        rows: float32 [batch, *row].

    Raises:
        MeasureInputError: the process could not measure it.

    """
    if not Path("/proc/self/status").exists():
        return None
    with tempfile.TemporaryDirectory() as name:
        np.save(Path(name) / "rows.npy", rows)
        (Path(name) / "model.onnx").write_bytes(model)
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH", "")) if p)
        command = [sys.executable, "-m", "prune_verify.measure.peak_memory", name]
        environment = {**os.environ, "PYTHONPATH": path}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)  # noqa: S603 - this interpreter
    if done.returncode:
        text = (
            f"peak memory: expected a process that answers the rows, found exit code {done.returncode}: {done.stderr}"
        )
        raise MeasureInputError(text)
    return float(done.stdout) / 1024
