"""Measurement files in the report: shown only where the certificate names them, and compared with what it states.

The owner may hand over anything. A file that the certificate does not name says nothing of this network; one that it
names may still say other numbers than the certificate. Both are said; neither has to do with the verdict.

Source: FORMATS 2 (measurements), 3 (``verify --report``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prune_verify.checker.encoding import parse_digest, sha256_hex
from prune_verify.checker.errors import CheckError
from prune_verify.measurement_file import MeasurementFile, parse_measurement

__all__ = ["ShownMeasurement", "beside", "shown_measurements"]

_FOLDER = "measurements"
_MOST_FILES = 64


@dataclass(frozen=True, eq=False)
class ShownMeasurement:
    """A measurement file as the report shows it.

    Args:
        name: of the file.
        sha256: of it, in hex.
        found: what it holds, or None where nothing of it is shown.
        problem: why nothing is shown, or where it differs from the certificate; empty where neither is so.

    """

    name: str
    sha256: str
    found: MeasurementFile | None
    problem: str = ""


def beside(certificate: Path, stated: Iterable[object]) -> list[Path]:
    """The files of ``measurements/`` beside a certificate whose names are digests that it states.

    Args:
        certificate: its path.
        stated: its measurements, as they stand there.

    """
    found: list[Path] = []
    for digest in dict.fromkeys(_digests(stated)):
        path = certificate.parent / _FOLDER / f"{digest}.json"
        if path.is_file() and len(found) < _MOST_FILES:
            found.append(path)
    return found


def _digests(stated: Iterable[object]) -> list[str]:
    digests = []
    for item in stated:
        value = item.get("reportSha256") if isinstance(item, Mapping) else None
        if isinstance(value, str):
            try:
                digests.append(parse_digest(value, "reportSha256"))
            except CheckError:
                continue
    return digests


def _differing(found: MeasurementFile, stated: Sequence[Mapping[str, object]]) -> list[str]:
    """The kinds of entries that the certificate states and the file does not say, or the reverse."""
    own: dict[str, tuple[object, ...]] = {}
    for row in found.rows:
        ends = None if row.interval is None else list(row.interval)
        own[f"{found.kind}.{row.name}"] = (row.value, ends, found.command, found.seed)
    members = ("value", "interval", "command", "seed")
    theirs = {str(item.get("kind")): tuple(item.get(name) for name in members) for item in stated}
    return sorted(kind for kind in own.keys() | theirs.keys() if own.get(kind) != theirs.get(kind))


def shown_measurements(files: Sequence[tuple[str, bytes]], stated: Sequence[object]) -> tuple[ShownMeasurement, ...]:
    """What the report shows of measurement files.

    Args:
        files: (name, bytes) of each; one that is given twice is shown once.
        stated: the certificate's measurements, as they stand there; empty where no signature was accepted.

    """
    entries = [item for item in stated if isinstance(item, Mapping)]
    named, shown = set(_digests(entries)), dict[str, ShownMeasurement]()
    for name, data in files:
        digest = sha256_hex(data)
        if digest in shown:
            continue
        if digest not in named:
            problem = "the certificate does not name this file, so nothing of it is shown"
            shown[digest] = ShownMeasurement(name, digest, None, problem)
            continue
        try:
            found = parse_measurement(data, name)
        except CheckError as error:
            shown[digest] = ShownMeasurement(name, digest, None, f"it cannot be read: {error}")
            continue
        other = _differing(found, [item for item in entries if item.get("reportSha256") == digest])
        problem = f"the certificate states other numbers than this file: {', '.join(other)}" if other else ""
        shown[digest] = ShownMeasurement(name, digest, found, problem)
    return tuple(shown.values())
