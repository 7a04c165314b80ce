"""Gates that hold a margin: rules hold_head and hold_within, a row per side condition, float32 rows, and the claims.

The rules over the reals: tests/properties/test_hold_and_shift_z3.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from prune_verify.checker import rules
from prune_verify.checker.claim import Claim, LabelledRows, Problem, decide
from prune_verify.checker.errors import ProofError
from prune_verify.checker.load_onnx import LoadedModel, load_network
from prune_verify.checker.network import evaluate
from prune_verify.checker.patch import Gate, Interval, JointPatch
from prune_verify.checker.rebuild import build
from prune_verify.checker.region import Domain
from prune_verify.checker.rules import BINARY32, REAL
from prune_verify.repair.export import export_patched

F32 = np.float32
ULP, TINY = Fraction(1, 2**24), Fraction(1, 2**126)
NEAR = 1 + Fraction(1, 2**40)
FREE, LABELS = 3, 4  # coordinates that gates read, and logits
R, Z = Fraction(10), Fraction(8)


def gate(label: int, low: float, high: float, *intervals: Interval, records: tuple[int, ...] = (0,)) -> Gate:
    return Gate(label, F32(64), intervals, records, (F32(low), F32(high)))


GATES = (
    gate(0, -0.5, 1.5, Interval(0, F32(0.4), F32(0.6))),
    gate(1, 0.25, 0.75, Interval(1, F32(0.4), F32(0.6)), Interval(2, None, F32(0.6)), records=(1,)),
    gate(0, -3, -1, Interval(2, F32(0.75), None), records=(2,)),
)
H = Fraction(3)
PATCH = JointPatch(LABELS, (), F32(0), F32(0), F32(64), GATES)


# --- the rule table ---


def head(patch: JointPatch = PATCH, spread: Fraction = R, magnitude: Fraction = Z, arithmetic: str = BINARY32) -> Callable[[], None]:  # fmt: skip
    return lambda: rules.hold_head(patch, spread, magnitude, arithmetic)


def ends(low: float, high: float, place: int = 1) -> JointPatch:
    gates = list(GATES)
    gates[place] = replace(gates[place], hold=(F32(low), F32(high)))
    return replace(PATCH, gates=tuple(gates))


def slack(value: float | Fraction) -> JointPatch:
    return replace(PATCH, slack=F32(float(value)))


_S = Fraction(1, 2**18)  # s = _S (K + Z)
LEAST = (R + 2 * H + _S * Z) / (1 - _S)  # K = R + 2 H + s
ROWS = [
    ("the head of the fixture", head(), None),
    ("K at its exact limit in reals", head(slack(16), arithmetic=REAL), None),
    ("K a hair below R + 2 H in reals", head(slack(16), spread=R * NEAR, arithmetic=REAL), "patch.json/slack"),
    ("K of R + H alone", head(slack(13), arithmetic=REAL), "patch.json/slack"),
    ("K without the rounding slack", head(slack(16)), "patch.json/slack"),
    ("K just above its limit in binary32", head(slack(float(LEAST) + 2.0**-18)), None),
    ("K just below its limit in binary32", head(slack(float(LEAST) - 2.0**-18)), "patch.json/slack"),
    ("a large Z makes s exceed K", head(magnitude=Fraction(2**24)), "patch.json/slack"),
    ("K of 2^60", head(slack(2.0**60)), "patch.json/slack"),
    ("K just below 2^60", head(slack(np.nextafter(F32(2.0**60), F32(0)))), None),
    ("a forgotten class", head(replace(PATCH, forgotten_classes=(3,))), "patch.json"),
    ("ends swapped", head(ends(0.75, 0.25)), "patch.json/gates/1/hold"),
    ("ends that are one number", head(ends(0.25, 0.25)), None),
    ("one gate that holds nothing", head(replace(PATCH, gates=(GATES[0], replace(GATES[1], hold=None)))), "patch.json/gates/1"),
    ("a large low end counts for H", head(ends(-60, 0)), "patch.json/slack"),
    ("a large high end counts for H", head(ends(0, 60)), "patch.json/slack"),
    ("the first gate's ends count for H", head(ends(0, 60, 0)), "patch.json/slack"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "call", "path"), ROWS, ids=[row[0] for row in ROWS])
def test_rule_table(sentence: str, call: Callable[[], None], path: str | None) -> None:
    if path is None:
        call()
        return
    with pytest.raises(ProofError) as refused:
        call()
    assert refused.value.path == path, sentence


LOST = ULP * (Z + Fraction(3, 4)) + TINY
QUARTER, THREE = Fraction(1, 4), Fraction(3, 4)
WITHIN = [
    ("the ends themselves in reals", (QUARTER, THREE), REAL, True),
    ("a band that begins a hair above low in reals", (QUARTER * NEAR, THREE), REAL, False),
    ("a band that ends a hair below high in reals", (QUARTER, THREE / NEAR), REAL, False),
    ("the ends themselves in binary32", (QUARTER, THREE), BINARY32, False),
    ("what rounding may lose, exactly", (QUARTER - LOST, THREE + LOST), BINARY32, True),
    ("a hair less below", (QUARTER - LOST + TINY / 2, THREE + LOST), BINARY32, False),
    ("a hair less above", (QUARTER - LOST, THREE + LOST - TINY / 2), BINARY32, False),
]


@pytest.mark.parametrize(("sentence", "band", "arithmetic", "expected"), WITHIN, ids=[row[0] for row in WITHIN])
def test_hold_within(sentence: str, band: tuple[Fraction, Fraction], arithmetic: str, *, expected: bool) -> None:
    assert rules.hold_within(GATES[1], band, Z, arithmetic) is expected, sentence


def test_the_larger_end_decides_what_rounding_loses() -> None:
    """H of the gate is the greater size of its ends, whichever it is."""
    for low, high in ((-500, 1), (-1, 500)):
        held, lost = replace(GATES[1], hold=(F32(low), F32(high))), ULP * (Z + 500) + TINY
        assert rules.hold_within(held, (low - lost, high + lost), Z, BINARY32)
        assert not rules.hold_within(held, (low - lost + TINY, high + lost), Z, BINARY32)


def test_a_gate_without_ends_holds_nothing() -> None:
    with pytest.raises(ProofError) as refused:
        rules.hold_within(replace(GATES[0], hold=None), (Fraction(0), Fraction(1)), Z, REAL)
    assert refused.value.path == "patch.json/gates"


# --- float32 rows ---


def _base() -> LoadedModel:
    """A network whose logits are its inputs beyond the coordinates that gates read, exactly."""
    return load_network(_base_file(), "base.onnx")


def _base_file() -> bytes:
    weight = np.zeros((LABELS, FREE + LABELS), F32)
    weight[:, FREE:] = np.eye(LABELS)
    node = helper.make_node("Gemm", ["x", "w"], ["z"], transB=1)
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", c])
        for n, c in (("x", FREE + LABELS), ("z", LABELS))
    ]
    graph = helper.make_graph([node], "base", ends[:1], ends[1:], [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model.SerializeToString()


BASE = _base()


def _patch(scale: float, gates: tuple[Gate, ...] = GATES) -> JointPatch:
    """The least K that rule hold_head accepts for logits of at most ``scale``, to within an ulp or two."""
    size = max(abs(Fraction(float(end))) for one in gates for end in one.hold or ())
    least = (2 * Fraction(scale) + 2 * size + _S * Fraction(scale)) / (1 - _S)
    found = JointPatch(LABELS, (), F32(0), F32(0), np.nextafter(F32(float(least)), F32(np.inf)), gates)
    rules.hold_head(found, 2 * Fraction(scale), Fraction(scale), BINARY32)
    return found


def _rows(rng: np.random.Generator, count: int, scale: float) -> npt.NDArray[np.float32]:
    """Coordinates that open no gate, one, several or none quite; logits at both ends, tied, and an ulp apart."""
    z = rng.choice([-1.0, 1.0], (count, LABELS)) * rng.choice([1, 0.5, 2.0**-10, 1e-6], (count, LABELS)) * scale
    z = (z * np.where(rng.random((count, LABELS)) < 0.5, 1, rng.uniform(0.5, 1, (count, LABELS)))).astype(F32)
    tied = rng.random(count) < 0.3
    z[tied, 1:] = z[tied, :1]
    nudged = rng.random(z.shape) < 0.3
    z[nudged] = np.nextafter(z[nudged], rng.choice([-np.inf, np.inf], int(nudged.sum())).astype(F32))
    edges = [0.0, 0.4, 0.5, 0.6, 0.75, 1.0, 0.6 + 1 / 64, 0.4 - 1 / 64, 0.61, np.nextafter(F32(0.6), F32(1)), np.nextafter(F32(0.75), F32(0))]  # fmt: skip
    free = np.where(rng.random((count, FREE)) < 0.2, rng.uniform(0, 1, (count, FREE)), rng.choice(edges, (count, FREE)))
    return np.concatenate([free.astype(F32), np.clip(z, -F32(scale), F32(scale))], axis=1).astype(F32)


def _inside(one: Gate, x: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    found = np.ones(len(x), dtype=np.bool_)
    for i in one.intervals:
        found &= (i.low is None or x[:, i.coordinate] >= i.low) & (i.high is None or x[:, i.coordinate] <= i.high)
    return found


def _margins_outside(out: npt.NDArray[np.float32], label: int, low: Fraction, high: Fraction) -> int:
    """How many rows have a margin of the label outside of [low, high], exactly."""
    own = out[:, label].astype(np.float64)
    rival = np.delete(out, label, axis=1).max(axis=1).astype(np.float64)
    spare = (np.abs(own) + np.abs(rival) + abs(float(low)) + abs(float(high))) * 2.0**-50
    doubtful = np.flatnonzero((own - rival <= float(low) + spare) | (own - rival >= float(high) - spare))
    return sum(not low <= Fraction(own[i]) - Fraction(rival[i]) <= high for i in doubtful)


def _attack(x: npt.NDArray[np.float32], out: npt.NDArray[np.float32], patch: JointPatch, scale: float) -> list[int]:
    """What the rules conclude, on rows as a program answered them; how many rows each conclusion spoke of."""
    z, columns = x[:, FREE:], np.ascontiguousarray(x.T)
    shut = np.array([rules.gates_closed(one, columns, Fraction(0), (BINARY32,))[BINARY32] for one in patch.gates])
    every = shut.all(axis=0)
    np.testing.assert_array_equal(out[every], z[every])
    spoken = [int(every.sum())]
    for place, one in enumerate(patch.gates):
        alone = _inside(one, x) & (np.delete(shut, place, axis=0).all(axis=0))
        others = [j for j in range(LABELS) if j != one.label]
        np.testing.assert_array_equal(out[alone][:, others], z[alone][:, others])
        low, high = (Fraction(float(end)) for end in one.hold or ())
        lost = ULP * (Fraction(scale) + max(abs(low), abs(high))) + TINY
        assert rules.hold_within(one, (low - lost, high + lost), Fraction(scale), BINARY32)
        assert _margins_outside(out[alone], one.label, low - lost, high + lost) == 0
        spoken.append(int(alone.sum()))
    np.testing.assert_array_equal(out[:, 2:], z[:, 2:])  # labels without gates, whatever the gates do
    return spoken


def _run(patch: JointPatch, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    session = ort.InferenceSession(export_patched(_base_file(), BASE, patch), providers=["CPUExecutionProvider"])
    found: npt.NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: x})[0]
    return found


@pytest.mark.parametrize("scale", [2.0**-3, 8.0, 1e6])
def test_the_head_holds_on_adversarial_float_rows(scale: float) -> None:
    """100,000 rows, in numpy's float32 and in onnxruntime."""
    patch, x = _patch(scale), _rows(np.random.default_rng(0), 100_000, scale)
    numbers = evaluate(build(BASE.network, patch), x)
    assert min(_attack(x, numbers, patch, scale)) > 500
    assert min(_attack(x, _run(patch, x), patch, scale)) > 500
    assert (numbers != x[:, FREE:]).any()


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-20, 1e-3, 940.0, 1e9])
def test_the_head_holds_on_millions_of_float_rows(scale: float) -> None:
    rng = np.random.default_rng(1)
    patch = _patch(scale)
    for _ in range(10):
        x = _rows(rng, 100_000, scale)
        _attack(x, evaluate(build(BASE.network, patch), x), patch, scale)


