"""What is measured and never proved, from Python: the words of ``prune-verify measure``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Unpack, cast

from prune_verify.api import options as keywords
from prune_verify.api.errors import RefusalError, refusals
from prune_verify.api.inputs import Inputs
from prune_verify.api.results import Patched, html_table
from prune_verify.api.words import known_only, parsed
from prune_verify.measurement_file import MeasuredRow
from prune_verify.progress import Progress

if TYPE_CHECKING:
    from prune_verify.api.options import MeasureOptions, ModelLike

__all__ = ["Measurement", "measure"]

# What a word takes of a result of repair, where it is not given: its record sets.
_SETS = {
    "accuracy": ("forget", "retain"),
    "disclosure": ("forget",),
    "relearning": ("forget", "retain"),
    "membership": ("forget", "retain"),
}
_TABLES = ("label_column", "encoding")
_FOLDERS = {"membership"}  # words that write a folder
_FILE = "{}.measurement.json"


@dataclass(frozen=True)
class Measurement:
    """Numbers that were measured: no proof, and repeated by whoever has the same inputs, command and seed.

    Args:
        word: what was measured.
        path: the measurement file, for ``certify(..., measurements=[...])``.
        rows: the numbers, each with its interval and what has to be known beside it.
        text: what the command prints.
        data: what the command prints under ``--json``.

    """

    word: str
    path: Path
    rows: tuple[MeasuredRow, ...]
    text: str = field(repr=False)
    data: Mapping[str, object] = field(repr=False)

    def __getitem__(self, name: str) -> float:
        return float({row.name: row.value for row in self.rows}[name])

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        rows: list[tuple[str, object]] = []
        for row in self.rows:
            ends = "" if row.interval is None else f" ({row.interval[0]} to {row.interval[1]})"
            rows.append((row.name, f"{row.value}{ends}" + (f"; {row.note}" if row.note else "")))
        return html_table(f"{self.word} (measured, not proved)", rows)


def measure(
    word: Literal["accuracy", "disclosure", "relearning", "membership"],
    patched: Patched | ModelLike,
    **options: Unpack[MeasureOptions],
) -> Measurement:
    """Measure what is never proved: accuracy and cost, disclosure by the patch, relearning, membership inference.

    Args:
        word: what is measured; ``prune-verify measure WORD --help`` says what it needs.
        patched: what :func:`~prune_verify.api.repair` gave back, whose records are taken where none are given; or a
            patched network, with ``base``. For ``disclosure`` of the latter, ``patch`` is needed.
        options: see :class:`~prune_verify.api.options.MeasureOptions`.

    Returns:
        The numbers; ``out`` has them as a file for ``certify(..., measurements=[...])``.

    Raises:
        RefusalError: something cannot be used, or the word has no such option.
        TypeError: an option that no word has.

    """
    known_only("measure", options, keywords.MeasureOptions.__annotations__)
    if word not in _SETS:
        text = f"word: expected one of {', '.join(_SETS)}, got {word!r}"
        raise RefusalError(text, "E_USAGE")
    given: dict[str, object] = dict(options)
    network: object = patched
    if isinstance(patched, Patched):
        files, network = patched.files, patched.files.patched
        carried = {name: getattr(files, name) for name in (*_SETS[word], *_TABLES)}
        given = {"base": files.base, "patch": patched.patch, **carried, **given}
        given.setdefault("out", files.patched.parent / (word if word in _FOLDERS else _FILE.format(word)))
    needed = ("base", "out", "patch") if word == "disclosure" else ("base", "out")
    for name in needed:
        if given.get(name) is None:
            text = f"{name}: needed, because the patched network is no result of repair"
            raise RefusalError(text, "E_USAGE")
    return _measured(word, network, given)


def _measured(word: str, network: object, given: dict[str, object]) -> Measurement:
    out, shown = Path(str(given["out"])), bool(given.pop("progress", False))
    example, patch = given.pop("example", None), given.pop("patch", None)
    inputs = Inputs((out if word in _FOLDERS else out.parent) / "inputs")
    against = given.get("against")
    if isinstance(against, Mapping):
        given["against"] = [f"{name}={path}" for name, path in against.items()]
    with refusals():
        given = inputs.records(given)
        base = inputs.network(cast("ModelLike", given.pop("base")), "base", example)
        second = (
            Path(str(patch)) if word == "disclosure" else inputs.network(cast("ModelLike", network), "patched", example)
        )
        from prune_verify.measure.command import WORDS, run_measure

        options = parsed(f"measure {word}", WORDS[word][0].add_options, [base, second], given)
        options.action = word
        with Progress(enabled=shown) as progress:
            _, text, found = run_measure(options, progress)
    path = out / _FILE.format(word) if word in _FOLDERS else out
    return Measurement(word, path, _rows(found), "\n".join([*inputs.notes, text]), found)


def _rows(found: Mapping[str, object]) -> tuple[MeasuredRow, ...]:
    listed = cast("list[dict[str, object]]", cast("dict[str, object]", found["measurement"])["rows"])
    rows = []
    for row in listed:
        ends = cast("list[str] | None", row["interval"])
        interval = None if ends is None else (ends[0], ends[1])
        rows.append(MeasuredRow(str(row["name"]), str(row["value"]), interval, str(row["note"])))
    return tuple(rows)
