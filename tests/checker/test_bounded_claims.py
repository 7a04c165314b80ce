"""Claims decided by bounds: what a proof may and may not claim, and that the numbers are the checker's own."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from prune_verify.checker import bounded_claims
from prune_verify.checker.bounded_claims import (
    decide_bounded,
    goals_of,
    pair_network,
    record_query,
)
from prune_verify.checker.claim import Claim, LabelledRows, Problem
from prune_verify.checker.encoding import sha256_hex
from prune_verify.checker.errors import (
    CheckError,
    LimitError,
    ProofError,
    SubjectMismatchError,
    UnsupportedVersionError,
)
from prune_verify.checker.network import Network, Node, evaluate, evaluate_exact
from prune_verify.checker.patch import LearnedPatch
from prune_verify.checker.proof import Proof, emit
from prune_verify.checker.rebuild import build, difference_network
from prune_verify.checker.region import Domain
from prune_verify.checker.relaxation import Hints, crown_intervals, lower_bounds
from prune_verify.checker.rules import BINARY32, REAL
from tests.checker.random_networks import mlp

DOMAIN = Domain((Fraction(0),), (Fraction(1),))
RADIUS = Fraction("0.02")
BASE = mlp(1, 4, 8, 3)
RNG = np.random.default_rng(5)
X = RNG.uniform(0.1, 0.9, (6, 4)).astype(np.float32)
Y = evaluate(BASE, X).argmax(axis=1)


def _patch(push: float, size: float) -> LearnedPatch:
    """Adds about ``push`` to label 2 and takes it from the others, and something of ``size`` that depends on x."""
    first = RNG.standard_normal((5, 4)).astype(np.float32), np.zeros(5, np.float32)
    last = (size * RNG.standard_normal((3, 5))).astype(np.float32), np.array([-push, -push, push], np.float32)
    return LearnedPatch(3, (first, last))


FORGETTING, SMALL = _patch(40.0, 0.1), _patch(0.0, 0.01)


def _problem(patch: LearnedPatch) -> Problem:
    rows = LabelledRows(X, np.minimum(Y, 1))
    return Problem(BASE, build(BASE, patch), patch, DOMAIN, forget=rows, retain=rows)


def _i4(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int32)


FORGET = Claim("forget", REAL, "relaxation", radius=RADIUS, margin=Fraction(1))
CLOSE = Claim("retain_close", REAL, "relaxation", radius=RADIUS, delta=Fraction("0.2"))
PROBLEM = _problem(FORGETTING)
DIFFERENCE = difference_network(Network((Node("Input", (), (4,)),), 0), SMALL)


def _forget(**changes: object) -> Proof:
    digest = PROBLEM.patched.digest()
    plain = Proof("forget", REAL, "relaxation", digest, 6, _i4(1, 1, 1, 1, 1, 1))
    return replace(plain, **changes)


def _close(**changes: object) -> Proof:
    plain = Proof("retain_close", REAL, "relaxation", DIFFERENCE.digest(), 6)
    return replace(plain, **changes)


def _decide(claim: Claim, proof: Proof):
    return decide_bounded(PROBLEM if claim.kind in ("forget", "band") else _problem(SMALL), claim, emit(proof), "p")


def _sets(node: int, values: np.ndarray) -> dict[str, object]:
    return {"active": {node: np.arange(values.shape[1], dtype=np.int32)}, "slopes": {node: values}}


SOME = _i4(1, 1, -1, 1, 1, 1)
SMT = {"method": "relaxation+smt", "choices": SOME, "smt": _i4(2)}
WITH = replace(FORGET, method="relaxation+smt")
RELU, OTHER = 2, 5  # Relu nodes of the patched network: of the base and of the patch
F, C = FORGET, CLOSE
ROWS = [
    ("a forget claim", F, _forget(), None),
    ("in binary32", replace(F, arithmetic=BINARY32), _forget(arithmetic=BINARY32), None),
    ("with slopes", F, _forget(hinted=_i4(1), **_sets(RELU, np.zeros((1, 8), np.float32))), None),
    ("another kind", F, _close(), (ProofError, "p/kind")),
    ("another arithmetic", F, _forget(arithmetic=BINARY32), (ProofError, "p/arithmetic")),
    ("another method", F, _forget(**SMT), (ProofError, "p/method")),
    ("another network", F, _forget(network="0" * 64), (ProofError, "p/network")),
    ("another number of records", F, _forget(records=5, choices=_i4(1, 1, 1, 1, 1)), (ProofError, "p/records")),
    ("too few choices", F, _forget(choices=_i4(1)), (ProofError, "p/choices")),
    ("a choice that is none", F, _forget(choices=_i4(2, 1, 1, 1, 1, 1)), (ProofError, "p/choices")),
    ("slopes of no Relu", F, _forget(hinted=_i4(1), **_sets(1, np.zeros((1, 8), np.float32))), (ProofError, "p/slopes/1")),
    ("slopes of no node", F, _forget(hinted=_i4(1), **_sets(99, np.zeros((1, 8), np.float32))), (ProofError, "p/slopes/99")),
    ("slopes of no neuron", F, _forget(hinted=_i4(1), **_sets(RELU, np.zeros((1, 9), np.float32))), (ProofError, "p/active/2")),
    ("hints for no record", F, _forget(hinted=_i4(6), **_sets(RELU, np.zeros((1, 8), np.float32))), (ProofError, "p/hinted")),
    ("z3 without saying so", F, _forget(choices=SOME, smt=_i4(2)), (ProofError, "p/smt")),
    ("z3 for nothing", WITH, _forget(method="relaxation+smt"), (ProofError, "p/smt")),
    ("z3 beside a bound", WITH, _forget(**SMT | {"smt": _i4(1)}), (ProofError, "p/choices/1")),
    ("z3 in binary32", replace(WITH, arithmetic=BINARY32), _forget(arithmetic=BINARY32, **SMT), (UnsupportedVersionError, "claim forget")),
    ("a structural claim", replace(F, method="structural"), _forget(method="structural"), (ProofError, "p/smt")),
    ("no margin", replace(F, margin=None), _forget(), (ProofError, "claim forget")),
    ("a kind without a rule", replace(F, kind="locality"), _forget(kind="locality"), (UnsupportedVersionError, "claim locality")),
    ("a band without numbers", replace(F, kind="band"), _forget(kind="band"), (ProofError, "claim band")),
    ("z3 for a record that is none", WITH, _forget(**SMT | {"smt": _i4(6)}), (ProofError, "p/smt")),
    ("a retain_close claim", C, _close(), None),
    ("the same in binary32", replace(C, arithmetic=BINARY32), _close(arithmetic=BINARY32), None),
    ("with slopes for each bound", C, _close(hinted=_i4(7, 9), **_sets(2, np.zeros((2, 5), np.float32))), None),
    ("choices of a second atom", C, _close(choices=_i4(*[1] * 36)), (ProofError, "p/choices")),
    ("z3", replace(C, method="relaxation+smt"), _close(method="relaxation+smt", smt=_i4(1)), (ProofError, "p/smt")),
    ("the patched network's digest", C, _close(network=PROBLEM.patched.digest()), (ProofError, "p/network")),
    ("no delta", replace(C, delta=None), _close(), (ProofError, "claim retain_close")),
    ("no radius", replace(C, radius=None), _close(), (ProofError, "claim retain_close")),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "claim", "proof", "expected"), ROWS, ids=[row[0] for row in ROWS])
def test_rules(sentence: str, claim: Claim, proof: Proof, expected: tuple[type[CheckError], str] | None) -> None:
    if expected is None:
        outcome = _decide(claim, proof)
        assert (outcome.total, outcome.proved, outcome.unknowns, outcome.assumptions) == (6, 6, (), ())
        return
    with pytest.raises(expected[0]) as refusal:
        _decide(claim, proof)
    assert refusal.value.path == expected[1]


def test_a_record_without_a_competitor_is_unknown() -> None:
    outcome = _decide(FORGET, _forget(choices=_i4(1, -1, 1, 1, -1, 1)))
    assert (outcome.proved, outcome.unknowns) == (4, (1, 4))


def test_a_competitor_that_does_not_win_proves_nothing() -> None:
    outcome = _decide(FORGET, _forget(choices=_i4(*[0] * 6)))
    assert outcome.proved < 6


def test_a_record_that_rests_on_z3_names_the_question_that_the_checker_wrote() -> None:
    outcome = _decide(WITH, _forget(**SMT))
    name = f"z3_unsat:{sha256_hex(record_query(PROBLEM, WITH, 2).encode())}"
    assert (outcome.proved, outcome.unknowns, outcome.assumptions) == (6, (), (name,))


def test_the_question_is_about_the_ball_cut_to_the_domain() -> None:
    problem = _problem(FORGETTING)
    problem.forget = LabelledRows(np.array([[0, 1, 0.5, 0.5]], np.float32), np.array([0]))
    text = record_query(problem, FORGET, 0)
    for line in (
        "(and (<= 0 x0) (<= x0 (/ 1 50)))",
        "(and (<= (/ 49 50) x1) (<= x1 1))",
        "(and (<= (/ 12 25) x2) (<= x2 (/ 13 25)))",
    ):
        assert f"(assert {line})\n" in text


def test_too_many_records_that_rest_on_z3_are_refused() -> None:
    problem = _problem(FORGETTING)
    problem.forget = LabelledRows(np.tile(X[:1], (65, 1)), np.zeros(65, dtype=np.int64))
    proof = _forget(method="relaxation+smt", records=65, choices=_i4(*[-1] * 65), smt=_i4(*range(65)))
    with pytest.raises(LimitError):
        decide_bounded(problem, WITH, emit(proof), "p")


def test_an_additive_patch_that_was_not_applied_is_refused() -> None:
    problem = _problem(SMALL)
    problem.patched = build(BASE, _patch(0.0, 0.01))
    with pytest.raises(SubjectMismatchError):
        decide_bounded(problem, CLOSE, emit(_close()), "p")


def _reach(network: Network) -> Fraction:
    """The largest |P_j| that exact evaluation finds in the balls."""
    corners = np.array([[(c >> i) & 1 for i in range(4)] for c in range(16)]) * 0.04 - 0.02
    rows = np.concatenate([row.astype(np.float64) + 0.999 * corners for row in X])
    return max(abs(v) for logits in evaluate_exact(network, rows) for v in logits)


@pytest.mark.parametrize(("factor", "proves_all"), [("0.999", False), ("1.2", True)])
@pytest.mark.parametrize("arithmetic", [REAL, BINARY32])
def test_delta_is_met_or_not(factor: str, proves_all: bool, arithmetic: str) -> None:
    claim = replace(CLOSE, arithmetic=arithmetic, delta=_reach(DIFFERENCE) * Fraction(factor))
    outcome = _decide(claim, _close(arithmetic=arithmetic))
    assert (outcome.proved == 6) is proves_all


def test_in_binary32_the_rounding_of_the_sum_counts() -> None:
    """P is exactly 1/8 everywhere: delta 1/8 holds in reals, and in binary32 only with room for fl(z + p)."""
    still = LearnedPatch(3, ((np.zeros((3, 4), np.float32), np.full(3, 0.125, np.float32)),))
    problem = _problem(still)
    digest = difference_network(Network((Node("Input", (), (4,)),), 0), still).digest()
    for arithmetic, delta, expected in (
        (REAL, "0.125000000001", 6),
        (REAL, "0.1249999", 0),
        (BINARY32, "0.125000000001", 0),
        (BINARY32, "0.126", 6),
    ):
        claim = replace(CLOSE, arithmetic=arithmetic, delta=Fraction(delta))
        outcome = decide_bounded(problem, claim, emit(_close(arithmetic=arithmetic, network=digest)), "p")
        assert outcome.proved == expected, (arithmetic, delta)
    moved = evaluate(problem.patched, X).astype(np.float64) - evaluate(BASE, X).astype(np.float64)
    assert (moved != 0.125).any()  # the rounding is there


def test_batches_of_records_and_their_hints(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one record at a time the hints still meet their own records."""
    rng = np.random.default_rng(0)
    slopes = {RELU: rng.random((3, 8)).astype(np.float32), OTHER: np.ones((3, 5), np.float32)}
    active = {RELU: _i4(*range(8)), OTHER: _i4(*range(5))}
    assert PROBLEM.patched.nodes[OTHER].op == "Relu"
    found = []
    for cells in (2**21, 1):
        monkeypatch.setattr("prune_verify.checker.goals._CELLS", cells)
        proof = _forget(hinted=_i4(0, 3, 5), active=active, slopes=slopes)
        tight = [_decide(replace(FORGET, margin=Fraction(m)), proof).unknowns for m in range(60, 100, 2)]
        found.append(tight)
    assert found[0] == found[1]
    assert len(set(found[0])) > 2