def test_the_nodes_are_the_formula() -> None:
    """N' in rationals from the formula of SPEC section 3, on rows whose every operation is exact in float32."""
    rng, patch = np.random.default_rng(4), replace(PATCH, slack=F32(32))
    x = np.concatenate([rng.integers(0, 129, (300, FREE)) / 128, rng.integers(-32, 33, (300, LABELS)) / 4], axis=1)
    gates = tuple(replace(one, gamma=F32(8)) for one in (
        gate(0, -0.5, 1.5, Interval(0, F32(0.375), F32(0.625))),
        gate(1, 0.25, 0.75, Interval(1, F32(0.375), F32(0.625)), Interval(2, None, F32(0.5))),
        gate(0, -3, -1, Interval(2, F32(0.75), None)),
    ))  # fmt: skip
    out = evaluate(build(BASE.network, replace(patch, gates=gates)), x.astype(F32))
    for row, found in zip(x, out, strict=True):
        z, openness = row[FREE:], [max(0.0, 1 - 8 * _violation(one, row)) for one in gates]
        expected = list(z)
        for y in range(LABELS):
            own = [(g, one.hold) for g, one in zip(openness, gates, strict=True) if one.label == y]
            best = max(value for j, value in enumerate(z) if j != y)
            if own:
                upper = min(best + float(high) + 32 * (1 - g) for g, (_, high) in own)
                lower = max(best + float(low) - 32 * (1 - g) for g, (low, _) in own)
                expected[y] = max(min(z[y], upper), lower)
        assert found.tolist() == expected


