"""``measure accuracy``: what base and patched network answer rightly, for whom, how surely, and at what cost.

Source: FORMATS section 3.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from prune_verify.measure.inputs import (
    Inputs,
    Progress,
    add_shared_options,
    command_line,
    measured,
    require_new,
)
from prune_verify.measurement_file import MeasuredRow, decimal_text, measured_row

if TYPE_CHECKING:
    from prune_verify.measure.deployed import Deployed

__all__ = ["add_options", "run"]

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
_BATCHES = (1, 256)
_MOST_CLASSES = 20  # with rows of their own; more have series only
_NAMES = ("base", "patched")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add every option of ``measure accuracy``."""
    parser.add_argument("base", type=Path, metavar="BASE.onnx", help="the network before the request")
    parser.add_argument("patched", type=Path, metavar="PATCHED.onnx", help="the network after it")
    parser.add_argument("--test", required=True, metavar="RECORDS", help="held-out records")
    parser.add_argument("--forget", metavar="RECORDS", help="the forget set")
    parser.add_argument("--retain", metavar="RECORDS", help="the retained set")
    parser.add_argument(
        "--subgroups", type=Path, metavar="FILE", help="csv with a header, or npz: attributes of the test records"
    )
    parser.add_argument(
        "--subgroup-column", action="append", default=[], metavar="NAME",
        help="an attribute of --subgroups, or a column of the test csv itself (repeatable; default: all of the first)",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=200, metavar="N", help="timings of each network (default 200)")
    parser.add_argument("--no-cost", action="store_true", help="leave out latency and memory")
    add_shared_options(parser)


@dataclass(frozen=True, eq=False)
class _Answers:
    """Both networks on one set: labels, logits, and which records are answered rightly."""

    y: Labels
    logits: tuple[Floats, Floats]
    right: tuple[Bools, Bools]


def _answers(pair: tuple[Deployed, Deployed], x: Floats, y: Labels) -> _Answers:
    from prune_verify.measure.calibration import strict

    logits = (pair[0].logits(x), pair[1].logits(x))
    return _Answers(y, logits, (strict(logits[0]) == y, strict(logits[1]) == y))


def _share(name: str, hits: Bools, note: str = "") -> MeasuredRow:
    from prune_verify.measure.roc import clopper_pearson

    count = int(hits.sum())
    words = f"{count} of {len(hits)}" + (f", {note}" if note else "")
    return measured_row(name, count / len(hits), clopper_pearson(count, len(hits)), words)


def _of_set(name: str, found: _Answers) -> list[MeasuredRow]:
    """Accuracies of one set, how they differ, and how alike the answers are."""
    from prune_verify.measure.calibration import paired, strict

    both = paired(*found.right)
    first, second = (strict(logits) for logits in found.logits)
    same = (found.logits[0].view(np.uint32) == found.logits[1].view(np.uint32)).all(axis=1)
    rows = [_share(f"{name}.accuracy.{which}", right) for which, right in zip(_NAMES, found.right, strict=True)]
    changes = f"{both.first_only} only the base, {both.second_only} only the patched network"
    return [
        *rows,
        measured_row(f"{name}.accuracy.difference", both.difference, both.interval, f"patched less base; {changes}"),
        measured_row(f"{name}.mcnemar.p", both.p_value, note="exact, two-sided"),
        _share(f"{name}.agreement", first == second, "same label"),
        _share(f"{name}.identical", same, "all logits bit for bit"),
    ]


def _calibration(found: _Answers, seed: int) -> tuple[list[MeasuredRow], dict[str, tuple[str, ...]]]:
    from prune_verify.measure.calibration import brier, calibration_error, reliability

    rows, series = [], {}
    for which, logits in zip(_NAMES, found.logits, strict=True):
        gap, score = calibration_error(logits, found.y, seed), brier(logits, found.y, seed)
        note = "expected calibration error, 15 bins of equal mass; basic bootstrap"
        rows.append(measured_row(f"test.calibration.{which}", gap.value, gap.interval, note))
        rows.append(measured_row(f"test.brier.{which}", score.value, score.interval, "0 to 2; bootstrap"))
        curve = reliability(logits, found.y)
        for part, values in (("confidence", curve.confidence), ("accuracy", curve.accuracy), ("rows", curve.rows)):
            series[f"test.reliability.{which}.{part}"] = tuple(decimal_text(float(v)) for v in values)
    return rows, series


def _by_class(found: _Answers) -> tuple[list[MeasuredRow], dict[str, tuple[str, ...]]]:
    labels = sorted(set(found.y.tolist()))
    members = {label: found.y == label for label in labels}
    series: dict[str, tuple[str, ...]] = {
        "test.class.label": tuple(str(label) for label in labels),
        "test.class.rows": tuple(str(int(members[label].sum())) for label in labels),
    }
    for which, right in zip(_NAMES, found.right, strict=True):
        series[f"test.class.{which}"] = tuple(decimal_text(float(right[members[label]].mean())) for label in labels)
    if len(labels) > _MOST_CLASSES:
        return [], series
    return list(_by_group(found, {f"class.{label}": inside for label, inside in members.items()})), series


