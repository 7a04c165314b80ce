"""Committed sets that were opened: the keys in ``openings.json``, and that a set is the one that was committed.

Source: FORMATS section 1 (``openings.json``); certs/SPEC.md section 7 (commitments); THREATS T13.
"""

from __future__ import annotations

from pathlib import Path

from prune_verify.checker.commitment import Openings, parse_openings
from prune_verify.checker.encoding import read_file
from prune_verify.checker.errors import SubjectMismatchError
from prune_verify.checker.merkle import set_root
from prune_verify.checker.records import Records, canonical_records
from prune_verify.checker.statement import SetCommitment

__all__ = ["read_openings", "require_committed"]

_MOST_BYTES = 2**26  # an index for each forget record


def read_openings(path: Path) -> Openings:
    """What opens the committed sets, as far as it is there; nothing without the file.

    Raises:
        CheckError: it cannot be used.

    """
    if not path.is_file():
        return Openings(None, None)
    return parse_openings(read_file(path, "openings", _MOST_BYTES), path.name)


def require_committed(records: Records, commitment: SetCommitment, key: bytes, place: str) -> None:
    """Refuse records that are not, one for one and in order, the set that was committed.

    Args:
        records: as the auditor has them.
        commitment: size and root.
        key: of the openings.
        place: where the commitment stands, for errors.

    Raises:
        SubjectMismatchError: another number of records, or another root.

    """
    if len(records.y) != commitment.size:
        raise SubjectMismatchError(f"{place}/size", "number of records", str(commitment.size), str(len(records.y)))
    root = set_root(key, canonical_records(records))
    if root != commitment.root:
        raise SubjectMismatchError(f"{place}/root", "Merkle root of the committed set", commitment.root, root)
