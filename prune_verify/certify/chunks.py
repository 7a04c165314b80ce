"""Goals cut into pieces that are settled by themselves, in this process or another, and put together again.

A piece is arrays only, and so is its report: one line of JSON, then a proof. Reports may come from a folder that was
kept from an earlier run; like every hint, they are judged by the checker once they are part of a certificate.

Source: certs/SPEC.md section 5.4 (what a proof is made of).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from prune_verify.bounds.engine import BoundEngine
from prune_verify.certify.jobs import Job, Result, content_key
from prune_verify.certify.proof_trees import CROWN, INPUT, LEAF, LEMMA, RELU
from prune_verify.certify.settle import Engine, Limits, settle
from prune_verify.checker.goals import Goals
from prune_verify.checker.interval import Box
from prune_verify.checker.network import Network
from prune_verify.checker.proof import Proof, emit, parse

__all__ = ["Chunk", "Report", "chunks", "job_of", "joined", "read_report", "settle_chunk"]

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]
Rows = npt.NDArray[np.int64]
_RECORDS = 128


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some records of a claim.

    Args:
        kind: of the claim.
        network: whose output the atoms speak of.
        arithmetic: of the claim.
        low: float64 [records, *input_shape]: of the boxes.
        high: the same.
        objectives: float64 [records or 1, clauses, atoms, labels]; one for all where they are the same.
        least: float64 [records, clauses, atoms].
        strict: whether atoms are.
        limits: how much to spend.
        partners: ReLUs to compare, see :class:`prune_verify.checker.goals.Goals`.
        engine: makes the bound engine.

    """

    kind: str
    network: Network
    arithmetic: str
    low: Floats
    high: Floats
    objectives: Floats
    least: Floats
    strict: bool
    limits: Limits
    partners: Mapping[int, int]
    engine: Callable[[Network], Engine] = BoundEngine

    def goals(self) -> Goals:
        """The goals of these records."""

        def boxes(records: Rows) -> Box:
            return self.low[records], self.high[records]

        def constraint(records: Rows) -> tuple[Floats, Floats]:
            shared = len(self.objectives) == 1
            shape = (len(records), *self.objectives.shape[1:])
            return np.broadcast_to(self.objectives, shape) if shared else self.objectives[records], self.least[records]

        records, clauses, atoms = self.least.shape
        return Goals(
            self.network,
            self.arithmetic,
            records,
            clauses,
            atoms,
            boxes,
            constraint,
            strict=self.strict,
            partners=self.partners,
        )

    def key(self) -> str:
        """Digest of everything that the report depends on."""
        return content_key(
            self.kind.encode(),
            self.network.digest().encode(),
            self.arithmetic.encode(),
            *(_bytes(array) for array in (self.low, self.high, self.objectives, self.least)),
            f"{self.strict} {sorted(self.partners.items())}".encode(),
            json.dumps(asdict(self.limits), sort_keys=True).encode(),
            f"{self.engine.__module__}.{self.engine.__qualname__}".encode(),
        )


def _bytes(array: Floats) -> bytes:
    return f"{array.shape}".encode() + np.ascontiguousarray(array, "<f8").tobytes()


def chunks(
    goals: Goals, kind: str, limits: Limits, engine: Callable[[Network], Engine], size: int = _RECORDS
) -> Iterator[Chunk]:
    """The goals in pieces, made as they are asked for.

    Args:
        goals: all of them.
        kind: of the claim.
        limits: of the search for one record.
        engine: makes what looks for slopes.
        size: records of a piece.

    """
    for start in range(0, goals.records, size):
        records = np.arange(start, min(start + size, goals.records))
        low, high = goals.boxes(records)
        objectives, least = goals.constraint(records)
        same = bool((objectives == objectives[:1]).all())
        yield Chunk(
            kind,
            goals.network,
            goals.arithmetic,
            low,
            high,
            np.ascontiguousarray(objectives[:1] if same else objectives),
            np.ascontiguousarray(least),
            goals.strict,
            limits,
            dict(goals.partners),
            engine,
        )


def job_of(chunk: Chunk) -> Job:
    """The piece as a job."""
    return Job(chunk.key(), chunk)


@dataclass(frozen=True, eq=False)
class Report:
    """What became of a piece; arrays [records].

    Args:
        proof: of its goals.
        proved: which records.
        points: by record: a float32 point at which a goal fails.
        why: by record that is neither: the reason.
        best: by record that is not proved: the gap that is left.
        solved: records that z3 answers with unsat.
        stages: how many records each stage closed.

    """

    proof: Proof
    proved: npt.NDArray[np.bool_]
    points: dict[int, Singles]
    why: dict[int, str]
    best: dict[int, float]
    solved: tuple[int, ...]
    stages: dict[str, int]


def settle_chunk(chunk: Chunk) -> Result:
    """Settle a piece; a report that limits of time or memory had a part in is not to be kept."""
    goals = chunk.goals()
    found = settle(goals, chunk.limits, kind=chunk.kind, engine=chunk.engine)
    solved = sorted({record for record, _ in found.solved})
    header = {
        "points": {str(record): x.astype("<f4").tobytes().hex() for record, x in found.points.items()},
        "why": {str(record): text for record, text in found.why.items()},
        "best": {str(record): repr(gap) for record, gap in found.best.items()},
        "solved": solved,
        "stages": found.stages,
    }
    data = json.dumps(header, sort_keys=True).encode() + b"\n" + emit(found.proof.write(goals, chunk.kind))
    return Result(data, final=not found.timed)


