"""The runs of ``measure relearning``, their rows beside the control's, and their curves.

Names of rows are NETWORK.MODE.RECORDS.WHAT; those of curves are in :mod:`prune_verify.measurement_charts`.

Source: THREATS T2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prune_verify.bounds.bounded import one_thread
from prune_verify.checker.claim import strict_answers
from prune_verify.checker.network import Network
from prune_verify.measure.baselines import Rows
from prune_verify.measure.errors import MeasureInputError
from prune_verify.measure.inputs import Progress
from prune_verify.measure.relearning import Attack, Relearner, Run, epochs_until, mean_interval, stripped
from prune_verify.measure.relearning_plan import ALL, OTHERS, Known, Sets, joined, known_of, prototypes_of
from prune_verify.measure.roc import clopper_pearson
from prune_verify.measurement_charts import CURVE
from prune_verify.measurement_file import MOST_ROWS, MeasuredRow, decimal_text, measured_row

__all__ = ["Results", "strip_rows"]

Doubles = npt.NDArray[np.float64]
_WORSE = 0.02  # of accuracy
_PROTOTYPED = 2000  # retained records, for prototypes of labels that nothing is forgotten of
Key = tuple[str, str, str]  # network, mode, records


@dataclass(frozen=True, eq=False)
class _Seed:
    """One seed's run, and what the base answers of the watched records."""

    run: Run
    target: float


def _share(name: str, answers: npt.NDArray[np.int64], y: npt.NDArray[np.int64], note: str = "") -> MeasuredRow:
    hits = int((answers == y).sum())
    words = f"{hits} of {len(y)}{f', {note}' if note else ''}"
    return measured_row(name, hits / len(y), clopper_pearson(hits, len(y)), words)


def _mean(name: str, values: Sequence[float], note: str, ends: tuple[float, float] = (0.0, 1.0)) -> MeasuredRow:
    """The mean over seeds; its interval ends where the values do."""
    mean, found = mean_interval(values)
    inside = None if found is None else (max(found[0], ends[0]), min(found[1], ends[1]))
    return measured_row(name, mean, inside, note)


def strip_rows(base: Network, patched: Network, forget: Rows) -> tuple[list[MeasuredRow], list[str]]:
    """Whether the base is in the patched file, and what the file answers without the gates.

    Args:
        base: the base network.
        patched: the patched network.
        forget: the forgotten records.

    Returns:
        Rows, and sentences for a person.

    """
    found = stripped(base, patched)
    if found is None:
        note = "1: the base is inside the file, node for node; it was not found there"
        return [measured_row("strip.base-in-file", 0, note=note)], [
            "strip: the base network is not found inside the file, so that no gate can simply be taken off"
        ]
    note = "the weights of the base are still in the file, bit for bit; taking the gates off takes no training"
    rows = [
        measured_row("strip.base-in-file", 1, note="the base is inside the file, node for node"),
        measured_row("strip.epochs", 0, note=note),
        _share("strip.accuracy", strict_answers(found, forget.x), forget.y, "forgotten records, without the gates"),
    ]
    said = (
        "strip: the weights of the base are still in the file. Whoever holds it takes the gates off and has the base "
        f"again, after 0 epochs: {rows[-1].note.split(',')[0]} forgotten records are answered with their label"
    )
    return rows, [said]


