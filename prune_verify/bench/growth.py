"""``prune-verify bench chain``: how long the chain takes, how much memory it needs, and how both grow."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import log
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

from prune_verify.bench.chain import BATCHES, BenchError, Chain, Cost, Task, accuracy_of, latency_of

__all__ = ["run_bench_chain"]

Say = Callable[[str], None]
Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Row:
    """One measured run of the chain."""

    task: str
    forget: int
    retain: int
    repair: Cost
    repair_per_request: float
    certify: Cost
    verify: Cost
    verdict: str
    conflicts: int
    coordinates_median: float
    coordinates_max: int
    accuracy_before: float
    accuracy_after: float
    patch_bytes_share: float
    latency: dict[int, float] = field(default_factory=dict)

    def text(self) -> str:
        """One line of the table."""
        slower = "  ".join(f"x{self.latency[batch]:.2f}" for batch in BATCHES)
        return (
            f"{self.task:<10}{self.forget:>6}{self.retain:>7}"
            f"{self.repair.seconds:>9.1f}{self.repair_per_request:>8.3f}{self.certify.seconds:>9.1f}{self.verify.seconds:>8.1f}"
            f"{max(self.repair.mebibytes, self.certify.mebibytes):>8.0f}{self.verify.mebibytes:>8.0f}"
            f"{self.conflicts:>5}{self.coordinates_median:>6.0f}{self.coordinates_max:>4}"
            f"{100 * self.accuracy_before:>8.2f}{100 * self.accuracy_after:>7.2f}"
            f"{100 * self.patch_bytes_share:>8.3f}  {slower}  {self.verdict}"
        )


HEADER = (
    f"{'network':<10}{'forget':>6}{'retain':>7}{'repair s':>9}{'s/req':>8}{'certify s':>9}{'verify s':>8}"
    f"{'MiB':>8}{'ver MiB':>8}{'conf':>5}{'coord':>6}{'max':>4}{'acc %':>8}{'after':>7}{'%/patch':>8}"
    "  latency at batch 1, 256"
)


def _others(task: Task, order: Labels, forget: int, retain: int, say: Say) -> Labels:
    """The retained rows, without those that equal a forgotten one (tables have such twins)."""
    forgotten = {task.x[row].tobytes() for row in order[:forget]}
    rows = [int(row) for row in order[forget:] if task.x[row].tobytes() not in forgotten]
    twins = len(order) - forget - len(rows)
    if twins:
        say(f"{task.name}: {twins} records are twins of forgotten ones and cannot be retained")
    return np.sort(np.array(rows[:retain]))


def _measured(chain: Chain, task: Task, sizes: tuple[int, int], seed: int, say: Say) -> Row:
    """Forget records with others retained, all the way to the auditor's verdict."""
    forget, retain = sizes
    say(f"{task.name}: {forget} forgotten, {retain} retained")
    order = np.random.default_rng(seed).permutation(len(task.y))
    sets = {"forget": np.sort(order[:forget]), "retain": _others(task, order, forget, retain, say)}
    found = chain.run(f"{task.name}-{forget}-{retain}", task, sets, task.options)
    exact = [c for c in found.claims if c["kind"] == "retain_exact"]
    base, patched = found.folder / "base.onnx", found.folder / "patched.onnx"
    gates = json.loads((found.folder / "patch.json").read_bytes())["gates"]
    coordinates = [len(gate["intervals"]) for gate in gates]
    return Row(
        task=task.name,
        forget=forget,
        retain=retain,
        repair=found.repair,
        repair_per_request=float(found.repaired["secondsPerRequest"]),
        certify=found.certify,
        verify=found.verify,
        verdict=found.ended,
        conflicts=max((c["conflict"] for c in exact), default=0),
        coordinates_median=median(coordinates),
        coordinates_max=max(coordinates),
        accuracy_before=accuracy_of(base, task),
        accuracy_after=accuracy_of(patched, task),
        patch_bytes_share=(patched.stat().st_size - len(task.base)) / len(task.base) / forget,
        latency={batch: latency_of(base, patched, task.test_x, batch) for batch in BATCHES},
    )


def _mnist_tasks(folder: Path, say: Say, *, quick: bool) -> list[Task]:
    from prune_verify.measure.datasets import DataSet, mnist
    from prune_verify.measure.training import export_onnx, small_cnn, small_mlp, train

    say("training the MNIST networks")
    data = mnist(folder)
    epochs = 1 if quick else 4
    mlp = train(lambda: small_mlp((784, 256, 256, 10)), data, epochs=epochs, seed=0)
    images = DataSet(
        "mnist-cnn",
        data.train_x.reshape(-1, 1, 28, 28),
        data.train_y,
        data.test_x.reshape(-1, 1, 28, 28),
        data.test_y,
    )
    cnn = train(small_cnn, images, epochs=1 if quick else 2, seed=0)
    return [
        Task("mnist-mlp", export_onnx(mlp, data.train_x), data.train_x, data.train_y, data.test_x, data.test_y),
        Task(
            "mnist-cnn", export_onnx(cnn, images.train_x), images.train_x, images.train_y, images.test_x, images.test_y
        ),
    ]


