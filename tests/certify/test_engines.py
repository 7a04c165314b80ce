"""Engines by name, a table of goals of one's own: what they find is judged by the kernel, and the checker stays as it is."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from prune_verify.bounds.engine import BoundEngine, BoundResult
from prune_verify.bounds.errors import BoundsError
from prune_verify.certify.elaborate import Effort, prove_bounded
from prune_verify.certify.engines import DEFAULT, ENGINES, NoEngine, engine_of
from prune_verify.certify.errors import CertifyInputError
from prune_verify.checker.bounded_claims import GOALS, decide_bounded, goals_of
from prune_verify.checker.claim import Claim, Problem
from prune_verify.checker.errors import ProofError, UnsupportedVersionError
from prune_verify.checker.goals import Goals
from prune_verify.checker.network import Network
from prune_verify.checker.proof import emit, parse
from prune_verify.checker.region import float64_not_below
from prune_verify.checker.rules import BINARY32, REAL
from prune_verify.cli import run_words
from tests.certify.foreign import prepare_foreign
from tests.certify.small_problems import additive, checked, effort, forget_room, seen_gaps
from tests.checker.random_networks import mlp

pytestmark = pytest.mark.prover
BOTH = pytest.mark.parametrize("arithmetic", [REAL, BINARY32])
WIDE = additive(mlp(7, 18, 8, 8, 3, scale=0.5), scale=0.5)
FORGET = Claim("forget", REAL, "relaxation", radius=Fraction("0.2"))
CROWN, SEEN = forget_room(WIDE, FORGET)
RECORD = int((SEEN - CROWN).argmax())
MIDDLE = replace(FORGET, margin=Fraction(float((CROWN + SEEN)[RECORD] / 2)))


def _with(name: str, **limits: object) -> Effort:
    return replace(effort(**limits), engine=engine_of(name))


@BOTH
@pytest.mark.parametrize("name", ENGINES)
def test_what_each_engine_finds_is_what_the_checker_proves(name: str, arithmetic: str) -> None:
    claim = replace(MIDDLE, arithmetic=arithmetic)
    found = prove_bounded(WIDE, claim, effort=_with(name))
    checked(WIDE, claim, found)
    assert RECORD not in found.outcome.unknowns


def test_the_default_engine_finds_slopes_and_none_finds_none() -> None:
    claims = [replace(FORGET, margin=Fraction(float(margin) + 0.02)) for margin in CROWN]
    closed = {
        name: sum(
            prove_bounded(WIDE, claim, effort=_with(name, splits=0, restarts=0)).stages["alpha"] for claim in claims
        )
        for name in ENGINES
    }
    assert closed[DEFAULT] > 0
    assert closed["none"] == 0


def test_the_default_is_auto_lirpa_and_none_declines() -> None:
    assert engine_of(DEFAULT) is Effort().engine is BoundEngine
    nothing = np.zeros((1, 1, WIDE.patched.labels), np.float32)
    with pytest.raises(BoundsError, match="engine none"):
        NoEngine(WIDE.patched).lower_bounds(nothing, nothing, nothing)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(CertifyInputError, match="expected one of auto_lirpa, none, got marabou"):
        engine_of("marabou")


def test_the_table_cannot_be_written_to() -> None:
    for table in (ENGINES, GOALS):
        with pytest.raises(TypeError):
            table["none"] = None  # type: ignore[index] # that is the point


# --- through the command line ---


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines")
    prepare_foreign(folder)
    kept = np.load(folder / "retain.npz")
    np.savez(folder / "retain.npz", x=kept["x"][:12], y=kept["y"][:12])
    records = ["--forget", str(folder / "forget.npz"), "--retain", str(folder / "retain.npz")]
    words = ["request", str(folder / "base.onnx"), str(folder / "patched.onnx"), *records, "--radius", "0.02"]
    assert run_words([*words, "--retained-radius", "0.005", "--out", str(folder / "request.json")])[0] == 0
    return folder


def certify(folder: Path, out: Path, *more: str) -> tuple[int, dict[str, object]]:
    code, text = run_words([
        "certify", str(folder / "base.onnx"), str(folder / "patched.onnx"), "--request", str(folder / "request.json"),
        "--forget", str(folder / "forget.npz"), "--retain", str(folder / "retain.npz"), "--timeout", "2",
        "--cross-check", "0", "--out", str(out), "--json", "--quiet", *more,
    ])  # fmt: skip
    return code, json.loads(text)


@pytest.mark.parametrize("name", ENGINES)
def test_certify_with_each_engine(name: str, files: Path, tmp_path: Path) -> None:
    code, data = certify(files, tmp_path, "--engine", name)
    assert (code, data["selfCheck"]) == (0, "VERIFIED")


def test_certify_refuses_a_name_it_does_not_know(files: Path, tmp_path: Path) -> None:
    code, data = certify(files, tmp_path, "--engine", "marabou")
    assert code == 2
    assert "--engine: expected one of auto_lirpa, none, got marabou" in str(data["error"])


def test_the_help_names_every_engine(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_words(["certify", "--help"])
    text = " ".join(capsys.readouterr().out.rsplit("--engine NAME", 1)[1].rsplit("--workers", 1)[0].split())
    assert all(name in text for name in ENGINES)


# --- slopes that are no good ---


class Stray:
    """Claims that everything is proved, with slopes that mean nothing; in [0, 1] or far outside."""

    scale = 1.0

    def __init__(self, network: Network) -> None:
        self._relus = {i: node.shape for i, node in enumerate(network.nodes) if node.op == "Relu"}

    def lower_bounds(self, objective, lower, upper, *, method="crown", iterations=20) -> BoundResult:
        rng, rows = np.random.default_rng(0), (objective.shape[1], len(objective))
        slopes = {i: self.scale * rng.random((*rows, *shape), dtype=np.float32) for i, shape in self._relus.items()}
        return BoundResult(np.full(rows[::-1], 1e9, np.float32), slopes)


class Wild(Stray):
    """The same far outside of [0, 1]."""

    scale = -1e3


@BOTH
@pytest.mark.parametrize("engine", [Stray, Wild])
def test_no_engine_proves_what_does_not_hold(engine: type[Stray], arithmetic: str) -> None:
    claim = replace(FORGET, arithmetic=arithmetic, margin=Fraction(float(np.median(SEEN))) + Fraction(1, 100))
    found = prove_bounded(WIDE, claim, effort=replace(effort(splits=0, restarts=0), engine=engine))
    checked(WIDE, claim, found)
    assert set(np.flatnonzero(float(claim.margin) > SEEN).tolist()) <= set(found.outcome.unknowns)


# --- a kind of claim of one's own ---


@dataclass(frozen=True)
class LogitCap(Claim):
    """On each retained ball the logit of ``label`` is at most ``cap``."""

    cap: Fraction = Fraction(0)


def logit_cap(problem: Problem, claim: Claim) -> Goals:
    if not isinstance(claim, LogitCap) or claim.label is None or claim.radius is None:
        raise ProofError("claim logit_cap", "terms", "a label, a radius and a cap", "others")
    rows, radius, least = problem.rows("retain"), claim.radius, float64_not_below(-claim.cap)
    one = -np.eye(problem.patched.labels)[claim.label].reshape(1, 1, 1, -1)
    return Goals(
        problem.patched, claim.arithmetic, len(rows.y), 1, 1,
        lambda records: problem.domain.ball(rows.x[records], radius),
        lambda records: (np.repeat(one, len(records), axis=0), np.full((len(records), 1, 1), least)),
    )  # fmt: skip


RULES = {**GOALS, "logit_cap": logit_cap}


@BOTH
def test_a_kind_of_ones_own_is_proved_and_decided_by_a_table_of_ones_own(arithmetic: str) -> None:
    claim = LogitCap("logit_cap", arithmetic, "relaxation", radius=Fraction("0.2"), label=0)
    worst = -seen_gaps(goals_of(WIDE, claim, rules=RULES))[:, 0]
    loose = replace(claim, cap=Fraction(float(worst.max())) + 5)
    found = prove_bounded(WIDE, loose, effort=effort(), rules=RULES)
    assert found.outcome.proved == 5
    assert decide_bounded(WIDE, loose, found.proof, "p", rules=RULES) == found.outcome
    tight = replace(claim, cap=Fraction(float(np.median(worst))) - Fraction(1, 100))
    assert set(np.flatnonzero(worst > float(tight.cap)).tolist()) <= set(
        prove_bounded(WIDE, tight, effort=effort(), rules=RULES).outcome.unknowns
    )


def test_the_checker_itself_knows_nothing_of_it() -> None:
    claim = LogitCap("logit_cap", REAL, "relaxation", radius=Fraction("0.2"), label=0, cap=Fraction(10**6))
    proof = prove_bounded(WIDE, claim, effort=effort(), rules=RULES).proof
    assert "logit_cap" not in GOALS
    with pytest.raises(UnsupportedVersionError, match="claim logit_cap: method"):
        decide_bounded(WIDE, claim, proof, "p")
    posing = emit(replace(parse(proof, "p"), kind="forget"))
    with pytest.raises(ProofError, match="p/kind"):
        decide_bounded(WIDE, claim, posing, "p", rules=RULES)
