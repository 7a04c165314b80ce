"""The rows of ``bench unlearning``: for each way to forget what it answers, what attacks find, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from prune_verify.bench.unlearning_attacks import LIRA, UNLIKE, Attacked, Attacker, interval_text, mean_auc
from prune_verify.bench.unlearning_ensembles import NAMES, told_apart
from prune_verify.bench.unlearning_jobs import BASE, Job, Jobs, Made, logits_of
from prune_verify.bench.unlearning_relearning import COLUMN, relearned
from prune_verify.bench.unlearning_sizes import Labels, Study
from prune_verify.measure.baselines import Rows as Records

if TYPE_CHECKING:
    from prune_verify.measure.roc import Estimate

__all__ = ["CLASS_METHODS", "METHODS", "RETRAIN", "Cells", "Rows", "control_seeds", "retrain_seeds"]

Cells = dict[str, object]
Say = Callable[[str], None]
Floats = npt.NDArray[np.float32]
RETRAIN = "retrain"
METHODS = (
    "box", "relu-0", "non-member", "non-member, held out", "linear-region", "learned", "fine-tune", "gradient ascent",
    "amnesiac", "SISA", "REASSURE",
)  # fmt: skip
CLASS_METHODS = (RETRAIN, "class-cap", "fine-tune", "gradient ascent")
_RETRAINED, _CONTROL = 1000, 2000  # first seeds of retrained networks, so that none shares the base's
_LOOKED_UP = 2000
_JUDGED_BY_MANY = 2000  # means over networks need no more, and take a second each
_MEGA = 1e6
NA = "n/a"


def retrain_seeds(count: int) -> range:
    """Seeds of the retrained networks, ``count`` of them, that ensembles are compared with."""
    return range(_RETRAINED, _RETRAINED + count)


def control_seeds(count: int) -> range:
    """Seeds of the retrained networks, ``count`` of them, that have rows, and are the control of the attacks."""
    return range(_CONTROL, _CONTROL + count)


@dataclass(frozen=True, eq=False)
class Rows:
    """Makes the rows of one data set, and remembers what attacks found for sentences and pictures.

    Args:
        jobs: the networks.
        attacker: with shadow networks.
        attacked: what attacks found, by row.
        ensembles: the same of each network of an ensemble, LiRA and the two-sided attack only, by method.
        apart: cells of statistics on ensembles, by method.

    """

    jobs: Jobs
    attacker: Attacker
    attacked: dict[str, Attacked] = field(default_factory=dict)
    ensembles: dict[str, list[Attacked]] = field(default_factory=dict)
    apart: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def study(self) -> Study:
        """The records."""
        return self.jobs.study

    def _indices(self, which: str) -> Labels:
        part = self.study.part(which)
        return np.arange(part.start, part.stop)

    def records(self, say: Say) -> Iterator[Cells]:
        """Forgetting records, row by row."""
        size = self.study.size
        yield self._row(BASE, Job(BASE, 0), say)
        for place, seed in enumerate(control_seeds(size.retrained)):
            yield self._row(f"{RETRAIN} {place + 1}", Job(RETRAIN, seed), say)
        for method in METHODS:
            yield self._row(method, Job(method, 0), say)
        yield self._looked_up()

    def _row(self, name: str, job: Job, say: Say) -> Cells:
        study, made, count = self.study, self.jobs.made(job), self.study.size.records(job.method)
        cells: Cells = {"data": study.name, "method": name, "records": count}
        if made.failed:
            return {**cells, "note": made.outcome.note[:200]}
        say(f"{study.name}: attacks on {name}")
        logits = self.jobs.logits(job)
        before = None if job.method == BASE else self.jobs.logits(Job(BASE, 0))
        found = self.attacker.attack(logits, np.arange(count), self._indices("judged"), before=before)
        self.attacked[name] = found
        return {
            **cells,
            "forget accuracy %": self._right(logits, np.arange(count)),
            "retain accuracy %": self._right(logits, self._indices("retain")),
            "test accuracy %": self._tested(made),
            **found.cells(),
            **self._together(job.method),
            COLUMN: self._relearned(made, count),
            **_cost(made, count),
        }

    def _right(self, logits: Floats, rows: Labels) -> float:
        return round(100 * float((logits[rows].argmax(axis=1) == self.study.y[rows]).mean()), 2)

    def _tested(self, made: Made) -> float:
        study = self.study
        answers = logits_of(made.outcome.onnx, study.test_x).argmax(axis=1)
        return round(100 * float((answers == study.test_y).mean()), 2)

    def _relearned(self, made: Made, count: int) -> str:
        """How soon as many of the records are answered again as genuine retraining answers."""
        study, base = self.study, self.jobs.made(Job(BASE, 0)).outcome.onnx
        rows = np.arange(count)
        retrained = [self.jobs.logits(Job(RETRAIN, seed)) for seed in control_seeds(study.size.retrained)]
        target = float(np.mean([(one[rows].argmax(axis=1) == study.y[rows]).mean() for one in retrained]))
        test = Records(study.test_x, study.test_y)
        return relearned(made.outcome.onnx, base, study.rows(rows), test, target, self.jobs.store)

    def _together(self, method: str) -> Cells:
        """What ensembles say: means over networks, and statistics of their logits."""
        each = self.ensembles.get(method)
        if each is None:
            return dict.fromkeys(("networks", "LiRA AUC, mean", "unlike a non-member AUC, mean", *NAMES), NA)
        return {
            "networks": len(each),
            "LiRA AUC, mean": interval_text(mean_auc(each, LIRA)),
            "unlike a non-member AUC, mean": interval_text(mean_auc(each, UNLIKE)),
            **self.apart[method],
        }

    def attack_ensemble(self, method: str, seeds: range, say: Say) -> None:
        """LiRA and the two-sided attack on each network of a method and its seeds, and all beside retrained ones."""
        say(f"{self.study.name}: attacks on {len(seeds)} networks of {method}")
        forget, judged = self._indices("forget"), self._indices("judged")[:_JUDGED_BY_MANY]
        logits = [self.jobs.logits(Job(method, seed)) for seed in seeds]
        self.ensembles[method] = [self.attacker.attack(one, forget, judged, only=(LIRA, UNLIKE)) for one in logits]
        references = [self.jobs.logits(Job(RETRAIN, seed))[forget] for seed in retrain_seeds(len(seeds))]
        labels, store = self.study.y[forget], self.jobs.store
        self.apart[method] = told_apart(np.stack([one[forget] for one in logits]), np.stack(references), labels, store)

    def _looked_up(self) -> Cells:
        """The baseline that stores the records themselves."""
        from prune_verify.measure.lookup import Lookup
        from prune_verify.measure.robustness import session_answers

        study, base = self.study, self.jobs.made(Job(BASE, 0)).outcome.onnx
        forget = study.rows("forget")
        lookup = Lookup(session_answers(base), forget.x, forget.y, float(study.model.radius))

        def right(x: Floats, y: Labels) -> float:
            return round(100 * float((lookup(x[:_LOOKED_UP]) == y[:_LOOKED_UP]).mean()), 2)

        retain = study.rows("retain")
        return {
            "data": study.name,
            "method": "lookup",
            "records": len(forget.y),
            "forget accuracy %": right(forget.x, forget.y),
            "retain accuracy %": right(retain.x, retain.y),
            "test accuracy %": right(study.test_x, study.test_y),
            "bits per record": lookup.stored_bits_per_record,
            "s": 0.0,
            "file MB": round((len(base) + lookup.stored_bytes) / _MEGA, 3),
            "note": f"stores every record; no logits, and no answer near one; first {_LOOKED_UP} rows",
        }

    def classes(self, say: Say) -> Iterator[Cells]:
        """Forgetting a class, row by row: its members against other records of the class."""
        study, size = self.study, self.study.size
        of = np.flatnonzero(study.y == study.forgotten_class)
        members, others = of[of < size.train], of[(of >= size.train) & (of < size.train + size.judged)]
        tested = study.test_y == study.forgotten_class
        for job in (Job(BASE, 0), *(Job(method, 0, "class") for method in CLASS_METHODS)):
            made = self.jobs.made(job)
            cells: Cells = {"data": study.name, "class": study.forgotten_class, "method": job.method}
            if made.failed:
                yield {**cells, "note": made.outcome.note[:200]}
                continue
            say(f"{study.name}: class {study.forgotten_class}, attacks on {job.method}")
            logits = self.jobs.logits(job)
            found = self.attacker.attack(logits, members, others, only=(LIRA, UNLIKE, "unlike-outputs"))
            right = logits_of(made.outcome.onnx, study.test_x).argmax(axis=1) == study.test_y
            yield {
                **cells,
                "recognised %": round(100 * float(right[tested].mean()), 2),
                "of training rows %": self._right(logits, members),
                "others %": round(100 * float(right[~tested].mean()), 2),
                **{name: cell for name, cell in found.cells().items() if cell != NA},
                **_cost(made, len(members)),
            }

    def _networks(self, method: str, attack: str) -> list[Attacked]:
        """What an attack found in every network of a method: of its ensemble where it was asked, else of its rows."""
        together = self.ensembles.get(method, [])
        if together and attack in together[0].members:
            return together
        return [found for name, found in self.attacked.items() if name == method or _numbered(name, method)]

    def mean(self, method: str, attack: str) -> tuple[Estimate, int] | None:
        """The area under an attack's curve on average over all networks of a method, and how many they are.

        Args:
            method: a name of a row; of genuine retraining without its number.
            attack: a name of an attack.

        Returns:
            None where no network was made.

        """
        found = self._networks(method, attack)
        return (mean_auc(found, attack), len(found)) if found else None


def _numbered(name: str, method: str) -> bool:
    """Whether a row is one of several of a method: its name with a number."""
    return name.removeprefix(f"{method} ").isdigit()


def _cost(made: Made, records: int) -> Cells:
    outcome = made.outcome
    bits = NA if outcome.patch_bits is None else round(outcome.patch_bits / max(1, records))
    return {
        "bits per record": bits,
        "s": round(outcome.seconds, 3),
        "file MB": round(len(outcome.onnx) / _MEGA, 3),
        "peak MB": NA if made.peak is None else round(made.peak, 1),
        "note": outcome.note,
    }
