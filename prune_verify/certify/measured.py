"""Measurements in a certificate: each number of a measurement file becomes one entry that names the file by digest.

They are never among the claims, and the checker does not repeat them. What is taken up must speak of the networks of
the certificate: a measurement of another network would look like one of this.

Source: FORMATS section 2 (measurements); certs/SPEC.md section 7.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prune_verify.certify.errors import CertifyInputError
from prune_verify.checker.encoding import sha256_hex
from prune_verify.checker.statement import Measurement
from prune_verify.files import replace_file
from prune_verify.measurement_file import MOST_ROWS, MeasurementFile, read_measurement

__all__ = ["FOLDER", "Measured", "measured_files"]

FOLDER = "measurements"


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured of a patched network.

    Args:
        entries: of the statement.
        files: by digest, as they were read.

    """

    entries: tuple[Measurement, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)

    def write(self, out: Path) -> None:
        """Copy the files to ``out``, beside the statement, each named by its digest; others that stand there stay.

        Raises:
            OSError: the folder is not writable.

        """
        if self.files:
            (out / FOLDER).mkdir(exist_ok=True)
        for digest, data in self.files.items():
            replace_file(out / FOLDER / f"{digest}.json", data)


def _entries(found: MeasurementFile, digest: str) -> tuple[Measurement, ...]:
    return tuple(
        Measurement(f"{found.kind}.{row.name}", row.value, row.interval, found.command, found.seed, digest)
        for row in found.rows
    )


def measured_files(paths: Sequence[Path], subjects: Mapping[str, bytes], room: int = MOST_ROWS) -> Measured:
    """Take up measurement files.

    Args:
        paths: of them; one that is named twice counts once.
        subjects: the patched network and its patch by name: every file must name one of them among its inputs.
        room: entries that the statement has room for.

    Raises:
        CheckError: no measurement file; it names file and member.
        CertifyInputError: one that speaks of other networks, or more numbers than there is room for.

    """
    digests = {sha256_hex(data) for data in subjects.values()}
    files: dict[str, bytes] = {}
    entries: list[Measurement] = []
    for path in paths:
        found, data = read_measurement(path)
        digest = sha256_hex(data)
        if digest in files:
            continue
        if not digests & {of for _, of in found.inputs}:
            text = f"{path}: expected a measurement of {' or '.join(subjects)}, found one of other files"
            raise CertifyInputError(text)
        files[digest] = data
        entries += _entries(found, digest)
    if len(entries) > room:
        text = f"--measurements: expected at most {room} numbers in all, found {len(entries)}"
        raise CertifyInputError(text)
    return Measured(tuple(entries), files)
