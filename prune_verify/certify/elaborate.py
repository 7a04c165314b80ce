"""Proofs of claims that rest on bounds: their goals settled in pieces, and the evidence made of what was found.

Whatever the bound engine, branch and bound or z3 say, a record counts as proved only if the checker's kernel proves
it from the evidence; the certificate is judged by the checker once more before it is written.

Source: MATHS 5.2, 5.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from prune_verify.bounds.engine import BoundEngine
from prune_verify.certify.chunks import Report, chunks, job_of, joined, read_report, settle_chunk
from prune_verify.certify.jobs import Job, run_jobs
from prune_verify.certify.settle import Engine, Limits
from prune_verify.checker.bounded_claims import GOALS, MAX_SMT_RECORDS, GoalsRule, goals_of, record_query
from prune_verify.checker.claim import Claim, Outcome, Problem
from prune_verify.checker.encoding import sha256_hex
from prune_verify.checker.errors import LimitError, UnsupportedVersionError
from prune_verify.checker.goals import Goals
from prune_verify.checker.network import Network
from prune_verify.checker.proof import emit
from prune_verify.checker.rules import REAL

__all__ = ["Effort", "Elaborated", "prove_bounded"]

Progress = Callable[[str, int, int], None]
Singles = npt.NDArray[np.float32]
T = TypeVar("T")


@dataclass(frozen=True)
class Effort:
    """How proofs are looked for.

    Args:
        limits: of each record.
        workers: processes.
        cluster: address of a Dask scheduler, or None.
        cache: folder of reports by content, or None.
        engine: makes the bound engine for a network.

    """

    limits: Limits = field(default_factory=Limits)
    workers: int = 1
    cluster: str | None = None
    cache: Path | None = None
    engine: Callable[[Network], Engine] = BoundEngine


@dataclass(frozen=True, eq=False)
class Elaborated:
    """What was found for one claim.

    Args:
        proof: the evidence.
        outcome: what the checker is to make of it.
        method: of the claim.
        points: by record: a float32 point at which a goal fails, to be tried in onnxruntime.
        why: by record that is not proved: the reason.
        best: by record that is not proved: the gap that is left, below 0.
        stages: how many records each stage closed.

    """

    proof: bytes
    outcome: Outcome
    method: str
    points: dict[int, Singles]
    why: dict[int, str]
    best: dict[int, float]
    stages: dict[str, int]


def _silent(_what: str, _done: int, _total: int) -> None:
    """Show nothing."""


def prove_bounded(
    problem: Problem,
    claim: Claim,
    *,
    effort: Effort | None = None,
    rules: Mapping[str, GoalsRule] = GOALS,
    progress: Progress = _silent,
) -> Elaborated:
    """Prove a claim by bounds, record by record, and by z3 where bounds do not reach.

    Args:
        problem: the files; the claim's set is there.
        claim: of a kind that has goals.
        effort: how proofs are looked for.
        rules: goals by kind of claim; what another table than the checker's own proves, its commands do not accept.
        progress: called with what is being done, how many records are settled, and how many there are.

    Raises:
        CheckError: the claim cannot be decided on these files at all.
        CertifyError: the cluster cannot be used.

    """
    effort = Effort() if effort is None else effort
    goals = goals_of(problem, claim, rules=rules)
    reports = list(_reports(goals, claim, effort, progress))
    solved = _solved(problem, claim, reports)
    proof = joined(goals, claim.kind, [report.proof for report in reports], [record for record, _ in solved])
    proved = np.concatenate([report.proved for report in reports])
    proved[[record for record, _ in solved]] = True
    stages: dict[str, int] = {}
    for report in reports:
        for name, count in report.stages.items():
            stages[name] = stages.get(name, 0) + count
    left = set(np.flatnonzero(~proved).tolist())
    outcome = Outcome(
        goals.records,
        int(proved.sum()),
        unknowns=tuple(sorted(left)),
        already_wrong=problem.already_wrong() if claim.kind in ("forget", "band") else (),
        assumptions=tuple(sorted({name for _, name in solved})),
        questions=tuple(solved),
    )
    return Elaborated(
        emit(proof),
        outcome,
        proof.method,
        _by_record(reports, [report.points for report in reports], left),
        _by_record(reports, [report.why for report in reports], left),
        _by_record(reports, [report.best for report in reports], left),
        stages,
    )


def _by_record(reports: list[Report], found: list[dict[int, T]], left: set[int]) -> dict[int, T]:
    """What pieces say of their own records, by the claim's; only of those that are not proved."""
    every, first = dict[int, T](), 0
    for report, values in zip(reports, found, strict=True):
        every |= {first + record: value for record, value in values.items() if first + record in left}
        first += len(report.proved)
    return every


def _reports(goals: Goals, claim: Claim, effort: Effort, progress: Progress) -> list[Report]:
    """All pieces, settled."""
    reports, sizes = list[Report](), list[int]()

    def jobs() -> Iterator[Job]:
        for chunk in chunks(goals, claim.kind, effort.limits, effort.engine):
            sizes.append(len(chunk.least))
            yield job_of(chunk)

    results = run_jobs(jobs(), settle_chunk, workers=effort.workers, cluster=effort.cluster, cache=effort.cache)
    done = 0
    for place, result in enumerate(results):
        piece = replace(goals, records=sizes[place])
        reports.append(read_report(result.data, piece))
        done += sizes[place]
        progress(f"{claim.kind} ({claim.arithmetic}), records", done, goals.records)
    return reports


def _solved(problem: Problem, claim: Claim, reports: list[Report]) -> list[tuple[int, str]]:
    """Forget records over the reals that rest on z3, each with its assumption; no more than the checker takes."""
    found, first = list[tuple[int, str]](), 0
    for report in reports:
        for record in report.solved if claim.kind == "forget" and claim.arithmetic == REAL else ():
            if len(found) == MAX_SMT_RECORDS:
                return found
            try:
                query = record_query(problem, claim, first + record)
            except (LimitError, UnsupportedVersionError):
                return found
            found.append((first + record, f"z3_unsat:{sha256_hex(query.encode())}"))
        first += len(report.proved)
    return found