def _by_group(found: _Answers, groups: Mapping[str, Bools]) -> Iterator[MeasuredRow]:
    for name, inside in groups.items():
        for which, right in zip(_NAMES, found.right, strict=True):
            yield _share(f"test.{name}.{which}", right[inside])


def _groups(options: argparse.Namespace, inputs: Inputs, count: int) -> Mapping[str, Bools]:
    from prune_verify.measure.subgroups import groups_of

    path: Path | None = options.subgroups
    if path is None and options.subgroup_column:
        path = Path(options.test)
    if path is None:
        return {}
    return {
        f"group.{name}": inside
        for name, inside in groups_of(inputs.file(path, "subgroups"), path.name, options.subgroup_column, count).items()
    }


def _cost(
    files: tuple[bytes, bytes], pair: tuple[Deployed, Deployed], x: Floats, options: argparse.Namespace, say: Progress
) -> list[MeasuredRow]:
    """Size always; time and memory unless they are left out."""
    from prune_verify.measure.deployed import interleaved_latency, parameters_of, peak_memory

    rows = []
    for which, data in zip(_NAMES, files, strict=True):
        rows.append(measured_row(f"cost.bytes.{which}", len(data), note="of the file", digits=15))
        rows.append(measured_row(f"cost.parameters.{which}", parameters_of(data), note="of the file", digits=15))
    if options.no_cost:
        return rows
    steps = len(_BATCHES) + 1
    for step, batch in enumerate(_BATCHES):
        say("latency and memory", step, steps)
        batch_rows = np.ascontiguousarray(np.resize(x, (batch, *x.shape[1:])))
        times = interleaved_latency(*pair, batch_rows, options.rounds)
        names = (*(f"microseconds.{which}" for which in _NAMES), "ratio")
        notes = ("of one row",) * 2 + ("patched to base, in turns",)
        for name, found, note in zip(names, times, notes, strict=True):
            words = f"{note}; median and quartiles, one thread"
            rows.append(
                measured_row(f"cost.batch-{batch}.{name}", found.median, (found.low, found.high), words, digits=4)
            )
    say("latency and memory", steps - 1, steps)
    for which, data in zip(_NAMES, files, strict=True):
        peak = peak_memory(data, np.ascontiguousarray(np.resize(x, (_BATCHES[-1], *x.shape[1:]))))
        if peak is not None:
            note = f"beyond onnxruntime's own, one batch of {_BATCHES[-1]}"
            rows.append(measured_row(f"cost.memory.mib.{which}", peak, note=note, digits=4))
    say("latency and memory", steps, steps)
    return rows


def _said(rows: Sequence[MeasuredRow]) -> list[str]:
    """The result in a sentence."""
    by_name = {row.name: row for row in rows}
    first, second = (by_name[f"test.accuracy.{which}"] for which in _NAMES)
    shares = [f"{100 * float(row.value):.2f} %" for row in (first, second)]
    return [f"on held-out records the base answers {shares[0]} rightly, the patched network {shares[1]}"]


def run(options: argparse.Namespace, progress: Progress) -> tuple[int, str, dict[str, object]]:
    """Measure accuracy, agreement, calibration and cost of a base and its patched network.

    Returns:
        Exit code, text, and the object for ``--json``.

    Raises:
        CheckError: a file cannot be read.
        MeasureInputError: files that do not fit one another.

    """
    from prune_verify.measure.deployed import Deployed
    from prune_verify.measure.errors import MeasureInputError

    require_new([options.out])
    if options.rounds < 1:
        text = f"--rounds: expected 1 or more, found {options.rounds}"
        raise MeasureInputError(text)
    inputs = Inputs(options)
    (base, network), (patched, _) = inputs.pair(options.base, options.patched)
    test = inputs.records(options.test, "test set", network)
    others = {
        name: inputs.records(getattr(options, name), f"{name} set", network)
        for name in ("forget", "retain")
        if getattr(options, name) is not None
    }
    groups = _groups(options, inputs, len(test))
    pair = (Deployed(base, options.base.name), Deployed(patched, options.patched.name))
    progress("answers", 0, 1)
    found = _answers(pair, test.x, test.y)
    rows = _of_set("test", found)
    for name, records in others.items():
        rows += _of_set(name, _answers(pair, records.x, records.y))
    by_class, series = _by_class(found)
    calibrated, curves = _calibration(found, options.seed)
    rows += [*by_class, *_by_group(found, groups), *calibrated]
    progress("answers", 1, 1)
    rows += _cost((base, patched), pair, test.x, options, progress)
    command = command_line("accuracy", add_options, options)
    return measured(options, "accuracy", command, inputs, rows, {**series, **curves}, said=_said(rows))