def test_the_difference_network_is_what_the_patch_adds() -> None:
    patch = _patch(3.0, 1.0)
    flat = Network((Node("Input", (), (2, 2)), Node("Reshape", (0,), (4,))), 1)
    rows = X.reshape(-1, 2, 2)
    shaped = evaluate(difference_network(Network((Node("Input", (), (2, 2)),), 0), patch), rows)
    np.testing.assert_array_equal(
        shaped, evaluate(difference_network(Network((Node("Input", (), (4,)),), 0), patch), evaluate(flat, rows))
    )
    exact = evaluate(build(BASE, patch), X) - evaluate(BASE, X)
    np.testing.assert_allclose(
        evaluate(difference_network(Network((Node("Input", (), (4,)),), 0), patch), X), exact, atol=1e-4
    )


# --- band, and networks of foreign making ---


def _margin_ends(problem: Problem) -> tuple[Fraction, Fraction]:
    """The least and the greatest margin of the forgotten label that exact evaluation finds in the balls."""
    corners = np.array([[(c >> i) & 1 for i in range(4)] for c in range(16)]) * 0.04 - 0.02
    found = []
    for x, y in zip(problem.forget.x, problem.forget.y, strict=True):
        logits = evaluate_exact(problem.patched, x.astype(np.float64) + 0.999 * corners)
        found += [row[y] - max(v for j, v in enumerate(row) if j != y) for row in logits]
    return min(found), max(found)


