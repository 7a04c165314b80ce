"""What a holder of ``patch.json`` can reconstruct of the forgotten records: the best attack here against two guesses.

The attacker has the patch, the base, a public sample of the population and what the request says. By family:

- ``box`` at the input: the stored intervals give numbers of the record, their midpoints; the others are guessed from
  them by regression on the sample;
- gates at hidden sites, and ``linear-region``: the input whose own gate would be the stored one
  (:mod:`prune_verify.measure.gate_inversion`);
- ``learned``: the likeliest inputs that the base knows and the patched network does not
  (:mod:`prune_verify.measure.patch_search`);
- ``class-cap``, and records without a gate: nothing is stored, the guess is the label's mean.

Each guess is compared with the record, and with what is guessed without the patch: the label's mean, and a record of
the label drawn from the sample. An attack that does no better than the mean says nothing about attacks to come: this is
measured, never proved, and the bits that a patch stores are the bound that does not depend on the attacker.

Source: MATHS 4.1 (privacy of the patch itself); Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prune_verify.checker.claim import LabelledRows
from prune_verify.checker.network import Network
from prune_verify.checker.patch import INPUT, Gate, JointPatch, LearnedPatch, Patch, ShiftPatch
from prune_verify.checker.patch_json import disclosed
from prune_verify.checker.rebuild import coordinates_of
from prune_verify.measure.gate_inversion import GateInverter, Knowledge
from prune_verify.measure.patch_search import PatchSearch
from prune_verify.measure.population import Population, conditional_guess
from prune_verify.repair.errors import RepairInputError

__all__ = ["Disclosure", "Errors", "Knowledge", "bootstrap_interval", "measure_disclosure"]

Doubles = npt.NDArray[np.float64]
_RESAMPLES = 2000


@dataclass(frozen=True)
class Errors:
    """Root mean square errors of guesses, in input units.

    Args:
        each: one per record.
        mean: of them.
        low: lower end of the bootstrap interval of the mean.
        high: upper end; both are the mean where there is one record.

    """

    each: tuple[float, ...]
    mean: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Disclosure:
    """What was reconstructed of the forgotten records.

    Args:
        family: of the patch.
        intervals: that the patch stores.
        bits: that it stores, for all records together; of a learned patch an upper bound.
        guesses: float64 [records, n].
        attack: errors of the guesses.
        random: errors of records of the same label, drawn from the public sample.
        label_mean: errors of the label's mean.
        gain: by how much the attack is nearer than the label's mean, record by record.
        confidence: of the intervals.

    """

    family: str
    intervals: int
    bits: int
    guesses: Doubles
    attack: Errors
    random: Errors
    label_mean: Errors
    gain: Errors
    confidence: float

    def text(self) -> str:
        """A line for the bits, and one for each way of guessing."""
        lines = [f"{self.family}: {len(self.guesses)} records, {self.intervals} intervals, {self.bits} bits stored"]
        named = (("attack", self.attack), ("label mean", self.label_mean), ("random", self.random), ("gain", self.gain))
        lines += [f"{name:<10}  {e.mean:.4f} [{e.low:.4f}, {e.high:.4f}]" for name, e in named]
        return "\n".join(lines)


def bootstrap_interval(values: Doubles, confidence: float = 0.95, seed: int = 0) -> Errors:
    """The mean of values with its percentile bootstrap interval.

    Args:
        values: float64 [records], at least one.
        confidence: between 0 and 1.
        seed: of the resamples.

    Raises:
        RepairInputError: no values, or a confidence outside (0, 1).

    """
    if not len(values) or not 0 < confidence < 1:
        text = f"bootstrap: expected values and a confidence in (0, 1), found {len(values)} values and {confidence}"
        raise RepairInputError(text)
    places = np.random.default_rng(seed).integers(len(values), size=(_RESAMPLES, len(values)))
    low, high = np.quantile(values[places].mean(axis=1), [(1 - confidence) / 2, (1 + confidence) / 2])
    return Errors(tuple(map(float, values)), float(values.mean()), float(low), float(high))


def measure_disclosure(
    base: Network,
    patch: Patch,
    forget: LabelledRows,
    public: LabelledRows,
    *,
    knowledge: Knowledge | None = None,
    seed: int = 0,
    confidence: float = 0.95,
) -> Disclosure:
    """Reconstruct the forgotten records from a patch, and compare.

    Args:
        base: the base network.
        patch: the parameters, as in ``patch.json``.
        forget: the records, without their shifted copies; rows of the gates' ``records`` are these records times the
            copies that the knowledge names, the copies of one record next to each other.
        public: records of the same population that are not in the forget set.
        knowledge: what the attacker knows besides; the defaults by default.
        seed: of draws and resamples.
        confidence: of the intervals.

    Raises:
        RepairInputError: no records, records of another size than the base's input, too few public records of a
            label, or a forget record among them.
        MalformedInputError: a patch whose sites are not the base's.

    """
    known = Knowledge() if knowledge is None else knowledge
    size = int(np.prod(base.input_shape, dtype=np.int64))
    for name, rows in (("forget set", forget), ("public sample", public)):
        if not len(rows.y) or len(rows.x) != len(rows.y) or rows.flat().shape[1] != size:
            text = f"{name}: expected labelled records of {size} numbers, found {rows.x.shape} and {len(rows.y)} labels"
            raise RepairInputError(text)
    population = Population.of(public, forget, known.domain)
    intervals, bits = disclosed(patch, coordinates_of(base, patch))
    truth = forget.flat().astype(np.float64)
    means = np.stack([population.mean(int(y)) for y in forget.y])
    random = np.random.default_rng(seed)
    drawn = np.stack([population.of_label(int(y))[random.integers((population.y == y).sum())] for y in forget.y])
    guesses = _guesses(base, patch, forget, population, known, seed)
    if isinstance(patch, LearnedPatch):  # it does not say which record a guess is for: the best pairing, for all alike
        guesses, drawn = (_paired(found, truth, forget) for found in (guesses, drawn))
    errors = [np.sqrt(np.square(found - truth).mean(axis=1)) for found in (guesses, drawn, means)]
    attack, chance, middle, gain = (
        bootstrap_interval(one, confidence, seed) for one in (*errors, errors[2] - errors[0])
    )
    return Disclosure(patch.family, intervals, bits, guesses, attack, chance, middle, gain, confidence)


def _guesses(
    base: Network, patch: Patch, forget: LabelledRows, population: Population, known: Knowledge, seed: int
) -> Doubles:
    """The attack's guess at each record: [records, n]."""
    found = np.stack([population.mean(int(y)) for y in forget.y])
    if isinstance(patch, LearnedPatch):
        search = PatchSearch(base, patch, population)
        for label in sorted(set(forget.y.tolist())):
            rows = np.flatnonzero(forget.y == label)
            found[rows] = search.guesses(label, len(rows))
        return found
    hidden = patch.gates and patch.sites != (INPUT,)
    inverter = _inverter(base, patch, population, known, seed) if hidden else None
    half = _half_width(patch, known)
    for record in range(len(found)):
        gates = [gate for gate in patch.gates if record * known.copies in gate.records]
        if not gates:
            continue
        gate = max(gates, key=lambda one: len(one.intervals))
        if inverter is None:
            found[record] = _from_intervals(gate, population, half, seed)
            continue
        copies = tuple(row % known.copies for row in gate.records if row // known.copies == record)
        found[record] = inverter.guess(gate, copies)
    return found


def _inverter(
    base: Network, patch: JointPatch | ShiftPatch, population: Population, known: Knowledge, seed: int
) -> GateInverter:
    """The search for records from gates at hidden sites, rehearsed."""
    found = GateInverter(base, patch.sites, population, known, region=isinstance(patch, ShiftPatch), seed=seed)
    found.rehearse([gate for gate in patch.gates if (population.y == gate.label).any()])
    return found


def _half_width(patch: JointPatch | ShiftPatch, known: Knowledge) -> float | None:
    """The radius of the boxes: as known, or half of the median width of the intervals that have both edges."""
    if known.radius is not None:
        return known.radius
    widths = [
        float(i.high) - float(i.low)
        for g in patch.gates
        for i in g.intervals
        if i.low is not None and i.high is not None
    ]
    return float(np.median(widths)) / 2 if widths else None


def _from_intervals(gate: Gate, population: Population, half: float | None, seed: int) -> Doubles:
    """The midpoints of the stored intervals, and the rest by regression; a missing edge was beyond the domain."""
    first, last = population.domain
    values = []
    for interval in gate.intervals:
        if interval.low is not None and interval.high is not None:
            value = (float(interval.low) + float(interval.high)) / 2
        elif interval.low is None:
            edge = last if interval.high is None else float(interval.high)
            value = (first + edge) / 2 if half is None else edge - half
        else:
            value = (float(interval.low) + last) / 2 if half is None else float(interval.low) + half
        values.append(min(max(value, first), last))
    coordinates = np.array([interval.coordinate for interval in gate.intervals], dtype=np.int64)
    return conditional_guess(population, gate.label, coordinates, np.array(values), seed)


def _paired(guesses: Doubles, truth: Doubles, forget: LabelledRows) -> Doubles:
    """The guesses of each label in the order in which they are nearest to its records in all."""
    from scipy.optimize import linear_sum_assignment

    found = guesses.copy()
    for label in sorted(set(forget.y.tolist())):
        rows = np.flatnonzero(forget.y == label)
        far = np.square(truth[rows][:, np.newaxis] - guesses[rows][np.newaxis]).mean(axis=2)
        _, chosen = linear_sum_assignment(far)
        found[rows] = guesses[rows][chosen]
    return found
