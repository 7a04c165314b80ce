"""Gates at hidden sites: what they read on a ball is enclosed, and only what the enclosure says is claimed."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import onnxruntime as ort
import pytest

from prune_verify.checker.claim import Claim, LabelledRows, Problem, decide
from prune_verify.checker.errors import MalformedInputError, ProofError
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.network import Network, Node, evaluate, evaluate_all
from prune_verify.checker.patch import Gate, Interval, JointPatch
from prune_verify.checker.patch_json import PatchFile, emit_patch, parse_patch
from prune_verify.checker.rebuild import build, coordinates_of, site_nodes, site_size
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
