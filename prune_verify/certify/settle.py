"""Goals settled, cheapest way first: proved with what the checker needs, broken by a point, or left open with a reason.

The stages, each for the records that those before left open::

    1 middle      the network at the middle of each box: which atom to try, and whether the goal fails there
    2 crown-ibp   rule crown over interval enclosures, for all records at once
    3 attack      projected gradient descent with restarts
    4 crown       rule crown over enclosures that are tightened first
    5 alpha       slopes optimised by the bound engine (auto_LiRPA), all open goals in one batch; then a longer attack
    6 splits      branch and bound: over the input where it is small, else over signs with multipliers (beta)
    7 z3          in exact rationals, in a process of its own; an ``unsat`` is elaborated by more splits

Stages 2 and 4 run the checker's own kernel; what 5 and 6 find counts only once that kernel proves the same. Nothing
here is drawn but the starting points of the attack, which have a seed.

Source: MATHS 5.2, 5.3; alpha-beta-CROWN for the order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from math import prod

import numpy as np
import numpy.typing as npt

from prune_verify.bounds.bounded import one_thread
from prune_verify.bounds.engine import BoundEngine, BoundResult
from prune_verify.bounds.errors import BoundsError
from prune_verify.certify.attack import Attack, gaps_at, inner_box
from prune_verify.certify.errors import CertifyInputError
from prune_verify.certify.input_splits import grow_by_input_splits
from prune_verify.certify.limits import Engine, Limits, Settled
from prune_verify.certify.proof_trees import Slopes, Tree, TreeProof
from prune_verify.certify.relaxed import OneBox, Relaxed
from prune_verify.certify.relu_splits import grow_by_relu_splits
from prune_verify.certify.smt_goals import decide_goal
from prune_verify.checker.errors import CheckError, LimitError, ProofError, UnsupportedVersionError
from prune_verify.checker.goals import Goals, decide_goals
from prune_verify.checker.interval import Intervals, interval_pass
from prune_verify.checker.network import Network, evaluate
from prune_verify.checker.relaxation import Hints, crown_intervals, lower_bounds
from prune_verify.checker.rules import REAL

__all__ = ["Engine", "Limits", "Settled", "settle"]

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Progress = Callable[[str, float], None]

_SPARE = 2.0**-30  # float64 sums come out a little otherwise on another machine: claim nothing that close
_HINT_SPARE = 1e-4  # hints are float32: a leaf counts as closed only this far (and rounding) above its target
_CUT_SPARE = (1e-7, 1e-5, 1e-3)  # the same for hints in float64, in turn
_CLEAR = 1e-5  # a goal over the reals counts as broken by a float32 point only if it fails by this much
_FEW_INPUTS = 16
_CELLS = 2**22
_HARDER = 8  # times the restarts, where branch and bound would come next
_MORE = 8  # times the splits, once z3 has said that there is a proof


class _State:
    """Goals that are still open, and what has been found."""

    def __init__(self, goals: Goals, limits: Limits, engine: Callable[[Network], Engine]) -> None:
        self.goals, self.limits, self.make_engine = goals, limits, engine
        self.open = np.ones((goals.records, goals.clauses), dtype=np.bool_)
        self.choices = np.zeros((goals.records, goals.clauses), dtype=np.int64)
        self.gaps = np.full((goals.records, goals.clauses), -np.inf)
        self.broken = np.zeros(goals.records, dtype=np.bool_)
        self.found = Settled()
        self._relaxed: Relaxed | CertifyInputError | None = None
        self._enclosed: tuple[int, Intervals] | None = None

    def records(self) -> Rows:
        """Those with an open goal, which no point has broken and no stage has given up."""
        lost = self.broken | np.isin(np.arange(self.goals.records), list(self.found.why))
        return np.flatnonzero(self.open.any(axis=1) & ~lost)

    def close(self, records: Rows, clauses: Rows, choices: Rows, gaps: Floats) -> None:
        """Note which goals bounds with spare room prove."""
        better = gaps > self.gaps[records, clauses]
        self.gaps[records[better], clauses[better]] = gaps[better]
        self.choices[records[better], clauses[better]] = choices[better]
        done = gaps > 0
        self.open[records[done], clauses[done]] = False

    def count(self, stage: str) -> None:
        """Note how many records the stage closed."""
        closed = int((~self.open.any(axis=1)).sum()) + int(self.broken.sum())
        self.found.stages[stage] = closed - sum(self.found.stages.values())

    def relaxed(self) -> Relaxed:
        """The network for branch and bound, made once."""
        if self._relaxed is None:
            try:
                self._relaxed = Relaxed(self.goals.network)
            except CertifyInputError as error:
                self._relaxed = error
        if isinstance(self._relaxed, CertifyInputError):
            raise self._relaxed
        return self._relaxed

    def enclosed(self, record: int) -> Intervals:
        """The checker's enclosures on the box of one record, kept until another one is asked for."""
        if self._enclosed is None or self._enclosed[0] != record:
            goals = self.goals
            self._enclosed = record, crown_intervals(goals.network, *goals.boxes(np.array([record])), goals.arithmetic)
        return self._enclosed[1]

    def one(self, record: int) -> Goals:
        """The goals of one record."""
        chosen = np.array([record])
        return replace(
            self.goals,
            records=1,
            boxes=lambda _: self.goals.boxes(chosen),
            constraint=lambda _: self.goals.constraint(chosen),
        )


