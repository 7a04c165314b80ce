"""What the report shows, as plain fields; and these fields from the files that the auditor checked.

Nothing here decides anything: the verdict is the checker's. Files that cannot be read give a note in
the report instead of an error, because a rejected certificate deserves a report too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from prune_verify.audit.learning import LearningRow
from prune_verify.audit.report_measured import ShownMeasurement
from prune_verify.checker.encoding import format_time, parse_json, sha256_hex
from prune_verify.checker.errors import CheckError
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.network import Network, evaluate
from prune_verify.checker.patch import INPUT, Gate, Interval, JointPatch, LearnedPatch, Patch, ShiftPatch
from prune_verify.checker.patch_json import disclosed, parse_patch
from prune_verify.checker.rebuild import coordinates_of
from prune_verify.checker.verdict import Verdict
from prune_verify.grey_levels import picture_shape

if TYPE_CHECKING:
    from prune_verify.checker.claim import LabelledRows

__all__ = ["Accuracy", "FileIdentity", "PatchSummary", "PicturedRecord", "ReportData", "report_data_from_files"]

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

MOST_PICTURES = 24
MOST_ROWS = 10_000
_BATCH = 512
_MAX_STATEMENT = 2**26
_UNIT = (0.0, 1.0)


@dataclass(frozen=True, eq=False)
class PicturedRecord:
    """One forgotten record as the report shows it.

    Args:
        index: in the forget set, from 0.
        x: float32, per-row shape.
        label: the label that is forgotten.
        base_answer: the base network's answer.
        patched_answer: the patched network's answer.
        intervals: of a gate whose box holds the record; empty where no gate does.

    """

    index: int
    x: Floats
    label: int
    base_answer: int
    patched_answer: int
    intervals: tuple[Interval, ...] = ()


@dataclass(frozen=True)
class Accuracy:
    """How many rows of a set are answered with their label.

    Args:
        name: of the set.
        before: rows that the base answers with their label.
        after: rows that the patched network does.
        count: rows evaluated.

    """

    name: str
    before: int
    after: int
    count: int


@dataclass(frozen=True)
class FileIdentity:
    """A file as it was read: name, SHA-256 (hex) and size in bytes.

    Args:
        name: of the file.
        sha256: of its bytes.
        size: in bytes.

    """

    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class PatchSummary:
    """The parameters of a patch, in numbers that a reader can weigh.

    Args:
        family: ``box``, ``class-cap``, ``learned`` or ``linear-region``.
        labels: number of labels.
        input_size: numbers per record, or None when the base could not be read.
        forgotten_classes: labels that are never answered.
        tau: margin of the head.
        shift: M of the head.
        slack: K of the head.
        coordinates: per gate, the number of coordinates.
        conflicts: indices of retained records that could not be separated.
        disclosed_bits: bits of records that the gates store.
        layers: of a learned patch, (inputs, outputs).

    """

    family: str
    labels: int
    input_size: int | None = None
    forgotten_classes: tuple[int, ...] = ()
    tau: float | None = None
    shift: float | None = None
    slack: float | None = None
    coordinates: tuple[int, ...] = ()
    conflicts: tuple[int, ...] = ()
    disclosed_bits: int = 0
    layers: tuple[tuple[int, int], ...] = ()

    @property
    def coordinates_median(self) -> float:
        """Of the gates' numbers of coordinates; 0 without gates."""
        return float(median(self.coordinates)) if self.coordinates else 0.0


@dataclass(frozen=True, eq=False)
class ReportData:
    """Everything that the report shows.

    Args:
        verdict: of the checker.
        statement: the parsed statement, or None when there is none that can be read.
        records: forgotten records to show, at most 24 of them.
        records_total: size of the forget set.
        picture_shape: (h, w) when records are pictures.
        pixel_range: values shown as black and as white.
        accuracies: before and after.
        patch: its parameters, or None.
        files: as they were read.
        command: the command line that repeats the check.
        created: when the report was made, ``YYYY-MM-DDTHH:MM:SSZ``.
        notes: what could not be shown, and why.
        title: of the document.
        learning: looks at the training of a learned patch, as the owner tells them; empty where none were given.
        measured: measurement files that were given, and what is shown of them.

    """

    verdict: Verdict
    statement: Mapping[str, object] | None = None
    records: tuple[PicturedRecord, ...] = ()
    records_total: int = 0
    picture_shape: tuple[int, int] | None = None
    pixel_range: tuple[float, float] = _UNIT
    accuracies: tuple[Accuracy, ...] = ()
    patch: PatchSummary | None = None
    files: tuple[FileIdentity, ...] = ()
    command: str = ""
    created: str = ""
    notes: tuple[str, ...] = field(default=())
    title: str = "Report on an unlearning certificate"
    learning: tuple[LearningRow, ...] = ()
    measured: tuple[ShownMeasurement, ...] = ()


