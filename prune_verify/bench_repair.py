"""``prune-verify bench repair``: what each family of patches is worth, beside retraining and REASSURE's dense patch.

Everything is measured on the files that a user would deploy, through onnxruntime; what is proved comes from the
verdict of ``verify``. Times of methods that are compared are of one run on one machine. Digits always; MNIST, and any
other set of records, from the folder that ``--data`` names.

Source: MATHS 7 (figures to beat).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from prune_verify.bench_chain import BenchError, Chain, Links, Task, accuracy_of, answers_of

if TYPE_CHECKING:
    from torch import nn

    from prune_verify.measure.datasets import DataSet

__all__ = ["Bench"]

Say = Callable[[str], None]
Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Cells = dict[str, object]
_SEED = 0


@dataclass(frozen=True, eq=False)
class Bench:
    """A trained network, its data, and how large the runs are.

    Args:
        task: base network and rows.
        network: the same network in torch.
        data: the same rows.
        make: builds it untrained.
        epochs: that it was trained for.
        seconds: that training took.
        counts: forgotten records at record level.
        forgotten_class: at class level.
        image: height and width of a row; None for tables.
        copies: records at the level of shifted copies.
        points: records that every method of one record is run on.

    """

    task: Task
    network: nn.Sequential
    data: DataSet
    make: Callable[[], nn.Sequential]
    epochs: int
    seconds: float
    counts: tuple[int, ...]
    forgotten_class: int
    image: tuple[int, int] | None
    copies: int
    points: int

    def split(self, forget: int) -> dict[str, Labels]:
        """Rows to forget, and all the others that equal none of them."""
        order = np.random.default_rng(_SEED).permutation(len(self.task.y))
        chosen = np.sort(order[:forget])
        twins = {self.task.x[row].tobytes() for row in chosen}
        kept = [int(row) for row in np.sort(order[forget:]) if self.task.x[row].tobytes() not in twins]
        return {"forget": chosen, "retain": np.array(kept)}


def _proved(links: Links, kind: str) -> tuple[int, int]:
    """Records of a kind of claim that are proved in every arithmetic, and records in all."""
    found = [claim for claim in links.claims if claim["kind"] == kind]
    if not found:
        raise BenchError(f"{links.folder}: expected a claim of kind {kind}, found none")
    return min(int(claim["proved"]) for claim in found), int(found[0]["total"])


def _share(base: Path, patched: Path) -> float:
    return (patched.stat().st_size - base.stat().st_size) / base.stat().st_size


def _measured(bench: Bench, links: Links, forget: Labels) -> Cells:
    """What every family is asked on its deployed file."""
    base, patched = links.folder / "base.onnx", links.folder / "patched.onnx"
    answers = answers_of(patched, bench.task.x[forget]).argmax(axis=1)
    return {
        "forget accuracy %": round(100 * float((answers == bench.task.y[forget]).mean()), 2),
        "test accuracy %": round(100 * accuracy_of(patched, bench.task), 2),
        "base %": round(100 * accuracy_of(base, bench.task), 2),
        "conflicts": max((int(c["conflict"]) for c in links.claims), default=0),
        "bytes per point %": round(100 * _share(base, patched) / max(1, len(forget)), 3),
        "bits": links.repaired["disclosedBits"],
        "certify s": round(links.certify.seconds, 1),
        "verify s": round(links.verify.seconds, 1),
        "verdict": links.ended,
    }


def _retrained(bench: Bench, forget: Labels) -> tuple[float, float, float]:
    """Retraining without some records: seconds, and accuracy on them and on the held-out rows."""
    from dataclasses import replace

    from prune_verify.measure.training import export_onnx, train

    kept = np.setdiff1d(np.arange(len(bench.task.y)), forget)
    data = replace(bench.data, train_x=bench.data.train_x[kept], train_y=bench.data.train_y[kept])
    start = time.monotonic()
    network = train(bench.make, data, epochs=bench.epochs, seed=_SEED + 1)
    seconds = time.monotonic() - start
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "retrained.onnx"
        path.write_bytes(export_onnx(network, data.train_x))
        right = answers_of(path, bench.task.x[forget]).argmax(axis=1) == bench.task.y[forget]
        return seconds, float(right.mean()), accuracy_of(path, bench.task)


def _records(bench: Bench, chain: Chain, say: Say) -> Iterator[Cells]:
    """Forgetting records: family box at the input, for more and more records."""
    for count in bench.counts:
        say(f"{bench.task.name}: {count} records")
        sets = bench.split(count)
        links = chain.run(f"{bench.task.name}-records-{count}", bench.task, sets)
        proved, total = _proved(links, "forget")
        exact, retained = _proved(links, "retain_exact")
        yield {
            "data": bench.task.name,
            "records": count,
            "s per request": round(float(links.repaired["secondsPerRequest"]), 4),
            "forget proved": f"{proved}/{total}",
            "bit-identical proved": f"{exact}/{retained}",
            **_measured(bench, links, sets["forget"]),
        }


def _classes(bench: Bench, chain: Chain, say: Say) -> Iterator[Cells]:
    """Forgetting a class for all inputs."""
    label = bench.forgotten_class
    say(f"{bench.task.name}: class {label}")
    links = chain.run(f"{bench.task.name}-class", bench.task, {}, ("--forget-class", str(label)))
    paths = links.folder / "base.onnx", links.folder / "patched.onnx"
    answers = [answers_of(path, bench.task.test_x).argmax(axis=1) for path in paths]
    of = bench.task.test_y == label
    yield {
        "data": bench.task.name,
        "class": label,
        "family": "class-cap",
        "proved for all inputs": all(
            claim["proved"] == claim["total"] for claim in links.claims if claim["kind"] == "forget_class"
        ),
        "still answered %": round(100 * float((answers[1] == label).mean()), 2),
        "others before %": round(100 * float((answers[0] == bench.task.test_y)[~of].mean()), 2),
        "others after %": round(100 * float((answers[1] == bench.task.test_y)[~of].mean()), 2),
        "s": round(links.repair.seconds, 2),
        "verdict": links.ended,
    }
