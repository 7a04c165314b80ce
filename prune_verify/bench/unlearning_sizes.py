"""How large the runs of ``bench unlearning`` are, and which record plays which part.

Every data set becomes a pool: training rows, of which the first are to be forgotten, and as many judged rows that the
base never sees and that attacks must tell from the forgotten ones. Shadow networks are trained on random halves of the
pool, so that they see as many rows as the base. A further population is in no network's training set.

Source: Carlini et al., Membership inference attacks from first principles, arXiv 2112.03570, section 4 (halves);
Zarifzadeh et al., arXiv 2312.03262 (population).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from prune_verify.bench.chain import BenchError
from prune_verify.measure.baselines import Rows

if TYPE_CHECKING:
    from prune_verify.measure.datasets import DataSet
    from prune_verify.repair.threat_model import ThreatModel

__all__ = ["SEED", "Size", "Study", "sizes", "studies"]

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
SEED = 0
# train, forget, judged, population
_DIGITS, _MANY, _SOME = (750, 150, 750, 297), (5000, 500, 5000, 1000), (2000, 200, 2000, 600)
_WIDE, _NARROW = ("0.1", "0.05"), ("0.02", "0.01")
_CHEAP = ("box", "non-member", "fine-tune", "gradient ascent")
_MOST = ("box", "relu-0", "non-member", "non-member, held out", "fine-tune", "gradient ascent", "amnesiac", "SISA")
_FEW = (("linear-region", 20), ("learned", 5), ("REASSURE", 3))


@dataclass(frozen=True)
class Size:
    """What is trained, and on how much.

    Args:
        train: rows that the base is trained on.
        forget: of them, to be forgotten.
        judged: rows that the base never sees, and half of the shadows each.
        population: rows that no network sees: the attacker's for RMIA, the owner's for margins of held-out records.
        hidden: widths of the hidden layers.
        epochs: of Adam at 1e-3 on batches of 128.
        shadows: networks of the attacker.
        owner_shadows: networks of the owner, from whose margins ``non-member`` draws; never those of the attacker.
        retrained: seeds of genuine retraining that get a row each.
        ensemble: networks of each method for statistics on ensembles; 0 for none.
        ensembles: the methods that have one, beside retraining.
        few: records that dear methods forget, by method.

    """

    train: int
    forget: int
    judged: int
    population: int
    hidden: tuple[int, ...]
    epochs: int
    shadows: int
    owner_shadows: int
    retrained: int
    ensemble: int
    ensembles: tuple[str, ...] = _CHEAP
    few: tuple[tuple[str, int], ...] = _FEW

    def records(self, method: str) -> int:
        """How many records a method is asked to forget."""
        return min(self.forget, dict(self.few).get(method, self.forget))

    def text(self) -> str:
        """All of it on a line."""
        return ", ".join(f"{item.name} {getattr(self, item.name)}" for item in fields(self))


def sizes(*, quick: bool) -> dict[str, Size]:
    """By data set, quick or full; fewer rows need more passes to be learned by heart."""
    if quick:
        return {
            "digits": Size(*_DIGITS, (64, 32), 200, 64, 32, 2, 20),
            "mnist": Size(*_SOME, (128, 64), 60, 32, 24, 2, 0),
            "adult": Size(*_SOME, (128, 64), 150, 32, 24, 2, 0),
        }
    return {
        "digits": Size(*_DIGITS, (64, 32), 200, 128, 64, 3, 24, _MOST),
        "mnist": Size(*_MANY, (128, 64), 40, 128, 64, 3, 24),
        "adult": Size(*_MANY, (128, 64), 80, 64, 32, 3, 20),
    }


@dataclass(frozen=True, eq=False)
class Study:
    """A data set with its parts: forget, retained, judged and population rows, in this order.

    Args:
        name: of the data set.
        size: see :class:`Size`.
        x: float32 [rows, n]: of all parts.
        y: int64 [rows].
        test_x: rows to take the accuracy on.
        test_y: their labels.
        model: radii of gates at the input.
        narrow: radii of gates behind the first ReLU.
        learned_radii: of learned patches.
        forgotten_class: for the block about classes.

    """

    name: str
    size: Size
    x: Floats
    y: Labels
    test_x: Floats
    test_y: Labels
    model: ThreatModel
    narrow: tuple[Fraction, Fraction]
    learned_radii: tuple[Fraction, Fraction]
    forgotten_class: int

    @property
    def labels(self) -> int:
        """How many there are."""
        return int(max(self.y.max(), self.test_y.max())) + 1

    @property
    def widths(self) -> tuple[int, ...]:
        """Of the network's layers, input and output included."""
        return (self.x.shape[1], *self.size.hidden, self.labels)

    def part(self, which: str) -> slice:
        """Rows of the part ``which``: ``forget``, ``retain``, ``train``, ``judged``, ``pool`` or ``population``."""
        size = self.size
        pool = size.train + size.judged
        return {
            "forget": slice(0, size.forget),
            "retain": slice(size.forget, size.train),
            "train": slice(0, size.train),
            "judged": slice(size.train, pool),
            "pool": slice(0, pool),
            "population": slice(pool, pool + size.population),
        }[which]

    def rows(self, which: str | Labels) -> Rows:
        """The part ``which`` as records, or those of some indices [n]."""
        chosen = self.part(which) if isinstance(which, str) else which
        return Rows(self.x[chosen], self.y[chosen])


Radii = tuple[tuple[str, str], tuple[str, str], tuple[str, str]]


def _study(data: DataSet, size: Size, radii: Radii) -> Study:
    """The parts of a data set; of rows that are equal only one is taken, so that no record is on both sides."""
    from prune_verify.measure.unlearning_context import unit_model

    count = size.train + size.judged + size.population
    all_in = len(data.train_y) < count
    x = np.concatenate([data.train_x, data.test_x]) if all_in else data.train_x
    y = np.concatenate([data.train_y, data.test_y]) if all_in else data.train_y
    _, first = np.unique(x.reshape(len(x), -1), axis=0, return_index=True)
    order = np.random.default_rng(SEED).permutation(np.sort(first))[:count]
    if len(order) < count:
        message = f"{data.name}: expected {count} different rows, found {len(order)}"
        raise BenchError(message)
    own_x, own_y, outside = np.ascontiguousarray(x[order]), y[order], slice(size.train, None)
    test = (own_x[outside], own_y[outside]) if all_in else (data.test_x, data.test_y)
    model, *narrow = radii
    pairs = [(Fraction(low), Fraction(high)) for low, high in narrow]
    own = min(5, int(y.max()))
    return Study(data.name, size, own_x, own_y, test[0], test[1], unit_model(*model), pairs[0], pairs[1], own)


def studies(data: Path | None, by_name: dict[str, Size]) -> list[Study]:
    """Digits, and MNIST and Adult where the folder ``data`` has them; sizes stand in ``by_name``."""
    from prune_verify.measure.datasets import adult, digits, mnist

    found = [_study(digits(), by_name["digits"], (_WIDE, _NARROW, _NARROW))]
    if data is not None and (data / "mnist").is_dir():
        found.append(_study(mnist(data / "mnist"), by_name["mnist"], (_WIDE, ("0.004", "0.002"), _NARROW)))
    if data is not None and (data / "adult").is_dir():
        alike = ("0.002", "0.001")  # people in a table lie closer than pictures
        found.append(_study(adult(data / "adult"), by_name["adult"], (alike, alike, alike)))
    return found
