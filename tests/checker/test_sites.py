"""Gates at hidden sites: what they read on a ball is enclosed, and only what the enclosure says is claimed."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import onnxruntime as ort
import pytest

from prune_verify.checker import rules
from prune_verify.checker.claim import Claim, LabelledRows, Problem, decide
from prune_verify.checker.errors import MalformedInputError, ProofError
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.network import Network, Node, evaluate, evaluate_all, evaluate_exact
from prune_verify.checker.patch import Gate, Interval, JointPatch, ShiftPatch
from prune_verify.checker.patch_json import PatchFile, emit_patch, parse_patch
from prune_verify.checker.rebuild import build, coordinates_of, difference_network, site_nodes, site_size
from prune_verify.checker.region import Domain
from prune_verify.checker.rules import BINARY32, REAL
from prune_verify.checker.sites import Reader
from prune_verify.repair.export import export_patched
from prune_verify.repair.hidden import repair_hidden
from prune_verify.repair.threat_model import ThreatModel
from tests.checker.random_networks import mlp as random_mlp
from tests.repair.bases import cnn, mlp

DOMAIN = Domain((Fraction(0),), (Fraction(1),))
RNG = np.random.default_rng(3)
RADIUS, RETAINED = Fraction("0.01"), Fraction("0.005")
BASE = load_network(mlp(), "base.onnx")
X = RNG.uniform(0, 1, (40, *BASE.network.input_shape)).astype(np.float32)
Y = evaluate(BASE.network, X).argmax(axis=1).astype(np.int64)
FORGET, RETAIN = LabelledRows(X[:4], Y[:4]), LabelledRows(X[4:], Y[4:])
MODEL = ThreatModel(DOMAIN, RADIUS, RETAINED, cover=1)


def _problem(patch: JointPatch, base: Network = BASE.network) -> Problem:
    return Problem(base, build(base, patch), patch, DOMAIN, FORGET, RETAIN)


def _claim(kind: str, arithmetic: str = BINARY32) -> Claim:
    if kind == "forget":
        return Claim(kind, arithmetic, "structural", radius=RADIUS, margin=MODEL.margin)
    return Claim(kind, arithmetic, "structural", radius=RETAINED)


PATCH = repair_hidden(BASE.network, FORGET, RETAIN, MODEL).patch


@pytest.mark.parametrize("arithmetic", [BINARY32, REAL])
def test_every_claim_of_a_hidden_patch_is_proved(arithmetic):
    forget = decide(_problem(PATCH), _claim("forget", arithmetic))
    retain = decide(_problem(PATCH), _claim("retain_exact", arithmetic))
    assert (forget.proved, retain.proved) == (len(FORGET.y), len(RETAIN.y))


def test_the_deployed_file_forgets_on_the_balls_and_keeps_the_rest_bit_for_bit():
    data = export_patched(mlp(), BASE, PATCH)
    patched, base = (ort.InferenceSession(one) for one in (data, mlp()))
    name = patched.get_inputs()[0].name
    for _ in range(50):
        noise = RNG.choice([-1, 1, 0.3], FORGET.x.shape) * float(RADIUS)
        rows = np.clip(FORGET.x + noise, 0, 1).astype(np.float32)
        rows = np.clip(rows, FORGET.x - np.float32(RADIUS) * 0.999, FORGET.x + np.float32(RADIUS) * 0.999)
        logits = patched.run(None, {name: rows})[0].astype(np.float64)
        own = logits[np.arange(len(rows)), FORGET.y]
        logits[np.arange(len(rows)), FORGET.y] = -np.inf
        assert (logits.max(axis=1) - own >= float(MODEL.margin)).all()
        kept = np.clip(RETAIN.x + 0.99 * float(RETAINED) * RNG.choice([-1, 1], RETAIN.x.shape), 0, 1).astype(np.float32)
        np.testing.assert_array_equal(patched.run(None, {name: kept})[0], base.run(None, {name: kept})[0])


def test_a_convolution_can_be_a_site():
    data = cnn()
    base = load_network(data, "cnn.onnx")
    x = RNG.uniform(0, 1, (30, *base.network.input_shape)).astype(np.float32)
    y = evaluate(base.network, x).argmax(axis=1).astype(np.int64)
    forget, retain = LabelledRows(x[:2], y[:2]), LabelledRows(x[2:], y[2:])
    patch = repair_hidden(base.network, forget, retain, MODEL, sites=("relu-0",)).patch
    patched = load_network(export_patched(data, base, patch), "patched.onnx").network
    problem = Problem(base.network, patched, patch, DOMAIN, forget, retain)
    assert decide(problem, _claim("forget")).proved == len(forget.y)
    assert decide(problem, _claim("retain_exact")).proved == len(retain.y)


@pytest.mark.parametrize(
    ("sentence", "sites"),
    [
        ("no site at all", ()),
        ("one site twice", ("relu-0", "relu-0")),
        ("a ReLU that the base does not have", ("relu-9",)),
        ("a pre-activation by another name", ("gemm-0",)),
        ("a ReLU by the name that its file gives it", ("r",)),
        ("a ReLU before the first", ("relu--1",)),
        ("another spelling of a number", ("relu-00",)),
        ("a number with a space", ("relu- 0",)),
        ("upper-case letters", ("ReLU-0",)),
        ("the logits", ("output",)),
        ("the input twice", ("input", "relu-0", "input")),
        ("one that is and one that is not", ("relu-0", "relu-1")),
    ],
)
def test_a_site_is_the_input_or_a_relu_of_the_base(sentence, sites):
    with pytest.raises(MalformedInputError, match="sites of gates"):
        site_nodes(BASE.network, sites)


def test_sites_are_numbered_in_the_order_of_the_digest():
    base = random_mlp(4, 6, 10, 8, 3)
    relus = [i for i, node in enumerate(base.nodes) if node.op == "Relu"]
    assert site_nodes(base, ("relu-1", "input", "relu-0")) == (relus[1], 0, relus[0])
    assert site_size(base, ("input", "relu-0", "relu-1")) == 6 + 10 + 8
    backwards = _other_order(base)
    assert backwards.digest() == base.digest()
    found = [Network(backwards.nodes, i).digest() for i in site_nodes(backwards, ("relu-0", "relu-1"))]
    assert found == [Network(base.nodes, i).digest() for i in site_nodes(base, ("relu-0", "relu-1"))]


def _other_order(base: Network) -> Network:
    """The same network with a dead ReLU in front, so that indices and the order of nodes differ."""
    nodes = [base.nodes[0], Node("Relu", (0,), base.nodes[0].shape)]
    nodes += [replace(node, inputs=tuple(i + 1 if i else 0 for i in node.inputs)) for node in base.nodes[1:]]
    return Network(tuple(nodes), base.output + 1)


def test_patch_files_name_sites_in_one_way():
    data = emit_patch(PatchFile(PATCH, BASE.network.digest()), coordinates_of(BASE.network, PATCH))
    assert b'"site":["relu-0"]' in data
    assert parse_patch(data, "patch.json").patch == PATCH
    for twin in (b'"site":["input"]', b'"site":[]', b'"site":"relu-0"'):
        with pytest.raises(MalformedInputError):
            parse_patch(data.replace(b'"site":["relu-0"]', twin), "patch.json")


def _moved(gate: Gate, step: float) -> Gate:
    intervals = tuple(Interval(i.coordinate, i.low, np.float32(i.high - step)) for i in gate.intervals)
    return Gate(gate.label, gate.gamma, intervals, gate.records)


def test_a_box_that_does_not_hold_the_image_of_the_ball_forgets_nothing():
    first = PATCH.gates[0]
    width = max(float(i.high) for i in first.intervals)
    patch = JointPatch(
        PATCH.labels,
        (),
        PATCH.tau,
        PATCH.shift,
        PATCH.slack,
        (_moved(first, width / 50), *PATCH.gates[1:]),
        PATCH.sites,
    )
    assert 0 in decide(_problem(patch), _claim("forget")).unknowns


def test_a_gate_with_a_wide_support_is_a_conflict():
    wide = tuple(Gate(g.label, np.float32(2.0**-20), g.intervals, g.records) for g in PATCH.gates)
    patch = JointPatch(PATCH.labels, (), PATCH.tau, PATCH.shift, PATCH.slack, wide, PATCH.sites)
    with pytest.raises(ProofError, match="excludes part of the domain"):
        decide(_problem(patch), _claim("retain_exact"))


def test_enclosures_hold_for_what_the_program_computes():
    """Float32 values at the site, on corners and inside of balls, lie in what the reader says of its gates."""
    base = random_mlp(4, 6, 10, 8, 3)
    x = RNG.uniform(0, 1, (8, 6)).astype(np.float32)
    for sites in (("relu-0",), ("relu-1",), ("input", "relu-1")):
        size = site_size(base, sites)
        gates = tuple(Gate(0, np.float32(1), (Interval(j, None, np.float32(0)),), ()) for j in range(size))
        reader = Reader(base, sites, gates, BINARY32)
        loose, tight = (reader._boxes(DOMAIN.ball(x, RADIUS), relaxed=relaxed) for relaxed in (False, True))
        assert (tight[0] >= loose[0]).all()
        assert (tight[1] <= loose[1]).all()
        assert (tight[1] - tight[0] < loose[1] - loose[0]).any() == ("relu-1" in sites)
        for _ in range(40):
            ways = RNG.choice([-1.0, 1.0, 0.2], x.shape)
            values = evaluate_all(base, np.clip(x + ways * float(RADIUS) * 0.999, 0, 1).astype(np.float32))
            found = np.concatenate([values[i].reshape(8, -1) for i in site_nodes(base, sites)], axis=1)
            assert (tight[0] <= found).all()
            assert (found <= tight[1]).all()


# --- rules gate_open and gate_closed at any site, a row per condition ---

F32 = np.float32
ONE = Interval(3, F32(0.25), F32(0.5))
TWO = Interval(7, None, F32(1))
SITE_GATE = Gate(0, F32(4), (ONE, TWO), (0,))
PLACE = {3: 0, 7: 1}
ULP64 = 2.0**-53
TERMS = 2 * 2 + 4
BAR32 = Fraction(1, 4) * (1 + TERMS * Fraction(1, 2**24)) + TERMS * Fraction(1, 2**126)
SPARE = 1 + Fraction(2 * 2 + 4, 2**52)


def _enclosures(*pairs: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.array([[pair[end]] for pair in pairs], dtype=np.float64) for end in (0, 1))


def _just(value: Fraction, *, above: bool) -> float:
    """The float64 number next to ``value``: at or above it, or below."""
    found = float(value)
    if above:
        return float(np.nextafter(found, np.inf)) if Fraction(found) < value else found
    return float(np.nextafter(found, -np.inf)) if Fraction(found) >= value else found


IN = (0.25, 0.5)
OPENED = [
    ("enclosures in the box", (IN, (0, 1)), True),
    ("enclosures that are one number", ((0.5, 0.5), (-9, -9)), True),
    ("an ulp of float64 above an upper edge", ((0.25, 0.5 + 2.0**-53), (0, 1)), False),
    ("an ulp of float64 below a lower edge", ((0.25 - 2.0**-54, 0.5), (0, 1)), False),
    ("the other coordinate above its edge", (IN, (0, 1 + 2.0**-52)), False),
    ("nothing known above", (IN, (0, np.inf)), False),
    ("nothing known below", ((-np.inf, 0.5), (0, 1)), False),
    ("nothing known below where the gate has no lower edge", (IN, (-np.inf, 1)), True),
    ("NaN above", ((0.25, np.nan), (0, 1)), False),
    ("NaN below", ((np.nan, 0.5), (0, 1)), False),
]


@pytest.mark.parametrize(("sentence", "pairs", "expected"), OPENED, ids=[row[0] for row in OPENED])
def test_gate_open_within(sentence, pairs, expected):
    low, high = _enclosures(*pairs)
    assert rules.gate_open_within(SITE_GATE, low, high, PLACE).tolist() == [expected], sentence
    assert rules.gate_open_within(SITE_GATE, low[::-1], high[::-1], {3: 1, 7: 0}).tolist() == [expected], sentence


CLOSED = [
    ("the threshold in reals, paid for the sum", REAL, ((0, 0), (1 + _just(SPARE / 4, above=True), 9)), True),
    ("just below it", REAL, ((0.3, 0.3), (_just(1 + SPARE / 4, above=False), 9)), False),
    ("the threshold in reals is not enough in binary32", BINARY32, ((0.3, 0.3), (1 + _just(SPARE / 4, above=True), 9)), False),
    ("the threshold in binary32, paid for the sum", BINARY32, ((0.3, 0.3), (_just(1 + BAR32 * SPARE, above=True), 9)), True),
    ("just below the threshold in binary32", BINARY32, ((0.3, 0.3), (_just(1 + BAR32 * SPARE, above=False), 9)), False),
    ("far above one edge", BINARY32, ((9, 9), (0, 0)), True),
    ("far below one edge", BINARY32, ((-9, -9), (0, 0)), True),
    ("far below where there is no lower edge", BINARY32, ((0.3, 0.3), (-9, -9)), False),
    ("two coordinates that are half as far each", BINARY32, ((0.63, 0.64), (1.13, 1.14)), True),
    ("two coordinates of which one is inside", BINARY32, ((0.3, 0.63), (1.13, 1.14)), False),
    ("what lies inside is not counted against what lies outside", BINARY32, ((0.3, 0.4), (1.5, 2)), True),
    ("an enclosure that reaches over the box on both sides", BINARY32, ((-9, 9), (0, 2)), False),
    ("high far away, low inside", BINARY32, ((0.3, 99), (0.5, 99)), False),
    ("nothing known", BINARY32, ((-np.inf, np.inf), (-np.inf, np.inf)), False),
    ("NaN", BINARY32, ((np.nan, np.nan), (0, 0)), False),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "arithmetic", "pairs", "expected"), CLOSED, ids=[row[0] for row in CLOSED])
def test_gate_closed_within(sentence, arithmetic, pairs, expected):
    if sentence.startswith("the threshold in reals, paid"):
        pairs = ((0.3, 0.3), pairs[1])
    low, high = _enclosures(*pairs)
    assert rules.gate_closed_within(SITE_GATE, low, high, PLACE, arithmetic).tolist() == [expected], sentence


def test_a_subnormal_slope_closes_nothing():
    """Flushed to 0 it would leave the gate open; patch files with it are refused, and so is the rule."""
    low, high = _enclosures((9, 9), (9, 9))
    for gamma in (F32(2.0**-127), F32(0), F32(-4), F32(np.nan)):
        with pytest.raises(ProofError, match="gamma of at least"):
            rules.gate_closed_within(replace(SITE_GATE, gamma=gamma), low, high, PLACE, BINARY32)
    least = replace(SITE_GATE, gamma=F32(2.0**-126))
    assert rules.gate_threshold(least, REAL) == 2**126


def test_the_float64_sum_never_closes_what_the_exact_sum_leaves_open():
    """Enclosures whose exact least violation lies within some ulps of the bar: closed only where it reaches 1/gamma."""
    rng = np.random.default_rng(8)
    closed = 0
    for _ in range(400):
        count = int(rng.integers(1, 9))
        gamma = F32(rng.uniform(1, 100))
        edges = rng.uniform(-1, 1, count).astype(F32)
        intervals = tuple(Interval(j, None, edge) for j, edge in enumerate(edges))
        share = rng.dirichlet(np.ones(count)) / float(gamma)
        low = (edges.astype(np.float64) + share)[:, np.newaxis] * (1 + rng.integers(-4, 9, (count, 16)) * ULP64)
        found = rules.gate_closed_within(
            Gate(0, gamma, intervals, ()), low, low + 1, {j: j for j in range(count)}, REAL
        )
        for column in np.flatnonzero(found):
            pairs = zip(low[:, column], edges, strict=True)
            exact = sum((max(Fraction(v) - Fraction(float(e)), Fraction(0)) for v, e in pairs), Fraction(0))
            assert exact >= 1 / Fraction(float(gamma))
        closed += int(found.sum())
    assert 0 < closed < 400 * 16


# --- what the rules conclude holds for float32 programs ---


def _value_rows(rng: np.random.Generator, gate: Gate, size: int, count: int, most: int = 30) -> np.ndarray:
    """Rows of values at the gate's edges, just beyond them, and about 1/gamma away in all, by up to ``most`` ulps."""
    x = rng.uniform(0, 2, (count, size)).astype(F32)
    share = rng.dirichlet(np.ones(len(gate.intervals)), count) * rng.choice([0, 0.5, 1, 1, 1, 2], (count, 1))
    for j, interval in enumerate(gate.intervals):
        step = share[:, j] / float(gate.gamma) * (1 + rng.integers(-3, most, count) * 2.0**-24)
        edge = interval.high if interval.low is None else interval.low
        x[:, interval.coordinate] = np.float64(edge) + (step if interval.low is None else -step)
    return np.maximum(x, 0).astype(F32)