BAND = Claim("band", REAL, "relaxation", radius=RADIUS)
ENDS = _margin_ends(PROBLEM)
CLAUSES = [0, 0, 1]  # y over each other label; and label 2 over y


def _band(arithmetic: str = REAL) -> Proof:
    return _forget(kind="band", arithmetic=arithmetic, choices=_i4(*CLAUSES * 6))


@pytest.mark.parametrize("arithmetic", [REAL, BINARY32])
@pytest.mark.parametrize(
    ("below", "above", "expected"), [("1", "1", True), ("-0.01", "1", False), ("1", "-0.01", False)]
)
def test_a_band_holds_on_both_sides_or_not_at_all(below: str, above: str, expected: bool, arithmetic: str) -> None:
    claim = replace(BAND, arithmetic=arithmetic, band=(ENDS[0] - Fraction(below), ENDS[1] + Fraction(above)))
    assert (_decide(replace(claim, kind="band"), _band(arithmetic)).proved == 6) is expected


def test_a_band_without_its_last_clause_is_not_proved() -> None:
    claim = replace(BAND, band=(ENDS[0] - 1, ENDS[1] + 1))
    for clause in range(3):
        choices = np.array(CLAUSES * 6, dtype=np.int32)
        choices[clause] = -1
        assert _decide(claim, replace(_band(), choices=choices)).unknowns == (0,)