def _violation(one: Gate, row: npt.NDArray[np.float64]) -> float:
    return sum(
        max(row[i.coordinate] - (np.inf if i.high is None else float(i.high)), 0)
        + max((-np.inf if i.low is None else float(i.low)) - row[i.coordinate], 0)
        for i in one.intervals
    )


# --- the rounding terms are needed ---


def test_a_margin_is_held_between_the_ends_only_up_to_rounding() -> None:
    """At 2^24 + 2 a margin of 1.5 becomes 2: a band of [1.5, 1.5] would be broken; what the rule pays is enough."""
    held = (gate(0, 1.5, 1.5, Interval(0, F32(0.4), F32(0.6))),)
    size = F32(2**24 + 2)
    row = np.array([[0.5, 0, 0, 0, size, 0, 0]], F32)
    out = evaluate(build(BASE.network, _patch(float(size), held)), row)[0]
    assert Fraction(float(out[0])) - Fraction(float(size)) == 2
    exact = Fraction(3, 2)
    assert not rules.hold_within(held[0], (exact, exact), Fraction(float(size)), BINARY32)
    assert rules.hold_within(held[0], (exact, exact), Fraction(float(size)), REAL)


def test_without_s_a_closed_gate_of_the_label_pulls_the_margin_out_of_the_band() -> None:
    """Logits that all are 2^24 + 4 (R = 0): K = 2 H is enough in reals, and not in float32."""
    held = (gate(0, -1.5, -1.5, Interval(0, F32(0.4), F32(0.6))), gate(0, 1.5, 1.5, Interval(1, F32(0.4), F32(0.6))))
    size, bare = Fraction(2**24 + 4), JointPatch(LABELS, (), F32(0), F32(0), F32(3), held)
    rules.hold_head(bare, Fraction(0), size, REAL)
    with pytest.raises(ProofError, match="hold_head: K"):
        rules.hold_head(bare, Fraction(0), size, BINARY32)
    lost = ULP * (size + Fraction(3, 2)) + TINY
    row = np.array([[0.5, 0, 0, *[2**24 + 4] * LABELS]], F32)
    out = evaluate(build(BASE.network, bare), row)
    assert _margins_outside(out, 0, Fraction(-3, 2) - lost, Fraction(-3, 2) + lost) == 1
    paid = replace(bare, slack=F32(3 + 65))
    rules.hold_head(paid, Fraction(0), size, BINARY32)
    out = evaluate(build(BASE.network, paid), row)
    assert _margins_outside(out, 0, Fraction(-3, 2) - lost, Fraction(-3, 2) + lost) == 0