class Results:
    """Relearns every network in every mode from every set of records, seed by seed.

    Args:
        base: the base network's file, and what it computes.
        candidates: by name, a file for each seed or one for all; the second is the control.
        sets: the records.
        attack: how the attacker trains.
        recovered: the share of the base's accuracy that counts as back.
        seeds: the first seed, and how many.

    """

    def __init__(
        self,
        base: tuple[bytes, Network],
        candidates: Mapping[str, Sequence[bytes]],
        sets: Sets,
        attack: Attack,
        recovered: float,
        seeds: tuple[int, int],
    ) -> None:
        self._base, self._candidates, self._sets, self._attack = base, candidates, sets, attack
        self._recovered = recovered
        self._seeds = range(seeds[0], seeds[0] + seeds[1])
        self._control = list(candidates)[1]
        self._found: dict[Key, list[_Seed]] = {}
        self._before: dict[str, tuple[list[float], list[float]]] = {}
        self._knows: list[float] = []  # of the control, on labels that it was trained on

    def require_room(self, modes: Sequence[str], sizes: Sequence[int]) -> None:
        """Refuse, before hours of work, more rows (by modes and sizes) than a measurement file has room for.

        Raises:
            MeasureInputError: there are.

        """
        of_key = [1 if mode == "prototype" else 2 for mode in modes]
        each = (len(sizes) + 2) * sum(of_key) + 2 * len(modes) + 2
        beside = (len(sizes) + 2) * sum(of_key)
        planned = each * len(self._candidates) + beside * (len(self._candidates) - 1) + 5
        if planned > MOST_ROWS:
            text = f"expected at most {MOST_ROWS} rows, found {planned}: fewer --records, --modes or --against"
            raise MeasureInputError(text)

    def measure(self, modes: Sequence[str], sizes: Sequence[int], progress: Progress) -> None:
        """Run everything, for all sizes; ``progress`` counts networks times seeds times modes."""
        total, done = len(self._candidates) * len(self._seeds) * len(modes), 0
        with one_thread():
            for name, files in self._candidates.items():
                for place, seed in enumerate(self._seeds):
                    if place < len(files):
                        network = Relearner(files[place], name, self._base[1])
                        self._look(name, network)
                    for mode in modes:
                        progress("relearning", done, total)
                        self._measure_mode(name, network, mode, sizes, seed)
                        done += 1
        progress("relearning", total, total)

    def _look(self, name: str, network: Relearner) -> None:
        """What a network answers before any relearning."""
        before = self._before.setdefault(name, ([], []))
        before[0].append(network.accuracy(self._sets.forget))
        before[1].append(network.accuracy(self._sets.test))
        if name == self._control:
            self._knows.append(network.accuracy(self._sets.kept_test()))

    def _measure_mode(self, name: str, network: Relearner, mode: str, sizes: Sequence[int], seed: int) -> None:
        sets = self._sets
        plans = prototypes_of if mode == "prototype" else known_of
        for plan in plans(sets, sizes, seed):
            if mode == "prototype":
                others = sets.retained_part(_PROTOTYPED, seed)
                run = network.prototyped(plan.known, others, plan.watched, sets.test)
            else:
                known = joined(plan.known, sets.retained_part(self._attack.retained, seed))
                run = network.fine_tuned(known, plan.watched, sets.test, self._attack, head=mode == "head", seed=seed)
            found = self._found.setdefault((name, mode, plan.name), [])
            found.append(_Seed(run, self._target(plan)))

    def _target(self, plan: Known) -> float:
        right = strict_answers(self._base[1], plan.watched.x) == plan.watched.y
        return self._recovered * float(right.mean())

    def _epochs(self, key: Key) -> tuple[list[float], int]:
        """By seed, epochs until the records are back, and how many seeds did not get there; those count as all."""
        reached = [epochs_until(seed.run.watched, seed.target) for seed in self._found[key]]
        late = reached.count(None)
        return [float(self._attack.epochs if one is None else one) for one in reached], late

    def rows(self) -> list[MeasuredRow]:
        """Accuracy before, epochs and accuracy after for every run, and epochs beside the control's."""
        rows = [_share("base.accuracy", strict_answers(self._base[1], self._sets.forget.x), self._sets.forget.y)]
        rows.append(_share("base.test", strict_answers(self._base[1], self._sets.test.x), self._sets.test.y))
        for name, (forgotten, test) in self._before.items():
            note = "before relearning; mean over seeds"
            rows.append(_mean(f"{name}.accuracy", forgotten, f"forgotten records, {note}"))
            rows.append(_mean(f"{name}.test", test, f"held-out records, {note}"))
        for key in self._found:
            rows += self._of_run(key)
        return [*rows, *self._beside_control()]

    def _of_run(self, key: Key) -> list[MeasuredRow]:
        name, found = ".".join(key), self._found[key]
        count = len(found)
        watched = "watched forgotten records, afterwards; mean over seeds"
        rows = [_mean(f"{name}.accuracy", [seed.run.watched[-1] for seed in found], watched)]
        if key[1] != "prototype":
            epochs, late = self._epochs(key)
            share = f"{100 * self._recovered:g} % of the base's accuracy"
            note = f"until {share}; mean over {count} seeds"
            note += f", {late} not within {self._attack.epochs}, which count as that" if late else ""
            rows.insert(0, _mean(f"{name}.epochs", epochs, note, (0.0, self._attack.epochs)))
        if key[2] in {ALL, OTHERS}:
            test = "held-out records, afterwards; mean over seeds"
            rows.append(_mean(f"{name}.test", [seed.run.test for seed in found], test))
        return rows

    def _beside_control(self) -> list[MeasuredRow]:
        """What each network has over the control, seed by seed: epochs saved, and accuracy afterwards."""
        rows, most = [], float(self._attack.epochs)
        for name, mode, records in self._found:
            if name == self._control:
                continue
            row = f"{name}-beside-{self._control}.{mode}.{records}"
            keys = ((name, mode, records), (self._control, mode, records))
            if mode != "prototype":
                own, control = (self._epochs(key)[0] for key in keys)
                saved = [second - first for first, second in zip(own, control, strict=True)]
                note = f"epochs of {self._control} less those of {name}, seed by seed; above 0: it comes back sooner"
                rows.append(_mean(f"{row}.epochs", saved, note, (-most, most)))
            after, other = ([seed.run.watched[-1] for seed in self._found[key]] for key in keys)
            more = [float(first - second) for first, second in zip(after, other, strict=True)]
            note = f"accuracy of {name} afterwards less that of {self._control}; above 0: more comes back"
            rows.append(_mean(f"{row}.accuracy", more, note, (-1.0, 1.0)))
        return rows

    def said(self) -> list[str]:
        """How soon each network comes back from all forgotten records, in sentences."""
        lines = []
        kept = self._sets.kept_test()
        base = float((strict_answers(self._base[1], kept.x) == kept.y).mean())
        control = float(np.mean(self._knows))
        if control < base - _WORSE:
            shares = f"{100 * control:.1f} % of held-out records of its labels rightly, the base {100 * base:.1f} %"
            lines += [
                f"{self._control} answers {shares}:",
                "a control that knows less than the base says little; train another (--control-epochs, --control-rate)",
            ]
        of_control = [key for key in self._found if key[0] == self._control and key[2] == ALL and key[1] != "prototype"]
        if of_control and not any(self._epochs(of_control[0])[0]):
            lines.append(
                f"{self._control} answers the forgotten records before any relearning, though it never saw them: of "
                "records like these, what comes back is no sign of memory"
            )
        for name, mode, records in self._found:
            if records == ALL and mode != "prototype":
                epochs, late = self._epochs((name, mode, records))
                who, on = f"{name}: {mode}", "on all forgotten records"
                some = f" ({late} of {len(epochs)} seeds not at all, counted as all epochs)" if late else ""
                back = f"back after {np.mean(epochs):.1f} epochs {on}{some}"
                if late == len(epochs):
                    back = f"not back within {self._attack.epochs} epochs {on}"
                lines.append(f"{who}: {back}")
        return lines

    def series(self) -> dict[str, tuple[str, ...]]:
        """By curve, the share of watched records after each epoch: mean over seeds, least and greatest."""
        found = {}
        for key, seeds in self._found.items():
            if key[1] == "prototype":
                continue
            values = np.stack([seed.run.watched for seed in seeds])
            for suffix, line in (
                ("", values.mean(axis=0)),
                (".low", values.min(axis=0)),
                (".high", values.max(axis=0)),
            ):
                found[f"{CURVE}{'.'.join(key)}{suffix}"] = tuple(decimal_text(float(v), 4) for v in line)
        return found