def _relu_base(size: int) -> Network:
    """A base whose first ReLU shows its inputs, as far as they are not negative, and whose logits are two of them."""
    weight = np.eye(size, dtype=F32)
    nodes = (
        Node("Input", (), (size,)),
        Node("Linear", (0,), (size,), {"axis": (-1,)}, {"weight": weight}),
        Node("Relu", (1,), (size,)),
        Node("Linear", (2,), (3,), {"axis": (-1,)}, {"weight": weight[:3]}),
    )
    return Network(nodes, 3)


def _openness(gate: Gate, x: np.ndarray) -> np.ndarray:
    """g in float32, by the nodes of the patched network."""
    made = ShiftPatch(3, (gate,), ("relu-0",), np.ones((1, 3), F32))
    return evaluate(difference_network(_relu_base(x.shape[1]), made), x)[:, 0]


ATTACKED = [
    Gate(0, F32(3), (Interval(0, None, F32(0.3)),), ()),
    Gate(0, F32(7), tuple(Interval(j, None, F32(0.1 * j + 0.1)) for j in range(6)), ()),
    Gate(0, F32(1000), tuple(Interval(j, F32(0.7), None) if j % 2 else Interval(j, None, F32(0.7)) for j in range(8)), ()),
    Gate(0, F32(2.0**-20), (Interval(2, None, F32(0.3)), Interval(5, F32(1.7), None)), ()),
]  # fmt: skip