def settle(
    goals: Goals,
    limits: Limits,
    *,
    kind: str = "property",
    engine: Callable[[Network], Engine] = BoundEngine,
    progress: Progress = lambda _what, _share: None,
) -> Settled:
    """Settle all goals.

    Args:
        goals: what is claimed.
        limits: how much to spend.
        kind: of the claim.
        engine: makes the bound engine of stage 5 for a network.
        progress: called with the stage and the share of records that are settled.

    Raises:
        UnsupportedVersionError: the checker has no bounds for this network at all.

    """
    state = _State(goals, limits, engine)
    stages: list[tuple[str, Callable[[_State, str], None]]] = [
        ("middle", _middle), ("crown-ibp", _crown_ibp), ("attack", _attack), ("crown", _crown), ("alpha", _alpha),
        ("longer attack", _longer_attack), ("splits", _splits), ("z3", _z3),
    ]  # fmt: skip
    for name, stage in stages:
        left = state.records()
        if not len(left):
            break
        progress(name, 1 - len(left) / goals.records)
        stage(state, kind)
        state.count(name)
    found = state.found
    for record in np.flatnonzero(~state.open.any(axis=1) & ~state.broken).tolist():
        for clause in range(goals.clauses):
            found.proof.choices[record * goals.clauses + clause] = int(state.choices[record, clause])
    for record in np.flatnonzero(state.open.any(axis=1) | state.broken).tolist():
        found.best[record] = float(np.where(state.open[record], state.gaps[record], np.inf).min())
        if record not in found.points:
            found.why.setdefault(record, "bounds, splits and solver leave it open")
    found.proof = found.proof.only(list(found.proof.choices))
    return found


# --- the stages ---


def _middle(state: _State, _: str) -> None:
    """The atom that holds best at the middle is the one to try first."""
    goals = state.goals
    for records in _parts(goals, np.arange(goals.records)):
        low, high = goals.boxes(records)
        one, other = inner_box(low, high)
        middle = np.clip(((low + high) / 2).astype(np.float32), one, np.maximum(one, other))
        objectives, least = goals.constraint(records)
        logits = evaluate(goals.network, middle).astype(np.float64)
        state.choices[records] = (np.einsum("rcal,rl->rca", objectives, logits) - least).argmax(axis=2)
        _break(state, dict(zip(records.tolist(), middle, strict=True)))