def _foreign(scale: float) -> Problem:
    """A patched network of foreign making: the base with its weights moved by about ``scale``."""
    rng = np.random.default_rng(3)
    nodes = []
    for node in BASE.nodes:
        arrays = {
            name: array + (scale * rng.standard_normal(array.shape)).astype(np.float32)
            for name, array in node.arrays.items()
        }
        nodes.append(replace(node, arrays=arrays))
    rows = LabelledRows(X, Y)
    return Problem(BASE, Network(tuple(nodes), BASE.output), None, DOMAIN, forget=rows, retain=rows)


def test_the_pair_network_has_both_outputs_side_by_side() -> None:
    problem = _foreign(0.1)
    both = evaluate(pair_network(problem.base, problem.patched), X)
    np.testing.assert_array_equal(both, np.concatenate([evaluate(BASE, X), evaluate(problem.patched, X)], axis=1))
    same = Network((Node("Input", (), (4,)),), 0)
    np.testing.assert_array_equal(evaluate(pair_network(same, same), X), np.concatenate([X, X], axis=1))


def _plain(problem: Problem, claim: Claim) -> bytes:
    goals = goals_of(problem, claim)
    return emit(Proof(claim.kind, claim.arithmetic, "relaxation", goals.network.digest(), goals.records))


@pytest.mark.parametrize("arithmetic", [REAL, BINARY32])
@pytest.mark.parametrize("kind", ["retain_label", "retain_close"])
def test_claims_about_networks_of_foreign_making(kind: str, arithmetic: str) -> None:
    claim = Claim(kind, arithmetic, "relaxation", radius=Fraction("0.001"), delta=Fraction("0.5"))
    near, far = _foreign(0.0005), _foreign(2.0)
    assert decide_bounded(near, claim, _plain(near, claim), "p").proved >= 5
    outcome = decide_bounded(far, claim, _plain(far, claim), "p")
    moved = evaluate(far.patched, X).argmax(axis=1) != Y
    if kind == "retain_close":
        moved = (np.abs(evaluate(far.patched, X) - evaluate(BASE, X)) > 0.5).any(axis=1)
    assert set(np.flatnonzero(moved)) <= set(outcome.unknowns)
    assert moved.any()


