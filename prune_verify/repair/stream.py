"""Requests one after another: what is live, which gates stand, and what is already known of the retained records.

A folder of the stream holds, beside the files of ``repair``: ``stream.json`` (the live requests), ``forget.npz`` (the
live forget set, confidential), ``threat-model.toml``, and ``checked.npz``: a salted 64-bit hash of every retained
record that is known to be outside every gate, so that a new request looks only at its own gates and at records that
are new. A wrong hash could hide a conflict here and nowhere else: the checker decides every claim again.

Source: MATHS 4.4 (streams of requests); FORMATS section 1 (closed forms).
"""

from __future__ import annotations

import hashlib
import io
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prune_verify.checker.claim import LabelledRows
from prune_verify.checker.encoding import (
    Members,
    canonical_json,
    format_decimal,
    format_time,
    parse_json,
    read_file,
)
from prune_verify.checker.errors import MalformedInputError, UnsupportedVersionError
from prune_verify.checker.patch import Gate
from prune_verify.repair.errors import RepairInputError

__all__ = ["LiveRequest", "Stream", "emit_stream", "parse_stream"]

FORMAT_VERSION = 1
STREAM, CHECKED = "stream.json", "checked.npz"
_NAMES = ("formatVersion", "baseDigest", "salt", "repairSeconds", "proveSeconds", "repairs", "requests")
_REQUEST = ("reference", "receivedAt", "records", "classes")
_MOST_BYTES = 2**28
_HASH = 8
_LONGEST_REFERENCE = 256
Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class LiveRequest:
    """One request that is still in force.

    Args:
        reference: by which it is withdrawn; no two live ones have the same.
        received_at: when.
        records: rows of the live forget set.
        classes: labels forgotten for all inputs.

    """

    reference: str
    received_at: datetime
    records: tuple[int, ...]
    classes: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Stream:
    """What is live; hashes have shape [records].

    Args:
        base: digest of the base network.
        salt: of the hashes.
        requests: in the order in which they came.
        checked: sorted hashes of retained records outside every gate.
        seconds: spent on repairing so far.
        proved: seconds spent on certificates so far, as the owner says; 0 where it was never said.
        repairs: how many runs that were.

    """

    base: str
    salt: bytes
    requests: tuple[LiveRequest, ...]
    checked: Hashes
    seconds: Fraction = Fraction(0)
    proved: Fraction = Fraction(0)
    repairs: int = 0

    @classmethod
    def begun(cls, base: str) -> Stream:
        """A stream without requests."""
        return cls(base, secrets.token_bytes(16), (), np.zeros(0, dtype=np.uint64))

    @property
    def classes(self) -> tuple[int, ...]:
        """Labels that some live request forgets for all inputs."""
        return tuple(sorted({label for request in self.requests for label in request.classes}))

    def hashes(self, rows: LabelledRows) -> Hashes:
        """A salted hash of every record: uint64 [rows]."""
        found = [
            hashlib.blake2b(row.tobytes() + int(label).to_bytes(8, "big"), digest_size=_HASH, key=self.salt).digest()
            for row, label in zip(rows.flat(), rows.y, strict=True)
        ]
        return np.frombuffer(b"".join(found), dtype="<u8").astype(np.uint64)

    def known(self, hashes: Hashes) -> npt.NDArray[np.bool_]:
        """Which records are known to be outside every standing gate: bool [rows] for their hashes."""
        return np.isin(hashes, self.checked)

    def with_checked(self, hashes: Hashes, conflicts: Sequence[int]) -> Stream:
        """The stream, knowing of the retained records with these hashes [records], and of their conflicts."""
        outside = np.ones(len(hashes), dtype=np.bool_)
        outside[list(conflicts)] = False
        return replace(self, checked=np.unique(hashes[outside]))

    def references(self, records: Sequence[int]) -> tuple[str, ...]:
        """The live requests that name any of these records, in the order in which they came."""
        wanted = set(records)
        return tuple(live.reference for live in self.requests if wanted & set(live.records))

    def joined(self, forget: LabelledRows, new: LabelledRows, request: LiveRequest) -> tuple[Stream, LabelledRows]:
        """The stream with one request more, and the live forget set with its records; one that is there is not doubled.

        Args:
            forget: the live forget set.
            new: the request's records.
            request: its ``records`` are filled in here.

        Raises:
            RepairInputError: the reference is live already, or too long.

        """
        if len(request.reference) > _LONGEST_REFERENCE:
            text = f"--reference: expected at most {_LONGEST_REFERENCE} characters, got {len(request.reference)}"
            raise RepairInputError(text)
        if any(request.reference == live.reference for live in self.requests):
            text = f"--reference {request.reference!r}: expected one that no live request has; withdraw that one first"
            raise RepairInputError(text)
        places = {
            (row.tobytes(), int(label)): i for i, (row, label) in enumerate(zip(forget.flat(), forget.y, strict=True))
        }
        added, records = list[int](), list[int]()
        for place, (row, label) in enumerate(zip(new.flat(), new.y, strict=True)):
            key = row.tobytes(), int(label)
            if key not in places:
                places[key] = len(forget.y) + len(added)
                added.append(place)
            records.append(places[key])
        request = replace(request, records=tuple(sorted(set(records))))
        x, y = np.concatenate([forget.x, new.x[added]]), np.concatenate([forget.y, new.y[added]])
        return replace(self, requests=(*self.requests, request)), LabelledRows(x, y)

    def without(
        self, references: Sequence[str], forget: LabelledRows, gates: Sequence[Gate]
    ) -> tuple[Stream, LabelledRows, tuple[Gate, ...]]:
        """The stream without some requests, with the records and gates that others still need, renumbered.

        A gate that was for a withdrawn record as well is left out: what else it was for gets a gate of its own.

        Args:
            references: of the requests that are taken back.
            forget: the live records.
            gates: those that stand.

        Raises:
            RepairInputError: a reference that no live request has.

        """
        unknown = sorted(set(references) - {live.reference for live in self.requests})
        if unknown:
            live = ", ".join(repr(one.reference) for one in self.requests[:12]) or "none"
            text = f"--withdraw {unknown[0]!r}: expected the reference of a live request; live are {live}"
            raise RepairInputError(text)
        left = [live for live in self.requests if live.reference not in references]
        kept = sorted({record for live in left for record in live.records})
        place = {record: i for i, record in enumerate(kept)}
        renumbered = tuple(replace(live, records=tuple(place[r] for r in live.records)) for live in left)
        stood = [
            replace(gate, records=tuple(place[r] for r in gate.records))
            for gate in gates
            if all(record in place for record in gate.records)
        ]
        return replace(self, requests=renumbered), LabelledRows(forget.x[kept], forget.y[kept]), tuple(stood)

    def write(self) -> dict[str, bytes]:
        """The stream's own files, by name."""
        buffer = io.BytesIO()
        np.savez(buffer, checked=self.checked)
        return {STREAM: emit_stream(self), CHECKED: buffer.getvalue()}

    @classmethod
    def read(cls, folder: Path) -> Stream:
        """The stream of a folder.

        Raises:
            RepairInputError: the folder is none of a stream.
            CheckError: a file is not of the closed form.

        """
        if not (folder / STREAM).is_file():
            text = f"--onto {folder}: expected a folder that repair --stream wrote, found no {STREAM} in it"
            raise RepairInputError(text)
        stream = parse_stream(read_file(folder / STREAM, "stream", _MOST_BYTES), str(folder / STREAM))
        path = folder / CHECKED
        try:
            with np.load(path, allow_pickle=False) as found:
                checked = found["checked"]
        except (OSError, ValueError, KeyError) as error:
            raise MalformedInputError(str(path), "hashes of checked records", "an npz file", str(error)) from None
        if checked.dtype != np.uint64 or checked.ndim != 1:
            raise MalformedInputError(str(path), "hashes", "uint64 [records]", f"{checked.dtype} {list(checked.shape)}")
        return replace(stream, checked=checked)


