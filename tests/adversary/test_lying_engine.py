"""A prover whose parts lie: bounds too tight, slopes of anything, trees and answers claimed closed. Nothing false is proved."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from prune_verify.bounds.engine import BoundEngine, BoundResult
from prune_verify.bounds.errors import BoundsError
from prune_verify.certify import settle
from prune_verify.certify.command import read_sources
from prune_verify.certify.elaborate import Effort, prove_bounded
from prune_verify.certify.errors import RefusedByCheckerError
from prune_verify.certify.issue import Sources, issue
from prune_verify.certify.proof_trees import RELU, Tree
from prune_verify.certify.relaxed import Bounds, OneBox
from prune_verify.certify.relu_splits import Grown
from prune_verify.certify.settle import Limits
from prune_verify.certify.smt_goals import Decision
from prune_verify.checker.bounded_claims import decide_bounded, goals_of
from prune_verify.checker.claim import Claim, Problem
from prune_verify.checker.encoding import canonical_json
from prune_verify.checker.errors import CheckError
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.network import Network, evaluate
from prune_verify.checker.proof import parse
from prune_verify.checker.rules import BINARY32, REAL
from tests.certify.small_problems import additive, foreign, seen_gaps
from tests.checker.random_networks import mlp
from tests.dishonest_owner import prepare, run

pytestmark = pytest.mark.prover

LIMITS = Limits(splits=20, seconds=5.0, solver_seconds=0, restarts=0)  # no attack: no point ends the search early
WIDE = additive(mlp(7, 18, 8, 8, 3, scale=0.5), scale=0.5)
FEW = additive(mlp(3, 4, 9, 9, 3))
PAIR = foreign(mlp(7, 18, 8, 8, 3, scale=0.5), 0.05)
BALL = Fraction("0.2")


class TooTight(BoundEngine):
    """Bounds far above the truth, the honest slopes."""

    def lower_bounds(self, *args: object, **options: object) -> BoundResult:
        found = super().lower_bounds(*args, **options)
        return replace(found, lower=found.lower + np.float32(1e6))


class _Slopes(BoundEngine):
    """Honest bounds, other slopes."""

    def lower_bounds(self, *args: object, **options: object) -> BoundResult:
        found = super().lower_bounds(*args, **options)
        return BoundResult(found.lower + np.float32(1e6), self.changed(found.slopes), found.intervals)

    def changed(self, slopes: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
        raise NotImplementedError


class Steep(_Slopes):
    """Slopes out of [0, 1]."""

    def changed(self, slopes: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
        return {node: values * 7 - 3 for node, values in slopes.items()}


class Infinite(_Slopes):
    """Infinite slopes."""

    def changed(self, slopes: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
        return {node: np.full_like(values, np.inf) for node, values in slopes.items()}


class Huge(_Slopes):
    """The greatest numbers of float32."""

    def changed(self, slopes: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
        return {node: np.full_like(values, np.finfo(np.float32).max) for node, values in slopes.items()}


class Nothing(_Slopes):
    """Slopes that are no numbers, every other one."""

    def changed(self, slopes: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
        return {node: np.where(np.arange(values.size).reshape(values.shape) % 2, np.nan, values) for node, values in slopes.items()}  # fmt: skip


class Moved(_Slopes):
    """Each layer has the slopes of another."""

    def changed(self, slopes: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
        nodes = list(slopes)
        return dict(zip(nodes, [slopes[node] for node in nodes[1:] + nodes[:1]], strict=True))


class Short(_Slopes):
    """Slopes of fewer neurons than there are."""

    def changed(self, slopes: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
        return {node: values[..., :-1] for node, values in slopes.items()}


class Partial(_Slopes):
    """Slopes of the last layer only."""

    def changed(self, slopes: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
        return {max(slopes): slopes[max(slopes)]}


class Elsewhere(_Slopes):
    """Slopes of nodes that are no Relu, and of none."""

    def changed(self, slopes: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
        return {node - 1: values for node, values in slopes.items()} | {999: slopes[min(slopes)]}


class Odd:
    """An engine that fails in its own way."""

    def __init__(self, network: Network) -> None:
        self.network = network

    def lower_bounds(self, *_args: object, **_options: object) -> BoundResult:
        text = "out of memory, or so it says"
        raise RuntimeError(text)


ENGINES = [TooTight, Steep, Infinite, Huge, Nothing, Moved, Short, Partial, Elsewhere]


def _falsified(problem: Problem, kind: str, arithmetic: str) -> tuple[Claim, set[int]]:
    """A claim between what holds for the best and the worst record, and the records at which it was seen to fail."""
    base = Claim(kind, arithmetic, "relaxation", radius=BALL)
    if kind == "forget":
        seen = seen_gaps(goals_of(problem, replace(base, margin=Fraction(0))))[:, 0]
        claim = replace(base, margin=Fraction(float(np.median(seen))) + Fraction(1, 1000))
    elif kind == "band":
        claim = replace(base, band=(Fraction(-1), Fraction(1)))
    elif kind == "retain_close":
        seen = seen_gaps(goals_of(problem, replace(base, delta=Fraction(1)))).min(axis=1)
        claim = replace(base, delta=Fraction(float(1 - np.median(seen))) - Fraction(1, 1000))
    else:
        claim = replace(base, radius=Fraction(1))
    false = np.flatnonzero(seen_gaps(goals_of(problem, claim)).min(axis=1) < -1e-4)
    assert false.size
    return claim, set(false.tolist())


CLAIMS = [
    ("forget, signs", WIDE, "forget", REAL),
    ("forget, binary32", WIDE, "forget", BINARY32),
    ("forget, inputs", FEW, "forget", REAL),
    ("band", WIDE, "band", REAL),
    ("retain_close, additive", WIDE, "retain_close", REAL),
    ("retain_close, pair", PAIR, "retain_close", BINARY32),
    ("retain_label, pair", PAIR, "retain_label", REAL),
]
EVERY = pytest.mark.parametrize(("sentence", "problem", "kind", "arithmetic"), CLAIMS, ids=[row[0] for row in CLAIMS])


def _not_proved(problem: Problem, claim: Claim, false: set[int], effort: Effort) -> None:
    """The false records are open, in what the prover says and in what the checker says of its bytes."""
    found = prove_bounded(problem, claim, effort=effort)
    assert false <= set(found.outcome.unknowns)
    assert not found.outcome.assumptions
    assert decide_bounded(problem, replace(claim, method=found.method), found.proof, "p") == found.outcome


@pytest.mark.parametrize("engine", ENGINES)
@EVERY
def test_an_engine_that_lies(sentence, problem: Problem, kind: str, arithmetic: str, engine: type) -> None:
    claim, false = _falsified(problem, kind, arithmetic)
    _not_proved(problem, claim, false, Effort(replace(LIMITS, splits=4), engine=engine))


class Missing:
    """No engine at all."""

    def __init__(self, network: Network) -> None:
        raise BoundsError(str(network.output))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("margin", ["-2.8", "-2.7", "-2.5"])
def test_a_true_claim_is_not_lost_to_an_engine_that_lies(engine: type, margin: str) -> None:
    """Whatever slopes it sends: what rule crown and splits prove is proved, by a proof that is well formed."""
    claim = Claim("forget", REAL, "relaxation", radius=BALL, margin=Fraction(margin))
    alone, found = (
        prove_bounded(WIDE, claim, effort=Effort(replace(LIMITS, splits=100), engine=one)) for one in (Missing, engine)
    )
    assert alone.outcome.proved > 0
    assert set(found.outcome.unknowns) <= set(alone.outcome.unknowns)
    assert decide_bounded(WIDE, claim, found.proof, "p") == found.outcome


def test_an_engine_that_fails_in_its_own_way_proves_nothing() -> None:
    claim, _ = _falsified(WIDE, "forget", REAL)
    with pytest.raises(RuntimeError):
        prove_bounded(WIDE, claim, effort=Effort(LIMITS, engine=Odd))


def _closed_bound(self: OneBox, objectives, splits, iterations, start=None, *, fixed=False) -> Bounds:
    found = HONEST_BOUND(self, objectives, splits, iterations, start, fixed=fixed)
    return replace(found, lower=np.full_like(found.lower, 1e6))


def _closed_signs(box: OneBox, objective, target, atom, **_limits) -> Grown:
    slopes = {relu: np.ones(box.before[relu][0].numel(), np.float32) for relu in box.relus}
    tree = Tree(choice=atom)
    if slopes:
        relu = box.relus[-1]
        tree.step = (RELU, relu, 0)
        tree.children = tuple(Tree(((relu, 0, below),), choice=atom, multipliers=(1e3,)) for below in (True, False))
    return Grown(tree, slopes, 1e6, "closed")


def _closed_inputs(*_args, **_limits) -> tuple[Tree, str]:
    return Tree(lemma=True), "closed"


HONEST_BOUND = OneBox.bound
LIARS: list[tuple[str, Callable[[pytest.MonkeyPatch], None]]] = [
    ("the optimiser says that every leaf is closed", lambda patch: patch.setattr(OneBox, "bound", _closed_bound)),
    ("the search over signs says so", lambda patch: patch.setattr(settle, "grow_by_relu_splits", _closed_signs)),
    ("the search over inputs says so", lambda patch: patch.setattr(settle, "grow_by_input_splits", _closed_inputs)),
]


@pytest.mark.parametrize(("lie", "tell"), LIARS, ids=[row[0] for row in LIARS])
@EVERY
def test_a_search_that_lies(sentence, problem: Problem, kind: str, arithmetic: str, lie, tell, monkeypatch) -> None:
    claim, false = _falsified(problem, kind, arithmetic)
    tell(monkeypatch)
    _not_proved(problem, claim, false, Effort(replace(LIMITS, splits=4), engine=TooTight))


@EVERY
def test_a_solver_that_lies_is_named(sentence, problem: Problem, kind: str, arithmetic: str, monkeypatch) -> None:
    """What z3 alone says is an assumption of forget claims over the reals, and nothing elsewhere."""
    claim, false = _falsified(problem, kind, arithmetic)
    monkeypatch.setattr(settle, "decide_goal", lambda *_, **__: Decision("unsat"))
    effort = Effort(replace(LIMITS, splits=1, solver_seconds=1.0))
    found = prove_bounded(problem, claim, effort=effort)
    questions = dict(found.outcome.questions)
    assert false <= set(found.outcome.unknowns) | set(questions)
    assert set(questions) == set(parse(found.proof, "p").smt.tolist())
    assert set(questions.values()) == set(found.outcome.assumptions)
    if kind != "forget" or arithmetic == BINARY32:
        assert not questions
    else:
        assert false <= set(questions)
        assert all(name.startswith("z3_unsat:") for name in questions.values())
    named = replace(claim, method=found.method)
    assert decide_bounded(problem, named, found.proof, "p") == found.outcome


def test_a_judge_that_lies_is_overruled_by_the_checker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the prover's own judgement of trees wrong, the checker still leaves the records open: the two differ."""
    claim, false = _falsified(WIDE, "forget", REAL)
    monkeypatch.setattr(settle, "grow_by_relu_splits", _closed_signs)
    monkeypatch.setattr(settle, "decide_goals", lambda goals, *_: np.ones((goals.records, goals.clauses), dtype=bool))
    found = prove_bounded(WIDE, claim, effort=Effort(LIMITS))
    assert found.outcome.proved == 5
    try:
        decided = decide_bounded(WIDE, claim, found.proof, "p")
    except CheckError:
        return
    assert false <= set(decided.unknowns)


