"""What every word of ``measure`` reads and writes: networks and records with their digests, and the measurement file.

Source: FORMATS sections 1 and 3.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np

from prune_verify.checker.encoding import read_file, sha256_hex
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.network import Network
from prune_verify.checker.records import Records, duplicates_between, load_records
from prune_verify.files import new_file
from prune_verify.measure.errors import MeasureInputError
from prune_verify.measurement_file import MeasuredRow, MeasurementFile, emit_measurement

__all__ = [
    "Inputs",
    "Progress",
    "add_shared_options",
    "command_line",
    "measured",
    "require_apart",
    "require_new",
    "require_same_form",
]

Progress = Callable[[str, int, int], None]
_MOST_BYTES = 2**31
_NOT_REPEATED = {"out", "svg", "cache", "workers", "json", "quiet", "help"}


def add_shared_options(parser: argparse.ArgumentParser, *, folder: bool = False) -> None:
    """Add what every word takes: how csv files are read, the seed, and where the measurement goes.

    Args:
        parser: of the word.
        folder: whether it writes several files into a folder, which then has to be named.

    """
    parser.add_argument("--label-column", metavar="NAME", help="label column of csv files")
    parser.add_argument("--encoding", type=Path, metavar="ENCODING.json", help="apply this encoding to csv files")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of everything that is drawn (default 0)")
    metavar, text = ("DIR", "write the files here") if folder else ("FILE.json", "write the measurement here")
    parser.add_argument(
        "--out", type=Path, required=folder, metavar=metavar, help=f"{text}, for certify --measurements"
    )


def command_line(word: str, add_options: Callable[[argparse.ArgumentParser], None], options: argparse.Namespace) -> str:
    """The command line that repeats a measurement: what differs from the defaults, without where it writes.

    Args:
        word: of ``measure``.
        add_options: as the word's module defines it.
        options: as parsed.

    """
    parser = argparse.ArgumentParser(add_help=False)
    add_options(parser)
    words = ["prune-verify", "measure", word]
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way to list what a parser takes
        value = getattr(options, action.dest, None)
        if action.dest in _NOT_REPEATED or value is None or value == action.default:
            continue
        values = [str(item) for item in value] if isinstance(value, list) else [str(value)]
        if not action.option_strings:
            words += values
        elif action.nargs == 0:
            words.append(action.option_strings[0])
        elif isinstance(value, list) and action.nargs is None:  # one that is repeated
            words += [part for one in values for part in (action.option_strings[0], one)]
        else:
            words += [action.option_strings[0], *values]
    return shlex.join(words)


def require_new(paths: Sequence[Path | None]) -> None:
    """Refuse, before hours of work, places where nothing can be written.

    Raises:
        MeasureInputError: the first that exists, or whose folder is missing.

    """
    for path in paths:
        if path is not None and path.exists():
            text = f"{path}: expected a place for a new file, found one that exists; it is never overwritten"
            raise MeasureInputError(text)
        if path is not None and not path.parent.is_dir():
            text = f"{path}: expected a folder that exists, found no folder {path.parent}"
            raise MeasureInputError(text)


def require_apart(first: Records, second: Records) -> None:
    """Refuse two sets, the first and the second, that share a record.

    Raises:
        MeasureInputError: they do.

    """
    both = duplicates_between(first, second)
    if both:
        text = (
            f"{second.source}: expected none of the records of {first.source}, found record {both[0][1]}, "
            f"which is its record {both[0][0]} ({len(both)} in all)"
        )
        raise MeasureInputError(text)


def _files(spec: str) -> list[str]:
    """The files of a specification of records."""
    if Path(spec).suffix.lower() in {".npz", ".csv"} or "," not in spec:
        return [spec]
    images, _, rest = spec.partition(",")
    labels, colon, indices = rest.partition(":")
    return [images, labels, *([indices] if colon else [])]


class Inputs:
    """Reads networks and records, and remembers the name and digest of every file.

    Args:
        options: with ``label_column`` and ``encoding``.

    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._found: dict[tuple[str, str], None] = {}
        if options.encoding is not None:
            self.file(options.encoding, "encoding")

    @property
    def digests(self) -> tuple[tuple[str, str], ...]:
        """(name, SHA-256) of every file that was read, in order, each once."""
        return tuple(self._found)

    def file(self, path: Path, what: str) -> bytes:
        """The bytes of a file; ``what`` it is, for errors.

        Raises:
            CheckError: it cannot be read.

        """
        data = read_file(path, what, _MOST_BYTES)
        self._found[path.name, sha256_hex(data)] = None
        return data

    def network(self, path: Path, what: str) -> tuple[bytes, Network]:
        """A network's file, and what it computes.

        Raises:
            CheckError: it cannot be read, or is no network that this project knows.

        """
        data = self.file(path, what)
        return data, load_network(data, path.name).network

    def pair(self, base: Path, patched: Path) -> tuple[tuple[bytes, Network], tuple[bytes, Network]]:
        """Base and patched network, which read the same rows and answer the same labels.

        Raises:
            CheckError: one cannot be read.
            MeasureInputError: they do not.

        """
        first, second = self.network(base, "base network"), self.network(patched, "patched network")
        require_same_form(base.name, first[1], patched.name, second[1])
        return first, second

    def records(self, spec: str, what: str, network: Network) -> Records:
        """Records as a network reads them.

        Args:
            spec: npz, csv or idx files.
            what: what they are for.
            network: whose input shape the rows get, and whose labels their labels must be.

        Raises:
            CheckError: they cannot be read.
            MeasureInputError: they do not fit the network.

        """
        for name in _files(spec):
            self.file(Path(name), what)
        found = load_records(spec, what=what, label_column=self._options.label_column, encoding=self._options.encoding)
        size = prod(network.input_shape)
        if found.rows.shape[1] != size or not len(found):
            text = f"{spec}: {what}: expected rows of {size} numbers, found {list(found.x.shape)}"
            raise MeasureInputError(text)
        if not np.isfinite(found.x).all():
            row = int(np.flatnonzero(~np.isfinite(found.rows).all(axis=1))[0])
            text = f"{spec}: {what}: row {row}: expected finite numbers, found others"
            raise MeasureInputError(text)
        if (found.y >= network.labels).any():
            row = int(np.flatnonzero(found.y >= network.labels)[0])
            text = f"{spec}: {what}: row {row}: expected a label from 0 to {network.labels - 1}, found {found.y[row]}"
            raise MeasureInputError(text)
        return replace(found, x=found.x.reshape(len(found), *network.input_shape))