# --- the claims that follow ---

DOMAIN = Domain(tuple(Fraction(n) for n in [0] * FREE + [-8] * LABELS), tuple(Fraction(n) for n in [1] * FREE + [8] * LABELS))  # fmt: skip
RADIUS = Fraction(1, 64)
BAND = (Fraction(-4), Fraction(2))


def _records(*rows: tuple[float, ...], labels: tuple[int, ...]) -> LabelledRows:
    return LabelledRows(np.array([(*row, 4, -1, 2, 0) for row in rows], F32), np.array(labels, np.int64))


FORGET = _records((0.5, 0, 0), (0, 0.5, 0), (0, 0, 0.875), labels=(0, 1, 0))
RETAIN = _records((0, 0, 0), (0, 0.25, 0.5), labels=(0, 0))


def _problem(patch: JointPatch, forget: LabelledRows = FORGET) -> Problem:
    return Problem(BASE.network, build(BASE.network, patch), patch, DOMAIN, forget, RETAIN)


def _claim(kind: str, arithmetic: str = BINARY32, **changed: object) -> Claim:
    terms = {"band": BAND} if kind == "band" else {}
    return replace(Claim(kind, arithmetic, "structural", radius=RADIUS, **terms), **changed)


@pytest.mark.parametrize("arithmetic", [BINARY32, REAL])
def test_the_honest_patch_is_proved(arithmetic: str) -> None:
    assert decide(_problem(_patch(8.5)), _claim("band", arithmetic)).proved == 3
    assert decide(_problem(_patch(8.5)), _claim("retain_exact", arithmetic)).proved == 2
    assert decide(_problem(_patch(8.5)), _claim("retain_label", arithmetic)).proved == 2
    assert decide(_problem(_patch(8.5)), _claim("locality", arithmetic, radius=None)).proved == 1