# --- the whole way to a statement ---


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A learned patch on digits, and a request whose margin no forget record has."""
    folder = tmp_path_factory.mktemp("lies")
    prepare(folder)
    run(
        "repair", folder / "base.onnx", "--forget", folder / "forget.npz", "--retain", folder / "retain.npz",
        "--family", "learned", "--radius", "0.05", "--retained-radius", "0.02", "--delta", "0.1", "--out", folder,
    )  # fmt: skip
    request = json.loads((folder / "request.json").read_bytes())
    assert "margin" in request
    (folder / "request.json").write_bytes(canonical_json(request | {"margin": "1000"}))
    return folder


def _sources(folder: Path) -> Sources:
    options = argparse.Namespace(
        base=folder / "base.onnx", patched=folder / "patched.onnx", patch=None, request=folder / "request.json",
        forget=str(folder / "forget.npz"), retain=str(folder / "retain.npz"), label_column=None, encoding=None,
    )  # fmt: skip
    return read_sources(options)


def _without_margin(sources: Sources) -> set[int]:
    """The forget records at which no label beats the forgotten one by the margin."""
    logits = evaluate(load_network(sources.patched_bytes, "net").network, sources.forget.x).astype(np.float64)
    rows = np.arange(len(logits))
    own = logits[rows, sources.forget.y]
    return set(np.flatnonzero(logits.max(axis=1) - own < float(sources.request.margin)).tolist())


@pytest.mark.slow
@pytest.mark.parametrize("engine", [TooTight, Steep, Nothing])
def test_no_statement_counts_a_false_record(asked: Path, tmp_path: Path, engine: type, monkeypatch) -> None:
    """Everything lies at once; z3's word is an assumption of the statement, which no policy permits by itself."""
    for _, tell in LIARS:
        tell(monkeypatch)
    monkeypatch.setattr(settle, "decide_goal", lambda *_, **__: Decision("unsat"))
    sources = _sources(asked)
    false = _without_margin(sources)
    assert len(false) == len(sources.forget.y)
    effort = Effort(replace(LIMITS, splits=1, solver_seconds=1.0), engine=engine)
    issued = issue(sources, tmp_path, cross_checked=0, effort=effort)
    statement = json.loads((tmp_path / "statement.json").read_bytes())["predicate"]
    named = set(statement["assumptions"])
    for item, claim in zip(issued.decided, statement["claims"], strict=True):
        if claim["kind"] == "forget":
            resting = dict(item.outcome.questions)
            assert claim["counts"]["proved"] == len(resting)
            assert false == set(item.outcome.unknowns) | set(resting)
            assert set(resting.values()) <= named
            assert not resting or item.claim.arithmetic == REAL
    assert issued.verdict["verdict"] in {"UNDECIDED", "REJECTED"}


@pytest.mark.slow
def test_a_statement_that_the_checker_refuses_is_not_written(asked: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(settle, "lower_bounds", lambda *args, **_: np.full(len(args[2]), 1e6))
    with pytest.raises(RefusedByCheckerError):
        issue(_sources(asked), tmp_path, cross_checked=0, effort=Effort(LIMITS))
    assert not list(tmp_path.iterdir())