def _tuned(size: float) -> Problem:
    """The last layer of the base changed, every other node the base's own."""
    rng, last = np.random.default_rng(2), BASE.nodes[-1]
    arrays = {n: a + (size * rng.standard_normal(a.shape)).astype(np.float32) for n, a in last.arrays.items()}
    rows = LabelledRows(X, Y)
    patched = Network((*BASE.nodes[:-1], replace(last, arrays=arrays)), BASE.output)
    return Problem(BASE, patched, None, DOMAIN, forget=rows, retain=rows)


def test_a_shared_trunk_makes_retain_close_over_the_reals_the_exact_difference() -> None:
    """The two heads read one value h of 8 ReLUs: the bound is that of (W' - W) h + b' - b over the enclosure of h."""
    problem = _tuned(0.01)
    claim = Claim("retain_close", REAL, "relaxation", radius=Fraction("0.05"), delta=Fraction(1))
    goals = goals_of(problem, claim)
    assert [node.op for node in goals.network.nodes].count("Relu") == 1
    box = goals.boxes(np.arange(6))
    known = crown_intervals(goals.network, *box, REAL)
    low, high = known.box(BASE.nodes[-1].inputs[0])
    old, new = BASE.nodes[-1].arrays, problem.patched.nodes[-1].arrays
    weight = new["weight"].astype(np.float64) - old["weight"]
    exact = np.maximum(weight, 0) @ high.T + np.minimum(weight, 0) @ low.T
    exact = (exact.T + new["bias"].astype(np.float64) - old["bias"]).max()
    moved = np.concatenate([-np.eye(3), np.eye(3)], axis=1)
    bounds = {}
    for shared in (True, False):
        pair = pair_network(problem.base, problem.patched, shared=shared)
        found = crown_intervals(pair, *box, REAL)
        rows = np.repeat(np.arange(6), 3)
        bounds[shared] = -lower_bounds(pair, found, np.tile(-moved, (6, 1)), Hints(), REAL, rows).min()
    assert bounds[True] <= exact + 1e-9  # no worse than concretizing at h, and the walk goes on to the input
    assert bounds[True] < bounds[False] / 5
    moves = (evaluate(problem.patched, X).astype(np.float64) - evaluate(BASE, X)).max()
    assert 0 < moves <= bounds[True] + 1e-6


