"""Claims refuted: points found while proving, tried on the files themselves in onnxruntime.

A point at which a goal failed is no refutation yet: goals may ask for more than the claim does, and they were run on
the checker's form of the networks. What onnxruntime confirms is written beside the certificate, one file a record.

Source: FORMATS section 3 (certify: exit code 1); rules of VNN-COMP (counterexamples).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from prune_verify.certify.claims import Decided
from prune_verify.certify.counterexamples import Point, Runner, claim_fails, in_region, refuted_over_the_reals
from prune_verify.certify.vnnlib_files import write_counterexample
from prune_verify.checker.claim import Problem
from prune_verify.checker.rules import REAL

__all__ = ["Refutation", "refutations"]

_FORGET = ("forget", "band")


@dataclass(frozen=True, eq=False)
class Refutation:
    """One record of one claim, refuted.

    Args:
        claim: the claim's id.
        kind: of the claim.
        point: the input, and the logits that onnxruntime gives for it.

    """

    claim: str
    kind: str
    point: Point

    def name(self) -> str:
        """Of its file."""
        return f"{self.claim}-{self.kind}-record-{self.point.record}.txt"

    def text(self) -> str:
        """Input and outputs in VNN-COMP's form; where the claim compares two networks, first the base's outputs."""
        point = self.point
        outputs = point.patched if point.base is None else np.concatenate([point.base, point.patched])
        return write_counterexample(point.x.reshape(-1), outputs)


def refutations(
    problem: Problem, decided: Sequence[Decided], base_bytes: bytes, patched_bytes: bytes
) -> list[Refutation]:
    """Which of the points that were found refute their claims.

    Args:
        problem: the networks and sets.
        decided: claims, with what was found.
        base_bytes: the base's ONNX file.
        patched_bytes: the patched network's.

    """
    found = list[Refutation]()
    if not any(item.found is not None and item.found.points for item in decided):
        return found
    base, patched = Runner(base_bytes), Runner(patched_bytes)
    for item in decided:
        claim = item.claim
        if item.found is None or claim.radius is None:
            continue
        rows = problem.rows("forget" if claim.kind in _FORGET else "retain")
        for record, x in sorted(item.found.points.items()):
            if not in_region(x, rows.x[record], claim.radius, problem.domain):
                continue
            logits = [runner.logits(x) for runner in (base, patched)]
            ends = [[(v, v) for v in map(Fraction, values.tolist())] for values in logits]
            label = int(rows.y[record])
            fails = claim_fails(claim, label, ends[0], ends[1])
            if fails and claim.arithmetic == REAL:
                fails = refuted_over_the_reals(claim, label, problem.base, problem.patched, x)
            if fails:
                point = Point(record, x, None if claim.kind in _FORGET else logits[0], logits[1])
                found.append(Refutation(item.id, claim.kind, point))
    return found
