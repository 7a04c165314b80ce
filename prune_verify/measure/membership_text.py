"""What ``measure membership`` says: rows for certificates, tables and sentences for people, arrays for recomputing.

Source: FORMATS section 3.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from prune_verify.measure.membership import RATES, TWO_SIDED, Membership
from prune_verify.measure.membership_ensembles import Ensembles
from prune_verify.measure.membership_picture import thinned_roc
from prune_verify.measure.membership_run import Done
from prune_verify.measure.roc import Estimate, roc
from prune_verify.measurement_file import MeasuredRow, decimal_text, measured_row

__all__ = ["arrays_of", "ensemble_said", "ensemble_table", "rows_of", "said_of", "series_of", "tables_of"]

_NOTE_AREA = "area under the ROC curve, forget set against records never seen; 95 %, DeLong"
_NOTE_RATE = "true-positive rate; 95 % with the threshold's own uncertainty"
_POINTS = 60
_CHANCE = 0.5


def _percent(rate: float) -> str:
    return f"{100 * rate:g} %"


def rows_of(done: Done, ensembles: Ensembles | None = None) -> list[MeasuredRow]:
    """The numbers: ``NETWORK.ATTACK.auc``, ``.tpr-at-0.01`` and ``.tpr-at-0.001``; then what they rest on."""
    found, rows = done.membership, []
    for target in found.targets:
        for attack, one in found.found[target].items():
            area = one.area
            rows.append(measured_row(f"{target}.{attack}.auc", area.value, (area.low, area.high), _NOTE_AREA))
            for rate, reached in zip(RATES, one.rates, strict=True):
                if reached is not None:
                    name = f"{target}.{attack}.tpr-at-{rate:g}"
                    rows.append(measured_row(name, reached.value, (reached.low, reached.high), _NOTE_RATE))
    for control in found.controls:
        if found.compared(control):
            difference = found.difference("patched", control)
            ends = difference.low, difference.high
            note = "difference of areas over the same records; 95 %, DeLong"
            rows.append(measured_row(f"patched-over-{control}.{TWO_SIDED}.auc", difference.value, ends, note))
        off = found.off_chance(control)
        words = f"attacks of one version whose interval leaves out 0.5: {', '.join(off) or 'none'}"
        rows.append(measured_row(f"{control}.off-chance", len(off), note=words))
    return [*rows, *(row for _, row in _of_ensembles(ensembles)), *_grounds(done)]


def _grounds(done: Done) -> Iterator[MeasuredRow]:
    """Numbers that the others rest on."""
    sets, words = done.membership.sets, "" if done.matched is None else done.matched.text()
    yield measured_row("records.forget", len(sets.forget.y), note="scored as members", digits=15)
    yield measured_row("records.never-seen", len(sets.outside.y), note="scored as non-members", digits=15)
    yield measured_row("records.population", len(sets.population.y), note="that RMIA compares with", digits=15)
    yield measured_row("shadows", done.asked.shadows, note="each scored record is in half of them", digits=15)
    yield measured_row("epochs", done.asked.recipe.epochs, note=words, digits=15)
    yield measured_row("accuracy.base", done.fit.accuracy, note="on its training set")
    yield measured_row("accuracy.shadows", float(done.accuracy.mean()), note="mean, each on its own training records")


def series_of(done: Done) -> dict[str, tuple[str, ...]]:
    """Each ROC curve in two series of equal length: ``roc.NETWORK.ATTACK.fpr`` and ``.tpr``."""
    found, series = done.membership, {}
    member = found.sets.member
    for target in found.targets:
        for attack, one in found.found[target].items():
            curve = thinned_roc(roc(one.scores[member], one.scores[~member]), _POINTS)
            for part, values in zip(("fpr", "tpr"), curve, strict=True):
                series[f"roc.{target}.{attack}.{part}"] = tuple(decimal_text(float(v)) for v in values)
    return series


def said_of(done: Done) -> list[str]:
    """What was found, in sentences."""
    found, sets = done.membership, done.membership.sets
    lines = [_compared(found, control) for control in found.controls if found.compared(control)]
    lines += [_controlled(found, control) for control in found.controls]
    size = min(len(sets.forget.y), int(done.shadows.inside.sum(axis=1).min())) + len(sets.retain.y)
    lines.append(
        f"{done.asked.shadows} shadow networks of {size} records or more answer {100 * done.accuracy.mean():.2f} % of "
        f"their own records rightly, the base {100 * done.fit.accuracy:.2f} %"
    )
    if done.matched is not None:
        lines.append(done.matched.text())
    if sets.unused:
        lines.append(f"{sets.unused} records that the base never saw take no part: other labels, or more than needed")
    lines += [f"{attack}: not made on every network: {why}" for attack, why in found.refused.items()]
    return lines


def _interval(one: Estimate, digits: int = 3) -> str:
    return f"{one.value:.{digits}f} [{one.low:.{digits}f}, {one.high:.{digits}f}]"


def _compared(found: Membership, control: str) -> str:
    """Whether the two-sided detector sees more on the patched network than on a genuine retrain."""
    areas = [found.found[name][TWO_SIDED].area.value for name in ("patched", control)]
    difference = found.difference("patched", control)
    numbers = f"AUC {areas[0]:.3f} against {areas[1]:.3f}, difference {_interval(difference)}"
    if difference.low > 0:
        return (
            "the two-sided detector tells forgotten records from records never seen better on the patched network "
            f"than on a genuine retrain ({control}): {numbers}"
        )
    if difference.high < 0:
        return (
            f"the two-sided detector sees less on the patched network than on a genuine retrain ({control}): {numbers}"
        )
    return (
        "the two-sided detector does not see more on the patched network than on a genuine retrain "
        f"({control}) by more than the interval: {numbers}"
    )


def _controlled(found: Membership, control: str) -> str:
    off = found.off_chance(control)
    if not off:
        return f"control: on {control}, which never saw the forget set, 0.5 lies in the interval of every attack"
    areas = ", ".join(f"{name} {_interval(found.found[control][name].area)}" for name in off)
    return (
        f"control: on {control}, which never saw the forget set, the interval leaves out 0.5 for {areas}: the forget "
        "set differs from the records never seen by more than membership, or by chance"
    )


def _table(found: Membership, heading: str, cells: dict[tuple[str, str], str]) -> list[str]:
    wide = max(len(name) for name in found.attacks)
    widths = {t: max(len(t), *(len(cells.get((t, a), "-")) for a in found.attacks)) for t in found.targets}
    lines = [heading, "  ".join([" " * wide, *(f"{t:<{widths[t]}}" for t in found.targets)]).rstrip()]
    for attack in found.attacks:
        row = [f"{cells.get((t, attack), '-'):<{widths[t]}}" for t in found.targets]
        lines.append("  ".join([f"{attack:<{wide}}", *row]).rstrip())
    return lines


def tables_of(done: Done) -> list[str]:
    """Areas, and rates at each false-positive rate, networks side by side."""
    found = done.membership
    every = [(t, a, one) for t in found.targets for a, one in found.found[t].items()]
    heading = "area under the ROC curve, chance is 0.5, with 95 % intervals"
    lines = _table(found, heading, {(t, a): _interval(one.area) for t, a, one in every})
    count = len(found.sets.outside.y)
    for place, rate in enumerate(RATES):
        heading = f"true positives at {_percent(rate)} false positives"
        cells = {(t, a): _interval(reached) for t, a, one in every if (reached := one.rates[place]) is not None}
        if cells:
            lines += ["", *_table(found, f"{heading}, with 95 % intervals", cells)]
        else:
            lines += ["", f"{heading}: n/a (needs {round(1 / rate):,} non-members, has {count:,})"]
    return lines


def _of_ensembles(ensembles: Ensembles | None) -> Iterator[tuple[str, MeasuredRow]]:
    """Statistics of ensembles, each with its words for a table."""
    if ensembles is None:
        return
    lira, score, klom, family = ensembles.lira, ensembles.score, ensembles.klom, ensembles.asked.family
    note = f"{ensembles.asked.networks} networks that unlearned ({family}), as many that never saw the forget set"
    values = (
        ("u-lira.mean-auc", lira.mean_auc, "mean area by record; 0.5: cannot be told apart"),
        ("u-lira.auc", lira.auc, "area with one threshold for all records"),
        ("u-lira.accuracy", lira.accuracy, "share called rightly"),
        ("u-lira.tpr-at-0.01", lira.tpr, "true positives at 1 % false positives"),
        ("forgetting-score", score.score, "1 is best; fewer networks score lower, so compare the next two"),
        ("forgetting-score.matched", score.matched, "half of each kind"),
        ("forgetting-score.control", score.control, "two halves of those that never saw the records"),
        ("klom", klom.value, "nats, unlearned from retrained; 0 is best"),
        ("klom.reverse", klom.reverse, "nats, retrained from unlearned"),
        ("klom.matched", klom.matched, "half of each kind"),
        ("klom.matched-reverse", klom.matched_reverse, "half of each kind, retrained from unlearned"),
        ("klom.control", klom.control, "two halves of those that never saw the records"),
    )
    for name, one, words in values:
        if one is not None:
            yield words, measured_row(f"ensemble.{name}", one.value, (one.low, one.high), f"{words}; {note}")


def ensemble_table(ensembles: Ensembles | None) -> list[str]:
    """Statistics of ensembles, one a line."""
    rows = list(_of_ensembles(ensembles))
    if ensembles is None or not rows:
        return []
    values = {r.name: (f"{float(r.value):.3f}", [f"{float(end):.3f}" for end in r.interval or ()]) for _, r in rows}
    lines = ["", f"ensembles of {ensembles.asked.networks} networks, with 95 % intervals"]
    for words, row in rows:
        value, ends = values[row.name]
        lines.append(f"{row.name.removeprefix('ensemble.'):<24}  {value} [{', '.join(ends)}]  {words}")
    return lines


def ensemble_said(ensembles: Ensembles | None) -> list[str]:
    """Whether the two kinds can be told apart."""
    if ensembles is None:
        return []
    area = ensembles.lira.mean_auc
    can = "can" if area.low > _CHANCE else "cannot, by more than the interval,"
    kinds = (
        f"networks that unlearned ({ensembles.asked.family}) {can} be told from networks that never saw the forget set"
    )
    return [f"{kinds}: U-LiRA's area {_interval(area)} by record"]


def arrays_of(done: Done, ensembles: Ensembles | None = None) -> bytes:
    """All scores, and what they were computed from, as a compressed npz.

    Members: ``member`` and ``labels`` of the scored records; ``inside`` [shadows, scored] and ``shadows`` [shadows,
    queries, labels], queries being the scored records and then the population; ``population_labels``;
    ``logits.NETWORK`` [queries, labels]; ``scores.NETWORK.ATTACK`` [scored]. Of ensembles: ``ensemble.unlearned`` and
    ``ensemble.retrained`` [networks, forget records, labels], and by forget record ``ensemble.lira`` (area) and
    ``ensemble.klom``.
    """
    found, sets = done.membership, done.membership.sets
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "member": sets.member,
        "labels": sets.labels,
        "population_labels": sets.population.y,
        "inside": done.shadows.inside,
        "shadows": done.shadows.logits,
        **{f"logits.{name}": logits for name, logits in found.logits.items()},
    }
    for target, attacks in found.found.items():
        arrays |= {f"scores.{target}.{attack}": one.scores for attack, one in attacks.items()}
    if ensembles is not None:
        arrays |= {"ensemble.unlearned": ensembles.unlearned, "ensemble.retrained": ensembles.retrained}
        arrays |= {"ensemble.lira": ensembles.lira.record_auc, "ensemble.klom": ensembles.klom.divergences}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type] # names of arrays, not of options
    return buffer.getvalue()