def _break(state: _State, points: dict[int, Singles]) -> None:
    """Keep the points at which a goal fails, clearly where it is one over the reals."""
    if not points or not state.limits.restarts:
        return
    records, goals = np.array(sorted(points)), state.goals
    x = np.stack([points[record] for record in records.tolist()])
    gaps = gaps_at(goals, records, x).min(axis=1)
    low, high = (end.reshape(len(records), -1) for end in goals.boxes(records))
    flat = x.reshape(len(records), -1)
    inside = ((low <= flat) & (flat <= high)).all(axis=1)
    for row in np.flatnonzero(inside & (gaps < (-_CLEAR if goals.arithmetic == REAL else 0.0))).tolist():
        record = int(records[row])
        state.found.points[record], state.broken[record] = x[row], True


def _parts(goals: Goals, records: Rows) -> list[Rows]:
    """Records in batches whose values fit into memory."""
    each = sum(prod(node.shape) for node in goals.network.nodes) + goals.clauses * goals.atoms * goals.network.labels
    step = max(1, _CELLS // each)
    return [records[start : start + step] for start in range(0, len(records), step)]


def _crown_ibp(state: _State, _: str) -> None:
    """One pass of intervals and one walk back per goal, each by one atom."""
    goals = state.goals
    for records in _parts(goals, state.records()):
        try:
            intervals = interval_pass(goals.network, *goals.boxes(records), goals.arithmetic)
        except ProofError as error:
            state.found.why |= dict.fromkeys(records.tolist(), str(error))
            continue
        rows, clauses = np.nonzero(state.open[records])
        choices = state.choices[records[rows], clauses]
        gaps = _gaps(goals, records, rows, clauses, choices, intervals, Hints())
        state.close(records[rows], clauses, choices, gaps)


def _gaps(
    goals: Goals, records: Rows, rows: Rows, clauses: Rows, choices: Rows, intervals: Intervals, hints: Hints
) -> Floats:
    """How far the checker's bounds of chosen atoms lie above what they have to reach, and some more."""
    objectives, least = goals.constraint(records)
    one, target = objectives[rows, clauses, choices], least[rows, clauses, choices]
    found = lower_bounds(goals.network, intervals, one, hints, goals.arithmetic, rows, exact=goals.exact)
    return found - target - _SPARE * (1 + np.abs(target))


def _attack(state: _State, _: str) -> None:
    limits = state.limits
    if limits.restarts:
        _break(state, Attack(limits.restarts, seed=limits.seed).run(state.goals, state.records()))


def _longer_attack(state: _State, _: str) -> None:
    limits = state.limits
    if limits.restarts:
        attack = Attack(_HARDER * limits.restarts, steps=100, seed=limits.seed + 1)
        _break(state, attack.run(state.goals, state.records()))


def _crown(state: _State, _: str) -> None:
    """Enclosures tightened, every atom tried."""
    goals = state.goals
    for records in _parts(goals, state.records()):
        try:
            intervals = crown_intervals(goals.network, *goals.boxes(records), goals.arithmetic, partners=goals.partners)
        except ProofError as error:
            state.found.why |= dict.fromkeys(records.tolist(), str(error))
            continue
        _every_atom(state, records, intervals)


def _every_atom(state: _State, records: Rows, intervals: Intervals) -> None:
    rows, clauses = np.nonzero(state.open[records])
    for atom in range(state.goals.atoms):
        choices = np.full(len(rows), atom)
        gaps = _gaps(state.goals, records, rows, clauses, choices, intervals, Hints())
        state.close(records[rows], clauses, choices, gaps)


def _outward(low: Floats, high: Floats) -> tuple[Singles, Singles]:
    one, other = low.astype(np.float32), high.astype(np.float32)
    one = np.where(one > low, np.nextafter(one, np.float32(-np.inf)), one)
    return one, np.where(other < high, np.nextafter(other, np.float32(np.inf)), other)


def _alpha(state: _State, _: str) -> None:
    """Slopes from the bound engine, one set per open goal; kept where the checker's kernel proves it with them."""
    goals, limits = state.goals, state.limits
    if prod(goals.network.input_shape) <= _FEW_INPUTS or not _worth(goals.network):
        return
    try:
        engine = state.make_engine(goals.network)
        for records in _parts(goals, state.records()):
            rows, clauses = np.nonzero(state.open[records])
            choices = state.choices[records[rows], clauses]
            objectives, _least = goals.constraint(records)
            one = objectives[rows, clauses, choices].astype(np.float32)[:, np.newaxis]
            low, high = (end[rows] for end in _outward(*goals.boxes(records)))
            found = engine.lower_bounds(one, low, high, method="alpha-crown", iterations=limits.iterations)
            slopes = _of_every_relu(goals.network, found, len(rows))
            intervals = crown_intervals(goals.network, *goals.boxes(records), goals.arithmetic, partners=goals.partners)
            try:
                gaps = _gaps(goals, records, rows, clauses, choices, intervals, Hints(slopes))
            except ProofError:  # slopes that do not fit this network
                return
            for place in np.flatnonzero(gaps > 0).tolist():
                goal = int(records[rows[place]]) * goals.clauses + int(clauses[place])
                state.found.proof.hinted[goal] = {node: values[place] for node, values in slopes.items()}
            state.close(records[rows], clauses, choices, gaps)
    except BoundsError:
        return


def _of_every_relu(network: Network, found: BoundResult, count: int) -> dict[int, Singles]:
    """The engine's slopes, 0 where it has none or no number: sets of slopes in a proof have one of every neuron."""
    slopes = {
        index: np.zeros((count, *node.shape), dtype=np.float32)
        for index, node in enumerate(network.nodes)
        if node.op == "Relu"
    }
    for index, values in found.slopes.items():
        given = np.asarray(values[0], dtype=np.float32)
        slopes[index] = np.nan_to_num(given, nan=0.0, posinf=1.0, neginf=0.0)
    return slopes


def _worth(network: Network) -> bool:
    return any(node.op == "Relu" for node in network.nodes)


def _splits(state: _State, kind: str) -> None:
    for record in state.records().tolist():
        _split_record(state, record, kind, state.limits.splits, state.limits.seconds)


def _split_record(state: _State, record: int, kind: str, most: int, seconds: float) -> None:
    """Branch and bound for the open goals of one record, the furthest from proof first; the first failure ends it."""
    end, one = time.monotonic() + seconds, state.one(record)
    clauses = np.flatnonzero(state.open[record])
    for clause in clauses[np.argsort(state.gaps[record, clauses])].tolist():
        left = end - time.monotonic()
        if left <= 0:
            state.found.timed = True
            return
        try:
            if prod(one.network.input_shape) <= _FEW_INPUTS:
                done = _by_inputs(state, one, record, clause, kind, most, left)
            else:
                done = _by_signs(state, one, record, clause, kind, most, left)
        except (CertifyInputError, CheckError):
            return
        if not done:
            return


def _judged(state: _State, one: Goals, record: int, clause: int, kind: str, tree: Tree, slopes: Slopes | None) -> bool:
    """Take over a tree that the checker accepts."""
    proof = TreeProof(trees={clause: (tree, slopes)})
    least = one.constraint(np.zeros(1, dtype=np.int64))
    harder = replace(one, constraint=lambda _: (least[0], least[1] + _SPARE * (1 + np.abs(least[1]))))
    if not decide_goals(harder, proof.write(one, kind), "proof")[0, clause]:
        return False
    state.found.proof.trees[record * one.clauses + clause] = tree, slopes
    state.open[record, clause] = False
    return True


def _by_inputs(state: _State, one: Goals, record: int, clause: int, kind: str, most: int, seconds: float) -> bool:
    objectives, least = one.constraint(np.zeros(1, dtype=np.int64))
    end = time.monotonic() + seconds
    for spare in _CUT_SPARE:
        targets = least[0, clause] + spare * (1 + np.abs(least[0, clause]))
        left = end - time.monotonic()
        with one_thread():
            tree, why = grow_by_input_splits(
                one.network, objectives[0, clause], targets, one.boxes(np.array([0])), most=16 * most, timeout=left
            )
        state.found.timed |= why == "time"
        if tree is None:
            return False
        if _judged(state, one, record, clause, kind, tree, None):
            return True
    return False


def _by_signs(state: _State, one: Goals, record: int, clause: int, kind: str, most: int, seconds: float) -> bool:
    relaxed, limits = state.relaxed(), state.limits
    intervals = state.enclosed(record)
    box, atom = OneBox(relaxed, intervals), int(state.choices[record, clause])
    objectives, least = one.constraint(np.zeros(1, dtype=np.int64))
    objective, target = objectives[0, clause, [atom]], float(least[0, clause, atom])
    tried = _Tried(one)
    with one_thread():
        spare = _rounding(one, intervals, box, objective)
        grown = grow_by_relu_splits(
            box,
            objective,
            target + spare,
            atom,
            iterations=limits.iterations,
            most=most,
            timeout=seconds,
            broken=tried.broken if limits.restarts else lambda _: None,
        )
    if grown.point is not None:
        _break(state, {record: grown.point})
    state.found.timed |= grown.why == "time"
    state.gaps[record, clause] = max(state.gaps[record, clause], grown.bound - target - spare)
    return grown.tree is not None and _judged(state, one, record, clause, kind, grown.tree, grown.slopes)


class _Tried:
    """The points that branch and bound comes across, tried on one record's goals."""

    def __init__(self, one: Goals) -> None:
        self.one = one
        self.low, self.high = inner_box(*one.boxes(np.array([0])))

    def broken(self, points: Singles) -> Singles | None:
        """A point at which a clause fails clearly, or None."""
        x = np.clip(points, self.low, np.maximum(self.low, self.high))
        gaps = gaps_at(self.one, np.zeros(len(x), dtype=np.int64), x).min(axis=1)
        place = int(gaps.argmin())
        return np.asarray(x[place]) if gaps[place] < -_CLEAR else None


def _rounding(goals: Goals, intervals: Intervals, box: OneBox, objective: Floats) -> float:
    """How far the checker's bound lies below a hint: what float32 and the claim's own rounding take, twice over."""
    hint = float(box.bound(objective, [()], 0).lower[0])
    rows = np.zeros(1, dtype=np.int64)
    (sound,) = lower_bounds(goals.network, intervals, objective, Hints(), goals.arithmetic, rows)
    return _HINT_SPARE + 2 * max(0.0, hint - float(sound))


def _z3(state: _State, kind: str) -> None:
    """Ask z3 about the goals that splits leave open; what it proves is elaborated by more splits, or noted."""
    limits, goals = state.limits, replace(state.goals, arithmetic=REAL)
    if not limits.solver_seconds:
        return
    for record in state.records().tolist():
        for clause in np.flatnonzero(state.open[record]).tolist():
            try:
                answer = decide_goal(goals, record, clause, timeout=limits.solver_seconds, memory_mb=limits.memory_mb)
            except (LimitError, UnsupportedVersionError):
                return  # the network is too large, or has such an operator: no other record fares better
            state.found.timed |= answer.result == "unknown"
            if answer.result == "sat" and answer.point is not None:
                _break(state, {record: _nearest(goals, record, answer.point)})
                if not state.broken[record]:
                    state.found.why.setdefault(record, "z3 finds a point that no float32 input repeats")
            if answer.result != "unsat":
                break
            _split_record(state, record, kind, _MORE * limits.splits, limits.seconds)
            if state.open[record, clause]:
                if state.goals.arithmetic == REAL:
                    state.found.solved.append((record, clause))
                state.found.why[record] = "z3 proves it over the reals, and no splits were found that do"
                break


def _nearest(goals: Goals, record: int, point: Sequence[Fraction]) -> Singles:
    """The float32 point of the box that is nearest to a rational one."""
    low, high = inner_box(*goals.boxes(np.array([record])))
    x = np.array([float(v) for v in point], dtype=np.float32).reshape(low.shape)
    return np.asarray(np.clip(x, low, np.maximum(low, high))[0], dtype=np.float32)