@pytest.mark.parametrize("gate", ATTACKED, ids=["one literal", "six", "eight both ways", "a flat slope"])
def test_gates_are_open_and_closed_as_concluded_on_float_rows(gate):
    """25,000 rows each, so 100,000: what the rules say of exactly known values is what float32 computes."""
    x = _value_rows(np.random.default_rng(6), gate, 8, 25_000)
    g = _openness(gate, x)
    known = x.T.astype(np.float64)
    place = {j: j for j in range(8)}
    opened = rules.gate_open_within(gate, known, known, place)
    closed = rules.gate_closed_within(gate, known, known, place, BINARY32)
    assert (g[opened] == 1).all()
    assert (g[closed] == 0).all()
    assert not (opened & closed).any()
    assert ((g >= 0) & (g <= 1)).all()
    assert min(opened.sum(), (~opened & ~closed).sum()) > 1000


def test_the_rounding_terms_of_a_closed_gate_are_needed():
    """Rows that the threshold 1/gamma of the reals calls closed, and on which float32 leaves the gate a little open."""
    gate = Gate(0, F32(0.7), tuple(Interval(j, None, F32(0.013 * j + 0.001)) for j in range(6)), ())
    x = _value_rows(np.random.default_rng(7), gate, 8, 20_000, 4)
    known, place = x.T.astype(np.float64), {j: j for j in range(8)}
    reals = rules.gate_closed_within(gate, known, known, place, REAL)
    assert (_openness(gate, x)[reals] > 0).any()


