"""Which records of a committed training set are forgotten and which are retained, found by value for the openings.

The checker puts the training set together again from both sets and compares the root (SPEC 7.1); what would be
refused there is refused here first, with the records named.

Source: certs/SPEC.md section 7.1; FORMATS section 3 (``commit``); THREATS T13.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prune_verify.certify.errors import CertifyInputError
from prune_verify.checker.commitment import (
    MAX_COMMITMENT_BYTES,
    TrainingOpening,
    parse_commitment,
    parse_openings,
)
from prune_verify.checker.encoding import read_file
from prune_verify.checker.envelope import parse_envelope
from prune_verify.checker.merkle import set_root
from prune_verify.checker.records import Records, canonical_records, load_records, value_keys

__all__ = ["Committed", "add_committed", "committed_sets", "training_opening"]

_MOST_BYTES = 2**26
_SHOWN = 5


@dataclass(frozen=True)
class Committed:
    """A commitment that the sets of a request make up.

    Args:
        payload: its statement, for the checker's run.
        opening: how they make it up.

    """

    payload: bytes
    opening: TrainingOpening


def add_committed(parser: argparse.ArgumentParser) -> None:
    """The options of ``certify`` that name a commitment."""
    parser.add_argument(
        "--commitment",
        type=Path,
        metavar="C.commitment.json",
        help="made before training (prune-verify commit): show that forget and retained set together are the training "
        "set; with --commitment-openings and --training",
    )
    parser.add_argument("--commitment-openings", type=Path, metavar="C.openings.json", help="what opens it")
    parser.add_argument("--training", metavar="RECORDS", help="the training set as it was committed, in its order")


def committed_sets(options: argparse.Namespace, forget: Records | None, retain: Records | None) -> Committed | None:
    """What ``certify`` was told of a commitment, found to be of these sets; None where it was told of none.

    Raises:
        CheckError: a file cannot be used.
        CertifyInputError: options are missing, or the sets are not the committed training set; it names the records.

    """
    given = {
        "--commitment": options.commitment,
        "--commitment-openings": options.commitment_openings,
        "--training": options.training,
    }
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return None
    if missing or forget is None or retain is None:
        lacking = ", ".join(missing) or "--forget or --retain"
        text = f"{', '.join(given)} go together, with --forget and --retain: expected all, got no {lacking}"
        raise CertifyInputError(text)
    data = read_file(options.commitment, "commitment", MAX_COMMITMENT_BYTES)
    payload = parse_envelope(data, str(options.commitment)).payload
    found = parse_commitment(payload, f"{options.commitment}/payload")
    openings = parse_openings(
        read_file(options.commitment_openings, "openings", _MOST_BYTES), str(options.commitment_openings)
    )
    if openings.training is None:
        text = f"{options.commitment_openings}: expected the openings that commit wrote, got none of a training set"
        raise CertifyInputError(text)
    training: Records = load_records(
        options.training, what="training set", label_column=options.label_column, encoding=options.encoding
    )
    key = openings.training.key
    root = set_root(key, canonical_records(training))
    if (root, len(training)) != (found.root, found.size):
        text = (
            f"{options.training} is not the set that {options.commitment} commits to: expected {found.size} records "
            f"with root {found.root}, got {len(training)} with root {root}"
        )
        raise CertifyInputError(text)
    return Committed(payload, training_opening(key, training, forget, retain))


def training_opening(key: bytes, training: Records, forget: Records, retain: Records) -> TrainingOpening:
    """Find the place of every forget record, and see that the rest, but for twins, is the retained set in order.

    Args:
        key: of the commitment.
        training: the committed set.
        forget: each of its records takes one place of its own.
        retain: in the order of the training set.

    Raises:
        CertifyInputError: the sets do not make up the training set; it names the records.

    """
    records, free = canonical_records(training), dict[bytes, list[int]]()
    for place in reversed(range(len(records))):
        free.setdefault(records[place], []).append(place)
    indices = [free[record].pop() if free.get(record) else -1 for record in canonical_records(forget)]
    strangers = [place for place, index in enumerate(indices) if index < 0]
    if strangers:
        raise CertifyInputError(_named(forget, strangers, "is no record of", training))
    taken, forgotten, values = set(indices), set(value_keys(forget.rows)), value_keys(training.rows)
    left = [place for place in range(len(records)) if place not in taken]
    twins = tuple((place, records[place]) for place in left if values[place] in forgotten)
    others = [place for place in left if values[place] not in forgotten]
    _require_same(training, retain, records, others)
    return TrainingOpening(key, tuple(indices), twins)


def _require_same(training: Records, retain: Records, records: Sequence[bytes], others: Sequence[int]) -> None:
    """The retained set is what is left of the training set, in its order."""
    retained = canonical_records(retain)
    if [records[place] for place in others] == retained:
        return
    wanted, found = Counter(records[place] for place in others), Counter(retained)
    foreign, lacking = found - wanted, wanted - found
    strangers = [place for place, record in enumerate(retained) if record in foreign]
    if strangers:
        raise CertifyInputError(_named(retain, strangers, "is no record, or one too many, of", training))
    absent = [place for place in others if records[place] in lacking]
    if absent:
        raise CertifyInputError(_named(training, absent, "is neither to be forgotten nor in", retain))
    place = next(p for p, (index, record) in enumerate(zip(others, retained, strict=True)) if records[index] != record)
    text = (
        f"{retain.source} holds the right records in another order than {training.source}: record {place} should be "
        f"record {others[place]} of it; write the retained set in the order of the training set"
    )
    raise CertifyInputError(text)


def _named(records: Records, places: Sequence[int], what: str, others: Records) -> str:
    shown = ", ".join(str(place) for place in places[:_SHOWN]) + (", ..." if len(places) > _SHOWN else "")
    text = "forget and retained set have to make up the committed training set, value for value"
    return f"{records.source}: record {shown} ({len(places)} in all) {what} {others.source}; {text}"