def _other(place: int, **changed: object) -> JointPatch:
    gates = list(GATES)
    gates[place] = replace(gates[place], **changed)
    return _patch(8.5, tuple(gates))


BOTH = _records((0.5, 0.5, 0), (0, 0.5, 0), (0, 0, 0.875), labels=(0, 1, 0))
UNKNOWN = [
    ("a band that one gate's ends leave below", _patch(8.5), FORGET, {"band": (Fraction(-2), Fraction(2))}, (2,)),
    ("a band that one gate's ends leave above", _patch(8.5), FORGET, {"band": (Fraction(-4), Fraction(1))}, (0,)),
    ("a band of exactly the ends, in binary32", _patch(8.5), FORGET, {"band": (Fraction(-3), Fraction(2))}, (2,)),
    (
        "balls that leave their gates' boxes; the third touches its edge",
        _patch(8.5),
        FORGET,
        {"radius": Fraction(1, 8)},
        (0, 1),
    ),
    ("a record on which the gate of another label is open too", _patch(8.5), BOTH, {}, (0,)),
    ("a gate that names another record", _other(0, records=(1,)), FORGET, {}, (0,)),
    ("a gate of another label than the record's", _other(0, label=2), FORGET, {}, (0,)),
    ("a gate that names no record", _other(1, records=()), FORGET, {}, (1,)),
    ("a gate that names a record that is none", _other(1, records=(7,)), FORGET, {}, (1,)),
    ("a gate whose support reaches every record", _other(1, gamma=F32(0.5)), FORGET, {}, (0, 2)),
]


@pytest.mark.parametrize(("sentence", "patch", "forget", "changed", "unknowns"), UNKNOWN, ids=[r[0] for r in UNKNOWN])
def test_what_is_not_held_is_unknown(
    sentence: str, patch: JointPatch, forget: LabelledRows, changed: dict, unknowns: tuple[int, ...]
) -> None:
    assert decide(_problem(patch, forget), _claim("band", **changed)).unknowns == unknowns, sentence


def test_without_a_band_the_claim_speaks_of_each_gates_own_ends() -> None:
    outcome = decide(_problem(_patch(8.5)), _claim("band", band=None))
    stated = decide(_problem(_patch(8.5)), _claim("band"))
    assert outcome.unknowns == stated.unknowns
    swapped = replace(_patch(8.5), gates=ends(0.75, 0.25).gates)
    with pytest.raises(ProofError):
        decide(_problem(swapped), _claim("band", band=None))


REFUSED = [
    ("K that is too small for D", replace(_patch(8.5), slack=F32(21)), _claim("band"), "patch.json/slack"),
    ("K that is too small for D, RX", replace(_patch(8.5), slack=F32(21)), _claim("retain_exact"), "patch.json/slack"),
    ("ends swapped", replace(_patch(8.5), gates=ends(0.75, 0.25).gates), _claim("band"), "patch.json/gates/1/hold"),
    ("no radius", _patch(8.5), _claim("band", radius=None), "claim band"),
    ("forgetting by a head that holds", _patch(8.5), _claim("forget", margin=Fraction(1, 8)), "claim forget"),
    ("logits named where all are kept", _patch(8.5), _claim("retain_exact", logits=(0, 1)), "claim retain_exact/logits"),
    ("a gate that holds all of D", _other(0, intervals=(Interval(0, F32(0), F32(1)),)), _claim("band"), "patch.json/gates/0"),
    (
        "a band of a head that takes the label away",
        JointPatch(LABELS, (), F32(1), F32(64), F32(128), tuple(replace(one, hold=None) for one in GATES)),
        _claim("band"),
        "claim band",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "patch", "claim", "path"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_concerns_the_whole_claim_is_refused(sentence: str, patch: JointPatch, claim: Claim, path: str) -> None:
    with pytest.raises(ProofError) as refused:
        decide(_problem(patch), claim)
    assert refused.value.path == path, sentence


def test_a_held_label_is_not_kept_by_a_bound_on_the_base() -> None:
    """RL beside an open gate: the base answers 0 on the ball, but a head that holds may raise label 1 above it."""
    raised = _patch(8.5, (gate(1, 5, 6, Interval(1, F32(0.2), F32(0.6))),))
    problem = _problem(raised)
    assert decide(problem, _claim("retain_label")).conflicts == (1,)
    answered = evaluate(problem.patched, RETAIN.x).argmax(axis=1).tolist()
    assert (evaluate(BASE.network, RETAIN.x).argmax(axis=1).tolist(), answered) == ([0, 0], [0, 1])