def emit_stream(stream: Stream) -> bytes:
    """The canonical bytes of ``stream.json``."""
    return canonical_json(
        {
            "formatVersion": FORMAT_VERSION,
            "baseDigest": stream.base,
            "salt": stream.salt.hex(),
            "repairSeconds": format_decimal(stream.seconds),
            "proveSeconds": format_decimal(stream.proved),
            "repairs": stream.repairs,
            "requests": [
                {
                    "reference": live.reference,
                    "receivedAt": format_time(live.received_at),
                    "records": list(live.records),
                    "classes": list(live.classes),
                }
                for live in stream.requests
            ],
        }
    )


def parse_stream(data: bytes, path: str) -> Stream:
    """Read ``stream.json``; the hashes are in a file of their own.

    Raises:
        CheckError: not of the closed form.

    """
    fields = Members(parse_json(data, path, canonical=True), path, _NAMES)
    if fields.integer("formatVersion") != FORMAT_VERSION:
        raise UnsupportedVersionError(fields.place("formatVersion"), "version", str(FORMAT_VERSION), "another")
    requests = []
    for place, item in enumerate(fields.items("requests")):
        one = Members(item, f"{fields.place('requests')}/{place}", _REQUEST)
        requests.append(
            LiveRequest(one.text("reference"), one.time("receivedAt"), one.integers("records"), one.integers("classes"))
        )
    references = [live.reference for live in requests]
    if len(set(references)) != len(references):
        raise MalformedInputError(fields.place("requests"), "references", "each once", "one twice")
    try:
        salt = bytes.fromhex(fields.text("salt"))
    except ValueError:
        raise MalformedInputError(fields.place("salt"), "salt", "hex digits", fields.text("salt")[:80]) from None
    empty = np.zeros(0, dtype=np.uint64)
    seconds, proved = fields.decimal("repairSeconds"), fields.decimal("proveSeconds")
    return Stream(fields.text("baseDigest"), salt, tuple(requests), empty, seconds, proved, fields.integer("repairs"))