def answers(network: Network, x: Floats) -> Labels:
    """The label that ``network`` answers on each row of ``x`` in float32 (lowest index on ties), in batches."""
    found = [np.zeros(0, dtype=np.int64)]
    for start in range(0, x.shape[0], _BATCH):
        with np.errstate(all="ignore"):  # a hostile network may overflow: its answers are shown all the same
            logits = evaluate(network, x[start : start + _BATCH])
        found.append(logits.reshape(logits.shape[0], -1).argmax(axis=1).astype(np.int64))
    return np.concatenate(found)


def _as_checked(
    checked: Mapping[str, object], files: dict[str, bytes | None], notes: list[str]
) -> dict[str, bytes | None]:
    """The files, without those that are no longer what the checker read: they are read once more for the report."""
    result = dict(files)
    for name, key in (("base network", "base"), ("patched network", "patched"), ("patch parameters", "patch")):
        data, digest = files[name], checked.get(key)
        if data is not None and isinstance(digest, str) and sha256_hex(data) != digest:
            notes.append(f"the file with the {name} is not the one that was checked, so it is not used here")
            result[name] = None
    return result


def _network(data: bytes | None, name: str, notes: list[str]) -> Network | None:
    if data is None:
        return None
    try:
        return load_network(data, name).network
    except CheckError as error:
        notes.append(f"{name} could not be read, so nothing was evaluated with it: {error}")
        return None


def _patch(data: bytes | None, notes: list[str]) -> tuple[Patch | None, tuple[int, ...]]:
    if data is None:
        return None, ()
    try:
        found = parse_patch(data, "patch.json")
    except CheckError as error:
        notes.append(f"patch.json could not be read: {error}")
        return None, ()
    return found.patch, tuple(found.conflicts)


def _statement(payload: bytes | Mapping[str, object] | None, notes: list[str]) -> Mapping[str, object] | None:
    if not isinstance(payload, bytes):
        return payload
    try:
        found = parse_json(payload, "statement", max_bytes=_MAX_STATEMENT)
    except CheckError as error:
        notes.append(f"the statement could not be read: {error}")
        return None
    return found if isinstance(found, dict) else None


def _summary(patch: Patch, conflicts: tuple[int, ...], base: Network | None) -> PatchSummary:
    size = None if base is None else int(np.prod(base.input_shape, dtype=np.int64))
    if isinstance(patch, LearnedPatch):
        layers = tuple((int(w.shape[1]), int(w.shape[0])) for w, _ in patch.layers)
        return PatchSummary(patch.family, patch.labels, size, conflicts=conflicts, layers=layers)
    coordinates = tuple(len(g.intervals) for g in patch.gates)
    bits = disclosed(patch, 1 if base is None else coordinates_of(base, patch))[1]
    if isinstance(patch, ShiftPatch):
        return PatchSummary(
            patch.family, patch.labels, size, coordinates=coordinates, conflicts=conflicts, disclosed_bits=bits
        )
    return PatchSummary(
        patch.family,
        patch.labels,
        size,
        patch.forgotten_classes,
        float(patch.tau),
        float(patch.shift) if patch.gates else None,
        float(patch.slack) if patch.gates else None,
        coordinates,
        conflicts,
        bits,
    )


def _holds(gate: Gate, flat: Floats) -> bool:
    """Whether a record lies in a gate's box: looked at here, because the gate's own list is only a hint."""
    for interval in gate.intervals:
        if interval.coordinate >= flat.size:
            return False
        value = flat[interval.coordinate]
        if (interval.low is not None and value < interval.low) or (interval.high is not None and value > interval.high):
            return False
    return True


def _gate_of(patch: Patch | None, record: int, flat: Floats, label: int) -> tuple[Interval, ...]:
    """The intervals of a gate of ``label`` that holds the record, a gate that names it first."""
    if not isinstance(patch, JointPatch) or patch.sites != (INPUT,):
        return ()
    own = sorted((g for g in patch.gates if g.label == label), key=lambda g: record not in g.records)
    return next((g.intervals for g in own if _holds(g, flat)), ())


def _fitting(rows: LabelledRows, network: Network, name: str, notes: list[str]) -> Floats | None:
    """The rows in the network's input shape, or None with a note."""
    if rows.x.ndim < 1 or not len(rows.y) or len(rows.y) != rows.x.shape[0]:
        notes.append(f"{name}: no rows with a label each")
        return None
    if rows.x[0].size != int(np.prod(network.input_shape, dtype=np.int64)):
        notes.append(f"{name}: rows of {rows.x[0].size} numbers do not fit the network's input")
        return None
    return rows.x.reshape(len(rows.y), *network.input_shape).astype(np.float32, copy=False)