def read_report(data: bytes, goals: Goals) -> Report:
    """The report of a piece of ``goals.records`` records; an empty one (a job that was lost) leaves all open."""
    count = goals.records
    if not data:
        lost = "the process that was to settle it did not end properly"
        empty = Proof(
            "", goals.arithmetic, "relaxation", "", count, choices=np.full(count * goals.clauses, -1, np.int32)
        )
        return Report(empty, np.zeros(count, np.bool_), {}, dict.fromkeys(range(count), lost), {}, (), {})
    line, _, rest = data.partition(b"\n")
    header, proof = json.loads(line), parse(rest, "report")
    shape = goals.network.input_shape
    points = {
        int(record): np.frombuffer(bytes.fromhex(text), "<f4").astype(np.float32).reshape(shape)
        for record, text in header["points"].items()
    }
    choices = proof.choices if proof.choices.size else np.zeros(count * goals.clauses, np.int32)
    return Report(
        proof,
        np.asarray((choices.reshape(count, goals.clauses) >= 0).all(axis=1)),
        points,
        {int(record): text for record, text in header["why"].items()},
        {int(record): float(gap) for record, gap in header["best"].items()},
        tuple(header["solved"]),
        header["stages"],
    )


# --- proofs put together ---


def joined(goals: Goals, kind: str, parts: Sequence[Proof], smt: Sequence[int] = ()) -> Proof:
    """The proof of all goals from those of pieces, which follow one another.

    Args:
        goals: all of them.
        kind: of the claim.
        parts: each of as many records as its piece has, choices written out or all 0.
        smt: records that rest on z3.

    """
    active = {
        relu: np.unique(np.concatenate([part.active[relu] for part in parts if relu in part.active])).astype(np.int32)
        for relu in sorted({relu for part in parts for relu in part.active})
    }
    choices, hinted, trees, steps, cuts, multipliers = (list[npt.NDArray[np.generic]]() for _ in range(6))
    slopes: dict[int, list[Singles]] = {relu: [] for relu in active}
    leaf_slopes: dict[int, list[Singles]] = {relu: [] for relu in active}
    first, sets = 0, sum(len(part.hinted) for part in parts)
    for part in parts:
        count = part.records * goals.clauses
        choices.append(part.choices if part.choices.size else np.zeros(count, np.int32))
        hinted.append(part.hinted + first)
        trees.append(part.trees + first)
        own = len(part.hinted)
        steps.append(_moved(part.steps, own, sets, sum(array.size for array in cuts)))
        cuts.append(part.cuts)
        paid = _paid(part.steps)
        multipliers.append(part.multipliers if part.multipliers.size else np.zeros(paid, np.float32))
        for relu, places in active.items():
            wide = np.zeros((part.sets, len(places)), np.float32)
            if relu in part.slopes:
                wide[:, np.searchsorted(places, part.active[relu])] = part.slopes[relu]
            slopes[relu].append(wide[:own])
            leaf_slopes[relu].append(wide[own:])
        first, sets = first + count, sets + part.sets - own
    tables = {relu: np.concatenate(slopes[relu] + leaf_slopes[relu]) for relu in active}
    found = np.concatenate(multipliers) if multipliers else np.zeros(0, np.float32)
    return Proof(
        kind=kind,
        arithmetic=goals.arithmetic,
        method="relaxation+smt" if len(smt) else "relaxation",
        network=goals.network.digest(),
        records=goals.records,
        choices=np.concatenate(choices).astype(np.int32),
        hinted=np.concatenate(hinted).astype(np.int32),
        smt=np.array(sorted(smt), dtype=np.int32),
        trees=np.concatenate(trees).astype(np.int32),
        steps=np.concatenate(steps).astype(np.int32),
        cuts=np.concatenate(cuts).astype(np.float32),
        multipliers=found.astype(np.float32) if found.any() else np.zeros(0, np.float32),
        active=active if sets else {},
        slopes=tables if sets else {},
    )


def _moved(steps: Integers, own: int, sets: int, cuts: int) -> Integers:
    """Steps whose sets of slopes and cuts have moved: sets from ``own`` on now begin at ``sets``."""
    found = steps.reshape(-1, 3).copy()
    for kind, column in ((LEAF, 2), (LEMMA, 1)):
        here = (found[:, 0] == kind) & (found[:, column] != CROWN)
        found[here, column] += sets - own
    found[found[:, 0] == INPUT, 2] += cuts
    return found.reshape(-1)


def _paid(steps: Integers) -> int:
    """How many multipliers the leaves of trees have: one per sign split above each."""
    total, stack = 0, [0]
    for kind in steps.reshape(-1, 3)[:, 0].tolist():
        if not stack:  # the next tree
            stack.append(0)
        depth = stack.pop()
        if kind == LEAF:
            total += depth
        elif kind == LEMMA:
            stack.append(depth)
        else:
            stack += [depth + (kind == RELU)] * 2
    return total