def test_two_executions_share_nothing_in_binary32() -> None:
    problem = _tuned(0.01)
    claim = Claim("retain_close", BINARY32, "relaxation", radius=Fraction("0.05"), delta=Fraction(1))
    network = goals_of(problem, claim).network
    assert network.digest() == pair_network(problem.base, problem.patched).digest()
    assert [node.op for node in network.nodes].count("Relu") == 2
    label = goals_of(problem, replace(claim, kind="retain_label", delta=None)).network
    assert [node.op for node in label.nodes].count("Relu") == 1


def test_equal_networks_differ_by_nothing_over_the_reals_and_by_their_rounding_in_binary32() -> None:
    rows = LabelledRows(X, Y)
    problem = Problem(BASE, BASE, None, DOMAIN, forget=rows, retain=rows)
    claim = Claim("retain_close", REAL, "relaxation", radius=Fraction("0.05"), delta=Fraction(1, 10**9))
    assert decide_bounded(problem, claim, _plain(problem, claim), "p").proved == 6
    claim = replace(claim, arithmetic=BINARY32)
    assert decide_bounded(problem, claim, _plain(problem, claim), "p").proved == 0


def test_a_label_more_is_no_way_to_forget() -> None:
    """Found by attack: a constant logit above all others beats every label, and no answer of the base is given."""
    last = BASE.nodes[-1]
    weight = np.concatenate([last.arrays["weight"], np.zeros((1, 8), np.float32)])
    bias = np.append(last.arrays["bias"], np.float32(1e6))
    wider = replace(last, shape=(4,), arrays={"weight": weight, "bias": bias})
    for nodes, sentence in (
        ((*BASE.nodes[:-1], wider), "the base's output shape"),
        ((Node("Input", (), (3,)), Node("Gather", (0,), (3,), {"axis": (0,), "indices": (0, 1, 2), "index_shape": (3,)})), "the base's input shape"),
    ):  # fmt: skip
        with pytest.raises(SubjectMismatchError) as refusal:
            Problem(BASE, Network(nodes, len(nodes) - 1), None, DOMAIN)
        assert (refusal.value.path, refusal.value.rule) == ("patched.onnx", sentence)


def test_a_tie_at_the_centre_keeps_no_label() -> None:
    flat = Network((Node("Input", (), (2,)),), 0)
    rows = LabelledRows(np.array([[0.5, 0.5], [0.9, 0.1]], np.float32), np.array([0, 0]))
    problem = Problem(flat, flat, None, DOMAIN, forget=rows, retain=rows)
    claim = Claim("retain_label", REAL, "relaxation", radius=Fraction("0.01"))
    assert decide_bounded(problem, claim, _plain(problem, claim), "p").unknowns == (0,)


def test_a_proof_for_another_pair_is_refused() -> None:
    claim = Claim("retain_label", REAL, "relaxation", radius=Fraction("0.001"))
    with pytest.raises(ProofError) as refusal:
        decide_bounded(_foreign(0.0005), claim, _plain(_foreign(0.001), claim), "p")
    assert refusal.value.path == "p/network"


def test_the_last_product_counts_behind_a_reshape_and_not_where_there_is_none() -> None:
    """What p may be: less where a runtime may begin the base's last product with it, the same behind a reshape."""
    ends = np.full((2, 4), 0.25), np.full((2, 4), 0.5)

    def allowed(*more: Node) -> np.ndarray:
        nodes = (*BASE.nodes, *more)
        base = Network(nodes, len(nodes) - 1)
        return bounded_claims._less_the_last_sum(Problem(base, base, None, DOMAIN), ends, 0.5)

    last = BASE.output
    plain = allowed()
    np.testing.assert_array_equal(
        allowed(Node("Reshape", (last,), (3, 1)), Node("Reshape", (last + 1,), (1, 3))), plain
    )
    with_relu = allowed(Node("Relu", (last,), (3,)))
    assert (plain < with_relu).all()
    assert (with_relu < 0.5).all()
    assert (plain > 0.49).all()
