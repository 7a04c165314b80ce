"""What the tables of ``bench repair`` share: a trained network with its data, and what is asked of every family."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from prune_verify.bench.chain import BenchError, Links, Task, accuracy_of, answers_of

if TYPE_CHECKING:
    from torch import nn

    from prune_verify.measure.datasets import DataSet

__all__ = ["SEED", "Bench", "Cells", "Labels", "Say", "measured", "proved"]

Say = Callable[[str], None]
Labels = npt.NDArray[np.int64]
Cells = dict[str, object]
SEED = 0


@dataclass(frozen=True, eq=False)
class Bench:
    """A trained network, its data, and how large the runs are.

    Args:
        task: base network and rows.
        network: the same network in torch.
        data: the same rows.
        make: builds it untrained.
        epochs: that it was trained for.
        seconds: that training it again took.
        counts: forgotten records at record level.
        forgotten_class: at class level.
        image: height and width of a row; None for tables.
        few: records that the dearer methods are run on.
        radii: forget and retained radius of gates behind ReLUs.

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
    few: int
    radii: tuple[str, str] = ("0.004", "0.002")

    def split(self, forget: int, most: int | None = None) -> dict[str, Labels]:
        """Rows to forget, and all the others (or ``most`` of them) that equal none of them."""
        order = np.random.default_rng(SEED).permutation(len(self.task.y))
        chosen = np.sort(order[:forget])
        twins = {self.task.x[row].tobytes() for row in chosen}
        kept = [int(row) for row in np.sort(order[forget:][:most]) if self.task.x[row].tobytes() not in twins]
        return {"forget": chosen, "retain": np.array(kept)}


def proved(links: Links, kind: str) -> str:
    """Records of a kind of claim that are proved in every arithmetic, of records in all.

    Raises:
        BenchError: there is no such claim.

    """
    found = [claim for claim in links.claims if claim["kind"] == kind]
    if not found:
        message = f"{links.folder}: expected a claim of kind {kind}, found none"
        raise BenchError(message)
    return f"{min(int(claim['proved']) for claim in found)}/{found[0]['total']}"


def measured(bench: Bench, links: Links, forget: Labels) -> Cells:
    """What every family is asked on its deployed file, about the records that it is to forget [rows]."""
    base, patched = links.folder / "base.onnx", links.folder / "patched.onnx"
    answers = answers_of(patched, bench.task.x[forget]).argmax(axis=1)
    share = (patched.stat().st_size - base.stat().st_size) / base.stat().st_size
    return {
        "forget accuracy %": round(100 * float((answers == bench.task.y[forget]).mean()), 2),
        "base %": round(100 * accuracy_of(base, bench.task), 2),
        "after %": round(100 * accuracy_of(patched, bench.task), 2),
        "conflicts": max((int(c["conflict"]) for c in links.claims), default=0),
        "bytes per point %": round(100 * share / max(1, len(forget)), 3),
        "certify s": round(links.certify.seconds, 1),
        "verify s": round(links.verify.seconds, 1),
        "verdict": links.ended,
    }
