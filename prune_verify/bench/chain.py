"""The chain as a user runs it, for the benchmarks: every verb a process of its own, from repair to the verdict.

Time and peak memory of a verb are the operating system's. Latencies are medians of interleaved onnxruntime runs of
base and patched network on one thread, given as ratios.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "BATCHES",
    "BenchError",
    "Chain",
    "Cost",
    "Links",
    "Task",
    "UnmetError",
    "accuracy_of",
    "answers_of",
    "latency_of",
    "timed",
]

Say = Callable[[str], None]
Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
_MEBI = 2**20
BATCHES = (1, 256)
_UNMET = 3


class BenchError(Exception):
    """A verb did not end as it must, or data are missing; the message says which."""


class UnmetError(BenchError):
    """``repair`` says that the threat model cannot be met (exit 3); the message is what it says."""


@dataclass(frozen=True)
class Cost:
    """Wall seconds and peak resident memory (``mebibytes``) of one process."""

    seconds: float
    mebibytes: float


@dataclass(frozen=True, eq=False)
class Task:
    """A base network with its data.

    Args:
        name: for tables.
        base: ONNX bytes.
        x: training rows float32 [count, *row].
        y: labels int64 [count].
        test_x: held-out rows.
        test_y: their labels.
        options: further arguments of ``repair``.

    """

    name: str
    base: bytes
    x: Floats
    y: Labels
    test_x: Floats
    test_y: Labels
    options: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Links:
    """One run of the chain.

    Args:
        repair: cost of ``repair``.
        certify: cost of ``certify``.
        verify: cost of ``verify``.
        repaired: what ``repair --json`` said.
        claims: what ``certify --json`` said of each claim.
        verdict: what ``verify --json`` said.
        folder: with base.onnx, patched.onnx, patch.json and the rest.

    """

    repair: Cost
    certify: Cost
    verify: Cost
    repaired: dict[str, Any]
    claims: list[dict[str, Any]]
    verdict: dict[str, Any]
    folder: Path

    @property
    def ended(self) -> str:
        """Verdict and code."""
        return f"{self.verdict['verdict']} {self.verdict['code']}"


def timed(words: Sequence[str | Path]) -> tuple[Cost, int, str]:
    """Run one verb, the words of a command line, in a process of its own.

    Returns:
        Its cost, exit code and standard output.

    Raises:
        BenchError: the process was killed, or ended without an answer.

    """
    command = [sys.executable, "-m", "prune_verify.cli", *(str(word) for word in words)]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        start = time.monotonic()
        child = subprocess.Popen(command, stdout=out, stderr=errors)  # noqa: S603 - this interpreter and this package
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.monotonic() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        for stream in (out, errors):
            stream.seek(0)
        text, said = out.read(), errors.read()
    if child.returncode not in (0, 1, 3):
        message = f"{' '.join(str(w) for w in words)} ended with {child.returncode}: {text}{said}"
        raise BenchError(message)
    return Cost(seconds, usage.ru_maxrss * 1024 / _MEBI), child.returncode, text


class Chain:
    """The chain in one folder, with one owner and one auditor, who takes any radius, conflict and band."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key, self._trust = folder / "owner", folder / "trust.json"
        timed(["keygen", "--out", self._key])
        timed(["trust", "init", self._trust])
        timed(["trust", "add", self._trust, "--key", f"{self._key}.pub", "--role", "prover", "--name", "bench"])
        policy = folder / "policy.toml"
        text = policy.read_text()
        text = text.replace("max_conflicts = 0", "max_conflicts = 1000000")
        for name in ("min_forget_radius = 0.1", "min_retained_radius = 0.05"):
            text = text.replace(name, name.split("=")[0] + "= 0.000001")
        text = text.replace("max_already_wrong_share = 0.1", "max_already_wrong_share = 1")
        policy.write_text(text.replace("max_slab_share = 0.001", "max_slab_share = 1"))

    def run(
        self,
        name: str,
        task: Task,
        sets: dict[str, Labels],
        options: Sequence[str | Path] = (),
        demanded: tuple[str, str] = ("required_for_records", ""),
    ) -> Links:
        """Repair, certify, sign and verify.

        Args:
            name: of the folder.
            task: base network and rows.
            sets: rows of ``forget`` and ``retain``; neither for a class request.
            options: further ones of ``repair``.
            demanded: a member of the policy and the TOML value it is to have; as it is where that is empty.

        Raises:
            UnmetError: repair ended with 3.
            BenchError: a verb ended otherwise than with success, a proof that is lacking, or a demand that is not met.

        """
        out = self.folder / name
        base, patched, certificate = out / "base.onnx", out / "patched.onnx", out / "bench.unlearn.json"
        repaired, repair = self.repair_only(out, task, sets, options)
        names = {which: out / f"{which}.npz" for which in sets}
        both: list[str | Path] = [word for which, path in names.items() for word in (f"--{which}", path)]
        request: list[str | Path] = ["--request", out / "request.json"]
        certify, _, claims = timed(
            ["certify", base, patched, *request, *both, "--cross-check", "3", "--out", out, "--json"]
        )
        timed(["sign", out / "statement.json", "--key", f"{self._key}.key", "--out", certificate])
        own: list[str | Path] = ["--trust", self._trust, "--policy", self._policy(out, demanded)]
        words = ["verify", certificate, "--base", base, "--patched", patched, *own, *both, "--json"]
        verify, _, verdict = timed(words)
        return Links(repair, certify, verify, repaired, json.loads(claims)["claims"], json.loads(verdict), out)

    def repair_only(
        self, out: Path, task: Task, sets: dict[str, Labels], options: Sequence[str | Path] = ()
    ) -> tuple[dict[str, Any], Cost]:
        """Write base and sets to a new folder and repair into it.

        Args:
            out: the folder.
            task: base network and rows.
            sets: rows of ``forget`` and ``retain``; neither for a class request.
            options: further ones of ``repair``.

        Returns:
            What ``repair --json`` said, and its cost.

        Raises:
            UnmetError: it ended with 3.
            BenchError: it did not end with success.

        """
        out.mkdir()
        (out / "base.onnx").write_bytes(task.base)
        both: list[str | Path] = []
        for which, rows in sets.items():
            np.savez(out / f"asked-{which}.npz", x=task.x[rows], y=task.y[rows])
            np.savez(out / f"{which}.npz", x=task.x[rows], y=task.y[rows])
            both += [f"--{which}", out / f"asked-{which}.npz"]
        cost, code, said = timed(["repair", out / "base.onnx", *both, *options, "--out", out, "--json"])
        if code == _UNMET:
            raise UnmetError(json.loads(said)["error"])
        if code:
            raise BenchError(f"repair {out.name} ended with {code}: {said[:400]}")
        return json.loads(said), cost

    def _policy(self, out: Path, demanded: tuple[str, str]) -> Path:
        policy, (member, value) = self.folder / "policy.toml", demanded
        if not value:
            return policy
        lines = [f"{member} = {value}" if line.startswith(member) else line for line in policy.read_text().splitlines()]
        (out / "policy.toml").write_text("\n".join(lines) + "\n")
        return out / "policy.toml"