def test_the_error_of_the_values_read_is_needed():
    """A ball of one point: its ReLU output in float32 is not the exact one, and a box around the exact one is left."""
    base = random_mlp(4, 6, 10, 8, 3)
    left = 0
    for x in RNG.uniform(0, 1, (40, 1, 6)).astype(np.float32):
        site = site_nodes(base, ("relu-1",))[0]
        real = [Fraction(v) for v in evaluate_exact(Network(base.nodes[: site + 1], site), x)[0]]
        computed = evaluate_all(base, x)[site].reshape(-1)
        for j, (value, exact) in enumerate(zip(computed, real, strict=True)):
            edge = F32(float(exact))
            edge = edge if Fraction(float(edge)) >= exact else np.nextafter(edge, F32(np.inf))
            gate = Gate(0, F32(1), (Interval(j, None, edge),), (0,))
            box = DOMAIN.ball(x, Fraction(0))
            assert (
                not Reader(base, ("relu-1",), (gate,), BINARY32).opened(lambda _, box=box: box, np.arange(1)).any()
                or edge == 0
            )
            left += value > edge
    assert left > 0


# --- conditions of the claims ---


def _hidden(place: int = 0, **changed: object) -> JointPatch:
    gates = list(PATCH.gates)
    gates[place] = replace(gates[place], **changed)
    return replace(PATCH, gates=tuple(gates))


