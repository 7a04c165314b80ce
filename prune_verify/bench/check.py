"""``prune-verify bench check``: how long proofs take to find and to check, and how they grow with their leaves.

The instances are those of VNN-COMP that published tools agree to be ``unsat``, in ``DATA/vnncomp``; each is proved
by the plain branch and bound and checked in the same process. Then one full pass (every enclosure proved, nine
output rows) over two networks, the float32 claim beside the real one, and leaves in large batches.

Source: MATHS 5.2 (figures to beat).
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from statistics import median

import numpy as np

from prune_verify.certify.prove_command import prove_goals
from prune_verify.checker.goals import decide_goals
from prune_verify.checker.interval import BINARY32, Floats, Intervals
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.network import Network, Node
from prune_verify.checker.proof import emit, parse
from prune_verify.checker.relaxation import Hints, crown_intervals, lower_bounds
from prune_verify.checker.vnnlib import goals_of_property, parse_property

__all__ = ["CheckRow", "run_bench_check"]

REAL = "real"
_REPEATS = 5
_LEAVES = 4096
Say = Callable[[str], None]
HEADER = (
    f"{'instance':<34}{'arithmetic':>17}{'leaves':>8}{'bytes':>10}{'prove s':>9}{'check s':>9}{'ratio':>7}  checked"
)


@dataclass(frozen=True)
class CheckRow:
    """One instance: proved and checked.

    Args:
        instance: its name.
        arithmetic: of the claim.
        leaves: of the split tree.
        size: of the proof, in bytes.
        prove: seconds.
        check: seconds.
        proved: whether it was.

    """

    instance: str
    arithmetic: str
    leaves: int
    size: int
    prove: float
    check: float
    proved: bool

    def text(self) -> str:
        """One line of the table."""
        ratio = f"{self.prove / self.check:.1f}" if self.proved else "-"
        answer = "unsat" if self.proved else "unknown"
        return (
            f"{self.instance:<34}{self.arithmetic:>17}{self.leaves:>8}{self.size:>10}{self.prove:>9.2f}{self.check:>9.3f}"
            f"{ratio:>7}  {answer}"
        )


def _instances(data: Path, *, quick: bool) -> list[tuple[Path, Path]]:
    """Networks and properties on which published tools agree on ``unsat``."""
    found = []
    for folder in sorted((data / "vnncomp").iterdir()):
        with (folder / "expected_2022.csv").open(encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["agreed"] == "unsat"]
        found += [(folder / row["onnx"], folder / row["vnnlib"]) for row in rows[: 3 if quick else None]]
    return found


def _best(run: Callable[[], object]) -> float:
    """The least of a few wall times, in seconds."""
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def _row(network: Network, name: str, question: Path, arithmetic: str, timeout: float) -> CheckRow:
    cases = parse_property(question.read_bytes(), question.name, prod(network.input_shape), network.labels)
    goals = goals_of_property(network, cases, arithmetic)
    found = prove_goals(goals, timeout)
    data = emit(found.proof)
    start = time.perf_counter()
    proved = bool(decide_goals(goals, parse(data, "proof"), "proof").all())
    check = time.perf_counter() - start
    return CheckRow(f"{name} {question.stem}", arithmetic, found.leaves, len(data), found.seconds, check, proved)


def _random_chain(widths: tuple[int, ...]) -> Network:
    rng = np.random.default_rng(0)
    nodes = [Node("Input", (), (widths[0],))]
    for place, (inner, outer) in enumerate(zip(widths, widths[1:], strict=False)):
        if place:
            nodes.append(Node("Relu", (len(nodes) - 1,), (inner,)))
        weight = (rng.standard_normal((outer, inner)) * (2 / inner) ** 0.5).astype(np.float32)
        arrays = {"weight": weight, "bias": np.zeros(outer, np.float32)}
        nodes.append(Node("Linear", (len(nodes) - 1,), (outer,), {"axis": (-1,)}, arrays))
    return Network(tuple(nodes), len(nodes) - 1)


@dataclass(frozen=True, eq=False)
class _Pass:
    """A network over one box of radius 0.03, with nine output rows."""

    network: Network
    low: Floats
    high: Floats
    rows: Floats

    def full(self, arithmetic: str) -> Intervals:
        """Every enclosure proved, and the output rows bounded."""
        intervals = crown_intervals(self.network, self.low, self.high, arithmetic)
        lower_bounds(self.network, intervals, self.rows, Hints(), arithmetic, np.zeros(len(self.rows), dtype=np.int64))
        return intervals

    def seconds(self, arithmetic: str) -> tuple[float, float]:
        """Of a full pass, and of a large batch of leaves, one bound each."""
        intervals = self.full(arithmetic)
        tiled, places = np.repeat(self.rows[:1], _LEAVES, axis=0), np.zeros(_LEAVES, dtype=np.int64)
        batch = _best(lambda: lower_bounds(self.network, intervals, tiled, Hints(), arithmetic, places))
        return _best(lambda: self.full(arithmetic)), batch


def _passes() -> list[str]:
    """Full passes, and leaves in large batches, for a small and a deep network with random weights."""
    lines = []
    for name, widths in (("784-256-256-10", (784, 256, 256, 10)), ("784-6x256-10", (784, *[256] * 6, 10))):
        middle = np.random.default_rng(1).random((1, 784))
        low, high = np.clip(middle - 0.03, 0, 1), np.clip(middle + 0.03, 0, 1)
        one = _Pass(_random_chain(widths), low, high, np.eye(10)[[0] * 9] - np.eye(10)[1:])
        (real, leaves), (single, other) = one.seconds(REAL), one.seconds(BINARY32)
        lines.append(
            f"{name}: full pass {real:.3f} s real, {single / real:.2f} times that in float32; "
            f"{_LEAVES / leaves:,.0f} leaves a second real, {other / leaves:.2f} times as long in float32"
        )
    return lines


def _growth(rows: list[CheckRow]) -> float:
    """The power of leaves with which the bytes of a proof grow."""
    split = [row for row in rows if row.proved and row.leaves > 1]
    if len({row.leaves for row in split}) < 2:  # noqa: PLR2004 - a slope
        return 0.0
    slope: float = np.polyfit([np.log(r.leaves) for r in split], [np.log(r.size) for r in split], 1)[0]
    return slope


def run_bench_check(data: Path, *, quick: bool, say: Say) -> tuple[int, str, dict[str, object]]:
    """Prove and check every instance, and time the kernel alone.

    Args:
        data: folder with vnncomp/.
        quick: three instances of each network, 10 seconds each.
        say: sink for progress lines.

    Returns:
        Exit code, tables, and the object for ``--json``.

    """
    rows = []
    for path, question in _instances(data, quick=quick):
        network = load_network(path.read_bytes(), path.name).network
        for arithmetic in (REAL, BINARY32):
            row = _row(network, path.stem[-14:], question, arithmetic, 10.0 if quick else 60.0)
            rows.append(row)
            say(row.text())
    optimised = [row.prove / row.check for row in rows if row.proved and row.leaves] or [0.0]
    lines = [
        HEADER,
        *(row.text() for row in rows),
        (
            f"{sum(row.proved for row in rows)} of {len(rows)} proved; with optimised bounds or splits, proving took "
            f"{median(optimised):.1f} times as long as checking (median; least {min(optimised):.1f})"
        ),
        f"bytes grow with leaves to the power {_growth(rows):.2f}",
        *_passes(),
    ]
    return 0, "\n".join(lines), {"rows": [vars(row) for row in rows], "lines": lines[-4:]}