def _session(path: Path):  # type: ignore[no-untyped-def] # noqa: ANN202 - onnxruntime has no types
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def answers_of(path: Path, x: Floats) -> Floats:
    """What onnxruntime answers on rows x [rows, *input_shape]: float32 [rows, labels]."""
    session = _session(path)
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: x[start : start + 1000]})[0] for start in range(0, len(x), 1000)])


def accuracy_of(path: Path, task: Task) -> float:
    """Share of the held-out rows that onnxruntime answers with their label."""
    return float((answers_of(path, task.test_x).argmax(axis=1) == task.test_y).mean())


def latency_of(base: Path, patched: Path, x: Floats, batch: int) -> float:
    """Median patched time over median base time; the runs alternate, so that the machine's moods hit both.

    Args:
        base: the file.
        patched: the file.
        x: float32 [rows, *input_shape].
        batch: rows of one call.

    """
    sessions = [_session(base), _session(patched)]
    rows = np.ascontiguousarray(x[:batch])
    feeds = [{session.get_inputs()[0].name: rows} for session in sessions]
    times: list[list[float]] = [[], []]
    for turn in range(400 if batch == 1 else 120):
        for place, (session, feed) in enumerate(zip(sessions, feeds, strict=True)):
            start = time.perf_counter()
            session.run(None, feed)
            if turn >= 10:  # noqa: PLR2004 - the first runs warm caches
                times[place].append(time.perf_counter() - start)
    return median(times[1]) / median(times[0])