LAST = PATCH.gates[0].intervals[-1]
UNKNOWN = [
    ("a gate that names another record", _hidden(records=(1,)), 0),
    ("a gate that names none", _hidden(records=()), 0),
    ("a gate that names a record that is none", _hidden(records=(99,)), 0),
    ("a gate of another label", _hidden(label=(PATCH.gates[0].label + 1) % 5), 0),
    ("a lower edge beyond the image", _hidden(intervals=(*PATCH.gates[0].intervals[:-1], replace(LAST, low=LAST.high))), 0),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "patch", "record"), UNKNOWN, ids=[row[0] for row in UNKNOWN])
def test_a_record_without_its_gate_is_unknown(sentence, patch, record):
    assert record in decide(_problem(patch), _claim("forget")).unknowns, sentence


def test_a_retained_record_inside_a_support_is_a_conflict():
    """The forget record itself, retained as well: its gate is open on it, and its index is named."""
    x, y = RETAIN.x.copy(), RETAIN.y.copy()
    x[7], y[7] = FORGET.x[2], FORGET.y[2]
    problem = Problem(BASE.network, build(BASE.network, PATCH), PATCH, DOMAIN, FORGET, LabelledRows(x, y))
    outcome = decide(problem, _claim("retain_exact"))
    assert 7 in outcome.conflicts
    assert outcome.proved == len(y) - len(outcome.conflicts)


def test_coordinates_beyond_the_sites_are_refused():
    size = site_size(BASE.network, PATCH.sites)
    gate = replace(PATCH.gates[0], intervals=(Interval(size, None, F32(1)),))
    for patch in (replace(PATCH, gates=(gate,)), ShiftPatch(5, (gate,), PATCH.sites, np.zeros((1, 5), F32))):
        with pytest.raises(MalformedInputError) as refused:
            build(BASE.network, patch)
        assert refused.value.path == "patch.json/gates"


def test_sites_in_another_order_are_another_network():
    base = random_mlp(4, 6, 10, 8, 3)
    gate = Gate(0, F32(1), (Interval(0, None, F32(0)),), (0,))
    made = [JointPatch(3, (), F32(1), F32(9), F32(99), (gate,), sites) for sites in (("relu-0", "relu-1"), ("relu-1", "relu-0"))]  # fmt: skip
    assert build(base, made[0]).digest() != build(base, made[1]).digest()