def _accuracy(name: str, x: Floats, y: Labels, pair: tuple[Network, Network], most: int | None) -> Accuracy:
    """Rows answered with their label before and after, on ``most`` rows spread evenly where there are more."""
    if most is not None and len(y) > most:
        chosen = np.linspace(0, len(y) - 1, most).astype(np.int64)
        name = f"{name} ({most:,} of {len(y):,}, evenly spread)"
        x, y = x[chosen], y[chosen]
    before, after = (int((answers(network, x) == y).sum()) for network in pair)
    return Accuracy(name, before, after, len(y))


def _spread(records: Sequence[PicturedRecord]) -> tuple[float, float]:
    """Values for black and white: [0, 1] where the records lie in it, else their own range."""
    finite = [r.x[np.isfinite(r.x)] for r in records]
    low = min((float(f.min()) for f in finite if f.size), default=0.0)
    high = max((float(f.max()) for f in finite if f.size), default=1.0)
    return _UNIT if low >= _UNIT[0] and high <= _UNIT[1] else (low, high)


def report_data_from_files(  # noqa: PLR0913, PLR0917 - the files of one verification
    verdict: Verdict,
    base_bytes: bytes,
    patched_bytes: bytes,
    statement_payload: bytes | Mapping[str, object] | None,
    patch_json_bytes: bytes | None,
    forget: LabelledRows | None,
    retain: LabelledRows | None,
    test: LabelledRows | None,
    command: str,
    *,
    created: str | None = None,
    title: str = ReportData.title,
) -> ReportData:
    """What the report shows, from the bytes that were checked.

    Args:
        verdict: of the checker.
        base_bytes: the base network's file.
        patched_bytes: the patched network's file.
        statement_payload: the statement, as its bytes or parsed; None when no signature was accepted.
        patch_json_bytes: the patch's parameters, or None.
        forget: the forget set, or None.
        retain: the retained set, or None; evaluated on at most 10,000 rows.
        test: held-out rows, or None; evaluated on at most 10,000 rows.
        command: the command line that repeats the check.
        created: the time of the report; now by default.
        title: of the document.

    Returns:
        The fields; what could not be read or evaluated is named in ``notes``.

    """
    notes: list[str] = []
    statement = _statement(statement_payload, notes)
    given = {"base network": base_bytes, "patched network": patched_bytes, "patch parameters": patch_json_bytes}
    stated: object = statement
    for name in ("predicate", "patch", "sha256"):
        stated = stated.get(name) if isinstance(stated, Mapping) else None
    named = _as_checked({**dict(verdict.digests), "patch": stated}, given, notes)
    base = _network(named["base network"], "base.onnx", notes)
    patched = _network(named["patched network"], "patched.onnx", notes)
    patch, conflicts = _patch(named["patch parameters"], notes)
    records: tuple[PicturedRecord, ...] = ()
    accuracies: list[Accuracy] = []
    if base is not None and patched is not None:
        if base.input_shape != patched.input_shape:
            notes.append("the two networks read rows of different shapes, so nothing was evaluated")
        else:
            pair = (base, patched)
            sets = (
                ("Forgotten records", forget, None),
                ("Retained records", retain, MOST_ROWS),
                ("Test data", test, MOST_ROWS),
            )
            for name, rows, most in sets:
                x = None if rows is None else _fitting(rows, base, name, notes)
                if rows is not None and x is not None:
                    accuracies.append(_accuracy(name, x, rows.y, pair, most))
                    if rows is forget:
                        records = _pictured(x[:MOST_PICTURES], rows.y[:MOST_PICTURES], pair, patch)
    return ReportData(
        verdict=verdict,
        statement=statement,
        records=records,
        records_total=0 if forget is None else len(forget.y),
        picture_shape=picture_shape(base.input_shape) if base is not None else None,
        pixel_range=_spread(records),
        accuracies=tuple(accuracies),
        patch=None if patch is None else _summary(patch, conflicts, base),
        files=tuple(
            FileIdentity(name, sha256_hex(data), len(data)) for name, data in named.items() if data is not None
        ),
        command=command,
        created=format_time(datetime.now(UTC)) if created is None else created,
        notes=tuple(notes),
        title=title,
    )


def _pictured(x: Floats, y: Labels, pair: tuple[Network, Network], patch: Patch | None) -> tuple[PicturedRecord, ...]:
    before, after = (answers(network, x) for network in pair)
    return tuple(
        PicturedRecord(
            i, x[i], int(y[i]), int(before[i]), int(after[i]), _gate_of(patch, i, x[i].reshape(-1), int(y[i]))
        )
        for i in range(len(y))
    )