def require_same_form(first_name: str, first: Network, second_name: str, second: Network) -> None:
    """Refuse two networks that do not read the same rows or do not answer the same labels.

    Args:
        first_name: of the one network, for errors.
        first: that network.
        second_name: of the other.
        second: that network.

    Raises:
        MeasureInputError: they do not.

    """
    forms = [(n.input_shape, n.labels) for n in (first, second)]
    if forms[0] != forms[1]:
        words = [f"rows of {list(shape)} and {labels} labels" for shape, labels in forms]
        text = f"{second_name}: expected {words[0]} as {first_name}, found {words[1]}"
        raise MeasureInputError(text)


def _table(rows: Sequence[MeasuredRow]) -> list[str]:
    """The rows in columns, for a terminal."""
    width = max(len(row.name) for row in rows)
    lines = []
    for row in rows:
        interval = "" if row.interval is None else f"  [{row.interval[0]}, {row.interval[1]}]"
        note = f"  {row.note}" if row.note else ""
        lines.append(f"{row.name:<{width}}  {row.value}{interval}{note}")
    return lines


def measured(
    options: argparse.Namespace,
    kind: str,
    command: str,
    inputs: Inputs,
    rows: Sequence[MeasuredRow],
    series: Mapping[str, tuple[str, ...]],
    *,
    said: Sequence[str] = (),
    wrote: Sequence[Path] = (),
) -> tuple[int, str, dict[str, object]]:
    """Write the measurement where ``--out`` says, and make what the word prints.

    Args:
        options: with ``out`` and ``seed``.
        kind: the word.
        command: that repeats it.
        inputs: what was read.
        rows: what was found.
        series: the numbers of its pictures.
        said: sentences for a person, before the numbers.
        wrote: other files that were written.

    Returns:
        Exit code, text, and the object for ``--json``.

    Raises:
        CheckError: numbers that a measurement file has no room for.
        OSError: the file cannot be written.

    """
    data = emit_measurement(MeasurementFile(kind, command, options.seed, inputs.digests, tuple(rows), dict(series)))
    lines = [*said, "measured, not proved:", *_table(rows), *(f"wrote {path}" for path in wrote)]
    found: dict[str, object] = {"measurement": json.loads(data), "wrote": [str(path) for path in wrote]}
    if options.out is not None:
        new_file(options.out, data)
        digest = sha256_hex(data)
        lines.append(f"wrote {options.out}  sha256 {digest}")
        found |= {"out": str(options.out), "sha256": digest}
    return 0, "\n".join(lines), found
