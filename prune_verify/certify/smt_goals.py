"""The prover's question to an SMT solver whether one goal fails somewhere on its box, and the solver's answer.

A goal is one clause of one record: atoms ``c . y >= least`` of which one has to hold wherever on the box. Its negation,
that every atom fails at some point, is written as SMT-LIB 2 text (QF_LRA) in exact rational numbers. Unlike the text
of :mod:`prune_verify.checker.smt`, which stands in assumptions and depends on the files only, this one uses the
checker's enclosures of the box: a ReLU whose sign they settle is linear, and for every other one they are asserted,
with its triangle. The enclosures hold for every point of the box in real arithmetic, so that no answer changes.

Nothing here is proof. ``sat`` is answered only with a point that violates every atom in exact evaluation; ``unsat`` is
the solver's word until the checker accepts a proof.

Source: MATHS 5.3; SMT-LIB 2.6, theory Reals, logic QF_LRA.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import prod

import numpy as np

from prune_verify.certify.linear_forms import form_text, number_text
from prune_verify.certify.smt_network import Encoding, Signs, weighted_sum
from prune_verify.certify.smt_solver import Result, solve_with_model
from prune_verify.checker.errors import MalformedInputError, UnsupportedVersionError
from prune_verify.checker.goals import Goals
from prune_verify.checker.interval import Floats, Intervals
from prune_verify.checker.network import Network, evaluate_exact
from prune_verify.checker.relaxation import crown_intervals
from prune_verify.checker.rules import REAL

__all__ = ["Decision", "decide_goal", "goal_query", "violates"]


@dataclass(frozen=True)
class Decision:
    """What the solver says of the negation of a goal.

    Args:
        result: ``unsat`` (the goal holds), ``sat`` (it fails) or ``unknown``.
        point: for ``sat``, an input of the box, flattened, at which every atom fails in exact evaluation.

    """

    result: Result
    point: list[Fraction] | None = None


def _require_signs(network: Network, signs: Signs) -> None:
    for index, place in signs:
        known = 0 < index < len(network.nodes) and network.nodes[index].op == "Relu"
        if not known or not 0 <= place < prod(network.nodes[index].shape):
            raise MalformedInputError("SMT query", "sign of a neuron", "a place of a Relu", f"node {index}, {place}")


def goal_query(
    network: Network,
    intervals: Intervals,
    row: int,
    objectives: Floats,
    least: Floats,
    *,
    strict: bool,
    signs: Signs | None = None,
) -> str:
    """The negation of a goal on a box: every atom fails at one point.

    Args:
        network: whose output the atoms speak of.
        intervals: enclosures over the box in real arithmetic, by the checker's own kernel.
        row: which of their rows belongs to the box.
        objectives: c of each atom [atoms, labels].
        least: of each atom [atoms]; infinite where an atom never holds, or always.
        strict: whether an atom is ``>`` instead of ``>=``.
        signs: restriction to a leaf of a split tree: by (Relu node, place), whether it is the case that the
            neuron's input is at most 0 rather than at least 0.

    Returns:
        SMT-LIB 2 text; the inputs are x0, x1, ... in flattened order. ``unsat``: at every point of the box (and of
        the leaf) one atom holds, over the reals.

    Raises:
        UnsupportedVersionError: an operator that is not piecewise linear with rational factors.
        LimitError: the network is too large.
        MalformedInputError: atoms that are not the network's, or a sign of what is not a Relu.

    """
    if objectives.shape != (len(least), network.labels) or np.isnan(least).any() or not np.isfinite(objectives).all():
        expected, got = f"finite rows of {network.labels} numbers", str(objectives.shape)
        raise MalformedInputError("SMT query", "atoms", expected, got)
    _require_signs(network, signs or {})
    query = Encoding(network, intervals, row, signs or {})
    logits = query.values[network.output].reshape(-1)
    for factors, end in zip(objectives.tolist(), least.tolist(), strict=True):
        if np.isfinite(end):
            value = form_text(weighted_sum([Fraction(f) for f in factors], logits, Fraction(0)))
            query.require(f"({'<=' if strict else '<'} {value} {number_text(Fraction(end))})")
        elif end < 0:
            query.require("false")
    return query.text()


def violates(goals: Goals, record: int, clause: int, point: list[Fraction]) -> bool:
    """Establish by exact evaluation that a point lies in the box of a record and all atoms of the clause fail at it."""
    chosen = np.array([record])
    low, high = (end.reshape(-1).tolist() for end in goals.boxes(chosen))
    if not all(Fraction(a) <= v <= Fraction(b) for a, v, b in zip(low, point, high, strict=True)):
        return False
    shape = goals.network.input_shape
    flat = np.empty(len(point), dtype=object)
    flat[:] = point
    (logits,) = evaluate_exact(goals.network, flat.reshape(1, *shape))
    objectives, least = (values[0, clause] for values in goals.constraint(chosen))
    for factors, end in zip(objectives.tolist(), least.tolist(), strict=True):
        value = sum((Fraction(f) * v for f, v in zip(factors, logits, strict=True)), Fraction(0))
        if value > end or (value == end and not goals.strict):
            return False
    return True


def decide_goal(
    goals: Goals, record: int, clause: int, *, timeout: float, memory_mb: int, signs: Signs | None = None
) -> Decision:
    """Ask z3, in a process of its own, whether a goal fails somewhere on its box.

    Args:
        goals: over the reals.
        record: which box.
        clause: which clause of it.
        timeout: seconds.
        memory_mb: mebibytes that z3 may use.
        signs: restriction to a leaf (see :func:`goal_query`).

    Returns:
        The answer; time-outs, crashes, and a ``sat`` whose point does not violate the goal exactly, are ``unknown``.

    Raises:
        UnsupportedVersionError: goals in binary32, or an operator that cannot be written down.
        LimitError: the network is too large.

    """
    if goals.arithmetic != REAL:
        raise UnsupportedVersionError("goals", "SMT query: arithmetic", REAL, goals.arithmetic)
    chosen = np.array([record])
    intervals = crown_intervals(goals.network, *goals.boxes(chosen), REAL)
    objectives, least = (values[0, clause] for values in goals.constraint(chosen))
    query = goal_query(goals.network, intervals, 0, objectives, least, strict=goals.strict, signs=signs)
    answer = solve_with_model(query, timeout, memory_mb)
    if answer.result != "sat":
        return Decision(answer.result)
    lower = goals.boxes(chosen)[0].reshape(-1).tolist()
    point = [answer.model.get(f"x{place}", Fraction(low)) for place, low in enumerate(lower)]
    return Decision("sat", point) if violates(goals, record, clause, point) else Decision("unknown")