def _adult_task(folder: Path, say: Say) -> Task:
    from prune_verify.measure.datasets import adult
    from prune_verify.measure.training import export_onnx, small_mlp, train

    say("training the Adult network")
    data = adult(folder)
    network = train(lambda: small_mlp((data.train_x.shape[1], 64, 32, 2)), data, epochs=3, seed=0)
    content = export_onnx(network, data.train_x)
    narrow = ("--radius", "0.002", "--retained-radius", "0.001")  # 0.1 of a column's range holds hundreds of people
    return Task("adult", content, data.train_x, data.train_y, data.test_x, data.test_y, narrow)


def _digits_task(say: Say) -> Task:
    from prune_verify.measure.datasets import digits
    from prune_verify.measure.training import export_onnx, small_mlp, train

    say("training the digits network")
    data = digits()
    network = train(lambda: small_mlp((64, 64, 32, 10)), data, epochs=60, seed=0)
    return Task("digits", export_onnx(network, data.train_x), data.train_x, data.train_y, data.test_x, data.test_y)


def _plan(data: Path | None, say: Say, *, quick: bool) -> list[tuple[Task, int, int]]:
    if data is None:
        task = _digits_task(say)
        return [(task, forget, 1000) for forget in (5, 20, 80)] + [(task, 20, 250)]
    for name in ("mnist", "adult"):
        if not (data / name).is_dir():
            message = f"--data {data}: expected a folder {name}/ in it, found none"
            raise BenchError(message)
    mlp, cnn = _mnist_tasks(data / "mnist", say, quick=quick)
    table = _adult_task(data / "adult", say)
    if quick:
        return [(mlp, 10, 1000), (mlp, 100, 1000), (mlp, 100, 10000), (cnn, 100, 1000), (table, 10, 1000)]
    return [
        (mlp, 10, 59000), (mlp, 100, 59000), (mlp, 1000, 59000),
        (mlp, 100, 1000), (mlp, 100, 10000),
        (cnn, 100, 59000), (cnn, 1000, 59000),
        (table, 100, 30000),
    ]  # fmt: skip


def _growth(rows: Sequence[Row]) -> list[str]:
    """How time grows: the exponent e of cost ~ size^e between the ends of each series; 1 is linear."""
    lines = []
    for name, of, fixed in (("requests", "forget", "retain"), ("retained records", "retain", "forget")):
        groups: dict[tuple[str, int], list[Row]] = {}
        for row in rows:
            groups.setdefault((row.task, getattr(row, fixed)), []).append(row)
        for (task, value), members in groups.items():
            ordered = sorted(members, key=lambda r: int(getattr(r, of)))
            first, last = ordered[0], ordered[-1]
            low, high = getattr(first, of), getattr(last, of)
            if high <= low:
                continue
            grown = [
                f"{verb} x{after / before:.2f} (exponent {log(after / before) / log(high / low):.2f})"
                for verb, before, after in (
                    ("repair", first.repair.seconds, last.repair.seconds),
                    ("certify", first.certify.seconds, last.certify.seconds),
                    ("verify", first.verify.seconds, last.verify.seconds),
                    ("verify memory", first.verify.mebibytes, last.verify.mebibytes),
                )
            ]
            lines.append(f"{task}, {fixed} {value}: {name} {low} -> {high} (x{high / low:.1f}): " + ", ".join(grown))
    return lines


def run_bench_chain(
    data: Path | None, *, quick: bool, out: Path | None, say: Say
) -> tuple[int, str, dict[str, object]]:
    """Measure the chain.

    Args:
        data: folder with mnist/ and adult/; digits only when None.
        quick: smaller sizes.
        out: where files go; a temporary folder by default.
        say: sink for progress lines.

    Returns:
        Exit code, tables, and the object for ``--json``.

    Raises:
        BenchError: a verb failed, or data are missing.

    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        plan = _plan(data, say, quick=quick)
        chain = Chain(folder)
        rows = []
        for place, (task, forget, retain) in enumerate(plan):
            rows.append(_measured(chain, task, (forget, retain), place, say))
            say(HEADER + "\n" + rows[-1].text())
    lines = [
        f"chain on {os.cpu_count()} cores; seconds and peak MiB per process; first MiB column: repair and certify",
        HEADER,
        *(row.text() for row in rows),
        "growth between the ends of each series (start-up of the interpreter included):",
        *_growth(rows),
    ]
    return 0, "\n".join(lines), {"rows": [_plain(row) for row in rows], "growth": lines[-len(_growth(rows)) :]}


def _plain(row: Row) -> dict[str, object]:
    from dataclasses import asdict

    return asdict(row)
